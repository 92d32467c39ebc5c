/* SPDX-License-Identifier: MIT */
/* The scenarios of the rescuer, on a real engine with a clock that stands. The executor plays a pool of workers: a slot that has
 * run something has a worker; another one needs one to be made, which fails as long as the test says. Tasks take the time
 * that they are given.
 *
 * `bulk` is the rescuer as it was before: it takes everything of its queue at once, and runs it one after the other. It is
 * kept to show that the bounds of these tests tell the two apart. */

#include "engine/rescuer.h"

#include <errno.h>
#include <stdio.h>

#include "base/fault.h"
#include "engine/barrier.h"
#include "engine/engine.h"
#include "engine/stall.h"
#include "rescue.h"
#include "test.h"

#define MSEC USEC_PER_MSEC
#define SEC USEC_PER_SEC

enum { TASKS_MAX = 11000, BULK_MAX = 256 };

typedef struct SimTask {
        Task task; /* first */
        uint64_t takes_usec, submitted_usec, started_usec, ended_usec;
        uint64_t end_usec; /* it ends then; 0: it does not run */
        bool by_rescuer;
        size_t n_starts;
        struct SimTask *next_bulk; /* begins when this one ends */
} SimTask;

typedef struct Sim {
        Executor executor; /* first */
        FakeClock clock;
        Engine engine;
        Pool *pool;
        Queue *a, *b; /* with a rescuer; without */
        Rescuer *rescuer;
        SimTask *tasks;
        size_t n_tasks;
        uint64_t start_usec;

        bool bulk, commands; /* commands: each start needs something to be made */
        uint64_t fail_until_usec, create_at_usec;
        size_t n_made, n_create_failed, n_made_early;
        int reserve_error;            /* of start() in the reserve slot */
        uint64_t reserve_refuses_seq; /* that task is too much for the reserve */
        Slot *fakes;                  /* of bulk */
        size_t n_fakes, n_by_rescuer;
        size_t n_mayday_hooks, n_relieved_hooks, n_reserved;
        uint64_t relieved_after_usec, relieved_n;
        Starts starts; /* order: of A */

        Stall stall;
        uint64_t look_usec; /* 0: nobody looks */
        size_t n_stalls;
        StallReport first_stall;
        uint64_t first_stall_usec;
} Sim;

static uint64_t since(const Sim *s) {
        return engine_now(&s->engine) - s->start_usec;
}

static SimTask *sim_task(Task *t) {
        return (SimTask *)t;
}

/* ---- the executor ---- */

static void run(Sim *s, SimTask *t, bool by_rescuer) {
        uint64_t now = engine_now(&s->engine);
        t->started_usec = now - s->start_usec;
        t->end_usec = now + t->takes_usec;
        t->by_rescuer = by_rescuer;
        t->n_starts++;
        if (t->task.queue == s->a)
                starts_note_order(&s->starts, &t->task);
        if (by_rescuer)
                starts_note_turn(&s->starts, &t->task);
        s->n_by_rescuer += by_rescuer;
}

static void take_all(Sim *s, SimTask *first) {
        SimTask *last = first;
        for (Task *t; (t = queue_claim(first->task.queue)); last = last->next_bulk) {
                Slot *slot = &s->fakes[s->n_fakes++];
                ck_assert_uint_le(s->n_fakes, BULK_MAX);
                *slot = (Slot) { .pool = s->pool, .task = t, .reserve = s->rescuer, .announced = true };
                slot->watch = watch_slot_new(&s->engine.watch, s->pool->watch, 1000 + s->n_fakes);
                t->slot = slot;
                pool_reserve_is_busy(s->pool);
                last->next_bulk = sim_task(t);
        }
}

static int make_worker(Sim *s, Slot *slot) {
        uint64_t now = engine_now(&s->engine);
        if (slot->executor_data && !s->commands)
                return 0;
        if (now >= s->create_at_usec && now >= s->fail_until_usec) {
                s->n_made++;
                slot->executor_data = s;
                return 0;
        }
        if (now >= s->create_at_usec) {
                s->n_create_failed++;
                s->create_at_usec = now + s->engine.rescue.create_cooldown_usec;
        }
        pool_block(s->pool, EQ_REASON_CREATE_FAILURE, s->create_at_usec);
        return -EAGAIN;
}

