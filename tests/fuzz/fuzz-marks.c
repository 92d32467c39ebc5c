/* SPDX-License-Identifier: MIT */
/* The file of what runs, as it is when an eqd starts. Of the first byte bit 0 says whether the rest is its beginning, as it lies
 * there, or what was written over rows of one that is in order: number of the row (a byte), what to add to that row byte by byte.
 * Rows 0 to 3 are of runs; the others are empty.
 *
 * Whatever it is: it is refused, and not a byte of it changes; or the store opens, what is told are runs with a right sum, or one
 * bit away from that, and processes that could be; and once the marks were taken away, nothing is told any more. */

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/marks.h"
#include "target.h"
#include "workdir.h"

enum { RUNS = 4, ROWS = 8, TOLD_MAX = 128, SEGMENT_SIZE = 64 * 1024 };

typedef struct Told {
        unsigned n, n_lost, n_damaged;
} Told;

static int on_running(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt) {
        ((Told *)userdata)->n++;
        return 0;
}

static int on_mark_damaged(void *userdata, StoreMarkDamage what, int slot, uint64_t queue, uint64_t seq) {
        Told *t = userdata;
        FUZZ_CHECK((slot == STORE_MARK_NONE) == (what == STORE_MARK_HEADER || what == STORE_MARK_HEADER_MENDED));
        FUZZ_CHECK(slot >= -1 && slot < STORE_MARKS);
        t->n_lost += what == STORE_MARK_LOST;
        t->n_damaged++;
        return 0;
}

static int on_done(void *userdata) {
        return 0;
}

static const StoreReader reader = { .running = on_running, .mark_damaged = on_mark_damaged, .done = on_done };

/* Without marks that were found, or with them. */
static int open_store(bool keep, Told *told, Store **ret) {
        char error[256];
        StoreConfig config = { .dir = work_dir, .segment_size = SEGMENT_SIZE, .keep_marks = keep };
        *told = (Told) { 0 };
        return store_open(&config, &reader, told, error, sizeof(error), ret);
}

static int open_running(void) {
        char path[sizeof(work_dir) + sizeof("/running")];
        snprintf(path, sizeof(path), "%s/running", work_dir);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        FUZZ_CHECK(fd >= 0);
        return fd;
}

static void make_file(void) {
        Told told;
        Store *s;
        if (!work_dir[0])
                work_dir_make();
        work_dir_empty();
        FUZZ_CHECK(open_store(true, &told, &s) == 0);
        for (uint64_t i = 0; i < RUNS; i++) {
                int slot = store_mark(s, 1, i + 1, 1);
                FUZZ_CHECK(slot == (int)i); /* the places in order */
                store_mark_process(s, slot, &(StoreProcess) { .pid = 100 + (pid_t)i, .start_ticks = 1000 + i });
        }
        store_close(s);
}

static void spoil_rows(int fd, const uint8_t *data, size_t size) {
        for (; size > 1; data += 1 + MARK_SIZE, size -= 1 + MARK_SIZE) {
                uint8_t row[MARK_SIZE];
                off_t at = MARKS_HEADER + (data[0] % ROWS) * MARK_SIZE;
                FUZZ_CHECK(pread(fd, row, sizeof(row), at) == sizeof(row));
                for (size_t i = 0; i < MARK_SIZE && i + 1 < size; i++)
                        row[i] ^= data[1 + i];
                FUZZ_CHECK(pwrite(fd, row, sizeof(row), at) == sizeof(row));
                if (size <= 1 + MARK_SIZE)
                        return;
        }
}

static void spoil_beginning(int fd, const uint8_t *data, size_t size) {
        FUZZ_CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
        if (size > 0 && data[0] != 'E') /* it may be short as well */
                FUZZ_CHECK(ftruncate(fd, (off_t)size) == 0);
}

static void look_at_processes(void) {
        StoreLeftovers l;
        if (store_leftovers(work_dir, NULL, &l) == 0)
                for (size_t i = 0; i < l.n; i++)
                        FUZZ_CHECK(l.runs[i].process.pid > 0);
        for (int i = 0; i < STORE_SPAWNER; i++)
                FUZZ_CHECK(l.spawner[i].pid >= 0);
        free(l.runs);
}

static void check_unchanged(int fd, const struct stat *before, const char *bytes, size_t n) {
        char now[MARKS_HEADER];
        struct stat after;
        FUZZ_CHECK(fstat(fd, &after) == 0 && after.st_size == before->st_size);
        FUZZ_CHECK(pread(fd, now, sizeof(now), 0) == (ssize_t)n && memcmp(now, bytes, n) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        char bytes[MARKS_HEADER];
        struct stat before;
        Told told, again;
        Store *s;
        if (size == 0)
                return 0;
        make_file();
        int fd = open_running();
        if (data[0] & 1)
                spoil_beginning(fd, data + 1, size - 1);
        else
                spoil_rows(fd, data + 1, size - 1);
        ssize_t n = pread(fd, bytes, sizeof(bytes), 0);
        FUZZ_CHECK(n >= 0 && fstat(fd, &before) == 0);
        look_at_processes();
        int r = open_store(true, &told, &s);
        if (r < 0) {
                FUZZ_CHECK(r == -EBADMSG || r == -EPROTONOSUPPORT);
                check_unchanged(fd, &before, bytes, (size_t)n);
                close(fd);
                return 0;
        }
        close(fd);
        store_close(s);
        FUZZ_CHECK(told.n + told.n_lost <= TOLD_MAX);
        FUZZ_CHECK(open_store(false, &again, &s) == 0); /* the header may have been mended, what ran is the same */
        FUZZ_CHECK(again.n == told.n && again.n_lost == told.n_lost);
        store_close(s);
        FUZZ_CHECK(open_store(false, &again, &s) == 0);
        FUZZ_CHECK(again.n == 0 && again.n_damaged == 0);
        store_close(s);
        return 0;
}
