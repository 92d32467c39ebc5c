/* SPDX-License-Identifier: MIT */

#include "base/params.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "test.h"

#define ROWS                                                                                                           \
        ROW(max_active, UINT, 1, 65535, "1", "tasks", true, "a number")                                                \
        ROW(max_bytes, SIZE, 1024, UINT64_C(1) << 40, "256M", "bytes", true, "a size")                                 \
        ROW(any_size, SIZE, 0, UINT64_MAX, "0", "", true, "a size without bounds")                                     \
        ROW(timeout, USEC, 1000, PARAM_INFINITY, "infinity", "", true, "a duration")                                   \
        ROW(grace, USEC, 0, 86400000000, "10s", "", true, "a bounded duration")                                        \
        ROW(rescuer, BOOL, 0, 0, "no", "", true, "a flag")                                                             \
        ROW(on_full, ENUM, 0, 0, "reject", "reject block drop-oldest", true, "a word")                                 \
        ROW(rate, RATE, 1, 1000000, "infinity", "", true, "a rate")                                                    \
        ROW(socket_mode, OCTAL, 0, 0777, "0660", "", true, "a mode")                                                   \
        ROW(description, TEXT, 0, 16, "", "", true, "a text")                                                          \
        ROW(user, USER, 0, 0, "", "", false, "a user")                                                                 \
        ROW(group, GROUP, 0, 0, "", "", false, "a group")                                                              \
        ROW(allow, ACCESS, 0, 4, "", "", true, "a list")

#define ROW(name, type, ...) PARAM_FIELD_##type(name)
typedef struct Thing {
        ROWS
} Thing;
#undef ROW
#define ROW(...) PARAM_ROW(Thing, 0, "Thing", __VA_ARGS__),
static const Param rows[] = { ROWS };
static const ParamTable table = { rows, ELEMENTSOF(rows) };

static int look_up_user(const char *name, uint32_t *ret) {
        *ret = 1000;
        return strcmp(name, "anna") == 0 ? 0 : strcmp(name, "broken") == 0 ? -EIO : -ENOENT;
}
static int look_up_group(const char *name, uint32_t *ret) {
        *ret = 50;
        return strcmp(name, "staff") == 0 ? 0 : -ENOENT;
}
static const ParamLookup lookup = { look_up_user, look_up_group };

static char error[PARAM_ERROR_MAX];

static const Param *row(const char *name) {
        const Param *p = params_find(&table, name, strlen(name));
        ck_assert_msg(p, "%s", name);
        return p;
}

static int set(Thing *t, const char *name, const char *text) {
        error[0] = '\0';
        return param_set(row(name), t, text, strlen(text), &lookup, error, sizeof(error));
}

static const char *print(const Thing *t, const char *name) {
        static char text[PARAM_PRINT_MAX];
        param_print(row(name), t, text);
        return text;
}

static void done(Thing *t) {
        params_deinit(&table, t);
}
#define THING(t)                                                                                                       \
        _cleanup_(done) Thing t;                                                                                       \
        ck_assert_int_eq(params_init(&table, &t), 0)

/* Rows: what is written, and how it reads when printed; NULL: refused. */
typedef struct Case {
        const char *name, *text, *printed;
} Case;

