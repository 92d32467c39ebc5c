/* SPDX-License-Identifier: MIT */
/* Hints: a start with them tells what a start without them tells, and reads next to nothing; one that is not good is as none. */
#include "store/hint.h"

#include <sched.h>
#include <sys/mman.h>

#include "base/util.h"
#include "store-world.h"
#include "store/crc32c.h"
#include "store/parts.h"

/* Bodies of one kind are large here, others of one byte. */
static uint64_t read_at_opening(void) {
        StoreStats stats;
        store_stats(W.store, &stats);
        return stats.open_bytes;
}

static uint64_t n_used(void) {
        StoreStats stats;
        store_stats(W.store, &stats);
        return stats.n_hints_used;
}

static unsigned n_logs, n_hints;

/* Of a segment that is there: one that compaction took while its hint was being written leaves it for a moment. */
static bool is_hint(const char *name) {
        uint64_t number;
        char path[128], log[SEGMENT_NAME_MAX];
        if (!hint_parse_name(name, &number))
                return false;
        segment_name(number, log);
        snprintf(path, sizeof(path), "%s/%s", W.dir, log);
        return access(path, F_OK) == 0;
}

static void count_file(const char *path, const char *name) {
        uint64_t number;
        n_logs += segment_parse_name(name, &number);
        n_hints += is_hint(name);
}

static void count_files(void) {
        n_logs = n_hints = 0;
        each_file(count_file);
}

static void remove_hint(const char *path, const char *name) {
        uint64_t number;
        if (hint_parse_name(name, &number))
                ck_assert_int_eq(unlink(path), 0);
}

static bool has_file(const char *name) {
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        return access(path, F_OK) == 0;
}

/* Until the threads have made so many hints, of whatever is sealed meanwhile. */
static void wait_for_hints(uint64_t n) {
        StoreStats stats;
        do {
                put_queue(0, 'w');
                ck_assert_int_eq(commit(), STORE_GOOD);
                store_stats(W.store, &stats);
        } while (stats.n_hints < n);
}

static bool all_sealed_have_hints(void) {
        StoreStats stats;
        char log[SEGMENT_NAME_MAX], hint[SEGMENT_NAME_MAX];
        store_stats(W.store, &stats);
        for (uint64_t number = stats.oldest; number < stats.newest; number++) {
                segment_name(number, log);
                hint_name(number, hint);
                if (has_file(log) && !has_file(hint))
                        return false;
        }
        return true;
}

/* Nothing is written meanwhile: it would seal more, as fast as the threads make hints or faster. */
static void wait_for_all_hints(void) {
        put_queue(0, 'w');
        ck_assert_int_eq(commit(), STORE_GOOD); /* which segments there were before is known then */
        while (!all_sealed_have_hints())
                (void)sched_yield();
}

