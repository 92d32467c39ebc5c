/* SPDX-License-Identifier: MIT */
#include "base/heap.h"

#include "base/fault.h"
#include "test.h"

enum { N = 5000 };

static uint64_t next_random(uint64_t *state) {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        return *state >> 33;
}

TEST(items_come_out_in_order_whatever_was_removed_between) {
        static HeapItem items[N];
        Heap h = HEAP_NULL;
        uint64_t seed = 42;
        size_t n = 0;

        for (size_t i = 0; i < N; i++) {
                items[i] = (HeapItem)HEAP_ITEM_NULL;
                ck_assert_int_eq(heap_push(&h, &items[i], next_random(&seed) % 1000), 0);
        }
        for (size_t i = 0; i < N; i += 3) {
                heap_remove(&h, &items[i]);
                heap_remove(&h, &items[i]); /* again: nothing happens */
        }
        for (size_t i = 1; i < N; i += 3)
                heap_update(&h, &items[i], next_random(&seed) % 1000);

        uint64_t last = 0;
        for (HeapItem *it; (it = heap_peek(&h)); n++) {
                ck_assert_uint_ge(it->key, last);
                last = it->key;
                heap_remove(&h, it);
                ck_assert(!heap_contains(it));
        }
        ck_assert_uint_eq(n, N - (N + 2) / 3);
        heap_done(&h);
}

TEST(push_without_memory_leaves_the_heap_as_it_was) {
        Heap h = HEAP_NULL;
        HeapItem a = HEAP_ITEM_NULL;

        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_int_lt(heap_push(&h, &a, 1), 0);
        ck_assert(!heap_contains(&a));
        ck_assert_int_eq(heap_push(&h, &a, 1), 0);
        heap_done(&h);
}

TEST(a_reservation_holds_whatever_is_removed) {
        static HeapItem items[N];
        Heap h = HEAP_NULL;

        for (size_t i = 0; i < N; i++)
                items[i] = (HeapItem)HEAP_ITEM_NULL;
        ck_assert_int_eq(heap_reserve(&h, N), 0);
        fault_set(FAULT_ALLOC, 1, true);
        ck_assert_int_eq(heap_push(&h, &items[0], 0), 0);
        heap_remove(&h, &items[0]);
        for (size_t i = 0; i < N; i++)
                ck_assert_int_eq(heap_push(&h, &items[i], i), 0);
        for (size_t i = 0; i < N; i++)
                heap_remove(&h, &items[i]);
        ck_assert_int_eq(heap_reserve(&h, 0), 0);
        fault_set(FAULT_ALLOC, 0, false);
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(heap_reserve(&h, 0), 0);
        ck_assert_uint_le(h.cap, 1024); /* and goes when it is not wanted any more */
        heap_done(&h);
}

RUN_TESTS("heap", 10, test_items_come_out_in_order_whatever_was_removed_between,
          test_push_without_memory_leaves_the_heap_as_it_was, test_a_reservation_holds_whatever_is_removed)
