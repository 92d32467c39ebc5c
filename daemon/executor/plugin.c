/* SPDX-License-Identifier: MIT */
/* The loop's side of plugins: tasks on their way down, what comes up, and the threads of pools.
 *
 *      start --> xqueue_submit --> [worker: pluginrun.c] --> up list --> eventfd --> settled: engine_task_ended()
 */

#include "executor/plugin.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/fault.h"
#include "base/futex.h"
#include "base/log.h"
#include "engine/submitter.h"
#include "executor/plugininstance.h"
#include "executor/pluginrun.h"

enum {
        AWAIT_USEC = 1000,                 /* between two looks, without membarrier() */
        RESCUER_STACK_BYTES = 1024 * 1024, /* as worker_stack_kb of a pool, which a shared one has none of */
};

/* ---- up ---- */

void plugin_up(PluginExecutor *x, Up *up, UpKind kind) {
        static const uint64_t one = 1;
        up->kind = kind;
        if (inbox_push(&x->up, &up->node))
                (void)!write(x->event_fd, &one, sizeof(one)); /* fails if 2^64 - 1 writes were not read */
}

/* ---- what comes up ---- */

/* p's task has its result. The loop's part of p ends here. Nothing is started meanwhile, so the slot stays p's. */
static void settle_task(PluginTask *p) {
        PluginExecutor *x = p->queue->executor;
        Task *t = p->task;
        Slot *slot = t->slot;
        bool ok = p->verdict == TASK_OK;
        PluginResult details = {
                .result = eq_bytes(ok ? p->text : NULL, ok ? p->len : 0),
                .error = ok ? NULL : p->text,
        };
        engine_task_ended(x->engine, t,
                          &(TaskResult) { .verdict = p->verdict, .final = p->final, .details = &details });
        slot->executor_data = NULL;
        p->task = NULL;
        if (p->paused)
                (void)xqueue_resume(&x->xqueues, p->queue->id); /* those that had to wait were taken back */
        free(TAKE_PTR(p->text));
        plugin_task_unref(p);
}

/* The payload of s in one piece. NULL: no memory. */
static char *join_blocks(const PluginSubmit *s) {
        char *whole = fault_malloc(s->len);
        size_t done = PLUGIN_SUBMIT_ROOM;
        if (!whole)
                return NULL;
        memcpy(whole, s->payload, done);
        for (const PluginBlock *b = s->more; b; b = b->next) {
                size_t n = MIN(s->len - done, sizeof(b->bytes));
                memcpy(whole + done, b->bytes, n);
                done += n;
        }
        return whole;
}

static void settle_submit(PluginExecutor *x, PluginSubmit *s) {
        bool lives = s->by->task && load_relaxed(&s->by->word) >> PLUGIN_PHASE_BITS == s->token;
        _cleanup_free_ char *whole = lives && s->more ? join_blocks(s) : NULL;
        const char *payload = s->more ? whole : s->payload;
        if (lives)
                x->hooks->submit(x->host, s->by->task, eq_str(s->queue), eq_bytes(payload, payload ? s->len : 0),
                                 payload ? 0 : -ENOMEM);
        plugin_submit_free(x, s);
}

/* What is handed over waits for a worker in any case. If it is because none can be made, that is the reason. */
static void look_at_workers(PluginPool *pool) {
        WorkersStats stats;
        if (!pool->workers)
                return; /* not made yet; or said as the pool went: nobody waits for it */
        int error = load_seq_cst(&pool->create_error);
        workers_get_stats(pool->workers, &stats);
        bool is_short = error < 0 && stats.n_workers < pool->params.max;
        pool->has_none = is_short && stats.n_workers == 0;
        pool_set_short_of(pool->pool, is_short ? EQ_REASON_CREATE_FAILURE : EQ_REASON_NONE);
        pool_set_create_error(pool->pool, is_short ? error : 0);
        if (exchange_seq_cst(&pool->news, false))
                pool_all_busy(pool->pool);
}

