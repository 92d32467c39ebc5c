/* SPDX-License-Identifier: MIT */
#include "engine/queue.h"

#include <errno.h>

#include "rig.h"

#define RIG(r, n_slots) _cleanup_(rig_freep) Rig *r = rig_new(n_slots)

/* Place */

TEST(tasks_start_in_order_of_seq_one_at_a_time) {
        RIG(r, 4);
        for (int i = 0; i < 5; i++)
                rig_submit(r);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_uint_eq(r->queue->n_queued, 4);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 2 3 4 5");
        ck_assert_str_eq(r->ends, "1DONE 2DONE 3DONE 4DONE 5DONE");
        ck_assert_uint_eq(r->queue->n_done, 5);
        ck_assert_uint_eq(r->n_started_hook, 5);
}

TEST(the_next_task_starts_before_the_end_of_the_previous_returns) {
        RIG(r, 4);
        Task *first = rig_submit(r), *second = rig_submit(r);
        rig_end(r, first, TASK_OK);
        ck_assert_int_eq(second->state, EQ_STATE_RUNNING);
}

TEST(urgent_tasks_start_before_normal_ones_and_in_order_among_themselves) {
        RIG(r, 4);
        rig_submit(r);
        rig_submit(r);
        rig_submit_urgent(r);
        rig_submit(r);
        rig_submit_urgent(r);
        ck_assert_str_eq(r->starts, "1"); /* what runs is not interrupted */
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 3 5 2 4");
}

TEST(a_task_whose_delay_is_over_takes_its_place_by_seq) {
        RIG(r, 4);
        rig_submit(r);
        rig_submit_in(r, 10);
        rig_submit(r);
        rig_submit(r);
        rig_end(r, rig_running(r->queue), TASK_OK); /* 3 passes the delayed 2 */
        rig_advance(r, 10);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 3 2 4");
}

TEST(a_released_task_takes_its_place_between_others) {
        RIG(r, 4);
        for (int i = 0; i < 6; i++)
                rig_submit(r);
        ck_assert_int_eq(queue_wait_set(r->queue, r->tasks[3], TASK_WAIT_HELD | TASK_WAIT_AFTER), 0);
        ck_assert_int_eq(r->tasks[3]->state, EQ_STATE_WAITING);
        ck_assert_int_eq(queue_wait_clear(r->queue, r->tasks[3], TASK_WAIT_HELD), 0);
        ck_assert_int_eq(r->tasks[3]->state, EQ_STATE_WAITING);
        ck_assert_int_eq(queue_wait_clear(r->queue, r->tasks[3], TASK_WAIT_AFTER), 0);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 2 3 4 5 6");
}

TEST(several_that_fall_due_together_start_in_order_of_seq) {
        RIG(r, 4);
        rig_submit_in(r, 30);
        rig_submit_in(r, 20);
        rig_submit_in(r, 10);
        rig_advance(r, 30);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 2 3");
}

TEST(a_returned_task_runs_again_before_those_behind_it) {
        RIG(r, 4);
        rig_submit(r);
        rig_submit(r);
        r->fate.event = TASK_EV_RETURN;
        rig_end(r, r->tasks[0], TASK_CRASHED);
        ck_assert_str_eq(r->starts, "1 1");
        ck_assert_int_eq(r->tasks[0]->attempt, 2);
}

TEST(a_finished_task_retried_by_hand_runs_at_its_own_place) {
        RIG(r, 4);
        for (int i = 0; i < 4; i++)
                rig_submit(r);
        rig_end(r, r->tasks[0], TASK_BAD);
        ck_assert_int_eq(r->tasks[0]->state, EQ_STATE_FAILED);
        ck_assert_int_eq(queue_reserve_again(r->queue, 10), 0);
        queue_push_again(r->queue, r->tasks[0]);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 2 1 3 4");
        ck_assert_str_eq(r->ends, "1FAILED 2DONE 1DONE 3DONE 4DONE");
        ck_assert_int_eq(r->tasks[0]->attempt, 2);
}

TEST(back_off_on_a_serial_queue_blocks_its_lane_and_urgent_tasks_pass) {
        RIG(r, 4);
        rig_submit(r);
        rig_submit(r);
        rig_retry_in(r, 100);
        rig_end(r, r->tasks[0], TASK_BAD);
        ck_assert_int_eq(r->tasks[0]->state, EQ_STATE_WAITING);
        ck_assert_str_eq(r->starts, "1");
        rig_submit_urgent(r);
        ck_assert_str_eq(r->starts, "1 3");
        rig_end(r, r->tasks[2], TASK_OK);
        ck_assert_str_eq(r->starts, "1 3");
        rig_advance(r, 100);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 3 1 2");
}

