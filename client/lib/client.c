/* SPDX-License-Identifier: MIT */
/* Calls over one connection.
 *
 * A call is a record in a hash by msgid, made when the request is packed and given back to a free list when its callback
 * has returned; so a pipelined submit allocates nothing once the list is warm. Answers come in any order. A call whose
 * caller lost interest keeps its record, without a callback, until its answer has come.
 *
 * A connection dies once: by its end, by an error, by bytes that are no message. Then every outstanding call is answered
 * with the error and later calls get it at once.
 *
 *      start -> hash -> answer:      callback -> free list
 *                    -> death, close: callback(-errno) -> free list
 *
 * With a policy (link.h) its end is no death. Each call holds a copy of its request until it is answered. When the connection
 * ends, calls that cannot be repeated are answered; the others wait in the hash, which keeps their order, with what is started
 * meanwhile. On the next connection go first the requests of the client itself (hello, subscribe, worker_serve), then all of
 * those. It counts as up when its own requests are answered.
 *
 *      lost -> repeatable, or not sent as a whole: stays -> connected: sent again -> answer
 *           -> else: callback(-ECONNRESET) -> free list */

#include "lib/client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Out of memory in the hash is an error of the call, never an exit. msgids count up: they are their own hash. */
#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(element) ((element)->lost = true)
#define HASH_FUNCTION(key, n_key, hash) ((hash) = *(const uint32_t *)(key))
#include <uthash.h>

enum { FLUSH_SIZE = 65536 };

struct eq_call {
        UT_hash_handle hh; /* eq_client::calls */
        uint32_t msgid;
        bool lost; /* the hash could not take it */
        bool forgotten;
        bool is_link;      /* of the client itself */
        bool is_subscribe; /* if it goes well, its parameters are kept */
        bool unsent;       /* as far as eqd is concerned it was never sent */
        Held *held;        /* the request, where there is a policy; owned */
        uint64_t end;      /* of the request, in the stream of the connection */
        eq_reply_fn fn;
        eq_submit_fn submit_fn;
        void *userdata;
        eq_client *future_of; /* its answer is kept; NULL: it is not */
        eq_call *prev, *next; /* eq_client::answered, once it has one */
        bool is_answered;     /* r and reply are set */
        int r;
        eq_reply *reply;    /* owned; NULL: none */
        eq_call *next_free; /* eq_client::free_calls */
};

struct eq_reply {
        eq_error code;
        const char *text; /* terminated */
        EqBytes result, details;
        char data[]; /* owned copies of these, where the reply is on the heap */
};

struct eq_client {
        Connection connection;
        int dead; /* -errno once the connection has broken */
        bool dispatching;
        uint32_t next_msgid;
        bool msgids_wrapped;
        size_t begun_at; /* where the call being packed starts in the output */
        bool asked_hello;
        uint64_t payload_fd_min; /* eqd takes larger payloads as a descriptor; 0: not known, or it does not */
        uint64_t timeout_usec;
        eq_call *calls, *free_calls, *answered; /* answered: futures that nobody has waited for yet */
        eq_notify_fn notify_fn;
        void *notify_userdata;
        eq_error error_code;
        EqBuffer error_text;    /* terminated */
        EqBuffer error_details; /* the map, encoded; empty: none */
        EqBuffer error_names;   /* the strings of it, terminated */
        EqBuffer scratch;
        ClientWorker *worker;
        char *path;
        Link link;
        eq_link_fn link_fn;
        void *link_userdata;
        eq_link_counts counts;
        unsigned n_link_calls; /* unanswered ones of the client itself */
        int link_error;        /* an answer to one of them ends the connection, or the client */
        Held *subscription;    /* the request; NULL: none */
};

