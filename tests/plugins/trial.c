/* SPDX-License-Identifier: MIT */
/* The plugin that the tests load, well-behaved or not, as the first word of a payload or of plugin_config= says. Built
 * several times: with TRIAL_ABI, TRIAL_NO_SYMBOL, TRIAL_NO_EXECUTE, TRIAL_FLAGS it is no good from the start. */

#include "proto/eq-plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef TRIAL_ABI
#define TRIAL_ABI EQ_PLUGIN_ABI
#endif
#ifndef TRIAL_FLAGS
#define TRIAL_FLAGS EQ_PLUGIN_DEFERS
#endif

enum { BATCH_MAX = 256 };

typedef struct Trial {
        const eq_plugin_api *api;
        eq_plugin_host *host;
        char mode[64];
        atomic_int n_inside;
        uint64_t max_active;
        int log_fd; /* what happens, for tests that read along; -1: nobody does */
} Trial;

/* A line to the pipe that the test gave. */
static void say(Trial *p, const char *what, unsigned long seq) {
        char line[64];
        int n = snprintf(line, sizeof(line), "%s %lu\n", what, seq);
        if (p->log_fd >= 0 && write(p->log_fd, line, (size_t)n) < 0)
                abort();
}

/* Waits until the test writes a byte to the descriptor that follows the log's. */
static void wait_for_test(Trial *p, int fd) {
        char c;
        while (read(fd, &c, 1) < 0 && errno == EINTR)
                ;
}

/* 3 ms of CPU time. */
static void burn(void) {
        struct timespec now, begun;
        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
        do
                (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        while ((now.tv_sec - begun.tv_sec) * 1000000000L + now.tv_nsec - begun.tv_nsec < 3000000);
}

/* Until the test writes to the FIFO of that name, in one system call. */
static void wait_for_fifo(const eq_plugin_task *t) {
        char path[256], c;
        snprintf(path, sizeof(path), "%.*s", (int)t->payload_len - 5, (const char *)t->payload + 5);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 || read(fd, &c, 1) != 1)
                abort();
        (void)close(fd);
}

/* The result says the stack in KiB, the nice level and the name of the thread that it is on. */
static void describe_thread(const eq_plugin_api *api, const eq_plugin_task *t) {
        pthread_attr_t attr;
        size_t stack_bytes;
        char name[16], text[64];
        if (pthread_getattr_np(pthread_self(), &attr) != 0 || pthread_attr_getstacksize(&attr, &stack_bytes) != 0 ||
            pthread_getname_np(pthread_self(), name, sizeof(name)) != 0)
                abort();
        (void)pthread_attr_destroy(&attr);
        int n = snprintf(text, sizeof(text), "%zu %d %s", stack_bytes / 1024,
                         getpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid)), name);
        (void)api->ok(t, text, (size_t)n);
}

static bool is(const eq_plugin_task *t, const char *word) {
        return t->payload_len >= strlen(word) && memcmp(t->payload, word, strlen(word)) == 0;
}

static int trial_open(const eq_plugin_api *api, eq_plugin_host *host, const eq_plugin_config *config, void **ret) {
        Trial *p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->api = api;
        p->host = host;
        p->log_fd = -1;
        p->max_active = config->max_active;
        snprintf(p->mode, sizeof(p->mode), "%s", config->text);
        if (strncmp(p->mode, "log=", 4) == 0)
                p->log_fd = atoi(p->mode + 4);
        if (strcmp(p->mode, "open-fails") == 0) {
                snprintf(config->error, config->error_size, "told to fail");
                free(p);
                return -EIO;
        }
        say(p, "open", 0);
        *ret = p;
        return 0;
}

typedef struct Deferred {
        const eq_plugin_api *api;
        eq_plugin_completion completion;
} Deferred;

static void *complete_later(void *arg) {
        const Deferred *d = arg;
        (void)d->api->complete_ok(d->completion, "later", 5);
        return NULL;
}

static void defer(Trial *p, const eq_plugin_task *t) {
        Deferred d = { .api = p->api };
        pthread_t thread;
        if (p->api->defer(t, &d.completion) < 0) {
                (void)p->api->fail(t, "may not defer", false);
                return;
        }
        if (is(t, "defer-for-ever"))
                return;
        if (is(t, "defer-at-once")) {
                (void)p->api->complete_ok(d.completion, "now", 3);
                if (p->api->complete_ok(d.completion, "now", 3) != -ESTALE)
                        abort();
                return;
        }
        if (pthread_create(&thread, NULL, complete_later, &d) == 0)
                (void)pthread_join(thread, NULL);
}

