/* SPDX-License-Identifier: MIT */
#pragma once

/* The life of a task, from admission to the end of its history, and of the queues that hold it. The only floor that knows
 * the engine, the executors and (when it is there) the store at once. Loop; nothing blocks.
 *
 * Callers above bring a Caller; what they may see and do is decided here. A refusal is a code and a text that says what to
 * do. What takes time answers through an embedded waiter. */

#include "base/spares.h"
#include "base/util.h"
#include "manager/config.h"
#include "manager/leftovers.h"
#include "manager/pressure.h"
#include "manager/record.h"
#include "manager/stalls.h"

typedef struct Caller {
        Identity *identity;
        User *user;
        bool admin;
        const Task *by; /* the task that asks, which runs; NULL: a client does */
} Caller;

typedef struct Refusal {
        eq_error code;
        char text[PARAM_ERROR_MAX];
        EqErrorDetails details; /* by refuse() none; strings are in `names`, or last for ever */
        char names[128];
        size_t n_names;           /* bytes */
        struct QueueRecord *full; /* with MANAGER_E_WAIT: which one */
        uint64_t ticket;          /* with MANAGER_E_READ: when to ask again */
} Refusal;

/* Things that happen, for subscribers; fields of *event are valid during the call. `owner` is the user it belongs to. */
typedef struct ManagerHooks {
        void (*event)(void *host, const EqEvent *event, bool has_owner, uid_t owner);
        /* The spawner said READY for the first time. Not called where Manager::ready is set from the beginning, because there
         * is none to wait for. */
        void (*ready)(void *host);
        void (*configured)(void *host); /* settings of the daemon have changed. NULL: nobody cares */
        void (*touch)(void *host);      /* thresholds of the stall watch are to count anew. NULL: nobody watches */
        /* All changes up to this value of manager_written() are on disk; then: those above it never will be. */
        void (*durable)(void *host, uint64_t position);
        void (*not_durable)(void *host);
        /* What somebody was to ask for again when this, or a later, ticket was told; see MANAGER_E_READ. NULL: nobody does. */
        void (*read)(void *host, uint64_t ticket);
        /* How far it is, while manager_start() takes from the store what is there: first its files, then their tasks. */
        void (*restoring)(void *host, unsigned percent, uint64_t n_tasks);
} ManagerHooks;

typedef struct ManagerConfig {
        uv_loop_t *loop;
        const Clock *clock;
        const char *config_dir; /* borrowed for the life of the manager */
        const char *spawner_program;
        const char *cgroup;   /* NULL: process groups */
        Config *config;       /* taken over */
        Leftovers *leftovers; /* likewise; NULL: there are none */
} ManagerConfig;

/* What is in the store only: window.c. */
typedef struct Window {
        SharedParts shared;           /* of the task that was read last */
        uint64_t n_tickets;           /* the last one that was given */
        List collecting;              /* of WindowFetch::link */
        uint64_t n_asked, n_answered; /* of the store */
        WatchPart *part;              /* the watch's; NULL: it has no room */
        bool closed;
} Window;

/* Events of durable queues whose change is not on the disk yet: events.c. */
typedef struct LateEvents {
        List events;      /* of LateEvent::link, owned; in order */
        uint64_t durable; /* position up to which all is on the disk */
} LateEvents;

/* Of starts that are to be on the disk before they are made: once.c. */
typedef struct Once {
        List clearing;    /* of TaskRecord::recent_link: to be started when the store has it; in order */
        bool no_marks;    /* it was said that there are none */
        bool has_blocked; /* queues that wait for one */
} Once;

