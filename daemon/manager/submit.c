/* SPDX-License-Identifier: MIT */
/* Admission: everything that can refuse a task, and everything that can fail, happens here before queue_push().
 *
 * Order: queue, rights, the task itself, identity, the user's limits, the queue's capacity. What was charged or reserved
 * is given back on the way out. */

#include <errno.h>
#include <string.h>

#include "base/fault.h"
#include "engine/barrier.h"
#include "executor/ionice.h"
#include "manager/arrays.h"
#include "manager/durable.h"
#include "manager/keys.h"
#include "manager/parts.h"
#include "manager/shelf.h"
#include "manager/space.h"
#include "manager/window.h"

/* One task of a submit on its way in. */
typedef struct Admission {
        Manager *manager;
        const Caller *caller;
        QueueRecord *queue;
        const Identity *run_as;
        QueueRecord *others[BARRIER_QUEUES_MAX]; /* which it holds too */
        size_t n_others;
        Refusal *refusal;
} Admission;

static int check_text(Refusal *r, const char *what, EqBytes text) {
        if (eq_text_valid(text))
                return 0;
        return refuse_field(r, EQ_E_INVALID, -EINVAL, what,
                            "not UTF-8, or with control characters; use printable text");
}

static int check_env(Refusal *r, EqArray env) {
        EqBytes kv;
        while (eq_next_bytes(&env, &kv) > 0) {
                const char *eq = memchr(kv.data, '=', kv.len);
                if (!eq || eq == kv.data)
                        return refuse_field(r, EQ_E_INVALID, -EINVAL, "env", "every string must be KEY=VALUE");
        }
        return 0;
}

/* What only a command can use. */
static const uint64_t command_options = EQ_BIT(Submit, argv) | EQ_BIT(Submit, cwd) | EQ_BIT(Submit, env) |
                                        EQ_BIT(Submit, merge) | EQ_BIT(Submit, stdout_path) |
                                        EQ_BIT(Submit, stderr_path) | EQ_BIT(Submit, umask) | EQ_BIT(Submit, nice) |
                                        EQ_BIT(Submit, rlimits) | EQ_BIT(Submit, stdin_fd) | EQ_BIT(Submit, ionice);

static int check_no_command(const Admission *a, const EqSubmit *s) {
        uint64_t wrong = s->present & command_options;
        if (!wrong)
                return 0;
        return refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, eq_schema_Submit.fields[__builtin_ctzll(wrong)].name,
                            "queue %s is served by %s, which get a payload; send no command and nothing for one",
                            a->queue->queue->name,
                            queue_has_plugin(a->queue) ? "a plugin (executor=plugin)" : "workers (executor=worker)");
}

bool submit_fits_executor(const TaskRecord *t) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        return queue_has_commands(t->queue) ? EQ_HAS(&s, Submit, argv) : !(s.present & command_options);
}

static int check_argv(const Admission *a, const EqSubmit *s) {
        EqArray argv = s->argv;
        EqBytes first;
        if (!EQ_HAS(s, Submit, argv) || eq_next_bytes(&argv, &first) <= 0 || first.len == 0)
                return refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, "argv",
                                    "queue %s runs commands; name the program to run", a->queue->queue->name);
        return 0;
}

/* Options that most tasks do not have: looked at only if one is there. */
static const uint64_t checked_options = EQ_BIT(Submit, cwd) | EQ_BIT(Submit, env) | EQ_BIT(Submit, label) |
                                        EQ_BIT(Submit, nice) | EQ_BIT(Submit, rlimits) | EQ_BIT(Submit, stdin_fd) |
                                        EQ_BIT(Submit, unique) | EQ_BIT(Submit, on_dup) | EQ_BIT(Submit, ionice) |
                                        EQ_BIT(Submit, mime) | EQ_BIT(Submit, array) | EQ_BIT(Submit, array_limit);

static int check_ionice(const Admission *a, EqBytes text) {
        uint32_t ioprio;
        if (ionice_parse(text, &ioprio) < 0)
                return refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, "ionice",
                                    "must be idle, best-effort, best-effort:N or realtime:N, with N of 0..7");
        if (ioprio_is_realtime(ioprio) && a->run_as->uid != 0)
                return refuse_field(a->refusal, EQ_E_DENIED, -EPERM, "ionice",
                                    "realtime is for commands of root; ask for best-effort:0");
        return 0;
}

