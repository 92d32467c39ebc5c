/* SPDX-License-Identifier: MIT */
#include "manager/attributes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "test.h"

static char error[PARAM_ERROR_MAX];

#define ATTRIBUTES(a, defaults)                                                                                        \
        _cleanup_(queue_attributes_deinit) QueueAttributes a;                                                          \
        ck_assert_int_eq(queue_attributes_init(&a, defaults), 0)

static int set(QueueAttributes *a, const QueueAttributes *defaults, const char *text) {
        return queue_attributes_set(a, defaults, text, strlen(text), error, sizeof(error));
}

static int set_file(QueueAttributes *a, const QueueAttributes *defaults, const char *name, const char *value) {
        const Param *row = params_find(&queue_attributes_table, name, strlen(name));
        ck_assert_ptr_nonnull(row);
        return queue_attributes_set_row(a, defaults, row, value, strlen(value), NULL, error, sizeof(error));
}

TEST(every_row_has_a_default_that_its_own_range_allows) {
        ATTRIBUTES(a, NULL);
        DaemonSettings d;
        ck_assert_int_eq(params_init(&daemon_settings_table, &d), 0);
        ck_assert_uint_eq(a.engine.max_active, 1);
        ck_assert_uint_eq(a.history, 1000);
        ck_assert_uint_eq(a.timeout_usec, PARAM_INFINITY);
        ck_assert_uint_eq(a.user.id, PARAM_NO_ID);
        ck_assert_uint_eq(a.present, 0);
        ck_assert_uint_eq(d.socket_mode, 0660);
        ck_assert_uint_eq(d.log_level, 6);
        ck_assert_uint_eq(d.root_tasks, ROOT_TASKS_REDUCED);
        params_deinit(&daemon_settings_table, &d);
}

TEST(every_row_has_a_text_that_says_what_it_does) {
        for (size_t i = 0; i < queue_attributes_table.n; i++)
                ck_assert_uint_gt(strlen(queue_attributes_table.rows[i].doc), 10);
        for (size_t i = 0; i < daemon_settings_table.n; i++)
                ck_assert_uint_gt(strlen(daemon_settings_table.rows[i].doc), 10);
        for (size_t i = 0; i < pool_attributes_table.n; i++)
                ck_assert_uint_gt(strlen(pool_attributes_table.rows[i].doc), 10);
}

TEST(no_two_rows_answer_to_one_name) {
        for (size_t i = 0; i < queue_attributes_table.n; i++) {
                const Param *p = &queue_attributes_table.rows[i];
                ck_assert_ptr_eq(params_find(&queue_attributes_table, p->name, strlen(p->name)), p);
        }
        for (size_t i = 0; i < daemon_settings_table.n; i++) {
                const Param *p = &daemon_settings_table.rows[i];
                ck_assert_ptr_eq(params_find(&daemon_settings_table, p->name, strlen(p->name)), p);
        }
}

TEST(an_empty_value_takes_the_default_of_the_configuration_back) {
        ATTRIBUTES(defaults, NULL);
        ck_assert_int_eq(set(&defaults, NULL, "max_active=4"), 0);
        ATTRIBUTES(a, &defaults);
        ck_assert_uint_eq(a.engine.max_active, 4);
        ck_assert_uint_eq(a.present, 0);
        ck_assert_int_eq(set(&a, &defaults, "MaxActive=9"), 0);
        ck_assert_uint_eq(a.engine.max_active, 9);
        ck_assert_uint_ne(a.present, 0);
        ck_assert_int_eq(set(&a, &defaults, "max_active="), 0);
        ck_assert_uint_eq(a.engine.max_active, 4);
        ck_assert_uint_eq(a.present, 0);
}

TEST(what_a_client_may_not_set_is_refused_and_nothing_changes) {
        static const char *const bad[][2] = {
                { "max_active", "is no key=value" },
                { "", "is no key=value" },
                { "max_activ=1", "did you mean max_active" },
                { "=1", "not known" },
                { "max_active=0", "1..65535" },
                { "max_active=x", "1..65535" },
                { "user=0", "only the queue's file" },
                { "group=0", "only the queue's file" },
                { "allow_submit=root", "getent passwd" },
                { "description=a\nb", "control characters" },
                { "description=\xff\xfe", "UTF-8" },
        };
        ATTRIBUTES(a, NULL);
        for (size_t i = 0; i < ELEMENTSOF(bad); i++) {
                QueueAttributes before = a;
                ck_assert_msg(set(&a, NULL, bad[i][0]) == -EINVAL, "%s", bad[i][0]);
                ck_assert_msg(strstr(error, bad[i][1]), "%s: %s", bad[i][0], error);
                ck_assert_mem_eq(&a, &before, sizeof(a));
        }
}

