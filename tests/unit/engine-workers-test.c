/* SPDX-License-Identifier: MIT */
#include "engine/workers.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/slab.h"
#include "base/util.h"
#include "test.h"

enum { N = 64, MSEC = 1000 };

/* Something to run: says that it began, waits at its gate, says that it ended. */
typedef struct Job {
        Runnable runnable; /* first */
        sem_t began, gate, ended;
        pthread_t thread; /* that ran it last */
        atomic_ulong n_runs;
} Job;

static Job jobs[N];
static sem_t created, failed, culled, all_busy;

static void run_at_gate(Runnable *r) {
        Job *j = (Job *)r;
        j->thread = pthread_self();
        atomic_fetch_add(&j->n_runs, 1);
        sem_post(&j->began);
        sem_wait(&j->gate);
        sem_post(&j->ended);
}

static void on_event(void *host, WorkersEvent ev, int error) {
        sem_t *const sems[] = { [WORKERS_CREATED] = &created,
                                [WORKERS_CREATE_FAILED] = &failed,
                                [WORKERS_CULLED] = &culled,
                                [WORKERS_ALL_BUSY] = &all_busy };
        sem_post(sems[ev]);
}

static Workers *start(unsigned min, unsigned max, void (*adjust)(WorkersParams *p)) {
        WorkersParams p = WORKERS_PARAMS_DEFAULT;
        p.min = min;
        p.max = max;
        p.event = on_event;
        p.name = "test";
        if (adjust)
                adjust(&p);
        sem_init(&created, 0, 0);
        sem_init(&failed, 0, 0);
        sem_init(&culled, 0, 0);
        sem_init(&all_busy, 0, 0);
        for (size_t i = 0; i < N; i++) {
                jobs[i].runnable.run = run_at_gate;
                sem_init(&jobs[i].began, 0, 0);
                sem_init(&jobs[i].gate, 0, 0);
                sem_init(&jobs[i].ended, 0, 0);
        }
        Workers *w;
        ck_assert_int_eq(workers_new(&p, &w), 0);
        return w;
}

static void run_to_end(Workers *w, Job *j) {
        sem_post(&j->gate);
        workers_put(w, &j->runnable);
        test_wait_for(&j->ended);
}

static WorkersStats stats_of(Workers *w) {
        WorkersStats stats;
        workers_get_stats(w, &stats);
        return stats;
}

/* Until all that are there are idle: asleep or looking out. */
static void settle(Workers *w) {
        while (stats_of(w).n_idle < stats_of(w).n_workers)
                sched_yield();
}

TEST(what_is_put_runs_on_a_worker_once) {
        Workers *w = start(1, 4, NULL);
        ck_assert(!workers_is_self(w));
        ck_assert(!workers_is_self(NULL));
        for (size_t i = 0; i < N; i++) {
                run_to_end(w, &jobs[i]);
                ck_assert(!pthread_equal(jobs[i].thread, pthread_self()));
        }
        ck_assert_uint_eq(stats_of(w).n_runs, N);
        workers_free(w);
        for (size_t i = 0; i < N; i++)
                ck_assert_uint_eq(jobs[i].n_runs, 1);
}

static _Atomic(Workers *) the_workers;
static atomic_bool was_self;

static void ask_who(Runnable *r) {
        atomic_store(&was_self, workers_is_self(atomic_load(&the_workers)) && workers_is_self(NULL));
        sem_post(&((Job *)r)->ended);
}

TEST(a_worker_knows_that_it_is_one) {
        Workers *w = start(1, 1, NULL);
        atomic_store(&the_workers, w);
        jobs[0].runnable.run = ask_who;
        run_to_end(w, &jobs[0]);
        ck_assert(atomic_load(&was_self));
        workers_free(w);
}

/* More than any sanitizer asks of a stack, and not what the system gives by itself. */
enum { STACK_WANTED = 3 * 1024 * 1024 };

static size_t stack_seen;

static void see_stack(Runnable *r) {
        pthread_attr_t attr;
        if (pthread_getattr_np(pthread_self(), &attr) == 0) {
                (void)pthread_attr_getstacksize(&attr, &stack_seen);
                (void)pthread_attr_destroy(&attr);
        }
        sem_post(&((Job *)r)->ended);
}

static void stacks_wanted(WorkersParams *p) {
        p->stack_bytes = STACK_WANTED;
}

