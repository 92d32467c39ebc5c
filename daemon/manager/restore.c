/* SPDX-License-Identifier: MIT */
/* Records to stored forms and back. Times are kept by the wall clock, since the monotonic one begins anew with the machine.
 *
 * A task is charged to its user and its queue like any other, yet never refused: it was accepted before. Edges of `after`
 * are not stored but found again from the options: a target that is known to nobody any more has ended, and what its end
 * decided was carried out before it could be forgotten. */

#include "manager/restore.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "base/fault.h"
#include "engine/barrier.h"
#include "manager/arrays.h"
#include "manager/keys.h"
#include "manager/parts.h"
#include "manager/shelf.h"
#include "manager/tombstones.h"

void restore_begin(Restore *r, Manager *m) {
        *r = (Restore) { .manager = m };
        engine_hold(&m->engine);
}

/* ---- what tasks share ---- */

static bool same_identity(const Identity *id, const StoredTask *s) {
        if (!id || id->uid != s->uid || id->gid != s->gid || id->n_groups != s->n_groups)
                return false;
        for (uint32_t i = 0; i < s->n_groups; i++)
                if (id->groups[i] != stored_group(s, i))
                        return false;
        return true;
}

static int take_identity(SharedParts *shared, const StoredTask *s) {
        gid_t groups[IDENTITY_GROUPS_MAX];
        Identity *id;
        if (same_identity(shared->identity, s))
                return 0;
        for (uint32_t i = 0; i < s->n_groups; i++)
                groups[i] = stored_group(s, i);
        int e = identity_new(s->uid, s->gid, groups, s->n_groups, &id);
        if (e < 0)
                return e;
        identity_unref(shared->identity);
        shared->identity = id;
        return 0;
}

static int take_common(SharedParts *shared, const StoredTask *s, SharedOptions **ret) {
        SharedOptions *o = shared->common;
        *ret = NULL;
        if (s->common.len == 0)
                return 0;
        if (!o || !eq_bytes_eq(eq_bytes(o->data, o->len), s->common)) {
                int e = shared_options_new(s->common, &o);
                if (e < 0)
                        return e;
                shared_options_unref(shared->common);
                shared->common = o;
        }
        *ret = o;
        return 0;
}

/* ---- queues ---- */

static int set_attributes(QueueAttributes *a, const QueueAttributes *defaults, EqArray set) {
        char error[PARAM_ERROR_MAX];
        EqBytes kv;
        while (eq_next_bytes(&set, &kv) > 0) {
                int r = queue_attributes_set(a, defaults, kv.data, kv.len, error, sizeof(error));
                if (r == -ENOMEM)
                        return r;
                if (r < 0) /* of an eqd that knew other attributes */
                        log_event(ATTRIBUTE_LEFT_OUT, (.error = error), error);
        }
        return 0;
}

enum { PAUSES_MAX = 65535 }; /* nobody pauses a queue so often; each one is made again */

int restore_queue(Restore *r, EqBytes name, uint64_t id, uint64_t last_seq, const StoredQueue *stored,
                  QueueRecord **ret) {
        Manager *m = r->manager;
        char text[EQ_NAME_MAX + 1] = "";
        if (!eq_name_valid(name) || last_seq > EQ_SEQ_MAX || stored->pauses > PAUSES_MAX)
                return -EINVAL;
        if (manager_queue(m, name))
                return -EEXIST;
        memcpy(text, name.data, name.len);
        _cleanup_(queue_attributes_deinit) QueueAttributes a;
        int e = queue_attributes_init(&a, &m->config->queue_defaults);
        if (e >= 0)
                e = set_attributes(&a, &m->config->queue_defaults, stored->set);
        if (e >= 0)
                e = queue_record_restore(m, text, id, last_seq, &a, stored->creator, ret);
        if (e < 0)
                return e;
        QueueRecord *q = *ret;
        if (stored->from_file) {
                q->origin = QUEUE_FROM_FILE;
                q->overridden = stored->overridden;
                q->digest = stored->overridden ? stored->digest : 0; /* 0: the file is applied whatever it says */
        }
        for (uint32_t i = 0; i < stored->pauses; i++)
                queue_pause(q->queue);
        q->was_stopped = stored->stopped;
        r->n_queues++;
        return 0;
}

int restore_tombstone(Restore *r, EqBytes name, uint64_t id, uint64_t last_seq) {
        if (!eq_name_valid(name) || last_seq > EQ_SEQ_MAX)
                return -EINVAL;
        int e = id ? engine_seed_generation(&r->manager->engine, id) : 0;
        return e < 0 ? e : tombstone_restore(r->manager, name, last_seq);
}

