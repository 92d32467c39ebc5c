/* SPDX-License-Identifier: MIT */
#pragma once

/* What the watchdog thread may see of the engine: a cell per pool, queue, slot and part of the daemon. The loop writes how
 * things stand with plain relaxed stores as they change; engine/stall.h looks at them from its own thread.
 *
 * Law of memory. Cells are type-stable: a table only grows, a cell never moves, and one that is given back is used again. So
 * the reader may look at any cell at any time. Each field is an atomic of its own, written by the loop only, read relaxed:
 * two fields of a cell may be of two moments, and what is judged by them must hold for a while before it counts. Where a
 * mixture would mislead there is an order:
 *   - a cell is published by Table::n (release), so its constant fields are there;
 *   - WatchQueue::id is 0 while the other fields are changed for a new queue; a reader whose id is the same before and
 *     after has read one queue;
 *   - WatchSlot::started_usec is 0 between two tasks, and released after queue and seq: a reader that finds it the same
 *     before and after has read one task.
 * No read-modify-write, no lock, no fence on the side of the loop (a release store is a plain one on x86). */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/workercount.h"
#include "proto/eq-types.h"

enum {
        WATCH_NAME_WORDS = 4,
        WATCH_CHUNK = 256, /* cells of the first chunk; the others double the table */
        WATCH_CHUNKS_MAX = 14,
        WATCH_PARTS_MAX = 4,
};

/* Names of queues and pools, EQ_NAME_MAX bytes and a NUL. */
typedef struct WatchName {
        _Atomic uint64_t words[WATCH_NAME_WORDS];
} WatchName;

typedef enum HungTask { HUNG_TASK_NONE, HUNG_TASK_LIFE, HUNG_TASK_WALL } HungTask;

/* How long something has been stalled, as the reader keeps it. Of the watchdog thread alone. */
typedef struct WatchEpisode {
        uint64_t number;     /* 0: not stalled */
        uint64_t since_usec; /* of the last progress before it */
        uint64_t told_usec;  /* last report */
} WatchEpisode;

typedef struct WatchPool {
        WatchName name;                                                             /* constant */
        _Atomic uint64_t n_slots_max, blocked_until_usec, blocked_reason, short_of; /* as of Pool */
        _Atomic uint64_t stall_usec;                                                /* threshold; 0: off */
        _Atomic int64_t nice;           /* of what runs its tasks, as it was configured */
        _Atomic uint64_t n_threads_max; /* what runs its tasks, where slots are no bound; 0: the slots do */
        _Atomic uint64_t n_slots;       /* as of Pool */
        _Atomic bool calls;             /* a rescuer is at work for it, or called */
        WorkersCount threads;           /* those themselves; not the loop's */
        _Atomic bool used;

        struct { /* watchdog thread only */
                uint64_t progress_usec;
                bool waited;   /* it could start something at the last look */
                bool watched;  /* it had a threshold then */
                uint64_t tick; /* the numbers below are of this one */
                uint64_t n_busy, n_startable;
                uint64_t n_taken, n_taken_before; /* its slots with a task, begun or not; at the look before */
                struct WatchQueue *waiting;       /* a queue that could start something: the one that waits longest */
                struct WatchSlot *stale;          /* its task in flight that showed life longest ago */
                WatchEpisode episode;
        } judge;
} WatchPool;

typedef struct WatchQueue {
        _Atomic uint64_t
                n_ready; /* eligible, not behind a back-off, in no slot; of the others the slots say it. Written most, so first */
        _Atomic uint64_t id;     /* 0: none */
        _Atomic uint64_t n_ends; /* changes when tasks end */
        _Atomic uint64_t max_active;
        _Atomic bool paused;
        bool in_judgement;         /* watchdog thread only: it waited at the last look, or is stalled */
        _Atomic uint8_t hung_task; /* HungTask */
        _Atomic uint8_t unserved;  /* eq_reason, as of Queue */
        _Atomic(WatchPool *) pool;
        _Atomic uint64_t stall_usec, expected_usec; /* stall_thresh, expected_runtime */
        WatchName name;

        struct { /* watchdog thread only */
                uint64_t id, n_ends, tick;
                uint64_t n_running, started_usec; /* in flight at this look, and when the youngest began */
                uint64_t n_handed;                /* with the executor, and not begun */
                uint64_t progress_usec;
                bool waited;  /* something was startable, or could not be started, at the tick before */
                bool watched; /* it had a threshold then */
                struct WatchSlot *stale;
                struct WatchQueue *next_busy;
                WatchEpisode episode;
        } judge;
} WatchQueue;

#define WATCH_TID_RESCUED (UINT64_C(1) << 32)

/* What an executor whose tasks tell of themselves knows of one. In memory that stays what it is as long as the watch does. */
typedef struct WatchLife {
        _Atomic uint64_t begun_usec; /* 0: it was handed over and has not begun: so it waits, and is not in flight */
        _Atomic uint64_t seen_usec;  /* its last sign of life; 0: none */

        /* Of a task that a thread of eqd runs; that thread's. */
        _Atomic uint64_t tid;                    /* with WATCH_TID_RESCUED if it is a rescuer's; 0: none is at it */
        _Atomic(const struct WatchLife *) first; /* of tasks that it holds together, to share CPU time; NULL: alone */
        _Atomic uint64_t n_held;                 /* of `first`: so many */
        _Atomic uint64_t hog_usec;               /* begun_usec of what was counted as a CPU hog. Also the watchdog's */
} WatchLife;

