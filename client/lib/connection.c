/* SPDX-License-Identifier: MIT */
/* Descriptors that eqd sends come one by one, each with a message that says so. They are kept in order until that message
 * takes them.
 *
 * Output is one growing buffer with a read position; it moves to the front when it has been sent, or when more than half
 * of it has. Descriptors belong to a byte offset: a sendmsg(2) never spans such an offset, so they arrive with the first
 * byte of their message, as the kernel attaches them to the bytes of one call.
 *
 * Input is cut into messages by the scanner, resumably: a message that arrives in a thousand pieces is walked once. */

#include "lib/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
        READ_SIZE = 65536,
        KEEP_SIZE = 1048576,                             /* an empty buffer larger than that is given back */
        INPUT_MAX = EQ_MESSAGE_MAX + EQ_MESSAGE_MAX / 4, /* replies may exceed the limit of requests a little */
};

int connection_open(Connection *c, const char *path, bool wait) {
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        size_t n = strlen(path);

        *c = (Connection)CONNECTION_NULL;
        if (n == 0)
                return -ENOENT;
        if (n >= sizeof(sa.sun_path))
                return -ENAMETOOLONG;
        memcpy(sa.sun_path, path, n + 1);

        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (wait ? 0 : SOCK_NONBLOCK), 0);
        if (fd < 0)
                return -errno;
        int r = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
        if (r == 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
                r = -errno;
        if (r < 0) {
                (void)close(fd); /* nothing was sent: nothing can be lost */
                return r;
        }
        c->fd = fd;
        return 0;
}

int connection_adopt(Connection *c, int fd) {
        int type;
        socklen_t size = sizeof(type);
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
                return -errno;
        if (type != SOCK_STREAM)
                return -EINVAL;
        if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
                return -errno;
        *c = (Connection)CONNECTION_NULL;
        c->fd = fd;
        return 0;
}

static void fd_set_close(FdSet *s) {
        for (unsigned i = 0; i < s->n; i++)
                (void)close(s->fds[i]); /* a duplicate */
        s->n = 0;
}

void connection_truncate(Connection *c, size_t len) {
        while (c->n_fd_sets > 0 && c->fd_sets[c->n_fd_sets - 1].at >= len)
                fd_set_close(&c->fd_sets[--c->n_fd_sets]);
        c->out.len = len;
        c->out.failed = false;
}

void connection_deinit(Connection *c) {
        for (size_t i = 0; i < c->n_fd_sets; i++)
                fd_set_close(&c->fd_sets[i]);
        free(c->fd_sets);
        for (unsigned i = 0; i < c->n_in_fds; i++)
                if (c->in_fds[i] >= 0)
                        (void)close(c->in_fds[i]); /* nobody has seen it */
        eq_buffer_done(&c->out);
        eq_buffer_done(&c->in);
        if (c->fd >= 0)
                (void)close(c->fd); /* what was not sent is lost by intent */
        *c = (Connection)CONNECTION_NULL;
}

static int fd_sets_grow(Connection *c) {
        if (c->n_fd_sets < c->cap_fd_sets)
                return 0;
        size_t cap = c->cap_fd_sets ? 2 * c->cap_fd_sets : 4;
        FdSet *sets = realloc(c->fd_sets, cap * sizeof(*sets));
        if (!sets)
                return -ENOMEM;
        c->fd_sets = sets;
        c->cap_fd_sets = cap;
        return 0;
}

int connection_attach_fds(Connection *c, const int *fds, unsigned n_fds) {
        if (n_fds == 0)
                return 0;
        if (n_fds > EQ_FDS_MAX)
                return -EINVAL;
        int r = fd_sets_grow(c);
        if (r < 0)
                return r;

        FdSet *s = &c->fd_sets[c->n_fd_sets];
        *s = (FdSet) { .at = c->out.len, .end = SIZE_MAX };
        for (unsigned i = 0; i < n_fds; i++) {
                int fd = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
                if (fd < 0) {
                        r = -errno;
                        fd_set_close(s);
                        return r;
                }
                s->fds[s->n++] = fd;
        }
        c->n_fd_sets++;
        return 0;
}

void connection_end_message(Connection *c) {
        FdSet *last = c->n_fd_sets > 0 ? &c->fd_sets[c->n_fd_sets - 1] : NULL;
        if (last && last->end == SIZE_MAX)
                last->end = c->out.len;
}

static void output_compact(Connection *c) {
        size_t n = c->out.len - c->out_pos;
        if (n > 0 && (c->out_pos < READ_SIZE || c->out_pos < n))
                return;
        if (n > 0)
                memmove(c->out.data, c->out.data + c->out_pos, n);
        else if (c->out.cap > KEEP_SIZE)
                eq_buffer_done(&c->out);
        for (size_t i = 0; i < c->n_fd_sets; i++) {
                c->fd_sets[i].at -= c->out_pos;
                c->fd_sets[i].end -= c->out_pos;
        }
        c->out.len = n;
        c->out_pos = 0;
}

