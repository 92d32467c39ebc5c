/* SPDX-License-Identifier: MIT */
/* The scenarios of the rescuer on real threads: engine, plugin executor, its workers, their manager and the rescuers are those of
 * eqd, and only time is the test's. A task that a thread has begun stands at a gate until the clock of the test is where it
 * ends. Before the clock moves, everything that can happen at its moment has happened: settle().
 *
 * That a thread cannot be made is the seam of threads; the manager asks again at once, so that it is the test that says when one
 * can be made again. The rescuer that takes all at once, for comparison, is in rescuer-test.c. */

#include "executor/plugin.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "executor/pluginrun.h"
#include "rescue.h"
#include "test.h"

#define MSEC USEC_PER_MSEC
#define SEC USEC_PER_SEC

enum { JOBS_MAX = 10200, QUEUES_MAX = 4 };

typedef struct Job {
        Task task; /* first */
        uint64_t takes_usec, submitted_usec, started_usec, ended_usec;
        uint64_t end_usec; /* it ends then; 0: it does not stand at its gate */
        bool by_rescuer;
        unsigned n_starts;
        struct Job *next; /* World::begun */
        sem_t gate;
} Job;

typedef struct World {
        FakeClock clock;
        uv_loop_t loop;
        uv_timer_t keep;
        Engine engine;
        PluginExecutor *x;
        Pool *pool;
        PluginLibrary *library;
        Queue *queues[QUEUES_MAX], *a, *b;
        size_t n_queues, n_opened;
        Rescuer *rescuer;
        bool faulted;
        unsigned n_max;
        WorkersParams params;
        uint64_t start_usec, heal_usec;
        Job *jobs;
        size_t n_jobs, n_ended, n_released;
        size_t n_mayday_hooks, n_relieved_hooks;
        Starts starts; /* order: of a */
} World;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Job *begun, **begun_end = &begun; /* lock; in the order of their begin */
static atomic_uint n_at_workers, n_at_rescuers;
static unsigned batch_max = 64;

/* ---- the plugin ---- */

static bool is_rescuer(void) {
        char name[16];
        return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 && strncmp(name, "eqw/R-", 6) == 0;
}

static int gate_open(const eq_plugin_api *api, eq_plugin_host *host, const eq_plugin_config *config, void **ret) {
        *ret = (void *)api;
        return 0;
}

static void gate_execute(void *instance, const eq_plugin_meta *meta, eq_plugin_batch *b) {
        const eq_plugin_api *api = instance;
        bool rescuer = is_rescuer();
        atomic_uint *n = rescuer ? &n_at_rescuers : &n_at_workers;
        for (const eq_plugin_task *t; (t = api->next(b));) {
                Job *j;
                memcpy(&j, t->payload, sizeof(j));
                pthread_mutex_lock(&lock);
                j->by_rescuer = rescuer;
                j->next = NULL;
                *begun_end = j;
                begun_end = &j->next;
                pthread_mutex_unlock(&lock);
                ck_assert(!rescuer || !api->more(b));
                atomic_fetch_add(n, 1);
                while (sem_wait(&j->gate) != 0)
                        ;
                atomic_fetch_sub(n, 1);
                (void)api->ok(t, NULL, 0);
        }
}

static void gate_close(void *instance) {
}

static const eq_plugin gate_plugin = {
        .abi = EQ_PLUGIN_ABI, .name = "gate", .open = gate_open, .execute = gate_execute, .close = gate_close
};

/* ---- the host ---- */

static uint64_t since(const World *w) {
        return engine_now(&w->engine) - w->start_usec;
}

static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        return (TaskFate) { .event = TASK_EV_RETURN };
}
static void on_finished(void *host, Task *t) {
        World *w = host;
        ((Job *)t)->ended_usec = since(w);
        w->n_ended += t->state == EQ_STATE_DONE;
}
static void on_mayday(void *host, Queue *q) {
        ((World *)host)->n_mayday_hooks++;
}
static void on_relieved(void *host, Queue *q, uint64_t lasted_usec, uint64_t n) {
        ((World *)host)->n_relieved_hooks++;
}
static const EngineHooks hooks = {
        .ended = on_ended, .finished = on_finished, .mayday = on_mayday, .relieved = on_relieved
};

