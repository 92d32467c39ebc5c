/* SPDX-License-Identifier: MIT */
#pragma once

/* A tiny host above the server, and raw clients, all in one loop: the client's calls do not block, the test turns the loop
 * until it sees what it waits for. Handlers answer from nothing:
 *
 *   submit   the next SEQ; takes a descriptor if there is one
 *   wait     deferred until test_host_answer()
 *   list     `limit` bytes
 *   subscribe, reload   nil */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "server/output.h"
#include "server/server.h"
#include "test.h"

enum { TEST_PENDING_MAX = 4096 };

typedef struct TestHost {
        uv_loop_t loop;
        Users users;
        Server *server;
        char dir[64], path[108];
        RequestHandler handlers[_EQ_METHOD_MAX];
        bool everybody_is_admin;
        unsigned n_turns, n_submits, n_closed, n_unclogged, n_gone, n_fds_taken, n_responses;
        bool fd_with[4096]; /* submit number n had a descriptor */
        PendingRequest *pending[TEST_PENDING_MAX];
        unsigned n_pending, n_parked;
        uint64_t park_until; /* submits are parked for this ticket; 0: they are not */
        Session *subscriber;
} TestHost;

static inline void test_handle_submit(void *host, const Request *rq, const void *params) {
        TestHost *h = host;
        if (h->park_until > 0) {
                h->n_parked++;
                request_park(rq, h->park_until);
                return;
        }
        int fd = session_take_fd(rq->session);

        if (fd >= 0) {
                h->n_fds_taken++;
                if (h->n_submits < 4096)
                        h->fd_with[h->n_submits] = true;
                close(fd);
        }
        request_reply_id(rq, (eq_task_id) { .queue = 1, .seq = ++h->n_submits });
}

static inline void test_gone(PendingRequest *p) {
        TestHost *h = p->userdata;
        h->n_gone++;
        for (unsigned i = 0; i < h->n_pending; i++)
                if (h->pending[i] == p)
                        h->pending[i] = NULL;
}

static inline void test_handle_wait(void *host, const Request *rq, const void *params) {
        TestHost *h = host;
        ck_assert_uint_lt(h->n_pending, TEST_PENDING_MAX);
        PendingRequest *p = request_defer(rq, test_gone, h);
        if (p)
                h->pending[h->n_pending++] = p;
}

static inline void test_handle_list(void *host, const Request *rq, const void *params) {
        const EqList *list = params;
        static const char block[65536];
        ReplyWriter w;
        size_t left = list->from.id.seq; /* so many bytes */

        request_reply_begin(rq, &w);
        msgpack_pack_bin(&w.packer, left);
        for (size_t n; left > 0; left -= n) {
                n = MIN(left, sizeof(block));
                msgpack_pack_bin_body(&w.packer, block, n);
        }
        request_reply_end(rq, &w);
}

static inline void test_handle_nil(void *host, const Request *rq, const void *params) {
        request_reply_nil(rq);
}

static inline void test_handle_subscribe(void *host, const Request *rq, const void *params) {
        ((TestHost *)host)->subscriber = rq->session;
        request_reply_nil(rq);
}

static inline bool test_is_admin(void *host, const Identity *id) {
        return ((TestHost *)host)->everybody_is_admin;
}

static inline void test_session_closed(void *host, Session *s) {
        TestHost *h = host;
        ck_assert(list_is_empty(&s->pending));
        h->n_closed++;
        if (h->subscriber == s)
                h->subscriber = NULL;
}

static inline void test_session_response(void *host, Session *s, const EqMessage *m) {
        ((TestHost *)host)->n_responses++;
}

static inline void test_session_flushing(void *host, Session *s) {
}

static inline void test_session_unclogged(void *host, Session *s) {
        ((TestHost *)host)->n_unclogged++;
}

static const ServerHooks test_hooks = {
        .is_admin = test_is_admin,
        .session_closed = test_session_closed,
        .session_unclogged = test_session_unclogged,
        .session_response = test_session_response,
        .session_flushing = test_session_flushing,
};

/* libuv opens a pipe of the whole process with the first loop: before descriptors are counted. */
__attribute__((constructor)) static void test_open_libuv(void) {
        uv_loop_t loop;
        if (uv_loop_init(&loop) == 0)
                (void)uv_loop_close(&loop);
}

