/* SPDX-License-Identifier: MIT */
#pragma once

/* The law of an execution queue: everything about it that threads share without a lock, and every step they take on it.
 * xqueue.c and xholder.c are built on this; the models in tests/model check it as it stands here.
 *
 * WHO OWNS. A queue has one token. Who holds it may collect from the lanes and start tasks. It is made from nothing by the
 * push (or kick) that finds the normal lane EMPTY, handed on by scheduling the queue, laid down at the gate while the queue
 * is paused, and vanishes when its holder leaves:
 *
 *        no token  --push to EMPTY, kick-->  held  --schedule--> in the run queue --pick--> held
 *            ^                                | ^
 *            `----------- leave --------------' `-- resume --- at the gate <-- park -- held
 *
 * NOTHING IS FORGOTTEN. Whoever brings news by another way than the normal lane (an urgent task, a stop, the last
 * give-back of a stopped queue) writes the news first and then kicks: takes the token if there is none. Who leaves gives
 * the token up first and then looks for news. All four steps are sequentially consistent, so if the kick found a token
 * its holder, in leaving, finds the news. [mutant: leave without the second look]
 *
 * WHAT IS PENDING. One word counts tasks (low 28 bits) and 16-byte units (the rest). Four sums of such words only grow,
 * modulo 2^64; pending is a difference, so carries between the parts cancel out:
 *        charged    by submitters, before the push; or more at a time, in advance (xlot.h)
 *        done       by the token holder, after a task was executed
 *        canceled   by who canceled; or more at a time, later (xlot.h)
 *        refunded   by submitters that charged and were refused
 *        pending = charged - done - canceled - refunded
 *
 * NOBODY COMES TOO LATE. A submitter charges first and then looks whether the queue of that id is open; a stop closes it
 * first and then somebody looks at what is charged. Both sequentially consistent: a submitter that found it open is counted
 * by everyone who found it closed, so the queue does not end before its task has run. [mutant: look, then charge]
 * To read pending as zero, the three give-backs are read before the charges: each give-back follows its charge, so the
 * sums were equal at the moment when `charged` was read. [mutant: charges first]
 * In other words: a charge on an open queue keeps it from ending, with what is in it, until it is given back.
 *
 * IDS ARE WEAK. A look-up gives an address at which the queue of that id was. Memory of queues is type-stable, so the
 * address can be worked on, and every step either proves the id (enter, close, pin) or does no harm to a stranger: a charge
 * that is given back; a kick, which gives its queue a turn in which it finds nothing. So `charged` and the other sums are
 * never reset, in the whole life of the memory, and a queue that is not in use has a DEAD lane that no kick can take.
 * Ids are never used again, so there is no ABA. [mutant: proof before the charge] */

#include <stdint.h>

#include "engine/xbias.h"

enum {
        XCHARGE_TASK_BITS = 28,
        XCHARGE_UNIT = 16,      /* bytes */
        XHEAD_NO_LOTS = 1 << 1, /* in flags; see xlot.h. A lingering holder counts charges */
};
#define XCHARGE_TASKS_MAX ((UINT64_C(1) << XCHARGE_TASK_BITS) - 1)
#define XHEAD_ID_MASK ((UINT64_C(1) << 53) - 1)
#define XHEAD_CLOSED (UINT64_C(1) << 62) /* no more tasks */
#define XHEAD_LINGER (UINT64_C(1) << 61) /* the holder sleeps until there are XHead::linger_goal tasks */
#define XHEAD_PARKED (UINT64_C(1) << 63) /* in gate: the token lies there */
#define XHEAD_DYING (UINT64_C(1) << 63)  /* in pins: the last one to go frees the memory */

typedef enum XHeadVerdict { XHEAD_OK, XHEAD_GONE, XHEAD_STOPPED, XHEAD_FULL } XHeadVerdict;

typedef struct XHead {
        /* Written by submitters; not read by the holder while it works. */
        __attribute__((aligned(64))) Inbox normal;
        ATOMIC(uint64_t) charged;
        ATOMIC(uint64_t)
        seen; /* done + refunded + passed, as it was some time ago: spares submitters the lines below */
        ATOMIC(InboxNode *)
        recent[4]; /* pushed lately by threads that go round many queues; only a guess, see inbox_prefetch() */
        ATOMIC(uint32_t) n_recent;

        /* Read by submitters, seldom written. */
        __attribute__((aligned(64))) ATOMIC(uint64_t) life; /* id of the queue that is here, and flags; 0: none */
        ATOMIC(uint64_t) max_tasks, max_units;
        ATOMIC(uint32_t) linger_goal; /* number in `charged` at which the holder wants to be woken */
        ATOMIC(uint32_t) flags;       /* XTASK_TOLD, XHEAD_NO_LOTS. Of the next queue, if this one has ended */

        /* The token holder's; others write here seldom. */
        __attribute__((aligned(64))) Inbox urgent;
        ATOMIC(uint64_t) gate; /* depth of pauses, PARKED */
        ATOMIC(uint64_t) done;
        ATOMIC(uint64_t) passed; /* of those in `canceled`: out of the lanes, memory free */
        XBias bias;

        /* Written by others, not often. */
        __attribute__((aligned(64))) ATOMIC(uint64_t) canceled;
        ATOMIC(uint64_t) refunded;
        ATOMIC(uint64_t) pins;
} XHead;