TEST(back_off_on_a_parallel_queue_blocks_nobody) {
        RIG(r, 4);
        rig_set_max_active(r, 2);
        rig_submit(r);
        rig_submit(r);
        rig_submit(r);
        rig_submit(r);
        rig_retry_in(r, 100);
        rig_end(r, r->tasks[0], TASK_BAD);
        ck_assert_str_eq(r->starts, "1 2 3");
        rig_advance(r, 100);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "1 2 3 1 4");
}

TEST(a_task_before_one_in_back_off_passes_it) {
        RIG(r, 4);
        rig_submit_held(r);
        rig_submit(r);
        rig_submit(r);
        rig_retry_in(r, 100);
        rig_end(r, r->tasks[1], TASK_BAD);
        queue_wait_clear(r->queue, r->tasks[0], TASK_WAIT_HELD);
        rig_run_all(r);
        ck_assert_str_eq(r->starts, "2 1");
}

TEST(canceling_the_task_in_back_off_unblocks_the_lane) {
        RIG(r, 4);
        rig_submit(r);
        rig_submit(r);
        rig_retry_in(r, 100);
        rig_end(r, r->tasks[0], TASK_BAD);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[0]), 0);
        ck_assert_str_eq(r->starts, "1 2");
}

TEST(holding_the_task_in_back_off_unblocks_the_lane) {
        RIG(r, 4);
        rig_submit(r);
        rig_submit(r);
        rig_retry_in(r, 100);
        rig_end(r, r->tasks[0], TASK_BAD);
        queue_wait_set(r->queue, r->tasks[0], TASK_WAIT_HELD);
        ck_assert_str_eq(r->starts, "1 2");
        rig_advance(r, 100);
        ck_assert_int_eq(r->tasks[0]->wait, TASK_WAIT_HELD);
}

TEST(max_active_tasks_run_at_once_and_start_in_order) {
        RIG(r, 10);
        rig_set_max_active(r, 3);
        for (int i = 0; i < 6; i++)
                rig_submit(r);
        ck_assert_str_eq(r->starts, "1 2 3");
        rig_end(r, r->tasks[1], TASK_OK);
        ck_assert_str_eq(r->starts, "1 2 3 4");
        ck_assert_uint_eq(r->queue->n_running, 3);
}

TEST(max_active_may_be_raised_and_lowered_while_tasks_run) {
        RIG(r, 10);
        for (int i = 0; i < 6; i++)
                rig_submit(r);
        rig_set_max_active(r, 3);
        ck_assert_str_eq(r->starts, "1 2 3");
        rig_set_max_active(r, 1);
        rig_end(r, r->tasks[0], TASK_OK);
        rig_end(r, r->tasks[1], TASK_OK);
        ck_assert_str_eq(r->starts, "1 2 3");
        rig_end(r, r->tasks[2], TASK_OK);
        ck_assert_str_eq(r->starts, "1 2 3 4");
}

/* Cancel */

TEST(cancel_of_a_pending_task_says_0_of_a_running_one_1_of_an_ended_one_minus_1) {
        RIG(r, 4);
        rig_submit(r);
        rig_submit(r);
        rig_submit_held(r);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[0]), 1);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[1]), 0);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[2]), 0);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[2]), -1);
        rig_run_all(r);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[0]), -1);
        ck_assert_str_eq(r->ends, "2CANCELED 3CANCELED 1DONE");
        ck_assert(queue_is_empty(r->queue));
}

TEST(a_running_task_cannot_be_made_to_wait) {
        RIG(r, 4);
        rig_submit(r);
        ck_assert_int_eq(queue_wait_set(r->queue, r->tasks[0], TASK_WAIT_HELD), 1);
        ck_assert_int_eq(queue_wait_clear(r->queue, r->tasks[0], TASK_WAIT_HELD), 1);
        rig_run_all(r);
        ck_assert_int_eq(queue_wait_set(r->queue, r->tasks[0], TASK_WAIT_HELD), -1);
}

/* Reasons */

TEST(reason_of_a_waiting_task_is_what_it_waits_for) {
        RIG(r, 4);
        Task *held = rig_submit_held(r);
        Task *after = rig_submit_to(r, r->queue, TASK_LANE_NORMAL, TASK_WAIT_AFTER, 0);
        Task *at = rig_submit_in(r, 10);
        queue_pause(r->queue); /* what holds the task itself comes first */
        ck_assert_waits(held, EQ_REASON_HELD, NULL);
        ck_assert_waits(after, EQ_REASON_AFTER, NULL);
        ck_assert_waits(at, EQ_REASON_AT, NULL);
}

TEST(reason_is_serial_by_the_running_task) {
        RIG(r, 4);
        Task *first = rig_submit(r), *second = rig_submit(r), *third = rig_submit(r);
        ck_assert_waits(first, EQ_REASON_NONE, NULL);
        ck_assert_waits(second, EQ_REASON_SERIAL, first);
        ck_assert_waits(third, EQ_REASON_SERIAL, first);
}

