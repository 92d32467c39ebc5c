/* SPDX-License-Identifier: MIT */
#pragma once

/* What eqd tells the service manager. Without NOTIFY_SOCKET nothing happens. Main thread; a datagram each, never waits. */

#include <stdint.h>

void notify_ready(const char *status);                 /* READY=1 */
void notify_reloading(void);                           /* RELOADING=1 with MONOTONIC_USEC; notify_ready() follows */
void notify_stopping(const char *status);              /* STOPPING=1 */
void notify_extend(uint64_t usec, const char *status); /* the start takes at most so much longer, from now */
/* Gives the service manager a descriptor to hold until the next eqd, and waits (at most 5 s) until it has it. 0; -ENOTCONN:
 * there is none; or another negative errno. */
int notify_keep(int fd, const char *name);
void notify_forget(const char *name);   /* it needs not hold that any longer */
void notify_status(const char *status); /* one line */
