/* SPDX-License-Identifier: MIT */
/* Three stores, near to far:
 *
 *   the thread's cache      two chains of up to SLAB_CHAIN objects; no lock, no shared line
 *   the depot               full chains, on their way from threads that free to threads that allocate
 *   the pages               free objects sorted by page, so that an empty page can go back to the system
 *
 *      free                            trim                             trim, page empty
 *   ---------> cache ---> depot  ---------------->  page  ----------------------------------> returned
 *   <---------       <---        <----------------        <----------------------------------
 *      alloc                     refill                      refill: carved again
 *
 * Memory comes in extents of SLAB_EXTENT_BYTES at addresses that are multiples of it. The first page of an extent is its
 * header and never leaves; the others are cut into units (a page or a power of two of pages) of whole objects. Units are
 * given back with MADV_DONTNEED, so addresses stay readable; extents are unmapped with the slab only.
 *
 * The lock covers depot and pages. slab_alloc() and slab_free() only try it: who cannot have it takes memory from an
 * extent of his own (SlabCache::own), or keeps what he has to free, until the next chain is full. slab_trim() gives the
 * lock up after each piece of work.
 *
 * A free object's two words are written with relaxed atomic stores: a stale reference may be reading them. */

#include "base/slab.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"

enum {
        PAGE = 4096,
        UNIT_OBJECTS_MIN = 8,  /* below this a unit has several pages */
        TRIM_STEP_CHAINS = 16, /* moved per hold of the lock */
        WORTH_TRIMMING = 64,   /* chains in the depot */
        RUN_MAX = 32,          /* units that get memory in one system call */
        UNITS_MAX = SLAB_EXTENT_BYTES / PAGE,
};

typedef struct SlabUnit {
        SlabObject *free;
        struct SlabUnit *next; /* Slab::partial or Slab::returned */
        uint32_t n_free;       /* in `free` */
        bool is_returned;
} SlabUnit;

typedef struct SlabExtent {
        struct SlabExtent *next;     /* Slab::extents or SlabCache::own */
        struct SlabExtent *next_all; /* Slab::all */
        unsigned n_carved;           /* units that were used at least once */
        SlabUnit units[UNITS_MAX];
} SlabExtent;
_Static_assert(sizeof(SlabExtent) <= PAGE, "the header of an extent has one page");

/* What a Slab is behind its first part. */
typedef struct Store {
        Slab slab; /* first */
        size_t object_size, unit_bytes;
        unsigned n_units, unit_objects; /* per extent, per unit */
        bool keep;
        _Atomic(SlabExtent *) all; /* by next_all: what is to be unmapped in the end. Only grows */

        pthread_mutex_t lock; /* for all below */
        SlabObject *depot;    /* by next_chain */
        atomic_size_t n_depot;
        SlabUnit *partial;   /* have free objects and are not returned */
        SlabUnit *returned;  /* hold no object and no memory */
        SlabExtent *extents; /* the first one may have units that were never used */
        size_t n_returned;
        size_t run; /* so many units get memory the next time: the double each time, so that small slabs stay small */
} Store;

_Thread_local SlabCache slab_caches[SLABS_MAX];

/* Which slabs there are, for those who come by: threads that end, slab_trim_all(). The lock is held while one of them
 * works on a slab, so that nobody takes it away. Before Slab::lock. */
static pthread_mutex_t slabs_lock = PTHREAD_MUTEX_INITIALIZER;
static Store *stores[SLABS_MAX];
static uint64_t last_serial;

static pthread_key_t thread_key; /* its destructor empties the caches of a thread that ends */
static pthread_once_t thread_key_once = PTHREAD_ONCE_INIT;
static _Thread_local bool thread_known;

static void set_next(SlabObject *o, SlabObject *next) {
        __atomic_store_n(&o->next, next, __ATOMIC_RELAXED);
}

static void set_next_chain(SlabObject *o, SlabObject *next) {
        __atomic_store_n(&o->next_chain, next, __ATOMIC_RELAXED);
}

/* ---- extents and units; Slab::lock is held, or the extent is the thread's own ---- */

