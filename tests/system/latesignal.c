/* SPDX-License-Identifier: MIT */
/* For LD_PRELOAD: SIGTERM comes when a program has decided to wait without an end, for poll(2) or ppoll(2), and has not begun to. Once. */

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
/* ISO C has no conversion between pointers to objects and to functions; POSIX has. */
#define NEXT(name) (*(__typeof__(&(name)) *)&(void *) { dlsym(RTLD_NEXT, #name) })

static void signal_once(void) {
        static int done;
        int saved = errno;
        if (!done++) {
                dprintf(STDERR_FILENO, "SIGTERM comes\n");
                kill(getpid(), SIGTERM);
        }
        errno = saved;
}

EXPORT int poll(struct pollfd *fds, nfds_t n, int timeout) {
        if (timeout < 0)
                signal_once();
        return NEXT(poll)(fds, n, timeout);
}

EXPORT int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask) {
        if (!timeout)
                signal_once();
        return NEXT(ppoll)(fds, n, timeout, mask);
}
