/* SPDX-License-Identifier: MIT */
/* Which files there are, in which order they count, and what they say together. One file: config_file.c. */

#include "manager/config.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "manager/config_file.h"

/* ---- names of users and groups ---- */

/* The groups of a user, with *gid as the primary one; NO_ID: the one of the user database, and *gid becomes that. -ENOENT:
 * the database does not know the user, *ret_n is 0. */
static int groups_of(uid_t uid, uint32_t *gid, gid_t *groups, int n, int *ret_n) {
        _cleanup_free_ char *buffer = fault_malloc(CONFIG_LOOKUP_BYTES);
        struct passwd entry, *found = NULL;

        *ret_n = 0;
        if (!buffer)
                return -ENOMEM;
        int e = getpwuid_r(uid, &entry, buffer, CONFIG_LOOKUP_BYTES, &found);
        if (!found)
                return e == 0 ? -ENOENT : -e;
        if (*gid == PARAM_NO_ID)
                *gid = entry.pw_gid;
        *ret_n = n;
        return getgrouplist(entry.pw_name, *gid, groups, ret_n) < 0 ? -E2BIG : 0;
}

/* As whom the tasks of a queue run: the user with the groups that a login gives him. A group that was not set has no text:
 * it is found anew each time, also where the user comes with the defaults and the queue names another. */
static int settle_user(const char *path, QueueAttributes *a, Identity **run_as, ConfigReport *to) {
        gid_t groups[IDENTITY_GROUPS_MAX];
        int n;

        *run_as = identity_unref(*run_as);
        if (a->group.text && a->user.id == PARAM_NO_ID)
                return config_report(to, -EINVAL, "%s: group: is set without user; set both, or user alone", path);
        if (!a->group.text)
                a->group.id = PARAM_NO_ID;
        if (a->user.id == PARAM_NO_ID)
                return 0;
        int r = groups_of(a->user.id, &a->group.id, groups, IDENTITY_GROUPS_MAX, &n);
        if (r == -E2BIG)
                return config_report(to, -EINVAL, "%s: user: %s is in %d groups; eqd takes %d", path, a->user.text, n,
                                     IDENTITY_GROUPS_MAX);
        if (r == -ENOENT && a->group.text)
                r = 0; /* a number that the database need not know */
        if (r < 0)
                return config_report(
                        to, r == -ENOENT ? -EINVAL : r,
                        "%s: user: %s has no primary group in the system's user database (%s); set group too", path,
                        a->user.text, strerror(-r));
        r = identity_new(a->user.id, a->group.id, groups, (unsigned)n, run_as);
        return r < 0 ? config_report(to, r, "%s: %s", path, strerror(-r)) : 0;
}

static int settle_plugin(const char *path, const QueueAttributes *a, const PluginLibrary *library, ConfigReport *to) {
        if (a->executor == QUEUE_EXECUTOR_PLUGIN && !library)
                return config_report(to, -EINVAL, "%s: executor: plugin needs Plugin=, the path of one", path);
        if (a->executor != QUEUE_EXECUTOR_PLUGIN && library)
                return config_report(to, -EINVAL, "%s: plugin: is set without Executor=plugin; set both, or neither",
                                     path);
        return 0;
}

bool config_has_pool(const Config *c, const char *name) {
        for (size_t i = 0; i < c->n_pools; i++)
                if (strcmp(c->pools[i].name, name) == 0)
                        return true;
        return strcmp(name, "default") == 0 || strcmp(name, "plugin") == 0;
}

static int compare_with_queue(const void *name, const void *queue) {
        return strcmp(name, ((const ConfigQueue *)queue)->name);
}

const ConfigQueue *config_queue(const Config *c, const char *name) {
        return c->n_queues == 0 ? NULL : bsearch(name, c->queues, c->n_queues, sizeof(*c->queues), compare_with_queue);
}

/* ---- directories ---- */

static int has_suffix(const char *name, const char *suffix) {
        size_t n = strlen(name), n_suffix = strlen(suffix);
        return *name != '.' && n >= n_suffix && strcmp(name + n - n_suffix, suffix) == 0;
}

static int is_dropin(const struct dirent *d) {
        return has_suffix(d->d_name, ".conf");
}

static int is_queue_file(const struct dirent *d) {
        return has_suffix(d->d_name, ".queue");
}

static int is_pool_file(const struct dirent *d) {
        return has_suffix(d->d_name, ".pool");
}

static int by_name(const struct dirent **a, const struct dirent **b) {
        return strcmp((*a)->d_name, (*b)->d_name);
}

