/* SPDX-License-Identifier: MIT */
#include "codec.h"

#include <errno.h>
#include <inttypes.h>

#include "record.h"
#include "test.h"

/* A literal of encoded bytes, NULs and all. */
#define RAW(literal) ((EqBytes) { .data = (literal), .len = sizeof(literal) - 1 })

typedef struct AnyRecord {
        uint64_t words[256];
} AnyRecord;

static EqBytes buffer_bytes(const EqBuffer *b) {
        return eq_bytes(b->data, b->len);
}

/* ---- round trips ---- */

static uint64_t all_fields(const EqSchema *s) {
        return s->n_fields == 64 ? UINT64_MAX : (UINT64_C(1) << s->n_fields) - 1;
}

static uint64_t required_fields(const EqSchema *s) {
        return (UINT64_C(1) << s->n_positional) - 1;
}

/* Packs rec as a map and as parameters, decodes both, compares. */
static void check_round_trip(const EqSchema *s, const AnyRecord *rec) {
        AnyRecord got = { 0 };
        EqDecodeError e = { "" };
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        const char *differs;

        eq_pack_record(&pk, s, rec);
        ck_assert_msg(eq_decode_map(s, buffer_bytes(&b), &got, &e) == 0, "%s: %s", s->name, e.text);
        differs = record_differs(s, rec, &got);
        ck_assert_msg(!differs, "%s.%s differs", s->name, differs);

        b.len = 0;
        memset(&got, 0xff, sizeof(got));
        eq_pack_params(&pk, s, rec);
        ck_assert_msg(eq_decode_params(s, buffer_bytes(&b), &got, &e) == 0, "%s: %s", s->name, e.text);
        differs = record_differs(s, rec, &got);
        ck_assert_msg(!differs, "%s.%s differs", s->name, differs);
        ck_assert(!b.failed);
        eq_buffer_done(&b);
}

TEST(every_record_comes_back_as_it_was_packed) {
        uint64_t seed = 11;

        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                ck_assert_uint_le(s->size, sizeof(AnyRecord));
                for (unsigned round = 0; round < 60; round++) {
                        RecordArena arena = { .n = 0 };
                        AnyRecord rec;
                        uint64_t wanted = round < 10 ? all_fields(s) : gen_random(&seed) & all_fields(s);
                        record_fill(&seed, s, wanted | required_fields(s), &rec, &arena);
                        check_round_trip(s, &rec);
                        record_arena_done(&arena);
                }
        }
}

static EqBytes object_bytes(const msgpack_object *o) {
        if (o->type == MSGPACK_OBJECT_STR)
                return eq_bytes(o->via.str.ptr, o->via.str.size);
        ck_assert_int_eq(o->type, MSGPACK_OBJECT_BIN);
        return eq_bytes(o->via.bin.ptr, o->via.bin.size);
}

static void check_id_object(const msgpack_object *o, const EqIdRef *id) {
        if (id->text.len > 0) {
                ck_assert(eq_bytes_eq(object_bytes(o), id->text));
                return;
        }
        ck_assert_int_eq(o->type, MSGPACK_OBJECT_ARRAY);
        ck_assert_uint_eq(o->via.array.size, 2);
        ck_assert_uint_eq(o->via.array.ptr[0].via.u64, id->id.queue);
        ck_assert_uint_eq(o->via.array.ptr[1].via.u64, id->id.seq);
}

static void check_array_object(const EqField *f, const msgpack_object *o, EqArray a) {
        ck_assert_int_eq(o->type, MSGPACK_OBJECT_ARRAY);
        ck_assert_uint_eq(o->via.array.size, a.n);
        for (uint32_t i = 0; i < o->via.array.size; i++) {
                EqBytes s;
                EqIdRef id;
                if (f->type == EQ_STRV) {
                        ck_assert_int_eq(eq_next_bytes(&a, &s), 1);
                        ck_assert(eq_bytes_eq(object_bytes(&o->via.array.ptr[i]), s));
                } else if (f->type == EQ_IDV) {
                        ck_assert_int_eq(eq_next_id(&a, &id), 1);
                        check_id_object(&o->via.array.ptr[i], &id);
                } else
                        ck_assert_int_eq(eq_next_raw(&a, &s), 1);
        }
        ck_assert_uint_eq(a.n, 0);
        ck_assert_uint_eq(a.raw.len, 0);
}

static void check_object(const EqField *f, const msgpack_object *o, const void *field) {
        switch ((EqType)f->type) {
        case EQ_BOOL:
                ck_assert_int_eq(o->type, MSGPACK_OBJECT_BOOLEAN);
                ck_assert_int_eq(o->via.boolean, *(const bool *)field);
                break;
        case EQ_U64:
                ck_assert_int_eq(o->type, MSGPACK_OBJECT_POSITIVE_INTEGER);
                ck_assert_uint_eq(o->via.u64, *(const uint64_t *)field);
                break;
        case EQ_I64:
                ck_assert(o->type == MSGPACK_OBJECT_POSITIVE_INTEGER || o->type == MSGPACK_OBJECT_NEGATIVE_INTEGER);
                ck_assert_int_eq(o->via.i64, *(const int64_t *)field);
                break;
        case EQ_STR:
        case EQ_BIN:
                ck_assert_int_eq(o->type, f->type == EQ_STR ? MSGPACK_OBJECT_STR : MSGPACK_OBJECT_BIN);
                ck_assert(eq_bytes_eq(object_bytes(o), *(const EqBytes *)field));
                break;
        case EQ_ID:
                check_id_object(o, field);
                break;
        case EQ_MAP:
                ck_assert_int_eq(o->type, MSGPACK_OBJECT_MAP);
                break;
        default:
                check_array_object(f, o, *(const EqArray *)field);
        }
}