struct Manager {
        Engine engine;
        Timers timers;
        Timer engine_timer;
        const Clock *clock;
        uv_loop_t *loop;
        char *config_dir;
        Config *config;
        Users users;
        PoolRecord *pools; /* uthash by name; owned */
        Pool *pool;        /* the one named default, which is always there */
        CommandExecutor *commands;
        Rescuer *shared_rescuers[_POOL_KIND_MAX]; /* of queues with rescuer=shared; NULL: there is none */
        Pool *remote;                             /* of tasks that worker clients have */
        WorkerExecutor *workers;
        Pool *threads; /* of tasks that plugins have, or will have next */
        PluginExecutor *plugins;
        size_t n_submits_refused;     /* of plugins */
        uint64_t submit_refused_usec; /* when that was last said */
        bool stuck;                   /* stopped, and a plugin has not returned: eqd cannot be taken apart */
        QueueRecord *queues;          /* uthash by name; owned */
        struct Tombstone
                *tombstones; /* uthash by name: every name that ever was, with the last SEQ of removed queues */
        List recent;         /* of TaskRecord::recent_link */
        List waits;          /* of TaskWait::link */
        List doomed;         /* of TaskLinks::doomed_link: to be canceled, deps-never; by a loop, not by recursion */
        bool dooming;
        const ManagerHooks *hooks;
        void *host;
        struct Durable *durable; /* NULL: there is no store */
        uint64_t written;        /* see manager_written() */
        bool want_events, stopping, ready;
        bool reserving;               /* a submit takes places in several queues; see space_keep() */
        bool space_fell;              /* ... and some fell free meanwhile, for those who wait */
        bool restoring;               /* what files say of the queues is still to come */
        uint64_t key_seed;            /* random: nobody can choose keys that fall together */
        bool keeping;                 /* stopping, and what has not ended goes to the next eqd */
        bool no_commands;             /* commands=no when eqd started: there is no spawner */
        bool others_once;             /* the first spawner could run everybody's commands */
        uint64_t started_usec;        /* wall clock */
        size_t n_pending, n_finished; /* pending: accepted and not finished, running ones included */
        size_t burst;                 /* the most that were pending since memory was given back */
        StallList stalls;
        List rescued;         /* of QueueRecord::rescued_link, the first that called first */
        Leftovers *leftovers; /* owned */
        Pressure pressure;
        ShelfChunk *spare_chunk;  /* NULL: none */
        Spares spares;            /* of task records: one of a durable queue lives for one commit if it is not due */
        QueueRecord *last_submit; /* queue of the last one; NULL: none, or it is gone */
        Window window;
        Once once;
        LateEvents late;
        Timer refill_timer; /* there was no memory to take tasks from a shelf: tries again */
        uint64_t jitter;    /* state of the back-off's random numbers */
        void (*stopped)(void *host);
        Timer stop_timer;
        uint64_t stop_deadline_usec; /* monotonic */
        size_t n_stopped, n_killed;  /* commands that have ended since the stop: by the first signal, by SIGKILL */
};

/* Tasks that have not ended, of the durable queues or of the others. */
size_t manager_n_unended(const Manager *m, bool durable);
static inline size_t manager_n_running(const Manager *m) {
        return engine_n_running(&m->engine);
}

int manager_new(const ManagerConfig *config, const ManagerHooks *hooks, void *host, Manager **ret);
/* Makes the queues, once: first those that the eqd before this one had, then what the configuration says. kept_fd, borrowed:
 * what its manager_keep() wrote; -1: nothing. store_dir: of the durable queues, blocks while it is read; NULL: all live in
 * memory. 0 or negative errno, which the log explains. */
int manager_start(Manager *m, const char *store_dir, int kept_fd);
/* Counts the changes of durable queues: an answer that was given in between waits for ManagerHooks::durable. */
const uint64_t *manager_written(const Manager *m);
/* Waits until what was written before is on disk, but no longer than that. 0 or negative errno: -ETIMEDOUT, or why not. Any thread,
 * while the manager is there; the loop must go on. */
int manager_wait_for_store(const Manager *m, uint64_t usec);
/* After manager_stop() is through, or at once, but never if it is `stuck`: then the process must end without it. Waits for
 * plugins. */
Manager *manager_free(Manager *m);

/* Whether commands of others could be run once and no more, because the process died that had the rights: until eqd is
 * started again. Loop. */
bool manager_lost_others(const Manager *m);

/* What keeps the store from taking tasks, for people: one of a few texts that stay. NULL: nothing, or there is no store. Loop. */
const char *manager_store_trouble(const Manager *m);

