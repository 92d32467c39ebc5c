/* SPDX-License-Identifier: MIT */
/* Pools and what runs in them, as rows: what `eqctl dump` shows when something does not go on. */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/procfs.h"
#include "manager/parts.h"
#include "manager/view.h"

/* What a row refers to. */
typedef struct FlightTexts {
        char process[2];
        ProcfsWhere where;
} FlightTexts;

static void view_flight_where(const Caller *caller, const ProcfsWhere *w, EqInFlight *row, FlightTexts *texts) {
        texts->process[0] = w->state;
        if (w->state)
                EQ_SET(row, InFlight, process, eq_bytes(texts->process, 1));
        if (*w->wchan)
                EQ_SET(row, InFlight, wchan, eq_str(w->wchan));
        if (w->system_call >= 0)
                EQ_SET(row, InFlight, system_call, (uint64_t)w->system_call);
        if (*w->stack && caller->admin) /* the kernel shows it to nobody else */
                EQ_SET(row, InFlight, stack, eq_str(w->stack));
}

static void view_flight_process(const Caller *caller, const TaskRecord *t, const WatchLife *life, EqInFlight *row,
                                FlightTexts *texts) {
        bool rescued;
        uint64_t tid = watch_life_tid(life, &rescued);
        const RemoteWorker *w = queue_has_workers(t->queue) ? remote_worker_of(&t->task) : NULL;
        pid_t command = t->run ? t->run->pid : 0, pid = w ? w->pid : command; /* 0: not known */
        if (rescued || t->task.slot->reserve)
                EQ_SET(row, InFlight, rescued, true);
        if (tid != 0) {
                EQ_SET(row, InFlight, tid, tid);
                procfs_where(getpid(), (pid_t)tid, &texts->where);
        } else if (pid > 0) {
                EQ_SET(row, InFlight, pid, (uint64_t)pid);
                procfs_where(pid, 0, &texts->where);
        } else
                return;
        view_flight_where(caller, &texts->where, row, texts);
        if (command > 0)
                EQ_SET(row, InFlight, cpu_usec, procfs_tree_cpu_usec(pid));
}

/* True: it has begun. */
static bool view_flight_times(uint64_t now, const Slot *slot, const WatchLife *life, EqInFlight *row) {
        uint64_t begun = life ? WATCH_GET(life->begun_usec) : slot->started_usec;
        if (begun == 0)
                EQ_SET(row, InFlight, claimed_usec, now - slot->started_usec);
        else
                EQ_SET(row, InFlight, run_usec, now > begun ? now - begun : 0);
        return begun != 0;
}

static void view_flight(const Manager *m, const Caller *caller, const Slot *slot, EqInFlight *row, FlightTexts *texts) {
        const TaskRecord *t = task_record(slot->task);
        const WatchLife *life = WATCH_GET(slot->watch->life); /* written by this thread */
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        *row = (EqInFlight) { 0 };
        EQ_SET(row, InFlight, id, (EqIdRef) { .id = task_record_id(t) });
        EQ_SET(row, InFlight, queue, eq_str(t->queue->queue->name));
        EQ_SET(row, InFlight, pool, eq_str(slot->pool->name));
        EQ_SET(row, InFlight, slot, slot->index);
        EQ_SET(row, InFlight, uid, t->spec.identity->uid);
        EQ_SET(row, InFlight, attempt, t->task.attempt);
        if (EQ_HAS(&s, Submit, label))
                EQ_SET(row, InFlight, label, s.label);
        if (EQ_HAS(&s, Submit, argv))
                EQ_SET(row, InFlight, argv, s.argv);
        if (!view_flight_times(clock_monotonic(m->clock), slot, life, row))
                return;
        view_flight_process(caller, t, life, row, texts);
}

static bool may_see(const Caller *caller, const QueueRecord *q, const Slot *slot) {
        if (!slot->task)
                return false;
        const TaskRecord *t = task_record(slot->task);
        return (!q || t->queue == q) && (caller->admin || t->spec.identity->uid == caller->identity->uid);
}

typedef struct FlightPage {
        const Manager *m;
        const Caller *caller;
        const QueueRecord *q; /* NULL: of all */
        uint64_t skip, limit;
        void (*each)(void *userdata, const EqInFlight *row);
        void *userdata;
} FlightPage;

static void offer(FlightPage *page, const Slot *slot) {
        EqInFlight row;
        FlightTexts texts = { 0 };
        if (page->limit == 0 || !may_see(page->caller, page->q, slot))
                return;
        if (page->skip > 0) {
                page->skip--;
                return;
        }
        view_flight(page->m, page->caller, slot, &row, &texts);
        page->each(page->userdata, &row);
        page->limit--;
}

void view_in_flight(const Manager *m, const Caller *caller, const QueueRecord *q, uint64_t skip, uint64_t limit,
                    void (*each)(void *userdata, const EqInFlight *row), void *userdata) {
        FlightPage page = { m, caller, q, skip, limit, each, userdata };
        LIST_FOREACH (link, &m->engine.pools) {
                const Pool *p = LIST_ENTRY(link, Pool, link);
                for (size_t i = 0; i < p->n_slots; i++)
                        offer(&page, p->slots[i]);
        }
        LIST_FOREACH (link, &m->engine.rescuers)
                offer(&page, &LIST_ENTRY(link, Rescuer, link)->slot);
}
