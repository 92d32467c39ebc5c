/* SPDX-License-Identifier: MIT */
#pragma once

/* uthash, where being out of memory is an error and not the end: after HASH_ADD() `hh.tbl` is NULL if it failed. Its
 * memory comes through the allocation fault seam. */

#define HASH_NONFATAL_OOM 1
#define uthash_malloc(n) fault_malloc(n)

#include <uthash.h>

#include "base/fault.h"

/* Tables whose keys are numbers that eqd gives, as of queues: a product, whose upper half depends on all of their bits, in place of a
 * hash over bytes. Not for what others choose: it would be easy to choose what collides. Both go with HASH_DELETE(). */
static inline uint32_t hash_number(uint64_t v) {
        return (uint32_t)((v ^ v >> 32) * UINT64_C(0x9E3779B97F4A7C15) >> 32);
}
#define HASH_FIND_NUMBER(head, number, out)                                                                            \
        HASH_FIND_BYHASHVALUE(hh, head, &(number), sizeof(uint64_t), hash_number(number), out)
#define HASH_ADD_NUMBER(head, field, add)                                                                              \
        HASH_ADD_BYHASHVALUE(hh, head, field, sizeof(uint64_t), hash_number((add)->field), add)