TEST(msgpack_c_reads_the_same_values) {
        uint64_t seed = 12;

        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                RecordArena arena = { .n = 0 };
                AnyRecord rec;
                EqBuffer b = EQ_BUFFER_NULL;
                msgpack_packer pk = eq_packer(&b);
                msgpack_unpacked u;
                size_t off = 0;

                record_fill(&seed, s, all_fields(s), &rec, &arena);
                eq_pack_record(&pk, s, &rec);
                msgpack_unpacked_init(&u);
                ck_assert_int_eq(msgpack_unpack_next(&u, b.data, b.len, &off), MSGPACK_UNPACK_SUCCESS);
                ck_assert_int_eq(u.data.type, MSGPACK_OBJECT_MAP);
                ck_assert_uint_eq(u.data.via.map.size, s->n_fields);
                for (unsigned i = 0; i < s->n_fields; i++) {
                        ck_assert(eq_bytes_eq(object_bytes(&u.data.via.map.ptr[i].key), eq_str(s->fields[i].name)));
                        check_object(&s->fields[i], &u.data.via.map.ptr[i].val, record_field(s, i, &rec));
                }
                msgpack_unpacked_destroy(&u);
                eq_buffer_done(&b);
                record_arena_done(&arena);
        }
}

/* ---- one field at a time ---- */

/* {name: value} into b. */
static void put_pair(EqBuffer *b, const EqField *f, EqBytes value) {
        msgpack_packer pk = eq_packer(b);
        b->len = 0;
        msgpack_pack_map(&pk, 1);
        eq_pack_cstr(&pk, f->name);
        eq_pack_raw(&pk, value);
}

static bool array_type(unsigned type) {
        return type == EQ_STRV || type == EQ_IDV || type == EQ_LISTV;
}

/* A value of field f that has n of what its max counts. */
static void put_sized(EqBuffer *b, const EqField *f, uint64_t n) {
        EqBuffer v = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&v);

        if (f->type == EQ_U64)
                msgpack_pack_uint64(&pk, n);
        else if (array_type(f->type)) {
                msgpack_pack_array(&pk, n);
                for (uint64_t i = 0; i < n; i++)
                        eq_pack_cstr(&pk, "q/1");
        } else {
                char *text = malloc(n);
                memset(text, 'x', n);
                eq_pack_bin(&pk, eq_bytes(text, n));
                free(text);
        }
        put_pair(b, f, buffer_bytes(&v));
        eq_buffer_done(&v);
}

TEST(each_limit_holds_to_the_byte_and_is_named) {
        unsigned n_limits = 0;

        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                for (unsigned i = 0; i < s->n_fields; i++) {
                        const EqField *f = &s->fields[i];
                        EqBuffer b = EQ_BUFFER_NULL;
                        AnyRecord rec = { 0 };
                        EqDecodeError e = { "" };
                        char number[32];
                        if (f->max == 0)
                                continue;
                        put_sized(&b, f, f->max);
                        ck_assert_msg(eq_decode_map(s, buffer_bytes(&b), &rec, &e) == 0, "%s", e.text);
                        ck_assert_uint_eq(*record_present(&rec), UINT64_C(1) << i);
                        put_sized(&b, f, f->max + 1);
                        ck_assert_int_eq(eq_decode_map(s, buffer_bytes(&b), &rec, &e), -EINVAL);
                        snprintf(number, sizeof(number), "at most %" PRIu64, f->max);
                        ck_assert_msg(strstr(e.text, f->name) && strstr(e.text, number), "%s", e.text);
                        eq_buffer_done(&b);
                        n_limits++;
                }
        }
        ck_assert_uint_gt(n_limits, 30);
}

/* One value of each kind, and the types that take it. */
#define ON(type) (1U << EQ_##type)
static const struct {
        const char *name;
        EqBytes raw;
        unsigned takers;
} kinds[] = {
        { "true", RAW("\xc3"), ON(BOOL) },
        { "5", RAW("\x05"), ON(U64) | ON(I64) },
        { "5, as int8", RAW("\xd0\x05"), ON(U64) | ON(I64) },
        { "5, as int64", RAW("\xd3\0\0\0\0\0\0\0\x05"), ON(U64) | ON(I64) },
        { "5, as uint64", RAW("\xcf\0\0\0\0\0\0\0\x05"), ON(U64) | ON(I64) },
        { "-1", RAW("\xff"), ON(I64) },
        { "-1, as int16", RAW("\xd1\xff\xff"), ON(I64) },
        { "float", RAW("\xcb\0\0\0\0\0\0\0\0"), 0 },
        { "str", RAW("\xa3q/x"), ON(STR) | ON(BIN) },
        { "str of an id", RAW("\xa3q/5"), ON(STR) | ON(BIN) | ON(ID) },
        { "str8", RAW("\xd9\x03q/5"), ON(STR) | ON(BIN) | ON(ID) },
        { "str32", RAW("\xdb\0\0\0\x03q/5"), ON(STR) | ON(BIN) | ON(ID) },
        { "bin", RAW("\xc4\x03q/5"), ON(STR) | ON(BIN) },
        { "bin16", RAW("\xc5\0\x01x"), ON(STR) | ON(BIN) },
        { "bin with NUL", RAW("\xc4\x01\0"), ON(BIN) },
        { "empty array", RAW("\x90"), ON(STRV) | ON(IDV) | ON(LISTV) },
        { "two numbers", RAW("\x92\x01\x02"), ON(LISTV) | ON(ID) },
        { "two numbers, wide", RAW("\xdc\0\x02\xcf\0\0\0\0\0\0\0\x01\xce\0\0\0\x02"), ON(LISTV) | ON(ID) },
        { "three numbers", RAW("\x93\x01\x02\x03"), ON(LISTV) },
        { "two numbers, one beyond 2^53", RAW("\x92\x01\xcf\0\x20\0\0\0\0\0\0"), ON(LISTV) },
        { "two numbers, the first beyond 2^53", RAW("\x92\xcf\0\x20\0\0\0\0\0\0\x01"), ON(LISTV) },
        { "two numbers, one negative", RAW("\x92\x01\xff"), ON(LISTV) },
        { "strings", RAW("\x92\xa1x\xc4\x01y"), ON(STRV) | ON(LISTV) },
        { "strings, one with NUL", RAW("\x92\xa1x\xa1\0"), ON(LISTV) },
        { "ids", RAW("\x92\x92\x01\x02\xa3q/5"), ON(IDV) | ON(LISTV) },
        { "map", RAW("\x81\x01\x02"), ON(MAP) },
        { "map16", RAW("\xde\0\x01\x01\x02"), ON(MAP) },
};

