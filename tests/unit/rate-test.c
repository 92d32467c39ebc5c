/* SPDX-License-Identifier: MIT */
/* Queues that start so many tasks in so much time, on a clock that stands. */
#include "engine/rate.h"

#include <errno.h>

#include "rig.h"

#define SEC USEC_PER_SEC
#define RIG(...) _cleanup_(rig_freep) Rig *r = rig_rated(__VA_ARGS__)

static void set_rate(Queue *q, uint64_t n, uint64_t per_usec, uint64_t burst) {
        QueueParams p = q->params;
        p.rate = (ParamRate) { n, per_usec };
        p.rate_burst = burst;
        queue_set_params(q, &p);
}

static Rig *rig_rated(uint64_t n, uint64_t per_usec, uint64_t burst, uint64_t max_active) {
        Rig *r = rig_new(64);
        rig_set_max_active(r, max_active);
        set_rate(r->queue, n, per_usec, burst);
        return r;
}

static Task *nth(Rig *r, size_t n) {
        return r->tasks[n];
}

static void submit_n(Rig *r, size_t n) {
        for (size_t i = 0; i < n; i++)
                rig_submit(r);
}

/* Time passes from timer to timer of the engine, and what has started has ended by then. */
static void run_for(Rig *r, uint64_t usec) {
        uint64_t end = engine_now(&r->engine) + usec;
        for (;;) {
                rig_run_all(r);
                uint64_t next = engine_next_usec(&r->engine);
                if (next > end)
                        break;
                rig_advance(r, next - engine_now(&r->engine));
        }
        rig_advance(r, end - engine_now(&r->engine));
}

TEST(one_in_ten_seconds_is_one_in_ten_seconds) {
        RIG(1, 10 * SEC, 1, 1);
        r->synchronous = true;
        submit_n(r, 5);
        ck_assert_str_eq(r->starts, "1");
        rig_advance(r, 10 * SEC - 1);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_uint_eq(engine_next_usec(&r->engine), engine_now(&r->engine) + 1);
        ck_assert_uint_eq(r->armed_usec, engine_now(&r->engine) + 1);
        rig_advance(r, 1);
        ck_assert_str_eq(r->starts, "1 2");
        run_for(r, 30 * SEC - 1);
        ck_assert_str_eq(r->starts, "1 2 3 4");
        run_for(r, 1);
        ck_assert_str_eq(r->starts, "1 2 3 4 5");
        ck_assert_uint_eq(engine_next_usec(&r->engine), USEC_NEVER); /* nobody waits for what nobody needs */
        run_for(r, 5 * SEC);
        submit_n(r, 1);
        ck_assert_str_eq(r->starts, "1 2 3 4 5");
        run_for(r, 5 * SEC);
        ck_assert_str_eq(r->starts, "1 2 3 4 5 6");
}

TEST(a_parallel_queue_starts_no_faster) {
        RIG(2, SEC, 1, 100);
        submit_n(r, 10);
        run_for(r, 2 * SEC);
        ck_assert_str_eq(r->starts, "1 2 3 4 5");
}

TEST(urgent_ones_go_first_and_wait_all_the_same) {
        RIG(1, 10 * SEC, 1, 1);
        r->synchronous = true;
        submit_n(r, 2);
        rig_submit_urgent(r);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_waits(nth(r, 2), EQ_REASON_RATE, NULL);
        run_for(r, 10 * SEC);
        ck_assert_str_eq(r->starts, "1 3");
        run_for(r, 10 * SEC);
        ck_assert_str_eq(r->starts, "1 3 2");
}

TEST(a_burst_starts_at_once_after_a_pause) {
        RIG(1, 10 * SEC, 3, 100);
        submit_n(r, 5);
        ck_assert_str_eq(r->starts, "1 2 3");
        run_for(r, 20 * SEC);
        ck_assert_str_eq(r->starts, "1 2 3 4 5");
        run_for(r, 1000 * SEC);
        submit_n(r, 5);
        ck_assert_str_eq(r->starts, "1 2 3 4 5 6 7 8");
}

TEST(a_retry_is_a_start) {
        RIG(1, 10 * SEC, 1, 1);
        submit_n(r, 2);
        rig_retry_in(r, SEC);
        rig_end(r, nth(r, 0), TASK_BAD);
        rig_advance(r, SEC);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_waits(nth(r, 0), EQ_REASON_RATE, NULL);
        rig_advance(r, 9 * SEC);
        ck_assert_str_eq(r->starts, "1 1");
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 1");
        rig_advance(r, 10 * SEC);
        ck_assert_str_eq(r->starts, "1 1 2");
}

