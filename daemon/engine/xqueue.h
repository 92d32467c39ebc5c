/* SPDX-License-Identifier: MIT */
#pragma once

/* The execution queue: tasks submitted by any thread run one after the other, in the order of their submission, on worker
 * threads.
 *
 *   submit      wait-free: no lock, no system call but the wake-up of a worker
 *   two lanes   urgent tasks before all pending normal ones, each lane first in, first out; O(1) whatever the backlog
 *   batches     execute() takes tasks from an iterator, so that one call may have many; what it has not taken is pending
 *   turns       a queue that is fed without end gives way to others after budget_usec or budget_tasks
 *   cancel      0 canceled, 1 running, -1 too late; O(1), and a reference never hits another task
 *   stop, join  everything pending runs, then execute() is called once with `stopped`; both may be repeated
 *   weak ids    queues are named by numbers that may be stale, then there is a clear error
 *   memory      bounded in tasks and bytes; an idle pool gives it back
 *
 * No task here holds several queues: that is the loop's (barrier.h), where all places of such a task are given in one go.
 *
 * Threads see a queue by its id only. Tasks are embedded in what their owner makes of them and live in a Slab of his.
 *
 * Lifetimes: `meta`, ops, the slab, the workers and the executor stay until the queue has ended: until execute() with
 * `stopped` has returned, or join has. */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slab.h"
#include "engine/registry.h"
#include "engine/workers.h"
#include "engine/xtask.h"

typedef struct XBatch XBatch;
typedef struct XExecutor XExecutor;

typedef struct XQueueOps {
        /* Takes tasks with xbatch_next() and does them, or, with xbatch_is_stopped(), knows that it was the last call. Never on
         * two threads at once, unless max_active says so. A worker (or as XExecutor says); may block. */
        void (*execute)(void *meta, XBatch *b);
        /* The task was canceled and will not be executed. On the thread that cancels, before cancel returns. May be NULL. */
        void (*canceled)(void *meta, XTask *t);
        /* The queue does not need the memory of t any more: executed, or canceled and out of its lane. Any thread that is in a
         * call of this module. NULL: slab_free() into XQueueOptions::slab. */
        void (*release)(void *meta, XTask *t);
} XQueueOps;

/* Something else than Workers that runs queues. run() sees to it that xqueue_run(q) is called once, now (then every submit to an
 * idle queue is in place) or later, on any thread. It cannot fail. Such queues are serial. */
struct XExecutor {
        void (*run)(XExecutor *x, XQueue *q);
};

typedef struct XQueueOptions {
        Workers *workers; /* borrowed; these run it, unless one of the next two is set */
        /* Read by start only: a thread of its own, with that stack and priority. NULL: none. */
        const WorkersParams *dedicated;
        XExecutor *executor;        /* borrowed */
        Slab *slab;                 /* borrowed; see XQueueOps::release */
        uint32_t max_active;        /* tasks that run at once; 1: serial. Started in order */
        uint32_t batch_max;         /* tasks per call of execute() */
        uint64_t batch_linger_usec; /* so long xbatch_next() waits for a batch to fill; serial queues. 0: not at all */
        uint32_t budget_tasks;      /* then it is another one's turn, if another one waits */
        uint64_t budget_usec;       /* the same, in time */
        uint64_t max_tasks;         /* pending and running */
        uint64_t max_bytes;         /* of those */
} XQueueOptions;

#define XQUEUE_OPTIONS_DEFAULT                                                                                         \
        (XQueueOptions) {                                                                                              \
                .max_active = 1, .batch_max = 64, .budget_tasks = 64, .budget_usec = 1000, .max_tasks = 1000000,       \
                .max_bytes = 256 * 1024 * 1024                                                                         \
        }

enum {
        XQUEUE_ACTIVE_MAX = 65535,
        XQUEUE_TASKS_MAX = 100000000,
        XQUEUE_DEPTH_MAX = 8, /* queues that run in place inside each other on one thread */
};
#define XQUEUE_BYTES_MAX (UINT64_C(1) << 39)

/* All queues of a process, or of a test. Zeros are valid for deinit. */
typedef struct XQueues {
        Registry registry;
        Slab *slab;             /* of queues; keeps its memory, of as many queues as there once were at a time */
        uint64_t serial;        /* unlike that of every other XQueues there ever was */
        pthread_mutex_t lock;   /* for `retired` */
        struct XOwn *retired;   /* threads of dedicated queues that have ended */
        ATOMIC(uint32_t) n_own; /* those that have not; futex */
} XQueues;

/* 0, -ENOMEM, -ENOSPC (no slab left). */
int xqueues_init(XQueues *xs);
/* The last call of each queue was made, the workers that ran them are freed, and no thread is in a call. Waits for the
 * threads of dedicated queues, which may be on their way out of it. NULL-safe. */