/* The queue whose rescuer has been at work the longest, why it was called, and with create-failure what the system says now
 * (negative errno; 0: nothing). queue NULL: none is rescued. Loop. */
typedef struct RescueState {
        const Queue *queue;
        eq_reason reason;
        int error;
} RescueState;
RescueState manager_rescue(const Manager *m);

/* Stops what runs (TERM, grace, KILL, within stop_timeout of the configuration), starts nothing more, then calls `stopped`
 * once. keep: tasks that were stopped wait again, with those that had not started, for manager_keep(); else they are
 * canceled, and what it leaves is logged. */
void manager_stop(Manager *m, bool keep, void (*stopped)(void *host));
/* After that: writes all queues and tasks to fd, for manager_start(). 0 or negative errno. */
int manager_keep(const Manager *m, int fd);

bool manager_is_admin(const Manager *m, const Identity *id);
/* Reads the files again and applies them, or changes nothing and says why. *ret_waits: a bit for each of the first of
 * manager_tunable() that takes effect at the next start only. */
int manager_reload(Manager *m, uint64_t *ret_waits, Refusal *ret_refusal);

/* ---- find; 0, or -ENOENT with a refusal ---- */
QueueRecord *manager_queue(const Manager *m, EqBytes name); /* NULL: none */
int manager_find_queue(const Manager *m, EqBytes name, QueueRecord **ret, Refusal *ret_refusal);
/* A task that the caller may see: -ENOENT unknown, -EPERM another user's. MANAGER_E_READ: it is being read from the disk; to be asked
 * for again when ManagerHooks::read tells Refusal::ticket. */
enum { MANAGER_E_READ = 2 };
int manager_find_task(const Manager *m, const Caller *caller, const EqIdRef *id, TaskRecord **ret,
                      Refusal *ret_refusal);

/* ---- submit ---- */
typedef struct SubmitArgs {
        const EqSubmit
                *submit; /* decoded, common options included; several may share one, whose payload means nothing */
        EqBytes payload;
        EqBytes options; /* its own options, encoded */
        SharedOptions *common;
        int stdin_fd;         /* taken over on success; -1 */
        bool known;           /* set: not a new task, for one with its key is there */
        uint64_t seq;         /* set on success: of the new task, or of that one */
        uint64_t replaces;    /* keys.c: SEQ of the one whose key it takes; 0: none */
        bool forgets;         /* ... of which the key is all that is left */
        struct KeyEntry *key; /* keys.c: what is to be its key */
} SubmitArgs;

/* Does it come after tasks that it names? */
static inline bool submit_names_tasks(const EqSubmit *s) {
        return s->present & (EQ_BIT(Submit, after_ok) | EQ_BIT(Submit, after_any) | EQ_BIT(Submit, after_fail));
}

/* Are those there that the options of a submit name? MANAGER_E_READ: not yet. Else 0, whatever it says to them. */
int manager_look_for_named(Manager *m, const Caller *caller, const EqSubmit *s, Refusal *ret_refusal);

enum { MANAGER_E_WAIT = 1 }; /* Refusal::full is full and blocks: see space.h */

/* Admits n tasks for one queue, all or none, in order. 0; MANAGER_E_WAIT; negative with a refusal. *ret_first: the first id.
 * *ret_last: the last one that is new, NULL: none is, or it needs no record yet,
 * which is never so if it is to be attached to. What is `known` may not be durable yet. */
int manager_submit(Manager *m, const Caller *caller, EqBytes queue, SubmitArgs *args, size_t n, TaskRecord **ret_last,
                   eq_task_id *ret_first, Refusal *ret_refusal);

/* ---- tasks ---- */
int manager_cancel(Manager *m, TaskRecord *t, bool running, int signal, uint64_t grace_usec); /* 0, 1, -1 */
int manager_kill(Manager *m, TaskRecord *t, int signal);  /* 0 sent, 1 not running */
int manager_hold(Manager *m, TaskRecord *t);              /* 0, 1 not pending */
int manager_release(Manager *m, TaskRecord *t);           /* 0, 1 not held */
int manager_retry(Manager *m, TaskRecord *t, bool reset); /* 0, 1 not finished or no room */