static int on_prepare(void *host, Task *t, PluginOrder *ret) {
        static Job *payloads[JOBS_MAX]; /* its own address is what a job is told */
        World *w = host;
        size_t i = (size_t)((Job *)t - w->jobs);
        payloads[i] = (Job *)t;
        *ret = (PluginOrder) { .payload = eq_bytes((const char *)&payloads[i], sizeof(payloads[i])) };
        return 0;
}
static void on_opened(void *host, Queue *q, const char *error) {
        ((World *)host)->n_opened++;
}
static void on_queue_ended(void *host, Queue *q) {
}
static void on_left(void *host, Pool *p) {
}
static const PluginHooks plugin_hooks = {
        .prepare = on_prepare, .opened = on_opened, .ended = on_queue_ended, .left = on_left
};

/* ---- what can happen at this moment ---- */

static bool something_could_begin(const World *w) {
        bool more = false;
        for (size_t i = 0; i < w->n_queues; i++) {
                Queue *q = w->queues[i];
                queue_look(q);
                more |= q->n_handed > 0 && q->n_running < q->params.max_active;
        }
        return more;
}

static size_t n_busy_rescuers(const World *w) {
        size_t n = 0;
        LIST_FOREACH (link, &w->engine.rescuers)
                n += rescuer_is_busy(LIST_ENTRY(link, Rescuer, link));
        return n;
}

static size_t n_running(const World *w) {
        size_t n = 0;
        for (size_t i = 0; i < w->n_queues; i++)
                n += w->queues[i]->n_running;
        return n;
}

static bool is_settled(const World *w) {
        PluginPoolStats stats = plugin_pool_stats(w->pool);
        unsigned at_workers = atomic_load(&n_at_workers), at_rescuers = atomic_load(&n_at_rescuers);
        bool more = something_could_begin(w);
        if (w->n_ended != w->n_released || stats.n_idle + at_workers != stats.n_workers ||
            n_busy_rescuers(w) != at_rescuers || n_running(w) != at_workers + at_rescuers)
                return false;
        if (stats.n_idle > 0)
                return !more;
        if (stats.n_workers < w->n_max && (!w->faulted || w->pool->create_error == 0))
                return false; /* one more is being made, or about to be refused */
        return !w->pool->is_quiet;
}

static void note_begun(World *w) {
        pthread_mutex_lock(&lock);
        Job *j = begun;
        begun = NULL;
        begun_end = &begun;
        pthread_mutex_unlock(&lock);
        for (; j; j = j->next) {
                j->n_starts++;
                j->started_usec = since(w);
                j->end_usec = engine_now(&w->engine) + j->takes_usec;
                if (j->task.queue == w->a)
                        starts_note_order(&w->starts, &j->task);
                if (j->by_rescuer)
                        starts_note_turn(&w->starts, &j->task);
        }
}

static void settle(World *w) {
        do {
                uv_run(&w->loop, UV_RUN_NOWAIT);
                sched_yield();
        } while (!is_settled(w));
        note_begun(w);
}

static void release(World *w, Job *j) {
        j->end_usec = 0;
        w->n_released++;
        sem_post(&j->gate);
}

static Job *next_end(World *w) {
        Job *first = NULL;
        for (size_t i = 0; i < w->n_jobs; i++)
                if (w->jobs[i].end_usec != 0 && (!first || w->jobs[i].end_usec < first->end_usec))
                        first = &w->jobs[i];
        return first;
}

static void run_until(World *w, uint64_t usec) {
        for (;;) {
                settle(w);
                Job *j = next_end(w);
                uint64_t timer = engine_next_usec(&w->engine), at = MIN(w->start_usec + usec, timer);
                at = MIN(at, j ? j->end_usec : USEC_NEVER);
                if (w->faulted)
                        at = MIN(at, w->heal_usec);
                if (at > engine_now(&w->engine))
                        fake_clock_advance(&w->clock, at - engine_now(&w->engine));
                if (w->faulted && w->heal_usec <= at) {
                        w->faulted = false;
                        fault_set(FAULT_WORKER, 0, false);
                } else if (j && j->end_usec <= at)
                        release(w, j);
                else if (timer <= at)
                        engine_run_due(&w->engine);
                else if (at >= w->start_usec + usec)
                        return;
        }
}

