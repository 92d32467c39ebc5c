/* SPDX-License-Identifier: MIT */
/* The straight execution queue: plain lists, one thread (the loop). A task is in exactly one place, `where`:
 *
 *      lanes[l]   QUEUED, came in order: a list by SEQ               early[l]   QUEUED, became eligible after its place had
 *      backoffs   WAITING for its next attempt; blocks its lane                 passed: a heap by SEQ, looked at first
 *                 on a serial queue                                  deferred   WAITING otherwise; blocks nobody
 *      running    claimed
 *
 * Next to start: the urgent lane before the normal one, in each the lower SEQ of the list's head and the heap's top. When a
 * heap cannot grow, the task is put into the list at its place instead: slower, never lost. */

#include "engine/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/engine.h"

typedef enum TaskWhere { WHERE_NONE, WHERE_LANE, WHERE_EARLY, WHERE_BACKOFF, WHERE_DEFERRED, WHERE_RUNNING } TaskWhere;

static Task *task_of(const List *l) {
        return l ? LIST_ENTRY(l, Task, link) : NULL;
}

/* ---- place ---- */

static void insert_by_seq(List *lane, Task *t) {
        List *after = lane->prev;
        while (after != lane && LIST_ENTRY(after, Task, link)->seq > t->seq)
                after = after->prev;
        list_insert_before(after->next, &t->link);
}

static void place_queued(Queue *q, Task *t) {
        List *lane = &q->lanes[t->lane];
        bool in_order = list_is_empty(lane) || LIST_ENTRY(lane->prev, Task, link)->seq < t->seq;
        q->n_lane[t->lane]++;
        if (!in_order && heap_push(&q->early[t->lane], &t->order_item, t->seq) == 0) {
                t->where = WHERE_EARLY;
                return;
        }
        t->where = WHERE_LANE;
        insert_by_seq(lane, t);
}

/* A pending task goes where its waits say; its state follows. Counted in n_bytes by the caller. */
static void place(Queue *q, Task *t) {
        if (t->wait == 0) {
                if (t->state == EQ_STATE_WAITING)
                        task_set_state(t, TASK_EV_ELIGIBLE);
                q->n_queued++;
                place_queued(q, t);
        } else {
                if (t->state == EQ_STATE_QUEUED)
                        task_set_state(t, TASK_EV_DEFER);
                q->n_waiting++;
                bool backoff = t->wait == TASK_WAIT_BACKOFF;
                t->where = backoff ? WHERE_BACKOFF : WHERE_DEFERRED;
                q->n_backoff[t->lane] += backoff;
                list_append(backoff ? &q->backoffs : &q->deferred, &t->link);
        }
        engine_set_due(q->engine, t);
}

static void unplace(Queue *q, Task *t) {
        switch (t->where) {
        case WHERE_LANE:
        case WHERE_EARLY:
                list_remove(&t->link);
                heap_remove(&q->early[t->lane], &t->order_item);
                q->n_lane[t->lane]--;
                q->n_queued--;
                break;
        case WHERE_BACKOFF:
                q->n_backoff[t->lane]--;
                list_remove(&t->link);
                q->n_waiting--;
                break;
        case WHERE_DEFERRED:
                list_remove(&t->link);
                q->n_waiting--;
                break;
        default:
                assert(!"a task that is not pending has no place");
        }
        heap_remove(&q->engine->due, &t->due_item);
        t->where = WHERE_NONE;
}

static bool is_pending(const Task *t) {
        return t->where == WHERE_LANE || t->where == WHERE_EARLY || t->where == WHERE_BACKOFF ||
               t->where == WHERE_DEFERRED;
}

static bool lane_is_blocked(const Queue *q, TaskLane lane) {
        return q->params.max_active == 1 && q->n_backoff[lane] > 0;
}

static Task *lane_head(const Queue *q, TaskLane lane) {
        Task *in_order = task_of(list_first(&q->lanes[lane]));
        HeapItem *item = heap_peek(&q->early[lane]);
        Task *early = item ? HEAP_ENTRY(item, Task, order_item) : NULL;
        if (early && (!in_order || early->seq < in_order->seq))
                return early;
        return in_order;
}

static Task *head(const Queue *q) {
        for (TaskLane lane = 0; lane < _TASK_LANE_MAX; lane++) {
                Task *t = lane_is_blocked(q, lane) ? NULL : lane_head(q, lane);
                if (t)
                        return t;
        }
        return NULL;
}

/* ---- changes as others see them ---- */

