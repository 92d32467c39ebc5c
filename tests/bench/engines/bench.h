/* SPDX-License-Identifier: MIT */
/*
 * bench.h - the contract between the harness (bench.c) and one engine.
 *
 * An engine is a set of serial execution queues on a pool of worker threads. It implements the four
 * eng_*() functions below and calls bench_task() once for every task that it executes.
 *
 * A task is 16 bytes, (a, b). The harness writes into it: a = producer << 32 | sequence number of that
 * producer; b = 0, or the time stamp of the submit in latency mode. An engine passes both on unchanged.
 *
 * bench_task() checks while it counts: order per producer and queue, and, because the counter of a queue
 * is deliberately not atomic, that no two workers execute the same queue at once (a lost update leaves
 * the queue short of its expected count, and the run ends with err > 0 or a time-out).
 */
#ifndef BENCH_H
#define BENCH_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BENCH_PRODUCERS_MAX 16

/* ---- what the engine provides ---- */

/* Name in the result lines; a static string without tabs. */
const char *eng_name(void);

/* Creates queues 0 .. n_queues-1 and starts n_workers worker threads. Called once, before any submit. */
void eng_init(int n_queues, int n_workers);

/*
 * Submits one task; called by up to BENCH_PRODUCERS_MAX threads at once. The harness never retries: an
 * engine with a bounded inbox waits here (sched_yield()) until the task is accepted.
 */
void eng_submit(int queue, uint64_t a, uint64_t b);

/* Stops and joins what eng_init() started. May do nothing: the process exits directly afterwards. */
void eng_fini(void);

/* ---- what the harness provides ---- */

/* State of one queue; written only by the one worker that executes this queue at the time. */
struct QueueCheck {
        uint64_t n_done;
        uint64_t n_order_errors;
        uint64_t n_expected;
        uint32_t next_seq[BENCH_PRODUCERS_MAX];
} __attribute__((aligned(128)));

/* Tasks completed per producer, for the window mode (-W). */
struct ProducerDone {
        uint64_t n;
} __attribute__((aligned(128)));

extern struct QueueCheck *bench_queues;
extern struct ProducerDone bench_producers[BENCH_PRODUCERS_MAX];
extern int bench_window;

void bench_queue_done(void);
void bench_latency(uint64_t seq, uint64_t submitted);

/* A cheap clock: the time stamp counter on x86 (constant rate assumed), CLOCK_MONOTONIC elsewhere. */
static inline uint64_t bench_ticks(void) {
#if defined(__x86_64__) || defined(__i386__)
        return __builtin_ia32_rdtsc();
#else
        struct timespec ts;

        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
#endif
}

/* The body of every task. */
static inline void bench_task(int queue, uint64_t a, uint64_t b) {
        struct QueueCheck *c = &bench_queues[queue];
        uint32_t producer = (uint32_t)(a >> 32), seq = (uint32_t)a;

        if (c->next_seq[producer] > seq)
                c->n_order_errors++;
        c->next_seq[producer] = seq + 1;

        if (__builtin_expect(b != 0, 0))
                bench_latency(seq, b);
        if (bench_window && (seq & 63) == 63)
                __atomic_fetch_add(&bench_producers[producer].n, 64, __ATOMIC_RELAXED);

        c->n_done++; /* not atomic on purpose, see the top of this file */
        if (__builtin_expect(c->n_done == c->n_expected, 0))
                bench_queue_done();
}

#ifdef __cplusplus
}
#endif
#endif