TEST(each_type_takes_its_values_and_refuses_the_others_by_name) {
        unsigned n_taken = 0, n_refused = 0;

        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                for (unsigned i = 0; i < s->n_fields; i++) {
                        for (size_t j = 0; j < sizeof(kinds) / sizeof(kinds[0]); j++) {
                                const EqField *f = &s->fields[i];
                                EqBuffer b = EQ_BUFFER_NULL;
                                AnyRecord rec = { 0 };
                                EqDecodeError e = { "" };
                                put_pair(&b, f, kinds[j].raw);
                                int r = eq_decode_map(s, buffer_bytes(&b), &rec, &e);
                                eq_buffer_done(&b);
                                if ((kinds[j].takers >> f->type & 1) != 0 && (f->max == 0 || f->max >= 5)) {
                                        ck_assert_msg(r == 0, "%s for %s: %s", kinds[j].name, f->name, e.text);
                                        n_taken++;
                                } else if ((kinds[j].takers >> f->type & 1) == 0) {
                                        ck_assert_msg(r == -EINVAL, "%s for %s.%s", kinds[j].name, s->name, f->name);
                                        ck_assert_msg(strstr(e.text, f->name), "%s", e.text);
                                        n_refused++;
                                }
                        }
                }
        }
        ck_assert_uint_gt(n_taken, 500);
        ck_assert_uint_gt(n_refused, 2000);
}

/* ---- what parameters may look like ---- */

TEST(parameters_that_are_wrong_are_refused_with_words_that_help) {
        static const struct {
                EqBytes raw;
                const char *text;
        } rows[] = {
                { RAW("\x90"), "queue: missing" },
                { RAW("\x91\xa1q"), "payload: missing" },
                { RAW("\x92\xc0\xa1x"), "queue: missing" },
                { RAW("\x91\x81\xa7payload\xc0"), "queue: missing" },
                { RAW("\x92\x05\xa1x"), "queue: expected a string" },
                { RAW("\x92\xa1q\x05"), "payload: expected bytes" },
                { RAW("\x92\xa2q\0\xa1x"), "queue: no NUL bytes allowed" },
                { RAW("\x93\xa1q\xa1x\x81\xactimeout_usec\xff"), "timeout_usec: expected a non-negative integer" },
                { RAW("\x93\xa1q\xa1x\x81\xa5umask\xcd\x02\x00"), "umask: at most 511" },
                { RAW("\x93\xa1q\xa1x\x81\xa4"
                      "argv\xdc\x40\x01"),
                  "argv: expected an array of strings" },
                { RAW("\x93\xa1q\xa1x\x81\xa8"
                      "after_ok\x91\xa1x"),
                  "after_ok: expected an array of task ids, each [queue, seq] or \"QUEUE/SEQ\"" },
                { RAW("\x93\xa1q\xa1x\xa1y"), "too many parameters; options go into one map at the end" },
                { RAW("\x94\xa1q\xa1x\x80\x80"), "too many parameters; options go into one map at the end" },
                { RAW("\x93\xa1q\x80\xa1x"), "payload: expected bytes" },
                { RAW("\x80"), "expected an array of parameters" },
                { RAW(""), "expected an array of parameters" },
                { RAW("\x92\xa1q\xa1x\x80"), "bytes after the parameters" },
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                EqSubmit rec;
                EqDecodeError e = { "" };
                ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, rows[i].raw, &rec, &e), -EINVAL);
                ck_assert_str_eq(e.text, rows[i].text);
        }
}

TEST(an_array_beyond_its_limit_is_refused_before_its_elements_are_read) {
        EqBuffer b = EQ_BUFFER_NULL;
        EqSubmit rec;
        EqDecodeError e = { "" };

        ck_assert_int_eq(eq_buffer_append(&b,
                                          "\x93\xa1q\xa1x\x81\xa4"
                                          "argv\xdc\x40\x01",
                                          14),
                         0);
        for (unsigned i = 0; i < EQ_ARGV_MAX + 1; i++)
                gen_byte(&b, 0x07);
        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, buffer_bytes(&b), &rec, &e), -EINVAL);
        ck_assert_str_eq(e.text, "argv: at most 16384 strings");
        eq_buffer_done(&b);
}

TEST(required_fields_are_taken_by_position_or_by_name) {
        static const EqBytes same[] = {
                RAW("\x92\xa1q\xa2hi"),
                RAW("\x93\xa1q\xa2hi\x80"),
                RAW("\x92\xa1q\x81\xa7payload\xc4\x02hi"),
                RAW("\x91\x82\xa7payload\xa2hi\xa5queue\xa1q"),
                RAW("\x91\xdf\0\0\0\x02\xa7payload\xa2hi\xd9\x05queue\xd9\x01q"),
                RAW("\x93\xa1q\xa2hi\x81\xa5label\xc0"),
        };

        for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
                EqSubmit rec;
                EqDecodeError e = { "" };
                ck_assert_msg(eq_decode_params(&eq_schema_Submit, same[i], &rec, &e) == 0, "%s", e.text);
                ck_assert(eq_bytes_eq(rec.queue, eq_str("q")));
                ck_assert(eq_bytes_eq(rec.payload, eq_str("hi")));
                ck_assert_uint_eq(rec.present, EQ_BIT(Submit, queue) | EQ_BIT(Submit, payload));
        }
}

TEST(options_are_handed_over_as_they_came) {
        const struct {
                EqBytes raw;
                size_t at, len;
        } rows[] = {
                { RAW("\x92\xa1q\xa2hi"), 0, 0 },
                { RAW("\x93\xa1q\xa2hi\x80"), 6, 1 },
                { RAW("\x93\xa1q\xc0\x81\xa4nice\x02"), 4, 7 },
                { RAW("\x92\xa1q\x82\xa7payload\xa2hi\xa4nice\x02"), 3, 18 },
                { RAW("\x91\x82\xa7payload\xa2hi\xa5queue\xa1q"), 1, 20 },
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                EqSubmit rec;
                EqDecodeError e = { "" };
                EqBytes options = eq_str("left over");
                ck_assert_int_eq(eq_decode_params_split(&eq_schema_Submit, rows[i].raw, &rec, &options, &e), 0);
                ck_assert_uint_eq(options.len, rows[i].len);
                if (options.len > 0)
                        ck_assert_ptr_eq(options.data, rows[i].raw.data + rows[i].at);
        }
}

