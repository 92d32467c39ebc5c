/* SPDX-License-Identifier: MIT */

/* Attributes of queues and settings of the daemon. The tables are made from the floors' params.def files: a row added
 * there is a member of the struct, is read from files, set by clients, shown, and described in the man page. */

#include "manager/attributes.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "proto/codec.h"

#define PARAM(name, ...) PARAM_ROW(QueueParams, offsetof(QueueAttributes, engine), "Queue", name, __VA_ARGS__),
static const Param queue_rows[] = {
#include "engine/params.def"
#undef PARAM
#define PARAM(name, ...) PARAM_ROW(QueueAttributes, 0, "Queue", name, __VA_ARGS__),
#include "executor/params.def"
#include "manager/params.def"
#undef PARAM
};
_Static_assert(ELEMENTSOF(queue_rows) <= PARAM_MAX, "QueueAttributes::present has too few bits");

#define SETTING(section, name, ...) PARAM_ROW(DaemonSettings, 0, section, name, __VA_ARGS__),
static const Param daemon_rows[] = {
#include "manager/daemon.def"
};
#undef SETTING

const ParamTable queue_attributes_table = { queue_rows, ELEMENTSOF(queue_rows) };
const ParamTable daemon_settings_table = { daemon_rows, ELEMENTSOF(daemon_rows) };

static uint64_t row_bit(size_t i) {
        return UINT64_C(1) << i;
}

int queue_attributes_rebase(QueueAttributes *a, const QueueAttributes *base) {
        for (size_t i = 0; i < ELEMENTSOF(queue_rows); i++) {
                int r = a->present & row_bit(i) ? 0 : param_copy(&queue_rows[i], a, base);
                if (r < 0)
                        return r;
        }
        return 0;
}

int queue_attributes_init(QueueAttributes *a, const QueueAttributes *defaults) {
        QueueAttributes new = { 0 };

        int r = params_init(&queue_attributes_table, &new);
        if (r == 0 && defaults) {
                r = queue_attributes_rebase(&new, defaults);
                if (r < 0)
                        queue_attributes_deinit(&new);
        }
        if (r == 0)
                *a = new;
        return r;
}

int queue_attributes_copy(QueueAttributes *ret, const QueueAttributes *from) {
        int r = queue_attributes_init(ret, from);
        if (r == 0)
                ret->present = from->present;
        return r;
}

void queue_attributes_deinit(QueueAttributes *a) {
        params_deinit(&queue_attributes_table, a);
        a->present = 0;
}

static bool is_blank(const char *text, size_t len) {
        while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
                len--;
        return len == 0;
}

int queue_attributes_set_row(QueueAttributes *a, const QueueAttributes *defaults, const Param *row, const char *value,
                             size_t len, const ParamLookup *lookup, char *error, size_t error_size) {
        uint64_t bit = row_bit(params_index(&queue_attributes_table, row));
        bool empty = is_blank(value, len);
        int r = empty && defaults ? param_copy(row, a, defaults)
                                  : param_set(row, a, value, len, lookup, error, error_size);
        if (r < 0) {
                if (r == -ENOMEM)
                        snprintf(error, error_size, "%s: %s", row->name, strerror(ENOMEM));
                return r;
        }
        a->present = empty ? a->present & ~bit : a->present | bit;
        return 0;
}

int queue_attributes_set(QueueAttributes *a, const QueueAttributes *defaults, const char *text, size_t len, char *error,
                         size_t error_size) {
        const char *equals = len > 0 ? memchr(text, '=', len) : NULL;
        char quoted[64];

        if (!equals) {
                snprintf(error, error_size, "%s is no key=value", param_quote(text, len, quoted));
                return -EINVAL;
        }
        size_t n_key = (size_t)(equals - text), n_value = len - n_key - 1;
        const Param *row = params_find(&queue_attributes_table, text, n_key);
        if (!row)
                return params_unknown(&queue_attributes_table, NULL, text, n_key, error, error_size);
        if (n_value > PARAM_TEXT_MAX || !eq_text_valid(eq_bytes(equals + 1, n_value))) {
                snprintf(error, error_size, "%s: the value must be UTF-8 without control characters, at most %d bytes",
                         row->name, PARAM_TEXT_MAX);
                return -EINVAL;
        }
        if (!row->settable) {
                snprintf(error, error_size, "%s: only the queue's file can set it, see eqd.queue(5)", row->name);
                return -EINVAL;
        }
        return queue_attributes_set_row(a, defaults, row, equals + 1, n_value, NULL, error, error_size);
}

int queue_attributes_each(const QueueAttributes *a, QueueAttributeFunc func, void *userdata) {
        char value[PARAM_PRINT_MAX];

        for (size_t i = 0; i < ELEMENTSOF(queue_rows); i++) {
                param_print(&queue_rows[i], a, value);
                int r = func(userdata, queue_rows[i].name, value, a->present & row_bit(i));
                if (r != 0)
                        return r;
        }
        return 0;
}
