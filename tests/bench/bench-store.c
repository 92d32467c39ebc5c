/* SPDX-License-Identifier: MIT */
/* The store alone, beside a loop that appends the same bytes to an allocated file and calls fdatasync: what a disk allows. In
 * turns, so that both meet the same disk; medians of the rounds. The thread that appends waits for each batch, as clients do
 * who have as many tasks in flight. A directory below the present one is used, and removed.
 *
 *      bench-store [ROUNDS [PENDING]]      PENDING: only cycles, with so many tasks pending, a million at most
 *
 * Lines: `bench NAME VALUE UNIT ratio R of PEER (PEER'S VALUE; placement)`. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/util.h"
#include "store/segment.h"
#include "store/store.h"

enum {
        N_QUEUES = 1000,
        BODY = 100,
        END_BODY = 24,
        N_LIVE_MAX = 1000000,
        N_HISTORY = 20000,       /* ends that are kept */
        BATCH = 256,             /* of cycles */
        N_CYCLE_COMMITS = 20000, /* some rounds of the log */
        SEGMENT = 64 << 20,
        ROUNDS_MAX = 99,
};

static char root[] = "bench-store-XXXXXX";
static char body[BODY];

static void must(bool ok, const char *what) {
        if (ok)
                return;
        perror(what);
        exit(EXIT_FAILURE);
}

static double now_usec(void) {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return x < y ? -1 : x > y;
}

/* Sorts them. */
static double quantile(double *v, size_t n, double q) {
        must(n > 0, "nothing was measured");
        qsort(v, n, sizeof(*v), compare);
        return v[MIN((size_t)(q * (double)n), n - 1)];
}

static uint64_t dice(uint64_t *state, uint64_t n) { /* xorshift64* */
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        return (*state * UINT64_C(0x2545F4914F6CDD1D)) % n;
}

/* ---- the store ---- */

static int on_queue(void *u, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        return 0;
}
static int on_task(void *u, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        return 0;
}
static int on_gone(void *u, uint64_t id, StoreBytes name, uint64_t last_seq) {
        return 0;
}
static const StoreReader reader = { .queue = on_queue, .gone = on_gone, .task = on_task };

static uint64_t last_seq[N_QUEUES];

static void put(Store *s, StoreKind kind, uint64_t queue, uint64_t seq, const void *data, uint32_t len) {
        StoreItem item = { .kind = kind, .queue = queue, .seq = seq, .body = { data, len } };
        int r = store_append(s, &item, 1);
        errno = -r;
        must(r == 0, "store_append");
}

/* Until all that was appended is durable; microseconds. */
static double commit(Store *s) {
        double begin = now_usec();
        uint64_t position = 0, wanted = *store_written(s);
        store_flush(s);
        while (position < wanted) {
                struct pollfd p = { .fd = store_fd(s), .events = POLLIN };
                must(poll(&p, 1, -1) == 1, "poll");
                must(store_dispatch(s, &position) == STORE_GOOD, "the store has failed or is full");
                store_flush(s);
        }
        return now_usec() - begin;
}

static Store *begin(const char *path) {
        char error[256];
        Store *s;
        StoreConfig config = { .dir = path, .segment_size = SEGMENT };
        if (store_open(&config, &reader, NULL, error, sizeof(error), &s) < 0) {
                fprintf(stderr, "%s\n", error);
                exit(EXIT_FAILURE);
        }
        for (uint64_t q = 0; q < N_QUEUES; q++) {
                last_seq[q] = 0;
                put(s, STORE_QUEUE, q, 0, "\1q", 2);
        }
        (void)commit(s);
        return s;
}

static void remove_files(const char *path) {
        char command[128];
        snprintf(command, sizeof(command), "rm -rf '%s'", path); /* a name of our own making */
        must(system(command) == 0, "rm");
}

/* ---- the peer ---- */

typedef struct Bare {
        int fd;
        off_t at;
        char *bytes; /* of the largest batch */
} Bare;

static void bare_begin(Bare *b, const char *path, size_t n_max) {
        b->bytes = malloc(n_max);
        must(b->bytes, "malloc");
        memset(b->bytes, 'b', n_max);
        b->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        b->at = 0;
        must(b->fd >= 0 && fallocate(b->fd, 0, 0, SEGMENT) == 0 && fsync(b->fd) == 0, path);
}

