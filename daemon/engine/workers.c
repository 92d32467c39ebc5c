/* SPDX-License-Identifier: MIT */
/* Who runs next, who sleeps, who is woken.
 *
 *                        put                                    pick
 *   any thread  ------------------>  inbox  ---- collect ---->  line  ------->  worker: run()
 *               \                  (wait-free)   (lock)       (lock)
 *                `-- ring, if somebody is at the bell
 *
 * The lock is among workers and their manager, for the line, the list of idle ones and all counts. Who puts never takes it.
 *
 * THE BELL. Of the idle workers one is at the bell, the one that became idle last: its memory is the warmest, and those at
 * the other end of the list can go.
 *
 *   bell   NOBODY    every worker is at work or looks out; whoever is done looks into the inbox
 *          a worker  it sleeps; ring: exchange it for RUNG, and wake it
 *          RUNG      it is on its way: no second one is woken meanwhile
 *
 * The woken worker takes RUNG away when it has the lock. Who takes something to run puts the next idle one at the bell
 * (without waking it), and rings if it leaves something behind: so the woken wakes the next, as long as there is work,
 * and one wake-up at most is in flight.
 *
 * NO LOST WAKE-UP. Who puts writes the inbox and then reads the bell; who goes to the bell (or puts another one there)
 * writes the bell and then reads the inbox. All sequentially consistent: one of them sees the other. Who finds NOBODY may
 * go away: then all were at work, or looking out, or on their way to the bell, and each of them reads the inbox after
 * that. Who finds RUNG as well: the woken one has not looked yet. [mutant: to sleep without the second look]
 * A bell rung at a worker that withdraws at that moment is answered there and then; the wake-up comes late, and wakes it
 * from its next sleep for nothing, or is lost. So whoever gets up takes himself from the bell if he is still there: at the bell is
 * only who is in the list. [mutant: to get up and stay at the bell]
 *
 * LOOKING OUT. Before it sleeps, one idle worker at a time looks into the inbox for a while, with nobody at the bell: a
 * wake-up costs as much as a thousand tasks. It looks at the line as well, as another worker may collect meanwhile and leave
 * something there that it cannot ring for. Only if it paid lately: the score goes up with each idle time that was
 * shorter than spin_usec, and down with each longer one.
 *
 * GROWTH. Who takes something to run and leaves nobody idle asks the manager for one more, up to max. The manager is a
 * thread that does nothing but make workers, wait out cool-downs and send away idle ones.
 *
 * Which of those that wait runs next is the scheduling class's to say: line.h. */

#include "engine/workers.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/futex.h"
#include "base/list.h"
#include "base/slab.h"
#include "base/util.h"
#include "engine/line.h"
#include "engine/reserve.h"

enum {
        TRIM_AFTER_USEC = 100000, /* asleep for so long: memory goes back */
        SCORE_MAX = 8,
        SPIN_RELAX = 32, /* instructions between two looks */
        SPIN_YIELD = 4,  /* looks between two yields */
        LEND_YIELDS = 64,
};

typedef struct Worker {
        Workers *pool;
        pthread_t thread;
        List link;      /* Workers::all, Workers::gone or Workers::spare */
        List idle_link; /* Workers::idle */
        uint64_t idle_since_usec;
        ATOMIC(uint32_t) woken; /* futex; 1: get up */
        bool dismissed;         /* has to go, and does not count any more. Lock */
        unsigned number;
} Worker;

#define BELL_NOBODY ((Worker *)0)
#define BELL_RUNG ((Worker *)1)

struct Workers {
        /* Written by those who put. */
        Inbox inbox;

        __attribute__((aligned(64))) ATOMIC(Worker *) bell;
        ATOMIC(bool) line_waits; /* Collected line is not empty */
        ATOMIC(bool) stopping;
        ATOMIC(uint64_t) n_wakeups;

