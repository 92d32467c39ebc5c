/* SPDX-License-Identifier: MIT */
/* The execution queue itself under relacy: xqueue.c and xholder.c as they stand in daemon/engine, with what is around
 * them played. Usage as of relacy-models.
 *
 * The Workers are one flag, "it stands in the line". Who puts the queue there, where it must not stand yet, looks at the
 * flag when he is through with what he does, and so do all others: each of the threads is a worker as well. The registry
 * gives the address of the queue even when it has ended, as a look-up does that was made before. There are no lots, which
 * have a model of their own. Plain members of XQueue are not checked for races by themselves, but what execute() writes is, and so who
 * runs it after whom.
 *
 * A holder that lingers sleeps until it is called. When all who could call it are through, it must have nothing to do, or it has slept
 * past something; then its time is over. */

#define BOUND 1 /* there are too many ways with two */
#include "relacy-frame.hh"

/* A lock of its own: that of relacy, where threads wait in a set, does not stand being bounded in its switches. */
struct Lock {
        ATOMIC(uint32_t) taken;
};
static void take(Lock *l) {
        while (exchange_acquire(&l->taken, 1) != 0)
                rl::yield(1, $);
}
#undef pthread_mutex_t
#undef pthread_mutex_init
#undef pthread_mutex_lock
#undef pthread_mutex_unlock
#define pthread_mutex_t Lock
#define pthread_mutex_init(l, attr) store_relaxed(&(l)->taken, 0)
#define pthread_mutex_lock(l) take(l)
#define pthread_mutex_unlock(l) store_release(&(l)->taken, 0)

#define _Thread_local /* what is kept of each thread is only how deep it is in queues */
#define _STDATOMIC_H  /* which is no C++ */
typedef long atomic_long;
#define atomic_load_explicit(p, order) (*(p))

#include "base/clock.h"
#include "base/fault.h"
#include "base/futex.h"
#include "base/slab.h"
#include "engine/registry.h"
#include "engine/submitter.h"

bool heavy_fence_works(void);
static XQueue *the_queue();
static void give_memory_back();
static uint64_t the_time();
static void sleep_at(const ATOMIC(uint32_t) * word, uint32_t value);
static void wake_up();

#define last_ticket (*tickets) /* so it becomes a pointer: as itself it would be there before relacy is */
#define clock_monotonic(c) the_time()
#define futex_wait(word, value, usec) sleep_at((word), (value))
#define futex_wake(word, n) wake_up()
#define usleep(usec) (rl::yield(1, $), 0)
#define slab_alloc(s) the_queue()
#define slab_free(s, p) give_memory_back()
#define slab_free_quickly(s, p) (give_memory_back(), true)
#define registry_find(r, id) the_queue()
#define registry_was_given(r, id) true

#include "engine/xholder.c"
#include "engine/xqueue.c"

enum { N_TASKS = 3, QUEUE_ID = 5 << 4, BEGIN_USEC = 1000000, LINGER_USEC = 1000000 };

/* A queue, and the threads around it. */
struct World {
        XQueue queue;
        XQueues set;
        uint64_t id;
        ATOMIC(uint64_t) ticket;
        XTask tasks[N_TASKS];
        XTaskRef refs[N_TASKS];
        ATOMIC(uint32_t) in_line, n_inside, max_active, n_ended, n_freed;
        VAR<int> n_serial;       /* touched by each execution of a serial queue, and by the last one of any */
        VAR<int> n_run[N_TASKS]; /* by who executes it */
        VAR<int> n_released[N_TASKS];
        VAR<int> accepted[N_TASKS]; /* the submitter's */
        bool is_serial;
        unsigned patience; /* so often a thread looks for work in vain before it goes */
        XQueueOptions o;   /* of the queue */
        uint64_t now_usec;
        ATOMIC(uint32_t) n_wakes, n_acting; /* threads that may call a holder that sleeps */
        unsigned n_in_call;                 /* tasks that were taken in this call of execute(); the holder's */
        bool is_urgent[N_TASKS];
        unsigned n_balks; /* so many calls of execute() take nothing */
        bool is_refused;  /* one, after the last one that was accepted */

