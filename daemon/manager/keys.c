/* SPDX-License-Identifier: MIT */
/* One hash per queue, by a random word of this eqd, uid and key: nobody can choose keys that fall together. An entry names
 * its task by SEQ, so that it outlives the record. Between claim and assign an entry is marked with the submit that does it,
 * since room that this one makes may let another one in. */

#include "manager/keys.h"

#include <errno.h>
#include <string.h>

#include "manager/durable.h"
#include "manager/parts.h"

typedef struct KeyEntry {
        UT_hash_handle hh;      /* QueueRecord::keys */
        List finished_link;     /* QueueRecord::finished_keys, once its task has ended */
        uint64_t seq;           /* 0: of a task on its way in */
        uint64_t finished_usec; /* wall clock */
        const void *claim;      /* the submit that is about to use it; NULL: none */
        bool alone;             /* there is no record of its task any more */
        uint32_t n_id;
        char id[]; /* Manager::key_seed, uid, key */
} KeyEntry;

typedef enum KeyMode { KEY_SKIP, KEY_REPLACE, KEY_ERROR, _KEY_MODE_MAX } KeyMode;

enum { ID_PREFIX = sizeof(uint64_t) + sizeof(uint32_t), ID_MAX = ID_PREFIX + EQ_KEY_MAX };

/* ---- entries ---- */

static uint32_t make_id(const QueueRecord *q, uid_t uid, EqBytes key, char *buf) {
        uint32_t user = uid;
        memcpy(buf, &q->manager->key_seed, sizeof(uint64_t));
        memcpy(buf + sizeof(uint64_t), &user, sizeof(user));
        memcpy(buf + ID_PREFIX, key.data, key.len);
        return ID_PREFIX + key.len;
}

static uid_t entry_uid(const KeyEntry *e) {
        uint32_t user;
        memcpy(&user, e->id + sizeof(uint64_t), sizeof(user));
        return user;
}

static EqBytes entry_key(const KeyEntry *e) {
        return eq_bytes(e->id + ID_PREFIX, e->n_id - ID_PREFIX);
}

/* Keys are checked when they come in; those of a damaged file were not. */
static bool fits(EqBytes key) {
        return key.len > 0 && key.len <= EQ_KEY_MAX;
}

static KeyEntry *find(const QueueRecord *q, uid_t uid, EqBytes key) {
        char id[ID_MAX];
        KeyEntry *e = NULL;
        if (!q->keys || !fits(key))
                return NULL;
        uint32_t n = make_id(q, uid, key, id);
        HASH_FIND(hh, q->keys, id, n, e);
        return e;
}

static KeyEntry *entry_new(QueueRecord *q, uid_t uid, EqBytes key) {
        KeyEntry *e = fault_malloc(sizeof(*e) + ID_PREFIX + key.len);
        if (!e)
                return NULL;
        memset(e, 0, sizeof(*e));
        list_init(&e->finished_link);
        e->n_id = make_id(q, uid, key, e->id);
        HASH_ADD_KEYPTR(hh, q->keys, e->id, e->n_id, e);
        if (!e->hh.tbl) {
                free(e);
                return NULL;
        }
        return e;
}

static void leave_window(QueueRecord *q, KeyEntry *e) {
        if (list_is_empty(&e->finished_link))
                return;
        list_remove(&e->finished_link);
        q->n_finished_keys--;
}

static void entry_free(QueueRecord *q, KeyEntry *e) {
        leave_window(q, e);
        HASH_DELETE(hh, q->keys, e);
        free(e);
}

/* Its task is forgotten. A submit that has claimed it goes on with it, as if it had made it. */
static void entry_release(QueueRecord *q, KeyEntry *e) {
        if (!e->claim) {
                entry_free(q, e);
                return;
        }
        leave_window(q, e);
        e->seq = 0;
        e->alone = false;
}

static TaskRecord *record_of(const QueueRecord *q, const KeyEntry *e) {
        return e->seq > 0 && !e->alone ? seq_index_get(&q->tasks, e->seq) : NULL;
}

