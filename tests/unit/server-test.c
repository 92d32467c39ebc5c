/* SPDX-License-Identifier: MIT */
#include "server/server.h"

#include <grp.h>

#include "base/fault.h"
#include "server-host.h"

static TestHost h;

static void connect_many(TestClient *clients, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                test_client_connect(&h, &clients[i]);
}

static void close_many(TestClient *clients, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                test_client_close(&clients[i]);
        TURN_UNTIL(&h, h.server->n_sessions == 0);
}

TEST(connections_are_accepted_in_bounded_batches) {
        TestClient c[100];

        test_host_start(&h);
        connect_many(c, 100);
        test_host_turn(&h);
        ck_assert_uint_eq(h.server->n_sessions, SERVER_ACCEPT_BATCH);
        test_host_turn(&h);
        ck_assert_uint_eq(h.server->n_sessions, 100);
        close_many(c, 100);
        ck_assert_uint_eq(h.n_closed, 100);
        test_host_stop(&h);
}

TEST(sessions_know_their_user_and_groups_and_share_them) {
        TestClient c[2];
        gid_t groups[256];

        test_host_start(&h);
        test_client_open(&h, &c[0]);
        test_client_open(&h, &c[1]);
        Session *s = test_first_session(&h);
        Session *t = LIST_ENTRY(s->link.next, Session, link);
        ck_assert_uint_eq(s->identity->uid, geteuid());
        ck_assert_uint_eq(s->identity->gid, getegid());
        int n = getgroups(256, groups);
        ck_assert_int_eq((int)s->identity->n_groups, n);
        for (int i = 0; i < n; i++)
                ck_assert(identity_in_group(s->identity, groups[i]));
        ck_assert_ptr_eq(s->identity, t->identity);
        ck_assert_ptr_eq(s->user, t->user);
        ck_assert_uint_eq(s->user->used[USER_CONNECTIONS], 2);
        close_many(c, 2);
        test_host_stop(&h);
}

TEST(a_hundred_groups_are_read_too) {
        TestClient c;
        gid_t groups[100];

        if (geteuid() != 0) /* needs root for setgroups */
                return;
        test_host_start(&h);
        for (unsigned i = 0; i < 100; i++)
                groups[i] = 5000 + i;
        ck_assert_int_eq(setgroups(100, groups), 0);
        test_client_open(&h, &c);
        ck_assert_uint_eq(test_first_session(&h)->identity->n_groups, 100);
        ck_assert(identity_in_group(test_first_session(&h)->identity, 5099));
        close_many(&c, 1);
        test_host_stop(&h);
}

/* Limits do not hold for uid 0, so a test as root becomes somebody else for the client's side. */
static void connect_as_nobody(TestClient *c) {
        uid_t uid = geteuid();
        ck_assert_int_eq(chmod(h.dir, 0755), 0);
        if (uid == 0)
                ck_assert_int_eq(seteuid(65534), 0);
        test_client_connect(&h, c);
        if (uid == 0)
                ck_assert_int_eq(seteuid(0), 0);
}

TEST(a_connection_over_the_users_limit_gets_an_error_and_the_end) {
        TestClient c[4];
        EqMessage m;
        eq_error code;
        EqBytes text;

        test_host_start(&h);
        h.users.limits[USER_CONNECTIONS] = 3;
        for (unsigned i = 0; i < 4; i++)
                connect_as_nobody(&c[i]);
        ck_assert_int_eq(test_client_expect(&h, &c[3], 0, &m), EQ_E_LIMIT);
        ck_assert_int_eq(eq_get_error(m.error, &code, &text, NULL), 0);
        ck_assert(test_text_has(text, "3 connections"));
        test_client_expect_end(&h, &c[3]);
        ck_assert_uint_eq(h.server->n_sessions, 3);
        ck_assert_uint_eq(h.server->n_refused, 1);

        test_client_close(&c[3]);
        test_client_close(&c[0]); /* room again */
        TURN_UNTIL(&h, h.server->n_sessions == 2);
        connect_as_nobody(&c[0]);
        TURN_UNTIL(&h, h.server->n_sessions == 3);
        close_many(c, 3);
        ck_assert_ptr_null(h.users.by_uid);
        test_host_stop(&h);
}

