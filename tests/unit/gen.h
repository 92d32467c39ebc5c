/* SPDX-License-Identifier: MIT */
#pragma once

/* Random MessagePack, valid and spoilt, for tests. Deterministic: the same seed gives the same bytes. */

#include <stdlib.h>
#include <string.h>

#include "codec.h"

static inline uint64_t gen_random(uint64_t *seed) {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        return *seed * UINT64_C(0x2545f4914f6cdd1d);
}

static inline uint64_t gen_below(uint64_t *seed, uint64_t n) {
        return (gen_random(seed) >> 16) % n;
}

static inline void gen_byte(EqBuffer *b, unsigned byte) {
        uint8_t c = (uint8_t)byte;
        if (eq_buffer_append(b, &c, 1) < 0)
                abort();
}

static inline void gen_bytes(uint64_t *seed, EqBuffer *b, size_t n) {
        while (n-- > 0)
                gen_byte(b, (unsigned)gen_random(seed));
}

static inline void gen_be(EqBuffer *b, uint64_t v, unsigned n) {
        while (n-- > 0)
                gen_byte(b, (unsigned)(v >> (8 * n)));
}

/* A value of any type but ext, nested at most `depth` deep, in any of the widths that the format allows. */
static inline void gen_value(uint64_t *seed, EqBuffer *b, unsigned depth) {
        static const uint8_t fixed[][2] = { { 0xc0, 0 }, { 0xc2, 0 }, { 0xc3, 0 }, { 0xca, 4 }, { 0xcb, 8 },
                                            { 0xcc, 1 }, { 0xcd, 2 }, { 0xce, 4 }, { 0xcf, 8 }, { 0xd0, 1 },
                                            { 0xd1, 2 }, { 0xd2, 4 }, { 0xd3, 8 } };
        unsigned width = 1U << gen_below(seed, 3), n = (unsigned)gen_below(seed, depth > 0 ? 5 : 40), i;

        switch (gen_below(seed, depth > 0 ? 8 : 5)) {
        case 0:
                gen_byte(b,
                         gen_below(seed, 2) ? (unsigned)gen_below(seed, 0x80) : 0xe0 | (unsigned)gen_below(seed, 32));
                return;
        case 1:
                i = (unsigned)gen_below(seed, sizeof(fixed) / sizeof(fixed[0]));
                gen_byte(b, fixed[i][0]);
                gen_bytes(seed, b, fixed[i][1]);
                return;
        case 2:
                n &= 31;
                gen_byte(b, 0xa0 | n);
                gen_bytes(seed, b, n);
                return;
        case 3: /* bin */
        case 4: /* str */
                gen_byte(b, (gen_below(seed, 2) ? 0xc4 : 0xd9) + (width == 4 ? 2 : width - 1));
                gen_be(b, n, width);
                gen_bytes(seed, b, n);
                return;
        case 5:
                gen_byte(b, 0x90 | n);
                break;
        case 6:
                width = width == 1 ? 2 : width;
                gen_byte(b, width == 2 ? 0xdc : 0xdd);
                gen_be(b, n, width);
                break;
        default:
                width = width == 1 ? 2 : width;
                if (gen_below(seed, 2)) {
                        gen_byte(b, 0x80 | n);
                } else {
                        gen_byte(b, width == 2 ? 0xde : 0xdf);
                        gen_be(b, n, width);
                }
                n *= 2;
        }
        for (i = 0; i < n; i++)
                gen_value(seed, b, depth - 1);
}

/* Changes, drops, doubles or adds a few bytes. */
static inline void gen_mutate(uint64_t *seed, EqBuffer *b) {
        for (uint64_t n = 1 + gen_below(seed, 3); n > 0; n--) {
                size_t at = b->len ? (size_t)gen_below(seed, b->len) : 0;
                switch (b->len ? gen_below(seed, 4) : 3) {
                case 0:
                        b->data[at] = (char)gen_random(seed);
                        break;
                case 1:
                        b->data[at] ^= (char)(1 << gen_below(seed, 8));
                        break;
                case 2:
                        memmove(b->data + at, b->data + at + 1, b->len - at - 1);
                        b->len--;
                        break;
                default:
                        gen_byte(b, 0);
                        memmove(b->data + at + 1, b->data + at, b->len - at - 1);
                        b->data[at] = (char)gen_random(seed);
                }
        }
}
