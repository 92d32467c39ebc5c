/* SPDX-License-Identifier: MIT */
/* Reads the log when the store is opened.
 *
 *   names -> heal the tail -> read every segment from the oldest on into the index -> tell what is there -> begin a new one
 *
 * A bad record that was not only written in part is damage: torn.h tells the two apart. It is copied to a file of its own,
 * reported and left out; everything else is served. Where its header tells what it was, the SEQ of a task is not given again, and
 * what had ended does not run again. */

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
#include "store/replay.h"
#include "store/torn.h"

/* ---- what is kept aside ---- */

/* Durably, before anything goes: else nothing is opened, and the bytes are where they were. Of n_bytes that are no good n are there
 * to be kept; none of those that cannot be read or are gone. */
static int keep_damaged(Replay *p, uint64_t segment, uint32_t at, const char *data, uint32_t n, uint32_t n_bytes) {
        StoreDamage d;
        if (p->quiet)
                return 0;
        while (n > 1 && data[n - 1] == 0) /* what was never written */
                n--;
        int e = damage_keep(p->store->dir_fd, segment, at, data, n, &d);
        if (e < 0) {
                snprintf(p->error, p->error_size,
                         "%s is damaged, and what is there cannot be kept aside in %s: %s; make room for it", d.file,
                         d.kept, strerror(-e));
                return e;
        }
        p->n_damaged++;
        if (n == 0)
                d.n_bytes = n_bytes;
        if (damage_is_news(p->store, segment, at, true) && p->reader->damaged)
                p->reader->damaged(p->userdata, d.file, d.at, d.n_bytes, d.kept);
        return 0;
}

static int keep_header(Replay *p, const Segment *s) {
        char header[SEGMENT_HEADER];
        int e = segment_read(s, 0, header, sizeof(header));
        return e < 0 ? e : keep_damaged(p, s->number, 0, header, sizeof(header), sizeof(header));
}

/* ---- the files ---- */

/* Of one start so often in all: what waits for it is more than what it waits for. */
bool replay_try_again(void *userdata, const Segment *s) {
        Replay *p = userdata;
        char name[SEGMENT_NAME_MAX];
        if (p->n_waited * READ_AGAIN_SEC >= READ_PATIENCE_SEC)
                return false;
        segment_name(s->number, name);
        if (p->n_waited++ == 0 && p->reader->unread)
                p->reader->unread(p->userdata, name, READ_PATIENCE_SEC);
        patience_wait();
        return true;
}

static int open_segment(Replay *p, uint64_t number, Segment *ret) {
        int e;
        do
                e = place_open(p->store->dir_fd, ret, (uint32_t)number);
        while (e == -EIO && replay_try_again(p, &(Segment) { .number = number }));
        return e;
}

static int compare_segments(const void *a, const void *b) {
        const Segment *x = a, *y = b;
        return x->number < y->number ? -1 : x->number > y->number;
}

int replay_add(Replay *p, uint64_t number) {
        if (number == 0 || number >= UINT32_MAX / 2) {
                snprintf(p->error, p->error_size, "log-%016" PRIx64 " has a number that eqd never gives; move it away",
                         number);
                return -EBADMSG;
        }
        if (p->n == p->cap) {
                size_t cap = MAX(p->cap * 2, (size_t)16);
                Segment *more = fault_realloc(p->segments, cap * sizeof(Segment));
                if (!more)
                        return -ENOMEM;
                p->segments = more;
                p->cap = cap;
        }
        Segment *s = &p->segments[p->n];
        *s = (Segment)SEGMENT_NULL;
        int r = open_segment(p, number, s);
        if (r >= 0 && s->is_mended)
                r = keep_header(p, s);
        segment_close(s);
        if (r >= 0) {
                p->n++;
                p->store->stats.open_bytes += SEGMENT_HEADER;
                return 0;
        }
        char name[SEGMENT_NAME_MAX];
        segment_name(number, name);
        const char *why = segment_refusal(r);
        if (why)
                snprintf(p->error, p->error_size, "%s %s", name, why);
        else if (p->error[0] == '\0')
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
                        r = replay_add(p, number);
        (void)closedir(dir); /* nothing was written */
        if (p->n > 0)
                qsort(p->segments, p->n, sizeof(Segment), compare_segments);
        return r;
}

