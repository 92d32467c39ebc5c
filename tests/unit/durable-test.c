/* SPDX-License-Identifier: MIT */
/* What a manager does when its store is full, or has failed. */
#include "manager/once.h"
#include "manager/removal.h"
#include "manager/space.h"
#include "manager/view.h"
#include "store-host.h"

static Host h;

static bool is_durable(const Host *host, uint64_t position) {
        return host->durable >= position;
}

static bool has_failed(const Host *host, uint64_t unused) {
        return host->not_durable;
}

static void refused(int r, int error, const char *says) {
        ck_assert_int_eq(r, error);
        ck_assert_int_eq(h.refusal.code, EQ_E_STORE);
        ck_assert_msg(strstr(h.refusal.text, says) != NULL, "%s", h.refusal.text);
}

/* There is none before, during or after it. */
TEST(what_becomes_of_a_queue_while_there_is_no_space_goes_into_the_reserve) {
        Caller a;
        QueueRecord *q;
        const EqArray none = { 0 };
        EqSubmit held = { 0 };
        durable_begin(&h, NULL);
        (void)host_queue(&h, "small", (const char *const[]) { "max_tasks=1", "on_full=drop-oldest", NULL });
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *oldest = host_task(&h, "small", held), *t;
        until(&h, is_durable, *manager_written(h.m));
        fill_store(&h);
        a = anna(&h);
        refused(host_submit(&h, a, "small", held, &t), -ENOSPC, "make room on its file system");
        ck_assert_state(oldest, WAITING); /* it is not dropped for nothing */
        refused(manager_queue_create(h.m, &a, eq_str("another"), &none, false, &q, &h.refusal), -ENOSPC,
                "make room on its file system");
        ck_assert_ptr_null(manager_queue(h.m, eq_str("another")));
        ck_assert_int_eq(manager_may(EQ_KEEPS_CHANGES, durable_q(&h), &h.refusal), 0);
        queue_pause(durable_q(&h)->queue);
        manager_queue_changed(durable_q(&h), "paused");
        until(&h, is_durable, *manager_written(h.m));
        ck_assert(!has_space(&h, 0));
        durable_restart(&h);
        ck_assert_str_eq(queue_state_name(durable_q(&h)->queue), "paused");
        durable_done(&h);
}

static bool has_changed(const Host *host, uint64_t health) {
        return store_health(durable_store(host->m)) != (StoreHealth)health;
}

TEST(with_little_space_tasks_and_queues_are_refused_with_a_time_to_try_again_and_ends_go_on) {
        const EqArray none = { 0 };
        EqSubmit held = { 0 };
        TaskRecord *t;
        QueueRecord *q;
        Tunable low;
        durable_begin(&h, NULL);
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *before = host_task(&h, "q", held);
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_ptr_null(manager_store_trouble(h.m));
        fault_set(FAULT_LOW, 1, true);
        ck_assert_int_eq(manager_find_tunable(h.m, eq_str("low_water"), &low, &h.refusal), 0);
        ck_assert_int_eq(manager_tunable_set(h.m, &low, eq_str("1M"), &h.refusal), 0);
        until(&h, has_changed, STORE_GOOD);
        ck_assert_str_eq(manager_store_trouble(h.m), "the store has too little space for tasks");
        Caller a = anna(&h);
        refused(host_submit(&h, a, "q", held, &t), -ENOSPC, "too little (LowWater= of eqd.conf) space");
        ck_assert_uint_eq(h.refusal.details.retry_after_usec, STORE_LOOKS_USEC);
        ck_assert(eq_bytes_eq(h.refusal.details.queue, eq_str("q")));
        refused(manager_queue_create(h.m, &a, eq_str("another"), &none, false, &q, &h.refusal), -ENOSPC, "too little");
        ck_assert_int_eq(manager_cancel(h.m, before, false, 0, USEC_NEVER), 0);
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_state(before, CANCELED);
        fault_set(FAULT_LOW, 0, false);
        until(&h, has_changed, STORE_LOW);
        ck_assert_ptr_null(manager_store_trouble(h.m));
        ck_assert_int_eq(host_submit(&h, a, "q", held, &t), 0);
        until(&h, is_durable, *manager_written(h.m));
        durable_done(&h);
}

static bool is_durable_or_spent(const Host *host, uint64_t position) {
        return is_durable(host, position) || store_is_spent(durable_store(host->m));
}

/* What was taken before that is seen waits for space, and comes. */
TEST(when_the_reserve_is_used_up_changes_are_refused_until_there_is_space) {
        durable_begin(&h, NULL);
        fill_store(&h);
        QueueRecord *q = durable_q(&h);
        TaskRecord *t = task_of_q(&h, 1);
        queue_pause(q->queue); /* what is released does not run */
        for (int i = 0; i < 5000 && manager_may(EQ_KEEPS_CHANGES, q, &h.refusal) == 0; i++) {
                ck_assert_int_eq(i % 2 == 0 ? manager_release(h.m, t) : manager_hold(h.m, t), 0);
                until(&h, is_durable_or_spent, *manager_written(h.m));
        }
        Caller r = root(&h);
        refused(manager_may(EQ_KEEPS_CHANGES, q, &h.refusal), -ENOSPC, "not even for a change");
        ck_assert_int_eq(manager_may_control(&r, q, &h.refusal), 0);
        ck_assert_int_eq(manager_may(EQ_KEEPS_NOTHING, q, &h.refusal), 0);
        ck_assert_int_eq(manager_may(EQ_KEEPS_WAITS, q, &h.refusal), 0);
        fault_set(FAULT_SPACE, 0, false);
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_int_eq(manager_may(EQ_KEEPS_CHANGES, q, &h.refusal), 0);
        until(&h, has_space, 0);
        durable_done(&h);
}

static unsigned n_lost;

static void on_lost(TaskWait *w, TaskWaitEnd end) {
        ck_assert_int_eq(end, TASK_WAIT_LOST);
        n_lost++;
}

/* And its record stays for as long as somebody looks at it. */
TEST(who_waits_for_a_task_that_was_not_written_is_told_so) {
        TaskWait *w;
        bool now;
        durable_begin(&h, NULL);
        fault_set(FAULT_SYNC, 1, true);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(task_wait_new(h.m, &t, 1, false, USEC_NEVER, on_lost, NULL, &w, &now), 0);
        ck_assert(!now);
        until(&h, has_failed, 0);
        ck_assert_uint_eq(h.m->n_pending, 0);
        ck_assert_uint_eq(n_lost, 1);
        ck_assert_ptr_eq(task_of_q(&h, 1), t);
        task_wait_free(w);
        ck_assert_ptr_null(task_of_q(&h, 1));
        fault_set(FAULT_SYNC, 0, false);
        durable_done(&h);
}

