/* SPDX-License-Identifier: MIT */
/* Queues with executor=worker, seen from the manager: who may serve, what is sent, what becomes of a task. */

#include "manager-host.h"

typedef struct Client {
        RemoteWorker *worker;
        uint32_t msgid;
        WorkerOrder order; /* the last one; its slices are gone */
        char payload[64];
        size_t n_sent;
} Client;

static int client_run(void *client, uint32_t msgid, const WorkerOrder *o) {
        Client *c = client;
        c->msgid = msgid;
        c->order = *o;
        ck_assert_uint_lt(o->payload.len, sizeof(c->payload));
        memcpy(c->payload, o->payload.data, o->payload.len);
        c->payload[o->payload.len] = 0;
        c->n_sent++;
        return WORKER_SENT;
}
static void client_cancel(void *client, eq_task_id id, uint16_t attempt, const char *reason, uint64_t grace_usec) {
}
static void client_refused(void *client, uint32_t msgid, eq_error code, const char *text,
                           const EqErrorDetails *details) {
}
static const WorkerClientOps client_ops = { .run = client_run, .cancel = client_cancel, .refused = client_refused };

static const char *const by_workers[] = { "executor=worker", "retries=1", "backoff=0", "max_crashes=2", NULL };

static int serve(Host *h, Caller who, Client *c, const char *queue, uint32_t credit) {
        EqWorkerServe args = { 0 };
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        WorkerSetup setup = { .number = h->m->workers->n_workers + 1,
                              .identity = who.identity,
                              .admin = who.admin,
                              .ops = &client_ops,
                              .client = c };
        eq_pack_cstr(&pk, queue);
        args.queues = (EqArray) { .raw = eq_bytes(b.data, b.len), .n = 1 };
        EQ_SET(&args, WorkerServe, credit, credit);
        int r = manager_worker_serve(h->m, &who, &setup, &args, &c->worker, &h->refusal);
        eq_buffer_done(&b);
        return r;
}

static void leave(Host *h, Client *c) {
        if (c->worker)
                manager_worker_end(h->m, c->worker, false);
        c->worker = NULL;
}

static TaskRecord *submit(Host *h, Caller who, const char *queue, const char *payload) {
        EqSubmit s = { .queue = eq_str(queue) };
        SubmitArgs args = { .submit = &s, .payload = eq_str(payload), .stdin_fd = -1 };
        TaskRecord *t;
        eq_task_id id;
        EQ_SET(&s, Submit, payload, eq_str(payload));
        s.present &= ~EQ_BIT(Submit, queue);
        int r = manager_submit(h->m, &who, eq_str(queue), &args, 1, &t, &id, &h->refusal);
        ck_assert_msg(r == 0, "submit: %s", h->refusal.text);
        return t;
}

static void answer(Client *c, const char *error, const char *result) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        if (error)
                eq_pack_cstr(&pk, error);
        else
                msgpack_pack_nil(&pk);
        size_t n = b.len;
        eq_pack_cstr(&pk, result);
        LeaseName lease;
        (void)remote_worker_answer(c->worker, c->msgid, eq_bytes(b.data, n), eq_bytes(b.data + n, b.len - n), &lease);
        eq_buffer_done(&b);
}

TEST(a_worker_gets_what_was_submitted_and_its_result_is_kept) {
        Host h;
        Client c = { 0 };
        TaskView v;
        host_init(&h);
        host_queue(&h, "w", by_workers);
        TaskRecord *t = submit(&h, anna(&h), "w", "hello");
        ck_assert_int_eq(serve(&h, root(&h), &c, "w", 1), 0);
        ck_assert_str_eq(c.payload, "hello");
        ck_assert_uint_eq(c.order.uid, 1001);
        ck_assert_uint_eq(c.order.attempt, 1);
        ck_assert_state(t, RUNNING);
        answer(&c, NULL, "bye");
        ck_assert_state(t, DONE);
        view_task(h.m, t, &v);
        ck_assert(!EQ_HAS(&v.row, Task, result));
        view_task_result(t, &v);
        ck_assert(eq_bytes_eq(v.row.result, eq_str("bye")));
        leave(&h, &c);
        host_done(&h);
}

