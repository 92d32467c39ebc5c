/* SPDX-License-Identifier: MIT */
/* The store as rows of the wire: by what its threads have told, so nothing here waits for a disk. */

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "manager/durable.h"
#include "manager/view.h"

static const char *health_name(StoreHealth health) {
        static const char *const names[] = {
                [STORE_GOOD] = "good", [STORE_LOW] = "low", [STORE_FULL] = "full", [STORE_FAILED] = "failed"
        };
        return names[health];
}

int view_store(const Manager *m, StoreView *ret) {
        EqStoreStat *row = &ret->row;
        StoreStats s;
        memset(ret, 0, sizeof(*ret));
        if (!m->durable)
                return -ENOENT;
        Store *store = durable_store(m);
        store_stats(store, &s);
        EQ_SET(row, StoreStat, directory, eq_str(store_directory(store, ret->directory, sizeof(ret->directory))));
        EQ_SET(row, StoreStat, in_use, true);
        EQ_SET(row, StoreStat, health, eq_str(health_name(store_health(store))));
        if (store_health(store) > STORE_LOW)
                EQ_SET(row, StoreStat, error, eq_str(strerror(-store_error(store))));
        EQ_SET(row, StoreStat, segments, s.n_segments);
        EQ_SET(row, StoreStat, bytes, s.bytes);
        EQ_SET(row, StoreStat, live_bytes, s.live_bytes);
        EQ_SET(row, StoreStat, oldest_segment, s.oldest);
        EQ_SET(row, StoreStat, newest_segment, s.newest);
        EQ_SET(row, StoreStat, tasks, s.n_tasks);
        EQ_SET(row, StoreStat, records, s.n_records);
        EQ_SET(row, StoreStat, commits, s.n_commits);
        if (s.commits.n > 0) {
                EQ_SET(row, StoreStat, commit_p50_usec, latency_percentile(&s.commits, 50));
                EQ_SET(row, StoreStat, commit_p99_usec, latency_percentile(&s.commits, 99));
                EQ_SET(row, StoreStat, commit_max_usec, s.commits.max_usec);
        }
        EQ_SET(row, StoreStat, moved_records, s.n_moved);
        EQ_SET(row, StoreStat, moved_bytes, s.moved_bytes);
        EQ_SET(row, StoreStat, damaged, s.n_damaged);
        if (s.unread)
                EQ_SET(row, StoreStat, unread_segment, s.unread);
        EQ_SET(row, StoreStat, hints, s.n_hints);
        EQ_SET(row, StoreStat, free_bytes, s.free_bytes);
        EQ_SET(row, StoreStat, low_water, s.low_water);
        return 0;
}

void view_queue_store(const QueueRecord *q, QueueView *v) {
        StoreStats s;
        if (!durable_queue(q))
                return;
        Store *store = durable_store(q->manager);
        store_stats(store, &s);
        EQ_SET(&v->row, Queue, store_bytes, store_queue_bytes(store, q->queue->id));
        EQ_SET(&v->row, Queue, store_segments, s.n_segments);
        if (s.commits.n == 0)
                return;
        EQ_SET(&v->row, Queue, commit_p50_usec, latency_percentile(&s.commits, 50));
        EQ_SET(&v->row, Queue, commit_p99_usec, latency_percentile(&s.commits, 99));
}