static int check_mime(Refusal *r, EqBytes mime) {
        const char *slash = mime.len ? memchr(mime.data, '/', mime.len) : NULL;
        if (slash && slash > mime.data && slash + 1 < mime.data + mime.len && eq_text_valid(mime))
                return 0;
        return refuse_field(r, EQ_E_INVALID, -EINVAL, "mime", "must be TYPE/SUBTYPE, as text/plain");
}

static int check_options(const Admission *a, const EqSubmit *s, int stdin_fd) {
        Refusal *r = a->refusal;
        if (EQ_HAS(s, Submit, cwd) && (s->cwd.len == 0 || s->cwd.data[0] != '/'))
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "cwd", "must be an absolute path");
        if (EQ_HAS(s, Submit, label) && check_text(r, "label", s->label) < 0)
                return -EINVAL;
        if (EQ_HAS(s, Submit, env) && check_env(r, s->env) < 0)
                return -EINVAL;
        if (EQ_HAS(s, Submit, nice) && (s->nice < -20 || s->nice > 19))
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "nice", "must be within -20..19");
        int e = EQ_HAS(s, Submit, ionice) ? check_ionice(a, s->ionice) : 0;
        if (e == 0 && EQ_HAS(s, Submit, mime))
                e = check_mime(r, s->mime);
        if (e == 0 && (s->present & (EQ_BIT(Submit, array) | EQ_BIT(Submit, array_limit))))
                e = array_check(a->queue, a->caller->identity->uid, s, r);
        if (e < 0)
                return e;
        if (EQ_HAS(s, Submit, stdin_fd) && s->stdin_fd) {
                if (stdin_fd < 0)
                        return refuse_field(r, EQ_E_INVALID, -EINVAL, "stdin_fd",
                                            "no descriptor came with the message");
                if (s->retries > 0)
                        return refuse_field(r, EQ_E_INVALID, -EINVAL, "retries",
                                            "not with stdin_fd, which can be read only once; send a payload instead");
        }
        char error[160];
        if (EQ_HAS(s, Submit, rlimits) && command_rlimits_check(s->rlimits, error, sizeof(error)) < 0)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "rlimits", "%s", error);
        return s->present & (EQ_BIT(Submit, unique) | EQ_BIT(Submit, on_dup)) ? key_check(s, r) : 0;
}

static int check_identity(const Admission *a) {
        const SpawnReady *spawner = command_executor_spawner(a->manager->commands);
        uid_t uid = a->run_as->uid, own = a->manager->users.unlimited_uid; /* geteuid() would be a call per submit */
        bool own_only =
                !spawner || !spawner->any_identity || a->manager->config->daemon.identity == COMMAND_IDENTITY_OWN;
        if (manager_lost_others(a->manager) && uid != own)
                return refuse(
                        a->refusal, EQ_E_IDENTITY, -EPERM,
                        "eqd cannot run commands as uid %u until it is restarted: its process that had the rights to "
                        "do so has died; tell the administrator",
                        (unsigned)uid);
        if (own_only && uid != own)
                return refuse(
                        a->refusal, EQ_E_IDENTITY, -EPERM,
                        "this eqd runs as uid %u and cannot run commands as uid %u; use the system's eqd, or one of "
                        "your own (eqd --user)",
                        (unsigned)own, (unsigned)uid);
        if (uid == 0 && spawner && !spawner->root_allowed)
                return refuse(a->refusal, EQ_E_IDENTITY, -EPERM,
                              "commands of root are refused here (root_tasks=refuse in eqd.conf)");
        return 0;
}

/* Is there anything that can run its tasks? */
static int check_executor(const Manager *m, const QueueRecord *q, Refusal *r) {
        if (!m->no_commands || !queue_has_commands(q))
                return 0;
        return refuse(r, EQ_E_DENIED, -EPERM,
                      "commands are switched off here (commands=no in eqd.conf): this eqd cannot run tasks of queue %s",
                      q->queue->name);
}

