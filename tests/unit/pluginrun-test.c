/* SPDX-License-Identifier: MIT */
/* Whose CPU time is whose, to the microsecond: the workers are played, on the test's thread, and so are its clocks, which move when
 * a plugin says that it works, or waits. That the kernel's clocks say the same is shown by plugin-test.c. */
#include "executor/pluginrun.h"

#include <sys/syscall.h>
#include <time.h>

#include "executor/plugin.h"
#include "oneworker.h"
#include "test.h"

enum { N_TASKS = 128, WORK_USEC = 3000, HOG_USEC = 2000, LESS_USEC = 1000 };

/* ---- clocks ---- */

static bool plays; /* else they are the kernel's */
static uint64_t now_usec = 1000 * USEC_PER_SEC, cpu_usec;

int clock_gettime(clockid_t id, struct timespec *ret) {
        if (!plays)
                return (int)syscall(SYS_clock_gettime, id, ret);
        uint64_t usec = id < 0 || id == CLOCK_THREAD_CPUTIME_ID ? cpu_usec : now_usec;
        *ret = (struct timespec) { .tv_sec = (time_t)(usec / USEC_PER_SEC),
                                   .tv_nsec = (long)(usec % USEC_PER_SEC) * 1000 };
        return 0;
}

static void burn(uint64_t usec) {
        now_usec += usec;
        cpu_usec += usec;
}

/* Its thread waits, or somebody else has its CPU. */
static void nap(uint64_t usec) {
        now_usec += usec;
}

/* ---- the plugin: a payload is what its task does ---- */

static const eq_plugin_api *api;

static int trial_open(const eq_plugin_api *a, eq_plugin_host *host, const eq_plugin_config *config, void **ret) {
        api = a;
        *ret = NULL;
        return 0;
}

/* Of those that it holds together the last one burns, for all, and waits if one does. */
static void trial_execute(void *instance, const eq_plugin_meta *meta, eq_plugin_batch *b) {
        const eq_plugin_task *t, *together[N_TASKS];
        size_t n = 0;
        bool waits = false;
        while ((t = api->next(b))) {
                char what = *(const char *)t->payload;
                if (what == 't' || what == 'w') {
                        together[n++] = t;
                        waits = waits || what == 'w';
                        continue;
                }
                if (what == 'b')
                        burn(WORK_USEC);
                else if (what == 'n')
                        nap(WORK_USEC);
                else if (what == 'l')
                        burn(LESS_USEC);
                else if (what == 's')
                        nap(LESS_USEC);
                (void)api->ok(t, NULL, 0);
        }
        if (n > 0)
                burn(WORK_USEC);
        if (waits)
                nap(WORK_USEC);
        for (size_t i = 0; i < n; i++)
                (void)api->ok(together[i], NULL, 0);
}

static void trial_close(void *instance) {
}

static const eq_plugin plugin = {
        .abi = EQ_PLUGIN_ABI, .name = "played", .open = trial_open, .execute = trial_execute, .close = trial_close
};

/* ---- the host ---- */

typedef struct Stage {
        uv_loop_t loop;
        uv_timer_t keep; /* the loop runs as long as there is this */
        Engine engine;
        PluginExecutor *x;
        Pool *pool;
        Queue *queue;
        PluginLibrary *library; /* owned */
        bool is_open;
        Task tasks[N_TASKS + 1]; /* by SEQ */
        char payloads[N_TASKS + 1];
        size_t n_tasks, n_ended;
} Stage;

static void on_finished(void *host, Task *t) {
        ((Stage *)host)->n_ended++;
}

static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        return (TaskFate) { .event = TASK_EV_FAIL };
}

static const EngineHooks engine_hooks = { .ended = on_ended, .finished = on_finished };

static int on_prepare(void *host, Task *t, PluginOrder *ret) {
        *ret = (PluginOrder) { .uid = 1, .payload = eq_bytes(&((Stage *)host)->payloads[t->seq], 1) };
        return 0;
}

static void on_opened(void *host, Queue *q, const char *error) {
        ((Stage *)host)->is_open = true;
}

static void on_queue(void *host, Queue *q) {
}

static void on_pool(void *host, Pool *p) {
}

static const PluginHooks plugin_hooks = {
        .prepare = on_prepare, .opened = on_opened, .ended = on_queue, .left = on_pool
};

