/* SPDX-License-Identifier: MIT */
/* The plugin executor between a real engine, a real loop and plugins that behave or do not. */
#include "executor/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "base/fault.h"
#include "executor/pluginrun.h"
#include "proto/schema.h"
#include "test.h"

enum { N_TASKS = 2048, LOG_FD = 200, GATE_FD = 201 }; /* the plugin is told the first, and the second follows it */

typedef struct Bench Bench;
struct Bench {
        FakeClock clock;
        uv_loop_t loop;
        uv_timer_t keep; /* the loop runs as long as there is this */
        Engine engine;
        PluginExecutor *x;
        Pool *pool, *other;
        Queue *queue;
        PluginLibrary *library;
        char text[64];
        int log, gate; /* the test's ends */
        char heard[65536];
        size_t n_heard;

        Task tasks[N_TASKS]; /* by SEQ */
        const char *payloads[N_TASKS];
        size_t n_ended;
        char ends[65536]; /* "1DONE:result 2FAILED:error" */
        bool retries;
        ATOMIC(uint64_t) mark; /* SEQ of the task that began last */
        TaskFate fate;
        size_t n_started, n_opened, n_queue_ended, n_left;
        char error[256]; /* of the last opening */
        char submitted[64];
        char order[16]; /* first bytes of what was submitted */
        size_t n_submitted;
        int submit_error;
        bool is_intact;
        void (*in_submit)(Bench *b); /* called in the middle of settling */
};

/* ---- the host ---- */

static void note_end(Bench *b, const Task *t, eq_state state, const TaskResult *result) {
        const PluginResult *p = result ? result->details : NULL;
        size_t len = strlen(b->ends);
        const char *text = p && p->error ? p->error : p && p->result.data ? p->result.data : "";
        int n = p && !p->error ? (int)p->result.len : (int)strlen(text);
        snprintf(b->ends + len, sizeof(b->ends) - len, "%s%lu%s%s%.*s", len ? " " : "", (unsigned long)t->seq,
                 eq_state_name(state), n ? ":" : "", n, text);
}

static void on_started(void *host, Task *t) {
        Bench *b = host;
        b->n_started++;
        ck_assert_int_eq(plugin_executor_mark_slot(t), (int)t->seq); /* as the manager asks for it */
}

static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        Bench *b = host;
        if (result->verdict == TASK_STOPPED)
                return (TaskFate) { .event = TASK_EV_CANCEL };
        if (result->verdict == TASK_RETURNED)
                return (TaskFate) { .event = TASK_EV_RETRY, .due_usec = engine_now(&b->engine) };
        note_end(b, t, b->fate.event == TASK_EV_FAIL ? EQ_STATE_FAILED : EQ_STATE_WAITING, result);
        return b->fate;
}

static void on_ended_well(void *host, Task *t, const TaskResult *result) {
        note_end(host, t, EQ_STATE_DONE, result);
}

static void on_finished(void *host, Task *t) {
        ((Bench *)host)->n_ended++;
        if (t->state == EQ_STATE_CANCELED)
                note_end(host, t, t->state, NULL);
}

static const EngineHooks engine_hooks = {
        .started = on_started, .ended = on_ended, .ended_well = on_ended_well, .finished = on_finished
};

/* Bytes that follow from the first and the length. */
static void make_pattern(char *p, size_t len, char first) {
        for (size_t i = 0; i < len; i++)
                p[i] = i == 0 ? first : (char)(first + (char)(i / 7) + (char)(i % 251));
}

static bool is_pattern(EqBytes b) {
        static char expected[EQ_PAYLOAD_MAX];
        if (b.len == 0 || strncmp(b.data, "chained", 7) == 0)
                return true;
        make_pattern(expected, b.len, b.data[0]);
        return memcmp(expected, b.data, b.len) == 0;
}

static int on_prepare(void *host, Task *t, PluginOrder *ret) {
        Bench *b = host;
        *ret = (PluginOrder) {
                .payload = eq_str(b->payloads[t->seq]),
                .uid = 7,
                .retries = b->retries,
                .mark = &b->mark,
                .mark_value = t->seq,
                .mark_slot = (int)t->seq,
        };
        return 0;
}

static void on_submit(void *host, const Task *by, EqBytes queue, EqBytes payload, int error) {
        Bench *b = host;
        b->submit_error = error;
        b->is_intact = b->is_intact && is_pattern(payload);
        if (b->n_submitted < sizeof(b->order) - 1 && payload.len > 0)
                b->order[b->n_submitted] = payload.data[0];
        b->n_submitted++;
        if (b->in_submit)
                b->in_submit(b);
        snprintf(b->submitted, sizeof(b->submitted), "%lu>%.*s:%.*s", (unsigned long)by->seq, (int)queue.len,
                 queue.data, (int)payload.len, payload.data);
}

static void on_opened(void *host, Queue *q, const char *error) {
        Bench *b = host;
        b->n_opened++;
        snprintf(b->error, sizeof(b->error), "%s", error ? error : "");
}

static void on_queue_ended(void *host, Queue *q) {
        ((Bench *)host)->n_queue_ended++;
}

static void on_left(void *host, Pool *p) {
        ((Bench *)host)->n_left++;
        ck_assert(!plugin_pool_is_used(p));
}