        __attribute__((aligned(64))) pthread_mutex_t lock; /* for all below */
        Collected arrived;                                 /* on its way from the inbox to the line */
        Line line;
        List all, idle; /* Worker::link; Worker::idle_link, the last to become idle first */
        List gone;      /* Worker::link; threads that have ended, to be joined */
        List spare;     /* Worker::link; without a thread. See wake() */
        unsigned n_workers, n_idle;
        unsigned last_number;
        bool looking_out; /* one of the idle ones, which is not in `idle` then */
        unsigned score;
        WorkersStats stats;

        pthread_cond_t manager_cond; /* with lock: something for the manager */
        pthread_t manager;
        bool has_manager, wanted; /* wanted: a worker more, nobody was idle */
        bool may_not_grow;
        bool is_watched;             /* somebody wants to be told that all are at work */
        bool all_busy;               /* and is to be */
        int error;                   /* of the last creation */
        uint64_t create_at_usec;     /* not before */
        uint64_t manager_until_usec; /* it sleeps so long */

        WorkersParams params; /* min and max: lock */
        char name[16];
};

static _Thread_local Worker *self;
static _Thread_local uint64_t own_idle_usec;

static uint64_t now_usec(void) {
        return clock_monotonic(&clock_system);
}

/* ---- sleeping and waking ---- */

static void wake(Worker *w) {
        /* w may be up already, and its thread even gone: then this wakes nobody, or whoever has w next, for nothing. That is
         * why workers are not freed before the pool is. */
        store_release(&w->woken, 1);
        futex_wake(&w->woken, 1);
}

/* True: it has woken somebody. */
static bool ring(Workers *ws) {
        Worker *w = load_seq_cst(&ws->bell);
        if (w == BELL_NOBODY || w == BELL_RUNG || !cas_seq_cst(&ws->bell, &w, BELL_RUNG))
                return false; /* who has changed it has looked into the inbox since, or will */
        (void)fetch_add_relaxed(&ws->n_wakeups, 1);
        wake(w);
        return true;
}

/* The first idle one goes to the bell. The lock is held. */
static void post(Workers *ws) {
        Worker *old = load_seq_cst(&ws->bell);
        if (old == BELL_RUNG || ws->looking_out)
                return;
        List *first = list_first(&ws->idle);
        Worker *next = first ? LIST_ENTRY(first, Worker, idle_link) : BELL_NOBODY;
        if (old != next)
                (void)cas_seq_cst(&ws->bell, &old, next); /* else it has been rung: then the woken one posts */
}

/* w leaves the bell if it is there. False: it has been rung. */
static bool unpost(Workers *ws, Worker *w) {
        Worker *at = w;
        return cas_seq_cst(&ws->bell, &at, BELL_NOBODY) || at != BELL_RUNG;
}

static void answer_bell(Workers *ws) {
        Worker *rung = BELL_RUNG;
        (void)cas_seq_cst(&ws->bell, &rung, BELL_NOBODY);
}

/* ---- the line; the lock is held ---- */

static bool has_more(Workers *ws) {
        return ws->line.n > 0 || ws->arrived.walk || inbox_has_new(&ws->inbox);
}

static void collect(Workers *ws) {
        if (inbox_collect(&ws->inbox, &ws->arrived, INBOX_EMPTY) == INBOX_SOME)
                ws->line.sched->enqueue(&ws->line, (Runnable *)TAKE_PTR(ws->arrived.first));
}

static void note_line(Workers *ws) {
        store_relaxed(&ws->line_waits, ws->line.n > 0);
}

static Runnable *pick(Workers *ws) {
        if (ws->line.n == 0)
                collect(ws);
        Runnable *r = ws->line.sched->pick(&ws->line);
        note_line(ws);
        return r;
}

/* ---- idle ---- */

static bool may_look_out(const Workers *ws) {
        return ws->params.spin_usec > 0 && ws->score > 0 && !ws->looking_out;
}

static void keep_score(Workers *ws, uint64_t idle_usec) {
        if (idle_usec <= ws->params.spin_usec)
                ws->score = MIN(ws->score + 1, (unsigned)SCORE_MAX);
        else if (ws->score > 0)
                ws->score--;
}

