/* SPDX-License-Identifier: MIT */
#pragma once

/* Payloads that travel as a descriptor: a memfd whose bytes and size can change no more, because it is sealed against
 * writing, shrinking and growing. So whoever receives it may look at it as often as he likes. Any thread. */

#include <stddef.h>

#include "schema.h"

/* A sealed memfd with these bytes. 0 or -errno; *ret_fd is the caller's. */
int eq_memfd_new(EqBytes data, int *ret_fd);
/* The size of a received one. -EINVAL: no memfd; -EPERM: a seal is missing; -errno. */
int eq_memfd_size(int fd, size_t *ret);
/* Its first n bytes, whatever its file position; n is at most its size. 0; -EIO: it has less; -errno. */
int eq_memfd_read(int fd, void *buf, size_t n);
