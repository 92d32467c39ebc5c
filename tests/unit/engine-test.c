/* SPDX-License-Identifier: MIT */
#include "engine/engine.h"

#include <errno.h>

#include "rig.h"

#define RIG(r, n_slots) _cleanup_(rig_freep) Rig *r = rig_new(n_slots)

static Queue *make_queue(Rig *r) {
        Queue *q;
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "other", &rig_params, 0, &q), 0);
        return q;
}

/* Ids */

TEST(a_stale_id_gives_no_queue_although_its_slot_is_in_use) {
        RIG(r, 1);
        uint64_t ids[100];
        ck_assert_ptr_null(engine_queue(&r->engine, 0));
        ck_assert_ptr_null(engine_queue(&r->engine, UINT64_MAX));
        for (size_t i = 0; i < 100; i++) {
                Queue *q = make_queue(r);
                ids[i] = q->id;
                ck_assert_ptr_eq(engine_queue(&r->engine, q->id), q);
                queue_free(q);
        }
        Queue *q = make_queue(r);
        for (size_t i = 0; i < 100; i++) {
                ck_assert_uint_ne(ids[i], q->id);
                ck_assert_ptr_null(engine_queue(&r->engine, ids[i]));
        }
        ck_assert_uint_eq(q->id >> ENGINE_SLOT_BITS, 101);
}

TEST(a_seeded_generation_is_not_given_again) {
        RIG(r, 1);
        uint64_t last = UINT64_C(77) << ENGINE_SLOT_BITS | 1, far = UINT64_C(5) << ENGINE_SLOT_BITS | 3000;
        ck_assert_int_eq(engine_seed_generation(&r->engine, last), 0);
        Queue *q = make_queue(r);
        ck_assert_uint_eq(q->id, UINT64_C(78) << ENGINE_SLOT_BITS | 1);
        ck_assert_int_eq(engine_seed_generation(&r->engine, far), 0);
        ck_assert_ptr_null(engine_queue(&r->engine, far));
        ck_assert_ptr_eq(engine_queue(&r->engine, q->id), q);
        ck_assert_int_eq(engine_seed_generation(&r->engine, last), 0); /* older than what is there */
        ck_assert_int_eq(engine_seed_generation(&r->engine, q->id + (UINT64_C(1) << ENGINE_SLOT_BITS)), -EBUSY);
        ck_assert_int_eq(engine_seed_generation(&r->engine, 7), -EINVAL);
        ck_assert_int_eq(engine_seed_generation(&r->engine, UINT64_MAX), -EINVAL);
}

TEST(a_restored_queue_has_its_old_id_and_nobody_else_gets_it) {
        RIG(r, 1);
        Queue *q, *again;
        uint64_t id = UINT64_C(7) << ENGINE_SLOT_BITS | 2, far = UINT64_C(1) << ENGINE_SLOT_BITS | 3000;
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "old", &rig_params, id, 41, &q), 0);
        ck_assert_uint_eq(q->id, id);
        ck_assert_ptr_eq(engine_queue(&r->engine, id), q);
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "old", &rig_params, id, 41, &again), -EBUSY);
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "old", &rig_params, 7, 41, &again), -EINVAL);
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "old", &rig_params, 0, 41, &again), -EINVAL);
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(q, 1, 0, &seq), 0);
        ck_assert_uint_eq(seq, 42);
        queue_unreserve(q, 1, 0);

        Queue *others[20];
        for (size_t i = 0; i < 20; i++) { /* slots on both sides of the restored ones */
                others[i] = make_queue(r);
                ck_assert_uint_ne(others[i]->id & ENGINE_QUEUES_MAX, 2);
                ck_assert_ptr_eq(engine_queue(&r->engine, others[i]->id), others[i]);
        }
        queue_free(q); /* its slot stood in the list of free ones all the time, or not any more: it is given once */
        Queue *first = make_queue(r), *second = make_queue(r);
        ck_assert_uint_eq(first->id, UINT64_C(8) << ENGINE_SLOT_BITS | 2);
        ck_assert_uint_ne(second->id & ENGINE_QUEUES_MAX, 2);
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "far", &rig_params, far, 0, &again), 0);
        ck_assert_ptr_eq(engine_queue(&r->engine, far), again);
}

