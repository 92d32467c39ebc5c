/* SPDX-License-Identifier: MIT */
#pragma once

/* What becomes of a report of the stall watch: the journal, an event to subscribers, what `queue show` and the status line say.
 *
 * The watchdog thread brings each report to the loop, which knows more of it. A loop that does not take it in time is written
 * for by that thread, with what the report alone says. */

#include "engine/stall.h"

typedef struct Manager Manager;

/* What the loop knows beside the report. */
typedef struct StallDetail {
        uint64_t oldest_seq, oldest_usec; /* pending task that waits longest; 0: none */
        uint64_t n_pending;               /* of the queue */
        int create_error;                 /* why the pool cannot make a worker, negative errno; 0: it can */
} StallDetail;

/* Writes it to the journal. detail NULL: not known. Any thread; does not block. */
void stall_log(const StallReport *r, const StallDetail *detail);
/* One line on what is stuck, without its time: "pool default: slots". */
void stall_describe(const StallReport *r, char *ret, size_t size);

/* Stalls that have not ended, the most serious first; those of more than STALLS_KEPT at once are counted only. */
enum { STALLS_KEPT = 64 };
typedef struct StallList {
        StallReport stalls[STALLS_KEPT]; /* as they were last reported */
        size_t n;
        uint64_t n_begun, n_hung; /* since the start */
} StallList;

/* What is known of it at this moment. Loop. */
void manager_stall_detail(const Manager *m, const StallReport *r, StallDetail *ret);
/* Takes a report in: keeps it, tells subscribers, and logs it unless that was done. Loop. */
void manager_take_stall(Manager *m, const StallReport *r, bool logged);
/* The worst of those that last, or NULL; and since when it does not go on. */
const StallReport *stalls_worst(const StallList *l);
uint64_t stall_since_usec(const StallReport *r); /* monotonic */
/* Tells what is odd about the present settings for the watch. */
void stalls_check_settings(const Manager *m);
/* They themselves. */
StallConfig manager_stall_config(const Manager *m);
