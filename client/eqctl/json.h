/* SPDX-License-Identifier: MIT */
#pragma once

/* JSON from the records of eqd.def: one object per record, a member per field that is present, in the order of the rows.
 *
 * Ids are the strings QUEUE/SEQ, numbers are numbers (times and durations in microseconds), strings are strings. A
 * string with bytes that are no UTF-8 becomes the object {"bytes": BASE64}, so that the output is always valid JSON and
 * nothing is lost. */

#include "proto/codec.h"

/* Writes an id as QUEUE/SEQ; `hint` is the name of the record's queue, or empty. */
typedef void (*JsonIdFn)(EqBuffer *b, EqIdRef id, EqBytes hint, void *userdata);

void json_string(EqBuffer *b, EqBytes s);
void json_record(EqBuffer *b, const EqSchema *schema, const void *rec, JsonIdFn id_fn, void *userdata);
void base64_append(EqBuffer *b, EqBytes s);

/* The member of rec that the field describes. */
static inline const void *field_at(const EqField *f, const void *rec) {
        return (const char *)rec + f->offset;
}
/* Index of a field by its name, or -1. */
int field_find(const EqSchema *schema, EqBytes name);
static inline bool field_present(const void *rec, int index) {
        return (*(const uint64_t *)rec >> index & 1) != 0;
}
/* The value of the STR field `queue` of a record, or empty. */
EqBytes record_queue(const EqSchema *schema, const void *rec);