static void *map_aligned(size_t size) {
        if (fault_hit(FAULT_ALLOC))
                return NULL;
        char *p = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED)
                return NULL;
        size_t before = -(uintptr_t)p % size;
        if (before > 0)
                (void)munmap(p, before); /* cannot fail: whole pages that we have just got */
        (void)munmap(p + before + size, size - before);
        return p + before;
}

/* Any thread, no lock. */
static SlabExtent *new_extent(Store *s) {
        SlabExtent *e = map_aligned(SLAB_EXTENT_BYTES);
        if (!e)
                return NULL;
        /* One step, whoever else adds. Until the link is there the list is cut, but nobody goes along it before all are through. */
        e->next_all = atomic_exchange_explicit(&s->all, e, memory_order_relaxed);
        return e;
}

static SlabExtent *extent_of(const void *p) {
        return (SlabExtent *)((uintptr_t)p & ~(uintptr_t)(SLAB_EXTENT_BYTES - 1));
}

static char *unit_address(const Store *s, SlabExtent *e, size_t i) {
        return (char *)e + PAGE + i * s->unit_bytes;
}

static SlabUnit *unit_of(const Store *s, void *p) {
        SlabExtent *e = extent_of(p);
        return &e->units[((size_t)((char *)p - (char *)e) - PAGE) / s->unit_bytes];
}

/* Cuts a unit without memory into a list of free objects. Returns their number. */
static size_t unit_carve(const Store *s, char *p, SlabObject **ret) {
        SlabObject *list = NULL;
        for (size_t i = s->unit_objects; i-- > 0;) {
                SlabObject *o = (SlabObject *)(p + i * s->object_size);
                set_next(o, list);
                set_next_chain(o, (SlabObject *)(p + (i + SLAB_FAR) * s->object_size));
                list = o;
        }
        *ret = list;
        return s->unit_objects;
}

static size_t extent_carve(const Store *s, SlabExtent *e, SlabObject **ret) {
        return unit_carve(s, unit_address(s, e, e->n_carved++), ret);
}

static void add_extent(Store *s, SlabExtent *e) {
        if (s->extents && e->n_carved == s->n_units) { /* behind the first, which may have units to give */
                e->next = s->extents->next;
                s->extents->next = e;
        } else {
                e->next = s->extents;
                s->extents = e;
        }
}

/* The rest of an extent that is not the first any more would be lost: its units go where given back ones are. */
static void retire_rest(Store *s, SlabExtent *e) {
        for (; e && e->n_carved < s->n_units; e->n_carved++) {
                SlabUnit *u = &e->units[e->n_carved];
                u->is_returned = true;
                u->next = s->returned;
                s->returned = u;
                s->n_returned++;
        }
}

/* ---- refill ---- */

static size_t take_partial(Store *s, SlabObject **ret) {
        SlabUnit *u = s->partial;
        s->partial = u->next;
        size_t n = u->n_free;
        *ret = u->free;
        u->free = NULL;
        u->n_free = 0;
        return n;
}

/* Gives memory to n units without any. The first is taken, the others are partial ones. A fault for each page would be what the slowest
 * thousandth of all allocations waits for, beside the lock that it holds. */
static size_t carve_run(Store *s, SlabExtent *e, size_t first, size_t n, SlabObject **ret) {
        if (n > 1) /* refused by an older kernel: then there is a fault for each page */
                (void)madvise(unit_address(s, e, first), n * s->unit_bytes, MADV_POPULATE_WRITE);
        for (size_t i = first + n; i-- > first + 1;) {
                SlabUnit *u = &e->units[i];
                u->n_free = (uint32_t)unit_carve(s, unit_address(s, e, i), &u->free);
                u->next = s->partial;
                s->partial = u;
        }
        s->run = MIN(2 * n, (size_t)RUN_MAX);
        return unit_carve(s, unit_address(s, e, first), ret);
}

/* Neighbours follow each other in falling order, as sort_units() has left them. */
static size_t take_returned(Store *s, SlabObject **ret) {
        SlabUnit *u = s->returned;
        size_t n = 1;
        for (u->is_returned = false; n < s->run && u->next == u - 1; n++) {
                u = u->next;
                u->is_returned = false;
        }
        s->returned = u->next;
        s->n_returned -= n;
        SlabExtent *e = extent_of(u);
        return carve_run(s, e, (size_t)(u - e->units), n, ret);
}

