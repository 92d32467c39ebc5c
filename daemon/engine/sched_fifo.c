/* SPDX-License-Identifier: MIT */
/* The scheduling class fifo: runnable queues take turns, one task each. A queue that still has something to start goes to the
 * end, so that one that is fed all the time keeps nobody else waiting for more than a turn. */

#include "engine/engine.h"

static void fifo_enqueue(Pool *p, Queue *q) {
        list_append(&p->runnable, &q->run_link);
        q->runnable = true;
        p->n_runnable++;
}

static void fifo_dequeue(Pool *p, Queue *q) {
        list_remove(&q->run_link);
        q->runnable = false;
        p->n_runnable--;
}

static Queue *fifo_pick(Pool *p) {
        List *l = list_first(&p->runnable);
        if (!l)
                return NULL;
        Queue *q = LIST_ENTRY(l, Queue, run_link);
        fifo_dequeue(p, q);
        return q;
}

const SchedClass sched_fifo = {
        .name = "fifo",
        .enqueue = fifo_enqueue,
        .dequeue = fifo_dequeue,
        .pick = fifo_pick,
};