static int sim_start(Executor *x, Slot *slot, Task *t) {
        Sim *s = (Sim *)x;
        if (slot->reserve && s->reserve_error < 0)
                return s->reserve_error;
        if (slot->reserve && t->seq == s->reserve_refuses_seq)
                return -ENOMEM;
        int r = slot->reserve ? 0 : make_worker(s, slot);
        if (r < 0)
                return r;
        run(s, sim_task(t), slot->reserve);
        if (slot->reserve && s->bulk)
                take_all(s, sim_task(t));
        return 0;
}

static void sim_cancel(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
}

static int sim_reserve(Executor *x, Slot *slot) {
        ((Sim *)x)->n_reserved++;
        return fault_hit(FAULT_SPAWN) ? -EAGAIN : 0;
}

static void sim_unreserve(Executor *x, Slot *slot) {
        ((Sim *)x)->n_reserved--;
}

static const ExecutorOps sim_ops = {
        .name = "sim", .start = sim_start, .cancel = sim_cancel, .reserve = sim_reserve, .unreserve = sim_unreserve
};

/* ---- hooks ---- */

static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        return (TaskFate) { .event = TASK_EV_RETURN };
}
static void on_finished(void *host, Task *t) {
        sim_task(t)->ended_usec = since(host);
}
static void on_mayday(void *host, Queue *q) {
        ((Sim *)host)->n_mayday_hooks++;
}
static void on_relieved(void *host, Queue *q, uint64_t lasted_usec, uint64_t n) {
        Sim *s = host;
        s->n_relieved_hooks++;
        s->relieved_after_usec = lasted_usec;
        s->relieved_n = n;
}
static const EngineHooks hooks = {
        .ended = on_ended, .finished = on_finished, .mayday = on_mayday, .relieved = on_relieved
};

static void on_stall(void *host, const StallReport *r) {
        Sim *s = host;
        if (r->kind != STALL_POOL || r->phase == STALL_END)
                return;
        if (s->n_stalls++ == 0) {
                s->first_stall = *r;
                s->first_stall_usec = since(s);
        }
}
static const StallHooks stall_hooks = { .report = on_stall };

/* ---- the world ---- */

static Queue *sim_queue(Sim *s, const char *name, uint64_t max_active) {
        QueueParams p = { .max_active = max_active, .max_tasks = 1000000, .max_bytes = 1 << 30 };
        Queue *q;
        ck_assert_int_eq(queue_new(&s->engine, s->pool, name, &p, 0, &q), 0);
        return q;
}

static Sim *sim_new(PoolKind kind, size_t n_max, uint64_t a_max_active) {
        Sim *s = calloc(1, sizeof(*s));
        s->executor.ops = &sim_ops;
        s->tasks = calloc(TASKS_MAX, sizeof(*s->tasks));
        s->fakes = calloc(BULK_MAX, sizeof(*s->fakes));
        fake_clock_init(&s->clock, 1000 * SEC, 0);
        ck_assert_int_eq(engine_init(&s->engine, &s->clock.clock, &hooks, s), 0);
        ck_assert_int_eq(pool_new(&s->engine, "default", kind, &s->executor, n_max, &s->pool), 0);
        s->a = sim_queue(s, "A", a_max_active);
        s->b = sim_queue(s, "B", 256);
        s->start_usec = engine_now(&s->engine);
        return s;
}

static void sim_rescue(Sim *s) {
        ck_assert_int_eq(rescuer_new(&s->engine, s->pool->kind, &s->executor, "A", &s->rescuer), 0);
        queue_set_rescuer(s->a, s->rescuer);
}

static SimTask *submit(Sim *s, Queue *q, uint64_t takes_usec) {
        uint64_t seq;
        ck_assert_uint_lt(s->n_tasks, TASKS_MAX);
        SimTask *t = &s->tasks[s->n_tasks++];
        ck_assert_int_eq(queue_reserve(q, 1, 10, &seq), 0);
        task_init(&t->task, seq, TASK_LANE_NORMAL, 10);
        t->takes_usec = takes_usec;
        t->submitted_usec = since(s);
        queue_push(q, &t->task);
        return t;
}

static void end_one(Sim *s, SimTask *t) {
        Slot *slot = t->task.slot;
        t->end_usec = 0;
        if (!slot->reserve && !s->commands && s->pool->blocked_until_usec != USEC_NEVER)
                pool_unblock(s->pool); /* there is an idle worker */
        SimTask *next = t->next_bulk;
        engine_task_ended(&s->engine, &t->task, &(TaskResult) { .verdict = TASK_OK });
        if (next)
                run(s, next, true);
}