static bool is_settled(const Host *host, uint64_t seq) {
        return !task_of_q(host, seq)->unsettled;
}

/* It was shown as running, as process 0, until that was on disk. */
TEST(a_task_that_is_canceled_before_it_ran_is_never_shown_as_running) {
        EqSubmit held = { 0 };
        TaskView view;
        WhyView why;
        durable_begin(&h, NULL);
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *t = host_task(&h, "q", held);
        until(&h, has_arrived, 1);
        ck_assert_int_eq(manager_cancel(h.m, t, false, 0, USEC_NEVER), 0);
        ck_assert(t->unsettled);
        view_task(h.m, t, &view);
        ck_assert_msg(eq_bytes_eq(view.row.state, eq_str("WAITING")), "%.*s", (int)view.row.state.len,
                      (const char *)view.row.state.data);
        view_why(h.m, t, &why);
        ck_assert(eq_bytes_eq(why.row.state, eq_str("WAITING")));
        ck_assert_str_eq(why.detail, "it will not run; that is being written to the store");
        ck_assert_str_eq(view.detail, why.detail);
        until(&h, is_settled, 1);
        view_task(h.m, t, &view);
        ck_assert(eq_bytes_eq(view.row.state, eq_str("CANCELED")));
        durable_done(&h);
}

static bool is_running(const Host *host, uint64_t unused) {
        return host->m->commands->n_running > 0;
}

static bool is_there(const Host *host, uint64_t seq) {
        return task_of_q(host, seq) != NULL;
}

/* A stop in order whose last words the disk does not take. What is not written must not look as if it had been: the marks stay. With
 * at_most_once a STATE says the same. */
TEST(a_stop_clears_no_mark_of_what_it_could_not_write) {
        static const char *const no_twice[] = { "at_most_once=yes", NULL };
        for (int i = 0; i < 4; i++) {
                bool is_once = i / 2, has_ended = i % 2;
                durable_begin(&h, is_once ? no_twice : NULL);
                TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
                until(&h, is_running, 0);
                fault_set(FAULT_WRITE, 1, true);
                if (has_ended)
                        host_end(&h, t, TASK_OK);
                host_done(&h);
                fault_set(FAULT_WRITE, 0, false);
                host_init_from(&h, NULL, store_dir, -1);
                until(&h, is_there, 1);
                t = task_of_q(&h, 1);
                ck_assert_int_eq(t->task.state, is_once ? EQ_STATE_FAILED : EQ_STATE_RUNNING);
                ck_assert_int_eq(t->end_reason, is_once ? EQ_REASON_LOST : EQ_REASON_NONE);
                ck_assert_uint_eq(t->task.attempt, is_once ? 1 : 2);
                ck_assert_uint_eq(t->crashes, 1);
                durable_done(&h);
        }
}

/* And one that could be written clears them. */
TEST(after_a_stop_in_order_nothing_counts_as_cut_short) {
        durable_begin(&h, NULL);
        (void)host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        durable_restart(&h);
        until(&h, is_running, 0);
        TaskRecord *t = task_of_q(&h, 1);
        ck_assert_uint_eq(t->task.attempt, 2);
        ck_assert_uint_eq(t->crashes, 0);
        durable_done(&h);
}

/* Those that can still end otherwise are not answered yet; who comes later is told at once. */
TEST(waits_for_what_a_failed_store_will_not_tell_are_lost_and_others_go_on) {
        TaskWait *w[3], *late;
        bool now;
        durable_begin(&h, NULL);
        host_queue(&h, "memory", (const char *const[]) { "durable=no", NULL });
        EqSubmit held = { 0 };
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *kept = host_task(&h, "q", held), *other = host_task(&h, "memory", held);
        TaskRecord *both[] = { kept, other };
        until(&h, has_arrived, kept->task.seq);
        ck_assert_int_eq(task_wait_new(h.m, &other, 1, false, USEC_NEVER, on_lost, NULL, &w[0], &now), 0);
        ck_assert_int_eq(task_wait_new(h.m, both, 2, true, USEC_NEVER, on_lost, NULL, &w[1], &now), 0);
        ck_assert_int_eq(task_wait_new(h.m, both, 2, false, USEC_NEVER, on_lost, NULL, &w[2], &now), 0);
        fault_set(FAULT_SYNC, 1, true);
        (void)host_task(&h, "q", held);
        until(&h, has_failed, 0);
        fault_set(FAULT_SYNC, 0, false);
        ck_assert_uint_eq(n_lost, 1); /* all of both; any of both, and the other one, can still come */
        ck_assert(!task_wait_is_lost(w[0]));
        ck_assert(!task_wait_is_lost(w[1]));
        ck_assert_int_eq(task_wait_new(h.m, &kept, 1, false, USEC_NEVER, on_lost, NULL, &late, &now), 0);
        ck_assert(task_wait_is_lost(late));
        for (int i = 0; i < 3; i++)
                task_wait_free(w[i]);
        task_wait_free(late);
        durable_done(&h);
}

/* A store that fails while nothing is being written: it has written all that was asked of it. */
static void fail_store(void) {
        until(&h, is_durable, *manager_written(h.m));
        store_fail(durable_store(h.m), -EIO);
        until(&h, has_failed, 0);
}

static int set_queue(QueueRecord *q, const char *attribute) {
        Caller r = root(&h);
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_cstr(&pk, attribute);
        EqArray set = { .raw = eq_bytes(b.data, b.len), .n = 1 };
        int e = manager_queue_set(h.m, &r, q, &set, &h.refusal);
        eq_buffer_done(&b);
        return e;
}

