/* SPDX-License-Identifier: MIT */
/* The table of queues, one heap for everything that has a time, and the end of attempts.
 *
 * A queue id is its slot in the table and the generation of that slot. Slots are reused, generations only grow, so an
 * id names one queue for ever and the look-up is one comparison. A slot whose generations are used up stays empty.
 *
 * A task has at most one item in the heap, for the earlier of its due time and its expiry; room for it is reserved at
 * admission, so nothing that happens to the task later can fail for want of memory. */

#include "engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "engine/rate.h"

#define GENERATION_MAX ((UINT64_C(1) << 33) - 1)

static size_t slot_of(uint64_t id) {
        return id & ((UINT64_C(1) << ENGINE_SLOT_BITS) - 1);
}

int engine_init(Engine *e, const Clock *clock, const EngineHooks *hooks, void *host) {
        *e = (Engine) {
                .clock = clock,
                .hooks = hooks,
                .host = host,
                .due = HEAP_NULL,
                .throttled = HEAP_NULL,
                .next_armed_usec = USEC_NEVER,
                .rescue = RESCUE_PARAMS_DEFAULT,
        };
        list_init(&e->pools);
        list_init(&e->rescuers);
        watch_init(&e->watch);
        return 0;
}

void engine_deinit(Engine *e) {
        if (!e || !e->clock)
                return;
        assert(!e->barriers);
        for (size_t i = 0; i < e->n_slots; i++)
                queue_free(e->slots[i].queue);
        for (List *link; (link = list_first(&e->rescuers));)
                rescuer_free(LIST_ENTRY(link, Rescuer, link));
        for (List *link; (link = list_first(&e->pools));)
                pool_free(LIST_ENTRY(link, Pool, link));
        for (PoolKind kind = 0; kind < _POOL_KIND_MAX; kind++)
                free(e->slot_numbers[kind].free);
        free(e->slots);
        heap_done(&e->due);
        heap_done(&e->throttled);
        watch_deinit(&e->watch);
        *e = (Engine) { 0 };
}

uint64_t engine_now(const Engine *e) {
        return clock_monotonic(e->clock);
}

/* ---- the table of queues ---- */

Queue *engine_queue(const Engine *e, uint64_t id) {
        size_t i = slot_of(id);
        if (i >= e->n_slots || !e->slots[i].queue || e->slots[i].queue->id != id)
                return NULL;
        return e->slots[i].queue;
}

static void put_free(Engine *e, size_t i) {
        if (e->slots[i].listed)
                return;
        e->slots[i].listed = true;
        e->slots[i].next_free = e->first_free;
        e->first_free = i + 1;
}

static size_t take_free(Engine *e) {
        size_t i = e->first_free - 1;
        e->first_free = e->slots[i].next_free;
        e->slots[i].listed = false;
        return i;
}

static int grow_table(Engine *e, size_t n) {
        n = MIN(MAX(n, e->n_slots * 2), (size_t)ENGINE_QUEUES_MAX);
        EngineSlot *slots = fault_realloc(e->slots, n * sizeof(EngineSlot));
        if (!slots)
                return -ENOMEM;
        memset(slots + e->n_slots, 0, (n - e->n_slots) * sizeof(EngineSlot));
        e->slots = slots;
        for (size_t i = n; i-- > e->n_slots;) /* the lowest is the first to be used */
                put_free(e, i);
        e->n_slots = n;
        return 0;
}

int engine_add_queue(Engine *e, Queue *q) {
        int r = rate_add_queue(e);
        if (r < 0)
                return r;
        for (;;) {
                while (e->first_free) {
                        size_t i = take_free(e);
                        if (e->slots[i].queue || e->slots[i].generation == GENERATION_MAX)
                                continue;
                        e->slots[i].queue = q;
                        q->id = ++e->slots[i].generation << ENGINE_SLOT_BITS | i;
                        e->n_queues++;
                        return 0;
                }
                if (e->n_slots == ENGINE_QUEUES_MAX)
                        return -ENOSPC;
                r = grow_table(e, MAX(e->n_slots + 1, (size_t)16));
                if (r < 0)
                        return r;
        }
}

void engine_remove_queue(Engine *e, Queue *q) {
        size_t i = slot_of(q->id);
        assert(engine_queue(e, q->id) == q);
        e->slots[i].queue = NULL;
        put_free(e, i);
        e->n_queues--;
        rate_remove_queue(q);
}

/* The slot that the id names, made if need be. */
static int slot_for(Engine *e, uint64_t id, EngineSlot **ret) {
        size_t i = slot_of(id);
        uint64_t generation = id >> ENGINE_SLOT_BITS;
        if (i >= ENGINE_QUEUES_MAX || generation == 0 || generation > GENERATION_MAX)
                return -EINVAL;
        int r = i >= e->n_slots ? grow_table(e, i + 1) : 0;
        if (r >= 0)
                *ret = &e->slots[i];
        return r;
}

