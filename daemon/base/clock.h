/* SPDX-License-Identifier: MIT */
#pragma once

/* Where time comes from: the kernel, or a test that moves it. Microseconds. Any thread. */

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define USEC_PER_SEC UINT64_C(1000000)
#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_NEVER UINT64_MAX

typedef struct Clock {
        uint64_t (*monotonic)(const struct Clock *c);
        uint64_t (*realtime)(const struct Clock *c);
        const struct Clock *source; /* borrowed: what goes on while this one is held. NULL: it never is */
} Clock;

extern const Clock clock_system;

/* A clock that stands until it is moved. */
typedef struct FakeClock {
        Clock clock; /* first: pass &fake.clock */
        uint64_t monotonic_usec, realtime_usec;
} FakeClock;

/* CPU time that a thread of this process has used so far; tid 0: the calling one. 0: there is none. A system call, where the
 * clocks above are none. */
uint64_t clock_thread_cpu_usec(uint64_t tid);

void fake_clock_init(FakeClock *f, uint64_t monotonic_usec, uint64_t realtime_usec);
void fake_clock_advance(FakeClock *f, uint64_t usec);

/* The monotonic clock of clock_system, for those who never have another. */
static inline uint64_t clock_system_usec(void) {
        struct timespec t;
        (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock and a valid pointer */
        return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

/* Never past USEC_NEVER. */
static inline uint64_t usec_add(uint64_t a, uint64_t b) {
        return a > USEC_NEVER - b ? USEC_NEVER : a + b;
}

static inline uint64_t clock_monotonic(const Clock *c) {
        return c->monotonic(c);
}
static inline uint64_t clock_realtime(const Clock *c) {
        return c->realtime(c);
}

/* A clock that can be held: until it is released, or held again, each of its two clocks is read once at most. To read one
 * costs as much as the rest of a small task's way does, and what came in one read came at one time. One thread. */
typedef struct HeldClock {
        Clock clock;                            /* first: pass &held.clock */
        uint64_t monotonic_usec, realtime_usec; /* while held; 0: not read yet */
        bool held;
} HeldClock;

void held_clock_init(HeldClock *h, const Clock *source);
void held_clock_hold(HeldClock *h);
void held_clock_release(HeldClock *h);

/* One moment on the other clock, as both stand now, to CLOCK_CLOSE_USEC; of one that is held, as they go on. What is past becomes now, and
 * USEC_NEVER stays never. */
#define CLOCK_CLOSE_USEC 20
uint64_t clock_to_realtime(const Clock *c, uint64_t monotonic_usec);
uint64_t clock_from_realtime(const Clock *c, uint64_t realtime_usec);
