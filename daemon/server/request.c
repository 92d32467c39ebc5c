/* SPDX-License-Identifier: MIT */
/* Answers and notifications. Whatever goes wrong with one of them is settled here, so that handlers have nothing to check:
 * an answer is replaced by an error, a notification is counted as lost, and where not even that is possible the session
 * is marked to be closed when the turn ends; never at once, because the caller may hold one of its requests. */

#include "server/request.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "base/log.h"
#include "server/output.h"
#include "server/server.h"

/* Is there nobody to answer? After a bad frame the error is the last that the client hears. */
static bool is_dropped(const Request *rq) {
        const Session *s = rq->session;
        return rq->notify || s->gone || s->closing || s->closed;
}

void request_reply_id(const Request *rq, eq_task_id id) {
        Session *s = rq->session;

        if (is_dropped(rq))
                return;
        if (output_reserve(s, EQ_ID_RESPONSE_MAX) < 0) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory; the task was accepted");
                return;
        }
        eq_put_id_response(&s->out.buffer, rq->msgid, id);
        output_keep(s);
}

void request_reply_begin(const Request *rq, ReplyWriter *ret) {
        ret->packer = output_begin(rq->session);
        ret->start = rq->session->write_start;
        eq_pack_response(&ret->packer, rq->msgid);
}

void request_reply_end(const Request *rq, ReplyWriter *w) {
        Session *s = rq->session;
        int r = output_end(s);

        if (is_dropped(rq)) {
                if (r == 0)
                        output_roll_back(s, w->start);
                return;
        }
        if (r == -EMSGSIZE)
                request_error_with(rq, EQ_E_TOO_LARGE, &ERROR_LIMIT(EQ_MESSAGE_MAX),
                                   "the reply is larger than %d bytes; ask for less at once", EQ_MESSAGE_MAX);
        else if (r < 0)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory for the reply; try again later");
        else
                output_keep(s);
}

void request_reply_nil(const Request *rq) {
        ReplyWriter w;

        request_reply_begin(rq, &w);
        msgpack_pack_nil(&w.packer);
        request_reply_end(rq, &w);
}

void request_reply_record(const Request *rq, const EqSchema *schema, const void *rec) {
        ReplyWriter w;

        request_reply_begin(rq, &w);
        eq_pack_record(&w.packer, schema, rec);
        request_reply_end(rq, &w);
}

EqErrorDetails error_details(const EqDecodeError *error) {
        EqErrorDetails d = { 0 };
        if (error->field)
                EQ_SET(&d, ErrorDetails, field, eq_bytes(error->field->name, error->field->name_len));
        if (error->field && error->beyond)
                EQ_SET(&d, ErrorDetails, limit, error->field->max);
        return d;
}

static void answer_error(const Request *rq, eq_error code, const EqErrorDetails *details, const char *text) {
        EqErrorDetails all = details ? *details : (EqErrorDetails) { 0 };
        Session *s = rq->session;

        if (rq->method) /* goes along where the table has it */
                EQ_SET(&all, ErrorDetails, method, eq_bytes(rq->method->name, rq->method->name_len));
        msgpack_packer pk = output_begin(s);
        eq_pack_error(&pk, rq->msgid, code, text, &all);
        if (output_end(s) < 0)
                output_doom(s, "out of memory for an error");
        else
                output_keep(s);
}

static void refuse(const Request *rq, eq_error code, const EqErrorDetails *details, const char *fmt, va_list ap) {
        Session *s = rq->session;
        char text[512];

        if (s->writing)
                output_roll_back(s, s->write_start);
        (void)vsnprintf(text, sizeof(text), fmt, ap);
        if (rq->notify) {
                s->server->n_notify_errors++;
                log_debug("session %llu: notification %s: %s", (unsigned long long)s->number,
                          rq->method ? rq->method->name : "(unknown)", text);
        }
        if (!is_dropped(rq))
                answer_error(rq, code, details, text);
}

void request_error(const Request *rq, eq_error code, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        refuse(rq, code, NULL, fmt, ap);
        va_end(ap);
}

void request_error_with(const Request *rq, eq_error code, const EqErrorDetails *details, const char *fmt, ...) {
        va_list ap;
        va_start(ap, fmt);
        refuse(rq, code, details, fmt, ap);
        va_end(ap);
}