TEST(a_restored_queue_that_goes_at_once_gives_its_slot_back_once) {
        RIG(r, 1);
        Queue *q;
        uint64_t id = UINT64_C(7) << ENGINE_SLOT_BITS | 2;
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "old", &rig_params, id, 0, &q), 0);
        queue_free(q);
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "old", &rig_params, id, 0, &q), -EBUSY);
        bool seen = false;
        for (size_t i = 0; i < 20; i++) {
                bool it = (make_queue(r)->id & ENGINE_QUEUES_MAX) == 2;
                ck_assert(!it || !seen);
                seen = seen || it;
        }
        ck_assert(seen);
}

TEST(a_restored_task_takes_its_old_place_even_in_a_full_queue) {
        RIG(r, 1);
        Queue *q;
        QueueParams params = { .max_active = 1, .max_tasks = 1, .max_bytes = 10 };
        ck_assert_int_eq(queue_restore(&r->engine, r->pool, "old", &params, UINT64_C(1) << ENGINE_SLOT_BITS | 9, 5, &q),
                         0);
        pool_block(r->pool, EQ_REASON_DRAINING, USEC_NEVER);
        Task *t[5];
        for (uint64_t i = 5; i-- > 0;) { /* in any order */
                t[i] = rig_make(r, i + 1, TASK_LANE_NORMAL, 100);
                t[i]->attempt = (uint16_t)i;
                ck_assert_int_eq(queue_restore_task(q, t[i]), 0);
        }
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(q, 1, 0, &seq), QUEUE_E_FULL);
        ck_assert_uint_eq(q->n_accepted, 0);
        pool_unblock(r->pool);
        pool_run(r->pool);
        for (size_t i = 0; i < 5; i++) {
                ck_assert_int_eq(t[i]->state, EQ_STATE_RUNNING);
                ck_assert_uint_eq(t[i]->attempt, i + 1);
                rig_end(r, t[i], TASK_OK);
        }
        ck_assert_int_eq(queue_reserve(q, 1, 0, &seq), 0);
        ck_assert_uint_eq(seq, 6);
        queue_unreserve(q, 1, 0);
}

TEST(a_slot_whose_generations_are_used_up_is_left_empty) {
        RIG(r, 1);
        uint64_t last = UINT64_C(1) << 53;
        ck_assert_int_eq(engine_seed_generation(&r->engine, (last - (1 << ENGINE_SLOT_BITS)) | 1), 0);
        Queue *q = make_queue(r);
        ck_assert_uint_eq(q->id & ENGINE_QUEUES_MAX, 2);
        ck_assert_uint_lt(q->id, last);
}

TEST(as_many_queues_as_ids_and_then_a_clean_error) {
        RIG(r, 1);
        Queue dummy = { .name = "dummy" };
        for (size_t i = r->engine.n_queues; i < ENGINE_QUEUES_MAX; i++)
                ck_assert_int_eq(engine_add_queue(&r->engine, &dummy), 0);
        Queue *q;
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "more", &rig_params, 0, &q), -ENOSPC);
        for (size_t i = 1; i < ENGINE_QUEUES_MAX; i++)
                r->engine.slots[i].queue = NULL;
}

/* Time */