TEST(no_payload_is_an_empty_payload) {
        EqSubmit rec;
        EqDecodeError e = { "" };

        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, RAW("\x92\xa1q\xc0"), &rec, &e), 0);
        ck_assert(EQ_HAS(&rec, Submit, payload));
        ck_assert_uint_eq(rec.payload.len, 0);
        ck_assert_ptr_nonnull(rec.payload.data);
}

TEST(keys_that_are_not_known_are_skipped_whatever_they_are) {
        EqSubmit rec;
        EqDecodeError e = { "" };
        EqBytes raw = RAW("\x93\xa1q\xa1x\x86"
                          "\xa6"
                          "future\x92\x81\xa1"
                          "a\x90\xc3"            /* a nested value */
                          "\x07\xa1z"            /* a number as key */
                          "\x91\x01\x81\x01\x02" /* an array as key */
                          "\xc4\x04hold\xc3"     /* bytes as key, although of a known name */
                          "\xa4hol\0\xc3"        /* nearly a known name */
                          "\xa5merge\xc3");

        ck_assert_msg(eq_decode_params(&eq_schema_Submit, raw, &rec, &e) == 0, "%s", e.text);
        ck_assert_uint_eq(rec.present, EQ_BIT(Submit, queue) | EQ_BIT(Submit, payload) | EQ_BIT(Submit, merge));
}

TEST(of_a_key_given_twice_the_last_one_holds) {
        EqSubmit rec;
        EqDecodeError e = { "" };
        EqBytes raw = RAW("\x93\xa1q\xa1x\x84\xa4nice\x01\xa5queue\xa1r\xa4nice\x02\xa4nice\xfd");

        ck_assert_int_eq(eq_decode_params(&eq_schema_Submit, raw, &rec, &e), 0);
        ck_assert_int_eq(rec.nice, -3);
        ck_assert(eq_bytes_eq(rec.queue, eq_str("r")));
}

TEST(a_map_is_laid_over_what_is_there) {
        EqSubmit rec = { .retries = 3, .label = eq_str("common"), .nice = 7 };
        EqDecodeError e = { "" };

        rec.present = EQ_BIT(Submit, retries) | EQ_BIT(Submit, label) | EQ_BIT(Submit, nice);
        ck_assert_int_eq(
                eq_decode_map(&eq_schema_Submit, RAW("\x83\xa5label\xa3own\xa4nice\xc0\xa5merge\xc2"), &rec, &e), 0);
        ck_assert_uint_eq(rec.retries, 3);
        ck_assert_int_eq(rec.nice, 7);
        ck_assert(eq_bytes_eq(rec.label, eq_str("own")));
        ck_assert(EQ_HAS(&rec, Submit, nice) && EQ_HAS(&rec, Submit, merge) && !rec.merge);
        ck_assert(!EQ_HAS(&rec, Submit, queue));
        ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, RAW("\x90"), &rec, &e), -EINVAL);
        ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, RAW("\x80\x80"), &rec, &e), -EINVAL);
        ck_assert_int_eq(eq_decode_map(&eq_schema_Submit, RAW(""), &rec, &e), -EINVAL);
}

TEST(only_present_fields_are_packed_and_required_ones_always) {
        EqSubmit rec = { .queue = eq_str("q"), .retries = 3 };
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);

        eq_pack_params(&pk, &eq_schema_Submit, &rec);
        ck_assert(eq_bytes_eq(buffer_bytes(&b), RAW("\x92\xa1q\xc4\x00")));
        b.len = 0;
        eq_pack_record(&pk, &eq_schema_Submit, &rec);
        ck_assert(eq_bytes_eq(buffer_bytes(&b), RAW("\x80")));
        b.len = 0;
        EQ_SET(&rec, Submit, urgent, true);
        eq_pack_params(&pk, &eq_schema_Submit, &rec);
        ck_assert(eq_bytes_eq(buffer_bytes(&b), RAW("\x93\xa1q\xc4\x00\x81\xa6urgent\xc3")));
        eq_buffer_done(&b);
}

/* ---- hostile bytes ---- */

/* In a block of just this length, so that a sanitizer sees the first byte read beyond it. */
static void decode_everything(const char *data, size_t len) {
        char *copy = malloc(len ? len : 1);
        AnyRecord rec = { 0 };
        EqDecodeError e;
        EqMessage m;

        memcpy(copy, data, len);
        EqBytes raw = eq_bytes(copy, len);
        (void)eq_message_parse(raw, &m);
        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                (void)eq_decode_params(eq_schemas[k], raw, &rec, &e);
                (void)eq_decode_map(eq_schemas[k], raw, &rec, &e);
        }
        free(copy);
}

TEST(cut_parameters_are_never_accepted) {
        uint64_t seed = 13;

        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                RecordArena arena = { .n = 0 };
                AnyRecord rec, got;
                EqDecodeError e;
                EqBuffer b = EQ_BUFFER_NULL;
                msgpack_packer pk = eq_packer(&b);
                record_fill(&seed, s, required_fields(s) | (gen_random(&seed) & all_fields(s)), &rec, &arena);
                eq_pack_params(&pk, s, &rec);
                for (size_t len = 0; len < b.len; len += 1 + b.len / 2000)
                        ck_assert_int_eq(eq_decode_params(s, eq_bytes(b.data, len), &got, &e), -EINVAL);
                eq_buffer_done(&b);
                record_arena_done(&arena);
        }
}

TEST(spoilt_bytes_never_lead_outside) {
        uint64_t seed = 14;

        for (unsigned round = 0; round < 3000; round++) {
                const EqSchema *s = eq_schemas[round % _EQ_SCHEMA_MAX];
                RecordArena arena = { .n = 0 };
                AnyRecord rec;
                EqBuffer b = EQ_BUFFER_NULL;
                msgpack_packer pk = eq_packer(&b);
                record_fill(&seed, s, gen_random(&seed) & gen_random(&seed) & all_fields(s), &rec, &arena);
                if (round % 3 == 0)
                        eq_pack_request(&pk, (uint32_t)gen_random(&seed), "submit");
                if (round % 2)
                        eq_pack_params(&pk, s, &rec);
                else
                        eq_pack_record(&pk, s, &rec);
                gen_mutate(&seed, &b);
                if (b.len < 4096)
                        decode_everything(b.data, b.len);
                eq_buffer_done(&b);
                record_arena_done(&arena);
        }
}

