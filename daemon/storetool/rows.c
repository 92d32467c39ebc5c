/* SPDX-License-Identifier: MIT */
#include "storetool/rows.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "manager/stored.h"

static EqBytes eq(StoreBytes b) {
        return eq_bytes(b.data, b.len);
}

static const char *kind_name(StoreKind kind) {
        static const char *const names[_STORE_KIND_MAX] = {
                [STORE_QUEUE] = "queue", [STORE_GONE] = "gone",     [STORE_TASK] = "task", [STORE_STATE] = "state",
                [STORE_END] = "end",     [STORE_FORGET] = "forget", [STORE_SEAL] = "seal", [STORE_SEEN] = "seen",
        };
        return kind < _STORE_KIND_MAX && names[kind] ? names[kind] : "unknown";
}

/* Its name, or the id where the store does not know one. */
static EqBytes queue_name(const Inspect *x, uint64_t id, char buf[static 24]) {
        const IndexQueue *q = index_queue(&x->index, id);
        if (q && q->name[0])
                return eq_str(q->name);
        snprintf(buf, 24, "%" PRIu64, id);
        return eq_str(buf);
}

/* ---- bodies ---- */

static const char *form_error(int e) {
        return e == -EPROTONOSUPPORT ? "its body has a form of a later version of eqd" : "its body is no form of eqd";
}

static void add_options(EqBytes map, EqSubmit *s) {
        EqDecodeError error; /* it was checked when it was accepted; what cannot be read is not shown */
        if (map.len > 0)
                (void)eq_decode_map(&eq_schema_Submit, map, s, &error);
}

static int add_task(EqBytes body, bool payload, EqStoreRecord *row) {
        StoredTask t;
        EqSubmit s = { 0 };
        int e = stored_task_unpack(body, &t);
        if (e < 0)
                return e;
        add_options(t.common, &s);
        add_options(t.options, &s);
        EQ_SET(row, StoreRecord, uid, t.uid);
        EQ_SET(row, StoreRecord, payload_bytes, t.payload.len);
        if (!t.key_only)
                EQ_SET(row, StoreRecord, submitted_usec, t.submitted_usec);
        if (EQ_HAS(&s, Submit, label))
                EQ_SET(row, StoreRecord, label, s.label);
        if (EQ_HAS(&s, Submit, unique))
                EQ_SET(row, StoreRecord, unique, s.unique);
        if (EQ_HAS(&s, Submit, argv))
                EQ_SET(row, StoreRecord, argv, s.argv);
        if (payload)
                EQ_SET(row, StoreRecord, payload, t.payload);
        return 0;
}

static void add_try(const StoredTry *t, EqStoreRecord *row) {
        if (t->exit >= 0)
                EQ_SET(row, StoreRecord, exit, (uint64_t)t->exit);
        if (t->signal > 0)
                EQ_SET(row, StoreRecord, signal, (uint64_t)t->signal);
}

static int add_state(EqBytes body, EqStoreRecord *row) {
        StoredState s;
        int e = stored_state_unpack(body, &s);
        if (e >= 0)
                EQ_SET(row, StoreRecord, attempt, s.attempt);
        if (e >= 0 && s.last.started_usec > 0)
                add_try(&s.last, row);
        if (e >= 0 && s.starts)
                EQ_SET(row, StoreRecord, state, eq_str(eq_state_name(EQ_STATE_RUNNING)));
        return e;
}

static int add_end(EqBytes body, EqStoreRecord *row) {
        StoredEnd end;
        int e = stored_end_unpack(body, &end);
        if (e < 0)
                return e;
        EQ_SET(row, StoreRecord, state, eq_str(eq_state_name(end.state)));
        if (end.reason > 0 && end.reason < _EQ_REASON_MAX)
                EQ_SET(row, StoreRecord, reason, eq_str(eq_reason_name(end.reason)));
        EQ_SET(row, StoreRecord, attempt, end.attempt);
        add_try(&end.last, row);
        EQ_SET(row, StoreRecord, finished_usec, end.finished_usec);
        EQ_SET(row, StoreRecord, payload_bytes, (uint64_t)end.result.len + end.output.len);
        return 0;
}

/* The name, which the index has taken, and behind it the definition. */
static int add_queue(StoreBytes body, EqStoreRecord *row) {
        const char *p = body.data;
        StoredQueue q;
        uint32_t skip = body.len > 0 ? 1U + (unsigned char)p[0] : 1;
        int e = skip <= body.len ? stored_queue_unpack(eq_bytes(p + skip, body.len - skip), &q) : -EBADMSG;
        if (e < 0)
                return e;
        EQ_SET(row, StoreRecord, uid, q.creator);
        EQ_SET(row, StoreRecord, set, q.set);
        return 0;
}

static int add_body(const Record *r, bool payload, EqStoreRecord *row) {
        switch (r->kind) {
        case STORE_QUEUE:
                return add_queue(r->body, row);
        case STORE_TASK:
                return add_task(eq(r->body), payload, row);
        case STORE_STATE:
                return add_state(eq(r->body), row);
        case STORE_END:
                return add_end(eq(r->body), row);
        default:
                return 0;
        }
}

/* ---- records ---- */

static void put_flags(uint8_t flags, char buf[static 32]) {
        snprintf(buf, 32, "%s%s%s", flags & RECORD_MORE ? "more " : "", flags & RECORD_INSIDE ? "inside " : "",
                 flags & RECORD_SYNCED ? "synced " : "");
        size_t n = strlen(buf);
        if (n > 0)
                buf[n - 1] = '\0';
}

