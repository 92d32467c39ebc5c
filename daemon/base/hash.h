/* SPDX-License-Identifier: MIT */
#pragma once

/* uthash, where being out of memory is an error and not the end: after HASH_ADD() `hh.tbl` is NULL if it failed. Its
 * memory comes through the allocation fault seam. */

#define HASH_NONFATAL_OOM 1
#define uthash_malloc(n) fault_malloc(n)

#include <stdint.h>
#include <string.h>

/* Numbers, which most keys are, need no more than a product: its upper half depends on all of their bits. */
static inline uint32_t hash_number(const void *key) {
        uint64_t v;
        memcpy(&v, key, sizeof(v));
        return (uint32_t)((v ^ v >> 32) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
}
#define HASH_FUNCTION(keyptr, keylen, hashv)                                                                           \
        do {                                                                                                           \
                if ((keylen) == sizeof(uint64_t))                                                                      \
                        (hashv) = hash_number(keyptr);                                                                 \
                else                                                                                                   \
                        HASH_JEN(keyptr, keylen, hashv);                                                               \
        } while (0)

#include <uthash.h>

#include "base/fault.h"
