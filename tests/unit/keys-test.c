/* SPDX-License-Identifier: MIT */
/* Idempotency keys through a manager: in memory, over a restart by snapshot, and in a store. */
#include "manager/keys.h"

#include "store-host.h"

static Host h;
typedef struct Keyed {
        const char *key, *on_dup;
        bool hold, known;
        uint64_t seq;
} Keyed;

/* What manager_submit() says of n tasks of caller c. known, seq: as it says. */
static int submit(Caller c, const char *queue, Keyed *tasks, size_t n) {
        static char argv[] = "\xa9/bin/true";
        EqSubmit submits[4] = { 0 };
        EqBuffer options[4] = { 0 };
        SubmitArgs args[4] = { 0 };
        TaskRecord *last;
        eq_task_id first;
        ck_assert_uint_le(n, 4);
        for (size_t i = 0; i < n; i++) {
                EqSubmit *s = &submits[i];
                EQ_SET(s, Submit, argv, (EqArray) { .raw = eq_bytes(argv, 10), .n = 1 });
                if (tasks[i].key)
                        EQ_SET(s, Submit, unique, eq_str(tasks[i].key));
                if (tasks[i].on_dup)
                        EQ_SET(s, Submit, on_dup, eq_str(tasks[i].on_dup));
                if (tasks[i].hold)
                        EQ_SET(s, Submit, hold, true);
                msgpack_packer pk = eq_packer(&options[i]);
                eq_pack_record(&pk, &eq_schema_Submit, s);
                args[i] = (SubmitArgs) { .submit = s,
                                         .payload = s->payload,
                                         .options = eq_bytes(options[i].data, options[i].len),
                                         .stdin_fd = -1 };
        }
        int r = manager_submit(h.m, &c, eq_str(queue), args, n, &last, &first, &h.refusal);
        for (size_t i = 0; i < n; i++) {
                tasks[i].known = r == 0 && args[i].known;
                tasks[i].seq = r == 0 ? args[i].seq : 0;
                ck_assert(r == 0 || (!args[i].known && !args[i].key)); /* nothing is left of it */
                eq_buffer_done(&options[i]);
        }
        if (r == 0)
                ck_assert_uint_eq(first.seq, tasks[0].seq);
        return r;
}

/* The SEQ that a submit answers with; *ret_known may be NULL. */
static uint64_t one(Caller c, const char *queue, const char *key, const char *on_dup, bool hold, bool *ret_known) {
        Keyed k = { .key = key, .on_dup = on_dup, .hold = hold };
        int r = submit(c, queue, &k, 1);
        ck_assert_msg(r == 0, "%s: %s", key, h.refusal.text);
        if (ret_known)
                *ret_known = k.known;
        return k.seq;
}

static void says(const char *key, const char *on_dup, const char *text, eq_error code) {
        Keyed k = { .key = key, .on_dup = on_dup };
        ck_assert_int_lt(submit(anna(&h), "q", &k, 1), 0);
        ck_assert_msg(strstr(h.refusal.text, text), "%s", h.refusal.text);
        ck_assert_int_eq(h.refusal.code, code);
}

static TaskRecord *task(uint64_t seq) {
        return task_of_q(&h, seq);
}

static void end(uint64_t seq) {
        ck_assert_state(task(seq), RUNNING);
        host_end(&h, task(seq), TASK_OK);
}

static QueueRecord *begin(const char *const *set) {
        host_init(&h);
        return host_queue(&h, "q", set);
}

/* ---- a submit ---- */

TEST(a_second_submit_with_a_key_answers_with_the_first_task_in_each_of_its_states) {
        begin(NULL);
        bool known;
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, true, &known), 1);
        ck_assert(!known);
        ck_assert_uint_eq(one(anna(&h), "q", "k", "skip", false, &known), 1);
        ck_assert(known);
        ck_assert_int_eq(manager_release(h.m, task(1)), 0);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, &known), 1);
        end(1);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, &known), 1);
        ck_assert(known);
        ck_assert_uint_eq(h.m->n_pending, 0);
        ck_assert_uint_eq(h.anna_user->used[USER_TASKS], 0);
        ck_assert_uint_eq(one(anna(&h), "q", "other", NULL, false, &known), 2);
        ck_assert(!known);
        end(2);
        host_done(&h);
}

