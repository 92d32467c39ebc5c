/* SPDX-License-Identifier: MIT */
#include "store/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"

static void set_place(Index *x, IndexPlace *p, const Record *r, uint32_t segment, uint32_t at) {
        x->live_bytes -= p->size;
        *p = (IndexPlace) { .segment = segment, .at = at, .size = (uint32_t)record_size(r->body.len) };
        x->live_bytes += p->size;
}

static bool is_at(const IndexPlace *p, uint32_t segment, uint32_t at) {
        return p->segment == segment && p->at == at;
}

/* ---- tasks ---- */

static void task_drop(Index *x, IndexQueue *q, uint64_t seq, IndexTask *t) {
        x->live_bytes -= (uint64_t)t->task.size + t->last.size;
        x->n_tasks--;
        seq_index_remove(&q->tasks, seq);
        free(t);
}

static int task_get(Index *x, IndexQueue *q, uint64_t seq, IndexTask **ret) {
        *ret = seq_index_get(&q->tasks, seq);
        if (*ret)
                return 0;
        _cleanup_free_ IndexTask *t = fault_calloc(1, sizeof(*t));
        if (!t)
                return -ENOMEM;
        int r = seq_index_put(&q->tasks, seq, t);
        if (r < 0)
                return r;
        x->n_tasks++;
        *ret = TAKE_PTR(t);
        return 0;
}

static void drop_tasks(Index *x, IndexQueue *q, bool incomplete_only) {
        uint64_t seq = 0;
        for (IndexTask *t; (t = seq_index_next(&q->tasks, &seq)); seq++)
                if (!incomplete_only || t->task.segment == 0)
                        task_drop(x, q, seq, t);
}

/* ---- queues ---- */

static IndexQueue *queue_find(const Index *x, uint64_t id) {
        IndexQueue *q;
        HASH_FIND(hh, x->queues, &id, sizeof(id), q);
        return q;
}

static int queue_get(Index *x, uint64_t id, IndexQueue **ret) {
        *ret = queue_find(x, id);
        if (*ret)
                return 0;
        _cleanup_free_ IndexQueue *q = fault_calloc(1, sizeof(*q));
        if (!q)
                return -ENOMEM;
        q->id = id;
        HASH_ADD(hh, x->queues, id, sizeof(q->id), q);
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
        drop_tasks(x, q, false);
        seq_index_done(&q->tasks);
        unmark_gone(x, q);
        x->live_bytes -= q->place.size;
        HASH_DELETE(hh, x->queues, q);
        free(q);
}

static IndexQueue *gone_find(const Index *x, const char *name, size_t len) {
        IndexQueue *q;
        HASH_FIND(hh_gone, x->gone, name, len, q);
        return q;
}

static bool take_name(const Record *r, char name[static STORE_NAME_MAX + 1]) {
        const unsigned char *p = r->body.data;
        if (r->body.len < 1 || p[0] == 0 || p[0] > STORE_NAME_MAX || r->body.len < 1U + p[0])
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
        set_place(x, &q->place, r, segment, at);

        IndexQueue *former = gone_find(x, name, strlen(name)); /* one of that name says nothing any more */
        if (former && former != q)
                queue_drop(x, former);
        unmark_gone(x, q);
        if (r->kind == STORE_QUEUE)
                return 0;
        drop_tasks(x, q, false);
        HASH_ADD_KEYPTR(hh_gone, x->gone, q->name, strlen(q->name), q);
        q->is_gone = q->hh_gone.tbl != NULL;
        return q->is_gone ? 0 : -ENOMEM;
}

/* ---- records ---- */

static int apply_task(Index *x, const Record *r, uint32_t segment, uint32_t at) {
        IndexQueue *q;
        IndexTask *t;
        int e = queue_get(x, r->queue, &q);
        if (e < 0)
                return e;
        if (q->is_gone)
                return 0;
        if (r->kind == STORE_FORGET) {
                t = seq_index_get(&q->tasks, r->seq);
                if (t)
                        task_drop(x, q, r->seq, t);
                return 0;
        }
        e = task_get(x, q, r->seq, &t);
        if (e < 0)
                return e;
        set_place(x, r->kind == STORE_TASK ? &t->task : &t->last, r, segment, at);
        if (r->kind == STORE_TASK && q->last_seq < r->seq)
                q->last_seq = r->seq;
        return 0;
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
                return apply_task(x, r, segment, at);
        default:
                return 0;
        }
}

bool index_is_live(const Index *x, const Record *r, uint32_t segment, uint32_t at, uint64_t *ret_last_seq) {
        const IndexQueue *q = queue_find(x, r->queue);
        const IndexTask *t;
        if (!q)
                return false;
        switch (r->kind) {
        case STORE_QUEUE:
        case STORE_GONE:
                *ret_last_seq = q->last_seq;
                return is_at(&q->place, segment, at);
        case STORE_TASK:
        case STORE_STATE:
        case STORE_END:
                t = seq_index_get(&q->tasks, r->seq);
                return t && is_at(r->kind == STORE_TASK ? &t->task : &t->last, segment, at);
        default:
                return false; /* FORGET: no older segment is left that it could speak of */
        }
}

void index_drop_incomplete(Index *x) {
        IndexQueue *q, *next;
        HASH_ITER(hh, x->queues, q, next)
        if (q->place.segment == 0)
                queue_drop(x, q);
        else
                drop_tasks(x, q, true);
}

void index_done(Index *x) {
        IndexQueue *q, *next;
        HASH_ITER(hh, x->queues, q, next)
        queue_drop(x, q);
}
