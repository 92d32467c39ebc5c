/* SPDX-License-Identifier: MIT */
/* sd_notify messages. A failure means that nobody listens, which is not eqd's concern: results are ignored. */

#include "notify.h"

#include <errno.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>

#include "base/clock.h"

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
        (void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu\nSTATUS=%s", (unsigned long long)usec, status);
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

void notify_status(const char *status) {
        (void)sd_notifyf(0, "STATUS=%s", status);
}
