/* SPDX-License-Identifier: MIT */
/* The class `fifo` of threads. Linked in both directions, so that one can be taken out of the middle. */

#include "engine/line.h"

static Runnable *after(const Runnable *r) {
        return (Runnable *)load_relaxed(&r->node.next);
}

static void set_after(Line *l, Runnable *before, Runnable *r) {
        if (before)
                store_relaxed(&before->node.next, r ? &r->node : NULL);
        else
                l->first = r;
}

static void set_before(Line *l, Runnable *r, Runnable *before) {
        if (r)
                r->before = before;
        else
                l->last = before;
}

static void fifo_enqueue(Line *l, Runnable *first) {
        Runnable *last = l->n > 0 ? l->last : NULL;
        set_after(l, last, first);
        for (Runnable *r = first; r; last = r, r = after(r)) {
                r->before = last;
                r->in_line = true;
                l->n++;
        }
        l->last = last;
}

/* What was before it is still to be read in it: that is where it is restored. */
static void fifo_dequeue(Line *l, Runnable *r) {
        Runnable *before = r == l->first ? NULL : r->before, *next = after(r);
        r->in_line = false;
        r->before = before;
        set_after(l, before, next);
        set_before(l, next, before);
        l->n--;
}

static void fifo_restore(Line *l, Runnable *r) {
        Runnable *next = r->before ? after(r->before) : l->first;
        r->in_line = true;
        set_after(l, r->before, r);
        set_after(l, r, next);
        set_before(l, next, r);
        l->n++;
}

/* Of the first one nobody reads what was before it. */
static Runnable *fifo_pick(Line *l) {
        Runnable *r = l->first;
        if (!r)
                return NULL;
        l->first = after(r);
        l->n--;
        r->in_line = false;
        return r;
}

const LineClass line_fifo = {
        .name = "fifo",
        .enqueue = fifo_enqueue,
        .dequeue = fifo_dequeue,
        .restore = fifo_restore,
        .pick = fifo_pick,
};
