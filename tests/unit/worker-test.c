/* SPDX-License-Identifier: MIT */
#include "executor/worker.h"

#include <signal.h>

#include "engine/rescuer.h"
#include "rig.h"

enum { N_CLIENTS = 4, N_SENT = 64 };

/* A lease as its worker sees it: from when it is told until it has answered, is gone, or had its time after a notice. */
typedef struct Held {
        const struct Client *by; /* NULL: nobody has it */
        uint16_t attempt;        /* the last one that was told */
        uint64_t until_usec;     /* after a notice; 0: there was none */
} Held;
enum { N_HELD = 512 };

/* What one client was told; it answers when the test says so. */
typedef struct Client {
        struct Bench *bench;
        RemoteWorker *worker;
        struct {
                uint32_t msgid;
                uint64_t seq;
                uint16_t attempt;
        } sent[N_SENT];
        size_t n_sent, n_cancels, n_refused;
        char reason[16]; /* of the last cancel */
        eq_error refused;
        uint64_t refused_seq; /* 0: of no task */
        int result;           /* of run; 0: sent */
} Client;

typedef struct Bench {
        uv_loop_t loop;
        Rig *rig;
        WorkerExecutor *x;
        Pool *pool;
        Queue *queue;
        Client clients[N_CLIENTS];
        Rescuer *rescuer;
        uint64_t timeout_usec, grace_usec;
        unsigned n_unprepared;
        char text[WORKER_TEXT_MAX + 1]; /* of the last attempt that ended */
        bool with_ledger;
        Held ledger[N_HELD]; /* by SEQ */
} Bench;

/* Another lease may begin only when the one before is over, for its worker too. */
static void ledger_begin(Client *c, uint64_t seq, uint16_t attempt) {
        ck_assert_uint_lt(seq, N_HELD);
        Held *h = &c->bench->ledger[seq];
        bool over = !h->by || (h->until_usec > 0 && engine_now(&c->bench->rig->engine) >= h->until_usec);
        ck_assert_msg(over, "%llu: attempt %u is leased while attempt %u is live", (unsigned long long)seq, attempt,
                      h->attempt);
        ck_assert_uint_gt(attempt, h->attempt);
        *h = (Held) { .by = c, .attempt = attempt };
}

static void ledger_end(Client *c, size_t i) {
        Held *h = &c->bench->ledger[c->sent[i].seq % N_HELD];
        if (h->by == c && h->attempt == c->sent[i].attempt)
                h->by = NULL;
}

static void ledger_notice(Client *c, uint64_t seq, uint16_t attempt, uint64_t grace_usec) {
        Held *h = &c->bench->ledger[seq % N_HELD];
        if (h->by == c && h->attempt == attempt)
                h->until_usec = engine_now(&c->bench->rig->engine) + grace_usec;
}

/* ---- the two ends ---- */

static int client_run(void *client, uint32_t msgid, const WorkerOrder *o) {
        Client *c = client;
        if (c->result < 0)
                return c->result;
        ck_assert_uint_lt(c->n_sent, N_SENT);
        if (c->bench->with_ledger)
                ledger_begin(c, o->id.seq, o->attempt);
        c->sent[c->n_sent].msgid = msgid;
        c->sent[c->n_sent].seq = o->id.seq;
        c->sent[c->n_sent++].attempt = o->attempt;
        return c->result;
}

static void client_cancel(void *client, eq_task_id id, uint16_t attempt, const char *reason, uint64_t grace_usec) {
        Client *c = client;
        c->n_cancels++;
        ledger_notice(c, id.seq, attempt, grace_usec);
        (void)snprintf(c->reason, sizeof(c->reason), "%s", reason);
}

static void client_refused(void *client, uint32_t msgid, eq_error code, const char *text,
                           const EqErrorDetails *details) {
        Client *c = client;
        c->n_refused++;
        c->refused = code;
        c->refused_seq = details && EQ_HAS(details, ErrorDetails, id) ? details->id.id.seq : 0;
}

