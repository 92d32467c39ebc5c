/* SPDX-License-Identifier: MIT */
#include "executor/orphans.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/util.h"
#include "child.h"
#include "test.h"

/* A process whose parent has ended, in a session of its own; and it has a child. Ours by inheritance. A pidfd of it. */
static int start_orphan(void) {
        int pipe_fds[2];
        pid_t orphan;

        ck_assert_int_eq(pipe(pipe_fds), 0);
        pid_t parent = fork();
        ck_assert_int_ge(parent, 0);
        if (parent == 0) {
                pid_t pid = fork();
                if (pid == 0) {
                        (void)setsid();
                        (void)child_start();
                        pid = getpid();
                        (void)!write(pipe_fds[1], &pid, sizeof(pid));
                        for (;;)
                                pause();
                }
                _exit(0);
        }
        ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
        ck_assert_int_eq(read(pipe_fds[0], &orphan, sizeof(orphan)), (int)sizeof(orphan));
        close_fd(pipe_fds[0]);
        close_fd(pipe_fds[1]);
        int fd = (int)syscall(SYS_pidfd_open, orphan, 0);
        ck_assert_int_ge(fd, 0);
        return fd;
}

/* Comes before that of the library. Who is waited for ends just before it, so that a sweep reaps whoever it kills. */
static bool is_prompt;

pid_t waitpid(pid_t pid, int *status, int options) {
        siginfo_t si;
        if (is_prompt && pid > 0 && (options & WNOHANG))
                (void)waitid(P_PID, (id_t)pid, &si, WEXITED | WNOWAIT);
        return wait4(pid, status, options, NULL);
}

static void on_turn(uv_timer_t *timer) {
        uv_close((uv_handle_t *)timer, NULL);
}

/* Some turns of the loop, which the timer of the orphans does not keep running. */
static void turn(uv_loop_t *loop) {
        uv_timer_t once;
        ck_assert_int_eq(uv_timer_init(loop, &once), 0);
        ck_assert_int_eq(uv_timer_start(&once, on_turn, 1, 0), 0);
        (void)uv_run(loop, UV_RUN_DEFAULT);
}

TEST(what_others_left_is_killed_and_reaped_and_one_is_spared) {
        uv_loop_t loop;
        Orphans *o;

        ck_assert_int_eq(uv_loop_init(&loop), 0);
        ck_assert_int_eq(orphans_new(&loop, &o), 0);
        pid_t spared = child_start();
        int orphan = start_orphan();
        orphans_sweep(o, spared);
        for (siginfo_t si = { 0 };; si.si_pid = 0) { /* until the spared one is the only child */
                struct pollfd p = { .fd = orphan, .events = POLLIN };
                if (poll(&p, 1, 0) == 1 && waitid(P_PIDFD, (id_t)orphan, &si, WEXITED | WNOHANG | WNOWAIT) < 0)
                        break;
                turn(&loop);
        }
        ck_assert_int_eq(kill(spared, 0), 0);
        orphans_sweep(o, 0);
        siginfo_t left;
        while (waitid(P_ALL, 0, &left, WEXITED | WNOHANG | WNOWAIT) == 0) /* nobody is spared any more */
                turn(&loop);
        ck_assert_int_eq(errno, ECHILD);
        close_fd(orphan);
        orphans_free(o);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&loop), 0);
        uv_library_shutdown(); /* its own descriptors */
}

enum { DEPTH = 100 };

/* Each is the parent of the next, in a session of its own; the last one says that all are there. */
_Noreturn static void be_chain(int fd) {
        unsigned n = 1;
        (void)setsid();
        for (; n < DEPTH && fork() == 0; n++)
                (void)setsid();
        if (n == DEPTH)
                (void)!write(fd, "x", 1);
        for (;;)
                pause();
}

/* Whoever ended between being listed and being waited for handed up what nobody looked for any more. */
TEST(what_is_handed_up_by_who_is_reaped_at_once_is_killed_too) {
        uv_loop_t loop;
        Orphans *o;
        int fds[2];
        char c;

        ck_assert_int_eq(uv_loop_init(&loop), 0);
        ck_assert_int_eq(orphans_new(&loop, &o), 0);
        ck_assert_int_eq(pipe(fds), 0);
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                be_chain(fds[1]);
        close_fd(fds[1]);
        ck_assert_int_eq(read(fds[0], &c, 1), 1);
        is_prompt = true;
        orphans_sweep(o, 0);
        siginfo_t left;
        while (waitid(P_ALL, 0, &left, WEXITED | WNOHANG | WNOWAIT) == 0) /* the limit of time is what fails here */
                turn(&loop);
        ck_assert_int_eq(errno, ECHILD);
        is_prompt = false;
        close_fd(fds[0]);
        orphans_free(o);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&loop), 0);
        uv_library_shutdown();
}

RUN_TESTS("orphans", 30, test_what_others_left_is_killed_and_reaped_and_one_is_spared,
          test_what_is_handed_up_by_who_is_reaped_at_once_is_killed_too)
