/* SPDX-License-Identifier: MIT */
#pragma once

/* What xqueue.c, which everybody calls, and xholder.c, where the holder of the token drains a queue, know of one. */

#include <stdalign.h>

#include "engine/xhead.h"
#include "engine/xqueue.h"

/* The thread of a dedicated queue. */
typedef struct XOwn {
        Workers *workers;
        struct XOwn *next; /* XQueues::retired */
} XOwn;

struct XQueue {
        SlabObject slab_words; /* the slab's while nobody has this memory */

        /* These do not change while the queue lives. */
        const XQueueOps *ops;
        void *meta;
        Slab *slab;
        Workers *workers; /* NULL: executor */
        XExecutor *executor;
        uint64_t id;

        XHead head;

        /* The holder's; with members, under group_lock. */
        alignas(64) Runnable runnable;
        ATOMIC(uint64_t) n_executed;
        unsigned n_stuck;
        Collected normal, urgent;
        uint64_t bias_era;   /* in which a task of the normal lane may be claimed without a locked instruction */
        uint64_t bias_begun; /* it is this one with the next collect; or both are XBIAS_NO_ERA */
        uint64_t calm_passed, calm_before; /* XHead::passed, and n_executed when it became that */

        ATOMIC(uint32_t) max_active;
        ATOMIC(uint32_t) active; /* members; written under group_lock */
        bool token_held;
        pthread_mutex_t group_lock; /* made with the memory, zeros; see above */

        /* As those above. */
        uint32_t batch_max, budget_tasks;
        uint64_t batch_linger_usec, budget_usec;
        uint64_t canceled_before; /* XHead::canceled when it began */
        XQueues *set;
        XOwn *own;        /* until its end */
        bool is_lendable; /* its workers are others', too */

        ATOMIC(uint64_t) n_refused;
        ATOMIC(uint32_t) ended;    /* futex; counts the queues that ended in this memory */
        ATOMIC(uint32_t) lingered; /* futex; counts calls to a lingering holder */
};

/* The caller has the token: somebody will drain the queue. */
static inline void xqueue_schedule(XQueue *q) {
        if (q->executor)
                q->executor->run(q->executor, q);
        else
                workers_put(q->workers, &q->runnable);
}

/* Nobody needs the memory of t any more. */
static inline void xqueue_release(XQueue *q, XTask *t) {
        if (q->ops->release)
                q->ops->release(q->meta, t);
        else
                slab_free(q->slab, t);
}

/* ---- xqueue.c ---- */

/* The queue, which stays where it is until xqueue_unpin(). NULL: there is none. */
XQueue *xqueue_pin(XQueues *xs, uint64_t id);
void xqueue_unpin(XQueue *q);
/* own, which may be NULL, is for xqueue_join() to wait for. */
void xqueue_retire(XQueues *xs, XOwn *own);

/* ---- xholder.c ---- */

void xholder_run_on_worker(Runnable *r);
/* Of a new queue. */
void xholder_begin_bias(XQueue *q);
/* Runs q, of which this thread has got the token, here and now, if xholder_may_nest(). */
void xholder_run_in_place(XQueue *q);
bool xholder_may_nest(void);
bool xholder_is_running_here(uint64_t id);
/* Submitters, also those that are refused, stop, pause and another max_active: a lingering holder should look; whatever: even if the
 * batch is not full. The queue may be another one by now; then a holder looks in vain. */
void xholder_call_lingering(XQueue *q, bool whatever);
static inline void xholder_call(XQueue *q, bool whatever) {
        if (xhead_is_lingering(&q->head))
                xholder_call_lingering(q, whatever);
}
