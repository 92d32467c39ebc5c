/* SPDX-License-Identifier: MIT */
#include "spawner/spinner.h"

#include <sched.h>

#include "base/util.h"

void spinner_ended(Spinner *s, uint64_t now_usec) {
        s->due = now_usec - s->ended_usec <= SPIN_GAP_USEC;
        s->ended_usec = now_usec;
}

bool spinner_begin(Spinner *s) {
        if (!s->due)
                return false;
        s->due = false;
        if (s->n_skip == 0)
                return true;
        s->n_skip--;
        return false;
}

void spinner_note(Spinner *s, bool hit) {
        s->backoff = hit ? 0 : MIN(2 * s->backoff + 1, (unsigned)SPIN_SKIP_MAX);
        s->n_skip = s->backoff;
}

/* Asked for each time: it changes while we run, and the question costs less than one look. */
bool spinner_has_cpus(void) {
        cpu_set_t set;
        return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}
