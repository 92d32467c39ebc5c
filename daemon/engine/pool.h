/* SPDX-License-Identifier: MIT */
#pragma once

/* A named set of slots with one scheduler. The schedulable entity is the queue: a queue that has a startable task is
 * runnable and stands in its scheduling class until the pool has started as much of it as it may.
 *
 * All calls: loop. Nothing blocks. */

#include <stddef.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/util.h"
#include "engine/executor.h"

typedef struct Engine Engine;
typedef struct Pool Pool;
typedef struct Queue Queue;
typedef struct Rescuer Rescuer;
typedef struct WatchPool WatchPool;
typedef struct WatchSlot WatchSlot;

typedef enum PoolKind { POOL_COMMAND, POOL_THREAD, POOL_REMOTE, _POOL_KIND_MAX } PoolKind;

/* Order between the runnable queues of a pool; one implementation per file. fifo: one round robin run queue. That of the threads on
 * which a thread pool's tasks run has a class of its own: LineClass. */
typedef struct SchedClass {
        const char *name;
        void (*enqueue)(Pool *p, Queue *q); /* q became runnable, or was taken and still is */
        void (*dequeue)(Pool *p, Queue *q); /* q is not runnable any more */
        Queue *(*pick)(Pool *p);            /* the queue to start a task of next; NULL: none. Dequeues it */
} SchedClass;

extern const SchedClass sched_fifo;

struct Slot {
        Pool *pool;
        Task *task;          /* NULL: free */
        size_t index;        /* no other slot of the pools of this kind has it; names the slot's cgroup */
        size_t place;        /* in Pool::slots */
        List link;           /* Pool::idle */
        void *executor_data; /* the executor's own; survives from task to task, not the slot */
        uint64_t started_usec;
        bool announced;   /* the host was told that `task` started */
        bool uncleared;   /* `task` starts when the host says so: engine_task_cleared() */
        Rescuer *reserve; /* its slot, which counts for no pool; NULL: one of the pool's */
        WatchSlot *watch; /* the watch's */
};

struct Pool {
        Engine *engine;
        List link; /* Engine::pools */
        char name[EQ_NAME_MAX + 1];
        PoolKind kind;
        Executor *executor; /* borrowed; outlives the pool */
        const SchedClass *sched;
        List runnable; /* of Queue::run_link; owned by `sched` */
        size_t n_runnable;

        void *owner;         /* the manager's */
        void *executor_data; /* the executor's own */

        Slot **slots; /* n_slots of them, allocated one by one: their addresses are stable */
        size_t n_slots, n_slots_cap, n_slots_max, n_busy;
        size_t n_handed; /* of n_busy: with tasks that have not begun, as far as is known */
        List idle;       /* of Slot::link, the last used first */
        size_t n_queues;
        bool running; /* pool_run() is active: calls from inside it leave the work to it */

        /* Rescue; engine/rescuer.h. */
        List callers;             /* of Queue::rescue_link: with a rescuer, and a task to start */
        uint64_t last_start_usec; /* in a slot of its own */
        uint64_t mayday_usec;     /* the next one; 0: there is no need */
        bool need_is_full;        /* the need is pool-full, else create-failure */
        bool is_quiet;            /* its executor said that there is none, and calls pool_all_busy() before there is */
        uint64_t n_begun;         /* as its executor said last */
        uint64_t begun_usec;      /* when that was seen to change */
        size_t n_rescuing;        /* tasks in reserve slots, and reserves that help */
        uint64_t n_mayday, n_rescued;
        /* Since the pool was made. create_failures: starts refused by the executor, or for want of a slot. */
        uint64_t n_started, n_create_failures;
        int create_error;            /* what a worker was last refused with, negative errno; 0: the last one was made */
        uint64_t create_failed_usec; /* since when */

        uint64_t blocked_until_usec; /* nothing is started before; 0: not blocked */
        eq_reason blocked_reason;
        eq_reason short_of; /* why what was handed over does not begin, if not for pool-full; its executor's */
        WatchPool *watch;   /* the watch's */
};

/* How long a pool starts nothing after its executor refused a task and did not block it, or no slot could be made, unless
 * RescueParams::create_cooldown_usec was set. */
#define POOL_COOLDOWN_USEC USEC_PER_SEC

/* n_slots_max slots at most; they are made when first needed. 0 or -ENOMEM. */
int pool_new(Engine *e, const char *name, PoolKind kind, Executor *executor, size_t n_slots_max, Pool **ret);
Pool *pool_free(Pool *p); /* no queue may be left in it. NULL is fine */
DEFINE_CLEANUP(Pool, pool_free)
/* Fewer than busy: nothing is stopped, it takes effect as tasks end. Slots above it are given back once they are free. */
void pool_set_max(Pool *p, size_t n_slots_max);

/* Starts tasks while there are free slots and runnable queues. Called by the engine after everything that may have
 * changed either; the host calls it after pool_unblock(). */
void pool_run(Pool *p);
/* Until then nothing is started, and `reason` is why. UINT64_MAX: until unblocked. The last call counts. */
void pool_block(Pool *p, eq_reason reason, uint64_t until_usec);
void pool_unblock(Pool *p);
bool pool_is_blocked(const Pool *p);

/* Of executors with need(): all that work in it are busy. */
void pool_all_busy(Pool *p);
/* Its executor asked for what a task runs in, a process or a thread: 0, or negative errno of the refusal. The host is told when
 * that begins to fail, and when it works again. */
void pool_set_create_error(Pool *p, int error);
/* Of executors that are handed tasks ahead; EQ_REASON_NONE: they just wait for one that is busy. */
void pool_set_short_of(Pool *p, eq_reason reason);

/* Why the pool starts nothing more, EQ_REASON_NONE if it can. */
eq_reason pool_reason(const Pool *p);

/* For queue.c, engine.c and rescuer.c. */
int pool_begin(Slot *slot,
               Task *t); /* starts what was put into the slot, or has it cleared first. 0 or negative errno */
void pool_settle_start(Slot *slot, Queue *q, Task *t, int r); /* r: of that, or of a start that was cleared */
void pool_tell_not_started(Engine *e, Task *t);               /* the host: it is back at its place */
void pool_queue_changed(Pool *p, Queue *q); /* its runnability may have: enters or leaves the scheduling class */
void pool_announce(Pool *p, Slot *slot);    /* tells the host that the slot's task started, unless it was told */
void pool_release(Pool *p, Slot *slot);     /* its task ended */
void pool_set_mayday(Pool *p, uint64_t usec);
void pool_reserve_is_busy(Pool *p); /* one more is at work for the pool */
void pool_reserve_is_free(Pool *p); /* one that was */
/* After its executor refused a task, or no slot could be made: for RescueParams::create_cooldown_usec, unless it is blocked
 * already. error: what the system said, negative errno; 0: it was not that. */
void pool_cool_down(Pool *p, eq_reason reason, int error);
