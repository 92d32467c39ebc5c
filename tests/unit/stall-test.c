/* SPDX-License-Identifier: MIT */
/* The scenarios of the stall watch, on a real engine with a clock that stands: looks come when the watch asks for them. */

#include "engine/stall.h"

#include <errno.h>

#include "rig.h"

enum { SEC = 1000000 };

typedef struct Scene {
        Rig *rig;
        Stall stall;
        uint64_t start_usec, next_usec, sleep_usec;
        char text[1 << 16]; /* "2.0 pool begin ...;" a report each, time since the start */
        size_t n[STALL_PANIC + 1][3];
        StallReport last, first[STALL_PANIC + 1]; /* first: of a phase `begin` */
        uint64_t cpu_usec[64];                    /* by slot */
        size_t n_cpu_looks;
        uint64_t thread_cpu_usec[4]; /* by tid */
        double burns;                /* so much of its time thread 1 uses */
} Scene;

static const char *const kinds[] = { "pool", "queue", "hung", "suppressed", "part", "hog", "jump", "panic" };
static const char *const phases[] = { "begin", "repeat", "end" };

static double seconds(const Scene *s) {
        return (double)(engine_now(&s->rig->engine) - s->start_usec) / SEC;
}

static void on_report(void *host, const StallReport *r) {
        Scene *s = host;
        size_t len = strlen(s->text);
        snprintf(s->text + len, sizeof(s->text) - len, "%.1f %s %s %s/%lu %s %.1f;", seconds(s), kinds[r->kind],
                 phases[r->phase], r->queue, (unsigned long)r->seq, eq_reason_name(r->reason),
                 (double)r->stuck_usec / SEC);
        s->n[r->kind][r->phase]++;
        s->last = *r;
        if (r->phase == STALL_BEGIN)
                s->first[r->kind] = *r;
}

static uint64_t on_cpu(void *host, const WatchSlot *slot) {
        Scene *s = host;
        s->n_cpu_looks++;
        return s->cpu_usec[WATCH_GET(slot->index)];
}

static uint64_t on_thread_cpu(void *host, uint64_t tid) {
        const Scene *s = host;
        return s->thread_cpu_usec[tid];
}

static const StallHooks hooks = { .report = on_report, .cpu_usec = on_cpu, .thread_cpu_usec = on_thread_cpu };

static void scene_set(Scene *s, uint64_t pool_usec, uint64_t queue_usec, uint64_t expected_usec, uint64_t max_active) {
        QueueParams p = s->rig->queue->params;
        p.stall_thresh_usec = queue_usec;
        p.expected_runtime_usec = expected_usec;
        p.max_active = max_active;
        queue_set_params(s->rig->queue, &p);
        WATCH_SET(s->rig->pool->watch->stall_usec, pool_usec);
}

static Scene *scene_new(size_t n_slots, uint64_t expected_usec, uint64_t max_active) {
        Scene *s = calloc(1, sizeof(*s));
        StallConfig config = { .watchdog_usec = 2 * SEC, .hung_warnings = 10 };
        s->rig = rig_new(n_slots);
        scene_set(s, 2 * SEC, 2 * SEC, expected_usec, max_active);
        stall_init(&s->stall, &s->rig->engine.watch, &config, &hooks, s);
        s->start_usec = engine_now(&s->rig->engine);
        s->next_usec = stall_look(&s->stall, s->start_usec, s->start_usec);
        return s;
}
static void scene_freep(Scene **s) {
        rig_free((*s)->rig);
        free(*s);
}
#define SCENE(name, ...) _cleanup_(scene_freep) Scene *name = scene_new(__VA_ARGS__)

/* Time passes until so many seconds after the start; the watch looks when it wants to. */
static void until(Scene *s, double at) {
        uint64_t end = s->start_usec + (uint64_t)(at * SEC + 0.5);
        for (uint64_t now; (now = engine_now(&s->rig->engine)) < end;) {
                rig_advance(s->rig, MIN(s->next_usec, end) - now);
                for (int tid = 0; tid < 2; tid++) /* 0 would be the caller */
                        s->thread_cpu_usec[tid] += (uint64_t)(s->burns * (double)(engine_now(&s->rig->engine) - now));
                now = engine_now(&s->rig->engine);
                if (now >= s->next_usec)
                        s->next_usec = stall_look(&s->stall, now, now + s->sleep_usec);
        }
}

static void config(Scene *s, void (*change)(StallConfig *c)) {
        StallConfig c = s->stall.config;
        change(&c);
        stall_set_config(&s->stall, &c);
}

#define ck_assert_n(s, kind, phase, min, max)                                                                          \
        ck_assert_msg((long)(s)->n[kind][phase] >= (long)(min) && (long)(s)->n[kind][phase] <= (long)(max),            \
                      "%zu of %s %s in: %s", (s)->n[kind][phase], kinds[kind], phases[phase], (s)->text)
