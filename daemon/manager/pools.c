/* SPDX-License-Identifier: MIT */
/* Pools by name: made, changed, removed; from files and by administrators.
 *
 * `default` always exists. A file wins over `pool set`, as with queues. A pool that nobody describes any more lets what runs
 * in it end, and goes then; until then its name can be taken up again. A queue whose pool is not there runs in `default`, and
 * moves when the pool comes: so the order in which queues and pools are made does not matter. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/event.h"
#include "base/fault.h"
#include "executor/spawner_link.h"
#include "manager/parts.h"

/* ---- find ---- */

PoolRecord *manager_pool(const Manager *m, EqBytes name) {
        PoolRecord *p;
        HASH_FIND(hh, m->pools, name.data, name.len, p);
        return p && !p->removing ? p : NULL;
}

int manager_find_pool(const Manager *m, EqBytes name, PoolRecord **ret, Refusal *ret_refusal) {
        if (!eq_name_valid(name))
                return refusal_of_field(
                        ret_refusal, "name",
                        refuse(ret_refusal, EQ_E_INVALID, -EINVAL,
                               "not a pool name: 1 to %d of A-Z a-z 0-9 . _ @ -, not starting with - or .",
                               EQ_NAME_MAX));
        *ret = manager_pool(m, name);
        if (*ret)
                return 0;
        int r = refuse(ret_refusal, EQ_E_NO_POOL, -ENOENT, "no pool %.*s; eqctl pool ls lists them", (int)name.len,
                       name.data);
        REFUSAL_NAMES(ret_refusal, pool, name);
        return r;
}

/* The one that there is always, for each kind. */
static const char *const builtin_names[] = { [POOL_COMMAND] = "default", [POOL_THREAD] = "plugin" };

static bool is_builtin(const PoolRecord *p) {
        return strcmp(p->pool->name, builtin_names[p->pool->kind]) == 0;
}

static PoolKind kind_of(const PoolAttributes *a) {
        return a->kind == 0 ? POOL_COMMAND : POOL_THREAD;
}

const char *pool_record_origin(const PoolRecord *p) {
        if (p->from_file)
                return p->overridden ? "file+override" : "file";
        return is_builtin(p) ? "built-in" : "runtime";
}

/* ---- queues in pools ---- */

Pool *queue_wanted_pool(Manager *m, QueueRecord *q, const QueueAttributes *a, PoolKind kind) {
        PoolRecord *p = manager_pool(m, eq_str(a->pool));
        Pool *builtin = kind == POOL_COMMAND ? m->pool : m->threads;
        if (strcmp(a->pool, builtin_names[POOL_COMMAND]) == 0)
                return builtin; /* it says nothing */
        bool missing = !p || p->pool->kind != kind;
        if (p && missing && !attributes_is_set(&attributes_of_queues, a, "pool"))
                return builtin; /* the default of queues is for those of the other kind */
        if (missing && !q->pool_missing)
                log_event(POOL_MISSING, (.queue = q->queue->name, .pool = builtin->name), q->queue->name, a->pool,
                          kind == POOL_COMMAND ? "commands" : "plugins", builtin->name);
        q->pool_missing = missing;
        return missing ? builtin : p->pool;
}

void queue_settle_pool(Manager *m, QueueRecord *q) {
        PoolKind kind = q->queue->pool->kind;
        if (kind == POOL_REMOTE)
                return;
        queue_set_pool(q->queue, queue_wanted_pool(m, q, &q->attributes, kind));
        plugins_changed(m, q);
}

void pools_settle_queues(Manager *m) {
        for (QueueRecord *q = m->queues; q; q = q->hh.next)
                queue_settle_pool(m, q);
}

int manager_check_pool(const Manager *m, const char *name, PoolKind kind, Refusal *ret_refusal) {
        PoolRecord *p = NULL;
        int r = manager_find_pool(m, eq_str(name), &p, ret_refusal);
        if (r < 0)
                return refusal_of_field(ret_refusal, "pool", r);
        if (kind == POOL_REMOTE || p->pool->kind == kind || strcmp(name, builtin_names[POOL_COMMAND]) == 0)
                return r;
        return refuse_field(ret_refusal, EQ_E_INVALID, -EINVAL, "pool", "%s is for %s; name a pool with kind=%s", name,
                            kind == POOL_COMMAND ? "plugins" : "commands", kind == POOL_COMMAND ? "command" : "thread");
}