int replay_read(Replay *p, const Segment *s, Image *ret) {
        _cleanup_(segment_close) Segment open = SEGMENT_NULL;
        bool has_gaps = false;
        int e = 0;
        if (p->image_of != s->number) {
                p->image_of = 0;
                p->image_good = 0;
                e = open_segment(p, s->number, &open);
                if (e >= 0)
                        e = segment_read_all(&open, &p->image, &p->image_cap, replay_try_again, p, &has_gaps);
                if (e < 0)
                        return e;
                p->store->stats.open_bytes += s->size;
                p->image_of = has_gaps ? 0 : s->number;
        }
        *ret = (Image) { .segment = s, .data = p->image, .good = p->image_good };
        return 0;
}

long replay_record(const Image *i, uint32_t at, Record *ret) {
        enum { AHEAD = 8 };
        if (at >= i->good)
                return record_read(i->data + at, i->segment->size - at, i->segment->salt, ret);
        record_peek(i->data + at, ret);
        size_t n = record_size(ret->body.len);
        const char *ahead = i->data + at + AHEAD * n;
        __builtin_prefetch(ahead); /* if those in between are as long, one begins there; else nothing happens */
        __builtin_prefetch(ahead + RECORD_HEADER);
        return (long)n;
}

/* ---- damage ---- */

/* Where the next good record begins at or after `at`; the size of the segment if there is none. */
uint32_t replay_resynchronise(const Image *i, uint32_t at) {
        enum { STEP = RECORD_HEADER };
        static const char zeros[2 * STEP];
        const Segment *s = i->segment;
        Record r;
        for (; at + RECORD_HEADER <= s->size; at += 8) {
                while (at + sizeof(zeros) <= s->size && memcmp(i->data + at, zeros, sizeof(zeros)) == 0)
                        at += STEP; /* what was never written: no header begins before that */
                if (record_read(i->data + at, s->size - at, s->salt, &r) > 0)
                        return at;
        }
        return s->size;
}

/* False: zeros up to the end. */
bool replay_look_at_bad(const Image *i, uint32_t at, Bad *ret) {
        const Segment *s = i->segment;
        ret->size = (uint32_t)record_was(i->data + at, s->size - at, s->salt, &ret->was);
        ret->end = ret->size ? at + ret->size : replay_resynchronise(i, at);
        if (ret->end == s->size)
                ret->end = MIN((torn_written_until(i->data, s->size, at) + 7) & ~7U, s->size);
        return ret->end > at;
}

/* tail: NULL: not of the last segment. */
bool replay_is_torn(const Image *i, const Tail *tail, uint32_t at, const Bad *b) {
        if (!tail)
                return false;
        if (torn_by_death(i->data, i->segment->size, at, b->size))
                return true;
        uint32_t header_end = MIN(at + RECORD_HEADER, b->end); /* of the first of several, if its size is not known */
        return !tail->is_same && at >= tail->torn &&
               (torn_by_power(i->data, at, header_end) || torn_by_power(i->data, at, b->end));
}

bool replay_trace_of(const Record *was, Record *ret) {
        *ret = *was;
        ret->body = (StoreBytes) { 0 };
        ret->kind = was->kind == STORE_TASK ? STORE_SEEN : was->kind;
        return was->kind == STORE_TASK || was->kind == STORE_END || was->kind == STORE_FORGET ||
               was->kind == STORE_SEEN;
}

/* ---- records ---- */

static StoreBytes begin_of(const Record *r) {
        return (StoreBytes) { r->body.data, MIN(r->body.len, (uint32_t)STORE_BEGIN) };
}

