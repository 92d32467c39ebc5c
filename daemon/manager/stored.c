/* SPDX-License-Identifier: MIT */
/* Fixed-width fields one after the other. Reading goes through one cursor that never passes the end: what is missing reads
 * as zero and leaves the cursor bad, which is looked at once per form. */

#include "manager/stored.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "executor/taskspec.h"

enum { STORED_VERSION = 1, TASK_VERSION = 2, STATE_VERSION = 3 }; /* of each form, of tasks, of states */

/* ---- write ---- */

static void put_u8(EqBuffer *b, uint8_t v) {
        (void)eq_buffer_append(b, &v, 1); /* b->failed is looked at by the caller, here and below */
}

static void put_u16(EqBuffer *b, uint16_t v) {
        v = htole16(v);
        (void)eq_buffer_append(b, &v, sizeof(v));
}

static void put_u32(EqBuffer *b, uint32_t v) {
        v = htole32(v);
        (void)eq_buffer_append(b, &v, sizeof(v));
}

static void put_u64(EqBuffer *b, uint64_t v) {
        v = htole64(v);
        (void)eq_buffer_append(b, &v, sizeof(v));
}

static void put_bytes(EqBuffer *b, EqBytes v) {
        put_u32(b, v.len);
        if (v.len)
                (void)eq_buffer_append(b, v.data, v.len);
}

/* ---- read ---- */

typedef struct Cursor {
        const char *at, *end;
        bool bad;
} Cursor;

static const char *take(Cursor *c, size_t n) {
        static const char zeros[8];
        if (c->bad || (size_t)(c->end - c->at) < n) {
                c->bad = true;
                return n <= sizeof(zeros) ? zeros : NULL;
        }
        c->at += n;
        return c->at - n;
}

static uint8_t get_u8(Cursor *c) {
        return (uint8_t)*take(c, 1);
}

static uint16_t get_u16(Cursor *c) {
        uint16_t v;
        memcpy(&v, take(c, sizeof(v)), sizeof(v));
        return le16toh(v);
}

static uint32_t get_u32(Cursor *c) {
        uint32_t v;
        memcpy(&v, take(c, sizeof(v)), sizeof(v));
        return le32toh(v);
}

static uint64_t get_u64(Cursor *c) {
        uint64_t v;
        memcpy(&v, take(c, sizeof(v)), sizeof(v));
        return le64toh(v);
}

static EqBytes get_raw(Cursor *c, size_t n) {
        const char *data = take(c, n);
        return c->bad ? (EqBytes) { 0 } : eq_bytes(data, n);
}

static EqBytes get_bytes(Cursor *c) {
        return get_raw(c, get_u32(c));
}

static int begin_version(EqBytes raw, uint8_t latest, Cursor *ret, uint8_t *ret_version) {
        *ret = (Cursor) { .at = raw.data, .end = raw.data + raw.len };
        *ret_version = get_u8(ret);
        if (ret->bad || *ret_version == 0)
                return -EBADMSG;
        return *ret_version > latest ? -EPROTONOSUPPORT : 0;
}

static int begin(EqBytes raw, Cursor *ret) {
        uint8_t ignored;
        return begin_version(raw, STORED_VERSION, ret, &ignored);
}

static int end(const Cursor *c) {
        return c->bad || c->at != c->end ? -EBADMSG : 0;
}

/* ---- tasks ---- */

/* Version 2 has, in the place of the gid, how many bytes payload and options are, and then the gid: what a start has to know of a
 * plain task is at its beginning. */

enum {
        STORED_HELD = 1 << 0,
        STORED_HAS_FD = 1 << 1,
        STORED_KEY_ONLY = 1 << 2,
        STORED_OTHERS = 1 << 3,
        STORED_PLAIN = 1 << 4,
};

void stored_task_pack(const StoredTask *t, EqBuffer *b) {
        put_u8(b, TASK_VERSION);
        put_u8(b, (uint8_t)((t->held ? STORED_HELD : 0) | (t->has_fd ? STORED_HAS_FD : 0) |
                            (t->key_only ? STORED_KEY_ONLY : 0) | (t->others.len ? STORED_OTHERS : 0) |
                            (t->plain ? STORED_PLAIN : 0)));
        put_u16(b, t->retries);
        put_u32(b, t->uid);
        put_u32(b, t->payload.len + t->options.len);
        put_u32(b, t->gid);
        put_u32(b, t->n_groups);
        if (t->groups.len)
                (void)eq_buffer_append(b, t->groups.data, t->groups.len);
        put_u64(b, t->submitted_usec);
        put_u64(b, t->due_usec);
        put_u64(b, t->expire_usec);
        put_bytes(b, t->payload);
        put_bytes(b, t->common);
        put_bytes(b, t->options);
        if (t->others.len)
                put_bytes(b, t->others);
}