static bool is_over(Workers *ws, const Worker *w) {
        return w->dismissed || load_acquire(&ws->stopping) || ws->n_workers > ws->params.max;
}

/* No lock. */
static void look_out(Workers *ws, uint64_t until_usec) {
        for (unsigned i = 1;; i++) {
                for (unsigned k = 0; k < SPIN_RELAX; k++)
                        cpu_relax();
                if (workers_has_waiting(ws) || load_relaxed(&ws->stopping))
                        return;
                if (i % SPIN_YIELD == 0) {
                        if (now_usec() >= until_usec)
                                return;
                        sched_yield(); /* somebody may need this CPU to give us work */
                }
        }
}

static void idle_looking_out(Workers *ws, uint64_t since_usec) {
        ws->looking_out = true;
        Worker *at = load_seq_cst(&ws->bell);
        if (at != BELL_RUNG)
                (void)cas_seq_cst(&ws->bell, &at, BELL_NOBODY);
        pthread_mutex_unlock(&ws->lock);
        look_out(ws, since_usec + ws->params.spin_usec);
        pthread_mutex_lock(&ws->lock);
        ws->looking_out = false;
}

static bool all_are_idle(Workers *ws) {
        pthread_mutex_lock(&ws->lock);
        bool all = ws->n_idle == ws->n_workers;
        pthread_mutex_unlock(&ws->lock);
        return all;
}

/* Until woken. No lock. The last one to fall asleep sees to the memory; while others work it would be in their way. */
static void sleep_until_woken(Worker *w) {
        if (!load_acquire(&w->woken)) {
                futex_wait(&w->woken, 0, TRIM_AFTER_USEC);
                if (!load_acquire(&w->woken) && all_are_idle(w->pool))
                        (void)slab_trim_all();
        }
        while (!load_acquire(&w->woken))
                futex_wait(&w->woken, 0, 0);
}

/* The time at which the one that is idle the longest may go; USEC_NEVER: they are not too many. */
static uint64_t cull_due(const Workers *ws) {
        unsigned n_busy = ws->n_workers - ws->n_idle;
        if (list_is_empty(&ws->idle) || ws->n_workers <= ws->params.min || ws->n_idle <= 2 ||
            (ws->n_idle - 2) * ws->params.max_idle_ratio < n_busy || ws->params.idle_timeout_usec == USEC_NEVER)
                return USEC_NEVER;
        return LIST_ENTRY(ws->idle.prev, Worker, idle_link)->idle_since_usec + ws->params.idle_timeout_usec;
}

static void idle_asleep(Workers *ws, Worker *w) {
        list_insert_before(ws->idle.next, &w->idle_link);
        w->idle_since_usec = now_usec();
        store_relaxed(&w->woken, 0);
        if (cull_due(ws) < ws->manager_until_usec)
                pthread_cond_signal(&ws->manager_cond);
        post(ws);
        preempt_here();
        if (!has_more(ws)) {
                pthread_mutex_unlock(&ws->lock);
                sleep_until_woken(w);
                pthread_mutex_lock(&ws->lock);
        }
        list_remove(&w->idle_link);
        if (!unpost(ws, w))
                answer_bell(ws);
}

/* So many more, and idle ones. The lock is held. */
static void count_workers(Workers *ws, int n, int n_idle) {
        WorkersCount *count = ws->params.count;
        ws->n_workers += (unsigned)n;
        ws->n_idle += (unsigned)n_idle;
        if (!count)
                return;
        store_relaxed(&count->n, ws->n_workers);
        store_relaxed(&count->n_idle, ws->n_idle);
}

/* Nothing to run. The lock is held, and given up meanwhile. */
static void idle(Workers *ws, Worker *w) {
        uint64_t since_usec = now_usec();
        count_workers(ws, 0, 1);
        if (may_look_out(ws))
                idle_looking_out(ws, since_usec);
        if (!has_more(ws) && !is_over(ws, w))
                idle_asleep(ws, w);
        if (!w->dismissed)
                count_workers(ws, 0, -1);
        uint64_t idle_usec = now_usec() - since_usec;
        own_idle_usec += idle_usec;
        keep_score(ws, idle_usec);
}

