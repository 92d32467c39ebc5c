/* SPDX-License-Identifier: MIT */
#pragma once

/* engine/atomics.h for the checker relacy: every atomic step is a point at which it switches threads, and a load may give
 * any value that the C++ memory model allows it to give. C++ only, after relacy's own header. */

#ifdef __cplusplus
#define _Static_assert static_assert
#define ATOMIC(T) rl::atomic<T>

#define load_relaxed(p) ((p)->load(rl::mo_relaxed, $))
#define load_acquire(p) ((p)->load(rl::mo_acquire, $))
#define load_seq_cst(p) ((p)->load(rl::mo_seq_cst, $))
#define store_relaxed(p, v) ((p)->store((v), rl::mo_relaxed, $))
#define store_release(p, v) ((p)->store((v), rl::mo_release, $))
#define store_seq_cst(p, v) ((p)->store((v), rl::mo_seq_cst, $))
#define exchange_relaxed(p, v) ((p)->exchange((v), rl::mo_relaxed, $))
#define exchange_acquire(p, v) ((p)->exchange((v), rl::mo_acquire, $))
#define exchange_acq_rel(p, v) ((p)->exchange((v), rl::mo_acq_rel, $))
#define exchange_seq_cst(p, v) ((p)->exchange((v), rl::mo_seq_cst, $))
#define fetch_add_relaxed(p, v) ((p)->fetch_add((v), rl::mo_relaxed, $))
#define fetch_add_seq_cst(p, v) ((p)->fetch_add((v), rl::mo_seq_cst, $))
#define fetch_sub_seq_cst(p, v) ((p)->fetch_sub((v), rl::mo_seq_cst, $))
#define fetch_or_seq_cst(p, v) ((p)->fetch_or((v), rl::mo_seq_cst, $))
#define fetch_and_seq_cst(p, v) ((p)->fetch_and((v), rl::mo_seq_cst, $))
#define RELACY_CAS(p, e, v, success, failure) ((p)->compare_exchange_strong(*(e), (v), success, $, failure, $))
#define cas_relaxed(p, e, v) RELACY_CAS(p, e, v, rl::mo_relaxed, rl::mo_relaxed)
#define cas_acquire(p, e, v) RELACY_CAS(p, e, v, rl::mo_acquire, rl::mo_acquire)
#define cas_acq_rel(p, e, v) RELACY_CAS(p, e, v, rl::mo_acq_rel, rl::mo_acquire)
#define cas_seq_cst(p, e, v) RELACY_CAS(p, e, v, rl::mo_seq_cst, rl::mo_seq_cst)

#define light_fence() rl::atomic_thread_fence(rl::mo_seq_cst, $)
#define heavy_fence() rl::atomic_thread_fence(rl::mo_seq_cst, $)

#define preempt_here() ((void)0)
#endif
