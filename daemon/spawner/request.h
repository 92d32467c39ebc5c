/* SPDX-License-Identifier: MIT */
#pragma once

/* Requests to start a command: takes them from a line, checks every count, flag and string before anything is done with
 * them, hands them on. Nothing here blocks unless it says so. */

#include <stddef.h>

#include "base/fdpass.h"
#include "spawner/wire.h"

enum { REQUEST_POINTERS_PLAIN = 256 }; /* argv and environment, each with its NULL */

/* Where a message of the line is received. */
typedef struct Inbox {
        union { /* both begin with a SpawnHeader */
                SpawnStart start;
                SpawnSignal signal;
                SpawnStock stock;
                SpawnReserve reserve;
        };
        char strings[SPAWN_INLINE_MAX];
} Inbox;

typedef struct Request {
        const SpawnStart *start; /* these two point into the inbox, */
        const char *strings;
        size_t n_strings;
        FdpassMessage message;
        char *copied; /* or the strings here, if they came in a memfd; owned */
} Request;

/* Memory for one, zero in every process that is forked later, or NULL: what stands in it is nobody else's business. */
Inbox *inbox_new(void);
void inbox_free(Inbox *inbox); /* NULL is fine */

/* The next message. With `wait` it blocks. 0 or negative errno; message.n is 0 when the other end is closed. */
int request_receive(int line, Inbox *inbox, bool wait, Request *ret);
/* Of a SPAWN_START: gets the strings and checks all of it. After 0 its fields can be relied on. 0, -EINVAL, -ENOMEM. */
int request_open(Request *q);
/* Of one that was opened: it asks for no memory beyond REQUEST_POINTERS_PLAIN, and for no file to be opened. */
bool request_is_plain(const Request *q);
/* Sends it on as it came. 0 or negative errno, -EAGAIN: full. */
int request_forward(int line, const Request *q);
void request_close(Request *q); /* descriptors and memory; repeatable */

/* strings: m->n_strings bytes that came inline or from a memfd. n_fds: descriptors that came along. 0, or -EINVAL. */
int request_check_start(const SpawnStart *m, const char *strings, size_t n_strings, unsigned n_fds);

/* Is what is before the strings sane enough to look for them? 0 or -EINVAL. */
int request_check_counts(const SpawnStart *m);

/* The environment string that starts with `prefix`, or NULL. For checked requests. */
const char *request_find_env(const SpawnStart *m, const char *strings, const char *prefix);
