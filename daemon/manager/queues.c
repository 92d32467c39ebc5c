/* SPDX-License-Identifier: MIT */
/* Queues by name: made and changed, from files and by clients.
 *
 * A file wins over a client: `queue set` on a queue from a file is an override that lasts until the file changes. A queue
 * whose file is gone is drained and removed. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/event.h"
#include "base/fault.h"
#include "manager/durable.h"
#include "manager/keys.h"
#include "manager/once.h"
#include "manager/parts.h"
#include "manager/removal.h"
#include "manager/space.h"
#include "manager/tombstones.h"
#include "manager/window.h"

/* ---- find ---- */

QueueRecord *manager_queue(const Manager *m, EqBytes name) {
        QueueRecord *q;
        HASH_FIND(hh, m->queues, name.data, name.len, q);
        return q;
}

int manager_find_queue(const Manager *m, EqBytes name, QueueRecord **ret, Refusal *ret_refusal) {
        if (!eq_name_valid(name))
                return refusal_of_field(
                        ret_refusal, "queue",
                        refuse(ret_refusal, EQ_E_INVALID, -EINVAL,
                               "not a queue name: 1 to %d of A-Z a-z 0-9 . _ @ -, not starting with - or .",
                               EQ_NAME_MAX));
        *ret = manager_queue(m, name);
        if (*ret)
                return 0;
        int r = refuse(ret_refusal, EQ_E_NO_QUEUE, -ENOENT, "no queue %.*s; eqctl queue create %.*s makes it",
                       (int)name.len, name.data, (int)name.len, name.data);
        REFUSAL_NAMES(ret_refusal, queue, name);
        return r;
}

int manager_may(EqKeeps keeps, const QueueRecord *q, Refusal *ret_refusal) {
        switch (keeps) {
        case EQ_KEEPS_WAITS:
                return durable_may_wait(q, ret_refusal);
        case EQ_KEEPS_CHANGES:
                return durable_may_change(q->manager, q, ret_refusal);
        default:
                return 0;
        }
}

int manager_may_control(const Caller *caller, const QueueRecord *q, Refusal *ret_refusal) {
        const Identity *id = caller->identity;
        const ParamAccess *allowed = &q->attributes.allow_control;
        if (caller->admin || (q->origin == QUEUE_FROM_CLIENT && q->creator == id->uid) ||
            param_access_allows(allowed, id->uid, id->gid, id->groups, id->n_groups))
                return 0;
        int r = refuse(ret_refusal, EQ_E_DENIED, -EPERM,
                       "queue %s is controlled by the user who made it, by allow_control, and by administrators",
                       q->queue->name);
        REFUSAL_NAMES(ret_refusal, queue, eq_str(q->queue->name));
        return r;
}

/* ---- make and free ---- */

static QueueExecutor executor_of(const QueueRecord *q) {
        return queue_has_commands(q)  ? QUEUE_EXECUTOR_COMMAND
               : queue_has_workers(q) ? QUEUE_EXECUTOR_WORKER
                                      : QUEUE_EXECUTOR_PLUGIN;
}

static void leave_executor(Manager *m, QueueRecord *q) {
        if (q->queue && queue_has_workers(q))
                worker_executor_remove_queue(m->workers, q->queue);
        if (q->queue && queue_has_plugin(q))
                plugin_executor_remove_queue(m->plugins, q->queue);
}

/* A queue without tasks, or one of which nothing was started yet, goes to the pool of the executor that a says. 0, or negative
 * errno: it runs commands, and will say that the tasks that it gets are none. */