static void settle_workers(PluginPool *pool) {
        store_seq_cst(&pool->workers_told, false); /* up_workers is out of the list, and only then */
        look_at_workers(pool);
}

static void settle_helped(PluginReserve *r) {
        PluginPool *pool = TAKE_PTR(r->pool);
        r->executor->n_helping--;
        rescue_helped(r->slot, load_relaxed(&r->has_begun));
        plugin_pool_leave(pool);
}

static void settle_up(PluginExecutor *x, Up *up) {
        switch (up->kind) {
        case UP_TASK:
                settle_task(LIST_ENTRY(up, PluginTask, up));
                break;
        case UP_SUBMIT:
                settle_submit(x, LIST_ENTRY(up, PluginSubmit, up));
                break;
        case UP_OPENED:
                plugin_instance_opened(LIST_ENTRY(up, PluginQueue, up_opened));
                break;
        case UP_BROKEN:
                plugin_instance_broken(LIST_ENTRY(up, PluginQueue, up_broken));
                break;
        case UP_CLOSED:
                plugin_instance_closed(LIST_ENTRY(up, PluginQueue, up_closed));
                break;
        case UP_WORKERS:
                settle_workers(LIST_ENTRY(up, PluginPool, up_workers));
                break;
        case UP_HELPED:
                settle_helped(LIST_ENTRY(up, PluginReserve, up));
                break;
        }
}

/* What the ends of these tasks start, is started together. */
static InboxState settle_all(PluginExecutor *x) {
        static const uint64_t one = 1;
        InboxState state;
        engine_hold(x->engine);
        while ((state = inbox_collect(&x->up, &x->collected, INBOX_EMPTY)) == INBOX_SOME)
                for (InboxNode *n; (n = collected_pop(&x->collected));)
                        settle_up(x, (Up *)n);
        engine_unhold(x->engine);
        if (state == INBOX_STUCK) /* a worker was stopped in the middle of its push: come again */
                (void)!write(x->event_fd, &one, sizeof(one));
        return state;
}

/* All that was pushed before, for who is about to free what may be among it. */
static void settle_pushed(PluginExecutor *x) {
        while (settle_all(x) == INBOX_STUCK)
                sched_yield();
}

static void on_event(uv_poll_t *poll, int status, int events) {
        PluginExecutor *x = poll->data;
        uint64_t n;
        (void)!read(x->event_fd, &n, sizeof(n)); /* nothing there: somebody has settled it already */
        (void)settle_all(x);
}

/* ---- what the engine calls ---- */

static void fill(PluginTask *p, PluginQueue *pq, Slot *slot, Task *t, const PluginOrder *o) {
        PluginExecutor *x = pq->executor;
        p->view = (eq_plugin_task) {
                .queue = t->queue->id,
                .seq = t->seq,
                .payload = o->payload.data,
                .payload_len = o->payload.len,
                .label = o->label.len > 0 ? o->label.data : NULL,
                .label_len = o->label.len,
                .uid = o->uid,
                .attempt = t->attempt + (t->where == TASK_IN_HANDED), /* else it has begun */
        };
        p->mark = o->mark;
        p->mark_value = o->mark_value;
        p->mark_slot = o->mark_slot;
        store_relaxed(&p->life.seen_usec, 0);
        store_relaxed(&p->n_refs, 2); /* the loop, and the execution queue */
        WATCH_SET(p->life.tid, 0);
        store_relaxed(&p->life.begun_usec, 0);
        store_relaxed(&p->canceled, false);
        p->ordered = o->retries && load_relaxed(&pq->max_active) == 1;
        p->paused = p->final = false;
        p->queue = pq;
        p->task = t;
        p->text = NULL;
        p->len = 0;
        store_release(&p->word, plugin_word(++x->last_token, PLUGIN_HANDED));
        slot->executor_data = p;
        atomic_store_explicit(&slot->watch->life, &p->life, memory_order_release);
}

