/* SPDX-License-Identifier: MIT */
/* Long durable queues: what is in the store only is to everybody a task as any other. */
#include "manager/window.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "store-host.h"

#include "deep.h" /* behind it: what is `h` there is the Host here */

static Queue *q(void) {
        return durable_q(&h)->queue;
}

static bool is_stored(uint64_t seq) {
        return window_has(task_of_q(&h, seq));
}

static bool has_pushed(const Host *host, uint64_t n) {
        return q()->n_accepted + q()->n_reserved >= n && q()->n_reserved == 0;
}

static void fill(size_t n) {
        submit_plain("q", n);
        until(&h, has_pushed, 0);
}

static bool has_front(const Host *host, uint64_t n) {
        return q()->lines[QUEUE_READY][TASK_LANE_NORMAL].n >= n;
}

static bool has_told(const Host *host, uint64_t ticket) {
        return host->ticket >= ticket;
}

static bool runs_or_is_empty(const Host *host, uint64_t unused) {
        return host->m->commands->n_running > 0 || queue_is_empty(q());
}

static void wait_for_run(void) {
        until(&h, runs_or_is_empty, 0);
}
static void (*await_run)(void) = wait_for_run;

/* Paused, also after a restart. */
static void begin(void) {
        static const char *const attributes[] = { "history=10000", NULL };
        durable_begin(&h, attributes);
        queue_pause(q());
        manager_queue_changed(durable_q(&h), "paused");
        fill(DEEP);
        expect_deep(q());
        ck_assert(!is_stored(QUEUE_FRONT) && is_stored(QUEUE_FRONT + 1) && is_stored(DEEP));
}

static bool is_settled(const Host *host, uint64_t unused) {
        return durable_q(host)->n_unsettled == 0;
}

static void nothing_is_left(void) {
        ck_assert_uint_eq(end_one(), 0);
        until(&h, is_settled, 0);
        ck_assert_uint_eq(q()->n_shelved_bytes, 0);
        expect_empty(q());
}

static int find(Caller c, uint64_t seq, TaskRecord **ret) {
        EqIdRef id = { .id = { .queue = q()->id, .seq = seq } };
        return manager_find_task(h.m, &c, &id, ret, &h.refusal);
}

/* As a request that is parked and served again. */
static TaskRecord *fetch(uint64_t seq) {
        TaskRecord *t;
        ck_assert_int_eq(find(anna(&h), seq, &t), MANAGER_E_READ);
        until(&h, has_told, h.refusal.ticket);
        ck_assert_int_eq(find(anna(&h), seq, &t), 0);
        ck_assert_uint_eq(t->task.seq, seq);
        return t;
}

TEST(a_deep_queue_runs_in_order_while_more_comes) {
        begin();
        queue_resume(q());
        end_all_but(1, QUEUE_FRONT, 0);
        fill(100);
        end_all_but(QUEUE_FRONT + 1, DEEP + 100, 0);
        nothing_is_left();
        durable_done(&h);
}

TEST(a_start_reads_no_task_and_runs_all_of_them_in_order) {
        begin();
        queue_resume(q());
        end_all_but(1, 10, 0);
        queue_pause(q());
        ck_assert_uint_eq(end_one(), 11); /* was running */
        durable_restart(&h);
        ck_assert_uint_eq(q()->n_shelved, DEEP - 11);
        ck_assert_uint_eq(q()->n_queued, DEEP - 11);
        ck_assert_uint_eq(h.m->n_pending, DEEP - 11);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], DEEP - 11);
        until(&h, has_front, QUEUE_FRONT);
        ck_assert_uint_eq(q()->n_shelved, DEEP - 11 - QUEUE_FRONT);
        fill(1);
        queue_resume(q());
        end_all_but(12, DEEP + 1, 0);
        nothing_is_left();
        durable_done(&h);
}

