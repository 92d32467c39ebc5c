/* SPDX-License-Identifier: MIT */
#pragma once

/* One socket to eqd as two byte streams: messages waiting to be sent, with the descriptors that go along, and bytes
 * received, cut into messages. Knows nothing of calls. Never blocks but in connection_open(). One thread at a time. */

#include "proto/codec.h"
#include "proto/scan.h"

/* Descriptors that travel with the byte at `at` of Connection::out; nothing from `end` on is sent in the same call, since
 * eqd gives them to the message that holds the last byte of what came with them. Owned until they are sent. */
typedef struct FdSet {
        size_t at, end;
        unsigned n;
        int fds[EQ_FDS_MAX];
} FdSet;

/* More than eqd sends before it has answers; what comes beyond is closed. */
enum { CONNECTION_IN_FDS_MAX = 32 };

typedef struct Connection {
        int fd;
        bool write_closed; /* eqd reads no more, but may still have something to say */
        EqBuffer out;      /* [out_pos, len) is to be sent; append messages at the end */
        size_t out_pos;
        uint64_t n_sent; /* bytes, ever */
        FdSet *fd_sets;  /* in order of `at` */
        size_t n_fd_sets, cap_fd_sets;
        EqBuffer in; /* [in_pos, len) was received and not taken */
        size_t in_pos;
        EqScan scan; /* of the message that starts at in_pos */
        int in_fds
                [CONNECTION_IN_FDS_MAX]; /* received and not taken, in order; owned. -1: there was no descriptor free */
        unsigned n_in_fds;
} Connection;
#define CONNECTION_NULL                                                                                                \
        { .fd = -1 }

/* wait: for an eqd that is slow to accept, else -EAGAIN. 0, or the errno of socket(2) and connect(2); -ENAMETOOLONG. */
int connection_open(Connection *c, const char *path, bool wait);
/* The same of a stream socket that is connected already: owned from now on. On -errno it is as before, still the caller's. */
int connection_adopt(Connection *c, int fd);
void connection_deinit(Connection *c); /* closes, frees; leaves CONNECTION_NULL */

/* The next byte appended to `out` takes duplicates of these descriptors along. 0 or -errno. */
int connection_attach_fds(Connection *c, const int *fds, unsigned n_fds);
void connection_end_message(Connection *c); /* what was appended is a whole message */
/* Forgets everything appended to `out` from offset `len` on. */
void connection_truncate(Connection *c, size_t len);
static inline bool connection_has_output(const Connection *c) {
        return c->out_pos < c->out.len && !c->write_closed;
}
/* What is at offset `at` of `out`, as a number of bytes from the beginning of the connection. */
static inline uint64_t connection_position(const Connection *c, size_t at) {
        return c->n_sent - c->out_pos + at;
}
/* Sends what the socket takes. 1: more is left, 0: nothing is left, -errno: broken. A peer that has shut down its reading
 * side is not broken: what is to be sent is dropped, and the end shows when everything was received. */
int connection_flush(Connection *c);

/* Receives once. 1: got something, 0: nothing there, -ECONNRESET: end, -errno. */
int connection_receive(Connection *c);
/* The oldest descriptor that was received; the caller's. -EBADF: none came; -EMFILE: it came, and this process had no room. */
int connection_take_fd(Connection *c);
/* The next whole message; lives until connection_receive(). 1: *ret set, 0: none, -EBADMSG: it is none. */
int connection_next(Connection *c, EqBytes *ret);
