/* SPDX-License-Identifier: MIT */
/* A ring of formatted records between everybody and the one thread that may block.
 *
 * Lock: `lock` guards the ring, is held for a copy of a pointer and never across a write or an allocation. Records that
 * find the ring full are counted; the next record written says how many were lost. */

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#define SD_JOURNAL_SUPPRESS_LOCATION /* CODE_FILE= and its like would name this file in every record */
#include <systemd/sd-journal.h>
#include <time.h>

#include "base/clock.h"
#include "base/event.h"
#include "base/fault.h"

enum { RING = 1024, FIELDS_MAX = 32, TEXT_MAX = 2048 };

typedef struct Record {
        int level;
        unsigned n_fields;
        char *fields[FIELDS_MAX + 2]; /* owned; [0] is MESSAGE=, [1] is PRIORITY= */
} Record;

static struct {
        pthread_mutex_t lock;
        pthread_cond_t wake; /* CLOCK_MONOTONIC not needed: waits have no bound */
        pthread_cond_t idle;
        pthread_t thread;
        Record *ring[RING];
        size_t head, n;
        bool running, stopping, writing;
        bool journal, terminal; /* what standard error is */
        atomic_int max_level;
        atomic_uint_fast64_t dropped;
        uint64_t reported; /* log thread */
} logger = {
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .wake = PTHREAD_COND_INITIALIZER,
        .idle = PTHREAD_COND_INITIALIZER,
        .max_level = LOG_INFO,
};

static Record *record_free(Record *r) {
        if (!r)
                return NULL;
        for (unsigned i = 0; i < r->n_fields; i++)
                free(r->fields[i]);
        free(r);
        return NULL;
}

static Record *record_new(int level, const char *const *fields, unsigned n, const char *fmt, va_list ap) {
        char text[TEXT_MAX];
        int len = vsnprintf(text, sizeof(text), fmt, ap);
        if (len < 0)
                return NULL;
        Record *r = fault_calloc(1, sizeof(*r));
        if (!r)
                return NULL;
        r->level = level;
        if (asprintf(&r->fields[0], "MESSAGE=%s", text) < 0)
                return record_free(r);
        r->n_fields = 1;
        if (asprintf(&r->fields[1], "PRIORITY=%d", level) < 0)
                return record_free(r);
        r->n_fields = 2;
        for (unsigned i = 0; i < n && i < FIELDS_MAX; i++) {
                r->fields[r->n_fields] = strdup(fields[i]);
                if (!r->fields[r->n_fields])
                        return record_free(r);
                r->n_fields++;
        }
        return r;
}

/* May block: the log thread, or anybody before log_start() and after log_stop(). */
static void record_write(const Record *r) {
        if (logger.journal) {
                struct iovec iov[FIELDS_MAX + 2];
                for (unsigned i = 0; i < r->n_fields; i++)
                        iov[i] = (struct iovec) { .iov_base = r->fields[i], .iov_len = strlen(r->fields[i]) };
                if (sd_journal_sendv(iov, (int)r->n_fields) == 0)
                        return;
        }
        const char *text = r->fields[0] + strlen("MESSAGE=");
        if (logger.terminal)
                fprintf(stderr, "eqd: %s\n", text);
        else
                fprintf(stderr, "<%d>eqd: %s\n", r->level, text);
}

/* In front of the next record, and not through the ring, which is full. */
static void report_dropped(void) {
        const EventRow *row = &event_rows[EVENT_RECORDS_DROPPED];
        uint64_t dropped = atomic_load(&logger.dropped);
        uint64_t n = dropped - logger.reported;
        if (n == 0)
                return;
        char message[128], priority[16], id[64], event[64], count[48];
        size_t prefix = (size_t)snprintf(message, sizeof(message), "MESSAGE=");
        snprintf(message + prefix, sizeof(message) - prefix, event_format_RECORDS_DROPPED, n);
        snprintf(priority, sizeof(priority), "PRIORITY=%d", row->priority);
        snprintf(id, sizeof(id), "MESSAGE_ID=%s", row->message_id);
        snprintf(event, sizeof(event), "EQD_EVENT=%s", row->name);
        snprintf(count, sizeof(count), "EQD_DROPPED=%" PRIu64, n);
        record_write(
                &(Record) { .level = row->priority, .n_fields = 5, .fields = { message, priority, id, event, count } });
        logger.reported = dropped;
}

