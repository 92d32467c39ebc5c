/* SPDX-License-Identifier: MIT */
#pragma once

/* What the files of the queue need from each other and nobody else does. Loop; nothing blocks. But for what is said otherwise the
 * queue has been entered. */

#include "engine/queue.h"

/* ---- queue.c: places ---- */

static inline const TaskLine *queue_ready(const Queue *q, TaskLane lane) {
        return &q->lines[QUEUE_READY][lane];
}

/* What has been accepted, or may be still, and has not ended. */
static inline uint64_t queue_n_unended(const Queue *q) {
        return q->n_queued + q->n_waiting + q->n_running + q->n_reserved;
}

void queue_place(Queue *q, Task *t);   /* one that was nowhere: into the line that its state and `wait` say */
void queue_unplace(Queue *q, Task *t); /* out of its line: nowhere */
/* The task that starts next, of those that were not handed over; NULL: none can. Also of a queue that was not entered. */
Task *queue_next_of_lane(const Queue *q, TaskLane lane);
static inline Task *queue_next(const Queue *q) {
        Task *t = queue_next_of_lane(q, TASK_LANE_URGENT);
        return t ? t : queue_next_of_lane(q, TASK_LANE_NORMAL);
}
Task *queue_backoff_before(const Queue *q, const Task *t); /* whose back-off keeps the place before t; NULL: none */
bool queue_is_behind_shelf(const Queue *q, const Task *t); /* it was taken from the shelf before its turn */
void queue_fill_front(Queue *q);                           /* before anything looks for the next task */
/* t is nowhere; the host owns it when this returns. What it held elsewhere goes on after the host was told. */
void queue_finish(Queue *q, Task *t, TaskEvent ev);
void queue_show(const Queue *q); /* to the watch; of those that were handed over the slots say which have not begun */

/* ---- queue_starts.c: slots ---- */

void queue_start_running(Queue *q, Task *t);          /* it is nowhere */
void queue_stop_running(Queue *q, Task *t);           /* nowhere, and in no slot */
void queue_recall_task(Queue *q, Task *t);            /* handed over; READY after it, or it has begun and is RUNNING */
void queue_recall_after(Queue *q, const Task *first); /* those of its lane whose place is after its own */
Task *queue_first_handed(const Queue *q, TaskLane lane);

/* ---- queue_waits.c: waiters ---- */

void queue_count_end(Queue *q, uint64_t accepted);      /* of the task with that ordinal */
void queue_forget_above(Queue *q, uint64_t n_accepted); /* the newest reservations were given back: what is left */
void queue_collect_waiters(Queue *q, List *over);       /* those whose wait is over; sets `stopped` */
void queue_take_waiters(Queue *q, List *to);            /* all of them */
void queue_call_waiters(List *over);                    /* the queue need not be there any more */
