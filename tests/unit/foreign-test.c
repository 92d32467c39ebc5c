/* SPDX-License-Identifier: MIT */
/* Files in the directory of a store that are cut off, empty, of somebody else, or of another version of eqd: each is refused in words
 * that name it, or left alone, and never written to; and so are those by names that eqd makes itself. */
#include <sched.h>
#include <stdlib.h>

#include "store/crc32c.h"
#include "store/hint.h"

#include "store-world.h"

/* What is in the file's place. */
typedef enum How { EMPTY, SHORT, HALF, TEXT, LARGE_TEXT, LATER, EARLIER, OTHER_NUMBER, DIRECTORY, LINK, _HOW_MAX } How;

enum { FILE_MAX = 4 * 1024 * 1024 };

/* One of each kind, as a life leaves it. */
static char log_name[SEGMENT_NAME_MAX], hint_name_[SEGMENT_NAME_MAX], other_log[SEGMENT_NAME_MAX],
        other_hint[SEGMENT_NAME_MAX];

static void choose(const char *path, const char *name) {
        uint64_t number;
        bool is_log = segment_parse_name(name, &number), is_hint = hint_parse_name(name, &number);
        if (is_log)
                strcpy(number == 2 ? log_name : number == 3 ? other_log : (char[SEGMENT_NAME_MAX]) { 0 }, name);
        if (is_hint)
                strcpy(number == 2 ? hint_name_ : number == 3 ? other_hint : (char[SEGMENT_NAME_MAX]) { 0 }, name);
}

/* What was in them. */
typedef struct Model {
        char data[SEGMENT];
        size_t n;
} Model;
static Model the_log, the_other_log, the_hint, the_other_hint;

static size_t read_file(const char *name, char *data, size_t size);

static void keep_model(Model *m, const char *name) {
        ck_assert(name[0]);
        m->n = read_file(name, m->data, sizeof(m->data));
}

