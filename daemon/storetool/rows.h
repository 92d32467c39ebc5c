/* SPDX-License-Identifier: MIT */
#pragma once

/* What was found in a store as rows that eqctl prints: the records Store... of eqd.def. Rows point into what they are of. Pure. */

#include "proto/codec.h"
#include "store/inspect.h"

/* A row, and what it points to beside that. */
typedef struct RecordRow {
        EqStoreRecord row;
        char flags[32], queue[24];
} RecordRow;
/* What its body says is taken apart as far as it can be. payload: with the bytes of it. *ret must not be moved. */
void row_record(const Inspect *x, uint64_t segment, uint32_t at, const Record *r, bool payload, RecordRow *ret);
/* The same of a place that has no good record. */
void row_bad_record(const Inspect *x, uint64_t segment, const InspectFinding *f, RecordRow *ret);

typedef struct FindingRow {
        EqStoreFinding row;
        char queue[24];
} FindingRow;
void row_finding(const Inspect *x, const InspectFinding *f, FindingRow *ret); /* likewise */

void row_queue(const InspectQueue *q, EqStoreQueue *ret);
void row_stat(const Inspect *x, EqStoreStat *ret); /* what inspect_files() found; without the tasks */