TEST(reason_is_max_active_on_a_parallel_queue) {
        RIG(r, 4);
        rig_set_max_active(r, 2);
        rig_submit(r);
        rig_submit(r);
        ck_assert_waits(rig_submit(r), EQ_REASON_MAX_ACTIVE, NULL);
}

TEST(reason_of_the_head_is_slots_and_of_those_behind_it_prio) {
        RIG(r, 0);
        Task *first = rig_submit(r), *second = rig_submit(r), *third = rig_submit(r);
        ck_assert_waits(first, EQ_REASON_SLOTS, NULL);
        ck_assert_waits(second, EQ_REASON_PRIO, first);
        ck_assert_waits(third, EQ_REASON_PRIO, first);
        Task *urgent = rig_submit_urgent(r);
        ck_assert_waits(urgent, EQ_REASON_SLOTS, NULL);
        ck_assert_waits(first, EQ_REASON_PRIO, urgent);
        ck_assert_uint_eq(queue_n_ahead(r->queue, urgent), 0);
        ck_assert_uint_eq(queue_n_ahead(r->queue, third), 3);
}

TEST(reason_is_backoff_for_the_task_and_for_those_that_it_blocks) {
        RIG(r, 4);
        Task *first = rig_submit(r), *second = rig_submit(r);
        rig_retry_in(r, 100);
        rig_end(r, first, TASK_BAD);
        ck_assert_waits(first, EQ_REASON_BACKOFF, NULL);
        ck_assert_waits(second, EQ_REASON_BACKOFF, first);
        ck_assert_uint_eq(queue_n_ahead(r->queue, second), 1);
        const Task *next, *by;
        ck_assert_int_eq(queue_head_reason(r->queue, &next, &by), EQ_REASON_BACKOFF);
        ck_assert_ptr_eq(next, first);
}

TEST(reason_is_paused_before_the_pool_and_the_pool_before_the_queue) {
        RIG(r, 4);
        rig_submit(r);
        Task *second = rig_submit(r);
        pool_block(r->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER);
        ck_assert_waits(second, EQ_REASON_SPAWN_FAILED, NULL);
        queue_pause(r->queue);
        ck_assert_waits(second, EQ_REASON_PAUSED, NULL);
}

TEST(a_draining_or_stopping_queue_runs_what_is_pending) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        Task *first = rig_submit(r), *second = rig_submit(r);
        queue_drain(r->queue, &w.waiter);
        ck_assert_waits(second, EQ_REASON_SERIAL, first);
        queue_stop(r->queue);
        ck_assert_waits(second, EQ_REASON_SERIAL, first);
        rig_run_all(r);
        ck_assert_str_eq(r->ends, "1DONE 2DONE");
}

TEST(reason_of_the_queue_is_that_of_the_task_that_comes_next) {
        RIG(r, 0);
        const Task *next, *by;
        ck_assert_int_eq(queue_head_reason(r->queue, &next, &by), EQ_REASON_NONE);
        ck_assert_ptr_null(next);
        Task *held = rig_submit_held(r);
        ck_assert_int_eq(queue_head_reason(r->queue, &next, &by), EQ_REASON_HELD);
        ck_assert_ptr_eq(next, held);
        Task *second = rig_submit(r);
        ck_assert_int_eq(queue_head_reason(r->queue, &next, NULL), EQ_REASON_SLOTS);
        ck_assert_ptr_eq(next, second);
        pool_set_max(r->pool, 1);
        ck_assert_int_eq(queue_head_reason(r->queue, NULL, NULL), EQ_REASON_HELD);
}

/* Control */

TEST(pause_counts_and_resume_says_when_there_is_nothing_to_resume) {
        RIG(r, 4);
        queue_pause(r->queue);
        queue_pause(r->queue);
        ck_assert_str_eq(queue_state_name(r->queue), "paused");
        rig_submit(r);
        ck_assert_int_eq(queue_resume(r->queue), 0);
        ck_assert_str_eq(r->starts, "");
        ck_assert_int_eq(queue_resume(r->queue), 0);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_int_eq(queue_resume(r->queue), 1);
        ck_assert_str_eq(queue_state_name(r->queue), "open");
}

