/* SPDX-License-Identifier: MIT */
#pragma once

/* What the two sides of the plugin executor share: plugin.c and plugininstance.c on the loop, pluginrun.c on the workers. Nobody else
 * includes it.
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

#include "engine/reserve.h"
#include "engine/watch.h"
#include "engine/xqueue.h"
#include "executor/plugin.h"

enum { PLUGIN_PHASE_BITS = 3 };

#define PLUGIN_HOGS_FREE UINT64_MAX
#define PLUGIN_READ_USEC                                                                                               \
        (10 * USEC_PER_MSEC) /* so much time in plugins is between two readings of a thread's CPU clock */

typedef enum PluginPhase { PLUGIN_FREE, PLUGIN_HANDED, PLUGIN_TAKEN, PLUGIN_DEFERRED, PLUGIN_RESULT } PluginPhase;

typedef enum UpKind { UP_TASK, UP_SUBMIT, UP_OPENED, UP_BROKEN, UP_CLOSED, UP_WORKERS, UP_HELPED } UpKind;

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
        WatchLife life;
        ATOMIC(unsigned) n_refs;
        ATOMIC(bool) canceled;
        bool ordered;            /* nothing behind it may start if it does not end well */
        PluginQueue *queue;      /* as long as it is not FREE */
        Task *task;              /* the loop's */
        ATOMIC(uint64_t) * mark; /* as in PluginOrder */
        uint64_t mark_value;
        int mark_slot;
        XTaskRef ref;             /* the loop's */
        struct PluginTask *taken; /* next that the same call has taken */

        /* Written by who makes it RESULT. */
        bool paused; /* the execution queue was, until the loop has settled this */
        TaskVerdict verdict;
        bool final;
        char *text; /* result, or error as a string; owned; NULL: none */
        size_t len;
} PluginTask;

/* What a task submits, in blocks of one size out of a Slab, as that never waits for another thread. */
enum { PLUGIN_BLOCK_BYTES = 512 };

typedef struct PluginBlock {
        struct PluginBlock *next; /* NULL: the last one */
        char bytes[PLUGIN_BLOCK_BYTES - sizeof(struct PluginBlock *)];
} PluginBlock;

typedef struct PluginSubmit {
        Up up;
        PluginTask *by;
        uint64_t token; /* of `by` */
        char queue[EQ_NAME_MAX + 1];
        PluginBlock *more; /* what of the payload is not in here; owned */
        size_t len;        /* of all */
        char payload[];    /* so much of it as a block has room for */
} PluginSubmit;
#define PLUGIN_SUBMIT_ROOM (PLUGIN_BLOCK_BYTES - offsetof(PluginSubmit, payload))

typedef enum PluginState {
        PLUGIN_OPENING,
        PLUGIN_OPEN,
        PLUGIN_FAILED, /* could not be opened, or does not do what a plugin has to */
        PLUGIN_CLOSING,
        PLUGIN_CLOSED,
} PluginState;

/* The threads of one of the engine's pools. */
typedef struct PluginPool {
        PluginExecutor *executor;
        Pool *pool;       /* whose executor_data this is */
        Workers *workers; /* NULL before the first queue */
        WorkersParams params;
        size_t n_instances; /* of plugins that run on them */

        Up up_workers;
        ATOMIC(bool) workers_told;
        ATOMIC(bool) news;        /* none is idle, or there is another reason to look whether rescuers are needed */
        ATOMIC(int) create_error; /* negative errno of the last creation; 0: it went well */
        bool has_none;            /* the loop's: there is no thread at all */
} PluginPool;

/* The reserve of a rescuer: Slot::executor_data of its slot. */
typedef struct PluginReserve {
        PluginExecutor *executor;
        Slot *slot;
        Reserve *thread;
        PluginPool *pool; /* of what it helps: stays as long; NULL: nothing */
        uint64_t id;      /* of the execution queue that it helps */
        Up up;
        ATOMIC(bool) has_begun;
} PluginReserve;

struct PluginQueue {
        PluginExecutor *executor;
        PluginPool *pool; /* on whose threads the instance runs; the queue may have been moved since */
        List link;        /* PluginExecutor::queues */
        Queue *queue;     /* the loop's; NULL: removed, this goes once it is closed */
        PluginState state;
        PluginLibrary *library;      /* counted */
        PluginLibrary *next_library; /* to be opened once it is closed; NULL: none */
        char *text, *next_text;
        PluginCalls calls, next_calls;
        uint64_t id; /* of the execution queue */
        ATOMIC(uint32_t) max_active;
        char name[EQ_NAME_MAX + 1];

