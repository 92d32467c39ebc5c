/* SPDX-License-Identifier: MIT */
#include "spawner/stock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/fdpass.h"
#include "base/util.h"
#include "start-request.h"
#include "test.h"

typedef struct Rig {
        ChildConfig child;
        Stock stock;
} Rig;

static void rig_open(Rig *g, unsigned size) {
        sigset_t all;
        sigfillset(&all);
        (void)sigprocmask(SIG_SETMASK, &all, NULL); /* as the worker has them */
        g->child = (ChildConfig) {
                .null_fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                .inbox = inbox_new(),
                .parent = getpid(),
                .bounding_is_empty = true, /* nothing to forbid: the test runs what it knows */
        };
        ck_assert_int_ge(g->child.null_fd, 0);
        ck_assert_ptr_nonnull(g->child.inbox);
        stock_init(&g->stock, &g->child, -1, size);
}

/* The waiting ones end when their line does. */
static void rig_close(Rig *g) {
        while (!list_is_empty(&g->stock.waiting)) {
                pid_t pid = LIST_ENTRY(g->stock.waiting.next, Stub, link)->pid;
                stock_forget(&g->stock, pid);
                int status;
                ck_assert_int_eq(waitpid(pid, &status, 0), pid);
                ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == CHILD_EXIT);
        }
        close_fd(g->child.null_fd);
        close_fd(g->stock.places.suid_dumpable);
        ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1);
}

static void fill(Rig *g, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                ck_assert_int_eq(stock_fill(&g->stock, 1), 0);
}

static const Stub *first_waiting(const Rig *g) {
        return LIST_ENTRY(g->stock.waiting.next, Stub, link);
}

/* As the worker has it from the line. q: outlives the call. */
static int start(Rig *g, StartRequest *q, const int *fds, Stub *ret, SpawnStage *ret_stage) {
        Request r = { .start = &q->start,
                      .strings = q->strings,
                      .n_strings = q->start.n_strings,
                      .message = { .n = start_request_size(q) } };
        r.message.n_fds = (unsigned)__builtin_popcount(
                q->start.flags & (SPAWN_HAS_STDIN | SPAWN_HAS_STDOUT | SPAWN_HAS_STDERR | SPAWN_HAS_STRINGS));
        for (unsigned i = 0; i < r.message.n_fds; i++)
                r.message.fds[i] = fds[i];
        return stock_start(&g->stock, &r, ret, ret_stage);
}

/* Its exit status; -1: a signal. */
static int end_of(Stub *stub) {
        int status;
        ck_assert_int_eq(waitpid(stub->pid, &status, 0), stub->pid);
        close_fd(stub->line);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Starts a script; returns its exit status. */
static int run(Rig *g, const char *script) {
        StartRequest q = start_request_sh(script);
        SpawnStage stage;
        Stub stub;
        ck_assert_int_eq(start(g, &q, NULL, &stub, &stage), 0);
        return end_of(&stub);
}

TEST(a_waiting_process_becomes_the_command) {
        Rig g;
        StartRequest q = start_request_sh("echo $$; exit 7");
        char text[32] = "", want[32];
        SpawnStage stage;
        Stub stub;
        int out[2];

        rig_open(&g, 1);
        fill(&g, 1);
        pid_t waiting = first_waiting(&g)->pid;
        ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
        q.start.flags = SPAWN_HAS_STDOUT;
        ck_assert_int_eq(start(&g, &q, &out[1], &stub, &stage), 0);
        close_fd(out[1]);
        ck_assert_int_eq(stub.pid, waiting);
        ck_assert_uint_eq(g.stock.n_waiting, 0);
        ck_assert_int_eq(recv(stub.line, text, sizeof(text), 0), 0); /* it got to exec */
        ck_assert_int_gt(read(out[0], text, sizeof(text) - 1), 0);
        (void)snprintf(want, sizeof(want), "%d\n", (int)waiting);
        ck_assert_str_eq(text, want);
        ck_assert_int_eq(end_of(&stub), 7);
        close_fd(out[0]);
        rig_close(&g);
}

TEST(without_a_stock_a_process_is_made_for_the_command) {
        Rig g;
        rig_open(&g, 0);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), UINT64_MAX);
        ck_assert_int_eq(run(&g, "exit 3"), 3);
        rig_close(&g);
}

