/* SPDX-License-Identifier: MIT */
/* Workers by libeq, against an eqd that does as it is told. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "eq.h"
#include "fake-eqd.h"
#include "proto/memfd.h"
#include "test.h"

typedef struct Fixture {
        FakeEqd e;
        eq_client *c;
        pthread_t thread;
        uint32_t credit, parallel;
        bool confirm;
} Fixture;

/* The other side of eq_worker_serve(). */
static void *accept_worker(void *userdata) {
        Fixture *f = userdata;
        EqWorkerServeReply reply = { 0 };
        EqDecodeError error;
        EqWorkerServe rec;
        EqMessage m;
        uint32_t msgid = fake_expect(&f->e, "worker_serve", &m);
        ck_assert_int_eq(eq_decode_params(&eq_schema_WorkerServe, m.params, &rec, &error), 0);
        ck_assert_uint_eq(rec.queues.n, 1);
        f->credit = (uint32_t)rec.credit;
        f->parallel = (uint32_t)rec.parallel;
        f->confirm = EQ_HAS(&rec, WorkerServe, confirm) && rec.confirm;
        EQ_SET(&reply, WorkerServeReply, worker, 42);
        fake_reply_record(&f->e, msgid, &eq_schema_WorkerServeReply, &reply);
        return NULL;
}

static void serve(Fixture *f, uint32_t credit, uint32_t parallel) {
        static const char *const queues[] = { "mail", NULL };
        uint64_t number = 0;
        ck_assert_int_eq(pthread_create(&f->thread, NULL, accept_worker, f), 0);
        ck_assert_int_eq(eq_worker_serve(f->c, queues, credit, parallel, "test", &number), 0);
        ck_assert_int_eq(pthread_join(f->thread, NULL), 0);
        ck_assert_uint_eq(number, 42);
}

static void open_fixture(Fixture *f) {
        *f = (Fixture) { 0 };
        fake_init(&f->e);
        ck_assert_int_eq(eq_client_open(&f->c, f->e.path), 0);
        fake_accept(&f->e);
}

static void close_fixture(Fixture *f) {
        eq_client_close(f->c);
        fake_done(&f->e);
}

static void send_run_of(Fixture *f, uint32_t msgid, uint64_t queue_id, const char *queue, uint64_t seq) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqRun rec = { .id.id = { queue_id, seq }, .queue = eq_str(queue), .attempt = 1 };
        eq_pack_request(&pk, msgid, "run");
        eq_pack_params(&pk, &eq_schema_Run, &rec);
        fake_send(&f->e, &b);
}

static void send_run(Fixture *f, uint32_t msgid, uint64_t seq, const char *payload, const char *label) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqRun rec = { .id.id = { 7, seq }, .queue = eq_str("mail"), .attempt = 3, .payload = eq_str(payload) };
        if (label)
                EQ_SET(&rec, Run, label, eq_str(label));
        if (label)
                EQ_SET(&rec, Run, mime, eq_str("text/plain"));
        eq_pack_request(&pk, msgid, "run");
        eq_pack_params(&pk, &eq_schema_Run, &rec);
        fake_send(&f->e, &b);
}

/* A run whose payload is said to come as a descriptor; fd -1: none does. */
static void send_run_fd(Fixture *f, uint32_t msgid, uint64_t seq, int fd) {
        union {
                struct cmsghdr header;
                char space[CMSG_SPACE(sizeof(int))];
        } control = { .header = {
                              .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)) } };
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqRun rec = { .id.id = { 7, seq }, .queue = eq_str("mail"), .attempt = 3 };
        EQ_SET(&rec, Run, payload_fd, true);
        eq_pack_request(&pk, msgid, "run");
        eq_pack_params(&pk, &eq_schema_Run, &rec);
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        struct iovec iov = { .iov_base = b.data, .iov_len = b.len };
        struct msghdr mh = { .msg_iov = &iov, .msg_iovlen = 1 };
        if (fd >= 0) {
                mh.msg_control = &control;
                mh.msg_controllen = CMSG_SPACE(sizeof(int));
        }
        ck_assert_int_eq(sendmsg(f->e.fd, &mh, MSG_NOSIGNAL), b.len);
        eq_buffer_done(&b);
}

