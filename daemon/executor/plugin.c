/* SPDX-License-Identifier: MIT */
/* The loop's side of plugins: queues and their instances, tasks on their way down, and what comes up.
 *
 *      start --> xqueue_submit --> [worker: pluginrun.c] --> up list --> eventfd --> settled: engine_task_ended()
 *
 * An instance is opened by the first task of its execution queue, which is none of the engine's, and closed by the last call.
 * Until it is open the engine's queue is unserved, so nothing else is handed over.
 *
 *      OPENING ---> OPEN ---------> CLOSING --> CLOSED --> gone, or OPENING again with what it has been told meanwhile
 *           `--> FAILED -------------^
 */

#include "executor/plugin.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/fault.h"
#include "base/log.h"
#include "executor/pluginrun.h"

enum {
        AHEAD_BATCHES =
                4, /* as many batches of tasks are with the workers: one at work, one to go on with, and time to react */
        AHEAD_MIN = 64,
        STACK_BYTES =
                1024 *
                1024, /* libraries that plugins use are not made for small stacks; what is not touched costs nothing */
};

static PluginQueue *plugin_queue(const Queue *q) {
        return q->executor_data;
}

static PluginTask *plugin_task(const Slot *slot) {
        return slot->executor_data;
}

/* ---- up ---- */

void plugin_up(PluginExecutor *x, Up *up, UpKind kind) {
        static const uint64_t one = 1;
        up->kind = kind;
        if (inbox_push(&x->up, &up->node))
                (void)!write(x->event_fd, &one, sizeof(one)); /* fails if 2^64 - 1 writes were not read */
}

/* ---- instances ---- */

static int start_instance(PluginExecutor *x, PluginQueue *p) {
        XQueueOptions options = XQUEUE_OPTIONS_DEFAULT;
        options.workers = x->workers;
        options.max_active = load_relaxed(&p->max_active);
        options.batch_max = p->batch_max;
        options.max_tasks = XQUEUE_TASKS_MAX; /* the engine's queue has the limits that count */
        options.max_bytes = XQUEUE_BYTES_MAX;
        int r = xqueue_start(&x->xqueues, &options, &plugin_xqueue_ops, p, &p->id);
        if (r < 0)
                return r;
        p->state = PLUGIN_OPENING;
        p->plugin = p->library->entry;
        store_relaxed(&p->n_empty, 0);
        store_relaxed(&p->is_broken, false);
        r = xqueue_submit(&x->xqueues, p->id, &p->open_task, 0, 0, NULL);
        assert(r == 0); /* it is new, and empty */
        return 0;
}

static void stop_instance(PluginQueue *p) {
        XQueues *xs = &p->executor->xqueues;
        if (p->state >= PLUGIN_CLOSING)
                return;
        p->state = PLUGIN_CLOSING;
        if (p->queue)
                queue_set_unserved(p->queue, EQ_REASON_PLUGIN); /* takes back what has not begun */
        (void)xqueue_stop(xs, p->id);
        while (xqueue_resume(xs, p->id) == 0) /* a paused one would not end */
                ;
}

static void free_queue(PluginQueue *p) {
        list_remove(&p->link);
        if (p->queue)
                p->queue->executor_data = NULL;
        plugin_library_unref(p->library);
        plugin_library_unref(p->next_library);
        free(p->text);
        free(p->next_text);
        free(p);
}

static size_t n_ahead(const PluginQueue *p) {
        if (p->library->entry->flags & EQ_PLUGIN_DEFERS)
                return 1; /* max_active is the engine's to keep: what is deferred is not in the execution queue any more */
        return MAX((size_t)AHEAD_BATCHES * p->batch_max, (size_t)AHEAD_MIN);
}

static void opened(PluginQueue *p) {
        const PluginHooks *hooks = p->executor->hooks;
        void *host = p->executor->host;
        if (p->state != PLUGIN_OPENING)
                return; /* and closing by now */
        if (p->open_result >= 0) {
                p->state = PLUGIN_OPEN;
                queue_set_ahead(p->queue, n_ahead(p));
                hooks->opened(host, p->queue, NULL);
                queue_set_unserved(p->queue, EQ_REASON_NONE);
                return;
        }
        if (p->error[0] == '\0')
                snprintf(p->error, sizeof(p->error), "%s", strerror(-p->open_result));
        p->state = PLUGIN_FAILED;
        hooks->opened(host, p->queue, p->error);
}

