/* SPDX-License-Identifier: MIT */
/* Admission: everything that can refuse a task, and everything that can fail, happens here before queue_push().
 *
 * Order: queue, rights, the task itself, identity, the user's limits, the queue's capacity. What was charged or reserved
 * is given back on the way out. */

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "manager/durable.h"
#include "manager/parts.h"

/* One task of a submit on its way in. */
typedef struct Admission {
        Manager *manager;
        const Caller *caller;
        QueueRecord *queue;
        const Identity *run_as;
        Refusal *refusal;
} Admission;

static int check_text(Refusal *r, const char *what, EqBytes text) {
        if (eq_text_valid(text))
                return 0;
        return refuse(r, EQ_E_INVALID, -EINVAL, "%s: not UTF-8, or with control characters; use printable text", what);
}

static int check_env(Refusal *r, EqArray env) {
        EqBytes kv;
        while (eq_next_bytes(&env, &kv) > 0) {
                const char *eq = memchr(kv.data, '=', kv.len);
                if (!eq || eq == kv.data)
                        return refuse(r, EQ_E_INVALID, -EINVAL, "env: every string must be KEY=VALUE");
        }
        return 0;
}

/* What only a command can use. */
static const uint64_t command_options = EQ_BIT(Submit, argv) | EQ_BIT(Submit, cwd) | EQ_BIT(Submit, env) |
                                        EQ_BIT(Submit, merge) | EQ_BIT(Submit, stdout_path) |
                                        EQ_BIT(Submit, stderr_path) | EQ_BIT(Submit, umask) | EQ_BIT(Submit, nice) |
                                        EQ_BIT(Submit, rlimits) | EQ_BIT(Submit, stdin_fd);

static int check_no_command(const Admission *a, const EqSubmit *s) {
        uint64_t wrong = s->present & command_options;
        if (!wrong)
                return 0;
        return refuse(a->refusal, EQ_E_INVALID, -EINVAL,
                      "%s: queue %s is served by workers (executor=worker), which get a payload; send no command and "
                      "nothing for one",
                      eq_schema_Submit.fields[__builtin_ctzll(wrong)].name, a->queue->queue->name);
}

bool submit_fits_executor(const TaskRecord *t) {
        EqSubmit s = { 0 };
        task_spec_decode(&t->spec, &s);
        return queue_has_workers(t->queue) ? !(s.present & command_options) : EQ_HAS(&s, Submit, argv);
}

static int check_argv(const Admission *a, const EqSubmit *s) {
        EqArray argv = s->argv;
        EqBytes first;
        if (!EQ_HAS(s, Submit, argv) || eq_next_bytes(&argv, &first) <= 0 || first.len == 0)
                return refuse(a->refusal, EQ_E_INVALID, -EINVAL,
                              "argv: queue %s runs commands; name the program to run", a->queue->queue->name);
        return 0;
}

/* Options that most tasks do not have: looked at only if one is there. */
static const uint64_t checked_options = EQ_BIT(Submit, cwd) | EQ_BIT(Submit, env) | EQ_BIT(Submit, label) |
                                        EQ_BIT(Submit, nice) | EQ_BIT(Submit, rlimits) | EQ_BIT(Submit, stdin_fd);

static int check_options(const Admission *a, const EqSubmit *s, int stdin_fd) {
        Refusal *r = a->refusal;
        if (EQ_HAS(s, Submit, cwd) && (s->cwd.len == 0 || s->cwd.data[0] != '/'))
                return refuse(r, EQ_E_INVALID, -EINVAL, "cwd: must be an absolute path");
        if (EQ_HAS(s, Submit, label) && check_text(r, "label", s->label) < 0)
                return -EINVAL;
        if (EQ_HAS(s, Submit, env) && check_env(r, s->env) < 0)
                return -EINVAL;
        if (EQ_HAS(s, Submit, nice) && (s->nice < -20 || s->nice > 19))
                return refuse(r, EQ_E_INVALID, -EINVAL, "nice: must be within -20..19");
        if (EQ_HAS(s, Submit, stdin_fd) && s->stdin_fd) {
                if (stdin_fd < 0)
                        return refuse(r, EQ_E_INVALID, -EINVAL, "stdin_fd: no descriptor came with the message");
                if (s->retries > 0)
                        return refuse(
                                r, EQ_E_INVALID, -EINVAL,
                                "retries: not with stdin_fd, which can be read only once; send a payload instead");
        }
        char error[160];
        if (EQ_HAS(s, Submit, rlimits) && command_rlimits_check(s->rlimits, error, sizeof(error)) < 0)
                return refuse(r, EQ_E_INVALID, -EINVAL, "rlimits: %s", error);
        return 0;
}