static void send_cancel(Fixture *f, uint64_t seq) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_notify(&pk, "run_cancel");
        msgpack_pack_array(&pk, 4);
        eq_pack_id(&pk, (eq_task_id) { 7, seq });
        msgpack_pack_int(&pk, 3);
        eq_pack_cstr(&pk, "canceled");
        msgpack_pack_int(&pk, 5000);
        fake_send(&f->e, &b);
}

/* The next answer, which must be to msgid: its record; *ret_failed: it is an error. */
static EqRunAnswer expect_answer(Fixture *f, uint32_t msgid, bool *ret_failed) {
        EqRunAnswer a = { 0 };
        EqDecodeError error;
        EqMessage m;
        (void)eq_client_flush(f->c);
        ck_assert(fake_read(&f->e, &m));
        ck_assert_int_eq(m.type, EQ_MSG_RESPONSE);
        ck_assert_uint_eq(m.msgid, msgid);
        *ret_failed = !eq_is_nil(m.error);
        EqBytes said = *ret_failed ? m.error : m.result;
        if (eq_is_map(said))
                ck_assert_int_eq(eq_decode_map(&eq_schema_RunAnswer, said, &a, &error), 0);
        else if (!eq_is_nil(said)) {
                EqBytes result;
                ck_assert_int_eq(eq_get_bytes(said, &result), 0);
                EQ_SET(&a, RunAnswer, result, result);
        }
        return a;
}

TEST(a_blocking_worker_gets_runs_one_by_one_and_answers_them) {
        Fixture f;
        eq_run *run;
        size_t n;
        uid_t uid;
        bool failed;
        open_fixture(&f);
        serve(&f, 8, 0);
        ck_assert_uint_eq(f.credit, 8);
        ck_assert_uint_eq(f.parallel, 1);
        ck_assert_int_eq(eq_worker_next(f.c, 0, &run), 0);
        send_run(&f, 0x10000, 1, "first", "a label");
        send_run(&f, 0x10001, 2, "", NULL);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
        ck_assert_uint_eq(eq_run_get_id(run).seq, 1);
        ck_assert_uint_eq(eq_run_get_attempt(run), 3);
        ck_assert_str_eq(eq_run_get_queue(run), "mail");
        ck_assert_str_eq(eq_run_get_label(run), "a label");
        ck_assert_str_eq(eq_run_get_mime(run), "text/plain");
        ck_assert_int_eq(memcmp(eq_run_get_payload(run, &n), "first", 5), 0);
        ck_assert_uint_eq(n, 5);
        ck_assert_uint_eq(eq_run_get_timeout(run), EQ_TIMEOUT_NEVER);
        ck_assert_int_eq(eq_run_get_uid(run, &uid), 0);
        ck_assert_int_eq(eq_run_complete(run, "done", 4), 0);
        EqRunAnswer a = expect_answer(&f, 0x10000, &failed);
        ck_assert(!failed && eq_bytes_eq(a.result, eq_str("done")));

        ck_assert_int_eq(eq_worker_next(f.c, 0, &run), 1);
        ck_assert_ptr_null(eq_run_get_label(run));
        ck_assert_ptr_null(eq_run_get_mime(run));
        (void)eq_run_get_payload(run, &n);
        ck_assert_uint_eq(n, 0);
        ck_assert_int_eq(eq_run_fail(run, "no paper"), 0);
        a = expect_answer(&f, 0x10001, &failed);
        ck_assert(failed && eq_bytes_eq(a.text, eq_str("no paper")));
        close_fixture(&f);
}

