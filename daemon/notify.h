/* SPDX-License-Identifier: MIT */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* What eqd tells the service manager. Without NOTIFY_SOCKET nothing happens. Main thread but for what is said; a datagram
 * each. Those of a start, a reload and an end wait while the service manager has too many to read, the others never do. */

void notify_ready(const char *status);    /* READY=1 */
void notify_reloading(void);              /* RELOADING=1 with MONOTONIC_USEC; notify_ready() follows */
void notify_stopping(const char *status); /* STOPPING=1 */
void notify_extend(uint64_t usec,
                   const char *status); /* start or stop take at most so much longer, from now. status NULL: as it is */
/* Gives the service manager a descriptor to hold until the next eqd, and waits (at most 5 s) until it has it. 0; -ENOTCONN:
 * there is none; or another negative errno. */
int notify_keep(int fd, const char *name);
void notify_forget(const char *name); /* it needs not hold that any longer */
/* One line, less than STATUS_MAX; with X_EQD_STALLED. False: not told, there is no room for it now. */
bool notify_status(const char *status, bool stalled);

/* From the watchdog thread, which alone sends these. */
void notify_alive(void); /* WATCHDOG=1 */
/* STATUS and WATCHDOG=trigger in one datagram: the service manager logs the one with the other. False: nobody listens. */
bool notify_trigger(const char *status);
