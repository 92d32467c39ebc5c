/* SPDX-License-Identifier: MIT */
#pragma once

/* What a record holds follows from what it is of, so whoever reads it can tell whether it is the right one. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "store/store.h"
#include "trace.h"

enum {
        VICTIM_SEGMENT = 64 * 1024,
        VICTIM_NAMES = 8,   /* queues have one of so many names */
        VICTIM_BODY = 14000 /* a large one: some pages */
};

/* Exit status of a victim whose calls may fail. */
enum {
        VICTIM_REFUSED = 10, /* it could not be opened, and was told why */
        VICTIM_FAILED = 11,  /* the store has failed, and has taken and promised nothing since */
        VICTIM_FULL = 12,    /* it had no space to the end, and has taken nothing that grows */
};

static inline uint64_t victim_mix(uint64_t v) {
        v ^= v >> 31;
        v *= UINT64_C(0x9E3779B97F4A7C15);
        v ^= v >> 29;
        v *= UINT64_C(0xBF58476D1CE4E5B9);
        return v ^ v >> 32;
}

/* Of a TASK, version is 0; a STATE, END or QUEUE of each other position has another one. */
static inline uint32_t victim_body(uint64_t queue, uint64_t seq, uint32_t kind, uint64_t version, char *ret) {
        uint64_t v = victim_mix(queue << 40 ^ seq << 8 ^ kind ^ victim_mix(version));
        uint32_t n = kind == STORE_TASK && v % 41 == 0 ? 4000 + (uint32_t)(v >> 20) % (VICTIM_BODY - 4000)
                                                       : 8 + (uint32_t)(v >> 20) % 300;
        memcpy(ret, &version, 8);
        for (uint32_t i = 8; i < n; i++) {
                v = v * UINT64_C(6364136223846793005) + 1;
                ret[i] = (char)(v >> 56);
        }
        return n;
}

static inline bool victim_is_right(uint64_t queue, uint64_t seq, uint32_t kind, StoreBytes b, uint64_t *ret_version) {
        static char body[VICTIM_BODY];
        if (b.len < 8)
                return false;
        memcpy(ret_version, b.data, 8);
        return victim_body(queue, seq, kind, *ret_version, body) == b.len && memcmp(body, b.data, b.len) == 0;
}

/* Queues are made again with the same name and another id. */
static inline void victim_name(uint64_t queue, char ret[static 8]) {
        (void)snprintf(ret, 8, "q%u", (unsigned)(queue % VICTIM_NAMES));
}
