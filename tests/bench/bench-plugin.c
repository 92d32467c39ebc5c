/* SPDX-License-Identifier: MIT */
/* The way of a plugin's task through engine, executor, execution queue and plugin, on one thread, so that counts are the same in
 * each run: the workers are played here, and run what was put when they are told to; and so is the clock, which moves on by a
 * microsecond with each look. The CPU clocks are the kernel's, as system calls.
 *
 *      bench-plugin run N BATCH        runs N tasks that do nothing, BATCH in a call at most, for
 *                                      `valgrind --tool=callgrind`, which counts instructions. 0: what is left is the setting up
 *      bench-plugin trace N BATCH      prints the system calls that this takes: all, and those that read a clock */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "executor/plugin.h"
#include "oneworker.h"

enum { HOG_USEC = 10000 }; /* as CpuIntensiveThreshUs= of who sets nothing */

static void must(bool good, const char *what) {
        if (good)
                return;
        fprintf(stderr, "bench-plugin: %s\n", what);
        exit(EXIT_FAILURE);
}

int clock_gettime(clockid_t id, struct timespec *ret) {
        static uint64_t usec;
        if (id < 0 || id == CLOCK_THREAD_CPUTIME_ID)
                return (int)syscall(SYS_clock_gettime, id, ret);
        usec++;
        *ret = (struct timespec) { .tv_sec = (time_t)(usec / USEC_PER_SEC),
                                   .tv_nsec = (long)(usec % USEC_PER_SEC) * 1000 };
        return 0;
}

/* ---- the plugin ---- */

static const eq_plugin_api *api;

static int bench_open(const eq_plugin_api *a, eq_plugin_host *host, const eq_plugin_config *config, void **ret) {
        api = a;
        *ret = NULL;
        return 0;
}

static void bench_execute(void *instance, const eq_plugin_meta *meta, eq_plugin_batch *b) {
        for (const eq_plugin_task *t; (t = api->next(b));)
                (void)api->ok(t, NULL, 0);
}

static void bench_close(void *instance) {
}

static const eq_plugin plugin = {
        .abi = EQ_PLUGIN_ABI, .name = "bench", .open = bench_open, .execute = bench_execute, .close = bench_close
};

/* ---- the host ---- */

static size_t n_finished;
static bool is_open;

static void on_finished(void *host, Task *t) {
        n_finished++;
}

static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        return (TaskFate) { .event = TASK_EV_FAIL };
}

static const EngineHooks engine_hooks = { .ended = on_ended, .finished = on_finished };

static int on_prepare(void *host, Task *t, PluginOrder *ret) {
        *ret = (PluginOrder) { .uid = 1 };
        return 0;
}

static void on_opened(void *host, Queue *q, const char *error) {
        is_open = true;
}

static void on_queue(void *host, Queue *q) {
}

static void on_pool(void *host, Pool *p) {
}

static const PluginHooks plugin_hooks = {
        .prepare = on_prepare, .opened = on_opened, .ended = on_queue, .left = on_pool
};

static void never(uv_timer_t *timer) {
        must(false, "it takes a day");
}

/* ---- runs ---- */

static int run(size_t n, unsigned batch_max) {
        uv_loop_t loop;
        uv_timer_t keep; /* the loop runs as long as there is this */
        Engine engine;
        PluginExecutor *x;
        Pool *pool;
        Queue *q;
        PluginLibrary library = { .n_refs = 2, .entry = &plugin };
        WorkersParams workers = WORKERS_PARAMS_DEFAULT;
        QueueParams params = { .max_active = 1, .max_tasks = UINT64_MAX, .max_bytes = UINT64_MAX };
        PluginSetup setup = { .library = &library, .text = "", .calls.batch_max = batch_max };
        Task *tasks = calloc(n + 1, sizeof(*tasks));
        must(tasks && uv_loop_init(&loop) == 0, "no memory");
        must(uv_timer_init(&loop, &keep) == 0 && uv_timer_start(&keep, never, 86400000, 0) == 0, "no timer");
        must(engine_init(&engine, &clock_system, &engine_hooks, NULL) == 0, "no engine");
        must(plugin_executor_new(&loop, &engine, &plugin_hooks, NULL, &x) == 0, "no executor");
        plugin_executor_set_hogs(x, HOG_USEC, 4);
        must(pool_new(&engine, "plugin", POOL_THREAD, plugin_executor(x), SIZE_MAX, &pool) == 0, "no pool");
        must(plugin_pool_new(pool, &workers) == 0 && queue_new(&engine, pool, "q", &params, 0, &q) == 0, "no queue");
        must(plugin_executor_add_queue(x, q, &setup) == 0, "no plugin");
        while (!is_open) {
                (void)work();
                uv_run(&loop, UV_RUN_NOWAIT);
        }
        for (size_t i = 0; i < n; i++) {
                uint64_t seq;
                must(queue_reserve(q, 1, 0, &seq) == 0, "a submit was refused");
                task_init(&tasks[i], seq, TASK_LANE_NORMAL, 0);
                queue_push(q, &tasks[i]);
        }
        while (n_finished < n) {
                while (work())
                        ;
                uv_run(&loop, UV_RUN_NOWAIT);
        }
        return EXIT_SUCCESS; /* the process ends with it */
}

static int traced(size_t n, unsigned batch_max) {
        must(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0, "ptrace() is not allowed");
        must(raise(SIGSTOP) == 0, "it cannot stop itself");
        return run(n, batch_max);
}

static int trace(size_t n, unsigned batch_max) {
        size_t n_calls = 0, n_clocks = 0;
        int status;
        pid_t pid = fork();
        if (pid == 0)
                _exit(traced(n, batch_max));
        must(pid > 0 && waitpid(pid, &status, 0) == pid && WIFSTOPPED(status), "the one to be traced does not start");
        must(ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL)) == 0,
             "no options");
        for (;;) {
                struct __ptrace_syscall_info info;
                must(ptrace(PTRACE_SYSCALL, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid, "it is lost");
                if (!WIFSTOPPED(status))
                        break;
                if (WSTOPSIG(status) != (SIGTRAP | 0x80) ||
                    ptrace(PTRACE_GET_SYSCALL_INFO, pid, (void *)sizeof(info), &info) < 0 ||
                    info.op != PTRACE_SYSCALL_INFO_ENTRY)
                        continue;
                n_calls++;
                n_clocks += info.entry.nr == SYS_clock_gettime;
        }
        must(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it failed");
        printf("%zu %zu\n", n_calls, n_clocks);
        return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
        must(argc == 4, "usage: bench-plugin run|trace N BATCH");
        size_t n = strtoul(argv[2], NULL, 10);
        unsigned batch_max = (unsigned)strtoul(argv[3], NULL, 10);
        return strcmp(argv[1], "trace") == 0 ? trace(n, batch_max) : run(n, batch_max);
}
