/* SPDX-License-Identifier: MIT */
#pragma once

/* A SeqTable of pointers, none of which is NULL. */

#include <errno.h>

#include "base/seqtable.h"

typedef SeqTable SeqIndex; /* zeros are fine */
#define SEQ_INDEX_NULL SEQ_TABLE_NULL(void *)

static inline void seq_index_done(SeqIndex *x) { /* what it points to is the caller's */
        seq_table_done(x);
}
static inline int seq_index_put(SeqIndex *x, uint64_t seq, void *value) { /* replaces. 0 or -ENOMEM */
        x->value_size = sizeof(void *);
        void **slot = (void **)seq_table_put(x, seq);
        if (!slot)
                return -ENOMEM;
        *slot = value;
        return 0;
}
static inline void *seq_index_get(const SeqIndex *x, uint64_t seq) { /* NULL: none */
        void **slot = (void **)seq_table_get(x, seq);
        return slot ? *slot : NULL;
}
static inline void seq_index_remove(SeqIndex *x, uint64_t seq) { /* also when there is none */
        seq_table_remove(x, seq);
}
static inline void *seq_index_next(const SeqIndex *x, uint64_t *seq) { /* as seq_table_next() */
        void **slot = (void **)seq_table_next(x, seq);
        return slot ? *slot : NULL;
}
