/* SPDX-License-Identifier: MIT */
#include "eqctl/text.h"

#include <string.h>

#include "test.h"

static const char *apply(void (*fn)(EqBuffer *b, EqBytes s), const char *s, size_t n) {
        static char out[4096];
        EqBuffer b = EQ_BUFFER_NULL;

        fn(&b, eq_bytes(s, n));
        (void)snprintf(out, sizeof(out), "%s", text_end(&b));
        eq_buffer_done(&b);
        return out;
}
#define CHECK(fn, in, out) ck_assert_str_eq(apply(fn, in, sizeof(in) - 1), out)

TEST(control_characters_and_bad_utf8_are_escaped) {
        CHECK(text_escaped, "plain \xc3\xa4\xe2\x82\xac", "plain \xc3\xa4\xe2\x82\xac");
        CHECK(text_escaped, "a\nb\tc\r", "a\\nb\\tc\\r");
        CHECK(text_escaped, "\x1b[31mred", "\\x1b[31mred");
        CHECK(text_escaped, "\x00\x7f", "\\x00\\x7f");
        CHECK(text_escaped, "\xff\xc3", "\\xff\\xc3");
        CHECK(text_escaped, "\xc0\xaf", "\\xc0\\xaf");          /* overlong slash */
        CHECK(text_escaped, "\xed\xa0\x80", "\\xed\\xa0\\x80"); /* surrogate */
        CHECK(text_escaped, "\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80");
        CHECK(text_escaped,
              "\xc2\x9b"
              "31m",
              "\\x9b31m");                              /* C1: CSI */
        CHECK(text_escaped, "\xe2\x80\xae", "\\u202e"); /* right-to-left override */
        CHECK(text_escaped, "back\\slash", "back\\slash");
}

TEST(tsv_can_be_undone) {
        CHECK(text_tsv, "a\tb\\n\n", "a\\tb\\\\n\\n");
}

TEST(arguments_are_quoted_where_a_shell_needs_it) {
        CHECK(text_quoted, "plain-1.0/x", "plain-1.0/x");
        CHECK(text_quoted, "", "''");
        CHECK(text_quoted, "a b", "'a b'");
        CHECK(text_quoted, "it's", "'it'\\''s'");
        CHECK(text_quoted, "'", "''\\'''");
        CHECK(text_quoted, "$x;", "'$x;'");
        CHECK(text_quoted, "a\nb", "'a\\nb'");
}

TEST(widths_count_columns) {
        ck_assert_uint_eq(text_width(eq_str("abc")), 3);
        ck_assert_uint_eq(text_width(eq_str("\xc3\xa4")), 1);
        ck_assert_uint_eq(text_width(eq_str("a\xcc\x88")), 1);    /* a + combining diaeresis */
        ck_assert_uint_eq(text_width(eq_str("\xe6\xbc\xa2")), 2); /* Han */
        ck_assert_uint_eq(text_width(eq_str("")), 0);
}

static const char *cut(const char *s, unsigned columns) {
        static char out[256];
        EqBuffer b = EQ_BUFFER_NULL;

        text_cut(&b, eq_str(s), columns);
        (void)snprintf(out, sizeof(out), "%s", text_end(&b));
        eq_buffer_done(&b);
        return out;
}

TEST(cutting_never_splits_a_character_nor_exceeds_the_width) {
        ck_assert_str_eq(cut("abcdef", 6), "abcdef");
        ck_assert_str_eq(cut("abcdef", 5), "ab...");
        ck_assert_str_eq(cut("abcdef", 3), "...");
        ck_assert_str_eq(cut("abcdef", 2), "..");
        ck_assert_str_eq(cut("abcdef", 0), "");
        ck_assert_str_eq(cut("\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2", 5), "\xe6\xbc\xa2...");
        ck_assert_str_eq(cut("\xe6\xbc\xa2\xe6\xbc\xa2\xe6\xbc\xa2", 4), "...");
}

TEST(long_text_is_formatted_whole) {
        EqBuffer b = EQ_BUFFER_NULL;
        char s[2000];

        memset(s, 'x', sizeof(s) - 1);
        s[sizeof(s) - 1] = 0;
        text_printf(&b, "<%s>", s);
        ck_assert_uint_eq(b.len, sizeof(s) + 1);
        ck_assert_int_eq(b.data[b.len - 1], '>');
        eq_buffer_done(&b);
}

RUN_TESTS("text", 10, test_control_characters_and_bad_utf8_are_escaped, test_tsv_can_be_undone,
          test_arguments_are_quoted_where_a_shell_needs_it, test_widths_count_columns,
          test_cutting_never_splits_a_character_nor_exceeds_the_width, test_long_text_is_formatted_whole)
