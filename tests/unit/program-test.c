/* SPDX-License-Identifier: MIT */
#include "base/program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/util.h"
#include "test.h"

enum { NUMBER = 99 };
#define SAY_ROW "echo row >/proc/self/fd/99"

static int exit_status(pid_t pid) {
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static pid_t start_sh(const char *script, int fd) {
        const char *argv[] = { "/bin/sh", "-c", script, NULL };
        pid_t pid;
        ck_assert_int_eq(program_start(argv, fd, NUMBER, &pid), 0);
        return pid;
}

/* What the script has written to it is read from the other end of the pipe. */
static void is_told(const char *script, const int fds[2]) {
        char text[8] = "";
        ck_assert_int_eq(exit_status(start_sh(script, fds[1])), 0);
        ck_assert_int_eq(read(fds[0], text, sizeof(text)), 4);
        ck_assert_str_eq(text, "row\n");
}

TEST(it_has_the_descriptor_under_that_number_also_where_it_is_that_already) {
        int fds[2];
        ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
        ck_assert_int_ne(fds[1], NUMBER);
        is_told(SAY_ROW, fds);
        ck_assert_int_eq(dup3(fds[1], NUMBER, O_CLOEXEC), NUMBER);
        is_told(SAY_ROW, (int[]) { fds[0], NUMBER });
        close_fd(NUMBER);
        close_fd(fds[0]);
        close_fd(fds[1]);
}

TEST(signals_that_are_ignored_or_blocked_here_are_not_so_there) {
        sigset_t some, before;
        (void)sigemptyset(&some);
        (void)sigaddset(&some, SIGTERM);
        ck_assert_ptr_ne(signal(SIGPIPE, SIG_IGN), SIG_ERR);
        ck_assert_int_eq(sigprocmask(SIG_BLOCK, &some, &before), 0);
        for (size_t i = 0; i < 2; i++) {
                static const int signals[] = { SIGPIPE, SIGTERM };
                int status;
                pid_t pid = start_sh(i == 0 ? "kill -PIPE $$; exit 0" : "kill -TERM $$; exit 0", STDOUT_FILENO);
                ck_assert_int_eq(waitpid(pid, &status, 0), pid);
                ck_assert(WIFSIGNALED(status));
                ck_assert_int_eq(WTERMSIG(status), signals[i]);
        }
        ck_assert_int_eq(sigprocmask(SIG_SETMASK, &before, NULL), 0);
}

TEST(one_that_cannot_be_executed_is_an_error_and_leaves_no_child) {
        pid_t pid;
        ck_assert_int_eq(program_start((const char *[]) { "/nonexistent", NULL }, STDOUT_FILENO, NUMBER, &pid),
                         -ENOENT);
        ck_assert_int_eq(program_start((const char *[]) { "/etc/passwd", NULL }, STDOUT_FILENO, NUMBER, &pid), -EACCES);
        ck_assert_int_lt(waitpid(-1, NULL, WNOHANG), 0);
        ck_assert_int_eq(errno, ECHILD);
}

RUN_TESTS("program", 60, test_it_has_the_descriptor_under_that_number_also_where_it_is_that_already,
          test_signals_that_are_ignored_or_blocked_here_are_not_so_there,
          test_one_that_cannot_be_executed_is_an_error_and_leaves_no_child)
