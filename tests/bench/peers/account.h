/* SPDX-License-Identifier: MIT */
/* account.h - the engine's view of account.c: what was counted, and when a run begins and ends. */
#ifndef ACCOUNT_H
#define ACCOUNT_H

#include <stdatomic.h>
#include <stdint.h>

/* Producers and workers may be two threads. */
struct Counters {
        _Atomic uint64_t n_submitted;
        _Atomic uint64_t n_accepted;
        _Atomic uint64_t n_received;
        _Atomic uint64_t n_done;
        _Atomic uint64_t n_errors;
};

extern struct Counters counters;

/* Relaxed: nothing is published through a counter. */
static inline void count(_Atomic uint64_t *counter, uint64_t n) {
        atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* Makes room for latency samples and, in a crash run, for the ledger. */
void account_init(void);

/* From now on deliveries are those after the restart, and completions say nothing about the time before.
 */
void account_begin_drain(void);

/* One line of key=value fields; seconds and cpu_seconds are those of the measured part. */
void account_print(double seconds, double cpu_seconds);

/* The verdict of a crash run over the first n_tasks tasks, another line of key=value fields. */
void account_print_ledger(uint64_t n_tasks, uint64_t n_errors_before);

#endif
