/* SPDX-License-Identifier: MIT */
/* Programs that stand for eqd-store, between a real loop and a pipe. */
#include "server/storeread.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "base/fault.h"
#include "base/util.h"
#include "test.h"

typedef struct Bench {
        uv_loop_t loop;
        uv_timer_t keep; /* the loop runs as long as there is this */
        StoreReads reads;
        int in, out; /* of the pipe that it writes to */
        int n_done, status;
} Bench;

static void never(uv_timer_t *timer) {
        ck_abort_msg("it did not come");
}

static void set_up(Bench *b) {
        int fds[2];
        *b = (Bench) { 0 };
        ck_assert_int_eq(uv_loop_init(&b->loop), 0);
        uv_timer_init(&b->loop, &b->keep);
        uv_timer_start(&b->keep, never, 300000, 0);
        store_reads_init(&b->reads);
        ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
        b->in = fds[0];
        b->out = fds[1];
}

static void tear_down(Bench *b) {
        store_reads_close(&b->reads);
        ck_assert_uint_eq(b->reads.n, 0);
        uv_close((uv_handle_t *)&b->keep, NULL);
        uv_run(&b->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&b->loop), 0);
        close_fd(b->in);
        close_fd(b->out);
}

static void on_done(void *userdata, int status) {
        Bench *b = userdata;
        b->n_done++;
        b->status = status;
}

static int start(Bench *b, const char *script, StoreRead **ret) {
        const char *argv[] = { "/bin/sh", "-c", script, NULL };
        return store_read_new(&b->reads, &b->loop, argv, b->out, on_done, b, ret);
}

#define UNTIL(b, condition)                                                                                            \
        while (!(condition))                                                                                           \
        uv_run(&(b)->loop, UV_RUN_ONCE)

static int status_of(Bench *b, const char *script) {
        StoreRead *r;
        b->n_done = 0;
        ck_assert_int_eq(start(b, script, &r), 0);
        UNTIL(b, b->n_done == 1);
        return b->status;
}

/* So that it runs when this returns. */
static StoreRead *start_waiting(Bench *b) {
        StoreRead *r;
        char c;
        ck_assert_int_eq(start(b, "echo; exec sleep 1000", &r), 0);
        ck_assert_int_eq(read(b->in, &c, 1), 1);
        return r;
}

static bool has_children(void) {
        return waitid(P_ALL, 0, &(siginfo_t) { 0 }, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* libuv keeps two descriptors from the first loop on, which are no leak of a test. */
__attribute__((constructor)) static void before_tests(void) {
        uv_loop_t loop;
        if (uv_loop_init(&loop) == 0)
                (void)uv_loop_close(&loop);
}

TEST(what_it_writes_and_how_it_exits_is_told) {
        Bench b;
        char text[8] = "";
        set_up(&b);
        ck_assert_int_eq(status_of(&b, "echo row; exit 66"), 66);
        ck_assert_int_eq(read(b.in, text, sizeof(text)), 4);
        ck_assert_str_eq(text, "row\n");
        ck_assert_int_eq(status_of(&b, ":"), 0);
        ck_assert(!has_children());
        tear_down(&b);
}

TEST(one_that_is_killed_has_no_exit_status) {
        Bench b;
        set_up(&b);
        ck_assert_int_lt(status_of(&b, "kill -9 $$"), 0);
        tear_down(&b);
}

/* eqd ignores that signal. */
TEST(it_ends_when_nobody_reads) {
        Bench b;
        set_up(&b);
        b.in = close_fd(b.in);
        ck_assert_ptr_ne(signal(SIGPIPE, SIG_IGN), SIG_ERR);
        ck_assert_int_lt(status_of(&b, "echo row; exit 0"), 0);
        tear_down(&b);
}

TEST(who_asks_no_more_is_told_nothing_and_its_place_falls_free) {
        Bench b;
        set_up(&b);
        StoreRead *r = start_waiting(&b);
        ck_assert_ptr_null(store_read_free(r));
        UNTIL(&b, b.reads.n == 0);
        ck_assert_int_eq(b.n_done, 0);
        ck_assert(!has_children());
        tear_down(&b);
}

TEST(so_many_run_and_no_more) {
        StoreRead *r[STORE_READS_MAX], *more;
        Bench b;
        set_up(&b);
        for (size_t i = 0; i < STORE_READS_MAX; i++)
                r[i] = start_waiting(&b);
        ck_assert_int_eq(start(&b, ":", &more), -EUSERS);
        store_read_free(r[0]);
        UNTIL(&b, b.reads.n < STORE_READS_MAX);
        ck_assert_int_eq(status_of(&b, "exit 3"), 3);
        tear_down(&b);
}

TEST(at_the_end_those_that_run_are_killed) {
        Bench b;
        set_up(&b);
        (void)start_waiting(&b);
        tear_down(&b);
        siginfo_t info;
        ck_assert_int_eq(waitid(P_ALL, 0, &info, WEXITED), 0);
        ck_assert_int_eq(info.si_status, SIGKILL);
}

TEST(without_memory_process_or_descriptor_it_is_refused_and_nothing_is_left) {
        static const struct {
                FaultSeam seam;
                int error;
        } rows[] = { { FAULT_ALLOC, -ENOMEM }, { FAULT_SPAWN, -EAGAIN }, { FAULT_PIDFD, -EMFILE } };
        StoreRead *r;
        Bench b;
        set_up(&b);
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                fault_set(rows[i].seam, 1, false);
                ck_assert_int_eq(start(&b, "exec sleep 1000", &r), rows[i].error);
                ck_assert_uint_eq(b.reads.n, 0);
                ck_assert(!has_children());
        }
        ck_assert_int_eq(
                store_read_new(&b.reads, &b.loop, (const char *[]) { "/nonexistent", NULL }, b.out, on_done, &b, &r),
                -ENOENT);
        tear_down(&b);
}

RUN_TESTS("storeread", 60, test_what_it_writes_and_how_it_exits_is_told, test_one_that_is_killed_has_no_exit_status,
          test_it_ends_when_nobody_reads, test_who_asks_no_more_is_told_nothing_and_its_place_falls_free,
          test_so_many_run_and_no_more, test_at_the_end_those_that_run_are_killed,
          test_without_memory_process_or_descriptor_it_is_refused_and_nothing_is_left)