EqBytes key_of(const TaskRecord *t) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        return EQ_HAS(&s, Submit, unique) ? s.unique : (EqBytes) { 0 };
}

/* NULL: it has none, or no longer. */
static KeyEntry *entry_of(const TaskRecord *t) {
        if (!t->keyed)
                return NULL;
        KeyEntry *e = find(t->queue, t->spec.identity->uid, key_of(t));
        return e && e->seq == t->task.seq ? e : NULL;
}

/* ---- a submit ---- */

static KeyMode mode_of(const EqSubmit *s) {
        static const char *const names[] = { "skip", "replace", "error" };
        unsigned mode = KEY_SKIP;
        while (EQ_HAS(s, Submit, on_dup) && mode < _KEY_MODE_MAX && !eq_bytes_eq(s->on_dup, eq_str(names[mode])))
                mode++;
        return mode;
}

int key_check(const EqSubmit *s, Refusal *r) {
        if (!EQ_HAS(s, Submit, unique))
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "on_dup",
                                    "only with unique; send a key, or leave it out");
        if (s->unique.len == 0)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "unique",
                                    "a key has 1 to %d bytes; leave it out for none", EQ_KEY_MAX);
        if (!eq_text_valid(s->unique))
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "unique",
                                    "not UTF-8, or with control characters; use printable text, or encode it");
        if (mode_of(s) == _KEY_MODE_MAX)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "on_dup", "must be skip, replace or error");
        if (s->attach)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "attach",
                                    "not with unique, for the task may have run already; follow its logs");
        return 0;
}