TEST(an_answer_does_not_wait_for_the_run_behind_it) {
        Fixture f;
        eq_run *run;
        EqMessage m;
        open_fixture(&f);
        serve(&f, 8, 1);
        send_run(&f, 0, 1, "x", NULL);
        send_run(&f, 1, 2, "y", NULL);
        for (uint32_t i = 0; i < 2; i++) {
                ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
                if (i > 0) { /* the first answer is out while the second run is worked on */
                        ck_assert(fake_read(&f.e, &m));
                        ck_assert_uint_eq(m.msgid, 0);
                }
                ck_assert_int_eq(eq_run_complete(run, NULL, 0), 0);
        }
        close_fixture(&f);
}

TEST(an_outcome_says_everything_and_is_checked) {
        static char large[EQ_RESULT_MAX + 1];
        Fixture f;
        eq_run *run;
        bool failed;
        open_fixture(&f);
        serve(&f, 8, 2);
        ck_assert_uint_eq(f.parallel, 2);
        send_run(&f, 5, 1, "x", NULL);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
        eq_run_set_userdata(run, &f);
        ck_assert_ptr_eq(eq_run_get_userdata(run), &f);
        ck_assert_int_eq(eq_run_complete(run, large, sizeof(large)), -EMSGSIZE);
        eq_outcome o = EQ_OUTCOME_INIT;
        o.exit_status = 256;
        ck_assert_int_eq(eq_run_end(run, &o), -EINVAL);
        o = (eq_outcome)EQ_OUTCOME_INIT;
        o.failed = o.final = true;
        o.exit_status = 4;
        o.text = "hopeless";
        o.result = "half";
        o.n_result = 4;
        ck_assert_int_eq(eq_run_touch(run, 101, NULL), -EINVAL);
        ck_assert_int_eq(eq_run_touch(run, 50, "half way"), 0);
        EqMessage m;
        EqWorkerTouch touch;
        EqDecodeError error;
        (void)fake_expect(&f.e, "worker_touch", &m);
        ck_assert_int_eq(m.type, EQ_MSG_NOTIFY);
        ck_assert_int_eq(eq_decode_params(&eq_schema_WorkerTouch, m.params, &touch, &error), 0);
        ck_assert_uint_eq(touch.attempt, 3);
        ck_assert_uint_eq(touch.progress, 50);

        ck_assert_int_eq(eq_run_end(run, &o), 0);
        EqRunAnswer a = expect_answer(&f, 5, &failed);
        ck_assert(failed && a.final && a.exit == 4 && eq_bytes_eq(a.text, eq_str("hopeless")) &&
                  eq_bytes_eq(a.result, eq_str("half")));
        ck_assert(!EQ_HAS(&a, RunAnswer, retry_after_usec));
        close_fixture(&f);
}

TEST(a_run_ends_with_the_time_of_the_next_attempt) {
        Fixture f;
        eq_run *run;
        bool failed;
        open_fixture(&f);
        serve(&f, 8, 2);
        for (unsigned i = 0; i < 2; i++) {
                eq_outcome o = EQ_OUTCOME_INIT;
                send_run(&f, 5 + i, 1, "x", NULL);
                ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1); /* given back: there is credit yet */
                o.give_back = i == 0;
                o.failed = i == 1;
                o.retry_after_usec = i == 0 ? 0 : 1500000;
                ck_assert_int_eq(eq_run_end(run, &o), 0);
                EqRunAnswer a = expect_answer(&f, 5 + i, &failed);
                ck_assert(failed && a.give_back == (i == 0) && EQ_HAS(&a, RunAnswer, retry_after_usec));
                ck_assert_uint_eq(a.retry_after_usec, o.retry_after_usec);
        }
        close_fixture(&f);
}

typedef struct Seen {
        eq_run *runs[8];
        unsigned n, n_cancels;
        uint64_t grace_usec;
} Seen;

static void on_run(eq_client *c, eq_run *run, void *userdata) {
        Seen *s = userdata;
        s->runs[s->n++] = run;
}
static void on_cancel(eq_client *c, eq_run *run, uint64_t grace_usec, void *userdata) {
        Seen *s = userdata;
        ck_assert(eq_run_is_canceled(run));
        s->n_cancels++;
        s->grace_usec = grace_usec;
}

