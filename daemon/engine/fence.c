/* SPDX-License-Identifier: MIT */
/* The heavy fence: membarrier(), for which the process has to be registered. */

#include "engine/atomics.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool works;

static void set_up(void) {
        works = !fault_hit(FAULT_FENCE) &&
                syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
}

bool heavy_fence_works(void) {
        pthread_once(&once, set_up);
        return works;
}

void heavy_fence(void) {
        (void)syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0); /* registered, so it does not fail */
}