static void unprepare(PluginExecutor *x, Task *t, int mark_slot) {
        if (x->hooks->unprepare)
                x->hooks->unprepare(x->host, t, mark_slot);
}

static int plugin_start(Executor *executor, Slot *slot, Task *t) {
        PluginExecutor *x = (PluginExecutor *)executor;
        PluginQueue *pq = plugin_queue(t->queue);
        PluginOrder order = { 0 };
        int r = x->hooks->prepare(x->host, t, &order);
        if (r < 0)
                return r;
        PluginTask *p = fault_hit(FAULT_ALLOC) ? NULL : slab_alloc(x->tasks);
        if (!p) {
                unprepare(x, t, order.mark_slot);
                return -ENOMEM;
        }
        fill(p, pq, slot, t, &order);
        unsigned flags = t->lane == TASK_LANE_URGENT ? XSUBMIT_URGENT : 0;
        r = xqueue_submit(&x->xqueues, pq->id, &p->xtask, 0, flags, &p->ref);
        if (r < 0) {
                slot->executor_data = NULL;
                p->task = NULL;
                slab_free(x->tasks, p);
                unprepare(x, t, order.mark_slot);
        }
        return r;
}

static bool plugin_take_back(Executor *executor, Slot *slot, Task *t) {
        PluginExecutor *x = (PluginExecutor *)executor;
        PluginTask *p = plugin_task(slot);
        uint64_t word = load_relaxed(&p->word), token = word >> PLUGIN_PHASE_BITS;
        word = plugin_word(token, PLUGIN_HANDED);
        if (!cas_acq_rel(&p->word, &word, plugin_word(token, PLUGIN_FREE)))
                return false;
        (void)xqueue_cancel(p->ref); /* if a worker has it by now, it passes it over */
        slot->executor_data = NULL;
        p->task = NULL;
        unprepare(x, t, p->mark_slot);
        plugin_task_unref(p);
        return true;
}

static bool plugin_has_begun(Executor *executor, const Slot *slot, const Task *t) {
        return load_acquire(&plugin_task(slot)->life.begun_usec) != 0;
}

static void plugin_cancel(Executor *executor, Slot *slot, Task *t, int signal, uint64_t grace_usec) {
        PluginTask *p = plugin_task(slot);
        if (p) /* else its result is being settled */
                store_relaxed(&p->canceled, true);
}

static bool plugin_end(Executor *executor, Queue *q) {
        PluginQueue *p = plugin_queue(q);
        if (!p)
                return true;
        free(TAKE_PTR(p->next_text));
        p->next_library = plugin_library_unref(p->next_library);
        plugin_instance_stop(p);
        return p->state == PLUGIN_CLOSED;
}

/* ---- rescuers ---- */

static int plugin_reserve(Executor *executor, Slot *slot) {
        PluginExecutor *x = (PluginExecutor *)executor;
        char name[EQ_NAME_MAX + 8];
        if (x->n_reserves >= PLUGIN_RESERVES_MAX)
                return -ENOSPC;
        PluginReserve *r = fault_calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        snprintf(name, sizeof(name), "eqw/R-%s", slot->reserve->name);
        int e = plugin_watch_event(x);
        if (e >= 0)
                e = reserve_new(name, RESCUER_STACK_BYTES, x->rescuer_nice, &r->thread);
        if (e < 0) {
                free(r);
                return e;
        }
        r->executor = x;
        r->slot = slot;
        slot->executor_data = r;
        x->n_reserves++;
        return 0;
}

static void plugin_unreserve(Executor *executor, Slot *slot) {
        PluginReserve *r = TAKE_PTR(slot->executor_data);
        reserve_free(r->thread); /* it helps nobody */
        r->executor->n_reserves--;
        free(r);
}