TEST(callbacks_may_end_runs_later_and_in_any_order) {
        Fixture f;
        Seen s = { 0 };
        bool failed;
        open_fixture(&f);
        ck_assert_int_eq(eq_worker_set_callbacks(f.c, on_run, on_cancel, &s), 0);
        serve(&f, 5, 0);
        ck_assert_uint_eq(f.parallel, 5);
        for (uint32_t i = 0; i < 3; i++)
                send_run(&f, i, i + 1, "x", NULL);
        while (s.n < 3)
                ck_assert_int_ge(eq_client_dispatch(f.c, EQ_TIMEOUT_NEVER), 0);
        ck_assert_int_eq(eq_run_complete(s.runs[2], NULL, 0), 0);
        ck_assert_int_eq(eq_client_get_events(f.c), POLLIN | POLLOUT);
        (void)expect_answer(&f, 2, &failed);
        send_cancel(&f, 1);
        send_cancel(&f, 3); /* was answered: nobody is told */
        while (s.n_cancels < 1)
                ck_assert_int_ge(eq_client_dispatch(f.c, EQ_TIMEOUT_NEVER), 0);
        ck_assert_uint_eq(s.grace_usec, 5000);
        ck_assert(!eq_run_is_canceled(s.runs[1]));
        ck_assert_int_eq(eq_run_fail(s.runs[0], "stopped"), 0);
        (void)expect_answer(&f, 0, &failed);
        ck_assert(failed);
        close_fixture(&f); /* frees the run that was not ended */
}

static void send_confirmed(Fixture *f, uint64_t first, unsigned n) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_notify(&pk, "run_confirmed");
        msgpack_pack_array(&pk, 1);
        msgpack_pack_array(&pk, n);
        for (unsigned i = 0; i < n; i++) {
                msgpack_pack_array(&pk, 2);
                eq_pack_id(&pk, (eq_task_id) { 7, first + i });
                msgpack_pack_int(&pk, 3);
        }
        fake_send(&f->e, &b);
}

typedef struct Confirmed {
        eq_task_id ids[4];
        unsigned n;
} Confirmed;

static void on_confirmed(eq_client *c, eq_task_id id, uint32_t attempt, void *userdata) {
        Confirmed *got = userdata;
        ck_assert_uint_eq(attempt, 3);
        got->ids[got->n++] = id;
}

TEST(each_confirmed_answer_is_told_to_who_asked_for_it) {
        Fixture f;
        Confirmed got = { .n = 0 };
        open_fixture(&f);
        serve(&f, 5, 0);
        ck_assert(!f.confirm);
        ck_assert_int_eq(eq_worker_set_confirmed(f.c, on_confirmed, &got), 0);
        serve(&f, 5, 0);
        ck_assert(f.confirm);
        send_confirmed(&f, 1, 3);
        send_confirmed(&f, 4, 1);
        while (got.n < 4)
                ck_assert_int_ge(eq_client_dispatch(f.c, EQ_TIMEOUT_NEVER), 0);
        for (unsigned i = 0; i < 4; i++) {
                ck_assert_uint_eq(got.ids[i].queue, 7);
                ck_assert_uint_eq(got.ids[i].seq, i + 1);
        }
        close_fixture(&f);
}

TEST(what_is_canceled_before_it_was_handed_out_is_answered_here) {
        Fixture f;
        eq_run *run;
        bool failed;
        open_fixture(&f);
        serve(&f, 5, 1);
        send_run(&f, 0, 1, "x", NULL);
        send_run(&f, 1, 2, "y", NULL);
        send_cancel(&f, 2);
        send_run(&f, 2, 3, "z", NULL);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
        ck_assert_int_eq(eq_run_complete(run, NULL, 0), 0);
        while (eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run) == 1 && eq_run_get_id(run).seq != 3)
                ck_abort_msg("a canceled task was handed out");
        EqRunAnswer a = expect_answer(&f, 1, &failed);
        ck_assert(failed && a.text.len > 0 && !a.give_back);
        (void)expect_answer(&f, 0, &failed);
        ck_assert(!failed);
        close_fixture(&f);
}

