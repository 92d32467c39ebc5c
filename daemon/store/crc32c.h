/* SPDX-License-Identifier: MIT */
#pragma once

/* CRC-32C (Castagnoli), as in iSCSI and ext4: by the processor's instruction where it has one. Any thread. */

#include <stddef.h>
#include <stdint.h>

/* crc: 0 to begin with, or what was returned for the bytes before. */
uint32_t crc32c(uint32_t crc, const void *data, size_t n);
/* The other way round: what crc was, if this is what was returned for the bytes. */
uint32_t crc32c_undo(uint32_t crc, const void *data, size_t n);
uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t n); /* the other way, for tests and other processors */