static int use_executor(Manager *m, QueueRecord *q, const QueueAttributes *a) {
        QueueExecutor executor = a->executor;
        if (executor == QUEUE_EXECUTOR_PLUGIN &&
            !q->library) /* restored: until its file is looked at, as payloads for workers */
                executor = QUEUE_EXECUTOR_WORKER;
        if (executor == executor_of(q))
                return 0;
        leave_executor(m, q);
        queue_set_pool(q->queue, executor == QUEUE_EXECUTOR_WORKER    ? m->remote
                                 : executor == QUEUE_EXECUTOR_COMMAND ? m->pool
                                                                      : queue_wanted_pool(m, q, a, POOL_THREAD));
        int r = 0;
        if (executor == QUEUE_EXECUTOR_WORKER)
                r = worker_executor_add_queue(m->workers, q->queue);
        else if (executor == QUEUE_EXECUTOR_PLUGIN) {
                PluginSetup setup = plugins_setup(q, a);
                r = plugin_executor_add_queue(m->plugins, q->queue, &setup);
        }
        if (r < 0)
                queue_set_pool(q->queue, m->pool);
        return r;
}

/* Plugins are named by files only: they are code in eqd. */
static int check_plugin(const QueueRecord *q, QueueExecutor executor, Refusal *r) {
        bool is = q && queue_has_plugin(q);
        if (is == (executor == QUEUE_EXECUTOR_PLUGIN))
                return 0;
        return refuse_field(r, EQ_E_INVALID, -EINVAL, "executor",
                            is ? "the file of queue %s gives it a plugin; change that, then eqctl reload"
                               : "plugin can only be said by the queue's file, see eqd.queue(5)",
                            q ? q->queue->name : "");
}

static int check_executor(const QueueRecord *q, QueueExecutor executor, const char *where, Refusal *r) {
        if (executor == executor_of(q) || queue_is_empty(q->queue))
                return 0;
        return refusal_of_field(
                r, "executor",
                refuse(r, EQ_E_STATE, -EBUSY,
                       "%s%sexecutor: queue %s has tasks, which fit one executor only; drain it first, or make another "
                       "queue",
                       where ? where : "", where ? ": " : "", q->queue->name));
}

/* A command may be silent as long as it likes, unless somebody says otherwise. Plugins and workers can tell that they work. */
static void settle_life(const Manager *m, QueueAttributes *a) {
        const AttributeKind *k = &attributes_of_queues;
        const QueueAttributes *d = &m->config->queue_defaults;
        bool tells = a->executor != QUEUE_EXECUTOR_COMMAND;
        if (!attributes_is_set(k, a, "expected_runtime")) {
                bool ours = tells && !attributes_is_set(k, d, "expected_runtime");
                a->engine.expected_runtime_usec = ours ? 0 : d->engine.expected_runtime_usec;
        }
        if (!attributes_is_set(k, a, "hung_task")) {
                bool ours = tells && !attributes_is_set(k, d, "hung_task");
                a->engine.hung_task = ours ? HUNG_TASK_LIFE : d->engine.hung_task;
        }
}

/* What can fail of making a queue. id 0: a new one. */
static int fill_record(Manager *m, QueueRecord *q, const char *name, uint64_t id, const QueueAttributes *attributes) {
        int r = tombstone_get(m, name, &q->tombstone);
        if (r >= 0)
                r = events_reserve(q);
        if (r >= 0)
                r = timer_stand(&m->timers, &q->remove_timer);
        const QueueParams *params = &attributes->engine;
        if (r >= 0 && id == 0)
                r = queue_new(&m->engine, m->pool, name, params, q->tombstone->last_seq, &q->queue);
        else if (r >= 0)
                r = queue_restore(&m->engine, m->pool, name, params, id, q->tombstone->last_seq, &q->queue);
        if (r < 0)
                return r;
        q->queue->owner = q;
        r = use_executor(m, q, attributes);
        if (r < 0)
                return r;
        HASH_ADD_KEYPTR(hh, m->queues, q->queue->name, strlen(q->queue->name), q);
        return q->hh.tbl ? 0 : -ENOMEM;
}

