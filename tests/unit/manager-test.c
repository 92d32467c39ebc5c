/* SPDX-License-Identifier: MIT */
#include "manager-host.h"
#include "manager/removal.h"
#include "manager/space.h"

/* ---- fate ---- */

TEST(without_retries_a_failure_is_failed_and_a_time_out_is_timeout) {
        Host h;
        host_init(&h);
        TaskRecord *a = host_task(&h, "default", (EqSubmit) { 0 }), *b = host_task(&h, "default", (EqSubmit) { 0 });
        TaskRecord *c = host_task(&h, "default", (EqSubmit) { 0 });
        host_end(&h, a, TASK_BAD);
        host_end(&h, b, TASK_TIMED_OUT);
        host_end(&h, c, TASK_OK);
        ck_assert_state(a, FAILED);
        ck_assert_state(b, TIMEOUT);
        ck_assert_state(c, DONE);
        host_done(&h);
}

TEST(retries_wait_longer_each_time_and_end_dead) {
        Host h;
        host_init(&h);
        EqSubmit s = { 0 };
        EQ_SET(&s, Submit, retries, 3);
        EQ_SET(&s, Submit, backoff_usec, 10 * USEC_PER_SEC);
        EQ_SET(&s, Submit, backoff_max_usec, 30 * USEC_PER_SEC);
        TaskRecord *t = host_task(&h, "default", s);
        const uint64_t waits[] = { 10, 20, 30 };
        for (size_t i = 0; i < 3; i++) {
                host_end(&h, t, TASK_BAD);
                ck_assert_state(t, WAITING);
                host_advance(&h, waits[i] * USEC_PER_SEC * 9 / 10 - 1);
                ck_assert_state(t, WAITING); /* a tenth of it is random */
                host_advance(&h, waits[i] * USEC_PER_SEC / 5 + 1);
                ck_assert_state(t, RUNNING);
        }
        host_end(&h, t, TASK_BAD);
        ck_assert_state(t, DEAD);
        ck_assert_uint_eq(t->task.attempt, 4);
        host_done(&h);
}

TEST(the_output_of_all_attempts_is_kept_and_costs_its_user_nothing_more) {
        Host h;
        host_init(&h);
        EqSubmit s = { 0 };
        EQ_SET(&s, Submit, retries, 99);
        EQ_SET(&s, Submit, backoff_usec, 0); /* the longest is not 0 */
        TaskRecord *t = host_task(&h, "default", s);
        static char piece[3000];
        uint64_t used[_USER_RESOURCE_MAX];
        memcpy(used, t->user->used, sizeof(used));
        for (uint16_t k = 1; k <= 100; k++) {
                memset(piece, k, sizeof(piece));
                ck_assert_state(t, RUNNING);
                ck_assert_uint_eq(t->run->log.attempt, k);
                ck_assert_int_eq(output_log_append(&t->run->log, EQ_STREAM_STDOUT, piece, sizeof(piece)), 0);
                ck_assert_uint_eq(output_log_kept(&t->run->log, EQ_STREAM_STDOUT), MIN(k * sizeof(piece), EQ_LOG_TAIL));
                ck_assert_int_eq(memcmp(used, t->user->used, sizeof(used)), 0);
                host_end(&h, t, k < 100 ? TASK_BAD : TASK_OK);
                host_advance(&h, 1);
        }
        ck_assert_state(t, DONE);
        ck_assert_uint_eq(output_log_dropped(&t->run->log, 100), 0);
        ck_assert_uint_eq(output_log_dropped(&t->run->log, 79), 464); /* after it 21, which leave room for 2536 bytes */
        ck_assert_uint_eq(output_log_dropped(&t->run->log, 78), 3000);
        ck_assert(!output_log_knows(&t->run->log, 77));
        host_done(&h);
}

TEST(a_task_that_runs_names_its_process_as_soon_as_that_is_known) {
        Host h;
        WhyView why;
        host_init(&h);
        TaskRecord *t = host_task(&h, "default", (EqSubmit) { 0 });
        ck_assert_state(t, RUNNING);
        view_why(h.m, t, &why);
        ck_assert_str_eq(why.detail, "its process is being started");
        t->run->pid = 77;
        view_why(h.m, t, &why);
        ck_assert_str_eq(why.detail, "runs as process 77");
        host_end(&h, t, TASK_OK);
        host_done(&h);
}

TEST(a_task_in_back_off_keeps_its_place_in_a_serial_queue_and_urgent_ones_pass) {
        Host h;
        host_init(&h);
        EqSubmit s = { 0 }, urgent = { 0 };
        EQ_SET(&s, Submit, retries, 1);
        EQ_SET(&urgent, Submit, urgent, true);
        TaskRecord *a = host_task(&h, "default", s), *b = host_task(&h, "default", (EqSubmit) { 0 });
        host_end(&h, a, TASK_BAD);
        ck_assert_state(b, QUEUED);
        const TaskRecord *u = host_task(&h, "default", urgent);
        ck_assert_state(u, RUNNING);
        WhyView why;
        host_end(&h, (TaskRecord *)u, TASK_OK);
        view_why(h.m, b, &why);
        ck_assert(eq_bytes_eq(why.row.reason, eq_str("backoff")));
        ck_assert_uint_eq(why.row.by.id.seq, a->task.seq);
        host_advance(&h, 2 * USEC_PER_SEC);
        ck_assert_state(a, RUNNING);
        host_end(&h, a, TASK_OK);
        ck_assert_state(b, RUNNING);
        host_done(&h);
}

