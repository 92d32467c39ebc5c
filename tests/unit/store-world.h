/* SPDX-License-Identifier: MIT */
#pragma once

/* A store, and a model beside it that keeps the same in memory: after every opening both must hold the same. One per process. */

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
        unsigned n_damaged, n_running, n_brief, n_noticed, n_unread;
        uint64_t damaged_at, damaged_bytes;                        /* the last one */
        char damaged[SEGMENT_NAME_MAX], noticed[SEGMENT_NAME_MAX]; /* the last one */
        bool brief;                                                /* what tasks begin with is mostly enough */
        bool keep_marks;
        char error[256];
        uint64_t random;
        const char *boot; /* of the machine; NULL: as it is */
} World;

static World W; /* large */

static inline uint64_t dice(uint64_t n) {
        W.random = W.random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (W.random >> 33) % n;
}

/* For what is asked often: Check writes down each of its own. */
#define expect(condition) ((condition) ? (void)0 : ck_abort_msg("not so: %s", #condition))

/* ---- opening ---- */

static inline int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
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

static inline int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        W.got[id].was = true;
        W.got[id].last_seq = last_seq;
        return 0;
}

static inline int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                          StoreBytes last_body) {
        ModelTask *t = &W.got[queue].tasks[seq];
        const char *body = task.data, *end = last_body.data;
        expect(!t->there);
        *t = (ModelTask) { .there = true, .lane = lane, .n = (uint8_t)task.len, .last = last };
        t->fill = task.len ? body[0] : 0;
        for (uint32_t i = 1; i < task.len; i++)
                expect(body[i] == body[0]);
        t->last_fill = last ? end[0] : 0;
        return 0;
}

static inline int on_running(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt) {
        W.n_running++;
        return 0;
}

static inline int on_done(void *userdata) {
        return 0;
}

static inline void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        W.n_damaged++;
        W.damaged_at = at;
        W.damaged_bytes = n;
        snprintf(W.damaged, sizeof(W.damaged), "%s", file);
}

static inline void on_unread(void *userdata, const char *file, unsigned seconds) {
        W.n_unread++;
}

static inline int on_mark_damaged(void *userdata, StoreMarkDamage what, int slot, uint64_t queue, uint64_t seq) {
        W.n_noticed++;
        strcpy(W.noticed, "running");
        return 0;
}

static inline void on_noticed(void *userdata, const char *file, const char *what) {
        W.n_noticed++;
        snprintf(W.noticed, sizeof(W.noticed), "%s", file);
}

/* What it begins with is what the rest is like. */
static inline int on_brief(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes begin, uint32_t len) {
        ModelTask *t = &W.got[queue].tasks[seq];
        const char *body = begin.data;
        expect(!t->there);
        expect(begin.len == (len < STORE_BEGIN ? len : STORE_BEGIN));
        if (!W.brief || seq % 5 == 0)
                return 0;
        *t = (ModelTask) { .there = true, .lane = lane, .n = (uint8_t)len, .fill = len ? body[0] : 0 };
        W.n_brief++;
        return 1;
}

static const StoreReader reader = { .queue = on_queue,
                                    .gone = on_gone,
                                    .task = on_task,
                                    .brief = on_brief,
                                    .running = on_running,
                                    .done = on_done,
                                    .damaged = on_damaged,
                                    .unread = on_unread,
                                    .mark_damaged = on_mark_damaged,
                                    .noticed = on_noticed };

static inline int try_open(void) {
        StoreConfig config = { .dir = W.dir, .segment_size = W.segment, .boot = W.boot, .keep_marks = W.keep_marks };
        memset(W.got, 0, sizeof(W.got));
        W.n_damaged = W.n_running = W.n_brief = W.n_noticed = W.n_unread = 0;
        W.damaged[0] = W.noticed[0] = '\0';
        return store_open(&config, &reader, NULL, W.error, sizeof(W.error), &W.store);
}

static inline void reopen(void) {
        int r = try_open();
        ck_assert_msg(r == 0, "%s", W.error);
}