static const Case cases[] = {
        { "max_active", "1", "1" },
        { "max_active", "65535", "65535" },
        { "max_active", "  7 \t", "7" },
        { "max_active", "007", "7" },
        { "max_active", "0", NULL },
        { "max_active", "65536", NULL },
        { "max_active", "x", NULL },
        { "max_active", "3x", NULL },
        { "max_active", "-1", NULL },
        { "max_active", "+1", NULL },
        { "max_active", "1 2", NULL },
        { "max_active", "18446744073709551617", NULL }, /* 2^64 + 1 */
        { "max_bytes", "1024", "1K" },
        { "max_bytes", "1025", "1025" },
        { "max_bytes", "64k", "64K" },
        { "max_bytes", "2048M", "2G" },
        { "max_bytes", "1T", "1T" },
        { "max_bytes", "1025G", NULL },
        { "max_bytes", "1023", NULL },
        { "max_bytes", "16777217T", NULL }, /* 2^64 + 2^40 */
        { "max_bytes", "1KB", NULL },
        { "max_bytes", "K", NULL },
        { "max_bytes", "1.5M", NULL },
        { "any_size", "18446744073709551615", "18446744073709551615" },
        { "any_size", "0", "0" },
        { "timeout", "10s", "10s" },
        { "timeout", "90", "1m30s" },
        { "timeout", "90s", "1m30s" },
        { "timeout", "5m", "5m" },
        { "timeout", "5min", "5m" },
        { "timeout", "1h30m", "1h30m" },
        { "timeout", "1h 30m", "1h30m" },
        { "timeout", "30 m", "30m" },
        { "timeout", "2d", "2d" },
        { "timeout", "1w", "7d" },
        { "timeout", "30 sec", "30s" },
        { "timeout", "1 hour 5min 2 seconds", "1h5m2s" },
        { "timeout", "2 days", "2d" },
        { "timeout", "1 hr", "1h" },
        { "timeout", "500ms", "500ms" },
        { "timeout", "1500us", "1ms500us" },
        { "timeout", "infinity", "infinity" },
        { "timeout", "999us", NULL },
        { "timeout", "0", NULL },
        { "timeout", "1y", NULL },
        { "timeout", "s", NULL },
        { "timeout", "-1s", NULL },
        { "timeout", "1.5s", NULL },
        { "timeout", "18446744073709551615us", NULL }, /* would be infinity */
        { "timeout", "99999999999999999999d", NULL },
        { "timeout", "infinity 1s", NULL },
        { "grace", "0", "0s" },
        { "grace", "1d", "1d" },
        { "grace", "infinity", NULL },
        { "grace", "24h1us", NULL },
        { "rescuer", "yes", "yes" },
        { "rescuer", "TRUE", "yes" },
        { "rescuer", "1", "yes" },
        { "rescuer", "on", "yes" },
        { "rescuer", "no", "no" },
        { "rescuer", "false", "no" },
        { "rescuer", "0", "no" },
        { "rescuer", "off", "no" },
        { "rescuer", "maybe", NULL },
        { "on_full", "block", "block" },
        { "on_full", "Drop-Oldest", "drop-oldest" },
        { "on_full", "drop", NULL },
        { "on_full", "reject block", NULL },
        { "rate", "10/s", "10/s" },
        { "rate", "10/1s", "10/s" },
        { "rate", " 100 / min ", "100/m" },
        { "rate", "1/10s", "1/10s" },
        { "rate", "1/10", "1/10s" },
        { "rate", "1/1h30m", "1/1h30m" },
        { "rate", "1/h30m", "1/1h30m" },
        { "rate", "100/minute", "100/m" },
        { "rate", "1/11h", "1/11h" },
        { "rate", "1/d", "1/d" },
        { "rate", "1000000/ms", "1000000/ms" },
        { "rate", "1/31d", "1/31d" },
        { "rate", "infinity", "infinity" },
        { "rate", "0/s", NULL },
        { "rate", "1000001/s", NULL },
        { "rate", "1/31d1us", NULL },
        { "rate", "1/999us", NULL },
        { "rate", "1/0s", NULL },
        { "rate", "1/", NULL },
        { "rate", "/s", NULL },
        { "rate", "1", NULL },
        { "rate", "1/x", NULL },
        { "rate", "1/s x", NULL },
        { "rate", "1/s/s", NULL },
        { "rate", "-1/s", NULL },
        { "rate", "1/infinity", NULL },
        { "rate", "99999999999999999999/s", NULL },
        { "rate", "1/99999999999999999999d", NULL },
        { "socket_mode", "0600", "0600" },
        { "socket_mode", "666", "0666" },
        { "socket_mode", "0", "0000" },
        { "socket_mode", "1000", NULL },
        { "socket_mode", "8", NULL },
        { "socket_mode", "77777777777777777777777777", NULL },
        { "description", "sixteen bytes!!!", "sixteen bytes!!!" },
        { "description", "seventeen bytes!!", NULL },
        { "user", "anna", "anna" },
        { "user", "1000", "1000" },
        { "user", "nobody-there", NULL },
        { "user", "4294967295", NULL },
        { "user", "broken", NULL },
        { "group", "staff", "staff" },
        { "group", "anna", NULL },
        { "allow", "anna,@staff 7 , @8", "anna @staff 7 @8" },
        { "allow", "1 2 3 4 5", NULL },
        { "allow", "@", NULL },
        { "allow", ",", NULL },
        { "allow", "1 nobody-there", NULL },
};

