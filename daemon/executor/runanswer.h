/* SPDX-License-Identifier: MIT */
#pragma once

/* What a worker's response to `run` means: bytes from outside, made into the end of an attempt. Pure; any thread. */

#include "engine/executor.h"
#include "proto/codec.h"

typedef struct RunAnswer {
        TaskVerdict verdict; /* OK, BAD, RETURNED, or LOST: it speaks of another attempt */
        eq_error refused;    /* not NONE: it is none, and `text` says why; the attempt ends all the same */
        bool final;
        bool says_when; /* BAD, RETURNED: retry_after_usec holds */
        int exit;       /* -1: none */
        uint64_t retry_after_usec;
        EqBytes result, text; /* slices of the response, or of `why` */
        char why[200];
        EqErrorDetails details; /* with `refused`: what is wrong, for programs */
} RunAnswer;

/* error, result: encoded values. attempt: of the request. */
void run_answer_parse(EqBytes error, EqBytes result, uint16_t attempt, RunAnswer *ret);
