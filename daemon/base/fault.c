/* SPDX-License-Identifier: MIT */
/* Counts uses of a resource down to the one that is to fail. */

#include "base/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

atomic_long fault_countdown[_FAULT_MAX];
static atomic_bool fault_sticky[_FAULT_MAX];

static const char *const seam_names[_FAULT_MAX] = {
        [FAULT_ALLOC] = "alloc",   [FAULT_SPAWN] = "spawn",   [FAULT_PIPE] = "pipe",       [FAULT_ACCEPT] = "accept",
        [FAULT_THREAD] = "thread", [FAULT_WORKER] = "worker", [FAULT_EVENTFD] = "eventfd", [FAULT_LOOP] = "loop",
        [FAULT_WRITE] = "write",   [FAULT_SPACE] = "space",   [FAULT_SYNC] = "sync",       [FAULT_DISK] = "disk",
        [FAULT_READ] = "read",     [FAULT_PIDFD] = "pidfd",   [FAULT_SIGNAL] = "signal",   [FAULT_MARK] = "mark",
        [FAULT_SLOW] = "slow",     [FAULT_LOW] = "low",       [FAULT_PEER] = "peer",       [FAULT_FENCE] = "fence",
        [FAULT_REAPED] = "reaped",
};

bool fault_hit_slow(FaultSeam seam) {
        long n = atomic_load(&fault_countdown[seam]);
        do {
                if (n == 0)
                        return false;
                if (n < 0)
                        return true;
        } while (!atomic_compare_exchange_weak(&fault_countdown[seam], &n,
                                               n > 1 ? n - 1 : (atomic_load(&fault_sticky[seam]) ? -1 : 0)));
        return n == 1;
}

void fault_set(FaultSeam seam, long nth, bool all_later) {
        atomic_store(&fault_sticky[seam], all_later);
        atomic_store(&fault_countdown[seam], nth);
}

static int parse_one(const char *spec, size_t len) {
        const char *colon = memchr(spec, ':', len);
        if (!colon)
                return -EINVAL;
        for (int i = 0; i < _FAULT_MAX; i++) {
                if (strlen(seam_names[i]) != (size_t)(colon - spec) ||
                    strncmp(seam_names[i], spec, (size_t)(colon - spec)) != 0)
                        continue;
                char *end;
                long n = strtol(colon + 1, &end, 10);
                if (n <= 0)
                        return -EINVAL;
                fault_set(i, n, *end == '+');
                return 0;
        }
        return -EINVAL;
}

int fault_parse(const char *spec) {
        while (spec && *spec) {
                size_t len = strcspn(spec, ",");
                int r = parse_one(spec, len);
                if (r < 0)
                        return r;
                spec += len + (spec[len] == ',');
        }
        return 0;
}

void *fault_malloc(size_t n) {
        return fault_hit(FAULT_ALLOC) ? NULL : malloc(n);
}

void *fault_calloc(size_t n, size_t size) {
        return fault_hit(FAULT_ALLOC) ? NULL : calloc(n, size);
}

void *fault_realloc(void *p, size_t n) {
        return fault_hit(FAULT_ALLOC) ? NULL : realloc(p, n);
}
