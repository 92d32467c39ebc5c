/* SPDX-License-Identifier: MIT */
/* Pieces cut off mappings, one behind the other. What is left of a mapping that is too small for the next piece is lost. */

#include "spawner/private.h"

#include <stdint.h>
#include <sys/mman.h>

#include "base/fault.h"
#include "base/util.h"

enum { MAPPING = 64 * 1024, ALIGN = 16 };

void *private_alloc(size_t n) {
        static char *next;
        static size_t n_left;

        if (fault_hit(FAULT_ALLOC) || n > SIZE_MAX - MAPPING)
                return NULL;
        n = (n + ALIGN - 1) / ALIGN * ALIGN;
        if (n > n_left) {
                size_t size = MAX((n + MAPPING - 1) / MAPPING * MAPPING, (size_t)MAPPING);
                char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (p == MAP_FAILED)
                        return NULL;
                (void)madvise(p, size, MADV_DONTFORK); /* else it is copied, which is only slower */
                next = p;
                n_left = size;
        }
        char *piece = next;
        next += n;
        n_left -= n;
        return piece;
}