static bool attribute_needs(const QueueRecord *q) {
        return q->origin == QUEUE_FROM_CLIENT || q->overridden;
}

typedef struct AttributePacker {
        msgpack_packer packer;
        uint32_t n;
        bool executor, at_most_once; /* are among them */
} AttributePacker;

static int pack_attribute(void *userdata, const char *name, const char *value, bool set) {
        AttributePacker *p = userdata;
        size_t name_len = strlen(name), value_len = strlen(value);
        if (!set)
                return 0;
        p->n++;
        p->executor = p->executor || strcmp(name, "executor") == 0;
        p->at_most_once = p->at_most_once || strcmp(name, "at_most_once") == 0;
        msgpack_pack_str(&p->packer, name_len + 1 + value_len);
        msgpack_pack_str_body(&p->packer, name, name_len);
        msgpack_pack_str_body(&p->packer, "=", 1);
        msgpack_pack_str_body(&p->packer, value, value_len);
        return 0;
}

void restore_pack_queue(const QueueRecord *q, EqBuffer *b) {
        EqBuffer set = EQ_BUFFER_NULL;
        AttributePacker p = { .packer = eq_packer(&set) };
        if (attribute_needs(q))
                (void)queue_attributes_each(&q->attributes, pack_attribute, &p); /* our function ends it never */
        if (!p.executor) /* its tasks fit no other, whatever files and defaults say then */
                (void)pack_attribute(&p, "executor", queue_has_commands(q) ? "command" : "worker", true);
        if (!p.at_most_once && q->attributes.at_most_once) /* what ran is looked at before its file is */
                (void)pack_attribute(&p, "at_most_once", "yes", true);
        StoredQueue s = {
                .creator = q->creator,
                .pauses = q->queue->pauses,
                .from_file = q->origin == QUEUE_FROM_FILE,
                .overridden = q->overridden,
                .stopped = q->was_stopped,
                .digest = q->digest,
                .set = { .raw = eq_bytes(set.data, set.len), .n = p.n },
        };
        stored_queue_pack(&s, b);
        b->failed = b->failed || set.failed;
        eq_buffer_done(&set);
}

/* ---- tasks ---- */

int restore_unpacked(SharedParts *shared, QueueRecord *q, const StoredTask *s, TaskRecord **ret) {
        SharedOptions *common;
        int e = take_identity(shared, s);
        if (e >= 0)
                e = take_common(shared, s, &common);
        if (e < 0)
                return e;
        TaskRecord *t = task_record_new(q, shared->identity, common, s->payload, s->options, s->submitted_usec);
        if (!t)
                return -ENOMEM;
        t->retries = s->retries;
        t->has_fd = s->has_fd;
        t->plain = s->plain;
        e = user_get(&q->manager->users, s->uid, &t->user);
        if (e < 0) {
                task_record_free(t);
                return e;
        }
        *ret = t;
        return 0;
}

static int make_record(Restore *r, QueueRecord *q, uint64_t seq, const StoredTask *s, TaskRecord **ret) {
        TaskRecord *t;
        if (seq == 0 || seq > q->queue->last_seq)
                return -EINVAL;
        if (seq_index_get(&q->tasks, seq))
                return -EEXIST;
        int e = restore_unpacked(&r->shared, q, s, &t);
        if (e < 0)
                return e;
        e = seq_index_put(&q->tasks, seq, t);
        if (e < 0) {
                task_record_free(t);
                return e;
        }
        *ret = t;
        return 0;
}

/* A task over several queues; its own is t->queue. The others need not be there yet. Fine for one that is none. */
static int restore_others(Restore *r, TaskRecord *t, const StoredTask *s) {
        uint64_t ids[BARRIER_QUEUES_MAX], seqs[BARRIER_QUEUES_MAX];
        EqBytes others = s->others;
        size_t n = 0;
        while (n + 1 < BARRIER_QUEUES_MAX && stored_other_next(&others, &ids[n], &seqs[n])) {
                if (seqs[n] == 0 || seqs[n] > EQ_SEQ_MAX)
                        return -EBADMSG;
                n++;
        }
        if (others.len > 0)
                return -EBADMSG;
        return n > 0 ? barrier_make(&r->manager->engine, &t->task, ids, seqs, n) : 0;
}

static uint32_t size_of(const StoredTask *s) {
        return s->payload.len + s->options.len;
}

/* What may hold it as TASK_WAIT_AFTER: see tie(). */
static const uint64_t after_options =
        EQ_BIT(Submit, after_ok) | EQ_BIT(Submit, after_any) | EQ_BIT(Submit, after_fail) | EQ_BIT(Submit, array_limit);

