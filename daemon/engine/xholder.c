/* SPDX-License-Identifier: MIT */
/* What the holder of a queue's token does with it. Who holds it, what is pending, and why nothing is lost, is the law in
 * xhead.h; the states of a task are in xtask.h; the order of nodes is in inbox.h. Here nothing is atomic that is not there.
 *
 * SERIAL (max_active 1). The holder drains alone: it claims a task, calls execute(), which takes more through the iterator,
 * and so on until the lanes are empty or its turn is over. No lock anywhere.
 *
 * PARALLEL. The executions at one moment are the group. A member has no token: it joined while it had it, and passed it on
 * at once. All that the holder owns alone (lanes, sums) is under group_lock while there are members; only a holder lets one
 * in, so a holder that finds `active` 0 is alone as above. Where the token of a queue with members is:
 *
 *    group full                      with the group (token_held): who goes next takes it along
 *    more to start, room for one     scheduled: another worker joins
 *    nothing to start                given up: the next push makes it anew
 *    stopped, nothing to start       with the group: the last one takes it and ends the queue
 *
 * THE END. A holder that finds the queue stopped and drained, and no members, calls execute() with `stopped`. After that
 * nobody finds the id, joiners are told, and the memory goes back when nobody has it pinned.
 *
 * A TURN is budget_tasks or budget_usec. When it is over and somebody else waits for the worker, the queue goes to the end
 * of the line, with what it has collected. The clock is read for each task that took long, for one in 64 of those that
 * did not. */

#include "engine/xholder.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/futex.h"
#include "base/util.h"

enum {
        CHECK_MAX = 64,    /* tasks between two looks at the clock */
        SHORT_USEC = 2,    /* a task that takes less need not be timed each time */
        STUCK_YIELDS = 64, /* times in a row that a pusher has not finished; then sleep instead of yield */
        STUCK_SLEEP_USEC = 50,
};

typedef struct Turn {
        uint64_t end_usec, checked_usec;
        uint32_t n_left;               /* tasks */
        uint32_t check_in, check_each; /* tasks */
        bool strict;                   /* over even if nobody waits */
} Turn;

struct XBatch {
        XQueue *queue;
        Turn *turn;
        XTask *task;        /* being executed */
        uint64_t done;      /* charges of those that were, and that the queue does not know yet */
        uint32_t n_flushed; /* of n, in its counter */
        XTask *first;       /* claimed, not yet taken */
        Collected *origin;  /* of first */
        uint32_t n;         /* taken */
        uint32_t n_looked;  /* of those, for the turn */
        uint32_t n_quick;   /* that may be taken before batch_must_end() is asked */
        bool parallel, stopped;
        uint64_t linger_until_usec; /* 0: has not begun to */
        uint64_t n_refused;         /* that it has looked for tasks after */
};

/* Queues that run on this thread, the innermost first. */
typedef struct Frame {
        XQueue *queue;
        struct Frame *outer;
} Frame;
static _Thread_local Frame *frames;
static _Thread_local unsigned depth;
static _Thread_local Collected deferred; /* Runnables of queues that have to wait for the outermost one */

static uint64_t now_usec(void) {
        return clock_monotonic(&clock_system);
}

/* ---- turns ---- */

/* Also what waits for this thread to come back to it. */
static bool others_wait(const XQueue *q, bool strict) {
        return strict || deferred.first || workers_has_waiting(q->workers);
}

static void turn_begin(const XQueue *q, Turn *turn, uint64_t now) {
        turn->n_left = q->budget_tasks;
        turn->checked_usec = now;
        turn->end_usec = now + q->budget_usec;
}

/* After n tasks more, for which it was told to look. How many until the next look; 0: the turn is over. */
static uint32_t turn_look(const XQueue *q, Turn *turn, uint32_t n) {
        uint64_t now = now_usec();
        bool is_short = now - turn->checked_usec <= (uint64_t)SHORT_USEC * n;
        turn->check_each = is_short ? MIN(2 * turn->check_each, (uint32_t)CHECK_MAX) : 1;
        turn->checked_usec = now;
        turn->n_left = now >= turn->end_usec ? 0 : turn->n_left - MIN(n, turn->n_left);
        if (turn->n_left == 0 && others_wait(q, turn->strict))
                return 0;
        return turn->n_left == 0 ? 1 : MIN(turn->check_each, turn->n_left);
}