/* Also behind what stands in front of it. */
TEST(a_name_that_is_like_none_is_answered_with_every_name_there_is) {
        const AttributeKind *kinds[] = { &attributes_of_queues, &attributes_of_pools };
        ATTRIBUTES(a, NULL);
        for (size_t k = 0; k < ELEMENTSOF(kinds); k++) {
                const Param *last = &kinds[k]->table->rows[kinds[k]->table->n - 1];
                char text[PARAM_ERROR_MAX - 100], end[64];
                ck_assert_int_eq(attributes_set(kinds[k], &a, NULL, "qwxqwx=1", 8, text, sizeof(text)), -EINVAL);
                (void)snprintf(end, sizeof(end), " %s", last->name);
                ck_assert_msg(strlen(text) > strlen(end) && strcmp(text + strlen(text) - strlen(end), end) == 0, "%s",
                              text);
        }
}

TEST(a_value_beyond_the_limit_of_bytes_is_refused) {
        char text[PARAM_TEXT_MAX + 100] = "description=";
        ATTRIBUTES(a, NULL);
        memset(text + strlen(text), 'x', sizeof(text) - strlen(text) - 1);
        ck_assert_int_eq(set(&a, NULL, text), -EINVAL);
        text[strlen("description=") + 257] = '\0';
        ck_assert_int_eq(set(&a, NULL, text), -EINVAL);
        text[strlen("description=") + 256] = '\0';
        ck_assert_int_eq(set(&a, NULL, text), 0);
}

TEST(a_rebase_keeps_what_was_set_and_renews_the_rest) {
        ATTRIBUTES(a, NULL);
        ATTRIBUTES(base, NULL);
        ck_assert_int_eq(set(&a, NULL, "max_active=2"), 0);
        ck_assert_int_eq(set_file(&base, NULL, "max_active", "7"), 0);
        ck_assert_int_eq(set_file(&base, NULL, "history", "5"), 0);
        ck_assert_int_eq(set_file(&base, NULL, "user", "77"), 0);
        ck_assert_int_eq(queue_attributes_rebase(&a, &base), 0);
        ck_assert_uint_eq(a.engine.max_active, 2);
        ck_assert_uint_eq(a.history, 5);
        ck_assert_uint_eq(a.user.id, 77);
        ck_assert_ptr_ne(a.user.text, base.user.text);
}

TEST(a_copy_knows_what_was_set) {
        ATTRIBUTES(a, NULL);
        ck_assert_int_eq(set(&a, NULL, "description=a line"), 0);
        _cleanup_(queue_attributes_deinit) QueueAttributes b;
        ck_assert_int_eq(queue_attributes_copy(&b, &a), 0);
        ck_assert_uint_eq(b.present, a.present);
        ck_assert_str_eq(b.description, "a line");
        ck_assert_ptr_ne(b.description, a.description);
}

TEST(a_copy_without_memory_owns_nothing) {
        ATTRIBUTES(a, NULL);
        QueueAttributes b;
        ck_assert_int_eq(set(&a, NULL, "description=a line"), 0);
        ck_assert_int_eq(set(&a, NULL, "allow_submit=1 @2"), 0);
        fault_set(FAULT_ALLOC, 2, true);
        ck_assert_int_eq(queue_attributes_copy(&b, &a), -ENOMEM);
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(set(&a, NULL, "description=another"), -ENOMEM);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_str_eq(a.description, "a line");
}

typedef struct Seen {
        QueueAttributes *copy;
        size_t n, n_set, stop_at;
} Seen;

static int see(void *userdata, const char *name, const char *value, bool is_set) {
        Seen *s = userdata;
        if (++s->n == s->stop_at)
                return 42;
        s->n_set += is_set;
        return s->copy && *value ? set_file(s->copy, NULL, name, value) : 0;
}

TEST(what_is_listed_can_be_set_again) {
        ATTRIBUTES(a, NULL);
        ATTRIBUTES(b, NULL);
        ck_assert_int_eq(set(&a, NULL, "max_bytes=64M"), 0);
        ck_assert_int_eq(set(&a, NULL, "backoff_max=1h30m"), 0);
        ck_assert_int_eq(set(&a, NULL, "allow_control=5,@6"), 0);
        Seen s = { .copy = &b };
        ck_assert_int_eq(queue_attributes_each(&a, see, &s), 0);
        ck_assert_uint_eq(s.n, queue_attributes_table.n);
        ck_assert_uint_eq(s.n_set, 3);
        ck_assert_uint_eq(b.engine.max_bytes, 64u << 20);
        ck_assert_uint_eq(b.backoff_max_usec, a.backoff_max_usec);
        ck_assert_uint_eq(b.allow_control.n, 2);
        s = (Seen) { .stop_at = 3 };
        ck_assert_int_eq(queue_attributes_each(&a, see, &s), 42);
        ck_assert_uint_eq(s.n, 3);
}

RUN_TESTS("attributes", 30, test_every_row_has_a_default_that_its_own_range_allows,
          test_every_row_has_a_text_that_says_what_it_does, test_no_two_rows_answer_to_one_name,
          test_an_empty_value_takes_the_default_of_the_configuration_back,
          test_a_name_that_is_like_none_is_answered_with_every_name_there_is,
          test_what_a_client_may_not_set_is_refused_and_nothing_changes,
          test_a_value_beyond_the_limit_of_bytes_is_refused, test_a_rebase_keeps_what_was_set_and_renews_the_rest,
          test_a_copy_knows_what_was_set, test_a_copy_without_memory_owns_nothing, test_what_is_listed_can_be_set_again)
