/* SPDX-License-Identifier: MIT */
/* One bit of one file of a store is flipped, and it is opened: that is told, what was there is still there, and all but the record
 * that it was in is served; of what had ended nothing runs again, and no SEQ is given twice.
 *
 * Three states of the same life: closed in order; killed; killed, and the machine was started again. EQD_SEED chooses other lives
 * and bits, EQD_LONG=1 tries ten times as many. */
#include "base/util.h"
#include "store/hint.h"
#include "store/marks.h"
#include "store/parts.h"
#include "store/torn.h"

#include "store-world.h"

enum { FILES_MAX = 64, STEPS = 2600, GROUP = 12 };

/* ---- what a life has left ---- */

typedef struct File {
        char name[64];
        char *data; /* owned; without zeros at its end */
        size_t len, size;
} File;

typedef enum End { CLOSED, KILLED, POWER_LOST, _END_MAX } End;
static const char *const end_names[_END_MAX] = { "closed", "killed", "killed, power lost" };

static struct {
        File files[FILES_MAX];
        size_t n;
        ModelQueue want[QUEUES];
        End end;
        unsigned n_running;
} base;

static uint64_t seed(void) {
        const char *s = getenv("EQD_SEED");
        return s ? strtoull(s, NULL, 10) : 1;
}

static bool is_long(void) {
        const char *l = getenv("EQD_LONG");
        return l && strcmp(l, "1") == 0;
}

static unsigned trials(unsigned n) {
        return is_long() ? 10 * n : n / TEST_FEWER;
}

/* Ends with a group in a commit of its own, which nothing behind it says to be synced. */
static void live(void) {
        for (unsigned i = 0; i < QUEUES; i++)
                put_queue(i, 'a');
        for (int i = 0; i < STEPS; i++) {
                step();
                if (i == STEPS / 2)
                        put_gone(QUEUES - 1);
                if (i % 40 == 0)
                        ck_assert_int_eq(put_group(0, GROUP), 0);
                if (i % 20 == 0)
                        ck_assert_int_eq(commit(), STORE_GOOD);
        }
        ck_assert_int_eq(commit(), STORE_GOOD);
        for (uint64_t seq = 1; seq <= base.n_running; seq++)
                ck_assert_int_ne(store_mark(W.store, 0, seq, 1), STORE_MARK_NONE);
        ck_assert_int_eq(put_group(0, GROUP), 0);
        ck_assert_int_eq(commit(), STORE_GOOD);
}

static void load_file(const char *path, const char *name) {
        File *f = &base.files[base.n++];
        struct stat st;
        ck_assert_uint_le(base.n, FILES_MAX);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert(fd >= 0 && fstat(fd, &st) == 0);
        snprintf(f->name, sizeof(f->name), "%s", name);
        f->size = f->len = (size_t)st.st_size;
        f->data = malloc(f->size + 1);
        ck_assert_ptr_nonnull(f->data);
        ck_assert_int_eq(read(fd, f->data, f->size), (ssize_t)f->size);
        close(fd);
        while (f->len > 0 && f->data[f->len - 1] == 0)
                f->len--;
}

/* The life is lived by a process of its own, so that nothing of it is put in order. */
static void make_base(End end) {
        int fds[2], status;
        ck_assert_int_eq(pipe(fds), 0);
        base.end = end;
        base.n_running = 5;
        begin(SEGMENT);
        W.store = store_close(W.store);
        pid_t pid = fork();
        if (pid == 0) {
                W.random = seed();
                reopen();
                live();
                if (write(fds[1], W.want, sizeof(W.want)) != sizeof(W.want))
                        _exit(1);
                if (end == CLOSED)
                        (void)store_close(W.store);
                _exit(0);
        }
        close(fds[1]);
        for (size_t got = 0, n; got < sizeof(base.want); got += n) {
                n = (size_t)read(fds[0], (char *)base.want + got, sizeof(base.want) - got);
                ck_assert(n > 0 && n <= sizeof(base.want));
        }
        close(fds[0]);
        ck_assert(waitpid(pid, &status, 0) == pid && status == 0);
        each_file(load_file);
        W.boot = end == POWER_LOST ? "another machine" : NULL;
        W.random = seed() + end;
}

