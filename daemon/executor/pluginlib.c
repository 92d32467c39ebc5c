/* SPDX-License-Identifier: MIT */
/* Loads plugins.
 *
 * The path is walked from / down, each part opened relative to the one above and without following links, and judged by its
 * descriptor. After that its names belong to those who are trusted, so the loader may be given the path: what it finds there
 * only they can have changed. */

#include "executor/pluginlib.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"

typedef struct Report {
        char *text;
        size_t size;
} Report;

_printf_(3, 4) static int report(Report *to, int r, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        (void)vsnprintf(to->text, to->size, format, ap); /* cut is good enough */
        va_end(ap);
        return r;
}

/* ---- whose it is ---- */

static int judge(const char *path, int fd, bool is_last, bool own, Report *to) {
        struct stat st;
        if (fstat(fd, &st) < 0) {
                int e = errno;
                return report(to, -e, "%s: %s", path, strerror(e));
        }
        if (S_ISLNK(st.st_mode))
                return report(to, -EINVAL, "%s is a symbolic link; give the path without one", path);
        if (is_last ? !S_ISREG(st.st_mode) : !S_ISDIR(st.st_mode))
                return report(to, -EINVAL, "%s is no %s", path, is_last ? "regular file" : "directory");
        if (st.st_uid != 0 && !(own && st.st_uid == geteuid()))
                return report(to, -EPERM,
                              "%s belongs to uid %u; a plugin and all directories above it must belong to %s", path,
                              (unsigned)st.st_uid, own ? "root or to the user that eqd runs as" : "root");
        bool guarded = own && !is_last && (st.st_mode & S_ISVTX);
        if ((st.st_mode & (S_IWGRP | S_IWOTH)) && !guarded)
                return report(to, -EPERM, "%s can be written by others than its owner; chmod go-w %s", path, path);
        return 0;
}

/* One step: from the descriptor of a directory to that of `name` in it. */
static int step(int dir, const char *name, const char *path, bool is_last, bool own, Report *to, int *ret_fd) {
        _cleanup_close_ int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) {
                int e = errno;
                return report(to, -e, "%s: %s", path, strerror(e));
        }
        int r = judge(path, fd, is_last, own, to);
        if (r >= 0)
                *ret_fd = TAKE_FD(fd);
        return r;
}

/* path is absolute, and without empty, . and .. parts. */
static int walk(const char *path, bool own, Report *to) {
        char part[PATH_MAX];
        _cleanup_close_ int fd = -1;
        int r = step(AT_FDCWD, "/", "/", false, own, to, &fd);
        for (const char *at = path; r >= 0 && *at;) {
                const char *name = at + 1;
                at = strchrnul(name, '/');
                int next = -1;
                snprintf(part, sizeof(part), "%.*s", (int)(at - path), path);
                r = step(fd, strrchr(part, '/') + 1, part, *at == '\0', own, to, &next);
                close_fd(fd);
                fd = next;
        }
        return r;
}

static bool is_plain(const char *path) {
        if (path[0] != '/' || strlen(path) >= PATH_MAX)
                return false;
        for (const char *at = path; *at;) {
                const char *name = at + 1;
                at = strchrnul(name, '/');
                size_t n = (size_t)(at - name);
                if (n == 0 || (n == 1 && name[0] == '.') || (n == 2 && name[0] == '.' && name[1] == '.'))
                        return false;
        }
        return true;
}

/* ---- what it is ---- */

static int check_entry(const char *path, const eq_plugin *p, Report *to) {
        if (p->abi != EQ_PLUGIN_ABI)
                return report(
                        to, -EINVAL,
                        "%s is a plugin of ABI %u, this eqd takes ABI %u; build it again with this eqd's eq-plugin.h",
                        path, (unsigned)p->abi, (unsigned)EQ_PLUGIN_ABI);
        const char *missing = !p->open      ? "open"
                              : !p->execute ? "execute"
                              : !p->close   ? "close"
                              : !p->name    ? "name"
                                            : NULL;
        if (missing)
                return report(to, -EINVAL, "%s: its eq_plugin_entry has no %s; see eq-plugin(7)", path, missing);
        if (p->flags & ~(uint32_t)EQ_PLUGIN_DEFERS)
                return report(to, -EINVAL, "%s: its eq_plugin_entry has flags 0x%x, which this eqd does not know", path,
                              (unsigned)p->flags);
        return 0;
}

static int load(const char *path, PluginLibrary *l, Report *to) {
        l->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!l->handle)
                return report(to, -EINVAL, "cannot load the plugin: %s", dlerror());
        l->entry = dlsym(l->handle, "eq_plugin_entry");
        if (!l->entry)
                return report(to, -EINVAL, "%s is no plugin: it has no symbol eq_plugin_entry; see eq-plugin(7)", path);
        return check_entry(path, l->entry, to);
}

int plugin_library_open(const char *path, bool own, PluginLibrary **ret, char *error, size_t error_size) {
        Report to = { error, error_size };
        if (!is_plain(path))
                return report(&to, -EINVAL, "%s is no absolute path without empty parts, . and ..", path);
        int r = walk(path, own, &to);
        if (r < 0)
                return r;
        _cleanup_(plugin_library_unrefp) PluginLibrary *l = fault_calloc(1, sizeof(*l) + strlen(path) + 1);
        if (!l)
                return report(&to, -ENOMEM, "out of memory");
        l->n_refs = 1;
        strcpy(l->path, path);
        r = load(path, l, &to);
        if (r >= 0)
                *ret = TAKE_PTR(l);
        return r;
}

PluginLibrary *plugin_library_ref(PluginLibrary *l) {
        if (l)
                l->n_refs++;
        return l;
}

PluginLibrary *plugin_library_unref(PluginLibrary *l) {
        if (!l || --l->n_refs > 0)
                return NULL;
        if (l->handle)
                (void)dlclose(l->handle); /* nothing to do about it */
        free(l);
        return NULL;
}
