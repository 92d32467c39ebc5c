/* SPDX-License-Identifier: MIT */
/* From one manager to the next through what manager_keep() writes. */
#include "manager/snapshot.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "manager-host.h"
#include "manager/removal.h"

static Host h;

static void restart(void) {
        int fd = host_keep(&h);
        host_init_from(&h, NULL, NULL, fd);
        close_fd(fd);
        for (QueueRecord *q = h.m->queues; q;
             q = q->hh.next) /* nothing is lost and nothing charged that is not there */
                ck_assert_uint_eq(q->queue->n_reserved, 0);
}

static QueueRecord *queue(const char *name) {
        QueueRecord *q = manager_queue(h.m, eq_str(name));
        ck_assert_msg(q != NULL, "queue %s is not there", name);
        return q;
}

static TaskRecord *task(const char *name, uint64_t seq) {
        TaskRecord *t = seq_index_get(&queue(name)->tasks, seq);
        ck_assert_msg(t != NULL, "task %s/%llu is not there", name, (unsigned long long)seq);
        return t;
}

static EqSubmit with_after(EqSubmit s, int member, TaskRecord *target) {
        static char raw[3][32];
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        eq_pack_id(&pk, task_record_id(target));
        memcpy(raw[member], b.data, b.len);
        EqArray a = { .raw = eq_bytes(raw[member], b.len), .n = 1 };
        eq_buffer_done(&b);
        if (member == 0)
                EQ_SET(&s, Submit, after_ok, a);
        else if (member == 1)
                EQ_SET(&s, Submit, after_any, a);
        else
                EQ_SET(&s, Submit, after_fail, a);
        return s;
}

TEST(queues_keep_id_attributes_pauses_and_numbers) {
        host_init(&h);
        const char *set[] = { "max_active=3", "description=it's here", NULL };
        QueueRecord *q = host_queue(&h, "q", set);
        uint64_t id = q->queue->id;
        host_end(&h, host_task(&h, "q", (EqSubmit) { 0 }), TASK_OK);
        queue_pause(q->queue);
        queue_pause(q->queue);
        host_queue(&h, "stopping", NULL);
        manager_queue_stop(queue("stopping"));
        restart();
        q = queue("q");
        ck_assert_uint_eq(q->queue->id, id);
        ck_assert_ptr_eq(engine_queue(&h.m->engine, id), q->queue);
        ck_assert_uint_eq(q->queue->params.max_active, 3);
        ck_assert_str_eq(q->attributes.description, "it's here");
        ck_assert_uint_eq(q->queue->pauses, 2);
        ck_assert_uint_eq(q->queue->last_seq, 1);
        ck_assert_int_eq(q->origin, QUEUE_FROM_CLIENT);
        ck_assert(queue("stopping")->queue->stopped);
        queue_resume(q->queue);
        queue_resume(q->queue);
        ck_assert_uint_eq(host_task(&h, "q", (EqSubmit) { 0 })->task.seq, 2);
        host_end(&h, task("q", 2), TASK_OK);
        host_done(&h);
}

/* It was shown as stopped as soon as eqd was back, with its tasks still to come. */
TEST(a_stopped_queue_is_through_when_it_has_run_what_it_had) {
        host_init(&h);
        (void)host_queue(&h, "q", NULL);
        queue_pause(queue("q")->queue);
        (void)host_task(&h, "q", (EqSubmit) { 0 });
        manager_queue_stop(queue("q"));
        restart();
        ck_assert_str_eq(queue_state_name(queue("q")->queue), "stopping");
        (void)queue_resume(queue("q")->queue);
        host_end(&h, task("q", 1), TASK_OK);
        ck_assert_str_eq(queue_state_name(queue("q")->queue), "stopped");
        host_done(&h);
}

TEST(what_waits_starts_in_its_old_order) {
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        queue_pause(q->queue);
        EqSubmit urgent = { 0 };
        EQ_SET(&urgent, Submit, urgent, true);
        for (int i = 0; i < 6; i++)
                host_task(&h, "q", i == 3 ? urgent : (EqSubmit) { 0 });
        restart();
        ck_assert_uint_eq(h.m->n_pending, 6);
        queue_resume(queue("q")->queue);
        static const uint64_t order[] = { 4, 1, 2, 3, 5, 6 };
        for (size_t i = 0; i < ELEMENTSOF(order); i++) {
                TaskRecord *t = task("q", order[i]);
                ck_assert_state(t, RUNNING);
                ck_assert_uint_eq(t->task.attempt, 1);
                host_end(&h, t, TASK_OK);
                ck_assert_state(t, DONE);
        }
        ck_assert_uint_eq(h.m->n_pending, 0);
        host_done(&h);
}

