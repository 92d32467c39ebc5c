/* SPDX-License-Identifier: MIT */
/* What flows to a client without being asked for each time: output of tasks, and events.
 *
 * Output to the client that submitted a task with `attach` is complete: while he does not read, the task's pipes are not
 * read either. Everybody else's is dropped when he is slow, and `lost` says how much. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "server/handlers.h"

/* All that one session listens to: Session::subscription. */
typedef struct Subscription {
        List link;      /* Handlers::subscriptions, while it wants events */
        List followers; /* of SessionFollower::link_of_session */
        Session *session;
        uint64_t events;             /* 1 << eq_event; 0: none */
        char queue[EQ_NAME_MAX + 1]; /* empty: all */
} Subscription;

typedef struct SessionFollower {
        Follower follower;
        List link_of_session; /* Subscription::followers */
        Handlers *handlers;
        Session *session;
        eq_task_id id;
} SessionFollower;

static Subscription *subscription(Session *s) {
        Subscription *sub = s->subscription;
        if (sub)
                return sub;
        sub = fault_calloc(1, sizeof(*sub));
        if (!sub)
                return NULL;
        list_init(&sub->link);
        list_init(&sub->followers);
        sub->session = s;
        s->subscription = sub;
        return sub;
}

/* ---- output ---- */

static bool follower_output(Follower *f, uint16_t attempt, uint8_t stream, const char *data, size_t n) {
        SessionFollower *sf = (SessionFollower *)f;
        NotifyWriter w;
        session_notify_begin(sf->session, "output", f->must, &w);
        if (!w.dropped) {
                msgpack_pack_array(&w.packer, 4);
                eq_pack_id(&w.packer, sf->id);
                msgpack_pack_uint8(&w.packer, stream);
                eq_pack_bin(&w.packer, eq_bytes(data, n));
                msgpack_pack_uint16(&w.packer, attempt);
        }
        session_notify_end(sf->session, &w);
        return session_is_clogged(sf->session);
}

static void follower_free(SessionFollower *sf) {
        list_remove(&sf->link_of_session);
        free(sf);
}

static void follower_end(Follower *f) {
        SessionFollower *sf = (SessionFollower *)f;
        NotifyWriter w;
        session_notify_begin(sf->session, "output_end", true, &w);
        if (!w.dropped) {
                msgpack_pack_array(&w.packer, 1);
                eq_pack_id(&w.packer, sf->id);
        }
        session_notify_end(sf->session, &w);
        follower_free(sf);
}

int stream_attach(Handlers *h, Session *s, TaskRecord *t, StreamMode mode) {
        Subscription *sub = subscription(s);
        SessionFollower *sf = fault_calloc(1, sizeof(*sf));
        if (!sub || !sf) {
                free(sf);
                return -ENOMEM;
        }
        sf->follower = (Follower) { .must = mode == STREAM_MUST,
                                    .one_attempt = mode == STREAM_ATTEMPT,
                                    .output = follower_output,
                                    .end = follower_end };
        sf->handlers = h;
        sf->session = s;
        sf->id = task_record_id(t);
        list_append(&sub->followers, &sf->link_of_session);
        if (task_record_finished(t))
                follower_end(&sf->follower);
        else if (manager_follow(h->manager, t, &sf->follower) < 0) {
                follower_free(sf);
                return -ENOMEM;
        }
        return 0;
}

typedef struct ChunkWriter {
        EqBuffer buffer;
        msgpack_packer packer;
        uint32_t n;
} ChunkWriter;

static void add_chunk(void *userdata, uint8_t stream, const char *data, size_t n) {
        ChunkWriter *w = userdata;
        msgpack_pack_array(&w->packer, 2);
        msgpack_pack_uint8(&w->packer, stream);
        eq_pack_bin(&w->packer, eq_bytes(data, n));
        w->n++;
}

