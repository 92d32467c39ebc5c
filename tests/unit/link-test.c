/* SPDX-License-Identifier: MIT */
/* When a client tries again, and what it may send again. The clock is the test's. */

#include "lib/link.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "test.h"

enum { SEC = 1000000 };

static void open_link(Link *l, uint64_t first, uint64_t max, uint64_t give_up) {
        eq_reconnect p = EQ_RECONNECT_INIT;
        p.first_usec = first;
        p.max_usec = max;
        p.give_up_usec = give_up;
        *l = (Link)LINK_NULL;
        ck_assert_int_eq(link_set_policy(l, &p), 0);
}

TEST(a_policy_that_makes_no_sense_is_refused) {
        Link l = LINK_NULL;
        eq_reconnect p = EQ_RECONNECT_INIT;
        p.first_usec = 0;
        ck_assert_int_eq(link_set_policy(&l, &p), -EINVAL);
        p.first_usec = 3 * SEC;
        ck_assert_int_eq(link_set_policy(&l, &p), -EINVAL);
        p = (eq_reconnect)EQ_RECONNECT_INIT;
        p.give_up_usec = 0;
        ck_assert_int_eq(link_set_policy(&l, &p), -EINVAL);
        p = (eq_reconnect)EQ_RECONNECT_INIT;
        p.size = 7;
        ck_assert_int_eq(link_set_policy(&l, &p), -EINVAL);
        ck_assert(!l.on && l.epoll_fd < 0 && l.timer_fd < 0);
}

TEST(the_first_try_is_at_once_and_pauses_double_up_to_the_longest) {
        uint64_t now = 100 * SEC;
        Link l;
        open_link(&l, 1000, 9000, EQ_TIMEOUT_NEVER);
        ck_assert(link_lost(&l, now));
        ck_assert(link_is_down(&l) && l.next_usec == now);
        static const uint64_t want[] = { 1000, 2000, 4000, 8000, 9000, 9000 };
        for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
                ck_assert(link_failed(&l, now));
                ck_assert_uint_ge(l.next_usec - now, want[i] / 2);
                ck_assert_uint_le(l.next_usec - now, want[i]);
                now = l.next_usec;
        }
        link_deinit(&l);
}

TEST(two_clients_do_not_try_at_the_same_time) {
        unsigned n_same = 0;
        Link a, b;
        open_link(&a, SEC, SEC, EQ_TIMEOUT_NEVER);
        open_link(&b, SEC, SEC, EQ_TIMEOUT_NEVER);
        link_lost(&a, SEC);
        link_lost(&b, SEC);
        for (int i = 0; i < 100; i++) {
                ck_assert(link_failed(&a, SEC) && link_failed(&b, SEC));
                n_same += a.next_usec == b.next_usec;
        }
        ck_assert_uint_lt(n_same, 10);
        link_deinit(&a);
        link_deinit(&b);
}

TEST(the_last_try_is_when_the_time_is_over) {
        uint64_t now = 50 * SEC;
        unsigned n = 0;
        Link l;
        open_link(&l, SEC, 4 * SEC, 10 * SEC);
        link_lost(&l, now);
        for (; link_failed(&l, now); n++)
                now = l.next_usec;
        ck_assert_uint_eq(now, 60 * SEC);
        ck_assert_uint_ge(n, 3);
        link_deinit(&l);
}

/* As while a service manager holds the socket of an eqd that does not start. */
TEST(a_connection_that_ends_before_an_answer_is_a_failed_try) {
        uint64_t now = SEC;
        Link l;
        open_link(&l, 1000, SEC, 10 * SEC);
        link_lost(&l, now);
        link_connected(&l);
        ck_assert(!link_is_down(&l));
        link_lost(&l, now);
        ck_assert_uint_ge(l.next_usec, now + 500);
        ck_assert_uint_eq(l.lost_usec, SEC);
        link_connected(&l);
        link_answered(&l);
        link_lost(&l, now + SEC);
        ck_assert(l.next_usec == now + SEC && l.lost_usec == now + SEC); /* that one is new */
        link_connected(&l);
        ck_assert(!link_lost(&l, now + 11 * SEC)); /* so it is given up as well */
        link_deinit(&l);
}

