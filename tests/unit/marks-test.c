/* SPDX-License-Identifier: MIT */
/* The file of what runs: each of its fields, and what becomes of it when a bit of them is wrong, when the machine was started anew,
 * when it is somebody else's. */
#include "store/marks.h"

#include "store-world.h"

enum { RUN_BITS = 256, QUEUE = 0, SEQ = 7, ATTEMPT = 3 };

static const StoreProcess child = { .pid = 4711, .start_ticks = 123456 };
static const StoreProcess spawner[STORE_SPAWNER] = { { .pid = 11, .start_ticks = 22 },
                                                     { .pid = 33, .start_ticks = 44 } };
static const char other_boot[16] = "another boot id";

typedef struct Told {
        unsigned n, n_damaged;
        uint64_t queue, seq;
        uint32_t attempt;
        StoreMarkDamage what;
        int slot;
} Told;

static int tell_running(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt) {
        Told *t = userdata;
        t->n++;
        t->queue = queue;
        t->seq = seq;
        t->attempt = attempt;
        return 0;
}

static int tell_damage(void *userdata, StoreMarkDamage what, int slot, uint64_t queue, uint64_t seq) {
        Told *t = userdata;
        t->n_damaged++;
        t->what = what;
        t->slot = slot;
        return 0;
}

static int open_told(Told *told, const char *boot) {
        const StoreReader teller = { .running = tell_running,
                                     .mark_damaged = tell_damage,
                                     .queue = on_queue,
                                     .gone = on_gone,
                                     .task = on_task,
                                     .done = on_done,
                                     .damaged = on_damaged };
        const StoreConfig config = { .dir = W.dir, .segment_size = SEGMENT, .boot = boot, .keep_marks = true };
        *told = (Told) { 0 };
        memset(W.got, 0, sizeof(W.got));
        return store_open(&config, &teller, told, W.error, sizeof(W.error), &W.store);
}

