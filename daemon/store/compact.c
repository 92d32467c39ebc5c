/* SPDX-License-Identifier: MIT */
/* Oldest first: what still lives in the oldest segment is written again at the end of the log, then the segment goes.
 *
 * Only the oldest one may go, because of FORGET and GONE: they speak of records in older segments, and a removed file can come
 * back after a loss of power if its removal was not synced. In the oldest segment they speak of nothing. So the order is:
 * copies, sync of the active segment, removal, sync of the directory; and then the next one is the oldest.
 *
 * A log that is no larger than what lives in it by a fifth and three segments is left alone, the one that is made in advance among
 * them; where the file system has little left, by a twentieth and two segments. One old task is moved once per round of the log, it never holds a segment. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"
#include "store/torn.h"

enum {
        SPARE_SEGMENTS = 3,
        LATER = 1,
        OVER = 2,     /* the segment is read to its end */
        BLOCK = 4096, /* of a device: less of it is not bad alone */
};

bool store_may_compact(const Store *s) {
        if (s->index_broken || s->own_health == STORE_FAILED || s->oldest >= s->active.number)
                return false;
        if (s->victim.fd >= 0)
                return true;
        if (s->own_health == STORE_FULL)
                return true;
        uint64_t bytes = (s->active.number - s->oldest + 1 + (s->next.fd >= 0)) * s->segment_size;
        uint64_t live = s->index.live_bytes, spare = s->segment_size;
        if (s->own_health == STORE_LOW)
                return bytes > live + live / 20 + (SPARE_SEGMENTS - 1) * spare;
        return bytes > live + live / 5 + SPARE_SEGMENTS * spare;
}

/* A copy that can be sealed for another segment. */
static int move(Store *s, const Record *r, uint64_t last_seq) {
        size_t n = record_size(r->body.len), copies = record_copies(r->kind);
        if (s->own_health == STORE_FULL && s->at + s->moving.len + copies * n > s->active.size / 4 * 3)
                return LATER; /* the rest is for the ends of tasks */
        Record copy = *r;
        if (r->kind == STORE_QUEUE || r->kind == STORE_GONE)
                copy.seq = last_seq;
        int e = batch_reserve(&s->moving, copies * n);
        if (e < 0)
                return e;
        for (size_t i = 0; i < copies; i++) { /* what it belonged to is complete; two are a group again */
                copy.flags = (uint8_t)((i + 1 < copies ? RECORD_MORE : 0) | (i > 0 ? RECORD_INSIDE : 0));
                batch_append(&s->moving, &copy);
        }
        s->n_moving++;
        return 0;
}

/* Those that were not placed are where they were, and will be looked at again. */
static int place_moved(Store *s) {
        size_t done = 0;
        Placed placed = { 0 };
        int e = store_place(s, &s->moving, &done, &placed);
        store_note(s, &s->moving, &placed);
        if (e >= 0) {
                s->n_moved += s->n_moving;
                s->moved_bytes += s->moving.len;
        }
        batch_clear(&s->moving);
        s->n_moving = 0;
        return e;
}

static int finish(Store *s) {
        int e = store_sync(s);
        hints_drop(s, s->victim.number);
        if (e >= 0)
                e = hint_remove_segment(s->dir_fd, s->victim.number);
        if (e < 0)
                return e;
        index_drop_segment(&s->index, (uint32_t)s->victim.number);
        s->oldest = s->victim.number + 1;
        segment_close(&s->victim);
        segment_window_done(&s->victim_window);
        return 0;
}

/* ---- damage in the victim ---- */

static void tell_waiting(Store *s, uint64_t segment) {
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind; here and below */
        s->stats.unread = segment;
        (void)pthread_mutex_unlock(&s->lock);
}

/* Until then the segment stays, and what comes next of it is asked for when that is due. */
static bool is_unread_for_good(Store *s) {
        bool is_new = s->patience.since_usec == 0;
        patience_note(&s->patience);
        if (is_new) {
                tell_waiting(s, s->oldest);
                unread_note(s, s->oldest, COMPACT_PATIENCE_SEC);
        }
        return patience_is_over(&s->patience, COMPACT_PATIENCE_SEC);
}

static void was_read(Store *s) {
        if (s->patience.since_usec == 0)
                return;
        s->patience = (StorePatience) { 0 };
        tell_waiting(s, 0);
}

