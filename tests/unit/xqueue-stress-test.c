/* SPDX-License-Identifier: MIT */
/* Many threads do everything to execution queues at once, and threads are stopped at the worst places: the engine is
 * compiled into this program with preempt_here() of its own, which yields or sleeps between taking a place and making it
 * known.
 *
 * Every run checks: tasks of one thread run in its order, lane by lane; each accepted task is executed once or canceled once;
 * a serial queue is on one thread at a time; cancel says 0 only for tasks that never run, 1 only for tasks that run some
 * time, -1 only for tasks that have run or were canceled; `stopped` comes once and last; all memory comes back. EQD_LONG=1 runs a hundred times as much. */

#include "engine/xqueue.h"

#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "engine/xholder.h"
#include "test.h"

enum {
        PRODUCERS_MAX = 16,
        QUEUES_MAX = 4096,
        RECENT = 16, /* references that a producer keeps, to cancel some */
        CHAINED =
                PRODUCERS_MAX, /* the producer of tasks that were submitted by tasks; no order is promised between those */
};

/* Of a task. BEGUN and then ENDED, or CANCELED, or REFUSED; SAID_1: somebody who wanted to cancel it was told that it runs. */
enum { BEGUN = 1, ENDED = 2, CANCELED = 4, SAID_1 = 8, REFUSED = 16 };

/* Programmer's errors of the engine end the process: Check's own macros are too slow here. */
#define MUST(expr)                                                                                                     \
        do {                                                                                                           \
                if (!(expr)) {                                                                                         \
                        fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #expr);                                     \
                        abort();                                                                                       \
                }                                                                                                      \
        } while (0)

/* ---- the seam ---- */

static _Thread_local uint64_t preempt_random;

static uint64_t next_random(uint64_t *state) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        return *state >> 33;
}

/* A thread that has set this is stopped at the so-manieth place where is_counted(), until it is let go. */
static _Thread_local unsigned stop_at;
static bool is_counted(void);
static sem_t stopped_there, go_on;

static void stop_if_counted(void) {
        unsigned at = stop_at;
        stop_at = 0; /* is_counted() comes by such places, too */
        if (is_counted() && --at == 0) {
                sem_post(&stopped_there);
                test_wait_for(&go_on);
        }
        stop_at = at;
}

void preempt_here(void) {
        if (stop_at > 0)
                stop_if_counted();
        if (preempt_random == 0)
                preempt_random = (uint64_t)(uintptr_t)&preempt_random ^ (uint64_t)pthread_self();
        uint64_t r = next_random(&preempt_random);
        if (r % 64 == 0)
                sched_yield();
        if (r % 2048 == 0)
                usleep((useconds_t)(r >> 11) % 200);
}

/* ---- what is checked ---- */

typedef struct Item {
        XTask task; /* first */
        uint32_t producer, lane, number;
        uint32_t index; /* in outcomes */
} Item;

/* A queue from start to end. */
typedef struct Life {
        uint64_t id;
        bool serial;  /* max_active stays 1 */
        bool telling; /* has canceled() and release() */
        atomic_uint n_inside, n_stopped, n_accepted, n_executed, n_canceled, n_told, n_released;
        uint64_t n_plain; /* executions, not atomic: two at once lose some, and TSan sees it. Serial only */
        uint32_t last[2][PRODUCERS_MAX]; /* serial only */
        struct Life *next;
} Life;

typedef struct Stress {
        XQueues xs;
        Workers *workers;
        Slab *slab;
        unsigned n_producers, n_queues;
        uint32_t n_each; /* operations of a producer */
        _Atomic(Life *) queues[QUEUES_MAX];
        _Atomic(Life *) lives; /* all there ever were */
        atomic_uchar *outcomes;
        atomic_uint n_outcomes, n_outcomes_max;
        atomic_bool done;
} Stress;

static Stress *stress;
static atomic_uint stress_rescued;

static bool submit(Life *l, unsigned producer, uint32_t number, unsigned flags, XTaskRef *ret, uint32_t *ret_index);

