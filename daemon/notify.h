/* SPDX-License-Identifier: MIT */
#pragma once

/* What eqd tells the service manager. Without NOTIFY_SOCKET nothing happens. Main thread; a datagram each, never waits. */

void notify_ready(const char *status);    /* READY=1 */
void notify_reloading(void);              /* RELOADING=1 with MONOTONIC_USEC; notify_ready() follows */
void notify_stopping(const char *status); /* STOPPING=1 */
void notify_status(const char *status);   /* one line */