static const WorkerClientOps client_ops = { .run = client_run, .cancel = client_cancel, .refused = client_refused };

static int on_prepare(void *host, Task *t, const RemoteWorker *w, WorkerOrder *ret) {
        const Bench *b = host;
        *ret = (WorkerOrder) { .id = { t->queue->id, t->seq },
                               .queue = t->queue->name,
                               .attempt = t->attempt,
                               .timeout_usec = b->timeout_usec,
                               .grace_usec = b->grace_usec };
        return 0;
}
static void on_unprepare(void *host, Task *t) {
        ((Bench *)host)->n_unprepared++;
}
static const WorkerHooks hooks = { .prepare = on_prepare, .unprepare = on_unprepare };

/* Attempts that are lost or given back return; others fail. */
static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        static const TaskEvent events[] = { [TASK_BAD] = TASK_EV_FAIL,
                                            [TASK_TIMED_OUT] = TASK_EV_TIME_OUT,
                                            [TASK_STOPPED] = TASK_EV_CANCEL,
                                            [TASK_LOST] = TASK_EV_RETURN,
                                            [TASK_RETURNED] = TASK_EV_RETURN };
        rig_note(((Rig *)host)->ends, sizeof(((Rig *)host)->ends), t,
                 result->verdict == TASK_LOST       ? "lost"
                 : result->verdict == TASK_RETURNED ? "returned"
                                                    : ":");
        return (TaskFate) { .event = events[result->verdict] };
}
static const EngineHooks engine_hooks = { .ended = on_ended, .finished = rig_hook_finished };

/* libuv opens descriptors of the whole process with the first loop: before they are counted. */
__attribute__((constructor)) static void open_libuv(void) {
        uv_loop_t loop;
        if (uv_loop_init(&loop) == 0)
                (void)uv_loop_close(&loop);
}

static Bench *bench_new(uint64_t max_active) {
        Bench *b = calloc(1, sizeof(*b));
        b->rig = rig_new(1);
        b->rig->engine.hooks = &engine_hooks;
        ck_assert_int_eq(uv_loop_init(&b->loop), 0);
        ck_assert_int_eq(worker_executor_new(&b->loop, &b->rig->engine, &hooks, b, &b->x), 0);
        ck_assert_int_eq(pool_new(&b->rig->engine, "remote", POOL_REMOTE, &b->x->executor, SIZE_MAX, &b->pool), 0);
        QueueParams params = rig_params;
        params.max_active = max_active;
        ck_assert_int_eq(queue_new(&b->rig->engine, b->pool, "w", &params, 0, &b->queue), 0);
        ck_assert_int_eq(worker_executor_add_queue(b->x, b->queue), 0);
        return b;
}

static void bench_free(Bench *b) {
        pool_set_max(b->pool, 0);
        for (int i = 0; i < N_CLIENTS; i++)
                remote_worker_free(b->clients[i].worker, false);
        for (size_t i = 0; i < b->rig->n_tasks; i++)
                (void)queue_cancel(b->rig->tasks[i]->queue, b->rig->tasks[i]);
        queue_set_rescuer(b->queue, NULL);
        rescuer_free(b->rescuer);
        worker_executor_remove_queue(b->x, b->queue);
        worker_executor_free(b->x);
        rig_free(b->rig);
        ck_assert_int_eq(uv_run(&b->loop, UV_RUN_DEFAULT), 0);
        ck_assert_int_eq(uv_loop_close(&b->loop), 0);
        free(b);
}
static void bench_freep(Bench **b) {
        bench_free(*b);
}
#define _bench_ __attribute__((cleanup(bench_freep))) Bench

static Client *join_as(Bench *b, int i, uint32_t credit, uint32_t parallel, bool reserved) {
        Client *c = &b->clients[i];
        Identity *id;
        ck_assert_int_eq(identity_new(1000, 1000, NULL, 0, &id), 0);
        WorkerSetup setup = { .number = (uint64_t)i + 1, .identity = id, .ops = &client_ops, .client = c };
        ck_assert_int_eq(remote_worker_new(b->x, &setup, &c->worker), 0);
        identity_unref(id);
        c->bench = b;
        c->worker->reserved = reserved;
        ck_assert_int_eq(remote_worker_serve(c->worker, &b->queue, 1), 0);
        remote_worker_set_credit(c->worker, credit, parallel);
        return c;
}

