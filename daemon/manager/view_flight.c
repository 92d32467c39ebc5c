/* SPDX-License-Identifier: MIT */
/* Pools and what runs in them, as rows: what `eqctl dump` shows when something does not go on. */

#include <stdio.h>
#include <string.h>

#include "base/procfs.h"
#include "manager/view.h"

typedef struct FlightTexts {
        char process[2], wchan[64];
} FlightTexts;

static void view_flight_process(const TaskRecord *t, EqInFlight *row, FlightTexts *texts) {
        pid_t pid = t->run ? t->run->pid : 0;
        if (pid <= 0)
                return;
        EQ_SET(row, InFlight, pid, (uint64_t)pid);
        texts->process[0] = procfs_state(pid, texts->wchan, sizeof(texts->wchan));
        if (texts->process[0])
                EQ_SET(row, InFlight, process, eq_bytes(texts->process, 1));
        if (*texts->wchan)
                EQ_SET(row, InFlight, wchan, eq_str(texts->wchan));
        EQ_SET(row, InFlight, cpu_usec, procfs_tree_cpu_usec(pid));
}

static void view_flight(const Manager *m, const Slot *slot, EqInFlight *row, FlightTexts *texts) {
        const TaskRecord *t = task_record(slot->task);
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        *row = (EqInFlight) { 0 };
        EQ_SET(row, InFlight, id, (EqIdRef) { .id = task_record_id(t) });
        EQ_SET(row, InFlight, queue, eq_str(t->queue->queue->name));
        EQ_SET(row, InFlight, pool, eq_str(slot->pool->name));
        EQ_SET(row, InFlight, slot, slot->index);
        EQ_SET(row, InFlight, run_usec, clock_monotonic(m->clock) - slot->started_usec);
        EQ_SET(row, InFlight, uid, t->spec.identity->uid);
        EQ_SET(row, InFlight, attempt, t->task.attempt);
        if (EQ_HAS(&s, Submit, label))
                EQ_SET(row, InFlight, label, s.label);
        if (EQ_HAS(&s, Submit, argv))
                EQ_SET(row, InFlight, argv, s.argv);
        view_flight_process(t, row, texts);
}

static bool may_see(const Caller *caller, const QueueRecord *q, const Slot *slot) {
        if (!slot->task)
                return false;
        const TaskRecord *t = task_record(slot->task);
        return (!q || t->queue == q) && (caller->admin || t->spec.identity->uid == caller->identity->uid);
}

void view_in_flight(const Manager *m, const Caller *caller, const QueueRecord *q, uint64_t skip, uint64_t limit,
                    void (*each)(void *userdata, const EqInFlight *row), void *userdata) {
        LIST_FOREACH (link, &m->engine.pools) {
                const Pool *p = LIST_ENTRY(link, Pool, link);
                for (size_t i = 0; i < p->n_slots && limit > 0; i++) {
                        EqInFlight row;
                        FlightTexts texts = { 0 };
                        if (!may_see(caller, q, p->slots[i]))
                                continue;
                        if (skip > 0) {
                                skip--;
                                continue;
                        }
                        view_flight(m, p->slots[i], &row, &texts);
                        each(userdata, &row);
                        limit--;
                }
        }
}
