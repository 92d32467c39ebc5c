/* SPDX-License-Identifier: MIT */
#pragma once

/* The rows of eqd.def as C: one struct per record, one field table per struct, one table of methods.
 *
 * A struct Eq<Record> starts with `present`, a bit per field in row order. Strings and arrays point into the message
 * they were decoded from and live as long as it does. */

#include <stddef.h>

#include "eq-types.h"

typedef struct EqBytes {
        const char *data; /* not terminated; may hold any byte */
        uint32_t len;
} EqBytes;

typedef struct EqArray {
        EqBytes raw; /* the encoded elements, without the array header */
        uint32_t n;
} EqArray;

typedef struct EqIdRef {
        eq_task_id id; /* valid when text.len == 0 */
        EqBytes text;  /* QUEUE/SEQ, where the client sent that */
} EqIdRef;

typedef enum EqType { EQ_BOOL, EQ_U64, EQ_I64, EQ_STR, EQ_BIN, EQ_STRV, EQ_ID, EQ_IDV, EQ_LISTV, EQ_MAP } EqType;

#define EQ_CTYPE_BOOL bool
#define EQ_CTYPE_U64 uint64_t
#define EQ_CTYPE_I64 int64_t
#define EQ_CTYPE_STR EqBytes
#define EQ_CTYPE_BIN EqBytes
#define EQ_CTYPE_STRV EqArray
#define EQ_CTYPE_ID EqIdRef
#define EQ_CTYPE_IDV EqArray
#define EQ_CTYPE_LISTV EqArray
#define EQ_CTYPE_MAP EqBytes /* the whole encoded map */

/* clang-format off */
#define EQ_RECORD(Name, doc) typedef struct Eq##Name { uint64_t present;
#define EQ_POS(Record, member, TYPE, max, doc) EQ_CTYPE_##TYPE member;
#define EQ_OPT(Record, member, TYPE, since, max, doc) EQ_CTYPE_##TYPE member;
#define EQ_END(Name) } Eq##Name;
#include "eqd.def"

/* EQ_HAS(&submit, Submit, argv), EQ_SET(&task, Task, pid, 42) */
#define EQ_RECORD(Name, doc) enum {
#define EQ_POS(Record, member, TYPE, max, doc) EQ_IDX_##Record##_##member,
#define EQ_OPT(Record, member, TYPE, since, max, doc) EQ_IDX_##Record##_##member,
#define EQ_END(Name) EQ_N_##Name };
#include "eqd.def"
/* clang-format on */

#define EQ_BIT(Record, member) (UINT64_C(1) << EQ_IDX_##Record##_##member)
#define EQ_HAS(rec, Record, member) (((rec)->present & EQ_BIT(Record, member)) != 0)
#define EQ_SET(rec, Record, member_, ...)                                                                              \
        ((rec)->present |= EQ_BIT(Record, member_), (void)((rec)->member_ = (__VA_ARGS__)))

typedef struct EqField {
        const char *name;
        const char *doc;
        uint64_t max; /* 0: none of its own */
        uint32_t offset;
        uint16_t since;
        uint8_t name_len;
        uint8_t type; /* EqType */
        bool positional;
} EqField;

typedef struct EqSchema {
        const char *name;
        const char *doc;
        const EqField *fields;
        uint32_t size;
        uint8_t n_fields;
        uint8_t n_positional;
} EqSchema;

#define EQ_RECORD(Name, doc) extern const EqSchema eq_schema_##Name;
#include "eqd.def"

/* All of them, in row order. */
#define EQ_RECORD(Name, doc) EQ_SCHEMA_##Name,
enum {
#include "eqd.def"
        _EQ_SCHEMA_MAX,
};
extern const EqSchema *const eq_schemas[_EQ_SCHEMA_MAX];

typedef enum EqReplyKind {
        EQ_REPLY_NIL,
        EQ_REPLY_ID,
        EQ_REPLY_INT,
        EQ_REPLY_INTV,
        EQ_REPLY_RECORD,
        EQ_REPLY_LIST
} EqReplyKind;
typedef enum EqAccess { EQ_ACCESS_ANY, EQ_ACCESS_ADMIN } EqAccess;
typedef enum EqKeeps { EQ_KEEPS_NOTHING, EQ_KEEPS_WAITS, EQ_KEEPS_CHANGES, _EQ_KEEPS_MAX } EqKeeps;

#define EQ_METHOD(ID, name, Params, REPLY, Record, ACCESS, KEEPS, since, doc) EQ_METHOD_##ID,
typedef enum EqMethodId {
#include "eqd.def"
        _EQ_METHOD_MAX,
        _EQ_METHOD_INVALID = -1,
} EqMethodId;

typedef struct EqMethod {
        const char *name;
        const char *doc;
        const EqSchema *params;
        const EqSchema *record; /* of the reply, where it is a record or a list of records */
        uint16_t since;
        uint8_t name_len;
        uint8_t reply;  /* EqReplyKind */
        uint8_t access; /* EqAccess */
        uint8_t keeps;  /* EqKeeps */
} EqMethod;

extern const EqMethod eq_methods[_EQ_METHOD_MAX];
extern const char *const eq_keeps_names[_EQ_KEEPS_MAX];

/* Requests of eqd to clients. */
#define EQ_CALL(ID, name, Params, Answer, since, doc) EQ_CALL_##ID,
enum {
#include "eqd.def"
        _EQ_CALL_MAX,
};

typedef struct EqCall {
        const char *name;
        const char *doc;
        const EqSchema *params;
        const EqSchema *answer; /* one of the forms that the response may take */
        uint16_t since;
} EqCall;

extern const EqCall eq_calls[_EQ_CALL_MAX];

/* Any thread, never block. Unknown names give _EQ_METHOD_INVALID, _EQ_STATE_INVALID, _EQ_REASON_INVALID, 0. */
EqMethodId eq_method_find(EqBytes name);
const char *eq_state_name(eq_state s);
eq_state eq_state_find(EqBytes name);
bool eq_state_finished(eq_state s);
const char *eq_reason_name(eq_reason r);
eq_reason eq_reason_find(EqBytes name);
const char *eq_event_name(eq_event e);
const char *eq_error_name(eq_error code); /* "unknown" for one that this build does not know */
uint64_t eq_error_fields(eq_error code);  /* the fields of ErrorDetails that it may have, as in `present` */
int eq_error_exit_status(eq_error code);  /* exit status of eqctl; 1 for an unknown code */
const char *eq_type_name(EqType t);       /* as written in eqd.def, lower case */

static inline EqBytes eq_bytes(const char *data, size_t len) {
        return (EqBytes) { .data = data, .len = (uint32_t)len };
}
EqBytes eq_str(const char *s); /* s may be NULL: empty */
bool eq_bytes_eq(EqBytes a, EqBytes b);