static int claim_new(QueueRecord *q, uid_t uid, SubmitArgs *a, const void *claim, Refusal *r) {
        KeyEntry *e = entry_new(q, uid, a->submit->unique);
        if (!e)
                return refuse(r, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        e->claim = claim;
        a->key = e;
        return 0;
}

/* Twice in one batch. */
static int claim_again(KeyEntry *e, SubmitArgs *a, size_t i, Refusal *r) {
        if (mode_of(a->submit) != KEY_SKIP)
                return refusal_of_field(
                        r, "unique",
                        refuse(r, EQ_E_INVALID, -EINVAL,
                               "task %zu: unique: another task of the batch has the same key; that goes with "
                               "on_dup=skip only",
                               i + 1));
        a->key = e;
        a->known = true;
        return 0;
}

static int refuse_duplicate(const QueueRecord *q, const KeyEntry *e, Refusal *r) {
        const TaskRecord *t = record_of(q, e);
        int error = refuse(r, EQ_E_DUPLICATE, -EEXIST, "%s/%llu has that key (unique) and is %s", q->queue->name,
                           (unsigned long long)e->seq, t ? eq_state_name(task_record_state(t)) : "finished");
        REFUSAL_NAMES(r, queue, eq_str(q->queue->name));
        REFUSAL_SAYS(r, id, (EqIdRef) { .id = { q->queue->id, e->seq } });
        return error;
}

static int claim_one(QueueRecord *q, uid_t uid, SubmitArgs *args, size_t i, Refusal *r) {
        SubmitArgs *a = &args[i];
        KeyEntry *e = find(q, uid, a->submit->unique);
        if (!e)
                return claim_new(q, uid, a, args, r);
        r->full = q; /* for the case below */
        if (e->claim)
                return e->claim == args ? claim_again(e, a, i, r) : MANAGER_E_WAIT;
        switch (mode_of(a->submit)) {
        case KEY_REPLACE:
                a->key = e;
                a->replaces = e->seq;
                a->forgets = e->alone;
                e->claim = args;
                return 0;
        case KEY_ERROR:
                return refuse_duplicate(q, e, r);
        default:
                a->known = true;
                a->seq = e->seq;
                return 0;
        }
}

int keys_claim(QueueRecord *q, uid_t uid, SubmitArgs *args, size_t n, size_t *ret_n_new, Refusal *r) {
        size_t n_new = 0;
        for (size_t i = 0; i < n; i++) {
                int e = EQ_HAS(args[i].submit, Submit, unique) ? claim_one(q, uid, args, i, r) : 0;
                if (e != 0) {
                        keys_unclaim(q, args, i);
                        return e;
                }
                n_new += !args[i].known;
        }
        *ret_n_new = n_new;
        return 0;
}

void keys_unclaim(QueueRecord *q, SubmitArgs *args, size_t n) {
        for (size_t i = 0; i < n; i++) {
                KeyEntry *e = args[i].known ? NULL : args[i].key;
                if (e && e->seq == 0)
                        entry_free(q, e);
                else if (e)
                        e->claim = NULL;
                args[i].key = NULL;
                args[i].known = args[i].forgets = false;
                args[i].replaces = 0;
        }
}

static void take_over(QueueRecord *q, KeyEntry *e, TaskRecord *t) {
        TaskRecord *former = record_of(q, e);
        if (former)
                former->keyed = false;
        leave_window(q, e);
        e->alone = false;
        e->seq = t->task.seq;
        t->keyed = true;
}

void keys_assign(QueueRecord *q, SubmitArgs *args, size_t n, TaskRecord **records) {
        for (size_t i = 0; i < n; i++) {
                if (args[i].known)
                        continue;
                args[i].seq = (*records)->task.seq;
                if (args[i].key)
                        take_over(q, args[i].key, *records);
                records++;
        }
        for (size_t i = 0; i < n; i++) {
                if (args[i].known && args[i].key)
                        args[i].seq = args[i].key->seq;
                else if (args[i].key)
                        args[i].key->claim = NULL;
        }
}

void keys_cancel_replaced(QueueRecord *q, const SubmitArgs *args, size_t n) {
        for (size_t i = 0; i < n; i++) {
                if (args[i].forgets) /* not before the new one is accepted: it may be refused */
                        durable_forget_seq(q, args[i].replaces);
                TaskRecord *t = args[i].replaces ? seq_index_get(&q->tasks, args[i].replaces) : NULL;
                if (t && !eq_state_finished(t->task.state))
                        record_replace(t);
        }
}

/* ---- the end of a task ---- */

static uint64_t age_usec(const QueueRecord *q, const KeyEntry *e) {
        const Manager *m = q->manager;
        uint64_t now = clock_realtime(m->clock), from = MAX(e->finished_usec, m->started_usec);
        return now > from ? now - from : 0;
}

/* A queue that has keys of finished tasks has the timer set for the oldest. */
static void set_age_timer(QueueRecord *q) {
        Manager *m = q->manager;
        const List *l = list_first(&q->finished_keys);
        uint64_t longest = q->attributes.unique_age_usec;
        if (!l || longest == USEC_NEVER || timer_is_set(&q->key_timer))
                return;
        uint64_t age = age_usec(q, LIST_ENTRY(l, KeyEntry, finished_link));
        uint64_t left = age < longest ? longest - age : 0;
        (void)timer_set(&m->timers, &q->key_timer,
                        clock_monotonic(m->clock) + MAX(left, USEC_PER_SEC)); /* else: next time */
}

static void forget(QueueRecord *q, KeyEntry *e) {
        TaskRecord *t = record_of(q, e);
        if (t)
                t->keyed = false;
        else if (e->alone)
                durable_forget_seq(q, e->seq);
        entry_release(q, e);
}

static void enter_window(QueueRecord *q, KeyEntry *e, uint64_t finished_usec) {
        e->finished_usec = finished_usec;
        list_append(&q->finished_keys, &e->finished_link);
        q->n_finished_keys++;
        keys_trim(q);
}

void key_finished(TaskRecord *t) {
        KeyEntry *e = entry_of(t);
        if (e)
                enter_window(t->queue, e, t->finished_usec);
}

void key_revived(TaskRecord *t) {
        KeyEntry *e = entry_of(t);
        if (e)
                leave_window(t->queue, e);
}

bool key_outlives(TaskRecord *t) {
        KeyEntry *e = entry_of(t);
        if (!e)
                return false;
        t->keyed = false;
        e->alone = true;
        durable_put_key(t->queue, e->seq, entry_uid(e), entry_key(e), e->finished_usec);
        return true;
}

void key_drop(TaskRecord *t) {
        KeyEntry *e = entry_of(t);
        if (e)
                entry_release(t->queue, e);
}

void keys_trim(QueueRecord *q) {
        if (q->manager->restoring)
                return; /* the attributes of its file are still to come */
        while (q->n_finished_keys > q->attributes.unique_window)
                forget(q, LIST_ENTRY(q->finished_keys.next, KeyEntry, finished_link));
        set_age_timer(q);
}

void keys_age_fire(Timer *timer) {
        QueueRecord *q = HEAP_ENTRY(timer, QueueRecord, key_timer);
        while (q->n_finished_keys > 0) {
                KeyEntry *e = LIST_ENTRY(q->finished_keys.next, KeyEntry, finished_link);
                if (age_usec(q, e) < q->attributes.unique_age_usec)
                        break;
                forget(q, e);
        }
        set_age_timer(q);
}

void keys_clear(QueueRecord *q) {
        KeyEntry *e, *next;
        HASH_ITER(hh, q->keys, e, next) {
                TaskRecord *t = record_of(q, e);
                if (t)
                        t->keyed = false;
                entry_free(q, e);
        }
}

/* ---- restart ---- */

/* A task of a higher SEQ has its key. */
static void note_replaced(TaskRecord *t) {
        if (!task_record_finished(t) && t->task.attempt == 0)
                t->end_note = TASK_NOTE_REPLACED; /* restore_done() cancels it */
}

/* e passes to a task of a higher SEQ. */
static void lose(QueueRecord *q, KeyEntry *e, uint64_t *ret_stale) {
        TaskRecord *t = record_of(q, e);
        if (t) {
                t->keyed = false;
                note_replaced(t);
        }
        if (e->alone)
                *ret_stale = e->seq;
        e->alone = false;
        leave_window(q, e);
}

/* *ret NULL: another one has it. */
static int restore_entry(QueueRecord *q, uint64_t seq, uid_t uid, EqBytes key, KeyEntry **ret, uint64_t *ret_stale) {
        KeyEntry *e = find(q, uid, key);
        *ret = NULL;
        *ret_stale = 0;
        if (!fits(key) || (e && e->seq > seq))
                return 0;
        if (e)
                lose(q, e, ret_stale);
        else if (!(e = entry_new(q, uid, key)))
                return -ENOMEM;
        e->seq = seq;
        *ret = e;
        return 0;
}

int key_restore(TaskRecord *t, EqBytes key, uint64_t *ret_stale) {
        KeyEntry *e;
        int r = restore_entry(t->queue, t->task.seq, t->spec.identity->uid, key, &e, ret_stale);
        t->keyed = r == 0 && e;
        if (r == 0 && !e && fits(key)) /* what was moved in the log comes after what replaced it */
                note_replaced(t);
        return r;
}

int key_restore_alone(QueueRecord *q, uint64_t seq, uid_t uid, EqBytes key, uint64_t finished_usec,
                      uint64_t *ret_stale) {
        KeyEntry *e;
        if (seq == 0 || seq > q->queue->last_seq || !fits(key))
                return -EINVAL;
        int r = restore_entry(q, seq, uid, key, &e, ret_stale);
        if (r == 0 && !e) /* the batch of the replacement was cut before its FORGET */
                *ret_stale = seq;
        else if (r == 0) {
                e->alone = true;
                enter_window(q, e, finished_usec);
        }
        return r;
}

int keys_each_alone(const QueueRecord *q, KeyFunc func, void *userdata) {
        int r = 0;
        LIST_FOREACH (l, &q->finished_keys) {
                const KeyEntry *e = LIST_ENTRY(l, KeyEntry, finished_link);
                if (e->alone && r == 0)
                        r = func(userdata, q, e->seq, entry_uid(e), entry_key(e), e->finished_usec);
        }
        return r;
}