TEST(nothing_of_a_durable_queue_is_changed_when_the_store_has_failed) {
        static const char *const volatile_queue[] = { "durable=no", NULL };
        size_t n = 0;
        uint64_t waits;
        Tunable t;
        QueueRecord *made;
        const EqArray none = { 0 };
        durable_begin(&h, NULL);
        QueueRecord *q = durable_q(&h), *memory = host_queue(&h, "memory", volatile_queue);
        host_end(&h, host_task(&h, "memory", (EqSubmit) { 0 }), TASK_BAD);
        TaskRecord *failed = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        host_end(&h, failed, TASK_BAD);
        fail_store();
        ck_assert_state(failed, FAILED);
        uint64_t written = *manager_written(h.m);
        Caller r = root(&h);
        refused(host_submit(&h, r, "q", (EqSubmit) { 0 }, &failed), -EIO, "restart eqd");
        refused(manager_may(EQ_KEEPS_CHANGES, q, &h.refusal), -EIO, "restart eqd");
        refused(manager_may(EQ_KEEPS_WAITS, q, &h.refusal), -EIO, "restart eqd");
        refused(set_queue(q, "max_active=3"), -EIO, "restart eqd");
        refused(set_queue(q, "durable=no"), -EIO, "restart eqd");
        refused(manager_queue_create(h.m, &r, eq_str("another"), &none, false, &made, &h.refusal), -EIO, "restart eqd");
        refused(manager_retry_failed(h.m, &r, NULL, false, &n, &h.refusal), -EIO, "restart eqd");
        refused(manager_retry_failed(h.m, &r, q, false, &n, &h.refusal), -EIO, "restart eqd");
        refused(manager_reload(h.m, &waits, &h.refusal), -EIO, "restart eqd");
        ck_assert_int_eq(manager_find_tunable(h.m, eq_str("queue.durable"), &t, &h.refusal), 0);
        refused(manager_tunable_set(h.m, &t, eq_str("no"), &h.refusal), -EIO, "restart eqd");
        ck_assert_uint_eq(q->attributes.engine.max_active, 1);
        ck_assert_int_eq(manager_retry_failed(h.m, &r, memory, false, &n, &h.refusal), 0);
        ck_assert_uint_eq(n, 1);
        host_end(&h, seq_index_get(&memory->tasks, 1), TASK_OK);
        QueueRecord *empty = host_queue(&h, "empty", volatile_queue);
        refused(set_queue(empty, "durable=yes"), -EIO, "restart eqd");
        ck_assert(!empty->attributes.durable);
        ck_assert_int_eq(set_queue(empty, "max_active=3"), 0);
        ck_assert_int_eq(manager_may(EQ_KEEPS_CHANGES, memory, &h.refusal), 0);
        ck_assert_int_eq(manager_may(EQ_KEEPS_WAITS, memory, &h.refusal), 0);
        ck_assert_uint_eq(*manager_written(h.m), written); /* else its answer would end the connection */
        durable_done(&h);
}

static void a_turn(void) {
        uv_run(&h.loop, UV_RUN_NOWAIT);
}

/* Else a queue would seem to run more than its max_active. */
TEST(what_has_ended_and_is_not_written_is_running_and_says_so) {
        TaskView view;
        WhyView why;
        durable_begin(&h, NULL);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        view_task(h.m, t, &view);
        ck_assert_uint_eq(view.row.reason.len, 0);
        host_end(&h, t, TASK_OK);
        ck_assert(t->unsettled);
        view_task(h.m, t, &view);
        view_why(h.m, t, &why);
        ck_assert(eq_bytes_eq(view.row.state, eq_str("RUNNING")));
        ck_assert(eq_bytes_eq(view.row.reason, eq_str("persist")));
        ck_assert(eq_bytes_eq(why.row.reason, eq_str("persist")));
        ck_assert_str_eq(view.detail, "it has ended; that is being written to the store");
        ck_assert_str_eq(why.detail, view.detail);
        until(&h, is_settled, 1);
        view_task(h.m, t, &view);
        ck_assert(eq_bytes_eq(view.row.state, eq_str("DONE")));
        ck_assert_uint_eq(view.row.reason.len, 0);
        durable_done(&h);
}

/* It was, at the next sign of life of the store, where that had failed with everything written. */
TEST(an_end_that_was_not_written_is_never_told) {
        TaskView view;
        durable_begin(&h, (const char *const[]) { "at_most_once=yes", NULL });
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        fail_store();
        unsigned n_events = h.n_events;
        host_end(&h, t, TASK_OK);
        ck_assert(t->unsettled);
        store_fail(durable_store(h.m), -EIO);
        a_turn();
        ck_assert(t->unsettled);
        view_task(h.m, t, &view);
        ck_assert_str_eq(view.detail, "it has ended; the store has failed before that was written");
        ck_assert_uint_eq(h.n_events, n_events);
        ck_assert_uint_gt(*manager_written(h.m), h.durable); /* an answer would not be sent either */
        durable_restart(&h);
        until(&h, is_there, 1);
        ck_assert_state(task_of_q(&h, 1), FAILED);
        ck_assert_int_eq(task_of_q(&h, 1)->end_reason, EQ_REASON_LOST);
        durable_done(&h);
}

typedef struct Waits {
        QueueWaiter flush, drain, join;
        RemoveWaiter removal;
        SpaceWaiter space;
        unsigned n_given_up, n_over, n_retried;
} Waits;
static Waits waits;

static void on_wait(QueueWaiter *w) {
        *(w->given_up ? &waits.n_given_up : &waits.n_over) += 1;
}

static void on_removal(RemoveWaiter *w) {
        *(w->given_up ? &waits.n_given_up : &waits.n_over) += 1;
}

static void on_space(SpaceWaiter *w, bool ok) {
        TaskRecord *t;
        waits.n_retried++;
        ck_assert(ok);
        refused(host_submit(&h, anna(&h), w->queue->queue->name, (EqSubmit) { 0 }, &t), -EIO, "restart eqd");
}

