/* SPDX-License-Identifier: MIT */
/* Verbs on parameters. */

#include <errno.h>
#include <string.h>

#include "eqctl/rows.h"
#include "eqctl/text.h"

int verb_param_ls(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqBytes row;
        Rows rows;

        int status = ctl_call(ctl, EQ_METHOD_PARAM_LIST, NULL, &reply);
        if (!status)
                status = rows_begin(&rows, ctl, &rows_params);
        if (status)
                return status;
        for (EqArray it = reply_rows(reply); eq_next_raw(&it, &row) == 1;) {
                EqParam p = { 0 };
                if (eq_decode_map(&eq_schema_Param, row, &p, &error) < 0)
                        return rows_end(&rows, ctl_fail(ctl, -EBADMSG));
                rows_add(&rows, &p);
        }
        return rows_end(&rows, 0);
}

/* For scripts: nothing but the value. */
static int print_value(Ctl *ctl, const EqParam *p) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        text_escaped(&b, p->value);
        text_cstr(&b, "\n");
        return print_buffer(ctl, &b);
}

static int get_one(Ctl *ctl, Rows *rows, const char *name) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqParamName rec = { 0 };
        EqParam p = { 0 };

        EQ_SET(&rec, ParamName, name, eq_str(name));
        int status = ctl_call(ctl, EQ_METHOD_PARAM_GET, &rec, &reply);
        if (status)
                return status;
        if (eq_decode_map(&eq_schema_Param, reply_result(reply), &p, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (!rows)
                return print_value(ctl, &p);
        rows_add(rows, &p);
        return 0;
}

int verb_param_get(Ctl *ctl) {
        bool bare = ctl->format == FORMAT_TABLE && !ctl_has(ctl, FLAG_columns);
        Rows rows;

        int status = bare ? 0 : rows_begin(&rows, ctl, &rows_params);
        if (status)
                return status;
        for (size_t i = 0; !status && i < ctl->options.n_operands; i++)
                status = get_one(ctl, bare ? NULL : &rows, ctl->options.operands[i]);
        return bare ? status : rows_end(&rows, status);
}

int verb_param_set(Ctl *ctl) {
        int status = 0;

        for (size_t i = 0; !status && i < ctl->options.n_operands; i++) {
                const char *text = ctl->options.operands[i], *equals = strchr(text, '=');
                EqParamSet rec = { 0 };
                if (!equals) {
                        ctl_error(ctl, "`%s`: parameters are set as NAME=VALUE; see eqctl param ls", text);
                        return EXIT_USAGE;
                }
                EQ_SET(&rec, ParamSet, name, eq_bytes(text, (size_t)(equals - text)));
                EQ_SET(&rec, ParamSet, value, eq_str(equals + 1));
                status = ctl_call(ctl, EQ_METHOD_PARAM_SET, &rec, NULL);
        }
        if (!status)
                ctl_note(ctl, "this lasts until eqd is reloaded or ends; eqd.conf(5) says where to set it for good");
        return status;
}
