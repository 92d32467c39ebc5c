/* SPDX-License-Identifier: MIT */
/* The log beside a model that keeps the same in memory: after every reopening both must hold the same. */
#include "store/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fault.h"
#include "store/segment.h"
#include "test.h"

enum { QUEUES = 4, SEQS = 4000, BODY = 200, SEGMENT = 64 * 1024 };

typedef struct ModelTask {
        bool there;
        uint8_t lane, n; /* body: n bytes of `fill` */
        char fill;
        StoreKind last;
        char last_fill;
} ModelTask;

typedef struct ModelQueue {
        bool there, was;
        uint64_t last_seq;
        char definition;
        ModelTask tasks[SEQS];
} ModelQueue;

typedef struct World {
        char dir[64];
        uint32_t segment;
        Store *store;
        ModelQueue want[QUEUES], got[QUEUES]; /* got: what the store told when it was opened */
        unsigned n_damaged, n_running;
        char error[256];
        uint64_t random;
} World;

static World W; /* large */

static uint64_t dice(uint64_t n) {
        W.random = W.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (W.random >> 33) % n;
}

/* ---- opening ---- */

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        ModelQueue *q = &W.got[id];
        ck_assert_uint_lt(id, QUEUES);
        ck_assert_uint_eq(name.len, 2);
        ck_assert_int_eq(((const char *)name.data)[1], (char)('0' + id));
        ck_assert_uint_eq(definition.len, 1);
        q->there = q->was = true;
        q->last_seq = last_seq;
        q->definition = *(const char *)definition.data;
        return 0;
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        W.got[id].was = true;
        W.got[id].last_seq = last_seq;
        return 0;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        ModelTask *t = &W.got[queue].tasks[seq];
        const char *body = task.data, *end = last_body.data;
        ck_assert(!t->there);
        *t = (ModelTask) { .there = true, .lane = lane, .n = (uint8_t)task.len, .last = last };
        t->fill = task.len ? body[0] : 0;
        for (uint32_t i = 1; i < task.len; i++)
                ck_assert_int_eq(body[i], body[0]);
        t->last_fill = last ? end[0] : 0;
        return 0;
}

static int on_running(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt) {
        W.n_running++;
        return 0;
}

static int on_done(void *userdata) {
        return 0;
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        W.n_damaged++;
}

static const StoreReader reader = { .queue = on_queue,
                                    .gone = on_gone,
                                    .task = on_task,
                                    .running = on_running,
                                    .done = on_done,
                                    .damaged = on_damaged };

static int try_open(void) {
        StoreConfig config = { .dir = W.dir, .segment_size = W.segment };
        memset(W.got, 0, sizeof(W.got));
        W.n_damaged = W.n_running = 0;
        return store_open(&config, &reader, NULL, W.error, sizeof(W.error), &W.store);
}

static void reopen(void) {
        int r = try_open();
        ck_assert_msg(r == 0, "%s", W.error);
}

