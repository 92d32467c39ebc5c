/* SPDX-License-Identifier: MIT */
#pragma once

/* The listening socket and its file: made without a moment in which it has the wrong mode or nobody behind it, and removed
 * only if it is still ours. Main thread, at start and end; does not block. */

#include <stddef.h>
#include <sys/types.h>

enum { LISTENER_PATH_MAX = 107 }; /* of sockaddr_un, without the terminating 0 */

typedef struct Listener {
        int fd;
        char *path; /* owned; NULL: came from outside, not ours to remove */
        dev_t dev;  /* of the socket file that we made */
        ino_t ino;
} Listener;
#define LISTENER_NULL                                                                                                  \
        { .fd = -1 }

/* Listens at `path`. A stale socket file there is replaced; a socket that answers, or anything that is no socket, is left
 * alone. mode, group: of the file; (gid_t)-1: group left alone. 0 or negative errno, and then *ret_error (of error_size
 * bytes) says what is wrong and what to do: -EADDRINUSE a living eqd, -EEXIST no socket, -ENAMETOOLONG, -ENOENT no such
 * directory, -EACCES, ... */
int listener_open(const char *path, mode_t mode, gid_t group, char *ret_error, size_t error_size, Listener *ret);

/* Takes fd over, on success only. -EINVAL: no listening AF_UNIX stream socket. */
int listener_adopt(int fd, char *ret_error, size_t error_size, Listener *ret);

/* Closes; removes the file if it is still the one that listener_open() made. May be repeated. */
void listener_close(Listener *l);