static int path_join(ConfigReport *to, char ret[PATH_MAX], const char *dir, const char *name) {
        int n = snprintf(ret, PATH_MAX, "%s/%s", dir, name);
        return n < PATH_MAX ? 0
                            : config_report(to, -ENAMETOOLONG, "%s: the path is too long; at most %d bytes", dir,
                                            PATH_MAX - 1);
}

/* Calls back for the files of a directory, sorted by name. No directory: no files. */
typedef int (*EachFunc)(void *userdata, const char *path, const char *name);
static int each_file(const char *dir, int (*filter)(const struct dirent *), EachFunc func, void *userdata,
                     ConfigReport *to) {
        struct dirent **names;
        char path[PATH_MAX];

        int n = scandir(dir, &names, filter, by_name), r = n < 0 ? -errno : 0;
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return config_report(to, r, "%s: cannot read the directory: %s", dir, strerror(-r));
        for (int i = 0; i < n; i++) {
                if (r == 0)
                        r = path_join(to, path, dir, names[i]->d_name);
                if (r == 0)
                        r = func(userdata, path, names[i]->d_name);
                r = config_pass(to, r);
                free(names[i]);
        }
        free(names);
        return r;
}

typedef struct Dropins {
        const ConfigFile *target;
        uint64_t *digest; /* NULL: not wanted */
} Dropins;

static int load_dropin(void *userdata, const char *path, const char *name) {
        const Dropins *d = userdata;
        return config_file_load(path, d->target, d->digest);
}

/* A file, then its drop-ins. */
static int load_with_dropins(const char *path, const ConfigFile *target, uint64_t *digest) {
        Dropins d = { .target = target, .digest = digest };
        char dir[PATH_MAX];

        int r = config_pass(target->report, config_file_load(path, target, digest));
        if (r == 0 && snprintf(dir, sizeof(dir), "%s.d", path) >= PATH_MAX)
                r = config_report(target->report, -ENAMETOOLONG, "%s: the path is too long", path);
        if (r == 0)
                r = each_file(dir, is_dropin, load_dropin, &d, target->report);
        return r == 0 && target->run_as ? settle_user(path, target->attributes, target->run_as, target->report) : r;
}

/* ---- files of queues and pools ---- */

typedef struct Loading {
        Config *config;
        ConfigReport *report;
} Loading;

/* The name that a file describes, which is path without its suffix. */
static int name_of_file(const Loading *all, const char *path, const char *name, const char *what,
                        char ret[EQ_NAME_MAX + 1]) {
        size_t len = (size_t)(strrchr(name, '.') - name);
        char quoted[64];

        if (!eq_name_valid(eq_bytes(name, len)))
                return config_report(all->report, -EINVAL,
                                     "%s: %s cannot be the name of a %s; 1 to %d letters, digits and . _ @ -, not "
                                     "beginning with . or -",
                                     path, param_quote(name, len, quoted), what, EQ_NAME_MAX);
        memcpy(ret, name, len);
        ret[len] = '\0';
        return 0;
}

static char *copy_text(const char *text) {
        size_t n = strlen(text) + 1;
        char *copy = fault_malloc(n);
        return copy ? memcpy(copy, text, n) : NULL;
}

/* ---- pools ---- */