TEST(keys_are_those_of_a_user_and_of_a_queue) {
        begin((const char *const[]) { "max_active=9", NULL });
        host_queue(&h, "r", NULL);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, NULL), 1);
        ck_assert_uint_eq(one(bob(&h), "q", "k", NULL, false, NULL), 2);
        ck_assert_uint_eq(one(anna(&h), "r", "k", NULL, false, NULL), 1);
        ck_assert_uint_eq(one(bob(&h), "q", "k", NULL, false, NULL), 2);
        host_done(&h);
}

TEST(error_refuses_and_names_the_task) {
        begin(NULL);
        one(anna(&h), "q", "k", "error", false, NULL);
        says("k", "error", "q/1 has that key (unique) and is RUNNING", EQ_E_DUPLICATE);
        end(1);
        says("k", "error", "q/1 has that key (unique) and is DONE", EQ_E_DUPLICATE);
        ck_assert_uint_eq(h.m->n_pending, 0);
        host_done(&h);
}

TEST(replace_cancels_what_has_not_begun_and_takes_its_key) {
        begin(NULL);
        one(anna(&h), "q", "k", NULL, true, NULL);
        bool known;
        ck_assert_uint_eq(one(anna(&h), "q", "k", "replace", true, &known), 2);
        ck_assert(!known);
        ck_assert_state(task(1), CANCELED);
        TaskView v;
        view_task(h.m, task(1), &v);
        ck_assert_msg(strstr(v.detail, "replaced by a newer task"), "%s", v.detail);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, NULL), 2);
        ck_assert_uint_eq(h.m->n_pending, 1);
        host_done(&h);
}

TEST(replace_lets_a_running_one_end_and_comes_after_it) {
        begin(NULL);
        one(anna(&h), "q", "k", NULL, false, NULL);
        ck_assert_uint_eq(one(anna(&h), "q", "k", "replace", false, NULL), 2);
        ck_assert_state(task(1), RUNNING);
        ck_assert_state(task(2), QUEUED);
        ck_assert_uint_eq(one(anna(&h), "q", "k", "replace", false, NULL),
                          3); /* of many that wait only the last is left */
        ck_assert_state(task(2), CANCELED);
        end(1);
        end(3);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, NULL), 3);
        ck_assert_uint_eq(one(anna(&h), "q", "k", "replace", false, NULL), 4); /* over one that has ended: a new task */
        end(4);
        host_done(&h);
}

TEST(bad_keys_and_modes_say_what_to_do) {
        begin(NULL);
        says("", NULL, "unique: a key has 1 to 256 bytes", EQ_E_INVALID);
        says("a\nb", NULL, "unique: not UTF-8, or with control characters", EQ_E_INVALID);
        says("\xff", NULL, "unique: not UTF-8", EQ_E_INVALID);
        says("k", "often", "on_dup: must be skip, replace or error", EQ_E_INVALID);
        says(NULL, "skip", "on_dup: only with unique", EQ_E_INVALID);
        EqSubmit s = { 0 };
        TaskRecord *t;
        EQ_SET(&s, Submit, unique, eq_str("k"));
        EQ_SET(&s, Submit, attach, true);
        ck_assert_int_lt(host_submit(&h, anna(&h), "q", s, &t), 0);
        ck_assert_ptr_nonnull(strstr(h.refusal.text, "attach: not with unique"));
        ck_assert_ptr_null(manager_queue(h.m, eq_str("q"))->keys);
        host_done(&h);
}

