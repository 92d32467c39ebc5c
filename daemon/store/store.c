/* SPDX-License-Identifier: MIT */
/* The loop's side: collects records into a batch, hands it over when the thread is free, is told by an eventfd. Two batches
 * exist, and their buffers change places: while one is being synced the other is filled. */

#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

enum {
        DEFAULT_SEGMENT = 64 << 20,
        BATCH_KEPT = 4 << 20, /* a larger buffer is not kept for the next batch */
};

/* ---- life ---- */

/* Made durably: what is promised of its files is no more than that it is there. */
static int make_dir(const char *path) {
        if (mkdir(path, 0700) < 0)
                return errno == EEXIST ? 0 : -errno;
        _cleanup_free_ char *parent = strdup(path);
        if (!parent)
                return -ENOMEM;
        char *slash = strrchr(parent, '/');
        if (slash)
                slash[slash == parent] = '\0';
        _cleanup_close_ int fd = open(slash ? parent : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? -errno : segment_sync_dir(fd);
}

static int open_dir(const char *path, int *ret_fd) {
        int r = make_dir(path);
        if (r < 0)
                return r;
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

static int init_marks(Store *s, const char *dir, char *error, size_t error_size) {
        s->free_marks = fault_calloc(STORE_MARKS, sizeof(int));
        s->found_marks = fault_calloc(STORE_MARKS, sizeof(int));
        if (!s->free_marks || !s->found_marks)
                return -ENOMEM;
        int r = marks_open(s->dir_fd, &s->boot, &s->marks, &s->marks_head);
        if (r == -EBADMSG || r == -EPROTONOSUPPORT)
                snprintf(error, error_size, "%s/running %s; move it away to start without knowing what ran", dir,
                         r == -EBADMSG ? "is not the file of eqd that tells what runs"
                                       : "is of another version of eqd: start that one, or");
        if (r == -ENOSPC || r == -EDQUOT)
                snprintf(error, error_size,
                         "%s/running, which tells what runs, has no space; make room on its file system", dir);
        if (r == -EEXIST)
                snprintf(error, error_size,
                         "%s/new-running is not of eqd, which makes a file by that name; move it away", dir);
        return r;
}

static int tell_mark(const Store *s, int slot, const StoreReader *reader, void *userdata) {
        MarkSeen m = { 0 };
        StoreMarkDamage what = STORE_MARK_PROCESS;
        MarkState state = marks_read(s->marks, slot, &m);
        if (state == MARK_NONE)
                return 0;
        bool is_damaged = state != MARK_SET || m.process_damaged;
        if (state != MARK_SET)
                what = state == MARK_MENDED    ? STORE_MARK_MENDED
                       : state == MARK_SPOILED ? STORE_MARK_NOTHING
                                               : STORE_MARK_LOST;
        int r = 0;
        if (is_damaged && reader->mark_damaged)
                r = reader->mark_damaged(userdata, what, slot, m.queue, m.seq);
        if (r >= 0 && (state == MARK_SET || state == MARK_MENDED) && reader->running)
                r = reader->running(userdata, m.queue, m.seq, m.attempt);
        return r;
}

int store_tell_marks(const Store *s, const StoreReader *reader, void *userdata) {
        int r = 0;
        if ((s->marks_head.damaged || s->marks_head.mended) && reader->mark_damaged)
                r = reader->mark_damaged(userdata, s->marks_head.damaged ? STORE_MARK_HEADER : STORE_MARK_HEADER_MENDED,
                                         STORE_MARK_NONE, 0, 0);
        for (int i = 0; i < STORE_MARKS && r >= 0; i++)
                r = tell_mark(s, i, reader, userdata);
        return r;
}

/* After they were told. */
static void sort_marks(Store *s) {
        for (int i = STORE_MARKS; i-- > 0;)
                if (marks_is_set(s->marks, i))
                        s->found_marks[s->n_found_marks++] = i;
                else
                        s->free_marks[s->n_free_marks++] = i;
}

static int init_lock(Store *s) {
        pthread_condattr_t attributes;
        int r = pthread_condattr_init(&attributes);
        if (r == 0)
                r = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (r == 0)
                r = pthread_cond_init(&s->wake, &attributes);
        if (r == 0)
                r = pthread_cond_init(&s->done, &attributes);
        if (r == 0)
                r = pthread_mutex_init(&s->lock, NULL);
        return r == 0 ? reader_init(s) : -r;
}

/* Whatever there is of it; the thread has ended. */
static Store *destroy(Store *s) {
        index_done(&s->index);
        segment_close(&s->active);
        segment_close(&s->next);
        segment_close(&s->victim);
        segment_window_done(&s->victim_window);
        hints_deinit(&s->hints);
        reader_deinit(s);
        s->marks = marks_close(s->marks);
        free(s->free_marks);
        free(s->found_marks);
        free(s->collecting.data);
        free(s->handed.data);
        free(s->moving.data);
        close_fd(s->event_fd);
        close_fd(s->dir_fd);
        free(s);
        return NULL;
}

static int fill(Store *s, const StoreConfig *config, const StoreReader *reader, void *userdata, char *error,
                size_t error_size) {
        int r = init_lock(s);
        if (r >= 0)
                r = open_dir(config->dir, &s->dir_fd);
        if (r >= 0)
                r = init_marks(s, config->dir, error, error_size);
        if (r >= 0 && (s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
                r = -errno;
        if (r < 0) {
                if (error[0] == '\0')
                        snprintf(error, error_size, "cannot open the store in %s: %s", config->dir, strerror(-r));
                return r;
        }
        r = store_replay(s, reader, userdata, error, error_size);
        if (r < 0)
                return r;
        sort_marks(s);
        marks_forget_pages(s->marks);
        if (!config->keep_marks)
                store_unmark_found(s);
        store_set_sizes(s);
        r = reader_start(s);
        if (r >= 0)
                r = -pthread_create(&s->thread, NULL, store_thread, s);
        if (r < 0)
                snprintf(error, error_size, "cannot start the threads of the store: %s", strerror(-r));
        return r;
}

static void set_boot(SegmentBoot *ret, const char *boot) {
        segment_boot(ret);
        if (boot)
                memcpy(ret->id, boot, sizeof(ret->id));
}

int store_leftovers(const char *dir, const char *boot, StoreLeftovers *ret) {
        SegmentBoot b;
        set_boot(&b, boot);
        return marks_leftovers(dir, &b, ret);
}

int store_open(const StoreConfig *config, const StoreReader *reader, void *userdata, char *error, size_t error_size,
               Store **ret) {
        Store *s = fault_calloc(1, sizeof(*s));
        error[0] = '\0';
        if (!s) {
                snprintf(error, error_size, "out of memory");
                return -ENOMEM;
        }
        s->dir_fd = s->event_fd = -1;
        s->active = s->next = s->victim = (Segment)SEGMENT_NULL;
        s->segment_size = config->segment_size ? config->segment_size : DEFAULT_SEGMENT;
        s->low_water = config->low_water;
        s->look = true;
        set_boot(&s->boot, config->boot);
        int r = fill(s, config, reader, userdata, error, error_size);
        if (r < 0) {
                reader_stop(s);
                destroy(s);
                return r;
        }
        *ret = s;
        return 0;
}

/* What is appended becomes durable without anybody's help. */
static bool goes_on(StoreHealth health) {
        return health == STORE_GOOD || health == STORE_LOW;
}

/* Until all is durable, or cannot be. */
static void drain(Store *s) {
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind; here and below */
        for (;;) {
                while (s->busy && goes_on(s->health))
                        (void)pthread_cond_wait(&s->done, &s->lock);
                if (s->busy || s->health == STORE_FAILED || s->collecting.len == 0)
                        break;
                (void)pthread_mutex_unlock(&s->lock);
                store_flush(s);
                (void)pthread_mutex_lock(&s->lock);
        }
        (void)pthread_mutex_unlock(&s->lock);
}

int store_settle(Store *s) {
        drain(s);
        (void)pthread_mutex_lock(&s->lock);
        int r = goes_on(s->health) && !s->busy && s->collecting.len == 0 ? 0 : s->error < 0 ? s->error : -EIO;
        (void)pthread_mutex_unlock(&s->lock);
        return r;
}

int store_wait(Store *s, uint64_t usec) {
        uint64_t wanted = atomic_load_explicit(&s->appended, memory_order_relaxed);
        uint64_t until = clock_monotonic(&clock_system) + usec;
        struct timespec t = { .tv_sec = (time_t)(until / USEC_PER_SEC),
                              .tv_nsec = (long)(until % USEC_PER_SEC) * 1000 };
        int r = 0;
        (void)pthread_mutex_lock(&s->lock);
        while (r == 0 && s->durable < wanted && s->health != STORE_FAILED)
                r = -pthread_cond_timedwait(&s->done, &s->lock, &t);
        if (s->durable >= wanted)
                r = 0;
        else if (s->health == STORE_FAILED || s->error < 0) /* a full disk says why the time was not enough */
                r = s->error < 0 ? s->error : -EIO;
        (void)pthread_mutex_unlock(&s->lock);
        return r;
}

Store *store_close(Store *s) {
        if (!s)
                return NULL;
        drain(s);
        (void)pthread_mutex_lock(&s->lock);
        s->stop = true;
        (void)pthread_cond_signal(&s->wake);
        (void)pthread_mutex_unlock(&s->lock);
        (void)pthread_join(s->thread, NULL); /* cannot fail: joined once */
        reader_stop(s);
        if (s->sealed)
                hints_finish(s, s->active.number);
        return destroy(s);
}

/* ---- append ---- */

int batch_reserve(Batch *b, size_t n) {
        if (b->cap - b->len >= n)
                return 0;
        size_t cap = MAX(MAX(b->cap * 2, b->len + n), (size_t)65536);
        char *data = fault_realloc(b->data, cap);
        if (!data)
                return -ENOMEM;
        b->data = data;
        b->cap = cap;
        return 0;
}

void batch_clear(Batch *b) {
        b->len = 0;
        if (b->cap > BATCH_KEPT) {
                free(b->data);
                *b = (Batch) { 0 };
        }
}

/* What was in the buffer before was written long ago, or by the other thread: what comes there waits for each line of it otherwise. */
static void prefetch_behind(const char *p, size_t n) {
        enum { AHEAD = 1024, LINE = 64, LINES_MAX = 4 };
        for (size_t i = 0; i < MIN(n, (size_t)LINES_MAX * LINE); i += LINE)
                __builtin_prefetch(p + AHEAD + i, 1); /* nothing happens where there is no memory */
}

void batch_append(Batch *b, const Record *r) {
        size_t n = record_size(r->body.len);
        char *p = b->data + b->len;
        prefetch_behind(p, n);
        record_put_header(p, r);
        if (r->body.len)
                memcpy(p + RECORD_HEADER, r->body.data, r->body.len);
        b->len += n;
}

static void append_one(Batch *b, const StoreItem *i, uint8_t flags) {
        batch_append(b, &(Record) { .kind = i->kind,
                                    .flags = flags,
                                    .lane = i->lane,
                                    .queue = i->queue,
                                    .seq = i->seq,
                                    .body = i->body });
}

int store_append(Store *s, const StoreItem *items, size_t n) {
        size_t bytes = 0, n_records = 0;
        if (s->seen_health == STORE_FAILED)
                return -EIO;
        for (size_t i = 0; i < n; i++) {
                if (s->seen_health != STORE_GOOD && items[i].kind == STORE_TASK && !items[i].is_rest)
                        return -ENOSPC;
                if (items[i].body.len > RECORD_BODY_MAX)
                        return -EMSGSIZE;
                bytes += record_copies(items[i].kind) * record_size(items[i].body.len);
                n_records += record_copies(items[i].kind);
        }
        if (bytes > s->segment_size / 4)
                return -EMSGSIZE;
        int e = batch_reserve(&s->collecting, bytes);
        if (e < 0)
                return e;
        for (size_t i = 0, k = 0; i < n; i++)
                for (size_t copy = record_copies(items[i].kind); copy > 0; copy--, k++)
                        append_one(&s->collecting, &items[i],
                                   (uint8_t)((k + 1 < n_records ? RECORD_MORE : 0) | (k > 0 ? RECORD_INSIDE : 0)));
        s->written += n;
        atomic_store_explicit(&s->appended, s->written, memory_order_relaxed);
        s->collecting.last = s->written;
        return 0;
}

void store_fail(Store *s, int error) {
        (void)pthread_mutex_lock(&s->lock);
        if (s->health != STORE_FAILED) {
                s->health = STORE_FAILED;
                s->error = error;
        }
        s->seen_health = s->health;
        s->seen_error = s->error;
        (void)pthread_cond_signal(&s->wake);
        (void)pthread_cond_broadcast(&s->done);
        (void)pthread_mutex_unlock(&s->lock);
        store_ring(s);
}

const uint64_t *store_written(const Store *s) {
        return &s->written;
}

void store_flush(Store *s) {
        if (s->collecting.len == 0)
                return;
        (void)pthread_mutex_lock(&s->lock);
        if (!s->busy && s->health != STORE_FAILED) {
                Batch empty = s->handed;
                s->handed = s->collecting;
                s->collecting = empty;
                s->busy = true;
                (void)pthread_cond_signal(&s->wake);
        }
        (void)pthread_mutex_unlock(&s->lock);
}

/* ---- what has become of it ---- */

int store_fd(const Store *s) {
        return s->event_fd;
}

StoreHealth store_dispatch(Store *s, uint64_t *ret_position) {
        eventfd_t n;
        (void)eventfd_read(s->event_fd, &n); /* nothing there: nothing new */
        (void)pthread_mutex_lock(&s->lock);
        *ret_position = s->durable;
        s->seen_health = s->health;
        s->seen_error = s->error;
        s->seen_spent = s->spent;
        (void)pthread_mutex_unlock(&s->lock);
        reader_call_done(s);
        return s->seen_health;
}

StoreHealth store_health(const Store *s) {
        return s->seen_health;
}

void store_set_low_water(Store *s, uint64_t bytes) {
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind */
        s->look = s->look || s->low_water != bytes;
        s->low_water = bytes;
        if (s->look)
                (void)pthread_cond_signal(&s->wake);
        (void)pthread_mutex_unlock(&s->lock);
}

/* Is there too little? The thread, which says so to all, has not looked. */
static bool finds_little(Store *s) {
        uint64_t now = clock_monotonic(&clock_system), mark = s->low_water, left, size;
        if (now - atomic_load_explicit(&s->looked_usec, memory_order_acquire) < STORE_LOOKS_USEC ||
            segment_space(s->dir_fd, &left, &size) < 0)
                return false;
        if (!store_is_little(left, size, &mark, false)) {
                atomic_store_explicit(&s->looked_usec, now, memory_order_relaxed);
                return false;
        }
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind */
        s->look = true;
        (void)pthread_cond_signal(&s->wake);
        (void)pthread_mutex_unlock(&s->lock);
        return true;
}

StoreHealth store_look(Store *s) {
        if (s->collecting.len > 0 || s->seen_health != STORE_GOOD)
                return s->seen_health;
        if (finds_little(s))
                return STORE_LOW;
        (void)pthread_mutex_lock(&s->lock);
        bool low = s->health == STORE_LOW; /* the thread has found it so, and is not heard yet */
        (void)pthread_mutex_unlock(&s->lock);
        return low ? STORE_LOW : s->seen_health;
}

bool store_is_spent(const Store *s) {
        return s->seen_spent;
}

int store_error(const Store *s) {
        return s->seen_error;
}

void store_stats(Store *s, StoreStats *ret) {
        (void)pthread_mutex_lock(&s->lock);
        *ret = s->stats;
        (void)pthread_mutex_unlock(&s->lock);
}

const char *store_directory(const Store *s, char *buf, size_t size) {
        char link[64];
        snprintf(link, sizeof(link), "/proc/self/fd/%d", s->dir_fd);
        ssize_t n = readlink(link, buf, size - 1);
        buf[MAX(n, 0)] = '\0';
        return buf;
}

uint64_t store_queue_bytes(const Store *s, uint64_t queue) {
        return index_queue_bytes(&s->index, queue);
}

/* ---- marks ---- */

int store_mark_ready(Store *s, uint64_t queue, uint64_t seq, uint32_t attempt, _Atomic uint64_t **ret_word,
                     uint64_t *ret_value) {
        if (s->n_free_marks == 0 || fault_hit(FAULT_MARK))
                return STORE_MARK_NONE;
        int slot = s->free_marks[--s->n_free_marks];
        *ret_word = marks_prepare(s->marks, slot, queue, seq, attempt, ret_value);
        return slot;
}

int store_mark(Store *s, uint64_t queue, uint64_t seq, uint32_t attempt) {
        _Atomic uint64_t *word;
        uint64_t value;
        int slot = store_mark_ready(s, queue, seq, attempt, &word, &value);
        if (slot != STORE_MARK_NONE)
                atomic_store(word, value);
        return slot;
}

void store_mark_set(Store *s, int slot) {
        if (slot != STORE_MARK_NONE)
                marks_set(s->marks, slot);
}

size_t store_n_free_marks(const Store *s) {
        return fault_hit(FAULT_MARK) ? 0 : s->n_free_marks;
}

void store_mark_process(Store *s, int slot, const StoreProcess *p) {
        if (slot != STORE_MARK_NONE)
                marks_set_process(s->marks, slot, p);
}

void store_note_spawner(Store *s, const StoreProcess *p) {
        marks_set_spawner(s->marks, p);
}

void store_unmark_found(Store *s) {
        while (s->n_found_marks > 0)
                store_unmark(s, s->found_marks[--s->n_found_marks]);
}

void store_unmark(Store *s, int slot) {
        if (slot == STORE_MARK_NONE)
                return;
        marks_unset(s->marks, slot);
        s->free_marks[s->n_free_marks++] = slot;
}
