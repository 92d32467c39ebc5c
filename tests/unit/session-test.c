/* SPDX-License-Identifier: MIT */
#include "server/session.h"

#include "base/fault.h"
#include "server-host.h"

/* ---- what the server asks of the kernel; linked with --wrap ---- */

static unsigned n_sends, n_receives;
static int sent_to[8]; /* the first ones, in order */
static bool counting;  /* the server's turn, not a client's call */

ssize_t __real_nowait_send(int fd, const void *data, size_t n);
ssize_t __wrap_nowait_send(int fd, const void *data, size_t n);
ssize_t __real_nowait_receive(int fd, struct msghdr *m);
ssize_t __wrap_nowait_receive(int fd, struct msghdr *m);

/* A client that shares the CPU: it runs as soon as the server has written to it. */
static void (*on_sent)(void);

ssize_t __wrap_nowait_send(int fd, const void *data, size_t n) {
        if (counting && n_sends < ELEMENTSOF(sent_to))
                sent_to[n_sends] = fd;
        n_sends += counting;
        ssize_t sent = __real_nowait_send(fd, data, n);
        if (counting && on_sent) {
                counting = false;
                on_sent();
                counting = true;
        }
        return sent;
}

ssize_t __wrap_nowait_receive(int fd, struct msghdr *m) {
        n_receives += counting;
        return __real_nowait_receive(fd, m);
}

static TestHost h;
static TestClient a, b;

static void start(void) {
        test_host_start(&h);
        test_client_open(&h, &a);
}

static void start_two(void) {
        start();
        test_client_open(&h, &b);
}

static void stop(void) {
        test_client_close(&a);
        if (b.fd > 0)
                test_client_close(&b);
        TURN_UNTIL(&h, h.server->n_sessions == 0);
        ck_assert_uint_eq(h.server->input_bytes, 0);
        test_host_stop(&h);
}

/* ---- the ordinary way ---- */

TEST(pipelined_requests_are_answered_in_order_by_one_receive_and_one_send) {
        start();
        for (uint32_t i = 1; i <= 200; i++)
                test_client_submit(&a, i, 100);
        test_client_send(&a);
        ck_assert_uint_eq(a.out.len, 0);
        counting = true;
        test_host_turn(&h);
        counting = false;
        for (uint32_t i = 1; i <= 200; i++) {
                EqMessage m;
                EqIdRef id;
                ck_assert(test_client_next(&a, &m)); /* that one turn was enough */
                ck_assert_uint_eq(m.msgid, i);
                ck_assert_int_eq(eq_get_id(m.result, &id), 0);
                ck_assert_uint_eq(id.id.seq, i);
        }
        ck_assert_uint_eq(n_sends, 1);
        ck_assert_uint_eq(n_receives, 1);
        stop();
}

/* ---- the time ---- */

static unsigned n_read[2];

static uint64_t tick_monotonic(const Clock *c) {
        return 100 + ++n_read[0];
}

static uint64_t tick_realtime(const Clock *c) {
        return 1000 + ++n_read[1];
}

static const Clock ticking = { .monotonic = tick_monotonic, .realtime = tick_realtime };
static HeldClock held;

/* As a handler of the manager does: it looks at the clocks more than once. */
static void submit_looks(void *host, const Request *rq, const void *params) {
        uint64_t monotonic = clock_monotonic(&held.clock), realtime = clock_realtime(&held.clock);
        ck_assert_uint_eq(clock_monotonic(&held.clock), monotonic);
        ck_assert_uint_eq(clock_realtime(&held.clock), realtime);
        test_handle_submit(host, rq, params);
}

TEST(requests_of_one_read_share_a_time_and_it_goes_on_with_every_sixteenth) {
        start();
        held_clock_init(&held, &ticking);
        h.server->clock = &held;
        h.handlers[EQ_METHOD_SUBMIT] = submit_looks;
        for (uint32_t i = 1; i <= 40; i++)
                test_client_submit(&a, i, 100);
        test_client_send_all(&h, &a);
        TURN_UNTIL(&h, h.n_submits == 40);
        ck_assert_uint_eq(n_read[0], 3);
        ck_assert_uint_eq(n_read[1], 3);
        (void)clock_monotonic(&held.clock); /* outside of that it is not held */
        (void)clock_monotonic(&held.clock);
        ck_assert_uint_eq(n_read[0], 5);
        test_client_submit(&a, 41, 100);
        test_client_send_all(&h, &a);
        TURN_UNTIL(&h, h.n_submits == 41);
        ck_assert_uint_eq(n_read[0], 6); /* another read, another time */
        stop();
}

TEST(a_message_may_arrive_cut_at_every_byte) {
        start();
        test_client_submit(&a, 7, 300);
        test_client_call(&a, 8, "ping");
        size_t len = a.out.len;
        char copy[512];
        ck_assert_uint_lt(len, sizeof(copy));
        memcpy(copy, a.out.data, len);
        for (size_t cut = 0; cut <= len; cut++) {
                a.out.len = 0;
                test_client_raw(&a, copy, cut);
                test_client_send_all(&h, &a);
                test_host_turn(&h);
                test_client_raw(&a, copy + cut, len - cut);
                test_client_send_all(&h, &a);
                ck_assert_int_eq(test_client_expect(&h, &a, 7, NULL), 0);
                ck_assert_int_eq(test_client_expect(&h, &a, 8, NULL), 0);
        }
        for (size_t i = 0; i < len; i++) {
                test_client_raw(&a, copy + i, 1);
                test_client_send_all(&h, &a);
        }
        ck_assert_int_eq(test_client_expect(&h, &a, 7, NULL), 0);
        ck_assert_int_eq(test_client_expect(&h, &a, 8, NULL), 0);
        ck_assert_uint_eq(h.n_submits, len + 2);
        stop();
}

