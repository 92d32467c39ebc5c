/* SPDX-License-Identifier: MIT */
/* MessagePack to typed structs.
 *
 * Decoding walks a cursor over the bytes; every read is checked against the cursor's end, so that even bytes which no
 * scanner has seen cannot lead out of them. A field is decoded by its type's row in `types`, and what went wrong comes
 * back as an Outcome, which becomes words only at the end: the way of a good message holds no formatting. Values that
 * nobody asked for are skipped by eq_scan(); nothing recurses. Nothing is allocated. */

#include "codec.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "scan.h"

/* ---- one value ---- */

typedef struct Cursor {
        const uint8_t *p, *end;
} Cursor;

typedef enum Kind {
        KIND_BAD,
        KIND_NIL,
        KIND_BOOL,
        KIND_UINT,
        KIND_INT, /* only negative ones come out of take_value() */
        KIND_FLOAT,
        KIND_STR,
        KIND_BIN,
        KIND_ARRAY,
        KIND_MAP,
} Kind;

typedef struct Value {
        Kind kind;
        uint64_t n;          /* the number, or how many bytes, elements or pairs follow */
        const uint8_t *body; /* of STR and BIN */
} Value;

/* What a first byte says: the kind, how many bytes of number follow, and which of its own bits are a number. Absent rows
 * (ext types, the reserved byte) are bad. */
static const struct {
        uint8_t kind, n_size, mask;
} heads[256] = {
        [0x00 ... 0x7f] = { KIND_UINT, 0, 0x7f },
        [0x80 ... 0x8f] = { KIND_MAP, 0, 0x0f },
        [0x90 ... 0x9f] = { KIND_ARRAY, 0, 0x0f },
        [0xa0 ... 0xbf] = { KIND_STR, 0, 0x1f },
        [0xc0] = { KIND_NIL },
        [0xc2 ... 0xc3] = { KIND_BOOL, 0, 0x01 },
        [0xc4] = { KIND_BIN, 1 },
        [0xc5] = { KIND_BIN, 2 },
        [0xc6] = { KIND_BIN, 4 },
        [0xca] = { KIND_FLOAT, 4 },
        [0xcb] = { KIND_FLOAT, 8 },
        [0xcc] = { KIND_UINT, 1 },
        [0xcd] = { KIND_UINT, 2 },
        [0xce] = { KIND_UINT, 4 },
        [0xcf] = { KIND_UINT, 8 },
        [0xd0] = { KIND_INT, 1 },
        [0xd1] = { KIND_INT, 2 },
        [0xd2] = { KIND_INT, 4 },
        [0xd3] = { KIND_INT, 8 },
        [0xd9] = { KIND_STR, 1 },
        [0xda] = { KIND_STR, 2 },
        [0xdb] = { KIND_STR, 4 },
        [0xdc] = { KIND_ARRAY, 2 },
        [0xdd] = { KIND_ARRAY, 4 },
        [0xde] = { KIND_MAP, 2 },
        [0xdf] = { KIND_MAP, 4 },
        [0xe0 ... 0xff] = { KIND_INT, 0, 0xff },
};

static Cursor cursor(EqBytes raw) {
        const uint8_t *p = (const uint8_t *)raw.data;
        return raw.len > 0 ? (Cursor) { p, p + raw.len } : (Cursor) { 0 };
}

static size_t cursor_left(const Cursor *c) {
        return (size_t)(c->end - c->p);
}

static EqBytes cursor_rest(const Cursor *c) {
        return eq_bytes((const char *)c->p, cursor_left(c));
}

static inline uint64_t load_be(const uint8_t *p, unsigned n) {
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;

        switch (n) {
        case 1:
                return *p;
        case 2:
                memcpy(&u16, p, sizeof(u16));
                return be16toh(u16);
        case 4:
                memcpy(&u32, p, sizeof(u32));
                return be32toh(u32);
        default:
                memcpy(&u64, p, sizeof(u64));
                return be64toh(u64);
        }
}