TEST(values_are_read_within_their_bounds_and_printed_in_canonical_form) {
        THING(t);
        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                const Case *c = &cases[i];
                ck_assert_int_eq(set(&t, c->name, ""), 0);
                char *before = strdup(print(&t, c->name));
                int r = set(&t, c->name, c->text);
                ck_assert_msg(r == (c->printed ? 0 : -EINVAL), "%s=%s: %d %s", c->name, c->text, r, error);
                ck_assert_msg(strcmp(print(&t, c->name), c->printed ? c->printed : before) == 0, "%s=%s: %s", c->name,
                              c->text, print(&t, c->name));
                if (!c->printed)
                        ck_assert_msg(strncmp(error, c->name, strlen(c->name)) == 0, "%s", error);
                free(before);
        }
}

TEST(what_is_printed_reads_back_as_the_same_value) {
        uint64_t seed = 88172645463325252u;
        char text[PARAM_PRINT_MAX];

        THING(t);
        for (int i = 0; i < 20000; i++) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                uint64_t u = seed >> (seed & 63);
                t.any_size = u;
                t.timeout_usec = MAX(u, 1000u);
                Thing before = t;
                strcpy(text, print(&t, "any_size"));
                ck_assert_int_eq(set(&t, "any_size", text), 0);
                strcpy(text, print(&t, "timeout"));
                ck_assert_msg(set(&t, "timeout", text) == 0, "%s: %s", text, error);
                ck_assert(t.any_size == before.any_size && t.timeout_usec == before.timeout_usec);
        }
}

TEST(members_have_the_values_that_the_text_means) {
        THING(t);
        ck_assert_uint_eq(t.max_active, 1);
        ck_assert_uint_eq(t.max_bytes, 256u << 20);
        ck_assert_uint_eq(t.timeout_usec, PARAM_INFINITY);
        ck_assert_uint_eq(t.grace_usec, 10 * USEC_PER_SEC);
        ck_assert(!t.rescuer && t.on_full == 0 && t.socket_mode == 0660);
        ck_assert(!t.description && !t.user.text && t.user.id == PARAM_NO_ID && t.allow.n == 0);

        ck_assert_int_eq(set(&t, "on_full", "drop-oldest"), 0);
        ck_assert_int_eq(set(&t, "rescuer", "yes"), 0);
        ck_assert_int_eq(set(&t, "user", "anna"), 0);
        ck_assert_int_eq(set(&t, "group", "42"), 0);
        ck_assert_int_eq(set(&t, "timeout", "1h30m2s3ms4us"), 0);
        ck_assert(t.on_full == 2 && t.rescuer && t.user.id == 1000 && t.group.id == 42);
        ck_assert_uint_eq(t.timeout_usec, 5402003004u);
}

TEST(an_empty_value_takes_the_default_back) {
        static const char *const pairs[][2] = {
                { "max_active", "7" },     { "max_bytes", "7M" }, { "timeout", "7s" }, { "rescuer", "yes" },
                { "on_full", "block" },    { "user", "anna" },    { "allow", "1 @2" }, { "socket_mode", "0600" },
                { "description", "text" }, { "group", "staff" },
        };
        THING(t);
        for (size_t i = 0; i < ELEMENTSOF(pairs); i++) {
                char *before = strdup(print(&t, pairs[i][0]));
                ck_assert_int_eq(set(&t, pairs[i][0], pairs[i][1]), 0);
                ck_assert_str_ne(print(&t, pairs[i][0]), before);
                ck_assert_int_eq(set(&t, pairs[i][0], " \t "), 0);
                ck_assert_str_eq(print(&t, pairs[i][0]), before);
                free(before);
        }
}

TEST(an_error_says_what_is_wrong_and_what_is_allowed) {
        THING(t);
        set(&t, "max_active", "x");
        ck_assert_str_eq(error, "max_active: \"x\" is no number; 1..65535 tasks");
        set(&t, "max_active", "70000");
        ck_assert_str_eq(error, "max_active: \"70000\" is out of range; 1..65535 tasks");
        set(&t, "max_bytes", "lots");
        ck_assert_str_eq(error, "max_bytes: \"lots\" is no size; 1K..1T bytes, such as 4096, 64K, 256M, 1G");
        set(&t, "timeout", "soon");
        ck_assert_str_eq(error, "timeout: \"soon\" is no duration; 1ms..infinity, such as 500ms, 10s, 1h30m, 2d");
        set(&t, "on_full", "wait");
        ck_assert_str_eq(error, "on_full: \"wait\" is none of the words; reject, block or drop-oldest");
        set(&t, "rescuer", "2");
        ck_assert_str_eq(error, "rescuer: \"2\" is neither; yes or no");
        set(&t, "socket_mode", "rw");
        ck_assert_str_eq(error, "socket_mode: \"rw\" is no file mode; 0000..0777, octal");
        set(&t, "user", "bob");
        ck_assert_str_eq(error, "user: \"bob\" is no known user; name or number of a user");
        set(&t, "allow", "anna @wheel");
        ck_assert_str_eq(error, "allow: \"wheel\" is no known group; name or number of a group");
}

