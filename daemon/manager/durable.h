/* SPDX-License-Identifier: MIT */
#pragma once

/* The way of queues and tasks into the store and back. A queue with durable=yes has every change of it and of its tasks
 * appended here; what others learn of a change waits until it is on disk:
 *
 *   submit -> TASK -> (durable) -> queue_push, task.accepted        the answer: held by the server, see manager_written()
 *   ended -> END -> (durable) -> history, task.finished, waits, dependents; the next task starts at once
 *
 * While the store is full nothing is added, neither tasks nor queues, and all that changes what is there goes into its reserve.
 * When it has failed durable queues stand still as they are: nothing of them may be changed, and nobody waits for them. What asks
 * for a change asks durable_may_change() or durable_may_grow() first, before anything is done in memory; what ends by itself
 * meanwhile is lost, and no answer that might speak of it is sent.
 *
 * Without a store (Manager::store NULL) nothing is durable, and all of this does nothing. Loop; nothing blocks but open and
 * close. */

#include "manager/restore.h"

/* Opens the store in dir and restores what is in it. 0, or negative errno that the log explains. */
int durable_open(Manager *m, const char *dir, Restore *r);
/* Everything that was appended becomes durable; what runs is written down as to be run again. Repeatable. */
void durable_close(Manager *m);

void durable_follow_settings(Manager *m);      /* its low-water mark is another one */
Store *durable_store(const Manager *m);        /* while there is one */
bool durable_queue(const QueueRecord *q);      /* is it? */
bool durable_has_failed(const QueueRecord *q); /* it is, and the store takes nothing more: it stands still */

/* Each 0, or negative with a refusal. Will q go on? */
int durable_may_wait(const QueueRecord *q, Refusal *r);
/* Can what becomes of q and its tasks now be kept? q: NULL: of all of them. */
int durable_may_change(const Manager *m, const QueueRecord *q, Refusal *r);
/* Can the store take a task of q, or q itself, which is durable or is to be it? */
int durable_may_grow(const QueueRecord *q, Refusal *r);

void durable_put_queue(QueueRecord *q); /* it was made, or changed */
void durable_put_gone(QueueRecord *q);
/* n tasks of one queue, all or none; they are pushed when they are durable, by durable_push(). 0 or negative with a refusal;
 * on success of a queue that is not durable `*ret_now` is set: push them now. */
int durable_accept(QueueRecord *q, TaskRecord **tasks, size_t n, bool *ret_now, Refusal *r);
void durable_put_state(TaskRecord *t,
                       const TaskFate *fate); /* fate: of the attempt that has just ended; NULL: as it is */
bool durable_put_end(TaskRecord *t);          /* true: record_settle() comes later, by itself */
void durable_forget(TaskRecord *t);           /* it left the history */
/* It left the history but for its key: that and no more is kept of it, until durable_forget_seq(). */
void durable_put_key(const QueueRecord *q, uint64_t seq, uid_t uid, EqBytes key, uint64_t finished_usec);
void durable_forget_seq(const QueueRecord *q, uint64_t seq);

TaskRecord *durable_first_until(List *list,
                                uint64_t position); /* of TaskRecord::recent_link, by stored_at. NULL: none */

void durable_started(TaskRecord *t);                                  /* marks it as running */
void durable_stopped(TaskRecord *t);                                  /* ... no longer */
void durable_runs_as(TaskRecord *t, pid_t pid, uint64_t start_ticks); /* and as which process */
/* For one that a thread of its own begins, which then stores *ret_value in **ret_word. The mark; STORE_MARK_NONE: nothing is to
 * be stored. */
int durable_mark_ready(const TaskRecord *t, _Atomic uint64_t **ret_word, uint64_t *ret_value);
void durable_unmark(const Manager *m, int mark);
void durable_spawner(const Manager *m, pid_t keeper, pid_t worker); /* the next eqd is to wait for its end */
/* Threads write to marks of what they begin, and these are about to go: what has not begun is taken back. While the engine is held. */
void durable_take_back(Manager *m);
void durable_tell_mark(StoreMarkDamage what, int slot);       /* logs it */
void durable_tell_unread(const char *file, unsigned seconds); /* likewise */
/* durable_put_state() of one whose run is over: it is marked until that is on the disk. */
void durable_put_stopped(TaskRecord *t, const TaskFate *fate);
