/* SPDX-License-Identifier: MIT */
#pragma once

/* The reserve worker of queues that asked for one: a slot of its own, which no pool counts.
 *
 *   need      the pool is blocked with create-failure, or all its slots are busy and none was started for full_delay; with
 *             workers of its own: none is idle, and none can be made, or there may be no more and none has begun anything since. Of a
 *             queue of worker clients: it has no regular worker, or all have as much as they take, and it has started nothing for
 *             full_delay
 *   mayday    the need lasts for mayday_initial, and then every mayday_interval: queues that could start a task call
 *   rescue    one task of the queue that called, then a new look: does the need persist, is there another task?
 *   relief    there is no need any more, or nothing to start
 *
 * What the rescuer has not claimed stays where it is. A queue that has had `batch` tasks gives way to others that call, where the
 * rescuer is shared. A task that needs more than the reserve has is skipped: Queue::rescue_mark.
 *
 * All calls: loop. Nothing blocks, unless the executor's reserve() does. */

#include "engine/pool.h"
#include "engine/queue.h"

typedef enum RescuerMode { RESCUER_NO, RESCUER_YES, RESCUER_SHARED } RescuerMode; /* words of `rescuer` */
typedef enum RescueOn { RESCUE_ON_AUTO, RESCUE_ON_CREATE_FAILURE, RESCUE_ON_POOL_FULL, RESCUE_ON_BOTH } RescueOn;

/* Settable at any time; of the engine. */
typedef struct RescueParams {
        uint64_t mayday_initial_usec, mayday_interval_usec;
        uint64_t full_delay_usec;
        uint64_t create_cooldown_usec; /* a pool that could not make a slot or process tries again after it */
        uint64_t batch;
} RescueParams;

#define RESCUE_PARAMS_DEFAULT                                                                                          \
        (RescueParams) {                                                                                               \
                .mayday_initial_usec = 10 * USEC_PER_MSEC, .mayday_interval_usec = 100 * USEC_PER_MSEC,                \
                .full_delay_usec = USEC_PER_SEC, .create_cooldown_usec = POOL_COOLDOWN_USEC, .batch = 16               \
        }

typedef struct Rescuer {
        Engine *engine;
        Executor *executor; /* borrowed */
        PoolKind kind;
        List link;    /* Engine::rescuers */
        Slot slot;    /* its pool is that of the queue that it works for, or has worked for */
        List maydays; /* of Queue::mayday_link: those that call, in turn */
        Queue *current;
        bool helping;               /* its reserve is with the executor, for `helped` */
        bool counted;               /* what it helped is in the counters */
        Queue *helped;              /* NULL: it has lost its rescuer since */
        uint64_t n_turn;            /* tasks of `current` since its turn began */
        uint64_t again_usec;        /* the reserve did not do: not before */
        char name[EQ_NAME_MAX + 1]; /* of who has it, for people */
        uint64_t n_scan_steps;      /* queues looked at, and tasks passed over, since it was made */
        size_t n_queues;            /* that have it */
        bool searching;
        bool leaving; /* to be freed when its task has ended */
} Rescuer;

/* Makes it with its whole reserve, for queues of pools of that kind and executor. name: of the queue, or what it is for. 0, or
 * negative errno: that of the reserve. */
int rescuer_new(Engine *e, PoolKind kind, Executor *executor, const char *name, Rescuer **ret);
Rescuer *rescuer_free(Rescuer *r); /* no queue has it; waits for its task. NULL is fine; returns NULL */

/* NULL: none. The queue's own is freed with whoever made it. What it runs for q goes on. */
void queue_set_rescuer(Queue *q, Rescuer *r);
bool rescuer_is_busy(const Rescuer *r);
/* How it is, for people: is it called, or at work, for q? */
bool queue_is_rescued(const Queue *q);

/* For pool.c, queue.c and engine.c. */
void rescue_queue_changed(Queue *q);    /* it can start a task, or cannot any more, or has another pool */
void rescue_look(Pool *p);              /* after everything that the pool may do itself */
void rescue_due(Pool *p, uint64_t now); /* maydays whose time has come */
void rescue_settle_start(Slot *slot, Queue *q, Task *t, int e); /* as pool_settle_start() */
void rescue_not_started(Slot *slot, Queue *q, Task *t);         /* the executor could not use the reserve */
void rescuer_look(Rescuer *r);                                  /* counters are of this moment then */
/* For executors: the reserve is through with its task; or it has begun none: something else came first. */
void rescue_helped(Slot *slot, bool has_begun_one);
