/* SPDX-License-Identifier: MIT */
/* The engine against a model that is too simple to be wrong: a bag of tasks, each question answered by looking at all of
 * them. Random calls go to both, also from inside hooks, waiters and executors; the executor compares each start with the
 * model's choice, and after each call every count, state, reason and time is compared.
 *
 * The model is changed before the engine is called, so that it is right whenever the engine calls back.
 *
 * EQD_MODEL_SEED=N runs that seed only; EQD_MODEL_STEPS=N sets the length of a run. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "engine/barrier.h"
#include "engine/engine.h"
#include "proto/schema.h"
#include "test.h"

/* Check's own assertions make a system call even when they hold: too dear for millions of them. */
#define expect(cond)                                                                                                   \
        do {                                                                                                           \
                if (!(cond))                                                                                           \
                        ck_abort_msg("%s:%d: not so: %s", __func__, __LINE__, #cond);                                  \
        } while (0)
#define expect_eq(got, expected)                                                                                       \
        do {                                                                                                           \
                uint64_t got_ = (uint64_t)(got), expected_ = (uint64_t)(expected);                                     \
                if (got_ != expected_)                                                                                 \
                        ck_abort_msg("%s:%d: %s is %ld, %s is %ld", __func__, __LINE__, #got, (long)got_, #expected,   \
                                     (long)expected_);                                                                 \
        } while (0)

enum { N_POOLS = 2, N_QUEUES = 5, N_MODELS_MAX = 400, N_WAITERS_MAX = 64, DEPTH_MAX = 3 };

/* A task. `state` _EQ_STATE_INVALID: reserved, not pushed. */
typedef struct Model {
        Task task; /* first */
        size_t queue;
        uint64_t seq, born, due, expire;
        uint32_t bytes;
        eq_state state;
        uint8_t wait;
        TaskLane lane;
        unsigned attempt;
        bool again, at_gate;
        struct Model *main; /* it is the token of that one, and `task` is not used */
        bool is_barrier;    /* it had tokens; some may be gone with their queues */
} Model;

typedef enum WaiterKind { WAIT_DRAIN, WAIT_JOIN, WAIT_FLUSH, _WAIT_MAX } WaiterKind;

typedef struct Waiter {
        QueueWaiter waiter; /* first */
        bool used;
        WaiterKind kind;
        size_t queue;
        uint64_t born_max;
        bool frees_queue;
} Waiter;

typedef struct ModelPool {
        Executor executor; /* first */
        Pool *pool;
        size_t n_max;
        uint64_t blocked_until;
        eq_reason blocked_reason;
} ModelPool;

typedef struct ModelQueue {
        Queue *q;
        QueueParams params;
        unsigned pauses;
        bool stopping;
        uint64_t last_seq, last_id;
} ModelQueue;

static struct {
        uint64_t random;
        FakeClock clock;
        Engine engine;
        ModelPool pools[N_POOLS];
        ModelQueue queues[N_QUEUES];
        Model *models[N_MODELS_MAX]; /* all that exist */
        size_t n_models;
        Waiter waiters[N_WAITERS_MAX];
        uint64_t n_born, n_pushed, n_finished, n_started, n_barriers, armed;
        unsigned depth;
        bool in_run_due, ending;
        bool submitted; /* in this step: a reopened queue need not be empty when its second waiter is called */
} W;

static uint64_t dice(uint64_t n) {
        W.random += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t x = W.random;
        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return (x ^ (x >> 31)) % n;
}

static uint64_t now(void) {
        return W.clock.monotonic_usec;
}

/* Questions to the model */

static bool is_pending(const Model *m) {
        return m->state == EQ_STATE_WAITING || m->state == EQ_STATE_QUEUED;
}

static bool is_unended(const Model *m) {
        return m->state == _EQ_STATE_INVALID || is_pending(m) || m->state == EQ_STATE_RUNNING;
}

static bool is_part(const Model *m) {
        return m->main || m->is_barrier;
}

static Model *main_of(Model *m) {
        return m && m->main ? m->main : m;
}

#define FOR_PARTS(k, m)                                                                                                \
        for (size_t at_ = 0; at_ < W.n_models; at_++)                                                                  \
                for (Model *k = W.models[at_]; k; k = NULL)                                                            \
                        if (main_of(k) == (m))

/* Its tokens are what it is. */
static void set_state(Model *m, eq_state state, uint8_t wait) {
        m->state = state;
        m->wait = wait;
        if (m->is_barrier)
                FOR_PARTS(k, m) {
                        k->state = state;
                        k->wait = wait;
                }
}

static size_t pool_of(size_t queue) {
        return queue % N_POOLS;
}

#define FOR_MODELS(m, i)                                                                                               \
        for (size_t at_ = 0; at_ < W.n_models; at_++)                                                                  \
                for (Model *m = W.models[at_]; m; m = NULL)                                                            \
                        if (m->queue == (i))

static size_t n_in(size_t queue, eq_state state) {
        size_t n = 0;
        FOR_MODELS(m, queue)
        n += m->state == state;
        return n;
}

static bool is_empty(size_t queue) {
        FOR_MODELS(m, queue)
        if (is_unended(m))
                return false;
        return true;
}

static Model *backoff_before(const Model *t) {
        Model *first = NULL;
        if (W.queues[t->queue].params.max_active == 1)
                FOR_MODELS(m, t->queue)
        if (m->state == EQ_STATE_WAITING && m->wait == TASK_WAIT_BACKOFF && m->lane == t->lane && m->seq < t->seq &&
            (!first || m->seq < first->seq))
                first = m;
        return first;
}

static Model *next_of(size_t queue) {
        for (TaskLane lane = 0; lane < _TASK_LANE_MAX; lane++) {
                Model *next = NULL;
                FOR_MODELS(m, queue)
                if (m->state == EQ_STATE_QUEUED && m->lane == lane && (!next || m->seq < next->seq))
                        next = m;
                if (next && !backoff_before(next))
                        return next;
        }
        return NULL;
}

/* a stands before b, both QUEUED. */
static bool is_before(const Model *a, const Model *b) {
        return a->lane != b->lane ? a->lane < b->lane : a->seq < b->seq;
}

static Model *held(size_t queue) {
        FOR_MODELS(m, queue)
        if (m->state == EQ_STATE_RUNNING && is_part(m))
                return main_of(m);
        return NULL;
}

/* The part of a barrier that is not alone at the head of its queue yet, or NULL. */
static Model *waits_for(Model *barrier) {
        FOR_PARTS(k, barrier)
        if (W.queues[k->queue].pauses > 0 || n_in(k->queue, EQ_STATE_RUNNING) > 0 || next_of(k->queue) != k)
                return k;
        return NULL;
}

static Model *startable(size_t queue) {
        const ModelQueue *mq = &W.queues[queue];
        if (mq->pauses > 0 || held(queue) || n_in(queue, EQ_STATE_RUNNING) >= mq->params.max_active)
                return NULL;
        Model *next = next_of(queue);
        return next && (next->main || (next->is_barrier && waits_for(next))) ? NULL : next;
}

static size_t n_busy(size_t pool) {
        size_t n = 0;
        for (size_t i = 0; i < N_QUEUES; i++)
                if (pool_of(i) == pool)
                        FOR_MODELS(m, i)
        n += m->state == EQ_STATE_RUNNING && !m->main;
        return n;
}

static bool is_blocked(size_t pool) {
        return W.pools[pool].blocked_until > now();
}

static void cool_down(size_t pool) {
        ModelPool *p = &W.pools[pool];
        if (is_blocked(pool))
                return;
        p->blocked_until = now() + POOL_COOLDOWN_USEC;
        p->blocked_reason = EQ_REASON_CREATE_FAILURE;
}

static void block(size_t pool, uint64_t until) {
        W.pools[pool].blocked_reason = EQ_REASON_SPAWN_FAILED;
        W.pools[pool].blocked_until = until;
        pool_block(W.pools[pool].pool, EQ_REASON_SPAWN_FAILED, until);
}

static uint64_t next_usec_of(const Model *m) {
        uint64_t usec = USEC_NEVER;
        if (!is_pending(m) || m->main)
                return usec;
        if (m->wait & (TASK_WAIT_AT | TASK_WAIT_BACKOFF))
                usec = m->due;
        if (m->expire != 0 && m->attempt == 0)
                usec = MIN(usec, m->expire);
        return usec;
}

static eq_reason reason_of(Model *t, const Model **ret_by) {
        const ModelQueue *mq = &W.queues[t->queue];
        const ModelPool *mp = &W.pools[pool_of(t->queue)];
        *ret_by = NULL;
        if (!is_pending(t))
                return EQ_REASON_NONE;
        if (t->wait)
                return t->wait & TASK_WAIT_HELD    ? EQ_REASON_HELD
                       : t->wait & TASK_WAIT_AFTER ? EQ_REASON_AFTER
                       : t->wait & TASK_WAIT_AT    ? EQ_REASON_AT
                                                   : EQ_REASON_BACKOFF;
        if (mq->pauses)
                return EQ_REASON_PAUSED;
        if ((*ret_by = held(t->queue)))
                return EQ_REASON_BARRIER;
        if (is_blocked(pool_of(t->queue)))
                return mp->blocked_reason;
        size_t n_running = n_in(t->queue, EQ_STATE_RUNNING);
        if (n_running >= mq->params.max_active) {
                FOR_MODELS(m, t->queue)
                if (n_running == 1 && m->state == EQ_STATE_RUNNING)
                        *ret_by = m;
                return mq->params.max_active == 1 ? EQ_REASON_SERIAL : EQ_REASON_MAX_ACTIVE;
        }
        if ((*ret_by = main_of(backoff_before(t))))
                return EQ_REASON_BACKOFF;
        if (t != next_of(t->queue)) {
                Model *next = next_of(t->queue);
                *ret_by = main_of(next);
                return is_part(next) ? EQ_REASON_BARRIER : EQ_REASON_PRIO;
        }
        if (t->is_barrier && waits_for(t))
                return EQ_REASON_BARRIER;
        return n_busy(pool_of(t->queue)) < mp->n_max ? EQ_REASON_NONE : EQ_REASON_SLOTS;
}

/* What the engine calls */

static void random_call(void);

static void maybe_call_back(void) {
        if (W.depth >= DEPTH_MAX || W.ending || dice(6) != 0)
                return;
        W.depth++;
        random_call();
        W.depth--;
}

static void forget_one(const Model *m) {
        for (size_t i = 0; i < W.n_models; i++)
                if (W.models[i] == m) {
                        free(W.models[i]);
                        W.models[i] = W.models[--W.n_models];
                        return;
                }
        ck_abort_msg("a task is forgotten twice");
}

static void forget(Model *m) {
        for (size_t i = W.n_models; i-- > 0;)
                if (i < W.n_models && W.models[i]->main == m)
                        forget_one(W.models[i]);
        barrier_forget(&W.engine, &m->task);
        forget_one(m);
}

static void end_attempt(Model *m) {
        static const TaskVerdict verdicts[] = { TASK_OK,  TASK_OK,        TASK_OK,      TASK_BAD,
                                                TASK_BAD, TASK_TIMED_OUT, TASK_CRASHED, TASK_NOT_STARTED };
        TaskResult result = { .verdict = verdicts[dice(W.ending ? 3 : ELEMENTSOF(verdicts))] };
        /* One whose expiry passed while it ran, uncounted, would expire in the same run_due(), unforeseen by the model. */
        if (result.verdict == TASK_NOT_STARTED && W.in_run_due)
                result.verdict = TASK_BAD;
        m->at_gate = false;
        if (result.verdict == TASK_NOT_STARTED && !m->task.canceling) {
                set_state(m, EQ_STATE_QUEUED, m->wait);
                m->attempt--;
                cool_down(pool_of(m->queue));
        }
        engine_task_ended(&W.engine, &m->task, &result);
}

static int on_start(Executor *x, Slot *slot, Task *t) {
        Model *m = (Model *)t;
        size_t pool = pool_of(m->queue);
        expect(x == &W.pools[pool].executor);
        expect(startable(m->queue) == m);
        expect(!is_blocked(pool));
        expect(n_busy(pool) < W.pools[pool].n_max);
        expect(slot->task == t);
        if (dice(50) == 0 && !W.ending) {
                if (dice(2))
                        block(pool, now() + 1 + dice(100)); /* it says for how long */
                cool_down(pool);
                return -EAGAIN;
        }
        W.n_started++;
        set_state(m, EQ_STATE_RUNNING, 0);
        m->attempt++;
        if (dice(4) == 0) {
                end_attempt(m);
                return 0;
        }
        m->at_gate = true;
        return 0;
}

static void on_cancel(Executor *x, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
        Model *m = (Model *)t;
        expect(slot->task == t);
        if (!m->at_gate || dice(2))
                return;
        m->at_gate = false;
        engine_task_ended(&W.engine, t, &(TaskResult) { .verdict = TASK_STOPPED });
}

static void on_started(void *host, Task *t) {
        expect_eq(((Model *)t)->state, EQ_STATE_RUNNING);
        maybe_call_back();
}

static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        static const struct {
                TaskEvent event;
                eq_state state;
        } fates[] = {
                { TASK_EV_FAIL, EQ_STATE_FAILED },   { TASK_EV_TIME_OUT, EQ_STATE_TIMEOUT },
                { TASK_EV_GIVE_UP, EQ_STATE_DEAD },  { TASK_EV_CANCEL, EQ_STATE_CANCELED },
                { TASK_EV_RETRY, EQ_STATE_WAITING }, { TASK_EV_RETRY, EQ_STATE_WAITING },
                { TASK_EV_RETURN, EQ_STATE_QUEUED },
        };
        Model *m = (Model *)t;
        expect_eq(m->state, EQ_STATE_RUNNING);
        maybe_call_back();
        size_t i = dice(W.ending ? 4 : ELEMENTSOF(fates));
        m->due = now() + 1 + dice(100);
        set_state(m, fates[i].state, fates[i].event == TASK_EV_RETRY ? TASK_WAIT_BACKOFF : 0);
        if (result->verdict == TASK_NOT_STARTED) {
                m->attempt--;
                cool_down(pool_of(m->queue));
        }
        return (TaskFate) { .event = fates[i].event, .due_usec = m->due };
}

