/* SPDX-License-Identifier: MIT */
/* `after`: edges from a task to those that it comes after.
 *
 * An edge lives until its target ends. What it says is satisfied then drops it, and the last one lets the owner go; what can
 * never be satisfied cancels the owner with reason deps-never. Chains of those are worked off by a loop (Manager::doomed):
 * a cancel ends a task, whose end may doom the next, and a chain can be as long as a queue. */

#include <errno.h>

#include "base/fault.h"
#include "manager/arrays.h"
#include "manager/parts.h"
#include "manager/shelf.h"

static bool satisfied(DepKind kind, eq_state state) {
        return kind == DEP_ANY || (kind == DEP_OK) == (state == EQ_STATE_DONE);
}

static void dep_free(Dep *d) {
        list_remove(&d->of_owner);
        list_remove(&d->of_target);
        free(d);
}

void deps_drop(TaskRecord *t) {
        if (!t->links)
                return;
        LIST_FOREACH_SAFE (l, &t->links->deps)
                dep_free(LIST_ENTRY(l, Dep, of_owner));
        LIST_FOREACH_SAFE (l, &t->links->dependents)
                dep_free(LIST_ENTRY(l, Dep, of_target));
}

static bool has_deps(const TaskRecord *t) {
        return t->links && !list_is_empty(&t->links->deps);
}

static int add_one(TaskRecord *t, TaskRecord *target, DepKind kind, Refusal *r) {
        if (task_record_finished(target)) {
                if (!satisfied(kind, target->task.state))
                        t->end_note = TASK_NOTE_DEPS; /* ends as CANCELED as soon as it has its id */
                return 0;
        }
        Dep *d = task_links(t) && task_links(target) ? fault_calloc(1, sizeof(*d)) : NULL;
        if (!d)
                return refuse(r, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        d->owner = t;
        d->target = target;
        d->kind = kind;
        list_append(&t->links->deps, &d->of_owner);
        list_append(&target->links->dependents, &d->of_target);
        return 0;
}

static const char *const option_names[] = { [DEP_OK] = "after_ok", [DEP_ANY] = "after_any", [DEP_FAIL] = "after_fail" };

static int add_all(Manager *m, const Caller *caller, TaskRecord *t, EqArray ids, DepKind kind, Refusal *r) {
        EqIdRef id;
        while (eq_next_id(&ids, &id) > 0) {
                TaskRecord *target;
                int e = manager_find_task(m, caller, &id, &target, r);
                if (e == MANAGER_E_READ) /* after manager_look_for_named(): it did not stay */
                        e = refuse(r, EQ_E_STORE, -EAGAIN, "a task that it comes after is still being read; try again");
                if (e >= 0)
                        e = add_one(t, target, kind, r);
                if (e < 0)
                        return refusal_of_field(r, option_names[kind], e);
        }
        return 0;
}

int manager_look_for_named(Manager *m, const Caller *caller, const EqSubmit *s, Refusal *ret_refusal) {
        static const EqArray none;
        EqArray lists[] = { EQ_HAS(s, Submit, after_ok) ? s->after_ok : none,
                            EQ_HAS(s, Submit, after_any) ? s->after_any : none,
                            EQ_HAS(s, Submit, after_fail) ? s->after_fail : none };
        EqIdRef id;
        uint64_t ticket = 0;
        for (size_t i = 0; i < ELEMENTSOF(lists); i++)
                while (eq_next_id(&lists[i], &id) > 0) {
                        TaskRecord *ignored;
                        if (manager_find_task(m, caller, &id, &ignored, ret_refusal) == MANAGER_E_READ)
                                ticket = MAX(ticket, ret_refusal->ticket);
                }
        ret_refusal->ticket = ticket;
        return ticket > 0 ? MANAGER_E_READ : 0;
}

int deps_add(Manager *m, const Caller *caller, TaskRecord *t, const EqSubmit *s, Refusal *r) {
        int e = 0;
        if (EQ_HAS(s, Submit, after_ok))
                e = add_all(m, caller, t, s->after_ok, DEP_OK, r);
        if (e >= 0 && EQ_HAS(s, Submit, after_any))
                e = add_all(m, caller, t, s->after_any, DEP_ANY, r);
        if (e >= 0 && EQ_HAS(s, Submit, after_fail))
                e = add_all(m, caller, t, s->after_fail, DEP_FAIL, r);
        if (has_deps(t) || t->end_note == TASK_NOTE_DEPS)
                t->task.wait |= TASK_WAIT_AFTER;
        return e;
}

static TaskRecord *find(const Manager *m, const EqIdRef *id) {
        EqBytes name;
        uint64_t seq = id->id.seq;
        QueueRecord *q = NULL;
        if (id->text.len > 0) {
                if (eq_id_parse(id->text, &name, &seq) == 0)
                        q = manager_queue(m, name);
        } else {
                Queue *queue = engine_queue(&m->engine, id->id.queue);
                q = queue ? queue_record(queue) : NULL;
        }
        return q ? shelf_find(q, seq) : NULL;
}

static int restore_all(Manager *m, TaskRecord *t, EqArray ids, DepKind kind) {
        Refusal refusal;
        EqIdRef id;
        while (eq_next_id(&ids, &id) > 0) {
                TaskRecord *target = find(m, &id);
                int e = target ? add_one(t, target, kind, &refusal) : 0; /* forgotten: what its end decided is done */
                if (e < 0)
                        return e;
        }
        return 0;
}

/* t comes after nobody any more: it may go, when its turn has come. */
static void lift(TaskRecord *t) {
        if (array_ask(t))
                return;
        if (t->task.where == TASK_NOWHERE)
                t->task.wait &= (uint8_t)~TASK_WAIT_AFTER; /* it is on its way to the disk, and pushed later */
        else
                (void)queue_wait_clear(t->task.queue, &t->task, TASK_WAIT_AFTER); /* it is pending */
}

int deps_restore(Manager *m, TaskRecord *t) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        int e = restore_all(m, t, s.after_ok, DEP_OK);
        if (e >= 0)
                e = restore_all(m, t, s.after_any, DEP_ANY);
        if (e >= 0)
                e = restore_all(m, t, s.after_fail, DEP_FAIL);
        if (e < 0)
                return e;
        if (t->end_note == TASK_NOTE_DEPS)
                (void)queue_cancel(t->task.queue, &t->task); /* pending, as all that is restored */
        else if (!has_deps(t))
                lift(t);
        return 0;
}