static const PluginHooks plugin_hooks = {
        .prepare = on_prepare, .submit = on_submit, .opened = on_opened, .ended = on_queue_ended, .left = on_left
};

/* ---- a worker that is stopped between taking a task and beginning it ---- */

static ATOMIC(bool) to_stop; /* the next one */
static sem_t has_stopped, go_on;

void preempt_here(void) {
        if (!workers_is_self(NULL) || !load_relaxed(&to_stop) || !exchange_seq_cst(&to_stop, false))
                return;
        sem_post(&has_stopped);
        while (sem_wait(&go_on) != 0)
                ;
}

/* ---- submitters that are stopped in the middle of their push ---- */

static _Thread_local sem_t *stops_in_push; /* until this lets it go on; NULL: it does not */
static _Thread_local bool must_not_wait;
static sem_t in_push;

void preempt_in_push(void);
void preempt_in_push(void) {
        sem_t *push_on = TAKE_PTR(stops_in_push);
        if (!push_on)
                return;
        sem_post(&in_push);
        while (sem_wait(push_on) != 0)
                ;
}

/* What may wait for another thread, and is not to be called in a submit. */
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_malloc(size_t n) {
        if (must_not_wait)
                abort();
        return __real_malloc(n);
}

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size) {
        if (must_not_wait)
                abort();
        return __real_calloc(n, size);
}

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m) {
        if (must_not_wait)
                abort();
        return __real_pthread_mutex_lock(m);
}

int __real_pthread_once(pthread_once_t *once, void (*f)(void));
int __wrap_pthread_once(pthread_once_t *once, void (*f)(void));
int __wrap_pthread_once(pthread_once_t *once, void (*f)(void)) {
        if (must_not_wait)
                abort();
        return __real_pthread_once(once, f);
}

static void stop_next_worker(void) {
        sem_init(&has_stopped, 0, 0);
        sem_init(&go_on, 0, 0);
        sem_init(&in_push, 0, 0);
        store_relaxed(&to_stop, true);
}

/* ---- the bench ---- */

static void turn(Bench *b) {
        uv_run(&b->loop, UV_RUN_ONCE);
}
#define UNTIL(b, condition)                                                                                            \
        while (!(condition))                                                                                           \
        turn(b)

static void never(uv_timer_t *timer) {
        ck_abort_msg("it did not come");
}

static void library(Bench *b, const char *name) {
        char path[512], error[PLUGIN_ERROR_MAX];
        plugin_library_unref(b->library);
        snprintf(path, sizeof(path), TRIAL_DIR "/%s.so", name);
        ck_assert_msg(plugin_library_open(path, true, &b->library, error, sizeof(error)) == 0, "%s", error);
}

static PluginSetup setup(Bench *b) {
        return (PluginSetup) { .library = b->library, .text = b->text, .calls.batch_max = 16 };
}

static Bench *bench_new(const char *plugin, const char *text, uint64_t max_active) {
        Bench *b = calloc(1, sizeof(*b));
        int log[2], gate[2];
        ck_assert(pipe2(log, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(gate, O_CLOEXEC) == 0);
        ck_assert(dup2(log[1], LOG_FD) == LOG_FD && dup2(gate[0], GATE_FD) == GATE_FD);
        close_fd(log[1]);
        close_fd(gate[0]);
        b->log = log[0];
        b->gate = gate[1];
        fake_clock_init(&b->clock, USEC_PER_SEC, 0);
        b->fate.event = TASK_EV_FAIL;
        ck_assert_int_eq(uv_loop_init(&b->loop), 0);
        uv_timer_init(&b->loop, &b->keep);
        uv_timer_start(&b->keep, never, 300000, 0);
        ck_assert_int_eq(engine_init(&b->engine, &b->clock.clock, &engine_hooks, b), 0);
        ck_assert_int_eq(plugin_executor_new(&b->loop, &b->engine, &plugin_hooks, b, &b->x), 0);
        for (size_t i = 0; i < 2; i++) {
                ck_assert_int_eq(pool_new(&b->engine, i ? "other" : "plugin", POOL_THREAD, plugin_executor(b->x),
                                          SIZE_MAX, i ? &b->other : &b->pool),
                                 0);
                ck_assert_int_eq(plugin_pool_new(i ? b->other : b->pool, &WORKERS_PARAMS_DEFAULT), 0);
        }
        QueueParams params = { .max_active = max_active, .max_tasks = 1000000, .max_bytes = 1 << 30 };
        ck_assert_int_eq(queue_new(&b->engine, b->pool, "q", &params, 0, &b->queue), 0);
        library(b, plugin);
        snprintf(b->text, sizeof(b->text), "%s", text ? text : "log=200");
        return b;
}

static void add_queue(Bench *b) {
        PluginSetup s = setup(b);
        ck_assert_int_eq(plugin_executor_add_queue(b->x, b->queue, &s), 0);
}

static Bench *bench_open(const char *plugin, const char *text, uint64_t max_active) {
        Bench *b = bench_new(plugin, text, max_active);
        add_queue(b);
        UNTIL(b, b->n_opened);
        return b;
}

static void bench_free(Bench *b) {
        for (size_t i = 1; i < N_TASKS; i++)
                if (task_is_pending(&b->tasks[i]))
                        (void)queue_cancel(b->queue, &b->tasks[i]);
        plugin_executor_close(b->x);
        plugin_pool_free(b->pool);
        plugin_pool_free(b->other);
        engine_deinit(&b->engine);
        b->x = plugin_executor_free(b->x);
        plugin_library_unref(b->library);
        uv_close((uv_handle_t *)&b->keep, NULL);
        uv_run(&b->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&b->loop), 0);
        close_fd(b->log);
        close_fd(b->gate);
        close_fd(LOG_FD);
        close_fd(GATE_FD);
        free(b);
}
static void bench_freep(Bench **b) {
        bench_free(*b);
}
#define BENCH(plugin, text, max_active) _cleanup_(bench_freep) Bench *b = bench_open(plugin, text, max_active)