static double bare_commit(Bare *b, size_t n) {
        double t = now_usec();
        if (b->at + (off_t)n > SEGMENT)
                b->at = 0; /* kinder than a new file */
        must(pwrite(b->fd, b->bytes, n, b->at) == (ssize_t)n && fdatasync(b->fd) == 0, "append and fdatasync");
        b->at += (off_t)n;
        return now_usec() - t;
}

static void bare_end(Bare *b) {
        free(b->bytes);
        close(b->fd);
}

/* ---- group commit ---- */

/* Tasks alone, in batches of one size. Microseconds for each commit, the appending in it. */
static void run_commits(int rounds, size_t batch, size_t n_commits) {
        double rates[ROUNDS_MAX], peers[ROUNDS_MAX], p50s[ROUNDS_MAX], peer_p50s[ROUNDS_MAX];
        double *took = calloc(n_commits, sizeof(*took)), *peer = calloc(n_commits, sizeof(*peer));
        char store_path[64], bare_path[64];
        size_t bytes = batch * record_size(BODY);
        must(took && peer, "calloc");
        for (int round = 0; round < rounds; round++) {
                snprintf(store_path, sizeof(store_path), "%s/store", root);
                snprintf(bare_path, sizeof(bare_path), "%s/bare", root);
                Store *s = begin(store_path);
                Bare b;
                bare_begin(&b, bare_path, bytes);
                double sum = 0, peer_sum = 0;
                for (size_t i = 0; i < n_commits; i++) {
                        peer[i] = bare_commit(&b, bytes);
                        double t = now_usec();
                        for (size_t k = 0; k < batch; k++) {
                                uint64_t q = (i * batch + k) % N_QUEUES;
                                put(s, STORE_TASK, q, ++last_seq[q], body, BODY);
                        }
                        double appended = now_usec() - t;
                        took[i] = appended + commit(s);
                        sum += took[i];
                        peer_sum += peer[i];
                }
                rates[round] = (double)(batch * n_commits) / sum * 1e6;
                peers[round] = (double)(batch * n_commits) / peer_sum * 1e6;
                p50s[round] = quantile(took, n_commits, 0.5);
                peer_p50s[round] = quantile(peer, n_commits, 0.5);
                bare_end(&b);
                (void)store_close(s);
                remove_files(store_path);
                remove_files(bare_path);
        }
        size_t n = (size_t)rounds;
        double rate = quantile(rates, n, 0.5), other = quantile(peers, n, 0.5);
        printf("bench store.commit.%zu %.0f tasks/s ratio %.2f of append+fdatasync (%.0f tasks/s; one batch after the "
               "other, "
               "unpinned)\n",
               batch, rate, rate / other, other);
        double p50 = quantile(p50s, n, 0.5), other_p50 = quantile(peer_p50s, n, 0.5);
        printf("bench store.commit.%zu.p50 %.0f us ratio %.2f of append+fdatasync (%.0f us; the same)\n", batch, p50,
               p50 / other_p50, other_p50);
        (void)fflush(stdout);
        free(took);
        free(peer);
}

/* ---- cycles ---- */

static double usec_of(const struct timeval *t) {
        return (double)t->tv_sec * 1e6 + (double)t->tv_usec;
}

/* CPU time of the store's threads, which are all but this one: other work on the machine hardly changes it. */
static double store_cpu_usec(void) {
        struct rusage all, own;
        must(getrusage(RUSAGE_SELF, &all) == 0 && getrusage(RUSAGE_THREAD, &own) == 0, "getrusage");
        return usec_of(&all.ru_utime) + usec_of(&all.ru_stime) - usec_of(&own.ru_utime) - usec_of(&own.ru_stime);
}

typedef struct Pair {
        uint64_t queue, seq;
} Pair;

typedef struct Cycles {
        Store *store;
        Pair live[N_LIVE_MAX + BATCH], history[N_HISTORY];
        size_t n_live, n_ended;
        uint64_t dice;
} Cycles;

static void submit(Cycles *c) {
        Pair p = { .queue = dice(&c->dice, N_QUEUES) };
        p.seq = ++last_seq[p.queue];
        put(c->store, STORE_TASK, p.queue, p.seq, body, BODY);
        c->live[c->n_live++] = p;
}

static void cycle(Cycles *c) {
        size_t k = (size_t)dice(&c->dice, c->n_live);
        Pair p = c->live[k];
        c->live[k] = c->live[--c->n_live];
        put(c->store, STORE_END, p.queue, p.seq, body, END_BODY);
        Pair *old = &c->history[c->n_ended % N_HISTORY];
        if (c->n_ended++ >= N_HISTORY)
                put(c->store, STORE_FORGET, old->queue, old->seq, NULL, 0);
        *old = p;
        submit(c);
}

