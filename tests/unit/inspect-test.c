/* SPDX-License-Identifier: MIT */
/* Looking at a store: it finds what a start finds, says what a start does with it, and leaves every byte as it is. */
#include "store/inspect.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#include "base/util.h"
#include "store-world.h"
#include "store/crc32c.h"
#include "store/hint.h"
#include "store/marks.h"
#include "store/parts.h"

static char copy_dir[64];

typedef struct Seen {
        unsigned problems[_INSPECT_PROBLEM_MAX];
        InspectFinding last; /* of those that are more than a note */
        char last_file[64];
        Record last_was;
        unsigned records[_STORE_KIND_MAX];
        uint64_t live_bytes, n_levels[_INSPECT_LEVEL_MAX];
        const Inspect *inspect;
} Seen;

static int on_finding(void *userdata, const InspectFinding *f) {
        Seen *s = userdata;
        s->problems[f->problem]++;
        if (inspect_problems[f->problem].level == INSPECT_NOTE)
                return 0;
        s->last = *f;
        snprintf(s->last_file, sizeof(s->last_file), "%s", f->file);
        s->last_was = f->was ? *f->was : (Record) { 0 };
        return 0;
}

static int on_record(void *userdata, uint64_t segment, uint32_t at, const Record *r) {
        Seen *s = userdata;
        s->records[r->kind]++;
        if (inspect_is_live(s->inspect, segment, at))
                s->live_bytes += record_size(r->body.len);
        return 0;
}

static const InspectReader finder = { .finding = on_finding }, lister = { .record = on_record };

static uint32_t sum;

static void add_to_sum(const char *path, const char *name) {
        char buf[65536];
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        sum = crc32c(sum, name, strlen(name));
        for (ssize_t n; (n = read(fd, buf, sizeof(buf))) > 0;)
                sum = crc32c(sum, buf, (size_t)n);
        close(fd);
}

static uint32_t sum_of_files(void) {
        sum = 0;
        each_file(add_to_sum);
        return sum;
}

/* Of W.dir: it is left as it is. */
static Seen look(bool in_use, Inspect *x) {
        Seen seen = { .inspect = x };
        uint32_t before = in_use ? 0 : sum_of_files();
        *x = (Inspect)INSPECT_NULL;
        ck_assert_int_eq(inspect_open(W.dir, in_use, x), 0);
        ck_assert_int_eq(inspect_files(x, &finder, &seen), 0);
        memcpy(seen.n_levels, x->n_findings, sizeof(seen.n_levels));
        if (!in_use)
                ck_assert_uint_eq(sum_of_files(), before);
        return seen;
}

static Seen look_once(void) {
        Inspect x;
        Seen seen = look(false, &x);
        inspect_done(&x);
        return seen;
}

