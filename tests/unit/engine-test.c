/* SPDX-License-Identifier: MIT */
/* The engine on a clock that the test moves, with an executor that starts tasks and leaves their end to the test. */

#include "engine/engine.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "proto/schema.h"
#include "test.h"

enum { TASKS_MAX = 4096 };

typedef struct Host {
        Executor executor; /* first */
        FakeClock clock;
        Engine engine;
        Pool *pool;
        Task *running[64];
        size_t n_running;
        bool refuse, at_once; /* start() fails; or ends the task before it returns */
        uint64_t started[TASKS_MAX], finished[TASKS_MAX];
        size_t n_started, n_finished, n_space, n_waiters;
        TaskFate fate;
        Task tasks[TASKS_MAX];
        size_t n_tasks;
} Host;

static Host *the; /* large: one per process */

static int fake_start(Executor *x, Slot *slot, Task *t) {
        Host *h = (Host *)x;
        if (h->refuse)
                return -EAGAIN;
        if (h->at_once) {
                engine_task_ended(&h->engine, t, &(TaskResult) { .verdict = TASK_OK });
                return 0;
        }
        h->running[h->n_running++] = t;
        return 0;
}

static void fake_cancel(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
}

static const ExecutorOps fake_ops = { .name = "fake", .start = fake_start, .cancel = fake_cancel };

static void on_started(void *host, Task *t) {
        Host *h = host;
        h->started[h->n_started++ % TASKS_MAX] = t->seq;
}
static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        return ((Host *)host)->fate;
}
static void on_ended_well(void *host, Task *t, const TaskResult *result) {
}
static void on_finished(void *host, Task *t) {
        Host *h = host;
        h->finished[h->n_finished++ % TASKS_MAX] = t->seq;
}
static void on_space(void *host, Queue *q) {
        ((Host *)host)->n_space++;
}
static void on_rearm(void *host, uint64_t next_usec) {
}

static const EngineHooks hooks = { .started = on_started,
                                   .ended = on_ended,
                                   .ended_well = on_ended_well,
                                   .finished = on_finished,
                                   .space = on_space,
                                   .rearm = on_rearm };

static Host *host_new(size_t n_slots) {
        Host *h = calloc(1, sizeof(*h));
        ck_assert_ptr_nonnull(h);
        h->executor.ops = &fake_ops;
        fake_clock_init(&h->clock, 1000, 0);
        ck_assert_int_eq(engine_init(&h->engine, &h->clock.clock, &hooks, h), 0);
        ck_assert_int_eq(pool_new(&h->engine, "p", POOL_COMMAND, &h->executor, n_slots, &h->pool), 0);
        the = h;
        return h;
}

static void end(Host *h, Task *t, TaskVerdict verdict);

static void host_free(Host *h) {
        for (size_t i = 0; i < h->n_tasks; i++)
                if (h->tasks[i].state != EQ_STATE_RUNNING && !eq_state_finished(h->tasks[i].state))
                        (void)queue_cancel(h->tasks[i].queue, &h->tasks[i]);
        pool_block(h->pool, EQ_REASON_DRAINING, USEC_NEVER);
        while (h->n_running > 0)
                end(h, h->running[0], TASK_OK);
        engine_deinit(&h->engine);
        free(h);
}

static const QueueParams serial = { .max_active = 1, .max_tasks = 1000000, .max_bytes = 1 << 30 };

static Queue *queue(Host *h, uint64_t max_active) {
        Queue *q;
        QueueParams p = serial;
        p.max_active = max_active;
        ck_assert_int_eq(queue_new(&h->engine, h->pool, "q", &p, 0, &q), 0);
        return q;
}

static Task *push(Queue *q, TaskLane lane, uint8_t wait, uint64_t due, uint64_t expire) {
        Host *h = the;
        uint64_t seq;
        ck_assert_uint_lt(h->n_tasks, TASKS_MAX);
        ck_assert_int_eq(queue_reserve(q, 1, 10, &seq), 0);
        Task *t = &h->tasks[h->n_tasks++];
        task_init(t, seq, lane, 10, NULL);
        t->wait = wait;
        t->due_usec = due;
        t->expire_usec = expire;
        queue_push(q, t);
        return t;
}

