/* SPDX-License-Identifier: MIT */
#include "store/marks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/crc32c.h"

static const char magic[8] = { 'E', 'Q', 'D', 'M', 'A', 'R', 'K', 'S' };
static const char name[] = "running", new_name[] = "new-running";
#define SOMETHING (UINT64_C(0x6d61726b) << 32) /* upper half of a check word; many bits away from 0 */

typedef struct Process {
        uint32_t pid, zero;
        uint64_t start_ticks;
        _Atomic uint64_t check;
} Process;

typedef struct Row {
        uint64_t queue, seq;
        uint32_t attempt, zero;
        _Atomic uint64_t check;
        Process process;
        uint64_t zeros;
} Row;
_Static_assert(sizeof(Row) == MARK_SIZE, "a row has a fixed size");

typedef struct Header {
        char magic[8];
        uint32_t version, crc, n_rows, row_size;
        uint64_t zero;
        SegmentBoot boot;
        char zeros[16];
        Process spawner[STORE_SPAWNER];
        char more_zeros[16];
} Header;
_Static_assert(sizeof(Header) == MARKS_HEADER, "the header has a fixed size");
enum { SUMMED = offsetof(Header, spawner), RUN_BYTES = offsetof(Row, check), PROCESS_BYTES = offsetof(Process, check) };

struct MarkTable {
        Header *header; /* mapped, the rows behind it */
        Row *rows;
};

/* ---- bytes ---- */

static uint32_t header_crc(const Header *h) {
        char copy[SUMMED];
        memcpy(copy, h, SUMMED);
        memset(copy + offsetof(Header, crc), 0, sizeof(h->crc));
        return crc32c(0, copy, SUMMED);
}

static uint64_t run_check(const void *row) {
        return SOMETHING | crc32c(0, row, RUN_BYTES);
}

/* run: the check word of the row; 0 for the spawner. */
static uint64_t process_check(uint64_t run, const void *process) {
        return SOMETHING | crc32c((uint32_t)run, process, PROCESS_BYTES);
}

static void read_process(uint64_t run, const Process *p, StoreProcess *ret, bool *ret_damaged) {
        bool good = p->check == process_check(run, p) && p->pid > 0 && p->pid <= INT32_MAX;
        *ret = good ? (StoreProcess) { .pid = (pid_t)p->pid, .start_ticks = p->start_ticks } : (StoreProcess) { 0 };
        *ret_damaged = !good && p->check != 0;
}

static bool header_is_good(const void *header) {
        const Header *h = header;
        return memcmp(h->magic, magic, sizeof(magic)) == 0 && h->crc == header_crc(h);
}

static bool run_is_good(const void *row) {
        return ((const Row *)row)->check == run_check(row);
}

/* The one bit that makes it whole again. The sum tells all flips of one or two bits of so few bytes apart. */
static bool mend(void *data, size_t n, bool (*is_good)(const void *data)) {
        unsigned char *bytes = data;
        for (size_t bit = 0; bit < 8 * n; bit++) {
                bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
                if (is_good(data))
                        return true;
                bytes[bit / 8] ^= (unsigned char)(1U << bit % 8);
        }
        return false;
}

int marks_read_head(const void *header, uint64_t file_size, MarksHead *ret) {
        Header h;
        bool ignored;
        memcpy(&h, header, sizeof(h));
        bool good = header_is_good(&h), mended = !good && mend(&h, SUMMED, header_is_good);
        if (memcmp(h.magic, magic, sizeof(magic)) != 0)
                return -EBADMSG;
        if ((good || mended) && h.version != MARKS_VERSION)
                return -EPROTONOSUPPORT;
        if (file_size != MARKS_FILE_SIZE || ((good || mended) && (h.n_rows != STORE_MARKS || h.row_size != MARK_SIZE)))
                return -EBADMSG;
        *ret = (MarksHead) { .mended = mended, .damaged = !good && !mended };
        if (ret->damaged)
                return 0;
        ret->boot = h.boot;
        for (int i = 0; i < STORE_SPAWNER; i++)
                read_process(0, &h.spawner[i], &ret->spawner[i], &ignored);
        return 0;
}

MarkState mark_read(const void *row, MarkSeen *ret) {
        Row r;
        memcpy(&r, row, sizeof(r));
        uint64_t check = r.check;
        if (check == 0)
                return MARK_NONE;
        if ((check & (check - 1)) == 0)
                return MARK_SPOILED;
        MarkState state = run_is_good(&r)                                      ? MARK_SET
                          : mend(&r, RUN_BYTES + sizeof(r.check), run_is_good) ? MARK_MENDED
                                                                               : MARK_DAMAGED;
        *ret = (MarkSeen) { .queue = r.queue, .seq = r.seq, .attempt = r.attempt };
        read_process(r.check, &r.process, &ret->process, &ret->process_damaged);
        return state;
}

