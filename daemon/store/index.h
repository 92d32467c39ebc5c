/* SPDX-License-Identifier: MIT */
#pragma once

/* Where the records are that still say something: the one of each queue, and of each task its TASK and the newest STATE or
 * END. Built by reading the log from its oldest segment on, kept up to date by each record that is written. What it does not
 * name is dead, and compaction leaves it behind.
 *
 * Compaction moves records behind newer ones, so a task may be named before its TASK or its queue is read: such entries
 * are incomplete, and dropped when reading is over. Not thread-safe: the store thread's. */

#include <pthread.h>
#include <stdatomic.h>

#include "base/hash.h"
#include "base/seqtable.h"
#include "store/livemap.h"
#include "store/record.h"

enum { STORE_NAME_MAX = 31 };

/* segment 0: nowhere. Every pending task costs one; think twice before it grows. */
typedef struct IndexPlace {
        uint32_t segment, at, size;
} IndexPlace;

typedef struct IndexQueue {
        UT_hash_handle hh;      /* Index::queues */
        UT_hash_handle hh_gone; /* Index::gone */
        uint64_t id, last_seq;
        _Atomic uint64_t live_bytes; /* others may look: see Index::table_lock */
        IndexPlace place;            /* of QUEUE or GONE */
        bool is_gone;                /* and no queue of its name has been made since */
        SeqTable tasks;              /* of IndexPlace: of its TASK */
        SeqTable lasts;              /* of IndexPlace: of its STATE or END. One without a task is incomplete */
        char name[STORE_NAME_MAX + 1];
} IndexQueue;

typedef struct Index {
        IndexQueue *queues; /* uthash by id; owned */
        IndexQueue *gone;   /* uthash by name: of the queues, those that are gone */
        IndexQueue *latest; /* that was changed: the next change mostly is of it too. Borrowed; NULL: none */
        LiveMap live;       /* of all IndexPlaces that are somewhere */
        uint64_t live_bytes;
        size_t n_tasks;
        pthread_mutex_t *table_lock; /* held while `queues` itself is changed; borrowed. NULL: nobody else looks */
} Index;
#define INDEX_NULL                                                                                                     \
        { 0 }

void index_done(Index *x);
/* r is at `at` of `segment`. 0; -ENOMEM: the index is incomplete from now on; -EBADMSG: r makes no sense, nothing was
 * changed. */
int index_apply(Index *x, const Record *r, uint32_t segment, uint32_t at);
/* Has the processor fetch what index_apply() of r needs: of the next ones, while the memory is slow. */
void index_prefetch(const Index *x, const Record *r);
/* Does what is at `at` of the oldest segment still say something? *ret_last_seq, of a QUEUE or GONE: what it has to say
 * now. */
bool index_is_live(const Index *x, const Record *r, uint32_t segment, uint32_t at, uint64_t *ret_last_seq);
void index_drop_segment(Index *x, uint32_t segment); /* it is gone, and nothing in it was live */
void index_drop_incomplete(Index *x);                /* reading is over */

IndexQueue *index_queue(const Index *x, uint64_t id); /* NULL: none */
/* Bytes of what lives of that queue; 0: there is none. Any thread, with table_lock: waits for no more than one look-up. */
uint64_t index_queue_bytes(const Index *x, uint64_t id);
/* The queue has given seq, whatever has become of that task. Makes the queue, incomplete, if need be. 0 or -ENOMEM. */
int index_saw_seq(Index *x, uint64_t queue, uint64_t seq);
void index_drop_task(Index *x, IndexQueue *q, uint64_t seq); /* it cannot be read */
void index_drop_last(Index *x, IndexQueue *q, uint64_t seq); /* what has become of it cannot */

/* A part of a segment in which no record can be told. Slow: it looks at all tasks. */
typedef struct IndexSpan {
        uint32_t segment, at, end;
} IndexSpan;
bool index_names_span(const Index *x, const IndexSpan *span);
void index_drop_span(Index *x, const IndexSpan *span);