TEST(one_in_the_store_is_found_canceled_and_held_as_any_other) {
        TaskRecord *t;
        begin();
        t = fetch(DEEP - 10);
        ck_assert_state(t, QUEUED);
        ck_assert_uint_eq(q()->n_queued, DEEP);
        ck_assert_uint_eq(q()->n_shelved, DEEP - QUEUE_FRONT - 1);
        ck_assert_int_eq(manager_cancel(h.m, t, false, 0, 0), 0);
        ck_assert_int_eq(manager_hold(h.m, fetch(DEEP - 20)), 0);
        ck_assert_int_eq(find(bob(&h), DEEP - 5, &t), -EPERM);
        ck_assert_int_eq(find(root(&h), DEEP - 5, &t), MANAGER_E_READ);
        until(&h, is_settled, 0);
        durable_restart(&h);
        ck_assert_int_eq(find(anna(&h), DEEP - 10, &t), 0);
        ck_assert_state(t, CANCELED);
        ck_assert_int_eq(find(anna(&h), DEEP - 20, &t), 0);
        ck_assert_uint_eq(t->task.wait, TASK_WAIT_HELD);
        queue_resume(q());
        for (uint64_t seq = 1; seq <= DEEP; seq++) {
                if (seq == DEEP - 100) /* it is at its place when it is let go in time */
                        ck_assert_int_eq(manager_release(h.m, task_of_q(&h, DEEP - 20)), 0);
                if (seq != DEEP - 10)
                        ck_assert_uint_eq(end_one(), seq);
        }
        nothing_is_left();
        durable_done(&h);
}

TEST(what_cannot_be_there_keeps_its_place_behind_what_is) {
        EqSubmit expiring = { 0 }, urgent = { 0 };
        begin();
        EQ_SET(&expiring, Submit, expire_usec, 1000 * USEC_PER_SEC);
        EQ_SET(&urgent, Submit, urgent, true);
        host_task(&h, "q", expiring);
        host_task(&h, "q", urgent);
        fill(1);
        ck_assert(!is_stored(DEEP + 1) && !is_stored(DEEP + 2) && is_stored(DEEP + 3));
        for (int restarted = 0; restarted < 2; restarted++) {
                ck_assert_uint_eq(q()->n_queued, DEEP + 3);
                durable_restart(&h);
        }
        queue_resume(q());
        ck_assert_uint_eq(end_one(), DEEP + 2);
        end_all_but(1, DEEP + 3, DEEP + 2);
        nothing_is_left();
        durable_done(&h);
}

TEST(what_fails_is_tried_again_at_its_place_also_after_a_restart) {
        static const char *const attributes[] = { "retries=1", "backoff=1s", NULL };
        durable_begin(&h, attributes);
        queue_pause(q());
        manager_queue_changed(durable_q(&h), "paused");
        fill(DEEP);
        durable_restart(&h);
        queue_resume(q());
        ck_assert_uint_eq(end_as(TASK_BAD), 1);
        ck_assert_uint_eq(h.m->commands->n_running, 0);
        host_advance(&h, 2 * USEC_PER_SEC);
        ck_assert_uint_eq(end_one(), 1);
        ck_assert_uint_eq(h.m->commands->n_running, 1);
        durable_restart(&h); /* 2 is written down as what ran */
        queue_resume(q());
        end_all_but(2, DEEP, 0);
        nothing_is_left();
        durable_done(&h);
}

TEST(a_flush_waits_for_what_is_in_the_store_and_for_nothing_behind_it) {
        QueueWaiter w = { .done = on_done };
        begin();
        called = false;
        queue_flush(q(), &w);
        fill(10);
        queue_resume(q());
        end_all_but(1, DEEP - 1, 0);
        ck_assert(!called);
        end_all_but(DEEP, DEEP, 0);
        ck_assert(called);
        end_all_but(DEEP + 1, DEEP + 10, 0);
        nothing_is_left();
        durable_done(&h);
}

TEST(the_oldest_makes_room_also_when_nothing_was_read_yet) {
        begin();
        durable_restart(&h);
        ck_assert_uint_eq(q()->n_shelved, DEEP); /* the loop has not turned */
        q()->params.max_tasks = DEEP;
        q()->params.on_full = QUEUE_FULL_DROP_OLDEST;
        fill(3);
        ck_assert_uint_eq(q()->n_queued, DEEP);
        ck_assert_state(task_of_q(&h, 1), CANCELED);
        ck_assert_state(task_of_q(&h, 3), CANCELED);
        ck_assert_int_eq(manager_retry(h.m, task_of_q(&h, 1), false), 1); /* what it was to do is not known */
        queue_resume(q());
        end_all_but(4, DEEP + 3, 0);
        nothing_is_left();
        durable_done(&h);
}

