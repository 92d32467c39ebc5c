/* SPDX-License-Identifier: MIT */
/* libeq against an eqd that does as it is told, well or badly. */

#include "eq.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "fake-eqd.h"
#include "proto/memfd.h"
#include "test.h"

typedef struct Got {
        unsigned n;
        int r[8];
        eq_task_id id[8];
        eq_error code[8];
        char text[128];
} Got;

static void on_submit(eq_client *c, int r, eq_task_id id, void *userdata) {
        Got *g = userdata;
        const char *text;

        g->r[g->n] = r;
        g->id[g->n] = id;
        g->code[g->n] = r == -EREMOTEIO ? eq_client_get_error(c, &text) : EQ_E_NONE;
        if (r == -EREMOTEIO)
                (void)snprintf(g->text, sizeof(g->text), "%s", text);
        g->n++;
}

static void on_reply(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        Got *g = userdata;

        g->r[g->n] = r;
        g->code[g->n] = reply ? eq_reply_get_error(reply, NULL) : EQ_E_NONE;
        g->n++;
}

static void dispatch_until(eq_client *c, const Got *g, unsigned n) {
        while (g->n < n)
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
}

static eq_client *connect_fake(FakeEqd *e) {
        eq_client *c = NULL;

        fake_init(e);
        ck_assert_int_eq(eq_client_open(&c, e->path), 0);
        ck_assert_str_eq(eq_client_get_path(c), e->path);
        fake_accept(e);
        return c;
}

/* Runs fn against the fake while the test thread is inside a blocking call. */
typedef struct Script {
        pthread_t thread;
        FakeEqd *e;
        void (*fn)(FakeEqd *e);
} Script;

static void *script_main(void *p) {
        Script *s = p;
        s->fn(s->e);
        return NULL;
}

static void script_start(Script *s, FakeEqd *e, void (*fn)(FakeEqd *e)) {
        *s = (Script) { .e = e, .fn = fn };
        ck_assert_int_eq(pthread_create(&s->thread, NULL, script_main, s), 0);
}

static void script_join(Script *s) {
        ck_assert_int_eq(pthread_join(s->thread, NULL), 0);
}

/* ---- opening ---- */

TEST(opening_a_socket_that_is_not_there_says_so) {
        char longer[200];
        eq_client *c = NULL;

        memset(longer, 'x', sizeof(longer) - 1);
        longer[sizeof(longer) - 1] = 0;
        ck_assert_int_eq(eq_client_open(&c, "/nonexistent/eqd.sock"), -ENOENT);
        ck_assert_int_eq(eq_client_open(&c, longer), -ENAMETOOLONG);
        ck_assert_ptr_null(c);
}

TEST(default_path_takes_the_argument_then_EQD_SOCKET) {
        char buf[108], small[4];

        setenv("EQD_SOCKET", "/from/environment", 1);
        ck_assert_int_eq(eq_client_default_path("/from/argument", buf, sizeof(buf)), 0);
        ck_assert_str_eq(buf, "/from/argument");
        ck_assert_int_eq(eq_client_default_path(NULL, buf, sizeof(buf)), 0);
        ck_assert_str_eq(buf, "/from/environment");
        ck_assert_int_eq(eq_client_default_path(NULL, small, sizeof(small)), -ENAMETOOLONG);
        unsetenv("EQD_SOCKET");
        unsetenv("XDG_RUNTIME_DIR");
        ck_assert_int_eq(eq_client_default_path(NULL, buf, sizeof(buf)), 0);
        ck_assert_str_eq(buf, "/run/eqd/eqd.sock");
}

/* ---- pipelining ---- */

TEST(pipelined_submits_may_be_answered_in_any_order) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = EQ_TASK_INIT;
        Got a = { 0 }, b = { 0 };
        EqMessage m;

        task.payload = "hello";
        task.n_payload = 5;
        ck_assert_int_eq(eq_submit_start(c, "mail", &task, on_submit, &a), 0);
        ck_assert_int_eq(eq_submit_start(c, "mail", &task, on_submit, &b), 0);
        ck_assert_int_eq(eq_client_get_events(c), POLLIN | POLLOUT);
        ck_assert_int_eq(eq_client_flush(c), 0);
        ck_assert_int_eq(eq_client_get_events(c), POLLIN);

        uint32_t first = fake_expect(&e, "submit", &m);
        EqSubmit s;
        EqDecodeError error;
        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, m.params, &s, &error), 0);
        ck_assert(eq_bytes_eq(s.queue, eq_str("mail")));
        ck_assert(eq_bytes_eq(s.payload, eq_str("hello")));
        uint32_t second = fake_expect(&e, "submit", NULL);
        ck_assert_uint_ne(first, second);
        fake_reply_id(&e, second, 7, 2);
        dispatch_until(c, &b, 1);
        ck_assert_uint_eq(a.n, 0);
        fake_reply_error(&e, first, EQ_E_FULL, "mail is full");
        dispatch_until(c, &a, 1);
        ck_assert_int_eq(b.r[0], 0);
        ck_assert_uint_eq(b.id[0].queue, 7);
        ck_assert_uint_eq(b.id[0].seq, 2);
        ck_assert_int_eq(a.r[0], -EREMOTEIO);
        ck_assert_int_eq(a.code[0], EQ_E_FULL);
        ck_assert_str_eq(a.text, "mail is full");
        eq_client_close(c);
        fake_done(&e);
}