TEST(what_its_executor_refuses_has_cost_nothing) {
        RIG(1, 100 * SEC, 1, 1);
        r->refuse = -EAGAIN;
        submit_n(r, 1);
        ck_assert_uint_eq(r->n_not_started, 1);
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_uint_eq(r->n_not_started, 2);
        r->refuse = 0;
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1");
        rig_end(r, nth(r, 0), TASK_NOT_STARTED); /* which it says later */
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1 1");
        rig_run_all(r);
        submit_n(r, 1);
        rig_advance(r, 99 * SEC);
        ck_assert_str_eq(r->starts, "1 1");
}

TEST(a_start_that_was_not_cleared_has_cost_nothing) {
        RIG(1, 100 * SEC, 1, 1);
        r->clear = 1;
        queue_set_clears(r->queue, true);
        submit_n(r, 1);
        engine_task_uncleared(&r->engine, nth(r, 0));
        ck_assert(nth(r, 0)->slot && nth(r, 0)->slot->uncleared); /* the next try is on its way */
        r->clear = 0;
        engine_task_uncleared(&r->engine, nth(r, 0));
        ck_assert_str_eq(r->starts, "1");
}

TEST(a_change_holds_at_once) {
        RIG(1, 100 * SEC, 1, 100);
        submit_n(r, 20);
        ck_assert_str_eq(r->starts, "1");
        set_rate(r->queue, 1, 10 * SEC, 1);
        rig_advance(r, 10 * SEC);
        ck_assert_str_eq(r->starts, "1 2");
        rig_advance(r, 5 * SEC);
        rig_set_max_active(r, 99); /* half a token stays half a token */
        rig_advance(r, 5 * SEC - 1);
        ck_assert_str_eq(r->starts, "1 2");
        rig_advance(r, 1);
        ck_assert_str_eq(r->starts, "1 2 3");
        set_rate(r->queue, 0, 0, 1);
        ck_assert_str_eq(r->starts, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20");
        ck_assert_uint_eq(engine_next_usec(&r->engine), USEC_NEVER);
        set_rate(r->queue, 1, 100 * SEC, 2);
        submit_n(r, 3);
        ck_assert_str_eq(r->starts, "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22");
}

TEST(it_is_the_reason_when_there_is_no_other_and_says_until_when) {
        RIG(1, 10 * SEC, 1, 1);
        const Task *next, *by;
        uint64_t then = engine_now(&r->engine) + 10 * SEC;
        submit_n(r, 3);
        ck_assert_waits(nth(r, 1), EQ_REASON_SERIAL, nth(r, 0));
        rig_run_all(r);
        ck_assert_waits(nth(r, 1), EQ_REASON_RATE, NULL);
        ck_assert_waits(nth(r, 2), EQ_REASON_RATE, NULL);
        ck_assert_uint_eq(rate_next_usec(r->queue), then);
        rig_advance(r, 4 * SEC);
        ck_assert_uint_eq(rate_next_usec(r->queue), then);
        ck_assert_int_eq(queue_head_reason(r->queue, &next, &by), EQ_REASON_RATE);
        ck_assert_ptr_eq(next, nth(r, 1));
        queue_pause(r->queue);
        ck_assert_waits(nth(r, 1), EQ_REASON_PAUSED, NULL);
        queue_resume(r->queue);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_int_eq(queue_wait_set(r->queue, nth(r, 1), TASK_WAIT_HELD), 0);
        ck_assert_waits(nth(r, 1), EQ_REASON_HELD, NULL);
}

TEST(a_pause_uses_no_tokens_and_brings_none) {
        RIG(1, 10 * SEC, 1, 1);
        r->synchronous = true;
        queue_pause(r->queue);
        submit_n(r, 3);
        rig_advance(r, 1000 * SEC);
        ck_assert_uint_eq(engine_next_usec(&r->engine), USEC_NEVER);
        queue_resume(r->queue);
        ck_assert_str_eq(r->starts, "1");
        rig_advance(r, 3 * SEC);
        queue_pause(r->queue);
        rig_advance(r, 100 * SEC);
        queue_resume(r->queue);
        ck_assert_str_eq(r->starts, "1 2");
}

TEST(others_of_the_pool_go_on) {
        RIG(1, 10 * SEC, 1, 1);
        Queue *other;
        r->synchronous = true;
        submit_n(r, 3);
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "other", &rig_params, 0, &other), 0);
        for (int i = 0; i < 3; i++)
                rig_submit_to(r, other, TASK_LANE_NORMAL, 0, 0);
        ck_assert_str_eq(r->starts, "1 1:1 1:2 1:3");
}

