/* SPDX-License-Identifier: MIT */
#pragma once

/* What the tests of the engine stand on: an engine with a clock that stands, one pool, one queue, and an executor that
 * keeps each task at a gate until the test says how it ended. `starts` and `ends` are the history as text. */

#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "engine/barrier.h"
#include "engine/engine.h"
#include "proto/schema.h"
#include "test.h"

enum { RIG_TASKS_MAX = 4096 };

typedef struct Rig {
        Executor executor; /* first */
        FakeClock clock;
        Engine engine;
        Pool *pool;
        Queue *queue;

        Task *tasks[RIG_TASKS_MAX]; /* all that were ever made; freed at the end */
        size_t n_tasks;
        char starts[4096];   /* "1 2 3": SEQs of the fixture's first queue; "1:2" is queue slot 1 */
        char ends[4096];     /* "1DONE 2CANCELED" */
        char creations[256]; /* "EAGAIN after 3s " */
        size_t n_started_hook, n_space, n_rearm, n_cancels, n_idle;
        uint64_t armed_usec;

        bool synchronous; /* the executor ends tasks in start() */
        int refuse;       /* what start() returns */
        int clear;        /* what the `clear` hook answers */
        size_t n_not_started;
        uint64_t block_usec; /* the executor that refuses says for how long; 0: it does not */
        bool stops_at_once;  /* cancel() ends the task */
        TaskVerdict verdict;
        TaskFate fate;                               /* answer of the `ended` hook */
        void (*in_finished)(struct Rig *r, Task *t); /* more to do in the hook; NULL: nothing */
        void (*in_started)(struct Rig *r, Task *t);
        void (*in_space)(struct Rig *r, Queue *q);
        unsigned depth, depth_max; /* of start() inside start() */
} Rig;

static inline void rig_note(char *text, size_t size, const Task *t, const char *what) {
        size_t len = strlen(text);
        size_t slot = t->queue->id & ENGINE_QUEUES_MAX;
        if (slot > 0)
                snprintf(text + len, size - len, "%s%zu:%lu%s", len ? " " : "", slot, (unsigned long)t->seq, what);
        else
                snprintf(text + len, size - len, "%s%lu%s", len ? " " : "", (unsigned long)t->seq, what);
}

static inline int rig_start(Executor *x, Slot *slot, Task *t) {
        Rig *r = (Rig *)x;
        if (r->refuse < 0 && r->block_usec > 0)
                pool_block(slot->pool, EQ_REASON_SPAWN_FAILED, engine_now(&r->engine) + r->block_usec);
        if (r->refuse < 0)
                return r->refuse;
        ck_assert_ptr_eq(t->slot, slot);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        rig_note(r->starts, sizeof(r->starts), t, "");
        if (!r->synchronous)
                return 0;
        if (++r->depth > r->depth_max)
                r->depth_max = r->depth;
        engine_task_ended(&r->engine, t, &(TaskResult) { .verdict = r->verdict });
        r->depth--;
        return 0;
}

static inline void rig_cancel(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
        Rig *r = (Rig *)x;
        r->n_cancels++;
        if (r->stops_at_once)
                engine_task_ended(&r->engine, t, &(TaskResult) { .verdict = TASK_STOPPED });
}

static inline void rig_hook_started(void *host, Task *t) {
        Rig *r = host;
        r->n_started_hook++;
        if (r->in_started)
                r->in_started(r, t);
}

static inline int rig_hook_clear(void *host, Task *t) {
        return ((Rig *)host)->clear;
}

static inline void rig_hook_not_started(void *host, Task *t) {
        ck_assert(task_is_pending(t));
        ((Rig *)host)->n_not_started++;
}

static inline TaskFate rig_hook_ended(void *host, Task *t, const TaskResult *result) {
        return ((Rig *)host)->fate;
}

static inline void rig_hook_finished(void *host, Task *t) {
        Rig *r = host;
        ck_assert(eq_state_finished(t->state));
        ck_assert_int_eq(t->where, TASK_NOWHERE);
        rig_note(r->ends, sizeof(r->ends), t, eq_state_name(t->state));
        if (r->in_finished)
                r->in_finished(r, t);
}