/* ---- make and free ---- */

static void record_free(Manager *m, PoolRecord *p) {
        timer_drop(&m->timers, &p->remove_timer);
        if (p->pool && p->pool->kind == POOL_THREAD)
                plugin_pool_free(p->pool);
        pool_free(p->pool);
        pool_attributes_deinit(&p->attributes);
        free(p);
}

static void remove_fire(Timer *timer) {
        PoolRecord *p = HEAP_ENTRY(timer, PoolRecord, remove_timer);
        Manager *m = p->manager;
        if (!p->removing || p->pool->n_busy + p->pool->n_rescuing > 0 || p->pool->n_queues > 0 ||
            (p->pool->kind == POOL_THREAD && plugin_pool_is_used(p->pool)))
                return;
        log_info("pool %s is gone", p->pool->name);
        HASH_DELETE(hh, m->pools, p);
        record_free(m, p);
}

void pool_record_settle(Manager *m, Pool *pool) {
        PoolRecord *p = pool->owner;
        if (p && p->removing) /* not from inside the engine */
                (void)timer_set(&m->timers, &p->remove_timer, clock_monotonic(m->clock)); /* stands: cannot fail */
}

static WorkersParams thread_params(const PoolAttributes *a) {
        WorkersParams params = WORKERS_PARAMS_DEFAULT;
        params.max = (unsigned)a->max_workers;
        params.min = (unsigned)MIN(a->min_workers, a->max_workers);
        params.nice = (int)a->nice;
        params.stack_bytes = a->worker_stack_kb * 1024;
        params.max_idle_ratio = (unsigned)a->max_idle_ratio;
        params.idle_timeout_usec = a->idle_worker_timeout_usec;
        params.create_cooldown_usec = a->create_cooldown_usec;
        return params;
}

static int make_pool(Manager *m, const char *name, const PoolAttributes *a, Pool **ret) {
        WorkersParams params = thread_params(a);
        if (kind_of(a) == POOL_COMMAND)
                return pool_new(&m->engine, name, POOL_COMMAND, command_executor(m->commands), a->slots, ret);
        int r = pool_new(&m->engine, name, POOL_THREAD, plugin_executor(m->plugins), SIZE_MAX,
                         ret); /* tasks are ahead of threads */
        return r < 0 ? r : plugin_pool_new(*ret, &params);
}

static int fill(Manager *m, PoolRecord *p, const char *name, const PoolAttributes *a) {
        int r = timer_stand(&m->timers, &p->remove_timer);
        if (r >= 0)
                r = make_pool(m, name, a, &p->pool);
        if (r < 0)
                return r;
        p->pool->owner = p;
        HASH_ADD_KEYPTR(hh, m->pools, p->pool->name, strlen(p->pool->name), p);
        return p->hh.tbl ? 0 : -ENOMEM;
}

void pool_show_attributes(const Manager *m, Pool *p) {
        const PoolRecord *record = p->owner; /* NULL: of worker clients, or plugins */
        uint64_t thresh = record ? record->attributes.stall_thresh_usec : m->config->daemon.watchdog_thresh_usec;
        WATCH_SET(p->watch->stall_usec, thresh == PARAM_INFINITY ? 0 : thresh);
        WATCH_SET(p->watch->nice, record ? (int64_t)record->attributes.nice : 0);
}

/* Takes *attributes over on success. */
static int record_new(Manager *m, const char *name, PoolAttributes *attributes, PoolRecord **ret) {
        PoolRecord *p = fault_calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->manager = m;
        p->remove_timer = (Timer)TIMER_NULL(remove_fire);
        int r = fill(m, p, name, attributes);
        if (r < 0) {
                record_free(m, p);
                return r;
        }
        p->attributes = *attributes;
        memset(attributes, 0, sizeof(*attributes));
        pool_show_attributes(m, p->pool);
        if (m->stopping)
                pool_block(p->pool, EQ_REASON_DRAINING, USEC_NEVER);
        *ret = p;
        return 0;
}

