/* SPDX-License-Identifier: MIT */
/* One function per type of eqd.def, in a table: a new field needs no code here. */

#include "eqctl/json.h"

#include <inttypes.h>

#include "eqctl/text.h"

void base64_append(EqBuffer *b, EqBytes s) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const unsigned char *p = (const unsigned char *)s.data;

        for (uint32_t i = 0; i < s.len; i += 3) {
                unsigned n = s.len - i < 3 ? s.len - i : 3;
                uint32_t v = (uint32_t)p[i] << 16 | (n > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (n > 2 ? p[i + 2] : 0);
                char out[4] = { digits[v >> 18], digits[v >> 12 & 63], digits[v >> 6 & 63], digits[v & 63] };
                if (n < 3)
                        out[3] = '=';
                if (n < 2)
                        out[2] = '=';
                text_bytes(b, eq_bytes(out, 4));
        }
}

static void json_char(EqBuffer *b, const char *start, size_t n, uint32_t c) {
        static const char letters[] = "btn\0fr"; /* 8..13, without 11 */

        if (c == '"' || c == '\\')
                text_printf(b, "\\%c", (int)c);
        else if (c >= 8 && c <= 13 && letters[c - 8])
                text_printf(b, "\\%c", letters[c - 8]);
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029)
                text_printf(b, "\\u%04x", c);
        else
                text_bytes(b, eq_bytes(start, n));
}

void json_string(EqBuffer *b, EqBytes s) {
        const char *p = s.data, *end = s.data + s.len;

        if (!utf8_valid(s)) {
                text_cstr(b, "{\"bytes\":\"");
                base64_append(b, s);
                text_cstr(b, "\"}");
                return;
        }
        text_cstr(b, "\"");
        while (p < end) {
                const char *start = p;
                uint32_t c;
                (void)utf8_next(&p, end, &c); /* valid, as seen above */
                json_char(b, start, (size_t)(p - start), c);
        }
        text_cstr(b, "\"");
}

typedef struct Context {
        EqBytes queue;
        JsonIdFn id_fn;
        void *userdata;
} Context;

static void put_bool(EqBuffer *b, const void *v, const Context *x) {
        text_cstr(b, *(const bool *)v ? "true" : "false");
}

static void put_u64(EqBuffer *b, const void *v, const Context *x) {
        text_printf(b, "%" PRIu64, *(const uint64_t *)v);
}

static void put_i64(EqBuffer *b, const void *v, const Context *x) {
        text_printf(b, "%" PRId64, *(const int64_t *)v);
}

static void put_str(EqBuffer *b, const void *v, const Context *x) {
        json_string(b, *(const EqBytes *)v);
}

static void put_id(EqBuffer *b, const void *v, const Context *x) {
        text_cstr(b, "\"");
        x->id_fn(b, *(const EqIdRef *)v, x->queue, x->userdata);
        text_cstr(b, "\"");
}

static void put_strv(EqBuffer *b, const void *v, const Context *x) {
        EqArray it = *(const EqArray *)v;
        EqBytes s;

        text_cstr(b, "[");
        for (bool first = true; eq_next_bytes(&it, &s) == 1; first = false) {
                text_cstr(b, first ? "" : ",");
                json_string(b, s);
        }
        text_cstr(b, "]");
}

static void put_idv(EqBuffer *b, const void *v, const Context *x) {
        EqArray it = *(const EqArray *)v;
        EqIdRef id;

        text_cstr(b, "[");
        for (bool first = true; eq_next_id(&it, &id) == 1; first = false) {
                text_cstr(b, first ? "" : ",");
                put_id(b, &id, x);
        }
        text_cstr(b, "]");
}

/* Values without a type in eqd.def stay as they are on the wire. */
static void put_encoded(EqBuffer *b, const void *v, const Context *x) {
        text_cstr(b, "{\"msgpack\":\"");
        base64_append(b, *(const EqBytes *)v);
        text_cstr(b, "\"}");
}

static void (*const put[])(EqBuffer *b, const void *v, const Context *x) = {
        [EQ_BOOL] = put_bool, [EQ_U64] = put_u64, [EQ_I64] = put_i64, [EQ_STR] = put_str,       [EQ_BIN] = put_str,
        [EQ_STRV] = put_strv, [EQ_ID] = put_id,   [EQ_IDV] = put_idv, [EQ_LISTV] = put_encoded, [EQ_MAP] = put_encoded,
};

int field_find(const EqSchema *schema, EqBytes name) {
        for (int i = 0; i < schema->n_fields; i++)
                if (eq_bytes_eq(eq_bytes(schema->fields[i].name, schema->fields[i].name_len), name))
                        return i;
        return -1;
}

EqBytes record_queue(const EqSchema *schema, const void *rec) {
        int i = field_find(schema, eq_str("queue"));
        if (i < 0 || !field_present(rec, i) || schema->fields[i].type != EQ_STR)
                return eq_str("");
        return *(const EqBytes *)field_at(&schema->fields[i], rec);
}

void json_record(EqBuffer *b, const EqSchema *schema, const void *rec, JsonIdFn id_fn, void *userdata) {
        Context x = { .queue = record_queue(schema, rec), .id_fn = id_fn, .userdata = userdata };
        bool first = true;

        text_cstr(b, "{");
        for (int i = 0; i < schema->n_fields; i++) {
                const EqField *f = &schema->fields[i];
                if (!field_present(rec, i))
                        continue;
                text_printf(b, "%s\"%s\":", first ? "" : ",", f->name);
                put[f->type](b, field_at(f, rec), &x);
                first = false;
        }
        text_cstr(b, "}");
}