/* ---- a worker ---- */

/* Nobody is idle: one more, if there may be. The lock is held. */
static void want_another(Workers *ws) {
        if (ws->n_idle > 0 || !ws->has_manager)
                return;
        if (ws->is_watched) {
                ws->is_watched = false;
                ws->all_busy = true;
                pthread_cond_signal(&ws->manager_cond);
        }
        if (ws->n_workers >= ws->params.max || ws->wanted)
                return;
        ws->wanted = true;
        pthread_cond_signal(&ws->manager_cond);
}

/* What to run next; NULL: go. The lock is held, and given up while there is nothing. *ret_ring: something is left for
 * another one. */
static Runnable *next(Workers *ws, Worker *w, bool *ret_ring) {
        for (;;) {
                Runnable *r = ws->n_workers > ws->params.max ? NULL : pick(ws);
                if (r) {
                        post(ws);
                        *ret_ring = has_more(ws);
                        want_another(ws);
                        ws->stats.n_runs++;
                        return r;
                }
                if (is_over(ws, w))
                        return NULL;
                if (ws->arrived.walk) { /* there is something, but who puts it was stopped in the middle */
                        pthread_mutex_unlock(&ws->lock);
                        sched_yield();
                        pthread_mutex_lock(&ws->lock);
                } else
                        idle(ws, w);
        }
}

static void work(Workers *ws, Worker *w) {
        bool more;
        for (Runnable *r; (r = next(ws, w, &more));) {
                pthread_mutex_unlock(&ws->lock);
                if (more && ring(ws))
                        store_relaxed(&r->n_woken, load_relaxed(&r->n_woken) + 1); /* it is in our hands */
                r->run(r);
                pthread_mutex_lock(&ws->lock);
        }
        post(ws); /* it may have been rung for something that it leaves to others */
        more = has_more(ws);
        list_remove(&w->link);
        list_append(&ws->gone, &w->link);
        if (!w->dismissed)
                count_workers(ws, -1, 0);
        pthread_cond_signal(&ws->manager_cond);
        pthread_mutex_unlock(&ws->lock);
        if (more)
                (void)ring(ws);
}

static void *worker_main(void *arg) {
        self = arg;
        Workers *ws = self->pool;
        char name[32];
        snprintf(name, sizeof(name), "eqw/%s:%u", ws->name, self->number);
        name[15] = '\0';
        (void)pthread_setname_np(pthread_self(), name);
        if (ws->params.nice != 0)
                (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), ws->params.nice);
        pthread_mutex_lock(&ws->lock);
        work(ws, self);
        return NULL;
}

static void tell(Workers *ws, WorkersEvent ev, int error) {
        if (ws->params.event)
                ws->params.event(ws->params.host, ev, error);
}

/* The lock is held, and given up meanwhile. */
static void tell_unlocked(Workers *ws, WorkersEvent ev, int error) {
        pthread_mutex_unlock(&ws->lock);
        tell(ws, ev, error);
        pthread_mutex_lock(&ws->lock);
}

/* NULL: no memory. The lock is held. */
static Worker *take_spare(Workers *ws) {
        List *link = list_first(&ws->spare);
        if (link) {
                list_remove(link);
                return LIST_ENTRY(link, Worker, link);
        }
        Worker *w = fault_calloc(1, sizeof(*w));
        if (!w)
                return NULL;
        w->pool = ws;
        list_init(&w->idle_link);
        return w;
}

