/* SPDX-License-Identifier: MIT */
#include "store/segment.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/huge.h"
#include "base/util.h"
#include "store/crc32c.h"
#include "store/record.h"

static const char magic[8] = { 'E', 'Q', 'D', 'S', 'T', 'O', 'R', 'E' };
static const char new_name[] = "new";

typedef struct Header {
        char magic[8];
        uint32_t version, crc;
        uint64_t number;
        uint32_t salt, size;
        SegmentBoot boot;
        char zeros[16];
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

void segment_start(const Segment *s, uint32_t at, size_t n) {
        (void)sync_file_range(s->fd, at, (off_t)n, SYNC_FILE_RANGE_WRITE); /* the sync tells what has failed */
}

int segment_sync(const Segment *s) {
        if (fault_hit(FAULT_SYNC))
                return -EIO;
        return fdatasync(s->fd) < 0 ? -EIO : 0;
}

int segment_sync_dir(int dir_fd) {
        if (fault_hit(FAULT_SYNC))
                return -EIO;
        return fsync(dir_fd) < 0 ? -EIO : 0;
}

int segment_space(int dir_fd, uint64_t *ret_free, uint64_t *ret_size) {
        struct statvfs st;
        if (fstatvfs(dir_fd, &st) < 0)
                return -errno;
        *ret_free = fault_hit(FAULT_LOW) ? 0 : (uint64_t)st.f_bavail * st.f_frsize;
        *ret_size = (uint64_t)st.f_blocks * st.f_frsize;
        return 0;
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
                .boot = s->boot,
        };
        memcpy(h.magic, magic, sizeof(magic));
        h.crc = htole32(header_crc(h));
        return segment_write(s, 0, &h, sizeof(h));
}

void segment_boot(SegmentBoot *ret) {
        char text[37] = "";
        _cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
        *ret = (SegmentBoot) { 0 };
        if (fd < 0 || read(fd, text, 36) != 36)
                return;
        unsigned char id[16];
        size_t n = 0;
        for (const char *p = text; *p && n < sizeof(id); p += *p == '-' ? 1 : 2)
                if (*p != '-' && sscanf(p, "%2hhx", &id[n++]) != 1)
                        return;
        memcpy(ret->id, id, n == sizeof(id) ? n : 0);
}

int segment_check_owner(int dir_fd, const char *name, const char wanted[static 8], uint32_t version) {
        static const char zeros[sizeof(magic)];
        struct {
                char magic[sizeof(magic)];
                uint32_t version;
        } h = { 0 };
        struct stat st;
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return errno == ENOENT ? 0 : errno == ELOOP ? -EEXIST : -errno;
        if (!S_ISREG(st.st_mode))
                return -EEXIST;
        ssize_t n = pread(fd, &h, sizeof(h), 0);
        if (n < 0)
                return -errno;
        bool is_ours = memcmp(h.magic, zeros, sizeof(zeros)) == 0 ||
                       (memcmp(h.magic, wanted, MIN((size_t)n, sizeof(h.magic))) == 0 && le32toh(h.version) <= version);
        return is_ours ? 0 : -EEXIST;
}

/* One that a crash has left is in the way. */
static int open_new(int dir_fd) {
        enum { FLAGS = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW };
        int fd = openat(dir_fd, new_name, FLAGS, 0600);
        if (fd >= 0 || errno != EEXIST)
                return fd >= 0 ? fd : -errno;
        int r = segment_check_owner(dir_fd, new_name, magic, SEGMENT_VERSION);
        if (r < 0)
                return r;
        (void)unlinkat(dir_fd, new_name, 0); /* if it cannot go, the next call says so */
        fd = openat(dir_fd, new_name, FLAGS, 0600);
        return fd >= 0 ? fd : -errno;
}

int segment_prepare(int dir_fd, uint64_t number, uint32_t size, const SegmentBoot *boot, Segment *ret) {
        Segment s = { .number = number, .size = size, .boot = *boot, .fd = -1 };
        if (getrandom(&s.salt, sizeof(s.salt), 0) != sizeof(s.salt))
                return -EIO;
        int r = open_new(dir_fd);
        if (r < 0)
                return r;
        s.fd = r;
        r = allocate(&s);
        if (r >= 0)
                r = put_header(&s);
        if (r < 0) {
                (void)unlinkat(dir_fd, new_name, 0); /* to give its space back; the error is told already */
                close_fd(s.fd);
                return r;
        }
        *ret = s;
        return 0;
}

int segment_publish(int dir_fd, const Segment *s) {
        char name[SEGMENT_NAME_MAX];
        segment_name(s->number, name);
        int r = segment_sync(s);
        if (r >= 0 && renameat(dir_fd, new_name, dir_fd, name) < 0)
                r = -errno;
        return r < 0 ? r : segment_sync_dir(dir_fd);
}

