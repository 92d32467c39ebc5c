/* SPDX-License-Identifier: MIT */
/* From a copy of the privileged worker to somebody's command. The order is the point:
 *
 *   0. before the command is known: everything of the worker's is let go but the line, a session of its own, and the pages
 *      that will be written to are made its own; then it waits
 *   1. as ourselves: nice level, class of disk accesses, limits, descriptors - things that may need what we have
 *   2. identity, and every capability goes, for good
 *   3. as the user: the working directory, the output files, the search for the command, exec - so that he reaches what
 *      he may reach and nothing else, and a file system of his that hangs holds up this process only
 *
 * Whatever fails goes back as stage and errno. The process is not dumpable until exec, so the user whose uid it has
 * cannot look into it or trace it before.
 *
 * All of it may happen in the worker's memory (place.h). Then there is no malloc(), whose lock would stay locked if this is killed, and
 * no file is opened that a user names: an open /proc/self/mem, or a device that keeps the memory of who opens it, would outlive exec.
 * So only requests that need neither are taken there. Identities are changed by plain system calls in any case, because glibc's
 * functions take a lock and go through all threads that they know of. */

#include "spawner/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/ioprio.h"
#include "base/util.h"
#include "spawner/capabilities.h"

#define PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin"

enum {
        OUTPUT_MODE = 0666,
        LINE = STDERR_FILENO + 1, /* its number here, as nothing else is open */
        PAGE = 4096,
        WARM_STACK = 2 * PAGE,
        WARM_INBOX = PAGE, /* a usual request */
};

typedef struct ChildPlan {
        const ChildConfig *config;
        const SpawnStart *request; /* checked */
        const char *strings;
        const int *fds; /* in the order of the flags */
} ChildPlan;

typedef struct Strings {
        char **argv, **env;
        const char *cwd, *stdout_path, *stderr_path;
} Strings;

static _Noreturn void fail(SpawnStage stage, int error) {
        ChildError e = { .stage = stage, .error = error };
        (void)!write(LINE, &e, sizeof(e)); /* the line is empty and has room; if not, the status says enough */
        _exit(CHILD_EXIT);
}

static const char *take_strings(const char *s, char **to, size_t n) {
        for (size_t i = 0; i < n; i++, s += strlen(s) + 1)
                to[i] = (char *)s; /* execve() wants it so and writes nothing */
        to[n] = NULL;
        return s;
}

/* few: for REQUEST_POINTERS_PLAIN of them, enough for most. */
static void split_strings(const ChildPlan *p, char **few, Strings *ret) {
        const SpawnStart *m = p->request;
        size_t n = (size_t)m->n_argv + m->n_env + 2;
        char **v = n <= REQUEST_POINTERS_PLAIN ? few : malloc(n * sizeof(char *)); /* not of a plain request */
        if (!v)
                fail(SPAWN_STAGE_EXEC, ENOMEM);
        ret->argv = v;
        ret->env = v + m->n_argv + 1;
        ret->cwd = take_strings(take_strings(p->strings, ret->argv, m->n_argv), ret->env, m->n_env);
        ret->stdout_path = ret->cwd + strlen(ret->cwd) + 1;
        ret->stderr_path = ret->stdout_path + strlen(ret->stdout_path) + 1;
}

static void set_limits(const ChildPlan *p) {
        const SpawnStart *m = p->request;

        if (p->config->nofile && setrlimit(RLIMIT_NOFILE, p->config->nofile) < 0)
                fail(SPAWN_STAGE_LIMITS, errno);
        for (uint32_t i = 0; i < m->n_rlimits; i++) {
                struct rlimit l = { .rlim_cur = m->rlimits[i].soft, .rlim_max = m->rlimits[i].hard };
                if (setrlimit((__rlimit_resource_t)m->rlimits[i].resource, &l) < 0)
                        fail(SPAWN_STAGE_LIMITS, errno);
        }
}

/* Where none is given /dev/null stays, which all three are while it waits. */
static void set_descriptors(const ChildPlan *p) {
        static const uint32_t flags[] = { SPAWN_HAS_STDIN, SPAWN_HAS_STDOUT, SPAWN_HAS_STDERR };
        const int *fd = p->fds;

        for (int i = 0; i < (int)ELEMENTSOF(flags); i++)
                if (p->request->flags & flags[i] && dup2(*fd++, i) < 0)
                        fail(SPAWN_STAGE_REQUEST, errno);
}

static void set_identity(const ChildPlan *p) {
        const SpawnStart *m = p->request;

        if (m->flags & SPAWN_SET_IDENTITY && p->config->any_identity) {
                if (syscall(SYS_setgroups, m->n_groups, m->groups) < 0 ||
                    syscall(SYS_setresgid, m->gid, m->gid, m->gid) < 0 ||
                    syscall(SYS_setresuid, m->uid, m->uid, m->uid) < 0)
                        fail(SPAWN_STAGE_IDENTITY, errno);
                (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); /* fs.suid_dumpable may have made it 1 */
        }
        /* An exec as uid 0 gives back what is in the bounding set, unless nothing may be gained by exec. */
        if (!p->config->bounding_is_empty && getuid() == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                fail(SPAWN_STAGE_IDENTITY, errno);
        int r = capabilities_keep_only(0);
        if (r < 0)
                fail(SPAWN_STAGE_IDENTITY, -r);
}

/* If the worker dies this dies. Again after the change of identity, which resets it. */
static void follow_parent(const ChildConfig *c) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        if (getppid() != c->parent)
                _exit(CHILD_EXIT);
}

