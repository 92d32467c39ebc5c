/* SPDX-License-Identifier: MIT */
/* sd_notify messages. A failure means that nobody listens, which is not eqd's concern: results are ignored. */

#include "notify.h"

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

void notify_extend(uint64_t usec) {
        (void)sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)usec);
}

void notify_status(const char *status, bool stalled) {
        (void)sd_notifyf(0, "STATUS=%s\nX_EQD_STALLED=%d", status, stalled);
}

void notify_alive(void) {
        (void)sd_notify(0, "WATCHDOG=1");
}

bool notify_trigger(const char *status) {
        return sd_notifyf(0, "STATUS=%s\nWATCHDOG=trigger", status) > 0;
}