static unsigned n_spare(const Rig *g) {
        unsigned n = 0;
        LIST_FOREACH (l, &g->stock.spare)
                n++;
        return n;
}

/* Memory of the worker's own is not given back: what stands for a process is used again. */
TEST(many_commands_need_no_more_memory_than_wait_at_once) {
        Rig g;
        rig_open(&g, 2);
        fill(&g, 2);
        for (int i = 0; i < 20; i++) {
                ck_assert_int_eq(run(&g, "exit 0"), 0);
                ck_assert_uint_eq(n_spare(&g), 1);
                fill(&g, 1);
                ck_assert_uint_eq(n_spare(&g), 0);
        }
        fault_set(FAULT_SPAWN, 1, true);
        ck_assert_int_eq(run(&g, "exit 0"), 0);
        ck_assert_int_eq(stock_fill(&g.stock, 1), -EAGAIN);
        ck_assert_uint_eq(n_spare(&g), 1);
        fault_set(FAULT_SPAWN, 0, false);
        rig_close(&g);
        ck_assert_uint_eq(n_spare(&g), 2);
}

TEST(what_waits_starts_while_no_process_can_be_made) {
        Rig g;
        StartRequest q = start_request_sh("exit 4");
        SpawnStage stage = SPAWN_STAGE_NONE;
        Stub stub;

        rig_open(&g, 2);
        fill(&g, 2);
        fault_set(FAULT_SPAWN, 1, true);
        ck_assert_int_eq(run(&g, "exit 3"), 3);
        ck_assert_int_eq(run(&g, "exit 4"), 4);
        ck_assert_int_eq(start(&g, &q, NULL, &stub, &stage), -EAGAIN);
        ck_assert_int_eq(stage, SPAWN_STAGE_FORK);
        fault_set(FAULT_SPAWN, 0, false);
        ck_assert_int_eq(run(&g, "exit 5"), 5);
        rig_close(&g);
}

TEST(a_refused_fork_is_due_again_a_little_later) {
        Rig g;
        rig_open(&g, 1);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1000), 0);
        fault_set(FAULT_SPAWN, 1, false);
        ck_assert_int_eq(stock_fill(&g.stock, 1000), -EAGAIN);
        uint64_t due = stock_due_usec(&g.stock, 1000);
        ck_assert(due > 0 && due < 1000000);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1000 + due), 0);
        ck_assert_int_eq(stock_fill(&g.stock, 1000 + due), 0);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1000 + due), UINT64_MAX);
        rig_close(&g);
}

TEST(one_that_was_killed_gets_no_command) {
        Rig g;
        rig_open(&g, 2);
        fill(&g, 2);
        pid_t victim = first_waiting(&g)->pid;
        ck_assert_int_eq(kill(victim, SIGKILL), 0);
        ck_assert_int_eq(waitpid(victim, NULL, 0), victim);
        ck_assert_int_eq(run(&g, "exit 3"), 3); /* nobody has told the stock */
        ck_assert_uint_eq(g.stock.n_waiting, 0);
        rig_close(&g);
}

TEST(one_that_is_known_to_be_dead_is_made_up_for) {
        Rig g;
        rig_open(&g, 1);
        fill(&g, 1);
        pid_t victim = first_waiting(&g)->pid;
        ck_assert(stock_has(&g.stock, victim));
        ck_assert_int_eq(kill(victim, SIGKILL), 0);
        ck_assert_int_eq(waitpid(victim, NULL, 0), victim);
        stock_forget(&g.stock, victim);
        ck_assert(!stock_has(&g.stock, victim));
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), 0);
        rig_close(&g);
}