TEST(drain_refuses_until_held_delayed_running_and_reserved_tasks_are_gone_then_reopens) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        uint64_t seq, other;
        Task *running = rig_submit(r), *held = rig_submit_held(r), *delayed = rig_submit_in(r, 10);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), 0);
        queue_drain(r->queue, &w.waiter);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &other), QUEUE_E_DRAINING);
        ck_assert_int_eq(queue_reserve_again(r->queue, 10), QUEUE_E_DRAINING);
        ck_assert_str_eq(queue_state_name(r->queue), "draining");
        rig_end(r, running, TASK_OK);
        queue_cancel(r->queue, held);
        rig_advance(r, 10);
        rig_end(r, delayed, TASK_OK);
        ck_assert_uint_eq(w.n_calls, 0);
        Task *reserved = rig_make(r, seq, TASK_LANE_NORMAL, 10);
        queue_push(r->queue, reserved);
        ck_assert_uint_eq(w.n_calls, 0);
        rig_end(r, reserved, TASK_OK);
        ck_assert_uint_eq(w.n_calls, 1);
        ck_assert_str_eq(queue_state_name(r->queue), "open");
        rig_submit(r);
        ck_assert_uint_eq(r->queue->n_refused, 1);
}

TEST(drain_takes_what_its_own_tasks_make_and_counts_how_often_they_do) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        uint64_t seq;
        rig_set_max_active(r, 4);
        Task *first = rig_submit(r), *second = rig_submit(r);
        queue_drain(r->queue, &w.waiter);
        for (unsigned pass = 1; pass <= 5; pass++) {
                ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), QUEUE_E_DRAINING);
                Task *next[2];
                for (int i = 0; i < 2; i++) { /* both are of the same pass */
                        ck_assert_int_eq(queue_reserve_chained(r->queue, i ? second : first, 1, 10, &seq), 0);
                        next[i] = rig_make(r, seq, TASK_LANE_NORMAL, 10);
                        queue_push(r->queue, next[i]);
                }
                ck_assert_uint_eq(r->queue->n_drain_passes, pass - 1);
                rig_end(r, first, TASK_OK);
                rig_end(r, second, TASK_OK);
                ck_assert_uint_eq(w.n_calls, 0);
                first = next[0];
                second = next[1];
        }
        rig_end(r, first, TASK_OK);
        rig_end(r, second, TASK_OK);
        ck_assert_uint_eq(w.n_calls, 1);
        rig_submit(r);
}

TEST(drain_ends_when_the_last_reservation_is_given_back) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(r->queue, 3, 30, &seq), 0);
        queue_drain(r->queue, &w.waiter);
        queue_unreserve(r->queue, 2, 20);
        ck_assert_uint_eq(w.n_calls, 0);
        queue_unreserve(r->queue, 1, 10);
        ck_assert_uint_eq(w.n_calls, 1);
        ck_assert_uint_eq(r->queue->last_seq, 3); /* the SEQs are burnt */
}

TEST(drain_of_an_empty_queue_ends_at_once) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        queue_drain(r->queue, &w.waiter);
        ck_assert_uint_eq(w.n_calls, 1);
        rig_submit(r);
}

TEST(stop_refuses_for_good_runs_what_is_pending_and_may_be_repeated) {
        RIG(r, 4);
        uint64_t seq;
        rig_submit(r);
        rig_submit(r);
        queue_stop(r->queue);
        queue_stop(r->queue);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), QUEUE_E_STOPPED);
        ck_assert_int_eq(queue_reserve_again(r->queue, 10), QUEUE_E_STOPPED);
        ck_assert_str_eq(queue_state_name(r->queue), "stopping");
        rig_run_all(r);
        ck_assert_str_eq(r->ends, "1DONE 2DONE");
        ck_assert_str_eq(queue_state_name(r->queue), "stopped");
        queue_stop(r->queue);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), QUEUE_E_STOPPED);
}

TEST(join_waits_for_stop_and_the_last_task_and_may_come_before_or_after) {
        RIG(r, 4);
        RigWaiter before = RIG_WAITER, between = RIG_WAITER, after = RIG_WAITER;
        rig_submit(r);
        queue_join(r->queue, &before.waiter);
        rig_run_all(r);
        ck_assert_uint_eq(before.n_calls, 0); /* empty, not stopped */
        rig_submit(r);
        queue_stop(r->queue);
        queue_join(r->queue, &between.waiter);
        ck_assert_uint_eq(before.n_calls + between.n_calls, 0);
        rig_run_all(r);
        ck_assert_uint_eq(before.n_calls, 1);
        ck_assert_uint_eq(between.n_calls, 1);
        queue_join(r->queue, &after.waiter);
        ck_assert_uint_eq(after.n_calls, 1);
}

static void join_frees_queue(QueueWaiter *w) {
        Rig *r = *(Rig **)((RigWaiter *)w + 1);
        r->queue = queue_free(r->queue);
}

TEST(join_may_free_the_queue) {
        RIG(r, 4);
        struct {
                RigWaiter w;
                Rig *r;
        } join = { .w = { .waiter = { .done = join_frees_queue } }, .r = r };
        uint64_t id = r->queue->id;
        rig_submit(r);
        queue_stop(r->queue);
        queue_join(r->queue, &join.w.waiter);
        rig_end(r, r->tasks[0], TASK_OK);
        ck_assert_ptr_null(r->queue);
        ck_assert_ptr_null(engine_queue(&r->engine, id));
}

