/* SPDX-License-Identifier: MIT */
#pragma once

/* Priorities of disk accesses as ioprio_set(2) takes them, which has no header in the C library. Pure. */

#include <stdbool.h>
#include <stdint.h>

enum { IOPRIO_REALTIME = 1, IOPRIO_BEST_EFFORT = 2, IOPRIO_IDLE = 3 }; /* classes */
enum { IOPRIO_PROCESS = 1, IOPRIO_LEVEL_MAX = 7, IOPRIO_SHIFT = 13 };

static inline uint32_t ioprio_make(uint32_t class, uint32_t level) {
        return class << IOPRIO_SHIFT | level;
}

static inline bool ioprio_is_realtime(uint32_t ioprio) {
        return ioprio >> IOPRIO_SHIFT == IOPRIO_REALTIME;
}

static inline bool ioprio_valid(uint32_t ioprio) {
        uint32_t class = ioprio >> IOPRIO_SHIFT, level = ioprio & ((1U << IOPRIO_SHIFT) - 1);
        return class >= IOPRIO_REALTIME && class <= IOPRIO_IDLE &&
               level <= (class == IOPRIO_IDLE ? 0 : IOPRIO_LEVEL_MAX);
}
