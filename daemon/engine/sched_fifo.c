/* SPDX-License-Identifier: MIT */
/* The scheduling class `fifo`: one run queue for the pool, round robin. A queue gets one task started, then stands at the
 * end again: a queue that is fed for ever delays each other one by one task. */

#include "engine/pool.h"
#include "engine/queue.h"

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
        List *link = list_first(&p->runnable);
        if (!link)
                return NULL;
        Queue *q = LIST_ENTRY(link, Queue, run_link);
        fifo_dequeue(p, q);
        return q;
}

const SchedClass sched_fifo = {
        .name = "fifo",
        .enqueue = fifo_enqueue,
        .dequeue = fifo_dequeue,
        .pick = fifo_pick,
};
