/* SPDX-License-Identifier: MIT */
#include "executor/spawner_link.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "fake-spawner.h"
#include "start-request.h"

typedef struct Rig {
        FakeSpawner fake;
        SpawnerLink *link;
        Inbox *inbox;
        unsigned n_ready, n_started, n_ended, n_lost, n_closed;
        SpawnEnded ended;
        bool restart; /* in `closed` */
} Rig;

static void on_ready(void *userdata, const SpawnReady *m) {
        ((Rig *)userdata)->n_ready++;
}

static void on_started(void *userdata, const SpawnStarted *m) {
        ((Rig *)userdata)->n_started++;
}

static void on_ended(void *userdata, const SpawnEnded *m) {
        Rig *g = userdata;
        g->n_ended++;
        g->ended = *m;
}

static void on_lost(void *userdata) {
        ((Rig *)userdata)->n_lost++;
}

static void on_closed(void *userdata) {
        Rig *g = userdata;
        g->n_closed++;
        if (g->restart)
                ck_assert_int_eq(spawner_link_restart(g->link), 0);
}

static void on_pong(void *userdata) {
}

static const SpawnerEvents events = { .ready = on_ready,
                                      .started = on_started,
                                      .ended = on_ended,
                                      .lost = on_lost,
                                      .closed = on_closed,
                                      .pong = on_pong };

static void rig_open(Rig *g) {
        *g = (Rig) { .inbox = inbox_new() };
        SpawnerConfig config = {
                .program = fake_open(&g->fake), .allow_root = true, .cgroup = "/some/where", .stock = 3
        };
        ck_assert_int_eq(spawner_link_new(&config, &events, g, &g->link), 0);
        fake_accept(&g->fake);
}

static void rig_close(Rig *g) {
        g->fake.line = close_fd(g->fake.line);
        g->link = spawner_link_free(g->link);
        fake_close(&g->fake);
        (void)munmap(g->inbox, sizeof(*g->inbox));
}

static void rig_ready(Rig *g) {
        fake_ready(&g->fake, true);
        spawner_link_dispatch(g->link);
        ck_assert_uint_eq(g->n_ready, 1);
}

static int start(Rig *g, StartRequest *q, const int *fds, unsigned n_fds) {
        return spawner_link_start(g->link, &q->start, q->strings, fds, n_fds);
}

TEST(the_program_is_told_what_was_configured) {
        Rig g;
        rig_open(&g);
        ck_assert_str_eq(g.fake.args, "--allow-root --cgroup /some/where --stock 3 ");
        ck_assert_int_gt(spawner_link_pid(g.link), 0);
        rig_close(&g);
}

TEST(nothing_is_sent_before_it_is_ready) {
        Rig g;
        StartRequest q = start_request_sh("true");
        rig_open(&g);
        ck_assert_int_eq(start(&g, &q, NULL, 0), -EAGAIN);
        ck_assert_int_eq(spawner_link_signal(g.link, 0, 1, SIGTERM), -EAGAIN);
        rig_ready(&g);
        ck_assert_int_eq(start(&g, &q, NULL, 0), 0);
        rig_close(&g);
}

TEST(a_request_goes_out_whole_with_the_epoch_of_the_worker_and_its_descriptors) {
        Rig g;
        StartRequest q = start_request_sh("true");
        int pipe_fds[2];
        char c;

        rig_open(&g);
        g.fake.epoch = 41;
        rig_ready(&g);
        ck_assert_int_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
        q.start.header = (SpawnHeader) { .slot = 5, .run = 9 };
        q.start.flags = SPAWN_HAS_STDOUT;
        ck_assert_int_eq(start(&g, &q, &pipe_fds[1], 1), 0);
        close_fd(pipe_fds[1]);
        Request r = fake_take(&g.fake, g.inbox, SPAWN_START);
        ck_assert_int_eq(request_open(&r), 0);
        ck_assert_uint_eq(r.start->header.epoch, 42);
        ck_assert_uint_eq(r.start->header.slot, 5);
        ck_assert_uint_eq(r.start->header.run, 9);
        ck_assert_str_eq(r.strings, "/bin/sh");
        ck_assert_int_eq(write(r.message.fds[0], "x", 1), 1);
        ck_assert_int_eq(read(pipe_fds[0], &c, 1), 1);
        request_close(&r);
        close_fd(pipe_fds[0]);
        rig_close(&g);
}