/* Takes *attributes over on success. */
static int record_new(Manager *m, const char *name, uint64_t id, QueueAttributes *attributes, PluginLibrary *library,
                      Identity *run_as, QueueOrigin origin, uid_t creator, QueueRecord **ret) {
        QueueRecord *q = fault_calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->manager = m;
        q->origin = origin;
        q->creator = creator;
        q->library = plugin_library_ref(library);
        list_init(&q->history);
        list_init(&q->rescued_link);
        list_init(&q->finished_keys);
        list_init(&q->space_waiters);
        list_init(&q->removers);
        settle_life(m, attributes);
        q->remove_timer = (Timer)TIMER_NULL(removal_fire);
        q->age_timer = (Timer)TIMER_NULL(history_age_fire);
        q->key_timer = (Timer)TIMER_NULL(keys_age_fire);
        int r = fill_record(m, q, name, id, attributes);
        if (r < 0) {
                timer_drop(&m->timers, &q->remove_timer);
                leave_executor(m, q);
                events_unreserve(q);
                queue_free(q->queue);
                plugin_library_unref(q->library);
                free(q);
                return r;
        }
        q->fixed = identity_ref(run_as);
        q->attributes = *attributes;
        memset(attributes, 0, sizeof(*attributes));
        queue_settle_pool(m, q);
        once_follow(q);
        *ret = q;
        return 0;
}

int queue_record_restore(Manager *m, const char *name, uint64_t id, uint64_t last_seq, QueueAttributes *attributes,
                         uid_t creator, QueueRecord **ret) {
        int r = id ? tombstone_restore(m, eq_str(name), last_seq) : -EINVAL;
        if (r >= 0)
                r = record_new(m, name, id, attributes, NULL, m->config->default_run_as, QUEUE_FROM_CLIENT, creator,
                               ret);
        return r;
}

static void free_tasks(Manager *m, QueueRecord *q) {
        uint64_t seq = 0;
        for (TaskRecord *t; (t = seq_index_next(&q->tasks, &seq)); seq++) {
                assert(task_record_finished(t));
                history_drop(m, t);
        }
}

void queue_record_destroy(QueueRecord *q) {
        window_forget_queue(q);
        queue_free(q->queue);
        seq_index_done(&q->tasks);
        queue_attributes_deinit(&q->attributes);
        identity_unref(q->fixed);
        plugin_library_unref(q->library);
        free(q);
}

QueueRecord *queue_record_free(Manager *m, QueueRecord *q) {
        if (!q)
                return NULL;
        timer_drop(&m->timers, &q->remove_timer);
        timer_drop(&m->timers, &q->age_timer);
        timer_drop(&m->timers, &q->key_timer);
        HASH_DELETE(hh, m->queues, q);
        if (m->last_submit == q)
                m->last_submit = NULL;
        rescue_drop(m, q);
        leave_executor(m, q);
        events_unreserve(q);
        while (!list_is_empty(&q->space_waiters)) {
                SpaceWaiter *w = LIST_ENTRY(q->space_waiters.next, SpaceWaiter, link);
                manager_wait_space_cancel(m, w);
                w->retry(w, false);
        }
        q->tombstone->last_seq = q->queue->last_seq;
        keys_clear(q);
        free_tasks(m, q);
        q->gone = true;
        if (queue_has_commands(q))
                queue_set_pool(q->queue, m->pool); /* its own may go before the last pin */
        if (q->n_pins == 0)
                queue_record_destroy(q);
        return NULL;
}

/* ---- by clients ---- */

static PoolKind kind_for(QueueExecutor executor) {
        static const PoolKind kinds[_QUEUE_EXECUTOR_MAX] = {
                [QUEUE_EXECUTOR_COMMAND] = POOL_COMMAND,
                [QUEUE_EXECUTOR_WORKER] = POOL_REMOTE,
                [QUEUE_EXECUTOR_PLUGIN] = POOL_THREAD,
        };
        return kinds[executor];
}

static int set_all(const Manager *m, QueueAttributes *a, EqArray set, Refusal *r) {
        char before[EQ_NAME_MAX + 1] = "";
        strncpy(before, a->pool, EQ_NAME_MAX);
        int e = manager_set_attributes(&attributes_of_queues, a, &m->config->queue_defaults, set, r);
        if (e < 0)
                return e;
        return strcmp(before, a->pool) == 0 ? 0 : manager_check_pool(m, a->pool, kind_for(a->executor), r);
}

