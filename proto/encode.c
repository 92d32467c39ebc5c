/* SPDX-License-Identifier: MIT */
/* Typed structs to MessagePack. The format is left to msgpack-c, which hands over every few bytes by a call of their own;
 * with two exceptions, for which that is too dear: eq_put_id_response() and eq_put_run(). */

#include "codec.h"

#include <endian.h>
#include <string.h>

void eq_pack_str(msgpack_packer *pk, EqBytes s) {
        msgpack_pack_str(pk, s.len);
        eq_pack_raw(pk, s);
}

void eq_pack_cstr(msgpack_packer *pk, const char *s) {
        eq_pack_str(pk, eq_str(s));
}

void eq_pack_bin(msgpack_packer *pk, EqBytes s) {
        msgpack_pack_bin(pk, s.len);
        eq_pack_raw(pk, s);
}

/* Both numbers always take the widest form: a reader may patch or compare ids in place. */
void eq_pack_id(msgpack_packer *pk, eq_task_id id) {
        msgpack_pack_array(pk, 2);
        msgpack_pack_fix_uint64(pk, id.queue);
        msgpack_pack_fix_uint64(pk, id.seq);
}

void eq_pack_raw(msgpack_packer *pk, EqBytes raw) {
        if (raw.len > 0)
                pk->callback(pk->data, raw.data, raw.len);
}

static void pack_bool(msgpack_packer *pk, const void *value) {
        if (*(const bool *)value)
                msgpack_pack_true(pk);
        else
                msgpack_pack_false(pk);
}

static void pack_u64(msgpack_packer *pk, const void *value) {
        msgpack_pack_uint64(pk, *(const uint64_t *)value);
}

static void pack_i64(msgpack_packer *pk, const void *value) {
        msgpack_pack_int64(pk, *(const int64_t *)value);
}

static void pack_str(msgpack_packer *pk, const void *value) {
        eq_pack_str(pk, *(const EqBytes *)value);
}

static void pack_bin(msgpack_packer *pk, const void *value) {
        eq_pack_bin(pk, *(const EqBytes *)value);
}

static void pack_array(msgpack_packer *pk, const void *value) {
        const EqArray *a = value;
        msgpack_pack_array(pk, a->n);
        eq_pack_raw(pk, a->raw);
}

static void pack_id_ref(msgpack_packer *pk, const void *value) {
        const EqIdRef *id = value;
        if (id->text.len > 0)
                eq_pack_str(pk, id->text);
        else
                eq_pack_id(pk, id->id);
}

/* An EqBytes left at zero is an empty map. */
static void pack_map(msgpack_packer *pk, const void *value) {
        const EqBytes *raw = value;
        if (raw->len == 0)
                msgpack_pack_map(pk, 0);
        else
                eq_pack_raw(pk, *raw);
}

static void (*const packers[])(msgpack_packer *pk, const void *value) = {
        [EQ_BOOL] = pack_bool,   [EQ_U64] = pack_u64,    [EQ_I64] = pack_i64,   [EQ_STR] = pack_str,
        [EQ_BIN] = pack_bin,     [EQ_STRV] = pack_array, [EQ_ID] = pack_id_ref, [EQ_IDV] = pack_array,
        [EQ_LISTV] = pack_array, [EQ_MAP] = pack_map,
};

/* The fields of `wanted`, as a map. */
static void pack_fields(msgpack_packer *pk, const EqSchema *schema, const void *rec, uint64_t wanted) {
        msgpack_pack_map(pk, (size_t)__builtin_popcountll(wanted));
        for (; wanted; wanted &= wanted - 1) {
                const EqField *f = &schema->fields[__builtin_ctzll(wanted)];
                eq_pack_str(pk, eq_bytes(f->name, f->name_len));
                packers[f->type](pk, (const char *)rec + f->offset);
        }
}

void eq_pack_record(msgpack_packer *pk, const EqSchema *schema, const void *rec) {
        pack_fields(pk, schema, rec, *(const uint64_t *)rec);
}

static uint64_t options_of(const EqSchema *schema, const void *rec) {
        return *(const uint64_t *)rec & ~((UINT64_C(1) << schema->n_positional) - 1);
}

void eq_pack_options(msgpack_packer *pk, const EqSchema *schema, const void *rec) {
        uint64_t options = options_of(schema, rec);
        if (options)
                pack_fields(pk, schema, rec, options);
}

void eq_pack_params(msgpack_packer *pk, const EqSchema *schema, const void *rec) {
        unsigned n = schema->n_positional;

        msgpack_pack_array(pk, n + (options_of(schema, rec) ? 1 : 0));
        for (unsigned i = 0; i < n; i++)
                packers[schema->fields[i].type](pk, (const char *)rec + schema->fields[i].offset);
        eq_pack_options(pk, schema, rec);
}

void eq_pack_request(msgpack_packer *pk, uint32_t msgid, const char *method) {
        msgpack_pack_array(pk, 4);
        msgpack_pack_int(pk, EQ_MSG_REQUEST);
        msgpack_pack_uint32(pk, msgid);
        eq_pack_cstr(pk, method);
}

