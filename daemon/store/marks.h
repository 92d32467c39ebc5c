/* SPDX-License-Identifier: MIT */
#pragma once

/* The file `running`: which tasks run, and as which processes. It is mapped, so what is written there outlives the process without
 * any sync; a loss of power ends the tasks as well.
 *
 *   header (128 bytes)   row 0 (64 bytes)   row 1   ...   row STORE_MARKS - 1
 *
 *   header   0  "EQDMARKS"    8  version, 12 CRC-32C of the first 64 bytes with zeros in its place (32 bits each)
 *           16  number of rows, 20 bytes of a row (32 bits each)    24  zeros    32  boot id    48  zeros
 *           64, 88  processes of the spawner   112  zeros
 *   row      0  queue id    8  SEQ    16  attempt (32 bits), zeros    24  check word; 0: nothing is marked
 *           32  the process   56  zeros
 *   process  0  pid (32 bits), zeros    8  start, in clock ticks since boot    16  check word; 0: not known
 *
 * A check word is written last: 32 bits that say that there is something, then the CRC-32C of what is before it; that of a row's
 * process goes on from that of the row, so that no process is taken for one of a later run. Byte order is the machine's.
 *
 * Changing the format: a new version. Magic, version and sum of the header stay where they are; a file of another version is refused
 * and left alone. Negative errno unless stated. */

#include <stdbool.h>

#include "store/segment.h"
#include "store/store.h"

enum { MARKS_HEADER = 128, MARK_SIZE = 64, MARKS_VERSION = 1 };
#define MARKS_FILE_SIZE (MARKS_HEADER + (size_t)STORE_MARKS * MARK_SIZE)

/* ---- bytes: pure, any thread ---- */

typedef struct MarksHead {
        bool mended;  /* one bit was wrong */
        bool damaged; /* it is ours, and not as it was written: the boot id is not known */
        SegmentBoot boot;
        StoreProcess spawner[STORE_SPAWNER]; /* pid 0: not known */
} MarksHead;
/* Of a file of that size, which begins with these MARKS_HEADER bytes. 0; -EBADMSG: it is none; -EPROTONOSUPPORT: of another version. */
int marks_read_head(const void *header, uint64_t file_size, MarksHead *ret);

typedef enum MarkState {
        MARK_NONE,
        MARK_SET,
        MARK_MENDED,  /* one bit was wrong: *ret is as it was written */
        MARK_SPOILED, /* nothing is marked; a bit of that was wrong */
        MARK_DAMAGED, /* *ret is what can be read, which may be anything */
} MarkState;
typedef struct MarkSeen {
        uint64_t queue, seq;
        uint32_t attempt;
        bool process_damaged;
        StoreProcess process; /* pid 0: not known */
} MarkSeen;
MarkState mark_read(const void *row, MarkSeen *ret); /* of MARK_SIZE bytes; *ret is set unless it is NONE or SPOILED */

/* ---- the table: the loop, unless stated ---- */

typedef struct MarkTable MarkTable;

/* Makes it if there is none, durably. The processes of another boot are forgotten. *ret_head: as it was. -EBADMSG and
 * -EPROTONOSUPPORT as above; -EEXIST: where it is made is a file that is not ours. Blocks. */
int marks_open(int dir_fd, const SegmentBoot *boot, MarkTable **ret, MarksHead *ret_head);
MarkTable *marks_close(MarkTable *t); /* NULL is fine; returns NULL */
MarkState marks_read(const MarkTable *t, int slot, MarkSeen *ret);
void marks_forget_pages(const MarkTable *t); /* all were looked at: they need not stay in memory */

bool marks_is_set(const MarkTable *t, int slot);
/* All but the check word, which the caller, on any thread, stores. */
_Atomic uint64_t *marks_prepare(MarkTable *t, int slot, uint64_t queue, uint64_t seq, uint32_t attempt,
                                uint64_t *ret_check);
void marks_set_process(MarkTable *t, int slot, const StoreProcess *p);
void marks_set_spawner(MarkTable *t, const StoreProcess *p); /* STORE_SPAWNER of them */
void marks_set(MarkTable *t, int slot);                      /* the same, at once */
void marks_unset(MarkTable *t, int slot);

/* The processes in the file `running` of that directory. As store_leftovers(). */
int marks_leftovers(const char *dir, const SegmentBoot *boot, StoreLeftovers *ret);