TEST(crashes_are_counted_apart_and_end_a_task_before_its_retries) {
        Host h;
        host_init(&h);
        host_queue(&h, "q", (const char *const[]) { "retries=100", "backoff=0", "max_crashes=2", NULL });
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        host_end(&h, t, TASK_BAD);
        host_advance(&h, 1);
        host_end(&h, t, TASK_CRASHED);
        host_advance(&h, 1);
        ck_assert_state(t, RUNNING);
        host_end(&h, t, TASK_CRASHED);
        ck_assert_state(t, DEAD);
        ck_assert_uint_eq(t->crashes, 2);
        host_done(&h);
}

TEST(a_running_task_that_is_canceled_ends_canceled_unless_it_was_quicker) {
        Host h;
        host_init(&h);
        host_queue(&h, "q", (const char *const[]) { "max_active=2", NULL });
        TaskRecord *a = host_task(&h, "q", (EqSubmit) { 0 }), *b = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(manager_cancel(h.m, a, false, 0, USEC_NEVER), 1);
        ck_assert(!a->task.canceling);
        ck_assert_int_eq(manager_cancel(h.m, a, true, 2, USEC_NEVER), 1);
        ck_assert_int_eq(h.m->commands->last_signal, 2);
        ck_assert_int_eq(manager_cancel(h.m, b, true, 0, USEC_NEVER), 1);
        host_end(&h, a, TASK_STOPPED);
        host_end(&h, b, TASK_OK);
        ck_assert_state(a, CANCELED);
        ck_assert_state(b, DONE);
        ck_assert_int_eq(manager_cancel(h.m, a, true, 0, USEC_NEVER), -1);
        host_done(&h);
}

TEST(a_task_that_could_not_start_after_its_cancel_is_canceled_whatever_its_retries) {
        Host h;
        EqSubmit s = { 0 };
        host_init(&h);
        EQ_SET(&s, Submit, retries, 3);
        TaskRecord *t = host_task(&h, "default", s);
        h.m->want_events = true;
        h.n_events = 0;
        ck_assert_int_eq(manager_cancel(h.m, t, true, 0, USEC_NEVER), 1);
        host_end(&h, t, TASK_NOT_STARTED);
        ck_assert_state(t, CANCELED);
        ck_assert_uint_eq(h.n_events, 1); /* that it finished, not that it started */
        host_done(&h);
}

/* ---- after ---- */

static EqSubmit after(Host *h, EqBuffer *b, const TaskRecord *target, int kind) {
        EqSubmit s = { 0 };
        msgpack_packer pk = eq_packer(b);
        b->len = 0;
        eq_pack_id(&pk, task_record_id(target));
        EqArray ids = { .raw = eq_bytes(b->data, b->len), .n = 1 };
        if (kind == DEP_OK)
                EQ_SET(&s, Submit, after_ok, ids);
        else if (kind == DEP_ANY)
                EQ_SET(&s, Submit, after_any, ids);
        else
                EQ_SET(&s, Submit, after_fail, ids);
        return s;
}

/* `why` and `show` name the task that it hangs on, which is q/1. */
static void check_never(const Host *h, const TaskRecord *t, const char *how) {
        WhyView why;
        TaskView shown;
        char text[128];
        (void)snprintf(text, sizeof(text), "q/1, which it comes after %s: it can never start", how);
        view_why(h->m, t, &why);
        ck_assert_str_eq(why.detail, text);
        view_task(h->m, t, &shown);
        ck_assert_str_eq(shown.detail, text);
}

TEST(after_lets_go_or_cancels_by_how_the_other_ended) {
        const TaskVerdict verdicts[] = { TASK_OK, TASK_BAD };
        for (int v = 0; v < 2; v++) {
                Host h;
                EqBuffer b = EQ_BUFFER_NULL;
                host_init(&h);
                host_queue(&h, "q", (const char *const[]) { "max_active=9", NULL });
                TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 }), *deps[3];
                for (int kind = 0; kind < 3; kind++) {
                        deps[kind] = host_task(&h, "q", after(&h, &b, t, kind));
                        ck_assert_state(deps[kind], WAITING);
                }
                host_end(&h, t, verdicts[v]);
                ck_assert_state(deps[DEP_ANY], RUNNING);
                ck_assert_state(deps[v == 0 ? DEP_OK : DEP_FAIL], RUNNING);
                ck_assert_state(deps[v == 0 ? DEP_FAIL : DEP_OK], CANCELED);
                ck_assert_uint_eq(deps[v == 0 ? DEP_FAIL : DEP_OK]->end_reason, EQ_REASON_DEPS_NEVER);

                TaskRecord *late = host_task(&h, "q", after(&h, &b, t, v == 0 ? DEP_FAIL : DEP_OK));
                ck_assert_state(late, CANCELED); /* it can never start: at once */
                check_never(&h, late, v == 0 ? "(after_fail), ended as DONE" : "(after_ok), ended as FAILED");
                check_never(&h, deps[v == 0 ? DEP_FAIL : DEP_OK],
                            v == 0 ? "(after_fail), ended as DONE" : "(after_ok), ended as FAILED");
                ck_assert_state(host_task(&h, "q", after(&h, &b, t, DEP_ANY)), RUNNING);
                eq_buffer_done(&b);
                host_done(&h);
        }
}