static void set_state(const Manager *m, TaskRecord *t, const EqSubmit *options, const StoredTask *s,
                      const StoredState *state) {
        const uint8_t kept = TASK_WAIT_HELD | TASK_WAIT_AT | TASK_WAIT_BACKOFF;
        Task *task = &t->task;
        uint64_t due = state ? state->due_usec : s->due_usec, expire = state ? state->expire_usec : s->expire_usec;
        task->wait = state ? state->wait & kept : s->held ? TASK_WAIT_HELD : 0;
        if (due)
                task->due_usec = clock_from_realtime(m->clock, due);
        if (due && !state)
                task->wait |= TASK_WAIT_AT;
        if (expire)
                task->expire_usec = clock_from_realtime(m->clock, expire);
        if (options->present & after_options)
                task->wait |= TASK_WAIT_AFTER;
        if (state) {
                task->attempt = state->attempt;
                t->crashes = state->crashes;
                t->lost = state->lost;
        }
}

static void charge(const TaskRecord *t, int sign) {
        const struct {
                UserResource resource;
                uint64_t n;
        } costs[] = { { USER_TASKS, 1 }, { USER_TASK_BYTES, t->task.bytes }, { USER_DESCRIPTORS, t->has_fd } };
        for (size_t i = 0; i < ELEMENTSOF(costs); i++) {
                if (sign < 0) {
                        user_refund(t->user, costs[i].resource, costs[i].n);
                        continue;
                }
                bool charged = user_charge(t->user, costs[i].resource, costs[i].n);
                assert(charged); /* limits come with the configuration, later */
                (void)charged;
        }
}

/* seq 0: there is none. */
static int note_stale(Restore *r, const QueueRecord *q, uint64_t seq) {
        if (seq == 0)
                return 0;
        StaleKey *p = array_grown(r->stale, &r->cap_stale, r->n_stale, sizeof(*p));
        if (!p)
                return -ENOMEM;
        r->stale = p;
        r->stale[r->n_stale++] = (StaleKey) { .queue = q, .seq = seq };
        return 0;
}

static int take_key(Restore *r, TaskRecord *t, EqBytes key) {
        uint64_t stale;
        int e = key_restore(t, key, &stale);
        return e < 0 ? e : note_stale(r, t->queue, stale);
}

/* 0, or -ENOMEM with t freed. */
static int join_history(Restore *r, TaskRecord *t) {
        EqBytes key = t->spec.common || t->spec.options_len > 0 ? key_of(t) : (EqBytes) { 0 };
        int e = key.len > 0 ? take_key(r, t, key) : 0;
        if (e < 0)
                task_record_free(t);
        else
                history_add(r->manager, t);
        return e;
}

static int end_lost(Restore *r, TaskRecord *t, uint64_t seq, TaskLane lane, const StoredTask *s,
                    const StoredState *state) {
        task_init_finished(&t->task, seq, lane, size_of(s), EQ_STATE_FAILED, state ? state->attempt : 0);
        t->end_reason = EQ_REASON_LOST;
        t->end_note = TASK_NOTE_STDIN;
        t->finished_usec = clock_realtime(r->manager->clock);
        return join_history(r, t);
}

/* n_total: of its output, of which `output` was kept. */
static int restore_run(TaskRecord *t, const StoredTry *last, EqBytes output, const uint64_t *n_total) {
        if (last->started_usec == 0)
                return 0;
        int e = run_begin(t, last->started_usec);
        if (e < 0)
                return e;
        TaskRun *run = t->run;
        EqBytes data;
        uint8_t stream;
        while (stored_output_next(&output, &stream, &data))
                (void)output_log_append(&run->log, stream, data.data, data.len); /* without memory: shorter */
        for (stream = EQ_STREAM_STDOUT; stream <= EQ_STREAM_STDERR; stream++)
                output_log_set_written(&run->log, stream, n_total[stream]);
        run->announced = true;
        run->exit = last->exit;
        run->signal = last->signal;
        run->utime_usec = last->utime_usec;
        run->stime_usec = last->stime_usec;
        run->maxrss_kib = last->maxrss_kib;
        if (last->error.len)
                run->error = strndup(last->error.data, last->error.len); /* without memory: only the text is missing */
        run->worker = last->worker;
        return 0;
}

