/* SPDX-License-Identifier: MIT */
#pragma once

/* Text for terminals, files and machines: escaping, widths, quoting. Everything appends to an EqBuffer; a failed
 * allocation is kept in buffer->failed, to be looked at once at the end. */

#include "proto/codec.h"

void text_printf(EqBuffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_cstr(EqBuffer *b, const char *s);
void text_bytes(EqBuffer *b, EqBytes s);
const char *text_end(EqBuffer *b); /* terminates (not counted in len) and returns it; "" after a failed allocation */

/* The next character of [*p, end): 1 and *ret; 0: the byte at *p starts no valid character (it is skipped). */
int utf8_next(const char **p, const char *end, uint32_t *ret);
bool utf8_valid(EqBytes s);

/* For people: control characters, bytes that are no UTF-8 and characters that reorder text become \n, \x1b, \u202e. */
void text_escaped(EqBuffer *b, EqBytes s);
/* For tsv: the same, and a backslash is doubled, so that it can be undone. */
void text_tsv(EqBuffer *b, EqBytes s);
/* One argument of a command, quoted for a shell where it needs that, and escaped. */
void text_quoted(EqBuffer *b, EqBytes s);

unsigned text_width(EqBytes s); /* columns on a terminal; s is escaped text */
/* The longest start of s that fits, "..." included where something was cut. */
void text_cut(EqBuffer *b, EqBytes s, unsigned columns);
