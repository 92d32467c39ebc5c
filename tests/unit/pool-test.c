/* SPDX-License-Identifier: MIT */
#include "engine/pool.h"

#include <errno.h>

#include "base/fault.h"
#include "rig.h"

#define RIG(r, n_slots) _cleanup_(rig_freep) Rig *r = rig_new(n_slots)

static Queue *second_queue(Rig *r, uint64_t max_active) {
        QueueParams params = rig_params;
        params.max_active = max_active;
        Queue *q;
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "second", &params, 0, &q), 0);
        return q;
}

TEST(queues_take_turns_one_task_each) {
        RIG(r, 0);
        Queue *other = second_queue(r, 10);
        rig_set_max_active(r, 10);
        for (int i = 0; i < 3; i++)
                rig_submit(r);
        for (int i = 0; i < 3; i++)
                rig_submit_to(r, other, TASK_LANE_NORMAL, 0, 0);
        pool_set_max(r->pool, 10);
        ck_assert_str_eq(r->starts, "1 1:1 2 1:2 3 1:3");
}

static void feed(Rig *r, Task *t) {
        if (t->queue == r->queue && r->queue->last_seq < 20)
                rig_submit(r);
}

TEST(a_queue_that_is_fed_for_ever_does_not_keep_the_only_slot) {
        RIG(r, 1);
        Queue *other = second_queue(r, 1);
        r->in_finished = feed;
        rig_submit(r);
        rig_submit(r);
        rig_submit_to(r, other, TASK_LANE_NORMAL, 0, 0);
        rig_end(r, r->tasks[0], TASK_OK);
        ck_assert_str_eq(r->starts, "1 1:1");
        rig_end(r, rig_running(other), TASK_OK);
        ck_assert_str_eq(r->starts, "1 1:1 2");
}

TEST(slots_are_made_when_first_needed_and_used_again) {
        RIG(r, 100);
        rig_set_max_active(r, 100);
        ck_assert_uint_eq(r->pool->n_slots, 0);
        for (int i = 0; i < 20; i++) {
                Task *t = rig_submit(r);
                ck_assert_uint_eq(t->slot->index, 0);
                rig_end(r, t, TASK_OK);
        }
        ck_assert_uint_eq(r->pool->n_slots, 1);
        for (int i = 0; i < 20; i++)
                ck_assert_uint_eq(rig_submit(r)->slot->index, (unsigned)i);
        ck_assert_uint_eq(r->pool->n_slots, 20);
}

TEST(a_smaller_pool_starts_nothing_until_slots_fall_free) {
        RIG(r, 3);
        rig_set_max_active(r, 10);
        for (int i = 0; i < 5; i++)
                rig_submit(r);
        pool_set_max(r->pool, 1);
        rig_end(r, r->tasks[0], TASK_OK);
        rig_end(r, r->tasks[1], TASK_OK);
        ck_assert_str_eq(r->starts, "1 2 3");
        rig_end(r, r->tasks[2], TASK_OK);
        ck_assert_str_eq(r->starts, "1 2 3 4");
        pool_set_max(r->pool, 2);
        ck_assert_str_eq(r->starts, "1 2 3 4 5");
}

TEST(a_blocked_pool_starts_nothing_until_its_time_or_until_unblocked) {
        RIG(r, 3);
        pool_block(r->pool, EQ_REASON_PRESSURE, engine_now(&r->engine) + 10);
        ck_assert_uint_eq(r->armed_usec, engine_now(&r->engine) + 10);
        Task *t = rig_submit(r);
        ck_assert_waits(t, EQ_REASON_PRESSURE, NULL);
        rig_advance(r, 10);
        ck_assert_str_eq(r->starts, "1");
        rig_end(r, t, TASK_OK);
        pool_block(r->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER);
        rig_submit(r);
        rig_advance(r, 1000 * USEC_PER_SEC);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_uint_eq(engine_next_usec(&r->engine), USEC_NEVER);
        pool_unblock(r->pool);
        pool_run(r->pool);
        ck_assert_str_eq(r->starts, "1 2");
}