/* Four segments with hints and nothing in them that is dead, so that they stay. */
static void fill(void) {
        begin(SEGMENT);
        put_queue(0, 'x');
        while (W.want[0].last_seq < 1200) {
                ck_assert_int_eq(put_group(0, 20), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        for (StoreStats stats = { 0 }; stats.newest < 4; store_stats(W.store, &stats)) {
                put_queue(0, 'x');
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        for (StoreStats stats = { 0 }; stats.n_hints < 3; store_stats(W.store, &stats))
                (void)sched_yield(); /* with more segments those of others would count */
        W.store = store_close(W.store);
        each_file(choose);
        keep_model(&the_log, log_name);
        keep_model(&the_other_log, other_log);
        keep_model(&the_hint, hint_name_);
        keep_model(&the_other_hint, other_hint);
}

static const char *path_of(const char *name) {
        static char path[256];
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        return path;
}

/* As much as fits. */
static size_t read_file(const char *name, char *data, size_t size) {
        int fd = open(path_of(name), O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, data, size);
        close(fd);
        ck_assert_int_ge(n, 0);
        return (size_t)n;
}

static void write_file(const char *name, const char *data, size_t n) {
        (void)unlink(path_of(name));
        int fd = open(path_of(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        ck_assert(fd >= 0 && write(fd, data, n) == (ssize_t)n);
        close(fd);
}

/* Both kinds of files have it there, and a sum over all else, of a segment its header, of a hint all of it. */
static void set_version(char *data, size_t n, int version, bool is_hint) {
        data[8] = (char)version;
        memset(data + 12, 0, 4);
        uint32_t crc = is_hint ? crc32c(crc32c(0, data, 12), data + 16, n - 16) : crc32c(0, data, SEGMENT_HEADER);
        memcpy(data + 12, &crc, sizeof(crc));
}

/* `model`: a good one of its kind. */
static void put_in_place(const char *name, const Model *model, const Model *other, How how) {
        static const char text[] = "not of eqd";
        static char data[SEGMENT];
        bool is_hint = model == &the_hint;
        size_t n = how == OTHER_NUMBER ? other->n : model->n;
        memcpy(data, how == OTHER_NUMBER ? other->data : model->data, n);
        if (how == EMPTY || how == SHORT || how == HALF)
                n = how == EMPTY ? 0 : how == SHORT ? 10 : n / 2;
        else if (how == TEXT || how == LARGE_TEXT) {
                n = how == TEXT ? sizeof(text) - 1 : n;
                for (size_t i = 0; i < n; i++)
                        data[i] = text[i % (sizeof(text) - 1)];
        } else if (how == LATER || how == EARLIER)
                set_version(data, n, (is_hint ? HINT_VERSION : SEGMENT_VERSION) + (how == LATER ? 1 : -1), is_hint);
        if (how == DIRECTORY) {
                (void)unlink(path_of(name));
                ck_assert_int_eq(mkdir(path_of(name), 0700), 0);
        } else if (how == LINK) {
                (void)unlink(path_of(name));
                ck_assert_int_eq(symlink("/dev/null", path_of(name)), 0);
        } else
                write_file(name, data, n);
}

static void take_away(const char *name) {
        ck_assert_int_eq(remove(path_of(name)), 0);
}

/* What is there, in one number; of a directory and a link that it is one. */
static uint64_t sum_of(const char *name) {
        static char data[FILE_MAX];
        struct stat st;
        if (lstat(path_of(name), &st) < 0)
                return 0;
        if (!S_ISREG(st.st_mode))
                return st.st_mode;
        size_t n = read_file(name, data, sizeof(data));
        return (uint64_t)n << 32 | crc32c(1, data, n);
}

/* ---- what keeps eqd from starting ---- */

static const struct {
        How how;
        int result;
        const char *says;
} refusals[] = {
        { EMPTY, -EBADMSG, "not a segment" },
        { SHORT, -EBADMSG, "not a segment" },
        { HALF, -ENODATA, "the size" },
        { TEXT, -EBADMSG, "not a segment" },
        { LARGE_TEXT, -EBADMSG, "not a segment" },
        { LATER, -EPROTONOSUPPORT, "later version" },
        { EARLIER, -EPROTOTYPE, "earlier version" },
        { OTHER_NUMBER, -ENODATA, "the number" },
        { DIRECTORY, -EBADMSG, "not a segment" },
        { LINK, -ELOOP, "cannot read" },
};

TEST(a_segment_that_is_none_is_named_and_left_as_it_is) {
        static char good[FILE_MAX];
        fill();
        size_t n = read_file(log_name, good, sizeof(good));
        for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
                put_in_place(log_name, &the_log, &the_other_log, refusals[i].how);
                uint64_t before = sum_of(log_name);
                int r = try_open();
                ck_assert_msg(r == refusals[i].result, "%zu: %d, %s", i, r, W.error);
                ck_assert_msg(strstr(W.error, log_name) && strstr(W.error, refusals[i].says), "%zu: %s", i, W.error);
                ck_assert_msg(sum_of(log_name) == before, "%zu: it was changed", i);
                take_away(log_name);
                write_file(log_name, good, n);
        }
        reopen();
        compare();
        ck_assert_uint_eq(W.n_damaged + W.n_noticed, 0);
        end();
}

TEST(numbers_that_are_never_given_and_another_table_of_what_runs_are_named) {
        static const char *const names[] = { "log-0000000000000000", "log-00000000ffffffff", "running" };
        fill();
        for (size_t i = 0; i < 3; i++)
                for (How how = SHORT; how <= TEXT; how++) {
                        put_in_place(names[i], &the_log, &the_other_log, how);
                        uint64_t before = sum_of(names[i]);
                        ck_assert_int_eq(try_open(), -EBADMSG);
                        ck_assert(strstr(W.error, names[i]) && strstr(W.error, "move it away"));
                        ck_assert(sum_of(names[i]) == before);
                        take_away(names[i]);
                }
        reopen();
        compare();
        end();
}

TEST(a_file_where_new_segments_are_made_goes_only_if_it_is_one) {
        static const How theirs[] = { TEXT, LARGE_TEXT, LATER, DIRECTORY, LINK }, ours[] = { EMPTY, SHORT, HALF };
        fill();
        for (size_t i = 0; i < sizeof(theirs) / sizeof(theirs[0]); i++) {
                put_in_place("new", &the_log, &the_other_log, theirs[i]);
                uint64_t before = sum_of("new");
                ck_assert_int_eq(try_open(), -EEXIST);
                ck_assert_ptr_nonnull(strstr(W.error, "move it away"));
                ck_assert_msg(sum_of("new") == before, "%zu", i);
                take_away("new");
        }
        for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
                put_in_place("new", &the_log, &the_other_log, ours[i]);
                reopen();
                compare();
                ck_assert_uint_eq(sum_of("new"), 0);
                W.store = store_close(W.store);
        }
        reopen();
        end();
}

/* It may come while eqd runs. */
TEST(a_segment_is_not_made_over_a_file_of_somebody_else) {
        fill();
        reopen();
        put_in_place("new", &the_log, &the_other_log, TEXT);
        uint64_t before = sum_of("new");
        while (W.want[0].last_seq + 20 < SEQS && commit() == STORE_GOOD)
                if (put_group(0, 20) != 0)
                        break;
        ck_assert_int_eq(store_health(W.store), STORE_FAILED);
        ck_assert_int_eq(store_error(W.store), -EEXIST);
        ck_assert(sum_of("new") == before);
        end();
}

/* ---- what is only told ---- */

TEST(a_hint_that_is_none_is_told_and_replaced_only_if_it_was_one) {
        for (How how = 0; how < _HOW_MAX; how++) {
                bool is_theirs = how == TEXT || how == LARGE_TEXT || how == LATER || how == DIRECTORY || how == LINK;
                bool is_told =
                        how != OTHER_NUMBER && how != LINK; /* that of another segment is left by a removed one */
                fill();
                put_in_place(hint_name_, &the_hint, &the_other_hint, how);
                uint64_t before = sum_of(hint_name_);
                reopen();
                compare();
                ck_assert_uint_eq(W.n_damaged, 0);
                ck_assert_msg(W.n_noticed == is_told && (!is_told || strcmp(W.noticed, hint_name_) == 0), "%d: %u, %s",
                              how, W.n_noticed, W.noticed);
                for (StoreStats stats = { 0 }; !is_theirs && stats.n_hints == 0; store_stats(W.store, &stats)) {
                        put_queue(0, 'x');
                        ck_assert_int_eq(commit(), STORE_GOOD);
                }
                W.store = store_close(W.store);
                ck_assert_msg((sum_of(hint_name_) == before) == is_theirs, "%d", how);
                reopen();
                compare();
                ck_assert_uint_eq(W.n_noticed, is_theirs && is_told);
                W.store = store_close(W.store);
                (void)remove(path_of(hint_name_)); /* it went with its segment if it was ours */
                end();
        }
}

TEST(hints_without_a_segment_go_only_if_they_are_hints) {
        static const char stray[] = "hint-00000000000fffff";
        fill();
        for (How how = 0; how < _HOW_MAX; how++)
                for (int i = 0; i < 2; i++) {
                        const char *name = i ? "new-hint" : stray;
                        bool is_theirs =
                                how == TEXT || how == LARGE_TEXT || how == LATER || how == DIRECTORY || how == LINK;
                        put_in_place(name, &the_hint, &the_other_hint, how);
                        uint64_t before = sum_of(name);
                        reopen();
                        ck_assert_uint_eq(W.n_noticed, i && is_theirs);
                        W.store = store_close(W.store);
                        ck_assert_msg(sum_of(name) == (is_theirs ? before : 0), "%s, %d", name, how);
                        if (is_theirs)
                                take_away(name);
                }
        reopen();
        compare();
        end();
}

/* ---- what was kept aside ---- */

static unsigned n_kept;
static void count_kept(const char *path, const char *name) {
        n_kept += strncmp(name, "damaged-", 8) == 0;
}

TEST(what_was_kept_aside_is_never_written_over) {
        static char data[FILE_MAX];
        fill();
        size_t n = read_file(log_name, data, sizeof(data));
        data[SEGMENT_HEADER + RECORD_HEADER]++;
        write_file(log_name, data, n);
        take_away(hint_name_);
        const char kept[] = "damaged-0000000000000002-00000040";
        write_file(kept, "mine", 4);
        uint64_t before = sum_of(kept);
        for (int i = 0; i < 2; i++) {
                reopen();
                ck_assert_uint_eq(W.n_damaged, 1);
                W.store = store_close(W.store);
                n_kept = 0;
                each_file(count_kept);
                ck_assert_uint_eq(n_kept, 2); /* and no third one when it is found again */
        }
        ck_assert(sum_of(kept) == before);
        reopen();
        end();
}

RUN_TESTS("foreign", 60, test_a_segment_that_is_none_is_named_and_left_as_it_is,
          test_numbers_that_are_never_given_and_another_table_of_what_runs_are_named,
          test_a_file_where_new_segments_are_made_goes_only_if_it_is_one,
          test_a_segment_is_not_made_over_a_file_of_somebody_else,
          test_a_hint_that_is_none_is_told_and_replaced_only_if_it_was_one,
          test_hints_without_a_segment_go_only_if_they_are_hints, test_what_was_kept_aside_is_never_written_over)
