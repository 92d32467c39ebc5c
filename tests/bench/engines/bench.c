/* SPDX-License-Identifier: MIT */
/*
 * bench.c - the harness: producers, checks, statistics, one result line. See bench.h for the engine's side.
 *
 * Throughput mode: P producers submit N tasks round-robin over Q queues (producer p starts at queue
 * p*Q/P); one warm-up repetition, then -r measured ones; each figure is the median over them.
 * Latency mode (-L): one producer, one task outstanding at a time, a pause of -g microseconds between tasks.
 *
 * The result is one line of tab-separated key=value fields; table.py reads it. err must be 0.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define REPS_MAX 64
#define TIMEOUT_SEC 30
#define COUNT_PENALTY 1000000 /* added to err for each queue that did not get exactly its tasks */
#define SPIN_GAP_USEC 100     /* latency mode: shorter gaps are spun, longer ones slept */

struct Options {
        int n_producers, n_queues, n_workers, n_reps, gap_usec;
        uint64_t n_tasks;
        int measure_submit; /* -i */
        int latency;        /* -L */
};

struct Producer {
        pthread_t thread;
        int id;
        uint64_t wall_ns, cpu_ns;
        uint32_t *submit_ticks; /* -i: one entry per submit */
};

/* What throughput mode measures, in output order; metric_rows says how each is printed. */
enum Metric {
        TASKS_PER_SEC,
        SUBMIT_WALL_NS,
        SUBMIT_CPU_NS,
        CPU_NS_TASK,
        NVCSW_TASK,
        SUBMIT_P50,
        SUBMIT_P99,
        SUBMIT_P999,
        SUBMIT_MAX,
        METRIC_MAX
};

static const struct MetricRow {
        const char *name;
        double scale;
        int n_decimals;
} metric_rows[METRIC_MAX] = {
        [TASKS_PER_SEC] = { "Mtasks/s", 1e-6, 3 },     /* from the start line to the last execution */
        [SUBMIT_WALL_NS] = { "submit_wall_ns", 1, 1 }, /* producer's wall time per submit */
        [SUBMIT_CPU_NS] = { "submit_cpu_ns", 1, 1 },   /* producer's thread CPU time per submit */
        [CPU_NS_TASK] = { "cpu_ns_task", 1, 1 },       /* CPU time of the whole process per task */
        [NVCSW_TASK] = { "nvcsw_task", 1, 4 },         /* voluntary context switches per task */
        [SUBMIT_P50] = { "p50", 1, 0 },                /* ns per submit, -i only */
        [SUBMIT_P99] = { "p99", 1, 0 },
        [SUBMIT_P999] = { "p99.9", 1, 0 },
        [SUBMIT_MAX] = { "max", 1, 0 },
};

struct QueueCheck *bench_queues;
struct ProducerDone bench_producers[BENCH_PRODUCERS_MAX];
int bench_window;

static struct Options opt = {
        .n_producers = 1,
        .n_queues = 1,
        .n_workers = 4,
        .n_reps = 3,
        .gap_usec = 50,
        .n_tasks = 1 << 20,
};
static struct Producer producers[BENCH_PRODUCERS_MAX];
static double results[METRIC_MAX][REPS_MAX];
static double ns_per_tick;
static pthread_barrier_t start_line;

/* the worker that finishes the last queue of a repetition writes end_ns, then posts all_done */
static uint64_t n_queues_done, end_ns;
static sem_t all_done;

static uint64_t *latencies;  /* latency mode: ticks from submit to execution, per task */
static uint64_t latency_ack; /* latency mode: number of the last executed task + 1 */