static Task *put(Queue *q) {
        return push(q, TASK_LANE_NORMAL, 0, 0, 0);
}

static void end(Host *h, Task *t, TaskVerdict verdict) {
        size_t i = 0;
        while (i < h->n_running && h->running[i] != t)
                i++;
        ck_assert_uint_lt(i, h->n_running);
        memmove(&h->running[i], &h->running[i + 1], (--h->n_running - i) * sizeof(h->running[0]));
        engine_task_ended(&h->engine, t, &(TaskResult) { .verdict = verdict });
}

static void drain_all(Host *h) {
        while (h->n_running > 0)
                end(h, h->running[0], TASK_OK);
}

static eq_reason reason(const Task *t) {
        const Task *by;
        return queue_reason(t->queue, t, &by);
}

#define ck_assert_state(t, STATE) ck_assert_str_eq(eq_state_name((t)->state), #STATE)
#define ck_assert_order(h, ...)                                                                                        \
        do {                                                                                                           \
                const uint64_t want_[] = { __VA_ARGS__ };                                                              \
                ck_assert_uint_eq((h)->n_started, ELEMENTSOF(want_));                                                  \
                for (size_t i_ = 0; i_ < ELEMENTSOF(want_); i_++)                                                      \
                        ck_assert_uint_eq((h)->started[i_], want_[i_]);                                                \
        } while (0)

/* ---- order ---- */

TEST(tasks_start_in_seq_order_one_at_a_time) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        for (int i = 0; i < 4; i++)
                put(q);
        ck_assert_uint_eq(h->n_running, 1);
        drain_all(h);
        ck_assert_order(h, 1, 2, 3, 4);
        host_free(h);
}

TEST(max_active_n_runs_n_at_once_started_in_order) {
        Host *h = host_new(8);
        Queue *q = queue(h, 3);
        Task *t[5];
        for (int i = 0; i < 5; i++)
                t[i] = put(q);
        ck_assert_uint_eq(h->n_running, 3);
        end(h, t[1], TASK_OK);
        ck_assert_order(h, 1, 2, 3, 4);
        QueueParams p = q->params;
        p.max_active = 5;
        queue_set_params(q, &p);
        ck_assert_uint_eq(h->n_running, 4);
        host_free(h);
}

TEST(urgent_tasks_come_first_among_themselves_in_order) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        put(q);
        put(q);
        push(q, TASK_LANE_URGENT, 0, 0, 0);
        push(q, TASK_LANE_URGENT, 0, 0, 0);
        drain_all(h);
        ck_assert_order(h, 1, 3, 4, 2);
        host_free(h);
}

TEST(a_task_that_becomes_eligible_takes_its_own_place) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        put(q);
        Task *held = push(q, TASK_LANE_NORMAL, TASK_WAIT_HELD, 0, 0);
        Task *later = push(q, TASK_LANE_NORMAL, TASK_WAIT_AT, 5000, 0);
        put(q);
        put(q);
        ck_assert_int_eq(reason(held), EQ_REASON_HELD);
        ck_assert_int_eq(reason(later), EQ_REASON_AT);
        fake_clock_advance(&h->clock, 4000);
        engine_run_due(&h->engine);
        ck_assert_state(later, QUEUED);
        ck_assert_int_eq(queue_wait_clear(q, held, TASK_WAIT_HELD), 0);
        drain_all(h);
        ck_assert_order(h, 1, 2, 3, 4, 5);
        host_free(h);
}

TEST(queues_take_turns_in_a_pool) {
        Host *h = host_new(1);
        Queue *a = queue(h, 1), *b = queue(h, 1);
        for (int i = 0; i < 3; i++)
                put(a);
        put(b);
        const Task *waits = &h->tasks[3];
        ck_assert_int_eq(reason(waits), EQ_REASON_SLOTS);
        end(h, h->running[0], TASK_OK);
        ck_assert_ptr_eq(h->running[0], waits);
        host_free(h);
}

/* ---- back-off, expiry ---- */

