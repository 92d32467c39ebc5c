/* SPDX-License-Identifier: MIT */
/* malloc knows how large a block is: nothing is kept beside it. Where a sanitizer watches what is freed nothing is kept at all, or
 * it would not see a use of it. */

#include "base/spares.h"

#include <malloc.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/util.h"

const size_t spares_bytes_max = IS_SANITIZED ? 0 : SPARES_BYTES;

typedef struct Spare {
        struct Spare *next;
} Spare;

/* A size of malloc is a multiple of a step and a half; a class holds what is that much at least. */
static size_t class_for(size_t size) {
        return (size + SPARES_STEP / 2 - 1) / SPARES_STEP;
}

static size_t class_of(size_t usable) {
        return (usable - SPARES_STEP / 2) / SPARES_STEP;
}

void *spares_malloc(Spares *s, size_t size) {
        Spare **list = size <= SPARES_LARGEST ? &s->lists[class_for(size)] : NULL;
        if (!list || !*list)
                return fault_malloc(size);
        if (fault_hit(FAULT_ALLOC))
                return NULL;
        Spare *p = *list;
        *list = p->next;
        s->n_bytes -= malloc_usable_size(p);
        return p;
}

void spares_free(Spares *s, void *p) {
        Spare *spare = p;
        if (!p)
                return;
        size_t usable = malloc_usable_size(p);
        if (usable < SPARES_STEP || class_of(usable) >= SPARES_CLASSES || s->n_bytes + usable > spares_bytes_max) {
                free(p);
                return;
        }
        Spare **list = &s->lists[class_of(usable)];
        spare->next = *list;
        *list = spare;
        s->n_bytes += usable;
}

void spares_clear(Spares *s) {
        for (size_t i = 0; i < SPARES_CLASSES; i++)
                for (Spare *p; (p = s->lists[i]);) {
                        s->lists[i] = p->next;
                        free(p);
                }
        s->n_bytes = 0;
}
