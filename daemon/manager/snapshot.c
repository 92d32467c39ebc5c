/* SPDX-License-Identifier: MIT */
/* Frames are put together in one buffer that is written out whenever it holds a megabyte. Reading maps the whole file. */

#include "manager/snapshot.h"

#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/event.h"
#include "manager/durable.h"
#include "manager/keys.h"
#include "manager/parts.h"
#include "manager/shelf.h"
#include "manager/tombstones.h"

static const char magic[8] = { 'E', 'Q', 'D', 'S', 'N', 'A', 'P', '1' };
enum { FLUSH_AT = 1 << 20 };

/* ---- write ---- */

typedef struct Writer {
        const Manager *manager;
        int fd;
        EqBuffer buffer;
        size_t frame; /* where the one that is being put together begins */
        uint64_t n_frames;
} Writer;

static int flush(Writer *w) {
        size_t done = 0;
        if (w->buffer.failed)
                return -ENOMEM;
        while (done < w->buffer.len) {
                ssize_t n = write(w->fd, w->buffer.data + done, w->buffer.len - done);
                int e = errno;
                if (n < 0 && e == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -e : -EIO;
                done += (size_t)n;
        }
        w->buffer.len = 0;
        return 0;
}

static void put_u64(Writer *w, uint64_t v) {
        v = htole64(v);
        (void)eq_buffer_append(&w->buffer, &v, sizeof(v)); /* flush() looks at `failed`, here and below */
}

static void put_u32(Writer *w, uint32_t v) {
        v = htole32(v);
        (void)eq_buffer_append(&w->buffer, &v, sizeof(v));
}

static void begin(Writer *w, char kind) {
        w->frame = w->buffer.len;
        put_u32(w, 0);
        (void)eq_buffer_append(&w->buffer, &kind, 1);
}

/* Fills a length in once what it counts is there. */
static void patch(Writer *w, size_t at) {
        uint32_t n = htole32((uint32_t)(w->buffer.len - at - sizeof(n)));
        if (!w->buffer.failed)
                memcpy(w->buffer.data + at, &n, sizeof(n));
}

static int end(Writer *w) {
        patch(w, w->frame);
        w->n_frames++;
        return w->buffer.failed ? -ENOMEM : w->buffer.len >= FLUSH_AT ? flush(w) : 0;
}

static int save_task(Writer *w, const TaskRecord *t) {
        bool finished = task_record_finished(t);
        uint8_t lane = t->task.lane;
        begin(w, finished ? 'E' : 'T');
        put_u64(w, t->task.seq);
        (void)eq_buffer_append(&w->buffer, &lane, 1);
        size_t at = w->buffer.len;
        put_u32(w, 0);
        restore_pack_task(w->manager, t, &w->buffer);
        patch(w, at);
        if (finished)
                restore_pack_end(t, &w->buffer);
        else
                restore_pack_state(w->manager, t, NULL, &w->buffer);
        return end(w);
}

static int save_key(void *userdata, const QueueRecord *q, uint64_t seq, uid_t uid, EqBytes key,
                    uint64_t finished_usec) {
        Writer *w = userdata;
        uint8_t lane = TASK_LANE_NORMAL;
        begin(w, 'E');
        put_u64(w, seq);
        (void)eq_buffer_append(&w->buffer, &lane, 1);
        size_t at = w->buffer.len;
        put_u32(w, 0);
        restore_pack_key(uid, key, &w->buffer);
        patch(w, at);
        restore_pack_key_end(finished_usec, &w->buffer);
        return end(w);
}

static int save_queue(Writer *w, const QueueRecord *q) {
        const Queue *queue = q->queue;
        uint8_t name_len = (uint8_t)strlen(queue->name);
        ShelfView shelved;
        begin(w, 'Q');
        put_u64(w, queue->id);
        put_u64(w, queue->last_seq);
        (void)eq_buffer_append(&w->buffer, &name_len, 1);
        (void)eq_buffer_append(&w->buffer, queue->name, name_len);
        restore_pack_queue(q, &w->buffer);
        int r = end(w);
        if (r >= 0)
                r = keys_each_alone(q, save_key, w); /* they ended before what is in the history */
        LIST_FOREACH (l, &q->history)
                if (r >= 0)
                        r = save_task(w, LIST_ENTRY(l, TaskRecord, history_link));
        uint64_t seq = 0;
        for (void *entry; r >= 0 && (entry = seq_index_next(&q->tasks, &seq)); seq++) {
                const TaskRecord *t = shelf_look(q, seq, entry, &shelved);
                if (!task_record_finished(t))
                        r = save_task(w, t);
        }
        return r;
}

static int save_tombstone(void *userdata, const char *name, uint64_t last_seq) {
        Writer *w = userdata;
        begin(w, 'X');
        put_u64(w, last_seq);
        (void)eq_buffer_append(&w->buffer, name, strlen(name));
        return end(w);
}

static int save_generation(Writer *w, uint64_t id) {
        begin(w, 'G');
        put_u64(w, id);
        return end(w);
}

static int save_generations(Writer *w) {
        const Engine *e = &w->manager->engine;
        int r = 0;
        for (size_t i = 0; i < e->n_slots && r >= 0; i++)
                if (!e->slots[i].queue && e->slots[i].generation > 0)
                        r = save_generation(w, e->slots[i].generation << ENGINE_SLOT_BITS | i);
        return r;
}

/* One whose removal was under way: nobody counts on it any more. */
static int save_gone(Writer *w, const Queue *q) {
        int r = save_generation(w, q->id);
        return r < 0 ? r : save_tombstone(w, q->name, q->last_seq);
}

int snapshot_save(const Manager *m, int fd) {
        Writer w = { .manager = m, .fd = fd };
        (void)eq_buffer_append(&w.buffer, magic, sizeof(magic));
        int r = save_generations(&w);
        if (r >= 0)
                r = tombstones_each(m, save_tombstone, &w);
        for (const QueueRecord *q = m->queues; q && r >= 0; q = q->hh.next)
                if (!durable_queue(q)) /* those the store has */
                        r = q->ending ? save_gone(&w, q->queue) : save_queue(&w, q);
        if (r >= 0) {
                uint64_t n = w.n_frames;
                begin(&w, 'Z');
                put_u64(&w, n);
                r = end(&w);
        }
        if (r >= 0)
                r = flush(&w);
        eq_buffer_done(&w.buffer);
        return r;
}

/* ---- read ---- */

static bool take(EqBytes *from, size_t n, EqBytes *ret) {
        if (from->len < n)
                return false;
        *ret = eq_bytes(from->data, n);
        *from = eq_bytes(from->data + n, from->len - n);
        return true;
}

static bool take_u64(EqBytes *from, uint64_t *ret) {
        EqBytes b;
        if (!take(from, sizeof(*ret), &b))
                return false;
        memcpy(ret, b.data, sizeof(*ret));
        *ret = le64toh(*ret);
        return true;
}

static bool take_u32(EqBytes *from, uint32_t *ret) {
        EqBytes b;
        if (!take(from, sizeof(*ret), &b))
                return false;
        memcpy(ret, b.data, sizeof(*ret));
        *ret = le32toh(*ret);
        return true;
}

static int load_queue(Restore *r, EqBytes body, QueueRecord **ret) {
        uint64_t id, last_seq;
        EqBytes len, name;
        StoredQueue stored;
        *ret = NULL;
        if (!take_u64(&body, &id) || !take_u64(&body, &last_seq) || !take(&body, 1, &len) ||
            !take(&body, (unsigned char)len.data[0], &name))
                return -EBADMSG;
        int e = stored_queue_unpack(body, &stored);
        return e < 0 ? e : restore_queue(r, name, id, last_seq, &stored, ret);
}

static int load_task(Restore *r, QueueRecord *q, char kind, EqBytes body) {
        uint64_t seq;
        uint32_t len;
        EqBytes lane, raw;
        StoredTask task;
        StoredState state;
        StoredEnd ended;
        if (!q || !take_u64(&body, &seq) || !take(&body, 1, &lane) || !take_u32(&body, &len) ||
            !take(&body, len, &raw) || (unsigned char)lane.data[0] >= _TASK_LANE_MAX)
                return -EBADMSG;
        int e = stored_task_unpack(raw, &task);
        if (e >= 0)
                e = kind == 'T' ? stored_state_unpack(body, &state) : stored_end_unpack(body, &ended);
        if (e < 0)
                return e;
        TaskLane which = (TaskLane)lane.data[0];
        return kind == 'T' ? restore_task(r, q, seq, which, &task, &state)
                           : restore_end(r, q, seq, which, &task, &ended);
}

static int load_tombstone(Restore *r, char kind, EqBytes body) {
        uint64_t number;
        if (!take_u64(&body, &number))
                return -EBADMSG;
        return kind == 'X' ? restore_tombstone(r, body, 0, number)
                           : engine_seed_generation(&r->manager->engine, number);
}

static int load_frame(Restore *r, char kind, EqBytes body, QueueRecord **q) {
        switch (kind) {
        case 'G':
        case 'X':
                return load_tombstone(r, kind, body);
        case 'Q':
                return load_queue(r, body, q);
        case 'T':
        case 'E':
                return load_task(r, *q, kind, body);
        default:
                return -EBADMSG;
        }
}

/* The frame at *at, which moves behind it. */
static bool next_frame(const char **at, const char *end, EqBytes *ret_kind, EqBytes *ret_body) {
        uint32_t len;
        if ((size_t)(end - *at) < sizeof(len))
                return false;
        memcpy(&len, *at, sizeof(len));
        len = le32toh(len);
        *at += sizeof(len);
        if ((size_t)(end - *at) < len)
                return false;
        *ret_body = eq_bytes(*at, len);
        *at += len;
        return take(ret_body, 1, ret_kind);
}

static void skip(Restore *r, uint64_t n, char kind, int error) {
        r->n_skipped++;
        log_event(RESTORE_LEFT_OUT, (.error = strerror(-error)), n, kind >= ' ' && kind < 127 ? kind : '?',
                  strerror(-error));
}

/* 0 at a right end. */
static int load_frames(Restore *r, const char *at, const char *end) {
        QueueRecord *q = NULL;
        for (uint64_t n = 0;; n++) {
                EqBytes body, kind;
                uint64_t n_frames;
                if (!next_frame(&at, end, &kind, &body))
                        return -EBADMSG;
                if (kind.data[0] == 'Z')
                        return take_u64(&body, &n_frames) && n_frames == n ? 0 : -EBADMSG;
                int e = load_frame(r, kind.data[0], body, &q);
                if (e == -ENOMEM)
                        return e;
                if (e < 0)
                        skip(r, n, kind.data[0], e);
        }
}

int snapshot_load(Restore *r, int fd) {
        struct stat st;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_size < (off_t)sizeof(magic))
                return -EBADMSG;
        char *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED)
                return -errno;
        int e = -EBADMSG;
        if (memcmp(data, magic, sizeof(magic)) == 0)
                e = load_frames(r, data + sizeof(magic), data + st.st_size);
        (void)munmap(data, (size_t)st.st_size); /* cannot fail for what was mapped */
        return e;
}
