/* SPDX-License-Identifier: MIT */
/* The execution queue, row by row: E1..E16 are what it promises, D1, D2 and D4 the drawbacks it must answer. More rows of E2,
 * E15 and E16 are in engine-workers-test.c, of E4 in inbox-test.c; D3, tasks over several queues, is in barrier-test.c. */
#include "engine/xqueue.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "engine/submitter.h"
#include "engine/xholder.h"
#include "test.h"

enum { LOG_MAX = 4096, MSEC = 1000 };

typedef struct Item {
        XTask task; /* first */
        unsigned number;
} Item;

/* A queue that writes down what it runs. Task number 0 waits at the gate. */
typedef struct Log {
        uint64_t id;
        unsigned numbers[LOG_MAX];
        atomic_uint n, n_calls, n_returned, n_stopped, n_canceled, n_released;
        atomic_int n_inside, n_inside_max;
        unsigned n_per_call; /* tasks to take; 0: all */
        _Atomic(pthread_t) thread;
        sem_t began, gate, stopped;
        void (*hook)(struct Log *l, unsigned number); /* what a task does beside */
} Log;

static XQueues xs;
static Workers *workers;
static Slab *slab;

static void run_item(Log *l, const Item *item) {
        int inside = atomic_fetch_add(&l->n_inside, 1) + 1, max = atomic_load(&l->n_inside_max);
        while (inside > max && !atomic_compare_exchange_weak(&l->n_inside_max, &max, inside))
                ;
        l->thread = pthread_self();
        l->numbers[atomic_fetch_add(&l->n, 1) % LOG_MAX] = item->number;
        if (item->number == 0) {
                sem_post(&l->began);
                test_wait_for(&l->gate);
        }
        if (l->hook)
                l->hook(l, item->number);
        atomic_fetch_sub(&l->n_inside, 1);
}

static void log_execute(void *meta, XBatch *b) {
        Log *l = meta;
        unsigned n = 0;
        atomic_fetch_add(&l->n_calls, 1);
        if (xbatch_is_stopped(b)) {
                ck_assert_ptr_null(xbatch_next(b));
                atomic_fetch_add(&l->n_stopped, 1);
                sem_post(&l->stopped);
                return;
        }
        for (XTask *t; (l->n_per_call == 0 || n < l->n_per_call) && (t = xbatch_next(b)); n++)
                run_item(l, (Item *)t);
        atomic_fetch_add(&l->n_returned, 1);
}

static void log_canceled(void *meta, XTask *t) {
        ck_assert_uint_ne(((Item *)t)->number, UINT32_MAX);
        atomic_fetch_add(&((Log *)meta)->n_canceled, 1);
}

static void log_release(void *meta, XTask *t) {
        atomic_fetch_add(&((Log *)meta)->n_released, 1);
        ((Item *)t)->number = UINT32_MAX;
        slab_free(slab, t);
}

static const XQueueOps plain_ops = { .execute = log_execute };
static const XQueueOps telling_ops = { .execute = log_execute, .canceled = log_canceled, .release = log_release };

static XQueueOptions options(void) {
        XQueueOptions o = XQUEUE_OPTIONS_DEFAULT;
        o.workers = workers;
        o.slab = slab;
        return o;
}

static void set_up(unsigned n_workers) {
        WorkersParams p = WORKERS_PARAMS_DEFAULT;
        p.max = n_workers;
        ck_assert_int_eq(workers_new(&p, &workers), 0);
        WorkersStats stats = { 0 };
        while (stats.n_workers == 0) { /* it asks for a thread, which would meet faults that are meant for others */
                sched_yield();
                workers_get_stats(workers, &stats);
        }
        ck_assert_int_eq(slab_new(sizeof(Item), 16, false, &slab), 0);
        ck_assert_int_eq(xqueues_init(&xs), 0);
}

static void tear_down(void) {
        workers = workers_free(workers);
        xqueues_deinit(&xs);
        slab = slab_destroy(slab);
}

static void open_log(Log *l, const XQueueOptions *o, const XQueueOps *ops) {
        XQueueOptions defaults = options();
        *l = (Log) { 0 };
        sem_init(&l->began, 0, 0);
        sem_init(&l->gate, 0, 0);
        sem_init(&l->stopped, 0, 0);
        ck_assert_int_eq(xqueue_start(&xs, o ? o : &defaults, ops, l, &l->id), 0);
}

static void close_log(Log *l) {
        ck_assert_int_eq(xqueue_stop(&xs, l->id), 0);
        ck_assert_int_eq(xqueue_join(&xs, l->id), 0);
        ck_assert_uint_eq(l->n_stopped, 1);
}

static int try_put(uint64_t id, unsigned number, unsigned flags, XTaskRef *ret_ref) {
        Item *item = slab_alloc(slab);
        item->number = number;
        int r = xqueue_submit(&xs, id, &item->task, 100, flags, ret_ref);
        if (r < 0)
                slab_free(slab, item);
        return r;
}

static XTaskRef put(Log *l, unsigned number, unsigned flags) {
        XTaskRef ref;
        ck_assert_int_eq(try_put(l->id, number, flags, &ref), 0);
        return ref;
}

/* The queue runs task 0, which stands at the gate. */
static XTaskRef block(Log *l) {
        XTaskRef ref = put(l, 0, 0);
        test_wait_for(&l->began);
        return ref;
}

static void unblock(Log *l) {
        sem_post(&l->gate);
}

static XQueueStats stats_of(Log *l) {
        XQueueStats stats;
        ck_assert_int_eq(xqueue_get_stats(&xs, l->id, &stats), 0);
        return stats;
}

static void log_is(const Log *l, unsigned n, const unsigned *numbers) {
        ck_assert_uint_eq(l->n, n);
        for (unsigned i = 0; i < n; i++)
                ck_assert_uint_eq(l->numbers[i], numbers[i]);
}
#define LOG_IS(l, ...)                                                                                                 \
        log_is((l), sizeof((const unsigned[]) { __VA_ARGS__ }) / sizeof(unsigned), (const unsigned[]) { __VA_ARGS__ })

/* ---- E1, E2: start ---- */

TEST(E1_start_gives_an_id_or_an_error) {
        set_up(2);
        Log l;
        uint64_t id;
        XQueueOptions o = options();
        open_log(&l, NULL, &plain_ops);
        put(&l, 1, 0);
        close_log(&l);
        LOG_IS(&l, 1);
        ck_assert_int_eq(xqueue_start(&xs, NULL, &plain_ops, &l, &id), -EINVAL); /* nobody to run it */
        ck_assert_int_eq(xqueue_start(&xs, &o, NULL, &l, &id), -EINVAL);
        o.slab = NULL;
        ck_assert_int_eq(xqueue_start(&xs, &o, &plain_ops, &l, &id), -EINVAL); /* no way to release */
        o = options();
        o.max_active = 0;
        ck_assert_int_eq(xqueue_start(&xs, &o, &plain_ops, &l, &id), -EINVAL);
        o = options();
        o.batch_max = 0;
        ck_assert_int_eq(xqueue_start(&xs, &o, &plain_ops, &l, &id), -EINVAL);
        o = options();
        o.max_tasks = XQUEUE_TASKS_MAX + 1;
        ck_assert_int_eq(xqueue_start(&xs, &o, &plain_ops, &l, &id), -EINVAL);
        tear_down();
}

TEST(E1_start_without_memory_or_thread_leaves_nothing_behind) {
        set_up(1);
        Log l = { 0 };
        uint64_t id;
        XQueueOptions o = options();
        o.dedicated = &WORKERS_PARAMS_DEFAULT;
        fault_set(FAULT_WORKER, 1, false);
        ck_assert_int_eq(xqueue_start(&xs, &o, &plain_ops, &l, &id), -EAGAIN);
        ck_assert_uint_eq(xs.registry.n_used, 0);
        slab_trim(xs.slab);
        long nth = 0;
        for (int r = -ENOMEM; r < 0;) {
                fault_set(FAULT_ALLOC, ++nth, false);
                r = xqueue_start(&xs, &o, &plain_ops, &l, &id);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert(r == 0 || r == -ENOMEM);
                ck_assert_uint_eq(xs.registry.n_used, r == 0);
        }
        ck_assert_int_ge(nth, 4); /* the thread, and what it is made of */
        l.id = id;
        sem_init(&l.stopped, 0, 0);
        close_log(&l);
        tear_down();
}

