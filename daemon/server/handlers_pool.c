/* SPDX-License-Identifier: MIT */
/* Methods on pools. That those which change one are for administrators says the table of methods. */

#include "manager/view.h"
#include "server/handlers.h"

static void reply_pool(const Request *rq, const PoolRecord *p) {
        PoolView v = POOL_VIEW_NULL;
        if (view_pool(p->manager, p->pool, &v) < 0)
                request_error(rq, EQ_E_NO_MEMORY, "out of memory");
        else
                request_reply_record(rq, &eq_schema_Pool, &v.row);
        pool_view_done(&v);
}

/* The pool of that name; NULL: answered. */
static PoolRecord *found(const Handlers *h, const Request *rq, EqBytes name) {
        PoolRecord *p;
        Refusal refusal;
        if (manager_find_pool(h->manager, name, &p, &refusal) >= 0)
                return p;
        request_refused(rq, &refusal);
        return NULL;
}

void handle_pool_list(void *host, const Request *rq, const void *params) {
        const Manager *m = ((Handlers *)host)->manager;
        EqBuffer rows = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&rows);
        uint32_t n = 0;
        LIST_FOREACH (link, &m->engine.pools) {
                PoolView v = POOL_VIEW_NULL;
                if (view_pool(m, LIST_ENTRY(link, Pool, link), &v) < 0)
                        rows.failed = true;
                eq_pack_record(&pk, &eq_schema_Pool, &v.row);
                pool_view_done(&v);
                n++;
        }
        request_reply_rows(rq, &rows, n);
}

void handle_pool_show(void *host, const Request *rq, const void *params) {
        const PoolRecord *p = found(host, rq, ((const EqPoolName *)params)->name);
        if (p)
                reply_pool(rq, p);
}

void handle_pool_create(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqPoolCreate *args = params;
        PoolRecord *p;
        Refusal refusal;
        if (manager_pool_create(h->manager, args->name, &args->set, args->exist_ok, &p, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                reply_pool(rq, p);
}

void handle_pool_set(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        const EqPoolSet *args = params;
        PoolRecord *p = found(h, rq, args->name);
        Refusal refusal;
        if (!p)
                return;
        if (manager_pool_set(h->manager, p, &args->set, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                reply_pool(rq, p);
}

void handle_pool_rm(void *host, const Request *rq, const void *params) {
        Handlers *h = host;
        PoolRecord *p = found(h, rq, ((const EqPoolName *)params)->name);
        Refusal refusal;
        if (!p)
                return;
        if (manager_pool_rm(h->manager, p, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                request_reply_nil(rq);
}