TEST(after_an_unknown_task_is_refused) {
        Host h;
        TaskRecord *t;
        EqBuffer b = EQ_BUFFER_NULL;
        host_init(&h);
        EqSubmit s = after(&h, &b, host_task(&h, "default", (EqSubmit) { 0 }), DEP_OK);
        b.data[b.len - 1]++; /* the last byte of the SEQ */
        ck_assert_int_eq(host_submit(&h, anna(&h), "default", s, &t), -ENOENT);
        ck_assert_int_eq(h.refusal.code, EQ_E_NO_TASK);
        ck_assert_uint_eq(h.m->n_pending, 1);
        eq_buffer_done(&b);
        host_done(&h);
}

TEST(a_chain_of_a_hundred_thousand_falls_without_recursion) {
        Host h;
        EqBuffer b = EQ_BUFFER_NULL;
        host_init(&h);
        host_queue(&h, "q", (const char *const[]) { "history=200000", NULL });
        TaskRecord *first = host_task(&h, "q", (EqSubmit) { 0 }), *t = first;
        for (int i = 0; i < 100000; i++)
                t = host_task(&h, "q", after(&h, &b, t, DEP_OK));
        host_end(&h, first, TASK_BAD);
        ck_assert_state(t, CANCELED);
        ck_assert_uint_eq(h.m->n_pending, 0);
        eq_buffer_done(&b);
        host_done(&h);
}

/* ---- who may what ---- */

TEST(another_users_task_is_out_of_reach_and_an_administrator_reaches_all) {
        Host h;
        host_init(&h);
        const TaskRecord *t = host_task(&h, "default", (EqSubmit) { 0 });
        TaskRecord *found;
        EqIdRef id = { .id = task_record_id(t) };
        Caller b = bob(&h), r = root(&h), a = anna(&h);
        ck_assert_int_eq(manager_find_task(h.m, &b, &id, &found, &h.refusal), -EPERM);
        ck_assert_int_eq(h.refusal.code, EQ_E_DENIED);
        ck_assert_int_eq(manager_find_task(h.m, &a, &id, &found, &h.refusal), 0);
        ck_assert_int_eq(manager_find_task(h.m, &r, &id, &found, &h.refusal), 0);
        host_done(&h);
}

TEST(an_eqd_without_the_capabilities_refuses_other_users_clearly) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        h.m->commands->ready.any_identity = false;
        int r = host_submit(&h, anna(&h), "default", (EqSubmit) { 0 }, &t);
        ck_assert_int_eq(r, geteuid() == 1001 ? 0 : -EPERM);
        ck_assert_int_eq(h.refusal.code, EQ_E_IDENTITY);
        ck_assert_ptr_nonnull(strstr(h.refusal.text, "cannot run commands as uid 1001"));
        host_done(&h);
}

static void without_commands(Config *c) {
        c->daemon.commands = false;
}

TEST(without_commands_there_is_no_spawner_and_every_command_is_refused) {
        Host h;
        TaskRecord *t;
        host_init_with(&h, without_commands);
        ck_assert(h.m->ready); /* nobody to wait for */
        ck_assert_ptr_null(command_executor_spawner(h.m->commands));
        ck_assert_int_eq(host_submit(&h, root(&h), "default", (EqSubmit) { 0 }, &t), -EPERM);
        ck_assert_int_eq(h.refusal.code, EQ_E_DENIED);
        ck_assert_ptr_nonnull(strstr(h.refusal.text, "commands=no"));
        h.m->config->daemon.commands = true; /* a reload does not bring the spawner back */
        ck_assert_int_eq(host_submit(&h, root(&h), "default", (EqSubmit) { 0 }, &t), -EPERM);
        host_done(&h);
}

TEST(limits_are_per_user) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        h.m->users.limits[USER_TASKS] = 2;
        host_task(&h, "default", (EqSubmit) { 0 });
        host_task(&h, "default", (EqSubmit) { 0 });
        ck_assert_int_eq(host_submit(&h, anna(&h), "default", (EqSubmit) { 0 }, &t), -EDQUOT);
        ck_assert_int_eq(h.refusal.code, EQ_E_LIMIT);
        ck_assert_int_eq(host_submit(&h, bob(&h), "default", (EqSubmit) { 0 }, &t), 0);
        host_end(&h, task_record(h.m->commands->running[0]), TASK_OK);
        ck_assert_int_eq(host_submit(&h, anna(&h), "default", (EqSubmit) { 0 }, &t), 0);
        host_done(&h);
}

/* ---- capacity ---- */