static inline void begin(uint32_t segment) {
        memset(&W, 0, sizeof(W));
        W.segment = segment;
        W.random = 42;
        bool has_shm =
                access("/dev/shm", W_OK) == 0; /* what is shown here needs no disk, and a busy one takes minutes */
        strcpy(W.dir, has_shm ? "/dev/shm/eqd-store-test.XXXXXX" : "/tmp/eqd-store-test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(W.dir));
        reopen();
}

/* For each file of the store. */
static inline void each_file(void (*func)(const char *path, const char *name)) {
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

static inline void remove_file(const char *path, const char *name) {
        ck_assert_int_eq(unlink(path), 0);
}

static inline void end(void) {
        W.store = store_close(W.store);
        each_file(remove_file);
        ck_assert_int_eq(rmdir(W.dir), 0);
}

/* By members: what is between them is whatever the compiler left there. */
static inline bool is_same(const ModelTask *a, const ModelTask *b) {
        return a->there == b->there && a->lane == b->lane && a->n == b->n && a->fill == b->fill && a->last == b->last &&
               a->last_fill == b->last_fill;
}

static inline void compare(void) {
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
                        if (!is_same(&want->tasks[seq], &got->tasks[seq]))
                                ck_abort_msg("task %d/%d is not as it should be: there %d, want %d", i, seq,
                                             got->tasks[seq].there, want->tasks[seq].there);
        }
}

/* What it holds is there again after an orderly end. */
static inline void compare_reopened(void) {
        W.store = store_close(W.store);
        reopen();
        compare();
}

/* ---- writing ---- */

static inline StoreHealth wait_event(uint64_t *durable) {
        struct pollfd p = { .fd = store_fd(W.store), .events = POLLIN };
        ck_assert_int_eq(poll(&p, 1, -1), 1); /* the limit of time is what fails here */
        return store_dispatch(W.store, durable);
}

/* Until all that was appended is durable; what the store says otherwise. */
static inline StoreHealth commit(void) {
        uint64_t durable;
        StoreHealth health = store_dispatch(W.store, &durable);
        while (durable < *store_written(W.store) && health != STORE_FAILED) {
                store_flush(W.store);
                health = wait_event(&durable);
        }
        return health;
}

static inline int put(StoreKind kind, uint64_t queue, uint64_t seq, uint8_t lane, const void *data, size_t n) {
        StoreItem item = { .kind = kind, .lane = lane, .queue = queue, .seq = seq, .body = { data, (uint32_t)n } };
        return store_append(W.store, &item, 1);
}

static inline void put_queue(unsigned i, char definition) {
        char body[4] = { 2, 'q', (char)('0' + i), definition };
        ck_assert_int_eq(put(STORE_QUEUE, i, W.want[i].last_seq, 0, body, sizeof(body)), 0);
        W.want[i].there = W.want[i].was = true;
        W.want[i].definition = definition;
}

static inline void put_gone(unsigned i) {
        char body[3] = { 2, 'q', (char)('0' + i) };
        ck_assert_int_eq(put(STORE_GONE, i, W.want[i].last_seq, 0, body, sizeof(body)), 0);
        W.want[i].there = false;
        memset(W.want[i].tasks, 0, sizeof(W.want[i].tasks));
}

/* n tasks as one group. */
static inline int put_group(unsigned i, size_t n) {
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

static inline int put_task(unsigned i) {
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

static inline void put_last(unsigned i, uint64_t seq, StoreKind kind) {
        char body = (char)(1 + dice(100));
        ck_assert_int_eq(put(kind, i, seq, 0, &body, 1), 0);
        W.want[i].tasks[seq].last = kind;
        W.want[i].tasks[seq].last_fill = body;
}

static inline void forget(unsigned i, uint64_t seq) {
        ck_assert_int_eq(put(STORE_FORGET, i, seq, 0, NULL, 0), 0);
        memset(&W.want[i].tasks[seq], 0, sizeof(ModelTask));
}

/* Something, anything. */
static inline void step(void) {
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

/* A store whose process has lived so and was killed: nothing is put in order. W.want is what it had promised. */
static inline void live_and_die(void (*life)(void)) {
        int fds[2], status;
        begin(SEGMENT);
        W.store = store_close(W.store); /* its threads would not be there behind a fork */
        each_file(remove_file);
        ck_assert_int_eq(pipe(fds), 0);
        pid_t pid = fork();
        if (pid == 0) {
                reopen();
                life();
                _exit(write(fds[1], W.want, sizeof(W.want)) != sizeof(W.want));
        }
        close(fds[1]);
        for (size_t got = 0, n; got < sizeof(W.want); got += n) {
                n = (size_t)read(fds[0], (char *)W.want + got, sizeof(W.want) - got);
                ck_assert(n > 0 && n <= sizeof(W.want));
        }
        close(fds[0]);
        ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
}
