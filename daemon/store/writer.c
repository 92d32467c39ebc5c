/* SPDX-License-Identifier: MIT */
/* The store thread.
 *
 *      wait for a batch -> place its records -> tell the index -> one fdatasync -> say so
 *              -> make the next segment, compact a little -> ...
 *
 * Places: records go one behind the other into the active segment. When one does not fit, the segment is sealed, synced, and
 * `next`, which was made in time and off the way of any batch, becomes the active one. While there is no space for a `next`
 * the store is FULL: it takes no more tasks, and what is in hand has the rest of the active segment. Before it comes to that,
 * while the file system has little left, it is LOW: it takes no tasks either, and is as it is otherwise. */

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

enum {
        /* Bytes that compaction looks at between two batches. They keep up with a log that grows by as much as half of it; and
         * the next batch may be waiting. */
        IDLE_STEP = 512 * 1024,
        BATCH_STEP = 64 * 1024, /* at least, behind a batch */
        START_MIN = 32 * 1024,  /* of less the disk is told by the sync: a call more takes longer than it gains */
        NOTE_AHEAD = 16,
        RETRY_SEC = 1,   /* without space: tries again so often; and looks so often how much there is */
        SMALL_PART = 10, /* of a file system, which the mark is no more than */
        RESUME_PART = 8, /* of the mark, which has to be free beside it until tasks are taken again */
};

/* ---- places ---- */

int store_put_seal(const Store *s) {
        char seal[RECORD_MIN];
        record_put_header(seal, &(Record) { .kind = STORE_SEAL });
        record_seal(seal, s->active.salt);
        return segment_write(&s->active, s->at, seal, sizeof(seal));
}

bool store_is_short(int e) {
        return e == -ENOSPC || e == -EDQUOT || e == -EMFILE || e == -ENFILE || e == -ENOMEM;
}

int store_begin_segment(Store *s, uint64_t number) {
        Segment fresh = SEGMENT_NULL;
        if (s->next.fd < 0) {
                int r = segment_create(s->dir_fd, number, s->segment_size, &s->boot, &fresh);
                if (r < 0)
                        return r;
        } else {
                fresh = s->next;
                s->next = (Segment)SEGMENT_NULL;
        }
        segment_close(&s->active);
        s->active = fresh;
        s->at = s->synced = SEGMENT_HEADER;
        return 0;
}

int store_sync(Store *s) {
        int r = segment_sync(&s->active);
        if (r >= 0)
                s->synced = s->at;
        return r;
}

/* With its sums, and what they cover. */
static void seal_record(const Store *s, char *p, uint32_t at) {
        record_set_flag(p, RECORD_SYNCED, at == s->synced);
        record_seal(p, s->active.salt);
}

static int change_segment(Store *s) {
        if (s->next.fd < 0) {
                int r = segment_create(s->dir_fd, s->active.number + 1, s->segment_size, &s->boot, &s->next);
                if (r < 0)
                        return r;
        }
        int r = store_sync(s); /* first: behind a seal nobody looks whether the rest is on the disk */
        if (r < 0)
                return r;
        r = store_put_seal(s);
        if (r >= 0)
                r = store_sync(s);
        if (r >= 0)
                hints_want(s, s->active.number);
        return r < 0 ? r : store_begin_segment(s, s->active.number + 1);
}

/* Room for the seal is always kept. */
static bool fits(const Store *s, size_t n) {
        return s->at + n + RECORD_MIN <= s->active.size;
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
                seal_record(s, p + done, s->at);
                s->at += (uint32_t)record_size(r.body.len);
        }
}

/* The look-ups of so many records wait for memory side by side instead of one after the other. Returns where the next ones are. */
static size_t prefetch(const Store *s, const Batch *b, size_t i, size_t end) {
        Record r;
        for (int k = 0; k < NOTE_AHEAD && i < end; k++, i += record_size(r.body.len)) {
                record_peek(b->data + i, &r);
                index_prefetch(&s->index, &r);
        }
        return i;
}

/* Tells the index where the records of b went. Under index_lock, or while there is no reader. */
static void note(Store *s, const Batch *b, const Placed *run) {
        Record r;
        uint32_t at = run->at;
        size_t ahead = run->begin;
        for (size_t i = run->begin, k = 0; i < run->end; i += record_size(r.body.len), k++) {
                if (k % NOTE_AHEAD == 0)
                        ahead = prefetch(s, b, ahead, run->end);
                record_peek(b->data + i, &r);
                r.body.data = b->data + i + RECORD_HEADER;
                if (index_apply(&s->index, &r, run->segment, at) == -ENOMEM)
                        s->index_broken = true;
                at += (uint32_t)record_size(r.body.len);
        }
}

/* As many groups from *done on as fit into the active segment, in one write. No group reaches over the end of a segment: it
 * would not be all or none. */
