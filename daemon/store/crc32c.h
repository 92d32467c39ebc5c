/* SPDX-License-Identifier: MIT */
#pragma once

/* CRC-32C (Castagnoli), as in iSCSI and ext4: by the processor's instruction where it has one. Any thread. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* crc: 0 to begin with, or what was returned for the bytes before. */
uint32_t crc32c(uint32_t crc, const void *data, size_t n);
/* The other way round: what crc was, if this is what was returned for the bytes. */
uint32_t crc32c_undo(uint32_t crc, const void *data, size_t n);
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t n); /* the other way, for tests and other processors */

#if defined(__x86_64__)
/* For code that is made for the instruction as a whole, and called where crc32c_has_instruction(): for a few bytes each the call
 * costs as much as the sum. */
#define CRC32C_CODE __attribute__((target("sse4.2")))
#define crc32c_has_instruction() __builtin_cpu_supports("sse4.2")
CRC32C_CODE static inline uint32_t crc32c_by_instruction(uint32_t crc, const void *data, size_t n) {
        const unsigned char *p = data;
        uint64_t c = ~crc;
        for (; n >= 8; n -= 8, p += 8) {
                uint64_t v;
                memcpy(&v, p, sizeof(v));
                c = __builtin_ia32_crc32di(c, v);
        }
        if (n >= 4) { /* as the header of a record has behind its sum */
                uint32_t v;
                memcpy(&v, p, sizeof(v));
                c = __builtin_ia32_crc32si((uint32_t)c, v);
                n -= 4;
                p += 4;
        }
        for (; n > 0; n--)
                c = __builtin_ia32_crc32qi((uint32_t)c, *p++);
        return ~(uint32_t)c;
}
#endif