TEST(edges_to_what_is_in_the_store_are_tied_again) {
        EqBuffer ids = EQ_BUFFER_NULL;
        EqSubmit after = { 0 };
        begin();
        msgpack_packer pk = eq_packer(&ids);
        eq_pack_id(&pk, (eq_task_id) { .queue = q()->id, .seq = DEEP });
        EQ_SET(&after, Submit, after_ok, (EqArray) { .raw = eq_bytes(ids.data, ids.len), .n = 1 });
        Caller a = anna(&h);
        ck_assert_int_eq(manager_look_for_named(h.m, &a, &after, &h.refusal), MANAGER_E_READ);
        until(&h, has_told, h.refusal.ticket);
        ck_assert_int_eq(manager_look_for_named(h.m, &a, &after, &h.refusal), 0);
        host_task(&h, "q", after);
        until(&h, has_pushed, 0);
        for (int restarted = 0; restarted < 2; restarted++) {
                ck_assert_uint_eq(task_of_q(&h, DEEP + 1)->task.wait, TASK_WAIT_AFTER);
                durable_restart(&h);
        }
        TaskRecord *target = task_of_q(&h, DEEP);
        ck_assert(!window_has(target));
        ck_assert_int_eq(manager_cancel(h.m, target, false, 0, 0), 0);
        until(&h, is_settled, 0);
        ck_assert_state(task_of_q(&h, DEEP + 1), CANCELED);
        queue_resume(q());
        end_all_but(1, DEEP - 1, 0);
        nothing_is_left();
        eq_buffer_done(&ids);
        durable_done(&h);
}

TEST(while_the_disk_is_waited_for_the_reason_says_so) {
        const Task *next, *by;
        begin();
        durable_restart(&h);
        ck_assert_int_eq(queue_head_reason(q(), &next, &by), EQ_REASON_PAUSED);
        queue_resume(q()); /* the loop has not turned */
        QueueView v = QUEUE_VIEW_NULL;
        ck_assert_int_eq(queue_head_reason(q(), &next, &by), EQ_REASON_PERSIST);
        ck_assert_ptr_null(next);
        ck_assert_int_eq(view_queue(h.m, durable_q(&h), &v), 0);
        ck_assert_ptr_nonnull(memmem(v.row.detail.data, v.row.detail.len, "is being read from the store", 28));
        queue_view_done(&v);
        const WatchPart *part = h.m->window.part;
        ck_assert_str_eq(WATCH_GET(part->name), "store reader");
        ck_assert_int_eq(part->reason, EQ_REASON_PERSIST);
        ck_assert_uint_eq(WATCH_GET(part->n_asked), WATCH_GET(part->n_answered) + 1);
        end_all_but(1, DEEP, 0);
        ck_assert_uint_eq(WATCH_GET(part->n_asked), WATCH_GET(part->n_answered));
        nothing_is_left();
        durable_done(&h);
}

/* ---- damage ---- */

/* Spoils a byte of the body of that task's record, wherever it is. */
static void spoil(uint64_t seq) {
        DIR *dir = opendir(store_dir);
        ck_assert_ptr_nonnull(dir);
        unsigned n = 0;
        for (struct dirent *e; (e = readdir(dir));) {
                if (strncmp(e->d_name, "log-", 4) != 0)
                        continue;
                int fd = openat(dirfd(dir), e->d_name, O_RDWR);
                ck_assert_int_ge(fd, 0);
                char header[32];
                for (off_t at = 64; pread(fd, header, 32, at) == 32; at += 8) {
                        uint64_t got;
                        memcpy(&got, header + 24, sizeof(got));
                        if (header[12] != STORE_TASK || got != seq || header[15] != 0)
                                continue;
                        char byte;
                        ck_assert_int_eq(pread(fd, &byte, 1, at + 32 + 13), 1);
                        byte ^= 1;
                        ck_assert_int_eq(pwrite(fd, &byte, 1, at + 32 + 13), 1);
                        n++;
                }
                close(fd);
        }
        closedir(dir);
        ck_assert_uint_eq(n, 1);
}

