/* SPDX-License-Identifier: MIT */
/* Places in a queue: taken, refused, made by dropping the oldest task, or waited for, first come first served. */

#include "manager/space.h"

#include <errno.h>

#include "base/event.h"
#include "manager/parts.h"
#include "manager/window.h"

/* Not each pass: a chain without an end must not fill the journal either. As the kernel does. */
static void note_passes(const Queue *q, unsigned before) {
        unsigned n = q->n_drain_passes;
        if (n != before && (n == 10 || (n % 100 == 0 && n <= 1000)))
                log_event(DRAIN_LONG, (.queue = q->name, .pending = q->n_queued), q->name, n);
}

/* 0, or as queue_reserve(). */
static int take_places(Queue *q, const Task *by, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq) {
        if (!by || by->queue != q)
                return queue_reserve(q, n, n_bytes, ret_first_seq);
        unsigned before = q->n_drain_passes;
        int e = queue_reserve_chained(q, by, n, n_bytes, ret_first_seq);
        note_passes(q, before);
        return e;
}

/* How long n places take to fall free at the rate at which the queue went on since a refusal that is a while ago. Nothing is
 * counted for it where tasks end: refusals look at what is counted anyway. 0: not known. */
static uint64_t room_in_usec(QueueRecord *q, uint64_t n) {
        enum { LOOK_BACK_USEC = 1000000, LONGEST_USEC = 3600000000U };
        uint64_t now = clock_monotonic(q->manager->clock), ended = q->queue->n_done + q->queue->n_failed;
        uint64_t n_ended = ended - q->refused_ended, spent = now - q->refused_usec;
        bool known = q->refused_usec > 0 && n_ended > 0;
        if (q->refused_usec == 0 || (n_ended > 0 && spent > LOOK_BACK_USEC)) {
                q->refused_usec = now;
                q->refused_ended = ended;
        }
        return known ? MIN(MAX(spent * n / n_ended, 1), LONGEST_USEC) : 0;
}

/* More than the queue takes at all: there is nothing to wait for, and nothing is dropped for it. */
static int refuse_what_never_fits(const Queue *queue, uint64_t n, uint64_t n_bytes, Refusal *r) {
        bool by_tasks = n > queue->params.max_tasks;
        int e = refuse(
                r, EQ_E_TOO_LARGE, -E2BIG,
                "queue %s holds at most %llu tasks and %llu bytes, and this submit alone has %llu and %llu; %sraise "
                "max_tasks or max_bytes",
                queue->name, (unsigned long long)queue->params.max_tasks, (unsigned long long)queue->params.max_bytes,
                (unsigned long long)n, (unsigned long long)n_bytes, n > 1 ? "submit fewer at once, or " : "");
        REFUSAL_NAMES(r, queue, eq_str(queue->name));
        REFUSAL_SAYS(r, what, eq_str(by_tasks ? "tasks" : "bytes"));
        REFUSAL_SAYS(r, limit, by_tasks ? queue->params.max_tasks : queue->params.max_bytes);
        return e;
}

static void say_full(QueueRecord *q, uint64_t n, Refusal *r) {
        const Queue *queue = q->queue;
        size_t pending = queue->n_queued + queue->n_waiting;
        bool by_tasks = pending + n > queue->params.max_tasks;
        uint64_t usec = by_tasks ? room_in_usec(q, pending + n - queue->params.max_tasks) : 0;
        REFUSAL_NAMES(r, queue, eq_str(queue->name));
        REFUSAL_SAYS(r, what, eq_str(by_tasks ? "tasks" : "bytes"));
        REFUSAL_SAYS(r, limit, by_tasks ? queue->params.max_tasks : queue->params.max_bytes);
        REFUSAL_SAYS(r, pending, by_tasks ? pending : queue->n_bytes);
        if (usec > 0)
                REFUSAL_SAYS(r, retry_after_usec, usec);
}