TEST(a_worker_has_the_stack_of_the_settings) {
        Workers *w = start(1, 1, stacks_wanted);
        jobs[0].runnable.run = see_stack;
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&jobs[0].ended);
        ck_assert_uint_eq(stack_seen, STACK_WANTED);
        ck_assert_ptr_null(workers_free(w));
}

TEST(first_come_first_served) {
        Workers *w = start(1, 1, NULL);
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&jobs[0].began);
        for (size_t i = 1; i < N; i++)
                workers_put(w, &jobs[i].runnable);
        ck_assert(workers_has_waiting(w));
        for (size_t i = 0; i < N; i++) {
                for (size_t k = i + 1; k < N; k++)
                        ck_assert_uint_eq(atomic_load(&jobs[k].n_runs), 0);
                sem_post(&jobs[i].gate);
                test_wait_for(&jobs[i].ended);
                if (i + 1 < N)
                        test_wait_for(&jobs[i + 1].began);
        }
        ck_assert(!workers_has_waiting(w));
        workers_free(w);
}

static void look_out_for_ever(WorkersParams *p) {
        p->spin_usec = 3600 * USEC_PER_SEC;
}

static void cool_down_for_ever(WorkersParams *p) {
        p->create_cooldown_usec = 3600 * USEC_PER_SEC;
}

static int hold_pipe[2];
static sem_t held;

static void hold_still(int signal) {
        char c;
        sem_post(&held);
        (void)!read(hold_pipe[0], &c, 1);
}

static void run_holdable(Runnable *r) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGUSR1);
        pthread_sigmask(SIG_UNBLOCK, &set, NULL);
        run_at_gate(r);
}

/* A worker that looks out is kept from its CPU; another one comes for the next, collects two, and is busy with the first of
 * them. The second one is in the line then and not in the inbox, and nobody is at the bell that could be rung. */
TEST(who_looks_out_finds_what_another_worker_has_collected) {
        Workers *w = start(2, 2, look_out_for_ever);
        ck_assert_int_eq(pipe(hold_pipe), 0);
        sem_init(&held, 0, 0);
        signal(SIGUSR1, hold_still);
        for (size_t i = 0; i < 2; i++) {
                jobs[i].runnable.run = run_holdable;
                workers_put(w, &jobs[i].runnable);
                test_wait_for(&jobs[i].began);
        }
        sem_post(&jobs[0].gate);
        while (stats_of(w).n_idle != 1)
                sched_yield();
        pthread_kill(jobs[0].thread, SIGUSR1);
        test_wait_for(&held);
        workers_put(w, &jobs[2].runnable);
        workers_put(w, &jobs[3].runnable);
        sem_post(&jobs[1].gate);
        test_wait_for(&jobs[2].began);
        ck_assert_int_eq(write(hold_pipe[1], "x", 1), 1);
        test_wait_for(&jobs[3].began); /* while the other one is at its gate */
        sem_post(&jobs[2].gate);
        sem_post(&jobs[3].gate);
        workers_free(w);
        close(hold_pipe[0]);
        close(hold_pipe[1]);
}

TEST(E15_workers_are_added_while_all_are_blocked_and_work_waits) {
        Workers *w = start(1, N, NULL);
        for (size_t i = 0; i < N; i++) { /* none of them ends before all have begun */
                workers_put(w, &jobs[i].runnable);
                test_wait_for(&jobs[i].began);
        }
        ck_assert_uint_eq(stats_of(w).n_workers, N);
        for (size_t i = 0; i < N; i++)
                sem_post(&jobs[i].gate);
        workers_free(w);
        for (size_t i = 0; i < N; i++)
                ck_assert_uint_eq(jobs[i].n_runs, 1);
}

TEST(E16_blocked_ones_up_to_max_and_no_more) {
        Workers *w = start(1, 3, NULL);
        for (size_t i = 0; i < 3; i++) {
                workers_put(w, &jobs[i].runnable);
                test_wait_for(&jobs[i].began);
        }
        workers_put(w, &jobs[3].runnable);
        ck_assert_uint_eq(stats_of(w).n_workers, 3);
        sem_post(&jobs[1].gate);
        test_wait_for(&jobs[3].began); /* by the one that is free now */
        ck_assert(pthread_equal(jobs[3].thread, jobs[1].thread));
        for (size_t i = 0; i < 4; i++)
                sem_post(&jobs[i].gate);
        workers_free(w);
}

