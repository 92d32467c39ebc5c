/* SPDX-License-Identifier: MIT */
/* Tables of cells in chunks that are never moved or freed before the end. */

#include "engine/watch.h"

#include <assert.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"

_Static_assert(WATCH_NAME_WORDS * sizeof(uint64_t) == EQ_NAME_MAX + 1, "a name fits its words");
_Static_assert((size_t)WATCH_CHUNK << (WATCH_CHUNKS_MAX - 1) >= 1 << 20, "as many cells as there can be queues");

/* Chunk k > 0 holds the cells from WATCH_CHUNK << (k - 1) on, and as many as there are before it. */
static unsigned chunk_of(size_t i) {
        return i < WATCH_CHUNK ? 0 : (unsigned)(64 - __builtin_clzll(i / WATCH_CHUNK));
}

static size_t chunk_start(unsigned k) {
        return k == 0 ? 0 : (size_t)WATCH_CHUNK << (k - 1);
}

static size_t chunk_size(unsigned k) {
        return k == 0 ? (size_t)WATCH_CHUNK : chunk_start(k);
}

static void table_init(WatchTable *t, size_t cell_size) {
        t->cell_size = cell_size;
}

static void table_deinit(WatchTable *t) {
        for (size_t i = 0; i < WATCH_CHUNKS_MAX; i++)
                free(WATCH_GET(t->chunks[i]));
        free(t->spare);
}

void watch_init(Watch *w) {
        memset(w, 0, sizeof(*w));
        table_init(&w->pools, sizeof(WatchPool));
        table_init(&w->queues, sizeof(WatchQueue));
        table_init(&w->slots, sizeof(WatchSlot));
}

void watch_deinit(Watch *w) {
        table_deinit(&w->pools);
        table_deinit(&w->queues);
        table_deinit(&w->slots);
        memset(w, 0, sizeof(*w));
}

size_t watch_table_n(const WatchTable *t) {
        return atomic_load_explicit(&t->n, memory_order_acquire);
}

void *watch_table_at(const WatchTable *t, size_t i) {
        unsigned k = chunk_of(i);
        char *chunk = WATCH_GET(t->chunks[k]);
        return chunk + (i - chunk_start(k)) * t->cell_size;
}

/* Room to take every cell back, so that giving back cannot fail. */
static int reserve_spare(WatchTable *t, size_t n) {
        if (n <= t->cap_spare)
                return 0;
        size_t cap = MAX(2 * t->cap_spare, (size_t)WATCH_CHUNK);
        void **spare = fault_realloc(t->spare, cap * sizeof(void *));
        if (!spare)
                return -1;
        t->spare = spare;
        t->cap_spare = cap;
        return 0;
}

/* A cell that no reader knows yet, or one that was given back. It is shown by table_show(). */
static void *table_take(WatchTable *t) {
        if (t->n_spare > 0)
                return t->spare[--t->n_spare];
        size_t n = WATCH_GET(t->n);
        unsigned k = chunk_of(n);
        if (k >= WATCH_CHUNKS_MAX || reserve_spare(t, n + 1) < 0)
                return NULL;
        if (!WATCH_GET(t->chunks[k])) {
                void *chunk = fault_calloc(chunk_size(k), t->cell_size);
                if (!chunk)
                        return NULL;
                WATCH_STORE(t->chunks[k], chunk);
        }
        return watch_table_at(t, n);
}

static void table_show(WatchTable *t, const void *cell) {
        size_t n = WATCH_GET(t->n);
        unsigned k = chunk_of(n);
        if (k < WATCH_CHUNKS_MAX && WATCH_GET(t->chunks[k]) && watch_table_at(t, n) == cell)
                atomic_store_explicit(&t->n, n + 1, memory_order_release);
}

static void table_give_back(WatchTable *t, void *cell) {
        assert(t->n_spare < t->cap_spare);
        t->spare[t->n_spare++] = cell;
}

