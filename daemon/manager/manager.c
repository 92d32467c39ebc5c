/* SPDX-License-Identifier: MIT */
/* Joins the engine, the command executor and the records: what each tells goes here to those whom it concerns.
 *
 *      submit -> record -> queue_push         engine: started, ended -> fate, finished -> history, waits, dependents
 *      command executor: prepare, running, output -> followers       timers: engine, waits, space, ages
 */

#include "manager/manager.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>

#include "base/event.h"
#include "base/fault.h"
#include "engine/barrier.h"
#include "manager/arrays.h"
#include "manager/durable.h"
#include "manager/keys.h"
#include "manager/once.h"
#include "manager/parts.h"
#include "manager/removal.h"
#include "manager/shelf.h"
#include "manager/snapshot.h"
#include "manager/space.h"
#include "manager/tombstones.h"
#include "manager/window.h"

#define REFILL_RETRY_USEC (USEC_PER_SEC / 10)
enum { BURST_MIN = 20000 }; /* pending tasks */

/* ---- what the engine tells ---- */

/* task.started is sent when the process is known, or just before the end of one that was too quick for that. */
static void announce(Manager *m, TaskRecord *t) {
        if (!t->run || t->run->announced)
                return;
        t->run->announced = true;
        manager_event_task(m, EQ_EVENT_TASK_STARTED, t);
        task_waits_settle(m, t);
}

/* While eqd stops: was it the last that ran? */
static void look_whether_stopped(Manager *m) {
        if (m->stopped)
                (void)timer_set(&m->timers, &m->stop_timer, clock_monotonic(m->clock)); /* stands: cannot fail */
}

/* Commands are announced when their process is known. */
static void on_started(void *host, Task *task) {
        TaskRecord *t = task_record(task);
        if (queue_has_plugin(t->queue))
                plugins_began(host, t);
        if (!queue_has_commands(t->queue))
                announce(host, t);
}

/* While eqd stops: whether a command ended by the first signal or had to be killed is told at the end. */
static void count_stopped(Manager *m, const TaskRecord *t, const TaskResult *result) {
        if (!m->stopping || result->verdict != TASK_STOPPED || !result->details || !queue_has_commands(t->queue))
                return;
        if (((const CommandResult *)result->details)->signal == SIGKILL)
                m->n_killed++;
        else
                m->n_stopped++;
}

static TaskFate on_ended(void *host, Task *t, const TaskResult *result) {
        count_stopped(host, task_record(t), result);
        if (result->verdict != TASK_NOT_STARTED)
                announce(host, task_record(t));
        look_whether_stopped(host);
        once_run_is_over(task_record(t));
        return fate_decide(host, task_record(t), result);
}

static int on_clear(void *host, Task *t) {
        return once_clear(task_record(t));
}

static void on_not_started(void *host, Task *t) {
        once_not_started(task_record(t));
        look_whether_stopped(host);
}

static void on_ended_well(void *host, Task *t, const TaskResult *result) {
        announce(host, task_record(t));
        look_whether_stopped(host);
        once_run_is_over(task_record(t));
        run_keep_result(host, task_record(t), result);
}

/* What many tasks took goes back to the system when most of them have ended: pages of the heap stay otherwise, for the few
 * that are not free lie all over it. So seldom that nobody pays: once for BURST_MIN ends at most. */
static void settle_burst(Manager *m) {
        m->burst = MAX(m->burst, m->n_pending + 1);
        if (m->burst < BURST_MIN || m->n_pending > m->burst / 16)
                return;
        m->burst = m->n_pending;
        spares_clear(&m->spares);
        (void)malloc_trim(0); /* whether there was anything does not matter */
}