TEST(all_who_wait_for_a_durable_queue_are_told_when_the_store_fails_and_others_go_on) {
        QueueWaiter other = { .done = on_wait };
        durable_begin(&h, (const char *const[]) { "max_tasks=1", "on_full=block", NULL });
        QueueRecord *removed = host_queue(&h, "removed", NULL), *empty = host_queue(&h, "empty", NULL),
                    *memory = host_queue(&h, "memory", (const char *const[]) { "durable=no", NULL });
        Queue *q = durable_q(&h)->queue;
        waits = (Waits) { .flush.done = on_wait,
                          .drain.done = on_wait,
                          .join.done = on_wait,
                          .removal.done = on_removal,
                          .space.retry = on_space };
        RemoveWaiter at_once = { .done = on_removal };
        EqSubmit held = { 0 };
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *volatile_task = host_task(&h, "memory", held), *t = host_task(&h, "removed", (EqSubmit) { 0 });
        (void)host_task(&h, "q", held);
        until(&h, is_running, 0);
        ck_assert_int_eq(manager_wait_space(h.m, durable_q(&h), &waits.space, 0), 0);
        queue_flush(q, &waits.flush);
        queue_drain(q, &waits.drain);
        queue_join(q, &waits.join);
        queue_flush(memory->queue, &other);
        ck_assert_int_eq(manager_queue_rm(h.m, removed, true, &waits.removal, &h.refusal), 0);
        until(&h, is_durable, *manager_written(h.m));
        list_init(&at_once.link);
        ck_assert_int_eq(manager_queue_rm(h.m, empty, false, &at_once, &h.refusal), 0); /* its timer is set */
        store_fail(durable_store(h.m), -EIO);
        until(&h, has_failed, 0);
        ck_assert_uint_eq(waits.n_given_up, 5);
        ck_assert_uint_eq(waits.n_retried, 1);
        ck_assert_uint_eq(waits.n_over, 0);
        host_end(&h, t, TASK_STOPPED);
        host_advance(&h, USEC_PER_SEC);
        ck_assert_ptr_eq(manager_queue(h.m, eq_str("removed")), removed);
        ck_assert_ptr_eq(manager_queue(h.m, eq_str("empty")), empty);
        ck_assert_int_eq(manager_cancel(h.m, volatile_task, false, 0, USEC_NEVER), 0);
        ck_assert_uint_eq(waits.n_over, 1);
        durable_restart(&h);
        ck_assert_ptr_nonnull(manager_queue(h.m, eq_str("removed")));
        ck_assert_ptr_nonnull(manager_queue(h.m, eq_str("empty")));
        durable_done(&h);
}

/* Memory is out where nobody can be refused any more. */
TEST(an_end_without_memory_for_it_is_a_failure_of_the_store) {
        QueueWaiter w = { .done = on_wait };
        durable_begin(&h, NULL);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        until(&h, is_durable, *manager_written(h.m));
        waits = (Waits) { 0 };
        queue_flush(durable_q(&h)->queue, &w);
        store_fail(durable_store(h.m), -ENOMEM); /* as append() does it then */
        host_end(&h, t, TASK_OK);
        ck_assert(!h.not_durable); /* who is at work is not disturbed */
        refused(manager_may(EQ_KEEPS_CHANGES, durable_q(&h), &h.refusal), -EIO, "Cannot allocate memory");
        until(&h, has_failed, 0);
        ck_assert(t->unsettled);
        durable_done(&h);
}

/* ---- at most once ---- */

static const char *const once[] = { "at_most_once=yes", "max_active=4", NULL };

static uint32_t loss_dir_number;
static char loss_dir[80];

static int copy_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
        char to[256], buf[65536];
        snprintf(to, sizeof(to), "%s%s", loss_dir, path + (ftw->level > 0 ? ftw->base - 1 : (int)strlen(path)));
        if (type == FTW_D)
                return mkdir(to, 0700);
        FILE *in = fopen(path, "re");
        if (!in && errno == ENOENT) /* a hint that has got its name meanwhile */
                return 0;
        FILE *out = fopen(to, "wxe");
        ck_assert(in && out);
        for (size_t n; (n = fread(buf, 1, sizeof(buf), in)) > 0;)
                ck_assert_uint_eq(fwrite(buf, 1, n, out), n);
        ck_assert_int_eq(fclose(in) | fclose(out), 0);
        return 0;
}

static void copy_store(const char *from) {
        snprintf(loss_dir, sizeof(loss_dir), "%s-%u", store_dir, ++loss_dir_number);
        ck_assert_int_eq(nftw(from, copy_one, 8, FTW_PHYS), 0);
}

static void remove_copy(const char *dir) {
        ck_assert_int_eq(nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* Another manager begins with what a loss of power leaves: what was synced, and nothing of what was only mapped. */
static void lose_power(Host *after) {
        char running[96];
        copy_store(store_dir);
        snprintf(running, sizeof(running), "%s/running", loss_dir);
        ck_assert_int_eq(unlink(running), 0);
        host_init_from(after, NULL, loss_dir, -1);
}

static void lost_power_done(Host *after) {
        host_done(after);
        remove_copy(loss_dir);
}

/* The first turn in which it is there as pending is the one in which its start is appended. */
TEST(a_start_of_at_most_once_waits_until_the_store_has_it) {
        durable_begin(&h, once);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, has_arrived, 1);
        ck_assert_int_eq(t->task.state, EQ_STATE_RUNNING);
        ck_assert_uint_eq(h.m->commands->n_running, 0);
        ck_assert(!t->run->announced);
        until(&h, is_running, 0);
        ck_assert_uint_eq(t->task.attempt, 1);
        host_end(&h, t, TASK_OK);
        until(&h, is_settled, 1);
        ck_assert_state(t, DONE);
        durable_done(&h);
}

TEST(a_start_of_another_queue_waits_for_nothing) {
        durable_begin(&h, NULL);
        (void)host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, has_arrived, 1);
        ck_assert_uint_eq(h.m->commands->n_running, 1);
        ck_assert_uint_eq(*store_written(durable_store(h.m)),
                          3); /* queues default and q, and the task: nothing of its start */
        durable_done(&h);
}

/* They are all told of before the first is on the disk. */
static bool all_arrived(const Host *host, uint64_t n) {
        for (uint64_t seq = 1; seq <= n; seq++)
                if (!has_arrived(host, seq))
                        return false;
        return true;
}

static bool n_running_is(const Host *host, uint64_t n) {
        return host->m->commands->n_running == n;
}

TEST(starts_that_wait_share_a_commit) {
        StoreStats before, after;
        EqSubmit held = { 0 };
        durable_begin(&h, once);
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *t[4];
        for (int i = 0; i < 4; i++)
                t[i] = host_task(&h, "q", held);
        until(&h, all_arrived, 4);
        ck_assert_int_eq(store_settle(durable_store(h.m)), 0);
        store_stats(durable_store(h.m), &before);
        for (int i = 0; i < 4; i++)
                ck_assert_int_eq(manager_release(h.m, t[i]), 0);
        until(&h, n_running_is, 4);
        store_stats(durable_store(h.m), &after);
        ck_assert_uint_eq(after.n_commits - before.n_commits, 1);
        durable_done(&h);
}