/* Durably, before the segment goes, and told. 0 or LATER. Repeatable, for what comes behind it may have to wait for space. */
static int keep(Store *s, uint32_t at, const char *data, size_t n) {
        StoreDamage d;
        if (damage_keep(s->dir_fd, s->victim.number, at, data, n, &d) < 0)
                return LATER;
        damage_note(s, s->victim.number, &d, true);
        return 0;
}

static void drop(Store *s, const Record *was) {
        (void)pthread_mutex_lock(&s->index_lock);
        IndexQueue *q = index_queue(&s->index, was->queue);
        if (q && was->kind == STORE_STATE)
                index_drop_last(&s->index, q, was->seq); /* its task is still there */
        else if (q)
                index_drop_task(&s->index, q, was->seq);
        (void)pthread_mutex_unlock(&s->index_lock);
}

/* The first of the two records of a queue or of one that is gone lives on, if the second one is damaged. */
static int move_twin(Store *s, const Record *was, uint32_t at, uint64_t last_seq) {
        uint32_t n = (uint32_t)record_size(was->body.len);
        const char *data;
        Record r;
        if (at < SEGMENT_HEADER + n)
                return 0;
        int e = segment_window(&s->victim_window, &s->victim, at - n, n, &data);
        if (e == -ENOMEM)
                return e;
        if (e < 0)
                return is_unread_for_good(s) ? 0 : LATER;
        if (record_read(data, n, s->victim.salt, &r) != (long)n || r.kind != was->kind || r.queue != was->queue)
                return 0;
        return move(s, &r, last_seq);
}

/* What the index has of it cannot be read any more; by its header, which can be read or told, it was `was`. An end is still one: its
 * task may have been moved behind it. 0, LATER or negative errno. */
static int lose(Store *s, const Record *was, uint32_t at, const char *data, size_t n) {
        uint64_t last_seq = 0;
        if (!index_is_live(&s->index, was, (uint32_t)s->victim.number, at, &last_seq))
                return 0;
        int e = keep(s, at, data, n);
        if (e == 0 && was->kind == STORE_END) {
                const Record end = { .kind = STORE_FORGET, .queue = was->queue, .seq = was->seq };
                return move(s, &end, 0);
        }
        if (e != 0)
                return e;
        if (was->kind == STORE_QUEUE || was->kind == STORE_GONE)
                return move_twin(s, was, at, last_seq);
        drop(s, was);
        return 0;
}

/* Is there a good record at `at`? 0 or 1, or negative errno: that cannot be read. */
static int has_record(Store *s, uint32_t at) {
        const Segment *v = &s->victim;
        const char *data;
        Record r;
        int e = segment_window(&s->victim_window, v, at, RECORD_HEADER, &data);
        if (e < 0)
                return e;
        long n = record_read_header(data, v->salt, &r);
        if (n <= 0 || (size_t)n > v->size - at)
                return 0;
        e = segment_window(&s->victim_window, v, at, (size_t)n, &data);
        return e < 0 ? e : record_read(data, (size_t)n, v->salt, &r) == n;
}

/* Where the next good record begins, at `at` or behind it; the size of the segment if there is none. That is only believed if all before it
 * could be read, or cannot be for good. 0, LATER or -ENOMEM. */
static int find_next(Store *s, uint32_t at, uint32_t *ret) {
        const Segment *v = &s->victim;
        bool has_gaps = false;
        while (at + RECORD_MIN <= v->size) {
                int e = has_record(s, at);
                if (e > 0)
                        break;
                if (e == -ENOMEM)
                        return e;
                if (e < 0 && !is_unread_for_good(s))
                        return LATER;
                has_gaps = has_gaps || e < 0;
                at += e < 0 ? BLOCK - at % BLOCK : 8;
        }
        if (!has_gaps)
                was_read(s);
        *ret = at + RECORD_MIN > v->size ? v->size : at;
        return 0;
}

static int keep_span(Store *s, uint32_t at, uint32_t end) {
        _cleanup_free_ char *data = fault_malloc(end - at);
        if (!data)
                return LATER;
        (void)segment_read_good(&s->victim, at, data, end - at); /* what cannot be read was given up */
        return keep(s, at, data, torn_written_until(data, end - at, 0));
}