static void *accept_leave(void *userdata) {
        Fixture *f = userdata;
        EqMessage m;
        for (uint32_t i = 1; i <= 2; i++) {
                ck_assert(fake_read(&f->e, &m));
                ck_assert_int_eq(m.type, EQ_MSG_RESPONSE);
                ck_assert(!eq_is_nil(m.error));
        }
        uint32_t msgid = fake_expect(&f->e, "worker_leave", NULL);
        send_run(f, 9, 9, "crossed it on the way", NULL);
        ck_assert(fake_read(&f->e, &m));
        ck_assert_uint_eq(m.msgid, 9);
        fake_reply_nil(&f->e, msgid);
        return NULL;
}

TEST(leaving_gives_back_what_was_not_handed_out) {
        Fixture f;
        eq_run *run;
        bool failed;
        open_fixture(&f);
        serve(&f, 5, 1);
        for (uint32_t i = 0; i < 3; i++)
                send_run(&f, i, i + 1, "x", NULL);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
        while (eq_client_dispatch(f.c, 0) > 0) /* the others */
                ;
        ck_assert_int_eq(eq_run_complete(run, NULL, 0), 0);
        (void)expect_answer(&f, 0, &failed);
        ck_assert_int_eq(pthread_create(&f.thread, NULL, accept_leave, &f), 0);
        ck_assert_int_eq(eq_worker_leave(f.c, EQ_TIMEOUT_NEVER), 0);
        ck_assert_int_eq(pthread_join(f.thread, NULL), 0);
        close_fixture(&f);
}

TEST(a_lost_connection_ends_the_worker_and_its_runs) {
        Fixture f;
        eq_run *run, *none = NULL;
        open_fixture(&f);
        serve(&f, 5, 1);
        send_run(&f, 0, 1, "x", NULL);
        send_run(&f, 1, 2, "y", NULL);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
        fake_hangup(&f.e);
        while (eq_client_dispatch(f.c, EQ_TIMEOUT_NEVER) >= 0)
                ;
        ck_assert_int_eq(eq_worker_next(f.c, 0, &none), -ECONNRESET);
        ck_assert_ptr_null(none);
        ck_assert_int_eq(eq_run_complete(run, NULL, 0), -ECONNRESET);
        close_fixture(&f);
}

TEST(requests_that_are_no_run_are_refused_and_change_nothing) {
        Fixture f;
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqMessage m;
        eq_run *run;
        eq_error code;
        EqBytes text;
        open_fixture(&f);
        eq_pack_request(&pk, 3, "run"); /* before it is a worker */
        msgpack_pack_array(&pk, 0);
        eq_pack_request(&pk, 4, "sing");
        msgpack_pack_array(&pk, 0);
        fake_send(&f.e, &b);
        while (!(eq_client_get_events(f.c) & POLLOUT))
                ck_assert_int_ge(eq_client_dispatch(f.c, EQ_TIMEOUT_NEVER), 0);
        ck_assert_int_eq(eq_client_flush(f.c), 0);
        for (uint32_t id = 3; id <= 4; id++) {
                ck_assert(fake_read(&f.e, &m));
                ck_assert_uint_eq(m.msgid, id);
                ck_assert_int_eq(eq_get_error(m.error, &code, &text, NULL), 0);
                ck_assert_int_eq(code, EQ_E_METHOD);
        }
        serve(&f, 1, 1);
        send_run(&f, 1, 1, "x", NULL);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
        close_fixture(&f);
}

TEST(a_run_without_its_parameters_ends_the_connection) {
        Fixture f;
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_run *run;
        open_fixture(&f);
        serve(&f, 1, 1);
        eq_pack_request(&pk, 3, "run");
        msgpack_pack_array(&pk, 1);
        eq_pack_cstr(&pk, "mail/1");
        fake_send(&f.e, &b);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), -EBADMSG);
        close_fixture(&f);
}

