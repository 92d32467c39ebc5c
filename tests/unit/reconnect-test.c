/* SPDX-License-Identifier: MIT */
/* Clients with a policy against an eqd that goes and comes. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>

#include "eq.h"
#include "fake-eqd.h"
#include "test.h"

typedef struct Got {
        unsigned n, n_link, n_canceled, n_ended;
        int r[8], ended[8];
        eq_task_id id[8];
        eq_link link[8];
        int link_r[8];
        uint64_t grace[8];
        char order[32]; /* what happened, a letter each */
} Got;

static void note(Got *g, char what) {
        size_t n = strlen(g->order);
        if (n + 1 < sizeof(g->order))
                g->order[n] = what;
}

static void on_submit(eq_client *c, int r, eq_task_id id, void *userdata) {
        Got *g = userdata;
        note(g, 's');
        g->r[g->n] = r;
        g->id[g->n++] = id;
}

static void on_reply(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        Got *g = userdata;
        note(g, 'r');
        g->r[g->n++] = r;
}

static void on_link(eq_client *c, eq_link event, int r, void *userdata) {
        Got *g = userdata;
        note(g, "LBX"[event]);
        g->link[g->n_link] = event;
        g->link_r[g->n_link++] = r;
}

static eq_client *open_with(FakeEqd *e, Got *g, const eq_reconnect *policy) {
        eq_client *c = NULL;
        *g = (Got) { 0 };
        fake_init(e);
        ck_assert_int_eq(eq_client_open(&c, e->path), 0);
        ck_assert_int_eq(eq_client_set_reconnect(c, policy), 0);
        eq_client_set_link(c, on_link, g);
        fake_accept(e);
        return c;
}

static eq_client *open_fake(FakeEqd *e, Got *g) {
        eq_reconnect p = EQ_RECONNECT_INIT;
        p.first_usec = p.max_usec = 1000;
        return open_with(e, g, &p);
}

static void done(FakeEqd *e, eq_client *c) {
        eq_client_close(c);
        fake_done(e);
}

static void until_link(eq_client *c, const Got *g, unsigned n) {
        while (g->n_link < n)
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
}

static void until_answered(eq_client *c, const Got *g, unsigned n) {
        while (g->n < n)
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
}

/* eqd goes; the client hears of it. */
static void lose(FakeEqd *e, eq_client *c, const Got *g) {
        unsigned n = g->n_link;
        fake_hangup(e);
        until_link(c, g, n + 1);
        ck_assert_int_eq(g->link[n], EQ_LINK_LOST);
        ck_assert_int_eq(g->link_r[n], -ECONNRESET);
}

/* It comes back, and answers hello, after which the client is up if it has nothing else to ask. */
static void come_back(FakeEqd *e, eq_client *c) {
        while (poll(&(struct pollfd) { .fd = e->listen_fd, .events = POLLIN }, 1, 0) == 0)
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
        fake_accept(e);
        ck_assert_int_ge(eq_client_dispatch(c, 0), 0); /* sends */
        fake_take_hello(e);
}

static eq_link_counts counts(const eq_client *c) {
        eq_link_counts n = { .size = sizeof(n) };
        eq_client_get_link(c, &n);
        return n;
}

static void submit(eq_client *c, const char *payload, const char *key, eq_dup dup, Got *g) {
        eq_task t = EQ_TASK_INIT;
        t.payload = payload;
        t.n_payload = strlen(payload);
        t.unique = key;
        t.on_dup = dup;
        ck_assert_int_eq(eq_submit_start(c, "q", &t, on_submit, g), 0);
}

static uint32_t expect_submit(FakeEqd *e, const char *payload, char key[static 64]) {
        EqDecodeError error;
        EqMessage m;
        EqSubmit s;
        uint32_t msgid = fake_expect(e, "submit", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, m.params, &s, &error), 0);
        ck_assert(eq_bytes_eq(s.payload, eq_str(payload)));
        (void)snprintf(key, 64, "%.*s", (int)s.unique.len, s.unique.data);
        return msgid;
}

/* ---- submits ---- */

