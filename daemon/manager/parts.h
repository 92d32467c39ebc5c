/* SPDX-License-Identifier: MIT */
#pragma once

/* What the modules of this floor need from each other and nobody above does. Loop; nothing blocks. */

#include "manager/manager.h"

/* durable.c */
/* The array with room for one more element after n; NULL: no memory, and it is as it was. */
void *array_grown(void *array, size_t *cap, size_t n, size_t size);

/* deps.c */
int deps_add(Manager *m, const Caller *caller, TaskRecord *t, const EqSubmit *s, Refusal *r); /* sets TASK_WAIT_AFTER */
int deps_restore(Manager *m, TaskRecord *t);       /* ties again what its options name. 0 or -ENOMEM */
void deps_drop(TaskRecord *t);                     /* its own edges and those to it */
void deps_settle(Manager *m, TaskRecord *t);       /* t has ended: lets go or cancels those that come after it */
const TaskRecord *deps_first(const TaskRecord *t); /* a task that it waits for, NULL: none */
/* The task whose end is why t can never start, and the option that t named it by. NULL: none, or it is known no more. */
const TaskRecord *deps_unmet(const TaskRecord *t, const char **ret_option);

/* events.c */
/* Tells what waited for it / forgets what waits, for it will not come. */
void events_advance(Manager *m, uint64_t position);
void events_drop(Manager *m);
int events_reserve(QueueRecord *q);    /* for when there is no memory; with the queue. 0 or -ENOMEM */
void events_unreserve(QueueRecord *q); /* what waits there is not told; repeatable */
void manager_event_stall(Manager *m, eq_event event, const StallReport *r);
/* manager.c */
void refill_later(Manager *m);                 /* there was no memory to take tasks from a shelf, or from the store */
void record_settle(Manager *m, TaskRecord *t); /* its end is told */

/* submit.c */
void record_push(Manager *m, TaskRecord *t);    /* what was admitted enters its queue */
void record_drop(Manager *m, TaskRecord *t);    /* ... does not, and is freed */
void record_replace(TaskRecord *t);             /* canceled, now or when it enters its queue, unless it runs */
bool submit_fits_executor(const TaskRecord *t); /* its queue may have got another executor since */

/* tasks.c */
/* A record with its payload and options, charged to nobody and in no list; its `task` is still to be initialised. NULL: no
 * memory. */
TaskRecord *task_record_new(QueueRecord *q, Identity *identity, SharedOptions *common, EqBytes payload, EqBytes options,
                            uint64_t submitted_usec);
TaskRecord *task_record_free(TaskRecord *t); /* out of every list and the index; returns NULL */
TaskLinks *task_links(TaskRecord *t);        /* made if need be; NULL: no memory */
void task_waits_settle(Manager *m, TaskRecord *t);
void task_waits_fail(Manager *m); /* the store has failed: those that are lost */
/* Those of all its output, or only those that want one attempt, which has ended. */
typedef enum FollowersOf { FOLLOWERS_OF_TASK, FOLLOWERS_OF_ATTEMPT } FollowersOf;
void followers_end(TaskRecord *t, FollowersOf which);

/* fate.c */
bool attempt_left(const TaskRecord *t); /* a number for one more that a worker would see */
TaskFate fate_decide(Manager *m, TaskRecord *t, const TaskResult *result);
int run_begin(TaskRecord *t, uint64_t started_usec); /* a TaskRun for an attempt, fresh but for its log. 0 or -ENOMEM */
int run_prepare(TaskRecord *t);                      /* the same, now, unless it began when it was to be cleared */
void task_run_deinit(TaskRun *run);
int run_keep_bytes(TaskRun *run, EqBytes result); /* a worker's result; copied. 0 or -ENOMEM */
void run_keep_result(Manager *m, TaskRecord *t, const TaskResult *result);

/* rescue.c */
/* May a queue have what a says? caller: NULL: a file. before: what it has, NULL: nothing. where: NULL, or "FILE: ". */
int rescue_check(const Caller *caller, const QueueAttributes *before, const QueueAttributes *a, const char *where,
                 Refusal *r);
/* The queue gets the rescuer that *a says, with its whole reserve, or keeps the one that it has; none where its executor has no
 * reserves. 0 or negative errno. May wait for the spawner, at most a second. */