/* A pipe whose write end a waiting process kept would not end with the command that it belongs to. */
TEST(what_waits_holds_no_descriptor_of_others) {
        Rig g;
        char c;
        int other[2];

        rig_open(&g, 1);
        ck_assert_int_eq(pipe2(other, O_CLOEXEC), 0);
        fill(&g, 1);
        close_fd(other[1]);
        ck_assert_int_eq(read(other[0], &c, 1), 0);
        close_fd(other[0]);
        rig_close(&g);
}

TEST(a_command_has_its_three_descriptors_and_no_more) {
        Rig g;
        rig_open(&g, 1);
        fill(&g, 1);
        ck_assert_int_eq(run(&g, "for f in /proc/$$/fd/*; do [ ${f##*/} -le 2 ] || [ ! -e $f ] || exit 9; done; "
                                 "[ $(readlink /proc/$$/fd/0) = /dev/null ]"),
                         0);
        rig_close(&g);
}

/* What a task was given is not for the process that becomes somebody else's. */
TEST(a_copy_does_not_have_earlier_requests) {
        Rig g;
        rig_open(&g, 1);
        memset(g.child.inbox, 'x', sizeof(*g.child.inbox));
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
                const char *p = (const char *)g.child.inbox;
                for (size_t i = 0; i < sizeof(*g.child.inbox); i++)
                        if (p[i] != 0)
                                _exit(1);
                _exit(0);
        }
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        rig_close(&g);
}

TEST(what_waits_ends_with_the_process_that_made_it) {
        ck_assert_int_eq(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        pid_t maker = fork();
        ck_assert_int_ge(maker, 0);
        if (maker == 0) {
                Rig g;
                rig_open(&g, 2);
                fill(&g, 2);
                _exit(0);
        }
        for (int i = 0; i < 3; i++)
                ck_assert_int_gt(waitpid(-1, NULL, 0), 0); /* the limit of time is what fails here */
        ck_assert_int_eq(waitpid(-1, NULL, 0), -1);
}

TEST(a_failure_before_exec_comes_back_with_its_stage) {
        static const char *const argv[] = { "/nowhere/command", NULL }, *const env[] = { NULL };
        Rig g;
        StartRequest q = start_request(argv, env, "/");
        ChildError error;
        SpawnStage stage;
        Stub stub;

        rig_open(&g, 1);
        fill(&g, 1);
        ck_assert_int_eq(start(&g, &q, NULL, &stub, &stage), 0);
        ck_assert_int_eq(recv(stub.line, &error, sizeof(error), 0), (int)sizeof(error));
        ck_assert_uint_eq(error.stage, SPAWN_STAGE_EXEC);
        ck_assert_int_eq(error.error, ENOENT);
        ck_assert_int_eq(end_of(&stub), 127);
        rig_close(&g);
}

TEST(a_stock_that_gets_smaller_sends_the_oldest_away_and_knows_them_until_they_are_gone) {
        Rig g;
        int status;
        rig_open(&g, 3);
        fill(&g, 3);
        pid_t oldest = first_waiting(&g)->pid;
        stock_set_size(&g.stock, 2);
        ck_assert_uint_eq(g.stock.n_waiting, 2);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), UINT64_MAX);
        ck_assert(stock_has(&g.stock, oldest)); /* no stray */
        ck_assert_int_eq(waitpid(oldest, &status, 0), oldest);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == CHILD_EXIT);
        stock_forget(&g.stock, oldest);
        ck_assert(!stock_has(&g.stock, oldest));
        ck_assert_uint_eq(g.stock.n_waiting, 2);
        stock_set_size(&g.stock, 3);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), 0);
        rig_close(&g);
}

TEST(a_stock_is_bounded) {
        Rig g;
        rig_open(&g, 1000000);
        ck_assert_uint_eq(g.stock.size, STOCK_SIZE_MAX);
        rig_close(&g);
}

static int run_in(Rig *g, uint32_t slot, const char *script) {
        StartRequest q = start_request_sh(script);
        SpawnStage stage;
        Stub stub;
        q.start.header.slot = slot;
        int r = start(g, &q, NULL, &stub, &stage);
        if (r < 0) {
                ck_assert_uint_eq(stage, SPAWN_STAGE_FORK);
                return r;
        }
        return end_of(&stub);
}

