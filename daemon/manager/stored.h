/* SPDX-License-Identifier: MIT */
#pragma once

/* What the store keeps of queues and tasks, as bytes that it does not look into. Pure; any thread, nothing blocks.
 *
 * Each form begins with its version. Numbers are little-endian and of fixed width; bytes and lists have their length before
 * them. Changing a form: a new version number, written from then on; the reader keeps every version that was ever released.
 * An unpacked struct points into the bytes that it came from. */

#include "executor/outputlog.h"
#include "proto/codec.h"

/* The immutable part of a task. */
typedef struct StoredTask {
        uint32_t uid, gid, n_groups;
        EqBytes groups; /* n_groups numbers of 32 bits, see stored_group() */
        bool held;      /* submitted with `hold` */
        bool has_fd;    /* its standard input was a descriptor, which is gone: it cannot run again */
        bool key_only;  /* it has ended and left the history: what is there is `uid` and, among the options, its key */
        bool plain;     /* nothing of it but its bytes matters before it starts: see window.h */
        uint16_t retries;
        uint64_t submitted_usec;          /* these three: wall clock */
        uint64_t due_usec, expire_usec;   /* 0: none */
        EqBytes payload, common, options; /* as in TaskSpec */
        EqBytes others;                   /* of a task over several queues, beside its own: see stored_other() */
} StoredTask;

/* What came of an attempt, but for its output. */
typedef struct StoredTry {
        uint64_t started_usec; /* wall clock; 0: there was none */
        int32_t exit, signal;
        uint64_t utime_usec, stime_usec, maxrss_kib;
        EqBytes error;
        uint64_t worker; /* 0: none */
} StoredTry;

/* What has become of a task that has not ended, since it was accepted. */
typedef struct StoredState {
        uint16_t attempt, crashes, lost;
        uint8_t wait;         /* TASK_WAIT_* that hold, but for AFTER, which is found out again */
        uint64_t due_usec;    /* wall clock; of AT or BACKOFF */
        uint64_t expire_usec; /* wall clock; 0: never */
        bool starts;          /* of at_most_once: `attempt` has begun, or was about to */
        StoredTry last;       /* the last attempt, which is over */
        uint64_t n_total[3];  /* of its output, by stream; nothing of that is kept */
} StoredState;

/* How a task ended. */
typedef struct StoredEnd {
        uint8_t state, reason, note; /* eq_state, eq_reason, TaskEndNote */
        uint16_t attempt, crashes, lost;
        uint64_t finished_usec;         /* wall clock */
        StoredTry last;                 /* its last attempt */
        EqBytes result;                 /* of the worker of that */
        uint64_t n_total[3], n_dropped; /* of the output of its last attempt, by stream; of both what was not kept */
        EqBytes output;                 /* kept chunks of that: for stored_output_next() */
} StoredEnd;

/* A queue. Its name, and the last SEQ it gave, the store knows by itself. */
typedef struct StoredQueue {
        uint32_t creator; /* uid */
        uint32_t pauses;
        bool from_file, overridden, stopped;
        uint64_t digest; /* of its file */
        EqArray set;     /* attributes that were set, as key=value strings */
} StoredQueue;

/* Append to b, whose `failed` tells when memory was out. log may be NULL; of its attempts only the last is stored. */
void stored_task_pack(const StoredTask *t, EqBuffer *b);
void stored_state_pack(const StoredState *s, EqBuffer *b);
void stored_end_pack(const StoredEnd *e, const OutputLog *log, EqBuffer *b);
void stored_queue_pack(const StoredQueue *q, EqBuffer *b);

/* What the first STORED_TASK_BEGIN bytes of a task say. */
enum { STORED_TASK_BEGIN = 12 };
typedef struct StoredTaskBegin {
        uint32_t uid, n_bytes; /* of payload and options together */
} StoredTaskBegin;
/* False: they do not say enough, and the whole of it has to be looked at. */
bool stored_task_begin(EqBytes begin, StoredTaskBegin *ret);

/* 0; -EBADMSG: not such a form; -EPROTONOSUPPORT: of a later version than this eqd knows. */
int stored_task_unpack(EqBytes raw, StoredTask *ret);
int stored_state_unpack(EqBytes raw, StoredState *ret);
int stored_end_unpack(EqBytes raw, StoredEnd *ret);
int stored_queue_unpack(EqBytes raw, StoredQueue *ret);

/* A queue's id, and the SEQ of the task's place there. */
enum { STORED_OTHER_SIZE = 16 };
void stored_other_pack(uint64_t queue, uint64_t seq, EqBuffer *b);
/* The next one, which it moves on. False: there is none. */
bool stored_other_next(EqBytes *others, uint64_t *ret_queue, uint64_t *ret_seq);
uint32_t stored_group(const StoredTask *t, uint32_t i); /* i < n_groups */
/* The next chunk of StoredEnd::output, which it moves on. False: there is none. */
bool stored_output_next(EqBytes *output, uint8_t *ret_stream, EqBytes *ret_data);