TEST(E2_a_dedicated_queue_has_a_thread_of_its_own) {
        set_up(1);
        Log l, other;
        XQueueOptions o = options();
        o.workers = NULL;
        o.dedicated = &WORKERS_PARAMS_DEFAULT;
        open_log(&l, &o, &plain_ops);
        open_log(&other, NULL, &plain_ops);
        block(&other); /* the only worker */
        block(&l);
        pthread_t first = l.thread;
        unblock(&l);
        for (unsigned i = 1; i < 1000; i++)
                put(&l, i, 0);
        close_log(&l);
        ck_assert(pthread_equal(first, l.thread));
        ck_assert(!pthread_equal(first, other.thread));
        for (unsigned i = 0; i < 1000; i++)
                ck_assert_uint_eq(l.numbers[i], i);
        unblock(&other);
        close_log(&other);
        tear_down();
}

/* Its last call says so, and returns when the test's thread sleeps: that waits for it then. */
static void execute_and_leave_late(void *meta, XBatch *b) {
        char text[256], *end;
        log_execute(meta, b);
        if (!xbatch_is_stopped(b))
                return;
        do {
                FILE *f = fopen("/proc/self/stat", "re"); /* of the thread that leads the process */
                ck_assert(f && fgets(text, sizeof(text), f));
                (void)fclose(f);
                end = strrchr(text, ')');
        } while (!end || end[2] != 'S');
}

TEST(E2_the_end_of_all_waits_for_a_dedicated_thread_whose_last_call_was_made) {
        static const XQueueOps ops = { .execute = execute_and_leave_late };
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.workers = NULL;
        o.dedicated = &WORKERS_PARAMS_DEFAULT;
        open_log(&l, &o, &ops);
        ck_assert_int_eq(xqueue_stop(&xs, l.id), 0);
        while (sem_trywait(&l.stopped) != 0) /* does not sleep */
                sched_yield();
        xqueues_deinit(&xs);
        workers = workers_free(workers);
        slab = slab_destroy(slab);
}

/* ---- E3, E4, E5, E6: order, submit, batches ---- */

TEST(E3_tasks_run_in_order_one_at_a_time_elsewhere) {
        set_up(4);
        Log l;
        open_log(&l, NULL, &plain_ops);
        for (unsigned i = 1; i <= 2000; i++)
                put(&l, i, 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, 2000);
        for (unsigned i = 0; i < 2000; i++)
                if (l.numbers[i] != i + 1)
                        ck_abort_msg("task %u ran as number %u", l.numbers[i], i + 1);
        ck_assert_int_eq(l.n_inside_max, 1);
        ck_assert(!pthread_equal(l.thread, pthread_self()));
        tear_down();
}

typedef struct Submitter {
        Log *log;
        unsigned id;
} Submitter;

enum { N_SUBMITTERS = 8, N_EACH = 400 };

static void *submit_many(void *arg) {
        const Submitter *s = arg;
        for (unsigned i = 1; i <= N_EACH; i++)
                put(s->log, s->id << 16 | i, 0);
        return NULL;
}

TEST(E4_many_threads_submit_and_each_finds_its_order) {
        set_up(4);
        Log l;
        pthread_t threads[N_SUBMITTERS];
        Submitter submitters[N_SUBMITTERS];
        unsigned last[N_SUBMITTERS] = { 0 };
        open_log(&l, NULL, &plain_ops);
        for (unsigned i = 0; i < N_SUBMITTERS; i++) {
                submitters[i] = (Submitter) { &l, i };
                ck_assert_int_eq(pthread_create(&threads[i], NULL, submit_many, &submitters[i]), 0);
        }
        for (unsigned i = 0; i < N_SUBMITTERS; i++)
                pthread_join(threads[i], NULL);
        close_log(&l);
        ck_assert_uint_eq(l.n, N_SUBMITTERS * N_EACH);
        for (unsigned i = 0; i < l.n; i++)
                if ((l.numbers[i] & 0xffff) != ++last[l.numbers[i] >> 16])
                        ck_abort_msg("out of order");
        tear_down();
}

TEST(E5_a_task_belongs_to_the_queue_until_it_is_released_once) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &telling_ops);
        block(&l);
        put(&l, 1, 0);
        XTaskRef ref = put(&l, 2, 0);
        ck_assert_uint_eq(l.n_released, 0);
        ck_assert_int_eq(xqueue_cancel(ref), 0);
        ck_assert_uint_eq(l.n_canceled, 1);
        unblock(&l);
        close_log(&l);
        LOG_IS(&l, 0, 1);
        ck_assert_uint_eq(l.n_released, 3);
        tear_down();
}

TEST(E6_one_call_gets_all_there_is_up_to_batch_max) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.batch_max = 10;
        open_log(&l, &o, &plain_ops);
        block(&l); /* taken as the first of its batch */
        for (unsigned i = 1; i < 25; i++)
                put(&l, i, 0);
        ck_assert_uint_eq(l.n_calls, 1);
        unblock(&l);
        close_log(&l);
        ck_assert_uint_eq(l.n, 25);
        ck_assert_uint_eq(l.n_calls, 4); /* 10, 10, 5, stopped */
        tear_down();
}

TEST(E6_what_a_batch_has_not_taken_is_pending_and_keeps_its_place) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        l.n_per_call = 2;
        block(&l);
        XTaskRef refs[6];
        for (unsigned i = 1; i < 6; i++)
                refs[i] = put(&l, i, 0);
        ck_assert_uint_eq(stats_of(&l).n_tasks, 6);  /* the running one, too */
        ck_assert_int_eq(xqueue_cancel(refs[1]), 0); /* the next one of the batch that is on its way */
        ck_assert_uint_eq(stats_of(&l).n_tasks, 5);
        unblock(&l);
        close_log(&l);
        LOG_IS(&l, 0, 2, 3, 4, 5);
        ck_assert_uint_eq(l.n_calls, 4);
        tear_down();
}

static atomic_uint n_refusals;

static void execute_reluctantly(void *meta, XBatch *b) {
        if (!xbatch_is_stopped(b) && atomic_fetch_add(&n_refusals, 1) < 3)
                return; /* nothing taken */
        log_execute(meta, b);
}

TEST(E6_a_batch_that_takes_nothing_loses_nothing) {
        static const XQueueOps ops = { .execute = execute_reluctantly };
        set_up(1);
        Log l;
        open_log(&l, NULL, &ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        put(&l, 2, 0);
        put(&l, 3, 0);
        put(&l, 1, XSUBMIT_URGENT);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        LOG_IS(&l, 1, 2, 3);
        tear_down();
}

/* It had given the token up when it joined, as there was nothing else to start. */
TEST(E6_a_batch_of_a_parallel_queue_that_takes_nothing_loses_nothing) {
        static const XQueueOps ops = { .execute = execute_reluctantly };
        set_up(2);
        Log l;
        XQueueOptions o = options();
        o.max_active = 2;
        atomic_store(&n_refusals, 0);
        open_log(&l, &o, &ops);
        put(&l, 1, 0);
        while (atomic_load(&l.n) < 1)
                sched_yield();
        close_log(&l);
        LOG_IS(&l, 1);
        tear_down();
}

TEST(E6_a_batch_lingers_for_more_and_stops_when_it_is_full) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.batch_linger_usec = 3600 * UINT64_C(1000000);
        o.batch_max = 4;
        open_log(&l, &o, &plain_ops);
        for (unsigned round = 0; round < 3; round++)
                for (unsigned i = 1; i <= 4; i++)
                        put(&l, round * 4 + i, 0);
        while (atomic_load(&l.n) < 12)
                sched_yield();
        put(&l, 13, 0);
        while (atomic_load(&l.n) < 13)
                sched_yield();
        ck_assert_uint_eq(l.n_calls, 4); /* the last one lingers, and stop ends that */
        close_log(&l);
        tear_down();
}

TEST(E6_the_time_ends_the_lingering) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.batch_linger_usec = 1000;
        open_log(&l, &o, &plain_ops);
        put(&l, 1, 0);
        while (atomic_load(&l.n_returned) < 1)
                sched_yield();
        LOG_IS(&l, 1);
        close_log(&l);
        tear_down();
}

/* Does the holder of the queue wait for more tasks? */
static bool lingers(XQueues *set, uint64_t id) {
        XQueue *q = xqueue_pin(set, id);
        bool yes = q && (load_seq_cst(&q->head.life) & XHEAD_LINGER) != 0;
        if (q)
                xqueue_unpin(q);
        return yes;
}

