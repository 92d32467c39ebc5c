/* SPDX-License-Identifier: MIT */
#pragma once

/* Pages of the manual that a build-time program fills in: a line @NAME@ stands for what the program prints for NAME,
 * @VERSION@ is replaced anywhere. */

#include <stdbool.h>
#include <stddef.h>

/* Prints FILE.in. fragment prints what NAME stands for, false: there is none. 0, or -1 after a message of `program`. */
int page_print(const char *program, const char *path, bool (*fragment)(const char *name, size_t len));

/* Text of a table in running text: what roff would take for its own is escaped, and - is a minus, as people type it. */
void page_text(const char *s);
