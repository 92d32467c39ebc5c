/* SPDX-License-Identifier: MIT */
/* The clocks: the kernel's, one that tests move, and one that stands while it is held. */

#include "base/clock.h"

static uint64_t system_monotonic(const Clock *c) {
        (void)c;
        return clock_system_usec();
}

static uint64_t system_realtime(const Clock *c) {
        struct timespec ts;
        (void)c;
        (void)clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

const Clock clock_system = { .monotonic = system_monotonic, .realtime = system_realtime };

uint64_t clock_thread_cpu_usec(uint64_t tid) {
        enum { PER_THREAD = 4, OF_SCHEDULER = 2 }; /* as pthread_getcpuclockid(), which wants a handle that lives */
        clockid_t id = tid ? (clockid_t)(~(unsigned)tid << 3 | PER_THREAD | OF_SCHEDULER) : CLOCK_THREAD_CPUTIME_ID;
        struct timespec ts = { 0 };
        (void)clock_gettime(id, &ts); /* refused for what is no thread of ours, and leaves 0 then */
        return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

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

/* kept: 0 while it was not read yet. */
static uint64_t held_time(const HeldClock *h, uint64_t *kept, uint64_t (*read)(const Clock *c)) {
        if (!h->held)
                return read(h->clock.source);
        if (*kept == 0)
                *kept = read(h->clock.source);
        return *kept;
}

static uint64_t held_monotonic(const Clock *c) {
        HeldClock *h = (HeldClock *)c;
        return held_time(h, &h->monotonic_usec, h->clock.source->monotonic);
}

static uint64_t held_realtime(const Clock *c) {
        HeldClock *h = (HeldClock *)c;
        return held_time(h, &h->realtime_usec, h->clock.source->realtime);
}

void held_clock_init(HeldClock *h, const Clock *source) {
        *h = (HeldClock) { .clock = { .monotonic = held_monotonic, .realtime = held_realtime, .source = source } };
}

void held_clock_hold(HeldClock *h) {
        h->held = true;
        h->monotonic_usec = h->realtime_usec = 0;
}

void held_clock_release(HeldClock *h) {
        h->held = false;
}

/* Returns how long it took. */
static uint64_t read_pair(const Clock *c, uint64_t *ret_monotonic, uint64_t *ret_realtime) {
        *ret_monotonic = clock_monotonic(c);
        *ret_realtime = clock_realtime(c);
        return clock_monotonic(c) - *ret_monotonic;
}

/* Of all tries the best: the thread may lose its CPU between two reads, and that is no time that one clock is ahead of the other. */
static void read_both(const Clock *c, uint64_t *ret_monotonic, uint64_t *ret_realtime) {
        enum { TRIES = 16 };
        uint64_t shortest = read_pair(c, ret_monotonic, ret_realtime);

        for (int i = 1; i < TRIES && shortest > CLOCK_CLOSE_USEC; i++) {
                uint64_t monotonic, realtime, took = read_pair(c, &monotonic, &realtime);
                if (took >= shortest)
                        continue;
                shortest = took;
                *ret_monotonic = monotonic;
                *ret_realtime = realtime;
        }
}

static const Clock *going(const Clock *c) {
        return c->source ? c->source : c;
}

static uint64_t ahead(uint64_t usec, uint64_t now_from, uint64_t now_to) {
        uint64_t by = usec - now_from;
        return usec == USEC_NEVER || by > USEC_NEVER - now_to ? USEC_NEVER : now_to + by;
}

uint64_t clock_to_realtime(const Clock *c, uint64_t monotonic_usec) {
        uint64_t monotonic, realtime;
        read_both(going(c), &monotonic, &realtime);
        return monotonic_usec > monotonic ? ahead(monotonic_usec, monotonic, realtime) : clock_realtime(c);
}

uint64_t clock_from_realtime(const Clock *c, uint64_t realtime_usec) {
        uint64_t monotonic, realtime;
        read_both(going(c), &monotonic, &realtime);
        return realtime_usec > realtime ? ahead(realtime_usec, realtime, monotonic) : clock_monotonic(c);
}

void fake_clock_advance(FakeClock *f, uint64_t usec) {
        f->monotonic_usec += usec;
        f->realtime_usec += usec;
}