static int check_queue(Manager *m, const Caller *caller, QueueRecord *q, Refusal *r) {
        if (m->stopping)
                return refuse(r, EQ_E_STOPPING, -ESHUTDOWN, "eqd is stopping; try again when it is back");
        if (q->removing)
                return refuse(r, EQ_E_NO_QUEUE, -ENOENT, "queue %s is being removed", q->queue->name);
        if (q->attributes.on_pressure == ON_PRESSURE_REJECT && manager_is_pressed(m)) {
                q->queue->n_refused++;
                uint64_t left = pressure_left_usec(m);
                int e = refuse(
                        r, EQ_E_PRESSURE, -EAGAIN,
                        "memory is short, and queue %s takes no tasks then (on_pressure=reject); try again in %.1f s",
                        q->queue->name, (double)left / USEC_PER_SEC);
                REFUSAL_NAMES(r, queue, eq_str(q->queue->name));
                REFUSAL_SAYS(r, retry_after_usec, left);
                return e;
        }
        const Identity *id = caller->identity;
        const ParamAccess *allowed = &q->attributes.allow_submit;
        if (caller->admin || allowed->n == 0 ||
            param_access_allows(allowed, id->uid, id->gid, id->groups, id->n_groups))
                return durable_may_wait(q, r);
        int e = refuse(r, EQ_E_DENIED, -EPERM, "you may not submit to queue %s (allow_submit)", q->queue->name);
        REFUSAL_NAMES(r, queue, eq_str(q->queue->name));
        return e;
}

static int check_other(const Admission *a, const QueueRecord *q) {
        const char *name = q->queue->name, *home = a->queue->queue->name;
        bool again = q == a->queue;
        for (size_t i = 0; i < a->n_others; i++)
                again = again || q == a->others[i];
        if (again)
                return refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, "also", "queue %s is named twice", name);
        if (durable_queue(q) == durable_queue(a->queue))
                return 0;
        return refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, "also",
                            "queue %s is %s and queue %s is %s; a task over several queues needs all of one kind "
                            "(durable=yes or no)",
                            home, durable_queue(a->queue) ? "durable" : "in memory", name,
                            durable_queue(q) ? "durable" : "in memory");
}

/* The queues that it holds beside its own: to each it is a submit. */
static int find_others(Admission *a, const SubmitArgs *args, size_t n) {
        size_t i = 0;
        while (i < n && !EQ_HAS(args[i].submit, Submit, also))
                i++;
        if (i == n)
                return 0; /* as most */
        if (n > 1)
                return refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, "also",
                                    "not for several tasks at once; submit each alone");
        EqArray names = args[0].submit->also;
        EqBytes name;
        while (eq_next_bytes(&names, &name) > 0) {
                QueueRecord *q;
                if (a->n_others + 1 == BARRIER_QUEUES_MAX)
                        return refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, "also", "at most %d queues",
                                            BARRIER_QUEUES_MAX - 1);
                int r = manager_find_queue(a->manager, name, &q, a->refusal);
                if (r >= 0)
                        r = check_queue(a->manager, a->caller, q, a->refusal);
                if (r >= 0)
                        r = check_other(a, q);
                if (r < 0)
                        return refusal_of_field(a->refusal, "also", r);
                a->others[a->n_others++] = q;
        }
        return 0;
}

/* What some tasks cost their user while they have not finished. */
typedef struct Cost {
        UserResource resource;
        uint64_t n;
} Cost;
enum { COSTS = 3 };

static void refund(const Caller *caller, const Cost *costs, size_t n) {
        for (size_t i = 0; i < n; i++)
                user_refund(caller->user, costs[i].resource, costs[i].n);
}

static int charge(const Caller *caller, const Cost *costs, Refusal *r) {
        size_t i = 0;
        while (i < COSTS && (costs[i].n == 0 || user_charge(caller->user, costs[i].resource, costs[i].n)))
                i++;
        if (i == COSTS)
                return 0;
        refund(caller, costs, i);
        UserResource what = costs[i].resource;
        int e = refuse(r, EQ_E_LIMIT, -EDQUOT,
                       "you have %llu %s already, the limit of a user; wait until some have ended",
                       (unsigned long long)caller->user->used[what], user_resource_name(what));
        REFUSAL_SAYS(r, what, eq_str(user_resource_name(what)));
        REFUSAL_SAYS(r, limit, caller->user->users->limits[what]);
        REFUSAL_SAYS(r, pending, caller->user->used[what]);
        return e;
}

static uint64_t args_descriptors(const SubmitArgs *args, size_t n) {
        uint64_t fds = 0;
        for (size_t i = 0; i < n; i++)
                fds += !args[i].known && args[i].stdin_fd >= 0;
        return fds;
}