static int exists(Manager *m, const Caller *caller, QueueRecord *q, const EqArray *set, bool exist_ok,
                  QueueRecord **ret, Refusal *r) {
        if (!exist_ok) {
                int e = refuse(r, EQ_E_EXISTS, -EEXIST, "queue %s exists; eqctl queue set changes it", q->queue->name);
                REFUSAL_NAMES(r, queue, eq_str(q->queue->name));
                return e;
        }
        if (q->removing)
                return refuse(r, EQ_E_STATE, -EBUSY, "queue %s is being removed; try again in a moment",
                              q->queue->name);
        *ret = q;
        return set->n > 0 ? manager_queue_set(m, caller, q, set, r) : 0;
}

int manager_queue_create(Manager *m, const Caller *caller, EqBytes name, const EqArray *set, bool exist_ok,
                         QueueRecord **ret, Refusal *ret_refusal) {
        if (!eq_name_valid(name))
                return manager_find_queue(m, name, ret, ret_refusal); /* refuses */
        QueueRecord *q = manager_queue(m, name);
        if (q)
                return exists(m, caller, q, set, exist_ok, ret, ret_refusal);

        _cleanup_(queue_attributes_deinit) QueueAttributes a;
        int r = queue_attributes_init(&a, &m->config->queue_defaults);
        if (r < 0)
                return refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        r = set_all(m, &a, *set, ret_refusal);
        if (r >= 0)
                r = check_plugin(NULL, a.executor, ret_refusal);
        if (r >= 0)
                r = rescue_check(caller, NULL, &a, NULL, ret_refusal);
        if (r < 0)
                return r;
        char text[EQ_NAME_MAX + 1] = "";
        memcpy(text, name.data, name.len);
        r = record_new(m, text, 0, &a, NULL, m->config->default_run_as, QUEUE_FROM_CLIENT, caller->identity->uid, ret);
        if (r == -ENOSPC)
                return refuse(ret_refusal, EQ_E_LIMIT, r, "there are as many queues as eqd can have");
        if (r < 0)
                return refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        r = durable_queue(*ret) ? durable_may_grow(*ret, ret_refusal) : 0;
        if (r >= 0 && (r = rescue_settle(m, *ret, &(*ret)->attributes)) < 0)
                (void)rescue_refuse(ret_refusal, *ret, &(*ret)->attributes, r);
        if (r < 0) {
                queue_record_free(m, *ret);
                return r;
        }
        durable_put_queue(*ret);
        manager_event_queue(m, EQ_EVENT_QUEUE_CREATED, *ret, NULL);
        return 0;
}

/* What its attributes say, after they have changed. */
static void put_into_force(Manager *m, QueueRecord *q) {
        queue_settle_pool(m, q);
        settle_life(m, &q->attributes);
        queue_set_params(q->queue, &q->attributes.engine);
        once_follow(q);
        rescue_follow(m, q);
        workers_recheck(m, q);
        plugins_changed(m, q);
        history_trim(m, q);
        keys_trim(q);
        space_fell_free(m, q);
}

/* Takes *a over. */
static void apply(Manager *m, QueueRecord *q, QueueAttributes *a) {
        queue_attributes_deinit(&q->attributes);
        q->attributes = *a;
        memset(a, 0, sizeof(*a));
        put_into_force(m, q);
        manager_queue_changed(q, "attributes");
}

bool manager_is_durable(const QueueRecord *q) {
        return durable_queue(q);
}

void manager_queue_changed(QueueRecord *q, const char *what) {
        durable_put_queue(q);
        manager_event_queue(q->manager, EQ_EVENT_QUEUE_CHANGED, q, what);
}

/* Tasks are kept from their submit to the end of their history, or not at all. */
static bool may_change_durable(const QueueRecord *q) {
        return queue_is_empty(q->queue) && q->n_history == 0 && q->n_unsettled == 0;
}

static int check_durable(const QueueRecord *q, bool durable, Refusal *r) {
        if (durable == q->attributes.durable)
                return 0;
        if (may_change_durable(q))
                return durable ? durable_may_grow(q, r) : 0;
        return refuse_field(r, EQ_E_STATE, -EBUSY, "durable",
                            "queue %s has tasks or a history, which are %s; remove the queue, or make another one",
                            q->queue->name, q->attributes.durable ? "on disk" : "in memory");
}