TEST(the_host_is_told_when_the_next_time_is_earlier_and_only_then) {
        RIG(r, 1);
        uint64_t now = engine_now(&r->engine);
        rig_submit_in(r, 100);
        ck_assert_uint_eq(r->armed_usec, now + 100);
        rig_submit_in(r, 200);
        ck_assert_uint_eq(r->n_rearm, 1);
        rig_submit_in(r, 50);
        ck_assert_uint_eq(r->n_rearm, 2);
        ck_assert_uint_eq(r->armed_usec, now + 50);
        fake_clock_advance(&r->clock, 50);
        ck_assert_uint_eq(engine_run_due(&r->engine), now + 100);
        ck_assert_uint_eq(r->n_rearm, 2);
        queue_cancel(r->queue, r->tasks[0]);
        ck_assert_uint_eq(engine_next_usec(&r->engine), now + 200);
}

TEST(a_task_with_delay_and_expiry_ends_by_what_comes_first) {
        RIG(r, 1);
        uint64_t seq, now = engine_now(&r->engine);
        ck_assert_int_eq(queue_reserve(r->queue, 2, 0, &seq), 0);
        for (uint64_t i = 0; i < 2; i++) {
                Task *t = rig_make(r, seq + i, TASK_LANE_NORMAL, 0);
                t->wait = TASK_WAIT_AT;
                t->due_usec = now + 20;
                t->expire_usec = now + (i == 0 ? 10 : 30);
                queue_push(r->queue, t);
        }
        rig_advance(r, 10);
        ck_assert_str_eq(r->ends, "1EXPIRED");
        rig_advance(r, 10);
        ck_assert_str_eq(r->starts, "2");
        rig_advance(r, 100);
        ck_assert_str_eq(r->ends, "1EXPIRED");
}

/* The end of attempts */

TEST(each_fate_that_the_host_decides_gives_its_state) {
        static const struct {
                TaskVerdict verdict;
                TaskEvent fate;
                eq_state state;
        } rows[] = {
                { TASK_OK, TASK_EV_FAIL /* not asked */, EQ_STATE_DONE },
                { TASK_BAD, TASK_EV_FAIL, EQ_STATE_FAILED },
                { TASK_TIMED_OUT, TASK_EV_TIME_OUT, EQ_STATE_TIMEOUT },
                { TASK_CRASHED, TASK_EV_GIVE_UP, EQ_STATE_DEAD },
                { TASK_STOPPED, TASK_EV_CANCEL, EQ_STATE_CANCELED },
        };
        RIG(r, 1);
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                Task *t = rig_submit(r);
                r->fate.event = rows[i].fate;
                rig_end(r, t, rows[i].verdict);
                ck_assert_str_eq(eq_state_name(t->state), eq_state_name(rows[i].state));
                ck_assert_ptr_null(t->slot);
        }
        ck_assert_uint_eq(r->queue->n_done, 1);
        ck_assert_uint_eq(r->queue->n_failed, 4);
}

TEST(stop_of_a_running_task_goes_through_its_executor) {
        RIG(r, 1);
        Task *t = rig_submit(r), *pending = rig_submit(r);
        ck_assert_int_eq(engine_task_stop(&r->engine, pending, 0, 0), -1);
        ck_assert_int_eq(engine_task_stop(&r->engine, t, 0, 0), 0);
        ck_assert_int_eq(engine_task_stop(&r->engine, t, 9, 0), 0); /* may be repeated */
        ck_assert(t->canceling);
        ck_assert_uint_eq(r->n_cancels, 2);
        r->fate.event = TASK_EV_CANCEL;
        r->stops_at_once = true;
        ck_assert_int_eq(engine_task_stop(&r->engine, t, 9, 0), 0);
        ck_assert_str_eq(r->ends, "1CANCELED");
        ck_assert_int_eq(engine_task_stop(&r->engine, t, 9, 0), -1);
}

TEST(a_task_that_could_not_start_after_its_stop_was_asked_for_does_not_run_again) {
        RIG(r, 1);
        Task *t = rig_submit(r);
        ck_assert_int_eq(engine_task_stop(&r->engine, t, 0, 0), 0);
        r->fate.event = TASK_EV_CANCEL;
        rig_end(r, t, TASK_NOT_STARTED);
        ck_assert_str_eq(r->ends, "1CANCELED");
        ck_assert_int_eq(t->attempt, 0);
}