#define ck_assert_between(value, low, high)                                                                            \
        ck_assert_msg((value) >= (low) && (value) <= (high), "%s is %f", #value, (double)(value))

static size_t n_stalls(const Scene *s) {
        size_t n = 0;
        for (int phase = 0; phase < 3; phase++)
                n += s->n[STALL_POOL][phase] + s->n[STALL_QUEUE][phase];
        return n;
}

static void submit_n(Scene *s, size_t n) {
        for (size_t i = 0; i < n; i++)
                rig_submit(s->rig);
}

/* ---- W1 ---- */

TEST(w1_a_pool_full_of_lifeless_tasks_is_told_again_and_again_and_its_end_too) {
        SCENE(s, 4, 0, 256);
        submit_n(s, 5);
        until(s, 1.9);
        ck_assert_str_eq(s->text, "");
        until(s, 2.8);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        const StallReport *r = &s->first[STALL_POOL];
        ck_assert_between((double)(r->now_usec - s->start_usec) / SEC, 2.0, 2.8);
        ck_assert_str_eq(r->pool, "pool");
        ck_assert_str_eq(r->queue, "q");
        ck_assert_int_eq(r->reason, EQ_REASON_SLOTS);
        ck_assert_uint_eq(r->n_ready, 1);
        ck_assert_uint_eq(r->n_running, 4);
        until(s, 9.9);
        size_t n = s->n[STALL_POOL][STALL_BEGIN] + s->n[STALL_POOL][STALL_REPEAT];
        ck_assert_between(n, 3, 5);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 0, 0); /* the pool says it for all its queues */
        rig_end(s->rig, rig_running(s->rig->queue), TASK_OK);
        until(s, 10.2);
        ck_assert_n(s, STALL_POOL, STALL_END, 1, 1);
        ck_assert_uint_eq(s->last.episode, r->episode);
        ck_assert_between((double)s->last.stuck_usec / SEC, 9.4, 10.2 /* it is dated by the look that saw it begin */);
        until(s, 11.5);
        ck_assert_n(s, STALL_POOL, STALL_END, 1, 1);
}

TEST(a_pool_that_cannot_start_anything_is_stalled_although_what_runs_shows_life) {
        SCENE(s, 4, USEC_NEVER, 256);
        submit_n(s, 1);
        pool_block(s->rig->pool, EQ_REASON_CREATE_FAILURE, USEC_NEVER);
        submit_n(s, 1);
        until(s, 2.8);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        ck_assert_int_eq(s->last.reason, EQ_REASON_CREATE_FAILURE);
        pool_unblock(s->rig->pool);
        pool_run(s->rig->pool);
        until(s, 3.1);
        ck_assert_n(s, STALL_POOL, STALL_END, 1, 1);
}

TEST(a_backlog_counts_from_when_it_began_and_not_from_before) {
        SCENE(s, 1, 0, 256);
        submit_n(s, 1);
        until(s, 10.3);
        submit_n(s, 1);
        until(s, 12.29);
        ck_assert_str_eq(s->text, "");
        until(s, 13.3);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        ck_assert_between((double)s->last.stuck_usec / SEC, 2.0, 3.0);
}

TEST(a_queue_that_nobody_serves_is_stalled_and_one_whose_workers_are_busy_is_not) {
        SCENE(s, 4, USEC_NEVER, 256);
        Queue *q = s->rig->queue;
        submit_n(s, 1);
        queue_set_unserved(q, EQ_REASON_POOL_FULL);
        submit_n(s, 1);
        until(s, 10);
        ck_assert_str_eq(s->text, "");
        queue_set_unserved(q, EQ_REASON_NO_WORKER);
        until(s, 13);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        ck_assert_int_eq(s->last.reason, EQ_REASON_NO_WORKER);
        queue_set_unserved(q, EQ_REASON_NONE);
        until(s, 13.5);
        ck_assert_n(s, STALL_QUEUE, STALL_END, 1, 1);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 0, 0);
}

TEST(a_queue_whose_workers_have_all_they_take_and_show_no_life_is_stalled_and_says_that) {
        SCENE(s, 4, 0, 256);
        Queue *q = s->rig->queue;
        submit_n(s, 2);
        queue_set_unserved(q, EQ_REASON_POOL_FULL); /* all credit is used, max_active is not */
        submit_n(s, 1);
        until(s, 1.9);
        ck_assert_str_eq(s->text, "");
        until(s, 2.8);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        ck_assert_int_eq(s->last.reason, EQ_REASON_POOL_FULL);
        ck_assert_str_eq(s->last.queue, "q");
        ck_assert_str_eq(s->last.task_queue, "q");
        ck_assert_uint_eq(s->last.seq, 1);
        ck_assert_uint_eq(s->last.n_running, 2);
        ck_assert_uint_eq(s->last.n_ready, 1);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 0, 0); /* it could start nothing */
        rig_end(s->rig, rig_running(q), TASK_OK);
        until(s, 3.3);
        ck_assert_n(s, STALL_QUEUE, STALL_END, 1, 1);
}

TEST(an_eqd_that_stops_is_not_stalled) {
        SCENE(s, 4, 0, 1);
        submit_n(s, 1);
        pool_block(s->rig->pool, EQ_REASON_DRAINING, USEC_NEVER);
        submit_n(s, 5);
        until(s, 10);
        rig_end(s->rig, rig_running(s->rig->queue), TASK_OK);
        until(s, 20);
        ck_assert_str_eq(s->text, "");
}

/* What the loop would know as well is in the cells, for when it does not come to it. */
TEST(a_report_says_what_its_pool_is_at) {
        SCENE(s, 4, 0, 256);
        submit_n(s, 4);
        rig_end(s->rig, s->rig->tasks[0], TASK_OK);
        rig_set_max_active(s->rig, 3);
        pool_set_max(s->rig->pool, 3);
        until(s, 1);
        rig_end(s->rig, s->rig->tasks[1], TASK_OK);
        submit_n(s, 2);
        until(s, 4);
        const StallReport *r = &s->first[STALL_QUEUE];
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        ck_assert(r->has_pool);
        ck_assert_str_eq(r->pool, "pool");
        ck_assert_uint_eq(r->n_workers, 3);
        ck_assert_uint_eq(r->n_idle, 0);
        ck_assert_uint_eq(r->creates, 0);
        ck_assert_uint_eq(r->calls, 0);
        rig_end(s->rig, s->rig->tasks[2], TASK_OK);
        rig_end(s->rig, s->rig->tasks[3], TASK_OK);
        rig_end(s->rig, s->rig->tasks[4], TASK_OK);
        s->rig->refuse = -EAGAIN; /* one runs, two slots are there, and no process can be made */
        submit_n(s, 1);
        until(s, 8);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        r = &s->first[STALL_POOL];
        ck_assert_uint_eq(r->n_workers, 3);
        ck_assert_uint_eq(r->n_idle, 2);
        ck_assert_uint_eq(r->creates, 1);
}

