/* SPDX-License-Identifier: MIT */
#pragma once

/* For much memory that is written right away, from front to back: a fault for each 2 MiB of it instead of each 4 KiB, where the system
 * has such pages. Nothing depends on it. Any thread. */

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

static inline void huge_pages(void *p, size_t n) {
        const uintptr_t huge = 2 << 20, begin = ((uintptr_t)p + huge - 1) & ~(huge - 1),
                        end = ((uintptr_t)p + n) & ~(huge - 1);
        if (begin < end)
                (void)madvise((char *)p + (begin - (uintptr_t)p), end - begin, MADV_HUGEPAGE);
}