static int check_identity(const Admission *a) {
        const SpawnReady *spawner = command_executor_spawner(a->manager->commands);
        uid_t uid = a->run_as->uid;
        bool own_only =
                !spawner || !spawner->any_identity || a->manager->config->daemon.identity == COMMAND_IDENTITY_OWN;
        if (manager_lost_others(a->manager) && uid != geteuid())
                return refuse(
                        a->refusal, EQ_E_IDENTITY, -EPERM,
                        "eqd cannot run commands as uid %u until it is restarted: its process that had the rights to "
                        "do so has died; tell the administrator",
                        (unsigned)uid);
        if (own_only && uid != geteuid())
                return refuse(
                        a->refusal, EQ_E_IDENTITY, -EPERM,
                        "this eqd runs as uid %u and cannot run commands as uid %u; use the system's eqd, or one of "
                        "your own (eqd --user)",
                        (unsigned)geteuid(), (unsigned)uid);
        if (uid == 0 && spawner && !spawner->root_allowed)
                return refuse(a->refusal, EQ_E_IDENTITY, -EPERM,
                              "commands of root are refused here (root_tasks=refuse in eqd.conf)");
        return 0;
}

/* Is there anything that can run its tasks? */
static int check_executor(const Manager *m, const QueueRecord *q, Refusal *r) {
        if (!m->no_commands || queue_has_workers(q))
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
        const Identity *id = caller->identity;
        const ParamAccess *allowed = &q->attributes.allow_submit;
        if (caller->admin || allowed->n == 0 ||
            param_access_allows(allowed, id->uid, id->gid, id->groups, id->n_groups))
                return 0;
        return refuse(r, EQ_E_DENIED, -EPERM, "you may not submit to queue %s (allow_submit)", q->queue->name);
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
        while (i < COSTS && user_charge(caller->user, costs[i].resource, costs[i].n))
                i++;
        if (i == COSTS)
                return 0;
        refund(caller, costs, i);
        UserResource what = costs[i].resource;
        return refuse(r, EQ_E_LIMIT, -EDQUOT,
                      "you have %llu %s already, the limit of a user; wait until some have ended",
                      (unsigned long long)caller->user->used[what], user_resource_name(what));
}

static uint64_t args_descriptors(const SubmitArgs *args, size_t n) {
        uint64_t fds = 0;
        for (size_t i = 0; i < n; i++)
                fds += args[i].stdin_fd >= 0;
        return fds;
}

static uint64_t args_bytes(const SubmitArgs *args, size_t n) {
        uint64_t bytes = 0;
        for (size_t i = 0; i < n; i++)
                bytes += args[i].submit->payload.len + args[i].options.len;
        return bytes;
}

/* Reserves places in the queue. 0, MANAGER_E_WAIT, or negative with a refusal. */
static int reserve(QueueRecord *q, bool may_wait, uint64_t n, uint64_t n_bytes, uint64_t *ret_first_seq, Refusal *r) {
        Queue *queue = q->queue;
        may_wait = may_wait || queue->params.on_full == QUEUE_FULL_BLOCK;
        if (may_wait && !list_is_empty(&q->space_waiters))
                return MANAGER_E_WAIT; /* others came first */

        int e = queue_reserve(queue, n, n_bytes, ret_first_seq);
        bool fits = n <= queue->params.max_tasks && n_bytes <= queue->params.max_bytes;
        while (e == QUEUE_E_FULL && fits && queue->params.on_full == QUEUE_FULL_DROP_OLDEST) {
                Task *oldest = queue_oldest(queue);
                if (!oldest)
                        break;
                task_record(oldest)->end_note = TASK_NOTE_DROPPED;
                (void)queue_cancel(queue, oldest); /* pending: cannot fail */
                e = queue_reserve(queue, n, n_bytes, ret_first_seq);
        }
        switch (e) {
        case 0:
                return 0;
        case QUEUE_E_FULL:
                if (fits && may_wait)
                        return MANAGER_E_WAIT;
                return refuse(r, EQ_E_FULL, -ENOSPC,
                              "queue %s is full: %zu of %llu tasks, %llu of %llu bytes; try again later, or raise "
                              "max_tasks or "
                              "max_bytes",
                              queue->name, queue->n_queued + queue->n_waiting,
                              (unsigned long long)queue->params.max_tasks, (unsigned long long)queue->n_bytes,
                              (unsigned long long)queue->params.max_bytes);
        case QUEUE_E_STOPPED:
                return refuse(r, EQ_E_STOPPED, -ESHUTDOWN, "queue %s is stopped and takes no more tasks", queue->name);
        case QUEUE_E_DRAINING:
                return refuse(r, EQ_E_DRAINING, -EAGAIN, "queue %s is draining; it reopens when it is empty",
                              queue->name);
        default:
                return refuse(r, EQ_E_NO_MEMORY, e, "out of memory");
        }
}