/* One that is ready to be pushed. */
static Task *make(Bench *b, const char *payload, TaskLane lane) {
        uint64_t seq;
        ck_assert_int_eq(queue_reserve(b->queue, 1, 10, &seq), 0);
        Task *t = &b->tasks[seq];
        b->payloads[seq] = payload;
        task_init(t, seq, lane, 10);
        return t;
}

static Task *submit_to(Bench *b, const char *payload, TaskLane lane) {
        Task *t = make(b, payload, lane);
        queue_push(b->queue, t);
        return t;
}

static Task *submit(Bench *b, const char *payload) {
        return submit_to(b, payload, TASK_LANE_NORMAL);
}

/* What the plugin has said so far. */
static const char *heard(Bench *b) {
        ssize_t n;
        while ((n = read(b->log, b->heard + b->n_heard, sizeof(b->heard) - 1 - b->n_heard)) > 0)
                b->n_heard += (size_t)n;
        b->heard[b->n_heard] = '\0';
        return b->heard;
}

static void until_heard(Bench *b, const char *text) {
        while (!strstr(heard(b), text))
                uv_run(&b->loop, UV_RUN_NOWAIT);
}

static void open_gate(Bench *b) {
        ck_assert_int_eq(write(b->gate, "x", 1), 1);
}

/* The longest batch that the plugin has said since then. */
static unsigned longest_batch(Bench *b, size_t since) {
        unsigned longest = 0;
        for (const char *at = heard(b) + since; (at = strstr(at, "batch ")); at++) {
                unsigned n = (unsigned)strtoul(at + 6, NULL, 10);
                longest = n > longest ? n : longest;
        }
        return longest;
}

static void run_batches(Bench *b, unsigned n) {
        size_t ended = b->n_ended + n + 1;
        submit(b, "wait"); /* so that the others are there when it ends */
        for (unsigned i = 0; i < n; i++)
                submit(b, "together");
        open_gate(b);
        UNTIL(b, b->n_ended == ended);
}

/* libuv keeps two descriptors from the first loop on, which are no leak of a test. */
__attribute__((constructor)) static void before_tests(void) {
        uv_loop_t loop;
        if (uv_loop_init(&loop) == 0)
                (void)uv_loop_close(&loop);
}

/* ---- claims ---- */

TEST(a_task_is_run_with_its_payload_and_its_result_told) {
        BENCH("trial", NULL, 1);
        ck_assert_str_eq(b->error, "");
        submit(b, "hello");
        UNTIL(b, b->n_ended == 1);
        ck_assert_str_eq(b->ends, "1DONE:hello");
        ck_assert_uint_eq(b->n_started, 1);
        ck_assert_uint_eq(b->tasks[1].attempt, 1);
        ck_assert_str_eq(heard(b), "open 0\ntask 1\n");
}

TEST(tasks_run_in_order_urgent_ones_first) {
        BENCH("trial-plain", NULL, 1);
        Task *first = submit(b, "wait");
        until_heard(b, "task 1\n");
        for (int i = 0; i < 3; i++)
                submit(b, "x");
        submit_to(b, "x", TASK_LANE_URGENT);
        open_gate(b);
        UNTIL(b, b->n_ended == 5);
        ck_assert_str_eq(heard(b), "open 0\ntask 1\ntask 5\ntask 2\ntask 3\ntask 4\n");
        ck_assert_int_eq(first->state, EQ_STATE_DONE);
}

TEST(thousands_of_tasks_run_each_once_in_order) {
        char want[32];
        BENCH("trial-plain", NULL, 1);
        for (int i = 0; i < 1000; i++)
                submit(b, "batch");
        UNTIL(b, b->n_ended == 1000);
        const char *at = heard(b) + strlen("open 0\n");
        for (int i = 1; i <= 1000; i++) {
                int n = snprintf(want, sizeof(want), "task %d\n", i);
                ck_assert_msg(strncmp(at, want, (size_t)n) == 0, "not %s but %.20s", want, at);
                at += n;
        }
        ck_assert_str_eq(at, "");
}

