/* SPDX-License-Identifier: MIT */
#include "store/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"

/* One thread writes, so no read-modify-write has to be one step. */
static void add_bytes(Index *x, IndexQueue *q, uint64_t n) {
        x->live_bytes += n;
        atomic_store_explicit(&q->live_bytes, atomic_load_explicit(&q->live_bytes, memory_order_relaxed) + n,
                              memory_order_relaxed);
}

/* What is there says nothing any more. */
static void unset_place(Index *x, IndexQueue *q, const IndexPlace *p) {
        add_bytes(x, q, -(uint64_t)p->size);
        if (p->segment)
                live_map_unset(&x->live, p->segment, p->at);
}

/* 0 or -ENOMEM. */
static int set_place(Index *x, IndexQueue *q, IndexPlace *p, const Record *r, uint32_t segment, uint32_t at) {
        unset_place(x, q, p);
        *p = (IndexPlace) { .segment = segment, .at = at, .size = (uint32_t)record_size(r->body.len) };
        add_bytes(x, q, p->size);
        return live_map_set(&x->live, segment, at);
}

/* ---- tasks ---- */

/* Was there one? */
static bool drop_place(Index *x, IndexQueue *q, SeqTable *places, uint64_t seq) {
        IndexPlace p;
        if (!seq_table_take(places, seq, &p))
                return false;
        unset_place(x, q, &p);
        return true;
}

void index_drop_task(Index *x, IndexQueue *q, uint64_t seq) {
        x->n_tasks -= drop_place(x, q, &q->tasks, seq);
        (void)drop_place(x, q, &q->lasts, seq); /* nothing had become of it: fine; here and below */
}

void index_drop_last(Index *x, IndexQueue *q, uint64_t seq) {
        (void)drop_place(x, q, &q->lasts, seq);
}

static bool is_in(const IndexPlace *p, const IndexSpan *span) {
        return p->segment == span->segment && p->at >= span->at && p->at < span->end;
}

/* The first row of `places`, from *seq on, that is there. */
static bool next_in(const SeqTable *places, const IndexSpan *span, uint64_t *seq) {
        for (; seq_table_next(places, seq); ++*seq)
                if (is_in(seq_table_get(places, *seq), span))
                        return true;
        return false;
}

bool index_names_span(const Index *x, const IndexSpan *span) {
        for (const IndexQueue *q = x->queues; q; q = q->hh.next)
                if (is_in(&q->place, span) || next_in(&q->tasks, span, &(uint64_t) { 0 }) ||
                    next_in(&q->lasts, span, &(uint64_t) { 0 }))
                        return true;
        return false;
}

void index_drop_span(Index *x, const IndexSpan *span) {
        for (IndexQueue *q = x->queues; q; q = q->hh.next) {
                for (uint64_t seq = 0; next_in(&q->tasks, span, &seq); seq++)
                        index_drop_task(x, q, seq);
                for (uint64_t seq = 0; next_in(&q->lasts, span, &seq); seq++)
                        index_drop_last(x, q, seq);
        }
}

static void drop_tasks(Index *x, IndexQueue *q) {
        for (uint64_t seq = 0; seq_table_next(&q->tasks, &seq); seq++)
                index_drop_task(x, q, seq);
        for (uint64_t seq = 0; seq_table_next(&q->lasts, &seq); seq++)
                (void)drop_place(x, q, &q->lasts, seq);
}

static void drop_incomplete_tasks(Index *x, IndexQueue *q) {
        for (uint64_t seq = 0; seq_table_next(&q->lasts, &seq); seq++)
                if (!seq_table_get(&q->tasks, seq))
                        (void)drop_place(x, q, &q->lasts, seq);
}

/* ---- queues ---- */

IndexQueue *index_queue(const Index *x, uint64_t id) {
        IndexQueue *q = x->latest;
        if (q && q->id == id)
                return q;
        HASH_FIND_NUMBER(x->queues, id, q);
        return q;
}

static void lock_table(const Index *x) {
        if (x->table_lock)
                (void)pthread_mutex_lock(x->table_lock); /* cannot fail for a mutex of this kind */
}

static void unlock_table(const Index *x) {
        if (x->table_lock)
                (void)pthread_mutex_unlock(x->table_lock);
}

uint64_t index_queue_bytes(const Index *x, uint64_t id) {
        IndexQueue *q;
        lock_table(x);
        HASH_FIND_NUMBER(x->queues, id, q);
        uint64_t bytes = q ? atomic_load_explicit(&q->live_bytes, memory_order_relaxed) : 0;
        unlock_table(x);
        return bytes;
}

static int queue_get(Index *x, uint64_t id, IndexQueue **ret) {
        *ret = index_queue(x, id);
        if (*ret) {
                x->latest = *ret;
                return 0;
        }
        _cleanup_free_ IndexQueue *q = fault_calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->id = id;
        q->tasks = q->lasts = (SeqTable)SEQ_TABLE_NULL(IndexPlace);
        lock_table(x);
        HASH_ADD_NUMBER(x->queues, id, q);
        unlock_table(x);
        if (!q->hh.tbl)
                return -ENOMEM;
        *ret = TAKE_PTR(q);
        return 0;
}

static void unmark_gone(Index *x, IndexQueue *q) {
        if (q->is_gone)
                HASH_DELETE(hh_gone, x->gone, q);
        q->is_gone = false;
}

