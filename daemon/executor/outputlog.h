/* SPDX-License-Identifier: MIT */
#pragma once

/* Output of one attempt: both streams in the order in which they were read, tagged, the last EQ_LOG_TAIL bytes of each
 * stream. Grows with what is written, never above twice that and a little; empty ones cost a few words. Loop. */

#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "proto/eq-types.h"

typedef struct OutputLog {
        List chunks;         /* of OutputBlock, private; oldest first */
        size_t n_kept[3];    /* by stream */
        uint64_t n_total[3]; /* ever written, by stream */
        uint64_t n_dropped;  /* at the front */
} OutputLog;

void output_log_init(OutputLog *l);
void output_log_deinit(OutputLog *l); /* also resets: may be used again after output_log_init() */
int output_log_append(OutputLog *l, uint8_t stream, const char *data, size_t n); /* 0 or -ENOMEM: counted as dropped */
/* Calls each for every kept chunk of the streams in the mask (1 << EQ_STREAM_*), oldest first. */
void output_log_foreach(const OutputLog *l, unsigned mask,
                        void (*each)(void *userdata, uint8_t stream, const char *data, size_t n), void *userdata);
