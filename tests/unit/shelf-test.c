/* SPDX-License-Identifier: MIT */
/* Long queues: what waits on the shelf is to everybody a task as any other. */
#include "manager/shelf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "deep.h"

static void on_stopped(void *host) {
        called = true;
}

static QueueRecord *queue(const char *name) {
        return manager_queue(h.m, eq_str(name));
}

static QueueRecord *begin(void) {
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        queue_pause(q->queue);
        submit_plain("q", DEEP);
        expect_deep(q->queue);
        return q;
}

static void nothing_is_left(const QueueRecord *q) {
        ck_assert_uint_eq(end_one(), 0);
        ck_assert(queue_is_empty(q->queue));
        ck_assert_ptr_null(q->shelf);
        expect_empty(q->queue);
}

static TaskRecord *find(uint64_t seq) {
        Caller a = anna(&h);
        EqIdRef id = { .id = { .queue = queue("q")->queue->id, .seq = seq } };
        TaskRecord *t;
        int r = manager_find_task(h.m, &a, &id, &t, &h.refusal);
        ck_assert_msg(r == 0, "%s", h.refusal.text);
        return t;
}

TEST(a_deep_queue_runs_in_order_while_more_comes) {
        QueueRecord *q = begin();
        queue_resume(q->queue);
        end_all_but(1, QUEUE_FRONT, 0);
        submit_plain("q", 100);
        end_all_but(QUEUE_FRONT + 1, DEEP + 100, 0);
        nothing_is_left(q);
        host_done(&h);
}

TEST(one_of_the_shelf_is_found_and_canceled_as_any_other) {
        QueueRecord *q = begin();
        TaskRecord *t = find(DEEP - 10);
        ck_assert_state(t, QUEUED);
        ck_assert_uint_eq(q->queue->n_queued, DEEP);
        ck_assert_uint_eq(q->queue->n_shelved, DEEP - QUEUE_FRONT - 1);
        ck_assert_int_eq(manager_cancel(h.m, t, false, 0, 0), 0);
        ck_assert_state(find(DEEP - 10), CANCELED);
        ck_assert_state(find(QUEUE_FRONT + 1), QUEUED); /* and the first of the shelf */
        queue_resume(q->queue);
        end_all_but(1, DEEP, DEEP - 10);
        nothing_is_left(q);
        host_done(&h);
}

TEST(what_cannot_be_shelved_keeps_its_place_behind_what_is) {
        QueueRecord *q = begin();
        EqSubmit expiring = { 0 }, urgent = { 0 }, held = { 0 };
        EQ_SET(&expiring, Submit, expire_usec, USEC_PER_SEC);
        EQ_SET(&urgent, Submit, urgent, true);
        EQ_SET(&held, Submit, hold, true);
        for (unsigned i = 0; i < QUEUE_FRONT + 10; i++)
                host_task(&h, "q", expiring);
        TaskRecord *first = host_task(&h, "q", urgent), *last = host_task(&h, "q", held);
        submit_plain("q", 10);
        queue_resume(q->queue);
        ck_assert_uint_eq(end_one(), first->task.seq);
        end_all_but(1, DEEP + QUEUE_FRONT + 10, 0);
        ck_assert_int_eq(manager_release(h.m, last), 0);
        end_all_but(last->task.seq + 1, last->task.seq + 1, 0); /* which had begun */
        ck_assert_uint_eq(end_one(), last->task.seq);
        end_all_but(last->task.seq + 2, last->task.seq + 10, 0);
        nothing_is_left(q);
        host_done(&h);
}

TEST(a_held_one_that_is_released_passes_none_of_the_shelf) {
        QueueRecord *q = begin();
        TaskRecord *t = find(DEEP - 5);
        ck_assert_int_eq(manager_hold(h.m, t), 0);
        ck_assert_state(t, WAITING);
        ck_assert_int_eq(manager_release(h.m, t), 0);
        queue_resume(q->queue);
        end_all_but(1, DEEP, 0);
        nothing_is_left(q);
        host_done(&h);
}

TEST(a_flush_waits_for_what_is_on_the_shelf_and_for_nothing_behind_it) {
        QueueRecord *q = begin();
        QueueWaiter w = { .done = on_done };
        called = false;
        queue_flush(q->queue, &w);
        submit_plain("q", 10);
        queue_resume(q->queue);
        end_all_but(1, DEEP - 1, 0);
        ck_assert(!called);
        ck_assert_uint_eq(end_one(), DEEP);
        ck_assert(called);
        end_all_but(DEEP + 1, DEEP + 10, 0);
        nothing_is_left(q);
        host_done(&h);
}

TEST(a_task_over_two_deep_queues_starts_when_both_have_come_to_it) {
        QueueRecord *q = begin(), *r = host_queue(&h, "r", NULL);
        queue_pause(r->queue);
        submit_plain("r", DEEP);
        EqSubmit both = { 0 };
        EQ_SET(&both, Submit, also, (EqArray) { .raw = eq_bytes("\xa1r", 2), .n = 1 });
        TaskRecord *t = host_task(&h, "q", both);
        submit_plain("q", 10);
        submit_plain("r", 10);
        queue_resume(q->queue);
        end_all_but(1, DEEP, 0);
        ck_assert_uint_eq(h.m->commands->n_running, 0);
        queue_resume(r->queue);
        end_all_but(1, DEEP, 0);
        ck_assert_uint_eq(h.m->commands->n_running, 1);
        ck_assert_ptr_eq(h.m->commands->running[0], &t->task);
        host_end(&h, t, TASK_OK);
        ck_assert_uint_eq(h.m->commands->n_running, 2);
        for (unsigned i = 0; i < 20; i++)
                host_end(&h, task_record(h.m->commands->running[0]), TASK_OK);
        nothing_is_left(q);
        nothing_is_left(r);
        host_done(&h);
}