static void on_ended_well(void *host, Task *t, const TaskResult *result) {
        Model *m = (Model *)t;
        expect_eq(m->state, EQ_STATE_RUNNING);
        maybe_call_back();
        set_state(m, EQ_STATE_DONE, 0);
}

static void on_finished(void *host, Task *t) {
        Model *m = (Model *)t;
        expect_eq(t->state, m->state);
        expect(eq_state_finished(t->state));
        W.n_finished++;
        set_state(m, m->state, 0);
        bool keep = dice(4) == 0 && W.n_models < N_MODELS_MAX / 4 && !W.ending;
        if (!keep)
                forget(m);
        maybe_call_back();
}

static void on_space(void *host, Queue *q) {
        maybe_call_back();
}

static void on_rearm(void *host, uint64_t next_usec) {
        expect(next_usec < W.armed);
        W.armed = next_usec;
}

static void forget_queue(size_t i) {
        for (size_t k = W.n_models; k-- > 0;) {
                if (k >= W.n_models || W.models[k]->queue != i)
                        continue;
                if (W.models[k]->main) /* which has ended, and is kept */
                        forget_one(W.models[k]);
                else
                        forget(W.models[k]);
                k = W.n_models;
        }
        W.queues[i].q = NULL;
}

static void on_waiter(QueueWaiter *qw) {
        Waiter *w = (Waiter *)qw;
        ModelQueue *mq = &W.queues[w->queue];
        expect(w->used); /* else it is called a second time, or was canceled */
        w->used = false;
        if (!mq->q)
                return; /* the queue was freed */
        FOR_MODELS(m, w->queue)
        expect(w->kind != WAIT_FLUSH || !is_unended(m) || m->born > w->born_max);
        expect(w->kind != WAIT_JOIN || is_empty(w->queue));
        expect(w->kind != WAIT_DRAIN || is_empty(w->queue) || W.submitted);
        if (w->kind == WAIT_JOIN)
                expect(mq->stopping);
        if (w->kind == WAIT_JOIN && w->frees_queue && W.depth == 0 && mq->q->depth == 0) {
                Queue *q = mq->q;
                forget_queue(w->queue);
                queue_free(q);
        } else
                maybe_call_back();
}