/* ---- the world ---- */

static void never(uv_timer_t *timer) {
        ck_abort_msg("it did not come");
}

static Queue *add_queue(World *w, const char *name, uint64_t max_active) {
        QueueParams p = { .max_active = max_active, .max_tasks = 1000000, .max_bytes = 1 << 30 };
        PluginSetup setup = { .library = w->library, .text = "", .calls.batch_max = batch_max };
        Queue *q;
        ck_assert_int_eq(queue_new(&w->engine, w->pool, name, &p, 0, &q), 0);
        ck_assert_int_eq(plugin_executor_add_queue(w->x, q, &setup), 0);
        return w->queues[w->n_queues++] = q;
}

static void until_opened(World *w) {
        while (w->n_opened < w->n_queues)
                uv_run(&w->loop, UV_RUN_ONCE);
}

static World *world_new(unsigned n_min, unsigned n_max) {
        World *w = calloc(1, sizeof(*w));
        WorkersParams p = WORKERS_PARAMS_DEFAULT;
        p.min = p.max = n_min;
        w->n_max = n_max;
        p.create_cooldown_usec = 500;
        p.idle_timeout_usec = USEC_NEVER;
        w->jobs = calloc(JOBS_MAX, sizeof(*w->jobs));
        w->library = calloc(1, sizeof(*w->library) + 1);
        w->library->n_refs = 1;
        w->library->entry = &gate_plugin;
        fake_clock_init(&w->clock, 1000 * SEC, 0);
        ck_assert_int_eq(uv_loop_init(&w->loop), 0);
        uv_timer_init(&w->loop, &w->keep);
        uv_timer_start(&w->keep, never, 300000, 0);
        ck_assert_int_eq(engine_init(&w->engine, &w->clock.clock, &hooks, w), 0);
        ck_assert_int_eq(plugin_executor_new(&w->loop, &w->engine, &plugin_hooks, w, &w->x), 0);
        ck_assert_int_eq(pool_new(&w->engine, "threads", POOL_THREAD, plugin_executor(w->x), SIZE_MAX, &w->pool), 0);
        ck_assert_int_eq(plugin_pool_new(w->pool, &p), 0);
        w->params = p;
        w->start_usec = engine_now(&w->engine);
        return w;
}

static Rescuer *make_rescuer(World *w, const char *name) {
        Rescuer *r;
        ck_assert_int_eq(rescuer_new(&w->engine, POOL_THREAD, plugin_executor(w->x), name, &r), 0);
        return r;
}

/* A has a rescuer and so much at once; B has none. Both are open, and all n_min threads there. */
static World *world_open(unsigned n_min, unsigned n_max, uint64_t a_max_active) {
        World *w = world_new(n_min, n_max);
        w->a = add_queue(w, "A", a_max_active);
        w->b = add_queue(w, "B", 256);
        until_opened(w);
        w->rescuer = make_rescuer(w, "A");
        queue_set_rescuer(w->a, w->rescuer);
        while (plugin_pool_stats(w->pool).n_idle < n_min)
                sched_yield();
        w->params.max = n_max; /* not before, as all are busy for a moment at the start */
        plugin_pool_set(w->pool, &w->params);
        return w;
}

static void fail_until(World *w, uint64_t usec) {
        w->faulted = true;
        w->heal_usec = usec == USEC_NEVER ? usec : w->start_usec + usec;
        fault_set(FAULT_WORKER, 1, true);
}

