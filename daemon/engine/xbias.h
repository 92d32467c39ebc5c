/* SPDX-License-Identifier: MIT */
#pragma once

/* How the holder claims tasks of the normal lane without a locked instruction as long as nobody cancels: claims are biased towards
 * the holder. Law and every step; the models in tests/model check it as it stands here.
 *
 *        OFF ------ holder: begin -----> ON -- canceler --> ENDING
 *         ^                                                   |
 *         `---- that one, or another canceler, after a fence -'
 *
 * ON: THE HOLDER puts the word of the task in its hand, looks whether it is ON, and then only stores that the task runs. A CANCELER
 * makes it ENDING, has a heavy fence, and then looks what is in the hand; the holder has a light fence between its two steps. So
 * either the canceler sees the task in the hand and does not cancel it, or the holder sees that it is not ON, and claims as
 * xtask_claim() does. Who finds ENDING has a fence of his own and waits for nobody. [mutants: without a fence; it is not looked at
 * the hand; the second canceler has no fence]
 *
 * IN THE HAND is not yet claimed: the holder may have looked before or after. The canceler settles that and makes the task run
 * itself, which whatever the holder does agrees with: it stores the same, or finds it done. A task is in the hand only if it will be
 * executed, unless it was canceled before, and what lies in the hand later is an old word that no task has any more. [mutant: it is not settled]
 *
 * ON AGAIN, after a time without cancels. Meanwhile there may be cancelers who saw it OFF and so will not look at the hand in
 * time. Their tasks were pushed before it was ON, or else they had seen that: it is published by each later exchange of the lane
 * (collect or leave) to who pushes after that, and by him to who cancels that task. So the holder makes it ON, and claims with the locked
 * instruction what it finds with the next collect; what comes after that was pushed later. [mutants: it does not wait for the next
 * collect; a collect that does not release]
 *
 * The state counts eras, so that who ends one ends the one that he has read about: no ABA. It goes on from queue to queue in the
 * same memory. Tasks of the urgent lane and of parallel queues are claimed as ever. */

#include <stdbool.h>
#include <stdint.h>

#include "engine/xtask.h"

typedef enum XBiasState { XBIAS_OFF, XBIAS_ON, XBIAS_ENDING, XBIAS_STATES = 4 } XBiasState;
#define XBIAS_NO_ERA UINT64_MAX /* not a value of XBias::state */
#ifndef XBIAS_CALM
#define XBIAS_CALM 4096 /* tasks that are executed without a cancel before it is ON again */
#endif

typedef struct XBias {
        ATOMIC(uint64_t) state; /* number of the era, times XBIAS_STATES, and XBiasState */
        ATOMIC(uint64_t) hand;  /* XTask::word; the holder's */
} XBias;

static inline XBiasState xbias_state(uint64_t state) {
        return (XBiasState)(state % XBIAS_STATES);
}

/* ---- the holder ---- */

/* It is OFF. Returns the era, which xbias_claim() may be called with for tasks that are collected with the next collect but one. */
static inline uint64_t xbias_begin(XBias *b) {
        uint64_t era = (load_relaxed(&b->state) & ~(uint64_t)(XBIAS_STATES - 1)) + XBIAS_STATES + XBIAS_ON;
        store_relaxed(&b->state, era);
        return era;
}

/* The task runs now, or: see xtask_claim(). */
static inline bool xbias_claim(XBias *b, uint64_t era, XTask *t) {
        uint64_t word = load_relaxed(&t->word);
        if ((word & XTASK_STATE_MASK) != XTASK_QUEUED)
                return false;
        store_release(&b->hand, word); /* with the state of the one that was there before */
        light_fence();
        preempt_here();
        if (load_relaxed(&b->state) != era)
                return false;
        preempt_here();
        store_relaxed(&t->word, word - XTASK_QUEUED + XTASK_RUNNING);
        return true;
}

/* ---- cancelers ---- */

/* The holder claims by a locked instruction now, or has in its hand what it claims. A system call the first time in an era. */
static inline void xbias_end(XBias *b) {
        uint64_t state = load_acquire(&b->state);
        while (xbias_state(state) == XBIAS_ON)
                if (cas_acq_rel(&b->state, &state, state - XBIAS_ON + XBIAS_ENDING))
                        state += XBIAS_ENDING - XBIAS_ON;
        if (xbias_state(state) != XBIAS_ENDING)
                return;
        heavy_fence();
        (void)cas_acq_rel(&b->state, &state, state - XBIAS_ENDING + XBIAS_OFF);
}

/* xbias_end() would do nothing. */
static inline bool xbias_is_off(XBias *b) {
        return xbias_state(load_acquire(&b->state)) == XBIAS_OFF;
}

/* Of a queue in which the task is, or was, and which was OFF since. Else as xtask_try_cancel(). */
static inline int xbias_try_cancel_off(XBias *b, XTaskRef ref) {
        preempt_here();
        if (load_acquire(&b->hand) == xtask_word(ref.ticket, XTASK_QUEUED))
                return xtask_make_run(ref);
        return xtask_try_cancel(ref);
}

/* The same, whatever it was. */
static inline int xbias_try_cancel(XBias *b, XTaskRef ref) {
        xbias_end(b);
        return xbias_try_cancel_off(b, ref);
}