int segment_create(int dir_fd, uint64_t number, uint32_t size, const SegmentBoot *boot, Segment *ret) {
        Segment s;
        int r = segment_prepare(dir_fd, number, size, boot, &s);
        if (r < 0)
                return r;
        r = segment_publish(dir_fd, &s);
        if (r < 0) {
                (void)unlinkat(dir_fd, new_name, 0); /* as above */
                close_fd(s.fd);
                return r;
        }
        *ret = s;
        return 0;
}

/* Nothing behind the header, neither written nor lost by half, and all of its space. */
static bool is_as_made(const Segment *s) {
        static const char zeros[4096];
        char page[sizeof(zeros)];
        struct stat st;
        uint32_t n = MIN(s->size, (uint32_t)sizeof(page));
        if (fstat(s->fd, &st) < 0 || (uint64_t)st.st_blocks * 512 < s->size || segment_read(s, 0, page, n) < 0 ||
            memcmp(page + SEGMENT_HEADER, zeros, n - SEGMENT_HEADER) != 0)
                return false;
        return lseek(s->fd, n, SEEK_DATA) < 0 && errno == ENXIO;
}

int segment_take(int dir_fd, const Segment *s, Segment *ret) {
        char name[SEGMENT_NAME_MAX];
        Segment again;
        segment_name(s->number, name);
        int r = segment_open_again(dir_fd, s, &again);
        if (r < 0)
                return 0;
        if (!is_as_made(&again) || segment_check_owner(dir_fd, new_name, magic, SEGMENT_VERSION) < 0 ||
            renameat(dir_fd, name, dir_fd, new_name) < 0) {
                segment_close(&again);
                return 0;
        }
        r = segment_publish(dir_fd, &again);
        if (r < 0) {
                segment_close(&again);
                return r;
        }
        *ret = again;
        return 1;
}

/* ---- opening ---- */

static int check_header(const Header *h, uint64_t number, off_t size) {
        bool has_magic = memcmp(h->magic, magic, sizeof(magic)) == 0, has_sum = le32toh(h->crc) == header_crc(*h);
        if (!has_magic || !has_sum)
                return -EBADMSG;
        if (le32toh(h->version) != SEGMENT_VERSION)
                return le32toh(h->version) > SEGMENT_VERSION ? -EPROTONOSUPPORT : -EPROTOTYPE;
        return le64toh(h->number) == number && le32toh(h->size) == size ? 0 : -ENODATA;
}

/* Of one bit of the header. */
static bool mend_header(Header *h, uint64_t number, off_t size) {
        char *p = (char *)h;
        for (size_t bit = 0; bit < 8 * sizeof(*h); bit++) {
                p[bit / 8] ^= (char)(1 << bit % 8);
                if (check_header(h, number, size) == 0)
                        return true;
                p[bit / 8] ^= (char)(1 << bit % 8);
        }
        return false;
}

/* By its records. What is not one of them costs a look at its kind and its last byte. */
static int find_salt(Segment *s) {
        SegmentWindow w = SEGMENT_WINDOW_NULL;
        const char *p;
        int e = -EBADMSG;
        for (uint32_t at = SEGMENT_HEADER; e < 0 && at + RECORD_MIN <= s->size; at += 8) {
                if (segment_window(&w, s, at, RECORD_MIN, &p) < 0)
                        continue;
                Record r;
                record_peek(p, &r);
                size_t n = record_size(r.body.len);
                if (r.kind == 0 || r.kind >= _STORE_KIND_MAX || r.body.len > RECORD_BODY_MAX || n > s->size - at)
                        continue;
                if (segment_window(&w, s, at, n, &p) >= 0 && record_find_salt(p, n, &s->salt))
                        e = 0;
        }
        segment_window_done(&w);
        return e;
}

/* A version that is not ours may have another form: only one bit can have made it so. */
static int salvage(Segment *s, Header *h, int error) {
        bool is_other_version = memcmp(h->magic, magic, sizeof(magic)) == 0 && le32toh(h->version) != SEGMENT_VERSION;
        s->is_mended = true;
        if (mend_header(h, s->number, s->size)) {
                s->salt = le32toh(h->salt);
                s->boot = h->boot;
                return 0;
        }
        if (is_other_version)
                return le32toh(h->version) > SEGMENT_VERSION ? -EPROTONOSUPPORT : -EPROTOTYPE;
        return find_salt(s) < 0 ? error : 0;
}

int segment_open(int dir_fd, uint64_t number, Segment *ret) {
        char name[SEGMENT_NAME_MAX];
        struct stat st;
        Header h;
        segment_name(number, name);
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size < SEGMENT_HEADER || st.st_size > (off_t)UINT32_MAX)
                return -EBADMSG;
        Segment s = { .number = number, .size = (uint32_t)st.st_size, .fd = fd };
        int r = segment_read(&s, 0, &h, sizeof(h));
        if (r < 0)
                return r;
        s.salt = le32toh(h.salt);
        s.boot = h.boot;
        r = check_header(&h, number, st.st_size);
        if (r == -EBADMSG) {
                s.salt = 0;
                s.boot = (SegmentBoot) { 0 };
                r = salvage(&s, &h, r);
        }
        if (r < 0)
                return r;
        s.fd = TAKE_FD(fd);
        *ret = s;
        return 0;
}

