/* SPDX-License-Identifier: MIT */
/* Everybody's side of an execution queue: start, submit, cancel, stop, join, attributes. What the holder of the token does is in
 * xholder.c; the law is in xhead.h. Here nothing is atomic that is not there. */

#include "engine/xqueue.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/futex.h"
#include "base/util.h"
#include "engine/submitter.h"
#include "engine/xholder.h"

enum {
        TICKETS = 1 << 16,    /* that a thread takes at a time */
        LOTS_OF_ROOM = 32,    /* as many lots, or a queue gives none */
        LOT_UNITS_MAX = 4096, /* of a task; larger ones cost more than a locked instruction anyway */
};

static ATOMIC(uint64_t) last_ticket;

XQueue *xqueue_pin(XQueues *xs, uint64_t id) {
        XQueue *q = registry_find(&xs->registry, id);
        bool to_free = false;
        if (q && xhead_pin(&q->head, id, &to_free))
                return q;
        if (to_free)
                slab_free(xs->slab, q);
        return NULL;
}

void xqueue_unpin(XQueue *q) {
        XQueues *xs = q->set;
        if (xhead_unpin(&q->head))
                slab_free(xs->slab, q);
}

/* ---- threads of dedicated queues ---- */

static void add_retired(XQueues *xs, XOwn *own) {
        pthread_mutex_lock(&xs->lock);
        own->next = xs->retired;
        xs->retired = own;
        pthread_mutex_unlock(&xs->lock);
}

/* The queue's own thread, which xqueues_deinit() joins from now on; till then *xs stays. */
void xqueue_retire(XQueues *xs, XOwn *own) {
        if (!own)
                return;
        add_retired(xs, own);
        (void)fetch_sub_seq_cst(&xs->n_own, 1);
        futex_wake(&xs->n_own, INT_MAX);
}

/* Waits for the threads of dedicated queues that have ended, but for this one. */
static void reap(XQueues *xs) {
        pthread_mutex_lock(&xs->lock);
        XOwn *list = TAKE_PTR(xs->retired);
        pthread_mutex_unlock(&xs->lock);
        while (list) {
                XOwn *own = list;
                list = own->next;
                if (workers_is_self(own->workers)) {
                        add_retired(xs, own);
                        continue;
                }
                workers_free(own->workers);
                free(own);
        }
}

/* ---- submit and cancel ---- */

static uint64_t next_ticket(void) {
        static _Thread_local uint64_t next; /* TICKETS: none left */
        if (next % TICKETS == 0)
                next = fetch_add_relaxed(&last_ticket, TICKETS);
        return ++next;
}

static bool runs_in_place(const XQueue *q, unsigned flags) {
        return (flags & XSUBMIT_IN_PLACE) != 0 && q->workers && !q->own && workers_is_self(NULL) && xholder_may_nest();
}

/* p may be NULL. */
static int refuse(XQueue *q, XHeadVerdict v, bool token, Pushed *p) {
        if (v == XHEAD_GONE && p)
                p->id = 0; /* the registry says the same from now on, and does not charge who is there instead */
        if (v == XHEAD_FULL) {
                (void)fetch_add_seq_cst(&q->n_refused, 1);
                xholder_call(q, true);
        }
        if (token)
                xqueue_schedule(q);
        return v == XHEAD_FULL ? -ENOSPC : v == XHEAD_STOPPED ? -ESHUTDOWN : -ENOENT;
}

static XQueue *queue_of_head(XHead *h) {
        return (XQueue *)((char *)h - offsetof(XQueue, head));
}

/* Gives back a charge that was not used. */
static void refund(XHead *h, uint64_t charge) {
        if (xhead_refund(h, charge))
                xqueue_schedule(queue_of_head(h));
}

static void give_back(XHead *h, XLotRest rest) {
        if (rest.back != 0 && xhead_canceled(h, rest.back))
                xqueue_schedule(queue_of_head(h));
        if (rest.left != 0)
                refund(h, rest.left);
}

static void give_lot(Pushed *p) {
        XHead *h;
        XLotRest rest;
        if (xlot_give(&p->lot, &h, &rest))
                give_back(h, rest);
}

/* All lots are called in before it is said that there is no room. */
static XHeadVerdict enter_alone(XQueue *q, uint64_t id, uint64_t charge, bool *ret_token) {
        XHeadVerdict v = xhead_enter(&q->head, id, charge, 0, ret_token);
        if (v != XHEAD_FULL || *ret_token)
                return v;
        XLotRest rest = submitter_call_in(id, &q->head);
        if (rest.left == 0 && rest.back == 0)
                return v;
        give_back(&q->head, rest);
        return xhead_enter(&q->head, id, charge, 0, ret_token);
}