TEST(back_off_blocks_the_lane_of_a_serial_queue_only) {
        Host *h = host_new(8);
        h->fate = (TaskFate) { .event = TASK_EV_RETRY, .due_usec = 9000 };
        Queue *s = queue(h, 1), *p = queue(h, 2);
        Task *first = put(s), *second = put(s);
        end(h, first, TASK_BAD);
        ck_assert_state(first, WAITING);
        ck_assert_state(second, QUEUED);
        ck_assert_int_eq(reason(second), EQ_REASON_BACKOFF);
        const Task *urgent = push(s, TASK_LANE_URGENT, 0, 0, 0);
        ck_assert_state(urgent, RUNNING);
        end(h, (Task *)urgent, TASK_OK);

        Task *a = put(p), *b = put(p);
        end(h, a, TASK_BAD);
        ck_assert_state(b, RUNNING);
        ck_assert_state(put(p), RUNNING);

        fake_clock_advance(&h->clock, 8000);
        engine_run_due(&h->engine);
        ck_assert_state(first, RUNNING);
        ck_assert_uint_eq(first->attempt, 2);
        host_free(h);
}

TEST(canceling_a_task_in_back_off_frees_the_lane) {
        Host *h = host_new(8);
        h->fate = (TaskFate) { .event = TASK_EV_RETRY, .due_usec = USEC_NEVER - 1 };
        Queue *q = queue(h, 1);
        Task *a = put(q), *b = put(q);
        end(h, a, TASK_BAD);
        ck_assert_int_eq(queue_cancel(q, a), 0);
        ck_assert_state(b, RUNNING);
        host_free(h);
}

TEST(a_task_not_started_in_time_expires_and_a_started_one_does_not) {
        Host *h = host_new(8);
        h->fate = (TaskFate) { .event = TASK_EV_RETRY, .due_usec = 100000 };
        Queue *q = queue(h, 1);
        Task *runs = push(q, TASK_LANE_NORMAL, 0, 0, 5000), *queued = push(q, TASK_LANE_NORMAL, 0, 0, 5000);
        Task *held = push(q, TASK_LANE_NORMAL, TASK_WAIT_HELD, 0, 6000);
        ck_assert_uint_eq(engine_next_usec(&h->engine), 5000);
        fake_clock_advance(&h->clock, 4000);
        ck_assert_uint_eq(engine_run_due(&h->engine), 6000);
        ck_assert_state(queued, EXPIRED);
        fake_clock_advance(&h->clock, 1000);
        engine_run_due(&h->engine);
        ck_assert_state(held, EXPIRED);
        end(h, runs, TASK_BAD);
        ck_assert_state(runs, WAITING);
        host_free(h);
}

/* ---- cancel ---- */

TEST(cancel_says_0_for_pending_1_for_running_minus_1_for_ended) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        Task *a = put(q), *b = put(q), *held = push(q, TASK_LANE_NORMAL, TASK_WAIT_HELD, 0, 0);
        ck_assert_int_eq(queue_cancel(q, a), 1);
        ck_assert_int_eq(queue_cancel(q, b), 0);
        ck_assert_int_eq(queue_cancel(q, b), -1);
        ck_assert_int_eq(queue_cancel(q, held), 0);
        end(h, a, TASK_OK);
        ck_assert_int_eq(queue_cancel(q, a), -1);
        ck_assert_uint_eq(h->n_finished, 3);
        ck_assert_uint_eq(q->n_bytes, 0);
        host_free(h);
}

/* ---- verbs ---- */

typedef struct Probe {
        QueueWaiter w;
        int n;
} Probe;
static void probe_done(QueueWaiter *w) {
        ((Probe *)w)->n++;
}
static Probe probe(void) {
        return (Probe) { .w = { .done = probe_done } };
}

TEST(pause_is_a_depth_and_starts_nothing) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        queue_pause(q);
        queue_pause(q);
        Task *t = put(q);
        ck_assert_int_eq(reason(t), EQ_REASON_PAUSED);
        ck_assert_int_eq(queue_resume(q), 0);
        ck_assert_state(t, QUEUED);
        ck_assert_int_eq(queue_resume(q), 0);
        ck_assert_state(t, RUNNING);
        ck_assert_int_eq(queue_resume(q), 1);
        host_free(h);
}

