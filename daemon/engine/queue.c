/* SPDX-License-Identifier: MIT */
/* The execution queue on one thread.
 *
 *      reserve          push                    claim              ended
 *     ---------> SEQ ---------> lines[][] ---------------> running -------> out: `finished`
 *                                 |  ^                        |
 *                                 |  `--- return, retry ------'
 *                                 `--- cancel, expire ----------------------> out: `finished`
 *
 * A pending task is in exactly one line: READY if eligible, BACKOFF if it waits for its back-off and nothing else, else
 * DEFERRED. Each line is in order of SEQ, so a task that becomes eligible late is at its place by being put there.
 *
 * Hooks may call back into any function here. So each public function brings the queue into order before it calls one,
 * and what concerns others (the pool, waiters, those who want space) happens when the outermost call leaves.
 *
 * This file has the places, what comes in and what goes out. What slots get is in queue_starts.c, waits for the whole queue in
 * queue_waits.c, why a task does not run in queue_reasons.c. */

#include "engine/queue_parts.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "engine/barrier.h"
#include "engine/engine.h"
#include "engine/pool.h"
#include "engine/rate.h"
#include "engine/rescuer.h"

static const TaskWhere line_where[_QUEUE_LINE_MAX] = {
        [QUEUE_READY] = TASK_IN_READY,
        [QUEUE_BACKOFF] = TASK_IN_BACKOFF,
        [QUEUE_DEFERRED] = TASK_IN_DEFERRED,
};

/* ---- for the watch ---- */

/* Eligible tasks that cannot start because of a back-off before them are rare, and wait for a time, not for anybody. */
static bool is_backing_off(const Queue *q) {
        return q->n_waiting > 0 && q->n_queued > 0 && q->n_running == 0 && !queue_next(q);
}

/* What is held up by another queue is no stall of this one: it is that other queue that stands still, or works. */
static bool is_at_barrier(const Queue *q) {
        if (!q->engine->barriers)
                return false;
        const Task *ignored, *t = q->held ? q->held : queue_next(q);
        if (!t || t->part == TASK_ALONE || !queue_stands_at(q, t, &ignored))
                return false;
        return t->part == TASK_TOKEN || (t != q->held && barrier_waits_for(t, &ignored));
}

/* What waits for a token waits for a time, too. */
void queue_show(const Queue *q) {
        bool waits = is_backing_off(q) || is_at_barrier(q) || !rate_allows(q);
        WATCH_SET(q->watch->n_ready, waits ? 0 : q->n_queued - q->n_handed);
}

static void show_params(const Queue *q) {
        WatchQueue *c = q->watch;
        WATCH_SET(c->max_active, q->params.max_active);
        WATCH_SET(c->stall_usec, q->params.stall_thresh_usec);
        WATCH_SET(c->expected_usec, q->params.expected_runtime_usec);
        WATCH_SET(c->hung_task, (uint8_t)q->params.hung_task);
}

/* ---- life ---- */

static int make(Engine *e, Pool *pool, const char *name, const QueueParams *params, uint64_t id, uint64_t last_seq,
                Queue **ret) {
        assert(strlen(name) <= EQ_NAME_MAX);
        _cleanup_free_ Queue *q = fault_calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->engine = e;
        q->pool = pool;
        q->id = id;
        strcpy(q->name, name);
        q->params = *params;
        q->last_seq = last_seq;
        q->n_pushed = last_seq; /* so an ordinal is mostly the SEQ, and what keeps one for many tasks keeps little */
        for (QueueLine line = 0; line < _QUEUE_LINE_MAX; line++)
                for (TaskLane lane = 0; lane < _TASK_LANE_MAX; lane++)
                        task_line_init(&q->lines[line][lane]);
        list_init(&q->running);
        list_init(&q->handed);
        list_init(&q->run_link);
        list_init(&q->rescue_link);
        list_init(&q->mayday_link);
        list_init(&q->drainers);
        list_init(&q->joiners);
        list_init(&q->flushers);
        q->rate_item = (HeapItem)HEAP_ITEM_NULL;
        rate_follow(q);

        q->watch = watch_queue_new(&e->watch);
        if (!q->watch)
                return -ENOMEM;
        int r = id ? engine_restore_queue(e, q) : engine_add_queue(e, q);
        if (r < 0) {
                watch_queue_free(&e->watch, q->watch);
                return r;
        }
        show_params(q);
        watch_queue_publish(q->watch, q->id, q->name, pool->watch);
        pool->n_queues++;
        *ret = TAKE_PTR(q);
        return 0;
}

