/* SPDX-License-Identifier: MIT */
#pragma once

/* What the two sides of the plugin executor share: plugin.c on the loop, pluginrun.c on the workers. Nobody else includes it.
 *
 * A task's way, PluginTask::word being a token that no other hand-over ever had, and the phase:
 *
 *      loop: HANDED --xqueue--> worker: TAKEN ----- ok, fail, give_back -----> RESULT --up list--> loop: FREE
 *              |                          `- defer -> DEFERRED - complete_* -----^
 *              `- taken back ----------------------------------------------------------------------> FREE
 *
 * Each phase is left by one compare-and-swap, so a task is begun or taken back, and has one result, whoever tries. Its memory
 * is kept by up to three: the loop until it has settled it, the execution queue until it releases it, and the call of
 * execute() that took it, so that a plugin may ask twice. */

#include "engine/xqueue.h"
#include "executor/plugin.h"

enum { PLUGIN_PHASE_BITS = 3 };

typedef enum PluginPhase { PLUGIN_FREE, PLUGIN_HANDED, PLUGIN_TAKEN, PLUGIN_DEFERRED, PLUGIN_RESULT } PluginPhase;

typedef enum UpKind { UP_TASK, UP_SUBMIT, UP_OPENED, UP_BROKEN, UP_CLOSED, UP_WORKERS } UpKind;

/* What goes up to the loop; embedded in what it is about. */
typedef struct Up {
        InboxNode node; /* PluginExecutor::up; first */
        UpKind kind;
} Up;

typedef struct PluginTask {
        XTask xtask;         /* first */
        eq_plugin_task view; /* what the plugin sees */
        Up up;
        ATOMIC(uint64_t) word; /* token, phase */
        ATOMIC(uint64_t) touched_usec;
        ATOMIC(uint64_t) begun_usec; /* 0: it has not */
        ATOMIC(unsigned) n_refs;
        ATOMIC(bool) canceled;
        bool ordered;             /* nothing behind it may start if it does not end well */
        PluginQueue *queue;       /* as long as it is not FREE */
        Task *task;               /* the loop's */
        XTaskRef ref;             /* the loop's */
        struct PluginTask *taken; /* next that the same call has taken */

        /* Written by who makes it RESULT. */
        bool paused; /* the execution queue was, until the loop has settled this */
        TaskVerdict verdict;
        bool final;
        char *text; /* result, or error as a string; owned; NULL: none */
        size_t len;
} PluginTask;

typedef struct PluginSubmit {
        Up up;
        PluginTask *by;
        uint64_t token; /* of `by` */
        char queue[EQ_NAME_MAX + 1];
        size_t len;
        char payload[];
} PluginSubmit;

typedef enum PluginState {
        PLUGIN_OPENING,
        PLUGIN_OPEN,
        PLUGIN_FAILED, /* could not be opened, or does not do what a plugin has to */
        PLUGIN_CLOSING,
        PLUGIN_CLOSED,
} PluginState;

struct PluginQueue {
        PluginExecutor *executor;
        List link;    /* PluginExecutor::queues */
        Queue *queue; /* the loop's; NULL: removed, this goes once it is closed */
        PluginState state;
        PluginLibrary *library;      /* counted */
        PluginLibrary *next_library; /* to be opened once it is closed; NULL: none */
        char *text, *next_text;
        unsigned batch_max, next_batch_max;
        uint64_t id; /* of the execution queue */
        ATOMIC(uint32_t) max_active;
        char name[EQ_NAME_MAX + 1];

        /* The workers'. */
        XTask open_task;                    /* the first of an execution queue: opens the plugin */
        Up up_opened, up_broken, up_closed; /* each is up once at most in the life of an instance */
        bool is_open;
        void *instance;
        const eq_plugin *plugin;
        ATOMIC(unsigned) n_empty; /* calls in a row that took nothing */
        ATOMIC(bool) is_broken;   /* UP_BROKEN was sent */
        int open_result;
        char error[EQ_PLUGIN_MESSAGE_MAX + 1];
};

struct PluginExecutor {
        Executor executor; /* first: what the engine knows */
        Engine *engine;
        uv_loop_t *loop;
        Pool *pool; /* borrowed; known from the first queue on */
        const PluginHooks *hooks;
        void *host;
        XQueues xqueues;
        bool has_xqueues;
        Slab *tasks;
        Workers *workers; /* NULL before the first queue */
        unsigned n_threads;
        List queues; /* of PluginQueue::link; owned */
        uint64_t last_token;
        bool freeing;

        Inbox up; /* without an owner */
        Collected collected;
        int event_fd;    /* -1 before the first queue */
        uv_poll_t *poll; /* owned by the loop once closed */

        Up up_workers;
        ATOMIC(bool) workers_told;
        ATOMIC(int) create_error; /* negative errno of the last creation; 0: it went well */
        char thread_error[128];   /* the loop's; empty: there are threads */
};

extern const XQueueOps plugin_xqueue_ops; /* of a PluginQueue */
extern const eq_plugin_api plugin_api;

static inline PluginPhase plugin_phase(uint64_t word) {
        return (PluginPhase)(word & ((1U << PLUGIN_PHASE_BITS) - 1));
}
static inline uint64_t plugin_word(uint64_t token, PluginPhase phase) {
        return token << PLUGIN_PHASE_BITS | (uint64_t)phase;
}

/* Puts it on the list for the loop, which then owns it, and wakes the loop if the list was empty. Any thread, never blocks. */
void plugin_up(PluginExecutor *x, Up *up, UpKind kind);
void plugin_task_unref(PluginTask *p); /* any thread */
/* A deferred task that its plugin will never complete. False: it has. Any thread. */
bool plugin_task_abandon(PluginTask *p, const char *why);