/* There is room for one process: it is the one that was promised, whoever asks first. */
TEST(a_reserve_that_is_missing_is_made_before_a_process_for_anybody) {
        enum { SLOT = 5, OTHER = 1 };
        Rig g;

        rig_open(&g, 0);
        ck_assert_int_eq(stock_reserve(&g.stock, SLOT, false), 0);
        ck_assert_int_eq(run_in(&g, SLOT, "exit 3"), 3);
        fault_set(FAULT_SPAWN, 1, true);
        stock_restore(&g.stock, SLOT);
        ck_assert_int_eq(run_in(&g, OTHER, "exit 4"), -EAGAIN);
        ck_assert_int_eq(run_in(&g, SLOT, "exit 4"), -EAGAIN);
        fault_set(FAULT_SPAWN, 2, true);
        ck_assert_int_eq(run_in(&g, OTHER, "exit 4"), -EAGAIN);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), UINT64_MAX);
        ck_assert_int_eq(run_in(&g, SLOT, "exit 5"), 5);
        stock_restore(&g.stock, SLOT);
        fault_set(FAULT_SPAWN, 2, true);
        ck_assert_int_eq(run_in(&g, SLOT, "exit 6"), 6); /* by its own, made for it */
        fault_set(FAULT_SPAWN, 0, false);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), UINT64_MAX);
        stock_unreserve(&g.stock, SLOT);
        rig_close(&g);
}

/* ---- the worker's memory ---- */

static bool shares_memory(pid_t pid) {
        long r = syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0);
        ck_assert_int_ge(r, 0);
        return r == 0;
}

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
enum { CAN_SHARE = true };
#else
enum { CAN_SHARE = false };
#endif

/* As the sysctl is here. */
static bool may_share(void) {
        char mode = '?';
        FILE *f = fopen("/proc/sys/fs/suid_dumpable", "re");
        if (f) {
                mode = (char)fgetc(f);
                (void)fclose(f);
        }
        return CAN_SHARE && mode == '0';
}

static int make_fake_sysctl(char path[64], const char *value) {
        (void)snprintf(path, 64, "/proc/self/fd/%d", memfd_create("suid_dumpable", 0));
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ck_assert_int_eq(pwrite(fd, value, 1, 0), 1);
        return fd;
}

TEST(what_waits_shares_the_memory_of_who_made_it) {
        Rig g;
        rig_open(&g, 1);
        fill(&g, 1);
        ck_assert_int_eq(shares_memory(first_waiting(&g)->pid), may_share());
        rig_close(&g);
}

TEST(what_is_made_for_a_command_shares_it_too) {
        Rig g;
        rig_open(&g, 0);
        ck_assert_int_eq(run(&g, "exit 3"), 3);
        ck_assert_uint_eq(g.stock.places.n, may_share() ? 1 : 0);
        rig_close(&g);
}

TEST(what_waits_for_one_slot_only_has_a_copy) {
        enum { SLOT = 5 };
        Rig g;
        rig_open(&g, 0);
        for (int later = 0; later < 2; later++) {
                if (later)
                        fault_set(FAULT_SPAWN, 1, false);
                ck_assert_int_eq(stock_reserve(&g.stock, SLOT, later), later ? -EAGAIN : 0);
                if (later)
                        fill(&g, 1);
                pid_t pid = LIST_ENTRY(g.stock.reserves.next, Reserve, link)->stub->pid;
                ck_assert(!shares_memory(pid));
                stock_unreserve(&g.stock, SLOT);
                ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
                stock_forget(&g.stock, pid);
        }
        rig_close(&g);
}

