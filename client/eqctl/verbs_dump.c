/* SPDX-License-Identifier: MIT */
/* Verbs for when something does not go on: dump and monitor. */

#include <errno.h>
#include <fnmatch.h>
#include <poll.h>
#include <string.h>

#include "eqctl/rows.h"

/* One table after the other, a blank line between those for people. */
static int begin_part(Rows *rows, Ctl *ctl, const RowKind *kind, bool first) {
        if (!first && (ctl->format == FORMAT_TABLE || ctl->format == FORMAT_WIDE))
                printf("\n");
        return rows_begin(rows, ctl, kind);
}

static int dump_pools(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqBytes row;
        Rows rows;

        int status = ctl_call(ctl, EQ_METHOD_POOL_LIST, NULL, &reply);
        if (!status)
                status = begin_part(&rows, ctl, &rows_pools, true);
        if (status)
                return status;
        for (EqArray it = reply_rows(reply); !status && eq_next_raw(&it, &row) == 1;) {
                EqPool p = { 0 };
                if (eq_decode_map(&eq_schema_Pool, row, &p, &error) < 0)
                        status = ctl_fail(ctl, -EBADMSG);
                else
                        rows_add(&rows, &p);
        }
        return rows_end(&rows, status);
}

static void add_busy_queue(const EqQueue *q, void *userdata) {
        if (q->running + q->queued + q->waiting > 0)
                rows_add(userdata, q);
}

static int dump_queues(Ctl *ctl) {
        Rows rows;
        int status = begin_part(&rows, ctl, &rows_busy_queues, false);
        if (status)
                return status;
        int r = ctl_each_queue(ctl, add_busy_queue, &rows);
        return rows_end(&rows, r < 0 ? ctl_fail(ctl, r) : 0);
}

/* A page; *from moves on behind it. */
static int flight_page(Ctl *ctl, Rows *rows, uint64_t *from, uint32_t *ret_n) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqInFlightList list = { 0 };
        EqDecodeError error;
        EqBytes row;

        EQ_SET(&list, InFlightList, from, *from);
        int status = ctl_call(ctl, EQ_METHOD_IN_FLIGHT, &list, &reply);
        if (status)
                return status;
        EqArray it = reply_rows(reply);
        *ret_n = it.n;
        *from += it.n;
        while (eq_next_raw(&it, &row) == 1) {
                EqInFlight t = { 0 };
                if (eq_decode_map(&eq_schema_InFlight, row, &t, &error) < 0)
                        return ctl_fail(ctl, -EBADMSG);
                rows_add(rows, &t);
        }
        return 0;
}

static int dump_flights(Ctl *ctl) {
        Rows rows;
        uint64_t from = 0;
        uint32_t n = 1;
        int status = begin_part(&rows, ctl, &rows_flights, false);
        if (status)
                return status;
        while (!status && n > 0)
                status = flight_page(ctl, &rows, &from, &n);
        return rows_end(&rows, status);
}

int verb_dump(Ctl *ctl) {
        if (ctl->format == FORMAT_JSON) /* an array for each table would be no JSON text */
                ctl->format = FORMAT_JSONL;
        int status = dump_pools(ctl);
        if (!status)
                status = dump_queues(ctl);
        return status ? status : dump_flights(ctl);
}

/* ---- monitor ---- */

typedef struct Monitor {
        Ctl *ctl;
        Rows rows;
} Monitor;

static void add_monitored(const EqQueue *q, void *userdata) {
        Monitor *m = userdata;
        const Options *o = &m->ctl->options;
        char name[EQ_NAME_MAX + 1] = "";
        bool wanted = o->n_operands == 0;

        memcpy(name, q->name.data, q->name.len < EQ_NAME_MAX ? q->name.len : EQ_NAME_MAX);
        for (size_t i = 0; i < o->n_operands; i++)
                wanted |= fnmatch(o->operands[i], name, 0) == 0;
        if (wanted)
                rows_add(&m->rows, q);
}

static int look(Ctl *ctl, bool first) {
        Monitor m = { .ctl = ctl };
        int status = begin_part(&m.rows, ctl, &rows_monitor, first);
        if (status)
                return status;
        int r = ctl_each_queue(ctl, add_monitored, &m);
        status = rows_end(&m.rows, r < 0 ? ctl_fail(ctl, r) : 0);
        return status == 0 && fflush(stdout) != 0 ? EXIT_FAILURE : status;
}

int verb_monitor(Ctl *ctl) {
        uint64_t interval = 1000000;
        int64_t left = -1;

        int status = ctl_get_duration(ctl, FLAG_interval, &interval);
        if (!status)
                status = ctl_get_number(ctl, FLAG_monitor_count, 1, INT64_MAX, &left);
        if (!status)
                status = ctl_connect(ctl);
        for (bool first = true; !status; first = false) {
                status = look(ctl, first);
                if (interval == 0 || (left > 0 && --left == 0))
                        break;
                (void)poll(NULL, 0, (int)(interval / 1000 < INT32_MAX ? interval / 1000 : INT32_MAX)); /* a pause */
        }
        return status;
}
