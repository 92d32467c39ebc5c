/* SPDX-License-Identifier: MIT */
#pragma once

/* hint-NUMBER: what a sealed segment has, without the bodies of its records, so that a start need not read them. Only a cache:
 * where it is missing, damaged or of another segment, the segment is read instead.
 *
 *   0  "EQDHINT" 0     8  version (32 bits)    12  CRC-32C of all but these four bytes
 *   16 number          24  salt, size of the segment (32 bits each)    32  number of queues, of entries (32 bits each)
 *   40 where the seal of the segment is (32 bits)    44  zeros up to 64
 *   64 for each queue: id, highest SEQ that its records here know to be given, whatever has become of them
 *   then for each record in its order, 32 bytes:
 *   0  SEQ (56 bits), kind (4), lane (4)    8  which of the queues    12  at    16  length of the body (32 bits each)
 *   20 the first bytes of the body, of a TASK
 *
 * Little-endian. Records that said nothing any more when it was written are left out, if that was durable. Changing it: a new
 * version; one of another version is as none. One of an earlier version is replaced; one of a later version, and what does not begin
 * as a hint does, is never written to nor removed. Store thread, or any; blocks. */

#include "base/hash.h"
#include "store/segment.h"
#include "store/store.h"

enum { HINT_VERSION = 1, HINT_HEADER = 64, HINT_QUEUE = 16, HINT_ENTRY = 32 };

typedef struct HintQueue {
        UT_hash_handle hh;
        uint64_t id, last_seq;
        uint32_t index;
} HintQueue;

/* One that is being made. */
typedef struct Hint {
        HintQueue *queues; /* uthash by id, in order of index; owned */
        HintQueue *latest; /* borrowed from there */
        uint32_t n_queues, n_entries;
        uint32_t end;  /* where the seal is */
        char *entries; /* owned */
        size_t cap;    /* bytes */
} Hint;
#define HINT_NULL                                                                                                      \
        { 0 }

/* r is at `at`. begin: the first bytes of its body that are known. live: it still says something. 0, -ENOMEM, or -ERANGE: it
 * does not fit the form. */
int hint_add(Hint *h, const Record *r, StoreBytes begin, uint32_t at, bool live);
void hint_done(Hint *h); /* repeatable */
/* Its file as bytes, for free(). */
int hint_encode(const Hint *h, const Segment *s, char **ret, size_t *ret_size);

/* One that is read. */
typedef struct HintFile {
        char *data; /* owned */
        size_t size;
        uint32_t n_queues, n_entries, end;
} HintFile;
#define HINT_FILE_NULL                                                                                                 \
        { 0 }

typedef struct HintEntry {
        Record record; /* without its body, but for the length */
        uint32_t at;
        StoreBytes begin; /* points into the file */
} HintEntry;

/* data is taken over on success. -EBADMSG: not as hint_encode() made it; -EPROTONOSUPPORT: of a later version; -ESTALE: of another
 * segment. */
int hint_parse(char *data, size_t size, const Segment *s, HintFile *ret);
void hint_file_done(HintFile *f); /* repeatable */
void hint_queue(const HintFile *f, uint32_t i, uint64_t *ret_id, uint64_t *ret_last_seq);
void hint_entry(const HintFile *f, uint32_t i, HintEntry *ret);

void hint_name(uint64_t number, char buf[static SEGMENT_NAME_MAX]);
bool hint_parse_name(const char *name, uint64_t *ret_number);
/* As a whole or not at all, durably. -EEXIST: something is there that is not ours. */
int hint_write(int dir_fd, uint64_t number, const char *data, size_t size);
int hint_check_owner(int dir_fd, const char *name); /* segment_check_owner() */
int hint_check_new(int dir_fd);                     /* of the name that new ones have */
/* As hint_parse(); -ESTALE also: the segment has not its seal where the hint was made from one; -ENOENT: there is none. */
int hint_read(int dir_fd, const Segment *s, HintFile *ret);
/* The segment and what hints at it, durably. */
int hint_remove_segment(int dir_fd, uint64_t number);
/* Removes what hints at no segment, and what was not finished. exists: is there such a segment? */
void hint_clean(int dir_fd, bool (*exists)(void *userdata, uint64_t number), void *userdata);