TEST(many_queues_wait_in_one_heap_and_a_removed_one_leaves_it) {
        RIG(1, 10 * SEC, 1, 1);
        Queue *queues[50];
        r->synchronous = true;
        for (uint64_t i = 0; i < ELEMENTSOF(queues); i++) {
                QueueParams p = rig_params;
                p.rate = (ParamRate) { 1, (50 - i) * SEC };
                p.rate_burst = 1;
                ck_assert_int_eq(queue_new(&r->engine, r->pool, "other", &p, 0, &queues[i]), 0);
                rig_submit_to(r, queues[i], TASK_LANE_NORMAL, 0, 0);
                rig_submit_to(r, queues[i], TASK_LANE_NORMAL, 0, 0);
        }
        ck_assert_uint_eq(r->engine.throttled.n, 50);
        ck_assert_uint_eq(engine_next_usec(&r->engine), engine_now(&r->engine) + SEC);
        ck_assert_int_eq(queue_cancel(queues[49], r->tasks[99]), 0);
        queue_free(queues[49]);
        ck_assert_uint_eq(r->engine.throttled.n, 49);
        ck_assert_uint_eq(engine_next_usec(&r->engine), engine_now(&r->engine) + 2 * SEC);
        for (int i = 0; i < 50; i++)
                rig_advance(r, SEC);
        ck_assert_uint_eq(r->engine.throttled.n, 0);
}

static void no_refill(void *host, Queue *q) {
}

TEST(a_queue_that_goes_with_its_shelf_waits_for_nothing_more) {
        RIG(1, 10 * SEC, 1, 1);
        EngineHooks hooks = rig_hooks;
        Queue *q;
        uint64_t seq, ordinal;
        hooks.refill = no_refill;
        r->engine.hooks = &hooks;
        r->synchronous = true;
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "q", &r->queue->params, 0, &q), 0);
        rig_submit_to(r, q, TASK_LANE_NORMAL, 0, 0);
        ck_assert_int_eq(queue_reserve(q, 1, 10, &seq), 0);
        ordinal = queue_next_ordinal(q);
        queue_shelve(q, seq, 1, 10);
        ck_assert_uint_eq(r->engine.throttled.n, 1);
        queue_drop_shelved(q, 10, ordinal);
        queue_free(q);
        ck_assert_uint_eq(r->engine.throttled.n, 0);
        ck_assert_uint_eq(engine_next_usec(&r->engine), USEC_NEVER);
}

TEST(a_task_over_several_queues_counts_in_each_and_waits_for_each) {
        RIG(1, 10 * SEC, 1, 1);
        Queue *b;
        uint64_t seq, seq_b;
        const Task *by;
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "b", &rig_params, 100, &b), 0);
        set_rate(b, 1, 20 * SEC, 1);
        Task *first = rig_submit_to(r, b, TASK_LANE_NORMAL, 0, 0);
        rig_end(r, first, TASK_OK);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), 0);
        ck_assert_int_eq(queue_reserve(b, 1, 0, &seq_b), 0);
        Task *t = rig_make(r, seq, TASK_LANE_NORMAL, 10);
        ck_assert_int_eq(barrier_make(&r->engine, t, &b->id, &seq_b, 1), 0);
        queue_push(r->queue, t);
        ck_assert_str_eq(r->starts, "1:101");
        ck_assert_waits(t, EQ_REASON_BARRIER, NULL);
        ck_assert_ptr_eq(barrier_waits_for(t, &by), b);
        rig_advance(r, 20 * SEC - 1);
        ck_assert_str_eq(r->starts, "1:101");
        rig_advance(r, 1);
        ck_assert_str_eq(r->starts, "1:101 1");
        rig_end(r, t, TASK_OK);
        submit_n(r, 1);
        rig_submit_to(r, b, TASK_LANE_NORMAL, 0, 0);
        ck_assert_str_eq(r->starts, "1:101 1");
        rig_advance(r, 10 * SEC);
        ck_assert_str_eq(r->starts, "1:101 1 2");
        rig_advance(r, 10 * SEC);
        ck_assert_str_eq(r->starts, "1:101 1 2 1:103");
}