static void broken(PluginQueue *p) {
        if (p->state != PLUGIN_OPEN) {
                (void)xqueue_resume(&p->executor->xqueues, p->id); /* it was paused, and is to end */
                return;
        }
        p->state = PLUGIN_FAILED;
        snprintf(p->error, sizeof(p->error), "it was called again and again, and took none of its tasks");
        queue_set_unserved(p->queue, EQ_REASON_PLUGIN);
        p->executor->hooks->opened(p->executor->host, p->queue, p->error);
}

/* Tasks that it deferred and has not completed: nobody will. */
static void abandon_deferred(PluginQueue *p) {
        LIST_FOREACH (link, &p->queue->running) {
                PluginTask *t = plugin_task(LIST_ENTRY(link, Task, link)->slot);
                if (t)
                        (void)plugin_task_abandon(t, "the plugin was closed before it completed it");
        }
}

static void open_again(PluginQueue *p) {
        plugin_library_unref(p->library);
        free(p->text);
        p->library = TAKE_PTR(p->next_library);
        p->text = TAKE_PTR(p->next_text);
        p->batch_max = p->next_batch_max;
        int r = start_instance(p->executor, p);
        if (r < 0) {
                snprintf(p->error, sizeof(p->error), "%s", strerror(-r));
                p->executor->hooks->opened(p->executor->host, p->queue, p->error);
        }
}

static void closed(PluginQueue *p) {
        Queue *q = p->queue;
        p->state = PLUGIN_CLOSED;
        if (!q) {
                free_queue(p);
                return;
        }
        abandon_deferred(p);
        if (p->next_library && !p->executor->freeing) {
                open_again(p);
                return;
        }
        queue_enter(q);
        p->executor->hooks->ended(p->executor->host, q);
        queue_leave(q); /* a stop of the queue waits for this */
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

static void settle_submit(PluginExecutor *x, PluginSubmit *s) {
        bool lives = s->by->task && load_relaxed(&s->by->word) >> PLUGIN_PHASE_BITS == s->token;
        if (lives)
                x->hooks->submit(x->host, s->by->task, eq_str(s->queue), eq_bytes(s->payload, s->len));
        free(s);
}

/* Without a single worker nothing starts: then that is the reason, and else it is just slower. */
static void settle_workers(PluginExecutor *x) {
        WorkersStats stats;
        store_seq_cst(&x->workers_told, false);
        int error = load_seq_cst(&x->create_error);
        workers_get_stats(x->workers, &stats);
        bool none = error < 0 && stats.n_workers == 0;
        if (none) {
                snprintf(x->thread_error, sizeof(x->thread_error), "%s", strerror(-error));
                if (!pool_is_blocked(x->pool))
                        pool_block(x->pool, EQ_REASON_CREATE_FAILURE, USEC_NEVER);
                return;
        }
        x->thread_error[0] = '\0';
        if (x->pool->blocked_reason == EQ_REASON_CREATE_FAILURE) {
                pool_unblock(x->pool);
                pool_run(x->pool);
        }
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
                opened(LIST_ENTRY(up, PluginQueue, up_opened));
                break;
        case UP_BROKEN:
                broken(LIST_ENTRY(up, PluginQueue, up_broken));
                break;
        case UP_CLOSED:
                closed(LIST_ENTRY(up, PluginQueue, up_closed));
                break;
        case UP_WORKERS:
                settle_workers(x);
                break;
        }
}

/* What the ends of these tasks start, is started together. */
static void settle_all(PluginExecutor *x) {
        static const uint64_t one = 1;
        InboxState state;
        engine_hold(x->engine);
        while ((state = inbox_collect(&x->up, &x->collected, INBOX_EMPTY)) == INBOX_SOME)
                for (InboxNode *n; (n = collected_pop(&x->collected));)
                        settle_up(x, (Up *)n);
        engine_unhold(x->engine);
        if (state == INBOX_STUCK) /* a worker was stopped in the middle of its push: come again */
                (void)!write(x->event_fd, &one, sizeof(one));
}

static void on_event(uv_poll_t *poll, int status, int events) {
        PluginExecutor *x = poll->data;
        uint64_t n;
        (void)!read(x->event_fd, &n, sizeof(n)); /* nothing there: somebody has settled it already */
        settle_all(x);
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
                .attempt = t->attempt + 1U,
        };
        store_relaxed(&p->touched_usec, 0);
        store_relaxed(&p->n_refs, 2); /* the loop, and the execution queue */
        store_relaxed(&p->begun_usec, 0);
        store_relaxed(&p->canceled, false);
        p->ordered = o->retries && load_relaxed(&pq->max_active) == 1;
        p->paused = p->final = false;
        p->queue = pq;
        p->task = t;
        p->text = NULL;
        p->len = 0;
        store_release(&p->word, plugin_word(++x->last_token, PLUGIN_HANDED));
        slot->executor_data = p;
}

