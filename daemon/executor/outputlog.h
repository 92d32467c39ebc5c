/* SPDX-License-Identifier: MIT */
#pragma once

/* Output of the attempts of a task: both streams in the order in which they were read, tagged, the last EQ_LOG_TAIL bytes
 * of each stream, whatever number of attempts wrote them: of earlier ones is kept what later ones leave room for. Grows
 * with what is written; never above four times EQ_LOG_TAIL, and that only for streams that alternate byte by byte. Empty
 * ones cost a few words. May be moved by memcpy(). Loop. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/eq-types.h"

/* The last bytes of a stream; allocated when the first one comes. Private. */
typedef struct OutputRing {
        char *data;
        uint32_t cap, head, len;
} OutputRing;

enum { OUTPUT_STREAMS = 2 }; /* arrays by stream begin with EQ_STREAM_STDOUT */

typedef struct OutputLog {
        OutputRing rings[OUTPUT_STREAMS];
        OutputRing order;                  /* which stream came when, and where attempts begin, see outputlog.c */
        uint64_t order_at[OUTPUT_STREAMS]; /* position of the oldest byte that `order` speaks of */
        uint64_t n_total[OUTPUT_STREAMS];  /* ever written */
        uint64_t begun_at[OUTPUT_STREAMS]; /* ... when the newest attempt began */
        uint64_t last_len;                 /* of the newest run, which is not in `order` yet */
        uint64_t n_gone;                   /* bytes of the attempt `first` of which `order` speaks no more */
        uint16_t first;                    /* the attempt that `order` begins with; of earlier ones nothing is known */
        uint16_t written;                  /* the one that it ends with: the newest that wrote something */
        uint16_t attempt;                  /* the newest; 0: none has begun */
        uint8_t last_stream;
} OutputLog;

void output_log_init(OutputLog *l);
void output_log_deinit(OutputLog *l); /* also resets: may be used again at once */

/* What is appended from now on is of that attempt, from 1 on, as the task counts them. The newest once more goes on as long
 * as it has written nothing, for it was not started; else, and with an earlier one, the count has begun again, and what
 * was is let go. */
void output_log_begin(OutputLog *l, uint16_t attempt);

/* stream: EQ_STREAM_*. 0, or -ENOMEM: something was dropped that should have been kept. */
int output_log_append(OutputLog *l, uint8_t stream, const char *data, size_t n);

/* Of a log whose only attempt was appended from what had been kept of it: so many bytes it had written to the stream. */
void output_log_set_written(OutputLog *l, uint8_t stream, uint64_t n_total);

/* Bytes of the stream that are kept, of all attempts. */
static inline size_t output_log_kept(const OutputLog *l, uint8_t stream) {
        return l->rings[stream - EQ_STREAM_STDOUT].len;
}
/* Bytes that the newest attempt has written to the stream. */
static inline uint64_t output_log_written(const OutputLog *l, uint8_t stream) {
        return l->n_total[stream - EQ_STREAM_STDOUT] - l->begun_at[stream - EQ_STREAM_STDOUT];
}
/* False: all that this attempt may have written is gone, or it has not begun. */
static inline bool output_log_knows(const OutputLog *l, uint64_t attempt) {
        return attempt >= l->first && attempt <= l->attempt;
}
/* Bytes of an attempt that it knows, of both streams, that are gone: the oldest of each. */
uint64_t output_log_dropped(const OutputLog *l, uint16_t attempt);

/* Calls each for every kept chunk of that attempt and of the streams in the mask (1 << EQ_STREAM_*), oldest first. */
void output_log_foreach(const OutputLog *l, uint16_t attempt, unsigned mask,
                        void (*each)(void *userdata, uint8_t stream, const char *data, size_t n), void *userdata);