/* The bucket of the other queue was left empty. */
TEST(a_task_over_several_queues_that_does_not_start_has_cost_nothing_in_any) {
        RIG(1, 100 * SEC, 1, 1);
        Queue *b;
        uint64_t seq, seq_b;
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "b", &rig_params, 100, &b), 0);
        set_rate(b, 1, 100 * SEC, 1);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), 0);
        ck_assert_int_eq(queue_reserve(b, 1, 0, &seq_b), 0);
        Task *t = rig_make(r, seq, TASK_LANE_NORMAL, 10);
        ck_assert_int_eq(barrier_make(&r->engine, t, &b->id, &seq_b, 1), 0);
        r->refuse = -EAGAIN;
        queue_push(r->queue, t);
        ck_assert_uint_eq(r->n_not_started, 1);
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_uint_eq(r->n_not_started, 2);
        r->refuse = 0;
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1");
        rig_end(r, t, TASK_NOT_STARTED); /* which it says later */
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1 1");
        t->canceling = true; /* and the same of one that is canceled meanwhile */
        r->fate.event = TASK_EV_CANCEL;
        rig_end(r, t, TASK_NOT_STARTED);
        ck_assert_int_eq(t->state, EQ_STATE_CANCELED);
        rig_submit_to(r, b, TASK_LANE_NORMAL, 0, 0);
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1 1 1:102");
        submit_n(r, 1);
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1 1 1:102 2");
}

/* ---- handed over ---- */

static Rig *rig_ahead(uint64_t n, uint64_t per_usec, uint64_t burst, uint64_t max_active) {
        Rig *r = rig_rated(n, per_usec, burst, max_active);
        rig_set_ahead(r, 64);
        return r;
}
#define AHEAD(...) _cleanup_(rig_freep) Rig *r = rig_ahead(__VA_ARGS__)

TEST(what_was_handed_over_and_runs_for_long_does_not_hold_up_the_next) {
        AHEAD(1, 10 * SEC, 1, 100);
        submit_n(r, 3);
        ck_assert_str_eq(r->starts, "1");
        rig_advance(r, 1000);
        rig_begin(r, nth(r, 0)); /* and tells nobody */
        ck_assert_uint_eq(engine_next_usec(&r->engine), engine_now(&r->engine) - 1000 + 10 * SEC);
        rig_advance(r, 10 * SEC - 1000);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_int_eq(nth(r, 0)->state, EQ_STATE_RUNNING);
        rig_advance(r, 999);
        ck_assert_str_eq(r->starts, "1");
        rig_advance(r, 1);
        ck_assert_str_eq(r->starts, "1 2"); /* ten seconds after it began */
}

TEST(while_threads_are_long_in_coming_no_more_wait_for_them_than_may_start_at_once) {
        AHEAD(1, SEC, 2, 100);
        submit_n(r, 50);
        ck_assert_str_eq(r->starts, "1 2");
        run_for(r, 100 * SEC);
        ck_assert_str_eq(r->starts, "1 2");
        ck_assert_waits(nth(r, 0), EQ_REASON_POOL_FULL, NULL);
        ck_assert_waits(nth(r, 2), EQ_REASON_RATE, NULL);
        rig_begin(r, nth(r, 0));
        rig_begin(r, nth(r, 1));
        uint64_t then = engine_now(&r->engine);
        while (r->queue->n_running == 0)
                rig_advance(r, engine_next_usec(&r->engine) - engine_now(&r->engine));
        ck_assert_uint_le(engine_now(&r->engine), then + SEC); /* looked at a token's time apart */
        rig_advance(r, then + 2 * SEC - engine_now(&r->engine));
        ck_assert_str_eq(r->starts, "1 2 3 4");
}

TEST(submits_do_not_put_off_the_look) {
        AHEAD(1, 10 * SEC, 1, 100);
        submit_n(r, 2);
        rig_begin(r, nth(r, 0));
        for (int i = 0; i < 10; i++) {
                rig_advance(r, SEC - 1);
                submit_n(r, 1);
        }
        rig_advance(r, 10);
        ck_assert_str_eq(r->starts, "1 2");
}