TEST(a_payload_of_the_largest_size_goes_through_and_leaves_no_memory_behind) {
        start();
        for (uint32_t i = 0; i < 3; i++)
                test_client_submit(&a, i, EQ_PAYLOAD_MAX);
        test_client_send_all(&h, &a);
        for (uint32_t i = 0; i < 3; i++)
                ck_assert_int_eq(test_client_expect(&h, &a, i, NULL), 0);
        ck_assert_ptr_null(test_first_session(&h)->in.buffer.data);
        ck_assert_uint_eq(h.server->input_bytes, 0);
        stop();
}

TEST(an_idle_session_costs_less_than_2_kib) {
        start();
        test_client_submit(&a, 1, 100);
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), 0);
        Session *s = test_first_session(&h);
        ck_assert_ptr_null(s->in.buffer.data);
        ck_assert_ptr_null(s->out.buffer.data);
        ck_assert_uint_eq(s->out_charged, 0);
        ck_assert_uint_lt(sizeof(Session), 2048);
        stop();
}

/* ---- bad input ---- */

static void expect_refused(const void *bytes, size_t n, uint32_t id, int code) {
        start_two();
        test_client_raw(&a, bytes, n);
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, id, NULL), code);
        test_client_expect_end(&h, &a);
        test_client_call(&b, 1, "ping"); /* nobody else notices */
        test_client_send(&b);
        ck_assert_int_eq(test_client_expect(&h, &b, 1, NULL), 0);
        stop();
}

TEST(garbage_is_answered_with_an_error_and_the_connection_closed) {
        expect_refused("\xc1", 1, 0, EQ_E_PROTOCOL);
        expect_refused("GET / HTTP/1.1\r\n\r\n", 18, 0, EQ_E_PROTOCOL);
        expect_refused("\x94\x00\x07\xc1", 4, 7, EQ_E_PROTOCOL);         /* the id was read */
        expect_refused("\x94\x00\x07\x01\x90", 5, 7, EQ_E_PROTOCOL);     /* the method is a number */
        expect_refused("\x94\x00\x07\xa4ping\x80", 9, 7, EQ_E_PROTOCOL); /* params are a map */
        expect_refused("\x93\x00\x07\xa4ping", 8, 0, EQ_E_PROTOCOL);     /* one element short */
        expect_refused("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa4ping\x90", 17, 0, EQ_E_PROTOCOL); /* id 2^32 */
        expect_refused("\x94\x01\xa0\xc0\xc0", 5, 0, EQ_E_PROTOCOL); /* a response without an id */
}

TEST(a_length_of_4_gib_dies_at_its_header) {
        expect_refused("\xdd\xff\xff\xff\xff", 5, 0, EQ_E_TOO_LARGE);
        expect_refused("\xc6\xff\xff\xff\xff", 5, 0, EQ_E_TOO_LARGE);
        expect_refused("\x94\x00\x07\xa6submit\x92\xa2q0\xc6\xff\xff\xff\xff", 19, 7, EQ_E_TOO_LARGE);
}

TEST(a_million_nested_arrays_are_no_message_and_no_crash) {
        enum { N = 1000000 };
        start();
        char *deep = malloc(N + 1);
        ck_assert_ptr_nonnull(deep);
        memset(deep, 0x91, N);
        deep[N] = 0;
        test_client_raw(&a, deep, N + 1);
        free(deep);
        test_client_send_all(&h, &a);
        ck_assert_int_eq(test_client_expect(&h, &a, 0, NULL), EQ_E_PROTOCOL);
        test_client_expect_end(&h, &a);
        stop();
}

TEST(half_a_message_and_gone_leaves_nothing) {
        start();
        test_client_submit(&a, 1, EQ_PAYLOAD_MAX);
        a.out.len -= 1;
        test_client_send_all(&h, &a);
        test_host_turn(&h);
        ck_assert_uint_ge(h.server->input_bytes, EQ_PAYLOAD_MAX);
        ck_assert_uint_le(h.server->input_bytes, SESSION_INPUT_MAX);
        test_client_close(&a);
        TURN_UNTIL(&h, h.server->n_sessions == 0);
        ck_assert_uint_eq(h.server->input_bytes, 0);
        ck_assert_uint_eq(h.n_submits, 0);
        ck_assert_ptr_null(h.users.by_uid);
        stop();
}

TEST(input_that_waits_is_limited_per_user) {
        start();
        h.users.limits[USER_INPUT_BYTES] = 200000;
        h.users.unlimited_uid = (uid_t)-1;
        test_first_session(&h)->user->uid = 1000; /* as root would have no limit */
        test_client_submit(&a, 9, 1000000);
        for (unsigned i = 0; i < 100; i++) {
                test_client_send(&a);
                test_host_turn(&h);
        }
        ck_assert_int_eq(test_client_expect(&h, &a, 9, NULL), EQ_E_LIMIT);
        test_client_expect_end(&h, &a);
        stop();
}

/* ---- dispatch ---- */

TEST(an_unknown_method_is_named_in_the_answer_and_the_connection_goes_on) {
        EqMessage m;
        eq_error code;
        EqBytes text;

        start();
        test_client_call(&a, 1, "no\nsuch");
        test_client_call(&a, 2, "ping");
        test_client_call(&a, 3, "stat"); /* known, but nobody handles it here */
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, &m), EQ_E_METHOD);
        ck_assert_int_eq(eq_get_error(m.error, &code, &text, NULL), 0);
        ck_assert(test_text_has(text, "no\\x0asuch"));
        ck_assert_int_eq(test_client_expect(&h, &a, 2, NULL), 0);
        ck_assert_int_eq(test_client_expect(&h, &a, 3, NULL), EQ_E_METHOD);
        stop();
}

TEST(a_wrong_argument_is_an_error_that_names_it) {
        EqMessage m;
        eq_error code;
        EqBytes text;

        start();
        msgpack_packer pk = eq_packer(&a.out);
        eq_pack_request(&pk, 5, "submit");
        msgpack_pack_array(&pk, 2);
        eq_pack_cstr(&pk, "q0");
        msgpack_pack_int(&pk, 3);
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, 5, &m), EQ_E_INVALID);
        ck_assert_int_eq(eq_get_error(m.error, &code, &text, NULL), 0);
        ck_assert(test_text_has(text, "payload"));
        ck_assert_uint_eq(h.n_submits, 0);
        stop();
}

