/* SPDX-License-Identifier: MIT */
#pragma once

/* What the modules of this floor need from each other and nobody above does. Loop; nothing blocks. */

#include "manager/manager.h"

/* deps.c */
int deps_add(Manager *m, const Caller *caller, TaskRecord *t, const EqSubmit *s, Refusal *r); /* sets TASK_WAIT_AFTER */
void deps_drop(TaskRecord *t);                     /* its own edges and those to it */
void deps_settle(Manager *m, TaskRecord *t);       /* t has ended: lets go or cancels those that come after it */
const TaskRecord *deps_first(const TaskRecord *t); /* a task that it waits for, NULL: none */

/* submit.c */
void space_fell_free(Manager *m, QueueRecord *q);
bool submit_fits_executor(const TaskRecord *t); /* its queue may have got another executor since */

/* tasks.c */
TaskRecord *task_record_free(TaskRecord *t); /* out of every list and the index; returns NULL */
TaskLinks *task_links(TaskRecord *t);        /* made if need be; NULL: no memory */
void task_waits_settle(Manager *m, TaskRecord *t);
void followers_end(TaskRecord *t);

/* fate.c */
TaskFate fate_decide(Manager *m, TaskRecord *t, const TaskResult *result);
void run_keep_result(Manager *m, TaskRecord *t, const TaskResult *result);

/* workers.c */
extern const WorkerHooks manager_worker_hooks;
void workers_recheck(Manager *m, QueueRecord *q);            /* who may not serve q any more does not */
static inline bool queue_has_workers(const QueueRecord *q) { /* and no commands */
        return q->queue->pool->kind == POOL_REMOTE;
}

/* manager.c */
int run_begin(TaskRecord *t, uint64_t now); /* an attempt starts: an empty TaskRun. 0 or -ENOMEM */
void task_run_deinit(TaskRun *run);

/* history.c */
void history_add(Manager *m, TaskRecord *t);
void history_remove(Manager *m, TaskRecord *t);
void history_drop(Manager *m, TaskRecord *t); /* out of the history, and freed; with the last pin if it is pinned */
void history_trim(Manager *m, QueueRecord *q);
void history_age_fire(Timer *timer);

/* queues.c */
int queues_apply_config(Manager *m, Config *config, Refusal *r); /* takes over config on success */
QueueRecord *queue_record_free(Manager *m, QueueRecord *q); /* with its tasks, none of which runs; later if pinned */
void queue_record_destroy(QueueRecord *q);                  /* a gone one whose last task was unpinned */
void queue_record_settle(Manager *m, QueueRecord *q);       /* a task ended: goes on with a removal */
void tombstones_free(Manager *m);
