/* SPDX-License-Identifier: MIT */
#pragma once

/* Typed parameters: one row of a params.def is a member of a struct, its bounds, its default, its text form and its entry
 * in a man page. A row:
 *
 *   PARAM(name, TYPE, min, max, "default", "unit", settable, "what it does")
 *
 *   TYPE    text                                      member
 *   UINT    decimal number, or infinity, also as -1   uint64_t name
 *   SIZE    bytes; suffix K M G T, powers of 1024     uint64_t name
 *   USEC    10s 5m 1h30m 2d 500ms 100us infinity;     uint64_t name_usec, PARAM_INFINITY
 *           a bare number is seconds
 *   BOOL    yes no true false on off 1 0              bool name
 *   ENUM    one of the words of `unit`                unsigned name, the index of the word
 *   RATE    10/s 100/min 1/10s, or infinity           ParamRate name
 *   OCTAL   file mode                                 uint64_t name
 *   TEXT    at most `max` bytes                       char *name, NULL: not set
 *   USER    name or number of a user                  ParamId name
 *   GROUP   name or number of a group                 ParamId name
 *   ACCESS  users and @groups, at most `max` of them  ParamAccess name
 *
 * min and max bound numbers, of a RATE the first one; for UINT and USEC max UINT64_MAX allows infinity. `settable`: may be changed while eqd runs.
 *
 * A struct is filled by params_init(), its members changed by param_set(), and it ends with params_deinit(). No function
 * here keeps state or blocks, but for what a ParamLookup does. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PARAM_INFINITY UINT64_MAX
#define PARAM_NO_ID UINT32_MAX /* no user, no group */

enum {
        PARAM_TEXT_MAX = 1024,                /* bytes of any value */
        PARAM_ERROR_MAX = 768,                /* room for any error text: the longest lists the names of a table */
        PARAM_MAX = 64,                       /* rows of one table: they fit a bit mask */
        PARAM_PRINT_MAX = PARAM_TEXT_MAX + 1, /* room for any value, printed */
        PARAM_MSEC_MAX = 32,                  /* for a number of milliseconds, with its unit */
};

typedef enum ParamType {
        PARAM_UINT,
        PARAM_SIZE,
        PARAM_USEC,
        PARAM_BOOL,
        PARAM_ENUM,
        PARAM_RATE,
        PARAM_OCTAL,
        PARAM_TEXT,
        PARAM_USER,
        PARAM_GROUP,
        PARAM_ACCESS,
        _PARAM_TYPE_MAX,
} ParamType;

/* So many in so much time. Infinity: { 0 } */
typedef struct ParamRate {
        uint64_t n, per_usec;
} ParamRate;

/* A user or group as it was written, and its number. Not set: { NULL, PARAM_NO_ID }. */
typedef struct ParamId {
        char *text;
        uint32_t id;
} ParamId;

typedef struct ParamAccessEntry {
        bool group;
        uint32_t id;
} ParamAccessEntry;

/* A list of users and groups as it was written, and their numbers. */
typedef struct ParamAccess {
        char *text;
        ParamAccessEntry *entries;
        size_t n;
} ParamAccess;

typedef struct Param {
        const char *section;
        const char *name;
        ParamType type;
        uint64_t min, max;
        const char *fallback; /* the default, as text */
        const char *unit;     /* ENUM: its words, separated by blanks */
        bool settable;
        const char *doc;
        size_t offset, size; /* of the member */
} Param;

typedef struct ParamTable {
        const Param *rows;
        size_t n;
} ParamTable;

/* How names become numbers. Without one only numbers are taken. 0, or -ENOENT: there is no such name. */
typedef struct ParamLookup {
        int (*user)(const char *name, uint32_t *ret);
        int (*group)(const char *name, uint32_t *ret);
} ParamLookup;

/* For those who include a params.def: the member that a row makes, and the row of the table. `base` is the offset of the
 * struct inside the object that the table is about. */
