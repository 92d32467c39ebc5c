/* SPDX-License-Identifier: MIT */
#pragma once

/* One record of the log, as bytes. Pure; any thread.
 *
 *   0   CRC-32C of the 28 bytes behind it      8  length of the body    12  kind   13  flags   14  lane   15  0
 *   4   CRC-32C of all behind the header      16  queue id              24  SEQ
 *   32  body, zeros, and as the last byte of a multiple of 8 one that is not zero, RECORD_LAST
 *
 * Little-endian. Both sums begin with the salt of the segment, so that what an earlier use of the same blocks left behind is
 * no record. Every record begins at a multiple of 8, so that reading can find the next one behind a damaged one. It is written
 * where there were zeros: its last byte tells whether all of it was written, whatever has become of it since. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct StoreBytes {
        const void *data;
        uint32_t len;
} StoreBytes;

/* Numbers on disk: never change, only add. */
typedef enum StoreKind {
        STORE_QUEUE =
                1,    /* a queue: seq is the last SEQ it has given; body: length of name (a byte), name, definition */
        STORE_GONE,   /* it was removed; likewise without a definition */
        STORE_TASK,   /* a task was accepted; body: the task */
        STORE_STATE,  /* what has become of it: replaces STATE and END before it */
        STORE_END,    /* it has ended: replaces STATE and END before it */
        STORE_FORGET, /* its history is over */
        STORE_SEAL,   /* nothing follows in this segment */
        STORE_SEEN,   /* there was a task of that SEQ, and its record was damaged */
        _STORE_KIND_MAX,
} StoreKind;

enum {
        RECORD_HEADER = 32,
        RECORD_MORE = 1 << 0,       /* flags: the next record belongs to it, all or none */
        RECORD_INSIDE = 1 << 1,     /* it belongs to the one before it */
        RECORD_SYNCED = 1 << 2,     /* what is before it in its segment was on the disk before it was written */
        RECORD_BODY_MAX = 16 << 20, /* larger ones are no records */
        RECORD_LAST = 0xa5,         /* no one bit of it makes it 0 */
        RECORD_MIN = 40,            /* bytes of one without a body */
};

typedef struct Record {
        StoreKind kind;
        uint8_t flags, lane;
        uint64_t queue, seq;
        StoreBytes body;
} Record;

static inline size_t record_size(size_t body_len) {
        return (RECORD_HEADER + body_len + 8) & ~(size_t)7;
}

/* All tasks of a queue hang on its record: there are two of it, side by side. */
static inline size_t record_copies(StoreKind kind) {
        return kind == STORE_QUEUE || kind == STORE_GONE ? 2 : 1;
}

/* Writes the header without its sums, and not the body, to RECORD_HEADER bytes at p. */
void record_put_header(char *p, const Record *r);
/* Before the sums are filled in. */
void record_set_flag(char *p, uint8_t flag, bool on);
/* Fills in the sums, and what is behind the body, of record_size() bytes. */
void record_seal(char *p, uint32_t salt);

/* What record_put_header() has put; the body is behind it. */
void record_peek(const char *p, Record *ret);

typedef enum RecordError {
        RECORD_END = 0,      /* zeros, or no room for a record */
        RECORD_BAD = -1,     /* no header */
        RECORD_BAD_BODY = -2 /* a header, and a body that is damaged or cut off; ret is filled but for the body */
} RecordError;

/* Its header alone, at data: the size of the whole (> 0), or a RecordError. *ret: its body is behind it, if it is there. */
long record_read_header(const char *data, uint32_t salt, Record *ret);
/* What a record that is no good was, by its header, also if one bit of that has changed, but for its body; size: bytes that are there at
 * data. Its size, 0: that cannot be told. */
size_t record_was(const char *data, size_t size, uint32_t salt, Record *ret);
/* The salt with which that, of which `size` bytes are there, would be a record; false: with none. */
bool record_find_salt(const char *data, size_t size, uint32_t *ret_salt);
/* The record at data, of which `size` bytes are there. Its size (> 0), or a RecordError. *ret points into data. */
long record_read(const char *data, size_t size, uint32_t salt, Record *ret);
