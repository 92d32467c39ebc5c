/* SPDX-License-Identifier: MIT */
/* A gigabyte goes through a store, ten with EQD_LONG=1, a fifth below a sanitizer, while one old task stays: the log on disk is no larger than what lives by a
 * fifth and three segments, and a start reads no more than that. Counted in bytes, on no disk: how fast it is the benches say. */
#include "store/store.h"

#include <dirent.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "test.h"

#define GIGABYTE (UINT64_C(1) << 30)

enum {
        SEGMENT = 16 << 20,
        BODY = 1000,
        BATCH = 256, /* tasks of a commit */
        OLD = 1,     /* its SEQ */
        LIVE_MAX = 20000,
};

typedef struct Run {
        char dir[64];
        Store *store;
        uint64_t last_seq, n_bytes; /* given; appended so far */
        uint64_t live[LIVE_MAX];    /* SEQs of those that are there beside the old one */
        size_t n_live, n_wanted;
        uint64_t random, disk_max, slack_max;
        uint64_t n_told, n_told_last,
                told_sum; /* by an opening: tasks, those with something behind them, sum of SEQs */
} Run;

static Run run;
static char body[BODY];

static uint64_t traffic(void) {
        const char *l = getenv("EQD_LONG");
        return l && strcmp(l, "1") == 0 ? 10 * GIGABYTE : GIGABYTE / TEST_FEWER;
}

/* ---- the store ---- */

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        ck_assert_uint_eq(last_seq, run.last_seq);
        return 0;
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        return 0;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        if (task.len != BODY || memcmp(task.data, body, BODY) != 0)
                ck_abort_msg("the body of %llu", (unsigned long long)seq);
        run.n_told++;
        run.n_told_last += last != 0;
        run.told_sum += seq;
        return 0;
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        ck_abort_msg("damage in %s", file);
}

static void open_store(void) {
        static const StoreReader reader = {
                .queue = on_queue, .gone = on_gone, .task = on_task, .damaged = on_damaged
        };
        StoreConfig config = { .dir = run.dir, .segment_size = SEGMENT };
        char error[256];
        run.n_told = run.n_told_last = run.told_sum = 0;
        ck_assert_msg(store_open(&config, &reader, NULL, error, sizeof(error), &run.store) == 0, "%s", error);
}

static void put(StoreKind kind, uint64_t seq, const void *data, uint32_t n) {
        StoreItem item = { .kind = kind, .seq = seq, .body = { data, n } };
        if (store_append(run.store, &item, 1) != 0)
                ck_abort_msg("%llu is not taken", (unsigned long long)seq);
        run.n_bytes += record_size(n);
}

static void commit(void) {
        uint64_t durable;
        for (store_flush(run.store);; store_flush(run.store)) {
                struct pollfd p = { .fd = store_fd(run.store), .events = POLLIN };
                StoreHealth health = store_dispatch(run.store, &durable);
                ck_assert_int_eq(health, STORE_GOOD);
                if (durable == *store_written(run.store))
                        return;
                ck_assert_int_eq(poll(&p, 1, -1), 1);
        }
}

/* Bytes of the log, and of the hints beside it. */
static uint64_t disk(const char *prefix) {
        uint64_t sum = 0;
        DIR *dir = opendir(run.dir);
        ck_assert_ptr_nonnull(dir);
        for (struct dirent *e; (e = readdir(dir));) {
                struct stat st;
                if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 && fstatat(dirfd(dir), e->d_name, &st, 0) == 0)
                        sum += (uint64_t)st.st_size;
        }
        closedir(dir);
        return sum;
}

static uint64_t live_bytes(void) {
        return (run.n_live + 1) * record_size(BODY);
}

static uint64_t bound(unsigned segments) {
        return live_bytes() + live_bytes() / 5 + segments * (uint64_t)SEGMENT;
}

/* ---- traffic ---- */

static uint64_t dice(uint64_t n) {
        run.random = run.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (run.random >> 33) % n;
}

/* As many as were submitted end, in any order, and are forgotten. */
static void turn(void) {
        for (int i = 0; i < BATCH; i++) {
                put(STORE_TASK, ++run.last_seq, body, BODY);
                run.live[run.n_live++] = run.last_seq;
        }
        while (run.n_live > run.n_wanted) {
                size_t i = dice(run.n_live);
                put(STORE_STATE, run.live[i], "state", 5);
                put(STORE_END, run.live[i], "end", 3);
                put(STORE_FORGET, run.live[i], NULL, 0);
                run.live[i] = run.live[--run.n_live];
        }
        commit();
}

/* Compaction goes on between commits and a little with each, of which each adds some bytes. */
static void settle(void) {
        for (int i = 0; i < 20000 && disk("log-") > bound(3); i++) {
                put(STORE_QUEUE, 0, "\002q0x", 4);
                commit();
        }
}

