/* SPDX-License-Identifier: MIT */
#pragma once

/* Events of events.def, written to the journal with their MESSAGE_ID and fields; base/log.h takes them from there. */

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/util.h"

typedef enum EventId {
#define EVENT(ID, ...) EVENT_##ID,
#include "base/events.def"
        _EVENT_MAX,
} EventId;

#define EVENT_MEMBER_TEXT(member) const char *member;
#define EVENT_MEMBER_NUMBER(member) uint64_t member;
#define EVENT_MEMBER_COUNT(member) const uint64_t *member;
#define EVENT_FIELD(member, type, ...) EVENT_MEMBER_##type(member)
typedef struct EventFields {
#include "base/events.def"
} EventFields; /* what is NULL or 0 is left out */

typedef struct EventRow {
        const char *name, *message_id; /* MESSAGE_ID: 32 hexadecimal digits */
        int priority;
        unsigned per_minute;
        const char *format, *happened, *advice;
} EventRow;
extern const EventRow event_rows[_EVENT_MAX];

typedef enum EventFieldType { EVENT_FIELD_TEXT, EVENT_FIELD_NUMBER, EVENT_FIELD_COUNT } EventFieldType;

typedef struct EventFieldRow {
        const char *key, *doc;
        EventFieldType kind;
        size_t offset; /* in EventFields */
} EventFieldRow;
extern const EventFieldRow event_fields[];
extern const size_t n_event_fields;

/* The format of each event once more, as a literal: the compiler holds the arguments against it. */
#define EVENT(ID, name, message_id, priority, per_minute, format, ...)                                                 \
        __attribute__((unused)) static const char event_format_##ID[] = format;
#include "base/events.def"

/* log_event(SPAWNER_BACK, (.pid = pid), pid, n): any thread, never blocks, keeps errno. log_event_fields() takes a pointer
 * to the fields. */
#define log_event_fields(ID, fields, ...)                                                                              \
        event_write(EVENT_##ID, event_rows[EVENT_##ID].priority, fields, event_format_##ID, ##__VA_ARGS__)
#define log_event(ID, fields, ...) log_event_fields(ID, (&(const EventFields) { EVENT_UNPACK fields }), ##__VA_ARGS__)
/* With another priority than that of its row: somebody else's words. */
#define log_event_at(ID, level, fields, ...)                                                                           \
        event_write(EVENT_##ID, level, &(const EventFields) { EVENT_UNPACK fields }, event_format_##ID, ##__VA_ARGS__)
#define EVENT_UNPACK(...) __VA_ARGS__
void event_write(EventId id, int level, const EventFields *fields, const char *format, ...) _printf_(4, 5);

/* So many a minute at most, in windows of a minute that begin with the first. Pure: the caller brings clock and lock. */
typedef struct EventRate {
        uint64_t since_usec; /* monotonic */
        unsigned n;
        uint64_t n_suppressed; /* since the last one that was let through */
} EventRate;
/* True: write it, and *ret_suppressed were left out before it. */
bool event_rate_admit(EventRate *r, unsigned per_minute, uint64_t now_usec, uint64_t *ret_suppressed);