static void changed(Queue *q) {
        pool_queue_changed(q->pool, q);
        pool_run(q->pool);
}

static void tell_space(Queue *q) {
        q->engine->hooks->space(q->engine->host, q);
}

static void call_all(List *waiters) {
        List taken;
        list_take_all(waiters, &taken);
        for (List *l; (l = list_first(&taken));) {
                list_remove(l);
                QueueWaiter *w = LIST_ENTRY(l, QueueWaiter, link);
                w->done(w);
        }
}

bool queue_is_empty(const Queue *q) {
        return q->n_reserved + q->n_waiting + q->n_queued + q->n_running == 0;
}

/* Drain and stop are through when nothing is left. */
static void settle(Queue *q) {
        if (!queue_is_empty(q))
                return;
        if (q->stopping)
                q->stopped = true;
        if (q->draining) {
                q->draining = false;
                call_all(&q->drainers);
        }
        if (q->stopped && queue_is_empty(q))
                call_all(&q->joiners);
}

static bool flush_counts(const QueueWaiter *w, const Task *t) {
        return t->again ? t->again <= w->generation : t->seq <= w->seq_max;
}

static void flush_step(Queue *q, const Task *t) {
        List *l = q->flushers.next, done;
        list_init(&done);
        while (l != &q->flushers) {
                QueueWaiter *w = LIST_ENTRY(l, QueueWaiter, link);
                l = l->next;
                if (!flush_counts(w, t) || --w->n_left > 0)
                        continue;
                list_remove(&w->link);
                list_append(&done, &w->link);
        }
        call_all(&done);
}

/* Out of every container and in a finished state: the host's again. */
static void finished(Queue *q, Task *t) {
        Task copy = *t; /* the host may free it */
        if (t->state == EQ_STATE_DONE)
                q->n_done++;
        else
                q->n_failed++;
        q->engine->hooks->finished(q->engine->host, t);
        flush_step(q, &copy);
        settle(q);
}

/* ---- life ---- */

int queue_new(Engine *e, Pool *pool, const char *name, const QueueParams *params, uint64_t last_seq, Queue **ret) {
        Queue *q = fault_calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->engine = e;
        q->pool = pool;
        q->params = *params;
        q->last_seq = last_seq;
        assert(strlen(name) < sizeof(q->name));
        strcpy(q->name, name);
        List *lists[] = { &q->lanes[0], &q->lanes[1], &q->backoffs, &q->deferred, &q->running,
                          &q->run_link, &q->drainers, &q->joiners,  &q->flushers };
        for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
                list_init(lists[i]);
        int r = engine_add_queue(e, q);
        if (r < 0) {
                free(q);
                return r;
        }
        *ret = q;
        return 0;
}

Queue *queue_free(Queue *q) {
        if (!q)
                return NULL;
        assert(q->n_waiting + q->n_queued + q->n_running == 0);
        call_all(&q->drainers);
        call_all(&q->joiners);
        call_all(&q->flushers);
        if (q->runnable)
                q->pool->sched->dequeue(q->pool, q);
        for (TaskLane lane = 0; lane < _TASK_LANE_MAX; lane++)
                heap_done(&q->early[lane]);
        engine_remove_queue(q->engine, q);
        free(q);
        return NULL;
}

void queue_set_params(Queue *q, const QueueParams *params) {
        q->params = *params;
        changed(q);
        tell_space(q);
}

/* ---- in ---- */

static int admit(Queue *q, uint64_t n, uint64_t n_bytes) {
        uint64_t tasks = q->n_reserved + q->n_queued + q->n_waiting, bytes = q->n_reserved_bytes + q->n_bytes;
        if (q->stopping)
                return QUEUE_E_STOPPED;
        if (q->draining)
                return QUEUE_E_DRAINING;
        if (n > q->params.max_tasks || tasks > q->params.max_tasks - n || n_bytes > q->params.max_bytes ||
            bytes > q->params.max_bytes - n_bytes)
                return QUEUE_E_FULL;
        int r = engine_reserve_due(q->engine, n);
        if (r < 0)
                return r;
        q->n_reserved += n;
        q->n_reserved_bytes += n_bytes;
        return 0;
}

int queue_reserve(Queue *q, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq) {
        int r = q->last_seq > EQ_SEQ_MAX - n ? QUEUE_E_STOPPED : admit(q, n, n_bytes);
        if (r != 0) {
                q->n_refused += n;
                return r;
        }
        *ret_first_seq = q->last_seq + 1;
        q->last_seq += n;
        return 0;
}