static int apply(Replay *p, const Segment *s, const Record *r, uint32_t at) {
        int e = index_apply(&p->store->index, r, (uint32_t)s->number, at);
        if (e >= 0 && p->making && r->kind == STORE_TASK)
                e = hint_add(p->making, r, begin_of(r), at, true);
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

/* A part of the segment that a walk leaves out. */
static int pass_damage(Replay *p, const Image *i, uint32_t at, const Bad *b, RecordFunc func, bool *half) {
        Record trace;
        int e = keep_damaged(p, i->segment->number, at, i->data + at, b->end - at, b->end - at);
        *half = *half && (b->size == 0 || (b->was.flags & RECORD_INSIDE));
        if (e < 0 || *half)
                return e;
        if (b->size > 0 && replay_trace_of(&b->was, &trace))
                e = remember(p, &trace, NOWHERE);
        bool goes_on = b->size > 0 &&
                       (b->was.flags & RECORD_MORE); /* if that is not known, its last one may be what is damaged */
        return e >= 0 && !goes_on ? end_group(p, i->segment, func) : e;
}

/* A group does not reach over the end of a segment: in others than the last its members were complete when the segment was left. */
int replay_walk(Replay *p, const Image *i, const Tail *tail, RecordFunc func, uint32_t *ret_cut) {
        const Segment *s = i->segment;
        *ret_cut = 0;
        uint32_t at = SEGMENT_HEADER;
        int e = 0;
        bool half = false; /* a part of the group was not there */
        for (bool was_bad = false; e >= 0;) {
                Record r;
                Bad bad;
                long n = replay_record(i, at, &r);
                if (n > 0 && r.kind == STORE_SEAL)
                        break;
                if (n <= 0 && !replay_look_at_bad(i, at, &bad)) {
                        *ret_cut = was_bad ? 0 : at;
                        break;
                }
                was_bad = n <= 0;
                if (n > 0) {
                        half = half && (r.flags & RECORD_INSIDE);
                        if (!half)
                                e = remember(p, &r, at);
                        if (e >= 0 && !half && !(r.flags & RECORD_MORE))
                                e = end_group(p, s, func);
                } else if (replay_is_torn(i, tail, at, &bad)) {
                        p->n_group = 0;
                        half = true;
                } else
                        e = pass_damage(p, i, at, &bad, func, &half);
                at = n > 0 ? at + (uint32_t)n : bad.end;
        }
        if (e >= 0 && !tail)
                e = end_group(p, s, func);
        p->n_group = 0;
        return e;
}

/* The same without a word about damage. */
static int walk_quietly(Replay *p, const Image *i, RecordFunc func) {
        uint32_t cut;
        p->quiet = true;
        int e = replay_walk(p, i, NULL, func, &cut);
        p->quiet = false;
        return e;
}

/* ---- reading ---- */

typedef int (*HintFunc)(Replay *p, const Segment *s, const HintEntry *e);

static int each_hint(Replay *p, const Segment *s, const HintFile *f, HintFunc func) {
        int r = 0;
        for (uint32_t i = 0; i < f->n_entries && r >= 0; i++) {
                HintEntry e;
                hint_entry(f, i, &e);
                r = func(p, s, &e);
        }
        return r;
}

static int read_place(Replay *p, const IndexPlace *place, const Record *want, char **buf, size_t *cap, Record *ret) {
        int e;
        do
                e = place_read(p->store->dir_fd, &p->latest, place, want, buf, cap, ret);
        while (e == -EIO && replay_try_again(p, &p->latest));
        return e;
}

/* A hint or the index names it, but nobody may have looked at it yet. 1: it cannot be read, and that is told; *ret: what it was, with
 * kind 0 if that is not known. */
static int read_at(Replay *p, const IndexPlace *place, const Record *want, char **buf, Record *ret) {
        size_t cap = 0;
        int e = open_segment(p, place->segment, &p->latest);
        if (e < 0)
                return e; /* it says nothing of the record */
        e = read_place(p, place, want, buf, &cap, ret);
        p->store->stats.open_bytes += place->size;
        if (e != -EBADMSG && e != -EIO)
                return e;
        (void)record_was(*buf, e == -EIO ? 0 : place->size, p->latest.salt, ret);
        e = keep_damaged(p, place->segment, place->at, *buf, e == -EIO ? 0 : place->size, place->size);
        return e < 0 ? e : 1;
}

/* The name is in the body. In the place of one that cannot be read the first of the two takes effect. */
static int apply_named(Replay *p, const Segment *s, const HintEntry *h) {
        IndexPlace place = { (uint32_t)s->number, h->at, (uint32_t)record_size(h->record.body.len) };
        _cleanup_free_ char *buf = NULL;
        size_t cap = 0;
        Record r;
        int e = read_at(p, &place, &h->record, &buf, &r);
        if (e <= 0)
                return e < 0 ? e : apply(p, s, &r, h->at);
        free(TAKE_PTR(buf));
        place.at -= MIN(place.at - SEGMENT_HEADER, place.size);
        e = read_place(p, &place, &h->record, &buf, &cap, &r);
        return e < 0 ? 0 : apply(p, s, &r, place.at);
}

static int apply_hint(Replay *p, const Segment *s, const HintEntry *h) {
        if (h->record.kind == STORE_QUEUE || h->record.kind == STORE_GONE)
                return apply_named(p, s, h);
        return apply(p, s, &h->record, h->at);
}

static int apply_file(Replay *p, const Segment *s, const HintFile *f) {
        int e = each_hint(p, s, f, apply_hint);
        for (uint32_t i = 0; i < f->n_queues && e >= 0; i++) {
                uint64_t id, last_seq;
                hint_queue(f, i, &id, &last_seq);
                if (last_seq > 0)
                        e = index_saw_seq(&p->store->index, id, last_seq);
        }
        return e;
}

/* For the second look; memory that is short is no reason to fail. */
static void keep_made(Replay *p, const Segment *s, const Hint *made, SegmentHint *ret) {
        char *data;
        size_t size;
        if (hint_encode(made, s, &data, &size) < 0)
                return;
        ret->file = (HintFile) { data, size, made->n_queues, made->n_entries, made->end };
        p->n_kept++;
}

/* What was there is lost. The active one, which goes on in the place of its seal, is written there again. */
static int tell_cut(Replay *p, const Segment *s, uint32_t at) {
        bool is_active = s->number == p->store->active.number;
        return at == 0 || is_active ? 0 : keep_damaged(p, s->number, at, "", 0, s->size - at);
}

static int read_whole(Replay *p, const Segment *s, SegmentHint *ret) {
        Image image = { 0 };
        uint32_t cut = 0;
        unsigned before = p->n_damaged;
        _cleanup_(hint_done) Hint made = HINT_NULL;
        int e = replay_read(p, s, &image);
        p->making = p->reader->brief && p->n_kept < HINTS_KEPT ? &made : NULL;
        if (e >= 0)
                e = replay_walk(p, &image, NULL, apply, &cut);
        if (e >= 0 && p->making)
                keep_made(p, s, &made, ret);
        p->making = NULL;
        if (e >= 0)
                e = tell_cut(p, s, cut);
        if (e >= 0 && cut == 0 && p->n_damaged == before)
                hints_want(p->store, s->number);
        return e;
}

/* Nothing depends on it, but somebody should know. */
static void tell_hint(const Replay *p, const Segment *s, int error) {
        char name[SEGMENT_NAME_MAX];
        hint_name(s->number, name);
        if (!p->reader->noticed || (error != -EBADMSG && error != -EPROTONOSUPPORT && error != -EIO))
                return;
        p->reader->noticed(p->userdata, name,
                           error == -EPROTONOSUPPORT
                                   ? "is of a later version of eqd: it is left alone, and its segment is read"
                           : hint_check_owner(p->store->dir_fd, name) >= 0
                                   ? "is damaged: its segment is read, and it is made again"
                                   : "is damaged, or not of eqd: it is left alone, and its segment is read");
}

static int read_segment(Replay *p, size_t i) {
        const Segment *s = &p->segments[i];
        SegmentHint *h = &p->hints[i];
        HintFile f;
        if (fault_hit(FAULT_SLOW)) /* for tests of a long start */
                (void)sleep(1);
        int e = hint_read(p->store->dir_fd, s, &f);
        h->is_good = e >= 0;
        tell_hint(p, s, e);
        p->done_bytes += s->size;
        if (!h->is_good)
                return read_whole(p, s, h);
        p->store->stats.n_hints_used++;
        p->store->stats.open_bytes += f.size;
        e = apply_file(p, s, &f);
        if (p->reader->brief && p->n_kept < HINTS_KEPT / 2) { /* the others cost more to be made again */
                h->file = f;
                p->n_kept++;
        } else
                hint_file_done(&f);
        return e;
}

static void tell_progress(const Replay *p, uint64_t all) {
        if (p->reader->progress)
                p->reader->progress(p->userdata, p->done_bytes, all);
}

static int read_all(Replay *p) {
        uint64_t all = 0;
        int e = 0;
        p->hints = fault_calloc(p->n + 1, sizeof(*p->hints));
        if (!p->hints)
                return -ENOMEM;
        for (size_t i = 0; i < p->n; i++)
                all += p->segments[i].size;
        if (p->n > 0) /* the first one takes its time, too */
                tell_progress(p, all);
        for (size_t i = 0; i < p->n && e >= 0; i++) {
                e = read_segment(p, i);
                tell_progress(p, all);
        }
        index_drop_incomplete(&p->store->index);
        free(p->image); /* much, and mostly not needed again */
        p->image = NULL;
        p->image_cap = 0;
        p->image_of = 0;
        return e;
}

/* ---- what is there ---- */

static int tell_queue(Replay *p, const IndexQueue *q) {
        _cleanup_free_ char *buf = NULL;
        const Record want = { .kind = STORE_QUEUE, .queue = q->id };
        Record r;
        int e = read_at(p, &q->place, &want, &buf, &r);
        if (e != 0)
                return MIN(e, 0);
        uint32_t skip = 1 + (uint32_t)strlen(q->name);
        StoreBytes name = { q->name, skip - 1 }, definition = { (const char *)r.body.data + skip, r.body.len - skip };
        return q->is_gone ? p->reader->gone(p->userdata, q->id, name, q->last_seq)
                          : p->reader->queue(p->userdata, q->id, name, q->last_seq, definition);
}

/* A task whose beginning is not enough gets a place that is nowhere in IndexQueue::lasts, where those are that are told as a
 * whole anyway. */
static int tell_brief(Replay *p, const Segment *s, const Record *r, uint32_t at, StoreBytes begin) {
        uint64_t ignored;
        if (r->kind != STORE_TASK || !index_is_live(&p->store->index, r, (uint32_t)s->number, at, &ignored))
                return 0;
        IndexQueue *q = index_queue(&p->store->index, r->queue);
        if (!q || !seq_table_get(&q->tasks, r->seq)) /* a hint that does not agree with itself */
                return 0;
        p->store->index.latest = q;
        if (seq_table_get(&q->lasts, r->seq))
                return 0;
        int e = p->reader->brief(p->userdata, r->queue, r->seq, r->lane, begin, r->body.len);
        if (e != 0)
                return MIN(e, 0);
        return seq_table_put(&q->lasts, r->seq) ? 0 : -ENOMEM;
}

static int tell_brief_record(Replay *p, const Segment *s, const Record *r, uint32_t at) {
        return tell_brief(p, s, r, at, begin_of(r));
}

static int tell_brief_hint(Replay *p, const Segment *s, const HintEntry *h) {
        return tell_brief(p, s, &h->record, h->at, h->begin);
}

static int tell_briefs_of(Replay *p, const Segment *s, SegmentHint *h) {
        Image image = { 0 };
        int e = 0;
        if (!h->file.data && h->is_good)
                e = hint_read(p->store->dir_fd, s, &h->file);
        else if (!h->file.data)
                e = replay_read(p, s, &image);
        if (e >= 0)
                e = h->file.data ? each_hint(p, s, &h->file, tell_brief_hint)
                                 : walk_quietly(p, &image, tell_brief_record);
        hint_file_done(&h->file);
        return e;
}

/* Once more through all segments, since the beginnings would be too much to be kept. */
static int tell_briefs(Replay *p) {
        int e = 0;
        for (size_t i = 0; i < p->n && e >= 0; i++)
                e = tell_briefs_of(p, &p->segments[i], &p->hints[i]);
        return e;
}

/* What has become of the task; kind 0: nothing, or that is not known. 1: it has ended, and that is all that is known. */
static int read_last(Replay *p, const IndexQueue *q, uint64_t seq, const IndexPlace *last, char **buf, Record *ret) {
        const Record want = { .kind = STORE_STATE, .queue = q->id, .seq = seq };
        *ret = (Record) { 0 };
        if (!last || last->segment == 0)
                return 0;
        if (last->at == NOWHERE)
                return 1;
        int e = read_at(p, last, &want, buf, ret);
        if (e == 0)
                return ret->kind == STORE_END && ret->body.len == 0;
        if (e < 0 || ret->kind == STORE_END)
                return e;
        *ret = (Record) { 0 };
        return 0;
}

static int tell_task(Replay *p, IndexQueue *q, uint64_t seq, const IndexPlace *last) {
        _cleanup_free_ char *task_buf = NULL, *last_buf = NULL;
        const IndexPlace *place = seq_table_get(&q->tasks, seq);
        const Record want = { .kind = STORE_TASK, .queue = q->id, .seq = seq };
        const StoreItem gone = { .kind = STORE_FORGET, .queue = q->id, .seq = seq };
        Record task, end;
        int e = read_at(p, place, &want, &task_buf, &task);
        if (e > 0)
                index_drop_task(&p->store->index, q, seq);
        if (e != 0)
                return MIN(e, 0);
        e = read_last(p, q, seq, last, &last_buf, &end);
        if (e > 0)
                return store_append(p->store, &gone, 1); /* what it has ended may be moved, and then comes behind it */
        return e < 0 ? e : p->reader->task(p->userdata, q->id, seq, task.lane, task.body, end.kind, end.body);
}

static int tell_tasks(Replay *p, IndexQueue *q) {
        const SeqTable *tasks = p->reader->brief ? &q->lasts : &q->tasks;
        int e = 0;
        for (uint64_t seq = 0; e >= 0 && seq_table_next(tasks, &seq); seq++) {
                const IndexPlace *last = seq_table_get(&q->lasts, seq);
                bool only_here = last && last->segment == 0;
                e = tell_task(p, q, seq, last);
                if (only_here)
                        seq_table_remove(&q->lasts, seq);
        }
        return e;
}

static int tell(Replay *p) {
        int e = store_tell_marks(p->store, p->reader, p->userdata);
        for (IndexQueue *q = p->store->index.queues; q && e >= 0; q = q->hh.next) {
                e = tell_queue(p, q);
                if (e >= 0 && !p->reader->brief)
                        e = tell_tasks(p, q);
        }
        if (e < 0 || !p->reader->brief)
                return e < 0 || !p->reader->done ? e : p->reader->done(p->userdata);
        e = tell_briefs(p);
        for (IndexQueue *q = p->store->index.queues; q && e >= 0; q = q->hh.next)
                e = tell_tasks(p, q);
        return e < 0 || !p->reader->done ? e : p->reader->done(p->userdata);
}

static bool has_segment(void *userdata, uint64_t number) {
        const Replay *p = userdata;
        Segment key = { .number = number };
        return p->n > 0 && bsearch(&key, p->segments, p->n, sizeof(Segment), compare_segments);
}

int store_replay(Store *s, const StoreReader *reader, void *userdata, char *error, size_t error_size) {
        Replay p = { .store = s,
                     .reader = reader,
                     .userdata = userdata,
                     .error = error,
                     .error_size = error_size,
                     .latest = SEGMENT_NULL };
        int e = find_segments(&p);
        if (e >= 0) {
                if (hint_check_new(s->dir_fd) == -EEXIST && reader->noticed)
                        reader->noticed(userdata, "new-hint",
                                        "is not of eqd: it is left alone, and no hints are written");
                hint_clean(s->dir_fd, has_segment, &p);
                e = replay_heal_tail(&p);
        }
        if (e >= 0)
                e = read_all(&p);
        if (e >= 0)
                e = tell(&p);
        s->oldest = p.n > 0 ? p.segments[0].number : s->active.number;
        segment_close(&p.latest);
        free(p.image);
        free(p.segments);
        for (size_t i = 0; p.hints && i < p.n; i++)
                hint_file_done(&p.hints[i].file);
        free(p.hints);
        free(p.group);
        free(p.group_at);
        if (e == -EEXIST && error[0] == '\0')
                snprintf(error, error_size, "new is not of eqd, and in the place of what eqd writes; move it away");
        if (e < 0 && error[0] == '\0')
                snprintf(error, error_size, "the log of the store cannot be opened: %s; %s, then start eqd again",
                         strerror(-e),
                         store_is_short(e) ? "make room" : "see what the kernel says of the disk and mend it");
        return e;
}