TEST(join_may_free_the_queue_from_inside_a_synchronous_start) {
        RIG(r, 4);
        struct {
                RigWaiter w;
                Rig *r;
        } join = { .w = { .waiter = { .done = join_frees_queue } }, .r = r };
        queue_pause(r->queue);
        rig_submit(r);
        rig_submit(r);
        queue_stop(r->queue);
        queue_join(r->queue, &join.w.waiter);
        r->synchronous = true;
        queue_resume(r->queue);
        ck_assert_ptr_null(r->queue);
        ck_assert_uint_eq(r->pool->n_runnable, 0);
}

TEST(flush_waits_for_running_pending_held_and_delayed_tasks_but_not_for_later_ones) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        Task *running = rig_submit(r), *held = rig_submit_held(r), *delayed = rig_submit_in(r, 10);
        queue_flush(r->queue, &w.waiter);
        Task *later = rig_submit_urgent(r);
        rig_end(r, running, TASK_OK);
        rig_end(r, later, TASK_OK);
        rig_submit(r);
        rig_advance(r, 10);
        rig_end(r, rig_running(r->queue), TASK_OK);
        ck_assert_uint_eq(w.n_calls, 0);
        rig_end(r, delayed, TASK_OK);
        ck_assert_uint_eq(w.n_calls, 0);
        queue_cancel(r->queue, held);
        ck_assert_uint_eq(w.n_calls, 1);
}

TEST(flush_of_an_empty_queue_ends_at_once) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        queue_flush(r->queue, &w.waiter);
        ck_assert_uint_eq(w.n_calls, 1);
}

TEST(flush_waits_through_retries) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        Task *t = rig_submit(r);
        queue_flush(r->queue, &w.waiter);
        rig_retry_in(r, 100);
        rig_end(r, t, TASK_BAD);
        ck_assert_uint_eq(w.n_calls, 0);
        rig_advance(r, 100);
        rig_end(r, t, TASK_OK);
        ck_assert_uint_eq(w.n_calls, 1);
}

TEST(flush_does_not_wait_for_an_old_task_retried_by_hand_later) {
        RIG(r, 4);
        RigWaiter first = RIG_WAITER, second = RIG_WAITER;
        Task *t = rig_submit(r), *other = rig_submit(r);
        rig_end(r, t, TASK_BAD);
        queue_flush(r->queue, &first.waiter);
        ck_assert_int_eq(queue_reserve_again(r->queue, 10), 0);
        queue_push_again(r->queue, t);
        queue_flush(r->queue, &second.waiter);
        rig_end(r, other, TASK_OK);
        ck_assert_uint_eq(first.n_calls, 1);
        ck_assert_uint_eq(second.n_calls, 0);
        rig_end(r, t, TASK_OK);
        ck_assert_uint_eq(second.n_calls, 1);
}

TEST(flush_waits_for_reserved_tasks_and_not_for_those_given_back) {
        RIG(r, 4);
        RigWaiter before = RIG_WAITER, after = RIG_WAITER, last = RIG_WAITER;
        uint64_t seq, other;
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), 0);
        queue_flush(r->queue, &before.waiter);
        ck_assert_int_eq(queue_reserve(r->queue, 5, 50, &other), 0);
        queue_flush(r->queue, &after.waiter);
        queue_flush(r->queue, &last.waiter);
        queue_unreserve(r->queue, 5, 50);
        ck_assert_uint_eq(before.n_calls + after.n_calls + last.n_calls, 0);
        Task *t = rig_make(r, seq, TASK_LANE_NORMAL, 10);
        queue_push(r->queue, t);
        rig_end(r, t, TASK_OK);
        ck_assert_uint_eq(before.n_calls, 1);
        ck_assert_uint_eq(after.n_calls, 1);
        ck_assert_uint_eq(last.n_calls, 1);
}