int queue_reserve_again(Queue *q, uint64_t n_bytes) {
        return admit(q, 1, n_bytes);
}

static void take_reservation(Queue *q, uint64_t n, uint64_t n_bytes) {
        assert(q->n_reserved >= n && q->n_reserved_bytes >= n_bytes);
        q->n_reserved -= n;
        q->n_reserved_bytes -= n_bytes;
        engine_unreserve_due(q->engine, n);
}

void queue_unreserve(Queue *q, uint64_t n, uint64_t n_bytes) {
        take_reservation(q, n, n_bytes);
        tell_space(q);
        settle(q);
}

static void enter(Queue *q, Task *t) {
        take_reservation(q, 1, t->bytes);
        q->n_bytes += t->bytes;
        t->queue = q;
        place(q, t);
        changed(q);
}

void queue_push(Queue *q, Task *t) {
        assert(t->state == EQ_STATE_WAITING && t->where == WHERE_NONE);
        q->n_accepted++;
        enter(q, t);
}

void queue_push_again(Queue *q, Task *t) {
        task_set_state(t, TASK_EV_AGAIN);
        t->again = q->flush_generation + 1;
        t->canceling = false;
        enter(q, t);
}

/* ---- out, before the start ---- */

/* What others see is right at once: hooks that are called next may run the pool. */
static void leave(Queue *q, Task *t) {
        unplace(q, t);
        q->n_bytes -= t->bytes;
        pool_queue_changed(q->pool, q);
}

Task *queue_oldest(Queue *q) {
        for (int lane = TASK_LANE_NORMAL; lane >= TASK_LANE_URGENT; lane--) {
                Task *t = lane_head(q, (TaskLane)lane);
                if (t)
                        return t;
        }
        List *l = list_first(&q->deferred);
        return task_of(l ? l : list_first(&q->backoffs));
}

int queue_cancel(Queue *q, Task *t) {
        if (t->state == EQ_STATE_RUNNING)
                return 1;
        if (!is_pending(t))
                return -1;
        leave(q, t);
        task_set_state(t, TASK_EV_CANCEL);
        finished(q, t);
        changed(q); /* a back-off that is gone frees its lane */
        tell_space(q);
        return 0;
}

void queue_due(Queue *q, Task *t, uint64_t now) {
        if (t->expire_usec && t->attempt == 0 && t->expire_usec <= now) {
                leave(q, t);
                task_set_state(t, TASK_EV_EXPIRE);
                finished(q, t);
                changed(q);
                tell_space(q);
                return;
        }
        (void)queue_wait_clear(q, t, TASK_WAIT_AT | TASK_WAIT_BACKOFF);
}

static int set_wait(Queue *q, Task *t, uint8_t wait) {
        if (t->state == EQ_STATE_RUNNING)
                return 1;
        if (!is_pending(t))
                return -1;
        if (wait != t->wait) {
                unplace(q, t);
                t->wait = wait;
                place(q, t);
                changed(q);
        }
        return 0;
}

int queue_wait_set(Queue *q, Task *t, uint8_t bits) {
        return set_wait(q, t, t->wait | bits);
}

int queue_wait_clear(Queue *q, Task *t, uint8_t bits) {
        return set_wait(q, t, (uint8_t)(t->wait & ~bits));
}

/* ---- verbs ---- */

void queue_pause(Queue *q) {
        q->pauses++;
        pool_queue_changed(q->pool, q);
}

int queue_resume(Queue *q) {
        if (q->pauses == 0)
                return 1;
        q->pauses--;
        changed(q);
        return 0;
}

void queue_drain(Queue *q, QueueWaiter *w) {
        list_append(&q->drainers, &w->link);
        q->draining = true;
        settle(q);
}

void queue_stop(Queue *q) {
        q->stopping = true;
        settle(q);
}

void queue_join(Queue *q, QueueWaiter *w) {
        list_append(&q->joiners, &w->link);
        settle(q);
}

void queue_flush(Queue *q, QueueWaiter *w) {
        w->seq_max = q->last_seq;
        w->generation = ++q->flush_generation;
        w->n_left = q->n_reserved + q->n_waiting + q->n_queued + q->n_running;
        list_append(&q->flushers, &w->link);
        if (w->n_left == 0) {
                list_remove(&w->link);
                w->done(w);
        }
}

void queue_waiter_cancel(QueueWaiter *w) {
        list_remove(&w->link);
}

/* ---- run ---- */

bool queue_has_startable(const Queue *q) {
        return q->pauses == 0 && q->n_running < q->params.max_active && head(q) != NULL;
}

