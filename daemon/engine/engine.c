/* SPDX-License-Identifier: MIT */
/* The table of queues by id, the heap of due times, and the end of attempts.
 *
 * An id is slot | generation << 20. A slot's generation goes up with every queue that gets it, so an id of a queue that is
 * gone meets another generation and finds nothing.
 *
 * The due heap can always take every task that may need it: room is made when a task is reserved and for every slot of a
 * pool, where failing is still possible. */

#include "engine/engine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

enum { SLOT_BITS = 20, SLOTS_MAX = 1 << SLOT_BITS };

int engine_init(Engine *e, const Clock *clock, const EngineHooks *hooks, void *host) {
        *e = (Engine) { .clock = clock, .hooks = hooks, .host = host, .next_armed_usec = USEC_NEVER };
        list_init(&e->pools);
        return 0;
}

void engine_deinit(Engine *e) {
        for (size_t i = 0; i < e->n_slots; i++)
                queue_free(e->queues[i]);
        if (e->hooks) /* else it was never set up */
                for (List *l; (l = list_first(&e->pools));)
                        pool_free(LIST_ENTRY(l, Pool, link));
        free(e->queues);
        free(e->generations);
        heap_done(&e->due);
        memset(e, 0, sizeof(*e));
}

uint64_t engine_now(const Engine *e) {
        return clock_monotonic(e->clock);
}

/* ---- queues by id ---- */

static int grow(Engine *e, size_t n) {
        size_t cap = e->cap_slots ? e->cap_slots : 16;
        if (n > SLOTS_MAX)
                return -ENOSPC;
        while (cap < n)
                cap *= 2;
        if (cap == e->cap_slots)
                return 0;
        Queue **queues = fault_realloc(e->queues, cap * sizeof(queues[0]));
        if (!queues)
                return -ENOMEM;
        e->queues = queues;
        uint32_t *generations = fault_realloc(e->generations, cap * sizeof(generations[0]));
        if (!generations)
                return -ENOMEM;
        e->generations = generations;
        memset(queues + e->cap_slots, 0, (cap - e->cap_slots) * sizeof(queues[0]));
        memset(generations + e->cap_slots, 0, (cap - e->cap_slots) * sizeof(generations[0]));
        e->cap_slots = cap;
        return 0;
}

int engine_add_queue(Engine *e, Queue *q) {
        size_t i = e->first_free;
        while (i < e->n_slots && (e->queues[i] || e->generations[i] == UINT32_MAX))
                i++;
        if (i == e->n_slots) {
                int r = grow(e, i + 1);
                if (r < 0)
                        return r;
                e->n_slots++;
        }
        e->first_free = i + 1;
        e->queues[i] = q;
        e->n_queues++;
        q->id = (uint64_t)++e->generations[i] << SLOT_BITS | i;
        return 0;
}

void engine_remove_queue(Engine *e, Queue *q) {
        size_t i = q->id & (SLOTS_MAX - 1);
        e->queues[i] = NULL;
        e->n_queues--;
        if (i < e->first_free)
                e->first_free = i;
}

Queue *engine_queue(const Engine *e, uint64_t id) {
        size_t i = id & (SLOTS_MAX - 1);
        return i < e->n_slots && e->queues[i] && e->queues[i]->id == id ? e->queues[i] : NULL;
}

int engine_seed_generation(Engine *e, uint64_t last_queue_id) {
        size_t i = last_queue_id & (SLOTS_MAX - 1);
        uint64_t generation = last_queue_id >> SLOT_BITS;
        if (generation > UINT32_MAX)
                return -EINVAL;
        int r = grow(e, i + 1);
        if (r < 0)
                return r;
        if (i >= e->n_slots)
                e->n_slots = i + 1;
        if (generation > e->generations[i])
                e->generations[i] = (uint32_t)generation;
        return 0;
}

/* ---- due times ---- */