static uint64_t args_bytes(const SubmitArgs *args, size_t n) {
        uint64_t bytes = 0;
        for (size_t i = 0; i < n; i++)
                bytes += args[i].known ? 0 : args[i].payload.len + args[i].options.len;
        return bytes;
}

/* When it may start and must have started, as the engine wants to know it. */
static void set_times(const Manager *m, Task *t, const EqSubmit *s) {
        static const uint64_t timed =
                EQ_BIT(Submit, delay_usec) | EQ_BIT(Submit, at_usec) | EQ_BIT(Submit, expire_usec);
        if (s->hold)
                t->wait |= TASK_WAIT_HELD;
        if (!(s->present & timed))
                return; /* most have none, and a clock costs as much as all the rest here */
        uint64_t now = clock_monotonic(m->clock);
        if (EQ_HAS(s, Submit, delay_usec))
                t->due_usec = usec_add(now, s->delay_usec);
        if (EQ_HAS(s, Submit, at_usec))
                t->due_usec = MAX(t->due_usec, clock_from_realtime(m->clock, s->at_usec));
        if (t->due_usec > now)
                t->wait |= TASK_WAIT_AT;
        if (EQ_HAS(s, Submit, expire_usec))
                t->expire_usec = usec_add(now, s->expire_usec);
}

/* What a task can have on the shelf, or in the window. A new option is none of them before it is known to need nothing but its bytes. */
static const uint64_t shelf_options =
        EQ_BIT(Submit, queue) | EQ_BIT(Submit, payload) | EQ_BIT(Submit, argv) | EQ_BIT(Submit, cwd) |
        EQ_BIT(Submit, env) | EQ_BIT(Submit, label) | EQ_BIT(Submit, timeout_usec) | EQ_BIT(Submit, grace_usec) |
        EQ_BIT(Submit, retries) | EQ_BIT(Submit, backoff_usec) | EQ_BIT(Submit, backoff_max_usec) |
        EQ_BIT(Submit, merge) | EQ_BIT(Submit, stdout_path) | EQ_BIT(Submit, stderr_path) | EQ_BIT(Submit, umask) |
        EQ_BIT(Submit, nice) | EQ_BIT(Submit, ionice) | EQ_BIT(Submit, rlimits) | EQ_BIT(Submit, mime) |
        EQ_BIT(Submit, block_usec);

