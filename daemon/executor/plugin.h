/* SPDX-License-Identifier: MIT */
#pragma once

/* The executor whose workers are threads of eqd, on which plugins run the tasks of their queues: eq-plugin(7).
 *
 * Each queue has an instance of its plugin and an execution queue (engine/xqueue.h) below the engine's. Tasks that may start
 * are handed to that ahead of their start, so that threads go on without the loop; what they have done comes up through one
 * list and an eventfd. Everything here: loop; nothing blocks, unless stated. */

#include <uv.h>

#include "engine/engine.h"
#include "executor/pluginlib.h"
#include "proto/codec.h"

typedef struct PluginExecutor PluginExecutor;
typedef struct PluginQueue PluginQueue;

/* TaskResult::details of this executor. */
typedef struct PluginResult {
        EqBytes result;    /* what wait and show return; lives as long as the details */
        const char *error; /* for people; NULL: none */
} PluginResult;

/* What a plugin is told of a task. Slices live as long as the task is with it. */
typedef struct PluginOrder {
        EqBytes payload, label;
        uid_t uid;
        bool retries; /* it would be tried again after a failure: on a serial queue those behind it wait for that */
} PluginOrder;

typedef struct PluginHooks {
        int (*prepare)(void *host, Task *t, PluginOrder *ret); /* 0, or negative errno: not handed over */
        /* A plugin submits, for the user of the task `by`. */
        void (*submit)(void *host, const Task *by, EqBytes queue, EqBytes payload);
        void (*opened)(void *host, Queue *q, const char *error); /* error NULL: it is in use; else it is not, and why */
        void (*ended)(void *host, Queue *q);                     /* plugin_executor_has_ended() became true */
} PluginHooks;

/* n_threads: workers at most. No thread is made before the first queue is added. 0 or negative errno. */
int plugin_executor_new(uv_loop_t *loop, Engine *engine, unsigned n_threads, const PluginHooks *hooks, void *host,
                        PluginExecutor **ret);
/* Closes all plugins, and ends what they have in the ways that they say; blocks until they are through. NULL is fine. */
void plugin_executor_close(PluginExecutor *x);
/* After that, and after its pool is gone. Run the loop once more after it. Returns NULL; NULL is fine. */
PluginExecutor *plugin_executor_free(PluginExecutor *x);
Executor *plugin_executor(PluginExecutor *x);
void plugin_executor_set_threads(PluginExecutor *x, unsigned n_threads);

typedef struct PluginSetup {
        PluginLibrary *library; /* counted */
        const char *text;       /* plugin_config= */
        unsigned batch_max;
} PluginSetup;

/* A queue of the pool of this executor, before it has tasks: its plugin is opened, and until then it is unserved, with reason
 * plugin. 0, -ENOMEM, -ENOSPC (too many), -EMFILE, -EAGAIN: there is no thread to be had. */
int plugin_executor_add_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup);
/* Before it is freed, or gets another executor. The plugin is closed. Also one that was not added. */
void plugin_executor_remove_queue(PluginExecutor *x, Queue *q);
/* max_active of the queue, and what its files say, may have changed. Another plugin, other text, or one that could not be
 * opened: it is closed, when what it has has ended, and opened anew. 0 or -ENOMEM: all is as before. */
int plugin_executor_change_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup);

/* Has the plugin been called with `stopped` and closed? True for queues that were not added. */
bool plugin_executor_has_ended(const Queue *q);
/* What the queue's plugin is at, and why it is not in use, for people. */
const char *plugin_executor_explain(const Queue *q);
const char *plugin_executor_thread_error(const PluginExecutor *x); /* why there is no worker; NULL: there is */
/* When t, which runs, began, and when its plugin last gave a sign of life for it; monotonic. False: it is just beginning, or ending. */
bool plugin_executor_times(const Task *t, uint64_t *ret_begun_usec, uint64_t *ret_seen_usec);
