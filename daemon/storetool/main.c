/* SPDX-License-Identifier: MIT */
/* eqd-store: looks at the store of an eqd for eqctl, which shows what this writes to standard output: one array
 * [name, row] behind the other, in MessagePack; row is a record of eqd.def by that name, or of `failed` a text for people.
 *
 *   eqd-store check|dump|stat DIR [--queue NAME] [--segment N] [--payload]
 *
 * DIR is a state directory, or a copy of the directory `store` in it. Nothing is written there, and no lock is held: whether an
 * eqd uses it is asked by a lock that is let go at once. Exit status: 0: nothing is wrong; 1: something is; 2: it could not be
 * looked at; 66: there is no such queue or segment. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/util.h"
#include "proto/statelock.h"
#include "storetool/rows.h"

enum { EXIT_FINDINGS = 1, EXIT_UNREAD = 2, EXIT_NOT_FOUND = 66, FLUSH_BYTES = 64 * 1024 };

typedef enum Verb { VERB_CHECK, VERB_DUMP, VERB_STAT, _VERB_MAX } Verb;

typedef struct Tool {
        Verb verb;
        const char *given; /* the directory, as it was named */
        char dir[PATH_MAX];
        const char *queue; /* NULL: all */
        const char *segment_text;
        uint64_t segment; /* 0: all */
        bool payload;
        Inspect inspect;
        uint64_t n_pending, n_finished;
        EqBuffer out;
} Tool;

/* ---- output ---- */

/* 0, or -EPIPE: nobody reads it any more. */
static int flush(Tool *t) {
        for (size_t done = 0; done < t->out.len;) {
                ssize_t n = write(STDOUT_FILENO, t->out.data + done, t->out.len - done);
                if (n < 0 && errno != EINTR)
                        return -EPIPE;
                done += n > 0 ? (size_t)n : 0;
        }
        t->out.len = 0;
        return t->out.failed ? -ENOMEM : 0;
}

static int put(Tool *t, const EqSchema *schema, const void *row) {
        msgpack_packer pk = eq_packer(&t->out);
        msgpack_pack_array(&pk, 2);
        eq_pack_cstr(&pk, schema->name);
        eq_pack_record(&pk, schema, row);
        return t->out.len >= FLUSH_BYTES ? flush(t) : 0;
}

static int _printf_(3, 4) fail(Tool *t, int status, const char *format, ...) {
        char text[PATH_MAX + 512];
        va_list ap;
        va_start(ap, format);
        (void)vsnprintf(text, sizeof(text), format, ap); /* cut is fine */
        va_end(ap);
        msgpack_packer pk = eq_packer(&t->out);
        msgpack_pack_array(&pk, 2);
        eq_pack_cstr(&pk, "failed");
        eq_pack_cstr(&pk, text);
        (void)flush(t); /* the status tells the same */
        return status;
}

/* ---- where it is ---- */

static int fail_to_open(Tool *t, const char *path, int error) {
        if (error == ENOENT)
                return fail(t, EXIT_UNREAD, "there is no %s; name the state directory of that eqd with --state DIR",
                            path);
        if (error == EACCES || error == EPERM)
                return fail(t, EXIT_UNREAD,
                            "cannot read %s: %s; it is for the user that eqd runs as: run this as root or as that user",
                            path, strerror(error));
        return fail(t, EXIT_UNREAD, "cannot read %s: %s", path, strerror(error));
}

/* Does it hold what a store does? */
static bool is_store(const char *dir) {
        char path[PATH_MAX + 16];
        Inspect x = INSPECT_NULL;
        snprintf(path, sizeof(path), "%s/running", dir);
        if (access(path, F_OK) == 0)
                return true;
        bool found = inspect_open(dir, true, &x) >= 0 && inspect_has_segments(&x);
        inspect_done(&x);
        return found;
}

