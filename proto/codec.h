/* SPDX-License-Identifier: MIT */
#pragma once

/* MessagePack to typed structs and back, driven by the tables of schema.h.
 *
 * Decoding allocates nothing: strings and arrays are slices of the message. It takes bytes that eq_scan() found to be
 * one whole value, yet trusts no length in them. Encoding is msgpack-c's packer into an EqBuffer. */

#include <msgpack.h>

#include "schema.h"

/* ---- a growing buffer; zero is empty and valid ---- */

typedef struct EqBuffer {
        char *data;
        size_t len, cap;
        bool failed; /* an allocation failed: what was packed since is incomplete */
} EqBuffer;
#define EQ_BUFFER_NULL                                                                                                 \
        { 0 }

int eq_buffer_reserve(EqBuffer *b, size_t n); /* room for n more bytes; 0 or -ENOMEM */
int eq_buffer_append(EqBuffer *b, const void *data, size_t n);
void eq_buffer_consume(EqBuffer *b, size_t n); /* drops n bytes at the front */
void eq_buffer_done(EqBuffer *b);
int eq_buffer_write(void *b, const char *data, size_t n); /* for msgpack_packer_init() */

static inline msgpack_packer eq_packer(EqBuffer *b) {
        return (msgpack_packer) { .data = b, .callback = eq_buffer_write };
}

/* ---- messages ---- */

typedef enum EqMessageType { EQ_MSG_REQUEST = 0, EQ_MSG_RESPONSE = 1, EQ_MSG_NOTIFY = 2 } EqMessageType;

typedef struct EqMessage {
        EqMessageType type;
        uint32_t msgid; /* request, response */
        bool has_msgid; /* also set when the rest turned out to be bad: the error can be answered */
        EqBytes method; /* request, notification */
        EqBytes params; /* request, notification: the encoded array */
        EqBytes error;  /* response: an encoded value; nil if it went well */
        EqBytes result; /* response: an encoded value */
} EqMessage;

/* Takes one whole message apart. 0, or -EBADMSG for anything that is no MessagePack-RPC message. */
int eq_message_parse(EqBytes raw, EqMessage *ret);

/* ---- decode ---- */

typedef struct EqDecodeError {
        char text
                [160]; /* for people, names the field and what is expected of it; who knows of what it is one says that */
        const EqField *field; /* NULL: it is none of them */
        bool beyond;          /* it is larger than its `max` */
} EqDecodeError;

/* params: [required..., {options}]. Sets *ret (of schema->size bytes) altogether. 0, or -EINVAL with an explanation.
 * Named required fields are taken from the map as well, so that clients may send one map only. Unknown keys are skipped,
 * of a key given twice the last one holds, and nil stands for a field that is not there (for BIN: for no bytes). */
int eq_decode_params(const EqSchema *schema, EqBytes raw, void *ret, EqDecodeError *error);

/* The same, for who keeps the options as they came: *ret_options is the encoded map of them, of length 0 if there is none. */
int eq_decode_params_split(const EqSchema *schema, EqBytes raw, void *ret, EqBytes *ret_options, EqDecodeError *error);

/* A map; overlays the fields it holds onto *rec and leaves the others as they are. Required fields may be missing. After
 * an error *rec holds a part of it. */
int eq_decode_map(const EqSchema *schema, EqBytes raw, void *rec, EqDecodeError *error);

/* Walk arrays. 1: *ret set, 0: end, -EBADMSG: not what was asked for (never for arrays that a decoder has checked). */
int eq_next_bytes(EqArray *it, EqBytes *ret); /* str or bin */
int eq_next_id(EqArray *it, EqIdRef *ret);
int eq_next_raw(EqArray *it, EqBytes *ret); /* any value, encoded */
int eq_next_i64(EqArray *it, int64_t *ret);

/* One value. 0 or -EBADMSG. */
int eq_get_array(EqBytes raw, EqArray *ret);
int eq_get_id(EqBytes raw, EqIdRef *ret);
int eq_get_u64(EqBytes raw, uint64_t *ret);
int eq_get_i64(EqBytes raw, int64_t *ret);
int eq_get_bytes(EqBytes raw, EqBytes *ret);
bool eq_is_nil(EqBytes raw);
bool eq_is_map(EqBytes raw);

/* [code, text, details?] of a response; ret_details, which may be NULL: an encoded map, or empty. 0 or -EBADMSG. */
int eq_get_error(EqBytes raw, eq_error *ret_code, EqBytes *ret_text, EqBytes *ret_details);

/* QUEUE/SEQ. 0 or -EINVAL. */
int eq_id_parse(EqBytes text, EqBytes *ret_queue, uint64_t *ret_seq);
bool eq_name_valid(EqBytes name); /* of a queue */
bool eq_text_valid(EqBytes text); /* UTF-8 without control characters */

/* ---- encode ---- */

/* A failed allocation is kept in buffer->failed; look once at the end. Records are read, not kept. */
void eq_pack_str(msgpack_packer *pk, EqBytes s);
void eq_pack_cstr(msgpack_packer *pk, const char *s);
void eq_pack_bin(msgpack_packer *pk, EqBytes s);
void eq_pack_id(msgpack_packer *pk, eq_task_id id);
void eq_pack_raw(msgpack_packer *pk, EqBytes raw);
void eq_pack_record(msgpack_packer *pk, const EqSchema *schema, const void *rec); /* what is present, as a map */
/* As [required...], with a map at the end if any option is present. Required fields need not be marked present. */
void eq_pack_params(msgpack_packer *pk, const EqSchema *schema, const void *rec);
void eq_pack_request(msgpack_packer *pk, uint32_t msgid, const char *method); /* params follow */
void eq_pack_notify(msgpack_packer *pk, const char *method);                  /* params follow */
void eq_pack_response(msgpack_packer *pk, uint32_t msgid);                    /* result follows */
/* [code, text, {details}]. Of details (NULL: none) goes what eqd.def has for that code, unless it is no text, or too long for one. */
void eq_pack_error_value(msgpack_packer *pk, eq_error code, const char *text, const EqErrorDetails *details);
void eq_pack_error(msgpack_packer *pk, uint32_t msgid, eq_error code, const char *text,
                   const EqErrorDetails *details); /* the response, complete */

/* [1, msgid, nil, [queue, seq]] in one piece: the answer to submit, the hottest message there is. Appends at most
 * EQ_ID_RESPONSE_MAX bytes to a buffer that has the room. */
enum { EQ_ID_RESPONSE_MAX = 27 };
void eq_put_id_response(EqBuffer *b, uint32_t msgid, eq_task_id id);
/* [0, msgid, "run", [id, queue, attempt, payload]], what eq_pack_request() and eq_pack_params() make of it, in one piece, for it
 * is the second hottest. With options the rest is eq_pack_options()'s. Room: EQ_RUN_MAX and the bytes of queue and payload. */
enum { EQ_RUN_MAX = 48 };
void eq_put_run(EqBuffer *b, uint32_t msgid, const EqRun *run);
void eq_pack_options(msgpack_packer *pk, const EqSchema *schema,
                     const void *rec); /* as a map; nothing if there are none */
