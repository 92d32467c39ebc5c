/* SPDX-License-Identifier: MIT */
/* Trees that a dead eqd has left: real processes, of which the test says what is on record. */
#include "executor/leftover.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/procfs.h"
#include "base/util.h"
#include "child.h"
#include "test.h"

enum { SEQ = 42, ATTEMPT = 2, TREE_MAX = 8 };
#define BOUND_USEC (20 * USEC_PER_SEC)

/* A leader and what it has forked; a pidfd of each, so that its end can be waited for. */
typedef struct Tree {
        pid_t leader;
        int pidfds[TREE_MAX]; /* the leader's first */
        unsigned n;
} Tree;

static void add(Tree *t, pid_t pid) {
        t->pidfds[t->n] = (int)syscall(SYS_pidfd_open, pid, 0);
        ck_assert_int_ge(t->pidfds[t->n++], 0);
}

/* While it is being executed, nobody's environment can be read. */
static void await_executed(pid_t pid) {
        while (procfs_has_executed(pid) != 1 || procfs_environ_has(pid, "EQD_ATTEMPT=2") != 1)
                (void)sched_yield(); /* the limit of time is what fails here */
}

/* The script says the pids of what it forks, then "end". */
static Tree start_tree(const char *script) {
        static char task[] = "EQD_TASK=q/42", attempt[] = "EQD_ATTEMPT=2", path[] = "PATH=/usr/bin:/bin";
        char *env[] = { task, attempt, path, NULL }, line[64];
        int fds[2];
        Tree t = { 0 };
        ck_assert_int_eq(pipe(fds), 0);
        t.leader = fork();
        ck_assert_int_ge(t.leader, 0);
        if (t.leader == 0) {
                (void)setsid();
                (void)dup2(fds[1], STDOUT_FILENO);
                close_fd(fds[0]);
                close_fd(fds[1]);
                (void)execle("/bin/sh", "sh", "-c", script, NULL, env);
                _exit(127);
        }
        close_fd(fds[1]);
        add(&t, t.leader);
        FILE *f = fdopen(fds[0], "r");
        while (fgets(line, sizeof(line), f) && strcmp(line, "end\n") != 0) {
                pid_t pid = (pid_t)strtol(line, NULL, 10);
                add(&t, pid);
                await_executed(pid);
        }
        ck_assert_str_eq(line, "end\n");
        fclose(f);
        return t;
}

static const char in_session[] =
        "trap '' TERM; sleep 1000 & echo $!; (sleep 1000 & echo $!); echo end; exec sleep 1000";
static const char also_beside[] =
        "trap '' TERM; sleep 1000 & echo $!; setsid sleep 1000 & echo $!; echo end; exec sleep 1000";

/* Comes before that of the library. Who dies with a group is waited for at once, as by an init that is quick. */
static bool is_prompt;

int kill(pid_t pid, int signal) {
        int r = (int)syscall(SYS_kill, pid, signal);
        while (is_prompt && pid < -1 && waitpid(pid, NULL, 0) > 0)
                ;
        return r;
}

static bool has_ended(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        return poll(&p, 1, 0) > 0;
}

static unsigned n_living(const Tree *t) {
        unsigned n = 0;
        for (unsigned i = 0; i < t->n; i++)
                n += !has_ended(t->pidfds[i]);
        return n;
}

static void end_tree(Tree *t) {
        for (unsigned i = 0; i < t->n; i++) {
                (void)syscall(SYS_pidfd_send_signal, t->pidfds[i], SIGKILL, NULL, 0); /* it may have ended */
                struct pollfd p = { .fd = t->pidfds[i], .events = POLLIN };
                ck_assert_int_eq(poll(&p, 1, -1), 1);
                close_fd(t->pidfds[i]);
        }
        (void)waitpid(t->leader, NULL, 0); /* done where a test has */
}

static void kill_leader(const Tree *t) {
        ck_assert_int_eq(kill(t->leader, SIGKILL), 0);
        ck_assert_int_eq(waitpid(t->leader, NULL, 0), t->leader);
}

static Leftover leftover(const Tree *t) {
        return (Leftover) {
                .pid = t->leader, .start_ticks = procfs_start_ticks(t->leader), .seq = SEQ, .attempt = ATTEMPT
        };
}

