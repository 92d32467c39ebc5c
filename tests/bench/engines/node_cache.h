/* SPDX-License-Identifier: MIT */
/*
 * node_cache.h - task nodes without malloc on the hot path.
 *
 * Each thread keeps a free list of at most NODE_CHUNK nodes plus one full spare chunk; whole chunks travel
 * between producers (which only allocate) and workers (which only free) through one mutex-protected
 * stack. Memory is never returned to the system. All nodes of a program have the same size.
 *
 * -DNODE_MALLOC=1 replaces this by malloc() and free(): slower, but lets the sanitizers see each node.
 */
#ifndef NODE_CACHE_H
#define NODE_CACHE_H

#include <pthread.h>
#include <stdlib.h>

#ifndef NODE_MALLOC
#define NODE_MALLOC 0
#endif

/* for eng_name() */
#if NODE_MALLOC
#define NODE_TAG "+malloc"
#else
#define NODE_TAG ""
#endif

#if NODE_MALLOC

static inline void *node_alloc(size_t size) {
        void *p = malloc(size);

        if (!p)
                abort();
        return p;
}

static inline void node_free(void *p) {
        free(p);
}

#else

#define NODE_CHUNK 128

struct FreeNode {
        struct FreeNode *next;       /* inside a chunk */
        struct FreeNode *next_chunk; /* in the shared stack; valid in the first node of a chunk only */
};

static __thread struct FreeNode *node_free_list;
static __thread int node_free_count;
static __thread struct FreeNode *node_spare_chunk;

static pthread_mutex_t node_lock = PTHREAD_MUTEX_INITIALIZER;
static struct FreeNode *node_chunks; /* under node_lock */

/* A chunk from the shared stack, or a new one. size must be a multiple of 16. */
static struct FreeNode *node_get_chunk(size_t size) {
        struct FreeNode *chunk;
        char *p;

        pthread_mutex_lock(&node_lock);
        chunk = node_chunks;
        if (chunk)
                node_chunks = chunk->next_chunk;
        pthread_mutex_unlock(&node_lock);
        if (chunk)
                return chunk;

        p = aligned_alloc(64, size * NODE_CHUNK);
        if (!p)
                abort();
        for (int i = 0; i < NODE_CHUNK; i++) {
                struct FreeNode *n = (struct FreeNode *)(p + i * size);

                n->next = i + 1 < NODE_CHUNK ? (struct FreeNode *)(p + (i + 1) * size) : NULL;
        }
        return (struct FreeNode *)p;
}

static inline void *node_alloc(size_t size) {
        struct FreeNode *n = node_free_list;

        if (__builtin_expect(!n, 0)) {
                if (node_spare_chunk) {
                        n = node_spare_chunk;
                        node_spare_chunk = NULL;
                } else
                        n = node_get_chunk(size);
                node_free_count = NODE_CHUNK;
        }
        node_free_list = n->next;
        node_free_count--;
        return n;
}

static inline void node_free(void *p) {
        struct FreeNode *n = p;

        if (__builtin_expect(node_free_count == NODE_CHUNK, 0)) {
                if (node_spare_chunk) {
                        pthread_mutex_lock(&node_lock);
                        node_spare_chunk->next_chunk = node_chunks;
                        node_chunks = node_spare_chunk;
                        pthread_mutex_unlock(&node_lock);
                }
                node_spare_chunk = node_free_list;
                node_free_list = NULL;
                node_free_count = 0;
        }
        n->next = node_free_list;
        node_free_list = n;
        node_free_count++;
}

#endif
#endif