/* The lock is held, and given up meanwhile. 0 or negative errno. */
static int add_worker(Workers *ws) {
        Worker *w = take_spare(ws);
        int r = w ? 0 : -ENOMEM;
        if (w) {
                w->number = ++ws->last_number;
                w->dismissed = false;
                list_append(&ws->all, &w->link);
                count_workers(ws, 1, 0);
                r = thread_start(ws->params.stack_bytes, worker_main, w, &w->thread); /* it waits for the lock */
        }
        if (r < 0) {
                ws->stats.n_create_failed++;
                if (w) {
                        list_remove(&w->link);
                        list_append(&ws->spare, &w->link);
                        count_workers(ws, -1, 0);
                }
        } else
                ws->stats.n_created++;
        ws->error = r;
        tell_unlocked(ws, r < 0 ? WORKERS_CREATE_FAILED : WORKERS_CREATED, r);
        return r;
}

/* ---- the manager ---- */

static bool needs_worker(const Workers *ws) {
        return ws->n_workers < ws->params.min ||
               (ws->wanted && !ws->may_not_grow && ws->n_idle == 0 && ws->n_workers < ws->params.max);
}

/* Joins threads that have ended. The lock is held, and given up meanwhile. */
static void bury(Workers *ws) {
        for (List *link; (link = list_first(&ws->gone));) {
                Worker *w = LIST_ENTRY(link, Worker, link);
                list_remove(&w->link);
                pthread_mutex_unlock(&ws->lock);
                (void)pthread_join(w->thread, NULL);
                pthread_mutex_lock(&ws->lock);
                list_append(&ws->spare, &w->link);
        }
}

/* Sends the one away that is idle the longest. False: nobody, or it has just been rung. */
static bool dismiss_last(Workers *ws) {
        if (list_is_empty(&ws->idle))
                return false;
        Worker *w = LIST_ENTRY(ws->idle.prev, Worker, idle_link);
        if (!unpost(ws, w))
                return false;
        list_remove(&w->idle_link);
        w->dismissed = true; /* and does not count any more */
        count_workers(ws, -1, -1);
        ws->stats.n_culled++;
        wake(w);
        return true;
}

static void wait_until(Workers *ws, uint64_t usec) {
        ws->manager_until_usec = usec;
        if (usec == USEC_NEVER) {
                pthread_cond_wait(&ws->manager_cond, &ws->lock);
                return;
        }
        struct timespec ts = { .tv_sec = (time_t)(usec / USEC_PER_SEC), .tv_nsec = (long)(usec % USEC_PER_SEC) * 1000 };
        (void)pthread_cond_timedwait(&ws->manager_cond, &ws->lock, &ts);
}

/* One step. Returns when the next one is due. The lock is held, and given up meanwhile. */
static uint64_t manage(Workers *ws) {
        bury(ws);
        while (ws->all_busy) {
                ws->all_busy = false;
                tell_unlocked(ws, WORKERS_ALL_BUSY, 0);
        }
        uint64_t now = now_usec();
        if (!needs_worker(ws))
                ws->wanted = false;
        else if (now < ws->create_at_usec)
                return ws->create_at_usec;
        else {
                ws->wanted = false;
                if (add_worker(ws) < 0) {
                        ws->wanted = true;
                        ws->create_at_usec = now + ws->params.create_cooldown_usec;
                }
                return now;
        }
        uint64_t due = cull_due(ws);
        if (due > now)
                return due;
        if (!dismiss_last(ws))
                return now + ws->params.idle_timeout_usec;
        tell_unlocked(ws, WORKERS_CULLED, 0);
        return now;
}

static void *manager_main(void *arg) {
        Workers *ws = arg;
        (void)pthread_setname_np(pthread_self(), "eqw-manager");
        pthread_mutex_lock(&ws->lock);
        while (!load_acquire(&ws->stopping)) {
                uint64_t due = manage(ws);
                if (due > now_usec() && !load_acquire(&ws->stopping))
                        wait_until(ws, due);
        }
        pthread_mutex_unlock(&ws->lock);
        return NULL;
}

/* ---- for all ---- */

void workers_put_back(Workers *ws, Runnable *r) {
        (void)inbox_push(&ws->inbox, &r->node);
}

void workers_put(Workers *ws, Runnable *r) {
        workers_put_back(ws, r);
        (void)ring(ws);
}

bool workers_has_waiting(Workers *ws) {
        return load_relaxed(&ws->line_waits) || inbox_is_node(load_relaxed(&ws->inbox.head));
}

