/* SPDX-License-Identifier: MIT */
#pragma once

/* The rate of a queue: how often it may start a task. A start takes a token of the queue's bucket; one that came to nothing, as
 * its executor refused it, puts it back; a retry is a start like any other, whatever the lane.
 *
 * What was handed over and has not begun has its token reserved, and takes it when it begins, at the time at which it did. So a
 * thread that was long in coming does not make two starts out of one, and no more than a bucketful waits for threads.
 *
 * All queues that wait for a token are in one heap of the engine, beside that of its tasks. All calls: loop. */

#include "engine/queue.h"

/* ---- for the files of the queue ---- */

/* Has the queue a token for one more? */
bool rate_has_token(const Queue *q);
static inline bool rate_allows(const Queue *q) {
        return !bucket_is_bounded(&q->bucket) || rate_has_token(q);
}
void rate_follow(Queue *q);              /* its params have changed */
void rate_take(Queue *q, const Task *t); /* t begins, or has begun */
void rate_put_back(Queue *q);            /* what was claimed was not started */
/* Before the queue is left: it is looked at again when there is a token, if something waits for one. */
void rate_settle(Queue *q);

/* ---- for the host ---- */

/* When the next task can start, monotonic, if there are no other reasons against it. */
uint64_t rate_next_usec(const Queue *q);

/* ---- for engine.c ---- */

int rate_add_queue(Engine *e);           /* one more that may have to wait. 0 or -ENOMEM */
void rate_remove_queue(Queue *q);        /* one less */
uint64_t rate_due_usec(const Engine *e); /* USEC_NEVER: nobody waits */
void rate_run_due(Engine *e, uint64_t now_usec);
