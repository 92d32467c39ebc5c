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

TEST(a_moving_window_gives_back_what_it_leaves) {
        SeqIndex x = SEQ_INDEX_NULL;
        for (uint64_t i = 0; i < 1000000; i++) {
                ck_assert_int_eq(seq_index_put(&x, i, &dummies[0]), 0);
                if (i >= 100)
                        seq_index_remove(&x, i - 100);
        }
        ck_assert_uint_eq(x.n, 100);
        for (uint64_t i = 1000000 - 100; i < 1000000; i++)
                seq_index_remove(&x, i);
        ck_assert_uint_eq(x.n, 0);
        ck_assert_ptr_null(x.root); /* it goes with the last of what is below it */
        ck_assert_uint_eq(x.n_levels, 0);
}

/* The whole range of numbers, more than a directory of them could hold. */
TEST(numbers_far_apart_cost_no_more_than_near_ones) {
        SeqIndex x = SEQ_INDEX_NULL;
        const uint64_t in[] = { 0, 63, 64, UINT64_C(1) << 32, UINT64_C(1) << 60, UINT64_MAX - 64, UINT64_MAX };
        enum { N_IN = sizeof(in) / sizeof(in[0]) };
        for (size_t i = 0; i < N_IN; i++)
                ck_assert_int_eq(seq_index_put(&x, in[i], &dummies[i]), 0);
        uint64_t seq = 0;
        for (size_t i = 0; i < N_IN; i++, seq++) {
                ck_assert_ptr_eq(seq_index_next(&x, &seq), &dummies[i]);
                ck_assert_uint_eq(seq, in[i]);
        }
        seq = UINT64_MAX;
        seq_index_remove(&x, seq);
        ck_assert_ptr_null(seq_index_next(&x, &seq));
        for (size_t i = 0; i < N_IN; i++)
                seq_index_remove(&x, in[i]);
        ck_assert_ptr_null(x.root);
}

TEST(a_page_that_went_with_its_last_entry_is_not_put_to) {
        SeqIndex x = SEQ_INDEX_NULL;
        for (uint64_t i = 0; i < 200; i++) { /* alone each time, in the page of the one before */
                ck_assert_int_eq(seq_index_put(&x, i, &dummies[i]), 0);
                seq_index_remove(&x, i);
                ck_assert_ptr_null(x.root);
        }
        ck_assert_int_eq(seq_index_put(&x, 70, &dummies[1]), 0);
        ck_assert_int_eq(seq_index_put(&x, 5000, &dummies[2]), 0); /* another page is the last one now */
        seq_index_remove(&x, 70);
        ck_assert_int_eq(seq_index_put(&x, 5001, &dummies[3]), 0);
        ck_assert_int_eq(seq_index_put(&x, 71, &dummies[4]), 0);
        ck_assert_ptr_null(seq_index_get(&x, 70));
        ck_assert_ptr_eq(seq_index_get(&x, 71), &dummies[4]);
        ck_assert_ptr_eq(seq_index_get(&x, 5000), &dummies[2]);
        ck_assert_ptr_eq(seq_index_get(&x, 5001), &dummies[3]);
        ck_assert_uint_eq(x.n, 3);
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
        long nth = 1;
        for (int r = -1; r < 0; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                r = seq_index_put(&x, UINT64_C(1) << 40, &dummies[2]);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert_ptr_eq(seq_index_get(&x, 1), &dummies[1]);
                ck_assert_uint_eq(x.n, r < 0 ? 1 : 2);
        }
        ck_assert_int_gt(nth, 3); /* some failed */
        seq_index_remove(&x, UINT64_C(1) << 40);
        seq_index_remove(&x, 1);
        ck_assert_ptr_null(x.root);
}

TEST(the_first_put_without_memory_leaves_nothing) {
        SeqIndex x = SEQ_INDEX_NULL;
        for (long nth = 1; nth <= 3; nth++) {
                fault_set(FAULT_ALLOC, nth, false);
                ck_assert_int_lt(seq_index_put(&x, 100000, &dummies[1]), 0);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert_ptr_null(x.root);
        }
}

RUN_TESTS("seqindex", 30, test_finds_what_was_put_and_nothing_else, test_walks_in_order_over_gaps,
          test_a_moving_window_gives_back_what_it_leaves, test_numbers_far_apart_cost_no_more_than_near_ones,
          test_a_page_that_went_with_its_last_entry_is_not_put_to, test_a_number_below_all_others_finds_room,
          test_put_without_memory_changes_nothing, test_the_first_put_without_memory_leaves_nothing)
