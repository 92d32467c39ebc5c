/* SPDX-License-Identifier: MIT */
/* Methods on queues, touch and reload. drain, join, flush and rm answer later. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "manager/removal.h"
#include "manager/view.h"
#include "server/handlers.h"

/* r: of view_queue(). */
static void reply_view(const Request *rq, int r, QueueView *v) {
        if (r < 0)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else
                request_reply_record(rq, &eq_schema_Queue, &v->row);
        queue_view_done(v);
}

static void reply_queue(Handlers *h, const Request *rq, const QueueRecord *q) {
        QueueView v = QUEUE_VIEW_NULL;
        reply_view(rq, view_queue(h->manager, q, &v), &v);
}

static bool name_after(const char *name, EqBytes from) {
        int r = strncmp(name, from.data, from.len);
        return r > 0 || (r == 0 && strlen(name) > from.len);
}

static QueueRecord *named(Handlers *h, const Request *rq, EqBytes name, bool control) {
        Caller caller = session_caller(rq->session);
        QueueRecord *q;
        Refusal refusal;
        int r = manager_find_queue(h->manager, name, &q, &refusal);
        if (r >= 0 && control)
                r = manager_may_control(&caller, q, &refusal);
        if (r >= 0)
                r = manager_may((EqKeeps)rq->method->keeps, q, &refusal);
        if (r >= 0)
                return q;
        request_refused(rq, &refusal);
        return NULL;
}

/* The queue of that name; NULL: answered. */
static QueueRecord *found(Handlers *h, const Request *rq, EqBytes name) {
        return named(h, rq, name, false);
}

/* The queue that the caller may control; NULL: answered. */
static QueueRecord *controlled(Handlers *h, const Request *rq, EqBytes name) {
        return named(h, rq, name, true);
}