TEST(descriptors_are_limited_per_user_and_given_back) {
        Host h;
        TaskRecord *t;
        eq_task_id id;
        static char argv[] = "\xa9/bin/true";
        EqSubmit s = { .queue = eq_str("default"), .stdin_fd = true };
        EQ_SET(&s, Submit, argv, (EqArray) { .raw = eq_bytes(argv, 10), .n = 1 });
        Caller a = { 0 };
        host_init(&h);
        a = anna(&h);
        h.m->users.limits[USER_DESCRIPTORS] = 2;
        for (int i = 0; i < 2; i++) {
                SubmitArgs args = { .submit = &s, .stdin_fd = dup(0) };
                ck_assert_int_eq(manager_submit(h.m, &a, s.queue, &args, 1, &t, &id, &h.refusal), 0);
        }
        int fd = dup(0);
        SubmitArgs one_more = { .submit = &s, .stdin_fd = fd };
        ck_assert_int_eq(manager_submit(h.m, &a, s.queue, &one_more, 1, &t, &id, &h.refusal), -EDQUOT);
        ck_assert_int_eq(h.refusal.code, EQ_E_LIMIT);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], 2);
        ck_assert_int_eq(host_submit(&h, a, "default", (EqSubmit) { 0 }, &t), 0);
        host_end(&h, task_record(h.m->commands->running[0]), TASK_OK);
        ck_assert_uint_eq(h.anna_user->used[USER_DESCRIPTORS], 1);
        ck_assert_int_eq(manager_submit(h.m, &a, s.queue, &one_more, 1, &t, &id, &h.refusal), 0);
        host_done(&h);
}

TEST(drop_oldest_makes_room_by_canceling_the_oldest) {
        Host h;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", (const char *const[]) { "max_tasks=2", "on_full=drop-oldest", NULL });
        queue_pause(q->queue);
        TaskRecord *a = host_task(&h, "q", (EqSubmit) { 0 }), *b = host_task(&h, "q", (EqSubmit) { 0 });
        TaskRecord *c = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_state(a, CANCELED);
        ck_assert_uint_eq(a->end_note, TASK_NOTE_DROPPED);
        ck_assert_state(b, QUEUED);
        ck_assert_state(c, QUEUED);
        host_done(&h);
}

static const EqErrorDetails *refused_as_full(Host *h) {
        TaskRecord *t;
        ck_assert_int_lt(host_submit(h, anna(h), "q", (EqSubmit) { 0 }, &t), 0);
        ck_assert_int_eq(h->refusal.code, EQ_E_FULL);
        return &h->refusal.details;
}

TEST(a_full_queue_says_how_full_it_is_and_when_there_is_room_once_it_knows) {
        Host h;
        host_init(&h);
        host_queue(&h, "q", (const char *const[]) { "max_tasks=2", NULL });
        TaskRecord *running = host_task(&h, "q", (EqSubmit) { 0 }), *next = host_task(&h, "q", (EqSubmit) { 0 });
        host_task(&h, "q", (EqSubmit) { 0 });
        const EqErrorDetails *d = refused_as_full(&h);
        ck_assert(eq_bytes_eq(d->queue, eq_str("q")) && eq_bytes_eq(d->what, eq_str("tasks")));
        ck_assert(d->limit == 2 && d->pending == 2);
        ck_assert(!EQ_HAS(d, ErrorDetails, retry_after_usec)); /* nothing is known yet */
        fake_clock_advance(&h.clock, 10 * USEC_PER_SEC);
        d = refused_as_full(&h);
        ck_assert(!EQ_HAS(d, ErrorDetails, retry_after_usec)); /* it did not go on */
        host_end(&h, running, TASK_OK);
        host_task(&h, "q", (EqSubmit) { 0 });
        d = refused_as_full(&h);
        ck_assert(EQ_HAS(d, ErrorDetails, retry_after_usec));
        ck_assert_uint_eq(d->retry_after_usec, 10 * USEC_PER_SEC); /* one in ten seconds */
        host_end(&h, next, TASK_OK);
        host_task(&h, "q", (EqSubmit) { 0 });
        fake_clock_advance(&h.clock, 2 * USEC_PER_SEC);
        d = refused_as_full(&h);
        ck_assert_uint_eq(d->retry_after_usec, 2 * USEC_PER_SEC); /* lately it was faster */

        Caller a = anna(&h);
        static char argv[] = "\xa9/bin/true";
        EqSubmit s = { .queue = eq_str("q") };
        EQ_SET(&s, Submit, argv, (EqArray) { .raw = eq_bytes(argv, 10), .n = 1 });
        SubmitArgs three[3] = { { .submit = &s, .stdin_fd = -1 },
                                { .submit = &s, .stdin_fd = -1 },
                                { .submit = &s, .stdin_fd = -1 } };
        TaskRecord *last;
        eq_task_id id;
        host_end(&h, task_record(h.m->commands->running[0]), TASK_OK);
        ck_assert_int_lt(manager_submit(h.m, &a, s.queue, three, 3, &last, &id, &h.refusal), 0);
        ck_assert_int_eq(h.refusal.code, EQ_E_TOO_LARGE);
        ck_assert(!EQ_HAS(&h.refusal.details, ErrorDetails, retry_after_usec)); /* more than there ever is room for */
        host_done(&h);
}

TEST(a_task_that_never_fits_is_told_the_bound_and_no_time) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        host_queue(&h, "q", (const char *const[]) { "max_bytes=1k", NULL });
        static const char payload[2048];
        ck_assert_int_lt(host_submit(&h, anna(&h), "q", (EqSubmit) { .payload = eq_bytes(payload, 2048) }, &t), 0);
        const EqErrorDetails *d = &h.refusal.details;
        ck_assert(eq_bytes_eq(d->what, eq_str("bytes")));
        ck_assert(d->limit == 1024 && d->pending == 0 && !EQ_HAS(d, ErrorDetails, retry_after_usec));
        ck_assert_int_lt(host_submit(&h, anna(&h), "none", (EqSubmit) { 0 }, &t), 0);
        ck_assert_uint_eq(h.refusal.details.present, EQ_BIT(ErrorDetails, queue)); /* nothing of the one before */
        host_done(&h);
}