static eq_reason plugin_need(Executor *executor, Pool *p, uint64_t *ret_n_begun) {
        static const eq_reason reasons[] = {
                [WORKERS_NO_NEED] = EQ_REASON_NONE,
                [WORKERS_REFUSED] = EQ_REASON_CREATE_FAILURE,
                [WORKERS_FULL] = EQ_REASON_POOL_FULL,
        };
        const PluginPool *pool = plugin_pool(p);
        *ret_n_begun = 0;
        return pool->workers ? reasons[workers_need(pool->workers, ret_n_begun)] : EQ_REASON_NONE;
}

static bool plugin_waits(Executor *executor, const Queue *q) {
        const PluginQueue *p = plugin_queue(q);
        return p && p->state == PLUGIN_OPENING;
}

static void plugin_help(Executor *executor, Slot *slot, Queue *q) {
        PluginReserve *r = slot->executor_data;
        PluginQueue *p = plugin_queue(q);
        r->pool = p->pool;
        r->pool->n_instances++;
        r->id = p->id;
        store_relaxed(&r->has_begun, false);
        r->executor->n_helping++;
        reserve_run(r->thread, plugin_reserve_help, r);
}

static bool plugin_has_helped(Executor *executor, const Slot *slot) {
        return load_relaxed(&((const PluginReserve *)slot->executor_data)->has_begun);
}

static const ExecutorOps plugin_ops = {
        .name = "plugin",
        .start = plugin_start,
        .cancel = plugin_cancel,
        .take_back = plugin_take_back,
        .has_begun = plugin_has_begun,
        .end = plugin_end,
        .reserve = plugin_reserve,
        .unreserve = plugin_unreserve,
        .need = plugin_need,
        .waits = plugin_waits,
        .help = plugin_help,
        .has_helped = plugin_has_helped,
};

/* ---- pools ---- */

void plugin_pool_leave(PluginPool *pool) {
        if (--pool->n_instances == 0)
                pool->executor->hooks->left(pool->executor->host, pool->pool);
}

static void on_workers(void *host, WorkersEvent ev, int error) {
        PluginPool *pool = host;
        if (ev == WORKERS_CULLED)
                return;
        if (ev != WORKERS_ALL_BUSY)
                store_seq_cst(&pool->create_error, error);
        if (ev != WORKERS_CREATED)
                store_seq_cst(&pool->news, true);
        if (!exchange_seq_cst(&pool->workers_told, true))
                plugin_up(pool->executor, &pool->up_workers, UP_WORKERS);
}

int plugin_watch_event(PluginExecutor *x) {
        if (x->poll)
                return 0;
        if (x->event_fd < 0)
                x->event_fd = fault_hit(FAULT_PIPE) ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (x->event_fd < 0)
                return -EMFILE;
        x->poll = fault_calloc(1, sizeof(*x->poll));
        if (!x->poll)
                return -ENOMEM;
        int r = uv_poll_init(x->loop, x->poll, x->event_fd);
        if (r < 0) {
                free(TAKE_PTR(x->poll));
                return r;
        }
        x->poll->data = x;
        uv_unref((uv_handle_t *)x->poll);
        return uv_poll_start(x->poll, UV_READABLE, on_event);
}

static void set_params(PluginPool *pool, const WorkersParams *params) {
        pool->params = *params;
        pool->params.name = pool->pool->name;
        pool->params.spin_usec = WORKERS_PARAMS_DEFAULT.spin_usec;
        pool->params.event = on_workers;
        pool->params.host = pool;
        pool->params.count = &pool->pool->watch->threads;
        WATCH_SET(pool->pool->watch->n_threads_max, params->max); /* which bound its tasks; slots do not */
}

int plugin_pool_need_workers(PluginPool *pool) {
        int r = plugin_watch_event(pool->executor);
        if (r < 0 || pool->workers)
                return r;
        r = workers_new(&pool->params, &pool->workers);
        if (r >= 0 && load_relaxed(&pool->executor->pressed))
                workers_set_growth(pool->workers, false);
        return r;
}

