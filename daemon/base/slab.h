/* SPDX-License-Identifier: MIT */
#pragma once

/* Memory for objects of one size that many threads allocate and free, mostly not the same thread for one object.
 *
 * Type-stable: an address that was an object once can be read as long as the Slab lives, whoever has it now. A free object
 * keeps its bytes but for the first two words, which are the slab's; once its page was given back to the system it reads
 * as zeros. So a stale reference may look at an object and must be able to tell from what it sees that it is stale.
 *
 * slab_alloc() and slab_free() are wait-free: a thread that finds the common store locked does not wait for it. At most
 * SLABS_MAX slabs at once in a process. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        SLABS_MAX = 16,
        SLAB_CHAIN = 64,                /* objects that travel together between threads */
        SLAB_FAR = 8,                   /* objects between one that is taken and what is fetched meanwhile */
        SLAB_EXTENT_BYTES = 256 * 1024, /* what is asked of the system at once */
        SLAB_OBJECT_MAX = 8 * 1024,     /* bytes */
        SLAB_OBJECT_MIN = 2 * sizeof(void *),
};

/* A free object, or the first of a chain of them. */
typedef struct SlabObject {
        struct SlabObject *next;
        union {
                struct SlabObject *next_chain; /* of the first of a chain that is set aside or in the depot */
                struct SlabObject
                        *far; /* of others: the one that was freed SLAB_FAR frees earlier. A guess what comes */
        };
} SlabObject;

/* What a thread keeps of one slab: at most two chains, more while the common store is locked. */
typedef struct SlabCache {
        uint64_t serial; /* Slab::serial; another one: nothing here is of that slab */
        SlabObject *list;
        size_t n;                    /* in list */
        SlabObject *spare;           /* by next_chain: SLAB_CHAIN objects each */
        struct SlabExtent *own;      /* extents that it made while the store was locked, not known to the store yet */
        uint64_t unused[3];          /* a line each */
        SlabObject *freed[SLAB_FAR]; /* the last ones */
} SlabCache;

extern _Thread_local SlabCache slab_caches[SLABS_MAX];

/* The part of a slab that the short ways below need. */
typedef struct Slab {
        uint64_t serial; /* unlike that of every other slab there ever was */
        size_t index;    /* in slab_caches */
} Slab;

/* object_size, align: bytes, align a power of two up to 64. keep: pages are never given back, so the bytes of a free
 * object never change. 0, -EINVAL (sizes), -ENOSPC (SLABS_MAX). */
int slab_new(size_t object_size, size_t align, bool keep, Slab **ret);
/* All objects are free, and no other thread is in a call. Unmaps everything. NULL-safe; returns NULL. */
Slab *slab_destroy(Slab *s);

void *slab_alloc_slowly(Slab *s); /* for those below */
void slab_free_slowly(Slab *s, void *p);

/* Any thread, never waits. NULL: out of memory. The bytes are what the last owner left, or zeros. */
static inline void *slab_alloc(Slab *s) {
        SlabCache *c = &slab_caches[s->index];
        SlabObject *o = c->list;
        if (__builtin_expect(!o || c->serial != s->serial, 0))
                return slab_alloc_slowly(s);
        c->list = o->next;
        __builtin_prefetch(o->far, 1);
        c->n--;
        return o;
}

/* True: done. False: it takes longer, see slab_free(). */
static inline bool slab_free_quickly(Slab *s, void *p) {
        SlabCache *c = &slab_caches[s->index];
        SlabObject *o = (SlabObject *)p;
        size_t n = c->n;
        if (__builtin_expect(c->serial != s->serial || (n + 1) % SLAB_CHAIN == 0, 0))
                return false;
        __atomic_store_n(&o->next, c->list, __ATOMIC_RELAXED);
        SlabObject **f = &c->freed[n % SLAB_FAR];
        __atomic_store_n(&o->far, *f, __ATOMIC_RELAXED);
        *f = o;
        c->list = o;
        c->n = n + 1;
        return true;
}

/* Any thread, never waits, never fails. */
static inline void slab_free(Slab *s, void *p) {
        if (!slab_free_quickly(s, p))
                slab_free_slowly(s, p);
}

/* Gives pages without objects back to the system, and the calling thread's own free objects to the store. Any thread;
 * others allocate and free meanwhile. Costs time with the number of free objects, so: when there is nothing else to do.
 * Returns the bytes given back. */
size_t slab_trim(Slab *s);
/* The same for every slab of the process that has much to give. True if a slab was trimmed. */
bool slab_trim_all(void);

typedef struct SlabStats {
        size_t mapped_bytes; /* of addresses; only grows */
        size_t used_bytes;   /* of those: with memory behind them */
} SlabStats;
void slab_get_stats(Slab *s, SlabStats *ret); /* any thread; waits for the lock of the store */