TEST(without_a_lookup_only_numbers_are_taken_and_the_error_says_how_to_find_them) {
        THING(t);
        ck_assert_int_eq(param_set(row("user"), &t, "anna", 4, NULL, error, sizeof(error)), -EINVAL);
        ck_assert(strstr(error, "getent passwd"));
        ck_assert_int_eq(param_set(row("allow"), &t, "1 @staff", 8, NULL, error, sizeof(error)), -EINVAL);
        ck_assert(strstr(error, "getent group"));
        ck_assert_int_eq(param_set(row("allow"), &t, "1 @2", 4, NULL, error, sizeof(error)), 0);
        ck_assert_uint_eq(t.allow.n, 2);
}

TEST(hostile_text_is_escaped_and_cut_in_errors) {
        char text[PARAM_TEXT_MAX + 100], quoted[64];

        THING(t);
        memset(text, '\x1b', sizeof(text));
        ck_assert_int_eq(param_set(row("max_active"), &t, text, 500, NULL, error, sizeof(error)), -EINVAL);
        for (const char *c = error; *c; c++)
                ck_assert(*c >= ' ' && *c < 0x7f);
        ck_assert_int_eq(param_set(row("max_active"), &t, text, sizeof(text), NULL, error, sizeof(error)), -EINVAL);
        ck_assert(strstr(error, "at most 1024"));
        for (size_t n_plain = 0; n_plain < 64; n_plain++)
                for (size_t n = n_plain; n < 100; n++) {
                        memset(text, '\xff', sizeof(text));
                        memset(text, 'a', n_plain);
                        ck_assert_ptr_eq(param_quote(text, n, quoted), quoted);
                        ck_assert_uint_lt(strlen(quoted), sizeof(quoted));
                        ck_assert_int_eq(quoted[strlen(quoted) - 1], '"');
                }
}

TEST(a_name_may_be_written_in_three_ways) {
        static const char *const names[] = { "max_active", "MaxActive", "max-active", "MAXACTIVE", "m_a-x_active" };
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                ck_assert_ptr_eq(params_find(&table, names[i], strlen(names[i])), &rows[0]);
        ck_assert_ptr_null(params_find(&table, "max active", 10));
        ck_assert_ptr_null(params_find(&table, "max_activ", 9));
        ck_assert_ptr_null(params_find(&table, "", 0));
        ck_assert_ptr_null(params_find(&table, "__", 2));
}

TEST(the_kernels_names_in_milliseconds_are_those_of_durations) {
        static const struct {
                const char *name, *value, *means;
        } values[] = { { "timeout_ms", "10", "10ms" },
                       { "TimeoutMs", "10", "10ms" },
                       { "timeout", "10", "10" },
                       { "timeout_ms", "10s", "10s" },
                       { "timeout_ms", "infinity", "infinity" },
                       { "timeout_ms", "", "" },
                       { "timeout_ms", "123456789012345678901234567890", "123456789012345678901234567890" } };
        for (size_t i = 0; i < ELEMENTSOF(values); i++) {
                const Param *p = row(values[i].name);
                char room[PARAM_MSEC_MAX];
                size_t n = strlen(values[i].value);
                const char *means =
                        param_value_as(p, values[i].name, strlen(values[i].name), values[i].value, &n, room);
                ck_assert_str_eq(p->name, "timeout");
                ck_assert_uint_eq(n, strlen(values[i].means));
                ck_assert_int_eq(memcmp(means, values[i].means, n), 0);
        }
        ck_assert_ptr_null(params_find(&table, "max_active_ms", 13)); /* is no time */
        ck_assert_ptr_null(params_find(&table, "ms", 2));
}