static void begin(uint32_t segment) {
        memset(&W, 0, sizeof(W));
        W.segment = segment;
        W.random = 42;
        strcpy(W.dir, "/tmp/eqd-store-test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(W.dir));
        reopen();
}

/* For each file of the store. */
static void each_file(void (*func)(const char *path, const char *name)) {
        DIR *dir = opendir(W.dir);
        char path[512];
        ck_assert_ptr_nonnull(dir);
        for (struct dirent *e; (e = readdir(dir));)
                if (e->d_name[0] != '.') {
                        snprintf(path, sizeof(path), "%s/%s", W.dir, e->d_name);
                        func(path, e->d_name);
                }
        closedir(dir);
}

static void remove_file(const char *path, const char *name) {
        ck_assert_int_eq(unlink(path), 0);
}

static void end(void) {
        W.store = store_close(W.store);
        each_file(remove_file);
        ck_assert_int_eq(rmdir(W.dir), 0);
}

static void compare(void) {
        for (int i = 0; i < QUEUES; i++) {
                const ModelQueue *want = &W.want[i], *got = &W.got[i];
                ck_assert_msg(want->there == got->there, "queue %d is %sthere", i, got->there ? "" : "not ");
                if (want->was)
                        ck_assert_msg(want->last_seq == got->last_seq, "queue %d: last SEQ %llu, want %llu", i,
                                      (unsigned long long)got->last_seq, (unsigned long long)want->last_seq);
                if (!want->there)
                        continue;
                ck_assert_int_eq(want->definition, got->definition);
                for (int seq = 0; seq < SEQS; seq++)
                        ck_assert_msg(memcmp(&want->tasks[seq], &got->tasks[seq], sizeof(ModelTask)) == 0,
                                      "task %d/%d is not as it should be: there %d, want %d", i, seq,
                                      got->tasks[seq].there, want->tasks[seq].there);
        }
}

/* ---- writing ---- */

static StoreHealth wait_event(uint64_t *durable) {
        struct pollfd p = { .fd = store_fd(W.store), .events = POLLIN };
        ck_assert_int_eq(poll(&p, 1, 20000), 1);
        return store_dispatch(W.store, durable);
}

/* Until all that was appended is durable; what the store says otherwise. */
static StoreHealth commit(void) {
        uint64_t durable;
        StoreHealth health = store_dispatch(W.store, &durable);
        while (durable < *store_written(W.store) && health != STORE_FAILED) {
                store_flush(W.store);
                health = wait_event(&durable);
        }
        return health;
}

static int put(StoreKind kind, uint64_t queue, uint64_t seq, uint8_t lane, const void *data, size_t n) {
        StoreItem item = { .kind = kind, .lane = lane, .queue = queue, .seq = seq, .body = { data, (uint32_t)n } };
        return store_append(W.store, &item, 1);
}

static void put_queue(unsigned i, char definition) {
        char body[4] = { 2, 'q', (char)('0' + i), definition };
        ck_assert_int_eq(put(STORE_QUEUE, i, W.want[i].last_seq, 0, body, sizeof(body)), 0);
        W.want[i].there = W.want[i].was = true;
        W.want[i].definition = definition;
}

static void put_gone(unsigned i) {
        char body[3] = { 2, 'q', (char)('0' + i) };
        ck_assert_int_eq(put(STORE_GONE, i, W.want[i].last_seq, 0, body, sizeof(body)), 0);
        W.want[i].there = false;
        memset(W.want[i].tasks, 0, sizeof(W.want[i].tasks));
}

/* n tasks as one group. */
static int put_group(unsigned i, size_t n) {
        static char bodies[64][BODY];
        StoreItem items[64];
        ModelQueue *q = &W.want[i];
        for (size_t k = 0; k < n; k++) {
                ModelTask t = { .there = true,
                                .lane = (uint8_t)dice(2),
                                .n = (uint8_t)(1 + dice(BODY - 1)),
                                .fill = (char)(1 + dice(100)) };
                memset(bodies[k], t.fill, t.n);
                q->tasks[q->last_seq + 1 + k] = t;
                items[k] = (StoreItem) { .kind = STORE_TASK,
                                         .lane = t.lane,
                                         .queue = i,
                                         .seq = q->last_seq + 1 + k,
                                         .body = { bodies[k], t.n } };
        }
        int r = store_append(W.store, items, n);
        q->last_seq += r == 0 ? n : 0;
        for (size_t k = 0; k < n && r < 0; k++)
                memset(&q->tasks[q->last_seq + 1 + k], 0, sizeof(ModelTask));
        return r;
}

static int put_task(unsigned i) {
        char body[BODY];
        ModelQueue *q = &W.want[i];
        ModelTask t = { .there = true,
                        .lane = (uint8_t)dice(2),
                        .n = (uint8_t)(1 + dice(BODY - 1)),
                        .fill = (char)(1 + dice(100)) };
        memset(body, t.fill, t.n);
        int r = put(STORE_TASK, i, q->last_seq + 1, t.lane, body, t.n);
        if (r == 0)
                q->tasks[++q->last_seq] = t;
        return r;
}

static void put_last(unsigned i, uint64_t seq, StoreKind kind) {
        char body = (char)(1 + dice(100));
        ck_assert_int_eq(put(kind, i, seq, 0, &body, 1), 0);
        W.want[i].tasks[seq].last = kind;
        W.want[i].tasks[seq].last_fill = body;
}

static void forget(unsigned i, uint64_t seq) {
        ck_assert_int_eq(put(STORE_FORGET, i, seq, 0, NULL, 0), 0);
        memset(&W.want[i].tasks[seq], 0, sizeof(ModelTask));
}

/* Something, anything. */
static void step(void) {
        unsigned i = (unsigned)dice(QUEUES);
        ModelQueue *q = &W.want[i];
        if (!q->there) {
                if (!q->was)
                        put_queue(i, 'a');
                return;
        }
        uint64_t seq = q->last_seq ? 1 + dice(q->last_seq) : 0;
        switch (dice(10)) {
        case 0 ... 3:
                if (q->last_seq + 1 < SEQS)
                        ck_assert_int_eq(put_task(i), 0);
                return;
        case 4 ... 5:
                if (seq && q->tasks[seq].there)
                        put_last(i, seq, STORE_STATE);
                return;
        case 6 ... 7:
                if (seq && q->tasks[seq].there)
                        put_last(i, seq, STORE_END);
                return;
        case 8:
                if (seq && q->tasks[seq].there)
                        forget(i, seq);
                return;
        default:
                if (dice(20) == 0)
                        put_queue(i, (char)('a' + dice(26)));
        }
}

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
        W.store = store_close(W.store);
        reopen();
        compare();
        ck_assert_uint_eq(W.n_damaged, 0);
        end();
}

