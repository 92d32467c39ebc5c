/* SPDX-License-Identifier: MIT */
/* What a queue gives to slots, and what comes back. A task is claimed, and runs; or, where the executor queues by itself, handed
 * over: it is QUEUED still, and taken back when somebody wants it or one with an earlier place turns up, unless it has begun. */

#include "engine/queue_parts.h"

#include <assert.h>

#include "engine/barrier.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/rate.h"
#include "engine/rescuer.h"

/* ---- handed over ---- */

static void unhand(Queue *q, Task *t) {
        assert(t->where == TASK_IN_HANDED);
        list_remove(&t->link);
        q->n_handed--;
        q->pool->n_handed--;
}

/* Back to its place among the ready ones, as if it had never been away. */
static void put_back(Queue *q, Task *t) {
        unhand(q, t);
        task_line_insert(&q->lines[QUEUE_READY][t->lane], t);
        t->where = TASK_IN_READY;
}

void queue_recall_task(Queue *q, Task *t) {
        Slot *slot = t->slot;
        Executor *x = q->pool->executor;
        if (x->ops->take_back(x, slot, t)) {
                pool_release(q->pool, slot);
                put_back(q, t);
        } else {
                queue_began(q, t);
                pool_announce(q->pool, slot);
        }
}

/* From the last one on, so that the executor does not begin one while those before it are taken from it. */
void queue_recall_after(Queue *q, const Task *first) {
        for (List *link = q->handed.prev, *before = link->prev; link != &q->handed;
             link = before, before = link->prev) {
                Task *t = LIST_ENTRY(link, Task, link);
                if (t->lane == first->lane && t->seq > first->seq)
                        queue_recall_task(q, t);
        }
}

void queue_recall(Queue *q) {
        queue_enter(q);
        while (!list_is_empty(&q->handed))
                queue_recall_task(q, LIST_ENTRY(q->handed.prev, Task, link));
        queue_leave(q);
}

void queue_set_ahead(Queue *q, size_t n) {
        queue_enter(q);
        if (n < q->n_ahead)
                queue_recall(q);
        q->n_ahead = n;
        queue_leave(q);
}

void queue_look(Queue *q) {
        queue_enter(q);
        if (q->rescuer)
                rescuer_look(q->rescuer);
        LIST_FOREACH_SAFE (link, &q->handed) {
                Task *t = LIST_ENTRY(link, Task, link);
                Executor *x = q->pool->executor;
                if (x->ops->has_begun(x, t->slot, t)) {
                        queue_began(q, t);
                        pool_announce(q->pool, t->slot);
                }
        }
        queue_leave(q);
}

Task *queue_first_handed(const Queue *q, TaskLane lane) {
        LIST_FOREACH (link, &q->handed)
                if (LIST_ENTRY(link, Task, link)->lane == lane)
                        return LIST_ENTRY(link, Task, link);
        return NULL;
}

/* ---- running ---- */

static bool has_place(const Queue *q) {
        return q->pauses == 0 && !q->held && q->blocked == EQ_REASON_NONE &&
               q->n_running + q->n_handed < MAX(q->params.max_active, q->clears ? 0 : (uint64_t)q->n_ahead) &&
               rate_allows(q);
}

static bool may_start(const Queue *q) {
        return q->unserved == EQ_REASON_NONE && has_place(q);
}

/* Reserved workers are there for when the others are not. */
static bool may_rescue(const Queue *q) {
        return q->pool->kind == POOL_REMOTE ? !q->no_reserve && has_place(q) : may_start(q);
}

static Task *startable(const Queue *q) {
        Task *t = may_start(q) ? queue_next(q) : NULL;
        return t && t->part != TASK_ALONE && !barrier_may_start(t) ? NULL : t;
}

bool queue_has_startable(const Queue *q) {
        return startable(q) != NULL;
}

void queue_start_running(Queue *q, Task *t) {
        engine_disarm_task(q->engine, t);
        rate_take(q, t);
        task_set_state(t, TASK_EV_START);
        t->attempt += t->attempt < UINT16_MAX;
        t->where = TASK_IN_RUNNING;
        if (t->part != TASK_TOKEN) /* no task of the host, and in no slot: it only counts */
                list_append(&q->running, &t->link);
        q->n_running++;
        q->has_room = true;
}