static void on_finished(void *host, Task *task) {
        Manager *m = host;
        TaskRecord *t = task_record(task);
        t->finished_usec = clock_realtime(m->clock);
        if (t->end_note == TASK_NOTE_DEPS)
                t->end_reason = EQ_REASON_DEPS_NEVER;
        else if (task->state == EQ_STATE_DONE)
                t->end_note = TASK_NOTE_NONE; /* it was quicker than its cancel */
        m->n_pending--;
        settle_burst(m);
        array_end(t); /* as the queue: the next one does not wait for the disk */
        t->spec.stdin_fd = close_fd(t->spec.stdin_fd);
        user_refund(t->user, USER_TASKS, 1);
        user_refund(t->user, USER_TASK_BYTES, task->bytes);
        user_refund(t->user, USER_DESCRIPTORS, t->has_fd);
        if (!durable_put_end(t))
                record_settle(m, t);
}

void record_settle(Manager *m, TaskRecord *t) {
        Queue *other;
        uint64_t id, seq;
        manager_event_task(m, EQ_EVENT_TASK_FINISHED, t);
        manager_log_end(m, t);
        followers_end(t, FOLLOWERS_OF_TASK);
        history_add(m, t);
        task_waits_settle(m, t);
        deps_settle(m, t);
        removal_settle(m, t->queue);
        for (size_t i = 0, n = barrier_n_others(&m->engine, &t->task); i < n; i++)
                if ((other = barrier_other(&m->engine, &t->task, i, &id, &seq)))
                        removal_settle(m, queue_record(other));
}

static void on_space(void *host, Queue *q) {
        Manager *m = host;
        if (q->owner && !list_is_empty(&queue_record(q)->space_waiters))
                space_fell_free(m, queue_record(q));
}

static void on_pool_idle(void *host, Pool *p) {
        pool_record_settle(host, p);
}

void refill_later(Manager *m) {
        (void)timer_set(&m->timers, &m->refill_timer, clock_monotonic(m->clock) + REFILL_RETRY_USEC); /* stands */
}

static void on_refill(void *host, Queue *q) {
        if (q->owner && !shelf_refill(queue_record(q)))
                refill_later(host);
}

static void refill_fire(Timer *timer) {
        Manager *m = HEAP_ENTRY(timer, Manager, refill_timer);
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                queue_refill(q->queue);
}

static void on_rearm(void *host, uint64_t next_usec) {
        Manager *m = host;
        (void)timer_set(&m->timers, &m->engine_timer, next_usec); /* stands: cannot fail */
}

static const EngineHooks engine_hooks = {
        .clear = on_clear,
        .started = on_started,
        .not_started = on_not_started,
        .ended = on_ended,
        .ended_well = on_ended_well,
        .finished = on_finished,
        .space = on_space,
        .pool_idle = on_pool_idle,
        .refill = on_refill,
        .mayday = rescue_on_mayday,
        .relieved = rescue_on_relieved,
        .creation = pool_on_creation,
        .rearm = on_rearm,
};

static void engine_fire(Timer *timer) {
        Manager *m = HEAP_ENTRY(timer, Manager, engine_timer);
        uint64_t next = engine_run_due(&m->engine);
        if (next != USEC_NEVER)
                on_rearm(m, next);
}

/* ---- what the command executor asks and tells ---- */

static uint64_t task_grace(const TaskRecord *t, const EqSubmit *s) {
        return EQ_HAS(s, Submit, grace_usec) ? s->grace_usec : t->queue->attributes.grace_usec;
}

static int on_prepare(void *host, Task *task, CommandSetup *ret) {
        TaskRecord *t = task_record(task);
        EqSubmit s = { 0 };
        int r = run_prepare(t);
        if (r < 0)
                return r;
        task_spec_decode(&t->spec, &s);
        *ret = (CommandSetup) {
                .spec = &t->spec,
                .queue = t->queue->queue->name,
                .run_as = t->queue->fixed ? t->queue->fixed : t->spec.identity,
                .log = t->queue->attributes.output == COMMAND_OUTPUT_NULL ? NULL : &t->run->log,
                .timeout_usec = EQ_HAS(&s, Submit, timeout_usec) ? s.timeout_usec : t->queue->attributes.timeout_usec,
                .grace_usec = task_grace(t, &s),
                .nice = (int)((const PoolRecord *)task->slot->pool->owner)->attributes.nice,
        };
        durable_started(t); /* before it can run */
        return 0;
}