        /* The workers'. */
        XTask open_task;                    /* the first of an execution queue: opens the plugin */
        Up up_opened, up_broken, up_closed; /* each is up once at most in the life of an instance */
        bool is_open;
        void *instance;
        const eq_plugin *plugin;
        ATOMIC(uint64_t) cpu_usec, n_hogs;
        ATOMIC(uint64_t) n_measured; /* so many of the next holds are measured from their begin on */
        ATOMIC(uint64_t) n_woken;    /* of instances that were closed */
        ATOMIC(unsigned) n_empty;    /* calls in a row that took nothing */
        ATOMIC(bool) is_broken;      /* UP_BROKEN was sent */
        int open_result;
        char error[EQ_PLUGIN_MESSAGE_MAX + 1];
};

struct PluginExecutor {
        Executor executor; /* first: what the engine knows */
        Engine *engine;
        uv_loop_t *loop;
        const PluginHooks *hooks;
        void *host;
        XQueues xqueues;
        bool has_xqueues;
        Slab *tasks;
        Slab *blocks;                           /* of PluginSubmit and PluginBlock */
        ATOMIC(bool) pressed;                   /* memory is short */
        ATOMIC(uint64_t) hog_usec, hog_warning; /* see plugin_executor_set_hogs(). PLUGIN_HOGS_FREE: nobody is one */
        ATOMIC(uint64_t) look_usec; /* a thread that was busy no longer has no hog, and no need to read its CPU clock */
        ATOMIC(uint32_t) begin_awaited; /* futex; 1: plugin_executor_await_begin() sleeps until a task has begun */
        int rescuer_nice;               /* the loop's */
        List queues;                    /* of PluginQueue::link; owned */
        uint64_t last_token;
        size_t n_reserves, n_helping;
        bool freeing;

        Inbox up; /* without an owner */
        Collected collected;
        int event_fd;    /* -1 before the first queue */
        uv_poll_t *poll; /* owned by the loop once closed */
};

extern const XQueueOps plugin_xqueue_ops; /* of a PluginQueue */
extern const eq_plugin_api plugin_api;

static inline PluginPhase plugin_phase(uint64_t word) {
        return (PluginPhase)(word & ((1U << PLUGIN_PHASE_BITS) - 1));
}
static inline uint64_t plugin_word(uint64_t token, PluginPhase phase) {
        return token << PLUGIN_PHASE_BITS | (uint64_t)phase;
}

static inline PluginQueue *plugin_queue(const Queue *q) {
        return q->executor_data;
}
static inline PluginTask *plugin_task(const Slot *slot) {
        return slot->executor_data;
}
static inline PluginPool *plugin_pool(const Pool *p) {
        return p->executor_data;
}

/* Puts it on the list for the loop, which then owns it, and wakes the loop if the list was empty. Any thread, never blocks. */
void plugin_up(PluginExecutor *x, Up *up, UpKind kind);
void plugin_task_unref(PluginTask *p); /* any thread */
/* With all of its blocks. NULL-safe; any thread, never waits. */
void plugin_submit_free(PluginExecutor *x, PluginSubmit *s);
/* The thread of the reserve: one task of its queue, then UP_HELPED. */
void plugin_reserve_help(void *reserve);
/* So many tasks of q more have hogged a CPU; tells of it now and then. Any thread. */
void plugin_count_hogs(PluginQueue *q, uint64_t n);
/* As the kernel warns of works that hog a CPU: is one of the numbers behind `before`, up to `now`, `first`, or one that follows
 * it by 1, 2, 4, 8... each? */
bool plugin_hog_is_told(uint64_t first, uint64_t before, uint64_t now);
/* A deferred task that its plugin will never complete. False: it has. Any thread. */
bool plugin_task_abandon(PluginTask *p, const char *why);

/* The loop's. From now on what comes up wakes it; repeatable. 0 or negative errno. */
int plugin_watch_event(PluginExecutor *x);
/* The same, and the pool has Workers. */
int plugin_pool_need_workers(PluginPool *pool);
/* One of PluginPool::n_instances is done with it. The host is told when that was the last. */
void plugin_pool_leave(PluginPool *pool);