static void queue_drop(Index *x, IndexQueue *q) {
        drop_tasks(x, q);
        seq_table_done(&q->tasks);
        seq_table_done(&q->lasts);
        unmark_gone(x, q);
        unset_place(x, q, &q->place);
        lock_table(x);
        HASH_DELETE(hh, x->queues, q);
        unlock_table(x);
        if (x->latest == q)
                x->latest = NULL;
        free(q);
}

static IndexQueue *gone_find(const Index *x, const char *name, size_t len) {
        IndexQueue *q;
        HASH_FIND(hh_gone, x->gone, name, len, q);
        return q;
}

static bool take_name(const Record *r, char name[static STORE_NAME_MAX + 1]) {
        const unsigned char *p = r->body.data;
        if (r->body.len < 1 || p[0] == 0 || p[0] > STORE_NAME_MAX || r->body.len < 1U + p[0] || memchr(p + 1, 0, p[0]))
                return false;
        memset(name, 0, STORE_NAME_MAX + 1);
        memcpy(name, p + 1, p[0]);
        return true;
}

static int apply_queue(Index *x, const Record *r, uint32_t segment, uint32_t at) {
        char name[STORE_NAME_MAX + 1];
        IndexQueue *q;
        if (!take_name(r, name))
                return -EBADMSG;
        int e = queue_get(x, r->queue, &q);
        if (e < 0)
                return e;
        if (q->last_seq < r->seq)
                q->last_seq = r->seq;
        memcpy(q->name, name, sizeof(name));
        e = set_place(x, q, &q->place, r, segment, at);
        if (e < 0)
                return e;

        IndexQueue *former = gone_find(x, name, strlen(name)); /* one of that name says nothing any more */
        if (former && former != q)
                queue_drop(x, former);
        unmark_gone(x, q);
        if (r->kind == STORE_QUEUE)
                return 0;
        drop_tasks(x, q);
        HASH_ADD_KEYPTR(hh_gone, x->gone, q->name, strlen(q->name), q);
        q->is_gone = q->hh_gone.tbl != NULL;
        return q->is_gone ? 0 : -ENOMEM;
}

/* ---- records ---- */

static void saw_seq(IndexQueue *q, uint64_t seq) {
        if (q->last_seq < seq)
                q->last_seq = seq;
}

int index_saw_seq(Index *x, uint64_t queue, uint64_t seq) {
        IndexQueue *q;
        int e = queue_get(x, queue, &q);
        if (e >= 0)
                saw_seq(q, seq);
        return e;
}

static int apply_task(Index *x, const Record *r, uint32_t segment, uint32_t at) {
        IndexQueue *q;
        int e = queue_get(x, r->queue, &q);
        if (e < 0)
                return e;
        saw_seq(q, r->seq);
        if (q->is_gone || r->kind == STORE_SEEN)
                return 0;
        if (r->kind == STORE_FORGET) {
                index_drop_task(x, q, r->seq);
                return 0;
        }
        SeqTable *places = r->kind == STORE_TASK ? &q->tasks : &q->lasts;
        size_t before = places->n;
        IndexPlace *p = seq_table_put(places, r->seq);
        if (!p)
                return -ENOMEM;
        if (r->kind == STORE_TASK)
                x->n_tasks += places->n - before;
        return set_place(x, q, p, r, segment, at);
}

int index_apply(Index *x, const Record *r, uint32_t segment, uint32_t at) {
        switch (r->kind) {
        case STORE_QUEUE:
        case STORE_GONE:
                return apply_queue(x, r, segment, at);
        case STORE_TASK:
        case STORE_STATE:
        case STORE_END:
        case STORE_FORGET:
        case STORE_SEEN:
                return apply_task(x, r, segment, at);
        default:
                return 0;
        }
}

void index_prefetch(const Index *x, const Record *r) {
        IndexQueue *q;
        HASH_FIND_NUMBER(x->queues, r->queue, q);
        if (!q)
                return;
        if (r->kind == STORE_TASK || r->kind == STORE_FORGET)
                seq_table_prefetch(&q->tasks, r->seq);
        if (r->kind == STORE_STATE || r->kind == STORE_END || r->kind == STORE_FORGET)
                seq_table_prefetch(&q->lasts, r->seq);
}

bool index_is_live(const Index *x, const Record *r, uint32_t segment, uint32_t at, uint64_t *ret_last_seq) {
        const IndexQueue *q;
        if (!live_map_get(&x->live, segment, at))
                return false; /* FORGET always: no older segment is left that it could speak of */
        if (r->kind != STORE_QUEUE && r->kind != STORE_GONE)
                return true;
        q = index_queue(x, r->queue);
        *ret_last_seq = q ? q->last_seq : 0;
        return q != NULL;
}

void index_drop_segment(Index *x, uint32_t segment) {
        live_map_drop(&x->live, segment);
}

void index_drop_incomplete(Index *x) {
        IndexQueue *q, *next;
        HASH_ITER(hh, x->queues, q, next)
        if (q->place.segment == 0)
                queue_drop(x, q);
        else
                drop_incomplete_tasks(x, q);
}

void index_done(Index *x) {
        IndexQueue *q, *next;
        HASH_ITER(hh, x->queues, q, next)
        queue_drop(x, q);
        live_map_done(&x->live);
}