static SimTask *next_end(Sim *s) {
        SimTask *first = NULL;
        for (size_t i = 0; i < s->n_tasks; i++)
                if (s->tasks[i].end_usec != 0 && (!first || s->tasks[i].end_usec < first->end_usec))
                        first = &s->tasks[i];
        return first;
}

static void look(Sim *s) {
        if (s->look_usec != 0 && s->look_usec <= engine_now(&s->engine))
                s->look_usec = stall_look(&s->stall, engine_now(&s->engine), engine_now(&s->engine));
}

/* Until that time after the start, or until nothing is left to happen. */
static void run_until(Sim *s, uint64_t usec) {
        for (;;) {
                SimTask *t = next_end(s);
                uint64_t timer = engine_next_usec(&s->engine), at = s->start_usec + usec;
                at = MIN(at, MIN(timer, t ? t->end_usec : USEC_NEVER));
                if (s->look_usec != 0)
                        at = MIN(at, s->look_usec);
                if (at > engine_now(&s->engine))
                        fake_clock_advance(&s->clock, at - engine_now(&s->engine));
                look(s);
                if (t && t->end_usec <= at)
                        end_one(s, t);
                else if (timer <= at)
                        engine_run_due(&s->engine);
                else if (at >= s->start_usec + usec)
                        return;
        }
}

static void sim_free(Sim *s) {
        s->fail_until_usec = s->reserve_error = 0;
        s->look_usec = 0;
        while (!queue_is_empty(s->a) || !queue_is_empty(s->b))
                run_until(s, since(s) + 100 * SEC);
        ck_assert(!WATCH_GET(s->pool->watch->calls)); /* everything has ended, and nobody is called */
        queue_set_rescuer(s->a, NULL);
        rescuer_free(s->rescuer);
        ck_assert_uint_eq(s->n_reserved, 0);
        for (size_t i = 0; i < s->n_fakes; i++)
                watch_slot_free(&s->engine.watch, s->fakes[i].watch);
        engine_deinit(&s->engine);
        free(s->tasks);
        free(s->fakes);
        free(s);
}
static void sim_freep(Sim **s) {
        sim_free(*s);
}
#define SIM(s, ...) _cleanup_(sim_freep) Sim *s = sim_new(__VA_ARGS__)

/* ---- scenario 1 and its variants ---- */

static void block_workers(Sim *s, size_t n, uint64_t usec) {
        for (size_t i = 0; i < n; i++)
                submit(s, s->b, usec);
        ck_assert_uint_eq(s->pool->n_busy, n);
        s->n_made_early = s->n_made;
}

/* In units of `ms`. */
static Figures run_s1(Sim *s, uint64_t ms, uint64_t fails_usec, uint64_t until_usec) {
        uint64_t ends[S1_TASKS];
        s->engine.rescue.create_cooldown_usec = 1000 * ms;
        block_workers(s, 4, 10000 * ms);
        s->fail_until_usec = s->start_usec + fails_usec;
        SimTask *first = s->tasks + s->n_tasks;
        for (int i = 1; i <= 100; i++)
                submit(s, s->a, i == 3 ? 5000 * ms : 10 * ms);
        run_until(s, until_usec);
        for (int i = 0; i < 100; i++) {
                ck_assert_uint_eq(first[i].n_starts, 1);
                ck_assert_uint_ne(first[i].ended_usec, 0);
                ends[i] = first[i].ended_usec;
        }
        return figures_of(ends);
}

static void assert_in_order(const Sim *s) {
        char expected[sizeof(s->starts.order)] = "";
        size_t len = 0;
        for (unsigned long i = 1; i <= s->a->last_seq; i++)
                len += (size_t)snprintf(expected + len, sizeof(expected) - len, "%s%lu", len ? " " : "", i);
        ck_assert_str_eq(s->starts.order, expected);
}