TEST(a_task_of_at_most_once_that_ran_at_a_loss_of_power_is_lost_and_others_run_again) {
        static Host after;
        durable_begin(&h, once);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        lose_power(&after);
        until(&after, is_there, 1);
        TaskRecord *lost = task_of_q(&after, 1);
        ck_assert_int_eq(lost->task.state, EQ_STATE_FAILED);
        ck_assert_int_eq(lost->end_reason, EQ_REASON_LOST);
        ck_assert_uint_eq(lost->task.attempt, 1);
        lost_power_done(&after);
        host_end(&h, t, TASK_NOT_STARTED); /* it has never begun: nothing is lost then */
        pool_block(h.m->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER);
        ck_assert_int_eq(store_settle(durable_store(h.m)), 0);
        lose_power(&after);
        until(&after, is_running, 0);
        ck_assert_uint_eq(task_of_q(&after, 1)->task.attempt, 1);
        lost_power_done(&after);
        durable_done(&h);
}

/* Also if it is stopped in order, and does not end in time. */
TEST(what_of_at_most_once_still_runs_when_eqd_has_ended_does_not_run_again) {
        durable_begin(&h, once);
        (void)host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        durable_restart(&h);
        until(&h, is_there, 1);
        ck_assert_int_eq(task_of_q(&h, 1)->end_reason, EQ_REASON_LOST);
        durable_done(&h);
}

TEST(a_start_that_cannot_be_written_is_none) {
        EqSubmit held = { 0 };
        durable_begin(&h, once);
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *t = host_task(&h, "q", held);
        until(&h, has_arrived, 1);
        ck_assert_int_eq(store_settle(durable_store(h.m)), 0);
        fault_set(FAULT_SYNC, 1, true);
        ck_assert_int_eq(manager_release(h.m, t), 0);
        ck_assert_int_eq(t->task.state, EQ_STATE_RUNNING);
        until(&h, has_failed, 0);
        fault_set(FAULT_SYNC, 0, false);
        ck_assert_uint_eq(h.m->commands->n_running, 0);
        ck_assert_int_eq(t->task.state, EQ_STATE_QUEUED);
        ck_assert_uint_eq(t->task.attempt, 0);
        ck_assert(!pool_is_blocked(h.m->pool));
        durable_done(&h);
}

TEST(a_start_that_waits_can_be_canceled) {
        durable_begin(&h, once);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, has_arrived, 1);
        ck_assert_int_eq(manager_cancel(h.m, t, true, 0, USEC_NEVER), 1); /* it counts as running */
        until(&h, is_settled, 1);
        ck_assert_state(t, CANCELED);
        ck_assert(!t->run->announced);
        ck_assert_uint_eq(h.m->pool->n_busy, 0);
        ck_assert_uint_eq(store_n_free_marks(durable_store(h.m)), STORE_MARKS);
        durable_done(&h);
}

/* Else it would count as a crash when eqd is killed, beside that of the attempt of the same number that ran. */
TEST(a_start_that_came_to_nothing_leaves_no_mark) {
        durable_begin(&h, NULL);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        ck_assert_uint_eq(store_n_free_marks(durable_store(h.m)), STORE_MARKS - 1);
        host_end(&h, t, TASK_NOT_STARTED);
        ck_assert_int_eq(t->task.state, EQ_STATE_QUEUED);
        ck_assert_uint_eq(store_n_free_marks(durable_store(h.m)), STORE_MARKS);
        durable_done(&h);
}

static bool is_waiting(const Host *host, uint64_t seq) {
        return once_waits_for_mark(durable_q(host));
}

/* All marks are taken: tasks of other queues go on, and it is told once; one that must not run twice waits. */
TEST(without_a_free_mark_only_at_most_once_waits) {
        WhyView why;
        durable_begin(&h, once);
        host_queue(&h, "other", NULL);
        fault_set(FAULT_MARK, 1, true);
        TaskRecord *other = host_task(&h, "other", (EqSubmit) { 0 }), *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_waiting, 0);
        ck_assert_int_eq(other->task.state, EQ_STATE_RUNNING);
        ck_assert_int_eq(other->run->mark, STORE_MARK_NONE);
        ck_assert_int_eq(t->task.state, EQ_STATE_QUEUED);
        ck_assert_uint_eq(t->task.attempt, 0);
        ck_assert_uint_eq(h.m->commands->n_running, 1);
        ck_assert(!pool_is_blocked(h.m->pool));
        view_why(h.m, t, &why);
        ck_assert(eq_bytes_eq(why.row.reason, eq_str("persist")));
        ck_assert_ptr_nonnull(strstr(why.detail, "at_most_once"));
        fault_set(FAULT_MARK, 0, false);
        until(&h, n_running_is, 2);
        ck_assert_int_ne(t->run->mark, STORE_MARK_NONE);
        ck_assert(!once_waits_for_mark(durable_q(&h)));
        durable_done(&h);
}

static bool has_task_settled(const Host *host, uint64_t seq) {
        TaskRecord *t = task_of_q(host, seq);
        return t && task_record_finished(t);
}

/* One that is read with its task, and one that is left in the store until its turn. */
TEST(a_stopped_queue_is_still_stopping_after_a_restart_while_it_has_tasks) {
        EqSubmit held = { 0 };
        EQ_SET(&held, Submit, hold, true);
        for (int plain = 0; plain < 2; plain++) {
                durable_begin(&h, NULL);
                queue_pause(durable_q(&h)->queue);
                (void)host_task(&h, "q", plain ? (EqSubmit) { 0 } : held);
                manager_queue_stop(durable_q(&h));
                until(&h, is_durable, *manager_written(h.m));
                durable_restart(&h);
                ck_assert_str_eq(queue_state_name(durable_q(&h)->queue), "stopping");
                (void)queue_resume(durable_q(&h)->queue);
                if (!plain)
                        ck_assert_int_eq(manager_release(h.m, task_of_q(&h, 1)), 0);
                until(&h, is_running, 0);
                host_end(&h, task_of_q(&h, 1), TASK_OK);
                until(&h, has_task_settled, 1);
                ck_assert_str_eq(queue_state_name(durable_q(&h)->queue), "stopped");
                durable_restart(&h);
                ck_assert_str_eq(queue_state_name(durable_q(&h)->queue), "stopped");
                durable_done(&h);
        }
}

/* ---- marks of runs that were cut short ---- */