static int place_run(Store *s, const Batch *b, size_t *done, Placed *ret) {
        size_t end = *done, n;
        *ret = (Placed) { .begin = *done, .segment = (uint32_t)s->active.number, .at = s->at };
        for (; end < b->len && fits(s, n = group_size(b->data + end)); end += n)
                seal_group(s, b->data + end, n);
        int e = end > *done ? segment_write(&s->active, ret->at, b->data + *done, end - *done) : 0;
        if (e < 0)
                s->at = ret->at; /* the next try is for the same place */
        else
                *done = ret->end = end;
        return e;
}

int store_place(Store *s, const Batch *b, size_t *done, Placed *ret) {
        while (*done < b->len) {
                int e = place_run(s, b, done, ret);
                if (e >= 0 && *done < b->len) {
                        store_note(s, b, ret);
                        *ret = (Placed) { 0 };
                        e = change_segment(s);
                }
                if (e < 0)
                        return e;
        }
        return 0;
}

void store_note(Store *s, const Batch *b, const Placed *run) {
        (void)pthread_mutex_lock(&s->index_lock); /* cannot fail for a mutex of this kind; here and below */
        note(s, b, run);
        (void)pthread_mutex_unlock(&s->index_lock);
}

/* ---- what the loop is told ---- */

void store_ring(const Store *s) {
        uint64_t one = 1;
        (void)!write(s->event_fd, &one, sizeof(one)); /* full: it is readable already */
}

static void set_health(Store *s, StoreHealth health, int error) {
        if (s->own_health == health)
                return;
        s->own_health = health;
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind; here and below */
        bool changed = s->health != health && s->health != STORE_FAILED;
        if (changed) {
                s->health = health;
                s->error = error;
        }
        (void)pthread_cond_broadcast(&s->done);
        (void)pthread_mutex_unlock(&s->lock);
        if (changed)
                store_ring(s);
}

/* And the loop may hand over the next batch. */
static void set_durable(Store *s, uint64_t position, uint64_t n_records, uint64_t usec) {
        (void)pthread_mutex_lock(&s->lock);
        s->durable = position;
        s->busy = s->spent = false;
        s->stats.n_commits++;
        s->stats.n_records += n_records;
        latency_add(&s->stats.commits, usec);
        (void)pthread_cond_broadcast(&s->done);
        (void)pthread_mutex_unlock(&s->lock);
        store_ring(s);
}

void store_set_sizes(Store *s) {
        (void)pthread_mutex_lock(&s->lock);
        s->stats.n_segments = s->active.number + (s->next.fd >= 0) - s->oldest + 1;
        s->stats.bytes = s->stats.n_segments * s->segment_size;
        s->stats.live_bytes = s->index.live_bytes;
        s->stats.n_tasks = s->index.n_tasks;
        s->stats.n_moved = s->n_moved;
        s->stats.moved_bytes = s->moved_bytes;
        s->stats.oldest = s->oldest;
        s->stats.newest = s->active.number;
        (void)pthread_mutex_unlock(&s->lock);
}

/* Waits until woken, or a moment; for_batch: not if there is one already. False: the store is being closed. */
static bool wait_a_moment(Store *s, bool for_batch) {
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until); /* cannot fail for this clock */
        until.tv_sec += RETRY_SEC;
        (void)pthread_mutex_lock(&s->lock);
        if (!s->stop && !(for_batch && s->busy))
                (void)pthread_cond_timedwait(&s->wake, &s->lock, &until);
        bool stop = s->stop;
        (void)pthread_mutex_unlock(&s->lock);
        return !stop;
}

/* ---- commits ---- */

static void set_spent(Store *s) {
        (void)pthread_mutex_lock(&s->lock);
        bool changed = !s->spent;
        s->spent = true; /* until it is durable */
        (void)pthread_mutex_unlock(&s->lock);
        if (changed)
                store_ring(s);
}

/* 0, or a negative errno that is the end. */
static int place_all(Store *s, const Batch *b, Placed *ret) {
        size_t done = 0;
        for (;;) {
                int e = store_place(s, b, &done, ret);
                if (e >= 0 || !store_is_short(e))
                        return e;
                set_health(s, STORE_FULL, e);
                set_spent(s);
                if (!wait_a_moment(s, false))
                        return e;
        }
}

static int sync_batch(Store *s) {
        if (fault_hit(FAULT_DISK)) /* for tests of a disk that does not answer */
                for (;;)
                        (void)pause();
        return store_sync(s);
}

/* The disk has the bytes while the index is told of them, since that takes as long as a good disk does. Not durable yet, they are
 * found then; but nothing is made of it (hints, compaction) before the sync, nor ever if that fails. */
static int commit(Store *s) {
        uint64_t before = clock_monotonic(&clock_system);
        Placed placed = { 0 };
        int e = place_all(s, &s->handed, &placed);
        if (e < 0)
                return e;
        if (placed.end - placed.begin >= START_MIN)
                segment_start(&s->active, placed.at, placed.end - placed.begin);
        store_note(s, &s->handed, &placed);
        e = sync_batch(s);
        if (e < 0)
                return e;
        uint64_t durable = s->handed.last;
        batch_clear(&s->handed);
        set_durable(s, durable, durable - s->durable, clock_monotonic(&clock_system) - before);
        return 0;
}

/* ---- space ---- */

