/* SPDX-License-Identifier: MIT */
/* Which tasks a command line means. */

#include "eqctl/choice.h"

#include <stdio.h>
#include <string.h>

#include "eqctl/text.h"

static int ids_by(Ctl *ctl, const char *const *texts, size_t n, size_t n_max, ChoiceFn fn, void *userdata) {
        for (size_t i = 0; i < n; i += n_max) {
                _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
                EqArray ids;
                int status = ctl_ids(ctl, texts + i, n - i < n_max ? n - i : n_max, &raw, &ids);
                if (!status)
                        status = fn(ctl, ids, texts + i, userdata);
                if (status)
                        return status;
        }
        return 0;
}

int choice_ids_each(Ctl *ctl, const char *const *texts, size_t n, ChoiceFn fn, void *userdata) {
        return ids_by(ctl, texts, n, EQ_BATCH_MAX, fn, userdata);
}

int choice_operands_each(Ctl *ctl, ChoiceFn fn, void *userdata) {
        return choice_ids_each(ctl, ctl->options.operands, ctl->options.n_operands, fn, userdata);
}

int choice_operands_one_by_one(Ctl *ctl, ChoiceFn fn, void *userdata) {
        return ids_by(ctl, ctl->options.operands, ctl->options.n_operands, 1, fn, userdata);
}

/* ---- filters ---- */

static int refuse_state(const Ctl *ctl, const char *text, size_t n) {
        _cleanup_buffer_ EqBuffer all = EQ_BUFFER_NULL;

        for (int s = 0; s < _EQ_STATE_MAX; s++)
                text_printf(&all, "%s%s", s > 0 ? " " : "", eq_state_name((eq_state)s));
        ctl_error(ctl, "--state: no state `%.*s`; there are %s", (int)n, text, text_end(&all));
        return EXIT_USAGE;
}

static int parse_states(const Ctl *ctl, EqBuffer *raw, EqArray *ret) {
        const char *text = ctl_get(ctl, FLAG_state);
        msgpack_packer pk = eq_packer(raw);

        *ret = (EqArray) { 0 };
        while (text && *text) {
                char name[16];
                size_t n = strcspn(text, ",");
                (void)snprintf(name, sizeof(name), "%.*s", (int)n, text);
                for (char *p = name; *p; p++)
                        *p = (char)(*p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
                if (eq_state_find(eq_str(name)) < 0) {
                        return refuse_state(ctl, text, n);
                }
                eq_pack_cstr(&pk, name);
                ret->n++;
                text += n + (text[n] == ',');
        }
        ret->raw = eq_bytes(raw->data, raw->len);
        return raw->failed ? ctl_no_memory(ctl) : 0;
}

int choice_filters(Ctl *ctl, EqBuffer *states, EqList *list) {
        const char *queue = ctl_get(ctl, FLAG_filter_queue), *label = ctl_get(ctl, FLAG_filter_label);
        uint64_t uid = 0;
        EqArray names;

        int status = parse_states(ctl, states, &names);
        if (!status)
                status = ctl_get_uid(ctl, FLAG_filter_user, &uid);
        if (names.n > 0)
                EQ_SET(list, List, states, names);
        if (queue)
                EQ_SET(list, List, queue, eq_str(queue));
        if (label)
                EQ_SET(list, List, label, eq_str(label));
        if (ctl_has(ctl, FLAG_filter_user))
                EQ_SET(list, List, uid, uid);
        return status;
}
