/* SPDX-License-Identifier: MIT */
#pragma once

/* A token bucket: so many in so much time, and a few at once after a pause. Pure arithmetic, exact to the microsecond: the caller
 * brings the clock, and asks before he takes. */

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

#define BUCKET_PER_USEC_MAX (31 * 24 * 60 * 60 * USEC_PER_SEC)
enum { BUCKET_N_MAX = 1000000, BUCKET_BURST_MAX = 1000000 };
/* Of what comes in so much time nothing is lost by a timer that is late, whatever the burst. */
#define BUCKET_GRAIN_USEC (20 * USEC_PER_MSEC)

typedef struct Bucket {
        uint64_t n, per_usec; /* n tokens come in per_usec. n 0: no bounds, and all of it zero */
        uint64_t burst;
        uint64_t credit;  /* a token costs per_usec of it, and n of it come each microsecond */
        uint64_t at_usec; /* it was that then */
} Bucket;
#define BUCKET_NULL                                                                                                    \
        { 0 } /* no bounds */

static inline bool bucket_is_bounded(const Bucket *b) {
        return b->n > 0;
}

/* A bucket without bounds becomes a full one; else what was in it stays, up to what fits. n 0: no bounds. */
void bucket_set(Bucket *b, uint64_t n, uint64_t per_usec, uint64_t burst, uint64_t now_usec);

/* The others are for one that is bounded. */
bool bucket_has(const Bucket *b, uint64_t n_tokens, uint64_t now_usec);
/* How long until so many are there; more than fit never are, but that is not looked at. 0: they are. */
uint64_t bucket_wait_usec(const Bucket *b, uint64_t n_tokens, uint64_t now_usec);
/* One was taken at that time, which may be a while ago. Empty is empty: there is no debt. */
void bucket_take(Bucket *b, uint64_t usec);
void bucket_put_back(Bucket *b);
