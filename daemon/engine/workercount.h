/* SPDX-License-Identifier: MIT */
#pragma once

/* How many workers a pool of threads has: kept up to date by them, for those who must not wait for their lock. Any thread. */

#include <stdatomic.h>
#include <stdint.h>

typedef struct WorkersCount {
        _Atomic uint64_t n, n_idle;
} WorkersCount;