/* ---- tasks; the holder, with members under group_lock ---- */

static uint64_t xtask_charge(XTask *t) {
        return xcharge(load_relaxed(&t->node.value));
}

/* The holder has met a task that was canceled. */
static void pass(XQueue *q, XTask *t, uint64_t charge, bool to_release) {
        if (to_release)
                xqueue_release(q, t);
        xhead_passed(&q->head, charge);
}

static bool urgent_is_there(XQueue *q) {
        return q->urgent.first || q->urgent.walk || inbox_is_node(load_relaxed(&q->head.urgent.head));
}

/* ---- bias of claims (xbias.h) ---- */

void xholder_begin_bias(XQueue *q) {
        bool good = load_relaxed(&q->max_active) == 1 && heavy_fence_works();
        q->bias_era = q->bias_begun = good ? xbias_begin(&q->head.bias) : XBIAS_NO_ERA;
        q->calm_passed = load_relaxed(&q->head.passed);
        q->calm_before = 0;
}

/* Nothing is left of what was collected from the normal lane, and there is something to collect. */
static __attribute__((noinline)) void reconsider_bias(XQueue *q) {
        uint64_t state = load_relaxed(&q->head.bias.state), passed = load_relaxed(&q->head.passed);
        uint64_t n_executed = load_relaxed(&q->n_executed);
        if (state == q->bias_begun) {
                q->bias_era = state;
                return;
        }
        if (q->bias_begun != XBIAS_NO_ERA || passed != q->calm_passed) {
                q->bias_era = q->bias_begun = XBIAS_NO_ERA;
                q->calm_passed = passed;
                q->calm_before = n_executed;
        } else if (n_executed - q->calm_before >= XBIAS_CALM && xbias_state(state) == XBIAS_OFF &&
                   load_relaxed(&q->max_active) == 1 && heavy_fence_works())
                q->bias_begun = xbias_begin(&q->head.bias);
}

/* Adds to what is collected from the normal lane, of which nothing is left. */
static InboxState collect_normal(XQueue *q) {
        if (!q->normal.walk && load_relaxed(&q->head.bias.state) != q->bias_era &&
            inbox_is_node(load_relaxed(&q->head.normal.head)))
                reconsider_bias(q);
        return inbox_collect(&q->head.normal, &q->normal, INBOX_TAKEN);
}

/* Takes the next task that was not canceled and makes it run. */
static InboxState claim(XQueue *q, XTask **ret, Collected **ret_origin) {
        for (;;) {
                if (urgent_is_there(q) && !q->urgent.first &&
                    inbox_collect(&q->head.urgent, &q->urgent, INBOX_EMPTY) == INBOX_STUCK)
                        return INBOX_STUCK;
                Collected *origin = q->urgent.first ? &q->urgent : &q->normal;
                XTask *t = (XTask *)collected_pop(origin);
                if (!t) {
                        InboxState s = collect_normal(q);
                        if (s != INBOX_SOME)
                                return s;
                        continue;
                }
                uint64_t charge = xtask_charge(t);
                bool to_release;
                if (xtask_claim(t, &to_release)) {
                        *ret = t;
                        *ret_origin = origin;
                        return INBOX_SOME;
                }
                pass(q, t, charge, to_release);
        }
}

/* ---- lingering ---- */

static bool linger_goal_is_reached(XQueue *q) {
        uint32_t n_more = (uint32_t)load_seq_cst(&q->head.charged) - load_relaxed(&q->head.linger_goal);
        return (int32_t)(n_more << (32 - XCHARGE_TASK_BITS)) >= 0;
}

void xholder_call_lingering(XQueue *q, bool whatever) {
        if (!whatever && !linger_goal_is_reached(q))
                return;
        (void)fetch_add_seq_cst(&q->lingered, 1);
        futex_wake(&q->lingered, INT_MAX);
}

