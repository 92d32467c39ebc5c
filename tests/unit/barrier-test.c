/* SPDX-License-Identifier: MIT */
/* Tasks over several queues, one claim at a time. engine-model-test.c has them among everything else at random. */
#include "engine/barrier.h"

#include <errno.h>

#include "rig.h"

/* Three queues: starts and ends name them by their slots, 0 is the first one's plain "SEQ". */
typedef struct Three {
        Rig *r;
        Queue *a, *b, *c;
} Three;

static Three three_new(void) {
        Three t = { .r = rig_new(8) };
        t.a = t.r->queue;
        ck_assert_int_eq(queue_new(&t.r->engine, t.r->pool, "b", &rig_params, 100, &t.b), 0);
        ck_assert_int_eq(queue_new(&t.r->engine, t.r->pool, "c", &rig_params, 200, &t.c), 0);
        return t;
}

static void three_done(Three *t) {
        rig_free(t->r);
}

#define THREE _cleanup_(three_done) Three t = three_new()

static Task *reserve_over(Rig *r, TaskLane lane, Queue *home, Queue *const *others, size_t n) {
        uint64_t seq, seqs[BARRIER_QUEUES_MAX], ids[BARRIER_QUEUES_MAX];
        ck_assert_int_eq(queue_reserve(home, 1, 10, &seq), 0);
        for (size_t i = 0; i < n; i++) {
                ids[i] = others[i]->id;
                ck_assert_int_eq(queue_reserve(others[i], 1, 0, &seqs[i]), 0);
        }
        Task *t = rig_make(r, seq, lane, 10);
        ck_assert_int_eq(barrier_make(&r->engine, t, ids, seqs, n), 0);
        return t;
}

static Task *over_lane(Rig *r, TaskLane lane, Queue *home, Queue *other) {
        Task *t = reserve_over(r, lane, home, &other, 1);
        queue_push(home, t);
        return t;
}

static Task *over(Rig *r, Queue *home, Queue *other) {
        return over_lane(r, TASK_LANE_NORMAL, home, other);
}

static Task *over_all(Three *t) {
        Queue *others[] = { t->b, t->c };
        Task *task = reserve_over(t->r, TASK_LANE_NORMAL, t->a, others, 2);
        queue_push(t->a, task);
        return task;
}

static Task *submit(Rig *r, Queue *q) {
        return rig_submit_to(r, q, TASK_LANE_NORMAL, 0, 0);
}

#define ck_assert_state(task, expected) ck_assert_str_eq(eq_state_name((task)->state), eq_state_name(expected))

/* What `retry` does with one that has ended. */
static void push_again(Queue *home, Task *x, uint64_t bytes) {
        ck_assert_int_eq(queue_reserve_again(home, bytes), 0);
        ck_assert_int_eq(barrier_reserve_again(x), 0);
        queue_push_again(home, x);
}

TEST(it_starts_at_once_where_nothing_is_before_it_and_holds_all_its_queues) {
        THREE;
        Task *x = over_all(&t);
        Task *a = submit(t.r, t.a), *b = submit(t.r, t.b), *c = submit(t.r, t.c);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_state(a, EQ_STATE_QUEUED);
        ck_assert_state(b, EQ_STATE_QUEUED);
        ck_assert_state(c, EQ_STATE_QUEUED);
        ck_assert_waits(b, EQ_REASON_BARRIER, x);
        ck_assert_uint_eq(t.r->pool->n_busy, 1);
        rig_end(t.r, x, TASK_OK);
        ck_assert_state(x, EQ_STATE_DONE);
        ck_assert_state(a, EQ_STATE_RUNNING);
        ck_assert_state(b, EQ_STATE_RUNNING);
        ck_assert_state(c, EQ_STATE_RUNNING);
}