TEST(the_whole_tree_of_a_leader_is_killed_and_has_ended) {
        Tree t = start_tree(also_beside);
        Leftover l = leftover(&t);
        ck_assert_uint_eq(n_living(&t), 3);
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        ck_assert_uint_eq(n_living(&t), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_KILLED);
        ck_assert_uint_eq(l.n_killed, 3);
        end_tree(&t);
}

/* It was not counted. */
TEST(who_died_with_its_group_and_was_waited_for_has_been_killed) {
        ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        Tree t = start_tree(in_session);
        Leftover l = leftover(&t);
        is_prompt = true;
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        is_prompt = false;
        ck_assert_uint_eq(n_living(&t), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_KILLED);
        ck_assert_uint_eq(l.n_killed, 3);
        end_tree(&t);
}

/* The number belongs to another process since: it began at another time. */
TEST(a_process_with_another_start_is_left_alone) {
        Tree t = start_tree(in_session);
        Leftover l = leftover(&t);
        l.start_ticks++;
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_ANOTHER);
        l.start_ticks -= 2;
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_ANOTHER);
        ck_assert_uint_eq(n_living(&t), 3);
        end_tree(&t);
}

/* As when the spawner was killed: leaders die with it. */
TEST(the_session_of_a_leader_that_is_gone_is_killed_if_the_task_is_seen_in_it) {
        Tree t = start_tree(in_session);
        Leftover l = leftover(&t);
        kill_leader(&t);
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_KILLED);
        ck_assert_uint_eq(l.n_killed, 2);
        ck_assert_uint_eq(n_living(&t), 0);
        end_tree(&t);
}

TEST(the_session_of_a_leader_that_is_gone_is_left_alone_if_the_task_is_not_seen_in_it) {
        Tree t = start_tree(in_session);
        const Leftover good = leftover(&t);
        kill_leader(&t);
        for (int i = 0; i < 3; i++) {
                Leftover l = good;
                l.seq = i == 0 ? 2 : SEQ; /* 42 ends with it */
                l.attempt = i == 1 ? 20 : ATTEMPT;
                l.start_ticks += i == 2 ? 1000000 : 0; /* they were there before it */
                ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
                ck_assert_int_eq(l.fate, i == 2 ? LEFTOVER_NONE : LEFTOVER_UNPROVEN);
                ck_assert_uint_eq(n_living(&t), 2);
        }
        end_tree(&t);
}

/* It ended, and nobody has asked how: the number is still its own. */
TEST(a_leader_that_has_ended_and_was_not_waited_for_stands_for_its_session) {
        Tree t = start_tree(in_session);
        Leftover l = leftover(&t);
        siginfo_t si;
        l.attempt = 99; /* nothing is to be seen in environments */
        ck_assert_int_eq(kill(t.leader, SIGKILL), 0);
        ck_assert_int_eq(waitid(P_PID, (id_t)t.leader, &si, WEXITED | WNOWAIT), 0);
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_KILLED);
        ck_assert_uint_eq(n_living(&t), 0);
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_NONE);
        end_tree(&t);
}

TEST(of_several_each_has_its_own_fate) {
        Tree a = start_tree(in_session), b = start_tree(in_session);
        Leftover l[] = { leftover(&a), leftover(&b), leftover(&a) };
        l[1].start_ticks++;
        l[2].pid = 0x3fffffff; /* no kernel gives that */
        ck_assert_int_eq(leftovers_kill(l, 3, BOUND_USEC), 0);
        ck_assert_int_eq(l[0].fate, LEFTOVER_KILLED);
        ck_assert_int_eq(l[1].fate, LEFTOVER_ANOTHER);
        ck_assert_int_eq(l[2].fate, LEFTOVER_NONE);
        ck_assert_uint_eq(n_living(&a), 0);
        ck_assert_uint_eq(n_living(&b), 3);
        end_tree(&a);
        end_tree(&b);
}

TEST(who_may_not_be_killed_is_named_with_the_reason) {
        static const struct {
                FaultSeam seam;
                int error;
        } rows[] = { { FAULT_PIDFD, -EMFILE }, { FAULT_SIGNAL, -EPERM } };
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                Tree t = start_tree(in_session);
                Leftover l = leftover(&t);
                fault_set(rows[i].seam, 1, true);
                ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
                fault_set(rows[i].seam, 0, false);
                ck_assert_int_eq(l.fate, LEFTOVER_ALIVE);
                ck_assert_int_eq(l.error, rows[i].error);
                ck_assert_uint_eq(n_living(&t), 3);
                l = leftover(&t);
                fault_set(rows[i].seam, 1, false); /* the next time it works */
                ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
                ck_assert_int_eq(l.fate, LEFTOVER_KILLED);
                ck_assert_uint_eq(n_living(&t), 0);
                end_tree(&t);
        }
}