/* Numbers written in a signed format: sign-extended, and UINT if they turn out not to be negative. */
static void value_sign(Value *v, unsigned n_size) {
        unsigned shift = 64 - 8 * (n_size > 0 ? n_size : 1);
        int64_t i = (int64_t)(v->n << shift) >> shift;

        v->n = (uint64_t)i;
        v->kind = i < 0 ? KIND_INT : KIND_UINT;
}

/* Takes one header, with its body where that is a string. False, and the cursor unmoved, if it is bad or does not fit:
 * elements need a byte each, so a count that the rest cannot hold is bad as well. */
static inline bool take_value(Cursor *c, Value *ret) {
        const uint8_t *p = c->p;
        if (p == c->end)
                return false;

        uint8_t b = *p++;
        unsigned n_size = heads[b].n_size;
        ret->kind = heads[b].kind;
        ret->n = b & heads[b].mask;
        if (n_size > 0) {
                if ((size_t)(c->end - p) < n_size)
                        return false;
                ret->n = load_be(p, n_size);
                p += n_size;
        }
        if (ret->kind == KIND_INT)
                value_sign(ret, n_size);
        if (ret->kind >= KIND_STR) {
                uint64_t needed = ret->kind == KIND_MAP ? 2 * ret->n : ret->n;
                if (needed > (size_t)(c->end - p))
                        return false;
                if (ret->kind <= KIND_BIN) {
                        ret->body = p;
                        p += ret->n;
                }
        }
        if (ret->kind == KIND_BAD)
                return false;
        c->p = p;
        return true;
}

static inline bool take_kind(Cursor *c, Kind kind, Value *ret) {
        Cursor next = *c;
        if (!take_value(&next, ret) || ret->kind != kind)
                return false;
        *c = next;
        return true;
}

static inline bool take_bytes(Cursor *c, EqBytes *ret) {
        Value v;
        Cursor next = *c;
        if (!take_value(&next, &v) || (v.kind != KIND_STR && v.kind != KIND_BIN))
                return false;
        *c = next;
        *ret = eq_bytes((const char *)v.body, v.n);
        return true;
}

static bool take_id(Cursor *c, EqIdRef *ret) {
        Cursor next = *c;
        Value v, queue, seq;

        if (!take_value(&next, &v))
                return false;
        if (v.kind == KIND_STR) {
                EqBytes text = eq_bytes((const char *)v.body, v.n), name;
                uint64_t n;
                if (eq_id_parse(text, &name, &n) < 0)
                        return false;
                *ret = (EqIdRef) { .text = text };
        } else {
                if (v.kind != KIND_ARRAY || v.n != 2 || !take_kind(&next, KIND_UINT, &queue) ||
                    !take_kind(&next, KIND_UINT, &seq) || queue.n > EQ_SEQ_MAX || seq.n > EQ_SEQ_MAX)
                        return false;
                *ret = (EqIdRef) { .id = { .queue = queue.n, .seq = seq.n } };
        }
        *c = next;
        return true;
}

/* Any value, containers with all that is in them. */
static bool take_any(Cursor *c, EqBytes *ret) {
        EqScan scan = EQ_SCAN_NULL;
        size_t left = cursor_left(c);
        Cursor next = *c;
        Value v;

        if (take_value(&next, &v) && v.kind < KIND_ARRAY) { /* one header, and it was walked over */
                *ret = eq_bytes((const char *)c->p, (size_t)(next.p - c->p));
                *c = next;
                return true;
        }

        if (left == 0 || eq_scan(&scan, c->p, left, left) != EQ_SCAN_DONE)
                return false;
        *ret = eq_bytes((const char *)c->p, scan.pos);
        c->p += scan.pos;
        return true;
}

static bool at_nil(const Cursor *c) {
        return c->p < c->end && *c->p == 0xc0;
}

static bool at_map(const Cursor *c) {
        return c->p < c->end && ((*c->p & 0xf0) == 0x80 || *c->p == 0xde || *c->p == 0xdf);
}

