/* SPDX-License-Identifier: MIT */
/* Methods that show tasks, and the one that waits for them. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "manager/view.h"
#include "server/handlers.h"

/* ---- show, why ---- */

static void pack_task(Handlers *h, msgpack_packer *pk, const TaskRecord *t) {
        TaskView v;
        view_task(h->manager, t, &v);
        eq_pack_record(pk, &eq_schema_Task, &v.row);
}

/* With its result, unless those of the reply come to too many bytes: then `show` of that task alone has it. */
static void pack_task_with_result(Handlers *h, msgpack_packer *pk, const TaskRecord *t, size_t *n_bytes) {
        TaskView v;
        view_task(h->manager, t, &v);
        *n_bytes += t->run ? t->run->n_result : 0;
        if (*n_bytes < EQ_MESSAGE_MAX / 2)
                view_task_result(t, &v);
        eq_pack_record(pk, &eq_schema_Task, &v.row);
}

static void pack_why(Handlers *h, msgpack_packer *pk, const TaskRecord *t) {
        WhyView v;
        view_why(h->manager, t, &v);
        eq_pack_record(pk, &eq_schema_Why, &v.row);
}

static void reply_rows(Handlers *h, const Request *rq, EqArray ids, bool why) {
        _cleanup_free_ TaskRecord **tasks = NULL;
        size_t n_bytes = 0;
        if (request_find_tasks(h, rq, ids, false, &tasks) < 0)
                return;
        ReplyWriter w;
        request_reply_begin(rq, &w);
        msgpack_pack_array(&w.packer, ids.n);
        for (uint32_t i = 0; i < ids.n; i++)
                if (why)
                        pack_why(h, &w.packer, tasks[i]);
                else
                        pack_task_with_result(h, &w.packer, tasks[i], &n_bytes);
        request_reply_end(rq, &w);
}

void handle_show(void *host, const Request *rq, const void *params) {
        reply_rows(host, rq, ((const EqTasks *)params)->ids, false);
}

void handle_why(void *host, const Request *rq, const void *params) {
        reply_rows(host, rq, ((const EqTasks *)params)->ids, true);
}

void handle_stat(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        EqStat stat;
        view_stat(h->manager, h->server->n_sessions, &stat);
        request_reply_record(rq, &eq_schema_Stat, &stat);
}

typedef struct FlightRows {
        EqBuffer buffer;
        msgpack_packer packer;
        uint32_t n;
} FlightRows;

static void add_flight(void *userdata, const EqInFlight *row) {
        FlightRows *w = userdata;
        eq_pack_record(&w->packer, &eq_schema_InFlight, row);
        w->n++;
}

void handle_in_flight(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqInFlightList *p = params;
        Caller caller = session_caller(rq->session);
        QueueRecord *q = NULL;
        Refusal refusal;
        if (EQ_HAS(p, InFlightList, queue) && manager_find_queue(h->manager, p->queue, &q, &refusal) < 0) {
                request_refused(rq, &refusal);
                return;
        }
        FlightRows w = { .buffer = EQ_BUFFER_NULL };
        w.packer = eq_packer(&w.buffer);
        view_in_flight(h->manager, &caller, q, p->from, EQ_HAS(p, InFlightList, limit) ? p->limit : FLIGHTS_MAX,
                       add_flight, &w);
        request_reply_rows(rq, &w.buffer, w.n);
}

/* ---- list ---- */

static int parse_states(EqArray states, uint32_t *ret, const Request *rq) {
        EqBytes name;
        *ret = 0;
        while (eq_next_bytes(&states, &name) > 0) {
                eq_state s = eq_state_find(name);
                if (s == _EQ_STATE_INVALID) {
                        request_error(
                                rq, EQ_E_INVALID,
                                "states: one of WAITING QUEUED RUNNING DONE FAILED TIMEOUT CANCELED EXPIRED DEAD");
                        return -EINVAL;
                }
                *ret |= 1U << s;
        }
        return 0;
}

/* Where to go on. The row itself may be gone by now; its queue must not be. */
static int parse_from(Handlers *h, const EqIdRef *from, ListFilter *f, Refusal *r) {
        EqBytes name;
        if (from->text.len == 0) {
                const Queue *q = engine_queue(&h->manager->engine, from->id.queue);
                if (!q)
                        return refuse(r, EQ_E_STALE, -ENOENT, "from: the queue was removed; start the list anew");
                f->from_queue = queue_record(q);
                f->from_seq = from->id.seq;
                return 0;
        }
        if (eq_id_parse(from->text, &name, &f->from_seq) < 0)
                return refuse(r, EQ_E_INVALID, -EINVAL, "from: a task id is QUEUE/SEQ");
        return manager_find_queue(h->manager, name, &f->from_queue, r);
}