TEST(waiters_may_leave_at_any_moment_and_the_others_still_wait_for_theirs) {
        RIG(r, 4);
        RigWaiter w[4] = { RIG_WAITER, RIG_WAITER, RIG_WAITER, RIG_WAITER }, drain = RIG_WAITER, unused = RIG_WAITER;
        queue_waiter_cancel(&unused.waiter);
        for (int i = 0; i < 4; i++) {
                rig_submit(r);
                queue_flush(r->queue, &w[i].waiter);
        }
        queue_drain(r->queue, &drain.waiter);
        queue_waiter_cancel(&w[1].waiter);
        queue_waiter_cancel(&w[1].waiter);
        queue_waiter_cancel(&w[3].waiter);
        queue_waiter_cancel(&drain.waiter);
        queue_cancel(r->queue, r->tasks[2]);
        rig_end(r, r->tasks[0], TASK_OK);
        ck_assert_uint_eq(w[0].n_calls, 1);
        queue_waiter_cancel(&w[0].waiter); /* was called already */
        ck_assert_uint_eq(w[2].n_calls, 0);
        rig_end(r, r->tasks[1], TASK_OK);
        ck_assert_uint_eq(w[2].n_calls, 1);
        rig_run_all(r);
        ck_assert_uint_eq(w[0].n_calls + w[1].n_calls + w[2].n_calls + w[3].n_calls + drain.n_calls, 2);
        ck_assert_str_eq(queue_state_name(r->queue), "open");
}

TEST(waits_that_are_given_up_are_called_and_later_ones_count_anew) {
        RIG(r, 4);
        RigWaiter given_up[] = { RIG_WAITER, RIG_WAITER, RIG_WAITER, RIG_WAITER }, later = RIG_WAITER;
        Task *first = rig_submit(r), *second = rig_submit(r);
        queue_flush(r->queue, &given_up[0].waiter);
        queue_flush(r->queue, &given_up[1].waiter);
        queue_join(r->queue, &given_up[2].waiter);
        queue_drain(r->queue, &given_up[3].waiter);
        queue_give_up_waits(r->queue);
        for (size_t i = 0; i < ELEMENTSOF(given_up); i++) {
                ck_assert_uint_eq(given_up[i].n_calls, 1);
                ck_assert(given_up[i].waiter.given_up);
        }
        queue_flush(r->queue, &later.waiter);
        rig_end(r, first, TASK_OK);
        ck_assert_uint_eq(later.n_calls, 0);
        rig_end(r, second, TASK_OK);
        ck_assert_uint_eq(later.n_calls, 1);
        ck_assert(!later.waiter.given_up);
        ck_assert_str_eq(queue_state_name(r->queue), "open");
        for (size_t i = 0; i < ELEMENTSOF(given_up); i++)
                ck_assert_uint_eq(given_up[i].n_calls, 1);
}

TEST(freeing_a_queue_calls_its_waiters) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        queue_join(r->queue, &w.waiter);
        r->queue = queue_free(r->queue);
        ck_assert_uint_eq(w.n_calls, 1);
}

/* Admission */

TEST(capacity_counts_pending_and_reserved_tasks_and_their_bytes) {
        RIG(r, 4);
        uint64_t seq;
        QueueParams params = { .max_active = 1, .max_tasks = 3, .max_bytes = 100 };
        queue_set_params(r->queue, &params);
        rig_submit(r); /* runs: does not count */
        ck_assert_uint_eq(r->queue->n_bytes, 0);
        rig_submit(r);
        rig_submit_held(r);
        ck_assert_uint_eq(r->queue->n_bytes, 20);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 81, &seq), QUEUE_E_FULL);
        ck_assert_int_eq(queue_reserve(r->queue, 2, 20, &seq), QUEUE_E_FULL);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 80, &seq), 0);
        ck_assert_uint_eq(seq, 4); /* a refused one burns no SEQ */
        ck_assert_int_eq(queue_reserve(r->queue, 1, 0, &seq), QUEUE_E_FULL);
        ck_assert_int_eq(queue_reserve_again(r->queue, 0), QUEUE_E_FULL);
        queue_unreserve(r->queue, 1, 80);
        ck_assert_int_eq(queue_reserve(r->queue, 1, UINT64_MAX, &seq), QUEUE_E_FULL);
        ck_assert_uint_eq(r->queue->n_refused, 5);
}

TEST(the_last_seq_is_followed_by_none) {
        RIG(r, 4);
        uint64_t seq;
        r->queue->last_seq = EQ_SEQ_MAX - 1;
        ck_assert_int_eq(queue_reserve(r->queue, 2, 0, &seq), QUEUE_E_STOPPED);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 0, &seq), 0);
        ck_assert_uint_eq(seq, EQ_SEQ_MAX);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 0, &seq), QUEUE_E_STOPPED);
        queue_unreserve(r->queue, 1, 0);
}

TEST(counters_say_what_was_accepted_how_it_ended_and_what_was_refused) {
        RIG(r, 1);
        uint64_t seq;
        Task *bad = rig_submit(r);
        rig_submit(r);
        ck_assert_int_eq(queue_cancel(r->queue, rig_submit_held(r)), 0);
        rig_end(r, bad, TASK_BAD);
        ck_assert_int_eq(queue_reserve_again(r->queue, 10), 0);
        queue_push_again(r->queue, bad);
        rig_run_all(r);
        ck_assert_uint_eq(r->queue->n_accepted, 3); /* not the retry by hand */
        ck_assert_uint_eq(r->queue->n_done, 2);
        ck_assert_uint_eq(r->queue->n_failed, 2);
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(queue_reserve(r->queue, 100, 0, &seq), -ENOMEM);
        fault_set(FAULT_ALLOC, 0, false);
        queue_stop(r->queue);
        ck_assert_int_eq(queue_reserve(r->queue, 7, 0, &seq), QUEUE_E_STOPPED);
        ck_assert_uint_eq(r->queue->n_refused, 107);
        ck_assert_uint_eq(r->queue->n_bytes + r->queue->n_reserved_bytes, 0);
}