static void run_item(Life *l, Item *item) {
        unsigned inside = atomic_fetch_add(&l->n_inside, 1);
        MUST(atomic_load(&l->n_stopped) == 0);
        if (l->serial) {
                MUST(inside == 0);
                l->n_plain++;
                if (item->producer != CHAINED) {
                        MUST(item->number > l->last[item->lane][item->producer]);
                        l->last[item->lane][item->producer] = item->number;
                }
        }
        MUST((atomic_fetch_or(&stress->outcomes[item->index], BEGUN) & ~SAID_1) == 0);
        if (item->producer != CHAINED && item->number % 16 == 0) { /* to some other queue, in place if it can be */
                Life *other = atomic_load(&stress->queues[item->number / 16 % stress->n_queues]);
                (void)submit(other, CHAINED, item->number, XSUBMIT_IN_PLACE, NULL, NULL);
        }
        (void)atomic_fetch_or(&stress->outcomes[item->index], ENDED);
        atomic_fetch_add(&l->n_executed, 1);
        atomic_fetch_sub(&l->n_inside, 1);
}

static void execute(void *meta, XBatch *b) {
        Life *l = meta;
        if (xbatch_is_stopped(b)) {
                MUST(!xbatch_next(b));
                MUST(atomic_load(&l->n_inside) == 0);
                MUST(atomic_fetch_add(&l->n_stopped, 1) == 0);
                return;
        }
        unsigned n = 0;
        for (XTask *t; (t = xbatch_next(b)); n++) {
                run_item(l, (Item *)t);
                if (((Item *)t)->number % 97 == 0)
                        return; /* the rest stays where it is */
        }
}

static void told(void *meta, XTask *t) {
        MUST(((Item *)t)->index < atomic_load(&stress->n_outcomes_max));
        atomic_fetch_add(&((Life *)meta)->n_told, 1);
}

static void released(void *meta, XTask *t) {
        atomic_fetch_add(&((Life *)meta)->n_released, 1);
        ((Item *)t)->index = UINT32_MAX;
        slab_free(stress->slab, t);
}

static const XQueueOps plain_ops = { .execute = execute };
static const XQueueOps telling_ops = { .execute = execute, .canceled = told, .release = released };

static Life *new_life(uint64_t random) {
        Life *l = calloc(1, sizeof(*l));
        MUST(l);
        l->serial = random % 4 != 0;
        l->telling = random % 3 == 0;
        XQueueOptions o = XQUEUE_OPTIONS_DEFAULT;
        o.workers = stress->workers;
        o.slab = stress->slab;
        o.max_active = l->serial ? 1 : 2 + random / 16 % 3;
        o.batch_max = 1 + random / 64 % 64;
        o.batch_linger_usec = random / 4096 % 8 == 0 ? 50 : 0;
        o.max_tasks = random / 32768 % 4 == 0 ? 50 : 1000000;
        MUST(xqueue_start(&stress->xs, &o, l->telling ? &telling_ops : &plain_ops, l, &l->id) == 0);
        l->next = atomic_load(&stress->lives);
        while (!atomic_compare_exchange_weak(&stress->lives, &l->next, l))
                ;
        return l;
}

/* True: accepted. */
static bool submit(Life *l, unsigned producer, uint32_t number, unsigned flags, XTaskRef *ret, uint32_t *ret_index) {
        uint32_t index = atomic_fetch_add(&stress->n_outcomes, 1);
        MUST(index < atomic_load(&stress->n_outcomes_max));
        Item *item = slab_alloc(stress->slab);
        MUST(item);
        item->producer = producer;
        item->number = number;
        item->lane = (flags & XSUBMIT_URGENT) != 0;
        item->index = index;
        int r = xqueue_submit(&stress->xs, l->id, &item->task, 16, flags, ret);
        if (r == 0)
                atomic_fetch_add(&l->n_accepted, 1);
        else {
                MUST(r == -ENOENT || r == -ESHUTDOWN || r == -ENOSPC);
                MUST(atomic_fetch_or(&stress->outcomes[index], REFUSED) == 0);
                slab_free(stress->slab, item);
        }
        if (ret_index)
                *ret_index = index;
        return r == 0;
}

typedef struct Recent {
        XTaskRef ref;
        Life *life;
        uint32_t index;
} Recent;