static void never(uv_timer_t *timer) {
        ck_abort_msg("it did not come");
}

static void turn(Stage *s) {
        while (work())
                ;
        uv_run(&s->loop, UV_RUN_NOWAIT);
}

static Stage *stage_new(unsigned batch_max) {
        Stage *s = calloc(1, sizeof(*s));
        s->library = calloc(1, sizeof(*s->library));
        *s->library = (PluginLibrary) { .n_refs = 2, .entry = &plugin };
        QueueParams params = { .max_active = 1, .max_tasks = N_TASKS, .max_bytes = 1 << 20 };
        PluginSetup setup = { .library = s->library, .text = "", .calls.batch_max = batch_max };
        ck_assert_int_eq(uv_loop_init(&s->loop), 0);
        uv_timer_init(&s->loop, &s->keep);
        uv_timer_start(&s->keep, never, 1000000, 0);
        plays = true;
        ck_assert_int_eq(engine_init(&s->engine, &clock_system, &engine_hooks, s), 0);
        ck_assert_int_eq(plugin_executor_new(&s->loop, &s->engine, &plugin_hooks, s, &s->x), 0);
        ck_assert_int_eq(pool_new(&s->engine, "p", POOL_THREAD, plugin_executor(s->x), SIZE_MAX, &s->pool), 0);
        ck_assert_int_eq(plugin_pool_new(s->pool, &WORKERS_PARAMS_DEFAULT), 0);
        ck_assert_int_eq(queue_new(&s->engine, s->pool, "q", &params, 0, &s->queue), 0);
        ck_assert_int_eq(plugin_executor_add_queue(s->x, s->queue, &setup), 0);
        while (!s->is_open)
                turn(s);
        return s;
}

static void stage_free(Stage *s) {
        plugin_executor_remove_queue(s->x, s->queue);
        while (plugin_pool_is_used(s->pool))
                turn(s);
        plugin_executor_close(s->x);
        plugin_pool_free(s->pool);
        engine_deinit(&s->engine);
        plugin_executor_free(s->x);
        plays = false;
        uv_close((uv_handle_t *)&s->keep, NULL);
        uv_run(&s->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&s->loop), 0);
        free(s->library);
        free(s);
}
static void stage_freep(Stage **s) {
        stage_free(*s);
}
#define STAGE(batch_max) _cleanup_(stage_freep) Stage *s = stage_new(batch_max)

/* A task for each letter; all of them have ended then. */
static void run(Stage *s, const char *what) {
        engine_hold(&s->engine);
        for (; *what; what++) {
                uint64_t seq;
                ck_assert_int_eq(queue_reserve(s->queue, 1, 1, &seq), 0);
                s->payloads[seq] = *what;
                task_init(&s->tasks[seq], seq, TASK_LANE_NORMAL, 1);
                queue_push(s->queue, &s->tasks[seq]);
                s->n_tasks++;
        }
        engine_unhold(&s->engine);
        while (s->n_ended < s->n_tasks)
                turn(s);
}

static uint64_t n_hogs(const Stage *s) {
        return plugin_executor_cpu(s->queue).n_hogs;
}

/* libuv keeps two descriptors from the first loop on, which are no leak of a test. */
__attribute__((constructor)) static void before_tests(void) {
        uv_loop_t loop;
        if (uv_loop_init(&loop) == 0)
                (void)uv_loop_close(&loop);
}

/* ---- claims ---- */