typedef struct Waiting {
        SpaceWaiter waiter;
        Host *host;
        int id;
} Waiting;
static int order[8], n_order;

static void waiting_retry(SpaceWaiter *w, bool ok) {
        Waiting *x = (Waiting *)w;
        TaskRecord *t;
        if (!ok) {
                order[n_order++] = -x->id;
                return;
        }
        int r = host_submit(x->host, anna(x->host), "q", (EqSubmit) { 0 }, &t);
        if (r == MANAGER_E_WAIT)
                ck_assert_int_eq(manager_wait_space(x->host->m, w->queue, w, 0), 0);
        else {
                ck_assert_int_eq(r, 0);
                order[n_order++] = x->id;
        }
}

TEST(blocked_submits_get_in_first_come_first_served_or_time_out) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", (const char *const[]) { "max_tasks=1", "on_full=block", NULL });
        TaskRecord *running = host_task(&h, "q", (EqSubmit) { 0 });
        host_task(&h, "q", (EqSubmit) { 0 });
        Waiting w[3];
        for (int i = 0; i < 3; i++) {
                w[i] = (Waiting) { .waiter = { .retry = waiting_retry }, .host = &h, .id = i + 1 };
                list_init(&w[i].waiter.link);
                ck_assert_int_eq(host_submit(&h, anna(&h), "q", (EqSubmit) { 0 }, &t), MANAGER_E_WAIT);
                ck_assert_int_eq(manager_wait_space(h.m, q, &w[i].waiter, (uint64_t)(10 + i) * USEC_PER_SEC), 0);
        }
        host_end(&h, running, TASK_OK);
        ck_assert_int_eq(n_order, 1);
        ck_assert_int_eq(order[0], 1);
        host_advance(&h, 11 * USEC_PER_SEC);
        ck_assert_int_eq(order[1], -2);
        host_end(&h, task_record(h.m->commands->running[0]), TASK_OK);
        ck_assert_int_eq(order[2], 3);
        ck_assert_int_eq(n_order, 3);
        host_done(&h);
}

/* ---- over several queues ---- */

static EqSubmit over(const char *also) {
        static char name[64];
        EqSubmit s = { 0 };
        size_t n = strlen(also);
        name[0] = (char)(0xa0 | n);
        memcpy(name + 1, also, n);
        EQ_SET(&s, Submit, also, (EqArray) { .raw = eq_bytes(name, n + 1), .n = 1 });
        return s;
}

TEST(a_task_over_several_queues_is_dropped_by_any_of_them) {
        Host h;
        host_init(&h);
        QueueRecord *a = host_queue(&h, "a", NULL);
        QueueRecord *b = host_queue(&h, "b", (const char *const[]) { "max_tasks=1", "on_full=drop-oldest", NULL });
        queue_pause(a->queue);
        queue_pause(b->queue);
        TaskRecord *both = host_task(&h, "a", over("b")), *next = host_task(&h, "b", (EqSubmit) { 0 });
        ck_assert_state(both, CANCELED);
        ck_assert_uint_eq(both->end_note, TASK_NOTE_DROPPED);
        ck_assert_state(next, QUEUED);
        ck_assert(queue_is_empty(a->queue));
        host_done(&h);
}

static EqSubmit over_b_with(size_t n_payload) {
        static const char bytes[1024];
        EqSubmit s = over("b");
        s.payload = eq_bytes(bytes, n_payload);
        return s;
}

/* Retried while the other one takes its places, if anything were. */
static void large_over(SpaceWaiter *w, bool ok) {
        Waiting *x = (Waiting *)w;
        TaskRecord *t;
        ck_assert(ok);
        x->id = host_submit(x->host, anna(x->host), "a", over_b_with(900), &t);
}

TEST(two_tasks_over_the_same_queues_have_their_places_in_the_same_order_whatever_falls_free_between) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        QueueRecord *a = host_queue(&h, "a", (const char *const[]) { "max_bytes=1024", NULL });
        QueueRecord *b = host_queue(&h, "b", (const char *const[]) { "max_tasks=2", "on_full=drop-oldest", NULL });
        queue_pause(a->queue);
        queue_pause(b->queue);
        TaskRecord *oldest =
                host_task(&h, "a", over_b_with(900)); /* what the small one drops in b, and is bytes in a */
        (void)host_task(&h, "b", (EqSubmit) { 0 });
        Waiting large = { .waiter = { .retry = large_over }, .host = &h, .id = 1 };
        list_init(&large.waiter.link);
        EqSubmit patient = over_b_with(900);
        EQ_SET(&patient, Submit, block_usec, 10 * USEC_PER_SEC);
        ck_assert_int_eq(host_submit(&h, anna(&h), "a", patient, &t), MANAGER_E_WAIT);
        ck_assert_int_eq(manager_wait_space(h.m, a, &large.waiter, 10 * USEC_PER_SEC), 0);
        TaskRecord *small = host_task(&h, "a", over("b"));
        ck_assert_state(oldest, CANCELED);
        ck_assert_int_eq(large.id, 0);
        queue_resume(a->queue);
        queue_resume(b->queue);
        ck_assert_state(small, RUNNING);
        host_end(&h, small, TASK_OK);
        ck_assert_uint_eq(h.m->commands->n_running, 1);
        host_end(&h, task_record(h.m->commands->running[0]), TASK_OK);
        ck_assert(queue_is_empty(a->queue) && queue_is_empty(b->queue));
        host_done(&h);
}

