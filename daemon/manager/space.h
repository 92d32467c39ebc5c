/* SPDX-License-Identifier: MIT */
#pragma once

/* Places in a queue, within max_tasks and max_bytes: who finds none is refused, waits for some, or has the oldest task dropped,
 * as on_full and the submit say. Those who wait stand in line per queue. Loop; nothing blocks. */

#include "manager/manager.h"

/* Called once: with ok when there may be room (try again, from `retry`), without when the time is over or the queue goes. */
typedef struct SpaceWaiter SpaceWaiter;
struct SpaceWaiter {
        List link; /* QueueRecord::space_waiters */
        Timer timer;
        QueueRecord *queue;
        uint64_t deadline_usec; /* 0 before the first wait: set by manager_wait_space() */
        void (*retry)(SpaceWaiter *w, bool ok);
};
/* block_usec: as the client wants it; 0: the queue's block_timeout. 0 or -ENOMEM. */
int manager_wait_space(Manager *m, QueueRecord *q, SpaceWaiter *w, uint64_t block_usec);
/* The time of w is over: the refusal for it. Negative. */
int manager_still_full(SpaceWaiter *w, Refusal *ret_refusal);
void manager_wait_space_cancel(Manager *m, SpaceWaiter *w);

/* Takes n places and n_bytes for a submit; by: the task that submits, NULL: a client. May cancel tasks of q. What was taken is
 * given back by queue_unreserve(). 0; MANAGER_E_WAIT, with Refusal::full; negative with a refusal. */
int space_reserve(QueueRecord *q, const Task *by, bool may_wait, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq,
                  Refusal *r);
/* Lets those who wait try again, first come first served, until one has to go on waiting. */
void space_fell_free(Manager *m, QueueRecord *q);

/* Between the two nobody who waits is let in: for who takes places in several queues. Not nested; letting go without having kept
 * is fine. */
void space_keep(Manager *m);
void space_let_go(Manager *m);