TEST(closing_makes_everything_durable) {
        begin(0);
        put_queue(0, 'x');
        for (int i = 0; i < 1000; i++)
                ck_assert_int_eq(put_task(0), 0);
        W.store = store_close(W.store);
        reopen();
        compare();
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
                W.store = store_close(W.store);
                reopen();
                compare();
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
        W.store = store_close(W.store);
        reopen();
        compare();
        /* through many rounds of the log */
        put_queue(1, 'y');
        for (uint64_t n = 0; n < 3000; n++) {
                ck_assert_int_eq(put_task(1), 0);
                forget(1, W.want[1].last_seq);
                if (n % 50 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        W.store = store_close(W.store);
        reopen();
        compare();
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
                W.store = store_close(W.store);
                reopen();
                compare();
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
        W.store = store_close(W.store);
        reopen();
        compare();
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

TEST(no_group_reaches_over_the_end_of_a_segment) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(commit(), STORE_GOOD);
        for (int round = 0; round < 20; round++) {
                ck_assert_int_eq(put_group(0, 50), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        W.store = store_close(W.store);
        reopen();
        compare();
        end();
}

/* ---- damage ---- */

static char chosen[512];
static void choose_log(const char *path, const char *name) {
        uint64_t number;
        if (segment_parse_name(name, &number) && number == 1)
                strcpy(chosen, path);
}

TEST(a_flipped_bit_costs_one_record_and_is_reported) {
        begin(SEGMENT);
        put_queue(0, 'x');
        put_queue(1, 'y');
        for (int i = 0; i < 60; i++)
                ck_assert_int_eq(put_task((unsigned)i % 2), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
        W.store = store_close(W.store);
        each_file(choose_log);
        int fd = open(chosen, O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        char image[SEGMENT];
        ck_assert_int_eq(pread(fd, image, SEGMENT, 0), SEGMENT);
        uint32_t used = 0;
        for (uint32_t i = 0; i < SEGMENT; i++)
                if (image[i])
                        used = i + 1;
        for (int trial = 0; trial < 150; trial++) {
                uint32_t at = SEGMENT_HEADER + (uint32_t)dice(used - SEGMENT_HEADER - RECORD_HEADER);
                char flipped = (char)(image[at] ^ (1 << dice(8)));
                ck_assert_int_eq(pwrite(fd, &flipped, 1, at), 1);
                reopen();
                unsigned n = 0;
                for (int q = 0; q < 2; q++)
                        for (int i = 0; i < SEQS; i++)
                                if (W.got[q].tasks[i].there) {
                                        ck_assert_mem_eq(&W.got[q].tasks[i], &W.want[q].tasks[i], sizeof(ModelTask));
                                        n++;
                                }
                bool padding = W.n_damaged == 0; /* of no record's sum: nothing is lost then */
                if (padding)
                        ck_assert_uint_eq(n, 60);
                else
                        ck_assert_msg(n >= 59 || !W.got[0].there || !W.got[1].there, "%u of 60 left", n);
                W.store = store_close(W.store);
                ck_assert_int_eq(pwrite(fd, image, SEGMENT, 0), SEGMENT);
                DIR *dir = opendir(W.dir); /* what the opening made goes again */
                for (struct dirent *e; (e = readdir(dir));)
                        if (e->d_name[0] != '.' && strcmp(strrchr(chosen, '/') + 1, e->d_name) != 0)
                                (void)unlinkat(dirfd(dir), e->d_name, 0);
                closedir(dir);
        }
        close(fd);
        reopen();
        end();
}

static void spoil(const char *path, uint32_t at, const char *text) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(pwrite(fd, text, strlen(text), at), (ssize_t)strlen(text));
        close(fd);
}

TEST(foreign_and_later_files_are_refused_and_left_alone) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(commit(), STORE_GOOD);
        W.store = store_close(W.store);
        each_file(choose_log);
        spoil(chosen, 8, "\2");
        ck_assert_int_eq(try_open(), -EPROTONOSUPPORT);
        ck_assert_ptr_nonnull(strstr(W.error, "later version"));
        spoil(chosen, 8, "\1");
        spoil(chosen, 0, "PK");
        ck_assert_int_eq(try_open(), -EBADMSG);
        ck_assert_ptr_nonnull(strstr(W.error, "move it away"));
        spoil(chosen, 0, "EQ");
        reopen();
        compare();
        W.store = store_close(W.store);
        ck_assert_int_eq(truncate(chosen, 10), 0);
        ck_assert_int_eq(try_open(), -EBADMSG);
        ck_assert_int_eq(unlink(chosen), 0);
        reopen();
        end();
}

/* ---- failures ---- */

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
        W.store = store_close(W.store);
        reopen();
        compare();
        end();
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
        W.store = store_close(W.store);
        reopen();
        compare();
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

RUN_TESTS("store", 120, test_what_was_written_is_there_again, test_closing_makes_everything_durable,
          test_random_lives_survive_many_openings_with_compaction_at_work,
          test_a_removed_queue_keeps_its_last_number_and_nothing_else,
          test_the_last_number_of_an_empty_queue_survives_compaction, test_one_old_task_pins_nothing,
          test_a_group_is_there_as_a_whole_or_not_at_all, test_no_group_reaches_over_the_end_of_a_segment,
          test_a_flipped_bit_costs_one_record_and_is_reported, test_foreign_and_later_files_are_refused_and_left_alone,
          test_after_a_failed_sync_nothing_is_durable_any_more, test_after_a_failed_write_too,
          test_each_failing_write_and_sync_loses_nothing_that_was_promised,
          test_without_space_tasks_are_refused_what_is_in_hand_goes_on_and_it_recovers,
          test_memory_running_out_is_an_error_and_loses_nothing, test_kill_9_loses_nothing_that_was_promised,
          test_marks_of_running_tasks_outlive_the_process_and_are_told_once)