TEST(each_that_burns_is_counted_whatever_the_batch) {
        for (unsigned batch = 1; batch <= 64; batch *= 8) {
                STAGE(batch);
                plugin_executor_set_hogs(s->x, HOG_USEC, 4);
                run(s, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
                ck_assert_uint_eq(n_hogs(s), 40);
                ck_assert_uint_eq(plugin_executor_cpu(s->queue).cpu_usec, 40 * WORK_USEC);
        }
}

/* Alone, among short ones, behind some that burn, and when each of them is measured. */
TEST(a_nap_is_never_counted) {
        static const char *const days[] = { "n", "nnnnnnnnnn", "xxxnxxnnxxxxxn", "lnlnlnlnln", "bnbnnnbnxn" };
        static const unsigned hogs[] = { 0, 0, 0, 0, 3 };
        for (unsigned batch = 1; batch <= 64; batch *= 8)
                for (size_t i = 0; i < ELEMENTSOF(days); i++) {
                        STAGE(batch);
                        plugin_executor_set_hogs(s->x, HOG_USEC, 4);
                        run(s, days[i]);
                        ck_assert_msg(n_hogs(s) <= hogs[i], "batch %u: %s: %lu", batch, days[i],
                                      (unsigned long)n_hogs(s));
                        run(s, days[i]);
                        ck_assert_msg(n_hogs(s) <= 2 * hogs[i], "batch %u: twice %s: %lu", batch, days[i],
                                      (unsigned long)n_hogs(s));
                }
}

/* What passed unmeasured may have been burnt or slept: the first in doubt is not accused, and the next ones are measured. */
TEST(behind_what_was_not_measured_one_is_in_doubt_and_the_next_is_counted) {
        STAGE(1);
        plugin_executor_set_hogs(s->x, 0, 4);
        run(s, "nn");
        ck_assert_uint_eq(n_hogs(s), 0);
        plugin_executor_set_hogs(s->x, HOG_USEC, 4);
        run(s, "b");
        ck_assert_uint_eq(n_hogs(s), 0);
        run(s, "sssb");
        ck_assert_uint_eq(n_hogs(s), 1);
}

/* Those that burnt when nobody looked are not counted later either. */
TEST(switched_off_nobody_is_counted_and_switched_on_the_next_one_is) {
        STAGE(1);
        plugin_executor_set_hogs(s->x, 0, 4);
        run(s, "bbbb");
        ck_assert_uint_eq(n_hogs(s), 0);
        ck_assert_uint_eq(plugin_executor_cpu(s->queue).cpu_usec, 4 * WORK_USEC);
        plugin_executor_set_hogs(s->x, HOG_USEC, 4);
        run(s, "b");
        ck_assert_uint_eq(n_hogs(s), 1);
        ck_assert_uint_eq(plugin_executor_cpu(s->queue).cpu_usec, 5 * WORK_USEC);
}

/* That its worker was idle is known, so what comes after that is in no doubt. */
TEST(idle_time_of_its_worker_leaves_no_doubt) {
        STAGE(1);
        plugin_executor_set_hogs(s->x, HOG_USEC, 4);
        run(s, "x");
        nap(USEC_PER_SEC);
        idle_usec += USEC_PER_SEC;
        run(s, "b");
        ck_assert_uint_eq(n_hogs(s), 1);
}

TEST(one_that_burns_among_many_short_ones_of_its_call_is_counted) {
        STAGE(64);
        plugin_executor_set_hogs(s->x, HOG_USEC, 4);
        run(s, "xxxxxxxbxxxxxxxxxxxxxxbxxxxxxxxxxxxxxbxxxxxxxxxxxxxxbxxxx");
        ck_assert_uint_eq(n_hogs(s), 4);
        ck_assert_uint_eq(plugin_executor_cpu(s->queue).cpu_usec, 4 * WORK_USEC);
}

TEST(tasks_that_a_plugin_holds_together_have_a_share_each_of_what_it_burns) {
        STAGE(16);
        plugin_executor_set_hogs(s->x, HOG_USEC, 4);
        run(s, "tt");
        ck_assert_uint_eq(n_hogs(s), 0);
        run(s, "t");
        ck_assert_uint_eq(n_hogs(s), 1);
        plugin_executor_set_hogs(s->x, LESS_USEC, 4);
        run(s, "tt"); /* 1.5 ms each */
        ck_assert_uint_eq(n_hogs(s), 3);
        run(s, "ttt");
        ck_assert_uint_eq(n_hogs(s), 3);
        plugin_executor_set_hogs(s->x, HOG_USEC, 4);
        run(s, "ww");
        ck_assert_uint_eq(n_hogs(s), 3);
        run(s, "w");
        ck_assert_uint_eq(n_hogs(s), 4);
}

RUN_TESTS("pluginrun", 60, test_each_that_burns_is_counted_whatever_the_batch, test_a_nap_is_never_counted,
          test_behind_what_was_not_measured_one_is_in_doubt_and_the_next_is_counted,
          test_switched_off_nobody_is_counted_and_switched_on_the_next_one_is,
          test_idle_time_of_its_worker_leaves_no_doubt,
          test_one_that_burns_among_many_short_ones_of_its_call_is_counted,
          test_tasks_that_a_plugin_holds_together_have_a_share_each_of_what_it_burns)
