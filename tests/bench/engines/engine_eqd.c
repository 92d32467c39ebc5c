/* SPDX-License-Identifier: MIT */
/* engine_eqd.c - eqd's execution queue, with everything that comes with it: id look-up, admission, cancel, two lanes. */
#include "engine/xqueue.h"

#include <sched.h>
#include <stdlib.h>

#include "bench.h"

struct Item {
        XTask task;
        uint64_t a, b;
};

static XQueues queues;
static Workers *workers;
static Slab *slab;
static uint64_t *ids;

const char *eng_name(void) {
        return "eqd";
}

static void execute(void *meta, XBatch *b) {
        int queue = (int)(intptr_t)meta;

        for (XTask *t; (t = xbatch_next(b));) {
                struct Item *item = (struct Item *)t;

                bench_task(queue, item->a, item->b);
        }
}

void eng_submit(int queue, uint64_t a, uint64_t b) {
        struct Item *item = slab_alloc(slab);

        if (!item)
                abort();
        item->a = a;
        item->b = b;
        while (xqueue_submit(&queues, ids[queue], &item->task, sizeof(a) + sizeof(b), 0, NULL) != 0)
                sched_yield();
}

void eng_init(int n_queues, int n_workers) {
        static const XQueueOps ops = { .execute = execute };
        WorkersParams params = WORKERS_PARAMS_DEFAULT;
        XQueueOptions options = XQUEUE_OPTIONS_DEFAULT;

        params.min = params.max = (unsigned)n_workers;
        if (workers_new(&params, &workers) < 0 || slab_new(sizeof(struct Item), 16, false, &slab) < 0 ||
            xqueues_init(&queues) < 0 || !(ids = calloc((size_t)n_queues, sizeof(*ids))))
                abort();
        options.workers = workers;
        options.slab = slab;
        options.max_tasks = XQUEUE_TASKS_MAX; /* the others are unbounded */
        options.max_bytes = XQUEUE_BYTES_MAX;
        for (int i = 0; i < n_queues; i++)
                if (xqueue_start(&queues, &options, &ops, (void *)(intptr_t)i, &ids[i]) < 0)
                        abort();
}

void eng_fini(void) {
}