static bool may_have_lots(XQueue *q) {
        return (load_relaxed(&q->head.flags) & XHEAD_NO_LOTS) == 0 && heavy_fence_works();
}

/* The lot is used up. A queue that is not far from full gives no new one. */
static XHeadVerdict enter_with_lot(XQueue *q, uint64_t id, uint64_t charge, Pushed *p, bool *ret_token) {
        uint64_t lot = XLOT_TASKS * charge;
        give_lot(p);
        if (p->lot.n_alone > 0 || p->lot.n_pushes < INBOX_FAR || xcharge_units(charge) > LOT_UNITS_MAX ||
            !may_have_lots(q)) {
                p->lot.n_alone -= p->lot.n_alone > 0;
                return enter_alone(q, id, charge, ret_token);
        }
        XHeadVerdict v = xhead_enter(&q->head, id, lot, (LOTS_OF_ROOM - 1) * lot, ret_token);
        if (v == XHEAD_FULL && !*ret_token) {
                p->lot.n_alone = XLOT_TASKS;
                return enter_alone(q, id, charge, ret_token);
        }
        if (v != XHEAD_OK)
                return v;
        if (xlot_is_there(&p->lot)) { /* giving the old one back has run a queue in place, which submitted as well */
                refund(&q->head, lot - charge);
                return XHEAD_OK;
        }
        xlot_grant(&p->lot, &q->head, lot - charge);
        if (xhead_is_closed(&q->head))
                give_lot(p);
        return XHEAD_OK;
}

/* As xhead_enter(). p: the thread's place for this queue, or NULL. */
static XHeadVerdict enter(XQueue *q, uint64_t id, uint64_t charge, Pushed *p, bool *ret_token) {
        bool asked;
        if (!p)
                return enter_alone(q, id, charge, ret_token);
        bool taken = xlot_take(&p->lot, &q->head, charge, &asked);
        if (asked)
                give_lot(p);
        if (!taken)
                return enter_with_lot(q, id, charge, p, ret_token);
        XHeadVerdict v = xhead_look(&q->head, id);
        *ret_token = v != XHEAD_OK && xhead_refund(&q->head, charge);
        return v;
}

/* For who goes from queue to queue it is kept with the queue, by all who push there: others are seldom at the same one. */
static InboxNode *pushed_by_all(XHead *h, InboxNode *n) {
        uint32_t i = load_relaxed(&h->n_recent);
        store_relaxed(&h->n_recent, i + 1);
        InboxNode *before = load_relaxed(&h->recent[i % ELEMENTSOF(h->recent)]);
        store_relaxed(&h->recent[i % ELEMENTSOF(h->recent)], n);
        return before;
}

/* The place is another queue's, or there is none. */
static __attribute__((noinline)) XQueue *find_slowly(XQueues *xs, uint64_t id, InboxNode *n, Pushed *p) {
        XQueue *q = registry_find(&xs->registry, id);
        if (!q)
                return NULL;
        __builtin_prefetch(&q->head, 1);
        __builtin_prefetch(&q->head.life);
        inbox_set_far(n, pushed_by_all(&q->head, n));
        if (!p)
                return q;
        give_lot(p);
        p->id = id;
        p->serial = xs->serial;
        p->queue = q;
        p->lot.n_pushes = p->lot.n_alone = 0;
        return q;
}

/* The thread pushes n to the queue whose place it is. n gets the node that was pushed there some pushes ago, for inbox_prefetch(). */
static void note(Pushed *p, InboxNode *n) {
        InboxNode **at = &p->nodes[p->lot.n_pushes % INBOX_FAR];
        inbox_set_far(n, p->lot.n_pushes++ < INBOX_FAR ? NULL : *at);
        *at = n;
}

static bool is_place_of(const Pushed *p, const XQueues *xs, uint64_t id) {
        return p && p->id == id && p->serial == xs->serial;
}

/* Returns the ticket. */
static uint64_t begin(XQueue *q, XTask *t, uint32_t units) {
        uint64_t ticket = next_ticket() << 1 | (load_relaxed(&q->head.flags) & XTASK_TOLD);
        xtask_begin(t, q, units, ticket);
        return ticket;
}