TEST(drain_refuses_until_empty_then_opens_again) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        Task *t = put(q);
        Probe p = probe();
        uint64_t seq;
        queue_drain(q, &p.w);
        ck_assert_int_eq(queue_reserve(q, 1, 1, &seq), QUEUE_E_DRAINING);
        ck_assert_int_eq(p.n, 0);
        end(h, t, TASK_OK);
        ck_assert_int_eq(p.n, 1);
        ck_assert_state(put(q), RUNNING);
        host_free(h);
}

TEST(stop_runs_what_is_pending_and_join_waits_for_it) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        Task *a = put(q), *b = put(q);
        Probe before = probe(), after = probe();
        uint64_t seq;
        queue_join(q, &before.w);
        queue_stop(q);
        queue_stop(q);
        ck_assert_int_eq(queue_reserve(q, 1, 1, &seq), QUEUE_E_STOPPED);
        end(h, a, TASK_OK);
        ck_assert_int_eq(before.n, 0);
        end(h, b, TASK_OK);
        ck_assert_int_eq(before.n, 1);
        ck_assert_str_eq(queue_state_name(q), "stopped");
        queue_join(q, &after.w);
        ck_assert_int_eq(after.n, 1);
        host_free(h);
}

TEST(flush_waits_for_all_accepted_before_and_for_no_other) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        h->fate = (TaskFate) { .event = TASK_EV_RETRY, .due_usec = 2000 };
        Task *a = put(q), *held = push(q, TASK_LANE_NORMAL, TASK_WAIT_HELD, 0, 0);
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(q, 1, 10, &seq), 0); /* accepted, not pushed yet */
        Probe p = probe(), empty = probe();
        queue_flush(q, &p.w);
        Task *later = put(q);
        end(h, a, TASK_BAD); /* comes back: it has not ended */
        ck_assert_int_eq(p.n, 0);
        fake_clock_advance(&h->clock, 2000);
        engine_run_due(&h->engine);
        end(h, a, TASK_OK);
        ck_assert_int_eq(queue_cancel(q, held), 0);
        ck_assert_int_eq(p.n, 0);
        Task *reserved = &h->tasks[h->n_tasks++];
        task_init(reserved, seq, TASK_LANE_NORMAL, 10, NULL);
        queue_push(q, reserved);
        ck_assert_int_eq(queue_cancel(q, reserved), 0);
        ck_assert_int_eq(p.n, 1);
        ck_assert_state(later, RUNNING);
        end(h, later, TASK_OK);
        queue_flush(q, &empty.w);
        ck_assert_int_eq(empty.n, 1);
        host_free(h);
}

/* ---- capacity, ids, faults ---- */

TEST(capacity_counts_tasks_and_bytes_that_have_not_started) {
        Host *h = host_new(8);
        Queue *q = queue(h, 1);
        QueueParams p = { .max_active = 1, .max_tasks = 2, .max_bytes = 25 };
        uint64_t seq;
        queue_set_params(q, &p);
        Task *a = put(q); /* runs: takes no room */
        put(q);
        put(q);
        ck_assert_int_eq(queue_reserve(q, 1, 1, &seq), QUEUE_E_FULL);
        size_t n_space = h->n_space;
        end(h, a, TASK_OK);
        ck_assert_uint_gt(h->n_space, n_space);
        ck_assert_int_eq(queue_reserve(q, 1, 16, &seq), QUEUE_E_FULL);
        ck_assert_int_eq(queue_reserve(q, 1, 15, &seq), 0);
        queue_unreserve(q, 1, 15);
        ck_assert_uint_eq(q->n_refused, 2);
        host_free(h);
}

TEST(a_stale_queue_id_finds_nothing) {
        Host *h = host_new(1);
        Queue *q = queue(h, 1);
        uint64_t id = q->id;
        ck_assert_ptr_eq(engine_queue(&h->engine, id), q);
        queue_free(q);
        ck_assert_ptr_null(engine_queue(&h->engine, id));
        Queue *again = queue(h, 1);
        ck_assert_uint_eq(again->id & 0xfffff, id & 0xfffff);
        ck_assert_ptr_null(engine_queue(&h->engine, id));
        ck_assert_ptr_null(engine_queue(&h->engine, 0));
        ck_assert_uint_lt(again->id, EQ_SEQ_MAX);
        host_free(h);
}

