/* SPDX-License-Identifier: MIT */
/* The polynomial 0x1EDC6F41, reflected: 0x82F63B78. The table is made at the first use; it does not matter by how many
 * threads, since all write the same. */

#include "store/crc32c.h"

#include <stdatomic.h>
#include <stdbool.h>

static uint32_t table[256];
static atomic_bool has_table;

static void make_table(void) {
        static atomic_flag busy = ATOMIC_FLAG_INIT;
        while (atomic_flag_test_and_set(&busy))
                if (atomic_load(&has_table))
                        return;
        for (uint32_t i = 0; i < 256; i++) {
                uint32_t c = i;
                for (int bit = 0; bit < 8; bit++)
                        c = c & 1 ? c >> 1 ^ 0x82F63B78 : c >> 1;
                table[i] = c;
        }
        atomic_store(&has_table, true);
}

uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t n) {
        const unsigned char *p = data;
        if (!atomic_load(&has_table))
                make_table();
        crc = ~crc;
        for (; n > 0; n--)
                crc = crc >> 8 ^ table[(crc ^ *p++) & 0xff];
        return ~crc;
}

/* Each step of it has one step before it: the polynomial's highest bit is set, so that of the sum tells whether it was added. */
uint32_t crc32c_undo(uint32_t crc, const void *data, size_t n) {
        const unsigned char *p = data;
        crc = ~crc;
        while (n-- > 0) {
                for (int bit = 0; bit < 8; bit++)
                        crc = crc >> 31 ? (crc ^ 0x82F63B78) << 1 | 1 : crc << 1;
                crc ^= p[n];
        }
        return ~crc;
}

#if defined(__x86_64__)
uint32_t crc32c(uint32_t crc, const void *data, size_t n) {
        return crc32c_has_instruction() ? crc32c_by_instruction(crc, data, n) : crc32c_by_table(crc, data, n);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t n) {
        return crc32c_by_table(crc, data, n);
}
#endif