static uint64_t clock_ns(clockid_t id) {
        struct timespec ts;

        clock_gettime(id, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void *xcalloc(size_t n, size_t size) {
        void *p = calloc(n, size);

        if (!p) {
                perror("calloc");
                exit(1);
        }
        return p;
}

/* ---- called by the engine's workers ---- */

void bench_queue_done(void) {
        if (__atomic_add_fetch(&n_queues_done, 1, __ATOMIC_ACQ_REL) == (uint64_t)opt.n_queues) {
                end_ns = clock_ns(CLOCK_MONOTONIC);
                sem_post(&all_done);
        }
}

void bench_latency(uint64_t seq, uint64_t submitted) {
        latencies[seq] = bench_ticks() - submitted;
        __atomic_store_n(&latency_ack, seq + 1, __ATOMIC_RELEASE);
}

/* ---- statistics ---- */

static int compare_u32(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return (x > y) - (x < y);
}

static int compare_u64(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

static int compare_double(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;

        return (x > y) - (x < y);
}

static double median(double *v, int n) {
        qsort(v, n, sizeof(*v), compare_double);
        return v[n / 2];
}

/* Sorted ticks -> the q-quantile in ns. */
static double quantile_ns(const uint64_t *v, uint64_t n, double q) {
        return v[(uint64_t)((n - 1) * q)] * ns_per_tick;
}

static long rss_kb(void) {
        FILE *f = fopen("/proc/self/statm", "re");
        long size, resident = 0;

        if (f) {
                if (fscanf(f, "%ld %ld", &size, &resident) != 2)
                        resident = 0;
                fclose(f);
        }
        return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void calibrate_ticks(void) {
        uint64_t ticks = bench_ticks(), ns = clock_ns(CLOCK_MONOTONIC);

        usleep(30000);
        ns_per_tick = (double)(clock_ns(CLOCK_MONOTONIC) - ns) / (bench_ticks() - ticks);
}

/* ---- throughput mode ---- */

static void submit_measured(struct Producer *p, uint64_t i, int queue, uint64_t a) {
        uint64_t ticks = bench_ticks();

        eng_submit(queue, a, 0);
        ticks = bench_ticks() - ticks;
        p->submit_ticks[i] = ticks > UINT32_MAX ? UINT32_MAX : (uint32_t)ticks;
}

/* -W: at most that many tasks of one producer are pending, give or take 64 */
static void window_wait(int producer, uint64_t i) {
        while (i > __atomic_load_n(&bench_producers[producer].n, __ATOMIC_RELAXED) + bench_window)
                sched_yield();
}

static void *producer_thread(void *arg) {
        struct Producer *p = arg;
        uint64_t n = opt.n_tasks / opt.n_producers, tag = (uint64_t)p->id << 32, wall, cpu;
        int queue = (int)((uint64_t)p->id * opt.n_queues / opt.n_producers);

        pthread_barrier_wait(&start_line);
        wall = clock_ns(CLOCK_MONOTONIC);
        cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);

        for (uint64_t i = 0; i < n; i++) {
                if (bench_window)
                        window_wait(p->id, i);
                if (opt.measure_submit)
                        submit_measured(p, i, queue, tag | i);
                else
                        eng_submit(queue, tag | i, 0);
                if (++queue == opt.n_queues)
                        queue = 0;
        }

        p->wall_ns = clock_ns(CLOCK_MONOTONIC) - wall;
        p->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
        return NULL;
}

static void reset_checks(void) {
        for (int q = 0; q < opt.n_queues; q++) {
                memset(&bench_queues[q], 0, sizeof(bench_queues[q]));
                bench_queues[q].n_expected = opt.n_tasks / opt.n_queues;
        }
        memset(bench_producers, 0, sizeof(bench_producers));
        n_queues_done = 0;
}

static uint64_t count_errors(void) {
        uint64_t n = 0;

        for (int q = 0; q < opt.n_queues; q++) {
                n += bench_queues[q].n_order_errors;
                if (bench_queues[q].n_done != bench_queues[q].n_expected)
                        n += COUNT_PENALTY;
        }
        return n;
}

static double cpu_time_ns(const struct rusage *u) {
        return (u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1e9 + (u->ru_utime.tv_usec + u->ru_stime.tv_usec) * 1e3;
}

static void collect_submit_quantiles(int rep) {
        uint64_t per = opt.n_tasks / opt.n_producers, n = per * opt.n_producers;
        uint32_t *all = xcalloc(n, sizeof(*all));

        for (int p = 0; p < opt.n_producers; p++)
                memcpy(all + p * per, producers[p].submit_ticks, per * sizeof(*all));
        qsort(all, n, sizeof(*all), compare_u32);
        results[SUBMIT_P50][rep] = all[n / 2] * ns_per_tick;
        results[SUBMIT_P99][rep] = all[(uint64_t)((n - 1) * 0.99)] * ns_per_tick;
        results[SUBMIT_P999][rep] = all[(uint64_t)((n - 1) * 0.999)] * ns_per_tick;
        results[SUBMIT_MAX][rep] = all[n - 1] * ns_per_tick;
        free(all);
}

/* One repetition; rep < 0 is the warm-up: checked, not recorded. Returns the number of errors. */
static uint64_t run_rep(int rep) {
        struct rusage before, after;
        struct timespec deadline;
        uint64_t start_ns;
        double wall = 0, cpu = 0;

        reset_checks();
        pthread_barrier_init(&start_line, NULL, opt.n_producers + 1);
        for (int p = 0; p < opt.n_producers; p++) {
                producers[p].id = p;
                if (pthread_create(&producers[p].thread, NULL, producer_thread, &producers[p]))
                        abort();
        }
        getrusage(RUSAGE_SELF, &before);
        start_ns = clock_ns(CLOCK_MONOTONIC);
        pthread_barrier_wait(&start_line);
        for (int p = 0; p < opt.n_producers; p++)
                pthread_join(producers[p].thread, NULL);
        pthread_barrier_destroy(&start_line);

        clock_gettime(CLOCK_REALTIME, &deadline);
        deadline.tv_sec += TIMEOUT_SEC;
        while (sem_timedwait(&all_done, &deadline))
                if (errno == ETIMEDOUT) {
                        printf("%s\tTIMEOUT\tP=%d\tQ=%d\tqueues_done=%lu\n", eng_name(), opt.n_producers, opt.n_queues,
                               (unsigned long)n_queues_done);
                        fflush(stdout);
                        _exit(1);
                }
        getrusage(RUSAGE_SELF, &after);
        if (rep < 0)
                return count_errors();

        for (int p = 0; p < opt.n_producers; p++) {
                wall += producers[p].wall_ns;
                cpu += producers[p].cpu_ns;
        }
        results[TASKS_PER_SEC][rep] = opt.n_tasks * 1e9 / (end_ns - start_ns);
        results[SUBMIT_WALL_NS][rep] = wall / opt.n_tasks;
        results[SUBMIT_CPU_NS][rep] = cpu / opt.n_tasks;
        results[CPU_NS_TASK][rep] = (cpu_time_ns(&after) - cpu_time_ns(&before)) / opt.n_tasks;
        results[NVCSW_TASK][rep] = (double)(after.ru_nvcsw - before.ru_nvcsw) / opt.n_tasks;
        if (opt.measure_submit)
                collect_submit_quantiles(rep);
        return count_errors();
}

static uint64_t run_throughput(void) {
        uint64_t errors = 0, per = opt.n_tasks / opt.n_producers;

        for (int p = 0; opt.measure_submit && p < opt.n_producers; p++)
                producers[p].submit_ticks = xcalloc(per, sizeof(uint32_t));
        for (int rep = -1; rep < opt.n_reps; rep++)
                errors += run_rep(rep);

        printf("%s\t%s\tP=%d\tQ=%d\tW=%d\twin=%d\tN=%lu", eng_name(), opt.measure_submit ? "SUBMIT" : "THROUGHPUT",
               opt.n_producers, opt.n_queues, opt.n_workers, bench_window, (unsigned long)opt.n_tasks);
        for (int i = 0; i < METRIC_MAX; i++)
                printf("\t%s=%.*f", metric_rows[i].name, metric_rows[i].n_decimals,
                       metric_rows[i].scale * median(results[i], opt.n_reps));
        printf("\trss_kb=%ld\terr=%lu\n", rss_kb(), (unsigned long)errors);
        return errors;
}

/* ---- latency mode ---- */

static void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
}

static void pause_usec(int usec) {
        uint64_t until = clock_ns(CLOCK_MONOTONIC) + (uint64_t)usec * 1000;

        if (usec >= SPIN_GAP_USEC)
                usleep(usec);
        else
                while (clock_ns(CLOCK_MONOTONIC) < until)
                        cpu_relax();
}

static uint64_t run_latency(void) {
        uint64_t skip = opt.n_tasks / 10, n = opt.n_tasks - skip, errors = 0;
        uint64_t *submits = xcalloc(opt.n_tasks, sizeof(*submits)), *lat, *sub;

        latencies = xcalloc(opt.n_tasks, sizeof(*latencies));
        for (uint64_t i = 0; i < opt.n_tasks; i++) {
                uint64_t start;

                pause_usec(opt.gap_usec);
                start = bench_ticks();
                eng_submit((int)(i % opt.n_queues), i, start);
                submits[i] = bench_ticks() - start;
                while (__atomic_load_n(&latency_ack, __ATOMIC_ACQUIRE) != i + 1)
                        if (opt.gap_usec >= SPIN_GAP_USEC)
                                sched_yield();
                        else
                                cpu_relax();
        }
        for (int q = 0; q < opt.n_queues; q++)
                errors += bench_queues[q].n_order_errors;

        /* the first tenth is warm-up */
        lat = latencies + skip;
        sub = submits + skip;
        qsort(lat, n, sizeof(*lat), compare_u64);
        qsort(sub, n, sizeof(*sub), compare_u64);
        printf("%s\tLATENCY\tQ=%d\tW=%d\tgap_us=%d\tN=%lu\tlat_p50=%.0f\tlat_p90=%.0f\tlat_p99=%.0f"
               "\tlat_p99.9=%.0f\tsubmit_p50=%.0f\tsubmit_p99=%.0f\terr=%lu\n",
               eng_name(), opt.n_queues, opt.n_workers, opt.gap_usec, (unsigned long)n, quantile_ns(lat, n, 0.5),
               quantile_ns(lat, n, 0.9), quantile_ns(lat, n, 0.99), quantile_ns(lat, n, 0.999),
               quantile_ns(sub, n, 0.5), quantile_ns(sub, n, 0.99), (unsigned long)errors);
        return errors;
}

/* ---- options ---- */

static void usage(const char *argv0) {
        fprintf(stderr,
                "usage: %s [-p producers] [-q queues] [-w workers] [-n tasks] [-r repetitions]\n"
                "          [-i (submit percentiles)] [-W window per producer, 0 or >= 64]\n"
                "       %s -L [-q queues] [-w workers] [-n tasks] [-g gap in us]\n",
                argv0, argv0);
        exit(2);
}

static void parse_options(int argc, char **argv) {
        int o;

        while ((o = getopt(argc, argv, "p:q:w:n:r:g:W:iL")) != -1)
                switch (o) {
                case 'p':
                        opt.n_producers = atoi(optarg);
                        break;
                case 'q':
                        opt.n_queues = atoi(optarg);
                        break;
                case 'w':
                        opt.n_workers = atoi(optarg);
                        break;
                case 'n':
                        opt.n_tasks = strtoull(optarg, NULL, 0);
                        break;
                case 'r':
                        opt.n_reps = atoi(optarg);
                        break;
                case 'g':
                        opt.gap_usec = atoi(optarg);
                        break;
                case 'W':
                        bench_window = atoi(optarg);
                        break;
                case 'i':
                        opt.measure_submit = 1;
                        break;
                case 'L':
                        opt.latency = 1;
                        break;
                default:
                        usage(argv[0]);
                }
        if (opt.latency)
                opt.n_producers = 1;
        if (opt.n_producers < 1 || opt.n_producers > BENCH_PRODUCERS_MAX || opt.n_queues < 1 || opt.n_workers < 1 ||
            opt.n_reps < 1 || opt.n_reps > REPS_MAX || opt.gap_usec < 0 || opt.gap_usec >= 1000000 ||
            (bench_window != 0 && bench_window < 64))
                usage(argv[0]);

        /* each producer gives each queue the same number of tasks: so the expected counts are exact */
        if (!opt.latency)
                opt.n_tasks -= opt.n_tasks % ((uint64_t)opt.n_producers * opt.n_queues);
        if (opt.n_tasks < 10 || opt.n_tasks / opt.n_producers > UINT32_MAX)
                usage(argv[0]);
}

int main(int argc, char **argv) {
        uint64_t errors;

        parse_options(argc, argv);
        calibrate_ticks();
        sem_init(&all_done, 0, 0);
        bench_queues = aligned_alloc(128, sizeof(*bench_queues) * opt.n_queues);
        if (!bench_queues)
                abort();
        memset(bench_queues, 0, sizeof(*bench_queues) * opt.n_queues);

        eng_init(opt.n_queues, opt.n_workers);
        errors = opt.latency ? run_latency() : run_throughput();
        fflush(stdout);
        eng_fini();
        _exit(errors ? 1 : 0); /* engines may leave threads behind: no destructors */
}