int rescue_settle(Manager *m, QueueRecord *q, const QueueAttributes *a);
int rescue_refuse(Refusal *r, const QueueRecord *q, const QueueAttributes *a, int error); /* after that */
void rescue_follow(Manager *m, QueueRecord *q); /* what its attributes say; what fails is logged */
void rescue_drop(Manager *m, QueueRecord *q);
void rescue_follow_settings(Manager *m);
void rescue_on_mayday(void *host, Queue *q);
void rescue_on_relieved(void *host, Queue *q, uint64_t lasted_usec, uint64_t n_rescued);

/* pools.c */
void pool_on_creation(void *host, Pool *p, uint64_t lasted_usec);

/* workers.c */
extern const WorkerHooks manager_worker_hooks;
void workers_recheck(Manager *m, QueueRecord *q);            /* who may not serve q any more does not */
static inline bool queue_has_workers(const QueueRecord *q) { /* and no commands */
        return q->queue->pool->kind == POOL_REMOTE;
}

/* plugins.c */
extern const PluginHooks manager_plugin_hooks;
PluginSetup plugins_setup(const QueueRecord *q, const QueueAttributes *a); /* borrows from both */
void plugins_began(Manager *m, TaskRecord *t);                             /* a plugin has begun t */
void plugins_changed(Manager *m, QueueRecord *q);                          /* what concerns its plugin may have */
static inline bool queue_has_plugin(const QueueRecord *q) {
        return q->queue->pool->kind == POOL_THREAD;
}
static inline bool queue_has_commands(const QueueRecord *q) { /* else its tasks are payloads */
        return q->queue->pool->kind == POOL_COMMAND;
}

/* history.c */
void history_add(Manager *m, TaskRecord *t);
void history_remove(Manager *m, TaskRecord *t);
void history_drop(Manager *m, TaskRecord *t); /* out of the history, and freed; with the last pin if it is pinned */
void history_trim(Manager *m, QueueRecord *q);
void history_age_fire(Timer *timer);

/* pools.c */
int pools_start(Manager *m);                                           /* makes `default`, first of all. 0 or -ENOMEM */
void pools_free(Manager *m);                                           /* after the queues */
int pools_check_config(const Manager *m, const Config *c, Refusal *r); /* changes nothing */
int pools_apply_config(Manager *m, Refusal *r); /* m->config, checked. Takes what its pools have */
void pools_settle_queues(Manager *m);           /* each queue into the pool that it wants; after any change of pools */
/* That which a, of q, names for this kind, not POOL_REMOTE; the built-in one if there is none. */
Pool *queue_wanted_pool(Manager *m, QueueRecord *q, const QueueAttributes *a, PoolKind kind);
void queue_settle_pool(Manager *m, QueueRecord *q); /* into that of its attributes, unless workers have it */
void pools_follow_settings(Manager *m);             /* of the daemon, which are defaults of pools */
/* All `key=value` of a client, into a copy. 0, -EINVAL, -ENOMEM: some have been set. */
int manager_set_attributes(const AttributeKind *k, void *a, const void *defaults, EqArray set, Refusal *r);
/* Is there one, and is it for such queues? kind POOL_REMOTE: whichever. */
int manager_check_pool(const Manager *m, const char *name, PoolKind kind, Refusal *r);
void pool_record_settle(Manager *m, Pool *pool); /* nothing runs in it any more: goes on with a removal */
const char *pool_record_origin(const PoolRecord *p);
int pools_set_default(Manager *m, uint64_t slots, Refusal *r); /* where nothing else was set; checked */
void pool_show_attributes(const Manager *m, Pool *p); /* to the watch: its threshold, or the daemon's, and its nice */

/* queues.c */
void queues_apply_settings(Manager *m); /* those of the daemon that have changed */
/* Gives every queue that has not set it the new default. Takes *a over on success; checks it before. */
int queues_set_defaults(Manager *m, QueueAttributes *a, Refusal *r);
int queues_apply_config(Manager *m, Config *config, Refusal *r); /* takes over config on success */
/* As it was before a restart, made by a client. Takes *attributes over on success. As queue_restore(). */
int queue_record_restore(Manager *m, const char *name, uint64_t id, uint64_t last_seq, QueueAttributes *attributes,
                         uid_t creator, QueueRecord **ret);
QueueRecord *queue_record_free(Manager *m, QueueRecord *q); /* with its tasks, none of which runs; later if pinned */
void queue_record_destroy(QueueRecord *q);                  /* a gone one whose last task was unpinned */
