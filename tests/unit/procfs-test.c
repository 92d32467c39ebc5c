/* SPDX-License-Identifier: MIT */

#include "base/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

static pid_t start(void (*body)(void)) {
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
                setpgid(0, 0);
                body();
                _exit(0);
        }
        setpgid(pid, pid); /* whoever is first */
        return pid;
}

static void burn(void) {
        for (volatile unsigned i = 0;; i++)
                ;
}

static void burn_in_a_child(void) {
        pid_t pid = fork();
        if (pid == 0)
                burn();
        for (;;)
                pause();
}

static void end_tree(pid_t pid) {
        kill(-pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

TEST(cpu_time_of_a_tree_is_that_of_its_children_too) {
        pid_t pid = start(burn_in_a_child);
        uint64_t usec = 0;
        for (int i = 0; i < 2000 && usec < 30000; i++) {
                poll(NULL, 0, 5);
                usec = procfs_tree_cpu_usec(pid);
        }
        ck_assert_uint_ge(usec, 30000);
        end_tree(pid);
        ck_assert_uint_eq(procfs_tree_cpu_usec(pid), 0);
}

TEST(cpu_time_of_a_cgroup_is_read_or_it_is_said_why_not) {
        char dir[] = "/tmp/procfs-test-XXXXXX", path[64];
        uint64_t usec = 0;
        ck_assert_ptr_nonnull(mkdtemp(dir));
        ck_assert_int_eq(procfs_cgroup_cpu_usec(dir, &usec), -ENOENT);
        snprintf(path, sizeof(path), "%s/cpu.stat", dir);
        static const struct {
                const char *text;
                int result;
        } rows[] = { { "usage_usec 123456\nuser_usec 1\n", 0 }, { "", -EBADMSG }, { "user_usec 1\n", -EBADMSG } };
        for (size_t i = 0; i < 3; i++) {
                int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
                ck_assert_int_eq(write(fd, rows[i].text, strlen(rows[i].text)), (ssize_t)strlen(rows[i].text));
                close(fd);
                ck_assert_int_eq(procfs_cgroup_cpu_usec(dir, &usec), rows[i].result);
        }
        ck_assert_uint_eq(usec, 123456);
        unlink(path);
        rmdir(dir);
}

static void sleep_for_ever(void) {
        for (;;)
                pause();
}

TEST(the_state_of_a_process_is_its_letter) {
        char wchan[64];
        pid_t pid = start(sleep_for_ever);
        char state = '\0';
        for (int i = 0; i < 2000 && state != 'S'; i++) {
                poll(NULL, 0, 1);
                state = procfs_state(pid, wchan, sizeof(wchan));
        }
        ck_assert_int_eq(state, 'S');
        ck_assert_uint_lt(strlen(wchan), sizeof(wchan));
        ck_assert_uint_gt(procfs_start_ticks(pid), 0);
        end_tree(pid);
        ck_assert_int_eq(procfs_state(pid, wchan, sizeof(wchan)), '\0');
        ck_assert_str_eq(wchan, "");
        ck_assert_uint_eq(procfs_start_ticks(pid), 0);
}

RUN_TESTS("procfs", 30, test_cpu_time_of_a_tree_is_that_of_its_children_too,
          test_cpu_time_of_a_cgroup_is_read_or_it_is_said_why_not, test_the_state_of_a_process_is_its_letter)