/* Nobody else cancels it. */
static void cancel(const Recent *r) {
        int result = xqueue_cancel(r->ref);
        if (result == 0) {
                MUST(atomic_fetch_or(&stress->outcomes[r->index], CANCELED) == 0);
                atomic_fetch_add(&r->life->n_canceled, 1);
        } else if (result == 1)
                MUST((atomic_fetch_or(&stress->outcomes[r->index], SAID_1) & CANCELED) == 0);
        else
                MUST((atomic_load(&stress->outcomes[r->index]) & ~SAID_1) == (BEGUN | ENDED));
        int again = xqueue_cancel(r->ref);
        MUST(again == -1 || (again == 1 && result == 1));
}

typedef struct Producer {
        unsigned id;
        pthread_t thread;
} Producer;

static void *produce(void *arg) {
        const Producer *p = arg;
        Recent recent[RECENT] = { 0 };
        uint64_t random = p->id * 7919 + 1;
        for (uint32_t i = 1; i <= stress->n_each; i++) {
                uint64_t r = next_random(&random);
                Life *l = atomic_load(&stress->queues[r % stress->n_queues]);
                Recent *slot = &recent[i % RECENT];
                unsigned flags = (r >> 12) % 8 == 0 ? XSUBMIT_URGENT : 0;
                if (slot->ref.task && (r >> 16) % 2 == 0)
                        cancel(slot);
                slot->life = l;
                if (!submit(l, p->id, i, flags, &slot->ref, &slot->index))
                        slot->ref = (XTaskRef) { 0 };
                if ((r >> 20) % 256 == 0 && xqueue_pause(&stress->xs, l->id) == 0) {
                        sched_yield();
                        int e = xqueue_resume(&stress->xs, l->id);
                        MUST(e == 0 || e == -ENOENT); /* it was ending when it was paused */
                }
        }
        return NULL;
}

/* Stops queues, or lets others do it as well, joins them and puts new ones in their place. */
static void *control(void *arg) {
        uint64_t random = (uint64_t)(uintptr_t)arg;
        while (!atomic_load(&stress->done)) {
                uint64_t r = next_random(&random);
                Life *l = atomic_load(&stress->queues[r % stress->n_queues]);
                XQueueStats stats;
                int e = xqueue_get_stats(&stress->xs, l->id, &stats);
                MUST(e == 0 || e == -ENOENT);
                if ((r >> 13) % 4 == 0 && !l->serial) {
                        e = xqueue_set_max_active(&stress->xs, l->id, 1 + (r >> 15) % 4);
                        MUST(e == 0 || e == -ENOENT);
                }
                if ((r >> 17) % 8 == 0 &&
                    atomic_compare_exchange_strong(&stress->queues[r % stress->n_queues], &l, new_life(r >> 3))) {
                        MUST(xqueue_stop(&stress->xs, l->id) == 0);
                        if ((r >> 21) % 2 == 0) {
                                MUST(xqueue_join(&stress->xs, l->id) == 0);
                                MUST(atomic_load(&l->n_stopped) == 1);
                        }
                }
                if ((r >> 22) % 16 == 0)
                        MUST(workers_set_limits(stress->workers, 1, 1 + (r >> 26) % 8) == 0);
                if ((r >> 22) % 16 == 1)
                        slab_trim(stress->slab);
                if ((r >> 27) % 2 == 0) {
                        e = xqueue_rescue(&stress->xs, l->id);
                        MUST(e == 0 || e == -EAGAIN || e == -ENOENT);
                        atomic_fetch_add(&stress_rescued, e == 0);
                }
                sched_yield();
        }
        return NULL;
}

/* ---- a run ---- */

static void end_life(Life *l) {
        MUST(xqueue_stop(&stress->xs, l->id) == 0);
        MUST(xqueue_join(&stress->xs, l->id) == 0);
}

/* All lives have ended: a task of one may have submitted to another, and counts that after the submit. */
static void check_life(Life *l) {
        MUST(l->n_stopped == 1);
        MUST(l->n_accepted == l->n_executed + l->n_canceled);
        MUST(!l->serial || l->n_plain == l->n_executed);
        if (l->telling) {
                MUST(l->n_told == l->n_canceled);
                MUST(l->n_released == l->n_accepted);
        }
}

