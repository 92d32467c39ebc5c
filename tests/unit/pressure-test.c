/* SPDX-License-Identifier: MIT */
/* What a manager does while memory is short, on a clock of the test. */

#include "manager/pressure.h"

#include "manager-host.h"

static const char *const rejects[] = { "on_pressure=reject", NULL };

TEST(pressure_is_over_when_nothing_was_told_for_the_hold) {
        Host h;
        host_init(&h);
        ck_assert(!manager_is_pressed(h.m));
        manager_take_pressure(h.m, "test");
        ck_assert(manager_is_pressed(h.m));
        host_advance(&h, USEC_PER_SEC);
        manager_take_pressure(h.m, "test"); /* again: the hold begins anew */
        host_advance(&h, 2 * USEC_PER_SEC - 1);
        ck_assert(manager_is_pressed(h.m));
        host_advance(&h, 1);
        ck_assert(!manager_is_pressed(h.m));
        ck_assert_uint_eq(h.m->pressure.n_episodes, 1);
        ck_assert_uint_eq(h.m->pressure.n_events, 2);
        manager_take_pressure(h.m, "test");
        ck_assert_uint_eq(h.m->pressure.n_episodes, 2);
        host_done(&h);
}

TEST(T_PSI_a_queue_that_rejects_takes_tasks_again_after_the_hold) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "careful", rejects);
        (void)host_task(&h, "careful", (EqSubmit) { 0 });
        manager_take_pressure(h.m, "test");
        host_advance(&h, 500 * USEC_PER_MSEC);
        ck_assert_int_eq(host_submit(&h, anna(&h), "careful", (EqSubmit) { 0 }, &t), -EAGAIN);
        ck_assert_int_eq(h.refusal.code, EQ_E_PRESSURE);
        ck_assert_ptr_nonnull(strstr(h.refusal.text, "try again in 1.5 s"));
        ck_assert_uint_eq(q->queue->n_refused, 1);
        (void)host_task(&h, "default", (EqSubmit) { 0 }); /* others do not care */
        host_advance(&h, 1500 * USEC_PER_MSEC);
        (void)host_task(&h, "careful", (EqSubmit) { 0 });
        host_done(&h);
}

TEST(waiting_processes_are_given_back_and_made_again_after_it) {
        Host h;
        uint64_t waits;
        host_init(&h);
        ck_assert_uint_eq(h.m->commands->stock, 2);
        manager_take_pressure(h.m, "test");
        ck_assert_uint_eq(h.m->commands->stock, 0);
        ck_assert_int_eq(manager_reload(h.m, &waits, &h.refusal), 0);
        ck_assert_uint_eq(h.m->commands->stock, 0);
        host_advance(&h, 2 * USEC_PER_SEC);
        ck_assert_uint_eq(h.m->commands->stock, 2);
        host_done(&h);
}

TEST(an_episode_has_one_begin_and_one_end_however_often_it_is_told) {
        Host h;
        host_init(&h);
        h.m->want_events = true;
        for (int i = 0; i < 1000; i++)
                manager_take_pressure(h.m, "test");
        ck_assert_uint_eq(h.n_events, 1);
        host_advance(&h, 2 * USEC_PER_SEC);
        ck_assert_uint_eq(h.n_events, 2);
        host_done(&h);
}

TEST(who_tells_all_the_time_is_acted_on_now_and_then) {
        Host h;
        host_init(&h);
        manager_take_pressure(h.m, "test");
        uint64_t acted = h.m->pressure.acted_usec, trimmed = h.m->pressure.trimmed_usec;
        host_advance(&h, 99 * USEC_PER_MSEC);
        manager_take_pressure(h.m, "test");
        ck_assert_uint_eq(h.m->pressure.acted_usec, acted);
        host_advance(&h, USEC_PER_MSEC);
        manager_take_pressure(h.m, "test");
        ck_assert_uint_eq(h.m->pressure.acted_usec, acted + 100 * USEC_PER_MSEC);
        ck_assert_uint_eq(h.m->pressure.trimmed_usec, trimmed);
        host_advance(&h, 9900 * USEC_PER_MSEC);
        manager_take_pressure(h.m, "test");
        ck_assert_uint_eq(h.m->pressure.trimmed_usec, trimmed + 10 * USEC_PER_SEC);
        host_done(&h);
}

RUN_TESTS("pressure", 30, test_pressure_is_over_when_nothing_was_told_for_the_hold,
          test_T_PSI_a_queue_that_rejects_takes_tasks_again_after_the_hold,
          test_waiting_processes_are_given_back_and_made_again_after_it,
          test_an_episode_has_one_begin_and_one_end_however_often_it_is_told,
          test_who_tells_all_the_time_is_acted_on_now_and_then)