TEST(cancel_is_0_before_1_while_and_minus_1_after) {
        BENCH("trial-plain", NULL, 1);
        Task *first = submit(b, "wait"), *second = submit(b, "x"), *third = submit(b, "x");
        until_heard(b, "task 1\n");
        ck_assert_int_eq(second->state, EQ_STATE_QUEUED);
        ck_assert_int_eq(second->where, TASK_IN_HANDED);
        ck_assert_int_eq(queue_cancel(b->queue, second), 0);
        ck_assert_int_eq(queue_cancel(b->queue, first), 1);
        open_gate(b);
        UNTIL(b, b->n_ended == 3);
        ck_assert_int_eq(queue_cancel(b->queue, first), -1);
        ck_assert_int_eq(queue_cancel(b->queue, third), -1);
        ck_assert_str_eq(b->ends, "2CANCELED 1DONE:wait 3DONE:x");
        ck_assert_str_eq(heard(b), "open 0\ntask 1\ntask 3\n");
}

TEST(a_running_task_that_is_stopped_and_fails_is_canceled) {
        BENCH("trial", NULL, 1);
        Task *t = submit(b, "until-canceled");
        until_heard(b, "task 1\n");
        queue_look(b->queue);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        ck_assert_int_eq(engine_task_stop(&b->engine, t, 0, 0), 0);
        UNTIL(b, b->n_ended == 1);
        ck_assert_int_eq(t->state, EQ_STATE_CANCELED);
}

/* Those whose results come at the end of the call are a batch as long as it may be. */
TEST(T_PSI_under_pressure_batches_are_half_as_long) {
        _cleanup_(bench_freep) Bench *b = bench_new("trial-plain", NULL, 1);
        plugin_executor_set_pressed(b->x, true); /* before there is any thread */
        add_queue(b);
        UNTIL(b, b->n_opened);
        run_batches(b, 40);
        ck_assert_uint_eq(longest_batch(b, 0), 8);
        size_t since = b->n_heard;
        plugin_executor_set_pressed(b->x, false);
        run_batches(b, 40);
        ck_assert_uint_eq(longest_batch(b, since), 16);
}

/* With the clocks of the kernel. */
TEST(T_CPU_those_that_burn_are_counted_and_told_as_the_kernel_does) {
        char told[64] = "";
        size_t len = 0;
        for (uint64_t n = 1; n <= 40; n++)
                if (plugin_hog_is_told(4, n - 1, n))
                        len += (size_t)snprintf(told + len, sizeof(told) - len, "%u ", (unsigned)n);
        ck_assert_str_eq(told, "4 5 7 11 19 35 ");
        ck_assert(plugin_hog_is_told(4, 0, 40) && plugin_hog_is_told(4, 20, 40) && !plugin_hog_is_told(4, 35, 66));
        ck_assert(!plugin_hog_is_told(0, 0, 40));

        BENCH("trial-plain", NULL, 1);
        plugin_executor_set_hogs(b->x, 2000, 4);
        for (int i = 0; i < 40; i++)
                submit(b, "burn");
        submit(b, "x"); /* in the next call, that is behind the end of the others */
        UNTIL(b, b->n_ended == 41);
        uint64_t counted = plugin_executor_cpu(b->queue).n_hogs;
        ck_assert_uint_ge(counted, 20); /* who is in doubt is not counted; which ones those are pluginrun-test.c says */
        ck_assert_uint_le(counted, 40);
        ck_assert_uint_ge(plugin_executor_cpu(b->queue).cpu_usec, counted * 3000);
        for (int i = 0; i < 10; i++)
                submit(b, "nap");
        submit(b, "x");
        UNTIL(b, b->n_ended == 52);
        /* By the clock on the wall all ten would be. Of CPU time a virtual machine may be charged what its host took. */
        ck_assert_uint_le(plugin_executor_cpu(b->queue).n_hogs, counted + 5);
}

TEST(a_pause_keeps_back_what_was_handed_over) {
        BENCH("trial-plain", NULL, 1);
        submit(b, "wait");
        Task *second = submit(b, "x");
        until_heard(b, "task 1\n");
        queue_pause(b->queue);
        ck_assert_int_eq(second->where, TASK_IN_READY);
        open_gate(b);
        UNTIL(b, b->n_ended == 1);
        ck_assert_str_eq(heard(b), "open 0\ntask 1\n");
        queue_resume(b->queue);
        UNTIL(b, b->n_ended == 2);
}

TEST(a_stop_calls_once_with_stopped_after_everything_and_the_join_comes_after_that) {
        BENCH("trial", NULL, 1);
        for (int i = 0; i < 3; i++)
                submit(b, "x");
        queue_stop(b->queue);
        queue_stop(b->queue);
        UNTIL(b, b->queue->stopped);
        ck_assert_str_eq(heard(b), "open 0\ntask 1\ntask 2\ntask 3\nstopped 0\nclose 0\n");
        ck_assert_uint_eq(b->n_queue_ended, 1);
        ck_assert(plugin_executor_has_ended(b->queue));
}

TEST(no_more_than_max_active_run_at_once) {
        BENCH("trial", NULL, 3); /* the plugin aborts if it is inside more often */
        for (int i = 0; i < 500; i++)
                submit(b, i % 3 ? "x" : "defer-at-once");
        UNTIL(b, b->n_ended == 500);
}

