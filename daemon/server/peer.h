/* SPDX-License-Identifier: MIT */
#pragma once

/* The process that opened a connection, watched by a pidfd: a child of it may hold the connection open when it is long gone. Loop;
 * nothing blocks. */

#include <stdint.h>
#include <sys/types.h>

#include <uv.h>

enum { PEER_E_ENDED = 1 }; /* it has ended already */

typedef struct PeerWatch PeerWatch;

/* `ended` is called once, from the loop. pid: as its credentials say, 0: not known; accepted_usec: CLOCK_BOOTTIME when they were
 * taken, or before. Both count only where the kernel gives no pidfd of a peer (before Linux 6.5). 0; PEER_E_ENDED; or negative errno:
 * it cannot be watched, since it is hidden or there is no descriptor left. */
int peer_watch_new(uv_loop_t *loop, int socket_fd, pid_t pid, uint64_t accepted_usec, void (*ended)(void *userdata),
                   void *userdata, PeerWatch **ret);
/* Its memory goes when the loop has let go of the handle. Returns NULL; NULL is fine. */
PeerWatch *peer_watch_free(PeerWatch *w);
