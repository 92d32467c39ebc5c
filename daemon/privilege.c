/* SPDX-License-Identifier: MIT */
/* Capabilities out, cgroup found. System calls are used directly: two of them do not justify a library. */

#include "privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "base/event.h"

/* capset() is not called in vain: the filter of a tight sandbox refuses it, even where nothing is given up. */
static int drop_sets(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[2] = { 0 }, held[2];
        if (syscall(SYS_capget, &header, held) == 0 && memcmp(held, none, sizeof(none)) == 0)
                return 0;
        return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

int privilege_forbid_gains(void) {
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

int privilege_drop(void) {
        for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
                (void)prctl(PR_CAPBSET_DROP, cap, 0, 0,
                            0); /* needs CAP_SETPCAP; without it there is nothing to regain but by exec */
        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* none on old kernels */
        int r = drop_sets();
        if (r < 0)
                return r;
        return privilege_forbid_gains();
}

/* Our own cgroup in the unified hierarchy, as a directory. */
int privilege_own_cgroup(char *ret, size_t size) {
        char line[PATH_MAX], path[PATH_MAX] = "";
        FILE *f = fopen("/proc/self/cgroup", "re");
        if (!f)
                return -errno;
        while (fgets(line, sizeof(line), f))
                if (strncmp(line, "0::", 3) == 0)
                        snprintf(path, sizeof(path), "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
        fclose(f);
        if (!path[0])
                return -ENOENT;
        const char *root =
                access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
        int n = snprintf(ret, size, "%s%s", root, strcmp(path, "/") == 0 ? "" : path);
        return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* systemd marks what it delegates; for a service with User= it also gives the directory to that user. */
static bool is_delegated(const char *dir) {
        char value[8];
        struct stat st;
        ssize_t n = getxattr(dir, "user.delegate", value, sizeof(value));
        if (n < 0)
                n = getxattr(dir, "trusted.delegate", value, sizeof(value));
        if (n == 1 && value[0] == '1')
                return true;
        return geteuid() != 0 && stat(dir, &st) == 0 && st.st_uid == geteuid();
}

static int write_file(const char *dir, const char *name, const char *text) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%s", dir, name);
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static bool move_to_leaf(const char *dir) {
        char leaf[PATH_MAX];
        snprintf(leaf, sizeof(leaf), "%s/daemon", dir);
        if (mkdir(leaf, 0755) < 0 && errno != EEXIST)
                return false;
        return write_file(leaf, "cgroup.procs", "0") == 0;
}

bool privilege_find_cgroup(const char *wanted, char *ret, size_t size) {
        if (wanted && strcmp(wanted, "off") == 0)
                return false;
        if (wanted && *wanted && strcmp(wanted, "auto") != 0) {
                char procs[PATH_MAX];
                snprintf(procs, sizeof(procs), "%s/cgroup.procs", wanted);
                if (access(procs, W_OK) == 0 && snprintf(ret, size, "%s", wanted) < (int)size)
                        return true;
                log_event(NO_CGROUPS, (0), wanted);
                return false;
        }
        return privilege_own_cgroup(ret, size) == 0 && is_delegated(ret) && move_to_leaf(ret);
}
