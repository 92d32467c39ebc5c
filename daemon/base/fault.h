/* SPDX-License-Identifier: MIT */
#pragma once

/* One seam per resource, through which tests make it fail. In the daemon every seam is closed and costs one load.
 *
 * A seam fails the n-th use from now and, if asked, all later ones. Settings are process-wide; tests run one per
 * process. The environment EQD_FAULT="alloc:100,spawn:3+" opens seams of a started eqd (n-th; + all later), but only in
 * builds with -Dtests=true. */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum FaultSeam {
        FAULT_ALLOC,   /* -ENOMEM */
        FAULT_SPAWN,   /* -EAGAIN from fork */
        FAULT_PIPE,    /* -EMFILE: pipes, memfds, sockets */
        FAULT_ACCEPT,  /* -EMFILE from accept */
        FAULT_THREAD,  /* -EAGAIN: no thread for a part of eqd */
        FAULT_WORKER,  /* -EAGAIN: no thread for a pool */
        FAULT_EVENTFD, /* -EMFILE: eventfds */
        FAULT_LOOP,    /* the loop stands still for good when it is asked for a sign of life */
        FAULT_WRITE,   /* -EIO from writing to a file of the store */
        FAULT_SPACE,   /* -ENOSPC from making one larger */
        FAULT_SYNC,    /* -EIO from fdatasync and fsync */
        FAULT_DISK,    /* fdatasync of a batch of the store stands still for good */
        FAULT_READ,    /* -EIO from reading a file of the store */
        FAULT_PIDFD,   /* -EMFILE from pidfd_open */
        FAULT_PEER,    /* -ENOPROTOOPT: the kernel gives no pidfd of a peer */
        FAULT_REAPED,  /* -EINVAL: ... of a peer that has ended and was waited for */
        FAULT_SIGNAL,  /* -EPERM from pidfd_send_signal */
        FAULT_MARK,    /* there is no free mark of a running task */
        FAULT_SLOW,    /* reading a segment of the store at the start takes a second longer */
        FAULT_LOW,     /* the file system of the store says that it has no space left */
        FAULT_FENCE,   /* the kernel has no membarrier(); asked for once in a process */
        _FAULT_MAX,
} FaultSeam;

extern atomic_long fault_countdown[_FAULT_MAX]; /* 0: closed; n: the n-th use fails; -1: every use fails */

bool fault_hit_slow(FaultSeam seam);
void fault_set(FaultSeam seam, long nth, bool all_later); /* nth 0: close */
int fault_parse(const char *spec);                        /* EQD_FAULT; NULL is fine. 0 or -EINVAL */

static inline bool fault_hit(FaultSeam seam) { /* any thread, never blocks */
        return atomic_load_explicit(&fault_countdown[seam], memory_order_relaxed) != 0 && fault_hit_slow(seam);
}

void *fault_malloc(size_t n);
void *fault_calloc(size_t n, size_t size);
void *fault_realloc(void *p, size_t n);