TEST(what_ran_runs_again_at_its_place_with_its_attempt_counted) {
        host_init(&h);
        host_queue(&h, "q", NULL);
        host_task(&h, "q", (EqSubmit) { 0 });
        host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_state(task("q", 1), RUNNING);
        restart();
        ck_assert_state(task("q", 1), RUNNING);
        ck_assert_uint_eq(task("q", 1)->task.attempt, 2);
        ck_assert_state(task("q", 2), QUEUED);
        host_end(&h, task("q", 1), TASK_OK);
        host_end(&h, task("q", 2), TASK_OK);
        host_done(&h);
}

TEST(without_keeping_what_ran_is_canceled) {
        host_init(&h);
        TaskRecord *t = host_task(&h, "default", (EqSubmit) { 0 });
        manager_stop(h.m, false, host_stopped);
        host_end(&h, t, TASK_STOPPED);
        ck_assert_state(t, CANCELED);
        host_advance(&h, 0);
        ck_assert(h.stopped);
        host_done(&h);
}

TEST(what_is_not_eligible_stays_so_until_its_time) {
        host_init(&h);
        const char *set[] = { "max_active=10", "retries=3", "backoff=100s", NULL };
        host_queue(&h, "q", set);
        EqSubmit held = { 0 }, later = { 0 }, expires = { 0 };
        EQ_SET(&held, Submit, hold, true);
        EQ_SET(&later, Submit, delay_usec, 50 * USEC_PER_SEC);
        EQ_SET(&expires, Submit, hold, true);
        EQ_SET(&expires, Submit, expire_usec, 60 * USEC_PER_SEC);
        host_task(&h, "q", held);
        host_task(&h, "q", later);
        host_task(&h, "q", expires);
        TaskRecord *retried = host_task(&h, "q", (EqSubmit) { 0 });
        host_end(&h, retried, TASK_CRASHED);
        ck_assert_state(retried, WAITING);
        host_advance(&h, 20 * USEC_PER_SEC);
        restart(); /* with the wall clock back at its start */
        ck_assert_uint_eq(h.m->commands->n_running, 0);
        ck_assert_uint_eq(task("q", 4)->crashes, 1);
        ck_assert_uint_eq(task("q", 4)->retries, 3);
        host_advance(&h, 49 * USEC_PER_SEC);
        ck_assert_state(task("q", 2), WAITING);
        host_advance(&h, 1 * USEC_PER_SEC);
        ck_assert_state(task("q", 2), RUNNING);
        ck_assert_state(task("q", 3), WAITING);
        host_advance(&h, 10 * USEC_PER_SEC);
        ck_assert_state(task("q", 3), EXPIRED);
        ck_assert_state(task("q", 4), WAITING);
        host_advance(&h, 120 * USEC_PER_SEC);
        ck_assert_state(task("q", 4), RUNNING);
        ck_assert_uint_eq(task("q", 4)->task.attempt, 2);
        ck_assert_state(task("q", 1), WAITING);
        ck_assert_int_eq(manager_release(h.m, task("q", 1)), 0);
        ck_assert_state(task("q", 1), RUNNING);
        while (h.m->commands->n_running > 0)
                fake_end(h.m->commands, h.m->commands->running[0], TASK_OK, 0, 0);
        host_done(&h);
}

TEST(what_has_ended_can_be_looked_at_with_its_output) {
        host_init(&h);
        host_queue(&h, "q", NULL);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        ck_assert_int_eq(output_log_append(&t->run->log, EQ_STREAM_STDERR, "oh", 2), 0);
        host_end(&h, t, TASK_BAD);
        EqSubmit held = { 0 };
        EQ_SET(&held, Submit, hold, true);
        ck_assert_int_eq(manager_cancel(h.m, host_task(&h, "q", held), false, 0, 0), 0);
        uint64_t finished = t->finished_usec;
        restart();
        t = task("q", 1);
        ck_assert_state(t, FAILED);
        ck_assert_int_eq(t->run->exit, 1);
        ck_assert_uint_eq(t->finished_usec, finished);
        ck_assert_uint_eq(output_log_kept(&t->run->log, EQ_STREAM_STDERR), 2);
        ck_assert_uint_eq(output_log_written(&t->run->log, EQ_STREAM_STDERR), 2);
        ck_assert_state(task("q", 2), CANCELED);
        ck_assert_int_eq(task("q", 2)->end_note, TASK_NOTE_CANCELED);
        ck_assert_uint_eq(queue("q")->n_history, 2);
        ck_assert_int_eq(manager_retry(h.m, t, false), 0); /* and used again */
        ck_assert_state(t, RUNNING);
        ck_assert_uint_eq(t->task.attempt, 2);
        host_end(&h, t, TASK_OK);
        host_done(&h);
}

