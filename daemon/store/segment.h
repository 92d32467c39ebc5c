/* SPDX-License-Identifier: MIT */
#pragma once

/* A file of the log: log-NUMBER (16 hexadecimal digits), of a fixed size that is allocated when it is made.
 *
 *   0  "EQDSTORE"   8  version (32 bits)   12  CRC-32C of the other 60 bytes   16  number   24  salt (32 bits), size (32)
 *   32 zeros up to 64; then records
 *
 * Changing the format: a new version; readers keep the old ones; a file of a later version is refused, never written to.
 * Store thread, or the loop before that thread is started. Blocks. Negative errno unless stated. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEGMENT_HEADER = 64, SEGMENT_VERSION = 1, SEGMENT_NAME_MAX = 32 };

typedef struct Segment {
        uint64_t number;
        uint32_t salt, size;
        int fd;          /* owned, -1: none */
        const char *map; /* of the whole file, for reading; NULL: not mapped */
} Segment;
#define SEGMENT_NULL                                                                                                   \
        { .fd = -1 }

void segment_name(uint64_t number, char buf[static SEGMENT_NAME_MAX]);
bool segment_parse_name(const char *name, uint64_t *ret_number);

/* Makes it under another name, allocated and with its header, and gives it its name last: it is there as a whole or not at
 * all, durably. */
int segment_create(int dir_fd, uint64_t number, uint32_t size, Segment *ret);
/* Opens for reading and maps. -EBADMSG: no segment; -EPROTONOSUPPORT: of a later version. */
int segment_open(int dir_fd, uint64_t number, Segment *ret);
void segment_close(Segment *s); /* repeatable */

int segment_write(const Segment *s, uint32_t at, const void *data, size_t n);
int segment_sync(const Segment *s);
int segment_remove(int dir_fd, uint64_t number); /* durably */
int segment_sync_dir(int dir_fd);
