/* SPDX-License-Identifier: MIT */
#pragma once

/* All queues and pools, the timers of tasks, and the way up: what the engine tells its host.
 *
 * Usable alone: knows no socket, no msgpack, no file, no loop. The host brings the time (base/clock.h), calls
 * engine_run_due() when engine_next_usec() has come, and gets everything else through the hooks. Loop thread only. */

#include "base/clock.h"
#include "base/heap.h"
#include "engine/executor.h"
#include "engine/pool.h"
#include "engine/queue.h"
#include "engine/task.h"

/* What the host decides after an attempt that did not end well. */
typedef struct TaskFate {
        TaskEvent event;   /* FAIL, TIME_OUT, GIVE_UP, CANCEL, RETRY or RETURN */
        uint64_t due_usec; /* RETRY: monotonic time of the next attempt */
} TaskFate;

/* Called from inside engine calls, on their thread. They may call the engine, except engine_deinit() and queue_free()
 * of the queue concerned. */
typedef struct EngineHooks {
        /* t was claimed and the executor has it. */
        void (*started)(void *host, Task *t);
        /* An attempt ended. The host looks at *result (details live until it returns) and decides; not asked for
         * TASK_OK (FINISH) and TASK_NOT_STARTED (RETURN, attempt not counted). */
        TaskFate (*ended)(void *host, Task *t, const TaskResult *result);
        /* Told for every attempt that ended well, before `finished`, so that details can be kept. */
        void (*ended_well)(void *host, Task *t, const TaskResult *result);
        /* t is in a finished state and out of the queue: the host owns it again. */
        void (*finished)(void *host, Task *t);
        /* Room fell free in q, for those who wait for space. */
        void (*space)(void *host, Queue *q);
        /* engine_next_usec() became earlier. */
        void (*rearm)(void *host, uint64_t next_usec);
} EngineHooks;

struct Engine {
        const Clock *clock;
        const EngineHooks *hooks;
        void *host;
        List pools;
        Heap due; /* of Task::due_item */
        uint64_t next_armed_usec;

        Queue **queues; /* by slot; NULL: free */
        uint32_t *generations;
        size_t n_queues, n_slots, cap_slots; /* of queues: in use, ever used, allocated */
        size_t first_free;                   /* no free slot is below */
        size_t n_due_reserved; /* room in `due` for tasks that are reserved, and for every slot of every pool */
};

int engine_init(Engine *e, const Clock *clock, const EngineHooks *hooks, void *host);
void engine_deinit(Engine *e); /* frees queues and pools; no task may be left. NULL-safe, half-built too */

uint64_t engine_now(const Engine *e); /* monotonic microseconds */

/* A stale id gives NULL, never another queue. O(1), no lock. */
Queue *engine_queue(const Engine *e, uint64_t id);

/* Executors answer here, once per start. result is read, not kept. May start other tasks before it returns. */
void engine_task_ended(Engine *e, Task *t, const TaskResult *result);

/* Stops a running task through its executor. signal, grace_usec as in ExecutorOps::cancel. 0, or -1: it does not run. */
int engine_task_stop(Engine *e, Task *t, int signal, uint64_t grace_usec);

/* Monotonic time of the next due task, UINT64_MAX: none. */
uint64_t engine_next_usec(const Engine *e);
/* Delays that are over, back-offs, expiries. Returns the next time, as engine_next_usec(). */
uint64_t engine_run_due(Engine *e);

/* Restores what a restart must not lose: generations of queue slots. For the store. */
int engine_seed_generation(Engine *e, uint64_t last_queue_id);

/* ---- for queue.c and pool.c ---- */
int engine_reserve_due(Engine *e, size_t n); /* so that n more tasks can have a due time; 0 or -ENOMEM */
void engine_unreserve_due(Engine *e, size_t n);
void engine_set_due(Engine *e, Task *t); /* by its wait, due_usec, expire_usec */
void engine_rearm(Engine *e, uint64_t usec);
int engine_add_queue(Engine *e, Queue *q); /* gives it its id. 0, -ENOSPC, -ENOMEM */
void engine_remove_queue(Engine *e, Queue *q);
