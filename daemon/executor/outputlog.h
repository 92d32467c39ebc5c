/* SPDX-License-Identifier: MIT */
#pragma once

/* Output of one attempt: both streams in the order in which they were read, tagged, the last EQ_LOG_TAIL bytes of each
 * stream. Grows with what is written; never above four times EQ_LOG_TAIL, and that only for streams that alternate byte
 * by byte. Empty ones cost a few words. May be moved by memcpy(). Loop. */

#include <stddef.h>
#include <stdint.h>

#include "proto/eq-types.h"

/* The last bytes of a stream; allocated when the first one comes. Private. */
typedef struct OutputRing {
        char *data;
        uint32_t cap, head, len;
} OutputRing;

typedef struct OutputLog {
        OutputRing rings[3];  /* by stream */
        OutputRing order;     /* which stream came when, see outputlog.c */
        uint64_t order_at[3]; /* by stream: position of the oldest byte that `order` speaks of */
        uint64_t last_len;    /* of the newest run, which is not in `order` yet */
        uint8_t last_stream;
        uint64_t n_total[3]; /* ever written, by stream */
        uint64_t n_dropped;  /* of both, no longer here */
} OutputLog;

void output_log_init(OutputLog *l);
void output_log_deinit(OutputLog *l); /* also resets: may be used again at once */

/* stream: EQ_STREAM_*. 0, or -ENOMEM: something was dropped that should have been kept. */
int output_log_append(OutputLog *l, uint8_t stream, const char *data, size_t n);

/* Bytes of the stream that are kept. */
static inline size_t output_log_kept(const OutputLog *l, uint8_t stream) {
        return l->rings[stream].len;
}

/* Calls each for every kept chunk of the streams in the mask (1 << EQ_STREAM_*), oldest first. */
void output_log_foreach(const OutputLog *l, unsigned mask,
                        void (*each)(void *userdata, uint8_t stream, const char *data, size_t n), void *userdata);