int engine_restore_queue(Engine *e, Queue *q) {
        EngineSlot *slot;
        int r = slot_for(e, q->id, &slot);
        if (r >= 0)
                r = rate_add_queue(e);
        if (r < 0)
                return r;
        if (slot->queue || slot->generation >= q->id >> ENGINE_SLOT_BITS)
                return -EBUSY;
        slot->queue = q;
        slot->generation = q->id >> ENGINE_SLOT_BITS;
        e->n_queues++;
        return 0;
}

int engine_seed_generation(Engine *e, uint64_t last_queue_id) {
        EngineSlot *slot;
        uint64_t generation = last_queue_id >> ENGINE_SLOT_BITS;
        int r = slot_for(e, last_queue_id, &slot);
        if (r < 0)
                return r;
        if (slot->generation >= generation)
                return 0;
        if (slot->queue)
                return -EBUSY;
        slot->generation = generation;
        return 0;
}

/* ---- slots ---- */

int engine_take_slot_number(Engine *e, PoolKind kind, size_t *ret) {
        SlotNumbers *numbers = &e->slot_numbers[kind];
        if (numbers->n_free == 0 && numbers->n == numbers->cap) {
                size_t cap = numbers->cap ? 2 * numbers->cap : 16;
                size_t *free_numbers = fault_realloc(numbers->free, cap * sizeof(size_t));
                if (!free_numbers)
                        return -ENOMEM;
                numbers->free = free_numbers;
                numbers->cap = cap;
        }
        *ret = numbers->n_free > 0 ? numbers->free[--numbers->n_free] : numbers->n++;
        return 0;
}

void engine_put_slot_number(Engine *e, PoolKind kind, size_t number) {
        SlotNumbers *numbers = &e->slot_numbers[kind];
        numbers->free[numbers->n_free++] = number;
}

size_t engine_n_running(const Engine *e) {
        size_t n = 0;
        LIST_FOREACH (link, &e->pools) {
                const Pool *p = LIST_ENTRY(link, Pool, link);
                n += p->n_busy + p->n_rescuing;
        }
        return n;
}

/* ---- time ---- */

int engine_reserve_tasks(Engine *e, uint64_t n) {
        int r = heap_reserve(&e->due, e->n_tasks + n);
        if (r < 0)
                return r;
        e->n_tasks += n;
        return 0;
}

void engine_release_tasks(Engine *e, uint64_t n) {
        e->n_tasks -= n;
        (void)heap_reserve(&e->due, e->n_tasks); /* less than before: cannot fail */
}

void engine_arm(Engine *e, uint64_t usec) {
        if (usec >= e->next_armed_usec)
                return;
        e->next_armed_usec = usec;
        if (e->hooks->rearm)
                e->hooks->rearm(e->host, usec);
}

static uint64_t task_next_usec(const Task *t) {
        uint64_t usec = USEC_NEVER;
        if (t->wait & (TASK_WAIT_AT | TASK_WAIT_BACKOFF))
                usec = t->due_usec;
        if (t->expire_usec != 0 && t->attempt == 0)
                usec = MIN(usec, t->expire_usec);
        return usec;
}

void engine_arm_task(Engine *e, Task *t) {
        uint64_t usec = task_next_usec(t);
        if (usec == USEC_NEVER) {
                heap_remove(&e->due, &t->due_item);
                return;
        }
        if (heap_contains(&t->due_item))
                heap_update(&e->due, &t->due_item, usec);
        else {
                int r = heap_push(&e->due, &t->due_item, usec);
                assert(r == 0); /* room was reserved with the task */
                (void)r;
        }
        engine_arm(e, usec);
}

void engine_disarm_task(Engine *e, Task *t) {
        heap_remove(&e->due, &t->due_item);
}

uint64_t engine_next_usec(const Engine *e) {
        const HeapItem *item = heap_peek(&e->due);
        uint64_t usec = MIN(item ? item->key : USEC_NEVER, rate_due_usec(e));
        LIST_FOREACH (link, &e->pools) {
                const Pool *p = LIST_ENTRY(link, Pool, link);
                if (p->blocked_until_usec != 0)
                        usec = MIN(usec, p->blocked_until_usec);
                if (p->mayday_usec != 0)
                        usec = MIN(usec, p->mayday_usec);
        }
        return usec;
}