static void set_up(unsigned n_producers, unsigned n_queues, uint32_t n_operations) {
        WorkersParams p = WORKERS_PARAMS_DEFAULT;
        uint32_t factor = getenv("EQD_LONG") ? 100 : 1;
        stress = calloc(1, sizeof(*stress));
        MUST(stress);
        stress->n_producers = n_producers;
        stress->n_queues = n_queues;
        stress->n_each = n_operations * factor / n_producers;
        stress->n_outcomes_max = 4 * n_operations * factor;
        stress->outcomes = calloc(stress->n_outcomes_max, 1);
        MUST(stress->outcomes);
        p.spin_usec = 20;
        p.idle_timeout_usec = 1000;
        MUST(workers_new(&p, &stress->workers) == 0);
        MUST(slab_new(sizeof(Item), 16, false, &stress->slab) == 0);
        MUST(xqueues_init(&stress->xs) == 0);
        for (unsigned i = 0; i < n_queues; i++)
                stress->queues[i] = new_life(i * 2654435761u >> 3);
}

static void tear_down(void) {
        for (Life *l = stress->lives; l; l = l->next)
                end_life(l);
        for (Life *l = stress->lives; l; l = l->next)
                check_life(l);
        for (uint32_t i = 0; i < stress->n_outcomes; i++) {
                unsigned outcome = stress->outcomes[i] & ~(unsigned)SAID_1;
                MUST(outcome == (BEGUN | ENDED) || stress->outcomes[i] == CANCELED || stress->outcomes[i] == REFUSED);
        }
        workers_free(stress->workers);
        xqueues_deinit(&stress->xs);
        slab_trim(stress->slab);
        SlabStats stats;
        slab_get_stats(stress->slab, &stats);
        MUST(stats.used_bytes == stats.mapped_bytes / SLAB_EXTENT_BYTES * 4096); /* no object is left */
        slab_destroy(stress->slab);
        for (Life *l = stress->lives, *next; l; l = next) {
                next = l->next;
                free(l);
        }
        free(stress->outcomes);
        free(stress);
}

static void run(unsigned n_producers, unsigned n_queues, uint32_t n_operations) {
        Producer producers[PRODUCERS_MAX];
        pthread_t controllers[2];
        set_up(n_producers, n_queues, n_operations);
        for (size_t i = 0; i < ELEMENTSOF(controllers); i++)
                MUST(pthread_create(&controllers[i], NULL, control, (void *)(i + 1)) == 0);
        for (unsigned i = 0; i < n_producers; i++) {
                producers[i].id = i;
                MUST(pthread_create(&producers[i].thread, NULL, produce, &producers[i]) == 0);
        }
        for (unsigned i = 0; i < n_producers; i++)
                pthread_join(producers[i].thread, NULL);
        atomic_store(&stress->done, true);
        for (size_t i = 0; i < ELEMENTSOF(controllers); i++)
                pthread_join(controllers[i], NULL);
        printf("# %u times rescued\n", atomic_load(&stress_rescued));
        tear_down();
}

/* ---- a submitter that is stopped in the middle ---- */

static uint64_t trial;
static sem_t first_runs, first_may_end, task_ended;

/* In a trial of what the holder has in its hand: what it had before. The worker's. */
static _Thread_local bool is_hand_trial;
static _Thread_local uint64_t hand_before;
static XQueue *trial_queue;

/* The second task is charged, while the first one runs. Or: the holder has something in its hand. */
static bool is_counted(void) {
        XQueueStats stats;
        if (is_hand_trial)
                return load_relaxed(&trial_queue->head.bias.hand) != hand_before;
        MUST(xqueue_get_stats(&stress->xs, trial, &stats) == 0);
        return stats.n_tasks == 2;
}

static void execute_trial(void *meta, XBatch *b) {
        (void)meta;
        for (XTask *t; (t = xbatch_next(b));) {
                if (((Item *)t)->number == 1) {
                        sem_post(&first_runs);
                        test_wait_for(&first_may_end);
                }
                sem_post(&task_ended);
        }
}

static void put(uint32_t number, unsigned flags) {
        Item *item = slab_alloc(stress->slab);
        MUST(item);
        item->number = number;
        MUST(xqueue_submit(&stress->xs, trial, &item->task, 0, flags, NULL) == 0);
}

static void put_number(uint32_t number) {
        put(number, 0);
}