static bool is_due(Store *s, uint64_t *ret_mark) {
        uint64_t now = clock_monotonic(&clock_system);
        (void)pthread_mutex_lock(&s->lock);
        bool due = s->look || now - atomic_load_explicit(&s->looked_usec, memory_order_relaxed) >= STORE_LOOKS_USEC;
        *ret_mark = s->low_water;
        s->look = false;
        (void)pthread_mutex_unlock(&s->lock);
        return due;
}

bool store_is_little(uint64_t left, uint64_t size, uint64_t *mark, bool was) {
        *mark = MIN(*mark, size / SMALL_PART);
        return left < (was ? *mark + *mark / RESUME_PART : *mark);
}

/* If it cannot be told, a segment that cannot be made tells. */
static void look_at_space(Store *s, uint64_t mark) {
        uint64_t left, size;
        if (segment_space(s->dir_fd, &left, &size) < 0)
                return;
        s->is_low = store_is_little(left, size, &mark, s->is_low);
        (void)pthread_mutex_lock(&s->lock);
        s->stats.free_bytes = left;
        s->stats.low_water = mark;
        (void)pthread_mutex_unlock(&s->lock);
}

static bool wants_next(const Store *s) {
        return s->next.fd < 0 && (s->at >= s->active.size / 2 || s->own_health == STORE_FULL);
}

/* Made when half of the active one is used, so that no batch waits for it. 0, or a negative errno that is the end. */
static int prepare_next(Store *s) {
        if (wants_next(s)) {
                int e = segment_create(s->dir_fd, s->active.number + 1, s->segment_size, &s->boot, &s->next);
                if (e < 0 && !store_is_short(e))
                        return e;
                if (e < 0) {
                        set_health(s, STORE_FULL, e);
                        return 0;
                }
                atomic_store_explicit(&s->looked_usec, 0, memory_order_relaxed); /* there is less now */
        }
        uint64_t mark;
        bool due = is_due(s, &mark);
        if (due)
                look_at_space(s, mark);
        set_health(s, s->is_low ? STORE_LOW : STORE_GOOD, 0);
        if (due) /* behind what was found: see store_look() */
                atomic_store_explicit(&s->looked_usec, clock_monotonic(&clock_system), memory_order_release);
        return 0;
}

/* The next batch is in `handed`, or *ret_bytes is 0; false when there will be none. Between batches what is left to be compacted
 * is. */
static bool next_batch(Store *s, size_t *ret_bytes) {
        (void)pthread_mutex_lock(&s->lock);
        while (!s->busy && !s->stop && s->health != STORE_FAILED) {
                bool idle_work = store_may_compact(s) || hints_are_wanted(s) || s->own_health != STORE_GOOD || s->look;
                if (!idle_work) {
                        (void)pthread_cond_wait(&s->wake, &s->lock);
                        continue;
                }
                break;
        }
        bool failed = s->health == STORE_FAILED; /* the loop may have found it so: then nothing more becomes durable */
        bool has = s->busy && !failed, stop = s->stop || failed;
        (void)pthread_mutex_unlock(&s->lock);
        *ret_bytes = has ? s->handed.len : 0;
        return has || !stop;
}

/* Nothing can be done for it meanwhile. */
static bool is_waiting_for_space(const Store *s) {
        return s->own_health != STORE_GOOD && !store_may_compact(s);
}

static bool is_idle(Store *s) {
        (void)pthread_mutex_lock(&s->lock);
        bool idle = !s->busy && !s->stop && s->health != STORE_FAILED;
        (void)pthread_mutex_unlock(&s->lock);
        return idle;
}

/* Without space the steps go on until a segment has gone, as long as no batch comes: only then is it worth a try to make one. */
static int compact(Store *s, size_t budget) {
        uint64_t oldest = s->oldest;
        int e;
        do
                e = store_compact(s, budget);
        while (e == 0 && s->own_health == STORE_FULL && s->oldest == oldest && is_idle(s));
        return e;
}

void *store_thread(void *userdata) {
        Store *s = userdata;
        size_t bytes;
        int e = 0;
        (void)pthread_setname_np(pthread_self(), "eqd/store"); /* without it only top is harder to read */
        while (e >= 0 && next_batch(s, &bytes)) {
                size_t budget = bytes > 0 ? MAX((size_t)BATCH_STEP, 4 * bytes) : IDLE_STEP;
                if (bytes > 0)
                        e = commit(s);
                if (e >= 0)
                        e = prepare_next(s);
                if (e >= 0 && hints_are_wanted(s)) /* before copies that no sync has seen */
                        hints_step(s, budget);
                if (e >= 0 && store_may_compact(s))
                        e = compact(s, budget);
                if (e >= 0)
                        store_set_sizes(s);
                if (bytes == 0 && (e > 0 || is_waiting_for_space(s)))
                        (void)wait_a_moment(s, true);
        }
        if (e < 0)
                set_health(s, STORE_FAILED, e);
        else {
                /* If not, it only looks unclean: all that was promised is synced already. */
                s->sealed = store_sync(s) >= 0 && store_put_seal(s) >= 0 && store_sync(s) >= 0;
        }
        return NULL;
}