TEST(S1_one_task_that_blocks_the_rescuer_does_not_hold_the_others) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        Figures f = run_s1(s, MSEC, 900 * MSEC, 12 * SEC);
        ck_assert_uint_lt(f.last, 2500 * MSEC);
        ck_assert_uint_lt(f.first, 200 * MSEC);
        ck_assert_uint_ge(f.third, 5000 * MSEC);
        ck_assert_uint_le(f.third, 5400 * MSEC);
        ck_assert_uint_ge(s->a->n_rescued, 2);
        ck_assert_uint_le(s->a->n_rescued, 6);
        ck_assert_uint_eq(s->a->n_rescued, s->n_by_rescuer);
        ck_assert_uint_eq(s->a->n_mayday, 2);
        ck_assert_uint_eq(s->n_made - s->n_made_early, 4); /* after the failures, and not before */
        ck_assert_uint_ge(s->create_at_usec, s->start_usec + 900 * MSEC);
        ck_assert_uint_eq(s->n_relieved_hooks, 1);
        ck_assert_uint_eq(s->relieved_n, s->a->n_rescued);
        assert_in_order(s);
        printf("# S1 one by one: first %.3f, p50 %.3f, last %.3f s, rescued %lu\n", (double)f.first / SEC,
               (double)f.p50 / SEC, (double)f.last / SEC, (unsigned long)s->a->n_rescued);
}

TEST(S1_in_bulk_the_others_wait_for_it) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        s->bulk = true;
        Figures f = run_s1(s, MSEC, 900 * MSEC, 12 * SEC);
        ck_assert_uint_ge(f.last, 5900 * MSEC);
        ck_assert_uint_eq(s->n_by_rescuer, 100);
        printf("# S1 in bulk: p50 %.3f, last %.3f s\n", (double)f.p50 / SEC, (double)f.last / SEC);
}

TEST(S1_without_a_rescuer_nothing_goes_on_before_a_worker_is_made) {
        SIM(s, POOL_THREAD, 8, 256);
        Figures f = run_s1(s, MSEC, 900 * MSEC, 12 * SEC);
        ck_assert_uint_ge(f.first, 1000 * MSEC);
        ck_assert_uint_le(f.last, 1400 * MSEC);
        ck_assert_uint_eq(s->a->n_mayday + s->a->n_rescued, 0);
}

TEST(S1c_the_same_in_a_tenth_of_the_time) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        Figures f = run_s1(s, 100, 90 * MSEC, 1200 * MSEC);
        ck_assert_uint_lt(f.last, 350 * MSEC);
}

/* S1 with other sizes of the pool and the queue: one by one the others are done by `last_usec`, in bulk not before `bulk_usec`. */
static void compare_with_bulk(unsigned max_workers, unsigned max_active, uint64_t last_usec, uint64_t bulk_usec) {
        SIM(s, POOL_THREAD, max_workers, max_active);
        sim_rescue(s);
        Figures f = run_s1(s, MSEC, 900 * MSEC, 12 * SEC);
        ck_assert_uint_lt(f.last, last_usec);
        SIM(bulk, POOL_THREAD, max_workers, max_active);
        sim_rescue(bulk);
        bulk->bulk = true;
        f = run_s1(bulk, MSEC, 900 * MSEC, 12 * SEC);
        ck_assert_uint_ge(f.last, bulk_usec);
}

TEST(S2_no_hostages_with_a_small_max_active) {
        compare_with_bulk(8, 16, 2500 * MSEC, 5 * SEC);
}

TEST(S3_one_new_worker_is_enough) {
        compare_with_bulk(5, 256, 3000 * MSEC, 5900 * MSEC);
}

static void watch(Sim *s, uint64_t thresh_usec) {
        StallConfig config = { .watchdog_usec = thresh_usec };
        WATCH_SET(s->pool->watch->stall_usec, thresh_usec);
        stall_init(&s->stall, &s->engine.watch, &config, &stall_hooks, s);
        s->look_usec = engine_now(&s->engine);
}

TEST(S4_alone_the_rescuer_does_it_and_while_it_is_blocked_the_pool_is_stalled) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        watch(s, SEC);
        Figures f = run_s1(s, MSEC, 12 * SEC, 4 * SEC + 9 * SEC);
        ck_assert_uint_lt(f.last, 7 * SEC);
        ck_assert_uint_eq(s->a->n_rescued, 100);
        ck_assert_uint_ge(s->n_stalls, 3);
        ck_assert_str_eq(s->first_stall.pool, "default");
        ck_assert_str_eq(s->first_stall.queue, "A");
        ck_assert_int_eq(s->first_stall.reason, EQ_REASON_CREATE_FAILURE);
        ck_assert_uint_ge(s->first_stall_usec, SEC);
        ck_assert_uint_le(s->first_stall_usec, 2100 * MSEC);
        ck_assert_uint_eq(s->first_stall.creates, 1);
        ck_assert_uint_eq(s->first_stall.calls, 1);
}

