/* SPDX-License-Identifier: MIT */
/* Arrays with a limit through a manager: against a model, over a restart by snapshot, and in a store. */
#include "manager/arrays.h"
#include "manager/removal.h"

#include "store-host.h"

static Host h;

static EqSubmit of(uint64_t number, uint64_t limit) {
        EqSubmit s = { 0 };
        EQ_SET(&s, Submit, array, number);
        EQ_SET(&s, Submit, array_limit, limit);
        return s;
}

static QueueRecord *begin(const char *max_active) {
        host_init(&h);
        return host_queue(&h, "q", (const char *const[]) { max_active, "retries=0", "backoff=1s", NULL });
}

static TaskRecord *task(uint64_t seq) {
        return task_of_q(&h, seq);
}

static void submit(uint64_t n, EqSubmit s) {
        while (n-- > 0)
                host_task(&h, "q", s);
}

static void end(uint64_t seq) {
        ck_assert_state(task(seq), RUNNING);
        host_end(&h, task(seq), TASK_OK);
}

static void waits(uint64_t seq, const char *reason, const char *text) {
        TaskView v;
        view_task(h.m, task(seq), &v);
        ck_assert_state(task(seq), WAITING);
        ck_assert_msg(eq_bytes_eq(v.row.reason, eq_str(reason)), "%.*s", (int)v.row.reason.len, v.row.reason.data);
        ck_assert_msg(strstr(v.detail, text), "%s", v.detail);
}

/* Each character is the state of a task, from SEQ 1 on: r(unning), q(ueued), w(aiting), anything else: it has ended. */
static void are(const char *states) {
        for (uint64_t seq = 1; states[seq - 1]; seq++) {
                eq_state state = (eq_state)task(seq)->task.state;
                char is = state == EQ_STATE_RUNNING   ? 'r'
                          : state == EQ_STATE_QUEUED  ? 'q'
                          : state == EQ_STATE_WAITING ? 'w'
                                                      : '-';
                ck_assert_msg(is == states[seq - 1], "task %llu is %s; wanted %s", (unsigned long long)seq,
                              eq_state_name(state), states);
        }
}

/* ---- who goes ---- */

TEST(as_many_as_the_limit_run_and_the_next_one_starts_at_each_end) {
        begin("max_active=9");
        submit(6, of(7, 2));
        are("rrwwww");
        waits(3, "array", "2 tasks of its array have their turn, as many as its limit allows at once");
        host_end(&h, task(2), TASK_BAD);
        are("r-rwww");
        host_end(&h, task(1), TASK_CRASHED);
        are("--rrww");
        ck_assert_int_eq(manager_cancel(h.m, task(5), false, 0, 0), 0); /* it waits: nobody gets anything by that */
        are("--rr-w");
        end(3);
        end(4);
        are("-----r");
        end(6);
        ck_assert_ptr_null(durable_q(&h)->arrays);
        host_done(&h);
}

TEST(others_of_the_queue_pass_those_that_wait) {
        begin("max_active=3");
        submit(3, of(7, 1));
        submit(3, (EqSubmit) { 0 });
        are("rwwrrq");
        end(4);
        are("rww-rr");
        end(1);
        are("-rw-rr");
        host_done(&h);
}

TEST(a_serial_queue_and_a_limit_above_the_array_change_nothing) {
        begin("max_active=1");
        submit(3, of(7, 2));
        are("rqw");
        end(1);
        are("-rq");
        host_done(&h);
        begin("max_active=9");
        submit(3, of(7, 4294967295));
        are("rrr");
        host_done(&h);
}

TEST(a_canceled_one_that_had_its_turn_passes_it_on) {
        begin("max_active=1");
        host_task(&h, "q", (EqSubmit) { 0 });
        submit(4, of(7, 1));
        are("rqwww");
        ck_assert_int_eq(manager_cancel(h.m, task(2), false, 0, 0), 0);
        are("r-qww");
        host_done(&h);
}

TEST(one_that_expires_passes_its_turn_on) {
        begin("max_active=1");
        host_task(&h, "q", (EqSubmit) { 0 });
        EqSubmit s = of(7, 1);
        EQ_SET(&s, Submit, expire_usec, USEC_PER_SEC);
        host_task(&h, "q", s);
        submit(2, of(7, 1));
        are("rqww");
        host_advance(&h, USEC_PER_SEC);
        ck_assert_state(task(2), EXPIRED);
        are("r-qw");
        host_done(&h);
}