TEST(submits_without_an_answer_are_sent_again_with_their_keys_in_order) {
        char one[64], two[64], again[64];
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        submit(c, "1", NULL, EQ_DUP_SKIP, &g);
        submit(c, "2", NULL, EQ_DUP_SKIP, &g);
        submit(c, "3", "mine", EQ_DUP_SKIP, &g);
        ck_assert_int_eq(eq_client_flush(c), 0);
        uint32_t first = expect_submit(&e, "1", one);
        expect_submit(&e, "2", two);
        ck_assert(one[0] && two[0] && strcmp(one, two) != 0);
        fake_reply_id(&e, first, 7, 1); /* this one is answered, and stays so */
        until_answered(c, &g, 1);
        lose(&e, c, &g);
        come_back(&e, c);
        uint32_t second = expect_submit(&e, "2", again);
        ck_assert_str_eq(again, two);
        uint32_t third = expect_submit(&e, "3", again);
        ck_assert_str_eq(again, "mine");
        fake_reply_id(&e, second, 7, 2);
        fake_reply_id(&e, third, 7, 3);
        until_answered(c, &g, 3);
        ck_assert_str_eq(g.order, "sLBss");
        for (unsigned i = 0; i < 3; i++)
                ck_assert(g.r[i] == 0 && g.id[i].seq == i + 1);
        ck_assert_uint_eq(counts(c).repeated, 2);
        ck_assert_uint_eq(counts(c).unanswered, 0);
        done(&e, c);
}

