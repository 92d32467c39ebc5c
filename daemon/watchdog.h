/* SPDX-License-Identifier: MIT */
#pragma once

/* The thread that watches: it looks at the engine's cells (engine/stall.h), asks the loop for signs of life, tells the service
 * manager WATCHDOG=1 while they come, and gives up (a panic) when the configuration says so.
 *
 *      thread: look, ask ------- doorbell ------> loop: answers, takes the reports, asks the spawner
 *                `-------- ring of reports ------^
 *
 * What the loop does not take within a second the thread logs itself. A blocked spawner or journal stops neither. */

#include <uv.h>

#include "engine/stall.h"

typedef struct Watchdog Watchdog;

typedef struct WatchdogHooks {
        /* A report arrived; `logged` if that was done already. Loop. */
        void (*report)(void *host, const StallReport *r, bool logged);
        void (*asked)(void *host); /* a sign of life was asked for; others may be asked in turn. Loop */
        /* Waits, for at most so long, until what was accepted is on disk. 0 or negative errno. Watchdog thread */
        int (*sync)(void *host, uint64_t usec);
        void (*die)(void); /* the end of a panic that nobody ended: abort(). Watchdog thread */
} WatchdogHooks;

typedef struct WatchdogConfig {
        uv_loop_t *loop;
        Watch *watch;       /* outlives the watchdog */
        const char *cgroup; /* below which slots have theirs, for CPU times; NULL: none. Copied */
        StallConfig stall;
        uint64_t panic_timeout_usec;
} WatchdogConfig;

/* Starts the thread. All: loop thread. 0, or negative errno: -EAGAIN no thread, -EMFILE, -ENOMEM. */
int watchdog_start(const WatchdogConfig *config, const WatchdogHooks *hooks, void *host, Watchdog **ret);
void watchdog_set_config(Watchdog *w, const StallConfig *stall,
                         uint64_t panic_timeout_usec); /* holds from the next look on */
void watchdog_touch(Watchdog *w);                      /* all thresholds count from the next look on */
Watchdog *watchdog_stop(Watchdog *w); /* joins the thread, closes handles: run the loop once more. NULL is fine */
