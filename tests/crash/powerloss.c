/* SPDX-License-Identifier: MIT */
/* A loss of power at any moment.
 *
 *      powerloss VICTIM RECORDER           lives of the victim, recorded; cut at 300 points, at every one with EQD_LONG=1
 *      powerloss --trace FILE SUBDIR       cuts what somebody else has recorded
 *
 * The victim lives several times on one disk and is killed in the middle of a commit each time, every other time when the batch
 * is written and not synced. What the disk may hold after a cut is made in a directory of its own, opened, and held against what
 * the victim was promised until then. Some openings are recorded themselves and cut again. To show that lost promises are seen
 * the same trace is cut with syncs left out that it has: each of the three must break a promise.
 *
 * EQD_SEED chooses other lives and cuts. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk.h"
#include "lives.h"
#include "promises.h"
#include "store/store.h"
#include "victim.h"

enum {
        CUTS = 300,
        LIVES = 6,
        COMMITS = 70,
        RECORDS = 24,
        AGAIN_EVERY = 15, /* one in so many openings is recorded and cut */
        AGAIN_CUTS = 4,
        SEAL_CUTS =
                40, /* while a tail that was sealed in its place is synced: a page in many states, and few such moments */
        LIMIT_SEC = 600,
};

/* Syncs that are taken out of the trace. */
typedef enum Left { NOTHING_OUT, DATA_OUT, NAMES_OUT, COPIES_OUT, _LEFT_MAX } Left;
static const char *const left_names[_LEFT_MAX] = { "none", "of records", "of directories",
                                                   "of copies before a removal" };

static const char *work;
static const char *victim, *recorder;
static uint64_t seed = 1;
static bool quiet, of_eqd;

/* ---- lives ---- */

static void live(const char *root, const char *trace, uint64_t number, unsigned commits, bool killed) {
        const Life l = { .victim = victim,
                         .recorder = recorder,
                         .root = root,
                         .trace = trace,
                         .seed = seed * 1000 + number,
                         .commits = commits,
                         .records = RECORDS,
                         .mode = killed ? "kill" : NULL };
        int status = life_live(&l);
        if (status != 0) {
                (void)fprintf(stderr, "# the victim ended with status %d\n", status);
                exit(1);
        }
}

/* ---- cuts ---- */

typedef struct Run {
        Disk *disk;
        Promises *promises;
        const Trace *trace;
        Left left;
        unsigned n_cuts, n_again, n_in_place, n_broken, n_failed, n_moved; /* failed: the test itself */
} Run;

static const char *tail_dir = "store";

static bool cut_again(const Run *outer, const char *dir, uint64_t number);

/* In a process of its own, which makes the directory, opens it, and removes it. */
static _Noreturn void look_at_cut(const Run *r, uint64_t number, bool again) {
        char dir[PATH_MAX], store[PATH_MAX];
        (void)alarm(LIMIT_SEC);
        (void)snprintf(dir, sizeof(dir), "%s/cut-%d", work, (int)getpid());
        disk_cut(r->disk, seed * 1000003 + number, dir);
        (void)snprintf(store, sizeof(store), "%s/%s", dir, tail_dir);
        bool fine = again ? cut_again(r, dir, number) : promises_kept(r->promises, store, quiet);
        if (fine || !getenv("EQD_TEST_KEEP"))
                remove_tree(dir);
        _exit(fine ? 0 : 1);
}

static bool cut(Run *r, uint64_t number, bool again) {
        int status;
        (void)fflush(NULL);
        pid_t pid = fork();
        if (pid == 0)
                look_at_cut(r, number, again);
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
                give_up("a cut");
        r->n_cuts++;
        r->n_again += again;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
                return true;
        r->n_broken += WIFEXITED(status) && WEXITSTATUS(status) == 1;
        r->n_failed += !WIFEXITED(status) || WEXITSTATUS(status) != 1;
        if (!quiet || r->n_failed > 0)
                (void)fprintf(stderr, "# cut before event %llu, seed %llu: status %d\n", (unsigned long long)number,
                              (unsigned long long)seed, status);
        return false;
}

