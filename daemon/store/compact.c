/* SPDX-License-Identifier: MIT */
/* Oldest first: what still lives in the oldest segment is written again at the end of the log, then the segment goes.
 *
 * Only the oldest one may go, because of FORGET and GONE: they speak of records in older segments, and a removed file can come
 * back after a loss of power if its removal was not synced. In the oldest segment they speak of nothing. So the order is:
 * copies, sync of the active segment, removal, sync of the directory; and then the next one is the oldest.
 *
 * A log that is a quarter dead (and some segments) is left alone; one old task is moved once per round of the log, it never
 * holds a segment. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

enum {
        SPARE_SEGMENTS = 3,
        LATER = 1,
        OVER = 2, /* the segment is read to its end */
};

bool store_may_compact(const Store *s) {
        if (s->index_broken || s->health == STORE_FAILED || s->oldest >= s->active.number)
                return false;
        if (s->victim.fd >= 0)
                return true;
        if (s->health == STORE_FULL)
                return true;
        uint64_t bytes = (s->active.number - s->oldest + 1) * s->segment_size;
        return bytes > s->index.live_bytes + s->index.live_bytes / 5 + (uint64_t)SPARE_SEGMENTS * s->segment_size;
}

/* A copy that can be sealed for another segment. */
static int move(Store *s, const Record *r, uint64_t last_seq) {
        size_t n = record_size(r->body.len);
        if (s->health == STORE_FULL && s->at + n > s->active.size / 4 * 3)
                return LATER; /* the rest is for the ends of tasks */
        Record copy = *r;
        copy.flags = 0; /* what it belonged to is complete */
        if (r->kind == STORE_QUEUE || r->kind == STORE_GONE)
                copy.seq = last_seq;
        char *p = fault_calloc(1, n);
        if (!p)
                return -ENOMEM;
        record_put_header(p, &copy);
        memcpy(p + RECORD_HEADER, r->body.data, r->body.len);
        copy.body.data = p + RECORD_HEADER;
        int e = store_place_one(s, p, &copy);
        free(p);
        if (e >= 0)
                s->n_moved++;
        return e;
}

static int finish(Store *s) {
        int e = segment_sync(&s->active);
        if (e >= 0)
                e = segment_remove(s->dir_fd, s->victim.number);
        if (e < 0)
                return e;
        s->oldest = s->victim.number + 1;
        segment_close(&s->victim);
        return 0;
}

/* One record of the victim, or what is in the place of one. *at moves on. 0, LATER, OVER, or negative errno. */
static int move_next(Store *s, uint32_t *at, size_t *moved) {
        const Segment *v = &s->victim;
        Record r;
        uint64_t last_seq = 0;
        long n = record_read(v->map + *at, v->size - *at, v->salt, &r);
        if (n == RECORD_BAD_BODY && record_size(r.body.len) <= v->size - *at)
                n = (long)record_size(r.body.len); /* it was reported when it was read; the index knows it not */
        else if (n == RECORD_BAD)
                n = 8;
        else if (n <= 0 || r.kind == STORE_SEAL)
                return OVER;
        else if (index_is_live(&s->index, &r, (uint32_t)v->number, *at, &last_seq)) {
                int e = move(s, &r, last_seq);
                if (e != 0)
                        return e;
                *moved += (size_t)n;
        }
        *at += (uint32_t)n;
        return *at >= v->size ? OVER : 0;
}

int store_compact(Store *s, size_t budget) {
        if (s->victim.fd < 0) {
                int e = segment_open(s->dir_fd, s->oldest, &s->victim);
                if (e == -ENOENT) { /* a gap in the numbers */
                        s->oldest++;
                        return 0;
                }
                if (e < 0)
                        return e;
                s->victim_at = SEGMENT_HEADER;
        }
        size_t moved = 0;
        uint32_t begin = s->victim_at;
        int e = 0;
        while (e == 0 && moved < budget && s->victim_at - begin < 8 * budget)
                e = move_next(s, &s->victim_at, &moved);
        if (e == OVER)
                return finish(s);
        return e == -ENOSPC || e == -EDQUOT || e == -ENOMEM ? LATER : e;
}