static void write_base(void) {
        each_file(remove_file);
        for (size_t i = 0; i < base.n; i++) {
                char path[256];
                snprintf(path, sizeof(path), "%s/%s", W.dir, base.files[i].name);
                int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
                ck_assert(fd >= 0 && ftruncate(fd, (off_t)base.files[i].size) == 0);
                ck_assert_int_eq(pwrite(fd, base.files[i].data, base.files[i].len, 0), (ssize_t)base.files[i].len);
                close(fd);
        }
        memcpy(W.want, base.want, sizeof(W.want));
}

static void done(void) {
        each_file(remove_file);
        ck_assert_int_eq(rmdir(W.dir), 0);
        for (size_t i = 0; i < base.n; i++)
                free(base.files[i].data);
}

/* ---- what is hit ---- */

typedef enum What { HEADER, RECORD, SEAL, UNUSED, HINT, MARKS, _WHAT_MAX } What;
static const char *const what_names[_WHAT_MAX] = { "headers", "records", "seals", "unused places", "hints", "marks" };

typedef struct Hit {
        const File *file;
        size_t byte, n_bytes; /* more than one: all their bits */
        int bit;
        What what;
        Record record;
        uint32_t at, n; /* of what it is in */
        bool is_last;   /* nothing behind it says that it is synced */
} Hit;

static uint32_t salt_of(const File *f) {
        uint32_t salt;
        memcpy(&salt, f->data + 24, sizeof(salt));
        return salt;
}

static void find_record(Hit *h) {
        const File *f = h->file;
        Record r;
        long n;
        h->what = UNUSED;
        for (uint32_t at = SEGMENT_HEADER; (n = record_read(f->data + at, f->size - at, salt_of(f), &r)) > 0;
             at += (uint32_t)n) {
                h->is_last = h->is_last && !(r.flags & RECORD_SYNCED) && r.kind != STORE_SEAL;
                if (h->byte >= at && h->byte < at + (uint32_t)n) {
                        h->what = r.kind == STORE_SEAL ? SEAL : RECORD;
                        h->record = r;
                        h->at = at;
                        h->n = (uint32_t)n;
                        h->is_last = true;
                }
                if (r.kind == STORE_SEAL)
                        return;
        }
}

static Hit hit(const File *f, size_t byte, int bit) {
        uint64_t number;
        Hit h = { .file = f, .byte = byte, .n_bytes = 1, .bit = bit };
        if (hint_parse_name(f->name, &number))
                h.what = HINT;
        else if (!segment_parse_name(f->name, &number))
                h.what = MARKS;
        else if (byte < SEGMENT_HEADER) {
                h.what = HEADER;
                h.n = SEGMENT_HEADER;
        } else
                find_record(&h);
        return h;
}

static char *flip(const Hit *h) {
        static char now[2 * SEGMENT], spoiled[512];
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", W.dir, h->file->name);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        for (size_t i = 0; i < h->n_bytes; i++)
                spoiled[i] = (char)(h->file->data[h->byte + i] ^ (h->n_bytes > 1 ? 0xff : 1 << h->bit));
        ck_assert(fd >= 0 && pwrite(fd, spoiled, h->n_bytes, (off_t)h->byte) == (ssize_t)h->n_bytes);
        close(fd);
        memcpy(now, h->file->data + h->at, h->n);
        if (h->n > 0)
                memcpy(now + (h->byte - h->at), spoiled, h->n_bytes);
        return now;
}

/* Is that still somewhere? */
static const char *wanted;
static size_t wanted_len;
static bool is_kept;
static void look_for(const char *path, const char *name) {
        static char data[4 * SEGMENT];
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, data, sizeof(data));
        close(fd);
        is_kept = is_kept || (n > 0 && memmem(data, (size_t)n, wanted, wanted_len));
}