static void do_one(Trial *p, eq_plugin_batch *b, const eq_plugin_task *t) {
        static const char big[EQ_PLUGIN_RESULT_MAX + 1];
        const eq_plugin_api *api = p->api;
        if (is(t, "silent"))
                return;
        if (is(t, "die") && (t->attempt > 1 || is(t, "die-at-once")))
                (void)kill(getpid(), SIGKILL);
        else if (is(t, "die-after-return"))
                (void)api->give_back(b, t);
        else if (is(t, "die-after-failure"))
                (void)api->fail(t, "told to fail", false);
        if (is(t, "fail"))
                (void)api->fail(t, "told to fail", is(t, "fail-final"));
        else if (is(t, "give-back") && t->attempt == 1)
                (void)api->give_back(b, t);
        else if (is(t, "too-big"))
                (void)api->ok(t, big, sizeof(big));
        else if (is(t, "defer"))
                defer(p, t);
        else if (is(t, "wait"))
                wait_for_test(p, p->log_fd + 1);
        else if (is(t, "fifo "))
                wait_for_fifo(t);
        else if (is(t, "chain "))
                (void)api->submit(t, (const char *)t->payload + 6, "chained", 7);
        else if (is(t, "deep ")) { /* "deep QUEUE\0N": a chain of N more; N is a byte */
                char next[64];
                size_t n = t->payload_len < sizeof(next) ? t->payload_len : sizeof(next);
                memcpy(next, t->payload, n);
                if (next[n - 1]-- > 0)
                        (void)api->submit(t, next + 5, next, n);
        } else if (is(t, "thread"))
                describe_thread(api, t);
        else if (is(t, "burn"))
                burn();
        else if (is(t, "nap"))
                (void)poll(NULL, 0, 3);
        else if (is(t, "block")) { /* without a sign of life */
                while (!api->is_canceled(t))
                        (void)poll(NULL, 0, 1);
                (void)api->fail(t, "canceled", false);
        } else if (is(t, "until-canceled")) {
                while (!api->is_canceled(t))
                        api->touch(t);
                (void)api->fail(t, "canceled", false);
        }
        if (is(t, "twice") && (api->ok(t, "1", 1) < 0 || api->ok(t, "2", 1) != -EALREADY))
                abort();
        (void)api->ok(t, t->payload, t->payload_len); /* the echo; of those above that have a result: refused */
}

static void trial_execute(void *instance, const eq_plugin_meta *meta, eq_plugin_batch *b) {
        Trial *p = instance;
        const eq_plugin_task *t, *batch[BATCH_MAX];
        size_t n = 0;
        if (atomic_fetch_add(&p->n_inside, 1) >= (int)p->max_active)
                abort();
        if (p->api->is_stopped(b))
                say(p, "stopped", 0);
        if (strcmp(p->mode, "takes-nothing") != 0)
                while (n < BATCH_MAX && (t = p->api->next(b))) {
                        say(p, "task", (unsigned long)t->seq);
                        batch[n++] = t;
                        if (!is(t, "batch") && !is(t, "together"))
                                do_one(p, b, batch[--n]);
                }
        if (n > 0 && is(batch[0], "together"))
                say(p, "batch", n);
        for (size_t i = 0; i < n; i++) /* results at the end, as one sync for all would have it */
                (void)p->api->ok(batch[i], NULL, 0);
        atomic_fetch_sub(&p->n_inside, 1);
}

static void trial_close(void *instance) {
        Trial *p = instance;
        say(p, "close", 0);
        free(p);
}

#ifdef TRIAL_NO_SYMBOL
#define eq_plugin_entry eq_plugin_other
extern const eq_plugin eq_plugin_other __attribute__((visibility("default")));
#endif
const eq_plugin eq_plugin_entry = {
        .abi = TRIAL_ABI,
        .flags = TRIAL_FLAGS,
        .name = "trial",
        .open = trial_open,
#ifndef TRIAL_NO_EXECUTE
        .execute = trial_execute,
#endif
        .close = trial_close,
};
