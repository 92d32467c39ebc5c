/* SPDX-License-Identifier: MIT */
#pragma once

/* A table of text: collected row by row, printed when its widths are known. */

#include "proto/codec.h"

typedef struct TableCell {
        size_t start; /* in Table::text */
        uint32_t len;
        const char *color; /* of ECMA-48's SGR, as "31;1"; NULL: none. A literal. */
} TableCell;

typedef struct Table {
        unsigned n_columns;
        uint64_t right; /* bit per column: numbers stand to the right */
        EqBuffer text;
        TableCell *cells; /* row by row */
        size_t n_cells, cap_cells;
        bool failed; /* out of memory: what would be printed is incomplete */
} Table;
#define TABLE_NULL(n)                                                                                                  \
        { .n_columns = (n) }

/* Adds the next cell: what was appended to table->text since the last one, escaped already. */
void table_cell(Table *t, const char *color);
/* Appends the lines to `out`. max_columns > 0: lines are cut to that width; the last column gives way first. */
void table_print(const Table *t, unsigned max_columns, bool color, EqBuffer *out);
void table_deinit(Table *t);