static void stop_it(Rig *r, Task *t) {
        int expected = r->synchronous ? -1 : 0;
        ck_assert_int_eq(engine_task_stop(&r->engine, t, 0, 0), expected);
}

TEST(a_task_may_be_stopped_from_the_hook_that_says_it_started) {
        RIG(r, 1);
        r->in_started = stop_it;
        r->stops_at_once = true;
        r->fate.event = TASK_EV_CANCEL;
        rig_submit(r);
        rig_submit(r);
        ck_assert_str_eq(r->ends, "1CANCELED 2CANCELED");
        r->synchronous = true; /* it has ended by then */
        rig_submit(r);
        ck_assert_str_eq(r->ends, "1CANCELED 2CANCELED 3DONE");
}

/* Memory */

TEST(every_failed_allocation_is_a_clean_error) {
        static FakeClock clock;
        static Executor executor = { .ops = &rig_executor_ops };
        static const EngineHooks no_hooks = { 0 };
        fake_clock_init(&clock, 1, 1);
        bool done = false;
        for (long nth = 1; !done; nth++) {
                Engine e;
                Pool *p = NULL;
                Queue *q = NULL;
                uint64_t seq;
                fault_set(FAULT_ALLOC, nth, false);
                int r = engine_init(&e, &clock.clock, &no_hooks, NULL);
                if (r == 0)
                        r = pool_new(&e, "p", POOL_COMMAND, &executor, 1, &p);
                if (r == 0)
                        r = queue_new(&e, p, "q", &rig_params, 0, &q);
                if (r == 0)
                        r = queue_reserve(q, 1000, 0, &seq);
                if (r == 0) {
                        queue_unreserve(q, 1000, 0);
                        r = engine_seed_generation(&e, UINT64_C(1) << ENGINE_SLOT_BITS | 5000);
                }
                done = r == 0;
                ck_assert(done || r == -ENOMEM);
                if (q)
                        ck_assert(queue_is_empty(q));
                fault_set(FAULT_ALLOC, 0, false);
                engine_deinit(&e);
                ck_assert_int_lt(nth, 20);
        }
}

TEST(an_admitted_task_gets_through_its_life_without_memory) {
        RIG(r, 1);
        uint64_t seq;
        rig_end(r, rig_submit(r), TASK_OK); /* the slot is there */
        ck_assert_int_eq(queue_reserve(r->queue, 2000, 0, &seq), 0);
        Task *tasks[2000];
        for (uint64_t i = 0; i < 2000; i++)
                tasks[i] = rig_make(r, seq + i, i % 3 ? TASK_LANE_NORMAL : TASK_LANE_URGENT, 0);
        fault_set(FAULT_ALLOC, 1, true);
        for (size_t i = 0; i < 2000; i++) {
                tasks[i]->wait = TASK_WAIT_AT;
                tasks[i]->due_usec = engine_now(&r->engine) + (i * 7919) % 2000;
                tasks[i]->expire_usec = engine_now(&r->engine) + 10000;
                queue_push(r->queue, tasks[i]);
        }
        for (size_t i = 0; i < 1000; i++)
                queue_cancel(r->queue, tasks[i * 2]);
        for (size_t i = 0; i < 1000; i++)
                queue_wait_clear(r->queue, tasks[i * 2 + 1], TASK_WAIT_AT);
        for (size_t i = 0; i < 1000; i++)
                if (tasks[i * 2 + 1]->where != TASK_IN_RUNNING)
                        ck_assert_int_eq(queue_wait_set(r->queue, tasks[i * 2 + 1], TASK_WAIT_AT), 0);
        rig_advance(r, 2000);
        rig_run_all(r);
        ck_assert_uint_eq(r->queue->n_done, 1001);
        ck_assert(queue_is_empty(r->queue));
        fault_set(FAULT_ALLOC, 0, false);
}

