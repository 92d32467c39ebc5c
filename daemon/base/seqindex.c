/* SPDX-License-Identifier: MIT */
/* 64 numbers per page: a queue with one pending task costs half a kilobyte, a full one 8 bytes per task. A number below
 * the first page (a task put back after everything around it was gone) makes room at the front of the directory. */

#include "base/seqindex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"

enum { PAGE_SLOTS = 64, DIRECTORY_MIN = 4 };

struct SeqPage {
        unsigned n;
        void *slots[PAGE_SLOTS];
};

void seq_index_done(SeqIndex *x) {
        for (size_t i = 0; i < x->n_pages; i++)
                free(x->pages[i]);
        free(x->pages);
        *x = (SeqIndex)SEQ_INDEX_NULL;
}

/* Makes the directory reach from page `first` to page `last`. */
static int reach(SeqIndex *x, uint64_t first, uint64_t last) {
        size_t n = last - first + 1;
        if (n > x->cap) {
                size_t cap = x->cap ? x->cap : DIRECTORY_MIN;
                while (cap < n)
                        cap *= 2;
                SeqPage **pages = fault_realloc(x->pages, cap * sizeof(SeqPage *));
                if (!pages)
                        return -ENOMEM;
                x->pages = pages;
                x->cap = cap;
        }
        size_t shift = x->n_pages ? x->first_page - first : 0;
        memmove(x->pages + shift, x->pages, x->n_pages * sizeof(SeqPage *));
        memset(x->pages, 0, shift * sizeof(SeqPage *));
        memset(x->pages + shift + x->n_pages, 0, (n - shift - x->n_pages) * sizeof(SeqPage *));
        x->first_page = first;
        x->n_pages = n;
        return 0;
}

int seq_index_put(SeqIndex *x, uint64_t seq, void *value) {
        uint64_t page = seq / PAGE_SLOTS;
        uint64_t first = x->n_pages && x->first_page < page ? x->first_page : page;
        uint64_t end = x->first_page + x->n_pages;
        uint64_t last = x->n_pages && end > page + 1 ? end - 1 : page;
        if (first != x->first_page || last + 1 != end || x->n_pages == 0) {
                int r = reach(x, first, last);
                if (r < 0)
                        return r;
        }
        SeqPage **p = &x->pages[page - x->first_page];
        if (!*p) {
                *p = fault_calloc(1, sizeof(SeqPage));
                if (!*p)
                        return -ENOMEM;
        }
        void **slot = &(*p)->slots[seq % PAGE_SLOTS];
        if (!*slot) {
                (*p)->n++;
                x->n++;
        }
        *slot = value;
        return 0;
}

void *seq_index_get(const SeqIndex *x, uint64_t seq) {
        uint64_t page = seq / PAGE_SLOTS;
        if (page < x->first_page || page - x->first_page >= x->n_pages)
                return NULL;
        const SeqPage *p = x->pages[page - x->first_page];
        return p ? p->slots[seq % PAGE_SLOTS] : NULL;
}

/* Front pages that are gone leave the directory once they are half of it, so that the cost is spread. */
static void trim(SeqIndex *x) {
        size_t gone = 0;
        while (gone < x->n_pages && !x->pages[gone])
                gone++;
        if (gone == x->n_pages) {
                x->n_pages = 0;
                if (x->cap > 256) {
                        free(x->pages);
                        x->pages = NULL;
                        x->cap = 0;
                }
                return;
        }
        if (gone < x->n_pages / 2)
                return;
        memmove(x->pages, x->pages + gone, (x->n_pages - gone) * sizeof(SeqPage *));
        x->n_pages -= gone;
        x->first_page += gone;
}

void seq_index_remove(SeqIndex *x, uint64_t seq) {
        uint64_t page = seq / PAGE_SLOTS;
        if (!seq_index_get(x, seq))
                return;
        SeqPage **p = &x->pages[page - x->first_page];
        (*p)->slots[seq % PAGE_SLOTS] = NULL;
        x->n--;
        if (--(*p)->n > 0)
                return;
        free(*p);
        *p = NULL;
        if (page == x->first_page || x->n == 0)
                trim(x);
}

void *seq_index_next(const SeqIndex *x, uint64_t *seq) {
        uint64_t s = *seq < x->first_page * PAGE_SLOTS ? x->first_page * PAGE_SLOTS : *seq;
        for (;;) {
                uint64_t i = s / PAGE_SLOTS - x->first_page;
                if (i >= x->n_pages)
                        return NULL;
                const SeqPage *p = x->pages[i];
                for (; p && s / PAGE_SLOTS - x->first_page == i; s++)
                        if (p->slots[s % PAGE_SLOTS]) {
                                *seq = s;
                                return p->slots[s % PAGE_SLOTS];
                        }
                if (!p)
                        s = (s / PAGE_SLOTS + 1) * PAGE_SLOTS;
        }
}
