/* SPDX-License-Identifier: MIT */
/* Sift up, sift down; every move writes the index back into the item. Memory is halved when three quarters are unused
 * and not reserved. */

#include "base/heap.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/util.h"

static void put(Heap *h, size_t i, HeapItem *item) {
        h->items[i] = item;
        item->index = i;
}

static void sift_up(Heap *h, size_t i) {
        HeapItem *item = h->items[i];
        for (; i > 0 && h->items[(i - 1) / 2]->key > item->key; i = (i - 1) / 2)
                put(h, i, h->items[(i - 1) / 2]);
        put(h, i, item);
}

static void sift_down(Heap *h, size_t i) {
        HeapItem *item = h->items[i];
        for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
                if (child + 1 < h->n && h->items[child + 1]->key < h->items[child]->key)
                        child++;
                if (h->items[child]->key >= item->key)
                        break;
                put(h, i, h->items[child]);
        }
        put(h, i, item);
}

void heap_done(Heap *h) {
        free(h->items);
        *h = (Heap)HEAP_NULL;
}

static void give_back(Heap *h) {
        if (h->cap <= 1024 || MAX(h->n, h->n_reserved) > h->cap / 4)
                return;
        HeapItem **items = realloc(h->items, h->cap / 2 * sizeof(HeapItem *));
        if (!items)
                return; /* stays larger than need be */
        h->items = items;
        h->cap /= 2;
}

static int grow(Heap *h, size_t n) {
        if (n <= h->cap)
                return 0;
        size_t cap = h->cap ? h->cap : 16;
        while (cap < n)
                cap *= 2;
        HeapItem **items = fault_realloc(h->items, cap * sizeof(HeapItem *));
        if (!items)
                return -ENOMEM;
        h->items = items;
        h->cap = cap;
        return 0;
}

int heap_reserve(Heap *h, size_t n) {
        int r = grow(h, n);
        if (r < 0)
                return r;
        h->n_reserved = n;
        give_back(h);
        return 0;
}

int heap_push(Heap *h, HeapItem *item, uint64_t key) {
        int r = grow(h, h->n + 1);
        if (r < 0)
                return r;
        item->key = key;
        put(h, h->n++, item);
        sift_up(h, item->index);
        return 0;
}

void heap_remove(Heap *h, HeapItem *item) {
        size_t i = item->index;
        if (i == HEAP_NONE)
                return;
        item->index = HEAP_NONE;
        HeapItem *last = h->items[--h->n];
        if (last != item) {
                put(h, i, last);
                sift_up(h, i);
                sift_down(h, last->index);
        }
        give_back(h);
}

void heap_update(Heap *h, HeapItem *item, uint64_t key) {
        item->key = key;
        sift_up(h, item->index);
        sift_down(h, item->index);
}