int queue_new(Engine *e, Pool *pool, const char *name, const QueueParams *params, uint64_t last_seq, Queue **ret) {
        return make(e, pool, name, params, 0, last_seq, ret);
}

int queue_restore(Engine *e, Pool *pool, const char *name, const QueueParams *params, uint64_t id, uint64_t last_seq,
                  Queue **ret) {
        return id ? make(e, pool, name, params, id, last_seq, ret) : -EINVAL;
}

Queue *queue_free(Queue *q) {
        if (!q)
                return NULL;
        assert(queue_is_empty(q) && q->depth == 0);
        List over;
        list_init(&over);
        queue_take_waiters(q, &over);

        queue_set_rescuer(q, NULL);
        if (q->runnable)
                q->pool->sched->dequeue(q->pool, q);
        q->pool->n_queues--;
        engine_remove_queue(q->engine, q);
        watch_queue_free(&q->engine->watch, q->watch);
        for (QueueLine line = 0; line < _QUEUE_LINE_MAX; line++)
                for (TaskLane lane = 0; lane < _TASK_LANE_MAX; lane++)
                        task_line_deinit(&q->lines[line][lane]);
        free(q);
        queue_call_waiters(&over);
        return NULL;
}

void queue_set_params(Queue *q, const QueueParams *params) {
        queue_enter(q);
        q->has_room = q->has_room || params->max_tasks > q->params.max_tasks || params->max_bytes > q->params.max_bytes;
        q->params = *params;
        rate_follow(q);
        show_params(q);
        queue_leave(q);
}

static void show_unserved(const Queue *q) {
        WATCH_SET(q->watch->unserved, (uint8_t)(q->blocked != EQ_REASON_NONE ? q->blocked : q->unserved));
}

void queue_set_clears(Queue *q, bool clears) {
        if (q->clears == clears)
                return;
        queue_enter(q);
        q->clears = clears;
        queue_recall(q);
        queue_leave(q);
}

void queue_set_blocked(Queue *q, eq_reason reason) {
        if (q->blocked == reason)
                return;
        queue_enter(q);
        q->blocked = reason;
        show_unserved(q);
        queue_leave(q);
}

void queue_set_unserved(Queue *q, eq_reason reason) {
        if (q->unserved == reason)
                return;
        queue_enter(q);
        q->unserved = reason;
        show_unserved(q);
        if (reason != EQ_REASON_NONE)
                queue_recall(q);
        queue_leave(q);
}

void queue_set_reserve(Queue *q, bool is_ready) {
        if (q->no_reserve == !is_ready)
                return;
        queue_enter(q);
        q->no_reserve = !is_ready;
        queue_leave(q);
}

static void move_to_pool(Queue *q, Pool *pool) {
        q->pool->n_queues--;
        list_remove(&q->rescue_link);
        pool->n_queues++;
        q->pool = pool;
        WATCH_SET(q->watch->pool, pool->watch);
}

void queue_set_pool(Queue *q, Pool *pool) {
        if (q->pool == pool)
                return;
        assert(q->depth == 0);
        if (q->pool->executor == pool->executor) {
                queue_enter(q);
                queue_recall(q);
                if (q->runnable)
                        q->pool->sched->dequeue(q->pool, q);
                move_to_pool(q, pool);
                queue_leave(q);
                return;
        }
        assert(q->n_running == 0 && q->n_handed == 0 && !q->runnable);
        move_to_pool(q, pool);
        q->unserved = EQ_REASON_NONE;
        show_unserved(q);
        q->no_reserve = false;
        q->n_ahead = 0;
}

/* ---- entering and leaving ---- */

void queue_enter(Queue *q) {
        q->depth++;
}

void queue_fill_front(Queue *q) {
        if (queue_wants_shelved(q))
                q->engine->hooks->refill(q->engine->host, q);
}

/* The next of q is the token of a task at home elsewhere: it may be able to start there now. Its pool, or NULL. */
static Pool *tell_barrier(const Queue *q) {
        const Task *next = q->engine->barriers ? queue_next(q) : NULL;
        if (!next || next->part != TASK_TOKEN)
                return NULL;
        Queue *home = barrier_task(next)->queue;
        if (home->depth > 0)
                return NULL; /* sees it when it is left */
        queue_show(home);
        pool_queue_changed(home->pool, home);
        return home->pool;
}

