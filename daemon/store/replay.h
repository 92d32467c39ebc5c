/* SPDX-License-Identifier: MIT */
#pragma once

/* What the modules share that read the log: replay.c and, for its last segment, tail.c when a store is opened; inspect.c to look at it. Loop thread,
 * before the others are started; blocks. Negative errno unless stated. */

#include "store/parts.h"

/* What is known of a segment by its hint, its own or one that was made of it here. A start looks at it twice. */
typedef struct SegmentHint {
        bool is_good;  /* its own is */
        HintFile file; /* kept from the first look to the second; none: it was too many for that */
} SegmentHint;
enum { HINTS_KEPT = 4 };

typedef struct Replay {
        Store *store;
        const StoreReader *reader;
        void *userdata;
        char *error;
        size_t error_size;
        Segment *segments;  /* owned; by number. Closed: there may be more than descriptors */
        SegmentHint *hints; /* of each; owned */
        size_t n, cap;
        uint64_t done_bytes;
        Record *group; /* records of a group whose end has not come; owned */
        uint32_t *group_at;
        size_t n_group, cap_group;
        char *image; /* of the segment that is read as a whole; owned */
        size_t image_cap;
        uint64_t image_of;   /* the segment that is in it, as its file is; 0: none */
        uint32_t image_good; /* of that: Image::good */
        Segment latest;      /* of the record that was read last */
        Hint *making;        /* of the segment that is being read; NULL: none */
        unsigned n_damaged, n_kept;
        unsigned n_waited; /* times, for what could not be read */
        bool quiet;        /* damage was told, or will be */
} Replay;

/* A segment that is read as a whole. */
typedef struct Image {
        const Segment *segment;
        const char *data; /* Replay::image */
        uint32_t good;    /* up to there it is one good record behind the other: their sums were seen. 0: not known */
} Image;

/* Of the last segment, if it was not left in order. */
typedef struct Tail {
        bool sealed;
        uint32_t good;   /* Image::good */
        bool is_same;    /* the machine was not started again since: all that was written is there */
        uint32_t torn;   /* else: from there on what is torn was never promised */
        uint32_t synced; /* is_same: up to there it is on the disk as it is; 0: that is not known */
} Tail;

/* What is in the place of a record. */
typedef struct Bad {
        uint32_t end;  /* reading goes on there */
        uint32_t size; /* of the record that it was; 0: that is not known, else: */
        Record was;
} Bad;

/* The one at `at`, where a record begins or ended, as record_read(). Sums that were seen once are not made again. */
long replay_record(const Image *i, uint32_t at, Record *ret);
/* Where the next good record begins at or after `at`; the size of the segment if there is none. */
uint32_t replay_resynchronise(const Image *i, uint32_t at);
bool replay_look_at_bad(const Image *i, uint32_t at, Bad *ret); /* false: there are only zeros, up to the end */
bool replay_is_torn(const Image *i, const Tail *tail, uint32_t at, const Bad *b);
enum { NOWHERE = 0 }; /* no record is at that place of a segment */
/* What is still to be known of a damaged record: what takes its place. An END without a body: it has ended, and that is all that is
 * known. False: nothing; what had become of a task before remains. */
bool replay_trace_of(const Record *was, Record *ret);

typedef int (*RecordFunc)(Replay *p, const Segment *s, const Record *r, uint32_t at);

/* Calls func for each record of the segment. tail: what is torn there is no damage, and of a group there all is there or nothing; NULL:
 * it is not the last segment, or was put in order. *ret_cut: where it ends without a seal, and without damage in the place of one; 0: it
 * does not. */
int replay_walk(Replay *p, const Image *i, const Tail *tail, RecordFunc func, uint32_t *ret_cut);

/* Something of that segment could not be read just now. Waits a moment; true: it is to be tried once more. */
bool replay_try_again(void *replay, const Segment *s);
int replay_add(Replay *p, uint64_t number); /* that segment to the list, at its end */
/* If that is not what was read last, as it is on the disk. */
int replay_read(Replay *p, const Segment *s, Image *ret);

/* tail.c: how it was left. boot: of the machine now. */
Tail replay_survey(const SegmentBoot *boot, const Image *i);
/* Puts the last segment in order, and begins the one that is written to. */
int replay_heal_tail(Replay *p);