static void waiting_over(SpaceWaiter *w, bool ok) {
        Waiting *x = (Waiting *)w;
        TaskRecord *t;
        ck_assert(ok);
        n_order++;
        int r = host_submit(x->host, anna(x->host), "a", over("b"), &t);
        if (r == MANAGER_E_WAIT)
                ck_assert_int_eq(manager_wait_space(x->host->m, x->host->refusal.full, w, 0), 0);
        else
                x->id = r;
}

TEST(a_task_over_two_full_queues_waits_for_one_and_then_the_other) {
        Host h;
        TaskRecord *t, *first[2];
        host_init(&h);
        static const char *const one[] = { "max_tasks=1", "on_full=block", NULL };
        QueueRecord *q[] = { host_queue(&h, "a", one), host_queue(&h, "b", one) };
        for (size_t i = 0; i < 2; i++) {
                queue_pause(q[i]->queue);
                first[i] = host_task(&h, q[i]->queue->name, (EqSubmit) { 0 });
        }
        Waiting w = { .waiter = { .retry = waiting_over }, .host = &h, .id = 1 };
        list_init(&w.waiter.link);
        ck_assert_int_eq(host_submit(&h, anna(&h), "a", over("b"), &t), MANAGER_E_WAIT);
        ck_assert_ptr_eq(h.refusal.full, q[0]);
        ck_assert_int_eq(manager_wait_space(h.m, q[0], &w.waiter, 10 * USEC_PER_SEC), 0);
        ck_assert_int_eq(queue_cancel(q[0]->queue, &first[0]->task), 0);
        ck_assert_ptr_eq(w.waiter.queue, q[1]);
        ck_assert_uint_eq(q[0]->queue->n_reserved, 0);
        ck_assert_int_eq(queue_cancel(q[1]->queue, &first[1]->task), 0);
        ck_assert_int_eq(w.id, 0);
        ck_assert_int_eq(n_order, 2);
        host_done(&h);
}

TEST(a_retry_by_hand_that_finds_no_room_costs_nothing) {
        Host h;
        host_init(&h);
        QueueRecord *a = host_queue(&h, "a", NULL),
                    *b = host_queue(&h, "b", (const char *const[]) { "max_tasks=1", NULL });
        TaskRecord *both = host_task(&h, "a", over("b"));
        host_end(&h, both, TASK_BAD);
        uint64_t tasks = h.anna_user->used[USER_TASKS], bytes = h.anna_user->used[USER_TASK_BYTES];
        queue_pause(b->queue);
        TaskRecord *full = host_task(&h, "b", (EqSubmit) { 0 });
        ck_assert_int_eq(manager_retry(h.m, both, false), 1);
        ck_assert_int_eq(queue_cancel(b->queue, &full->task), 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], tasks);
        ck_assert_uint_eq(h.anna_user->used[USER_TASK_BYTES], bytes);
        ck_assert(queue_is_empty(a->queue));
        queue_resume(b->queue);
        ck_assert_int_eq(manager_retry(h.m, both, false), 0);
        ck_assert_state(both, RUNNING);
        host_end(&h, both, TASK_OK);
        host_done(&h);
}

TEST(without_memory_a_task_over_several_queues_leaves_nothing) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        QueueRecord *q[] = { host_queue(&h, "a", NULL), host_queue(&h, "b", NULL) };
        long nth = 0;
        int r;
        do {
                fault_set(FAULT_ALLOC, ++nth, false);
                r = host_submit(&h, anna(&h), "a", over("b"), &t);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert(r == 0 || r == -ENOMEM);
                ck_assert_uint_eq(h.anna_user->used[USER_TASKS], r == 0);
                for (size_t i = 0; i < 2; i++)
                        ck_assert(queue_is_empty(q[i]->queue) == (r != 0));
        } while (r != 0);
        ck_assert_int_gt(nth, 4);
        host_done(&h);
}

/* ---- names, ids, history ---- */

static void removed(RemoveWaiter *w) {
        (void)w;
        n_order++;
}

TEST(a_queue_made_again_counts_on_and_old_ids_are_stale) {
        Host h;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        EqIdRef old = { .id = task_record_id(t) };
        RemoveWaiter w = { .done = removed };
        list_init(&w.link);
        ck_assert_int_eq(manager_queue_rm(h.m, q, false, &w, &h.refusal), -ENOTEMPTY);
        ck_assert_int_eq(manager_queue_rm(h.m, q, true, &w, &h.refusal), 0);
        ck_assert_int_eq(n_order, 0);
        host_end(&h, t, TASK_STOPPED);
        host_advance(&h, 1);
        ck_assert_int_eq(n_order, 1);
        ck_assert_ptr_null(manager_queue(h.m, eq_str("q")));
        ck_assert_int_eq(host_submit(&h, anna(&h), "q", (EqSubmit) { 0 }, &t), -ENOENT); /* nor is it remembered */
        host_queue(&h, "q", NULL);
        ck_assert_uint_eq(host_task(&h, "q", (EqSubmit) { 0 })->task.seq, 2);
        Caller a = anna(&h);
        ck_assert_int_eq(manager_find_task(h.m, &a, &old, &t, &h.refusal), -ENOENT);
        ck_assert_int_eq(h.refusal.code, EQ_E_STALE);
        host_done(&h);
}