/* A file, or a default, that says otherwise waits until the queue is made anew. */
static void settle_durable(QueueRecord *q, bool was, bool *durable) {
        if (*durable == was)
                return;
        if (!may_change_durable(q)) {
                log_event(DURABLE_STAYS, (.queue = q->queue->name), q->queue->name, was ? "yes" : "no");
                *durable = was;
                return;
        }
        keys_clear(q); /* those of what was forgotten are where the queue was */
        if (was)
                durable_put_gone(q); /* to the store; it lives on in memory */
}

int manager_queue_set(Manager *m, const Caller *caller, QueueRecord *q, const EqArray *set, Refusal *ret_refusal) {
        int r = manager_may_control(caller, q, ret_refusal);
        if (r >= 0)
                r = manager_may(EQ_KEEPS_CHANGES, q, ret_refusal); /* it may be found there by queue_create, too */
        if (r < 0)
                return r;
        _cleanup_(queue_attributes_deinit) QueueAttributes a;
        r = queue_attributes_copy(&a, &q->attributes);
        if (r < 0)
                return refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        r = set_all(m, &a, *set, ret_refusal);
        if (r >= 0)
                r = check_plugin(q, a.executor, ret_refusal);
        if (r >= 0)
                r = rescue_check(caller, &q->attributes, &a, NULL, ret_refusal);
        if (r >= 0)
                r = check_executor(q, a.executor, NULL, ret_refusal);
        if (r >= 0)
                r = check_durable(q, a.durable, ret_refusal);
        if (r < 0)
                return r;
        r = rescue_settle(m, q, &a);
        if (r < 0)
                return rescue_refuse(ret_refusal, q, &a, r);
        r = use_executor(m, q, &a);
        if (r < 0) {
                rescue_follow(m, q);
                return refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        }
        settle_durable(q, q->attributes.durable, &a.durable);
        q->overridden = q->origin == QUEUE_FROM_FILE;
        apply(m, q, &a);
        return 0;
}

void manager_queue_stop(QueueRecord *q) {
        q->was_stopped = true;
        queue_stop(q->queue);
        manager_queue_changed(q, "stopped");
}

/* ---- from files ---- */

static void set_fixed(QueueRecord *q, Identity *run_as) {
        identity_unref(q->fixed);
        q->fixed = identity_ref(run_as);
}

/* Checked before anything was changed: see check_files(). */
static void change_executor(Manager *m, QueueRecord *q, const QueueAttributes *a) {
        int r = use_executor(m, q, a);
        if (r < 0)
                log_event(EXECUTOR_LOST, (.queue = q->queue->name, .error = strerror(-r)), q->queue->name,
                          strerror(-r));
}

static void set_library(QueueRecord *q, PluginLibrary *library) {
        PluginLibrary *before = q->library;
        q->library = plugin_library_ref(library);
        plugin_library_unref(before);
}

/* The defaults below it may have changed, for what neither its file nor a client has set. */
static void rebase(Manager *m, QueueRecord *q, const QueueAttributes *base) {
        bool was = q->attributes.durable;
        if (queue_attributes_rebase(&q->attributes, base) < 0)
                log_event(DEFAULT_LOST, (.queue = q->queue->name), q->queue->name);
        bool durable = q->attributes.durable;
        q->attributes.durable = was;
        settle_durable(q, was, &durable);
        q->attributes.durable = durable;
        if (durable && !was)
                durable_put_queue(q);
        change_executor(m, q, &q->attributes);
        put_into_force(m, q);
}

static void file_changed(Manager *m, QueueRecord *q, ConfigQueue *file) {
        set_fixed(q, file->run_as);
        set_library(q, file->library);
        if (queue_has_plugin(q) || file->library)
                q->attributes.executor = file->attributes.executor; /* never overridden */
        if (q->origin == QUEUE_FROM_FILE && q->digest == file->digest) {
                rebase(m, q, &file->attributes);
                return;
        }
        q->origin = QUEUE_FROM_FILE;
        q->overridden = false;
        q->digest = file->digest;
        change_executor(m, q, &file->attributes);
        settle_durable(q, q->attributes.durable, &file->attributes.durable);
        apply(m, q, &file->attributes);
}