static int parse_filter(Handlers *h, const Request *rq, const EqList *p, ListFilter *ret) {
        Refusal refusal;
        int r = 0;
        *ret = (ListFilter) { .args = p };
        if (EQ_HAS(p, List, states) && parse_states(p->states, &ret->states, rq) < 0)
                return -EINVAL;
        if (EQ_HAS(p, List, queue))
                r = manager_find_queue(h->manager, p->queue, &ret->queue, &refusal);
        if (r >= 0 && EQ_HAS(p, List, from))
                r = parse_from(h, &p->from, ret, &refusal);
        if (r < 0)
                request_refused(rq, &refusal);
        return r;
}

typedef struct RowCollector {
        const TaskRecord *rows[EQ_LIST_MAX];
        size_t n;
} RowCollector;

static void collect(void *userdata, const TaskRecord *t) {
        RowCollector *c = userdata;
        c->rows[c->n++] = t;
}

/* Rows until the reply has reached half of what a message may hold: clients go on from the last one. */
void handle_list(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqList *p = params;
        Caller caller = session_caller(rq->session);
        ListFilter f;
        if (parse_filter(h, rq, p, &f) < 0)
                return;
        _cleanup_free_ RowCollector *c = fault_calloc(1, sizeof(*c));
        uint64_t limit = EQ_HAS(p, List, limit) ? MIN(p->limit, EQ_LIST_MAX) : EQ_LIST_MAX;
        if (!c || view_list(h->manager, &caller, &f, limit, collect, c) < 0) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        EqBuffer rows = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&rows);
        uint32_t n = 0;
        while (n < c->n && rows.len < EQ_MESSAGE_MAX / 2)
                pack_task(h, &pk, c->rows[n++]);
        request_reply_rows(rq, &rows, n);
}

/* ---- wait ---- */

typedef struct WaitRequest {
        Handlers *handlers;
        PendingRequest *pending;
        TaskWait *wait;
} WaitRequest;

static void reply_waited(Handlers *h, const Request *rq, const TaskWait *wait) {
        ReplyWriter w;
        uint32_t n = 0;
        size_t n_bytes = 0;
        for (size_t i = 0; i < wait->n; i++)
                n += task_record_finished(wait->waiters[i].task);
        request_reply_begin(rq, &w);
        msgpack_pack_array(&w.packer, n);
        for (size_t i = 0; i < wait->n; i++)
                if (task_record_finished(wait->waiters[i].task))
                        pack_task_with_result(h, &w.packer, wait->waiters[i].task, &n_bytes);
        request_reply_end(rq, &w);
}

static void wait_done(TaskWait *wait, bool timed_out) {
        WaitRequest *r = wait->userdata;
        Request rq = r->pending->request;
        if (timed_out)
                request_error(&rq, EQ_E_TIMED_OUT, "the time to wait is over; %zu of %zu tasks have not ended",
                              wait->n_left, wait->n);
        else
                reply_waited(r->handlers, &rq, wait);
        pending_request_done(r->pending);
        task_wait_free(wait);
        free(r);
}

static void wait_gone(PendingRequest *p) {
        WaitRequest *r = p->userdata;
        task_wait_free(r->wait);
        free(r);
}

void handle_wait(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqWait *p = params;
        _cleanup_free_ TaskRecord **tasks = NULL;
        if (request_find_tasks(h, rq, p->ids, false, &tasks) < 0)
                return;
        _cleanup_free_ WaitRequest *r = fault_calloc(1, sizeof(*r));
        bool done_now;
        TaskWait *wait;
        uint64_t timeout = EQ_HAS(p, Wait, timeout_usec) ? p->timeout_usec : USEC_NEVER;
        if (!r || task_wait_new(h->manager, tasks, p->ids.n, p->any, timeout, wait_done, r, &wait, &done_now) < 0) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        if (done_now) {
                reply_waited(h, rq, wait);
                task_wait_free(wait);
                return;
        }
        r->handlers = h;
        r->wait = wait;
        r->pending = request_defer(rq, wait_gone, r);
        if (r->pending)
                r = NULL; /* the waiting has it */
        else
                task_wait_free(wait);
}