/* An urgent task that is on its way is waited for as one that has come: the call of its pusher finds nothing new in the lane, whose
 * head was taken. */
static bool linger_is_over(const XBatch *b) {
        XQueue *q = b->queue;
        return linger_goal_is_reached(q) || q->urgent.walk || inbox_has_new(&q->head.urgent) ||
               xhead_is_closed(&q->head) || load_seq_cst(&q->head.gate) != 0 || load_seq_cst(&q->max_active) > 1 ||
               load_seq_cst(&q->n_refused) != b->n_refused;
}

/* A pusher was stopped in the middle: let it go on. */
static void let_others_go_on(XQueue *q) {
        if (++q->n_stuck < STUCK_YIELDS)
                sched_yield();
        else /* it may have less priority than this thread */
                (void)usleep(STUCK_SLEEP_USEC);
}

/* Waits for as many tasks as the batch still takes; all that it has taken are done and known to be. False: it has waited already.
 * What is charged by now and not yet in the lane is among what it waits for: the goal counts from what is gone. Who gives something
 * back later makes the goal come too early, and the caller comes again. If one is refused meanwhile the queue is full, before the
 * batch is: it makes room. */
static bool linger(XBatch *b) {
        XQueue *q = b->queue;
        XHead *h = &q->head;
        uint64_t now = now_usec();
        if (b->linger_until_usec == 0)
                b->linger_until_usec = now + q->batch_linger_usec;
        if (b->parallel || now >= b->linger_until_usec || xhead_is_closed(h) || xhead_is_paused(h) ||
            load_relaxed(&q->max_active) > 1 || deferred.first)
                return false;
        uint64_t n_refused = load_seq_cst(&q->n_refused);
        if (n_refused != b->n_refused) {
                b->n_refused = n_refused;
                return true;
        }
        uint64_t gone = load_relaxed(&h->done) + load_acquire(&h->canceled) + load_acquire(&h->refunded);
        store_relaxed(&h->linger_goal, (uint32_t)gone + q->batch_max - b->n);
        (void)fetch_or_seq_cst(&h->life, XHEAD_LINGER);
        if (linger_is_over(b)) /* and yet nothing was there: it will be in a moment */
                let_others_go_on(q);
        uint32_t seen = load_seq_cst(&q->lingered);
        for (; !linger_is_over(b) && now < b->linger_until_usec; now = now_usec(), seen = load_seq_cst(&q->lingered))
                futex_wait(&q->lingered, seen, b->linger_until_usec - now);
        (void)fetch_and_seq_cst(&h->life, ~XHEAD_LINGER);
        return true;
}

/* ---- batches ---- */

static inline void finish(XBatch *b) {
        XQueue *q = b->queue;
        XTask *t = TAKE_PTR(b->task);
        b->done += xtask_charge(t);
        xtask_finish(t);
        xqueue_release(q, t);
}

/* Makes known what was finished. */
static void flush(XBatch *b) {
        if (b->done == 0)
                return;
        xhead_done(&b->queue->head, b->done);
        b->done = 0;
        store_relaxed(&b->queue->n_executed, load_relaxed(&b->queue->n_executed) + b->n - b->n_flushed);
        b->n_flushed = b->n;
}

/* The quick ones are taken. False: there may be more, so many. */
static bool batch_must_end(XBatch *b) {
        XQueue *q = b->queue;
        uint32_t n = turn_look(q, b->turn, b->n - b->n_looked);
        b->n_looked = b->n;
        b->n_quick = MIN(n, q->batch_max - b->n);
        return b->n_quick == 0 || (!b->parallel && load_relaxed(&q->max_active) > 1);
}

/* With group_lock if parallel. */
static XTask *take(XBatch *b) {
        XQueue *q = b->queue;
        Collected *origin;
        XTask *t;
        if (b->task)
                finish(b);
        flush(b);
        if (b->first)
                return TAKE_PTR(b->first);
        if (b->stopped || xhead_is_paused(&q->head) || (b->n_quick == 0 && batch_must_end(b)))
                return NULL;
        while (claim(q, &t, &origin) != INBOX_SOME)
                if (q->batch_linger_usec == 0 || !linger(b))
                        return NULL;
        b->n_quick = b->parallel ? 0 : b->n_quick - 1;
        return t;
}

