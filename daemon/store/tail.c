/* SPDX-License-Identifier: MIT */
/* The tail. An eqd that was killed leaves a last segment without a seal. What is in it may be in the page cache only, and a
 * sync that failed may have marked it clean: so what no later record says to be synced is written again and synced, before anybody
 * acts on it. Where it is, if the machine was not started again and all is in order up to the last whole group: that changes no byte
 * that was promised. Else all of it into a new file, which takes the old one's place in one rename; never are both there: half a copy
 * read behind the whole would bring ended tasks back. A record there that was only written in part was never promised, nor the first
 * records of a group whose last one is missing: that is how a tail ends, and no damage.
 *
 * Then a new segment is begun. Without space for one the last one goes on where its seal is, if it needs no new file itself: what has
 * to end can be written down, and what is compacted makes room. */

#include "store/replay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/torn.h"

static int copy_record(Replay *p, const Segment *s, const Record *r, uint32_t at) {
        Store *store = p->store;
        size_t n = record_size(r->body.len);
        char *copy = fault_calloc(1, n);
        if (!copy)
                return -ENOMEM;
        Record alone = *r;
        alone.flags = 0; /* func is called for whole groups only */
        record_put_header(copy, &alone);
        if (r->body.len)
                memcpy(copy + RECORD_HEADER, r->body.data, r->body.len);
        record_seal(copy, store->active.salt);
        int e = segment_write(&store->active, store->at, copy, n);
        store->at += (uint32_t)n;
        free(copy);
        return e;
}

/* Nothing was ever written to it. What cannot be read is something. */
static bool is_empty(const Replay *p, const Segment *s) {
        _cleanup_(segment_close) Segment open = SEGMENT_NULL;
        char header[RECORD_HEADER];
        Record r;
        return segment_open(p->store->dir_fd, s->number, &open) >= 0 &&
               segment_read(&open, SEGMENT_HEADER, header, sizeof(header)) >= 0 &&
               record_read(header, sizeof(header), s->salt, &r) == RECORD_END;
}

static bool has_hint(const Replay *p, const Segment *s) {
        _cleanup_(hint_file_done) HintFile f = HINT_FILE_NULL;
        return hint_read(p->store->dir_fd, s, &f) >= 0;
}

static int drop_last(Replay *p) {
        return hint_remove_segment(p->store->dir_fd, p->segments[--p->n].number);
}

static bool is_of_boot(const Segment *s, const SegmentBoot *boot) {
        static const SegmentBoot unknown;
        return memcmp(&s->boot, boot, sizeof(unknown)) == 0 && memcmp(&s->boot, &unknown, sizeof(unknown)) != 0;
}

/* What was written since the last sync is there page by page if power was lost: it was not if the machine was not started
 * again since. */
Tail replay_survey(const SegmentBoot *boot, const Image *i) {
        const Segment *s = i->segment;
        bool same = is_of_boot(s, boot);
        Tail t = { .is_same = same, .torn = SEGMENT_HEADER };
        uint32_t at = SEGMENT_HEADER;
        while (at < s->size && !t.sealed) {
                Record r;
                long n = record_read(i->data + at, s->size - at, s->salt, &r);
                if (n <= 0) {
                        t.good = t.good ? t.good : at;
                        at = replay_resynchronise(i, at);
                        continue;
                }
                t.sealed = r.kind == STORE_SEAL;
                if (r.flags & RECORD_SYNCED)
                        *(same ? &t.synced : &t.torn) = at;
                at += (uint32_t)n;
        }
        t.good = t.good ? t.good : at;
        return t;
}

static int heal(Replay *p, const Image *i, const Tail *tail) {
        Store *s = p->store;
        uint32_t cut;
        uint64_t number = i->segment->number;
        p->image_of = 0; /* it becomes another file */
        int e = segment_prepare(s->dir_fd, number, i->segment->size, &s->boot, &s->active);
        s->at = SEGMENT_HEADER;
        if (e >= 0)
                e = replay_walk(p, i, tail, copy_record, &cut);
        if (e >= 0)
                e = store_put_seal(s);
        if (e >= 0)
                e = segment_publish(s->dir_fd, &s->active);
        if (e >= 0) {
                p->n--;
                e = replay_add(p, number);
        }
        segment_close(&s->active);
        return e;
}

/* Where the last whole group ends, of what is behind `synced`; 0: there is damage, or something behind what is not whole. */
static uint32_t whole_until(const Image *i, const Tail *tail) {
        const Segment *s = i->segment;
        uint32_t at = tail->synced, good = at;
        long n;
        Record r;
        Bad bad;
        while ((n = replay_record(i, at, &r)) > 0) {
                at += (uint32_t)n;
                if (!(r.flags & RECORD_MORE))
                        good = at;
        }
        bool is_end = !replay_look_at_bad(i, at, &bad) ||
                      (replay_is_torn(i, tail, at, &bad) && torn_written_until(i->data, s->size, bad.end) == bad.end);
        return is_end && good + RECORD_MIN <= s->size ? good : 0;
}

/* The same machine still runs, and nothing is in disorder: what was synced stays, what was not is written again where it is, which
 * changes no byte of it, and is synced; then it is sealed there. 1: it has to be rewritten. */
static int seal_in_place(Replay *p, const Image *i, const Tail *tail) {
        Store *s = p->store;
        uint32_t good = tail->synced ? whole_until(i, tail) : 0;
        if (good == 0)
                return 1;
        int e = segment_open_again(s->dir_fd, i->segment, &s->active);
        if (e >= 0)
                e = segment_write(&s->active, tail->synced, i->data + tail->synced, good - tail->synced);
        if (e >= 0)
                e = segment_sync(&s->active); /* first: behind a seal nobody looks whether the rest is on the disk */
        s->at = good;
        if (e >= 0)
                e = store_put_seal(s);
        if (e >= 0)
                e = segment_sync(&s->active);
        p->image_good = MIN(p->image_good, good);
        if (e < 0 || segment_read(&s->active, good, p->image + good, RECORD_MIN) < 0) /* all else is as it was read */
                p->image_of = 0;
        segment_close(&s->active);
        return e;
}

