/* SPDX-License-Identifier: MIT */
#pragma once

/* A binary min-heap of intrusive items; an item knows its index, so removal is O(log n). Not thread-safe. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct HeapItem {
        uint64_t key;
        size_t index; /* HEAP_NONE: in no heap */
} HeapItem;

#define HEAP_NONE SIZE_MAX
#define HEAP_ITEM_NULL                                                                                                 \
        { .index = HEAP_NONE }
#define HEAP_ENTRY(item, type, member) ((type *)((char *)(item)-offsetof(type, member)))

typedef struct Heap {
        HeapItem **items;
        size_t n, cap;
        size_t n_reserved; /* memory for so many is not given back */
} Heap;
#define HEAP_NULL                                                                                                      \
        { 0 }

void heap_done(Heap *h); /* the items are their owners' */
/* Room for n items in all, so that heap_push() cannot fail, until the next call says otherwise; 0 or -ENOMEM. A smaller
 * n than before never fails, and gives memory back. */
int heap_reserve(Heap *h, size_t n);
int heap_push(Heap *h, HeapItem *item, uint64_t key); /* item is in no heap; 0 or -ENOMEM */
void heap_remove(Heap *h, HeapItem *item);            /* also when it is in no heap */
void heap_update(Heap *h, HeapItem *item, uint64_t key);

static inline HeapItem *heap_peek(const Heap *h) { /* NULL if empty */
        return h->n ? h->items[0] : NULL;
}

static inline bool heap_contains(const HeapItem *item) {
        return item->index != HEAP_NONE;
}
