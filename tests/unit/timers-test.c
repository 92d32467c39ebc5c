/* SPDX-License-Identifier: MIT */
#include "manager/timers.h"

#include "base/fault.h"
#include "base/util.h"
#include "test.h"

/* The clock stands; uv's timers fire as they should by its own clock, and only those that are due by ours are called. */
typedef struct Probe {
        Timer timer;
        Timers *timers;
        int id;
        Timer *also; /* set anew when this fires */
} Probe;

static int fired[16], n_fired;

static void probe_fire(Timer *t) {
        Probe *p = HEAP_ENTRY(t, Probe, timer);
        fired[n_fired++] = p->id;
        if (p->also)
                ck_assert_int_eq(timer_set(p->timers, p->also, 0), 0);
}

typedef struct Fixture {
        uv_loop_t loop;
        FakeClock clock;
        Timers timers;
        Probe probes[4];
} Fixture;

static void fixture_init(Fixture *f) {
        ck_assert_int_eq(uv_loop_init(&f->loop), 0);
        fake_clock_init(&f->clock, 1000 * USEC_PER_SEC, 0);
        ck_assert_int_eq(timers_init(&f->timers, &f->loop, &f->clock.clock), 0);
        for (int i = 0; i < 4; i++)
                f->probes[i] = (Probe) { .timer = TIMER_NULL(probe_fire), .timers = &f->timers, .id = i };
}

static void fixture_done(Fixture *f) {
        timers_close(&f->timers);
        ck_assert_int_eq(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
        timers_done(&f->timers);
        ck_assert_int_eq(uv_loop_close(&f->loop), 0);
        uv_library_shutdown();
}

static void set(Fixture *f, int i, int64_t from_now) {
        uint64_t at = (uint64_t)((int64_t)clock_monotonic(&f->clock.clock) + from_now);
        ck_assert_int_eq(timer_set(&f->timers, &f->probes[i].timer, at), 0);
}

TEST(due_timers_fire_in_order_and_others_do_not) {
        Fixture f;
        fixture_init(&f);
        set(&f, 0, -1);
        set(&f, 1, -3);
        set(&f, 2, 3600 * (int64_t)USEC_PER_SEC);
        set(&f, 3, -2);
        timer_unset(&f.timers, &f.probes[3].timer);
        timer_unset(&f.timers, &f.probes[3].timer);
        uv_run(&f.loop, UV_RUN_NOWAIT);
        ck_assert_int_eq(n_fired, 2);
        ck_assert_int_eq(fired[0], 1);
        ck_assert_int_eq(fired[1], 0);
        fixture_done(&f);
}

TEST(a_moved_timer_fires_once_at_its_new_time) {
        Fixture f;
        fixture_init(&f);
        set(&f, 0, 3600 * (int64_t)USEC_PER_SEC);
        set(&f, 0, -1);
        uv_run(&f.loop, UV_RUN_NOWAIT);
        ck_assert_int_eq(n_fired, 1);
        fake_clock_advance(&f.clock, 7200 * USEC_PER_SEC);
        set(&f, 1, -1);
        uv_run(&f.loop, UV_RUN_NOWAIT);
        ck_assert_int_eq(n_fired, 2);
        ck_assert_int_eq(fired[1], 1);
        fixture_done(&f);
}

TEST(a_timer_may_set_another_from_its_callback) {
        Fixture f;
        fixture_init(&f);
        f.probes[0].also = &f.probes[1].timer;
        set(&f, 0, -1);
        while (n_fired < 2)
                uv_run(&f.loop, UV_RUN_NOWAIT);
        ck_assert_int_eq(fired[1], 1);
        fixture_done(&f);
}

TEST(setting_without_memory_is_an_error_and_moving_is_not) {
        Fixture f;
        fixture_init(&f);
        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_int_lt(timer_set(&f.timers, &f.probes[0].timer, 1), 0);
        set(&f, 0, 1);
        fault_set(FAULT_ALLOC, 1, true);
        set(&f, 0, -1);
        fault_set(FAULT_ALLOC, 0, false);
        uv_run(&f.loop, UV_RUN_NOWAIT);
        ck_assert_int_eq(n_fired, 1);
        fixture_done(&f);
}

TEST(a_standing_timer_is_set_without_memory_and_stands_again_when_it_has_fired) {
        Fixture f;
        fixture_init(&f);
        Timer *t = &f.probes[0].timer;
        ck_assert_int_eq(timer_stand(&f.timers, t), 0);
        ck_assert(!timer_is_set(t));
        timers_run(&f.timers);
        ck_assert_int_eq(n_fired, 0);
        fault_set(FAULT_ALLOC, 1, true);
        for (int i = 1; i <= 3; i++) {
                set(&f, 0, -1);
                ck_assert(timer_is_set(t));
                timers_run(&f.timers);
                ck_assert_int_eq(n_fired, i);
                ck_assert(!timer_is_set(t));
        }
        set(&f, 0, -1);
        timer_unset(&f.timers, t);
        ck_assert(!timer_is_set(t));
        timers_run(&f.timers);
        ck_assert_int_eq(n_fired, 3);
        fault_set(FAULT_ALLOC, 0, false);
        timer_drop(&f.timers, t);
        ck_assert(!heap_contains(&t->item));
        fixture_done(&f);
}

RUN_TESTS("timers", 20, test_due_timers_fire_in_order_and_others_do_not, test_a_moved_timer_fires_once_at_its_new_time,
          test_a_timer_may_set_another_from_its_callback, test_setting_without_memory_is_an_error_and_moving_is_not,
          test_a_standing_timer_is_set_without_memory_and_stands_again_when_it_has_fired)
