/* SPDX-License-Identifier: MIT */
/* What cannot be read for a moment is not damaged: not by compaction, a start or a fetch; what cannot be for long is, and all wait for it no
 * longer than they say. The clock is the test's: it goes on to when something is due, or stands. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/util.h"
#include "store/hint.h"
#include "store/parts.h"

#include "store-world.h"

/* ---- seams ---- */

/* Reading as it is for the store's own thread, which compacts; and the clock as it and the reader thread see it. */
static struct {
        bool open;     /* reads that open a segment may fail; else those of what is in it */
        uint64_t mask; /* of each segment those whose bit is set; of more than 64 the last one counts */
        unsigned late; /* with that one the clock goes on by more than a minute; 0: with none */
        uint64_t oldest;
        unsigned n; /* these two are that thread's: of that segment so many were read */
        atomic_long n_failed, late_usec;
        _Atomic(Store *) store;   /* whose clock it is; NULL: nobody's */
        atomic_ulong stand_usec;  /* it stands there; 0: it goes on to when something is due */
        atomic_uint hole, n_hole; /* of segment 1 that byte cannot be read so many times by compaction; 0: it can */
        atomic_uint n_waits;      /* of a start */
} bad;

static bool is_thread(const char *wanted) {
        char name[16];
        return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 && strcmp(name, wanted) == 0;
}

static Store *store_of_clock(void) {
        Store *s = atomic_load(&bad.store); /* closed only when its threads have ended */
        return s && (is_thread("eqd/store") || is_thread("eqd/reader")) ? s : NULL;
}

static uint64_t usec_of(const struct timespec *t) {
        return (uint64_t)t->tv_sec * USEC_PER_SEC + (uint64_t)t->tv_nsec / 1000;
}

static void set_usec(struct timespec *t, uint64_t usec) {
        t->tv_sec = (time_t)(usec / USEC_PER_SEC);
        t->tv_nsec = (long)(usec % USEC_PER_SEC) * 1000;
}

int __real_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret);
int __wrap_clock_gettime(clockid_t id, struct timespec *ret) {
        int r = __real_clock_gettime(id, ret);
        Store *s = store_of_clock();
        if (r != 0 || !s)
                return r;
        uint64_t stands = atomic_load(&bad.stand_usec), now = usec_of(ret) + (uint64_t)atomic_load(&bad.late_usec);
        uint64_t due = is_thread("eqd/store") && s->patience.since_usec ? s->patience.due_usec : 0;
        if (!stands && now < due) {
                atomic_fetch_add(&bad.late_usec, (long)(due - now));
                now = due;
        }
        set_usec(ret, stands ? stands : now);
        return r;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until);
int __real_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock, const struct timespec *until) {
        struct timespec now;
        if (!store_of_clock())
                return __real_pthread_cond_timedwait(cond, lock, until);
        if (atomic_load(&bad.stand_usec))
                return pthread_cond_wait(cond, lock);
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        if (usec_of(&now) < usec_of(until))
                atomic_fetch_add(&bad.late_usec, (long)(usec_of(until) - usec_of(&now)));
        (void)pthread_mutex_unlock(lock);
        (void)sched_yield();
        (void)pthread_mutex_lock(lock);
        return ETIMEDOUT;
}

int __wrap_nanosleep(const struct timespec *t, struct timespec *ret);
int __wrap_nanosleep(const struct timespec *t, struct timespec *ret) {
        atomic_fetch_add(&bad.n_waits, 1);
        return 0;
}

int __real_segment_window(SegmentWindow *w, const Segment *s, uint32_t at, size_t n, const char **ret);
int __wrap_segment_window(SegmentWindow *w, const Segment *s, uint32_t at, size_t n, const char **ret);
int __wrap_segment_window(SegmentWindow *w, const Segment *s, uint32_t at, size_t n, const char **ret) {
        uint32_t hole = atomic_load(&bad.hole);
        const Store *store = atomic_load(&bad.store);
        bool is_hit = store && w == &store->victim_window && s->number == 1 && hole >= at && hole - at < n;
        if (!is_hit || atomic_load(&bad.n_hole) == 0)
                return __real_segment_window(w, s, at, n, ret);
        atomic_fetch_sub(&bad.n_hole, 1);
        atomic_fetch_add(&bad.n_failed, 1);
        return -EIO;
}