/* ---- messages ---- */

TEST(messages_are_taken_apart) {
        EqMessage m;

        ck_assert_int_eq(eq_message_parse(RAW("\x94\x00\xce\xff\xff\xff\xff\xa4ping\x90"), &m), 0);
        ck_assert_int_eq(m.type, EQ_MSG_REQUEST);
        ck_assert(m.has_msgid);
        ck_assert_uint_eq(m.msgid, UINT32_MAX);
        ck_assert(eq_bytes_eq(m.method, eq_str("ping")));
        ck_assert(eq_bytes_eq(m.params, RAW("\x90")));

        /* Bytes as method: pynvim sends its names so. */
        ck_assert_int_eq(eq_message_parse(RAW("\x94\x00\x01\xc4\x04ping\x90"), &m), 0);
        ck_assert(eq_bytes_eq(m.method, eq_str("ping")));

        ck_assert_int_eq(eq_message_parse(RAW("\x93\x02\xa5"
                                              "event\x91\x80"),
                                          &m),
                         0);
        ck_assert_int_eq(m.type, EQ_MSG_NOTIFY);
        ck_assert(!m.has_msgid);
        ck_assert(eq_bytes_eq(m.params, RAW("\x91\x80")));

        ck_assert_int_eq(eq_message_parse(RAW("\x94\x01\x07\xc0\x92\x01\x02"), &m), 0);
        ck_assert_int_eq(m.type, EQ_MSG_RESPONSE);
        ck_assert_uint_eq(m.msgid, 7);
        ck_assert(eq_is_nil(m.error));
        ck_assert(eq_bytes_eq(m.result, RAW("\x92\x01\x02")));

        ck_assert_int_eq(eq_message_parse(RAW("\x94\x01\x07\x92\x01\xa1x\xc0"), &m), 0);
        ck_assert(eq_bytes_eq(m.error, RAW("\x92\x01\xa1x")));
        ck_assert(eq_is_nil(m.result));
}

TEST(what_is_no_message_is_refused_and_can_be_answered_if_the_id_was_there) {
        static const struct {
                EqBytes raw;
                bool has_msgid;
        } rows[] = {
                { RAW(""), false },
                { RAW("\x05"), false },
                { RAW("\x80"), false },
                { RAW("\x90"), false },
                { RAW("\x91\x00"), false },
                { RAW("\x94\x03\x01\xa1x\x90"), false }, /* no such type */
                { RAW("\x94\xff\x01\xa1x\x90"), false }, /* negative type */
                { RAW("\x94\x00\xa1"
                      "1\xa1x\x90"),
                  false },                                                 /* text as id */
                { RAW("\x94\x00\xff\xa1x\x90"), false },                   /* negative id */
                { RAW("\x94\x00\xcf\0\0\0\x01\0\0\0\0\xa1x\x90"), false }, /* id of 2^32 */
                { RAW("\x92\x00\x01"), true },                             /* too short */
                { RAW("\x93\x00\x01\xa1x"), true },
                { RAW("\x95\x00\x01\xa1x\x90\x90"), true }, /* too long */
                { RAW("\x94\x00\x01\x05\x90"), true },      /* a number as method */
                { RAW("\x94\x00\x01\xa1x\x80"), true },     /* a map as params */
                { RAW("\x94\x00\x01\xa1x\xc0"), true },
                { RAW("\x94\x02\x01\xa1x\x90"), false }, /* a notification has three */
                { RAW("\x93\x02\x01\x90"), false },
                { RAW("\x94\x02\xa1x\x90\x90"), false },
                { RAW("\x93\x01\x01\xc0"), true },  /* a response has four */
                { RAW("\x94\x01\x01\xc0"), false }, /* cut: no header is believed that the bytes cannot hold */
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                EqMessage m;
                ck_assert_msg(eq_message_parse(rows[i].raw, &m) == -EBADMSG, "row %zu", i);
                ck_assert_msg(m.has_msgid == rows[i].has_msgid, "row %zu", i);
        }
}

TEST(the_template_of_the_hottest_answer_is_what_the_packer_writes) {
        static const struct {
                uint32_t msgid;
                eq_task_id id;
        } rows[] = { { 70000, { 1, 1 } }, { UINT32_MAX, { EQ_SEQ_MAX, EQ_SEQ_MAX - 1 } } };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                EqBuffer packed = EQ_BUFFER_NULL, put = EQ_BUFFER_NULL;
                msgpack_packer pk = eq_packer(&packed);
                eq_pack_response(&pk, rows[i].msgid);
                eq_pack_id(&pk, rows[i].id);
                ck_assert_int_eq(eq_buffer_append(&put, "before", 6), 0);
                ck_assert_int_eq(eq_buffer_reserve(&put, EQ_ID_RESPONSE_MAX), 0);
                eq_put_id_response(&put, rows[i].msgid, rows[i].id);
                ck_assert_uint_eq(put.len, 6 + EQ_ID_RESPONSE_MAX);
                ck_assert(eq_bytes_eq(eq_bytes(put.data + 6, put.len - 6), buffer_bytes(&packed)));
                eq_buffer_done(&packed);
                eq_buffer_done(&put);
        }
}

static void compare_run(uint32_t msgid, const EqRun *run) {
        EqBuffer packed = EQ_BUFFER_NULL, put = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&packed);
        eq_pack_request(&pk, msgid, "run");
        eq_pack_params(&pk, &eq_schema_Run, run);
        ck_assert_int_eq(eq_buffer_append(&put, "before", 6), 0);
        ck_assert_int_eq(eq_buffer_reserve(&put, EQ_RUN_MAX + run->queue.len + run->payload.len), 0);
        eq_put_run(&put, msgid, run);
        ck_assert_uint_le(put.len, 6 + EQ_RUN_MAX + run->queue.len + run->payload.len);
        pk = eq_packer(&put);
        eq_pack_options(&pk, &eq_schema_Run, run);
        ck_assert(eq_bytes_eq(eq_bytes(put.data + 6, put.len - 6), buffer_bytes(&packed)));
        eq_buffer_done(&packed);
        eq_buffer_done(&put);
}