static int make_builtin(Manager *m, PoolKind kind, Pool **ret) {
        PoolAttributes a;
        PoolRecord *p;
        int r = pool_attributes_init(&a, &m->config->pool_defaults);
        if (r < 0)
                return r;
        a.kind = kind == POOL_THREAD;
        r = record_new(m, builtin_names[kind], &a, &p);
        pool_attributes_deinit(&a);
        if (r >= 0)
                *ret = p->pool;
        return r;
}

int pools_start(Manager *m) {
        int r = make_builtin(m, POOL_COMMAND, &m->pool);
        return r < 0 ? r : make_builtin(m, POOL_THREAD, &m->threads);
}

void pools_free(Manager *m) {
        PoolRecord *p, *next;
        HASH_ITER(hh, m->pools, p, next) {
                HASH_DELETE(hh, m->pools, p);
                record_free(m, p);
        }
        m->pool = m->threads = NULL;
}

/* ---- change ---- */

static void follow_attributes(PoolRecord *p) {
        WorkersParams params = thread_params(&p->attributes);
        pool_show_attributes(p->manager, p->pool);
        if (p->pool->kind == POOL_COMMAND)
                pool_set_max(p->pool, p->attributes.slots);
        else
                plugin_pool_set(p->pool, &params);
}

/* The kind is that of p, which was checked. */
static void apply(PoolRecord *p, PoolAttributes *a) {
        pool_attributes_deinit(&p->attributes);
        p->attributes = *a;
        memset(a, 0, sizeof(*a));
        p->attributes.kind = p->pool->kind == POOL_THREAD;
        follow_attributes(p);
}

static void begin_removal(Manager *m, PoolRecord *p) {
        p->removing = true;
        pool_record_settle(m, p->pool);
}

/* With so many slots for the pool `name`, which need not exist. */
static uint64_t slots_together(const Manager *m, const char *name, uint64_t slots) {
        uint64_t sum = slots;
        for (const PoolRecord *p = m->pools; p; p = p->hh.next)
                if (!p->removing && p->pool->kind == POOL_COMMAND && strcmp(p->pool->name, name) != 0)
                        sum += p->attributes.slots;
        return sum;
}

static int check_slots(uint64_t sum, eq_error code, Refusal *r) {
        if (sum <= SPAWN_SLOTS_MAX)
                return 0;
        return refuse_field(r, code, -EINVAL, "slots", "all pools together would have %" PRIu64 "; at most %d", sum,
                            SPAWN_SLOTS_MAX);
}

/* ---- by administrators ---- */

static EqBytes key_of(EqBytes kv) {
        const char *equals = kv.len > 0 ? memchr(kv.data, '=', kv.len) : NULL;
        return eq_bytes(kv.data, equals ? (size_t)(equals - kv.data) : 0);
}

/* Which one a client's `key=value` is about; without a key none. */
static EqBytes attribute_named(const AttributeKind *k, EqBytes kv, Refusal *r) {
        EqBytes key = key_of(kv);
        const Param *row = attributes_find(k, key.data, key.len);
        if (row)
                return eq_str(row->name);
        return key.len > 0 && key.len <= EQ_NAME_MAX && eq_text_valid(key) ? refusal_keep(r, key) : eq_str("set");
}

/* Of two values in one request one would be dropped in silence, and the spellings of a name are many. */
static int check_once(const AttributeKind *k, EqBytes kv, uint64_t *seen, Refusal *r) {
        EqBytes key = key_of(kv);
        const Param *row = attributes_find(k, key.data, key.len);
        uint64_t bit = row ? UINT64_C(1) << params_index(k->table, row) : 0;
        if (*seen & bit)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, row->name, "given twice; leave out one of the two");
        *seen |= bit;
        return 0;
}