TEST(E6_a_pause_ends_the_lingering) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.batch_linger_usec = 3600 * UINT64_C(1000000);
        open_log(&l, &o, &plain_ops);
        put(&l, 1, 0);
        while (!lingers(&xs, l.id))
                sched_yield();
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        while (atomic_load(&l.n_returned) < 1)
                sched_yield();
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        tear_down();
}

/* Of a parallel queue no batch waits. */
TEST(E6_another_max_active_ends_the_lingering) {
        set_up(2);
        Log l;
        XQueueOptions o = options();
        o.batch_linger_usec = 3600 * UINT64_C(1000000);
        open_log(&l, &o, &plain_ops);
        put(&l, 1, 0);
        while (!lingers(&xs, l.id))
                sched_yield();
        put(&l, 2, 0);
        ck_assert_int_eq(xqueue_set_max_active(&xs, l.id, 2), 0);
        while (atomic_load(&l.n) < 2)
                sched_yield();
        close_log(&l);
        tear_down();
}

/* It cannot get as long as a batch may be; nor if it is the bytes that it has no room for. */
TEST(E6_a_queue_that_is_full_does_not_linger_on) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.batch_linger_usec = 3600 * UINT64_C(1000000);
        o.max_tasks = 3;
        open_log(&l, &o, &plain_ops);
        for (unsigned round = 0; round < 3; round++) {
                for (unsigned i = 0; i < 3; i++)
                        put(&l, 1, 0);
                while (!lingers(&xs, l.id))
                        sched_yield();
                while (try_put(l.id, 2, 0, NULL) == 0)
                        ;
                while (stats_of(&l).n_tasks > 0)
                        sched_yield();
                if (round == 1)
                        ck_assert_int_eq(xqueue_set_limits(&xs, l.id, 1000, 350), 0);
        }
        close_log(&l);
        tear_down();
}

TEST(E6_an_urgent_task_ends_the_lingering) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.batch_linger_usec = 3600 * UINT64_C(1000000);
        open_log(&l, &o, &plain_ops);
        put(&l, 1, 0);
        while (atomic_load(&l.n) < 1)
                sched_yield();
        put(&l, 2, XSUBMIT_URGENT);
        while (atomic_load(&l.n) < 2)
                sched_yield();
        close_log(&l);
        LOG_IS(&l, 1, 2);
        tear_down();
}

/* ---- E7: urgent ---- */

TEST(E7_urgent_tasks_go_first_in_their_own_order) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        block(&l);
        put(&l, 1, 0);
        put(&l, 10, XSUBMIT_URGENT);
        put(&l, 2, 0);
        put(&l, 11, XSUBMIT_URGENT);
        put(&l, 12, XSUBMIT_URGENT);
        unblock(&l);
        close_log(&l);
        LOG_IS(&l, 0, 10, 11, 12, 1, 2);
        tear_down();
}

static void put_urgent_in_between(Log *l, unsigned number) {
        if (number == 5)
                put(l, 100, XSUBMIT_URGENT);
}

TEST(E7_an_urgent_task_goes_before_the_rest_of_a_batch) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        l.hook = put_urgent_in_between;
        block(&l);
        for (unsigned i = 1; i < 10; i++)
                put(&l, i, 0);
        unblock(&l);
        while (atomic_load(&l.n) < 11)
                sched_yield();
        close_log(&l);
        LOG_IS(&l, 0, 1, 2, 3, 4, 5, 100, 6, 7, 8, 9);
        tear_down();
}

TEST(E7_an_urgent_task_wakes_an_idle_queue) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        for (unsigned i = 1; i < 100; i++) {
                put(&l, i, XSUBMIT_URGENT);
                while (atomic_load(&l.n) < i)
                        sched_yield();
        }
        close_log(&l);
        tear_down();
}

/* ---- E8, E9: in place, executors ---- */

static Log *other_log;
static atomic_bool was_in_place;

static void submit_to_other(Log *l, unsigned number) {
        unsigned before = atomic_load(&other_log->n);
        put(other_log, number + 1000, XSUBMIT_IN_PLACE);
        atomic_store(&was_in_place, atomic_load(&other_log->n) > before);
}

TEST(E8_in_place_runs_inside_the_submit_on_a_worker_only) {
        set_up(2);
        Log l, other;
        open_log(&l, NULL, &plain_ops);
        open_log(&other, NULL, &plain_ops);
        other_log = &other;
        l.hook = submit_to_other;
        put(&l, 1, XSUBMIT_IN_PLACE); /* from here: an ordinary submit */
        close_log(&l);
        ck_assert(!pthread_equal(l.thread, pthread_self()));
        ck_assert(atomic_load(&was_in_place));
        ck_assert(pthread_equal(l.thread, other.thread));
        close_log(&other);
        tear_down();
}

TEST(E8_in_place_is_an_ordinary_submit_to_a_queue_that_is_busy) {
        set_up(2);
        Log l, other;
        open_log(&l, NULL, &plain_ops);
        open_log(&other, NULL, &plain_ops);
        other_log = &other;
        l.hook = submit_to_other;
        block(&other);
        put(&l, 1, 0);
        close_log(&l);
        ck_assert(!atomic_load(&was_in_place));
        unblock(&other);
        close_log(&other);
        LOG_IS(&other, 0, 1001);
        tear_down();
}

enum { N_CHAIN = 50 };
static Log chain[N_CHAIN];
static atomic_uint chain_depth, chain_depth_max, chain_left;

/* Queue i submits to queue i + 1, in place, and the last one to the first. */
static void submit_to_next(Log *l, unsigned number) {
        unsigned d = atomic_fetch_add(&chain_depth, 1) + 1;
        if (d > atomic_load(&chain_depth_max))
                atomic_store(&chain_depth_max, d);
        if (atomic_fetch_sub(&chain_left, 1) > 0)
                put(&chain[(size_t)(l - chain + 1) % N_CHAIN], number, XSUBMIT_IN_PLACE);
        atomic_fetch_sub(&chain_depth, 1);
}

static void run_chain(unsigned n) {
        atomic_store(&chain_left, n);
        put(&chain[0], 1, 0);
        for (size_t i = 0;; i = (i + 1) % N_CHAIN) {
                unsigned n_run = 0;
                for (size_t k = 0; k < N_CHAIN; k++)
                        n_run += atomic_load(&chain[k].n);
                if (n_run == n + 1)
                        break;
                sched_yield();
        }
        for (size_t i = 0; i < N_CHAIN; i++)
                close_log(&chain[i]);
}

TEST(E8_queues_that_submit_to_each_other_do_not_recurse_for_ever) {
        set_up(1);
        for (size_t i = 0; i < N_CHAIN; i++) {
                open_log(&chain[i], NULL, &plain_ops);
                chain[i].hook = submit_to_next;
        }
        run_chain(1000);
        ck_assert_uint_gt(atomic_load(&chain_depth_max), 1);
        ck_assert_uint_le(atomic_load(&chain_depth_max), XQUEUE_DEPTH_MAX);
        tear_down();
}

static void run_at_once(XExecutor *x, XQueue *q) {
        xqueue_run(q);
}

TEST(E9_with_a_synchronous_executor_every_submit_is_in_place) {
        static XExecutor executor = { .run = run_at_once };
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.executor = &executor;
        open_log(&l, &o, &plain_ops);
        for (unsigned i = 1; i <= 10; i++) {
                put(&l, i, 0);
                ck_assert_uint_eq(l.n, i);
        }
        ck_assert(pthread_equal(l.thread, pthread_self()));
        close_log(&l);
        tear_down();
}

TEST(E9_a_synchronous_executor_does_not_recurse_for_ever) {
        static XExecutor executor = { .run = run_at_once };
        set_up(1);
        XQueueOptions o = options();
        o.executor = &executor;
        for (size_t i = 0; i < N_CHAIN; i++) {
                open_log(&chain[i], &o, &plain_ops);
                chain[i].hook = submit_to_next;
        }
        run_chain(1000);
        ck_assert_uint_le(atomic_load(&chain_depth_max), XQUEUE_DEPTH_MAX);
        o.max_active = 2;
        ck_assert_int_eq(xqueue_start(&xs, &o, &plain_ops, NULL, &(uint64_t) { 0 }), -EINVAL);
        tear_down();
}

