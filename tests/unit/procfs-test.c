/* SPDX-License-Identifier: MIT */
#include "base/procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "child.h"
#include "test.h"

enum { ENVIRONMENT = 30000 };

static void end_child(pid_t pid) {
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* A process with this environment; it waits until its standard input ends. The write end of that. */
static pid_t start_with_environment(char *const *env, int *ret_fd) {
        int in[2], out[2];
        char c;
        char *argv[] = { (char *)"sh", (char *)"-c", (char *)"echo x; read line", NULL };

        ck_assert_int_eq(pipe2(in, 0), 0);
        ck_assert_int_eq(pipe2(out, 0), 0);
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
                (void)dup2(in[0], STDIN_FILENO);
                (void)dup2(out[1], STDOUT_FILENO);
                (void)close(in[1]);
                execve("/bin/sh", argv, env);
                _exit(127);
        }
        close_fd(in[0]);
        close_fd(out[1]);
        ck_assert_int_eq(read(out[0], &c, 1), 1); /* it has been executed */
        close_fd(out[0]);
        *ret_fd = in[1];
        return pid;
}

static void end_with_environment(pid_t pid, int fd) {
        close_fd(fd);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

TEST(children_are_listed_and_no_more_than_there_is_room_for) {
        pid_t pids[8], want[3];
        int fd = procfs_open_children();
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(procfs_read_children(fd, pids, ELEMENTSOF(pids)), 0);
        for (size_t i = 0; i < ELEMENTSOF(want); i++)
                want[i] = child_start();
        ck_assert_int_eq(procfs_read_children(fd, pids, ELEMENTSOF(pids)), 3);
        for (size_t i = 0; i < ELEMENTSOF(want); i++)
                ck_assert_int_eq(pids[i], want[i]);
        ck_assert_int_eq(procfs_read_children(fd, pids, 2), 2);
        end_child(want[1]);
        ck_assert_int_eq(procfs_read_children(fd, pids, ELEMENTSOF(pids)), 2);
        end_child(want[0]);
        end_child(want[2]);
        close_fd(fd);
}

TEST(a_variable_is_found_whole_and_nothing_that_looks_like_it) {
        char *env[] = { (char *)"FIRST=1", (char *)"XEQD_TASK=q/1", (char *)"EQD_TASK=q/12", (char *)"LAST=q/1", NULL };
        int fd;
        pid_t pid = start_with_environment(env, &fd);
        ck_assert_int_eq(procfs_environ_has(pid, "FIRST=1"), 1);
        ck_assert_int_eq(procfs_environ_has(pid, "EQD_TASK=q/12"), 1);
        ck_assert_int_eq(procfs_environ_has(pid, "LAST=q/1"), 1);
        ck_assert_int_eq(procfs_environ_has(pid, "EQD_TASK=q/1"), 0);
        ck_assert_int_eq(procfs_environ_has(pid, "FIRST="), 0);
        end_with_environment(pid, fd);
}

/* The file is read in pieces; a variable may lie across two of them, wherever they are cut. */
TEST(a_variable_is_found_at_any_place_of_a_large_environment) {
        static char filler[ENVIRONMENT];
        for (size_t n = 8150; n < 8230; n += 7) {
                memset(filler, 'f', n);
                memcpy(filler, "F=", 2);
                filler[n] = '\0';
                char *env[] = { filler, (char *)"EQD_TASK=q/1", (char *)"Z=1", NULL };
                int fd;
                pid_t pid = start_with_environment(env, &fd);
                ck_assert_msg(procfs_environ_has(pid, "EQD_TASK=q/1") == 1, "behind %zu bytes", n);
                ck_assert_int_eq(procfs_environ_has(pid, "EQD_TASK=q/2"), 0);
                end_with_environment(pid, fd);
        }
}

TEST(what_cannot_be_looked_for_is_an_error) {
        char name[600];
        memset(name, 'n', sizeof(name) - 1);
        name[sizeof(name) - 1] = '\0';
        ck_assert_int_eq(procfs_environ_has(getpid(), name), -EINVAL);
        pid_t pid = child_start();
        end_child(pid);
        ck_assert_int_eq(procfs_environ_has(pid, "A=1"), -ENOENT);
}

TEST(the_start_of_a_process_is_after_that_of_its_parent_and_0_if_it_is_gone) {
        unsigned long long mine = procfs_start_ticks(getpid());
        ck_assert_uint_gt(mine, 0);
        pid_t pid = child_start();
        ck_assert_uint_ge(procfs_start_ticks(pid), mine);
        end_child(pid);
        ck_assert_uint_eq(procfs_start_ticks(pid), 0);
}

TEST(whether_a_process_has_executed_something_is_known_until_it_is_reaped) {
        char *env[] = { NULL };
        siginfo_t si;
        int fd;

        pid_t forked = child_start();
        ck_assert_int_eq(procfs_has_executed(forked), 0);
        ck_assert_int_eq(kill(forked, SIGKILL), 0);
        ck_assert_int_eq(waitid(P_PID, (id_t)forked, &si, WEXITED | WNOWAIT), 0);
        ck_assert_int_eq(procfs_has_executed(forked), 0);
        ck_assert_int_eq(waitpid(forked, NULL, 0), forked);
        ck_assert_int_eq(procfs_has_executed(forked), -ENOENT);
        pid_t executed = start_with_environment(env, &fd);
        ck_assert_int_eq(procfs_has_executed(executed), 1);
        close_fd(fd);
        ck_assert_int_eq(waitid(P_PID, (id_t)executed, &si, WEXITED | WNOWAIT), 0);
        ck_assert_int_eq(procfs_has_executed(executed), 1);
        ck_assert_int_eq(waitpid(executed, NULL, 0), executed);
}

static pid_t start(void (*body)(void)) {
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test fail */
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
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                burn();
        }
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
        while (usec < 30000) { /* the limit of time is what fails here, and below */
                (void)sched_yield();
                usec = procfs_tree_cpu_usec(pid);
        }
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
        ProcfsWhere w = { 0 };
        pid_t pid = start(sleep_for_ever);
        while (w.state != 'S') {
                (void)sched_yield();
                procfs_where(pid, 0, &w);
        }
        ck_assert_uint_gt(procfs_start_ticks(pid), 0);
        end_tree(pid);
        procfs_where(pid, 0, &w);
        ck_assert_int_eq(w.state, '\0');
        ck_assert_int_eq(w.system_call, -1);
        ck_assert_str_eq(w.wchan, "");
        ck_assert_str_eq(w.stack, "");
        ck_assert_uint_eq(procfs_start_ticks(pid), 0);
}

RUN_TESTS("procfs", 60, test_cpu_time_of_a_tree_is_that_of_its_children_too,
          test_cpu_time_of_a_cgroup_is_read_or_it_is_said_why_not, test_the_state_of_a_process_is_its_letter,
          test_children_are_listed_and_no_more_than_there_is_room_for,
          test_a_variable_is_found_whole_and_nothing_that_looks_like_it,
          test_a_variable_is_found_at_any_place_of_a_large_environment, test_what_cannot_be_looked_for_is_an_error,
          test_whether_a_process_has_executed_something_is_known_until_it_is_reaped,
          test_the_start_of_a_process_is_after_that_of_its_parent_and_0_if_it_is_gone)