/* ---- one field ---- */

typedef enum Outcome { OUTCOME_OK, OUTCOME_TYPE, OUTCOME_MAX, OUTCOME_NUL } Outcome;

static bool beyond(const EqField *f, uint64_t n) {
        return f->max != 0 && n > f->max;
}

static bool has_nul(EqBytes s) {
        return s.len > 0 && memchr(s.data, 0, s.len);
}

static Outcome decode_bool(Cursor *c, const EqField *f, void *ret) {
        Value v;
        if (!take_kind(c, KIND_BOOL, &v))
                return OUTCOME_TYPE;
        *(bool *)ret = v.n;
        return OUTCOME_OK;
}

static Outcome decode_u64(Cursor *c, const EqField *f, void *ret) {
        Value v;
        if (!take_kind(c, KIND_UINT, &v))
                return OUTCOME_TYPE;
        *(uint64_t *)ret = v.n;
        return beyond(f, v.n) ? OUTCOME_MAX : OUTCOME_OK;
}

static Outcome decode_i64(Cursor *c, const EqField *f, void *ret) {
        Value v;
        if (!take_value(c, &v) || (v.kind != KIND_INT && v.kind != KIND_UINT))
                return OUTCOME_TYPE;
        if (v.kind == KIND_UINT && (v.n > INT64_MAX || beyond(f, v.n)))
                return v.n > INT64_MAX ? OUTCOME_TYPE : OUTCOME_MAX;
        *(int64_t *)ret = (int64_t)v.n;
        return OUTCOME_OK;
}

static Outcome decode_str(Cursor *c, const EqField *f, void *ret) {
        EqBytes *s = ret;
        if (!take_bytes(c, s))
                return OUTCOME_TYPE;
        if (beyond(f, s->len))
                return OUTCOME_MAX;
        return has_nul(*s) ? OUTCOME_NUL : OUTCOME_OK;
}

static Outcome decode_bin(Cursor *c, const EqField *f, void *ret) {
        EqBytes *s = ret;
        if (at_nil(c)) {
                c->p++;
                *s = eq_bytes("", 0);
                return OUTCOME_OK;
        }
        if (!take_bytes(c, s))
                return OUTCOME_TYPE;
        return beyond(f, s->len) ? OUTCOME_MAX : OUTCOME_OK;
}

static Outcome check_string(Cursor *c) {
        EqBytes s;
        if (!take_bytes(c, &s))
                return OUTCOME_TYPE;
        return has_nul(s) ? OUTCOME_NUL : OUTCOME_OK;
}

static Outcome check_id(Cursor *c) {
        EqIdRef id;
        return take_id(c, &id) ? OUTCOME_OK : OUTCOME_TYPE;
}

static Outcome check_any(Cursor *c) {
        EqBytes raw;
        return take_any(c, &raw) ? OUTCOME_OK : OUTCOME_TYPE;
}

/* Every element is looked at now, so that walking the array later cannot fail. */
static Outcome decode_array(Cursor *c, const EqField *f, EqArray *ret, Outcome (*check)(Cursor *c)) {
        Value v;
        if (!take_kind(c, KIND_ARRAY, &v))
                return OUTCOME_TYPE;
        if (beyond(f, v.n))
                return OUTCOME_MAX;

        const uint8_t *start = c->p;
        for (uint64_t i = 0; i < v.n; i++) {
                Outcome o = check(c);
                if (o != OUTCOME_OK)
                        return o;
        }
        *ret = (EqArray) { .raw = eq_bytes((const char *)start, (size_t)(c->p - start)), .n = (uint32_t)v.n };
        return OUTCOME_OK;
}

static Outcome decode_strv(Cursor *c, const EqField *f, void *ret) {
        return decode_array(c, f, ret, check_string);
}

static Outcome decode_idv(Cursor *c, const EqField *f, void *ret) {
        return decode_array(c, f, ret, check_id);
}