int config_settle_pool_defaults(Config *c) {
        c->pool_defaults.slots = c->daemon.slots;
        c->pool_defaults.stall_thresh_usec = c->daemon.watchdog_thresh_usec;
        c->pool_defaults.max_workers = c->daemon.plugin_threads;
        for (size_t i = 0; i < c->n_pools; i++) {
                int r = attributes_rebase(&attributes_of_pools, &c->pools[i].attributes, &c->pool_defaults);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Names first: eqd.conf may already name one for all queues. */
static int add_pool(void *userdata, const char *path, const char *name) {
        Loading *all = userdata;
        Config *c = all->config;
        ConfigPool p = { .digest = CONFIG_DIGEST_NULL };

        int r = name_of_file(all, path, name, "pool", p.name);
        if (r < 0)
                return r;
        if (c->n_pools == EQ_POOLS_MAX)
                return config_report(all->report, -EINVAL, "%s: there are too many pools; at most %d", path,
                                     EQ_POOLS_MAX);
        ConfigPool *pools = fault_realloc(c->pools, (c->n_pools + 1) * sizeof(*pools));
        if (pools)
                c->pools = pools;
        p.file = pools ? copy_text(path) : NULL;
        r = p.file ? pool_attributes_init(&p.attributes, NULL) : -ENOMEM;
        if (r < 0) {
                free(p.file);
                return config_report(all->report, r, "%s: %s", path, strerror(-r));
        }
        c->pools[c->n_pools++] = p;
        return 0;
}

static int load_pools(const Loading *all) {
        Config *c = all->config;
        int r = config_settle_pool_defaults(c);
        if (r < 0)
                return config_report(all->report, r, "%s", strerror(-r));
        for (size_t i = 0; r == 0 && i < c->n_pools; i++) {
                ConfigFile target = {
                        .config = c,
                        .kind = &attributes_of_pools,
                        .attributes = &c->pools[i].attributes,
                        .defaults = &c->pool_defaults,
                        .report = all->report,
                };
                r = load_with_dropins(c->pools[i].file, &target, &c->pools[i].digest);
                const PoolAttributes *a = &c->pools[i].attributes;
                if (r == 0 && a->min_workers > a->max_workers)
                        r = config_report(all->report, -EINVAL,
                                          "%s: min_workers: %" PRIu64 " are more than max_workers, which is %" PRIu64,
                                          c->pools[i].file, a->min_workers, a->max_workers);
                r = config_pass(all->report, r);
        }
        return r;
}

/* ---- queues ---- */

/* The pools are read. */
static bool pool_has_threads(const Config *c, const char *name) {
        for (size_t i = 0; i < c->n_pools; i++)
                if (strcmp(c->pools[i].name, name) == 0)
                        return c->pools[i].attributes.kind != 0;
        return strcmp(name, "plugin") == 0;
}

/* A queue that says itself where it runs: commands have no use for threads, nor plugins for slots. */
static int check_pool_kind(const Config *c, const char *path, const QueueAttributes *a, ConfigReport *to) {
        bool threads = a->executor == QUEUE_EXECUTOR_PLUGIN;
        if (a->executor == QUEUE_EXECUTOR_WORKER || !attributes_is_set(&attributes_of_queues, a, "pool") ||
            strcmp(a->pool, "default") == 0 || pool_has_threads(c, a->pool) == threads)
                return 0;
        return config_report(to, -EINVAL, "%s: pool: %s is for %s; name a pool with Kind=%s, or leave it out", path,
                             a->pool, threads ? "commands" : "plugins", threads ? "thread" : "command");
}

/* Room for one more, with the defaults. It counts only when the caller counts it. */
static int queues_add(Config *c, const char *path, const char *name, ConfigQueue **ret) {
        ConfigQueue *queues = fault_realloc(c->queues, (c->n_queues + 1) * sizeof(*queues));
        if (!queues)
                return -ENOMEM;
        c->queues = queues;
        ConfigQueue *q = &queues[c->n_queues];
        *q = (ConfigQueue) { .digest = CONFIG_DIGEST_NULL };
        memcpy(q->name, name, sizeof(q->name));
        q->file = copy_text(path);
        if (!q->file)
                return -ENOMEM;
        int r = queue_attributes_init(&q->attributes, &c->queue_defaults);
        if (r < 0) {
                free(q->file);
                return r;
        }
        c->n_queues++;
        *ret = q;
        return 0;
}

static int load_queue(void *userdata, const char *path, const char *name) {
        Loading *all = userdata;
        char queue[EQ_NAME_MAX + 1];
        ConfigQueue *q;

        int r = name_of_file(all, path, name, "queue", queue);
        if (r < 0)
                return r;
        r = queues_add(all->config, path, queue, &q);
        if (r < 0)
                return config_report(all->report, r, "%s: %s", path, strerror(-r));
        ConfigFile target = {
                .config = all->config,
                .kind = &attributes_of_queues,
                .attributes = &q->attributes,
                .run_as = &q->run_as,
                .library = &q->library,
                .defaults = &all->config->queue_defaults,
                .report = all->report,
        };
        int e = load_with_dropins(path, &target, &q->digest);
        if (e == 0)
                e = settle_plugin(path, &q->attributes, q->library, all->report);
        return e == 0 ? check_pool_kind(all->config, path, &q->attributes, all->report) : e;
}

/* ---- all ---- */

/* The daemon's threshold is the default of all queues; what [Queue] sets is nearer to them. */
static void follow_watchdog_thresh(Config *c) {
        const Param *row = params_find(&queue_attributes_table, "stall_thresh", strlen("stall_thresh"));
        if (!(c->queue_defaults.present >> params_index(&queue_attributes_table, row) & 1))
                c->queue_defaults.engine.stall_thresh_usec = c->daemon.watchdog_thresh_usec;
}

/* What no row can say of itself. */
static int check_settings(const DaemonSettings *d, char *error, size_t error_size) {
        const char *wanted = d->memory_pressure;
        if (*wanted == '/' || strcmp(wanted, "auto") == 0 || strcmp(wanted, "off") == 0)
                return 0;
        snprintf(error, error_size, "memory_pressure: \"%s\" is neither auto nor off nor an absolute path", wanted);
        return -EINVAL;
}

static int check_daemon(const char *path, const Config *c, ConfigReport *to) {
        char error[PARAM_ERROR_MAX];
        int r = check_settings(&c->daemon, error, sizeof(error));
        return r < 0 ? config_report(to, r, "%s: %s", path, error) : 0;
}

int config_set_daemon(Config *c, const Param *row, EqBytes value, char *error, size_t error_size) {
        DaemonSettings d;
        int r = params_init(&daemon_settings_table, &d);
        if (r == 0) {
                r = param_set(row, &d, value.data, value.len, NULL, error, error_size);
                if (r == 0)
                        r = check_settings(&d, error, error_size);
                if (r == 0)
                        r = param_copy(row, &c->daemon, &d);
                params_deinit(&daemon_settings_table, &d);
        }
        if (r == -ENOMEM)
                snprintf(error, error_size, "%s: %s", row->name, strerror(ENOMEM));
        return r;
}

static int load_all(Config *c, const char *dir, ConfigReport *to) {
        ConfigFile target = {
                .has_settings = true,
                .config = c,
                .kind = &attributes_of_queues,
                .attributes = &c->queue_defaults,
                .run_as = &c->default_run_as,
                .report = to,
        };
        Loading all = { .config = c, .report = to };
        char path[PATH_MAX];

        int r = path_join(to, path, dir, "pools.d");
        if (r == 0)
                r = each_file(path, is_pool_file, add_pool, &all, to);
        r = config_pass(to, r);
        if (r == 0)
                r = path_join(to, path, dir, "eqd.conf");
        if (r == 0)
                r = load_with_dropins(path, &target, NULL);
        r = config_pass(to, r);
        follow_watchdog_thresh(c);
        if (r == 0)
                r = config_pass(to, check_daemon(path, c, to));
        if (r == 0)
                r = config_pass(to, settle_plugin(path, &c->queue_defaults, NULL, to));
        if (r == 0)
                r = load_pools(&all);
        r = config_pass(to, r);
        if (r == 0)
                r = path_join(to, path, dir, "queues.d");
        if (r == 0)
                r = each_file(path, is_queue_file, load_queue, &all, to);
        return r < 0 ? r : to->result;
}

static int config_new(bool system, Config **ret) {
        Config *c = fault_calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        c->system = system;
        int r = params_init(&daemon_settings_table, &c->daemon); /* what fails owns nothing, and can be given back */
        if (r == 0)
                r = queue_attributes_init(&c->queue_defaults, NULL);
        if (r == 0)
                r = pool_attributes_init(&c->pool_defaults, NULL);
        if (r < 0) {
                config_free(c);
                return r;
        }
        *ret = c;
        return 0;
}

static int load(const char *dir, bool system, ConfigReport *to, Config **ret) {
        _cleanup_(config_freep) Config *c = NULL;

        int r = config_new(system, &c);
        if (r < 0)
                return config_report(to, r, "%s: %s", dir, strerror(-r));
        r = load_all(c, dir, to);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
}

int config_load(const char *dir, bool system, Config **ret, char *error, size_t error_size) {
        ConfigReport to = { .text = error, .size = error_size };
        return load(dir, system, &to, ret);
}

int config_check(const char *dir, bool system, ConfigMistakeFunc each, void *userdata) {
        _cleanup_(config_freep) Config *c = NULL;
        char error[PARAM_ERROR_MAX + PATH_MAX];
        ConfigReport to = { .text = error, .size = sizeof(error), .each = each, .userdata = userdata };
        return load(dir, system, &to, &c);
}

Config *config_free(Config *c) {
        if (!c)
                return NULL;
        for (size_t i = 0; i < c->n_queues; i++) {
                queue_attributes_deinit(&c->queues[i].attributes);
                identity_unref(c->queues[i].run_as);
                plugin_library_unref(c->queues[i].library);
                free(c->queues[i].file);
        }
        free(c->queues);
        for (size_t i = 0; i < c->n_pools; i++) {
                pool_attributes_deinit(&c->pools[i].attributes);
                free(c->pools[i].file);
        }
        free(c->pools);
        pool_attributes_deinit(&c->pool_defaults);
        queue_attributes_deinit(&c->queue_defaults);
        identity_unref(c->default_run_as);
        params_deinit(&daemon_settings_table, &c->daemon);
        free(c);
        return NULL;
}