TEST(S4_the_oldest_pending_task_is_the_one_behind_the_blocked_one) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        block_workers(s, 4, 10 * SEC);
        s->fail_until_usec = s->start_usec + 12 * SEC;
        for (int i = 1; i <= 100; i++)
                submit(s, s->a, i == 3 ? 5 * SEC : 10 * MSEC);
        run_until(s, 2 * SEC);
        ck_assert_uint_eq(queue_oldest(s->a)->seq, 4);
        ck_assert(queue_is_rescued(s->a));
        ck_assert(rescuer_is_busy(s->rescuer));
}

TEST(S5_tasks_of_others_cost_the_search_nothing) {
        enum { N = 10000, M = 100 };
        SIM(s, POOL_THREAD, 4, 256);
        sim_rescue(s);
        for (int i = 0; i < 4; i++)
                submit(s, s->b, 1);
        run_until(s, MSEC); /* four workers there are */
        pool_set_max(s->pool, 5);
        s->fail_until_usec = USEC_NEVER;
        for (int i = 0; i < N; i++)
                submit(s, s->b, MSEC);
        uint64_t start = since(s);
        SimTask *first = s->tasks + s->n_tasks;
        for (int i = 0; i < M; i++)
                submit(s, s->a, MSEC);
        run_until(s, start + 2 * SEC);
        ck_assert_uint_le(first[M - 1].ended_usec - start, 1100 * MSEC);
        ck_assert_uint_ge(s->a->n_mayday, 1);
        ck_assert_uint_le(s->rescuer->n_scan_steps, 2 * (N + M));
}

TEST(S6_without_a_failure_nobody_is_rescued) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        Figures f = run_s1(s, MSEC, 0, 12 * SEC);
        ck_assert_uint_eq(s->a->n_mayday, 0);
        ck_assert_uint_eq(s->a->n_rescued, 0);
        ck_assert_uint_lt(f.last, 400 * MSEC);
}

/* What it rescues are starts like others, and between them nobody is called. */
TEST(W6_tasks_that_wait_for_their_rate_call_nobody) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        QueueParams p = s->a->params;
        p.rate = (ParamRate) { 1, 10 * SEC };
        p.rate_burst = 1;
        queue_set_params(s->a, &p);
        watch(s, 2 * SEC);
        s->fail_until_usec = s->start_usec + 1000 * SEC;
        for (int i = 0; i < 5; i++)
                submit(s, s->a, 10 * MSEC);
        for (uint64_t i = 1; i <= 5; i++) {
                run_until(s, (i - 1) * 10 * SEC + SEC);
                ck_assert_uint_eq(s->a->n_rescued, i);
                uint64_t n_mayday = s->a->n_mayday;
                run_until(s, i * 10 * SEC - 1);
                ck_assert_uint_eq(s->a->n_rescued, i);
                ck_assert_uint_eq(s->a->n_mayday, n_mayday);
                ck_assert_uint_eq(s->a->rescue_since_usec, 0);
        }
        ck_assert_uint_eq(s->n_stalls, 0);
}

TEST(S7_what_the_rescuer_has_not_claimed_can_be_canceled) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        block_workers(s, 4, 10 * SEC);
        s->fail_until_usec = s->start_usec + 12 * SEC;
        SimTask *first = s->tasks + s->n_tasks;
        for (int i = 1; i <= 100; i++)
                submit(s, s->a, i == 3 ? 5 * SEC : 10 * MSEC);
        run_until(s, SEC);
        ck_assert_int_eq(queue_cancel(s->a, &first[49].task), 0);
        ck_assert_int_eq(queue_cancel(s->a, &first[2].task), 1);
        ck_assert_int_eq(queue_cancel(s->a, &first[0].task), -1);
        run_until(s, 12 * SEC);
        ck_assert_uint_eq(first[49].n_starts, 0);
        ck_assert_uint_eq(first[99].n_starts, 1);
        ck_assert_uint_eq(s->a->n_rescued, 99);
}

