/* SPDX-License-Identifier: MIT */
/*
 * engine_mutex.c - inbox = singly linked list under one mutex per queue; the plain baseline.
 *
 * "scheduled" is true from the push that finds the queue idle until a worker finds the list empty; only
 * the push that sets it hands the queue to the pool. No drain budget: a worker stays until the list is
 * empty.
 */
#include <string.h>

#include "bench.h"
#include "node_cache.h"
#include "pool.h"

struct Node {
        struct Node *next;
        uint64_t a, b, pad;
};

struct Queue {
        struct PoolEntry entry;
        _Alignas(64) pthread_mutex_t lock;
        struct Node *head, **tail; /* under lock */
        bool scheduled;            /* under lock */
} __attribute__((aligned(128)));

static struct Queue *queues;

const char *eng_name(void) {
        return "mutex-list" NODE_TAG POOL_TAG;
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
        if (!was_scheduled)
                pool_push(&q->entry);
}

void engine_drain(struct PoolEntry *e) {
        struct Queue *q = (struct Queue *)e;

        for (;;) {
                struct Node *n;

                pthread_mutex_lock(&q->lock);
                n = q->head;
                q->head = NULL;
                q->tail = &q->head;
                if (!n)
                        q->scheduled = false;
                pthread_mutex_unlock(&q->lock);
                if (!n)
                        return;

                while (n) {
                        struct Node *next = n->next;

                        bench_task(e->queue, n->a, n->b);
                        node_free(n);
                        n = next;
                }
        }
}

void eng_init(int n_queues, int n_workers) {
        queues = aligned_alloc(128, sizeof(*queues) * n_queues);
        if (!queues)
                abort();
        memset(queues, 0, sizeof(*queues) * n_queues);
        for (int i = 0; i < n_queues; i++) {
                queues[i].entry.queue = i;
                pthread_mutex_init(&queues[i].lock, NULL);
                queues[i].tail = &queues[i].head;
        }
        pool_start(n_workers);
}

void eng_fini(void) {
}
