/* SPDX-License-Identifier: MIT */
/* The log through everything that may happen to it. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "store-world.h"
#include "store/parts.h"

TEST(what_was_written_is_there_again) {
        begin(0);
        for (unsigned i = 0; i < QUEUES; i++)
                put_queue(i, 'x');
        for (int i = 0; i < 100; i++)
                ck_assert_int_eq(put_task((unsigned)i % QUEUES), 0);
        put_last(0, 1, STORE_STATE);
        put_last(0, 1, STORE_END);
        put_last(1, 2, STORE_END);
        put_last(1, 2, STORE_STATE); /* it was queued again */
        forget(2, 3);
        ck_assert_int_eq(commit(), STORE_GOOD);
        compare_reopened();
        ck_assert_uint_eq(W.n_damaged, 0);
        end();
}

TEST(closing_makes_everything_durable) {
        begin(0);
        put_queue(0, 'x');
        for (int i = 0; i < 1000; i++)
                ck_assert_int_eq(put_task(0), 0);
        compare_reopened();
        end();
}

TEST(random_lives_survive_many_openings_with_compaction_at_work) {
        begin(SEGMENT);
        uint64_t n_moved = 0, n_segments = 0;
        for (int round = 0; round < 15; round++) {
                for (int i = 0; i < 40; i++) {
                        for (uint64_t n = dice(40); n > 0; n--)
                                step();
                        ck_assert_int_eq(commit(), STORE_GOOD);
                }
                StoreStats stats;
                store_stats(W.store, &stats);
                n_moved += stats.n_moved;
                n_segments = stats.n_segments;
                compare_reopened();
                ck_assert_uint_eq(W.n_damaged, 0);
        }
        ck_assert_uint_gt(n_moved, 100); /* else this shows nothing about compaction */
        ck_assert_uint_lt(n_segments, 40);
        end();
}