TEST(every_option_of_a_task_arrives) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        const char *argv[] = { "/bin/echo", "a b", NULL }, *env[] = { "A=1", NULL }, *rlimits[] = { "nofile=9", NULL };
        eq_task_id after[2] = { { 3, 4 }, { 5, 6 } };
        eq_task task = EQ_TASK_INIT;
        EqDecodeError error;
        EqMessage m;
        EqSubmit s;
        EqBytes text;
        EqIdRef id;

        task.argv = argv, task.env = env, task.rlimits = rlimits, task.cwd = "/tmp", task.label = "l";
        task.after_any = after, task.n_after_any = 2;
        task.delay_usec = 11, task.retries = 3, task.nice = -5, task.umask = 027, task.urgent = true,
        task.ionice = "idle", task.mime = "text/plain", task.array = 7, task.array_limit = 2;
        ck_assert_int_eq(eq_submit_start(c, "q", &task, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_expect(&e, "submit", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, m.params, &s, &error), 0);
        ck_assert_uint_eq(s.argv.n, 2);
        ck_assert(eq_next_bytes(&s.argv, &text) == 1 && eq_bytes_eq(text, eq_str("/bin/echo")));
        ck_assert(eq_next_bytes(&s.argv, &text) == 1 && eq_bytes_eq(text, eq_str("a b")));
        ck_assert(eq_next_bytes(&s.env, &text) == 1 && eq_bytes_eq(text, eq_str("A=1")));
        ck_assert(eq_next_bytes(&s.rlimits, &text) == 1 && eq_bytes_eq(text, eq_str("nofile=9")));
        ck_assert(eq_next_id(&s.after_any, &id) == 1 && id.id.queue == 3 && id.id.seq == 4);
        ck_assert(eq_next_id(&s.after_any, &id) == 1 && id.id.queue == 5 && id.id.seq == 6);
        ck_assert(eq_bytes_eq(s.cwd, eq_str("/tmp")) && eq_bytes_eq(s.label, eq_str("l")));
        ck_assert(eq_bytes_eq(s.ionice, eq_str("idle")) && eq_bytes_eq(s.mime, eq_str("text/plain")));
        ck_assert(s.array == 7 && s.array_limit == 2);
        ck_assert(s.delay_usec == 11 && s.retries == 3 && s.nice == -5 && s.umask == 027 && s.urgent);
        ck_assert(!EQ_HAS(&s, Submit, hold) && !EQ_HAS(&s, Submit, after_ok) && !EQ_HAS(&s, Submit, at_usec));
        eq_client_close(c);
        fake_done(&e);
}

TEST(a_task_of_an_older_caller_has_defaults_behind_its_end) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = EQ_TASK_INIT;
        EqDecodeError error;
        EqMessage m;
        EqSubmit s;

        task.size = offsetof(eq_task, payload);
        task.retries = 9;
        ck_assert_int_eq(eq_submit_start(c, "q", &task, NULL, NULL), 0);
        task.size = 3;
        ck_assert_int_eq(eq_submit_start(c, "q", &task, NULL, NULL), -EINVAL);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_expect(&e, "submit", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, m.params, &s, &error), 0);
        ck_assert(!EQ_HAS(&s, Submit, retries));
        eq_client_close(c);
        fake_done(&e);
}

TEST(what_is_too_large_is_refused_and_leaves_the_stream_whole) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        char *large = calloc(1, EQ_MESSAGE_MAX + 1);
        eq_task task = EQ_TASK_INIT;

        task.payload = large;
        task.n_payload = EQ_PAYLOAD_MAX + 1;
        ck_assert_int_eq(eq_submit_start(c, "q", &task, NULL, NULL), -EMSGSIZE);
        ck_assert_int_eq(eq_client_call_start(c, "ping", large, EQ_MESSAGE_MAX + 1, NULL, 0, NULL, NULL, NULL),
                         -EMSGSIZE);
        ck_assert_int_eq(eq_client_call_start(c, "ping", large, EQ_MESSAGE_MAX, NULL, 0, NULL, NULL, NULL), -EMSGSIZE);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_expect(&e, "ping", NULL);
        free(large);
        eq_client_close(c);
        fake_done(&e);
}

TEST(output_that_the_socket_does_not_take_is_sent_later) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        enum { N = 40 };
        static char payload[EQ_PAYLOAD_FD_MIN];
        eq_task task = EQ_TASK_INIT;
        EqDecodeError error;
        EqMessage m;
        EqSubmit s;

        task.payload = payload;
        task.n_payload = sizeof(payload);
        for (int i = 0; i < N; i++) {
                payload[0] = (char)i;
                ck_assert_int_eq(eq_submit_start(c, "q", &task, NULL, NULL), 0);
        }
        ck_assert_int_eq(eq_client_flush(c), 1);
        ck_assert_int_eq(eq_client_get_events(c), POLLIN | POLLOUT);
        for (int i = 0; i < N; i++) {
                for (;;) {
                        EqScan scan = EQ_SCAN_NULL;
                        eq_buffer_consume(&e.in, e.taken);
                        e.taken = 0;
                        if (e.in.len > 0 && eq_scan(&scan, e.in.data, e.in.len, 8 << 20) == EQ_SCAN_DONE)
                                break;
                        ck_assert_int_ge(eq_client_flush(c), 0);
                        ck_assert_int_gt(fake_receive(&e), 0);
                }
                ck_assert(fake_read(&e, &m));
                ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, m.params, &s, &error), 0);
                ck_assert_uint_eq(s.payload.len, sizeof(payload));
                ck_assert_int_eq(s.payload.data[0], i);
        }
        ck_assert_int_eq(eq_client_flush(c), 0);
        eq_client_close(c);
        fake_done(&e);
}

TEST(descriptors_arrive_with_their_message) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        int p[2], q[2];
        char byte = 0;

        ck_assert_int_eq(pipe(p), 0);
        ck_assert_int_eq(pipe(q), 0);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_call_start(c, "submit", NULL, 0, &p[1], 1, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_call_start(c, "stat", NULL, 0, &q[1], 1, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_call_start(c, "stat", NULL, 0, &(int) { -1 }, 1, NULL, NULL, NULL), -EBADF);
        ck_assert_int_eq(eq_client_call_start(c, "stat", NULL, 0, p, 5, NULL, NULL, NULL), -EINVAL);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_expect(&e, "ping", NULL);
        fake_expect(&e, "submit", NULL);
        ck_assert_uint_ge(e.n_passed, 1);
        ck_assert_int_eq(write(e.passed[0], "x", 1), 1);
        ck_assert_int_eq(read(p[0], &byte, 1), 1);
        ck_assert_int_eq(byte, 'x');
        fake_expect(&e, "stat", NULL);
        ck_assert_uint_eq(e.n_passed, 2);
        ck_assert_int_eq(write(e.passed[1], "y", 1), 1);
        ck_assert_int_eq(read(q[0], &byte, 1), 1);
        ck_assert_int_eq(byte, 'y');
        close(p[0]), close(p[1]), close(q[0]), close(q[1]);
        eq_client_close(c);
        fake_done(&e);
}

TEST(descriptors_that_were_never_sent_are_closed) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);

        ck_assert_int_eq(eq_client_call_start(c, "submit", NULL, 0, &e.listen_fd, 1, NULL, NULL, NULL), 0);
        eq_client_close(c);
        fake_done(&e); /* the frame counts */
}