static int open_running(int flags) {
        char path[sizeof(W.dir) + sizeof("/running")];
        snprintf(path, sizeof(path), "%s/running", W.dir);
        int fd = open(path, flags | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        return fd;
}

static void get_at(uint64_t at, void *data, size_t n) {
        int fd = open_running(O_RDONLY);
        ck_assert_int_eq(pread(fd, data, n, (off_t)at), (ssize_t)n);
        close(fd);
}

static void put_at(uint64_t at, const void *data, size_t n) {
        int fd = open_running(O_RDWR);
        ck_assert_int_eq(pwrite(fd, data, n, (off_t)at), (ssize_t)n);
        close(fd);
}

static void flip(uint64_t bit) {
        unsigned char byte;
        get_at(bit / 8, &byte, 1);
        byte ^= (unsigned char)(1U << bit % 8);
        put_at(bit / 8, &byte, 1);
}

/* A closed store with one mark in it; *ret_at: where its row is. */
static int begin_marked(const StoreProcess *p, uint64_t *ret_at) {
        begin(SEGMENT);
        int slot = store_mark(W.store, QUEUE, SEQ, ATTEMPT);
        if (p)
                store_mark_process(W.store, slot, p);
        store_note_spawner(W.store, spawner);
        W.store = store_close(W.store);
        *ret_at = MARKS_HEADER + (uint64_t)slot * MARK_SIZE;
        return slot;
}

static StoreLeftovers leftovers(const char *boot) {
        StoreLeftovers l;
        ck_assert_int_eq(store_leftovers(W.dir, boot, &l), 0);
        return l;
}

static void end_marked(void) {
        if (!W.store) {
                reopen();
                store_unmark_found(W.store);
        }
        end();
}

TEST(a_mark_tells_of_the_run_and_of_its_process) {
        uint64_t at;
        Told told;
        begin_marked(&child, &at);
        StoreLeftovers l = leftovers(NULL);
        ck_assert_uint_eq(l.n, 1);
        ck_assert_uint_eq(l.runs[0].queue, QUEUE);
        ck_assert_uint_eq(l.runs[0].seq, SEQ);
        ck_assert_uint_eq(l.runs[0].attempt, ATTEMPT);
        ck_assert_int_eq(l.runs[0].process.pid, child.pid);
        ck_assert_uint_eq(l.runs[0].process.start_ticks, child.start_ticks);
        ck_assert_mem_eq(l.spawner, spawner, sizeof(spawner));
        free(l.runs);
        ck_assert_int_eq(open_told(&told, NULL), 0);
        ck_assert_uint_eq(told.n, 1);
        ck_assert_uint_eq(told.queue, QUEUE);
        ck_assert_uint_eq(told.seq, SEQ);
        ck_assert_uint_eq(told.attempt, ATTEMPT);
        ck_assert_uint_eq(told.n_damaged, 0);
        end_marked();
}

/* The process of the run before in that place is none of the next one. */
TEST(the_next_run_in_a_place_begins_without_a_process) {
        begin(SEGMENT);
        int slot = store_mark(W.store, QUEUE, SEQ, ATTEMPT);
        store_mark_process(W.store, slot, &child);
        store_unmark(W.store, slot);
        ck_assert_uint_eq(leftovers(NULL).n, 0);
        ck_assert_int_eq(store_mark(W.store, QUEUE, SEQ + 1, 1), slot);
        StoreLeftovers l = leftovers(NULL);
        ck_assert_uint_eq(l.n, 0);
        store_mark_process(W.store, slot, &(StoreProcess) { .pid = child.pid }); /* when it began is hidden */
        ck_assert_uint_eq(leftovers(NULL).n, 0);
        store_unmark(W.store, slot);
        end();
}

TEST(a_mark_that_is_ready_counts_from_when_its_word_is_stored) {
        _Atomic uint64_t *word;
        uint64_t value;
        Told told;
        begin(SEGMENT);
        int slot = store_mark_ready(W.store, QUEUE, SEQ, ATTEMPT, &word, &value);
        ck_assert_int_ne(slot, STORE_MARK_NONE);
        W.store = store_close(W.store);
        ck_assert_int_eq(open_told(&told, NULL), 0);
        ck_assert_uint_eq(told.n + told.n_damaged, 0);
        (void)store_mark_ready(W.store, QUEUE, SEQ, ATTEMPT, &word, &value);
        *word = value;
        W.store = store_close(W.store);
        ck_assert_int_eq(open_told(&told, NULL), 0);
        ck_assert_uint_eq(told.n, 1);
        ck_assert_uint_eq(told.attempt, ATTEMPT);
        W.store = store_close(W.store);
        end_marked();
}

TEST(after_another_boot_runs_are_told_and_no_process_is) {
        uint64_t at;
        Told told;
        begin_marked(&child, &at);
        StoreLeftovers l = leftovers(other_boot);
        ck_assert_uint_eq(l.n, 0);
        ck_assert_int_eq(l.spawner[0].pid, 0);
        ck_assert_int_eq(open_told(&told, other_boot), 0);
        ck_assert_uint_eq(told.n, 1);
        ck_assert_uint_eq(told.n_damaged, 0);
        ck_assert_uint_eq(leftovers(other_boot).n,
                          0); /* nor is it taken for one of the new boot, should this eqd be killed */
        ck_assert_uint_eq(leftovers(NULL).n, 0);
        W.store = store_close(W.store);
        end_marked();
}

TEST(one_wrong_bit_of_a_mark_is_told_and_mended) {
        uint64_t at;
        Told told;
        int slot = begin_marked(&child, &at);
        for (uint64_t bit = 0; bit < RUN_BITS; bit++) {
                flip(at * 8 + bit);
                StoreLeftovers l = leftovers(NULL);
                ck_assert_uint_eq(l.n, 1);
                ck_assert_uint_eq(l.runs[0].seq, SEQ);
                free(l.runs);
                ck_assert_int_eq(open_told(&told, NULL), 0);
                ck_assert_msg(told.n == 1 && told.seq == SEQ && told.attempt == ATTEMPT, "bit %ju", (uintmax_t)bit);
                ck_assert_msg(told.n_damaged == 1 && told.what == STORE_MARK_MENDED, "bit %ju", (uintmax_t)bit);
                ck_assert_int_eq(told.slot, slot);
                W.store = store_close(W.store);
                flip(at * 8 + bit);
        }
        end_marked();
}

TEST(a_mark_with_more_wrong_bits_is_told_as_lost) {
        uint64_t at;
        Told told;
        begin_marked(&child, &at);
        for (uint64_t bit = 0; bit + 21 < RUN_BITS; bit++) {
                flip(at * 8 + bit);
                flip(at * 8 + bit + 21);
                ck_assert_uint_eq(leftovers(NULL).n, 0);
                ck_assert_int_eq(open_told(&told, NULL), 0);
                ck_assert_msg(told.n == 0 && told.n_damaged == 1 && told.what == STORE_MARK_LOST, "bit %ju",
                              (uintmax_t)bit);
                W.store = store_close(W.store);
                flip(at * 8 + bit);
                flip(at * 8 + bit + 21);
        }
        end_marked();
}

/* Whatever is wrong with it: the run counts, and nobody is taken for its process. */
TEST(a_process_with_a_wrong_bit_is_told_and_is_none) {
        uint64_t at;
        Told told;
        begin_marked(&child, &at);
        for (uint64_t bit = RUN_BITS; bit < RUN_BITS + 192; bit++) {
                flip(at * 8 + bit);
                ck_assert_uint_eq(leftovers(NULL).n, 0);
                ck_assert_int_eq(open_told(&told, NULL), 0);
                ck_assert_uint_eq(told.n, 1);
                ck_assert_msg(told.n_damaged == 1 && told.what == STORE_MARK_PROCESS, "bit %ju", (uintmax_t)bit);
                W.store = store_close(W.store);
                flip(at * 8 + bit);
        }
        end_marked();
}

TEST(a_wrong_bit_where_nothing_is_marked_is_told_and_marks_nothing) {
        Told told;
        begin(SEGMENT);
        W.store = store_close(W.store);
        for (uint64_t bit = 192; bit < RUN_BITS; bit++) {
                flip(MARKS_HEADER * 8 + bit);
                ck_assert_int_eq(open_told(&told, NULL), 0);
                ck_assert_msg(told.n == 0 && told.n_damaged == 1 && told.what == STORE_MARK_NOTHING, "bit %ju",
                              (uintmax_t)bit);
                store_unmark_found(W.store); /* and is gone with the others */
                W.store = store_close(W.store);
                ck_assert_int_eq(open_told(&told, NULL), 0);
                ck_assert_uint_eq(told.n_damaged, 0);
                W.store = store_close(W.store);
        }
        end_marked();
}

/* Opens with these bits of the header wrong, and once more; then all is as it was. */
static void open_with_header(uint64_t at, uint64_t a, uint64_t b, StoreMarkDamage what, unsigned n_left) {
        Told told;
        unsigned char header[MARKS_HEADER], row[MARK_SIZE];
        get_at(0, header, sizeof(header));
        get_at(at, row, sizeof(row));
        flip(a);
        if (b != a)
                flip(b);
        StoreLeftovers l = leftovers(NULL);
        free(l.runs);
        ck_assert_msg(l.n == n_left, "bits %ju %ju", (uintmax_t)a, (uintmax_t)b);
        ck_assert_int_eq(l.spawner[0].pid, n_left > 0 ? spawner[0].pid : 0);
        ck_assert_msg(open_told(&told, NULL) == 0, "bits %ju %ju: %s", (uintmax_t)a, (uintmax_t)b, W.error);
        ck_assert_uint_eq(told.n, 1);
        ck_assert_msg(told.n_damaged == 1 && told.what == what, "bits %ju %ju", (uintmax_t)a, (uintmax_t)b);
        ck_assert_int_eq(told.slot, STORE_MARK_NONE);
        W.store = store_close(W.store);
        l = leftovers(NULL);
        free(l.runs);
        ck_assert_uint_eq(l.n, n_left); /* the processes of a mended one are still its own */
        ck_assert_int_eq(open_told(&told, NULL), 0);
        ck_assert_uint_eq(told.n_damaged, 0);
        W.store = store_close(W.store);
        put_at(0, header, sizeof(header));
        put_at(at, row, sizeof(row));
}

TEST(one_wrong_bit_of_the_header_is_told_and_mended) {
        uint64_t at;
        begin_marked(&child, &at);
        for (uint64_t bit = 0; bit < 512; bit++)
                open_with_header(at, bit, bit, STORE_MARK_HEADER_MENDED, 1);
        end_marked();
}

TEST(a_damaged_header_is_told_and_the_runs_are_served_without_their_processes) {
        uint64_t at;
        begin_marked(&child, &at);
        for (uint64_t bit = 64; bit + 21 < 512; bit++)
                open_with_header(at, bit, bit + 21, STORE_MARK_HEADER, 0);
        end_marked();
}

/* ---- what is refused ---- */

static void check_refused(int error, const char *says) {
        struct stat before, after;
        Told told;
        StoreLeftovers l;
        int fd = open_running(O_RDONLY);
        ck_assert_int_eq(fstat(fd, &before), 0);
        char *bytes = calloc(1, (size_t)before.st_size + 1), *again = calloc(1, (size_t)before.st_size + 1);
        ck_assert_int_eq(pread(fd, bytes, (size_t)before.st_size, 0), before.st_size);
        ck_assert_int_eq(store_leftovers(W.dir, NULL, &l), error);
        ck_assert_uint_eq(l.n, 0);
        ck_assert_int_eq(open_told(&told, NULL), error);
        ck_assert_ptr_nonnull(strstr(W.error, "/running"));
        ck_assert_msg(strstr(W.error, says) != NULL, "%s", W.error);
        ck_assert_int_eq(fstat(fd, &after), 0);
        ck_assert_int_eq(after.st_size, before.st_size);
        ck_assert_int_eq(pread(fd, again, (size_t)after.st_size, 0), after.st_size);
        ck_assert_mem_eq(bytes, again, (size_t)before.st_size);
        free(bytes);
        free(again);
        close(fd);
        W.store = NULL;
}

static uint32_t sum_of_header(unsigned char *header) {
        memset(header + 12, 0, 4);
        uint32_t crc = ~0U;
        for (int i = 0; i < 64; i++) {
                crc ^= header[i];
                for (int k = 0; k < 8; k++)
                        crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78U : 0);
        }
        return ~crc;
}