static Client *join(Bench *b, int i, uint32_t credit, uint32_t parallel) {
        return join_as(b, i, credit, parallel, false);
}

static void vanish(Client *c) {
        for (size_t i = 0; i < c->n_sent; i++)
                ledger_end(c, i);
        c->worker = remote_worker_free(c->worker, false);
}

static Task *submit(Bench *b) {
        return rig_submit_to(b->rig, b->queue, TASK_LANE_NORMAL, 0, 0);
}

static const EqBytes nil = { "\xc0", 1 };
/* True: it counts, and then it is said what it ended. */
static bool answer(Client *c, size_t i, EqBytes error, EqBytes result) {
        LeaseName lease = { 0 };
        const uint64_t seq = c->sent[i].seq;
        const uint16_t attempt = c->sent[i].attempt;
        ledger_end(c, i);
        bool counts = remote_worker_answer(c->worker, c->sent[i].msgid, error, result, &lease);
        ck_assert_uint_eq(lease.id.seq, counts ? seq : 0);
        ck_assert_uint_eq(lease.attempt, counts ? attempt : 0);
        return counts;
}
static void answer_well(Client *c, size_t i) {
        answer(c, i, nil, nil);
}
static void answer_badly(Client *c, size_t i) {
        answer(c, i, eq_bytes("\xa2no", 3), nil);
}

static void pass(Bench *b, uint64_t usec) {
        fake_clock_advance(&b->rig->clock, usec);
        worker_executor_run_due(b->x);
}

/* ---- who gets what ---- */

TEST(a_queue_tells_why_nobody_takes_its_tasks) {
        _bench_ *b = bench_new(10);
        const Task *t = submit(b);
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_NO_WORKER);
        Client *c = join(b, 0, 0, 1);
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_POOL_FULL);
        remote_worker_set_credit(c->worker, 1, 1);
        ck_assert_uint_eq(c->n_sent, 1);
        const Task *second = submit(b);
        ck_assert_int_eq(queue_reason(b->queue, second, NULL), EQ_REASON_POOL_FULL);
        ck_assert_str_eq(remote_worker_state(c->worker), "full");
}

TEST(idle_workers_come_before_those_that_would_let_it_wait) {
        _bench_ *b = bench_new(100);
        Client *x = join(b, 0, 5, 1), *y = join(b, 1, 5, 2);
        for (int i = 0; i < 3; i++)
                submit(b);
        ck_assert_uint_eq(x->n_sent, 1);
        ck_assert_uint_eq(y->n_sent, 2);
        submit(b);
        submit(b);
        ck_assert_uint_eq(x->n_sent + y->n_sent, 5);
        answer_well(x, 0);
        while (x->worker->n_active + x->worker->n_waiting > 0)
                answer_well(x, x->n_sent - 1);
        size_t before = y->n_sent;
        submit(b);
        ck_assert_uint_eq(y->n_sent, before);
}

TEST(a_worker_that_does_not_read_gets_no_more_until_it_has) {
        _bench_ *b = bench_new(100);
        Client *c = join(b, 0, 10, 10);
        c->result = WORKER_SENT_FULL;
        submit(b);
        submit(b);
        ck_assert_uint_eq(c->n_sent, 1);
        ck_assert_str_eq(remote_worker_state(c->worker), "blocked");
        c->result = WORKER_SENT;
        remote_worker_unclogged(c->worker);
        ck_assert_uint_eq(c->n_sent, 2);
}

/* ---- the rescuer ---- */

static Bench *bench_with_rescuer(uint64_t max_active, RescueOn on) {
        Bench *b = bench_new(max_active);
        b->queue->params.rescue_on = on;
        ck_assert_int_eq(rescuer_new(&b->rig->engine, POOL_REMOTE, &b->x->executor, "r", &b->rescuer), 0);
        queue_set_rescuer(b->queue, b->rescuer);
        return b;
}