uint64_t engine_run_due(Engine *e) {
        uint64_t now = engine_now(e);
        e->next_armed_usec = 0;
        e->n_holds++;
        for (HeapItem *item; (item = heap_peek(&e->due)) && item->key <= now;) {
                Task *t = HEAP_ENTRY(item, Task, due_item);
                queue_task_due(t->queue, t);
        }
        rate_run_due(e, now);
        e->n_holds--;
        LIST_FOREACH (link, &e->pools) {
                Pool *p = LIST_ENTRY(link, Pool, link);
                if (!pool_is_blocked(p))
                        pool_unblock(p);
                pool_run(p);
                rescue_due(p, now);
        }
        return e->next_armed_usec = engine_next_usec(e);
}

void engine_hold(Engine *e) {
        e->n_holds++;
}

void engine_unhold(Engine *e) {
        if (--e->n_holds > 0)
                return;
        LIST_FOREACH (link, &e->pools)
                pool_run(LIST_ENTRY(link, Pool, link));
}

/* ---- the end of an attempt ---- */

static TaskFate decide(Engine *e, Task *t, const TaskResult *result) {
        if (result->verdict == TASK_OK) {
                if (e->hooks->ended_well)
                        e->hooks->ended_well(e->host, t, result);
                return (TaskFate) { .event = TASK_EV_FINISH };
        }
        if (result->verdict == TASK_NOT_STARTED && !t->canceling)
                return (TaskFate) { .event = TASK_EV_RETURN };
        return e->hooks->ended(e->host, t, result);
}

void engine_task_ended(Engine *e, Task *t, const TaskResult *result) {
        Queue *q = t->queue;
        if (t->where == TASK_IN_HANDED)
                queue_began(q, t);
        assert(t->where == TASK_IN_RUNNING && !t->ending);
        Slot *slot = t->slot;
        Pool *p = slot->pool;
        bool was_cleared = !slot->uncleared; /* else the executor has refused nothing */
        slot->uncleared = false;
        t->ending = true;
        queue_enter(q);
        if (result->verdict != TASK_NOT_STARTED)
                pool_announce(p, slot);
        TaskFate fate = decide(e, t, result);
        pool_release(p, slot); /* only now: the details may be in it */
        if (result->verdict == TASK_NOT_STARTED) {
                queue_not_started(q, t);
                if (slot->reserve)
                        rescue_not_started(slot, q, t);
                else if (was_cleared)
                        pool_cool_down(p, result->reason != EQ_REASON_NONE ? result->reason : EQ_REASON_CREATE_FAILURE,
                                       result->error);
        }
        bool returns = result->verdict == TASK_NOT_STARTED && fate.event == TASK_EV_RETURN;
        queue_task_ended(q, t, fate.event, fate.due_usec);
        if (returns)
                pool_tell_not_started(e, t);
        if (q->pool != p) /* the queue has moved; leaving it runs its new pool only */
                pool_run(p);
        queue_leave(q);
}

int engine_task_stop(Engine *e, Task *t, int signal, uint64_t grace_usec) {
        if (t->where != TASK_IN_RUNNING || t->ending)
                return -1;
        t->canceling = true;
        Executor *x = t->slot->pool->executor;
        if (t->slot->uncleared)
                engine_task_uncleared(e, t);
        else
                x->ops->cancel(x, t->slot, t, signal, grace_usec);
        return 0;
}

/* ---- starts that had to be cleared ---- */

void engine_task_uncleared(Engine *e, Task *t) {
        Executor *x = t->slot->pool->executor;
        assert(t->slot->uncleared);
        queue_enter(t->queue);
        Queue *q = t->queue;
        if (x->ops->unclaim)
                x->ops->unclaim(x, t->slot, t);
        engine_task_ended(e, t, &(TaskResult) { .verdict = TASK_NOT_STARTED });
        queue_leave(q);
}

/* Much can have happened meanwhile; an executor with claim() has seen to that. */
static bool may_still_start(const Slot *slot, const Queue *q) {
        const Executor *x = slot->pool->executor;
        return x->ops->claim || ((slot->reserve || !pool_is_blocked(slot->pool)) && q->unserved == EQ_REASON_NONE);
}

void engine_task_cleared(Engine *e, Task *t) {
        Queue *q = t->queue;
        Slot *slot = t->slot;
        Pool *p = slot->pool;
        Executor *x = p->executor;
        assert(slot->uncleared);
        if (!may_still_start(slot, q)) {
                engine_task_uncleared(e, t);
                return;
        }
        queue_enter(q);
        slot->uncleared = false;
        int r = x->ops->go ? x->ops->go(x, slot, t) : x->ops->start(x, slot, t);
        if (slot->reserve)
                rescue_settle_start(slot, q, t, r);
        else
                pool_settle_start(slot, q, t, r);
        if (q->pool != p)
                pool_run(p);
        queue_leave(q);
}
