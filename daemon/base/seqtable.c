/* SPDX-License-Identifier: MIT */
/* A radix tree (as the page cache of Linux, lib/radix-tree.c) over pages of 64 values. It costs what is in it, however far
 * apart the numbers are: a task that is due next month stays while thousands of millions come and go behind it. */

#include "base/seqtable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

enum { BITS = 6, FANOUT = 1 << BITS, LEVELS_MAX = (64 + BITS - 1) / BITS };

typedef struct Node {
        unsigned n; /* slots in use; none: it goes */
        void *slots[FANOUT];
} Node;

typedef struct Page {
        uint64_t present; /* a bit for each value */
        char values[];
} Page;
_Static_assert(FANOUT == 64, "a bit for each");

static void *value_at(const SeqTable *x, Page *p, uint64_t seq) {
        return p->values + seq % FANOUT * x->value_size;
}

static uint64_t bit_of(uint64_t seq) {
        return UINT64_C(1) << seq % FANOUT;
}

/* Where seq goes on from a node whose children stand at `level`; pages stand at level 1. */
static unsigned slot_of(uint64_t seq, unsigned level) {
        return (unsigned)(seq >> level * BITS) % FANOUT;
}

static bool reaches(const SeqTable *x, uint64_t seq) {
        return x->n_levels == LEVELS_MAX || seq >> x->n_levels * BITS == 0;
}

/* The page of seq, or NULL; *ret_level is the level at which the way ended. The tree must reach seq. */
static Page *page_of(const SeqTable *x, uint64_t seq, unsigned *ret_level) {
        void *at = x->root;
        unsigned level = x->n_levels;
        while (at && level > 1)
                at = ((Node *)at)->slots[slot_of(seq, --level)];
        *ret_level = level;
        return at;
}

static void free_below(void *at, unsigned level) {
        for (unsigned i = 0; at && level > 1 && i < FANOUT; i++)
                free_below(((Node *)at)->slots[i], level - 1);
        free(at);
}

void seq_table_done(SeqTable *x) {
        free_below(x->root, x->n_levels);
        *x = (SeqTable) { .value_size = x->value_size };
}

/* Takes away the page of seq if it is there and empty, and the nodes above it that are empty then. */
static void prune(SeqTable *x, uint64_t seq) {
        void **way[LEVELS_MAX + 1]; /* way[level] leads to what stands at that level */
        unsigned level = x->n_levels;
        way[level] = &x->root;
        while (level > 1 && *way[level]) {
                Node *node = *way[level--];
                way[level] = &node->slots[slot_of(seq, level)];
        }
        if (*way[level] && ((Page *)*way[level])->present)
                return;
        x->last = NULL;
        for (;;) {
                if (*way[level] && level < x->n_levels)
                        ((Node *)*way[level + 1])->n--;
                free(*way[level]);
                *way[level] = NULL;
                if (level == x->n_levels || ((Node *)*way[level + 1])->n > 0)
                        break;
                level++;
        }
        if (!x->root)
                x->n_levels = 0;
}

/* Puts nodes above the root until the tree reaches seq. */
static int grow(SeqTable *x, uint64_t seq) {
        while (x->n_levels == 0 || !reaches(x, seq)) {
                if (x->root) {
                        Node *above = fault_calloc(1, sizeof(Node));
                        if (!above)
                                return -ENOMEM;
                        above->slots[0] = x->root;
                        above->n = 1;
                        x->root = above;
                }
                x->n_levels++;
        }
        return 0;
}

/* The page of seq, made if it is not there; NULL: out of memory. */
static Page *make_page(SeqTable *x, uint64_t seq) {
        if (grow(x, seq) < 0)
                return NULL;
        void **at = &x->root;
        Node *above = NULL;
        for (unsigned level = x->n_levels; level > 0; level--) {
                if (!*at) {
                        *at = fault_calloc(1, level > 1 ? sizeof(Node) : sizeof(Page) + FANOUT * x->value_size);
                        if (!*at) {
                                prune(x, seq);
                                return NULL;
                        }
                        if (above)
                                above->n++;
                }
                if (level > 1) {
                        above = *at;
                        at = &above->slots[slot_of(seq, level - 1)];
                }
        }
        return *at;
}

void *seq_table_put(SeqTable *x, uint64_t seq) {
        Page *p = x->last; /* numbers count up, so the next one is mostly there too */
        if (!p || x->last_no != seq / FANOUT) {
                p = make_page(x, seq);
                if (!p)
                        return NULL;
                x->last = p;
                x->last_no = seq / FANOUT;
        }
        if (!(p->present & bit_of(seq))) {
                p->present |= bit_of(seq);
                memset(value_at(x, p, seq), 0, x->value_size);
                x->n++;
        }
        return value_at(x, p, seq);
}

void seq_table_prefetch(const SeqTable *x, uint64_t seq) {
        unsigned level;
        Page *p = reaches(x, seq) ? page_of(x, seq, &level) : NULL;
        if (!p)
                return;
        __builtin_prefetch(p);
        __builtin_prefetch(value_at(x, p, seq));
}

void *seq_table_get(const SeqTable *x, uint64_t seq) {
        unsigned level;
        Page *p = reaches(x, seq) ? page_of(x, seq, &level) : NULL;
        return p && (p->present & bit_of(seq)) ? value_at(x, p, seq) : NULL;
}

static bool take_out(SeqTable *x, uint64_t seq, void *ret) {
        unsigned level;
        Page *p = reaches(x, seq) ? page_of(x, seq, &level) : NULL;
        if (!p || !(p->present & bit_of(seq)))
                return false;
        if (ret)
                memcpy(ret, value_at(x, p, seq), x->value_size);
        p->present &= ~bit_of(seq);
        x->n--;
        if (!p->present)
                prune(x, seq);
        return true;
}

void seq_table_remove(SeqTable *x, uint64_t seq) {
        (void)take_out(x, seq, NULL); /* none: nothing to do */
}

bool seq_table_take(SeqTable *x, uint64_t seq, void *ret) {
        return take_out(x, seq, ret);
}

void *seq_table_next(const SeqTable *x, uint64_t *seq) {
        uint64_t s = *seq;
        while (x->root && reaches(x, s)) {
                unsigned level;
                Page *p = page_of(x, s, &level);
                uint64_t left = p ? p->present >> s % FANOUT : 0;
                if (left) {
                        *seq = s + (uint64_t)__builtin_ctzll(left);
                        return value_at(x, p, *seq);
                }
                uint64_t all = (UINT64_C(1) << level * BITS) - 1; /* that stand below where the way ended */
                if ((s | all) == UINT64_MAX)
                        break;
                s = (s | all) + 1;
        }
        return NULL;
}