static const ExecutorOps executor_ops = { .name = "model", .start = on_start, .cancel = on_cancel };
static const EngineHooks hooks = {
        .started = on_started,
        .ended = on_ended,
        .ended_well = on_ended_well,
        .finished = on_finished,
        .space = on_space,
        .rearm = on_rearm,
};

/* Calls */

/* A task on which the engine and the model agree at this moment; NULL if the dice find none. */
static Model *any_model(void) {
        if (W.n_models == 0)
                return NULL;
        Model *m = W.models[dice(W.n_models)];
        if (dice(4) == 0) /* of few that are kept for a retry by hand, none lives for ever */
                m = W.models[W.n_models - 1 - dice(MIN(W.n_models, (size_t)20))];
        m = main_of(m);
        bool agreed = m->state == _EQ_STATE_INVALID || (m->task.state == m->state && m->task.wait == m->wait);
        return agreed && W.queues[m->queue].q ? m : NULL;
}

static size_t any_queue(void) {
        return dice(N_QUEUES);
}

static int expected_refusal(size_t i, uint64_t bytes) {
        const ModelQueue *mq = &W.queues[i];
        uint64_t n = 0, n_bytes = 0;
        FOR_MODELS(m, i)
        if (m->state == _EQ_STATE_INVALID || is_pending(m)) {
                n++;
                n_bytes += m->bytes;
        }
        if (mq->stopping)
                return QUEUE_E_STOPPED;
        if (mq->q->draining)
                return QUEUE_E_DRAINING;
        return n + 1 > mq->params.max_tasks || n_bytes + bytes > mq->params.max_bytes ? QUEUE_E_FULL : 0;
}