/* n tasks that run, and n more whose times fill the heap. */
static void run_and_delay(Rig *r, Task **ret_running, Task **ret_delayed, size_t n) {
        rig_set_max_active(r, n);
        for (size_t i = 0; i < n; i++)
                ret_running[i] = rig_submit(r);
        ck_assert_uint_eq(r->queue->n_running, n);
        for (size_t i = 0; i < n; i++)
                ret_delayed[i] = rig_submit_in(r, 5000);
}

TEST(an_accepted_task_needs_no_memory_to_wait_for_its_next_attempt) {
        enum { N = 2000 }; /* heaps give back from 1024 on */
        static Task *running[N], *delayed[N];
        RIG(r, N);
        run_and_delay(r, running, delayed, N);
        fault_set(FAULT_ALLOC, 1, true);
        queue_pause(r->queue);
        r->fate.event = TASK_EV_RETURN;
        for (size_t i = 0; i < N; i += 2) /* put back from their slots, while others leave */
                rig_end(r, running[i], TASK_CRASHED);
        for (size_t i = 0; i < N; i++)
                ck_assert_int_eq(queue_cancel(r->queue, delayed[i]), 0);
        ck_assert_int_eq(queue_resume(r->queue), 0);
        ck_assert_uint_eq(r->queue->n_running, N);
        rig_retry_in(r, 100);
        for (size_t i = 0; i < N; i++) {
                rig_end(r, running[i], TASK_BAD);
                ck_assert_int_eq(running[i]->state, EQ_STATE_WAITING);
        }
        ck_assert_uint_eq(engine_next_usec(&r->engine), r->fate.due_usec);
        rig_advance(r, 100);
        ck_assert_uint_eq(r->queue->n_running, N);
        rig_run_all(r);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_uint_eq(r->queue->n_done, N);
        for (size_t i = 0; i < N; i++)
                ck_assert_int_eq(running[i]->attempt, i % 2 == 0 ? 3 : 2);
}

TEST(memory_of_a_burst_is_given_back) {
        RIG(r, 1);
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(r->queue, 1000000, 0, &seq), 0);
        ck_assert_uint_ge(r->engine.due.cap, 1000000);
        for (int i = 0; i < 1000000; i++)
                queue_unreserve(r->queue, 1, 0);
        ck_assert_uint_le(r->engine.due.cap, 1024);
}

/* ---- starts that are to be cleared ---- */

static void begin_clearing(Rig *r) {
        rig_set_max_active(r, 2);
        queue_set_clears(r->queue, true);
        r->clear = 1;
}

TEST(a_start_that_is_to_be_cleared_has_its_slot_and_begins_when_it_is) {
        RIG(r, 2);
        begin_clearing(r);
        Task *one = rig_submit(r), *two = rig_submit(r), *three = rig_submit(r);
        ck_assert_str_eq(r->starts, "");
        ck_assert_uint_eq(r->n_started_hook, 0);
        ck_assert_int_eq(one->state, EQ_STATE_RUNNING);
        ck_assert_uint_eq(r->pool->n_busy, 2);
        ck_assert_waits(three, EQ_REASON_MAX_ACTIVE, NULL);
        engine_task_cleared(&r->engine, two);
        ck_assert_str_eq(r->starts, "2");
        ck_assert_uint_eq(r->n_started_hook, 1);
        engine_task_cleared(&r->engine, one);
        rig_end(r, two, TASK_OK);
        ck_assert_int_eq(three->state, EQ_STATE_RUNNING);
        r->clear = 0; /* from now on nothing has to wait */
        rig_end(r, one, TASK_OK);
        (void)rig_submit(r);
        ck_assert_str_eq(r->starts, "2 1 4");
        engine_task_cleared(&r->engine, three);
}