TEST(threads_are_counted_as_they_are_and_not_as_slots) {
        SCENE(s, 100, 0, 256);
        WatchPool *p = s->rig->pool->watch;
        WATCH_SET(p->n_threads_max, 2);
        WATCH_SET(p->threads.n, 2);
        submit_n(s, 3);
        until(s, 3);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 0, 0); /* nothing waits for a slot */
        s->stall.config.hung_usec = 3 * SEC;
        s->rig->queue->params.hung_task = HUNG_TASK_WALL;
        queue_set_params(s->rig->queue, &s->rig->queue->params);
        WATCH_SET(p->threads.n_idle, 1);
        until(s, 5);
        ck_assert_uint_ge(s->n[STALL_HUNG][STALL_BEGIN], 1);
        ck_assert(s->first[STALL_HUNG].has_pool);
        ck_assert_uint_eq(s->first[STALL_HUNG].n_workers, 2);
        ck_assert_uint_eq(s->first[STALL_HUNG].n_idle, 1);
}

/* ---- W2 ---- */

static void hung_after_3(StallConfig *c) {
        c->hung_usec = 3 * SEC;
}

static void set_hung(Scene *s, HungTask mode) {
        QueueParams p = s->rig->queue->params;
        p.hung_task = mode;
        queue_set_params(s->rig->queue, &p);
}

TEST(w2_nothing_waits_no_stall_but_hung_tasks) {
        SCENE(s, 4, USEC_NEVER, 256);
        config(s, hung_after_3);
        set_hung(s, HUNG_TASK_WALL);
        submit_n(s, 4);
        until(s, 2.9);
        ck_assert_str_eq(s->text, "");
        until(s, 4);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 4, 4);
        ck_assert_uint_eq(n_stalls(s), 0);
        ck_assert_between((double)s->last.stuck_usec / SEC, 3.0, 4.0);
        ck_assert_uint_eq(s->last.n_workers, 4);
        ck_assert_uint_eq(s->last.n_idle, 0);
}

TEST(a_task_with_life_does_not_hang_unless_its_queue_goes_by_the_wall) {
        SCENE(s, 4, USEC_NEVER, 256);
        config(s, hung_after_3);
        submit_n(s, 1);
        until(s, 10);
        set_hung(s, HUNG_TASK_LIFE);
        until(s, 20);
        ck_assert_str_eq(s->text, "");
        scene_set(s, 2 * SEC, 2 * SEC, 20 * SEC, 256);
        until(s, 22.9);
        ck_assert_str_eq(s->text, "");
        until(s, 24);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 1, 1);
}

/* ---- W3 ---- */

TEST(w3_a_serial_queue_behind_a_lifeless_head_is_stalled_while_the_pool_goes_on) {
        SCENE(s, 4, 0, 1);
        Queue *other;
        QueueParams p = s->rig->queue->params;
        p.max_active = 2;
        ck_assert_int_eq(queue_new(&s->rig->engine, s->rig->pool, "other", &p, 0, &other), 0);
        submit_n(s, 6);
        for (int i = 0; i < 60; i++) { /* busy with another queue */
                Task *t = rig_submit_to(s->rig, other, TASK_LANE_NORMAL, 0, 0);
                until(s, 0.1 * (i + 1));
                rig_end(s->rig, t, TASK_OK);
        }
        rig_end(s->rig, rig_running(s->rig->queue), TASK_OK);
        until(s, 6.5);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 0, 0);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        ck_assert_n(s, STALL_QUEUE, STALL_END, 1, 1);
        const StallReport *r = &s->first[STALL_QUEUE];
        ck_assert_between((double)(r->now_usec - s->start_usec) / SEC, 2.0, 3.0);
        ck_assert_str_eq(r->queue, "q");
        ck_assert_uint_eq(r->seq, 1);
        ck_assert_int_eq(r->reason, EQ_REASON_SERIAL);
        ck_assert_uint_eq(r->n_ready, 5);
        ck_assert_uint_eq(r->n_inactive, 5);
}

/* ---- W4 ---- */

static void panic_on_3(StallConfig *c) {
        c->panic_on_stall = 3;
}
static void panic_on_2(StallConfig *c) {
        c->panic_on_stall = 2;
}
static void panic_after_5s(StallConfig *c) {
        c->panic_time_usec = 5 * SEC;
}
static void panic_after_5s_queue(StallConfig *c) {
        c->panic_time_usec = 5 * SEC;
        c->panic_scope = PANIC_SCOPE_QUEUE;
}

static double panicked_at(const Scene *s) {
        ck_assert_n(s, STALL_PANIC, STALL_BEGIN, 1, 1);
        return (double)(s->last.now_usec - s->start_usec) / SEC;
}

TEST(w4_the_third_report_panics) {
        SCENE(s, 4, 0, 256);
        config(s, panic_on_3);
        submit_n(s, 5);
        until(s, 7.5);
        ck_assert_n(s, STALL_PANIC, STALL_BEGIN, 1, 1);
        ck_assert_uint_eq(s->stall.n_stalls, 3);
        ck_assert_between(panicked_at(s), 6.0, 7.5);
}

