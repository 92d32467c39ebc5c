/* SPDX-License-Identifier: MIT */
#include "engine/task.h"

#include <signal.h>

#include "proto/schema.h"
#include "test.h"

static Task task_in(eq_state state) {
        Task t;
        task_init(&t, 1, TASK_LANE_NORMAL, 0);
        t.state = state;
        return t;
}

TEST(each_event_moves_the_states_that_the_drawing_shows) {
        static const struct {
                eq_state from;
                TaskEvent ev;
                eq_state to;
        } moves[] = {
                { EQ_STATE_WAITING, TASK_EV_ELIGIBLE, EQ_STATE_QUEUED },
                { EQ_STATE_QUEUED, TASK_EV_DEFER, EQ_STATE_WAITING },
                { EQ_STATE_QUEUED, TASK_EV_START, EQ_STATE_RUNNING },
                { EQ_STATE_RUNNING, TASK_EV_RETURN, EQ_STATE_QUEUED },
                { EQ_STATE_RUNNING, TASK_EV_RETRY, EQ_STATE_WAITING },
                { EQ_STATE_RUNNING, TASK_EV_FINISH, EQ_STATE_DONE },
                { EQ_STATE_RUNNING, TASK_EV_FAIL, EQ_STATE_FAILED },
                { EQ_STATE_RUNNING, TASK_EV_TIME_OUT, EQ_STATE_TIMEOUT },
                { EQ_STATE_RUNNING, TASK_EV_GIVE_UP, EQ_STATE_DEAD },
                { EQ_STATE_RUNNING, TASK_EV_CANCEL, EQ_STATE_CANCELED },
                { EQ_STATE_QUEUED, TASK_EV_CANCEL, EQ_STATE_CANCELED },
                { EQ_STATE_WAITING, TASK_EV_CANCEL, EQ_STATE_CANCELED },
                { EQ_STATE_QUEUED, TASK_EV_EXPIRE, EQ_STATE_EXPIRED },
                { EQ_STATE_WAITING, TASK_EV_EXPIRE, EQ_STATE_EXPIRED },
                { EQ_STATE_QUEUED, TASK_EV_LOSE, EQ_STATE_FAILED },
                { EQ_STATE_DONE, TASK_EV_AGAIN, EQ_STATE_WAITING },
                { EQ_STATE_FAILED, TASK_EV_AGAIN, EQ_STATE_WAITING },
                { EQ_STATE_TIMEOUT, TASK_EV_AGAIN, EQ_STATE_WAITING },
                { EQ_STATE_CANCELED, TASK_EV_AGAIN, EQ_STATE_WAITING },
                { EQ_STATE_EXPIRED, TASK_EV_AGAIN, EQ_STATE_WAITING },
                { EQ_STATE_DEAD, TASK_EV_AGAIN, EQ_STATE_WAITING },
        };
        for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++) {
                Task t = task_in(moves[i].from);
                ck_assert_str_eq(eq_state_name(task_set_state(&t, moves[i].ev)), eq_state_name(moves[i].to));
                ck_assert_int_eq(t.state, moves[i].to);
        }
}

TEST(every_event_has_a_name) {
        for (TaskEvent ev = 0; ev < _TASK_EV_MAX; ev++)
                ck_assert_ptr_nonnull(task_event_name(ev));
}

TEST(a_finished_task_cannot_start) {
        Task t = task_in(EQ_STATE_DONE);
        task_set_state(&t, TASK_EV_START); /* aborts */
}

TEST(a_waiting_task_cannot_start) {
        Task t = task_in(EQ_STATE_WAITING);
        task_set_state(&t, TASK_EV_START); /* aborts */
}

TEST(a_running_task_cannot_expire) {
        Task t = task_in(EQ_STATE_RUNNING);
        task_set_state(&t, TASK_EV_EXPIRE); /* aborts */
}

int main(void) {
        Suite *suite = suite_create("task");
        TCase *moves = tcase_create("moves"), *impossible = tcase_create("impossible");
        tcase_add_test(moves, test_each_event_moves_the_states_that_the_drawing_shows);
        tcase_add_test(moves, test_every_event_has_a_name);
        tcase_add_test_raise_signal(impossible, test_a_finished_task_cannot_start, SIGABRT);
        tcase_add_test_raise_signal(impossible, test_a_waiting_task_cannot_start, SIGABRT);
        tcase_add_test_raise_signal(impossible, test_a_running_task_cannot_expire, SIGABRT);
        suite_add_tcase(suite, moves);
        suite_add_tcase(suite, impossible);
        SRunner *runner = srunner_create(suite);
        srunner_set_tap(runner, "-");
        srunner_run_all(runner, CK_SILENT);
        int n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