void queue_leave(Queue *q) {
        while (q->depth == 1 && q->has_room) {
                q->has_room = false;
                if (q->engine->hooks->space)
                        q->engine->hooks->space(q->engine->host, q);
        }
        if (q->depth == 1)
                queue_fill_front(q);
        if (--q->depth > 0)
                return;

        Pool *pool = q->pool;
        List over;
        list_init(&over);
        queue_show(q);
        rate_settle(q);
        queue_collect_waiters(q, &over);
        pool_queue_changed(pool, q);
        Pool *other = tell_barrier(q);
        queue_call_waiters(&over); /* may free q */
        pool_run(pool);
        if (other && other != pool)
                pool_run(other);
}

/* ---- places ---- */

static QueueLine line_for(const Task *t) {
        if (t->wait == 0)
                return QUEUE_READY;
        return t->wait == TASK_WAIT_BACKOFF ? QUEUE_BACKOFF : QUEUE_DEFERRED;
}

void queue_place(Queue *q, Task *t) {
        if (t->wait == 0 && t->state == EQ_STATE_WAITING)
                task_set_state(t, TASK_EV_ELIGIBLE);
        else if (t->wait != 0 && t->state == EQ_STATE_QUEUED)
                task_set_state(t, TASK_EV_DEFER);

        QueueLine line = line_for(t);
        task_line_insert(&q->lines[line][t->lane], t);
        t->where = line_where[line];
        *(line == QUEUE_READY ? &q->n_queued : &q->n_waiting) += 1;
        q->n_bytes += t->bytes;
        if (line == QUEUE_READY && t->part != TASK_ALONE)
                q->rescue_mark = NULL; /* it may be before the mark, and nothing passes it */
        if (t->part != TASK_TOKEN)     /* whose times are its task's */
                engine_arm_task(q->engine, t);
        if (line != QUEUE_DEFERRED && q->n_handed > 0 && t->seq < q->last_handed_seq[t->lane])
                queue_recall_after(q, t);
        else if (line == QUEUE_READY && t->lane == TASK_LANE_URGENT && q->n_handed > 0 && !rate_allows(q))
                queue_recall(q); /* it needs a token that one of them has */
}

void queue_unplace(Queue *q, Task *t) {
        QueueLine line = line_for(t);
        assert(t->where == line_where[line]);
        task_line_remove(&q->lines[line][t->lane], t);
        t->where = TASK_NOWHERE;
        if (q->rescue_mark == t)
                q->rescue_mark = NULL;
        *(line == QUEUE_READY ? &q->n_queued : &q->n_waiting) -= 1;
        q->n_bytes -= t->bytes;
}

Task *queue_backoff_before(const Queue *q, const Task *t) {
        if (q->params.max_active != 1)
                return NULL;
        const TaskLine *backoffs = &q->lines[QUEUE_BACKOFF][t->lane];
        Task *first = backoffs->n > 0 ? task_line_first(backoffs) : NULL;
        return first && first->seq < t->seq ? first : NULL;
}

bool queue_is_behind_shelf(const Queue *q, const Task *t) {
        return q->n_shelved > 0 && t->lane == TASK_LANE_NORMAL && t->seq > q->shelf_first;
}

Task *queue_next_of_lane(const Queue *q, TaskLane lane) {
        const TaskLine *line = queue_ready(q, lane);
        Task *t = line->n > 0 ? task_line_first(line)
                              : NULL; /* asked several times per task, and mostly of an empty one */
        return t && !queue_is_behind_shelf(q, t) && !queue_backoff_before(q, t) ? t : NULL;
}

/* ---- admission ---- */

static bool would_overflow(uint64_t used, uint64_t more, uint64_t max) {
        return used > max || more > max - used;
}

static int charge(Queue *q, uint64_t n, uint64_t n_bytes) {
        int r = engine_reserve_tasks(q->engine, n);
        if (r < 0)
                return r;
        q->n_reserved += n;
        q->n_reserved_bytes += n_bytes;
        return 0;
}