/* ---- the file ---- */

static void fill_header(Header *h, const SegmentBoot *boot) {
        *h = (Header) { .version = MARKS_VERSION, .n_rows = STORE_MARKS, .row_size = MARK_SIZE, .boot = *boot };
        memcpy(h->magic, magic, sizeof(magic));
        h->crc = header_crc(h);
}

static int write_header(int fd, const SegmentBoot *boot) {
        Header h;
        fill_header(&h, boot);
        return segment_write(&(Segment) { .fd = fd }, 0, &h, sizeof(h));
}

/* A hole that cannot be filled would be a SIGBUS. */
static int allocate(int fd) {
        return fault_hit(FAULT_SPACE) ? -ENOSPC : -posix_fallocate(fd, 0, (off_t)MARKS_FILE_SIZE);
}

/* There as a whole or not at all. */
static int create(int dir_fd, const SegmentBoot *boot, int *ret_fd) {
        int r = segment_check_owner(dir_fd, new_name, magic, MARKS_VERSION);
        if (r < 0)
                return r;
        (void)unlinkat(dir_fd, new_name, 0); /* of a start that was killed; if it cannot go, the next call says so */
        _cleanup_close_ int fd = openat(dir_fd, new_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        r = allocate(fd);
        if (r >= 0)
                r = write_header(fd, boot);
        if (r >= 0)
                r = segment_sync(&(Segment) { .fd = fd });
        if (r >= 0 && renameat(dir_fd, new_name, dir_fd, name) < 0)
                r = -errno;
        if (r >= 0)
                r = segment_sync_dir(dir_fd);
        if (r < 0)
                return r;
        *ret_fd = TAKE_FD(fd);
        return 0;
}

static int check(int fd, MarksHead *ret) {
        char header[MARKS_HEADER] = "";
        struct stat st;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EBADMSG;
        ssize_t n = fault_hit(FAULT_READ) ? -1 : pread(fd, header, sizeof(header), 0);
        if (n < 0)
                return -EIO;
        return marks_read_head(header, (uint64_t)st.st_size, ret);
}

/* Programs that copy files leave holes where there are zeros. */
static int fill_holes(int fd) {
        enum { BLOCK = 512 }; /* of stat, whatever the file system has */
        struct stat st;
        if (fstat(fd, &st) < 0)
                return -errno;
        return (uint64_t)st.st_blocks * BLOCK < MARKS_FILE_SIZE ? allocate(fd) : 0;
}

static int open_file(int dir_fd, const SegmentBoot *boot, MarksHead *ret_head, int *ret_fd) {
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        int r = fd < 0 ? -errno : 0;
        if (r == -ENOENT)
                r = create(dir_fd, boot, &fd);
        if (r == -ELOOP || r == -EISDIR || r == -ENXIO)
                r = -EBADMSG;
        if (r >= 0)
                r = check(fd, ret_head);
        if (r >= 0)
                r = fill_holes(fd);
        if (r >= 0)
                *ret_fd = TAKE_FD(fd);
        return r;
}

/* None of then may be taken for one of now. */
static void forget_processes(MarkTable *t) {
        for (int i = 0; i < STORE_MARKS; i++)
                if (atomic_load(&t->rows[i].process.check) != 0)
                        atomic_store(&t->rows[i].process.check, 0);
        for (int i = 0; i < STORE_SPAWNER; i++)
                atomic_store(&t->header->spawner[i].check, 0);
}

int marks_open(int dir_fd, const SegmentBoot *boot, MarkTable **ret, MarksHead *ret_head) {
        _cleanup_free_ MarkTable *t = fault_calloc(1, sizeof(*t));
        _cleanup_close_ int fd = -1;
        MarksHead head;
        Header now;
        if (!t)
                return -ENOMEM;
        int r = open_file(dir_fd, boot, &head, &fd);
        if (r < 0)
                return r;
        void *p = fault_hit(FAULT_ALLOC) ? MAP_FAILED
                                         : mmap(NULL, MARKS_FILE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
                return -ENOMEM;
        t->header = p;
        t->rows = (Row *)((char *)p + MARKS_HEADER);
        if (head.damaged || memcmp(&head.boot, boot, sizeof(*boot)) != 0)
                forget_processes(t); /* before it says that they are of this boot */
        fill_header(&now, boot);
        if (memcmp(t->header, &now, SUMMED) != 0)
                memcpy(t->header, &now, SUMMED);
        *ret_head = head;
        *ret = TAKE_PTR(t);
        return 0;
}

MarkTable *marks_close(MarkTable *t) {
        if (t)
                (void)munmap(t->header, MARKS_FILE_SIZE); /* cannot fail for what was mapped */
        free(t);
        return NULL;
}

/* ---- rows ---- */

MarkState marks_read(const MarkTable *t, int slot, MarkSeen *ret) {
        return mark_read(&t->rows[slot], ret);
}

void marks_forget_pages(const MarkTable *t) {
        (void)madvise(t->header, MARKS_FILE_SIZE, MADV_DONTNEED); /* the file has them; else they stay */
}

bool marks_is_set(const MarkTable *t, int slot) {
        return atomic_load(&t->rows[slot].check) != 0;
}

_Atomic uint64_t *marks_prepare(MarkTable *t, int slot, uint64_t queue, uint64_t seq, uint32_t attempt,
                                uint64_t *ret_check) {
        Row *r = &t->rows[slot];
        atomic_store(&r->process.check, 0); /* of the run before */
        r->queue = queue;
        r->seq = seq;
        r->attempt = attempt;
        r->zero = 0;
        *ret_check = run_check(r);
        return &r->check;
}

void marks_set(MarkTable *t, int slot) {
        Row *r = &t->rows[slot];
        atomic_store(&r->check, run_check(r));
}

static void set_process(Process *to, uint64_t run, const StoreProcess *p) {
        atomic_store(&to->check, 0);
        to->pid = (uint32_t)p->pid;
        to->zero = 0;
        to->start_ticks = p->start_ticks;
        if (p->pid > 0 && p->start_ticks > 0)
                atomic_store(&to->check, process_check(run, to));
}

void marks_set_process(MarkTable *t, int slot, const StoreProcess *p) {
        set_process(&t->rows[slot].process, atomic_load(&t->rows[slot].check), p);
}

void marks_set_spawner(MarkTable *t, const StoreProcess *p) {
        for (int i = 0; i < STORE_SPAWNER; i++)
                set_process(&t->header->spawner[i], 0, &p[i]);
}

void marks_unset(MarkTable *t, int slot) {
        atomic_store(&t->rows[slot].check, 0);
}

/* ---- what an eqd has left ---- */

enum { READ_ROWS = 1024 };

static int add_leftover(StoreLeftovers *l, size_t *cap, const MarkSeen *m) {
        if (l->n == *cap) {
                size_t more = MAX(*cap * 2, (size_t)64);
                StoreLeftover *runs = fault_realloc(l->runs, more * sizeof(*runs));
                if (!runs)
                        return -ENOMEM;
                l->runs = runs;
                *cap = more;
        }
        l->runs[l->n++] =
                (StoreLeftover) { .queue = m->queue, .seq = m->seq, .attempt = m->attempt, .process = m->process };
        return 0;
}

static int read_leftovers(int fd, StoreLeftovers *ret) {
        _cleanup_free_ Row *rows = fault_malloc(READ_ROWS * sizeof(Row));
        size_t cap = 0;
        int r = rows ? 0 : -ENOMEM;
        for (int at = 0; at < STORE_MARKS && r >= 0; at += READ_ROWS) {
                off_t offset = MARKS_HEADER + (off_t)at * MARK_SIZE;
                if (fault_hit(FAULT_READ) ||
                    pread(fd, rows, READ_ROWS * sizeof(Row), offset) != READ_ROWS * sizeof(Row))
                        return -EIO;
                for (int i = 0; i < READ_ROWS && r >= 0; i++) {
                        MarkSeen m = { 0 };
                        MarkState state = mark_read(&rows[i], &m);
                        if ((state == MARK_SET || state == MARK_MENDED) && m.process.pid > 0)
                                r = add_leftover(ret, &cap, &m);
                }
        }
        return r;
}

int marks_leftovers(const char *dir, const SegmentBoot *boot, StoreLeftovers *ret) {
        static const SegmentBoot unknown;
        MarksHead head;
        *ret = (StoreLeftovers) { 0 };
        _cleanup_close_ int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        _cleanup_close_ int fd = dir_fd < 0 ? -1 : openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        int r = check(fd, &head);
        if (r < 0)
                return r;
        if (head.damaged || memcmp(&head.boot, boot, sizeof(*boot)) != 0 || memcmp(boot, &unknown, sizeof(*boot)) == 0)
                return 0;
        memcpy(ret->spawner, head.spawner, sizeof(ret->spawner));
        return read_leftovers(fd, ret);
}