TEST(the_descriptor_is_readable_when_a_try_is_due_and_quiet_while_connected) {
        Link l;
        open_link(&l, 1000, SEC, 10 * SEC);
        struct pollfd p = { .fd = l.epoll_fd, .events = POLLIN };
        int pipes[2];
        ck_assert_int_eq(pipe(pipes), 0);
        ck_assert_int_eq(poll(&p, 1, 0), 0);
        link_lost(&l, 1); /* long ago */
        ck_assert_int_eq(poll(&p, 1, -1), 1);
        link_connected(&l);
        ck_assert_int_eq(poll(&p, 1, 0), 0);
        ck_assert_int_eq(link_watch(&l, pipes[0], POLLIN), 0);
        ck_assert_int_eq(poll(&p, 1, 0), 0);
        ck_assert_int_eq(write(pipes[1], "x", 1), 1);
        ck_assert_int_eq(poll(&p, 1, 0), 1);
        ck_assert_int_eq(link_watch(&l, pipes[1], POLLOUT), 0); /* another takes its place */
        ck_assert_int_eq(poll(&p, 1, 0), 1);
        ck_assert_int_eq(link_watch(&l, -1, 0), 0);
        ck_assert_int_eq(poll(&p, 1, 0), 0);
        close(pipes[0]);
        close(pipes[1]);
        link_deinit(&l);
}

TEST(keys_are_of_this_client_and_of_one_submit) {
        char one[LINK_KEY_SIZE], two[LINK_KEY_SIZE], other[LINK_KEY_SIZE];
        Link a, b, none = LINK_NULL;
        open_link(&a, SEC, SEC, SEC);
        open_link(&b, SEC, SEC, SEC);
        ck_assert_ptr_nonnull(link_key(&a, one));
        ck_assert_ptr_nonnull(link_key(&a, two));
        ck_assert_ptr_nonnull(link_key(&b, other));
        ck_assert(strcmp(one, two) != 0 && strcmp(one, other) != 0 && strcmp(two, other) != 0);
        ck_assert_uint_le(strlen(one), EQ_KEY_MAX);
        b.policy.no_keys = true;
        ck_assert_ptr_null(link_key(&b, other));
        ck_assert_ptr_null(link_key(&none, other));
        link_deinit(&a);
        link_deinit(&b);
}

/* ---- requests ---- */

static bool repeatable(const char *method, const EqSchema *schema, const void *rec) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        Held *h;
        eq_pack_request(&pk, 7, method);
        eq_pack_params(&pk, schema, rec);
        ck_assert_int_eq(held_new(eq_bytes(b.data, b.len), NULL, 0, &h), 0);
        eq_buffer_done(&b);
        bool r = held_is_repeatable(h);
        held_free(h);
        return r;
}

TEST(what_reads_and_what_is_of_the_connection_is_repeated_and_what_changes_something_is_not) {
        EqNothing nothing = { 0 };
        EqTasks tasks = { 0 };
        EqCancel cancel = { 0 };
        EqQueueName name = { .name = eq_str("q") };
        ck_assert(repeatable("ping", &eq_schema_Nothing, &nothing));
        ck_assert(repeatable("show", &eq_schema_Tasks, &tasks));
        ck_assert(repeatable("queue_show", &eq_schema_QueueName, &name));
        ck_assert(!repeatable("queue_pause", &eq_schema_QueueName, &name)); /* it counts */
        ck_assert(!repeatable("cancel", &eq_schema_Cancel, &cancel));       /* the second answer would be another */
        ck_assert(!repeatable("worker_leave", &eq_schema_Nothing, &nothing));
        ck_assert(!repeatable("of_tomorrow", &eq_schema_Nothing, &nothing));
}

