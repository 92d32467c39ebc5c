/* SPDX-License-Identifier: MIT */
#pragma once

/* What is kept for each thread that submits: what it has pushed lately, so that who collects knows what to fetch, and the lots that
 * it has of queues. A table with one place for each queue; a thread that goes round more queues than fit has no use of it. */

#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/xlot.h"

enum { SUBMITTER_PLACES = 64 };

typedef struct Pushed {
        alignas(64) XLot lot;
        const XHead *head; /* whose place it is. The thread's own, as those below */
        unsigned n;        /* pushes */
        unsigned n_alone;  /* so many are made without a lot, as there was no room for one */
        InboxNode *nodes[INBOX_FAR];
} Pushed;

/* The calling thread's place for a queue of that number, whoever has it now; NULL: no memory. Any thread, wait-free but for the
 * first time. */
Pushed *submitter_place(size_t number);

/* Are there lots at all? Not if the system has no membarrier(). */
bool submitter_has_lots(void);

/* Asks all threads for their lots of h. Returns what the caller has to give back to it; the rest is given back by its owners before
 * they leave submit. Any thread; wait-free, in time with the number of threads that submit; a system call if there are lots. */
uint64_t submitter_call_in(size_t number, XHead *h);
/* What there is in lots of h at this moment. */
uint64_t submitter_count(size_t number, XHead *h);