TEST(methods_for_administrators_are_refused_to_others) {
        start();
        test_client_call(&a, 1, "reload");
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), EQ_E_DENIED);
        h.everybody_is_admin = true;
        test_client_open(&h, &b);
        test_client_call(&b, 2, "reload");
        test_client_send(&b);
        ck_assert_int_eq(test_client_expect(&h, &b, 2, NULL), 0);
        stop();
}

TEST(notifications_are_carried_out_never_answered_and_their_errors_counted) {
        start();
        msgpack_packer pk = eq_packer(&a.out);
        eq_pack_notify(&pk, "submit");
        msgpack_pack_array(&pk, 2);
        eq_pack_cstr(&pk, "q0");
        eq_pack_bin(&pk, eq_str("x"));
        test_client_notify(&a, "submit"); /* without arguments */
        test_client_notify(&a, "nonsense");
        test_client_notify(&a, "$/cancel");
        test_client_notify(&a, "ping");
        test_client_notify(&a, "list");
        test_client_raw(&a, "\x94\x01\x05\xc0\xc0", 5); /* a response to nothing */
        test_client_call(&a, 1, "ping");
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), 0); /* the first answer there is */
        ck_assert_uint_eq(h.n_submits, 1);
        ck_assert_uint_eq(h.server->n_notify_errors, 2);
        stop();
}

TEST(hello_agrees_on_the_highest_protocol_both_speak) {
        EqMessage m;
        EqHelloReply reply = { 0 };
        EqDecodeError error;

        start();
        msgpack_packer pk = eq_packer(&a.out);
        for (uint32_t version = 0; version < 100; version += 99) {
                eq_pack_request(&pk, version, "hello");
                msgpack_pack_array(&pk, 1);
                msgpack_pack_map(&pk, 1);
                eq_pack_cstr(&pk, "version");
                msgpack_pack_uint32(&pk, version);
        }
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, 0, NULL), EQ_E_INVALID);
        ck_assert_int_eq(test_client_expect(&h, &a, 99, &m), 0);
        ck_assert_int_eq(eq_decode_map(&eq_schema_HelloReply, m.result, &reply, &error), 0);
        ck_assert_uint_eq(reply.protocol, EQ_PROTOCOL);
        ck_assert_uint_eq(reply.max_message, EQ_MESSAGE_MAX);
        ck_assert_uint_eq(reply.connection, test_first_session(&h)->number);
        stop();
}

/* ---- descriptors ---- */

/* Sends what is packed together with n copies of a descriptor, in one sendmsg. */
static void send_with_fds(TestClient *c, unsigned n) {
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(64 * sizeof(int))];
        } control = { 0 };
        int fds[64];
        struct iovec iov = { c->out.data, c->out.len };
        struct msghdr m = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int))
        };
        struct cmsghdr *header = CMSG_FIRSTHDR(&m);

        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        ck_assert_uint_le(n, 64);
        ck_assert_int_ge(null, 0);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n * sizeof(int));
        for (unsigned i = 0; i < n; i++)
                fds[i] = null;
        memcpy(CMSG_DATA(header), fds, n * sizeof(int));
        ck_assert_int_eq(sendmsg(c->fd, &m, MSG_NOSIGNAL), (ssize_t)c->out.len);
        close(null);
        c->out.len = 0;
}

TEST(of_64_descriptors_none_stays_open) {
        start();
        int before = test_count_fds();
        test_client_call(&a, 1, "ping"); /* takes none */
        send_with_fds(&a, 64);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), 0);
        ck_assert_int_eq(test_count_fds(), before);

        test_client_submit(&a, 2, 10); /* takes one of 64 */
        send_with_fds(&a, 64);
        ck_assert_int_eq(test_client_expect(&h, &a, 2, NULL), 0);
        ck_assert_uint_eq(h.n_fds_taken, 1);
        ck_assert_int_eq(test_count_fds(), before);

        test_client_submit(&a, 3, 10); /* half a message, then gone */
        a.out.len -= 5;
        send_with_fds(&a, 64);
        TURN_UNTIL(&h, test_first_session(&h)->n_fds == EQ_FDS_MAX);
        ck_assert_int_eq(test_count_fds(), before + EQ_FDS_MAX);
        stop();
}

TEST(a_descriptor_belongs_to_the_message_that_it_was_sent_with) {
        start();
        test_client_submit(&a, 1, 10);
        test_client_submit(&a, 2, 10);
        test_client_send(&a);
        test_client_submit(&a, 3, 10);
        send_with_fds(&a, 1);
        test_client_submit(&a, 4, 10);
        test_client_send(&a);
        test_client_submit(&a, 5, 100000); /* in pieces */
        size_t len = a.out.len;
        a.out.len = 1000;
        send_with_fds(&a, 1);
        a.out.len = len;
        eq_buffer_consume(&a.out, 1000);
        test_client_send_all(&h, &a);
        for (uint32_t i = 1; i <= 5; i++)
                ck_assert_int_eq(test_client_expect(&h, &a, i, NULL), 0);
        ck_assert_uint_eq(h.n_fds_taken, 2);
        ck_assert(h.fd_with[2] && h.fd_with[4]);
        stop();
}

/* ---- fairness and slow readers ---- */

TEST(a_client_that_never_reads_costs_bounded_memory_and_delays_nobody) {
        enum { REPLY = 100000, N = 500 };
        start_two();
        List *l = h.server->sessions.next;
        Session *slow = LIST_ENTRY(l, Session, link);
        for (uint32_t i = 0; i < N; i++)
                test_client_list(&a, i, REPLY);
        for (unsigned i = 0; i < 200; i++) {
                test_client_send(&a);
                test_host_turn(&h);
                ck_assert_uint_le(output_pending(slow), EQ_OUTPUT_HIGH + REPLY + 100);
        }
        ck_assert(slow->throttled);
        ck_assert_uint_gt(output_pending(slow), EQ_OUTPUT_LOW);
        ck_assert_uint_ge(slow->out_charged, output_pending(slow));
        uint64_t served = h.server->n_requests;
        for (uint32_t i = 0; i < 10; i++) {
                test_client_call(&b, i, "ping");
                test_client_send(&b);
                ck_assert_int_eq(test_client_expect(&h, &b, i, NULL), 0);
        }
        ck_assert_uint_eq(h.server->n_requests, served + 10); /* nothing of the slow one */

        for (uint32_t i = 0; i < N; i++) { /* it wakes up: nothing was lost */
                test_client_send(&a);
                ck_assert_int_eq(test_client_expect(&h, &a, i, NULL), 0);
        }
        TURN_UNTIL(&h, slow->out_charged == 0);
        ck_assert_uint_gt(h.n_unclogged, 0);
        stop();
}

