/* SPDX-License-Identifier: MIT */
/* What a daemon does with bytes from a client, and a client with bytes from a daemon: scan, take the message apart, decode
 * its parameters by every schema, walk every array. What was accepted is packed, decoded again, and must be the same. */

#include <string.h>

#include "codec.h"
#include "record.h"
#include "scan.h"
#include "target.h"

typedef struct AnyRecord {
        uint64_t words[256];
} AnyRecord;

/* Arrays that a decoder has accepted must be walked to their end without an error. */
static void walk(const EqField *f, EqArray a) {
        EqBytes s;
        EqIdRef id;
        int64_t i;
        int r = 1;

        while (r > 0) {
                EqArray before = a;
                r = f->type == EQ_IDV    ? eq_next_id(&a, &id)
                    : f->type == EQ_STRV ? eq_next_bytes(&a, &s)
                                         : eq_next_raw(&a, &s);
                FUZZ_CHECK(r <= 0 || (a.n == before.n - 1 && a.raw.len < before.raw.len));
                (void)eq_next_i64(&before, &i);
        }
        FUZZ_CHECK(r == 0 && a.n == 0 && a.raw.len == 0);
}

static bool array_type(unsigned type) {
        return type == EQ_STRV || type == EQ_IDV || type == EQ_LISTV;
}

static void check_fields(const EqSchema *s, const AnyRecord *rec) {
        for (unsigned i = 0; i < s->n_fields; i++) {
                const EqField *f = &s->fields[i];
                if ((rec->words[0] >> i & 1) == 0)
                        continue;
                const void *field = record_field(s, i, rec);
                if (array_type(f->type))
                        walk(f, *(const EqArray *)field);
                if (f->type == EQ_STR)
                        FUZZ_CHECK(!memchr(((const EqBytes *)field)->data, 0, ((const EqBytes *)field)->len));
                if (f->type == EQ_STR || f->type == EQ_BIN)
                        FUZZ_CHECK(f->max == 0 || ((const EqBytes *)field)->len <= f->max);
        }
}

/* Packed and decoded again it is the same; also as a map, which is how tasks of a batch come. */
static void check_again(const EqSchema *s, const AnyRecord *rec) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqDecodeError e;
        AnyRecord again;

        eq_pack_params(&pk, s, rec);
        FUZZ_CHECK(!b.failed && eq_decode_params(s, eq_bytes(b.data, b.len), &again, &e) == 0);
        FUZZ_CHECK(!record_differs(s, rec, &again));
        b.len = 0;
        memset(&again, 0, sizeof(again));
        eq_pack_record(&pk, s, rec);
        FUZZ_CHECK(!b.failed && eq_decode_map(s, eq_bytes(b.data, b.len), &again, &e) == 0);
        FUZZ_CHECK(!record_differs(s, rec, &again));
        eq_buffer_done(&b);
}

static void decode_by_every_schema(EqBytes raw) {
        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                AnyRecord rec;
                EqDecodeError e = { "" };

                FUZZ_CHECK(s->size <= sizeof(rec));
                if (eq_decode_params(s, raw, &rec, &e) == 0) {
                        check_fields(s, &rec);
                        check_again(s, &rec);
                } else
                        FUZZ_CHECK(e.text[0]);
                memset(&rec, 0, sizeof(rec));
                if (eq_decode_map(s, raw, &rec, &e) == 0)
                        check_fields(s, &rec);
        }
}

static void read_as_single_value(EqBytes raw) {
        EqArray a;
        EqBytes s;
        EqIdRef id;
        uint64_t u;
        int64_t i;
        eq_error code;

        (void)eq_get_u64(raw, &u);
        (void)eq_get_i64(raw, &i);
        (void)eq_get_id(raw, &id);
        EqBytes map;
        if (eq_get_error(raw, &code, &s, &map) == 0 && map.len > 0) {
                EqErrorDetails details = { 0 };
                EqDecodeError wrong;
                (void)eq_decode_map(&eq_schema_ErrorDetails, map, &details, &wrong);
        }
        if (eq_get_bytes(raw, &s) == 0) {
                (void)eq_text_valid(s);
                (void)eq_name_valid(s);
                (void)eq_id_parse(s, &(EqBytes) { 0 }, &u);
        }
        if (eq_get_array(raw, &a) == 0)
                while (eq_next_raw(&a, &s) > 0)
                        if (eq_is_map(s))
                                decode_by_every_schema(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        EqScan scan = EQ_SCAN_NULL;
        EqMessage m;

        /* Without a scan: nothing may lead outside all the same. */
        EqBytes all = eq_bytes((const char *)data, size);
        if (eq_message_parse(all, &m) == 0 && m.type != EQ_MSG_RESPONSE)
                decode_by_every_schema(m.params);
        if (eq_scan(&scan, data, size, 65536) != EQ_SCAN_DONE)
                return 0;
        EqBytes raw = eq_bytes((const char *)data, scan.pos);
        read_as_single_value(raw);
        if (eq_message_parse(raw, &m) < 0)
                return 0;
        if (m.type == EQ_MSG_RESPONSE) {
                read_as_single_value(m.error);
                read_as_single_value(m.result);
                return 0;
        }
        (void)eq_method_find(m.method);
        decode_by_every_schema(m.params);
        return 0;
}