TEST(a_task_that_the_executor_refuses_keeps_its_place_uncounted_and_is_tried_again) {
        RIG(r, 3);
        r->refuse = -EAGAIN;
        Task *first = rig_submit(r), *second = rig_submit(r);
        ck_assert_int_eq(first->state, EQ_STATE_QUEUED);
        ck_assert_int_eq(first->attempt, 0);
        ck_assert_uint_eq(r->n_started_hook, 0);
        ck_assert_uint_eq(r->pool->n_busy, 0);
        ck_assert_waits(second, EQ_REASON_CREATE_FAILURE, NULL);
        r->refuse = 0;
        rig_advance(r, POOL_COOLDOWN_USEC - 1);
        ck_assert_str_eq(r->starts, "");
        rig_advance(r, 1);
        ck_assert_str_eq(r->starts, "1");
}

TEST(what_the_system_refuses_is_told_once_until_it_is_given_again) {
        RIG(r, 3);
        r->refuse = -EAGAIN; /* not now; nothing was refused */
        rig_submit(r);
        ck_assert_str_eq(r->creations, "");
        r->refuse = -EMFILE;
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->creations, "EMFILE ");
        ck_assert_int_eq(r->pool->create_error, -EMFILE);
        r->refuse = 0;
        rig_advance(r, POOL_COOLDOWN_USEC);
        engine_task_ended(&r->engine, r->tasks[0],
                          &(TaskResult) { .verdict = TASK_NOT_STARTED, .error = -EAGAIN }); /* as the spawner says it */
        ck_assert_int_eq(r->pool->create_error, -EAGAIN);
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->creations, "EMFILE ");
        pool_set_create_error(r->pool, 0);
        pool_set_create_error(r->pool, 0);
        ck_assert_str_eq(r->creations, "EMFILE after 2s ");
        pool_set_create_error(r->pool, -EAGAIN);
        ck_assert_str_eq(r->creations, "EMFILE after 2s EAGAIN ");
}

TEST(a_refusal_does_not_shorten_a_longer_block) {
        RIG(r, 3);
        Task *t = rig_submit(r);
        pool_block(r->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER);
        rig_end(r, t, TASK_NOT_STARTED);
        ck_assert_uint_eq(r->pool->blocked_until_usec, USEC_NEVER);
        ck_assert_waits(t, EQ_REASON_SPAWN_FAILED, NULL);
}

TEST(an_executor_that_refuses_and_says_for_how_long_is_believed) {
        RIG(r, 3);
        r->refuse = -EAGAIN;
        r->block_usec = 20;
        Task *t = rig_submit(r);
        ck_assert_waits(t, EQ_REASON_SPAWN_FAILED, NULL);
        ck_assert_uint_eq(engine_next_usec(&r->engine), engine_now(&r->engine) + 20);
        r->refuse = 0;
        rig_advance(r, 19);
        ck_assert_str_eq(r->starts, "");
        rig_advance(r, 1);
        ck_assert_str_eq(r->starts, "1");
        pool_block(r->pool, EQ_REASON_SPAWN_FAILED, engine_now(&r->engine) + 20);
        rig_end(r, t, TASK_NOT_STARTED);
        rig_advance(r, 20);
        ck_assert_str_eq(r->starts, "1 1");
}

TEST(without_memory_for_a_slot_the_pool_waits_and_says_create_failure) {
        RIG(r, 3);
        for (long nth = 1; nth <= 2; nth++) { /* the table of slots, the slot */
                queue_pause(r->queue);
                Task *t = rig_submit(r);
                fault_set(FAULT_ALLOC, nth, false);
                queue_resume(r->queue);
                ck_assert_waits(t, EQ_REASON_CREATE_FAILURE, NULL);
                ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
                queue_cancel(r->queue, t);
                rig_advance(r, POOL_COOLDOWN_USEC);
                free(r->pool->slots);
                r->pool->slots = NULL;
                r->pool->n_slots_cap = 0;
        }
        rig_submit(r);
        ck_assert_str_eq(r->starts, "3");
}

TEST(a_synchronous_executor_does_not_recurse) {
        RIG(r, 1);
        queue_pause(r->queue);
        for (int i = 0; i < 1000; i++)
                rig_submit(r);
        r->synchronous = true;
        queue_resume(r->queue);
        ck_assert_uint_eq(r->queue->n_done, 1000);
        ck_assert_uint_eq(r->n_started_hook, 1000);
        ck_assert_uint_eq(r->depth_max, 1);
}

static Queue *ping_other;
static void ping(Rig *r, Task *t) {
        Queue *to = t->queue == r->queue ? ping_other : r->queue;
        if (to->last_seq < 500)
                rig_submit_to(r, to, TASK_LANE_NORMAL, 0, 0);
}

