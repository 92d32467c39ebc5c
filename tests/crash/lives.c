/* SPDX-License-Identifier: MIT */
#include "lives.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

_Noreturn void give_up(const char *what) {
        (void)fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
        exit(3);
}

uint64_t dice(uint64_t *state, uint64_t n) {
        *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (*state >> 33) % n;
}

/* ---- points ---- */

static int n_points, n_failed;

void point(bool fine, const char *claim) {
        printf("%sok %d - %s\n", fine ? "" : "not ", ++n_points, claim);
        n_failed += !fine;
}

int points_end(void) {
        printf("1..%d\n", n_points);
        return n_failed > 0;
}

/* ---- files ---- */

static void each_below(const char *path, void (*func)(const char *path, const char *other, const struct dirent *e),
                       const char *other) {
        DIR *d = opendir(path);
        if (!d)
                return;
        for (struct dirent *e; (e = readdir(d));)
                if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
                        func(path, other, e);
        closedir(d);
}

static void remove_one(const char *path, const char *unused, const struct dirent *e) {
        char below[PATH_MAX];
        (void)snprintf(below, sizeof(below), "%s/%s", path, e->d_name);
        if (e->d_type == DT_DIR)
                remove_tree(below);
        else
                (void)unlink(below);
}

void remove_tree(const char *path) {
        each_below(path, remove_one, NULL);
        (void)rmdir(path);
}

static void copy_file(const char *from, const char *to) {
        static char buf[1 << 16];
        int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        ssize_t n = 0;
        if (in < 0 || out < 0)
                give_up(to);
        while ((n = read(in, buf, sizeof(buf))) > 0)
                if (write(out, buf, (size_t)n) != n)
                        give_up(to);
        if (n < 0 || close(in) < 0 || close(out) < 0)
                give_up(from);
}

static void copy_one(const char *path, const char *other, const struct dirent *e) {
        char from[PATH_MAX], to[PATH_MAX];
        (void)snprintf(from, sizeof(from), "%s/%s", path, e->d_name);
        (void)snprintf(to, sizeof(to), "%s/%s", other, e->d_name);
        if (e->d_type == DT_DIR)
                copy_tree(from, to);
        else
                copy_file(from, to);
}

void copy_tree(const char *from, const char *to) {
        if (mkdir(to, 0700) < 0)
                give_up(to);
        each_below(from, copy_one, to);
}

static char work[64];
static pid_t owner;

static void clean_up(void) {
        if (getpid() == owner)
                remove_tree(work);
}

const char *work_dir(const char *name) {
        owner = getpid();
        (void)snprintf(work, sizeof(work), "%s/eqd-%s.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
                       name);
        if (!mkdtemp(work) || atexit(clean_up) != 0)
                give_up(work);
        return work;
}

/* ---- traces ---- */

const TraceEvent *trace_next(const Trace *t, size_t *at, const char **ret_name, const char **ret_data) {
        static TraceEvent e;
        if (t->size - *at < sizeof(e))
                return NULL;
        memcpy(&e, t->data + *at, sizeof(e));
        *ret_name = t->data + *at + sizeof(e);
        *ret_data = *ret_name + e.n_name;
        if (e.n_name + (size_t)e.n_data > t->size - *at - sizeof(e))
                return NULL;
        *at += sizeof(e) + e.n_name + e.n_data;
        return &e;
}

Trace trace_load(const char *path) {
        Trace t = { 0 };
        struct stat st;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0 || st.st_size == 0)
                give_up(path);
        t.size = (size_t)st.st_size;
        t.data = mmap(NULL, t.size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (t.data == MAP_FAILED)
                give_up(path);
        (void)close(fd);
        const char *name, *data;
        for (size_t at = 0; trace_next(&t, &at, &name, &data);)
                t.n_events++;
        return t;
}

/* ---- lives ---- */

int life_live(const Life *l) {
        char dir[PATH_MAX], seed[32], commits[16], records[16];
        (void)snprintf(dir, sizeof(dir), "%s/store", l->root);
        (void)snprintf(seed, sizeof(seed), "%llu", (unsigned long long)l->seed);
        (void)snprintf(commits, sizeof(commits), "%u", l->commits);
        (void)snprintf(records, sizeof(records), "%u", l->records);
        pid_t pid = fork();
        if (pid == 0) {
                (void)setenv("LD_PRELOAD", l->recorder, 1);
                (void)setenv("EQD_TRACE", l->trace, 1);
                (void)setenv("EQD_TRACE_ROOT", l->root, 1);
                if (l->fail)
                        (void)setenv("EQD_TRACE_FAIL", l->fail, 1);
                (void)execl(l->victim, l->victim, dir, seed, commits, records, l->mode, NULL);
                _exit(127);
        }
        int status;
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                give_up("the victim");
        if (!WIFEXITED(status)) {
                (void)fprintf(stderr, "# the victim was ended: status %d\n", status);
                exit(1);
        }
        return WEXITSTATUS(status);
}