static inline void rig_hook_space(void *host, Queue *q) {
        Rig *r = host;
        r->n_space++;
        if (r->in_space)
                r->in_space(r, q);
}

static inline void rig_hook_pool_idle(void *host, Pool *p) {
        ((Rig *)host)->n_idle++;
}

static inline void rig_hook_creation(void *host, Pool *p, uint64_t lasted_usec) {
        Rig *r = host;
        size_t len = strlen(r->creations);
        if (p->create_error < 0)
                snprintf(r->creations + len, sizeof(r->creations) - len, "%s ", strerrorname_np(-p->create_error));
        else
                snprintf(r->creations + len, sizeof(r->creations) - len, "after %lus ",
                         (unsigned long)(lasted_usec / USEC_PER_SEC));
}

static inline void rig_hook_rearm(void *host, uint64_t next_usec) {
        Rig *r = host;
        r->n_rearm++;
        r->armed_usec = next_usec;
}

static const ExecutorOps rig_executor_ops = { .name = "gate", .start = rig_start, .cancel = rig_cancel };
static const EngineHooks rig_hooks = {
        .clear = rig_hook_clear,
        .started = rig_hook_started,
        .not_started = rig_hook_not_started,
        .ended = rig_hook_ended,
        .finished = rig_hook_finished,
        .space = rig_hook_space,
        .pool_idle = rig_hook_pool_idle,
        .creation = rig_hook_creation,
        .rearm = rig_hook_rearm,
};
static const QueueParams rig_params = { .max_active = 1, .max_tasks = 1000000, .max_bytes = 1 << 30 };

static inline Rig *rig_new(size_t n_slots) {
        Rig *r = calloc(1, sizeof(*r));
        r->executor.ops = &rig_executor_ops;
        r->fate.event = TASK_EV_FAIL;
        fake_clock_init(&r->clock, 1000 * USEC_PER_SEC, 0);
        ck_assert_int_eq(engine_init(&r->engine, &r->clock.clock, &rig_hooks, r), 0);
        ck_assert_int_eq(pool_new(&r->engine, "pool", POOL_COMMAND, &r->executor, n_slots, &r->pool), 0);
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "q", &rig_params, 0, &r->queue), 0);
        return r;
}

static inline void rig_end(Rig *r, Task *t, TaskVerdict verdict) {
        engine_task_ended(&r->engine, t, &(TaskResult) { .verdict = verdict });
}

/* Cancels what is left, so that each test may stop where its claim is shown. */
static inline void rig_free(Rig *r) {
        r->synchronous = r->stops_at_once = false;
        r->refuse = 0;
        r->in_finished = r->in_started = NULL;
        r->in_space = NULL;
        pool_set_max(r->pool, 0);
        for (size_t i = 0; i < r->n_tasks; i++)
                if (r->tasks[i]->where != TASK_NOWHERE && queue_cancel(r->tasks[i]->queue, r->tasks[i]) == 1)
                        rig_end(r, r->tasks[i], TASK_OK);
        for (size_t i = 0; i < r->n_tasks; i++) {
                barrier_forget(&r->engine, r->tasks[i]);
                free(r->tasks[i]);
        }
        engine_deinit(&r->engine);
        free(r);
}
static inline void rig_freep(Rig **r) {
        rig_free(*r);
}

static inline Task *rig_make(Rig *r, uint64_t seq, TaskLane lane, uint32_t bytes) {
        Task *t = calloc(1, sizeof(*t));
        ck_assert_uint_lt(r->n_tasks, RIG_TASKS_MAX);
        task_init(t, seq, lane, bytes);
        r->tasks[r->n_tasks++] = t;
        return t;
}

static inline Task *rig_submit_to(Rig *r, Queue *q, TaskLane lane, uint8_t wait, uint64_t in_usec) {
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(q, 1, 10, &seq), 0);
        Task *t = rig_make(r, seq, lane, 10);
        t->wait = wait;
        t->due_usec = engine_now(&r->engine) + in_usec;
        queue_push(q, t);
        return t;
}