static void send_response(TestClient *c) {
        msgpack_packer pk = eq_packer(&c->out);
        eq_pack_response(&pk, 1);
        msgpack_pack_nil(&pk);
        test_client_send(c);
}

TEST(a_worker_that_does_not_read_is_heard_all_the_same_up_to_a_bound) {
        enum { REPLY = 100000, N = 60 };
        start_two();
        Session *worker = test_first_session(&h);
        worker->worker = &h; /* nobody looks into it here */
        for (uint32_t i = 0; i < 10; i++)
                test_client_list(&a, i, REPLY);
        test_client_send_all(&h, &a);
        TURN_UNTIL(&h, worker->throttled);
        send_response(&a);
        TURN_UNTIL(&h, h.n_responses == 1);
        for (uint32_t i = 10; i < N; i++)
                test_client_list(&a, i, REPLY);
        test_client_send_all(&h, &a);
        TURN_UNTIL(&h, output_pending(worker) >= SESSION_WORKER_OUTPUT_MAX);
        send_response(&a);
        for (int i = 0; i < 100; i++)
                test_host_turn(&h);
        ck_assert_uint_eq(h.n_responses, 1); /* enough is enough */
        ck_assert_uint_le(output_pending(worker), SESSION_WORKER_OUTPUT_MAX + REPLY + 100);
        for (uint32_t i = 0; i < N; i++)
                ck_assert_int_eq(test_client_expect(&h, &a, i, NULL), 0);
        TURN_UNTIL(&h, h.n_responses == 2);
        stop();
}

TEST(a_worker_that_can_answer_no_more_is_closed_whatever_it_has_not_read) {
        for (int rubbish = 0; rubbish < 2; rubbish++) {
                start_two();
                Session *worker = test_first_session(&h);
                worker->worker = &h;
                for (uint32_t i = 0; i < 10; i++)
                        test_client_list(&a, i, 100000);
                test_client_send_all(&h, &a);
                TURN_UNTIL(&h, worker->throttled);
                if (rubbish)
                        ck_assert_int_eq(send(a.fd, "\xc1", 1, MSG_NOSIGNAL), 1);
                else
                        ck_assert_int_eq(shutdown(a.fd, SHUT_WR), 0);
                TURN_UNTIL(&h, h.n_closed == 1);
                stop();
        }
}

TEST(a_flooding_client_delays_another_by_two_turns_at_most) {
        start_two();
        for (uint32_t i = 0; i < 20000; i++)
                test_client_notify(&a, "ping");
        test_client_send(&a);
        test_host_turn(&h);
        uint64_t served = h.server->n_requests;
        ck_assert_uint_le(served, EQ_QUANTUM_REQUESTS); /* one quantum in one turn */
        for (uint32_t i = 0; i < 10; i++) {
                EqMessage m;
                test_client_send(&a);
                test_client_call(&b, i, "ping");
                test_client_send(&b);
                test_host_turn(&h);
                if (!test_client_next(&b, &m)) {
                        test_host_turn(&h);
                        ck_assert(test_client_next(&b, &m));
                }
                ck_assert_uint_eq(m.msgid, i);
        }
        ck_assert_uint_gt(h.server->n_requests, served + 5 * EQ_QUANTUM_REQUESTS); /* the flood goes on meanwhile */
        TURN_UNTIL(&h, (test_client_send(&a), h.server->n_requests == 20010));
        stop();
}

TEST(requests_beyond_the_pending_ones_allowed_wait_in_the_socket) {
        start();
        for (uint32_t i = 0; i < SESSION_PENDING_MAX; i++)
                test_client_wait(&a, i);
        test_client_call(&a, 5000, "ping");
        test_client_send_all(&h, &a);
        TURN_UNTIL(&h, h.n_pending == SESSION_PENDING_MAX);
        for (unsigned i = 0; i < 10; i++)
                test_host_turn(&h);
        EqMessage m;
        ck_assert(!test_client_next(&a, &m));
        test_host_answer(&h, 3);
        ck_assert_int_eq(test_client_expect(&h, &a, 3, NULL), 0);
        ck_assert_int_eq(test_client_expect(&h, &a, 5000, NULL), 0);
        stop();
        ck_assert_uint_eq(h.n_gone, SESSION_PENDING_MAX - 1);
}

TEST(a_user_over_his_output_limit_loses_the_connection_that_does_not_read_and_no_other) {
        start_two();
        h.users.limits[USER_OUTPUT_BYTES] = 300000;
        test_first_session(&h)->user->uid = 1000; /* both are his */
        for (uint32_t i = 0; i < 8; i++)
                test_client_list(&a, i, 200000);
        test_client_send(&a);
        TURN_UNTIL(&h, h.n_closed == 1);
        test_client_call(&b, 1, "ping");
        test_client_send(&b);
        ck_assert_int_eq(test_client_expect(&h, &b, 1, NULL), 0);
        stop();
}

/* ---- ends ---- */

TEST(after_half_close_the_answers_still_come_and_then_the_end) {
        EqMessage m;
        start();
        test_client_wait(&a, 1);
        test_client_submit(&a, 2, 10);
        test_client_send(&a);
        ck_assert_int_eq(shutdown(a.fd, SHUT_WR), 0);
        ck_assert_int_eq(test_client_expect(&h, &a, 2, NULL), 0);
        for (unsigned i = 0; i < 10; i++)
                test_host_turn(&h);
        ck_assert(!test_client_next(&a, &m));
        ck_assert(!a.eof);
        test_host_answer(&h, 0);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), 0);
        test_client_expect_end(&h, &a);
        ck_assert_uint_eq(h.n_gone, 0);
        stop();
}

