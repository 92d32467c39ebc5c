/* SPDX-License-Identifier: MIT */
/* Builds the strings of a record on the stack and hands them to the log. */

#include "base/event.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

enum { TEXT_MAX = 2048, FIELDS_TEXT_MAX = 8192 };

#define EVENT(ID, name_, message_id_, priority_, per_minute_, format_, happened_, advice_)                             \
        [EVENT_##ID] = {                                                                                               \
                .name = (name_),                                                                                       \
                .message_id = (message_id_),                                                                           \
                .priority = (priority_),                                                                               \
                .per_minute = (per_minute_),                                                                           \
                .format = (format_),                                                                                   \
                .happened = (happened_),                                                                               \
                .advice = (advice_),                                                                                   \
        },
const EventRow event_rows[_EVENT_MAX] = {
#include "base/events.def"
};

#define EVENT_FIELD(member, type, key_, doc_)                                                                          \
        { .key = (key_), .doc = (doc_), .kind = EVENT_FIELD_##type, .offset = offsetof(EventFields, member) },
const EventFieldRow event_fields[] = {
#include "base/events.def"
};
const size_t n_event_fields = ELEMENTSOF(event_fields);

bool event_rate_admit(EventRate *r, unsigned per_minute, uint64_t now_usec, uint64_t *ret_suppressed) {
        if (r->n == 0 || now_usec - r->since_usec >= 60 * USEC_PER_SEC) {
                r->since_usec = now_usec;
                r->n = 0;
        }
        if (per_minute > 0 && r->n >= per_minute) {
                r->n_suppressed++;
                return false;
        }
        r->n++;
        *ret_suppressed = r->n_suppressed;
        r->n_suppressed = 0;
        return true;
}

static bool admit(EventId id, uint64_t *ret_suppressed) {
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        static EventRate rates[_EVENT_MAX];
        pthread_mutex_lock(&lock);
        bool ok =
                event_rate_admit(&rates[id], event_rows[id].per_minute, clock_monotonic(&clock_system), ret_suppressed);
        pthread_mutex_unlock(&lock);
        return ok;
}

/* KEY=value strings, one behind the other in a piece of memory that is large enough for all that is short, which is all but
 * texts of clients and files: those are cut. */
typedef struct Strings {
        const char *all[ELEMENTSOF(event_fields) + 2];
        unsigned n;
        char text[FIELDS_TEXT_MAX];
        size_t len;
} Strings;

static void add(Strings *s, const char *key, const char *value) {
        size_t left = sizeof(s->text) - s->len;
        int n = snprintf(s->text + s->len, left, "%s=%s", key, value);
        if (n < 0 || left <= strlen(key) + 1)
                return;
        s->all[s->n++] = s->text + s->len;
        s->len += MIN((size_t)n, left - 1) + 1;
}

static void add_field(Strings *s, const EventFieldRow *row, const EventFields *fields) {
        const void *member = (const char *)fields + row->offset;
        char number[24];
        const uint64_t *value = member;
        if (row->kind == EVENT_FIELD_TEXT) {
                const char *text = *(const char *const *)member;
                if (text)
                        add(s, row->key, text);
                return;
        }
        if (row->kind == EVENT_FIELD_COUNT)
                value = *(const uint64_t *const *)member;
        if (!value || (row->kind == EVENT_FIELD_NUMBER && *value == 0))
                return;
        snprintf(number, sizeof(number), "%" PRIu64, *value);
        add(s, row->key, number);
}

void event_write(EventId id, int level, const EventFields *fields, const char *format, ...) {
        const EventRow *row = &event_rows[id];
        EventFields all = *fields;
        Strings s = { .n = 0 };
        char text[TEXT_MAX], more[64] = "";
        va_list ap;
        int saved = errno;
        if (!log_wants(level) || !admit(id, &all.suppressed))
                return;
        va_start(ap, format);
        vsnprintf(text, sizeof(text), format, ap);
        va_end(ap);
        if (all.suppressed > 0)
                snprintf(more, sizeof(more), " (%" PRIu64 " like it were left out)", all.suppressed);
        add(&s, "MESSAGE_ID", row->message_id);
        add(&s, "EQD_EVENT", row->name);
        for (size_t i = 0; i < n_event_fields; i++)
                add_field(&s, &event_fields[i], &all);
        log_write_fields(level, s.all, s.n, "%s%s", text, more);
        errno = saved;
}