TEST(S8_each_relapse_is_noticed_at_once) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        block_workers(s, 4, MSEC);
        s->fail_until_usec = USEC_NEVER;
        for (uint64_t burst = 1; burst <= 20; burst++) {
                run_until(s, burst * 200 * MSEC);
                uint64_t before = s->a->n_rescued;
                for (int i = 0; i < 4; i++)
                        submit(s, s->b, 150 * MSEC);
                SimTask *first = s->tasks + s->n_tasks;
                for (int i = 0; i < 10; i++)
                        submit(s, s->a, MSEC);
                run_until(s, burst * 200 * MSEC + 190 * MSEC);
                ck_assert_uint_gt(s->a->n_rescued, before);
                ck_assert(first->by_rescuer);
                ck_assert_uint_le(first->started_usec - first->submitted_usec, 40 * MSEC);
        }
}

TEST(S9_queues_that_share_a_rescuer_take_turns) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        Queue *c = sim_queue(s, "C", 256);
        queue_set_rescuer(c, s->rescuer);
        block_workers(s, 4, 10 * SEC);
        s->fail_until_usec = s->start_usec + 10 * SEC;
        for (int i = 0; i < 100; i++)
                submit(s, s->a, 5 * MSEC);
        for (int i = 0; i < 100; i++)
                submit(s, c, 5 * MSEC);
        run_until(s, 3 * SEC);
        ck_assert_uint_eq(s->a->n_rescued, 100);
        ck_assert_uint_eq(c->n_rescued, 100);
        ck_assert_uint_eq(starts_longest_turn(&s->starts), 16);
        ck_assert_uint_eq(s->n_relieved_hooks, 2);
        queue_set_rescuer(c, NULL);
}

TEST(S10_commands_are_started_out_of_the_reserve_once_each) {
        SIM(s, POOL_COMMAND, 8, 256);
        sim_rescue(s);
        s->commands = true;
        s->fail_until_usec = USEC_NEVER;
        SimTask *first = s->tasks + s->n_tasks;
        for (int i = 0; i < 20; i++)
                submit(s, s->a, 2 * MSEC);
        run_until(s, SEC / 2);
        for (int i = 0; i < 20; i++)
                ck_assert_uint_eq(first[i].n_starts, 1);
        ck_assert_uint_eq(s->a->n_rescued, 20);
        ck_assert_uint_ge(s->n_create_failed, 1);
        assert_in_order(s);
}

TEST(S11_a_reserve_that_cannot_be_made_is_an_error_and_leaves_nothing) {
        SIM(s, POOL_COMMAND, 8, 256);
        Rescuer *r = NULL;
        fault_set(FAULT_SPAWN, 1, false);
        s->n_reserved--; /* it counts the attempt */
        ck_assert_int_eq(rescuer_new(&s->engine, POOL_COMMAND, &s->executor, "A", &r), -EAGAIN);
        ck_assert_ptr_null(r);
        for (long nth = 1; nth <= 3; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                int e = rescuer_new(&s->engine, POOL_COMMAND, &s->executor, "A", &r);
                ck_assert(e == 0 || e == -ENOMEM);
                r = e == 0 ? rescuer_free(r) : NULL;
                fault_set(FAULT_ALLOC, 0, false);
        }
        ck_assert(list_is_empty(&s->engine.rescuers));
}

/* ---- what the scenarios do not show ---- */

TEST(a_full_pool_calls_after_a_delay_without_a_start_and_a_pool_of_commands_does_not) {
        for (PoolKind kind = POOL_COMMAND; kind <= POOL_THREAD; kind++) {
                SIM(s, kind, 4, 256);
                sim_rescue(s);
                block_workers(s, 4, 10 * SEC);
                for (int i = 0; i < 3; i++)
                        submit(s, s->a, 10 * MSEC);
                run_until(s, 999 * MSEC);
                ck_assert_uint_eq(s->a->n_rescued, 0);
                run_until(s, 1100 * MSEC);
                ck_assert_uint_eq(s->a->n_rescued, kind == POOL_THREAD ? 3 : 0);
        }
}

TEST(rescue_on_says_when) {
        SIM(s, POOL_COMMAND, 4, 256);
        sim_rescue(s);
        QueueParams p = s->a->params;
        p.rescue_on = RESCUE_ON_POOL_FULL;
        queue_set_params(s->a, &p);
        block_workers(s, 4, 10 * SEC);
        submit(s, s->a, 10 * MSEC);
        run_until(s, 2 * SEC);
        ck_assert_uint_eq(s->a->n_rescued, 1);
        pool_set_max(s->pool, 8);
        s->fail_until_usec = USEC_NEVER;
        submit(s, s->a, 10 * MSEC);
        run_until(s, 3 * SEC);
        ck_assert_uint_eq(s->a->n_rescued, 1); /* not full, and create-failure is not asked for */
}