TEST(two_queues_that_submit_to_each_other_do_not_recurse) {
        RIG(r, 1);
        ping_other = second_queue(r, 1);
        r->synchronous = true;
        r->in_finished = ping;
        rig_submit(r);
        ck_assert_uint_eq(r->queue->n_done, 500);
        ck_assert_uint_eq(r->depth_max, 1);
}

TEST(a_synchronous_executor_that_never_starts_a_task_does_not_spin) {
        RIG(r, 1);
        r->synchronous = true;
        r->verdict = TASK_NOT_STARTED;
        Task *t = rig_submit(r);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
        ck_assert_int_eq(t->attempt, 0);
        ck_assert_uint_eq(r->n_started_hook, 0);
}

TEST(a_remote_pool_without_credit_has_no_worker) {
        RIG(r, 1);
        Pool *remote;
        Queue *q;
        ck_assert_int_eq(pool_new(&r->engine, "remote", POOL_REMOTE, &r->executor, 0, &remote), 0);
        ck_assert_int_eq(queue_new(&r->engine, remote, "remote", &rig_params, 0, &q), 0);
        Task *t = rig_submit_to(r, q, TASK_LANE_NORMAL, 0, 0);
        ck_assert_int_eq(queue_reason(q, t, NULL), EQ_REASON_NO_WORKER);
}

static Pool *second_pool(Rig *r, size_t n_slots) {
        Pool *p;
        ck_assert_int_eq(pool_new(&r->engine, "other", POOL_COMMAND, &r->executor, n_slots, &p), 0);
        return p;
}

TEST(slots_of_two_pools_of_a_kind_never_have_the_same_index) {
        RIG(r, 2);
        Pool *other = second_pool(r, 2);
        Queue *q = second_queue(r, 2);
        queue_set_pool(q, other);
        rig_set_max_active(r, 2);
        bool seen[4] = { false };
        for (int i = 0; i < 4; i++) {
                const Task *t = i % 2 ? rig_submit(r) : rig_submit_to(r, q, TASK_LANE_NORMAL, 0, 0);
                ck_assert_uint_lt(t->slot->index, 4);
                ck_assert(!seen[t->slot->index]);
                seen[t->slot->index] = true;
        }
        Pool *remote;
        Queue *served;
        ck_assert_int_eq(pool_new(&r->engine, "remote", POOL_REMOTE, &r->executor, 1, &remote), 0);
        ck_assert_int_eq(queue_new(&r->engine, remote, "remote", &rig_params, 0, &served), 0);
        ck_assert_uint_eq(rig_submit_to(r, served, TASK_LANE_NORMAL, 0, 0)->slot->index, 0); /* counted by kind */
}

TEST(slots_above_a_smaller_maximum_are_given_back_once_they_are_free) {
        RIG(r, 3);
        rig_set_max_active(r, 3);
        Task *t[3];
        for (int i = 0; i < 3; i++)
                t[i] = rig_submit(r);
        pool_set_max(r->pool, 1);
        ck_assert_uint_eq(r->pool->n_slots, 3); /* nothing is taken from a task that runs */
        rig_end(r, t[1], TASK_OK);
        ck_assert_uint_eq(r->pool->n_slots, 2);
        rig_end(r, t[0], TASK_OK);
        ck_assert_uint_eq(r->pool->n_slots, 1);
        rig_end(r, t[2], TASK_OK);
        ck_assert_uint_eq(r->pool->n_slots, 1);
        Pool *other = second_pool(r, 2);
        queue_set_pool(r->queue, other);
        for (int i = 0; i < 2; i++) /* what the first pool gave back */
                ck_assert_uint_lt(rig_submit(r)->slot->index, 3);
}

TEST(without_memory_for_the_number_of_a_slot_there_is_none) {
        RIG(r, 1);
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(r->queue, 1, 10, &seq), 0);
        Task *t = rig_make(r, seq, TASK_LANE_NORMAL, 10);
        fault_set(FAULT_ALLOC, 3, false); /* the array of slots, the slot, its number */
        queue_push(r->queue, t);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
        ck_assert_int_eq(queue_reason(r->queue, t, NULL), EQ_REASON_CREATE_FAILURE);
        ck_assert_uint_eq(r->pool->n_create_failures, 1);
        rig_advance(r, POOL_COOLDOWN_USEC);
        ck_assert_str_eq(r->starts, "1");
        ck_assert_uint_eq(r->pool->n_started, 1);
}

