/* SPDX-License-Identifier: MIT */
#pragma once

/* Records kept until all are there, and given back in the order of one of their fields. */

#include "eqctl/ctl.h"

typedef struct SortedRecord SortedRecord;

typedef struct Sorter {
        Ctl *ctl;
        const EqSchema *schema;
        int field;
        bool numbers, descending;
        EqBuffer bytes, texts; /* packed records, and the values of the field that are no numbers; ended by NUL */
        SortedRecord *records; /* owned */
        size_t n, n_room;
        bool failed; /* there was no memory */
} Sorter;

/* by: the name of a field, with - before it in descending order. What goes by another name is found in aliases: pairs of names
 * up to NULL. 0, or the exit status. */
int sorter_init(Sorter *s, Ctl *ctl, const EqSchema *schema, const char *by, const char *const *aliases);
void sorter_add(Sorter *s, const void *rec);
/* Calls fn for each. Records without the field come first, equal ones in the order in which they came. rec has room for a record
 * of the schema. 0, or the exit status. */
int sorter_each(Sorter *s, void *rec, size_t rec_size, void (*fn)(void *userdata, const void *rec), void *userdata);
void sorter_deinit(Sorter *s);
