/* SPDX-License-Identifier: MIT */
/* Connections that are workers: requests go the other way here, from eqd to the client, and its responses come back by
 * their msgid. The worker lives as long as its connection; both end here, in this order. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "manager/view.h"
#include "proto/memfd.h"
#include "server/handlers.h"
#include "server/output.h"
#include "server/peer.h"

/* Descriptors cost the machine more than bytes: memory that eqd is charged for until the worker closes them. */
enum { RUN_FDS_PER_WORKER = SESSION_OUT_FDS_MAX, RUN_FDS_MAX = 256 };

/* An answer that is to be confirmed when the store has come to `until`. */
typedef struct Answered {
        uint64_t until; /* 0: what it was is not durable */
        LeaseName lease;
} Answered;

/* Session::worker. */
typedef struct SessionWorker {
        Handlers *handlers;
        Session *session;
        RemoteWorker *worker;
        PendingRequest *leave; /* worker_leave that waits for the last answer, and the store; NULL: none */
        List storing_link;     /* Handlers::storing: kept_at may not be durable, and it is to be told */
        uint64_t kept_at;      /* position of what became of its last answer to a durable queue */
        bool confirms;
        PeerWatch *peer;   /* ends the session with the process that connected; NULL: it is not watched */
        EqBuffer answered; /* of Answered, `until` 0 */
        EqBuffer storing;  /* of Answered, `until` rises */
        uint32_t run_fds[RUN_FDS_PER_WORKER]; /* msgids of unanswered requests that brought a descriptor */
        unsigned n_run_fds;
} SessionWorker;

/* ---- what the executor asks ---- */

/* The payload as a descriptor, where that is worth it, the worker takes them and has room. -1: as bytes, which always works. */
static int make_run_fd(const SessionWorker *sw, const WorkerOrder *o) {
        int fd = -1;
        if (o->payload.len > EQ_PAYLOAD_FD_MIN && session_has_out_fd_room(sw->session) &&
            sw->n_run_fds < RUN_FDS_PER_WORKER && sw->handlers->n_run_fds < RUN_FDS_MAX)
                (void)eq_memfd_new(o->payload, &fd);
        return fd;
}

static void count_run_fd(SessionWorker *sw, uint32_t msgid) {
        sw->run_fds[sw->n_run_fds++] = msgid;
        sw->handlers->n_run_fds++;
}

static void run_fd_answered(SessionWorker *sw, uint32_t msgid) {
        for (unsigned i = 0; i < sw->n_run_fds; i++)
                if (sw->run_fds[i] == msgid) {
                        sw->run_fds[i] = sw->run_fds[--sw->n_run_fds];
                        sw->handlers->n_run_fds--;
                        return;
                }
}

static void write_run(Session *s, msgpack_packer *pk, uint32_t msgid, const WorkerOrder *o, bool with_fd) {
        EqRun rec = { 0 };
        rec.id.id = o->id;
        rec.queue = eq_str(o->queue);
        rec.attempt = o->attempt;
        if (with_fd)
                EQ_SET(&rec, Run, payload_fd, true);
        else
                rec.payload = o->payload;
        if (o->label.len > 0)
                EQ_SET(&rec, Run, label, o->label);
        if (o->mime.len > 0)
                EQ_SET(&rec, Run, mime, o->mime);
        if (o->uid != s->identity->uid)
                EQ_SET(&rec, Run, uid, o->uid);
        if (o->timeout_usec != 0 && o->timeout_usec != USEC_NEVER) {
                EQ_SET(&rec, Run, timeout_usec, o->timeout_usec);
                EQ_SET(&rec, Run, grace_usec, o->grace_usec);
        }
        EqBuffer *b = session_call_room(s, EQ_RUN_MAX + rec.queue.len + rec.payload.len);
        if (b)
                eq_put_run(b, msgid, &rec);
        eq_pack_options(pk, &eq_schema_Run, &rec);
}

static int client_run(void *client, uint32_t msgid, const WorkerOrder *o) {
        SessionWorker *sw = client;
        Session *s = sw->session;
        NotifyWriter w;
        session_call_begin(s, &w);
        if (w.dropped)
                return WORKER_GONE;
        w.fd = make_run_fd(sw, o);
        bool with_fd = w.fd >= 0;
        write_run(s, &w.packer, msgid, o, with_fd);
        int r = session_call_end(s, &w);
        if (r < 0) {
                close_fd(w.fd);
                return r;
        }
        if (with_fd)
                count_run_fd(sw, msgid);
        if (remote_worker_in_flight(sw->worker) == 1)
                session_send_promptly(s); /* it had nothing to do */
        return s->gone ? WORKER_GONE : session_is_clogged(s) ? WORKER_SENT_FULL : WORKER_SENT;
}