TEST(what_is_pipelined_behind_a_message_with_descriptors_is_sent_apart) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        EqMessage m;

        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_call_start(c, "submit", NULL, 0, &e.listen_fd, 1, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_call_start(c, "stat", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        while (e.n_passed == 0)
                ck_assert_int_gt(fake_receive(&e), 0);
        fake_expect(&e, "ping", NULL);
        fake_expect(&e, "submit", &m);
        ck_assert_uint_eq(e.in.len, e.taken); /* the last byte that came with it is its own */
        fake_expect(&e, "stat", NULL);
        eq_client_close(c);
        fake_done(&e);
}

static eq_task large_task(void) {
        static char data[EQ_PAYLOAD_FD_MIN + 1];
        eq_task task = EQ_TASK_INIT;
        memset(data, 'x', sizeof(data));
        task.payload = data;
        task.n_payload = sizeof(data);
        return task;
}

static void expect_submit(FakeEqd *e, size_t n_inline, bool by_fd) {
        EqDecodeError error;
        EqMessage m;
        EqSubmit s;
        size_t n;
        fake_expect(e, "submit", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, m.params, &s, &error), 0);
        ck_assert_uint_eq(s.payload.len, n_inline);
        ck_assert(s.payload_fd == by_fd);
        ck_assert_uint_eq(e->n_passed, by_fd ? 1 : 0);
        if (!by_fd)
                return;
        ck_assert_int_eq(eq_memfd_size(e->passed[0], &n), 0);
        ck_assert_uint_eq(n, EQ_PAYLOAD_FD_MIN + 1);
        close(e->passed[--e->n_passed]);
}

/* A payload that is submitted before the answer to hello, which is given then: in the message, whatever its size. */
static void submit_before_hello(FakeEqd *e, eq_client *c, const eq_task *task, Got *got, const EqHelloReply *hello) {
        ck_assert_int_eq(eq_submit_start(c, "q", task, on_submit, got), 0);
        ck_assert_int_ge(eq_client_flush(c), 0);
        uint32_t msgid = fake_expect(e, "hello", NULL);
        expect_submit(e, task->n_payload, false);
        fake_reply_record(e, msgid, &eq_schema_HelloReply, hello);
        ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
}

TEST(large_payloads_go_as_descriptors_once_eqd_has_said_that_it_takes_them) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = large_task();
        EqHelloReply hello = { 0 };
        Got got = { 0 };

        EQ_SET(&hello, HelloReply, payload_fd_min, EQ_PAYLOAD_FD_MIN);
        submit_before_hello(&e, c, &task, &got, &hello);
        ck_assert_int_eq(eq_submit_start(c, "q", &task, on_submit, &got), 0);
        task.n_payload--; /* no more than the limit */
        ck_assert_int_eq(eq_submit_start(c, "q", &task, on_submit, &got), 0);
        ck_assert_int_ge(eq_client_flush(c), 0);
        expect_submit(&e, 0, true);
        expect_submit(&e, task.n_payload, false);
        eq_client_close(c);
        fake_done(&e);
}

TEST(an_eqd_that_says_nothing_of_descriptors_is_sent_none) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = large_task();
        EqHelloReply hello = { 0 };
        Got got = { 0 };

        submit_before_hello(&e, c, &task, &got, &hello);
        ck_assert_int_eq(eq_submit_start(c, "q", &task, on_submit, &got), 0);
        ck_assert_int_ge(eq_client_flush(c), 0);
        expect_submit(&e, task.n_payload, false);
        eq_client_close(c);
        fake_done(&e);
}

/* ---- blocking ---- */

static void answer_submit(FakeEqd *e) {
        fake_reply_id(e, fake_expect(e, "submit", NULL), 9, 1042);
}

TEST(a_blocking_submit_returns_the_id) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = EQ_TASK_INIT;
        eq_task_id id;
        Script s;

        script_start(&s, &e, answer_submit);
        ck_assert_int_eq(eq_submit(c, "q", &task, &id), 0);
        ck_assert_uint_eq(id.queue, 9);
        ck_assert_uint_eq(id.seq, 1042);
        script_join(&s);
        eq_client_close(c);
        fake_done(&e);
}

static void answer_denied(FakeEqd *e) {
        fake_reply_error(e, fake_expect(e, "queue_pause", NULL), EQ_E_DENIED, "not yours");
}

TEST(an_error_of_eqd_is_EREMOTEIO_with_code_and_text) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        const char *text;
        Script s;

        script_start(&s, &e, answer_denied);
        ck_assert_int_eq(eq_queue_pause(c, "q"), -EREMOTEIO);
        ck_assert_int_eq(eq_client_get_error(c, &text), EQ_E_DENIED);
        ck_assert_str_eq(text, "not yours");
        script_join(&s);
        eq_client_close(c);
        fake_done(&e);
}

static void answer_many(FakeEqd *e) {
        EqSubmitManyReply reply = { 0 };
        EqSubmitMany many;
        EqDecodeError error;
        EqSubmit task = { 0 };
        EqMessage m;
        EqBytes raw;

        uint32_t msgid = fake_expect(e, "submit_many", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_SubmitMany, m.params, &many, &error), 0);
        ck_assert_uint_eq(many.tasks.n, 2);
        ck_assert_int_eq(eq_next_raw(&many.tasks, &raw), 1);
        ck_assert(!eq_is_map(raw)); /* a bare payload */
        ck_assert_int_eq(eq_next_raw(&many.tasks, &raw), 1);
        ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, raw, &task, &error), 0);
        ck_assert(eq_bytes_eq(task.label, eq_str("second")));
        EQ_SET(&reply, SubmitManyReply, first, (EqIdRef) { .id = { 4, 100 } });
        EQ_SET(&reply, SubmitManyReply, n, 2);
        fake_reply_record(e, msgid, &eq_schema_SubmitManyReply, &reply);
}

TEST(submitv_sends_one_message_and_returns_the_first_id) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task tasks[2] = { EQ_TASK_INIT, EQ_TASK_INIT };
        eq_task_id first;
        Script s;

        tasks[0].payload = "p", tasks[0].n_payload = 1;
        tasks[1].label = "second";
        script_start(&s, &e, answer_many);
        ck_assert_int_eq(eq_submitv(c, "q", tasks, 2, &first), 0);
        ck_assert_uint_eq(first.seq, 100);
        script_join(&s);
        ck_assert_int_eq(eq_submitv(c, "q", tasks, 0, &first), -EINVAL);
        ck_assert_int_eq(eq_submitv(c, "q", tasks, EQ_BATCH_MAX + 1, &first), -EINVAL);
        eq_client_close(c);
        fake_done(&e);
}

