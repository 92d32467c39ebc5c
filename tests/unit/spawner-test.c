/* SPDX-License-Identifier: MIT */
/* The program eqd-spawner, asked by an eqd that the test plays. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fdpass.h"
#include "base/util.h"
#include "spawner/wire.h"
#include "start-request.h"
#include "test.h"

typedef union Answer {
        SpawnHeader header;
        SpawnReady ready;
        SpawnStarted started;
        SpawnEnded ended;
} Answer;

typedef struct Rig {
        int line;
        pid_t keeper;
        SpawnReady ready;
} Rig;

/* The next message that is no other than `type`. */
static Answer expect(const Rig *g, SpawnType type) {
        Answer a = { 0 };
        ck_assert_int_ge(recv(g->line, &a, sizeof(a), 0),
                         (int)sizeof(SpawnHeader)); /* waits; there is a limit of time */
        ck_assert_uint_eq(a.header.type, type);
        return a;
}

/* The next end; whether STARTED came before depends on how long it took. */
static SpawnEnded expect_end(const Rig *g) {
        Answer a = { 0 };
        do
                ck_assert_int_gt(recv(g->line, &a, sizeof(a), 0), 0);
        while (a.header.type == SPAWN_STARTED);
        ck_assert_uint_eq(a.header.type, SPAWN_ENDED);
        return a.ended;
}

static void rig_open(Rig *g) {
        static char stock[] = "--stock", one[] = "1", root[] = "--allow-root";
        char *argv[] = { getenv("SPAWNER"), stock, one, root, NULL }, *env[] = { NULL };
        posix_spawn_file_actions_t actions;
        int pair[2], small = 1;

        ck_assert_ptr_nonnull(argv[0]);
        ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* whatever it leaves is ours to see */
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        ck_assert_int_eq(setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0); /* soon full */
        ck_assert_int_eq(posix_spawn_file_actions_init(&actions), 0);
        ck_assert_int_eq(posix_spawn_file_actions_adddup2(&actions, pair[1], SPAWN_FD), 0);
        ck_assert_int_eq(posix_spawn(&g->keeper, argv[0], &actions, NULL, argv, env), 0);
        posix_spawn_file_actions_destroy(&actions);
        close_fd(pair[1]);
        g->line = pair[0];
        g->ready = expect(g, SPAWN_READY).ready;
}

/* Closes the line; everything that was below it must go. */
static void rig_close(Rig *g) {
        close_fd(g->line);
        while (waitpid(-1, NULL, 0) > 0)
                ;
        ck_assert_int_eq(errno, ECHILD);
}

static int send_start(const Rig *g, StartRequest *q, uint32_t slot, uint64_t run, const int *fds, unsigned n_fds) {
        q->start.header.slot = slot;
        q->start.header.run = run;
        q->start.header.epoch = g->ready.header.epoch;
        struct iovec iov = { .iov_base = q, .iov_len = start_request_size(q) };
        return fdpass_send(g->line, &iov, 1, fds, n_fds);
}

/* Waits for room. */
static void start(const Rig *g, StartRequest *q, uint32_t slot, uint64_t run) {
        struct pollfd p = { .fd = g->line, .events = POLLOUT };
        int r;
        while ((r = send_start(g, q, slot, run, NULL, 0)) == -EAGAIN)
                ck_assert_int_eq(poll(&p, 1, -1), 1);
        ck_assert_int_eq(r, 0);
}

static void send_signal(const Rig *g, uint32_t slot, uint64_t run, int signal) {
        SpawnSignal m = { .header = { .magic = SPAWN_MAGIC,
                                      .version = SPAWN_VERSION,
                                      .type = SPAWN_SIGNAL,
                                      .slot = slot,
                                      .run = run,
                                      .epoch = g->ready.header.epoch },
                          .signal = signal };
        ck_assert_int_eq(send(g->line, &m, sizeof(m), 0), (int)sizeof(m));
}

static char state_of(pid_t pid) {
        char path[32], text[256] = "";
        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
        close_fd(fd);
        const char *p = strrchr(text, ')');
        ck_assert_ptr_nonnull(p);
        return p[2];
}

/* Refusals until the spawner's side of the line is full and it stops reading ours: it sleeps then, with something to read. */
static void fill_line(const Rig *g) {
        StartRequest q = start_request_sh("true");
        q.start.flags = 1u << 31;
        for (uint64_t run = 1;;) {
                bool sleeps = state_of(g->ready.pid) == 'S';
                int r = send_start(g, &q, 9, run, NULL, 0);
                if (r == -EAGAIN && sleeps)
                        return;
                ck_assert(r == 0 || r == -EAGAIN);
                run += r == 0; /* none is left out: they are counted as they come back */
                if (r == -EAGAIN)
                        (void)sched_yield();
        }
}

