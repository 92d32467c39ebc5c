/* SPDX-License-Identifier: MIT */
#include "manager/once.h"

#include <errno.h>

#include "base/event.h"
#include "manager/durable.h"
#include "manager/parts.h"

enum { MARKS_ENOUGH = STORE_MARKS / 16 }; /* free: the next lack of them is told again */

void once_follow(QueueRecord *q) {
        queue_set_clears(q->queue, durable_queue(q) && q->attributes.at_most_once);
        if (!q->queue->clears)
                queue_set_blocked(q->queue, EQ_REASON_NONE);
}

void once_follow_all(Manager *m) {
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                once_follow(q);
}

/* ---- marks ---- */

bool once_waits_for_mark(const QueueRecord *q) {
        return q->queue->blocked != EQ_REASON_NONE;
}

void once_marks_are_out(Manager *m) {
        if (m->once.no_marks)
                return;
        m->once.no_marks = true;
        log_event(STORE_MARKS_OUT, (0), STORE_MARKS);
}

/* Not as soon as a mark is free: that may be in the middle of anything. */
void once_turn(Manager *m) {
        Once *o = &m->once;
        if (!o->no_marks)
                return;
        size_t n_free = store_n_free_marks(durable_store(m));
        if (n_free >= MARKS_ENOUGH)
                o->no_marks = false;
        if (!o->has_blocked || n_free == 0)
                return;
        o->has_blocked = false; /* those that get none set it again */
        engine_hold(&m->engine);
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                queue_set_blocked(q->queue, EQ_REASON_NONE);
        engine_unhold(&m->engine);
}

/* It counts from when the store has the STATE: until then the task has not begun. */
static int take_mark(TaskRecord *t, int *ret) {
        QueueRecord *q = t->queue;
        _Atomic uint64_t *word;
        uint64_t value;
        *ret = store_mark_ready(durable_store(q->manager), q->queue->id, t->task.seq, t->task.attempt, &word, &value);
        if (*ret != STORE_MARK_NONE)
                return 0;
        once_marks_are_out(q->manager);
        q->manager->once.has_blocked = true;
        queue_set_blocked(q->queue, EQ_REASON_PERSIST);
        return -EAGAIN;
}

/* ---- starts ---- */

int once_clear(TaskRecord *t) {
        Manager *m = t->queue->manager;
        int mark, r;
        if (!durable_queue(t->queue))
                return 0;
        r = take_mark(t, &mark);
        if (r < 0)
                return r;
        r = run_begin(t, clock_realtime(m->clock));
        if (r < 0) {
                durable_unmark(m, mark);
                return r;
        }
        uint64_t written = m->written;
        t->run->mark = mark;
        t->run->cleared = true;
        durable_put_state(t, NULL);
        if (durable_has_failed(t->queue)) /* by that; it is paused */
                return -EIO;
        t->stored_at = m->written;
        m->written = written; /* the answer to whatever has made it start does not wait for this */
        list_append(&m->once.clearing, &t->recent_link);
        return 1;
}

void once_advance(Manager *m, uint64_t position) {
        for (TaskRecord *t; (t = durable_first_until(&m->once.clearing, position));) {
                list_remove(&t->recent_link);
                store_mark_set(durable_store(m), t->run->mark);
                engine_task_cleared(&m->engine, &t->task);
        }
}

void once_clear_none(Manager *m) {
        for (List *l; (l = list_first(&m->once.clearing));)
                engine_task_uncleared(&m->engine, &LIST_ENTRY(l, TaskRecord, recent_link)->task);
}

void once_run_is_over(TaskRecord *t) {
        if (!t->run || !t->run->cleared)
                return;
        t->run->cleared = false;
        list_remove(&t->recent_link); /* of `clearing`, or of none */
}

void once_not_started(TaskRecord *t) {
        bool was_cleared = t->run && t->run->cleared;
        once_run_is_over(t);
        if (was_cleared)
                durable_put_stopped(t, NULL); /* else the store would go on saying that it starts */
        else
                durable_stopped(t);
}