TEST(without_a_descriptor_left_clients_are_told_and_accepted_again_later) {
        TestClient c[3];
        struct rlimit old, low;

        test_host_start(&h);
        test_client_open(&h, &c[0]);
        connect_many(c + 1, 2);
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &old), 0);
        low = old;
        low.rlim_cur = (rlim_t)c[2].fd + 1; /* every number below is taken */
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
        ck_assert_int_eq(test_client_expect(&h, &c[1], 0, NULL), EQ_E_LIMIT);
        ck_assert_int_eq(test_client_expect(&h, &c[2], 0, NULL), EQ_E_LIMIT);
        ck_assert_uint_eq(h.server->n_refused, 2);
        ck_assert_int_ge(h.server->reserve_fd, 0);
        ck_assert(!uv_is_active((uv_handle_t *)&h.server->poll)); /* no spinning */

        test_client_call(&c[0], 1, "ping"); /* who is connected notices nothing */
        test_client_send(&c[0]);
        ck_assert_int_eq(test_client_expect(&h, &c[0], 1, NULL), 0);

        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &old), 0);
        TestClient late;
        test_client_connect(&h, &late);
        while (h.server->n_sessions < 2)
                uv_run(&h.loop, UV_RUN_ONCE); /* the timer */
        test_client_close(&late);
        close_many(c, 3);
        test_host_stop(&h);
}

TEST(a_shortage_that_lasts_makes_no_busy_loop) {
        TestClient c[2];

        test_host_start(&h);
        fault_set(FAULT_ACCEPT, 1, true);
        test_client_connect(&h, &c[0]);
        ck_assert_int_eq(test_client_expect(&h, &c[0], 0, NULL), EQ_E_LIMIT);
        uv_timer_t *pause = &h.server->accept_retry;
        ck_assert(uv_is_active((uv_handle_t *)pause));
        ck_assert_int_eq(uv_timer_stop(pause), 0); /* else it is over, now and then, before we have turned */
        test_client_connect(&h, &c[1]);
        for (unsigned i = 0; i < 3; i++)
                test_host_turn(&h);
        ck_assert_uint_eq(h.server->n_refused, 1); /* nobody is looked at until the timer */
        fault_set(FAULT_ACCEPT, 0, false);
        uv_timer_set_repeat(pause, 1);
        ck_assert_int_eq(uv_timer_again(pause), 0);
        while (h.server->n_sessions < 1)
                uv_run(&h.loop, UV_RUN_ONCE);
        close_many(c, 2);
        test_host_stop(&h);
}

TEST(after_stop_listening_connections_go_on_and_new_ones_are_refused) {
        TestClient c;
        struct stat st;

        test_host_start(&h);
        test_client_open(&h, &c);
        server_stop_listening(h.server);
        server_stop_listening(h.server);
        ck_assert_int_eq(stat(h.path, &st), -1);
        test_client_call(&c, 1, "ping");
        test_client_send(&c);
        ck_assert_int_eq(test_client_expect(&h, &c, 1, NULL), 0);
        close_many(&c, 1);
        test_host_stop(&h);
}

TEST(the_end_of_the_server_sends_what_is_ready_and_ends_every_session) {
        TestClient c[3];

        test_host_start(&h);
        connect_many(c, 3);
        for (unsigned i = 0; i < 3; i++) {
                test_client_wait(&c[i], i);
                test_client_send(&c[i]);
        }
        TURN_UNTIL(&h, h.n_pending == 3);
        PendingRequest *p = h.pending[0];
        Session *answered = p->request.session;
        uint32_t id = p->request.msgid;
        test_host_answer(&h, 0); /* not sent yet */
        ck_assert_uint_gt(output_pending(answered), 0);
        test_host_stop(&h);
        ck_assert_uint_eq(h.n_gone, 2);
        ck_assert_uint_eq(h.n_closed, 3);

        EqMessage m;
        ck_assert(test_client_next(&c[id], &m));
        ck_assert_uint_eq(m.msgid, id);
        for (unsigned i = 0; i < 3; i++) {
                test_client_receive(&c[i]);
                ck_assert(c[i].eof);
                test_client_close(&c[i]);
        }
}