static void on_unprepare(void *host, Task *t) {
        durable_stopped(task_record(t));
}

static void on_running(void *host, Task *task, pid_t pid, uint64_t start_ticks) {
        TaskRecord *t = task_record(task);
        t->run->pid = pid;
        durable_runs_as(t, pid, start_ticks);
        announce(host, t);
}

static bool on_output(void *host, Task *task, uint8_t stream, const char *data, size_t n) {
        bool clogged = false;
        TaskLinks *links = task_record(task)->links;
        if (!links)
                return false;
        LIST_FOREACH_SAFE (l, &links->followers) {
                Follower *f = LIST_ENTRY(l, Follower, link);
                if (f->output(f, task->attempt, stream, data, n) && f->must)
                        clogged = true;
        }
        return clogged;
}

bool manager_lost_others(const Manager *m) {
        const SpawnReady *spawner = command_executor_spawner(m->commands);
        return m->others_once && spawner && !spawner->any_identity;
}

static void on_spawner_ready(void *host, const SpawnReady *ready) {
        Manager *m = host;
        durable_spawner(m, command_executor_keeper(m->commands), ready->pid);
        if (m->ready) {
                log_event(SPAWNER_BACK, (.pid = (uint64_t)ready->pid), (int)ready->pid, ready->killed);
                if (manager_lost_others(m))
                        log_event(SPAWNER_LESSER, (0), (unsigned)geteuid());
                manager_event_daemon(m, EQ_EVENT_SPAWNER_BACK, NULL);
                return;
        }
        m->ready = true;
        m->others_once = ready->any_identity;
        m->hooks->ready(m->host);
}

static void on_spawner_lost(void *host) {
        Manager *m = host;
        log_event(SPAWNER_LOST, (.inflight = m->pool->n_busy));
        manager_event_daemon(m, EQ_EVENT_SPAWNER_LOST, NULL);
}

static const CommandHooks command_hooks = {
        .prepare = on_prepare,
        .unprepare = on_unprepare,
        .running = on_running,
        .output = on_output,
        .spawner_ready = on_spawner_ready,
        .spawner_lost = on_spawner_lost,
};

/* ---- stop: the timer looks whether all has ended, at each end and when the time is over ---- */

size_t manager_n_unended(const Manager *m, bool durable) {
        size_t n = 0;
        for (const QueueRecord *q = m->queues; q; q = q->hh.next)
                if (durable_queue(q) == durable)
                        n += q->queue->n_queued + q->queue->n_waiting + q->queue->n_running;
        return n;
}

/* What ran and was stopped waits again where it is to run again; n_left commands are still there. */
static void tell_what_is_left(const Manager *m, size_t n_left) {
        size_t n_durable = manager_n_unended(m, true), n_volatile = manager_n_unended(m, false);
        size_t n_killed = m->n_killed + n_left, n_lost = m->keeping ? 0 : n_volatile;
        if (n_left > 0)
                log_event(STOP_KILLS, (.inflight = n_left), n_left);
        log_event(STOPPED, (.pending = n_durable, .killed = n_killed, .lost = n_lost), m->n_stopped, n_killed,
                  n_durable, n_volatile - n_lost, n_lost);
}

/* And have begun, if not handed over only. */
static size_t n_with_plugins(const Manager *m, int *ret_thread_error) {
        size_t n = 0;
        *ret_thread_error = 0;
        LIST_FOREACH (l, &m->engine.pools) {
                const Pool *p = LIST_ENTRY(l, Pool, link);
                if (p->kind != POOL_THREAD)
                        continue;
                n += p->n_busy - p->n_handed;
                if (*ret_thread_error == 0 && plugin_pool_has_none(p))
                        *ret_thread_error = p->create_error;
        }
        return n;
}

static void look_whether_stuck(Manager *m) {
        int error;
        size_t n = n_with_plugins(m, &error);
        m->stuck = n > 0 || error < 0;
        if (n > 0)
                log_event(PLUGINS_STUCK, (.inflight = n), n);
        else if (error < 0)
                log_event(PLUGINS_UNCLOSED, (.error = strerror(-error)), strerror(-error));
}