static Outcome decode_listv(Cursor *c, const EqField *f, void *ret) {
        return decode_array(c, f, ret, check_any);
}

static Outcome decode_id(Cursor *c, const EqField *f, void *ret) {
        return take_id(c, ret) ? OUTCOME_OK : OUTCOME_TYPE;
}

static Outcome decode_map(Cursor *c, const EqField *f, void *ret) {
        return at_map(c) && take_any(c, ret) ? OUTCOME_OK : OUTCOME_TYPE;
}

static const struct {
        Outcome (*decode)(Cursor *c, const EqField *f, void *ret);
        const char *expected;
        const char *unit; /* of `max` */
} types[] = {
        [EQ_BOOL] = { decode_bool, "true or false", "" },
        [EQ_U64] = { decode_u64, "a non-negative integer", "" },
        [EQ_I64] = { decode_i64, "an integer", "" },
        [EQ_STR] = { decode_str, "a string", " bytes" },
        [EQ_BIN] = { decode_bin, "bytes", " bytes" },
        [EQ_STRV] = { decode_strv, "an array of strings", " strings" },
        [EQ_ID] = { decode_id, "a task id, [queue, seq] or \"QUEUE/SEQ\"", "" },
        [EQ_IDV] = { decode_idv, "an array of task ids, each [queue, seq] or \"QUEUE/SEQ\"", " ids" },
        [EQ_LISTV] = { decode_listv, "an array", " elements" },
        [EQ_MAP] = { decode_map, "a map", "" },
};

/* ---- whole records ---- */

static int refuse(EqDecodeError *error, const EqField *field, const char *text) {
        snprintf(error->text, sizeof(error->text), "%s%s%s", field ? field->name : "", field ? ": " : "", text);
        error->field = field;
        error->beyond = false;
        return -EINVAL;
}

static int refuse_field(EqDecodeError *error, const EqField *f, Outcome o) {
        char text[96];

        if (o == OUTCOME_MAX)
                snprintf(text, sizeof(text), "at most %" PRIu64 "%s", f->max, types[f->type].unit);
        else if (o == OUTCOME_NUL)
                snprintf(text, sizeof(text), "no NUL bytes allowed");
        else
                snprintf(text, sizeof(text), "expected %s", types[f->type].expected);
        (void)refuse(error, f, text);
        error->beyond = o == OUTCOME_MAX;
        return -EINVAL;
}

/* nil stands for a field that is not there, except where it is bytes: then it is none of them. */
static inline Outcome decode_field(const EqSchema *schema, unsigned i, Cursor *c, void *rec) {
        const EqField *f = &schema->fields[i];

        if (at_nil(c) && f->type != EQ_BIN) {
                c->p++;
                return OUTCOME_OK;
        }
        Outcome o = types[f->type].decode(c, f, (char *)rec + f->offset);
        if (o == OUTCOME_OK)
                *(uint64_t *)rec |= UINT64_C(1) << i;
        return o;
}

/* Starts to look where the last key was found: keys mostly come in the order of the table. */
static inline int find_field(const EqSchema *schema, unsigned start, const uint8_t *key, size_t len) {
        for (unsigned k = 0, i = start; k < schema->n_fields; k++, i++) {
                if (i >= schema->n_fields)
                        i = 0;
                const EqField *f = &schema->fields[i];
                if (f->name_len == len && (len == 0 || f->name[0] == (char)key[0]) && memcmp(f->name, key, len) == 0)
                        return (int)i;
        }
        return -1;
}

static int decode_pairs(const EqSchema *schema, Cursor *c, void *rec, EqDecodeError *error) {
        unsigned next = schema->n_positional;
        EqBytes raw;
        Value map, key;

        if (!take_kind(c, KIND_MAP, &map))
                return refuse(error, NULL, "expected a map");
        for (uint64_t n = map.n; n > 0; n--) {
                int i = -1;
                if (take_kind(c, KIND_STR, &key))
                        i = find_field(schema, next, key.body, key.n);
                else if (!take_any(c, &raw))
                        return refuse(error, NULL, "malformed map");
                if (i < 0) {
                        if (!take_any(c, &raw))
                                return refuse(error, NULL, "malformed map");
                        continue;
                }
                Outcome o = decode_field(schema, (unsigned)i, c, rec);
                if (o != OUTCOME_OK)
                        return refuse_field(error, &schema->fields[i], o);
                next = (unsigned)i + 1;
        }
        return 0;
}

