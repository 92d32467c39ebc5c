/* SPDX-License-Identifier: MIT */
#pragma once

/* What the manager keeps of a queue and of a task. Plain data with owners named at the links; loop only. */

#include "base/hash.h"
#include "base/list.h"
#include "base/seqindex.h"
#include "engine/engine.h"
#include "executor/command.h"
#include "executor/plugin.h"
#include "executor/taskspec.h"
#include "executor/worker.h"
#include "manager/attributes.h"
#include "manager/timers.h"
#include "manager/user.h"
#include "store/store.h"

typedef struct Manager Manager;
typedef struct TaskRecord TaskRecord;
typedef struct ShelfChunk ShelfChunk;
typedef struct WindowFetch WindowFetch;
typedef struct LateEvent LateEvent;
typedef struct Array Array;

/* Of a task that was unpacked: the next one with the same shares them. Owned; NULL: none. */
typedef struct SharedParts {
        Identity *identity;
        SharedOptions *common;
} SharedParts;

typedef enum QueueOrigin { QUEUE_FROM_FILE, QUEUE_FROM_CLIENT } QueueOrigin;

typedef struct QueueRecord {
        UT_hash_handle hh; /* Manager::queues, by name */
        Manager *manager;
        Queue *queue; /* owned */
        QueueAttributes attributes;
        QueueOrigin origin;
        bool overridden;   /* from a file, changed since by a client */
        bool removing;     /* takes no more, and goes when it is empty */
        bool ending;       /* ... and what it has is canceled, not run */
        bool pool_missing; /* it is in `default` because there is no pool of the name that it wants */
        bool was_stopped; /* by a client, which is kept; its queue is when its tasks are there. A removal stops it only */
        bool gone;        /* removed: out of every list, kept for the pins only */
        uint64_t digest; /* of its file's lines */
        uid_t creator;
        Identity *fixed;        /* commands run as this one, not as their submitter; owned, usually NULL */
        PluginLibrary *library; /* counted; NULL: its file names none */
        SeqIndex tasks;         /* of TaskRecord, owned, or items of the shelf; see shelf.h and window.h */
        ShelfChunk *shelf;      /* the one that is being filled; NULL: none. It goes with its last item */
        WindowFetch *refilling; /* on its way; the store's. NULL: none */
        WindowFetch *wanted;    /* Window::collecting. NULL: none */
        uint64_t n_restored, n_restored_bytes; /* while eqd starts: in the window, and the engine does not know yet */
        struct KeyEntry *keys;                 /* uthash by user and key; owned; see keys.h */
        List finished_keys;                    /* of KeyEntry::finished_link, oldest end first */
        size_t n_finished_keys;
        Array *arrays; /* uthash by user and number; each owned by its tasks; see arrays.h */
        List history;  /* of TaskRecord::history_link, oldest end first */
        size_t n_history;
        size_t n_pins;                         /* of its tasks together */
        size_t n_unsettled;                    /* tasks that have ended and are not on disk as such */
        uint64_t stored_at;                    /* position of its own newest record; 0: none */
        LateEvent *spare_event;                /* owned; of its removal, and of what finds no memory: events.c */
        List space_waiters;                    /* of SpaceWaiter::link */
        List removers;                         /* of RemoveWaiter::link */
        struct Tombstone *tombstone;           /* what its name keeps of it; the manager's */
        Timer remove_timer;                    /* frees the record outside engine calls */
        Timer age_timer;                       /* drops finished tasks that are too old */
        Timer key_timer;                       /* ... keys of such */
        uint64_t n_stalls, stalled_since_usec; /* monotonic; 0: it is not stalled */
        uint64_t cpu_usec;                     /* of attempts that ended */
        List rescued_link;                     /* Manager::rescued, while its rescuer is at work */
        eq_reason rescue_reason;               /* why it was called */
        uint64_t refused_usec, refused_ended;  /* a refusal as full: monotonic, and how many had ended; 0: none yet */
} QueueRecord;

typedef struct PoolRecord {
        UT_hash_handle hh; /* Manager::pools, by name */
        Manager *manager;
        Pool *pool; /* owned */
        PoolAttributes attributes;
        bool from_file;     /* else made by a client, or built in */
        bool overridden;    /* from a file, changed since by a client */
        bool removing;      /* goes when nothing runs in it; not found by its name any more */
        uint64_t digest;    /* of its file's lines */
        Timer remove_timer; /* frees the record outside engine calls */
} PoolRecord;

