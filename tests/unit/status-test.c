/* SPDX-License-Identifier: MIT */
#include "status.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "notify.h"
#include "test.h"

static struct {
        unsigned n, n_refused;
        bool full; /* the service manager has no room for more */
        char last[STATUS_MAX];
} told;

static const StallReport *stall;

const StallReport *stalls_worst(const StallList *l) {
        return stall;
}

bool notify_status(const char *text, bool stalled) {
        ck_assert_int_eq(stalled, stall != NULL);
        if (told.full) {
                told.n_refused++;
                return false;
        }
        told.n++;
        (void)snprintf(told.last, sizeof(told.last), "%s", text); /* a longer one would not be what is expected */
        return true;
}

void manager_stall_detail(const Manager *m, const StallReport *r, StallDetail *ret) {
        *ret = (StallDetail) { .oldest_seq = 1234, .oldest_usec = 44 * USEC_PER_SEC };
}

static RescueState rescue;

RescueState manager_rescue(const Manager *m) {
        return rescue;
}

static bool lost_others;

bool manager_lost_others(const Manager *m) {
        return lost_others;
}

static const char *store_trouble;

const char *manager_store_trouble(const Manager *m) {
        return store_trouble;
}

static bool pressed;

bool manager_is_pressed(const Manager *m) {
        return pressed;
}

/* ---- */

typedef struct Rig {
        uv_loop_t loop;
        Pool pool, remote, threads;
        Manager manager;
        Status status;
} Rig;

static Rig *rig_open(void) {
        Rig *g = calloc(1, sizeof(*g));
        ck_assert_ptr_nonnull(g);
        ck_assert_int_eq(uv_loop_init(&g->loop), 0);
        g->manager.pool = &g->pool;
        g->manager.remote = &g->remote;
        g->manager.threads = &g->threads;
        list_init(&g->manager.engine.pools);
        list_append(&g->manager.engine.pools, &g->pool.link);
        list_append(&g->manager.engine.pools, &g->remote.link);
        list_append(&g->manager.engine.pools, &g->threads.link);
        g->manager.engine.n_queues = 1;
        ck_assert_int_eq(setenv("NOTIFY_SOCKET", "/nowhere", 1), 0);
        return g;
}

static void rig_close(Rig *g) {
        status_stop(&g->status);
        (void)uv_run(&g->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&g->loop), 0);
        uv_library_shutdown();
        free(g);
}

static void on_timer(uv_timer_t *timer) {
        uv_close((uv_handle_t *)timer, NULL);
}

/* Turns the loop for a moment; what is watched for changes keeps no loop by itself. */
static void turn(Rig *g, uint64_t msec) {
        uv_timer_t timer;
        ck_assert_int_eq(uv_timer_init(&g->loop, &timer), 0);
        ck_assert_int_eq(uv_timer_start(&timer, on_timer, msec, 0), 0);
        (void)uv_run(&g->loop, UV_RUN_DEFAULT);
}

TEST(the_line_has_the_numbers) {
        char text[STATUS_MAX];
        Rig *g = rig_open();
        g->manager.engine.n_queues = 3;
        g->pool.n_busy = 2;
        g->manager.n_pending = 7; /* running ones included */
        status_text(&g->manager, text, sizeof(text));
        ck_assert_str_eq(text, "3 queues, 2 running, 5 pending");
        rig_close(g);
}

TEST(the_line_says_what_is_lost) {
        char text[STATUS_MAX];
        Rig *g = rig_open();
        lost_others = true;
        status_text(&g->manager, text, sizeof(text));
        ck_assert_str_eq(
                text, "1 queues, 0 running, 0 pending; only commands of its own user: the spawner died, restart eqd");
        rig_close(g);
}

TEST(a_change_is_told_and_what_follows_within_a_second_later_as_it_is_then) {
        Rig *g = rig_open();
        uint64_t start_msec = uv_now(&g->loop);
        status_start(&g->status, &g->loop, &g->manager);
        turn(g, 1);
        ck_assert_uint_eq(told.n, 0); /* nothing has changed since READY=1 */
        for (size_t i = 2; i <= 9; i++) {
                g->manager.engine.n_queues = i;
                turn(g, 1);
        }
        while (strcmp(told.last, "9 queues, 0 running, 0 pending") != 0)
                turn(g, 50);
        turn(g, 1);
        /* One, unless the machine stood still in between. */
        ck_assert_uint_le(told.n, (uv_now(&g->loop) - start_msec) / 1000);
        rig_close(g);
}

TEST(what_there_was_no_room_for_is_told_when_there_is_some) {
        Rig *g = rig_open();
        status_start(&g->status, &g->loop, &g->manager);
        told.full = true;
        g->manager.engine.n_queues = 2;
        while (told.n_refused < 2) /* nothing changes meanwhile */
                turn(g, 50);
        told.full = false;
        while (told.n == 0)
                turn(g, 50);
        ck_assert_str_eq(told.last, "2 queues, 0 running, 0 pending");
        turn(g, 1);
        ck_assert(!uv_is_active((uv_handle_t *)&g->status.timer));
        rig_close(g);
}

TEST(what_is_wrong_with_the_store_is_said_as_long_as_it_lasts) {
        Rig *g = rig_open();
        status_start(&g->status, &g->loop, &g->manager);
        store_trouble = "the store has no space";
        while (told.n == 0)
                turn(g, 50);
        ck_assert_str_eq(told.last, "1 queues, 0 running, 0 pending; the store has no space");
        store_trouble = NULL;
        while (told.n == 1)
                turn(g, 50);
        ck_assert_str_eq(told.last, "1 queues, 0 running, 0 pending");
        rig_close(g);
}