/* Who submits the second task, and is stopped at the at-th place after it was charged. */
typedef struct Second {
        unsigned at, flags;
} Second;

static void *put_second(void *arg) {
        const Second *s = arg;
        stop_at = s->at;
        put(2, s->flags);
        return NULL;
}

/* The first task runs, and who submits the second one is stopped. *s stays until end_trial(). */
static pthread_t begin_trial(uint32_t batch_max, uint64_t linger_usec, Second *s) {
        static const XQueueOps ops = { .execute = execute_trial };
        XQueueOptions o = XQUEUE_OPTIONS_DEFAULT;
        pthread_t thread;
        set_up(1, 0, 0);
        sem_t *all[] = { &first_runs, &first_may_end, &task_ended, &stopped_there, &go_on };
        for (size_t i = 0; i < ELEMENTSOF(all); i++)
                sem_init(all[i], 0, 0);
        o.workers = stress->workers;
        o.slab = stress->slab;
        o.batch_max = batch_max;
        o.batch_linger_usec = linger_usec;
        MUST(xqueue_start(&stress->xs, &o, &ops, NULL, &trial) == 0);
        put_number(1);
        test_wait_for(&first_runs);
        MUST(pthread_create(&thread, NULL, put_second, s) == 0);
        test_wait_for(&stopped_there);
        return thread;
}

static void end_trial(pthread_t thread) {
        pthread_join(thread, NULL);
        MUST(xqueue_stop(&stress->xs, trial) == 0);
        MUST(xqueue_join(&stress->xs, trial) == 0);
        tear_down();
}

/* Where it is counted, and not in the lane, they even run meanwhile; where it has a place, and the way there is not known, they come
 * behind it. */
TEST(E4_a_submitter_that_is_stopped_keeps_no_other_from_submitting) {
        for (unsigned at = 1; at <= 2; at++) {
                pthread_t thread = begin_trial(64, 0, &(Second) { .at = at });
                for (uint32_t i = 3; i <= 20; i++)
                        put_number(i);
                sem_post(&first_may_end);
                for (unsigned i = 1; i <= 20; i++) {
                        if (i == (at == 1 ? 20 : 2))
                                sem_post(&go_on);
                        test_wait_for(&task_ended);
                }
                end_trial(thread);
        }
}

/* Does the holder of the queue wait for more tasks? */
static bool lingers(XQueues *set, uint64_t id) {
        XQueue *q = xqueue_pin(set, id);
        bool yes = q && (load_seq_cst(&q->head.life) & XHEAD_LINGER) != 0;
        if (q)
                xqueue_unpin(q);
        return yes;
}

/* The first task ends, and the second goes on when the holder waits for it. */
static void try_lingering(uint32_t batch_max, Second s) {
        pthread_t thread = begin_trial(batch_max, 3600 * UINT64_C(1000000), &s);
        sem_post(&first_may_end);
        test_wait_for(&task_ended);
        while (!lingers(&stress->xs, trial))
                sched_yield();
        sem_post(&go_on);
        test_wait_for(&task_ended);
        end_trial(thread);
}

TEST(E6_a_batch_that_lingers_is_full_with_a_task_that_was_on_its_way) {
        try_lingering(2, (Second) { .at = 1 });
}

/* Before it has its place in the lane, and where it has one and the way there is not known. */
TEST(E6_an_urgent_task_that_was_on_its_way_ends_the_lingering) {
        for (unsigned at = 1; at <= 2; at++)
                try_lingering(64, (Second) { at, XSUBMIT_URGENT });
}

enum { HAND_TASKS = 64 };
static atomic_uint stop_holder_at; /* 0: not at all */
static atomic_bool has_run[HAND_TASKS + 1];

/* The holder is stopped at the stop_holder_at-th place after it has put a task in its hand. */
static void execute_hand_trial(void *meta, XBatch *b) {
        (void)meta;
        for (XTask *t;;) {
                hand_before = load_relaxed(&trial_queue->head.bias.hand);
                is_hand_trial = true;
                stop_at = atomic_load(&stop_holder_at);
                t = xbatch_next(b);
                stop_at = 0;
                if (!t)
                        return;
                atomic_store(&has_run[((Item *)t)->number], true);
                if (((Item *)t)->number == 0) {
                        sem_post(&first_runs);
                        test_wait_for(&first_may_end);
                }
                sem_post(&task_ended);
        }
}