/* The attempt that runs, or the last one: exists from the first start on. */
typedef struct TaskRun {
        OutputLog log;         /* of all attempts */
        uint64_t started_usec; /* wall clock */
        bool announced;        /* task.started was sent */
        pid_t pid;             /* 0: not known, or not running */
        int exit;              /* -1: none */
        int signal;
        uint64_t utime_usec, stime_usec, maxrss_kib;
        char *error;     /* owned; NULL: none */
        uint64_t worker; /* 0: none */
        char *result;    /* of a worker; owned */
        char *note;      /* what the worker says about it; owned; NULL: nothing */
        uint32_t n_result;
        int progress; /* percent, as the worker says; -1: it does not */
        int mark;     /* in the store, while it runs; STORE_MARK_NONE */
        bool cleared; /* of at_most_once: the store has, or is being told, that it starts */
} TaskRun;

/* One edge of `after`. */
typedef enum DepKind { DEP_OK, DEP_ANY, DEP_FAIL } DepKind;
typedef struct Dep {
        List of_owner;  /* TaskLinks::deps */
        List of_target; /* TaskLinks::dependents */
        TaskRecord *owner, *target;
        DepKind kind;
} Dep;

/* Who or what ended a task that was not left to end by itself; texts in view.c. */
typedef enum TaskEndNote {
        TASK_NOTE_NONE,
        TASK_NOTE_CANCELED, /* by a client */
        TASK_NOTE_DROPPED,  /* on_full=drop-oldest */
        TASK_NOTE_DEPS,     /* after ...: never */
        TASK_NOTE_REMOVED,  /* its queue was removed */
        TASK_NOTE_SHUTDOWN, /* eqd was stopped */
        TASK_NOTE_STDIN,    /* its descriptor for standard input did not outlive eqd */
        TASK_NOTE_REPLACED, /* by a newer one with its key */
        TASK_NOTE_DAMAGED,  /* what it was to do cannot be read from the store */
        _TASK_NOTE_MAX,
} TaskEndNote;

/* What few tasks have: made when it is first needed, freed with the task. */
typedef struct TaskLinks {
        List deps, dependents; /* of Dep; owned by the owner side */
        List waiters;          /* of TaskWaiter::link; those that wait for a start before those that wait for an end */
        List followers;        /* of Follower::link */
        List doomed_link;      /* Manager::doomed */
        TaskRecord *task;
        Array *array;        /* NULL: it is in none */
        HeapItem array_item; /* Array::tasks */
        bool has_turn;       /* in that array */
} TaskLinks;

/* In one piece of memory with its payload and options: a million of them may be pending. */
struct TaskRecord {
        Task task;
        QueueRecord *queue;     /* borrowed: the queue owns its tasks */
        User *user;             /* charged while not finished */
        TaskRun *run;           /* owned; NULL before the first start */
        TaskLinks *links;       /* owned; NULL: never needed */
        List history_link;      /* QueueRecord::history, once finished */
        List recent_link;       /* Manager::recent, once finished; by time of its end. Before that the store's */
        uint64_t finished_usec; /* wall clock; once finished */
        uint64_t stored_at;     /* of a durable queue: position of its newest record that somebody waits for */
        uint16_t retries, crashes;
        uint16_t lost;      /* attempts that ended with their worker's connection, or were given back: no failures */
        uint8_t end_reason; /* eq_reason: why it ended without doing its work */
        uint8_t end_note;   /* TaskEndNote: the same for people */
        unsigned n_pins;    /* who still wants to show it; task_record_pin() */
        bool has_fd;        /* its standard input is a descriptor: one attempt only */
        bool shown;         /* view.c: marked as one of the latest finished */
        bool unsettled;     /* it has ended, and that is not on disk yet: to everybody it is as it was */
        bool lost_in_history : 1; /* dropped from history while pinned; freed with the last pin */
        bool keyed : 1;           /* its key is known, and is its own: keys.c */
        bool plain : 1;           /* StoredTask::plain */
        bool hollow : 1;          /* what it was to do was not read: it has ended, and does not start again */
        TaskSpec spec;            /* last, since its bytes follow */
};

static inline TaskRecord *task_record(const Task *t) {
        return LIST_ENTRY(t, TaskRecord, task);
}
static inline QueueRecord *queue_record(const Queue *q) {
        return q->owner;
}
static inline eq_task_id task_record_id(const TaskRecord *t) {
        return (eq_task_id) { .queue = t->queue->queue->id, .seq = t->task.seq };
}
static inline bool task_record_finished(const TaskRecord *t) {
        return !t->unsettled && eq_state_finished(t->task.state);
}
static inline eq_state task_record_state(const TaskRecord *t) {
        return !t->unsettled ? (eq_state)t->task.state : t->run ? EQ_STATE_RUNNING : EQ_STATE_WAITING;
}
