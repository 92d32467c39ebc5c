/* SPDX-License-Identifier: MIT */
/* Reads the log when the store is opened.
 *
 *   names -> heal the tail -> read every segment from the oldest on into the index -> tell what is there -> begin a new one
 *
 * The tail. An eqd that was killed leaves a last segment without a seal. What is in it may be in the page cache only, and a
 * sync that failed may have marked it clean: so its records are written again, into a new segment, synced, and the old one
 * is removed, before anybody acts on them. A record there that is not whole was never promised, nor the first records of a
 * group whose last one is missing: that is how a tail ends, and no damage.
 *
 * Damage is a bad record with a good one behind it, or anywhere but in the tail. It is copied to a file of its own,
 * reported and left out; everything else is served. */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

typedef struct Replay {
        Store *store;
        const StoreReader *reader;
        void *userdata;
        char *error;
        size_t error_size;
        Segment *segments; /* owned; by number */
        size_t n, cap;
        uint64_t done_bytes;
        Record *group; /* records of a group whose end has not come; owned */
        uint32_t *group_at;
        size_t n_group, cap_group;
} Replay;

/* ---- the files ---- */

static int compare_segments(const void *a, const void *b) {
        const Segment *x = a, *y = b;
        return x->number < y->number ? -1 : x->number > y->number;
}

static int add_segment(Replay *p, uint64_t number) {
        if (p->n == p->cap) {
                size_t cap = MAX(p->cap * 2, (size_t)16);
                Segment *more = fault_realloc(p->segments, cap * sizeof(Segment));
                if (!more)
                        return -ENOMEM;
                p->segments = more;
                p->cap = cap;
        }
        p->segments[p->n] = (Segment)SEGMENT_NULL;
        int r = segment_open(p->store->dir_fd, number, &p->segments[p->n]);
        if (r >= 0) {
                p->n++;
                return 0;
        }
        char name[SEGMENT_NAME_MAX];
        segment_name(number, name);
        if (r == -EPROTONOSUPPORT)
                snprintf(p->error, p->error_size, "%s is of a later version of eqd; use that version", name);
        else if (r == -EBADMSG)
                snprintf(p->error, p->error_size,
                         "%s is not a segment of eqd's log, or its header is damaged; move it away to start without it",
                         name);
        else
                snprintf(p->error, p->error_size, "cannot read %s: %s", name, strerror(-r));
        return r;
}