const TaskRecord *deps_first(const TaskRecord *t) {
        return has_deps(t) ? LIST_ENTRY(t->links->deps.next, Dep, of_owner)->target : NULL;
}

static const TaskRecord *unmet_of(const Manager *m, EqArray ids, DepKind kind) {
        EqIdRef id;
        while (eq_next_id(&ids, &id) > 0) {
                const TaskRecord *target = find(m, &id);
                if (target && task_record_finished(target) && !satisfied(kind, target->task.state))
                        return target;
        }
        return NULL;
}

const TaskRecord *deps_unmet(const TaskRecord *t, const char **ret_option) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        const EqArray lists[] = { [DEP_OK] = s.after_ok, [DEP_ANY] = s.after_any, [DEP_FAIL] = s.after_fail };
        for (size_t kind = 0; kind < ELEMENTSOF(lists); kind++) {
                const TaskRecord *target = unmet_of(t->queue->manager, lists[kind], (DepKind)kind);
                if (target) {
                        *ret_option = option_names[kind];
                        return target;
                }
        }
        return NULL;
}

static void doom(Manager *m, TaskRecord *t) {
        t->end_note = TASK_NOTE_DEPS;
        if (list_is_empty(&t->links->doomed_link)) /* it had an edge, so it has links */
                list_append(&m->doomed, &t->links->doomed_link);
}

void deps_settle(Manager *m, TaskRecord *t) {
        if (!t->links)
                return;
        LIST_FOREACH_SAFE (l, &t->links->deps) /* it ended itself, and waits for nobody any more */
                dep_free(LIST_ENTRY(l, Dep, of_owner));

        for (List *l; (l = list_first(&t->links->dependents));) {
                Dep *d = LIST_ENTRY(l, Dep, of_target);
                TaskRecord *owner = d->owner;
                bool ok = satisfied(d->kind, t->task.state);
                dep_free(d);
                if (!ok)
                        doom(m, owner);
                else if (!has_deps(owner) && list_is_empty(&owner->links->doomed_link))
                        lift(owner);
        }

        if (m->dooming)
                return;
        m->dooming = true;
        for (List *l; (l = list_first(&m->doomed));) {
                TaskRecord *owner = LIST_ENTRY(l, TaskLinks, doomed_link)->task;
                list_remove(l);
                (void)queue_cancel(owner->task.queue,
                                   &owner->task); /* calls back into here, which only adds to the list */
        }
        m->dooming = false;
}