TEST(w4_a_stall_that_lasts_panics) {
        SCENE(s, 4, 0, 256);
        config(s, panic_after_5s);
        submit_n(s, 5);
        until(s, 4.9);
        ck_assert_n(s, STALL_PANIC, STALL_BEGIN, 0, 0);
        until(s, 5.9);
        ck_assert_between(panicked_at(s), 5.0, 5.9);
        ck_assert_int_eq(s->last.kind, STALL_PANIC);
        ck_assert_int_eq(s->last.cause, PANIC_BY_TIME);
}

static void two_stalls_of_3s(Scene *s) {
        for (int i = 0; i < 2; i++) {
                submit_n(s, 5);
                until(s, 4 * i + 3);
                rig_run_all(s->rig);
                until(s, 4 * i + 4);
        }
}

TEST(w4_two_short_stalls_panic_only_if_two_are_enough) {
        SCENE(s, 4, 0, 256);
        config(s, panic_on_3);
        two_stalls_of_3s(s);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 2, 2);
        ck_assert_n(s, STALL_PANIC, STALL_BEGIN, 0, 0);
        SCENE(t, 4, 0, 256);
        config(t, panic_on_2);
        two_stalls_of_3s(t);
        ck_assert_n(t, STALL_PANIC, STALL_BEGIN, 1, 1);
}

TEST(w4_queues_count_only_in_their_scope) {
        for (int in_scope = 0; in_scope < 2; in_scope++) {
                SCENE(s, 4, 0, 1);
                config(s, in_scope ? panic_after_5s_queue : panic_after_5s);
                submit_n(s, 5);
                until(s, 10);
                ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
                ck_assert_uint_eq(s->n[STALL_PANIC][STALL_BEGIN], (size_t)in_scope);
        }
}

static void hung_panic_2(StallConfig *c) {
        c->hung_usec = 3 * SEC;
        c->hung_panic = 2;
}

TEST(so_many_hung_tasks_at_once_panic) {
        SCENE(s, 4, USEC_NEVER, 256);
        config(s, hung_panic_2);
        set_hung(s, HUNG_TASK_WALL);
        submit_n(s, 1);
        until(s, 5);
        ck_assert_n(s, STALL_PANIC, STALL_BEGIN, 0, 0);
        submit_n(s, 1);
        until(s, 9);
        ck_assert_n(s, STALL_PANIC, STALL_BEGIN, 1, 1);
        ck_assert_ptr_nonnull(strstr(s->text, "8.0 panic"));
}

/* ---- W5 ---- */

TEST(w5_a_threshold_of_0_is_off_and_a_new_one_holds_at_once) {
        SCENE(s, 4, 0, 256);
        scene_set(s, 0, 0, 0, 256);
        submit_n(s, 5);
        until(s, 10);
        ck_assert_str_eq(s->text, "");
        rig_run_all(s->rig);
        scene_set(s, 2 * SEC, 2 * SEC, 0, 256);
        submit_n(s, 5);
        until(s, 11.9);
        ck_assert_str_eq(s->text, "");
        until(s, 13);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        scene_set(s, 0, 0, 0, 256);
        until(s, 13.5);
        ck_assert_n(s, STALL_POOL, STALL_END, 1, 1);
}

TEST(w5_what_stood_still_before_the_watch_was_switched_on_is_told_a_threshold_later) {
        SCENE(s, 1, 0, 1);
        scene_set(s, 0, 0, 0, 1);
        submit_n(s, 2);
        until(s, 10);
        scene_set(s, 2 * SEC, 2 * SEC, 0, 1);
        until(s, 11.9);
        ck_assert_str_eq(s->text, "");
        until(s, 13);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
}

/* ---- W6 ---- */

TEST(w6_paused_future_and_empty_queues_are_not_stalled) {
        SCENE(s, 4, 0, 1);
        queue_pause(s->rig->queue);
        submit_n(s, 3);
        until(s, 10);
        rig_submit_held(s->rig);
        queue_resume(s->rig->queue);
        rig_run_all(s->rig);
        rig_submit_in(s->rig, 1000 * SEC);
        until(s, 20);
        ck_assert_str_eq(s->text, "");
}

TEST(w6_tasks_behind_a_back_off_are_not_stalled) {
        SCENE(s, 4, 0, 1);
        submit_n(s, 5);
        rig_retry_in(s->rig, 30 * SEC);
        rig_end(s->rig, rig_running(s->rig->queue), TASK_BAD);
        until(s, 29);
        ck_assert_str_eq(s->text, "");
}

static void scene_rate(Scene *s, uint64_t n, uint64_t per_usec) {
        QueueParams p = s->rig->queue->params;
        p.rate = (ParamRate) { n, per_usec };
        p.rate_burst = 1;
        queue_set_params(s->rig->queue, &p);
}

TEST(w6_tasks_that_wait_for_their_rate_are_not_stalled) {
        SCENE(s, 4, 0, 1);
        s->rig->synchronous = true;
        scene_rate(s, 1, 10 * SEC);
        submit_n(s, 6);
        ck_assert_uint_eq(s->rig->queue->n_queued, 5);
        until(s, 10 - 0.001);
        ck_assert_uint_eq(s->rig->queue->n_queued, 5);
        until(s, 49);
        ck_assert_uint_eq(s->rig->queue->n_queued, 1);
        until(s, 100);
        ck_assert_str_eq(s->rig->starts, "1 2 3 4 5 6");
        ck_assert_str_eq(s->text, "");
}