static void begin(size_t n_live) {
        bool has_shm = access("/dev/shm", W_OK) == 0;
        memset(&run, 0, sizeof(run));
        run.random = 42;
        run.n_wanted = n_live;
        memset(body, 'b', sizeof(body));
        strcpy(run.dir, has_shm ? "/dev/shm/eqd-pinning-test.XXXXXX" : "/tmp/eqd-pinning-test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(run.dir));
        open_store();
        put(STORE_QUEUE, 0, "\002q0x", 4);
        put(STORE_TASK, OLD, body, BODY);
        run.last_seq = OLD;
        commit();
}

static unsigned n_without_hint(void) {
        unsigned n = 0;
        DIR *dir = opendir(run.dir);
        ck_assert_ptr_nonnull(dir);
        for (struct dirent *e; (e = readdir(dir));) {
                char hint[sizeof(e->d_name) + 1];
                if (strncmp(e->d_name, "log-", 4) != 0)
                        continue;
                snprintf(hint, sizeof(hint), "hint-%s", e->d_name + 4);
                n += faccessat(dirfd(dir), hint, F_OK, 0) != 0;
        }
        closedir(dir);
        return n;
}

/* The active one has none before the end, and the one that is made in advance never. Those that are not made by the end are not made. */
static void wait_for_hints(void) {
        while (n_without_hint() > 2)
                (void)sched_yield();
}

/* An opening that reads more than once what there is would not be linear. */
static void check_opening(bool hints) {
        StoreStats stats;
        uint64_t logs = disk("log-"), hint_bytes = disk("hint-"), all = logs + hint_bytes, sum = OLD;
        open_store();
        store_stats(run.store, &stats);
        for (size_t i = 0; i < run.n_live; i++)
                sum += run.live[i];
        ck_assert_uint_eq(run.n_told, run.n_live + 1);
        ck_assert_uint_eq(run.n_told_last, 0);
        ck_assert_uint_eq(run.told_sum, sum);
        enum { HEADERS = 64 * 1024 };
        uint64_t whole =
                logs / SEGMENT - stats.n_hints_used; /* those whose hints were still to be made when it was closed */
        ck_assert(hints ? whole <= 1 && stats.n_hints_used > 0 : stats.n_hints_used == 0);
        if (!hints)
                whole++; /* the last one is looked at once more */
        ck_assert_uint_le(stats.open_bytes, hint_bytes + whole * SEGMENT + live_bytes() + HEADERS); /* and the bodies */
        printf("# %s hints: %llu tasks told, %llu MB read of %llu on disk\n", hints ? "with" : "without",
               (unsigned long long)run.n_told, (unsigned long long)(stats.open_bytes >> 20),
               (unsigned long long)(all >> 20));
        run.store = store_close(run.store);
}

static void remove_files(const char *prefix) {
        DIR *dir = opendir(run.dir);
        ck_assert_ptr_nonnull(dir);
        for (struct dirent *e; (e = readdir(dir));)
                if (e->d_name[0] != '.' && strncmp(e->d_name, prefix, strlen(prefix)) == 0)
                        ck_assert_int_eq(unlinkat(dirfd(dir), e->d_name, 0), 0);
        closedir(dir);
}

static void pin(size_t n_live) {
        StoreStats stats;
        uint64_t wanted = traffic();
        begin(n_live);
        for (unsigned i = 0; run.n_bytes < wanted; i++) {
                turn();
                if (i % 64 == 0) {
                        run.disk_max = MAX(run.disk_max, disk("log-"));
                        ck_assert_uint_le(disk("log-"), bound(4)); /* one is being compacted */
                }
        }
        settle();
        ck_assert_uint_le(disk("log-"), bound(3));
        for (store_stats(run.store, &stats); stats.bytes != disk("log-"); store_stats(run.store, &stats))
                (void)sched_yield(); /* the thread may be between a segment that it has removed and its figures */
        ck_assert_uint_gt(stats.n_moved, 0);
        uint64_t rounds = run.n_bytes / (3 * (uint64_t)SEGMENT) + 1; /* a record is moved once in each */
        ck_assert_uint_le(stats.n_moved, rounds * (run.n_wanted + 2 * BATCH));
        printf("# %llu MB of records, %llu MB live: at most %llu MB on disk, %llu at the end; %llu records moved\n",
               (unsigned long long)(run.n_bytes >> 20), (unsigned long long)(live_bytes() >> 20),
               (unsigned long long)(run.disk_max >> 20), (unsigned long long)(disk("log-") >> 20),
               (unsigned long long)stats.n_moved);
        wait_for_hints();
        run.store = store_close(run.store);
        check_opening(true);
        remove_files("hint-");
        check_opening(false);
        remove_files("");
        ck_assert_int_eq(rmdir(run.dir), 0);
}

TEST(one_old_task_under_much_traffic_pins_nothing) {
        pin(0);
}

TEST(neither_does_it_among_many_that_end_in_any_order) {
        pin(LIVE_MAX - BATCH);
}

RUN_TESTS("pinning", 120, test_one_old_task_under_much_traffic_pins_nothing,
          test_neither_does_it_among_many_that_end_in_any_order)