/* Another manager begins with what kill -9 leaves: what was written, and what was mapped. */
static void kill_it(Host *after, const char *dir) {
        copy_store(dir);
        host_init_from(after, NULL, loss_dir, -1);
}

/* So often, and it runs again. */
static void check_crashes(Host *after, unsigned n) {
        const TaskRecord *t = task_of_q(after, 1);
        host_advance(after, USEC_PER_SEC);
        until(after, is_running, 0);
        ck_assert_uint_eq(t->task.attempt, n + 1);
        ck_assert_uint_eq(t->crashes, n);
}

static const char *const retries[] = { "retries=9", "backoff=0", NULL };

/* STATE is on the disk, and the mark that it has made needless is still there. */
TEST(a_run_that_is_written_down_is_not_counted_by_its_mark_again) {
        Host after;
        durable_begin(&h, retries);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        pool_block(h.m->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER);
        host_end(&h, t, TASK_CRASHED);
        ck_assert_int_eq(store_settle(durable_store(h.m)), 0); /* and nobody has heard of it yet */
        kill_it(&after, store_dir);
        check_crashes(&after, 1);
        lost_power_done(&after);
        durable_done(&h);
}

/* STATE is not, and what is durable comes before it. */
TEST(a_mark_stays_until_what_came_of_its_run_is_on_the_disk) {
        Host after;
        EqSubmit held = { 0 };
        EQ_SET(&held, Submit, hold, true);
        durable_begin(&h, retries);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        pool_block(h.m->pool, EQ_REASON_SPAWN_FAILED, USEC_NEVER);
        (void)host_task(&h, "q", held);
        ck_assert_int_eq(store_settle(durable_store(h.m)), 0); /* told with the failure at the earliest */
        host_end(&h, t, TASK_CRASHED);
        fault_set(FAULT_WRITE, 1, true);
        until(&h, has_failed, 0);
        fault_set(FAULT_WRITE, 0, false);
        kill_it(&after, store_dir);
        check_crashes(&after, 1);
        lost_power_done(&after);
        durable_done(&h);
}

/* An eqd that was killed before it had written down what it found, and had begun the next run, has no less to tell. */
TEST(marks_that_were_found_stay_until_what_came_of_them_is_on_the_disk) {
        Host second, third;
        char first_copy[sizeof(loss_dir)];
        durable_begin(&h, retries);
        (void)host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        kill_it(&second, store_dir);
        strcpy(first_copy, loss_dir);
        fault_set(FAULT_WRITE, 1, true);
        until(&second, has_failed, 0);
        fault_set(FAULT_WRITE, 0, false);
        kill_it(&third, first_copy);
        check_crashes(&third, 2);
        lost_power_done(&third);
        host_done(&second);
        remove_copy(first_copy);
        durable_done(&h);
}

static bool runs_as(const Host *host, uint64_t attempt) {
        return is_running(host, 0) && task_of_q(host, 1)->task.attempt == attempt;
}

/* Of one that eqd died in nothing is known, nor told of the one before. */
TEST(what_came_of_an_attempt_is_there_after_a_crash_while_it_is_the_last_one) {
        Host after;
        durable_begin(&h, (const char *const[]) { "retries=9", "backoff=100s", NULL });
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        until(&h, is_running, 0);
        host_end(&h, t, TASK_CRASHED);
        ck_assert_int_eq(store_settle(durable_store(h.m)), 0);
        kill_it(&after, store_dir);
        const TaskRecord *found = task_of_q(&after, 1);
        ck_assert_state(found, WAITING);
        ck_assert_ptr_nonnull(found->run);
        ck_assert_uint_eq(found->run->started_usec, t->run->started_usec);
        ck_assert_int_eq(found->run->signal, SIGSEGV);
        lost_power_done(&after);
        host_advance(&h, 200 * USEC_PER_SEC);
        until(&h, runs_as, 2);
        queue_pause(durable_q(&h)->queue); /* the next eqd starts nothing */
        manager_queue_changed(durable_q(&h), "paused");
        ck_assert_int_eq(store_settle(durable_store(h.m)), 0);
        kill_it(&after, store_dir);
        found = task_of_q(&after, 1);
        ck_assert_uint_eq(found->task.attempt, 2);
        ck_assert_ptr_null(found->run);
        lost_power_done(&after);
        t->run->announced = true; /* its process is known */
        durable_restart(&h);      /* likewise if it was closed meanwhile */
        ck_assert_uint_eq(task_of_q(&h, 1)->task.attempt, 2);
        ck_assert_ptr_null(task_of_q(&h, 1)->run);
        durable_done(&h);
}

/* ---- times ---- */

static bool has_expired(const Host *host, uint64_t seq) {
        const TaskRecord *t = task_of_q(host, seq);
        return t->task.state == EQ_STATE_EXPIRED && !t->unsettled;
}

/* 0: it does not say. */
static uint64_t shown_expiry(uint64_t seq) {
        TaskView view;
        view_task(h.m, task_of_q(&h, seq), &view);
        return EQ_HAS(&view.row, Task, expires_usec) ? view.row.expires_usec : 0;
}

/* As it was accepted, and as it was changed since. */
TEST(a_task_that_was_not_started_in_time_expires_after_a_restart_too) {
        EqSubmit expires = { 0 };
        durable_begin(&h, NULL);
        EQ_SET(&expires, Submit, hold, true);
        EQ_SET(&expires, Submit, expire_usec, 60 * USEC_PER_SEC);
        (void)host_task(&h, "q", expires);
        until(&h, has_arrived, 1);
        EQ_SET(&expires, Submit, delay_usec, 1000 * USEC_PER_SEC);
        TaskRecord *t = host_task(&h, "q", expires);
        until(&h, has_arrived, 2);
        ck_assert_int_eq(manager_release(h.m, t), 0);
        uint64_t expires_at = clock_realtime(h.m->clock) + 60 * USEC_PER_SEC;
        ck_assert_uint_eq(shown_expiry(1), expires_at);
        durable_restart(&h); /* with the wall clock back at its start */
        host_advance(&h, 59 * USEC_PER_SEC);
        for (uint64_t seq = 1; seq <= 2; seq++) {
                ck_assert_state(task_of_q(&h, seq), WAITING);
                ck_assert_uint_eq(shown_expiry(seq), expires_at);
        }
        host_advance(&h, USEC_PER_SEC);
        for (uint64_t seq = 1; seq <= 2; seq++) {
                until(&h, has_expired, seq);
                ck_assert_uint_eq(shown_expiry(seq), 0); /* the end is told, and when */
        }
        durable_done(&h);
}