static bool is_space(const Replay *p, int e) {
        return (e == -ENOSPC || e == -EDQUOT) && p->error[0] == '\0';
}

/* The place of the seal; 0: there is none. */
static uint32_t find_seal(const Image *i) {
        Record r;
        Bad bad;
        for (uint32_t at = SEGMENT_HEADER;;) {
                long n = replay_record(i, at, &r);
                if (n > 0 && r.kind == STORE_SEAL)
                        return at;
                if (n <= 0 && !replay_look_at_bad(i, at, &bad))
                        return 0;
                at = n > 0 ? at + (uint32_t)n : bad.end;
        }
}

/* It was left sealed, but who did that may have been killed before the sync, or told that there is none: with a segment behind it that
 * holds something its end would look cut off. What is before the seal was synced first. Without space it stays as it is. */
static int seal_again(Replay *p, const Image *i) {
        Store *s = p->store;
        int e = segment_open_again(s->dir_fd, i->segment, &s->active);
        s->at = find_seal(i);
        if (e >= 0)
                e = store_put_seal(s);
        if (e >= 0)
                e = segment_sync(&s->active);
        segment_close(&s->active);
        return is_space(p, e) ? 0 : e;
}

static int put_in_order(Replay *p, const Segment *last) {
        Image i;
        int e = replay_read(p, last, &i);
        if (e < 0)
                return e;
        Tail tail = replay_survey(&p->store->boot, &i);
        i.good = p->image_good = tail.good;
        if (tail.sealed)
                return seal_again(p, &i);
        e = seal_in_place(p, &i, &tail);
        if (e > 0)
                e = heal(p, &i, &tail);
        if (is_space(p, e)) {
                int no_space = e;
                tail.synced = SEGMENT_HEADER; /* all of it is written again where it is */
                e = seal_in_place(p, &i, &tail);
                e = e > 0 ? no_space : e;
        }
        return e;
}

static int write_zeros(const Segment *s, uint32_t at, uint32_t end) {
        if (at >= end)
                return 0;
        _cleanup_free_ char *zeros = fault_calloc(1, end - at);
        int e = zeros ? segment_write(s, at, zeros, end - at) : -ENOMEM;
        return e < 0 ? e : segment_sync(s);
}

/* Makes the last one the active one again, which has no space left but that. First what is behind the seal goes, which nobody reads
 * while it is there. */
static int go_on_in_last(Replay *p) {
        Store *s = p->store;
        const Segment last = p->segments[p->n - 1];
        Image i;
        int e = replay_read(p, &last, &i);
        uint32_t at = e < 0 ? 0 : find_seal(&i);
        if (at == 0)
                return e < 0 ? e : -ENOSPC;
        p->image_of = 0; /* it is written to */
        e = segment_open_again(s->dir_fd, &last, &s->active);
        if (e >= 0)
                e = write_zeros(&s->active, at + RECORD_MIN, torn_written_until(i.data, last.size, at + RECORD_MIN));
        if (e >= 0)
                e = write_zeros(&s->active, at, at + RECORD_MIN);
        s->at = s->synced = at;
        return e;
}

static void begin_full(Store *s, int error) {
        s->own_health = s->health = s->seen_health = STORE_FULL;
        s->error = s->seen_error = error;
        store_ring(s); /* there is something to be told */
}

/* The last one, which is empty, is the one that would be made now. If the machine was started again since, something may have been
 * written to it, and is not there. 0 or negative errno. */
static int take_next(Replay *p) {
        Store *s = p->store;
        const Segment *last = &p->segments[p->n - 1];
        if (last->is_mended || last->size != s->segment_size || !is_of_boot(last, &s->boot))
                return 0;
        int e = segment_take(s->dir_fd, last, &s->next);
        p->n -= e > 0;
        return MIN(e, 0);
}

/* There is no space for another one, to put what is before it in order. */
static int drop_next(Store *s) {
        uint64_t number = s->next.number;
        segment_close(&s->next);
        return hint_remove_segment(s->dir_fd, number);
}

/* Puts the last segment in order unless it was left so, which a hint says as well: it is written behind the seal. Of segments
 * behind it, made in advance and empty, the last one is gone on with, others go. */
int replay_heal_tail(Replay *p) {
        Store *s = p->store;
        int e = 0;
        uint64_t number = p->n > 0 ? p->segments[p->n - 1].number + 1 : 1;
        if (p->n > 0 && is_empty(p, &p->segments[p->n - 1]))
                e = take_next(p); /* if not, it goes */
        while (e >= 0 && p->n > 0 && is_empty(p, &p->segments[p->n - 1]))
                e = drop_last(p);
        if (e >= 0 && p->n > 0 && !has_hint(p, &p->segments[p->n - 1])) {
                Segment last = p->segments[p->n - 1]; /* the array may move */
                e = put_in_order(p, &last);
                if (is_space(p, e) && s->next.fd >= 0) {
                        e = drop_next(s);
                        e = e < 0 ? e : put_in_order(p, &last);
                }
        }
        if (e < 0)
                return e;
        e = store_begin_segment(s, number);
        if (!is_space(p, e) || p->n == 0)
                return e;
        int no_space = e;
        e = go_on_in_last(p);
        if (e >= 0)
                begin_full(s, no_space);
        return e;
}