static Model *new_model(size_t i, uint64_t seq, uint64_t bytes, TaskLane lane) {
        expect_eq(seq, ++W.queues[i].last_seq);
        Model *m = calloc(1, sizeof(*m));
        m->queue = i;
        m->seq = seq;
        m->bytes = (uint32_t)bytes;
        m->state = _EQ_STATE_INVALID;
        m->lane = lane;
        m->born = ++W.n_born;
        W.models[W.n_models++] = m;
        return m;
}

/* Makes a barrier of m, which is reserved, over some of the queues that have room. */
static void make_barrier(Model *m) {
        uint64_t others[N_QUEUES], seqs[N_QUEUES];
        size_t n = 0;
        for (size_t i = 0; i < N_QUEUES; i++) {
                ModelQueue *mq = &W.queues[i];
                if (i == m->queue || !mq->q || dice(2) || W.n_models == N_MODELS_MAX)
                        continue;
                if (queue_reserve(mq->q, 1, 0, &seqs[n]) != 0)
                        continue;
                Model *token = new_model(i, seqs[n], 0, m->lane);
                token->main = m;
                others[n++] = mq->q->id;
        }
        if (n == 0)
                return;
        m->is_barrier = true;
        W.n_barriers++;
        expect_eq(barrier_make(&W.engine, &m->task, others, seqs, n), 0);
}