static void world_free(World *w) {
        w->heal_usec = 0;
        bool over;
        do {
                run_until(w, since(w) + 20 * SEC);
                over = true;
                for (size_t i = 0; i < w->n_queues; i++)
                        over &= queue_is_empty(w->queues[i]);
        } while (!over);
        for (size_t i = 0; i < w->n_queues; i++)
                queue_set_rescuer(w->queues[i], NULL);
        rescuer_free(w->rescuer);
        plugin_executor_close(w->x);
        ck_assert(list_is_empty(&w->engine.rescuers));
        plugin_pool_free(w->pool);
        engine_deinit(&w->engine);
        w->x = plugin_executor_free(w->x);
        uv_close((uv_handle_t *)&w->keep, NULL);
        uv_run(&w->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&w->loop), 0);
        ck_assert_uint_eq(w->library->n_refs, 1);
        free(w->library);
        free(w->jobs);
        free(w);
}
static void world_freep(World **w) {
        world_free(*w);
}
#define WORLD(w, ...) _cleanup_(world_freep) World *w = world_open(__VA_ARGS__)

static Job *submit(World *w, Queue *q, uint64_t takes_usec) {
        uint64_t seq;
        ck_assert_uint_lt(w->n_jobs, JOBS_MAX);
        Job *j = &w->jobs[w->n_jobs++];
        ck_assert_int_eq(queue_reserve(q, 1, 10, &seq), 0);
        sem_init(&j->gate, 0, 0);
        task_init(&j->task, seq, TASK_LANE_NORMAL, 10);
        j->takes_usec = takes_usec;
        j->submitted_usec = since(w);
        queue_push(q, &j->task);
        return j;
}

static void block_workers(World *w, size_t n, uint64_t usec) {
        for (size_t i = 0; i < n; i++)
                submit(w, w->b, usec);
        run_until(w, since(w));
        ck_assert_uint_ge(atomic_load(&n_at_workers), n);
}

/* libuv keeps two descriptors from the first loop on, which are no leak of a test. */
__attribute__((constructor)) static void before_tests(void) {
        uv_loop_t loop;
        if (uv_loop_init(&loop) == 0)
                (void)uv_loop_close(&loop);
}

/* ---- scenario 1 and its variants ---- */

/* Four workers are blocked for 10 s. */
static Figures run_s1(World *w, uint64_t fails_usec, uint64_t until_usec) {
        uint64_t ends[S1_TASKS];
        if (fails_usec > 0)
                fail_until(w, fails_usec);
        block_workers(w, 4, 10 * SEC);
        Job *first = w->jobs + w->n_jobs;
        for (int i = 1; i <= 100; i++)
                submit(w, w->a, i == 3 ? 5 * SEC : 10 * MSEC);
        run_until(w, until_usec);
        for (int i = 0; i < 100; i++) {
                ck_assert_uint_eq(first[i].n_starts, 1);
                ck_assert_int_eq(first[i].task.state, EQ_STATE_DONE);
                ends[i] = first[i].ended_usec;
        }
        Figures f = figures_of(ends);
        printf("# first %.3f, p50 %.3f, last %.3f, third %.3f s, rescued %lu, mayday %lu\n", (double)f.first / SEC,
               (double)f.p50 / SEC, (double)f.last / SEC, (double)f.third / SEC, (unsigned long)w->a->n_rescued,
               (unsigned long)w->a->n_mayday);
        return f;
}

static size_t n_by_rescuer(const World *w) {
        size_t n = 0;
        for (size_t i = 0; i < w->n_jobs; i++)
                n += w->jobs[i].by_rescuer;
        return n;
}

TEST(S1_one_task_that_blocks_the_rescuer_does_not_hold_the_others) {
        WORLD(w, 4, 8, 256);
        Figures f = run_s1(w, SEC, 12 * SEC); /* it fails for 0.9 s, and is tried again when 1 s is over */
        ck_assert_uint_lt(f.last, 2500 * MSEC);
        ck_assert_uint_lt(f.first, 200 * MSEC);
        ck_assert_uint_ge(f.third, 5000 * MSEC);
        ck_assert_uint_le(f.third, 5400 * MSEC);
        ck_assert_uint_ge(w->a->n_rescued, 2);
        ck_assert_uint_le(w->a->n_rescued, 6);
        ck_assert_uint_eq(w->a->n_rescued, n_by_rescuer(w));
        ck_assert_uint_eq(w->pool->n_rescued, w->a->n_rescued);
        ck_assert_uint_eq(w->a->n_mayday, w->pool->n_mayday);
        ck_assert_uint_eq(w->n_mayday_hooks, w->n_relieved_hooks);
        ck_assert_uint_eq(plugin_pool_stats(w->pool).n_workers, 8);
        ck_assert(!queue_is_rescued(w->a));
}

