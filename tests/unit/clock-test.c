/* SPDX-License-Identifier: MIT */
/* Moments that are kept by one clock and told by another. */

#include "base/clock.h"
#include "test.h"

enum { SWITCH_EVERY = 4 };

#define SWITCH_USEC 5000
#define OFFSET_USEC UINT64_C(1000000000)

/* A clock whose thread loses its CPU with some of its reads. */
static uint64_t now;
static unsigned n_reads, switch_at;

static uint64_t read_now(void) {
        now += n_reads++ % SWITCH_EVERY == switch_at ? SWITCH_USEC : 1;
        return now;
}

static uint64_t slow_monotonic(const Clock *c) {
        return read_now();
}

static uint64_t slow_realtime(const Clock *c) {
        return read_now() + OFFSET_USEC;
}

static const Clock slow = { .monotonic = slow_monotonic, .realtime = slow_realtime };

static void begin(unsigned at) {
        now = 1000;
        n_reads = 0;
        switch_at = at;
}

static void is_close(uint64_t got, uint64_t want) {
        ck_assert_uint_ge(got + CLOCK_CLOSE_USEC, want);
        ck_assert_uint_le(got, want + CLOCK_CLOSE_USEC);
}

static void translates(const Clock *c) {
        uint64_t later = now + USEC_PER_SEC;
        is_close(clock_to_realtime(c, later), later + OFFSET_USEC);
        is_close(clock_from_realtime(c, later + OFFSET_USEC), later);
}

TEST(a_thread_that_stands_still_between_two_reads_moves_no_moment) {
        for (unsigned at = 0; at < SWITCH_EVERY; at++) {
                begin(at);
                for (unsigned i = 0; i < 2 * SWITCH_EVERY; i++, n_reads++)
                        translates(&slow);
        }
}

TEST(nor_does_one_that_takes_long_while_its_clock_is_held) {
        HeldClock h;

        begin(SWITCH_EVERY);
        held_clock_init(&h, &slow);
        held_clock_hold(&h);
        uint64_t held = clock_monotonic(&h.clock);
        now += SWITCH_USEC;
        translates(&h.clock);
        now += SWITCH_USEC;
        translates(&h.clock);
        ck_assert_uint_eq(clock_monotonic(&h.clock), held);
        held_clock_release(&h);
}

TEST(what_is_past_is_now_as_it_is_held_and_never_is_never) {
        HeldClock h;

        begin(SWITCH_EVERY);
        held_clock_init(&h, &slow);
        held_clock_hold(&h);
        uint64_t monotonic = clock_monotonic(&h.clock), realtime = clock_realtime(&h.clock);
        now += SWITCH_USEC;
        ck_assert_uint_eq(clock_to_realtime(&h.clock, monotonic), realtime);
        ck_assert_uint_eq(clock_to_realtime(&h.clock, 1), realtime);
        ck_assert_uint_eq(clock_from_realtime(&h.clock, realtime), monotonic);
        ck_assert_uint_eq(clock_from_realtime(&h.clock, 1), monotonic);
        ck_assert_uint_eq(clock_to_realtime(&h.clock, USEC_NEVER), USEC_NEVER);
        ck_assert_uint_eq(clock_from_realtime(&h.clock, USEC_NEVER), USEC_NEVER);
        ck_assert_uint_eq(clock_to_realtime(&h.clock, USEC_NEVER - 1), USEC_NEVER);
}

RUN_TESTS("clock", 10, test_a_thread_that_stands_still_between_two_reads_moves_no_moment,
          test_nor_does_one_that_takes_long_while_its_clock_is_held,
          test_what_is_past_is_now_as_it_is_held_and_never_is_never)