TEST(limits_take_effect_while_they_work) {
        Workers *w = start(1, 1, NULL);
        ck_assert_int_eq(workers_set_limits(w, 0, 1), -EINVAL);
        ck_assert_int_eq(workers_set_limits(w, 3, 2), -EINVAL);
        ck_assert_int_eq(workers_set_limits(w, 1, WORKERS_MAX + 1), -EINVAL);
        for (size_t i = 0; i < 4; i++)
                workers_put(w, &jobs[i].runnable);
        test_wait_for(&jobs[0].began);
        ck_assert_int_eq(workers_set_limits(w, 1, 4), 0); /* the source asks for it: more workers at run time */
        for (size_t i = 1; i < 4; i++)
                test_wait_for(&jobs[i].began);
        ck_assert_int_eq(workers_set_limits(w, 1, 1), 0);
        ck_assert_uint_eq(stats_of(w).n_workers, 4);
        for (size_t i = 0; i < 4; i++)
                sem_post(&jobs[i].gate);
        while (stats_of(w).n_workers > 1)
                sched_yield();
        run_to_end(w, &jobs[4]);
        workers_free(w);
}

static void fast_cooldown(WorkersParams *p) {
        p->create_cooldown_usec = 5 * MSEC;
}

TEST(a_refused_thread_is_asked_for_again_and_nothing_is_lost) {
        fault_set(FAULT_WORKER, 3, true); /* the manager, the first worker, no other */
        Workers *w = start(1, 4, fast_cooldown);
        workers_put(w, &jobs[0].runnable);
        workers_put(w, &jobs[1].runnable);
        test_wait_for(&jobs[0].began);
        for (size_t i = 0; i < 3; i++)
                test_wait_for(&failed);
        ck_assert_uint_eq(atomic_load(&jobs[1].n_runs), 0);
        ck_assert_uint_ge(stats_of(w).n_create_failed, 3);
        fault_set(FAULT_WORKER, 0, false);
        test_wait_for(&jobs[1].began);
        sem_post(&jobs[0].gate);
        sem_post(&jobs[1].gate);
        workers_free(w);
}

TEST(without_any_worker_what_is_put_waits_for_the_first) {
        fault_set(FAULT_WORKER, 2, true);
        Workers *w = start(2, 4, fast_cooldown);
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&failed);
        ck_assert_uint_eq(stats_of(w).n_workers, 0);
        fault_set(FAULT_WORKER, 0, false);
        test_wait_for(&jobs[0].began);
        sem_post(&jobs[0].gate);
        workers_free(w);
}

TEST(without_any_worker_to_the_end_who_frees_runs_the_rest) {
        fault_set(FAULT_WORKER, 2, true);
        Workers *w = start(1, 4, fast_cooldown);
        sem_post(&jobs[0].gate);
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&failed);
        atomic_store(&the_workers, w);
        jobs[1].runnable.run = ask_who;
        workers_put(w, &jobs[1].runnable);
        workers_free(w);
        fault_set(FAULT_WORKER, 0, false);
        ck_assert(pthread_equal(jobs[0].thread, pthread_self()));
        ck_assert(atomic_load(&was_self));
        ck_assert(!workers_is_self(NULL));
}

TEST(without_a_manager_or_memory_there_are_no_workers) {
        WorkersParams p = WORKERS_PARAMS_DEFAULT;
        Workers *w;
        fault_set(FAULT_WORKER, 1, false);
        ck_assert_int_eq(workers_new(&p, &w), -EAGAIN);
        fault_set(FAULT_WORKER, 1, false);
        ck_assert_int_eq(workers_new_single(&p, &w), -EAGAIN);
        for (long nth = 1; nth <= 2; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                ck_assert_int_eq(workers_new_single(&p, &w), -ENOMEM);
        }
        fault_set(FAULT_ALLOC, 0, false);
        p.max = 0;
        ck_assert_int_eq(workers_new(&p, &w), -EINVAL);
        ck_assert_ptr_null(workers_free(NULL));
}

