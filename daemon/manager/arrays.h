/* SPDX-License-Identifier: MIT */
#pragma once

/* Arrays with a limit: of the tasks that one user submits to a queue under one number at most so many have their turn at once. Who has
 * it may start when the queue, its lane and its place allow; the others are WAITING with reason `array`, and block nobody. It is had
 * from when it is given until the task has ended, its retries included. Who is held, or comes after others, does not ask for it, and
 * who is held gives it back: there are always as many turns as the limit, or nobody asks.
 *
 *   add -> enter (pushed) -> [asks ->] turn -> end          hold: turn -> does not ask          release, `after` over: asks
 *
 * Nothing of it is kept but the options of its tasks: after a restart those that have not ended are an array again, and the first of
 * them have their turns. To the engine who waits has TASK_WAIT_AFTER, as one that comes after another.
 *
 * Loop only. Nothing blocks. */

#include "manager/manager.h"

/* Are `array` and `array_limit` in order for a submit of that user? 0 or negative with a refusal. */
int array_check(const QueueRecord *q, uid_t uid, const EqSubmit *s, Refusal *r);

/* t joins the array that its options name, and waits. Nothing if they name none. 0 or -ENOMEM. */
int array_add(TaskRecord *t, const EqSubmit *s);
void array_enter(TaskRecord *t); /* just before it is pushed: it may go at once */
bool array_ask(TaskRecord *t);   /* it is pending, and waits for nothing else any more. False: it is in none */
void array_hold(TaskRecord *t);  /* it is held now */
void array_end(TaskRecord *t);   /* it has ended: the next one may go */
void array_drop(TaskRecord *t);  /* it is being freed */

/* Does t wait for its turn, and for nothing else? Then how many have theirs, and how many may. */
bool array_waits(const TaskRecord *t, size_t *ret_n_turns, uint64_t *ret_limit);
