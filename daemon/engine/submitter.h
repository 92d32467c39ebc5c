/* SPDX-License-Identifier: MIT */
#pragma once

/* What is kept for each thread that submits: where the queue of an id is, what the thread has pushed there lately, so that who
 * collects knows what to fetch, and the lots that it has of queues. A table with one place for each queue; a thread that goes round
 * more queues than fit has no use of it.
 *
 * That a queue was found here says as much as that the registry has it: it was there at some time, and the memory is still that
 * of a queue (xhead.h). */

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/xlot.h"

enum { SUBMITTER_PLACES = 64 };

typedef struct Pushed {
        alignas(64) XLot lot;
        uint64_t id, serial; /* of the queue whose place it is, and of its XQueues. The thread's own, as those below */
        XQueue *queue;
        InboxNode *nodes[INBOX_FAR];
} Pushed;

extern _Thread_local Pushed *submitter_places; /* SUBMITTER_PLACES; NULL: not made yet */
Pushed *submitter_make_places(void);           /* NULL: no memory */

/* The calling thread's place for a queue of that id, whoever has it now; NULL: no memory. Any thread, wait-free but for the
 * first time. */
static inline Pushed *submitter_place(uint64_t id) {
        Pushed *places = submitter_places;
        if (__builtin_expect(!places, 0) && !(places = submitter_make_places()))
                return NULL;
        return &places[id % SUBMITTER_PLACES];
}

/* The same, NULL if it has not got one yet. Calls nothing. */
static inline Pushed *submitter_old_place(uint64_t id) {
        Pushed *places = submitter_places;
        return places ? &places[id % SUBMITTER_PLACES] : NULL;
}

/* Asks all threads for their lots of h. Returns what the caller has to give back to it; the rest is given back by its owners before
 * they leave submit. Any thread; wait-free, in time with the number of threads that submit; a system call if there are lots. */
XLotRest submitter_call_in(uint64_t id, XHead *h);
/* What there is in lots of h at this moment. */
XLotRest submitter_count(uint64_t id, XHead *h);