static int check_required(const EqSchema *schema, const void *rec, EqDecodeError *error) {
        uint64_t missing = ~*(const uint64_t *)rec & ((UINT64_C(1) << schema->n_positional) - 1);
        return missing ? refuse(error, &schema->fields[__builtin_ctzll(missing)], "missing") : 0;
}

int eq_decode_params_split(const EqSchema *schema, EqBytes raw, void *ret, EqBytes *ret_options, EqDecodeError *error) {
        Cursor c = cursor(raw);
        Value array;

        memset(ret, 0, schema->size);
        *ret_options = (EqBytes) { 0 };
        if (!take_kind(&c, KIND_ARRAY, &array))
                return refuse(error, NULL, "expected an array of parameters");
        for (unsigned i = 0; i < array.n; i++) {
                if (i == array.n - 1 && at_map(&c)) {
                        *ret_options = cursor_rest(&c); /* who has bytes behind it is refused below */
                        int r = decode_pairs(schema, &c, ret, error);
                        if (r < 0)
                                return r;
                } else if (i < schema->n_positional) {
                        Outcome o = decode_field(schema, i, &c, ret);
                        if (o != OUTCOME_OK)
                                return refuse_field(error, &schema->fields[i], o);
                } else
                        return refuse(error, NULL, "too many parameters; options go into one map at the end");
        }
        if (c.p != c.end)
                return refuse(error, NULL, "bytes after the parameters");
        return check_required(schema, ret, error);
}

int eq_decode_params(const EqSchema *schema, EqBytes raw, void *ret, EqDecodeError *error) {
        EqBytes options;
        return eq_decode_params_split(schema, raw, ret, &options, error);
}

int eq_decode_map(const EqSchema *schema, EqBytes raw, void *rec, EqDecodeError *error) {
        Cursor c = cursor(raw);
        int r = decode_pairs(schema, &c, rec, error);
        if (r < 0)
                return r;
        return c.p == c.end ? 0 : refuse(error, NULL, "bytes after the map");
}

/* ---- messages ---- */

static int parse_call(Cursor *c, EqMessage *m) {
        Value v;

        /* Clients that make no difference between text and bytes, such as pynvim, send names as bin. */
        if (!take_bytes(c, &m->method))
                return -EBADMSG;
        /* The last element of a message reaches to its end; eq_scan() made sure of that, and who decodes it checks. */
        m->params = cursor_rest(c);
        return take_kind(c, KIND_ARRAY, &v) ? 0 : -EBADMSG;
}

static int parse_response(Cursor *c, EqMessage *m) {
        if (!take_any(c, &m->error))
                return -EBADMSG;
        m->result = cursor_rest(c);
        return m->result.len > 0 ? 0 : -EBADMSG;
}

int eq_message_parse(EqBytes raw, EqMessage *ret) {
        Cursor c = cursor(raw);
        Value array, type, msgid;

        *ret = (EqMessage) { 0 };
        if (!take_kind(&c, KIND_ARRAY, &array) || array.n < 2 || !take_kind(&c, KIND_UINT, &type) ||
            type.n > EQ_MSG_NOTIFY)
                return -EBADMSG;
        ret->type = (EqMessageType)type.n;
        if (ret->type == EQ_MSG_NOTIFY)
                return array.n == 3 ? parse_call(&c, ret) : -EBADMSG;
        if (!take_kind(&c, KIND_UINT, &msgid) || msgid.n > UINT32_MAX)
                return -EBADMSG;
        ret->msgid = (uint32_t)msgid.n;
        ret->has_msgid = true;
        if (array.n != 4)
                return -EBADMSG;
        return ret->type == EQ_MSG_REQUEST ? parse_call(&c, ret) : parse_response(&c, ret);
}