TEST(the_oldest_makes_room_and_the_front_fills_up_again) {
        QueueRecord *q = begin();
        q->queue->params.max_tasks = DEEP;
        q->queue->params.on_full = QUEUE_FULL_DROP_OLDEST;
        submit_plain("q", DEEP);
        queue_resume(q->queue);
        end_all_but(DEEP + 1, 2 * DEEP, 0);
        nothing_is_left(q);
        host_done(&h);
}

static bool count(void *userdata, const TaskRecord *t) {
        uint64_t *n = userdata;
        ck_assert_uint_eq(task_record_id(t).seq, ++*n);
        ck_assert_state(t, QUEUED);
        ck_assert_uint_eq(t->spec.identity->uid, 1001);
        return true;
}

TEST(lists_show_the_shelf_and_leave_it_as_it_is) {
        QueueRecord *q = begin();
        uint64_t n = 0;
        Caller a = anna(&h);
        EqList all = { 0 };
        ListFilter f = { .args = &all, .queue = q };
        WindowPeek *unread;
        ck_assert_int_eq(view_list(h.m, &a, &f, count, &n, &unread), 0);
        ck_assert_ptr_null(unread);
        ck_assert_uint_eq(n, DEEP);
        ck_assert_uint_eq(q->queue->n_shelved, DEEP - QUEUE_FRONT);
        host_done(&h); /* with all that is pending */
}

TEST(a_queue_that_is_removed_gives_the_shelf_up) {
        QueueRecord *q = begin();
        RemoveWaiter w = { .done = on_removed };
        list_init(&w.link);
        called = false;
        ck_assert_int_eq(manager_queue_rm(h.m, q, true, &w, &h.refusal), 0);
        host_advance(&h, 1);
        ck_assert(called);
        ck_assert_ptr_null(queue("q"));
        ck_assert_uint_eq(h.m->n_pending, 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], 0);
        host_done(&h);
}

TEST(a_restart_keeps_what_is_on_the_shelf) {
        int fd = memfd_create("shelf-test", MFD_CLOEXEC);
        begin();
        manager_stop(h.m, true, on_stopped);
        host_advance(&h, 0);
        ck_assert_int_eq(manager_keep(h.m, fd), 0);
        host_done(&h);
        host_init_from(&h, NULL, NULL, fd);
        close_fd(fd);
        QueueRecord *q = queue("q");
        ck_assert_uint_eq(q->queue->n_queued, DEEP);
        queue_resume(q->queue);
        end_all_but(1, DEEP, 0);
        ck_assert(queue_is_empty(q->queue));
        ck_assert_uint_eq(h.m->n_pending, 0);
        host_done(&h);
}

TEST(without_memory_nothing_is_accepted_and_what_waits_goes_on_later) {
        QueueRecord *q = begin();
        TaskRecord *t;
        fault_set(FAULT_ALLOC, 1, true);
        unsigned n = 0;
        while (host_submit(&h, anna(&h), "q", (EqSubmit) { 0 }, &t) == 0)
                n++; /* the chunk and the page of the index that there are have room for some */
        ck_assert_int_eq(h.refusal.code, EQ_E_NO_MEMORY);
        ck_assert_uint_eq(h.m->n_pending, DEEP + n);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], DEEP + n);
        ck_assert_uint_eq(q->queue->n_reserved, 0);
        fault_set(FAULT_ALLOC, 0, false);
        queue_resume(q->queue);
        uint64_t last = q->queue->last_seq, seq = 1;
        fault_set(FAULT_ALLOC, 1, true);
        for (; seq <= QUEUE_FRONT && h.m->commands->n_running == 1; seq++)
                ck_assert_uint_eq(end_one(), seq);
        ck_assert_uint_eq(h.m->commands->n_running, 0);
        fault_set(FAULT_ALLOC, 0, false);
        host_advance(&h, USEC_PER_SEC);
        for (uint64_t before = seq - 1, got; (got = end_one()); before = got) {
                ck_assert_uint_gt(got, before);
                seq = got;
        }
        ck_assert_uint_le(seq, last);
        host_advance(&h, USEC_PER_SEC);
        ck_assert_uint_eq(q->queue->n_shelved, 0);
        ck_assert_uint_eq(h.m->n_pending, 0);
        host_done(&h);
}

RUN_TESTS("shelf", 60, test_a_deep_queue_runs_in_order_while_more_comes,
          test_one_of_the_shelf_is_found_and_canceled_as_any_other,
          test_what_cannot_be_shelved_keeps_its_place_behind_what_is,
          test_a_held_one_that_is_released_passes_none_of_the_shelf,
          test_a_flush_waits_for_what_is_on_the_shelf_and_for_nothing_behind_it,
          test_a_task_over_two_deep_queues_starts_when_both_have_come_to_it,
          test_the_oldest_makes_room_and_the_front_fills_up_again, test_lists_show_the_shelf_and_leave_it_as_it_is,
          test_a_queue_that_is_removed_gives_the_shelf_up, test_a_restart_keeps_what_is_on_the_shelf,
          test_without_memory_nothing_is_accepted_and_what_waits_goes_on_later)
