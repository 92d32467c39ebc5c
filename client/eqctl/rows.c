/* SPDX-License-Identifier: MIT */
/* Formats that need no widths are printed row by row, so that a million tasks need no memory here; table and wide are
 * collected first. Fields are formatted by their type and by the ending of their name (_usec), from the schema. */

#include "eqctl/rows.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "eqctl/duration.h"
#include "eqctl/json.h"
#include "eqctl/text.h"

int print_buffer(const Ctl *ctl, EqBuffer *b) {
        bool failed = b->failed;

        if (b->len > 0 && fwrite(b->data, 1, b->len, stdout) != b->len) {
                ctl_error(ctl, "cannot write to standard output: %m");
                return EXIT_FAILURE;
        }
        b->len = 0;
        b->failed = false;
        return failed ? ctl_no_memory(ctl) : 0;
}

/* ---- a field as text ---- */

static bool ends_with(const EqField *f, const char *end) {
        size_t n = strlen(end);
        return f->name_len >= n && memcmp(f->name + f->name_len - n, end, n) == 0;
}

/* Times of day are far above any duration that eqd takes. */
static void put_usec(EqBuffer *b, uint64_t usec) {
        char text[40];
        time_t t = (time_t)(usec / 1000000);
        struct tm tm;

        if (usec > UINT64_C(500000000000000) && localtime_r(&t, &tm) &&
            strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm) > 0)
                text_cstr(b, text);
        else
                text_cstr(b, duration_format(usec, text));
}

static void put_number(Ctl *ctl, const EqField *f, uint64_t n, bool machine, EqBuffer *b) {
        if (!machine && ends_with(f, "_usec"))
                put_usec(b, n);
        else if (!machine && ends_with(f, "uid"))
                ctl_user(ctl, b, n);
        else
                text_printf(b, "%" PRIu64, n);
}

static void put_strings(EqArray it, bool machine, EqBuffer *b) {
        EqBytes s;

        for (bool first = true; eq_next_bytes(&it, &s) == 1; first = false) {
                text_cstr(b, first ? "" : " ");
                text_quoted(b, s);
        }
}

void field_text(Ctl *ctl, const EqSchema *schema, const void *rec, int field, bool machine, EqBuffer *b) {
        const EqField *f = &schema->fields[field];
        const void *v = field_at(f, rec);

        if (!field_present(rec, field))
                return;
        switch ((EqType)f->type) {
        case EQ_BOOL:
                text_cstr(b, *(const bool *)v ? "yes" : "no");
                break;
        case EQ_U64:
                put_number(ctl, f, *(const uint64_t *)v, machine, b);
                break;
        case EQ_I64:
                text_printf(b, "%" PRId64, *(const int64_t *)v);
                break;
        case EQ_STR:
        case EQ_BIN:
                (machine ? text_tsv : text_escaped)(b, *(const EqBytes *)v);
                break;
        case EQ_STRV:
                put_strings(*(const EqArray *)v, machine, b);
                break;
        case EQ_ID:
                ctl_id(b, *(const EqIdRef *)v, record_queue(schema, rec), ctl);
                break;
        case EQ_IDV:
        case EQ_LISTV:
        case EQ_MAP:
                break; /* no record that is shown has one */
        }
}

enum { HEAD_BYTES = 2048 };

/* What bytes begin with, as far as a screen has room for it: a result of 64 KiB would be 256 KiB of escapes. */
static void put_head(EqBytes s, EqBuffer *b) {
        const char *p = s.data, *end = p + s.len;
        size_t start = b->len;
        uint32_t c;

        while (p < end && b->len - start < HEAD_BYTES && !b->failed) {
                const char *from = p;
                (void)utf8_next(&p, end, &c); /* what is no character is one byte */
                text_escaped(b, eq_bytes(from, (size_t)(p - from)));
        }
        if (p < end)
                text_printf(b, "... (%zu of %zu bytes; --json has all)", (size_t)(p - (const char *)s.data),
                            (size_t)s.len);
}