TEST(S1_without_a_rescuer_nothing_goes_on_before_a_worker_is_made) {
        WORLD(w, 4, 8, 256);
        queue_set_rescuer(w->a, NULL);
        Figures f = run_s1(w, SEC, 12 * SEC);
        ck_assert_uint_ge(f.first, 1000 * MSEC);
        ck_assert_uint_eq(w->a->n_mayday + w->a->n_rescued, 0);
        ck_assert_uint_eq(n_by_rescuer(w), 0);
}

TEST(S1_tasks_start_in_order) {
        WORLD(w, 4, 8, 1);
        char expected[512] = "";
        size_t n = 0;
        fail_until(w, SEC);
        block_workers(w, 4, 10 * SEC);
        Job *first = w->jobs + w->n_jobs;
        for (int i = 0; i < 60; i++)
                submit(w, w->a, 60 * MSEC);
        run_until(w, 6 * SEC);
        for (int i = 1; i <= 60; i++)
                n += (size_t)snprintf(expected + n, sizeof(expected) - n, "%s%d", n ? " " : "", i);
        ck_assert_str_eq(w->starts.order, expected);
        for (int i = 1; i < 60; i++)
                ck_assert_uint_ge(first[i].started_usec,
                                  first[i - 1].ended_usec); /* and one at a time, as it is serial */
        ck_assert_uint_ge(w->a->n_rescued, 14);
        ck_assert_uint_le(w->a->n_rescued, 18);
}

TEST(S2_no_hostages_with_a_small_max_active) {
        WORLD(w, 4, 8, 16);
        ck_assert_uint_lt(run_s1(w, SEC, 12 * SEC).last, 2500 * MSEC);
}

TEST(S3_one_new_worker_is_enough) {
        WORLD(w, 4, 5, 256);
        ck_assert_uint_lt(run_s1(w, SEC, 12 * SEC).last, 3000 * MSEC);
}

TEST(S4_alone_the_rescuer_does_it) {
        WORLD(w, 4, 8, 256);
        Figures f = run_s1(w, 12 * SEC, 7 * SEC);
        ck_assert_uint_lt(f.last, 7 * SEC);
        ck_assert_uint_eq(w->a->n_rescued, 100);
        ck_assert_uint_eq(n_by_rescuer(w), 100);
}

TEST(S4_while_it_is_blocked_the_oldest_pending_task_is_the_one_behind) {
        WORLD(w, 4, 8, 256);
        fail_until(w, 12 * SEC);
        block_workers(w, 4, 10 * SEC);
        Job *first = w->jobs + w->n_jobs;
        for (int i = 1; i <= 100; i++)
                submit(w, w->a, i == 3 ? 5 * SEC : 10 * MSEC);
        run_until(w, 2 * SEC);
        ck_assert_uint_eq(queue_oldest(w->a)->seq, 4);
        ck_assert(queue_is_rescued(w->a));
        ck_assert(rescuer_is_busy(w->rescuer));
        ck_assert_uint_eq(w->a->n_rescued, 3); /* the one that it is at counts */
        ck_assert_uint_eq(w->pool->n_rescuing, 1);
        ck_assert_int_eq(queue_reason(w->a, &first[3].task, NULL), EQ_REASON_CREATE_FAILURE);
}

TEST(S5_tasks_of_others_cost_the_search_nothing) {
        enum { N = 10000, M = 100 };
        WORLD(w, 4, 8, 256);
        fail_until(w, USEC_NEVER);
        for (int i = 0; i < N; i++)
                submit(w, w->b, 100 * SEC);
        run_until(w, since(w));
        Job *first = w->jobs + w->n_jobs;
        for (int i = 0; i < M; i++)
                submit(w, w->a, MSEC);
        run_until(w, 2 * SEC);
        ck_assert_uint_ne(first[M - 1].ended_usec, 0);
        ck_assert_uint_le(first[M - 1].ended_usec, 1100 * MSEC);
        ck_assert_uint_le(w->rescuer->n_scan_steps, 2 * (N + M));
        for (int i = 0; i < N; i++)
                if (task_is_pending(&w->jobs[i].task))
                        (void)queue_cancel(w->b, &w->jobs[i].task);
}

