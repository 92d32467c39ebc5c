/* SPDX-License-Identifier: MIT */
/* Each call of the store fails, in each way in which it can.
 *
 *      faults VICTIM RECORDER          some of each kind; each call in every way with EQD_LONG=1
 *
 * One life of the victim, on a store that has been through some and whose last one was killed, is lived again and again, each
 * time with another call that fails: open, write, fallocate, truncate, sync, rename, unlink; with EIO, ENOSPC or EMFILE; once,
 * or from then on; a write also after half of it. The victim looks itself whether the store says so, promises nothing more
 * once it has failed, and takes nothing that grows while it has no space. Then what it was promised is held against
 *
 *   - what a loss of power at its end leaves: what was synced, of the rest anything;
 *   - what the next life finds in the files, in which nothing fails, on the same boot or not, what is there after it, and what a
 *     loss of power then leaves.
 *
 * EQD_SEED chooses other lives and calls. */

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk.h"
#include "lives.h"
#include "promises.h"
#include "victim.h"

enum {
        BASE_LIVES = 3,
        BASE_COMMITS = 60,
        COMMITS = 14,
        RECORDS = 24,
        OF_EACH = 2, /* calls of a kind, for each way to fail */
        TRIES = 20,  /* more of them, until one is met */
        CUTS = 2,
        FDS = 4096,
        LIMIT_SEC = 600,
};

typedef enum FileKind { FILE_DIR, FILE_LOG, FILE_NEW, FILE_HINT, FILE_NEW_HINT, FILE_MARKS, _FILE_KIND_MAX } FileKind;
static const char *const file_names[_FILE_KIND_MAX] = { "store", "log-", "new", "hint-", "new-hint", "running" };

static const char *const call_names[] = {
        [TRACE_OPEN] = "open",         [TRACE_WRITE] = "write",     [TRACE_ALLOCATE] = "allocate",
        [TRACE_TRUNCATE] = "truncate", [TRACE_SYNC_BEGIN] = "sync", [TRACE_RENAME] = "rename",
        [TRACE_UNLINK] = "unlink",     [TRACE_MKDIR] = "mkdir",
};
enum { CALLS = sizeof(call_names) / sizeof(call_names[0]) };

/* How a call fails, as the recorder's plan has it. */
typedef enum Way { WAY_EIO, WAY_EIO_ON, WAY_ENOSPC, WAY_ENOSPC_ON, WAY_EMFILE, WAY_SHORT, WAY_TORN, _WAY_MAX } Way;
static const struct {
        const char *name, *later, *how;
} ways[_WAY_MAX] = {
        [WAY_EIO] = { "EIO", "", "5" },
        [WAY_EIO_ON] = { "EIO from then on", "+", "5" },
        [WAY_ENOSPC] = { "ENOSPC", "", "28" },
        [WAY_ENOSPC_ON] = { "ENOSPC from then on", "+", "28" },
        [WAY_EMFILE] = { "EMFILE", "", "24" },
        [WAY_SHORT] = { "half of it", "", "short" },
        [WAY_TORN] = { "half of it, then EIO", "", "torn" },
};

static bool can_be(TraceType call, FileKind file, Way way) {
        switch (way) {
        case WAY_ENOSPC:
        case WAY_ENOSPC_ON:
                return call == TRACE_WRITE || call == TRACE_ALLOCATE || call == TRACE_RENAME ||
                       (call == TRACE_SYNC_BEGIN && way == WAY_ENOSPC) ||
                       (call == TRACE_OPEN && (file == FILE_NEW || file == FILE_NEW_HINT));
        case WAY_EMFILE:
                return call == TRACE_OPEN;
        case WAY_SHORT:
        case WAY_TORN:
                return call == TRACE_WRITE;
        default:
                return true;
        }
}

/* How many calls of each kind there are. */
typedef unsigned Calls[CALLS][_FILE_KIND_MAX];

static const char *work, *victim, *recorder;
static char base[PATH_MAX];
static Promises *promises; /* of the lives before */
static uint64_t seed = 1;

/* ---- calls ---- */

static FileKind kind_of(const char *name, size_t n) {
        const char *slash = memrchr(name, '/', n), *file = slash ? slash + 1 : name;
        size_t len = n - (size_t)(file - name);
        for (FileKind k = 0; k < _FILE_KIND_MAX; k++) {
                size_t of_kind = strlen(file_names[k]);
                bool begins = file_names[k][of_kind - 1] == '-';
                if ((begins ? len > of_kind : len == of_kind) && memcmp(file, file_names[k], of_kind) == 0)
                        return k;
        }
        give_up("a file of which nobody knows");
}