bool __real_fault_hit_slow(FaultSeam seam);
bool __wrap_fault_hit_slow(FaultSeam seam);
bool __wrap_fault_hit_slow(FaultSeam seam) {
        if (seam != FAULT_READ || !is_thread("eqd/store"))
                return __real_fault_hit_slow(seam);
        const Store *store = atomic_load(&bad.store); /* the rest was set before */
        if (!store || (store->victim.fd < 0) != bad.open)
                return false;
        if (bad.oldest != store->oldest)
                bad.n = 0;
        bad.oldest = store->oldest;
        if (bad.n == bad.late && bad.late > 0)
                atomic_fetch_add(&bad.late_usec, 61 * (long)USEC_PER_SEC);
        unsigned bit = MIN(bad.n, 63U);
        bad.n++;
        if (!(bad.mask >> bit & 1))
                return false;
        atomic_fetch_add(&bad.n_failed, 1);
        return true;
}

static void let_stand(void) {
        struct timespec now;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        atomic_store(&bad.stand_usec, usec_of(&now) + (uint64_t)atomic_load(&bad.late_usec));
}

/* From now on all can be read. */
static void end_bad(void) {
        fault_set(FAULT_READ, 0, false);
        atomic_store(&bad.n_hole, 0);
        atomic_store(&bad.stand_usec, 0);
        atomic_store(&bad.store, NULL);
}

/* ---- compaction ---- */

/* A fifth of the tasks stays; the queue is written again. */
static void fill_a_little(unsigned n) {
        ck_assert_uint_lt(W.want[0].last_seq + n, SEQS);
        for (unsigned i = 0; i < n; i++) {
                ck_assert_int_eq(put_task(0), 0);
                if (W.want[0].last_seq % 5 != 0)
                        forget(0, W.want[0].last_seq);
        }
        put_queue(0, 'b');
        ck_assert_int_eq(commit(), STORE_GOOD);
}

static void begin_bad(bool open, uint64_t mask, unsigned late) {
        begin(SEGMENT);
        bad.open = open;
        bad.mask = mask;
        bad.late = late;
        bad.oldest = 0;
        atomic_store(&bad.n_failed, 0);
        atomic_store(&bad.store, W.store);
        fault_set(FAULT_READ, 1 << 30, false);
        put_queue(0, 'a');
}

/* A life in which some of the first reads of each segment fail. */
static void live_with_bad_reads(bool open, uint64_t mask, unsigned late) {
        StoreStats stats;
        StoreDamage d;
        begin_bad(open, mask, late);
        for (int i = 0; i < 250; i++)
                fill_a_little(10);
        ck_assert(!store_next_damage(W.store, &d));
        store_stats(W.store, &stats);
        ck_assert_uint_gt(stats.oldest, 2); /* it has compacted */
        ck_assert_int_gt(atomic_load(&bad.n_failed), 0);
        end_bad();
        compare_reopened();
        ck_assert_uint_eq(W.n_damaged, 0);
        end();
}

TEST(what_cannot_be_read_for_a_moment_is_not_damaged) {
        for (uint64_t mask = 1; mask < 128; mask += 2) /* it reads once, if that is well */
                live_with_bad_reads(false, mask, 0);
}

TEST(a_segment_that_cannot_be_opened_for_a_moment_is_no_failure_of_the_store) {
        live_with_bad_reads(true, 7, 0);
}

/* It fails for the last time when the minute is over; then all is read. */
TEST(what_can_be_read_after_more_than_a_minute_is_not_damaged) {
        live_with_bad_reads(false, 15, 2);
}

static bool is_compacted_until(uint64_t number) {
        StoreStats stats;
        store_stats(W.store, &stats);
        return stats.oldest > number;
}

/* Into segment 1. */
static void write_over(uint32_t at, const void *data, size_t n) {
        char name[SEGMENT_NAME_MAX], path[256];
        segment_name(1, name);
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        ck_assert(fd >= 0 && pwrite(fd, data, n, at) == (ssize_t)n);
        close(fd);
}