/* All FAILED, TIMEOUT and DEAD tasks that the caller may see, of `only` or (NULL) of all queues. *ret_n: how many were queued. 0,
 * or negative with a refusal: none was. */
int manager_retry_failed(Manager *m, const Caller *caller, QueueRecord *only, bool reset, size_t *ret_n, Refusal *r);
/* A pinned task can be looked at until it is unpinned, whatever becomes of it, its history and its queue. NULL is fine. */
void task_record_pin(TaskRecord *t);
void task_record_unpin(TaskRecord *t);

/* ---- wait for tasks ---- */
typedef struct TaskWait TaskWait;
typedef struct TaskWaiter {
        List link;        /* TaskLinks::waiters */
        TaskRecord *task; /* pinned */
        TaskWait *wait;
} TaskWaiter;
typedef enum TaskWaitEnd {
        TASK_WAIT_OVER,
        TASK_WAIT_TIMED_OUT,
        TASK_WAIT_LOST
} TaskWaitEnd; /* LOST: see task_wait_is_lost() */
struct TaskWait {
        Manager *manager;
        List link; /* Manager::waits */
        Timer timer;
        size_t n, n_left; /* left: those whose link is in a list */
        bool any, started;
        void (*done)(TaskWait *w, TaskWaitEnd end); /* called once; look at waiters[], then task_wait_free() */
        void *userdata;
        TaskWaiter waiters[];
};
typedef enum TaskWaitFlags {
        TASK_WAIT_ANY = 1 << 0,    /* for one of them */
        TASK_WAIT_STARTED = 1 << 1 /* until they run, or have ended */
} TaskWaitFlags;
/* All records stay until task_wait_free(). Calls done from a later engine call or timer; *ret_done_now if all is over already
 * (then done is not called). timeout USEC_NEVER: none. 0 or -ENOMEM. */
int task_wait_new(Manager *m, TaskRecord *const *tasks, size_t n, TaskWaitFlags flags, uint64_t timeout_usec,
                  void (*done)(TaskWait *w, TaskWaitEnd end), void *userdata, TaskWait **ret, bool *ret_done_now);
/* What it waits for will not be told: of durable queues, and the store has failed. */
bool task_wait_is_lost(const TaskWait *w);
bool task_wait_has(const TaskWait *w, const TaskRecord *t); /* t is now as w wants it */
TaskWait *task_wait_free(TaskWait *w);

/* ---- follow output ---- */
typedef struct Follower Follower;
struct Follower {
        List link;        /* TaskLinks::followers */
        TaskRecord *task; /* NULL once it has ended */
        bool must;        /* the task's pipes are not read while it is clogged */
        bool one_attempt; /* it ends with the attempt that runs, not with the task */
        bool (*output)(Follower *f, uint16_t attempt, uint8_t stream, const char *data, size_t n); /* true: clogged */
        void (*end)(Follower *f); /* no more output; the follower is out of the list */
};
int manager_follow(Manager *m, TaskRecord *t, Follower *f); /* t has not finished. 0 or -ENOMEM */
void manager_unfollow(Manager *m, Follower *f);
void manager_follower_unclogged(Manager *m, Follower *f);

/* ---- queues; control is for the creator, allow_control, and administrators ---- */
int manager_queue_create(Manager *m, const Caller *caller, EqBytes name, const EqArray *set, bool exist_ok,
                         QueueRecord **ret, Refusal *ret_refusal);
/* It was paused, resumed, stopped: written down, and told. what: lasts for ever. */
void manager_queue_changed(QueueRecord *q, const char *what);
void manager_queue_stop(QueueRecord *q); /* it takes no more, for good: written down, and told */
int manager_queue_set(Manager *m, const Caller *caller, QueueRecord *q, const EqArray *set, Refusal *ret_refusal);
bool manager_is_durable(const QueueRecord *q);
/* Can what becomes of q and its tasks be kept, or waited for, as a method `keeps` it? Always, if q is not durable. Asked for each queue
 * that a request names, itself or by a task, before anything is done; adding to one asks more, and does so itself. 0, or negative
 * with a refusal. */