static __attribute__((noinline)) XTask *take_slowly(XBatch *b) {
        if (b->parallel)
                pthread_mutex_lock(&b->queue->group_lock);
        XTask *t = take(b);
        if (b->parallel)
                pthread_mutex_unlock(&b->queue->group_lock);
        b->task = t;
        b->n += t != NULL;
        return t;
}

static __attribute__((noinline)) XTask *pass_and_take(XBatch *b, XTask *t, bool to_release) {
        pass(b->queue, t, xtask_charge(t), to_release);
        return take_slowly(b);
}

static __attribute__((noinline)) XTask *release_before(XQueue *q, XTask *finished, XTask *t) {
        xqueue_release(q, finished);
        return t;
}

/* The short way: a serial queue, nothing to look at but the next task of the normal lane. Calls nothing that it comes back from, and so
 * has no registers to save. */
XTask *xbatch_next(XBatch *b) {
        XQueue *q = b->queue;
        XTask *finished = b->task;
        bool to_release;
        if (b->n_quick == 0 || !finished)
                return take_slowly(b);
        XTask *t = (XTask *)q->normal.first; /* a parallel queue, which has a lock for that, is never quick */
        if (!t || urgent_is_there(q) || xhead_is_paused(&q->head))
                return take_slowly(b);
        (void)collected_pop(&q->normal);
        inbox_prefetch(&t->node);
        if (!xbias_claim(&q->head.bias, q->bias_era, t) && !xtask_claim(t, &to_release))
                return pass_and_take(b, t, to_release);
        b->task = t;
        b->n++;
        b->n_quick--;
        b->done += xtask_charge(finished);
        xtask_finish(finished);
        if (!q->ops->release && slab_free_quickly(q->slab, finished))
                return t;
        return release_before(q, finished, t);
}

bool xbatch_is_stopped(const XBatch *b) {
        return b->stopped;
}

/* execute() has returned: what it was doing is done, what it has not taken goes back. */
static void batch_close(XBatch *b) {
        if (b->task)
                finish(b);
        flush(b);
        if (b->first) {
                xtask_unclaim(b->first);
                collected_unpop(b->origin, &TAKE_PTR(b->first)->node);
        }
        b->turn->n_left -= MIN(b->turn->n_left, b->n - b->n_looked);
}

/* ---- the end ---- */

/* The holder; the token and the queue are gone after that. */
static void end(XQueue *q) {
        XQueues *xs = q->set;
        XBatch b = { .queue = q, .stopped = true };
        XOwn *own = TAKE_PTR(q->own);
        q->ops->execute(q->meta, &b);
        xqueue_retire(xs, own); /* who joins waits for this thread, too */
        registry_remove(&xs->registry, q->id);
        xhead_end(&q->head);
        (void)fetch_add_seq_cst(&q->ended, 1);
        futex_wake(&q->ended, INT_MAX);
        if (xhead_let_go(&q->head))
                slab_free(xs->slab, q);
}

/* ---- draining ---- */

typedef enum Outcome {
        TOKEN_GONE,  /* given up, parked, with the group, or somebody else's */
        TOKEN_AGAIN, /* the caller has it; it is another one's turn */
        TOKEN_KEPT,  /* the caller has it and goes on */
} Outcome;

static Outcome stuck(XQueue *q) {
        let_others_go_on(q);
        return TOKEN_AGAIN;
}

/* Nothing to start and no members. */
static Outcome settle(XQueue *q) {
        if (xhead_is_over(&q->head)) {
                end(q);
                return TOKEN_GONE;
        }
        return xhead_leave(&q->head) ? TOKEN_GONE : TOKEN_KEPT;
}