static int reserve(Queue *q, uint64_t n, uint64_t n_bytes, bool is_chained) {
        if (q->stopping)
                return QUEUE_E_STOPPED;
        if (q->draining && !is_chained)
                return QUEUE_E_DRAINING;
        if (would_overflow(q->n_queued + q->n_waiting + q->n_reserved, n, q->params.max_tasks) ||
            would_overflow(q->n_bytes + q->n_reserved_bytes, n_bytes, q->params.max_bytes))
                return QUEUE_E_FULL;
        return charge(q, n, n_bytes);
}

static int reserve_seqs(Queue *q, uint64_t n, uint64_t n_bytes, bool is_chained, uint64_t *ret_first_seq) {
        assert(n > 0);
        int r = would_overflow(q->last_seq, n, EQ_SEQ_MAX) ? QUEUE_E_STOPPED : reserve(q, n, n_bytes, is_chained);
        if (r != 0) {
                q->n_refused += n;
                return r;
        }
        *ret_first_seq = q->last_seq + 1;
        q->last_seq += n;
        return 0;
}

int queue_reserve(Queue *q, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq) {
        return reserve_seqs(q, n, n_bytes, false, ret_first_seq);
}

int queue_reserve_chained(Queue *q, const Task *by, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq) {
        assert(by->queue == q);
        int r = reserve_seqs(q, n, n_bytes, true, ret_first_seq);
        if (r == 0 && q->draining && by->seq > q->drain_mark) {
                q->drain_mark = *ret_first_seq - 1;
                q->n_drain_passes++;
        }
        return r;
}

int queue_reserve_again(Queue *q, uint64_t n_bytes) {
        return reserve(q, 1, n_bytes, false);
}

void queue_unreserve(Queue *q, uint64_t n, uint64_t n_bytes) {
        assert(n <= q->n_reserved && n_bytes <= q->n_reserved_bytes);
        queue_enter(q);
        q->n_reserved -= n;
        q->n_reserved_bytes -= n_bytes;
        engine_release_tasks(q->engine, n);
        queue_forget_above(q, q->n_pushed + q->n_reserved);
        q->has_room = true;
        queue_leave(q);
}

static void push(Queue *q, Task *t) {
        assert(t->where == TASK_NOWHERE && t->state == EQ_STATE_WAITING);
        assert(q->n_reserved > 0 && t->bytes <= q->n_reserved_bytes);
        q->n_reserved--;
        q->n_reserved_bytes -= t->bytes;
        t->accepted = ++q->n_pushed;
        t->queue = q;
        queue_place(q, t);
}

void queue_push(Queue *q, Task *t) {
        queue_enter(q);
        q->n_accepted++;
        push(q, t);
        if (t->part == TASK_BARRIER)
                barrier_push(t, false);
        queue_leave(q);
}

void queue_push_again(Queue *q, Task *t) {
        queue_enter(q);
        task_set_state(t, TASK_EV_AGAIN);
        push(q, t);
        if (t->part == TASK_BARRIER)
                barrier_push(t, true);
        queue_leave(q);
}

void queue_seq_given(Queue *q, uint64_t seq) {
        q->last_seq = MAX(q->last_seq, seq);
}

int queue_restore_task(Queue *q, Task *t) {
        assert(t->seq <= q->last_seq);
        int r = charge(q, 1, t->bytes);
        if (r < 0)
                return r;
        queue_enter(q);
        push(q, t);
        queue_leave(q);
        return 0;
}

/* ---- the shelf ---- */

/* Tasks that wait for something else count with their bytes too: they are memory as well. */
static bool front_is_full(const Queue *q) {
        size_t n = queue_ready(q, TASK_LANE_NORMAL)->n;
        return n >= QUEUE_FRONT || (n >= QUEUE_FRONT_MIN && q->n_bytes - q->n_shelved_bytes >= QUEUE_FRONT_BYTES);
}

bool queue_may_shelve(const Queue *q) {
        return q->engine->hooks->refill && (q->n_shelved > 0 || front_is_full(q));
}

static void shelve(Queue *q, uint64_t first_seq, uint64_t n, uint64_t n_bytes) {
        q->n_reserved -= n;
        q->n_reserved_bytes -= n_bytes;
        if (q->n_shelved == 0)
                q->shelf_first = first_seq;
        q->n_shelved += n;
        q->n_shelved_bytes += n_bytes;
        q->n_queued += n;
        q->n_bytes += n_bytes;
}