static inline void test_host_start(TestHost *h) {
        char error[256] = "";

        memset(h, 0, sizeof(*h));
        strcpy(h->dir, "/tmp/eqd-test-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(h->dir));
        (void)snprintf(h->path, sizeof(h->path), "%s/s", h->dir);
        ck_assert_int_eq(uv_loop_init(&h->loop), 0);
        h->users.unlimited_uid = (uid_t)-1;
        h->handlers[EQ_METHOD_SUBMIT] = test_handle_submit;
        h->handlers[EQ_METHOD_WAIT] = test_handle_wait;
        h->handlers[EQ_METHOD_LIST] = test_handle_list;
        h->handlers[EQ_METHOD_RELOAD] = test_handle_nil;
        h->handlers[EQ_METHOD_SUBSCRIBE] = test_handle_subscribe;
        ServerConfig config = { .path = h->path, .listen_fd = -1, .mode = 0666, .group = (gid_t)-1 };
        ck_assert_int_eq(
                server_new(&h->loop, &h->users, &config, &test_hooks, h->handlers, h, error, sizeof(error), &h->server),
                0);
        server_start(h->server);
}

static inline void test_host_stop(TestHost *h) {
        h->server = server_free(h->server);
        ck_assert_int_eq(uv_run(&h->loop, UV_RUN_DEFAULT), 0);
        users_deinit(&h->users);
        ck_assert_int_eq(uv_loop_close(&h->loop), 0);
        ck_assert_int_eq(rmdir(h->dir), 0); /* so the socket file is gone */
}

/* One turn of the loop, without sleeping. */
static inline void test_host_turn(TestHost *h) {
        h->n_turns++;
        uv_run(&h->loop, UV_RUN_NOWAIT);
}

#define TURN_UNTIL(h, condition)                                                                                       \
        do {                                                                                                           \
                bool true_ = (condition); /* looked at once a turn: it may receive */                                  \
                for (unsigned turns_ = 0; !true_ && turns_ < 20000; turns_++) {                                        \
                        test_host_turn(h);                                                                             \
                        true_ = (condition);                                                                           \
                }                                                                                                      \
                ck_assert_msg(true_, "does not come true: %s", #condition);                                            \
        } while (0)

static inline Session *test_first_session(TestHost *h) {
        List *l = list_first(&h->server->sessions);
        return l ? LIST_ENTRY(l, Session, link) : NULL;
}

/* Answers the i-th deferred request. */
static inline void test_host_answer(TestHost *h, unsigned i) {
        PendingRequest *p = h->pending[i];
        ck_assert_ptr_nonnull(p);
        h->pending[i] = NULL;
        request_reply_nil(&p->request);
        pending_request_done(p);
}

/* ---- clients ---- */

typedef struct TestClient {
        int fd;
        EqBuffer out, in;
        size_t in_used;
        bool eof;
} TestClient;

static inline void test_client_connect(TestHost *h, TestClient *c) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        *c = (TestClient) { .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) };
        ck_assert_int_ge(c->fd, 0);
        strcpy(address.sun_path, h->path);
        ck_assert_int_eq(connect(c->fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static inline void test_client_open(TestHost *h, TestClient *c) {
        size_t n = h->server->n_sessions;
        test_client_connect(h, c);
        TURN_UNTIL(h, h->server->n_sessions == n + 1);
}

static inline void test_client_close(TestClient *c) {
        c->fd = close_fd(c->fd);
        eq_buffer_done(&c->in);
        eq_buffer_done(&c->out);
}

/* Sends what the socket takes of what was packed into c->out. */
static inline void test_client_send(TestClient *c) {
        ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0)
                eq_buffer_consume(&c->out, (size_t)n);
}

/* Sends everything, turning the loop meanwhile; not for servers that have stopped to read. */
static inline void test_client_send_all(TestHost *h, TestClient *c) {
        for (unsigned i = 0; c->out.len > 0 && i < 20000; i++) {
                test_client_send(c);
                test_host_turn(h);
        }
        ck_assert_uint_eq(c->out.len, 0);
}

static inline void test_client_raw(TestClient *c, const void *data, size_t n) {
        ck_assert_int_eq(eq_buffer_append(&c->out, data, n), 0);
}

/* A request with an empty array of params; type 2: a notification. */
static inline void test_client_call(TestClient *c, uint32_t id, const char *method) {
        msgpack_packer pk = eq_packer(&c->out);
        eq_pack_request(&pk, id, method);
        msgpack_pack_array(&pk, 0);
}

static inline void test_client_notify(TestClient *c, const char *method) {
        msgpack_packer pk = eq_packer(&c->out);
        eq_pack_notify(&pk, method);
        msgpack_pack_array(&pk, 0);
}

static inline void test_client_submit(TestClient *c, uint32_t id, size_t payload) {
        static const char zeros[1 << 20];
        msgpack_packer pk = eq_packer(&c->out);
        eq_pack_request(&pk, id, "submit");
        msgpack_pack_array(&pk, 2);
        eq_pack_cstr(&pk, "q0");
        eq_pack_bin(&pk, eq_bytes(zeros, payload));
}

static inline void test_client_wait(TestClient *c, uint32_t id) {
        msgpack_packer pk = eq_packer(&c->out);
        eq_pack_request(&pk, id, "wait");
        msgpack_pack_array(&pk, 1);
        msgpack_pack_array(&pk, 0);
}

/* A reply of so many bytes. */
static inline void test_client_list(TestClient *c, uint32_t id, size_t bytes) {
        msgpack_packer pk = eq_packer(&c->out);
        eq_pack_request(&pk, id, "list");
        msgpack_pack_array(&pk, 1);
        msgpack_pack_map(&pk, 1);
        eq_pack_cstr(&pk, "from");
        eq_pack_id(&pk, (eq_task_id) { .queue = 1, .seq = bytes });
}

static inline void test_client_receive(TestClient *c) {
        for (;;) {
                ck_assert_int_eq(eq_buffer_reserve(&c->in, 65536), 0);
                ssize_t n = recv(c->fd, c->in.data + c->in.len, 65536, MSG_DONTWAIT);
                if (n <= 0) {
                        c->eof = c->eof || n == 0 || errno == ECONNRESET;
                        return;
                }
                c->in.len += (size_t)n;
        }
}

/* The next whole message that came; it stays valid until the next receive. */
static inline bool test_client_next(TestClient *c, EqMessage *ret) {
        EqScan scan = EQ_SCAN_NULL;

        if (c->in_used == c->in.len) {
                c->in_used = c->in.len = 0;
                test_client_receive(c);
        } else if (eq_scan(&scan, c->in.data + c->in_used, c->in.len - c->in_used, 1 << 30) != EQ_SCAN_DONE)
                test_client_receive(c);
        scan = (EqScan)EQ_SCAN_NULL;
        if (eq_scan(&scan, c->in.data + c->in_used, c->in.len - c->in_used, 1 << 30) != EQ_SCAN_DONE)
                return false;
        ck_assert_int_eq(eq_message_parse(eq_bytes(c->in.data + c->in_used, scan.pos), ret), 0);
        c->in_used += scan.pos;
        return true;
}

/* The next response must be to `id`. Returns its error code, 0 if it went well; *ret (may be NULL) is the message. */
static inline int test_client_expect(TestHost *h, TestClient *c, uint32_t id, EqMessage *ret) {
        EqMessage m;
        eq_error code;
        EqBytes text;

        TURN_UNTIL(h, test_client_next(c, &m));
        ck_assert_int_eq(m.type, EQ_MSG_RESPONSE);
        ck_assert_uint_eq(m.msgid, id);
        if (ret)
                *ret = m;
        if (eq_is_nil(m.error))
                return 0;
        ck_assert_int_eq(eq_get_error(m.error, &code, &text, NULL), 0);
        ck_assert(eq_text_valid(text));
        return (int)code;
}

static inline void test_client_expect_end(TestHost *h, TestClient *c) {
        EqMessage m;
        TURN_UNTIL(h, (test_client_receive(c), c->eof));
        ck_assert(!test_client_next(c, &m));
}

static inline bool test_text_has(EqBytes text, const char *part) {
        return memmem(text.data, text.len, part, strlen(part)) != NULL;
}
