/* SPDX-License-Identifier: MIT */
#include "store/segment.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/crc32c.h"

static const char magic[8] = { 'E', 'Q', 'D', 'S', 'T', 'O', 'R', 'E' };
static const char new_name[] = "new";

typedef struct Header {
        char magic[8];
        uint32_t version, crc;
        uint64_t number;
        uint32_t salt, size;
        char zeros[32];
} Header;
_Static_assert(sizeof(Header) == SEGMENT_HEADER, "the header has a fixed size");

void segment_name(uint64_t number, char buf[static SEGMENT_NAME_MAX]) {
        (void)snprintf(buf, SEGMENT_NAME_MAX, "log-%016" PRIx64, number);
}

bool segment_parse_name(const char *name, uint64_t *ret_number) {
        char again[SEGMENT_NAME_MAX];
        if (sscanf(name, "log-%16" SCNx64, ret_number) != 1)
                return false;
        segment_name(*ret_number, again);
        return strcmp(again, name) == 0;
}

static uint32_t header_crc(Header h) {
        h.crc = 0;
        return crc32c(0, &h, sizeof(h));
}

int segment_write(const Segment *s, uint32_t at, const void *data, size_t n) {
        const char *p = data;
        if (fault_hit(FAULT_WRITE))
                return -EIO;
        while (n > 0) {
                ssize_t k = pwrite(s->fd, p, n, at);
                int e = errno;
                if (k < 0 && e == EINTR)
                        continue;
                if (k <= 0)
                        return k < 0 ? -e : -EIO;
                p += k;
                at += (uint32_t)k;
                n -= (size_t)k;
        }
        return 0;
}

int segment_sync(const Segment *s) {
        if (fault_hit(FAULT_SYNC))
                return -EIO;
        return fdatasync(s->fd) < 0 ? -errno : 0;
}

int segment_sync_dir(int dir_fd) {
        if (fault_hit(FAULT_SYNC))
                return -EIO;
        return fsync(dir_fd) < 0 ? -errno : 0;
}

/* Zeros where the file system cannot allocate without writing. */
static int allocate(const Segment *s) {
        static const char zeros[65536];
        if (fault_hit(FAULT_SPACE))
                return -ENOSPC;
        if (fallocate(s->fd, 0, 0, s->size) == 0)
                return 0;
        int r = -errno;
        if (r != -EOPNOTSUPP && r != -ENOSYS)
                return r;
        for (uint32_t at = 0; at < s->size; at += sizeof(zeros)) {
                r = segment_write(s, at, zeros, MIN((size_t)(s->size - at), sizeof(zeros)));
                if (r < 0)
                        return r;
        }
        return 0;
}

static int put_header(const Segment *s) {
        Header h = {
                .version = htole32(SEGMENT_VERSION),
                .number = htole64(s->number),
                .salt = htole32(s->salt),
                .size = htole32(s->size),
        };
        memcpy(h.magic, magic, sizeof(magic));
        h.crc = htole32(header_crc(h));
        return segment_write(s, 0, &h, sizeof(h));
}

int segment_create(int dir_fd, uint64_t number, uint32_t size, Segment *ret) {
        char name[SEGMENT_NAME_MAX];
        Segment s = { .number = number, .size = size, .fd = -1 };
        if (getrandom(&s.salt, sizeof(s.salt), 0) != sizeof(s.salt))
                return -EIO;
        (void)unlinkat(dir_fd, new_name, 0); /* left by a crash; mostly not there */
        s.fd = openat(dir_fd, new_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (s.fd < 0)
                return -errno;
        int r = allocate(&s);
        if (r >= 0)
                r = put_header(&s);
        if (r >= 0)
                r = segment_sync(&s);
        segment_name(number, name);
        if (r >= 0 && renameat(dir_fd, new_name, dir_fd, name) < 0)
                r = -errno;
        if (r >= 0)
                r = segment_sync_dir(dir_fd);
        if (r < 0) {
                (void)unlinkat(dir_fd, new_name, 0); /* to give its space back; the error is told already */
                close_fd(s.fd);
                return r;
        }
        *ret = s;
        return 0;
}

static int check_header(const Header *h, uint64_t number, off_t size) {
        if (memcmp(h->magic, magic, sizeof(magic)) != 0)
                return -EBADMSG;
        if (le32toh(h->version) > SEGMENT_VERSION)
                return -EPROTONOSUPPORT;
        if (le32toh(h->crc) != header_crc(*h) || le64toh(h->number) != number || le32toh(h->size) != size)
                return -EBADMSG;
        return 0;
}

int segment_open(int dir_fd, uint64_t number, Segment *ret) {
        char name[SEGMENT_NAME_MAX];
        struct stat st;
        segment_name(number, name);
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size < SEGMENT_HEADER || st.st_size > (off_t)UINT32_MAX)
                return -EBADMSG;
        const char *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
                return -errno;
        const Header *h = (const Header *)map;
        int r = check_header(h, number, st.st_size);
        if (r < 0) {
                (void)munmap((void *)map, (size_t)st.st_size); /* cannot fail for what was mapped */
                return r;
        }
        *ret = (Segment) { .number = number, .salt = le32toh(h->salt), .size = (uint32_t)st.st_size, .map = map };
        ret->fd = TAKE_FD(fd);
        return 0;
}

void segment_close(Segment *s) {
        if (s->map)
                (void)munmap((void *)s->map, s->size);
        s->map = NULL;
        s->fd = close_fd(s->fd);
}

int segment_remove(int dir_fd, uint64_t number) {
        char name[SEGMENT_NAME_MAX];
        segment_name(number, name);
        if (unlinkat(dir_fd, name, 0) < 0)
                return -errno;
        return segment_sync_dir(dir_fd);
}
