/* SPDX-License-Identifier: MIT */
#include "spawner/private.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "test.h"

enum { LARGE = 300000 };

TEST(pieces_are_of_zeroes_aligned_and_apart) {
        enum { N = 2000, SIZE = 77 };
        static char *all[N];
        for (int i = 0; i < N; i++) {
                all[i] = private_alloc(SIZE);
                ck_assert_ptr_nonnull(all[i]);
                ck_assert_uint_eq((uintptr_t)all[i] % 16, 0);
                for (int k = 0; k < SIZE; k++)
                        ck_assert_int_eq(all[i][k], 0);
                memset(all[i], i % 127 + 1, SIZE);
        }
        for (int i = 0; i < N; i++)
                for (int k = 0; k < SIZE; k++)
                        ck_assert_int_eq(all[i][k], i % 127 + 1);
}

TEST(a_large_piece_is_whole) {
        char *p = private_alloc(LARGE);
        ck_assert_ptr_nonnull(p);
        memset(p, 1, LARGE);
        char *next = private_alloc(1);
        ck_assert_ptr_nonnull(next);
        ck_assert(next >= p + LARGE || next < p);
}

/* The kernel is asked: to look at it would end the child. */
static bool readable(const void *p) {
        int fds[2];
        ck_assert_int_eq(pipe(fds), 0);
        bool yes = write(fds[1], p, 1) == 1;
        ck_assert(yes || errno == EFAULT);
        close(fds[0]);
        close(fds[1]);
        return yes;
}

TEST(children_do_not_have_it) {
        char *small = private_alloc(8), *large = private_alloc(LARGE);
        int status;
        ck_assert(small && large && readable(small) && readable(large + LARGE - 1));
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                _exit(readable(small) || readable(large + LARGE - 1));
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(without_memory_there_is_none) {
        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_ptr_null(private_alloc(8));
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_ptr_null(private_alloc(SIZE_MAX));
        ck_assert_ptr_nonnull(private_alloc(8));
}

RUN_TESTS("private", 10, test_pieces_are_of_zeroes_aligned_and_apart, test_a_large_piece_is_whole,
          test_children_do_not_have_it, test_without_memory_there_is_none)
