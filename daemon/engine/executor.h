/* SPDX-License-Identifier: MIT */
#pragma once

/* What runs tasks. An executor is given one claimed task and a slot to run it in, and answers once, later or at once,
 * with engine_task_ended(). Implementations live one floor up, in executor/. */

#include <stdbool.h>
#include <stdint.h>

#include "proto/eq-types.h"

typedef struct Executor Executor;
typedef struct Pool Pool;
typedef struct Queue Queue;
typedef struct Slot Slot;
typedef struct Task Task;

/* How an attempt ended. */
typedef enum TaskVerdict {
        TASK_OK,          /* did what it should */
        TASK_BAD,         /* ended by itself, badly: exit status, or could not be started */
        TASK_CRASHED,     /* died by a signal that nobody here sent, or took its executor along */
        TASK_TIMED_OUT,   /* was stopped because its time was over */
        TASK_STOPPED,     /* was stopped because it was canceled */
        TASK_NOT_STARTED, /* the executor could not take it now; back to its place, nothing counted */
        TASK_LOST,        /* whoever had it is gone: back to its place, a crash is counted */
        TASK_RETURNED,    /* whoever had it did not begin: back to its place, only the attempt is counted */
} TaskVerdict;

typedef struct TaskResult {
        TaskVerdict verdict;
        eq_reason reason; /* EQ_REASON_NONE, or why it could not run */
        bool final;       /* TASK_BAD: another attempt would not help */
        bool says_when;   /* TASK_BAD, TASK_RETURNED: the next attempt comes after retry_after_usec */
        uint64_t retry_after_usec;
        int error;     /* TASK_NOT_STARTED: what the system said, negative errno; 0: it was not that */
        void *details; /* the executor's own; lives until the `ended` hook has returned */
} TaskResult;

typedef struct ExecutorOps {
        const char *name;

        /* Starts t in slot; both stay valid until engine_task_ended(). 0, or negative errno: not started, the engine
         * puts the task back to its place and blocks the pool for a while with reason create-failure; -EAGAIN: not now, but
         * the system has refused nothing (in a reserve slot:
         * -ENOMEM and -EMFILE say that this task needs more than the reserve has, others that there is none now). May call
         * engine_task_ended() before it returns (a synchronous executor). Loop or worker; never blocks. */
        int (*start)(Executor *x, Slot *slot, Task *t);

        /* For executors that choose what runs t as they take it, see EngineHooks::clear; all three, or none: then start() is called
         * when t is cleared.
         *   claim    as start(), but t must not begin, and cannot end otherwise than by TASK_NOT_STARTED, before go()
         *   go       it is cleared. 0, or negative errno: not started, and all is as before claim()
         *   unclaim  it will not be: all is as before claim() */
        int (*claim)(Executor *x, Slot *slot, Task *t);
        int (*go)(Executor *x, Slot *slot, Task *t);
        void (*unclaim)(Executor *x, Slot *slot, Task *t);

        /* Asks for the end of t: first the signal (0: the default), KILL after grace_usec (UINT64_MAX: the task's own).
         * Repeatable. The answer is engine_task_ended() with TASK_STOPPED, or whatever it came to before. */
        void (*cancel)(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec);

        /* For rescuers: makes what a start in this slot, which is none of a pool, needs and could be refused; start() in it
         * uses that, and an end of the task makes it anew. 0, or negative errno: nothing was made. May wait, a bounded time.
         * NULL, both: there is nothing to make. */
        int (*reserve)(Executor *x, Slot *slot);
        void (*unreserve)(Executor *x, Slot *slot);

        /* For executors that are handed tasks before they begin them, see queue_set_ahead(); others have neither.
         * take_back: t comes back, unless it has begun: true, and the slot is free again; false, and it runs. */
        bool (*take_back)(Executor *x, Slot *slot, Task *t);
        bool (*has_begun)(Executor *x, const Slot *slot, const Task *t);

        /* For rescuers of executors that are handed tasks ahead of workers of their own; all four, or none. Nothing blocks.
         *   need        why no worker can be had in p: create-failure, pool-full, or EQ_REASON_NONE: one can, and pool_all_busy()
         *               is called as soon as none is idle. *ret_n_begun changes whenever something begins
         *   waits       q, which is unserved, waits for a worker to become served
         *   help        the reserve of this slot begins one task of q, of those that were handed over, if one waits for a worker
         *               at this moment; rescue_helped() when it is through with it
         *   has_helped  it has begun one */
        eq_reason (*need)(Executor *x, Pool *p, uint64_t *ret_n_begun);
        bool (*waits)(Executor *x, const Queue *q);
        void (*help)(Executor *x, Slot *slot, Queue *q);
        bool (*has_helped)(Executor *x, const Slot *slot);

        /* q was stopped and has nothing more to run. True: it has ended. False: it has not yet; queue_enter() and
         * queue_leave() when it has. Repeated. NULL: always true. */
        bool (*end)(Executor *x, Queue *q);
} ExecutorOps;

struct Executor {
        const ExecutorOps *ops;
};