/* What is asked for. */
typedef struct LogsPart {
        const OutputLog *log; /* borrowed; NULL: nothing is known of the attempt */
        uint16_t attempt;     /* 0: there was none yet */
        StreamMode mode;
        bool more; /* and it may still grow */
} LogsPart;

static void refuse_attempt(const Request *rq, const TaskRecord *t, uint64_t attempt, unsigned n_attempts) {
        const char *queue = t->queue->queue->name;
        unsigned long long seq = t->task.seq, k = attempt;
        if (n_attempts == 0)
                request_error_with(rq, EQ_E_STATE, &ERROR_FIELD("attempt"), "%s/%llu has had no attempt yet", queue,
                                   seq);
        else
                request_error_with(rq, EQ_E_STATE, &ERROR_FIELD("attempt"),
                                   "%s/%llu has had %u attempt%s; there is no attempt %llu", queue, seq, n_attempts,
                                   n_attempts == 1 ? "" : "s", k);
}

/* 0, or -ERANGE: refused. */
static int find_part(const Request *rq, const EqLogs *p, const TaskRecord *t, LogsPart *ret) {
        const OutputLog *log = t->run ? &t->run->log : NULL;
        uint16_t newest =
                MAX(t->task.attempt, log ? log->attempt : 0); /* one that counts from zero again shows what was */
        bool one = EQ_HAS(p, Logs, attempt);
        uint64_t attempt = one ? p->attempt : newest;
        if (one && (attempt == 0 || attempt > newest)) {
                refuse_attempt(rq, t, attempt, newest);
                return -ERANGE;
        }
        *ret = (LogsPart) {
                .log = log && output_log_knows(log, attempt) ? log : NULL,
                .attempt = (uint16_t)attempt,
                .mode = one ? STREAM_ATTEMPT : STREAM_TASK,
                .more = one ? attempt == newest && task_record_state(t) == EQ_STATE_RUNNING : !task_record_finished(t),
        };
        return 0;
}

void handle_logs(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqLogs *p = params;
        Caller caller = session_caller(rq->session);
        TaskRecord *t;
        Refusal refusal;
        LogsPart part;
        int r = manager_find_task(h->manager, &caller, &p->id, &t, &refusal);
        if (r != 0) {
                if (r == MANAGER_E_READ)
                        request_park(rq, refusal.ticket);
                else
                        request_refused(rq, &refusal);
                return;
        }
        if (find_part(rq, p, t, &part) < 0)
                return;
        ChunkWriter w = { .buffer = EQ_BUFFER_NULL };
        w.packer = eq_packer(&w.buffer);
        unsigned streams = EQ_HAS(p, Logs, streams) ? (unsigned)p->streams : 3;
        unsigned mask = (streams & 1 ? 1U << EQ_STREAM_STDOUT : 0) | (streams & 2 ? 1U << EQ_STREAM_STDERR : 0);
        if (part.log)
                output_log_foreach(part.log, part.attempt, mask, add_chunk, &w);
        EqLogsReply reply = { 0 };
        EQ_SET(&reply, LogsReply, id, (EqIdRef) { .id = task_record_id(t) });
        EQ_SET(&reply, LogsReply, chunks, (EqArray) { .raw = eq_bytes(w.buffer.data, w.buffer.len), .n = w.n });
        EQ_SET(&reply, LogsReply, dropped, part.log ? output_log_dropped(part.log, part.attempt) : 0);
        EQ_SET(&reply, LogsReply, more, part.more);
        EQ_SET(&reply, LogsReply, attempt, part.attempt);
        EQ_SET(&reply, LogsReply, gone, !part.log && part.attempt > 0);
        if (w.buffer.failed)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else {
                request_reply_record(rq, &eq_schema_LogsReply, &reply);
                if (p->follow && part.more)
                        (void)stream_attach(h, rq->session, t, part.mode); /* without memory: the client sees `more` */
        }
        eq_buffer_done(&w.buffer);
}

/* ---- events ---- */