int stored_task_unpack(EqBytes raw, StoredTask *ret) {
        Cursor c;
        uint8_t version;
        int r = begin_version(raw, TASK_VERSION, &c, &version);
        if (r < 0)
                return r;
        StoredTask t = { 0 };
        uint8_t flags = get_u8(&c);
        t.held = flags & STORED_HELD;
        t.has_fd = flags & STORED_HAS_FD;
        t.key_only = flags & STORED_KEY_ONLY;
        t.plain = version > 1 && (flags & STORED_PLAIN);
        t.retries = get_u16(&c);
        t.uid = get_u32(&c);
        uint64_t n_bytes = version > 1 ? get_u32(&c) : 0;
        t.gid = get_u32(&c);
        t.n_groups = get_u32(&c);
        if (t.n_groups > IDENTITY_GROUPS_MAX)
                return -EBADMSG;
        t.groups = get_raw(&c, t.n_groups * sizeof(uint32_t));
        t.submitted_usec = get_u64(&c);
        t.due_usec = get_u64(&c);
        t.expire_usec = get_u64(&c);
        t.payload = get_bytes(&c);
        t.common = get_bytes(&c);
        t.options = get_bytes(&c);
        if (flags & STORED_OTHERS) {
                t.others = get_bytes(&c);
                if (t.others.len == 0)
                        return -EBADMSG; /* no others are written without the flag: a form has one spelling */
        }
        if (end(&c) < 0 || t.others.len % STORED_OTHER_SIZE != 0)
                return -EBADMSG;
        if (version > 1 && n_bytes != (uint64_t)t.payload.len + t.options.len)
                return -EBADMSG;
        *ret = t;
        return 0;
}

bool stored_task_begin(EqBytes raw, StoredTaskBegin *ret) {
        Cursor c = { .at = raw.data, .end = raw.data + raw.len };
        uint8_t version = get_u8(&c), flags = get_u8(&c);
        (void)get_u16(&c); /* retries */
        ret->uid = get_u32(&c);
        ret->n_bytes = get_u32(&c);
        return !c.bad && version == TASK_VERSION && flags == STORED_PLAIN;
}

void stored_other_pack(uint64_t queue, uint64_t seq, EqBuffer *b) {
        put_u64(b, queue);
        put_u64(b, seq);
}

bool stored_other_next(EqBytes *others, uint64_t *ret_queue, uint64_t *ret_seq) {
        if (others->len == 0)
                return false; /* none at all has no address to count from */
        Cursor c = { .at = others->data, .end = others->data + others->len };
        *ret_queue = get_u64(&c);
        *ret_seq = get_u64(&c);
        if (c.bad)
                return false;
        *others = eq_bytes(c.at, (size_t)(c.end - c.at));
        return true;
}

uint32_t stored_group(const StoredTask *t, uint32_t i) {
        uint32_t v;
        memcpy(&v, t->groups.data + i * sizeof(v), sizeof(v));
        return le32toh(v);
}

static void put_try(const StoredTry *t, EqBuffer *b) {
        put_u64(b, t->started_usec);
        put_u32(b, (uint32_t)t->exit);
        put_u32(b, (uint32_t)t->signal);
        put_u64(b, t->utime_usec);
        put_u64(b, t->stime_usec);
        put_u64(b, t->maxrss_kib);
        put_bytes(b, t->error);
        put_u64(b, t->worker);
}

static StoredTry get_try(Cursor *c) {
        StoredTry t = { .started_usec = get_u64(c) };
        t.exit = (int32_t)get_u32(c);
        t.signal = (int32_t)get_u32(c);
        t.utime_usec = get_u64(c);
        t.stime_usec = get_u64(c);
        t.maxrss_kib = get_u64(c);
        t.error = get_bytes(c);
        t.worker = get_u64(c);
        return t;
}

/* Version 2 has no more than `starts` behind the times, as 0 or 1, and version 1 not that. */
enum { STATE_STARTS = 1 << 0, STATE_TRIED = 1 << 1 };

void stored_state_pack(const StoredState *s, EqBuffer *b) {
        bool tried = s->last.started_usec > 0;
        put_u8(b, STATE_VERSION);
        put_u8(b, s->wait);
        put_u16(b, s->attempt);
        put_u16(b, s->crashes);
        put_u16(b, s->lost);
        put_u64(b, s->due_usec);
        put_u64(b, s->expire_usec);
        put_u8(b, (uint8_t)((s->starts ? STATE_STARTS : 0) | (tried ? STATE_TRIED : 0)));
        if (!tried)
                return;
        put_try(&s->last, b);
        for (int i = 1; i < 3; i++)
                put_u64(b, s->n_total[i]);
}

static int get_tried(Cursor *c, StoredState *s) {
        s->last = get_try(c);
        for (int i = 1; i < 3; i++)
                s->n_total[i] = get_u64(c);
        return s->last.started_usec > 0 ? 0 : -EBADMSG; /* a form has one spelling */
}

int stored_state_unpack(EqBytes raw, StoredState *ret) {
        Cursor c;
        uint8_t version;
        int r = begin_version(raw, STATE_VERSION, &c, &version);
        if (r < 0)
                return r;
        StoredState s = { 0 };
        s.wait = get_u8(&c);
        s.attempt = get_u16(&c);
        s.crashes = get_u16(&c);
        s.lost = get_u16(&c);
        s.due_usec = get_u64(&c);
        s.expire_usec = get_u64(&c);
        uint8_t flags = version > 1 ? get_u8(&c) : 0, known = STATE_STARTS | (version > 2 ? STATE_TRIED : 0);
        s.starts = flags & STATE_STARTS;
        if ((flags & ~known) || ((flags & STATE_TRIED) && get_tried(&c, &s) < 0) || end(&c) < 0)
                return -EBADMSG;
        *ret = s;
        return 0;
}