int restore_task(Restore *r, QueueRecord *q, uint64_t seq, TaskLane lane, const StoredTask *stored,
                 const StoredState *state) {
        Manager *m = r->manager;
        TaskRecord *t;
        int e = stored->key_only ? -EBADMSG : make_record(r, q, seq, stored, &t);
        if (e < 0)
                return e;
        if (stored->has_fd) {
                e = end_lost(r, t, seq, lane, stored, state);
                r->n_finished += e == 0;
                return e;
        }
        task_init(&t->task, seq, lane, size_of(stored));
        EqSubmit options = { 0 };
        task_spec_decode(&t->spec, &options);
        set_state(m, t, &options, stored, state);
        charge(t, 1);
        e = restore_others(r, t, stored);
        if (e >= 0 && state)
                e = restore_run(t, &state->last, (EqBytes) { 0 }, state->n_total);
        if (e >= 0)
                e = EQ_HAS(&options, Submit, unique) ? take_key(r, t, options.unique) : 0;
        if (e >= 0)
                e = queue_restore_task(q->queue, &t->task);
        if (e < 0) {
                charge(t, -1);
                task_record_free(t);
                return e;
        }
        m->n_pending++;
        r->n_pending++;
        return 0;
}

static int restore_key(Restore *r, QueueRecord *q, uint64_t seq, const StoredTask *stored, const StoredEnd *end) {
        EqSubmit s = { 0 };
        EqDecodeError error;
        if (eq_decode_map(&eq_schema_Submit, stored->options, &s, &error) < 0 || !EQ_HAS(&s, Submit, unique))
                return -EBADMSG;
        uint64_t stale;
        int e = key_restore_alone(q, seq, stored->uid, s.unique, end->finished_usec, &stale);
        return e < 0 ? e : note_stale(r, q, stale);
}

int restore_end(Restore *r, QueueRecord *q, uint64_t seq, TaskLane lane, const StoredTask *stored,
                const StoredEnd *end) {
        TaskRecord *t;
        if (stored->key_only)
                return restore_key(r, q, seq, stored, end);
        if (!eq_state_finished(end->state) || end->note >= _TASK_NOTE_MAX || end->reason >= _EQ_REASON_MAX)
                return -EBADMSG;
        int e = make_record(r, q, seq, stored, &t);
        if (e < 0)
                return e;
        task_init_finished(&t->task, seq, lane, size_of(stored), end->state, end->attempt);
        t->task.queue = q->queue;
        e = restore_others(r, t, stored);
        if (e >= 0)
                e = restore_run(t, &end->last, end->output, end->n_total);
        if (e >= 0 && t->run)
                e = run_keep_bytes(t->run, end->result);
        if (e < 0) {
                task_record_free(t);
                return e;
        }
        t->end_reason = end->reason;
        t->end_note = end->note;
        t->crashes = end->crashes;
        t->lost = end->lost;
        t->finished_usec = end->finished_usec;
        e = join_history(r, t);
        r->n_finished += e == 0;
        return e;
}

static void pack_others(const Manager *m, const TaskRecord *t, EqBuffer *b) {
        uint64_t id, seq;
        for (size_t i = 0, n = barrier_n_others(&m->engine, &t->task); i < n; i++) {
                (void)barrier_other(&m->engine, &t->task, i, &id, &seq);
                stored_other_pack(id, seq, b);
        }
}

void restore_pack_task(const Manager *m, const TaskRecord *t, EqBuffer *b) {
        const Identity *id = t->spec.identity;
        uint32_t groups[IDENTITY_GROUPS_MAX];
        for (unsigned i = 0; i < id->n_groups; i++)
                groups[i] = htole32(id->groups[i]);
        StoredTask s = {
                .uid = id->uid,
                .gid = id->gid,
                .n_groups = id->n_groups,
                .groups = eq_bytes((const char *)groups, id->n_groups * sizeof(groups[0])),
                .held = t->task.wait & TASK_WAIT_HELD,
                .has_fd = t->has_fd,
                .plain = t->plain,
                .retries = t->retries,
                .submitted_usec = t->spec.submitted_usec,
                .payload = task_spec_payload(&t->spec),
                .options = eq_bytes(t->spec.data + t->spec.payload_len, t->spec.options_len),
        };
        if (t->spec.common)
                s.common = eq_bytes(t->spec.common->data, t->spec.common->len);
        if (t->task.wait & TASK_WAIT_AT)
                s.due_usec = clock_to_realtime(m->clock, t->task.due_usec);
        if (t->task.expire_usec)
                s.expire_usec = clock_to_realtime(m->clock, t->task.expire_usec);
        EqBuffer others = EQ_BUFFER_NULL;
        pack_others(m, t, &others);
        s.others = eq_bytes(others.data, others.len);
        stored_task_pack(&s, b);
        b->failed = b->failed || others.failed;
        eq_buffer_done(&others);
}

