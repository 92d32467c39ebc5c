/* SPDX-License-Identifier: MIT */
#pragma once

/* send(2) and recvmsg(2) that do not wait, as system calls and nothing else. Those of the C library are cancellation points: with
 * threads in the process each enters and leaves that state by two locked instructions, which is more than the rest of what they
 * do, and no thread of eqd is ever canceled. Any thread. */

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

/* As send() and recvmsg(): -1, and errno. A peer that is gone is EPIPE and no signal; received descriptors are close-on-exec. */
ssize_t nowait_send(int fd, const void *data, size_t n);
ssize_t nowait_receive(int fd, struct msghdr *m);