static void *log_thread(void *arg) {
        (void)pthread_setname_np(pthread_self(), "eqd/log");
        pthread_mutex_lock(&logger.lock);
        for (;;) {
                while (logger.n == 0 && !logger.stopping)
                        pthread_cond_wait(&logger.wake, &logger.lock);
                if (logger.n == 0)
                        break;
                Record *r = logger.ring[logger.head];
                logger.head = (logger.head + 1) % RING;
                logger.n--;
                logger.writing = true;
                pthread_mutex_unlock(&logger.lock);
                report_dropped();
                record_write(r);
                record_free(r);
                pthread_mutex_lock(&logger.lock);
                logger.writing = false;
                if (logger.n == 0)
                        pthread_cond_broadcast(&logger.idle);
        }
        pthread_mutex_unlock(&logger.lock);
        return arg;
}

/* The variable is inherited by programs whose standard error is another one: the file itself says whether it is meant. */
static bool stderr_is_journal(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long dev, ino;
        struct stat st;
        return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
               st.st_dev == dev && st.st_ino == ino;
}

int log_start(int max_level) {
        log_set_level(max_level);
        logger.journal = stderr_is_journal();
        logger.terminal = isatty(STDERR_FILENO);
        logger.stopping = false;
        if (fault_hit(FAULT_THREAD))
                return -EAGAIN;
        int r = pthread_create(&logger.thread, NULL, log_thread, NULL);
        if (r != 0)
                return -r;
        logger.running = true;
        return 0;
}

/* With the lock. 0, or ETIMEDOUT. */
static int wait_idle(uint64_t usec) {
        struct timespec until;
        int r = 0;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += (time_t)(usec / USEC_PER_SEC);
        while (r == 0 && (logger.n > 0 || logger.writing))
                r = pthread_cond_timedwait(&logger.idle, &logger.lock, &until);
        return r;
}

bool log_flush(uint64_t usec) {
        pthread_mutex_lock(&logger.lock);
        int r = wait_idle(usec);
        pthread_mutex_unlock(&logger.lock);
        return r == 0;
}

void log_stop(void) {
        if (!logger.running)
                return;
        pthread_mutex_lock(&logger.lock);
        int r = wait_idle(USEC_PER_SEC);
        logger.stopping = true;
        logger.running = false;
        pthread_cond_signal(&logger.wake);
        pthread_mutex_unlock(&logger.lock);
        if (r == 0)
                pthread_join(logger.thread, NULL);
        else
                pthread_detach(logger.thread); /* stuck in a blocked journal; the process is about to end */
}

void log_set_level(int max_level) {
        atomic_store(&logger.max_level, max_level);
}

bool log_wants(int level) {
        return level <= atomic_load_explicit(&logger.max_level, memory_order_relaxed);
}

uint64_t log_dropped(void) {
        return atomic_load(&logger.dropped);
}

bool log_is_journal(void) {
        return logger.journal;
}

static void submit(Record *r) {
        pthread_mutex_lock(&logger.lock);
        bool direct = !logger.running, full = logger.n == RING;
        if (!direct && !full) {
                logger.ring[(logger.head + logger.n++) % RING] = r;
                if (logger.n == 1)
                        pthread_cond_signal(&logger.wake);
        }
        pthread_mutex_unlock(&logger.lock);
        if (direct) {
                record_write(r);
                record_free(r);
        } else if (full) {
                atomic_fetch_add(&logger.dropped, 1);
                record_free(r);
        }
}

static void write_va(int level, const char *const *fields, unsigned n, const char *fmt, va_list ap) {
        if (!log_wants(level))
                return;
        int saved = errno;
        Record *r = record_new(level, fields, n, fmt, ap);
        if (r)
                submit(r);
        else
                atomic_fetch_add(&logger.dropped, 1);
        errno = saved;
}

void log_write(int level, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        write_va(level, NULL, 0, fmt, ap);
        va_end(ap);
}

void log_write_fields(int level, const char *const *fields, unsigned n, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        write_va(level, fields, n, fmt, ap);
        va_end(ap);
}