/* The rate is no excuse for what it does not keep from starting. */
TEST(w6_with_a_token_a_queue_behind_a_lifeless_head_is_stalled_and_not_before) {
        SCENE(s, 4, 0, 1);
        scene_rate(s, 1, 10 * SEC);
        submit_n(s, 6);
        until(s, 11.9);
        ck_assert_str_eq(s->text, "");
        until(s, 13);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        ck_assert_int_eq(s->first[STALL_QUEUE].reason, EQ_REASON_SERIAL);
        ck_assert_uint_eq(s->first[STALL_QUEUE].seq, 1);
}

/* The case that decides whether anybody keeps the watch switched on. */
TEST(w6_a_one_hour_conversion_with_38_waiting_is_no_stall) {
        SCENE(s, 4, USEC_NEVER, 1);
        submit_n(s, 39);
        until(s, 3600);
        ck_assert_str_eq(s->text, "");
        ck_assert_uint_eq(s->n_cpu_looks, 0); /* nobody has even looked into /proc */
        rig_end(s->rig, rig_running(s->rig->queue), TASK_OK);
        until(s, 7200);
        ck_assert_str_eq(s->text, "");
}

TEST(w6_a_full_pool_of_long_commands_is_no_stall) {
        SCENE(s, 1, USEC_NEVER, 256);
        submit_n(s, 39);
        until(s, 60);
        ck_assert_str_eq(s->text, "");
        ck_assert_uint_eq(s->rig->queue->n_queued, 38);
}

TEST(w6_beyond_the_expected_runtime_it_is_one_and_not_before) {
        SCENE(s, 1, 3 * SEC, 256);
        submit_n(s, 39);
        until(s, 4.9);
        ck_assert_str_eq(s->text, "");
        until(s, 6);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        ck_assert_uint_eq(s->last.seq, 1);
}

TEST(cpu_time_is_life_and_the_want_of_it_a_stall) {
        SCENE(s, 1, 3 * SEC, 1);
        submit_n(s, 2);
        for (int i = 0; i < 100; i++) {
                s->cpu_usec[0] += 20000;
                until(s, 0.2 * i);
        }
        ck_assert_str_eq(s->text, "");
        until(s, 21.7); /* it was last seen to move at 19.8 at the earliest */
        ck_assert_str_eq(s->text, "");
        until(s, 22.8);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        s->cpu_usec[0] += 20000;
        until(s, 24.3);
        ck_assert_n(s, STALL_QUEUE, STALL_END, 1, 1);
}

TEST(a_little_cpu_time_now_and_then_adds_up_to_life) {
        SCENE(s, 1, 3 * SEC, 1);
        submit_n(s, 2);
        for (int i = 0; i < 100; i++) {
                s->cpu_usec[0] += 2000; /* each 0.2 s */
                until(s, 0.2 * i);
        }
        ck_assert_str_eq(s->text, "");
}

TEST(a_command_that_was_killed_and_stays_is_past_helping) {
        SCENE(s, 1, USEC_NEVER, 1);
        submit_n(s, 2);
        until(s, 100);
        WATCH_SET(s->rig->pool->slots[0]->watch->deadline_usec, engine_now(&s->rig->engine) + 5 * SEC);
        until(s, 106.9);
        ck_assert_str_eq(s->text, "");
        until(s, 108);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
}

/* ---- W10, and tasks that tell of themselves ---- */

/* As an executor does whose tasks are claimed ahead: the first has begun. */
static void hand_over(Scene *s, WatchLife *life, size_t n) {
        for (size_t i = 0; i < n; i++)
                atomic_store(&s->rig->pool->slots[i]->watch->life, &life[i]);
        WATCH_SET(life[0].begun_usec, engine_now(&s->rig->engine));
}

TEST(w10_what_a_batch_has_claimed_behind_a_task_that_blocks_is_a_stall_although_no_task_is_in_the_queue) {
        WatchLife life[16] = { 0 };
        SCENE(s, 16, 0, 256);
        WATCH_SET(s->rig->pool->watch->n_threads_max, 1);
        submit_n(s, 16);
        hand_over(s, life, 16);
        ck_assert_uint_eq(s->rig->queue->n_queued, 0);
        until(s, 1.9);
        ck_assert_str_eq(s->text, "");
        until(s, 2.8);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        ck_assert_int_eq(s->last.reason, EQ_REASON_POOL_FULL);
        ck_assert_uint_eq(s->last.n_ready, 15);
        ck_assert_uint_eq(s->last.n_running, 1);
        ck_assert_uint_eq(s->last.n_slots, 1);
        WATCH_SET(life[1].begun_usec, engine_now(&s->rig->engine)); /* the next begins: progress */
        until(s, 3.2);
        ck_assert_n(s, STALL_POOL, STALL_END, 1, 1);
}

TEST(w10_with_threads_to_spare_it_is_one_all_the_same) {
        WatchLife life[16] = { 0 };
        SCENE(s, 16, 0, 256);
        WATCH_SET(s->rig->pool->watch->n_threads_max, 4);
        submit_n(s, 16);
        hand_over(s, life, 16);
        for (double at = 0; at < 2.8; at += 0.1) {
                until(s, at);
                WATCH_SET(life[0].seen_usec, engine_now(&s->rig->engine)); /* its life does not excuse it */
        }
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
}