/* Some of them are the workers', where nobody but the worker itself comes back to what had to wait for its depth. */
TEST(E9_a_synchronous_executor_on_a_worker_leaves_nothing_behind) {
        static XExecutor executor = { .run = run_at_once };
        set_up(1);
        XQueueOptions o = options();
        for (size_t i = 0; i < N_CHAIN; i++) {
                o.executor = i % 3 == 0 ? NULL : &executor;
                open_log(&chain[i], &o, &plain_ops);
                chain[i].hook = submit_to_next;
        }
        run_chain(1000);
        ck_assert_uint_le(atomic_load(&chain_depth_max), XQUEUE_DEPTH_MAX);
        tear_down();
}

/* Until all of the chain have run. */
static void feed_itself(Log *l, unsigned number) {
        if (number == 1)
                submit_to_next(l, 2);
        if (atomic_load(&chain[2 * XQUEUE_DEPTH_MAX].n) == 0)
                put(l, 2, 0);
}

TEST(E9_what_had_to_wait_for_a_worker_does_not_wait_for_a_queue_that_is_fed) {
        static XExecutor executor = { .run = run_at_once };
        set_up(1);
        XQueueOptions o = options();
        for (size_t i = 0; i <= 2 * XQUEUE_DEPTH_MAX; i++) {
                open_log(&chain[i], &o, &plain_ops);
                chain[i].hook = i == 0 ? feed_itself : submit_to_next;
                o.executor = &executor;
        }
        atomic_store(&chain_left, 2 * XQUEUE_DEPTH_MAX);
        put(&chain[0], 1, 0);
        while (atomic_load(&chain[2 * XQUEUE_DEPTH_MAX].n) == 0)
                sched_yield();
        for (size_t i = 0; i <= 2 * XQUEUE_DEPTH_MAX; i++)
                close_log(&chain[i]);
        tear_down();
}

static XQueue *kept;
static void keep_for_later(XExecutor *x, XQueue *q) {
        kept = q;
}

TEST(E9_an_executor_may_run_the_queue_later) {
        static XExecutor executor = { .run = keep_for_later };
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.executor = &executor;
        open_log(&l, &o, &plain_ops);
        put(&l, 1, 0);
        put(&l, 2, 0);
        ck_assert_uint_eq(l.n, 0);
        xqueue_run(kept);
        LOG_IS(&l, 1, 2);
        ck_assert_int_eq(xqueue_stop(&xs, l.id), 0);
        xqueue_run(kept);
        ck_assert_uint_eq(l.n_stopped, 1);
        tear_down();
}

/* ---- E10: cancel ---- */

TEST(E10_cancel_says_0_1_or_minus_1) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        XTaskRef running = block(&l), pending = put(&l, 1, 0), urgent = put(&l, 2, XSUBMIT_URGENT),
                 last = put(&l, 3, 0);
        ck_assert_int_eq(xqueue_cancel(running), 1);
        ck_assert_int_eq(xqueue_cancel(pending), 0);
        ck_assert_int_eq(xqueue_cancel(pending), -1);
        ck_assert_int_eq(xqueue_cancel(urgent), 0);
        ck_assert_int_eq(xqueue_cancel((XTaskRef) { 0 }), -1);
        ck_assert_int_eq(xqueue_cancel((XTaskRef) { last.task, last.ticket + 2 }), -1);
        ck_assert_uint_eq(stats_of(&l).n_canceled, 2);
        unblock(&l);
        close_log(&l);
        LOG_IS(&l, 0, 3);
        ck_assert_int_eq(xqueue_cancel(running), -1);
        ck_assert_int_eq(xqueue_cancel(last), -1);
        tear_down();
}

TEST(E10_a_stale_reference_never_hits_another_task) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        XTaskRef refs[500];
        for (unsigned round = 0; round < 20; round++) { /* the same memory again and again */
                block(&l);
                for (unsigned i = 0; i < 500; i++) {
                        XTaskRef ref = put(&l, i + 1, 0);
                        if (round > 0)
                                ck_assert_int_eq(xqueue_cancel(refs[i]), -1);
                        refs[i] = ref;
                }
                for (unsigned i = 0; i < 500; i += 2)
                        ck_assert_int_eq(xqueue_cancel(refs[i]), 0);
                unblock(&l);
                while (stats_of(&l).n_tasks > 0)
                        sched_yield();
                if (round % 5 == 0)
                        slab_trim(slab); /* reads as zeros now */
                for (unsigned i = 0; i < 500; i++)
                        ck_assert_int_eq(xqueue_cancel(refs[i]), -1);
        }
        close_log(&l);
        ck_assert_uint_eq(l.n, 20 * 251);
        tear_down();
}

/* ---- E11, E12, E13: stop and join ---- */

TEST(E11_stop_refuses_later_submits_and_runs_what_is_pending) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        block(&l);
        put(&l, 1, 0);
        put(&l, 2, XSUBMIT_URGENT);
        for (unsigned i = 0; i < 3; i++)
                ck_assert_int_eq(xqueue_stop(&xs, l.id), 0);
        ck_assert_int_eq(try_put(l.id, 3, 0, NULL), -ESHUTDOWN);
        ck_assert_int_eq(try_put(l.id, 3, XSUBMIT_URGENT, NULL), -ESHUTDOWN);
        ck_assert(stats_of(&l).stopped);
        ck_assert_uint_eq(l.n_stopped, 0);
        unblock(&l);
        close_log(&l);
        LOG_IS(&l, 0, 2, 1);
        ck_assert_int_eq(xqueue_stop(&xs, l.id), 0); /* long after */
        ck_assert_int_eq(xqueue_stop(&xs, l.id + 1), -ENOENT);
        tear_down();
}

static void stop_yourself(Log *l, unsigned number) {
        ck_assert_int_eq(xqueue_stop(&xs, l->id), 0);
}

TEST(E11_a_task_may_stop_its_own_queue) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        l.hook = stop_yourself;
        put(&l, 1, 0);
        ck_assert_int_eq(xqueue_join(&xs, l.id), 0);
        ck_assert_uint_eq(l.n_stopped, 1);
        tear_down();
}

TEST(E12_stopped_comes_exactly_once_and_last) {
        set_up(4);
        static Log logs[200];
        for (unsigned i = 0; i < 200; i++) {
                XQueueOptions o = options();
                o.max_active = 1 + i % 3;
                open_log(&logs[i], &o, &plain_ops);
                for (unsigned k = 0; k < i; k++)
                        put(&logs[i], k + 1, k % 7 == 0 ? XSUBMIT_URGENT : 0);
                ck_assert_int_eq(xqueue_stop(&xs, logs[i].id), 0);
        }
        for (unsigned i = 0; i < 200; i++) {
                close_log(&logs[i]);
                ck_assert_uint_eq(logs[i].n, i); /* all of them before */
                ck_assert_int_eq(sem_trywait(&logs[i].stopped), 0);
                ck_assert_int_eq(sem_trywait(&logs[i].stopped), -1);
        }
        tear_down();
}

TEST(E12_a_queue_that_never_had_a_task_is_stopped_too) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        close_log(&l);
        ck_assert_uint_eq(l.n, 0);
        tear_down();
}

TEST(E12_tasks_that_were_all_canceled_do_not_hold_up_the_end) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        XTaskRef refs[100];
        for (unsigned i = 0; i < 100; i++)
                refs[i] = put(&l, i + 1, 0);
        ck_assert_int_eq(xqueue_stop(&xs, l.id), 0);
        for (unsigned i = 0; i < 100; i++)
                ck_assert_int_eq(xqueue_cancel(refs[i]), 0);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, 0);
        tear_down();
}

static void *join_it(void *arg) {
        ck_assert_int_eq(xqueue_join(&xs, *(uint64_t *)arg), 0);
        return NULL;
}