int plugin_pool_new(Pool *p, const WorkersParams *params) {
        PluginPool *pool = fault_calloc(1, sizeof(*pool));
        if (!pool)
                return -ENOMEM;
        pool->executor = (PluginExecutor *)p->executor;
        pool->pool = p;
        set_params(pool, params);
        p->executor_data = pool;
        return 0;
}

void plugin_pool_set(Pool *p, const WorkersParams *params) {
        PluginPool *pool = plugin_pool(p);
        set_params(pool, params);
        if (!pool->workers)
                return;
        (void)workers_set_params(pool->workers, &pool->params); /* was checked */
        look_at_workers(pool);
        pool_all_busy(p); /* it may be full now */
}

void plugin_pool_free(Pool *p) {
        PluginPool *pool = plugin_pool(p);
        if (!pool)
                return;
        assert(pool->n_instances == 0);
        pool->workers = workers_free(pool->workers);
        settle_pushed(pool->executor); /* its last word may be on the way up */
        p->executor_data = NULL;
        free(pool);
}

bool plugin_pool_is_used(const Pool *p) {
        return plugin_pool(p)->n_instances > 0;
}

bool plugin_pool_has_none(const Pool *p) {
        return plugin_pool(p)->has_none;
}

PluginPoolStats plugin_pool_stats(const Pool *p) {
        const PluginPool *pool = plugin_pool(p);
        WorkersStats stats = { 0 };
        if (pool->workers)
                workers_get_stats(pool->workers, &stats);
        return (PluginPoolStats) { .n_workers = stats.n_workers, .n_idle = stats.n_idle };
}

/* ---- tasks that run ---- */

int plugin_executor_mark_slot(const Task *t) {
        return plugin_task(t->slot)->mark_slot;
}

/* Who begins a task writes begun_usec and then reads begin_awaited, with the light fence between the two; here it is the other way
 * round. If the heavy one is not to be had, who begins may not see that it is awaited: so this looks now and then. */
void plugin_executor_await_begin(PluginExecutor *x, const Task *t) {
        const PluginTask *p = plugin_task(t->slot);
        bool fenced = heavy_fence_works();
        for (;;) {
                store_relaxed(&x->begin_awaited, 1);
                if (fenced)
                        heavy_fence();
                if (load_acquire(&p->life.begun_usec) != 0)
                        break;
                futex_wait(&x->begin_awaited, 1, fenced ? 0 : AWAIT_USEC);
        }
        store_relaxed(&x->begin_awaited, 0);
}

bool plugin_executor_times(const Task *t, uint64_t *ret_begun_usec, uint64_t *ret_seen_usec) {
        const PluginTask *p = t->slot ? plugin_task(t->slot) : NULL;
        if (!p)
                return false;
        *ret_begun_usec = load_relaxed(&p->life.begun_usec);
        *ret_seen_usec = load_relaxed(&p->life.seen_usec);
        return *ret_begun_usec != 0;
}

/* ---- life ---- */

int plugin_executor_new(uv_loop_t *loop, Engine *engine, const PluginHooks *hooks, void *host, PluginExecutor **ret) {
        PluginExecutor *x = fault_calloc(1, sizeof(*x));
        if (!x)
                return -ENOMEM;
        x->executor.ops = &plugin_ops;
        x->engine = engine;
        x->loop = loop;
        x->hooks = hooks;
        x->host = host;
        x->event_fd = -1;
        plugin_executor_set_hogs(x, 0, 0);
        list_init(&x->queues);
        int r = xqueues_init(&x->xqueues);
        x->has_xqueues = r >= 0;
        if (r >= 0)
                r = slab_new(sizeof(PluginTask), 64, false, &x->tasks);
        if (r >= 0)
                r = slab_new(PLUGIN_BLOCK_BYTES, 64, false, &x->blocks);
        if (r < 0) {
                plugin_executor_free(x);
                return r;
        }
        *ret = x;
        return 0;
}

