/* SPDX-License-Identifier: MIT */
#pragma once

/* Blocks of malloc() that were freed and are wanted again, by their size. Where thousands live for the time of one commit and go
 * together, malloc merges and splits them each time, and the longer the more else there is in the heap; here they wait for the
 * next ones, SPARES_BYTES of them at most. One thread. */

#include <stddef.h>

enum {
        SPARES_BYTES = 1 << 20,
        SPARES_LARGEST = 1024, /* a block of more is malloc's */
        SPARES_STEP = 16,      /* that sizes of malloc differ by */
        SPARES_CLASSES = SPARES_LARGEST / SPARES_STEP + 1,
};

typedef struct Spares {
        struct Spare *lists[SPARES_CLASSES]; /* all of a list have the size of its class or a little more */
        size_t n_bytes;
} Spares;
#define SPARES_NULL                                                                                                    \
        { 0 }

extern const size_t spares_bytes_max; /* SPARES_BYTES; 0 where a sanitizer watches what is freed */

void *spares_malloc(Spares *s, size_t size); /* for spares_free() or free(). NULL: out of memory */
void spares_free(Spares *s, void *p);        /* of spares_malloc(); NULL is fine */
void spares_clear(Spares *s);                /* gives all to malloc; repeatable */