static int plugin_start(Executor *executor, Slot *slot, Task *t) {
        PluginExecutor *x = (PluginExecutor *)executor;
        PluginQueue *pq = plugin_queue(t->queue);
        PluginOrder order = { 0 };
        int r = x->hooks->prepare(x->host, t, &order);
        if (r < 0)
                return r;
        PluginTask *p = fault_hit(FAULT_ALLOC) ? NULL : slab_alloc(x->tasks);
        if (!p)
                return -ENOMEM;
        fill(p, pq, slot, t, &order);
        unsigned flags = t->lane == TASK_LANE_URGENT ? XSUBMIT_URGENT : 0;
        r = xqueue_submit(&x->xqueues, pq->id, &p->xtask, 0, flags, &p->ref);
        if (r < 0) {
                slot->executor_data = NULL;
                p->task = NULL;
                slab_free(x->tasks, p);
        }
        return r;
}

static bool plugin_take_back(Executor *executor, Slot *slot, Task *t) {
        PluginTask *p = plugin_task(slot);
        uint64_t word = load_relaxed(&p->word), token = word >> PLUGIN_PHASE_BITS;
        word = plugin_word(token, PLUGIN_HANDED);
        if (!cas_acq_rel(&p->word, &word, plugin_word(token, PLUGIN_FREE)))
                return false;
        (void)xqueue_cancel(p->ref); /* if a worker has it by now, it passes it over */
        slot->executor_data = NULL;
        p->task = NULL;
        plugin_task_unref(p);
        return true;
}

static bool plugin_has_begun(Executor *executor, const Slot *slot, const Task *t) {
        return load_acquire(&plugin_task(slot)->begun_usec) != 0;
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
        stop_instance(p);
        return p->state == PLUGIN_CLOSED;
}

static const ExecutorOps plugin_ops = {
        .name = "plugin",
        .start = plugin_start,
        .cancel = plugin_cancel,
        .take_back = plugin_take_back,
        .has_begun = plugin_has_begun,
        .end = plugin_end,
};

/* ---- queues ---- */

static void on_workers(void *host, WorkersEvent ev, int error) {
        PluginExecutor *x = host;
        if (ev == WORKERS_CULLED)
                return;
        store_seq_cst(&x->create_error, error);
        if (!exchange_seq_cst(&x->workers_told, true))
                plugin_up(x, &x->up_workers, UP_WORKERS);
}

static int watch_event(PluginExecutor *x) {
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

static int need_workers(PluginExecutor *x) {
        WorkersParams params = WORKERS_PARAMS_DEFAULT;
        int r = watch_event(x);
        if (r < 0 || x->workers)
                return r;
        params.name = "plugin";
        params.max = x->n_threads;
        params.stack_bytes = STACK_BYTES;
        params.event = on_workers;
        params.host = x;
        return workers_new(&params, &x->workers);
}

static PluginQueue *make_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup) {
        PluginQueue *p = fault_calloc(1, sizeof(*p));
        char *text = fault_malloc(strlen(setup->text) + 1);
        if (!p || !text) {
                free(p);
                free(text);
                return NULL;
        }
        p->executor = x;
        p->queue = q;
        p->text = strcpy(text, setup->text);
        p->batch_max = setup->batch_max;
        strcpy(p->name, q->name);
        store_relaxed(&p->max_active, (uint32_t)q->params.max_active);
        p->library = plugin_library_ref(setup->library);
        list_append(&x->queues, &p->link);
        return p;
}

int plugin_executor_add_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup) {
        x->pool = q->pool;
        int r = need_workers(x);
        if (r < 0)
                return r;
        PluginQueue *p = make_queue(x, q, setup);
        if (!p)
                return -ENOMEM;
        r = start_instance(x, p);
        if (r < 0) {
                free_queue(p);
                return r;
        }
        q->executor_data = p;
        queue_set_unserved(q, EQ_REASON_PLUGIN);
        return 0;
}

void plugin_executor_remove_queue(PluginExecutor *x, Queue *q) {
        PluginQueue *p = q->pool->executor == &x->executor ? plugin_queue(q) : NULL;
        if (!p)
                return;
        stop_instance(p);
        q->executor_data = NULL;
        p->queue = NULL;
        if (p->state == PLUGIN_CLOSED)
                free_queue(p);
}

