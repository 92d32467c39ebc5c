/* SPDX-License-Identifier: MIT */
/* Parameters by name, over the tables of the daemon's settings and of the attributes of queues, whose defaults are settings
 * of the daemon too. What is set here is a change of the configuration in force, not of a file: it is lost with it. */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/event.h"
#include "manager/parts.h"

static bool in_daemon(const Param *row) {
        return row >= daemon_settings_table.rows && row < daemon_settings_table.rows + daemon_settings_table.n;
}

static void fill(const Manager *m, const Param *row, Tunable *ret) {
        const Config *c = m->config;
        bool daemon = in_daemon(row);
        size_t i = params_index(daemon ? &daemon_settings_table : &queue_attributes_table, row);
        *ret = (Tunable) {
                .row = row,
                .object = daemon ? (const void *)&c->daemon : &c->queue_defaults,
                .changed = (daemon ? c->daemon_set : c->queue_defaults_set) >> i & 1,
        };
}

static const Param *row_at(size_t i) {
        if (i < daemon_settings_table.n)
                return &daemon_settings_table.rows[i];
        i -= daemon_settings_table.n;
        return i < queue_attributes_table.n ? &queue_attributes_table.rows[i] : NULL;
}

bool manager_tunable(const Manager *m, size_t i, Tunable *ret) {
        const Param *row = row_at(i);
        if (row)
                fill(m, row, ret);
        return row;
}

/* ---- find ---- */

/* Of the section before the dot; any: without one. Two rows of one name: the first, and *ret_other. */
static const Param *find_row(EqBytes section, EqBytes key, const Param **ret_other) {
        const ParamTable *const tables[] = { &daemon_settings_table, &queue_attributes_table };
        const Param *found = NULL;
        *ret_other = NULL;
        for (size_t t = 0; t < ELEMENTSOF(tables); t++) {
                const Param *row = params_find(tables[t], key.data, key.len);
                bool wanted = row && (section.len == 0 || (strlen(row->section) == section.len &&
                                                           strncasecmp(row->section, section.data, section.len) == 0));
                if (wanted && found)
                        *ret_other = row;
                else if (wanted)
                        found = row;
        }
        return found;
}

int manager_find_tunable(const Manager *m, EqBytes name, Tunable *ret, Refusal *ret_refusal) {
        char quoted[64];
        const char *dot = name.len > 0 ? memchr(name.data, '.', name.len) : NULL;
        size_t n = dot ? (size_t)(dot - name.data) : 0;
        EqBytes key = dot ? eq_bytes(dot + 1, name.len - n - 1) : name;
        EqBytes section = eq_bytes(name.data, n);
        if (eq_bytes_eq(section, eq_str("workqueue"))) /* where the kernel has these */
                section = eq_str("Watchdog");
        const Param *other, *row = find_row(section, key, &other);
        if (other)
                return refusal_of_field(ret_refusal, "name",
                                        refuse(ret_refusal, EQ_E_INVALID, -EINVAL,
                                               "%s is in sections %s and %s; say which, as queue.%s", row->name,
                                               row->section, other->section, row->name));
        if (!row) {
                int r = refuse(ret_refusal, EQ_E_NO_PARAM, -ENOENT, "no parameter %s; eqctl param ls lists them",
                               param_quote(name.data, name.len, quoted));
                REFUSAL_NAMES(ret_refusal, param, name);
                return r;
        }
        fill(m, row, ret);
        ret->name = key;
        return 0;
}

/* ---- set ---- */

/* Queues that have no threshold of their own follow that of the daemon. */
static int follow_watchdog(Manager *m, Refusal *r) {
        uint64_t thresh = m->config->daemon.watchdog_thresh_usec;
        QueueAttributes a;
        if (m->config->queue_defaults.engine.stall_thresh_usec == thresh ||
            attributes_is_set(&attributes_of_queues, &m->config->queue_defaults, "stall_thresh"))
                return 0;
        int e = queue_attributes_copy(&a, &m->config->queue_defaults);
        if (e < 0)
                return refuse(r, EQ_E_NO_MEMORY, e, "out of memory");
        a.engine.stall_thresh_usec = thresh;
        e = queues_set_defaults(m, &a, r);
        queue_attributes_deinit(&a);
        return e;
}