static void answer_keys(FakeEqd *e) {
        EqSubmitManyReply reply = { 0 };
        EqSubmitMany many = { 0 };
        EqDecodeError error;
        EqSubmit task = { 0 };
        EqMessage m;
        EqBytes raw;

        uint32_t msgid = fake_expect(e, "submit_many", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_SubmitMany, m.params, &many, &error), 0);
        ck_assert_int_eq(eq_next_raw(&many.tasks, &raw), 1);
        ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, raw, &task, &error), 0);
        ck_assert(eq_bytes_eq(task.unique, eq_str("k")));
        ck_assert(!EQ_HAS(&task, Submit, on_dup));
        ck_assert_int_eq(eq_next_raw(&many.tasks, &raw), 1);
        ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, raw, &task, &error), 0);
        ck_assert(eq_bytes_eq(task.on_dup, eq_str("replace")));
        ck_assert_int_eq(eq_next_raw(&many.tasks, &raw), 1);
        ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, raw, &task, &error), 0);
        ck_assert(eq_bytes_eq(task.on_dup, eq_str("error")));
        EQ_SET(&reply, SubmitManyReply, first, (EqIdRef) { .id = { 4, 9 } });
        EQ_SET(&reply, SubmitManyReply, n, 3);
        EQ_SET(&reply, SubmitManyReply, ids,
               (EqArray) { .raw = eq_bytes("\x92\x04\x09\x92\x04\x05\x92\x04\x0a", 9), .n = 3 });
        fake_reply_record(e, msgid, &eq_schema_SubmitManyReply, &reply);
}

TEST(batches_with_keys_return_every_id) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task tasks[3] = { EQ_TASK_INIT, EQ_TASK_INIT, EQ_TASK_INIT };
        eq_task_id ids[3];
        Script s;

        tasks[0].unique = "k";
        tasks[1].unique = "other";
        tasks[1].on_dup = EQ_DUP_REPLACE;
        tasks[2].unique = "third";
        tasks[2].on_dup = EQ_DUP_ERROR;
        script_start(&s, &e, answer_keys);
        ck_assert_int_eq(eq_submitv_ids(c, "q", tasks, 3, ids), 0);
        ck_assert_uint_eq(ids[0].seq, 9);
        ck_assert_uint_eq(ids[1].seq, 5);
        ck_assert_uint_eq(ids[2].seq, 10);
        script_join(&s);
        ck_assert_int_eq(eq_submitv(c, "q", tasks, 2, ids), -EINVAL);
        eq_client_close(c);
        fake_done(&e);
}

static void answer_wait(FakeEqd *e) {
        EqTask t = { 0 };

        EQ_SET(&t, Task, id, (EqIdRef) { .id = { 1, 2 } });
        EQ_SET(&t, Task, state, eq_str("DEAD"));
        EQ_SET(&t, Task, exit, 3);
        EQ_SET(&t, Task, attempt, 4);
        fake_reply_list(e, fake_expect(e, "wait", NULL), &eq_schema_Task, &t, 1);
        EQ_SET(&t, Task, state, eq_str("CANCELED"));
        EQ_SET(&t, Task, signal, 15);
        EQ_SET(&t, Task, reason, eq_str("deps-never"));
        t.present &= ~EQ_BIT(Task, exit);
        fake_reply_list(e, fake_expect(e, "show", NULL), &eq_schema_Task, &t, 1);
        fake_reply_error(e, fake_expect(e, "wait", NULL), EQ_E_TIMED_OUT, "too long");
        fake_reply_list(e, fake_expect(e, "show", NULL), &eq_schema_Task, &t, 1);
        EQ_SET(&t, Task, payload, eq_bytes("a\0b", 3));
        fake_reply_list(e, fake_expect(e, "show", NULL), &eq_schema_Task, &t, 1);
}

TEST(wait_and_status_tell_how_a_task_ended) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_status status;
        void *payload;
        size_t n;
        Script s;

        script_start(&s, &e, answer_wait);
        ck_assert_int_eq(eq_wait(c, (eq_task_id) { 1, 2 }, EQ_TIMEOUT_NEVER, &status), 0);
        ck_assert_int_eq(status.state, EQ_STATE_DEAD);
        ck_assert_int_eq(status.exit_status, 3);
        ck_assert_int_eq(status.signal, 0);
        ck_assert_uint_eq(status.attempts, 4);
        ck_assert_uint_eq(status.id.seq, 2);
        ck_assert_int_eq(eq_status_get(c, (eq_task_id) { 1, 2 }, &status), 0);
        ck_assert_int_eq(status.state, EQ_STATE_CANCELED);
        ck_assert_int_eq(status.exit_status, -1);
        ck_assert_int_eq(status.signal, 15);
        ck_assert_int_eq(status.reason, EQ_REASON_DEPS_NEVER);
        ck_assert_int_eq(eq_wait(c, (eq_task_id) { 1, 2 }, UINT64_C(60000000), &status), -ETIMEDOUT);
        ck_assert_int_eq(eq_payload_get(c, (eq_task_id) { 1, 2 }, &payload, &n), -ENODATA);
        ck_assert_int_eq(eq_payload_get(c, (eq_task_id) { 1, 2 }, &payload, &n), 0);
        ck_assert_uint_eq(n, 3);
        ck_assert_mem_eq(payload, "a\0b", 4);
        free(payload);
        script_join(&s);
        eq_client_close(c);
        fake_done(&e);
}

static void answer_others(FakeEqd *e) {
        EqQueue q = { 0 };

        fake_reply_ints(e, fake_expect(e, "cancel", NULL), &(int) { -1 }, 1);
        EQ_SET(&q, Queue, id, 77);
        fake_reply_record(e, fake_expect(e, "queue_show", NULL), &eq_schema_Queue, &q);
        fake_reply_nil(e, fake_expect(e, "ping", NULL));
        fake_reply_record(e, fake_expect(e, "queue_create", NULL), &eq_schema_Queue, &q);
        fake_reply_record(e, fake_expect(e, "queue_set", NULL), &eq_schema_Queue, &q);
        fake_reply_nil(e, fake_expect(e, "queue_rm", NULL));
        fake_reply_nil(e, fake_expect(e, "queue_flush", NULL));
}

