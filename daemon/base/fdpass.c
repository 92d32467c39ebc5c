/* SPDX-License-Identifier: MIT */
/* sendmsg() and recvmsg() with SCM_RIGHTS. The kernel closes descriptors that did not fit into the control buffer. */

#include "base/fdpass.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/util.h"

typedef union Control {
        struct cmsghdr align;
        char buf[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
} Control;

int fdpass_send(int socket, const struct iovec *iov, size_t n_iov, const int *fds, unsigned n_fds) {
        Control control = { 0 };
        struct msghdr msg = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov }; /* sendmsg() only reads them */
        if (n_fds > 0) {
                msg.msg_control = &control;
                msg.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
                memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
        }
        return sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -errno : 0;
}

int fdpass_receive(int socket, void *buf, size_t size, bool wait, FdpassMessage *ret) {
        Control control;
        struct iovec iov = { .iov_base = buf, .iov_len = size };
        struct msghdr msg = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };

        ssize_t n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | (wait ? 0 : MSG_DONTWAIT));
        if (n < 0)
                return -errno;
        *ret = (FdpassMessage) { .n = (size_t)n, .cut = (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 };
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                ret->n_fds = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                memcpy(ret->fds, CMSG_DATA(c), ret->n_fds * sizeof(int));
        }
        return 0;
}

void fdpass_close(FdpassMessage *m) {
        for (; m->n_fds > 0; m->n_fds--)
                close_fd(m->fds[m->n_fds - 1]);
}
