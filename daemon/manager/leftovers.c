/* SPDX-License-Identifier: MIT */
#include "manager/leftovers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fault.h"
#include "executor/leftover.h"
#include "store/store.h"

/* A spawner ends when its eqd does, as soon as it has killed what ran. */
#define SPAWNER_PATIENCE_USEC (3 * USEC_PER_SEC)
#define BOUND_USEC (10 * USEC_PER_SEC)

struct Leftovers {
        StoreLeftovers stored;
        Leftover *all; /* as stored.runs */
};

static void wait_for_spawner(const StoreProcess *p) {
        uint64_t began = clock_monotonic(&clock_system);
        for (int i = 0; i < STORE_SPAWNER; i++) {
                uint64_t waited = clock_monotonic(&clock_system) - began;
                uint64_t patience = waited < SPAWNER_PATIENCE_USEC ? SPAWNER_PATIENCE_USEC - waited : 0;
                int r = p[i].pid > 0 ? leftover_wait(p[i].pid, p[i].start_ticks, patience, BOUND_USEC) : 0;
                if (r < 0)
                        log_event(LEFTOVERS_UNKNOWN, (.pid = (uint64_t)p[i].pid, .error = strerror(-r)), strerror(-r));
        }
}

static int end_all(Leftovers *l) {
        const StoreLeftovers *s = &l->stored;
        if (s->n == 0)
                return 0;
        l->all = fault_calloc(s->n, sizeof(*l->all));
        if (!l->all)
                return -ENOMEM;
        for (size_t i = 0; i < s->n; i++)
                l->all[i] = (Leftover) {
                        .pid = s->runs[i].process.pid,
                        .start_ticks = s->runs[i].process.start_ticks,
                        .seq = s->runs[i].seq,
                        .attempt = s->runs[i].attempt,
                };
        return leftovers_kill(l->all, s->n, BOUND_USEC);
}

Leftovers *leftovers_end(const char *store_dir) {
        Leftovers *l = fault_calloc(1, sizeof(*l));
        int r = l ? store_leftovers(store_dir, NULL, &l->stored) : -ENOMEM;
        if (r == -EBADMSG || r == -EPROTONOSUPPORT) /* opening the store will say more */
                return leftovers_free(l);
        if (r >= 0) {
                wait_for_spawner(l->stored.spawner);
                r = end_all(l);
        }
        if (r >= 0 && l->all)
                return l;
        if (r < 0)
                log_event(LEFTOVERS_UNKNOWN, (.error = strerror(-r)), strerror(-r));
        return leftovers_free(l);
}

static void tell(const Engine *e, const StoreLeftover *s, const Leftover *l) {
        const Queue *q = engine_queue(e, s->queue);
        char task[64];
        (void)snprintf(task, sizeof(task), "%s/%" PRIu64, q ? q->name : "?", s->seq); /* ?: it is gone */
        EventFields fields = { .queue = q ? q->name : NULL, .task = task, .pid = (uint64_t)l->pid };
        switch (l->fate) {
        case LEFTOVER_NONE:
                break;
        case LEFTOVER_KILLED:
                log_event_fields(LEFTOVER_KILLED, &fields, task, l->attempt, l->n_killed);
                break;
        case LEFTOVER_ANOTHER:
                fields.error = "that number is another process by now";
                log_event_fields(LEFTOVER_ALONE, &fields, task, l->attempt, (int)l->pid, fields.error);
                break;
        case LEFTOVER_UNPROVEN:
                fields.error = "it has ended, and nobody of its session can be seen to belong to the task";
                log_event_fields(LEFTOVER_ALONE, &fields, task, l->attempt, (int)l->pid, fields.error);
                break;
        case LEFTOVER_ALIVE:
                fields.error = l->error == -EDEADLK ? "this eqd is one of them" : strerror(-l->error);
                log_event_fields(LEFTOVER_ALIVE, &fields, task, l->attempt, (int)l->pid, fields.error);
                break;
        }
}

void leftovers_tell(const Leftovers *l, const Engine *e) {
        for (size_t i = 0; i < l->stored.n; i++)
                tell(e, &l->stored.runs[i], &l->all[i]);
}

Leftovers *leftovers_free(Leftovers *l) {
        if (!l)
                return NULL;
        free(l->stored.runs);
        free(l->all);
        free(l);
        return NULL;
}
