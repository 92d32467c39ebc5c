/* SPDX-License-Identifier: MIT */
#pragma once

/* What runs tasks. An executor is given one claimed task and a slot to run it in, and answers once, later or at once,
 * with engine_task_ended(). Implementations live one floor up, in executor/. */

#include <stdbool.h>
#include <stdint.h>

#include "proto/eq-types.h"

typedef struct Executor Executor;
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
        void *details;    /* the executor's own; lives until the `ended` hook has returned */
} TaskResult;

typedef struct ExecutorOps {
        const char *name;

        /* Starts t in slot; both stay valid until engine_task_ended(). 0, or negative errno: not started, the engine
         * puts the task back to its place and blocks the pool for a while with reason create-failure. May call
         * engine_task_ended() before it returns (a synchronous executor). Loop or worker; never blocks. */
        int (*start)(Executor *x, Slot *slot, Task *t);

        /* Asks for the end of t: first the signal (0: the default), KILL after grace_usec (UINT64_MAX: the task's own).
         * Repeatable. The answer is engine_task_ended() with TASK_STOPPED, or whatever it came to before. */
        void (*cancel)(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec);
} ExecutorOps;

struct Executor {
        const ExecutorOps *ops;
};