static void *answer_wait(void *userdata) {
        Fixture *f = userdata;
        EqTask t = { 0 };
        uint32_t msgid = fake_expect(&f->e, "wait", NULL);
        EQ_SET(&t, Task, id, (EqIdRef) { .id = { 7, 1 } });
        EQ_SET(&t, Task, state, eq_str("DONE"));
        EQ_SET(&t, Task, result, eq_bytes("\0!", 2));
        fake_reply_list(&f->e, msgid, &eq_schema_Task, &t, 1);
        return NULL;
}

TEST(who_submitted_gets_the_result) {
        Fixture f;
        eq_status status;
        void *result;
        size_t n;
        open_fixture(&f);
        ck_assert_int_eq(pthread_create(&f.thread, NULL, answer_wait, &f), 0);
        ck_assert_int_eq(eq_wait_result(f.c, (eq_task_id) { 7, 1 }, EQ_TIMEOUT_NEVER, &status, &result, &n), 0);
        ck_assert_int_eq(pthread_join(f.thread, NULL), 0);
        ck_assert_int_eq(status.state, EQ_STATE_DONE);
        ck_assert_uint_eq(n, 2);
        ck_assert_int_eq(memcmp(result, "\0!", 3), 0);
        free(result);
        close_fixture(&f);
}

static void expect_payload(eq_run *run, const char *want) {
        size_t n;
        const void *payload = eq_run_get_payload(run, &n);
        ck_assert_uint_eq(n, strlen(want));
        ck_assert_int_eq(memcmp(payload ?: "", want, n), 0);
}

TEST(payloads_that_come_as_descriptors_are_mapped_in_their_order) {
        static const char *const payloads[] = { "first", "", "third" };
        Fixture f;
        eq_run *run;
        open_fixture(&f);
        serve(&f, 8, 8);
        for (uint32_t i = 0; i < 3; i++) {
                int fd;
                ck_assert_int_eq(eq_memfd_new(eq_str(payloads[i]), &fd), 0);
                send_run(&f, 0x20000 + i, 10 + i, "inline", NULL);
                send_run_fd(&f, 0x10000 + i, 1 + i, fd);
                close(fd);
        }
        for (uint32_t i = 0; i < 3; i++) {
                ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
                expect_payload(run, "inline");
                ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
                expect_payload(run, payloads[i]);
                if (i == 0)
                        ck_assert_int_eq(eq_run_complete(run, NULL, 0), 0);
        }
        close_fixture(&f); /* with those that were not ended */
}

TEST(a_run_whose_descriptor_is_missing_or_no_payload_is_given_back) {
        Fixture f;
        eq_run *run;
        bool failed;
        open_fixture(&f);
        serve(&f, 8, 8);
        send_run_fd(&f, 0x10000, 1, -1);
        send_run_fd(&f, 0x10001, 2, f.e.listen_fd);
        send_run(&f, 0x10002, 3, "good", NULL);
        ck_assert_int_eq(eq_worker_next(f.c, EQ_TIMEOUT_NEVER, &run), 1);
        ck_assert_uint_eq(eq_run_get_id(run).seq, 3);
        for (uint32_t i = 0; i < 2; i++) {
                EqRunAnswer a = expect_answer(&f, 0x10000 + i, &failed);
                ck_assert(failed && a.give_back);
        }
        close_fixture(&f);
}

/* In its place there is one that has ended, and shows what was written to it. */
typedef struct Swapped {
        int kept, seen;
} Swapped;

static Swapped take_socket_away(eq_client *c) {
        int fd = eq_client_get_fd(c), pair[2];
        Swapped s = { .kept = dup(fd) };
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        ck_assert(s.kept >= 0 && dup2(pair[0], fd) == fd && shutdown(pair[1], SHUT_WR) == 0);
        (void)close(pair[0]);
        s.seen = pair[1];
        return s;
}