static void engine_pass(Bench *b, uint64_t usec) {
        fake_clock_advance(&b->rig->clock, usec);
        (void)engine_run_due(&b->rig->engine);
}

static void submit_n(Bench *b, int n) {
        for (int i = 0; i < n; i++)
                submit(b);
}

TEST(reserved_workers_get_one_task_at_a_time_while_the_others_are_stuck) {
        _bench_ *b = bench_with_rescuer(100, RESCUE_ON_AUTO);
        Client *regular = join(b, 0, 1, 1), *one = join_as(b, 1, 8, 8, true), *two = join_as(b, 2, 8, 8, true);
        submit_n(b, 6);
        ck_assert_uint_eq(regular->n_sent, 1);
        engine_pass(b, USEC_PER_SEC / 2);
        ck_assert_uint_eq(one->n_sent + two->n_sent, 0); /* busy is not stuck */
        engine_pass(b, USEC_PER_SEC / 2);
        ck_assert_uint_eq(one->n_sent + two->n_sent, 1);
        ck_assert_uint_eq(one->n_sent ? one->sent[0].seq : two->sent[0].seq, 2); /* the next one, in order */
        engine_pass(b, USEC_PER_SEC);
        ck_assert_uint_eq(one->n_sent + two->n_sent, 1);
        answer_well(one->n_sent ? one : two, 0);
        ck_assert_uint_eq(one->n_sent + two->n_sent, 2); /* no pause between them */
        ck_assert(queue_is_rescued(b->queue));
        answer_well(regular, 0); /* takes the next ones itself: relief */
        ck_assert_uint_eq(regular->n_sent, 2);
        Client *busy = remote_worker_in_flight(one->worker) > 0 ? one : two;
        answer_well(busy, busy->n_sent - 1);
        ck_assert_uint_eq(one->n_sent + two->n_sent, 2);
        ck_assert(!queue_is_rescued(b->queue));
        ck_assert_uint_eq(b->queue->n_rescued, 2);
        ck_assert_uint_ge(b->queue->n_mayday, 1);
        while (remote_worker_in_flight(regular->worker) > 0)
                answer_well(regular, regular->n_sent - 1);
        ck_assert_uint_eq(regular->n_sent, 4);
        engine_pass(b, 10 * USEC_PER_SEC);
        ck_assert_uint_eq(one->n_sent + two->n_sent, 2);
}

TEST(without_regular_workers_the_reserve_comes_after_the_first_mayday) {
        _bench_ *b = bench_with_rescuer(100, RESCUE_ON_AUTO);
        Client *reserve = join_as(b, 1, 1, 1, true);
        const Task *t = submit(b);
        submit_n(b, 2);
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_NO_WORKER);
        ck_assert_uint_eq(worker_executor_n_serving(b->queue), 0);
        ck_assert_uint_eq(worker_executor_n_reserved(b->queue), 1);
        engine_pass(b, 9 * USEC_PER_MSEC);
        ck_assert_uint_eq(reserve->n_sent, 0);
        engine_pass(b, USEC_PER_MSEC);
        ck_assert_uint_eq(reserve->n_sent, 1);
        Client *regular = join(b, 0, 10, 10);
        ck_assert_uint_eq(regular->n_sent, 2); /* what it had not claimed */
        answer_well(reserve, 0);
        ck_assert_uint_eq(reserve->n_sent, 1);
        ck_assert_uint_eq(b->queue->n_rescued, 1);
}

