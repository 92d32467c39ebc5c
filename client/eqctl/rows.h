/* SPDX-License-Identifier: MIT */
#pragma once

/* Records on standard output in the format that was asked for: table, wide, json, jsonl, tsv or id. */

#include "eqctl/ctl.h"
#include "eqctl/table.h"

/* A column that is made of more than one field. Any field of the record can be a column as well. */
typedef struct Column {
        const char *name, *header;
        bool right;
        const char *(*cell)(Ctl *ctl, const void *rec,
                            EqBuffer *b); /* appends escaped text; returns its colour or NULL */
} Column;

typedef struct RowKind {
        const EqSchema *schema;
        const Column *columns;          /* until name == NULL */
        const char *table, *wide, *tsv; /* names of columns, with commas */
        const char *id;                 /* the field that -o id prints */
} RowKind;

extern const RowKind rows_tasks, rows_queues, rows_busy_queues, rows_pools, rows_params, rows_workers, rows_events,
        rows_whys, rows_monitor, rows_flights;

enum { ROWS_COLUMNS_MAX = 64 };

typedef struct Rows {
        Ctl *ctl;
        const RowKind *kind;
        const Column *columns[ROWS_COLUMNS_MAX]; /* NULL: the field of the same index in fields */
        int fields[ROWS_COLUMNS_MAX];
        unsigned n_columns;
        Table table;
        EqBuffer line;
        size_t n;
} Rows;

/* 0, or the exit status: --columns names what is no column. */
int rows_begin(Rows *rows, Ctl *ctl, const RowKind *kind);
void rows_add(Rows *rows, const void *rec);
/* Prints what is left. `status` is what collecting the rows came to: after a failure no empty table is shown. Returns it, or
 * 1 when it is 0 and output failed. */
int rows_end(Rows *rows, int status);

/* All fields of a record as "name: value" lines, for people. */
void rows_print_fields(Ctl *ctl, const EqSchema *schema, const void *rec);
/* The fields that there are as key=value lines, then the elements of the array `set`, which are key=value already. 0 or
 * EXIT_FAILURE, and has said so. */
int rows_print_settings(Ctl *ctl, const EqSchema *schema, const void *rec, int set);
/* One field for people: a name for a uid, a time of day for a time, a duration for a duration. */
void field_text(Ctl *ctl, const EqSchema *schema, const void *rec, int field, bool machine, EqBuffer *b);
/* The value of an attribute, as Queue::set has them; empty: it has none. */
EqBytes rows_attribute(EqArray set, const char *key);
/* Writes b to standard output and empties it. 0 or EXIT_FAILURE, and has said so. */
int print_buffer(const Ctl *ctl, EqBuffer *b);