TEST(a_rescued_task_counts_for_max_active_and_serial_order_holds) {
        SIM(s, POOL_THREAD, 8, 1);
        sim_rescue(s);
        block_workers(s, 4, 10 * SEC);
        s->fail_until_usec = s->start_usec + 500 * MSEC;
        s->engine.rescue.create_cooldown_usec = 100 * MSEC;
        SimTask *first = s->tasks + s->n_tasks;
        for (int i = 0; i < 20; i++)
                submit(s, s->a, 60 * MSEC);
        run_until(s, 3 * SEC);
        for (int i = 1; i < 20; i++)
                ck_assert_uint_ge(first[i].started_usec, first[i - 1].ended_usec);
        ck_assert_uint_ge(s->a->n_rescued, 7);
        ck_assert_uint_le(s->a->n_rescued, 10);
        assert_in_order(s);
}

TEST(a_task_that_is_too_much_for_the_reserve_is_passed_over_and_runs_later) {
        SIM(s, POOL_COMMAND, 8, 256);
        sim_rescue(s);
        s->commands = true;
        s->reserve_refuses_seq = 2;
        s->fail_until_usec = s->start_usec + 900 * MSEC;
        SimTask *first = s->tasks + s->n_tasks;
        for (int i = 0; i < 5; i++)
                submit(s, s->a, MSEC);
        run_until(s, 500 * MSEC);
        ck_assert_str_eq(s->starts.order, "1 3 4 5");
        ck_assert_uint_eq(s->a->n_rescued, 4);
        ck_assert_uint_eq(first[1].task.attempt, 0);
        ck_assert_ptr_null(s->a->rescue_mark); /* it went with the rescuer */
        run_until(s, 2 * SEC);
        ck_assert_str_eq(s->starts.order, "1 3 4 5 2");
}

/* The barrier of the second one: B must have come to it, too, and nothing behind it is taken before it. */
TEST(a_task_over_several_queues_is_rescued_at_its_places_and_never_passed) {
        SIM(s, POOL_COMMAND, 8, 256);
        sim_rescue(s);
        s->commands = true;
        SimTask *in_b = submit(s, s->b, 300 * MSEC);
        s->fail_until_usec = USEC_NEVER;
        submit(s, s->a, MSEC);
        SimTask *both = &s->tasks[s->n_tasks++];
        uint64_t seq, seq_b;
        ck_assert_int_eq(queue_reserve(s->a, 1, 10, &seq), 0);
        ck_assert_int_eq(queue_reserve(s->b, 1, 0, &seq_b), 0);
        task_init(&both->task, seq, TASK_LANE_NORMAL, 10);
        both->takes_usec = 100 * MSEC;
        ck_assert_int_eq(barrier_make(&s->engine, &both->task, &s->b->id, &seq_b, 1), 0);
        queue_push(s->a, &both->task);
        SimTask *behind = submit(s, s->a, MSEC);
        run_until(s, 250 * MSEC);
        ck_assert_str_eq(s->starts.order, "1");
        ck_assert_int_eq(behind->task.state, EQ_STATE_QUEUED);
        run_until(s, SEC);
        ck_assert_str_eq(s->starts.order, "1 2 3");
        ck_assert_uint_eq(s->a->n_rescued, 3);
        ck_assert_uint_ge(both->started_usec, in_b->ended_usec);
        ck_assert_uint_ge(behind->started_usec, both->ended_usec);
        barrier_forget(&s->engine, &both->task);
}

TEST(a_serial_queue_passes_over_nothing) {
        SIM(s, POOL_COMMAND, 8, 1);
        sim_rescue(s);
        s->commands = true;
        s->reserve_refuses_seq = 2;
        s->fail_until_usec = s->start_usec + 900 * MSEC;
        for (int i = 0; i < 5; i++)
                submit(s, s->a, MSEC);
        run_until(s, 500 * MSEC);
        ck_assert_str_eq(s->starts.order, "1");
        ck_assert_uint_le(s->a->n_rescue_failed, 6); /* once per mayday, not for ever */
        run_until(s, 2 * SEC);
        assert_in_order(s);
}