static void client_cancel(void *client, eq_task_id id, uint16_t attempt, const char *reason, uint64_t grace_usec) {
        SessionWorker *sw = client;
        NotifyWriter w;
        session_notify_begin(sw->session, "run_cancel", true, &w);
        if (!w.dropped) {
                msgpack_pack_array(&w.packer, 4);
                eq_pack_id(&w.packer, id);
                msgpack_pack_uint16(&w.packer, attempt);
                eq_pack_cstr(&w.packer, reason);
                msgpack_pack_uint64(&w.packer, grace_usec);
        }
        session_notify_end(sw->session, &w);
}

/* Owed, as an answer is: the worker may wait for what became of its response. There is one at most for each message that it
 * sent, and none is read from a client whose output is full. */
static void send_refused(Session *s, uint32_t msgid, eq_error code, const char *text, const EqErrorDetails *details) {
        NotifyWriter w;
        session_notify_begin(s, "run_refused", true, &w);
        if (!w.dropped) {
                msgpack_pack_array(&w.packer, 2);
                msgpack_pack_uint32(&w.packer, msgid);
                eq_pack_error_value(&w.packer, code, text, details);
        }
        session_notify_end(s, &w);
}

static void client_refused(void *client, uint32_t msgid, eq_error code, const char *text,
                           const EqErrorDetails *details) {
        send_refused(((SessionWorker *)client)->session, msgid, code, text, details);
}

static const WorkerClientOps client_ops = {
        .run = client_run,
        .cancel = client_cancel,
        .refused = client_refused,
};

/* ---- what is kept of answers ---- */

enum { CONFIRMED_MAX = 65536 }; /* in one message, which then is far below EQ_MESSAGE_MAX */

/* An answer has changed what the store is to keep, or nothing of it. All of what it changed is at `until` or before. */
static void note_answer(SessionWorker *sw, const LeaseName *lease, uint64_t until) {
        Answered a = { .until = until, .lease = *lease };
        if (until > 0)
                sw->kept_at = until;
        if (sw->confirms && eq_buffer_append(until > 0 ? &sw->storing : &sw->answered, &a, sizeof(a)) < 0)
                output_doom(sw->session, "out of memory for a confirmation");
        if (until > 0 && (sw->confirms || sw->leave) && list_is_empty(&sw->storing_link))
                list_append(&sw->handlers->storing, &sw->storing_link);
}

static size_t n_due(const SessionWorker *sw, const EqBuffer *b) {
        const Answered *a = (const Answered *)b->data;
        size_t n = b->len / sizeof(*a), due = 0;
        while (due < n && due < CONFIRMED_MAX && a[due].until <= sw->session->server->durable)
                due++;
        return due;
}

static void pack_answered(msgpack_packer *pk, EqBuffer *b, size_t n) {
        const Answered *a = (const Answered *)b->data;
        for (size_t i = 0; i < n; i++) {
                msgpack_pack_array(pk, 2);
                eq_pack_id(pk, a[i].lease.id);
                msgpack_pack_uint16(pk, a[i].lease.attempt);
        }
        eq_buffer_consume(b, n * sizeof(*a));
}

/* All that can be, in one message: it costs one for as many answers as a turn, or a sync of the store, has brought. */
static void write_confirmed(SessionWorker *sw) {
        for (;;) {
                size_t n = n_due(sw, &sw->answered), m = n_due(sw, &sw->storing);
                NotifyWriter w;
                if (n + m == 0)
                        return;
                session_notify_begin(sw->session, "run_confirmed", true, &w);
                msgpack_pack_array(&w.packer, 1);
                msgpack_pack_array(&w.packer, n + m);
                pack_answered(&w.packer, &sw->answered, n);
                pack_answered(&w.packer, &sw->storing, m);
                session_notify_end(sw->session, &w);
        }
}

/* Replies to worker_leave when nothing is to be answered any more and what was is kept; confirmations come before. */
static void settle_leave(SessionWorker *sw) {
        const Server *server = sw->session->server;
        PendingRequest *p = sw->leave;
        bool kept = sw->kept_at <= server->durable;
        if (!p || remote_worker_in_flight(sw->worker) > 0 || (!kept && !server->not_durable))
                return;
        sw->leave = NULL;
        write_confirmed(sw);
        if (kept)
                request_reply_nil(&p->request);
        else
                request_error(
                        &p->request, EQ_E_STORE,
                        "the store has failed: tasks of durable queues that this worker answered last may come again");
        pending_request_done(p);
}