TEST(memory_that_is_refused_for_a_worker_is_asked_for_again) {
        Workers *w = start(1, 4, fast_cooldown);
        test_wait_for(&created);
        fault_set(FAULT_ALLOC, 1, false);
        workers_put(w, &jobs[0].runnable);
        workers_put(w, &jobs[1].runnable);
        test_wait_for(&failed);
        test_wait_for(&jobs[0].began);
        test_wait_for(&jobs[1].began);
        sem_post(&jobs[0].gate);
        sem_post(&jobs[1].gate);
        workers_free(w);
}

TEST(E2_a_single_worker_is_alone) {
        WorkersParams p = WORKERS_PARAMS_DEFAULT;
        Workers *single;
        Workers *w = start(1, 1, NULL); /* for the semaphores */
        workers_free(w);
        ck_assert_int_eq(workers_new_single(&p, &single), 0);
        workers_put(single, &jobs[0].runnable);
        workers_put(single, &jobs[1].runnable);
        test_wait_for(&jobs[0].began);
        ck_assert_uint_eq(stats_of(single).n_workers, 1);
        sem_post(&jobs[0].gate);
        sem_post(&jobs[1].gate);
        workers_free(single);
        ck_assert(pthread_equal(jobs[0].thread, jobs[1].thread));
}

static void fast_timeout(WorkersParams *p) {
        p->idle_timeout_usec = 20 * MSEC;
}

TEST(idle_workers_go_after_the_time_out_and_two_stay) {
        Workers *w = start(1, 16, fast_timeout);
        uint64_t idle_usec = 0;
        for (size_t i = 0; i < 16; i++) {
                workers_put(w, &jobs[i].runnable);
                test_wait_for(&jobs[i].began);
        }
        ck_assert_uint_eq(stats_of(w).n_workers, 16);
        idle_usec = clock_monotonic(&clock_system);
        for (size_t i = 0; i < 16; i++)
                sem_post(&jobs[i].gate);
        for (size_t i = 0; i < 14; i++) {
                test_wait_for(&culled);
                ck_assert_uint_ge(clock_monotonic(&clock_system), idle_usec + 20 * MSEC);
        }
        ck_assert_uint_eq(stats_of(w).n_workers, 2);
        run_to_end(w, &jobs[0]);
        workers_free(w);
}

static WorkersCount count;

static void counted(WorkersParams *p) {
        fast_timeout(p);
        p->count = &count;
}

TEST(how_many_there_are_and_are_idle_can_be_seen_without_a_lock) {
        Workers *w = start(1, 8, counted);
        for (size_t i = 0; i < 8; i++) {
                workers_put(w, &jobs[i].runnable);
                test_wait_for(&jobs[i].began);
        }
        ck_assert_uint_eq(count.n, 8);
        ck_assert_uint_eq(count.n_idle, 0);
        sem_post(&jobs[0].gate);
        while (stats_of(w).n_idle == 0)
                sched_yield();
        ck_assert_uint_eq(count.n, 8);
        ck_assert_uint_eq(count.n_idle, 1);
        for (size_t i = 1; i < 8; i++)
                sem_post(&jobs[i].gate);
        for (size_t i = 0; i < 6; i++)
                test_wait_for(&culled);
        while (stats_of(w).n_idle < 2)
                sched_yield();
        ck_assert_uint_eq(count.n, 2);
        ck_assert_uint_eq(count.n_idle, 2);
        workers_free(w);
        ck_assert_uint_eq(count.n, 0);
        ck_assert_uint_eq(count.n_idle, 0);
}

TEST(min_workers_stay_and_shrink_sends_the_others_away_at_once) {
        Workers *w = start(4, 16, NULL);
        for (size_t i = 0; i < 16; i++) {
                workers_put(w, &jobs[i].runnable);
                test_wait_for(&jobs[i].began);
        }
        for (size_t i = 0; i < 16; i++) {
                sem_post(&jobs[i].gate);
                test_wait_for(&jobs[i].ended);
        }
        settle(w);
        while (stats_of(w).n_workers > 4) /* one may be looking out, or has just been rung */
                workers_shrink(w);
        workers_shrink(w);
        ck_assert_uint_eq(stats_of(w).n_workers, 4);
        run_to_end(w, &jobs[0]);
        workers_free(w);
}

