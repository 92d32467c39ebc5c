/* SPDX-License-Identifier: MIT */
#include "store/hint.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/huge.h"
#include "base/util.h"
#include "store/crc32c.h"

static const char magic[8] = "EQDHINT";
static const char new_name[] = "new-hint";

enum { SEQ_BITS = 56, KIND_BITS = 4, LANE_BITS = 4 };

typedef struct Header {
        char magic[8];
        uint32_t version, crc;
        uint64_t number;
        uint32_t salt, size, n_queues, n_entries, end;
        char zeros[20];
} Header;
_Static_assert(sizeof(Header) == HINT_HEADER, "the header has a fixed size");

typedef struct QueueRow {
        uint64_t id, last_seq;
} QueueRow;
_Static_assert(sizeof(QueueRow) == HINT_QUEUE, "so has the row of a queue");

typedef struct EntryRow {
        uint64_t what; /* SEQ, kind, lane */
        uint32_t queue, at, len;
        char begin[STORE_BEGIN];
} EntryRow;
_Static_assert(sizeof(EntryRow) == HINT_ENTRY, "and that of a record");

/* ---- making ---- */

static int queue_of(Hint *h, uint64_t id, HintQueue **ret) {
        HintQueue *q = h->latest;
        if (!q || q->id != id)
                HASH_FIND_NUMBER(h->queues, id, q);
        if (!q) {
                q = fault_calloc(1, sizeof(*q));
                if (!q)
                        return -ENOMEM;
                q->id = id;
                q->index = h->n_queues;
                HASH_ADD_NUMBER(h->queues, id, q);
                if (!q->hh.tbl) {
                        free(q);
                        return -ENOMEM;
                }
                h->n_queues++;
        }
        *ret = h->latest = q;
        return 0;
}

static int room(Hint *h) {
        size_t size = (size_t)h->n_entries * HINT_ENTRY;
        if (size + HINT_ENTRY <= h->cap)
                return 0;
        size_t cap = MAX(h->cap * 2, (size_t)4096);
        char *entries = fault_realloc(h->entries, cap);
        if (!entries)
                return -ENOMEM;
        h->entries = entries;
        h->cap = cap;
        return 0;
}

static bool outlives_its_object(StoreKind kind) { /* it speaks of what is in older segments */
        return kind == STORE_FORGET || kind == STORE_GONE;
}

int hint_add(Hint *h, const Record *r, StoreBytes begin, uint32_t at, bool live) {
        HintQueue *q;
        if (r->seq >> SEQ_BITS || r->kind >> KIND_BITS || r->lane >> LANE_BITS)
                return -ERANGE;
        int e = queue_of(h, r->queue, &q);
        if (e < 0)
                return e;
        q->last_seq = MAX(q->last_seq, r->seq);
        if (!live && !outlives_its_object(r->kind))
                return 0;
        e = room(h);
        if (e < 0)
                return e;
        EntryRow row = {
                .what = htole64(r->seq | (uint64_t)r->kind << SEQ_BITS | (uint64_t)r->lane << (SEQ_BITS + KIND_BITS)),
                .queue = htole32(q->index),
                .at = htole32(at),
                .len = htole32(r->body.len),
        };
        if (r->kind == STORE_TASK)
                memcpy(row.begin, begin.data, MIN(begin.len, (uint32_t)STORE_BEGIN));
        memcpy(h->entries + (size_t)h->n_entries++ * HINT_ENTRY, &row, sizeof(row));
        return 0;
}

void hint_done(Hint *h) {
        HintQueue *q, *next;
        HASH_ITER(hh, h->queues, q, next) {
                HASH_DELETE(hh, h->queues, q);
                free(q);
        }
        free(h->entries);
        *h = (Hint)HINT_NULL;
}

static uint32_t crc_of(const char *data, size_t size) {
        const size_t skip = offsetof(Header, crc) + sizeof(uint32_t);
        return crc32c(crc32c(0, data, offsetof(Header, crc)), data + skip, size - skip);
}