TEST(an_unknown_name_is_answered_with_the_nearest_or_with_all) {
        char name[300];

        ck_assert_int_eq(params_unknown(&table, "Thing", "MaxActiv", 8, error, sizeof(error)), -EINVAL);
        ck_assert_str_eq(error, "\"MaxActiv\" is not known here; did you mean max_active?");
        params_unknown(&table, NULL, "tiemout", 7, error, sizeof(error));
        ck_assert(strstr(error, "did you mean timeout?"));
        params_unknown(&table, NULL, "weight", 6, error, sizeof(error));
        ck_assert(strstr(error, "there are max_active max_bytes any_size timeout"));
        params_unknown(&table, "Other", "timeout", 7, error, sizeof(error));
        ck_assert(!strstr(error, "did you mean"));
        memset(name, 'x', sizeof(name));
        params_unknown(&table, NULL, name, sizeof(name), error, sizeof(error));
        ck_assert(strstr(error, "there are max_active"));
}

TEST(access_is_by_user_by_group_or_not_at_all) {
        const gid_t groups[] = { 3, 50 };

        THING(t);
        ck_assert(!param_access_allows(&t.allow, 0, 0, groups, 2));
        ck_assert_int_eq(set(&t, "allow", "anna @staff"), 0);
        ck_assert(param_access_allows(&t.allow, 1000, 1, NULL, 0));
        ck_assert(param_access_allows(&t.allow, 7, 50, NULL, 0));
        ck_assert(param_access_allows(&t.allow, 7, 7, groups, 2));
        ck_assert(!param_access_allows(&t.allow, 7, 7, groups, 1));
        ck_assert(!param_access_allows(&t.allow, 50, 1000, groups, 1)); /* numbers of the other kind */
}

TEST(copies_own_their_texts) {
        static const char *const names[] = { "description", "user", "group", "allow", "max_active" };
        static const char *const texts[] = { "text", "anna", "staff", "anna @staff", "9" };
        THING(a);
        THING(b);
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                ck_assert_int_eq(set(&a, names[i], texts[i]), 0);
                ck_assert_int_eq(param_copy(row(names[i]), &b, &a), 0);
                ck_assert_int_eq(set(&a, names[i], ""), 0);
                ck_assert_str_eq(print(&b, names[i]), texts[i]);
        }
        ck_assert(b.user.id == 1000 && b.allow.n == 2 && b.allow.entries[1].id == 50);
        for (size_t i = 0; i < ELEMENTSOF(names); i++)
                ck_assert_int_eq(param_copy(row(names[i]), &b, &a), 0);
        ck_assert(!b.description && !b.user.text && !b.allow.text);
}

TEST(without_memory_nothing_changes) {
        static const char *const names[] = { "description", "user", "allow" };
        static const char *const texts[] = { "new", "7", "7 @8" };

        THING(t);
        THING(empty);
        set(&t, "description", "old");
        set(&t, "user", "anna");
        set(&t, "allow", "anna");
        for (size_t i = 0; i < ELEMENTSOF(names); i++) {
                char *before = strdup(print(&t, names[i]));
                for (long n = 1; n <= (i == 2 ? 2 : 1); n++) {
                        fault_set(FAULT_ALLOC, n, true);
                        ck_assert_int_eq(set(&t, names[i], texts[i]), -ENOMEM);
                        ck_assert_int_gt(strlen(error), 0);
                        fault_set(FAULT_ALLOC, n, true);
                        ck_assert_int_eq(param_copy(row(names[i]), &empty, &t), -ENOMEM);
                        fault_set(FAULT_ALLOC, 0, false);
                        ck_assert_str_eq(print(&t, names[i]), before);
                        ck_assert_str_eq(print(&empty, names[i]), "");
                }
                free(before);
        }
}

RUN_TESTS("params", 30, test_values_are_read_within_their_bounds_and_printed_in_canonical_form,
          test_what_is_printed_reads_back_as_the_same_value, test_members_have_the_values_that_the_text_means,
          test_an_empty_value_takes_the_default_back, test_an_error_says_what_is_wrong_and_what_is_allowed,
          test_without_a_lookup_only_numbers_are_taken_and_the_error_says_how_to_find_them,
          test_hostile_text_is_escaped_and_cut_in_errors, test_a_name_may_be_written_in_three_ways,
          test_the_kernels_names_in_milliseconds_are_those_of_durations,
          test_an_unknown_name_is_answered_with_the_nearest_or_with_all, test_access_is_by_user_by_group_or_not_at_all,
          test_copies_own_their_texts, test_without_memory_nothing_changes)