TEST(tasks_that_come_after_others_still_do) {
        host_init(&h);
        const char *set[] = { "max_active=10", NULL };
        QueueRecord *q = host_queue(&h, "q", set);
        EqSubmit held = { 0 };
        EQ_SET(&held, Submit, hold, true);
        TaskRecord *first = host_task(&h, "q", held), *bad = host_task(&h, "q", (EqSubmit) { 0 });
        queue_pause(q->queue);
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 0, first)); /* 3: goes on to wait */
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 1, bad));   /* 4 */
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 0, bad));   /* 5: never */
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 2, bad));   /* 6 */
        host_end(&h, bad, TASK_BAD);
        ck_assert_state(task("q", 5), CANCELED);
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 0, task("q", 6))); /* 7, 8: of one that has not ended */
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 2, task("q", 6)));
        restart();
        ck_assert_state(task("q", 3), WAITING);
        ck_assert_ptr_eq(deps_first(task("q", 3)), task("q", 1));
        queue_resume(queue("q")->queue);
        ck_assert_state(task("q", 4), RUNNING);
        ck_assert_state(task("q", 5), CANCELED);
        ck_assert_state(task("q", 6), RUNNING);
        ck_assert_state(task("q", 7), WAITING);
        host_end(&h, task("q", 6), TASK_OK);
        ck_assert_state(task("q", 7), RUNNING);
        ck_assert_state(task("q", 8), CANCELED);
        ck_assert_int_eq(manager_cancel(h.m, task("q", 1), false, 0, 0), 0);
        ck_assert_state(task("q", 3), CANCELED);
        while (h.m->commands->n_running > 0)
                fake_end(h.m->commands, h.m->commands->running[0], TASK_OK, 0, 0);
        host_done(&h);
}

TEST(a_dependency_whose_history_is_gone_holds_nobody) {
        host_init(&h);
        const char *set[] = { "history=1", "max_active=10", NULL };
        QueueRecord *q = host_queue(&h, "q", set);
        TaskRecord *first = host_task(&h, "q", (EqSubmit) { 0 });
        queue_pause(q->queue);
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 1, first));
        host_end(&h, first, TASK_OK);
        queue_resume(q->queue);
        host_end(&h, task("q", 2), TASK_BAD); /* pushes the first out of the history */
        ck_assert_ptr_null(seq_index_get(&q->tasks, 1));
        ck_assert_int_eq(manager_hold(h.m, task("q", 2)), 1);
        queue_pause(q->queue);
        ck_assert_int_eq(manager_retry(h.m, task("q", 2), false), 0);
        restart();
        ck_assert_state(task("q", 2), QUEUED);
        host_done(&h);
}

TEST(a_task_whose_input_was_a_descriptor_is_lost_and_says_so) {
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        queue_pause(q->queue);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        t->has_fd = true;
        t->user->used[USER_DESCRIPTORS]++;
        restart();
        t = task("q", 1);
        ck_assert_state(t, FAILED);
        ck_assert_int_eq(t->end_reason, EQ_REASON_LOST);
        ck_assert_int_eq(t->end_note, TASK_NOTE_STDIN);
        host_done(&h);
}

TEST(a_removed_name_keeps_its_last_number_and_its_id_stays_stale) {
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        uint64_t id = q->queue->id;
        RemoveWaiter w = { .done = NULL };
        host_end(&h, host_task(&h, "q", (EqSubmit) { 0 }), TASK_OK);
        list_init(&w.link);
        list_append(&q->removers, &w.link);
        list_remove(&w.link);
        q->removing = true;
        queue_stop(q->queue);
        removal_settle(h.m, q);
        restart(); /* the removal was still under way */
        ck_assert_ptr_null(manager_queue(h.m, eq_str("q")));
        ck_assert_ptr_null(engine_queue(&h.m->engine, id));
        restart(); /* and now it is long gone */
        for (int i = 0; i < 40; i++) {
                char name[8];
                snprintf(name, sizeof(name), "n%d", i);
                ck_assert_uint_ne(host_queue(&h, name, NULL)->queue->id, id);
        }
        ck_assert_uint_eq(host_queue(&h, "q", NULL)->queue->last_seq, 1);
        host_done(&h);
}

TEST(users_are_charged_for_what_was_kept) {
        host_init(&h);
        queue_pause(host_queue(&h, "q", NULL)->queue);
        for (int i = 0; i < 3; i++)
                host_task(&h, "q", (EqSubmit) { 0 });
        uint64_t bytes = h.anna_user->used[USER_TASK_BYTES];
        restart();
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], 3);
        ck_assert_uint_eq(h.anna_user->used[USER_TASK_BYTES], bytes);
        ck_assert_ptr_eq(task("q", 1)->spec.identity, task("q", 3)->spec.identity);
        for (uint64_t i = 1; i <= 3; i++)
                ck_assert_int_eq(manager_cancel(h.m, task("q", i), false, 0, 0), 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASK_BYTES], 0);
        host_done(&h);
}