TEST(nonsense_is_answered_and_ends_as_a_failed_task) {
        static const struct {
                const char *payload, *ends;
        } rows[] = {
                { "silent", "1FAILED:the plugin returned without a result for it" },
                { "twice", "1DONE:1" },
                { "too-big", "1DONE:too-big" },
                { "fail", "1FAILED:told to fail" },
                { "defer-at-once", "1DONE:now" },
                { "defer", "1DONE:later" },
                { "give-back", "1DONE:give-back" },
        };
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                BENCH("trial", NULL, 1);
                submit(b, rows[i].payload);
                while (b->n_ended == 0) {
                        turn(b);
                        engine_run_due(&b->engine);
                }
                ck_assert_str_eq(b->ends, rows[i].ends);
        }
}

TEST(without_its_flag_a_plugin_may_not_defer) {
        BENCH("trial-plain", NULL, 1);
        submit(b, "defer");
        UNTIL(b, b->n_ended == 1);
        ck_assert_str_eq(b->ends, "1FAILED:may not defer");
}

TEST(a_failure_that_is_tried_again_holds_back_those_behind_it) {
        BENCH("trial-plain", NULL, 1);
        b->retries = true;
        b->fate = (TaskFate) { .event = TASK_EV_RETRY, .due_usec = engine_now(&b->engine) + USEC_PER_SEC };
        queue_pause(b->queue);
        submit(b, "fail");
        for (int i = 0; i < 10; i++)
                submit(b, "x");
        queue_resume(b->queue);
        UNTIL(b, b->ends[0]);
        ck_assert_str_eq(b->ends, "1WAITING:told to fail");
        ck_assert_uint_eq(b->queue->n_handed, 0);
        b->fate.event = TASK_EV_FAIL;
        fake_clock_advance(&b->clock, USEC_PER_SEC);
        engine_run_due(&b->engine);
        UNTIL(b, b->n_ended == 11);
        ck_assert_msg(strncmp(heard(b), "open 0\ntask 1\ntask 1\ntask 2\n", 28) == 0, "%s", b->heard);
}

TEST(a_plugin_that_takes_nothing_stands_still_and_can_be_replaced) {
        BENCH("trial", "takes-nothing", 1);
        Task *t = submit(b, "x");
        UNTIL(b, b->n_opened == 2);
        ck_assert(strstr(b->error, "took none of its tasks"));
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_PLUGIN);
        ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
        snprintf(b->text, sizeof(b->text), "log=200");
        PluginSetup s = setup(b);
        ck_assert_int_eq(plugin_executor_change_queue(b->x, b->queue, &s), 0);
        UNTIL(b, b->n_ended == 1);
        ck_assert_str_eq(b->ends, "1DONE:x");
}

TEST(a_plugin_that_cannot_be_opened_says_why_and_is_tried_again) {
        BENCH("trial", "open-fails", 1);
        Task *t = submit(b, "x");
        ck_assert_str_eq(b->error, "told to fail");
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_PLUGIN);
        ck_assert_str_eq(plugin_executor_explain(b->queue), "told to fail");
        ck_assert_int_eq(queue_cancel(b->queue, t), 0);
        PluginSetup s = setup(b);
        ck_assert_int_eq(plugin_executor_change_queue(b->x, b->queue, &s), 0);
        UNTIL(b, b->n_opened == 2);
        ck_assert_str_eq(b->error, "told to fail");
}

TEST(other_text_closes_and_opens_again_and_deferred_ones_have_failed) {
        BENCH("trial", NULL, 1);
        submit(b, "defer-for-ever");
        submit(b, "x");
        until_heard(b, "task 1\n");
        snprintf(b->text, sizeof(b->text), "other");
        PluginSetup s = setup(b);
        ck_assert_int_eq(plugin_executor_change_queue(b->x, b->queue, &s), 0);
        UNTIL(b, b->n_ended == 2);
        ck_assert_str_eq(b->ends, "1FAILED:the plugin was closed before it completed it 2DONE:x");
        ck_assert_str_eq(heard(b), "open 0\ntask 1\nstopped 0\nclose 0\n");
}

TEST(the_same_again_changes_nothing) {
        BENCH("trial", NULL, 1);
        PluginSetup s = setup(b);
        ck_assert_int_eq(plugin_executor_change_queue(b->x, b->queue, &s), 0);
        submit(b, "x");
        UNTIL(b, b->n_ended == 1);
        ck_assert_str_eq(heard(b), "open 0\ntask 1\n");
}

TEST(what_a_task_submits_is_told_before_its_end) {
        BENCH("trial", NULL, 1);
        submit(b, "chain other");
        UNTIL(b, b->n_ended == 1);
        ck_assert_str_eq(b->submitted, "1>other:chained");
}

/* A thread that submits for a task: so many payloads, which begin with `first` and the letters that follow. */
typedef struct Submitter {
        pthread_t thread;
        const eq_plugin_task *by;
        char first;
        unsigned n;
        bool stops;
        sem_t push_on;
} Submitter;

static const size_t submit_sizes[] = { 1, EQ_PAYLOAD_MAX, 400, 2000 };

static void *submit_some(void *arg) {
        static char large[EQ_PAYLOAD_MAX]; /* there is one thread at a time that does not stop */
        char small[1];
        Submitter *s = arg;
        char *payload = s->stops ? small : large; /* and who does has one of a byte */
        stops_in_push = s->stops ? &s->push_on : NULL;
        for (unsigned i = 0; i < s->n; i++) {
                size_t len = submit_sizes[i % ELEMENTSOF(submit_sizes)];
                make_pattern(payload, len, (char)(s->first + (char)i));
                must_not_wait = true;
                int r = plugin_api.submit(s->by, "other", payload, len);
                must_not_wait = false;
                if (r != 0)
                        abort();
        }
        return NULL;
}