TEST(E13_join_waits_for_the_end_and_is_repeatable) {
        set_up(1);
        Log l;
        pthread_t threads[4];
        open_log(&l, NULL, &plain_ops);
        block(&l);
        for (unsigned i = 0; i < 4; i++)
                ck_assert_int_eq(pthread_create(&threads[i], NULL, join_it, &l.id), 0);
        ck_assert_int_eq(xqueue_stop(&xs, l.id), 0);
        ck_assert_uint_eq(l.n_stopped, 0);
        unblock(&l);
        for (unsigned i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
        ck_assert_uint_eq(l.n_stopped, 1);
        for (unsigned i = 0; i < 3; i++)
                ck_assert_int_eq(xqueue_join(&xs, l.id), 0);
        ck_assert_int_eq(xqueue_join(&xs, l.id + 1), -ENOENT);
        tear_down();
}

static atomic_int join_result;

static void join_yourself(Log *l, unsigned number) {
        atomic_store(&join_result, xqueue_join(&xs, l->id));
}

TEST(E13_a_task_that_joins_its_own_queue_is_told_so) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        l.hook = join_yourself;
        put(&l, 1, 0);
        close_log(&l);
        ck_assert_int_eq(atomic_load(&join_result), -EDEADLK);
        tear_down();
}

/* ---- E14: ids ---- */

TEST(E14_a_stale_id_is_refused_cleanly_whoever_has_its_place) {
        set_up(1);
        Log old, l;
        open_log(&old, NULL, &plain_ops);
        close_log(&old);
        for (unsigned i = 0; i < 3000; i++) { /* the slot comes round */
                open_log(&l, NULL, &plain_ops);
                ck_assert_uint_ne(l.id, old.id);
                if (i % 100 == 0) {
                        ck_assert_int_eq(try_put(old.id, 1, 0, NULL), -ENOENT);
                        ck_assert_int_eq(try_put(old.id, 1, XSUBMIT_URGENT, NULL), -ENOENT);
                        ck_assert_int_eq(xqueue_pause(&xs, old.id), -ENOENT);
                        ck_assert_int_eq(xqueue_resume(&xs, old.id), -ENOENT);
                        ck_assert_int_eq(xqueue_set_max_active(&xs, old.id, 2), -ENOENT);
                        ck_assert_int_eq(xqueue_set_limits(&xs, old.id, 2, 2), -ENOENT);
                        ck_assert_int_eq(xqueue_get_stats(&xs, old.id, &(XQueueStats) { 0 }), -ENOENT);
                        ck_assert_int_eq(xqueue_stop(&xs, old.id), 0); /* has happened */
                        ck_assert_int_eq(xqueue_join(&xs, old.id), 0);
                }
                close_log(&l);
                ck_assert_uint_eq(l.n, 0);
        }
        ck_assert_int_eq(try_put(0, 1, 0, NULL), -ENOENT);
        ck_assert_int_eq(try_put(UINT64_MAX, 1, 0, NULL), -ENOENT);
        tear_down();
}

/* ---- E15, E16, D1: workers ---- */

TEST(E15_with_enough_workers_all_busy_queues_run_at_once) {
        set_up(16);
        static Log logs[16];
        for (unsigned i = 0; i < 16; i++) {
                open_log(&logs[i], NULL, &plain_ops);
                block(&logs[i]); /* all the others stand at their gates */
        }
        for (unsigned i = 0; i < 16; i++) {
                unblock(&logs[i]);
                close_log(&logs[i]);
        }
        tear_down();
}

TEST(E16_a_task_that_blocks_does_not_hold_up_other_queues) {
        set_up(2);
        Log l, other;
        open_log(&l, NULL, &plain_ops);
        open_log(&other, NULL, &plain_ops);
        block(&l);
        put(&l, 1, 0);
        for (unsigned i = 1; i <= 100; i++)
                put(&other, i, 0);
        close_log(&other);
        ck_assert_uint_eq(other.n, 100);
        ck_assert_uint_eq(l.n, 1);
        unblock(&l);
        close_log(&l);
        tear_down();
}

TEST(D1_max_active_runs_so_many_at_once_and_no_more) {
        set_up(16);
        Log l;
        XQueueOptions o = options();
        o.max_active = 4;
        open_log(&l, &o, &plain_ops);
        for (unsigned i = 0; i < 12; i++)
                put(&l, 0, 0);
        for (unsigned i = 0; i < 4; i++)
                test_wait_for(&l.began);
        ck_assert_int_eq(l.n_inside, 4);
        for (unsigned i = 4; i < 12; i++) {
                unblock(&l);
                test_wait_for(&l.began);
        }
        for (unsigned i = 0; i < 4; i++)
                unblock(&l);
        close_log(&l);
        ck_assert_int_eq(l.n_inside_max, 4);
        ck_assert_uint_eq(l.n, 12);
        tear_down();
}

TEST(D1_with_max_active_a_slow_task_does_not_hold_up_those_that_come_later) {
        set_up(4);
        Log l;
        XQueueOptions o = options();
        o.max_active = 2;
        open_log(&l, &o, &plain_ops);
        block(&l);
        for (unsigned i = 1; i <= 200; i++) {
                put(&l, i, i % 3 == 0 ? XSUBMIT_URGENT : 0);
                while (atomic_load(&l.n) < i + 1)
                        sched_yield();
        }
        unblock(&l);
        close_log(&l);
        tear_down();
}

TEST(D1_max_active_can_be_changed_while_tasks_run) {
        set_up(8);
        Log l;
        XQueueOptions o = options();
        o.max_active = 2;
        open_log(&l, &o, &plain_ops);
        for (unsigned i = 0; i < 10; i++)
                put(&l, 0, 0);
        test_wait_for(&l.began);
        test_wait_for(&l.began);
        ck_assert_int_eq(xqueue_set_max_active(&xs, l.id, 5), 0); /* takes effect at once */
        for (unsigned i = 0; i < 3; i++)
                test_wait_for(&l.began);
        ck_assert_int_eq(xqueue_set_max_active(&xs, l.id, 1), 0);
        ck_assert_int_eq(xqueue_set_max_active(&xs, l.id, 0), -EINVAL);
        for (unsigned i = 0; i < 5; i++)
                unblock(&l);
        test_wait_for(&l.began);
        for (unsigned i = 0; i < 5; i++)
                unblock(&l);
        close_log(&l);
        ck_assert_uint_eq(l.n, 10);
        ck_assert_int_eq(l.n_inside_max, 5);
        tear_down();
}

/* ---- D2: memory ---- */

TEST(D2_a_full_queue_refuses_and_takes_again_after_a_task_or_a_cancel) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        XTaskRef ref = { 0 };
        o.max_tasks = 3;
        open_log(&l, &o, &plain_ops);
        block(&l);
        put(&l, 1, 0);
        ref = put(&l, 2, 0);
        ck_assert_int_eq(try_put(l.id, 3, 0, NULL), -ENOSPC);
        ck_assert_int_eq(try_put(l.id, 3, XSUBMIT_URGENT, NULL), -ENOSPC);
        ck_assert_uint_eq(stats_of(&l).n_tasks, 3);
        ck_assert_uint_eq(stats_of(&l).n_refused, 2);
        ck_assert_int_eq(xqueue_cancel(ref), 0);
        put(&l, 4, 0);
        ck_assert_int_eq(xqueue_set_limits(&xs, l.id, 4, 1000000), 0);
        put(&l, 5, 0);
        ck_assert_int_eq(try_put(l.id, 6, 0, NULL), -ENOSPC);
        ck_assert_int_eq(xqueue_set_limits(&xs, l.id, 0, 1), -EINVAL);
        unblock(&l);
        while (stats_of(&l).n_tasks > 0)
                sched_yield();
        put(&l, 7, 0);
        close_log(&l);
        LOG_IS(&l, 0, 1, 4, 5, 7);
        tear_down();
}

TEST(D2_bytes_are_bounded_too) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.max_bytes = 1024;
        open_log(&l, &o, &plain_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        for (unsigned i = 1; i <= 9; i++) /* 112 bytes each, in units of 16 */
                put(&l, i, 0);
        ck_assert_int_eq(try_put(l.id, 10, 0, NULL), -ENOSPC);
        ck_assert_uint_eq(stats_of(&l).n_bytes, 9 * 112);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, 9);
        tear_down();
}

TEST(D2_canceled_tasks_in_a_blocked_lane_do_not_take_unbounded_memory) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        unsigned n = 0;
        o.max_tasks = 100;
        open_log(&l, &o, &plain_ops);
        block(&l);
        for (XTaskRef ref; try_put(l.id, 1, 0, &ref) == 0; n++)
                ck_assert_int_eq(xqueue_cancel(ref), 0);
        ck_assert_uint_eq(n, 199); /* twice as many as may be pending, with the running one */
        unblock(&l);
        while (stats_of(&l).n_tasks > 0)
                sched_yield();
        put(&l, 2, 0);
        close_log(&l);
        LOG_IS(&l, 0, 2);
        tear_down();
}