TEST(an_inherited_socket_is_served_and_its_file_left_to_its_owner) {
        char error[256];
        Listener l = LISTENER_NULL;
        TestClient c;

        test_host_start(&h);
        h.server = server_free(h.server);
        ck_assert_int_eq(uv_run(&h.loop, UV_RUN_DEFAULT), 0);
        ck_assert_int_eq(listener_open(h.path, 0600, (gid_t)-1, error, sizeof(error), &l), 0);
        ServerConfig config = { .listen_fd = dup(l.fd), .group = (gid_t)-1 };
        ck_assert_int_eq(
                server_new(&h.loop, &h.users, &config, &test_hooks, h.handlers, &h, error, sizeof(error), &h.server),
                0);
        server_start(h.server);
        test_client_open(&h, &c);
        close_many(&c, 1);
        server_stop_listening(h.server);
        struct stat st;
        ck_assert_int_eq(stat(h.path, &st), 0);
        listener_close(&l);
        test_host_stop(&h);
}

TEST(a_server_that_cannot_start_says_why_and_leaves_nothing) {
        char error[256] = "";
        Server *second = NULL;

        test_host_start(&h);
        ServerConfig config = { .path = h.path, .listen_fd = -1, .mode = 0600, .group = (gid_t)-1 };
        ck_assert_int_eq(
                server_new(&h.loop, &h.users, &config, &test_hooks, h.handlers, &h, error, sizeof(error), &second),
                -EADDRINUSE);
        ck_assert_ptr_nonnull(strstr(error, "another eqd answers"));
        ck_assert_ptr_null(second);
        for (long nth = 1; nth <= 2; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                error[0] = '\0';
                ck_assert_int_eq(server_new(&h.loop, &h.users, &config, &test_hooks, h.handlers, &h, error,
                                            sizeof(error), &second),
                                 -ENOMEM);
                ck_assert_int_gt((int)strlen(error), 0);
        }
        fault_set(FAULT_ALLOC, 0, false);
        test_host_stop(&h);
}

TEST(hundreds_of_idle_sessions_hold_no_buffers) {
        enum { N = 400 }; /* two descriptors each; 1024 is the usual limit */
        static TestClient c[N];

        test_host_start(&h);
        connect_many(c, N);
        TURN_UNTIL(&h, h.server->n_sessions == N);
        for (unsigned i = 0; i < N; i++) {
                test_client_submit(&c[i], i, 100);
                test_client_send(&c[i]);
        }
        for (unsigned i = 0; i < N; i++)
                ck_assert_int_eq(test_client_expect(&h, &c[i], i, NULL), 0);
        LIST_FOREACH (l, &h.server->sessions) {
                Session *s = LIST_ENTRY(l, Session, link);
                ck_assert(!s->in.buffer.data && !s->out.buffer.data);
        }
        ck_assert_uint_eq(h.server->input_bytes, 0);
        close_many(c, N);
        test_host_stop(&h);
}

RUN_TESTS("server", 60, test_connections_are_accepted_in_bounded_batches,
          test_sessions_know_their_user_and_groups_and_share_them, test_a_hundred_groups_are_read_too,
          test_a_connection_over_the_users_limit_gets_an_error_and_the_end,
          test_without_a_descriptor_left_clients_are_told_and_accepted_again_later,
          test_a_shortage_that_lasts_makes_no_busy_loop,
          test_after_stop_listening_connections_go_on_and_new_ones_are_refused,
          test_the_end_of_the_server_sends_what_is_ready_and_ends_every_session,
          test_an_inherited_socket_is_served_and_its_file_left_to_its_owner,
          test_a_server_that_cannot_start_says_why_and_leaves_nothing, test_hundreds_of_idle_sessions_hold_no_buffers)