static void open_output(const char *path, int fd, SpawnStage stage) {
        if (*path == '\0')
                return;
        int opened = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC, OUTPUT_MODE);
        if (opened < 0)
                fail(stage, errno);
        if (dup2(opened, fd) < 0)
                fail(stage, errno);
        close(opened);
}

static void open_outputs(const ChildPlan *p, const Strings *s) {
        uint32_t flags = p->request->flags;

        if (!(flags & SPAWN_HAS_STDOUT))
                open_output(s->stdout_path, STDOUT_FILENO, SPAWN_STAGE_STDOUT);
        if (flags & SPAWN_MERGE) {
                if (dup2(STDOUT_FILENO, STDERR_FILENO) < 0)
                        fail(SPAWN_STAGE_STDERR, errno);
        } else if (!(flags & SPAWN_HAS_STDERR))
                open_output(s->stderr_path, STDERR_FILENO, SPAWN_STAGE_STDERR);
}

static const char *search_path(char **env) {
        for (; *env; env++)
                if (strncmp(*env, "PATH=", 5) == 0)
                        return *env + 5;
        return PATH_DEFAULT;
}

/* Tries every directory of PATH, as execvp() does, without its detour through a shell. Returns errno: EACCES if one was
 * found that may not be executed and no other could be. */
static int search_and_exec(const Strings *s) {
        char file[PATH_MAX + 1];
        const char *name = s->argv[0];
        size_t len = strlen(name);
        int error = ENOENT;

        if (strchr(name, '/')) {
                execve(name, s->argv, s->env);
                return errno;
        }
        for (const char *dir = search_path(s->env), *end;; dir = end + 1) {
                end = strchrnul(dir, ':');
                size_t n = (size_t)(end - dir);
                if (n + len + 2 <= sizeof(file)) {
                        memcpy(file, dir, n);
                        if (n > 0)
                                file[n++] = '/';
                        memcpy(file + n, name, len + 1);
                        execve(file, s->argv, s->env);
                        if (errno == EACCES)
                                error = EACCES;
                        else if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG &&
                                 errno != ESTALE && errno != ENODEV && errno != ETIMEDOUT)
                                return errno;
                }
                if (*end == '\0')
                        return error;
        }
}

static _Noreturn void become(const ChildPlan *p) {
        char *few[REQUEST_POINTERS_PLAIN];
        Strings s;
        sigset_t none;

        split_strings(p, few, &s);
        umask((mode_t)p->request->umask);
        if (p->request->flags & SPAWN_SET_NICE && setpriority(PRIO_PROCESS, 0, p->request->nice) < 0)
                fail(SPAWN_STAGE_NICE, errno);
        if (p->request->flags & SPAWN_SET_IOPRIO && syscall(SYS_ioprio_set, IOPRIO_PROCESS, 0, p->request->ioprio) < 0)
                fail(SPAWN_STAGE_IOPRIO, errno);
        set_limits(p);
        set_descriptors(p);
        set_identity(p);
        follow_parent(p->config);

        if (*s.cwd && chdir(s.cwd) < 0)
                fail(SPAWN_STAGE_CWD, errno);
        open_outputs(p, &s);
        sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        fail(SPAWN_STAGE_EXEC, search_and_exec(&s));
}

/* All of the worker's descriptors go, also those of tasks that it was just starting: a pipe that this process held would not
 * end with the command that it belongs to. */
static void drop_descriptors(const ChildConfig *c, int line) {
        if (line != LINE && dup3(line, LINE, O_CLOEXEC) < 0)
                _exit(CHILD_EXIT);
        for (int fd = 0; fd < LINE; fd++)
                if (dup2(c->null_fd, fd) < 0)
                        _exit(CHILD_EXIT);
        (void)syscall(SYS_close_range, LINE + 1, ~0u, 0);
}

/* Writing to a page that is shared with the worker since the fork costs a fault; here it costs nobody any time. */
static void warm(Inbox *inbox) {
        volatile char stack[WARM_STACK];
        for (size_t i = 0; i < sizeof(stack); i += PAGE)
                stack[i] = 0;
        for (size_t i = 0; i < WARM_INBOX; i += PAGE)
                ((volatile char *)inbox)[i] = 0;
}

static int take_request(Inbox *inbox, bool shared, Request *ret) {
        int r = request_receive(LINE, inbox, true, ret);
        if (r == 0 && ret->message.n == 0)
                _exit(CHILD_EXIT);
        if (r == 0 && shared && ret->start->flags & SPAWN_HAS_STRINGS)
                r = -EINVAL; /* before there is an allocation */
        if (r == 0)
                r = request_open(ret);
        return r == 0 && shared && !request_is_plain(ret) ? -EINVAL : r;
}

_Noreturn void child_run(const ChildConfig *c, Inbox *inbox, int line) {
        Request q;

        (void)prctl(PR_SET_NAME, "eqd-waiting", 0, 0, 0); /* until exec gives it another */
        drop_descriptors(c, line);
        follow_parent(c);
        (void)setsid(); /* a new process is no group leader: cannot fail */
        warm(inbox);
        int r = take_request(inbox, inbox != c->inbox, &q);
        if (r < 0)
                fail(SPAWN_STAGE_REQUEST, -r);
        become(&(ChildPlan) { .config = c, .request = q.start, .strings = q.strings, .fds = q.message.fds });
}
