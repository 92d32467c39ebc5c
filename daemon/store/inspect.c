/* SPDX-License-Identifier: MIT */
/* names -> each segment from the oldest on: records into the index, hint against records -> what hints leave out -> other files
 *
 * A hint is good as it is if it names all of its segment that lives, which is known when all is read; so what it names is kept as
 * a bit for each place. Beside an eqd that is at work the hint is read before the end of the log: what it leaves out as dead has
 * died in what is read behind it. */

#include "store/inspect.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/marks.h"
#include "store/replay.h"

const InspectProblemRow inspect_problems[_INSPECT_PROBLEM_MAX] = {
#define STORE_PROBLEM(ID, name_, LEVEL, what_, at_start_, advice_)                                                     \
        [PROBLEM_##ID] = { .name = (name_),                                                                            \
                           .what = (what_),                                                                            \
                           .at_start = (at_start_),                                                                    \
                           .advice = (advice_),                                                                        \
                           .level = INSPECT_##LEVEL },
#include "store/problems.def"
};

const char *const inspect_levels[_INSPECT_LEVEL_MAX] = {
        [INSPECT_NOTE] = "note",
        [INSPECT_DAMAGE] = "damage",
        [INSPECT_REFUSED] = "refused",
        [INSPECT_UNREAD] = "unread",
};

/* ---- findings ---- */

void inspect_found(Inspect *x, InspectProblem problem) {
        x->n_findings[inspect_problems[problem].level]++;
}

static int tell(Inspect *x, const InspectFinding *f) {
        inspect_found(x, f->problem);
        return x->reader->finding ? x->reader->finding(x->userdata, f) : 0;
}

static int tell_file(Inspect *x, InspectProblem problem, const char *file, int error) {
        return tell(x, &(InspectFinding) { .problem = problem, .file = file, .error = error });
}

/* ---- names ---- */

static int by_number(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
        return x < y ? -1 : x > y;
}

static int add_number(uint64_t **numbers, size_t *n, size_t *cap, uint64_t number) {
        if (*n == *cap) {
                size_t more_cap = MAX(*cap * 2, (size_t)16);
                uint64_t *more = fault_realloc(*numbers, more_cap * sizeof(*more));
                if (!more)
                        return -ENOMEM;
                *numbers = more;
                *cap = more_cap;
        }
        (*numbers)[(*n)++] = number;
        return 0;
}

bool inspect_has_segment(const Inspect *x, uint64_t number) {
        return x->n > 0 && bsearch(&number, x->numbers, x->n, sizeof(number), by_number);
}

typedef int (*NameFunc)(Inspect *x, const char *name);

static int each_name(Inspect *x, NameFunc func) {
        int fd = openat(x->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        int r = dir ? 0 : -errno;
        if (!dir) {
                close_fd(fd);
                return r;
        }
        for (struct dirent *e; r >= 0 && (e = readdir(dir));)
                if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
                        r = func(x, e->d_name);
        (void)closedir(dir); /* nothing was written */
        return r;
}

static int find_segment(Inspect *x, const char *name) {
        uint64_t number;
        if (!segment_parse_name(name, &number))
                return 0;
        if (number == 0 || number >= UINT32_MAX / 2)
                return x->listed ? 0 : tell_file(x, PROBLEM_NUMBER, name, 0);
        return add_number(&x->numbers, &x->n, &x->cap, number);
}

static int find_segments(Inspect *x) {
        x->n = 0;
        int r = each_name(x, find_segment);
        x->listed = true;
        if (x->n > 0)
                qsort(x->numbers, x->n, sizeof(*x->numbers), by_number);
        return r;
}

/* Those that no segment's number is in. */
static int look_at_other(Inspect *x, const char *name) {
        uint64_t number, place;
        char kept[64];
        x->n_files++;
        if (segment_parse_name(name, &number) || strcmp(name, "running") == 0)
                return 0;
        if (hint_parse_name(name, &number))
                return x->in_use || inspect_has_segment(x, number) ? 0 : tell_file(x, PROBLEM_HINT_ALONE, name, 0);
        if (strcmp(name, "new") == 0 || strcmp(name, "new-hint") == 0 || strcmp(name, "new-running") == 0)
                return x->in_use ? 0 : tell_file(x, PROBLEM_UNFINISHED, name, 0);
        if (sscanf(name, "damaged-%16" SCNx64 "-%8" SCNx64, &number, &place) == 2) {
                snprintf(kept, sizeof(kept), "damaged-%016" PRIx64 "-%08" PRIx64, number, place);
                size_t len = strlen(kept);
                if (strncmp(kept, name, len) == 0 && (name[len] == '\0' || name[len] == '-')) {
                        x->n_kept++;
                        return tell_file(x, PROBLEM_KEPT, name, 0);
                }
        }
        return tell_file(x, PROBLEM_FOREIGN, name, 0);
}

/* 0, an error of marks_read_head(), or of the system. */
static int count_marks(Inspect *x, uint64_t *ret_bad) {
        _cleanup_close_ int fd = openat(x->dir_fd, "running", O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        struct stat st;
        MarksHead head;
        MarkSeen ignored;
        char header[MARKS_HEADER] = "", rows[256 * MARK_SIZE];
        if (fd < 0 || fstat(fd, &st) < 0)
                return errno == ELOOP || errno == ENXIO ? -EBADMSG : -errno;
        if (!S_ISREG(st.st_mode))
                return -EBADMSG;
        if (pread(fd, header, sizeof(header), 0) < 0)
                return -errno;
        int r = marks_read_head(header, (uint64_t)st.st_size, &head);
        if (r < 0)
                return r;
        *ret_bad = head.damaged;
        for (off_t at = MARKS_HEADER; at < st.st_size; at += (off_t)sizeof(rows)) {
                if (pread(fd, rows, sizeof(rows), at) != (ssize_t)sizeof(rows))
                        return -EIO;
                for (size_t i = 0; i < sizeof(rows); i += MARK_SIZE) {
                        MarkState state = mark_read(rows + i, &ignored);
                        x->n_marks += state == MARK_SET || state == MARK_MENDED;
                        *ret_bad += state == MARK_MENDED || state == MARK_SPOILED || state == MARK_DAMAGED;
                }
        }
        return 0;
}

static int look_at_marks(Inspect *x) {
        uint64_t n_bad = 0;
        int r = count_marks(x, &n_bad);
        if (r == -ENOENT)
                return 0; /* eqd makes it */
        if (r == -EBADMSG || r == -EPROTONOSUPPORT)
                return tell_file(x, PROBLEM_RUNNING, "running", 0);
        if (r < 0)
                return tell_file(x, PROBLEM_UNREADABLE, "running", r);
        if (n_bad == 0 || x->in_use) /* a mark is written while it is looked at */
                return 0;
        return tell(x, &(InspectFinding) { .problem = PROBLEM_MARK, .file = "running", .count = n_bad });
}

/* ---- one segment ---- */

/* A walk over it, as replay_walk() is one. */
typedef struct Walk {
        Inspect *x;
        Image image;
        char name[SEGMENT_NAME_MAX];
        Tail tail;
        bool is_last;       /* it may end without a seal: then `tail` says how */
        bool to_index;      /* what is good goes there */
        bool dry;           /* nothing is told, nothing goes anywhere */
        bool half;          /* a part of the group was not there */
        bool sealed;        /* it was read up to its seal */
        uint32_t end;       /* behind what is whole, or of the seal */
        uint64_t n_outlive; /* records that every hint names */
        uint64_t n_problems;
} Walk;

static int walk_tell(Walk *w, InspectProblem problem, uint32_t at, uint32_t end, const Record *was) {
        w->n_problems++;
        InspectFinding f = {
                .problem = problem, .file = w->name, .has_place = true, .at = at, .n_bytes = end - at, .was = was
        };
        return w->dry ? 0 : tell(w->x, &f);
}

static int to_index(Walk *w, const Record *r, uint32_t at) {
        Inspect *x = w->x;
        uint32_t segment = (uint32_t)w->image.segment->number;
        w->n_outlive += r->kind == STORE_FORGET || r->kind == STORE_GONE;
        if (w->dry || !w->to_index || (segment == x->open && at < x->open_end))
                return 0;
        x->n_records++;
        int e = index_apply(&x->index, r, segment, at);
        if (e >= 0 && r->kind == STORE_END)
                e = live_map_set(r->body.len > 0 ? &x->ends : &x->bare_ends, segment, at);
        return e == -EBADMSG ? walk_tell(w, PROBLEM_SENSELESS, at, at + (uint32_t)record_size(r->body.len), r) : e;
}

/* Of a group all is taken or nothing. */
static int remember(Walk *w, const Record *r, uint32_t at) {
        Inspect *x = w->x;
        if (x->n_group == x->cap_group) {
                size_t cap = MAX(x->cap_group * 2, (size_t)64);
                InspectMember *more = fault_realloc(x->group, cap * sizeof(*more));
                if (!more)
                        return -ENOMEM;
                x->group = more;
                x->cap_group = cap;
        }
        x->group[x->n_group++] = (InspectMember) { *r, at };
        return 0;
}

static int end_group(Walk *w) {
        int e = 0;
        for (size_t i = 0; i < w->x->n_group && e >= 0; i++)
                e = to_index(w, &w->x->group[i].record, w->x->group[i].at);
        w->x->n_group = 0;
        return e;
}

static int tell_record(const Walk *w, const Record *r, uint32_t at) {
        Inspect *x = w->x;
        bool wanted = !w->dry && !w->to_index && x->reader->record;
        return wanted ? x->reader->record(x->userdata, w->image.segment->number, at, r) : 0;
}

static int take(Walk *w, const Record *r, uint32_t at, uint32_t end) {
        int e = tell_record(w, r, at);
        w->half = w->half && (r->flags & RECORD_INSIDE);
        if (e < 0)
                return e;
        if (w->half)
                return walk_tell(w, PROBLEM_TORN, at, end, r);
        e = remember(w, r, at);
        return e < 0 || (r->flags & RECORD_MORE) ? e : end_group(w);
}

static int pass_damage(Walk *w, uint32_t at, const Bad *b) {
        Record trace;
        uint32_t end = b->end;
        while (end > at + 1 && w->image.data[end - 1] == 0) /* what was never written */
                end--;
        int e = walk_tell(w, PROBLEM_RECORD, at, end, b->size > 0 ? &b->was : NULL);
        w->half = w->half && (b->size == 0 || (b->was.flags & RECORD_INSIDE));
        if (e < 0 || w->half)
                return e;
        if (b->size > 0 && replay_trace_of(&b->was, &trace))
                e = remember(w, &trace, NOWHERE);
        bool goes_on = b->size > 0 && (b->was.flags & RECORD_MORE);
        return e >= 0 && !goes_on ? end_group(w) : e;
}

static int pass_bad(Walk *w, uint32_t at, const Bad *b) {
        if (!replay_is_torn(&w->image, w->is_last ? &w->tail : NULL, at, b))
                return pass_damage(w, at, b);
        w->x->n_group = 0;
        w->half = true;
        return w->x->in_use ? 0 : walk_tell(w, PROBLEM_TORN, at, b->end, b->size > 0 ? &b->was : NULL);
}

/* Of one that is open at the end of a last segment nothing is taken. */
static int end_open_group(Walk *w) {
        if (w->x->n_group == 0)
                return 0;
        if (!w->is_last)
                return end_group(w);
        uint32_t begin = w->x->group[0].at;
        w->x->n_group = 0;
        if (!w->x->in_use)
                return walk_tell(w, PROBLEM_TORN, begin, w->end, NULL);
        w->end = begin != NOWHERE ? begin : w->end;
        return 0;
}

static int walk(Walk *w) {
        const Segment *s = w->image.segment;
        uint32_t at = SEGMENT_HEADER;
        int e = 0;
        w->end = at;
        w->x->n_group = 0;
        while (e >= 0) {
                Record r;
                Bad bad;
                long n = record_read(w->image.data + at, s->size - at, s->salt, &r);
                w->sealed = n > 0 && r.kind == STORE_SEAL;
                if (w->sealed)
                        e = tell_record(w, &r, at);
                if (w->sealed || (n <= 0 && !replay_look_at_bad(&w->image, at, &bad)))
                        break;
                e = n > 0 ? take(w, &r, at, at + (uint32_t)n) : pass_bad(w, at, &bad);
                at = n > 0 ? at + (uint32_t)n : bad.end;
                w->end = n > 0 ? at : w->end;
        }
        w->end = w->sealed ? at : w->end;
        if (e >= 0)
                e = end_open_group(w);
        if (e < 0 || w->sealed)
                return e;
        if (!w->is_last)
                return walk_tell(w, PROBLEM_NO_SEAL, w->end, s->size, NULL);
        return w->x->in_use || w->end == SEGMENT_HEADER ? 0 : walk_tell(w, PROBLEM_UNSEALED, w->end, w->end, NULL);
}

/* Nothing was ever written to it. */
static bool is_empty(const Inspect *x, uint64_t number) {
        _cleanup_(segment_close) Segment s = SEGMENT_NULL;
        char header[RECORD_HEADER];
        Record r;
        return segment_open(x->dir_fd, number, &s) >= 0 &&
               segment_read(&s, SEGMENT_HEADER, header, sizeof(header)) >= 0 &&
               record_read(header, sizeof(header), s.salt, &r) == RECORD_END;
}

/* Those behind the last one that has something, and that one, may be without a seal. */
static uint64_t last_written(const Inspect *x) {
        size_t i = x->n;
        while (i > 0 && is_empty(x, x->numbers[i - 1]))
                i--;
        return i > 0 ? x->numbers[i - 1] : 0;
}

/* 1: it is gone meanwhile; or that has been told. */
static int open_segment(Inspect *x, uint64_t number, Segment *ret) {
        char name[SEGMENT_NAME_MAX];
        int r = segment_open(x->dir_fd, number, ret);
        if (r >= 0)
                return 0;
        segment_name(number, name);
        if (r == -ENOMEM || (r == -ENOENT && x->in_use))
                return r == -ENOMEM ? r : 1;
        InspectProblem problem = r == -EPROTONOSUPPORT ? PROBLEM_VERSION
                                 : r == -EPROTOTYPE    ? PROBLEM_EARLIER
                                 : r == -ENODATA       ? PROBLEM_SIZE
                                 : r == -EBADMSG       ? PROBLEM_HEADER
                                                       : PROBLEM_UNREADABLE;
        r = tell_file(x, problem, name, problem == PROBLEM_UNREADABLE ? r : 0);
        return r < 0 ? r : 1;
}

/* What looks wrong beside an eqd may have been written a moment later. */
enum { TRIES = 3 };
/* Beside an eqd that is at work, the end of the log is read so often: what compaction has moved meanwhile is there. */
enum { PASSES = 3 };

/* Reads it into *w, which is ready to be walked. */
static int read_image(Inspect *x, const Segment *s, bool is_last, bool to_index, Walk *w) {
        int e = 0;
        for (int i = 0; i < (x->in_use ? TRIES : 1) && e >= 0; i++) {
                *w = (Walk) { .x = x, .is_last = is_last, .to_index = to_index };
                segment_name(s->number, w->name);
                e = segment_read_all(s, &x->image, &x->image_cap, NULL, NULL, NULL);
                w->image = (Image) { .segment = s, .data = x->image };
                if (e < 0 || !x->in_use)
                        break;
                Walk dry = *w;
                dry.dry = true;
                dry.tail = (Tail) { .is_same = true };
                (void)walk(&dry); /* nothing is told, so nothing can fail */
                if (dry.n_problems == 0)
                        break;
        }
        SegmentBoot boot;
        segment_boot(&boot);
        w->tail = (Tail) { .is_same = true }; /* of an eqd that is at work */
        if (e >= 0 && is_last && !x->in_use)
                w->tail = replay_survey(&boot, &w->image);
        if (w->tail.sealed)
                w->is_last = false; /* it was left in order: what is bad there is damage */
        return e;
}

/* ---- hints ---- */

static int compare_entry(const Walk *w, const HintEntry *h) {
        const Segment *s = w->image.segment;
        Record r;
        long n = record_read_header(w->image.data + h->at, s->salt, &r);
        const Record *want = &h->record;
        if (n <= 0 || (size_t)n > s->size - h->at || h->at >= w->end || r.kind != want->kind ||
            r.queue != want->queue || r.seq != want->seq || r.lane != want->lane || r.body.len != want->body.len)
                return -EBADMSG;
        uint32_t len = r.kind == STORE_TASK ? MIN(r.body.len, (uint32_t)STORE_BEGIN) : 0;
        return len > 0 && memcmp(h->begin.data, r.body.data, len) != 0 ? -EBADMSG : 0;
}

/* The highest SEQ that the segment knows to be given, of each queue, is in the hint as well, or one of them is given twice. */
static int compare_queues(const Walk *w, const HintFile *f, uint64_t *ret_wrong) {
        _cleanup_(hint_done) Hint again = HINT_NULL;
        int e = 0;
        for (uint32_t at = SEGMENT_HEADER; at < w->end && e >= 0;) {
                Record r;
                long n = record_read(w->image.data + at, w->end - at, w->image.segment->salt, &r);
                if (n > 0)
                        e = hint_add(&again, &r, (StoreBytes) { 0 }, at, false);
                at = n > 0 ? at + (uint32_t)n : w->end;
        }
        if (e < 0)
                return e;
        for (uint32_t i = 0; i < f->n_queues; i++) {
                uint64_t id, last_seq;
                HintQueue *q;
                hint_queue(f, i, &id, &last_seq);
                HASH_FIND_NUMBER(again.queues, id, q);
                if (q && last_seq >= q->last_seq)
                        q->last_seq = 0; /* good */
        }
        for (const HintQueue *q = again.queues; q; q = q->hh.next)
                *ret_wrong += q->last_seq > 0;
        return 0;
}

static int compare_hint(const Walk *w, const HintFile *f) {
        Inspect *x = w->x;
        uint32_t segment = (uint32_t)w->image.segment->number;
        uint64_t n_wrong = 0, n_outlive = 0;
        int e = add_number(&x->has_hint, &x->n_hints, &x->cap_hints, segment);
        for (uint32_t i = 0; i < f->n_entries && e >= 0; i++) {
                HintEntry h;
                hint_entry(f, i, &h);
                n_outlive += h.record.kind == STORE_FORGET || h.record.kind == STORE_GONE;
                n_wrong += compare_entry(w, &h) < 0;
                e = live_map_set(&x->hinted, segment, h.at);
        }
        if (e >= 0)
                e = compare_queues(w, f, &n_wrong);
        n_wrong += n_outlive < w->n_outlive ? w->n_outlive - n_outlive : 0;
        if (e < 0 || n_wrong == 0 ||
            w->n_problems > 0) /* of what is damaged the hint may know more than is left of it */
                return e;
        char name[SEGMENT_NAME_MAX];
        hint_name(segment, name);
        return tell(x, &(InspectFinding) { .problem = PROBLEM_HINT_WRONG, .file = name, .count = n_wrong });
}

/* r: of hint_read(). */
static int look_at_hint(const Walk *w, int r, const HintFile *f) {
        Inspect *x = w->x;
        char name[SEGMENT_NAME_MAX];
        if (r >= 0)
                return compare_hint(w, f);
        if (r == -ENOMEM || r == -ENOENT || x->in_use)
                return r == -ENOMEM ? r : 0;
        hint_name(w->image.segment->number, name);
        return tell_file(x, PROBLEM_HINT, name, r == -EBADMSG || r == -ESTALE || r == -EPROTONOSUPPORT ? 0 : r);
}

/* Nothing may have gone meanwhile: what made a record dead may have been in a segment that went after that of the record. */
static uint64_t left_out(const Inspect *x, const LiveSegment *live) {
        const LiveSegment *hinted = NULL;
        uint64_t n = 0;
        for (size_t i = 0; i < x->hinted.n; i++)
                if (x->hinted.segments[i].number == live->number)
                        hinted = &x->hinted.segments[i];
        for (uint32_t i = 0; i < live->n_words; i++)
                n += (uint64_t)__builtin_popcountll(live->words[i] &
                                                    ~(hinted && i < hinted->n_words ? hinted->words[i] : 0));
        return n;
}

static int look_for_left_out(Inspect *x) {
        int e = 0;
        for (size_t i = 0; i < x->index.live.n && e >= 0; i++) {
                const LiveSegment *live = &x->index.live.segments[i];
                uint64_t number = live->number, n = 0;
                char name[SEGMENT_NAME_MAX];
                if (x->n_hints > 0 && bsearch(&number, x->has_hint, x->n_hints, sizeof(number), by_number))
                        n = left_out(x, live);
                hint_name(number, name);
                if (n > 0)
                        e = tell(x, &(InspectFinding) { .problem = PROBLEM_HINT_WRONG, .file = name, .count = n });
        }
        return e;
}

/* ---- all of it ---- */

/* Compaction has taken their segment away before what ended them was read, in one that went as well; else they would be in
 * another one by now. */
static void drop_vanished(Inspect *x) {
        uint64_t oldest = x->n > 0 ? x->numbers[0] : 0;
        for (IndexQueue *q = x->index.queues; q; q = q->hh.next)
                for (uint64_t seq = 0; seq_table_next(&q->tasks, &seq); seq++)
                        if (((const IndexPlace *)seq_table_get(&q->tasks, seq))->segment < oldest)
                                index_drop_task(&x->index, q, seq);
}

static int look_at_segment(Inspect *x, uint64_t number, bool is_last, bool to_index) {
        _cleanup_(segment_close) Segment s = SEGMENT_NULL;
        _cleanup_(hint_file_done) HintFile hint = HINT_FILE_NULL;
        Walk w;
        int e = open_segment(x, number, &s), r = -ENOENT;
        if (e == 0 && to_index)
                r = hint_read(x->dir_fd, &s, &hint); /* first: what it has is behind what the segment had by then */
        if (e == 0 && s.is_mended && to_index) {
                char name[SEGMENT_NAME_MAX];
                segment_name(number, name);
                e = tell(x, &(InspectFinding) { .problem = PROBLEM_MENDED,
                                                .file = name,
                                                .n_bytes = SEGMENT_HEADER,
                                                .has_place = true });
        }
        if (e == 0)
                e = read_image(x, &s, is_last, to_index, &w);
        if (e == 0)
                e = walk(&w);
        if (e != 0 || !to_index)
                return MIN(e, 0);
        if (x->n_segments == 0 || number > x->newest) { /* not for the second time */
                x->n_segments++;
                x->bytes += s.size;
                x->oldest = x->n_segments == 1 ? number : x->oldest;
                x->newest = number;
        }
        if (!w.sealed && x->next_open == 0) {
                x->next_open = number;
                x->next_open_end = w.end;
        }
        return look_at_hint(&w, r, &hint);
}

/* Those from `from` on. */
static int look_at_segments(Inspect *x, uint64_t from, bool to_index) {
        uint64_t last = last_written(x);
        int e = 0;
        for (size_t i = 0; i < x->n && e >= 0; i++)
                if (x->numbers[i] >= from)
                        e = look_at_segment(x, x->numbers[i], x->numbers[i] >= last, to_index);
        return e;
}

int inspect_open(const char *dir, bool in_use, Inspect *ret) {
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret = (Inspect) { .dir_fd = fd, .in_use = in_use };
        return 0;
}

void inspect_done(Inspect *x) {
        x->dir_fd = close_fd(x->dir_fd);
        index_done(&x->index);
        live_map_done(&x->hinted);
        live_map_done(&x->ends);
        live_map_done(&x->bare_ends);
        free(x->numbers);
        free(x->has_hint);
        free(x->image);
        free(x->group);
}

/* What has made a record dead may be what cannot be read. */
static bool found_any(const Inspect *x) {
        return x->n_findings[INSPECT_DAMAGE] + x->n_findings[INSPECT_REFUSED] + x->n_findings[INSPECT_UNREAD] > 0;
}

int inspect_files(Inspect *x, const InspectReader *reader, void *userdata) {
        x->reader = reader;
        x->userdata = userdata;
        int e = find_segments(x);
        if (e >= 0)
                e = look_at_segments(x, 0, true);
        uint64_t oldest = x->n > 0 ? x->numbers[0] : 0;
        bool complete = !x->in_use;
        for (int i = 0; i < PASSES && e >= 0 && !complete; i++) {
                x->open = x->next_open;
                x->open_end = x->next_open_end;
                x->next_open = 0;
                e = find_segments(x);
                if (e >= 0)
                        e = look_at_segments(x, x->open, true);
                if (e >= 0)
                        e = find_segments(x);
                complete = x->n == 0 || x->numbers[x->n - 1] <= x->newest;
        }
        bool same = !x->in_use || (complete && x->n > 0 && x->numbers[0] == oldest);
        if (!same)
                drop_vanished(x);
        index_drop_incomplete(&x->index);
        if (e >= 0 && same && !found_any(x))
                e = look_for_left_out(x);
        if (e >= 0)
                e = look_at_marks(x);
        return e < 0 ? e : each_name(x, look_at_other);
}

int inspect_records(Inspect *x, uint64_t only, const InspectReader *reader, void *userdata) {
        x->reader = reader;
        x->userdata = userdata;
        if (only == 0)
                return look_at_segments(x, 0, false);
        return look_at_segment(x, only, only >= last_written(x), false);
}

bool inspect_has_segments(Inspect *x) {
        static const InspectReader silent = { 0 };
        x->reader = &silent;
        return find_segments(x) >= 0 && x->n > 0;
}

bool inspect_is_live(const Inspect *x, uint64_t segment, uint32_t at) {
        return live_map_get(&x->index.live, (uint32_t)segment, at);
}

/* ---- queues ---- */

typedef struct Reach {
        uint64_t *seen; /* a bit for each segment from `first` on */
        uint64_t first, n;
} Reach;

static void reach(Reach *r, const IndexPlace *p) {
        if (p->segment < r->first || p->segment - r->first >= r->n)
                return;
        uint64_t i = p->segment - r->first;
        r->seen[i / 64] |= UINT64_C(1) << i % 64;
}

static void count_queue(const Inspect *x, IndexQueue *q, Reach *r, InspectQueue *ret) {
        *ret = (InspectQueue) {
                .id = q->id, .last_seq = q->last_seq, .bytes = q->live_bytes, .name = q->name, .is_gone = q->is_gone
        };
        reach(r, &q->place);
        for (uint64_t seq = 0; seq_table_next(&q->tasks, &seq); seq++) {
                const IndexPlace *last = seq_table_get(&q->lasts, seq);
                if (last && live_map_get(&x->bare_ends, last->segment, last->at))
                        continue;
                bool ended = last && live_map_get(&x->ends, last->segment, last->at);
                *(ended ? &ret->n_finished : &ret->n_pending) += 1;
                reach(r, seq_table_get(&q->tasks, seq));
                if (last)
                        reach(r, last);
        }
        for (uint64_t i = 0; i < (r->n + 63) / 64; i++)
                ret->n_segments += (uint64_t)__builtin_popcountll(r->seen[i]);
}

int inspect_queues(const Inspect *x, int (*func)(void *userdata, const InspectQueue *q), void *userdata) {
        Reach r = { .first = x->oldest, .n = x->newest - x->oldest + 1 };
        size_t words = (r.n + 63) / 64;
        _cleanup_free_ uint64_t *seen = fault_calloc(words, sizeof(*seen));
        int e = seen ? 0 : -ENOMEM;
        r.seen = seen;
        for (IndexQueue *q = x->index.queues; q && e >= 0; q = q->hh.next) {
                InspectQueue row;
                memset(r.seen, 0, words * sizeof(*seen));
                count_queue(x, q, &r, &row);
                e = func(userdata, &row);
        }
        return e;
}
