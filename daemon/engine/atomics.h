/* SPDX-License-Identifier: MIT */
#pragma once

/* Every atomic step of the execution queue goes through these, with its memory order in its name, so that the models in
 * tests/model can put a checker in their place: with EQD_ATOMICS_HEADER, the name of a header, the same sources compile
 * against that one, as C++. The files that are checked so keep to what C and C++ have in common.
 *
 *   ATOMIC(T)        a member that threads share
 *   *_relaxed        no order, only not torn
 *   *_acquire        what the writer did before its release is seen after this load
 *   *_release        what was done before is seen by who acquires this store
 *   *_acq_rel        both
 *   *_seq_cst        and all of these stand in one order that every thread agrees on: where one thread writes A and reads B
 *                    while another writes B and reads A, at least one sees the other
 *
 *   light_fence, heavy_fence   as *_seq_cst does for a write of A and a read of B, where one thread does it seldom: it has the
 *                    heavy fence between the two, a system call, and the others the light one, which costs nothing
 *
 * preempt_here(): a place between taking something and telling others, at which the stress tests stop a thread for a
 * while. Nothing in a daemon. */

#ifdef EQD_ATOMICS_HEADER
#include EQD_ATOMICS_HEADER
#else

#include <stdatomic.h>
#include <stdbool.h>

#define ATOMIC(T) _Atomic(T)

#define load_relaxed(p) atomic_load_explicit((p), memory_order_relaxed)
#define load_acquire(p) atomic_load_explicit((p), memory_order_acquire)
#define load_seq_cst(p) atomic_load_explicit((p), memory_order_seq_cst)
#define store_relaxed(p, v) atomic_store_explicit((p), (v), memory_order_relaxed)
#define store_release(p, v) atomic_store_explicit((p), (v), memory_order_release)
#define store_seq_cst(p, v) atomic_store_explicit((p), (v), memory_order_seq_cst)
#define exchange_acquire(p, v) atomic_exchange_explicit((p), (v), memory_order_acquire)
#define exchange_acq_rel(p, v) atomic_exchange_explicit((p), (v), memory_order_acq_rel)
#define exchange_seq_cst(p, v) atomic_exchange_explicit((p), (v), memory_order_seq_cst)
#define fetch_add_relaxed(p, v) atomic_fetch_add_explicit((p), (v), memory_order_relaxed)
#define fetch_add_release(p, v) atomic_fetch_add_explicit((p), (v), memory_order_release)
#define fetch_add_seq_cst(p, v) atomic_fetch_add_explicit((p), (v), memory_order_seq_cst)
#define fetch_sub_seq_cst(p, v) atomic_fetch_sub_explicit((p), (v), memory_order_seq_cst)
#define fetch_or_seq_cst(p, v) atomic_fetch_or_explicit((p), (v), memory_order_seq_cst)
#define fetch_and_seq_cst(p, v) atomic_fetch_and_explicit((p), (v), memory_order_seq_cst)
/* expected is a pointer; it is written when the exchange fails. Failing acquires, or is seq_cst. */
#define cas_acquire(p, expected, v)                                                                                    \
        atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acquire, memory_order_acquire)
#define cas_relaxed(p, expected, v)                                                                                    \
        atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_relaxed, memory_order_relaxed)
#define cas_acq_rel(p, expected, v)                                                                                    \
        atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_acq_rel, memory_order_acquire)
#define cas_seq_cst(p, expected, v)                                                                                    \
        atomic_compare_exchange_strong_explicit((p), (expected), (v), memory_order_seq_cst, memory_order_seq_cst)

#define light_fence() atomic_signal_fence(memory_order_seq_cst)
/* fence.c's. Without it, the heavy fence does nothing. Any thread */
bool heavy_fence_works(void);
void heavy_fence(void);

#ifdef EQD_PREEMPT
void preempt_here(void); /* the stress test's */
#else
#define preempt_here() ((void)0)
#endif

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        __asm__ volatile("yield");
#endif
}

#endif