TEST(what_a_task_tells_of_itself_is_life_until_it_falls_silent) {
        WatchLife life[16] = { 0 };
        SCENE(s, 16, 0, 1);
        config(s, hung_after_3);
        set_hung(s, HUNG_TASK_LIFE);
        submit_n(s, 2); /* the second waits in the queue, which is serial */
        hand_over(s, life, 1);
        for (double at = 0; at <= 20; at += 0.5) {
                until(s, at);
                WATCH_SET(life[0].seen_usec, engine_now(&s->rig->engine));
        }
        ck_assert_str_eq(s->text, "");
        until(s, 21.9);
        ck_assert_str_eq(s->text, "");
        until(s, 22.8);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        ck_assert_int_eq(s->last.reason, EQ_REASON_SERIAL);
        ck_assert_between((double)s->last.task_usec / SEC, 22.0, 22.8);
        until(s, 24);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 1, 1);
        ck_assert_uint_eq(s->n_cpu_looks, 0);
}

TEST(a_task_that_was_handed_over_hangs_no_sooner_than_it_begins) {
        WatchLife life[1] = { 0 };
        SCENE(s, 1, 0, 1);
        config(s, hung_after_3);
        set_hung(s, HUNG_TASK_WALL);
        scene_set(s, 0, 0, 0, 1);
        submit_n(s, 1);
        atomic_store(&s->rig->pool->slots[0]->watch->life, &life[0]);
        until(s, 10);
        ck_assert_str_eq(s->text, "");
        WATCH_SET(life[0].begun_usec, engine_now(&s->rig->engine));
        until(s, 12.9);
        ck_assert_str_eq(s->text, "");
        until(s, 14);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 1, 1);
}

/* ---- CPU hogs ---- */

static void hogs_from_100_msec(StallConfig *c) {
        c->hog_usec = SEC / 10;
}

/* Thread 1 holds so many tasks together. */
static Scene *hold(WatchLife *life, size_t n, double burns) {
        Scene *s = scene_new(16, USEC_NEVER, 256);
        config(s, hogs_from_100_msec);
        scene_set(s, 0, 0, USEC_NEVER, 256);
        submit_n(s, n);
        hand_over(s, life, n);
        s->burns = burns;
        s->thread_cpu_usec[1] = 77 * SEC; /* of others before */
        WATCH_SET(life[0].n_held, n);
        for (size_t i = 0; i < n; i++) {
                WATCH_SET(life[i].begun_usec, engine_now(&s->rig->engine));
                WATCH_SET(life[i].tid, 1);
                WATCH_SET(life[i].first, &life[0]);
        }
        return s;
}

TEST(a_task_that_burns_for_ever_is_told_while_it_runs_and_once) {
        WatchLife life[1] = { 0 };
        _cleanup_(scene_freep) Scene *s = hold(life, 1, 1.0);
        until(s, 1.1);
        ck_assert_n(s, STALL_CPU_HOG, STALL_BEGIN, 1, 1);
        ck_assert_str_eq(s->last.queue, "q");
        ck_assert_uint_eq(s->last.queue_id, s->rig->queue->id);
        ck_assert_uint_eq(s->last.seq, 1);
        ck_assert_uint_eq(s->last.tid, 1);
        until(s, 30);
        ck_assert_n(s, STALL_CPU_HOG, STALL_BEGIN, 1, 1);
        WATCH_SET(life[0].begun_usec, engine_now(&s->rig->engine)); /* the next in that memory */
        until(s, 31.1);
        ck_assert_n(s, STALL_CPU_HOG, STALL_BEGIN, 2, 2);
}

TEST(one_that_sleeps_and_one_that_its_thread_has_counted_are_not) {
        WatchLife life[1] = { 0 };
        _cleanup_(scene_freep) Scene *s = hold(life, 1, 0.001);
        until(s, 30);
        ck_assert_str_eq(s->text, "");
        s->burns = 1;
        ck_assert(!watch_hog_is_known(&life[0], WATCH_GET(life[0].begun_usec)));
        until(s, 40);
        ck_assert_str_eq(s->text, "");
}

TEST(those_that_a_thread_holds_together_have_a_share_each) {
        WatchLife life[16] = { 0 };
        _cleanup_(scene_freep) Scene *s = hold(life, 16, 0.1);
        until(s, 15);
        ck_assert_str_eq(s->text, "");
        until(s, 17);
        ck_assert_n(s, STALL_CPU_HOG, STALL_BEGIN, 16, 16);
}

TEST(what_no_thread_is_at_uses_no_cpu_time) {
        WatchLife life[2] = { 0 };
        _cleanup_(scene_freep) Scene *s = hold(life, 2, 1.0);
        WATCH_SET(life[0].tid, 0);        /* deferred */
        WATCH_SET(life[1].begun_usec, 0); /* claimed */
        until(s, 5);
        ck_assert_str_eq(s->text, "");
}

/* ---- W7 ---- */

static void jump(Scene *s, uint64_t monotonic_usec, uint64_t slept_usec) {
        fake_clock_advance(&s->rig->clock, monotonic_usec);
        s->sleep_usec += slept_usec;
        s->next_usec = stall_look(&s->stall, engine_now(&s->rig->engine), engine_now(&s->rig->engine) + s->sleep_usec);
}

TEST(w7_a_pause_of_eqd_is_forgiven) {
        SCENE(s, 4, 0, 256);
        submit_n(s, 5);
        until(s, 1);
        jump(s, 5 * SEC, 0);
        ck_assert_n(s, STALL_CLOCK_JUMP, STALL_BEGIN, 1, 1);
        ck_assert_uint_eq(n_stalls(s), 0);
        until(s, 7.9);
        ck_assert_uint_eq(n_stalls(s), 0);
        until(s, 9);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
        ck_assert_between((double)s->first[STALL_POOL].stuck_usec / SEC, 7.4, 9.0); /* the time counts on */
}

TEST(w7_a_sleep_of_the_machine_is_forgiven) {
        SCENE(s, 4, 0, 256);
        submit_n(s, 5);
        until(s, 1.9);
        jump(s, SEC / 5, 3600ULL * SEC);
        ck_assert_n(s, STALL_CLOCK_JUMP, STALL_BEGIN, 1, 1);
        until(s, 4);
        ck_assert_uint_eq(n_stalls(s), 0);
}