TEST(S6_without_a_failure_nobody_is_rescued) {
        WORLD(w, 4, 8, 256);
        Figures f = run_s1(w, 0, 12 * SEC);
        ck_assert_uint_eq(w->a->n_mayday, 0);
        ck_assert_uint_eq(w->a->n_rescued, 0);
        ck_assert_uint_lt(f.last, 400 * MSEC);
}

TEST(S7_what_the_rescuer_has_not_claimed_can_be_canceled) {
        WORLD(w, 4, 8, 256);
        fail_until(w, 12 * SEC);
        block_workers(w, 4, 10 * SEC);
        Job *first = w->jobs + w->n_jobs;
        for (int i = 1; i <= 100; i++)
                submit(w, w->a, i == 3 ? 5 * SEC : 10 * MSEC);
        run_until(w, SEC);
        ck_assert_int_eq(queue_cancel(w->a, &first[49].task), 0);
        ck_assert_int_eq(queue_cancel(w->a, &first[2].task), 1);
        ck_assert_int_eq(queue_cancel(w->a, &first[0].task), -1);
        run_until(w, 12 * SEC);
        ck_assert_uint_eq(first[49].n_starts, 0);
        ck_assert_uint_eq(first[99].n_starts, 1);
        ck_assert_uint_eq(w->a->n_rescued, 99);
}

TEST(S8_each_relapse_is_noticed_at_once) {
        WORLD(w, 4, 8, 256);
        fail_until(w, USEC_NEVER);
        for (uint64_t burst = 1; burst <= 20; burst++) {
                run_until(w, burst * 200 * MSEC);
                uint64_t before = w->a->n_rescued;
                for (int i = 0; i < 4; i++)
                        submit(w, w->b, 150 * MSEC);
                run_until(w, since(w)); /* they are with the workers */
                Job *first = w->jobs + w->n_jobs;
                for (int i = 0; i < 10; i++)
                        submit(w, w->a, MSEC);
                run_until(w, burst * 200 * MSEC + 190 * MSEC);
                ck_assert_uint_eq(w->a->n_rescued - before, 10);
                ck_assert(first->by_rescuer);
                ck_assert_uint_le(first->started_usec - first->submitted_usec, 40 * MSEC);
        }
        ck_assert_uint_eq(w->n_relieved_hooks, 20);
}

TEST(S9_queues_that_share_a_rescuer_take_turns) {
        WORLD(w, 4, 8, 256);
        Queue *c = add_queue(w, "C", 256);
        until_opened(w);
        queue_set_rescuer(c, w->rescuer);
        fail_until(w, 10 * SEC);
        block_workers(w, 4, 10 * SEC);
        for (int i = 0; i < 100; i++)
                submit(w, w->a, 5 * MSEC);
        for (int i = 0; i < 100; i++)
                submit(w, c, 5 * MSEC);
        run_until(w, 3 * SEC);
        ck_assert_uint_eq(w->a->n_rescued, 100);
        ck_assert_uint_eq(c->n_rescued, 100);
        ck_assert_uint_eq(starts_longest_turn(&w->starts), 16);
        ck_assert_uint_eq(w->n_relieved_hooks, 2);
}

TEST(S11_a_rescuer_whose_thread_or_memory_is_refused_is_an_error_and_leaves_nothing) {
        WORLD(w, 1, 1, 1);
        Rescuer *r = NULL;
        fault_set(FAULT_WORKER, 1, false);
        ck_assert_int_eq(rescuer_new(&w->engine, POOL_THREAD, plugin_executor(w->x), "x", &r), -EAGAIN);
        for (long nth = 1; nth <= 4; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                int e = rescuer_new(&w->engine, POOL_THREAD, plugin_executor(w->x), "x", &r);
                ck_assert(e == 0 || e == -ENOMEM);
                r = e == 0 ? rescuer_free(r) : NULL;
                fault_set(FAULT_ALLOC, 0, false);
        }
        Rescuer *all[PLUGIN_RESERVES_MAX];
        for (size_t i = 1; i < PLUGIN_RESERVES_MAX; i++)
                all[i] = make_rescuer(w, "x");
        ck_assert_int_eq(rescuer_new(&w->engine, POOL_THREAD, plugin_executor(w->x), "x", &r), -ENOSPC);
        for (size_t i = 1; i < PLUGIN_RESERVES_MAX; i++)
                rescuer_free(all[i]);
}

