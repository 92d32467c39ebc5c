/* SPDX-License-Identifier: MIT */
/* Reads one file of the configuration.
 *
 * It is opened, judged by its descriptor, read whole and given to libinih line by line, so that the reader here knows
 * the number of the line that the handler is called for. libinih takes lines of less than 200 bytes and has an indented
 * line follow the value of the line before it; therefore an entry is kept until the next line that is not one of those,
 * and set then (entry_flush). Reading ends at the first error, unless all are wanted. Text from files is only ever quoted
 * in messages. */

#include "manager/config_file.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ini.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"

enum { LINE_MAX_BYTES = 196 }; /* what fits libinih's buffer, without the newline */

static const uint64_t fnv_prime = UINT64_C(0x100000001b3);

/* ---- messages ---- */

int config_report(ConfigReport *to, int r, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        (void)vsnprintf(to->text, to->size, format, ap); /* cut is good enough */
        va_end(ap);
        if (to->result == 0)
                to->result = r;
        if (to->each)
                to->each(to->userdata, to->text);
        return r;
}

int config_pass(const ConfigReport *to, int r) {
        return to->each && r != -ENOMEM ? 0 : r;
}

/* Fails the file at a line. Returns what libinih takes for an error, 0; or 1, where that is to tell of its own only. */
_printf_(4, 5) static int file_fail(ConfigFile *f, unsigned line, int r, const char *format, ...) {
        char what[PARAM_ERROR_MAX];
        va_list ap;

        if (f->stopped)
                return 0;
        va_start(ap, format);
        (void)vsnprintf(what, sizeof(what), format, ap);
        va_end(ap);
        f->result = config_report(f->report, r, "%s:%u: %s", f->path, line, what);
        f->result_line = line;
        f->stopped = config_pass(f->report, r) < 0;
        return !f->stopped;
}

/* ---- names of users and groups ---- */

static int lookup_user(const char *name, uint32_t *ret) {
        _cleanup_free_ char *buffer = fault_malloc(CONFIG_LOOKUP_BYTES);
        struct passwd entry, *found = NULL;

        if (!buffer)
                return -ENOMEM;
        int e = getpwnam_r(name, &entry, buffer, CONFIG_LOOKUP_BYTES, &found);
        if (!found)
                return e == 0 ? -ENOENT : -e;
        *ret = entry.pw_uid;
        return 0;
}

static int lookup_group(const char *name, uint32_t *ret) {
        _cleanup_free_ char *buffer = fault_malloc(CONFIG_LOOKUP_BYTES);
        struct group entry, *found = NULL;

        if (!buffer)
                return -ENOMEM;
        int e = getgrnam_r(name, &entry, buffer, CONFIG_LOOKUP_BYTES, &found);
        if (!found)
                return e == 0 ? -ENOENT : -e;
        *ret = entry.gr_gid;
        return 0;
}

static const ParamLookup lookup = { .user = lookup_user, .group = lookup_group };

/* ---- one entry ---- */

static const Param *find_setting(const ConfigEntry *e, char *error, size_t size) {
        const Param *row = params_find(&daemon_settings_table, e->key, strlen(e->key));

        if (!row)
                params_unknown(&daemon_settings_table, e->section, e->key, strlen(e->key), error, size);
        else if (strcmp(row->section, e->section) != 0) {
                snprintf(error, size, "%s: belongs to section [%s]", row->name, row->section);
                return NULL;
        }
        return row;
}

