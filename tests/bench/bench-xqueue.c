/* SPDX-License-Identifier: MIT */
/* What only the execution queue of eqd has: latency of urgent tasks behind a backlog, of a light queue beside busy ones, the
 * cost of a cancel, memory per pending task and after a burst. Lines `bench NAME VALUE UNIT`. The throughput beside other
 * engines is bench-engines.py's. */

#include <malloc.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "engine/xqueue.h"

enum { N_CANCEL = 100000, N_BURST = 1000000, N_ROUNDS = 5, N_URGENT = 200, N_LIGHT = 200, N_BUSY = 8, BUSY_DEPTH = 64 };

typedef struct Item {
        XTask task; /* first */
        uint64_t submitted_nsec, work_nsec;
} Item;

typedef struct Bench {
        XQueues xs;
        Workers *workers;
        Slab *slab;
} Bench;

typedef struct Load {
        Bench *bench;
        uint64_t id;
        bool feeds; /* each task submits the next */
        sem_t done;
        _Atomic(uint64_t) latency_nsec, n_done;
        _Atomic(bool) stop;
} Load;

static uint64_t now_nsec(void) {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void must(bool good, const char *what) {
        if (good)
                return;
        fprintf(stderr, "bench-xqueue: %s\n", what);
        exit(EXIT_FAILURE);
}

static XTaskRef put(Load *l, unsigned flags, uint64_t work_nsec) {
        XTaskRef ref;
        Item *item = slab_alloc(l->bench->slab);
        must(item, "out of memory");
        item->work_nsec = work_nsec;
        item->submitted_nsec = flags & XSUBMIT_URGENT ? now_nsec() : 0;
        must(xqueue_submit(&l->bench->xs, l->id, &item->task, 16, flags, &ref) == 0, "a submit was refused");
        return ref;
}

static void execute(void *meta, XBatch *b) {
        Load *l = meta;
        for (XTask *t; (t = xbatch_next(b));) {
                Item *item = (Item *)t;
                uint64_t start = now_nsec(), work = item->work_nsec;
                if (item->submitted_nsec) {
                        l->latency_nsec = start - item->submitted_nsec;
                        sem_post(&l->done);
                }
                while (work && !l->stop && now_nsec() - start < work)
                        ;
                if (l->feeds && work && !l->stop)
                        put(l, 0, work);
                l->n_done++;
        }
}

static void open_load(Bench *b, Load *l) {
        static const XQueueOps ops = { .execute = execute };
        XQueueOptions o = XQUEUE_OPTIONS_DEFAULT;
        *l = (Load) { .bench = b };
        sem_init(&l->done, 0, 0);
        o.workers = b->workers;
        o.slab = b->slab;
        o.max_tasks = 10000000;
        must(xqueue_start(&b->xs, &o, &ops, l, &l->id) == 0, "no queue");
}

static void close_load(Load *l) {
        l->stop = true;
        must(xqueue_stop(&l->bench->xs, l->id) == 0 && xqueue_join(&l->bench->xs, l->id) == 0, "no end");
}

static void set_up(Bench *b) {
        WorkersParams p = WORKERS_PARAMS_DEFAULT;
        p.min = p.max = 4;
        must(workers_new(&p, &b->workers) == 0 && slab_new(sizeof(Item), 16, false, &b->slab) == 0 &&
                     xqueues_init(&b->xs) == 0,
             "no engine");
}

static void tear_down(Bench *b) {
        workers_free(b->workers);
        xqueues_deinit(&b->xs);
        slab_destroy(b->slab);
}

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static double quantile(double *v, size_t n, double q) {
        qsort(v, n, sizeof(*v), compare);
        return v[(size_t)((double)(n - 1) * q)];
}

static size_t rss_bytes(void) {
        long size, resident = 0;
        FILE *f = fopen("/proc/self/statm", "re");
        must(f && fscanf(f, "%ld %ld", &size, &resident) == 2, "no statm");
        fclose(f);
        return (size_t)resident * 4096;
}

/* Urgent tasks one by one into a queue that always has so many normal ones of 20 us. */
static double urgent_usec(size_t backlog) {
        Bench b;
        Load l;
        double usec[N_URGENT];
        set_up(&b);
        open_load(&b, &l);
        l.feeds = true;
        for (size_t i = 0; i < backlog; i++)
                put(&l, 0, 20000);
        for (size_t i = 0; i < N_URGENT; i++) {
                put(&l, XSUBMIT_URGENT, 0);
                while (sem_wait(&l.done) != 0)
                        ;
                usec[i] = (double)l.latency_nsec / 1000;
        }
        XQueueStats stats;
        must(xqueue_get_stats(&b.xs, l.id, &stats) == 0 && stats.n_tasks >= backlog, "the backlog has gone");
        close_load(&l);
        tear_down(&b);
        return quantile(usec, N_URGENT, 0.5);
}

/* Tasks, 2 ms apart, into a queue beside eight that are never empty. */
static void bench_light(void) {
        Bench b;
        static Load busy[N_BUSY];
        Load light;
        double usec[N_LIGHT];
        set_up(&b);
        for (size_t i = 0; i < N_BUSY; i++) {
                open_load(&b, &busy[i]);
                busy[i].feeds = true;
                for (size_t k = 0; k < BUSY_DEPTH; k++)
                        put(&busy[i], 0, 5000);
        }
        open_load(&b, &light);
        for (size_t i = 0; i < N_LIGHT; i++) {
                nanosleep(&(struct timespec) { .tv_nsec = 2000000 }, NULL);
                put(&light, XSUBMIT_URGENT, 0); /* the queue is empty: urgent only says that it is measured */
                while (sem_wait(&light.done) != 0)
                        ;
                usec[i] = (double)light.latency_nsec / 1000;
        }
        for (size_t i = 0; i < N_BUSY; i++)
                close_load(&busy[i]);
        close_load(&light);
        tear_down(&b);
        printf("bench xqueue-light-beside-8-busy-p50 %.1f us\n", quantile(usec, N_LIGHT, 0.5));
        printf("bench xqueue-light-beside-8-busy-p99 %.1f us\n", quantile(usec, N_LIGHT, 0.99));
}

static void bench_cancel(void) {
        double first[N_ROUNDS], again[N_ROUNDS];
        XTaskRef *refs = calloc(N_CANCEL, sizeof(*refs));
        must(refs, "out of memory");
        for (size_t r = 0; r < N_ROUNDS; r++) {
                Bench b;
                Load l;
                set_up(&b);
                open_load(&b, &l);
                xqueue_pause(&b.xs, l.id);
                for (size_t i = 0; i < N_CANCEL; i++)
                        refs[i] = put(&l, 0, 0);
                uint64_t t0 = now_nsec();
                for (size_t i = 0; i < N_CANCEL; i++)
                        must(xqueue_cancel(refs[i]) == 0, "a pending task was not canceled");
                uint64_t t1 = now_nsec();
                for (size_t i = 0; i < N_CANCEL; i++)
                        must(xqueue_cancel(refs[i]) == -1, "a canceled task was canceled");
                first[r] = (double)(t1 - t0) / N_CANCEL;
                again[r] = (double)(now_nsec() - t1) / N_CANCEL;
                xqueue_resume(&b.xs, l.id);
                close_load(&l);
                must(l.n_done == 0, "a canceled task ran");
                tear_down(&b);
        }
        free(refs);
        printf("bench xqueue-cancel-100k %.1f ns\n", quantile(first, N_ROUNDS, 0.5));
        printf("bench xqueue-cancel-100k-again %.1f ns\n", quantile(again, N_ROUNDS, 0.5));
}

static void bench_memory(void) {
        Bench b;
        Load l;
        set_up(&b);
        open_load(&b, &l);
        size_t before = rss_bytes();
        xqueue_pause(&b.xs, l.id);
        for (size_t i = 0; i < N_BURST; i++)
                put(&l, 0, 0);
        printf("bench xqueue-bytes-per-pending-16-byte-task %.1f bytes\n", (double)(rss_bytes() - before) / N_BURST);
        xqueue_resume(&b.xs, l.id);
        while (l.n_done < N_BURST)
                sched_yield();
        uint64_t t0 = now_nsec();
        while (rss_bytes() > before + before / 10 + 4 * 1024 * 1024 && now_nsec() - t0 < UINT64_C(5000000000))
                sched_yield();
        printf("bench xqueue-rss-kept-after-1M %.2f MB\n", ((double)rss_bytes() - (double)before) / 1e6);
        printf("bench xqueue-rss-back-after %.0f ms\n", (double)(now_nsec() - t0) / 1e6);
        close_load(&l);
        tear_down(&b);
}

int main(void) {
        bench_memory(); /* first: nothing else has used memory yet */
        bench_cancel();
        double few = urgent_usec(10), many = urgent_usec(100000);
        printf("bench xqueue-urgent-behind-10-p50 %.1f us\n", few);
        printf("bench xqueue-urgent-behind-100k-p50 %.1f us ratio %.2f of backlog-10\n", many, many / few);
        bench_light();
        return EXIT_SUCCESS;
}