TEST(memory_running_out_is_an_error) {
        Tree t = start_tree(in_session);
        for (int n = 1; n <= 3; n++) {
                Leftover l = leftover(&t);
                fault_set(FAULT_ALLOC, n, false);
                ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), -ENOMEM);
                ck_assert_uint_eq(n_living(&t), 3);
        }
        fault_set(FAULT_ALLOC, 0, false);
        end_tree(&t);
}

/* A task may have started the eqd that comes after its own. */
TEST(nobody_kills_the_tree_that_it_is_in) {
        Tree t = { 0 };
        Leftover l = { .pid = getpid(), .start_ticks = procfs_start_ticks(getpid()) };
        t.leader = child_start();
        add(&t, t.leader);
        ck_assert_int_eq(leftovers_kill(&l, 1, BOUND_USEC), 0);
        ck_assert_int_eq(l.fate, LEFTOVER_ALIVE);
        ck_assert_int_eq(l.error, -EDEADLK);
        ck_assert_uint_eq(n_living(&t), 1);
        end_tree(&t);
}

TEST(who_does_not_end_by_itself_is_killed_when_patience_is_over) {
        Tree t = { 0 };
        t.leader = child_start();
        add(&t, t.leader);
        unsigned long long start = procfs_start_ticks(t.leader);
        ck_assert_int_eq(leftover_wait(t.leader, start + 1, 0, BOUND_USEC), 0); /* somebody else */
        fault_set(FAULT_PIDFD, 1, false);
        ck_assert_int_eq(leftover_wait(t.leader, start, 0, BOUND_USEC), -EMFILE);
        fault_set(FAULT_SIGNAL, 1, false);
        ck_assert_int_eq(leftover_wait(t.leader, start, 0, BOUND_USEC), -EPERM);
        ck_assert_uint_eq(n_living(&t), 1);
        ck_assert_int_eq(leftover_wait(t.leader, start, 0, BOUND_USEC), 0);
        ck_assert_uint_eq(n_living(&t), 0);
        end_tree(&t);
        ck_assert_int_eq(leftover_wait(t.leader, start, 0, BOUND_USEC), 0); /* it is gone */
}

TEST(who_ends_by_itself_is_waited_for_and_not_killed) {
        int fds[2], status;
        ck_assert_int_eq(pipe(fds), 0);
        pid_t pid = fork(), other;
        if (pid == 0) {
                char c;
                close_fd(fds[1]);
                _exit(read(fds[0], &c, 1) == 1 ? 7 : 8);
        }
        unsigned long long start = procfs_start_ticks(pid);
        if ((other = fork()) == 0) { /* lets it go when this process waits in poll(), or before */
                ProcfsWhere w;
                do
                        procfs_where(getppid(), 0, &w);
                while (w.state == 'R');
                _exit(write(fds[1], "x", 1) != 1);
        }
        ck_assert_int_eq(leftover_wait(pid, start, BOUND_USEC, BOUND_USEC), 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), 7);
        ck_assert_int_eq(waitpid(other, &status, 0), other);
        close_fd(fds[0]);
        close_fd(fds[1]);
}

RUN_TESTS("leftover", 60, test_the_whole_tree_of_a_leader_is_killed_and_has_ended,
          test_who_died_with_its_group_and_was_waited_for_has_been_killed,
          test_a_process_with_another_start_is_left_alone,
          test_the_session_of_a_leader_that_is_gone_is_killed_if_the_task_is_seen_in_it,
          test_the_session_of_a_leader_that_is_gone_is_left_alone_if_the_task_is_not_seen_in_it,
          test_a_leader_that_has_ended_and_was_not_waited_for_stands_for_its_session,
          test_of_several_each_has_its_own_fate, test_who_may_not_be_killed_is_named_with_the_reason,
          test_memory_running_out_is_an_error, test_nobody_kills_the_tree_that_it_is_in,
          test_who_does_not_end_by_itself_is_killed_when_patience_is_over,
          test_who_ends_by_itself_is_waited_for_and_not_killed)