TEST(space_is_told_whenever_room_falls_free) {
        RIG(r, 4);
        uint64_t seq;
        queue_pause(r->queue);
        rig_submit(r);
        rig_submit(r);
        ck_assert_uint_eq(r->n_space, 0);
        queue_resume(r->queue); /* the first starts */
        ck_assert_uint_eq(r->n_space, 1);
        queue_cancel(r->queue, r->tasks[1]);
        ck_assert_uint_eq(r->n_space, 2);
        ck_assert_int_eq(queue_reserve(r->queue, 1, 0, &seq), 0);
        queue_unreserve(r->queue, 1, 0);
        ck_assert_uint_eq(r->n_space, 3);
        QueueParams params = r->queue->params;
        params.max_tasks++;
        queue_set_params(r->queue, &params);
        ck_assert_uint_eq(r->n_space, 4);
}

TEST(the_oldest_is_of_the_normal_lane_eligible_or_not_else_urgent) {
        RIG(r, 0);
        ck_assert_ptr_null(queue_oldest(r->queue));
        Task *urgent = rig_submit_urgent(r);
        ck_assert_ptr_eq(queue_oldest(r->queue), urgent);
        Task *held = rig_submit_held(r), *normal = rig_submit(r);
        ck_assert_ptr_eq(queue_oldest(r->queue), held);
        queue_cancel(r->queue, held);
        ck_assert_ptr_eq(queue_oldest(r->queue), normal);
}

/* Time */

TEST(an_expired_task_never_starts) {
        RIG(r, 4);
        uint64_t seq;
        rig_submit(r);
        ck_assert_int_eq(queue_reserve(r->queue, 2, 20, &seq), 0);
        for (uint64_t i = 0; i < 2; i++) {
                Task *t = rig_make(r, seq + i, TASK_LANE_NORMAL, 10);
                t->wait = i == 0 ? TASK_WAIT_HELD : 0;
                t->expire_usec = engine_now(&r->engine) + 10;
                queue_push(r->queue, t);
        }
        rig_advance(r, 9);
        ck_assert_str_eq(r->ends, "");
        rig_advance(r, 1);
        ck_assert_str_eq(r->ends, "2EXPIRED 3EXPIRED");
        ck_assert_uint_eq(engine_next_usec(&r->engine), USEC_NEVER);
}

TEST(a_task_that_started_once_does_not_expire_in_its_back_off) {
        RIG(r, 4);
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), 0);
        Task *t = rig_make(r, seq, TASK_LANE_NORMAL, 10);
        t->expire_usec = engine_now(&r->engine) + 10;
        queue_push(r->queue, t);
        rig_retry_in(r, 100);
        rig_end(r, t, TASK_BAD);
        rig_advance(r, 50);
        ck_assert_int_eq(t->state, EQ_STATE_WAITING);
        rig_advance(r, 50);
        ck_assert_str_eq(r->starts, "1 1");
}

TEST(attempts_count_starts_and_not_what_was_not_started) {
        RIG(r, 4);
        Task *t = rig_submit(r);
        ck_assert_int_eq(t->attempt, 1);
        rig_end(r, t, TASK_NOT_STARTED);
        ck_assert_int_eq(t->attempt, 0);
        ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
        ck_assert_waits(t, EQ_REASON_CREATE_FAILURE, NULL);
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_int_eq(t->attempt, 1);
}

/* Hooks */

static void do_everything(Rig *r, Task *t) {
        r->in_finished = NULL;
        Task *urgent = rig_submit_urgent(r);
        ck_assert_int_eq(queue_cancel(r->queue, t), -1);
        ck_assert_int_eq(queue_cancel(r->queue, r->tasks[2]), 0);
        ck_assert_int_eq(engine_task_stop(&r->engine, t, 0, 0), -1);
        queue_pause(r->queue);
        rig_submit(r);
        queue_resume(r->queue);
        ck_assert_int_eq(queue_wait_set(r->queue, urgent, TASK_WAIT_HELD), 0);
        queue_stop(r->queue);
}