/* The sum is the same in all versions, so this is no damage. */
static void put_header(uint32_t version, uint32_t n_rows, uint32_t row_size) {
        unsigned char header[MARKS_HEADER];
        get_at(0, header, sizeof(header));
        memcpy(header + 8, &version, 4);
        memcpy(header + 16, &n_rows, 4);
        memcpy(header + 20, &row_size, 4);
        uint32_t crc = sum_of_header(header);
        memcpy(header + 12, &crc, 4);
        put_at(0, header, sizeof(header));
}

TEST(foreign_and_later_files_are_refused_and_left_alone) {
        uint64_t at;
        begin_marked(&child, &at);
        put_header(MARKS_VERSION + 1, STORE_MARKS, MARK_SIZE);
        check_refused(-EPROTONOSUPPORT, "of another version of eqd");
        put_header(MARKS_VERSION, STORE_MARKS * 2, MARK_SIZE / 2);
        check_refused(-EBADMSG, "move it away");
        put_header(MARKS_VERSION, STORE_MARKS, MARK_SIZE);
        flip(3 * 8);
        flip(4 * 8);
        check_refused(-EBADMSG, "move it away");
        flip(3 * 8);
        flip(4 * 8);
        int fd = open_running(O_RDWR);
        for (off_t size = (off_t)MARKS_FILE_SIZE + 1; size >= 0; size = size > 64 ? size / 2 : size - 64) {
                if (size == (off_t)MARKS_FILE_SIZE)
                        continue;
                ck_assert_int_eq(ftruncate(fd, size), 0);
                check_refused(-EBADMSG, "move it away");
        }
        close(fd);
        char path[sizeof(W.dir) + sizeof("/running")];
        snprintf(path, sizeof(path), "%s/running", W.dir);
        ck_assert_int_eq(unlink(path), 0);
        reopen(); /* without it */
        end();
}

