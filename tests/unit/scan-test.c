/* SPDX-License-Identifier: MIT */
#include "scan.h"

#include <errno.h>

#include "gen.h"
#include "test.h"

enum { MAX = 1 << 20 };

static int scan_once(const EqBuffer *b, size_t len, size_t max, EqScan *ret) {
        *ret = (EqScan)EQ_SCAN_NULL;
        return eq_scan(ret, b->data, len, max);
}

/* In random chunks; the bytes so far are at another place in each call, in a block of just their length. */
static int scan_in_chunks(uint64_t *seed, const EqBuffer *b, size_t max, EqScan *ret) {
        int r = EQ_SCAN_MORE;

        *ret = (EqScan)EQ_SCAN_NULL;
        for (size_t len = 0; r == EQ_SCAN_MORE && len < b->len;) {
                len += 1 + gen_below(seed, gen_below(seed, 2) ? 3 : 40);
                len = len < b->len ? len : b->len;
                char *copy = malloc(len);
                memcpy(copy, b->data, len);
                r = eq_scan(ret, copy, len, max);
                free(copy);
        }
        return r;
}

TEST(every_strict_prefix_of_a_value_is_incomplete) {
        uint64_t seed = 1;

        for (unsigned round = 0; round < 500; round++) {
                EqBuffer b = EQ_BUFFER_NULL;
                EqScan s;
                gen_value(&seed, &b, 1 + round % 5);
                for (size_t len = 0; len < b.len; len++)
                        ck_assert_int_eq(scan_once(&b, len, MAX, &s), EQ_SCAN_MORE);
                ck_assert_int_eq(scan_once(&b, b.len, MAX, &s), EQ_SCAN_DONE);
                ck_assert_uint_eq(s.pos, b.len);
                eq_buffer_done(&b);
        }
}

TEST(chunks_do_not_change_the_outcome) {
        uint64_t seed = 2;

        for (unsigned round = 0; round < 3000; round++) {
                EqBuffer b = EQ_BUFFER_NULL;
                EqScan once, chunks;
                size_t max = gen_below(&seed, 4) ? MAX : 1 + gen_below(&seed, 100);
                gen_value(&seed, &b, 5);
                if (round % 3 > 0)
                        gen_mutate(&seed, &b);
                int r = scan_once(&b, b.len, max, &once);
                if (b.len > 0)
                        ck_assert_int_eq(scan_in_chunks(&seed, &b, max, &chunks), r);
                if (r == EQ_SCAN_DONE)
                        ck_assert_uint_eq(once.pos, chunks.pos);
                eq_buffer_done(&b);
        }
}

/* Whether msgpack-c's stack of 32 is too small for these bytes, or ext types are among them: there the two differ. */
static bool deep_or_ext(const EqBuffer *b) {
        uint64_t stack[32];
        size_t depth = 0;
        EqScan s = EQ_SCAN_NULL;
        uint64_t left_before = 1;

        for (size_t len = 1; len <= b->len; len++) {
                size_t at = s.pos;
                if (eq_scan(&s, b->data, len, SIZE_MAX / 4) < 0)
                        return (uint8_t)b->data[at] != 0xc1;
                if (s.pos == at)
                        continue;
                while (depth > 0 && stack[depth - 1] == 0)
                        depth--;
                if (depth > 0)
                        stack[depth - 1]--;
                if (s.left + 1 > left_before) {
                        if (depth == 31)
                                return true;
                        stack[depth++] = s.left + 1 - left_before;
                }
                left_before = s.left;
        }
        return false;
}

TEST(agrees_with_msgpack_c_on_good_and_spoilt_bytes) {
        static const char *const names[] = { "incomplete", "whole", "bad" };
        uint64_t seed = 3;
        unsigned n_seen[3] = { 0 };

        for (unsigned round = 0; round < 20000; round++) {
                EqBuffer b = EQ_BUFFER_NULL;
                msgpack_unpacked u;
                size_t off = 0;
                EqScan s;
                gen_value(&seed, &b, 4);
                if (round % 4 > 0)
                        gen_mutate(&seed, &b);
                int r = scan_once(&b, b.len, 4096, &s);
                if (r == -EMSGSIZE || b.len == 0 || deep_or_ext(&b)) {
                        eq_buffer_done(&b);
                        continue;
                }
                msgpack_unpacked_init(&u);
                int oracle = msgpack_unpack_next(&u, b.data, b.len, &off);
                unsigned expected = oracle == MSGPACK_UNPACK_CONTINUE                                          ? 0
                                    : oracle == MSGPACK_UNPACK_SUCCESS || oracle == MSGPACK_UNPACK_EXTRA_BYTES ? 1
                                                                                                               : 2;
                unsigned got = r < 0 ? 2 : (unsigned)r;
                ck_assert_msg(got == expected, "round %u: %s, msgpack-c says %s (%d)", round, names[got],
                              names[expected], oracle);
                if (r == EQ_SCAN_DONE)
                        ck_assert_uint_eq(s.pos, off);
                n_seen[got]++;
                msgpack_unpacked_destroy(&u);
                eq_buffer_done(&b);
        }
        ck_assert_uint_gt(n_seen[0], 1000);
        ck_assert_uint_gt(n_seen[1], 1000);
        ck_assert_uint_gt(n_seen[2], 30); /* there is one bad byte in 256 */
}