TEST(the_other_calls_say_what_they_mean) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        const char *attributes[] = { "max_active=4", NULL };
        eq_task_id id;
        int result = 5;
        Script s;

        script_start(&s, &e, answer_others);
        ck_assert_int_eq(eq_cancel(c, (eq_task_id) { 1, 2 }, true, &result), 0);
        ck_assert_int_eq(result, -1);
        ck_assert_int_eq(eq_task_id_resolve(c, "encode/1042", &id), 0);
        ck_assert(id.queue == 77 && id.seq == 1042);
        ck_assert_int_eq(eq_task_id_resolve(c, "encode", &id), -EINVAL);
        ck_assert_int_eq(eq_ping(c), 0);
        ck_assert_int_eq(eq_queue_create(c, "q", attributes, true), 0);
        ck_assert_int_eq(eq_queue_set(c, "q", attributes), 0);
        ck_assert_int_eq(eq_queue_remove(c, "q", true), 0);
        ck_assert_int_eq(eq_queue_flush(c, "q", EQ_TIMEOUT_NEVER), 0);
        script_join(&s);
        eq_client_close(c);
        fake_done(&e);
}

TEST(a_call_that_is_not_answered_times_out_and_its_late_answer_is_dropped) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        Got g = { 0 };

        eq_client_set_timeout(c, 1000);
        ck_assert_int_eq(eq_ping(c), -ETIMEDOUT);
        uint32_t late = fake_expect(&e, "ping", NULL);
        ck_assert_int_eq(eq_client_call_start(c, "stat", NULL, 0, NULL, 0, on_reply, &g, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        uint32_t now = fake_expect(&e, "stat", NULL);
        fake_reply_nil(&e, late);
        fake_reply_nil(&e, now);
        dispatch_until(c, &g, 1);
        ck_assert_int_eq(g.r[0], 0);
        eq_client_close(c);
        fake_done(&e);
}

/* ---- notifications ---- */

typedef struct Notes {
        unsigned n;
        char method[32];
        int nested;
} Notes;

static void on_notify(eq_client *c, const char *method, const void *params, size_t n, void *userdata) {
        Notes *notes = userdata;

        notes->n++;
        (void)snprintf(notes->method, sizeof(notes->method), "%s", method);
        notes->nested = eq_ping(c);
}

static void notify_then_answer(FakeEqd *e) {
        uint32_t msgid = fake_expect(e, "ping", NULL);
        fake_output(e, 1, 2, 1, "hello");
        fake_output_end(e, 1, 2);
        fake_reply_nil(e, msgid);
}

TEST(notifications_are_delivered_during_a_blocking_call_and_cannot_block_themselves) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        Notes notes = { 0 };
        Script s;

        eq_client_set_notify(c, on_notify, &notes);
        script_start(&s, &e, notify_then_answer);
        ck_assert_int_eq(eq_ping(c), 0);
        script_join(&s);
        ck_assert_uint_eq(notes.n, 2);
        ck_assert_str_eq(notes.method, "output_end");
        ck_assert_int_eq(notes.nested, -EBUSY);
        eq_client_close(c);
        fake_done(&e);
}

/* ---- ends ---- */

TEST(the_end_of_the_connection_answers_every_call) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = EQ_TASK_INIT;
        Got g = { 0 };
        int r;

        ck_assert_int_eq(eq_submit_start(c, "q", &task, on_submit, &g), 0);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &g, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_hangup(&e);
        while ((r = eq_client_dispatch(c, EQ_TIMEOUT_NEVER)) >= 0)
                ;
        ck_assert_int_eq(r, -ECONNRESET);
        ck_assert_uint_eq(g.n, 2);
        ck_assert(g.r[0] == -ECONNRESET && g.r[1] == -ECONNRESET);
        ck_assert_int_eq(eq_ping(c), -ECONNRESET);
        ck_assert_int_eq(eq_submit_start(c, "q", &task, on_submit, &g), -ECONNRESET);
        ck_assert_uint_eq(g.n, 2);
        eq_client_close(c);
        fake_done(&e);
}

TEST(what_a_half_closed_peer_said_is_still_heard) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        Got a = { 0 }, b = { 0 };
        int r;

        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &a, NULL), 0);
        ck_assert_int_eq(eq_client_call_start(c, "stat", NULL, 0, NULL, 0, on_reply, &b, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_reply_nil(&e, fake_expect(&e, "ping", NULL));
        fake_hangup(&e);
        /* Sending fails now (EPIPE); the answer is there nevertheless. */
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &b, NULL), 0);
        while ((r = eq_client_dispatch(c, EQ_TIMEOUT_NEVER)) >= 0)
                ;
        ck_assert_int_eq(r, -ECONNRESET);
        ck_assert(a.n == 1 && a.r[0] == 0);
        ck_assert(b.n == 2 && b.r[0] == -ECONNRESET && b.r[1] == -ECONNRESET);
        eq_client_close(c);
        fake_done(&e);
}

static void expect_garbage(const void *bytes, size_t n) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        Got g = { 0 };

        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &g, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_write(&e, bytes, n);
        ck_assert_int_eq(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), -EBADMSG);
        ck_assert_uint_eq(g.n, 1);
        ck_assert_int_eq(g.r[0], -EBADMSG);
        ck_assert_int_eq(eq_client_get_fd(c), -1);
        eq_client_close(c);
        fake_done(&e);
}

TEST(garbage_ends_the_connection) {
        expect_garbage("\xc1", 1);                  /* starts nothing */
        expect_garbage("\xdd\xff\xff\xff\xff", 5);  /* four thousand million elements */
        expect_garbage("HTTP/1.1 400\r\n", 14);     /* valid MessagePack, no message */
        expect_garbage("\x94\x00\xc0\xa1x\x90", 6); /* a request without a number */
}

static void answer_byte_by_byte(FakeEqd *e) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);

        eq_pack_response(&pk, fake_expect(e, "submit", NULL));
        eq_pack_id(&pk, (eq_task_id) { 1, 70000 });
        for (size_t i = 0; i < b.len; i++)
                fake_write(e, b.data + i, 1);
        eq_buffer_done(&b);
}

TEST(an_answer_in_single_bytes_is_put_together) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = EQ_TASK_INIT;
        eq_task_id id;
        Script s;

        script_start(&s, &e, answer_byte_by_byte);
        ck_assert_int_eq(eq_submit(c, "q", &task, &id), 0);
        ck_assert_uint_eq(id.seq, 70000);
        script_join(&s);
        eq_client_close(c);
        fake_done(&e);
}

