/* SPDX-License-Identifier: MIT */
#pragma once

/* One socket to eqd as two byte streams: messages waiting to be sent, with the descriptors that go along, and bytes
 * received, cut into messages. Knows nothing of calls. Never blocks after connection_open(). One thread at a time. */

#include "proto/codec.h"
#include "proto/scan.h"

/* Descriptors that travel with the byte at `at` of Connection::out. Owned until they are sent. */
typedef struct FdSet {
        size_t at;
        unsigned n;
        int fds[EQ_FDS_MAX];
} FdSet;

typedef struct Connection {
        int fd;
        bool write_closed; /* eqd reads no more, but may still have something to say */
        EqBuffer out;      /* [out_pos, len) is to be sent; append messages at the end */
        size_t out_pos;
        FdSet *fd_sets; /* in order of `at` */
        size_t n_fd_sets, cap_fd_sets;
        EqBuffer in; /* [in_pos, len) was received and not taken */
        size_t in_pos;
        EqScan scan; /* of the message that starts at in_pos */
} Connection;
#define CONNECTION_NULL                                                                                                \
        { .fd = -1 }

/* 0, or the errno of socket(2) and connect(2); -ENAMETOOLONG. */
int connection_open(Connection *c, const char *path);
void connection_deinit(Connection *c); /* closes, frees; leaves CONNECTION_NULL */

/* The next byte appended to `out` takes duplicates of these descriptors along. 0 or -errno. */
int connection_attach_fds(Connection *c, const int *fds, unsigned n_fds);
/* Forgets everything appended to `out` from offset `len` on. */
void connection_truncate(Connection *c, size_t len);
static inline bool connection_has_output(const Connection *c) {
        return c->out_pos < c->out.len && !c->write_closed;
}
/* Sends what the socket takes. 1: more is left, 0: nothing is left, -errno: broken. A peer that has shut down its reading
 * side is not broken: what is to be sent is dropped, and the end shows when everything was received. */
int connection_flush(Connection *c);

/* Receives once. 1: got something, 0: nothing there, -ECONNRESET: end, -errno. */
int connection_receive(Connection *c);
/* The next whole message; lives until connection_receive(). 1: *ret set, 0: none, -EBADMSG: it is none. */
int connection_next(Connection *c, EqBytes *ret);