TEST(what_may_have_been_carried_out_and_cannot_be_repeated_is_answered_at_once) {
        eq_reconnect p = EQ_RECONNECT_INIT;
        char key[64];
        FakeEqd e;
        Got g;
        p.no_keys = true;
        eq_client *c = open_with(&e, &g, &p);
        submit(c, "bare", NULL, EQ_DUP_SKIP, &g);
        submit(c, "replaces", "k", EQ_DUP_REPLACE, &g);
        submit(c, "errs", "k", EQ_DUP_ERROR, &g);
        ck_assert_int_eq(eq_client_call_start(c, "queue_pause", "\x91\xa1q", 3, NULL, 0, on_reply, &g, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        expect_submit(&e, "bare", key);
        ck_assert_str_eq(key, "");
        lose(&e, c, &g);
        until_answered(c, &g, 4);
        ck_assert_str_eq(g.order, "Lsssr");
        for (unsigned i = 0; i < 4; i++)
                ck_assert_int_eq(g.r[i], -ECONNRESET);
        ck_assert_uint_eq(counts(c).unanswered, 4);
        come_back(&e, c);
        until_link(c, &g, 2); /* and nothing of them was sent */
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_expect(&e, "ping", NULL);
        done(&e, c);
}

TEST(what_never_left_is_sent_whatever_it_is) {
        char key[64];
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        fake_hangup(&e);
        ck_assert_int_eq(eq_client_call_start(c, "queue_pause", "\x91\xa1q", 3, NULL, 0, on_reply, &g, NULL), 0);
        until_link(c, &g, 1);
        ck_assert_int_eq(eq_client_call_start(c, "queue_resume", "\x91\xa1q", 3, NULL, 0, on_reply, &g, NULL), 0);
        submit(c, "while it was away", NULL, EQ_DUP_SKIP, &g);
        ck_assert_uint_eq(g.n, 0);
        ck_assert_int_eq(eq_client_flush(c), 1); /* there is something left */
        come_back(&e, c);
        fake_reply_nil(&e, fake_expect(&e, "queue_pause", NULL));
        fake_reply_nil(&e, fake_expect(&e, "queue_resume", NULL));
        fake_reply_id(&e, expect_submit(&e, "while it was away", key), 7, 1);
        until_answered(c, &g, 3);
        ck_assert(g.r[0] == 0 && g.r[1] == 0 && g.r[2] == 0);
        done(&e, c);
}

/* More than the socket takes, so the end of it was never sent. */
TEST(what_was_sent_in_part_is_sent_again_as_a_whole) {
        static char params[3 << 20];
        FakeEqd e;
        Got g;
        EqMessage m;
        eq_client *c = open_fake(&e, &g);
        memcpy(params, "\x91\xc6\x00\x2f\xff\xf0", 6);
        size_t n = 6 + 0x2ffff0;
        ck_assert_int_eq(eq_client_call_start(c, "queue_drain", params, n, NULL, 0, on_reply, &g, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 1);
        ck_assert_int_gt(fake_receive(&e), 0);
        lose(&e, c, &g);
        ck_assert_uint_eq(g.n, 0);
        while (poll(&(struct pollfd) { .fd = e.listen_fd, .events = POLLIN }, 1, 0) == 0)
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
        fake_accept(&e);
        EqScan scan = EQ_SCAN_NULL;
        for (int n_found = 0; n_found < 2; n_found++) { /* hello, and this */
                while (e.in.len == 0 || eq_scan(&scan, e.in.data, e.in.len, 8 << 20) != EQ_SCAN_DONE) {
                        ck_assert_int_ge(eq_client_dispatch(c, 0), 0);
                        ck_assert_int_gt(fake_receive(&e), 0);
                }
                ck_assert_int_eq(eq_message_parse(eq_bytes(e.in.data, scan.pos), &m), 0);
                if (n_found == 1) {
                        ck_assert(eq_bytes_eq(m.method, eq_str("queue_drain")));
                        ck_assert_uint_eq(m.params.len, n);
                }
                eq_buffer_consume(&e.in, scan.pos);
                scan = (EqScan)EQ_SCAN_NULL;
        }
        done(&e, c);
}

TEST(what_an_eqd_that_stops_refuses_is_for_the_next_one) {
        char key[64], again[64];
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        submit(c, "x", NULL, EQ_DUP_SKIP, &g);
        ck_assert_int_eq(eq_client_call_start(c, "queue_pause", "\x91\xa1q", 3, NULL, 0, on_reply, &g, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_reply_error(&e, expect_submit(&e, "x", key), EQ_E_STOPPING, "eqd is stopping");
        fake_reply_error(&e, fake_expect(&e, "queue_pause", NULL), EQ_E_STOPPING, "eqd is stopping");
        lose(&e, c, &g);
        ck_assert_uint_eq(g.n, 0);
        come_back(&e, c);
        fake_reply_id(&e, expect_submit(&e, "x", again), 7, 1);
        ck_assert_str_eq(key, again);
        fake_reply_nil(&e, fake_expect(&e, "queue_pause", NULL));
        until_answered(c, &g, 2);
        ck_assert(g.r[0] == 0 && g.r[1] == 0);
        done(&e, c);
}

TEST(forgotten_calls_are_not_sent_again) {
        FakeEqd e;
        Got g;
        eq_call *call;
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, on_reply, &g, &call), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        eq_call_forget(call);
        lose(&e, c, &g);
        come_back(&e, c);
        until_link(c, &g, 2);
        ck_assert_int_eq(eq_client_call_start(c, "stat", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_expect(&e, "stat", NULL);
        ck_assert_uint_eq(g.n, 0);
        done(&e, c);
}

TEST(a_descriptor_goes_with_its_request_again) {
        FakeEqd e;
        Got g;
        char b;
        int pipes[2];
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, pipes, 1, on_reply, &g, NULL), 0);
        close(pipes[0]);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_expect(&e, "ping", NULL);
        lose(&e, c, &g);
        come_back(&e, c);
        fake_expect(&e, "ping", NULL);
        ck_assert_uint_eq(e.n_passed, 1);
        ck_assert_int_eq(write(pipes[1], "x", 1), 1);
        ck_assert(read(e.passed[0], &b, 1) == 1 && b == 'x');
        close(pipes[1]);
        done(&e, c);
}

/* ---- what a connection is for ---- */

TEST(the_subscription_is_made_again) {
        FakeEqd e;
        Got g;
        EqMessage m;
        static const char params[] = "\x91\x81\xa5queue\xa1q";
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(eq_client_call_start(c, "subscribe", params, sizeof(params) - 1, NULL, 0, on_reply, &g, NULL),
                         0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        fake_reply_nil(&e, fake_expect(&e, "subscribe", NULL));
        until_answered(c, &g, 1);
        for (int i = 0; i < 2; i++) {
                lose(&e, c, &g);
                come_back(&e, c);
                uint32_t msgid = fake_expect(&e, "subscribe", &m);
                ck_assert(m.params.len == sizeof(params) - 1 && memcmp(m.params.data, params, m.params.len) == 0);
                ck_assert(!counts(c).connected); /* not before that is answered */
                fake_reply_nil(&e, msgid);
                until_link(c, &g, (unsigned)(2 * i) + 2);
                ck_assert(counts(c).connected);
        }
        ck_assert_str_eq(g.order, "rLBLB");
        ck_assert_uint_eq(counts(c).lost, 2);
        done(&e, c);
}

typedef struct Serving {
        pthread_t thread;
        FakeEqd *e;
        unsigned n_queues;
        uint64_t credit, parallel;
        bool rescue;
        char name[16];
} Serving;

static void answer_serve(Serving *s) {
        EqWorkerServeReply reply = { 0 };
        EqDecodeError error;
        EqWorkerServe rec;
        EqMessage m;
        uint32_t msgid = fake_expect(s->e, "worker_serve", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_WorkerServe, m.params, &rec, &error), 0);
        s->n_queues = rec.queues.n;
        s->credit = rec.credit;
        s->parallel = rec.parallel;
        s->rescue = rec.rescue;
        (void)snprintf(s->name, sizeof(s->name), "%.*s", (int)rec.name.len, rec.name.data);
        EQ_SET(&reply, WorkerServeReply, worker, 42);
        fake_reply_record(s->e, msgid, &eq_schema_WorkerServeReply, &reply);
}

static void *serve_main(void *s) {
        answer_serve(s);
        return NULL;
}

static void *credit_main(void *s) {
        fake_reply_nil(((Serving *)s)->e, fake_expect(((Serving *)s)->e, "worker_credit", NULL));
        return NULL;
}

static void serve(eq_client *c, FakeEqd *e, const char *queue, uint32_t credit, const char *name) {
        const char *queues[] = { queue, NULL };
        Serving s = { .e = e };
        ck_assert_int_eq(pthread_create(&s.thread, NULL, serve_main, &s), 0);
        ck_assert_int_eq(eq_worker_serve(c, queues, credit, 2, name, NULL), 0);
        ck_assert_int_eq(pthread_join(s.thread, NULL), 0);
}

static void send_run(FakeEqd *e, uint32_t msgid, uint64_t seq) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqRun rec = { .id.id = { 7, seq }, .queue = eq_str("a"), .attempt = 3, .payload = eq_str("p") };
        eq_pack_request(&pk, msgid, "run");
        eq_pack_params(&pk, &eq_schema_Run, &rec);
        fake_send(e, &b);
}

TEST(a_worker_serves_again_what_it_served_with_the_credit_that_it_had) {
        Serving again = { 0 };
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(eq_worker_set_rescue(c, true), 0);
        serve(c, &e, "a", 5, "press");
        serve(c, &e, "b", 6, NULL);
        serve(c, &e, "a", 7, NULL); /* that one is served already */
        Serving s = { .e = &e };
        ck_assert_int_eq(pthread_create(&s.thread, NULL, credit_main, &s), 0);
        ck_assert_int_eq(eq_worker_set_credit(c, 9), 0);
        ck_assert_int_eq(pthread_join(s.thread, NULL), 0);
        submit(c, "later", NULL, EQ_DUP_SKIP, &g);
        lose(&e, c, &g);
        come_back(&e, c);
        again.e = &e;
        answer_serve(&again); /* before everything else */
        ck_assert_uint_eq(again.n_queues, 2);
        ck_assert(again.credit == 9 && again.parallel == 2 && again.rescue);
        ck_assert_str_eq(again.name, "press");
        fake_expect(&e, "submit", NULL);
        until_link(c, &g, 2);
        done(&e, c);
}

static void on_run(eq_client *c, eq_run *run, void *userdata) {
        eq_run **runs = userdata;
        runs[eq_run_get_id(run).seq] = run;
}

static void on_cancel(eq_client *c, eq_run *run, uint64_t grace_usec, void *userdata) {
        eq_run **runs = userdata;
        ck_assert(eq_run_is_canceled(run) && grace_usec == 0);
        if (eq_run_get_id(run).seq == 2) { /* one is ended right here */
                ck_assert_int_eq(eq_run_fail(run, "too late"), -ESTALE);
                runs[2] = NULL;
        } else
                eq_run_set_userdata(run, runs); /* it was told */
}

TEST(runs_of_a_lost_connection_are_canceled_and_their_answers_refused_and_counted) {
        eq_run *runs[8] = { 0 };
        Serving again = { 0 };
        FakeEqd e;
        EqMessage m;
        Got g;
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(eq_worker_set_callbacks(c, on_run, on_cancel, runs), 0);
        serve(c, &e, "a", 4, NULL);
        for (uint32_t i = 1; i <= 3; i++)
                send_run(&e, i, i);
        while (!runs[3])
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
        lose(&e, c, &g);
        ck_assert_ptr_null(runs[2]);
        ck_assert_ptr_eq(eq_run_get_userdata(runs[1]), runs);
        ck_assert_ptr_eq(eq_run_get_userdata(runs[3]), runs);
        ck_assert_int_eq(eq_run_touch(runs[1], 50, NULL), -ESTALE);
        ck_assert_int_eq(eq_run_complete(runs[1], "r", 1), -ESTALE);
        come_back(&e, c);
        again.e = &e;
        answer_serve(&again);
        until_link(c, &g, 2);
        send_run(&e, 9, 4); /* a lease of the new connection, while one of the old is still there */
        while (!runs[4])
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
        ck_assert_int_eq(eq_run_complete(runs[3], NULL, 0), -ESTALE);
        ck_assert_int_eq(eq_run_complete(runs[4], NULL, 0), 0);
        ck_assert_int_eq(eq_client_flush(c), 0);
        ck_assert(fake_read(&e, &m));
        ck_assert(m.type == EQ_MSG_RESPONSE && m.msgid == 9); /* nothing else was sent */
        ck_assert_uint_eq(counts(c).late, 3);
        ck_assert_uint_eq(again.credit, 4);
        done(&e, c);
}

TEST(runs_of_two_lost_connections_are_all_told) {
        eq_run *runs[8] = { 0 };
        Serving again = { 0 };
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(eq_worker_set_callbacks(c, on_run, on_cancel, runs), 0);
        serve(c, &e, "a", 4, NULL);
        for (uint32_t i = 3; i <= 4; i++) {
                send_run(&e, i, i);
                while (!runs[i])
                        ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
                lose(&e, c, &g);
                ck_assert_ptr_eq(eq_run_get_userdata(runs[i]), runs);
                come_back(&e, c);
                again.e = &e;
                answer_serve(&again);
        }
        done(&e, c); /* frees both */
}

TEST(a_worker_whose_queue_is_refused_says_so_and_is_no_worker_in_silence) {
        const char *text = "";
        eq_run *run;
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        serve(c, &e, "a", 1, NULL);
        lose(&e, c, &g);
        come_back(&e, c);
        fake_reply_error(&e, fake_expect(&e, "worker_serve", NULL), EQ_E_NO_QUEUE, "no queue a");
        int r;
        while ((r = eq_worker_next(c, EQ_TIMEOUT_NEVER, &run)) >= 0)
                ;
        ck_assert_int_eq(r, -EREMOTEIO);
        ck_assert_int_eq(eq_client_get_error(c, &text), EQ_E_NO_QUEUE);
        ck_assert_str_eq(text, "no queue a");
        ck_assert(g.link[1] == EQ_LINK_BROKEN && g.link_r[1] == -EREMOTEIO);
        ck_assert_int_eq(eq_ping(c), -EREMOTEIO);
        done(&e, c);
}

TEST(an_eqd_that_is_still_stopping_is_tried_again) {
        Serving again = { 0 };
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        serve(c, &e, "a", 1, NULL);
        lose(&e, c, &g);
        come_back(&e, c);
        fake_reply_error(&e, fake_expect(&e, "worker_serve", NULL), EQ_E_STOPPING, "eqd is stopping");
        while (poll(&(struct pollfd) { .fd = e.listen_fd, .events = POLLIN }, 1, 0) == 0)
                ck_assert_int_ge(eq_client_dispatch(c, EQ_TIMEOUT_NEVER), 0);
        fake_hangup(&e);
        come_back(&e, c);
        again.e = &e;
        answer_serve(&again);
        until_link(c, &g, 2);
        ck_assert_str_eq(g.order, "LB");
        done(&e, c);
}

/* ---- the end of it ---- */

TEST(an_eqd_that_does_not_come_back_breaks_the_connection_for_good) {
        eq_reconnect p = EQ_RECONNECT_INIT;
        FakeEqd e;
        Got g;
        int r;
        p.first_usec = p.max_usec = 1000;
        p.give_up_usec = 20000;
        eq_client *c = open_with(&e, &g, &p);
        submit(c, "x", NULL, EQ_DUP_SKIP, &g);
        ck_assert_int_eq(eq_client_flush(c), 0);
        unlink(e.path);
        lose(&e, c, &g);
        while ((r = eq_client_dispatch(c, EQ_TIMEOUT_NEVER)) >= 0)
                ;
        ck_assert_int_eq(r, -ENOENT);
        ck_assert_str_eq(g.order, "LXs");
        ck_assert(g.r[0] == -ENOENT && g.link_r[1] == -ENOENT);
        ck_assert_int_eq(eq_ping(c), -ENOENT);
        ck_assert_int_eq(eq_client_set_reconnect(c, &p), -ENOENT);
        done(&e, c);
}

TEST(an_eqd_that_accepts_and_ends_again_and_again_is_given_up_too) {
        eq_reconnect p = EQ_RECONNECT_INIT;
        FakeEqd e;
        Got g;
        int r;
        p.first_usec = p.max_usec = 1000;
        p.give_up_usec = 20000;
        eq_client *c = open_with(&e, &g, &p);
        lose(&e, c, &g);
        while ((r = eq_client_dispatch(c, EQ_TIMEOUT_NEVER)) >= 0)
                if (poll(&(struct pollfd) { .fd = e.listen_fd, .events = POLLIN }, 1, 0) > 0) {
                        fake_accept(&e);
                        fake_hangup(&e);
                }
        ck_assert_int_eq(r, -ECONNRESET);
        ck_assert_str_eq(g.order, "LX");
        ck_assert_uint_eq(counts(c).lost, 1);
        done(&e, c);
}

TEST(a_policy_comes_before_the_first_call_and_can_be_changed_later) {
        eq_reconnect p = EQ_RECONNECT_INIT;
        eq_client *c = NULL;
        FakeEqd e;
        fake_init(&e);
        ck_assert_int_eq(eq_client_open(&c, e.path), 0);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        ck_assert_int_eq(eq_client_set_reconnect(c, &p), -EBUSY);
        ck_assert(counts(c).connected);
        eq_client_close(c);
        ck_assert_int_eq(eq_client_open(&c, e.path), 0);
        ck_assert_int_eq(eq_client_set_reconnect(c, &p), 0);
        int fd = eq_client_get_fd(c);
        ck_assert_int_eq(eq_client_call_start(c, "ping", NULL, 0, NULL, 0, NULL, NULL, NULL), 0);
        p.max_usec *= 2;
        ck_assert_int_eq(eq_client_set_reconnect(c, &p), 0);
        p.max_usec = 1;
        ck_assert_int_eq(eq_client_set_reconnect(c, &p), -EINVAL);
        ck_assert_int_eq(eq_client_get_fd(c), fd);
        done(&e, c);
}

/* ---- the styles ---- */

TEST(a_loop_watches_one_descriptor_over_all_connections) {
        struct epoll_event ev = { .events = EPOLLIN };
        char key[64];
        FakeEqd e;
        Got g;
        int loop = epoll_create1(EPOLL_CLOEXEC);
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(epoll_ctl(loop, EPOLL_CTL_ADD, eq_client_get_fd(c), &ev), 0); /* once */
        ck_assert_int_eq(epoll_wait(loop, &ev, 1, 0), 0);
        for (unsigned i = 0; i < 3; i++) {
                submit(c, "x", NULL, EQ_DUP_SKIP, &g);
                ck_assert_int_eq(eq_client_get_events(c), POLLIN);
                ck_assert_int_eq(epoll_wait(loop, &ev, 1, -1), 1); /* it can be sent */
                ck_assert_int_ge(eq_client_dispatch(c, 0), 0);
                expect_submit(&e, "x", key);
                ck_assert_int_eq(epoll_wait(loop, &ev, 1, 0), 0);
                fake_hangup(&e);
                while (poll(&(struct pollfd) { .fd = e.listen_fd, .events = POLLIN }, 1, 0) == 0) {
                        ck_assert_int_eq(epoll_wait(loop, &ev, 1, -1), 1);
                        ck_assert_int_ge(eq_client_dispatch(c, 0), 0);
                }
                fake_accept(&e);
                fake_take_hello(&e);
                fake_reply_id(&e, expect_submit(&e, "x", key), 7, i);
                while (g.n <= i) {
                        ck_assert_int_eq(epoll_wait(loop, &ev, 1, -1), 1);
                        ck_assert_int_ge(eq_client_dispatch(c, 0), 0);
                }
                ck_assert_int_eq(epoll_wait(loop, &ev, 1, 0), 0); /* and is quiet again */
        }
        close(loop);
        done(&e, c);
}

/* Takes a request, goes, comes back, answers it. */
static void *goes_and_comes(void *userdata) {
        EqSubmitManyReply many = { 0 };
        EqHelloReply hello = { 0 };
        EqTask task = { 0 };
        FakeEqd *e = userdata;
        char key[64];
        EqMessage m;
        static const char *const methods[] = { "submit", "wait", "submit_many" };
        for (unsigned i = 0; i < 3; i++) {
                fake_expect(e, methods[i], NULL);
                fake_hangup(e);
                fake_accept(e);
                fake_reply_record(e, fake_expect(e, "hello", NULL), &eq_schema_HelloReply, &hello);
                if (i == 0) {
                        fake_reply_id(e, expect_submit(e, "b", key), 7, 5);
                } else if (i == 1) {
                        EQ_SET(&task, Task, id, (EqIdRef) { .id = { 7, 5 } });
                        EQ_SET(&task, Task, state, eq_str("DONE"));
                        fake_reply_list(e, fake_expect(e, "wait", NULL), &eq_schema_Task, &task, 1);
                } else {
                        EQ_SET(&many, SubmitManyReply, first, (EqIdRef) { .id = { 7, 6 } });
                        EQ_SET(&many, SubmitManyReply, n, 2);
                        fake_reply_record(e, fake_expect(e, "submit_many", &m), &eq_schema_SubmitManyReply, &many);
                }
        }
        return NULL;
}

TEST(blocking_calls_go_on_over_the_end_of_a_connection) {
        eq_task tasks[2] = { EQ_TASK_INIT, EQ_TASK_INIT };
        pthread_t thread;
        eq_status status;
        eq_task_id id;
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        ck_assert_int_eq(pthread_create(&thread, NULL, goes_and_comes, &e), 0);
        tasks[0].payload = "b";
        tasks[0].n_payload = 1;
        ck_assert_int_eq(eq_submit(c, "q", &tasks[0], &id), 0);
        ck_assert_uint_eq(id.seq, 5);
        ck_assert_int_eq(eq_wait(c, id, EQ_TIMEOUT_NEVER, &status), 0);
        ck_assert_int_eq(status.state, EQ_STATE_DONE);
        ck_assert_int_eq(eq_submitv(c, "q", tasks, 2, &id), 0);
        ck_assert_uint_eq(id.seq, 6);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        ck_assert_uint_eq(counts(c).lost, 3);
        ck_assert_uint_eq(counts(c).repeated, 3);
        done(&e, c);
}

TEST(closing_while_eqd_is_away_cancels_what_waits_for_it) {
        FakeEqd e;
        Got g;
        eq_client *c = open_fake(&e, &g);
        submit(c, "x", NULL, EQ_DUP_SKIP, &g);
        lose(&e, c, &g);
        submit(c, "y", NULL, EQ_DUP_SKIP, &g);
        eq_client_close(c);
        ck_assert(g.n == 2 && g.r[0] == -ECANCELED && g.r[1] == -ECANCELED);
        fake_done(&e);
}

RUN_TESTS("reconnect", 20, test_submits_without_an_answer_are_sent_again_with_their_keys_in_order,
          test_what_may_have_been_carried_out_and_cannot_be_repeated_is_answered_at_once,
          test_what_never_left_is_sent_whatever_it_is, test_what_was_sent_in_part_is_sent_again_as_a_whole,
          test_what_an_eqd_that_stops_refuses_is_for_the_next_one, test_forgotten_calls_are_not_sent_again,
          test_a_descriptor_goes_with_its_request_again, test_the_subscription_is_made_again,
          test_a_worker_serves_again_what_it_served_with_the_credit_that_it_had,
          test_runs_of_a_lost_connection_are_canceled_and_their_answers_refused_and_counted,
          test_runs_of_two_lost_connections_are_all_told,
          test_a_worker_whose_queue_is_refused_says_so_and_is_no_worker_in_silence,
          test_an_eqd_that_is_still_stopping_is_tried_again,
          test_an_eqd_that_does_not_come_back_breaks_the_connection_for_good,
          test_an_eqd_that_accepts_and_ends_again_and_again_is_given_up_too,
          test_a_policy_comes_before_the_first_call_and_can_be_changed_later,
          test_a_loop_watches_one_descriptor_over_all_connections,
          test_blocking_calls_go_on_over_the_end_of_a_connection,
          test_closing_while_eqd_is_away_cancels_what_waits_for_it)
