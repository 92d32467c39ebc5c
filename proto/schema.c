/* SPDX-License-Identifier: MIT */
/* The tables behind schema.h, all from eqd.def; only look-ups are code. */

#include "schema.h"

#include <string.h>

/* clang-format off */
#define EQ_RECORD(Name, doc) static const EqField fields_##Name[] = {
#define EQ_POS(Record, member, TYPE, max_, doc_)                                                                       \
        { .name = #member, .name_len = sizeof(#member) - 1, .doc = doc_, .max = max_, .since = 1,                      \
          .offset = offsetof(Eq##Record, member), .type = EQ_##TYPE, .positional = true },
#define EQ_OPT(Record, member, TYPE, since_, max_, doc_)                                                               \
        { .name = #member, .name_len = sizeof(#member) - 1, .doc = doc_, .max = max_, .since = since_,                 \
          .offset = offsetof(Eq##Record, member), .type = EQ_##TYPE },
#define EQ_END(Name) { .name = NULL } };
#include "eqd.def"

#define EQ_RECORD(Name, doc) enum { POSITIONAL_##Name = 0
#define EQ_POS(Record, member, TYPE, max, doc) + 1
#define EQ_END(Name) };
#include "eqd.def"
/* clang-format on */

#define EQ_RECORD(Name, doc) _Static_assert(EQ_N_##Name <= 64, "present has 64 bits: " #Name);
#include "eqd.def"

#define EQ_RECORD(Name, doc_)                                                                                          \
        const EqSchema eq_schema_##Name = {                                                                            \
                .name = #Name,                                                                                         \
                .doc = doc_,                                                                                           \
                .fields = fields_##Name,                                                                               \
                .size = sizeof(Eq##Name),                                                                              \
                .n_fields = EQ_N_##Name,                                                                               \
                .n_positional = POSITIONAL_##Name,                                                                     \
        };
#include "eqd.def"

#define EQ_RECORD(Name, doc) [EQ_SCHEMA_##Name] = &eq_schema_##Name,
const EqSchema *const eq_schemas[_EQ_SCHEMA_MAX] = {
#include "eqd.def"
};

#define EQ_METHOD(ID, name_, Params, REPLY, Record, ACCESS, KEEPS, since_, doc_)                                       \
        [EQ_METHOD_##ID] = {                                                                                           \
                .name = name_,                                                                                         \
                .name_len = sizeof(name_) - 1,                                                                         \
                .doc = doc_,                                                                                           \
                .params = &eq_schema_##Params,                                                                         \
                .record = &eq_schema_##Record,                                                                         \
                .since = since_,                                                                                       \
                .reply = EQ_REPLY_##REPLY,                                                                             \
                .access = EQ_ACCESS_##ACCESS,                                                                          \
                .keeps = EQ_KEEPS_##KEEPS,                                                                             \
        },
const EqMethod eq_methods[_EQ_METHOD_MAX] = {
#include "eqd.def"
};

const char *const eq_keeps_names[_EQ_KEEPS_MAX] = {
        [EQ_KEEPS_NOTHING] = "nothing",
        [EQ_KEEPS_WAITS] = "waits",
        [EQ_KEEPS_CHANGES] = "changes",
};

#define EQ_CALL(ID, name_, Params, Answer, since_, doc_)                                                               \
        [EQ_CALL_##ID] = {                                                                                             \
                .name = name_,                                                                                         \
                .doc = doc_,                                                                                           \
                .params = &eq_schema_##Params,                                                                         \
                .answer = &eq_schema_##Answer,                                                                         \
                .since = since_,                                                                                       \
        },
const EqCall eq_calls[_EQ_CALL_MAX] = {
#include "eqd.def"
};

#define EQ_STATE(ID, name, finished, doc) [EQ_STATE_##ID] = name,
static const char *const state_names[_EQ_STATE_MAX] = {
#include "eqd.def"
};

#define EQ_STATE(ID, name, finished, doc) [EQ_STATE_##ID] = finished,
static const bool state_finished[_EQ_STATE_MAX] = {
#include "eqd.def"
};

#define EQ_REASON(ID, name, doc) [EQ_REASON_##ID] = name,
static const char *const reason_names[_EQ_REASON_MAX] = {
#include "eqd.def"
};

#define EQ_EVENT(ID, name, doc) [EQ_EVENT_##ID] = name,
static const char *const event_names[_EQ_EVENT_MAX] = {
#include "eqd.def"
};

static const struct {
        const char *name;
        int exit_status;
} errors[] = {
#define EQ_ERROR(ID, code, name_, exit_status_, doc) [code] = { .name = name_, .exit_status = exit_status_ },
#include "eqd.def"
};

static const char *const type_names[] = {
        [EQ_BOOL] = "bool", [EQ_U64] = "u64", [EQ_I64] = "i64", [EQ_STR] = "str",     [EQ_BIN] = "bin",
        [EQ_STRV] = "strv", [EQ_ID] = "id",   [EQ_IDV] = "idv", [EQ_LISTV] = "listv", [EQ_MAP] = "map",
};

EqBytes eq_str(const char *s) {
        return s ? eq_bytes(s, strlen(s)) : eq_bytes("", 0);
}

bool eq_bytes_eq(EqBytes a, EqBytes b) {
        return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static int find(const char *const *names, int n, EqBytes name) {
        for (int i = 0; i < n; i++)
                if (eq_bytes_eq(eq_str(names[i]), name))
                        return i;
        return -1;
}

EqMethodId eq_method_find(EqBytes name) {
        for (int i = 0; i < _EQ_METHOD_MAX; i++)
                if (eq_methods[i].name_len == name.len && memcmp(eq_methods[i].name, name.data, name.len) == 0)
                        return i;
        return _EQ_METHOD_INVALID;
}

const char *eq_state_name(eq_state s) {
        return s >= 0 && s < _EQ_STATE_MAX ? state_names[s] : "?";
}

eq_state eq_state_find(EqBytes name) {
        return find(state_names, _EQ_STATE_MAX, name);
}

bool eq_state_finished(eq_state s) {
        return s >= 0 && s < _EQ_STATE_MAX && state_finished[s];
}

const char *eq_reason_name(eq_reason r) {
        return r >= 0 && r < _EQ_REASON_MAX ? reason_names[r] : "?";
}

eq_reason eq_reason_find(EqBytes name) {
        return find(reason_names, _EQ_REASON_MAX, name);
}

const char *eq_event_name(eq_event e) {
        return e >= 0 && e < _EQ_EVENT_MAX ? event_names[e] : "?";
}

const char *eq_error_name(eq_error code) {
        size_t n = sizeof(errors) / sizeof(errors[0]);
        return (int)code > 0 && (size_t)code < n && errors[code].name ? errors[code].name : "unknown";
}

uint64_t eq_error_fields(eq_error code) {
        static const struct {
                eq_error code;
                uint64_t field;
        } details[] = {
#define EQ_DETAIL(ERROR, member) { EQ_E_##ERROR, EQ_BIT(ErrorDetails, member) },
#include "eqd.def"
        };
        uint64_t fields = 0;
        for (size_t i = 0; i < sizeof(details) / sizeof(details[0]); i++)
                if (details[i].code == code)
                        fields |= details[i].field;
        return fields;
}

int eq_error_exit_status(eq_error code) {
        size_t n = sizeof(errors) / sizeof(errors[0]);
        return (int)code > 0 && (size_t)code < n && errors[code].name ? errors[code].exit_status : 1;
}

const char *eq_type_name(EqType t) {
        return (size_t)t < sizeof(type_names) / sizeof(type_names[0]) ? type_names[t] : "?";
}