TEST(the_template_of_what_a_worker_is_sent_is_what_the_packer_writes) {
        static const uint32_t msgids[] = { 0, 127, 128, 255, 256, 65535, 65536, UINT32_MAX };
        static const uint32_t sizes[] = { 0, 1, 100, 255, 256, 65535, 65536, 1048576 };
        static const char name[] = "0123456789abcdef0123456789abcde";
        char *payload = calloc(1, 1048576);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
                for (uint32_t n = 1; n < sizeof(name); n++) {
                        EqRun run = { .id.id = { EQ_SEQ_MAX - n, n },
                                      .queue = eq_bytes(name, n),
                                      .attempt = i % 2 ? n : msgids[i] & 0xffff,
                                      .payload = eq_bytes(payload, sizes[i]) };
                        compare_run(msgids[i], &run);
                        EQ_SET(&run, Run, label, eq_str("label"));
                        EQ_SET(&run, Run, uid, 1000);
                        compare_run(msgids[i], &run);
                }
        EqRun none = { .queue = eq_str("q") }; /* a payload that comes as a descriptor */
        EQ_SET(&none, Run, payload_fd, true);
        compare_run(1, &none);
        free(payload);
}

TEST(answers_and_notifications_are_read_back) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqMessage m;
        EqIdRef id;
        EqBytes text;
        eq_error code;

        eq_put_id_response((eq_buffer_reserve(&b, EQ_ID_RESPONSE_MAX), &b), 5, (eq_task_id) { 6, 7 });
        ck_assert_int_eq(eq_message_parse(buffer_bytes(&b), &m), 0);
        ck_assert_int_eq(eq_get_id(m.result, &id), 0);
        ck_assert_uint_eq(m.msgid, 5);
        ck_assert_uint_eq(id.id.queue, 6);
        ck_assert_uint_eq(id.id.seq, 7);

        b.len = 0;
        eq_pack_error(&pk, 9, EQ_E_NO_QUEUE, "there is no queue \"x\"", NULL);
        ck_assert_int_eq(eq_message_parse(buffer_bytes(&b), &m), 0);
        ck_assert_int_eq(eq_get_error(m.error, &code, &text, NULL), 0);
        ck_assert_int_eq(code, EQ_E_NO_QUEUE);
        ck_assert(eq_bytes_eq(text, eq_str("there is no queue \"x\"")));
        ck_assert(eq_is_nil(m.result));

        b.len = 0;
        eq_pack_notify(&pk, "lost");
        msgpack_pack_array(&pk, 1);
        msgpack_pack_int(&pk, 3);
        ck_assert_int_eq(eq_message_parse(buffer_bytes(&b), &m), 0);
        ck_assert_int_eq(m.type, EQ_MSG_NOTIFY);
        ck_assert(eq_bytes_eq(m.method, eq_str("lost")));
        eq_buffer_done(&b);
}

/* ---- arrays and single values ---- */

TEST(walking_an_array_ends_or_fails_but_never_leaves_it) {
        EqArray a;
        EqBytes s;
        EqIdRef id;
        int64_t n;

        ck_assert_int_eq(eq_get_array(RAW("\x93\xa1x\xc4\x01y\x07"), &a), 0);
        ck_assert_int_eq(eq_next_bytes(&a, &s), 1);
        ck_assert(eq_bytes_eq(s, eq_str("x")));
        ck_assert_int_eq(eq_next_i64(&a, &n), -EBADMSG);
        ck_assert_int_eq(eq_next_bytes(&a, &s), 1);
        ck_assert(eq_bytes_eq(s, eq_str("y")));
        ck_assert_int_eq(eq_next_id(&a, &id), -EBADMSG);
        ck_assert_int_eq(eq_next_i64(&a, &n), 1);
        ck_assert_int_eq(n, 7);
        ck_assert_int_eq(eq_next_bytes(&a, &s), 0);
        ck_assert_int_eq(eq_next_raw(&a, &s), 0);

        ck_assert_int_eq(eq_get_array(RAW("\x92\x81\x01\x90\xc1"), &a), 0);
        ck_assert_int_eq(eq_next_raw(&a, &s), 1);
        ck_assert(eq_bytes_eq(s, RAW("\x81\x01\x90")));
        ck_assert_int_eq(eq_next_raw(&a, &s), -EBADMSG);

        a = (EqArray) { .n = 5 };
        ck_assert_int_eq(eq_next_bytes(&a, &s), -EBADMSG);
        ck_assert_int_eq(eq_next_raw(&a, &s), -EBADMSG);
        ck_assert_int_eq(eq_get_array(RAW("\xdd\xff\xff\xff\xff"), &a), -EBADMSG);
        ck_assert_int_eq(eq_get_array(RAW("\x80"), &a), -EBADMSG);
}

