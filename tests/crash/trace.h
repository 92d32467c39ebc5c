/* SPDX-License-Identifier: MIT */
#pragma once

/* What the recorder writes and the test of a loss of power reads: one event behind the other, each this header, then its name
 * (of RENAME two, a zero between them), then its data. Events are in the order in which they happened: a call that changes a
 * file is recorded together with being made. A sync has two events, since others may write meanwhile. */

#include <stdint.h>

typedef enum TraceType {
        TRACE_OPEN = 1,   /* name; fd; flags: of open(); made: it was not there before */
        TRACE_CLOSE,      /* fd */
        TRACE_WRITE,      /* fd, at, data: as many bytes as were written */
        TRACE_ALLOCATE,   /* fd, at, len: of fallocate(); the file is at least so long */
        TRACE_TRUNCATE,   /* fd, len */
        TRACE_SYNC_BEGIN, /* fd, of a file or a directory */
        TRACE_SYNC_END,   /* likewise; error: it failed */
        TRACE_RENAME,     /* names */
        TRACE_UNLINK,     /* name */
        TRACE_MKDIR,      /* name */
        TRACE_FAULT, /* the call that comes next fails so by plan: name; what: its type; error: errno, 0: it is cut short */

        /* Of the store's user; by trace_note(). */
        TRACE_ITEM = 64, /* it is about to be appended: item */
        TRACE_DURABLE,   /* the store said so: item.position */
        TRACE_FOUND,     /* told when the store was opened: item */
        TRACE_OPENED,    /* that was all */
        TRACE_STATS,     /* item.seq: moves; item.queue: segments */
        TRACE_ACCEPTED,  /* by a client of eqd: item.queue, seq; data: what its body contains */
        TRACE_ENDED,     /* likewise; it was told that it has ended */
        TRACE_STARTED,   /* by what runs a task of at_most_once: item.queue, seq; it may do anything from now on */
} TraceType;

typedef struct TraceItem {
        uint64_t queue, seq, position, version;
        uint32_t kind;  /* StoreKind */
        uint32_t group; /* of its life; 0: alone */
} TraceItem;

typedef struct TraceEvent {
        uint32_t type;
        int32_t pid, fd, error; /* error: errno of a call that failed; it changed nothing */
        uint32_t flags, made;
        uint32_t what;
        uint64_t at, len;
        uint32_t n_name, n_data;
        TraceItem item;
} TraceEvent;

/* Not there when the program runs without the recorder. */
__attribute__((weak)) void trace_note(TraceType type, const TraceItem *item);
/* From here on no call that changes a file returns: the process may be ended, and the trace has all that it did. */
__attribute__((weak)) void trace_freeze(void);
/* The next sync of a file ends the process in its place: what was written before it is not synced. */
__attribute__((weak)) void trace_end_at_sync(void);