static bool is_still_there(const char *data, size_t n) {
        while (n > 1 && data[n - 1] == 0)
                n--;
        wanted = data;
        wanted_len = n;
        is_kept = false;
        each_file(look_for);
        return is_kept;
}

/* ---- what is served ---- */

/* Bodies of tasks that were told by what they begin with. A task that compaction could not read is none any more. */
static unsigned fetch_all(void) {
        static StoreFetched tasks[SEQS];
        unsigned n_bad = 0;
        for (uint64_t q = 0; q < QUEUES; q++) {
                StoreFetch f = { .queue = q, .tasks = tasks };
                for (uint64_t seq = 1; seq < SEQS; seq++)
                        if (W.got[q].tasks[seq].there)
                                tasks[f.n++] = (StoreFetched) { .seq = seq };
                store_fetch_now(W.store, &f);
                for (size_t i = 0; i < f.n; i++) {
                        ModelTask *t = &W.got[q].tasks[tasks[i].seq];
                        int r = tasks[i].result;
                        expect(r == 0 || r == -EBADMSG || r == -ENOENT);
                        n_bad += r != 0;
                        t->there = r == 0;
                        t->lane = r == 0 ? tasks[i].lane : t->lane;
                        for (size_t k = 0; r == 0 && k < tasks[i].len; k++)
                                expect(f.data[tasks[i].at + k] == t->fill);
                }
                free(f.data);
        }
        return n_bad;
}

/* Of the task that was hit: what may have become of it. */
static bool is_fair(const Hit *h, const ModelTask *want, const ModelTask *got) {
        switch (h->what == RECORD ? h->record.kind : 0) {
        case STORE_TASK:
                return !got->there;
        case STORE_STATE: /* an earlier one took its place */
                return got->there && got->n == want->n && got->fill == want->fill;
        case STORE_END: /* it never runs again */
                return !got->there;
        default:
                return false;
        }
}

/* Returns whether anything is not as it was. */
static bool check_served(const Hit *h, const char *when) {
        bool some = false;
        for (unsigned i = 0; i < QUEUES; i++) {
                const ModelQueue *want = &W.want[i], *got = &W.got[i];
                ck_assert_msg(want->there == got->there &&
                                      want->definition == (want->there ? got->definition : want->definition),
                              "%s: queue %u, %s byte %zu bit %d", when, i, h->file->name, h->byte, h->bit);
                ck_assert_msg(want->last_seq == got->last_seq,
                              "%s: last SEQ of %u is %llu, not %llu, %s byte %zu bit %d", when, i,
                              (unsigned long long)got->last_seq, (unsigned long long)want->last_seq, h->file->name,
                              h->byte, h->bit);
                for (uint64_t seq = 0; seq < SEQS; seq++) {
                        bool same = is_same(&want->tasks[seq], &got->tasks[seq]) ||
                                    (!want->tasks[seq].there && !got->tasks[seq].there);
                        some = some || !same;
                        bool was_hit = h->record.queue == i && h->record.seq == seq;
                        if (!same && !(was_hit && is_fair(h, &want->tasks[seq], &got->tasks[seq])))
                                ck_abort_msg("%s, %s: task %u/%llu (there %d, want %d), %s byte %zu bit %d in %s of "
                                             "kind %d, %u/%llu",
                                             end_names[base.end], when, i, (unsigned long long)seq,
                                             got->tasks[seq].there, want->tasks[seq].there, h->file->name, h->byte,
                                             h->bit, what_names[h->what], (int)h->record.kind,
                                             (unsigned)h->record.queue, (unsigned long long)h->record.seq);
                }
        }
        return some;
}

static unsigned n_trials, n_told, n_untold[_WHAT_MAX], n_hits[_WHAT_MAX], n_lost;

/* Only what cannot be told from a write that was torn may go without a word. */
static bool may_be_untold(const Hit *h, const char *now) {
        static char sectors[2 * SEGMENT];
        if (base.end != POWER_LOST || h->what != RECORD || !h->is_last)
                return false;
        memcpy(sectors + h->at % TORN_SECTOR, now, h->n);
        return torn_by_power(sectors, h->at % TORN_SECTOR, h->at % TORN_SECTOR + h->n);
}

