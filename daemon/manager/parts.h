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

/* tasks.c */
TaskRecord *task_record_free(TaskRecord *t); /* out of every list and the index; returns NULL */
void task_waits_settle(Manager *m, TaskRecord *t);
void followers_end(TaskRecord *t);

/* fate.c */
TaskFate fate_decide(Manager *m, TaskRecord *t, const TaskResult *result);
void run_keep_result(Manager *m, TaskRecord *t, const TaskResult *result);

/* history.c */
void history_add(Manager *m, TaskRecord *t);
void history_remove(Manager *m, TaskRecord *t);
void history_trim(Manager *m, QueueRecord *q);
void history_age_fire(Timer *timer);

/* view.c */
int queues_sorted(const Manager *m, QueueRecord ***ret, size_t *ret_n); /* by name; *ret is the caller's */

/* queues.c */
int queues_apply_config(Manager *m, Config *config, Refusal *r); /* takes over config on success */
QueueRecord *queue_record_free(Manager *m, QueueRecord *q);      /* with its tasks, none of which runs */
void queue_record_settle(Manager *m, QueueRecord *q);            /* a task ended: goes on with a removal */
void tombstones_free(Manager *m);