/* A file with something of everything. */
static int sample(void) {
        host_init(&h);
        QueueRecord *q = host_queue(&h, "q", NULL);
        host_end(&h, host_task(&h, "q", (EqSubmit) { 0 }), TASK_OK);
        queue_pause(q->queue);
        TaskRecord *t = host_task(&h, "q", (EqSubmit) { 0 });
        host_task(&h, "q", with_after((EqSubmit) { 0 }, 0, t));
        host_queue(&h, "empty", NULL);
        return host_keep(&h);
}

TEST(a_file_that_ends_early_gives_what_is_in_it) {
        int fd = sample();
        off_t size = lseek(fd, 0, SEEK_END);
        for (off_t n = 0; n < size; n += n < 32 ? 1 : 9) {
                int cut = memfd_create("cut", MFD_CLOEXEC);
                char *data = malloc((size_t)size);
                ck_assert_ptr_nonnull(data);
                ck_assert_int_eq(pread(fd, data, (size_t)size, 0), size);
                ck_assert_int_eq(write(cut, data, (size_t)n), n);
                free(data);
                host_init_from(&h, NULL, NULL, cut);
                ck_assert_ptr_nonnull(manager_queue(h.m, eq_str("default")));
                host_done(&h);
                close_fd(cut);
        }
        close_fd(fd);
}

TEST(whatever_byte_is_wrong_the_next_one_starts) {
        int fd = sample();
        off_t size = lseek(fd, 0, SEEK_END);
        for (off_t n = 0; n < size; n += n < 32 ? 1 : 7) {
                unsigned char was, is;
                ck_assert_int_eq(pread(fd, &was, 1, n), 1);
                is = (unsigned char)(was ^ (1U << (n % 8)));
                ck_assert_int_eq(pwrite(fd, &is, 1, n), 1);
                host_init_from(&h, NULL, NULL, fd);
                host_done(&h);
                ck_assert_int_eq(pwrite(fd, &was, 1, n), 1);
        }
        close_fd(fd);
}

TEST(without_memory_nothing_starts_and_nothing_leaks) {
        int fd = sample();
        bool started = false;
        for (long nth = 1; !started; nth++) {
                Config *config;
                char error[PARAM_ERROR_MAX];
                Host host = { 0 };
                ck_assert_int_eq(uv_loop_init(&host.loop), 0);
                fake_clock_init(&host.clock, 1000 * USEC_PER_SEC, UINT64_C(1700000000) * USEC_PER_SEC);
                ck_assert_int_eq(config_load("/nonexistent", false, &config, error, sizeof(error)), 0);
                ManagerConfig mc = {
                        .loop = &host.loop, .clock = &host.clock.clock, .config_dir = "/nonexistent", .config = config
                };
                ck_assert_int_eq(manager_new(&mc, &host_hooks, &host, &host.m), 0);
                fault_set(FAULT_ALLOC, nth, false);
                int r = manager_start(host.m, NULL, fd);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert(r == 0 || r == -ENOMEM);
                QueueRecord *q = manager_queue(host.m, eq_str("q"));
                started = r == 0 && q && seq_index_get(&q->tasks, 3) && manager_queue(host.m, eq_str("empty"));
                ck_assert_int_lt(nth, 500);
                manager_free(host.m);
                ck_assert_int_eq(uv_run(&host.loop, UV_RUN_DEFAULT), 0);
                ck_assert_int_eq(uv_loop_close(&host.loop), 0);
        }
        uv_library_shutdown();
        close_fd(fd);
}

RUN_TESTS("snapshot", 60, test_queues_keep_id_attributes_pauses_and_numbers,
          test_a_stopped_queue_is_through_when_it_has_run_what_it_had, test_what_waits_starts_in_its_old_order,
          test_what_ran_runs_again_at_its_place_with_its_attempt_counted, test_without_keeping_what_ran_is_canceled,
          test_what_is_not_eligible_stays_so_until_its_time, test_what_has_ended_can_be_looked_at_with_its_output,
          test_tasks_that_come_after_others_still_do, test_a_dependency_whose_history_is_gone_holds_nobody,
          test_a_task_whose_input_was_a_descriptor_is_lost_and_says_so,
          test_a_removed_name_keeps_its_last_number_and_its_id_stays_stale, test_users_are_charged_for_what_was_kept,
          test_a_file_that_ends_early_gives_what_is_in_it, test_whatever_byte_is_wrong_the_next_one_starts,
          test_without_memory_nothing_starts_and_nothing_leaks)