const char *segment_refusal(int error) {
        switch (error) {
        case -EPROTONOSUPPORT:
                return "is of a later version of eqd; use that version";
        case -EPROTOTYPE:
                return "is of an earlier version of eqd, which was never released; move it away to start without it";
        case -ENODATA:
                return "has not the size or the number that it was made with; put it back as it was, or move it away "
                       "to "
                       "start without it";
        case -EBADMSG:
                return "is not a segment of eqd's log, or nothing of it can be read; move it away to start without it";
        default:
                return NULL;
        }
}

int segment_open_again(int dir_fd, const Segment *s, Segment *ret) {
        char name[SEGMENT_NAME_MAX];
        segment_name(s->number, name);
        int fd = openat(dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
                return -errno;
        *ret = *s;
        ret->fd = fd;
        return 0;
}

void segment_close(Segment *s) {
        s->fd = close_fd(s->fd);
}

/* ---- reading ---- */

int segment_read(const Segment *s, uint32_t at, void *data, size_t n) {
        char *p = data;
        if (fault_hit(FAULT_READ))
                return -EIO;
        while (n > 0) {
                ssize_t k = pread(s->fd, p, n, at);
                int e = errno;
                if (k < 0 && e == EINTR)
                        continue;
                if (k <= 0)
                        return k < 0 ? -e : -EIO; /* shorter than it was */
                p += k;
                at += (uint32_t)k;
                n -= (size_t)k;
        }
        return 0;
}

/* Block by block, since one of them is bad. True: none is any more. */
static bool read_blocks(const Segment *s, uint32_t at, char *data, size_t n, SegmentAgain again, void *userdata) {
        enum { BLOCK = 4096 };
        bool all = true;
        for (size_t k; n > 0; at += (uint32_t)k, data += k, n -= k) {
                k = MIN(n, (size_t)(BLOCK - at % BLOCK));
                int e = segment_read(s, at, data, k);
                while (e < 0 && again && again(userdata, s))
                        e = segment_read(s, at, data, k);
                if (e < 0)
                        memset(data, 0xff, k);
                all = all && e >= 0;
        }
        return all;
}

bool segment_read_good(const Segment *s, uint32_t at, void *data, size_t n) {
        return segment_read(s, at, data, n) >= 0 || read_blocks(s, at, data, n, NULL, NULL);
}

int segment_read_all(const Segment *s, char **buf, size_t *cap, SegmentAgain again, void *userdata,
                     bool *ret_has_gaps) {
        enum { PIECE = 1 << 20 };
        bool has_gaps = false;
        char *data = s->size > *cap ? fault_malloc(s->size) : *buf;
        if (!data)
                return -ENOMEM;
        if (data != *buf) { /* nothing that is in the old one is kept */
                huge_pages(data, s->size);
                free(*buf);
                *buf = data;
                *cap = s->size;
        }
        for (size_t at = 0; at < s->size; at += PIECE) {
                size_t n = MIN(s->size - at, (size_t)PIECE);
                if (segment_read(s, (uint32_t)at, data + at, n) < 0)
                        has_gaps |= !read_blocks(s, (uint32_t)at, data + at, n, again, userdata);
        }
        if (ret_has_gaps)
                *ret_has_gaps = has_gaps;
        return 0;
}

int segment_window(SegmentWindow *w, const Segment *s, uint32_t at, size_t n, const char **ret) {
        enum { PIECE = 256 * 1024 };
        if (at > s->size || n > s->size - at)
                return -EMSGSIZE;
        if (at < w->at || at - w->at > w->len || n > w->len - (at - w->at)) {
                uint32_t want = (uint32_t)MIN(MAX(n, (size_t)PIECE), (size_t)(s->size - at));
                if (want > w->cap) {
                        char *data = fault_realloc(w->data, want);
                        if (!data)
                                return -ENOMEM;
                        w->data = data;
                        w->cap = want;
                }
                w->len = 0;
                int r = segment_read(s, at, w->data, want);
                if (r < 0 && want > n)
                        r = segment_read(s, at, w->data, want = (uint32_t)n); /* not for a bad block behind it */
                if (r < 0)
                        return r;
                w->at = at;
                w->len = want;
        }
        *ret = w->data + (at - w->at);
        return 0;
}

void segment_window_done(SegmentWindow *w) {
        free(w->data);
        *w = (SegmentWindow)SEGMENT_WINDOW_NULL;
}