TEST(single_values_are_read_if_they_are_just_that) {
        static const struct {
                EqBytes raw;
                bool u64, i64;
                int64_t value;
        } rows[] = {
                { RAW("\x7f"), true, true, 127 },
                { RAW("\xe0"), false, true, -32 },
                { RAW("\xd0\x80"), false, true, -128 },
                { RAW("\xcc\xff"), true, true, 255 },
                { RAW("\xd2\x80\0\0\0"), false, true, INT32_MIN },
                { RAW("\xd3\x80\0\0\0\0\0\0\0"), false, true, INT64_MIN },
                { RAW("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), true, true, INT64_MAX },
                { RAW("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), true, false, -1 },
                { RAW("\x7f\x7f"), false, false, 0 },
                { RAW("\xcd\x7f"), false, false, 0 },
                { RAW(""), false, false, 0 },
                { RAW("\xa1x"), false, false, 0 },
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                uint64_t u;
                int64_t n;
                ck_assert_int_eq(eq_get_u64(rows[i].raw, &u), rows[i].u64 ? 0 : -EBADMSG);
                ck_assert_int_eq(eq_get_i64(rows[i].raw, &n), rows[i].i64 ? 0 : -EBADMSG);
                if (rows[i].u64)
                        ck_assert_uint_eq(u, (uint64_t)rows[i].value);
                if (rows[i].i64)
                        ck_assert_int_eq(n, rows[i].value);
        }

        EqBytes s;
        ck_assert_int_eq(eq_get_bytes(RAW("\xc6\0\0\0\x02hi"), &s), 0);
        ck_assert(eq_bytes_eq(s, eq_str("hi")));
        ck_assert_int_eq(eq_get_bytes(RAW("\xa2hi\x00"), &s), -EBADMSG);
        ck_assert_int_eq(eq_get_bytes(RAW("\xc4\x05hi"), &s), -EBADMSG);
        ck_assert_int_eq(eq_get_bytes(RAW("\x90"), &s), -EBADMSG);
        ck_assert(eq_is_nil(RAW("\xc0")) && !eq_is_nil(RAW("")) && !eq_is_nil(RAW("\xc0\xc0")));
        ck_assert(eq_is_map(RAW("\x80")) && eq_is_map(RAW("\xdf\0\0\0\0")) && !eq_is_map(RAW("\x90")));
        ck_assert(!eq_is_map(RAW("")));
}

TEST(errors_are_read_only_if_they_have_a_code_and_a_text) {
        static const EqBytes bad[] = { RAW(""),
                                       RAW("\xc0"),
                                       RAW("\x90"),
                                       RAW("\x91\x03"),
                                       RAW("\x92\x00\xa1x"),
                                       RAW("\x92\xff\xa1x"),
                                       RAW("\x92\xa1x\x03"),
                                       RAW("\x92\xce\x80\0\0\0\xa1x"),
                                       RAW("\xa3huh") };
        static const EqBytes none[] = { RAW("\x92\x08\xa1x"), RAW("\x93\x08\xa1x\xc0"), RAW("\x93\x08\xa1x\x90") };
        eq_error code;
        EqBytes text, details;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                ck_assert_msg(eq_get_error(bad[i], &code, &text, NULL) == -EBADMSG, "row %zu", i);
        ck_assert_int_eq(eq_get_error(RAW("\x93\x08\xa4"
                                          "full\x80"),
                                      &code, &text, &details),
                         0);
        ck_assert_int_eq(code, EQ_E_FULL);
        ck_assert_uint_eq(details.len, 1);
        for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
                ck_assert_int_eq(eq_get_error(none[i], &code, &text, &details), 0);
                ck_assert_uint_eq(details.len, 0);
        }
}

/* As eqd.def has it: a code says what is its own, and what can be shown. */
static void check_details(eq_error code, const EqErrorDetails *given, uint64_t wanted) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqErrorDetails found = { 0 };
        EqBytes text, raw;
        EqDecodeError e;
        eq_error got;
        EqMessage m;
        eq_pack_error(&pk, 9, code, "no", given);
        ck_assert_int_eq(eq_message_parse(buffer_bytes(&b), &m), 0);
        ck_assert_int_eq(eq_get_error(m.error, &got, &text, &raw), 0);
        ck_assert_int_eq(got, code);
        ck_assert(eq_bytes_eq(text, eq_str("no")));
        ck_assert_int_eq(raw.len > 0, wanted != 0);
        if (raw.len > 0)
                ck_assert_int_eq(eq_decode_map(&eq_schema_ErrorDetails, raw, &found, &e), 0);
        ck_assert_msg(found.present == wanted, "code %d: %#llx, not %#llx", (int)code,
                      (unsigned long long)found.present, (unsigned long long)wanted);
        if (wanted & EQ_BIT(ErrorDetails, limit))
                ck_assert_uint_eq(found.limit, given->limit);
        if (wanted & EQ_BIT(ErrorDetails, queue))
                ck_assert(eq_bytes_eq(found.queue, given->queue));
        eq_buffer_done(&b);
}

TEST(an_error_says_of_its_details_what_the_table_has_for_its_code) {
        EqErrorDetails all = { 0 };
        EQ_SET(&all, ErrorDetails, method, eq_str("submit"));
        EQ_SET(&all, ErrorDetails, field, eq_str("payload"));
        EQ_SET(&all, ErrorDetails, queue, eq_str("q"));
        EQ_SET(&all, ErrorDetails, id, (EqIdRef) { .id = { 1, 2 } });
        EQ_SET(&all, ErrorDetails, limit, 1000);
        EQ_SET(&all, ErrorDetails, pending, 1000);
        EQ_SET(&all, ErrorDetails, retry_after_usec, 5);
        for (eq_error code = EQ_E_PROTOCOL; code <= EQ_E_DUPLICATE; code++)
                check_details(code, &all, all.present & eq_error_fields(code));
        check_details(EQ_E_FULL, NULL, 0);
        ck_assert_uint_eq(eq_error_fields(EQ_E_NONE), 0);
        ck_assert_uint_eq(eq_error_fields(EQ_E_NO_POOL), EQ_BIT(ErrorDetails, pool));
        ck_assert_uint_eq(eq_error_fields(EQ_E_INVALID), EQ_BIT(ErrorDetails, method) | EQ_BIT(ErrorDetails, field) |
                                                                 EQ_BIT(ErrorDetails, limit) |
                                                                 EQ_BIT(ErrorDetails, param));

        all.queue = eq_str("a\x1b[31m"); /* as a client sent it */
        check_details(EQ_E_FULL, &all, all.present & eq_error_fields(EQ_E_FULL) & ~EQ_BIT(ErrorDetails, queue));
        all.queue = eq_bytes("\xff\xfe", 2);
        check_details(EQ_E_NO_QUEUE, &all, 0);
        all.queue = eq_str("a-name-that-is-longer-than-a-queue-may-have");
        check_details(EQ_E_NO_QUEUE, &all, 0);
}

/* ---- text ---- */

TEST(ids_are_written_queue_slash_seq) {
        static const struct {
                EqBytes text;
                int r;
                uint64_t seq;
        } rows[] = {
                { RAW("encode/1042"), 0, 1042 },
                { RAW("e/0"), 0, 0 },
                { RAW("e/9007199254740991"), 0, EQ_SEQ_MAX },
                { RAW("e/9007199254740992"), -EINVAL, 0 },
                { RAW("e/99999999999999999999999999"), -EINVAL, 0 },
                { RAW("encode"), -EINVAL, 0 },
                { RAW("encode/"), -EINVAL, 0 },
                { RAW("/1"), -EINVAL, 0 },
                { RAW("e/+1"), -EINVAL, 0 },
                { RAW("e/ 1"), -EINVAL, 0 },
                { RAW("e/1x"), -EINVAL, 0 },
                { RAW("e/1/2"), -EINVAL, 0 },
                { RAW("e/1\0"), -EINVAL, 0 },
                { RAW(".e/1"), -EINVAL, 0 },
                { RAW("a name longer than 31 bytes is none/1"), -EINVAL, 0 },
                { RAW(""), -EINVAL, 0 },
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                EqBytes queue;
                uint64_t seq;
                ck_assert_msg(eq_id_parse(rows[i].text, &queue, &seq) == rows[i].r, "row %zu", i);
                if (rows[i].r == 0) {
                        ck_assert_uint_eq(seq, rows[i].seq);
                        ck_assert_uint_eq(queue.data[0], 'e');
                }
        }
}

TEST(names_of_queues_are_plain) {
        static const EqBytes good[] = { RAW("a"),
                                        RAW("0"),
                                        RAW("_x"),
                                        RAW("@me"),
                                        RAW("a.b-c_d@e"),
                                        RAW("A-"),
                                        RAW("1234567890123456789012345678901") };
        static const EqBytes bad[] = { RAW(""),         RAW("-a"),  RAW(".a"),
                                       RAW("a/b"),      RAW("a b"), RAW("a\0"),
                                       RAW("\xc3\xa4"), RAW("a*"),  RAW("12345678901234567890123456789012") };

        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
                ck_assert_msg(eq_name_valid(good[i]), "row %zu", i);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                ck_assert_msg(!eq_name_valid(bad[i]), "row %zu", i);
        ck_assert(!eq_name_valid((EqBytes) { 0 }));
}

TEST(text_is_utf8_that_no_terminal_obeys) {
        static const EqBytes good[] = {
                RAW(""),         RAW("plain ~"),         RAW("\xc3\xa4"), RAW("\xe2\x82\xac"), RAW("\xf0\x9f\x98\x80"),
                RAW("\xc2\xa0"), RAW("\xf4\x8f\xbf\xbf")
        };
        static const EqBytes bad[] = {
                RAW("\x1b[31m"),
                RAW("a\nb"),
                RAW("\t"),
                RAW("a\0"),
                RAW("\x7f"),
                RAW("\xc2\x9b"), /* CSI in one character */
                RAW("\x80"),
                RAW("\xc3"),
                RAW("\xe2\x82"),
                RAW("\xc3("),
                RAW("\xc0\xaf"),
                RAW("\xe0\x80\xaf"), /* overlong */
                RAW("\xed\xa0\x80"), /* surrogate */
                RAW("\xf4\x90\x80\x80"),
                RAW("\xf8\x88\x80\x80\x80"),
                RAW("\xff"),
        };

        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
                ck_assert_msg(eq_text_valid(good[i]), "row %zu", i);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                ck_assert_msg(!eq_text_valid(bad[i]), "row %zu", i);
}

/* ---- the buffer ---- */

TEST(a_buffer_grows_and_gives_up_its_front) {
        EqBuffer b = EQ_BUFFER_NULL;

        eq_buffer_consume(&b, 0);
        for (unsigned i = 0; i < 10000; i++)
                ck_assert_int_eq(eq_buffer_append(&b, &i, sizeof(i)), 0);
        eq_buffer_consume(&b, 100 * sizeof(unsigned));
        ck_assert_uint_eq(b.len, 9900 * sizeof(unsigned));
        for (unsigned i = 0, n; i < 9900; i++) {
                memcpy(&n, b.data + i * sizeof(n), sizeof(n));
                ck_assert_uint_eq(n, i + 100);
        }
        eq_buffer_consume(&b, b.len);
        ck_assert_uint_eq(b.len, 0);
        ck_assert_int_eq(eq_buffer_append(&b, NULL, 0), 0);
        eq_buffer_done(&b);
        ck_assert_ptr_null(b.data);
}

TEST(a_failed_allocation_is_kept_in_mind_and_nothing_is_packed_after_it) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);

        ck_assert_int_eq(eq_buffer_append(&b, "x", 1), 0);
        ck_assert_int_eq(eq_buffer_reserve(&b, SIZE_MAX - 10), -ENOMEM);
        ck_assert(!b.failed);
        ck_assert_int_lt(eq_buffer_write(&b, "y", SIZE_MAX - 10), 0);
        ck_assert(b.failed);
        msgpack_pack_int(&pk, 5);
        ck_assert_uint_eq(b.len, 1);
        eq_buffer_done(&b);
        ck_assert(!b.failed);
}