static Outcome drain_serial(XQueue *q, Turn *turn) {
        XBatch b = { .queue = q, .turn = turn };
        InboxState s = claim(q, &b.first, &b.origin);
        if (s == INBOX_STUCK)
                return stuck(q);
        if (s == INBOX_NONE)
                return settle(q);
        q->n_stuck = 0;
        q->ops->execute(q->meta, &b);
        batch_close(&b);
        if (b.n == 0)
                return stuck(q); /* it did not want it; others first */
        return turn->n_left == 0 ? TOKEN_AGAIN : TOKEN_KEPT;
}

/* The caller has joined, and has the token and group_lock. True: it has to schedule the queue. */
static bool pass_on(XQueue *q) {
        if (load_relaxed(&q->active) >= load_relaxed(&q->max_active)) {
                q->token_held = true;
                return false;
        }
        if (q->normal.first || q->urgent.first || q->normal.walk || q->urgent.walk)
                return true;
        return !xhead_leave(&q->head);
}

/* A holder at a queue with members. True: it has joined. group_lock is held; *ret says what about the token, if not. */
static bool join_group(XQueue *q, XBatch *b, bool *ret_schedule, Outcome *ret) {
        uint32_t active = load_relaxed(&q->active);
        *ret = TOKEN_GONE;
        if (active >= load_relaxed(&q->max_active)) {
                q->token_held = true;
                return false;
        }
        InboxState s = claim(q, &b->first, &b->origin);
        if (s == INBOX_SOME) {
                store_relaxed(&q->active, active + 1);
                *ret_schedule = pass_on(q);
                return true;
        }
        if (s == INBOX_STUCK)
                *ret = TOKEN_AGAIN;
        else if (active > 0 && xhead_is_closed(&q->head))
                q->token_held = true;
        else if (active > 0)
                *ret = xhead_leave(&q->head) ? TOKEN_GONE : TOKEN_KEPT;
        else
                *ret = TOKEN_KEPT; /* alone: the caller settles it */
        return false;
}

/* True: the member that goes has the token now. What it puts back nobody may have known of who gave the token up meanwhile. */
static bool leave_group(XQueue *q, XBatch *b) {
        pthread_mutex_lock(&q->group_lock);
        bool puts_back = b->first;
        batch_close(b);
        uint32_t active = load_relaxed(&q->active) - 1;
        bool token = q->token_held;
        q->token_held = false;
        store_release(&q->active, active);
        /* Without members a holder may end the queue, at once. Then this is a kick at a stranger. */
        if (!token && (puts_back || (active == 0 && xhead_is_closed(&q->head))))
                token = xhead_kick(&q->head);
        pthread_mutex_unlock(&q->group_lock);
        return token;
}

/* b has joined. */
static Outcome run_member(XQueue *q, XBatch *b) {
        q->ops->execute(q->meta, b);
        uint32_t n = b->n;
        if (!leave_group(q, b))
                return TOKEN_GONE;
        return n == 0 ? stuck(q) : b->turn->n_left == 0 ? TOKEN_AGAIN : TOKEN_KEPT;
}

static Outcome drain_parallel(XQueue *q, Turn *turn) {
        XBatch b = { .queue = q, .turn = turn, .parallel = true };
        Outcome out;
        bool to_schedule;
        pthread_mutex_lock(&q->group_lock);
        bool joined = join_group(q, &b, &to_schedule, &out);
        bool alone = load_relaxed(&q->active) == 0;
        pthread_mutex_unlock(&q->group_lock);
        if (!joined)
                return out == TOKEN_KEPT && alone ? settle(q) : out == TOKEN_AGAIN ? stuck(q) : out;
        if (to_schedule)
                xqueue_schedule(q);
        return run_member(q, &b);
}

static bool is_parallel(XQueue *q) {
        return load_relaxed(&q->max_active) > 1 || load_acquire(&q->active) > 0;
}

