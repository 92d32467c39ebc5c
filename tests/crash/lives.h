/* SPDX-License-Identifier: MIT */
#pragma once

/* What programs need that look at lives of the victim: those under the recorder, the traces of them, points of TAP. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trace.h"

typedef struct Life {
        const char *victim, *recorder; /* programs */
        const char *root, *trace;      /* the store is root/store; trace: the file, which grows */
        uint64_t seed;
        unsigned commits, records; /* records: in each commit at most */
        const char *mode;          /* of the victim: "kill", "faulty", or NULL */
        const char *fail;          /* which calls fail, as the recorder has it; NULL: none */
} Life;

/* Its exit status. Ends the program if a signal has ended it. */
int life_live(const Life *l);

typedef struct Trace {
        const char *data;
        size_t size, n_events;
} Trace;

Trace trace_load(const char *path);
/* The event at *at, which moves on; NULL: no more. Valid until the next call. */
const TraceEvent *trace_next(const Trace *t, size_t *at, const char **ret_name, const char **ret_data);

/* ---- files ---- */

void remove_tree(const char *path);
void copy_tree(const char *from, const char *to); /* of directories and files */
/* A directory of its own, removed at the end of the process; memory if there is such a file system. Once. */
const char *work_dir(const char *name);

/* ---- the rest ---- */

_Noreturn void give_up(const char *what);   /* says errno */
uint64_t dice(uint64_t *state, uint64_t n); /* below n, which is not 0 */
void point(bool fine, const char *claim);   /* of a test */
int points_end(void);                       /* exit status */
