/* SPDX-License-Identifier: MIT */
#pragma once

/* Idempotency keys: which task of a queue a user submitted with which key. A key is known while its task has not finished,
 * then for a bounded window: unique_window keys of a queue, each for unique_age. It is among the options of its task, so
 * that whatever keeps the task keeps the key; when the task leaves the history before its key leaves the window, the store
 * keeps of the task only what the key needs.
 *
 *   claim -> reserve, store -> assign -> push -> replaced ones are canceled            a submit; unclaim if it fails
 *   live --ended--> in the window --history forgets the task--> alone --window, age--> gone
 *
 * Loop only: nothing here has or needs a lock. Nothing blocks. */

#include "manager/manager.h"

/* Are `unique` and `on_dup` in order? 0 or negative with a refusal. */
int key_check(const EqSubmit *s, Refusal *r);

/* What the keys of n tasks of one queue on their way in mean: sets `known`, `seq` of those that are there already, and `key`,
 * `replaces` and `forgets` of those that are to come. *ret_n_new: tasks to make. 0; MANAGER_E_WAIT: another submit is about to use the same
 * key; negative with a refusal, then nothing is claimed. */
int keys_claim(QueueRecord *q, uid_t uid, SubmitArgs *args, size_t n, size_t *ret_n_new, Refusal *r);
void keys_unclaim(QueueRecord *q, SubmitArgs *args, size_t n);
/* They are accepted; records: of those that are not `known`, in order. Sets `seq` of all. */
void keys_assign(QueueRecord *q, SubmitArgs *args, size_t n, TaskRecord **records);
/* Pushed: cancels those whose keys they took, as far as these have not begun, and forgets keys that were left of such. */
void keys_cancel_replaced(QueueRecord *q, const SubmitArgs *args, size_t n);

/* As options say: empty, or its key. */
EqBytes key_of(const TaskRecord *t);
void key_finished(TaskRecord *t); /* joins the history */
void key_revived(TaskRecord *t);  /* leaves it, to be run again */
/* It leaves the history for good. True: its key goes on without it, and the store knows. */
bool key_outlives(TaskRecord *t);
void key_drop(TaskRecord *t); /* it is being freed */

/* Of an eqd before this one: the task with the highest SEQ has the key. What has not begun and has it no more was replaced, and
 * is canceled when restoring is over. *ret_stale: SEQ of a task of which nothing was left but the key, which it has no more: the
 * store is to forget it, if it has not; 0: none. 0 or -ENOMEM. */
int key_restore(TaskRecord *t, EqBytes key, uint64_t *ret_stale);
int key_restore_alone(QueueRecord *q, uint64_t seq, uid_t uid, EqBytes key, uint64_t finished_usec,
                      uint64_t *ret_stale);
/* Calls back for each key whose task is gone, oldest end first. Ends at the first that returns not 0, and returns that. */
typedef int (*KeyFunc)(void *userdata, const QueueRecord *q, uint64_t seq, uid_t uid, EqBytes key,
                       uint64_t finished_usec);
int keys_each_alone(const QueueRecord *q, KeyFunc func, void *userdata);

void keys_trim(QueueRecord *q);  /* attributes may have changed */
void keys_clear(QueueRecord *q); /* all; of a queue that goes, or goes elsewhere: the store is not told */
void keys_age_fire(Timer *timer);
