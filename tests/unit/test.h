/* SPDX-License-Identifier: MIT */
#pragma once

/* The frame of a unit test program: TEST(name) { ... } ... RUN_TESTS(name, name, ...). The name is the claim. Each test runs
 * in a process of its own (Check's fork mode; CK_FORK=no for a debugger) with a limit of time, and output is TAP. A test
 * that leaves a descriptor open fails. */

#include <check.h>
#include <dirent.h>
#include <stdlib.h>

static inline int test_count_fds(void) {
        DIR *d = opendir("/proc/self/fd");
        int n = 0;
        if (!d)
                return -1;
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

#define TEST(name)                                                                                                     \
        static void test_body_##name(void);                                                                            \
        START_TEST(test_##name) {                                                                                      \
                int n_fds_ = test_count_fds();                                                                         \
                test_body_##name();                                                                                    \
                ck_assert_msg(test_count_fds() == n_fds_, "descriptors leaked: %d before, %d after", n_fds_,           \
                              test_count_fds());                                                                       \
        }                                                                                                              \
        END_TEST                                                                                                       \
        static void test_body_##name(void)

/* RUN_TESTS("scan", 30, test_a, test_b): suite name, seconds per test, tests. */
#define RUN_TESTS(suite_name, seconds, ...)                                                                            \
        int main(void) {                                                                                               \
                Suite *suite_ = suite_create(suite_name);                                                              \
                const TTest *tests_[] = { __VA_ARGS__ };                                                               \
                for (size_t i_ = 0; i_ < sizeof(tests_) / sizeof(tests_[0]); i_++) {                                   \
                        TCase *case_ = tcase_create(tests_[i_]->name);                                                 \
                        tcase_set_timeout(case_, seconds);                                                             \
                        tcase_add_test(case_, tests_[i_]);                                                             \
                        suite_add_tcase(suite_, case_);                                                                \
                }                                                                                                      \
                SRunner *runner_ = srunner_create(suite_);                                                             \
                srunner_set_tap(runner_, "-");                                                                         \
                srunner_run_all(runner_, CK_SILENT);                                                                   \
                int n_failed_ = srunner_ntests_failed(runner_);                                                        \
                srunner_free(runner_);                                                                                 \
                return n_failed_ ? EXIT_FAILURE : EXIT_SUCCESS;                                                        \
        }