void handle_queue_create(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqQueueCreate *p = params;
        Caller caller = session_caller(rq->session);
        QueueRecord *q;
        Refusal refusal;
        if (manager_queue_create(h->manager, &caller, p->name, &p->set, p->exist_ok, &q, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                reply_queue(h, rq, q);
}

void handle_queue_set(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqQueueSet *p = params;
        Caller caller = session_caller(rq->session);
        QueueRecord *q = controlled(h, rq, p->name);
        Refusal refusal;
        if (!q)
                return;
        if (manager_queue_set(h->manager, &caller, q, &p->set, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                reply_queue(h, rq, q);
}

/* A page of queues by name, at most half of what a message may hold: clients go on from the last one. */
void handle_queue_list(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqQueueList *p = params;
        _cleanup_free_ QueueRecord **queues = NULL;
        size_t n_queues, i = 0;
        if (queues_sorted(h->manager, &queues, &n_queues) < 0) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        while (EQ_HAS(p, QueueList, from) && i < n_queues && !name_after(queues[i]->queue->name, p->from))
                i++;
        uint64_t limit = EQ_HAS(p, QueueList, limit) ? MIN(p->limit, EQ_LIST_MAX) : EQ_LIST_MAX;
        EqBuffer rows = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&rows);
        uint32_t n = 0;
        for (; i < n_queues && n < limit && rows.len < EQ_MESSAGE_MAX / 2; i++, n++) {
                QueueView v = QUEUE_VIEW_NULL;
                if (view_queue(h->manager, queues[i], &v) < 0)
                        rows.failed = true;
                eq_pack_record(&pk, &eq_schema_Queue, &v.row);
                queue_view_done(&v);
        }
        request_reply_rows(rq, &rows, n);
}

void handle_queue_show(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        QueueRecord *q = found(h, rq, ((const EqQueueName *)params)->name);
        QueueView v = QUEUE_VIEW_NULL;
        if (!q)
                return;
        int r = view_queue(h->manager, q, &v);
        view_queue_store(q, &v);
        reply_view(rq, r, &v);
}

void handle_queue_pause(void *host, const Request *rq, const void *params) {
        QueueRecord *q = controlled(host, rq, ((const EqQueueName *)params)->name);
        if (!q)
                return;
        queue_pause(q->queue);
        manager_queue_changed(q, "paused");
        request_reply_nil(rq);
}

void handle_queue_resume(void *host, const Request *rq, const void *params) {
        QueueRecord *q = controlled(host, rq, ((const EqQueueName *)params)->name);
        if (!q)
                return;
        if (queue_resume(q->queue) != 0) {
                request_error(rq, EQ_E_STATE, "queue %s is not paused", q->queue->name);
                return;
        }
        manager_queue_changed(q, "resumed");
        request_reply_nil(rq);
}

void handle_queue_stop(void *host, const Request *rq, const void *params) {
        QueueRecord *q = controlled(host, rq, ((const EqQueueName *)params)->name);
        if (!q)
                return;
        manager_queue_stop(q);
        request_reply_nil(rq);
}

/* ---- drain, join, flush: answered by the engine, or by their time ---- */

typedef struct QueueWait {
        QueueWaiter waiter;
        Timer timer;
        Handlers *handlers;
        const QueueRecord *queue; /* there until `done` was called */
        PendingRequest *pending;
} QueueWait;

/* lost: the queue that will not come to what was waited for; NULL: it has. What that brought may not be on the disk yet. */
static void reply_over(const Request *rq, const QueueRecord *lost, bool durable) {
        Refusal refusal;
        if (lost && manager_may(EQ_KEEPS_WAITS, lost, &refusal) < 0) {
                request_refused(rq, &refusal);
                return;
        }
        request_reply_nil(rq);
        if (durable)
                request_hold(rq);
}

static void queue_wait_free(QueueWait *w) {
        timer_unset(&w->handlers->manager->timers, &w->timer);
        queue_waiter_cancel(&w->waiter);
        free(w);
}

static void queue_wait_done(QueueWaiter *waiter) {
        QueueWait *w = LIST_ENTRY(waiter, QueueWait, waiter);
        Request rq = w->pending->request;
        reply_over(&rq, waiter->given_up ? w->queue : NULL, manager_is_durable(w->queue));
        pending_request_done(w->pending);
        queue_wait_free(w);
}

static void queue_wait_time_over(Timer *timer) {
        QueueWait *w = HEAP_ENTRY(timer, QueueWait, timer);
        Request rq = w->pending->request;
        request_error(&rq, EQ_E_TIMED_OUT, "the time to wait is over");
        pending_request_done(w->pending);
        queue_wait_free(w);
}

static void queue_wait_gone(PendingRequest *p) {
        queue_wait_free(p->userdata);
}

static int set_wait_timer(QueueWait *w, const EqQueueName *p) {
        Timers *timers = &w->handlers->manager->timers;
        uint64_t now = clock_monotonic(timers->clock);
        if (!EQ_HAS(p, QueueName, timeout_usec) || p->timeout_usec >= USEC_NEVER - now)
                return 0;
        return timer_set(timers, &w->timer, now + p->timeout_usec);
}

/* True if it waits; else it is answered. */
static bool wait_on_queue(Handlers *h, const Request *rq, const EqQueueName *p, QueueRecord *q,
                          void (*wait)(Queue *q, QueueWaiter *w)) {
        QueueWait *w = fault_calloc(1, sizeof(*w));
        if (!w) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return false;
        }
        w->handlers = h;
        w->queue = q;
        w->timer = (Timer)TIMER_NULL(queue_wait_time_over);
        list_init(&w->waiter.link);
        w->waiter.done = queue_wait_done;
        if (set_wait_timer(w, p) < 0) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                free(w);
                return false;
        }
        w->pending = request_defer(rq, queue_wait_gone, w);
        if (!w->pending) { /* answered */
                queue_wait_free(w);
                return false;
        }
        wait(q->queue, &w->waiter); /* may call done at once */
        return true;
}

void handle_queue_drain(void *host, const Request *rq, const void *params) {
        QueueRecord *q = controlled(host, rq, ((const EqQueueName *)params)->name);
        if (!q)
                return;
        if (wait_on_queue(host, rq, params, q, queue_drain))
                manager_event_queue(((Handlers *)host)->manager, EQ_EVENT_QUEUE_CHANGED, q, "draining");
}

void handle_queue_join(void *host, const Request *rq, const void *params) {
        QueueRecord *q = found(host, rq, ((const EqQueueName *)params)->name);
        if (q)
                wait_on_queue(host, rq, params, q, queue_join);
}

void handle_queue_flush(void *host, const Request *rq, const void *params) {
        QueueRecord *q = found(host, rq, ((const EqQueueName *)params)->name);
        if (q)
                wait_on_queue(host, rq, params, q, queue_flush);
}

/* ---- rm ---- */

typedef struct QueueRemoval {
        RemoveWaiter waiter;
        const QueueRecord *queue; /* there until it is removed */
        bool durable;
        PendingRequest *pending; /* NULL: the client has gone, the removal goes on */
} QueueRemoval;

static void removal_done(RemoveWaiter *waiter) {
        QueueRemoval *w = LIST_ENTRY(waiter, QueueRemoval, waiter);
        if (w->pending) {
                Request rq = w->pending->request;
                reply_over(&rq, waiter->given_up ? w->queue : NULL, w->durable);
                pending_request_done(w->pending);
        }
        free(w);
}

static void removal_gone(PendingRequest *p) {
        QueueRemoval *w = p->userdata;
        w->pending = NULL;
}

void handle_queue_rm(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqQueueRm *p = params;
        QueueRecord *q = controlled(h, rq, p->name);
        if (!q)
                return;
        Refusal refusal;
        QueueRemoval *w = fault_calloc(1, sizeof(*w));
        if (!w) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        list_init(&w->waiter.link);
        w->waiter.done = removal_done;
        w->queue = q;
        w->durable = manager_is_durable(q);
        w->pending = request_defer(rq, removal_gone, w);
        if (!w->pending) {
                free(w);
                return;
        }
        if (manager_queue_rm(h->manager, q, p->yes, &w->waiter, &refusal) < 0) {
                Request answer = w->pending->request;
                request_refused(&answer, &refusal);
                pending_request_done(w->pending);
                free(w);
        }
}

void handle_touch(void *host, const Request *rq, const void *params) {
        const Manager *m = ((Handlers *)host)->manager;
        if (m->hooks->touch)
                m->hooks->touch(m->host);
        request_reply_nil(rq);
}

static void reply_reload(const Handlers *h, const Request *rq, uint64_t waits) {
        _cleanup_(eq_buffer_done) EqBuffer names = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&names);
        EqReloadReply reply = { 0 };
        Tunable t;
        uint32_t n = 0;
        for (size_t i = 0; i < PARAM_MAX && manager_tunable(h->manager, i, &t); i++)
                if (waits >> i & 1) {
                        ParamView v;
                        view_param(&t, &v);
                        eq_pack_str(&pk, v.row.name);
                        n++;
                }
        EQ_SET(&reply, ReloadReply, waits, (EqArray) { .raw = eq_bytes(names.data, names.len), .n = n });
        if (names.failed)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else
                request_reply_record(rq, &eq_schema_ReloadReply, &reply);
}

void handle_reload(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        Refusal refusal;
        uint64_t waits;
        if (manager_reload(h->manager, &waits, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                reply_reload(h, rq, waits);
}
