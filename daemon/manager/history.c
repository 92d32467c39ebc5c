/* SPDX-License-Identifier: MIT */
/* Finished tasks, kept for a while: the latest `history` of a queue, none longer than history_age. One that somebody waits
 * for stays until the answer is out. The newest one is never dropped here: the engine may still be on its way out of it. */

#include "manager/durable.h"
#include "manager/keys.h"
#include "manager/parts.h"

void history_add(Manager *m, TaskRecord *t) {
        QueueRecord *q = t->queue;
        list_append(&q->history, &t->history_link);
        list_append(&m->recent, &t->recent_link);
        q->n_history++;
        m->n_finished++;
        key_finished(t);
        history_trim(m, q);
}

void history_remove(Manager *m, TaskRecord *t) {
        if (list_is_empty(&t->history_link))
                return;
        list_remove(&t->history_link);
        list_remove(&t->recent_link);
        t->queue->n_history--;
        m->n_finished--;
}

void history_drop(Manager *m, TaskRecord *t) {
        history_remove(m, t);
        if (t->n_pins > 0)
                t->lost_in_history = true; /* the last pin frees it */
        else
                task_record_free(t);
}

static uint64_t age_usec(const Manager *m, const TaskRecord *t) {
        uint64_t now = clock_realtime(m->clock);
        return now > t->finished_usec ? now - t->finished_usec : 0;
}

/* A queue that has history has the timer set for its oldest. */
static void set_age_timer(Manager *m, QueueRecord *q) {
        const List *l = list_first(&q->history);
        uint64_t longest = q->attributes.history_age_usec;
        if (!l || longest == USEC_NEVER || timer_is_set(&q->age_timer))
                return;
        uint64_t age = age_usec(m, LIST_ENTRY(l, TaskRecord, history_link));
        uint64_t left = age < longest ? longest - age : 0;
        (void)timer_set(&m->timers, &q->age_timer,
                        clock_monotonic(m->clock) + MAX(left, USEC_PER_SEC)); /* else: next time */
}

static void forget(Manager *m, TaskRecord *t) {
        if (!key_outlives(t))
                durable_forget(t);
        history_drop(m, t);
}

void history_trim(Manager *m, QueueRecord *q) {
        if (m->restoring)
                return;
        while (q->n_history > q->attributes.history)
                forget(m, LIST_ENTRY(q->history.next, TaskRecord, history_link));
        set_age_timer(m, q);
}

void history_age_fire(Timer *timer) {
        QueueRecord *q = HEAP_ENTRY(timer, QueueRecord, age_timer);
        Manager *m = q->manager;
        while (q->n_history > 0) {
                TaskRecord *t = LIST_ENTRY(q->history.next, TaskRecord, history_link);
                if (age_usec(m, t) < q->attributes.history_age_usec)
                        break;
                forget(m, t);
        }
        set_age_timer(m, q);
}