static void wait_done(TaskWait *w, TaskWaitEnd end) {
        ck_assert_int_eq(end, TASK_WAIT_OVER);
        n_order++;
}

TEST(a_task_that_somebody_waits_for_survives_the_removal_of_its_queue) {
        Host h;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 }), *other = host_task(&h, "default", (EqSubmit) { 0 });
        EqIdRef id = { .id = task_record_id(t) };
        TaskWait *w;
        bool over;
        ck_assert_int_eq(
                task_wait_new(h.m, (TaskRecord *[]) { t, other }, 2, false, USEC_NEVER, wait_done, NULL, &w, &over), 0);
        ck_assert(!over);
        RemoveWaiter r = { .done = removed };
        list_init(&r.link);
        host_end(&h, t, TASK_OK);
        ck_assert_int_eq(manager_queue_rm(h.m, q, true, &r, &h.refusal), 0);
        host_advance(&h, 1);
        ck_assert_int_eq(n_order, 1);
        ck_assert_ptr_null(manager_queue(h.m, eq_str("q")));
        ck_assert_uint_eq(h.m->n_finished, 0);

        Caller a = anna(&h);
        TaskRecord *found;
        ck_assert_int_eq(manager_find_task(h.m, &a, &id, &found, &h.refusal), -ENOENT);
        ck_assert_int_eq(h.refusal.code, EQ_E_STALE);
        host_queue(&h, "q", NULL);
        host_end(&h, other, TASK_OK);
        ck_assert_int_eq(n_order, 2);
        TaskView view;
        view_task(h.m, w->waiters[0].task, &view);
        ck_assert(eq_bytes_eq(view.row.state, eq_str("DONE")));
        ck_assert(eq_bytes_eq(view.row.queue, eq_str("q")));
        task_wait_free(w);
        host_done(&h);
}

static char told[8];

static void wait_told(TaskWait *w, TaskWaitEnd end) {
        ck_assert_int_eq(end, TASK_WAIT_OVER);
        strcat(told, w->userdata);
        task_wait_free(w);
}

/* Whoever asked first: at a start the task runs still. */
TEST(those_that_wait_for_a_start_are_told_at_the_start) {
        static char *const names[] = { "E", "s", "E", "s" };
        Host h;
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        queue_pause(q->queue);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                TaskWait *w;
                bool over;
                TaskWaitFlags flags = names[i][0] == 's' ? TASK_WAIT_STARTED : 0;
                ck_assert_int_eq(task_wait_new(h.m, &t, 1, flags, USEC_NEVER, wait_told, names[i], &w, &over), 0);
                ck_assert(!over);
        }
        queue_resume(q->queue);
        host_end(&h, t, TASK_OK);
        ck_assert_str_eq(told, "ssEE");
        host_done(&h);
}

TEST(a_queue_is_made_or_not_and_removed_in_any_case_when_memory_is_out) {
        Host h;
        host_init(&h);
        Caller c = root(&h);
        QueueRecord *q;
        EqArray none = { 0 };
        long nth = 0;
        int r;
        do {
                fault_set(FAULT_ALLOC, ++nth, false);
                r = manager_queue_create(h.m, &c, eq_str("q"), &none, false, &q, &h.refusal);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert(r == 0 || r == -ENOMEM);
                ck_assert_int_eq(manager_queue(h.m, eq_str("q")) != NULL, r == 0);
        } while (r != 0);
        ck_assert_int_gt(nth, 2);

        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        RemoveWaiter w = { .done = removed };
        list_init(&w.link);
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(manager_queue_rm(h.m, q, true, &w, &h.refusal), 0);
        host_end(&h, t, TASK_STOPPED);
        host_advance(&h, 1);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_int_eq(n_order, 1);
        host_queue(&h, "q", NULL);
        ck_assert_uint_eq(host_task(&h, "q", (EqSubmit) { 0 })->task.seq, 2);
        host_done(&h);
}

TEST(history_keeps_the_latest_and_what_somebody_waits_for) {
        Host h;
        host_init(&h);
        const QueueRecord *q = host_queue(&h, "q", (const char *const[]) { "history=3", "history_age=1h", NULL });
        TaskRecord *first = host_task(&h, "q", (EqSubmit) { 0 });
        task_record_pin(first);
        for (int i = 0; i < 10; i++)
                host_task(&h, "q", (EqSubmit) { 0 });
        while (h.m->commands->n_running > 0)
                host_end(&h, task_record(h.m->commands->running[0]), TASK_OK);
        ck_assert_uint_eq(q->n_history, 3);
        ck_assert_uint_eq(h.m->n_finished, 3);
        ck_assert_state(first, DONE);
        task_record_unpin(first);
        ck_assert_ptr_null(seq_index_get(&q->tasks, 1));
        host_advance(&h, 3601 * USEC_PER_SEC);
        ck_assert_uint_eq(q->n_history, 0);
        host_done(&h);
}