PendingRequest *request_defer(const Request *rq, void (*gone)(PendingRequest *p), void *userdata) {
        Session *s = rq->session;
        PendingRequest *p = NULL;

        if (!s->closed && !s->closing)
                p = fault_malloc(sizeof(*p));
        if (!p) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory for the request; try again later");
                return NULL;
        }
        *p = (PendingRequest) { .request = *rq, .gone = gone, .userdata = userdata };
        list_append(&s->pending, &p->link);
        s->n_pending++;
        return p;
}

void pending_request_done(PendingRequest *p) {
        Session *s = p->request.session;

        list_remove(&p->link);
        s->n_pending--;
        free(p);
        session_schedule_flush(s); /* even with nothing to send: a request may have waited for this one */
}

void request_hold(const Request *rq) {
        Session *s = rq->session;

        if (s->server->written)
                output_hold(s, s->sent, *s->server->written); /* and what was written before it in this turn */
}

void request_park(const Request *rq, uint64_t ticket) {
        Session *s = rq->session;
        if (++s->n_parks > SESSION_PARKS_MAX) {
                request_error(rq, EQ_E_NO_MEMORY, "out of memory for what had to be read from the store; try again");
                return;
        }
        s->parked_until = ticket;
        list_append(&s->server->parked, &s->park_link);
}

void request_forget_pending(Session *s) {
        for (List *l = list_first(&s->pending); l; l = list_first(&s->pending)) {
                PendingRequest *p = LIST_ENTRY(l, PendingRequest, link);
                list_remove(l);
                s->n_pending--;
                p->gone(p);
                free(p);
        }
}

/* ---- notifications ---- */

static int write_nowhere(void *data, const char *p, size_t n) {
        return 0;
}

bool notify_write_lost(Session *s) {
        size_t start = s->out.buffer.len;

        msgpack_packer pk = output_begin(s);
        eq_pack_notify(&pk, "lost");
        msgpack_pack_array(&pk, 1);
        msgpack_pack_uint64(&pk, s->n_lost);
        if (output_end(s) < 0)
                return false;
        if (!output_charge(s)) {
                output_roll_back(s, start);
                return false;
        }
        s->n_lost = 0;
        return true;
}

void session_notify_begin(Session *s, const char *method, bool must, NotifyWriter *ret) {
        *ret = (NotifyWriter) { .must = must };
        ret->dropped = s->gone || s->closed || s->closing || (s->throttled && !must);
        if (!ret->dropped && s->n_lost > 0)
                (void)notify_write_lost(s); /* before what tells, as output_end does, that nothing more comes */
        if (ret->dropped) {
                s->n_lost++;
                ret->packer = (msgpack_packer) { .data = s, .callback = write_nowhere };
                return;
        }
        ret->packer = output_begin(s);
        ret->start = s->write_start;
        eq_pack_notify(&ret->packer, method);
}

void session_call_begin(Session *s, NotifyWriter *ret) {
        *ret = (NotifyWriter) { .must = true, .fd = -1, .dropped = s->gone || s->closed || s->closing };
        if (ret->dropped)
                return;
        ret->packer = output_begin(s);
        ret->start = s->write_start;
}

EqBuffer *session_call_room(Session *s, size_t n) {
        assert(s->writing);
        if (output_reserve(s, n) == 0)
                return &s->out.buffer;
        s->out.buffer.failed = true;
        return NULL;
}

int session_call_end(Session *s, NotifyWriter *w) {
        int r = output_end(s);
        if (r < 0)
                return r;
        if (w->fd >= 0)
                output_attach_fd(s, w->start, TAKE_FD(w->fd));
        output_keep(s);
        session_schedule_flush(s);
        return 0;
}

int session_allow_out_fds(Session *s) {
        if (!s->out_fds)
                s->out_fds = fault_calloc(1, sizeof(*s->out_fds));
        return s->out_fds ? 0 : -ENOMEM;
}

void session_notify_end(Session *s, NotifyWriter *w) {
        if (w->dropped)
                return;
        if (output_end(s) < 0) {
                if (w->must)
                        output_doom(s, "out of memory for what it has to be told");
                else
                        s->n_lost++;
                return;
        }
        if (w->must)
                output_keep(s);
        else if (!output_charge(s)) {
                output_roll_back(s, w->start);
                s->n_lost++;
        } else if (output_pending(s) > EQ_OUTPUT_HIGH)
                s->throttled = true;
        session_schedule_flush(s);
}