TEST(D2_memory_goes_back_after_a_burst) {
        set_up(1);
        Log l;
        SlabStats stats;
        open_log(&l, NULL, &plain_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        for (unsigned i = 1; i <= 200000; i++)
                if (try_put(l.id, i, 0, NULL) < 0)
                        ck_abort_msg("refused");
        slab_get_stats(slab, &stats);
        ck_assert_uint_le(stats.used_bytes, 200000 * 80); /* bytes per pending task */
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        while (stats_of(&l).n_tasks > 0)
                sched_yield();
        do {
                slab_get_stats(slab, &stats);
                sched_yield();
        } while (stats.used_bytes > 1024 * 1024); /* the idle worker sees to it */
        close_log(&l);
        tear_down();
}

TEST(D4_in_place_and_in_batches_no_task_is_handed_from_thread_to_thread) {
        set_up(2);
        Log l, other;
        WorkersStats before, after;
        XQueueOptions o = options();
        o.budget_usec = 3600 * UINT64_C(1000000); /* a turn that ends by time goes on elsewhere */
        open_log(&l, &o, &plain_ops);
        open_log(&other, &o, &plain_ops);
        other_log = &other;
        l.hook = submit_to_other;
        workers_get_stats(workers, &before);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        for (unsigned i = 1; i <= 100; i++)
                put(&l, i, 0);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        while (atomic_load(&other.n) < 100)
                sched_yield();
        workers_get_stats(workers, &after);
        ck_assert_uint_le(after.n_runs - before.n_runs, 2); /* for 200 tasks; one to find that it is paused */
        close_log(&l);
        close_log(&other);
        ck_assert(pthread_equal(l.thread, other.thread));
        tear_down();
}

/* ---- pause ---- */

TEST(pause_lets_the_running_task_end_and_starts_no_other) {
        set_up(2);
        Log l;
        open_log(&l, NULL, &plain_ops);
        block(&l);
        put(&l, 1, 0);
        put(&l, 2, XSUBMIT_URGENT);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        ck_assert_uint_eq(stats_of(&l).pauses, 2);
        unblock(&l);
        while (stats_of(&l).n_executed < 1)
                sched_yield();
        Log other; /* a whole run of another queue by the same workers */
        open_log(&other, NULL, &plain_ops);
        put(&other, 1, 0);
        close_log(&other);
        ck_assert_uint_eq(l.n, 1);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        ck_assert_uint_eq(stats_of(&l).pauses, 1);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), -EALREADY);
        close_log(&l);
        LOG_IS(&l, 0, 2, 1);
        tear_down();
}

TEST(pause_holds_a_parallel_queue_and_a_stop_waits_for_the_resume) {
        set_up(8);
        Log l;
        XQueueOptions o = options();
        o.max_active = 3;
        open_log(&l, &o, &plain_ops);
        for (unsigned i = 0; i < 6; i++)
                put(&l, 0, 0);
        for (unsigned i = 0; i < 3; i++)
                test_wait_for(&l.began);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        ck_assert_int_eq(xqueue_stop(&xs, l.id), 0);
        for (unsigned i = 0; i < 3; i++)
                unblock(&l);
        while (stats_of(&l).n_active > 0)
                sched_yield();
        ck_assert_uint_eq(l.n, 3);
        ck_assert_uint_eq(l.n_stopped, 0);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        for (unsigned i = 0; i < 3; i++)
                unblock(&l);
        close_log(&l);
        ck_assert_uint_eq(l.n, 6);
        tear_down();
}

/* ---- turns ---- */

static void feed_yourself(Log *l, unsigned number) {
        if (atomic_load(&other_log->n) == 0)
                put(l, number + 1, 0); /* never empty */
}

TEST(a_fed_queue_gives_way_to_others_after_its_turn) {
        set_up(1);
        Log l, other;
        XQueueOptions o = options();
        o.budget_usec = 3600 * UINT64_C(1000000); /* tasks alone */
        open_log(&l, &o, &plain_ops);
        open_log(&other, NULL, &plain_ops);
        other_log = &other;
        l.hook = feed_yourself;
        block(&l);
        put(&other, 1, 0);
        unblock(&l);
        close_log(&other); /* without turns: never */
        close_log(&l);
        ck_assert_uint_le(l.n, 2 * o.budget_tasks);
        tear_down();
}

static void feed_slowly(Log *l, unsigned number) {
        for (uint64_t end = clock_monotonic(&clock_system) + 300; clock_monotonic(&clock_system) < end;)
                ;
        feed_yourself(l, number);
}

TEST(a_turn_ends_by_time_as_well) {
        set_up(1);
        Log l, other;
        XQueueOptions o = options();
        o.budget_tasks = o.batch_max = 1000000;
        open_log(&l, &o, &plain_ops);
        open_log(&other, NULL, &plain_ops);
        other_log = &other;
        l.hook = feed_slowly;
        block(&l);
        put(&other, 1, 0);
        unblock(&l);
        close_log(&other);
        close_log(&l);
        ck_assert_uint_le(l.n, 20); /* 1 ms of 300 us */
        tear_down();
}

/* ---- bias: while nobody cancels, claims need no locked instruction ---- */

static XBiasState bias_of(const Log *l) {
        XQueue *q = xqueue_pin(&xs, l->id);
        XBiasState s = xbias_state(load_seq_cst(&q->head.bias.state));
        xqueue_unpin(q);
        return s;
}

/* Twice: the second time it is another era. */
TEST(claims_are_biased_again_after_a_time_without_cancels) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        unsigned n = 0;
        for (unsigned i = 0; i < 2; i++) {
                ck_assert_int_eq(bias_of(&l), XBIAS_ON);
                block(&l);
                XTaskRef ref = put(&l, 1, 0);
                ck_assert_int_eq(xqueue_cancel(ref), 0);
                ck_assert_int_eq(bias_of(&l), XBIAS_OFF);
                unblock(&l);
                n++;
                while (bias_of(&l) != XBIAS_ON) { /* it is by the task that calms it, or by a later one */
                        block(&l);
                        for (unsigned k = 0; k < XBIAS_CALM / 8; k++)
                                put(&l, 1, 0);
                        unblock(&l);
                        n += 1 + XBIAS_CALM / 8;
                        ck_assert_uint_le(n, (i + 1) * 3 * XBIAS_CALM);
                }
        }
        close_log(&l);
        ck_assert_uint_eq(l.n, n);
        tear_down();
}

TEST(a_cancel_of_what_is_over_does_not_end_the_bias) {
        set_up(1);
        Log l;
        open_log(&l, NULL, &plain_ops);
        block(&l);
        XTaskRef ref = put(&l, 1, 0);
        unblock(&l);
        block(&l);
        ck_assert_int_eq(xqueue_cancel(ref), -1);
        ck_assert_int_eq(bias_of(&l), XBIAS_ON);
        unblock(&l);
        close_log(&l);
        tear_down();
}

/* ---- lots: a thread that submits much has charges in advance ---- */

typedef struct Hoarder {
        Log *log;
        unsigned n_cancel; /* of its tasks */
        pthread_t thread;
        sem_t done, leave;
} Hoarder;

enum { HOARDED = 20 };

static void *hoard(void *arg) {
        Hoarder *h = arg;
        XTaskRef refs[HOARDED];
        for (unsigned i = 0; i < HOARDED; i++)
                refs[i] = put(h->log, 1, 0);
        for (unsigned i = 0; i < h->n_cancel; i++)
                ck_assert_int_eq(xqueue_cancel(refs[i]), 0);
        sem_post(&h->done);
        test_wait_for(&h->leave);
        return NULL;
}

/* A thread has a lot of this queue, and does nothing. */
static void start_hoarder(Hoarder *h, Log *l, unsigned n_cancel) {
        *h = (Hoarder) { .log = l, .n_cancel = n_cancel };
        sem_init(&h->done, 0, 0);
        sem_init(&h->leave, 0, 0);
        ck_assert_int_eq(pthread_create(&h->thread, NULL, hoard, h), 0);
        test_wait_for(&h->done);
}

static void end_hoarder(Hoarder *h) {
        sem_post(&h->leave);
        ck_assert_int_eq(pthread_join(h->thread, NULL), 0);
}

