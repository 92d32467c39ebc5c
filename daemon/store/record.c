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
        memset(p, 0, RECORD_HEADER);
        put32(p + 8, r->body.len);
        p[12] = (char)r->kind;
        p[13] = (char)r->flags;
        p[14] = (char)r->lane;
        put64(p + 16, r->queue);
        put64(p + 24, r->seq);
}

void record_seal(char *p, uint32_t salt) {
        put32(p + 4, crc32c(salt, p + RECORD_HEADER, get32(p + 8)));
        put32(p, crc32c(salt, p + 4, RECORD_HEADER - 4));
}

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

long record_read(const char *data, size_t size, uint32_t salt, Record *ret) {
        if (size < RECORD_HEADER)
                return is_zero(data, size) ? RECORD_END : RECORD_BAD;
        if (get32(data) != crc32c(salt, data + 4, RECORD_HEADER - 4))
                return is_zero(data, RECORD_HEADER) ? RECORD_END : RECORD_BAD;
        uint8_t kind = (uint8_t)data[12];
        uint32_t len = get32(data + 8);
        if (kind == 0 || kind >= _STORE_KIND_MAX || len > RECORD_BODY_MAX)
                return RECORD_BAD;
        record_peek(data, ret);
        if (record_size(len) > size || get32(data + 4) != crc32c(salt, data + RECORD_HEADER, len))
                return RECORD_BAD_BODY;
        return (long)record_size(len);
}
