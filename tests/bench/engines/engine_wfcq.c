/* SPDX-License-Identifier: MIT */
/*
 * engine_wfcq.c - inbox = liburcu's wait-free concurrent queue (wfcqueue) plus a "scheduled" flag.
 *
 * Enqueue tells whether the queue was empty; only then the flag is tried. The worker splices everything
 * off, executes it, and when it finds nothing clears the flag and looks once more (a push between the
 * last splice and the clear finds the flag still set and does not schedule).
 *
 * The consumer's blocking calls of liburcu 0.13 sleep 10 ms at a time when a producer is preempted
 * inside enqueue. ThreadSanitizer reports races here: it does not see the inline assembly of liburcu.
 */
#include <stdatomic.h>
#include <string.h>

#include <urcu/wfcqueue.h>

#include "bench.h"
#include "node_cache.h"
#include "pool.h"

struct Node {
        struct cds_wfcq_node link;
        uint64_t a, b, pad;
};

struct Queue {
        struct PoolEntry entry;
        struct cds_wfcq_head head;
        _Alignas(64) struct cds_wfcq_tail tail;
        _Alignas(64) atomic_int scheduled;
} __attribute__((aligned(128)));

static struct Queue *queues;

const char *eng_name(void) {
        return "urcu-wfcq" NODE_TAG POOL_TAG;
}

void eng_submit(int queue, uint64_t a, uint64_t b) {
        struct Queue *q = &queues[queue];
        struct Node *n = node_alloc(sizeof(*n));
        struct cds_wfcq_head *head = &q->head;

        n->a = a;
        n->b = b;
        cds_wfcq_node_init(&n->link);
        if (!cds_wfcq_enqueue(head, &q->tail, &n->link) && !atomic_exchange(&q->scheduled, 1))
                pool_push(&q->entry);
}

void engine_drain(struct PoolEntry *e) {
        struct Queue *q = (struct Queue *)e;

        for (;;) {
                struct __cds_wfcq_head head;
                struct cds_wfcq_tail tail;
                struct cds_wfcq_node *link, *next;

                __cds_wfcq_init(&head, &tail);
                if (__cds_wfcq_splice_blocking(&head, &tail, &q->head, &q->tail) == CDS_WFCQ_RET_SRC_EMPTY) {
                        atomic_store(&q->scheduled, 0);
                        if (cds_wfcq_empty(&q->head, &q->tail) || atomic_exchange(&q->scheduled, 1))
                                return;
                        continue;
                }
                for (link = __cds_wfcq_first_blocking(&head, &tail); link; link = next) {
                        struct Node *n = (struct Node *)link;

                        next = __cds_wfcq_next_blocking(&head, &tail, link);
                        bench_task(e->queue, n->a, n->b);
                        node_free(n);
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
                cds_wfcq_init(&queues[i].head, &queues[i].tail);
        }
        pool_start(n_workers);
}

void eng_fini(void) {
}