int hint_encode(const Hint *h, const Segment *s, char **ret, size_t *ret_size) {
        size_t queues = (size_t)h->n_queues * HINT_QUEUE, entries = (size_t)h->n_entries * HINT_ENTRY;
        size_t size = HINT_HEADER + queues + entries;
        char *data = fault_malloc(size);
        if (!data)
                return -ENOMEM;
        Header header = {
                .version = htole32(HINT_VERSION),
                .number = htole64(s->number),
                .salt = htole32(s->salt),
                .size = htole32(s->size),
                .n_queues = htole32(h->n_queues),
                .n_entries = htole32(h->n_entries),
                .end = htole32(h->end),
        };
        memcpy(header.magic, magic, sizeof(magic));
        memcpy(data, &header, sizeof(header));
        for (const HintQueue *q = h->queues; q; q = q->hh.next) {
                QueueRow row = { htole64(q->id), htole64(q->last_seq) };
                memcpy(data + HINT_HEADER + (size_t)q->index * HINT_QUEUE, &row, sizeof(row));
        }
        if (entries > 0)
                memcpy(data + HINT_HEADER + queues, h->entries, entries);
        uint32_t crc = htole32(crc_of(data, size));
        memcpy(data + offsetof(Header, crc), &crc, sizeof(crc));
        *ret = data;
        *ret_size = size;
        return 0;
}

/* ---- reading ---- */

static bool is_entry_good(const HintFile *f, const Segment *s, uint32_t i) {
        HintEntry e;
        EntryRow row;
        memcpy(&row, f->data + HINT_HEADER + (size_t)f->n_queues * HINT_QUEUE + (size_t)i * HINT_ENTRY, sizeof(row));
        if (le32toh(row.queue) >= f->n_queues)
                return false;
        hint_entry(f, i, &e);
        return e.record.kind >= STORE_QUEUE && e.record.kind <= STORE_FORGET && e.record.body.len <= RECORD_BODY_MAX &&
               e.at % 8 == 0 && e.at >= SEGMENT_HEADER && e.at <= s->size &&
               record_size(e.record.body.len) <= s->size - e.at;
}

int hint_parse(char *data, size_t size, const Segment *s, HintFile *ret) {
        Header h;
        if (size < sizeof(h))
                return -EBADMSG;
        memcpy(&h, data, sizeof(h));
        HintFile f = { .data = data,
                       .size = size,
                       .n_queues = le32toh(h.n_queues),
                       .n_entries = le32toh(h.n_entries),
                       .end = le32toh(h.end) };
        if (memcmp(h.magic, magic, sizeof(magic)) != 0)
                return -EBADMSG;
        if (le32toh(h.version) > HINT_VERSION)
                return -EPROTONOSUPPORT;
        if (le32toh(h.version) != HINT_VERSION || le32toh(h.crc) != crc_of(data, size))
                return -EBADMSG;
        if (le64toh(h.number) != s->number || le32toh(h.salt) != s->salt || le32toh(h.size) != s->size)
                return -ESTALE;
        if (size != HINT_HEADER + (size_t)f.n_queues * HINT_QUEUE + (size_t)f.n_entries * HINT_ENTRY)
                return -EBADMSG;
        for (uint32_t i = 0; i < f.n_entries; i++)
                if (!is_entry_good(&f, s, i))
                        return -EBADMSG;
        *ret = f;
        return 0;
}

void hint_file_done(HintFile *f) {
        free(f->data);
        *f = (HintFile)HINT_FILE_NULL;
}

void hint_queue(const HintFile *f, uint32_t i, uint64_t *ret_id, uint64_t *ret_last_seq) {
        QueueRow row;
        memcpy(&row, f->data + HINT_HEADER + (size_t)i * HINT_QUEUE, sizeof(row));
        *ret_id = le64toh(row.id);
        *ret_last_seq = le64toh(row.last_seq);
}

void hint_entry(const HintFile *f, uint32_t i, HintEntry *ret) {
        const char *at = f->data + HINT_HEADER + (size_t)f->n_queues * HINT_QUEUE + (size_t)i * HINT_ENTRY;
        EntryRow row;
        uint64_t ignored;
        memcpy(&row, at, sizeof(row));
        uint64_t what = le64toh(row.what);
        *ret = (HintEntry) {
                .record = { .kind = what >> SEQ_BITS & ((1 << KIND_BITS) - 1),
                            .lane = (uint8_t)(what >> (SEQ_BITS + KIND_BITS)),
                            .seq = what & ((UINT64_C(1) << SEQ_BITS) - 1),
                            .body = { NULL, le32toh(row.len) } },
                .at = le32toh(row.at),
                .begin = { at + offsetof(EntryRow, begin), MIN(le32toh(row.len), (uint32_t)STORE_BEGIN) },
        };
        hint_queue(f, le32toh(row.queue), &ret->record.queue, &ignored);
}

/* ---- files ---- */

void hint_name(uint64_t number, char buf[static SEGMENT_NAME_MAX]) {
        (void)snprintf(buf, SEGMENT_NAME_MAX, "hint-%016" PRIx64, number);
}

