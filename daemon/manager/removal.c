/* SPDX-License-Identifier: MIT */
/* The end of a queue: what is in it ends, its plugin is closed, it is gone, and who waits for that is told. */

#include "manager/removal.h"

#include <errno.h>

#include "engine/barrier.h"
#include "manager/durable.h"
#include "manager/parts.h"
#include "manager/shelf.h"

void removal_begin(QueueRecord *q) {
        if (q->removing)
                return;
        q->removing = true;
        queue_stop(q->queue);
}

void removal_settle(Manager *m, QueueRecord *q) {
        if (q->removing && queue_is_empty(q->queue) && q->n_unsettled == 0) /* not from inside the engine */
                (void)timer_set(&m->timers, &q->remove_timer, clock_monotonic(m->clock)); /* stands: cannot fail */
}

static void end_all(Manager *m, QueueRecord *q) {
        uint64_t seq = 0;
        while (seq_index_next(&q->tasks, &seq)) {
                TaskRecord *t = shelf_find(q, seq++); /* those in the store follow: see window_refill() */
                if (!t || task_record_finished(t))    /* without memory for it: see shelf_refill() */
                        continue;
                t->end_note = TASK_NOTE_REMOVED;
                if (queue_cancel(q->queue, &t->task) == 1)
                        (void)engine_task_stop(&m->engine, &t->task, 0, USEC_NEVER);
        }
        for (Task *t; (t = barrier_over(q->queue));) { /* at home in other queues */
                task_record(t)->end_note = TASK_NOTE_REMOVED;
                (void)queue_cancel(t->queue, t); /* it is pending */
        }
        queue_refill(q->queue);
        Task *held = q->queue->held ? barrier_task(q->queue->held) : NULL;
        if (held) {
                task_record(held)->end_note = TASK_NOTE_REMOVED;
                (void)engine_task_stop(&m->engine, held, 0, USEC_NEVER);
        }
}

int manager_queue_rm(Manager *m, QueueRecord *q, bool yes, RemoveWaiter *w, Refusal *ret_refusal) {
        const Queue *e = q->queue;
        if (!yes && !queue_is_empty(e)) {
                size_t n = e->n_queued + e->n_waiting + e->n_running + e->n_reserved; /* on their way to the disk */
                int r = refuse(ret_refusal, EQ_E_NOT_EMPTY, -ENOTEMPTY,
                               "queue %s has %zu task%s that ha%s not ended; drain it first, or use --yes to cancel %s",
                               e->name, n, n == 1 ? "" : "s", n == 1 ? "s" : "ve", n == 1 ? "it" : "them");
                REFUSAL_NAMES(ret_refusal, queue, eq_str(e->name));
                REFUSAL_SAYS(ret_refusal, pending, n);
                return r;
        }
        list_append(&q->removers, &w->link);
        if (!q->ending) {
                removal_begin(q);
                q->ending = true;
                end_all(m, q);
        }
        removal_settle(m, q);
        return 0;
}

static bool plugin_executor_ended(const QueueRecord *q) {
        return !queue_has_plugin(q) || plugin_executor_has_ended(q->queue);
}

void removal_fire(Timer *timer) {
        QueueRecord *q = HEAP_ENTRY(timer, QueueRecord, remove_timer);
        Manager *m = q->manager;
        List removers;
        if (!plugin_executor_ended(q))
                return; /* comes back when it has */
        if (durable_has_failed(q))
                return; /* it would be there again */
        list_take_all(&q->removers, &removers);
        durable_put_gone(q);
        manager_event_queue(m, EQ_EVENT_QUEUE_REMOVED, q, NULL);
        queue_record_free(m, q);
        for (List *l; (l = list_first(&removers));) {
                list_remove(l);
                RemoveWaiter *w = LIST_ENTRY(l, RemoveWaiter, link);
                w->done(w);
        }
}

void removal_give_up(QueueRecord *q) {
        for (List *l; (l = list_first(&q->removers));) {
                list_remove(l);
                RemoveWaiter *w = LIST_ENTRY(l, RemoveWaiter, link);
                w->given_up = true;
                w->done(w);
        }
}