        World() : o(XQUEUE_OPTIONS_DEFAULT) {
        }
        void begin(uint32_t active);
        void work();
        void must_sleep();
        void submit(unsigned i, unsigned flags) {
                is_urgent[i] = (flags & XSUBMIT_URGENT) != 0;
                int r = xqueue_submit(&set, id, &tasks[i], 0, flags, &refs[i]);
                SAY(accepted[i]) = r == 0;
                is_refused = r == -ENOSPC;
        }
        void stop() {
                RL_ASSERT(xqueue_stop(&set, id) == 0);
        }
        /* All is over: what was accepted has run once, or was canceled. */
        void check(int n_canceled) {
                int sum = 0, n_accepted = 0;
                RL_ASSERT(load_relaxed(&n_ended) == 1 && load_relaxed(&n_freed) == 1);
                for (int i = 0; i < N_TASKS; i++) {
                        RL_ASSERT(SAY(n_run[i]) <= SAY(accepted[i]));
                        RL_ASSERT(SAY(n_released[i]) == SAY(accepted[i]));
                        sum += SAY(n_run[i]);
                        n_accepted += SAY(accepted[i]);
                }
                RL_ASSERT(sum + n_canceled == n_accepted);
        }
};
static World *world;

/* ---- what is played ---- */

static uint64_t the_time() {
        return world->now_usec;
}

static void wake_up() {
        (void)fetch_add_seq_cst(&world->n_wakes, 1);
}

/* The kernel's look at the word, and all after it, sees what was done before a wake-up that it does not see. */
static void sleep_at(const ATOMIC(uint32_t) * word, uint32_t value) {
        uint32_t n = fetch_add_seq_cst(&world->n_wakes, 0);
        if (load_seq_cst(word) != value)
                return;
        for (; fetch_add_seq_cst(&world->n_wakes, 0) == n; rl::yield(1, $)) {
                if (fetch_add_seq_cst(&world->n_acting, 0) > 0 || fetch_add_seq_cst(&world->n_wakes, 0) != n)
                        continue;
                world->must_sleep();
                world->now_usec += LINGER_USEC;
                return;
        }
}

/* Nobody will call the holder any more. */
void World::must_sleep() {
        unsigned n_pending = 0;
        for (int i = 0; i < N_TASKS; i++)
                if (SAY(accepted[i]) > SAY(n_run[i])) {
                        RL_ASSERT(!is_urgent[i]);
                        n_pending++;
                }
        RL_ASSERT(n_pending + n_in_call < o.batch_max);
        RL_ASSERT(n_pending < o.max_tasks || !is_refused);
        RL_ASSERT(!xhead_is_closed(&queue.head) && load_seq_cst(&queue.head.gate) == 0);
        RL_ASSERT(load_seq_cst(&queue.max_active) == 1);
}

static XQueue *the_queue() {
        return &world->queue;
}

static void give_memory_back() {
        RL_ASSERT(fetch_add_relaxed(&world->n_freed, 1) == 0);
}

void workers_put_back(Workers *w, Runnable *r) {
        RL_ASSERT(r == &world->queue.runnable);
        RL_ASSERT(exchange_acq_rel(&world->in_line, 1) == 0); /* there is one token */
}

void workers_put(Workers *w, Runnable *r) {
        workers_put_back(w, r);
}

bool workers_has_waiting(Workers *w) {
        return rl::rand(2) != 0; /* other queues, which are not here */
}

bool workers_is_self(const Workers *w) {
        return true;
}

bool workers_lend(Workers *w, Runnable *r, bool (*lend)(Runnable *r, void *arg), void *arg) {
        if (exchange_acq_rel(&world->in_line, 0) == 0)
                return false;
        if (lend(r, arg))
                workers_put_back(w, r);
        return true;
}

int workers_new_single(const WorkersParams *p, Workers **ret) {
        return -EAGAIN;
}

Workers *workers_free(Workers *w) {
        return NULL;
}

void registry_init(Registry *r) {
}

void registry_deinit(Registry *r) {
}

int registry_reserve(Registry *r, uint64_t *ret_id) {
        *ret_id = QUEUE_ID;
        return 0;
}

void registry_publish(Registry *r, uint64_t id, void *thing) {
}

void registry_remove(Registry *r, uint64_t id) {
}

Pushed *submitter_places;

Pushed *submitter_make_places(void) {
        return NULL;
}

bool heavy_fence_works(void) {
        return true;
}

XLotRest submitter_call_in(uint64_t id, XHead *h) {
        return { 0, 0 };
}

XLotRest submitter_count(uint64_t id, XHead *h) {
        return { 0, 0 };
}

int slab_new(size_t object_size, size_t align, bool keep, Slab **ret) {
        static Slab slab;
        *ret = &slab;
        return 0;
}

Slab *slab_destroy(Slab *s) {
        return NULL;
}

void *fault_calloc(size_t n, size_t size) {
        return NULL;
}

/* ---- the plugin of the world, so to say ---- */

