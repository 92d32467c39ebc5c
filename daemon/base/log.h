/* SPDX-License-Identifier: MIT */
#pragma once

/* Records for the journal, or standard error where there is none. Written by a thread of its own behind a bounded queue:
 * the journal can block, its callers never do; what does not fit is counted and reported by the next record that does.
 *
 * Lower floors log at LOG_DEBUG only; `server` and main.c log an error, once. */

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "base/util.h"

/* Starts the thread. max_level: LOG_DEBUG.. Into the journal if standard error is connected to it: JOURNAL_STREAM names the
 * very file. Else to standard error, with the priority as <N> before each line where that is no terminal, as service
 * managers and containers read it. 0 or negative errno. Before it, and after log_stop(), records are written directly.
 * Main thread. */
int log_start(int max_level);
bool log_flush(uint64_t usec);     /* waits until what is queued was written; false: not in that time. Not the loop */
void log_stop(void);               /* writes what is queued, for at most a second. Main thread */
void log_set_level(int max_level); /* any thread */
bool log_wants(int level);         /* would a record of that level be written? Any thread */

/* Any thread, never blocks, keeps errno. */
void log_write(int level, const char *fmt, ...) _printf_(2, 3);
/* n strings KEY=value beside the message, for the journal; base/event.h makes them. */
void log_write_fields(int level, const char *const *fields, unsigned n, const char *fmt, ...) _printf_(4, 5);
uint64_t log_dropped(void); /* any thread */
bool log_is_journal(void);  /* is that where records go? Since log_start(); any thread */

/* What is more than that is an event: base/event.h. */
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
