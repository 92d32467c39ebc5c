/* SPDX-License-Identifier: MIT */
#pragma once

/* Threads that run what becomes runnable, in the order of a scheduling class (engine/line.h): first come first served. A worker is
 * not bound to what it runs; whatever is put here waits for the next free one. What is put is a Runnable that stands for a whole
 * queue, not for a task.
 *
 * There are between `min` and `max` workers. A worker that starts something makes sure that another one is idle, or that
 * one is being made: so a task that blocks keeps nobody else from running while there are fewer than `max`. A thread that
 * the system refuses is asked for again after a while. Idle workers that are not needed go.
 *
 * Knows no queue, task or loop. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/inbox.h"
#include "engine/workercount.h"

typedef struct Runnable Runnable;
struct Runnable {
        InboxNode node;
        void (*run)(Runnable *r); /* worker; may block */
        Runnable *before;         /* the line's */
        bool in_line;             /* the line's: it waits there */
        ATOMIC(uint64_t) n_woken; /* workers that were woken because who took this left something waiting */
};

typedef enum WorkersEvent {
        WORKERS_CREATED,
        WORKERS_CREATE_FAILED, /* error is negative errno; again after the cool-down */
        WORKERS_CULLED,        /* an idle one has gone */
        WORKERS_ALL_BUSY,      /* what workers_need() promised */
} WorkersEvent;

typedef struct WorkersParams {
        const char *name;              /* threads are called eqw/NAME:NUMBER, cut to 15 characters */
        unsigned min, max;             /* 1..WORKERS_MAX, min up to max */
        size_t stack_bytes;            /* of a thread */
        int nice;                      /* of a thread; 0: as the creator. Refused: it stays as it is */
        unsigned max_idle_ratio;       /* idle beyond two, times this, reaches the busy ones: too many */
        uint64_t idle_timeout_usec;    /* then the one that is idle for so long goes */
        uint64_t create_cooldown_usec; /* between a refused creation and the next try */
        uint64_t spin_usec;            /* at most so long an idle worker looks out before it sleeps; 0: never */
        /* Told of changes. A thread of the workers; holds no lock; must not call workers_free(). NULL: nobody asks. */
        void (*event)(void *host, WorkersEvent ev, int error);
        void *host;
        WorkersCount *
                count; /* kept up to date there, for those who must not wait for a lock. Outlives them; NULL: nobody asks */
} WorkersParams;

#define WORKERS_PARAMS_DEFAULT                                                                                         \
        (WorkersParams) {                                                                                              \
                .name = "default", .min = 1, .max = 4, .stack_bytes = 256 * 1024, .max_idle_ratio = 4,                 \
                .idle_timeout_usec = 300 * UINT64_C(1000000), .create_cooldown_usec = 1000000, .spin_usec = 100        \
        }

enum { WORKERS_MAX = 4096 };

typedef struct Workers Workers;

/* Copies *p and its name. 0, -EINVAL, -ENOMEM, or -EAGAIN: not even the thread that makes the others could be made. Less than
 * min workers at first are no error. */
int workers_new(const WorkersParams *p, Workers **ret);
/* One thread and never another, for something that wants its own. 0, -ENOMEM, -EAGAIN. */
int workers_new_single(const WorkersParams *p, Workers **ret);
/* Runs what was put, waits for it and for all threads. Nothing is put meanwhile, but by what runs. If there never was a
 * worker, the caller runs it. Not on a worker of its own. NULL-safe; returns NULL. */
Workers *workers_free(Workers *w);

/* r waits for a worker. It is in here or in the hands of a worker, never both: who puts it holds its token. Any thread,
 * wait-free; one system call if a worker has to be woken, and none while one is being woken. */
void workers_put(Workers *w, Runnable *r);
/* The same on a worker of w, from inside run(): to the end of the line. That worker looks there next, so nobody is woken. */
void workers_put_back(Workers *w, Runnable *r);
/* Does something wait for a worker? Any thread; a moment old. */
bool workers_has_waiting(Workers *w);

/* 0 or -EINVAL. Takes effect at once, but nobody who works is interrupted. Any thread; waits for a lock. */
int workers_set_limits(Workers *w, unsigned min, unsigned max);
/* The same of *p, and what else of it is no property of the whole: nice for workers made from now on, and the three times and
 * ratios. */
int workers_set_params(Workers *w, const WorkersParams *p);

/* Idle workers above min go at once, and the memory of tasks that are gone goes back to the system: for times when memory
 * is short. Any thread; waits for locks. */
void workers_shrink(Workers *w);

/* Whether more than min workers may be made. Those that there are stay. Any thread; waits for a lock. */
void workers_set_growth(Workers *w, bool allowed);

/* Why what waits cannot be run now, for those who have a reserve. */
typedef enum WorkersNeed {
        WORKERS_NO_NEED, /* somebody is idle, or is being made */
        WORKERS_REFUSED, /* all are at work, and the last thread that was to be made was refused */
        WORKERS_FULL,    /* all are at work, and there may be no more */
} WorkersNeed;

/* How it is at this moment. *ret_n_runs grows whenever something begins to run. NO_NEED: WORKERS_ALL_BUSY is told, once,
 * when somebody takes something to run and nobody is idle then. Any thread; waits for a lock. */
WorkersNeed workers_need(Workers *w, uint64_t *ret_n_runs);

/* For who has a reserve, which is no worker: takes r out, if it waits in the line, and lends it. lend() has its token, and says
 * whether it gives it back: then r is at its place again. False: it does not wait there, and lend() was not called.
 * Waits for a lock, and lend() is called with it. */
bool workers_lend(Workers *w, Runnable *r, bool (*lend)(Runnable *r, void *arg), void *arg);

/* Does this thread belong to w, or with NULL to any? */
bool workers_is_self(const Workers *w);

/* So long this thread was idle as a worker, in all. */
uint64_t workers_idle_usec(void);

typedef struct WorkersStats {
        unsigned n_workers, n_idle; /* idle: looking out or asleep */
        uint64_t n_created, n_create_failed, n_culled;
        uint64_t n_runs;    /* Runnables that were run */
        uint64_t n_wakeups; /* sleeping workers that were woken */
} WorkersStats;
void workers_get_stats(Workers *w, WorkersStats *ret); /* any thread; waits for a lock */