static void on_execute(void *meta, XBatch *b) {
        World *w = world;
        uint32_t inside = fetch_add_relaxed(&w->n_inside, 1) + 1;
        if (xbatch_is_stopped(b)) {
                RL_ASSERT(inside == 1 && fetch_add_relaxed(&w->n_ended, 1) == 0);
                SAY(w->n_serial) = SAY(w->n_serial) + 1;
                for (VAR<int> &n : w->n_run) /* what was done is known by now */
                        (void)SAY(n);
                (void)fetch_sub_seq_cst(&w->n_inside, 1);
                return;
        }
        w->n_in_call = 0;
        RL_ASSERT(load_relaxed(&w->n_ended) == 0);
        RL_ASSERT(inside <= load_relaxed(&w->max_active));
        if (w->n_balks > 0 && w->n_balks-- > 0) {
                (void)fetch_sub_seq_cst(&w->n_inside, 1);
                return;
        }
        for (XTask *t; (t = xbatch_next(b));) {
                unsigned i = (unsigned)(t - w->tasks);
                SAY(w->n_run[i]) = SAY(w->n_run[i]) + 1;
                w->n_in_call++;
                if (w->is_serial)
                        SAY(w->n_serial) = SAY(w->n_serial) + 1;
        }
        (void)fetch_sub_seq_cst(&w->n_inside, 1);
}

static void on_release(void *meta, XTask *t) {
        unsigned i = (unsigned)(t - world->tasks);
        SAY(world->n_released[i]) = SAY(world->n_released[i]) + 1;
}

static const XQueueOps ops = { .execute = on_execute, .release = on_release };

void World::begin(uint32_t active) {
        world = this;
        now_usec = BEGIN_USEC;
        tickets = &ticket;
        frames = NULL;
        depth = 0;
        store_relaxed(&ticket, 0);
        clear(&queue.head, 0, 0);
        for (auto &n : queue.head.recent)
                store_relaxed(&n, (InboxNode *)0);
        store_relaxed(&queue.head.n_recent, 0);
        store_relaxed(&queue.head.linger_goal, 0);
        clear(&queue.runnable.node);
        store_relaxed(&queue.active, 0);
        store_relaxed(&queue.ended, 0);
        store_relaxed(&queue.lingered, 0);
        pthread_mutex_init(&queue.group_lock, NULL);
        (void)xqueues_init(&set);
        for (int i = 0; i < N_TASKS; i++) {
                clear(&tasks[i]);
                refs[i] = (XTaskRef) { NULL, 0 };
                SAY(n_run[i]) = SAY(n_released[i]) = SAY(accepted[i]) = 0;
                is_urgent[i] = false;
        }
        for (auto *word : { &in_line, &n_inside, &n_ended, &n_freed, &n_wakes, &n_acting })
                store_relaxed(word, 0);
        store_relaxed(&max_active, active);
        SAY(n_serial) = 0;
        is_serial = active == 1;
        is_refused = false;
        n_balks = 0;
        patience = 0;
        o.workers = (Workers *)this;
        o.max_active = active;
        o.budget_tasks = 1;
        RL_ASSERT(xqueue_start(&set, &o, &ops, this, &id) == 0);
}

void World::work() {
        for (unsigned n_idle = 0; n_idle <= patience;)
                if (exchange_acq_rel(&in_line, 0) != 0)
                        xholder_run_on_worker(&queue.runnable);
                else if (n_idle++ < patience)
                        rl::yield(1, $);
}

/* ---- models ---- */

/* A serial queue: a submitter in place, one with an urgent task, and a stop. */
struct Serial : rl::test_suite<Serial, 3> {
        World w;

        void before() {
                w.begin(1);
        }
        void thread(unsigned i) {
                if (i == 2)
                        w.stop();
                else
                        w.submit(i, i == 0 ? XSUBMIT_URGENT : XSUBMIT_IN_PLACE);
                w.work();
        }
        void after() {
                w.check(0);
        }
};

/* Two at a time, of three that were there before, and a stop. */
struct Group : rl::test_suite<Group, 3> {
        World w;

        void before() {
                w.begin(2);
                w.patience = 2;
                for (unsigned i = 0; i < N_TASKS; i++)
                        w.submit(i, 0);
        }
        void thread(unsigned i) {
                if (i == 2)
                        w.stop();
                w.work();
        }
        void after() {
                w.check(0);
        }
};

/* Two at a time, of two: one submits, one disturbs, one stops. */
template <typename Model> struct Disturbed : rl::test_suite<Model, 3> {
        World w;

        void before() {
                w.begin(2);
        }
        void thread(unsigned i) {
                if (i == 0) {
                        w.submit(0, 0);
                        w.submit(1, 0);
                } else if (i == 1)
                        static_cast<Model *>(this)->disturb();
                else
                        w.stop();
                w.work();
        }
        void after() {
                w.check(0);
        }
};