static bool limits_are_valid(unsigned min, unsigned max) {
        return min >= 1 && max >= min && max <= WORKERS_MAX;
}

/* The lock is held. */
static void set_limits(Workers *ws, unsigned min, unsigned max) {
        ws->params.min = min;
        ws->params.max = max;
        while (ws->n_workers > max && dismiss_last(ws))
                ; /* who is at work goes when it is done */
        if (ws->n_idle == 0)
                want_another(ws);
        pthread_cond_signal(&ws->manager_cond);
}

int workers_set_limits(Workers *ws, unsigned min, unsigned max) {
        if (!limits_are_valid(min, max))
                return -EINVAL;
        pthread_mutex_lock(&ws->lock);
        set_limits(ws, min, max);
        pthread_mutex_unlock(&ws->lock);
        return 0;
}

int workers_set_params(Workers *ws, const WorkersParams *p) {
        if (!limits_are_valid(p->min, p->max))
                return -EINVAL;
        pthread_mutex_lock(&ws->lock);
        ws->params.nice = p->nice;
        ws->params.stack_bytes = p->stack_bytes;
        ws->params.max_idle_ratio = p->max_idle_ratio;
        ws->params.idle_timeout_usec = p->idle_timeout_usec;
        ws->params.create_cooldown_usec = p->create_cooldown_usec;
        set_limits(ws, p->min, p->max);
        pthread_mutex_unlock(&ws->lock);
        return 0;
}

void workers_shrink(Workers *ws) {
        pthread_mutex_lock(&ws->lock);
        while (ws->n_workers > ws->params.min && dismiss_last(ws))
                ;
        post(ws);
        pthread_mutex_unlock(&ws->lock);
        (void)slab_trim_all();
}

/* Who took something to run meanwhile and left nobody idle has asked in vain; and whoever puts something later asks nobody. */
void workers_set_growth(Workers *ws, bool allowed) {
        pthread_mutex_lock(&ws->lock);
        ws->may_not_grow = !allowed;
        if (allowed)
                want_another(ws);
        pthread_mutex_unlock(&ws->lock);
}

WorkersNeed workers_need(Workers *ws, uint64_t *ret_n_runs) {
        WorkersNeed need = WORKERS_NO_NEED;
        pthread_mutex_lock(&ws->lock);
        *ret_n_runs = ws->stats.n_runs;
        if (ws->n_idle == 0 && (ws->n_workers >= ws->params.max || ws->may_not_grow))
                need = WORKERS_FULL;
        else if (ws->n_idle == 0 && ws->error < 0)
                need = WORKERS_REFUSED;
        ws->is_watched = need == WORKERS_NO_NEED;
        pthread_mutex_unlock(&ws->lock);
        return need;
}

/* What it collects stays in the line, where everybody who is about to sleep looks. */
bool workers_lend(Workers *ws, Runnable *r, bool (*lend)(Runnable *r, void *arg), void *arg) {
        pthread_mutex_lock(&ws->lock);
        collect(ws);
        for (unsigned i = 0; ws->arrived.walk && i < LEND_YIELDS; i++) { /* who puts it was stopped in the middle */
                pthread_mutex_unlock(&ws->lock);
                sched_yield();
                pthread_mutex_lock(&ws->lock);
                collect(ws);
        }
        bool found = r->in_line;
        if (found) { /* others may put it anew as soon as lend() has let go of it */
                ws->line.sched->dequeue(&ws->line, r);
                if (lend(r, arg))
                        ws->line.sched->restore(&ws->line, r);
        }
        note_line(ws);
        pthread_mutex_unlock(&ws->lock);
        return found;
}

bool workers_is_self(const Workers *ws) {
        return self && (!ws || self->pool == ws);
}

uint64_t workers_idle_usec(void) {
        return own_idle_usec;
}

