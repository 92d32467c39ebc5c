/* SPDX-License-Identifier: MIT */
#pragma once

/* A task that holds several queues at once, each at its place there. It belongs to one of them, its home, with its id, its pool and
 * its bytes; in each of the others a token stands for it.
 *
 *   pending    the token has the place of a task: nothing behind it starts. It stops nobody else: what has an earlier place, or
 *              is more urgent, goes first
 *   running    once the task and all its tokens are the next of their queues, nothing runs in any of them, and none is paused,
 *              it starts, and its queues stand still until it has ended
 *
 * Why that cannot deadlock, whatever barriers overlap: nothing is held before everything is. Of all barriers that are
 * eligible, take the most urgent and of those the one whose places were given first. All places of a barrier are given in one
 * go, so in each of its queues no other eligible barrier is before it; what is before it are tasks of that queue alone, which
 * need no other. So it starts once those have ended. (Taking the queues one after the other, even in the order of their ids,
 * does deadlock: a queue that is held for a barrier that waits for its second may have a task before the one that another
 * barrier is held up by. See tests/model/barrier.pml.)
 *
 * Only the queues of the loop know of this. Those of threads (xqueue.h) have nothing of it: where threads run the tasks of a queue,
 * what has its place behind a barrier is not handed to them before that has ended.
 *
 * A token shares what holds the task: it waits, backs off, is held, returns to its place with it, and goes when it ends.
 *
 * All calls: loop; nothing blocks. queue_push(), queue_push_again(), queue_cancel(), queue_wait_set() and all others of the task
 * take its tokens along. */

#include "engine/queue.h"

enum { BARRIER_QUEUES_MAX = 16 }; /* with the home */

/* t has been task_init()ed and is not pushed; n of the others, by their ids, were reserved with 0 bytes and those SEQs, in the
 * same turn as the place in its home. 0 or -ENOMEM: the reservations are the caller's still. */
int barrier_make(Engine *e, Task *t, const uint64_t *others, const uint64_t *seqs, size_t n);
/* t is in no queue. Frees what barrier_make() made, after which it is a task like others. Fine for one that is. */
void barrier_forget(Engine *e, Task *t);

void barrier_unreserve(Engine *e, Task *t); /* gives the reservations of the others back: t will not be pushed */
int barrier_reserve_again(Task *t); /* for queue_push_again(). 0, -ENOMEM, QUEUE_E_*, -ENOENT: a queue is gone */
/* All queues and tasks were restored: tokens of what is pending get their places, without those whose queue is gone. 0 or
 * -ENOMEM. */
int barriers_restore(Engine *e);
Task *barrier_over(const Queue *q); /* a pending one that has a token in q; NULL: none. O(barriers) */
/* Whose place in q, away from home, has that number; NULL: none. O(barriers) */
Task *barrier_at(const Queue *q, uint64_t seq);
size_t barrier_n_others(const Engine *e, const Task *t); /* 0: t is none */
/* The i-th of them; NULL: it is gone. */
Queue *barrier_other(const Engine *e, const Task *t, size_t i, uint64_t *ret_id, uint64_t *ret_seq);

/* The task that t stands for, or t. */
Task *barrier_task(const Task *t);

/* Why a barrier that is the next of its home does not start: the queue that it waits for, NULL: none, and what is before it
 * there, NULL: nothing. */
const Queue *barrier_waits_for(const Task *t, const Task **ret_by);

/* For the queue: moves the tokens as their task moves. */
bool barrier_may_start(const Task *t); /* t or a token is the next of its queue */
void barrier_push(Task *t, bool again);
void barrier_shift(Task *t);       /* t->wait has changed */
void barrier_hold(Task *t);        /* t starts */
void barrier_not_started(Task *t); /* it was to, and is in its queues as one that runs */
void barrier_return(Task *t);      /* t ran, and is pending again */
/* t has ended. Returns the number of queues that are to be left once the host was told: they were entered here. */
size_t barrier_end(Task *t, Queue *ret_others[static BARRIER_QUEUES_MAX]);