static void start_submitter(Submitter *s) {
        sem_init(&s->push_on, 0, 0);
        ck_assert_int_eq(pthread_create(&s->thread, NULL, submit_some, s), 0);
        if (!s->stops)
                ck_assert_int_eq(pthread_join(s->thread, NULL), 0); /* it has returned */
        else
                while (sem_wait(&in_push) != 0)
                        ;
}

static void submit_in_the_middle(Bench *b) {
        const eq_plugin_task *by = &((PluginTask *)b->tasks[1].slot->executor_data)->view;
        b->in_submit = NULL;
        start_submitter(&(Submitter) { .by = by, .first = 'c', .n = 4 });
}

/* Two are stopped between the exchange and the link, one of them the one that found the list empty and has to wake the loop. Others
 * submit all the same, also while the loop is in the middle of settling; what they have submitted waits for the two, and none of it
 * is lost. */
TEST(a_submit_returns_whoever_is_stopped_in_the_middle) {
        BENCH("trial", NULL, 1);
        Task *t = submit(b, "wait");
        until_heard(b, "task 1\n");
        UNTIL(b, load_relaxed(&b->x->up.head) == INBOX_EMPTY);
        b->is_intact = true;
        const eq_plugin_task *by = &((PluginTask *)t->slot->executor_data)->view;
        Submitter stopped[] = { { .by = by, .first = 'X', .n = 1, .stops = true },
                                { .by = by, .first = 'Y', .n = 1, .stops = true } };
        for (size_t i = 0; i < ELEMENTSOF(stopped); i++)
                start_submitter(&stopped[i]);
        start_submitter(&(Submitter) { .by = by, .first = 'a', .n = 2 });
        for (size_t i = 0; i < ELEMENTSOF(stopped); i++) {
                for (unsigned n = 0; n < 100; n++)
                        uv_run(&b->loop, UV_RUN_NOWAIT);
                ck_assert_uint_eq(b->n_submitted, 0); /* nothing is passed over */
                b->in_submit = submit_in_the_middle;
                sem_post(&stopped[i].push_on);
                ck_assert_int_eq(pthread_join(stopped[i].thread, NULL), 0);
        }
        UNTIL(b, b->n_submitted == 8); /* the second one does not wake the loop */
        ck_assert_str_eq(b->order, "XYabcdef");
        ck_assert(b->is_intact);
        open_gate(b);
        UNTIL(b, b->n_ended == 1);
}

/* Each block fails once, on the thread that submits; then the piece that the loop makes of them. */
TEST(without_memory_a_submit_is_refused) {
        static char payload[1000]; /* three blocks */
        BENCH("trial", NULL, 1);
        Task *t = submit(b, "wait");
        until_heard(b, "task 1\n");
        while (WATCH_GET(b->pool->watch->threads.n_idle) == 0) /* it is made meanwhile, of memory */
                sched_yield();
        const eq_plugin_task *by = &((PluginTask *)t->slot->executor_data)->view;
        make_pattern(payload, sizeof(payload), 'p');
        for (int nth = 1; nth <= 3; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                ck_assert_int_eq(plugin_api.submit(by, "other", payload, sizeof(payload)), -ENOMEM);
        }
        fault_set(FAULT_ALLOC, 4, false);
        ck_assert_int_eq(plugin_api.submit(by, "other", payload, sizeof(payload)), 0);
        UNTIL(b, b->n_submitted == 1);
        ck_assert_int_eq(b->submit_error, -ENOMEM);
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_int_eq(plugin_api.submit(by, "other", payload, sizeof(payload)), 0);
        UNTIL(b, b->n_submitted == 2);
        ck_assert_int_eq(b->submit_error, 0);
        open_gate(b);
        UNTIL(b, b->n_ended == 1);
}

TEST(a_queue_is_removed_while_its_plugin_is_being_opened) {
        _cleanup_(bench_freep) Bench *b = bench_new("trial", NULL, 1);
        add_queue(b);
        plugin_executor_remove_queue(b->x, b->queue);
        ck_assert(plugin_executor_has_ended(b->queue));
        b->queue = queue_free(b->queue);
}

/* Each allocation on the way fails once: the task runs all the same, later, or fails with its text missing. */
TEST(memory_that_fails_once_loses_no_task) {
        BENCH("trial", NULL, 1);
        for (int nth = 1; nth <= 6; nth++) {
                size_t n = b->n_ended;
                Task *t = make(b, nth % 2 ? "x" : "fail", TASK_LANE_NORMAL);
                fault_set(FAULT_ALLOC, nth, false);
                queue_push(b->queue, t);
                while (b->n_ended == n) {
                        uv_run(&b->loop, UV_RUN_NOWAIT);
                        fake_clock_advance(&b->clock, POOL_COOLDOWN_USEC);
                        engine_run_due(&b->engine);
                }
        }
        fault_set(FAULT_ALLOC, 0, false);
}

