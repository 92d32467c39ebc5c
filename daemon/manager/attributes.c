/* SPDX-License-Identifier: MIT */

/* Attributes of queues and pools, and settings of the daemon. The tables are made from the floors' params.def files: a row added
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

#define PARAM(name, ...) PARAM_ROW(PoolAttributes, 0, "Pool", name, __VA_ARGS__),
static const Param pool_rows[] = {
#include "manager/pool.def"
#undef PARAM
};
_Static_assert(ELEMENTSOF(pool_rows) <= PARAM_MAX, "PoolAttributes::present has too few bits");

#define SETTING(section, name, ...) PARAM_ROW(DaemonSettings, 0, section, name, __VA_ARGS__),
static const Param daemon_rows[] = {
#include "manager/daemon.def"
};
#undef SETTING
_Static_assert(ELEMENTSOF(daemon_rows) <= 64, "a reload has a bit for each");

const ParamTable queue_attributes_table = { queue_rows, ELEMENTSOF(queue_rows) };
const ParamTable pool_attributes_table = { pool_rows, ELEMENTSOF(pool_rows) };
const ParamTable daemon_settings_table = { daemon_rows, ELEMENTSOF(daemon_rows) };

const AttributeKind attributes_of_queues = { &queue_attributes_table, offsetof(QueueAttributes, present), "queue",
                                             "eqd.queue(5)" };
const AttributeKind attributes_of_pools = { &pool_attributes_table, offsetof(PoolAttributes, present), "pool",
                                            "eqd.pool(5)" };

static uint64_t row_bit(size_t i) {
        return UINT64_C(1) << i;
}

static uint64_t *present_of(const AttributeKind *k, void *a) {
        return (uint64_t *)((char *)a + k->present);
}

static bool is_set(const AttributeKind *k, const void *a, size_t i) {
        return *(const uint64_t *)((const char *)a + k->present) & row_bit(i);
}

int attributes_rebase(const AttributeKind *k, void *a, const void *base) {
        for (size_t i = 0; i < k->table->n; i++) {
                int r = is_set(k, a, i) ? 0 : param_copy(&k->table->rows[i], a, base);
                if (r < 0)
                        return r;
        }
        return 0;
}

int attributes_init(const AttributeKind *k, void *a, const void *defaults) {
        int r = params_init(k->table, a);
        if (r < 0)
                return r;
        *present_of(k, a) = 0;
        r = defaults ? attributes_rebase(k, a, defaults) : 0;
        if (r < 0)
                attributes_deinit(k, a);
        return r;
}

int attributes_copy(const AttributeKind *k, void *ret, const void *from) {
        int r = attributes_init(k, ret, from);
        if (r == 0)
                memcpy(present_of(k, ret), (const char *)from + k->present, sizeof(uint64_t));
        return r;
}

void attributes_deinit(const AttributeKind *k, void *a) {
        params_deinit(k->table, a);
        *present_of(k, a) = 0;
}

static bool is_blank(const char *text, size_t len) {
        while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
                len--;
        return len == 0;
}

int attributes_set_row(const AttributeKind *k, void *a, const void *defaults, const Param *row, const char *value,
                       size_t len, const ParamLookup *lookup, char *error, size_t error_size) {
        uint64_t bit = row_bit(params_index(k->table, row)), *present = present_of(k, a);
        bool empty = is_blank(value, len);
        int r = empty && defaults ? param_copy(row, a, defaults)
                                  : param_set(row, a, value, len, lookup, error, error_size);
        if (r < 0) {
                if (r == -ENOMEM)
                        snprintf(error, error_size, "%s: %s", row->name, strerror(ENOMEM));
                return r;
        }
        *present = empty ? *present & ~bit : *present | bit;
        return 0;
}

static bool is_kernels_name(const char *key, size_t len) {
        return len == strlen("mem_reclaim") && memcmp(key, "mem_reclaim", len) == 0;
}

const Param *attributes_find(const AttributeKind *k, const char *key, size_t len) {
        return is_kernels_name(key, len) ? params_find(k->table, "rescuer", strlen("rescuer"))
                                         : params_find(k->table, key, len);
}

int attributes_set(const AttributeKind *k, void *a, const void *defaults, const char *text, size_t len, char *error,
                   size_t error_size) {
        const char *equals = len > 0 ? memchr(text, '=', len) : NULL;
        char quoted[64];

        if (!equals) {
                snprintf(error, error_size, "%s is no key=value", param_quote(text, len, quoted));
                return -EINVAL;
        }
        size_t n_key = (size_t)(equals - text), n_value = len - n_key - 1;
        bool is_alias = is_kernels_name(text, n_key);
        const Param *row = attributes_find(k, text, n_key);
        if (!row)
                return params_unknown(k->table, NULL, text, n_key, error, error_size);
        if (n_value > PARAM_TEXT_MAX || !eq_text_valid(eq_bytes(equals + 1, n_value))) {
                snprintf(error, error_size, "%s: the value must be UTF-8 without control characters, at most %d bytes",
                         row->name, PARAM_TEXT_MAX);
                return -EINVAL;
        }
        if (!row->settable) {
                snprintf(error, error_size, "%s: only the %s's file can set it, see %s", row->name, k->what, k->page);
                return -EINVAL;
        }
        char room[PARAM_MSEC_MAX];
        const char *value = is_alias ? equals + 1 : param_value_as(row, text, n_key, equals + 1, &n_value, room);
        return attributes_set_row(k, a, defaults, row, value, n_value, NULL, error, error_size);
}

bool attributes_is_set(const AttributeKind *k, const void *a, const char *name) {
        const Param *row = params_find(k->table, name, strlen(name));
        return row && is_set(k, a, params_index(k->table, row));
}

int attributes_each(const AttributeKind *k, const void *a, AttributeFunc func, void *userdata) {
        char value[PARAM_PRINT_MAX];

        for (size_t i = 0; i < k->table->n; i++) {
                param_print(&k->table->rows[i], a, value);
                int r = func(userdata, k->table->rows[i].name, value, is_set(k, a, i));
                if (r != 0)
                        return r;
        }
        return 0;
}
