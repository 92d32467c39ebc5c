/* SPDX-License-Identifier: MIT */
/* What a task costs in the engine alone, on one thread: no socket, no store, no process. Lines `bench NAME VALUE UNIT`,
 * the median of the rounds.
 *
 * Checks itself: each task runs once, in order within its queue.
 *
 * `bench-engine count MODE N` runs N tasks in one way and measures nothing, for `valgrind --tool=callgrind`, which counts
 * instructions: MODE is direct (each runs inside its submit), backlog (all are submitted first) or none. What none takes is
 * the setting up. */

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/util.h"
#include "engine/engine.h"

enum { N_TASKS = 1 << 18, N_QUEUES_MAX = 4096, N_ROUNDS = 7 };

typedef struct Bench {
        Executor executor; /* first */
        Engine engine;
        Pool *pool;
        Queue *queues[N_QUEUES_MAX];
        uint64_t last_run[N_QUEUES_MAX]; /* SEQ, to see that the order holds */
        size_t n_queues;
        Task *tasks;
        uint64_t n_run;
        bool gate; /* start() keeps the task */
        Task *urgent;
        uint64_t urgent_nsec; /* when it started */
} Bench;

static uint64_t now_nsec(void) {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static int bench_start(Executor *x, Slot *slot, Task *t) {
        Bench *b = (Bench *)x;
        if (t == b->urgent)
                b->urgent_nsec = now_nsec();
        if (b->gate)
                return 0;
        size_t q = (size_t)(t->queue->owner ? (uint64_t *)t->queue->owner - b->last_run : 0);
        if (t->lane == TASK_LANE_NORMAL && t->seq <= b->last_run[q]) {
                fprintf(stderr, "bench: task %ju ran after %ju\n", (uintmax_t)t->seq, (uintmax_t)b->last_run[q]);
                exit(EXIT_FAILURE);
        }
        b->last_run[q] = t->seq;
        b->n_run++;
        engine_task_ended(&b->engine, t, &(TaskResult) { .verdict = TASK_OK });
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

static void must(int r) {
        if (r == 0)
                return;
        fprintf(stderr, "bench: a call failed: %d\n", r);
        exit(EXIT_FAILURE);
}

static Bench *bench_new(size_t n_queues) {
        Bench *b = calloc(1, sizeof(*b));
        if (!b || !(b->tasks = calloc(N_TASKS + 1, sizeof(Task))))
                exit(EXIT_FAILURE);
        b->executor.ops = &ops;
        must(engine_init(&b->engine, &clock_system, &hooks, b));
        must(pool_new(&b->engine, "bench", POOL_COMMAND, &b->executor, 1, &b->pool));
        QueueParams params = { .max_active = 1, .max_tasks = 10000000, .max_bytes = UINT64_C(1) << 40 };
        for (; b->n_queues < n_queues; b->n_queues++) {
                must(queue_new(&b->engine, b->pool, "q", &params, 0, &b->queues[b->n_queues]));
                b->queues[b->n_queues]->owner = &b->last_run[b->n_queues];
        }
        return b;
}

static void bench_free(Bench *b) {
        engine_deinit(&b->engine);
        free(b->tasks);
        free(b);
}

static Task *submit(Bench *b, size_t i, TaskLane lane) {
        Queue *q = b->queues[i % b->n_queues];
        uint64_t seq;
        must(queue_reserve(q, 1, 100, &seq));
        task_init(&b->tasks[i], seq, lane, 100);
        queue_push(q, &b->tasks[i]);
        return &b->tasks[i];
}

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return (x > y) - (x < y);
}

static void report(const char *name, double *values, const char *unit) {
        qsort(values, N_ROUNDS, sizeof(*values), compare);
        printf("bench %s %.1f %s\n", name, values[N_ROUNDS / 2], unit);
}

/* Submit a batch while the pool is blocked, then run it: the backlog is N / Q per queue. */
static void bench_backlog(size_t n_queues) {
        double submit_ns[N_ROUNDS], run_ns[N_ROUNDS], both[N_ROUNDS];
        char name[64];
        for (int round = 0; round < N_ROUNDS; round++) {
                Bench *b = bench_new(n_queues);
                pool_set_max(b->pool, 0);
                uint64_t start = now_nsec();
                for (size_t i = 0; i < N_TASKS; i++)
                        submit(b, i, TASK_LANE_NORMAL);
                uint64_t submitted = now_nsec();
                pool_set_max(b->pool, 1);
                uint64_t end = now_nsec();
                if (b->n_run != N_TASKS)
                        must(-1);
                submit_ns[round] = (double)(submitted - start) / N_TASKS;
                run_ns[round] = (double)(end - submitted) / N_TASKS;
                both[round] = N_TASKS * 1e3 / (double)(end - start);
                bench_free(b);
        }
        snprintf(name, sizeof(name), "engine-submit-q%zu", n_queues);
        report(name, submit_ns, "ns/task");
        snprintf(name, sizeof(name), "engine-run-q%zu", n_queues);
        report(name, run_ns, "ns/task");
        snprintf(name, sizeof(name), "engine-submit-and-run-q%zu", n_queues);
        report(name, both, "Mtasks/s");
}

/* Each task runs inside its submit: no backlog. */
static void bench_direct(size_t n_queues) {
        double rate[N_ROUNDS];
        char name[64];
        for (int round = 0; round < N_ROUNDS; round++) {
                Bench *b = bench_new(n_queues);
                uint64_t start = now_nsec();
                for (size_t i = 0; i < N_TASKS; i++)
                        submit(b, i, TASK_LANE_NORMAL);
                rate[round] = N_TASKS * 1e3 / (double)(now_nsec() - start);
                if (b->n_run != N_TASKS)
                        must(-1);
                bench_free(b);
        }
        snprintf(name, sizeof(name), "engine-direct-q%zu", n_queues);
        report(name, rate, "Mtasks/s");
}

/* An urgent task comes behind a backlog while one runs: submit, end of the running one, start of the urgent one. */
static void bench_urgent(size_t backlog) {
        double latency[N_ROUNDS];
        char name[64];
        for (int round = 0; round < N_ROUNDS; round++) {
                enum { N_URGENT = 200 };
                Bench *b = bench_new(1);
                uint64_t total = 0;
                b->gate = true;
                for (size_t i = 0; i < backlog; i++)
                        submit(b, i, TASK_LANE_NORMAL);
                for (size_t i = 0; i < N_URGENT; i++) {
                        Task *running = LIST_ENTRY(b->queues[0]->running.next, Task, link);
                        uint64_t start = now_nsec();
                        b->urgent = &b->tasks[backlog + i];
                        submit(b, backlog + i, TASK_LANE_URGENT);
                        engine_task_ended(&b->engine, running, &(TaskResult) { .verdict = TASK_OK });
                        total += b->urgent_nsec - start;
                }
                latency[round] = (double)total / N_URGENT;
                b->gate = false;
                engine_task_ended(&b->engine, LIST_ENTRY(b->queues[0]->running.next, Task, link),
                                  &(TaskResult) { .verdict = TASK_OK });
                bench_free(b);
        }
        snprintf(name, sizeof(name), "engine-urgent-latency-backlog-%zu", backlog);
        report(name, latency, "ns");
}

static void bench_cancel_pending(size_t n, bool reverse, const char *name) {
        double cost[N_ROUNDS];
        for (int round = 0; round < N_ROUNDS; round++) {
                Bench *b = bench_new(1);
                b->gate = true;
                for (size_t i = 0; i < n + 1; i++)
                        submit(b, i, TASK_LANE_NORMAL);
                uint64_t start = now_nsec();
                for (size_t i = 1; i < n + 1; i++)
                        must(queue_cancel(b->queues[0], &b->tasks[reverse ? n + 1 - i : i]));
                cost[round] = (double)(now_nsec() - start) / (double)n;
                engine_task_ended(&b->engine, &b->tasks[0], &(TaskResult) { .verdict = TASK_OK });
                bench_free(b);
        }
        report(name, cost, "ns/task");
}

/* The engine's own memory; what the host adds (payload, registry) is not in it. */
static void bench_memory(void) {
        Bench *b = bench_new(1);
        pool_set_max(b->pool, 0);
        size_t before = mallinfo2().uordblks + mallinfo2().hblkhd;
        for (size_t i = 0; i < N_TASKS; i++)
                submit(b, i, TASK_LANE_NORMAL);
        size_t after = mallinfo2().uordblks + mallinfo2().hblkhd;
        printf("bench engine-memory-per-pending-task %.1f bytes\n", sizeof(Task) + (double)(after - before) / N_TASKS);
        pool_set_max(b->pool, 1);
        after = mallinfo2().uordblks + mallinfo2().hblkhd;
        printf("bench engine-memory-kept-after-burst %.1f bytes/task\n", ((double)after - (double)before) / N_TASKS);
        bench_free(b);
}

/* The same work each time, so that two builds can be compared by their instructions. */
static int count(const char *mode, size_t n) {
        Bench *b = bench_new(64);
        bool backlog = strcmp(mode, "backlog") == 0;
        if (n > N_TASKS)
                must(-1);
        if (backlog)
                pool_set_max(b->pool, 0);
        for (size_t i = 0; i < n && strcmp(mode, "none") != 0; i++)
                submit(b, i, TASK_LANE_NORMAL);
        pool_set_max(b->pool, 1);
        bench_free(b);
        return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
        if (argc == 4 && strcmp(argv[1], "count") == 0)
                return count(argv[2], strtoul(argv[3], NULL, 10));
        static const size_t n_queues[] = { 1, 64, 4096 };
        for (size_t i = 0; i < ELEMENTSOF(n_queues); i++) {
                bench_backlog(n_queues[i]);
                bench_direct(n_queues[i]);
        }
        bench_urgent(10);
        bench_urgent(100000);
        bench_cancel_pending(100000, false, "engine-cancel-oldest-first");
        bench_cancel_pending(100000, true, "engine-cancel-newest-first");
        bench_memory();
        return EXIT_SUCCESS;
}