/* Those that were made, and have not failed in life. */
static unsigned count_calls(const Trace *t, Calls calls) {
        static FileKind of_fd[FDS];
        const char *name, *data;
        const TraceEvent *e;
        unsigned n = 0;
        size_t at = 0;
        while ((e = trace_next(t, &at, &name, &data))) {
                const char *to = e->type == TRACE_RENAME ? name + strlen(name) + 1 : name;
                if (e->type >= CALLS || !call_names[e->type] || e->error)
                        continue;
                FileKind kind = e->n_name > 0 ? kind_of(to, e->n_name - (size_t)(to - name)) : of_fd[e->fd];
                if (e->type == TRACE_OPEN)
                        of_fd[e->fd] = kind;
                for (size_t fd = 0; fd < FDS && e->type == TRACE_RENAME; fd++)
                        of_fd[fd] = of_fd[fd] == FILE_NEW ? FILE_LOG : of_fd[fd];
                calls[e->type][kind]++;
                n++;
        }
        return n;
}

/* ---- one life with a failing call ---- */

static int live(const char *root, const char *trace, uint64_t number, unsigned commits, const char *mode,
                const char *fail) {
        return life_live(&(Life) { .victim = victim,
                                   .recorder = recorder,
                                   .root = root,
                                   .trace = trace,
                                   .seed = seed * 1000 + number,
                                   .commits = commits,
                                   .records = RECORDS,
                                   .mode = mode,
                                   .fail = fail });
}

/* One after which the store may promise nothing more. Of a directory it is not told whether it was synced for a hint. */
static bool is_fatal(const TraceEvent *e, FileKind file) {
        if (file != FILE_LOG && file != FILE_NEW)
                return false;
        switch (e->what) {
        case TRACE_SYNC_BEGIN:
                return file == FILE_LOG || e->error == EIO; /* a new one without space is thrown away */
        case TRACE_WRITE:
        case TRACE_ALLOCATE:
        case TRACE_RENAME:
                return e->error == EIO;
        case TRACE_UNLINK:
                return e->error == EIO && file == FILE_LOG;
        default:
                return false;
        }
}

/* What is appended behind a fatal failure is never durable. */
static bool feed(const Trace *t, Promises *p, Disk *d) {
        const char *name, *data;
        const TraceEvent *e;
        uint64_t first_after = UINT64_MAX; /* position of what was appended after it */
        bool fine = true, fatal = false;
        size_t at = 0;
        while ((e = trace_next(t, &at, &name, &data))) {
                fatal = fatal || (e->type == TRACE_FAULT && is_fatal(e, kind_of(name, e->n_name)));
                if (e->type == TRACE_ITEM && fatal && first_after == UINT64_MAX)
                        first_after = e->item.position;
                if (e->type == TRACE_DURABLE && e->item.position >= first_after) {
                        (void)fprintf(stderr, "# BROKEN: %llu is durable, and was appended after the failure\n",
                                      (unsigned long long)e->item.position);
                        fine = false;
                }
                TraceEvent event = *e; /* feeding may read on */
                if (d)
                        disk_feed(d, &event, name, data);
                fine = promises_feed(p, &event, data) && fine;
        }
        return fine;
}

/* In a process of its own, which changes what was promised for itself. Status 0: no promise is broken. */
static _Noreturn void look_at_life(const char *root, const char *trace, unsigned number) {
        char path[PATH_MAX], after[PATH_MAX];
        (void)alarm(LIMIT_SEC);
        Disk *disk = disk_new();
        disk_load(disk, base);
        Trace t = trace_load(trace);
        bool fine = feed(&t, promises, disk);
        for (unsigned i = 0; i < CUTS && fine; i++) {
                (void)snprintf(path, sizeof(path), "%s/cut", work);
                disk_cut(disk, seed * 1000003 + number * CUTS + i, path);
                (void)snprintf(after, sizeof(after), "%s/store", path);
                fine = promises_kept(promises, after, false);
                remove_tree(path);
        }
        (void)snprintf(after, sizeof(after), "%s.after", trace);
        unsigned next = number % 2 == 1 ? BASE_LIVES - 1 : 900 + number; /* on the same boot, or behind another one */
        int status = live(root, after, next, 4, NULL, NULL);
        if (status != 0)
                (void)fprintf(stderr, "# BROKEN: the life after it ended with status %d\n", status);
        Trace t_after = trace_load(after);
        (void)unlink(after);
        fine = status == 0 && feed(&t_after, promises, disk) && fine;
        /* What that life promises may be in what this one has left. What a removal that nobody has synced brings back, no later eqd
         * can know. */
        for (unsigned i = 0; i < CUTS && fine && !disk_lost_a_removal(disk); i++) {
                (void)snprintf(path, sizeof(path), "%s/cut", work);
                disk_cut(disk, seed * 1000003 + number * CUTS + i, path);
                (void)snprintf(after, sizeof(after), "%s/store", path);
                fine = promises_kept(promises, after, false);
                remove_tree(path);
        }
        (void)snprintf(path, sizeof(path), "%s/store", root);
        fine = promises_kept(promises, path, false) && fine;
        _exit(fine ? 0 : 1);
}