TEST(a_rescuer_without_reserved_workers_pretends_nothing) {
        _bench_ *b = bench_with_rescuer(100, RESCUE_ON_AUTO);
        const Task *t = submit(b);
        engine_pass(b, 10 * USEC_PER_SEC);
        ck_assert(b->queue->n_mayday == 0 && !queue_is_rescued(b->queue));
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_NO_WORKER);
        Client *reserve = join_as(b, 1, 1, 1, true);
        engine_pass(b, 10 * USEC_PER_MSEC);
        ck_assert_uint_eq(reserve->n_sent, 1);
        vanish(reserve); /* with it: to its place, for the next */
        engine_pass(b, 10 * USEC_PER_SEC);
        reserve = join_as(b, 2, 1, 1, true);
        engine_pass(b, 10 * USEC_PER_MSEC);
        ck_assert_uint_eq(reserve->n_sent, 1);
        ck_assert_uint_eq(reserve->sent[0].attempt, 2);
}

TEST(reserved_workers_wait_where_there_is_no_rescuer_and_for_serial_queues) {
        _bench_ *b = bench_new(1);
        Client *reserve = join_as(b, 1, 1, 1, true);
        submit_n(b, 2);
        engine_pass(b, 10 * USEC_PER_SEC);
        ck_assert_uint_eq(reserve->n_sent, 0);
        ck_assert_int_eq(rescuer_new(&b->rig->engine, POOL_REMOTE, &b->x->executor, "r", &b->rescuer), 0);
        Client *regular = join(b, 0, 1, 1);
        queue_set_rescuer(b->queue, b->rescuer);
        engine_pass(b, 10 * USEC_PER_SEC);
        ck_assert_uint_eq(regular->n_sent, 1); /* holds the queue, however long */
        ck_assert_uint_eq(reserve->n_sent, 0);
}

TEST(rescue_on_tells_missing_workers_from_full_ones) {
        _bench_ *missing = bench_with_rescuer(100, RESCUE_ON_CREATE_FAILURE);
        _bench_ *full = bench_with_rescuer(100, RESCUE_ON_POOL_FULL);
        Bench *both[] = { missing, full };
        for (int i = 0; i < 2; i++) {
                Bench *b = both[i];
                Client *reserve = join_as(b, 1, 8, 8, true);
                submit_n(b, 3);
                engine_pass(b, USEC_PER_SEC * 5);
                ck_assert_uint_eq(reserve->n_sent, b == missing);
                Client *regular = join(b, 0, 1, 1);
                ck_assert_uint_eq(regular->n_sent, 1);
                if (b == missing)
                        answer_well(reserve, 0);
                engine_pass(b, USEC_PER_SEC * 5);
                ck_assert_uint_eq(reserve->n_sent, 1);
        }
}

TEST(a_queue_whose_workers_are_busy_and_go_on_is_not_rescued) {
        _bench_ *b = bench_with_rescuer(100, RESCUE_ON_AUTO);
        Client *regular = join(b, 0, 1, 1), *reserve = join_as(b, 1, 1, 1, true);
        submit_n(b, 20);
        for (size_t i = 0; i < 20; i++) {
                engine_pass(b, USEC_PER_SEC * 9 / 10);
                answer_well(regular, i);
        }
        ck_assert_uint_eq(reserve->n_sent, 0);
        ck_assert_uint_eq(b->queue->n_mayday, 0);
}

/* ---- ends ---- */

TEST(lost_tasks_are_all_back_before_the_first_starts_again) {
        _bench_ *b = bench_new(3);
        Client *x = join(b, 0, 3, 2);
        for (int i = 0; i < 5; i++)
                submit(b);
        Client *y = join(b, 1, 3, 3);
        ck_assert_uint_eq(y->n_sent, 0);
        vanish(x);
        ck_assert_str_eq(b->rig->ends, "1:1lost 1:2lost 1:3returned"); /* the third waited in it */
        ck_assert_uint_eq(y->n_sent, 3);
        for (size_t i = 0; i < 3; i++) {
                ck_assert_uint_eq(y->sent[i].seq, i + 1);
                ck_assert_uint_eq(y->sent[i].attempt, 2);
        }
}