TEST(half_close_does_not_keep_the_loop_busy) {
        start();
        test_client_wait(&a, 1);
        test_client_send(&a);
        TURN_UNTIL(&h, h.n_pending == 1);
        ck_assert_int_eq(shutdown(a.fd, SHUT_WR), 0);
        TURN_UNTIL(&h, test_first_session(&h)->eof);
        test_host_turn(&h);
        counting = true;
        for (unsigned i = 0; i < 10; i++)
                test_host_turn(&h);
        counting = false;
        ck_assert_uint_eq(n_receives, 0);
        ck_assert(!uv_is_active((uv_handle_t *)&h.server->turn));
        ck_assert(!uv_is_active((uv_handle_t *)&h.server->flush));
        test_client_close(&a); /* now altogether: that is seen too */
        TURN_UNTIL(&h, h.n_gone == 1 && h.n_closed == 1);
        stop();
}

TEST(what_a_process_sent_before_its_end_is_served_though_others_hold_the_connection) {
        enum { N = EQ_QUANTUM_REQUESTS + 50 }; /* more than one turn */
        start();
        for (uint32_t i = 0; i < N; i++)
                test_client_submit(&a, i, 10);
        test_client_send(&a);
        ck_assert_uint_eq(a.out.len, 0);
        session_peer_ended(test_first_session(&h));
        TURN_UNTIL(&h, h.n_closed == 1);
        ck_assert_uint_eq(h.n_submits, N);
        ck_assert_int_eq(send(a.fd, "x", 1, MSG_NOSIGNAL), -1);
        ck_assert_int_eq(errno, EPIPE);
        stop();
}

TEST(what_a_client_sent_before_it_left_is_served) {
        start();
        for (uint32_t i = 0; i < 1000; i++)
                test_client_submit(&a, i, 10);
        test_client_send(&a);
        ck_assert_uint_eq(a.out.len, 0);
        test_client_close(&a);
        TURN_UNTIL(&h, h.n_closed == 1);
        ck_assert_uint_eq(h.n_submits, 1000);
        stop();
}

TEST(what_a_client_sent_is_served_also_when_it_left_answers_unread) {
        start();
        test_client_call(&a, 1, "ping");
        test_client_send(&a);
        test_host_turn(&h); /* the answer is in its socket, unread: its close is a reset for us */
        for (uint32_t i = 0; i < 1000; i++)
                test_client_submit(&a, i, 10);
        test_client_send(&a);
        test_client_close(&a);
        TURN_UNTIL(&h, h.n_closed == 1);
        ck_assert_uint_eq(h.n_submits, 1000);
        stop();
}

TEST(pending_requests_of_a_client_that_left_are_forgotten) {
        start();
        for (uint32_t i = 0; i < 10; i++)
                test_client_wait(&a, i);
        test_client_send(&a);
        TURN_UNTIL(&h, h.n_pending == 10);
        test_host_answer(&h, 4);
        test_client_close(&a);
        TURN_UNTIL(&h, h.n_closed == 1);
        ck_assert_uint_eq(h.n_gone, 9);
        for (unsigned i = 0; i < 10; i++)
                ck_assert_ptr_null(h.pending[i]);
        stop();
}

TEST(an_answer_after_the_client_left_but_before_that_was_seen_is_harmless) {
        start();
        test_client_wait(&a, 1);
        test_client_send(&a);
        TURN_UNTIL(&h, h.n_pending == 1);
        test_client_close(&a);
        test_host_answer(&h, 0);
        TURN_UNTIL(&h, h.n_closed == 1);
        ck_assert_uint_eq(h.n_gone, 0);
        stop();
}

TEST(deferred_answers_of_one_turn_go_out_in_one_send) {
        start();
        for (uint32_t i = 0; i < 100; i++)
                test_client_wait(&a, i);
        test_client_send(&a);
        TURN_UNTIL(&h, h.n_pending == 100);
        for (unsigned i = 0; i < 100; i++)
                test_host_answer(&h, i);
        counting = true;
        test_host_turn(&h);
        counting = false;
        ck_assert_uint_eq(n_sends, 1);
        for (uint32_t i = 0; i < 100; i++)
                ck_assert_int_eq(test_client_expect(&h, &a, i, NULL), 0);
        stop();
}

/* ---- parked ---- */

static void park_first(void) {
        h.park_until = 7;
        test_client_submit(&a, 1, 10);
        send_with_fds(&a, 1);
        test_client_call(&a, 2, "ping");
        test_client_submit(&a, 3, 10);
        test_client_send(&a);
        TURN_UNTIL(&h, h.n_parked == 1);
        for (unsigned i = 0; i < 10; i++)
                test_host_turn(&h);
        ck_assert_uint_eq(h.n_parked, 1);
        ck_assert(!uv_is_active((uv_handle_t *)&h.server->turn)); /* nor is the loop kept busy */
}

TEST(a_parked_request_keeps_its_descriptor_and_its_place) {
        start();
        park_first();
        server_read(h.server, 6); /* not yet */
        test_host_turn(&h);
        ck_assert_uint_eq(h.n_parked, 1);
        h.park_until = 0;
        server_read(h.server, 7);
        for (uint32_t i = 1; i <= 3; i++) /* in this order */
                ck_assert_int_eq(test_client_expect(&h, &a, i, NULL), 0);
        ck_assert_uint_eq(h.n_fds_taken, 1);
        ck_assert(h.fd_with[0]);
        ck_assert_uint_eq(h.server->n_requests, 3);
        stop();
}

TEST(who_leaves_with_a_parked_request_has_it_served_and_is_closed_then) {
        start();
        park_first();
        test_client_close(&a);
        for (unsigned i = 0; i < 10; i++)
                test_host_turn(&h);
        ck_assert_uint_eq(h.n_closed, 0);
        ck_assert(!uv_is_active((uv_handle_t *)&h.server->turn));
        h.park_until = 0;
        server_read(h.server, 100);
        TURN_UNTIL(&h, h.n_closed == 1);
        ck_assert_uint_eq(h.n_submits, 2);
        stop();
}

