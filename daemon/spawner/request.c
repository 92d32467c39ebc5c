/* SPDX-License-Identifier: MIT */
/* eqd is trusted to ask for the right user, yet a request that contradicts itself is refused and never guessed at: after
 * these checks the strings are exactly n_argv + n_env + 3 C strings, and every index is in range. */

#include "spawner/request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/ioprio.h"

enum {
        FLAGS_ALL = SPAWN_HAS_STDIN | SPAWN_HAS_STDOUT | SPAWN_HAS_STDERR | SPAWN_HAS_STRINGS | SPAWN_MERGE |
                    SPAWN_SET_IDENTITY | SPAWN_SET_NICE | SPAWN_SET_IOPRIO,
        FLAGS_FDS = SPAWN_HAS_STDIN | SPAWN_HAS_STDOUT | SPAWN_HAS_STDERR | SPAWN_HAS_STRINGS,
        N_PATHS = 3, /* cwd, stdout, stderr */
        NICE_MIN = -20,
        NICE_MAX = 19,
};

int request_check_counts(const SpawnStart *m) {
        if (m->flags & ~(uint32_t)FLAGS_ALL || m->header.slot >= SPAWN_SLOTS_MAX)
                return -EINVAL;
        if (m->n_groups > SPAWN_GROUPS_MAX || m->n_rlimits > SPAWN_RLIMITS_MAX)
                return -EINVAL;
        if (m->n_strings > (m->flags & SPAWN_HAS_STRINGS ? SPAWN_STRINGS_MAX : SPAWN_INLINE_MAX))
                return -EINVAL;
        if (m->n_argv < 1 || m->n_argv > m->n_strings || m->n_env > m->n_strings)
                return -EINVAL;
        return 0;
}

static int check_values(const SpawnStart *m) {
        if (m->umask > 0777)
                return -EINVAL;
        if (m->flags & SPAWN_SET_NICE && (m->nice < NICE_MIN || m->nice > NICE_MAX))
                return -EINVAL;
        if (m->flags & SPAWN_SET_IOPRIO && !ioprio_valid(m->ioprio))
                return -EINVAL;
        if (m->flags & SPAWN_SET_IDENTITY &&
            (m->uid == UINT32_MAX || m->gid == UINT32_MAX)) /* "leave it" to setresuid() */
                return -EINVAL;
        for (uint32_t i = 0; i < m->n_groups; i++)
                if (m->groups[i] == UINT32_MAX)
                        return -EINVAL;
        for (uint32_t i = 0; i < m->n_rlimits; i++)
                if (m->rlimits[i].resource >= RLIM_NLIMITS || m->rlimits[i].soft > m->rlimits[i].hard)
                        return -EINVAL;
        return 0;
}

static int check_strings(const SpawnStart *m, const char *strings, size_t n) {
        const char *p = strings, *end = strings + n;
        size_t n_found = 0;

        if (n == 0 || end[-1] != '\0' || *strings == '\0') /* also: no command */
                return -EINVAL;
        for (; p < end; p += strlen(p) + 1)
                n_found++;
        return n_found == (size_t)m->n_argv + m->n_env + N_PATHS ? 0 : -EINVAL;
}

int request_check_start(const SpawnStart *m, const char *strings, size_t n_strings, unsigned n_fds) {
        int r = request_check_counts(m);
        if (r < 0)
                return r;
        if (n_strings != m->n_strings || n_fds != (unsigned)__builtin_popcount(m->flags & FLAGS_FDS))
                return -EINVAL;
        r = check_values(m);
        if (r < 0)
                return r;
        return check_strings(m, strings, n_strings);
}

const char *request_find_env(const SpawnStart *m, const char *strings, const char *prefix) {
        const char *p = strings;
        size_t len = strlen(prefix);

        for (uint32_t i = 0; i < m->n_argv + m->n_env; i++, p += strlen(p) + 1)
                if (i >= m->n_argv && strncmp(p, prefix, len) == 0)
                        return p;
        return NULL;
}

Inbox *inbox_new(void) {
        Inbox *inbox = mmap(NULL, sizeof(*inbox), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (inbox == MAP_FAILED)
                return NULL;
        (void)madvise(inbox, sizeof(*inbox),
                      MADV_WIPEONFORK); /* Linux 4.14; before, a child could read it, but does not */
        return inbox;
}

void inbox_free(Inbox *inbox) {
        if (inbox)
                (void)munmap(inbox, sizeof(*inbox));
}

int request_receive(int line, Inbox *inbox, bool wait, Request *ret) {
        Request q = { .start = &inbox->start, .strings = inbox->strings };
        int r = fdpass_receive(line, inbox, sizeof(*inbox), wait, &q.message);
        if (r < 0)
                return r;
        if (q.message.n > sizeof(SpawnStart))
                q.n_strings = q.message.n - sizeof(SpawnStart);
        *ret = q;
        return 0;
}

/* Copied out of the memfd, which its sender could change while it is looked at. */
static int copy_strings(Request *q) {
        size_t n = q->start->n_strings;
        if (request_check_counts(q->start) < 0 || q->message.n_fds == 0 || q->n_strings > 0)
                return -EINVAL;
        q->copied = fault_malloc(n ? n : 1);
        if (!q->copied)
                return -ENOMEM;
        if (pread(q->message.fds[q->message.n_fds - 1], q->copied, n, 0) != (ssize_t)n)
                return -EINVAL;
        q->strings = q->copied;
        q->n_strings = n;
        return 0;
}

int request_open(Request *q) {
        if (q->message.n < sizeof(SpawnStart) || q->message.cut)
                return -EINVAL;
        if (q->start->flags & SPAWN_HAS_STRINGS) {
                int r = copy_strings(q);
                if (r < 0)
                        return r;
        }
        return request_check_start(q->start, q->strings, q->n_strings, q->message.n_fds);
}

/* The paths come last, in the order cwd, stdout, stderr: two empty ones are the two NULs behind that of the first. */
bool request_is_plain(const Request *q) {
        const SpawnStart *m = q->start;
        if (q->copied || q->n_strings < N_PATHS || (size_t)m->n_argv + m->n_env + 2 > REQUEST_POINTERS_PLAIN)
                return false;
        const char *end = q->strings + q->n_strings;
        return end[-1] == '\0' && end[-2] == '\0' && end[-3] == '\0';
}

int request_forward(int line, const Request *q) {
        struct iovec iov = { .iov_base = (void *)q->start, .iov_len = q->message.n }; /* sendmsg() only reads it */
        return fdpass_send(line, &iov, 1, q->message.fds, q->message.n_fds);
}

void request_close(Request *q) {
        fdpass_close(&q->message);
        free(q->copied);
        q->copied = NULL;
}