static int file_new(Manager *m, ConfigQueue *file, Refusal *r) {
        QueueRecord *q;
        int e = record_new(m, file->name, 0, &file->attributes, file->library, file->run_as, QUEUE_FROM_FILE, geteuid(),
                           &q);
        if (e < 0)
                return refuse(r, EQ_E_NO_MEMORY, e, "%s: cannot make the queue: %s", file->file, strerror(-e));
        e = rescue_settle(m, q, &q->attributes);
        if (e < 0) {
                e = rescue_refuse(r, q, &q->attributes, e);
                queue_record_free(m, q);
                return e;
        }
        q->digest = file->digest;
        durable_put_queue(q);
        manager_event_queue(m, EQ_EVENT_QUEUE_CREATED, q, NULL);
        return 0;
}

static bool has_file(const Config *c, const char *name) {
        for (size_t i = 0; i < c->n_queues; i++)
                if (strcmp(c->queues[i].name, name) == 0)
                        return true;
        return false;
}

static void file_gone(Manager *m, QueueRecord *q) {
        log_event(QUEUE_FILE_GONE, (.queue = q->queue->name), q->queue->name);
        removal_begin(q);
        removal_settle(m, q);
}

/* There is always a queue for those who name none. */
static int make_default(Manager *m, Refusal *r) {
        QueueRecord *q;
        if (manager_queue(m, eq_str("default")))
                return 0;
        QueueAttributes a;
        int e = queue_attributes_init(&a, &m->config->queue_defaults);
        if (e >= 0)
                e = record_new(m, "default", 0, &a, NULL, m->config->default_run_as, QUEUE_FROM_CLIENT, geteuid(), &q);
        if (e < 0)
                return refuse(r, EQ_E_NO_MEMORY, e, "cannot make queue default: %s", strerror(-e));
        rescue_follow(m, q);
        durable_put_queue(q);
        return 0;
}

void queues_apply_settings(Manager *m) {
        const DaemonSettings *d = &m->config->daemon;
        log_set_level(d->log_level);
        m->users.limits[USER_CONNECTIONS] = d->connections_per_user;
        m->users.limits[USER_TASKS] = d->tasks_per_user;
        m->users.limits[USER_DESCRIPTORS] = d->descriptors_per_user;
        m->users.limits[USER_TASK_BYTES] = d->task_bytes_per_user;
        m->users.limits[USER_OUTPUT_BYTES] = d->output_bytes_per_user;
        pools_follow_settings(m);
        plugin_executor_set_hogs(m->plugins, d->cpu_intensive_thresh_us, d->cpu_intensive_warning_thresh);
        rescue_follow_settings(m);
        stalls_check_settings(m);
        durable_follow_settings(m);
        command_executor_set_stock(m->commands, pressure_stock(m));
        LIST_FOREACH (link, &m->engine.pools)
                pool_show_attributes(m, LIST_ENTRY(link, Pool, link));
        if (m->hooks->configured)
                m->hooks->configured(m->host);
}

/* At the start a file may say something else than what the tasks that were kept are made for. They win: no eqd would be worse. */
static int keep_executor(const QueueRecord *q, ConfigQueue *file) {
        bool commands = file->attributes.executor == QUEUE_EXECUTOR_COMMAND;
        if (queue_is_empty(q->queue) || commands == queue_has_commands(q))
                return 0; /* nothing has been started yet, and payloads fit workers and plugins */
        log_event(EXECUTOR_STAYS, (.queue = file->name), file->file, file->name);
        file->digest = 0; /* the next reload looks at it again */
        file->attributes.executor = executor_of(q);
        return 0;
}