TEST(a_signal_names_slot_run_and_epoch) {
        Rig g;
        rig_open(&g);
        rig_ready(&g);
        ck_assert_int_eq(spawner_link_signal(g.link, 3, 8, SIGUSR1), 0);
        (void)fake_take(&g.fake, g.inbox, SPAWN_SIGNAL);
        const SpawnSignal *m = &g.inbox->signal;
        ck_assert_int_eq(m->signal, SIGUSR1);
        ck_assert_uint_eq(m->header.slot, 3);
        ck_assert_uint_eq(m->header.run, 8);
        ck_assert_uint_eq(m->header.epoch, g.fake.epoch);
        rig_close(&g);
}

TEST(the_size_of_the_stock_is_told_at_once_and_to_each_new_worker) {
        Rig g;
        rig_open(&g);
        ck_assert_int_eq(spawner_link_set_stock(g.link, 7), -EAGAIN);
        rig_ready(&g);
        (void)fake_take(&g.fake, g.inbox, SPAWN_STOCK);
        ck_assert_uint_eq(g.inbox->stock.n, 7);
        ck_assert_uint_eq(g.inbox->stock.header.epoch, g.fake.epoch);
        ck_assert_int_eq(spawner_link_set_stock(g.link, 0), 0);
        (void)fake_take(&g.fake, g.inbox, SPAWN_STOCK);
        ck_assert_uint_eq(g.inbox->stock.n, 0);
        fake_ready(&g.fake, true);
        spawner_link_dispatch(g.link);
        (void)fake_take(&g.fake, g.inbox, SPAWN_STOCK);
        ck_assert_uint_eq(g.inbox->stock.n, 0);
        ck_assert_int_eq(spawner_link_set_stock(g.link, 3), 0);
        (void)fake_take(&g.fake, g.inbox, SPAWN_STOCK);
        rig_close(&g);
}

TEST(what_comes_is_handed_on) {
        Rig g;
        rig_open(&g);
        rig_ready(&g);
        fake_started(&g.fake, 1, 2, 99);
        fake_ended(&g.fake, 1, 2, (SpawnEnded) { .exit = 3 });
        spawner_link_dispatch(g.link);
        ck_assert_uint_eq(g.n_started, 1);
        ck_assert_uint_eq(g.n_ended, 1);
        ck_assert_int_eq(g.ended.exit, 3);
        rig_close(&g);
}

TEST(what_is_of_another_version_worker_or_size_is_dropped) {
        Rig g;
        SpawnEnded m;
        rig_open(&g);
        fake_ended(&g.fake, 0, 1, (SpawnEnded) { 0 }); /* before READY */
        rig_ready(&g);
        g.fake.epoch--;
        fake_ended(&g.fake, 0, 1, (SpawnEnded) { 0 });
        fake_lost(&g.fake);
        g.fake.epoch++;
        m = (SpawnEnded) { .header = fake_header(&g.fake, SPAWN_ENDED, 0, 1) };
        m.header.version++;
        fake_send(&g.fake, &m, sizeof(m));
        m.header.version--;
        m.header.magic = 0;
        fake_send(&g.fake, &m, sizeof(m));
        m.header.magic = SPAWN_MAGIC;
        fake_send(&g.fake, &m, sizeof(m) - 1);
        fake_send(&g.fake, &m, 3);
        m.header.type = 99;
        fake_send(&g.fake, &m, sizeof(m));
        spawner_link_dispatch(g.link);
        ck_assert_uint_eq(g.n_ended + g.n_lost, 0);
        ck_assert_int_ge(spawner_link_fd(g.link), 0);
        rig_close(&g);
}