static inline uint32_t xcharge_units_of(uint32_t bytes) {
        return bytes / XCHARGE_UNIT + (bytes % XCHARGE_UNIT != 0);
}

/* One task of so many units. */
static inline uint64_t xcharge(uint32_t units) {
        return 1 + ((uint64_t)units << XCHARGE_TASK_BITS);
}

static inline uint64_t xcharge_tasks(uint64_t charge) {
        return charge & XCHARGE_TASKS_MAX;
}

static inline uint64_t xcharge_units(uint64_t charge) {
        return charge >> XCHARGE_TASK_BITS;
}

/* ---- token ---- */

/* Takes the token if there is none. True: the caller has it, and schedules the queue. Any thread, wait-free. */
static inline bool xhead_kick(XHead *h) {
        return inbox_claim(&h->normal);
}

static inline bool xhead_is_closed(XHead *h) {
        return (load_seq_cst(&h->life) & XHEAD_CLOSED) != 0;
}

/* Nothing is charged. Final if the queue is closed. */
static inline bool xhead_is_drained(XHead *h) {
        uint64_t back = load_seq_cst(&h->done) + load_seq_cst(&h->canceled) + load_seq_cst(&h->refunded);
        return load_seq_cst(&h->charged) == back;
}

/* Stopped, and everything that was pending is over. */
static inline bool xhead_is_over(XHead *h) {
        return xhead_is_closed(h) && xhead_is_drained(h);
}

/* The holder, which has nothing collected, gives the token up. False: it has it still, there is more. */
static inline bool xhead_leave(XHead *h) {
        if (!inbox_leave(&h->normal))
                return false;
        preempt_here();
        if (!inbox_has_new(&h->urgent) && !xhead_is_over(h))
                return true;
        return !xhead_kick(h);
}

/* Whoever pushes, stops or pauses has to say so to the holder. */
static inline bool xhead_is_lingering(XHead *h) {
        return (load_seq_cst(&h->life) & XHEAD_LINGER) != 0;
}

/* ---- submit ---- */

/* A charge is given back by somebody who is not the holder. True: the caller has the token now. */
static inline bool xhead_refund(XHead *h, uint64_t charge) {
        (void)fetch_add_seq_cst(&h->refunded, charge);
        return xhead_is_closed(h) && xhead_kick(h);
}

/* Is there room for one that has got `before` from `charged`, and so much to spare? Also bounds the memory: canceled tasks that are still in the
 * lanes are not pending, but there are never more of them and the pending ones than twice max_tasks.
 * The short way is taken while all that was ever charged and not seen to be gone fits. A submitter that was away for long
 * may find that more is gone than it thought was there: the difference is negative, that is huge, and it looks again. */
static inline bool xhead_has_room(XHead *h, uint64_t before, uint64_t charge, uint64_t spare) {
        uint64_t max_tasks = load_relaxed(&h->max_tasks), max_units = load_relaxed(&h->max_units);
        uint64_t there = before - load_relaxed(&h->seen) + charge + spare;
        if (xcharge_tasks(there) <= max_tasks && xcharge_units(there) <= max_units)
                return true;
        uint64_t gone = load_acquire(&h->done) + load_acquire(&h->refunded), passed = load_acquire(&h->passed);
        uint64_t canceled = load_acquire(&h->canceled);
        store_relaxed(&h->seen, gone + passed);
        uint64_t charged = load_relaxed(&h->charged) + spare; /* after the others; its own is among it */
        there = charged - gone - passed;
        uint64_t pending = charged - gone - canceled;
        return xcharge_tasks(pending) <= max_tasks && xcharge_units(pending) <= max_units &&
               xcharge_tasks(there) <= 2 * max_tasks;
}

/* Of a queue of this id that is charged already: may the charge be used? */
static inline XHeadVerdict xhead_look(XHead *h, uint64_t id) {
        uint64_t life = load_seq_cst(&h->life) & ~XHEAD_LINGER;
        return life == id ? XHEAD_OK : life == (id | XHEAD_CLOSED) ? XHEAD_STOPPED : XHEAD_GONE;
}

/* Charges the queue of this id, if it has so much to spare beside. OK: it is open and stays until the charge is given back. Else
 * *ret_token says whether the caller has the token now. Any thread, wait-free. */
static inline XHeadVerdict xhead_enter(XHead *h, uint64_t id, uint64_t charge, uint64_t spare, bool *ret_token) {
        uint64_t before = fetch_add_seq_cst(&h->charged, charge);
        preempt_here();
        XHeadVerdict v = xhead_look(h, id);
        if (v == XHEAD_OK && !xhead_has_room(h, before, charge, spare))
                v = XHEAD_FULL;
        *ret_token = v != XHEAD_OK && xhead_refund(h, charge);
        return v;
}