static void remove_hint(const char *path, const char *name) {
        uint64_t number;
        if (hint_parse_name(name, &number))
                remove_file(path, name);
}

/* All that eqd looks at in the file of what runs: the header, what is marked, and whether something is. */
static bool is_of_a_mark(const Hit *h) {
        enum { HEADER_SUMMED = 64, CHECK = 24, PROCESS = 32 };
        if (h->what != MARKS || h->byte < MARKS_HEADER)
                return h->what == MARKS && h->byte < HEADER_SUMMED;
        size_t row = (h->byte - MARKS_HEADER) / MARK_SIZE, at = (h->byte - MARKS_HEADER) % MARK_SIZE;
        return at < PROCESS && (at >= CHECK || row < base.n_running);
}

static void check_opened(const Hit *h, const char *now, bool all_read, const char *when) {
        StoreDamage d;
        unsigned told = W.n_damaged + W.n_noticed, n_bad = fetch_all();
        while (store_next_damage(W.store, &d)) {
                told++;
                W.n_damaged++;
                W.damaged_at = d.at;
                snprintf(W.damaged, sizeof(W.damaged), "%s", d.file);
        }
        bool some = check_served(h, when);
        bool must = some || n_bad > 0 || h->what == HEADER || h->what == HINT || is_of_a_mark(h) ||
                    ((h->what == RECORD || h->what == SEAL) && (all_read || h->is_last));
        if (must && !may_be_untold(h, now)) {
                ck_assert_msg(told > 0, "%s, %s: not told: %s byte %zu bit %d, %s of kind %d at %u",
                              end_names[base.end], when, h->file->name, h->byte, h->bit, what_names[h->what],
                              (int)h->record.kind, h->at);
                ck_assert_str_eq(h->what == HINT || h->what == MARKS ? W.noticed : W.damaged, h->file->name);
        }
        ck_assert_uint_eq(W.n_running, base.n_running); /* one wrong bit is mended */
        n_told += told > 0;
        n_untold[h->what] += told == 0;
        n_lost += some;
}