int engine_reserve_due(Engine *e, size_t n) {
        int r = heap_reserve(&e->due, e->due.n + e->n_due_reserved + n);
        if (r < 0)
                return r;
        e->n_due_reserved += n;
        return 0;
}

void engine_unreserve_due(Engine *e, size_t n) {
        assert(e->n_due_reserved >= n);
        e->n_due_reserved -= n;
}

void engine_rearm(Engine *e, uint64_t usec) {
        if (usec >= e->next_armed_usec)
                return;
        e->next_armed_usec = usec;
        e->hooks->rearm(e->host, usec);
}

void engine_set_due(Engine *e, Task *t) {
        uint64_t due = t->wait & (TASK_WAIT_AT | TASK_WAIT_BACKOFF) ? t->due_usec : USEC_NEVER;
        if (t->expire_usec && t->attempt == 0 && t->expire_usec < due)
                due = t->expire_usec;
        heap_remove(&e->due, &t->due_item);
        if (due == USEC_NEVER)
                return;
        int r = heap_push(&e->due, &t->due_item, due);
        assert(r == 0); /* its room was reserved */
        (void)r;
        engine_rearm(e, due);
}

uint64_t engine_next_usec(const Engine *e) {
        const HeapItem *item = heap_peek(&e->due);
        uint64_t next = item ? item->key : USEC_NEVER;
        LIST_FOREACH (l, &e->pools) {
                const Pool *p = LIST_ENTRY(l, Pool, link);
                if (p->blocked_until_usec != 0 && p->blocked_until_usec < next)
                        next = p->blocked_until_usec;
        }
        return next;
}

uint64_t engine_run_due(Engine *e) {
        uint64_t now = engine_now(e);
        e->next_armed_usec = 0; /* nothing needs to be armed meanwhile */
        for (HeapItem *item; (item = heap_peek(&e->due)) && item->key <= now;) {
                Task *t = HEAP_ENTRY(item, Task, due_item);
                heap_remove(&e->due, item);
                queue_due(t->queue, t, now);
        }
        LIST_FOREACH (l, &e->pools) {
                Pool *p = LIST_ENTRY(l, Pool, link);
                if (p->blocked_until_usec == 0 || p->blocked_until_usec > now)
                        continue;
                pool_unblock(p);
                pool_run(p);
        }
        e->next_armed_usec = engine_next_usec(e);
        return e->next_armed_usec;
}

/* ---- ends ---- */

static void apply_fate(Queue *q, Task *t, TaskFate fate) {
        if (fate.event == TASK_EV_RETRY)
                queue_retry_later(q, t, fate.due_usec);
        else if (fate.event == TASK_EV_RETURN)
                queue_unclaim(q, t, true);
        else
                queue_finish(q, t, fate.event);
}

void engine_task_ended(Engine *e, Task *t, const TaskResult *result) {
        Queue *q = t->queue;
        Pool *p = q->pool;
        assert(t->state == EQ_STATE_RUNNING && t->slot);

        if (p->starting == t) { /* a synchronous executor: begin and end in this order */
                p->starting = NULL;
                if (result->verdict != TASK_NOT_STARTED)
                        e->hooks->started(e->host, t);
        }
        pool_release(p, t->slot);
        t->slot = NULL;
        if (result->verdict == TASK_NOT_STARTED)
                queue_unclaim(q, t, false);
        else if (result->verdict == TASK_OK) {
                e->hooks->ended_well(e->host, t, result);
                queue_finish(q, t, TASK_EV_FINISH);
        } else
                apply_fate(q, t, e->hooks->ended(e->host, t, result));
        pool_run(p);
}

int engine_task_stop(Engine *e, Task *t, int signal, uint64_t grace_usec) {
        if (t->state != EQ_STATE_RUNNING || !t->slot)
                return -1;
        Executor *x = t->queue->pool->executor;
        t->canceling = true;
        x->ops->cancel(x, t->slot, t, signal, grace_usec);
        return 0;
}