/* Some segments of lives. */
static void fill(int steps) {
        begin(SEGMENT);
        W.brief = true;
        for (unsigned i = 0; i < QUEUES; i++)
                put_queue(i, 'a');
        for (int i = 0; i < steps; i++) {
                step();
                if (i % 50 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        ck_assert_int_eq(commit(), STORE_GOOD);
}

static void restart(void) {
        compare_reopened();
        ck_assert_uint_eq(W.n_damaged, 0);
}

TEST(a_start_with_hints_tells_what_one_without_tells) {
        fill(6000);
        W.store = store_close(W.store);
        for (int round = 0; round < 4; round++) {
                reopen(); /* what has no hint gets one in the background */
                compare();
                ck_assert_uint_gt(W.n_brief, 100);
                for (int i = 0; i < 500; i++)
                        step();
                ck_assert_int_eq(commit(), STORE_GOOD);
                if (round > 0)
                        ck_assert_uint_gt(n_used(), 0);
                restart();
                uint64_t with = n_used();
                W.store = store_close(W.store);
                each_file(remove_hint);
                reopen();
                compare();
                ck_assert_uint_eq(n_used(), 0);
                ck_assert_uint_gt(with, 0);
                count_files();
                wait_for_hints(1);
                W.store = store_close(W.store);
        }
        reopen();
        compare();
        end();
}

TEST(a_start_without_hints_makes_them_in_the_background) {
        fill(3000);
        W.store = store_close(W.store);
        each_file(remove_hint);
        count_files();
        ck_assert_uint_gt(n_logs, 3);
        ck_assert_uint_eq(n_hints, 0);
        reopen();
        wait_for_all_hints();
        restart();
        ck_assert_uint_ge(n_used(), 3);
        end();
}

/* ---- the threads ---- */

static uint64_t first_logs[2] = { UINT64_MAX, UINT64_MAX }; /* the oldest */

/* A directory tells its files in any order, and the newest log is hardly begun. */
static void take_log(const char *path, const char *name) {
        uint64_t number;
        if (!segment_parse_name(name, &number))
                return;
        for (size_t i = 0; i < ELEMENTSOF(first_logs); i++)
                if (number < first_logs[i]) {
                        uint64_t newer = first_logs[i];
                        first_logs[i] = number;
                        number = newer;
                }
}

static bool has_hint(uint64_t number) {
        char path[128], name[SEGMENT_NAME_MAX];
        hint_name(number, name);
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        return access(path, F_OK) == 0;
}

TEST(the_store_thread_reads_one_for_a_reader_that_is_behind) {
        static Store s; /* as its threads see it, of which there are none */
        HintMaker present = { .segment = SEGMENT_NULL };
        fill(3000);
        W.store = store_close(W.store);
        each_file(remove_hint);
        each_file(take_log);
        s.victim = (Segment)SEGMENT_NULL;
        s.dir_fd = open(W.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert(s.dir_fd >= 0 && first_logs[1] != UINT64_MAX && reader_init(&s) == 0);

        s.making = &present;
        hints_want(&s, first_logs[0]);
        ck_assert(!hints_are_wanted(&s)); /* one may wait */
        hints_want(&s, first_logs[1]);
        ck_assert(hints_are_wanted(&s));
        hints_step(&s, 1);
        ck_assert(s.hints.n == 1 && s.hints.own && s.hints.own->number == first_logs[1]);
        unsigned n_steps = 0;
        for (; !s.hints.own->is_read; n_steps++) {
                ck_assert(hints_are_wanted(&s));
                hints_step(&s, 4096);
        }
        ck_assert_uint_gt(n_steps, SEGMENT / 8192);
        ck_assert(!hints_are_wanted(&s) && s.making == &present && !has_hint(first_logs[1]));

        s.making = NULL;
        ck_assert(hints_are_wanted(&s));
        hints_step(&s, 1);
        ck_assert(s.making && s.making->number == first_logs[1] && s.making->is_read && !s.hints.own);
        ck_assert_int_eq(hint_maker_step(s.making, s.dir_fd), 1);
        ck_assert(has_hint(first_logs[1]));
        hints_deinit(&s.hints);
        reader_deinit(&s);
        close(s.dir_fd);
        each_file(remove_hint); /* it says that nothing lives */
        reopen();
        compare();
        end();
}

/* ---- what is read ---- */

TEST(a_start_reads_some_bytes_for_each_task_however_large_it_is) {
        enum { N = 2000, LARGE = 10000 };
        static char body[LARGE];
        begin(1 << 20);
        W.brief = true;
        put_queue(0, 'x');
        memset(body, 'b', sizeof(body));
        for (uint64_t seq = 1; seq <= N; seq++)
                if (seq % 5) { /* the others are told as a whole */
                        ck_assert_int_eq(put(STORE_TASK, 0, seq, 1, body, sizeof(body)), 0);
                        ck_assert_int_eq(commit(), STORE_GOOD);
                }
        wait_for_all_hints(); /* or one is read as a whole */
        W.store = store_close(W.store);
        reopen();
        ck_assert_uint_eq(W.n_brief, N * 4 / 5);
        ck_assert_uint_lt(read_at_opening(), N * 4 / 5 * 60);
        end();
}

/* ---- hints that are not good ---- */

static char hint_path[128];

static void find_hint(const char *path, const char *name) {
        struct stat st;
        if (is_hint(name) && stat(path, &st) == 0 &&
            st.st_size > HINT_HEADER) /* that of a segment with nothing in it has no more */
                strcpy(hint_path, path);
}

/* Maps some hint for a change of it. */
static char *open_hint(size_t *ret_size) {
        struct stat st;
        each_file(find_hint);
        int fd = open(hint_path, O_RDWR | O_CLOEXEC);
        ck_assert(fd >= 0 && fstat(fd, &st) == 0);
        char *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        ck_assert_ptr_ne(map, MAP_FAILED);
        close(fd);
        *ret_size = (size_t)st.st_size;
        return map;
}

static bool hint_is_left_alone(void) {
        int fd = open(W.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = hint_check_owner(fd, strrchr(hint_path, '/') + 1);
        close(fd);
        return r == -EEXIST;
}

/* It is told and not used, all others are, and nothing is different. */
static void expect_ignored(void) {
        count_files(); /* now: when it is open, compaction may be at work */
        reopen();
        compare();
        ck_assert_uint_eq(W.n_damaged, 0);
        ck_assert_uint_eq(n_used(), n_hints - 1);
        ck_assert_uint_eq(W.n_noticed, 1);
        ck_assert_str_eq(W.noticed, strrchr(hint_path, '/') + 1);
        wait_for_hints(1);
        W.store = store_close(W.store);
        if (access(hint_path, F_OK) == 0 && hint_is_left_alone()) /* see the test foreign */
                ck_assert_int_eq(unlink(hint_path), 0);
}

/* All segments have hints. */
static void fill_and_close(void) {
        fill(2000);
        do { /* compaction may take some meanwhile */
                put_queue(0, 'w');
                ck_assert_int_eq(commit(), STORE_GOOD);
                count_files();
        } while (n_hints < 2);
        W.store = store_close(W.store);
        count_files();
        ck_assert_uint_gt(n_hints, 1);
        reopen();
        ck_assert_uint_eq(n_used(), n_hints);
        W.store = store_close(W.store);
}

TEST(a_damaged_hint_is_ignored_wherever_the_damage_is) {
        fill_and_close();
        for (size_t i = 0; i < 40; i++) {
                size_t size;
                char *map = open_hint(&size);
                size_t at = i < 24 ? i * 8 % HINT_HEADER + i % 8 : dice(size);
                map[at] ^= (char)(1 << dice(8));
                (void)munmap(map, size);
                expect_ignored();
        }
        reopen();
        end();
}

TEST(a_cut_an_empty_and_a_longer_hint_are_ignored) {
        fill_and_close();
        for (int i = 0; i < 6; i++) {
                struct stat st;
                each_file(find_hint);
                ck_assert_int_eq(stat(hint_path, &st), 0);
                const off_t sizes[] = { 0, 1, HINT_HEADER - 1, HINT_HEADER, st.st_size - 1, st.st_size + HINT_ENTRY };
                ck_assert_int_eq(truncate(hint_path, sizes[i]), 0);
                expect_ignored();
        }
        reopen();
        end();
}

TEST(a_hint_of_another_segment_and_of_another_version_are_ignored) {
        char other[128] = "";
        fill_and_close();
        each_file(find_hint);
        strcpy(other, hint_path);
        uint64_t number;
        ck_assert(hint_parse_name(strrchr(other, '/') + 1, &number));
        for (uint64_t n = 1; n < 1000; n++) { /* some other one takes its place */
                char name[SEGMENT_NAME_MAX], path[256];
                hint_name(n, name);
                snprintf(path, sizeof(path), "%s/%s", W.dir, name);
                if (n != number && rename(path, other) == 0)
                        break;
        }
        count_files();
        reopen();
        compare();
        ck_assert_uint_eq(n_used(), n_hints - 1); /* it is away from its own place */
        wait_for_hints(2);
        W.store = store_close(W.store);

        size_t size;
        char *map = open_hint(&size);
        map[8]++; /* and its sum is right */
        uint32_t crc = crc32c(crc32c(0, map, 12), map + 16, size - 16);
        memcpy(map + 12, &crc, sizeof(crc));
        (void)munmap(map, size);
        expect_ignored();
        reopen();
        end();
}

TEST(hints_go_with_their_segments) {
        begin(SEGMENT);
        put_queue(0, 'x');
        for (uint64_t n = 0; n < SEQS - 2; n++) {
                ck_assert_int_eq(put_task(0), 0);
                put_last(0, W.want[0].last_seq, STORE_END);
                forget(0, W.want[0].last_seq);
                if (n % 20 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        wait_for_hints(3);
        char path[128], name[SEGMENT_NAME_MAX];
        segment_name(1, name);
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        while (access(path, F_OK) == 0) { /* compaction comes to it, a little with each batch */
                put_queue(0, 'x');
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        W.store = store_close(W.store);
        hint_name(1, name);
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        ck_assert_int_lt(access(path, F_OK), 0);
        reopen();
        compare();
        count_files();
        ck_assert_uint_lt(n_hints, n_logs);
        ck_assert_uint_lt(n_logs, 12);
        end();
}

/* ---- crashes between the steps ---- */

static void put_file(const char *name, const char *data, size_t n) {
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, data, n), (ssize_t)n);
        close(fd);
}

TEST(what_a_crash_leaves_of_a_hint_is_in_nobodys_way) {
        fill_and_close();
        size_t size;
        char *map = open_hint(&size), *hint = malloc(size); /* a copy: the file may be one of those written below */
        ck_assert_ptr_nonnull(hint);
        memcpy(hint, map, size);
        (void)munmap(map, size);
        const size_t cuts[] = { 0, 10, HINT_HEADER, size / 2, size };
        for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
                put_file("new-hint", hint, cuts[i]);           /* written so far, not renamed */
                put_file("hint-00000000000fffff", hint, size); /* its segment went, it did not */
                put_file("hint-0000000000000001", hint, i % 2 ? size : 0);
                reopen();
                compare();
                ck_assert(!has_file("hint-00000000000fffff"));
                W.store = store_close(W.store);
                ck_assert(!has_file("new-hint")); /* now: while it is open one may be in the making */
        }
        free(hint);
        reopen();
        end();
}

/* The store's own files come first: a hint that cannot be written or synced fails nobody. */
TEST(a_hint_that_cannot_be_written_is_no_failure_of_the_store) {
        static const FaultSeam seams[] = { FAULT_READ, FAULT_ALLOC };
        for (size_t i = 0; i < 2; i++)
                for (long nth = 1; nth < 12; nth++) {
                        fill(1500);
                        W.store = store_close(W.store);
                        each_file(remove_hint);
                        reopen();
                        fault_set(seams[i], nth, true); /* the threads make hints meanwhile */
                        (void)sched_yield();
                        fault_set(seams[i], 0, false);
                        put_queue(0, 'z');
                        ck_assert_int_eq(commit(), STORE_GOOD);
                        restart();
                        end();
                }
}

TEST(a_bad_sector_is_damage_of_what_is_in_it) {
        for (long nth = 1; nth < 40; nth++) {
                fill(800);
                wait_for_hints(1);
                W.store = store_close(W.store);
                fault_set(FAULT_READ, nth, false);
                int r = try_open(); /* fails with an error, or tells all, or says what is damaged */
                fault_set(FAULT_READ, 0, false);
                if (r == 0 && W.n_damaged == 0)
                        compare();
                if (r == 0)
                        W.store = store_close(W.store);
                else
                        ck_assert_str_ne(W.error, "");
                reopen();
                end();
        }
}

/* ---- fetches ---- */

static unsigned n_fetched;

static void on_fetched(StoreFetch *f) {
        n_fetched++;
}

static void wait_fetched(unsigned n) {
        uint64_t durable;
        while (n_fetched < n)
                (void)wait_event(&durable);
}

static void check_bodies(const StoreFetch *f) {
        for (size_t i = 0; i < f->n; i++) {
                const StoreFetched *t = &f->tasks[i];
                const ModelTask *want = &W.want[f->queue].tasks[t->seq];
                ck_assert_int_eq(t->result, want->there ? 0 : -ENOENT);
                if (!want->there)
                        continue;
                ck_assert_uint_eq(t->len, want->n);
                ck_assert_uint_eq(t->lane, want->lane);
                for (uint32_t k = 0; k < t->len; k++)
                        ck_assert_int_eq(f->data[t->at + k], want->fill);
        }
}

TEST(bodies_are_fetched_while_compaction_moves_them) {
        fill(3000);
        restart();
        uint64_t n_moved = 0;
        for (unsigned round = 1; round <= 200; round++) {
                StoreFetched tasks[50];
                StoreFetch f = { .queue = dice(QUEUES), .tasks = tasks, .n = 50, .done = on_fetched };
                for (size_t i = 0; i < f.n; i++)
                        tasks[i] = (StoreFetched) { .seq = 1 + dice(W.want[f.queue].last_seq + 1) };
                store_fetch(W.store, &f);
                for (int i = 0; i < 30; i++) { /* of other queues, so that what is wanted stays */
                        unsigned other = (unsigned)((f.queue + 1 + dice(QUEUES - 1)) % QUEUES);
                        if (W.want[other].last_seq + 2 < SEQS)
                                ck_assert_int_eq(put_task(other), 0);
                        uint64_t seq = 1 + dice(W.want[other].last_seq);
                        if (W.want[other].tasks[seq].there)
                                forget(other, seq);
                }
                store_flush(W.store);
                wait_fetched(round);
                check_bodies(&f);
                free(f.data);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        StoreStats stats;
        store_stats(W.store, &stats);
        n_moved = stats.n_moved;
        ck_assert_uint_gt(n_moved, 100);
        restart();
        end();
}

TEST(what_a_closing_store_has_not_fetched_is_called_off) {
        fill(500);
        StoreFetched tasks[20] = { { .seq = 1 } };
        StoreFetch f[20];
        for (size_t i = 0; i < 20; i++) {
                f[i] = (StoreFetch) { .queue = 0, .tasks = &tasks[i], .n = 1, .done = on_fetched };
                store_fetch(W.store, &f[i]);
        }
        W.store = store_close(W.store);
        ck_assert_uint_eq(n_fetched, 20);
        for (size_t i = 0; i < 20; i++) {
                ck_assert(tasks[i].result == 0 || tasks[i].result == -ECANCELED || tasks[i].result == -ENOENT);
                free(f[i].data);
        }
        reopen();
        end();
}

/* With a hint nobody has looked at the body before. */
TEST(a_damaged_body_is_found_when_it_is_fetched_or_moved_and_told) {
        static char body[100];
        for (int moved = 0; moved < 2; moved++) {
                begin(SEGMENT);
                W.brief = true;
                put_queue(0, 'x');
                memset(body, 'b', sizeof(body));
                ck_assert_int_eq(put(STORE_TASK, 0, 1, 1, body, sizeof(body)), 0);
                ck_assert_int_eq(put(STORE_TASK, 0, 2, 1, body, sizeof(body)), 0);
                W.store = store_close(W.store);
                char path[128];
                snprintf(path, sizeof(path), "%s/log-%016x", W.dir, 1);
                int fd = open(path, O_WRONLY | O_CLOEXEC);
                ck_assert(fd >= 0 && pwrite(fd, "c", 1, SEGMENT_HEADER + 80 + RECORD_HEADER + 50) == 1);
                close(fd);
                reopen();
                ck_assert_uint_eq(n_used(), 1);
                ck_assert_uint_eq(W.n_damaged, 0);
                StoreDamage d;
                StoreFetched tasks[2] = { { .seq = 1 }, { .seq = 2 } };
                StoreFetch f = { .queue = 0, .tasks = tasks, .n = 2, .done = on_fetched };
                for (int i = 0; moved && i < 3000 && has_file("log-0000000000000001"); i++) {
                        put_queue(0, 'x');
                        static char large[4000];
                        ck_assert_int_eq(put(STORE_TASK, 0, 3, 1, large, sizeof(large)), 0);
                        ck_assert_int_eq(commit(), STORE_GOOD);
                }
                n_fetched = 0;
                store_fetch(W.store, &f);
                wait_fetched(1);
                ck_assert_int_eq(tasks[0].result, moved ? -ENOENT : -EBADMSG);
                ck_assert_int_eq(tasks[1].result, 0);
                ck_assert(store_next_damage(W.store, &d));
                ck_assert_str_eq(d.file, "log-0000000000000001");
                ck_assert_uint_eq(d.at, SEGMENT_HEADER + 80);
                ck_assert(has_file(d.kept));
                ck_assert(!store_next_damage(W.store, &d));
                free(f.data);
                end();
        }
}

RUN_TESTS("hint", 120, test_a_start_with_hints_tells_what_one_without_tells,
          test_a_start_without_hints_makes_them_in_the_background,
          test_the_store_thread_reads_one_for_a_reader_that_is_behind,
          test_a_start_reads_some_bytes_for_each_task_however_large_it_is,
          test_a_damaged_hint_is_ignored_wherever_the_damage_is, test_a_cut_an_empty_and_a_longer_hint_are_ignored,
          test_a_hint_of_another_segment_and_of_another_version_are_ignored, test_hints_go_with_their_segments,
          test_what_a_crash_leaves_of_a_hint_is_in_nobodys_way,
          test_a_hint_that_cannot_be_written_is_no_failure_of_the_store, test_a_bad_sector_is_damage_of_what_is_in_it,
          test_bodies_are_fetched_while_compaction_moves_them, test_what_a_closing_store_has_not_fetched_is_called_off,
          test_a_damaged_body_is_found_when_it_is_fetched_or_moved_and_told)