typedef struct Run {
        unsigned n_lives, n_broken;
        unsigned hit[CALLS][_FILE_KIND_MAX][_WAY_MAX];
        unsigned n_refused, n_failed, n_full, n_went_on, n_missed;
} Run;

static void count(Run *r, int status, const char *trace, TraceType call, FileKind file, Way way) {
        const char *name, *data;
        const TraceEvent *e;
        Trace t = trace_load(trace);
        bool hit = false;
        for (size_t at = 0; !hit && (e = trace_next(&t, &at, &name, &data));)
                hit = e->type == TRACE_FAULT;
        r->hit[call][file][way] += hit;
        r->n_missed += !hit;
        r->n_refused += status == VICTIM_REFUSED;
        r->n_failed += status == VICTIM_FAILED;
        r->n_full += status == VICTIM_FULL;
        r->n_went_on += status == 0 && hit;
}

static void run_one(Run *r, TraceType call, FileKind file, unsigned nth, Way way) {
        char root[PATH_MAX], trace[PATH_MAX], plan[96];
        (void)snprintf(root, sizeof(root), "%s/life", work);
        (void)snprintf(trace, sizeof(trace), "%s/life.trace", work);
        (void)snprintf(plan, sizeof(plan), "%s %s %u%s %s", call_names[call], file_names[file], nth, ways[way].later,
                       ways[way].how);
        copy_tree(base, root);
        int status = live(root, trace, BASE_LIVES, COMMITS, "faulty", plan), looked;
        bool fine = status == 0 || status == VICTIM_REFUSED || status == VICTIM_FAILED || status == VICTIM_FULL;
        (void)fflush(NULL);
        pid_t pid = fine ? fork() : 0;
        if (fine && pid == 0)
                look_at_life(root, trace, nth);
        if (fine && (pid < 0 || waitpid(pid, &looked, 0) != pid))
                give_up("looking at a life");
        fine = fine && WIFEXITED(looked) && WEXITSTATUS(looked) == 0;
        if (!fine)
                (void)fprintf(stderr,
                              "# broken with seed %llu and EQD_TRACE_FAIL=\"%s\": the victim ended with status %d\n",
                              (unsigned long long)seed, plan, status);
        count(r, status, trace, call, file, way);
        r->n_lives++;
        r->n_broken += !fine;
        remove_tree(root);
        (void)unlink(trace);
}

/* ---- all of them ---- */

/* So many of the n calls of this kind, or all for 0, in this way; more if a life never came to any of them. */
static void run_kind(Run *r, unsigned n, TraceType call, FileKind file, Way way, unsigned n_wanted) {
        unsigned *which = calloc(n + 1, sizeof(*which));
        uint64_t state = seed * 7919 + call * 100 + file * 10 + way;
        if (!which)
                give_up("choosing");
        for (unsigned i = 0; i < n; i++)
                which[i] = i + 1;
        for (unsigned i = 0; i < n && (n_wanted == 0 || i < n_wanted); i++) {
                unsigned k = i + (unsigned)dice(&state, n - i), nth = which[k];
                which[k] = which[i];
                run_one(r, call, file, nth, way);
        }
        free(which);
        for (unsigned i = 0; n > 0 && i < TRIES && r->hit[call][file][way] == 0; i++)
                run_one(r, call, file, 1, way); /* the one that is the likeliest to come */
}

