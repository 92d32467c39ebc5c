/* SPDX-License-Identifier: MIT */
/* sd_notify messages. A failure means that nobody listens, which is not eqd's concern: results are ignored.
 *
 * The kernel holds only so many datagrams (net.unix.max_dgram_qlen, often 10), and sd_notify() waits for room while the service
 * manager reads none. For what is told all the time that would be the end of the loop, and of who watches it: it is sent without
 * waiting, by a call of our own, as the library has none that does not wait. */

#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"
#include "base/util.h"

/* False: there is no room now. */
static bool send_now(const char *text) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        const char *path = getenv("NOTIFY_SOCKET");
        size_t n = path ? strlen(path) : 0;
        if (n == 0)
                return true;
        if ((path[0] != '/' && path[0] != '@') ||
            n >= sizeof(a.sun_path)) { /* of the host of a virtual machine, or too long */
                (void)sd_notify(0, text);
                return true;
        }
        memcpy(a.sun_path, path, n);
        if (path[0] == '@')
                a.sun_path[0] = '\0';
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
        return fd < 0 || sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a, size) >= 0 ||
               errno != EAGAIN;
}

void notify_ready(const char *status) {
        (void)sd_notifyf(0, "READY=1\nSTATUS=%s", status);
}

void notify_reloading(void) {
        (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu\nSTATUS=Reloading",
                         (unsigned long long)clock_monotonic(&clock_system));
}

void notify_stopping(const char *status) {
        (void)sd_notifyf(0, "STOPPING=1\nSTATUS=%s", status);
}

void notify_extend(uint64_t usec, const char *status) {
        (void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu%s%s", (unsigned long long)usec, status ? "\nSTATUS=" : "",
                         status ? status : "");
}

int notify_keep(int fd, const char *name) {
        char text[128];
        (void)snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
        int r = sd_pid_notify_with_fds(0, 0, text, &fd, 1);
        if (r > 0)
                r = sd_notify_barrier(0, 5 * USEC_PER_SEC);
        return r < 0 ? r : r == 0 ? -ENOTCONN : 0;
}

void notify_forget(const char *name) {
        (void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

bool notify_status(const char *status, bool stalled) {
        char text[512];
        (void)snprintf(text, sizeof(text), "STATUS=%s\nX_EQD_STALLED=%d", status, stalled);
        return send_now(text);
}

void notify_alive(void) {
        (void)send_now("WATCHDOG=1"); /* who reads none is told by those that wait to be read */
}

bool notify_trigger(const char *status) {
        return sd_notifyf(0, "STATUS=%s\nWATCHDOG=trigger", status) > 0;
}