int manager_may(EqKeeps keeps, const QueueRecord *q, Refusal *ret_refusal);
/* Is the caller one who may? Likewise. */
int manager_may_control(const Caller *caller, const QueueRecord *q, Refusal *ret_refusal);

/* ---- parameters: the settings of the daemon, and the defaults of queues ---- */
typedef struct Tunable {
        const Param *row;
        const void *object; /* that the row is of; borrowed from the configuration in force */
        bool changed;       /* set at run time */
        EqBytes name;       /* that it was found by, without a section; borrowed from who asked */
} Tunable;

/* The i-th of all, in the order of the tables. False: there are no more. */
bool manager_tunable(const Manager *m, size_t i, Tunable *ret);
int manager_find_tunable(const Manager *m, EqBytes name, Tunable *ret, Refusal *ret_refusal);
/* Until the next reload, or the end. For administrators, which the server has checked. *t is as it is then. */
int manager_tunable_set(Manager *m, Tunable *t, EqBytes value, Refusal *ret_refusal);

/* ---- pools; those that change one are for administrators, which the server has checked ---- */
PoolRecord *manager_pool(const Manager *m, EqBytes name); /* NULL: none */
int manager_find_pool(const Manager *m, EqBytes name, PoolRecord **ret, Refusal *ret_refusal);
int manager_pool_create(Manager *m, EqBytes name, const EqArray *set, bool exist_ok, PoolRecord **ret,
                        Refusal *ret_refusal);
int manager_pool_set(Manager *m, PoolRecord *p, const EqArray *set, Refusal *ret_refusal);
int manager_pool_rm(Manager *m, PoolRecord *p, Refusal *ret_refusal); /* it may be gone only later */

/* ---- workers ---- */

/* Makes *worker serve queues, after making it from setup if it is NULL; all of the queues or none. 0, or negative with a
 * refusal. May send it tasks at once. */
int manager_worker_serve(Manager *m, const Caller *caller, const WorkerSetup *setup, const EqWorkerServe *args,
                         RemoteWorker **worker, Refusal *ret_refusal);
/* 0, or negative with a refusal: it does not hold that task under that attempt. */
int manager_worker_touch(Manager *m, const Caller *caller, RemoteWorker *w, const EqWorkerTouch *args,
                         Refusal *ret_refusal);
void manager_worker_end(Manager *m, RemoteWorker *w, bool kicked); /* its connection is over; frees it */
RemoteWorker *manager_worker(const Manager *m, uint64_t number);   /* NULL: none */

/* ---- for the modules of this floor ---- */
void manager_event_task(Manager *m, eq_event event, const TaskRecord *t);
void manager_log_end(const Manager *m, const TaskRecord *t); /* to the journal, if its queue says so (log_ends) */
/* Told when what was written of q until now is on the disk. detail: NULL, or lasts for ever. */
void manager_event_queue(Manager *m, eq_event event, QueueRecord *q, const char *detail);
void manager_event_daemon(Manager *m, eq_event event, const char *detail);
int refuse(Refusal *r, eq_error code, int error, const char *fmt, ...) _printf_(4, 5); /* returns error */
/* The same, of a parameter or an attribute: its name, which lasts for ever, stands before the text, and is a detail. */
int refuse_field(Refusal *r, eq_error code, int error, const char *field, const char *fmt, ...) _printf_(5, 6);
/* The same where the name does not stand in front, or where what somebody else refused was in there. Returns `error`. */
static inline int refusal_of_field(Refusal *r, const char *field, int error) {
        EQ_SET(&r->details, ErrorDetails, field, eq_str(field));
        return error;
}
/* After these. A name that may go before the refusal is answered is said by REFUSAL_NAMES(). */
#define REFUSAL_SAYS(r, member, ...) EQ_SET(&(r)->details, ErrorDetails, member, __VA_ARGS__)
#define REFUSAL_NAMES(r, member, name) REFUSAL_SAYS(r, member, refusal_keep(r, name))
EqBytes refusal_keep(Refusal *r,
                     EqBytes name); /* a copy of it; of those that are too long for `names`, the beginning */