TEST(retry_by_hand_runs_it_again_under_its_id) {
        Host h;
        host_init(&h);
        TaskRecord *t = host_task(&h, "default", (EqSubmit) { 0 });
        ck_assert_int_eq(manager_retry(h.m, t, false), 1);
        host_end(&h, t, TASK_BAD);
        Caller b = bob(&h), a = anna(&h);
        size_t n;
        ck_assert_int_eq(manager_retry_failed(h.m, &b, NULL, false, &n, &h.refusal), 0);
        ck_assert_uint_eq(n, 0);
        ck_assert_int_eq(manager_retry_failed(h.m, &a, NULL, false, &n, &h.refusal), 0);
        ck_assert_uint_eq(n, 1);
        ck_assert_state(t, RUNNING);
        ck_assert_uint_eq(t->task.attempt, 2);
        host_end(&h, t, TASK_OK);
        ck_assert_state(t, DONE);
        host_done(&h);
}

/* ---- output ---- */

TEST(output_null_keeps_none) {
        Host h;
        host_init(&h);
        host_queue(&h, "quiet", (const char *const[]) { "output=null", NULL });
        host_task(&h, "quiet", (EqSubmit) { 0 });
        ck_assert_ptr_null(h.m->commands->last_setup.log);
        host_task(&h, "default", (EqSubmit) { 0 });
        ck_assert_ptr_nonnull(h.m->commands->last_setup.log);
        host_done(&h);
}

/* ---- faults ---- */

TEST(a_submit_without_memory_is_refused_and_leaves_nothing) {
        Host h;
        TaskRecord *t;
        host_init(&h);
        long nth = 0;
        int r;
        do {
                fault_set(FAULT_ALLOC, ++nth, false);
                r = host_submit(&h, anna(&h), "default", (EqSubmit) { 0 }, &t);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert(r == 0 || r == -ENOMEM);
                ck_assert_uint_eq(h.m->n_pending, r == 0);
                ck_assert_uint_eq(h.anna_user->used[USER_TASKS], r == 0);
        } while (r != 0);
        ck_assert_int_gt(nth, 2);
        host_done(&h);
}

TEST(a_task_that_cannot_be_started_keeps_its_place_and_is_tried_again) {
        Host h;
        host_init(&h);
        h.m->commands->refuse = true;
        TaskRecord *a = host_task(&h, "default", (EqSubmit) { 0 }), *b = host_task(&h, "default", (EqSubmit) { 0 });
        ck_assert_state(a, QUEUED);
        ck_assert_uint_eq(a->task.attempt, 0);
        WhyView why;
        view_why(h.m, a, &why);
        ck_assert(eq_bytes_eq(why.row.reason, eq_str("create-failure")));
        h.m->commands->refuse = false;
        host_advance(&h, USEC_PER_SEC);
        ck_assert_state(a, RUNNING);
        ck_assert_state(b, QUEUED);
        host_done(&h);
}

RUN_TESTS("manager", 60, test_without_retries_a_failure_is_failed_and_a_time_out_is_timeout,
          test_retries_wait_longer_each_time_and_end_dead,
          test_the_output_of_all_attempts_is_kept_and_costs_its_user_nothing_more,
          test_a_task_in_back_off_keeps_its_place_in_a_serial_queue_and_urgent_ones_pass,
          test_a_task_that_runs_names_its_process_as_soon_as_that_is_known,
          test_crashes_are_counted_apart_and_end_a_task_before_its_retries,
          test_a_running_task_that_is_canceled_ends_canceled_unless_it_was_quicker,
          test_a_task_that_could_not_start_after_its_cancel_is_canceled_whatever_its_retries,
          test_after_lets_go_or_cancels_by_how_the_other_ended, test_after_an_unknown_task_is_refused,
          test_a_chain_of_a_hundred_thousand_falls_without_recursion,
          test_another_users_task_is_out_of_reach_and_an_administrator_reaches_all,
          test_an_eqd_without_the_capabilities_refuses_other_users_clearly,
          test_without_commands_there_is_no_spawner_and_every_command_is_refused, test_limits_are_per_user,
          test_descriptors_are_limited_per_user_and_given_back, test_drop_oldest_makes_room_by_canceling_the_oldest,
          test_a_full_queue_says_how_full_it_is_and_when_there_is_room_once_it_knows,
          test_a_task_that_never_fits_is_told_the_bound_and_no_time,
          test_blocked_submits_get_in_first_come_first_served_or_time_out,
          test_a_task_over_several_queues_is_dropped_by_any_of_them,
          test_two_tasks_over_the_same_queues_have_their_places_in_the_same_order_whatever_falls_free_between,
          test_a_task_over_two_full_queues_waits_for_one_and_then_the_other,
          test_a_retry_by_hand_that_finds_no_room_costs_nothing,
          test_without_memory_a_task_over_several_queues_leaves_nothing,
          test_a_queue_made_again_counts_on_and_old_ids_are_stale,
          test_those_that_wait_for_a_start_are_told_at_the_start,
          test_a_task_that_somebody_waits_for_survives_the_removal_of_its_queue,
          test_a_queue_is_made_or_not_and_removed_in_any_case_when_memory_is_out,
          test_history_keeps_the_latest_and_what_somebody_waits_for, test_retry_by_hand_runs_it_again_under_its_id,
          test_output_null_keeps_none, test_a_submit_without_memory_is_refused_and_leaves_nothing,
          test_a_task_that_cannot_be_started_keeps_its_place_and_is_tried_again)
