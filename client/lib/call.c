/* SPDX-License-Identifier: MIT */
/* Calls: their requests, answers and futures, whatever the connection is.
 *
 * A call is a record in a hash by msgid, made when the request is packed and given back to a free list when its callback
 * has returned; so a pipelined submit allocates nothing once the list is warm. Answers come in any order. A call whose
 * caller lost interest keeps its record, without a callback, until its answer has come.
 *
 *      start -> hash -> answer:      callback -> free list
 *                    -> death, close: callback(-errno) -> free list
 *
 * With a policy (link.h) each call holds a copy of its request until it is answered. When the connection ends, calls that
 * cannot be repeated are answered; the others wait in the hash, which keeps their order, with what is started meanwhile.
 *
 *      lost -> repeatable, or not sent as a whole: stays -> connected: sent again -> answer
 *           -> else: callback(-ECONNRESET) -> free list */

#include "lib/call.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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
        eq_submitv_fn submitv_fn;
        size_t n_tasks; /* of submitv_fn */
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

/* ---- their lives ---- */

static eq_call *call_take(eq_client *c) {
        eq_call *call = c->free_calls;
        if (call)
                c->free_calls = call->next_free;
        else
                call = malloc(sizeof(*call));
        return call;
}

static void call_release(eq_client *c, eq_call *call) {
        call->held = held_free(call->held);
        call->reply = eq_reply_free(call->reply);
        call->next_free = c->free_calls;
        c->free_calls = call;
}

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
        } else if (call->submitv_fn)
                client_submitv_answered(c, call->n_tasks, r, reply, call->submitv_fn, call->userdata);
        else if (call->fn)
                call->fn(call, r, reply, call->userdata);
        call_release(c, call);
}

void calls_fail(eq_client *c, int r) {
        while (c->calls) {
                eq_call *call = c->calls;
                HASH_DEL(c->calls, call);
                call_finish(c, call, r, NULL);
        }
}

void calls_free(eq_client *c) {
        while (c->answered)
                future_release(c, c->answered);
        while (c->free_calls) {
                eq_call *call = c->free_calls;
                c->free_calls = call->next_free;
                free(call);
        }
}

/* ---- starting them ---- */

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
        if (n_fds > 0 && c->no_fds)
                return -EOPNOTSUPP;
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

int client_begin_submitv(eq_client *c, size_t n, eq_submitv_fn fn, void *userdata, eq_call **ret) {
        const eq_call call = { .submitv_fn = fn, .n_tasks = n, .userdata = userdata };
        return call_begin(c, "submit_many", NULL, 0, &call, ret);
}

int call_begin_link(eq_client *c, const char *method, eq_reply_fn fn, void *userdata, eq_call **ret) {
        return call_begin(c, method, NULL, 0, &(eq_call) { .fn = fn, .userdata = userdata, .is_link = true }, ret);
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

void client_make_future(eq_client *c, eq_call *call) {
        call->future_of = c;
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
                client_make_future(c, call);
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
        call->submitv_fn = NULL;
}

/* ---- answers ---- */

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

void call_answer(eq_client *c, const EqMessage *m) {
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
                client_set_error(c, reply.code, text, reply.details);
                reply.text = client_error_text(c);
                reply.result = eq_bytes("", 0);
                r = -EREMOTEIO;
        }
        if (r == 0 && call->is_subscribe && call->held)
                keep_subscription(c, call);
        call_finish(c, call, r, &reply);
}

/* ---- when the connection has ended ---- */

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

eq_call *calls_last(eq_client *c) {
        return c->calls ? ELMT_FROM_HH(c->calls->hh.tbl, c->calls->hh.tbl->tail) : NULL;
}

int calls_send_again(eq_client *c, eq_call *last) {
        int r = 0;
        for (eq_call *call = last ? c->calls : NULL; r == 0 && call; call = call == last ? NULL : call->hh.next)
                r = send_again(c, call);
        return r;
}

eq_call *calls_take_unrepeatable(eq_client *c) {
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

void calls_lost(eq_client *c, eq_call *first) {
        while (first) {
                eq_call *call = first;
                first = call->next_free;
                c->counts.unanswered += !call->is_link && !call->forgotten;
                call_finish(c, call, -ECONNRESET, NULL);
        }
}

/* ---- waiting for them ---- */

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
                client_set_error(c, call->reply->code, eq_str(call->reply->text), call->reply->details);
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
