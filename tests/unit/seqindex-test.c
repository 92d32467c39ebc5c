/* SPDX-License-Identifier: MIT */
#include "base/seqindex.h"

#include "base/fault.h"
#include "test.h"

static int dummies[20000];

TEST(finds_what_was_put_and_nothing_else) {
        SeqIndex x = SEQ_INDEX_NULL;
        for (uint64_t i = 1; i < 20000; i += 7)
                ck_assert_int_eq(seq_index_put(&x, i, &dummies[i]), 0);
        for (uint64_t i = 0; i < 20000; i++)
                ck_assert_ptr_eq(seq_index_get(&x, i), i % 7 == 1 ? &dummies[i] : NULL);
        seq_index_done(&x);
}

TEST(walks_in_order_over_gaps) {
        SeqIndex x = SEQ_INDEX_NULL;
        const uint64_t in[] = { 5, 6, 1000, 1001, 15000, 19999 };
        for (size_t i = 0; i < 6; i++)
                ck_assert_int_eq(seq_index_put(&x, in[5 - i], &dummies[in[5 - i]]), 0);
        uint64_t seq = 0;
        for (size_t i = 0; i < 6; i++, seq++) {
                ck_assert_ptr_eq(seq_index_next(&x, &seq), &dummies[in[i]]);
                ck_assert_uint_eq(seq, in[i]);
        }
        ck_assert_ptr_null(seq_index_next(&x, &seq));
        seq_index_done(&x);
}

TEST(a_moving_window_keeps_the_directory_small) {
        SeqIndex x = SEQ_INDEX_NULL;
        for (uint64_t i = 0; i < 1000000; i++) {
                ck_assert_int_eq(seq_index_put(&x, i, &dummies[0]), 0);
                if (i >= 100)
                        seq_index_remove(&x, i - 100);
        }
        ck_assert_uint_eq(x.n, 100);
        ck_assert_uint_le(x.cap, 64);
        seq_index_done(&x);
}

TEST(a_number_below_all_others_finds_room) {
        SeqIndex x = SEQ_INDEX_NULL;
        ck_assert_int_eq(seq_index_put(&x, 10000, &dummies[1]), 0);
        ck_assert_int_eq(seq_index_put(&x, 3, &dummies[2]), 0);
        ck_assert_ptr_eq(seq_index_get(&x, 3), &dummies[2]);
        ck_assert_ptr_eq(seq_index_get(&x, 10000), &dummies[1]);
        seq_index_remove(&x, 3);
        seq_index_remove(&x, 3);
        ck_assert_ptr_eq(seq_index_get(&x, 10000), &dummies[1]);
        seq_index_done(&x);
}

TEST(put_without_memory_changes_nothing) {
        SeqIndex x = SEQ_INDEX_NULL;
        ck_assert_int_eq(seq_index_put(&x, 1, &dummies[1]), 0);
        for (long nth = 1; nth <= 2; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                ck_assert_int_lt(seq_index_put(&x, 100000 * (uint64_t)nth, &dummies[2]), 0);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert_ptr_eq(seq_index_get(&x, 1), &dummies[1]);
                ck_assert_uint_eq(x.n, 1);
        }
        seq_index_done(&x);
}

RUN_TESTS("seqindex", 30, test_finds_what_was_put_and_nothing_else, test_walks_in_order_over_gaps,
          test_a_moving_window_keeps_the_directory_small, test_a_number_below_all_others_finds_room,
          test_put_without_memory_changes_nothing)
