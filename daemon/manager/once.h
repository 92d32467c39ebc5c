/* SPDX-License-Identifier: MIT */
#pragma once

/* Starts of durable queues with at_most_once. Before such a task runs, a STATE of it that says so is on the disk:
 *
 *      claimed -> mark, STATE -> (durable) -> started          engine: EngineHooks::clear ... engine_task_cleared()
 *
 * So an eqd that finds that STATE, after kill -9 or a loss of power, knows that the task may have run. The mark alone, which is never
 * synced, would not outlive the latter; it names the process, so a task without one does not start either: its queue waits.
 *
 * What waits shares the commit with whatever else is appended. Other queues have none of this. Loop; nothing blocks. */

#include "manager/manager.h"

void once_follow(QueueRecord *q); /* its attributes, or whether there is a store, may have changed */
void once_follow_all(Manager *m);
int once_clear(TaskRecord *t); /* EngineHooks::clear */
void once_not_started(TaskRecord *t);
void once_run_is_over(TaskRecord *t);             /* before it is written what came of it */
void once_advance(Manager *m, uint64_t position); /* so far everything is on the disk. While the engine is held */
void once_clear_none(
        Manager *m);        /* those that wait go back to their places: the store has failed, or is being closed */
void once_turn(Manager *m); /* in each turn of the loop, before what it has appended is handed over */
void once_marks_are_out(Manager *m); /* there was none for a task */
bool once_waits_for_mark(const QueueRecord *q);