TEST(a_retry_keeps_the_turn_and_one_by_hand_asks_again) {
        begin("max_active=9");
        EqSubmit s = of(7, 1);
        EQ_SET(&s, Submit, retries, 1);
        submit(3, s);
        host_end(&h, task(1), TASK_BAD);
        are("www");
        waits(1, "backoff", "attempt 1 failed");
        waits(2, "array", "1 task of its array has its turn");
        host_advance(&h, 2 * USEC_PER_SEC);
        are("rww");
        host_end(&h, task(1), TASK_BAD);
        ck_assert_state(task(1), DEAD);
        are("-rw");
        ck_assert_int_eq(manager_retry(h.m, task(1), true), 0);
        are("wrw");
        end(2);
        are("r-w"); /* at its own place */
        end(1);
        end(3);
        ck_assert_ptr_null(durable_q(&h)->arrays);
        ck_assert_int_eq(manager_retry(h.m, task(3), true), 0); /* an array of one */
        are("--r");
        host_done(&h);
}

TEST(who_is_held_has_no_turn_and_asks_when_it_is_released) {
        begin("max_active=1");
        host_task(&h, "q", (EqSubmit) { 0 });
        submit(3, of(7, 1));
        are("rqww");
        ck_assert_int_eq(manager_hold(h.m, task(2)), 0);
        are("rwqw");
        waits(2, "held", "eqctl release");
        ck_assert_int_eq(manager_release(h.m, task(2)), 0);
        are("rwqw");
        waits(2, "array", "1 task of its array has its turn");
        end(1);
        are("-wrw");
        end(3);
        are("-r-w");
        ck_assert_int_eq(manager_hold(h.m, task(4)), 0);
        end(2);
        are("---w");
        ck_assert_int_eq(manager_release(h.m, task(4)), 0);
        are("---r");
        host_done(&h);
}

TEST(one_of_a_held_array_runs_when_it_alone_is_released) {
        begin("max_active=9");
        EqSubmit s = of(7, 1);
        EQ_SET(&s, Submit, hold, true);
        submit(4, s);
        are("wwww");
        ck_assert_int_eq(manager_release(h.m, task(3)), 0);
        are("wwrw");
        ck_assert_int_eq(manager_release(h.m, task(4)), 0);
        ck_assert_int_eq(manager_release(h.m, task(1)), 0);
        are("wwrw");
        end(3);
        are("rw-w");
        host_done(&h);
}

TEST(who_comes_after_another_asks_when_that_has_ended) {
        begin("max_active=9");
        EqBuffer b = EQ_BUFFER_NULL;
        EqSubmit s = of(7, 1);
        msgpack_packer pk = eq_packer(&b);
        eq_pack_id(&pk, task_record_id(host_task(&h, "q", (EqSubmit) { 0 })));
        EQ_SET(&s, Submit, after_ok, (EqArray) { .raw = eq_bytes(b.data, b.len), .n = 1 });
        host_task(&h, "q", s);
        submit(2, of(7, 1));
        are("rwrw");
        waits(2, "after", "comes after q/1");
        end(1);
        waits(2, "array", "1 task of its array has its turn");
        end(3);
        are("-r-w");
        eq_buffer_done(&b);
        host_done(&h);
}

TEST(urgent_ones_have_their_turn_before_the_others) {
        begin("max_active=9");
        submit(2, of(7, 1));
        EqSubmit s = of(7, 1);
        EQ_SET(&s, Submit, urgent, true);
        host_task(&h, "q", s);
        are("rww");
        end(1);
        are("-wr");
        host_done(&h);
}

/* ---- which array ---- */

TEST(arrays_are_those_of_a_user_in_a_queue) {
        TaskRecord *t;
        begin("max_active=9");
        host_queue(&h, "r", (const char *const[]) { "max_active=9", NULL });
        submit(2, of(7, 1));
        submit(2, of(8, 1));
        ck_assert_int_eq(host_submit(&h, bob(&h), "q", of(7, 3), &t), 0);
        are("rwrwr");
        ck_assert_state(host_task(&h, "r", of(7, 2)), RUNNING);
        end(5);
        are("rwrw-");
        host_done(&h);
}

static void refuses(EqSubmit s, const char *field, const char *text) {
        TaskRecord *t;
        ck_assert_int_lt(host_submit(&h, anna(&h), "q", s, &t), 0);
        ck_assert_msg(strstr(h.refusal.text, text), "%s", h.refusal.text);
        ck_assert_int_eq(h.refusal.code, EQ_E_INVALID);
        ck_assert(eq_bytes_eq(h.refusal.details.field, eq_str(field)));
}

TEST(what_is_no_array_with_a_limit_is_refused) {
        begin("max_active=9");
        EqSubmit s = of(7, 2);
        s.present &= ~EQ_BIT(Submit, array);
        refuses(s, "array", "draw a number for it");
        s = of(7, 2);
        s.present &= ~EQ_BIT(Submit, array_limit);
        refuses(s, "array_limit", "of 1 or more");
        refuses(of(7, 0), "array_limit", "of 1 or more");
        host_task(&h, "q", of(7, 2));
        refuses(of(7, 3), "array_limit", "array 7 of queue q has 2, for all of its tasks");
        end(1);
        ck_assert_state(host_task(&h, "q", of(7, 3)), RUNNING); /* that one is gone */
        host_done(&h);
}