static unsigned make_base(Calls calls) {
        char trace[PATH_MAX], root[PATH_MAX];
        (void)snprintf(base, sizeof(base), "%s/base", work);
        (void)snprintf(trace, sizeof(trace), "%s/base.trace", work);
        (void)snprintf(root, sizeof(root), "%s/dry", work);
        if (mkdir(base, 0700) < 0)
                give_up(base);
        for (unsigned i = 0; i < BASE_LIVES; i++)
                if (live(base, trace, i, BASE_COMMITS, "kill", NULL) != 0)
                        exit(1);
        Trace t = trace_load(trace);
        promises = promises_new(false);
        if (!feed(&t, promises, NULL))
                exit(1);
        (void)unlink(trace);
        copy_tree(base, root);
        if (live(root, trace, BASE_LIVES, COMMITS, "faulty", NULL) != 0)
                exit(1);
        t = trace_load(trace);
        unsigned n = count_calls(&t, calls);
        (void)unlink(trace);
        remove_tree(root);
        return n;
}

static bool has_hit_all(const Run *r, const Calls calls) {
        bool all = true;
        for (unsigned call = 0; call < CALLS; call++)
                for (FileKind file = 0; file < _FILE_KIND_MAX; file++)
                        for (Way way = 0; way < _WAY_MAX; way++) {
                                if (calls[call][file] == 0 || !can_be(call, file, way) || r->hit[call][file][way] > 0)
                                        continue;
                                (void)fprintf(stderr, "# no %s of %s failed with %s\n", call_names[call],
                                              file_names[file], ways[way].name);
                                all = false;
                        }
        return all;
}

/* What must be among them. How many new segments a life makes is a matter of how far compaction came. */
static bool are_many(const Calls calls) {
        return calls[TRACE_OPEN][FILE_LOG] > 5 && calls[TRACE_OPEN][FILE_NEW] > 0 &&
               calls[TRACE_WRITE][FILE_LOG] > COMMITS && calls[TRACE_WRITE][FILE_NEW] > 0 &&
               calls[TRACE_ALLOCATE][FILE_NEW] > 0 && calls[TRACE_SYNC_BEGIN][FILE_LOG] > 10 &&
               calls[TRACE_SYNC_BEGIN][FILE_NEW] > 0 && calls[TRACE_SYNC_BEGIN][FILE_DIR] > 4 &&
               calls[TRACE_RENAME][FILE_LOG] > 0 && calls[TRACE_UNLINK][FILE_LOG] > 0 &&
               calls[TRACE_WRITE][FILE_NEW_HINT] > 0;
}

static void run_all(Run *r, const Calls calls, bool all) {
        for (unsigned call = 0; call < CALLS; call++)
                for (FileKind file = 0; file < _FILE_KIND_MAX; file++)
                        for (Way way = 0; way < _WAY_MAX; way++)
                                if (can_be(call, file, way)) {
                                        unsigned n = all ? 0 : way == WAY_ENOSPC_ON ? 1 : OF_EACH;
                                        run_kind(r, calls[call][file], call, file, way, n);
                                }
}

static void report(const Run *r, const Calls calls, unsigned n_calls) {
        printf("# a life of %u calls, lived %u times: %u were refused at its beginning, %u failed, %u had no space to "
               "the "
               "end, %u went on, %u made fewer calls\n",
               n_calls, r->n_lives, r->n_refused, r->n_failed, r->n_full, r->n_went_on, r->n_missed);
        for (unsigned call = 0; call < CALLS; call++)
                for (FileKind file = 0; file < _FILE_KIND_MAX; file++) {
                        if (calls[call][file] == 0)
                                continue;
                        printf("#   %s of %s, one of %u:", call_names[call], file_names[file], calls[call][file]);
                        for (Way way = 0; way < _WAY_MAX; way++)
                                if (r->hit[call][file][way] > 0)
                                        printf(" %s %u;", ways[way].name, r->hit[call][file][way]);
                        putchar('\n');
                }
}

int main(int argc, char **argv) {
        static Calls calls;
        static Run r;
        const char *s = getenv("EQD_SEED"), *l = getenv("EQD_LONG");
        if (argc != 3) {
                (void)fprintf(stderr, "usage: faults VICTIM RECORDER\n");
                return 2;
        }
        seed = s ? strtoull(s, NULL, 10) : 1;
        victim = argv[1];
        recorder = argv[2];
        work = work_dir("faults");
        unsigned n_calls = make_base(calls);
        run_all(&r, calls, l && strcmp(l, "1") == 0);
        report(&r, calls, n_calls);
        point(r.n_broken == 0,
              "whatever call fails, nothing that was promised is lost, and nothing is promised after it");
        point(are_many(calls) && has_hit_all(&r, calls), "every kind of call has failed in every way");
        point(r.n_refused > 0 && r.n_failed > 0 && r.n_full > 0 && r.n_went_on > 0,
              "stores were refused, failed, had no space, and went on");
        return points_end();
}
