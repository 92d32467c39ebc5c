/* SPDX-License-Identifier: MIT */
/* Verbs on pools. */

#include <errno.h>

#include "eqctl/rows.h"

int verb_pool_ls(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqBytes row;
        Rows rows;

        int status = ctl_call(ctl, EQ_METHOD_POOL_LIST, NULL, &reply);
        if (!status)
                status = rows_begin(&rows, ctl, &rows_pools);
        if (status)
                return status;
        for (EqArray it = reply_rows(reply); eq_next_raw(&it, &row) == 1;) {
                EqPool p = { 0 };
                if (eq_decode_map(&eq_schema_Pool, row, &p, &error) < 0)
                        return rows_end(&rows, ctl_fail(ctl, -EBADMSG));
                rows_add(&rows, &p);
        }
        return rows_end(&rows, 0);
}

int verb_pool_show(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqPoolName rec = { 0 };
        EqPool p = { 0 };
        Rows rows;

        EQ_SET(&rec, PoolName, name, eq_str(ctl->options.operands[0]));
        int status = ctl_call(ctl, EQ_METHOD_POOL_SHOW, &rec, &reply);
        if (status)
                return status;
        if (eq_decode_map(&eq_schema_Pool, reply_result(reply), &p, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (ctl->format == FORMAT_TABLE && !ctl_has(ctl, FLAG_columns))
                return rows_print_settings(ctl, &eq_schema_Pool, &p, EQ_IDX_Pool_set);
        status = rows_begin(&rows, ctl, &rows_pools);
        if (status)
                return status;
        rows_add(&rows, &p);
        return rows_end(&rows, 0);
}

int verb_pool_create(Ctl *ctl) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        EqPoolCreate rec = { 0 };
        EqArray set;

        int status = ctl_attributes(ctl, "eqd.pool(5)", &raw, &set);
        if (status)
                return status;
        EQ_SET(&rec, PoolCreate, name, eq_str(ctl->options.operands[0]));
        if (set.n > 0)
                EQ_SET(&rec, PoolCreate, set, set);
        if (ctl_has(ctl, FLAG_if_not_exists))
                EQ_SET(&rec, PoolCreate, exist_ok, true);
        status = ctl_call(ctl, EQ_METHOD_POOL_CREATE, &rec, NULL);
        if (!status)
                ctl_note(ctl, "the pool lasts until eqd ends; pools.d/%s.pool and eqctl reload make one that stays",
                         ctl->options.operands[0]);
        return status;
}

int verb_pool_set(Ctl *ctl) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        EqPoolSet rec = { 0 };
        EqArray set;

        int status = ctl_attributes(ctl, "eqd.pool(5)", &raw, &set);
        if (status)
                return status;
        EQ_SET(&rec, PoolSet, name, eq_str(ctl->options.operands[0]));
        EQ_SET(&rec, PoolSet, set, set);
        return ctl_call(ctl, EQ_METHOD_POOL_SET, &rec, NULL);
}

int verb_pool_rm(Ctl *ctl) {
        int status = 0;

        for (size_t i = 0; !status && i < ctl->options.n_operands; i++) {
                EqPoolName rec = { 0 };
                EQ_SET(&rec, PoolName, name, eq_str(ctl->options.operands[i]));
                status = ctl_call(ctl, EQ_METHOD_POOL_RM, &rec, NULL);
        }
        return status;
}
