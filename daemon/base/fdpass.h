/* SPDX-License-Identifier: MIT */
#pragma once

/* A message with descriptors over a Unix socket, as the two programs of the daemon say things to each other. Any thread;
 * sending never blocks. */

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

enum { FDPASS_MAX = 4 };

/* fds: not taken over, at most FDPASS_MAX. 0 or negative errno; -EAGAIN: the line is full, try later. */
int fdpass_send(int socket, const struct iovec *iov, size_t n_iov, const int *fds, unsigned n_fds);

typedef struct FdpassMessage {
        size_t n; /* bytes; 0: the other end is closed */
        int fds[FDPASS_MAX];
        unsigned n_fds; /* close-on-exec; the receiver's to close, see fdpass_close() */
        bool cut;       /* bytes or descriptors did not fit and are lost */
} FdpassMessage;

/* Waits for a message if the socket is a blocking one and `wait` is set. 0 or negative errno; -EAGAIN: nothing there. */
int fdpass_receive(int socket, void *buf, size_t size, bool wait, FdpassMessage *ret);
void fdpass_close(FdpassMessage *m); /* what came with it; repeatable */
