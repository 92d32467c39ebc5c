/* SPDX-License-Identifier: MIT */
/* Methods about the store of durable queues: in numbers, and its files as eqd-store reads them. */

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/fault.h"
#include "base/util.h"
#include "manager/view.h"
#include "server/handlers.h"

static int find_store(Handlers *h, const Request *rq, StoreView *ret) {
        int r = view_store(h->manager, ret);
        if (r < 0)
                request_error(rq, EQ_E_STATE, "this eqd keeps no durable queues");
        return r;
}

void handle_store_stat(void *host, const Request *rq, const void *params) {
        StoreView v;
        if (find_store(host, rq, &v) >= 0)
                request_reply_record(rq, &eq_schema_StoreStat, &v.row);
}

/* ---- its files ---- */

typedef struct ReadRequest {
        PendingRequest *pending;
        StoreRead *read;
        const char *argv[10];
        char directory[PATH_MAX], verb[16], queue[EQ_NAME_MAX + 1], segment[33];
} ReadRequest;

/* 0, or -EINVAL: it does not fit, or has zeros in it. */
static int copy_text(char *to, size_t size, EqBytes text) {
        if (text.len >= size || memchr(text.data, '\0', text.len))
                return -EINVAL;
        memcpy(to, text.data, text.len);
        to[text.len] = '\0';
        return 0;
}

static int invalid(const Request *rq, const char *field, const char *text) {
        request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD(field), "%s: %s", field, text);
        return -EINVAL;
}

/* What follows "--" is no option, and neither is what follows one. */
static int make_argv(const Handlers *h, const Request *rq, const EqStoreRead *p, ReadRequest *ret) {
        size_t n = 0;
        ret->argv[n++] = h->store_program;
        if (copy_text(ret->verb, sizeof(ret->verb), p->verb) < 0 ||
            (strcmp(ret->verb, "check") != 0 && strcmp(ret->verb, "dump") != 0))
                return invalid(rq, "verb", "one of check dump");
        if (EQ_HAS(p, StoreRead, queue)) {
                if (copy_text(ret->queue, sizeof(ret->queue), p->queue) < 0)
                        return invalid(rq, "queue", "no name of a queue");
                ret->argv[n++] = "--queue";
                ret->argv[n++] = ret->queue;
        }
        if (EQ_HAS(p, StoreRead, segment)) {
                if (copy_text(ret->segment, sizeof(ret->segment), p->segment) < 0)
                        return invalid(rq, "segment", "the number of a segment, or log-NUMBER");
                ret->argv[n++] = "--segment";
                ret->argv[n++] = ret->segment;
        }
        if (p->payload)
                ret->argv[n++] = "--payload";
        ret->argv[n++] = "--";
        ret->argv[n++] = ret->verb;
        ret->argv[n++] = ret->directory;
        return 0;
}

/* eqd-store wants the state directory, where the lock is. */
static int find_state(Handlers *h, const Request *rq, ReadRequest *ret) {
        StoreView v;
        int r = find_store(h, rq, &v);
        if (r < 0)
                return r;
        size_t len = v.row.directory.len;
        if (len <= strlen("/store") || len >= sizeof(ret->directory)) {
                request_error(rq, EQ_E_STATE, "eqd does not know where its store is now; was its directory removed?");
                return -ENOENT;
        }
        memcpy(ret->directory, v.row.directory.data, len);
        ret->directory[len - strlen("/store")] = '\0';
        return 0;
}

static void read_done(void *userdata, int status) {
        ReadRequest *r = userdata;
        const Request *rq = &r->pending->request;
        EqStoreReadReply reply = { 0 };
        EQ_SET(&reply, StoreReadReply, status, (uint64_t)status);
        if (status >= 0)
                request_reply_record(rq, &eq_schema_StoreReadReply, &reply);
        else
                request_error(rq, EQ_E_INTERNAL, "eqd-store was killed before it had read everything; try again");
        pending_request_done(r->pending);
        free(r);
}

static void read_gone(PendingRequest *p) {
        ReadRequest *r = p->userdata;
        r->read = store_read_free(r->read);
        free(r);
}

static void refuse_read(const Handlers *h, const Request *rq, int error) {
        if (error == -EUSERS)
                request_error(rq, EQ_E_LIMIT, "%d clients have the store read already; try again later",
                              STORE_READS_MAX);
        else if (error == -ENOMEM)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else
                request_error(rq, EQ_E_INTERNAL, "cannot run %s: %s; it comes with eqd", h->store_program,
                              strerror(-error));
}

void handle_store_read(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        _cleanup_close_ int fd = session_take_fd(rq->session);
        if (fd < 0) {
                request_error(rq, EQ_E_INVALID, "a descriptor to write to has to come with the request");
                return;
        }
        _cleanup_free_ ReadRequest *r = fault_calloc(1, sizeof(*r));
        if (!r) {
                refuse_read(h, rq, -ENOMEM);
                return;
        }
        if (find_state(h, rq, r) < 0 || make_argv(h, rq, params, r) < 0)
                return;
        int e = store_read_new(&h->store_reads, h->server->loop, r->argv, fd, read_done, r, &r->read);
        if (e < 0) {
                refuse_read(h, rq, e);
                return;
        }
        r->pending = request_defer(rq, read_gone, r);
        if (!r->pending) {
                r->read = store_read_free(r->read);
                return;
        }
        (void)TAKE_PTR(r); /* the reading has it */
}