TEST(what_is_no_file_is_refused) {
        Told told;
        char path[sizeof(W.dir) + sizeof("/running")];
        begin(SEGMENT);
        W.store = store_close(W.store);
        snprintf(path, sizeof(path), "%s/running", W.dir);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(symlink("/dev/null", path), 0);
        ck_assert_int_eq(open_told(&told, NULL), -EBADMSG);
        ck_assert_int_eq(unlink(path), 0);
        ck_assert_int_eq(mkdir(path, 0700), 0);
        ck_assert_int_eq(open_told(&told, NULL), -EBADMSG);
        ck_assert_int_eq(rmdir(path), 0);
        ck_assert_int_eq(mkfifo(path, 0600), 0);
        ck_assert_int_eq(open_told(&told, NULL), -EBADMSG);
        ck_assert_int_eq(unlink(path), 0);
        reopen();
        end();
}

/* ---- calls that fail ---- */

/* Each of what making the file needs; it is then made at the next try. */
TEST(a_file_that_cannot_be_made_is_none_and_no_start) {
        static const struct {
                FaultSeam seam;
                int error;
        } rows[] = { { FAULT_SPACE, -ENOSPC }, { FAULT_WRITE, -EIO }, { FAULT_SYNC, -EIO }, { FAULT_READ, -EIO } };
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                Told told;
                char path[sizeof(W.dir) + sizeof("/running")];
                begin(SEGMENT);
                W.store = store_close(W.store);
                snprintf(path, sizeof(path), "%s/running", W.dir);
                ck_assert_int_eq(unlink(path), 0);
                fault_set(rows[i].seam, 1, false);
                ck_assert_int_eq(open_told(&told, NULL), rows[i].error);
                fault_set(rows[i].seam, 0, false);
                reopen();
                end();
        }
}