TEST(a_batch_mixes_new_and_known_tasks_and_is_all_or_none) {
        begin((const char *const[]) { "max_tasks=3", NULL });
        one(anna(&h), "q", "b", NULL, true, NULL);
        Keyed batch[] = { { "a", NULL, true }, { "b", NULL, true }, { NULL, NULL, true }, { "a", NULL, true } };
        ck_assert_int_eq(submit(anna(&h), "q", batch, 4), 0);
        static const uint64_t seqs[] = { 2, 1, 3, 2 };
        for (size_t i = 0; i < 4; i++) {
                ck_assert_uint_eq(batch[i].seq, seqs[i]);
                ck_assert_int_eq(batch[i].known, i == 1 || i == 3);
        }
        ck_assert_uint_eq(h.m->n_pending, 3);

        Keyed full[] = { { "c", NULL, true }, { "b", NULL, true } };
        ck_assert_int_lt(submit(anna(&h), "q", full, 2), 0); /* no room: nothing of it is known */
        ck_assert_int_eq(h.refusal.code, EQ_E_FULL);
        Keyed twice[] = { { "d", "replace", true }, { "d", "replace", true } };
        ck_assert_int_lt(submit(anna(&h), "q", twice, 2), 0);
        ck_assert_ptr_nonnull(strstr(h.refusal.text, "task 2: unique: another task of the batch"));
        Keyed refused[] = { { "e", NULL, true }, { "b", "error", true } };
        ck_assert_int_lt(submit(anna(&h), "q", refused, 2), 0);
        Keyed all_known[] = { { "a", NULL, true }, { "b", NULL, true } };
        ck_assert_int_eq(submit(anna(&h), "q", all_known, 2), 0); /* a full queue is no matter for these */
        ck_assert_int_eq(manager_cancel(h.m, task(3), false, 0, 0), 0);
        ck_assert_uint_eq(one(anna(&h), "q", "c", NULL, true, NULL), 4);
        host_done(&h);
}

static void a_submit_without_memory(int nth) {
        Keyed batch[] = { { "a", NULL, true }, { "b", "replace", true } };
        fault_set(FAULT_ALLOC, nth, false);
        int r = submit(anna(&h), "q", batch, 2);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert(r == 0 || h.refusal.code == EQ_E_NO_MEMORY);
        if (r == 0)
                return;
        ck_assert_uint_eq(one(anna(&h), "q", "b", NULL, true, NULL), 1);
        ck_assert_state(task(1), WAITING);
        ck_assert_uint_eq(h.m->n_pending, 1);
}

TEST(without_memory_nothing_is_claimed_and_nothing_is_replaced) {
        for (int nth = 1; nth < 12; nth++) {
                begin(NULL);
                one(anna(&h), "q", "b", NULL, true, NULL);
                a_submit_without_memory(nth);
                host_done(&h);
        }
}

/* ---- the window ---- */

TEST(keys_of_finished_tasks_are_known_for_a_number_of_tasks_and_for_a_time) {
        begin((const char *const[]) { "unique_window=2", "unique_age=1h", "history=1", NULL });
        const char *keys[] = { "a", "b", "c" };
        for (uint64_t i = 0; i < 3; i++) {
                one(anna(&h), "q", keys[i], NULL, false, NULL);
                end(i + 1);
        }
        ck_assert_ptr_null(task(2)); /* out of the history, and its key is known all the same */
        ck_assert_uint_eq(one(anna(&h), "q", "b", NULL, false, NULL), 2);
        ck_assert_uint_eq(one(anna(&h), "q", "c", NULL, false, NULL), 3);
        says("b", "error", "q/2 has that key (unique) and is finished", EQ_E_DUPLICATE);
        host_advance(&h, 3599 * USEC_PER_SEC);
        ck_assert_uint_eq(one(anna(&h), "q", "b", NULL, false, NULL), 2);
        host_advance(&h, 2 * USEC_PER_SEC);
        ck_assert_uint_eq(one(anna(&h), "q", "b", NULL, false, NULL), 4);
        end(4);
        ck_assert_uint_eq(one(anna(&h), "q", "c", NULL, false, NULL), 5);
        end(5);
        ck_assert_uint_eq(one(anna(&h), "q", "a", NULL, false, NULL), 6);
        end(6);
        host_done(&h);
}

TEST(with_no_window_only_tasks_that_have_not_finished_count) {
        QueueRecord *q = begin((const char *const[]) { "unique_window=0", NULL });
        one(anna(&h), "q", "k", NULL, false, NULL);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, NULL), 1);
        end(1);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, NULL), 2);
        end(2);
        ck_assert_ptr_null(q->keys);
        host_done(&h);
}

