/* SPDX-License-Identifier: MIT */
#include "store/livemap.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "store/record.h"
#include "test.h"

enum { SEGMENTS = 9, PLACES = 5000 };

/* Numbers with gaps, as compaction and restarts leave them. */
static const uint32_t numbers[SEGMENTS] = { 7, 8, 9, 1, 200, 12, 11, 4000000000u, 10 };

TEST(a_map_holds_what_was_set_and_not_unset_or_dropped) {
        static bool want[SEGMENTS][PLACES];
        LiveMap m = { 0 };
        uint64_t state = 1;
        for (int step = 0; step < 200000; step++) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                uint32_t i = (uint32_t)(state >> 33) % SEGMENTS, k = (uint32_t)(state >> 40) % PLACES;
                uint32_t at = k * RECORD_HEADER + (uint32_t)(state >> 60) / 4 * 8; /* records begin at multiples of 8 */
                if (step % 20011 == 0) {
                        live_map_drop(&m, numbers[i]);
                        memset(want[i], 0, sizeof(want[i]));
                } else if (state >> 33 & 1024) {
                        ck_assert_int_eq(live_map_set(&m, numbers[i], at), 0);
                        want[i][k] = true;
                } else {
                        live_map_unset(&m, numbers[i], at);
                        want[i][k] = false;
                }
        }
        for (uint32_t i = 0; i < SEGMENTS; i++)
                for (uint32_t k = 0; k < PLACES; k++)
                        ck_assert_int_eq(live_map_get(&m, numbers[i], k * RECORD_HEADER), want[i][k]);
        ck_assert(!live_map_get(&m, 5, 64) && !live_map_get(&m, 7, UINT32_MAX));
        live_map_done(&m);
}

TEST(a_copy_has_one_segment_and_stays_as_it_was) {
        LiveMap m = { 0 }, copy = { 0 }, none = { 0 };
        for (uint32_t i = 0; i < SEGMENTS; i++)
                for (uint32_t k = 0; k < PLACES; k += i + 1)
                        ck_assert_int_eq(live_map_set(&m, numbers[i], k * RECORD_HEADER), 0);
        ck_assert_int_eq(live_map_copy(&m, numbers[2], &copy), 0);
        ck_assert_int_eq(live_map_copy(&m, 5, &none), 0); /* nothing is live in that one */
        live_map_unset(&m, numbers[2], 0);
        live_map_drop(&m, numbers[2]);
        for (uint32_t k = 0; k < PLACES; k++) {
                ck_assert_int_eq(live_map_get(&copy, numbers[2], k * RECORD_HEADER), k % 3 == 0);
                ck_assert(!live_map_get(&copy, numbers[1], k * RECORD_HEADER));
                ck_assert(!live_map_get(&none, 5, k * RECORD_HEADER));
        }
        live_map_done(&m);
        live_map_done(&copy);
        live_map_done(&none);
}

TEST(a_failed_allocation_changes_nothing) {
        LiveMap m = { 0 };
        ck_assert_int_eq(live_map_set(&m, 3, 4096), 0);
        for (unsigned n = 1; n <= 2; n++) { /* of a word behind those that are there; of a segment */
                fault_set(FAULT_ALLOC, 1, false);
                ck_assert_int_eq(live_map_set(&m, n == 1 ? 3 : 2, 64 << 20), -ENOMEM);
                fault_set(FAULT_ALLOC, 0, false);
        }
        for (unsigned n = 1; n <= 2; n++) { /* of the segment; of its words */
                LiveMap copy = { 0 };
                fault_set(FAULT_ALLOC, n, false);
                ck_assert_int_eq(live_map_copy(&m, 3, &copy), -ENOMEM);
                fault_set(FAULT_ALLOC, 0, false);
                ck_assert_uint_eq(copy.n, 0);
        }
        ck_assert(live_map_get(&m, 3, 4096) && !live_map_get(&m, 3, 64 << 20) && !live_map_get(&m, 2, 64 << 20));
        live_map_done(&m);
}

RUN_TESTS("livemap", 30, test_a_map_holds_what_was_set_and_not_unset_or_dropped,
          test_a_copy_has_one_segment_and_stays_as_it_was, test_a_failed_allocation_changes_nothing)