Task *queue_claim(Queue *q) {
        Task *t = queue_has_startable(q) ? head(q) : NULL;
        if (!t)
                return NULL;
        unplace(q, t);
        q->n_bytes -= t->bytes;
        task_set_state(t, TASK_EV_START);
        t->attempt++;
        t->where = WHERE_RUNNING;
        list_append(&q->running, &t->link);
        q->n_running++;
        return t;
}

static void leave_running(Queue *q, Task *t) {
        assert(t->where == WHERE_RUNNING);
        list_remove(&t->link);
        q->n_running--;
        t->where = WHERE_NONE;
        t->canceling = false;
        pool_queue_changed(q->pool, q);
}

void queue_unclaim(Queue *q, Task *t, bool counted) {
        leave_running(q, t);
        task_set_state(t, TASK_EV_RETURN);
        if (!counted)
                t->attempt--;
        q->n_bytes += t->bytes;
        place(q, t);
        pool_queue_changed(q->pool, q);
}

void queue_retry_later(Queue *q, Task *t, uint64_t due_usec) {
        leave_running(q, t);
        task_set_state(t, TASK_EV_RETRY);
        t->wait = TASK_WAIT_BACKOFF;
        t->due_usec = due_usec;
        q->n_bytes += t->bytes;
        place(q, t);
        pool_queue_changed(q->pool, q);
}

void queue_finish(Queue *q, Task *t, TaskEvent ev) {
        leave_running(q, t);
        task_set_state(t, ev);
        finished(q, t);
}

/* ---- why ---- */

const char *queue_state_name(const Queue *q) {
        if (q->stopped)
                return "stopped";
        if (q->stopping)
                return "stopping";
        if (q->draining)
                return "draining";
        return q->pauses ? "paused" : "open";
}

static eq_reason wait_reason(uint8_t wait) {
        if (wait & TASK_WAIT_HELD)
                return EQ_REASON_HELD;
        if (wait & TASK_WAIT_AFTER)
                return EQ_REASON_AFTER;
        return wait & TASK_WAIT_AT ? EQ_REASON_AT : EQ_REASON_BACKOFF;
}

static const Task *first_backoff(const Queue *q, TaskLane lane) {
        LIST_FOREACH (l, &q->backoffs)
                if (task_of(l)->lane == lane)
                        return task_of(l);
        return NULL;
}

eq_reason queue_reason(const Queue *q, const Task *t, const Task **ret_by) {
        *ret_by = NULL;
        if (!is_pending(t))
                return EQ_REASON_NONE;
        if (t->wait)
                return wait_reason(t->wait);
        if (q->pauses)
                return EQ_REASON_PAUSED;
        if (pool_is_blocked(q->pool))
                return q->pool->blocked_reason;
        if (q->n_running >= q->params.max_active) {
                *ret_by = task_of(list_first(&q->running));
                return q->params.max_active == 1 ? EQ_REASON_SERIAL : EQ_REASON_MAX_ACTIVE;
        }
        if (lane_is_blocked(q, t->lane)) {
                *ret_by = first_backoff(q, t->lane);
                return EQ_REASON_BACKOFF;
        }
        const Task *first = head(q);
        if (first != t) {
                *ret_by = first;
                return EQ_REASON_PRIO;
        }
        return q->pool->n_busy >= q->pool->n_slots_max ? EQ_REASON_SLOTS : EQ_REASON_NONE;
}

eq_reason queue_head_reason(const Queue *q, const Task **ret_next, const Task **ret_by) {
        const Task *by, *next = head(q);
        for (TaskLane lane = 0; !next && lane < _TASK_LANE_MAX; lane++)
                next = lane_head(q, lane); /* behind a back-off */
        *ret_by = NULL;
        if (ret_next)
                *ret_next = next;
        if (!next)
                return EQ_REASON_NONE;
        eq_reason reason = queue_reason(q, next, &by);
        *ret_by = by;
        return reason;
}

static bool is_before(const Task *a, const Task *b) {
        return a->lane != b->lane ? a->lane < b->lane : a->seq < b->seq;
}

uint64_t queue_n_ahead(const Queue *q, const Task *t) {
        uint64_t n = 0;
        for (TaskLane lane = 0; lane < _TASK_LANE_MAX; lane++) {
                LIST_FOREACH (l, &q->lanes[lane])
                        n += is_before(task_of(l), t);
                for (size_t i = 0; i < q->early[lane].n; i++)
                        n += is_before(HEAP_ENTRY(q->early[lane].items[i], Task, order_item), t);
        }
        return n;
}