static int set_setting(ConfigFile *f, const ConfigEntry *e, char *error, size_t size) {
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
static int set_plugin(ConfigFile *f, const ConfigEntry *e, char *error, size_t size) {
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
static const char *section_of(const ConfigFile *f) {
        return f->kind->table->rows[0].section;
}

/* A queue in no pool that a file describes: those that clients make do not outlive eqd. */
static int check_pool(const ConfigFile *f, char *error, size_t size) {
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

static int set_attribute(ConfigFile *f, const ConfigEntry *e, char *error, size_t size) {
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

static bool is_section(const char *name, const char *section, size_t len) {
        return strlen(name) == len && strncasecmp(section, name, len) == 0;
}

/* The section of that name as it is spelled, NULL: there is none, in any spelling. */
static const char *section_find(const ConfigFile *f, const char *section, size_t len) {
        if (is_section(section_of(f), section, len))
                return section_of(f);
        for (size_t i = 0; f->has_settings && i < daemon_settings_table.n; i++)
                if (is_section(daemon_settings_table.rows[i].section, section, len))
                        return daemon_settings_table.rows[i].section;
        return NULL;
}

static bool section_known(const ConfigFile *f, const char *section) {
        const char *found = section_find(f, section, strlen(section));
        return found && strcmp(found, section) == 0;
}

static int section_refuse(ConfigFile *f, unsigned line, const char *section, size_t len) {
        const char *spelled = section_find(f, section, len);
        char quoted[64];
        param_quote(section, len, quoted);
        if (spelled)
                return file_fail(f, line, -EINVAL, "section %s is spelled [%s]", quoted, spelled);
        if (f->has_settings)
                return file_fail(f, line, -EINVAL,
                                 "section %s is not known here; there are [Daemon], [Commands], [Plugins], [Watchdog], "
                                 "[Store], [Limits] and [%s]",
                                 quoted, section_of(f));
        return file_fail(f, line, -EINVAL, "section %s is not known here; there is [%s]", quoted, section_of(f));
}

/* Messages of the tables begin with the name of the row; people look for the key that they wrote. */
static int entry_refuse(ConfigFile *f, unsigned line, const ParamTable *table, int r, const char *error) {
        const char *key = f->entry.key;
        const Param *row = params_find(table, key, strlen(key));
        size_t n = row ? strlen(row->name) : 0;

        if (n > 0 && strncmp(error, row->name, n) == 0 && error[n] == ':')
                return file_fail(f, line, r, "%s%s", key, error + n);
        return file_fail(f, line, r, "%s", error);
}

/* Sets the entry that was read. 1, or 0: it failed. */
static int entry_flush(ConfigFile *f) {
        ConfigEntry *e = &f->entry;
        char error[PARAM_ERROR_MAX];

        if (e->line == 0)
                return 1;
        unsigned line = e->line;
        e->line = 0;
        if (f->section_refused)
                return 1; /* that has been said */
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

static int entry_append(ConfigFile *f, const char *text) {
        ConfigEntry *e = &f->entry;
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
        ConfigFile *f = userdata;
        ConfigEntry *e = &f->entry;

        if (f->stopped)
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
static void check_section(ConfigFile *f, const char *line, size_t len) {
        const char *end = memchr(line, ']', len);
        char name[64];

        if (line[0] != '[' || !end)
                return; /* libinih finds the missing bracket */
        if (!entry_flush(f))
                return;
        size_t n = (size_t)(end - line) - 1;
        (void)snprintf(name, sizeof(name), "%.*s", (int)n, line + 1);
        f->section_refused = n >= sizeof(name) || !section_known(f, name);
        if (f->section_refused)
                section_refuse(f, f->line, line + 1, n);
}

/* For libinih: the next line, like fgets(). */
static char *read_line(char *buffer, int size, void *userdata) {
        ConfigFile *f = userdata;

        if (f->next == f->end || f->stopped)
                return NULL;
        const char *newline = memchr(f->next, '\n', (size_t)(f->end - f->next));
        size_t len = (size_t)((newline ? newline : f->end) - f->next);
        f->line++;
        if (len > LINE_MAX_BYTES || len + 2 > (size_t)size) {
                file_fail(f, f->line, -EINVAL, "the line has %zu bytes; at most %d, go on in an indented line below",
                          len, LINE_MAX_BYTES);
                if (f->stopped)
                        return NULL;
                len = 0;
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
static int file_open(const char *path, bool system, ConfigReport *to, bool *ret_trusted, size_t *ret_size,
                     int *ret_fd) {
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        struct stat st;

        int r = fd < 0 ? -errno : 0;
        if (r == -ENOENT)
                return 1;
        if (r == 0 && fstat(fd, &st) < 0)
                r = -errno;
        if (r < 0)
                return config_report(to, r, "%s: cannot read it: %s", path, strerror(-r));
        if (!S_ISREG(st.st_mode))
                return config_report(to, -EINVAL, "%s: is no regular file; eqd reads its configuration from such only",
                                     path);
        if (st.st_size > CONFIG_FILE_MAX)
                return config_report(to, -EFBIG, "%s: has %lld bytes; at most %d", path, (long long)st.st_size,
                                     CONFIG_FILE_MAX);
        *ret_trusted = (st.st_uid == 0 || (!system && st.st_uid == geteuid())) && !(st.st_mode & (S_IWGRP | S_IWOTH));
        *ret_size = (size_t)st.st_size;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

/* Reads a file into memory that the caller frees. It may have grown since it was judged: what is beyond the limit then is
 * an error as well. 1: there is none. */
static int file_read(const char *path, bool system, ConfigReport *to, bool *ret_trusted, char **ret, size_t *ret_len) {
        _cleanup_close_ int fd = -1;
        size_t size, len = 0;

        int r = file_open(path, system, to, ret_trusted, &size, &fd);
        if (r != 0)
                return r;
        _cleanup_free_ char *text = fault_malloc(CONFIG_FILE_MAX + 1);
        if (!text)
                return config_report(to, -ENOMEM, "%s: %s", path, strerror(ENOMEM));
        while (len <= CONFIG_FILE_MAX) {
                ssize_t n = read(fd, text + len, CONFIG_FILE_MAX + 1 - len);
                r = n < 0 ? -errno : 0;
                if (n == 0)
                        break;
                if (r == -EINTR)
                        continue;
                if (r < 0)
                        return config_report(to, r, "%s: cannot read it: %s", path, strerror(-r));
                len += (size_t)n;
        }
        if (len > CONFIG_FILE_MAX)
                return config_report(to, -EFBIG, "%s: has more than %d bytes", path, CONFIG_FILE_MAX);
        *ret = TAKE_PTR(text);
        *ret_len = len;
        return 0;
}

static void digest_add(uint64_t *digest, const char *text, size_t len) {
        for (size_t i = 0; digest && i < len; i++)
                *digest = (*digest ^ (unsigned char)text[i]) * fnv_prime;
}

int config_file_load(const char *path, const ConfigFile *target, uint64_t *digest) {
        _cleanup_free_ char *text = NULL;
        size_t len = 0;
        ConfigFile f = *target;

        int r = file_read(path, f.config->system, f.report, &f.trusted, &text, &len);
        if (r != 0)
                return r > 0 ? 0 : r;
        f.path = path;
        f.next = text;
        f.end = text + len;
        const char *nul = memchr(text, '\0', len);
        if (nul)
                return config_report(f.report, -EINVAL, "%s: holds a NUL byte; it must be text", path);
        int bad = ini_parse_stream(read_line, &f, on_entry, &f);
        (void)entry_flush(&f); /* the last one; f.result says how it went */
        if (bad > 0 && (!f.stopped || (unsigned)bad < f.result_line)) {
                f.stopped = false;
                file_fail(&f, (unsigned)bad, -EINVAL, "is neither [Section] nor Key=value nor a comment after # or ;");
        }
        if (bad < 0 && f.result == 0)
                return config_report(f.report, -ENOMEM, "%s: %s", path, strerror(ENOMEM));
        digest_add(digest, text, len);
        return f.result;
}