static int check_file(const Manager *m, const Config *config, ConfigQueue *file, Refusal *r) {
        const QueueRecord *q = manager_queue(m, eq_str(file->name));
        char where[sizeof(r->text) / 2];
        snprintf(where, sizeof(where), "%s: ", file->file);
        int e = rescue_check(NULL, NULL, &file->attributes, where, r);
        if (e < 0 || !q)
                return e;
        if (q->removing)
                return refuse(r, EQ_E_STATE, -EBUSY, "%s: queue %s is being removed; reload again in a moment",
                              file->file, file->name);
        if (config == m->config)
                return keep_executor(q, file);
        return check_executor(q, file->attributes.executor, file->file, r);
}

/* With other defaults a queue that says nothing itself may get another executor. */
static int check_default(const Manager *m, const QueueRecord *q, const Config *config, Refusal *r) {
        if (q->origin != QUEUE_FROM_CLIENT || config == m->config)
                return 0;
        _cleanup_(queue_attributes_deinit) QueueAttributes a;
        int e = queue_attributes_copy(&a, &q->attributes);
        if (e >= 0)
                e = queue_attributes_rebase(&a, &config->queue_defaults);
        if (e < 0)
                return refuse(r, EQ_E_NO_MEMORY, e, "out of memory");
        return check_executor(q, a.executor, "defaults of queues", r);
}

static int check_files(const Manager *m, const Config *config, Refusal *r) {
        for (size_t i = 0; i < config->n_queues; i++) {
                int e = check_file(m, config, &config->queues[i], r);
                if (e < 0)
                        return e;
        }
        for (const QueueRecord *q = m->queues; q; q = q->hh.next) {
                int e = check_default(m, q, config, r);
                if (e < 0)
                        return e;
        }
        return 0;
}

int queues_set_defaults(Manager *m, QueueAttributes *a, Refusal *r) {
        int e = manager_check_pool(m, a->pool, POOL_REMOTE, r);
        if (e >= 0 && a->durable != m->config->queue_defaults.durable)
                e = durable_may_change(m, NULL, r);
        for (QueueRecord *q = m->queues; e >= 0 && q; q = q->hh.next)
                if (!attributes_is_set(&attributes_of_queues, &q->attributes, "executor"))
                        e = check_executor(q, a->executor, "default of queues", r);
        if (e < 0)
                return e;
        queue_attributes_deinit(&m->config->queue_defaults);
        m->config->queue_defaults = *a;
        memset(a, 0, sizeof(*a));
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                if (!q->removing)
                        rebase(m, q, &m->config->queue_defaults);
        return 0;
}

/* What `param set` has changed is lost with the old one, and is said. */
static void say_what_is_lost(const Config *old) {
        int n = __builtin_popcountll(old->daemon_set) + __builtin_popcountll(old->queue_defaults_set);
        if (n > 0)
                log_event(SETTINGS_RESET, (0), n);
}

int queues_apply_config(Manager *m, Config *config, Refusal *r) {
        int checked = check_files(m, config, r);
        if (checked >= 0 && config != m->config) /* else pools have taken over what it says of them: manager_start() */
                checked = pools_check_config(m, config, r);
        if (checked < 0)
                return checked;
        if (config != m->config) {
                say_what_is_lost(m->config);
                config_free(m->config);
                m->config = config;
                int applied = pools_apply_config(m, r);
                if (applied < 0)
                        return applied;
        }
        queues_apply_settings(m);
        for (size_t i = 0; i < config->n_queues; i++) {
                ConfigQueue *file = &config->queues[i];
                QueueRecord *q = manager_queue(m, eq_str(file->name));
                if (q)
                        file_changed(m, q, file);
                else {
                        int e = file_new(m, file, r);
                        if (e < 0)
                                return e;
                }
        }
        QueueRecord *q, *next;
        HASH_ITER(hh, m->queues, q, next)
        if (q->origin == QUEUE_FROM_CLIENT) {
                set_fixed(q, config->default_run_as);
                rebase(m, q, &config->queue_defaults);
        } else if (!q->removing && !has_file(config, q->queue->name))
                file_gone(m, q);
        int made = make_default(m, r);
        pools_settle_queues(m);
        return made;
}
