/* SPDX-License-Identifier: MIT */
/* Who calls, who comes, who leaves.
 *
 *      pool in need, mayday time          its turn                    no need, or nothing to start
 *   q ---------------------> maydays --------------> current, one task <---.  ----------> relieved
 *                               ^                        |  after each     |
 *                               |                        `-----------------'
 *                               `--- after `batch` of them, if others wait
 *
 * A queue may call again while its rescuer is at work: as in the kernel that counts as one more mayday.
 *
 * rescue_look() is called after each change of a pool, so it costs a pool without callers two comparisons. */

#include "engine/rescuer.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/engine.h"

/* ---- life ---- */

int rescuer_new(Engine *e, PoolKind kind, Executor *executor, const char *name, Rescuer **ret) {
        _cleanup_free_ Rescuer *r = fault_calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        int error = engine_take_slot_number(e, kind, &r->slot.index);
        if (error < 0)
                return error;
        r->engine = e;
        snprintf(r->name, sizeof(r->name), "%s", name);
        r->slot.reserve = r;
        list_init(&r->slot.link);
        list_init(&r->maydays);
        r->slot.watch = watch_slot_new(&e->watch, NULL, r->slot.index);
        error = !r->slot.watch ? -ENOMEM : executor->ops->reserve ? executor->ops->reserve(executor, &r->slot) : 0;
        if (error < 0) {
                if (r->slot.watch)
                        watch_slot_free(&e->watch, r->slot.watch);
                engine_put_slot_number(e, kind, r->slot.index);
                return error;
        }
        WATCH_SET(r->slot.watch->reserve, true);
        r->executor = executor;
        r->kind = kind;
        list_append(&e->rescuers, &r->link);
        *ret = TAKE_PTR(r);
        return 0;
}

Rescuer *rescuer_free(Rescuer *r) {
        if (!r)
                return NULL;
        assert(r->n_queues == 0);
        if (rescuer_is_busy(r)) { /* comes back when that has ended */
                r->engine->n_rescues += !r->leaving;
                r->leaving = true;
                return NULL;
        }
        r->engine->n_rescues -= r->leaving;
        list_remove(&r->link);
        if (r->executor->ops->unreserve)
                r->executor->ops->unreserve(r->executor, &r->slot);
        watch_slot_free(&r->engine->watch, r->slot.watch);
        engine_put_slot_number(r->engine, r->kind, r->slot.index);
        free(r);
        return NULL;
}

bool rescuer_is_busy(const Rescuer *r) {
        return r->slot.task || r->helping;
}

bool queue_is_rescued(const Queue *q) {
        return q->rescue_since_usec != 0;
}

/* ---- need ---- */

static bool allows(const Queue *q, bool full) {
        switch ((RescueOn)q->params.rescue_on) {
        case RESCUE_ON_CREATE_FAILURE:
                return !full;
        case RESCUE_ON_POOL_FULL:
                return full;
        case RESCUE_ON_BOTH:
                return true;
        case RESCUE_ON_AUTO:
                break;
        }
        return !full || q->pool->kind != POOL_COMMAND;
}

static bool helps(const Pool *p) {
        return p->executor->ops->help != NULL;
}

/* Of one whose executor has workers of its own. What they have begun is seen when somebody looks. */
static bool workers_are_in_need(Pool *p, bool *ret_full) {
        uint64_t n;
        eq_reason why = p->executor->ops->need(p->executor, p, &n);
        if (n != p->n_begun) {
                p->n_begun = n;
                p->begun_usec = engine_now(p->engine);
        }
        p->is_quiet = why == EQ_REASON_NONE;
        if (p->is_quiet)
                pool_set_mayday(p, 0); /* the next need is a new one */
        *ret_full = why == EQ_REASON_POOL_FULL;
        return !p->is_quiet;
}

/* False: the pool can start something, or must not. Worker clients serve queues, so there it is a matter of each. */
static bool is_in_need(const Queue *q, bool *ret_full) {
        Pool *p = q->pool;
        *ret_full = p->kind == POOL_REMOTE && q->unserved != EQ_REASON_NO_WORKER;
        if (p->kind == POOL_REMOTE)
                return q->unserved != EQ_REASON_NONE;
        if (pool_is_blocked(p))
                return p->blocked_reason == EQ_REASON_CREATE_FAILURE;
        if (helps(p))
                return workers_are_in_need(p, ret_full);
        *ret_full = true;
        return p->n_slots_max > 0 && p->n_busy >= p->n_slots_max;
}

