/* SPDX-License-Identifier: MIT */
/* Instances of plugins: opened for a queue, closed, and opened again when what their files say has changed. */

#include "executor/plugininstance.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"

enum {
        AHEAD_BATCHES =
                4, /* as many batches of tasks are with the workers: one at work, one to go on with, and time to react */
        AHEAD_MIN = 64,
};

static int start_instance(PluginExecutor *x, PluginQueue *p) {
        XQueueOptions options = XQUEUE_OPTIONS_DEFAULT;
        PluginPool *pool = plugin_pool(p->queue->pool);
        bool own = p->calls.dedicated;
        int r = own ? plugin_watch_event(x) : plugin_pool_need_workers(pool); /* those of the pool are for others */
        if (r < 0)
                return r;
        options.workers = own ? NULL : pool->workers;
        options.dedicated = own ? &pool->params : NULL;
        options.max_active = load_relaxed(&p->max_active);
        options.batch_max = p->calls.batch_max;
        options.batch_linger_usec = p->calls.batch_linger_usec;
        options.max_tasks = XQUEUE_TASKS_MAX; /* the engine's queue has the limits that count */
        options.max_bytes = XQUEUE_BYTES_MAX;
        r = xqueue_start(&x->xqueues, &options, &plugin_xqueue_ops, p, &p->id);
        if (r < 0)
                return r;
        p->pool = pool;
        pool->n_instances++;
        p->state = PLUGIN_OPENING;
        p->plugin = p->library->entry;
        store_relaxed(&p->n_empty, 0);
        store_relaxed(&p->is_broken, false);
        r = xqueue_submit(&x->xqueues, p->id, &p->open_task, 0, 0, NULL);
        assert(r == 0); /* it is new, and empty */
        return 0;
}

void plugin_instance_stop(PluginQueue *p) {
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

void plugin_instance_free(PluginQueue *p) {
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
        return MAX((size_t)AHEAD_BATCHES * p->calls.batch_max, (size_t)AHEAD_MIN);
}

void plugin_instance_opened(PluginQueue *p) {
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

void plugin_instance_broken(PluginQueue *p) {
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
        p->calls = p->next_calls;
        int r = start_instance(p->executor, p);
        if (r < 0) {
                snprintf(p->error, sizeof(p->error), "%s", strerror(-r));
                p->executor->hooks->opened(p->executor->host, p->queue, p->error);
        }
}

void plugin_instance_closed(PluginQueue *p) {
        Queue *q = p->queue;
        p->state = PLUGIN_CLOSED;
        plugin_pool_leave(TAKE_PTR(p->pool));
        if (!q) {
                plugin_instance_free(p);
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

/* ---- its queue ---- */

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
        p->calls = setup->calls;
        strcpy(p->name, q->name);
        store_relaxed(&p->max_active, (uint32_t)q->params.max_active);
        p->library = plugin_library_ref(setup->library);
        list_append(&x->queues, &p->link);
        return p;
}

int plugin_executor_add_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup) {
        PluginQueue *p = make_queue(x, q, setup);
        if (!p)
                return -ENOMEM;
        int r = start_instance(x, p);
        if (r < 0) {
                plugin_instance_free(p);
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
        plugin_instance_stop(p);
        q->executor_data = NULL;
        p->queue = NULL;
        if (p->state == PLUGIN_CLOSED)
                plugin_instance_free(p);
}

static bool calls_are_same(const PluginCalls *a, const PluginCalls *b) {
        return a->batch_max == b->batch_max && a->batch_linger_usec == b->batch_linger_usec &&
               a->dedicated == b->dedicated;
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
        const PluginCalls *calls = p->next_library ? &p->next_calls : &p->calls;
        bool same = library->entry == setup->library->entry && strcmp(text, setup->text) == 0 &&
                    calls_are_same(calls, &setup->calls) && (!p->pool || p->pool == plugin_pool(q->pool));
        if (q->stopping || (same && p->state != PLUGIN_FAILED && (p->state != PLUGIN_CLOSED || p->next_library)))
                return 0;
        char *copy = fault_malloc(strlen(setup->text) + 1);
        if (!copy)
                return -ENOMEM;
        free(p->next_text);
        plugin_library_unref(p->next_library);
        p->next_text = strcpy(copy, setup->text);
        p->next_library = plugin_library_ref(setup->library);
        p->next_calls = setup->calls;
        if (p->state == PLUGIN_CLOSED)
                open_again(p);
        else
                plugin_instance_stop(p);
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
