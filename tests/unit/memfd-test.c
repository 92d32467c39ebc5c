/* SPDX-License-Identifier: MIT */
/* Payloads as sealed memfds. */

#include "proto/memfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "test.h"

TEST(what_was_put_in_comes_out_and_can_change_no_more) {
        char out[6] = { 0 };
        size_t n = 0;
        int fd;
        ck_assert_int_eq(eq_memfd_new(eq_bytes("seal\0d", 6), &fd), 0);
        ck_assert_int_eq(eq_memfd_size(fd, &n), 0);
        ck_assert_uint_eq(n, 6);
        for (int i = 0; i < 2; i++) { /* the position does not matter */
                ck_assert_int_eq(eq_memfd_read(fd, out, 6), 0);
                ck_assert_mem_eq(out, "seal\0d", 6);
        }
        ck_assert_int_lt(pwrite(fd, "x", 1, 0), 0);
        ck_assert_int_lt(ftruncate(fd, 0), 0);
        ck_assert_int_lt(ftruncate(fd, 100), 0);
        ck_assert_ptr_eq(mmap(NULL, 6, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
        ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
        ck_assert_int_eq(eq_memfd_read(fd, out, 7), -EIO);
        close(fd);
}

TEST(an_empty_one_and_a_large_one_are_fine) {
        size_t n = 1, size = 1 << 20;
        int fd;
        ck_assert_int_eq(eq_memfd_new(eq_bytes(NULL, 0), &fd), 0);
        ck_assert_int_eq(eq_memfd_size(fd, &n), 0);
        ck_assert_uint_eq(n, 0);
        ck_assert_int_eq(eq_memfd_read(fd, NULL, 0), 0);
        close(fd);
        char *data = malloc(size), *copy = malloc(size);
        memset(data, 'x', size);
        ck_assert_int_eq(eq_memfd_new(eq_bytes(data, size), &fd), 0);
        ck_assert_int_eq(eq_memfd_read(fd, copy, size), 0);
        ck_assert_mem_eq(data, copy, size);
        close(fd);
        free(data);
        free(copy);
}

TEST(every_seal_is_required_and_other_files_are_none) {
        static const int missing[] = { F_SEAL_WRITE, F_SEAL_SHRINK, F_SEAL_GROW };
        size_t n = 77;
        int pipe_fds[2];
        for (size_t i = 0; i < 3; i++) {
                int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
                ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) & ~missing[i]), 0);
                ck_assert_int_eq(eq_memfd_size(fd, &n), -EPERM);
                close(fd);
        }
        ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
        ck_assert_int_eq(eq_memfd_size(pipe_fds[0], &n), -EINVAL);
        close(pipe_fds[0]);
        close(pipe_fds[1]);
        ck_assert_uint_eq(n, 77);
}

RUN_TESTS("memfd", 20, test_what_was_put_in_comes_out_and_can_change_no_more,
          test_an_empty_one_and_a_large_one_are_fine, test_every_seal_is_required_and_other_files_are_none)