int space_reserve(QueueRecord *q, const Task *by, bool may_wait, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq,
                  Refusal *r) {
        Queue *queue = q->queue;
        may_wait = may_wait || queue->params.on_full == QUEUE_FULL_BLOCK;
        r->full = q;
        if (may_wait && !list_is_empty(&q->space_waiters))
                return MANAGER_E_WAIT; /* others came first */

        int e = take_places(queue, by, n, n_bytes, ret_first_seq);
        bool fits = n <= queue->params.max_tasks && n_bytes <= queue->params.max_bytes;
        while (e == QUEUE_E_FULL && fits && queue->params.on_full == QUEUE_FULL_DROP_OLDEST) {
                Task *oldest = queue_oldest(queue);
                if (window_drop_oldest(q, oldest)) {
                        e = take_places(queue, by, n, n_bytes, ret_first_seq);
                        continue;
                }
                if (!oldest)
                        break;
                task_record(oldest)->end_note = TASK_NOTE_DROPPED;
                if (queue_cancel(oldest->queue, oldest) != 0)
                        task_record(oldest)->end_note = TASK_NOTE_NONE; /* it has begun just now */
                e = take_places(queue, by, n, n_bytes, ret_first_seq);
        }
        switch (e) {
        case 0:
                return 0;
        case QUEUE_E_FULL:
                if (!fits)
                        return refuse_what_never_fits(queue, n, n_bytes, r);
                if (may_wait)
                        return MANAGER_E_WAIT;
                e = refuse(r, EQ_E_FULL, -ENOSPC,
                           "queue %s is full: %zu of %llu tasks, %llu of %llu bytes; try again later, or raise "
                           "max_tasks or "
                           "max_bytes",
                           queue->name, queue->n_queued + queue->n_waiting, (unsigned long long)queue->params.max_tasks,
                           (unsigned long long)queue->n_bytes, (unsigned long long)queue->params.max_bytes);
                say_full(q, n, r);
                return e;
        case QUEUE_E_STOPPED:
                e = refuse(r, EQ_E_STOPPED, -ESHUTDOWN, "queue %s is stopped and takes no more tasks", queue->name);
                REFUSAL_NAMES(r, queue, eq_str(queue->name));
                return e;
        case QUEUE_E_DRAINING:
                e = refuse(r, EQ_E_DRAINING, -EAGAIN, "queue %s is draining; it reopens when it is empty", queue->name);
                REFUSAL_NAMES(r, queue, eq_str(queue->name));
                return e;
        default:
                return refuse(r, EQ_E_NO_MEMORY, e, "out of memory");
        }
}

/* ---- waiting ---- */

static void space_time_over(Timer *timer) {
        SpaceWaiter *w = HEAP_ENTRY(timer, SpaceWaiter, timer);
        list_remove(&w->link);
        w->retry(w, false);
}

int manager_wait_space(Manager *m, QueueRecord *q, SpaceWaiter *w, uint64_t block_usec) {
        bool again = w->deadline_usec != 0,
             keeps_turn = again && w->queue == q; /* of a task over several: one after the other */
        w->queue = q;
        if (!again) {
                w->timer = (Timer)TIMER_NULL(space_time_over);
                w->deadline_usec =
                        usec_add(clock_monotonic(m->clock), block_usec ? block_usec : q->attributes.block_timeout_usec);
        }
        int r = timer_set(&m->timers, &w->timer, w->deadline_usec);
        if (r < 0)
                return r;
        if (keeps_turn)
                list_insert_before(q->space_waiters.next, &w->link); /* keeps its turn */
        else
                list_append(&q->space_waiters, &w->link);
        return 0;
}

int manager_still_full(SpaceWaiter *w, Refusal *ret_refusal) {
        int e = refuse(ret_refusal, EQ_E_FULL, -ENOSPC,
                       "queue %s stayed full for the whole wait; try again later, or raise max_tasks or max_bytes",
                       w->queue->queue->name);
        say_full(w->queue, 1, ret_refusal);
        return e;
}

void manager_wait_space_cancel(Manager *m, SpaceWaiter *w) {
        timer_unset(&m->timers, &w->timer);
        list_remove(&w->link);
}

void space_fell_free(Manager *m, QueueRecord *q) {
        List *first;
        if (m->reserving) {
                m->space_fell = true; /* space_let_go() calls again */
                return;
        }
        while ((first = list_first(&q->space_waiters))) {
                SpaceWaiter *w = LIST_ENTRY(first, SpaceWaiter, link);
                List rest; /* hidden meanwhile, so that its own retry does not see itself behind others */
                list_remove(&w->link);
                list_take_all(&q->space_waiters, &rest);
                timer_unset(&m->timers, &w->timer);
                w->retry(w, true);
                bool still_full = !list_is_empty(&q->space_waiters);
                for (List *l; (l = list_first(&rest));) {
                        list_remove(l);
                        list_append(&q->space_waiters, l);
                }
                if (still_full)
                        return;
        }
}

void space_keep(Manager *m) {
        m->reserving = true;
}

void space_let_go(Manager *m) {
        m->reserving = false;
        for (QueueRecord *q = m->space_fell ? m->queues : NULL; q; q = q->hh.next)
                space_fell_free(m, q);
        m->space_fell = false;
}
