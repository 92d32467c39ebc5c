/* SPDX-License-Identifier: MIT */
/* Tasks that are with an executor and have not begun: queue_set_ahead(). */
#include "engine/queue.h"

#include <errno.h>

#include "rig.h"

#define RIG _cleanup_(rig_freep) Rig *r = rig_ahead(4)

static Rig *rig_ahead(size_t n) {
        Rig *r = rig_new(1000);
        rig_set_ahead(r, n);
        return r;
}

static void forget_starts(Rig *r) {
        r->starts[0] = '\0';
}

TEST(as_many_are_handed_over_as_was_said_and_are_queued) {
        RIG;
        for (int i = 0; i < 6; i++)
                rig_submit(r);
        ck_assert_str_eq(r->starts, "1 2 3 4");
        ck_assert_uint_eq(r->queue->n_queued, 6);
        ck_assert_uint_eq(r->queue->n_bytes, 60);
        ck_assert_uint_eq(r->queue->n_running, 0);
        ck_assert_int_eq(r->tasks[0]->state, EQ_STATE_QUEUED);
        ck_assert(task_is_pending(r->tasks[0]));
        ck_assert_uint_eq(r->n_started_hook, 0);
        ck_assert_uint_eq(r->pool->n_handed, 4);
}

TEST(the_end_of_one_hands_over_the_next) {
        RIG;
        for (int i = 0; i < 6; i++)
                rig_submit(r);
        rig_end(r, r->tasks[0], TASK_OK);
        ck_assert_str_eq(r->starts, "1 2 3 4 5");
        ck_assert_str_eq(r->ends, "1DONE");
        ck_assert_uint_eq(r->tasks[0]->attempt, 1);
        ck_assert_uint_eq(r->n_started_hook, 1);
        ck_assert_uint_eq(r->queue->n_queued, 5);
}

TEST(canceled_before_it_has_begun_is_0_and_after_it_1) {
        RIG;
        rig_submit(r);
        rig_submit(r);
        rig_begin(r, r->tasks[0]);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[1]), 0);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[0]), 1);
        ck_assert_int_eq(r->tasks[0]->state, EQ_STATE_RUNNING);
        ck_assert_uint_eq(r->tasks[0]->attempt, 1);
        ck_assert_uint_eq(r->n_started_hook, 1);
        ck_assert_str_eq(r->ends, "2CANCELED");
        rig_end(r, r->tasks[0], TASK_OK);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[0]), -1);
}

TEST(looking_tells_what_has_begun) {
        RIG;
        rig_submit(r);
        rig_submit(r);
        rig_begin(r, r->tasks[0]);
        queue_look(r->queue);
        ck_assert_uint_eq(r->queue->n_running, 1);
        ck_assert_uint_eq(r->queue->n_queued, 1);
        ck_assert_uint_eq(r->pool->n_handed, 1);
        ck_assert_waits(r->tasks[1], EQ_REASON_SERIAL, r->tasks[0]);
        ck_assert_uint_eq(engine_task_stop(&r->engine, r->tasks[0], 0, 0), 0);
        ck_assert_uint_eq(r->n_cancels, 1);
}

TEST(reasons_count_what_was_handed_over) {
        RIG;
        for (int i = 0; i < 5; i++)
                rig_submit(r);
        ck_assert_waits(r->tasks[0], EQ_REASON_POOL_FULL, NULL);
        ck_assert_waits(r->tasks[2], EQ_REASON_PRIO, r->tasks[0]);
        ck_assert_waits(r->tasks[4], EQ_REASON_PRIO, r->tasks[0]);
        ck_assert_uint_eq(queue_n_ahead(r->queue, r->tasks[4]), 4);
        ck_assert_uint_eq(queue_n_ahead(r->queue, r->tasks[2]), 2);
        ck_assert_ptr_eq(queue_oldest(r->queue), r->tasks[0]);
}

TEST(a_pause_takes_back_what_has_not_begun_and_a_resume_hands_it_over_in_order) {
        RIG;
        for (int i = 0; i < 3; i++)
                rig_submit(r);
        rig_begin(r, r->tasks[0]);
        forget_starts(r);
        queue_pause(r->queue);
        ck_assert_str_eq(r->starts, "3back 2back");
        ck_assert_uint_eq(r->queue->n_running, 1);
        ck_assert_waits(r->tasks[1], EQ_REASON_PAUSED, NULL);
        forget_starts(r);
        queue_resume(r->queue);
        ck_assert_str_eq(r->starts, "2 3");
}

TEST(held_means_not_with_the_executor) {
        RIG;
        rig_submit(r);
        rig_submit(r);
        rig_begin(r, r->tasks[0]);
        ck_assert_int_eq(queue_wait_set(r->queue, r->tasks[1], TASK_WAIT_HELD), 0);
        ck_assert_int_eq(r->tasks[1]->state, EQ_STATE_WAITING);
        ck_assert_int_eq(queue_wait_set(r->queue, r->tasks[0], TASK_WAIT_HELD), 1);
        ck_assert_int_eq(queue_wait_clear(r->queue, r->tasks[1], TASK_WAIT_HELD), 0);
        ck_assert_str_eq(r->starts, "1 2 2back 2");
}

