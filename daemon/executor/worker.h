/* SPDX-License-Identifier: MIT */
#pragma once

/* The executor whose workers are clients: programs that asked for tasks of some queues and say how many they take (their
 * credit). A task is sent to one of them and leased to it; its answer ends the attempt, or the end of its connection does.
 * Nothing is ever handed on because a worker is slow. Loop; nothing blocks. */

#include <uv.h>

#include "base/heap.h"
#include "engine/engine.h"
#include "executor/taskspec.h"
#include "proto/codec.h"

typedef struct Lease Lease;
typedef struct RemoteWorker RemoteWorker;
typedef struct WorkerExecutor WorkerExecutor;

enum { WORKER_NAME_MAX = 64, WORKER_TEXT_MAX = 256 };

/* TaskResult::details of this executor. */
typedef struct WorkerResult {
        uint64_t worker;                 /* number */
        EqBytes result;                  /* what wait and show return; lives as long as the details */
        int exit;                        /* -1: none */
        char error[WORKER_TEXT_MAX + 1]; /* for people; empty: none */
} WorkerResult;

/* What a worker is told of a task. Slices are borrowed during the call. */
typedef struct WorkerOrder {
        eq_task_id id;
        const char *queue;
        uint16_t attempt; /* the fencing token */
        EqBytes payload, label, mime;
        uid_t uid;                         /* who submitted it */
        uint64_t timeout_usec, grace_usec; /* timeout 0 or USEC_NEVER: none */
} WorkerOrder;

typedef enum WorkerSent {
        WORKER_SENT,
        WORKER_SENT_FULL, /* sent, but no more until remote_worker_unclogged(): it does not read fast enough */
        WORKER_GONE,      /* its connection is ending; the call that says so will come */
} WorkerSent;

/* How the client behind a worker is reached. None may call back into this module. */
typedef struct WorkerClientOps {
        int (*run)(void *client, uint32_t msgid, const WorkerOrder *order); /* WorkerSent, or -ENOMEM: not sent */
        void (*cancel)(void *client, eq_task_id id, uint16_t attempt, const char *reason, uint64_t grace_usec);
        void (*refused)(void *client, uint32_t msgid, eq_error code, const char *text,
                        const EqErrorDetails *details); /* an answer */
} WorkerClientOps;

typedef struct WorkerHooks {
        /* What to send to w; called at each start. 0, or negative errno: not started. */
        int (*prepare)(void *host, Task *t, const RemoteWorker *w, WorkerOrder *ret);
        void (*unprepare)(void *host, Task *t); /* it was not started after all */
} WorkerHooks;

/* Number of a request -> lease. */
typedef struct LeasePlace {
        Lease *lease; /* made for the first use, kept for the next */
        uint32_t next_free;
        uint16_t generation;
        bool used;
} LeasePlace;

/* Read by others, written here only. */
struct RemoteWorker {
        WorkerExecutor *executor;
        List link; /* WorkerExecutor::workers, by number */
        uint64_t number;
        Identity *identity; /* counted */
        pid_t pid;
        bool admin;
        char name[WORKER_NAME_MAX + 1];
        const WorkerClientOps *ops;
        void *client;

        List servings; /* of Serving::of_worker; owned */
        size_t n_servings;
        uint32_t credit, parallel;
        int level;            /* which of its queues' ready lists it stands in; -1: none */
        List active, waiting; /* of Lease::link, oldest first: the `parallel` oldest, and the others */
        size_t n_active, n_waiting;
        LeasePlace *places;
        uint32_t n_places, first_free;
        bool clogged, leaving, gone;
        bool reserved; /* gets what rescuers start, and nothing else; set before it serves anything */

        uint64_t connected_usec, seen_usec; /* monotonic */
        uint64_t n_done, n_failed, n_late, n_refused;
};