static size_t take_new(Store *s, SlabExtent *e, SlabObject **ret) {
        size_t first = e->n_carved, n = MIN(s->run, (size_t)s->n_units - first);
        e->n_carved += (unsigned)n;
        return carve_run(s, e, first, n, ret);
}

/* The lock is held. 0: out of memory. */
static size_t take_some(Store *s, SlabObject **ret) {
        if (s->depot) {
                *ret = s->depot;
                s->depot = s->depot->next_chain;
                atomic_fetch_sub_explicit(&s->n_depot, 1, memory_order_relaxed);
                return SLAB_CHAIN;
        }
        if (s->partial)
                return take_partial(s, ret);
        if (s->returned)
                return take_returned(s, ret);
        if (!s->extents || s->extents->n_carved == s->n_units) {
                SlabExtent *e = new_extent(s);
                if (!e)
                        return 0;
                add_extent(s, e);
        }
        return take_new(s, s->extents, ret);
}

/* The lock is somebody else's. */
static size_t take_own(Store *s, SlabCache *c, SlabObject **ret) {
        if (!c->own || c->own->n_carved == s->n_units) {
                SlabExtent *e = new_extent(s);
                if (!e)
                        return 0;
                e->next = c->own;
                c->own = e;
        }
        return extent_carve(s, c->own, ret);
}

/* The lock is held. */
static void join_own(Store *s, SlabCache *c) {
        for (SlabExtent *e = TAKE_PTR(c->own), *next; e; e = next) {
                next = e->next;
                SlabExtent *first = s->extents;
                add_extent(s, e);
                if (s->extents != first)
                        retire_rest(s, first);
        }
}

/* ---- threads ---- */

static void give_all_back(Store *s, SlabCache *c);

static void thread_end(void *unused) {
        pthread_mutex_lock(&slabs_lock);
        for (size_t i = 0; i < SLABS_MAX; i++) {
                SlabCache *c = &slab_caches[i];
                if (stores[i] && stores[i]->slab.serial == c->serial) {
                        pthread_mutex_lock(&stores[i]->lock);
                        give_all_back(stores[i], c);
                        pthread_mutex_unlock(&stores[i]->lock);
                }
                *c = (SlabCache) { 0 };
        }
        pthread_mutex_unlock(&slabs_lock);
        thread_known = false;
}

static void make_thread_key(void) {
        if (pthread_key_create(&thread_key, thread_end) != 0)
                thread_key = 0; /* then what a thread has left stays away until the slab is destroyed */
}

/* The cache is for this slab from now on. */
static void adopt(Store *s, SlabCache *c) {
        /* What an earlier slab of this index left is unmapped with that one. */
        *c = (SlabCache) { .serial = s->slab.serial };
        if (!thread_known && pthread_setspecific(thread_key, &thread_known) == 0)
                thread_known = true;
}

static SlabCache *cache_of(Store *s) {
        SlabCache *c = &slab_caches[s->slab.index];
        if (c->serial != s->slab.serial)
                adopt(s, c);
        return c;
}

/* ---- alloc and free ---- */

static size_t refill(Store *s, SlabCache *c, SlabObject **ret) {
        if (pthread_mutex_trylock(&s->lock) != 0)
                return take_own(s, c, ret);
        join_own(s, c);
        size_t n = take_some(s, ret);
        pthread_mutex_unlock(&s->lock);
        return n;
}

void *slab_alloc_slowly(Slab *slab) {
        Store *s = (Store *)slab;
        SlabCache *c = cache_of(s);
        if (c->spare) {
                c->list = c->spare;
                c->spare = c->list->next_chain;
                c->n = SLAB_CHAIN;
        } else if (!c->list)
                c->n = refill(s, c, &c->list);
        if (c->n == 0)
                return NULL;
        c->n--;
        SlabObject *o = c->list;
        c->list = o->next;
        return o;
}

/* The lock is held. */
static void put_chain(Store *s, SlabObject *chain) {
        set_next_chain(chain, s->depot);
        s->depot = chain;
        atomic_fetch_add_explicit(&s->n_depot, 1, memory_order_relaxed);
}