TEST(one_with_an_earlier_place_goes_before_those_that_were_handed_over) {
        RIG;
        Task *held = rig_submit_held(r);
        for (int i = 0; i < 3; i++)
                rig_submit(r);
        rig_submit_urgent(r);
        forget_starts(r);
        queue_wait_clear(r->queue, held, TASK_WAIT_HELD);
        ck_assert_str_eq(r->starts, "4back 3back 2back 1 2 3");
}

TEST(a_back_off_of_a_serial_queue_keeps_the_later_ones_back) {
        RIG;
        for (int i = 0; i < 3; i++)
                rig_submit(r);
        rig_submit_urgent(r);
        forget_starts(r);
        rig_retry_in(r, 10 * USEC_PER_SEC);
        rig_end(r, r->tasks[0], TASK_BAD);
        ck_assert_str_eq(r->starts, "3back 2back");
        ck_assert_waits(r->tasks[1], EQ_REASON_BACKOFF, r->tasks[0]);
        forget_starts(r);
        rig_advance(r, 10 * USEC_PER_SEC);
        ck_assert_str_eq(r->starts, "1 2 3");
}

TEST(an_expiry_holds_until_it_has_begun) {
        RIG;
        for (int i = 0; i < 2; i++) {
                uint64_t seq;
                ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), 0);
                Task *t = rig_make(r, seq, TASK_LANE_NORMAL, 10);
                t->expire_usec = engine_now(&r->engine) + USEC_PER_SEC;
                queue_push(r->queue, t);
        }
        rig_begin(r, r->tasks[0]);
        rig_advance(r, USEC_PER_SEC);
        ck_assert_str_eq(r->ends, "2EXPIRED");
        ck_assert_int_eq(r->tasks[0]->state, EQ_STATE_RUNNING);
}

TEST(one_that_the_executor_refuses_is_at_its_place_again) {
        RIG;
        r->refuse = -EAGAIN;
        rig_submit(r);
        rig_submit(r);
        ck_assert_str_eq(r->starts, "");
        ck_assert_uint_eq(r->queue->n_queued, 2);
        ck_assert_uint_eq(r->pool->n_busy, 0);
        ck_assert_waits(r->tasks[0], EQ_REASON_CREATE_FAILURE, NULL);
        r->refuse = 0;
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1 2");
}

TEST(a_queue_that_nobody_serves_gets_everything_back) {
        RIG;
        rig_submit(r);
        forget_starts(r);
        queue_set_unserved(r->queue, EQ_REASON_NO_WORKER);
        ck_assert_str_eq(r->starts, "1back");
        ck_assert_waits(r->tasks[0], EQ_REASON_NO_WORKER, NULL);
        queue_set_unserved(r->queue, EQ_REASON_NONE);
        ck_assert_str_eq(r->starts, "1back 1");
}

TEST(less_ahead_takes_back_and_max_active_is_the_least) {
        RIG;
        for (int i = 0; i < 5; i++)
                rig_submit(r);
        forget_starts(r);
        queue_set_ahead(r->queue, 1);
        ck_assert_str_eq(r->starts, "4back 3back 2back 1back 1");
        rig_set_max_active(r, 3);
        ck_assert_str_eq(r->starts, "4back 3back 2back 1back 1 2 3");
}

TEST(a_flush_waits_for_what_was_handed_over) {
        RIG;
        RigWaiter w = RIG_WAITER;
        rig_submit(r);
        rig_submit(r);
        queue_flush(r->queue, &w.waiter);
        rig_end(r, r->tasks[1], TASK_OK);
        ck_assert_uint_eq(w.n_calls, 0);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[0]), 0);
        ck_assert_uint_eq(w.n_calls, 1);
}

RUN_TESTS("handed", 30, test_as_many_are_handed_over_as_was_said_and_are_queued,
          test_the_end_of_one_hands_over_the_next, test_canceled_before_it_has_begun_is_0_and_after_it_1,
          test_looking_tells_what_has_begun, test_reasons_count_what_was_handed_over,
          test_a_pause_takes_back_what_has_not_begun_and_a_resume_hands_it_over_in_order,
          test_held_means_not_with_the_executor, test_one_with_an_earlier_place_goes_before_those_that_were_handed_over,
          test_a_back_off_of_a_serial_queue_keeps_the_later_ones_back, test_an_expiry_holds_until_it_has_begun,
          test_one_that_the_executor_refuses_is_at_its_place_again,
          test_a_queue_that_nobody_serves_gets_everything_back, test_less_ahead_takes_back_and_max_active_is_the_least,
          test_a_flush_waits_for_what_was_handed_over)