#define PARAM_FIELD_UINT(name) uint64_t name;
#define PARAM_FIELD_SIZE(name) uint64_t name;
#define PARAM_FIELD_USEC(name) uint64_t name##_usec;
#define PARAM_FIELD_BOOL(name) bool name;
#define PARAM_FIELD_ENUM(name) unsigned name;
#define PARAM_FIELD_RATE(name) ParamRate name;
#define PARAM_FIELD_OCTAL(name) uint64_t name;
#define PARAM_FIELD_TEXT(name) char *name;
#define PARAM_FIELD_USER(name) ParamId name;
#define PARAM_FIELD_GROUP(name) ParamId name;
#define PARAM_FIELD_ACCESS(name) ParamAccess name;

#define PARAM_MEMBER_UINT(name) name
#define PARAM_MEMBER_SIZE(name) name
#define PARAM_MEMBER_USEC(name) name##_usec
#define PARAM_MEMBER_BOOL(name) name
#define PARAM_MEMBER_ENUM(name) name
#define PARAM_MEMBER_RATE(name) name
#define PARAM_MEMBER_OCTAL(name) name
#define PARAM_MEMBER_TEXT(name) name
#define PARAM_MEMBER_USER(name) name
#define PARAM_MEMBER_GROUP(name) name
#define PARAM_MEMBER_ACCESS(name) name

#define PARAM_ROW(struct_, base_, section_, name_, type_, min_, max_, default_, unit_, settable_, doc_)                \
        {                                                                                                              \
                .section = (section_), .name = #name_, .type = PARAM_##type_, .min = (min_), .max = (max_),            \
                .fallback = (default_), .unit = (unit_), .settable = (settable_), .doc = (doc_),                       \
                .offset = (base_) + offsetof(struct_, PARAM_MEMBER_##type_(name_)),                                    \
                .size = sizeof(((struct_ *)NULL)->PARAM_MEMBER_##type_(name_)),                                        \
        }

/* Whole objects. `object` is the struct that the table is about; none of its members was set before params_init() or is
 * after params_deinit(). */
int params_init(const ParamTable *t, void *object); /* the defaults; 0 or -ENOMEM, then nothing is owned */
void params_deinit(const ParamTable *t, void *object);

/* MaxActive, max_active and max-active are one name. As the kernel names its own, X_ms is another one of X, if that is a USEC.
 * NULL: there is none. */
const Param *params_find(const ParamTable *t, const char *name, size_t len);
/* What a value means that was given under that name, which p was found by: "10" is "10ms" if it was X_ms, made in `room`. Else it
 * stays what and where it is. */
const char *param_value_as(const Param *p, const char *name, size_t n_name, const char *value, size_t *n_value,
                           char room[PARAM_MSEC_MAX]);
size_t params_index(const ParamTable *t, const Param *p);
/* Says that there is no `name`, with the nearest one or with all that there are. section NULL: any. Returns -EINVAL. */
int params_unknown(const ParamTable *t, const char *section, const char *name, size_t len, char *error, size_t size);

/* text is UTF-8 without control characters, or is refused as something else. An empty one sets the default. On failure
 * nothing has changed and error says what is wrong and what is allowed. 0, -EINVAL or -ENOMEM. */
int param_set(const Param *p, void *object, const char *text, size_t len, const ParamLookup *lookup, char *error,
              size_t size);
int param_copy(const Param *p, void *to, const void *from); /* 0, or -ENOMEM: `to` is unchanged */

/* The value in canonical form, which param_set() reads back as the same value. */
void param_print(const Param *p, const void *object, char ret[PARAM_PRINT_MAX]);
/* What a value may be, for people: "1..65535 tasks". */
void param_print_range(const Param *p, char *ret, size_t size);

/* Is the user with these groups in the list? Nobody is in an empty one. */
bool param_access_allows(const ParamAccess *a, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);

/* Bytes from outside as they may stand in an error text: escaped, in quotes, cut. */
const char *param_quote(const char *text, size_t len, char ret[64]);