TEST(a_known_key_joins_no_array) {
        TaskRecord *t;
        begin("max_active=9");
        EqSubmit s = { 0 };
        EQ_SET(&s, Submit, unique, eq_str("k"));
        host_task(&h, "q", s);
        EqSubmit again = of(7, 1);
        EQ_SET(&again, Submit, unique, eq_str("k"));
        ck_assert_int_eq(host_submit(&h, anna(&h), "q", again, &t), 0);
        ck_assert_ptr_null(t);
        ck_assert_ptr_null(durable_q(&h)->arrays);
        host_task(&h, "q", of(7, 1));
        are("rr");
        host_done(&h);
}

TEST(without_memory_a_task_is_refused_and_nothing_is_left) {
        TaskRecord *t;
        unsigned nth = 0;
        int r = -ENOMEM;
        begin("max_active=9");
        while (r != 0) {
                fault_set(FAULT_ALLOC, ++nth, false);
                r = host_submit(&h, anna(&h), "q", of(7, 1), &t);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert(r == 0 || (durable_q(&h)->arrays == NULL && h.m->n_pending == 0));
        }
        ck_assert_uint_gt(nth, 3); /* record, links, array, heap */
        ck_assert_uint_eq(t->task.wait, 0);
        host_done(&h);
}

static void removed(RemoveWaiter *w) {
        (void)w;
}

TEST(nobody_goes_while_the_queue_is_removed) {
        RemoveWaiter w = { .done = removed };
        QueueRecord *q = begin("max_active=2");
        submit(1, of(8, 1));
        submit(20, of(7, 2));
        are("rrqw");
        list_init(&w.link);
        ck_assert_int_eq(manager_queue_rm(h.m, q, true, &w, &h.refusal), 0);
        ck_assert_uint_eq(h.m->commands->n_running, 2);
        for (uint64_t seq = 3; seq <= 21; seq++)
                ck_assert_state(task(seq), CANCELED);
        host_end(&h, task(1), TASK_STOPPED);
        host_end(&h, task(2), TASK_STOPPED);
        ck_assert_uint_eq(h.m->commands->n_running, 0);
        host_done(&h);
}

/* ---- restart ---- */

TEST(after_a_restart_the_first_of_those_that_are_left_have_their_turns) {
        EqSubmit held = of(7, 2);
        EQ_SET(&held, Submit, hold, true);
        begin("max_active=9");
        submit(3, of(7, 2));
        host_task(&h, "q", held);
        submit(2, of(7, 2));
        end(1);
        are("-rrwww");
        int fd = host_keep(&h);
        host_init_from(&h, NULL, NULL, fd);
        close(fd);
        are("-rrwww");
        waits(4, "held", "eqctl release");
        waits(5, "array", "2 tasks");
        end(2);
        are("--rwrw");
        host_done(&h);
}

static bool is_on_disk(const Host *host, uint64_t seq) {
        return has_arrived(host, seq);
}

static bool has_ended(const Host *host, uint64_t seq) {
        return task_record_finished(task_of_q(host, seq));
}

TEST(a_store_has_the_array_again_whatever_ran) {
        EqSubmit s = of(7, 2);
        EQ_SET(&s, Submit, retries, 1);
        durable_begin(&h, (const char *const[]) { "max_active=9", "max_crashes=9", NULL });
        submit(6, s);
        until(&h, is_on_disk, 6);
        ck_assert_uint_eq(h.m->commands->n_running, 2);
        end(1);
        are("-rrwww"); /* not when it is on disk: the queue does not wait for that either */
        until(&h, has_ended, 1);
        host_end(&h, task(2), TASK_BAD);
        are("-wrwww");
        durable_restart(&h);
        ck_assert_uint_le(h.m->commands->n_running, 2);
        waits(4, "array", "2 tasks");
        host_advance(&h, 3600 * USEC_PER_SEC);
        are("-rrwww");
        end(2);
        end(3);
        are("---rrw");
        end(4);
        end(5);
        end(6);
        until(&h, has_ended, 6);
        ck_assert_ptr_null(durable_q(&h)->arrays);
        durable_done(&h);
}

/* ---- a model ---- */

enum { STEPS = 4000, TASKS_MAX = 60 };

static uint64_t dice_state;

static uint64_t dice(uint64_t n) {
        dice_state = dice_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (dice_state >> 33) % n;
}

typedef struct Model {
        uint64_t limit, max_active, n; /* n: tasks so far, all of one array */
} Model;