/* Until the segment that was hit has gone. */
static void compact_away(const Hit *h) {
        static char large[4000];
        char path[256];
        snprintf(path, sizeof(path), "%s/%s", W.dir, h->file->name);
        for (int i = 0; i < 5000 && access(path, F_OK) == 0; i++) {
                W.want[0].last_seq = SEQS - 1;
                ck_assert_int_eq(put(STORE_TASK, 0, SEQS - 1, 0, large, sizeof(large)), 0);
                forget(0, SEQS - 1);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        ck_assert_msg(access(path, F_OK) != 0, "%s stays", h->file->name);
}

/* Whoever came to it first: a start, a fetch or compaction. */
static void was_told_once(const Hit *h) {
        StoreDamage d;
        StoreStats stats;
        while (store_next_damage(W.store, &d)) {
                ck_assert_msg(W.n_damaged == 0 || d.at != W.damaged_at || strcmp(d.file, W.damaged) != 0,
                              "%s: told again: %s byte %zu bit %d, %s of kind %d at %u", end_names[base.end],
                              h->file->name, h->byte, h->bit, what_names[h->what], (int)h->record.kind, h->at);
                W.n_damaged++;
        }
        store_stats(W.store, &stats);
        ck_assert_uint_eq(stats.n_damaged, W.n_damaged);
}

static void trial(Hit h, bool all_read, bool compact) {
        write_base();
        if (all_read)
                each_file(remove_hint);
        if (all_read && h.what == HINT)
                return;
        const char *now = flip(&h);
        W.brief = !all_read;
        reopen();
        check_opened(&h, now, all_read, "opened");
        if (compact && h.what != HINT && h.what != MARKS) {
                compact_away(&h);
                was_told_once(&h);
                W.store = store_close(W.store);
                reopen();
                (void)fetch_all();
                (void)check_served(&h, "compacted");
        }
        W.store = store_close(W.store);
        if (h.what == HEADER || ((h.what == RECORD || h.what == SEAL) && !may_be_untold(&h, now) && !compact))
                ck_assert_msg(is_still_there(now, h.n), "%s: not kept: %s byte %zu bit %d, %s of kind %d",
                              end_names[base.end], h.file->name, h.byte, h.bit, what_names[h.what], (int)h.record.kind);
        if (!compact) {
                reopen();
                (void)fetch_all();
                (void)check_served(&h, "opened again");
                W.store = store_close(W.store);
        }
        n_trials++;
        n_hits[h.what]++;
}

static void report(void) {
        printf("# %s, seed %llu: %u bits flipped, %u told, %u with a task that is not as it was;", end_names[base.end],
               (unsigned long long)seed(), n_trials, n_told, n_lost);
        for (What w = 0; w < _WHAT_MAX; w++)
                printf(" %s %u (%u not told)%s", what_names[w], n_hits[w], n_untold[w], w + 1 < _WHAT_MAX ? "," : "\n");
}

/* ---- tests ---- */

/* Places in files that are mostly zeros would mostly hit those. */
static size_t any_byte(const File *f) {
        return dice(dice(10) == 0 ? f->size : f->len);
}

static void flip_anywhere(End end) {
        unsigned n = trials(300);
        make_base(end);
        for (unsigned i = 0; i < n; i++) {
                const File *f = &base.files[dice(base.n)];
                size_t byte = any_byte(f);
                trial(hit(f, byte, (int)dice(8)), i % 3 == 0, i % 10 == 0);
        }
        report();
        ck_assert_uint_ge(n_trials, n / 2);
        ck_assert_uint_gt(n_hits[RECORD], n / 5);
        ck_assert_uint_gt(n_hits[HINT], 0);
        ck_assert_uint_gt(n_lost, 0);
        done();
}

TEST(a_bit_anywhere_of_a_store_that_was_closed) {
        flip_anywhere(CLOSED);
}

TEST(a_bit_anywhere_of_a_store_that_was_killed) {
        flip_anywhere(KILLED);
}

TEST(a_bit_anywhere_of_a_store_that_lost_its_power) {
        flip_anywhere(POWER_LOST);
}

/* The first, one in the middle, and the last one, which is the one that nothing was written to in the first state. */
TEST(bytes_of_the_headers) {
        const size_t step = is_long() ? 1 : TEST_FEWER > 1 ? 8 : 4;
        for (End end = 0; end < _END_MAX; end++) {
                base.n = 0;
                make_base(end);
                for (size_t i = 0, k = 0; i < base.n; i++) {
                        uint64_t number;
                        bool is_log = segment_parse_name(base.files[i].name, &number);
                        if (!is_log && !hint_parse_name(base.files[i].name, &number))
                                continue;
                        k++;
                        for (size_t byte = k % step; byte < 64; byte += step)
                                trial(hit(&base.files[i], byte, (int)dice(8)), false, is_log && byte / step % 8 == 1);
                }
                report();
                done();
        }
        ck_assert_uint_ge(n_hits[HEADER], 3 * 3 * 64 / step);
        ck_assert_uint_ge(n_hits[HINT], 3 * 64 / step);
}

/* All of the commit that was promised last, and nothing says so. */
TEST(each_byte_of_the_end_of_a_log_that_was_killed) {
        for (End end = KILLED; end < _END_MAX; end++) {
                base.n = 0;
                make_base(end);
                const File *last = NULL;
                for (size_t i = 0; i < base.n; i++) {
                        uint64_t number;
                        if (segment_parse_name(base.files[i].name, &number) && base.files[i].len > SEGMENT_HEADER &&
                            (!last || strcmp(base.files[i].name, last->name) > 0))
                                last = &base.files[i];
                }
                ck_assert_ptr_nonnull(last);
                unsigned before = n_hits[RECORD];
                for (size_t byte = last->len - MIN(last->len - SEGMENT_HEADER, (size_t)GROUP * 60); byte < last->len;
                     byte += 3)
                        trial(hit(last, byte, (int)dice(8)), false, false);
                ck_assert_uint_ge(n_hits[RECORD] - before, 100);
                ck_assert(end != KILLED || n_untold[RECORD] == 0);
                report();
                done();
        }
}

/* ---- what is gone ---- */

/* Zeros from a record in its middle on, as if that had never been written. Returns where. */
static uint32_t cut_off(const File *f) {
        char path[256];
        Record r;
        uint32_t at = SEGMENT_HEADER;
        while (at < f->len / 2)
                at += (uint32_t)record_read(f->data + at, f->size - at, salt_of(f), &r);
        snprintf(path, sizeof(path), "%s/%s", W.dir, f->name);
        ck_assert(truncate(path, at) == 0 && truncate(path, (off_t)f->size) == 0);
        return at;
}

static const File *oldest_log(void) {
        const File *oldest = NULL;
        uint64_t number;
        for (size_t i = 0; i < base.n; i++)
                if (segment_parse_name(base.files[i].name, &number) &&
                    (!oldest || strcmp(base.files[i].name, oldest->name) < 0))
                        oldest = &base.files[i];
        return oldest;
}

/* At a start, whatever its hint says; compaction has nothing to add. */
TEST(what_the_end_of_a_sealed_segment_has_lost_is_told) {
        make_base(CLOSED);
        const File *f = oldest_log();
        for (int i = 0; i < 4; i++) {
                write_base();
                uint32_t at = cut_off(f);
                if (i % 2 == 0)
                        each_file(remove_hint);
                W.brief = i < 2;
                reopen();
                ck_assert_uint_eq(W.n_damaged, 1);
                ck_assert_str_eq(W.damaged, f->name);
                ck_assert_uint_eq(W.damaged_at, at);
                ck_assert_uint_eq(W.damaged_bytes, f->size - at);
                compact_away(&(Hit) { .file = f });
                was_told_once(&(Hit) { .file = f });
                W.store = store_close(W.store);
                reopen();
                ck_assert_uint_eq(W.n_damaged, 0);
                W.store = store_close(W.store);
        }
        done();
}

/* ---- one after the other ---- */

/* The first record of this kind behind *at that still says something, or of which nobody knows whether it does. */
static bool next_record(const File *f, StoreKind kind, uint32_t *at, Hit *ret) {
        Record r;
        uint64_t number;
        long size;
        if (!segment_parse_name(f->name, &number))
                return false;
        for (; (size = record_read(f->data + *at, f->size - *at, salt_of(f), &r)) > 0; *at += (uint32_t)size) {
                const ModelTask *t = &base.want[r.queue % QUEUES].tasks[r.seq % SEQS];
                char first = r.body.len > 0 ? *(const char *)r.body.data : 0;
                bool is_there = kind == STORE_QUEUE || kind == STORE_GONE ||
                                (t->there &&
                                 (kind == STORE_TASK ? t->fill == first : t->last == kind && t->last_fill == first));
                if (r.kind == kind && is_there) {
                        *ret = hit(f, *at, 0);
                        *at += (uint32_t)size;
                        return true;
                }
        }
        return false;
}

TEST(a_bit_of_the_record_of_a_queue_costs_nothing) {
        make_base(CLOSED);
        for (size_t i = 0; i < base.n; i++)
                for (StoreKind kind = STORE_QUEUE; kind <= STORE_GONE; kind++) {
                        Hit h;
                        unsigned n = 0;
                        for (uint32_t at = SEGMENT_HEADER; n < 8 && next_record(&base.files[i], kind, &at, &h); n++) {
                                h.byte = h.at + dice(h.n);
                                trial(h, n % 4 < 2, n % 2 == 0);
                        }
                }
        report();
        ck_assert_uint_ge(n_hits[RECORD], 20);
        ck_assert_uint_eq(n_lost, 0);
        done();
}

/* The only one there is of it, which the hint of its segment names: the body, with the name in it, is in the log. */
TEST(the_record_of_a_queue_behind_a_hint_costs_nothing_either) {
        char log[256], hint[256], c;
        begin(SEGMENT);
        put_queue(0, 'x');
        for (StoreStats stats = { 0 }; stats.newest < 3; store_stats(W.store, &stats)) {
                ck_assert_int_eq(put_group(0, 20), 0);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        W.store = store_close(W.store); /* makes all hints */
        snprintf(log, sizeof(log), "%s/log-%016x", W.dir, 1);
        snprintf(hint, sizeof(hint), "%s/hint-%016x", W.dir, 1);
        ck_assert_int_eq(access(hint, F_OK), 0);
        int fd = open(log, O_RDWR | O_CLOEXEC);
        off_t at = SEGMENT_HEADER + (off_t)record_size(4) + RECORD_HEADER; /* of the second of the two */
        ck_assert(fd >= 0 && pread(fd, &c, 1, at) == 1 && c == 2);
        ck_assert_int_eq(pwrite(fd, &(char) { 3 }, 1, at), 1);
        close(fd);
        reopen();
        ck_assert_uint_eq(W.n_damaged, 1);
        ck_assert_uint_eq(W.damaged_at, SEGMENT_HEADER + record_size(4));
        compare();
        end();
}

/* Damaged when it has been looked at: compaction is the last one that can tell. */
static void damage_while_open(Hit h) {
        StoreDamage d;
        bool told = false;
        write_base();
        W.brief = true;
        reopen();
        const char *now = flip(&h);
        compact_away(&h);
        while (store_next_damage(W.store, &d))
                told = told || strcmp(d.file, h.file->name) == 0;
        W.store = store_close(W.store);
        reopen();
        (void)fetch_all();
        bool some = check_served(&h, "damaged and compacted");
        ck_assert_msg(!some || (told && is_still_there(now, h.n)), "%s byte %zu, kind %d: told %d", h.file->name,
                      h.byte, (int)h.record.kind, told);
        W.store = store_close(W.store);
        n_trials++;
        n_told += told;
        n_lost += some;
}

TEST(damage_that_comes_later_is_found_before_its_segment_goes) {
        static const StoreKind kinds[] = { STORE_TASK, STORE_STATE, STORE_END };
        make_base(CLOSED);
        for (size_t i = 0; i < base.n; i++)
                for (size_t k = 0; k < 4; k++) { /* the last round: of tasks all of the header */
                        uint32_t at = SEGMENT_HEADER;
                        Hit h;
                        for (unsigned n = 0; n < 4 && next_record(&base.files[i], kinds[k % 3], &at, &h); n++) {
                                h.byte = h.at + (k == 3 ? 0 : dice(h.n));
                                h.n_bytes = k == 3 ? RECORD_HEADER : 1;
                                damage_while_open(h);
                        }
                }
        report();
        ck_assert_uint_ge(n_lost, 20);
        done();
}

/* ---- more than a bit ---- */

/* What a record was cannot be told: it is found when it is read, or before its segment goes. */
TEST(a_record_without_a_header_costs_only_itself) {
        make_base(CLOSED);
        for (size_t i = 0; i < base.n; i++) {
                uint32_t at = SEGMENT_HEADER;
                Hit h;
                for (unsigned n = 0; n < 6 && next_record(&base.files[i], STORE_TASK, &at, &h); n++) {
                        h.n_bytes = RECORD_HEADER;
                        trial(h, n % 2 == 0, n % 4 < 2);
                }
        }
        report();
        ck_assert_uint_ge(n_hits[RECORD], 15);
        ck_assert_uint_ge(n_lost, 15);
        done();
}

TEST(a_header_that_is_gone_costs_nothing) {
        for (End end = 0; end < _END_MAX; end++) {
                base.n = 0;
                make_base(end);
                for (size_t i = 0; i < base.n; i++) {
                        uint64_t number;
                        if (!segment_parse_name(base.files[i].name, &number) || base.files[i].len <= SEGMENT_HEADER)
                                continue;
                        for (size_t n = SEGMENT_HEADER; n > 1; n /= 2) {
                                Hit h = hit(&base.files[i], n < 16 ? 16 : SEGMENT_HEADER - n, 0);
                                h.n_bytes = n;
                                trial(h, false, n == SEGMENT_HEADER);
                        }
                }
                report();
                done();
        }
        ck_assert_uint_ge(n_hits[HEADER], 3 * 6 * 3);
}

/* A start, and compaction, which has no space to go on behind it: each time that it tries again. */
TEST(damage_is_told_once_however_often_somebody_comes_to_it) {
        static const char large[4000];
        StoreDamage d;
        StoreStats stats;
        uint64_t durable;
        begin(SEGMENT);
        put_queue(0, 'a');
        W.want[0].last_seq = SEQS - 1;
        for (size_t n = 0; n < SEGMENT; n += sizeof(large)) { /* until there is a second segment */
                ck_assert_int_eq(put(STORE_TASK, 0, SEQS - 1, 0, large, sizeof(large)), 0);
                forget(0, SEQS - 1);
                ck_assert_int_eq(commit(), STORE_GOOD);
        }
        W.store = store_close(W.store);
        each_file(load_file);
        const File *first = NULL;
        for (size_t i = 0; i < base.n; i++)
                if (strncmp(base.files[i].name, "log-", 4) == 0 &&
                    (!first || strcmp(base.files[i].name, first->name) < 0))
                        first = &base.files[i];
        ck_assert_ptr_nonnull(first);
        Hit h = hit(first, SEGMENT_HEADER + record_size(4) + RECORD_HEADER, 0); /* the second one of the queue's */
        ck_assert_int_eq(h.record.kind, STORE_QUEUE);
        (void)flip(&h);
        each_file(remove_hint);
        reopen();
        ck_assert_uint_eq(W.n_damaged, 1);
        fault_set(FAULT_SPACE, 1, true);
        for (size_t n = 0; n < SEGMENT / 5 * 4; n += sizeof(large)) /* of the reserve nothing is left for copies */
                ck_assert_int_eq(put(STORE_TASK, 0, SEQS - 1, 0, large, sizeof(large)), 0);
        (void)commit();
        for (int i = 0; i < 20; i++) {
                forget(0, SEQS - 1);
                ck_assert_int_eq(commit(), STORE_FULL);
                ck_assert(!store_next_damage(W.store, &d));
        }
        store_stats(W.store, &stats);
        ck_assert_uint_eq(stats.oldest, 1); /* it has tried */
        ck_assert_uint_eq(stats.n_damaged, 1);
        fault_set(FAULT_SPACE, 0, false);
        while (store_health(W.store) == STORE_FULL)
                (void)wait_event(&durable);
        compact_away(&h);
        ck_assert(!store_next_damage(W.store, &d));
        W.store = store_close(W.store);
        reopen();
        ck_assert_uint_eq(W.n_damaged, 0);
        ck_assert(W.got[0].there && W.got[0].definition == 'a');
        W.store = store_close(W.store);
        done();
}

RUN_TESTS("damage", 240, test_a_bit_anywhere_of_a_store_that_was_closed, test_a_bit_anywhere_of_a_store_that_was_killed,
          test_a_bit_anywhere_of_a_store_that_lost_its_power, test_bytes_of_the_headers,
          test_each_byte_of_the_end_of_a_log_that_was_killed, test_what_the_end_of_a_sealed_segment_has_lost_is_told,
          test_a_record_without_a_header_costs_only_itself, test_a_bit_of_the_record_of_a_queue_costs_nothing,
          test_the_record_of_a_queue_behind_a_hint_costs_nothing_either,
          test_damage_that_comes_later_is_found_before_its_segment_goes, test_a_header_that_is_gone_costs_nothing,
          test_damage_is_told_once_however_often_somebody_comes_to_it)
