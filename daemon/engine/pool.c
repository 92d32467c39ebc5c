/* SPDX-License-Identifier: MIT */
/* Slots and the loop that fills them.
 *
 * pool_run() is the only place where tasks start. Executors and hooks may call back into the engine from inside it, and
 * so into pool_run() again; the inner call returns at once and the outer loop sees what it would have seen. So a
 * synchronous executor needs the stack of one task, however many run. */

#include "engine/pool.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "engine/engine.h"

int pool_new(Engine *e, const char *name, PoolKind kind, Executor *executor, size_t n_slots_max, Pool **ret) {
        assert(strlen(name) <= EQ_NAME_MAX);
        _cleanup_free_ Pool *p = fault_calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->watch = watch_pool_new(&e->watch, name, n_slots_max);
        if (!p->watch)
                return -ENOMEM;
        p->engine = e;
        p->kind = kind;
        p->executor = executor;
        p->n_slots_max = n_slots_max;
        p->sched = &sched_fifo;
        strcpy(p->name, name);
        list_init(&p->runnable);
        list_init(&p->idle);
        list_init(&p->callers);
        list_append(&e->pools, &p->link);
        *ret = TAKE_PTR(p);
        return 0;
}

static void free_slot(Pool *p, Slot *slot) {
        Slot *last = p->slots[--p->n_slots];
        WATCH_SET(p->watch->n_slots, p->n_slots);
        p->slots[slot->place] = last;
        last->place = slot->place;
        list_remove(&slot->link);
        engine_put_slot_number(p->engine, p->kind, slot->index);
        watch_slot_free(&p->engine->watch, slot->watch);
        free(slot);
}

Pool *pool_free(Pool *p) {
        if (!p)
                return NULL;
        assert(p->n_queues == 0 && p->n_busy == 0 && p->n_rescuing == 0 && !p->running);
        list_remove(&p->link);
        while (p->n_slots > 0)
                free_slot(p, p->slots[p->n_slots - 1]);
        watch_pool_free(&p->engine->watch, p->watch);
        free(p->slots);
        free(p);
        return NULL;
}

void pool_set_max(Pool *p, size_t n_slots_max) {
        p->n_slots_max = n_slots_max;
        WATCH_SET(p->watch->n_slots_max, n_slots_max);
        pool_run(p);
}

/* ---- slots ---- */

static int add_slot(Pool *p) {
        if (p->n_slots == p->n_slots_cap) {
                size_t cap = p->n_slots_cap ? 2 * p->n_slots_cap : 8;
                Slot **slots = fault_realloc(p->slots, cap * sizeof(Slot *));
                if (!slots)
                        return -ENOMEM;
                p->slots = slots;
                p->n_slots_cap = cap;
        }
        Slot *slot = fault_calloc(1, sizeof(*slot));
        if (!slot)
                return -ENOMEM;
        int r = engine_take_slot_number(p->engine, p->kind, &slot->index);
        if (r < 0) {
                free(slot);
                return r;
        }
        slot->watch = watch_slot_new(&p->engine->watch, p->watch, slot->index);
        if (!slot->watch) {
                engine_put_slot_number(p->engine, p->kind, slot->index);
                free(slot);
                return -ENOMEM;
        }
        slot->pool = p;
        slot->place = p->n_slots;
        p->slots[p->n_slots++] = slot;
        WATCH_SET(p->watch->n_slots, p->n_slots);
        list_init(&slot->link);
        list_append(&p->idle, &slot->link);
        return 0;
}

/* After the maximum was lowered. Only where nobody looks at a slot that has just been released. */
static void trim_slots(Pool *p) {
        for (List *link; p->n_slots > p->n_slots_max && (link = list_first(&p->idle));)
                free_slot(p, LIST_ENTRY(link, Slot, link));
}

static void take_slot(Pool *p, Slot *slot, Task *t) {
        list_remove(&slot->link);
        p->n_busy++;
        slot->task = t;
        uint64_t now = engine_now(p->engine);
        WatchSlot *c = slot->watch;
        slot->started_usec = p->last_start_usec = t->queue->last_start_usec = now;
        slot->announced = false;
        t->slot = slot;

        WATCH_SET(c->queue, t->queue->watch);
        WATCH_SET(c->seq, t->seq);
        WATCH_PUBLISH(c->started_usec, now);
}

static void settle_idle(Pool *p) {
        if (p->n_busy + p->n_rescuing == 0 && p->engine->hooks->pool_idle)
                p->engine->hooks->pool_idle(p->engine->host, p);
}

static void show_rescue(const Pool *p) {
        WATCH_SET(p->watch->calls, p->mayday_usec != 0 || p->n_rescuing > 0);
}

void pool_set_mayday(Pool *p, uint64_t usec) {
        p->mayday_usec = usec;
        show_rescue(p);
}

void pool_reserve_is_busy(Pool *p) {
        p->n_rescuing++;
        show_rescue(p);
}

void pool_reserve_is_free(Pool *p) {
        p->n_rescuing--;
        show_rescue(p);
        settle_idle(p);
}

void pool_release(Pool *p, Slot *slot) {
        WatchSlot *c = slot->watch;
        slot->task->slot = NULL;
        slot->task = NULL;
        WATCH_SET(c->started_usec, 0);
        WATCH_SET(c->life, NULL);
        if (slot->reserve) {
                pool_reserve_is_free(p);
                return;
        }
        p->n_busy--;
        list_insert_before(p->idle.next, &slot->link); /* its memory is the warmest */
        settle_idle(p);
}

/* ---- blocks ---- */