TEST(one_that_cannot_be_read_fails_as_lost_and_stops_nobody) {
        TaskRecord *t;
        begin();
        spoil(DEEP - 500); /* found by who asks for it */
        ck_assert_int_eq(find(anna(&h), DEEP - 500, &t), MANAGER_E_READ);
        until(&h, has_told, h.refusal.ticket);
        ck_assert_int_eq(find(anna(&h), DEEP - 500, &t), 0);
        spoil(DEEP - 400); /* and when its turn comes */
        queue_resume(q());
        for (uint64_t seq = 1; seq <= DEEP; seq++)
                if (seq != DEEP - 500 && seq != DEEP - 400)
                        ck_assert_uint_eq(end_one(), seq);
        nothing_is_left();
        for (int restarted = 0; restarted < 2; restarted++) {
                for (uint64_t seq = DEEP - 500; seq <= DEEP - 400; seq += 100) {
                        TaskView v;
                        t = task_of_q(&h, seq);
                        ck_assert_state(t, FAILED);
                        ck_assert_uint_eq(t->end_reason, EQ_REASON_LOST);
                        ck_assert_uint_eq(t->task.attempt, 0);
                        ck_assert_uint_eq(t->spec.identity->uid, 1001);
                        ck_assert_int_eq(manager_retry(h.m, t, false), 1);
                        view_task(h.m, t, &v);
                        ck_assert_ptr_nonnull(memmem(v.row.detail.data, v.row.detail.len, "is damaged", 10));
                }
                durable_restart(&h); /* as it ended, it is there again */
        }
        durable_done(&h);
}

/* ---- lists ---- */

typedef struct Rows {
        uint64_t n, limit;
        WindowPeek *peek;
        bool done;
} Rows;

static bool count(void *userdata, const TaskRecord *t) {
        Rows *r = userdata;
        ck_assert_uint_eq(task_record_id(t).seq, ++r->n);
        ck_assert_state(t, QUEUED);
        ck_assert_uint_eq(t->spec.identity->uid, 1001);
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        ck_assert_uint_eq(s.argv.n, 1);
        return r->n < r->limit;
}

static void on_peeked(WindowPeek *p) {
        ((Rows *)p->owner)->done = true;
}

static bool is_peeked(const Host *host, uint64_t rows) {
        return ((Rows *)(uintptr_t)rows)->done;
}

static Rows list_all(Caller c, uint64_t limit) {
        Rows r = { .limit = limit };
        EqList all = { 0 };
        ListFilter f = { .args = &all, .queue = durable_q(&h) };
        for (;;) {
                WindowPeek *unread;
                f.peek = r.peek;
                ck_assert_int_eq(view_list(h.m, &c, &f, count, &r, &unread), 0);
                window_peek_free(r.peek);
                r.peek = unread;
                if (!unread)
                        return r;
                unread->owner = &r;
                unread->done = on_peeked;
                r.done = false;
                window_peek(h.m, unread);
                until(&h, is_peeked, (uintptr_t)&r);
        }
}

TEST(lists_show_what_is_in_the_store_and_leave_it_there) {
        begin();
        for (int restarted = 0; restarted < 2; restarted++) {
                ck_assert_uint_eq(list_all(anna(&h), UINT64_MAX).n, DEEP);
                ck_assert_uint_eq(list_all(anna(&h), DEEP - 7).n, DEEP - 7);
                ck_assert_uint_eq(list_all(bob(&h), UINT64_MAX).n, 0);
                ck_assert_uint_eq(q()->n_shelved, DEEP - QUEUE_FRONT);
                durable_restart(&h);
                until(&h, has_front, QUEUE_FRONT);
        }
        durable_done(&h);
}

TEST(who_no_longer_wants_a_list_is_not_told) {
        begin();
        WindowPeek *p = window_peek_new(durable_q(&h));
        ck_assert(window_peek_add(p, DEEP));
        window_peek(h.m, p); /* without an owner: it frees itself, which the sanitizer sees */
        (void)fetch(DEEP);
        durable_done(&h);
}

/* ---- queues ---- */

static bool is_removed(const Host *host, uint64_t unused) {
        timers_run(&host->m->timers);
        return called;
}

TEST(a_queue_that_is_removed_gives_up_what_is_in_the_store) {
        RemoveWaiter w = { .done = on_removed };
        begin();
        h.m->want_events = true;
        list_init(&w.link);
        called = false;
        ck_assert_int_eq(manager_queue_rm(h.m, durable_q(&h), true, &w, &h.refusal), 0);
        until(&h, is_removed, 0);
        ck_assert_ptr_null(durable_q(&h));
        ck_assert_uint_eq(h.m->n_pending, 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASK_BYTES], 0);
        ck_assert_uint_ge(h.n_events, DEEP); /* each one's end was told */
        durable_restart(&h);
        ck_assert_ptr_null(durable_q(&h));
        durable_done(&h);
}

