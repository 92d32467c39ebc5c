/* SPDX-License-Identifier: MIT */
/* Two clocks: the kernel's, and one that tests move. */

#include "base/clock.h"

#include <time.h>

static uint64_t read_clock(clockid_t id) {
        struct timespec ts;
        (void)clock_gettime(id, &ts); /* cannot fail for these clocks and a valid pointer */
        return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t system_monotonic(const Clock *c) {
        (void)c;
        return read_clock(CLOCK_MONOTONIC);
}

static uint64_t system_realtime(const Clock *c) {
        (void)c;
        return read_clock(CLOCK_REALTIME);
}

const Clock clock_system = { .monotonic = system_monotonic, .realtime = system_realtime };

static uint64_t fake_monotonic(const Clock *c) {
        return ((const FakeClock *)c)->monotonic_usec;
}

static uint64_t fake_realtime(const Clock *c) {
        return ((const FakeClock *)c)->realtime_usec;
}

void fake_clock_init(FakeClock *f, uint64_t monotonic_usec, uint64_t realtime_usec) {
        *f = (FakeClock) {
                .clock = { .monotonic = fake_monotonic, .realtime = fake_realtime },
                .monotonic_usec = monotonic_usec,
                .realtime_usec = realtime_usec,
        };
}

static uint64_t translate(uint64_t usec, uint64_t now_from, uint64_t now_to) {
        uint64_t ahead = usec > now_from ? usec - now_from : 0;
        return usec == USEC_NEVER || ahead > USEC_NEVER - now_to ? USEC_NEVER : now_to + ahead;
}

uint64_t clock_to_realtime(const Clock *c, uint64_t monotonic_usec) {
        return translate(monotonic_usec, clock_monotonic(c), clock_realtime(c));
}

uint64_t clock_from_realtime(const Clock *c, uint64_t realtime_usec) {
        return translate(realtime_usec, clock_realtime(c), clock_monotonic(c));
}

void fake_clock_advance(FakeClock *f, uint64_t usec) {
        f->monotonic_usec += usec;
        f->realtime_usec += usec;
}
