/* SPDX-License-Identifier: MIT */
#pragma once

/* What the store was asked for and has promised, and whether what it tells later keeps the promises:
 *
 *   - what was durable and has not ended is there, with what it held;
 *   - what was durable and forgotten, or removed with its queue, is not there again; what has ended has ended;
 *   - what was appended and not yet durable is there or not, a group all or none;
 *   - a task of at_most_once that has started has ended, or is known to have started;
 *   - tasks come in the order of their SEQ, and no SEQ is lower than one that was promised. */

#include <stdbool.h>

#include "trace.h"

typedef struct Promises Promises;

Promises *promises_new(bool of_eqd); /* else of the victim */
/* ITEM, DURABLE, FOUND, OPENED, ACCEPTED, ENDED, STARTED. False: the trace itself shows a promise broken; told on standard error. */
bool promises_feed(Promises *p, const TraceEvent *e, const char *data);
/* Opens the store in `dir` and holds what it tells against the promises, twice: the second time it must tell the same. */
bool promises_kept(const Promises *p, const char *dir, bool quiet);
bool promises_any(const Promises *p); /* something was promised */