TEST(what_has_started_shows_no_expiry) {
        EqSubmit expires = { 0 };
        durable_begin(&h, NULL);
        EQ_SET(&expires, Submit, expire_usec, 60 * USEC_PER_SEC);
        (void)host_task(&h, "q", expires);
        ck_assert_uint_ne(shown_expiry(1), 0);
        until(&h, is_running, 0);
        ck_assert_uint_eq(shown_expiry(1), 0);
        durable_done(&h);
}

static void on_removal_uncalled(RemoveWaiter *w) {
        ck_abort_msg("its task runs");
}

/* It was acknowledged and never written. That a queue takes no more while it goes is not a stop that comes back with it; a client's
 * is. */
TEST(what_is_changed_of_a_queue_while_it_is_removed_is_there_when_a_crash_brings_it_back) {
        for (int stops = 0; stops < 3; stops++) { /* not, before its removal, during it */
                RemoveWaiter w = { .done = on_removal_uncalled };
                Host after;
                durable_begin(&h, NULL);
                list_init(&w.link);
                (void)host_task(&h, "q", (EqSubmit) { 0 });
                until(&h, is_running, 0);
                if (stops == 1)
                        manager_queue_stop(durable_q(&h));
                ck_assert_int_eq(manager_queue_rm(h.m, durable_q(&h), true, &w, &h.refusal), 0);
                if (stops == 2)
                        manager_queue_stop(durable_q(&h));
                ck_assert_int_eq(set_queue(durable_q(&h), "max_active=3"), 0);
                queue_pause(durable_q(&h)->queue);
                manager_queue_changed(durable_q(&h), "paused");
                until(&h, is_durable, *manager_written(h.m));
                lose_power(&after);
                ck_assert_uint_eq(durable_q(&after)->attributes.engine.max_active, 3);
                ck_assert_uint_eq(durable_q(&after)->queue->pauses, 1);
                ck_assert_str_eq(queue_state_name(durable_q(&after)->queue), stops ? "stopping" : "paused");
                lost_power_done(&after);
                w.done = on_removal;
                durable_done(&h);
        }
}

/* Events of queues, each with its detail, if it has one. */
static char told[256];

static void note_event(void *host, const EqEvent *e, bool has_owner, uid_t owner) {
        size_t n = strlen(told);
        if (strncmp(e->event.data, "queue.", 6) == 0)
                snprintf(told + n, sizeof(told) - n, "%.*s:%.*s:%.*s ", (int)(e->event.len - 6), e->event.data + 6,
                         (int)e->detail.len, e->detail.data ? e->detail.data : "", (int)e->state.len, e->state.data);
}

static void listen_to_queues(void) {
        static ManagerHooks hooks;
        hooks = host_hooks;
        hooks.event = note_event;
        h.m->hooks = &hooks;
        h.m->want_events = true;
        told[0] = '\0';
}

static bool is_removed(const Host *host, uint64_t unused) {
        return !durable_q(host);
}

static void on_removal_untold(RemoveWaiter *w) {
        ck_assert_str_eq(told, "");
}

/* A crash in between would have undone what they were told. */
TEST(subscribers_are_told_of_a_durable_queue_what_is_on_the_disk) {
        RemoveWaiter w = { .done = on_removal_untold };
        durable_begin(&h, NULL);
        list_init(&w.link);
        until(&h, is_durable, *manager_written(h.m));
        listen_to_queues();
        (void)host_queue(&h, "another", NULL);
        queue_pause(durable_q(&h)->queue);
        manager_queue_changed(durable_q(&h), "paused");
        (void)queue_resume(durable_q(&h)->queue);
        manager_queue_changed(durable_q(&h), "resumed");
        ck_assert_str_eq(told, "");
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_str_eq(told, "created::open changed:paused:paused changed:resumed:open ");
        told[0] = '\0';
        ck_assert_int_eq(manager_queue_rm(h.m, durable_q(&h), false, &w, &h.refusal), 0);
        until(&h, is_removed, 0);
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_str_eq(told, "removed::stopped ");
        durable_done(&h);
}

/* They were told too early. What is not told yet of a queue is told together then, and it has the state that it has at the end. */
TEST(without_memory_too_nothing_is_told_before_it_is_on_the_disk) {
        RemoveWaiter w = { .done = on_removal_untold };
        durable_begin(&h, NULL);
        list_init(&w.link);
        until(&h, is_durable, *manager_written(h.m));
        listen_to_queues();
        QueueRecord *made = host_queue(&h, "another", NULL);
        for (int i = 0; i < 2; i++) {
                QueueRecord *q = i ? made : durable_q(&h);
                for (int change = 0; change < 2; change++) {
                        if (change == 0)
                                queue_pause(q->queue);
                        else
                                (void)queue_resume(q->queue);
                        durable_put_queue(q);
                        fault_set(FAULT_ALLOC, 1, true);
                        manager_event_queue(h.m, EQ_EVENT_QUEUE_CHANGED, q, change == 0 ? "paused" : "resumed");
                        fault_set(FAULT_ALLOC, 0, false);
                }
        }
        ck_assert_str_eq(told, "");
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_str_eq(told, "created::open changed:resumed:open changed:resumed:open ");
        told[0] = '\0';
        durable_put_queue(made);
        fault_set(FAULT_ALLOC, 1, true);
        manager_event_queue(h.m, EQ_EVENT_QUEUE_CREATED, made, NULL);
        queue_pause(made->queue);
        manager_event_queue(h.m, EQ_EVENT_QUEUE_CHANGED, made, "paused");
        fault_set(FAULT_ALLOC, 0, false);
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_str_eq(told, "created::paused ");
        told[0] = '\0';
        ck_assert_int_eq(manager_queue_rm(h.m, durable_q(&h), false, &w, &h.refusal), 0);
        fault_set(FAULT_ALLOC, 1, true);
        timers_run(&h.m->timers);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert(is_removed(&h, 0));
        ck_assert_str_eq(told, "");
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_str_eq(told, "removed::stopped ");
        durable_done(&h);
}

