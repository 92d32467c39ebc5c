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
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "store/parts.h"

enum {
        DEFAULT_SEGMENT = 64 << 20,
        BATCH_KEPT = 4 << 20, /* a larger buffer is not kept for the next batch */
};

/* ---- life ---- */

static int open_dir(const char *path, int *ret_fd) {
        if (mkdir(path, 0700) < 0 && errno != EEXIST)
                return -errno;
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

static int init_marks(Store *s) {
        s->free_marks = fault_calloc(STORE_MARKS, sizeof(int));
        if (!s->free_marks)
                return -ENOMEM;
        for (int i = STORE_MARKS; i-- > 0;)
                s->free_marks[s->n_free_marks++] = i;
        return marks_open(s->dir_fd, &s->marks);
}

static int init_lock(Store *s) {
        pthread_condattr_t attributes;
        int r = pthread_condattr_init(&attributes);
        if (r == 0)
                r = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        if (r == 0)
                r = pthread_cond_init(&s->wake, &attributes);
        if (r == 0)
                r = pthread_cond_init(&s->done, NULL);
        if (r == 0)
                r = pthread_mutex_init(&s->lock, NULL);
        return -r;
}

/* Whatever there is of it; the thread has ended. */
static Store *destroy(Store *s) {
        index_done(&s->index);
        segment_close(&s->active);
        segment_close(&s->next);
        segment_close(&s->victim);
        s->marks = marks_close(s->marks);
        free(s->free_marks);
        free(s->collecting.data);
        free(s->handed.data);
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
                r = init_marks(s);
        if (r >= 0 && (s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
                r = -errno;
        if (r < 0) {
                snprintf(error, error_size, "cannot open the store in %s: %s", config->dir, strerror(-r));
                return r;
        }
        r = store_replay(s, reader, userdata, error, error_size);
        if (r < 0)
                return r;
        marks_clear(s->marks);
        r = -pthread_create(&s->thread, NULL, store_thread, s);
        if (r < 0)
                snprintf(error, error_size, "cannot start the thread of the store: %s", strerror(-r));
        return r;
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
        int r = fill(s, config, reader, userdata, error, error_size);
        if (r < 0) {
                destroy(s);
                return r;
        }
        *ret = s;
        return 0;
}

/* Until all is durable, or cannot be. */
static void drain(Store *s) {
        (void)pthread_mutex_lock(&s->lock); /* cannot fail for a mutex of this kind; here and below */
        for (;;) {
                while (s->busy && s->health == STORE_GOOD)
                        (void)pthread_cond_wait(&s->done, &s->lock);
                if (s->busy || s->health == STORE_FAILED || s->collecting.len == 0)
                        break;
                (void)pthread_mutex_unlock(&s->lock);
                store_flush(s);
                (void)pthread_mutex_lock(&s->lock);
        }
        (void)pthread_mutex_unlock(&s->lock);
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
        return destroy(s);
}

/* ---- append ---- */

static int reserve(Batch *b, size_t n) {
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

static void append_one(Batch *b, const StoreItem *i, bool more) {
        Record r = {
                .kind = i->kind, .flags = more ? RECORD_MORE : 0, .lane = i->lane, .queue = i->queue, .seq = i->seq
        };
        size_t n = record_size(i->body.len);
        char *p = b->data + b->len;
        r.body = i->body;
        memset(p + n - 8, 0, 8); /* what rounds it up; the body overwrites its part */
        record_put_header(p, &r);
        if (i->body.len)
                memcpy(p + RECORD_HEADER, i->body.data, i->body.len);
        b->len += n;
}

int store_append(Store *s, const StoreItem *items, size_t n) {
        size_t bytes = 0;
        if (s->seen_health == STORE_FAILED)
                return -EIO;
        for (size_t i = 0; i < n; i++) {
                bool grows = items[i].kind == STORE_TASK || items[i].kind == STORE_QUEUE;
                if (s->seen_health == STORE_FULL && grows)
                        return -ENOSPC;
                if (items[i].body.len > RECORD_BODY_MAX)
                        return -EMSGSIZE;
                bytes += record_size(items[i].body.len);
        }
        if (bytes > s->segment_size / 4)
                return -EMSGSIZE;
        int e = reserve(&s->collecting, bytes);
        if (e < 0)
                return e;
        for (size_t i = 0; i < n; i++)
                append_one(&s->collecting, &items[i], i + 1 < n);
        s->written += n;
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
        (void)pthread_mutex_unlock(&s->lock);
}

const uint64_t *store_written(const Store *s) {
        return &s->written;
}

void store_flush(Store *s) {
        if (s->collecting.len == 0)
                return;
        (void)pthread_mutex_lock(&s->lock);
        bool free_now = !s->busy && s->health != STORE_FAILED;
        if (free_now) {
                Batch empty = s->handed;
                s->handed = s->collecting;
                s->collecting = empty;
                s->busy = true;
                (void)pthread_cond_signal(&s->wake);
        }
        (void)pthread_mutex_unlock(&s->lock);
        if (!free_now)
                return;
        s->collecting.len = 0;
        if (s->collecting.cap > BATCH_KEPT) {
                free(s->collecting.data);
                s->collecting = (Batch) { 0 };
        }
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
        (void)pthread_mutex_unlock(&s->lock);
        return s->seen_health;
}

StoreHealth store_health(const Store *s) {
        return s->seen_health;
}

int store_error(const Store *s) {
        return s->seen_error;
}

void store_stats(Store *s, StoreStats *ret) {
        (void)pthread_mutex_lock(&s->lock);
        *ret = s->stats;
        (void)pthread_mutex_unlock(&s->lock);
}

/* ---- marks ---- */

int store_mark(Store *s, uint64_t queue, uint64_t seq, uint32_t attempt) {
        if (s->n_free_marks == 0)
                return STORE_MARK_NONE;
        int slot = s->free_marks[--s->n_free_marks];
        marks_set(s->marks, slot, queue, seq, attempt);
        return slot;
}

void store_unmark(Store *s, int slot) {
        if (slot == STORE_MARK_NONE)
                return;
        marks_unset(s->marks, slot);
        s->free_marks[s->n_free_marks++] = slot;
}