/* As a copy of it may have. On a full disk the first mark in one was a SIGBUS. */
TEST(holes_of_the_file_are_filled_or_there_is_no_start) {
        char path[sizeof(W.dir) + sizeof("/running")];
        struct stat st;
        Told told;
        begin(SEGMENT);
        W.store = store_close(W.store);
        snprintf(path, sizeof(path), "%s/running", W.dir);
        ck_assert_int_eq(truncate(path, MARKS_HEADER), 0);
        ck_assert_int_eq(truncate(path, MARKS_FILE_SIZE), 0);
        fault_set(FAULT_SPACE, 1, true);
        ck_assert_int_eq(open_told(&told, NULL), -ENOSPC);
        ck_assert_msg(strstr(W.error, "/running, which tells what runs, has no space; make room") != NULL, "%s",
                      W.error);
        W.store = NULL;
        fault_set(FAULT_SPACE, 0, false);
        reopen();
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_int_ge(st.st_blocks * 512, MARKS_FILE_SIZE);
        W.store = store_close(W.store);
        fault_set(FAULT_SPACE, 1, true); /* one without holes needs none */
        reopen();
        fault_set(FAULT_SPACE, 0, false);
        end();
}

TEST(a_file_where_it_is_made_goes_only_if_it_is_one) {
        static const struct {
                const char *bytes;
                int result;
        } rows[] = { { "somebody's words", -EEXIST }, { "", 0 }, { "EQDM", 0 } };
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                Told told;
                char path[sizeof(W.dir) + sizeof("/new-running")], is[64] = "";
                begin(SEGMENT);
                W.store = store_close(W.store);
                snprintf(path, sizeof(path), "%s/running", W.dir);
                ck_assert_int_eq(unlink(path), 0);
                snprintf(path, sizeof(path), "%s/new-running", W.dir);
                FILE *f = fopen(path, "we");
                fputs(rows[i].bytes, f);
                fclose(f);
                ck_assert_int_eq(open_told(&told, NULL), rows[i].result);
                if (rows[i].result < 0) {
                        ck_assert_ptr_nonnull(strstr(W.error, "new-running"));
                        f = fopen(path, "re");
                        ck_assert_ptr_nonnull(fgets(is, sizeof(is), f));
                        fclose(f);
                        ck_assert_str_eq(is, rows[i].bytes);
                        ck_assert_int_eq(unlink(path), 0);
                        W.store = NULL;
                        reopen();
                }
                end();
        }
}