TEST(touch_puts_off_what_is_about_to_be_told) {
        SCENE(s, 4, 0, 256);
        submit_n(s, 5);
        until(s, 1.9);
        stall_touch(&s->stall);
        until(s, 3.9);
        ck_assert_str_eq(s->text, "");
        until(s, 5);
        ck_assert_n(s, STALL_POOL, STALL_BEGIN, 1, 1);
}

/* ---- W8 ---- */

static void two_warnings(StallConfig *c) {
        c->hung_usec = 3 * SEC;
        c->hung_warnings = 2;
}
static void endless_warnings(StallConfig *c) {
        c->hung_warnings = -1;
}

TEST(w8_after_the_last_warning_one_says_that_more_are_left_out) {
        SCENE(s, 8, USEC_NEVER, 256);
        set_hung(s, HUNG_TASK_WALL);
        config(s, two_warnings);
        submit_n(s, 5);
        until(s, 10);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 2, 2);
        ck_assert_n(s, STALL_HUNG_SUPPRESSED, STALL_BEGIN, 1, 1);
        config(s, endless_warnings); /* arms it anew */
        until(s, 14);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 7, 12);
        ck_assert_n(s, STALL_HUNG_SUPPRESSED, STALL_BEGIN, 1, 1);
}

static void every_4s(StallConfig *c) {
        c->hung_usec = 6 * SEC;
        c->hung_check_usec = 4 * SEC;
        c->hung_warnings = -1;
}
static void two_at_a_look(StallConfig *c) {
        c->hung_check_usec = 0;
        c->hung_check_count = 2;
}

TEST(hung_tasks_are_looked_for_as_often_and_as_many_as_is_said) {
        SCENE(s, 8, USEC_NEVER, 256);
        set_hung(s, HUNG_TASK_WALL);
        until(s, 1);
        submit_n(s, 5);
        config(s, every_4s); /* at 1, 5, 9, ... */
        until(s, 8.9);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 0, 0);
        until(s, 9.6);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 5, 5);
        config(s, two_at_a_look); /* each when its time is over, again */
        until(s, 15.9);
        ck_assert_n(s, STALL_HUNG, STALL_BEGIN, 7, 7);
}

/* ---- W9, the watch's side ---- */

TEST(w9_a_part_that_does_not_answer_is_told) {
        SCENE(s, 4, USEC_NEVER, 1);
        WatchPart *p = watch_part_add(&s->rig->engine.watch, "eqd-spawner", EQ_REASON_SPAWN_FAILED);
        for (int i = 0; i < 10; i++) {
                WATCH_SET(p->n_asked, (uint64_t)i + 1);
                until(s, i + 0.3);
                WATCH_SET(p->n_answered, (uint64_t)i + 1);
                until(s, i + 1);
        }
        ck_assert_str_eq(s->text, "");
        WATCH_SET(p->n_asked, 99);
        until(s, 11.9);
        ck_assert_str_eq(s->text, "");
        until(s, 13);
        ck_assert_n(s, STALL_PART, STALL_BEGIN, 1, 1);
        ck_assert_str_eq(s->last.part, "eqd-spawner");
        ck_assert_int_eq(s->last.reason, EQ_REASON_SPAWN_FAILED);
        ck_assert_between((double)stall_part_owes_usec(p, engine_now(&s->rig->engine)) / SEC, 2.0, 3.0);
        WATCH_SET(p->n_answered, 99);
        until(s, 13.5);
        ck_assert_n(s, STALL_PART, STALL_END, 1, 1);
}

/* ---- the rest ---- */

TEST(a_removed_queue_ends_its_stall_and_the_next_of_its_cell_begins_anew) {
        SCENE(s, 4, 0, 1);
        Queue *q = s->rig->queue;
        submit_n(s, 2);
        until(s, 3);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        QueueParams p = q->params;
        uint64_t id = q->id;
        ck_assert_int_eq(queue_cancel(q, s->rig->tasks[1]), 0);
        rig_end(s->rig, s->rig->tasks[0], TASK_OK);
        WatchQueue *cell = q->watch;
        queue_free(q);
        ck_assert_int_eq(queue_new(&s->rig->engine, s->rig->pool, "new", &p, 0, &s->rig->queue), 0);
        ck_assert_ptr_eq(s->rig->queue->watch, cell);
        submit_n(s, 2);
        until(s, 3.3);
        ck_assert_n(s, STALL_QUEUE, STALL_END, 1, 1);
        ck_assert_uint_eq(s->last.queue_id, id);
        until(s, 4.9);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 1, 1);
        until(s, 6);
        ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, 2, 2);
        ck_assert_str_eq(s->last.queue, "new");
}

/* Latency over many stalls that begin at odd moments. */
TEST(every_stall_is_told_within_its_threshold_and_a_second) {
        SCENE(s, 4, 0, 1);
        double at = 0;
        unsigned random = 7;
        for (size_t i = 0; i < 200; i++) {
                random = random * 1103515245 + 12345;
                at += 1 + (random >> 16) % 1000 / 1000.0;
                until(s, at);
                submit_n(s, 2);
                uint64_t since = engine_now(&s->rig->engine);
                until(s, at + 3);
                ck_assert_n(s, STALL_QUEUE, STALL_BEGIN, i + 1, i + 1);
                ck_assert_between((double)(s->first[STALL_QUEUE].now_usec - since) / SEC, 2.0, 3.0);
                rig_run_all(s->rig);
                at += 4;
                until(s, at);
                ck_assert_n(s, STALL_QUEUE, STALL_END, i + 1, i + 1);
        }
}