void workers_get_stats(Workers *ws, WorkersStats *ret) {
        pthread_mutex_lock(&ws->lock);
        *ret = ws->stats;
        ret->n_workers = ws->n_workers;
        ret->n_idle = ws->n_idle;
        pthread_mutex_unlock(&ws->lock);
        ret->n_wakeups = load_relaxed(&ws->n_wakeups);
}

/* ---- life ---- */

static int allocate(const WorkersParams *p, Workers **ret) {
        pthread_condattr_t attr;
        if (!limits_are_valid(p->min, p->max))
                return -EINVAL;
        Workers *ws = fault_hit(FAULT_ALLOC) ? NULL : aligned_alloc(64, (sizeof(*ws) + 63) / 64 * 64);
        if (!ws)
                return -ENOMEM;
        memset(ws, 0, sizeof(*ws));
        ws->params = *p;
        snprintf(ws->name, sizeof(ws->name), "%s", p->name);
        ws->params.name = ws->name;
        ws->line.sched = &line_fifo;
        ws->score = sysconf(_SC_NPROCESSORS_ONLN) > 1 ? SCORE_MAX / 2 : 0;
        if (ws->score == 0)
                ws->params.spin_usec = 0; /* who would give it work meanwhile? */
        list_init(&ws->all);
        list_init(&ws->idle);
        list_init(&ws->gone);
        list_init(&ws->spare);
        pthread_mutex_init(&ws->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&ws->manager_cond, &attr);
        pthread_condattr_destroy(&attr);
        *ret = ws;
        return 0;
}

int workers_new(const WorkersParams *p, Workers **ret) {
        Workers *ws;
        int r = allocate(p, &ws);
        if (r < 0)
                return r;
        r = thread_start(p->stack_bytes, manager_main, ws, &ws->manager);
        if (r < 0) {
                workers_free(ws);
                return r;
        }
        pthread_mutex_lock(&ws->lock);
        ws->has_manager = true; /* makes the first ones */
        pthread_mutex_unlock(&ws->lock);
        *ret = ws;
        return 0;
}

int workers_new_single(const WorkersParams *p, Workers **ret) {
        WorkersParams one = *p;
        one.min = one.max = 1;
        Workers *ws;
        int r = allocate(&one, &ws);
        if (r < 0)
                return r;
        pthread_mutex_lock(&ws->lock);
        r = add_worker(ws);
        pthread_mutex_unlock(&ws->lock);
        if (r < 0) {
                workers_free(ws);
                return r;
        }
        *ret = ws;
        return 0;
}

/* It may be that no worker was ever made: the end came before the first one, or the system refused them all. What was put
 * then runs on the thread that frees, which is the only one left, and is a worker meanwhile. */
static void run_rest(Workers *ws) {
        Worker *before = self, stand_in = { .pool = ws };
        assert(ws->stats.n_created == 0 || !has_more(ws)); /* else the last worker went too early */
        self = &stand_in;
        for (Runnable *r; (r = pick(ws));)
                r->run(r);
        self = before;
        assert(!has_more(ws));
}

Workers *workers_free(Workers *ws) {
        if (!ws)
                return NULL;
        assert(!workers_is_self(ws));
        pthread_mutex_lock(&ws->lock);
        store_release(&ws->stopping, true);
        for (List *link = ws->idle.next; link != &ws->idle; link = link->next)
                wake(LIST_ENTRY(link, Worker, idle_link));
        pthread_cond_broadcast(&ws->manager_cond);
        pthread_mutex_unlock(&ws->lock);
        if (ws->has_manager)
                (void)pthread_join(ws->manager, NULL);
        pthread_mutex_lock(&ws->lock);
        while (bury(ws), !list_is_empty(&ws->all))
                pthread_cond_wait(&ws->manager_cond, &ws->lock);
        pthread_mutex_unlock(&ws->lock);
        run_rest(ws);
        for (List *link; (link = list_first(&ws->spare));) {
                list_remove(link);
                free(LIST_ENTRY(link, Worker, link));
        }
        pthread_cond_destroy(&ws->manager_cond);
        pthread_mutex_destroy(&ws->lock);
        free(ws);
        return NULL;
}
