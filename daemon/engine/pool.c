/* SPDX-License-Identifier: MIT */
/* Slots and the loop that fills them. pool_run() is entered once: whatever it sets off (an executor that answers at once, a
 * host that submits from a hook) asks for another round instead of nesting. */

#include "engine/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "engine/engine.h"

enum { START_RETRY_USEC = 1000000 }; /* after an executor refused and did not say for how long */

int pool_new(Engine *e, const char *name, PoolKind kind, Executor *executor, size_t n_slots_max, Pool **ret) {
        Pool *p = fault_calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        int r = engine_reserve_due(e, n_slots_max); /* a running task may come back to wait for its next attempt */
        if (r < 0) {
                free(p);
                return r;
        }
        assert(strlen(name) < sizeof(p->name));
        strcpy(p->name, name);
        p->engine = e;
        p->kind = kind;
        p->executor = executor;
        p->sched = &sched_fifo;
        p->n_slots_max = p->n_due_reserved = n_slots_max;
        list_init(&p->runnable);
        list_init(&p->idle);
        list_append(&e->pools, &p->link);
        *ret = p;
        return 0;
}

Pool *pool_free(Pool *p) {
        if (!p)
                return NULL;
        assert(p->n_busy == 0 && p->n_runnable == 0);
        for (size_t i = 0; i < p->n_slots; i++)
                free(p->slots[i]);
        free(p->slots);
        engine_unreserve_due(p->engine, p->n_due_reserved);
        list_remove(&p->link);
        free(p);
        return NULL;
}

void pool_set_max(Pool *p, size_t n_slots_max) {
        if (n_slots_max > p->n_due_reserved) {
                if (engine_reserve_due(p->engine, n_slots_max - p->n_due_reserved) < 0)
                        return; /* stays as it is */
                p->n_due_reserved = n_slots_max;
        }
        p->n_slots_max = n_slots_max;
        pool_run(p);
}

/* ---- slots ---- */

static int slot_new(Pool *p, Slot **ret) {
        Slot **slots = fault_realloc(p->slots, (p->n_slots + 1) * sizeof(Slot *));
        if (!slots)
                return -ENOMEM;
        p->slots = slots;
        Slot *s = fault_calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->pool = p;
        s->index = p->n_slots;
        list_init(&s->link);
        p->slots[p->n_slots++] = s;
        *ret = s;
        return 0;
}

/* The one used last comes first: its cgroup and memory are warm. */
static int slot_take(Pool *p, Slot **ret) {
        List *l = list_first(&p->idle);
        if (!l)
                return slot_new(p, ret);
        list_remove(l);
        *ret = LIST_ENTRY(l, Slot, link);
        return 0;
}

void pool_release(Pool *p, Slot *slot) {
        slot->task = NULL;
        list_insert_before(p->idle.next, &slot->link);
        p->n_busy--;
}

/* ---- run ---- */

bool pool_is_blocked(const Pool *p) {
        return p->blocked_until_usec != 0 && engine_now(p->engine) < p->blocked_until_usec;
}

void pool_block(Pool *p, eq_reason reason, uint64_t until_usec) {
        p->blocked_reason = reason;
        p->blocked_until_usec = until_usec;
        if (until_usec != USEC_NEVER)
                engine_rearm(p->engine, until_usec);
}

void pool_unblock(Pool *p) {
        p->blocked_until_usec = 0;
        p->blocked_reason = EQ_REASON_NONE;
}

void pool_queue_changed(Pool *p, Queue *q) {
        bool startable = queue_has_startable(q);
        if (startable && !q->runnable)
                p->sched->enqueue(p, q);
        else if (!startable && q->runnable)
                p->sched->dequeue(p, q);
}

static void start_failed(Pool *p, Slot *slot, Task *t) {
        t->slot = NULL;
        pool_release(p, slot);
        queue_unclaim(t->queue, t, false);
        if (!pool_is_blocked(p))
                pool_block(p, EQ_REASON_CREATE_FAILURE, engine_now(p->engine) + START_RETRY_USEC);
}

static void start_one(Pool *p, Queue *q) {
        Engine *e = p->engine;
        Slot *slot;
        if (slot_take(p, &slot) < 0) {
                pool_block(p, EQ_REASON_CREATE_FAILURE, engine_now(e) + START_RETRY_USEC);
                pool_queue_changed(p, q);
                return;
        }
        Task *t = queue_claim(q);
        assert(t); /* runnable queues have something to start */
        slot->task = t;
        slot->started_usec = engine_now(e);
        t->slot = slot;
        p->n_busy++;
        pool_queue_changed(p, q);

        p->starting = t;
        int r = p->executor->ops->start(p->executor, slot, t);
        bool told = p->starting != t; /* it has ended already, and t may be gone */
        p->starting = NULL;
        if (r < 0)
                start_failed(p, slot, t);
        else {
                if (!told)
                        e->hooks->started(e->host, t);
                e->hooks->space(e->host, q);
        }
}

void pool_run(Pool *p) {
        p->rerun = true;
        if (p->in_run)
                return;
        p->in_run = true;
        while (p->rerun) {
                p->rerun = false;
                while (p->n_busy < p->n_slots_max && !pool_is_blocked(p)) {
                        Queue *q = p->sched->pick(p);
                        if (!q)
                                break;
                        start_one(p, q);
                }
        }
        p->in_run = false;
}