bool hint_parse_name(const char *name, uint64_t *ret_number) {
        char again[SEGMENT_NAME_MAX];
        if (sscanf(name, "hint-%16" SCNx64, ret_number) != 1)
                return false;
        hint_name(*ret_number, again);
        return strcmp(again, name) == 0;
}

int hint_check_owner(int dir_fd, const char *name) {
        return segment_check_owner(dir_fd, name, magic, HINT_VERSION);
}

int hint_check_new(int dir_fd) {
        return hint_check_owner(dir_fd, new_name);
}

/* Compaction may have removed the segment while its hint was being written. It removes the segment first, then the hint: so if
 * that did not find this one, the segment is not found here. */
static void remove_if_alone(int dir_fd, uint64_t number) {
        char name[SEGMENT_NAME_MAX];
        struct stat st;
        segment_name(number, name);
        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT)
                return;
        hint_name(number, name);
        (void)unlinkat(dir_fd, name, 0); /* without its segment it means nothing; the next start tries again */
}

int hint_write(int dir_fd, uint64_t number, const char *data, size_t size) {
        char name[SEGMENT_NAME_MAX];
        hint_name(number, name);
        int r = hint_check_new(dir_fd);
        if (r >= 0)
                r = hint_check_owner(dir_fd, name);
        if (r < 0)
                return r;
        Segment file = SEGMENT_NULL; /* written and synced like one, with the same faults */
        file.fd = openat(dir_fd, new_name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (file.fd < 0)
                return -errno;
        r = segment_write(&file, 0, data, size);
        if (r >= 0)
                r = segment_sync(&file);
        segment_close(&file);
        if (r >= 0 && renameat(dir_fd, new_name, dir_fd, name) < 0)
                r = -errno;
        if (r >= 0) {
                remove_if_alone(dir_fd, number);
                return segment_sync_dir(dir_fd);
        }
        (void)unlinkat(dir_fd, new_name, 0); /* gives its space back; nobody reads it */
        return r;
}

static int look_for_seal(int dir_fd, const Segment *s, uint32_t at) {
        _cleanup_(segment_close) Segment open = SEGMENT_NULL;
        char seal[RECORD_MIN];
        Record r;
        if (at > s->size - RECORD_MIN)
                return -EBADMSG;
        int e = segment_open(dir_fd, s->number, &open);
        if (e >= 0)
                e = segment_read(&open, at, seal, sizeof(seal));
        if (e < 0)
                return e;
        return record_read(seal, sizeof(seal), s->salt, &r) > 0 && r.kind == STORE_SEAL ? 0 : -ESTALE;
}

int hint_read(int dir_fd, const Segment *s, HintFile *ret) {
        char name[SEGMENT_NAME_MAX];
        struct stat st;
        hint_name(s->number, name);
        _cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode) || st.st_size < HINT_HEADER || st.st_size > (off_t)UINT32_MAX)
                return -EBADMSG;
        _cleanup_free_ char *data = fault_malloc((size_t)st.st_size);
        if (!data)
                return -ENOMEM;
        huge_pages(data, (size_t)st.st_size);
        Segment file = { .fd = fd };
        int r = segment_read(&file, 0, data, (size_t)st.st_size);
        HintFile f;
        if (r >= 0)
                r = hint_parse(data, (size_t)st.st_size, s, &f);
        if (r >= 0)
                r = look_for_seal(dir_fd, s, f.end);
        if (r < 0)
                return r;
        data = NULL;
        *ret = f;
        return 0;
}

int hint_remove_segment(int dir_fd, uint64_t number) {
        char name[SEGMENT_NAME_MAX];
        segment_name(number, name);
        if (unlinkat(dir_fd, name, 0) < 0)
                return -errno;
        hint_name(number, name);
        if (hint_check_owner(dir_fd, name) >= 0)
                (void)unlinkat(dir_fd, name, 0); /* mostly there; without its segment it means nothing */
        return segment_sync_dir(dir_fd);
}

void hint_clean(int dir_fd, bool (*exists)(void *userdata, uint64_t number), void *userdata) {
        int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        uint64_t number;
        if (!dir) {
                close_fd(fd);
                return; /* what is there is only in the way of nobody */
        }
        for (struct dirent *e; (e = readdir(dir));) {
                bool is_left = strcmp(e->d_name, new_name) == 0 ||
                               (hint_parse_name(e->d_name, &number) && !exists(userdata, number));
                if (is_left && hint_check_owner(dir_fd, e->d_name) >= 0)
                        (void)unlinkat(dir_fd, e->d_name, 0);
        }
        (void)closedir(dir);
}