TEST(without_memory_descriptor_or_thread_a_queue_is_refused) {
        static const struct {
                FaultSeam seam;
                int error;
        } rows[] = { { FAULT_ALLOC, -ENOMEM }, { FAULT_PIPE, -EMFILE }, { FAULT_WORKER, -EAGAIN } };
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                _cleanup_(bench_freep) Bench *b = bench_new("trial", NULL, 1);
                PluginSetup s = setup(b);
                fault_set(rows[i].seam, 1, false);
                ck_assert_int_eq(plugin_executor_add_queue(b->x, b->queue, &s), rows[i].error);
                ck_assert(plugin_executor_has_ended(b->queue));
                ck_assert_int_eq(plugin_executor_add_queue(b->x, b->queue, &s), 0);
        }
}

TEST(a_refused_worker_is_the_reason_until_there_is_one) {
        _cleanup_(bench_freep) Bench *b = bench_new("trial", NULL, 1);
        fault_set(FAULT_WORKER, 2, true); /* the first one makes the others */
        add_queue(b);
        Task *t = submit(b, "x");
        UNTIL(b, plugin_pool_has_none(b->pool));
        ck_assert_int_eq(b->pool->create_error, -EAGAIN);
        ck_assert_int_eq(queue_reason(b->queue, t, NULL), EQ_REASON_CREATE_FAILURE);
        fault_set(FAULT_WORKER, 0, false);
        UNTIL(b, b->n_ended == 1); /* it is asked for again a second later */
        UNTIL(b, b->pool->create_error == 0);
}

/* Its instance is closed on the threads of the one pool and opened on those of the other; what was running ends in between. */
TEST(a_queue_that_moves_is_opened_on_the_threads_of_its_new_pool) {
        BENCH("trial", NULL, 1);
        PluginSetup s = setup(b);
        Task *running = submit(b, "wait"), *waits = submit(b, "x");
        until_heard(b, "task 1\n");
        ck_assert_uint_eq(plugin_pool_stats(b->other).n_workers, 0);
        queue_set_pool(b->queue, b->other);
        ck_assert_int_eq(plugin_executor_change_queue(b->x, b->queue, &s), 0);
        ck_assert(plugin_pool_is_used(b->pool));
        ck_assert_uint_eq(b->pool->n_busy, 1);
        ck_assert_int_eq(running->state, EQ_STATE_RUNNING);
        open_gate(b);
        UNTIL(b, b->n_ended == 2);
        ck_assert_int_eq(running->state, EQ_STATE_DONE);
        ck_assert_int_eq(waits->state, EQ_STATE_DONE);
        ck_assert_uint_eq(b->n_left, 1);
        ck_assert(!plugin_pool_is_used(b->pool) && plugin_pool_is_used(b->other));
        ck_assert_uint_ge(plugin_pool_stats(b->other).n_workers, 1);
        ck_assert_uint_ge(WATCH_GET(b->other->watch->threads.n), 1);
}

/* A thread is the queue's alone, but it is one like those of its pool, of which none is made for it. */
TEST(E2_the_thread_of_a_dedicated_queue_has_the_stack_and_nice_level_of_its_pool) {
        _cleanup_(bench_freep) Bench *b = bench_new("trial-plain", NULL, 1);
        WorkersParams params = WORKERS_PARAMS_DEFAULT;
        PluginSetup s = setup(b);
        unsigned stack_kb;
        int nice, at = 0;
        params.stack_bytes = 1024 * 1024;
        params.nice = getpriority(PRIO_PROCESS, 0) < 15 ? getpriority(PRIO_PROCESS, 0) + 3 : 19;
        plugin_pool_set(b->pool, &params);
        s.calls.dedicated = true;
        ck_assert_int_eq(plugin_executor_add_queue(b->x, b->queue, &s), 0);
        submit(b, "thread");
        UNTIL(b, b->n_ended == 1);
        ck_assert_int_eq(sscanf(b->ends, "1DONE:%u %d eqw/queue:1%n", &stack_kb, &nice, &at), 2);
        ck_assert_msg(b->ends[at] == '\0' && at > 0, "%s", b->ends);
        ck_assert_uint_ge(stack_kb, 1024);
        ck_assert_uint_lt(stack_kb, 2048);
        ck_assert_int_eq(nice, params.nice);
        ck_assert_ptr_null(((PluginPool *)b->pool->executor_data)->workers);
        ck_assert_uint_eq(WATCH_GET(b->pool->watch->threads.n), 0);

        s.calls.dedicated = false; /* and now they are made */
        ck_assert_int_eq(plugin_executor_change_queue(b->x, b->queue, &s), 0);
        submit(b, "x");
        UNTIL(b, b->n_ended == 2);
        ck_assert_uint_ge(plugin_pool_stats(b->pool).n_workers, 1);
}

/* The loop does not wait for the CPU time of a thread: it may have a low priority, and others be busy. */
TEST(a_pause_does_not_wait_for_a_thread_that_is_just_beginning_a_task) {
        uint64_t begun, seen;
        BENCH("trial", NULL, 1);
        stop_next_worker();
        Task *t = submit(b, "x");
        while (sem_wait(&has_stopped) != 0)
                ;
        queue_pause(b->queue);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        ck_assert_uint_eq(b->n_started, 1);
        ck_assert(!plugin_executor_times(t, &begun, &seen));
        ck_assert_uint_eq(load_relaxed(&b->mark), 0);
        sem_post(&go_on);
        UNTIL(b, b->n_ended == 1);
        ck_assert_uint_eq(load_relaxed(&b->mark), 1);
}

