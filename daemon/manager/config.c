/* SPDX-License-Identifier: MIT */

/* Reads the configuration.
 *
 * A file is opened, judged by its descriptor, read whole and given to libinih line by line, so that the reader here knows
 * the number of the line that the handler is called for. libinih takes lines of less than 200 bytes and has an indented
 * line follow the value of the line before it; therefore an entry is kept until the next line that is not one of those,
 * and set then (entry_flush). Reading ends at the first error. Text from files is only ever quoted in messages. */

#include "manager/config.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <inttypes.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"

enum {
        LINE_MAX_BYTES = 196,   /* what fits libinih's buffer, without the newline */
        LOOKUP_BYTES = 1 << 20, /* a group's members, at most */
};

static const uint64_t fnv_offset = UINT64_C(0xcbf29ce484222325);
static const uint64_t fnv_prime = UINT64_C(0x100000001b3);

/* Where messages go. */
typedef struct Report {
        char *text;
        size_t size;
} Report;

/* Key and value as far as read: set when the next key, section or the end comes. */
typedef struct Entry {
        char section[64];
        char key[64];
        char value[PARAM_TEXT_MAX + 1];
        size_t len;
        unsigned line; /* 0: there is none */
} Entry;

/* One file while it is parsed. Settings of the daemon stand in eqd.conf only. */
typedef struct File {
        const char *path;
        const char *next, *end; /* of the text, not parsed yet */
        unsigned line;          /* of the line last given out */
        bool indented;          /* was that line */
        bool trusted;           /* may say as whom tasks run */
        bool has_settings;
        Config *config; /* borrowed */
        const AttributeKind *kind;
        void *attributes;        /* borrowed: of the queue or pool, or the defaults of queues */
        Identity **run_as;       /* borrowed: of the queue, or the defaults; NULL: a pool */
        PluginLibrary **library; /* borrowed: of the queue; NULL: these are the defaults, or a pool */
        const void *defaults;    /* borrowed; NULL: the built-in ones */
        Entry entry;
        int result;
        unsigned result_line;
        Report *report;
} File;

/* ---- messages ---- */

_printf_(3, 4) static int report(Report *to, int r, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        (void)vsnprintf(to->text, to->size, format, ap); /* cut is good enough */
        va_end(ap);
        return r;
}

/* Fails the file at a line. Returns what libinih takes for an error: 0. */
_printf_(4, 5) static int file_fail(File *f, unsigned line, int r, const char *format, ...) {
        char what[PARAM_ERROR_MAX];
        va_list ap;

        if (f->result < 0)
                return 0;
        va_start(ap, format);
        (void)vsnprintf(what, sizeof(what), format, ap);
        va_end(ap);
        f->result = report(f->report, r, "%s:%u: %s", f->path, line, what);
        f->result_line = line;
        return 0;
}

/* ---- names of users and groups ---- */

static int lookup_user(const char *name, uint32_t *ret) {
        _cleanup_free_ char *buffer = fault_malloc(LOOKUP_BYTES);
        struct passwd entry, *found = NULL;

        if (!buffer)
                return -ENOMEM;
        int e = getpwnam_r(name, &entry, buffer, LOOKUP_BYTES, &found);
        if (!found)
                return e == 0 ? -ENOENT : -e;
        *ret = entry.pw_uid;
        return 0;
}

static int lookup_group(const char *name, uint32_t *ret) {
        _cleanup_free_ char *buffer = fault_malloc(LOOKUP_BYTES);
        struct group entry, *found = NULL;

        if (!buffer)
                return -ENOMEM;
        int e = getgrnam_r(name, &entry, buffer, LOOKUP_BYTES, &found);
        if (!found)
                return e == 0 ? -ENOENT : -e;
        *ret = entry.gr_gid;
        return 0;
}

static const ParamLookup lookup = { .user = lookup_user, .group = lookup_group };