/* ---- what the scenarios do not show ---- */

/* With batches of one, as turns are measured by a clock that is not the test's. */
TEST(a_full_pool_calls_after_a_delay_in_which_nothing_began) {
        batch_max = 1;
        WORLD(w, 4, 4, 256);
        block_workers(w, 3, 10 * SEC);
        for (int i = 0; i < 8; i++) /* the fourth worker goes from one to the next */
                submit(w, w->b, 300 * MSEC);
        for (int i = 0; i < 3; i++)
                submit(w, w->a, 300 * MSEC);
        run_until(w, 4 * SEC);
        ck_assert_uint_eq(w->a->n_mayday, 0);
        block_workers(w, 1, 10 * SEC);
        Job *first = w->jobs + w->n_jobs;
        for (int i = 0; i < 3; i++)
                submit(w, w->a, 10 * MSEC);
        ck_assert_int_eq(queue_reason(w->a, &first->task, NULL), EQ_REASON_POOL_FULL);
        run_until(w, 4990 * MSEC);
        ck_assert_uint_eq(w->a->n_mayday, 0);
        run_until(w, 5200 * MSEC);
        ck_assert_uint_eq(w->a->n_rescued, 3);
}

TEST(rescue_on_says_when) {
        WORLD(w, 4, 4, 256);
        QueueParams p = w->a->params;
        p.rescue_on = RESCUE_ON_CREATE_FAILURE;
        queue_set_params(w->a, &p);
        block_workers(w, 4, 10 * SEC);
        submit(w, w->a, 10 * MSEC);
        run_until(w, 3 * SEC);
        ck_assert_uint_eq(w->a->n_rescued, 0);
        p.rescue_on = RESCUE_ON_POOL_FULL;
        queue_set_params(w->a, &p);
        run_until(w, 5 * SEC);
        ck_assert_uint_eq(w->a->n_rescued, 1);
}

TEST(a_rescuer_leaves_when_a_worker_is_idle) {
        WORLD(w, 4, 8, 256);
        fail_until(w, USEC_NEVER);
        block_workers(w, 4, 50 * MSEC);
        for (int i = 0; i < 20; i++)
                submit(w, w->a, 10 * MSEC);
        run_until(w, SEC);
        ck_assert_uint_ge(w->a->n_rescued, 3);
        ck_assert_uint_le(w->a->n_rescued, 10);
        ck_assert(!queue_is_rescued(w->a));
        ck_assert_uint_eq(w->a->n_rescued, n_by_rescuer(w));
}

TEST(the_rescuer_opens_a_plugin_for_which_there_is_no_thread) {
        WORLD(w, 4, 8, 256);
        Rescuer *own = make_rescuer(w, "C");
        fail_until(w, 2 * SEC);
        block_workers(w, 4, 10 * SEC);
        Queue *c = add_queue(w, "C", 1);
        queue_set_rescuer(c, own);
        Job *j = submit(w, c, MSEC);
        run_until(w, SEC);
        ck_assert_uint_ne(j->ended_usec, 0);
        ck_assert(j->by_rescuer);
        ck_assert_uint_eq(c->n_rescued, 1);
        queue_set_rescuer(c, NULL);
        rescuer_free(own);
}

