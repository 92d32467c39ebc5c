/* SPDX-License-Identifier: MIT */
#include "eqctl/follow.h"

#include "test.h"

static int status(const char *state, int exit, int sig, bool started) {
        EqTask t = { 0 };

        EQ_SET(&t, Task, state, eq_str(state));
        if (exit >= 0)
                EQ_SET(&t, Task, exit, (uint64_t)exit);
        if (sig)
                EQ_SET(&t, Task, signal, (uint64_t)sig);
        if (started)
                EQ_SET(&t, Task, started_usec, 1);
        return task_exit_status(&t);
}

TEST(the_exit_status_of_a_task_is_passed_on_unchanged) {
        ck_assert_int_eq(status("DONE", 0, 0, true), 0);
        ck_assert_int_eq(status("FAILED", 3, 0, true), 3);
        ck_assert_int_eq(status("DEAD", 126, 0, true), 126);
        ck_assert_int_eq(status("FAILED", 127, 0, true), 127);
}

TEST(a_signal_is_128_and_its_number) {
        ck_assert_int_eq(status("FAILED", -1, 9, true), 137);
        ck_assert_int_eq(status("CANCELED", -1, 15, true), 143);
}

TEST(a_timeout_is_124_however_it_ended) {
        ck_assert_int_eq(status("TIMEOUT", -1, 15, true), 124);
        ck_assert_int_eq(status("TIMEOUT", 0, 0, true), 124);
}

TEST(what_never_ran_is_125) {
        ck_assert_int_eq(status("CANCELED", -1, 0, false), 125);
        ck_assert_int_eq(status("EXPIRED", -1, 0, false), 125);
        ck_assert_int_eq(status("FAILED", -1, 0, true), 125); /* lost, or never spawned */
}

TEST(failures_of_eqctl_are_125_but_for_usage_and_unknown_names) {
        ck_assert_int_eq(follow_failure(0), 0);
        ck_assert_int_eq(follow_failure(EXIT_USAGE), EXIT_USAGE);
        ck_assert_int_eq(follow_failure(EXIT_NOT_FOUND), EXIT_NOT_FOUND);
        ck_assert_int_eq(follow_failure(EXIT_NO_DAEMON), EXIT_NOT_RUN);
        ck_assert_int_eq(follow_failure(EXIT_TEMPORARY), EXIT_NOT_RUN);
        ck_assert_int_eq(follow_failure(EXIT_FAILURE), EXIT_NOT_RUN);
}

RUN_TESTS("follow", 10, test_the_exit_status_of_a_task_is_passed_on_unchanged, test_a_signal_is_128_and_its_number,
          test_a_timeout_is_124_however_it_ended, test_what_never_ran_is_125,
          test_failures_of_eqctl_are_125_but_for_usage_and_unknown_names)
