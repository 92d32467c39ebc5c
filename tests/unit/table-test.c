/* SPDX-License-Identifier: MIT */
#include "eqctl/table.h"

#include <string.h>

#include "eqctl/text.h"
#include "test.h"

static void add(Table *t, const char *text, const char *color) {
        text_cstr(&t->text, text);
        table_cell(t, color);
}

static const char *print(const Table *t, unsigned columns, bool color) {
        static char out[4096];
        EqBuffer b = EQ_BUFFER_NULL;

        table_print(t, columns, color, &b);
        (void)snprintf(out, sizeof(out), "%s", text_end(&b));
        eq_buffer_done(&b);
        return out;
}

static Table sample(void) {
        Table t = TABLE_NULL(3);

        t.right = 2;
        add(&t, "ID", NULL), add(&t, "N", NULL), add(&t, "COMMAND", NULL);
        add(&t, "q/1", "32"), add(&t, "10", NULL), add(&t, "echo hello", NULL);
        add(&t, "", NULL), add(&t, "7", NULL), add(&t, "", NULL);
        return t;
}

TEST(columns_are_as_wide_as_their_widest_cell) {
        Table t = sample();

        ck_assert_str_eq(print(&t, 0, false), "ID    N  COMMAND\n"
                                              "q/1  10  echo hello\n"
                                              "      7  \n");
        table_deinit(&t);
}

TEST(colour_takes_no_width_and_is_off_when_not_wanted) {
        Table t = sample();

        ck_assert_str_eq(print(&t, 0, true), "ID    N  COMMAND\n"
                                             "\x1b[32mq/1\x1b[0m  10  echo hello\n"
                                             "      7  \n");
        table_deinit(&t);
}

TEST(lines_are_cut_to_the_width_and_not_beyond) {
        Table t = sample();

        ck_assert_str_eq(print(&t, 16, false), "ID    N  COMMAND\n"
                                               "q/1  10  echo...\n"
                                               "      7  \n");
        for (unsigned w = 1; w < 30; w++) {
                const char *p = print(&t, w, false);
                for (const char *end; *p; p = end + 1) {
                        end = strchr(p, '\n');
                        ck_assert_ptr_nonnull(end);
                        ck_assert_uint_le(text_width(eq_bytes(p, (size_t)(end - p))), w);
                }
        }
        table_deinit(&t);
}

TEST(an_empty_table_prints_nothing) {
        Table t = TABLE_NULL(3);

        ck_assert_str_eq(print(&t, 0, true), "");
        table_deinit(&t);
}

RUN_TESTS("table", 10, test_columns_are_as_wide_as_their_widest_cell,
          test_colour_takes_no_width_and_is_off_when_not_wanted, test_lines_are_cut_to_the_width_and_not_beyond,
          test_an_empty_table_prints_nothing)