RUN_TESTS("codec", 60, test_every_record_comes_back_as_it_was_packed, test_msgpack_c_reads_the_same_values,
          test_each_limit_holds_to_the_byte_and_is_named,
          test_each_type_takes_its_values_and_refuses_the_others_by_name,
          test_parameters_that_are_wrong_are_refused_with_words_that_help,
          test_an_array_beyond_its_limit_is_refused_before_its_elements_are_read,
          test_required_fields_are_taken_by_position_or_by_name, test_options_are_handed_over_as_they_came,
          test_no_payload_is_an_empty_payload, test_keys_that_are_not_known_are_skipped_whatever_they_are,
          test_of_a_key_given_twice_the_last_one_holds, test_a_map_is_laid_over_what_is_there,
          test_only_present_fields_are_packed_and_required_ones_always, test_cut_parameters_are_never_accepted,
          test_spoilt_bytes_never_lead_outside, test_messages_are_taken_apart,
          test_what_is_no_message_is_refused_and_can_be_answered_if_the_id_was_there,
          test_the_template_of_the_hottest_answer_is_what_the_packer_writes,
          test_the_template_of_what_a_worker_is_sent_is_what_the_packer_writes,
          test_answers_and_notifications_are_read_back, test_walking_an_array_ends_or_fails_but_never_leaves_it,
          test_single_values_are_read_if_they_are_just_that,
          test_an_error_says_of_its_details_what_the_table_has_for_its_code,
          test_errors_are_read_only_if_they_have_a_code_and_a_text, test_ids_are_written_queue_slash_seq,
          test_names_of_queues_are_plain, test_text_is_utf8_that_no_terminal_obeys,
          test_a_buffer_grows_and_gives_up_its_front,
          test_a_failed_allocation_is_kept_in_mind_and_nothing_is_packed_after_it)