TEST(cells_stay_where_they_are_and_are_used_again) {
        SCENE(s, 1, 0, 1);
        enum { N = 3000 };
        static Queue *queues[N];
        Engine *e = &s->rig->engine;
        for (int i = 0; i < N; i++)
                ck_assert_int_eq(queue_new(e, s->rig->pool, "x", &rig_params, 0, &queues[i]), 0);
        size_t n = watch_table_n(&e->watch.queues);
        ck_assert_uint_eq(n, N + 1);
        for (int i = 0; i < N; i++) {
                ck_assert_ptr_eq(watch_table_at(&e->watch.queues, (size_t)i + 1), queues[i]->watch);
                ck_assert_uint_eq(WATCH_GET(queues[i]->watch->id), queues[i]->id);
                queue_free(queues[i]);
        }
        for (int i = 0; i < N; i++)
                ck_assert_int_eq(queue_new(e, s->rig->pool, "y", &rig_params, 0, &queues[i]), 0);
        ck_assert_uint_eq(watch_table_n(&e->watch.queues), n);
}

TEST(without_memory_for_its_cell_there_is_no_queue_pool_or_slot) {
        SCENE(s, 1, 0, 1);
        Engine *e = &s->rig->engine;
        size_t n_queues = e->n_queues;
        Queue *q;
        for (long nth = 1; nth < 3; nth++)
                for (int i = 0; i < 300; i++) { /* until a new chunk is needed */
                        fault_set(FAULT_ALLOC, nth, true);
                        int r = queue_new(e, s->rig->pool, "x", &rig_params, 0, &q);
                        fault_set(FAULT_ALLOC, 0, false);
                        if (r == 0)
                                n_queues++;
                        else
                                ck_assert_int_eq(r, -ENOMEM);
                        ck_assert_uint_eq(e->n_queues, n_queues);
                }
        Pool *p;
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(pool_new(e, "p", POOL_COMMAND, &s->rig->executor, 1, &p), -ENOMEM);
}

RUN_TESTS("stall", 60, test_w1_a_pool_full_of_lifeless_tasks_is_told_again_and_again_and_its_end_too,
          test_a_pool_that_cannot_start_anything_is_stalled_although_what_runs_shows_life,
          test_a_backlog_counts_from_when_it_began_and_not_from_before, test_an_eqd_that_stops_is_not_stalled,
          test_a_queue_that_nobody_serves_is_stalled_and_one_whose_workers_are_busy_is_not,
          test_a_queue_whose_workers_have_all_they_take_and_show_no_life_is_stalled_and_says_that,
          test_a_report_says_what_its_pool_is_at, test_threads_are_counted_as_they_are_and_not_as_slots,
          test_w2_nothing_waits_no_stall_but_hung_tasks,
          test_a_task_with_life_does_not_hang_unless_its_queue_goes_by_the_wall,
          test_w3_a_serial_queue_behind_a_lifeless_head_is_stalled_while_the_pool_goes_on,
          test_w4_the_third_report_panics, test_w4_a_stall_that_lasts_panics,
          test_w4_two_short_stalls_panic_only_if_two_are_enough, test_w4_queues_count_only_in_their_scope,
          test_so_many_hung_tasks_at_once_panic, test_w5_a_threshold_of_0_is_off_and_a_new_one_holds_at_once,
          test_w5_what_stood_still_before_the_watch_was_switched_on_is_told_a_threshold_later,
          test_w6_paused_future_and_empty_queues_are_not_stalled, test_w6_tasks_behind_a_back_off_are_not_stalled,
          test_w6_tasks_that_wait_for_their_rate_are_not_stalled,
          test_w6_with_a_token_a_queue_behind_a_lifeless_head_is_stalled_and_not_before,
          test_w6_a_one_hour_conversion_with_38_waiting_is_no_stall, test_w6_a_full_pool_of_long_commands_is_no_stall,
          test_w6_beyond_the_expected_runtime_it_is_one_and_not_before,
          test_cpu_time_is_life_and_the_want_of_it_a_stall, test_a_little_cpu_time_now_and_then_adds_up_to_life,
          test_a_command_that_was_killed_and_stays_is_past_helping,
          test_w10_what_a_batch_has_claimed_behind_a_task_that_blocks_is_a_stall_although_no_task_is_in_the_queue,
          test_w10_with_threads_to_spare_it_is_one_all_the_same,
          test_what_a_task_tells_of_itself_is_life_until_it_falls_silent,
          test_a_task_that_was_handed_over_hangs_no_sooner_than_it_begins,
          test_a_task_that_burns_for_ever_is_told_while_it_runs_and_once,
          test_one_that_sleeps_and_one_that_its_thread_has_counted_are_not,
          test_those_that_a_thread_holds_together_have_a_share_each, test_what_no_thread_is_at_uses_no_cpu_time,
          test_w7_a_pause_of_eqd_is_forgiven, test_w7_a_sleep_of_the_machine_is_forgiven,
          test_touch_puts_off_what_is_about_to_be_told, test_w8_after_the_last_warning_one_says_that_more_are_left_out,
          test_hung_tasks_are_looked_for_as_often_and_as_many_as_is_said, test_w9_a_part_that_does_not_answer_is_told,
          test_a_removed_queue_ends_its_stall_and_the_next_of_its_cell_begins_anew,
          test_every_stall_is_told_within_its_threshold_and_a_second, test_cells_stay_where_they_are_and_are_used_again,
          test_without_memory_for_its_cell_there_is_no_queue_pool_or_slot)