TEST(a_smaller_window_drops_keys_at_once_and_a_retried_task_has_its_key_again) {
        QueueRecord *q = begin((const char *const[]) { "history=9", NULL });
        Caller c = root(&h);
        for (uint64_t i = 1; i <= 2; i++) {
                one(anna(&h), "q", i == 1 ? "a" : "b", NULL, false, NULL);
                end(i);
        }
        ck_assert_int_eq(manager_retry(h.m, task(1), false), 0);
        static char set[] = "\xb0unique_window=01"; /* one string of an array */
        EqArray attributes = { .raw = eq_bytes(set, 17), .n = 1 };
        ck_assert_msg(manager_queue_set(h.m, &c, q, &attributes, &h.refusal) == 0, "%s", h.refusal.text);
        ck_assert_uint_eq(q->n_finished_keys, 1);
        end(1);
        ck_assert_uint_eq(one(anna(&h), "q", "a", NULL, false, NULL), 1);
        ck_assert_uint_eq(one(anna(&h), "q", "b", NULL, false, NULL), 3);
        host_done(&h);
}

TEST(a_claimed_key_survives_that_its_task_is_dropped_to_make_room) {
        begin((const char *const[]) { "max_tasks=1", "on_full=drop-oldest", "unique_window=0", "history=1", NULL });
        one(anna(&h), "q", "k", NULL, true, NULL);
        ck_assert_uint_eq(one(anna(&h), "q", "k", "replace", true, NULL), 2);
        ck_assert_state(task(1), CANCELED);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, true, NULL), 2);
        host_done(&h);
}

/* ---- restart ---- */

static void restart(void) {
        int fd = host_keep(&h);
        host_init_from(&h, NULL, NULL, fd);
        close_fd(fd);
}

TEST(keys_live_on_after_a_restart_whether_their_tasks_wait_run_or_have_ended) {
        begin((const char *const[]) { "history=1", "unique_age=1h", NULL });
        const char *keys[] = { "gone", "ended", "runs", "waits" };
        for (uint64_t i = 0; i < 4; i++) {
                one(anna(&h), "q", keys[i], NULL, i == 3, NULL);
                if (i < 2)
                        end(i + 1);
        }
        one(anna(&h), "q", "runs", "replace", true, NULL);
        ck_assert_ptr_null(task(1));
        for (int round = 0; round < 2; round++) {
                restart();
                ck_assert_ptr_null(task(1));
                ck_assert_state(task(3), RUNNING); /* replaced when it had begun: it is left to end */
                ck_assert_uint_eq(one(anna(&h), "q", "gone", NULL, false, NULL), 1);
                ck_assert_uint_eq(one(anna(&h), "q", "ended", NULL, false, NULL), 2);
                ck_assert_uint_eq(one(anna(&h), "q", "waits", NULL, false, NULL), 4);
                ck_assert_uint_eq(one(anna(&h), "q", "runs", NULL, false, NULL), 5);
                ck_assert_uint_eq(h.m->n_pending, 3);
        }
        host_advance(&h, 3601 * USEC_PER_SEC);
        ck_assert_uint_eq(one(anna(&h), "q", "gone", NULL, false, NULL), 6);
        host_done(&h);
}

/* ---- in a store ---- */

static eq_state wanted;

static bool is_wanted(const Host *host, uint64_t seq) {
        return task_record_state(task_of_q(host, seq)) == wanted;
}

static void until_state(uint64_t seq, eq_state state) {
        wanted = state;
        until(&h, is_wanted, seq);
}

static const char *const unique[] = { "history=1", "unique_age=1h", NULL };

static void durable_end(uint64_t seq) {
        until_state(seq, EQ_STATE_RUNNING);
        host_end(&h, task(seq), TASK_OK);
        until_state(seq, EQ_STATE_DONE);
}

static uint64_t n_stored(void) {
        StoreStats stats;
        store_stats(durable_store(h.m), &stats);
        return stats.n_tasks;
}