TEST(what_is_parked_again_and_again_is_answered_with_an_error) {
        start();
        park_first();
        for (unsigned n = 1; n < SESSION_PARKS_MAX; n++) {
                server_read(h.server, 7);
                TURN_UNTIL(&h, h.n_parked == n + 1);
        }
        server_read(h.server, 7);
        TURN_UNTIL(&h, h.n_parked == SESSION_PARKS_MAX + 2); /* once too often; and the next submit */
        h.park_until = 0;
        server_read(h.server, 7);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), EQ_E_NO_MEMORY);
        ck_assert_int_eq(test_client_expect(&h, &a, 2, NULL), 0);
        stop();
}

/* ---- replies and notifications ---- */

/* As a submit that a sleeping worker gets; `prompt` as its handler says. */
static bool prompt;

static void submit_tells(void *host, const Request *rq, const void *params) {
        NotifyWriter w;
        session_notify_begin(h.subscriber, "event", true, &w);
        msgpack_pack_array(&w.packer, 0);
        session_notify_end(h.subscriber, &w);
        if (prompt)
                session_send_promptly(h.subscriber);
        test_handle_submit(host, rq, params);
}

TEST(what_somebody_sleeps_for_is_sent_before_the_reply_to_who_caused_it_and_only_once) {
        EqMessage m;
        start_two();
        h.handlers[EQ_METHOD_SUBMIT] = submit_tells;
        test_client_call(&b, 1, "subscribe");
        test_client_send_all(&h, &b);
        TURN_UNTIL(&h, test_client_next(&b, &m));
        for (int i = 0; i < 2; i++) {
                prompt = i == 1;
                n_sends = 0;
                for (uint32_t k = 0; k < 3; k++)
                        test_client_submit(&a, k, 100);
                test_client_send(&a);
                ck_assert_uint_eq(a.out.len, 0);
                counting = true;
                TURN_UNTIL(&h, n_sends == 2);
                counting = false;
                ck_assert_int_eq(sent_to[prompt ? 0 : 1], h.subscriber->fd);
                for (uint32_t k = 0; k < 3; k++) {
                        TURN_UNTIL(&h, test_client_next(&a, &m));
                        TURN_UNTIL(&h, test_client_next(&b, &m));
                }
                ck_assert_uint_eq(n_sends, 2);
                ck_assert(list_is_empty(&h.server->prompt));
        }
        stop();
}

TEST(a_reply_over_the_limit_is_replaced_by_an_error) {
        start();
        test_client_list(&a, 1, 1000);
        test_client_list(&a, 2, EQ_MESSAGE_MAX);
        test_client_list(&a, 3, EQ_MESSAGE_MAX - 1000);
        test_client_send(&a);
        ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), 0);
        ck_assert_int_eq(test_client_expect(&h, &a, 2, NULL), EQ_E_TOO_LARGE);
        ck_assert_int_eq(test_client_expect(&h, &a, 3, NULL), 0);
        stop();
}

static void subscribe(TestClient *c) {
        test_client_call(c, 1, "subscribe");
        test_client_send(c);
        ck_assert_int_eq(test_client_expect(&h, c, 1, NULL), 0);
        ck_assert_ptr_nonnull(h.subscriber);
}

static void notify(size_t bytes, bool must) {
        static const char zeros[65536];
        NotifyWriter w;

        session_notify_begin(h.subscriber, "event", must, &w);
        msgpack_pack_array(&w.packer, 1);
        eq_pack_bin(&w.packer, eq_bytes(zeros, bytes));
        session_notify_end(h.subscriber, &w);
}

/* Reads on until `lost` comes or nothing more does; counts the others. */
static uint64_t receive_notifications(unsigned *ret_events) {
        EqMessage m;
        EqArray params;
        EqBytes value;
        uint64_t lost = 0;
        unsigned idle = 0;

        *ret_events = 0;
        while (idle < 20) {
                if (!test_client_next(&a, &m)) {
                        test_host_turn(&h);
                        idle++;
                        continue;
                }
                idle = 0;
                ck_assert_int_eq(m.type, EQ_MSG_NOTIFY);
                if (eq_bytes_eq(m.method, eq_str("event"))) {
                        ++*ret_events;
                        continue;
                }
                ck_assert(eq_bytes_eq(m.method, eq_str("lost")));
                ck_assert_int_eq(eq_get_array(m.params, &params), 0);
                ck_assert_int_eq(eq_next_raw(&params, &value), 1);
                uint64_t n;
                ck_assert_int_eq(eq_get_u64(value, &n), 0);
                lost += n;
        }
        return lost;
}

TEST(a_slow_subscriber_loses_notifications_and_is_told_how_many) {
        unsigned n_events;
        start();
        subscribe(&a);
        for (unsigned i = 0; i < 1000; i++) {
                notify(1000, false);
                test_host_turn(&h);
        }
        ck_assert(session_is_clogged(h.subscriber));
        ck_assert_uint_le(output_pending(h.subscriber), EQ_OUTPUT_HIGH + 2000);
        uint64_t lost = receive_notifications(&n_events);
        ck_assert_uint_gt(lost, 0);
        ck_assert_uint_eq(lost + n_events, 1000);
        ck_assert_uint_eq(h.n_unclogged, 1);
        notify(10, false);
        ck_assert_uint_eq(receive_notifications(&n_events), 0);
        ck_assert_uint_eq(n_events, 1);
        stop();
}

TEST(a_notification_that_must_arrive_is_queued_and_its_producer_told_when_to_go_on) {
        unsigned n_events, n = 0;
        start();
        subscribe(&a);
        for (unsigned round = 1; round <= 5; round++) {
                for (; !session_is_clogged(h.subscriber); n++) {
                        notify(1000, true);
                        if (n % 10 == 0)
                                test_host_turn(&h);
                }
                ck_assert_uint_lt(h.n_unclogged, round);
                ck_assert_uint_eq(receive_notifications(&n_events), 0);
                ck_assert_uint_eq(h.n_unclogged, round);
                n -= n_events;
        }
        ck_assert_uint_eq(n, 0);
        stop();
}