static void name_set(WatchName *n, const char *text) {
        uint64_t words[WATCH_NAME_WORDS] = { 0 };
        memcpy(words, text, MIN(strlen(text), (size_t)EQ_NAME_MAX));
        for (int i = 0; i < WATCH_NAME_WORDS; i++)
                WATCH_STORE(n->words[i], words[i]);
}

void watch_name_get(const WatchName *n, char ret[EQ_NAME_MAX + 1]) {
        uint64_t words[WATCH_NAME_WORDS];
        for (int i = 0; i < WATCH_NAME_WORDS; i++)
                words[i] = WATCH_GET(n->words[i]);
        memcpy(ret, words, sizeof(words));
        ret[EQ_NAME_MAX] = '\0';
}

WatchPool *watch_pool_new(Watch *w, const char *name, size_t n_slots_max) {
        WatchPool *c = table_take(&w->pools);
        if (!c)
                return NULL;
        name_set(&c->name, name);
        WATCH_STORE(c->n_slots_max, n_slots_max);
        WATCH_STORE(c->blocked_until_usec, 0);
        WATCH_STORE(c->short_of, EQ_REASON_NONE);
        WATCH_STORE(c->stall_usec, 0);
        WATCH_STORE(c->nice, 0);
        WATCH_STORE(c->n_slots, 0);
        WATCH_STORE(c->calls, false);
        WATCH_STORE(c->threads.n, 0);
        WATCH_STORE(c->threads.n_idle, 0);
        WATCH_STORE(c->used, true);
        table_show(&w->pools, c);
        return c;
}

void watch_pool_free(Watch *w, WatchPool *c) {
        if (!c)
                return;
        WATCH_STORE(c->used, false);
        table_give_back(&w->pools, c);
}

WatchSlot *watch_slot_new(Watch *w, WatchPool *pool, size_t index) {
        WatchSlot *c = table_take(&w->slots);
        if (!c)
                return NULL;
        WATCH_STORE(c->pool, pool);
        WATCH_STORE(c->index, index);
        WATCH_STORE(c->reserve, false);
        WATCH_STORE(c->deadline_usec, UINT64_MAX);
        table_show(&w->slots, c);
        return c;
}

void watch_slot_free(Watch *w, WatchSlot *c) {
        if (!c)
                return;
        WATCH_STORE(c->started_usec, 0);
        table_give_back(&w->slots, c);
}

WatchQueue *watch_queue_new(Watch *w) {
        WatchQueue *c = table_take(&w->queues);
        if (!c)
                return NULL;
        WATCH_STORE(c->n_ready, 0);
        WATCH_STORE(c->n_ends, 0);
        WATCH_STORE(c->paused, false);
        WATCH_STORE(c->unserved, EQ_REASON_NONE);
        table_show(&w->queues, c);
        return c;
}

void watch_queue_publish(WatchQueue *c, uint64_t id, const char *name, WatchPool *pool) {
        name_set(&c->name, name);
        WATCH_STORE(c->pool, pool);
        atomic_store_explicit(&c->id, id, memory_order_release);
}

void watch_queue_free(Watch *w, WatchQueue *c) {
        if (!c)
                return;
        WATCH_STORE(c->id, 0);
        table_give_back(&w->queues, c);
}

WatchPart *watch_part_add(Watch *w, const char *name, eq_reason reason) {
        for (size_t i = 0; i < WATCH_PARTS_MAX; i++)
                if (!WATCH_GET(w->parts[i].name)) {
                        w->parts[i].reason = reason;
                        atomic_store_explicit(&w->parts[i].name, name, memory_order_release);
                        return &w->parts[i];
                }
        assert(false); /* as many as are named in the source */
        return NULL;
}

uint64_t watch_pool_limit(const WatchPool *p) {
        uint64_t n_threads = WATCH_GET(p->n_threads_max);
        return n_threads ? n_threads : WATCH_GET(p->n_slots_max);
}
