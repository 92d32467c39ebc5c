/* SPDX-License-Identifier: MIT */
#pragma once

/* How many workers a pool of threads has: kept up to date by them, for those who must not wait for their lock. Any thread. */

#include <stdint.h>

#include "engine/atomics.h"

typedef struct WorkersCount {
        ATOMIC(uint64_t) n, n_idle;
} WorkersCount;