TEST(it_has_its_place_in_each_of_its_queues) {
        THREE;
        Task *a = submit(t.r, t.a), *b1 = submit(t.r, t.b), *b2 = submit(t.r, t.b);
        Task *x = over_all(&t);
        Task *b3 = submit(t.r, t.b), *c = submit(t.r, t.c);
        ck_assert_state(c, EQ_STATE_QUEUED); /* behind it, and nothing runs there */
        ck_assert_waits(c, EQ_REASON_BARRIER, x);
        rig_end(t.r, a, TASK_OK);
        ck_assert_waits(x, EQ_REASON_BARRIER, b1);
        rig_end(t.r, b1, TASK_OK);
        ck_assert_state(b2, EQ_STATE_RUNNING);
        ck_assert_state(x, EQ_STATE_QUEUED);
        rig_end(t.r, b2, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_state(b3, EQ_STATE_QUEUED);
        rig_end(t.r, x, TASK_OK);
        ck_assert_state(b3, EQ_STATE_RUNNING);
        ck_assert_state(c, EQ_STATE_RUNNING);
}

TEST(a_queue_with_several_at_once_is_empty_before_it_starts) {
        THREE;
        rig_set_max_active(t.r, 3);
        Task *a1 = submit(t.r, t.a), *a2 = submit(t.r, t.a);
        Task *x = over(t.r, t.b, t.a);
        Task *a3 = submit(t.r, t.a);
        ck_assert_state(a3, EQ_STATE_QUEUED);
        rig_end(t.r, a2, TASK_OK);
        ck_assert_state(x, EQ_STATE_QUEUED);
        rig_end(t.r, a1, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_state(a3, EQ_STATE_QUEUED);
        Task *urgent = rig_submit_urgent(t.r);
        ck_assert_state(urgent, EQ_STATE_QUEUED);
        ck_assert_waits(urgent, EQ_REASON_BARRIER, x);
        rig_end(t.r, x, TASK_OK);
        ck_assert_str_eq(t.r->starts, "1 2 1:101 5 4"); /* the urgent one before a3 */
}

/* Whoever took its queues one after the other, even in the order of their ids, would stand for ever in the next two: x has a and
 * waits for b, where y, which needs a, is before it. */
TEST(an_urgent_barrier_passes_one_that_waits_for_its_second_queue) {
        THREE;
        Task *b = submit(t.r, t.b);
        Task *x = over(t.r, t.a, t.b);
        Task *y = over_lane(t.r, TASK_LANE_URGENT, t.a, t.b);
        ck_assert_state(x, EQ_STATE_QUEUED);
        rig_end(t.r, b, TASK_OK);
        ck_assert_state(y, EQ_STATE_RUNNING);
        ck_assert_waits(x, EQ_REASON_BARRIER, y);
        rig_end(t.r, y, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
}

TEST(D3_a_barrier_that_is_released_takes_its_earlier_place_before_one_that_waits) {
        THREE;
        Task *b = submit(t.r, t.b);
        Queue *others[] = { t.b };
        Task *y = reserve_over(t.r, TASK_LANE_NORMAL, t.a, others, 1);
        y->wait = TASK_WAIT_HELD;
        queue_push(t.a, y);
        Task *x = over(t.r, t.a, t.b);
        ck_assert_int_eq(queue_wait_clear(t.a, y, TASK_WAIT_HELD), 0);
        ck_assert_waits(x, EQ_REASON_BARRIER, y);
        rig_end(t.r, b, TASK_OK);
        ck_assert_state(y, EQ_STATE_RUNNING);
        rig_end(t.r, y, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
}

TEST(D3_barriers_that_go_round_in_a_circle_all_end) {
        THREE;
        Task *x[] = { over(t.r, t.a, t.b), over(t.r, t.b, t.c), over(t.r, t.c, t.a) };
        for (size_t i = 0; i < 3; i++) {
                ck_assert_state(x[i], EQ_STATE_RUNNING);
                rig_end(t.r, x[i], TASK_OK);
                ck_assert_state(x[i], EQ_STATE_DONE);
        }
}

TEST(one_that_is_held_lets_all_pass_in_all_its_queues) {
        THREE;
        Task *b = submit(t.r, t.b);
        Task *x = over_all(&t);
        Task *c = submit(t.r, t.c);
        ck_assert_int_eq(queue_wait_set(t.a, x, TASK_WAIT_HELD), 0);
        ck_assert_state(c, EQ_STATE_RUNNING);
        ck_assert_waits(x, EQ_REASON_HELD, NULL);
        rig_end(t.r, b, TASK_OK);
        rig_end(t.r, c, TASK_OK);
        ck_assert_state(x, EQ_STATE_WAITING);
        ck_assert_int_eq(queue_wait_clear(t.a, x, TASK_WAIT_HELD), 0);
        ck_assert_state(x, EQ_STATE_RUNNING);
}

TEST(canceled_while_it_waits_it_is_gone_from_all_its_queues) {
        THREE;
        Task *a = submit(t.r, t.a);
        Task *x = over_all(&t);
        Task *b = submit(t.r, t.b), *c = submit(t.r, t.c);
        ck_assert_int_eq(queue_cancel(t.a, x), 0);
        ck_assert_state(x, EQ_STATE_CANCELED);
        ck_assert_state(b, EQ_STATE_RUNNING);
        ck_assert_state(c, EQ_STATE_RUNNING);
        ck_assert_ptr_null(barrier_over(t.b));
        rig_end(t.r, a, TASK_OK);
        rig_end(t.r, b, TASK_OK);
        ck_assert(queue_is_empty(t.a) && queue_is_empty(t.b) && !queue_is_empty(t.c));
}

/* The host is told of its end before anything else of its queues starts. */
static Task *after;
static void nothing_started_yet(Rig *r, Task *t) {
        if (t->part == TASK_BARRIER)
                ck_assert_state(after, EQ_STATE_QUEUED);
}
TEST(its_end_is_told_before_others_start) {
        THREE;
        Task *x = over_all(&t);
        after = submit(t.r, t.c);
        t.r->in_finished = nothing_started_yet;
        rig_end(t.r, x, TASK_OK);
        ck_assert_state(after, EQ_STATE_RUNNING);
}

TEST(stopped_while_it_runs_it_lets_go_of_all) {
        THREE;
        Task *x = over_all(&t);
        Task *c = submit(t.r, t.c);
        t.r->stops_at_once = true;
        t.r->fate.event = TASK_EV_CANCEL;
        ck_assert_int_eq(queue_cancel(t.a, x), 1);
        ck_assert_int_eq(engine_task_stop(&t.r->engine, x, 0, 0), 0);
        ck_assert_state(x, EQ_STATE_CANCELED);
        ck_assert_state(c, EQ_STATE_RUNNING);
}

TEST(a_stop_of_one_of_its_queues_lets_it_run_and_then_joins) {
        THREE;
        RigWaiter w = RIG_WAITER;
        Task *a = submit(t.r, t.a);
        Task *x = over_all(&t);
        queue_stop(t.b);
        queue_join(t.b, &w.waiter);
        ck_assert_uint_eq(w.n_calls, 0);
        rig_end(t.r, a, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_uint_eq(w.n_calls, 0);
        rig_end(t.r, x, TASK_OK);
        ck_assert_uint_eq(w.n_calls, 1);
}

TEST(a_pause_of_any_of_its_queues_keeps_it_back) {
        THREE;
        queue_pause(t.c);
        Task *x = over_all(&t);
        Task *b = submit(t.r, t.b);
        ck_assert_state(x, EQ_STATE_QUEUED);
        ck_assert_waits(x, EQ_REASON_BARRIER, NULL);
        const Task *by;
        ck_assert_ptr_eq(barrier_waits_for(x, &by), t.c);
        ck_assert_waits(b, EQ_REASON_BARRIER, x);
        queue_resume(t.c);
        ck_assert_state(x, EQ_STATE_RUNNING);
}

TEST(a_back_off_keeps_the_places_in_serial_queues_and_in_them_only) {
        THREE;
        QueueParams params = t.c->params;
        params.max_active = 2;
        queue_set_params(t.c, &params);
        Task *x = over_all(&t);
        Task *b = submit(t.r, t.b), *c = submit(t.r, t.c);
        rig_retry_in(t.r, 50);
        rig_end(t.r, x, TASK_BAD);
        ck_assert_state(x, EQ_STATE_WAITING);
        ck_assert_state(b, EQ_STATE_QUEUED);
        ck_assert_waits(b, EQ_REASON_BACKOFF, x);
        ck_assert_state(c, EQ_STATE_RUNNING);
        rig_advance(t.r, 50);
        ck_assert_state(x, EQ_STATE_QUEUED);
        rig_end(t.r, c, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_uint_eq(x->attempt, 2);
}

TEST(one_that_the_executor_refuses_is_at_its_places_again) {
        THREE;
        t.r->refuse = -EAGAIN;
        Task *x = over_all(&t);
        ck_assert_state(x, EQ_STATE_QUEUED);
        ck_assert_uint_eq(x->attempt, 0);
        t.r->refuse = 0;
        rig_advance(t.r, POOL_COOLDOWN_USEC);
        ck_assert_state(x, EQ_STATE_RUNNING);
}

TEST(a_slot_is_taken_in_its_home_only) {
        THREE;
        pool_set_max(t.r->pool, 1);
        Task *a = submit(t.r, t.a);
        Task *x = over(t.r, t.b, t.c);
        ck_assert_waits(x, EQ_REASON_SLOTS, NULL);
        rig_end(t.r, a, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_uint_eq(t.r->pool->n_busy, 1);
}

TEST(retried_by_hand_it_has_its_old_places_again) {
        THREE;
        Task *x = over_all(&t);
        rig_end(t.r, x, TASK_BAD);
        ck_assert_state(x, EQ_STATE_FAILED);
        Task *b = submit(t.r, t.b), *b2 = submit(t.r, t.b);
        push_again(t.a, x, 10);
        rig_end(t.r, b, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_state(b2, EQ_STATE_QUEUED);
}

TEST(retried_by_hand_without_one_of_its_queues_it_is_refused) {
        THREE;
        Task *x = over(t.r, t.a, t.c);
        rig_end(t.r, x, TASK_OK);
        queue_free(t.c);
        ck_assert_int_eq(barrier_reserve_again(x), -ENOENT);
}

TEST(its_expiry_takes_it_out_of_all) {
        THREE;
        Task *a = submit(t.r, t.a);
        Queue *others[] = { t.b };
        Task *x = reserve_over(t.r, TASK_LANE_NORMAL, t.a, others, 1);
        x->expire_usec = engine_now(&t.r->engine) + 50;
        queue_push(t.a, x);
        Task *b = submit(t.r, t.b);
        ck_assert_state(b, EQ_STATE_QUEUED);
        rig_advance(t.r, 50);
        ck_assert_state(x, EQ_STATE_EXPIRED);
        ck_assert_state(b, EQ_STATE_RUNNING);
        ck_assert_state(a, EQ_STATE_RUNNING);
}

TEST(a_flush_of_any_of_its_queues_waits_for_it) {
        THREE;
        RigWaiter w = RIG_WAITER;
        Task *x = over_all(&t);
        queue_flush(t.c, &w.waiter);
        ck_assert_uint_eq(w.n_calls, 0);
        rig_end(t.r, x, TASK_OK);
        ck_assert_uint_eq(w.n_calls, 1);
}

TEST(each_of_its_queues_counts_it_against_max_tasks) {
        THREE;
        QueueParams params = t.b->params;
        params.max_tasks = 1;
        queue_set_params(t.b, &params);
        submit(t.r, t.a);
        over(t.r, t.a, t.b);
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(t.b, 1, 0, &seq), QUEUE_E_FULL);
        ck_assert_ptr_eq(queue_oldest(t.b), t.r->tasks[1]); /* what drop-oldest drops, at home elsewhere */
        ck_assert_int_eq(queue_cancel(t.a, t.r->tasks[1]), 0);
        ck_assert_int_eq(queue_reserve(t.b, 1, 0, &seq), 0);
        queue_unreserve(t.b, 1, 0);
}

TEST(what_stands_at_a_barrier_is_not_ready_for_the_watch) {
        THREE;
        Task *a = submit(t.r, t.a);
        Task *x = over(t.r, t.a, t.b);
        submit(t.r, t.b);
        ck_assert_uint_eq(atomic_load(&t.b->watch->n_ready), 0);
        ck_assert_uint_eq(atomic_load(&t.a->watch->n_ready), 1); /* by the task that runs there */
        rig_end(t.r, a, TASK_OK);
        ck_assert_uint_eq(atomic_load(&t.b->watch->n_ready), 0);
        rig_end(t.r, x, TASK_OK);
        ck_assert_state(t.r->tasks[2], EQ_STATE_RUNNING);
}

static Task *restore_over(Three *t, uint64_t seq, eq_state state, uint64_t other, uint64_t other_seq) {
        Task *x = rig_make(t->r, seq, TASK_LANE_NORMAL, 0);
        t->a->last_seq = seq;
        if (state == EQ_STATE_WAITING)
                ck_assert_int_eq(barrier_make(&t->r->engine, x, &other, &other_seq, 1), 0);
        else {
                task_init_finished(x, seq, TASK_LANE_NORMAL, 0, state, 1);
                x->queue = t->a; /* as the engine leaves those that end in it */
                ck_assert_int_eq(barrier_make(&t->r->engine, x, &other, &other_seq, 1), 0);
                return x;
        }
        ck_assert_int_eq(queue_restore_task(t->a, x), 0);
        return x;
}

TEST(restored_it_has_its_places) {
        THREE;
        engine_hold(&t.r->engine);
        Task *b = submit(t.r, t.b); /* 101 */
        Task *x = restore_over(&t, 1, EQ_STATE_WAITING, t.b->id, 102);
        ck_assert_int_eq(barriers_restore(&t.r->engine), 0);
        engine_unhold(&t.r->engine);
        Task *b2 = submit(t.r, t.b);
        ck_assert_uint_eq(b2->seq, 103);
        ck_assert_state(b, EQ_STATE_RUNNING);
        ck_assert_waits(x, EQ_REASON_BARRIER, b);
        rig_end(t.r, b, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_state(b2, EQ_STATE_QUEUED);
}

TEST(restored_after_its_end_it_knows_its_places) {
        THREE;
        Task *x = restore_over(&t, 1, EQ_STATE_FAILED, t.b->id, 150);
        ck_assert_int_eq(barriers_restore(&t.r->engine), 0);
        Task *b = submit(t.r, t.b), *b2 = submit(t.r, t.b);
        ck_assert_uint_eq(b->seq, 151);
        push_again(t.a, x, 0);
        rig_end(t.r, b, TASK_OK);
        ck_assert_state(x, EQ_STATE_RUNNING);
        ck_assert_state(b2, EQ_STATE_QUEUED);
}

TEST(restored_without_one_of_its_queues_it_runs_without_it) {
        THREE;
        engine_hold(&t.r->engine);
        Task *x = restore_over(&t, 1, EQ_STATE_WAITING, UINT64_C(9) << ENGINE_SLOT_BITS | 77, 5);
        ck_assert_int_eq(barriers_restore(&t.r->engine), 0);
        engine_unhold(&t.r->engine);
        ck_assert_state(x, EQ_STATE_RUNNING);
        rig_retry_in(t.r, 50);
        rig_end(t.r, x, TASK_BAD);
        ck_assert_int_eq(queue_wait_set(t.a, x, TASK_WAIT_HELD), 0);
        ck_assert_int_eq(queue_cancel(t.a, x), 0);
}

TEST(without_memory_it_is_refused_and_nothing_is_left) {
        THREE;
        uint64_t seqs[] = { 101 }, others[] = { t.b->id };
        Task *x = rig_make(t.r, 1, TASK_LANE_NORMAL, 0);
        for (long nth = 1; nth <= 3; nth++) { /* itself, and what the table of them needs first */
                fault_set(FAULT_ALLOC, nth, false);
                ck_assert_int_eq(barrier_make(&t.r->engine, x, others, seqs, 1), -ENOMEM);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert_int_eq(x->part, TASK_ALONE);
                ck_assert_ptr_null(t.r->engine.barriers);
        }
}

RUN_TESTS("barrier", 30, test_it_starts_at_once_where_nothing_is_before_it_and_holds_all_its_queues,
          test_it_has_its_place_in_each_of_its_queues, test_a_queue_with_several_at_once_is_empty_before_it_starts,
          test_an_urgent_barrier_passes_one_that_waits_for_its_second_queue,
          test_D3_a_barrier_that_is_released_takes_its_earlier_place_before_one_that_waits,
          test_D3_barriers_that_go_round_in_a_circle_all_end, test_one_that_is_held_lets_all_pass_in_all_its_queues,
          test_canceled_while_it_waits_it_is_gone_from_all_its_queues, test_its_end_is_told_before_others_start,
          test_stopped_while_it_runs_it_lets_go_of_all, test_a_stop_of_one_of_its_queues_lets_it_run_and_then_joins,
          test_a_pause_of_any_of_its_queues_keeps_it_back,
          test_a_back_off_keeps_the_places_in_serial_queues_and_in_them_only,
          test_one_that_the_executor_refuses_is_at_its_places_again, test_a_slot_is_taken_in_its_home_only,
          test_retried_by_hand_it_has_its_old_places_again,
          test_retried_by_hand_without_one_of_its_queues_it_is_refused, test_its_expiry_takes_it_out_of_all,
          test_a_flush_of_any_of_its_queues_waits_for_it, test_each_of_its_queues_counts_it_against_max_tasks,
          test_what_stands_at_a_barrier_is_not_ready_for_the_watch, test_restored_it_has_its_places,
          test_restored_after_its_end_it_knows_its_places, test_restored_without_one_of_its_queues_it_runs_without_it,
          test_without_memory_it_is_refused_and_nothing_is_left)