TEST(without_memory_what_waits_goes_on_later) {
        begin();
        durable_restart(&h);
        queue_resume(q());
        fault_set(FAULT_ALLOC, 1, true);
        for (int i = 0; i < 3; i++)
                uv_run(&h.loop, UV_RUN_NOWAIT);
        fault_set(FAULT_ALLOC, 0, false);
        host_advance(&h, USEC_PER_SEC);
        for (uint64_t seq = 1; seq <= DEEP; seq++) {
                ck_assert_uint_eq(end_one(), seq);
                if (seq % 500 == 0) { /* now and then one allocation fails, wherever that is */
                        fault_set(FAULT_ALLOC, (long)(seq % 7 + 1), false);
                        for (int i = 0; i < 3; i++)
                                uv_run(&h.loop, UV_RUN_NOWAIT);
                        fault_set(FAULT_ALLOC, 0, false);
                        host_advance(&h, USEC_PER_SEC);
                }
        }
        nothing_is_left();
        durable_done(&h);
}

/* ---- large ones ---- */

static void submit_large(size_t n_bytes) {
        static char bytes[512 * 1024];
        Caller c = anna(&h);
        eq_task_id id;
        TaskRecord *t;
        EqSubmit s = { 0 };
        EQ_SET(&s, Submit, queue, eq_str("w"));
        EQ_SET(&s, Submit, payload, eq_bytes(bytes, n_bytes));
        SubmitArgs args = { .submit = &s, .payload = s.payload, .stdin_fd = -1 };
        ck_assert_int_eq(manager_submit(h.m, &c, s.queue, &args, 1, &t, &id, &h.refusal), 0);
}

static bool all_arrived(const Host *host, uint64_t n) {
        return manager_queue(host->m, eq_str("w"))->queue->n_accepted >= n;
}

static void default_segments(Config *c) {
        c->daemon.segment_size = 0;
}

TEST(the_front_of_large_tasks_is_short_and_read_again_as_such) {
        static const char *const attributes[] = { "executor=worker", NULL };
        enum { N = 60, LARGE = 512 * 1024 };
        strcpy(store_dir, "/tmp/eqd-store-host.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(store_dir));
        host_init_from(&h, default_segments, store_dir, -1);
        host_queue(&h, "w", attributes);
        for (int i = 0; i < N; i++)
                submit_large(LARGE);
        until(&h, all_arrived, N);
        const Queue *w = manager_queue(h.m, eq_str("w"))->queue;
        ck_assert_uint_eq(w->n_shelved, N - QUEUE_FRONT_MIN);
        ck_assert_uint_eq(w->n_bytes, (uint64_t)N * LARGE);
        host_done(&h);
        host_init_from(&h, default_segments, store_dir, -1);
        w = manager_queue(h.m, eq_str("w"))->queue;
        ck_assert_uint_eq(w->n_shelved, N);
        ck_assert_uint_eq(w->n_bytes, (uint64_t)N * LARGE);
        StoreStats stats;
        store_stats(durable_store(h.m), &stats);
        ck_assert_uint_lt(stats.open_bytes, N * 100);
        durable_done(&h);
}

RUN_TESTS("window", 120, test_a_deep_queue_runs_in_order_while_more_comes,
          test_a_start_reads_no_task_and_runs_all_of_them_in_order,
          test_one_in_the_store_is_found_canceled_and_held_as_any_other,
          test_what_cannot_be_there_keeps_its_place_behind_what_is,
          test_what_fails_is_tried_again_at_its_place_also_after_a_restart,
          test_a_flush_waits_for_what_is_in_the_store_and_for_nothing_behind_it,
          test_the_oldest_makes_room_also_when_nothing_was_read_yet, test_edges_to_what_is_in_the_store_are_tied_again,
          test_while_the_disk_is_waited_for_the_reason_says_so,
          test_one_that_cannot_be_read_fails_as_lost_and_stops_nobody,
          test_lists_show_what_is_in_the_store_and_leave_it_there, test_who_no_longer_wants_a_list_is_not_told,
          test_a_queue_that_is_removed_gives_up_what_is_in_the_store, test_without_memory_what_waits_goes_on_later,
          test_the_front_of_large_tasks_is_short_and_read_again_as_such)
