/* SPDX-License-Identifier: MIT */
#include "eqctl/submission.h"

#include <errno.h>

#include "eqctl/text.h"
#include "test.h"

static uint64_t first, last, step, limit;

TEST(arrays_are_ranges_with_a_step) {
        ck_assert_int_eq(array_parse("1-100", &first, &last, &step, &limit), 0);
        ck_assert(first == 1 && last == 100 && step == 1);
        ck_assert_int_eq(array_parse("0-10:5", &first, &last, &step, &limit), 0);
        ck_assert(first == 0 && last == 10 && step == 5);
        ck_assert_int_eq(array_parse("7", &first, &last, &step, &limit), 0);
        ck_assert(first == 7 && last == 7 && limit == 0);
        ck_assert_int_eq(array_parse("1-100%4", &first, &last, &step, &limit), 0);
        ck_assert(first == 1 && last == 100 && step == 1 && limit == 4);
        ck_assert_int_eq(array_parse("0-10:5%200", &first, &last, &step, &limit), 0);
        ck_assert(first == 0 && last == 10 && step == 5 && limit == 200);
        static const char *const bad[] = {
                "",     "-",     "1-",    "a-b",     "5-1",           "1-5:0", "1-5:", "1-5x", "1-99999999999999999999",
                "1-5%", "1-5%0", "1-5%x", "1-5%2:2", "1-5%4294967296"
        };
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                ck_assert_msg(array_parse(bad[i], &first, &last, &step, &limit) == -EINVAL, "`%s`", bad[i]);
}

TEST(dependencies_have_a_kind_each_and_ok_by_default) {
        EqBuffer ids[3] = { EQ_BUFFER_NULL, EQ_BUFFER_NULL, EQ_BUFFER_NULL };
        uint32_t n[3] = { 0 };
        EqBytes bad, text;

        ck_assert_int_eq(after_parse("ok:encode/1,any:mail/7,encode/3,fail:a/9", ids, n, &bad), 0);
        ck_assert(n[0] == 2 && n[1] == 1 && n[2] == 1);
        EqArray it = { .raw = eq_bytes(ids[0].data, ids[0].len), .n = n[0] };
        ck_assert(eq_next_bytes(&it, &text) == 1 && eq_bytes_eq(text, eq_str("encode/1")));
        ck_assert(eq_next_bytes(&it, &text) == 1 && eq_bytes_eq(text, eq_str("encode/3")));
        ck_assert_int_eq(after_parse("ok:encode/1,42", ids, n, &bad), -EINVAL);
        ck_assert(eq_bytes_eq(bad, eq_str("42")));
        ck_assert_int_eq(after_parse("", ids, n, &bad), -EINVAL);
        ck_assert_int_eq(after_parse("any:", ids, n, &bad), -EINVAL);
        ck_assert_int_eq(after_parse("never:q/1", ids, n, &bad), -EINVAL);
        for (int i = 0; i < 3; i++)
                eq_buffer_done(&ids[i]);
}

TEST(backoff_is_a_first_and_a_longest_wait) {
        uint64_t a, b;

        ck_assert_int_eq(backoff_parse("exp:1s:10m", &a, &b), 0);
        ck_assert(a == 1000000 && b == 600000000);
        ck_assert_int_eq(backoff_parse("2s", &a, &b), 0);
        ck_assert(a == 2000000 && b == 0);
        ck_assert_int_eq(backoff_parse("exp:", &a, &b), -EINVAL);
        ck_assert_int_eq(backoff_parse("1s:", &a, &b), -EINVAL);
        ck_assert_int_eq(backoff_parse("lin:1s", &a, &b), -EINVAL);
}

static bool replace(const char *text, const char *word, const char *expected) {
        EqBuffer b = EQ_BUFFER_NULL;
        bool found = replace_braces(&b, text, word);

        ck_assert_str_eq(text_end(&b), expected);
        eq_buffer_done(&b);
        return found;
}

TEST(braces_are_replaced_everywhere_and_not_again) {
        ck_assert(replace("{}", "x", "x"));
        ck_assert(replace("a{}b{}c", "12", "a12b12c"));
        ck_assert(replace("{}", "{}", "{}"));
        ck_assert(!replace("{ }", "x", "{ }"));
        ck_assert(!replace("", "x", ""));
}

static const char *item_argv(const Submission *s, const char *word) {
        static char out[256];
        SubmissionItem item = { 0 };
        EqBuffer b = EQ_BUFFER_NULL;
        EqBytes arg;

        ck_assert_int_eq(submission_item(s, word, &item), 0);
        while (eq_next_bytes(&item.argv_array, &arg) == 1) {
                text_bytes(&b, arg);
                text_cstr(&b, "|");
        }
        (void)snprintf(out, sizeof(out), "%s", text_end(&b));
        eq_buffer_done(&b);
        submission_item_deinit(&item);
        return out;
}

TEST(a_line_is_appended_where_no_braces_are) {
        const char *with[] = { "convert", "{}", "out/{}", NULL }, *without[] = { "gzip", "-9", NULL };
        Submission s = { .stdin_fd = -1, .is_each = true, .argv = with, .n_argv = 3 };

        ck_assert_str_eq(item_argv(&s, "a b"), "convert|a b|out/a b|");
        s.argv = without;
        s.n_argv = 2;
        ck_assert_str_eq(item_argv(&s, "a b"), "gzip|-9|a b|");
        s.is_each = false;
        ck_assert_str_eq(item_argv(&s, NULL), "gzip|-9|");
        s.argv = with;
        s.n_argv = 3;
        ck_assert_str_eq(item_argv(&s, NULL), "convert|{}|out/{}|");
}

TEST(an_array_task_knows_its_index_by_its_environment) {
        const char *argv[] = { "x", NULL };
        Submission s = { .stdin_fd = -1, .is_array = true, .argv = argv, .n_argv = 1 };
        SubmissionItem item = { 0 };
        EqBytes text;

        msgpack_packer pk = eq_packer(&s.env);
        eq_pack_cstr(&pk, "HOME=/root");
        s.common.env = (EqArray) { .raw = eq_bytes(s.env.data, s.env.len), .n = 1 };
        ck_assert_int_eq(submission_item(&s, "17", &item), 0);
        ck_assert_uint_eq(item.env_array.n, 2);
        ck_assert(eq_next_bytes(&item.env_array, &text) == 1 && eq_bytes_eq(text, eq_str("HOME=/root")));
        ck_assert(eq_next_bytes(&item.env_array, &text) == 1 && eq_bytes_eq(text, eq_str("EQD_ARRAY_INDEX=17")));
        ck_assert_uint_eq(item.argv_array.n, 1); /* nothing is appended to an array's command */
        submission_item_deinit(&item);
        eq_buffer_done(&s.env);
}

RUN_TESTS("submission", 10, test_arrays_are_ranges_with_a_step, test_dependencies_have_a_kind_each_and_ok_by_default,
          test_backoff_is_a_first_and_a_longest_wait, test_braces_are_replaced_everywhere_and_not_again,
          test_a_line_is_appended_where_no_braces_are, test_an_array_task_knows_its_index_by_its_environment)
