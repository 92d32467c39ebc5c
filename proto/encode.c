/* SPDX-License-Identifier: MIT */
/* Typed structs to MessagePack. The format is left to msgpack-c, with one exception: eq_put_id_response(). */

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

void eq_pack_params(msgpack_packer *pk, const EqSchema *schema, const void *rec) {
        unsigned n = schema->n_positional;
        uint64_t options = *(const uint64_t *)rec & ~((UINT64_C(1) << n) - 1);

        msgpack_pack_array(pk, n + (options ? 1 : 0));
        for (unsigned i = 0; i < n; i++)
                packers[schema->fields[i].type](pk, (const char *)rec + schema->fields[i].offset);
        if (options)
                pack_fields(pk, schema, rec, options);
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

void eq_pack_error(msgpack_packer *pk, uint32_t msgid, eq_error code, const char *text) {
        msgpack_pack_array(pk, 4);
        msgpack_pack_int(pk, EQ_MSG_RESPONSE);
        msgpack_pack_uint32(pk, msgid);
        msgpack_pack_array(pk, 2);
        msgpack_pack_int(pk, (int)code);
        eq_pack_cstr(pk, text);
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