void xqueues_deinit(XQueues *xs);

/* options NULL: the defaults, which lack workers. *ops, meta: see above. 0; -EINVAL (out of range, nobody to run it, no way to
 * release), -ENOMEM, -ENOSPC (too many queues), -EAGAIN (the dedicated thread was refused). Any thread; waits for a lock. */
int xqueue_start(XQueues *xs, const XQueueOptions *options, const XQueueOps *ops, void *meta, uint64_t *ret_id);

enum {
        XSUBMIT_URGENT = 1 << 0,
        /* If the queue is idle and this is a worker thread, run it here and now, inside submit. A task that is submitted with a
         * lock held that it needs itself deadlocks; queues that submit to each other do not recurse further than
         * XQUEUE_DEPTH_MAX, then the submit is as usual. */
        XSUBMIT_IN_PLACE = 1 << 1,
};

/* t becomes the queue's, if it is not refused. bytes: what it counts against max_bytes. *ret_ref (may be NULL) is for
 * xqueue_cancel(). 0; -ENOENT: no such queue, or no more; -ESHUTDOWN: it was stopped; -ENOSPC: it is full.
 * Any thread, wait-free. */
int xqueue_submit(XQueues *xs, uint64_t id, XTask *t, uint32_t bytes, unsigned flags, XTaskRef *ret_ref);

/* 0: canceled, it will not run. 1: it is running, and goes on. -1: it has run, was canceled, or never was. Other than 0 says no more
 * than that execute() was given it. Any thread, wait-free but for ops->canceled; a system call if none was canceled for long. */
int xqueue_cancel(XTaskRef ref);

/* No more submits; pending tasks run (if it is paused, after it was resumed), then execute() is called with `stopped` and the queue
 * is gone. Repeatable. 0, or -ENOENT: there never was one. Any thread, wait-free, in time with the number of threads that submit. */
int xqueue_stop(XQueues *xs, uint64_t id);
/* Waits for the end of that call. Does not stop. Repeatable, also long after. 0; -ENOENT: there never was such a queue; -EDEADLK:
 * this thread runs it. Any thread; blocks. */
int xqueue_join(XQueues *xs, uint64_t id);

/* Nothing is started until as many resumes; what runs goes on. 0, -ENOENT, -EOVERFLOW (65535 deep). Any thread. */
int xqueue_pause(XQueues *xs, uint64_t id);
/* 0, -ENOENT, -EALREADY: it was not paused. */
int xqueue_resume(XQueues *xs, uint64_t id);

/* A running task of a serial queue ends before more are started. 0, -ENOENT, -EINVAL. Any thread; waits for a lock. */
int xqueue_set_max_active(XQueues *xs, uint64_t id, uint32_t max_active);
/* For later submits. 0, -ENOENT, -EINVAL. Any thread, wait-free. */
int xqueue_set_limits(XQueues *xs, uint64_t id, uint64_t max_tasks, uint64_t max_bytes);

typedef struct XQueueStats {
        uint64_t n_tasks, n_bytes; /* pending and running; bytes in units of XCHARGE_UNIT */
        uint64_t n_executed, n_canceled, n_refused;
        uint64_t n_woken;  /* threads that were woken because a worker came to this queue and something else waited */
        unsigned n_active; /* executions at this moment; a serial one is not counted */
        unsigned pauses;
        bool stopped;
} XQueueStats;
/* A moment old, each number for itself. 0 or -ENOENT. Any thread, wait-free. */
int xqueue_get_stats(XQueues *xs, uint64_t id, XQueueStats *ret);

/* ---- for execute() ---- */

/* Ends the task that it gave before, and gives the next one; NULL: return. Until then the next task is in the queue, pending,
 * and can be canceled; a task that is not taken stays there, at its place. */
XTask *xbatch_next(XBatch *b);
/* No more tasks will come, ever; `meta` is free after this call. */
bool xbatch_is_stopped(const XBatch *b);

/* ---- for reserves ---- */

/* If the queue waits in the line of its Workers, execute() is called with one task of it, on this thread, which is none of
 * them. What else it has stays at its place, for workers. 0: it was called, though the task may have been canceled meanwhile;
 * -EAGAIN: it does not wait there: it is empty, paused, at work, or has as many at work as it may; -ENOENT. Blocks as long as
 * the task does. The workers stay until it returns. */
int xqueue_rescue(XQueues *xs, uint64_t id);

/* ---- for XExecutor ---- */

/* Runs the queue until it is empty, paused, or handed on. Once per XExecutor::run(). */
void xqueue_run(XQueue *q);
