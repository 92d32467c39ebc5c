/* SPDX-License-Identifier: MIT */
/* The store thread.
 *
 *      wait for a batch -> place its records -> one fdatasync -> say so -> make the next segment, compact a little -> ...
 *
 * Places: records go one behind the other into the active segment. When one does not fit, the segment is sealed, synced, and
 * `next`, which was made in time and off the way of any batch, becomes the active one. While there is no space for a `next`
 * the store is FULL: it takes no more tasks, and what is in hand has the rest of the active segment. */

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/util.h"
#include "store/parts.h"

enum {
        COMPACT_MIN = 256 * 1024, /* bytes moved per commit, at least */
        RETRY_SEC = 1,            /* without space: tries again so often */
};

/* ---- places ---- */

static void put_seal(Store *s) {
        char seal[RECORD_HEADER];
        record_put_header(seal, &(Record) { .kind = STORE_SEAL });
        record_seal(seal, s->active.salt);
        (void)segment_write(&s->active, s->at, seal, sizeof(seal)); /* if not, it only looks unclean */
}

int store_begin_segment(Store *s, uint64_t number) {
        Segment fresh = SEGMENT_NULL;
        if (s->next.fd < 0) {
                int r = segment_create(s->dir_fd, number, s->segment_size, &fresh);
                if (r < 0)
                        return r;
        } else {
                fresh = s->next;
                s->next = (Segment)SEGMENT_NULL;
        }
        segment_close(&s->active);
        s->active = fresh;
        s->at = SEGMENT_HEADER;
        return 0;
}

static int change_segment(Store *s) {
        if (s->next.fd < 0) {
                int r = segment_create(s->dir_fd, s->active.number + 1, s->segment_size, &s->next);
                if (r < 0)
                        return r;
        }
        put_seal(s);
        int r = segment_sync(&s->active);
        return r < 0 ? r : store_begin_segment(s, s->active.number + 1);
}

/* Room for the seal is always kept. */
static bool fits(const Store *s, size_t n) {
        return s->at + n + RECORD_HEADER <= s->active.size;
}

static void note(Store *s, const Record *r) {
        if (index_apply(&s->index, r, (uint32_t)s->active.number, s->at) == -ENOMEM)
                s->index_broken = true;
}

int store_place_one(Store *s, char *p, const Record *r) {
        size_t n = record_size(r->body.len);
        if (!fits(s, n)) {
                int e = change_segment(s);
                if (e < 0)
                        return e;
        }
        record_seal(p, s->active.salt);
        int e = segment_write(&s->active, s->at, p, n);
        if (e < 0)
                return e;
        note(s, r);
        s->at += (uint32_t)n;
        return 0;
}

/* Bytes of the records at p that belong together. */
static size_t group_size(const char *p) {
        size_t n = 0;
        Record r;
        do {
                record_peek(p + n, &r);
                n += record_size(r.body.len);
        } while (r.flags & RECORD_MORE);
        return n;
}

static void seal_group(Store *s, char *p, size_t n) {
        Record r;
        for (size_t done = 0; done < n; done += record_size(r.body.len)) {
                record_peek(p + done, &r);
                record_seal(p + done, s->active.salt);
                note(s, &r);
                s->at += (uint32_t)record_size(r.body.len);
        }
}

/* As many groups from *done on as fit into the active segment, in one write. No group reaches over the end of a segment: it
 * would not be all or none. */
static int place_run(Store *s, const Batch *b, size_t *done) {
        size_t end = *done, n;
        uint32_t begin = s->at;
        for (; end < b->len && fits(s, n = group_size(b->data + end)); end += n)
                seal_group(s, b->data + end, n);
        int e = end > *done ? segment_write(&s->active, begin, b->data + *done, end - *done) : 0;
        if (e < 0)
                s->at = begin; /* the next try is for the same place */
        else
                *done = end;
        return e;
}

static bool out_of_space(int e) {
        return e == -ENOSPC || e == -EDQUOT;
}

/* ---- what the loop is told ---- */

static void ring(const Store *s) {
        uint64_t one = 1;
        (void)!write(s->event_fd, &one, sizeof(one)); /* full: it is readable already */
}

static void set_health(Store *s, StoreHealth health, int error) {
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind; here and below */
        bool changed = s->health != health && s->health != STORE_FAILED;
        if (changed) {
                s->health = health;
                s->error = error;
        }
        (void)pthread_cond_signal(&s->done);
        (void)pthread_mutex_unlock(&s->lock);
        if (changed)
                ring(s);
}

