/* SPDX-License-Identifier: MIT */
/* A client's connection, its end, and the next one; calls are in call.c.
 *
 * A connection dies once: by its end, by an error, by bytes that are no message. Then every outstanding call is answered
 * with the error and later calls get it at once.
 *
 * With a policy (link.h) its end is no death. On the next connection go first the requests of the client itself (hello,
 * subscribe, worker_serve), then all calls that have waited for it. It counts as up when its own requests are answered. */

#include "lib/call.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

static eq_client *client_new(void) {
        eq_client *c = calloc(1, sizeof(*c));
        if (!c)
                return NULL;
        c->connection = (Connection)CONNECTION_NULL;
        c->link = (Link)LINK_NULL;
        c->timeout_usec = UINT64_C(30000000);
        c->next_msgid = 1;
        return c;
}

int eq_client_open(eq_client **ret, const char *path) {
        char buf[108];
        int r = eq_client_default_path(path, buf, sizeof(buf));
        if (r < 0)
                return r;

        eq_client *c = client_new();
        if (!c)
                return -ENOMEM;
        c->path = strdup(buf);
        r = c->path ? connection_open(&c->connection, buf, true) : -ENOMEM;
        if (r < 0) {
                eq_client_close(c);
                return r;
        }
        *ret = c;
        return 0;
}

int eq_client_open_fd(eq_client **ret, int fd) {
        Connection connection;
        int r = connection_adopt(&connection, fd);
        if (r < 0)
                return r;
        eq_client *c = client_new();
        if (!c)
                return -ENOMEM;
        c->connection = connection;
        c->no_fds = true;
        *ret = c;
        return 0;
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
        calls_free(c);
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

void eq_client_set_notify(eq_client *c, eq_notify_fn fn, void *userdata) {
        c->notify_fn = fn;
        c->notify_userdata = userdata;
}

/* ---- eqd's last error ---- */

static void buffer_forget(EqBuffer *b) {
        eq_buffer_done(b);
        *b = (EqBuffer)EQ_BUFFER_NULL;
}

/* Without memory there is no text, and there are no details; there is the code. */
void client_set_error(eq_client *c, eq_error code, EqBytes text, EqBytes details) {
        c->error_code = code;
        c->error_text.len = c->error_details.len = c->error_names.len = 0;
        if (eq_buffer_append(&c->error_text, text.data, text.len) < 0 || eq_buffer_append(&c->error_text, "", 1) < 0)
                buffer_forget(&c->error_text);
        /* Each name is shorter in there than with its zero, since a key stands before it: the buffer will not move. */
        if (details.len > 0 && (eq_buffer_reserve(&c->error_names, details.len) < 0 ||
                                eq_buffer_append(&c->error_details, details.data, details.len) < 0))
                buffer_forget(&c->error_details);
}

const char *client_error_text(const eq_client *c) {
        return c->error_text.len > 0 ? c->error_text.data : "";
}

eq_error eq_client_get_error(const eq_client *c, const char **ret_text) {
        if (ret_text)
                *ret_text = client_error_text(c);
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

/* All whole messages at hand. 1: there were some, 0: none, -EBADMSG. */
static int handle_input(eq_client *c) {
        int some = 0, r;
        EqBytes raw;
        EqMessage m;

        while ((r = connection_next(&c->connection, &raw)) > 0) {
                if (eq_message_parse(raw, &m) < 0)
                        return -EBADMSG;
                if (m.type == EQ_MSG_RESPONSE)
                        call_answer(c, &m);
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
        eq_error code = eq_reply_get_error(reply, NULL);
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
        int r = call_begin_link(c, method, on_link_answer, c, &call);
        if (r < 0)
                return r;
        msgpack_packer pk = client_packer(c);
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

static int begin_again(eq_client *c) {
        EqHello hello = { 0 };
        eq_call *last = calls_last(c);
        c->n_link_calls = 0;
        int r = client_link_call(c, "hello", &eq_schema_Hello, &hello);
        if (r == 0)
                r = subscribe_again(c);
        if (r == 0)
                r = client_worker_serve_again(c, c->worker);
        return r < 0 ? r : calls_send_again(c, last);
}

/* The connection has ended, and is to be made again. */
static void client_lose(eq_client *c, int r) {
        bool was_up = c->link.up;
        eq_call *lost = calls_take_unrepeatable(c);
        close_connection(c);
        c->asked_hello = false;
        c->payload_fd_min = 0;
        if (was_up) {
                c->counts.lost++;
                tell_link(c, EQ_LINK_LOST, r);
        }
        client_worker_leases_lost(c->worker);
        calls_lost(c, lost);
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
        if (!c->path)
                return -EOPNOTSUPP; /* there is nowhere to connect to */
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

/* ---- payloads as descriptors ---- */

static void learn_hello(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        eq_client *c = userdata;
        EqHelloReply hello = { 0 };
        EqDecodeError error;
        if (r == 0 && eq_decode_map(&eq_schema_HelloReply, client_result(reply), &hello, &error) == 0)
                c->payload_fd_min = hello.payload_fd_min;
}

bool client_passes_fds(const eq_client *c) {
        return !c->no_fds;
}

bool client_wants_payload_fd(eq_client *c, size_t n) {
        if (n <= EQ_PAYLOAD_FD_MIN || c->no_fds)
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

ClientWorker **client_worker(eq_client *c) {
        return &c->worker;
}

const char *eq_version(void) {
        return EQD_VERSION;
}