static void stop_fire(Timer *timer) {
        Manager *m = HEAP_ENTRY(timer, Manager, stop_timer);
        size_t n_running = manager_n_running(m);
        if (n_running > 0 && clock_monotonic(m->clock) < m->stop_deadline_usec) {
                (void)timer_set(&m->timers, &m->stop_timer, m->stop_deadline_usec);
                return;
        }
        int ignored;
        size_t n_commands = n_running - m->remote->n_busy - n_with_plugins(m, &ignored);
        tell_what_is_left(m, n_commands);
        look_whether_stuck(m);
        void (*stopped)(void *host) = m->stopped;
        m->stopped = NULL;
        stopped(m->host);
}

/* ---- life ---- */

static int start_commands(Manager *m, const ManagerConfig *c) {
        SpawnerConfig spawner = {
                .program = c->spawner_program,
                .allow_root = m->config->daemon.root_tasks == ROOT_TASKS_REDUCED,
                .cgroup = c->cgroup,
                .stock = (unsigned)m->config->daemon.waiting_processes,
        };
        m->no_commands = m->ready = !m->config->daemon.commands;
        return command_executor_new(m->loop, &m->engine, m->no_commands ? NULL : &spawner, &command_hooks, m,
                                    &m->commands);
}

static int fill(Manager *m, const ManagerConfig *c) {
        int r = timers_init(&m->timers, c->loop, c->clock);
        if (r < 0)
                return r;
        m->config_dir = strdup(c->config_dir);
        if (!m->config_dir)
                return -ENOMEM;
        r = timer_stand(&m->timers, &m->engine_timer);
        if (r >= 0)
                r = timer_stand(&m->timers, &m->stop_timer);
        if (r >= 0)
                r = timer_stand(&m->timers, &m->refill_timer);
        if (r >= 0)
                r = pressure_init(m);
        if (r >= 0)
                r = engine_init(&m->engine, c->clock, &engine_hooks, m);
        if (r >= 0)
                r = start_commands(m, c);
        if (r >= 0)
                r = plugin_executor_new(m->loop, &m->engine, &manager_plugin_hooks, m, &m->plugins);
        if (r >= 0)
                r = pools_start(m);
        if (r >= 0)
                r = worker_executor_new(m->loop, &m->engine, &manager_worker_hooks, m, &m->workers);
        if (r >= 0)
                r = pool_new(&m->engine, "remote", POOL_REMOTE, &m->workers->executor, SIZE_MAX, &m->remote);
        return r;
}

/* A file of the service manager that is no good is not worth an eqd that does not start: what could be read of it is there. A
 * store that is no good is. */
static int take_over(Manager *m, const char *store_dir, int kept_fd) {
        Restore restore;
        restore_begin(&restore, m);
        int r = store_dir ? durable_open(m, store_dir, &restore) : 0;
        if (m->leftovers)
                leftovers_tell(m->leftovers, &m->engine);
        int kept = r >= 0 && kept_fd >= 0 ? snapshot_load(&restore, kept_fd) : 0;
        int e = restore_done(&restore);
        if (r < 0)
                return r;
        if (kept == -ENOMEM || e < 0) {
                log_event(RESTORE_FAILED, (.error = strerror(ENOMEM)), strerror(ENOMEM));
                return -ENOMEM;
        }
        if (kept < 0)
                log_event(RESTORE_FAILED, (.error = strerror(-kept)), strerror(-kept));
        if (restore.n_pending > 0 || restore.n_finished > 0 || restore.n_skipped > 0)
                log_event(RESTORED, (.pending = restore.n_pending), restore.n_queues, restore.n_pending,
                          restore.n_finished, restore.n_skipped);
        return 0;
}

