/* SPDX-License-Identifier: MIT */
#include "proto/statelock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static char path[64];

static int opened(int flags) {
        int fd = open(path, flags | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        return fd;
}

static void begin(void) {
        snprintf(path, sizeof(path), "/tmp/eqd-statelock.XXXXXX");
        int fd = mkstemp(path);
        ck_assert_int_ge(fd, 0);
        close(fd);
}

TEST(one_holds_it_until_its_last_descriptor_is_closed) {
        begin();
        int asks = opened(O_RDONLY), one = opened(O_RDWR), other = opened(O_RDWR);
        ck_assert(!eq_state_lock_is_held(asks));
        ck_assert_int_eq(eq_state_lock_take(one), 0);
        ck_assert(eq_state_lock_is_held(asks));
        ck_assert_int_eq(eq_state_lock_take(other), -EWOULDBLOCK);
        close(other);
        ck_assert(eq_state_lock_is_held(asks)); /* as it would not be with a lock of the process */
        int again = dup(one);
        close(one);
        ck_assert(eq_state_lock_is_held(asks));
        close(again);
        ck_assert(!eq_state_lock_is_held(asks));
        close(asks);
        unlink(path);
}

/* Whoever has asked still has its descriptor, and with it whatever asking took: so no moment has to be met. */
TEST(asking_takes_nothing_that_refuses_a_start) {
        begin();
        int asks[8], eqd = opened(O_RDWR);
        for (int i = 0; i < 8; i++) {
                asks[i] = opened(i % 2 ? O_RDONLY : O_RDWR);
                ck_assert(!eq_state_lock_is_held(asks[i]));
        }
        ck_assert_int_eq(eq_state_lock_take(eqd), 0);
        for (int i = 0; i < 8; i++) {
                ck_assert(eq_state_lock_is_held(asks[i]));
                close(asks[i]);
        }
        close(eqd);
        unlink(path);
}

TEST(it_is_seen_from_another_process_and_kept_by_a_fork) {
        int status;
        begin();
        int eqd = opened(O_RDWR);
        ck_assert_int_eq(eq_state_lock_take(eqd), 0);
        pid_t pid = fork();
        if (pid == 0)
                _exit(eq_state_lock_is_held(opened(O_RDONLY)) ? 0 : 1); /* its end closes a copy of eqd's descriptor */
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
        int asks = opened(O_RDONLY);
        ck_assert(eq_state_lock_is_held(asks));
        close(asks);
        close(eqd);
        unlink(path);
}

/* An eqd of before has only the one, and counts; a stranger's lock of the other kind does not. */
TEST(an_eqd_with_the_one_lock_refuses_and_a_stranger_with_the_other_does_not) {
        struct flock all = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
        begin();
        int old = opened(O_RDWR), stranger = opened(O_RDONLY), eqd = opened(O_RDWR);
        ck_assert_int_eq(flock(old, LOCK_EX | LOCK_NB), 0);
        ck_assert_int_eq(eq_state_lock_take(eqd), -EWOULDBLOCK);
        close(old);
        ck_assert_int_eq(fcntl(stranger, F_OFD_SETLK, &all), 0);
        ck_assert_int_eq(eq_state_lock_take(eqd), 0);
        close(stranger);
        close(eqd);
        unlink(path);
}

RUN_TESTS("statelock", 20, test_one_holds_it_until_its_last_descriptor_is_closed,
          test_asking_takes_nothing_that_refuses_a_start, test_it_is_seen_from_another_process_and_kept_by_a_fork,
          test_an_eqd_with_the_one_lock_refuses_and_a_stranger_with_the_other_does_not)