static void call_reserve(void) {
        size_t i = any_queue();
        ModelQueue *mq = &W.queues[i];
        uint64_t seq, bytes = dice(100);
        if (!mq->q || W.n_models == N_MODELS_MAX)
                return;
        int expected = W.in_run_due ? -1 : expected_refusal(i, bytes);
        int r = queue_reserve(mq->q, 1, bytes, &seq);
        expect(expected < 0 || r == expected);
        if (r != 0)
                return;
        W.submitted = true;
        Model *m = new_model(i, seq, bytes, dice(3) == 0 ? TASK_LANE_URGENT : TASK_LANE_NORMAL);
        task_init(&m->task, seq, m->lane, m->bytes);
        if (dice(6) == 0)
                make_barrier(m);
}

static Model *reserved_of(size_t i, bool newest) {
        Model *found = NULL;
        FOR_MODELS(m, i)
        if (m->state == _EQ_STATE_INVALID && (!found || (m->born > found->born) == newest))
                found = m;
        return found;
}

/* The task whose turn it is to be pushed or given back: with all its tokens, if any. */
static Model *reserved_in_all(size_t i, bool newest) {
        Model *m = main_of(reserved_of(i, newest));
        if (m)
                FOR_PARTS(k, m)
        if (reserved_of(k->queue, newest) != k)
                return NULL;
        return m;
}

static void call_push(void) {
        Model *m = reserved_in_all(any_queue(), false);
        if (!m)
                return;
        uint8_t wait = m->wait;
        if (dice(3) == 0)
                wait = (uint8_t)(dice(8) & (TASK_WAIT_HELD | TASK_WAIT_AFTER | TASK_WAIT_AT));
        m->due = now() + 1 + dice(100);
        m->expire = dice(8) == 0 ? now() + 1 + dice(200) : 0;
        set_state(m, wait ? EQ_STATE_WAITING : EQ_STATE_QUEUED, wait);
        m->task.wait = m->wait;
        m->task.due_usec = m->due;
        m->task.expire_usec = m->expire;
        W.n_pushed++;
        if (m->again)
                queue_push_again(W.queues[m->queue].q, &m->task);
        else
                queue_push(W.queues[m->queue].q, &m->task);
}

static void give_back(Model *m) {
        uint32_t bytes = m->bytes;
        Queue *queues[N_QUEUES], *home = W.queues[m->queue].q;
        size_t n = 0;
        FOR_PARTS(k, m)
        if (k != m)
                queues[n++] = W.queues[k->queue].q;
        forget(m);
        while (n > 0)
                queue_unreserve(queues[--n], 1, 0);
        queue_unreserve(home, 1, bytes);
}

static void call_unreserve(void) {
        Model *m = reserved_in_all(any_queue(), true);
        if (!m || dice(4))
                return;
        give_back(m);
}

static void call_reserve_again(void) {
        Model *m = any_model();
        if (!m || m->state == _EQ_STATE_INVALID || !eq_state_finished(m->state) || m->task.where != TASK_NOWHERE)
                return;
        if (dice(4) == 0) {
                forget(m);
                return;
        }
        int expected = W.in_run_due ? -1 : expected_refusal(m->queue, m->bytes);
        int r = queue_reserve_again(W.queues[m->queue].q, m->bytes);
        expect(expected < 0 || r == expected);
        if (r != 0)
                return;
        r = m->is_barrier ? barrier_reserve_again(&m->task) : 0;
        if (r != 0) {
                queue_unreserve(W.queues[m->queue].q, 1, m->bytes);
                return;
        }
        W.submitted = true;
        FOR_PARTS(k, m) {
                k->state = _EQ_STATE_INVALID;
                k->again = true;
                k->born = ++W.n_born;
        }
}

static void call_cancel(void) {
        Model *m = any_model();
        if (!m)
                return;
        int expected = is_pending(m) ? 0 : m->state == EQ_STATE_RUNNING ? 1 : -1;
        if (expected == 0)
                set_state(m, EQ_STATE_CANCELED, m->wait);
        expect_eq(queue_cancel(W.queues[m->queue].q, &m->task), expected);
}