TEST(an_error_of_unknown_form_is_an_error_nevertheless) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        Got g = { 0 };
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);

        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &g, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        msgpack_pack_array(&pk, 4);
        msgpack_pack_int(&pk, 1);
        msgpack_pack_uint32(&pk, fake_expect(&e, "ping", NULL));
        eq_pack_cstr(&pk, "no, thanks");
        msgpack_pack_nil(&pk);
        fake_send(&e, &b);
        dispatch_until(c, &g, 1);
        ck_assert_int_eq(g.r[0], -EREMOTEIO);
        ck_assert_int_eq(g.code[0], EQ_E_INTERNAL);
        eq_client_close(c);
        fake_done(&e);
}

TEST(closing_cancels_what_is_outstanding_and_forgotten_calls_stay_silent) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        Got a = { 0 }, b = { 0 };
        eq_call *call;

        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &a, NULL), 0);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &b, &call), 0);
        eq_call_forget(call);
        ck_assert_ptr_null(eq_client_close(c));
        ck_assert(a.n == 1 && a.r[0] == -ECANCELED);
        ck_assert_uint_eq(b.n, 0);
        ck_assert_ptr_null(eq_client_close(NULL));
        fake_done(&e);
}

/* ---- details of errors ---- */

TEST(an_error_says_to_programs_what_they_need_and_forgets_it_with_the_next) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_error_details d = { .size = sizeof(d) };
        eq_task task = EQ_TASK_INIT;
        EqErrorDetails said = { 0 };
        Got g = { 0 };

        EQ_SET(&said, ErrorDetails, queue, eq_str("mail"));
        EQ_SET(&said, ErrorDetails, what, eq_str("tasks"));
        EQ_SET(&said, ErrorDetails, limit, 1000);
        EQ_SET(&said, ErrorDetails, pending, 999);
        EQ_SET(&said, ErrorDetails, retry_after_usec, 25000);
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(eq_submit_start(c, "mail", &task, on_submit, &g), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_reply_error_with(&e, fake_expect(&e, "submit", NULL), EQ_E_FULL, "full", &said);
        dispatch_until(c, &g, 1);
        ck_assert_int_eq(eq_client_get_error(c, NULL), EQ_E_FULL);
        const char *first = NULL;
        for (int i = 0; i < 3; i++) { /* as often as it is asked, and what was told before stays good */
                eq_client_get_error_details(c, &d);
                first = first ?: d.queue;
                ck_assert_ptr_eq(d.queue, first);
                ck_assert_str_eq(d.queue, "mail");
                ck_assert_str_eq(d.what, "tasks");
                ck_assert(d.limit == 1000 && d.pending == 999 && d.retry_after_usec == 25000);
                ck_assert(!d.method && !d.field && !d.pool && !d.param && d.id.queue == 0 && d.id.seq == 0);
        }
        said = (EqErrorDetails) { 0 };
        EQ_SET(&said, ErrorDetails, queue, eq_str("mail"));
        EQ_SET(&said, ErrorDetails, id, (EqIdRef) { .id = { 7, 8 } });
        fake_reply_error_with(&e, fake_expect(&e, "submit", NULL), EQ_E_DUPLICATE, "there is one", &said);
        dispatch_until(c, &g, 2);
        eq_client_get_error_details(c, &d);
        ck_assert(d.id.queue == 7 && d.id.seq == 8 && !d.what && d.limit == 0);
        fake_reply_error(&e, fake_expect(&e, "submit", NULL), EQ_E_FULL, "by an eqd that says no more");
        dispatch_until(c, &g, 3);
        d.size = offsetof(eq_error_details, pool); /* an older caller's */
        d.pool = "its own";
        eq_client_get_error_details(c, &d);
        ck_assert(!d.queue && d.id.seq == 8);
        ck_assert_str_eq(d.pool, "its own");
        eq_client_close(c);
        fake_done(&e);
}

/* ---- futures ---- */

TEST(any_of_many_calls_is_waited_for_in_any_order_and_keeps_its_answer) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        enum { N = 5 };
        eq_call *calls[N];
        uint32_t ids[N];
        eq_reply *reply = NULL;
        EqErrorDetails said = { 0 };
        eq_error_details d = { .size = sizeof(d) };
        size_t n;

        for (int i = 0; i < N; i++)
                ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, &calls[i]), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        for (int i = 0; i < N; i++)
                ids[i] = fake_expect(&e, "ping", NULL);
        ck_assert_int_eq(eq_call_wait(calls[0], 1000, NULL), -ETIMEDOUT); /* and is still there */
        fake_reply_id(&e, ids[3], 1, 3);
        fake_reply_id(&e, ids[0], 1, 0);
        EQ_SET(&said, ErrorDetails, queue, eq_str("q"));
        fake_reply_error_with(&e, ids[1], EQ_E_NO_QUEUE, "no q", &said);
        fake_reply_error(&e, ids[4], EQ_E_DENIED, "not you");

        ck_assert_int_eq(eq_call_wait(calls[4], EQ_TIMEOUT_NEVER, NULL), -EREMOTEIO);
        ck_assert_int_eq(eq_client_get_error(c, NULL), EQ_E_DENIED);
        ck_assert_int_eq(eq_call_wait(calls[1], 0, &reply), -EREMOTEIO); /* came before, and is of this call again */
        ck_assert_int_eq(eq_client_get_error(c, NULL), EQ_E_NO_QUEUE);
        eq_client_get_error_details(c, &d);
        ck_assert_str_eq(d.queue, "q");
        ck_assert_ptr_nonnull(eq_reply_get_details(reply, &n));
        ck_assert_uint_gt(n, 0);
        reply = eq_reply_free(reply);
        for (int i = 3; i >= 0; i -= 3) {
                EqIdRef id;
                ck_assert_int_eq(eq_call_wait(calls[i], 0, &reply), 0);
                const void *result = eq_reply_get_result(reply, &n);
                ck_assert_int_eq(eq_get_id(eq_bytes(result, n), &id), 0);
                ck_assert_uint_eq(id.id.seq, (uint64_t)i);
                ck_assert_ptr_null(eq_reply_get_details(reply, &n));
                reply = eq_reply_free(reply);
        }
        fake_reply_id(&e, ids[2], 1, 2);
        ck_assert_int_eq(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 1);
        eq_call_forget(calls[2]); /* with its answer */
        eq_client_close(c);
        fake_done(&e);
}

