/* SPDX-License-Identifier: MIT */
#pragma once

/* Which places of the segments still say something: a bit for each of them, so that who walks along a segment need not look up
 * each record that is dead by now. 256 KiB for a segment of 64 MiB. Not thread-safe. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct LiveSegment {
        uint64_t *words; /* owned */
        uint32_t number, n_words;
} LiveSegment;

typedef struct LiveMap {
        LiveSegment *segments; /* n, by number; owned */
        size_t n, cap;
} LiveMap;

/* Of a record at `at` of that segment. */
int live_map_set(LiveMap *m, uint32_t segment, uint32_t at); /* 0 or -ENOMEM */
void live_map_unset(LiveMap *m, uint32_t segment, uint32_t at);
bool live_map_get(const LiveMap *m, uint32_t segment, uint32_t at);
int live_map_copy(const LiveMap *m, uint32_t segment, LiveMap *ret); /* of that segment alone; 0 or -ENOMEM */
void live_map_drop(LiveMap *m, uint32_t segment);                    /* it is gone */
void live_map_done(LiveMap *m);