static void call_wait(void) {
        Model *m = any_model();
        if (!m)
                return;
        bool set = dice(3) == 0;
        uint8_t bits = (uint8_t)(set ? 1 + dice(15) : 15 & ~dice(16));
        int expected = is_pending(m) ? 0 : m->state == EQ_STATE_RUNNING ? 1 : -1;
        if (expected == 0) {
                if (set && !(m->wait & (TASK_WAIT_AT | TASK_WAIT_BACKOFF)))
                        m->task.due_usec = m->due = now() + 1 + dice(100);
                uint8_t wait = (uint8_t)(set ? m->wait | bits : m->wait & ~bits);
                set_state(m, wait ? EQ_STATE_WAITING : EQ_STATE_QUEUED, wait);
        }
        Queue *q = W.queues[m->queue].q;
        expect_eq(set ? queue_wait_set(q, &m->task, bits) : queue_wait_clear(q, &m->task, bits), expected);
}

static void call_end(void) {
        for (size_t i = 0, from = dice(W.n_models + 1); i < W.n_models; i++) {
                Model *m = W.models[(from + i) % W.n_models];
                if (!m->at_gate || m->task.ending)
                        continue;
                end_attempt(m);
                return;
        }
}

static void call_stop_task(void) {
        Model *m = any_model();
        if (!m || m->state == _EQ_STATE_INVALID)
                return;
        int expected = m->state == EQ_STATE_RUNNING && !m->task.ending ? 0 : -1;
        expect_eq(engine_task_stop(&W.engine, &m->task, 0, 0), expected);
}

static void call_pause(void) {
        ModelQueue *mq = &W.queues[any_queue()];
        if (!mq->q)
                return;
        if (mq->pauses < 2 && dice(5) == 0) {
                mq->pauses++;
                queue_pause(mq->q);
                return;
        }
        int expected = mq->pauses == 0;
        mq->pauses -= mq->pauses > 0;
        expect_eq(queue_resume(mq->q), expected);
}

static void call_set_params(void) {
        ModelQueue *mq = &W.queues[any_queue()];
        if (!mq->q)
                return;
        mq->params.max_active = dice(2) ? 1 : 1 + dice(4);
        mq->params.max_tasks = dice(4) ? 1000 : 1 + dice(20);
        mq->params.max_bytes = dice(4) ? 1 << 20 : dice(1000);
        queue_set_params(mq->q, &mq->params);
}

static void call_waiter(void) {
        Waiter *w = &W.waiters[dice(N_WAITERS_MAX)];
        if (w->used) {
                if (dice(3) == 0) {
                        w->used = false;
                        queue_waiter_cancel(&w->waiter);
                }
                return;
        }
        size_t i = any_queue();
        Queue *q = W.queues[i].q;
        if (!q || dice(3))
                return;
        *w = (Waiter) {
                .waiter = { .done = on_waiter },
                .used = true,
                .kind = dice(10) == 0 ? WAIT_DRAIN : 1 + dice(2),
                .queue = i,
                .born_max = W.n_born,
                .frees_queue = dice(2),
        };
        static void (*const calls[_WAIT_MAX])(Queue *, QueueWaiter *) = { queue_drain, queue_join, queue_flush };
        calls[w->kind](q, &w->waiter);
}

static void call_stop(void) {
        ModelQueue *mq = &W.queues[any_queue()];
        if (!mq->q || dice(20))
                return;
        mq->stopping = true;
        queue_stop(mq->q);
}

static void call_pool(void) {
        ModelPool *mp = &W.pools[dice(N_POOLS)];
        switch (dice(12)) {
        case 0:
                block((size_t)(mp - W.pools), dice(2) ? USEC_NEVER : now() + 1 + dice(100));
                break;
        case 1:
                mp->n_max = dice(4) ? 4 : dice(10);
                pool_set_max(mp->pool, mp->n_max);
                break;
        default:
                mp->blocked_until = 0;
                pool_unblock(mp->pool);
                pool_run(mp->pool);
        }
}

static void random_call(void) {
        static void (*const calls[])(void) = {
                call_reserve, call_reserve,    call_reserve,       call_reserve,   call_reserve, call_push,
                call_push,    call_push,       call_push,          call_push,      call_end,     call_end,
                call_end,     call_end,        call_end,           call_end,       call_cancel,  call_wait,
                call_wait,    call_stop_task,  call_reserve_again, call_unreserve, call_pause,   call_waiter,
                call_stop,    call_set_params, call_pool,
        };
        calls[dice(ELEMENTSOF(calls))]();
}

/* Time passes; what is due in the model changes before the engine is told. */
static void advance(void) {
        fake_clock_advance(&W.clock, dice(20) == 0 ? POOL_COOLDOWN_USEC : dice(40));
        if (engine_next_usec(&W.engine) > now())
                return;
        for (size_t i = 0; i < W.n_models; i++) {
                Model *m = W.models[i];
                if (next_usec_of(m) > now())
                        continue;
                if (m->expire != 0 && m->attempt == 0 && m->expire <= now()) {
                        set_state(m, EQ_STATE_EXPIRED, m->wait);
                        continue;
                }
                uint8_t wait = m->wait & (uint8_t) ~(TASK_WAIT_AT | TASK_WAIT_BACKOFF);
                set_state(m, wait ? EQ_STATE_WAITING : EQ_STATE_QUEUED, wait);
        }
        W.in_run_due = true;
        W.armed = 0; /* not told meanwhile */
        W.armed = engine_run_due(&W.engine);
        W.in_run_due = false;
}