static int find_store(Tool *t) {
        char path[PATH_MAX];
        struct stat st;
        if (stat(t->given, &st) < 0)
                return fail_to_open(t, t->given, errno);
        if (!S_ISDIR(st.st_mode))
                return fail(t, EXIT_UNREAD, "%s is no directory; name a state directory with --state DIR", t->given);
        if (snprintf(path, sizeof(path), "%s/store", t->given) >= (int)sizeof(path))
                return fail_to_open(t, t->given, ENAMETOOLONG);
        if (stat(path, &st) == 0) {
                memcpy(t->dir, path, sizeof(path));
                return 0;
        }
        if (errno != ENOENT)
                return fail_to_open(t, path, errno);
        if (access(t->given, R_OK | X_OK) < 0)
                return fail_to_open(t, t->given, errno);
        if (!is_store(t->given))
                return fail(
                        t, EXIT_UNREAD,
                        "%s holds no store; name the state directory of an eqd, or a copy of its directory store, with "
                        "--state DIR",
                        t->given);
        snprintf(t->dir, sizeof(t->dir), "%s", t->given);
        return 0;
}

/* Does an eqd use it? *ret_bad: it is no file that can be locked. */
static bool is_in_use(const Tool *t, bool *ret_bad) {
        char path[PATH_MAX + 16];
        struct stat st;
        *ret_bad = false;
        if (strcmp(t->dir, t->given) == 0) /* a copy */
                return false;
        snprintf(path, sizeof(path), "%s/lock", t->given);
        _cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) {
                *ret_bad = errno == ELOOP;
                return false;
        }
        *ret_bad = fstat(fd, &st) < 0 || !S_ISREG(st.st_mode);
        return eq_state_lock_is_held(fd);
}

static int tell_bad_lock(Tool *t) {
        FindingRow row;
        InspectFinding f = { .problem = PROBLEM_LOCK, .file = "lock" };
        inspect_found(&t->inspect, f.problem);
        if (t->verb != VERB_CHECK)
                return 0;
        row_finding(&t->inspect, &f, &row);
        return put(t, &eq_schema_StoreFinding, &row.row);
}

/* ---- the verbs ---- */

static int on_finding(void *userdata, const InspectFinding *f) {
        Tool *t = userdata;
        FindingRow row;
        if (t->verb != VERB_CHECK)
                return 0;
        row_finding(&t->inspect, f, &row);
        return put(t, &eq_schema_StoreFinding, &row.row);
}

static const InspectReader check_reader = { .finding = on_finding };

static bool is_wanted(const Tool *t, const RecordRow *row) {
        return !t->queue || (EQ_HAS(&row->row, StoreRecord, queue) && eq_bytes_eq(row->row.queue, eq_str(t->queue)));
}

static int on_record(void *userdata, uint64_t segment, uint32_t at, const Record *r) {
        Tool *t = userdata;
        RecordRow row;
        row_record(&t->inspect, segment, at, r, t->payload, &row);
        return is_wanted(t, &row) ? put(t, &eq_schema_StoreRecord, &row.row) : 0;
}

static int on_bad_record(void *userdata, const InspectFinding *f) {
        Tool *t = userdata;
        RecordRow row;
        uint64_t segment;
        bool is_record = (f->problem == PROBLEM_RECORD || f->problem == PROBLEM_TORN) && f->n_bytes > 0;
        if (!is_record || !segment_parse_name(f->file, &segment))
                return 0;
        row_bad_record(&t->inspect, segment, f, &row);
        return is_wanted(t, &row) ? put(t, &eq_schema_StoreRecord, &row.row) : 0;
}

static const InspectReader dump_reader = { .finding = on_bad_record, .record = on_record };

static int on_queue(void *userdata, const InspectQueue *q) {
        Tool *t = userdata;
        EqStoreQueue row;
        t->n_pending += q->n_pending;
        t->n_finished += q->n_finished;
        row_queue(q, &row);
        return t->verb == VERB_STAT ? put(t, &eq_schema_StoreQueue, &row) : 0;
}

static int put_stat(Tool *t) {
        EqStoreStat row;
        int e = inspect_queues(&t->inspect, on_queue, t);
        row_stat(&t->inspect, &row);
        EQ_SET(&row, StoreStat, directory, eq_str(t->dir));
        EQ_SET(&row, StoreStat, pending, t->n_pending);
        EQ_SET(&row, StoreStat, finished, t->n_finished);
        return e < 0 ? e : put(t, &eq_schema_StoreStat, &row);
}

