/* SPDX-License-Identifier: MIT */
#include "store/record.h"

#include <endian.h>
#include <string.h>

#include "store/crc32c.h"
#include "test.h"

enum { LEN_MAX = 80, SIZE_MAX_HERE = 128, SALT = 0x51a7e5a1 };

static void fill(char *p, size_t n) {
        for (size_t i = 0; i < n; i++)
                p[i] = (char)(i * 37 + 200);
}

/* Whatever the length and the place, of which both ways take eight or four bytes at a time. */
TEST(a_sum_is_the_same_by_instruction_by_table_and_in_pieces) {
        char data[LEN_MAX + 8];
        fill(data, sizeof(data));
        ck_assert_uint_eq(crc32c(0, "123456789", 9), 0xe3069283); /* as the polynomial is known by */
        for (size_t at = 0; at < 8; at++)
                for (size_t n = 0; n <= LEN_MAX; n++) {
                        uint32_t sum = crc32c_by_table(SALT, data + at, n);
                        ck_assert_uint_eq(crc32c(SALT, data + at, n), sum);
                        ck_assert_uint_eq(crc32c(crc32c(SALT, data + at, n / 3), data + at + n / 3, n - n / 3), sum);
                        ck_assert_uint_eq(crc32c_undo(sum, data + at, n), SALT);
                }
}

static void put_sum(char *p, const char *of, size_t n) {
        uint32_t v = htole32(crc32c_by_table(SALT, of, n));
        memcpy(p, &v, sizeof(v));
}

/* As the format is described, byte by byte. */
static size_t by_hand(char *p, uint32_t len, uint8_t flags) {
        size_t n = (RECORD_HEADER + len + 8) & ~(size_t)7;
        memset(p, 0, n);
        p[8] = (char)len;
        p[12] = STORE_END;
        p[13] = (char)flags;
        p[14] = 3;
        memcpy(p + 16, "\1\2\3\4\5\6\7\x88", 8);
        memcpy(p + 24, "\x99\xaa\0\0\0\0\0\xbb", 8);
        fill(p + RECORD_HEADER, len);
        p[n - 1] = (char)RECORD_LAST;
        put_sum(p + 4, p + RECORD_HEADER, n - RECORD_HEADER);
        put_sum(p, p + 4, RECORD_HEADER - 4);
        return n;
}

/* In a buffer that is full of something else, none of which is changed behind it. */
TEST(a_record_is_as_its_format_says_with_bodies_of_any_length) {
        char wanted[SIZE_MAX_HERE], got[SIZE_MAX_HERE];
        for (uint32_t len = 0; len <= LEN_MAX; len++) {
                memset(wanted, 0x5c, sizeof(wanted));
                size_t n = by_hand(wanted, len, RECORD_MORE | RECORD_SYNCED);
                memset(got, 0x5c, sizeof(got));
                record_put_header(got, &(Record) { .kind = STORE_END,
                                                   .flags = RECORD_MORE,
                                                   .lane = 3,
                                                   .queue = 0x8807060504030201,
                                                   .seq = 0xbb0000000000aa99,
                                                   .body = { NULL, len } });
                fill(got + RECORD_HEADER, len);
                record_set_flag(got, RECORD_SYNCED, true);
                record_seal(got, SALT);
                ck_assert_uint_eq(record_size(len), n);
                ck_assert_mem_eq(got, wanted, sizeof(wanted));
        }
}

TEST(a_flag_is_set_and_taken_away_beside_the_others) {
        char p[RECORD_HEADER], before[RECORD_HEADER];
        Record r;
        record_put_header(before,
                          &(Record) { .kind = STORE_TASK, .flags = RECORD_INSIDE, .lane = 255, .queue = ~0ull });
        memcpy(p, before, sizeof(p));
        record_set_flag(p, RECORD_SYNCED, true);
        record_peek(p, &r);
        ck_assert_uint_eq(r.flags, RECORD_INSIDE | RECORD_SYNCED);
        record_set_flag(p, RECORD_SYNCED, false);
        ck_assert_mem_eq(p, before, sizeof(p));
}

RUN_TESTS("record", 10, test_a_sum_is_the_same_by_instruction_by_table_and_in_pieces,
          test_a_record_is_as_its_format_says_with_bodies_of_any_length,
          test_a_flag_is_set_and_taken_away_beside_the_others)