TEST(where_no_thread_or_memory_is_for_a_place_a_copy_is_made) {
        static const FaultSeam seams[] = { FAULT_THREAD, FAULT_ALLOC };
        for (size_t i = 0; i < ELEMENTSOF(seams); i++) {
                Rig g;
                rig_open(&g, 1);
                ck_assert_int_eq(run(&g, "exit 2"), 2); /* has what memory the stock needs */
                g.stock.places = (Places) { .suid_dumpable = g.stock.places.suid_dumpable };
                fault_set(seams[i], 1, true);
                fill(&g, 1);
                fault_set(seams[i], 0, false);
                ck_assert_uint_eq(g.stock.places.n, 0);
                ck_assert(!shares_memory(first_waiting(&g)->pid));
                ck_assert_int_eq(run(&g, "exit 3"), 3);
                rig_close(&g);
        }
}

/* fs.suid_dumpable says whether the memory could be looked at, or dumped, when a child becomes somebody else. */
TEST(nothing_is_shared_while_memory_could_be_looked_at) {
        static const char *const values[] = { "1", "2" };
        char path[64];
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                Rig g;
                rig_open(&g, 2);
                close_fd(g.stock.places.suid_dumpable);
                int fake = make_fake_sysctl(path, values[i]), memfd = atoi(strrchr(path, '/') + 1);
                places_init(&g.stock.places, path);
                fill(&g, 1);
                ck_assert(!shares_memory(first_waiting(&g)->pid));
                ck_assert_int_eq(run(&g, "exit 3"), 3);
                ck_assert_int_eq(pwrite(fake, "0", 1, 0), 1);
                fill(&g, 2);
                pid_t old = first_waiting(&g)->pid;
                ck_assert_int_eq(shares_memory(old), may_share());
                ck_assert_int_eq(pwrite(fake, values[i], 1, 0), 1);
                StartRequest q = start_request_sh("exit 4");
                SpawnStage stage;
                Stub stub;
                ck_assert_int_eq(start(&g, &q, NULL, &stub, &stage), 0);
                ck_assert(!stub.shares); /* neither of those that wait */
                ck_assert_int_eq(end_of(&stub), 4);
                fill(&g, 1);
                ck_assert(!shares_memory(LIST_ENTRY(g.stock.waiting.prev, Stub, link)->pid));
                while (!list_is_empty(&g.stock.leaving)) {
                        pid_t pid = LIST_ENTRY(g.stock.leaving.next, Stub, link)->pid;
                        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
                        stock_forget(&g.stock, pid);
                }
                close_fd(fake);
                close_fd(memfd);
                rig_close(&g);
        }
        Rig g;
        rig_open(&g, 1);
        close_fd(g.stock.places.suid_dumpable);
        places_init(&g.stock.places, "/nowhere");
        fill(&g, 1);
        ck_assert(!shares_memory(first_waiting(&g)->pid));
        rig_close(&g);
}

/* One has left when it executes something, and when it is killed before. */
TEST(commands_one_after_the_other_use_few_places) {
        Rig g;
        rig_open(&g, 2);
        fill(&g, 2);
        unsigned n = g.stock.places.n;
        ck_assert_uint_eq(n, may_share() ? 2 : 0);
        for (int i = 0; i < 20; i++) {
                ck_assert_int_eq(run(&g, "exit 3"), 3);
                fill(&g, 1);
                pid_t victim = first_waiting(&g)->pid;
                ck_assert_int_eq(kill(victim, SIGKILL), 0);
                ck_assert_int_eq(waitpid(victim, NULL, 0), victim);
                stock_forget(&g.stock, victim);
                fill(&g, 1);
        }
        ck_assert_uint_eq(g.stock.places.n, n);
        rig_close(&g);
}

/* Each has an errno of its own. */
TEST(what_fails_in_a_child_changes_no_errno_of_the_worker) {
        enum { MINE = 4242 };
        static const char *const argv[] = { "/nowhere/command", NULL }, *const env[] = { NULL };
        Rig g;
        StartRequest q = start_request(argv, env, "/");
        ChildError error;
        SpawnStage stage;
        Stub stub;

        rig_open(&g, 1);
        fill(&g, 1);
        ck_assert_int_eq(start(&g, &q, NULL, &stub, &stage), 0);
        errno = MINE;
        ck_assert_int_eq(recv(stub.line, &error, sizeof(error), 0), (int)sizeof(error));
        ck_assert_int_eq(errno, MINE);
        ck_assert_int_eq(error.error, ENOENT);
        ck_assert_int_eq(end_of(&stub), 127);
        rig_close(&g);
}