TEST(who_may_serve_is_asked_when_the_right_changes_too) {
        static const char *const for_anna[] = { "executor=worker", "allow_serve=1001", NULL };
        Host h;
        Client a = { 0 }, b = { 0 };
        host_init(&h);
        QueueRecord *q = host_queue(&h, "w", for_anna);
        ck_assert_int_eq(serve(&h, bob(&h), &b, "w", 1), -EPERM);
        ck_assert_int_eq(h.refusal.code, EQ_E_DENIED);
        ck_assert_ptr_null(b.worker);
        ck_assert_int_eq(serve(&h, anna(&h), &a, "default", 1), -EINVAL);
        ck_assert_int_eq(h.refusal.code, EQ_E_STATE);
        ck_assert_int_eq(serve(&h, anna(&h), &a, "w", 1), 0);
        ck_assert_uint_eq(worker_executor_n_serving(q->queue), 1);

        Caller admin = root(&h);
        const EqArray set = { .raw = eq_bytes("\xb0"
                                              "allow_serve=1002",
                                              17),
                              .n = 1 };
        ck_assert_int_eq(manager_queue_set(h.m, &admin, q, &set, &h.refusal), 0);
        ck_assert_uint_eq(worker_executor_n_serving(q->queue), 0);
        leave(&h, &a);
        host_done(&h);
}

TEST(lost_attempts_return_without_a_retry_until_the_crashes_are_used_up) {
        Host h;
        Client c = { 0 };
        host_init(&h);
        host_queue(&h, "w", by_workers);
        TaskRecord *t = submit(&h, anna(&h), "w", "x");
        ck_assert_int_eq(serve(&h, root(&h), &c, "w", 1), 0);
        leave(&h, &c);
        ck_assert_state(t, QUEUED);
        ck_assert_uint_eq(t->crashes, 1);
        ck_assert_uint_eq(t->lost, 1);
        ck_assert_int_eq(serve(&h, root(&h), &c, "w", 1), 0);
        answer(&c, "no", "");
        host_advance(&h, 1);
        ck_assert_uint_eq(t->task.attempt, 3); /* the retry that is still there */
        leave(&h, &c);
        ck_assert_state(t, DEAD);
        host_done(&h);
}

TEST(no_number_of_an_attempt_is_given_twice) {
        static const char *const many[] = { "executor=worker", "retries=1000", "backoff=0", NULL };
        for (unsigned i = 0; i < 2; i++) {
                Host h;
                Client c = { 0 };
                host_init(&h);
                host_queue(&h, "w", many);
                TaskRecord *t = submit(&h, anna(&h), "w", "x");
                t->task.attempt = t->lost = UINT16_MAX - 2;
                ck_assert_int_eq(serve(&h, root(&h), &c, "w", 1), 0);
                ck_assert_uint_eq(c.order.attempt, UINT16_MAX - 1);
                answer(&c, "no", "");
                host_advance(&h, 1);
                ck_assert_uint_eq(c.order.attempt, UINT16_MAX);
                if (i == 0)
                        answer(&c, "no", "");
                leave(&h, &c); /* else it returns: one more would be the second of that number */
                ck_assert_state(t, DEAD);
                ck_assert_int_eq(manager_retry(h.m, t, false), 1);
                ck_assert_int_eq(manager_retry(h.m, t, true), 0);
                ck_assert_uint_eq(t->task.attempt, 0);
                host_done(&h);
        }
}

TEST(kicked_workers_and_a_stop_of_eqd_leave_no_crash) {
        Host h;
        Client c = { 0 };
        host_init(&h);
        host_queue(&h, "w", by_workers);
        TaskRecord *t = submit(&h, anna(&h), "w", "x");
        ck_assert_int_eq(serve(&h, root(&h), &c, "w", 1), 0);
        manager_worker_end(h.m, c.worker, true);
        ck_assert_uint_eq(t->crashes, 0);
        ck_assert_uint_eq(t->task.attempt, 1);
        c.worker = NULL;
        ck_assert_int_eq(serve(&h, root(&h), &c, "w", 1), 0);
        ck_assert_uint_eq(c.order.attempt, 2);
        h.m->stopping = true;
        leave(&h, &c);
        ck_assert_uint_eq(t->crashes, 0);
        host_done(&h);
}