TEST(memory_running_out_leaves_the_marks_as_they_are) {
        uint64_t at;
        Told told;
        StoreLeftovers l;
        begin_marked(&child, &at);
        for (int n = 1; n <= 2; n++) {
                fault_set(FAULT_ALLOC, n, false);
                ck_assert_int_eq(store_leftovers(W.dir, NULL, &l), -ENOMEM);
                free(l.runs);
        }
        fault_set(FAULT_READ, 1, false);
        ck_assert_int_eq(store_leftovers(W.dir, NULL, &l), -EIO);
        for (int n = 1; n <= 5; n++) {
                fault_set(FAULT_ALLOC, n, false);
                ck_assert_int_eq(open_told(&told, NULL), -ENOMEM);
        }
        fault_set(FAULT_ALLOC, 0, false);
        ck_assert_int_eq(open_told(&told, NULL), 0);
        ck_assert_uint_eq(told.n, 1);
        W.store = store_close(W.store);
        end_marked();
}

TEST(without_a_store_nothing_is_left) {
        StoreLeftovers l;
        ck_assert_int_eq(store_leftovers("/nonexistent/eqd", NULL, &l), 0);
        ck_assert_uint_eq(l.n, 0);
}

/* What came of a run is on the disk before its mark goes: who unmarks asks first. */
TEST(settling_says_whether_everything_is_on_the_disk) {
        begin(SEGMENT);
        put_queue(0, 'x');
        ck_assert_int_eq(store_settle(W.store), 0);
        fault_set(FAULT_SYNC, 1, false);
        ck_assert_int_eq(put_task(0), 0);
        ck_assert_int_eq(store_settle(W.store), -EIO);
        ck_assert_int_eq(store_settle(W.store), -EIO);
        fault_set(FAULT_SYNC, 0, false);
        W.store = store_close(W.store);
        reopen();
        end();
}

RUN_TESTS("marks", 120, test_a_mark_tells_of_the_run_and_of_its_process,
          test_the_next_run_in_a_place_begins_without_a_process,
          test_a_mark_that_is_ready_counts_from_when_its_word_is_stored,
          test_after_another_boot_runs_are_told_and_no_process_is, test_one_wrong_bit_of_a_mark_is_told_and_mended,
          test_a_mark_with_more_wrong_bits_is_told_as_lost, test_a_process_with_a_wrong_bit_is_told_and_is_none,
          test_a_wrong_bit_where_nothing_is_marked_is_told_and_marks_nothing,
          test_one_wrong_bit_of_the_header_is_told_and_mended, test_holes_of_the_file_are_filled_or_there_is_no_start,
          test_a_file_where_it_is_made_goes_only_if_it_is_one,
          test_a_damaged_header_is_told_and_the_runs_are_served_without_their_processes,
          test_foreign_and_later_files_are_refused_and_left_alone, test_what_is_no_file_is_refused,
          test_a_file_that_cannot_be_made_is_none_and_no_start, test_memory_running_out_leaves_the_marks_as_they_are,
          test_without_a_store_nothing_is_left, test_settling_says_whether_everything_is_on_the_disk)