TEST(the_first_to_start_again_is_the_first_of_the_queue_not_the_first_that_was_sent) {
        _bench_ *b = bench_new(2);
        Client *x = join(b, 0, 2, 2);
        Task *held = rig_submit_to(b->rig, b->queue, TASK_LANE_NORMAL, TASK_WAIT_HELD, 0);
        submit(b);
        (void)queue_wait_clear(b->queue, held, TASK_WAIT_HELD);
        ck_assert_uint_eq(x->sent[0].seq, 2);
        ck_assert_uint_eq(x->sent[1].seq, 1);
        const Client *y = join(b, 1, 1, 1);
        vanish(x);
        ck_assert_uint_eq(y->n_sent, 1);
        ck_assert_uint_eq(y->sent[0].seq, 1);
}

TEST(what_was_not_sent_any_more_is_no_crash) {
        _bench_ *b = bench_new(3);
        Client *c = join(b, 0, 3, 3);
        c->result = WORKER_GONE;
        submit(b);
        ck_assert_uint_eq(c->n_sent, 1);
        vanish(c);
        ck_assert_str_eq(b->rig->ends, "1:1returned");
}

TEST(a_cancel_gives_notice_then_revokes_and_the_credit_stays_used) {
        _bench_ *b = bench_new(10);
        b->grace_usec = 500;
        Client *c = join(b, 0, 1, 1);
        Task *t = submit(b);
        submit(b);
        ck_assert_int_eq(engine_task_stop(&b->rig->engine, t, 0, USEC_NEVER), 0);
        ck_assert_str_eq(c->reason, "canceled");
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        pass(b, 499);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        pass(b, 1);
        ck_assert_int_eq(t->state, EQ_STATE_CANCELED);
        ck_assert_uint_eq(c->n_sent, 1);
        answer_well(c, 0);
        ck_assert_int_eq(c->refused, EQ_E_NO_LEASE);
        ck_assert_uint_eq(c->refused_seq, 1);
        ck_assert_uint_eq(c->worker->n_late, 1);
        ck_assert_uint_eq(c->n_sent, 2);
        answer_well(c, 0); /* once more */
        ck_assert_uint_eq(c->n_refused, 2);
        ck_assert_uint_eq(c->refused_seq, 0);
        ck_assert_uint_eq(c->worker->n_refused, 1);
        answer_well(c, 1);
        ck_assert_str_eq(b->rig->ends, "1:1: 1:1CANCELED 1:2DONE");
}

TEST(kill_revokes_at_once_and_an_error_after_a_cancel_means_stopped) {
        _bench_ *b = bench_new(10);
        b->grace_usec = USEC_NEVER;
        Client *c = join(b, 0, 5, 5);
        Task *t[3] = { submit(b), submit(b), submit(b) };
        (void)engine_task_stop(&b->rig->engine, t[0], SIGKILL, USEC_NEVER);
        ck_assert_int_eq(t[0]->state, EQ_STATE_CANCELED);
        (void)engine_task_stop(&b->rig->engine, t[1], 0, USEC_NEVER);
        pass(b, 1000 * USEC_PER_SEC);
        ck_assert_int_eq(t[1]->state, EQ_STATE_RUNNING);
        answer_badly(c, 1);
        ck_assert_int_eq(t[1]->state, EQ_STATE_CANCELED);
        (void)engine_task_stop(&b->rig->engine, t[2], 0, USEC_NEVER);
        answer_well(c, 2);
        ck_assert_int_eq(t[2]->state, EQ_STATE_DONE);
}

TEST(the_time_of_a_task_runs_when_its_worker_may_have_come_to_it) {
        _bench_ *b = bench_new(10);
        Client *c = join(b, 0, 2, 1);
        submit(b);
        b->timeout_usec = 100;
        Task *t = submit(b);
        pass(b, 1000);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        answer_well(c, 0);
        pass(b, 99);
        ck_assert_uint_eq(c->n_cancels, 0);
        pass(b, 1);
        ck_assert_str_eq(c->reason, "timeout");
        ck_assert_int_eq(t->state, EQ_STATE_TIMEOUT);
}