int plugin_executor_change_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup) {
        PluginQueue *p = plugin_queue(q);
        uint32_t max_active = (uint32_t)q->params.max_active;
        if (max_active != load_relaxed(&p->max_active)) {
                store_relaxed(&p->max_active, max_active);
                (void)xqueue_set_max_active(&x->xqueues, p->id, max_active); /* it may have ended */
        }
        const PluginLibrary *library = p->next_library ? p->next_library : p->library;
        const char *text = p->next_text ? p->next_text : p->text;
        unsigned batch_max = p->next_library ? p->next_batch_max : p->batch_max;
        bool same = library->entry == setup->library->entry && strcmp(text, setup->text) == 0 &&
                    batch_max == setup->batch_max;
        if (q->stopping || (same && p->state != PLUGIN_FAILED && (p->state != PLUGIN_CLOSED || p->next_library)))
                return 0;
        char *copy = fault_malloc(strlen(setup->text) + 1);
        if (!copy)
                return -ENOMEM;
        free(p->next_text);
        plugin_library_unref(p->next_library);
        p->next_text = strcpy(copy, setup->text);
        p->next_library = plugin_library_ref(setup->library);
        p->next_batch_max = setup->batch_max;
        if (p->state == PLUGIN_CLOSED)
                open_again(p);
        else
                stop_instance(p);
        return 0;
}

bool plugin_executor_has_ended(const Queue *q) {
        const PluginQueue *p = plugin_queue(q);
        return !p || p->state == PLUGIN_CLOSED;
}

const char *plugin_executor_explain(const Queue *q) {
        const PluginQueue *p = plugin_queue(q);
        switch (p->state) {
        case PLUGIN_OPENING:
                return "it is being opened";
        case PLUGIN_OPEN:
                return "it is in use";
        case PLUGIN_CLOSING:
                return "it is being closed";
        case PLUGIN_FAILED:
        case PLUGIN_CLOSED:
                break;
        }
        return p->error;
}

const char *plugin_executor_thread_error(const PluginExecutor *x) {
        return x->thread_error[0] ? x->thread_error : NULL;
}

bool plugin_executor_times(const Task *t, uint64_t *ret_begun_usec, uint64_t *ret_seen_usec) {
        const PluginTask *p = t->slot ? plugin_task(t->slot) : NULL;
        if (!p)
                return false;
        *ret_begun_usec = load_relaxed(&p->begun_usec);
        *ret_seen_usec = load_relaxed(&p->touched_usec);
        return *ret_begun_usec != 0;
}

/* ---- life ---- */

int plugin_executor_new(uv_loop_t *loop, Engine *engine, unsigned n_threads, const PluginHooks *hooks, void *host,
                        PluginExecutor **ret) {
        PluginExecutor *x = fault_calloc(1, sizeof(*x));
        if (!x)
                return -ENOMEM;
        x->executor.ops = &plugin_ops;
        x->engine = engine;
        x->loop = loop;
        x->hooks = hooks;
        x->host = host;
        x->n_threads = n_threads;
        x->event_fd = -1;
        list_init(&x->queues);
        int r = xqueues_init(&x->xqueues);
        x->has_xqueues = r >= 0;
        if (r >= 0)
                r = slab_new(sizeof(PluginTask), 64, false, &x->tasks);
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
                stop_instance(LIST_ENTRY(link, PluginQueue, link));
        for (List *link; (link = list_first(&x->queues));) {
                PluginQueue *p = LIST_ENTRY(link, PluginQueue, link);
                bool has_queue = p->queue != NULL;
                (void)xqueue_join(&x->xqueues, p->id);
                settle_all(x); /* if its queue was removed, p goes with it */
                if (has_queue)
                        free_queue(p);
        }
        settle_all(x); /* deferred tasks that were given up */
}

PluginExecutor *plugin_executor_free(PluginExecutor *x) {
        if (!x)
                return NULL;
        assert(list_is_empty(&x->queues));
        workers_free(x->workers);
        if (x->poll) {
                (void)uv_poll_stop(x->poll);
                uv_close((uv_handle_t *)x->poll, on_poll_closed);
        }
        close_fd(x->event_fd);
        if (x->has_xqueues)
                xqueues_deinit(&x->xqueues);
        slab_destroy(x->tasks);
        free(x);
        return NULL;
}

Executor *plugin_executor(PluginExecutor *x) {
        return &x->executor;
}

void plugin_executor_set_threads(PluginExecutor *x, unsigned n_threads) {
        x->n_threads = n_threads;
        if (x->workers)
                (void)workers_set_limits(x->workers, 1, n_threads); /* 1 is never more */
}