static __attribute__((noinline)) int submit_slowly(XQueues *xs, uint64_t id, XTask *t, uint32_t bytes, unsigned flags,
                                                   XTaskRef *ret_ref) {
        Pushed *p = submitter_place(id), *place = is_place_of(p, xs, id) ? p : NULL;
        XQueue *q = place ? place->queue : find_slowly(xs, id, &t->node, p);
        uint32_t units = xcharge_units_of(bytes);
        bool token, urgent = (flags & XSUBMIT_URGENT) != 0;
        if (!q)
                return -ENOENT;
        if (place)
                note(place, &t->node);
        /* All of it before the queue's line is asked for: a locked instruction waits for the stores before it, and meanwhile another
         * submitter would take the line away. */
        uint64_t ticket = begin(q, t, units);
        XHeadVerdict v = enter(q, id, xcharge(units), place, &token);
        if (v != XHEAD_OK) {
                xtask_finish(t);
                return refuse(q, v, token, place);
        }
        if (ret_ref)
                *ret_ref = (XTaskRef) { t, ticket };
        token = urgent ? xhead_push_urgent(&q->head, &t->node) : xhead_push(&q->head, &t->node);
        if (!token)
                xholder_call(q, urgent);
        else if (runs_in_place(q, flags))
                xholder_run_in_place(q);
        else
                xqueue_schedule(q);
        return 0;
}

static __attribute__((noinline)) int refuse_charged(XQueue *q, XHeadVerdict v, uint64_t charge, Pushed *p) {
        bool token = xhead_refund(&q->head, charge);
        if (xlot_is_asked(&p->lot))
                give_lot(p);
        return refuse(q, v, token, p);
}

static __attribute__((noinline)) int end_submit(XQueue *q, bool token, Pushed *p) {
        if (xlot_is_asked(&p->lot))
                give_lot(p);
        if (token)
                xqueue_schedule(q);
        return 0;
}

/* The short way: a thread that has a lot of the queue, which hence does not linger. The locked instruction waits for all stores, also for
 * those of registers, so nothing is called here that comes back. */
int xqueue_submit(XQueues *xs, uint64_t id, XTask *t, uint32_t bytes, unsigned flags, XTaskRef *ret_ref) {
        Pushed *p = submitter_old_place(id);
        uint32_t units = xcharge_units_of(bytes);
        bool asked;
        if (flags != 0 || !is_place_of(p, xs, id))
                return submit_slowly(xs, id, t, bytes, flags, ret_ref);
        XQueue *q = p->queue;
        if (!xlot_take(&p->lot, &q->head, xcharge(units), &asked))
                return submit_slowly(xs, id, t, bytes, flags, ret_ref);
        XHeadVerdict v = xhead_look(&q->head, id);
        if (v != XHEAD_OK)
                return refuse_charged(q, v, xcharge(units), p);
        note(p, &t->node);
        uint64_t ticket = begin(q, t, units);
        if (ret_ref)
                *ret_ref = (XTaskRef) { t, ticket };
        bool token = xhead_push(&q->head, &t->node);
        if (token || asked)
                return end_submit(q, token, p);
        return 0;
}

static __attribute__((noinline)) int give_charge(XQueue *q, uint64_t charge, Pushed *p) {
        if (charge != 0 && xhead_canceled(&q->head, charge))
                xqueue_schedule(q);
        if (p && xlot_is_asked(&p->lot))
                give_lot(p);
        return 0;
}

/* A task was canceled, whose charge keeps q from ending. Who has a lot of q puts it there. */
static inline int end_cancel(XQueue *q, uint32_t units) {
        Pushed *p = submitter_old_place(q->id);
        uint64_t charge = xcharge(units);
        bool asked = false;
        if (p)
                charge = xlot_put(&p->lot, &q->head, charge, &asked);
        return charge != 0 || asked ? give_charge(q, charge, p) : 0;
}

static __attribute__((noinline)) int cancel_slowly(XTaskRef ref, XQueue *q, uint32_t units) {
        int r = xbias_try_cancel(&q->head.bias, ref);
        if (r != 0)
                return r;
        if (xtask_is_told(ref)) {
                q->ops->canceled(q->meta, ref.task);
                if (xtask_canceled(ref.task, ref.ticket))
                        xqueue_release(q, ref.task);
        }
        return end_cancel(q, units);
}

/* The short way, as short as that of submit: nobody is to be told, and claims are not biased. */
int xqueue_cancel(XTaskRef ref) {
        XQueue *q;
        uint32_t units;
        if (!ref.task || ref.ticket == 0)
                return -1;
        int r = xtask_look(ref, &q, &units);
        if (r != 0)
                return r;
        if (xtask_is_told(ref) || !xbias_is_off(&q->head.bias))
                return cancel_slowly(ref, q, units);
        r = xbias_try_cancel_off(&q->head.bias, ref);
        return r != 0 ? r : end_cancel(q, units);
}