TEST(a_reserve_that_does_not_do_is_tried_again_with_the_next_mayday) {
        SIM(s, POOL_COMMAND, 8, 256);
        sim_rescue(s);
        s->commands = true;
        s->fail_until_usec = USEC_NEVER;
        s->reserve_error = -EAGAIN;
        submit(s, s->a, MSEC);
        run_until(s, 350 * MSEC);
        ck_assert_uint_eq(s->a->n_rescue_failed, 4);
        ck_assert_uint_eq(s->a->n_rescued, 0);
        s->reserve_error = 0;
        run_until(s, 450 * MSEC);
        ck_assert_uint_eq(s->a->n_rescued, 1);
}

TEST(a_queue_may_lose_its_rescuer_while_that_is_at_work) {
        SIM(s, POOL_COMMAND, 8, 256);
        sim_rescue(s);
        s->commands = true;
        s->fail_until_usec = s->start_usec + 500 * MSEC;
        SimTask *t = submit(s, s->a, 100 * MSEC);
        submit(s, s->a, 100 * MSEC);
        run_until(s, 50 * MSEC);
        ck_assert(rescuer_is_busy(s->rescuer));
        queue_set_rescuer(s->a, NULL);
        s->rescuer = rescuer_free(s->rescuer);
        ck_assert_uint_eq(s->n_reserved, 1);
        run_until(s, 200 * MSEC);
        ck_assert_uint_ne(t->ended_usec, 0);
        ck_assert_uint_eq(s->n_reserved, 0);
        ck_assert_str_eq(s->starts.order, "1");
}

TEST(a_rescuer_leaves_when_a_worker_is_idle) {
        SIM(s, POOL_THREAD, 8, 256);
        sim_rescue(s);
        block_workers(s, 4, 50 * MSEC);
        s->fail_until_usec = USEC_NEVER;
        for (int i = 0; i < 20; i++)
                submit(s, s->a, 10 * MSEC);
        run_until(s, SEC);
        ck_assert_uint_ge(s->a->n_rescued, 3);
        ck_assert_uint_le(s->a->n_rescued, 10); /* since 50 ms four workers share the rest with it */
        ck_assert(!queue_is_rescued(s->a));
}

TEST(timeouts_are_settable) {
        SIM(s, POOL_COMMAND, 8, 256);
        sim_rescue(s);
        s->commands = true;
        s->fail_until_usec = USEC_NEVER;
        s->engine.rescue.mayday_initial_usec = 70 * MSEC;
        SimTask *t = submit(s, s->a, MSEC);
        run_until(s, SEC / 2);
        ck_assert_uint_eq(t->started_usec, 70 * MSEC);
}

RUN_TESTS("rescuer", 120, test_S1_one_task_that_blocks_the_rescuer_does_not_hold_the_others,
          test_S1_in_bulk_the_others_wait_for_it, test_S1_without_a_rescuer_nothing_goes_on_before_a_worker_is_made,
          test_S1c_the_same_in_a_tenth_of_the_time, test_S2_no_hostages_with_a_small_max_active,
          test_S3_one_new_worker_is_enough,
          test_S4_alone_the_rescuer_does_it_and_while_it_is_blocked_the_pool_is_stalled,
          test_S4_the_oldest_pending_task_is_the_one_behind_the_blocked_one,
          test_S5_tasks_of_others_cost_the_search_nothing, test_S6_without_a_failure_nobody_is_rescued,
          test_W6_tasks_that_wait_for_their_rate_call_nobody, test_S7_what_the_rescuer_has_not_claimed_can_be_canceled,
          test_S8_each_relapse_is_noticed_at_once, test_S9_queues_that_share_a_rescuer_take_turns,
          test_S10_commands_are_started_out_of_the_reserve_once_each,
          test_S11_a_reserve_that_cannot_be_made_is_an_error_and_leaves_nothing,
          test_a_full_pool_calls_after_a_delay_without_a_start_and_a_pool_of_commands_does_not,
          test_rescue_on_says_when, test_a_rescued_task_counts_for_max_active_and_serial_order_holds,
          test_a_task_that_is_too_much_for_the_reserve_is_passed_over_and_runs_later,
          test_a_task_over_several_queues_is_rescued_at_its_places_and_never_passed,
          test_a_serial_queue_passes_over_nothing, test_a_reserve_that_does_not_do_is_tried_again_with_the_next_mayday,
          test_a_queue_may_lose_its_rescuer_while_that_is_at_work, test_a_rescuer_leaves_when_a_worker_is_idle,
          test_timeouts_are_settable)
