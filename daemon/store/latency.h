/* SPDX-License-Identifier: MIT */
#pragma once

/* How long something took, counted in buckets of a quarter of a power of two: what is told of it is at most a fifth too much, and it
 * takes the same memory for ever. Zeros are the empty one. Pure. */

#include <stddef.h>
#include <stdint.h>

enum { LATENCY_BUCKETS = 4 * 32 };

typedef struct Latency {
        uint64_t n, max_usec;
        uint64_t buckets[LATENCY_BUCKETS];
} Latency;

/* 0 to 7 have a bucket each; then four for each power of two. The last one has no upper end. */
static inline unsigned latency_bucket(uint64_t usec) {
        if (usec < 8)
                return (unsigned)usec;
        unsigned log = 63 - (unsigned)__builtin_clzll(usec);
        unsigned bucket = 8 + (log - 3) * 4 + (unsigned)(usec >> (log - 2) & 3);
        return bucket < LATENCY_BUCKETS ? bucket : LATENCY_BUCKETS - 1;
}

/* The largest value of a bucket but the last. */
static inline uint64_t latency_bucket_end(unsigned bucket) {
        if (bucket < 8)
                return bucket;
        unsigned log = 3 + (bucket - 8) / 4;
        return (UINT64_C(1) << log) + (((bucket - 8) % 4 + UINT64_C(1)) << (log - 2)) - 1;
}

static inline void latency_add(Latency *l, uint64_t usec) {
        l->n++;
        l->buckets[latency_bucket(usec)]++;
        if (usec > l->max_usec)
                l->max_usec = usec;
}

/* So many percent of them took at most that; 0 if there were none. */
static inline uint64_t latency_percentile(const Latency *l, unsigned percent) {
        uint64_t wanted = (l->n * percent + 99) / 100, seen = 0;
        for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
                seen += l->buckets[i];
                if (l->n > 0 && seen >= wanted) {
                        uint64_t end = latency_bucket_end(i);
                        return i == LATENCY_BUCKETS - 1 || end > l->max_usec ? l->max_usec : end;
                }
        }
        return 0;
}