/* So many strings that they come in a memfd, and more of them than the child has room for on its stack. */
static int run_large(Rig *g) {
        enum { N = 100000 };
        static char strings[2 * N + 64];
        StartRequest q = start_request_sh("exit $(($# % 100))");
        SpawnStage stage;
        Stub stub;

        /* -c SCRIPT, then the arguments; what follows them is the environment and the paths */
        size_t head = strlen(q.strings) + 1;
        head += strlen(q.strings + head) + 1;
        head += strlen(q.strings + head) + 1;
        size_t tail = q.start.n_strings - head;
        memcpy(strings, q.strings, head);
        for (size_t i = 0; i < N; i++)
                memcpy(strings + head + 2 * i, "x", 2);
        memcpy(strings + head + (size_t)2 * N, q.strings + head, tail);
        q.start.n_strings = (uint32_t)(head + (size_t)2 * N + tail);
        q.start.n_argv += N;
        q.start.flags = SPAWN_HAS_STRINGS;
        int memfd = memfd_create("strings", MFD_CLOEXEC);
        ck_assert_int_ge(memfd, 0);
        ck_assert_int_eq(write(memfd, strings, q.start.n_strings), (ssize_t)q.start.n_strings);
        Request r = { .start = &q.start, .message = { .n = sizeof(q.start), .n_fds = 1, .fds = { memfd } } };
        ck_assert_int_eq(stock_start(&g->stock, &r, &stub, &stage), 0);
        close_fd(memfd);
        return end_of(&stub);
}

/* An open /proc/self/mem, or a device that keeps the memory of who opens it, would outlive exec. */
static int run_with_output(Rig *g) {
        static const char *const argv[] = { "/bin/sh", "-c", "exit 7", NULL }, *const env[] = { NULL };
        StartRequest q = start_request_to(argv, env, "/", "/dev/null");
        SpawnStage stage;
        Stub stub;
        ck_assert_int_eq(start(g, &q, NULL, &stub, &stage), 0);
        ck_assert(!stub.shares);
        return end_of(&stub);
}

TEST(what_opens_files_or_needs_much_memory_has_a_copy_and_the_next_one_waits_with_one) {
        struct {
                int (*run)(Rig *g);
                int exit;
        } kinds[] = { { run_with_output, 7 }, { run_large, 99 } }; /* N - 1 arguments: the first is $0 */
        for (size_t i = 0; i < ELEMENTSOF(kinds); i++) {
                Rig g;
                rig_open(&g, 3);
                fill(&g, 1);
                pid_t plain = first_waiting(&g)->pid;
                ck_assert_int_eq(kinds[i].run(&g), kinds[i].exit);
                ck_assert_int_eq(first_waiting(&g)->pid == plain, may_share());
                fill(&g, 1);
                pid_t copy = LIST_ENTRY(g.stock.waiting.prev, Stub, link)->pid;
                ck_assert(!shares_memory(copy));
                fault_set(FAULT_SPAWN, 1, true);
                ck_assert_int_eq(kinds[i].run(&g), kinds[i].exit); /* by that one */
                fault_set(FAULT_SPAWN, 0, false);
                rig_close(&g);
        }
}

/* However many wait that share memory. What goes for it goes when it is there. */
TEST(a_copy_waits_for_what_needs_one_also_where_all_places_of_the_stock_are_taken) {
        Rig g;
        rig_open(&g, 2);
        fill(&g, 2);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), UINT64_MAX);
        ck_assert_int_eq(run_with_output(&g), 7);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), 0);
        fault_set(FAULT_SPAWN, 1, false);
        ck_assert_int_eq(stock_fill(&g.stock, 1), -EAGAIN);
        ck_assert_uint_eq(g.stock.n_waiting, may_share() ? 2 : 1);
        fill(&g, 1);
        ck_assert_uint_eq(g.stock.n_waiting, 2);
        ck_assert_uint_eq(stock_due_usec(&g.stock, 1), UINT64_MAX);
        fault_set(FAULT_SPAWN, 1, true);
        ck_assert_int_eq(run_with_output(&g), 7);
        ck_assert_int_eq(run(&g, "exit 3"), 3);
        fault_set(FAULT_SPAWN, 0, false);
        while (!list_is_empty(&g.stock.leaving)) {
                pid_t pid = LIST_ENTRY(g.stock.leaving.next, Stub, link)->pid;
                ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
                stock_forget(&g.stock, pid);
        }
        rig_close(&g);
}