TEST(T_PSI_without_growth_there_is_no_worker_above_min_and_with_it_again_there_is) {
        Workers *w = start(1, 4, NULL);
        workers_set_growth(w, false);
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&jobs[0].began);
        workers_put(w, &jobs[1].runnable); /* waits: nobody else may be made */
        ck_assert(workers_has_waiting(w));
        ck_assert_uint_eq(stats_of(w).n_workers, 1);
        workers_set_growth(w, true);
        test_wait_for(&jobs[1].began);
        for (size_t i = 0; i < 2; i++) {
                sem_post(&jobs[i].gate);
                test_wait_for(&jobs[i].ended);
        }
        workers_free(w);
}

static void never_look_out(WorkersParams *p) {
        p->spin_usec = 0;
}

/* Who was idle was sent away, and nobody has asked for another one since. */
TEST(T_PSI_growth_is_back_also_for_what_comes_later) {
        Workers *w = start(1, 4, never_look_out);
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&jobs[0].began);
        for (size_t i = 0; i < 2; i++)
                test_wait_for(&created);
        workers_set_growth(w, false);
        for (; stats_of(w).n_workers > 1; sched_yield()) /* the second one may not have come to its sleep */
                workers_shrink(w);
        workers_set_growth(w, true); /* nothing waits */
        workers_put(w, &jobs[1].runnable);
        test_wait_for(&jobs[1].began);
        for (size_t i = 0; i < 2; i++) {
                sem_post(&jobs[i].gate);
                test_wait_for(&jobs[i].ended);
        }
        workers_free(w);
}

TEST(the_last_to_become_idle_is_the_first_to_be_woken) {
        Workers *w = start(4, 4, never_look_out);
        for (size_t i = 0; i < 4; i++)
                test_wait_for(&created);
        settle(w);
        run_to_end(w, &jobs[0]);
        for (size_t i = 1; i < N; i++) {
                settle(w);
                run_to_end(w, &jobs[i]);
                ck_assert(pthread_equal(jobs[i].thread, jobs[0].thread));
        }
        workers_free(w);
}

/* Each is put to sleep alone, so that it is known who is at the bell. That one is held while it is woken: who puts meanwhile finds that
 * it is on its way, and wakes nobody. */
TEST(one_wakeup_is_in_flight_and_the_woken_wakes_the_next) {
        Workers *w = start(4, 4, never_look_out);
        ck_assert_int_eq(pipe(hold_pipe), 0);
        sem_init(&held, 0, 0);
        signal(SIGUSR1, hold_still);
        for (size_t i = 0; i < 4; i++) {
                jobs[i].runnable.run = run_holdable;
                workers_put(w, &jobs[i].runnable);
        }
        for (size_t i = 0; i < 4; i++)
                test_wait_for(&jobs[i].began);
        for (unsigned i = 0; i < 4; i++) {
                sem_post(&jobs[i].gate);
                while (stats_of(w).n_idle < i + 1)
                        sched_yield();
        }
        pthread_kill(jobs[3].thread, SIGUSR1);
        test_wait_for(&held);
        uint64_t before = stats_of(w).n_wakeups;
        for (size_t i = 4; i < 8; i++)
                workers_put(w, &jobs[i].runnable);
        ck_assert_uint_eq(stats_of(w).n_wakeups - before, 1);
        ck_assert_int_eq(write(hold_pipe[1], "x", 1), 1);
        for (size_t i = 4; i < 8; i++)
                test_wait_for(&jobs[i].began); /* all at once, though one was woken */
        ck_assert_uint_eq(stats_of(w).n_wakeups - before, 4);
        for (size_t i = 4; i < 8; i++)
                sem_post(&jobs[i].gate);
        workers_free(w);
        close(hold_pipe[0]);
        close(hold_pipe[1]);
}

/* ---- many threads ---- */

enum { N_PUTTERS = 4, N_PUTS = 5000 };

typedef struct Token {
        Runnable runnable; /* first */
        atomic_uint n_pending;
        uint64_t n_done; /* not atomic: run() of one Runnable is never on two threads */
} Token;

static Token tokens[16];

static void run_token(Runnable *r) {
        Token *t = (Token *)r;
        t->n_done++;
        if (atomic_fetch_sub(&t->n_pending, 1) > 1)
                workers_put_back(atomic_load(&the_workers), r);
}

static void *put_all_the_time(void *arg) {
        uint64_t random = (uint64_t)(uintptr_t)&random;
        for (size_t i = 0; i < N_PUTS; i++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                Token *t = &tokens[random >> 60];
                if (atomic_fetch_add(&t->n_pending, 1) == 0)
                        workers_put(atomic_load(&the_workers), &t->runnable);
                if (random % 64 == 0)
                        sched_yield();
        }
        return NULL;
}