static void give_socket_back(eq_client *c, Swapped s) {
        char byte;
        ck_assert_int_eq(recv(s.seen, &byte, 1, MSG_DONTWAIT), -1);
        ck_assert_int_eq(dup2(s.kept, eq_client_get_fd(c)), eq_client_get_fd(c));
        (void)close(s.kept);
        (void)close(s.seen);
}

TEST(a_batch_is_what_is_there_of_one_queue_and_taking_it_makes_no_system_call) {
        Fixture f;
        eq_run_batch *b;
        eq_run *run;
        bool failed;
        open_fixture(&f);
        serve(&f, 8, 1);
        for (uint32_t i = 0; i < 3; i++)
                send_run(&f, i, i + 1, "x", NULL);
        send_run_of(&f, 3, 9, "news", 1);
        send_run(&f, 4, 4, "x", NULL);
        ck_assert_int_eq(eq_worker_next_batch(f.c, EQ_TIMEOUT_NEVER, &b), 1);
        Swapped swapped = take_socket_away(f.c);
        ck_assert_str_eq(eq_run_batch_get_queue(b), "mail");
        for (uint64_t seq = 1; seq <= 3; seq++) {
                ck_assert(eq_run_batch_more(b));
                ck_assert_ptr_nonnull(run = eq_run_batch_next(b));
                ck_assert_uint_eq(eq_run_get_id(run).seq, seq);
                ck_assert_int_eq(eq_run_complete(run, NULL, 0), 0);
        }
        ck_assert(!eq_run_batch_more(b)); /* the fourth is behind one of another queue, which came before it */
        ck_assert_ptr_null(eq_run_batch_next(b));
        give_socket_back(f.c, swapped);

        ck_assert_int_eq(eq_worker_next_batch(f.c, 0, &b), 1);
        for (uint32_t i = 0; i < 3; i++) /* asking for the next batch has sent the answers */
                (void)expect_answer(&f, i, &failed);
        ck_assert_str_eq(eq_run_batch_get_queue(b), "news");
        ck_assert_ptr_nonnull(run = eq_run_batch_next(b));
        ck_assert_ptr_null(eq_run_batch_next(b));
        ck_assert_int_eq(eq_run_complete(run, NULL, 0), 0);

        ck_assert_int_eq(eq_worker_next_batch(f.c, 0, &b), 1); /* not taken: it comes again */
        ck_assert_int_eq(eq_worker_next_batch(f.c, 0, &b), 1);
        ck_assert_ptr_nonnull(run = eq_run_batch_next(b));
        ck_assert_uint_eq(eq_run_get_id(run).seq, 4);
        ck_assert_int_eq(eq_run_complete(run, NULL, 0), 0);
        ck_assert_int_eq(eq_worker_next_batch(f.c, 0, &b), 0);
        close_fixture(&f);
}

RUN_TESTS("serve", 30, test_a_batch_is_what_is_there_of_one_queue_and_taking_it_makes_no_system_call,
          test_payloads_that_come_as_descriptors_are_mapped_in_their_order,
          test_a_run_whose_descriptor_is_missing_or_no_payload_is_given_back,
          test_a_blocking_worker_gets_runs_one_by_one_and_answers_them,
          test_an_answer_does_not_wait_for_the_run_behind_it, test_an_outcome_says_everything_and_is_checked,
          test_a_run_ends_with_the_time_of_the_next_attempt, test_callbacks_may_end_runs_later_and_in_any_order,
          test_each_confirmed_answer_is_told_to_who_asked_for_it,
          test_what_is_canceled_before_it_was_handed_out_is_answered_here,
          test_leaving_gives_back_what_was_not_handed_out, test_a_lost_connection_ends_the_worker_and_its_runs,
          test_requests_that_are_no_run_are_refused_and_change_nothing,
          test_a_run_without_its_parameters_ends_the_connection, test_who_submitted_gets_the_result)
