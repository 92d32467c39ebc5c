/* SPDX-License-Identifier: MIT */
/* What the stall watch costs: CPU time of a look at 10,000 queues of which 100 have work, as a share of one CPU at the rate at
 * which looks come. Caches are made cold before each look, as half a second of other work does. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/procfs.h"
#include "base/util.h"
#include "engine/engine.h"
#include "engine/stall.h"

enum { N_QUEUES = 10000, N_BUSY = 100, N_PER_QUEUE = 6, N_LOOKS = 101, COLD = 64 << 20 };

typedef struct Bench {
        Executor executor; /* first */
        Engine engine;
        FakeClock clock;
        Pool *pool;
        Queue *queues[N_QUEUES];
        Task tasks[N_BUSY * N_PER_QUEUE];
        Stall stall;
        size_t n_reports;
} Bench;

static uint64_t cpu_nsec(void) {
        struct timespec ts;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
        return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int bench_start(Executor *x, Slot *slot, Task *t) {
        return 0;
}
static void bench_cancel(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
}
static TaskFate bench_ended(void *host, Task *t, const TaskResult *result) {
        return (TaskFate) { .event = TASK_EV_FAIL };
}
static void bench_finished(void *host, Task *t) {
}
static const ExecutorOps ops = { .name = "bench", .start = bench_start, .cancel = bench_cancel };
static const EngineHooks hooks = { .ended = bench_ended, .finished = bench_finished };

static void on_report(void *host, const StallReport *r) {
        ((Bench *)host)->n_reports++;
}
static uint64_t on_cpu(void *host, const WatchSlot *slot) {
        return procfs_tree_cpu_usec(getpid());
}
static const StallHooks stall_hooks = { .report = on_report, .cpu_usec = on_cpu };

static void must(bool ok) {
        if (ok)
                return;
        fprintf(stderr, "bench: a call failed\n");
        exit(EXIT_FAILURE);
}

static void fill(Bench *b, uint64_t expected_usec) {
        QueueParams params = { .max_active = 1,
                               .max_tasks = 1000,
                               .max_bytes = 1 << 20,
                               .stall_thresh_usec = 30 * USEC_PER_SEC,
                               .expected_runtime_usec = expected_usec };
        for (size_t i = 0; i < N_QUEUES; i++)
                must(queue_new(&b->engine, b->pool, "queue", &params, 0, &b->queues[i]) == 0);
        for (size_t i = 0; i < ELEMENTSOF(b->tasks); i++) {
                Queue *q = b->queues[i % N_BUSY * (N_QUEUES / N_BUSY)];
                uint64_t seq;
                must(queue_reserve(q, 1, 100, &seq) == 0);
                task_init(&b->tasks[i], seq, TASK_LANE_NORMAL, 100);
                queue_push(q, &b->tasks[i]);
        }
}

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static void bench(const char *name, uint64_t expected_usec) {
        Bench *b = calloc(1, sizeof(*b));
        char *cold = malloc(COLD);
        double usec[N_LOOKS];
        must(b && cold);
        b->executor.ops = &ops;
        fake_clock_init(&b->clock, 1000 * USEC_PER_SEC, 0);
        must(engine_init(&b->engine, &b->clock.clock, &hooks, b) == 0);
        must(pool_new(&b->engine, "bench", POOL_COMMAND, &b->executor, 256, &b->pool) == 0);
        fill(b, expected_usec);
        StallConfig config = { .watchdog_usec = 30 * USEC_PER_SEC };
        stall_init(&b->stall, &b->engine.watch, &config, &stall_hooks, b);

        uint64_t now = engine_now(&b->engine), first = now, next = stall_look(&b->stall, now, now);
        for (size_t i = 0; i < N_LOOKS; i++) {
                memset(cold, (int)i, COLD);
                now = next;
                uint64_t start = cpu_nsec();
                next = stall_look(&b->stall, now, now);
                usec[i] = (double)(cpu_nsec() - start) / 1e3;
        }
        must(expected_usec != USEC_NEVER || b->n_reports == 0);
        double per_second = N_LOOKS / ((double)(now - first) / 1e6);
        qsort(usec, N_LOOKS, sizeof(*usec), compare);
        printf("bench %s-look %.1f us\n", name, usec[N_LOOKS / 2]);
        printf("bench %s %.4f %% ratio %.2f of the gate 0.1 %%\n", name, usec[N_LOOKS / 2] * per_second / 1e4,
               usec[N_LOOKS / 2] * per_second / 1e4 / 0.1);
        for (size_t i = 0; i < ELEMENTSOF(b->tasks); i++)
                if (b->tasks[i].where != TASK_IN_RUNNING)
                        must(queue_cancel(b->tasks[i].queue, &b->tasks[i]) == 0);
        for (size_t i = 0; i < ELEMENTSOF(b->tasks); i++)
                if (b->tasks[i].where == TASK_IN_RUNNING)
                        engine_task_ended(&b->engine, &b->tasks[i], &(TaskResult) { .verdict = TASK_OK });
        engine_deinit(&b->engine);
        free(b);
        free(cold);
}

int main(void) {
        bench("watch-cpu", USEC_NEVER);
        bench("watch-cpu-past-expected-runtime", 0); /* and so the CPU time of 100 processes is looked at, too */
        return EXIT_SUCCESS;
}