TEST(a_hook_may_submit_cancel_pause_hold_and_stop) {
        RIG(r, 4);
        RigWaiter w = RIG_WAITER;
        for (int i = 0; i < 4; i++)
                rig_submit(r);
        queue_join(r->queue, &w.waiter);
        r->in_finished = do_everything;
        rig_end(r, r->tasks[0], TASK_OK);
        rig_run_all(r);
        ck_assert_str_eq(r->ends, "1DONE 3CANCELED 2DONE 4DONE 6DONE");
        ck_assert_uint_eq(w.n_calls, 0);
        queue_wait_clear(r->queue, r->tasks[4], TASK_WAIT_HELD);
        rig_run_all(r);
        ck_assert_uint_eq(w.n_calls, 1);
}

static void refill(Rig *r, Queue *q) {
        if (q->last_seq < 10)
                rig_submit(r);
}

TEST(a_waiter_for_space_may_submit_from_the_hook) {
        RIG(r, 1);
        r->synchronous = true;
        r->in_space = refill;
        rig_submit(r);
        ck_assert_str_eq(r->starts, "1 2 3 4 5 6 7 8 9 10");
        ck_assert_uint_eq(r->depth_max, 1);
}

RUN_TESTS("queue", 20, test_tasks_start_in_order_of_seq_one_at_a_time,
          test_the_next_task_starts_before_the_end_of_the_previous_returns,
          test_urgent_tasks_start_before_normal_ones_and_in_order_among_themselves,
          test_a_task_whose_delay_is_over_takes_its_place_by_seq, test_a_released_task_takes_its_place_between_others,
          test_several_that_fall_due_together_start_in_order_of_seq,
          test_a_returned_task_runs_again_before_those_behind_it,
          test_a_finished_task_retried_by_hand_runs_at_its_own_place,
          test_back_off_on_a_serial_queue_blocks_its_lane_and_urgent_tasks_pass,
          test_back_off_on_a_parallel_queue_blocks_nobody, test_a_task_before_one_in_back_off_passes_it,
          test_canceling_the_task_in_back_off_unblocks_the_lane, test_holding_the_task_in_back_off_unblocks_the_lane,
          test_max_active_tasks_run_at_once_and_start_in_order,
          test_max_active_may_be_raised_and_lowered_while_tasks_run,
          test_cancel_of_a_pending_task_says_0_of_a_running_one_1_of_an_ended_one_minus_1,
          test_a_running_task_cannot_be_made_to_wait, test_reason_of_a_waiting_task_is_what_it_waits_for,
          test_reason_is_serial_by_the_running_task, test_reason_is_max_active_on_a_parallel_queue,
          test_reason_of_the_head_is_slots_and_of_those_behind_it_prio,
          test_reason_is_backoff_for_the_task_and_for_those_that_it_blocks,
          test_reason_is_paused_before_the_pool_and_the_pool_before_the_queue,
          test_a_draining_or_stopping_queue_runs_what_is_pending,
          test_reason_of_the_queue_is_that_of_the_task_that_comes_next,
          test_pause_counts_and_resume_says_when_there_is_nothing_to_resume,
          test_drain_refuses_until_held_delayed_running_and_reserved_tasks_are_gone_then_reopens,
          test_drain_takes_what_its_own_tasks_make_and_counts_how_often_they_do,
          test_drain_ends_when_the_last_reservation_is_given_back, test_drain_of_an_empty_queue_ends_at_once,
          test_stop_refuses_for_good_runs_what_is_pending_and_may_be_repeated,
          test_join_waits_for_stop_and_the_last_task_and_may_come_before_or_after, test_join_may_free_the_queue,
          test_join_may_free_the_queue_from_inside_a_synchronous_start,
          test_flush_waits_for_running_pending_held_and_delayed_tasks_but_not_for_later_ones,
          test_flush_of_an_empty_queue_ends_at_once, test_flush_waits_through_retries,
          test_flush_does_not_wait_for_an_old_task_retried_by_hand_later,
          test_flush_waits_for_reserved_tasks_and_not_for_those_given_back,
          test_waiters_may_leave_at_any_moment_and_the_others_still_wait_for_theirs,
          test_waits_that_are_given_up_are_called_and_later_ones_count_anew, test_freeing_a_queue_calls_its_waiters,
          test_capacity_counts_pending_and_reserved_tasks_and_their_bytes, test_the_last_seq_is_followed_by_none,
          test_counters_say_what_was_accepted_how_it_ended_and_what_was_refused,
          test_space_is_told_whenever_room_falls_free,
          test_the_oldest_is_of_the_normal_lane_eligible_or_not_else_urgent, test_an_expired_task_never_starts,
          test_a_task_that_started_once_does_not_expire_in_its_back_off,
          test_attempts_count_starts_and_not_what_was_not_started, test_a_hook_may_submit_cancel_pause_hold_and_stop,
          test_a_waiter_for_space_may_submit_from_the_hook)
