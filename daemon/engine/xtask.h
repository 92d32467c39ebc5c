/* SPDX-License-Identifier: MIT */
#pragma once

/* A task of an execution queue, embedded first in what the owner of the queue makes of it, and the word that says how far
 * it is. Lives in a Slab: a reference may be looked at when the task is long gone and its memory another one's.
 *
 *                    submit            claim                finish
 *      FREE --------------> QUEUED ------------> RUNNING -----------> FREE, the same ticket
 *                             ^ |    unclaim      | ^
 *                             `-|-----------------' |
 *                        cancel |                   (touched by the holder only)
 *                               v
 *                           CANCELING ----------> CANCELED ---> FREE     by the holder, which takes it out of its lane
 *                               |     told
 *                               | the holder comes by
 *                               v
 *                            ORPHAN ------------------------> FREE      by the canceler
 *
 * Without somebody to tell, QUEUED becomes CANCELED at once. The lowest bit of a ticket says which of the two it is.
 *
 * The word is a ticket and the state. Every submitted task gets a ticket that no other task ever had, so a reference
 * (address and ticket) names one task for ever, and a compare-and-swap that expects the whole word cannot hit another one:
 * no ABA. QUEUED is left by one of claim and cancel, whichever comes first. [mutant: cancel by load and store] */

#include "engine/inbox.h"
#include <stdint.h>

typedef enum XTaskState {
        XTASK_FREE, /* executed, canceled and taken out, or never submitted */
        XTASK_QUEUED,
        XTASK_RUNNING,
        XTASK_CANCELING, /* canceled; who did it is still telling */
        XTASK_CANCELED,  /* but still in its lane */
        XTASK_ORPHAN,    /* out of its lane while CANCELING: the canceler releases it */
} XTaskState;

enum { XTASK_STATE_BITS = 3 };
#define XTASK_TOLD UINT64_C(1) /* in a ticket */
#define XTASK_STATE_MASK ((UINT64_C(1) << XTASK_STATE_BITS) - 1)

typedef struct XQueue XQueue;

typedef struct XTask {
        InboxNode node; /* XHead::normal, XHead::urgent, Collected. Its value: units charged to the queue; as `queue` */
        ATOMIC(XQueue *) queue; /* while not FREE; relaxed, the word says whether it holds */
        ATOMIC(uint64_t) word;  /* ticket, state */
} XTask;
/* The first two words of free memory are the slab's. */
_Static_assert(offsetof(XTask, word) >= 2 * sizeof(void *), "a stale reference must find the word");

typedef struct XTaskRef {
        XTask *task;
        uint64_t ticket; /* 0: none */
} XTaskRef;

static inline uint64_t xtask_word(uint64_t ticket, XTaskState state) {
        return ticket << XTASK_STATE_BITS | (uint64_t)state;
}

/* The submitter, before the push publishes it. */
static inline void xtask_begin(XTask *t, XQueue *q, uint32_t units, uint64_t ticket) {
        store_release(&t->queue, q); /* after its last state: see xtask_look() */
        store_relaxed(&t->node.value, units);
        store_release(&t->word, xtask_word(ticket, XTASK_QUEUED));
}

/* The holder, which has it out of its lane. True: it runs now. False: it was canceled, and the holder is done with it;
 * *ret_release: it is also the holder's to release. */
static inline bool xtask_claim(XTask *t, bool *ret_release) {
        uint64_t queued = load_relaxed(&t->word) & ~XTASK_STATE_MASK, word = queued | XTASK_QUEUED;
        if (cas_acquire(&t->word, &word, queued | XTASK_RUNNING) || word == (queued | XTASK_RUNNING))
                return true;
        word = queued | XTASK_CANCELING;
        *ret_release = !cas_acq_rel(&t->word, &word, queued | XTASK_ORPHAN);
        return false;
}

/* The holder, with a task that it has claimed and not started. */
static inline void xtask_unclaim(XTask *t) {
        store_release(&t->word, (load_relaxed(&t->word) & ~XTASK_STATE_MASK) | XTASK_QUEUED);
}

/* The holder; the memory is free after that. */
static inline void xtask_finish(XTask *t) {
        store_release(&t->word, load_relaxed(&t->word) & ~XTASK_STATE_MASK);
}

static inline bool xtask_is_told(XTaskRef ref) {
        return (ref.ticket & XTASK_TOLD) != 0;
}

static inline int xtask_verdict(XTaskRef ref, uint64_t word) {
        return word == xtask_word(ref.ticket, XTASK_RUNNING) ? 1 : -1;
}

/* Any thread, with any reference, wait-free, as those below. 0: it is queued, or was a moment ago, in *ret_queue, and charged with
 * that. 1: it is running. -1: it has run, or was canceled, or never was. */
static inline int xtask_look(XTaskRef ref, XQueue **ret_queue, uint32_t *ret_units) {
        uint64_t queued = xtask_word(ref.ticket, XTASK_QUEUED), word = load_acquire(&ref.task->word);
        if (word != queued)
                return xtask_verdict(ref, word);
        *ret_queue = load_acquire(&ref.task->queue);
        *ret_units = load_relaxed(&ref.task->node.value);
        word = load_relaxed(&ref.task->word); /* else they may be those of the next task */
        return word == queued ? 0 : xtask_verdict(ref, word);
}

/* 0: canceled, by this call. The task will not run, its charge is the caller's to give back. If xtask_is_told(), its memory stays
 * until xtask_canceled(). 1, -1: as above. */
static inline int xtask_try_cancel(XTaskRef ref) {
        uint64_t word = xtask_word(ref.ticket, XTASK_QUEUED);
        XTaskState next = xtask_is_told(ref) ? XTASK_CANCELING : XTASK_CANCELED;
        if (cas_acq_rel(&ref.task->word, &word, xtask_word(ref.ticket, next)))
                return 0;
        return xtask_verdict(ref, word);
}

/* In the holder's stead, who is about to. Verdict as above. */
static inline int xtask_make_run(XTaskRef ref) {
        uint64_t word = xtask_word(ref.ticket, XTASK_QUEUED), running = xtask_word(ref.ticket, XTASK_RUNNING);
        return cas_relaxed(&ref.task->word, &word, running) ? 1 : xtask_verdict(ref, word);
}

/* The canceler has told whom it had to. True: the memory is its to release, else the holder's. */
static inline bool xtask_canceled(XTask *t, uint64_t ticket) {
        return exchange_acq_rel(&t->word, xtask_word(ticket, XTASK_CANCELED)) == xtask_word(ticket, XTASK_ORPHAN);
}
