/* SPDX-License-Identifier: MIT */
#pragma once

/* One unit of work in a queue, as the engine sees it: a place, a state, a reason. What the task does the engine never
 * learns: the manager embeds the Task in what it keeps of it.
 *
 *                   submit, not eligible          submit
 *                           |                       |
 *                           v       eligible        v        start            finish
 *     (hold,delay,after) WAITING ---------------> QUEUED --------------> RUNNING ------> DONE
 *                           ^ \                   / | ^                  / | | \
 *                           |  \ cancel   cancel /  | |     return      /  | |  \ fail, time out, give up
 *                           |   `---> CANCELED <'   | `----------------'   | |   `--> FAILED TIMEOUT DEAD
 *                           |           ^           |    (lost lease)      | |
 *                           |           |           `-----> EXPIRED        | |
 *                           |           `----------------------------------' |
 *                           `------------------------------------------------'
 *                                         retry after back-off
 *
 * Which event moves which state where is one table in task.c; any other pair is an assert. */

#include <stdbool.h>
#include <stdint.h>

#include "base/heap.h"
#include "base/list.h"
#include "proto/eq-types.h"

typedef struct Queue Queue;
typedef struct Slot Slot;

typedef enum TaskLane { TASK_LANE_URGENT, TASK_LANE_NORMAL, _TASK_LANE_MAX } TaskLane;

typedef enum TaskEvent {
        TASK_EV_ELIGIBLE, /* WAITING -> QUEUED */
        TASK_EV_DEFER,    /* QUEUED -> WAITING: held, or made to wait otherwise */
        TASK_EV_START,    /* QUEUED -> RUNNING */
        TASK_EV_RETURN,   /* RUNNING -> QUEUED: claimed, not run; or its lease was lost */
        TASK_EV_RETRY,    /* RUNNING -> WAITING: back-off */
        TASK_EV_FINISH,   /* RUNNING -> DONE */
        TASK_EV_FAIL,     /* RUNNING -> FAILED */
        TASK_EV_TIME_OUT, /* RUNNING -> TIMEOUT */
        TASK_EV_GIVE_UP,  /* RUNNING -> DEAD */
        TASK_EV_CANCEL,   /* WAITING, QUEUED, RUNNING -> CANCELED */
        TASK_EV_EXPIRE,   /* WAITING, QUEUED -> EXPIRED */
        TASK_EV_LOSE,     /* QUEUED -> FAILED: what it is to do cannot be read */
        TASK_EV_AGAIN,    /* finished -> WAITING: retry by hand */
        _TASK_EV_MAX,
} TaskEvent;

/* Why a task is WAITING: several may hold at once; it becomes eligible when none is left. Of several, the first of this
 * list is the reason that is shown. */
enum {
        TASK_WAIT_HELD = 1 << 0,    /* reason held */
        TASK_WAIT_AFTER = 1 << 1,   /* reason after */
        TASK_WAIT_AT = 1 << 2,      /* reason at: until due_usec */
        TASK_WAIT_BACKOFF = 1 << 3, /* reason backoff: until due_usec; blocks its lane on a serial queue */
};

/* Whether it stands alone in its queue: see barrier.h. */
typedef enum TaskPart {
        TASK_ALONE,
        TASK_BARRIER, /* a task over several queues, in its home */
        TASK_TOKEN,   /* its place in another one: no task of the host */
} TaskPart;

/* Which container of its queue has the task. */
typedef enum TaskWhere {
        TASK_NOWHERE,     /* not pushed yet, or out again */
        TASK_IN_READY,    /* QUEUED */
        TASK_IN_BACKOFF,  /* WAITING for the end of its back-off and nothing else */
        TASK_IN_DEFERRED, /* WAITING otherwise */
        TASK_IN_HANDED,   /* QUEUED, and the executor has it: it begins at any time */
        TASK_IN_RUNNING,
} TaskWhere;

/* Allocated and freed by the manager; between queue_push() and the `finished` callback the engine owns every field.
 * Type-stable memory: the inbox of the execution queue relies on that. */
typedef struct Task {
        List link;           /* TaskLine::list, Queue::handed or Queue::running; one at a time */
        HeapItem order_item; /* TaskLine::early, instead of `link` */
        HeapItem due_item;   /* Engine::due: next of due_usec and expire_usec */
        Queue *queue;        /* the queue holds its tasks, not the other way round */
        Slot *slot;          /* borrowed from its pool while handed over or RUNNING, else NULL */
        uint64_t seq;
        uint64_t accepted;    /* counts pushes of the queue: what a flush tells earlier from later ones by */
        uint64_t due_usec;    /* monotonic; with TASK_WAIT_AT or TASK_WAIT_BACKOFF */
        uint64_t expire_usec; /* monotonic; 0: never. Holds until the first start */
        uint32_t bytes;       /* charged to the queue's capacity */
        uint16_t attempt;     /* attempts started; stops counting at 65535 */
        uint8_t state;        /* eq_state; task_set_state() only */
        uint8_t lane;         /* TaskLane */
        uint8_t wait;         /* TASK_WAIT_* */
        uint8_t where;        /* TaskWhere */
        uint8_t part;         /* TaskPart */
        bool canceling;       /* RUNNING, and the executor was asked to stop it */
        bool ending;          /* RUNNING, and the executor is done with it: the host is being asked what comes next */
} Task;

/* Every pending task costs this much; think twice before it grows. */
_Static_assert(sizeof(Task) <= 112, "a task has grown");

/* t is WAITING and in no queue. due_usec, expire_usec and wait are 0: the caller sets them before queue_push(). */
void task_init(Task *t, uint64_t seq, TaskLane lane, uint32_t bytes);

/* The same, of a task that had ended before a restart: in that state, so many attempts started. */
void task_init_finished(Task *t, uint64_t seq, TaskLane lane, uint32_t bytes, eq_state state, uint16_t attempt);

/* Moves the state by the table; asserts that the table has the move. Returns the new state. Loop. */
eq_state task_set_state(Task *t, TaskEvent ev);
bool task_is_pending(const Task *t); /* WAITING or QUEUED, and in a queue */
const char *task_event_name(TaskEvent ev);
