/* SPDX-License-Identifier: MIT */
/* Names of users and groups, without the name service switch inside eqctl.
 *
 * eqctl is linked statically where that is possible: a shell loop starts it a thousand times, and two thirds of what a submit
 * cost was the dynamic linker. The switch needs that linker. So the files are read here, and who is not in them (LDAP, SSSD,
 * systemd-homed) is asked for of getent(1), which every Debian has. A line is NAME:x:NUMBER:..., of users as of groups. */

#include "eqctl/accounts.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eqctl/program.h"

typedef struct Account {
        char name[ACCOUNT_NAME_SIZE];
        uint64_t number;
} Account;

static bool parse_line(const char *line, Account *ret) {
        const char *end = strchr(line, ':'), *number = end ? strchr(end + 1, ':') : NULL;
        char *rest;

        if (!number || end == line || end - line >= ACCOUNT_NAME_SIZE || number[1] < '0' || number[1] > '9')
                return false;
        ret->number = strtoull(number + 1, &rest, 10);
        if (*rest != ':')
                return false;
        memcpy(ret->name, line, (size_t)(end - line));
        ret->name[end - line] = 0;
        return true;
}

/* The key is a number or, where it is none, a name: as getent takes it. */
static bool matches(const Account *a, const char *key) {
        char number[24];

        if (*key < '0' || *key > '9')
                return strcmp(a->name, key) == 0;
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)a->number);
        return strcmp(number, key) == 0;
}

/* Takes the stream, which may be NULL. */
static bool search(FILE *f, const char *key, Account *ret) {
        bool found = false;
        char *line = NULL;
        size_t size = 0;

        while (f && !found && getline(&line, &size, f) >= 0)
                found = parse_line(line, ret) && matches(ret, key);
        free(line);
        if (f)
                (void)fclose(f); /* only read */
        return found;
}

/* What it has to say against the name is not for people. */
static pid_t getent(const char *database, const char *key, int out) {
        const char *argv[] = { "getent", database, key, NULL };
        pid_t pid = -1;
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        if (null < 0)
                return -1;
        int r = program_start(argv, (int[]) { -1, out, null }, &pid);
        (void)close(null);
        return r < 0 ? -1 : pid;
}

static bool ask(const char *database, const char *key, Account *ret) {
        int fds[2];

        if (*key == '-' || pipe2(fds, O_CLOEXEC) < 0)
                return false;
        pid_t pid = getent(database, key, fds[1]);
        (void)close(fds[1]); /* the child has its own */
        FILE *f = fdopen(fds[0], "re");
        if (!f)
                (void)close(fds[0]); /* not read: getent gets SIGPIPE */
        bool found = search(f, key, ret);
        if (pid > 0)
                (void)waitpid(pid, NULL, 0); /* it has said what it had to say */
        return found;
}

static bool look_up(const char *database, const char *path, const char *key, Account *ret) {
        return search(fopen(path, "re"), key, ret) || ask(database, key, ret);
}

static bool name_of(const char *database, const char *path, uint64_t number, char *buf) {
        char key[24];
        Account a;

        (void)snprintf(key, sizeof(key), "%llu", (unsigned long long)number);
        if (!look_up(database, path, key, &a))
                return false;
        memcpy(buf, a.name, sizeof(a.name));
        return true;
}

bool account_user_name(uid_t uid, char buf[static ACCOUNT_NAME_SIZE]) {
        return name_of("passwd", "/etc/passwd", uid, buf);
}

bool account_group_name(gid_t gid, char buf[static ACCOUNT_NAME_SIZE]) {
        return name_of("group", "/etc/group", gid, buf);
}

bool account_uid(const char *name, uid_t *ret) {
        Account a;

        if (!look_up("passwd", "/etc/passwd", name, &a) || a.number > UINT32_MAX)
                return false;
        *ret = (uid_t)a.number;
        return true;
}
