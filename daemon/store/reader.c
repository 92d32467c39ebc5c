/* SPDX-License-Identifier: MIT */
/* The reader thread: bodies that the loop wants, and hints between them, since no batch is to wait for these.
 *
 * Where a body is, the index knows, which is the store thread's: it is asked under index_lock. By the time the segment is
 * opened it may have been compacted away; then the index knows the new place. No segment is held open between two fetches,
 * so that what was removed gives its space back. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

/* ---- damage ---- */

static bool is_kept(int dir_fd, const char *kept, const char *data, size_t n) {
        struct stat st;
        _cleanup_close_ int fd = openat(dir_fd, kept, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != (off_t)n)
                return false;
        _cleanup_free_ char *there = fault_malloc(n + 1);
        const Segment file = { .fd = fd };
        return there && segment_read(&file, 0, there, n) >= 0 && memcmp(there, data, n) == 0;
}

/* -EEXIST: something else has that name. */
static int write_kept(int dir_fd, const char *kept, const char *data, size_t n) {
        _cleanup_close_ int fd = openat(dir_fd, kept, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return errno == EEXIST && is_kept(dir_fd, kept, data, n) ? 0 : -errno;
        const Segment file = { .fd = fd };
        int e = segment_write(&file, 0, data, n);
        if (e >= 0)
                e = segment_sync(&file);
        if (e < 0)
                (void)unlinkat(dir_fd, kept, 0); /* a part of it; the bytes are where they were */
        return e < 0 ? e : segment_sync_dir(dir_fd);
}

int damage_keep(int dir_fd, uint64_t segment, uint32_t at, const char *data, size_t n, StoreDamage *ret) {
        enum { NAMES = 100 };
        int e = -EEXIST;
        *ret = (StoreDamage) { .at = at, .n_bytes = n };
        segment_name(segment, ret->file);
        for (unsigned i = 0; i < NAMES && e == -EEXIST; i++) {
                int len = snprintf(ret->kept, sizeof(ret->kept), "damaged-%016" PRIx64 "-%08x", segment, at);
                if (i > 0)
                        snprintf(ret->kept + len, sizeof(ret->kept) - (size_t)len, "-%u", i + 1);
                e = write_kept(dir_fd, ret->kept, data, n);
        }
        return e;
}

/* Under lock. */
static ToldDamage *find_told(Store *s, uint64_t segment, uint32_t at) {
        for (size_t i = 0; i < MIN(s->n_told, (size_t)TOLD_MAX); i++)
                if (s->told[i].segment == segment && s->told[i].at == at)
                        return &s->told[i];
        return NULL;
}

bool damage_is_news(Store *s, uint64_t segment, uint32_t at, bool kept) {
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind; here and below */
        ToldDamage *t = find_told(s, segment, at);
        bool news = !t || (kept && !t->kept);
        s->stats.n_damaged += !t;
        if (t)
                t->kept = t->kept || kept;
        else
                s->told[s->n_told++ % TOLD_MAX] = (ToldDamage) { .segment = segment, .at = at, .kept = kept };
        (void)pthread_mutex_unlock(&s->lock);
        return news;
}

void damage_note(Store *s, uint64_t segment, const StoreDamage *d, bool kept) {
        if (!damage_is_news(s, segment, (uint32_t)d->at, kept))
                return;
        (void)pthread_mutex_lock(&s->lock);
        if (s->n_damages < DAMAGES_MAX)
                s->damages[s->n_damages++] = *d;
        (void)pthread_mutex_unlock(&s->lock);
        store_ring(s);
}

bool store_next_damage(Store *s, StoreDamage *ret) {
        (void)pthread_mutex_lock(&s->lock);
        bool some = s->n_damages > 0;
        if (some)
                *ret = s->damages[--s->n_damages];
        (void)pthread_mutex_unlock(&s->lock);
        return some;
}

/* ---- what cannot be read now ---- */

void patience_note(StorePatience *p) {
        uint64_t now = clock_monotonic(&clock_system);
        if (p->since_usec == 0)
                p->since_usec = now;
        p->due_usec = now + READ_AGAIN_SEC * USEC_PER_SEC;
}

bool patience_is_over(const StorePatience *p, unsigned seconds) {
        return p->since_usec && clock_monotonic(&clock_system) - p->since_usec >= seconds * USEC_PER_SEC;
}

bool patience_is_due(const StorePatience *p) {
        return p->since_usec == 0 || clock_monotonic(&clock_system) >= p->due_usec;
}

void unread_note(Store *s, uint64_t segment, unsigned seconds) {
        (void)pthread_mutex_lock(&s->lock);
        segment_name(segment, s->unread_news.file);
        s->unread_news.seconds = seconds;
        (void)pthread_mutex_unlock(&s->lock);
        store_ring(s);
}

bool store_next_unread(Store *s, StoreUnread *ret) {
        (void)pthread_mutex_lock(&s->lock);
        bool some = s->unread_news.seconds > 0;
        if (some)
                *ret = s->unread_news;
        s->unread_news.seconds = 0;
        (void)pthread_mutex_unlock(&s->lock);
        return some;
}

/* ---- one record ---- */

int place_open(int dir_fd, Segment *s, uint32_t number) {
        if (s->fd >= 0 && s->number == number)
                return 0;
        segment_close(s);
        return segment_open(dir_fd, number, s);
}

static StoreKind kind_of_place(StoreKind kind) {
        return kind == STORE_GONE ? STORE_QUEUE : kind == STORE_END ? STORE_STATE : kind;
}

static bool is_wanted(const Record *r, const Record *want) {
        StoreKind kind = kind_of_place(r->kind);
        return kind == kind_of_place(want->kind) && r->queue == want->queue &&
               (kind == STORE_QUEUE || r->seq == want->seq);
}

static int check_record(const char *data, const IndexPlace *place, uint32_t salt, const Record *want, Record *ret) {
        bool good = record_read(data, place->size, salt, ret) == (long)place->size && is_wanted(ret, want);
        return good ? 0 : -EBADMSG;
}

int place_read(int dir_fd, Segment *segment, const IndexPlace *place, const Record *want, char **buf, size_t *cap,
               Record *ret) {
        int e = place_open(dir_fd, segment, place->segment);
        if (e < 0)
                return e;
        if (place->size > *cap) {
                char *more = fault_realloc(*buf, place->size);
                if (!more)
                        return -ENOMEM;
                *buf = more;
                *cap = place->size;
        }
        e = segment_read(segment, place->at, *buf, place->size);
        if (e < 0)
                return e;
        return check_record(*buf, place, segment->salt, want, ret);
}

/* ---- fetches ---- */

/* What one fetch uses. Tasks that were submitted one behind the other mostly lie so: then what follows is read with them. */
typedef struct Reading {
        Store *store;
        Segment segment;
        char *buf;
        size_t cap;
        SegmentWindow window;
        uint32_t next;   /* in `segment`: behind the record that was read last */
        uint32_t unread; /* a segment of which something cannot be read; 0: none */
} Reading;

/* As place_read(). *ret_data: the record as it is there, if it was read. */
static int read_place(Reading *g, const IndexPlace *p, const Record *want, Record *ret, const char **ret_data) {
        bool follows = g->segment.fd >= 0 && g->segment.number == p->segment && g->next == p->at;
        g->next = p->at + p->size;
        if (follows && segment_window(&g->window, &g->segment, p->at, p->size, ret_data) >= 0 &&
            check_record(*ret_data, p, g->segment.salt, want, ret) >= 0)
                return 0;
        g->window.len = 0; /* of another place; or it was read before compaction put the record there */
        int e = place_read(g->store->dir_fd, &g->segment, p, want, &g->buf, &g->cap, ret);
        *ret_data = g->buf;
        return e;
}

static bool find_place(Store *s, uint64_t queue, uint64_t seq, IndexPlace *ret) {
        (void)pthread_mutex_lock(&s->index_lock);
        const IndexQueue *q = index_queue(&s->index, queue);
        const IndexPlace *p = q ? seq_table_get(&q->tasks, seq) : NULL;
        if (p)
                *ret = *p;
        (void)pthread_mutex_unlock(&s->index_lock);
        return p;
}

static void keep_unreadable(Reading *g, const IndexPlace *p, const char *data, int e) {
        StoreDamage d;
        bool kept = damage_keep(g->store->dir_fd, p->segment, p->at, data, e == -EBADMSG ? p->size : 0, &d) >= 0;
        if (!kept)
                strcpy(d.kept, "nowhere"); /* for now: compaction lets it not go without */
        d.n_bytes = p->size;
        damage_note(g->store, p->segment, &d, kept);
}

/* give_up: what cannot be read is damaged. */
static int read_task(Reading *g, uint64_t queue, uint64_t seq, bool give_up, Record *ret) {
        const Record want = { .kind = STORE_TASK, .queue = queue, .seq = seq };
        IndexPlace place = { 0 };
        const char *data = "";
        int e = -ENOENT;
        for (int tries = 0; tries < 8 && e == -ENOENT; tries++) {
                if (!find_place(g->store, queue, seq, &place))
                        return -ENOENT;
                e = read_place(g, &place, &want, ret, &data);
        }
        if (e == -EBADMSG || (e == -EIO && give_up))
                keep_unreadable(g, &place, data, e);
        g->unread = e == -EIO ? place.segment : g->unread;
        return e;
}

static int keep_body(StoreFetch *f, StoreBytes body) {
        if (f->len + body.len > f->cap) {
                size_t cap = MAX(f->cap * 2, f->len + body.len);
                char *data = fault_realloc(f->data, cap);
                if (!data)
                        return -ENOMEM;
                f->data = data;
                f->cap = cap;
        }
        if (body.len)
                memcpy(f->data + f->len, body.data, body.len);
        f->len += body.len;
        return 0;
}

/* Those that could not be read before, or all of them. False: it is to be done again when it is due. The last time what cannot be read is
 * damaged. */
static bool try_fetch(Store *s, StoreFetch *f) {
        bool again = f->patience.since_usec > 0, give_up = patience_is_over(&f->patience, READ_PATIENCE_SEC);
        Reading g = { .store = s, .segment = SEGMENT_NULL };
        for (size_t i = 0; i < f->n; i++) {
                StoreFetched *t = &f->tasks[i];
                Record r;
                if (again && t->result != -EIO)
                        continue;
                t->result = read_task(&g, f->queue, t->seq, give_up, &r);
                t->at = f->len;
                if (t->result >= 0)
                        t->result = keep_body(f, r.body);
                if (t->result >= 0) {
                        t->lane = r.lane;
                        t->len = r.body.len;
                }
        }
        segment_close(&g.segment);
        segment_window_done(&g.window);
        free(g.buf);
        if (g.unread == 0 || give_up)
                return true;
        if (!again)
                unread_note(s, g.unread, READ_PATIENCE_SEC);
        patience_note(&f->patience);
        return false;
}

void patience_wait(void) {
        struct timespec t = { .tv_sec = READ_AGAIN_SEC };
        (void)nanosleep(&t, NULL); /* a signal: it is tried a little sooner */
}

void store_fetch_now(Store *s, StoreFetch *f) {
        f->patience = (StorePatience) { 0 };
        while (!try_fetch(s, f))
                patience_wait();
}

static void put_last(StoreFetch ***end, StoreFetch *f) {
        f->next = NULL;
        **end = f;
        *end = &f->next;
}

static StoreFetch *take_first(StoreFetch **list, StoreFetch ***end) {
        StoreFetch *f = *list;
        if (f)
                *list = f->next;
        if (!*list)
                *end = list;
        return f;
}

void store_fetch(Store *s, StoreFetch *f) {
        f->patience = (StorePatience) { 0 };
        (void)pthread_mutex_lock(&s->reader_lock);
        put_last(&s->wanted_end, f);
        (void)pthread_cond_signal(&s->reader_wake);
        (void)pthread_mutex_unlock(&s->reader_lock);
}

void reader_call_done(Store *s) {
        for (;;) {
                (void)pthread_mutex_lock(&s->reader_lock);
                StoreFetch *f = take_first(&s->fetched, &s->fetched_end);
                (void)pthread_mutex_unlock(&s->reader_lock);
                if (!f)
                        return;
                f->done(f);
        }
}

/* ---- hints ---- */

bool reader_has_hint(Store *s) {
        (void)pthread_mutex_lock(&s->reader_lock);
        bool has = s->making != NULL;
        (void)pthread_mutex_unlock(&s->reader_lock);
        return has;
}

void reader_make_hint(Store *s, HintMaker *m) {
        (void)pthread_mutex_lock(&s->reader_lock);
        s->making = m;
        (void)pthread_cond_signal(&s->reader_wake);
        (void)pthread_mutex_unlock(&s->reader_lock);
}

/* A little of it. */
static void make_hint(Store *s, HintMaker *m) {
        int e = hint_maker_step(m, s->dir_fd);
        if (e == 0)
                return;
        hint_maker_free(m);
        (void)pthread_mutex_lock(&s->reader_lock);
        s->making = NULL;
        (void)pthread_mutex_unlock(&s->reader_lock);
        (void)pthread_mutex_lock(&s->lock);
        s->stats.n_hints += e > 0;
        (void)pthread_cond_signal(&s->wake); /* the next one can be made */
        (void)pthread_mutex_unlock(&s->lock);
}

/* ---- the thread ---- */

/* Under reader_lock, for all three. NULL: none. */
static StoreFetch *next_fetch(Store *s) {
        if (s->unread && patience_is_due(&s->unread->patience))
                return take_first(&s->unread, &s->unread_end);
        return take_first(&s->wanted, &s->wanted_end);
}

static void wait_for_work(Store *s) {
        if (!s->unread) {
                (void)pthread_cond_wait(&s->reader_wake, &s->reader_lock);
                return;
        }
        uint64_t due = s->unread->patience.due_usec;
        struct timespec until = { .tv_sec = (time_t)(due / USEC_PER_SEC),
                                  .tv_nsec = (long)(due % USEC_PER_SEC) * 1000 };
        (void)pthread_cond_timedwait(&s->reader_wake, &s->reader_lock, &until);
}

static void put_back(Store *s, StoreFetch *f, bool is_done) {
        if (!is_done) {
                put_last(&s->unread_end, f);
                return;
        }
        put_last(&s->fetched_end, f);
        store_ring(s);
}

static void *reader_thread(void *userdata) {
        Store *s = userdata;
        (void)pthread_setname_np(pthread_self(), "eqd/reader");
        (void)pthread_mutex_lock(&s->reader_lock);
        for (;;) {
                if (s->reader_stop)
                        break;
                StoreFetch *f = next_fetch(s);
                HintMaker *m = s->making;
                bool is_done = false;
                if (!f && !m) {
                        wait_for_work(s);
                        continue;
                }
                (void)pthread_mutex_unlock(&s->reader_lock);
                if (f)
                        is_done = try_fetch(s, f);
                else
                        make_hint(s, m);
                (void)pthread_mutex_lock(&s->reader_lock);
                if (f)
                        put_back(s, f, is_done);
        }
        (void)pthread_mutex_unlock(&s->reader_lock);
        return NULL;
}

int reader_init(Store *s) {
        s->wanted_end = &s->wanted;
        s->fetched_end = &s->fetched;
        s->unread_end = &s->unread;
        pthread_condattr_t attributes;
        int r = pthread_mutex_init(&s->reader_lock, NULL);
        if (r == 0)
                r = pthread_condattr_init(&attributes);
        if (r == 0)
                r = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (r == 0)
                r = pthread_cond_init(&s->reader_wake, &attributes);
        if (r == 0)
                r = pthread_mutex_init(&s->index_lock, NULL);
        if (r == 0)
                r = pthread_mutex_init(&s->table_lock, NULL);
        if (r == 0)
                s->index.table_lock = &s->table_lock;
        return -r;
}

int reader_start(Store *s) {
        int r = pthread_create(&s->reader, NULL, reader_thread, s);
        s->has_reader = r == 0;
        return -r;
}

void reader_stop(Store *s) {
        if (!s->has_reader)
                return;
        (void)pthread_mutex_lock(&s->reader_lock);
        s->reader_stop = true;
        (void)pthread_cond_signal(&s->reader_wake);
        (void)pthread_mutex_unlock(&s->reader_lock);
        (void)pthread_join(s->reader, NULL); /* cannot fail: joined once */
        s->has_reader = false;
        reader_call_done(s);
        for (StoreFetch *f;
             (f = take_first(&s->unread, &s->unread_end)) || (f = take_first(&s->wanted, &s->wanted_end));) {
                for (size_t i = 0; i < f->n; i++)
                        f->tasks[i].result = -ECANCELED;
                f->done(f);
        }
}

void reader_deinit(Store *s) {
        s->making = hint_maker_free(s->making);
}