TEST(an_answer_within_the_grace_of_a_timeout_is_still_a_timeout) {
        _bench_ *b = bench_new(10);
        b->timeout_usec = 100;
        b->grace_usec = 100;
        Client *c = join(b, 0, 2, 2);
        Task *t = submit(b);
        pass(b, 150);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        answer_well(c, 0);
        ck_assert_int_eq(t->state, EQ_STATE_TIMEOUT);
        ck_assert_uint_eq(c->n_refused, 0);
}

TEST(the_times_of_leases_are_the_loops_too) {
        _bench_ *b = bench_new(10);
        b->timeout_usec = 1;
        Client *c = join(b, 0, 1, 1);
        Task *t = submit(b);
        fake_clock_advance(&b->rig->clock, 10);
        while (c->n_cancels == 0)
                uv_run(&b->loop, UV_RUN_ONCE);
        ck_assert_int_eq(t->state, EQ_STATE_TIMEOUT);
}

TEST(what_a_leaving_worker_has_stays_with_it) {
        _bench_ *b = bench_new(10);
        Client *c = join(b, 0, 2, 2);
        submit(b);
        submit(b);
        const Task *t = submit(b);
        remote_worker_leave(c->worker);
        answer_well(c, 0);
        answer_badly(c, 1);
        ck_assert_uint_eq(remote_worker_in_flight(c->worker), 0);
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_NO_WORKER);
}

TEST(an_answer_that_counts_is_told_by_its_name) {
        _bench_ *b = bench_new(10);
        b->grace_usec = 50;
        Client *c = join(b, 0, 4, 4);
        for (int i = 0; i < 3; i++)
                submit(b);
        ck_assert(answer(c, 0, nil, nil));
        ck_assert(!answer(c, 0, nil, nil)); /* again */
        ck_assert(answer(c, 1, eq_bytes("\xa2no", 3), nil));
        ck_assert(!answer(c, 2, nil, eq_bytes("\x07", 1))); /* a number is no result */
        ck_assert_uint_eq(c->worker->n_refused, 2);
}

TEST(what_cannot_be_sent_for_want_of_memory_is_tried_again) {
        _bench_ *b = bench_new(10);
        Client *c = join(b, 0, 10, 10);
        c->result = -ENOMEM;
        Task *t = submit(b);
        ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
        ck_assert_uint_eq(t->attempt, 0);
        ck_assert_uint_eq(remote_worker_in_flight(c->worker), 0);
        ck_assert_uint_eq(b->n_unprepared, 1);
        c->result = 0;
        rig_advance(b->rig, POOL_COOLDOWN_USEC);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        fault_set(FAULT_ALLOC, 1, true);
        Task *second = rig_make(b->rig, 2, TASK_LANE_NORMAL, 10); /* its own memory is not what is missing */
        (void)second;
        ck_assert_int_eq(remote_worker_serve(c->worker, &b->queue, 1), -ENOMEM);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_uint_eq(c->worker->n_servings, 1);
}

/* ---- everything at once ---- */

typedef struct Chaos {
        Bench *b;
        uint64_t random;
        Task *tasks[200];
        size_t n;
} Chaos;

static unsigned roll(Chaos *k, unsigned n) {
        k->random = k->random * UINT64_C(6364136223846793005) + 1442695040888963407;
        return (unsigned)(k->random >> 33) % n;
}

/* Each running task is leased to a worker that is there, and to one only: client_run() looks into the ledger of what the workers
 * have. Nobody has more than its credit ever was. */
static void check_leases(const Chaos *k) {
        size_t n_running = 0;
        for (size_t i = 0; i < k->n; i++)
                if (k->tasks[i]->state == EQ_STATE_RUNNING) {
                        ck_assert_ptr_nonnull(remote_worker_of(k->tasks[i]));
                        n_running++;
                }
        size_t n_leased = 0;
        for (int i = 0; i < N_CLIENTS; i++)
                if (k->b->clients[i].worker)
                        n_leased += remote_worker_in_flight(k->b->clients[i].worker);
        ck_assert_uint_le(n_running, n_leased); /* the others are revoked and not answered yet */
        ck_assert_uint_eq(n_leased, k->b->x->n_leases);
        ck_assert_uint_eq(n_running, k->b->queue->n_running);
}