static void live(int steps) {
        for (int i = 0; i < steps; i++) {
                step();
                if (i % 40 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        ck_assert_int_eq(commit(), STORE_GOOD);
}

static void queues(void) {
        for (unsigned i = 0; i < QUEUES; i++)
                put_queue(i, 'a');
}

/* ---- copies ---- */

static void copy_one(const char *path, const char *name) {
        char to[128], buf[65536];
        snprintf(to, sizeof(to), "%s/%s", copy_dir, name);
        int in = open(path, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        ck_assert(in >= 0 && out >= 0);
        for (ssize_t n; (n = read(in, buf, sizeof(buf))) > 0;)
                ck_assert_int_eq(write(out, buf, (size_t)n), n);
        close(in);
        close(out);
}

/* What kill -9 would leave now. It becomes W.dir; the store is closed and goes. */
static void become_copy(void) {
        strcpy(copy_dir, "/tmp/eqd-inspect-test.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(copy_dir));
        each_file(copy_one);
        end(); /* store_close() takes NULL */
        strcpy(W.dir, copy_dir);
}

static void end_files(void) {
        each_file(remove_file);
        ck_assert_int_eq(rmdir(W.dir), 0);
}

static void put_file(const char *name, const void *data, size_t n) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        ck_assert(fd >= 0 && write(fd, data, n) == (ssize_t)n);
        close(fd);
}

static char *read_file(const char *name, size_t *ret_size) {
        char path[128];
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", W.dir, name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert(fd >= 0 && fstat(fd, &st) == 0);
        char *data = malloc((size_t)st.st_size + 1);
        ck_assert_int_eq(read(fd, data, (size_t)st.st_size), st.st_size);
        close(fd);
        *ret_size = (size_t)st.st_size;
        return data;
}

static void remove_hint(const char *path, const char *name) {
        uint64_t number;
        if (hint_parse_name(name, &number))
                ck_assert_int_eq(unlink(path), 0);
}

/* ---- what is there ---- */

static int compare_queue(void *userdata, const InspectQueue *q) {
        const ModelQueue *want = &W.want[q->id];
        uint64_t pending = 0, finished = 0;
        for (int seq = 0; seq < SEQS; seq++)
                if (want->there && want->tasks[seq].there)
                        *(want->tasks[seq].last == STORE_END ? &finished : &pending) += 1;
        ck_assert_uint_eq(q->n_pending, pending);
        ck_assert_uint_eq(q->n_finished, finished);
        ck_assert_uint_eq(q->last_seq, want->last_seq);
        ck_assert_int_eq(q->is_gone, !want->there);
        ck_assert_uint_gt(q->n_segments, 0);
        *(uint64_t *)userdata += q->bytes;
        return 0;
}

TEST(a_store_that_was_closed_is_counted_and_has_no_findings) {
        begin(SEGMENT);
        queues();
        StoreStats stats = { 0 };
        while (stats.n_moved == 0 || stats.oldest <= 1) {
                live(2000);
                store_stats(W.store, &stats);
        }
        ck_assert_uint_gt(stats.moved_bytes, 0);
        put_gone(3);
        ck_assert_int_eq(commit(), STORE_GOOD);
        W.store = store_close(W.store);
        Inspect x;
        Seen seen = look(false, &x);
        for (int i = 0; i < _INSPECT_PROBLEM_MAX; i++)
                ck_assert_msg(seen.problems[i] == 0, "%s", inspect_problems[i].name);
        uint64_t bytes = 0;
        ck_assert_int_eq(inspect_queues(&x, compare_queue, &bytes), 0);
        ck_assert_uint_eq(bytes, x.index.live_bytes);
        ck_assert_uint_gt(x.n_hints, 1);
        ck_assert_uint_eq(inspect_records(&x, 0, &lister, &seen), 0);
        ck_assert_uint_eq(seen.live_bytes, x.index.live_bytes);
        uint64_t n = 0;
        for (int kind = 0; kind < STORE_SEAL; kind++)
                n += seen.records[kind];
        ck_assert_uint_eq(n, x.n_records);
        ck_assert_uint_eq(seen.records[STORE_SEAL], x.n_segments);
        seen = (Seen) { .inspect = &x };
        ck_assert_int_eq(inspect_records(&x, x.newest, &lister, &seen), 0);
        ck_assert_uint_eq(seen.records[STORE_SEAL], 1);
        inspect_done(&x);
        reopen();
        compare();
        end();
}

TEST(an_empty_directory_has_nothing_and_no_findings) {
        begin(SEGMENT);
        W.store = store_close(W.store);
        each_file(remove_file);
        Inspect x;
        Seen seen = look(false, &x);
        ck_assert_uint_eq(x.n_segments + x.n_files + seen.n_levels[INSPECT_NOTE], 0);
        uint64_t bytes = 0;
        ck_assert_int_eq(inspect_queues(&x, compare_queue, &bytes), 0);
        ck_assert(!inspect_has_segments(&x));
        inspect_done(&x);
        end_files();
}

TEST(what_kill_9_leaves_is_no_damage) {
        begin(SEGMENT);
        queues();
        live(6000);
        become_copy();
        Seen seen = look_once();
        ck_assert_uint_eq(seen.problems[PROBLEM_UNSEALED], 1);
        ck_assert_uint_eq(seen.n_levels[INSPECT_DAMAGE] + seen.n_levels[INSPECT_REFUSED], 0);
        reopen();
        compare();
        end();
}

/* ---- what a start finds, it finds ---- */

static uint64_t newest_written;

static void find_newest(const char *path, const char *name) {
        uint64_t number;
        char header[RECORD_HEADER];
        if (!segment_parse_name(name, &number) || number < newest_written)
                return;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert(fd >= 0 && pread(fd, header, sizeof(header), SEGMENT_HEADER) == sizeof(header));
        close(fd);
        if (memcmp(header, (char[RECORD_HEADER]) { 0 }, sizeof(header)) != 0)
                newest_written = number;
}

static const char *newest_name(void) {
        static char name[SEGMENT_NAME_MAX];
        newest_written = 0;
        each_file(find_newest);
        segment_name(newest_written, name);
        return name;
}

static void compare_with_a_start(const Seen *seen, const char *what, size_t at) {
        each_file(remove_hint); /* with them a start does not look at bodies */
        int r = try_open();
        ck_assert_msg((r < 0) == (seen->n_levels[INSPECT_REFUSED] > 0), "%s, byte %zu: %s", what, at, W.error);
        if (r < 0)
                return;
        ck_assert_msg(W.n_damaged == seen->problems[PROBLEM_RECORD] + seen->problems[PROBLEM_MENDED],
                      "%s, byte %zu: a start found %u, this %u", what, at, W.n_damaged, seen->problems[PROBLEM_RECORD]);
        W.store = store_close(W.store);
}

/* The directory as it was, for one trial after the other. */
static char keeper[64];

static void keep_one(const char *path, const char *name) {
        copy_one(path, name);
}

static void restore_files(void) {
        char dir[64];
        strcpy(dir, W.dir);
        each_file(remove_file);
        strcpy(W.dir, keeper);
        strcpy(copy_dir, dir);
        each_file(keep_one);
        strcpy(W.dir, dir);
}

static void begin_trials(void) {
        become_copy();
        strcpy(keeper, "/tmp/eqd-inspect-keep.XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(keeper));
        strcpy(copy_dir, keeper);
        each_file(keep_one);
}

static void end_trials(void) {
        end_files();
        strcpy(W.dir, keeper);
        end_files();
}

/* Of a store that was closed, or was killed; on this machine as it runs, or before it was started again. */
static void flip_bits(bool closed, bool other_boot, unsigned *n_damage, unsigned *n_mended) {
        begin(SEGMENT);
        if (other_boot) {
                W.store = store_close(W.store);
                each_file(remove_file);
                W.boot = "another machine";
                reopen();
        }
        queues();
        live(3000);
        if (closed)
                W.store = store_close(W.store);
        begin_trials();
        W.boot = NULL;
        for (int trial = 0; trial < 100 / TEST_FEWER; trial++) {
                size_t size;
                char name[SEGMENT_NAME_MAX], path[128];
                restore_files();
                newest_name();
                segment_name(trial % 3 ? newest_written - (uint64_t)trial % newest_written : newest_written, name);
                snprintf(path, sizeof(path), "%s/%s", W.dir, name);
                if (access(path, F_OK) < 0)
                        continue;
                char *data = read_file(name, &size);
                size_t at = trial % 10 == 0 ? dice(SEGMENT_HEADER) : dice(size);
                data[at] ^= (char)(1 << dice(8));
                put_file(name, data, size);
                Seen seen = look_once();
                *n_damage += seen.problems[PROBLEM_RECORD];
                *n_mended += seen.problems[PROBLEM_MENDED];
                if (seen.problems[PROBLEM_RECORD]) {
                        ck_assert_str_eq(seen.last_file, name);
                        ck_assert(seen.last.at <= at && at < seen.last.at + seen.last.n_bytes + 8);
                }
                compare_with_a_start(&seen, name, at);
                free(data);
        }
        end_trials();
}

TEST(of_each_flipped_bit_it_says_what_a_start_finds) {
        unsigned n_damage = 0, n_mended = 0;
        for (int i = 0; i < 4; i++)
                flip_bits(i & 1, i & 2, &n_damage, &n_mended);
        ck_assert_uint_gt(n_damage, 100 / TEST_FEWER);
        ck_assert_uint_ge(n_mended, 5 / TEST_FEWER);
}

TEST(a_tail_that_was_cut_is_torn_and_no_damage_to_both) {
        begin(SEGMENT);
        queues();
        for (int i = 0; i < 10; i++) {
                ck_assert_int_eq(put_group((unsigned)i % QUEUES, 5), 0);
                ck_assert_int_eq(put_task((unsigned)i % QUEUES), 0);
                if (i % 3 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        ck_assert_int_eq(commit(), STORE_GOOD);
        begin_trials();
        unsigned n_torn = 0;
        for (size_t at = SEGMENT_HEADER; at < 6000; at += 61) {
                size_t size;
                restore_files();
                char name[SEGMENT_NAME_MAX];
                strcpy(name, newest_name());
                char *data = read_file(name, &size);
                memset(data + at, 0, size - at);
                put_file(name, data, size);
                free(data);
                Inspect x;
                Seen seen = look(false, &x);
                ck_assert_uint_eq(seen.n_levels[INSPECT_DAMAGE], 0);
                n_torn += seen.problems[PROBLEM_TORN];
                size_t n_tasks = x.index.n_tasks, n = 0;
                inspect_done(&x);
                compare_with_a_start(&seen, name, at);
                for (int i = 0; i < QUEUES; i++)
                        for (int seq = 0; seq < SEQS; seq++)
                                n += W.got[i].there && W.got[i].tasks[seq].there;
                ck_assert_msg(n == n_tasks, "cut at %zu: a start has %zu tasks, this %zu", at, n, n_tasks);
        }
        ck_assert_uint_gt(n_torn, 20);
        end_trials();
}

/* A bit in the middle of a damaged body leaves its header: that tells what it was. */
TEST(of_a_damaged_body_it_says_which_task_it_was) {
        static char body[100];
        begin(SEGMENT);
        put_queue(0, 'x');
        memset(body, 'b', sizeof(body));
        ck_assert_int_eq(put(STORE_TASK, 0, 7, 1, body, sizeof(body)), 0);
        W.store = store_close(W.store);
        size_t size;
        char *data = read_file("log-0000000000000001", &size), *p = memmem(data, size, body, sizeof(body));
        ck_assert_ptr_nonnull(p);
        p[50] ^= 1;
        put_file("log-0000000000000001", data, size);
        Seen seen = look_once();
        ck_assert_uint_eq(seen.problems[PROBLEM_RECORD], 1);
        ck_assert_uint_eq(seen.last.at, (size_t)(p - data) - RECORD_HEADER);
        ck_assert_int_eq(seen.last_was.kind, STORE_TASK);
        ck_assert_uint_eq(seen.last_was.seq, 7);
        free(data);
        end_files();
}

TEST(a_segment_in_the_middle_without_its_seal_is_found) {
        begin(SEGMENT);
        queues();
        live(3000);
        W.store = store_close(W.store);
        size_t size;
        char *data = read_file("log-0000000000000001", &size);
        memset(data + size / 2, 0, size - size / 2);
        put_file("log-0000000000000001", data, size);
        Seen seen = look_once();
        ck_assert_uint_eq(seen.problems[PROBLEM_NO_SEAL], 1);
        ck_assert_str_eq(seen.last_file, "log-0000000000000001");
        free(data);
        end_files();
}

/* ---- hints ---- */

/* Makes the hint of segment 1 anew, without its entry `skip`, with `less` for the last SEQ, or with another length. */
static void remake_hint(uint32_t skip, uint64_t less, bool lie) {
        Segment s = SEGMENT_NULL;
        HintFile f;
        Hint h = HINT_NULL;
        char *data;
        size_t size;
        int fd = open(W.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert_int_eq(segment_open(fd, 1, &s), 0);
        ck_assert_int_eq(hint_read(fd, &s, &f), 0);
        h.end = f.end;
        for (uint32_t i = 0; i < f.n_entries; i++) {
                HintEntry e;
                hint_entry(&f, i, &e);
                e.record.lane ^= lie && i == 3;
                if (i != skip)
                        ck_assert_int_eq(hint_add(&h, &e.record, e.begin, e.at, true), 0);
        }
        for (uint32_t i = 0; i < f.n_queues; i++) {
                uint64_t id, last_seq;
                hint_queue(&f, i, &id, &last_seq);
                for (HintQueue *q = h.queues; q; q = q->hh.next)
                        if (q->id == id)
                                q->last_seq = last_seq - less;
        }
        ck_assert_int_eq(hint_encode(&h, &s, &data, &size), 0);
        ck_assert_int_eq(hint_write(fd, 1, data, size), 0);
        free(data);
        hint_done(&h);
        hint_file_done(&f);
        segment_close(&s);
        close(fd);
}

TEST(a_hint_that_leaves_something_out_or_lies_is_found_though_a_start_believes_it) {
        begin(SEGMENT);
        put_queue(0, 'x');
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(put_task(0), 0);
        put_last(0, 2, STORE_END);
        forget(0, 3);
        W.store = store_close(W.store);
        size_t size;
        char *good = read_file("hint-0000000000000001", &size);
        ck_assert_uint_eq(size, HINT_HEADER + HINT_QUEUE + 12 * HINT_ENTRY); /* QUEUE, 9 TASKs, END, FORGET */
        for (uint32_t skip = 0; skip < 12 + 3; skip++) {
                put_file("hint-0000000000000001", good, size);
                remake_hint(skip, skip == 12, skip == 13);
                Seen seen = look_once();
                ck_assert_msg(seen.problems[PROBLEM_HINT_WRONG] == (skip < 14), "entry %u", skip);
                ck_assert(skip == 14 || strcmp(seen.last_file, "hint-0000000000000001") == 0);
        }
        free(good);
        end_files();
}

TEST(a_hint_that_is_not_good_is_a_note) {
        begin(SEGMENT);
        queues();
        W.store = store_close(W.store);
        size_t size;
        char *data = read_file("hint-0000000000000001", &size);
        data[size - 1] ^= 1;
        put_file("hint-0000000000000001", data, size);
        put_file("hint-00000000000000ff", data, size);
        Seen seen = look_once();
        ck_assert_uint_eq(seen.problems[PROBLEM_HINT], 1);
        ck_assert_uint_eq(seen.problems[PROBLEM_HINT_ALONE], 1);
        ck_assert_uint_eq(seen.n_levels[INSPECT_DAMAGE] + seen.n_levels[INSPECT_REFUSED], 0);
        free(data);
        end_files();
}

/* ---- other files ---- */

TEST(what_is_not_of_eqd_or_of_another_version_is_named) {
        char path[128];
        begin(SEGMENT);
        queues();
        int slot = store_mark(W.store, 1, 2, 3);
        ck_assert_int_ge(slot, 0);
        become_copy();
        size_t size;
        char *running = read_file("running", &size), *log;
        Inspect x;
        Seen seen = look(false, &x);
        ck_assert_uint_eq(x.n_marks, 1);
        inspect_done(&x);
        put_file("running", running, size - 1);
        ck_assert_uint_eq(look_once().problems[PROBLEM_RUNNING], 1);
        for (size_t i = MARKS_HEADER; i < size; i++)
                if (running[i]) { /* the mark: one bit of it */
                        running[i] ^= 1;
                        break;
                }
        put_file("running", running, size);
        free(running);
        seen = look_once();
        ck_assert_uint_eq(seen.problems[PROBLEM_MARK], 1);
        ck_assert_uint_eq(seen.last.count, 1);

        put_file("notes.txt", "hello", 5);
        put_file("new", "", 0);
        put_file("new-hint", "", 0);
        put_file("damaged-0000000000000001-00000040", "x", 1);
        put_file("damaged-1-40", "x", 1);
        put_file("log-ffffffffffffffff", "x", 1);
        put_file("log-0000000000000009", "what is this? it is no segment, and longer than the header of one is", 68);
        snprintf(path, sizeof(path), "%s/log-000000000000000a", W.dir);
        ck_assert_int_eq(symlink("running", path), 0);
        seen = look_once();
        ck_assert_uint_eq(seen.problems[PROBLEM_FOREIGN], 2);
        ck_assert_uint_eq(seen.problems[PROBLEM_UNFINISHED], 2);
        ck_assert_uint_eq(seen.problems[PROBLEM_KEPT], 1);
        ck_assert_uint_eq(seen.problems[PROBLEM_NUMBER], 1);
        ck_assert_uint_eq(seen.problems[PROBLEM_HEADER], 1);
        ck_assert_uint_eq(seen.problems[PROBLEM_UNREADABLE], 1);
        ck_assert_int_lt(try_open(), 0);

        log = read_file("log-0000000000000001", &size);
        log[8] = 99;
        put_file("log-0000000000000001", log, size);
        free(log);
        ck_assert_uint_eq(look_once().problems[PROBLEM_VERSION], 1);
        end_files();
}

/* ---- beside an eqd ---- */

enum { LOOKS = 25 };

static bool has_ended(int fd) { /* the other end of a pipe */
        struct pollfd p = { .fd = fd, .events = POLLIN };
        return poll(&p, 1, 0) > 0;
}

/* The child: only looks at files, from when it is told to until it is. It has its own count of what it found. */
static _Noreturn void look_meanwhile(int until) {
        char c;
        if (read(until, &c, 1) != 1)
                _exit(1);
        for (int i = 0; i < LOOKS || !has_ended(until); i++) {
                Inspect x;
                Seen seen = look(true, &x);
                for (int k = 0; k < _INSPECT_PROBLEM_MAX; k++)
                        if (seen.problems[k] > 0) {
                                fprintf(stderr, "%s: %s\n", inspect_problems[k].name, seen.last_file);
                                _exit(1);
                        }
                inspect_done(&x);
        }
        _exit(0);
}

/* Whatever is at work meanwhile, compaction too, it reports nothing that is not so. */
TEST(beside_a_store_that_is_in_use_it_finds_nothing_and_sees_what_is_committed) {
        StoreStats before, after;
        int until[2], status;
        begin(4 * SEGMENT);
        W.store = store_close(W.store); /* a child would never get a lock that a thread has while it is made */
        ck_assert_int_eq(pipe2(until, O_CLOEXEC), 0);
        pid_t pid = fork(), ended;
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
                close(until[1]);
                look_meanwhile(until[0]);
        }
        close(until[0]);
        reopen();
        queues();
        live(4000);
        store_stats(W.store, &before);
        ck_assert_int_eq(write(until[1], "x", 1), 1);
        while ((ended = waitpid(pid, &status, WNOHANG)) == 0) {
                live(200);
                store_stats(W.store, &after);
                if (after.n_moved > before.n_moved + 100 && after.oldest > before.oldest + 2)
                        until[1] = close_fd(until[1]);
        }
        ck_assert_int_eq(ended, pid);
        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), 0);
        Inspect x;
        Seen seen = look(true, &x); /* nothing new comes meanwhile */
        store_stats(W.store, &after);
        ck_assert_uint_eq(seen.n_levels[INSPECT_NOTE] + seen.n_levels[INSPECT_DAMAGE], 0);
        ck_assert_uint_eq(x.index.n_tasks, after.n_tasks);
        inspect_done(&x);
        end();
}

/* ---- figures of commits ---- */

TEST(a_percentile_is_at_most_a_quarter_too_much_and_the_most_is_exact) {
        Latency l = { 0 };
        ck_assert_uint_eq(latency_percentile(&l, 50), 0);
        for (uint64_t usec = 0; usec < 300000; usec = usec < 64 ? usec + 1 : usec + usec / 7) {
                Latency one = { 0 };
                latency_add(&one, usec);
                latency_add(&one, usec * 2 + 1);
                uint64_t p = latency_percentile(&one, 50);
                ck_assert(p >= usec && p <= usec + usec / 4);
                ck_assert_uint_eq(latency_percentile(&one, 100), usec * 2 + 1);
        }
        for (unsigned i = 1; i < LATENCY_BUCKETS - 1; i++) {
                ck_assert_uint_eq(latency_bucket(latency_bucket_end(i)), i);
                ck_assert_uint_eq(latency_bucket(latency_bucket_end(i - 1) + 1), i);
        }
        for (int i = 0; i < 99; i++)
                latency_add(&l, 100);
        latency_add(&l, 1000000);
        ck_assert_uint_eq(latency_percentile(&l, 99), latency_bucket_end(latency_bucket(100)));
        latency_add(&l, UINT64_MAX);
        ck_assert_uint_eq(latency_percentile(&l, 100), UINT64_MAX);
}

/* The index is told of a batch under its lock, from before it is said to be durable. That lock is held here while the bytes are asked
 * for: whoever wants it for that would never come back. */
static uint64_t bytes_of_noted(uint64_t queue) {
        ck_assert_int_eq(pthread_mutex_lock(&W.store->index_lock), 0);
        uint64_t bytes = store_queue_bytes(W.store, queue);
        ck_assert_int_eq(pthread_mutex_unlock(&W.store->index_lock), 0);
        return bytes;
}

TEST(a_store_counts_how_long_its_commits_take) {
        StoreStats s;
        begin(SEGMENT);
        store_stats(W.store, &s);
        ck_assert_uint_eq(s.n_segments, 1); /* known before the first commit */
        ck_assert_uint_eq(s.commits.n, 0);
        put_queue(0, 'x');
        for (int i = 0; i < 10; i++) {
                ck_assert_int_eq(put_task(0), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        store_stats(W.store, &s);
        ck_assert_uint_eq(s.commits.n, s.n_commits);
        ck_assert_uint_ge(s.commits.n, 10);
        ck_assert_uint_le(latency_percentile(&s.commits, 50), s.commits.max_usec);
        ck_assert_uint_gt(bytes_of_noted(0), 10 * RECORD_HEADER);
        ck_assert_uint_eq(bytes_of_noted(1), 0);
        uint64_t before = bytes_of_noted(0);
        forget(0, 1);
        ck_assert_int_eq(commit(), STORE_GOOD);
        ck_assert_uint_lt(bytes_of_noted(0), before);
        end();
}

RUN_TESTS("inspect", 120, test_a_store_that_was_closed_is_counted_and_has_no_findings,
          test_an_empty_directory_has_nothing_and_no_findings, test_what_kill_9_leaves_is_no_damage,
          test_of_each_flipped_bit_it_says_what_a_start_finds, test_a_tail_that_was_cut_is_torn_and_no_damage_to_both,
          test_of_a_damaged_body_it_says_which_task_it_was, test_a_segment_in_the_middle_without_its_seal_is_found,
          test_a_hint_that_leaves_something_out_or_lies_is_found_though_a_start_believes_it,
          test_a_hint_that_is_not_good_is_a_note, test_what_is_not_of_eqd_or_of_another_version_is_named,
          test_beside_a_store_that_is_in_use_it_finds_nothing_and_sees_what_is_committed,
          test_a_percentile_is_at_most_a_quarter_too_much_and_the_most_is_exact,
          test_a_store_counts_how_long_its_commits_take)