/* The groups of a user, with *gid as the primary one; NO_ID: the one of the user database, and *gid becomes that. -ENOENT:
 * the database does not know the user, *ret_n is 0. */
static int groups_of(uid_t uid, uint32_t *gid, gid_t *groups, int n, int *ret_n) {
        _cleanup_free_ char *buffer = fault_malloc(LOOKUP_BYTES);
        struct passwd entry, *found = NULL;

        *ret_n = 0;
        if (!buffer)
                return -ENOMEM;
        int e = getpwuid_r(uid, &entry, buffer, LOOKUP_BYTES, &found);
        if (!found)
                return e == 0 ? -ENOENT : -e;
        if (*gid == PARAM_NO_ID)
                *gid = entry.pw_gid;
        *ret_n = n;
        return getgrouplist(entry.pw_name, *gid, groups, ret_n) < 0 ? -E2BIG : 0;
}

/* As whom the tasks of a queue run: the user with the groups that a login gives him. A group that was not set has no text:
 * it is found anew each time, also where the user comes with the defaults and the queue names another. */
static int settle_user(const char *path, QueueAttributes *a, Identity **run_as, Report *to) {
        gid_t groups[IDENTITY_GROUPS_MAX];
        int n;

        *run_as = identity_unref(*run_as);
        if (a->group.text && a->user.id == PARAM_NO_ID)
                return report(to, -EINVAL, "%s: group: is set without user; set both, or user alone", path);
        if (!a->group.text)
                a->group.id = PARAM_NO_ID;
        if (a->user.id == PARAM_NO_ID)
                return 0;
        int r = groups_of(a->user.id, &a->group.id, groups, IDENTITY_GROUPS_MAX, &n);
        if (r == -E2BIG)
                return report(to, -EINVAL, "%s: user: %s is in %d groups; eqd takes %d", path, a->user.text, n,
                              IDENTITY_GROUPS_MAX);
        if (r == -ENOENT && a->group.text)
                r = 0; /* a number that the database need not know */
        if (r < 0)
                return report(to, r == -ENOENT ? -EINVAL : r,
                              "%s: user: %s has no primary group in the system's user database (%s); set group too",
                              path, a->user.text, strerror(-r));
        r = identity_new(a->user.id, a->group.id, groups, (unsigned)n, run_as);
        return r < 0 ? report(to, r, "%s: %s", path, strerror(-r)) : 0;
}

static int settle_plugin(const char *path, const QueueAttributes *a, const PluginLibrary *library, Report *to) {
        if (a->executor == QUEUE_EXECUTOR_PLUGIN && !library)
                return report(to, -EINVAL, "%s: executor: plugin needs Plugin=, the path of one", path);
        if (a->executor != QUEUE_EXECUTOR_PLUGIN && library)
                return report(to, -EINVAL, "%s: plugin: is set without Executor=plugin; set both, or neither", path);
        return 0;
}

/* ---- one entry ---- */

static const Param *find_setting(const Entry *e, char *error, size_t size) {
        const Param *row = params_find(&daemon_settings_table, e->key, strlen(e->key));

        if (!row)
                params_unknown(&daemon_settings_table, e->section, e->key, strlen(e->key), error, size);
        else if (strcmp(row->section, e->section) != 0) {
                snprintf(error, size, "%s: belongs to section [%s]", row->name, row->section);
                return NULL;
        }
        return row;
}

static int set_setting(File *f, const Entry *e, char *error, size_t size) {
        const Param *row = find_setting(e, error, size);
        char room[PARAM_MSEC_MAX];
        size_t n = e->len;
        if (!row)
                return -EINVAL;
        const char *value = param_value_as(row, e->key, strlen(e->key), e->value, &n, room);
        return param_set(row, &f->config->daemon, value, n, &lookup, error, size);
}

/* Which plugin it is must not be up to anybody else, since it is code in eqd; nor may there be one in an eqd that could do
 * things as other users. */
