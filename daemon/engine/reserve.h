/* SPDX-License-Identifier: MIT */
#pragma once

/* Threads that run tasks: how one is made, and one that is made long before it is needed.
 *
 * A Reserve does one thing at a time, when it is told to, and needs nothing more of the system for it: its stack is there,
 * too. */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* The thread takes no signals, which are the host's. 0 or negative errno. Any thread. */
int thread_start(size_t stack_bytes, void *(*main)(void *arg), void *arg, pthread_t *ret);

typedef struct Reserve Reserve;

/* name: of the thread, cut to 15 characters. nice 0: as the creator; refused: as the creator, too. 0, -ENOMEM, -EAGAIN: the
 * system refuses the thread. Waits until that has touched its stack. */
int reserve_new(const char *name, size_t stack_bytes, int nice, Reserve **ret);
/* What it does, it does to the end. Waits for that. NULL is fine; returns NULL. */
Reserve *reserve_free(Reserve *r);
/* It has nothing to do, or is about to return from its last run(). One thread at a time; does not block. */
void reserve_run(Reserve *r, void (*run)(void *arg), void *arg);
