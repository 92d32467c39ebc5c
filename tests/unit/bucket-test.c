/* SPDX-License-Identifier: MIT */

#include "engine/bucket.h"

#include "test.h"

#define SEC USEC_PER_SEC
#define START (1000 * SEC)

static Bucket bucket(uint64_t n, uint64_t per_usec, uint64_t burst) {
        Bucket b = BUCKET_NULL;
        bucket_set(&b, n, per_usec, burst, START);
        return b;
}

TEST(a_new_one_is_full_and_an_empty_one_waits_for_exactly_one_token) {
        Bucket b = bucket(1, 10 * SEC, 1);
        ck_assert(bucket_has(&b, 1, START));
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START), 0);
        bucket_take(&b, START);
        ck_assert(!bucket_has(&b, 1, START));
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START), 10 * SEC);
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START + 3 * SEC), 7 * SEC);
        ck_assert(!bucket_has(&b, 1, START + 10 * SEC - 1));
        ck_assert(bucket_has(&b, 1, START + 10 * SEC));
}

TEST(no_more_fit_in_than_the_burst_however_long_it_stands) {
        Bucket b = bucket(1, 10 * SEC, 3);
        uint64_t later = START + 1000000 * SEC;
        ck_assert(bucket_has(&b, 3, later));
        ck_assert(!bucket_has(&b, 4, later));
        for (int i = 0; i < 3; i++)
                bucket_take(&b, later);
        ck_assert(!bucket_has(&b, 1, later + 10 * SEC - 1));
        ck_assert(bucket_has(&b, 1, later + 10 * SEC));
        ck_assert(!bucket_has(&b, 2, later + 10 * SEC));
}

TEST(a_third_of_a_second_loses_nothing_by_rounding) {
        Bucket b = bucket(3, SEC, 1);
        uint64_t now = START;
        for (int i = 0; i < 3000; i++) {
                now += bucket_wait_usec(&b, 1, now);
                bucket_take(&b, now);
        }
        ck_assert_uint_ge(now, START + 2999 * SEC / 3);
        ck_assert_uint_le(now, START + 2999 * SEC / 3 + 3000); /* a microsecond each, as times are whole ones */
}

TEST(what_was_taken_a_while_ago_counts_from_then) {
        Bucket b = bucket(1, 10 * SEC, 1);
        bucket_take(&b, START + 4 * SEC);
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START + 9 * SEC), 5 * SEC);
        Bucket full = bucket(1, 10 * SEC, 2);
        ck_assert(bucket_has(&full, 1, START + 50 * SEC));
        bucket_take(&full, START + 50 * SEC);
        bucket_take(&full, START + 45 * SEC); /* told later, though it was before */
        ck_assert_uint_eq(bucket_wait_usec(&full, 1, START + 50 * SEC), 10 * SEC);
}

TEST(what_is_put_back_is_there_at_once_and_no_more_than_fits) {
        Bucket b = bucket(1, 10 * SEC, 1);
        bucket_take(&b, START);
        bucket_put_back(&b);
        ck_assert(bucket_has(&b, 1, START));
        bucket_put_back(&b);
        ck_assert(!bucket_has(&b, 2, START));
        bucket_take(&b, START);
        bucket_take(&b, START); /* there is no debt */
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START), 10 * SEC);
}

TEST(a_change_keeps_what_is_in_it_in_tokens_and_no_change_changes_nothing) {
        Bucket b = bucket(1, 10 * SEC, 1);
        bucket_take(&b, START);
        bucket_set(&b, 1, 10 * SEC, 1, START + 5 * SEC);
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START + 5 * SEC), 5 * SEC);
        bucket_set(&b, 1, 100 * SEC, 1, START + 5 * SEC); /* half a token */
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START + 5 * SEC), 50 * SEC);
        bucket_set(&b, 1, 100 * SEC, 5, START + 5 * SEC); /* room for more, not more */
        ck_assert_uint_eq(bucket_wait_usec(&b, 1, START + 5 * SEC), 50 * SEC);
        bucket_set(&b, 0, 0, 5, START + 5 * SEC);
        ck_assert(!bucket_is_bounded(&b));
        bucket_set(&b, 1, 100 * SEC, 5, START + 5 * SEC);
        ck_assert(bucket_has(&b, 5, START + 5 * SEC));
        bucket_set(&b, 1, 100 * SEC, 2, START + 5 * SEC);
        ck_assert(!bucket_has(&b, 3, START + 5 * SEC));
}

TEST(what_a_late_timer_leaves_is_made_up_for_up_to_20_ms) {
        Bucket b = bucket(1000, SEC, 1);
        size_t n = 0;
        for (uint64_t now = START; now < START + SEC; now += 7000)
                while (bucket_has(&b, 1, now)) {
                        bucket_take(&b, now);
                        n++;
                }
        ck_assert_uint_ge(n, 990);
        ck_assert_uint_le(n, 1020);
        ck_assert(!bucket_has(&b, 21, START + 100 * SEC));
}

TEST(the_largest_numbers_fit) {
        Bucket b = bucket(BUCKET_N_MAX, BUCKET_PER_USEC_MAX, BUCKET_BURST_MAX);
        ck_assert(bucket_has(&b, BUCKET_BURST_MAX, START));
        ck_assert(!bucket_has(&b, BUCKET_BURST_MAX + 1, START));
        for (int i = 0; i < BUCKET_BURST_MAX; i++)
                bucket_take(&b, START);
        ck_assert(!bucket_has(&b, 1, START));
        uint64_t wait = bucket_wait_usec(&b, 1, START);
        ck_assert_uint_eq(wait, (BUCKET_PER_USEC_MAX + BUCKET_N_MAX - 1) / BUCKET_N_MAX);
        ck_assert(bucket_has(&b, BUCKET_BURST_MAX, USEC_NEVER));
        ck_assert(!bucket_has(&b, BUCKET_BURST_MAX + 1, USEC_NEVER));
        ck_assert_uint_eq(bucket_wait_usec(&b, UINT64_MAX, START), USEC_NEVER);
}

RUN_TESTS("bucket", 30, test_a_new_one_is_full_and_an_empty_one_waits_for_exactly_one_token,
          test_no_more_fit_in_than_the_burst_however_long_it_stands, test_a_third_of_a_second_loses_nothing_by_rounding,
          test_what_was_taken_a_while_ago_counts_from_then,
          test_what_is_put_back_is_there_at_once_and_no_more_than_fits,
          test_a_change_keeps_what_is_in_it_in_tokens_and_no_change_changes_nothing,
          test_what_a_late_timer_leaves_is_made_up_for_up_to_20_ms, test_the_largest_numbers_fit)