static void one_thing(Chaos *k) {
        Client *c = &k->b->clients[roll(k, N_CLIENTS)];
        unsigned what = roll(k, 10);
        if (!c->worker) {
                memset(c, 0, sizeof(*c));
                (void)join(k->b, (int)(c - k->b->clients), 1 + roll(k, 6), 1 + roll(k, 3));
        } else if (what == 0 || c->n_sent > N_SENT - 10)
                vanish(c);
        else if (what == 1)
                remote_worker_set_credit(c->worker, roll(k, 6), 1 + roll(k, 3));
        else if (what == 2 && k->n > 0)
                (void)engine_task_stop(&k->b->rig->engine, k->tasks[roll(k, (unsigned)k->n)], 0, roll(k, 100));
        else if (what == 3)
                pass(k->b, roll(k, 200));
        else if (what <= 5 && k->n < ELEMENTSOF(k->tasks))
                k->tasks[k->n++] = submit(k->b);
        else if (c->n_sent > 0)
                (what == 6 ? answer_badly : answer_well)(c, roll(k, (unsigned)c->n_sent)); /* also old ones */
        check_leases(k);
}

static void chaos(uint64_t seed, uint64_t max_active) {
        _bench_ *b = bench_new(max_active);
        Chaos k = { .b = b, .random = seed };
        b->timeout_usec = 150;
        b->grace_usec = 50;
        b->with_ledger = true;
        for (int i = 0; i < 2000; i++)
                one_thing(&k);
        for (int i = 0; i < N_CLIENTS; i++)
                if (b->clients[i].worker)
                        vanish(&b->clients[i]);
        Client *c = &b->clients[0];
        memset(c, 0, sizeof(*c));
        (void)join(b, 0, 1, 1);
        while (!queue_is_empty(b->queue)) {
                ck_assert_uint_eq(c->n_sent, 1);
                c->n_sent = 0;
                answer_well(c, 0);
                check_leases(&k);
        }
        for (size_t i = 0; i < k.n; i++)
                ck_assert(eq_state_finished(k.tasks[i]->state));
}

TEST(nothing_is_lost_or_leased_twice_whatever_happens) {
        for (uint64_t seed = 1; seed <= 40; seed++)
                chaos(seed, seed % 2 ? 1 : 7);
}

RUN_TESTS("worker", 60, test_a_queue_tells_why_nobody_takes_its_tasks,
          test_idle_workers_come_before_those_that_would_let_it_wait,
          test_a_worker_that_does_not_read_gets_no_more_until_it_has,
          test_reserved_workers_get_one_task_at_a_time_while_the_others_are_stuck,
          test_without_regular_workers_the_reserve_comes_after_the_first_mayday,
          test_a_rescuer_without_reserved_workers_pretends_nothing,
          test_reserved_workers_wait_where_there_is_no_rescuer_and_for_serial_queues,
          test_rescue_on_tells_missing_workers_from_full_ones,
          test_a_queue_whose_workers_are_busy_and_go_on_is_not_rescued,
          test_lost_tasks_are_all_back_before_the_first_starts_again,
          test_the_first_to_start_again_is_the_first_of_the_queue_not_the_first_that_was_sent,
          test_what_was_not_sent_any_more_is_no_crash,
          test_a_cancel_gives_notice_then_revokes_and_the_credit_stays_used,
          test_kill_revokes_at_once_and_an_error_after_a_cancel_means_stopped,
          test_the_time_of_a_task_runs_when_its_worker_may_have_come_to_it,
          test_an_answer_within_the_grace_of_a_timeout_is_still_a_timeout, test_the_times_of_leases_are_the_loops_too,
          test_what_a_leaving_worker_has_stays_with_it, test_an_answer_that_counts_is_told_by_its_name,
          test_what_cannot_be_sent_for_want_of_memory_is_tried_again,
          test_nothing_is_lost_or_leased_twice_whatever_happens)