/* The caller has entered. True: it has the token now. */
static inline bool xhead_push(XHead *h, InboxNode *n) {
        return inbox_push(&h->normal, n);
}

static inline bool xhead_push_urgent(XHead *h, InboxNode *n) {
        return inbox_push(&h->urgent, n) && xhead_kick(h);
}

/* ---- end of a task ---- */

/* The holder alone. */
static inline void xhead_done(XHead *h, uint64_t charge) {
        store_release(&h->done, load_relaxed(&h->done) + charge);
}

static inline void xhead_passed(XHead *h, uint64_t charge) {
        store_relaxed(&h->passed, load_relaxed(&h->passed) + charge);
}

/* Who has canceled a task gives its charge back. True: the caller has the token now. */
static inline bool xhead_canceled(XHead *h, uint64_t charge) {
        (void)fetch_add_seq_cst(&h->canceled, charge);
        return xhead_is_closed(h) && xhead_kick(h);
}

/* ---- gate ---- */

static inline bool xhead_is_paused(XHead *h) {
        return load_acquire(&h->gate) != 0;
}

/* The holder lays the token down if the queue is paused; resume gives it to somebody. False: it is not paused. */
static inline bool xhead_park(XHead *h) {
        uint64_t gate = load_relaxed(&h->gate);
        while (gate != 0)
                if (cas_acq_rel(&h->gate, &gate, gate | XHEAD_PARKED))
                        return true;
        return false;
}

/* One pause more, in one order with what is read of a lingering holder then. False: there are too many. */
static inline bool xhead_pause(XHead *h) {
        uint64_t gate = load_relaxed(&h->gate);
        do {
                if ((gate & UINT16_MAX) == UINT16_MAX)
                        return false;
        } while (!cas_seq_cst(&h->gate, &gate, gate + 1));
        return true;
}

/* One pause less. False: it was not paused. *ret_token: the caller has the token now. */
static inline bool xhead_resume(XHead *h, bool *ret_token) {
        uint64_t gate = load_relaxed(&h->gate), after;
        do {
                *ret_token = false;
                if (gate == 0)
                        return false;
                after = gate - 1;
                if (after == XHEAD_PARKED) {
                        *ret_token = true;
                        after = 0;
                }
        } while (!cas_acq_rel(&h->gate, &gate, after));
        return true;
}

/* ---- life ---- */

/* Closes the queue of this id. False: it is not here any more. *ret_token: the caller has the token now. */
static inline bool xhead_close(XHead *h, uint64_t id, bool *ret_token) {
        uint64_t life = load_relaxed(&h->life);
        *ret_token = false;
        while ((life & XHEAD_ID_MASK) == id) {
                if ((life & XHEAD_CLOSED) != 0)
                        return true;
                if (cas_seq_cst(&h->life, &life, life | XHEAD_CLOSED)) {
                        preempt_here();
                        *ret_token = xhead_kick(h);
                        return true;
                }
        }
        return false;
}

/* Frees the memory if nobody has it pinned. True: to the one who has to do it. */
static inline bool xhead_may_free(XHead *h) {
        uint64_t dying = XHEAD_DYING;
        return cas_seq_cst(&h->pins, &dying, 0);
}

/* Keeps the queue of this id where it is, beyond its end. False: it is not here; and *ret_free, as of unpin. */
static inline bool xhead_unpin(XHead *h) {
        return fetch_sub_seq_cst(&h->pins, 1) == (XHEAD_DYING | 1) && xhead_may_free(h);
}
static inline bool xhead_pin(XHead *h, uint64_t id, bool *ret_free) {
        (void)fetch_add_seq_cst(&h->pins, 1);
        preempt_here();
        *ret_free = false;
        if ((load_seq_cst(&h->life) & XHEAD_ID_MASK) == id)
                return true;
        *ret_free = xhead_unpin(h);
        return false;
}

/* New memory is all zeros; used memory is as xhead_end() left it. */
static inline void xhead_begin(XHead *h, uint64_t id, uint64_t max_tasks, uint64_t max_units, uint32_t flags) {
        store_relaxed(&h->flags, flags);
        store_relaxed(&h->max_tasks, max_tasks);
        store_relaxed(&h->max_units, max_units);
        store_relaxed(&h->gate, 0);
        store_relaxed(&h->seen, load_relaxed(&h->done) + load_relaxed(&h->refunded) + load_relaxed(&h->passed));
        store_release(&h->normal.head, INBOX_EMPTY);
        store_seq_cst(&h->life, id);
}

/* The holder, after the queue is over. The token is gone with it. */
static inline void xhead_end(XHead *h) {
        store_seq_cst(&h->life, 0);
        store_release(&h->normal.head, INBOX_DEAD);
}
/* After everything that is to be done in the memory. True: the caller frees it, now. */
static inline bool xhead_let_go(XHead *h) {
        (void)fetch_or_seq_cst(&h->pins, XHEAD_DYING);
        return xhead_may_free(h);
}