TEST(what_was_lost_is_told_before_what_must_arrive) {
        EqMessage m;
        bool lost = false;
        start();
        subscribe(&a);
        for (unsigned i = 0; i < 1000; i++)
                notify(1000, false); /* all within one turn */
        ck_assert_uint_gt(h.subscriber->n_lost, 0);
        notify(10, true);
        ck_assert_uint_eq(h.subscriber->n_lost, 0);
        for (unsigned n = 1; n > 0;) {
                TURN_UNTIL(&h, test_client_next(&a, &m));
                if (eq_bytes_eq(m.method, eq_str("lost")))
                        lost = true;
                else if (lost)
                        n--;
        }
        stop();
}

TEST(without_memory_for_what_must_arrive_the_connection_ends) {
        start();
        subscribe(&a);
        fault_set(FAULT_ALLOC, 1, false);
        notify(65000, true);
        ck_assert_int_eq(atomic_load(&fault_countdown[FAULT_ALLOC]), 0);
        fault_set(FAULT_ALLOC, 0, false);
        TURN_UNTIL(&h, h.server->n_sessions == 0);
        stop();
}

TEST(notifications_for_which_the_user_has_no_memory_left_are_dropped_and_counted) {
        unsigned n_events;
        start();
        subscribe(&a);
        h.users.limits[USER_OUTPUT_BYTES] = 50000;
        h.subscriber->user->uid = 1000;
        for (unsigned i = 0; i < 100; i++)
                notify(1000, false); /* all within one turn: nothing is sent between */
        uint64_t lost = receive_notifications(&n_events);
        ck_assert_uint_gt(lost, 0);
        ck_assert_uint_eq(lost + n_events, 100);
        stop();
}

TEST(what_is_written_while_flushing_does_not_wait_for_the_next_event) {
        unsigned n_events;
        start();
        subscribe(&a);
        h.users.limits[USER_OUTPUT_BYTES] = 50000;
        h.subscriber->user->uid = 1000;
        for (unsigned i = 0; i < 100; i++)
                notify(1000, false);
        test_host_turn(&h); /* sends, finds room for `lost`, and writes it */
        ck_assert(!list_is_empty(&h.server->to_flush));
        ck_assert_int_eq(uv_backend_timeout(&h.loop), 0); /* the loop will not sleep over it */
        ck_assert_uint_gt(receive_notifications(&n_events), 0);
        ck_assert_int_eq(uv_backend_timeout(&h.loop), -1);
        stop();
}

TEST(whenever_memory_runs_out_the_client_gets_an_error_or_the_end_and_nothing_breaks) {
        bool failed = true;
        for (long nth = 1; failed; nth++) {
                test_host_start(&h);
                test_client_connect(&h, &a);
                test_client_submit(&a, 1, 100000);
                test_client_wait(&a, 2);
                test_client_list(&a, 3, 300000);
                test_client_call(&a, 4, "nonsense");
                fault_set(FAULT_ALLOC, nth, false);
                for (unsigned i = 0; i < 50; i++) {
                        test_client_send(&a);
                        test_host_turn(&h);
                        test_client_receive(&a);
                        if (h.pending[0])
                                test_host_answer(&h, 0);
                }
                failed = atomic_load(&fault_countdown[FAULT_ALLOC]) == 0;
                fault_set(FAULT_ALLOC, 0, false);
                EqMessage m;
                unsigned n_answers = 0;
                while (test_client_next(&a, &m))
                        n_answers++;
                ck_assert_msg(n_answers == 4 || a.eof, "failure %ld: %u answers and no end", nth, n_answers);
                test_client_close(&a);
                TURN_UNTIL(&h, h.server->n_sessions == 0);
                test_host_stop(&h);
                ck_assert_int_lt(nth, 100);
        }
}

/* ---- who asks again while it is answered ---- */

static uint32_t n_asked, n_to_ask;
static size_t size_asked, n_at_once;

static void ask_again(void) {
        if (n_asked >= n_to_ask)
                return;
        for (size_t i = 0; i < n_at_once; i++)
                if (size_asked == 0)
                        test_client_call(&a, ++n_asked, "ping");
                else
                        test_client_submit(&a, ++n_asked, size_asked);
        test_client_send(&a);
        ck_assert_uint_eq(a.out.len, 0);
}

/* One turn of the loop, with a first request; how many were served in it. */
static uint64_t ask_in_a_turn(uint32_t n_most, size_t size, size_t at_once) {
        uint64_t before = h.server->n_requests;
        n_asked = 0;
        n_to_ask = n_most;
        size_asked = size;
        n_at_once = at_once;
        on_sent = ask_again;
        ask_again();
        n_sends = n_receives = 0;
        counting = true;
        test_host_turn(&h);
        counting = false;
        on_sent = NULL;
        return h.server->n_requests - before;
}

static void finish_asking(void) {
        EqMessage m;
        for (uint32_t i = 1; i <= n_asked; i++)
                ck_assert_int_eq(test_client_expect(&h, &a, i, &m), 0);
}

TEST(who_asks_again_while_it_is_answered_is_answered_in_the_same_turn) {
        start();
        ck_assert_uint_eq(ask_in_a_turn(5, 100, 1), 5);
        ck_assert_uint_eq(n_sends, 5);
        ck_assert_uint_eq(n_receives, 6); /* the last one finds nothing */
        finish_asking();
        stop();
}