TEST(a_fast_rate_is_not_looked_at_for_each_token) {
        AHEAD(1000, SEC, 1, 100);
        uint64_t end = engine_now(&r->engine) + SEC;
        size_t n = 0;
        submit_n(r, 50);
        ck_assert_uint_eq(r->queue->n_handed, 20); /* what comes in 20 ms, and none has begun */
        for (; engine_next_usec(&r->engine) < end; n++)
                rig_advance(r, engine_next_usec(&r->engine) - engine_now(&r->engine));
        ck_assert_uint_le(n, 100);
        ck_assert_uint_ge(n, 90);
}

TEST(what_is_taken_back_has_cost_nothing_and_urgent_ones_pass_it) {
        AHEAD(1, 100 * SEC, 1, 1);
        submit_n(r, 1);
        queue_pause(r->queue);
        queue_resume(r->queue);
        ck_assert_str_eq(r->starts, "1 1back 1");
        rig_submit_urgent(r);
        ck_assert_str_eq(r->starts, "1 1back 1 1back 2");
        ck_assert_int_eq(queue_cancel(r->queue, nth(r, 0)), 0);
        rig_end(r, nth(r, 1), TASK_OK);
        submit_n(r, 1);
        ck_assert_str_eq(r->starts, "1 1back 1 1back 2");
}

/* ---- at random ---- */

static uint64_t at[2000];
static size_t n_at;

static void note_start(Rig *r, Task *t) {
        at[n_at++] = engine_now(&r->engine);
        ck_assert_uint_lt(n_at, ELEMENTSOF(at));
}

/* Whatever happens, any burst + 1 starts in a row take at least the time of one token, and nothing waits that need not. */
TEST(at_random_the_rate_holds_and_is_used) {
        for (unsigned seed = 1; seed <= 300; seed++) {
                srand(seed);
                uint64_t n = 1 + (uint64_t)rand() % 5, per = (1 + (uint64_t)rand() % 10) * SEC;
                uint64_t burst = 1 + (uint64_t)rand() % 4;
                RIG(n, per, burst, 1 + (uint64_t)rand() % 3);
                r->in_started = note_start;
                n_at = 0;
                for (int step = 0; step < 500; step++) {
                        if (rand() % 2)
                                (void)(rand() % 4 ? rig_submit(r) : rig_submit_urgent(r));
                        if (rand() % 3 == 0 && r->queue->n_running > 0) {
                                rig_retry_in(r, (uint64_t)rand() % SEC);
                                rig_end(r, rig_running(r->queue), rand() % 3 ? TASK_OK : TASK_BAD);
                        }
                        rig_advance(r, (uint64_t)rand() % (2 * SEC));
                        ck_assert(!queue_has_startable(r->queue));
                        if (r->queue->n_queued > 0 && r->queue->n_running == 0)
                                ck_assert_uint_le(engine_next_usec(&r->engine),
                                                  engine_now(&r->engine) + MAX(per / n, SEC) + 1);
                        r->starts[0] = r->ends[0] = '\0';
                }
                ck_assert_uint_gt(n_at, 20);
                for (size_t i = 0; i + burst < n_at; i++)
                        ck_assert_uint_ge(at[i + burst] - at[i], per / n);
        }
}

RUN_TESTS("rate", 60, test_one_in_ten_seconds_is_one_in_ten_seconds, test_a_parallel_queue_starts_no_faster,
          test_urgent_ones_go_first_and_wait_all_the_same, test_a_burst_starts_at_once_after_a_pause,
          test_a_retry_is_a_start, test_what_its_executor_refuses_has_cost_nothing,
          test_a_start_that_was_not_cleared_has_cost_nothing, test_a_change_holds_at_once,
          test_it_is_the_reason_when_there_is_no_other_and_says_until_when, test_a_pause_uses_no_tokens_and_brings_none,
          test_others_of_the_pool_go_on, test_many_queues_wait_in_one_heap_and_a_removed_one_leaves_it,
          test_a_queue_that_goes_with_its_shelf_waits_for_nothing_more,
          test_a_task_over_several_queues_counts_in_each_and_waits_for_each,
          test_a_task_over_several_queues_that_does_not_start_has_cost_nothing_in_any,
          test_what_was_handed_over_and_runs_for_long_does_not_hold_up_the_next,
          test_while_threads_are_long_in_coming_no_more_wait_for_them_than_may_start_at_once,
          test_submits_do_not_put_off_the_look, test_a_fast_rate_is_not_looked_at_for_each_token,
          test_what_is_taken_back_has_cost_nothing_and_urgent_ones_pass_it, test_at_random_the_rate_holds_and_is_used)