void workers_durable(Handlers *h) {
        LIST_FOREACH_SAFE (l, &h->storing) {
                SessionWorker *sw = LIST_ENTRY(l, SessionWorker, storing_link);
                settle_leave(sw);
                if (sw->kept_at <= h->server->durable)
                        list_remove(l);
                if (sw->storing.len > 0)
                        session_schedule_flush(sw->session); /* which confirms what is due */
        }
}

/* ---- methods of workers ---- */

/* NULL: this connection is none; then it was answered. */
static SessionWorker *own_worker(const Request *rq) {
        SessionWorker *sw = rq->session->worker;
        if (!sw)
                request_error(rq, EQ_E_NO_WORKER, "this connection is no worker; worker_serve makes it one");
        return sw;
}

static void on_peer_ended(void *userdata) {
        session_peer_ended(((SessionWorker *)userdata)->session);
}

/* Its leases end with the process that connected unless it hands the connection on: a child that has inherited it would keep the
 * connection, and with it the tasks of a worker that is gone. False: it is gone, and that was answered. */
static bool watch_peer(SessionWorker *sw, const Request *rq, const EqWorkerServe *p) {
        Session *s = rq->session;
        if (p->handed_on) {
                sw->peer = peer_watch_free(sw->peer);
                return true;
        }
        if (sw->peer || (s->worker && !EQ_HAS(p, WorkerServe, handed_on)))
                return true;
        int r = peer_watch_new(s->server->loop, s->fd, s->pid, s->accepted_usec, on_peer_ended, sw, &sw->peer);
        if (r == PEER_E_ENDED)
                request_error(
                        rq, EQ_E_STATE,
                        "the process that opened this connection has ended; connect in the one that works, or say "
                        "handed_on=true");
        else if (r < 0)
                log_debug("session %llu: its process cannot be watched: %s", (unsigned long long)s->number,
                          strerror(-r));
        return r <= 0;
}

void handle_worker_serve(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        Session *s = rq->session;
        SessionWorker *sw = s->worker ?: fault_calloc(1, sizeof(*sw));
        Caller caller = session_caller(s);
        Refusal refusal;
        if (!sw) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        WorkerSetup setup = { .number = s->number,
                              .identity = s->identity,
                              .pid = s->pid,
                              .admin = s->admin,
                              .ops = &client_ops,
                              .client = sw };
        if (!s->worker)
                list_init(&sw->storing_link);
        sw->handlers = h;
        sw->session = s;
        if (!watch_peer(sw, rq, params)) {
                if (!s->worker)
                        free(sw);
                return;
        }
        engine_hold(
                &h->manager
                         ->engine); /* the answer first, then tasks: a simple client waits for it and for nothing else */
        if (manager_worker_serve(h->manager, &caller, &setup, params, &sw->worker, &refusal) < 0) {
                if (!s->worker) {
                        peer_watch_free(sw->peer);
                        free(sw);
                }
                request_refused(rq, &refusal);
        } else {
                EqWorkerServeReply reply = { 0 };
                const EqWorkerServe *p = params;
                s->worker = sw;
                if (EQ_HAS(p, WorkerServe, confirm))
                        sw->confirms = p->confirm;
                if (p->payload_fd)
                        (void)session_allow_out_fds(s); /* without memory: as bytes */
                EQ_SET(&reply, WorkerServeReply, worker, s->number);
                request_reply_record(rq, &eq_schema_WorkerServeReply, &reply);
        }
        engine_unhold(&h->manager->engine);
}

void handle_worker_credit(void *host, const Request *rq, const void *params) {
        const EqWorkerCredit *p = params;
        SessionWorker *sw = own_worker(rq);
        if (!sw)
                return;
        if (EQ_HAS(p, WorkerCredit, parallel) && p->parallel == 0) {
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("parallel"),
                                   "parallel: a worker runs at least one task at once");
                return;
        }
        request_reply_nil(rq); /* before what that brings */
        remote_worker_set_credit(sw->worker, (uint32_t)p->credit,
                                 EQ_HAS(p, WorkerCredit, parallel) ? (uint32_t)p->parallel : sw->worker->parallel);
}