/* A record that is ready to be pushed but for its SEQ. */
static int record_new(const Admission *a, const SubmitArgs *args, uint64_t now_usec, TaskRecord **ret) {
        const EqSubmit *s = args->submit;
        TaskRecord *t =
                task_record_new(a->queue, a->caller->identity, args->common, args->payload, args->options, now_usec);
        if (!t)
                return refuse(a->refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        t->retries = (uint16_t)(EQ_HAS(s, Submit, retries) ? s->retries : a->queue->attributes.retries);
        t->has_fd = args->stdin_fd >= 0;
        t->plain = !(s->present & ~shelf_options) && !t->has_fd;
        if (t->has_fd)
                t->retries = 0; /* what was read is gone */
        task_init(&t->task, 0, s->urgent ? TASK_LANE_URGENT : TASK_LANE_NORMAL, args->payload.len + args->options.len);
        set_times(a->manager, &t->task, s);
        int r = deps_add(a->manager, a->caller, t, s, a->refusal);
        if (r >= 0 && array_add(t, s) < 0)
                r = refuse(a->refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        if (r < 0) {
                task_record_free(t);
                return r;
        }
        *ret = t;
        return 0;
}

static int check_task(const Admission *a, const SubmitArgs *args) {
        const EqSubmit *s = args->submit;
        int r = queue_has_commands(a->queue) ? check_argv(a, s) : check_no_command(a, s);
        if (r >= 0 && queue_has_plugin(a->queue) && EQ_HAS(s, Submit, timeout_usec))
                r = refuse_field(a->refusal, EQ_E_INVALID, -EINVAL, "timeout",
                                 "queue %s gives its tasks to a plugin (executor=plugin), which cannot be stopped; "
                                 "leave "
                                 "it out",
                                 a->queue->queue->name);
        if (r >= 0 && (s->present & checked_options))
                r = check_options(a, s, args->stdin_fd);
        return r;
}

static void take(const Admission *a, TaskRecord *t, int stdin_fd) {
        t->spec.stdin_fd = stdin_fd;
        t->user = a->caller->user;
        t->user->n_refs++;
        a->manager->n_pending++;
}

/* Meanwhile, while it became durable: its queue, or another one that it holds. */
static bool is_removed(const Manager *m, const TaskRecord *t) {
        uint64_t id, seq;
        bool removed = t->queue->ending;
        for (size_t i = 0, n = barrier_n_others(&m->engine, &t->task); i < n; i++)
                removed = removed || queue_record(barrier_other(&m->engine, &t->task, i, &id, &seq))->ending;
        return removed;
}

void record_push(Manager *m, TaskRecord *t) {
        QueueRecord *q = t->queue;
        bool never = t->end_note == TASK_NOTE_DEPS || t->end_note == TASK_NOTE_REPLACED, removed = is_removed(m, t);
        manager_event_task(m, EQ_EVENT_TASK_ACCEPTED, t); /* before it can be started */
        if (!never && !removed && window_keep(t))
                return;
        if (t->links && !never)
                array_enter(t);
        queue_push(q->queue, &t->task);
        if (removed)
                t->end_note = TASK_NOTE_REMOVED;
        if (never || removed)
                (void)queue_cancel(q->queue, &t->task); /* runs already: it is left to run, as all that did */
}

void record_drop(Manager *m, TaskRecord *t) {
        user_refund(t->user, USER_TASKS, 1);
        user_refund(t->user, USER_TASK_BYTES, t->task.bytes);
        user_refund(t->user, USER_DESCRIPTORS, t->has_fd);
        m->n_pending--;
        barrier_unreserve(&m->engine, &t->task);
        queue_unreserve(t->queue->queue, 1, t->task.bytes);
        if (t->n_pins > 0)
                t->lost_in_history =
                        true; /* the last pin frees it. Who waits is told nothing that a restart may undo */
        else
                task_record_free(t);
}

void record_replace(TaskRecord *t) {
        uint8_t before = t->end_note;
        if (before == TASK_NOTE_NONE)
                t->end_note = TASK_NOTE_REPLACED;
        if (t->task.where == TASK_NOWHERE) /* record_push() cancels it */
                return;
        if (queue_cancel(t->queue->queue, &t->task) != 0)
                t->end_note = before; /* it runs */
}

/* All places of a task over several queues, or none. As space_reserve(). */
static int reserve_others(const Admission *a, const SubmitArgs *args, TaskRecord *t) {
        uint64_t ids[BARRIER_QUEUES_MAX], seqs[BARRIER_QUEUES_MAX];
        size_t i = 0;
        int r = 0;
        while (i < a->n_others && r == 0) {
                ids[i] = a->others[i]->queue->id;
                r = space_reserve(a->others[i], a->caller->by, args->submit->block_usec > 0, 1, 0, &seqs[i],
                                  a->refusal);
                i += r == 0;
        }
        if (r == 0 && barrier_make(&a->manager->engine, &t->task, ids, seqs, i) < 0)
                r = refuse(a->refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        while (r != 0 && i > 0)
                queue_unreserve(a->others[--i]->queue, 1, 0);
        return r;
}

/* Places in its queue and, for a task over several, in the others. Nobody comes between: to make room here may make some
 * elsewhere, and two tasks that have their places in different order would wait for each other for good. */
static int reserve_all(const Admission *a, const SubmitArgs *args, TaskRecord *first, size_t n, uint64_t n_bytes,
                       uint64_t *ret_first_seq) {
        Manager *m = a->manager;
        if (a->n_others > 0)
                space_keep(m);
        int r = space_reserve(a->queue, a->caller->by, args[0].submit->block_usec > 0, n, n_bytes, ret_first_seq,
                              a->refusal);
        if (r == 0 && a->n_others > 0 && (r = reserve_others(a, args, first)) != 0)
                queue_unreserve(a->queue->queue, n, n_bytes);
        space_let_go(m);
        return r;
}

static int index_all(const Admission *a, TaskRecord **records, size_t n, uint64_t first_seq) {
        for (size_t i = 0; i < n; i++) {
                int r = seq_index_put(&a->queue->tasks, first_seq + i, records[i]);
                if (r < 0) {
                        while (i-- > 0)
                                seq_index_remove(&a->queue->tasks, first_seq + i);
                        return refuse(a->refusal, EQ_E_NO_MEMORY, r, "out of memory");
                }
        }
        return 0;
}

/* Those of args that are not known: n_new records, in order. *ret_now: they are to be pushed now, not when they are
 * durable. */
static int admit(const Admission *a, const SubmitArgs *args, size_t n, TaskRecord **records, size_t n_new,
                 bool *ret_now) {
        uint64_t n_bytes = args_bytes(args, n), first_seq;
        const Cost costs[COSTS] = { { USER_TASKS, n_new },
                                    { USER_TASK_BYTES, n_bytes },
                                    { USER_DESCRIPTORS, args_descriptors(args, n) } };
        int r = 0;
        if (durable_queue(a->queue)) /* before its place costs another task */
                r = durable_may_grow(a->queue, a->refusal);
        if (r >= 0)
                r = charge(a->caller, costs, a->refusal);
        if (r < 0)
                return r;
        r = reserve_all(a, args, records[0], n_new, n_bytes, &first_seq);
        if (r == 0) {
                r = index_all(a, records, n_new, first_seq);
                for (size_t i = 0; i < n_new && r == 0; i++)
                        records[i]->task.seq = first_seq + i;
                if (r == 0)
                        r = durable_accept(a->queue, records, n_new, ret_now, a->refusal);
                if (r != 0) {
                        barrier_unreserve(&a->manager->engine, &records[0]->task);
                        queue_unreserve(a->queue->queue, n_new, n_bytes);
                }
        }
        if (r != 0)
                refund(a->caller, costs, COSTS);
        return r;
}

/* Makes the records and has them admitted. On anything but 0 there are none. */
static int make_all(const Admission *a, const SubmitArgs *args, size_t n, TaskRecord **records, size_t n_new,
                    bool *ret_now) {
        uint64_t now_usec = clock_realtime(a->manager->clock);
        size_t n_made = 0;
        int r = 0;
        for (size_t i = 0; i < n && r == 0; i++) {
                if (args[i].known)
                        continue;
                r = record_new(a, &args[i], now_usec, &records[n_made]);
                n_made += r == 0;
        }
        if (r == 0)
                r = admit(a, args, n, records, n_new, ret_now);
        while (r != 0 && n_made > 0)
                task_record_free(records[--n_made]);
        return r;
}

/* They are in: hands over what they brought, and lets them go. */
static void enter(const Admission *a, SubmitArgs *args, size_t n, TaskRecord **records, bool now) {
        TaskRecord **t = records;
        keys_assign(a->queue, args, n, records);
        for (size_t i = 0; i < n; i++) {
                if (args[i].known) {
                        close_fd(args[i].stdin_fd);
                        continue;
                }
                take(a, *t, args[i].stdin_fd);
                if (now)
                        record_push(a->manager, *t);
                t++;
        }
        keys_cancel_replaced(a->queue, args, n);
}

static int submit_new(const Admission *a, SubmitArgs *args, size_t n, size_t n_new, TaskRecord **ret_last) {
        TaskRecord *one = NULL, **records = &one;
        bool now = false;
        if (n_new > 1 && !(records = fault_calloc(n_new, sizeof(TaskRecord *))))
                return refuse(a->refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        int r = n_new > 0 ? make_all(a, args, n, records, n_new, &now) : 0;
        if (r == 0) {
                *ret_last = n_new > 0 ? records[n_new - 1] : NULL;
                enter(a, args, n, records, now);
        }
        if (records != &one)
                free(records);
        return r;
}

/* ---- to the shelf ---- */

static bool may_shelve(const QueueRecord *q, const SubmitArgs *args, size_t n) {
        if (!queue_may_shelve(q->queue) || durable_queue(q) || q->removing)
                return false;
        for (size_t i = 0; i < n; i++)
                if ((args[i].submit->present & ~shelf_options) || args[i].stdin_fd >= 0 ||
                    args[i].payload.len + args[i].options.len > SHELF_BYTES_MAX)
                        return false;
        return true;
}

static void tell_accepted(Manager *m, const QueueRecord *q, uint64_t first_seq, size_t n) {
        ShelfView view;
        for (uint64_t seq = first_seq; m->want_events && seq < first_seq + n; seq++)
                manager_event_task(m, EQ_EVENT_TASK_ACCEPTED, shelf_look(q, seq, seq_index_get(&q->tasks, seq), &view));
}

static int put_all(const Admission *a, SubmitArgs *args, size_t n, uint64_t first_seq) {
        uint64_t now_usec = clock_realtime(a->manager->clock), ordinal = queue_next_ordinal(a->queue->queue);
        for (size_t i = 0; i < n; i++) {
                const EqSubmit *s = args[i].submit;
                args[i].seq = first_seq + i;
                ShelfTask task = {
                        .seq = first_seq + i,
                        .ordinal = ordinal + i,
                        .identity = a->caller->identity,
                        .common = args[i].common,
                        .payload = args[i].payload,
                        .options = args[i].options,
                        .submitted_usec = now_usec,
                        .retries = (uint16_t)(EQ_HAS(s, Submit, retries) ? s->retries : a->queue->attributes.retries),
                };
                if (shelf_put(a->queue, &task) < 0) {
                        while (i-- > 0)
                                shelf_undo(a->queue, first_seq + i);
                        return refuse(a->refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
                }
        }
        return 0;
}

static int shelve(const Admission *a, SubmitArgs *args, size_t n) {
        uint64_t n_bytes = args_bytes(args, n), first_seq;
        const Cost costs[COSTS] = { { USER_TASKS, n }, { USER_TASK_BYTES, n_bytes }, { USER_DESCRIPTORS, 0 } };
        int r = charge(a->caller, costs, a->refusal);
        if (r < 0)
                return r;
        r = space_reserve(a->queue, a->caller->by, args[0].submit->block_usec > 0, n, n_bytes, &first_seq, a->refusal);
        if (r == 0) {
                r = put_all(a, args, n, first_seq);
                if (r < 0)
                        queue_unreserve(a->queue->queue, n, n_bytes);
        }
        if (r != 0) {
                refund(a->caller, costs, COSTS);
                return r;
        }
        a->caller->user->n_refs += (unsigned)n;
        a->manager->n_pending += n;
        tell_accepted(a->manager, a->queue, first_seq, n);
        queue_shelve(a->queue->queue, first_seq, n, n_bytes);
        return 0;
}

static int check_all(Admission *a, const SubmitArgs *args, size_t n) {
        int r = check_queue(a->manager, a->caller, a->queue, a->refusal);
        if (r >= 0)
                r = check_executor(a->manager, a->queue, a->refusal);
        if (r >= 0 && queue_has_commands(a->queue))
                r = check_identity(a);
        if (r >= 0)
                r = find_others(a, args, n);
        for (size_t i = 0; i < n && r >= 0; i++)
                r = check_task(a, &args[i]);
        return r;
}

/* Tasks mostly go where the one before went: then its name needs neither a check nor a hash. */
static int find_queue(Manager *m, EqBytes name, QueueRecord **ret, Refusal *r) {
        QueueRecord *last = m->last_submit;
        if (last && name.len == last->hh.keylen && memcmp(name.data, last->queue->name, name.len) == 0) {
                *ret = last;
                return 0;
        }
        int e = manager_find_queue(m, name, ret, r);
        if (e >= 0)
                m->last_submit = *ret;
        return e;
}

int manager_submit(Manager *m, const Caller *caller, EqBytes queue, SubmitArgs *args, size_t n, TaskRecord **ret_last,
                   eq_task_id *ret_first, Refusal *ret_refusal) {
        Admission a = { .manager = m, .caller = caller, .refusal = ret_refusal };
        size_t n_new;
        int r = find_queue(m, queue, &a.queue, ret_refusal);
        if (r < 0)
                return r;
        a.run_as = a.queue->fixed ? a.queue->fixed : caller->identity;
        r = check_all(&a, args, n);
        if (r >= 0 && may_shelve(a.queue, args, n)) {
                *ret_last = NULL;
                r = shelve(&a, args, n);
                if (r == 0)
                        *ret_first = (eq_task_id) { .queue = a.queue->queue->id, .seq = args[0].seq };
                return r;
        }
        if (r >= 0)
                r = keys_claim(a.queue, caller->identity->uid, args, n, &n_new, ret_refusal);
        if (r != 0)
                return r;
        r = submit_new(&a, args, n, n_new, ret_last);
        if (r == 0)
                *ret_first = (eq_task_id) { .queue = a.queue->queue->id, .seq = args[0].seq };
        else
                keys_unclaim(a.queue, args, n);
        return r;
}