/* ---- arrays and single values ---- */

/* Runs take(&cursor, ret) on the next element. The cursor is kept in the array itself. */
#define ARRAY_NEXT(it, take, ret)                                                                                      \
        ({                                                                                                             \
                EqArray *it_ = (it);                                                                                   \
                Cursor c_ = cursor(it_->raw);                                                                          \
                int r_ = it_->n == 0 ? 0 : take(&c_, ret) ? 1 : -EBADMSG;                                              \
                if (r_ > 0) {                                                                                          \
                        it_->raw = cursor_rest(&c_);                                                                   \
                        it_->n--;                                                                                      \
                }                                                                                                      \
                r_;                                                                                                    \
        })

static bool take_i64(Cursor *c, int64_t *ret) {
        static const EqField any = { .type = EQ_I64 };
        return decode_i64(c, &any, ret) == OUTCOME_OK;
}

int eq_next_bytes(EqArray *it, EqBytes *ret) {
        return ARRAY_NEXT(it, take_bytes, ret);
}

int eq_next_id(EqArray *it, EqIdRef *ret) {
        return ARRAY_NEXT(it, take_id, ret);
}

int eq_next_raw(EqArray *it, EqBytes *ret) {
        return ARRAY_NEXT(it, take_any, ret);
}

int eq_next_i64(EqArray *it, int64_t *ret) {
        return ARRAY_NEXT(it, take_i64, ret);
}

int eq_get_array(EqBytes raw, EqArray *ret) {
        Cursor c = cursor(raw);
        Value v;
        if (!take_kind(&c, KIND_ARRAY, &v))
                return -EBADMSG;
        *ret = (EqArray) { .raw = cursor_rest(&c), .n = (uint32_t)v.n };
        return 0;
}

int eq_get_id(EqBytes raw, EqIdRef *ret) {
        Cursor c = cursor(raw);
        EqIdRef id;
        if (!take_id(&c, &id) || c.p != c.end)
                return -EBADMSG;
        *ret = id;
        return 0;
}

int eq_get_u64(EqBytes raw, uint64_t *ret) {
        Cursor c = cursor(raw);
        Value v;
        if (!take_kind(&c, KIND_UINT, &v) || c.p != c.end)
                return -EBADMSG;
        *ret = v.n;
        return 0;
}

int eq_get_i64(EqBytes raw, int64_t *ret) {
        Cursor c = cursor(raw);
        int64_t n;
        if (!take_i64(&c, &n) || c.p != c.end)
                return -EBADMSG;
        *ret = n;
        return 0;
}

int eq_get_bytes(EqBytes raw, EqBytes *ret) {
        Cursor c = cursor(raw);
        EqBytes s;
        if (!take_bytes(&c, &s) || c.p != c.end)
                return -EBADMSG;
        *ret = s;
        return 0;
}

bool eq_is_nil(EqBytes raw) {
        Cursor c = cursor(raw);
        return at_nil(&c) && raw.len == 1;
}

bool eq_is_map(EqBytes raw) {
        Cursor c = cursor(raw);
        return at_map(&c);
}

int eq_get_error(EqBytes raw, eq_error *ret_code, EqBytes *ret_text, EqBytes *ret_details) {
        EqBytes text, details = { 0 };
        EqArray array;
        int64_t code;

        if (eq_get_array(raw, &array) < 0 || eq_next_i64(&array, &code) <= 0 || code <= 0 || code > INT_MAX ||
            eq_next_bytes(&array, &text) <= 0)
                return -EBADMSG;
        *ret_code = (eq_error)code;
        *ret_text = text;
        if (eq_next_raw(&array, &details) < 0 || !eq_is_map(details))
                details = (EqBytes) { 0 };
        if (ret_details)
                *ret_details = details;
        return 0;
}
