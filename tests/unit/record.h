/* SPDX-License-Identifier: MIT */
#pragma once

/* Records of any schema for tests: filled at random, compared field by field. */

#include "gen.h"

static inline void *record_field(const EqSchema *schema, unsigned i, const void *rec) {
        return (char *)(uintptr_t)rec + schema->fields[i].offset;
}

static inline uint64_t *record_present(void *rec) {
        return rec;
}

static inline bool record_field_equal(EqType type, const void *a, const void *b) {
        const EqIdRef *x = a, *y = b;

        switch (type) {
        case EQ_BOOL:
                return *(const bool *)a == *(const bool *)b;
        case EQ_U64:
        case EQ_I64:
                return *(const uint64_t *)a == *(const uint64_t *)b;
        case EQ_ID:
                return eq_bytes_eq(x->text, y->text) && x->id.queue == y->id.queue && x->id.seq == y->id.seq;
        case EQ_STR:
        case EQ_BIN:
        case EQ_MAP:
                return eq_bytes_eq(*(const EqBytes *)a, *(const EqBytes *)b);
        default:
                return ((const EqArray *)a)->n == ((const EqArray *)b)->n &&
                       eq_bytes_eq(((const EqArray *)a)->raw, ((const EqArray *)b)->raw);
        }
}

/* NULL, or the name of a field in which they differ. */
static inline const char *record_differs(const EqSchema *schema, const void *a, const void *b) {
        uint64_t present_a = *(const uint64_t *)a, present_b = *(const uint64_t *)b;

        for (unsigned i = 0; i < schema->n_fields; i++) {
                const EqField *f = &schema->fields[i];
                if (((present_a ^ present_b) >> i & 1) != 0)
                        return f->name;
                if ((present_a >> i & 1) != 0 &&
                    !record_field_equal((EqType)f->type, record_field(schema, i, a), record_field(schema, i, b)))
                        return f->name;
        }
        return NULL;
}

/* Bytes that records point at; each in an allocation of its own size, so that a sanitizer sees a step outside. */
typedef struct RecordArena {
        void *blocks[4096];
        size_t n;
} RecordArena;

static inline EqBytes record_keep(RecordArena *arena, EqBuffer *b) {
        if (arena->n == sizeof(arena->blocks) / sizeof(arena->blocks[0]))
                abort();
        char *copy = malloc(b->len ? b->len : 1);
        if (!copy)
                abort();
        if (b->len > 0)
                memcpy(copy, b->data, b->len);
        EqBytes kept = eq_bytes(copy, b->len);
        arena->blocks[arena->n++] = copy;
        eq_buffer_done(b);
        return kept;
}

static inline void record_arena_done(RecordArena *arena) {
        while (arena->n > 0)
                free(arena->blocks[--arena->n]);
}

static inline uint64_t record_random_count(uint64_t *seed, const EqField *f, uint64_t most) {
        return gen_below(seed, (f->max && f->max < most ? f->max : most) + 1);
}

static inline EqArray record_random_array(uint64_t *seed, const EqField *f, RecordArena *arena) {
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        uint32_t n = (uint32_t)record_random_count(seed, f, 20);

        for (uint32_t i = 0; i < n; i++) {
                if (f->type == EQ_LISTV)
                        gen_value(seed, &b, 3);
                else if (f->type == EQ_STRV && gen_below(seed, 2))
                        eq_pack_cstr(&pk, &"a string of a length that varies"[gen_below(seed, 30)]);
                else if (f->type == EQ_STRV)
                        eq_pack_bin(&pk, eq_str(&"\xff bytes"[gen_below(seed, 7)]));
                else if (gen_below(seed, 2))
                        eq_pack_id(&pk, (eq_task_id) { gen_below(seed, EQ_SEQ_MAX), gen_below(seed, EQ_SEQ_MAX) });
                else
                        eq_pack_cstr(&pk, "some.queue/1042");
        }
        return (EqArray) { .n = n, .raw = record_keep(arena, &b) };
}

static inline EqBytes record_random_text(uint64_t *seed, const EqField *f, RecordArena *arena) {
        EqBuffer b = EQ_BUFFER_NULL;
        uint64_t n = record_random_count(seed, f, gen_below(seed, 8) ? 40 : 70000);

        while (n-- > 0)
                gen_byte(&b, f->type == EQ_BIN ? (unsigned)gen_random(seed) : 1 + (unsigned)gen_below(seed, 255));
        return record_keep(arena, &b);
}

static inline void record_fill_field(uint64_t *seed, const EqSchema *schema, unsigned i, void *rec,
                                     RecordArena *arena) {
        const EqField *f = &schema->fields[i];
        void *field = record_field(schema, i, rec);
        EqBuffer b = EQ_BUFFER_NULL;
        uint64_t wide = gen_random(seed) >> gen_below(seed, 64);

        switch ((EqType)f->type) {
        case EQ_BOOL:
                *(bool *)field = gen_below(seed, 2);
                break;
        case EQ_U64:
                *(uint64_t *)field = f->max ? gen_below(seed, f->max + 1) : wide;
                break;
        case EQ_I64:
                *(int64_t *)field = gen_below(seed, 2) ? (int64_t)(wide >> 1) : -(int64_t)(wide >> 1);
                break;
        case EQ_STR:
        case EQ_BIN:
                *(EqBytes *)field = record_random_text(seed, f, arena);
                break;
        case EQ_ID:
                if (gen_below(seed, 2))
                        *(EqIdRef *)field = (EqIdRef) { .text = eq_str("encode/1042") };
                else
                        *(EqIdRef *)field = (EqIdRef) { .id = { gen_below(seed, EQ_SEQ_MAX), gen_below(seed, 9) } };
                break;
        case EQ_MAP:
                gen_byte(&b, 0x82);
                for (unsigned k = 0; k < 4; k++)
                        gen_value(seed, &b, 2);
                *(EqBytes *)field = record_keep(arena, &b);
                break;
        default:
                *(EqArray *)field = record_random_array(seed, f, arena);
        }
        *record_present(rec) |= UINT64_C(1) << i;
}

/* The fields of `wanted` (a bit each, as in present). What they point at belongs to the arena. */
static inline void record_fill(uint64_t *seed, const EqSchema *schema, uint64_t wanted, void *rec, RecordArena *arena) {
        memset(rec, 0, schema->size);
        for (unsigned i = 0; i < schema->n_fields; i++)
                if ((wanted >> i & 1) != 0)
                        record_fill_field(seed, schema, i, rec, arena);
}
