/* SPDX-License-Identifier: MIT */
#pragma once

/* Was a record that is no good only written in part, so that nobody was promised anything of it, or was it there and has been
 * damaged since?
 *
 * Records are written where there are zeros, each of them once and in one piece, and their last byte is not zero.
 *
 * - If only the process died, all that it wrote is there, and of the last write a beginning. So a record that has its last byte was
 *   written, and so was one that has anything behind its last byte, or a header that has anything behind it.
 * - If power was lost, each sector of that which was not synced is there or not. So a record was written if no sector's part of it is zeros.
 *   One that has so many zeros in it cannot be told from one that is torn; it counts as that.
 *
 * Pure; any thread. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TORN_SECTOR = 512 };

/* Behind the last byte at or behind `at` that is not zero; `at`: there is none. */
uint32_t torn_written_until(const char *data, uint32_t size, uint32_t at);
/* What is at `at` of size bytes is no good record, though its header, right again, says that it has n bytes; 0: that is not known. */
bool torn_by_death(const char *data, uint32_t size, uint32_t at, uint32_t n);
bool torn_by_power(const char *data, uint32_t at, uint32_t end);