/* A task with a child in a session of its own; the child's pid. */
static pid_t start_tree(const Rig *g) {
        StartRequest q = start_request_sh("setsid sleep 1000 & echo $!; wait");
        char text[32] = "";
        int out[2];

        ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
        q.start.flags = SPAWN_HAS_STDOUT;
        ck_assert_int_eq(send_start(g, &q, 0, 1, &out[1], 1), 0);
        close_fd(out[1]);
        ck_assert_int_gt(read(out[0], text, sizeof(text) - 1), 0);
        close_fd(out[0]);
        (void)expect(g, SPAWN_STARTED);
        return (pid_t)strtol(text, NULL, 10);
}

static void wait_gone(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        ck_assert_int_eq(poll(&p, 1, -1), 1);
        close_fd(pidfd);
}

static int open_pidfd(pid_t pid) {
        int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        ck_assert_int_ge(fd, 0);
        return fd;
}

TEST(a_command_is_run_and_its_end_told) {
        Rig g;
        rig_open(&g);
        for (uint64_t run = 1; run <= 5; run++) {
                StartRequest q = start_request_sh("exit 6");
                start(&g, &q, 3, run);
                SpawnEnded e = expect_end(&g);
                ck_assert_uint_eq(e.header.slot, 3);
                ck_assert_uint_eq(e.header.run, run);
                ck_assert_int_eq(e.exit, 6);
                ck_assert_uint_eq(e.stage, SPAWN_STAGE_NONE);
        }
        rig_close(&g);
}

TEST(a_status_of_127_is_told_apart_from_a_command_that_is_not_there) {
        static const char *const argv[] = { "/nowhere/command", NULL }, *const env[] = { NULL };
        Rig g;
        rig_open(&g);
        StartRequest is_there = start_request_sh("exit 127"), is_not = start_request(argv, env, "/");
        start(&g, &is_there, 0, 1);
        SpawnEnded e = expect_end(&g);
        ck_assert_int_eq(e.exit, 127);
        ck_assert_uint_eq(e.stage, SPAWN_STAGE_NONE);
        start(&g, &is_not, 0, 2);
        e = expect_end(&g);
        ck_assert_uint_eq(e.stage, SPAWN_STAGE_EXEC);
        ck_assert_int_eq(e.error, ENOENT);
        rig_close(&g);
}

TEST(a_slot_takes_one_command_at_a_time) {
        Rig g;
        rig_open(&g);
        (void)start_tree(&g);
        StartRequest q = start_request_sh("true");
        start(&g, &q, 0, 2);
        SpawnEnded e = expect_end(&g);
        ck_assert_uint_eq(e.stage, SPAWN_STAGE_REQUEST);
        ck_assert_int_eq(e.error, EBUSY);
        ck_assert_uint_eq(e.header.run, 2);
        rig_close(&g);
}

TEST(a_signal_reaches_the_tree_and_not_the_next_run) {
        Rig g;
        rig_open(&g);
        (void)start_tree(&g);
        send_signal(&g, 0, 7, SIGKILL); /* of a run that is not */
        send_signal(&g, 0, 1, SIGTERM);
        SpawnEnded e = expect_end(&g);
        ck_assert_int_eq(e.signal, SIGTERM);
        rig_close(&g);
}

/* The process that waits, stopped: what is sent to it stays unread. */
static pid_t stop_waiting(const Rig *g) {
        char path[64], text[64] = "";
        pid_t pid = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)g->ready.pid, (int)g->ready.pid);
        while (pid == 0) { /* it is made in a moment */
                int fd = open(path, O_RDONLY | O_CLOEXEC);
                ck_assert_int_ge(fd, 0);
                ck_assert_int_ge(read(fd, text, sizeof(text) - 1), 0);
                close_fd(fd);
                pid = (pid_t)strtol(text, NULL, 10);
        }
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        while (state_of(pid) != 'T')
                (void)sched_yield();
        return pid;
}