static inline Task *rig_submit(Rig *r) {
        return rig_submit_to(r, r->queue, TASK_LANE_NORMAL, 0, 0);
}
static inline Task *rig_submit_urgent(Rig *r) {
        return rig_submit_to(r, r->queue, TASK_LANE_URGENT, 0, 0);
}
static inline Task *rig_submit_held(Rig *r) {
        return rig_submit_to(r, r->queue, TASK_LANE_NORMAL, TASK_WAIT_HELD, 0);
}
static inline Task *rig_submit_in(Rig *r, uint64_t usec) {
        return rig_submit_to(r, r->queue, TASK_LANE_NORMAL, TASK_WAIT_AT, usec);
}

/* Time passes, and the host does what it does when its timer rings. */
static inline void rig_advance(Rig *r, uint64_t usec) {
        fake_clock_advance(&r->clock, usec);
        if (engine_next_usec(&r->engine) <= engine_now(&r->engine))
                engine_run_due(&r->engine);
}

static inline Task *rig_running(Queue *q) {
        List *link = list_first(&q->running);
        ck_assert_ptr_nonnull(link);
        return LIST_ENTRY(link, Task, link);
}

/* Ends what runs in q, well, until nothing does. */
static inline void rig_run_all(Rig *r) {
        while (!list_is_empty(&r->queue->running))
                rig_end(r, rig_running(r->queue), TASK_OK);
}

static inline void rig_set_max_active(Rig *r, uint64_t n) {
        QueueParams params = r->queue->params;
        params.max_active = n;
        queue_set_params(r->queue, &params);
}

static inline void rig_retry_in(Rig *r, uint64_t usec) {
        r->fate = (TaskFate) { .event = TASK_EV_RETRY, .due_usec = engine_now(&r->engine) + usec };
}

/* ---- ahead: the executor has tasks, and begins one when the test says so, without telling ---- */

static inline int rig_ahead_start(Executor *x, Slot *slot, Task *t) {
        Rig *r = (Rig *)x;
        ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
        if (r->refuse < 0)
                return r->refuse;
        slot->watch->own_life.begun_usec = 0;
        slot->watch->life = &slot->watch->own_life;
        rig_note(r->starts, sizeof(r->starts), t, "");
        return 0;
}

static inline bool rig_ahead_has_begun(Executor *x, const Slot *slot, const Task *t) {
        return slot->watch->own_life.begun_usec != 0;
}

static inline bool rig_ahead_take_back(Executor *x, Slot *slot, Task *t) {
        Rig *r = (Rig *)x;
        ck_assert_ptr_eq(t->slot, slot);
        if (rig_ahead_has_begun(x, slot, t))
                return false;
        rig_note(r->starts, sizeof(r->starts), t, "back");
        return true;
}

static const ExecutorOps rig_ahead_ops = {
        .name = "ahead",
        .start = rig_ahead_start,
        .cancel = rig_cancel,
        .take_back = rig_ahead_take_back,
        .has_begun = rig_ahead_has_begun,
};

static inline void rig_set_ahead(Rig *r, size_t n) {
        r->executor.ops = &rig_ahead_ops;
        queue_set_ahead(r->queue, n);
}

static inline void rig_begin(Rig *r, Task *t) {
        t->slot->watch->own_life.begun_usec = engine_now(&r->engine);
}

typedef struct RigWaiter {
        QueueWaiter waiter;
        unsigned n_calls;
} RigWaiter;
static inline void rig_waiter_done(QueueWaiter *w) {
        ((RigWaiter *)w)->n_calls++;
}
#define RIG_WAITER                                                                                                     \
        {                                                                                                              \
                .waiter = {.done = rig_waiter_done }                                                                   \
        }

#define ck_assert_waits(task, expected_reason, expected_by)                                                            \
        do {                                                                                                           \
                const Task *by_ = NULL;                                                                                \
                ck_assert_str_eq(eq_reason_name(queue_reason((task)->queue, task, &by_)),                              \
                                 eq_reason_name(expected_reason));                                                     \
                ck_assert_ptr_eq(by_, expected_by);                                                                    \
        } while (0)