TEST(a_queue_that_moves_starts_in_its_new_pool_and_what_runs_ends_in_the_old_one) {
        RIG(r, 1);
        Pool *other = second_pool(r, 5);
        rig_set_max_active(r, 2);
        Task *a = rig_submit(r), *b = rig_submit(r), *c = rig_submit(r);
        ck_assert_int_eq(queue_reason(r->queue, b, NULL), EQ_REASON_SLOTS);
        queue_set_pool(r->queue, other);
        ck_assert_str_eq(r->starts, "1 2"); /* max_active counts what still runs in the old pool */
        ck_assert_ptr_eq(a->slot->pool, r->pool);
        ck_assert_ptr_eq(b->slot->pool, other);
        ck_assert_uint_eq(r->pool->n_queues, 0);
        ck_assert_uint_eq(other->n_queues, 1);
        rig_end(r, a, TASK_OK);
        ck_assert_str_eq(r->starts, "1 2 3");
        ck_assert_ptr_eq(c->slot->pool, other);
        ck_assert_uint_eq(r->pool->n_busy, 0);
        ck_assert_uint_eq(r->n_idle, 1);
        queue_set_pool(r->queue, r->pool);
        queue_set_pool(r->queue, r->pool); /* nothing to do */
        ck_assert_uint_eq(r->pool->n_queues, 1);
}

TEST(a_serial_queue_keeps_its_order_while_it_moves_to_and_fro) {
        RIG(r, 1);
        Pool *other = second_pool(r, 1);
        queue_pause(r->queue);
        for (int i = 0; i < 6; i++)
                rig_submit(r);
        queue_set_pool(r->queue, other);
        queue_resume(r->queue);
        for (int i = 0; i < 6; i++) {
                queue_set_pool(r->queue, i % 2 ? r->pool : other);
                rig_end(r, rig_running(r->queue), TASK_OK);
        }
        ck_assert_str_eq(r->starts, "1 2 3 4 5 6");
        ck_assert_uint_eq(r->pool->n_started + other->n_started, 6);
        ck_assert_uint_gt(r->pool->n_started, 0);
}

TEST(the_slot_that_a_queue_leaves_behind_goes_to_the_next_queue_of_the_old_pool) {
        RIG(r, 1);
        Pool *other = second_pool(r, 1);
        Queue *q = second_queue(r, 1);
        Task *a = rig_submit(r);
        rig_submit_to(r, q, TASK_LANE_NORMAL, 0, 0);
        queue_set_pool(r->queue, other);
        ck_assert_str_eq(r->starts, "1");
        rig_end(r, a, TASK_OK);
        ck_assert_str_eq(r->starts, "1 1:1");
}

RUN_TESTS("pool", 20, test_queues_take_turns_one_task_each,
          test_a_queue_that_is_fed_for_ever_does_not_keep_the_only_slot,
          test_slots_are_made_when_first_needed_and_used_again,
          test_a_smaller_pool_starts_nothing_until_slots_fall_free,
          test_a_blocked_pool_starts_nothing_until_its_time_or_until_unblocked,
          test_what_the_system_refuses_is_told_once_until_it_is_given_again,
          test_a_task_that_the_executor_refuses_keeps_its_place_uncounted_and_is_tried_again,
          test_a_refusal_does_not_shorten_a_longer_block,
          test_an_executor_that_refuses_and_says_for_how_long_is_believed,
          test_without_memory_for_a_slot_the_pool_waits_and_says_create_failure,
          test_a_synchronous_executor_does_not_recurse, test_two_queues_that_submit_to_each_other_do_not_recurse,
          test_a_synchronous_executor_that_never_starts_a_task_does_not_spin,
          test_a_remote_pool_without_credit_has_no_worker, test_slots_of_two_pools_of_a_kind_never_have_the_same_index,
          test_slots_above_a_smaller_maximum_are_given_back_once_they_are_free,
          test_without_memory_for_the_number_of_a_slot_there_is_none,
          test_a_queue_that_moves_starts_in_its_new_pool_and_what_runs_ends_in_the_old_one,
          test_a_serial_queue_keeps_its_order_while_it_moves_to_and_fro,
          test_the_slot_that_a_queue_leaves_behind_goes_to_the_next_queue_of_the_old_pool)