TEST(a_lost_worker_is_told_once_and_takes_no_requests) {
        Rig g;
        StartRequest q = start_request_sh("true");
        rig_open(&g);
        rig_ready(&g);
        fake_lost(&g.fake);
        fake_lost(&g.fake);
        fake_ended(&g.fake, 0, 1, (SpawnEnded) { 0 }); /* it was on the way */
        spawner_link_dispatch(g.link);
        ck_assert_uint_eq(g.n_lost, 1);
        ck_assert_uint_eq(g.n_ended, 0);
        ck_assert_int_eq(start(&g, &q, NULL, 0), -EAGAIN);
        fake_ready(&g.fake, true);
        spawner_link_dispatch(g.link);
        ck_assert_uint_eq(g.n_ready, 2);
        ck_assert_int_eq(start(&g, &q, NULL, 0), 0);
        rig_close(&g);
}

/* The line was full when the worker died, so the keeper could not say so. */
TEST(a_new_worker_means_that_the_old_one_is_lost) {
        Rig g;
        rig_open(&g);
        rig_ready(&g);
        fake_ready(&g.fake, true);
        spawner_link_dispatch(g.link);
        ck_assert_uint_eq(g.n_lost, 1);
        ck_assert_uint_eq(g.n_ready, 2);
        rig_close(&g);
}

TEST(a_full_line_is_said_and_not_waited_for) {
        Rig g;
        StartRequest q = start_request_sh("true");
        rig_open(&g);
        rig_ready(&g);
        unsigned n = 0;
        int r;
        while ((r = start(&g, &q, NULL, 0)) == 0)
                n++;
        ck_assert_int_eq(r, -EAGAIN);
        ck_assert_uint_gt(n, 10);
        (void)fake_take(&g.fake, g.inbox, SPAWN_START);
        for (unsigned i = 1; i < n; i++)
                (void)fake_take(&g.fake, g.inbox, SPAWN_START);
        ck_assert_int_eq(start(&g, &q, NULL, 0), 0);
        rig_close(&g);
}

TEST(a_spawner_that_ends_is_lost_and_closed_and_can_be_started_again) {
        Rig g;
        rig_open(&g);
        rig_ready(&g);
        g.restart = true;
        fake_die(&g.fake);
        struct pollfd p = { .fd = spawner_link_fd(g.link), .events = POLLIN };
        ck_assert_int_eq(poll(&p, 1, -1), 1);
        spawner_link_dispatch(g.link);
        ck_assert_uint_eq(g.n_lost, 1);
        ck_assert_uint_eq(g.n_closed, 1);
        fake_accept(&g.fake);
        fake_ready(&g.fake, false);
        spawner_link_dispatch(g.link);
        ck_assert_uint_eq(g.n_ready, 2);
        rig_close(&g);
        ck_assert_int_eq(waitpid(-1, NULL, WNOHANG), -1); /* neither of the two is left */
}

TEST(a_program_that_is_not_there_is_an_error) {
        Rig g = { 0 };
        SpawnerConfig config = { .program = "/nowhere/eqd-spawner" };
        ck_assert_int_eq(spawner_link_new(&config, &events, &g, &g.link), -ENOENT);
}

RUN_TESTS("spawner_link", 30, test_the_program_is_told_what_was_configured, test_nothing_is_sent_before_it_is_ready,
          test_a_request_goes_out_whole_with_the_epoch_of_the_worker_and_its_descriptors,
          test_a_signal_names_slot_run_and_epoch, test_the_size_of_the_stock_is_told_at_once_and_to_each_new_worker,
          test_what_comes_is_handed_on, test_what_is_of_another_version_worker_or_size_is_dropped,
          test_a_lost_worker_is_told_once_and_takes_no_requests, test_a_new_worker_means_that_the_old_one_is_lost,
          test_a_full_line_is_said_and_not_waited_for,
          test_a_spawner_that_ends_is_lost_and_closed_and_can_be_started_again,
          test_a_program_that_is_not_there_is_an_error)