int manager_set_attributes(const AttributeKind *k, void *a, const void *defaults, EqArray set, Refusal *r) {
        EqBytes kv;
        char error[PARAM_ERROR_MAX];
        uint64_t seen = 0;
        while (eq_next_bytes(&set, &kv) > 0) {
                int e = check_once(k, kv, &seen, r);
                if (e < 0)
                        return e;
                e = attributes_set(k, a, defaults, kv.data, kv.len, error, sizeof(error));
                if (e >= 0)
                        continue;
                (void)refuse(r, e == -ENOMEM ? EQ_E_NO_MEMORY : EQ_E_INVALID, e, "%s", error); /* it returns e */
                REFUSAL_SAYS(r, field, attribute_named(k, kv, r));
                return e;
        }
        return 0;
}

static int set_all(const Manager *m, const char *name, PoolAttributes *a, EqArray set, Refusal *r) {
        int e = manager_set_attributes(&attributes_of_pools, a, &m->config->pool_defaults, set, r);
        if (e < 0)
                return e;
        if (a->min_workers > a->max_workers)
                return refuse_field(r, EQ_E_INVALID, -EINVAL, "min_workers",
                                    "%" PRIu64 " are more than max_workers, which is %" PRIu64, a->min_workers,
                                    a->max_workers);
        return check_slots(slots_together(m, name, kind_of(a) == POOL_COMMAND ? a->slots : 0), EQ_E_INVALID, r);
}

/* A pool does not become one of another kind, not even one on its way out. */
static int check_kind(const Pool *pool, const PoolAttributes *a, eq_error code, Refusal *r) {
        if (!pool || pool->kind == kind_of(a))
                return 0;
        return refuse_field(r, code, -EINVAL, "kind", "pool %s is there for %s and stays so; choose another name",
                            pool->name, pool->kind == POOL_COMMAND ? "commands" : "plugins (kind=thread)");
}

int manager_pool_set(Manager *m, PoolRecord *p, const EqArray *set, Refusal *ret_refusal) {
        PoolAttributes a;
        int r = attributes_copy(&attributes_of_pools, &a, &p->attributes);
        if (r < 0)
                return refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        r = set_all(m, p->pool->name, &a, *set, ret_refusal);
        if (r >= 0)
                r = check_kind(p->pool, &a, EQ_E_INVALID, ret_refusal);
        if (r >= 0) {
                p->overridden = p->from_file;
                apply(p, &a);
                log_event(POOL_CHANGED, (.pool = p->pool->name), p->pool->name,
                          p->pool->kind == POOL_COMMAND ? p->attributes.slots : p->attributes.max_workers,
                          p->pool->kind == POOL_COMMAND ? "slots" : "threads at most");
        }
        pool_attributes_deinit(&a);
        return r;
}

/* Also one that goes. NULL: none. */
static Pool *pool_of_any(const Manager *m, const char *name) {
        PoolRecord *p;
        HASH_FIND(hh, m->pools, name, strlen(name), p);
        return p ? p->pool : NULL;
}

static size_t n_pools(const Manager *m) {
        return HASH_COUNT(m->pools);
}

/* A pool that is on its way out and is wanted again is the new one: what still runs in it counts. */
static int take_up_or_make(Manager *m, const char *name, PoolAttributes *a, PoolRecord **ret) {
        PoolRecord *p;
        HASH_FIND(hh, m->pools, name, strlen(name), p);
        if (!p) {
                int r = record_new(m, name, a, &p);
                if (r < 0)
                        return r;
        } else {
                p->removing = p->from_file = p->overridden = false;
                apply(p, a);
        }
        *ret = p;
        return 0;
}

