/* SPDX-License-Identifier: MIT */
/* Verbs on workers: those that there are. Being one is workerrun.c. */

#include <errno.h>
#include <stdlib.h>

#include "eqctl/rows.h"

/* Adds a page; *ret_last is its last number. 0 rows: the end. */
static int add_page(Ctl *ctl, Rows *rows, uint64_t from, uint32_t *ret_n, uint64_t *ret_last) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqWorkerList rec = { 0 };
        EqDecodeError error;
        EqBytes row;

        if (from > 0)
                EQ_SET(&rec, WorkerList, from, from);
        int status = ctl_call(ctl, EQ_METHOD_WORKER_LIST, &rec, &reply);
        if (status)
                return status;
        EqArray all = reply_rows(reply);
        *ret_n = all.n;
        while (eq_next_raw(&all, &row) == 1) {
                EqWorker w = { 0 };
                if (eq_decode_map(&eq_schema_Worker, row, &w, &error) < 0)
                        return ctl_fail(ctl, -EBADMSG);
                rows_add(rows, &w);
                *ret_last = w.worker;
        }
        return 0;
}

int verb_worker_ls(Ctl *ctl) {
        uint64_t last = 0;
        uint32_t n = 0;
        Rows rows;

        int status = ctl_connect(ctl);
        if (!status)
                status = rows_begin(&rows, ctl, &rows_workers);
        if (status)
                return status;
        do
                status = add_page(ctl, &rows, last, &n, &last);
        while (!status && n == EQ_LIST_MAX);
        return rows_end(&rows, status);
}

int verb_worker_kick(Ctl *ctl) {
        int status = 0;

        for (size_t i = 0; !status && i < ctl->options.n_operands; i++) {
                const char *text = ctl->options.operands[i];
                char *end;
                EqWorkerKick rec = { .worker = strtoull(text, &end, 10) };
                if (*text < '0' || *text > '9' || *end) {
                        ctl_error(ctl, "`%s` is no number of a worker; eqctl worker ls lists them", text);
                        return EXIT_USAGE;
                }
                status = ctl_call(ctl, EQ_METHOD_WORKER_KICK, &rec, NULL);
        }
        return status;
}