/* ---- stop and join ---- */

int xqueue_stop(XQueues *xs, uint64_t id) {
        XQueue *q = registry_find(&xs->registry, id);
        bool token;
        if (!q)
                return registry_was_given(&xs->registry, id) ? 0 : -ENOENT;
        if (!xhead_close(&q->head, id, &token))
                return 0; /* it has ended since */
        give_back(&q->head, submitter_call_in(id, &q->head));
        if (token)
                xqueue_schedule(q);
        else
                xholder_call(q, true);
        return 0;
}

int xqueue_join(XQueues *xs, uint64_t id) {
        XQueue *q;
        if (xholder_is_running_here(id))
                return -EDEADLK;
        while ((q = registry_find(&xs->registry, id))) {
                uint32_t ended = load_seq_cst(&q->ended); /* counted after `life` has changed */
                if ((load_seq_cst(&q->head.life) & XHEAD_ID_MASK) != id)
                        break;
                futex_wait(&q->ended, ended, 0);
        }
        reap(xs);
        return registry_was_given(&xs->registry, id) ? 0 : -ENOENT;
}

/* ---- attributes ---- */

int xqueue_pause(XQueues *xs, uint64_t id) {
        XQueue *q = xqueue_pin(xs, id);
        if (!q)
                return -ENOENT;
        int r = xhead_pause(&q->head) ? 0 : -EOVERFLOW;
        if (r == 0)
                xholder_call(q, true);
        xqueue_unpin(q);
        return r;
}

int xqueue_resume(XQueues *xs, uint64_t id) {
        XQueue *q = xqueue_pin(xs, id);
        bool token;
        if (!q)
                return -ENOENT;
        int r = xhead_resume(&q->head, &token) ? 0 : -EALREADY;
        if (token)
                xqueue_schedule(q);
        xqueue_unpin(q);
        return r;
}

int xqueue_set_max_active(XQueues *xs, uint64_t id, uint32_t max_active) {
        if (max_active < 1 || max_active > XQUEUE_ACTIVE_MAX)
                return -EINVAL;
        XQueue *q = xqueue_pin(xs, id);
        if (!q)
                return -ENOENT;
        bool serial_only = q->executor && max_active > 1, token = false;
        pthread_mutex_lock(&q->group_lock);
        if (!serial_only) {
                store_seq_cst(&q->max_active, max_active); /* before a lingering holder is looked for */
                token = q->token_held && load_relaxed(&q->active) < max_active;
                q->token_held &= !token;
        }
        pthread_mutex_unlock(&q->group_lock);
        if (token)
                xqueue_schedule(q);
        else
                xholder_call(q, true);
        xqueue_unpin(q);
        return serial_only ? -EINVAL : 0;
}

static bool limits_are_valid(uint64_t max_tasks, uint64_t max_bytes) {
        return max_tasks >= 1 && max_tasks <= XQUEUE_TASKS_MAX && max_bytes <= XQUEUE_BYTES_MAX;
}

int xqueue_set_limits(XQueues *xs, uint64_t id, uint64_t max_tasks, uint64_t max_bytes) {
        if (!limits_are_valid(max_tasks, max_bytes))
                return -EINVAL;
        XQueue *q = xqueue_pin(xs, id);
        if (!q)
                return -ENOENT;
        store_relaxed(&q->head.max_tasks, max_tasks);
        store_relaxed(&q->head.max_units, max_bytes / XCHARGE_UNIT);
        xqueue_unpin(q);
        return 0;
}

int xqueue_get_stats(XQueues *xs, uint64_t id, XQueueStats *ret) {
        XQueue *q = xqueue_pin(xs, id);
        if (!q)
                return -ENOENT;
        XHead *h = &q->head;
        uint64_t canceled = load_relaxed(&h->canceled);
        uint64_t gone = load_acquire(&h->done) + load_acquire(&h->refunded);
        uint64_t charged = load_acquire(&h->charged);
        XLotRest lots = submitter_count(id, h);
        canceled += lots.back;
        uint64_t pending = charged - gone - canceled - lots.left;
        if ((int64_t)pending < 0) /* lots came and went meanwhile */
                pending = 0;
        *ret = (XQueueStats) {
                .n_tasks = xcharge_tasks(pending),
                .n_bytes = xcharge_units(pending) * XCHARGE_UNIT,
                .n_executed = load_relaxed(&q->n_executed),
                .n_canceled = xcharge_tasks(canceled - q->canceled_before),
                .n_refused = load_relaxed(&q->n_refused),
                .n_woken = load_relaxed(&q->runnable.n_woken),
                .n_active = load_relaxed(&q->active),
                .pauses = (unsigned)(load_relaxed(&h->gate) & UINT16_MAX),
                .stopped = xhead_is_closed(h),
        };
        xqueue_unpin(q);
        return 0;
}