TEST(futures_end_with_the_connection_or_the_client_and_those_with_callbacks_are_none) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_call *lost, *left, *forgotten, *with_callback;
        Got g = { 0 };

        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &g, &with_callback), 0);
        ck_assert_int_eq(eq_call_wait(with_callback, 0, NULL), -EINVAL);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, &lost), 0);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, &forgotten), 0);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, &left), 0);
        eq_call_forget(forgotten);
        ck_assert_int_eq(eq_client_flush(c), 0);
        for (int i = 0; i < 4; i++)
                (void)fake_expect(&e, "ping", NULL);
        fake_hangup(&e);
        ck_assert_int_eq(eq_call_wait(lost, EQ_TIMEOUT_NEVER, NULL), -ECONNRESET);
        ck_assert_int_eq(g.r[0], -ECONNRESET);
        ck_assert_ptr_nonnull(left); /* freed with the client */
        eq_client_close(c);
        fake_done(&e);
}

TEST(a_submit_may_be_a_future_as_well) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task task = EQ_TASK_INIT;
        eq_call *calls[4];
        uint32_t msgids[4];
        eq_task_id id = { 0 };

        for (int i = 0; i < 4; i++)
                ck_assert_int_eq(eq_submit_future(c, "mail", &task, &calls[i]), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        for (int i = 0; i < 4; i++)
                msgids[i] = fake_expect(&e, "submit", NULL);
        ck_assert_int_eq(eq_submit_wait(calls[0], 1000, &id), -ETIMEDOUT); /* and is still there */
        fake_reply_id(&e, msgids[2], 7, 2);
        fake_reply_id(&e, msgids[0], 7, 1);
        fake_reply_error(&e, msgids[1], EQ_E_FULL, "no room");
        fake_reply_nil(&e, msgids[3]); /* is no id */

        ck_assert_int_eq(eq_submit_wait(calls[1], EQ_TIMEOUT_NEVER, &id), -EREMOTEIO);
        ck_assert_int_eq(eq_client_get_error(c, NULL), EQ_E_FULL);
        ck_assert_uint_eq(id.seq, 0); /* written on success only */
        ck_assert_int_eq(eq_submit_wait(calls[0], 0, &id), 0);
        ck_assert_uint_eq(id.queue, 7);
        ck_assert_uint_eq(id.seq, 1);
        ck_assert_int_eq(eq_call_wait(calls[2], 0, NULL), 0); /* as any other */
        ck_assert_int_lt(eq_submit_wait(calls[3], EQ_TIMEOUT_NEVER, &id), 0);

        task.size = 1;
        ck_assert_int_eq(eq_submit_future(c, "mail", &task, &calls[0]), -EINVAL);
        task.size = sizeof(task);
        ck_assert_int_eq(eq_submit_future(c, "mail", &task, &calls[0]), 0);
        eq_call_forget(calls[0]);
        ck_assert_int_eq(eq_submit_future(c, "mail", &task, &calls[1]), 0); /* ends with the client */
        ck_assert_int_eq(eq_client_flush(c), 0);
        ck_assert(fake_expect(&e, "submit", NULL) != fake_expect(&e, "submit", NULL)); /* the stream is whole */
        eq_client_close(c);
        fake_done(&e);
}

typedef struct Batches {
        int r[3];
        size_t n_ids;
        eq_task_id last; /* of the ids that came last */
        unsigned n;
} Batches;

static void on_batch(eq_client *c, int r, const eq_task_id *ids, size_t n, void *userdata) {
        Batches *b = userdata;
        b->r[b->n++] = r;
        b->n_ids = n;
        if (n > 0)
                b->last = ids[n - 1];
        else
                ck_assert_ptr_null(ids);
}

static uint32_t expect_batch(FakeEqd *e) {
        EqMessage m;
        return fake_expect(e, "submit_many", &m);
}

static void reply_batch(FakeEqd *e, uint32_t msgid, uint64_t n, bool with_ids) {
        EqSubmitManyReply reply = { 0 };
        EQ_SET(&reply, SubmitManyReply, first, (EqIdRef) { .id = { 4, 100 } });
        EQ_SET(&reply, SubmitManyReply, n, n);
        if (with_ids)
                EQ_SET(&reply, SubmitManyReply, ids,
                       (EqArray) { .raw = eq_bytes("\x92\x04\x64\x92\x04\x05", 6), .n = 2 });
        fake_reply_record(e, msgid, &eq_schema_SubmitManyReply, &reply);
}

TEST(batches_are_pipelined_as_well) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task tasks[2] = { EQ_TASK_INIT, EQ_TASK_INIT };
        Batches b = { 0 };
        uint32_t msgids[3];

        tasks[0].unique = "k";
        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(eq_submitv_start(c, "q", tasks, 2, on_batch, &b), 0);
        ck_assert_int_eq(eq_submitv_start(c, "q", tasks, 0, on_batch, &b), -EINVAL);
        ck_assert_int_eq(eq_submitv_start(c, "q", tasks, EQ_BATCH_MAX + 1, on_batch, &b), -EINVAL);
        ck_assert_int_eq(eq_client_flush(c), 0);
        for (int i = 0; i < 3; i++)
                msgids[i] = expect_batch(&e);
        reply_batch(&e, msgids[2], 2, true);
        while (b.n < 1)
                ck_assert_int_ge(eq_client_dispatch(c, 1000000), 0);
        ck_assert_int_eq(b.r[0], 0);
        ck_assert_uint_eq(b.n_ids, 2);
        ck_assert_uint_eq(b.last.seq, 5);
        fake_reply_error(&e, msgids[0], EQ_E_FULL, "no room");
        while (b.n < 2)
                ck_assert_int_ge(eq_client_dispatch(c, 1000000), 0);
        ck_assert_int_eq(b.r[1], -EREMOTEIO);
        ck_assert_uint_eq(b.n_ids, 0);
        reply_batch(&e, msgids[1], 3, false); /* of two */
        while (b.n < 3)
                ck_assert_int_ge(eq_client_dispatch(c, 1000000), 0);
        ck_assert_int_eq(b.r[2], -EBADMSG);
        ck_assert_int_eq(eq_submitv_start(c, "q", tasks, 2, NULL, NULL), 0); /* nobody wants to know */
        b.n = 0;
        ck_assert_int_eq(eq_submitv_start(c, "q", tasks, 2, on_batch, &b), 0);
        eq_client_close(c);
        ck_assert_uint_eq(b.n, 1);
        ck_assert_int_eq(b.r[0], -ECANCELED);
        fake_done(&e);
}

