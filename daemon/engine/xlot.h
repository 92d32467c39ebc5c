/* SPDX-License-Identifier: MIT */
#pragma once

/* A lot: charges that a thread has taken from a queue in advance, for tasks that it is likely to submit to it. Who submits task after
 * task to one queue so has one locked instruction per task on what all submitters share, and not two. Law and every step; the
 * models in tests/model check it as it stands here.
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

enum { XLOT_TASKS = 64 };

typedef enum XLotState { XLOT_NONE, XLOT_GIVEN, XLOT_ASKED, XLOT_STATES = 4 } XLotState;

typedef struct XLot {
        ATOMIC(uint64_t) state; /* number of the grant, times XLOT_STATES, and XLotState */
        ATOMIC(uint64_t) left;  /* charge. The owner's, while it is GIVEN and nobody asks; as `head` */
        ATOMIC(XHead *) head;   /* written by the owner, while NONE */
        ATOMIC(uint32_t) busy;
} XLot;

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

static inline bool xlot_is_there(XLot *l) {
        return xlot_state(load_relaxed(&l->state)) != XLOT_NONE;
}

/* The lot is NONE. The caller has charged h with it, and looks then whether h was closed. */
static inline void xlot_grant(XLot *l, XHead *h, uint64_t left) {
        store_relaxed(&l->head, h);
        store_relaxed(&l->left, left);
        store_seq_cst(&l->state, (load_relaxed(&l->state) & ~(uint64_t)(XLOT_STATES - 1)) + XLOT_STATES + XLOT_GIVEN);
}

/* Whatever it is, it is NONE then. True: *ret_left is the caller's to give back to *ret_head. */
static inline bool xlot_give(XLot *l, XHead **ret_head, uint64_t *ret_left) {
        uint64_t state = load_relaxed(&l->state);
        *ret_head = load_relaxed(&l->head);
        *ret_left = load_relaxed(&l->left);
        while (xlot_state(state) != XLOT_NONE)
                if (cas_acq_rel(&l->state, &state, state & ~(uint64_t)(XLOT_STATES - 1)))
                        return true;
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

/* True: *ret_left is the caller's to give back to the queue. False: its owner does that. */
static inline bool xlot_get_back(XLot *l, uint64_t state, uint64_t *ret_left) {
        if (load_acquire(&l->busy) != 0)
                return false;
        *ret_left = load_relaxed(&l->left);
        return cas_acq_rel(&l->state, &state, state - XLOT_ASKED + XLOT_NONE);
}