/* ---- the end ---- */

typedef struct OutputSize {
        size_t n;
} OutputSize;

static void add_chunk_size(void *userdata, uint8_t stream, const char *data, size_t n) {
        ((OutputSize *)userdata)->n += 1 + sizeof(uint32_t) + n;
}

static void put_chunk(void *userdata, uint8_t stream, const char *data, size_t n) {
        put_u8(userdata, stream);
        put_bytes(userdata, eq_bytes(data, n));
}

static void put_output(const OutputLog *log, EqBuffer *b) {
        const unsigned both = 1U << EQ_STREAM_STDOUT | 1U << EQ_STREAM_STDERR;
        OutputSize size = { 0 };
        for (uint8_t i = 0; i < 3; i++)
                put_u64(b, log && i > 0 ? output_log_written(log, i) : 0);
        put_u64(b, log ? output_log_dropped(log, log->attempt) : 0);
        if (log)
                output_log_foreach(log, log->attempt, both, add_chunk_size, &size);
        put_u32(b, (uint32_t)size.n);
        if (log)
                output_log_foreach(log, log->attempt, both, put_chunk, b);
}

void stored_end_pack(const StoredEnd *e, const OutputLog *log, EqBuffer *b) {
        put_u8(b, STORED_VERSION);
        put_u8(b, e->state);
        put_u8(b, e->reason);
        put_u8(b, e->note);
        put_u16(b, e->attempt);
        put_u16(b, e->crashes);
        put_u16(b, e->lost);
        put_u64(b, e->finished_usec);
        put_try(&e->last, b);
        put_bytes(b, e->result);
        put_output(log, b);
}

int stored_end_unpack(EqBytes raw, StoredEnd *ret) {
        Cursor c;
        int r = begin(raw, &c);
        if (r < 0)
                return r;
        StoredEnd e = { 0 };
        e.state = get_u8(&c);
        e.reason = get_u8(&c);
        e.note = get_u8(&c);
        e.attempt = get_u16(&c);
        e.crashes = get_u16(&c);
        e.lost = get_u16(&c);
        e.finished_usec = get_u64(&c);
        e.last = get_try(&c);
        e.result = get_bytes(&c);
        for (int i = 0; i < 3; i++)
                e.n_total[i] = get_u64(&c);
        e.n_dropped = get_u64(&c);
        e.output = get_bytes(&c);
        if (end(&c) < 0 || !eq_state_finished(e.state))
                return -EBADMSG;
        *ret = e;
        return 0;
}

bool stored_output_next(EqBytes *output, uint8_t *ret_stream, EqBytes *ret_data) {
        Cursor c = { .at = output->data, .end = output->data + output->len };
        uint8_t stream = get_u8(&c);
        EqBytes data = get_bytes(&c);
        if (c.bad || (stream != EQ_STREAM_STDOUT && stream != EQ_STREAM_STDERR)) {
                *output = (EqBytes) { 0 };
                return false;
        }
        *output = eq_bytes(c.at, (size_t)(c.end - c.at));
        *ret_stream = stream;
        *ret_data = data;
        return true;
}

/* ---- queues ---- */

enum { STORED_FROM_FILE = 1 << 0, STORED_OVERRIDDEN = 1 << 1, STORED_STOPPED = 1 << 2 };

void stored_queue_pack(const StoredQueue *q, EqBuffer *b) {
        put_u8(b, STORED_VERSION);
        put_u8(b, (uint8_t)((q->from_file ? STORED_FROM_FILE : 0) | (q->overridden ? STORED_OVERRIDDEN : 0) |
                            (q->stopped ? STORED_STOPPED : 0)));
        put_u32(b, q->creator);
        put_u32(b, q->pauses);
        put_u64(b, q->digest);
        put_u32(b, q->set.n);
        put_bytes(b, q->set.raw);
}

int stored_queue_unpack(EqBytes raw, StoredQueue *ret) {
        Cursor c;
        int r = begin(raw, &c);
        if (r < 0)
                return r;
        StoredQueue q = { 0 };
        uint8_t flags = get_u8(&c);
        q.from_file = flags & STORED_FROM_FILE;
        q.overridden = flags & STORED_OVERRIDDEN;
        q.stopped = flags & STORED_STOPPED;
        q.creator = get_u32(&c);
        q.pauses = get_u32(&c);
        q.digest = get_u64(&c);
        q.set.n = get_u32(&c);
        q.set.raw = get_bytes(&c);
        if (end(&c) < 0)
                return -EBADMSG;
        EqArray it = q.set;
        EqBytes kv;
        while ((r = eq_next_bytes(&it, &kv)) > 0)
                ;
        if (r < 0 || it.raw.len > 0)
                return -EBADMSG;
        *ret = q;
        return 0;
}
