/* SPDX-License-Identifier: MIT */
#pragma once

/* The workers of engine/workers.h as one thread plays them, that of who includes this: what is put waits until work() is called. For
 * programs with the sources of the engine but workers.c. */

#include <errno.h>

#include "engine/workers.h"

struct Workers {
        Runnable *first, **end; /* through InboxNode::next */
};

static Workers one = { .end = &one.first };
static uint64_t idle_usec; /* that it has been idle, for who plays with time */

void workers_put(Workers *w, Runnable *r) {
        store_relaxed(&r->node.next, NULL);
        *w->end = r;
        w->end = (Runnable **)&r->node.next;
}

void workers_put_back(Workers *w, Runnable *r) {
        workers_put(w, r);
}

/* True: something was there to be run. */
static inline bool work(void) {
        Runnable *r = one.first;
        if (!r)
                return false;
        one.first = (Runnable *)load_relaxed(&r->node.next);
        if (!one.first)
                one.end = &one.first;
        r->run(r);
        return true;
}

int workers_new(const WorkersParams *p, Workers **ret) {
        *ret = &one;
        return 0;
}

int workers_new_single(const WorkersParams *p, Workers **ret) {
        return -EAGAIN;
}

Workers *workers_free(Workers *w) {
        return NULL;
}

bool workers_has_waiting(Workers *w) {
        return w->first;
}

int workers_set_params(Workers *w, const WorkersParams *p) {
        return 0;
}

void workers_shrink(Workers *w) {
}

void workers_set_growth(Workers *w, bool allowed) {
}

WorkersNeed workers_need(Workers *w, uint64_t *ret_n_runs) {
        *ret_n_runs = 0;
        return WORKERS_NO_NEED;
}

bool workers_lend(Workers *w, Runnable *r, bool (*lend)(Runnable *r, void *arg), void *arg) {
        return false;
}

bool workers_is_self(const Workers *w) {
        return false;
}

uint64_t workers_idle_usec(void) {
        return idle_usec;
}

void workers_get_stats(Workers *w, WorkersStats *ret) {
        *ret = (WorkersStats) { .n_workers = 1 };
}