TEST(a_refused_start_keeps_place_and_attempt_and_blocks_the_pool_for_a_while) {
        Host *h = host_new(2);
        Queue *q = queue(h, 1);
        h->refuse = true;
        Task *a = put(q), *b = put(q);
        ck_assert_state(a, QUEUED);
        ck_assert_uint_eq(a->attempt, 0);
        ck_assert_int_eq(reason(a), EQ_REASON_CREATE_FAILURE);
        h->refuse = false;
        fake_clock_advance(&h->clock, engine_next_usec(&h->engine) - 1000);
        engine_run_due(&h->engine);
        ck_assert_state(a, RUNNING);
        ck_assert_state(b, QUEUED);
        host_free(h);
}

TEST(an_executor_that_answers_at_once_does_not_nest) {
        Host *h = host_new(1);
        Queue *q = queue(h, 1);
        queue_pause(q);
        for (int i = 0; i < TASKS_MAX; i++)
                put(q);
        h->at_once = true;
        queue_resume(q);
        ck_assert_uint_eq(h->n_finished, TASKS_MAX);
        ck_assert_uint_eq(h->n_started, TASKS_MAX);
        for (size_t i = 0; i < TASKS_MAX; i++)
                ck_assert_uint_eq(h->started[i], i + 1);
        host_free(h);
}

TEST(without_memory_a_reservation_is_refused_and_nothing_is_kept) {
        Host *h = host_new(1);
        Queue *q = queue(h, 1), *other;
        uint64_t seq;
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(queue_reserve(q, 1000, 1000, &seq), -ENOMEM);
        ck_assert_int_eq(queue_new(&h->engine, h->pool, "x", &serial, 0, &other), -ENOMEM);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert(queue_is_empty(q));
        ck_assert_state(put(q), RUNNING);
        host_free(h);
}

/* ---- a random walk, checked against what must always be true ---- */

static uint64_t next_random(uint64_t *state) {
        *state = *state * UINT64_C(6364136223846793005) + 1442695040888963407u;
        return *state >> 33;
}

/* Counts by walking all tasks, and the next to start by looking at every one. */
static void check_queue(const Host *h, const Queue *q) {
        size_t n[_EQ_STATE_MAX] = { 0 };
        uint64_t bytes = 0;
        const Task *best = NULL;
        bool blocked[_TASK_LANE_MAX] = { false };
        for (size_t i = 0; i < h->n_tasks; i++) {
                const Task *t = &h->tasks[i];
                if (t->queue != q)
                        continue;
                n[t->state]++;
                if (t->state == EQ_STATE_WAITING || t->state == EQ_STATE_QUEUED)
                        bytes += t->bytes;
                ck_assert((t->state == EQ_STATE_WAITING) ==
                          (!eq_state_finished(t->state) && t->state != EQ_STATE_RUNNING && t->wait != 0));
                if (t->state == EQ_STATE_WAITING && t->wait == TASK_WAIT_BACKOFF && q->params.max_active == 1)
                        blocked[t->lane] = true;
        }
        for (size_t i = 0; i < h->n_tasks; i++) {
                const Task *t = &h->tasks[i];
                if (t->queue == q && t->state == EQ_STATE_QUEUED && !blocked[t->lane] &&
                    (!best || t->lane < best->lane || (t->lane == best->lane && t->seq < best->seq)))
                        best = t;
        }
        ck_assert_uint_eq(q->n_running, n[EQ_STATE_RUNNING]);
        ck_assert_uint_eq(q->n_queued, n[EQ_STATE_QUEUED]);
        ck_assert_uint_eq(q->n_waiting, n[EQ_STATE_WAITING]);
        ck_assert_uint_eq(q->n_bytes, bytes);
        bool may = q->pauses == 0 && q->n_running < q->params.max_active && best;
        ck_assert(queue_has_startable(q) == may);
        ck_assert(q->runnable == may);
        if (may) /* it can only wait for a slot or a blocked pool */
                ck_assert(h->pool->n_busy >= h->pool->n_slots_max || pool_is_blocked(h->pool));
        if (may)
                ck_assert(reason(best) == EQ_REASON_SLOTS || pool_is_blocked(h->pool));
}

