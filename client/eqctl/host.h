/* SPDX-License-Identifier: MIT */
#pragma once

/* The eqd of another machine (--host): a program, ssh(1), whose standard input and output are the connection to it. */

#include <stdbool.h>
#include <sys/types.h>

enum { HOST_URL_MAX = 255 };

typedef struct Host {
        char url[HOST_URL_MAX + 1];     /* as given, for messages; empty: there is none */
        char text[HOST_URL_MAX + 1];    /* what the next three point into */
        const char *user, *name, *port; /* user and port may be NULL */
        pid_t pid;                      /* of the program; 0: none was started */
} Host;

/* ssh://[USER@]HOST[:PORT], an IPv6 address in brackets. 0 or -EINVAL: it is none, or has what ssh, or the shell of a line in its
 * configuration, could take for something else. */
int host_parse(Host *h, const char *url);
/* Starts the program; ignore_int: ^C, which the terminal sends to both, is for eqctl only. *ret_fd: the caller's end of a stream
 * socket. 0 or -errno, that of the start included: then nothing runs. */
int host_start(Host *h, bool ignore_int, int *ret_fd);
/* Ends and reaps it, if it runs. Its end of the connection has been closed, or its errors are still to be read. */
void host_end(Host *h);
const char *host_program(void);
/* The other side: joins standard input and output with a connected socket until that ends, each way by itself: the end of one is
 * passed on, and the other goes on. Bytes are not looked at. 0 or -errno: of the socket, or of standard output. */
int host_join(int fd);