/* From *at on no record can be told, up to *ret_end. 0, LATER or -ENOMEM. */
static int lose_span(Store *s, uint32_t at, uint32_t *ret_end) {
        const Segment *v = &s->victim;
        uint32_t end;
        int e = find_next(s, at, &end);
        if (e != 0)
                return e;
        if (end == at)
                return LATER; /* it can be read now */
        IndexSpan span = { (uint32_t)v->number, at, end };
        (void)pthread_mutex_lock(&s->index_lock);
        bool some = index_names_span(&s->index, &span);
        (void)pthread_mutex_unlock(&s->index_lock);
        if (some && keep_span(s, at, end) != 0)
                return LATER;
        (void)pthread_mutex_lock(&s->index_lock);
        if (some)
                index_drop_span(&s->index, &span);
        (void)pthread_mutex_unlock(&s->index_lock);
        *ret_end = end;
        return 0;
}

/* ---- one after the other ---- */

/* The next record, or what is in the place of one, as record_read(). *ret_data: what is there, *ret_size bytes of it. */
static int read_next(Store *s, uint32_t at, Record *r, long *ret_n, const char **ret_data) {
        const Segment *v = &s->victim;
        size_t size = MIN(v->size - at, (uint32_t)RECORD_HEADER);
        int e = segment_window(&s->victim_window, v, at, size, ret_data);
        if (e < 0)
                return e;
        *ret_n = record_read(*ret_data, size, v->salt, r);
        if (*ret_n == RECORD_BAD && record_was(*ret_data, v->size - at, v->salt, r) > 0)
                *ret_n = RECORD_BAD_BODY;
        if (*ret_n != RECORD_BAD_BODY || record_size(r->body.len) > v->size - at)
                return 0;
        size = record_size(r->body.len);
        e = segment_window(&s->victim_window, v, at, size, ret_data);
        if (e >= 0)
                *ret_n = record_read(*ret_data, size, v->salt, r);
        if (e >= 0 && *ret_n == RECORD_BAD) {
                (void)record_was(*ret_data, size, v->salt, r);
                *ret_n = RECORD_BAD_BODY;
        }
        return e;
}

/* One record of the victim, or what is in the place of one. *at moves on. 0, LATER, OVER, or negative errno. */
static int move_next(Store *s, uint32_t *at) {
        const Segment *v = &s->victim;
        Record r = { 0 };
        uint64_t last_seq = 0;
        long n = RECORD_BAD;
        const char *data = "";
        int e = read_next(s, *at, &r, &n, &data);
        if (e == -ENOMEM)
                return e;
        if (e < 0 && !is_unread_for_good(s))
                return LATER;
        if (n > 0)
                was_read(s);
        if (n > 0 && r.kind == STORE_SEAL)
                return OVER;
        uint32_t end = *at + (uint32_t)record_size(r.body.len);
        if (n == RECORD_BAD_BODY && record_size(r.body.len) <= v->size - *at)
                e = lose(s, &r, *at, data, e < 0 ? 0 : record_size(r.body.len));
        else if (n <= 0)
                e = lose_span(s, *at, &end);
        else if (index_is_live(&s->index, &r, (uint32_t)v->number, *at, &last_seq)) {
                e = move(s, &r, last_seq);
        }
        if (e != 0)
                return e;
        *at = end;
        return *at + RECORD_MIN > v->size ? OVER : 0;
}

int store_compact(Store *s, size_t budget) {
        if (!patience_is_due(&s->patience))
                return LATER;
        if (s->victim.fd < 0) {
                int e = segment_open(s->dir_fd, s->oldest, &s->victim);
                if (e == -ENOENT) { /* a gap in the numbers */
                        s->oldest++;
                        return 0;
                }
                if (e < 0)
                        return store_is_short(e) || (e == -EIO && !is_unread_for_good(s)) ? LATER : e;
                s->victim_at = SEGMENT_HEADER;
                hints_drop(s, s->oldest);
        }
        uint32_t at = s->victim_at;
        int e = 0;
        while (e == 0 && at - s->victim_at < budget)
                e = move_next(s, &at);
        int placed = place_moved(s);
        if (placed >= 0)
                s->victim_at = at;
        else
                e = placed;
        if (e == OVER)
                return finish(s);
        return store_is_short(e) ? LATER : e;
}