static void leave_gone(PendingRequest *p) {
        SessionWorker *sw = p->userdata;
        if (sw) /* else it was kicked */
                sw->leave = NULL;
}

void handle_worker_leave(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        SessionWorker *sw = own_worker(rq);
        if (!sw)
                return;
        if (sw->leave) {
                request_error(rq, EQ_E_STATE, "this worker is leaving already; the first worker_leave is answered");
                return;
        }
        remote_worker_leave(sw->worker);
        sw->leave = request_defer(rq, leave_gone, sw);
        if (sw->leave && list_is_empty(&sw->storing_link) && sw->kept_at > sw->session->server->durable)
                list_append(&h->storing, &sw->storing_link);
        settle_leave(sw);
}

void handle_worker_touch(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        SessionWorker *sw = own_worker(rq);
        Caller caller = session_caller(rq->session);
        Refusal refusal;
        if (!sw)
                return;
        if (manager_worker_touch(h->manager, &caller, sw->worker, params, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                request_reply_nil(rq);
}

/* ---- looking at them ---- */

static bool is_visible(const Session *s, const RemoteWorker *w) {
        return s->admin || s->identity->uid == w->identity->uid;
}

void handle_worker_list(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqWorkerList *p = params;
        EqBuffer rows = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&rows);
        uint64_t limit = EQ_HAS(p, WorkerList, limit) ? p->limit : EQ_LIST_MAX;
        uint32_t n = 0;
        LIST_FOREACH (l, &h->manager->workers->workers) {
                const RemoteWorker *w = LIST_ENTRY(l, RemoteWorker, link);
                const SessionWorker *sw = w->client;
                WorkerView v;
                if (n == limit)
                        break;
                if (!is_visible(rq->session, w) || (EQ_HAS(p, WorkerList, from) && w->number <= p->from))
                        continue;
                if (view_worker(h->manager, w, &v) < 0)
                        rows.failed = true;
                EQ_SET(&v.row, Worker, unread_bytes, output_pending(sw->session));
                eq_pack_record(&pk, &eq_schema_Worker, &v.row);
                worker_view_done(&v);
                n++;
        }
        request_reply_rows(rq, &rows, n);
}

static void end_worker(SessionWorker *sw, bool kicked) {
        sw->session->worker = NULL;
        sw->handlers->n_run_fds -= sw->n_run_fds;
        list_remove(&sw->storing_link);
        peer_watch_free(sw->peer);
        eq_buffer_done(&sw->answered);
        eq_buffer_done(&sw->storing);
        manager_worker_end(sw->handlers->manager, sw->worker, kicked);
        free(sw);
}

void handle_worker_kick(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqWorkerKick *p = params;
        const RemoteWorker *w = manager_worker(h->manager, p->worker);
        if (!w || !is_visible(rq->session, w)) {
                EqErrorDetails details = { 0 };
                EQ_SET(&details, ErrorDetails, worker, p->worker);
                request_error_with(rq, EQ_E_NO_WORKER, &details, "no worker %llu%s; eqctl worker ls lists them",
                                   (unsigned long long)p->worker, rq->session->admin ? "" : " of yours");
                return;
        }
        SessionWorker *sw = w->client;
        Session *s = sw->session;
        request_reply_nil(rq);
        if (sw->leave)
                sw->leave->userdata = NULL; /* ends with the session */
        end_worker(sw, true);
        output_doom(s, "kicked");
}

/* ---- sessions ---- */

void worker_session_response(Handlers *h, Session *s, const EqMessage *m) {
        SessionWorker *sw = s->worker;
        LeaseName lease;
        if (!sw) {
                send_refused(s, m->msgid, EQ_E_NO_LEASE, "eqd asked nothing of this connection", NULL);
                return;
        }
        const uint64_t *written = h->server->written;
        uint64_t before = written ? *written : 0;
        run_fd_answered(sw, m->msgid);
        if (remote_worker_answer(sw->worker, m->msgid, m->error, m->result, &lease))
                note_answer(sw, &lease, written && *written != before ? *written : 0);
        settle_leave(sw);
}

void worker_session_flushing(Handlers *h, Session *s) {
        write_confirmed(s->worker);
}

void worker_session_closed(Handlers *h, Session *s) {
        if (s->worker)
                end_worker(s->worker, false);
}

void worker_session_unclogged(Handlers *h, Session *s) {
        SessionWorker *sw = s->worker;
        if (sw)
                remote_worker_unclogged(sw->worker);
}