/* Puts it into force, or takes it back. */
static int set_daemon(Manager *m, const Param *row, EqBytes value, Refusal *r) {
        DaemonSettings *d = &m->config->daemon;
        char error[PARAM_ERROR_MAX];
        uint64_t slots = d->slots, thresh = d->watchdog_thresh_usec;
        int e = config_set_daemon(m->config, row, value, error, sizeof(error));
        if (e < 0)
                return refuse(r, e == -ENOMEM ? EQ_E_NO_MEMORY : EQ_E_INVALID, e, "%s", error);
        if (d->slots != slots)
                e = pools_set_default(m, d->slots, r);
        if (e >= 0)
                e = follow_watchdog(m, r);
        if (e < 0) {
                d->slots = slots;
                d->watchdog_thresh_usec = thresh;
                return e;
        }
        queues_apply_settings(m);
        m->config->daemon_set |= UINT64_C(1) << params_index(&daemon_settings_table, row);
        return 0;
}

static int set_queue_default(Manager *m, const Param *row, EqBytes value, Refusal *r) {
        char error[PARAM_ERROR_MAX];
        QueueAttributes a;
        int e = queue_attributes_copy(&a, &m->config->queue_defaults);
        if (e < 0)
                return refuse(r, EQ_E_NO_MEMORY, e, "out of memory");
        e = queue_attributes_set_row(&a, NULL, row, value.data, value.len, NULL, error, sizeof(error));
        if (e < 0)
                refuse(r, e == -ENOMEM ? EQ_E_NO_MEMORY : EQ_E_INVALID, e, "%s", error);
        else
                e = queues_set_defaults(m, &a, r);
        if (e >= 0)
                m->config->queue_defaults_set |= UINT64_C(1) << params_index(&queue_attributes_table, row);
        queue_attributes_deinit(&a);
        return e;
}

static int refusal_of_value(Refusal *r, const Param *row, int error) {
        REFUSAL_SAYS(r, param, eq_str(row->name));
        return refusal_of_field(r, "value", error);
}

int manager_tunable_set(Manager *m, Tunable *t, EqBytes value, Refusal *ret_refusal) {
        const Param *row = t->row;
        char text[PARAM_PRINT_MAX], room[PARAM_MSEC_MAX];
        if (!row->settable)
                return refusal_of_value(ret_refusal, row,
                                        refuse(ret_refusal, EQ_E_STATE, -EPERM,
                                               "%s cannot be set while eqd runs; set it in section [%s] of eqd.conf%s",
                                               row->name, row->section,
                                               in_daemon(row) ? " and restart eqd" : " and reload"));
        if (value.len > PARAM_TEXT_MAX || !eq_text_valid(value))
                return refusal_of_value(
                        ret_refusal, row,
                        refuse(ret_refusal, EQ_E_INVALID, -EINVAL,
                               "%s: the value must be UTF-8 without control characters, at most %d bytes", row->name,
                               PARAM_TEXT_MAX));
        size_t n = value.len;
        const char *text_as = param_value_as(row, t->name.data, t->name.len, value.data, &n, room);
        value = eq_bytes(text_as, n);
        int r = in_daemon(row) ? set_daemon(m, row, value, ret_refusal) : set_queue_default(m, row, value, ret_refusal);
        if (r < 0)
                return refusal_of_value(ret_refusal, row, r);
        fill(m, row, t);
        param_print(row, t->object, text);
        log_event(SETTING_CHANGED, (.setting = row->name), row->name, row->section, text);
        return 0;
}