void pool_block(Pool *p, eq_reason reason, uint64_t until_usec) {
        p->blocked_reason = reason;
        p->blocked_until_usec = until_usec;
        WATCH_SET(p->watch->blocked_reason, reason);
        WATCH_SET(p->watch->blocked_until_usec, until_usec);
        engine_arm(p->engine, until_usec);
}

void pool_unblock(Pool *p) {
        p->blocked_reason = EQ_REASON_NONE;
        p->blocked_until_usec = 0;
        WATCH_SET(p->watch->blocked_until_usec, 0);
}

bool pool_is_blocked(const Pool *p) {
        return p->blocked_until_usec != 0 &&
               (p->blocked_until_usec == USEC_NEVER || p->blocked_until_usec > engine_now(p->engine));
}

void pool_set_create_error(Pool *p, int error) {
        bool begins = error < 0 && p->create_error == 0, ends = error == 0 && p->create_error < 0;
        uint64_t now = begins || ends ? engine_now(p->engine) : 0;
        p->create_error = error;
        if (begins)
                p->create_failed_usec = now;
        if ((begins || ends) && p->engine->hooks->creation)
                p->engine->hooks->creation(p->engine->host, p, ends ? now - p->create_failed_usec : 0);
}

void pool_cool_down(Pool *p, eq_reason reason, int error) {
        p->n_create_failures++;
        if (error < 0)
                pool_set_create_error(p, error);
        if (!pool_is_blocked(p)) /* else somebody, mostly the executor, knows better for how long */
                pool_block(p, reason, engine_now(p->engine) + p->engine->rescue.create_cooldown_usec);
}

void pool_all_busy(Pool *p) {
        p->is_quiet = false;
        rescue_look(p);
}

void pool_set_short_of(Pool *p, eq_reason reason) {
        p->short_of = reason;
        WATCH_SET(p->watch->short_of, reason);
}

eq_reason pool_reason(const Pool *p) {
        if (pool_is_blocked(p))
                return p->blocked_reason;
        if (p->n_busy < p->n_slots_max)
                return EQ_REASON_NONE;
        return p->kind == POOL_REMOTE && p->n_slots_max == 0 ? EQ_REASON_NO_WORKER : EQ_REASON_SLOTS;
}

/* ---- starting ---- */

void pool_announce(Pool *p, Slot *slot) {
        if (slot->announced)
                return;
        slot->announced = true;
        p->n_started++;
        if (p->engine->hooks->started)
                p->engine->hooks->started(p->engine->host, slot->task);
}

void pool_tell_not_started(Engine *e, Task *t) {
        if (e->hooks->not_started)
                e->hooks->not_started(e->host, t);
}

static int clear(Slot *slot, Task *t) {
        Engine *e = slot->pool->engine;
        Executor *x = slot->pool->executor;
        int r = e->hooks->clear(e->host, t);
        if (r <= 0)
                return r < 0 ? r : x->ops->start(x, slot, t);
        slot->uncleared = true;
        r = x->ops->claim ? x->ops->claim(x, slot, t) : 0;
        slot->uncleared = r >= 0;
        return r;
}

int pool_begin(Slot *slot, Task *t) {
        Executor *x = slot->pool->executor;
        return t->queue->clears ? clear(slot, t) : x->ops->start(x, slot, t);
}

/* Of a queue that stands by itself the others in the pool are not to suffer. */
void pool_settle_start(Slot *slot, Queue *q, Task *t, int r) {
        Pool *p = slot->pool;
        bool ended = slot->task != t; /* a synchronous executor: t may be gone */
        assert(r >= 0 || !ended);
        if (r < 0) {
                pool_release(p, slot);
                if (q->blocked == EQ_REASON_NONE && q->pauses == 0)
                        pool_cool_down(p, EQ_REASON_CREATE_FAILURE, r == -EAGAIN ? 0 : r);
                queue_unclaim(q, t);
                pool_tell_not_started(p->engine, t);
        } else if (!ended && t->where == TASK_IN_RUNNING && !slot->uncleared)
                pool_announce(p, slot);
}

static void start(Pool *p, Queue *q, Task *t) {
        Slot *slot = LIST_ENTRY(p->idle.next, Slot, link);
        take_slot(p, slot, t);
        pool_settle_start(slot, q, t, pool_begin(slot, t));
}

/* One task of the queue whose turn it is. The queue enters the class again, at the end, when it is left. */
static void run_one(Pool *p) {
        Queue *q = p->sched->pick(p);
        queue_enter(q);
        Task *t = q->n_ahead > 0 ? queue_hand(q) : queue_claim(q);
        if (t) /* else a hook has paused it, or the like, and is not back yet */
                start(p, q, t);
        queue_leave(q);
}

void pool_run(Pool *p) {
        if (p->running)
                return;
        p->running = true;
        while (p->engine->n_holds == 0 && p->n_runnable > 0 && p->n_busy < p->n_slots_max && !pool_is_blocked(p)) {
                if (list_is_empty(&p->idle) && add_slot(p) < 0)
                        pool_cool_down(p, EQ_REASON_CREATE_FAILURE, -ENOMEM);
                else
                        run_one(p);
        }
        rescue_look(p);
        trim_slots(p);
        p->running = false;
}

void pool_queue_changed(Pool *p, Queue *q) {
        bool startable = queue_has_startable(q);
        if (startable && !q->runnable)
                p->sched->enqueue(p, q);
        else if (!startable && q->runnable)
                p->sched->dequeue(p, q);
        if (q->rescuer)
                rescue_queue_changed(q);
}