int manager_new(const ManagerConfig *config, const ManagerHooks *hooks, void *host, Manager **ret) {
        Manager *m = calloc(1, sizeof(*m));
        if (!m)
                return -ENOMEM;
        m->loop = config->loop;
        m->clock = config->clock;
        m->config = config->config;
        m->hooks = hooks;
        m->host = host;
        m->leftovers = config->leftovers;
        m->engine_timer = (Timer)TIMER_NULL(engine_fire);
        m->stop_timer = (Timer)TIMER_NULL(stop_fire);
        m->refill_timer = (Timer)TIMER_NULL(refill_fire);
        m->users.unlimited_uid = geteuid();
        m->started_usec = clock_realtime(config->clock);
        (void)getrandom(&m->key_seed, sizeof(m->key_seed), GRND_NONBLOCK); /* without: keys are hashed as they are */
        m->jitter = m->started_usec ^ (uint64_t)getpid();
        list_init(&m->once.clearing);
        list_init(&m->late.events);
        list_init(&m->recent);
        list_init(&m->rescued);
        list_init(&m->waits);
        list_init(&m->doomed);
        window_init(m);
        int r = fill(m, config);
        if (r < 0) {
                m->config = NULL; /* stays the caller's, as those */
                m->leftovers = NULL;
                manager_free(m);
                return r;
        }
        *ret = m;
        return 0;
}

const uint64_t *manager_written(const Manager *m) {
        return &m->written;
}

/* What more was kept than the queues' attributes, as they are now, allow. */
static void trim_all(Manager *m) {
        for (QueueRecord *q = m->queues; q; q = q->hh.next) {
                history_trim(m, q);
                keys_trim(q);
        }
}

int manager_start(Manager *m, const char *store_dir, int kept_fd) {
        Refusal refusal;
        int r = pools_check_config(m, m->config, &refusal);
        if (r >= 0)
                r = pools_apply_config(m, &refusal); /* before the queues that were kept, which name them */
        if (r < 0) {
                log_event(START_FAILED, (.error = refusal.text), refusal.text);
                return r;
        }
        m->restoring = true;
        r = take_over(m, store_dir, kept_fd);
        if (r >= 0) {
                r = queues_apply_config(m, m->config, &refusal);
                if (r < 0)
                        log_event(START_FAILED, (.error = refusal.text), refusal.text);
        }
        m->restoring = false;
        trim_all(m);
        return r;
}

Manager *manager_free(Manager *m) {
        if (!m)
                return NULL;
        m->stopping = true;
        m->want_events = false;
        m->keeping = false; /* that is done: what still runs is not put back any more */
        durable_close(m);
        QueueRecord *q, *next;
        HASH_ITER(hh, m->queues, q, next) {
                uint64_t seq = 0;
                shelf_clear(q);
                for (TaskRecord *t; (t = seq_index_next(&q->tasks, &seq)); seq++)
                        if (!task_record_finished(t))
                                (void)queue_cancel(q->queue, &t->task);
                rescue_drop(m, q); /* while there is an executor to give the reserve back to */
        }
        m->commands = command_executor_free(m->commands); /* ends running ones */
        plugin_executor_close(m->plugins);                /* the same */
        HASH_ITER(hh, m->queues, q, next)
        queue_record_free(m, q);
        tombstones_free(m);
        shelf_done(m);
        window_done(m);
        pools_free(m);
        m->remote = pool_free(m->remote);
        m->workers = worker_executor_free(m->workers); /* after the connections of its workers */
        m->plugins = plugin_executor_free(m->plugins);
        engine_deinit(&m->engine);
        timers_close(&m->timers);
        uv_run(m->loop, UV_RUN_NOWAIT); /* lets the handles go that belong to m */
        timers_done(&m->timers);
        users_deinit(&m->users);
        config_free(m->config);
        leftovers_free(m->leftovers);
        spares_clear(&m->spares);
        free(m->config_dir);
        free(m);
        return NULL;
}

bool manager_is_admin(const Manager *m, const Identity *id) {
        gid_t group = m->config->daemon.admin_group.id;
        return id->uid == 0 || id->uid == geteuid() || (group != PARAM_NO_ID && identity_in_group(id, group));
}

