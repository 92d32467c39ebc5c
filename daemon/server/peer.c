/* SPDX-License-Identifier: MIT */
/* Two ways to a pidfd. The kernel keeps the process of a peer with the socket and gives its pidfd, which cannot be mistaken. Before
 * it did there is the number only, which another process may have got since: one that was started after the connection was made is
 * not the peer. The number is opened before the start is looked at, so what is opened is the peer, or the peer has ended. */

#include "server/peer.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/procfs.h"
#include "base/util.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

struct PeerWatch {
        uv_poll_t poll;
        int fd;
        void (*ended)(void *userdata);
        void *userdata;
};

static bool has_ended(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        return poll(&p, 1, 0) == 1;
}

static int ask_socket(int socket_fd) {
        int fd;
        socklen_t len = sizeof(fd);
        if (fault_hit(FAULT_PEER))
                return -ENOPROTOOPT;
        if (fault_hit(FAULT_REAPED))
                return -EINVAL;
        return getsockopt(socket_fd, SOL_SOCKET, SO_PEERPIDFD, &fd, &len) < 0 ? -errno : fd;
}

static int open_number(pid_t pid, uint64_t accepted_usec) {
        if (pid <= 0)
                return -ESRCH; /* it is in a namespace that is not seen from here */
        if (fault_hit(FAULT_PIDFD))
                return -EMFILE;
        _cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0)
                return errno == ESRCH ? -ENODATA : -errno;
        unsigned long long ticks = procfs_start_ticks(pid), per_second = (unsigned long long)sysconf(_SC_CLK_TCK);
        if (ticks == 0)
                return has_ended(fd) ? -ENODATA : -EACCES;
        if (ticks * USEC_PER_SEC / per_second > accepted_usec)
                return -ENODATA;
        return TAKE_FD(fd);
}

/* A pidfd; -ENODATA: the peer has ended. */
static int open_peer(int socket_fd, pid_t pid, uint64_t accepted_usec) {
        int fd = ask_socket(socket_fd);
        /* It was reaped, and this kernel gives no pidfd of such ones: each says it its way. */
        if (fd == -ESRCH || fd == -EINVAL)
                return -ENODATA;
        return fd == -ENOPROTOOPT ? open_number(pid, accepted_usec) : fd;
}

static void on_poll(uv_poll_t *handle, int status, int events) {
        PeerWatch *w = handle->data;
        (void)uv_poll_stop(handle);
        w->ended(w->userdata);
}

int peer_watch_new(uv_loop_t *loop, int socket_fd, pid_t pid, uint64_t accepted_usec, void (*ended)(void *userdata),
                   void *userdata, PeerWatch **ret) {
        _cleanup_close_ int fd = open_peer(socket_fd, pid, accepted_usec);
        if (fd == -ENODATA || (fd >= 0 && has_ended(fd)))
                return PEER_E_ENDED;
        if (fd < 0)
                return fd;
        _cleanup_free_ PeerWatch *w = fault_malloc(sizeof(*w));
        if (!w)
                return -ENOMEM;
        *w = (PeerWatch) { .ended = ended, .userdata = userdata };
        int r = uv_poll_init(loop, &w->poll, fd);
        if (r < 0)
                return r;
        w->poll.data = w;
        w->fd = TAKE_FD(fd);
        (void)uv_poll_start(&w->poll, UV_READABLE, on_poll); /* fails for a closing handle only */
        uv_unref((uv_handle_t *)&w->poll);                   /* alone it is no reason to go on */
        *ret = TAKE_PTR(w);
        return 0;
}

static void on_closed(uv_handle_t *handle) {
        free(handle->data);
}

PeerWatch *peer_watch_free(PeerWatch *w) {
        if (!w)
                return NULL;
        (void)uv_poll_stop(&w->poll);
        uv_close((uv_handle_t *)&w->poll, on_closed);
        w->fd = close_fd(w->fd);
        return NULL;
}