/* One at a time, then two again. */
struct Resize : Disturbed<Resize> {
        void disturb() {
                (void)xqueue_set_max_active(&w.set, w.id, 1);
                (void)xqueue_set_max_active(&w.set, w.id, 2);
        }
};

/* A pause and a resume. */
struct Gate : Disturbed<Gate> {
        void disturb() {
                if (xqueue_pause(&w.set, w.id) == 0)
                        RL_ASSERT(xqueue_resume(&w.set, w.id) == 0 || load_relaxed(&w.n_ended) == 1);
        }
};

/* A task is canceled while its queue comes to its end. */
struct Withdraw : rl::test_suite<Withdraw, 2> {
        World w;
        VAR<int> n_canceled;

        void before() {
                w.begin(1);
                SAY(n_canceled) = 0;
                w.submit(0, 0);
        }
        void thread(unsigned i) {
                if (i == 0)
                        SAY(n_canceled) = xqueue_cancel(w.refs[0]) == 0;
                else
                        w.stop();
                w.work();
        }
        void after() {
                w.check(SAY(n_canceled));
        }
};

/* A reserve helps, beside workers, two at a time. */
struct Helped : rl::test_suite<Helped, 3> {
        World w;

        void before() {
                w.begin(2);
                w.submit(0, 0);
        }
        void thread(unsigned i) {
                if (i == 0)
                        w.submit(1, 0);
                else if (i == 1)
                        (void)xqueue_rescue(&w.set, w.id);
                else
                        w.stop();
                w.work();
        }
        void after() {
                w.check(0);
        }
};

/* Two at a time, and the first two calls take nothing. */
struct Balk : rl::test_suite<Balk, 2> {
        World w;

        void before() {
                w.begin(2);
                w.patience = 2;
                w.n_balks = 2;
        }
        void thread(unsigned i) {
                if (i == 0)
                        w.submit(0, 0);
                w.work();
        }
        void after() {
                w.work();
                RL_ASSERT(SAY(w.n_run[0]) == 1); /* and not because of the stop */
                w.stop();
                w.work();
                w.check(0);
        }
};

/* A holder that has run one task lingers for two more, and somebody acts. */
template <typename Model> struct Lingering : rl::test_suite<Model, 2> {
        World w;

        Lingering() {
                w.o.batch_linger_usec = LINGER_USEC;
                w.o.batch_max = 3;
        }
        void before() {
                w.begin(1);
                store_relaxed(&w.n_acting, 1);
                w.submit(0, 0);
        }
        void thread(unsigned i) {
                if (i == 1) {
                        static_cast<Model *>(this)->act();
                        (void)fetch_sub_seq_cst(&w.n_acting, 1);
                }
                w.work();
        }
        void after() {
                (void)xqueue_resume(&w.set, w.id);
                w.stop();
                w.work();
                w.check(0);
        }
};

/* Two more come, and then the batch is full. */
struct Fill : Lingering<Fill> {
        void act() {
                w.submit(1, 0);
                w.submit(2, 0);
        }
};

/* An urgent one comes, and a normal one, which do not fill the batch. */
struct Haste : Lingering<Haste> {
        Haste() {
                w.o.batch_max = 64;
        }
        void act() {
                w.submit(1, XSUBMIT_URGENT);
                w.submit(2, 0);
        }
};

struct Halt : Lingering<Halt> {
        void act() {
                w.stop();
        }
};

struct Hold : Lingering<Hold> {
        void act() {
                RL_ASSERT(xqueue_pause(&w.set, w.id) == 0);
        }
};

struct Widen : Lingering<Widen> {
        void act() {
                w.is_serial = false;
                store_relaxed(&w.max_active, 2);
                RL_ASSERT(xqueue_set_max_active(&w.set, w.id, 2) == 0);
        }
};

/* There is room for one. */
struct Crowd : Lingering<Crowd> {
        Crowd() {
                w.o.max_tasks = 1;
        }
        void act() {
                w.submit(1, 0);
                w.submit(2, 0);
        }
};

int main(int argc, char **argv) {
        static const Row models[] = {
#ifdef RELACY_ONLY
                { "only", check<RELACY_ONLY> },
#else
                { "serial", check<Serial> }, { "group", check<Group> },       { "resize", check<Resize> },
                { "gate", check<Gate> },     { "withdraw", check<Withdraw> }, { "helped", check<Helped> },
                { "fill", check<Fill> },     { "haste", check<Haste> },       { "halt", check<Halt> },
                { "hold", check<Hold> },     { "widen", check<Widen> },       { "crowd", check<Crowd> },
                { "balk", check<Balk> },
#endif
        };
        return run(models, argc, argv);
}
