/* SPDX-License-Identifier: MIT */
#pragma once

/* A file of the log: log-NUMBER (16 hexadecimal digits), of a fixed size that is allocated when it is made.
 *
 *   0  "EQDSTORE"   8  version (32 bits)   12  CRC-32C, zeros in its place     16  number   24  salt (32 bits), size (32)
 *   32 boot id of the machine that writes it (16 bytes; zeros: not known)   48 zeros up to 64; then records
 *
 * Changing the format: a new version; readers keep the old ones that were ever released; a file of another version is refused, never
 * written to. Whatever else changes, magic, version and sum stay where they are, and the sum what it is of: so a damaged header is
 * told from one of another version.
 *
 * A damaged header costs no record. One bit is found by trying all of them; else the salt, which is all that reading needs, follows
 * from the first record whose sums agree on one.
 *
 * Store thread, or the loop before that thread is started. Blocks. Negative errno unless stated. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEGMENT_HEADER = 64, SEGMENT_VERSION = 2, SEGMENT_NAME_MAX = 32 };

/* While it is the same no power was lost, and all that was written is there. */
typedef struct SegmentBoot {
        char id[16];
} SegmentBoot;
void segment_boot(SegmentBoot *ret); /* of this machine; zeros: not known */

typedef struct Segment {
        uint64_t number;
        uint32_t salt, size;
        SegmentBoot boot;
        int fd;         /* owned, -1: none */
        bool is_mended; /* its header is damaged; boot may be unknown */
} Segment;
#define SEGMENT_NULL                                                                                                   \
        { .fd = -1 }

void segment_name(uint64_t number, char buf[static SEGMENT_NAME_MAX]);
bool segment_parse_name(const char *name, uint64_t *ret_number);

/* Makes it under another name, allocated and with its header, and gives it its name last: it is there as a whole or not at
 * all, durably. */
int segment_create(int dir_fd, uint64_t number, uint32_t size, const SegmentBoot *boot, Segment *ret);
/* The two halves of it. -EEXIST: a file by the name that new ones have is of somebody else. What is prepared has no name yet that
 * is read; what is written to it in between appears with it, as a whole, in the place of the segment of that number if there is
 * one. Block. */
int segment_prepare(int dir_fd, uint64_t number, uint32_t size, const SegmentBoot *boot, Segment *ret);
int segment_publish(int dir_fd, const Segment *s);
/* One that is there becomes what segment_create() would have made: it is published again, since who has made it may have been killed
 * before its name was synced, or told that it cannot be. 1; 0: it is not as it was made, or cannot be taken, and is as it was; or
 * negative errno. */
int segment_take(int dir_fd, const Segment *s, Segment *ret);
/* Opens for reading. -EBADMSG: no segment; -EPROTONOSUPPORT: of a later version; -EPROTOTYPE: of an earlier one; -ENODATA: of another
 * size or number than it was made with; segment_refusal() has it in words. */
int segment_open(int dir_fd, uint64_t number, Segment *ret);
const char *segment_refusal(int error); /* what follows its name; NULL: another error */
/* The same for writing behind what was promised; of one that is open for reading. */
int segment_open_again(int dir_fd, const Segment *s, Segment *ret);
void segment_close(Segment *s); /* repeatable */

/* May that file go, or be replaced? 0: there is none, or nothing in it, or it begins as it must, and is of no later version; -EEXIST:
 * it is not ours; or negative errno. */
int segment_check_owner(int dir_fd, const char *name, const char magic[static 8], uint32_t version);

/* Bytes that files may still be given on its file system, and its size. 0 or negative errno. */
int segment_space(int dir_fd, uint64_t *ret_free, uint64_t *ret_size);

int segment_write(const Segment *s, uint32_t at, const void *data, size_t n);
/* The n bytes at `at`, which are written, begin their way to the disk; how far they have come only a sync says. */
void segment_start(const Segment *s, uint32_t at, size_t n);
/* One that failed is the end, whatever the system calls it: tried again it may succeed without what it could not write. So the
 * error is -EIO, and never one of those that pass. */
int segment_sync(const Segment *s);
int segment_sync_dir(int dir_fd);

/* Reading goes by pread, never by a mapping: a bad sector is an error of one call there, and a signal here. Any thread. */
int segment_read(const Segment *s, uint32_t at, void *data, size_t n);
/* Something of it cannot be read. True: it is to be tried once more. */
typedef bool (*SegmentAgain)(void *userdata, const Segment *s);
/* The whole file. *buf of *cap bytes grows; for free(). again: NULL: never. What cannot be read is filled with bytes that are no record;
 * whether there is any of that, *ret_has_gaps says, which may be NULL. */
int segment_read_all(const Segment *s, char **buf, size_t *cap, SegmentAgain again, void *userdata, bool *ret_has_gaps);

/* What can be read of these n bytes, the rest as above. True: all of them. */
bool segment_read_good(const Segment *s, uint32_t at, void *data, size_t n);

/* Reads it from front to back, a piece at a time. */
typedef struct SegmentWindow {
        char *data; /* owned */
        uint32_t at, len, cap;
} SegmentWindow;
#define SEGMENT_WINDOW_NULL                                                                                            \
        { 0 }
/* *ret: n bytes at `at`, valid until the next call. -EMSGSIZE: the segment ends before that. */
int segment_window(SegmentWindow *w, const Segment *s, uint32_t at, size_t n, const char **ret);
void segment_window_done(SegmentWindow *w); /* repeatable */
