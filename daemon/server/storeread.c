/* SPDX-License-Identifier: MIT */
/* Its end is seen by a pidfd, so that no other child of eqd is waited for. Who sweeps up what a spawner has left may have reaped it
 * before: then it was killed there. */

#include "server/storeread.h"

#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/program.h"
#include "base/util.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

struct StoreRead {
        List link; /* StoreReads::all */
        StoreReads *all;
        uv_poll_t poll;
        int pidfd;
        void (*done)(void *userdata, int status); /* NULL: nobody asks any more */
        void *userdata;
};

void store_reads_init(StoreReads *rs) {
        list_init(&rs->all);
        rs->n = 0;
}

static int open_pidfd(pid_t pid) {
        int fd = fault_hit(FAULT_PIDFD) ? (errno = EMFILE, -1) : (int)syscall(SYS_pidfd_open, pid, 0);
        return fd < 0 ? -errno : fd;
}

static void on_closed(uv_handle_t *handle) {
        free(handle->data);
}

static void drop(StoreRead *r) {
        list_remove(&r->link);
        r->all->n--;
        uv_close((uv_handle_t *)&r->poll, on_closed);
        r->pidfd = close_fd(r->pidfd);
}

static void on_ended(uv_poll_t *handle, int status, int events) {
        StoreRead *r = handle->data;
        siginfo_t info = { 0 };
        bool ended = waitid((idtype_t)P_PIDFD, (id_t)r->pidfd, &info, WEXITED | WNOHANG) == 0;
        void (*done)(void *userdata, int status) = r->done;
        void *userdata = r->userdata;
        drop(r);
        if (done)
                done(userdata, ended && info.si_code == CLD_EXITED ? info.si_status : -ECHILD);
}

/* A child that nobody will watch. */
static void put_down(pid_t pid) {
        (void)kill(pid, SIGKILL); /* it has just begun, or failed: that does not take long */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

int store_read_new(StoreReads *rs, uv_loop_t *loop, const char *const argv[], int out_fd,
                   void (*done)(void *userdata, int status), void *userdata, StoreRead **ret) {
        pid_t pid;
        if (rs->n >= STORE_READS_MAX)
                return -EUSERS;
        _cleanup_free_ StoreRead *r = fault_calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        int e = fault_hit(FAULT_SPAWN) ? -EAGAIN : program_start(argv, out_fd, STDOUT_FILENO, &pid);
        if (e < 0)
                return e;
        _cleanup_close_ int fd = open_pidfd(pid);
        e = fd < 0 ? fd : uv_poll_init(loop, &r->poll, fd);
        if (e < 0) {
                put_down(pid);
                return e;
        }
        r->all = rs;
        r->done = done;
        r->userdata = userdata;
        r->poll.data = r;
        r->pidfd = TAKE_FD(fd);
        list_append(&rs->all, &r->link);
        rs->n++;
        (void)uv_poll_start(&r->poll, UV_READABLE, on_ended); /* fails for a closing handle only */
        uv_unref((uv_handle_t *)&r->poll);                    /* alone it is no reason to go on */
        *ret = TAKE_PTR(r);
        return 0;
}

StoreRead *store_read_free(StoreRead *r) {
        if (!r)
                return NULL;
        r->done = NULL;
        (void)syscall(SYS_pidfd_send_signal, r->pidfd, SIGKILL, NULL, 0); /* it may have ended */
        return NULL;
}

void store_reads_close(StoreReads *rs) {
        LIST_FOREACH_SAFE (link, &rs->all) {
                StoreRead *r = LIST_ENTRY(link, StoreRead, link);
                (void)store_read_free(r);
                drop(r);
        }
}