/* From when on a full pool may be said to be stuck. */
static uint64_t full_usec(const Queue *q) {
        const Pool *p = q->pool;
        uint64_t last = p->kind == POOL_REMOTE ? q->last_start_usec : helps(p) ? p->begun_usec : p->last_start_usec;
        return last + p->engine->rescue.full_delay_usec;
}

/* Something that was handed over waits for a worker. What has begun meanwhile is not known before somebody looks. */
static bool waits_for_worker(const Queue *q) {
        Executor *x = q->pool->executor;
        if (q->unserved != EQ_REASON_NONE)
                return q->n_queued > 0 && x->ops->waits(x, q);
        return q->n_handed > 0 && q->n_running < q->params.max_active;
}

static bool has_for_rescuer(const Queue *q) {
        return helps(q->pool) ? waits_for_worker(q) : queue_has_behind_mark(q);
}

/* May the rescuer start one of q's now? */
static bool wants_rescue(const Queue *q, uint64_t now) {
        bool full;
        return has_for_rescuer(q) && is_in_need(q, &full) && allows(q, full) && (!full || now >= full_usec(q));
}

/* ---- at work ---- */

static void begin_episode(Queue *q, uint64_t now) {
        if (q->rescue_since_usec != 0)
                return;
        q->rescue_since_usec = now;
        q->n_rescued_before = q->n_rescued;
        q->engine->n_rescues++;
        if (q->engine->hooks->mayday)
                q->engine->hooks->mayday(q->engine->host, q);
}

static void relieve(Queue *q) {
        uint64_t since = q->rescue_since_usec;
        q->rescue_mark = NULL;
        list_remove(&q->mayday_link);
        if (since == 0)
                return;
        q->rescue_since_usec = 0;
        q->engine->n_rescues--;
        if (q->engine->hooks->relieved)
                q->engine->hooks->relieved(q->engine->host, q, engine_now(q->engine) - since,
                                           q->n_rescued - q->n_rescued_before);
}

static bool others_call(const Rescuer *r) {
        return !list_is_empty(&r->maydays) &&
               (r->maydays.next != &r->current->mayday_link || r->maydays.prev != r->maydays.next);
}

/* Sets r->current, or clears it: nobody is to be rescued now. */
static void choose(Rescuer *r, uint64_t now) {
        Queue *before = r->current;
        r->n_scan_steps++;
        bool wants = before && wants_rescue(before, now);
        if (wants && (r->n_turn < r->engine->rescue.batch || !others_call(r)))
                return;
        r->current = NULL;
        if (wants) { /* its turn is over */
                list_remove(&before->mayday_link);
                list_append(&r->maydays, &before->mayday_link);
        } else if (before)
                relieve(before);
        while (!r->current && !list_is_empty(&r->maydays)) {
                Queue *q = LIST_ENTRY(r->maydays.next, Queue, mayday_link);
                list_remove(&q->mayday_link);
                r->n_scan_steps++;
                r->n_turn = 0;
                if (wants_rescue(q, now))
                        r->current = q;
                else
                        relieve(q);
        }
}

static void uncount(Queue *q, Pool *p) {
        q->n_rescued--;
        p->n_rescued--;
}

static void take(Rescuer *r, Queue *q, Task *t, uint64_t now) {
        Slot *slot = &r->slot;
        slot->pool = q->pool;
        slot->task = t;
        slot->started_usec = now;
        slot->announced = false;
        t->slot = slot;
        pool_reserve_is_busy(q->pool);
        WATCH_SET(slot->watch->pool, q->pool->watch);
        WATCH_SET(slot->watch->queue, q->watch);
        WATCH_SET(slot->watch->seq, t->seq);
        WATCH_PUBLISH(slot->watch->started_usec, now);
}

/* The reserve was no use for t, which is back at its place. */
static void note_failure(Rescuer *r, Queue *q, Task *t, int error, uint64_t now) {
        bool skip = (error == -ENOMEM || error == -EMFILE) && q->params.max_active > 1 && t->where == TASK_IN_READY &&
                    t->part == TASK_ALONE; /* nothing passes one that holds several queues */
        q->n_rescue_failed++;
        if (skip) {
                q->rescue_mark = t;
                r->n_scan_steps++;
        } else
                r->again_usec = now + r->engine->rescue.mayday_interval_usec;
}

