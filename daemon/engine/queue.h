/* SPDX-License-Identifier: MIT */
#pragma once

/* The execution queue: an ordering domain with attributes. It owns no workers.
 *
 * Place: eligible tasks of a lane start in SEQ order, urgent before normal. Tasks that are not eligible yet block nobody
 * and take their place by SEQ when they become eligible. Exception: back-off on a serial queue (max_active = 1) blocks
 * the lane; urgent tasks pass.
 *
 * All calls: loop, unless stated. Nothing blocks. */

#include "base/heap.h"
#include "base/list.h"
#include "engine/task.h"

typedef struct Engine Engine;
typedef struct Pool Pool;
typedef struct Queue Queue;

typedef enum QueueFull { QUEUE_FULL_REJECT, QUEUE_FULL_BLOCK, QUEUE_FULL_DROP_OLDEST } QueueFull;

/* Attributes that the engine looks at; rows of params.def. */
typedef struct QueueParams {
        uint64_t max_active;
        uint64_t max_tasks;
        uint64_t max_bytes;
        QueueFull on_full;
} QueueParams;

/* Positive: a condition for the direct caller. */
enum {
        QUEUE_E_FULL = 1, /* capacity in tasks or bytes */
        QUEUE_E_STOPPED,
        QUEUE_E_DRAINING,
};

/* Answer of a wait for drain, join or flush; called once, from inside engine calls. Embed it in the waiter. */
typedef struct QueueWaiter QueueWaiter;
struct QueueWaiter {
        List link;        /* Queue::drainers, joiners or Queue::flushers */
        uint64_t seq_max; /* flush: counts tasks up to this SEQ */
        uint64_t n_left;  /* flush: of those, how many have not ended */
        uint32_t generation;
        void (*done)(QueueWaiter *w);
};

struct Queue {
        Engine *engine;
        Pool *pool;
        uint64_t id; /* slot 20 bits | generation 33 bits, below 2^53, never reused */
        char name[EQ_NAME_MAX + 1];
        QueueParams params;
        void *owner; /* the manager's */

        List lanes[_TASK_LANE_MAX]; /* QUEUED tasks that came in order, by SEQ */
        Heap early[_TASK_LANE_MAX]; /* QUEUED tasks that became eligible later than their place, by SEQ */
        List backoffs;              /* WAITING after a failed attempt */
        List deferred;              /* WAITING otherwise */
        List running;
        size_t n_queued, n_waiting, n_running, n_lane[_TASK_LANE_MAX], n_backoff[_TASK_LANE_MAX];
        uint64_t n_bytes;                      /* of WAITING and QUEUED tasks */
        uint64_t n_reserved, n_reserved_bytes; /* charged, not pushed yet */
        uint64_t last_seq;

        List run_link; /* Pool::runnable */
        bool runnable;
        unsigned pauses;
        bool draining, stopping, stopped;
        List drainers, joiners, flushers; /* of QueueWaiter */
        uint32_t flush_generation;

        uint64_t n_accepted, n_done, n_failed, n_refused; /* since the queue was made in this process */
};

/* The name must be valid and unused, checked by the caller. first_seq: the SEQ before the first one to be given. */
int queue_new(Engine *e, Pool *pool, const char *name, const QueueParams *params, uint64_t last_seq, Queue **ret);
Queue *queue_free(Queue *q); /* no task may be in it. Ends its waiters' waits by calling them. NULL is fine */
void queue_set_params(Queue *q, const QueueParams *params);

/* Admission: reserves room for n tasks of n_bytes altogether and gives them the SEQs *ret_first_seq ...+n-1. Then each is
 * pushed, in order, or given back by queue_unreserve(). 0, or QUEUE_E_*. */
int queue_reserve(Queue *q, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq);
void queue_unreserve(Queue *q, uint64_t n, uint64_t n_bytes);

/* Hands t over; it was task_init()ed with its reserved SEQ, and due_usec, expire_usec, wait set. Never fails: what can
 * fail has been done before. (Wait-free and for any thread once the inbox of DESIGN section 5 is in.) */
void queue_push(Queue *q, Task *t);

/* The oldest pending task of the normal lane, else of the urgent one, for drop-oldest; NULL if none is pending. */
Task *queue_oldest(Queue *q);

/* 0: canceled and out of the queue (state CANCELED, `finished` was called); 1: it runs; -1: it has ended. O(1). */
int queue_cancel(Queue *q, Task *t);

/* Sets or clears TASK_WAIT_* bits of a pending task: the last one cleared makes it eligible, the first set defers it.
 * 0; 1 if it runs; -1 if it has ended. */
int queue_wait_set(Queue *q, Task *t, uint8_t bits);
int queue_wait_clear(Queue *q, Task *t, uint8_t bits);

/* A finished task of this queue becomes pending again at its own place: retry by hand. Needs a reservation made with
 * queue_reserve_again(), which gives no SEQ. */
int queue_reserve_again(Queue *q, uint64_t n_bytes);
void queue_push_again(Queue *q, Task *t);

void queue_pause(Queue *q);                 /* counts */
int queue_resume(Queue *q);                 /* 0, or 1 if it was not paused */
void queue_drain(Queue *q, QueueWaiter *w); /* refuses tasks until empty, then reopens and calls w */
void queue_stop(Queue *q);                  /* refuses for good; pending tasks run. Repeatable */
void queue_join(Queue *q, QueueWaiter *w);  /* calls w once stopped and empty; also at once */
void queue_flush(Queue *q, QueueWaiter *w); /* calls w when all accepted until now have ended */
void queue_waiter_cancel(QueueWaiter *w);   /* out of its list, not called. Fine for one that was called */

bool queue_is_empty(const Queue *q); /* nothing reserved, waiting, queued, running */
bool queue_has_startable(const Queue *q);
const char *queue_state_name(const Queue *q); /* open paused draining stopping stopped */

/* Why t does not run; *ret_by is the task it waits for, where that is one task of this queue, else NULL. */
eq_reason queue_reason(const Queue *q, const Task *t, const Task **ret_by);
/* Why the next task does not start; EQ_REASON_NONE if none is pending or one is about to. *ret_next may be NULL. */
eq_reason queue_head_reason(const Queue *q, const Task **ret_next, const Task **ret_by);
/* Tasks that start before t. O(pending) */
uint64_t queue_n_ahead(const Queue *q, const Task *t);

/* ---- for pool.c and engine.c ---- */

/* Claims the next startable task (state RUNNING, attempt counted, in `running`), or NULL. */
Task *queue_claim(Queue *q);
void queue_unclaim(Queue *q, Task *t, bool counted); /* back to its place; the attempt counts or does not */
void queue_retry_later(Queue *q, Task *t, uint64_t due_usec);
void queue_finish(Queue *q, Task *t, TaskEvent ev); /* a running one */
void queue_due(Queue *q, Task *t, uint64_t now);    /* its due_item came up: expires, or has waited long enough */