static void eager(WorkersParams *p) {
        p->idle_timeout_usec = 100; /* they come and go all the time */
        p->max_idle_ratio = 1000;
        p->spin_usec = 20;
}

TEST(nothing_is_lost_while_workers_come_and_go) {
        Workers *w = start(1, 8, eager);
        atomic_store(&the_workers, w);
        pthread_t threads[N_PUTTERS];
        for (size_t i = 0; i < ELEMENTSOF(tokens); i++)
                tokens[i].runnable.run = run_token;
        for (size_t i = 0; i < N_PUTTERS; i++)
                ck_assert_int_eq(pthread_create(&threads[i], NULL, put_all_the_time, NULL), 0);
        for (size_t i = 0; i < 20; i++) {
                ck_assert_int_eq(workers_set_limits(w, 1 + i % 3, 3 + i % 6), 0);
                sched_yield();
        }
        for (size_t i = 0; i < N_PUTTERS; i++)
                pthread_join(threads[i], NULL);
        workers_free(w);
        uint64_t n = 0;
        for (size_t i = 0; i < ELEMENTSOF(tokens); i++)
                n += tokens[i].n_done;
        ck_assert_uint_eq(n, (uint64_t)N_PUTTERS * N_PUTS);
}

TEST(an_idle_pool_gives_the_memory_of_gone_tasks_back) {
        static void *objects[100000];
        Slab *s;
        ck_assert_int_eq(slab_new(64, 16, false, &s), 0);
        for (size_t i = 0; i < ELEMENTSOF(objects); i++)
                objects[i] = slab_alloc(s);
        for (size_t i = 0; i < ELEMENTSOF(objects); i++)
                slab_free(s, objects[i]);
        Workers *w = start(1, 1, NULL);
        SlabStats stats;
        do {
                slab_get_stats(s, &stats);
                sched_yield();
        } while (stats.used_bytes > stats.mapped_bytes / 20); /* nobody asks for it: the worker does it by itself */
        workers_free(w);
        slab_destroy(s);
}

static WorkersNeed need_of(Workers *w) {
        uint64_t n;
        return workers_need(w, &n);
}

TEST(need_is_a_refused_thread_or_a_full_pool_and_that_all_are_busy_is_told_once) {
        Workers *w = start(1, 2, cool_down_for_ever);
        test_wait_for(&created);
        settle(w);
        ck_assert_int_eq(need_of(w), WORKERS_NO_NEED);
        fault_set(FAULT_WORKER, 1, true);
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&all_busy);
        test_wait_for(&failed);
        ck_assert_int_eq(need_of(w), WORKERS_REFUSED);
        workers_set_growth(w, false);
        ck_assert_int_eq(need_of(w), WORKERS_FULL);
        workers_set_growth(w, true);
        ck_assert_int_eq(workers_set_limits(w, 1, 1), 0);
        ck_assert_int_eq(need_of(w), WORKERS_FULL);
        uint64_t before, after;
        ck_assert_int_eq(workers_need(w, &before), WORKERS_FULL);
        workers_put(w, &jobs[1].runnable);
        sem_post(&jobs[0].gate);
        test_wait_for(&jobs[1].began);
        ck_assert_int_eq(workers_need(w, &after), WORKERS_FULL);
        ck_assert_uint_eq(after, before + 1);
        sem_post(&jobs[1].gate);
        settle(w);
        ck_assert_int_eq(need_of(w), WORKERS_NO_NEED);
        workers_free(w);
        ck_assert_int_eq(sem_trywait(&all_busy), -1); /* it was asked for when there was no need, and only then */
        fault_set(FAULT_WORKER, 0, false);
}

typedef struct Lent {
        size_t n;
        bool stays;
} Lent;

static bool on_lend(Runnable *r, void *arg) {
        Lent *lent = arg;
        lent->n++;
        return lent->stays;
}