/* Until the thread whose state is in that file sleeps. */
static void until_it_sleeps(const char *stat) {
        char text[256], *end;
        do {
                FILE *f = fopen(stat, "re");
                ck_assert(f && fgets(text, sizeof(text), f));
                (void)fclose(f);
                end = strrchr(text, ')');
        } while (!end || end[2] != 'S');
}

/* Lets the worker go on then. */
static void *go_on_when_it_sleeps(void *stat) {
        until_it_sleeps(stat);
        sem_post(&go_on);
        return NULL;
}

TEST(who_awaits_the_begin_of_a_task_sleeps_and_finds_its_mark) {
        char stat[64];
        pthread_t thread;
        BENCH("trial", NULL, 1);
        snprintf(stat, sizeof(stat), "/proc/self/task/%d/stat", (int)syscall(SYS_gettid));
        for (unsigned i = 1; i <= 20; i++) {
                stop_next_worker();
                Task *t = submit(b, "x");
                while (sem_wait(&has_stopped) != 0)
                        ;
                queue_look(b->queue);
                ck_assert_int_eq(t->state, EQ_STATE_QUEUED);
                queue_recall(b->queue);
                ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
                ck_assert_int_eq(pthread_create(&thread, NULL, go_on_when_it_sleeps, stat), 0);
                plugin_executor_await_begin(b->x, t);
                ck_assert_uint_eq(load_relaxed(&b->mark), i);
                plugin_executor_await_begin(b->x, t); /* it has */
                ck_assert_int_eq(pthread_join(thread, NULL), 0);
                UNTIL(b, b->n_ended == i);
        }
}

static ATOMIC(uint64_t) * begun_unseen;

/* A begin whose thread has not seen that it is awaited, so that nobody is woken. */
static void *begin_when_it_sleeps(void *stat) {
        until_it_sleeps(stat);
        store_release(begun_unseen, 1);
        return NULL;
}

TEST(without_membarrier_who_awaits_a_begin_is_not_dependent_on_being_told) {
        char stat[64];
        pthread_t thread;
        fault_set(FAULT_FENCE, 1, true);
        BENCH("trial", NULL, 1);
        snprintf(stat, sizeof(stat), "/proc/self/task/%d/stat", (int)syscall(SYS_gettid));
        stop_next_worker();
        Task *t = submit(b, "x");
        while (sem_wait(&has_stopped) != 0)
                ;
        queue_look(b->queue);
        queue_recall(b->queue);
        ck_assert_int_eq(t->state, EQ_STATE_RUNNING);
        begun_unseen = &((PluginTask *)t->slot->executor_data)->life.begun_usec;
        ck_assert_int_eq(pthread_create(&thread, NULL, begin_when_it_sleeps, stat), 0);
        plugin_executor_await_begin(b->x, t);
        ck_assert_uint_eq(load_relaxed(begun_unseen), 1);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        sem_post(&go_on);
        UNTIL(b, b->n_ended == 1);
}

RUN_TESTS("plugin", 60, test_a_task_is_run_with_its_payload_and_its_result_told,
          test_tasks_run_in_order_urgent_ones_first, test_thousands_of_tasks_run_each_once_in_order,
          test_cancel_is_0_before_1_while_and_minus_1_after, test_a_running_task_that_is_stopped_and_fails_is_canceled,
          test_T_PSI_under_pressure_batches_are_half_as_long,
          test_T_CPU_those_that_burn_are_counted_and_told_as_the_kernel_does,
          test_a_pause_keeps_back_what_was_handed_over,
          test_a_stop_calls_once_with_stopped_after_everything_and_the_join_comes_after_that,
          test_no_more_than_max_active_run_at_once, test_nonsense_is_answered_and_ends_as_a_failed_task,
          test_without_its_flag_a_plugin_may_not_defer, test_a_failure_that_is_tried_again_holds_back_those_behind_it,
          test_a_queue_that_moves_is_opened_on_the_threads_of_its_new_pool,
          test_a_plugin_that_takes_nothing_stands_still_and_can_be_replaced,
          test_a_plugin_that_cannot_be_opened_says_why_and_is_tried_again,
          test_other_text_closes_and_opens_again_and_deferred_ones_have_failed, test_the_same_again_changes_nothing,
          test_what_a_task_submits_is_told_before_its_end, test_a_submit_returns_whoever_is_stopped_in_the_middle,
          test_without_memory_a_submit_is_refused, test_a_queue_is_removed_while_its_plugin_is_being_opened,
          test_memory_that_fails_once_loses_no_task, test_without_memory_descriptor_or_thread_a_queue_is_refused,
          test_a_refused_worker_is_the_reason_until_there_is_one,
          test_E2_the_thread_of_a_dedicated_queue_has_the_stack_and_nice_level_of_its_pool,
          test_a_pause_does_not_wait_for_a_thread_that_is_just_beginning_a_task,
          test_who_awaits_the_begin_of_a_task_sleeps_and_finds_its_mark,
          test_without_membarrier_who_awaits_a_begin_is_not_dependent_on_being_told)
