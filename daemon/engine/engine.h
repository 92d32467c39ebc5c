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
#include "engine/rescuer.h"
#include "engine/task.h"
#include "engine/watch.h"

/* What the host decides after an attempt that did not end well. */
typedef struct TaskFate {
        TaskEvent event;   /* FAIL, TIME_OUT, GIVE_UP, CANCEL, RETRY or RETURN */
        uint64_t due_usec; /* RETRY: monotonic time of the next attempt */
} TaskFate;

/* Called from inside engine calls, on their thread. They may call the engine, except engine_deinit() and queue_free()
 * of the queue concerned. started, not_started, ended_well, space, refill, mayday, relieved, creation, pool_idle and rearm may
 * be NULL; clear may be if no queue asks for it. */
typedef struct EngineHooks {
        /* Of a queue with queue_set_clears(): t was claimed, and has a slot. 0: it can start at once; 1: not before
         * engine_task_cleared(), or it is given back by engine_task_uncleared(); negative errno: it cannot, and is back at its
         * place uncounted, and so it stays if the hook has blocked or paused its queue. */
        int (*clear)(void *host, Task *t);
        /* t was claimed, its executor did not start it, and it is back at its place, uncounted. */
        void (*not_started)(void *host, Task *t);
        /* t was claimed and the executor has it. Told before its `ended`, also if the executor was done at once. */
        void (*started)(void *host, Task *t);
        /* An attempt ended. The host looks at *result (details live until it returns) and decides; not asked for
         * TASK_OK (FINISH) and TASK_NOT_STARTED (RETURN, attempt not counted), unless a stop of the latter was asked
         * for. */
        TaskFate (*ended)(void *host, Task *t, const TaskResult *result);
        /* Told for every attempt that ended well, before `finished`, so that details can be kept. */
        void (*ended_well)(void *host, Task *t, const TaskResult *result);
        /* t is in a finished state and out of the queue: the host owns it again. */
        void (*finished)(void *host, Task *t);
        /* Room fell free in q, for those who wait for space. */
        void (*space)(void *host, Queue *q);
        /* Tasks of the shelf of q are to come, by queue_unshelve(), while queue_wants_shelved(). Called again at the next claim, if
         * not all did. NULL: nothing is ever shelved. May change q otherwise, too. */
        void (*refill)(void *host, Queue *q);
        /* q calls its rescuer; the rescuer leaves it, after so long and so many tasks. These two must not call the engine. */
        void (*mayday)(void *host, Queue *q);
        void (*relieved)(void *host, Queue *q, uint64_t lasted_usec, uint64_t n_rescued);
        /* p->create_error is no longer 0; or it is again, after so long. Must not call the engine. */
        void (*creation)(void *host, Pool *p, uint64_t lasted_usec);
        /* The last task that ran in p has ended. */
        void (*pool_idle)(void *host, Pool *p);
        /* engine_next_usec() became earlier. */
        void (*rearm)(void *host, uint64_t next_usec);
} EngineHooks;

enum {
        ENGINE_SLOT_BITS = 20,
        ENGINE_QUEUES_MAX = (1 << ENGINE_SLOT_BITS) - 1,
};

/* A place in the table of queues. Its generation counts the queues that had it: an id is both. */
typedef struct EngineSlot {
        Queue *queue; /* NULL: free */
        uint64_t generation;
        size_t next_free; /* index + 1; 0: the last */
        bool listed;      /* in the list of free ones; a queue that was restored may stand in it all the same */
} EngineSlot;

/* Numbers of slots, each given to one slot at a time. `free` has room for all that were ever made. */
typedef struct SlotNumbers {
        size_t n, cap; /* n were made */
        size_t *free, n_free;
} SlotNumbers;