TEST(a_submit_is_repeated_if_its_key_makes_that_one_task) {
        EqSubmit s = { .queue = eq_str("q") };
        ck_assert(!repeatable("submit", &eq_schema_Submit, &s));
        EQ_SET(&s, Submit, unique, eq_str("k"));
        ck_assert(repeatable("submit", &eq_schema_Submit, &s));
        EQ_SET(&s, Submit, on_dup, eq_str("skip"));
        ck_assert(repeatable("submit", &eq_schema_Submit, &s));
        EQ_SET(&s, Submit, on_dup, eq_str("replace"));
        ck_assert(!repeatable("submit", &eq_schema_Submit, &s));
        EQ_SET(&s, Submit, on_dup, eq_str("error"));
        ck_assert(!repeatable("submit", &eq_schema_Submit, &s));
}

static bool batch_repeatable(bool first, bool second, bool bare, const char *common_on_dup) {
        EqBuffer tasks = EQ_BUFFER_NULL, common = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&tasks), pk_common = eq_packer(&common);
        EqSubmitMany m = { .queue = eq_str("q") };
        for (int i = 0; i < 2; i++) {
                EqSubmit s = { 0 };
                EQ_SET(&s, Submit, payload, eq_str("p"));
                if (i == 0 ? first : second)
                        EQ_SET(&s, Submit, unique, eq_str(i == 0 ? "a" : "b"));
                if (i == 1 && bare)
                        eq_pack_bin(&pk, s.payload);
                else
                        eq_pack_record(&pk, &eq_schema_Submit, &s);
        }
        m.tasks = (EqArray) { .raw = eq_bytes(tasks.data, tasks.len), .n = 2 };
        if (common_on_dup) {
                EqSubmit s = { 0 };
                EQ_SET(&s, Submit, on_dup, eq_str(common_on_dup));
                eq_pack_record(&pk_common, &eq_schema_Submit, &s);
                EQ_SET(&m, SubmitMany, common, eq_bytes(common.data, common.len));
        }
        bool r = repeatable("submit_many", &eq_schema_SubmitMany, &m);
        eq_buffer_done(&tasks);
        eq_buffer_done(&common);
        return r;
}

TEST(a_batch_is_repeated_if_all_of_its_tasks_have_keys) {
        ck_assert(batch_repeatable(true, true, false, NULL));
        ck_assert(batch_repeatable(true, true, false, "skip"));
        ck_assert(!batch_repeatable(true, true, false, "replace"));
        ck_assert(!batch_repeatable(true, false, false, NULL));
        ck_assert(!batch_repeatable(true, false, true, NULL));
        ck_assert(!batch_repeatable(false, false, false, NULL));
}

TEST(parameters_that_are_none_are_not_repeated) {
        static const char bytes[] = { (char)0x94, 0, 7, (char)0xa6, 's', 'u', 'b', 'm', 'i', 't', 5 };
        Held *h;
        ck_assert_int_eq(held_new(eq_bytes(bytes, sizeof(bytes)), NULL, 0, &h), 0);
        ck_assert(!held_is_repeatable(h));
        held_free(h);
}

RUN_TESTS("link", 20, test_a_policy_that_makes_no_sense_is_refused,
          test_the_first_try_is_at_once_and_pauses_double_up_to_the_longest,
          test_two_clients_do_not_try_at_the_same_time, test_the_last_try_is_when_the_time_is_over,
          test_a_connection_that_ends_before_an_answer_is_a_failed_try,
          test_the_descriptor_is_readable_when_a_try_is_due_and_quiet_while_connected,
          test_keys_are_of_this_client_and_of_one_submit,
          test_what_reads_and_what_is_of_the_connection_is_repeated_and_what_changes_something_is_not,
          test_a_submit_is_repeated_if_its_key_makes_that_one_task,
          test_a_batch_is_repeated_if_all_of_its_tasks_have_keys, test_parameters_that_are_none_are_not_repeated)