static int find_segments(Replay *p) {
        int fd = openat(p->store->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        int r = dir ? 0 : -errno;
        if (!dir) {
                close_fd(fd);
                return r;
        }
        uint64_t number;
        for (struct dirent *e; r >= 0 && (e = readdir(dir));)
                if (segment_parse_name(e->d_name, &number))
                        r = number > 0 && number < UINT32_MAX / 2 ? add_segment(p, number) : -EBADMSG;
        (void)closedir(dir); /* nothing was written */
        if (p->n > 0)
                qsort(p->segments, p->n, sizeof(Segment), compare_segments);
        return r;
}

/* ---- damage ---- */

/* Where the next good record begins at or after `at`; the size of the segment if there is none. */
static uint32_t resynchronise(const Segment *s, uint32_t at) {
        Record r;
        for (; at + RECORD_HEADER <= s->size; at += 8)
                if (record_read(s->map + at, s->size - at, s->salt, &r) > 0)
                        return at;
        return s->size;
}

static void keep_damaged(const Replay *p, const Segment *s, uint32_t at, uint32_t n) {
        char file[SEGMENT_NAME_MAX], kept[64];
        segment_name(s->number, file);
        snprintf(kept, sizeof(kept), "damaged-%016" PRIx64 "-%08x", s->number, at);
        int fd = openat(p->store->dir_fd, kept, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
        bool written =
                fd >= 0 && write(fd, s->map + at, n) == (ssize_t)n; /* as good as it goes: nobody depends on it */
        close_fd(fd);
        if (p->reader->damaged)
                p->reader->damaged(p->userdata, file, at, n, written ? kept : "nowhere");
}

/* ---- records ---- */

typedef int (*RecordFunc)(Replay *p, const Segment *s, const Record *r, uint32_t at);

static int apply(Replay *p, const Segment *s, const Record *r, uint32_t at) {
        int e = index_apply(&p->store->index, r, (uint32_t)s->number, at);
        return e == -EBADMSG ? 0 : e; /* its sum is right: of an eqd that knew what it means */
}

static int remember(Replay *p, const Record *r, uint32_t at) {
        if (p->n_group == p->cap_group) {
                size_t cap = MAX(p->cap_group * 2, (size_t)64);
                Record *more = fault_realloc(p->group, cap * sizeof(Record));
                if (more)
                        p->group = more;
                uint32_t *more_at = more ? fault_realloc(p->group_at, cap * sizeof(uint32_t)) : NULL;
                if (!more_at)
                        return -ENOMEM;
                p->group_at = more_at;
                p->cap_group = cap;
        }
        p->group[p->n_group] = *r;
        p->group_at[p->n_group++] = at;
        return 0;
}

static int end_group(Replay *p, const Segment *s, RecordFunc func) {
        int e = 0;
        for (size_t i = 0; i < p->n_group && e >= 0; i++)
                e = func(p, s, &p->group[i], p->group_at[i]);
        p->n_group = 0;
        return e;
}

typedef struct Walk {
        uint32_t end; /* behind the last good record */
        bool sealed;
} Walk;

/* Calls func for each record of the segment. tail: what is not whole at its end is no damage. A group does not reach over the
 * end of a segment here: its members there were complete when the segment was left, or the log ends with it. */
static int walk(Replay *p, const Segment *s, bool tail, RecordFunc func, Walk *ret) {
        uint32_t at = SEGMENT_HEADER;
        int e = 0;
        *ret = (Walk) { .end = at };
        while (e >= 0) {
                Record r;
                long n = record_read(s->map + at, s->size - at, s->salt, &r);
                if (n > 0 && r.kind == STORE_SEAL) {
                        ret->sealed = true;
                        break;
                }
                if (n > 0) {
                        e = remember(p, &r, at);
                        if (e >= 0 && !(r.flags & RECORD_MORE))
                                e = end_group(p, s, func);
                        at += (uint32_t)n;
                        ret->end = at;
                        continue;
                }
                uint32_t next = resynchronise(s, at);
                if (next == s->size) {
                        if (n != RECORD_END && !tail)
                                keep_damaged(p, s, at, MIN(next - at, 1U << 20));
                        break;
                }
                keep_damaged(p, s, at, next - at);
                e = end_group(p, s, func); /* its last one may be what is damaged */
                at = next;
        }
        if (e >= 0 && !tail)
                e = end_group(p, s, func);
        p->n_group = 0;
        p->done_bytes += s->size;
        return e;
}

/* ---- the tail ---- */

static int copy_record(Replay *p, const Segment *s, const Record *r, uint32_t at) {
        Store *store = p->store;
        size_t n = record_size(r->body.len);
        char *copy = fault_calloc(1, n);
        if (!copy)
                return -ENOMEM;
        Record alone = *r;
        alone.flags = 0; /* func is called for whole groups only */
        record_put_header(copy, &alone);
        memcpy(copy + RECORD_HEADER, r->body.data, r->body.len);
        record_seal(copy, store->active.salt);
        int e = segment_write(&store->active, store->at, copy, n);
        store->at += (uint32_t)n;
        free(copy);
        return e;
}

static bool is_empty(const Segment *s) {
        Record r;
        return record_read(s->map + SEGMENT_HEADER, s->size - SEGMENT_HEADER, s->salt, &r) == RECORD_END;
}

static int seal(Store *s) {
        char p[RECORD_HEADER];
        record_put_header(p, &(Record) { .kind = STORE_SEAL });
        record_seal(p, s->active.salt);
        int e = segment_write(&s->active, s->at, p, sizeof(p));
        return e < 0 ? e : segment_sync(&s->active);
}

static int drop_last(Replay *p) {
        Segment *s = &p->segments[p->n - 1];
        uint64_t number = s->number;
        segment_close(s);
        p->n--;
        return segment_remove(p->store->dir_fd, number);
}

static int nothing(Replay *p, const Segment *s, const Record *r, uint32_t at) {
        return 0;
}

/* Rewrites the last segment unless it was left in order. Segments behind it, made in advance, are empty: they go. */
static int heal_tail(Replay *p) {
        Store *s = p->store;
        Walk w;
        int e = 0;
        uint64_t number = p->n > 0 ? p->segments[p->n - 1].number + 1 : 1;
        while (e >= 0 && p->n > 0 && is_empty(&p->segments[p->n - 1]))
                e = drop_last(p);
        if (e < 0 || p->n == 0)
                return e < 0 ? e : store_begin_segment(s, number);

        Segment *last = &p->segments[p->n - 1];
        StoreReader quiet = { 0 };
        const StoreReader *reader = p->reader;
        p->reader = &quiet;
        e = walk(p, last, true, nothing, &w);
        p->reader = reader;
        p->done_bytes = 0;
        if (e < 0 || w.sealed)
                return e < 0 ? e : store_begin_segment(s, number);

        e = segment_create(s->dir_fd, number, last->size, &s->active);
        s->at = SEGMENT_HEADER;
        if (e >= 0)
                e = walk(p, last, true, copy_record, &w);
        p->done_bytes = 0;
        if (e >= 0)
                e = seal(s);
        if (e >= 0)
                e = drop_last(p);
        if (e >= 0)
                e = add_segment(p, number);
        segment_close(&s->active);
        return e < 0 ? e : store_begin_segment(s, number + 1);
}

/* ---- what is there ---- */

static const Segment *segment_of(const Replay *p, uint32_t number) {
        Segment key = { .number = number };
        return bsearch(&key, p->segments, p->n, sizeof(Segment), compare_segments);
}

/* The index names it, so it is there and good. */
static void read_at(const Replay *p, const IndexPlace *place, Record *ret) {
        const Segment *s = segment_of(p, place->segment);
        record_peek(s->map + place->at, ret);
}

static int tell_task(const Replay *p, const IndexQueue *q, uint64_t seq, const IndexTask *t) {
        Record task, last = { 0 };
        read_at(p, &t->task, &task);
        if (t->last.segment)
                read_at(p, &t->last, &last);
        return p->reader->task(p->userdata, q->id, seq, task.lane, task.body, last.kind, last.body);
}

static int tell_queue(const Replay *p, const IndexQueue *q) {
        Record r;
        read_at(p, &q->place, &r);
        uint32_t skip = 1 + (uint32_t)strlen(q->name);
        StoreBytes name = { q->name, skip - 1 }, definition = { (const char *)r.body.data + skip, r.body.len - skip };
        int e = q->is_gone ? p->reader->gone(p->userdata, q->id, name, q->last_seq)
                           : p->reader->queue(p->userdata, q->id, name, q->last_seq, definition);
        uint64_t seq = 0;
        for (IndexTask *t; e >= 0 && (t = seq_index_next(&q->tasks, &seq)); seq++)
                e = tell_task(p, q, seq, t);
        return e;
}

static int tell(Replay *p) {
        int e = marks_each(p->store->marks, p->reader, p->userdata);
        for (const IndexQueue *q = p->store->index.queues; q && e >= 0; q = q->hh.next)
                e = tell_queue(p, q);
        return e < 0 ? e : p->reader->done(p->userdata);
}

static int read_all(Replay *p) {
        uint64_t all = 0;
        Walk w;
        int e = 0;
        for (size_t i = 0; i < p->n; i++)
                all += p->segments[i].size;
        for (size_t i = 0; i < p->n && e >= 0; i++) {
                e = walk(p, &p->segments[i], false, apply, &w);
                if (p->reader->progress)
                        p->reader->progress(p->userdata, p->done_bytes, all);
        }
        index_drop_incomplete(&p->store->index);
        return e;
}

int store_replay(Store *s, const StoreReader *reader, void *userdata, char *error, size_t error_size) {
        Replay p = { .store = s, .reader = reader, .userdata = userdata, .error = error, .error_size = error_size };
        int e = find_segments(&p);
        if (e >= 0)
                e = heal_tail(&p);
        if (e >= 0)
                e = read_all(&p);
        if (e >= 0)
                e = tell(&p);
        s->oldest = p.n > 0 ? p.segments[0].number : s->active.number;
        for (size_t i = 0; i < p.n; i++)
                segment_close(&p.segments[i]);
        free(p.segments);
        free(p.group);
        free(p.group_at);
        if (e < 0 && error[0] == '\0')
                snprintf(error, error_size, "cannot read the log: %s", strerror(-e));
        return e;
}