TEST(a_start_that_was_not_cleared_is_none) {
        RIG(r, 2);
        begin_clearing(r);
        Task *back = rig_submit(r), *canceled = rig_submit(r);
        engine_hold(&r->engine);
        engine_task_uncleared(&r->engine, back);
        ck_assert_int_eq(back->state, EQ_STATE_QUEUED);
        ck_assert_int_eq(back->attempt, 0);
        ck_assert_uint_eq(r->n_not_started, 1);
        ck_assert(!pool_is_blocked(r->pool));
        r->fate.event = TASK_EV_CANCEL;
        ck_assert_int_eq(engine_task_stop(&r->engine, canceled, 0, USEC_NEVER), 0);
        ck_assert_uint_eq(r->n_cancels, 0); /* its executor does not have it */
        ck_assert_str_eq(r->ends, "2CANCELED");
        ck_assert_uint_eq(r->pool->n_busy, 0);
        engine_unhold(&r->engine);
        ck_assert_int_eq(back->attempt, 1);
        pool_block(r->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER);
        engine_task_cleared(&r->engine, back); /* too late */
        ck_assert_int_eq(back->state, EQ_STATE_QUEUED);
        ck_assert_uint_eq(r->n_not_started, 2);
        pool_unblock(r->pool);
        pool_run(r->pool);
        r->refuse = -EAGAIN;
        engine_task_cleared(&r->engine, back);
        ck_assert_int_eq(back->state, EQ_STATE_QUEUED);
        ck_assert_uint_eq(r->n_not_started, 3);
        ck_assert(pool_is_blocked(r->pool)); /* that was the executor */
        ck_assert_str_eq(r->starts, "");
        ck_assert_uint_eq(r->n_started_hook, 0);
}

TEST(a_queue_that_is_blocked_starts_nothing_and_leaves_its_pool_to_others) {
        RIG(r, 1);
        Queue *other;
        ck_assert_int_eq(queue_new(&r->engine, r->pool, "other", &rig_params, 0, &other), 0);
        queue_set_clears(r->queue, true);
        queue_set_blocked(r->queue, EQ_REASON_PERSIST);
        Task *t = rig_submit(r);
        ck_assert_waits(t, EQ_REASON_PERSIST, NULL);
        Task *o = rig_submit_to(r, other, TASK_LANE_NORMAL, 0, 0);
        ck_assert_int_eq(o->state, EQ_STATE_RUNNING);
        rig_end(r, o, TASK_OK);
        queue_set_blocked(r->queue, EQ_REASON_NONE);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
}

RUN_TESTS("engine", 60, test_a_stale_id_gives_no_queue_although_its_slot_is_in_use,
          test_a_seeded_generation_is_not_given_again, test_a_restored_queue_has_its_old_id_and_nobody_else_gets_it,
          test_a_restored_queue_that_goes_at_once_gives_its_slot_back_once,
          test_a_restored_task_takes_its_old_place_even_in_a_full_queue,
          test_a_slot_whose_generations_are_used_up_is_left_empty, test_as_many_queues_as_ids_and_then_a_clean_error,
          test_the_host_is_told_when_the_next_time_is_earlier_and_only_then,
          test_a_task_with_delay_and_expiry_ends_by_what_comes_first,
          test_each_fate_that_the_host_decides_gives_its_state, test_stop_of_a_running_task_goes_through_its_executor,
          test_a_task_that_could_not_start_after_its_stop_was_asked_for_does_not_run_again,
          test_a_task_may_be_stopped_from_the_hook_that_says_it_started, test_every_failed_allocation_is_a_clean_error,
          test_an_admitted_task_gets_through_its_life_without_memory,
          test_an_accepted_task_needs_no_memory_to_wait_for_its_next_attempt, test_memory_of_a_burst_is_given_back,
          test_a_start_that_is_to_be_cleared_has_its_slot_and_begins_when_it_is,
          test_a_start_that_was_not_cleared_is_none,
          test_a_queue_that_is_blocked_starts_nothing_and_leaves_its_pool_to_others)