void rescue_settle_start(Slot *slot, Queue *q, Task *t, int e) {
        Rescuer *r = slot->reserve;
        Pool *p = slot->pool;
        bool ended = slot->task != t;
        assert(e >= 0 || !ended);
        if (e < 0) {
                pool_release(p, slot);
                uncount(q, p);
                queue_unclaim(q, t);
                note_failure(r, q, t, e, engine_now(r->engine));
                pool_tell_not_started(r->engine, t);
        } else if (!ended && !slot->uncleared)
                pool_announce(p, slot);
}

static void rescue_one(Rescuer *r, Queue *q, uint64_t now) {
        Pool *p = q->pool;
        queue_enter(q);
        Task *t = queue_claim_marked(q);
        if (t) {
                take(r, q, t, now);
                r->n_turn++;
                q->n_rescued++;
                p->n_rescued++;
                rescue_settle_start(&r->slot, q, t, pool_begin(&r->slot, t));
        }
        queue_leave(q);
}

/* ---- helping ---- */

static void count_helped(Rescuer *r) {
        Queue *q = r->helped;
        if (r->counted || !q)
                return;
        r->counted = true;
        q->n_rescued++;
        r->slot.pool->n_rescued++;
}

void rescuer_look(Rescuer *r) {
        if (r->helping && r->executor->ops->has_helped(r->executor, &r->slot))
                count_helped(r);
}

static void help(Rescuer *r, Queue *q) {
        r->helping = true;
        r->counted = false;
        r->helped = q;
        r->n_turn++;
        r->slot.pool = q->pool;
        pool_reserve_is_busy(q->pool);
        r->executor->ops->help(r->executor, &r->slot, q);
}

static void work(Rescuer *r);

void rescue_helped(Slot *slot, bool has_begun_one) {
        Rescuer *r = slot->reserve;
        Pool *p = slot->pool;
        assert(r->helping);
        if (has_begun_one)
                count_helped(r);
        else if (r->helped && r->current == r->helped) { /* it calls again if need be */
                r->current = NULL;
                relieve(r->helped);
        }
        r->helping = false;
        r->helped = NULL;
        pool_reserve_is_free(p);
        work(r);
}

/* ---- the search ---- */

static void work(Rescuer *r) {
        if (r->searching)
                return;
        r->searching = true;
        for (;;) {
                uint64_t now = engine_now(r->engine);
                if (rescuer_is_busy(r) || r->engine->n_holds > 0)
                        break;
                choose(r, now);
                if (!r->current || now < r->again_usec)
                        break;
                if (helps(r->current->pool))
                        help(r, r->current);
                else
                        rescue_one(r, r->current, now);
        }
        r->searching = false;
        if (r->leaving && !rescuer_is_busy(r))
                rescuer_free(r);
}

static void work_all(Engine *e) {
        LIST_FOREACH_SAFE (link, &e->rescuers)
                work(LIST_ENTRY(link, Rescuer, link));
}

void rescue_not_started(Slot *slot, Queue *q, Task *t) {
        uncount(q, slot->pool);
        note_failure(slot->reserve, q, t, -EAGAIN, engine_now(q->engine));
}

/* ---- calling ---- */

void queue_set_rescuer(Queue *q, Rescuer *r) {
        if (q->rescuer == r)
                return;
        if (q->rescuer) {
                if (q->rescuer->current == q)
                        q->rescuer->current = NULL;
                if (q->rescuer->helped == q)
                        q->rescuer->helped = NULL;
                relieve(q);
                q->rescuer->n_queues--;
        }
        q->rescuer = r;
        if (r)
                r->n_queues++;
        rescue_queue_changed(q);
}

/* Has it something that its pool should have begun by now? */
static bool is_calling(const Queue *q) {
        if (helps(q->pool))
                return waits_for_worker(q);
        bool is_served = q->pool->kind == POOL_REMOTE && q->unserved == EQ_REASON_NONE;
        return !is_served && queue_has_rescuable(q);
}

void rescue_queue_changed(Queue *q) {
        bool is_listed = !list_is_empty(&q->rescue_link), calls = q->rescuer && is_calling(q);
        if (calls && !is_listed) {
                q->rescue_call_usec = engine_now(q->engine);
                list_append(&q->pool->callers, &q->rescue_link);
        } else if (!calls && is_listed)
                list_remove(&q->rescue_link);
}