void rows_print_fields(Ctl *ctl, const EqSchema *schema, const void *rec) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;

        for (int i = 0; i < schema->n_fields; i++) {
                if (!field_present(rec, i))
                        continue;
                text_printf(&b, "%-15s ", schema->fields[i].name);
                if (schema->fields[i].type == EQ_BIN && ctl->columns > 0)
                        put_head(*(const EqBytes *)field_at(&schema->fields[i], rec), &b);
                else
                        field_text(ctl, schema, rec, i, false, &b);
                text_cstr(&b, "\n");
        }
        (void)print_buffer(ctl, &b); /* a failed write shows at exit, too */
}

int rows_print_settings(Ctl *ctl, const EqSchema *schema, const void *rec, int set) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        EqArray it = *(const EqArray *)field_at(&schema->fields[set], rec);
        EqBytes s;

        for (int i = 0; i < schema->n_fields; i++) {
                if (!field_present(rec, i) || i == set)
                        continue;
                text_printf(&b, "%s=", schema->fields[i].name);
                field_text(ctl, schema, rec, i, true, &b);
                text_cstr(&b, "\n");
        }
        while (eq_next_bytes(&it, &s) == 1) {
                text_escaped(&b, s);
                text_cstr(&b, "\n");
        }
        return print_buffer(ctl, &b);
}

/* ---- columns ---- */

static int add_column(Rows *rows, EqBytes name) {
        const Column *c = rows->kind->columns;

        if (rows->n_columns == ROWS_COLUMNS_MAX)
                return -1;
        for (; c && c->name; c++)
                if (eq_bytes_eq(eq_str(c->name), name))
                        break;
        int field = field_find(rows->kind->schema, name);
        bool is_column = c && c->name;
        /* For machines a field is a field; the columns made for people only have the names left over. */
        if (field >= 0 && rows->ctl->format == FORMAT_TSV)
                is_column = false;
        if (!is_column && field < 0)
                return -1;
        rows->columns[rows->n_columns] = is_column ? c : NULL;
        rows->fields[rows->n_columns++] = field;
        return 0;
}

static void complain_column(Rows *rows, EqBytes name) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        const EqSchema *s = rows->kind->schema;

        for (const Column *c = rows->kind->columns; c && c->name; c++)
                text_printf(&b, " %s", c->name);
        for (int i = 0; i < s->n_fields; i++)
                text_printf(&b, " %s", s->fields[i].name);
        ctl_error(rows->ctl, "no column `%.*s`; there are:%s", (int)name.len, name.data, text_end(&b));
}

static int choose_columns(Rows *rows, const char *names) {
        while (*names) {
                size_t n = strcspn(names, ",");
                EqBytes name = eq_bytes(names, n);
                if (n > 0 && add_column(rows, name) < 0) {
                        complain_column(rows, name);
                        return EXIT_USAGE;
                }
                names += n + (names[n] == ',');
        }
        return 0;
}

static const char *column_header(const Rows *rows, unsigned i, bool machine, EqBuffer *b) {
        const char *name = rows->columns[i] ? rows->columns[i]->header : NULL;

        if (name && !machine) {
                text_cstr(b, name);
                return NULL;
        }
        name = rows->columns[i] ? rows->columns[i]->name : rows->kind->schema->fields[rows->fields[i]].name;
        for (; *name; name++) {
                char c = *name;
                if (!machine && c >= 'a' && c <= 'z')
                        c = (char)(c - 'a' + 'A');
                text_bytes(b, eq_bytes(&c, 1));
        }
        return NULL;
}

static const char *column_cell(const Rows *rows, const void *rec, unsigned i, bool machine, EqBuffer *b) {
        if (rows->columns[i])
                return rows->columns[i]->cell(rows->ctl, rec, b);
        size_t start = b->len;
        field_text(rows->ctl, rows->kind->schema, rec, rows->fields[i], machine, b);
        if (b->len == start && !machine)
                text_cstr(b, "-");
        return NULL;
}

static bool is_table(const Rows *rows) {
        return rows->ctl->format == FORMAT_TABLE || rows->ctl->format == FORMAT_WIDE;
}