static bool knows_queue(const Tool *t) {
        for (const IndexQueue *q = t->inspect.index.queues; q; q = q->hh.next)
                if (strcmp(q->name, t->queue) == 0)
                        return true;
        return false;
}

/* log-NUMBER, or the number. */
static int parse_segment(Tool *t) {
        const char *text = t->segment_text;
        char *end;
        if (!text || segment_parse_name(text, &t->segment))
                return 0;
        t->segment = strtoull(text, &end, 10);
        if (t->segment > 0 && !*end && *text >= '0' && *text <= '9')
                return 0;
        return fail(t, EXIT_NOT_FOUND, "`%s` is no segment; write log-NUMBER, or the number as store dump shows it",
                    text);
}

static int look(Tool *t, bool bad_lock) {
        Inspect *x = &t->inspect;
        int e = bad_lock ? tell_bad_lock(t) : 0;
        if (e >= 0)
                e = inspect_files(x, &check_reader, t);
        if (e < 0)
                return fail(t, EXIT_UNREAD, "cannot look at %s: %s", t->dir, strerror(-e));
        if (t->verb == VERB_DUMP && t->queue && !knows_queue(t))
                return fail(t, EXIT_NOT_FOUND, "the store in %s has no queue %s; eqctl store stat lists those it has",
                            t->dir, t->queue);
        if (t->verb == VERB_DUMP && t->segment && !inspect_has_segment(x, t->segment))
                return fail(t, EXIT_NOT_FOUND, "the store in %s has no segment %" PRIu64, t->dir, t->segment);
        bool unread = x->n_findings[INSPECT_UNREAD] > 0;
        bool found = x->n_findings[INSPECT_DAMAGE] + x->n_findings[INSPECT_REFUSED] > 0;
        e = t->verb == VERB_DUMP ? inspect_records(x, t->segment, &dump_reader, t) : 0;
        if (e >= 0)
                e = put_stat(t);
        if (e >= 0)
                e = flush(t);
        if (e < 0)
                return fail(t, EXIT_UNREAD, "cannot look at %s: %s", t->dir, strerror(-e));
        return unread ? EXIT_UNREAD : found ? EXIT_FINDINGS : 0;
}

static int run(Tool *t) {
        bool bad_lock;
        int status = find_store(t);
        if (status == 0)
                status = parse_segment(t);
        if (status)
                return status;
        bool in_use = is_in_use(t, &bad_lock);
        int e = inspect_open(t->dir, in_use, &t->inspect);
        return e < 0 ? fail_to_open(t, t->dir, -e) : look(t, bad_lock);
}

/* ---- options ---- */

static bool parse_options(int argc, char **argv, Tool *t) {
        static const char *const verbs[_VERB_MAX] = { "check", "dump", "stat" };
        enum { QUEUE = 256, SEGMENT, PAYLOAD };
        static const struct option longs[] = {
                { "queue", required_argument, NULL, QUEUE },
                { "segment", required_argument, NULL, SEGMENT },
                { "payload", no_argument, NULL, PAYLOAD },
                { 0 },
        };
        for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
                switch (c) {
                case QUEUE:
                        t->queue = optarg;
                        break;
                case SEGMENT:
                        t->segment_text = optarg;
                        break;
                case PAYLOAD:
                        t->payload = true;
                        break;
                default:
                        return false;
                }
        if (argc - optind != 2)
                return false;
        for (t->verb = 0; t->verb < _VERB_MAX && strcmp(verbs[t->verb], argv[optind]) != 0;)
                t->verb++;
        t->given = argv[optind + 1];
        return t->verb < _VERB_MAX;
}

int main(int argc, char **argv) {
        Tool t = { .inspect = INSPECT_NULL };
        if (!parse_options(argc, argv, &t)) {
                fprintf(stderr, "eqd-store is run by eqctl store; see eqctl(1)\n");
                return EXIT_UNREAD;
        }
        int status = run(&t);
        inspect_done(&t.inspect);
        eq_buffer_done(&t.out);
        return status;
}