/* A child is told, in case that the worker is wrong. */
static void expect_refusal(const StartRequest *q, size_t n, const int *fds, unsigned n_fds) {
        struct iovec iov = { .iov_base = (void *)q, .iov_len = n };
        ChildError error;
        Rig g;

        rig_open(&g, 1);
        fill(&g, 1);
        const Stub *stub = first_waiting(&g);
        if (stub->shares) {
                ck_assert_int_eq(fdpass_send(stub->line, &iov, 1, fds, n_fds), 0);
                ck_assert_int_eq(recv(stub->line, &error, sizeof(error), 0), (int)sizeof(error));
                ck_assert_uint_eq(error.stage, SPAWN_STAGE_REQUEST);
                ck_assert_int_eq(error.error, EINVAL);
        }
        rig_close(&g);
}

TEST(one_that_shares_memory_refuses_what_it_must_not_do) {
        static const char *const argv[] = { "/bin/true", NULL }, *const env[] = { NULL };
        StartRequest q = start_request_to(argv, env, "/", "/dev/null");
        expect_refusal(&q, start_request_size(&q), NULL, 0);

        const char *many[REQUEST_POINTERS_PLAIN] = { NULL }; /* one more than there is room for */
        for (size_t i = 0; i < ELEMENTSOF(many) - 1; i++)
                many[i] = "x";
        q = start_request(many, env, "/");
        expect_refusal(&q, start_request_size(&q), NULL, 0);

        q = start_request(argv, env, "/");
        q.start.flags = SPAWN_HAS_STRINGS;
        int memfd = memfd_create("strings", MFD_CLOEXEC);
        ck_assert_int_eq(write(memfd, q.strings, q.start.n_strings), (ssize_t)q.start.n_strings);
        expect_refusal(&q, sizeof(q.start), &memfd, 1);
        close_fd(memfd);
}

/* The real one, as /proc has it. */
static uid_t uid_of(pid_t pid) {
        char path[64], line[256];
        unsigned uid = UINT32_MAX;
        (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
        FILE *f = fopen(path, "re");
        ck_assert_ptr_nonnull(f);
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "Uid: %u", &uid) == 1)
                        break;
        (void)fclose(f);
        return uid;
}

/* May somebody of that uid look into it? As root: a process becomes that uid first. */
static bool may_look_in(pid_t pid, uid_t uid) {
        int status;
        pid_t other = fork();
        ck_assert_int_ge(other, 0);
        if (other == 0) {
                char path[64], c;
                struct iovec local = { &c, 1 }, remote = { (void *)&may_look_in, 1 };
                (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
                if (getuid() != uid && syscall(SYS_setresuid, uid, uid, uid) < 0)
                        _exit(2);
                bool seen = open(path, O_RDONLY | O_CLOEXEC) >= 0 ||
                            process_vm_readv(pid, &local, 1, &remote, 1, 0) == 1 ||
                            ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0;
                _exit(seen);
        }
        ck_assert_int_eq(waitpid(other, &status, 0), other);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) < 2);
        return WEXITSTATUS(status) == 1;
}

static int make_program(char path[64], const char *dir) {
        char block[4096];
        (void)snprintf(path, 64, "%s/program", dir);
        int from = open("/bin/true", O_RDONLY | O_CLOEXEC), to = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0755);
        ck_assert(from >= 0 && to >= 0);
        for (ssize_t n; (n = read(from, block, sizeof(block))) > 0;)
                ck_assert_int_eq(write(to, block, (size_t)n), n);
        close_fd(from);
        return to;
}