TEST(what_is_in_lots_is_not_pending) {
        set_up(1);
        Log l;
        Hoarder h;
        open_log(&l, NULL, &plain_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        start_hoarder(&h, &l, 0);
        ck_assert_uint_eq(stats_of(&l).n_tasks, HOARDED);
        ck_assert_uint_eq(stats_of(&l).n_bytes, HOARDED * 112);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        end_hoarder(&h);
        close_log(&l);
        ck_assert_uint_eq(l.n, HOARDED);
        tear_down();
}

/* A kernel or a filter of system calls that refuses it: what needs it is not used, and nothing else is different. */
TEST(without_membarrier_there_are_no_lots_and_no_bias_and_all_else_is_as_ever) {
        fault_set(FAULT_FENCE, 1, true);
        set_up(1);
        Log l;
        Hoarder h;
        open_log(&l, NULL, &plain_ops);
        ck_assert(!heavy_fence_works());
        ck_assert_int_eq(bias_of(&l), XBIAS_OFF);
        block(&l);
        start_hoarder(&h, &l, 0);
        XQueue *q = xqueue_pin(&xs, l.id);
        ck_assert_uint_eq(submitter_count(l.id, &q->head).left, 0);
        ck_assert_uint_eq(xcharge_tasks(load_seq_cst(&q->head.charged)), HOARDED + 1); /* each for itself */
        xqueue_unpin(q);
        XTaskRef ref = put(&l, 2, 0);
        ck_assert_int_eq(xqueue_cancel(ref), 0);
        ck_assert_int_eq(xqueue_cancel(ref), -1);
        unblock(&l);
        for (unsigned i = 0; i < 2; i++) { /* long enough to be calm */
                block(&l);
                for (unsigned k = 0; k < XBIAS_CALM; k++)
                        put(&l, 1, 0);
                unblock(&l);
        }
        ck_assert_int_eq(bias_of(&l), XBIAS_OFF);
        close_log(&l);
        ck_assert_uint_eq(l.n, HOARDED + 3 + 2 * XBIAS_CALM);
        end_hoarder(&h);
        tear_down();
}

TEST(a_stop_does_not_wait_for_threads_that_have_lots) {
        set_up(1);
        Log l, other;
        Hoarder h;
        open_log(&l, NULL, &plain_ops);
        start_hoarder(&h, &l, 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, HOARDED);
        end_hoarder(&h);
        open_log(&other, NULL, &plain_ops); /* in the same memory */
        start_hoarder(&h, &other, 0);
        end_hoarder(&h);
        close_log(&other);
        ck_assert_uint_eq(other.n, HOARDED);
        tear_down();
}

TEST(D4_a_queue_is_full_at_its_limit_whoever_has_lots_of_it) {
        enum { LIMIT = 5000 };
        set_up(1);
        Log l;
        Hoarder h[2];
        XQueueOptions o = options();
        o.max_tasks = LIMIT;
        open_log(&l, &o, &plain_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        for (size_t i = 0; i < ELEMENTSOF(h); i++)
                start_hoarder(&h[i], &l, 0);
        for (unsigned i = 2 * HOARDED; i < LIMIT; i++)
                put(&l, 1, 0);
        ck_assert_int_eq(try_put(l.id, 1, 0, NULL), -ENOSPC);
        ck_assert_uint_eq(stats_of(&l).n_tasks, LIMIT);
        for (size_t i = 0; i < ELEMENTSOF(h); i++)
                end_hoarder(&h[i]);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, LIMIT);
        tear_down();
}

/* So many tasks, all pending. */
static void put_many(Log *l, XTaskRef *refs, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                refs[i] = put(l, 1, 0);
}

static unsigned count_given_back(Log *l) {
        XQueue *q = xqueue_pin(&xs, l->id);
        uint64_t n = xcharge_tasks(load_seq_cst(&q->head.canceled));
        xqueue_unpin(q);
        return (unsigned)n;
}

TEST(who_has_a_lot_gives_canceled_tasks_back_many_at_a_time_and_all_see_them_at_once) {
        enum { N = 4 * XLOT_TASKS };
        set_up(1);
        Log l;
        XTaskRef refs[N];
        open_log(&l, NULL, &plain_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        put_many(&l, refs, N);
        for (unsigned i = 0; i < 2 * XLOT_TASKS + 5; i++) {
                ck_assert_int_eq(xqueue_cancel(refs[i]), 0);
                ck_assert_uint_eq(count_given_back(&l), (i + 1) / XLOT_TASKS * XLOT_TASKS);
                ck_assert_uint_eq(stats_of(&l).n_canceled, i + 1);
                ck_assert_uint_eq(stats_of(&l).n_tasks, N - i - 1);
                ck_assert_uint_eq(stats_of(&l).n_bytes, (N - i - 1) * 112);
        }
        for (unsigned i = 0; i < N; i++) /* the next lots have nothing of that */
                put(&l, 1, 0);
        ck_assert_uint_eq(count_given_back(&l), 2 * XLOT_TASKS + 5);
        ck_assert_uint_eq(stats_of(&l).n_canceled, 2 * XLOT_TASKS + 5);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, 2 * N - 2 * XLOT_TASKS - 5);
        tear_down();
}

TEST(a_stop_does_not_wait_for_threads_that_have_canceled) {
        set_up(1);
        Log l;
        Hoarder h[2];
        open_log(&l, NULL, &telling_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        for (size_t i = 0; i < ELEMENTSOF(h); i++)
                start_hoarder(&h[i], &l, HOARDED);
        ck_assert_uint_eq(count_given_back(&l), 0);
        ck_assert_uint_eq(l.n_canceled, 2 * HOARDED);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, 0);
        ck_assert_uint_eq(l.n_released, 2 * HOARDED);
        for (size_t i = 0; i < ELEMENTSOF(h); i++)
                end_hoarder(&h[i]);
        tear_down();
}

TEST(D4_what_a_thread_has_canceled_is_room_for_all) {
        enum { LIMIT = 5000 };
        set_up(1);
        Log l;
        Hoarder h;
        XQueueOptions o = options();
        o.max_tasks = LIMIT;
        open_log(&l, &o, &plain_ops);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        start_hoarder(&h, &l, HOARDED);
        ck_assert_uint_eq(count_given_back(&l), 0);
        for (unsigned i = 0; i < LIMIT; i++)
                put(&l, 1, 0);
        ck_assert_int_eq(try_put(l.id, 1, 0, NULL), -ENOSPC);
        ck_assert_uint_eq(stats_of(&l).n_tasks, LIMIT);
        end_hoarder(&h);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        close_log(&l);
        ck_assert_uint_eq(l.n, LIMIT);
        tear_down();
}

TEST(a_lingering_queue_gives_no_lots) {
        set_up(1);
        Log l;
        XQueueOptions o = options();
        o.batch_linger_usec = 3600 * UINT64_C(1000000);
        o.batch_max = 40;
        open_log(&l, &o, &plain_ops);
        for (unsigned i = 0; i < 39; i++)
                put(&l, 1, 0);
        block(&l); /* the last one that fits: the holder is told, or waits for an hour */
        unblock(&l);
        close_log(&l);
        ck_assert_uint_eq(l.n, 40);
        tear_down();
}

/* ---- rescue: a thread of its own takes one task at a time ---- */

/* All workers are at the gate of another queue. */
static void fill_workers(Log *blocker, unsigned n) {
        XQueueOptions o = options();
        o.max_active = n;
        open_log(blocker, &o, &plain_ops);
        for (unsigned i = 0; i < n; i++)
                block(blocker);
}

static void unfill_workers(Log *blocker, unsigned n) {
        for (unsigned i = 0; i < n; i++)
                unblock(blocker);
        close_log(blocker);
}

TEST(one_rescued_task_of_a_serial_queue_leaves_the_others_where_they_are) {
        set_up(1);
        Log l, blocker;
        XTaskRef refs[4];
        fill_workers(&blocker, 1);
        open_log(&l, NULL, &telling_ops);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), -EAGAIN); /* there is nothing */
        for (unsigned i = 1; i <= 3; i++)
                refs[i] = put(&l, i, 0);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), 0);
        LOG_IS(&l, 1);
        ck_assert(pthread_equal(l.thread, pthread_self()));
        ck_assert_int_eq(xqueue_cancel(refs[1]), -1);
        ck_assert_int_eq(xqueue_cancel(refs[2]), 0);
        put(&l, 4, XSUBMIT_URGENT);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), 0);
        LOG_IS(&l, 1, 4);
        unfill_workers(&blocker, 1);
        close_log(&l);
        LOG_IS(&l, 1, 4, 3);
        ck_assert_uint_eq(l.n_released, 4);
        tear_down();
}

