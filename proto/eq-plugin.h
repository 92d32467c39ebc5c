/* SPDX-License-Identifier: MIT */
#pragma once

/* What a plugin of eqd is: a shared object that runs the tasks of a queue on worker threads inside eqd. Installed; see
 * eq-plugin(7). A plugin includes this and links to nothing of eqd: it exports one constant,
 *
 *      const eq_plugin eq_plugin_entry = { .abi = EQ_PLUGIN_ABI, .name = "...", .open = ..., ... };
 *
 * and is given a table of functions. The number in the first member of both says what the rest looks like; members are only
 * added at their ends. Tables, texts and tasks that a plugin is given are eqd's, read only.
 *
 * Functions return 0 or a negative errno. All functions of the table may be called from any thread unless stated, and none
 * blocks. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EQ_PLUGIN_ABI 1
#define EQ_PLUGIN_RESULT_MAX 65536 /* bytes of a result */
#define EQ_PLUGIN_MESSAGE_MAX 255  /* bytes of an error message; longer ones are cut */

typedef struct eq_plugin_host eq_plugin_host;   /* eqd's side of an instance */
typedef struct eq_plugin_batch eq_plugin_batch; /* the iterator of one call of execute() */

/* A task that execute() took. Valid until execute() returns; of a deferred one until it is completed. */
typedef struct eq_plugin_task {
        uint64_t queue, seq; /* its id, for ever */
        const void *payload;
        size_t payload_len;
        const char *label; /* not terminated; NULL: none */
        size_t label_len;
        uint32_t uid;     /* who submitted it */
        uint32_t attempt; /* from 1 */
} eq_plugin_task;

/* A deferred task. Two words, to be copied. One that is stale is refused, and never another task's. */
typedef struct eq_plugin_completion {
        void *task;
        uint64_t token;
} eq_plugin_completion;

typedef struct eq_plugin_api {
        uint32_t abi;  /* EQ_PLUGIN_ABI of eqd */
        uint32_t size; /* bytes of this table */

        /* ---- for execute(), on its thread ---- */

        /* The next task; it has begun, and cannot be canceled any more. NULL: no more in this call, return. What has not been
         * taken stays in the queue, pending. */
        const eq_plugin_task *(*next)(eq_plugin_batch *b);
        /* May next() have another one at once? A hint, a moment old. */
        bool (*more)(const eq_plugin_batch *b);
        /* This is the last call, it has no tasks: finish what is open. close() follows. */
        bool (*is_stopped)(const eq_plugin_batch *b);
        /* t was not begun after all: back to its place, to be tried again 100 ms later; that is no failure of the task. next()
         * gives NULL from then on. -EALREADY: it has a result, or was deferred. */
        int (*give_back)(eq_plugin_batch *b, const eq_plugin_task *t);

        /* ---- results; each task gets one, before execute() returns or by its completion ---- */

        /* t is DONE. result: what `eqctl wait` and `show` return, copied; may be NULL. -EALREADY: it has a result, or was
         * deferred; -E2BIG: more than EQ_PLUGIN_RESULT_MAX; -ENOMEM. After the last two it has none yet. */
        int (*ok)(const eq_plugin_task *t, const void *result, size_t len);
        /* t failed; retries of the task and the queue apply, unless `final`. message: one line of UTF-8 for people, copied. */
        int (*fail)(const eq_plugin_task *t, const char *message, bool final);

        /* ---- tasks that end later: only with EQ_PLUGIN_DEFERS ---- */

        /* t ends when *ret is completed, maybe on another thread, maybe before this returns. It runs until then, and counts for
         * max_active. -EALREADY, as above; -EPERM: the plugin did not say that it defers. */
        int (*defer)(const eq_plugin_task *t, eq_plugin_completion *ret);
        /* As ok() and fail(). -ESTALE: it was completed, or was ended by a cancel. */
        int (*complete_ok)(eq_plugin_completion c, const void *result, size_t len);
        int (*complete_fail)(eq_plugin_completion c, const char *message, bool final);

        /* ---- signs and questions, while the task runs ---- */

        /* It is being worked on: who asks why it takes long is told when that was last said. */
        void (*touch)(const eq_plugin_task *t);
        /* Was it asked to end (cancel of a running task, end of eqd)? Then fail() it, soon. */
        bool (*is_canceled)(const eq_plugin_task *t);
        /* A new task for the queue of that name, of the same user as t, which has not ended yet. Payload and name are copied.
         * It is accepted, or refused, after this has returned, and before t ends; a refusal is logged and changes nothing for
         * t. Hence there is no id of it here. Tasks that one thread submits keep their order. -EINVAL: no name of a queue, -E2BIG:
         * payload of more than 1 MiB, -ENOMEM, -EALREADY: t has a result.
         * Wait-free: a bounded number of own steps, whatever other threads do, and in time with the payload; no lock. System calls:
         * for memory that eqd has not got, and one to wake eqd's loop if nothing waits for it. */
        int (*submit)(const eq_plugin_task *t, const char *queue, const void *payload, size_t len);

        /* A line for eqd's log, where the queue is named before it. level: as of syslog(3). */
        void (*log)(eq_plugin_host *host, int level, const char *message);
} eq_plugin_api;

/* What open() is told. Valid during the call. */
typedef struct eq_plugin_config {
        const char *queue;   /* name */
        const char *text;    /* plugin_config= of the queue; empty: none */
        uint64_t max_active; /* 1: execute() is never called on two threads at once */
        char *error;         /* open() writes here why it failed, terminated, for people */
        size_t error_size;
} eq_plugin_config;

typedef struct eq_plugin_meta {
        const char *queue; /* name */
        eq_plugin_host *host;
} eq_plugin_meta;

enum {
        EQ_PLUGIN_DEFERS = 1 << 0, /* uses defer(); then at most max_active tasks are given out at a time */
};

typedef struct eq_plugin {
        uint32_t abi;     /* EQ_PLUGIN_ABI */
        uint32_t flags;   /* EQ_PLUGIN_* */
        const char *name; /* for people */

        /* Makes what a queue needs. api and host stay until close() has returned. Failed: the queue runs nothing, and its tasks
         * wait, until a reload. A worker thread; may block. */
        int (*open)(const eq_plugin_api *api, eq_plugin_host *host, const eq_plugin_config *config,
                    void **ret_instance);
        /* Takes tasks and does them. At most max_active calls at once; a worker thread, not always the same; may block, which
         * keeps other queues from nothing. A call that takes no task is repeated, but not for ever. */
        void (*execute)(void *instance, const eq_plugin_meta *meta, eq_plugin_batch *b);
        /* After the last execute(). Its threads have ended when it returns: the code may go. A worker thread; may block. */
        void (*close)(void *instance);
} eq_plugin;

/* The plugin exports this. */
extern const eq_plugin eq_plugin_entry __attribute__((visibility("default")));
