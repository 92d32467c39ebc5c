/* SPDX-License-Identifier: MIT */
#pragma once

/* The way of queues and tasks into the store and back. A queue with durable=yes has every change of it and of its tasks
 * appended here; what others learn of a change waits until it is on disk:
 *
 *   submit -> TASK -> (durable) -> queue_push, task.accepted        the answer: held by the server, see manager_written()
 *   ended -> END -> (durable) -> history, task.finished, waits, dependents; the next task starts at once
 *
 * Without a store (Manager::store NULL) nothing is durable, and all of this does nothing. Loop; nothing blocks but open and
 * close. */

#include "manager/restore.h"

/* Opens the store in dir and restores what is in it. 0, or negative errno that the log explains. */
int durable_open(Manager *m, const char *dir, Restore *r);
/* Everything that was appended becomes durable; what runs is written down as to be run again. Repeatable. */
void durable_close(Manager *m);

bool durable_queue(const QueueRecord *q); /* is it? */

/* Can q be kept, or changed, now? 0 or negative with a refusal. */
int durable_check(const Manager *m, const QueueRecord *q, Refusal *r);

void durable_put_queue(QueueRecord *q); /* it was made, or changed */
void durable_put_gone(QueueRecord *q);
/* n tasks of one queue, all or none; they are pushed when they are durable, by durable_push(). 0 or negative with a refusal;
 * on success of a queue that is not durable `*ret_now` is set: push them now. */
int durable_accept(QueueRecord *q, TaskRecord **tasks, size_t n, bool *ret_now, Refusal *r);
void durable_put_state(TaskRecord *t,
                       const TaskFate *fate); /* fate: of the attempt that has just ended; NULL: as it is */
bool durable_put_end(TaskRecord *t);          /* true: record_settle() comes later, by itself */
void durable_forget(TaskRecord *t);           /* it left the history */

void durable_started(TaskRecord *t); /* marks it as running */
void durable_stopped(TaskRecord *t); /* ... no longer */