static void fill_first_segment(void) {
        StoreStats stats;
        do {
                fill_a_little(10);
                store_stats(W.store, &stats);
        } while (stats.newest == 1);
}

/* The header of the task in segment 1, whose place is returned. */
static uint32_t damage_header(uint64_t seq) {
        static const char zeros[RECORD_HEADER];
        SegmentWindow w = SEGMENT_WINDOW_NULL;
        Segment s;
        const char *data;
        Record r = { 0 };
        uint32_t at = SEGMENT_HEADER;
        int dir_fd = open(W.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert(dir_fd >= 0 && segment_open(dir_fd, 1, &s) == 0);
        for (;; at += (uint32_t)record_size(r.body.len)) {
                ck_assert_int_eq(segment_window(&w, &s, at, MIN(s.size - at, (uint32_t)BODY * 2), &data), 0);
                ck_assert_int_gt(record_read(data, MIN(s.size - at, (uint32_t)BODY * 2), s.salt, &r), 0);
                if (r.kind == STORE_TASK && r.seq == seq)
                        break;
        }
        segment_window_done(&w);
        segment_close(&s);
        close(dir_fd);
        write_over(at, zeros, sizeof(zeros));
        return at;
}

/* The hole: compaction looks there for the next record, or there the next record is. */
static void damage_header_and_behind(uint64_t seq, unsigned n_times) {
        fill_first_segment();
        uint32_t at = damage_header(seq);
        atomic_store(&bad.n_hole, n_times);
        atomic_store(&bad.hole, at + RECORD_MIN);
}

static void expect_damage(uint64_t seq) {
        StoreDamage d;
        ck_assert(store_next_damage(W.store, &d));
        ck_assert_uint_lt(d.n_bytes, 2 * BODY);
        ck_assert(!store_next_damage(W.store, &d));
        memset(&W.want[0].tasks[seq], 0, sizeof(W.want[0].tasks[seq]));
}

TEST(of_what_is_behind_a_damaged_header_nothing_is_lost_that_cannot_be_read_for_a_moment) {
        begin_bad(false, 0, 0);
        damage_header_and_behind(5, 2);
        while (!is_compacted_until(1))
                fill_a_little(10);
        expect_damage(5);
        ck_assert_int_eq(atomic_load(&bad.n_failed), 2);
        end_bad();
        compare_reopened();
        end();
}

/* However much is written meanwhile; and what waits is told. */
TEST(what_cannot_be_read_is_asked_for_once_a_second) {
        StoreUnread unread;
        StoreStats stats;
        begin_bad(false, 0, 0);
        let_stand();
        damage_header_and_behind(5, UINT32_MAX);
        while (atomic_load(&bad.n_failed) == 0)
                fill_a_little(5);
        for (int i = 0; i < 20; i++)
                fill_a_little(5);
        ck_assert_int_eq(atomic_load(&bad.n_failed), 1);
        ck_assert(store_next_unread(W.store, &unread));
        ck_assert_str_eq(unread.file, "log-0000000000000001");
        ck_assert_uint_eq(unread.seconds, COMPACT_PATIENCE_SEC);
        ck_assert(!store_next_unread(W.store, &unread));
        store_stats(W.store, &stats);
        ck_assert_uint_eq(stats.unread, 1);
        atomic_fetch_add(&bad.stand_usec, USEC_PER_SEC);
        while (atomic_load(&bad.n_failed) == 1)
                fill_a_little(5);
        for (int i = 0; i < 20; i++)
                fill_a_little(5);
        ck_assert_int_eq(atomic_load(&bad.n_failed), 2);
        atomic_store(&bad.n_hole, 0);
        atomic_fetch_add(&bad.stand_usec, USEC_PER_SEC);
        while (!is_compacted_until(1))
                fill_a_little(5);
        store_stats(W.store, &stats);
        ck_assert_uint_eq(stats.unread, 0);
        ck_assert(!store_next_unread(W.store, &unread)); /* it was told once */
        expect_damage(5);
        end_bad();
        compare_reopened();
        end();
}

/* Nothing is written from the first failed read on. */
static void wait_without_writing(unsigned n_times) {
        begin_bad(false, 0, 0);
        let_stand();
        damage_header_and_behind(5, n_times);
        while (atomic_load(&bad.n_failed) == 0)
                fill_a_little(5);
        StoreStats before, after;
        store_stats(W.store, &before);
        (void)pthread_mutex_lock(&W.store->lock);
        atomic_store(&bad.stand_usec, 0); /* it goes on */
        (void)pthread_cond_signal(&W.store->wake);
        (void)pthread_mutex_unlock(&W.store->lock);
        while (!is_compacted_until(1))
                (void)sched_yield();
        store_stats(W.store, &after);
        ck_assert_uint_eq(after.n_commits, before.n_commits);
}

TEST(compaction_that_waits_for_a_disk_goes_on_when_nothing_is_written) {
        wait_without_writing(5);
        ck_assert_int_eq(atomic_load(&bad.n_failed), 5);
        expect_damage(5);
        end_bad();
        compare_reopened();
        end();
}

TEST(compaction_gives_up_after_a_minute_when_nothing_is_written) {
        StoreDamage d;
        wait_without_writing(UINT32_MAX);
        ck_assert_int_ge(atomic_load(&bad.n_failed), 20); /* time goes on by two seconds each */
        ck_assert(store_next_damage(W.store, &d));
        end_bad();
        end();
}

/* Four records are read one by one, header and body, since a read of more fails; of the last one, which is damaged, also those of the
 * one before it, which is the same. */
TEST(a_queue_whose_other_record_cannot_be_read_for_a_moment_is_there) {
        StoreDamage d;
        uint32_t n = (uint32_t)record_size(4);
        begin_bad(false, 1 << 17 | 0x15555, 0);
        put_queue(1, 'a');
        fill_first_segment();
        write_over(SEGMENT_HEADER + 3 * n + RECORD_HEADER, "!", 1);
        while (!is_compacted_until(1))
                fill_a_little(10);
        ck_assert(store_next_damage(W.store, &d));
        ck_assert_uint_eq(d.at, SEGMENT_HEADER + 3 * n);
        ck_assert(!store_next_damage(W.store, &d));
        ck_assert_int_ge(atomic_load(&bad.n_failed), 10);
        end_bad();
        compare_reopened();
        end();
}

/* Some more commits; was damage of the first segment told? */
static bool is_first_told(void) {
        char first[SEGMENT_NAME_MAX], path[256];
        StoreDamage d;
        bool told = false;
        segment_name(1, first);
        fill_a_little(10);
        while (store_next_damage(W.store, &d)) {
                snprintf(path, sizeof(path), "%s/%s", W.dir, d.kept);
                ck_assert_int_eq(access(path, F_OK), 0);
                told = told || strcmp(d.file, first) == 0;
        }
        return told;
}

TEST(what_cannot_be_read_for_a_minute_is_damaged_and_told_before_its_segment_goes) {
        begin_bad(false, UINT64_MAX, 0);
        let_stand();
        while (atomic_load(&bad.n_failed) < 50) { /* two of them each second */
                ck_assert(!is_first_told());
                atomic_fetch_add(&bad.stand_usec, USEC_PER_SEC);
        }
        ck_assert(!is_compacted_until(1));
        atomic_fetch_add(&bad.stand_usec, 61 * USEC_PER_SEC);
        while (!is_first_told())
                ;
        end_bad();
        W.store = store_close(W.store);
        reopen();
        uint64_t last = W.want[0].last_seq / 5 * 5;
        ck_assert(W.got[0].there && W.got[0].definition == 'b');
        ck_assert(last > 0 && is_same(&W.got[0].tasks[last], &W.want[0].tasks[last]));
        end();
}

/* ---- a start ---- */

static void any_life(void) {
        for (unsigned i = 0; i < QUEUES; i++)
                put_queue(i, 'a');
        for (int i = 0; i < 1300; i++) {
                step();
                if (i % 20 == 0)
                        (void)commit();
        }
        (void)commit();
}

static void remove_hint(const char *path, const char *name) {
        uint64_t number;
        if (hint_parse_name(name, &number))
                remove_file(path, name);
}

static void is_no_copy(const char *path, const char *name) {
        ck_assert_msg(strncmp(name, "damaged-", 8) != 0, "%s is there", name);
}

/* Each of its reads in turn, by hints and without. What runs is looked at before, and without it there is no start. */
TEST(a_start_that_cannot_read_for_a_moment_loses_nothing) {
        unsigned n_waited = 0, n_opened = 0;
        for (int hints = 0; hints < 2; hints++) {
                live_and_die(any_life);
                for (long nth = 1;; nth += TEST_FEWER) {
                        if (!hints)
                                each_file(remove_hint);
                        W.n_unread = 0;
                        atomic_store(&bad.n_waits, 0);
                        fault_set(FAULT_READ, nth, false);
                        int r = try_open();
                        bool was_hit = atomic_load(&fault_countdown[FAULT_READ]) == 0;
                        fault_set(FAULT_READ, 0, false);
                        each_file(is_no_copy);
                        ck_assert_uint_le(W.n_unread, 1);
                        ck_assert_uint_eq(W.n_unread, atomic_load(&bad.n_waits));
                        n_waited += W.n_unread;
                        if (r < 0)
                                continue;
                        n_opened++;
                        ck_assert_uint_eq(W.n_damaged, 0);
                        compare();
                        W.store = store_close(W.store);
                        if (!was_hit)
                                break;
                        ck_assert_int_lt(nth, 10000);
                }
                each_file(remove_file);
                ck_assert_int_eq(rmdir(W.dir), 0);
        }
        ck_assert_uint_gt(n_waited, 20 / TEST_FEWER);
        ck_assert_uint_gt(n_opened, n_waited);
}

TEST(a_start_waits_for_a_disk_so_long_and_no_longer) {
        live_and_die(any_life);
        fault_set(FAULT_READ, 3, true); /* behind the file of what runs */
        ck_assert_int_eq(try_open(), -EIO);
        fault_set(FAULT_READ, 0, false);
        ck_assert_uint_eq(atomic_load(&bad.n_waits), READ_PATIENCE_SEC);
        ck_assert_uint_eq(W.n_unread, 1);
        each_file(is_no_copy);
        reopen();
        compare();
        end();
}

/* ---- a fetch ---- */

enum { N_FETCHED = 8 };

typedef struct Fetch {
        StoreFetch fetch; /* first */
        StoreFetched tasks[N_FETCHED];
        bool done;
} Fetch;

static void on_fetched(StoreFetch *f) {
        ((Fetch *)f)->done = true;
}

static void begin_fetch(Fetch *f, uint64_t seq, size_t n) {
        *f = (Fetch) { .fetch = { .tasks = f->tasks, .n = n, .done = on_fetched } };
        for (size_t i = 0; i < n; i++)
                f->tasks[i] = (StoreFetched) { .seq = seq + i };
        store_fetch(W.store, &f->fetch);
}

static void wait_fetch(const Fetch *f) {
        uint64_t durable;
        while (!f->done)
                (void)wait_event(&durable);
}

static void check_fetched(Fetch *f) {
        for (size_t i = 0; i < f->fetch.n; i++) {
                const ModelTask *t = &W.want[0].tasks[f->tasks[i].seq];
                ck_assert_int_eq(f->tasks[i].result, 0);
                ck_assert_uint_eq(f->tasks[i].len, t->n);
                for (size_t k = 0; k < t->n; k++)
                        ck_assert_int_eq(f->fetch.data[f->tasks[i].at + k], t->fill);
        }
        free(f->fetch.data);
}

static void begin_fetches(void) {
        begin(SEGMENT);
        put_queue(0, 'a');
        for (int i = 0; i < 2 * N_FETCHED; i++)
                ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        atomic_store(&bad.store, W.store);
}

TEST(what_a_fetch_cannot_read_for_a_moment_is_not_damaged) {
        StoreUnread unread;
        StoreDamage d;
        Fetch f;
        unsigned n_told = 0;
        begin_fetches();
        for (long nth = 1; nth <= 6; nth++) {
                fault_set(FAULT_READ, nth, false);
                begin_fetch(&f, 1, N_FETCHED);
                wait_fetch(&f);
                fault_set(FAULT_READ, 0, false);
                check_fetched(&f);
                for (; store_next_unread(W.store, &unread); n_told++)
                        ck_assert_uint_eq(unread.seconds, READ_PATIENCE_SEC);
                ck_assert(!store_next_damage(W.store, &d));
        }
        ck_assert_uint_gt(n_told, 0);
        end_bad();
        end();
}

TEST(what_a_fetch_cannot_read_for_long_is_damaged) {
        StoreUnread unread;
        StoreDamage d;
        Fetch f;
        begin_fetches();
        fault_set(FAULT_READ, 1, true);
        begin_fetch(&f, 3, 1);
        wait_fetch(&f);
        ck_assert_int_eq(f.tasks[0].result, -EIO);
        ck_assert(store_next_unread(W.store, &unread));
        ck_assert(store_next_damage(W.store, &d));
        ck_assert_int_ge(atomic_load(&bad.late_usec), (READ_PATIENCE_SEC - 1) * (long)USEC_PER_SEC); /* not before */
        free(f.fetch.data);
        end_bad();
        end();
}

TEST(a_fetch_that_waits_for_a_disk_holds_no_other_one_up) {
        Fetch first, second;
        begin_fetches();
        let_stand();
        fault_set(FAULT_READ, 1, true);
        begin_fetch(&first, 1, 2);
        for (StoreUnread u; !store_next_unread(W.store, &u);)
                (void)sched_yield();
        fault_set(FAULT_READ, 0, false);
        begin_fetch(&second, 5, N_FETCHED);
        wait_fetch(&second);
        ck_assert(!first.done);
        check_fetched(&second);
        (void)pthread_mutex_lock(&W.store->reader_lock);
        atomic_fetch_add(&bad.stand_usec, USEC_PER_SEC);
        (void)pthread_cond_signal(&W.store->reader_wake);
        (void)pthread_mutex_unlock(&W.store->reader_lock);
        wait_fetch(&first);
        check_fetched(&first);
        end_bad();
        end();
}

TEST(a_fetch_that_waits_for_a_disk_is_canceled_at_the_end) {
        Fetch f;
        begin_fetches();
        let_stand();
        fault_set(FAULT_READ, 1, true);
        begin_fetch(&f, 1, 2);
        for (StoreUnread u; !store_next_unread(W.store, &u);)
                (void)sched_yield();
        fault_set(FAULT_READ, 0, false);
        W.store = store_close(W.store);
        ck_assert(f.done);
        ck_assert_int_eq(f.tasks[0].result, -ECANCELED);
        free(f.fetch.data);
        end_bad();
        end();
}

RUN_TESTS("unread", 120, test_what_cannot_be_read_for_a_moment_is_not_damaged,
          test_a_segment_that_cannot_be_opened_for_a_moment_is_no_failure_of_the_store,
          test_what_can_be_read_after_more_than_a_minute_is_not_damaged,
          test_of_what_is_behind_a_damaged_header_nothing_is_lost_that_cannot_be_read_for_a_moment,
          test_what_cannot_be_read_is_asked_for_once_a_second,
          test_compaction_that_waits_for_a_disk_goes_on_when_nothing_is_written,
          test_compaction_gives_up_after_a_minute_when_nothing_is_written,
          test_a_queue_whose_other_record_cannot_be_read_for_a_moment_is_there,
          test_what_cannot_be_read_for_a_minute_is_damaged_and_told_before_its_segment_goes,
          test_a_start_that_cannot_read_for_a_moment_loses_nothing, test_a_start_waits_for_a_disk_so_long_and_no_longer,
          test_what_a_fetch_cannot_read_for_a_moment_is_not_damaged, test_what_a_fetch_cannot_read_for_long_is_damaged,
          test_a_fetch_that_waits_for_a_disk_holds_no_other_one_up,
          test_a_fetch_that_waits_for_a_disk_is_canceled_at_the_end)