static void arm(Pool *p, uint64_t usec) {
        pool_set_mayday(p, usec);
        engine_arm(p->engine, usec);
}

/* The next mayday of a caller that has not called yet, or whose call was heard. */
static uint64_t mayday_usec(const Queue *q, bool full) {
        uint64_t first = q->rescue_call_usec + q->engine->rescue.mayday_initial_usec;
        return full ? MAX(first, full_usec(q)) : first;
}

/* Of a remote pool: callers come and go with every task while all workers are full, so what was armed stays. */
static void look_remote(Pool *p) {
        if (p->mayday_usec == 0 && !list_is_empty(&p->callers))
                arm(p, engine_now(p->engine) + p->engine->rescue.mayday_initial_usec);
}

static void look(Pool *p) {
        const Queue *any = list_is_empty(&p->callers) ? NULL : LIST_ENTRY(p->callers.next, Queue, rescue_link);
        bool full;
        if (any && helps(p)) { /* it is asked when the time has come, not each time */
                if (p->mayday_usec == 0 && !p->is_quiet)
                        arm(p, engine_now(p->engine) + p->engine->rescue.mayday_initial_usec);
        } else if (!any || !is_in_need(any, &full))
                pool_set_mayday(p, 0);
        else if (p->mayday_usec == 0 || p->need_is_full != full) {
                uint64_t first = engine_now(p->engine) + p->engine->rescue.mayday_initial_usec;
                p->need_is_full = full;
                arm(p, full ? MAX(first, full_usec(any)) : first);
        }
}

void rescue_look(Pool *p) {
        Engine *e = p->engine;
        if (list_is_empty(&p->callers) && p->mayday_usec == 0 && e->n_rescues == 0)
                return;
        if (p->kind == POOL_REMOTE)
                look_remote(p);
        else
                look(p);
        if (e->n_rescues > 0)
                work_all(e);
}

/* What has begun, and so does not call. */
static void look_at_callers(Pool *p) {
        Engine *e = p->engine;
        engine_hold(e);
        LIST_FOREACH_SAFE (link, &p->callers)
                queue_look(LIST_ENTRY(link, Queue, rescue_link));
        engine_unhold(e);
}

static void call(Queue *q, bool full, uint64_t now) {
        if (!allows(q, full) || !list_is_empty(&q->mayday_link))
                return;
        list_append(&q->rescuer->maydays, &q->mayday_link);
        q->n_mayday++;
        q->pool->n_mayday++;
        begin_episode(q, now);
}

/* Each caller when its own time has come. */
static void call_remote(Pool *p, uint64_t now) {
        uint64_t next = USEC_NEVER;
        LIST_FOREACH (link, &p->callers) {
                Queue *q = LIST_ENTRY(link, Queue, rescue_link);
                bool full, in_need = is_in_need(q, &full);
                uint64_t usec = mayday_usec(q, full);
                if (!in_need || !allows(q, full))
                        continue;
                if (usec <= now) {
                        call(q, full, now);
                        usec = now + p->engine->rescue.mayday_interval_usec;
                }
                next = MIN(next, usec);
        }
        pool_set_mayday(p, 0);
        if (next != USEC_NEVER)
                arm(p, next);
}

/* False: not yet, or not any more. */
static bool call_all(Pool *p, uint64_t now) {
        const Queue *any = list_is_empty(&p->callers) ? NULL : LIST_ENTRY(p->callers.next, Queue, rescue_link);
        bool full;
        if (!any || !is_in_need(any, &full)) {
                pool_set_mayday(p, 0);
                return false;
        }
        p->need_is_full = full;
        uint64_t next = now + p->engine->rescue.mayday_interval_usec;
        if (full && now < full_usec(any)) {
                arm(p, helps(p) ? MIN(next, full_usec(any)) : full_usec(any));
                return false;
        }
        arm(p, next);
        if (helps(p))
                look_at_callers(p);
        LIST_FOREACH (link, &p->callers)
                call(LIST_ENTRY(link, Queue, rescue_link), full, now);
        return true;
}

void rescue_due(Pool *p, uint64_t now) {
        if (p->mayday_usec == 0 || now < p->mayday_usec)
                return;
        if (p->kind == POOL_REMOTE)
                call_remote(p, now);
        else if (!call_all(p, now))
                return;
        work_all(p->engine);
}
