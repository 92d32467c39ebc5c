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

/* With its result, and with its payload if that is wanted, unless those of the reply come to too many bytes: then `show` of that
 * task alone has them. */
static void pack_task_with_bytes(Handlers *h, msgpack_packer *pk, const TaskRecord *t, bool payload, size_t *n_bytes) {
        TaskView v;
        view_task(h->manager, t, &v);
        *n_bytes += (t->run ? t->run->n_result : 0) + (payload ? t->spec.payload_len : 0);
        if (*n_bytes < EQ_MESSAGE_MAX / 2)
                view_task_result(t, &v);
        if (*n_bytes < EQ_MESSAGE_MAX / 2 && payload)
                view_task_payload(t, &v);
        eq_pack_record(pk, &eq_schema_Task, &v.row);
}

static void pack_why(Handlers *h, msgpack_packer *pk, const TaskRecord *t) {
        WhyView v;
        view_why(h->manager, t, &v);
        eq_pack_record(pk, &eq_schema_Why, &v.row);
}

void handle_show(void *host, const Request *rq, const void *params) {
        const EqShow *p = params;
        _cleanup_free_ TaskRecord **tasks = NULL;
        size_t n_bytes = 0;
        if (request_find_tasks(host, rq, p->ids, false, &tasks) < 0)
                return;
        ReplyWriter w;
        request_reply_begin(rq, &w);
        msgpack_pack_array(&w.packer, p->ids.n);
        for (uint32_t i = 0; i < p->ids.n; i++)
                pack_task_with_bytes(host, &w.packer, tasks[i], p->payload, &n_bytes);
        request_reply_end(rq, &w);
}