TEST(a_queue_may_lose_its_rescuer_while_that_is_at_work) {
        WORLD(w, 4, 8, 256);
        fail_until(w, 4 * SEC);
        block_workers(w, 4, 3 * SEC);
        Job *first = submit(w, w->a, SEC), *second = submit(w, w->a, SEC);
        run_until(w, 500 * MSEC);
        ck_assert(rescuer_is_busy(w->rescuer));
        queue_set_rescuer(w->a, NULL);
        w->rescuer = rescuer_free(w->rescuer);
        ck_assert(!list_is_empty(&w->engine.rescuers));
        run_until(w, 2500 * MSEC);
        ck_assert_uint_ne(first->ended_usec, 0);
        ck_assert(list_is_empty(&w->engine.rescuers));
        ck_assert_int_eq(second->task.state, EQ_STATE_QUEUED);
}

/* Its instance runs one task with the rescuer, and is to be closed and opened on the threads of another pool meanwhile. */
TEST(the_pool_stays_until_a_rescuer_that_helped_there_is_through) {
        WORLD(w, 4, 8, 256);
        fail_until(w, 4 * SEC);
        block_workers(w, 4, 3 * SEC);
        Job *first = submit(w, w->a, SEC), *second = submit(w, w->a, MSEC);
        run_until(w, 500 * MSEC);
        ck_assert(first->by_rescuer);
        PluginSetup again = { .library = w->library, .text = "other", .calls.batch_max = 64 };
        ck_assert_int_eq(plugin_executor_change_queue(w->x, w->a, &again), 0);
        ck_assert(plugin_pool_is_used(w->pool));
        run_until(w, 5 * SEC);
        ck_assert_int_eq(first->task.state, EQ_STATE_DONE);
        ck_assert_int_eq(second->task.state, EQ_STATE_DONE);
        ck_assert_uint_eq(w->pool->n_rescuing, 0);
}

TEST(the_end_of_the_executor_waits_for_a_rescuer_at_work) {
        World *w = world_open(4, 8, 256);
        fail_until(w, USEC_NEVER);
        block_workers(w, 4, SEC);
        Job *j = submit(w, w->a, SEC);
        run_until(w, 500 * MSEC);
        ck_assert(j->by_rescuer && rescuer_is_busy(w->rescuer));
        queue_set_rescuer(w->a, NULL);
        w->rescuer = rescuer_free(w->rescuer);
        for (size_t i = 0; i < w->n_jobs; i++)
                release(w, &w->jobs[i]);
        fault_set(FAULT_WORKER, 0, false);
        plugin_executor_close(w->x);
        ck_assert_int_eq(j->task.state, EQ_STATE_DONE);
        ck_assert(list_is_empty(&w->engine.rescuers));
        plugin_pool_free(w->pool);
        engine_deinit(&w->engine);
        w->x = plugin_executor_free(w->x);
        uv_close((uv_handle_t *)&w->keep, NULL);
        uv_run(&w->loop, UV_RUN_DEFAULT);
        ck_assert_int_eq(uv_loop_close(&w->loop), 0);
        free(w->library);
        free(w->jobs);
        free(w);
}

RUN_TESTS("threadrescue", 120, test_S1_one_task_that_blocks_the_rescuer_does_not_hold_the_others,
          test_S1_without_a_rescuer_nothing_goes_on_before_a_worker_is_made, test_S1_tasks_start_in_order,
          test_S2_no_hostages_with_a_small_max_active, test_S3_one_new_worker_is_enough,
          test_S4_alone_the_rescuer_does_it, test_S4_while_it_is_blocked_the_oldest_pending_task_is_the_one_behind,
          test_S5_tasks_of_others_cost_the_search_nothing, test_S6_without_a_failure_nobody_is_rescued,
          test_S7_what_the_rescuer_has_not_claimed_can_be_canceled, test_S8_each_relapse_is_noticed_at_once,
          test_S9_queues_that_share_a_rescuer_take_turns,
          test_S11_a_rescuer_whose_thread_or_memory_is_refused_is_an_error_and_leaves_nothing,
          test_a_full_pool_calls_after_a_delay_in_which_nothing_began, test_rescue_on_says_when,
          test_a_rescuer_leaves_when_a_worker_is_idle, test_the_rescuer_opens_a_plugin_for_which_there_is_no_thread,
          test_a_queue_may_lose_its_rescuer_while_that_is_at_work,
          test_the_pool_stays_until_a_rescuer_that_helped_there_is_through,
          test_the_end_of_the_executor_waits_for_a_rescuer_at_work)