/* A stopped queue goes; a new one gets its place and never its id. */
static void renew_queues(void) {
        for (size_t i = 0; i < N_QUEUES; i++) {
                ModelQueue *mq = &W.queues[i];
                if (mq->q && mq->stopping && is_empty(i) && dice(4) == 0) {
                        Queue *q = mq->q;
                        forget_queue(i);
                        queue_free(q);
                }
                if (mq->q)
                        continue;
                expect(!engine_queue(&W.engine, mq->last_id));
                *mq = (ModelQueue) { .params = { .max_active = 1, .max_tasks = 100, .max_bytes = 10000 } };
                mq->last_seq = dice(1000);
                expect_eq(queue_new(&W.engine, W.pools[pool_of(i)].pool, "q", &mq->params, mq->last_seq, &mq->q), 0);
                mq->last_id = mq->q->id;
        }
}

/* Comparison */

static void check_task(Model *m) {
        Queue *q = W.queues[m->queue].q;
        if (m->state == _EQ_STATE_INVALID || m->main)
                return;
        expect_eq(m->task.state, m->state);
        expect_eq(m->task.wait, m->wait);
        expect_eq(m->task.attempt, m->attempt);
        const Model *by;
        const Task *task_by;
        eq_reason expected = reason_of(m, &by);
        expect_eq(queue_reason(q, &m->task, &task_by), expected);
        /* Of several in the way of a barrier, the model does not know which began first. */
        expect((const void *)task_by == (const void *)by || (m->is_barrier && expected == EQ_REASON_BARRIER && !by));
        expect_eq(queue_reason(q, &m->task, NULL), expected);
        if (m->state != EQ_STATE_QUEUED)
                return;
        uint64_t n_ahead = 0;
        FOR_MODELS(o, m->queue) {
                n_ahead += o->state == EQ_STATE_QUEUED && is_before(o, m);
                n_ahead += W.queues[m->queue].params.max_active == 1 && o->state == EQ_STATE_WAITING &&
                           o->wait == TASK_WAIT_BACKOFF && o->lane == m->lane && o->seq < m->seq;
        }
        expect_eq(queue_n_ahead(q, &m->task), n_ahead);
}

static void check_queue(size_t i) {
        ModelQueue *mq = &W.queues[i];
        uint64_t n_bytes = 0, n_reserved_bytes = 0;
        Model *oldest[_TASK_LANE_MAX] = { NULL };
        FOR_MODELS(m, i) {
                if (is_pending(m) && (!oldest[m->lane] || m->seq < oldest[m->lane]->seq))
                        oldest[m->lane] = m;
                n_bytes += is_pending(m) ? m->bytes : 0;
                n_reserved_bytes += m->state == _EQ_STATE_INVALID ? m->bytes : 0;
        }
        expect_eq(mq->q->n_queued, n_in(i, EQ_STATE_QUEUED));
        expect_eq(mq->q->n_waiting, n_in(i, EQ_STATE_WAITING));
        expect_eq(mq->q->n_running, n_in(i, EQ_STATE_RUNNING));
        expect_eq(mq->q->n_reserved, n_in(i, _EQ_STATE_INVALID));
        expect_eq(mq->q->n_bytes, n_bytes);
        expect_eq(mq->q->n_reserved_bytes, n_reserved_bytes);
        expect_eq(mq->q->depth, 0);
        expect(queue_is_empty(mq->q) == is_empty(i));
        expect(mq->q->stopped == (mq->stopping && is_empty(i)));
        expect(!(mq->q->draining && is_empty(i)));
        expect((const void *)queue_oldest(mq->q) ==
               (const void *)main_of(oldest[oldest[TASK_LANE_NORMAL] ? TASK_LANE_NORMAL : TASK_LANE_URGENT]));
        expect(engine_queue(&W.engine, mq->last_id) == mq->q);

        const Task *next;
        eq_reason reason = queue_head_reason(mq->q, &next, NULL);
        if (next_of(i))
                expect((const void *)next == (const void *)main_of(next_of(i)));
        expect(!next == !(n_in(i, EQ_STATE_QUEUED) + n_in(i, EQ_STATE_WAITING)));
        expect(!next == (reason == EQ_REASON_NONE)); /* nothing is "about to start" between calls */
}