static XTaskRef put_hand_task(uint32_t number) {
        XTaskRef ref;
        Item *item = slab_alloc(stress->slab);
        MUST(item);
        item->number = number;
        atomic_store(&has_run[number], false);
        MUST(xqueue_submit(&stress->xs, trial, &item->task, 0, 0, &ref) == 0);
        return ref;
}

/* False: all have run, and none was claimed the short way; a slow machine does that now and then. */
static bool holder_was_stopped(void) {
        for (unsigned n = 0; n <= HAND_TASKS;) {
                n += sem_trywait(&task_ended) == 0;
                if (sem_trywait(&stopped_there) == 0)
                        return true;
                sched_yield();
        }
        return false;
}

/* What is in the hand cannot be canceled any more, whether the holder has looked or not; what is not there can. */
TEST(E10_a_cancel_and_a_holder_that_is_stopped_in_the_middle_of_a_claim_agree) {
        static const XQueueOps ops = { .execute = execute_hand_trial };
        sem_t *all[] = { &first_runs, &first_may_end, &task_ended, &stopped_there, &go_on };
        XTaskRef refs[HAND_TASKS + 1];
        for (unsigned at = 1; at <= 2; at++) {
                set_up(1, 0, 0);
                atomic_store(&stop_holder_at, at);
                for (size_t i = 0; i < ELEMENTSOF(all); i++)
                        sem_init(all[i], 0, 0);
                XQueueOptions o = XQUEUE_OPTIONS_DEFAULT;
                o.workers = stress->workers;
                o.slab = stress->slab;
                o.batch_max = o.budget_tasks = 1000;
                o.budget_usec = 3600 * UINT64_C(1000000);
                MUST(xqueue_start(&stress->xs, &o, &ops, NULL, &trial) == 0);
                trial_queue = xqueue_pin(&stress->xs, trial);
                do {
                        refs[0] = put_hand_task(0);
                        test_wait_for(&first_runs);
                        for (uint32_t i = 1; i <= HAND_TASKS; i++)
                                refs[i] = put_hand_task(i);
                        sem_post(&first_may_end);
                } while (!holder_was_stopped());
                uint64_t ticket = load_relaxed(&trial_queue->head.bias.hand) >> XTASK_STATE_BITS;
                size_t in_hand = 1;
                while (in_hand < HAND_TASKS && refs[in_hand].ticket != ticket)
                        in_hand++;
                MUST(refs[in_hand].ticket == ticket);
                MUST(xqueue_cancel(refs[in_hand]) == 1);
                MUST(xqueue_cancel(refs[in_hand]) == 1);
                MUST(in_hand == HAND_TASKS || xqueue_cancel(refs[HAND_TASKS]) == 0);
                atomic_store(&stop_holder_at, 0);
                sem_post(&go_on);
                MUST(xqueue_stop(&stress->xs, trial) == 0);
                MUST(xqueue_join(&stress->xs, trial) == 0);
                MUST(has_run[in_hand] && (in_hand == HAND_TASKS || !has_run[HAND_TASKS]));
                xqueue_unpin(trial_queue);
                tear_down();
        }
}

TEST(one_producer_one_queue) {
        run(1, 1, 200000);
}

TEST(sixteen_producers_one_queue) {
        run(16, 1, 200000);
}

TEST(four_producers_three_queues) {
        run(4, 3, 200000);
}

TEST(eight_producers_sixty_four_queues) {
        run(8, 64, 200000);
}

TEST(two_producers_four_thousand_queues) {
        run(2, QUEUES_MAX, 200000);
}

RUN_TESTS("xqueue-stress", 120, test_E4_a_submitter_that_is_stopped_keeps_no_other_from_submitting,
          test_E6_a_batch_that_lingers_is_full_with_a_task_that_was_on_its_way,
          test_E6_an_urgent_task_that_was_on_its_way_ends_the_lingering,
          test_E10_a_cancel_and_a_holder_that_is_stopped_in_the_middle_of_a_claim_agree, test_one_producer_one_queue,
          test_sixteen_producers_one_queue, test_four_producers_three_queues, test_eight_producers_sixty_four_queues,
          test_two_producers_four_thousand_queues)
