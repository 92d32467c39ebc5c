/* SPDX-License-Identifier: MIT */
#pragma once

/* A map from numbers that count up to values of one size: pages of values below a tree that is as high as the largest number
 * so far asks for. Look-up, insertion and removal take a step for each six bits of it, whatever is in the map; a page and the
 * nodes above it go back with their last entry. Walks in order of the number. Not thread-safe. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct SeqTable {
        void *root;        /* a page if n_levels is 1; NULL: nothing is in it */
        unsigned n_levels; /* of nodes, and the pages; 0 without a root */
        size_t n, value_size;
        void *last;       /* the page that was put to last; NULL: none, or it is gone */
        uint64_t last_no; /* its number, counted in pages */
} SeqTable;
#define SEQ_TABLE_NULL(Type)                                                                                           \
        { .value_size = sizeof(Type) }

void seq_table_done(SeqTable *x); /* what the values own is the caller's */
/* The value of seq, zeros if it is new; NULL: out of memory. Values stay where they are until they are removed. */
void *seq_table_put(SeqTable *x, uint64_t seq);
void *seq_table_get(const SeqTable *x, uint64_t seq);      /* NULL: none */
void seq_table_remove(SeqTable *x, uint64_t seq);          /* also when there is none */
bool seq_table_take(SeqTable *x, uint64_t seq, void *ret); /* its value, copied, and it is removed; false: none */
/* Has the processor fetch it, if there is one: for those that are looked up soon, several at a time. */
void seq_table_prefetch(const SeqTable *x, uint64_t seq);
/* The entry with the smallest number >= *seq, which becomes that number; NULL: none. */
void *seq_table_next(const SeqTable *x, uint64_t *seq);