static Task *claim(Queue *q, Task *t) {
        if (!t)
                return NULL;
        queue_unplace(q, t);
        queue_start_running(q, t);
        if (t->part == TASK_BARRIER) {
                q->held = t;
                barrier_hold(t);
        }
        return t;
}

Task *queue_claim(Queue *q) {
        queue_fill_front(q);
        return claim(q, startable(q));
}

/* What the mark stands behind are READY tasks of a queue that is not serial, so no back-off blocks those after it. */
static Task *behind_mark(const Queue *q) {
        const Task *mark = q->rescue_mark;
        if (!mark)
                return queue_next(q);
        Task *next = task_line_next(queue_ready(q, mark->lane), mark);
        if (next && queue_is_behind_shelf(q, next))
                next = NULL;
        if (mark->lane == TASK_LANE_URGENT)
                return next ? next : queue_next_of_lane(q, TASK_LANE_NORMAL);
        Task *urgent = queue_next_of_lane(q, TASK_LANE_URGENT);
        return urgent ? urgent : next;
}

/* No barrier is passed, as queue_place() takes the mark away before one: what is behind the mark starts alone, or is the next. */
static Task *startable_behind_mark(const Queue *q) {
        Task *t = may_rescue(q) ? behind_mark(q) : NULL;
        if (t && t->part != TASK_ALONE)
                return t == queue_next(q) && barrier_may_start(t) ? t : NULL;
        return t;
}

bool queue_has_rescuable(const Queue *q) {
        Task *t = may_rescue(q) ? queue_next(q) : NULL;
        return t && (t->part == TASK_ALONE || barrier_may_start(t));
}

bool queue_has_behind_mark(const Queue *q) {
        return startable_behind_mark(q) != NULL;
}

Task *queue_claim_marked(Queue *q) {
        queue_fill_front(q);
        Task *mark = q->rescue_mark, *t = claim(q, startable_behind_mark(q));
        q->rescue_mark = mark;
        return t;
}

/* What is counted of a pending task, and its times, stay as they are. One that holds several queues begins at once, and so does what
 * is to be cleared: that says that it begins. */
Task *queue_hand(Queue *q) {
        queue_fill_front(q);
        Task *t = startable(q);
        if (!t)
                return NULL;
        if (t->part != TASK_ALONE || q->clears)
                return queue_claim(q);
        task_line_remove(&q->lines[QUEUE_READY][t->lane], t);
        t->where = TASK_IN_HANDED;
        list_append(&q->handed, &t->link);
        q->n_handed++;
        q->pool->n_handed++;
        q->last_handed_seq[t->lane] = MAX(q->last_handed_seq[t->lane], t->seq);
        return t;
}

void queue_began(Queue *q, Task *t) {
        unhand(q, t);
        q->n_queued--;
        q->n_bytes -= t->bytes;
        queue_start_running(q, t);
}

void queue_stop_running(Queue *q, Task *t) {
        assert(t->where == TASK_IN_RUNNING);
        list_remove(&t->link);
        q->n_running--;
        t->where = TASK_NOWHERE;
        t->slot = NULL;
        t->canceling = t->ending = false;
        if (q->held == t)
                q->held = NULL;
}

void queue_unclaim(Queue *q, Task *t) {
        if (t->where == TASK_IN_HANDED) {
                put_back(q, t);
                return;
        }
        queue_not_started(q, t);
        queue_task_ended(q, t, TASK_EV_RETURN, 0);
}

void queue_not_started(Queue *q, Task *t) {
        t->attempt--;
        rate_put_back(q);
        if (t->part == TASK_BARRIER)
                barrier_not_started(t);
}

void queue_task_ended(Queue *q, Task *t, TaskEvent ev, uint64_t due_usec) {
        queue_enter(q);
        queue_stop_running(q, t);
        if (ev == TASK_EV_RETURN || ev == TASK_EV_RETRY) {
                task_set_state(t, ev);
                t->wait = ev == TASK_EV_RETRY ? TASK_WAIT_BACKOFF : 0;
                t->due_usec = due_usec;
                queue_place(q, t);
                if (t->part == TASK_BARRIER)
                        barrier_return(t);
        } else
                queue_finish(q, t, ev);
        queue_leave(q);
}
