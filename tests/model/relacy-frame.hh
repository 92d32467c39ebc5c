/* SPDX-License-Identifier: MIT */
#pragma once

/* What all programs of models need: the laws of daemon/engine behind relacy's atomics, memory as it is when it is new, and how a model
 * is run. */

#include <relacy/relacy.hpp>

#include <cstring>

#ifndef BOUND
#define BOUND 2 /* switches between threads that do not wait, in the search of all ways */
#endif

#define EQD_ATOMICS_HEADER "relacy-atomics.h"
#define REGISTRY_SLOT_BITS 2
#define REGISTRY_CHUNK_BITS 1
#define XLOT_TASKS 2
#include "engine/inbox.c"
#include "engine/slots.h"
#include "engine/xbias.h"
#include "engine/xhead.h"
#include "engine/xlot.h"
#include "engine/xtask.h"

#define VAR rl::var
#define SAY(v) ((v)($))

/* relacy does not clear what it has not seen written. */
static void clear(InboxNode *n) {
        store_relaxed(&n->next, INBOX_EMPTY);
        store_relaxed(&n->value, 0);
        n->far = 0;
}

static void clear(XHead *h, uint64_t id, uint64_t max_tasks) {
        store_relaxed(&h->normal.head, INBOX_EMPTY);
        store_relaxed(&h->urgent.head, INBOX_EMPTY);
        ATOMIC(uint64_t) * words[] = { &h->charged,  &h->seen,     &h->life, &h->gate,       &h->done,     &h->passed,
                                       &h->canceled, &h->refunded, &h->pins, &h->bias.state, &h->bias.hand };
        for (ATOMIC(uint64_t) * word : words)
                store_relaxed(word, 0);
        xhead_begin(h, id, max_tasks, max_tasks, 0);
}

static void clear(XTask *t) {
        clear(&t->node);
        store_relaxed(&t->queue, (XQueue *)0);
        store_relaxed(&t->word, 0);
}

static const uint64_t ID = 5 << 4;
static const uint32_t UNITS = 0; /* a charge of one task */

/* At random, where threads switch all the time, and then all ways with few switches, where one of them waits for long. */
template <typename Model> static int check(unsigned n) {
        rl::test_params p;
        p.iteration_count = n;
        p.search_type = rl::sched_random;
        p.output_stream = &std::cerr;
        p.progress_stream = &std::cerr;
        if (!rl::simulate<Model>(p))
                return 1;
        p.search_type = rl::sched_bound;
        p.context_bound = BOUND;
        return rl::simulate<Model>(p) ? 0 : 1;
}

struct Row {
        const char *name;
        int (*check)(unsigned n);
};

template <size_t N> static int run(const Row (&models)[N], int argc, char **argv) {
        for (const Row &m : models)
                if (argc == 3 && strcmp(argv[1], m.name) == 0)
                        return m.check((unsigned)atoi(argv[2]));
        fprintf(stderr, "usage: %s NAME ITERATIONS\n", argv[0]);
        return 2;
}