static int set_plugin(File *f, const Entry *e, char *error, size_t size) {
        const DaemonSettings *d = &f->config->daemon;
        char what[PLUGIN_ERROR_MAX];

        if (!f->library) {
                snprintf(error, size, "plugin: only the file of a queue can name one");
                return -EINVAL;
        }
        if (d->commands && d->identity == COMMAND_IDENTITY_SUBMITTER && (f->config->system || geteuid() == 0)) {
                snprintf(error, size,
                         "plugin: not where eqd runs commands as other users; set Commands=no or Identity=own in "
                         "eqd.conf");
                return -EPERM;
        }
        *f->library = plugin_library_unref(*f->library);
        int r = e->len > 0 ? plugin_library_open(e->value, !f->config->system, f->library, what, sizeof(what)) : 0;
        if (r < 0)
                snprintf(error, size, "plugin: %s", what);
        return r;
}

/* May that be said by files only that nobody but root, or eqd's own user, can have written? */
static bool needs_trust(const Param *row) {
        return row->type == PARAM_USER || row->type == PARAM_GROUP || strcmp(row->name, "plugin") == 0 ||
               strcmp(row->name, "plugin_config") == 0;
}

/* Of the section whose rows the attributes are. */
static const char *section_of(const File *f) {
        return f->kind->table->rows[0].section;
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

/* The pools are read. */
static bool pool_has_threads(const Config *c, const char *name) {
        for (size_t i = 0; i < c->n_pools; i++)
                if (strcmp(c->pools[i].name, name) == 0)
                        return c->pools[i].attributes.kind != 0;
        return strcmp(name, "plugin") == 0;
}

/* A queue that says itself where it runs: commands have no use for threads, nor plugins for slots. */
static int check_pool_kind(const Config *c, const char *path, const QueueAttributes *a, Report *to) {
        bool threads = a->executor == QUEUE_EXECUTOR_PLUGIN;
        if (a->executor == QUEUE_EXECUTOR_WORKER || !attributes_is_set(&attributes_of_queues, a, "pool") ||
            strcmp(a->pool, "default") == 0 || pool_has_threads(c, a->pool) == threads)
                return 0;
        return report(to, -EINVAL, "%s: pool: %s is for %s; name a pool with Kind=%s, or leave it out", path, a->pool,
                      threads ? "commands" : "plugins", threads ? "thread" : "command");
}

/* A queue in no pool that a file describes: those that clients make do not outlive eqd. */
static int check_pool(const File *f, char *error, size_t size) {
        char quoted[64];
        const char *name = f->kind == &attributes_of_queues ? ((const QueueAttributes *)f->attributes)->pool : NULL;

        if (!name || config_has_pool(f->config, name))
                return 0;
        size_t n = (size_t)snprintf(error, size, "pool: there is no pool %s; there are default plugin",
                                    param_quote(name, strlen(name), quoted));
        for (size_t i = 0; i < f->config->n_pools && n < size; i++)
                if (strcmp(f->config->pools[i].name, "default") != 0 && strcmp(f->config->pools[i].name, "plugin") != 0)
                        n += (size_t)snprintf(error + n, size - n, " %s", f->config->pools[i].name);
        if (n < size)
                snprintf(error + n, size - n, ", and those that you add as pools.d/NAME.pool");
        return -EINVAL;
}

static int set_attribute(File *f, const Entry *e, char *error, size_t size) {
        const Param *row = params_find(f->kind->table, e->key, strlen(e->key));

        if (!row)
                return params_unknown(f->kind->table, NULL, e->key, strlen(e->key), error, size);
        if (needs_trust(row) && !f->trusted) {
                snprintf(error, size,
                         "%s: is taken only from a file that root %sowns and nobody else may write; "
                         "chown it to root and chmod go-w",
                         row->name, f->config->system ? "" : "or eqd ");
                return -EPERM;
        }
        int r = strcmp(row->name, "plugin") == 0 ? set_plugin(f, e, error, size) : 0;
        char room[PARAM_MSEC_MAX];
        size_t n = e->len;
        const char *value = param_value_as(row, e->key, strlen(e->key), e->value, &n, room);
        if (r >= 0)
                r = attributes_set_row(f->kind, f->attributes, f->defaults, row, value, n, &lookup, error, size);
        return r < 0 ? r : check_pool(f, error, size);
}

static bool section_known(const File *f, const char *section) {
        if (strcmp(section, section_of(f)) == 0)
                return true;
        for (size_t i = 0; f->has_settings && i < daemon_settings_table.n; i++)
                if (strcmp(section, daemon_settings_table.rows[i].section) == 0)
                        return true;
        return false;
}

static int section_refuse(File *f, unsigned line, const char *section, size_t len) {
        char quoted[64];
        param_quote(section, len, quoted);
        if (f->has_settings)
                return file_fail(f, line, -EINVAL,
                                 "section %s is not known here; there are [Daemon], [Commands], [Plugins], [Watchdog], "
                                 "[Store], [Limits] and [%s]",
                                 quoted, section_of(f));
        return file_fail(f, line, -EINVAL, "section %s is not known here; there is [%s]", quoted, section_of(f));
}

/* Messages of the tables begin with the name of the row; people look for the key that they wrote. */
static int entry_refuse(File *f, unsigned line, const ParamTable *table, int r, const char *error) {
        const char *key = f->entry.key;
        const Param *row = params_find(table, key, strlen(key));
        size_t n = row ? strlen(row->name) : 0;

        if (n > 0 && strncmp(error, row->name, n) == 0 && error[n] == ':')
                return file_fail(f, line, r, "%s%s", key, error + n);
        return file_fail(f, line, r, "%s", error);
}

/* Sets the entry that was read. 1, or 0: it failed. */
static int entry_flush(File *f) {
        Entry *e = &f->entry;
        char error[PARAM_ERROR_MAX];

        if (e->line == 0)
                return 1;
        unsigned line = e->line;
        e->line = 0;
        if (!section_known(f, e->section))
                return *e->section == '\0' ? file_fail(f, line, -EINVAL, "there is no section above; put [%s] first",
                                                       f->has_settings ? "Daemon" : section_of(f))
                                           : section_refuse(f, line, e->section, strlen(e->section));
        if (!eq_text_valid(eq_bytes(e->value, e->len)))
                return file_fail(f, line, -EINVAL, "the value is not UTF-8 without control characters");
        bool is_attribute = strcmp(e->section, section_of(f)) == 0;
        int r = is_attribute ? set_attribute(f, e, error, sizeof(error)) : set_setting(f, e, error, sizeof(error));
        return r < 0 ? entry_refuse(f, line, is_attribute ? f->kind->table : &daemon_settings_table, r, error) : 1;
}

static int entry_append(File *f, const char *text) {
        Entry *e = &f->entry;
        size_t n = strlen(text), glue = e->len > 0 && n > 0;

        if (e->len + glue + n > PARAM_TEXT_MAX)
                return file_fail(f, f->line, -EINVAL, "the value is too long; at most %d bytes", PARAM_TEXT_MAX);
        if (glue)
                e->value[e->len++] = ' ';
        memcpy(e->value + e->len, text, n + 1);
        e->len += n;
        return 1;
}

/* For libinih: each `key = value`, and again with the same key for each indented line below it. */
static int on_entry(void *userdata, const char *section, const char *key, const char *value) {
        File *f = userdata;
        Entry *e = &f->entry;

        if (f->result < 0)
                return 0;
        if (f->indented && e->line > 0 && strcmp(e->key, key) == 0)
                return entry_append(f, value);
        if (!entry_flush(f))
                return 0;
        snprintf(e->section, sizeof(e->section), "%s", section);
        snprintf(e->key, sizeof(e->key), "%s", key);
        e->len = 0;
        e->value[0] = '\0';
        e->line = f->line;
        return entry_append(f, value);
}

/* ---- one file ---- */

/* A section without entries is never given to on_entry(); and no value goes on beyond the header of a section. */
static void check_section(File *f, const char *line, size_t len) {
        const char *end = memchr(line, ']', len);
        char name[64];

        if (line[0] != '[' || !end)
                return; /* libinih finds the missing bracket */
        if (!entry_flush(f))
                return;
        size_t n = (size_t)(end - line) - 1;
        if (n >= sizeof(name)) {
                section_refuse(f, f->line, line + 1, n);
                return;
        }
        memcpy(name, line + 1, n);
        name[n] = '\0';
        if (!section_known(f, name))
                section_refuse(f, f->line, name, n);
}

/* For libinih: the next line, like fgets(). */
static char *read_line(char *buffer, int size, void *userdata) {
        File *f = userdata;

        if (f->next == f->end || f->result < 0)
                return NULL;
        const char *newline = memchr(f->next, '\n', (size_t)(f->end - f->next));
        size_t len = (size_t)((newline ? newline : f->end) - f->next);
        f->line++;
        if (len > LINE_MAX_BYTES || len + 2 > (size_t)size) {
                file_fail(f, f->line, -EINVAL, "the line has %zu bytes; at most %d, go on in an indented line below",
                          len, LINE_MAX_BYTES);
                return NULL;
        }
        f->indented = len > 0 && (f->next[0] == ' ' || f->next[0] == '\t');
        check_section(f, f->next, len);
        memcpy(buffer, f->next, len);
        buffer[len] = '\n';
        buffer[len + 1] = '\0';
        f->next = newline ? newline + 1 : f->end;
        return buffer;
}

/* Opens and judges. 1: there is none. */
static int file_open(const char *path, bool system, Report *to, bool *ret_trusted, size_t *ret_size, int *ret_fd) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;

        int r = fd < 0 ? -errno : 0;
        if (r == -ENOENT)
                return 1;
        if (r == 0 && fstat(fd, &st) < 0)
                r = -errno;
        if (r < 0)
                return report(to, r, "%s: cannot read it: %s", path, strerror(-r));
        if (!S_ISREG(st.st_mode))
                return report(to, -EINVAL, "%s: is no regular file; eqd reads its configuration from such only", path);
        if (st.st_size > CONFIG_FILE_MAX)
                return report(to, -EFBIG, "%s: has %lld bytes; at most %d", path, (long long)st.st_size,
                              CONFIG_FILE_MAX);
        *ret_trusted = (st.st_uid == 0 || (!system && st.st_uid == geteuid())) && !(st.st_mode & (S_IWGRP | S_IWOTH));
        *ret_size = (size_t)st.st_size;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* Reads a file into memory that the caller frees. It may have grown since it was judged: what is beyond the limit then is
 * an error as well. 1: there is none. */
static int file_read(const char *path, bool system, Report *to, bool *ret_trusted, char **ret, size_t *ret_len) {
        _cleanup_close_ int fd = -1;
        size_t size, len = 0;

        int r = file_open(path, system, to, ret_trusted, &size, &fd);
        if (r != 0)
                return r;
        _cleanup_free_ char *text = fault_malloc(CONFIG_FILE_MAX + 1);
        if (!text)
                return report(to, -ENOMEM, "%s: %s", path, strerror(ENOMEM));
        while (len <= CONFIG_FILE_MAX) {
                ssize_t n = read(fd, text + len, CONFIG_FILE_MAX + 1 - len);
                r = n < 0 ? -errno : 0;
                if (n == 0)
                        break;
                if (r == -EINTR)
                        continue;
                if (r < 0)
                        return report(to, r, "%s: cannot read it: %s", path, strerror(-r));
                len += (size_t)n;
        }
        if (len > CONFIG_FILE_MAX)
                return report(to, -EFBIG, "%s: has more than %d bytes", path, CONFIG_FILE_MAX);
        *ret = TAKE_PTR(text);
        *ret_len = len;
        return 0;
}

static void digest_add(uint64_t *digest, const char *text, size_t len) {
        for (size_t i = 0; digest && i < len; i++)
                *digest = (*digest ^ (unsigned char)text[i]) * fnv_prime;
}

/* Parses one file into what `target` names. A file that is not there is empty. */
static int file_load(const char *path, const File *target, uint64_t *digest) {
        _cleanup_free_ char *text = NULL;
        size_t len = 0;
        File f = *target;

        int r = file_read(path, f.config->system, f.report, &f.trusted, &text, &len);
        if (r != 0)
                return r > 0 ? 0 : r;
        f.path = path;
        f.next = text;
        f.end = text + len;
        const char *nul = memchr(text, '\0', len);
        if (nul)
                return report(f.report, -EINVAL, "%s: holds a NUL byte; it must be text", path);
        int bad = ini_parse_stream(read_line, &f, on_entry, &f);
        (void)entry_flush(&f); /* the last one; f.result says how it went */
        if (bad > 0 && (f.result == 0 || (unsigned)bad < f.result_line)) {
                f.result = 0;
                file_fail(&f, (unsigned)bad, -EINVAL, "is neither [Section] nor Key=value nor a comment after # or ;");
        }
        if (bad < 0 && f.result == 0)
                return report(f.report, -ENOMEM, "%s: %s", path, strerror(ENOMEM));
        digest_add(digest, text, len);
        return f.result;
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

static int path_join(Report *to, char ret[PATH_MAX], const char *dir, const char *name) {
        int n = snprintf(ret, PATH_MAX, "%s/%s", dir, name);
        return n < PATH_MAX
                       ? 0
                       : report(to, -ENAMETOOLONG, "%s: the path is too long; at most %d bytes", dir, PATH_MAX - 1);
}

/* Calls back for the files of a directory, sorted by name. No directory: no files. */
typedef int (*EachFunc)(void *userdata, const char *path, const char *name);
static int each_file(const char *dir, int (*filter)(const struct dirent *), EachFunc func, void *userdata, Report *to) {
        struct dirent **names;
        char path[PATH_MAX];

        int n = scandir(dir, &names, filter, by_name), r = n < 0 ? -errno : 0;
        if (r == -ENOENT)
                return 0;
        if (r < 0)
                return report(to, r, "%s: cannot read the directory: %s", dir, strerror(-r));
        for (int i = 0; i < n; i++) {
                if (r == 0)
                        r = path_join(to, path, dir, names[i]->d_name);
                if (r == 0)
                        r = func(userdata, path, names[i]->d_name);
                free(names[i]);
        }
        free(names);
        return r;
}

typedef struct Dropins {
        const File *target;
        uint64_t *digest; /* NULL: not wanted */
} Dropins;

static int load_dropin(void *userdata, const char *path, const char *name) {
        const Dropins *d = userdata;
        return file_load(path, d->target, d->digest);
}

/* A file, then its drop-ins. */
static int load_with_dropins(const char *path, const File *target, uint64_t *digest) {
        Dropins d = { .target = target, .digest = digest };
        char dir[PATH_MAX];

        int r = file_load(path, target, digest);
        if (r == 0 && snprintf(dir, sizeof(dir), "%s.d", path) >= PATH_MAX)
                r = report(target->report, -ENAMETOOLONG, "%s: the path is too long", path);
        if (r == 0)
                r = each_file(dir, is_dropin, load_dropin, &d, target->report);
        return r == 0 && target->run_as ? settle_user(path, target->attributes, target->run_as, target->report) : r;
}

/* ---- files of queues and pools ---- */

typedef struct Loading {
        Config *config;
        Report *report;
} Loading;

/* The name that a file describes, which is path without its suffix. */
static int name_of_file(const Loading *all, const char *path, const char *name, const char *what,
                        char ret[EQ_NAME_MAX + 1]) {
        size_t len = (size_t)(strrchr(name, '.') - name);
        char quoted[64];

        if (!eq_name_valid(eq_bytes(name, len)))
                return report(all->report, -EINVAL,
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
        ConfigPool p = { .digest = fnv_offset };

        int r = name_of_file(all, path, name, "pool", p.name);
        if (r < 0)
                return r;
        if (c->n_pools == EQ_POOLS_MAX)
                return report(all->report, -EINVAL, "%s: there are too many pools; at most %d", path, EQ_POOLS_MAX);
        ConfigPool *pools = fault_realloc(c->pools, (c->n_pools + 1) * sizeof(*pools));
        if (pools)
                c->pools = pools;
        p.file = pools ? copy_text(path) : NULL;
        r = p.file ? pool_attributes_init(&p.attributes, NULL) : -ENOMEM;
        if (r < 0) {
                free(p.file);
                return report(all->report, r, "%s: %s", path, strerror(-r));
        }
        c->pools[c->n_pools++] = p;
        return 0;
}

static int load_pools(const Loading *all) {
        Config *c = all->config;
        int r = config_settle_pool_defaults(c);
        if (r < 0)
                return report(all->report, r, "%s", strerror(-r));
        for (size_t i = 0; r == 0 && i < c->n_pools; i++) {
                File target = {
                        .config = c,
                        .kind = &attributes_of_pools,
                        .attributes = &c->pools[i].attributes,
                        .defaults = &c->pool_defaults,
                        .report = all->report,
                };
                r = load_with_dropins(c->pools[i].file, &target, &c->pools[i].digest);
                const PoolAttributes *a = &c->pools[i].attributes;
                if (r == 0 && a->min_workers > a->max_workers)
                        r = report(all->report, -EINVAL,
                                   "%s: min_workers: %" PRIu64 " are more than max_workers, which is %" PRIu64,
                                   c->pools[i].file, a->min_workers, a->max_workers);
        }
        return r;
}

/* ---- queues ---- */

/* Room for one more, with the defaults. It counts only when the caller counts it. */
static int queues_add(Config *c, const char *path, const char *name, ConfigQueue **ret) {
        ConfigQueue *queues = fault_realloc(c->queues, (c->n_queues + 1) * sizeof(*queues));
        if (!queues)
                return -ENOMEM;
        c->queues = queues;
        ConfigQueue *q = &queues[c->n_queues];
        *q = (ConfigQueue) { .digest = fnv_offset };
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
                return report(all->report, r, "%s: %s", path, strerror(-r));
        File target = {
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

static int check_daemon(const char *path, const Config *c, Report *to) {
        char error[PARAM_ERROR_MAX];
        int r = check_settings(&c->daemon, error, sizeof(error));
        return r < 0 ? report(to, r, "%s: %s", path, error) : 0;
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

static int load_all(Config *c, const char *dir, Report *to) {
        File target = {
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
        if (r == 0)
                r = path_join(to, path, dir, "eqd.conf");
        if (r == 0)
                r = load_with_dropins(path, &target, NULL);
        follow_watchdog_thresh(c);
        if (r == 0)
                r = check_daemon(path, c, to);
        if (r == 0)
                r = settle_plugin(path, &c->queue_defaults, NULL, to);
        if (r == 0)
                r = load_pools(&all);
        if (r == 0)
                r = path_join(to, path, dir, "queues.d");
        if (r == 0)
                r = each_file(path, is_queue_file, load_queue, &all, to);
        return r;
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

int config_load(const char *dir, bool system, Config **ret, char *error, size_t error_size) {
        Report to = { .text = error, .size = error_size };
        _cleanup_(config_freep) Config *c = NULL;

        int r = config_new(system, &c);
        if (r < 0)
                return report(&to, r, "%s: %s", dir, strerror(-r));
        r = load_all(c, dir, &to);
        if (r < 0)
                return r;
        *ret = TAKE_PTR(c);
        return 0;
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