static bool is_right(const Rows *rows, unsigned i) {
        if (rows->columns[i])
                return rows->columns[i]->right;
        uint8_t type = rows->kind->schema->fields[rows->fields[i]].type;
        return type == EQ_U64 || type == EQ_I64;
}

static void begin_table(Rows *rows) {
        rows->table.n_columns = rows->n_columns;
        for (unsigned i = 0; i < rows->n_columns; i++) {
                if (is_right(rows, i))
                        rows->table.right |= UINT64_C(1) << i;
                if (rows->ctl->headers)
                        table_cell(&rows->table, (column_header(rows, i, false, &rows->table.text), "1"));
        }
}

static void begin_tsv(Rows *rows) {
        if (!rows->ctl->headers)
                return;
        for (unsigned i = 0; i < rows->n_columns; i++) {
                text_cstr(&rows->line, i ? "\t" : "");
                column_header(rows, i, true, &rows->line);
        }
        text_cstr(&rows->line, "\n");
}

int rows_begin(Rows *rows, Ctl *ctl, const RowKind *kind) {
        const char *names = ctl_get(ctl, FLAG_columns);

        *rows = (Rows) { .ctl = ctl, .kind = kind };
        if (!names)
                names = ctl->format == FORMAT_TSV ? kind->tsv : ctl->format == FORMAT_WIDE ? kind->wide : kind->table;
        int status = choose_columns(rows, names);
        if (status)
                return status;
        if (is_table(rows))
                begin_table(rows);
        else if (ctl->format == FORMAT_TSV)
                begin_tsv(rows);
        else if (ctl->format == FORMAT_JSON)
                text_cstr(&rows->line, "[");
        return 0;
}

/* ---- rows ---- */

static void add_table(Rows *rows, const void *rec) {
        for (unsigned i = 0; i < rows->n_columns; i++) {
                const char *color = column_cell(rows, rec, i, false, &rows->table.text);
                table_cell(&rows->table, color);
        }
}

static void add_json(Rows *rows, const void *rec) {
        json_record(&rows->line, rows->kind->schema, rec, ctl_id, rows->ctl);
}

static void add_tsv(Rows *rows, const void *rec) {
        for (unsigned i = 0; i < rows->n_columns; i++) {
                text_cstr(&rows->line, i ? "\t" : "");
                column_cell(rows, rec, i, true, &rows->line);
        }
        text_cstr(&rows->line, "\n");
}

static void add_id(Rows *rows, const void *rec) {
        int field = field_find(rows->kind->schema, eq_str(rows->kind->id));

        if (field < 0 || !field_present(rec, field))
                return;
        field_text(rows->ctl, rows->kind->schema, rec, field, true, &rows->line);
        text_cstr(&rows->line, "\n");
}

void rows_add(Rows *rows, const void *rec) {
        switch (rows->ctl->format) {
        case FORMAT_JSON:
                text_cstr(&rows->line, rows->n ? ",\n " : "");
                add_json(rows, rec);
                break;
        case FORMAT_JSONL:
                add_json(rows, rec);
                text_cstr(&rows->line, "\n");
                break;
        case FORMAT_TSV:
                add_tsv(rows, rec);
                break;
        case FORMAT_ID:
                add_id(rows, rec);
                break;
        case FORMAT_TABLE:
        case FORMAT_WIDE:
        case _FORMAT_MAX:
                add_table(rows, rec);
                break;
        }
        rows->n++;
        (void)print_buffer(rows->ctl, &rows->line); /* has said so; a dead output ends us by SIGPIPE or at the end */
}

int rows_end(Rows *rows, int status) {
        unsigned columns = rows->ctl->format == FORMAT_TABLE ? rows->ctl->columns : 0;

        if (rows->ctl->format == FORMAT_JSON)
                text_cstr(&rows->line, "]\n"); /* valid JSON even after a failure */
        if (is_table(rows) && (rows->n > 0 || (rows->ctl->headers && status == 0)))
                table_print(&rows->table, columns, rows->ctl->color, &rows->line);
        rows->line.failed |= rows->table.failed;
        int printed = print_buffer(rows->ctl, &rows->line);
        table_deinit(&rows->table);
        eq_buffer_done(&rows->line);
        return status ? status : printed;
}
