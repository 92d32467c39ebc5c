/* SPDX-License-Identifier: MIT */
/* What a manager does when its store is full, or has failed. */
#include "manager/view.h"
#include "store-host.h"

static Host h;

TEST(what_a_queue_became_while_there_was_no_space_is_written_when_there_is) {
        durable_begin(&h, NULL);
        fill_store(&h);
        queue_pause(durable_q(&h)->queue);
        manager_queue_changed(durable_q(&h));
        free_store(&h);
        durable_restart(&h);
        ck_assert_str_eq(queue_state_name(durable_q(&h)->queue), "paused");
        durable_done(&h);
}

static unsigned n_lost;

static void on_lost(TaskWait *w, TaskWaitEnd end) {
        ck_assert_int_eq(end, TASK_WAIT_LOST);
        n_lost++;
}

static bool has_failed(const Host *host, uint64_t unused) {
        return durable_has_failed(durable_q(host));
}

/* And its record stays for as long as somebody looks at it. */
TEST(who_waits_for_a_task_that_was_not_written_is_told_so) {
        TaskWait *w;
        bool now;
        durable_begin(&h, NULL);
        fault_set(FAULT_SYNC, 1, true);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(task_wait_new(h.m, &t, 1, false, USEC_NEVER, on_lost, NULL, &w, &now), 0);
        ck_assert(!now);
        until(&h, has_failed, 0);
        ck_assert_uint_eq(h.m->n_pending, 0);
        ck_assert_uint_eq(n_lost, 1);
        ck_assert_ptr_eq(task_of_q(&h, 1), t);
        task_wait_free(w);
        ck_assert_ptr_null(task_of_q(&h, 1));
        fault_set(FAULT_SYNC, 0, false);
        durable_done(&h);
}

static bool is_settled(const Host *host, uint64_t seq) {
        return !task_of_q(host, seq)->unsettled;
}

/* It was shown as running, as process 0, until that was on disk. */
TEST(a_task_that_is_canceled_before_it_ran_is_never_shown_as_running) {
        EqSubmit held = { 0 };
        TaskView view;
        WhyView why;
        durable_begin(&h, NULL);
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *t = host_task(&h, "q", held);
        until(&h, has_arrived, 1);
        ck_assert_int_eq(manager_cancel(h.m, t, false, 0, USEC_NEVER), 0);
        ck_assert(t->unsettled);
        view_task(h.m, t, &view);
        ck_assert_msg(eq_bytes_eq(view.row.state, eq_str("WAITING")), "%.*s", (int)view.row.state.len,
                      (const char *)view.row.state.data);
        view_why(h.m, t, &why);
        ck_assert(eq_bytes_eq(why.row.state, eq_str("WAITING")));
        ck_assert_str_eq(why.detail, "it will not run; that is being written to the store");
        until(&h, is_settled, 1);
        view_task(h.m, t, &view);
        ck_assert(eq_bytes_eq(view.row.state, eq_str("CANCELED")));
        durable_done(&h);
}

static bool is_running(const Host *host, uint64_t unused) {
        return host->m->commands->n_running > 0;
}

static bool is_there(const Host *host, uint64_t seq) {
        return task_of_q(host, seq) != NULL;
}

/* A stop in order whose last words the disk does not take. What is not written must not look as if it had been: the marks stay. */
TEST(a_stop_clears_no_mark_of_what_it_could_not_write) {
        static const char *const once[] = { "at_most_once=yes", NULL };
        for (int ended = 0; ended < 2; ended++) {
                durable_begin(&h, once);
                TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
                until(&h, is_running, 0);
                fault_set(FAULT_WRITE, 1, true);
                if (ended)
                        host_end(&h, t, TASK_OK);
                host_done(&h);
                fault_set(FAULT_WRITE, 0, false);
                host_init_from(&h, NULL, store_dir, -1);
                until(&h, is_there, 1);
                t = task_of_q(&h, 1);
                ck_assert_int_eq(t->task.state, EQ_STATE_FAILED);
                ck_assert_int_eq(t->end_reason, EQ_REASON_LOST);
                durable_done(&h);
        }
}

/* And one that could be written clears them. */
TEST(after_a_stop_in_order_nothing_counts_as_cut_short) {
        durable_begin(&h, NULL);
        (void)host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        durable_restart(&h);
        until(&h, is_running, 0);
        TaskRecord *t = task_of_q(&h, 1);
        ck_assert_uint_eq(t->task.attempt, 2);
        ck_assert_uint_eq(t->crashes, 0);
        durable_done(&h);
}

/* Those that can still end otherwise are not answered yet; who comes later is told at once. */
TEST(waits_for_what_a_failed_store_will_not_tell_are_lost_and_others_go_on) {
        TaskWait *w[3], *late;
        bool now;
        durable_begin(&h, NULL);
        host_queue(&h, "memory", (const char *const[]) { "durable=no", NULL });
        EqSubmit held = { 0 };
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *kept = host_task(&h, "q", held), *other = host_task(&h, "memory", held);
        TaskRecord *both[] = { kept, other };
        until(&h, has_arrived, kept->task.seq);
        ck_assert_int_eq(task_wait_new(h.m, &other, 1, false, USEC_NEVER, on_lost, NULL, &w[0], &now), 0);
        ck_assert_int_eq(task_wait_new(h.m, both, 2, true, USEC_NEVER, on_lost, NULL, &w[1], &now), 0);
        ck_assert_int_eq(task_wait_new(h.m, both, 2, false, USEC_NEVER, on_lost, NULL, &w[2], &now), 0);
        fault_set(FAULT_SYNC, 1, true);
        (void)host_task(&h, "q", held);
        until(&h, has_failed, 0);
        fault_set(FAULT_SYNC, 0, false);
        ck_assert_uint_eq(n_lost, 1); /* all of both; any of both, and the other one, can still come */
        ck_assert(!task_wait_is_lost(w[0]));
        ck_assert(!task_wait_is_lost(w[1]));
        ck_assert_int_eq(task_wait_new(h.m, &kept, 1, false, USEC_NEVER, on_lost, NULL, &late, &now), 0);
        ck_assert(task_wait_is_lost(late));
        for (int i = 0; i < 3; i++)
                task_wait_free(w[i]);
        task_wait_free(late);
        durable_done(&h);
}

RUN_TESTS("durable", 60, test_what_a_queue_became_while_there_was_no_space_is_written_when_there_is,
          test_who_waits_for_a_task_that_was_not_written_is_told_so,
          test_a_task_that_is_canceled_before_it_ran_is_never_shown_as_running,
          test_a_stop_clears_no_mark_of_what_it_could_not_write, test_after_a_stop_in_order_nothing_counts_as_cut_short,
          test_waits_for_what_a_failed_store_will_not_tell_are_lost_and_others_go_on)