int manager_pool_create(Manager *m, EqBytes name, const EqArray *set, bool exist_ok, PoolRecord **ret,
                        Refusal *ret_refusal) {
        if (!eq_name_valid(name))
                return manager_find_pool(m, name, ret, ret_refusal); /* refuses */
        *ret = manager_pool(m, name);
        if (*ret && !exist_ok) {
                int e = refuse(ret_refusal, EQ_E_EXISTS, -EEXIST, "pool %.*s exists; eqctl pool set changes it",
                               (int)name.len, name.data);
                REFUSAL_NAMES(ret_refusal, pool, name);
                return e;
        }
        if (*ret)
                return set->n > 0 ? manager_pool_set(m, *ret, set, ret_refusal) : 0;
        if (n_pools(m) >= EQ_POOLS_MAX) {
                int e = refuse(ret_refusal, EQ_E_LIMIT, -ENOSPC, "there are %d pools; remove one first", EQ_POOLS_MAX);
                REFUSAL_SAYS(ret_refusal, what, eq_str("pools"));
                REFUSAL_SAYS(ret_refusal, limit, EQ_POOLS_MAX);
                return e;
        }

        char text[EQ_NAME_MAX + 1] = "";
        PoolAttributes a;
        memcpy(text, name.data, name.len);
        int r = pool_attributes_init(&a, &m->config->pool_defaults);
        if (r < 0)
                return refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        r = set_all(m, text, &a, *set, ret_refusal);
        if (r >= 0)
                r = check_kind(pool_of_any(m, text), &a, EQ_E_INVALID, ret_refusal);
        if (r >= 0) {
                r = take_up_or_make(m, text, &a, ret);
                if (r < 0)
                        refuse(ret_refusal, EQ_E_NO_MEMORY, r, "out of memory");
        }
        pool_attributes_deinit(&a);
        if (r < 0)
                return r;
        log_event(POOL_MADE, (.pool = text), text);
        pools_settle_queues(m);
        return 0;
}

int manager_pool_rm(Manager *m, PoolRecord *p, Refusal *ret_refusal) {
        const char *name = p->pool->name;
        if (is_builtin(p))
                return refuse(ret_refusal, EQ_E_STATE, -EBUSY, "pool %s is always there", name);
        if (p->from_file)
                return refuse(ret_refusal, EQ_E_STATE, -EBUSY,
                              "pool %s comes from pools.d/%s.pool; remove the file, then eqctl reload", name, name);
        if (p->pool->n_queues > 0)
                return refuse(ret_refusal, EQ_E_STATE, -EBUSY,
                              "pool %s is used by %zu queue%s; eqctl queue set QUEUE pool=default moves one", name,
                              p->pool->n_queues, p->pool->n_queues == 1 ? "" : "s");
        begin_removal(m, p);
        return 0;
}

/* ---- what the engine tells ---- */

/* Only whoever runs commands, or plugins, creates something; of the pool of worker clients there is nothing to tell. */
void pool_on_creation(void *host, Pool *p, uint64_t lasted_usec) {
        const char *what = p->kind == POOL_THREAD ? "thread" : "process";
        const char *name = p->create_error < 0 ? strerrorname_np(-p->create_error) : NULL;
        if (p->create_error == 0)
                log_event(WORKER_CREATED, (.pool = p->name), p->name, (double)lasted_usec / USEC_PER_SEC);
        else
                log_event(WORKER_CREATE_FAILED, (.pool = p->name, .error = strerror(-p->create_error)), what,
                          name ? name : "unknown error");
}

/* ---- from files ---- */

static void rebase(PoolRecord *p, const PoolAttributes *base) {
        if (attributes_rebase(&attributes_of_pools, &p->attributes, base) < 0)
                log_event(POOL_DEFAULT_LOST, (.pool = p->pool->name), p->pool->name);
        p->attributes.kind = p->pool->kind == POOL_THREAD;
        follow_attributes(p);
}

static void file_changed(PoolRecord *p, ConfigPool *file) {
        if (p->from_file && !p->removing && p->digest == file->digest) {
                rebase(p, &file->attributes);
                return;
        }
        p->from_file = true;
        p->overridden = p->removing = false;
        p->digest = file->digest;
        apply(p, &file->attributes);
}

static int file_new(Manager *m, ConfigPool *file, Refusal *r) {
        PoolRecord *p;
        int e = record_new(m, file->name, &file->attributes, &p);
        if (e < 0)
                return refuse(r, EQ_E_NO_MEMORY, e, "%s: cannot make the pool: %s", file->file, strerror(-e));
        p->from_file = true;
        p->digest = file->digest;
        return 0;
}

