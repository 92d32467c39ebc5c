/* SPDX-License-Identifier: MIT */
/* Which tasks `list` shows, in which order. Nothing here changes anything, but for the mark of the latest finished tasks. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "manager/parts.h"
#include "manager/shelf.h"
#include "manager/view.h"

static bool matches(const Caller *caller, const ListFilter *f, const TaskRecord *t) {
        const EqList *a = f->args;
        if (!caller->admin && t->spec.identity->uid != caller->identity->uid)
                return false;
        if (f->queue && t->queue != f->queue)
                return false;
        if (f->states && !(f->states & (1U << task_record_state(t))))
                return false;
        if (EQ_HAS(a, List, uid) && t->spec.identity->uid != a->uid)
                return false;
        if (EQ_HAS(a, List, since_usec) && t->spec.submitted_usec < a->since_usec)
                return false;
        if (!EQ_HAS(a, List, label))
                return true;
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        return EQ_HAS(&s, Submit, label) && eq_bytes_eq(s.label, a->label);
}

/* Marks the latest finished tasks that match, so that the walk in order can show just those. */
static void mark_recent(Manager *m, const Caller *caller, const ListFilter *f, bool mark) {
        uint64_t left = f->args->finished;
        for (List *l = m->recent.prev; left > 0 && l != &m->recent; l = l->prev) {
                TaskRecord *t = LIST_ENTRY(l, TaskRecord, recent_link);
                if (!matches(caller, f, t))
                        continue;
                t->shown = mark;
                left--;
        }
}

static int by_name(const void *a, const void *b) {
        const QueueRecord *x = *(QueueRecord *const *)a, *y = *(QueueRecord *const *)b;
        return strcmp(x->queue->name, y->queue->name);
}

int queues_sorted(const Manager *m, QueueRecord ***ret, size_t *ret_n) {
        size_t n = HASH_COUNT(m->queues), i = 0;
        QueueRecord **all = fault_calloc(n + 1, sizeof(QueueRecord *));
        if (!all)
                return -ENOMEM;
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                all[i++] = q;
        qsort(all, n, sizeof(all[0]), by_name);
        *ret = all;
        *ret_n = n;
        return 0;
}

/* What can be told without reading it: as matches(). */
static bool may_match(const Manager *m, const Caller *caller, const ListFilter *f, const void *entry) {
        uid_t uid = window_user(m, entry)->uid;
        return (caller->admin || uid == caller->identity->uid) &&
               (!f->states || (f->states & (1U << EQ_STATE_QUEUED))) &&
               (!EQ_HAS(f->args, List, uid) || uid == f->args->uid);
}

typedef struct ListWalk {
        Manager *manager;
        const Caller *caller;
        ListFilter *filter;
        bool (*each)(void *userdata, const TaskRecord *t);
        void *userdata;
        bool some;          /* of the finished ones */
        WindowPeek *unread; /* NULL: nothing yet */
        bool over;
} ListWalk;

static void walk_record(ListWalk *w, const TaskRecord *t) {
        if (w->some && task_record_finished(t) && !t->shown)
                return;
        if (matches(w->caller, w->filter, t))
                w->over = !w->each(w->userdata, t);
}

/* 1: it has to be read. */
static int walk_stored(ListWalk *w, QueueRecord *q, uint64_t seq, const void *entry) {
        const ListFilter *f = w->filter;
        if (!may_match(w->manager, w->caller, f, entry))
                return 0;
        if (!window_peek_has(f->peek, q, seq))
                return 1;
        TaskRecord *t = window_peek_record(f->peek, q, seq);
        if (t) /* else it is about to end: it cannot be read */
                walk_record(w, t);
        task_record_free(t);
        return 0;
}

/* From the first one that has to be read on only such are looked for, to be read together. */
static int walk_queue(ListWalk *w, QueueRecord *q, uint64_t seq) {
        ShelfView shelved;
        for (void *entry; !w->over && (entry = seq_index_next(&q->tasks, &seq)); seq++) {
                bool stored = window_has(entry);
                if (w->unread && !stored)
                        continue;
                if (stored && (w->unread ? may_match(w->manager, w->caller, w->filter, entry)
                                         : walk_stored(w, q, seq, entry) > 0)) {
                        if (!w->unread && !(w->unread = window_peek_new(q)))
                                return -ENOMEM;
                        w->over = !window_peek_add(w->unread, seq);
                } else if (!stored)
                        walk_record(w, shelf_look(q, seq, entry, &shelved));
                if (!w->unread) {
                        strcpy(w->filter->from_queue, q->queue->name);
                        w->filter->from_seq = seq;
                }
        }
        w->over = w->over || w->unread;
        return w->unread && w->unread->fetch.n == 0 ? -ENOMEM : 0;
}

int view_list(Manager *m, const Caller *caller, ListFilter *f, bool (*each)(void *userdata, const TaskRecord *t),
              void *userdata, WindowPeek **ret_unread) {
        _cleanup_free_ QueueRecord **queues = NULL;
        size_t n_queues;
        ListWalk w = { .manager = m, .caller = caller, .filter = f, .each = each, .userdata = userdata };
        int r = queues_sorted(m, &queues, &n_queues);
        if (r < 0)
                return r;
        w.some = EQ_HAS(f->args, List, finished);
        if (w.some)
                mark_recent(m, caller, f, true);
        for (size_t i = 0; i < n_queues && r >= 0 && !w.over; i++) {
                QueueRecord *q = queues[i];
                int order = f->from_queue[0] ? strcmp(q->queue->name, f->from_queue) : 1;
                if ((f->queue && q != f->queue) || order < 0)
                        continue;
                queue_look(q->queue);
                r = walk_queue(&w, q, order == 0 ? f->from_seq + 1 : 0);
        }
        if (w.some)
                mark_recent(m, caller, f, false);
        if (r < 0)
                window_peek_free(w.unread);
        else
                *ret_unread = w.unread;
        return r;
}
