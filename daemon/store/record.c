/* SPDX-License-Identifier: MIT */
#include "store/record.h"

#include <endian.h>
#include <string.h>

#include "store/crc32c.h"

static void put32(char *p, uint32_t v) {
        v = htole32(v);
        memcpy(p, &v, sizeof(v));
}

static void put64(char *p, uint64_t v) {
        v = htole64(v);
        memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const char *p) {
        uint32_t v;
        memcpy(&v, p, sizeof(v));
        return le32toh(v);
}

static uint64_t get64(const char *p) {
        uint64_t v;
        memcpy(&v, p, sizeof(v));
        return le64toh(v);
}

void record_put_header(char *p, const Record *r) {
        put64(p, 0);
        put64(p + 8, r->body.len | (uint64_t)r->kind << 32 | (uint64_t)r->flags << 40 | (uint64_t)r->lane << 48);
        put64(p + 16, r->queue);
        put64(p + 24, r->seq);
}

/* A sum reads by eights what was written right before, and waits for each of them that was not written by eight. */
void record_set_flag(char *p, uint8_t flag, bool on) {
        uint64_t v = get64(p + 12), bit = (uint64_t)flag << 8;
        put64(p + 12, on ? v | bit : v & ~bit);
}

typedef uint32_t Sum(uint32_t crc, const void *data, size_t n);

__attribute__((always_inline)) static inline void seal(char *p, uint32_t salt, Sum *sum) {
        uint64_t len = get32(p + 8), of_body = (UINT64_C(1) << 8 * (len & 7)) - 1; /* in the last eight bytes */
        size_t n = record_size(len);
        put64(p + n - 8, (get64(p + n - 8) & of_body) | (uint64_t)RECORD_LAST << 56);
        put64(p + 4, sum(salt, p + RECORD_HEADER, n - RECORD_HEADER) | len << 32);
        put32(p, sum(salt, p + 4, RECORD_HEADER - 4));
}

#if defined(__x86_64__)
CRC32C_CODE static void seal_by_instruction(char *p, uint32_t salt) {
        seal(p, salt, crc32c_by_instruction);
}

void record_seal(char *p, uint32_t salt) {
        if (crc32c_has_instruction())
                seal_by_instruction(p, salt);
        else
                seal(p, salt, crc32c_by_table);
}
#else
void record_seal(char *p, uint32_t salt) {
        seal(p, salt, crc32c_by_table);
}
#endif

static bool is_zero(const char *p, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (p[i])
                        return false;
        return true;
}

void record_peek(const char *p, Record *ret) {
        *ret = (Record) {
                .kind = (uint8_t)p[12],
                .flags = (uint8_t)p[13],
                .lane = (uint8_t)p[14],
                .queue = get64(p + 16),
                .seq = get64(p + 24),
                .body = { p + RECORD_HEADER, get32(p + 8) },
        };
}

static bool is_header(const char *data) {
        uint8_t kind = (uint8_t)data[12];
        return kind != 0 && kind < _STORE_KIND_MAX && get32(data + 8) <= RECORD_BODY_MAX;
}

long record_read_header(const char *data, uint32_t salt, Record *ret) {
        if (get32(data) != crc32c(salt, data + 4, RECORD_HEADER - 4))
                return is_zero(data, RECORD_HEADER) ? RECORD_END : RECORD_BAD;
        if (!is_header(data))
                return RECORD_BAD;
        record_peek(data, ret);
        return (long)record_size(ret->body.len);
}

static long mend_header(const char *data, uint32_t salt, Record *ret) {
        char copy[RECORD_HEADER];
        memcpy(copy, data, sizeof(copy));
        long n = record_read_header(copy, salt, ret);
        for (size_t bit = 0; bit < 8 * sizeof(copy) && n <= 0; bit++) {
                copy[bit / 8] ^= (char)(1 << bit % 8);
                n = record_read_header(copy, salt, ret);
                copy[bit / 8] ^= (char)(1 << bit % 8);
        }
        return n;
}

size_t record_was(const char *data, size_t size, uint32_t salt, Record *ret) {
        *ret = (Record) { 0 };
        long n = size < RECORD_HEADER || is_zero(data, RECORD_HEADER) ? RECORD_BAD : mend_header(data, salt, ret);
        ret->body.data = NULL;
        return n > 0 && (size_t)n <= size ? (size_t)n : 0;
}

static bool is_body(const char *data, size_t n, uint32_t salt) {
        return get32(data + 4) == crc32c(salt, data + RECORD_HEADER, n - RECORD_HEADER);
}

bool record_find_salt(const char *data, size_t size, uint32_t *ret_salt) {
        if (size < RECORD_MIN || !is_header(data))
                return false;
        size_t n = record_size(get32(data + 8));
        if (n > size || (uint8_t)data[n - 1] != RECORD_LAST)
                return false;
        *ret_salt = crc32c_undo(get32(data), data + 4, RECORD_HEADER - 4);
        return is_body(data, n, *ret_salt);
}

long record_read(const char *data, size_t size, uint32_t salt, Record *ret) {
        if (size < RECORD_HEADER)
                return is_zero(data, size) ? RECORD_END : RECORD_BAD;
        long n = record_read_header(data, salt, ret);
        if (n > 0 && ((size_t)n > size || !is_body(data, (size_t)n, salt)))
                return RECORD_BAD_BODY;
        return n;
}