TEST(a_removed_queue_keeps_its_last_number_and_nothing_else) {
        begin(SEGMENT);
        put_queue(0, 'x');
        for (int i = 0; i < 50; i++)
                ck_assert_int_eq(put_task(0), 0);
        put_gone(0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        compare_reopened();
        /* through many rounds of the log */
        put_queue(1, 'y');
        for (uint64_t n = 0; n < 3000; n++) {
                ck_assert_int_eq(put_task(1), 0);
                forget(1, W.want[1].last_seq);
                if (n % 50 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        compare_reopened();
        end();
}

TEST(the_last_number_of_an_empty_queue_survives_compaction) {
        begin(SEGMENT);
        put_queue(0, 'x');
        for (uint64_t n = 0; n < SEQS - 1; n++) {
                ck_assert_int_eq(put_task(0), 0);
                forget(0, W.want[0].last_seq);
                if (n % 50 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        ck_assert_int_eq(commit(), STORE_GOOD);
        for (int round = 0; round < 3; round++) {
                compare_reopened();
        }
        end();
}

TEST(one_old_task_pins_nothing) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(put_task(0), 0);
        for (uint64_t n = 0; n < SEQS - 2; n++) {
                ck_assert_int_eq(put_task(0), 0);
                put_last(0, W.want[0].last_seq, STORE_END);
                forget(0, W.want[0].last_seq);
                if (n % 20 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        StoreStats stats;
        for (int i = 0; i < 500; i++) { /* it compacts between commits, and a little with each */
                put_queue(0, 'x');
                ck_assert_int_eq(commit(), STORE_GOOD);
                store_stats(W.store, &stats);
                if (stats.bytes <= stats.live_bytes * 6 / 5 + 4 * SEGMENT)
                        break;
        }
        ck_assert_uint_le(stats.bytes, stats.live_bytes * 6 / 5 + 4 * SEGMENT);
        ck_assert_uint_gt(stats.n_moved, 0);
        compare_reopened();
        end();
}

/* ---- groups ---- */

static off_t size_of_log(void) {
        char path[128];
        struct stat st;
        snprintf(path, sizeof(path), "%s/log-%016x", W.dir, 1);
        ck_assert_int_eq(stat(path, &st), 0);
        return st.st_size;
}

/* As if the process had died: the log is copied while it is open, cut, and opened. */
static void crash_at(uint32_t cut) {
        char path[128];
        snprintf(path, sizeof(path), "%s/log-%016x", W.dir, 1);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        off_t size = size_of_log();
        ck_assert_int_eq(ftruncate(fd, cut), 0);
        ck_assert_int_eq(ftruncate(fd, size), 0);
        close(fd);
}

TEST(a_group_is_there_as_a_whole_or_not_at_all) {
        for (uint32_t cut = SEGMENT_HEADER; cut < 6000; cut += 113) {
                begin(SEGMENT);
                put_queue(0, 'x');
                ck_assert_int_eq(put_group(0, 5), 0);
                ck_assert_int_eq(put_group(0, 20), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
                W.store = store_close(W.store);
                crash_at(cut);
                reopen();
                unsigned n = 0;
                for (int i = 0; i < SEQS; i++)
                        n += W.got[0].tasks[i].there;
                ck_assert_msg(n == 0 || n == 5 || n == 25, "%u tasks after a cut at %u", n, cut);
                ck_assert_uint_eq(W.n_damaged, 0);
                end();
        }
}

/* A task that was forgotten, then half a group, and no seal: 64 + QUEUE twice, TASK, END, FORGET, TASK: 40 each. */
static void leave_unclean(void) {
        StoreItem half[2] = { { .kind = STORE_TASK, .seq = 2, .body = { "a", 1 } },
                              { .kind = STORE_TASK, .seq = 3, .body = { "b", 1 } } };
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(put(STORE_TASK, 0, 1, 0, "t", 1), 0);
        W.want[0].last_seq = 1;
        put_last(0, 1, STORE_END);
        forget(0, 1);
        ck_assert_int_eq(store_append(W.store, half, 2), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        W.store = store_close(W.store);
        crash_at(SEGMENT_HEADER + 6 * 40);
}

/* Where it is, and when the machine was started again, into a new file. */
TEST(dying_again_while_the_tail_is_healed_brings_nothing_back) {
        static const FaultSeam seams[] = { FAULT_WRITE, FAULT_SYNC };
        for (size_t k = 0; k < 4; k++) {
                bool opened = false;
                int n_failed = 0;
                for (long nth = 1; !opened; nth++) {
                        leave_unclean();
                        W.boot = k / 2 ? "another machine" : NULL;
                        fault_set(seams[k % 2], nth, true);
                        opened = try_open() == 0;
                        n_failed += !opened;
                        W.store = store_close(opened ? W.store : NULL);
                        fault_set(seams[k % 2], 0, false);
                        reopen();
                        compare();
                        ck_assert_uint_eq(W.n_damaged, 0);
                        end();
                }
                ck_assert_int_ge(n_failed, k / 2 ? 4 : 3);
        }
}

TEST(no_group_reaches_over_the_end_of_a_segment) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(commit(), STORE_GOOD);
        for (int round = 0; round < 20; round++) {
                ck_assert_int_eq(put_group(0, 50), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        compare_reopened();
        end();
}

/* ---- failures ---- */

typedef struct Waiter {
        pthread_t thread;
        atomic_bool begun;
        int result;
} Waiter;

static void *wait_for_store(void *arg) {
        Waiter *w = arg;
        atomic_store(&w->begun, true);
        w->result = store_wait(W.store, 60 * USEC_PER_SEC);
        return NULL;
}

TEST(another_thread_can_wait_for_what_was_appended_for_as_long_as_it_says) {
        Waiter w = { .result = 1 };
        begin(SEGMENT);
        ck_assert_int_eq(store_wait(W.store, 0), 0);
        put_queue(0, 'x');
        ck_assert_int_eq(store_wait(W.store, 1000), -ETIMEDOUT); /* nobody hands it over */
        ck_assert_int_eq(pthread_create(&w.thread, NULL, wait_for_store, &w), 0);
        while (!atomic_load(&w.begun))
                ;
        store_flush(W.store);
        ck_assert_int_eq(pthread_join(w.thread, NULL), 0);
        ck_assert_int_eq(w.result, 0);
        ck_assert_int_eq(store_wait(W.store, 0), 0);
        fault_set(FAULT_SYNC, 1, false);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(pthread_create(&w.thread, NULL, wait_for_store, &w), 0);
        ck_assert_int_eq(commit(), STORE_FAILED);
        ck_assert_int_eq(pthread_join(w.thread, NULL), 0);
        ck_assert_int_eq(w.result, -EIO);
        end();
}

TEST(after_a_failed_sync_nothing_is_durable_any_more) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(commit(), STORE_GOOD);
        uint64_t before, after;
        (void)store_dispatch(W.store, &before);
        fault_set(FAULT_SYNC, 1, false);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_FAILED);
        (void)store_dispatch(W.store, &after);
        ck_assert_uint_eq(before, after);
        ck_assert_int_eq(put_task(0), -EIO);
        ck_assert_int_eq(store_error(W.store), -EIO);
        end();
}

TEST(after_a_failed_write_too) {
        begin(SEGMENT);
        put_queue(0, 'x');
        fault_set(FAULT_WRITE, 1, false);
        ck_assert_int_eq(commit(), STORE_FAILED);
        end();
}

/* Whatever call fails: what was promised before is there. */
/* Where its records end, with the seal or without; *ret_sealed: there is one. */
static uint32_t end_of(uint64_t number, bool *ret_sealed) {
        Segment s;
        char *data = NULL;
        size_t cap = 0;
        int dir_fd = open(W.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert(dir_fd >= 0 && segment_open(dir_fd, number, &s) == 0 &&
                  segment_read_all(&s, &data, &cap, NULL, NULL, NULL) == 0);
        uint32_t at = SEGMENT_HEADER;
        Record r = { 0 };
        for (long n; (n = record_read(data + at, s.size - at, s.salt, &r)) > 0 && r.kind != STORE_SEAL;)
                at += (uint32_t)n;
        *ret_sealed = r.kind == STORE_SEAL;
        free(data);
        segment_close(&s);
        close(dir_fd);
        return at;
}

static unsigned n_seals;
static void count_seal(const char *path, const char *name) {
        uint64_t number;
        bool is_sealed = false;
        if (segment_parse_name(name, &number))
                (void)end_of(number, &is_sealed);
        n_seals += is_sealed;
}

static void cut_seal(const char *path, const char *name) {
        uint64_t number;
        bool is_sealed;
        if (!segment_parse_name(name, &number))
                return;
        uint32_t at = end_of(number, &is_sealed);
        ck_assert_int_eq(truncate(path, at > 600 ? at - 300 : at), 0);
        ck_assert_int_eq(truncate(path, W.segment), 0);
}

/* As a kill leaves it in the middle of its last record. */
static void unseal(void) {
        each_file(cut_seal);
}

TEST(each_failing_write_and_sync_loses_nothing_that_was_promised) {
        static const FaultSeam seams[] = { FAULT_WRITE, FAULT_SYNC };
        for (size_t k = 0; k < 2; k++)
                for (long nth = 1; nth < 60; nth += 7) {
                        begin(16 * 1024);
                        static ModelQueue promised[QUEUES];
                        fault_set(seams[k], nth, true);
                        StoreHealth health = STORE_GOOD;
                        memset(promised, 0, sizeof(promised));
                        for (int i = 0; i < 100 && health == STORE_GOOD; i++) {
                                for (int n = 0; n < 15 && store_health(W.store) == STORE_GOOD; n++)
                                        step();
                                health = commit();
                                if (health == STORE_GOOD)
                                        memcpy(promised, W.want, sizeof(promised));
                        }
                        ck_assert_int_eq(health, STORE_FAILED);
                        W.store = store_close(W.store);
                        fault_set(seams[k], 0, false);
                        reopen();
                        for (int q = 0; q < QUEUES; q++)
                                for (int i = 0; i < SEQS; i++)
                                        if (promised[q].tasks[i].there && W.want[q].tasks[i].there)
                                                ck_assert(W.got[q].tasks[i].there);
                        end();
                }
}

TEST(without_space_tasks_are_refused_what_is_in_hand_goes_on_and_it_recovers) {
        begin(32 * 1024);
        put_queue(0, 'x');
        ck_assert_int_eq(commit(), STORE_GOOD);
        fault_set(FAULT_SPACE, 1, true);
        int r = 0;
        for (int i = 0; i < 400 && r == 0; i++) {
                r = put_task(0);
                if (r == 0) {
                        uint64_t durable;
                        (void)commit();
                        (void)store_dispatch(W.store, &durable);
                        ck_assert_uint_eq(durable, *store_written(W.store));
                }
        }
        ck_assert_int_eq(r, -ENOSPC);
        ck_assert_int_eq(store_health(W.store), STORE_FULL);
        for (uint64_t seq = 1; seq <= 20; seq++)
                put_last(0, seq, STORE_END);
        (void)commit();
        uint64_t durable;
        (void)store_dispatch(W.store, &durable);
        ck_assert_uint_eq(durable, *store_written(W.store));
        fault_set(FAULT_SPACE, 0, false);
        while (store_health(W.store) == STORE_FULL)
                (void)wait_event(&durable);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        compare_reopened();
        end();
}

static void wait_while(StoreHealth health) {
        uint64_t durable;
        while (store_health(W.store) == health)
                (void)wait_event(&durable);
}

/* No batch is needed for it to be seen that there is more. */
TEST(with_little_space_tasks_are_refused_all_else_goes_on_in_new_segments_and_it_recovers) {
        StoreStats stats;
        begin(32 * 1024);
        put_queue(0, 'x');
        for (int i = 0; i < 40; i++)
                ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        fault_set(FAULT_LOW, 1, true);
        store_set_low_water(W.store, 1 << 20);
        wait_while(STORE_GOOD);
        ck_assert_int_eq(store_health(W.store), STORE_LOW);
        ck_assert_int_eq(put_task(0), -ENOSPC);
        store_stats(W.store, &stats);
        ck_assert_uint_eq(stats.free_bytes, 0);
        ck_assert_uint_eq(stats.low_water, 1 << 20);
        uint64_t before = stats.newest;
        for (int round = 0; stats.newest < before + 3 && round < 5000; round++) { /* what becomes of them */
                put_last(0, 1 + (uint64_t)round % 20, round < 2000 ? STORE_STATE : STORE_END);
                ck_assert_int_eq(commit(), STORE_LOW);
                store_stats(W.store, &stats);
        }
        ck_assert_uint_ge(stats.newest, before + 3);
        ck_assert(!store_is_spent(W.store));
        put_last(0, 1, STORE_END);
        ck_assert_int_eq(store_settle(W.store), 0); /* nothing has failed */
        fault_set(FAULT_LOW, 0, false);
        wait_while(STORE_LOW);
        ck_assert_int_eq(store_health(W.store), STORE_GOOD);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        compare_reopened();
        end();
}

/* The log and all that is still to go of it, by so much and so many segments above what lives. */
static bool is_compacted(unsigned percent, unsigned segments) {
        StoreStats stats;
        store_stats(W.store, &stats);
        return stats.bytes <= stats.live_bytes + stats.live_bytes * percent / 100 + segments * SEGMENT;
}

/* By itself, without a batch. */
TEST(with_little_space_the_log_is_kept_smaller) {
        begin(SEGMENT);
        put_queue(0, 'x');
        for (int i = 0; i < 3900; i++) {
                ck_assert_int_eq(put_task(0), 0);
                if (i >= 1900)
                        forget(0, W.want[0].last_seq);
                if (i % 20 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        ck_assert_int_eq(commit(), STORE_GOOD);
        while (!is_compacted(20, 3))
                (void)sched_yield();
        ck_assert(!is_compacted(5, 2));
        fault_set(FAULT_LOW, 1, true);
        store_set_low_water(W.store, 1 << 20);
        while (!is_compacted(5, 2)) /* the limit of time is what fails here */
                (void)sched_yield();
        fault_set(FAULT_LOW, 0, false);
        compare_reopened();
        end();
}

TEST(the_first_task_after_an_idle_time_is_not_taken_below_the_mark) {
        StoreStats stats = { 0 };
        begin(0);
        put_queue(0, 'x');
        store_set_low_water(W.store, 4096);
        while (stats.low_water != 4096) {
                ck_assert_int_eq(put_task(0), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
                store_stats(W.store, &stats);
        }
        ck_assert_int_eq(put_task(0), 0); /* when the thread comes to it, it has also noted when it looked */
        ck_assert_int_eq(commit(), STORE_GOOD);
        ck_assert_int_eq(store_look(W.store), STORE_GOOD);
        fault_set(FAULT_LOW, 1, true);
        atomic_store(&W.store->looked_usec, 0); /* as after an hour */
        for (int i = 0; i < 100; i++)           /* also while the thread finds the same */
                ck_assert_int_eq(store_look(W.store), STORE_LOW);
        wait_while(STORE_GOOD);
        ck_assert_int_eq(put_task(0), -ENOSPC);
        fault_set(FAULT_LOW, 0, false);
        wait_while(STORE_LOW);
        ck_assert_int_eq(store_look(W.store), STORE_GOOD);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        end();
}

/* A segment takes one step, and there was one step in a second: the test's time would not be enough. */
TEST(an_idle_store_without_space_frees_all_that_is_dead_at_once) {
        enum { SIZE = 64 * 1024, WANTED = 160 };
        static const char bytes[15 * 1024];
        StoreStats stats;
        StoreItem task = { .kind = STORE_TASK, .body = { bytes, sizeof(bytes) } };
        uint64_t last = 0, durable;
        begin(SIZE);
        put_queue(0, 'x');
        for (stats.newest = 0; stats.newest < WANTED; store_stats(W.store, &stats)) {
                task.seq = ++last;
                ck_assert_int_eq(store_append(W.store, &task, 1), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        fault_set(FAULT_SPACE, 1, true);
        for (int r = 0; r == 0;) {
                task.seq = last + 1;
                r = store_append(W.store, &task, 1);
                last += r == 0;
                (void)commit();
                (void)store_dispatch(W.store, &durable);
        }
        ck_assert_int_eq(store_health(W.store), STORE_FULL);
        put_gone(0); /* and all its tasks */
        (void)commit();
        do
                store_stats(W.store, &stats);
        while (stats.oldest + 3 < stats.newest && sched_yield() == 0);
        ck_assert_int_eq(store_dispatch(W.store, &durable), STORE_FULL);
        end();
}

/* At a mark that is nothing there is never too little, whatever the file system says. */
TEST(what_is_little_space_can_be_set) {
        begin(32 * 1024);
        put_queue(0, 'x');
        fault_set(FAULT_LOW, 1, true);
        store_set_low_water(W.store, 0);
        for (int i = 0; i < 200; i++) {
                ck_assert_int_eq(put_task(0), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        store_set_low_water(W.store, 4096);
        wait_while(STORE_GOOD);
        ck_assert_int_eq(store_health(W.store), STORE_LOW);
        store_set_low_water(W.store, 0);
        wait_while(STORE_LOW);
        ck_assert_int_eq(store_health(W.store), STORE_GOOD);
        end();
}

TEST(little_space_is_so_until_there_is_an_eighth_more_and_a_tenth_of_the_whole_at_most) {
        uint64_t mark = 800;
        ck_assert(store_is_little(799, 1 << 20, &mark, false));
        ck_assert(!store_is_little(800, 1 << 20, &mark, false));
        ck_assert(store_is_little(899, 1 << 20, &mark, true));
        ck_assert(!store_is_little(900, 1 << 20, &mark, true));
        ck_assert_uint_eq(mark, 800);
        ck_assert(!store_is_little(100, 1000, &mark, false));
        ck_assert_uint_eq(mark, 100);
        ck_assert(store_is_little(99, 1000, &mark, false));
        mark = 0;
        ck_assert(!store_is_little(0, 1 << 20, &mark, false));
        ck_assert(!store_is_little(0, 1 << 20, &mark, true));
}

/* Not a second later, in which the whole of a file system may go. */
TEST(whether_there_is_little_space_is_looked_at_when_a_segment_is_made) {
        StoreStats stats = { 0 };
        begin(32 * 1024);
        put_queue(0, 'x');
        store_set_low_water(W.store, 4096);
        while (stats.low_water != 4096) {
                ck_assert_int_eq(put_task(0), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
                store_stats(W.store, &stats);
        }
        fault_set(FAULT_LOW, 1, true);
        uint64_t before = stats.n_segments;
        for (int i = 0; i < 2000 && store_health(W.store) == STORE_GOOD; i++) {
                ck_assert_int_eq(put_task(0), 0);
                (void)commit();
        }
        ck_assert_int_eq(store_health(W.store), STORE_LOW);
        store_stats(W.store, &stats);
        ck_assert_uint_le(stats.n_segments, before + 1);
        end();
}

/* An end, durably, in what is left of the last segment. */
static void end_one(uint64_t seq) {
        uint64_t durable = 0;
        put_last(0, seq, STORE_END);
        while (durable < *store_written(W.store)) {
                store_flush(W.store);
                ck_assert_int_ne(wait_event(&durable), STORE_FAILED);
        }
}

/* At no end, one that was cut off, and one of a machine that was started again; then the same where each write and sync fails. */
static void leave_full(unsigned how) {
        begin(32 * 1024);
        put_queue(0, 'x');
        for (int i = 0; i < 30; i++)
                ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        if (how > 0) { /* and a group of which the end is torn */
                static char body[700];
                StoreItem half[3] = { { .kind = STORE_TASK, .seq = 31, .body = { body, 700 } },
                                      { .kind = STORE_TASK, .seq = 32, .body = { "b", 1 } },
                                      { .kind = STORE_TASK, .seq = 33, .body = { body, 700 } } };
                memset(body, 'b', sizeof(body));
                ck_assert_int_eq(store_append(W.store, half, 3), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        W.store = store_close(W.store);
        if (how > 0)
                unseal();
        W.boot = how == 2 ? "another machine" : NULL;
}

TEST(without_space_it_opens_all_the_same_and_goes_on_in_its_last_segment) {
        for (unsigned how = 0; how < 3; how++) {
                uint64_t durable;
                leave_full(how);
                fault_set(FAULT_SPACE, 1, true);
                for (int round = 0; round < 3; round++) { /* and once more, behind what was written so */
                        reopen();
                        compare();
                        ck_assert_uint_eq(W.n_damaged, 0);
                        ck_assert_int_eq(store_health(W.store), STORE_FULL);
                        ck_assert_int_eq(store_error(W.store), -ENOSPC);
                        ck_assert_int_eq(put_task(0), -ENOSPC);
                        n_seals = 0;
                        each_file(count_seal); /* a write into it could be torn */
                        ck_assert_uint_eq(n_seals, 0);
                        end_one(1 + (uint64_t)round);
                        W.store = store_close(W.store);
                }
                reopen();
                ck_assert_int_eq(wait_event(&durable), STORE_FULL); /* nobody has to ask */
                fault_set(FAULT_SPACE, 0, false);
                while (store_health(W.store) == STORE_FULL)
                        (void)wait_event(&durable);
                ck_assert_int_eq(put_task(0), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
                compare_reopened();
                ck_assert_uint_eq(W.n_damaged, 0);
                end();
        }
}

TEST(a_start_without_space_that_fails_loses_nothing) {
        static const FaultSeam seams[] = { FAULT_WRITE, FAULT_SYNC, FAULT_ALLOC };
        for (unsigned k = 0; k < 9; k++) {
                bool opened = false;
                for (long nth = 1; !opened; nth += TEST_FEWER) {
                        leave_full(k / 3);
                        fault_set(FAULT_SPACE, 1, true);
                        fault_set(seams[k % 3], nth, true);
                        opened = try_open() == 0;
                        ck_assert(opened || !W.store);
                        fault_set(seams[k % 3], 0, false);
                        W.store = opened ? store_close(W.store) : NULL;
                        for (int full = 1; full >= 0; full--) {
                                fault_set(FAULT_SPACE, 1, full);
                                if (!full)
                                        fault_set(FAULT_SPACE, 0, false);
                                reopen();
                                compare();
                                ck_assert_uint_eq(W.n_damaged, 0);
                                W.store = store_close(W.store);
                        }
                        reopen();
                        end();
                }
        }
}

TEST(memory_running_out_is_an_error_and_loses_nothing) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(commit(), STORE_GOOD);
        fault_set(FAULT_ALLOC, 1, true);
        int r = 0;
        for (int i = 0; i < 2000 && r == 0; i++)
                r = put_task(0);
        ck_assert_int_eq(r, -ENOMEM);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_int_eq(commit(), STORE_GOOD);
        compare_reopened();
        end();
}

/* ---- kill ---- */

/* The child appends and tells what is durable by a pipe; then it is killed. */
static _Noreturn void child(int fd) {
        for (;;) {
                for (int i = 0; i < 7; i++)
                        if (W.want[0].last_seq + 1 < SEQS)
                                (void)put_task(0);
                (void)commit();
                uint64_t promised = W.want[0].last_seq;
                if (write(fd, &promised, sizeof(promised)) != sizeof(promised))
                        _exit(1);
        }
}

TEST(kill_9_loses_nothing_that_was_promised) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(commit(), STORE_GOOD);
        W.store = store_close(W.store);
        for (int round = 0; round < 20; round++) {
                int fds[2];
                uint64_t promised = 0;
                ck_assert_int_eq(pipe(fds), 0);
                pid_t pid = fork();
                if (pid == 0) {
                        close(fds[0]);
                        reopen();
                        W.want[0].last_seq = W.got[0].last_seq;
                        child(fds[1]);
                }
                close(fds[1]);
                for (uint64_t n = 1 + dice(30); n > 0; n--)
                        ck_assert_int_eq(read(fds[0], &promised, sizeof(promised)), sizeof(promised));
                ck_assert_int_eq(kill(pid, SIGKILL), 0);
                for (uint64_t more; read(fds[0], &more, sizeof(more)) == sizeof(more);)
                        promised = more;
                close(fds[0]);
                int status;
                ck_assert_int_eq(waitpid(pid, &status, 0), pid);
                ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
                reopen();
                for (uint64_t seq = 1; seq <= promised; seq++)
                        ck_assert_msg(W.got[0].tasks[seq].there, "task %llu of %llu is lost", (unsigned long long)seq,
                                      (unsigned long long)promised);
                ck_assert_uint_eq(W.n_damaged, 0);
                W.store = store_close(W.store);
        }
        reopen();
        end();
}

TEST(marks_of_running_tasks_outlive_the_process_and_are_told_once) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        W.store = store_close(W.store);
        pid_t pid = fork();
        if (pid == 0) {
                reopen();
                int slot = store_mark(W.store, 0, 1, 1);
                (void)store_mark(W.store, 0, 2, 1);
                store_unmark(W.store, slot);
                (void)kill(getpid(), SIGKILL);
        }
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        reopen();
        ck_assert_uint_eq(W.n_running, 1);
        W.store = store_close(W.store);
        reopen();
        ck_assert_uint_eq(W.n_running, 0);
        end();
}

/* Killed before what came of a run was written, eqd must not forget how often that task was begun. */
TEST(marks_that_were_found_stay_until_the_store_is_told_that_they_are_settled) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        (void)store_mark(W.store, 0, 1, 1);
        W.keep_marks = true;
        for (unsigned i = 1; i <= 3; i++) {
                W.store = store_close(W.store);
                reopen();
                ck_assert_uint_eq(W.n_running, i);
                (void)store_mark(W.store, 0, 1, 1 + i); /* a slot of its own */
        }
        store_unmark_found(W.store);
        W.store = store_close(W.store);
        reopen();
        ck_assert_uint_eq(W.n_running, 1); /* the one of this time */
        store_unmark_found(W.store);
        for (int i = 0; i < STORE_MARKS; i++) /* all can be had again */
                ck_assert_int_ne(store_mark(W.store, 0, 1, 1), STORE_MARK_NONE);
        ck_assert_int_eq(store_mark(W.store, 0, 1, 1), STORE_MARK_NONE);
        end();
}

/* ---- a start after a kill ---- */

static void file_of(uint64_t number, char path[static 256]) {
        char name[SEGMENT_NAME_MAX];
        segment_name(number, name);
        snprintf(path, 256, "%s/%s", W.dir, name);
}

/* Half of the first segment, with some that was not said to be synced; the second one is there, and empty. */
static void half_a_segment(void) {
        char second[256];
        file_of(2, second);
        put_queue(0, 'a');
        while (access(second, F_OK) != 0) {
                ck_assert_int_eq(put_task(0), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
}

static ino_t inode_of(uint64_t number) { /* 0: there is none */
        char path[256];
        struct stat st;
        file_of(number, path);
        return stat(path, &st) == 0 ? st.st_ino : 0;
}

TEST(a_start_after_a_kill_reads_the_last_segment_once) {
        StoreStats stats;
        live_and_die(half_a_segment);
        W.brief = true;
        reopen();
        store_stats(W.store, &stats);
        ck_assert_uint_ge(stats.open_bytes, SEGMENT);
        ck_assert_uint_lt(stats.open_bytes, SEGMENT + SEGMENT / 2); /* with some bodies */
        compare();
        end();
}

TEST(a_start_after_a_kill_goes_on_in_the_segment_that_was_made_in_advance) {
        StoreStats stats;
        live_and_die(half_a_segment);
        ino_t second = inode_of(2);
        reopen();
        compare();
        store_stats(W.store, &stats);
        ck_assert_uint_eq(stats.newest, 2);
        ck_assert(inode_of(2) == second && second != 0);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        compare_reopened();
        end();
}

TEST(a_segment_of_before_a_loss_of_power_is_not_gone_on_with) {
        StoreStats stats;
        live_and_die(half_a_segment);
        W.boot = "another machine";
        reopen();
        compare();
        store_stats(W.store, &stats);
        ck_assert_uint_eq(stats.newest, 3);
        ck_assert(inode_of(2) == 0);
        end();
}

/* Its front was written and is lost, what was behind it is not: a copy of a store that lived, or a disk that was pulled out. */
TEST(a_segment_that_something_was_written_to_is_not_gone_on_with) {
        char path[256];
        live_and_die(half_a_segment);
        file_of(2, path);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ck_assert_int_eq(pwrite(fd, "!", 1, SEGMENT / 2), 1);
        close(fd);
        reopen();
        compare();
        ck_assert(inode_of(2) == 0);
        end();
}

/* What is damaged has to be written again, as another file. */
TEST(the_segment_that_was_made_in_advance_makes_room_for_a_start) {
        char path[256];
        bool is_sealed;
        live_and_die(half_a_segment);
        uint32_t end_at = end_of(1, &is_sealed);
        file_of(1, path);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ck_assert_int_eq(pwrite(fd, "!", 1, end_at - 2), 1); /* of the last task, which nothing says to be synced */
        close(fd);
        memset(&W.want[0].tasks[W.want[0].last_seq], 0, sizeof(ModelTask));
        fault_set(FAULT_SPACE, 1, false);
        reopen();
        ck_assert_int_eq(atomic_load(&fault_countdown[FAULT_SPACE]), 0);
        ck_assert_uint_eq(W.n_damaged, 1);
        ck_assert(inode_of(2) == 0);
        compare();
        compare_reopened();
        end();
}

RUN_TESTS("store", 120, test_what_was_written_is_there_again, test_closing_makes_everything_durable,
          test_random_lives_survive_many_openings_with_compaction_at_work,
          test_a_removed_queue_keeps_its_last_number_and_nothing_else,
          test_the_last_number_of_an_empty_queue_survives_compaction, test_one_old_task_pins_nothing,
          test_a_group_is_there_as_a_whole_or_not_at_all, test_no_group_reaches_over_the_end_of_a_segment,
          test_dying_again_while_the_tail_is_healed_brings_nothing_back,
          test_another_thread_can_wait_for_what_was_appended_for_as_long_as_it_says,
          test_after_a_failed_sync_nothing_is_durable_any_more, test_after_a_failed_write_too,
          test_each_failing_write_and_sync_loses_nothing_that_was_promised,
          test_without_space_tasks_are_refused_what_is_in_hand_goes_on_and_it_recovers,
          test_with_little_space_tasks_are_refused_all_else_goes_on_in_new_segments_and_it_recovers,
          test_with_little_space_the_log_is_kept_smaller,
          test_the_first_task_after_an_idle_time_is_not_taken_below_the_mark,
          test_an_idle_store_without_space_frees_all_that_is_dead_at_once, test_what_is_little_space_can_be_set,
          test_little_space_is_so_until_there_is_an_eighth_more_and_a_tenth_of_the_whole_at_most,
          test_whether_there_is_little_space_is_looked_at_when_a_segment_is_made,
          test_without_space_it_opens_all_the_same_and_goes_on_in_its_last_segment,
          test_a_start_without_space_that_fails_loses_nothing, test_memory_running_out_is_an_error_and_loses_nothing,
          test_kill_9_loses_nothing_that_was_promised,
          test_marks_of_running_tasks_outlive_the_process_and_are_told_once,
          test_marks_that_were_found_stay_until_the_store_is_told_that_they_are_settled,
          test_a_start_after_a_kill_reads_the_last_segment_once,
          test_a_start_after_a_kill_goes_on_in_the_segment_that_was_made_in_advance,
          test_a_segment_of_before_a_loss_of_power_is_not_gone_on_with,
          test_a_segment_that_something_was_written_to_is_not_gone_on_with,
          test_the_segment_that_was_made_in_advance_makes_room_for_a_start)
