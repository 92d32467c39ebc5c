/* SPDX-License-Identifier: MIT */
/* Answers that wait for the store. A `reload` stands for a change: it writes one record. */
#include "server/output.h"

#include "server-host.h"

static TestHost h;
static TestClient a, b;
static uint64_t written;

static void change(void *host, const Request *rq, const void *params) {
        written++;
        request_reply_nil(rq);
}

static void start(void) {
        test_host_start(&h);
        h.everybody_is_admin = true;
        h.handlers[EQ_METHOD_RELOAD] = change;
        h.server->written = &written;
        test_client_open(&h, &a);
        test_client_open(&h, &b);
}

static void stop(void) {
        test_client_close(&a);
        test_client_close(&b);
        TURN_UNTIL(&h, h.server->n_sessions == 0);
        ck_assert(list_is_empty(&h.server->held));
        test_host_stop(&h);
}

static void nothing_comes(TestClient *c) {
        EqMessage m;
        for (int i = 0; i < 3; i++) {
                test_host_turn(&h);
                ck_assert(!test_client_next(c, &m));
        }
}

static void expect(TestClient *c, uint32_t id) {
        ck_assert_int_eq(test_client_expect(&h, c, id, NULL), 0);
}

TEST(an_answer_that_speaks_of_a_change_waits_until_that_is_durable) {
        start();
        test_client_call(&a, 1, "reload");
        test_client_send_all(&h, &a);
        nothing_comes(&a);
        ck_assert_uint_eq(written, 1);
        server_durable(h.server, 1);
        expect(&a, 1);
        stop();
}

TEST(answers_before_it_and_to_others_do_not_wait) {
        start();
        test_client_call(&a, 1, "ping");
        test_client_call(&a, 2, "reload");
        test_client_call(&b, 3, "ping");
        test_client_send_all(&h, &a);
        test_client_send_all(&h, &b);
        expect(&a, 1);
        expect(&b, 3);
        nothing_comes(&a);
        server_durable(h.server, 1);
        expect(&a, 2);
        test_client_call(&a, 4, "ping");
        test_client_send_all(&h, &a);
        expect(&a, 4);
        stop();
}

TEST(answers_behind_it_keep_their_order) {
        start();
        test_client_call(&a, 1, "reload");
        test_client_call(&a, 2, "ping");
        test_client_send_all(&h, &a);
        nothing_comes(&a);
        server_durable(h.server, 1);
        expect(&a, 1);
        expect(&a, 2);
        stop();
}

TEST(of_many_changes_none_is_answered_early) {
        start();
        for (uint32_t i = 1; i <= 3 * SESSION_HOLDS_MAX; i++)
                test_client_call(&a, i, "reload");
        test_client_send_all(&h, &a);
        uint32_t n_answered = 0;
        for (uint64_t durable = 1; durable <= 3 * SESSION_HOLDS_MAX; durable++) {
                EqMessage m;
                server_durable(h.server, durable);
                test_host_turn(&h);
                while (test_client_next(&a, &m)) {
                        ck_assert_uint_eq(m.msgid, ++n_answered);
                        ck_assert_uint_le(n_answered, durable);
                }
        }
        ck_assert_uint_eq(n_answered, 3 * SESSION_HOLDS_MAX);
        stop();
}

TEST(a_deferred_answer_waits_if_its_handler_says_so) {
        start();
        test_client_wait(&a, 1);
        test_client_wait(&a, 2);
        test_client_send_all(&h, &a);
        TURN_UNTIL(&h, h.n_pending == 2);
        written = 7;
        test_host_answer(&h, 0); /* says nothing */
        expect(&a, 1);
        PendingRequest *p = h.pending[1];
        request_reply_nil(&p->request);
        request_hold(&p->request);
        pending_request_done(p);
        nothing_comes(&a);
        server_durable(h.server, 6);
        nothing_comes(&a);
        server_durable(h.server, 7);
        expect(&a, 2);
        stop();
}

TEST(what_cannot_become_durable_is_not_answered_and_only_that_connection_ends) {
        start();
        test_client_call(&a, 1, "reload");
        test_client_send_all(&h, &a);
        nothing_comes(&a);
        server_not_durable(h.server);
        test_client_expect_end(&h, &a);
        test_client_call(&b, 2, "ping");
        test_client_send_all(&h, &b);
        expect(&b, 2);
        stop();
}

/* It was mute for ever. */
TEST(what_is_told_after_that_and_cannot_become_durable_ends_its_connection_too) {
        start();
        server_durable(h.server, 3);
        server_not_durable(h.server);
        test_client_wait(&a, 1);
        test_client_wait(&b, 2);
        test_client_send_all(&h, &a);
        test_client_send_all(&h, &b);
        TURN_UNTIL(&h, h.n_pending == 2);
        written = 3;
        PendingRequest *p = h.pending[1];
        request_reply_nil(&p->request);
        request_hold(&p->request); /* of what is */
        pending_request_done(p);
        expect(&b, 2);
        written = 4;
        p = h.pending[0];
        request_reply_nil(&p->request);
        request_hold(&p->request);
        pending_request_done(p);
        test_client_expect_end(&h, &a);
        test_client_call(&b, 3, "ping");
        test_client_send_all(&h, &b);
        expect(&b, 3);
        test_client_call(&b, 4, "reload");
        test_client_send_all(&h, &b);
        test_client_expect_end(&h, &b);
        stop();
}

TEST(a_client_that_leaves_before_its_change_is_durable_is_forgotten) {
        start();
        test_client_call(&a, 1, "reload");
        test_client_send_all(&h, &a);
        nothing_comes(&a);
        a.fd = close_fd(a.fd);
        TURN_UNTIL(&h, h.server->n_sessions == 1);
        ck_assert(list_is_empty(&h.server->held));
        server_durable(h.server, 1);
        stop();
}

TEST(a_half_closed_connection_ends_only_after_its_answer) {
        start();
        test_client_call(&a, 1, "reload");
        test_client_send_all(&h, &a);
        ck_assert_int_eq(shutdown(a.fd, SHUT_WR), 0);
        nothing_comes(&a);
        ck_assert(!a.eof);
        server_durable(h.server, 1);
        expect(&a, 1);
        test_client_expect_end(&h, &a);
        stop();
}

/* Each answer is sent at once when the user has no memory for it; one that must wait may not slip out that way. */
TEST(without_memory_for_answers_a_change_is_not_answered_early_either) {
        start();
        h.users.limits[USER_OUTPUT_BYTES] = 1;
        test_client_call(&a, 1, "reload");
        test_client_send_all(&h, &a);
        EqMessage m;
        for (int i = 0; i < 5; i++) {
                test_host_turn(&h);
                ck_assert(!test_client_next(&a, &m));
        }
        stop();
}

RUN_TESTS("output", 30, test_an_answer_that_speaks_of_a_change_waits_until_that_is_durable,
          test_answers_before_it_and_to_others_do_not_wait, test_answers_behind_it_keep_their_order,
          test_of_many_changes_none_is_answered_early, test_a_deferred_answer_waits_if_its_handler_says_so,
          test_what_cannot_become_durable_is_not_answered_and_only_that_connection_ends,
          test_what_is_told_after_that_and_cannot_become_durable_ends_its_connection_too,
          test_a_client_that_leaves_before_its_change_is_durable_is_forgotten,
          test_a_half_closed_connection_ends_only_after_its_answer,
          test_without_memory_for_answers_a_change_is_not_answered_early_either)