static bool same_value(const Param *p, const DaemonSettings *a, const DaemonSettings *b) {
        char first[PARAM_PRINT_MAX], second[PARAM_PRINT_MAX];
        param_print(p, a, first);
        param_print(p, b, second);
        return strcmp(first, second) == 0;
}

/* What takes effect at a start only stays as it is, and is shown so. *ret_waits: bits of the rows that the files have changed. */
static int keep_until_restart(const Config *now, Config *next, uint64_t *ret_waits) {
        const ParamTable *t = &daemon_settings_table;
        uint64_t waits = 0;
        for (size_t i = 0; i < t->n; i++) {
                const Param *p = &t->rows[i];
                if (p->settable || same_value(p, &now->daemon, &next->daemon))
                        continue;
                if (param_copy(p, &next->daemon, &now->daemon) < 0)
                        return -ENOMEM;
                waits |= UINT64_C(1) << i;
        }
        *ret_waits = waits;
        return 0;
}

static void tell_what_waits(uint64_t waits) {
        for (size_t i = 0; i < daemon_settings_table.n; i++) {
                const Param *p = &daemon_settings_table.rows[i];
                if (waits & UINT64_C(1) << i)
                        log_event(SETTING_WAITS, (.setting = p->name), p->name, p->section);
        }
}

/* What a reload makes of durable queues is to be kept, as every change of them. */
static int reload(Manager *m, uint64_t *ret_waits, Refusal *ret) {
        char error[sizeof(ret->text)];
        Config *config;
        int r = durable_may_change(m, NULL, ret);
        if (r < 0)
                return r;
        r = config_load(m->config_dir, m->config->system, &config, error, sizeof(error));
        if (r < 0)
                return refuse(ret, EQ_E_CONFIG, r, "%s", error);
        if (keep_until_restart(m->config, config, ret_waits) < 0) {
                config_free(config);
                return refuse(ret, EQ_E_NO_MEMORY, -ENOMEM, "out of memory");
        }
        r = queues_apply_config(m, config, ret);
        if (r < 0 && config != m->config)
                config_free(config);
        return r;
}

int manager_reload(Manager *m, uint64_t *ret_waits, Refusal *ret_refusal) {
        uint64_t waits = 0;
        int r = reload(m, &waits, ret_refusal);
        if (r < 0) {
                log_event(CONFIG_REFUSED, (.error = ret_refusal->text), ret_refusal->text);
                return r;
        }
        log_event(CONFIG_RELOADED, (0));
        tell_what_waits(waits);
        manager_event_daemon(m, EQ_EVENT_CONFIG_RELOADED, NULL);
        *ret_waits = waits;
        return 0;
}

int manager_keep(const Manager *m, int fd) {
        return snapshot_save(m, fd);
}

static uint64_t stop_grace(const TaskRecord *t, uint64_t longest) {
        EqSubmit s = { 0 };
        if (queue_has_workers(t->queue))
                return USEC_NEVER; /* nothing of theirs is eqd's */
        task_spec_decode(&t->spec, &s);
        return MIN(task_grace(t, &s), longest);
}

void manager_stop(Manager *m, bool keep, void (*stopped)(void *host)) {
        if (m->stopping)
                return;
        m->stopping = true;
        m->keeping = keep;
        m->stopped = stopped;
        uint64_t bound = m->config->daemon.stop_timeout_usec, now = clock_monotonic(m->clock);
        m->stop_deadline_usec = bound > USEC_NEVER - now ? USEC_NEVER : now + bound;
        LIST_FOREACH (l, &m->engine.pools)
                pool_block(LIST_ENTRY(l, Pool, link), EQ_REASON_DRAINING, USEC_NEVER);
        uint64_t longest = bound - bound / 5; /* KILL needs some time too */
        for (QueueRecord *q = m->queues; q; q = q->hh.next) {
                queue_recall(q->queue);
                LIST_FOREACH_SAFE (l, &q->queue->running) {
                        Task *t = LIST_ENTRY(l, Task, link);
                        (void)engine_task_stop(&m->engine, t, 0, stop_grace(task_record(t), longest));
                }
        }
        (void)timer_set(&m->timers, &m->stop_timer, now);
}