uint64_t client_now_usec(void) {
        struct timespec ts;
        (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail for this clock */
        return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- connection ---- */

static int copy_path(char *buf, size_t size, const char *format, const char *a) {
        int n = snprintf(buf, size, format, a);
        return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

int eq_client_default_path(const char *path, char *buf, size_t size) {
        if (!path || !*path)
                path = getenv("EQD_SOCKET");
        if (path && *path)
                return copy_path(buf, size, "%s", path);

        const char *dir = geteuid() == 0 ? NULL : getenv("XDG_RUNTIME_DIR");
        if (dir && *dir) {
                int r = copy_path(buf, size, "%s/eqd/eqd.sock", dir);
                if (r < 0 || access(buf, F_OK) == 0)
                        return r;
        }
        return copy_path(buf, size, "%s", "/run/eqd/eqd.sock");
}

int eq_client_open(eq_client **ret, const char *path) {
        char buf[108];
        int r = eq_client_default_path(path, buf, sizeof(buf));
        if (r < 0)
                return r;

        eq_client *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->connection = (Connection)CONNECTION_NULL;
        c->link = (Link)LINK_NULL;
        c->timeout_usec = UINT64_C(30000000);
        c->next_msgid = 1;
        c->path = strdup(buf);
        r = c->path ? connection_open(&c->connection, buf, true) : -ENOMEM;
        if (r < 0) {
                eq_client_close(c);
                return r;
        }
        *ret = c;
        return 0;
}

static void call_release(eq_client *c, eq_call *call) {
        call->held = held_free(call->held);
        call->reply = eq_reply_free(call->reply);
        call->next_free = c->free_calls;
        c->free_calls = call;
}

static void buffer_forget(EqBuffer *b) {
        eq_buffer_done(b);
        *b = (EqBuffer)EQ_BUFFER_NULL;
}

/* Without memory there is no text, and there are no details; there is the code. */
static void set_error(eq_client *c, eq_error code, EqBytes text, EqBytes details) {
        c->error_code = code;
        c->error_text.len = c->error_details.len = c->error_names.len = 0;
        if (eq_buffer_append(&c->error_text, text.data, text.len) < 0 || eq_buffer_append(&c->error_text, "", 1) < 0)
                buffer_forget(&c->error_text);
        /* Each name is shorter in there than with its zero, since a key stands before it: the buffer will not move. */
        if (details.len > 0 && (eq_buffer_reserve(&c->error_names, details.len) < 0 ||
                                eq_buffer_append(&c->error_details, details.data, details.len) < 0))
                buffer_forget(&c->error_details);
}

static const char *error_text(const eq_client *c) {
        return c->error_text.len > 0 ? c->error_text.data : "";
}

static eq_reply *reply_copy(const eq_reply *reply);

/* Its answer has come before it was waited for. */
static void future_answer(eq_client *c, eq_call *call, int r, const eq_reply *reply) {
        call->is_answered = true;
        call->r = r;
        call->reply = reply ? reply_copy(reply) : NULL;
        if (reply && !call->reply)
                call->r = -ENOMEM;
        call->held = held_free(call->held);
        call->prev = NULL;
        call->next = c->answered;
        if (c->answered)
                c->answered->prev = call;
        c->answered = call;
}

static void future_release(eq_client *c, eq_call *call) {
        *(call->prev ? &call->prev->next : &c->answered) = call->next;
        if (call->next)
                call->next->prev = call->prev;
        call_release(c, call);
}

/* Answers a call that is out of the hash. */
static void call_finish(eq_client *c, eq_call *call, int r, const eq_reply *reply) {
        eq_task_id id = { 0, 0 };
        EqIdRef ref;

        if (call->future_of) {
                future_answer(c, call, r, reply);
                return;
        }
        if (call->submit_fn) {
                if (r == 0)
                        r = eq_get_id(reply->result, &ref);
                if (r == 0)
                        id = ref.id;
                call->submit_fn(c, r, id, call->userdata);
        } else if (call->fn)
                call->fn(call, r, reply, call->userdata);
        call_release(c, call);
}

static void calls_fail(eq_client *c, int r) {
        while (c->calls) {
                eq_call *call = c->calls;
                HASH_DEL(c->calls, call);
                call_finish(c, call, r, NULL);
        }
}

static void tell_link(eq_client *c, eq_link event, int r) {
        c->link.up = event == EQ_LINK_BACK;
        if (c->link_fn)
                c->link_fn(c, event, r, c->link_userdata);
}

static void close_connection(eq_client *c) {
        (void)link_watch(&c->link, -1, 0); /* taking out what is there cannot fail */
        connection_deinit(&c->connection);
        c->link_error = 0;
}

static int client_die(eq_client *c, int r) {
        c->dead = r;
        close_connection(c);
        if (c->link.on)
                tell_link(c, EQ_LINK_BROKEN, r);
        client_worker_lost(c->worker);
        calls_fail(c, r);
        return r;
}

eq_client *eq_client_close(eq_client *c) {
        if (!c)
                return NULL;
        c->dead = -ECANCELED;
        c->dispatching = true;
        calls_fail(c, -ECANCELED);
        close_connection(c);
        link_deinit(&c->link);
        held_free(c->subscription);
        client_worker_free(c->worker);
        while (c->answered)
                future_release(c, c->answered);
        while (c->free_calls) {
                eq_call *call = c->free_calls;
                c->free_calls = call->next_free;
                free(call);
        }
        eq_buffer_done(&c->error_text);
        eq_buffer_done(&c->error_details);
        eq_buffer_done(&c->error_names);
        eq_buffer_done(&c->scratch);
        free(c->path);
        free(c);
        return NULL;
}

void eq_client_closep(eq_client **c) {
        eq_client_close(*c);
}

const char *eq_client_get_path(const eq_client *c) {
        return c->path;
}

void eq_client_set_timeout(eq_client *c, uint64_t usec) {
        c->timeout_usec = usec;
}

uint64_t client_timeout(const eq_client *c) {
        return c->timeout_usec;
}

static int wanted_events(const eq_client *c) {
        return POLLIN | (connection_has_output(&c->connection) ? POLLOUT : 0);
}

int eq_client_get_fd(const eq_client *c) {
        return c->link.on ? c->link.epoll_fd : c->connection.fd;
}

int eq_client_get_events(const eq_client *c) {
        if (!c->link.on)
                return wanted_events(c);
        /* On the heap, all of it; a failure is tried again by the next dispatch. */
        (void)link_watch(&((eq_client *)c)->link, c->connection.fd, wanted_events(c));
        return POLLIN;
}

eq_error eq_client_get_error(const eq_client *c, const char **ret_text) {
        if (ret_text)
                *ret_text = error_text(c);
        return c->error_code;
}

/* In error_names, where room was made for all of them. NULL: there is none. */
static const char *error_name(eq_client *c, const EqErrorDetails *d, unsigned i) {
        const EqBytes *s = (const void *)((const char *)d + eq_schema_ErrorDetails.fields[i].offset);
        size_t at = c->error_names.len;
        if (!(d->present & UINT64_C(1) << i) || eq_buffer_append(&c->error_names, s->data, s->len) < 0 ||
            eq_buffer_append(&c->error_names, "", 1) < 0)
                return NULL;
        return c->error_names.data + at;
}

void eq_client_get_error_details(const eq_client *client, eq_error_details *ret) {
        eq_client *c = (eq_client *)client; /* on the heap, all of it; the names are written anew, the same as before */
        eq_error_details all = { .size = ret->size };
        EqErrorDetails d = { 0 };
        EqDecodeError error;
        EqBytes raw = eq_bytes(c->error_details.data, c->error_details.len);
        c->error_names.len = 0;
        if (raw.len > 0 && eq_decode_map(&eq_schema_ErrorDetails, raw, &d, &error) == 0) {
                all.method = error_name(c, &d, EQ_IDX_ErrorDetails_method);
                all.field = error_name(c, &d, EQ_IDX_ErrorDetails_field);
                all.queue = error_name(c, &d, EQ_IDX_ErrorDetails_queue);
                all.pool = error_name(c, &d, EQ_IDX_ErrorDetails_pool);
                all.param = error_name(c, &d, EQ_IDX_ErrorDetails_param);
                all.what = error_name(c, &d, EQ_IDX_ErrorDetails_what);
                all.id = d.id.id;
                all.attempt = d.attempt;
                all.worker = d.worker;
                all.limit = d.limit;
                all.pending = d.pending;
                all.retry_after_usec = d.retry_after_usec;
        }
        memcpy(ret, &all, ret->size < sizeof(all) ? ret->size : sizeof(all));
}

void eq_client_set_notify(eq_client *c, eq_notify_fn fn, void *userdata) {
        c->notify_fn = fn;
        c->notify_userdata = userdata;
}

/* ---- receiving ---- */

static void handle_notify(eq_client *c, const EqMessage *m) {
        char method[64];

        if (client_worker_notify(c, m))
                return;
        if (!c->notify_fn || m->method.len >= sizeof(method))
                return;
        memcpy(method, m->method.data, m->method.len);
        method[m->method.len] = 0;
        c->notify_fn(c, method, m->params.data, m->params.len, c->notify_userdata);
}

/* eqd is on its way out: what it refuses for that is for the next one. */
static bool is_put_off(const eq_client *c, eq_call *call, const EqMessage *m) {
        eq_error code;
        EqBytes text;
        call->unsent = c->link.on && !call->is_link && !eq_is_nil(m->error) &&
                       eq_get_error(m->error, &code, &text, NULL) == 0 && code == EQ_E_STOPPING;
        return call->unsent;
}

static void keep_subscription(eq_client *c, eq_call *call) {
        held_free(c->subscription);
        c->subscription = call->held;
        call->held = NULL;
}

static void handle_response(eq_client *c, const EqMessage *m) {
        eq_call *call = NULL;
        eq_reply reply = { .code = EQ_E_NONE, .text = "", .result = m->result };
        EqBytes text;
        int r = 0;

        HASH_FIND(hh, c->calls, &m->msgid, sizeof(m->msgid), call);
        if (!call)
                return;
        if (is_put_off(c, call, m))
                return;
        HASH_DEL(c->calls, call);
        if (!eq_is_nil(m->error)) {
                if (eq_get_error(m->error, &reply.code, &text, &reply.details) < 0) {
                        reply.code = EQ_E_INTERNAL;
                        text = eq_str("eqd answered with an error that has no known form");
                }
                set_error(c, reply.code, text, reply.details);
                reply.text = error_text(c);
                reply.result = eq_bytes("", 0);
                r = -EREMOTEIO;
        }
        if (r == 0 && call->is_subscribe && call->held)
                keep_subscription(c, call);
        call_finish(c, call, r, &reply);
}

/* All whole messages at hand. 1: there were some, 0: none, -EBADMSG. */
static int handle_input(eq_client *c) {
        int some = 0, r;
        EqBytes raw;
        EqMessage m;

        while ((r = connection_next(&c->connection, &raw)) > 0) {
                if (eq_message_parse(raw, &m) < 0)
                        return -EBADMSG;
                if (m.type == EQ_MSG_RESPONSE)
                        handle_response(c, &m);
                else if (m.type == EQ_MSG_REQUEST)
                        r = client_worker_request(c, &m);
                else
                        handle_notify(c, &m);
                some = 1;
                if (r >= 0)
                        r = c->link_error;
                if (r < 0)
                        break;
        }
        return r < 0 ? r : some;
}

/* ---- connecting again ---- */

static void on_link_answer(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        eq_client *c = userdata;
        if (r < 0 && r != -EREMOTEIO)
                return; /* the connection has ended: there will be another */
        eq_error code = reply->code;
        if (code == EQ_E_STOPPING || code == EQ_E_NO_MEMORY)
                c->link_error = -ECONNRESET; /* to be tried again */
        else if (r < 0)
                c->link_error = -EREMOTEIO;
        if (c->link_error || --c->n_link_calls > 0)
                return;
        link_answered(&c->link);
        tell_link(c, EQ_LINK_BACK, 0);
}

int client_link_call(eq_client *c, const char *method, const EqSchema *schema, const void *rec) {
        eq_call *call;
        int r = client_begin(c, method, NULL, 0, on_link_answer, c, &call);
        if (r < 0)
                return r;
        msgpack_packer pk = client_packer(c);
        call->is_link = true;
        eq_pack_params(&pk, schema, rec);
        r = client_end(c, call, 0);
        c->n_link_calls += r == 0;
        return r;
}

static int subscribe_again(eq_client *c) {
        EqDecodeError error;
        EqSubscribe rec;
        if (!c->subscription)
                return 0;
        if (eq_decode_params(&eq_schema_Subscribe, held_params(c->subscription), &rec, &error) < 0)
                return -EBADMSG; /* eqd has taken it */
        return client_link_call(c, "subscribe", &eq_schema_Subscribe, &rec);
}

static int send_again(eq_client *c, eq_call *call) {
        const Held *h = call->held;
        int r = connection_attach_fds(&c->connection, h->fds, h->n_fds);
        if (r == 0)
                r = eq_buffer_append(&c->connection.out, h->data, h->n);
        if (r < 0)
                return r;
        connection_end_message(&c->connection);
        call->end = connection_position(&c->connection, c->connection.out.len);
        call->unsent = false;
        c->counts.repeated++;
        return 0;
}

static int begin_again(eq_client *c) {
        EqHello hello = { 0 };
        eq_call *last = c->calls ? ELMT_FROM_HH(c->calls->hh.tbl, c->calls->hh.tbl->tail) : NULL;
        c->n_link_calls = 0;
        int r = client_link_call(c, "hello", &eq_schema_Hello, &hello);
        if (r == 0)
                r = subscribe_again(c);
        if (r == 0)
                r = client_worker_serve_again(c, c->worker);
        for (eq_call *call = last ? c->calls : NULL; r == 0 && call; call = call == last ? NULL : call->hh.next)
                r = send_again(c, call);
        return r;
}

/* What cannot be repeated, in order of start, taken out of the hash. */
static eq_call *take_unrepeatable(eq_client *c) {
        eq_call *first = NULL, **end = &first, *next;
        for (eq_call *call = c->calls; call; call = next) {
                next = call->hh.next;
                call->unsent |= call->end > c->connection.n_sent;
                if (!call->is_link && !call->forgotten && (call->unsent || held_is_repeatable(call->held)))
                        continue;
                HASH_DEL(c->calls, call);
                call->next_free = NULL;
                *end = call;
                end = &call->next_free;
        }
        return first;
}

/* The connection has ended, and is to be made again. */
static void client_lose(eq_client *c, int r) {
        bool was_up = c->link.up;
        eq_call *lost = take_unrepeatable(c);
        close_connection(c);
        c->asked_hello = false;
        c->payload_fd_min = 0;
        if (was_up) {
                c->counts.lost++;
                tell_link(c, EQ_LINK_LOST, r);
        }
        client_worker_leases_lost(c->worker);
        while (lost) {
                eq_call *call = lost;
                lost = call->next_free;
                c->counts.unanswered += !call->is_link && !call->forgotten;
                call_finish(c, call, -ECONNRESET, NULL);
        }
}

static int client_fail(eq_client *c, int r) {
        if (!c->link.on || r == -EBADMSG || r == -ENOMEM || r == -EREMOTEIO)
                return client_die(c, r);
        if (!link_lost(&c->link, client_now_usec()))
                return client_die(c, r);
        client_lose(c, r);
        return 1;
}

/* The next try, if it is time. 1: there was one, 0: it is not, -errno: that was the last. */
static int client_try(eq_client *c) {
        if (link_left(&c->link, 1) > 0)
                return 0;
        connection_deinit(&c->connection); /* calls that were begun meanwhile have used its buffer */
        int r = connection_open(&c->connection, c->path, false);
        if (r < 0)
                return link_failed(&c->link, client_now_usec()) ? 1 : client_die(c, r);
        link_connected(&c->link);
        return begin_again(c) < 0 ? client_fail(c, -ECONNRESET) : 1;
}

/* Sends and receives without waiting. 1: something was handled, 0: nothing, -errno: it is dead now. */
static int client_pump(eq_client *c) {
        int some = 0, r;

        if (link_is_down(&c->link)) {
                some = r = client_try(c);
                if (r <= 0 || link_is_down(&c->link))
                        return r;
        }
        r = connection_flush(&c->connection);
        if (r < 0)
                return client_fail(c, r);
        do {
                r = connection_receive(&c->connection);
                if (r <= 0)
                        break;
                r = handle_input(c);
                some |= r > 0;
        } while (r >= 0 && !some);
        return r < 0 ? client_fail(c, r) : some;
}

static int poll_client(const eq_client *c, uint64_t timeout_usec) {
        struct pollfd p = { .fd = c->connection.fd, .events = (short)wanted_events(c) };
        uint64_t usec = link_left(&c->link, timeout_usec);
        struct timespec ts = { .tv_sec = (time_t)(usec / 1000000), .tv_nsec = (long)(usec % 1000000) * 1000 };

        int r = ppoll(&p, 1, usec == EQ_TIMEOUT_NEVER ? NULL : &ts, NULL);
        if (r < 0)
                return errno == EINTR ? 0 : -errno;
        return r;
}

int eq_client_dispatch(eq_client *c, uint64_t timeout_usec) {
        if (c->dispatching)
                return -EBUSY;
        if (c->dead)
                return c->dead;

        c->dispatching = true;
        int r = client_pump(c);
        if (r == 0 && timeout_usec > 0) {
                r = poll_client(c, timeout_usec);
                if (r > 0 || (r == 0 && link_is_down(&c->link)))
                        r = client_pump(c);
        }
        if (r >= 0 && link_watch(&c->link, c->connection.fd, wanted_events(c)) < 0)
                r = client_fail(c, -ECONNRESET); /* nobody would look at it */
        c->dispatching = false;
        return r;
}

int eq_client_flush(eq_client *c) {
        if (c->dead)
                return c->dead;
        if (link_is_down(&c->link))
                return c->calls != NULL;
        int r = connection_flush(&c->connection);
        return r < 0 && c->link.on ? 1 : r; /* the next dispatch sees the same, and does something about it */
}

/* ---- the policy ---- */

int eq_client_set_reconnect(eq_client *c, const eq_reconnect *policy) {
        if (c->dead)
                return c->dead;
        if (!c->link.on && c->calls)
                return -EBUSY;
        bool is_new = !c->link.on;
        int r = link_set_policy(&c->link, policy);
        if (r == 0 && is_new && (r = link_watch(&c->link, c->connection.fd, wanted_events(c))) < 0)
                link_deinit(&c->link);
        return r;
}

void eq_client_set_link(eq_client *c, eq_link_fn fn, void *userdata) {
        c->link_fn = fn;
        c->link_userdata = userdata;
}

void eq_client_get_link(const eq_client *c, eq_link_counts *ret) {
        eq_link_counts counts = c->counts;
        counts.size = ret->size;
        counts.connected = c->link.on ? c->link.up && !c->dead : !c->dead;
        memcpy(ret, &counts, ret->size < sizeof(counts) ? ret->size : sizeof(counts));
}

Link *client_link(eq_client *c) {
        return &c->link;
}

void client_count_late(eq_client *c) {
        c->counts.late++;
}

/* ---- starting calls ---- */

static eq_call *call_take(eq_client *c) {
        eq_call *call = c->free_calls;
        if (call)
                c->free_calls = call->next_free;
        else
                call = malloc(sizeof(*call));
        return call;
}

static uint32_t take_msgid(eq_client *c) {
        eq_call *other;
        uint32_t id;

        do {
                id = c->next_msgid++;
                other = NULL;
                if (c->next_msgid == 0)
                        c->msgids_wrapped = true;
                if (c->msgids_wrapped)
                        HASH_FIND(hh, c->calls, &id, sizeof(id), other);
        } while (other);
        return id;
}

msgpack_packer client_packer(eq_client *c) {
        return eq_packer(&c->connection.out);
}

EqBuffer *client_scratch(eq_client *c) {
        c->scratch.len = 0;
        c->scratch.failed = false;
        return &c->scratch;
}

static int call_begin(eq_client *c, const char *method, const int *fds, unsigned n_fds, const eq_call *values,
                      eq_call **ret) {
        if (c->dead)
                return c->dead;
        eq_call *call = call_take(c);
        if (!call)
                return -ENOMEM;

        *call = *values;
        call->msgid = take_msgid(c);
        call->is_subscribe = c->link.on && strcmp(method, "subscribe") == 0;
        c->begun_at = c->connection.out.len;
        int r = connection_attach_fds(&c->connection, fds, n_fds);
        if (r < 0) {
                call_release(c, call);
                return r;
        }
        HASH_ADD(hh, c->calls, msgid, sizeof(call->msgid), call);
        if (call->lost) {
                connection_truncate(&c->connection, c->begun_at);
                call_release(c, call);
                return -ENOMEM;
        }
        msgpack_packer pk = client_packer(c);
        eq_pack_request(&pk, call->msgid, method);
        *ret = call;
        return 0;
}

int client_begin(eq_client *c, const char *method, const int *fds, unsigned n_fds, eq_reply_fn fn, void *userdata,
                 eq_call **ret) {
        return call_begin(c, method, fds, n_fds, &(eq_call) { .fn = fn, .userdata = userdata }, ret);
}

int client_begin_submit(eq_client *c, const int *fds, unsigned n_fds, eq_submit_fn fn, void *userdata, eq_call **ret) {
        return call_begin(c, "submit", fds, n_fds, &(eq_call) { .submit_fn = fn, .userdata = userdata }, ret);
}

/* Keeps the request until it is answered; without a connection only there. */
static int hold(eq_client *c, eq_call *call) {
        EqBuffer *out = &c->connection.out;
        const FdSet *set = c->connection.n_fd_sets > 0 ? &c->connection.fd_sets[c->connection.n_fd_sets - 1] : NULL;
        bool with_fds = set && set->at == c->begun_at;
        EqBytes message = eq_bytes(out->data + c->begun_at, out->len - c->begun_at);
        int r = held_new(message, with_fds ? set->fds : NULL, with_fds ? set->n : 0, &call->held);
        if (r < 0)
                return r;
        call->end = connection_position(&c->connection, out->len);
        if (link_is_down(&c->link)) {
                call->unsent = true;
                connection_truncate(&c->connection, c->begun_at);
        }
        return 0;
}

int client_end(eq_client *c, eq_call *call, int r) {
        EqBuffer *out = &c->connection.out;

        if (r == 0 && out->failed)
                r = -ENOMEM;
        if (r == 0 && out->len - c->begun_at > EQ_MESSAGE_MAX)
                r = -EMSGSIZE;
        if (r == 0 && c->link.on)
                r = hold(c, call);
        if (r < 0) {
                HASH_DEL(c->calls, call);
                call_release(c, call);
                connection_truncate(&c->connection, c->begun_at);
                return r;
        }
        connection_end_message(&c->connection);
        if (out->len - c->connection.out_pos >= FLUSH_SIZE)
                (void)connection_flush(&c->connection); /* an error shows at the next dispatch */
        return 0;
}

/* ---- payloads as descriptors ---- */

static void learn_hello(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        eq_client *c = userdata;
        EqHelloReply hello = { 0 };
        EqDecodeError error;
        if (r == 0 && eq_decode_map(&eq_schema_HelloReply, reply->result, &hello, &error) == 0)
                c->payload_fd_min = hello.payload_fd_min;
}

bool client_wants_payload_fd(eq_client *c, size_t n) {
        if (n <= EQ_PAYLOAD_FD_MIN)
                return false;
        if (!c->asked_hello) {
                c->asked_hello = true; /* without memory: payloads stay in messages */
                (void)eq_client_call_start(c, "hello", NULL, 0, NULL, 0, learn_hello, c, NULL);
        }
        return c->payload_fd_min > 0 && n > c->payload_fd_min;
}

int client_take_fd(eq_client *c) {
        return connection_take_fd(&c->connection);
}

int client_message_begin(eq_client *c, msgpack_packer *ret) {
        if (c->dead)
                return c->dead;
        c->begun_at = c->connection.out.len;
        *ret = client_packer(c);
        return 0;
}

int client_message_end(eq_client *c) {
        EqBuffer *out = &c->connection.out;
        if (out->failed) {
                connection_truncate(&c->connection, c->begun_at);
                return -ENOMEM;
        }
        if (out->len - c->connection.out_pos >= FLUSH_SIZE)
                (void)connection_flush(&c->connection); /* an error shows at the next dispatch */
        return 0;
}

ClientWorker **client_worker(eq_client *c) {
        return &c->worker;
}

int eq_client_call_start(eq_client *c, const char *method, const void *params, size_t n_params, const int *fds,
                         unsigned n_fds, eq_reply_fn fn, void *userdata, eq_call **ret_call) {
        eq_call *call;
        int r = client_begin(c, method, fds, n_fds, fn, userdata, &call);
        if (r < 0)
                return r;
        if (n_params > EQ_MESSAGE_MAX)
                return client_end(c, call, -EMSGSIZE);

        msgpack_packer pk = client_packer(c);
        eq_pack_raw(&pk, n_params > 0 ? eq_bytes(params, n_params) : eq_bytes("\x90", 1));
        r = client_end(c, call, 0);
        if (r < 0 || !ret_call)
                return r;
        if (!fn)
                call->future_of = c;
        *ret_call = call;
        return 0;
}

void eq_call_forget(eq_call *call) {
        eq_client *c = call->future_of;
        if (c && call->is_answered) {
                future_release(c, call);
                return;
        }
        call->future_of = NULL;
        call->forgotten = true;
        call->fn = NULL;
        call->submit_fn = NULL;
}

/* ---- blocking calls ---- */

static eq_reply *reply_copy(const eq_reply *reply) {
        size_t n_text = strlen(reply->text) + 1;
        eq_reply *copy = malloc(sizeof(*copy) + n_text + reply->result.len + reply->details.len);

        if (!copy)
                return NULL;
        *copy = *reply;
        memcpy(copy->data, reply->text, n_text);
        copy->text = copy->data;
        if (reply->result.len > 0)
                memcpy(copy->data + n_text, reply->result.data, reply->result.len);
        copy->result.data = copy->data + n_text;
        copy->details.data = copy->result.data + reply->result.len;
        if (reply->details.len > 0)
                memcpy(copy->data + n_text + reply->result.len, reply->details.data, reply->details.len);
        return copy;
}

void client_sync_done(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        ClientSync *sync = userdata;

        sync->done = true;
        sync->r = r;
        if (reply)
                sync->reply = reply_copy(reply);
        if (reply && !sync->reply)
                sync->r = -ENOMEM;
}

/* Until an answer has set *done. 0, -ETIMEDOUT, -errno. */
static int wait_until(eq_client *c, const bool *done, uint64_t timeout_usec) {
        uint64_t start = client_now_usec(), left = timeout_usec;

        while (!*done) {
                int r = eq_client_dispatch(c, left);
                if (r < 0 && !*done)
                        return r;
                if (timeout_usec == EQ_TIMEOUT_NEVER || *done)
                        continue;
                uint64_t spent = client_now_usec() - start;
                if (spent >= timeout_usec)
                        return -ETIMEDOUT;
                left = timeout_usec - spent;
        }
        return 0;
}

int eq_call_wait(eq_call *call, uint64_t timeout_usec, eq_reply **ret) {
        eq_client *c = call->future_of;
        if (!c)
                return -EINVAL;
        int r = c->dispatching ? -EBUSY : wait_until(c, &call->is_answered, timeout_usec);
        if (r < 0)
                return r; /* of the connection: then it would have been answered */
        r = call->r;
        if (r == -EREMOTEIO)
                set_error(c, call->reply->code, eq_str(call->reply->text), call->reply->details);
        if (ret && call->reply) {
                *ret = call->reply;
                call->reply = NULL;
        }
        future_release(c, call);
        return r;
}

int client_wait(eq_client *c, eq_call *call, ClientSync *sync, uint64_t timeout_usec, eq_reply **ret) {
        int r = wait_until(c, &sync->done, timeout_usec);
        if (r < 0) {
                eq_call_forget(call);
                return r;
        }
        if (ret && sync->reply)
                *ret = sync->reply;
        else
                eq_reply_free(sync->reply);
        return sync->r;
}

int eq_client_call(eq_client *c, const char *method, const void *params, size_t n_params, eq_reply **ret) {
        ClientSync sync = { 0 };
        eq_call *call;

        if (c->dispatching)
                return -EBUSY;
        int r = eq_client_call_start(c, method, params, n_params, NULL, 0, client_sync_done, &sync, &call);
        return r < 0 ? r : client_wait(c, call, &sync, c->timeout_usec, ret);
}

int client_call_record(eq_client *c, const char *method, const EqSchema *schema, const void *rec, uint64_t timeout_usec,
                       eq_reply **ret) {
        ClientSync sync = { 0 };
        eq_call *call;

        if (c->dispatching)
                return -EBUSY;
        int r = client_begin(c, method, NULL, 0, client_sync_done, &sync, &call);
        if (r < 0)
                return r;
        msgpack_packer pk = client_packer(c);
        eq_pack_params(&pk, schema, rec);
        r = client_end(c, call, 0);
        return r < 0 ? r : client_wait(c, call, &sync, timeout_usec, ret);
}

/* ---- replies ---- */

EqBytes client_result(const eq_reply *reply) {
        return reply->result;
}

const void *eq_reply_get_result(const eq_reply *reply, size_t *ret_n) {
        *ret_n = reply->result.len;
        return reply->result.len > 0 ? reply->result.data : NULL;
}

eq_error eq_reply_get_error(const eq_reply *reply, const char **ret_text) {
        if (ret_text)
                *ret_text = reply->text;
        return reply->code;
}

const void *eq_reply_get_details(const eq_reply *reply, size_t *ret_n) {
        *ret_n = reply->details.len;
        return reply->details.len > 0 ? reply->details.data : NULL;
}

eq_reply *eq_reply_free(eq_reply *reply) {
        free(reply);
        return NULL;
}

const char *eq_version(void) {
        return EQD_VERSION;
}