/* Has its turn, as far as the manager tells: it waits for nothing but its place, its next attempt or its end. */
static bool goes(const TaskRecord *t) {
        return !eq_state_finished(t->task.state) && !(t->task.wait & (TASK_WAIT_AFTER | TASK_WAIT_HELD));
}

static void check(const Model *m) {
        uint64_t n_going = 0, n_running = 0, n_backing_off = 0, n_asking = 0;
        for (uint64_t seq = 1; seq <= m->n; seq++) {
                const TaskRecord *t = task(seq);
                if (eq_state_finished(t->task.state))
                        continue;
                n_going += goes(t);
                n_running += t->task.state == EQ_STATE_RUNNING;
                n_backing_off += goes(t) && (t->task.wait & TASK_WAIT_BACKOFF);
                n_asking += (t->task.wait & (TASK_WAIT_AFTER | TASK_WAIT_HELD)) == TASK_WAIT_AFTER;
        }
        ck_assert_uint_le(n_going, m->limit);
        ck_assert_msg(n_going == m->limit || n_asking == 0, "%llu have their turn, %llu ask",
                      (unsigned long long)n_going, (unsigned long long)n_asking);
        ck_assert_uint_eq(n_running, MIN(m->max_active, n_going - n_backing_off));
}

static TaskRecord *any(const Model *m) {
        return m->n > 0 ? task(1 + dice(m->n)) : NULL;
}

static void end_any(void) {
        static const TaskVerdict verdicts[] = { TASK_OK, TASK_BAD, TASK_CRASHED, TASK_TIMED_OUT };
        CommandExecutor *x = h.m->commands;
        if (x->n_running > 0)
                host_end(&h, task_record(x->running[dice(x->n_running)]), verdicts[dice(ELEMENTSOF(verdicts))]);
}

static void step(Model *m) {
        TaskRecord *t = any(m);
        EqSubmit s = of(7, m->limit);
        switch (dice(8)) {
        case 0:
        case 1:
                if (m->n == TASKS_MAX)
                        return;
                if (dice(3) == 0)
                        EQ_SET(&s, Submit, retries, 1 + dice(2));
                if (dice(6) == 0)
                        EQ_SET(&s, Submit, hold, true);
                if (dice(6) == 0)
                        EQ_SET(&s, Submit, expire_usec, USEC_PER_SEC);
                host_task(&h, "q", s);
                m->n++;
                return;
        case 2:
        case 3:
                end_any();
                return;
        case 4:
                if (t && dice(3) == 0)
                        (void)manager_cancel(h.m, t, false, 0, 0);
                return;
        case 5:
                if (t && dice(2) == 0)
                        (void)manager_hold(h.m, t);
                return;
        case 6:
                if (t)
                        (void)(dice(4) == 0 ? manager_retry(h.m, t, true) : manager_release(h.m, t));
                return;
        default:
                host_advance(&h, USEC_PER_SEC);
        }
}

TEST(never_more_than_the_limit_nor_fewer_while_one_asks) {
        for (uint64_t seed = 0; seed < 20; seed++) {
                char max_active[32];
                dice_state = seed;
                Model m = { .limit = 1 + dice(5), .max_active = 1 + dice(6) };
                snprintf(max_active, sizeof(max_active), "max_active=%llu", (unsigned long long)m.max_active);
                if (m.max_active == 1)
                        m.max_active = 2, strcpy(max_active, "max_active=2"); /* a back-off blocks a serial queue */
                begin(max_active);
                for (unsigned i = 0; i < STEPS / 20; i++) {
                        step(&m);
                        check(&m);
                }
                host_done(&h);
        }
}

RUN_TESTS("arrays", 30, test_as_many_as_the_limit_run_and_the_next_one_starts_at_each_end,
          test_others_of_the_queue_pass_those_that_wait, test_a_serial_queue_and_a_limit_above_the_array_change_nothing,
          test_a_canceled_one_that_had_its_turn_passes_it_on, test_one_that_expires_passes_its_turn_on,
          test_a_retry_keeps_the_turn_and_one_by_hand_asks_again,
          test_who_is_held_has_no_turn_and_asks_when_it_is_released,
          test_one_of_a_held_array_runs_when_it_alone_is_released,
          test_who_comes_after_another_asks_when_that_has_ended, test_urgent_ones_have_their_turn_before_the_others,
          test_arrays_are_those_of_a_user_in_a_queue, test_what_is_no_array_with_a_limit_is_refused,
          test_a_known_key_joins_no_array, test_without_memory_a_task_is_refused_and_nothing_is_left,
          test_nobody_goes_while_the_queue_is_removed,
          test_after_a_restart_the_first_of_those_that_are_left_have_their_turns,
          test_a_store_has_the_array_again_whatever_ran, test_never_more_than_the_limit_nor_fewer_while_one_asks)