void queue_shelve(Queue *q, uint64_t first_seq, uint64_t n, uint64_t n_bytes) {
        assert(n <= q->n_reserved && n_bytes <= q->n_reserved_bytes);
        bool behind = q->depth == 0 && queue_ready(q, TASK_LANE_NORMAL)->n >= QUEUE_FRONT;
        if (!behind)
                queue_enter(q);
        q->n_pushed += n;
        q->n_accepted += n;
        shelve(q, first_seq, n, n_bytes);
        if (behind)
                queue_show(q); /* those in front are not changed by it: nothing can start, and nobody waits for more */
        else
                queue_leave(q);
}

int queue_restore_shelved(Queue *q, uint64_t first_seq, uint64_t n, uint64_t n_bytes) {
        int r = charge(q, n, n_bytes);
        if (r < 0)
                return r;
        queue_enter(q);
        shelve(q, first_seq, n, n_bytes);
        queue_leave(q);
        return 0;
}

bool queue_needs_shelved(const Queue *q) {
        const TaskLine *front = queue_ready(q, TASK_LANE_NORMAL);
        return q->n_shelved > 0 && (front->n == 0 || task_line_first(front)->seq > q->shelf_first);
}

bool queue_wants_shelved(const Queue *q) {
        return q->n_shelved > 0 && (!front_is_full(q) || queue_needs_shelved(q));
}

static void leave_shelf(Queue *q, uint64_t bytes) {
        assert(q->n_shelved > 0 && bytes <= q->n_shelved_bytes);
        q->n_shelved--;
        q->n_shelved_bytes -= bytes;
        q->n_queued--;
        q->n_bytes -= bytes;
}

void queue_unshelve(Queue *q, Task *t, uint64_t ordinal, uint64_t next_seq) {
        assert(t->where == TASK_NOWHERE && t->state == EQ_STATE_WAITING && t->lane == TASK_LANE_NORMAL && t->wait == 0);
        leave_shelf(q, t->bytes);
        q->shelf_first = next_seq;
        t->accepted = ordinal;
        t->queue = q;
        queue_place(q, t);
}

void queue_drop_shelved(Queue *q, uint64_t bytes, uint64_t ordinal) {
        leave_shelf(q, bytes);
        engine_release_tasks(q->engine, 1);
        queue_count_end(q, ordinal);
}

void queue_refill(Queue *q) {
        queue_enter(q);
        queue_leave(q);
}

/* ---- ends of tasks ---- */

/* t is nowhere, and counts nowhere. */
static void release(Queue *q, const Task *t) {
        engine_release_tasks(q->engine, 1);
        queue_count_end(q, t->accepted);
}

void queue_finish(Queue *q, Task *t, TaskEvent ev) {
        eq_state state = task_set_state(t, ev);
        q->n_done += state == EQ_STATE_DONE;
        q->n_failed += state != EQ_STATE_DONE;
        WATCH_SET(q->watch->n_ends, q->n_done + q->n_failed);
        engine_disarm_task(q->engine, t);
        release(q, t);
        Queue *others[BARRIER_QUEUES_MAX];
        size_t n_others = t->part == TASK_BARRIER ? barrier_end(t, others) : 0;
        q->engine->hooks->finished(q->engine->host, t);
        for (size_t i = 0; i < n_others; i++)
                queue_leave(others[i]);
}

static void finish_pending(Queue *q, Task *t, TaskEvent ev) {
        queue_enter(q);
        queue_unplace(q, t);
        t->wait = 0;
        q->has_room = true;
        queue_finish(q, t, ev);
        queue_leave(q);
}

/* 0: t is in a line of the queue, and the queue was entered, so that nobody takes it away. Else as queue_cancel(). */
static int get_hold_of(Queue *q, Task *t) {
        if (t->where == TASK_IN_RUNNING)
                return 1;
        if (t->where == TASK_NOWHERE)
                return -1;
        queue_enter(q);
        if (t->where == TASK_IN_HANDED)
                queue_recall_task(q, t);
        if (t->where != TASK_IN_RUNNING)
                return 0;
        queue_leave(q);
        return 1;
}

static int end_pending(Queue *q, Task *t, TaskEvent event) {
        int r = get_hold_of(q, t);
        if (r != 0)
                return r;
        finish_pending(q, t, event);
        queue_leave(q);
        return 0;
}

int queue_cancel(Queue *q, Task *t) {
        return end_pending(q, t, TASK_EV_CANCEL);
}

