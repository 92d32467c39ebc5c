/* SPDX-License-Identifier: MIT */
/*
 * engine_uv.c - libuv used well: one uv_queue_work() per busy queue, which drains the queue's list.
 *
 * uv_queue_work() may be called on the loop thread only. So producers push under the queue's mutex; the
 * push that finds the queue idle puts it on the "kicked" list and calls uv_async_send(). Two hops per
 * idle queue: loop thread, then worker; none while the queue stays busy.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "bench.h"
#include "node_cache.h"

struct Node {
        struct Node *next;
        uint64_t a, b, pad;
};

struct Queue {
        int index;
        uv_work_t work;            /* the loop thread's */
        struct Queue *next_kicked; /* under kick_lock */
        _Alignas(64) pthread_mutex_t lock;
        struct Node *head, **tail; /* under lock */
        bool scheduled;            /* under lock */
} __attribute__((aligned(128)));

static struct Queue *queues;
static uv_loop_t loop;
static uv_async_t kick;
static pthread_mutex_t kick_lock = PTHREAD_MUTEX_INITIALIZER;
static struct Queue *kicked; /* under kick_lock */

const char *eng_name(void) {
        return "libuv-queue_work";
}

/* worker thread */
static void on_work(uv_work_t *w) {
        struct Queue *q = w->data;
        struct Node *n;

        pthread_mutex_lock(&q->lock);
        n = q->head;
        q->head = NULL;
        q->tail = &q->head;
        pthread_mutex_unlock(&q->lock);

        while (n) {
                struct Node *next = n->next;

                bench_task(q->index, n->a, n->b);
                node_free(n);
                n = next;
        }
}

/* loop thread */
static void on_after_work(uv_work_t *w, int status) {
        struct Queue *q = w->data;
        bool more;

        (void)status;
        pthread_mutex_lock(&q->lock);
        more = q->head;
        if (!more)
                q->scheduled = false;
        pthread_mutex_unlock(&q->lock);
        if (more)
                uv_queue_work(&loop, &q->work, on_work, on_after_work);
}

/* loop thread */
static void on_kick(uv_async_t *unused) {
        struct Queue *q;

        (void)unused;
        pthread_mutex_lock(&kick_lock);
        q = kicked;
        kicked = NULL;
        pthread_mutex_unlock(&kick_lock);

        while (q) {
                struct Queue *next = q->next_kicked;

                uv_queue_work(&loop, &q->work, on_work, on_after_work);
                q = next;
        }
}

void eng_submit(int queue, uint64_t a, uint64_t b) {
        struct Queue *q = &queues[queue];
        struct Node *n = node_alloc(sizeof(*n));
        bool was_scheduled;

        n->a = a;
        n->b = b;
        n->next = NULL;
        pthread_mutex_lock(&q->lock);
        *q->tail = n;
        q->tail = &n->next;
        was_scheduled = q->scheduled;
        q->scheduled = true;
        pthread_mutex_unlock(&q->lock);
        if (was_scheduled)
                return;

        pthread_mutex_lock(&kick_lock);
        q->next_kicked = kicked;
        kicked = q;
        pthread_mutex_unlock(&kick_lock);
        uv_async_send(&kick);
}

static void *loop_thread(void *unused) {
        (void)unused;
        uv_run(&loop, UV_RUN_DEFAULT);
        return NULL;
}

void eng_init(int n_queues, int n_workers) {
        char size[16];
        pthread_t t;

        snprintf(size, sizeof(size), "%d", n_workers);
        setenv("UV_THREADPOOL_SIZE", size, 1);
        if (uv_loop_init(&loop) || uv_async_init(&loop, &kick, on_kick))
                abort();

        queues = aligned_alloc(128, sizeof(*queues) * n_queues);
        if (!queues)
                abort();
        memset(queues, 0, sizeof(*queues) * n_queues);
        for (int i = 0; i < n_queues; i++) {
                queues[i].index = i;
                queues[i].work.data = &queues[i];
                pthread_mutex_init(&queues[i].lock, NULL);
                queues[i].tail = &queues[i].head;
        }
        if (pthread_create(&t, NULL, loop_thread, NULL))
                abort();
}

void eng_fini(void) {
}
