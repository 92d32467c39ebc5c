/* SPDX-License-Identifier: MIT */
#pragma once

/* Payloads and results as lines, for commands that take one after the other. */

#include "proto/codec.h"

typedef enum LineFormat {
        LINES_NONE,
        LINES_PLAIN,  /* the bytes themselves */
        LINES_BASE64, /* any bytes, padded */
        _LINES_MAX,
} LineFormat;

int lines_format(const char *name, LineFormat *ret); /* 0 or -EINVAL */
/* Longest line, without its newline, of a result of EQ_RESULT_MAX bytes. */
size_t lines_max(LineFormat f);
/* Appends the payload as a line. 0; -EINVAL: plain, and it has a newline before its last byte; -ENOMEM. */
int lines_append(LineFormat f, EqBytes payload, EqBuffer *out);
/* Appends what a line, without its newline, stands for. 0; -EINVAL: it is no base64; -ENOMEM. */
int lines_decode(LineFormat f, EqBytes line, EqBuffer *out);