TEST(a_process_killed_before_it_is_the_command_counts_as_one_that_was_not_made) {
        Rig g;
        StartRequest q = start_request_sh("true");
        rig_open(&g);
        pid_t waiting = stop_waiting(&g);
        start(&g, &q, 0, 1);
        q = start_request_sh("exit 3");
        start(&g, &q, 1, 1);
        ck_assert_int_eq(expect_end(&g).exit, 3); /* so the other request has been handed over */
        ck_assert_int_eq(kill(waiting, SIGKILL), 0);
        SpawnEnded e = expect_end(&g);
        ck_assert_uint_eq(e.header.slot, 0);
        ck_assert_uint_eq(e.stage, SPAWN_STAGE_FORK);
        ck_assert_int_eq(e.error, EAGAIN);
        rig_close(&g);
}

TEST(a_kill_that_was_asked_for_is_the_end_also_before_it_is_the_command) {
        Rig g;
        StartRequest q = start_request_sh("true");
        rig_open(&g);
        (void)stop_waiting(&g);
        start(&g, &q, 0, 1);
        send_signal(&g, 0, 1, SIGKILL);
        SpawnEnded e = expect_end(&g);
        ck_assert_uint_eq(e.stage, SPAWN_STAGE_NONE);
        ck_assert_int_eq(e.signal, SIGKILL);
        rig_close(&g);
}

TEST(a_request_of_another_epoch_is_dropped) {
        Rig g;
        rig_open(&g);
        StartRequest q = start_request_sh("true");
        g.ready.header.epoch++;
        start(&g, &q, 0, 1);
        g.ready.header.epoch--;
        start(&g, &q, 0, 2);
        ck_assert_uint_eq(expect_end(&g).header.run, 2);
        rig_close(&g);
}

TEST(refusals_wait_for_room_and_none_is_lost) {
        Rig g;
        rig_open(&g);
        fill_line(&g);
        uint64_t run = 1;
        StartRequest q = start_request_sh("exit 5");
        for (bool sent = false;; run++) {
                sent = sent || send_start(&g, &q, 1, 1000000, NULL, 0) == 0; /* room comes as we read */
                SpawnEnded e = expect_end(&g);
                if (e.header.run == 1000000) {
                        ck_assert_int_eq(e.exit, 5);
                        break;
                }
                ck_assert_uint_eq(e.header.run, run);
                ck_assert_uint_eq(e.stage, SPAWN_STAGE_REQUEST);
                ck_assert_int_eq(e.error, EINVAL);
        }
        ck_assert_uint_gt(run, 3);
        rig_close(&g);
}

/* It waited for room for ever, and the tasks of a spawner whose keeper was gone lived on. */
TEST(a_full_line_does_not_keep_the_worker_from_following_its_keeper) {
        Rig g;
        rig_open(&g);
        int stray = open_pidfd(start_tree(&g));
        fill_line(&g);
        ck_assert_int_eq(kill(g.keeper, SIGKILL), 0);
        wait_gone(stray);
        rig_close(&g);
}

/* So did the keeper, and what a dead worker had left was not killed before eqd read again. */
TEST(a_full_line_does_not_keep_the_keeper_from_killing) {
        Rig g;
        Answer a;
        rig_open(&g);
        int stray = open_pidfd(start_tree(&g));
        fill_line(&g);
        ck_assert_int_eq(kill(g.ready.pid, SIGKILL), 0);
        wait_gone(stray);
        do
                ck_assert_int_gt(recv(g.line, &a, sizeof(a), 0), 0);
        while (a.header.type != SPAWN_READY);
        ck_assert_uint_eq(a.ready.header.epoch, g.ready.header.epoch + 1);
        ck_assert_uint_eq(a.ready.restarts, 1);
        g.ready = a.ready;
        StartRequest q = start_request_sh("exit 2");
        start(&g, &q, 0, 1);
        ck_assert_int_eq(expect_end(&g).exit, 2);
        rig_close(&g);
}

RUN_TESTS("spawner", 60, test_a_command_is_run_and_its_end_told,
          test_a_status_of_127_is_told_apart_from_a_command_that_is_not_there, test_a_slot_takes_one_command_at_a_time,
          test_a_signal_reaches_the_tree_and_not_the_next_run,
          test_a_process_killed_before_it_is_the_command_counts_as_one_that_was_not_made,
          test_a_kill_that_was_asked_for_is_the_end_also_before_it_is_the_command,
          test_a_request_of_another_epoch_is_dropped, test_refusals_wait_for_room_and_none_is_lost,
          test_a_full_line_does_not_keep_the_worker_from_following_its_keeper,
          test_a_full_line_does_not_keep_the_keeper_from_killing)