static void random_step(Host *h, Queue **queues, uint64_t *seed) {
        Queue *q = queues[next_random(seed) % 3];
        Task *t = h->n_tasks ? &h->tasks[next_random(seed) % h->n_tasks] : NULL;
        uint64_t now = engine_now(&h->engine);
        switch (next_random(seed) % 12) {
        case 0:
        case 1:
        case 2:
                if (h->n_tasks < 400)
                        push(q, next_random(seed) % 4 == 0 ? TASK_LANE_URGENT : TASK_LANE_NORMAL, 0, 0,
                             next_random(seed) % 8 == 0 ? now + 500 : 0);
                break;
        case 3:
                if (h->n_tasks < 400)
                        push(q, TASK_LANE_NORMAL, next_random(seed) % 2 ? TASK_WAIT_HELD : TASK_WAIT_AT, now + 300, 0);
                break;
        case 4:
                if (t)
                        (void)queue_cancel(t->queue, t);
                break;
        case 5:
                if (t)
                        (void)queue_wait_set(t->queue, t, TASK_WAIT_HELD);
                break;
        case 6:
                if (t)
                        (void)queue_wait_clear(t->queue, t, TASK_WAIT_HELD);
                break;
        case 7:
        case 8:
                if (h->n_running > 0) {
                        h->fate = (TaskFate) { .event = next_random(seed) % 2 ? TASK_EV_RETRY : TASK_EV_FAIL,
                                               .due_usec = now + 200 };
                        end(h, h->running[next_random(seed) % h->n_running],
                            next_random(seed) % 3 ? TASK_OK : TASK_BAD);
                }
                break;
        case 9:
                fake_clock_advance(&h->clock, next_random(seed) % 400);
                engine_run_due(&h->engine);
                break;
        case 10:
                if (next_random(seed) % 2)
                        queue_pause(q);
                else
                        (void)queue_resume(q);
                break;
        default: {
                QueueParams p = q->params;
                p.max_active = 1 + next_random(seed) % 3;
                queue_set_params(q, &p);
                pool_set_max(h->pool, 1 + next_random(seed) % 4);
        }
        }
}

TEST(whatever_happens_counts_order_and_reasons_stay_true) {
        for (uint64_t round = 1; round <= 8; round++) {
                Host *h = host_new(3);
                Queue *queues[3] = { queue(h, 1), queue(h, 2), queue(h, 1) };
                uint64_t seed = round;
                for (int i = 0; i < 600; i++) {
                        random_step(h, queues, &seed);
                        for (int k = 0; k < 3; k++)
                                check_queue(h, queues[k]);
                }
                for (int k = 0; k < 3; k++)
                        while (queue_resume(queues[k]) == 0)
                                ;
                size_t n = h->n_finished;
                for (size_t i = 0; i < h->n_tasks; i++)
                        if (h->tasks[i].state != EQ_STATE_RUNNING && queue_cancel(h->tasks[i].queue, &h->tasks[i]) == 0)
                                n++;
                ck_assert_uint_eq(h->n_finished, n); /* each is told of exactly once */
                host_free(h);
        }
}

RUN_TESTS("engine", 60, test_tasks_start_in_seq_order_one_at_a_time, test_max_active_n_runs_n_at_once_started_in_order,
          test_urgent_tasks_come_first_among_themselves_in_order, test_a_task_that_becomes_eligible_takes_its_own_place,
          test_queues_take_turns_in_a_pool, test_back_off_blocks_the_lane_of_a_serial_queue_only,
          test_canceling_a_task_in_back_off_frees_the_lane,
          test_a_task_not_started_in_time_expires_and_a_started_one_does_not,
          test_cancel_says_0_for_pending_1_for_running_minus_1_for_ended, test_pause_is_a_depth_and_starts_nothing,
          test_drain_refuses_until_empty_then_opens_again, test_stop_runs_what_is_pending_and_join_waits_for_it,
          test_flush_waits_for_all_accepted_before_and_for_no_other,
          test_capacity_counts_tasks_and_bytes_that_have_not_started, test_a_stale_queue_id_finds_nothing,
          test_a_refused_start_keeps_place_and_attempt_and_blocks_the_pool_for_a_while,
          test_an_executor_that_answers_at_once_does_not_nest,
          test_without_memory_a_reservation_is_refused_and_nothing_is_kept,
          test_whatever_happens_counts_order_and_reasons_stay_true)
