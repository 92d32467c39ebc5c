/* SPDX-License-Identifier: MIT */
#include "base/spares.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "test.h"

TEST(what_was_freed_comes_again_for_its_size) {
        Spares s = SPARES_NULL;
        for (size_t size = 1; size <= SPARES_LARGEST; size++) {
                char *a = spares_malloc(&s, size), *b = spares_malloc(&s, size);
                ck_assert(a && b && a != b);
                memset(a, 'a', size);
                memset(b, 'b', size);
                spares_free(&s, a);
                spares_free(&s, b);
                if (spares_bytes_max > 0 && size >= 24) { /* malloc has no smaller ones */
                        char *c = spares_malloc(&s, size), *d = spares_malloc(&s, size);
                        ck_assert((c == b && d == a));
                        ck_assert_uint_ge(malloc_usable_size(c), size);
                        spares_free(&s, c);
                        spares_free(&s, d);
                }
        }
        spares_clear(&s);
        ck_assert_uint_eq(s.n_bytes, 0);
}

/* Whatever sizes went before. */
TEST(no_block_is_smaller_than_what_is_asked_for) {
        Spares s = SPARES_NULL;
        void *blocks[300];
        unsigned dice = 1;
        for (unsigned round = 0; round < 100; round++) {
                for (size_t i = 0; i < ELEMENTSOF(blocks); i++) {
                        size_t size = (dice = dice * 1103515245 + 12345) >> 16 & 2047;
                        blocks[i] = spares_malloc(&s, size);
                        ck_assert_ptr_nonnull(blocks[i]);
                        ck_assert_uint_ge(malloc_usable_size(blocks[i]), size);
                        memset(blocks[i], 'x', size);
                }
                for (size_t i = 0; i < ELEMENTSOF(blocks); i++)
                        spares_free(&s, blocks[i]);
                ck_assert_uint_le(s.n_bytes, SPARES_BYTES);
        }
        spares_clear(&s);
}

TEST(no_more_is_kept_than_may_be) {
        enum { N = SPARES_BYTES / 500 + 500 };
        static void *blocks[N];
        Spares s = SPARES_NULL;
        for (size_t i = 0; i < N; i++)
                ck_assert_ptr_nonnull(blocks[i] = spares_malloc(&s, 500));
        for (size_t i = 0; i < N; i++)
                spares_free(&s, blocks[i]);
        ck_assert_uint_le(s.n_bytes, SPARES_BYTES);
        if (spares_bytes_max > 0)
                ck_assert_uint_ge(s.n_bytes, SPARES_BYTES - 1024);
        void *large = spares_malloc(&s, 4096);
        size_t before = s.n_bytes;
        spares_free(&s, large);
        spares_free(&s, NULL);
        ck_assert_uint_eq(s.n_bytes, before);
        spares_clear(&s);
        spares_clear(&s);
}

TEST(memory_that_is_out_is_out_also_where_some_is_kept) {
        Spares s = SPARES_NULL;
        spares_free(&s, spares_malloc(&s, 100));
        fault_set(FAULT_ALLOC, 1, false);
        ck_assert_ptr_null(spares_malloc(&s, 100));
        void *p = spares_malloc(&s, 100);
        ck_assert_ptr_nonnull(p);
        spares_free(&s, p);
        spares_clear(&s);
}

RUN_TESTS("spares", 30, test_what_was_freed_comes_again_for_its_size, test_no_block_is_smaller_than_what_is_asked_for,
          test_no_more_is_kept_than_may_be, test_memory_that_is_out_is_out_also_where_some_is_kept)
