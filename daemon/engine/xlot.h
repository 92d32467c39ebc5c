/* SPDX-License-Identifier: MIT */
#pragma once

/* A lot: charges that a thread has taken from a queue in advance, for tasks that it is likely to submit to it. Who submits task after
 * task to one queue so has one locked instruction per task on what all submitters share, and not two. Law and every step; the
 * models in tests/model check it as it stands here.
 *
 * BACK. While it has a lot, its owner also puts the charges of tasks there that it cancels, and gives them back XLOT_TASKS at a time. Not
 * among those that are left: canceled tasks stay in the lane until the holder comes by, and who submits and cancels by turns would
 * fill it without end. Until they are given back they count as pending for the queue, though nobody runs them: they keep it from ending, and
 * whoever wants lots back gets them as well.
 *
 * A lot is charged like tasks are, so it keeps its queue from ending (xhead.h), and takes room. Hence others must be able to get
 * it back, while its owner, a thread, takes charges out without a locked instruction. Who wants it back:
 *
 *        NONE ------ owner: grant -----> GIVEN ----- anybody: ask -----> ASKED
 *          ^                               |                               |
 *          `------- owner: give -----------'                               |
 *          `------- the owner, or who asked if the owner is not at it -----'
 *
 * THE OWNER takes between busy = 1 and busy = 0, and looks at the state after each of the two. WHO ASKS changes the state and then
 * looks at busy. Between the write and the look the owner has a light fence, which only keeps the compiler from turning them around,
 * and who asks has a heavy one, which does the same to the CPUs of all threads (membarrier). So either the owner sees that it was
 * asked, before it takes or after it, and gives back itself; or who asked sees that it is not at it, and that what is left will not
 * change. Nobody waits. [mutants: without a fence; the owner does not look again; who asked does not look]
 *
 * The state counts grants, so that whoever changes it changes the grant that he has read about: no ABA. Both may try to give one
 * back, one of them does.
 *
 * A stop closes the queue and then asks for lots; an owner grants itself a lot and then looks whether the queue is closed. Both
 * sequentially consistent: no lot is left behind. [mutant: grant without the second look] */

#include <stdbool.h>
#include <stdint.h>

#include "engine/xhead.h"

#ifndef XLOT_TASKS
#define XLOT_TASKS 64
#endif

typedef enum XLotState { XLOT_NONE, XLOT_GIVEN, XLOT_ASKED, XLOT_STATES = 4 } XLotState;

typedef struct XLot {
        ATOMIC(uint64_t) state; /* number of the grant, times XLOT_STATES, and XLotState */
        ATOMIC(uint64_t) left;  /* charge. The owner's, while it is GIVEN and nobody asks; as the next two */
        ATOMIC(uint64_t) back;  /* charges of tasks that the owner has canceled, less than XLOT_TASKS */
        ATOMIC(XHead *) head;   /* written by the owner, while NONE */
        ATOMIC(uint32_t) busy;
        /* The owner's, here because its line is full (Pushed): pushes to the queue, modulo; and so many more that go without a lot, as
         * there was no room for one. */
        uint16_t n_pushes, n_alone;
} XLot;

/* What is to be given back of a lot, or of several. */
typedef struct XLotRest {
        uint64_t left, back; /* to XHead::refunded, to XHead::canceled */
} XLotRest;

static inline XLotState xlot_state(uint64_t state) {
        return (XLotState)(state % XLOT_STATES);
}

/* ---- the owner ---- */

static inline bool xlot_is_asked(XLot *l) {
        return xlot_state(load_relaxed(&l->state)) == XLOT_ASKED;
}

/* Takes a charge on h out of the lot. *ret_asked: somebody wants it back, see xlot_give(). */
static inline bool xlot_take(XLot *l, XHead *h, uint64_t charge, bool *ret_asked) {
        store_relaxed(&l->busy, 1);
        light_fence();
        uint64_t left = load_relaxed(&l->left);
        bool good = xlot_state(load_relaxed(&l->state)) == XLOT_GIVEN && load_relaxed(&l->head) == h &&
                    xcharge_tasks(left) >= xcharge_tasks(charge) && xcharge_units(left) >= xcharge_units(charge);
        preempt_here();
        if (good)
                store_relaxed(&l->left, left - charge);
        store_release(&l->busy, 0);
        light_fence();
        *ret_asked = xlot_is_asked(l);
        return good;
}

/* Puts the charge of a task of h that the owner has canceled into the lot. Returns what the owner has to give back, to h->canceled:
 * nothing, or as much as there is, or that charge if it has no lot of h. Asked: as above. */
static inline uint64_t xlot_put(XLot *l, XHead *h, uint64_t charge, bool *ret_asked) {
        store_relaxed(&l->busy, 1);
        light_fence();
        uint64_t back = load_relaxed(&l->back) + charge;
        bool good = xlot_state(load_relaxed(&l->state)) == XLOT_GIVEN && load_relaxed(&l->head) == h;
        bool full = xcharge_tasks(back) >= XLOT_TASKS;
        preempt_here();
        if (good)
                store_relaxed(&l->back, full ? 0 : back);
        store_release(&l->busy, 0);
        light_fence();
        *ret_asked = xlot_is_asked(l);
        return !good ? charge : full ? back : 0;
}

static inline bool xlot_is_there(XLot *l) {
        return xlot_state(load_relaxed(&l->state)) != XLOT_NONE;
}

/* The lot is NONE. The caller has charged h with it, and looks then whether h was closed. */
static inline void xlot_grant(XLot *l, XHead *h, uint64_t left) {
        store_relaxed(&l->head, h);
        store_relaxed(&l->left, left);
        store_relaxed(&l->back, 0);
        store_seq_cst(&l->state, (load_relaxed(&l->state) & ~(uint64_t)(XLOT_STATES - 1)) + XLOT_STATES + XLOT_GIVEN);
}

static inline XLotRest xlot_rest(XLot *l) {
        return (XLotRest) { load_relaxed(&l->left), load_relaxed(&l->back) };
}

/* Whatever it is, it is NONE then. True: *ret_rest is the caller's to give back to *ret_head. */
static inline bool xlot_give(XLot *l, XHead **ret_head, XLotRest *ret_rest) {
        uint64_t state = load_relaxed(&l->state);
        while (xlot_state(state) != XLOT_NONE) {
                *ret_head = load_relaxed(&l->head);
                *ret_rest = xlot_rest(l);
                if (cas_acq_rel(&l->state, &state, state & ~(uint64_t)(XLOT_STATES - 1)))
                        return true;
        }
        return false;
}

/* ---- others ---- */

/* Asks for a lot of h. True: then heavy_fence(), once for any number of lots, and xlot_get_back() with *ret_state. */
static inline bool xlot_ask(XLot *l, XHead *h, uint64_t *ret_state) {
        uint64_t state = load_seq_cst(&l->state);
        *ret_state = state - XLOT_GIVEN + XLOT_ASKED;
        return xlot_state(state) == XLOT_GIVEN && load_relaxed(&l->head) == h &&
               cas_seq_cst(&l->state, &state, *ret_state);
}

/* True: *ret_rest is the caller's to give back to the queue. False: its owner does that. */
static inline bool xlot_get_back(XLot *l, uint64_t state, XLotRest *ret_rest) {
        if (load_acquire(&l->busy) != 0)
                return false;
        *ret_rest = xlot_rest(l);
        return cas_acq_rel(&l->state, &state, state - XLOT_ASKED + XLOT_NONE);
}
