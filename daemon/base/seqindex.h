/* SPDX-License-Identifier: MIT */
#pragma once

/* A map from numbers that count up to pointers: pages of slots behind a growing directory. Look-up, insertion and removal
 * are O(1) whatever is in it; a page goes back when its last entry does, the directory when its front pages are gone.
 * Walks in order of the number. Not thread-safe. */

#include <stddef.h>
#include <stdint.h>

typedef struct SeqPage SeqPage;

typedef struct SeqIndex {
        SeqPage **pages; /* pages[i] holds the numbers of page first_page + i; NULL: none of them */
        uint64_t first_page;
        size_t n_pages, cap, n;
} SeqIndex;
#define SEQ_INDEX_NULL                                                                                                 \
        { 0 }

void seq_index_done(SeqIndex *x);                          /* what it points to is the caller's */
int seq_index_put(SeqIndex *x, uint64_t seq, void *value); /* value not NULL; replaces. 0 or -ENOMEM */
void *seq_index_get(const SeqIndex *x, uint64_t seq);      /* NULL: none */
void seq_index_remove(SeqIndex *x, uint64_t seq);          /* also when there is none */
/* The entry with the smallest number >= *seq, which becomes that number; NULL: none. */
void *seq_index_next(const SeqIndex *x, uint64_t *seq);