/* ---- start ---- */

static bool options_are_valid(const XQueueOptions *o, const XQueueOps *ops) {
        return ops && ops->execute && (ops->release || o->slab) && (o->workers || o->dedicated || o->executor) &&
               !(o->dedicated && o->executor) && o->max_active >= 1 && o->max_active <= XQUEUE_ACTIVE_MAX &&
               !(o->executor && o->max_active > 1) && !(o->dedicated && o->max_active > 1) && o->batch_max >= 1 &&
               o->budget_tasks >= 1 && limits_are_valid(o->max_tasks, o->max_bytes);
}

static int make_own(const WorkersParams *like, XOwn **ret) {
        WorkersParams params = *like;
        params.name = "queue";
        params.event = NULL; /* that is for those who want to know of like's workers */
        params.count = NULL; /* so is this; and like may go before the thread does */
        XOwn *own = fault_calloc(1, sizeof(*own));
        if (!own)
                return -ENOMEM;
        int r = workers_new_single(&params, &own->workers);
        if (r < 0) {
                free(own);
                return r;
        }
        *ret = own;
        return 0;
}

static void fill(XQueue *q, XQueues *xs, const XQueueOptions *o, const XQueueOps *ops, void *meta, XOwn *own) {
        q->runnable.run = xholder_run_on_worker;
        q->runnable.in_line = false;
        store_relaxed(&q->runnable.n_woken, 0);
        q->normal = q->urgent = (Collected) { 0 };
        store_relaxed(&q->n_executed, 0);
        q->n_stuck = 0;
        q->set = xs;
        q->ops = ops;
        q->meta = meta;
        q->slab = o->slab;
        q->workers = o->executor ? NULL : own ? own->workers : o->workers;
        q->executor = o->executor;
        q->own = own;
        q->is_lendable = q->workers && !own;
        q->batch_max = o->batch_max;
        q->batch_linger_usec = o->batch_linger_usec;
        q->budget_tasks = o->budget_tasks;
        q->budget_usec = o->budget_usec;
        q->canceled_before = load_relaxed(&q->head.canceled);
        store_relaxed(&q->max_active, o->max_active);
        q->token_held = false;
        store_relaxed(&q->n_refused, 0);
        xholder_begin_bias(q);
}

int xqueue_start(XQueues *xs, const XQueueOptions *options, const XQueueOps *ops, void *meta, uint64_t *ret_id) {
        XQueueOptions o = options ? *options : XQUEUE_OPTIONS_DEFAULT;
        XOwn *own = NULL;
        uint64_t id;
        if (!options_are_valid(&o, ops))
                return -EINVAL;
        reap(xs);
        int r = registry_reserve(&xs->registry, &id);
        if (r < 0)
                return r;
        XQueue *q = slab_alloc(xs->slab);
        r = q ? (o.dedicated ? make_own(o.dedicated, &own) : 0) : -ENOMEM;
        if (r < 0) {
                if (q)
                        slab_free(xs->slab, q);
                registry_remove(&xs->registry, id);
                return r;
        }
        if (own)
                (void)fetch_add_seq_cst(&xs->n_own, 1);
        fill(q, xs, &o, ops, meta, own);
        q->id = id;
        xhead_begin(&q->head, id, o.max_tasks, o.max_bytes / XCHARGE_UNIT,
                    (ops->canceled ? (uint32_t)XTASK_TOLD : 0) |
                            (o.batch_linger_usec > 0 ? (uint32_t)XHEAD_NO_LOTS : 0));
        registry_publish(&xs->registry, id, q);
        *ret_id = id;
        return 0;
}

int xqueues_init(XQueues *xs) {
        pthread_mutex_init(&xs->lock, NULL);
        xs->retired = NULL;
        store_relaxed(&xs->n_own, 0);
        xs->slab = NULL;
        registry_init(&xs->registry);
        int r = slab_new(sizeof(XQueue), 64, true, &xs->slab);
        if (r == 0)
                xs->serial = xs->slab->serial;
        return r;
}

void xqueues_deinit(XQueues *xs) {
        if (!xs || !xs->slab)
                return;
        for (uint32_t n; (n = load_seq_cst(&xs->n_own)) > 0;)
                futex_wait(&xs->n_own, n, 0);
        reap(xs);
        assert(xs->registry.n_used == 0);
        registry_deinit(&xs->registry);
        xs->slab = slab_destroy(xs->slab);
}