TEST(hostile_lengths_die_at_their_header) {
        static const struct {
                const char *name;
                uint8_t bytes[8];
                size_t len;
                int r;
        } rows[] = {
                { "array32 of 2^32 - 1", { 0xdd, 0xff, 0xff, 0xff, 0xff }, 5, -EMSGSIZE },
                { "map32 of 2^32 - 1", { 0xdf, 0xff, 0xff, 0xff, 0xff }, 5, -EMSGSIZE },
                { "map32 of 2^31, doubled to 2^32", { 0xdf, 0x80, 0, 0, 0 }, 5, -EMSGSIZE },
                { "str32 of 2^32 - 1", { 0xdb, 0xff, 0xff, 0xff, 0xff }, 5, -EMSGSIZE },
                { "bin32 of 2^32 - 1", { 0xc6, 0xff, 0xff, 0xff, 0xff }, 5, -EMSGSIZE },
                { "bin32 just too large", { 0xc6, 0x00, 0x0f, 0xff, 0xfc }, 5, -EMSGSIZE },
                { "bin32 just small enough", { 0xc6, 0x00, 0x0f, 0xff, 0xfb }, 5, EQ_SCAN_MORE },
                { "array32 just too large", { 0xdd, 0x00, 0x0f, 0xff, 0xfc }, 5, -EMSGSIZE },
                { "array32 just small enough", { 0xdd, 0x00, 0x0f, 0xff, 0xfb }, 5, EQ_SCAN_MORE },
                { "the reserved byte", { 0xc1 }, 1, -EBADMSG },
                { "the reserved byte inside", { 0x92, 0x00, 0xc1 }, 3, -EBADMSG },
                { "ext8", { 0xc7, 0x01, 0x00, 0x00 }, 4, -EBADMSG },
                { "ext32", { 0xc9, 0xff, 0xff, 0xff, 0xff }, 5, -EBADMSG },
                { "fixext16", { 0xd8 }, 1, -EBADMSG },
        };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                EqScan s = EQ_SCAN_NULL;
                int r = eq_scan(&s, rows[i].bytes, rows[i].len, MAX);
                ck_assert_msg(r == rows[i].r, "%s: %d instead of %d", rows[i].name, r, rows[i].r);
        }
}

TEST(nested_huge_arrays_are_refused_as_soon_as_they_add_up) {
        uint8_t bytes[31 * 5];
        EqScan s = EQ_SCAN_NULL;

        for (size_t i = 0; i < sizeof(bytes); i += 5)
                memcpy(bytes + i, "\xdd\x00\x0f\x00\x00", 5);
        ck_assert_int_eq(eq_scan(&s, bytes, 5, MAX), EQ_SCAN_MORE);
        ck_assert_int_eq(eq_scan(&s, bytes, 10, MAX), -EMSGSIZE);
}

/* Whoever waited for the rest of this header would wait with a full buffer. */
TEST(a_header_cut_by_the_maximum_is_too_large) {
        EqScan s = EQ_SCAN_NULL;

        ck_assert_int_eq(eq_scan(&s, "\x92\x01\xdd\x00", 3, 4), EQ_SCAN_MORE);
        ck_assert_int_eq(eq_scan(&s, "\x92\x01\xdd\x00", 4, 4), -EMSGSIZE);
}

TEST(depth_costs_nothing) {
        enum { DEPTH = 500000 };
        char *bytes = malloc(DEPTH + 1);
        EqScan s = EQ_SCAN_NULL;

        memset(bytes, 0x91, DEPTH);
        bytes[DEPTH] = (char)0xc0;
        ck_assert_int_eq(eq_scan(&s, bytes, DEPTH, MAX), EQ_SCAN_MORE);
        ck_assert_int_eq(eq_scan(&s, bytes, DEPTH + 1, MAX), EQ_SCAN_DONE);
        ck_assert_uint_eq(s.pos, DEPTH + 1);
        free(bytes);
}

TEST(a_value_of_just_the_maximum_passes_and_one_byte_more_does_not) {
        uint64_t seed = 4;

        for (unsigned round = 0; round < 500; round++) {
                EqBuffer b = EQ_BUFFER_NULL;
                EqScan s;
                gen_value(&seed, &b, 4);
                gen_value(&seed, &b, 1); /* what follows does not matter */
                ck_assert_int_eq(scan_once(&b, b.len, MAX, &s), EQ_SCAN_DONE);
                size_t len = s.pos;
                ck_assert_int_eq(scan_once(&b, b.len, len, &s), EQ_SCAN_DONE);
                ck_assert_int_eq(scan_once(&b, b.len, len - 1, &s), -EMSGSIZE);
                ck_assert_int_eq(scan_in_chunks(&seed, &b, len - 1, &s), -EMSGSIZE);
                eq_buffer_done(&b);
        }
}

RUN_TESTS("scan", 60, test_every_strict_prefix_of_a_value_is_incomplete, test_chunks_do_not_change_the_outcome,
          test_agrees_with_msgpack_c_on_good_and_spoilt_bytes, test_hostile_lengths_die_at_their_header,
          test_nested_huge_arrays_are_refused_as_soon_as_they_add_up, test_a_header_cut_by_the_maximum_is_too_large,
          test_depth_costs_nothing, test_a_value_of_just_the_maximum_passes_and_one_byte_more_does_not)