/* Cuts the first SLAB_CHAIN objects off the list: mostly all of it. */
static SlabObject *cut_chain(SlabCache *c) {
        SlabObject *first = c->list, *last = first;
        if (c->n == SLAB_CHAIN) {
                c->list = NULL;
                c->n = 0;
                return first;
        }
        for (size_t i = 1; i < SLAB_CHAIN; i++)
                last = last->next;
        c->list = last->next;
        c->n -= SLAB_CHAIN;
        set_next(last, NULL);
        return first;
}

/* A chain is full once more, or this is the first object. The chain becomes a spare one, and older ones go to the depot, if it is not
 * locked. What has to stay is put aside chain by chain, as nobody wants to walk along it later. */
void slab_free_slowly(Slab *slab, void *p) {
        Store *s = (Store *)slab;
        SlabCache *c = cache_of(s);
        SlabObject *o = p;
        set_next(o, c->list);
        set_next_chain(o, c->freed[c->n % SLAB_FAR]);
        c->freed[c->n % SLAB_FAR] = o;
        c->list = o;
        if (++c->n % SLAB_CHAIN != 0)
                return;
        SlabObject *chain = cut_chain(c);
        set_next_chain(chain, c->spare);
        c->spare = chain;
        if (!chain->next_chain || pthread_mutex_trylock(&s->lock) != 0)
                return;
        join_own(s, c);
        for (SlabObject *older = chain->next_chain, *next; older; older = next) {
                next = older->next_chain;
                put_chain(s, older);
        }
        set_next_chain(chain, NULL);
        pthread_mutex_unlock(&s->lock);
}

/* ---- giving back ---- */

/* The lock is held. */
static void sort_object(Store *s, SlabObject *o) {
        SlabUnit *u = unit_of(s, o);
        if (u->n_free++ == 0) {
                u->next = s->partial;
                s->partial = u;
        }
        set_next(o, u->free);
        u->free = o;
}

static void sort_chain(Store *s, SlabObject *o) {
        while (o) {
                SlabObject *next = o->next;
                sort_object(s, o);
                o = next;
        }
}

/* Everything that the thread has. The lock is held. */
static void give_all_back(Store *s, SlabCache *c) {
        join_own(s, c);
        sort_chain(s, TAKE_PTR(c->list));
        for (SlabObject *chain = TAKE_PTR(c->spare), *next_chain; chain; chain = next_chain) {
                next_chain = chain->next_chain;
                sort_chain(s, chain);
        }
        c->n = 0;
}

static bool unit_is_empty(const Store *s, const SlabUnit *u) {
        return !u->is_returned && u->n_free == s->unit_objects;
}

/* Gives back the neighbours [from, to) of one extent in one call. */
static void return_units(Store *s, SlabExtent *e, size_t from, size_t to) {
        if (madvise(unit_address(s, e, from), (to - from) * s->unit_bytes, MADV_DONTNEED) != 0)
                return; /* locked memory: they stay as they are, full of free objects */
        for (size_t i = from; i < to; i++) {
                e->units[i].is_returned = true;
                e->units[i].free = NULL;
                e->units[i].n_free = 0;
                s->n_returned++;
        }
}

static void return_extent(Store *s, SlabExtent *e) {
        for (size_t i = 0; i < e->n_carved; i++) {
                size_t from = i;
                while (i < e->n_carved && unit_is_empty(s, &e->units[i]))
                        i++;
                if (i > from)
                        return_units(s, e, from, i);
        }
}

/* Which units are on which list is found anew: taking one out of the middle of a list would need a second link. */
static void sort_units(Store *s) {
        s->partial = s->returned = NULL;
        for (SlabExtent *e = s->extents; e; e = e->next)
                for (size_t i = 0; i < e->n_carved; i++) {
                        SlabUnit *u = &e->units[i], **list = u->is_returned ? &s->returned : &s->partial;
                        if (u->is_returned || u->n_free > 0) {
                                u->next = *list;
                                *list = u;
                        }
                }
}

/* One hold of the lock. True: the depot is empty. */
static bool sort_some_chains(Store *s) {
        pthread_mutex_lock(&s->lock);
        for (size_t i = 0; i < TRIM_STEP_CHAINS && s->depot; i++) {
                SlabObject *chain = s->depot;
                s->depot = chain->next_chain;
                atomic_fetch_sub_explicit(&s->n_depot, 1, memory_order_relaxed);
                sort_chain(s, chain);
        }
        bool empty = !s->depot;
        pthread_mutex_unlock(&s->lock);
        return empty;
}