static void set_durable(Store *s, uint64_t position, uint64_t n_records, uint64_t usec) {
        (void)pthread_mutex_lock(&s->lock);
        s->durable = position;
        s->busy = false;
        s->stats.n_commits++;
        s->stats.n_records += n_records;
        s->stats.commit_usec_sum += usec;
        s->stats.commit_usec_max = MAX(s->stats.commit_usec_max, usec);
        (void)pthread_cond_signal(&s->done);
        (void)pthread_mutex_unlock(&s->lock);
        ring(s);
}

static void set_sizes(Store *s) {
        (void)pthread_mutex_lock(&s->lock);
        s->stats.n_segments = s->active.number + (s->next.fd >= 0) - s->oldest + 1;
        s->stats.bytes = s->stats.n_segments * s->segment_size;
        s->stats.live_bytes = s->index.live_bytes;
        s->stats.n_tasks = s->index.n_tasks;
        s->stats.n_moved = s->n_moved;
        (void)pthread_mutex_unlock(&s->lock);
}

/* Waits until woken, or a moment. False: the store is being closed. */
static bool wait_a_moment(Store *s) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail for this clock */
        until.tv_sec += RETRY_SEC;
        (void)pthread_mutex_lock(&s->lock);
        if (!s->stop)
                (void)pthread_cond_timedwait(&s->wake, &s->lock, &until);
        bool stop = s->stop;
        (void)pthread_mutex_unlock(&s->lock);
        return !stop;
}

/* ---- commits ---- */

/* 0, or a negative errno that is the end. */
static int place_all(Store *s, const Batch *b) {
        size_t done = 0;
        while (done < b->len) {
                int e = place_run(s, b, &done);
                if (e >= 0 && done < b->len)
                        e = change_segment(s);
                if (e >= 0)
                        continue;
                if (!out_of_space(e))
                        return e;
                set_health(s, STORE_FULL, e);
                if (!wait_a_moment(s))
                        return e;
        }
        return 0;
}

static int commit(Store *s, const Batch *b) {
        uint64_t before = clock_monotonic(&clock_system), last = s->durable;
        int e = place_all(s, b);
        if (e >= 0)
                e = segment_sync(&s->active);
        if (e < 0)
                return e;
        set_durable(s, b->last, b->last - last, clock_monotonic(&clock_system) - before);
        return 0;
}

/* Made when half of the active one is used, so that no batch waits for it. */
static void prepare_next(Store *s) {
        if (s->next.fd >= 0 || s->at < s->active.size / 2)
                return;
        int e = segment_create(s->dir_fd, s->active.number + 1, s->segment_size, &s->next);
        if (e >= 0)
                set_health(s, STORE_GOOD, 0);
        else
                set_health(s, out_of_space(e) ? STORE_FULL : STORE_FAILED, e);
}

/* The next batch, or false when there will be none. Between batches what is left to be compacted is. */
static bool next_batch(Store *s, Batch **ret) {
        (void)pthread_mutex_lock(&s->lock);
        while (!s->busy && !s->stop) {
                bool idle_work = store_may_compact(s) || s->health == STORE_FULL;
                if (!idle_work) {
                        (void)pthread_cond_wait(&s->wake, &s->lock);
                        continue;
                }
                break;
        }
        bool has = s->busy, stop = s->stop;
        (void)pthread_mutex_unlock(&s->lock);
        *ret = has ? &s->handed : NULL;
        return has || !stop;
}

void *store_thread(void *userdata) {
        Store *s = userdata;
        Batch *b;
        int e = 0;
        while (e >= 0 && next_batch(s, &b)) {
                size_t budget = COMPACT_MIN;
                if (b) {
                        budget = MAX(budget, 2 * b->len);
                        e = commit(s, b);
                }
                if (e >= 0)
                        prepare_next(s);
                if (e >= 0 && store_may_compact(s))
                        e = store_compact(s, budget);
                if (e >= 0)
                        set_sizes(s);
                if (!b && (e > 0 || s->health == STORE_FULL))
                        (void)wait_a_moment(s);
        }
        if (e < 0)
                set_health(s, STORE_FAILED, e);
        else {
                put_seal(s);
                (void)segment_sync(&s->active); /* all that was promised is synced already */
        }
        return NULL;
}