/* The caller has the token. True: it has it still, and it is another queue's turn. */
static bool drain(XQueue *q, bool strict) {
        Turn turn = { .check_each = 1, .strict = strict };
        turn_begin(q, &turn, now_usec());
        for (;;) {
                if (xhead_is_paused(&q->head) && xhead_park(&q->head))
                        return false;
                Outcome out = is_parallel(q) ? drain_parallel(q, &turn) : drain_serial(q, &turn);
                if (out == TOKEN_GONE)
                        return false;
                if (out == TOKEN_AGAIN && others_wait(q, strict))
                        return true;
                if (out == TOKEN_AGAIN)
                        turn_begin(q, &turn, turn.checked_usec); /* a moment ago */
        }
}

static void run_framed(XQueue *q, bool in_place) {
        Frame frame = { q, frames };
        frames = &frame;
        depth++;
        if (q->executor) /* it has no line to go to the end of */
                while (drain(q, true))
                        ;
        else if (drain(q, in_place)) {
                if (in_place)
                        workers_put(q->workers, &q->runnable);
                else
                        workers_put_back(q->workers, &q->runnable);
        }
        depth--;
        frames = frame.outer;
}

static XQueue *queue_of(const void *runnable) {
        return (XQueue *)((char *)runnable - offsetof(XQueue, runnable));
}

/* And, if it is the outermost one, what had to wait for that. */
static void run(XQueue *q) {
        run_framed(q, false);
        if (depth == 0)
                for (InboxNode *n; (n = collected_pop(&deferred));)
                        run_framed(queue_of(n), false);
}

void xholder_run_on_worker(Runnable *r) {
        run(queue_of(r));
}

static void defer(XQueue *q) {
        InboxNode *n = &q->runnable.node;
        store_relaxed(&n->next, NULL);
        if (deferred.first)
                store_relaxed(&deferred.last->next, n);
        else
                deferred.first = n;
        deferred.last = n;
}

void xqueue_run(XQueue *q) {
        if (depth >= XQUEUE_DEPTH_MAX) {
                defer(q);
                return;
        }
        run(q);
}

void xholder_run_in_place(XQueue *q) {
        run_framed(q, true);
}

bool xholder_may_nest(void) {
        return depth < XQUEUE_DEPTH_MAX;
}

bool xholder_is_running_here(uint64_t id) {
        for (const Frame *f = frames; f; f = f->outer)
                if (f->queue->id == id)
                        return true;
        return false;
}

/* ---- rescue ---- */

typedef struct Rescue {
        XBatch batch;
        Turn turn; /* one task */
        bool has_joined, has_token;
} Rescue;

/* The queue stands in the line, and we have its token. A parallel one is joined where it stands, and stays there for others; a
 * serial one has nothing for others meanwhile. Under the lock of the workers, then group_lock. */
static bool lend(Runnable *r, void *arg) {
        Rescue *x = arg;
        XQueue *q = queue_of(r);
        Outcome out;
        bool stays = true;
        if (xhead_is_paused(&q->head) && xhead_park(&q->head))
                return false;
        if (!is_parallel(q)) {
                x->has_token = true;
                return false;
        }
        x->batch.parallel = true;
        pthread_mutex_lock(&q->group_lock);
        x->has_joined = join_group(q, &x->batch, &stays, &out);
        pthread_mutex_unlock(&q->group_lock);
        return x->has_joined ? stays : out != TOKEN_GONE;
}

int xqueue_rescue(XQueues *xs, uint64_t id) {
        XQueue *q = xqueue_pin(xs, id);
        if (!q)
                return -ENOENT;
        Rescue x = { .turn = { .n_left = 1, .check_each = 1, .strict = true } };
        Frame frame = { q, frames };
        Outcome out = TOKEN_GONE;
        x.batch.queue = q;
        x.batch.turn = &x.turn;
        if (q->is_lendable)
                (void)workers_lend(q->workers, &q->runnable, lend, &x);
        frames = &frame;
        if (x.has_joined)
                out = run_member(q, &x.batch);
        else if (x.has_token)
                out = drain_serial(q, &x.turn);
        frames = frame.outer;
        if (out != TOKEN_GONE)
                workers_put(q->workers, &q->runnable);
        xqueue_unpin(q);
        return x.has_joined || x.has_token ? 0 : -EAGAIN;
}