static void put_header(const Inspect *x, const Record *r, RecordRow *ret) {
        EqStoreRecord *row = &ret->row;
        if (r->kind == STORE_SEAL)
                return;
        EQ_SET(row, StoreRecord, queue, queue_name(x, r->queue, ret->queue));
        EQ_SET(row, StoreRecord, queue_id, r->queue);
        EQ_SET(row, StoreRecord, seq, r->seq);
        if (r->kind == STORE_TASK)
                EQ_SET(row, StoreRecord, urgent, r->lane == 0);
        EQ_SET(row, StoreRecord, body_bytes, r->body.len);
}

void row_record(const Inspect *x, uint64_t segment, uint32_t at, const Record *r, bool payload, RecordRow *ret) {
        EqStoreRecord *row = &ret->row;
        memset(ret, 0, sizeof(*ret));
        EQ_SET(row, StoreRecord, segment, segment);
        EQ_SET(row, StoreRecord, offset, at);
        EQ_SET(row, StoreRecord, size, record_size(r->body.len));
        EQ_SET(row, StoreRecord, kind, eq_str(kind_name(r->kind)));
        put_header(x, r, ret);
        put_flags(r->flags, ret->flags);
        if (ret->flags[0])
                EQ_SET(row, StoreRecord, flags, eq_str(ret->flags));
        EQ_SET(row, StoreRecord, live, inspect_is_live(x, segment, at));
        int e = add_body(r, payload, row);
        if (e < 0)
                EQ_SET(row, StoreRecord, problem, eq_str(form_error(e)));
}

void row_bad_record(const Inspect *x, uint64_t segment, const InspectFinding *f, RecordRow *ret) {
        EqStoreRecord *row = &ret->row;
        memset(ret, 0, sizeof(*ret));
        EQ_SET(row, StoreRecord, segment, segment);
        EQ_SET(row, StoreRecord, offset, f->at);
        EQ_SET(row, StoreRecord, size, f->n_bytes);
        EQ_SET(row, StoreRecord, kind, eq_str(f->problem == PROBLEM_TORN ? "torn" : "damaged"));
        if (f->was)
                put_header(x, f->was, ret);
}

/* ---- findings ---- */

void row_finding(const Inspect *x, const InspectFinding *f, FindingRow *ret) {
        const InspectProblemRow *p = &inspect_problems[f->problem];
        EqStoreFinding *row = &ret->row;
        memset(ret, 0, sizeof(*ret));
        EQ_SET(row, StoreFinding, level, eq_str(inspect_levels[p->level]));
        EQ_SET(row, StoreFinding, problem, eq_str(p->name));
        EQ_SET(row, StoreFinding, file, eq_str(f->file));
        if (f->has_place)
                EQ_SET(row, StoreFinding, offset, f->at);
        if (f->n_bytes > 0)
                EQ_SET(row, StoreFinding, bytes, f->n_bytes);
        if (f->count > 0)
                EQ_SET(row, StoreFinding, count, f->count);
        EQ_SET(row, StoreFinding, what, eq_str(p->what));
        EQ_SET(row, StoreFinding, at_start, eq_str(p->at_start));
        EQ_SET(row, StoreFinding, advice, eq_str(p->advice));
        if (f->error < 0)
                EQ_SET(row, StoreFinding, error, eq_str(strerror(-f->error)));
        if (!f->was)
                return;
        EQ_SET(row, StoreFinding, kind, eq_str(kind_name(f->was->kind)));
        EQ_SET(row, StoreFinding, queue, queue_name(x, f->was->queue, ret->queue));
        EQ_SET(row, StoreFinding, seq, f->was->seq);
}

/* ---- numbers ---- */

void row_queue(const InspectQueue *q, EqStoreQueue *ret) {
        *ret = (EqStoreQueue) { 0 };
        EQ_SET(ret, StoreQueue, name, eq_str(q->name));
        EQ_SET(ret, StoreQueue, id, q->id);
        if (q->is_gone)
                EQ_SET(ret, StoreQueue, removed, true);
        EQ_SET(ret, StoreQueue, pending, q->n_pending);
        EQ_SET(ret, StoreQueue, finished, q->n_finished);
        EQ_SET(ret, StoreQueue, last_seq, q->last_seq);
        EQ_SET(ret, StoreQueue, bytes, q->bytes);
        EQ_SET(ret, StoreQueue, segments, q->n_segments);
}

void row_stat(const Inspect *x, EqStoreStat *ret) {
        *ret = (EqStoreStat) { 0 };
        EQ_SET(ret, StoreStat, in_use, x->in_use);
        EQ_SET(ret, StoreStat, segments, x->n_segments);
        EQ_SET(ret, StoreStat, bytes, x->bytes);
        EQ_SET(ret, StoreStat, live_bytes, x->index.live_bytes);
        if (x->n_segments > 0) {
                EQ_SET(ret, StoreStat, oldest_segment, x->oldest);
                EQ_SET(ret, StoreStat, newest_segment, x->newest);
        }
        EQ_SET(ret, StoreStat, tasks, x->index.n_tasks);
        EQ_SET(ret, StoreStat, running, x->n_marks);
        EQ_SET(ret, StoreStat, records, x->n_records);
        EQ_SET(ret, StoreStat, damaged, x->n_kept);
        EQ_SET(ret, StoreStat, hints, x->n_hints);
        EQ_SET(ret, StoreStat, files, x->n_files);
        EQ_SET(ret, StoreStat, notes, x->n_findings[INSPECT_NOTE]);
        EQ_SET(ret, StoreStat, findings, x->n_findings[INSPECT_DAMAGE] + x->n_findings[INSPECT_REFUSED]);
        EQ_SET(ret, StoreStat, unread, x->n_findings[INSPECT_UNREAD]);
}