int queue_lose(Queue *q, Task *t) {
        return end_pending(q, t, TASK_EV_LOSE);
}

Task *queue_oldest(Queue *q) {
        static const TaskLane by_lane[] = { TASK_LANE_NORMAL, TASK_LANE_URGENT };
        for (size_t i = 0; i < ELEMENTSOF(by_lane); i++) {
                Task *oldest = queue_first_handed(q, by_lane[i]);
                for (QueueLine line = 0; line < _QUEUE_LINE_MAX; line++) {
                        Task *t = task_line_first(&q->lines[line][by_lane[i]]);
                        if (t && (!oldest || t->seq < oldest->seq))
                                oldest = t;
                }
                if (oldest)
                        return barrier_task(oldest);
        }
        return NULL;
}

/* ---- waiting ---- */

static int set_wait(Queue *q, Task *t, uint8_t wait) {
        int r = get_hold_of(q, t);
        if (r != 0)
                return r;
        queue_unplace(q, t);
        t->wait = wait;
        queue_place(q, t);
        if (t->part == TASK_BARRIER)
                barrier_shift(t);
        queue_leave(q);
        return 0;
}

int queue_wait_set(Queue *q, Task *t, uint8_t bits) {
        return set_wait(q, t, t->wait | bits);
}

int queue_wait_clear(Queue *q, Task *t, uint8_t bits) {
        return set_wait(q, t, t->wait & (uint8_t)~bits);
}

void queue_task_due(Queue *q, Task *t) {
        uint64_t now = engine_now(q->engine);
        if (get_hold_of(q, t) != 0)
                return; /* it has begun just in time */
        if (t->attempt == 0 && t->expire_usec != 0 && t->expire_usec <= now)
                finish_pending(q, t, TASK_EV_EXPIRE);
        else
                (void)queue_wait_clear(q, t, TASK_WAIT_AT | TASK_WAIT_BACKOFF); /* it is pending */
        queue_leave(q);
}

/* ---- tokens ---- */

void queue_push_token(Queue *q, Task *token) {
        push(q, token);
}

void queue_shift_token(Task *token, uint8_t wait) {
        queue_unplace(token->queue, token);
        token->wait = wait;
        queue_place(token->queue, token);
}

void queue_hold_token(Task *token) {
        Queue *q = token->queue;
        queue_unplace(q, token);
        queue_start_running(q, token);
        q->held = token;
        queue_show(q);
        pool_queue_changed(q->pool, q);
}

void queue_return_token(Task *token, uint8_t wait) {
        queue_stop_running(token->queue, token);
        task_set_state(token, TASK_EV_RETURN);
        token->wait = wait;
        queue_place(token->queue, token);
}

void queue_end_token(Task *token) {
        Queue *q = token->queue;
        if (token->where == TASK_IN_RUNNING)
                queue_stop_running(q, token);
        else
                queue_unplace(q, token);
        task_set_state(token, TASK_EV_CANCEL);
        token->wait = 0;
        release(q, token);
        q->has_room = true;
}

bool queue_stands_at(const Queue *q, const Task *t, const Task **ret_by) {
        const Task *first = q->held                       ? q->held
                            : !list_is_empty(&q->running) ? LIST_ENTRY(q->running.next, Task, link)
                            : !list_is_empty(&q->handed)  ? LIST_ENTRY(q->handed.next, Task, link)
                                                          : queue_next(q);
        *ret_by = first && first != t ? barrier_task(first) : NULL;
        return first == t && q->pauses == 0 && (!task_is_pending(t) || rate_allows(q));
}

/* ---- control ---- */

void queue_pause(Queue *q) {
        queue_enter(q);
        q->pauses++;
        WATCH_SET(q->watch->paused, true);
        queue_recall(q);
        queue_leave(q);
}

int queue_resume(Queue *q) {
        if (q->pauses == 0)
                return 1;
        queue_enter(q);
        q->pauses--;
        WATCH_SET(q->watch->paused, q->pauses > 0);
        queue_leave(q);
        return 0;
}

/* ---- questions ---- */

bool queue_is_empty(const Queue *q) {
        return queue_n_unended(q) == 0;
}

const char *queue_state_name(const Queue *q) {
        return q->stopped      ? "stopped"
               : q->stopping   ? "stopping"
               : q->draining   ? "draining"
               : q->pauses > 0 ? "paused"
                               : "open";
}
