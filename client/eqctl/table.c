/* SPDX-License-Identifier: MIT */
/* Columns are as wide as their widest cell, two spaces apart; the last one is not padded. */

#include "eqctl/table.h"

#include <stdlib.h>

#include "eqctl/text.h"

enum { COLUMNS_MAX = 64, GAP = 2 };

void table_cell(Table *t, const char *color) {
        size_t start = 0;

        if (t->n_cells > 0)
                start = t->cells[t->n_cells - 1].start + t->cells[t->n_cells - 1].len;
        if (t->n_cells == t->cap_cells) {
                size_t cap = t->cap_cells ? 2 * t->cap_cells : 64;
                TableCell *cells = realloc(t->cells, cap * sizeof(*cells));
                if (!cells) {
                        t->failed = true;
                        return;
                }
                t->cells = cells;
                t->cap_cells = cap;
        }
        t->cells[t->n_cells++] = (TableCell) { .start = start, .len = (uint32_t)(t->text.len - start), .color = color };
        t->failed |= t->text.failed;
}

static EqBytes cell_text(const Table *t, size_t i) {
        return eq_bytes(t->text.data + t->cells[i].start, t->cells[i].len);
}

static void pad(EqBuffer *out, unsigned n) {
        for (; n > 0; n--)
                text_cstr(out, " ");
}

static void print_cell(const Table *t, size_t i, unsigned width, unsigned max, bool last, bool color, EqBuffer *out) {
        const TableCell *c = &t->cells[i];
        EqBytes s = cell_text(t, i);
        unsigned w = text_width(s), shown = w < max ? w : max;
        bool right = t->right >> (i % t->n_columns) & 1;

        if (right && shown < width)
                pad(out, width - shown);
        if (color && c->color && shown > 0)
                text_printf(out, "\x1b[%sm", c->color);
        text_cut(out, s, max);
        if (color && c->color && shown > 0)
                text_cstr(out, "\x1b[0m");
        if (!right && !last && shown < width)
                pad(out, width - shown);
}

void table_print(const Table *t, unsigned max_columns, bool color, EqBuffer *out) {
        unsigned widths[COLUMNS_MAX] = { 0 };

        if (t->n_columns == 0 || t->n_columns > COLUMNS_MAX)
                return;
        for (size_t i = 0; i < t->n_cells; i++) {
                unsigned w = text_width(cell_text(t, i));
                if (w > widths[i % t->n_columns])
                        widths[i % t->n_columns] = w;
        }
        for (size_t i = 0, used = 0; i < t->n_cells; i++) {
                unsigned column = (unsigned)(i % t->n_columns);
                bool last = column + 1 == t->n_columns;
                unsigned max = UINT32_MAX, width = widths[column];

                if (column == 0)
                        used = 0;
                if (max_columns > 0) {
                        max = used < max_columns ? max_columns - (unsigned)used : 0;
                        width = width < max ? width : max;
                }
                print_cell(t, i, width, max, last, color, out);
                used += width;
                if (last)
                        text_cstr(out, "\n");
                else if (max_columns == 0 || used + GAP < max_columns) {
                        pad(out, GAP);
                        used += GAP;
                } else
                        used = max_columns;
        }
}

void table_deinit(Table *t) {
        eq_buffer_done(&t->text);
        free(t->cells);
        *t = (Table)TABLE_NULL(t->n_columns);
}
