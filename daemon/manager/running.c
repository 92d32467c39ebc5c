/* SPDX-License-Identifier: MIT */
/* Marks of what runs, which the store keeps over the death of eqd: set before a run can begin, and gone when what came of it is on
 * the disk. Commands and workers' tasks are marked by the loop as they are sent; those of plugins by the thread that begins them,
 * since a plugin may kill eqd before the loop hears of it. */

#include <stdio.h>

#include "base/event.h"
#include "base/procfs.h"
#include "manager/durable.h"
#include "manager/once.h"
#include "manager/parts.h"

void durable_started(TaskRecord *t) {
        const QueueRecord *q = t->queue;
        if (!durable_queue(q) || !t->run || t->run->cleared)
                return;
        t->run->mark = store_mark(durable_store(q->manager), q->queue->id, t->task.seq, t->task.attempt);
        if (t->run->mark == STORE_MARK_NONE)
                once_marks_are_out(q->manager);
}

int durable_mark_ready(const TaskRecord *t, _Atomic uint64_t **ret_word, uint64_t *ret_value) {
        const Task *task = &t->task;
        uint32_t attempt = task->attempt + (task->where == TASK_IN_HANDED); /* which is not counted yet */
        if (!durable_queue(t->queue) || (t->run && t->run->cleared))
                return STORE_MARK_NONE;
        int mark = store_mark_ready(durable_store(t->queue->manager), t->queue->queue->id, task->seq, attempt, ret_word,
                                    ret_value);
        if (mark == STORE_MARK_NONE)
                once_marks_are_out(t->queue->manager);
        return mark;
}

void durable_runs_as(TaskRecord *t, pid_t pid, uint64_t start_ticks) {
        const StoreProcess p = { .pid = pid, .start_ticks = start_ticks };
        if (t->run->mark != STORE_MARK_NONE && t->queue->manager->durable)
                store_mark_process(durable_store(t->queue->manager), t->run->mark, &p);
}

void durable_spawner(const Manager *m, pid_t keeper, pid_t worker) {
        const StoreProcess p[STORE_SPAWNER] = {
                { .pid = keeper, .start_ticks = procfs_start_ticks(keeper) },
                { .pid = worker, .start_ticks = procfs_start_ticks(worker) },
        };
        if (m->durable)
                store_note_spawner(durable_store(m), p);
}

void durable_unmark(const Manager *m, int mark) {
        if (m->durable) /* else it was closed, and what is marked stays so */
                store_unmark(durable_store(m), mark);
}

void durable_stopped(TaskRecord *t) {
        if (!t->run || t->run->mark == STORE_MARK_NONE)
                return;
        durable_unmark(t->queue->manager, t->run->mark);
        t->run->mark = STORE_MARK_NONE;
}

void durable_take_back(Manager *m) {
        for (QueueRecord *q = m->queues; q; q = q->hh.next) {
                if (!queue_has_plugin(q))
                        continue;
                queue_recall(q->queue);
                LIST_FOREACH (l, &q->queue->running) {
                        const Task *t = LIST_ENTRY(l, Task, link);
                        const TaskRun *run = task_record(t)->run;
                        if (t->slot && t->slot->pool->kind == POOL_THREAD && !(run && run->cleared))
                                plugin_executor_await_begin(m->plugins, t);
                }
        }
}

void durable_tell_mark(StoreMarkDamage what, int slot) {
        static const char *const texts[] = {
                [STORE_MARK_MENDED] = "had a wrong bit, and counts as it was written",
                [STORE_MARK_NOTHING] = "had a wrong bit, and marks nothing",
                [STORE_MARK_LOST] = "is damaged: a run that was cut short may not be counted",
                [STORE_MARK_PROCESS] = "is damaged where its process is: if that was left, it is left alone",
                [STORE_MARK_HEADER] = "is damaged: if processes of tasks were left, they are left alone",
                [STORE_MARK_HEADER_MENDED] = "had a wrong bit, and counts as it was written",
        };
        char name[32] = "the header";
        if (slot != STORE_MARK_NONE)
                (void)snprintf(name, sizeof(name), "row %d", slot);
        log_event(STORE_MARK_DAMAGED, (.error = texts[what]), name, texts[what]);
}
