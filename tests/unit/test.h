/* SPDX-License-Identifier: MIT */
#pragma once

/* The frame of a unit test program: TEST(name) { ... } ... RUN_TESTS(name, name, ...). The name is the claim. Each test runs
 * in a process of its own (Check's fork mode; CK_FORK=no for a debugger) with a limit of time, and output is TAP. A test
 * that leaves a descriptor open, or a directory that it made with mkdtemp(), fails. What one leaves that fails for another
 * reason is removed when the program ends. */

#include <check.h>
#include <dirent.h>
#include <ftw.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Check tells its parent the line of each assertion, under a lock, so that of a test that dies it knows where. In a loop the 1st, 2nd, 4th,
 * 8th ... time is enough. */
static inline void test_mark_point(const char *file, int line, unsigned *times) {
        unsigned n = ++*times;
        if ((n & (n - 1)) == 0)
                _mark_point(file, line);
}
#define _mark_point(file, line)                                                                                        \
        __extension__({                                                                                                \
                static _Thread_local unsigned times_;                                                                  \
                test_mark_point(file, line, &times_);                                                                  \
        })

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

/* A thread has come so far. */
static inline void test_wait_for(sem_t *s) {
        while (sem_wait(s) != 0)
                ;
}

/* The directories that the tests of this program have made, each in its process. NULL: nobody can say. */
typedef struct TestDirs {
        _Atomic size_t n;
        char path[256][128];
} TestDirs;

static TestDirs *test_dirs_;

static inline void test_dirs_open(void) {
        void *p = mmap(NULL, sizeof(TestDirs), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        test_dirs_ = p == MAP_FAILED ? NULL : p;
}

static inline char *test_mkdtemp(char *pattern) {
        char *dir = mkdtemp(pattern);
        size_t i = dir && test_dirs_ ? atomic_fetch_add(&test_dirs_->n, 1) : SIZE_MAX;
        if (i < sizeof(test_dirs_->path) / sizeof(test_dirs_->path[0]))
                (void)snprintf(test_dirs_->path[i], sizeof(test_dirs_->path[i]), "%s", dir);
        return dir;
}
#define mkdtemp(pattern) test_mkdtemp(pattern)

/* One that is still there, NULL: none. `from`: those that were made since there were so many. */
static inline const char *test_dir_left(size_t from) {
        size_t n = test_dirs_ ? atomic_load(&test_dirs_->n) : 0;
        for (size_t i = from; i < n && i < sizeof(test_dirs_->path) / sizeof(test_dirs_->path[0]); i++)
                if (test_dirs_->path[i][0] == '/' && access(test_dirs_->path[i], F_OK) == 0)
                        return test_dirs_->path[i];
        return NULL;
}

static inline int test_remove(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        return remove(path);
}

static inline void test_dirs_remove(void) {
        for (const char *dir; (dir = test_dir_left(0));)
                if (nftw(dir, test_remove, 16, FTW_DEPTH | FTW_PHYS) < 0)
                        return;
}

#define TEST(name)                                                                                                     \
        static void test_body_##name(void);                                                                            \
        START_TEST(test_##name) {                                                                                      \
                int n_fds_ = test_count_fds();                                                                         \
                size_t n_dirs_ = test_dirs_ ? atomic_load(&test_dirs_->n) : 0;                                         \
                test_body_##name();                                                                                    \
                ck_assert_msg(test_count_fds() == n_fds_, "descriptors leaked: %d before, %d after", n_fds_,           \
                              test_count_fds());                                                                       \
                ck_assert_msg(!test_dir_left(n_dirs_), "%s is left", test_dir_left(n_dirs_));                          \
        }                                                                                                              \
        END_TEST                                                                                                       \
        static void test_body_##name(void)

/* Trials of a kind that is tried often: a sanitizer takes some times as long for each, and finds what it finds in fewer. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { TEST_FEWER = 5 };
#else
enum { TEST_FEWER = 1 };
#endif

/* EQD_LONG=1 has some of them do a hundred times as much. */
static inline int test_limit(int seconds) {
        return getenv("EQD_LONG") ? 20 * seconds : seconds;
}

/* RUN_TESTS("scan", 30, test_a, test_b): suite name, seconds per test, tests. */
#define RUN_TESTS(suite_name, seconds, ...)                                                                            \
        int main(void) {                                                                                               \
                Suite *suite_ = suite_create(suite_name);                                                              \
                const TTest *tests_[] = { __VA_ARGS__ };                                                               \
                for (size_t i_ = 0; i_ < sizeof(tests_) / sizeof(tests_[0]); i_++) {                                   \
                        TCase *case_ = tcase_create(tests_[i_]->name);                                                 \
                        tcase_set_timeout(case_, test_limit(seconds));                                                 \
                        tcase_add_test(case_, tests_[i_]);                                                             \
                        suite_add_tcase(suite_, case_);                                                                \
                }                                                                                                      \
                test_dirs_open();                                                                                      \
                SRunner *runner_ = srunner_create(suite_);                                                             \
                srunner_set_tap(runner_, "-");                                                                         \
                srunner_run_all(runner_, CK_SILENT);                                                                   \
                int n_failed_ = srunner_ntests_failed(runner_);                                                        \
                srunner_free(runner_);                                                                                 \
                test_dirs_remove();                                                                                    \
                return n_failed_ ? EXIT_FAILURE : EXIT_SUCCESS;                                                        \
        }
