/* SPDX-License-Identifier: MIT */
#pragma once

/* Looks at the files of a store and changes nothing: what is in them, and what is wrong with them. Everything is read, whatever a hint
 * says. It takes no lock and writes nothing, so it can be done beside an eqd that uses them (in_use): then segments may come and go
 * meanwhile, the last one has no seal, and what is being written is no damage; what looks wrong is read again before it is
 * believed. Blocks; one thread. */

#include "store/index.h"
#include "store/segment.h"

typedef enum InspectLevel {
        INSPECT_NOTE,
        INSPECT_DAMAGE,
        INSPECT_REFUSED,
        INSPECT_UNREAD,
        _INSPECT_LEVEL_MAX
} InspectLevel;

typedef enum InspectProblem {
#define STORE_PROBLEM(ID, ...) PROBLEM_##ID,
#include "store/problems.def"
        _INSPECT_PROBLEM_MAX,
} InspectProblem;

typedef struct InspectProblemRow {
        const char *name, *what, *at_start, *advice;
        InspectLevel level;
} InspectProblemRow;
extern const InspectProblemRow inspect_problems[_INSPECT_PROBLEM_MAX];
extern const char *const inspect_levels[_INSPECT_LEVEL_MAX];

typedef struct InspectFinding {
        InspectProblem problem;
        const char *file;
        bool has_place;
        uint64_t at, n_bytes; /* of the file */
        const Record *was;    /* what its header says, of a record whose body is damaged; NULL: that is not known */
        uint64_t count;       /* of a kind that is told once for a file; 0: one */
        int error;            /* negative errno; 0: none */
} InspectFinding;

/* Slices end with their call. A negative return ends the walk with it. */
typedef struct InspectReader {
        int (*finding)(void *userdata, const InspectFinding *f);
        int (*record)(void *userdata, uint64_t segment, uint32_t at, const Record *r);
} InspectReader;

typedef struct InspectMember {
        Record record;
        uint32_t at;
} InspectMember;

typedef struct Inspect {
        int dir_fd; /* owned */
        bool in_use;
        uint64_t *numbers; /* of its segments, in order; owned */
        size_t n, cap;
        bool listed; /* they were, and what was wrong with their names was told */
        Index index;
        LiveMap hinted, ends; /* places that hints name, and those of ENDs */
        LiveMap bare_ends;    /* of those of which nothing else is known: a start forgets the task */
        uint64_t *has_hint;   /* numbers of segments with a good one; owned */
        size_t n_hints, cap_hints;
        uint64_t open, next_open; /* the first segment that had no seal yet when it was read last, and now; 0: none */
        uint32_t open_end, next_open_end; /* up to there it was read */
        uint64_t n_files, n_segments, bytes, n_records, oldest, newest, n_kept, n_marks;
        uint64_t n_findings[_INSPECT_LEVEL_MAX];
        char *image; /* owned */
        size_t image_cap;
        InspectMember *group; /* records of one whose end has not come; owned */
        size_t n_group, cap_group;
        const InspectReader *reader;
        void *userdata;
} Inspect;
#define INSPECT_NULL                                                                                                   \
        { .dir_fd = -1 }

/* dir: where the segments are. 0 or negative errno. */
int inspect_open(const char *dir, bool in_use, Inspect *ret);
void inspect_done(Inspect *x);
bool inspect_has_segments(Inspect *x);                       /* any, by their names; instead of inspect_files() */
bool inspect_has_segment(const Inspect *x, uint64_t number); /* behind inspect_files() */

/* Reads every file and tells what is wrong; then `index` has what is there. Once. 0, what the reader returned, or negative errno. */
int inspect_files(Inspect *x, const InspectReader *reader, void *userdata);
/* Once more, behind inspect_files(): each record of segment `only`, or (0) of all, and what is wrong with them. */
int inspect_records(Inspect *x, uint64_t only, const InspectReader *reader, void *userdata);
bool inspect_is_live(const Inspect *x, uint64_t segment, uint32_t at); /* that record still says something */
void inspect_found(Inspect *x,
                   InspectProblem problem); /* counts what was found outside of the directory, as the lock */

/* What is there of a queue. */
typedef struct InspectQueue {
        uint64_t id, last_seq, n_pending, n_finished, bytes, n_segments;
        const char *name;
        bool is_gone;
} InspectQueue;
/* Each of them. 0, what func returned if that was negative, or -ENOMEM. */
int inspect_queues(const Inspect *x, int (*func)(void *userdata, const InspectQueue *q), void *userdata);