TEST(a_batch_may_be_a_future_as_well) {
        FakeEqd e;
        eq_client *c = connect_fake(&e);
        eq_task tasks[2] = { EQ_TASK_INIT, EQ_TASK_INIT };
        eq_task_id ids[2] = { 0 };
        eq_call *calls[3];
        uint32_t msgids[3];

        for (int i = 0; i < 3; i++)
                ck_assert_int_eq(eq_submitv_future(c, "q", tasks, 2, &calls[i]), 0);
        ck_assert_int_eq(eq_submitv_future(c, "q", tasks, 0, &calls[0]), -EINVAL);
        ck_assert_int_eq(eq_client_flush(c), 0);
        for (int i = 0; i < 3; i++)
                msgids[i] = expect_batch(&e);
        ck_assert_int_eq(eq_submitv_wait(calls[0], 1000, ids, 2), -ETIMEDOUT); /* and is still there */
        reply_batch(&e, msgids[1], 2, false);
        reply_batch(&e, msgids[0], 2, true);
        fake_reply_error(&e, msgids[2], EQ_E_FULL, "no room");
        ck_assert_int_eq(eq_submitv_wait(calls[2], EQ_TIMEOUT_NEVER, ids, 2), -EREMOTEIO);
        ck_assert_uint_eq(ids[0].seq, 0); /* written on success only */
        ck_assert_int_eq(eq_submitv_wait(calls[0], EQ_TIMEOUT_NEVER, ids, 2), 0);
        ck_assert_uint_eq(ids[1].seq, 5);
        ck_assert_int_eq(eq_submitv_wait(calls[1], EQ_TIMEOUT_NEVER, ids, 2), 0);
        ck_assert_uint_eq(ids[0].queue, 4);
        ck_assert_uint_eq(ids[1].seq, 101);
        eq_client_close(c);
        fake_done(&e);
}

/* Payloads that would be descriptors are bytes, without a question whether eqd takes some. */
TEST(a_connection_of_somebody_else_passes_no_descriptors_and_does_not_come_back) {
        static const char payload[EQ_PAYLOAD_FD_MIN + 1];
        eq_task task = { .size = sizeof(task), .payload = payload, .n_payload = sizeof(payload) };
        eq_reconnect policy = EQ_RECONNECT_INIT;
        eq_client *c = NULL;
        eq_call *call;
        EqDecodeError error;
        EqMessage m;
        EqSubmit s = { 0 };
        FakeEqd e;
        int fds[2], pipes[2], null = 0;

        fake_init(&e);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
        ck_assert_int_eq(eq_client_open_fd(&c, pipes[0]), -ENOTSOCK);
        ck_assert_int_eq(eq_client_open_fd(&c, e.listen_fd + 1000), -EBADF);
        ck_assert_ptr_null(c);
        ck_assert_int_eq(fcntl(pipes[0], F_GETFL) & O_NONBLOCK, 0); /* as it was, and the caller's */
        close(pipes[0]), close(pipes[1]);
        ck_assert_int_eq(eq_client_open_fd(&c, fds[0]), 0);
        ck_assert_int_eq(eq_client_get_fd(c), fds[0]);
        ck_assert_ptr_null(eq_client_get_path(c));
        ck_assert_int_eq(eq_client_set_reconnect(c, &policy), -EOPNOTSUPP);
        e.fd = fds[1];
        ck_assert_int_eq(eq_client_call_start(c, "submit", NULL, 0, &null, 1, NULL, NULL, NULL), -EOPNOTSUPP);
        for (int i = 0; i < 2; i++) {
                ck_assert_int_eq(eq_submit_future(c, "q", &task, &call), 0);
                eq_call_forget(call);
                ck_assert_int_eq(eq_client_flush(c), 0);
                fake_expect(&e, "submit", &m); /* and no hello */
                ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, m.params, &s, &error), 0);
                ck_assert_uint_eq(s.payload.len, sizeof(payload));
                ck_assert_uint_eq(e.n_passed, 0);
        }
        fake_hangup(&e);
        ck_assert_int_eq(eq_ping(c), -ECONNRESET);
        eq_client_close(c); /* fds[0] with it: else it would leak */
        fake_done(&e);
}

RUN_TESTS("client", 20, test_a_connection_of_somebody_else_passes_no_descriptors_and_does_not_come_back,
          test_a_submit_may_be_a_future_as_well, test_batches_are_pipelined_as_well,
          test_a_batch_may_be_a_future_as_well,
          test_an_error_says_to_programs_what_they_need_and_forgets_it_with_the_next,
          test_any_of_many_calls_is_waited_for_in_any_order_and_keeps_its_answer,
          test_futures_end_with_the_connection_or_the_client_and_those_with_callbacks_are_none,
          test_opening_a_socket_that_is_not_there_says_so, test_default_path_takes_the_argument_then_EQD_SOCKET,
          test_pipelined_submits_may_be_answered_in_any_order, test_every_option_of_a_task_arrives,
          test_a_task_of_an_older_caller_has_defaults_behind_its_end,
          test_what_is_too_large_is_refused_and_leaves_the_stream_whole,
          test_output_that_the_socket_does_not_take_is_sent_later, test_descriptors_arrive_with_their_message,
          test_descriptors_that_were_never_sent_are_closed,
          test_what_is_pipelined_behind_a_message_with_descriptors_is_sent_apart,
          test_large_payloads_go_as_descriptors_once_eqd_has_said_that_it_takes_them,
          test_an_eqd_that_says_nothing_of_descriptors_is_sent_none, test_a_blocking_submit_returns_the_id,
          test_an_error_of_eqd_is_EREMOTEIO_with_code_and_text, test_submitv_sends_one_message_and_returns_the_first_id,
          test_batches_with_keys_return_every_id, test_wait_and_status_tell_how_a_task_ended,
          test_the_other_calls_say_what_they_mean,
          test_a_call_that_is_not_answered_times_out_and_its_late_answer_is_dropped,
          test_notifications_are_delivered_during_a_blocking_call_and_cannot_block_themselves,
          test_the_end_of_the_connection_answers_every_call, test_what_a_half_closed_peer_said_is_still_heard,
          test_garbage_ends_the_connection, test_an_answer_in_single_bytes_is_put_together,
          test_an_error_of_unknown_form_is_an_error_nevertheless,
          test_closing_cancels_what_is_outstanding_and_forgotten_calls_stay_silent)