/* Is the next one that changes anything the removal of a segment? */
static bool removal_follows(const Trace *t, size_t at) {
        const char *name, *data;
        const TraceEvent *e = trace_next(t, &at, &name, &data);
        return e && e->type == TRACE_UNLINK && memmem(name, e->n_name, "log-", 4);
}

static bool is_left_out(const Run *r, const TraceEvent *e, const char *opened_dir, size_t at) {
        if (e->type != TRACE_SYNC_END || r->left == NOTHING_OUT)
                return false;
        bool of_dir = opened_dir[0] != '\0';
        return r->left == NAMES_OUT ? of_dir : !of_dir && (r->left == DATA_OUT || removal_follows(r->trace, at));
}

/* Which descriptors are directories, and which are segments that were there and are written to: a byte each. */
static char is_dir[4096], is_in_place[4096];

static void note_opened(const TraceEvent *e, const char *name) {
        if (e->type != TRACE_OPEN || e->fd >= (int)sizeof(is_dir))
                return;
        bool again = !e->made && (e->flags & O_ACCMODE) == O_RDWR;
        is_dir[e->fd] = (e->flags & O_DIRECTORY) != 0;
        is_in_place[e->fd] = again && memmem(name, e->n_name, "log-", 4);
}

/* Behind a seal nobody looks whether the rest is there: all of it must be before the seal can be. */
static bool cut_seal(Run *r, size_t i, const TraceEvent *e) {
        bool fine = true;
        if (e->type != TRACE_SYNC_END || e->fd >= (int)sizeof(is_dir) || !is_in_place[e->fd])
                return true;
        for (unsigned k = 1; k <= SEAL_CUTS; k++)
                fine = cut(r, i + k * r->trace->n_events, false) && fine;
        r->n_in_place++;
        return fine;
}

/* chosen: of each event whether it is cut before it. */
static bool run_events(Run *r, const char *chosen, bool stop) {
        const char *name, *data;
        const TraceEvent *e;
        size_t at = 0;
        bool fine = true;
        for (size_t i = 0; (e = trace_next(r->trace, &at, &name, &data)) && (fine || !stop); i++) {
                TraceEvent event = *e;
                if (chosen[i])
                        fine = cut(r, i, chosen[i] == 2) && fine;
                if (r->left == NOTHING_OUT)
                        fine = cut_seal(r, i, e) && fine;
                note_opened(&event, name);
                bool out = is_left_out(r, &event, event.fd < (int)sizeof(is_dir) && is_dir[event.fd] ? "d" : "", at);
                if (!out)
                        disk_feed(r->disk, &event, name, data);
                fine = promises_feed(r->promises, &event, data) && fine;
                if (event.type == TRACE_STATS)
                        r->n_moved += (unsigned)event.item.seq;
        }
        return fine;
}

/* n of the events, or all for 0; every so many is opened by a recorded victim. */
static char *choose(const Trace *t, size_t n, uint64_t state, unsigned again_every) {
        char *chosen = calloc(t->n_events + 1, 1);
        if (!chosen)
                give_up("choosing");
        for (size_t i = 0; i < (n ? n : t->n_events);) {
                size_t k = n ? dice(&state, t->n_events) : i;
                if (chosen[k])
                        continue;
                i++;
                chosen[k] = again_every && i % again_every == 0 ? 2 : 1;
                if (n >= t->n_events)
                        break;
        }
        return chosen;
}

/* Behind each removal of a segment: that and the few events that follow. */
static char *choose_removals(const Trace *t) {
        char *chosen = calloc(t->n_events + 1, 1);
        const char *name, *data;
        const TraceEvent *e;
        if (!chosen)
                give_up("choosing");
        size_t at = 0, since = SIZE_MAX;
        for (size_t i = 0; (e = trace_next(t, &at, &name, &data)); i++) {
                bool removal = e->type == TRACE_UNLINK && memmem(name, e->n_name, "log-", 4);
                since = removal ? 0 : since == SIZE_MAX ? since : since + 1;
                chosen[i] = since > 0 && since < 8;
        }
        return chosen;
}