typedef struct WatchSlot {
        _Atomic uint64_t started_usec; /* 0: idle */
        _Atomic(WatchQueue *) queue;
        _Atomic uint64_t seq;
        _Atomic uint64_t
                deadline_usec; /* it is past helping then: it was killed and is still there. UINT64_MAX, which an
                                         * executor that changes it restores when it starts the next task */
        _Atomic(WatchPool *) pool;
        _Atomic(WatchLife *) life; /* NULL: it begins when it starts, and shows life by CPU time. Reset with the slot */
        WatchLife own_life;        /* for executors that have no better place */
        _Atomic bool reserve;      /* a rescuer's: it does not make the pool full */
        _Atomic uint64_t index, pid; /* Slot::index; the process, for executors that have one, 0: not known */

        struct { /* watchdog thread only */
                uint64_t started_usec, seq;
                uint64_t begun_usec; /* as of WatchLife; else started_usec */
                WatchQueue *queue;
                uint64_t life_usec;             /* its last sign of life */
                uint64_t cpu_usec, looked_usec; /* CPU time when it was last looked at, UINT64_MAX: not yet. With a
                                                 * WatchLife that of its thread, at the first look */
                uint64_t hung_usec;             /* when it was last reported as hung; 0: not */
        } judge;
} WatchSlot;

/* A part of the daemon that answers when it is asked: the spawner, later the store. */
typedef struct WatchPart {
        _Atomic(const char *) name; /* a literal; NULL: no such part */
        eq_reason reason;           /* what its standing still does to tasks; constant once there is a name */
        _Atomic uint64_t n_asked, n_answered;

        struct { /* watchdog thread only */
                uint64_t n_answered, progress_usec;
                bool waited;
                WatchEpisode episode;
        } judge;
} WatchPart;

typedef struct WatchTable {
        _Atomic(void *) chunks[WATCH_CHUNKS_MAX];
        _Atomic size_t n;
        size_t cell_size;
        void **spare; /* cells that were given back; loop only. Room for all cells that there are */
        size_t n_spare, cap_spare;
} WatchTable;

typedef struct Watch {
        WatchTable pools, queues, slots;
        WatchPart parts[WATCH_PARTS_MAX];
} Watch;

/* ---- loop ---- */

void watch_init(Watch *w);
void watch_deinit(Watch *w); /* no reader may be left. Fine for a zeroed one */

/* New cells, all zero but for what is said. NULL: no memory. */
WatchPool *watch_pool_new(Watch *w, const char *name, size_t n_slots_max);
WatchSlot *watch_slot_new(Watch *w, WatchPool *pool, size_t index);
WatchQueue *watch_queue_new(Watch *w);
/* The queue is there: id and name are shown. */
void watch_queue_publish(WatchQueue *c, uint64_t id, const char *name, WatchPool *pool);
void watch_queue_free(Watch *w, WatchQueue *c); /* given back; NULL is fine */
void watch_pool_free(Watch *w, WatchPool *c);
void watch_slot_free(Watch *w, WatchSlot *c);
/* Names a part, whose n_asked and n_answered the caller then moves. */
WatchPart *watch_part_add(Watch *w, const char *name, eq_reason reason);

/* The thread of eqd that is at it, 0: none is; life may be NULL. Any thread. */
static inline uint64_t watch_life_tid(const WatchLife *life, bool *ret_rescued) {
        uint64_t tid = life ? atomic_load_explicit(&life->tid, memory_order_relaxed) : 0;
        *ret_rescued = tid & WATCH_TID_RESCUED;
        return tid & ~WATCH_TID_RESCUED;
}

/* Was that task, which began then, counted as a hog before? It is now. Any thread. */
static inline bool watch_hog_is_known(WatchLife *l, uint64_t begun_usec) {
        return atomic_exchange(&l->hog_usec, begun_usec) == begun_usec;
}

#define WATCH_STORE(field, value) atomic_store_explicit(&(field), value, memory_order_relaxed)
/* What the loop writes as things change. An engine without it, which is only for tests/bench/watchcost.py, shows what one costs
 * that is not watched. */
#ifndef EQD_UNWATCHED
#define WATCH_IS_ON true
#define WATCH_SET(field, value) WATCH_STORE(field, value)
#define WATCH_PUBLISH(field, value) atomic_store_explicit(&(field), value, memory_order_release)
#else
#define WATCH_IS_ON false
#define WATCH_SET(field, value) ((void)sizeof(field), (void)(value))
#define WATCH_PUBLISH(field, value) ((void)sizeof(field), (void)(value))
#endif
#define WATCH_GET(field) atomic_load_explicit(&(field), memory_order_relaxed)

/* ---- any thread ---- */

size_t watch_table_n(const WatchTable *t);
void *watch_table_at(const WatchTable *t, size_t i); /* i < watch_table_n() */
uint64_t watch_pool_limit(const WatchPool *p);       /* so many of its tasks are in flight at most */
/* ret: EQ_NAME_MAX + 1 bytes; a name while the cell changes hands may be of neither. */
void watch_name_get(const WatchName *n, char ret[EQ_NAME_MAX + 1]);