static void *rescue_main(void *arg) {
        ck_assert_int_eq(xqueue_rescue(&xs, ((Log *)arg)->id), 0);
        return NULL;
}

TEST(a_rescued_task_counts_for_max_active_and_a_parallel_queue_stays_in_the_line) {
        set_up(1);
        Log l, blocker, behind;
        pthread_t rescuers[2];
        XQueueOptions o = options();
        o.max_active = 2;
        fill_workers(&blocker, 1);
        open_log(&l, &o, &plain_ops);
        open_log(&behind, NULL, &plain_ops);
        for (unsigned i = 0; i < 4; i++)
                put(&l, i < 2 ? 0 : i, 0);
        put(&behind, 7, 0);
        for (unsigned i = 0; i < 2; i++) { /* both block */
                ck_assert_int_eq(pthread_create(&rescuers[i], NULL, rescue_main, &l), 0);
                test_wait_for(&l.began);
        }
        ck_assert_uint_eq(stats_of(&l).n_active, 2);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), -EAGAIN);
        unblock(&l);
        unblock(&l);
        for (unsigned i = 0; i < 2; i++)
                pthread_join(rescuers[i], NULL);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), 0);
        LOG_IS(&l, 0, 0, 2);
        ck_assert_uint_eq(behind.n, 0);
        unfill_workers(&blocker, 1);
        close_log(&l);
        close_log(&behind);
        LOG_IS(&l, 0, 0, 2, 3);
        tear_down();
}

/* Two queues wait, the first has room for more: it is served before the second all the same. */
static atomic_uint n_ranks;
static void note_rank(Log *l, unsigned number) {
        if (number == 9)
                l->numbers[100] = atomic_fetch_add(&n_ranks, 1);
}

TEST(a_rescue_costs_a_parallel_queue_no_place_in_the_line) {
        set_up(1);
        Log l, behind, blocker;
        XQueueOptions o = options();
        o.max_active = 2;
        fill_workers(&blocker, 1);
        open_log(&l, &o, &plain_ops);
        open_log(&behind, NULL, &plain_ops);
        l.hook = behind.hook = note_rank;
        put(&l, 1, 0);
        put(&l, 9, 0);
        put(&behind, 9, 0);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), 0);
        unfill_workers(&blocker, 1);
        close_log(&l);
        close_log(&behind);
        ck_assert_uint_lt(l.numbers[100], behind.numbers[100]);
        tear_down();
}

TEST(a_rescue_minds_pauses_stops_and_stale_ids) {
        set_up(1);
        Log l, blocker;
        fill_workers(&blocker, 1);
        open_log(&l, NULL, &plain_ops);
        put(&l, 1, 0);
        ck_assert_int_eq(xqueue_pause(&xs, l.id), 0);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), -EAGAIN);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), -EAGAIN);
        ck_assert_int_eq(xqueue_resume(&xs, l.id), 0);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), 0);
        put(&l, 2, 0);
        ck_assert_int_eq(xqueue_stop(&xs, l.id), 0);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), 0);
        ck_assert_uint_eq(l.n_stopped, 0);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), 0); /* the last call */
        ck_assert_uint_eq(l.n_stopped, 1);
        LOG_IS(&l, 1, 2);
        ck_assert_int_eq(xqueue_rescue(&xs, l.id), -ENOENT);
        ck_assert_int_eq(xqueue_join(&xs, l.id), 0);
        unfill_workers(&blocker, 1);
        tear_down();
}

RUN_TESTS("xqueue", 60, test_E1_start_gives_an_id_or_an_error,
          test_E1_start_without_memory_or_thread_leaves_nothing_behind,
          test_E2_a_dedicated_queue_has_a_thread_of_its_own,
          test_E2_the_end_of_all_waits_for_a_dedicated_thread_whose_last_call_was_made,
          test_E3_tasks_run_in_order_one_at_a_time_elsewhere, test_E4_many_threads_submit_and_each_finds_its_order,
          test_E5_a_task_belongs_to_the_queue_until_it_is_released_once,
          test_E6_one_call_gets_all_there_is_up_to_batch_max,
          test_E6_what_a_batch_has_not_taken_is_pending_and_keeps_its_place,
          test_E6_a_batch_that_takes_nothing_loses_nothing,
          test_E6_a_batch_of_a_parallel_queue_that_takes_nothing_loses_nothing,
          test_E6_a_batch_lingers_for_more_and_stops_when_it_is_full, test_E6_the_time_ends_the_lingering,
          test_E6_a_pause_ends_the_lingering, test_E6_another_max_active_ends_the_lingering,
          test_E6_a_queue_that_is_full_does_not_linger_on, test_E6_an_urgent_task_ends_the_lingering,
          test_E7_urgent_tasks_go_first_in_their_own_order, test_E7_an_urgent_task_goes_before_the_rest_of_a_batch,
          test_E7_an_urgent_task_wakes_an_idle_queue, test_E8_in_place_runs_inside_the_submit_on_a_worker_only,
          test_E8_in_place_is_an_ordinary_submit_to_a_queue_that_is_busy,
          test_E8_queues_that_submit_to_each_other_do_not_recurse_for_ever,
          test_E9_with_a_synchronous_executor_every_submit_is_in_place,
          test_E9_a_synchronous_executor_does_not_recurse_for_ever,
          test_E9_a_synchronous_executor_on_a_worker_leaves_nothing_behind,
          test_E9_what_had_to_wait_for_a_worker_does_not_wait_for_a_queue_that_is_fed,
          test_E9_an_executor_may_run_the_queue_later, test_E10_cancel_says_0_1_or_minus_1,
          test_E10_a_stale_reference_never_hits_another_task,
          test_E11_stop_refuses_later_submits_and_runs_what_is_pending, test_E11_a_task_may_stop_its_own_queue,
          test_E12_stopped_comes_exactly_once_and_last, test_E12_a_queue_that_never_had_a_task_is_stopped_too,
          test_E12_tasks_that_were_all_canceled_do_not_hold_up_the_end,
          test_E13_join_waits_for_the_end_and_is_repeatable, test_E13_a_task_that_joins_its_own_queue_is_told_so,
          test_E14_a_stale_id_is_refused_cleanly_whoever_has_its_place,
          test_E15_with_enough_workers_all_busy_queues_run_at_once,
          test_E16_a_task_that_blocks_does_not_hold_up_other_queues,
          test_D1_max_active_runs_so_many_at_once_and_no_more,
          test_D1_with_max_active_a_slow_task_does_not_hold_up_those_that_come_later,
          test_D1_max_active_can_be_changed_while_tasks_run,
          test_D2_a_full_queue_refuses_and_takes_again_after_a_task_or_a_cancel, test_D2_bytes_are_bounded_too,
          test_D2_canceled_tasks_in_a_blocked_lane_do_not_take_unbounded_memory, test_D2_memory_goes_back_after_a_burst,
          test_D4_in_place_and_in_batches_no_task_is_handed_from_thread_to_thread,
          test_pause_lets_the_running_task_end_and_starts_no_other,
          test_pause_holds_a_parallel_queue_and_a_stop_waits_for_the_resume,
          test_a_fed_queue_gives_way_to_others_after_its_turn, test_a_turn_ends_by_time_as_well,
          test_claims_are_biased_again_after_a_time_without_cancels,
          test_a_cancel_of_what_is_over_does_not_end_the_bias, test_what_is_in_lots_is_not_pending,
          test_without_membarrier_there_are_no_lots_and_no_bias_and_all_else_is_as_ever,
          test_a_stop_does_not_wait_for_threads_that_have_lots,
          test_D4_a_queue_is_full_at_its_limit_whoever_has_lots_of_it,
          test_who_has_a_lot_gives_canceled_tasks_back_many_at_a_time_and_all_see_them_at_once,
          test_a_stop_does_not_wait_for_threads_that_have_canceled, test_D4_what_a_thread_has_canceled_is_room_for_all,
          test_a_lingering_queue_gives_no_lots,
          test_one_rescued_task_of_a_serial_queue_leaves_the_others_where_they_are,
          test_a_rescued_task_counts_for_max_active_and_a_parallel_queue_stays_in_the_line,
          test_a_rescue_costs_a_parallel_queue_no_place_in_the_line, test_a_rescue_minds_pauses_stops_and_stale_ids)