static void check_waiter(const Waiter *w) {
        if (!w->used)
                return;
        expect(W.queues[w->queue].q);
        if (w->kind == WAIT_DRAIN)
                expect(W.queues[w->queue].q->draining);
        if (w->kind == WAIT_JOIN)
                expect(!W.queues[w->queue].q->stopped);
        bool left = false;
        FOR_MODELS(m, w->queue)
        left = left || (is_unended(m) && m->born <= w->born_max);
        if (w->kind == WAIT_FLUSH)
                expect(left);
}

static void check_all(void) {
        uint64_t next = USEC_NEVER;
        for (size_t p = 0; p < N_POOLS; p++) {
                expect_eq(W.pools[p].pool->n_busy, n_busy(p));
                if (W.pools[p].blocked_until > now())
                        next = MIN(next, W.pools[p].blocked_until);
                expect(pool_is_blocked(W.pools[p].pool) == is_blocked(p));
        }
        for (size_t i = 0; i < N_QUEUES; i++) {
                if (!W.queues[i].q)
                        continue;
                check_queue(i);
                size_t p = pool_of(i); /* nothing that could run stands still */
                expect(!startable(i) || is_blocked(p) || n_busy(p) >= W.pools[p].n_max);
        }
        for (size_t i = 0; i < W.n_models; i++) {
                check_task(W.models[i]);
                next = MIN(next, next_usec_of(W.models[i]));
        }
        for (size_t i = 0; i < N_WAITERS_MAX; i++)
                check_waiter(&W.waiters[i]);
        expect_eq(engine_next_usec(&W.engine), next);
        expect(W.armed <= next);
}

static void begin(uint64_t seed) {
        memset(&W, 0, sizeof(W));
        W.random = seed;
        W.armed = USEC_NEVER;
        fake_clock_init(&W.clock, USEC_PER_SEC, 0);
        expect_eq(engine_init(&W.engine, &W.clock.clock, &hooks, NULL), 0);
        for (size_t p = 0; p < N_POOLS; p++) {
                W.pools[p] = (ModelPool) { .executor = { .ops = &executor_ops }, .n_max = 3 };
                expect_eq(pool_new(&W.engine, "p", POOL_COMMAND, &W.pools[p].executor, 3, &W.pools[p].pool), 0);
        }
        renew_queues();
}

/* Stops everything in order: then nothing may be left, and each task has ended once. */
static void end(void) {
        W.ending = true;
        for (size_t i = 0; i < N_QUEUES; i++)
                while (W.queues[i].pauses > 0) {
                        W.queues[i].pauses--;
                        queue_resume(W.queues[i].q);
                }
        for (bool found = true; found;) {
                found = false;
                for (size_t i = 0; i < W.n_models && !found; i++) {
                        Model *m = W.models[i];
                        found = true;
                        if (m->main)
                                found = false;
                        else if (m->state == _EQ_STATE_INVALID)
                                give_back(m);
                        else if (m->at_gate)
                                end_attempt(m);
                        else if (is_pending(m)) {
                                set_state(m, EQ_STATE_CANCELED, m->wait);
                                queue_cancel(W.queues[m->queue].q, &m->task);
                        } else
                                found = false;
                }
        }
        for (size_t i = 0; i < N_QUEUES; i++) {
                Queue *q = W.queues[i].q;
                forget_queue(i);
                queue_free(q);
        }
        for (size_t i = 0; i < N_WAITERS_MAX; i++)
                expect(!W.waiters[i].used);
        expect_eq(W.n_pushed, W.n_finished);
        expect_eq(W.engine.n_tasks, 0);
        engine_deinit(&W.engine);
}

static long setting(const char *name, long otherwise) {
        const char *s = getenv(name);
        return s ? strtol(s, NULL, 10) : otherwise;
}

TEST(whatever_is_called_when_the_engine_does_what_the_model_does) {
        long n_steps = setting("EQD_MODEL_STEPS", 20000), only = setting("EQD_MODEL_SEED", 0);
        uint64_t n_started = 0, n_finished = 0, n_barriers = 0;
        for (long seed = only ? only : 1; seed <= (only ? only : 12); seed++) {
                begin((uint64_t)seed);
                for (long step = 0; step < n_steps; step++) {
                        W.submitted = false;
                        if (dice(8) == 0)
                                advance();
                        else
                                random_call();
                        renew_queues();
                        check_all();
                }
                end();
                n_started += W.n_started;
                n_finished += W.n_finished;
                n_barriers += W.n_barriers;
        }
        printf("# %ju tasks started, %ju finished, %ju over several queues\n", (uintmax_t)n_started,
               (uintmax_t)n_finished, (uintmax_t)n_barriers);
        expect(n_started > (uint64_t)n_steps / 40 && n_finished > (uint64_t)n_steps / 40 &&
               n_barriers > (uint64_t)n_steps / 400); /* it did exercise something */
}

RUN_TESTS("engine-model", 110, test_whatever_is_called_when_the_engine_does_what_the_model_does)