struct Engine {
        const Clock *clock;
        const EngineHooks *hooks;
        void *host;
        List pools;     /* of Pool::link */
        Heap due;       /* of Task::due_item; room for n_tasks is reserved */
        Heap throttled; /* of Queue::rate_item; room for n_queues is reserved */
        SlotNumbers slot_numbers[_POOL_KIND_MAX];
        List rescuers; /* of Rescuer::link */
        RescueParams rescue;
        size_t n_rescues;         /* queues that are being rescued, and rescuers that leave */
        size_t n_tasks;           /* in all queues, with reservations */
        uint64_t next_armed_usec; /* what the host knows; 0: it is about to be told */
        unsigned n_holds;         /* nothing is started while positive */
        Watch watch;              /* how things stand, for another thread */
        struct Barrier *barriers; /* barrier.c's: tasks over several queues */

        EngineSlot *slots;
        size_t n_slots, first_free; /* first_free: index + 1 */
        size_t n_queues;
};

/* Borrows all four. 0 or negative errno. */
int engine_init(Engine *e, const Clock *clock, const EngineHooks *hooks, void *host);
void engine_deinit(Engine *e); /* frees queues and pools; no task may be left. NULL-safe, half-built too */

uint64_t engine_now(const Engine *e);     /* monotonic microseconds */
size_t engine_n_running(const Engine *e); /* tasks, in all pools. O(pools) */

/* A stale id gives NULL, never another queue. O(1), no lock. */
Queue *engine_queue(const Engine *e, uint64_t id);

/* Executors answer here, once per start. result is read, not kept. May start other tasks before it returns. */
void engine_task_ended(Engine *e, Task *t, const TaskResult *result);

/* Stops a running task through its executor. signal, grace_usec as in ExecutorOps::cancel. 0 (t may have ended already, and
 * be gone), or -1: it does not run. */
int engine_task_stop(Engine *e, Task *t, int signal, uint64_t grace_usec);

/* What EngineHooks::clear has made wait for it: starts, or goes back to its place, uncounted. */
void engine_task_cleared(Engine *e, Task *t);
void engine_task_uncleared(Engine *e, Task *t);

/* Monotonic time of the next due task, token of a queue's rate, or end of a pool's block, UINT64_MAX: none. */
uint64_t engine_next_usec(const Engine *e);
/* Delays that are over, back-offs, expiries, rates, pools that were blocked. What is due takes its place before anything starts.
 * Returns the next time, as engine_next_usec(). */
uint64_t engine_run_due(Engine *e);

/* Between the two nothing is started, in any pool: what is made in between takes its places first. Counts. */
void engine_hold(Engine *e);
void engine_unhold(Engine *e);

/* Restores what a restart must not lose: the slot of that id gives only later ones. For the store, before queues are made.
 * 0, -EINVAL: no such id can exist, -EBUSY: the slot is in use by an older one, -ENOMEM. */
int engine_seed_generation(Engine *e, uint64_t last_queue_id);

/* For queue.c and pool.c. */
int engine_add_queue(Engine *e, Queue *q); /* gives q->id. 0, -ENOMEM, -ENOSPC */
/* The same with the id that it has already. As engine_seed_generation(), and -EBUSY also where the id was given before. */
int engine_restore_queue(Engine *e, Queue *q);
void engine_remove_queue(Engine *e, Queue *q);
/* A number that no slot of a pool of that kind has: one that was given back, else the next. 0 or -ENOMEM. */
int engine_take_slot_number(Engine *e, PoolKind kind, size_t *ret);
void engine_put_slot_number(Engine *e, PoolKind kind, size_t number);
int engine_reserve_tasks(Engine *e, uint64_t n); /* so that engine_arm_task() cannot fail. 0 or -ENOMEM */
void engine_release_tasks(Engine *e, uint64_t n);
void engine_arm_task(Engine *e, Task *t); /* by what the task says; also disarms */
void engine_disarm_task(Engine *e, Task *t);
void engine_arm(Engine *e, uint64_t usec); /* engine_next_usec() may have become this */