static void on_poll_closed(uv_handle_t *handle) {
        free(handle);
}

void plugin_executor_close(PluginExecutor *x) {
        if (!x)
                return;
        x->freeing = true;
        LIST_FOREACH (link, &x->queues)
                plugin_instance_stop(LIST_ENTRY(link, PluginQueue, link));
        for (List *link; (link = list_first(&x->queues));) {
                PluginQueue *p = LIST_ENTRY(link, PluginQueue, link);
                bool has_queue = p->queue != NULL;
                (void)xqueue_join(&x->xqueues, p->id);
                settle_pushed(x); /* if its queue was removed, p goes with it */
                if (has_queue)
                        plugin_instance_free(p);
        }
        settle_pushed(x);                                      /* deferred tasks that were given up */
        for (uint64_t n; x->n_helping > 0; settle_pushed(x)) { /* reserves on their way home */
                struct pollfd p = { .fd = x->event_fd, .events = POLLIN };
                (void)poll(&p, 1, -1);
                (void)!read(x->event_fd, &n, sizeof(n));
        }
}

PluginExecutor *plugin_executor_free(PluginExecutor *x) {
        if (!x)
                return NULL;
        assert(list_is_empty(&x->queues));
        if (x->poll) {
                (void)uv_poll_stop(x->poll);
                uv_close((uv_handle_t *)x->poll, on_poll_closed);
        }
        close_fd(x->event_fd);
        if (x->has_xqueues)
                xqueues_deinit(&x->xqueues);
        slab_destroy(x->tasks);
        slab_destroy(x->blocks);
        free(x);
        return NULL;
}

Executor *plugin_executor(PluginExecutor *x) {
        return &x->executor;
}

void plugin_executor_set_pressed(PluginExecutor *x, bool pressed) {
        store_relaxed(&x->pressed, pressed);
        LIST_FOREACH (link, &x->engine->pools) {
                const Pool *p = LIST_ENTRY(link, Pool, link);
                PluginPool *pool = p->executor == &x->executor ? plugin_pool(p) : NULL;
                if (!pool || !pool->workers)
                        continue;
                workers_set_growth(pool->workers, !pressed);
                if (pressed)
                        workers_shrink(pool->workers);
                pool_all_busy(pool->pool); /* it may be as good as full now */
        }
}

void plugin_executor_set_hogs(PluginExecutor *x, uint64_t thresh_usec, uint64_t warning) {
        uint64_t hog = thresh_usec ? thresh_usec : PLUGIN_HOGS_FREE;
        store_relaxed(&x->hog_usec, hog);
        store_relaxed(&x->look_usec, MIN(hog, PLUGIN_READ_USEC - 1));
        store_relaxed(&x->hog_warning, warning);
}

void plugin_executor_count_hog(const Queue *q) {
        PluginQueue *p = plugin_queue(q);
        if (p && p->state < PLUGIN_CLOSED)
                plugin_count_hogs(p, 1);
}

void plugin_executor_set_rescuer_nice(PluginExecutor *x, int nice) {
        x->rescuer_nice = nice;
}

PluginCpu plugin_executor_cpu(const Queue *q) {
        const PluginQueue *p = plugin_queue(q);
        if (!p)
                return (PluginCpu) { 0 };
        XQueueStats stats = { 0 };
        if (p->state < PLUGIN_CLOSING)
                (void)xqueue_get_stats(&p->executor->xqueues, p->id, &stats); /* else it is counted as it is closed */
        return (PluginCpu) { .cpu_usec = load_relaxed(&p->cpu_usec),
                             .n_hogs = load_relaxed(&p->n_hogs),
                             .n_woken = load_relaxed(&p->n_woken) + stats.n_woken };
}