void handle_why(void *host, const Request *rq, const void *params) {
        const EqTasks *p = params;
        _cleanup_free_ TaskRecord **tasks = NULL;
        if (request_find_tasks(host, rq, p->ids, false, &tasks) < 0)
                return;
        ReplyWriter w;
        request_reply_begin(rq, &w);
        msgpack_pack_array(&w.packer, p->ids.n);
        for (uint32_t i = 0; i < p->ids.n; i++)
                pack_why(host, &w.packer, tasks[i]);
        request_reply_end(rq, &w);
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
                        request_error_with(
                                rq, EQ_E_INVALID, &ERROR_FIELD("states"),
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
        QueueRecord *q;
        if (from->text.len == 0) {
                const Queue *queue = engine_queue(&h->manager->engine, from->id.queue);
                if (!queue)
                        return refuse(r, EQ_E_STALE, -ENOENT, "from: the queue was removed; start the list anew");
                strcpy(f->from_queue, queue->name);
                f->from_seq = from->id.seq;
                return 0;
        }
        if (eq_id_parse(from->text, &name, &f->from_seq) < 0)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "from", "a task id is QUEUE/SEQ");
        int e = manager_find_queue(h->manager, name, &q, r);
        if (e < 0)
                return refusal_of_field(r, "from", e);
        strcpy(f->from_queue, q->queue->name);
        return 0;
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

/* A list whose next rows are being read from the store. */
typedef struct ListRequest {
        Handlers *handlers;
        PendingRequest *pending; /* NULL: it has not had to wait yet */
        uint64_t limit;
        uint32_t n;
        EqBuffer rows;
        char from_queue[EQ_NAME_MAX + 1]; /* as in ListFilter: behind the last task that was looked at */
        uint64_t from_seq;
        WindowPeek *peek; /* the store's until it is done; NULL: none */
        uint32_t len;
        char params[];
} ListRequest;

static void list_free(ListRequest *l) {
        window_peek_free(l->peek);
        eq_buffer_done(&l->rows);
        free(l);
}

static void list_gone(PendingRequest *p) {
        ListRequest *l = p->userdata;
        l->peek->owner = NULL; /* frees itself */
        l->peek = NULL;
        list_free(l);
}

/* Rows until the reply has reached half of what a message may hold: clients go on from the last one. */
static bool add_row(void *userdata, const TaskRecord *t) {
        ListRequest *l = userdata;
        msgpack_packer pk = eq_packer(&l->rows);
        pack_task(l->handlers, &pk, t);
        return ++l->n < l->limit && l->rows.len < EQ_MESSAGE_MAX / 2;
}

static void list_read(WindowPeek *p);

/* Goes on with it. True: it has to wait. */
static bool list_step(ListRequest *l, const Request *rq, ListFilter *f) {
        Handlers *h = l->handlers;
        Caller caller = session_caller(rq->session);
        WindowPeek *unread = NULL;
        f->peek = l->peek;
        int r = l->limit > 0 ? view_list(h->manager, &caller, f, add_row, l, &unread) : 0;
        window_peek_free(l->peek);
        l->peek = unread;
        if (r < 0)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else if (!unread)
                request_reply_rows(rq, &l->rows, l->n);
        if (r < 0 || !unread)
                return false;
        if (!l->pending && !(l->pending = request_defer(rq, list_gone, l)))
                return false;
        strcpy(l->from_queue, f->from_queue);
        l->from_seq = f->from_seq;
        unread->owner = l;
        unread->done = list_read;
        window_peek(h->manager, unread);
        return true;
}

static void list_read(WindowPeek *p) {
        ListRequest *l = p->owner;
        Request rq = l->pending->request;
        EqDecodeError error;
        EqList list;
        ListFilter f;
        if (eq_decode_params(&eq_schema_List, eq_bytes(l->params, l->len), &list, &error) < 0)
                request_error(&rq, EQ_E_INVALID, "%s", error.text); /* never: it was decoded before */
        else {
                list.present &= ~EQ_BIT(List, from); /* it has come further, and that queue may be gone */
                if (parse_filter(l->handlers, &rq, &list, &f) >= 0) {
                        strcpy(f.from_queue, l->from_queue);
                        f.from_seq = l->from_seq;
                        if (list_step(l, &rq, &f))
                                return;
                }
        }
        pending_request_done(l->pending);
        list_free(l);
}

void handle_list(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqList *p = params;
        ListFilter f;
        if (parse_filter(h, rq, p, &f) < 0)
                return;
        ListRequest *l = fault_calloc(1, sizeof(*l) + rq->params.len);
        if (!l) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        l->handlers = h;
        l->limit = EQ_HAS(p, List, limit) ? MIN(p->limit, EQ_LIST_MAX) : EQ_LIST_MAX;
        l->len = rq->params.len;
        memcpy(l->params, rq->params.data, rq->params.len);
        if (!list_step(l, rq, &f))
                list_free(l);
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
                n += task_wait_has(wait, wait->waiters[i].task);
        request_reply_begin(rq, &w);
        msgpack_pack_array(&w.packer, n);
        for (size_t i = 0; i < wait->n; i++)
                if (task_wait_has(wait, wait->waiters[i].task))
                        pack_task_with_bytes(h, &w.packer, wait->waiters[i].task, false, &n_bytes);
        request_reply_end(rq, &w);
}

static void reply_lost(const Request *rq, const TaskWait *wait) {
        request_error(rq, EQ_E_STORE,
                      "the store has failed, so the ends of %zu of %zu tasks will not be told by this eqd; see the "
                      "journal, mend the disk, restart eqd, and wait again",
                      wait->n_left, wait->n);
}

static void wait_done(TaskWait *wait, TaskWaitEnd end) {
        WaitRequest *r = wait->userdata;
        Request rq = r->pending->request;
        if (end == TASK_WAIT_LOST)
                reply_lost(&rq, wait);
        else if (end == TASK_WAIT_TIMED_OUT)
                request_error(&rq, EQ_E_TIMED_OUT, "the time to wait is over; %zu of %zu tasks %s", wait->n_left,
                              wait->n, wait->started ? "do not run" : "have not ended");
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
        TaskWaitFlags flags = (p->any ? TASK_WAIT_ANY : 0) | (p->started ? TASK_WAIT_STARTED : 0);
        if (!r || task_wait_new(h->manager, tasks, p->ids.n, flags, timeout, wait_done, r, &wait, &done_now) < 0) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        if (done_now) {
                reply_waited(h, rq, wait);
                task_wait_free(wait);
                return;
        }
        if (task_wait_is_lost(wait)) {
                reply_lost(rq, wait);
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
