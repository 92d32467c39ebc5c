/* SPDX-License-Identifier: MIT */
#pragma once

/* The outgoing side of a session: one message at a time is packed behind what is unsent, then kept or rolled back. What
 * is kept is charged to the user. A buffer exists only while something is unsent. Loop; nothing blocks, and nothing here
 * closes a session or calls a hook: callers may be in the middle of anything. */

#include "server/session.h"

static inline size_t output_pending(const Session *s) { /* bytes not sent */
        return s->out.buffer.len - s->out.used;
}

/* Room for n bytes. 0 or -ENOMEM. */
int output_reserve(Session *s, size_t n);

/* A packer for one message. Between begin and end nothing else may be written. */
msgpack_packer output_begin(Session *s);
/* 0: complete. -EMSGSIZE (over EQ_MESSAGE_MAX), -ENOMEM: rolled back. */
int output_end(Session *s);
void output_roll_back(Session *s, size_t start); /* also instead of output_end() */

/* fd, which is taken over, goes along with the first byte of the message that begins at `start` of the buffer, the last one
 * in it. There is room (session_has_out_fd_room()). */
void output_attach_fd(Session *s, size_t start, int fd);

/* Charges what is unsent. False: over the user's limit. */
bool output_charge(Session *s);
/* Keeps a message that must not be lost: if the user has no memory for it left, sends at once what the socket takes, and
 * if that is not enough, the session is doomed. */
void output_keep(Session *s);

/* From byte `from` of the output stream on, not sent yet, nothing is sent before the store is durable up to `until`. If that will
 * never be, the session is doomed. */
void output_hold(Session *s, uint64_t from, uint64_t until);
/* Bytes that may be sent now. */
size_t output_sendable(const Session *s);
void output_release(Session *s); /* forgets the holds that are over */

/* Sends what the socket takes, in one go. 0 or negative errno: nobody reads any more. */
int output_send(Session *s);

void output_discard(Session *s);

/* An answer is owed and cannot be given: the session is closed when the turn ends. */
void output_doom(Session *s, const char *why);