size_t slab_trim(Slab *slab) {
        Store *s = (Store *)slab;
        SlabCache *c = cache_of(s);
        pthread_mutex_lock(&s->lock);
        give_all_back(s, c);
        pthread_mutex_unlock(&s->lock);
        if (s->keep)
                return 0;
        for (size_t n = atomic_load(&s->n_depot) / TRIM_STEP_CHAINS + 1; n > 0 && !sort_some_chains(s);)
                n--; /* as much as there was: others may be adding all the time */
        pthread_mutex_lock(&s->lock);
        size_t n_before = s->n_returned;
        for (SlabExtent *e = s->extents; e; e = e->next)
                return_extent(s, e);
        sort_units(s);
        size_t n = s->n_returned - n_before;
        s->run = 1;
        pthread_mutex_unlock(&s->lock);
        return n * s->unit_bytes;
}

bool slab_trim_all(void) {
        bool any = false;
        pthread_mutex_lock(&slabs_lock);
        for (size_t i = 0; i < SLABS_MAX; i++)
                if (stores[i] && !stores[i]->keep && atomic_load(&stores[i]->n_depot) >= WORTH_TRIMMING)
                        any |= slab_trim(&stores[i]->slab) > 0;
        pthread_mutex_unlock(&slabs_lock);
        return any;
}

void slab_get_stats(Slab *slab, SlabStats *ret) {
        Store *s = (Store *)slab;
        *ret = (SlabStats) { 0 };
        pthread_mutex_lock(&s->lock);
        for (const SlabExtent *e = s->extents; e; e = e->next) {
                ret->mapped_bytes += SLAB_EXTENT_BYTES;
                ret->used_bytes += PAGE;
                for (size_t i = 0; i < e->n_carved; i++)
                        ret->used_bytes += e->units[i].is_returned ? 0 : s->unit_bytes;
        }
        pthread_mutex_unlock(&s->lock);
}

/* ---- life ---- */

static int take_index(Store *s) {
        int r = -ENOSPC;
        pthread_mutex_lock(&slabs_lock);
        for (size_t i = 0; i < SLABS_MAX && r < 0; i++) {
                if (stores[i])
                        continue;
                stores[i] = s;
                s->slab.index = i;
                s->slab.serial = ++last_serial;
                r = 0;
        }
        pthread_mutex_unlock(&slabs_lock);
        return r;
}

int slab_new(size_t object_size, size_t align, bool keep, Slab **ret) {
        if (align == 0 || align > 64 || (align & (align - 1)) != 0 || object_size == 0 || object_size > SLAB_OBJECT_MAX)
                return -EINVAL;
        Store *s = fault_calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        align = MAX(align, sizeof(void *));
        s->object_size = (MAX(object_size, (size_t)SLAB_OBJECT_MIN) + align - 1) & ~(align - 1);
        s->unit_bytes = PAGE;
        while (s->unit_bytes / s->object_size < UNIT_OBJECTS_MIN)
                s->unit_bytes *= 2;
        s->unit_objects = (unsigned)(s->unit_bytes / s->object_size);
        s->n_units = (unsigned)((SLAB_EXTENT_BYTES - PAGE) / s->unit_bytes);
        s->keep = keep;
        s->run = 1;
        pthread_once(&thread_key_once, make_thread_key); /* before somebody allocates, who might have to wait here */
        pthread_mutex_init(&s->lock, NULL);
        int r = take_index(s);
        if (r < 0) {
                free(s);
                return r;
        }
        *ret = &s->slab;
        return 0;
}

Slab *slab_destroy(Slab *slab) {
        Store *s = (Store *)slab;
        if (!s)
                return NULL;
        pthread_mutex_lock(&slabs_lock);
        stores[s->slab.index] = NULL;
        pthread_mutex_unlock(&slabs_lock);
        for (SlabExtent *e = atomic_load(&s->all), *next; e; e = next) {
                next = e->next_all;
                (void)munmap(e, SLAB_EXTENT_BYTES);
        }
        pthread_mutex_destroy(&s->lock);
        free(s);
        return NULL;
}