TEST(who_always_asks_again_leaves_the_turn_to_others_after_a_bounded_time) {
        start_two();
        test_client_submit(&b, 1, 100);
        test_client_send(&b);
        ck_assert_uint_eq(ask_in_a_turn(1000, 100, 1), 1 + SESSION_AHEAD_MAX + 1);
        ck_assert_int_eq(test_client_expect(&h, &b, 1, NULL), 0);
        finish_asking();
        ck_assert_uint_eq(ask_in_a_turn(1000, SESSION_AHEAD_BYTES, 1), 1); /* what is larger has no part in it */
        finish_asking();
        size_t small = 18;
        ck_assert_uint_gt((1 + SESSION_AHEAD_MAX) * small, EQ_QUANTUM_REQUESTS + small);
        uint64_t n = ask_in_a_turn(1000, 0, small);
        ck_assert_uint_ge(n, EQ_QUANTUM_REQUESTS);
        ck_assert_uint_lt(n, EQ_QUANTUM_REQUESTS + small);
        finish_asking();
        stop();
}

TEST(where_nobody_asks_again_it_is_looked_for_ever_more_seldom_and_found_all_the_same) {
        start();
        for (unsigned i = 0; i < 300; i++)
                ck_assert_uint_eq(ask_in_a_turn(1, 100, 1), 1);
        unsigned n_looks = 0;
        for (unsigned i = 0; i < 2 * (SESSION_AHEAD_SKIP_MAX + 1); i++) {
                ck_assert_uint_eq(ask_in_a_turn(1, 100, 1), 1);
                n_looks += n_receives - 1;
                ck_assert_int_eq(test_client_expect(&h, &a, 1, NULL), 0);
        }
        ck_assert_uint_eq(n_looks, 2);
        do
                ck_assert_uint_eq(ask_in_a_turn(1, 100, 1), 1);
        while (n_receives == 1);
        for (unsigned i = 0; i < SESSION_AHEAD_SKIP_MAX; i++) {
                ck_assert_uint_eq(ask_in_a_turn(1, 100, 1), 1);
                ck_assert_uint_eq(n_receives, 1);
        }
        for (unsigned i = 0; i < 3; i++) /* from the look that finds something on */
                ck_assert_uint_eq(ask_in_a_turn(4, 100, 1), 4);
        stop();
}

static void submit_owes_another(void *host, const Request *rq, const void *params) {
        session_schedule_flush(LIST_ENTRY(h.server->sessions.prev, Session, link));
        test_handle_submit(host, rq, params);
}

TEST(nobody_is_looked_after_while_others_wait_for_what_was_written_to_them) {
        start_two();
        h.handlers[EQ_METHOD_SUBMIT] = submit_owes_another;
        ck_assert_ptr_ne(LIST_ENTRY(h.server->sessions.prev, Session, link), test_first_session(&h));
        ck_assert_uint_eq(ask_in_a_turn(5, 100, 1), 1);
        finish_asking();
        stop();
}

RUN_TESTS("session", 60, test_pipelined_requests_are_answered_in_order_by_one_receive_and_one_send,
          test_requests_of_one_read_share_a_time_and_it_goes_on_with_every_sixteenth,
          test_a_message_may_arrive_cut_at_every_byte,
          test_a_payload_of_the_largest_size_goes_through_and_leaves_no_memory_behind,
          test_an_idle_session_costs_less_than_2_kib, test_garbage_is_answered_with_an_error_and_the_connection_closed,
          test_a_length_of_4_gib_dies_at_its_header, test_a_million_nested_arrays_are_no_message_and_no_crash,
          test_half_a_message_and_gone_leaves_nothing,
          test_what_a_process_sent_before_its_end_is_served_though_others_hold_the_connection,
          test_input_that_waits_is_limited_per_user,
          test_an_unknown_method_is_named_in_the_answer_and_the_connection_goes_on,
          test_a_wrong_argument_is_an_error_that_names_it, test_methods_for_administrators_are_refused_to_others,
          test_notifications_are_carried_out_never_answered_and_their_errors_counted,
          test_hello_agrees_on_the_highest_protocol_both_speak, test_of_64_descriptors_none_stays_open,
          test_a_descriptor_belongs_to_the_message_that_it_was_sent_with,
          test_a_client_that_never_reads_costs_bounded_memory_and_delays_nobody,
          test_a_worker_that_does_not_read_is_heard_all_the_same_up_to_a_bound,
          test_a_worker_that_can_answer_no_more_is_closed_whatever_it_has_not_read,
          test_a_flooding_client_delays_another_by_two_turns_at_most,
          test_requests_beyond_the_pending_ones_allowed_wait_in_the_socket,
          test_a_user_over_his_output_limit_loses_the_connection_that_does_not_read_and_no_other,
          test_after_half_close_the_answers_still_come_and_then_the_end, test_half_close_does_not_keep_the_loop_busy,
          test_what_a_client_sent_before_it_left_is_served,
          test_what_a_client_sent_is_served_also_when_it_left_answers_unread,
          test_pending_requests_of_a_client_that_left_are_forgotten,
          test_an_answer_after_the_client_left_but_before_that_was_seen_is_harmless,
          test_deferred_answers_of_one_turn_go_out_in_one_send,
          test_what_somebody_sleeps_for_is_sent_before_the_reply_to_who_caused_it_and_only_once,
          test_a_parked_request_keeps_its_descriptor_and_its_place,
          test_who_leaves_with_a_parked_request_has_it_served_and_is_closed_then,
          test_what_is_parked_again_and_again_is_answered_with_an_error,
          test_a_reply_over_the_limit_is_replaced_by_an_error,
          test_a_slow_subscriber_loses_notifications_and_is_told_how_many,
          test_a_notification_that_must_arrive_is_queued_and_its_producer_told_when_to_go_on,
          test_what_was_lost_is_told_before_what_must_arrive,
          test_without_memory_for_what_must_arrive_the_connection_ends,
          test_notifications_for_which_the_user_has_no_memory_left_are_dropped_and_counted,
          test_what_is_written_while_flushing_does_not_wait_for_the_next_event,
          test_who_asks_again_while_it_is_answered_is_answered_in_the_same_turn,
          test_who_always_asks_again_leaves_the_turn_to_others_after_a_bounded_time,
          test_where_nobody_asks_again_it_is_looked_for_ever_more_seldom_and_found_all_the_same,
          test_nobody_is_looked_after_while_others_wait_for_what_was_written_to_them,
          test_whenever_memory_runs_out_the_client_gets_an_error_or_the_end_and_nothing_breaks)
