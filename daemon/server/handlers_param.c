/* SPDX-License-Identifier: MIT */
/* Methods on parameters. That setting one is for administrators says the table of methods. */

#include "manager/view.h"
#include "server/handlers.h"

static void reply_param(const Request *rq, const Tunable *t) {
        ParamView v;
        view_param(t, &v);
        request_reply_record(rq, &eq_schema_Param, &v.row);
}

void handle_param_list(void *host, const Request *rq, const void *params) {
        const Handlers *h = host;
        EqBuffer rows = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&rows);
        uint32_t n = 0;
        Tunable t;
        for (; manager_tunable(h->manager, n, &t); n++) {
                ParamView v;
                view_param(&t, &v);
                eq_pack_record(&pk, &eq_schema_Param, &v.row);
        }
        request_reply_rows(rq, &rows, n);
}

void handle_param_get(void *host, const Request *rq, const void *params) {
        const Handlers *h = host;
        Tunable t;
        Refusal refusal;
        if (manager_find_tunable(h->manager, ((const EqParamName *)params)->name, &t, &refusal) < 0)
                request_refused(rq, &refusal);
        else
                reply_param(rq, &t);
}

void handle_param_set(void *host, const Request *rq, const void *params) {
        const Handlers *h = host;
        const EqParamSet *args = params;
        Tunable t;
        Refusal refusal;
        int r = manager_find_tunable(h->manager, args->name, &t, &refusal);
        if (r >= 0)
                r = manager_tunable_set(h->manager, &t, args->value, &refusal);
        if (r < 0)
                request_refused(rq, &refusal);
        else
                reply_param(rq, &t);
}