void eq_pack_notify(msgpack_packer *pk, const char *method) {
        msgpack_pack_array(pk, 3);
        msgpack_pack_int(pk, EQ_MSG_NOTIFY);
        eq_pack_cstr(pk, method);
}

void eq_pack_response(msgpack_packer *pk, uint32_t msgid) {
        msgpack_pack_array(pk, 4);
        msgpack_pack_int(pk, EQ_MSG_RESPONSE);
        msgpack_pack_uint32(pk, msgid);
        msgpack_pack_nil(pk);
}

/* Names come from requests as they were sent. */
static uint64_t details_of(eq_error code, const EqErrorDetails *details) {
        uint64_t wanted = details ? details->present & eq_error_fields(code) : 0;
        for (uint64_t left = wanted; left; left &= left - 1) {
                const EqField *f = &eq_schema_ErrorDetails.fields[__builtin_ctzll(left)];
                const EqBytes *s = (const void *)((const char *)details + f->offset);
                if (f->type == EQ_STR && (s->len > f->max || !eq_text_valid(*s)))
                        wanted &= ~(left & -left);
        }
        return wanted;
}

void eq_pack_error_value(msgpack_packer *pk, eq_error code, const char *text, const EqErrorDetails *details) {
        uint64_t wanted = details_of(code, details);

        msgpack_pack_array(pk, wanted ? 3 : 2);
        msgpack_pack_int(pk, (int)code);
        eq_pack_cstr(pk, text);
        if (wanted)
                pack_fields(pk, &eq_schema_ErrorDetails, details, wanted);
}

void eq_pack_error(msgpack_packer *pk, uint32_t msgid, eq_error code, const char *text, const EqErrorDetails *details) {
        msgpack_pack_array(pk, 4);
        msgpack_pack_int(pk, EQ_MSG_RESPONSE);
        msgpack_pack_uint32(pk, msgid);
        eq_pack_error_value(pk, code, text, details);
        msgpack_pack_nil(pk);
}

void eq_put_id_response(EqBuffer *b, uint32_t msgid, eq_task_id id) {
        char *p = b->data + b->len;
        uint32_t be_msgid = htobe32(msgid);
        uint64_t be_queue = htobe64(id.queue), be_seq = htobe64(id.seq);

        memcpy(p, "\x94\x01\xce", 3);
        memcpy(p + 3, &be_msgid, 4);
        memcpy(p + 7, "\xc0\x92\xcf", 3);
        memcpy(p + 10, &be_queue, 8);
        memcpy(p + 18, "\xcf", 1);
        memcpy(p + 19, &be_seq, 8);
        b->len += EQ_ID_RESPONSE_MAX;
}

static char *put_bytes(char *p, const void *data, size_t n) {
        memcpy(p, data, n);
        return p + n;
}

/* A number, or the length of what follows, in as few bytes as it fits into; `head` is the first byte for one of 8 bits, those for 16
 * and 32 follow it. */
static char *put_sized(char *p, uint8_t head, uint32_t n) {
        uint16_t be16 = htobe16((uint16_t)n);
        uint32_t be32 = htobe32(n);

        if (n <= UINT8_MAX) {
                *p++ = (char)head;
                *p++ = (char)n;
                return p;
        }
        *p++ = (char)(head + (n <= UINT16_MAX ? 1 : 2));
        return n <= UINT16_MAX ? put_bytes(p, &be16, sizeof(be16)) : put_bytes(p, &be32, sizeof(be32));
}

static char *put_uint(char *p, uint32_t n) {
        if (n > 0x7f)
                return put_sized(p, 0xcc, n);
        *p++ = (char)n;
        return p;
}

static char *put_str(char *p, EqBytes s) {
        if (s.len > 0x1f)
                p = put_sized(p, 0xd9, s.len);
        else
                *p++ = (char)(0xa0 | s.len);
        return put_bytes(p, s.data, s.len);
}

void eq_put_run(EqBuffer *b, uint32_t msgid, const EqRun *run) {
        char *start = b->data + b->len, *p = start;
        uint64_t be_queue = htobe64(run->id.id.queue), be_seq = htobe64(run->id.id.seq);

        p = put_bytes(p, "\x94\x00", 2);
        p = put_uint(p, msgid);
        p = put_bytes(p, "\xa3run", 4);
        p = put_bytes(p, options_of(&eq_schema_Run, run) ? "\x95" : "\x94", 1);
        p = put_bytes(p, "\x92\xcf", 2);
        p = put_bytes(p, &be_queue, sizeof(be_queue));
        p = put_bytes(p, "\xcf", 1);
        p = put_bytes(p, &be_seq, sizeof(be_seq));
        p = put_str(p, run->queue);
        p = put_uint(p, (uint32_t)run->attempt);
        p = put_sized(p, 0xc4, run->payload.len);
        if (run->payload.len > 0)
                p = put_bytes(p, run->payload.data, run->payload.len);
        b->len += (size_t)(p - start);
}