/* One task is submitted, one of those that are pending ends, the history of one is over: from a store of one segment through some
 * rounds of its log. */
static void run_cycles(int rounds, size_t n_pending) {
        static Cycles c;
        static double took[N_CYCLE_COMMITS], before[N_CYCLE_COMMITS], during[N_CYCLE_COMMITS];
        double rates[ROUNDS_MAX], p50s[ROUNDS_MAX], p99s[ROUNDS_MAX], peers[ROUNDS_MAX], moved[ROUNDS_MAX],
                costs[ROUNDS_MAX];
        for (int round = 0; round < rounds; round++) {
                char path[64];
                snprintf(path, sizeof(path), "%s/store", root);
                c = (Cycles) { .store = begin(path), .dice = 88172645463325252u + (uint64_t)round };
                for (size_t i = 0; i < n_pending; i++) {
                        submit(&c);
                        if (i % 1000 == 0)
                                (void)commit(c.store);
                }
                (void)commit(c.store);
                size_t n_before = 0, n_during = 0;
                StoreStats stats = { 0 };
                double start = 0, end = 0, cpu = 0;
                for (size_t i = 0; i < N_CYCLE_COMMITS; i++) {
                        double t = now_usec();
                        for (int k = 0; k < BATCH; k++)
                                cycle(&c);
                        double appended = now_usec() - t;
                        took[i] = appended + commit(c.store);
                        store_stats(c.store, &stats);
                        if (stats.n_moved == 0)
                                before[n_before++] = took[i];
                        else {
                                if (n_during == 0) {
                                        start = t;
                                        cpu = store_cpu_usec();
                                }
                                during[n_during++] = took[i];
                                end = now_usec();
                        }
                }
                must(n_during > N_CYCLE_COMMITS / 4, "compaction has hardly run");
                rates[round] = (double)n_during * BATCH / (end - start) * 1e6;
                costs[round] = (store_cpu_usec() - cpu) / ((double)n_during * BATCH);
                p50s[round] = quantile(during, n_during, 0.5);
                p99s[round] = quantile(during, n_during, 0.99);
                peers[round] = quantile(before, n_before, 0.99);
                moved[round] = (double)stats.n_moved / ((double)N_CYCLE_COMMITS * BATCH);
                (void)store_close(c.store);
                remove_files(path);
        }
        size_t n = (size_t)rounds;
        printf("bench store.cycle.%zu %.0f cycles/s (%zu pending in %d queues, batches of %d, %.2f records moved per "
               "cycle; unpinned)\n",
               n_pending, quantile(rates, n, 0.5), n_pending, N_QUEUES, BATCH, quantile(moved, n, 0.5));
        printf("bench store.cycle.%zu.cpu %.2f us (CPU time of the store's threads per cycle; the same)\n", n_pending,
               quantile(costs, n, 0.5));
        printf("bench store.cycle.%zu.p50 %.0f us (the same)\n", n_pending, quantile(p50s, n, 0.5));
        double p99 = quantile(p99s, n, 0.5), other = quantile(peers, n, 0.5);
        printf("bench store.cycle.%zu.p99 %.0f us ratio %.2f of before-compaction (%.0f us; the same)\n", n_pending,
               p99, p99 / other, other);
}

int main(int argc, char **argv) {
        int rounds = argc > 1 ? atoi(argv[1]) : 3;
        int pending = argc > 2 ? atoi(argv[2]) : N_LIVE_MAX;
        if (rounds < 1 || rounds > ROUNDS_MAX || pending < 1 || pending > N_LIVE_MAX) {
                fprintf(stderr, "usage: bench-store [ROUNDS, 1 to %d [PENDING, 1 to %d]]\n", ROUNDS_MAX, N_LIVE_MAX);
                return 2;
        }
        must(mkdtemp(root), "mkdtemp");
        memset(body, 't', sizeof(body));
        if (argc <= 2) {
                run_commits(rounds, 1, 2000);
                run_commits(rounds, 16, 2000);
                run_commits(rounds, 256, 2000);
                run_commits(rounds, 4096, 100);
                run_cycles(rounds, 20000);
        }
        run_cycles(rounds, (size_t)pending);
        must(rmdir(root) == 0, root);
        return 0;
}