/* Out of the beginning, the middle and the end of the line, and left in it. */
TEST(what_waits_can_be_lent_and_keeps_its_place_or_leaves) {
        Workers *w = start(1, 1, NULL);
        Lent lent = { .stays = true };
        workers_put(w, &jobs[0].runnable);
        test_wait_for(&jobs[0].began);
        ck_assert(!workers_lend(w, &jobs[0].runnable, on_lend, &lent)); /* it is being run */
        ck_assert(!workers_lend(w, &jobs[1].runnable, on_lend, &lent)); /* it was not put */
        ck_assert_uint_eq(lent.n, 0);
        for (size_t i = 1; i <= 6; i++)
                workers_put(w, &jobs[i].runnable);
        ck_assert(workers_lend(w, &jobs[2].runnable, on_lend, &lent));
        lent.stays = false;
        static const size_t taken[] = { 1, 4, 6 };
        for (size_t i = 0; i < ELEMENTSOF(taken); i++) {
                ck_assert(workers_lend(w, &jobs[taken[i]].runnable, on_lend, &lent));
                ck_assert(!workers_lend(w, &jobs[taken[i]].runnable, on_lend, &lent));
        }
        ck_assert_uint_eq(lent.n, 4);
        workers_put(w, &jobs[7].runnable); /* behind those that are left */
        workers_put(w, &jobs[4].runnable);
        sem_post(&jobs[0].gate);
        static const size_t order[] = { 2, 3, 5, 7, 4 };
        for (size_t i = 0; i < ELEMENTSOF(order); i++) {
                test_wait_for(&jobs[order[i]].began);
                sem_post(&jobs[order[i]].gate);
        }
        ck_assert_uint_eq(jobs[1].n_runs + jobs[6].n_runs, 0);
        lent.stays = false;
        workers_put(w, &jobs[0].runnable); /* and out of a line of one */
        test_wait_for(&jobs[0].began);
        workers_put(w, &jobs[1].runnable);
        ck_assert(workers_lend(w, &jobs[1].runnable, on_lend, &lent));
        ck_assert(!workers_has_waiting(w));
        sem_post(&jobs[0].gate);
        workers_free(w);
        ck_assert_uint_eq(jobs[1].n_runs, 0);
}

/* Who takes it out and puts it anew while workers come by: it runs as often as it was left in. */
TEST(what_is_lent_while_workers_take_it_runs_once_or_is_lent) {
        Workers *w = start(2, 2, NULL);
        jobs[0].runnable.run = ask_who;
        atomic_store(&the_workers, w);
        Lent lent = { 0 };
        for (size_t i = 0; i < 20000; i++) {
                workers_put(w, &jobs[0].runnable);
                if (i % 3)
                        sched_yield();
                if (!workers_lend(w, &jobs[0].runnable, on_lend, &lent))
                        test_wait_for(&jobs[0].ended);
        }
        workers_free(w);
}

RUN_TESTS("engine-workers", 60, test_what_is_put_runs_on_a_worker_once, test_a_worker_knows_that_it_is_one,
          test_a_worker_has_the_stack_of_the_settings, test_first_come_first_served,
          test_who_looks_out_finds_what_another_worker_has_collected,
          test_need_is_a_refused_thread_or_a_full_pool_and_that_all_are_busy_is_told_once,
          test_what_waits_can_be_lent_and_keeps_its_place_or_leaves,
          test_what_is_lent_while_workers_take_it_runs_once_or_is_lent,
          test_E15_workers_are_added_while_all_are_blocked_and_work_waits, test_E16_blocked_ones_up_to_max_and_no_more,
          test_limits_take_effect_while_they_work, test_a_refused_thread_is_asked_for_again_and_nothing_is_lost,
          test_without_any_worker_what_is_put_waits_for_the_first,
          test_without_any_worker_to_the_end_who_frees_runs_the_rest,
          test_without_a_manager_or_memory_there_are_no_workers,
          test_memory_that_is_refused_for_a_worker_is_asked_for_again, test_E2_a_single_worker_is_alone,
          test_idle_workers_go_after_the_time_out_and_two_stay,
          test_how_many_there_are_and_are_idle_can_be_seen_without_a_lock,
          test_min_workers_stay_and_shrink_sends_the_others_away_at_once,
          test_T_PSI_without_growth_there_is_no_worker_above_min_and_with_it_again_there_is,
          test_T_PSI_growth_is_back_also_for_what_comes_later, test_the_last_to_become_idle_is_the_first_to_be_woken,
          test_one_wakeup_is_in_flight_and_the_woken_wakes_the_next, test_nothing_is_lost_while_workers_come_and_go,
          test_an_idle_pool_gives_the_memory_of_gone_tasks_back)