static uint64_t add_usec(uint64_t a, uint64_t b) {
        return a > USEC_NEVER - b ? USEC_NEVER : a + b;
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
                t->due_usec = add_usec(now, s->delay_usec);
        if (EQ_HAS(s, Submit, at_usec))
                t->due_usec = MAX(t->due_usec, clock_from_realtime(m->clock, s->at_usec));
        if (t->due_usec > now)
                t->wait |= TASK_WAIT_AT;
        if (EQ_HAS(s, Submit, expire_usec))
                t->expire_usec = add_usec(now, s->expire_usec);
}

/* A record that is ready to be pushed but for its SEQ. */
static int record_new(const Admission *a, const SubmitArgs *args, uint64_t now_usec, TaskRecord **ret) {
        const EqSubmit *s = args->submit;
        TaskRecord *t =
                task_record_new(a->queue, a->caller->identity, args->common, s->payload, args->options, now_usec);
        if (!t)
                return refuse(a->refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        t->retries = (uint16_t)(EQ_HAS(s, Submit, retries) ? s->retries : a->queue->attributes.retries);
        t->has_fd = args->stdin_fd >= 0;
        if (t->has_fd)
                t->retries = 0; /* what was read is gone */
        task_init(&t->task, 0, s->urgent ? TASK_LANE_URGENT : TASK_LANE_NORMAL, s->payload.len + args->options.len);
        set_times(a->manager, &t->task, s);
        int r = deps_add(a->manager, a->caller, t, s, a->refusal);
        if (r < 0) {
                task_record_free(t);
                return r;
        }
        *ret = t;
        return 0;
}

static int check_task(const Admission *a, const SubmitArgs *args) {
        const EqSubmit *s = args->submit;
        int r = queue_has_workers(a->queue) ? check_no_command(a, s) : check_argv(a, s);
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

void record_push(Manager *m, TaskRecord *t) {
        QueueRecord *q = t->queue;
        bool never = t->end_note == TASK_NOTE_DEPS;
        manager_event_task(m, EQ_EVENT_TASK_ACCEPTED, t); /* before it can be started */
        queue_push(q->queue, &t->task);
        if (q->removing)
                t->end_note = TASK_NOTE_REMOVED; /* meanwhile */
        if (never || q->removing)
                (void)queue_cancel(q->queue, &t->task); /* runs already: it is left to run, as all that did */
}

void record_drop(Manager *m, TaskRecord *t) {
        user_refund(t->user, USER_TASKS, 1);
        user_refund(t->user, USER_TASK_BYTES, t->task.bytes);
        user_refund(t->user, USER_DESCRIPTORS, t->has_fd);
        m->n_pending--;
        queue_unreserve(t->queue->queue, 1, t->task.bytes);
        task_record_free(t);
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

/* *ret_now: they are to be pushed now, not when they are durable. */
static int admit(const Admission *a, const SubmitArgs *args, size_t n, TaskRecord **records, uint64_t *ret_first_seq,
                 bool *ret_now) {
        uint64_t n_bytes = args_bytes(args, n);
        const Cost costs[COSTS] = { { USER_TASKS, n },
                                    { USER_TASK_BYTES, n_bytes },
                                    { USER_DESCRIPTORS, args_descriptors(args, n) } };
        int r = charge(a->caller, costs, a->refusal);
        if (r < 0)
                return r;
        r = reserve(a->queue, args[0].submit->block_usec > 0, n, n_bytes, ret_first_seq, a->refusal);
        if (r == 0) {
                r = index_all(a, records, n, *ret_first_seq);
                for (size_t i = 0; i < n && r >= 0; i++)
                        records[i]->task.seq = *ret_first_seq + i;
                if (r >= 0)
                        r = durable_accept(a->queue, records, n, ret_now, a->refusal);
                if (r < 0)
                        queue_unreserve(a->queue->queue, n, n_bytes);
        }
        if (r != 0)
                refund(a->caller, costs, COSTS);
        return r;
}

int manager_submit(Manager *m, const Caller *caller, EqBytes queue, const SubmitArgs *args, size_t n,
                   TaskRecord **ret_last, eq_task_id *ret_first, Refusal *ret_refusal) {
        QueueRecord *q;
        int r = manager_find_queue(m, queue, &q, ret_refusal);
        if (r >= 0)
                r = check_queue(m, caller, q, ret_refusal);
        if (r >= 0)
                r = check_executor(m, q, ret_refusal);
        if (r < 0)
                return r;

        Admission a = { .manager = m, .caller = caller, .queue = q, .refusal = ret_refusal };
        a.run_as = q->fixed ? q->fixed : caller->identity;
        r = queue_has_workers(q) ? 0 : check_identity(&a);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++) {
                r = check_task(&a, &args[i]);
                if (r < 0)
                        return r;
        }

        TaskRecord *one = NULL, **records = &one;
        size_t n_made = 0;
        uint64_t first_seq, now_usec = clock_realtime(m->clock);
        bool now;
        if (n > 1 && !(records = fault_calloc(n, sizeof(TaskRecord *))))
                return refuse(ret_refusal, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        while (r == 0 && n_made < n) {
                r = record_new(&a, &args[n_made], now_usec, &records[n_made]);
                n_made += r == 0;
        }
        if (r == 0)
                r = admit(&a, args, n, records, &first_seq, &now);
        if (r == 0) {
                *ret_first = (eq_task_id) { .queue = q->queue->id, .seq = first_seq };
                *ret_last = records[n - 1];
                for (size_t i = 0; i < n; i++) {
                        take(&a, records[i], args[i].stdin_fd);
                        if (now)
                                record_push(m, records[i]);
                }
        } else
                for (size_t i = 0; i < n_made; i++)
                        task_record_free(records[i]);
        if (records != &one)
                free(records);
        return r;
}

/* ---- waiting for space ---- */

static void space_time_over(Timer *timer) {
        SpaceWaiter *w = HEAP_ENTRY(timer, SpaceWaiter, timer);
        list_remove(&w->link);
        w->retry(w, false);
}

int manager_wait_space(Manager *m, QueueRecord *q, SpaceWaiter *w, uint64_t block_usec) {
        bool again = w->deadline_usec != 0;
        if (!again) {
                w->queue = q;
                w->timer = (Timer)TIMER_NULL(space_time_over);
                w->deadline_usec =
                        add_usec(clock_monotonic(m->clock), block_usec ? block_usec : q->attributes.block_timeout_usec);
        }
        int r = timer_set(&m->timers, &w->timer, w->deadline_usec);
        if (r < 0)
                return r;
        if (again)
                list_insert_before(q->space_waiters.next, &w->link); /* keeps its turn */
        else
                list_append(&q->space_waiters, &w->link);
        return 0;
}

void manager_wait_space_cancel(Manager *m, SpaceWaiter *w) {
        timer_unset(&m->timers, &w->timer);
        list_remove(&w->link);
}

/* Lets those who wait try again, first come first served, until one has to go on waiting. */
void space_fell_free(Manager *m, QueueRecord *q) {
        List *first;
        while ((first = list_first(&q->space_waiters))) {
                SpaceWaiter *w = LIST_ENTRY(first, SpaceWaiter, link);
                List rest; /* hidden meanwhile, so that its own retry does not see itself behind others */
                list_remove(&w->link);
                list_take_all(&q->space_waiters, &rest);
                timer_unset(&m->timers, &w->timer);
                w->retry(w, true);
                bool still_full = !list_is_empty(&q->space_waiters);
                for (List *l; (l = list_first(&rest));) {
                        list_remove(l);
                        list_append(&q->space_waiters, l);
                }
                if (still_full)
                        return;
        }
}