static int parse_events(const Request *rq, const EqSubscribe *p, uint64_t *ret) {
        uint64_t all = (UINT64_C(1) << _EQ_EVENT_MAX) - 1;
        EqArray it = p->events;
        EqBytes want;
        *ret = EQ_HAS(p, Subscribe, events) ? 0 : all;
        while (eq_next_bytes(&it, &want) > 0) {
                uint64_t found = 0;
                for (int e = 0; e < _EQ_EVENT_MAX; e++) {
                        EqBytes name = eq_str(eq_event_name(e));
                        bool prefix = want.len > 0 && want.data[want.len - 1] == '.' && want.len <= name.len &&
                                      memcmp(name.data, want.data, want.len) == 0;
                        if (prefix || eq_bytes_eq(name, want))
                                found |= UINT64_C(1) << e;
                }
                if (!found) {
                        request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("events"),
                                           "events: there is no such event; api_info lists them");
                        return -EINVAL;
                }
                *ret |= found;
        }
        return 0;
}

static void update_wants(Handlers *h) {
        h->manager->want_events = !list_is_empty(&h->subscriptions);
}

void handle_subscribe(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqSubscribe *p = params;
        QueueRecord *q;
        Refusal refusal;
        uint64_t events;
        if (parse_events(rq, p, &events) < 0)
                return;
        if (EQ_HAS(p, Subscribe, queue) && manager_find_queue(h->manager, p->queue, &q, &refusal) < 0) {
                request_refused(rq, &refusal);
                return;
        }
        Subscription *sub = subscription(rq->session);
        if (!sub) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
                return;
        }
        list_remove(&sub->link);
        sub->events = p->off ? 0 : events;
        memset(sub->queue, 0, sizeof(sub->queue));
        memcpy(sub->queue, p->queue.data ? p->queue.data : "", p->queue.len);
        if (sub->events)
                list_append(&h->subscriptions, &sub->link);
        update_wants(h);
        request_reply_nil(rq);
}

static bool wants(const Subscription *sub, const EqEvent *event, bool has_owner, uid_t owner) {
        const Session *s = sub->session;
        if (has_owner && !s->admin && s->identity->uid != owner)
                return false;
        if (sub->queue[0] && !eq_bytes_eq(event->queue, eq_str(sub->queue)))
                return false;
        for (int e = 0; e < _EQ_EVENT_MAX; e++)
                if ((sub->events & (UINT64_C(1) << e)) && eq_bytes_eq(event->event, eq_str(eq_event_name(e))))
                        return true;
        return false;
}

void handlers_event(Handlers *h, const EqEvent *event, bool has_owner, uid_t owner) {
        LIST_FOREACH (l, &h->subscriptions) {
                const Subscription *sub = LIST_ENTRY(l, Subscription, link);
                if (!wants(sub, event, has_owner, owner))
                        continue;
                NotifyWriter w;
                session_notify_begin(sub->session, "event", false, &w);
                if (!w.dropped) {
                        msgpack_pack_array(&w.packer, 1);
                        eq_pack_record(&w.packer, &eq_schema_Event, event);
                }
                session_notify_end(sub->session, &w);
        }
}

/* ---- sessions ---- */

void stream_session_closed(Handlers *h, Session *s) {
        Subscription *sub = s->subscription;
        if (!sub)
                return;
        for (List *l; (l = list_first(&sub->followers));) {
                SessionFollower *sf = LIST_ENTRY(l, SessionFollower, link_of_session);
                manager_unfollow(h->manager, &sf->follower);
                follower_free(sf);
        }
        list_remove(&sub->link);
        update_wants(h);
        free(sub);
        s->subscription = NULL;
}

void stream_session_unclogged(Handlers *h, Session *s) {
        Subscription *sub = s->subscription;
        if (!sub)
                return;
        LIST_FOREACH_SAFE (l, &sub->followers)
                manager_follower_unclogged(h->manager, &LIST_ENTRY(l, SessionFollower, link_of_session)->follower);
}
