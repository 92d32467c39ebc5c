/* SPDX-License-Identifier: MIT */
#pragma once

/* The order in which what waits for a thread of a pool gets one: the scheduling classes of Workers, with the verbs of SchedClass
 * (engine/pool.h), whose queues belong to the loop. It is a type of its own, as threads and loop differ in what a class is told:
 *
 *   the loop      says of each queue that it became runnable or is not any more, at that moment
 *   threads       put into a wait-free inbox, and never touch the line. A worker that finds it empty collects what came, so a class is
 *                 given many at once. They leave by being picked, or are lent to a reserve from wherever they stand, and may have to
 *                 stand there again
 *
 * A class that picks by another order than that of arrival will want what came to be collected before each pick; now it is
 * collected when there is nothing else.
 *
 * All calls: with the lock of the Workers; nothing blocks. */

#include "engine/workers.h"

typedef struct Line Line;

/* One implementation per file. fifo: first come, first served. */
typedef struct LineClass {
        const char *name;
        void (*enqueue)(Line *l, Runnable *first); /* they wait now; in the order of their arrival, by node.next */
        void (*dequeue)(Line *l, Runnable *r);     /* r, which waits, does not any more */
        void (*restore)(Line *l,
                        Runnable *r); /* it does: as if there had been no dequeue, after which nothing else came */
        Runnable *(*pick)(Line *l);   /* the one to run next; NULL: none. Dequeues it */
} LineClass;

extern const LineClass line_fifo;

struct Line {
        const LineClass *sched;
        Runnable *first, *last; /* the class's */
        size_t n;               /* that wait; kept by the class */
};