TEST(a_store_keeps_keys_longer_than_the_tasks) {
        durable_begin(&h, unique);
        const char *keys[] = { "a", "b", "c" };
        for (uint64_t i = 0; i < 3; i++) {
                one(anna(&h), "q", keys[i], NULL, false, NULL);
                ck_assert_uint_eq(one(anna(&h), "q", keys[i], NULL, false, NULL), i + 1); /* on its way to the disk */
                durable_end(i + 1);
        }
        for (int round = 0; round < 2; round++) {
                durable_restart(&h);
                ck_assert_ptr_null(task(1));
                ck_assert_ptr_null(task(2));
                for (uint64_t i = 0; i < 3; i++)
                        ck_assert_uint_eq(one(anna(&h), "q", keys[i], NULL, false, NULL), i + 1);
                says("a", "error", "is finished", EQ_E_DUPLICATE);
                ck_assert_uint_eq(h.m->n_pending, 0);
        }
        ck_assert_uint_eq(one(anna(&h), "q", "a", "replace", true, NULL), 4);
        until_state(4, EQ_STATE_WAITING);
        durable_restart(&h);
        ck_assert_uint_eq(n_stored(), 3); /* the one whose key it has is gone for good */
        ck_assert_uint_eq(one(anna(&h), "q", "a", NULL, true, NULL), 4);
        host_advance(&h, 3601 * USEC_PER_SEC);
        durable_restart(
                &h); /* what went by its age is gone for good, but for what is in the history: its age begins anew */
        ck_assert_uint_eq(manager_queue(h.m, eq_str("q"))->n_finished_keys, 1);
        ck_assert_uint_eq(one(anna(&h), "q", "b", NULL, true, NULL), 5);
        durable_done(&h);
}

TEST(what_is_replaced_on_its_way_to_the_disk_is_canceled_when_it_is_there) {
        durable_begin(&h, unique);
        one(anna(&h), "q", "k", NULL, false, NULL);
        ck_assert_uint_eq(one(anna(&h), "q", "k", "replace", true, NULL), 2);
        until_state(1, EQ_STATE_CANCELED);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, false, NULL), 2);
        durable_restart(&h);
        ck_assert_state(task(1), CANCELED);
        ck_assert_state(task(2), WAITING);
        durable_done(&h);
}

/* The end of the replaced task was appended behind the new one and is not there. */
TEST(a_replaced_task_whose_end_was_lost_is_canceled_at_the_start) {
        durable_begin(&h, unique);
        one(anna(&h), "q", "k", NULL, true, NULL);
        TaskRecord *first = task(1);
        until_state(1, EQ_STATE_WAITING);
        first->keyed = false; /* as if its key had been another one's: then a second may have the same */
        keys_clear(first->queue);
        one(anna(&h), "q", "k", NULL, true, NULL);
        until_state(2, EQ_STATE_WAITING);
        durable_restart(&h);
        until_state(1, EQ_STATE_CANCELED);
        ck_assert_state(task(2), WAITING);
        ck_assert_uint_eq(one(anna(&h), "q", "k", NULL, true, NULL), 2);
        durable_restart(&h);
        ck_assert_state(task(1), CANCELED);
        durable_done(&h);
}

/* Of a replacement only the new task is there, not that the key of the former was forgotten. */
static void replace_without_forget(void) {
        durable_begin(&h, unique);
        for (uint64_t seq = 1; seq <= 2; seq++) {
                one(anna(&h), "q", seq == 1 ? "a" : "b", NULL, false, NULL);
                durable_end(seq);
        }
        ck_assert_ptr_null(task(1)); /* its key is all that is left */
        task(2)->keyed = false;
        keys_clear(durable_q(&h)); /* the store is not told */
        ck_assert_uint_eq(one(anna(&h), "q", "a", "replace", true, NULL), 3);
        until(&h, has_arrived, 3);
}

/* A kill -9 or a loss of power may cut a batch between the two. */
TEST(a_key_that_was_replaced_just_before_a_crash_is_forgotten_at_the_start) {
        replace_without_forget();
        durable_restart(&h);
        ck_assert_uint_eq(one(anna(&h), "q", "a", NULL, true, NULL), 3);
        durable_restart(&h);
        ck_assert_uint_eq(n_stored(), 2);
        ck_assert_uint_eq(one(anna(&h), "q", "a", NULL, true, NULL), 3);
        durable_done(&h);
}

