/* SPDX-License-Identifier: MIT */
/* Waits for a whole queue: flush, drain, join.
 *
 * Flush: tasks carry the ordinal of their push, a flusher marks the ordinal of the last reservation. Each flusher counts
 * the tasks between the mark before and its own only, so that the end of a task touches one of them. */

#include "engine/queue_parts.h"

#include "engine/pool.h"

static QueueWaiter *waiter_of(List *link) {
        return LIST_ENTRY(link, QueueWaiter, link);
}

static void move_waiters(List *from, List *to) {
        for (List *link; (link = list_first(from));) {
                waiter_of(link)->flushing = NULL;
                list_remove(link);
                list_append(to, link);
        }
}

void queue_call_waiters(List *over) {
        for (List *link; (link = list_first(over));) {
                list_remove(link);
                waiter_of(link)->done(waiter_of(link));
        }
}

void queue_take_waiters(Queue *q, List *to) {
        move_waiters(&q->flushers, to);
        move_waiters(&q->drainers, to);
        move_waiters(&q->joiners, to);
        q->n_flushing = 0;
}

static bool executor_is_done(Queue *q) {
        Executor *x = q->pool->executor;
        return !x->ops->end || x->ops->end(x, q);
}

void queue_collect_waiters(Queue *q, List *over) {
        for (List *link; (link = list_first(&q->flushers)) && waiter_of(link)->n_left == 0;) {
                waiter_of(link)->flushing = NULL;
                list_remove(link);
                list_append(over, link);
        }
        if (!queue_is_empty(q))
                return;
        if (q->draining) {
                q->draining = false;
                move_waiters(&q->drainers, over);
        }
        if (q->stopping && executor_is_done(q)) {
                q->stopped = true;
                move_waiters(&q->joiners, over);
        }
}

/* ---- flush ---- */

void queue_count_end(Queue *q, uint64_t accepted) {
        if (list_is_empty(&q->flushers) || waiter_of(q->flushers.prev)->mark < accepted)
                return;
        List *link = q->flushers.next;
        while (waiter_of(link)->mark < accepted)
                link = link->next;
        waiter_of(link)->n_left--;
        q->n_flushing--;
}

void queue_forget_above(Queue *q, uint64_t n_accepted) {
        uint64_t counted = n_accepted;
        LIST_FOREACH (link, &q->flushers) {
                QueueWaiter *w = waiter_of(link);
                if (w->mark <= n_accepted)
                        continue;
                w->n_left -= w->mark - counted;
                q->n_flushing -= w->mark - counted;
                counted = w->mark;
                w->mark = n_accepted;
        }
}

void queue_flush(Queue *q, QueueWaiter *w) {
        queue_enter(q);
        w->flushing = q;
        w->mark = q->n_pushed + q->n_reserved;
        w->n_left = queue_n_unended(q) - q->n_flushing;
        q->n_flushing += w->n_left;
        list_append(&q->flushers, &w->link);
        queue_leave(q);
}

/* ---- drain, join ---- */

void queue_drain(Queue *q, QueueWaiter *w) {
        queue_enter(q);
        if (!q->draining) {
                q->drain_mark = q->last_seq;
                q->n_drain_passes = 0;
        }
        q->draining = true;
        w->flushing = NULL;
        list_append(&q->drainers, &w->link);
        queue_leave(q);
}

void queue_stop(Queue *q) {
        queue_enter(q);
        q->stopping = true;
        queue_leave(q);
}

void queue_join(Queue *q, QueueWaiter *w) {
        queue_enter(q);
        w->flushing = NULL;
        list_append(&q->joiners, &w->link);
        queue_leave(q);
}

/* ---- waits that end otherwise ---- */

void queue_waiter_cancel(QueueWaiter *w) {
        Queue *q = w->flushing;
        if (q) { /* the next one counts what this one counted */
                if (w->link.next != &q->flushers)
                        waiter_of(w->link.next)->n_left += w->n_left;
                else
                        q->n_flushing -= w->n_left;
                w->flushing = NULL;
        }
        if (w->link.next)
                list_remove(&w->link);
}

void queue_give_up_waits(Queue *q) {
        List over;
        list_init(&over);
        queue_take_waiters(q, &over);
        LIST_FOREACH (link, &over)
                waiter_of(link)->given_up = true;
        queue_call_waiters(&over);
}
