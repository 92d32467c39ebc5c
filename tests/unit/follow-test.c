/* SPDX-License-Identifier: MIT */
#include "eqctl/follow.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "fake-eqd.h"
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

        EqTask t = { 0 }; /* with retries */
        EQ_SET(&t, Task, state, eq_str("DEAD"));
        EQ_SET(&t, Task, exit, 0);
        EQ_SET(&t, Task, reason, eq_str("timeout"));
        ck_assert_int_eq(task_exit_status(&t), 124);
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

/* ---- the connection ends ---- */

/* eqctl in a child, which tries for next to no time to connect again. */
static pid_t begin(const FakeEqd *e, int argc, const char *const *words) {
        const char *argv[8] = { "eqctl", "-S", e->path };
        Ctl ctl = CTL_NULL;

        memcpy(argv + 3, words, (size_t)argc * sizeof(*words));
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid > 0)
                return pid;
        close(e->listen_fd);
        int r = ctl_init(&ctl, argc + 3, (char **)argv);
        ctl.give_up_usec = 1;
        _exit(r ? r : verbs[ctl.options.verb].run(&ctl));
}

static int end(pid_t pid) {
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static const char *const wait_words[] = { "wait", "q/1" };
static const char *const submit_words[] = { "submit", "-w", "--", "true" };
static const char *const run_words[] = { "run", "-n", "--", "true" };
static const struct {
        int argc;
        const char *const *words;
        bool submits;
} followers[] = { { 2, wait_words, false }, { 4, submit_words, true }, { 4, run_words, true } };

/* Up to where it waits for the task. */
static uint32_t until_it_waits(FakeEqd *e, size_t i) {
        fake_accept(e);
        if (followers[i].submits)
                fake_reply_id(e, fake_expect(e, "submit", NULL), 5, 1);
        return fake_expect(e, "wait", NULL);
}

static void goes_for_good(size_t i) {
        FakeEqd e;
        fake_init(&e);
        pid_t pid = begin(&e, followers[i].argc, followers[i].words);
        (void)until_it_waits(&e, i);
        close(e.listen_fd);
        e.listen_fd = -1;
        fake_hangup(&e);
        ck_assert_int_eq(end(pid), 75);
        fake_done(&e);
}

static void refuses_to_wait(size_t i) {
        FakeEqd e;
        fake_init(&e);
        pid_t pid = begin(&e, followers[i].argc, followers[i].words);
        fake_reply_error(&e, until_it_waits(&e, i), EQ_E_LIMIT, "too much is asked for");
        ck_assert_int_eq(end(pid), 125);
        fake_done(&e);
}

TEST(an_eqd_that_does_not_come_back_is_75) {
        for (size_t i = 0; i < sizeof(followers) / sizeof(followers[0]); i++)
                goes_for_good(i);
}

TEST(an_eqd_that_refuses_to_wait_is_125_whatever_it_says) {
        for (size_t i = 0; i < sizeof(followers) / sizeof(followers[0]); i++)
                refuses_to_wait(i);
}

/* ---- eqctl is stopped ---- */

/* In the child, whose clock shows three seconds more after it. */
static bool
        is_stopped; /* it is to be, or was: right after a look at the connection that found nothing, while it waits for output */
static const Follow *following;
static uint64_t stopped_usec;

int __real_follow_run(Follow *f);
int __wrap_follow_run(Follow *f);
int __real_eq_client_dispatch(eq_client *c, uint64_t timeout_usec);
int __wrap_eq_client_dispatch(eq_client *c, uint64_t timeout_usec);
uint64_t __real_monotonic_usec(void);
uint64_t __wrap_monotonic_usec(void);

int __wrap_follow_run(Follow *f) {
        following = f;
        return __real_follow_run(f);
}

int __wrap_eq_client_dispatch(eq_client *c, uint64_t timeout_usec) {
        int r = __real_eq_client_dispatch(c, timeout_usec);
        if (r != 0 || !is_stopped || stopped_usec || !following || !following->output_usec)
                return r;
        (void)raise(SIGSTOP);
        stopped_usec = 3000000;
        return r;
}

uint64_t __wrap_monotonic_usec(void) {
        return is_stopped ? 1000000 + stopped_usec : __real_monotonic_usec();
}

static void ended_well(FakeEqd *e, uint32_t msgid) {
        EqTask t = { 0 };
        EQ_SET(&t, Task, id, ((EqIdRef) { .id = { 5, 1 } }));
        EQ_SET(&t, Task, queue, eq_str("default"));
        EQ_SET(&t, Task, state, eq_str("DONE"));
        EQ_SET(&t, Task, exit, 0);
        fake_reply_list(e, msgid, &eq_schema_Task, &t, 1);
}

/* Standard output is the pipe, from here on and in the child. */
static int take_stdout(void) {
        int fds[2];
        ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
        ck_assert_int_eq(dup2(fds[1], STDOUT_FILENO), STDOUT_FILENO);
        close(fds[1]);
        return fds[0];
}

TEST(output_that_came_while_it_was_stopped_is_printed_however_late_that_is) {
        int status, saved = dup(STDOUT_FILENO), out = take_stdout();
        char text[32] = "";
        FakeEqd e;
        fake_init(&e);
        is_stopped = true;
        pid_t pid = begin(&e, followers[2].argc, followers[2].words);
        ended_well(&e, until_it_waits(&e, 2));
        ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
        ck_assert(WIFSTOPPED(status));
        fake_output(&e, 5, 1, EQ_STREAM_STDOUT, "the rest\n");
        fake_output_end(&e, 5, 1);
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
        ck_assert_int_eq(end(pid), 0);
        ck_assert_int_eq(dup2(saved, STDOUT_FILENO), STDOUT_FILENO);
        close(saved);
        ck_assert_int_eq(read(out, text, sizeof(text) - 1), 9);
        ck_assert_str_eq(text, "the rest\n");
        close(out);
        fake_done(&e);
}

RUN_TESTS("follow", 10, test_the_exit_status_of_a_task_is_passed_on_unchanged, test_a_signal_is_128_and_its_number,
          test_a_timeout_is_124_however_it_ended, test_what_never_ran_is_125,
          test_failures_of_eqctl_are_125_but_for_usage_and_unknown_names, test_an_eqd_that_does_not_come_back_is_75,
          test_an_eqd_that_refuses_to_wait_is_125_whatever_it_says,
          test_output_that_came_while_it_was_stopped_is_printed_however_late_that_is)