/* One sendmsg(2): the message at out_pos with its descriptors, or all up to the next one that has some. Bytes or -errno. */
static ssize_t send_some(Connection *c) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int) * EQ_FDS_MAX)];
        } control = { 0 };
        struct iovec iov = { .iov_base = c->out.data + c->out_pos, .iov_len = c->out.len - c->out_pos };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
        FdSet *s = c->n_fd_sets > 0 ? c->fd_sets : NULL;
        bool with_fds = s && s->at == c->out_pos;

        if (s)
                iov.iov_len = (with_fds ? s->end : s->at) - c->out_pos;
        if (with_fds) {
                mh.msg_control = control.space;
                mh.msg_controllen = CMSG_SPACE(sizeof(int) * s->n);
                struct cmsghdr *cm = CMSG_FIRSTHDR(&mh);
                cm->cmsg_level = SOL_SOCKET;
                cm->cmsg_type = SCM_RIGHTS;
                cm->cmsg_len = CMSG_LEN(sizeof(int) * s->n);
                memcpy(CMSG_DATA(cm), s->fds, sizeof(int) * s->n);
        }
        ssize_t n = sendmsg(c->fd, &mh, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0)
                return -errno;
        if (with_fds) {
                fd_set_close(s);
                memmove(s, s + 1, --c->n_fd_sets * sizeof(*s));
        }
        return n;
}

int connection_flush(Connection *c) {
        while (connection_has_output(c)) {
                ssize_t n = send_some(c);
                if (n == -EINTR)
                        continue;
                if (n == -EAGAIN) {
                        output_compact(c);
                        return 1;
                }
                if (n == -EPIPE || n == -ECONNRESET)
                        c->write_closed = true;
                else if (n < 0)
                        return (int)n;
                else {
                        c->out_pos += (size_t)n;
                        c->n_sent += (uint64_t)n;
                }
        }
        if (c->write_closed) {
                connection_truncate(c, 0);
                c->out_pos = 0;
        }
        output_compact(c);
        return 0;
}

static void input_compact(Connection *c) {
        if (c->in_pos == 0)
                return;
        c->in.len -= c->in_pos;
        memmove(c->in.data, c->in.data + c->in_pos, c->in.len);
        c->in_pos = 0;
        if (c->in.len == 0 && c->in.cap > KEEP_SIZE)
                eq_buffer_done(&c->in);
}

static void keep_fd(Connection *c, int fd) {
        if (c->n_in_fds < CONNECTION_IN_FDS_MAX)
                c->in_fds[c->n_in_fds++] = fd;
        else if (fd >= 0)
                (void)close(fd); /* eqd never sends so many */
}

static void keep_fds(Connection *c, struct msghdr *m) {
        for (struct cmsghdr *cm = CMSG_FIRSTHDR(m); cm; cm = CMSG_NXTHDR(m, cm)) {
                if (cm->cmsg_level != SOL_SOCKET || cm->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < (cm->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                        int fd;
                        memcpy(&fd, CMSG_DATA(cm) + i * sizeof(fd), sizeof(fd));
                        keep_fd(c, fd);
                }
        }
        if (m->msg_flags & MSG_CTRUNC)
                keep_fd(c, -1); /* so that the next one goes to its own message */
}

int connection_take_fd(Connection *c) {
        if (c->n_in_fds == 0)
                return -EBADF;
        int fd = c->in_fds[0];
        memmove(c->in_fds, c->in_fds + 1, --c->n_in_fds * sizeof(c->in_fds[0]));
        return fd >= 0 ? fd : -EMFILE;
}

static ssize_t receive_some(Connection *c) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int) * EQ_FDS_MAX)];
        } control;
        struct iovec iov = { .iov_base = c->in.data + c->in.len, .iov_len = c->in.cap - c->in.len };
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)
        };
        ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n > 0 && (m.msg_controllen > 0 || m.msg_flags & MSG_CTRUNC))
                keep_fds(c, &m);
        return n;
}

int connection_receive(Connection *c) {
        input_compact(c);
        int r = eq_buffer_reserve(&c->in, READ_SIZE);
        if (r < 0)
                return r;
        for (;;) {
                ssize_t n = receive_some(c);
                if (n > 0) {
                        c->in.len += (size_t)n;
                        return 1;
                }
                if (n == 0)
                        return -ECONNRESET;
                if (errno == EAGAIN)
                        return 0;
                if (errno != EINTR)
                        return -errno;
        }
}

int connection_next(Connection *c, EqBytes *ret) {
        size_t avail = c->in.len - c->in_pos;
        if (avail == 0)
                return 0;
        int r = eq_scan(&c->scan, c->in.data + c->in_pos, avail, INPUT_MAX);
        if (r < 0)
                return -EBADMSG;
        if (r == EQ_SCAN_MORE)
                return 0;
        *ret = eq_bytes(c->in.data + c->in_pos, c->scan.pos);
        c->in_pos += c->scan.pos;
        c->scan = (EqScan)EQ_SCAN_NULL;
        return 1;
}
