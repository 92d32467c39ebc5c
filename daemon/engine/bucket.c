/* SPDX-License-Identifier: MIT */
/* Credit is counted in microseconds times tokens, so 3 in a second lose nothing by rounding. With the bounds of the header no product
 * of them leaves 64 bits. */

#include "engine/bucket.h"

#include <assert.h>

#include "base/util.h"

static uint64_t capacity(const Bucket *b) {
        return MAX(b->burst * b->per_usec, b->n * BUCKET_GRAIN_USEC);
}

static uint64_t credit_at(const Bucket *b, uint64_t usec) {
        uint64_t passed = usec > b->at_usec ? usec - b->at_usec : 0, full = capacity(b);
        return passed > (full - b->credit) / b->n ? full : b->credit + passed * b->n;
}

void bucket_set(Bucket *b, uint64_t n, uint64_t per_usec, uint64_t burst, uint64_t now_usec) {
        Bucket new = { .n = n, .per_usec = per_usec, .burst = burst, .at_usec = now_usec };
        if (n == 0) {
                *b = (Bucket)BUCKET_NULL;
                return;
        }
        assert(n <= BUCKET_N_MAX && per_usec <= BUCKET_PER_USEC_MAX && burst <= BUCKET_BURST_MAX);
        new.credit = capacity(&new);
        if (bucket_is_bounded(b)) {
                unsigned __int128 kept = (unsigned __int128)credit_at(b, now_usec) * per_usec / b->per_usec;
                if (kept < new.credit)
                        new.credit = (uint64_t)kept;
        }
        *b = new;
}

bool bucket_has(const Bucket *b, uint64_t n_tokens, uint64_t now_usec) {
        return credit_at(b, now_usec) / b->per_usec >= n_tokens;
}

uint64_t bucket_wait_usec(const Bucket *b, uint64_t n_tokens, uint64_t now_usec) {
        uint64_t credit = credit_at(b, now_usec), wanted;
        if (__builtin_mul_overflow(n_tokens, b->per_usec, &wanted))
                return USEC_NEVER;
        return wanted > credit ? (wanted - credit - 1) / b->n + 1 : 0;
}

void bucket_take(Bucket *b, uint64_t usec) {
        b->credit = credit_at(b, usec);
        b->at_usec = MAX(b->at_usec, usec);
        b->credit -= MIN(b->credit, b->per_usec);
}

void bucket_put_back(Bucket *b) {
        b->credit = MIN(b->credit + b->per_usec, capacity(b));
}