/* It was said to have 0 tasks that have not ended. */
TEST(a_task_that_is_on_its_way_to_the_disk_is_counted_by_who_may_not_remove_its_queue) {
        RemoveWaiter w = { .done = on_removal_untold };
        durable_begin(&h, NULL);
        list_init(&w.link);
        (void)host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert(!has_arrived(&h, 1));
        ck_assert_int_eq(manager_queue_rm(h.m, durable_q(&h), false, &w, &h.refusal), -ENOTEMPTY);
        ck_assert_uint_eq(h.refusal.details.pending, 1);
        ck_assert_ptr_nonnull(
                strstr(h.refusal.text, "has 1 task that has not ended; drain it first, or use --yes to cancel it"));
        until(&h, is_running, 0);
        host_end(&h, task_of_q(&h, 1), TASK_OK);
        durable_done(&h);
}

TEST(what_lives_in_memory_is_told_at_once_whatever_the_store_has_to_do) {
        durable_begin(&h, NULL);
        listen_to_queues();
        manager_queue_changed(durable_q(&h), "paused");
        manager_queue_changed(host_queue(&h, "memory", (const char *const[]) { "durable=no", NULL }), "paused");
        ck_assert_str_eq(told, "created::open changed:paused:open ");
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_str_eq(told, "created::open changed:paused:open changed:paused:open ");
        durable_done(&h);
}

/* That it is no longer durable is a change of a durable queue. */
TEST(that_a_queue_leaves_the_disk_is_told_when_it_has) {
        durable_begin(&h, NULL);
        until(&h, is_durable, *manager_written(h.m));
        listen_to_queues();
        ck_assert_int_eq(set_queue(durable_q(&h), "durable=no"), 0);
        ck_assert_str_eq(told, "");
        until(&h, is_durable, *manager_written(h.m));
        ck_assert_str_eq(told, "changed:attributes:open ");
        durable_done(&h);
}

TEST(of_a_change_that_was_not_written_nothing_is_told) {
        durable_begin(&h, NULL);
        until(&h, is_durable, *manager_written(h.m));
        listen_to_queues();
        fault_set(FAULT_SYNC, 1, true);
        manager_queue_changed(durable_q(&h), "paused");
        until(&h, has_failed, 0);
        ck_assert_str_eq(told, "");
        ck_assert(list_is_empty(&h.m->late.events));
        fault_set(FAULT_SYNC, 0, false);
        durable_done(&h);
}

/* The end of one is on the disk, the other on its way there, and the loop hears of the end alone. */
TEST(who_comes_after_a_task_whose_end_is_just_written_starts) {
        EqBuffer b = EQ_BUFFER_NULL;
        durable_begin(&h, NULL);
        for (unsigned i = 0; i < 20; i++) {
                StoreStats before, now;
                EqSubmit s = { 0 };
                TaskRecord *t = host_task(&h, "q", s);
                until(&h, has_arrived, t->task.seq);
                store_stats(durable_store(h.m), &before);
                host_end(&h, t, TASK_OK);
                uv_run(&h.loop, UV_RUN_NOWAIT); /* it is handed to the writer */
                do
                        store_stats(durable_store(h.m), &now);
                while (now.n_commits == before.n_commits);
                msgpack_packer pk = eq_packer(&b);
                b.len = 0;
                eq_pack_id(&pk, task_record_id(t));
                EQ_SET(&s, Submit, after_ok, (EqArray) { .raw = eq_bytes(b.data, b.len), .n = 1 });
                TaskRecord *next = host_task(&h, "q", s);
                until(&h, has_arrived, next->task.seq);
                ck_assert_state(next, RUNNING);
                host_end(&h, next, TASK_OK);
        }
        eq_buffer_done(&b);
        durable_done(&h);
}

RUN_TESTS("durable", 60, test_what_becomes_of_a_queue_while_there_is_no_space_goes_into_the_reserve,
          test_with_little_space_tasks_and_queues_are_refused_with_a_time_to_try_again_and_ends_go_on,
          test_when_the_reserve_is_used_up_changes_are_refused_until_there_is_space,
          test_who_waits_for_a_task_that_was_not_written_is_told_so,
          test_a_task_that_is_canceled_before_it_ran_is_never_shown_as_running,
          test_a_stop_clears_no_mark_of_what_it_could_not_write, test_after_a_stop_in_order_nothing_counts_as_cut_short,
          test_waits_for_what_a_failed_store_will_not_tell_are_lost_and_others_go_on,
          test_nothing_of_a_durable_queue_is_changed_when_the_store_has_failed,
          test_what_has_ended_and_is_not_written_is_running_and_says_so, test_an_end_that_was_not_written_is_never_told,
          test_all_who_wait_for_a_durable_queue_are_told_when_the_store_fails_and_others_go_on,
          test_an_end_without_memory_for_it_is_a_failure_of_the_store,
          test_a_start_of_at_most_once_waits_until_the_store_has_it, test_a_start_of_another_queue_waits_for_nothing,
          test_starts_that_wait_share_a_commit,
          test_a_task_of_at_most_once_that_ran_at_a_loss_of_power_is_lost_and_others_run_again,
          test_what_of_at_most_once_still_runs_when_eqd_has_ended_does_not_run_again,
          test_a_start_that_came_to_nothing_leaves_no_mark, test_a_start_that_cannot_be_written_is_none,
          test_a_start_that_waits_can_be_canceled, test_without_a_free_mark_only_at_most_once_waits,
          test_a_run_that_is_written_down_is_not_counted_by_its_mark_again,
          test_a_mark_stays_until_what_came_of_its_run_is_on_the_disk,
          test_marks_that_were_found_stay_until_what_came_of_them_is_on_the_disk,
          test_a_task_that_was_not_started_in_time_expires_after_a_restart_too, test_what_has_started_shows_no_expiry,
          test_what_came_of_an_attempt_is_there_after_a_crash_while_it_is_the_last_one,
          test_a_stopped_queue_is_still_stopping_after_a_restart_while_it_has_tasks,
          test_what_is_changed_of_a_queue_while_it_is_removed_is_there_when_a_crash_brings_it_back,
          test_subscribers_are_told_of_a_durable_queue_what_is_on_the_disk,
          test_without_memory_too_nothing_is_told_before_it_is_on_the_disk,
          test_what_lives_in_memory_is_told_at_once_whatever_the_store_has_to_do,
          test_that_a_queue_leaves_the_disk_is_told_when_it_has, test_of_a_change_that_was_not_written_nothing_is_told,
          test_a_task_that_is_on_its_way_to_the_disk_is_counted_by_who_may_not_remove_its_queue,
          test_who_comes_after_a_task_whose_end_is_just_written_starts)
