/* SPDX-License-Identifier: MIT */
#pragma once

/* The executor whose workers are threads of eqd, on which plugins run the tasks of their queues: eq-plugin(7).
 *
 * Each queue has an instance of its plugin and an execution queue (engine/xqueue.h) below the engine's. Tasks that may start
 * are handed to that ahead of their start, so that threads go on without the loop; what they have done comes up through one
 * list and an eventfd. Everything here: loop; nothing blocks, unless stated. */

#include <uv.h>

#include "engine/engine.h"
#include "engine/workers.h"
#include "executor/pluginlib.h"
#include "proto/codec.h"

enum { PLUGIN_RESERVES_MAX = 64 }; /* threads of rescuers */

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
        /* The thread that begins it stores mark_value there, before the plugin sees the task; NULL: nothing. mark_slot is the
         * host's. */
        ATOMIC(uint64_t) * mark;
        uint64_t mark_value;
        int mark_slot;
} PluginOrder;

typedef struct PluginHooks {
        int (*prepare)(void *host, Task *t, PluginOrder *ret); /* 0, or negative errno: not handed over */
        /* It was not begun: nothing is stored at its mark any more. NULL is fine. */
        void (*unprepare)(void *host, Task *t, int mark_slot);
        /* A plugin submits, for the user of the task `by`. error -ENOMEM: there is no memory for the payload, to be refused. */
        void (*submit)(void *host, const Task *by, EqBytes queue, EqBytes payload, int error);
        void (*opened)(void *host, Queue *q, const char *error); /* error NULL: it is in use; else it is not, and why */
        void (*ended)(void *host, Queue *q);                     /* plugin_executor_has_ended() became true */
        void (*left)(void *host, Pool *p);                       /* plugin_pool_is_used() became false */
} PluginHooks;

/* 0 or negative errno. */
int plugin_executor_new(uv_loop_t *loop, Engine *engine, const PluginHooks *hooks, void *host, PluginExecutor **ret);
/* Closes all plugins, and ends what they have in the ways that they say; blocks until they are through. NULL is fine. */
void plugin_executor_close(PluginExecutor *x);
/* After that, and after its pool is gone. Run the loop once more after it. Returns NULL; NULL is fine. */
PluginExecutor *plugin_executor_free(PluginExecutor *x);
Executor *plugin_executor(PluginExecutor *x);

/* ---- pools: each with threads of its own ---- */

/* p, which the engine has just made for this executor, gets threads as *params says (of which name, event and spin are
 * the executor's). None is made before the first queue is added. 0 or -ENOMEM. */
int plugin_pool_new(Pool *p, const WorkersParams *params);
void plugin_pool_set(
        Pool *p, const WorkersParams *params); /* at once; nice and stack are for threads that are made from now on */
/* Before the engine's goes; no longer used. Waits for its threads, which are idle. Fine for one that plugin_pool_new() was
 * not called for. */
void plugin_pool_free(Pool *p);
bool plugin_pool_is_used(const Pool *p);  /* there is a plugin on its threads, if only one that is being closed */
bool plugin_pool_has_none(const Pool *p); /* there is not even one */
typedef struct PluginPoolStats {
        unsigned n_workers, n_idle;
} PluginPoolStats;
PluginPoolStats plugin_pool_stats(const Pool *p);

/* Memory is short: idle threads go, each time that this is said; until it is over no more are made, and batches are half as
 * long. */
void plugin_executor_set_pressed(PluginExecutor *x, bool pressed);

/* A task that uses more CPU time than thresh_usec hogs it; the warning-th of a queue is told, and
 * again after 1, 2, 4, 8... more. 0: not counted; not told. */
void plugin_executor_set_hogs(PluginExecutor *x, uint64_t thresh_usec, uint64_t warning);
void plugin_executor_set_rescuer_nice(PluginExecutor *x, int nice); /* of those made from now on; refused: as eqd */
/* One task of q more is one; of those that have ended this is said by their threads. */
void plugin_executor_count_hog(const Queue *q);
typedef struct PluginCpu {
        uint64_t cpu_usec; /* since the queue got its executor, but for up to 10 ms of each thread */
        uint64_t n_hogs;   /* since then, too */
        uint64_t n_woken;  /* workers that were woken because who took the queue left something waiting */
} PluginCpu;
PluginCpu plugin_executor_cpu(const Queue *q);

/* How a plugin is called. */
typedef struct PluginCalls {
        unsigned batch_max;
        uint64_t batch_linger_usec;
        bool dedicated; /* a thread of its own. With max_active 1 only */
} PluginCalls;

typedef struct PluginSetup {
        PluginLibrary *library; /* counted */
        const char *text;       /* plugin_config= */
        PluginCalls calls;
} PluginSetup;

/* A queue of the pool of this executor, before it has tasks: its plugin is opened, and until then it is unserved, with reason
 * plugin. 0, -ENOMEM, -ENOSPC (too many), -EMFILE, -EAGAIN: there is no thread to be had. */
int plugin_executor_add_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup);
/* Before it is freed, or gets another executor. The plugin is closed. Also one that was not added. */
void plugin_executor_remove_queue(PluginExecutor *x, Queue *q);
/* max_active of the queue, its pool, and what its files say, may have changed. Another plugin, other text, another pool, or
 * one that could not be opened: it is closed, when what it has has ended, and opened anew. 0 or -ENOMEM: all is as before. */
int plugin_executor_change_queue(PluginExecutor *x, Queue *q, const PluginSetup *setup);

/* Has the plugin been called with `stopped` and closed? True for queues that were not added. */
bool plugin_executor_has_ended(const Queue *q);
/* What the queue's plugin is at, and why it is not in use, for people. */
const char *plugin_executor_explain(const Queue *q);
int plugin_executor_mark_slot(const Task *t); /* of t, which runs. Its mark may be stored in a moment only */
/* After it nothing is stored at the mark of t, which runs. Waits, asleep, for a thread that is just beginning it: as long as that gets
 * no CPU. So only for who cannot wait for the end of t. */
void plugin_executor_await_begin(PluginExecutor *x, const Task *t);
/* When t, which runs, began, and when its plugin last gave a sign of life for it; monotonic. False: it is just beginning, or ending. */
bool plugin_executor_times(const Task *t, uint64_t *ret_begun_usec, uint64_t *ret_seen_usec);