typedef struct WorkerSetup {
        uint64_t number; /* not in use; larger than that of every worker there is */
        Identity *identity;
        pid_t pid;
        bool admin;
        const WorkerClientOps *ops;
        void *client;
} WorkerSetup;

struct WorkerExecutor {
        Executor executor; /* first: what the engine knows */
        Engine *engine;
        const WorkerHooks *hooks;
        void *host;
        List workers; /* of RemoteWorker::link */
        size_t n_workers, n_leases;
        Heap due;            /* of Lease::due_item; room for n_leases */
        uint64_t armed_usec; /* what the timer is set for; USEC_NEVER: it is not */
        uv_timer_t *timer;   /* owned by the loop once closed */
};

int worker_executor_new(uv_loop_t *loop, Engine *engine, const WorkerHooks *hooks, void *host, WorkerExecutor **ret);
/* No worker may be left. Closes its handle; run the loop once more after it. Returns NULL; NULL is fine. */
WorkerExecutor *worker_executor_free(WorkerExecutor *x);

/* A queue of the pool of this executor; before it has tasks, and before it is freed. 0 or -ENOMEM. */
int worker_executor_add_queue(WorkerExecutor *x, Queue *q);
void worker_executor_remove_queue(WorkerExecutor *x, Queue *q); /* also one that was not added */
size_t worker_executor_n_serving(const Queue *q);               /* regular workers that serve q */
size_t worker_executor_n_reserved(const Queue *q);              /* reserved ones */

/* Lease times that are over. The timer calls it; so do tests that move the clock. */
void worker_executor_run_due(WorkerExecutor *x);

/* A worker without credit that serves nothing. 0 or -ENOMEM. */
int remote_worker_new(WorkerExecutor *x, const WorkerSetup *setup, RemoteWorker **ret);
/* Its connection is over: tasks that it has go back to their places; those that it was on count a crash unless it was
 * `kicked`. Returns NULL; NULL is fine. */
RemoteWorker *remote_worker_free(RemoteWorker *w, bool kicked);

/* Adds queues to what it serves, all or none; those that it serves already are fine. May send tasks. 0 or -ENOMEM. */
int remote_worker_serve(RemoteWorker *w, Queue *const *queues, size_t n);
void remote_worker_unserve(RemoteWorker *w, Queue *q); /* what it has of it stays with it */
void remote_worker_set_credit(RemoteWorker *w, uint32_t credit, uint32_t parallel);
void remote_worker_leave(RemoteWorker *w);     /* serves nothing more; what it has stays with it */
void remote_worker_unclogged(RemoteWorker *w); /* it has read; also when it was not clogged */

/* An attempt that was answered. */
typedef struct LeaseName {
        eq_task_id id;
        uint16_t attempt;
} LeaseName;

/* The response to the request `msgid`: error and result as encoded values. Whatever they are, the worker stays. True: it counts, the
 * engine was told, and *ret is what it ended; else it was refused. */
bool remote_worker_answer(RemoteWorker *w, uint32_t msgid, EqBytes error, EqBytes result, LeaseName *ret);
/* Does w have t under that attempt? Then that is a sign of life. */
bool remote_worker_touch(RemoteWorker *w, const Task *t, uint64_t attempt);

/* The worker that has t, NULL: none. t is in a queue of this executor. */
const RemoteWorker *remote_worker_of(const Task *t);
static inline size_t remote_worker_in_flight(const RemoteWorker *w) {
        return w->n_active + w->n_waiting;
}
/* What it has had longest and since when; false if it has nothing. */
bool remote_worker_oldest(const RemoteWorker *w, eq_task_id *ret_id, uint64_t *ret_since_usec);
const char *remote_worker_state(const RemoteWorker *w); /* idle working full blocked leaving */
/* Queues that it serves, in the order in which it began to; `each` is called for every one. */
void remote_worker_each_queue(const RemoteWorker *w, void (*each)(void *userdata, const Queue *q), void *userdata);