void restore_pack_key(uid_t uid, EqBytes key, EqBuffer *b) {
        EqBuffer options = EQ_BUFFER_NULL;
        EqSubmit s = { 0 };
        msgpack_packer pk = eq_packer(&options);
        EQ_SET(&s, Submit, unique, key);
        eq_pack_record(&pk, &eq_schema_Submit, &s);
        stored_task_pack(&(StoredTask) { .uid = uid, .key_only = true, .options = eq_bytes(options.data, options.len) },
                         b);
        b->failed = b->failed || options.failed;
        eq_buffer_done(&options);
}

void restore_pack_key_end(uint64_t finished_usec, EqBuffer *b) {
        stored_end_pack(&(StoredEnd) { .state = EQ_STATE_DONE, .finished_usec = finished_usec, .last.exit = -1 }, NULL,
                        b);
}

static StoredTry try_of(const TaskRun *run) {
        return (StoredTry) {
                .started_usec = run->started_usec,
                .exit = run->exit,
                .signal = run->signal,
                .utime_usec = run->utime_usec,
                .stime_usec = run->stime_usec,
                .maxrss_kib = run->maxrss_kib,
                .error = eq_str(run->error),
                .worker = run->worker,
        };
}

/* What was, for people; its output would cost more than all the rest. */
static void take_try(const TaskRun *run, StoredState *s) {
        s->last = try_of(run);
        for (uint8_t stream = EQ_STREAM_STDOUT; stream <= EQ_STREAM_STDERR; stream++)
                s->n_total[stream] = output_log_written(&run->log, stream);
}

void restore_pack_state(const Manager *m, const TaskRecord *t, const TaskFate *fate, EqBuffer *b) {
        const Task *task = &t->task;
        bool retry = fate && fate->event == TASK_EV_RETRY;
        uint8_t wait = retry ? TASK_WAIT_BACKOFF : fate ? 0 : task->wait & ~TASK_WAIT_AFTER;
        StoredState s = {
                .attempt = task->attempt,
                .crashes = t->crashes,
                .lost = t->lost,
                .wait = wait,
                .starts = !fate && task->where == TASK_IN_RUNNING && t->run && t->run->cleared,
        };
        if (wait & (TASK_WAIT_AT | TASK_WAIT_BACKOFF))
                s.due_usec = clock_to_realtime(m->clock, retry ? fate->due_usec : task->due_usec);
        if (task->expire_usec)
                s.expire_usec = clock_to_realtime(m->clock, task->expire_usec);
        if (t->run && t->run->announced && (fate || task->where != TASK_IN_RUNNING))
                take_try(t->run, &s);
        stored_state_pack(&s, b);
}

void restore_pack_end(const TaskRecord *t, EqBuffer *b) {
        const TaskRun *run = t->run;
        StoredEnd e = {
                .state = t->task.state,
                .reason = t->end_reason,
                .note = t->end_note,
                .attempt = t->task.attempt,
                .crashes = t->crashes,
                .lost = t->lost,
                .finished_usec = t->finished_usec,
                .last.exit = -1,
        };
        if (run) {
                e.last = try_of(run);
                e.result = eq_bytes(run->result, run->n_result);
        }
        stored_end_pack(&e, run ? &run->log : NULL, b);
}

/* ---- the end ---- */

static int tie_one(Manager *m, TaskRecord *t) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        int e = array_add(t, &s);
        return e < 0 ? e : deps_restore(m, t);
}

static int tie(Manager *m, QueueRecord *q) {
        uint64_t seq = 0;
        int e = 0;
        if (q->tasks.n == q->queue->n_shelved)
                return 0; /* there may be very many, and none of them is tied to anything */
        for (TaskRecord *t; e >= 0 && (t = seq_index_next(&q->tasks, &seq)); seq++) {
                if (shelf_has(t) || task_record_finished(t))
                        continue;
                if (t->end_note == TASK_NOTE_REPLACED)
                        (void)queue_cancel(q->queue, &t->task); /* pending, as all that is restored */
                else if (t->task.wait & TASK_WAIT_AFTER)
                        e = tie_one(m, t);
        }
        return e;
}

int restore_done(Restore *r) {
        Manager *m = r->manager;
        int e = barriers_restore(&m->engine);
        for (QueueRecord *q = m->queues; q && e >= 0; q = q->hh.next) {
                e = tie(m, q);
                if (q->was_stopped) /* with its tasks: without any it would be through */
                        queue_stop(q->queue);
        }
        r->shared.identity = identity_unref(r->shared.identity);
        r->shared.common = shared_options_unref(r->shared.common);
        free(r->stale);
        engine_unhold(&m->engine);
        return e;
}