TEST(a_touch_needs_the_lease) {
        Host h;
        Client c = { 0 }, other = { 0 };
        host_init(&h);
        host_queue(&h, "w", by_workers);
        TaskRecord *t = submit(&h, anna(&h), "w", "x");
        Caller who = root(&h);
        EqWorkerTouch touch = { .id.id = task_record_id(t), .attempt = 1 };
        EQ_SET(&touch, WorkerTouch, note, eq_str("half"));
        ck_assert_int_eq(serve(&h, who, &c, "w", 1), 0);
        ck_assert_int_eq(serve(&h, who, &other, "w", 1), 0);
        ck_assert_int_eq(manager_worker_touch(h.m, &who, other.worker, &touch, &h.refusal), -ESTALE);
        ck_assert_int_eq(manager_worker_touch(h.m, &who, c.worker, &touch, &h.refusal), 0);
        ck_assert_str_eq(t->run->note, "half");
        touch.attempt = 2;
        ck_assert_int_eq(manager_worker_touch(h.m, &who, c.worker, &touch, &h.refusal), -ESTALE);
        touch.note = eq_str("\x1b[2J");
        ck_assert_int_eq(manager_worker_touch(h.m, &who, c.worker, &touch, &h.refusal), -EINVAL);
        answer(&c, NULL, "");
        leave(&h, &c);
        leave(&h, &other);
        host_done(&h);
}

TEST(serving_fails_whole_for_want_of_memory) {
        Host h;
        Client c = { 0 };
        host_init(&h);
        const QueueRecord *q = host_queue(&h, "w", by_workers);
        for (long nth = 1;; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                int r = serve(&h, root(&h), &c, "w", 1);
                fault_set(FAULT_ALLOC, 0, false);
                if (r == 0)
                        break;
                ck_assert_int_eq(h.refusal.code, EQ_E_NO_MEMORY);
                ck_assert_ptr_null(c.worker);
                ck_assert_uint_eq(worker_executor_n_serving(q->queue), 0);
                ck_assert_uint_eq(h.m->workers->n_workers, 0);
        }
        leave(&h, &c);
        host_done(&h);
}

TEST(an_executor_changes_while_the_queue_is_empty_only) {
        Host h;
        Client c = { 0 };
        host_init(&h);
        QueueRecord *q = host_queue(&h, "w", by_workers);
        Caller admin = root(&h);
        const EqArray command = { .raw = eq_bytes("\xb0"
                                                  "executor=command",
                                                  17),
                                  .n = 1 };
        TaskRecord *t = submit(&h, anna(&h), "w", "x");
        ck_assert_int_eq(manager_queue_set(h.m, &admin, q, &command, &h.refusal), -EBUSY);
        ck_assert_int_eq(serve(&h, admin, &c, "w", 1), 0);
        answer(&c, NULL, "");
        ck_assert_int_eq(manager_queue_set(h.m, &admin, q, &command, &h.refusal), 0);
        ck_assert_ptr_eq(q->queue->pool, h.m->pool);
        ck_assert_uint_eq(c.worker->n_servings, 0);
        ck_assert_int_eq(manager_retry(h.m, t, false), 1); /* no command */
        host_end(&h, host_task(&h, "w", (EqSubmit) { 0 }), TASK_OK);
        leave(&h, &c);
        host_done(&h);
}

RUN_TESTS("workers", 60, test_a_worker_gets_what_was_submitted_and_its_result_is_kept,
          test_who_may_serve_is_asked_when_the_right_changes_too,
          test_lost_attempts_return_without_a_retry_until_the_crashes_are_used_up,
          test_no_number_of_an_attempt_is_given_twice, test_kicked_workers_and_a_stop_of_eqd_leave_no_crash,
          test_a_touch_needs_the_lease, test_serving_fails_whole_for_want_of_memory,
          test_an_executor_changes_while_the_queue_is_empty_only)