/* Ends are restored in their order, the former first: an eqd that did not repeat it has left the key in the log. */
TEST(a_replaced_key_that_was_left_in_the_log_takes_no_ended_task_with_it) {
        replace_without_forget();
        ck_assert_int_eq(manager_release(h.m, task(3)), 0);
        durable_end(3);
        durable_restart(&h);
        ck_assert_state(task(3), DONE);
        host_advance(&h, 3601 * USEC_PER_SEC); /* the key of 3 is too old */
        ck_assert_uint_eq(durable_q(&h)->n_finished_keys, 0);
        durable_restart(&h);
        ck_assert_uint_eq(n_stored(), 1);
        ck_assert_state(task(3), DONE);
        durable_done(&h);
}

TEST(a_replace_that_is_refused_leaves_the_key_where_it_was) {
        durable_begin(&h, unique);
        for (uint64_t seq = 1; seq <= 2; seq++) {
                one(anna(&h), "q", seq == 1 ? "a" : "b", NULL, false, NULL);
                durable_end(seq);
        }
        ck_assert_ptr_null(task(1)); /* its key is all that is left */
        fill_store(&h);
        Keyed k = { .key = "a", .on_dup = "replace" };
        ck_assert_int_eq(submit(anna(&h), "q", &k, 1), -ENOSPC);
        free_store(&h);
        durable_restart(&h);
        bool known;
        ck_assert_uint_eq(one(anna(&h), "q", "a", NULL, false, &known), 1);
        ck_assert(known);
        durable_done(&h);
}

/* And eqd starts without any. */
TEST(a_key_outlives_its_task_also_where_there_is_no_space) {
        durable_begin(&h, unique);
        one(anna(&h), "q", "a", NULL, false, NULL);
        one(anna(&h), "q", "b", NULL, false, NULL);
        fill_store(&h);
        durable_end(1);
        uint64_t before = *store_written(durable_store(h.m));
        durable_end(2);
        ck_assert_ptr_null(task(1));
        ck_assert_uint_eq(*store_written(durable_store(h.m)) - before,
                          3); /* the end, and what takes the place of the first one */
        durable_restart(&h);
        ck_assert_ptr_null(task(1));
        Keyed new = { .key = "c" };
        ck_assert_int_eq(submit(anna(&h), "q", &new, 1), -ENOSPC);
        bool known;
        ck_assert_uint_eq(one(anna(&h), "q", "a", NULL, false, &known), 1);
        ck_assert(known);
        free_store(&h);
        ck_assert_int_eq(submit(anna(&h), "q", &new, 1), 0);
        durable_done(&h);
}

RUN_TESTS("keys", 30, test_a_second_submit_with_a_key_answers_with_the_first_task_in_each_of_its_states,
          test_keys_are_those_of_a_user_and_of_a_queue, test_error_refuses_and_names_the_task,
          test_replace_cancels_what_has_not_begun_and_takes_its_key,
          test_replace_lets_a_running_one_end_and_comes_after_it, test_bad_keys_and_modes_say_what_to_do,
          test_a_batch_mixes_new_and_known_tasks_and_is_all_or_none,
          test_without_memory_nothing_is_claimed_and_nothing_is_replaced,
          test_keys_of_finished_tasks_are_known_for_a_number_of_tasks_and_for_a_time,
          test_with_no_window_only_tasks_that_have_not_finished_count,
          test_a_smaller_window_drops_keys_at_once_and_a_retried_task_has_its_key_again,
          test_a_claimed_key_survives_that_its_task_is_dropped_to_make_room,
          test_keys_live_on_after_a_restart_whether_their_tasks_wait_run_or_have_ended,
          test_a_store_keeps_keys_longer_than_the_tasks,
          test_what_is_replaced_on_its_way_to_the_disk_is_canceled_when_it_is_there,
          test_a_replaced_task_whose_end_was_lost_is_canceled_at_the_start,
          test_a_key_that_was_replaced_just_before_a_crash_is_forgotten_at_the_start,
          test_a_replaced_key_that_was_left_in_the_log_takes_no_ended_task_with_it,
          test_a_replace_that_is_refused_leaves_the_key_where_it_was,
          test_a_key_outlives_its_task_also_where_there_is_no_space)
