/* SPDX-License-Identifier: MIT */
/* Which tasks run, in a mapped file: what is written there outlives the process without any sync, and a loss of power ends
 * the tasks as well. A mark is valid when its last word, which is written last, matches the others. */

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

typedef struct Mark {
        uint64_t queue, seq, attempt;
        _Atomic uint64_t check; /* 0: none */
} Mark;

struct MarkTable {
        Mark *marks; /* mapped */
};

static uint64_t check_of(const Mark *m) {
        return (m->queue * UINT64_C(0x9E3779B97F4A7C15) ^ m->seq * UINT64_C(0xC2B2AE3D27D4EB4F) ^ m->attempt) | 1;
}

int marks_open(int dir_fd, MarkTable **ret) {
        _cleanup_free_ MarkTable *t = fault_calloc(1, sizeof(*t));
        _cleanup_close_ int fd = openat(dir_fd, "running", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return -errno;
        if (!t)
                return -ENOMEM;
        if (ftruncate(fd, STORE_MARKS * sizeof(Mark)) < 0)
                return -errno;
        int r = posix_fallocate(fd, 0, STORE_MARKS * sizeof(Mark)); /* a hole that cannot be filled would be a SIGBUS */
        if (r != 0)
                return -r;
        t->marks = mmap(NULL, STORE_MARKS * sizeof(Mark), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (t->marks == MAP_FAILED)
                return -errno;
        *ret = TAKE_PTR(t);
        return 0;
}

MarkTable *marks_close(MarkTable *t) {
        if (t)
                (void)munmap(t->marks, STORE_MARKS * sizeof(Mark)); /* cannot fail for what was mapped */
        free(t);
        return NULL;
}

int marks_each(const MarkTable *t, const StoreReader *reader, void *userdata) {
        int r = 0;
        for (size_t i = 0; i < STORE_MARKS && r >= 0; i++) {
                const Mark *m = &t->marks[i];
                if (atomic_load(&m->check) == check_of(m))
                        r = reader->running(userdata, m->queue, m->seq, (uint32_t)m->attempt);
        }
        return r;
}

void marks_clear(MarkTable *t) {
        for (int i = 0; i < STORE_MARKS; i++)
                if (atomic_load(&t->marks[i].check) != 0)
                        marks_unset(t, i);
}

void marks_set(MarkTable *t, int slot, uint64_t queue, uint64_t seq, uint32_t attempt) {
        Mark *m = &t->marks[slot];
        m->queue = queue;
        m->seq = seq;
        m->attempt = attempt;
        atomic_store(&m->check, check_of(m));
}

void marks_unset(MarkTable *t, int slot) {
        atomic_store(&t->marks[slot].check, 0);
}