/* The opening of what a cut has left, and a short life after it, cut again. */
static bool cut_again(const Run *outer, const char *dir, uint64_t number) {
        char path[PATH_MAX];
        Run r = { .disk = disk_new(), .promises = outer->promises };
        disk_load(r.disk, dir);
        (void)snprintf(path, sizeof(path), "%s.trace", dir);
        live(dir, path, number, 4, false);
        Trace t = trace_load(path);
        (void)unlink(path);
        r.trace = &t;
        char *chosen = choose(&t, AGAIN_CUTS, number, 0);
        return run_events(&r, chosen, true);
}

static Run run(const Trace *t, Left left, size_t n, bool stop, unsigned again_every) {
        Run r = { .disk = disk_new(), .promises = promises_new(of_eqd), .trace = t, .left = left };
        char *chosen = left == COPIES_OUT ? choose_removals(t) : choose(t, n, seed + left, again_every);
        quiet = left != NOTHING_OUT;
        r.n_broken += !run_events(&r, chosen, stop) && r.n_broken == 0;
        free(chosen);
        return r;
}

/* ---- tests ---- */

static void report(const char *claim, const Run *r) {
        const DiskCounts *c = disk_counts(r->disk);
        printf("# %u cuts (%u of the recovery itself), %zu events: %u syncs, %u segments made, %u removed, %u healed, "
               "%u moves, %u syncs in place\n",
               r->n_cuts, r->n_again, r->trace->n_events, c->n_syncs, c->n_segments, c->n_removed, c->n_healed,
               r->n_moved, r->n_in_place);
        point(r->n_broken == 0 && r->n_failed == 0, claim);
}

static void test_victim(bool all) {
        char root[128], trace[128], claim[160];
        (void)snprintf(root, sizeof(root), "%s/disk", work);
        (void)snprintf(trace, sizeof(trace), "%s/trace", work);
        if (mkdir(root, 0700) < 0)
                give_up(root);
        for (unsigned i = 0; i < LIVES; i++)
                live(root, trace, i, COMMITS, i + 1 < LIVES);
        Trace t = trace_load(trace);
        Run r = run(&t, NOTHING_OUT, all ? 0 : CUTS, false, AGAIN_EVERY);
        report("a loss of power at any moment breaks no promise", &r);
        const DiskCounts *c = disk_counts(r.disk);
        point(c->n_segments > 30 && c->n_removed > 15 && c->n_healed >= LIVES / 2 - 1 && r.n_moved > 100 &&
                      r.n_in_place >= 2,
              "segments were made, healed, sealed in their place and removed, records moved");
        for (Left left = DATA_OUT; left < _LEFT_MAX; left++) {
                Run m = run(&t, left, 0, true, 0);
                (void)snprintf(claim, sizeof(claim), "without syncs %s a promise is broken (after %u cuts)",
                               left_names[left], m.n_cuts);
                point(m.n_broken > 0 && m.n_failed == 0, claim);
        }
}

static void test_trace(const char *file, const char *subdir, bool all) {
        Trace t = trace_load(file);
        tail_dir = subdir;
        of_eqd = true;
        Run r = run(&t, NOTHING_OUT, all ? 0 : CUTS, false, 0);
        report("a loss of power at any moment breaks no promise of eqd", &r);
        Run m = run(&t, DATA_OUT, 0, true, 0);
        point(m.n_broken > 0 && m.n_failed == 0, "without syncs of records a promise is broken");
}

int main(int argc, char **argv) {
        const char *s = getenv("EQD_SEED"), *l = getenv("EQD_LONG");
        bool all = l && strcmp(l, "1") == 0, of_trace = argc == 4 && strcmp(argv[1], "--trace") == 0;
        if (argc != 3 && !of_trace) {
                (void)fprintf(stderr, "usage: powerloss VICTIM RECORDER | powerloss --trace FILE SUBDIR\n");
                return 2;
        }
        seed = s ? strtoull(s, NULL, 10) : 1;
        victim = argv[1];
        recorder = argv[2];
        work = work_dir("powerloss");
        if (of_trace)
                test_trace(argv[2], argv[3], all);
        else
                test_victim(all);
        return points_end();
}