TEST(a_loss_is_a_change) {
        Rig *g = rig_open();
        status_start(&g->status, &g->loop, &g->manager);
        lost_others = true;
        while (told.n == 0)
                turn(g, 50);
        ck_assert_ptr_nonnull(strstr(told.last, "restart eqd"));
        rig_close(g);
}

TEST(memory_pressure_is_said_as_long_as_it_lasts) {
        char text[STATUS_MAX];
        Rig *g = rig_open();
        status_start(&g->status, &g->loop, &g->manager);
        pressed = true;
        status_text(&g->manager, text, sizeof(text));
        ck_assert_str_eq(text, "1 queues, 0 running, 0 pending; memory pressure");
        while (told.n == 0)
                turn(g, 50);
        ck_assert_str_eq(told.last, text);
        pressed = false;
        while (told.n == 1)
                turn(g, 50);
        ck_assert_str_eq(told.last, "1 queues, 0 running, 0 pending");
        rig_close(g);
}

TEST(a_change_that_is_undone_is_not_told) {
        Rig *g = rig_open();
        status_start(&g->status, &g->loop, &g->manager);
        unsigned n;
        for (;;) { /* once, unless the machine stood still for its second: then it is told before it can be undone */
                n = told.n;
                g->manager.engine.n_queues = 2;
                turn(g, 1);
                g->manager.engine.n_queues = 1;
                if (told.n == n)
                        break;
                while (told.n == n + 1)
                        turn(g, 50);
        }
        while (uv_is_active((uv_handle_t *)&g->status.timer)) /* its second */
                turn(g, 50);
        ck_assert_uint_eq(told.n, n);
        rig_close(g);
}

TEST(without_a_service_manager_nothing_is_watched) {
        Rig *g = rig_open();
        ck_assert_int_eq(unsetenv("NOTIFY_SOCKET"), 0);
        status_start(&g->status, &g->loop, &g->manager);
        ck_assert(!g->status.running);
        ck_assert(!uv_loop_alive(&g->loop));
        rig_close(g);
}

TEST(what_is_watched_keeps_no_loop_running) {
        Rig *g = rig_open();
        status_start(&g->status, &g->loop, &g->manager);
        ck_assert(g->status.running);
        ck_assert(!uv_loop_alive(&g->loop));
        rig_close(g);
}

TEST(the_worst_stall_comes_first_and_goes_when_it_ends) {
        Rig *g = rig_open();
        char text[STATUS_MAX];
        StallReport r = { .kind = STALL_POOL,
                          .episode = 1,
                          .stuck_usec = 42 * USEC_PER_SEC,
                          .reason = EQ_REASON_SLOTS,
                          .pool = "command",
                          .queue = "mail",
                          .n_ready = 340 };
        status_text(&g->manager, text, sizeof(text));
        ck_assert_str_eq(text, "1 queues, 0 running, 0 pending");
        stall = &r;
        status_text(&g->manager, text, sizeof(text));
        ck_assert_str_eq(
                text,
                "STALLED pool command 42s (queue mail: slots, 340 pending, oldest #1234 44s); 1 queues, 0 running, "
                "0 pending");
        r.kind = STALL_QUEUE;
        status_text(&g->manager, text, sizeof(text));
        ck_assert_str_eq(
                text, "STALLED queue mail 42s (slots, 340 pending, oldest #1234 44s); 1 queues, 0 running, 0 pending");
        stall = NULL;
        rig_close(g);
}

TEST(a_queue_that_is_rescued_is_told_with_what_the_system_said_and_again_when_that_changes) {
        static Queue mail = { .name = "mail", .id = 7 };
        StallReport r = { .kind = STALL_PART, .part = "store", .episode = 1, .stuck_usec = 42 * USEC_PER_SEC };
        char text[STATUS_MAX];
        Rig *g = rig_open();
        status_start(&g->status, &g->loop, &g->manager);
        turn(g, 1);
        rescue = (RescueState) { .queue = &mail, .reason = EQ_REASON_CREATE_FAILURE, .error = -EAGAIN };
        while (strcmp(told.last, "RESCUE queue mail (create-failure: EAGAIN); 1 queues, 0 running, 0 pending") != 0)
                turn(g, 50);
        rescue.error = -ENOMEM;
        while (strcmp(told.last, "RESCUE queue mail (create-failure: ENOMEM); 1 queues, 0 running, 0 pending") != 0)
                turn(g, 50);
        rescue.reason = EQ_REASON_POOL_FULL;
        rescue.error = 0;
        while (strcmp(told.last, "RESCUE queue mail (pool-full); 1 queues, 0 running, 0 pending") != 0)
                turn(g, 50);
        stall = &r;
        status_text(&g->manager, text, sizeof(text));
        ck_assert_str_eq(text, "STALLED store 42s; RESCUE queue mail (pool-full); 1 queues, 0 running, 0 pending");
        stall = NULL;
        rescue = (RescueState) { 0 };
        while (strcmp(told.last, "1 queues, 0 running, 0 pending") != 0)
                turn(g, 50);
        rig_close(g);
}

RUN_TESTS("status", 30, test_a_queue_that_is_rescued_is_told_with_what_the_system_said_and_again_when_that_changes,
          test_the_worst_stall_comes_first_and_goes_when_it_ends, test_the_line_has_the_numbers,
          test_the_line_says_what_is_lost, test_a_change_is_told_and_what_follows_within_a_second_later_as_it_is_then,
          test_what_there_was_no_room_for_is_told_when_there_is_some,
          test_what_is_wrong_with_the_store_is_said_as_long_as_it_lasts, test_a_loss_is_a_change,
          test_memory_pressure_is_said_as_long_as_it_lasts, test_a_change_that_is_undone_is_not_told,
          test_without_a_service_manager_nothing_is_watched, test_what_is_watched_keeps_no_loop_running)