/* A built-in one goes back to what it is without a file; another one goes. */
static void file_gone(Manager *m, PoolRecord *p) {
        if (!is_builtin(p)) {
                log_event(POOL_FILE_GONE, (.pool = p->pool->name), p->pool->name, builtin_names[p->pool->kind]);
                begin_removal(m, p);
                return;
        }
        p->from_file = p->overridden = false;
        p->attributes.present = 0;
        rebase(p, &m->config->pool_defaults);
}

/* The one that describes p, if a file does. */
static bool has_file(const Config *c, const PoolRecord *p) {
        for (size_t i = 0; i < c->n_pools; i++)
                if (strcmp(c->pools[i].name, p->pool->name) == 0)
                        return true;
        return false;
}

/* What a pool that no file of c describes has when c is in force; a pool that goes has none. */
static uint64_t slots_without_file(const Config *c, const PoolRecord *p) {
        if (p->removing || p->pool->kind != POOL_COMMAND || (p->from_file && !is_builtin(p)))
                return 0;
        bool own = !p->from_file && attributes_is_set(&attributes_of_pools, &p->attributes, "slots");
        return own ? p->attributes.slots : c->pool_defaults.slots;
}

int pools_set_default(Manager *m, uint64_t slots, Refusal *r) {
        uint64_t sum = 0;
        for (const PoolRecord *p = m->pools; p; p = p->hh.next)
                if (!p->removing && p->pool->kind == POOL_COMMAND)
                        sum += attributes_is_set(&attributes_of_pools, &p->attributes, "slots") ? p->attributes.slots
                                                                                                : slots;
        int e = check_slots(sum, EQ_E_INVALID, r);
        if (e < 0)
                return e;
        m->config->pool_defaults.slots = slots;
        for (PoolRecord *p = m->pools; p; p = p->hh.next)
                if (!p->removing)
                        rebase(p, &m->config->pool_defaults);
        return 0;
}

void pools_follow_settings(Manager *m) {
        const DaemonSettings *d = &m->config->daemon;
        PoolAttributes *defaults = &m->config->pool_defaults;
        if (defaults->max_workers == d->plugin_threads && defaults->stall_thresh_usec == d->watchdog_thresh_usec)
                return;
        defaults->max_workers = d->plugin_threads;
        defaults->stall_thresh_usec = d->watchdog_thresh_usec;
        for (PoolRecord *p = m->pools; p; p = p->hh.next)
                if (!p->removing)
                        rebase(p, defaults);
}

int pools_check_config(const Manager *m, const Config *c, Refusal *r) {
        uint64_t sum = 0;
        for (size_t i = 0; i < c->n_pools; i++) {
                const ConfigPool *file = &c->pools[i];
                sum += kind_of(&file->attributes) == POOL_COMMAND ? file->attributes.slots : 0;
                int e = check_kind(pool_of_any(m, file->name), &file->attributes, EQ_E_CONFIG, r);
                if (e < 0)
                        return e;
        }
        for (const PoolRecord *p = m->pools; p; p = p->hh.next)
                sum += has_file(c, p) ? 0 : slots_without_file(c, p);
        return check_slots(sum, EQ_E_CONFIG, r);
}

int pools_apply_config(Manager *m, Refusal *r) {
        Config *c = m->config;
        for (size_t i = 0; i < c->n_pools; i++) {
                PoolRecord *p;
                HASH_FIND(hh, m->pools, c->pools[i].name, strlen(c->pools[i].name), p);
                if (p)
                        file_changed(p, &c->pools[i]);
                else {
                        int e = file_new(m, &c->pools[i], r);
                        if (e < 0)
                                return e;
                }
        }
        PoolRecord *p, *next;
        HASH_ITER(hh, m->pools, p, next)
        if (p->from_file && !p->removing && !has_file(c, p))
                file_gone(m, p);
        else if (!p->from_file)
                rebase(p, &c->pool_defaults);
        return 0;
}