/* A lease on the program keeps it in execve(): it has become who it is to be, and has the worker's memory still. */
TEST(one_that_hangs_before_exec_holds_up_nobody_and_lets_nobody_look_in) {
        char dir[] = "/tmp/eqd-stock-XXXXXX", program[64];
        bool root = getuid() == 0;
        SpawnStage stage;
        Stub stub;
        Rig g;

        ck_assert_ptr_nonnull(mkdtemp(dir));
        ck_assert_int_eq(chmod(dir, 0755), 0);
        int lease = make_program(program, dir);
        ck_assert_int_eq(fcntl(lease, F_SETLEASE, F_WRLCK), 0);
        ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0); /* as the keeper does */
        rig_open(&g, 1);
        g.child.any_identity = root;
        fill(&g, 1);
        StartRequest q = start_request((const char *const[]) { program, NULL }, (const char *const[]) { NULL }, "/");
        q.start.flags = SPAWN_SET_IDENTITY;
        q.start.uid = root ? 65534 : getuid();
        q.start.gid = root ? 65534 : getgid();
        ck_assert_int_eq(start(&g, &q, NULL, &stub, &stage), 0);
        ck_assert_int_eq(stub.shares, may_share());
        struct pollfd broken = { .fd = -1 };
        while (fcntl(lease, F_GETLEASE) == F_WRLCK) /* until somebody wants to open it */
                (void)poll(&broken, 1, 1);
        ck_assert_uint_eq(uid_of(stub.pid), q.start.uid);
        fill(&g, 1);
        ck_assert_int_eq(run(&g, "exit 3"), 3);
        ck_assert(!may_look_in(stub.pid, q.start.uid));
        ck_assert(!may_look_in(getpid(), q.start.uid));
        ck_assert_uint_eq(uid_of(getpid()), root ? 0 : q.start.uid);
        ck_assert_int_eq(kill(stub.pid, SIGKILL), 0);
        ck_assert_int_eq(end_of(&stub), -1);
        ck_assert_int_eq(run(&g, "exit 4"), 4);
        close_fd(lease);
        ck_assert_int_eq(unlink(program), 0);
        ck_assert_int_eq(rmdir(dir), 0);
        rig_close(&g);
}

RUN_TESTS("stock", 60, test_a_waiting_process_becomes_the_command,
          test_without_a_stock_a_process_is_made_for_the_command,
          test_many_commands_need_no_more_memory_than_wait_at_once, test_what_waits_starts_while_no_process_can_be_made,
          test_a_refused_fork_is_due_again_a_little_later, test_one_that_was_killed_gets_no_command,
          test_one_that_is_known_to_be_dead_is_made_up_for, test_what_waits_holds_no_descriptor_of_others,
          test_a_command_has_its_three_descriptors_and_no_more, test_a_copy_does_not_have_earlier_requests,
          test_what_waits_ends_with_the_process_that_made_it, test_a_failure_before_exec_comes_back_with_its_stage,
          test_a_stock_that_gets_smaller_sends_the_oldest_away_and_knows_them_until_they_are_gone,
          test_a_stock_is_bounded, test_a_reserve_that_is_missing_is_made_before_a_process_for_anybody,
          test_what_waits_shares_the_memory_of_who_made_it, test_what_is_made_for_a_command_shares_it_too,
          test_what_waits_for_one_slot_only_has_a_copy, test_where_no_thread_or_memory_is_for_a_place_a_copy_is_made,
          test_nothing_is_shared_while_memory_could_be_looked_at, test_commands_one_after_the_other_use_few_places,
          test_what_fails_in_a_child_changes_no_errno_of_the_worker,
          test_what_opens_files_or_needs_much_memory_has_a_copy_and_the_next_one_waits_with_one,
          test_a_copy_waits_for_what_needs_one_also_where_all_places_of_the_stock_are_taken,
          test_one_that_shares_memory_refuses_what_it_must_not_do,
          test_one_that_hangs_before_exec_holds_up_nobody_and_lets_nobody_look_in)
