/* SPDX-License-Identifier: MIT */
/* Verbs about eqd itself: events, ping, stat, touch, reload, version, completion. */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "eqctl/help.h"
#include "eqctl/json.h"
#include "eqctl/rows.h"
#include "eqctl/text.h"

/* ---- events ---- */

typedef struct Watch {
        Ctl *ctl;
        Rows rows;
        bool by_uid;
        uint64_t uid;
        int64_t left; /* events to print before the end; -1: no end */
        bool failed;
} Watch;

static void print_event(Watch *w, const EqEvent *e) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        const EqSchema *schema = &eq_schema_Event;

        field_text(w->ctl, schema, e, EQ_IDX_Event_time_usec, false, &b);
        text_cstr(&b, "  ");
        text_escaped(&b, e->event);
        text_cstr(&b, "  ");
        if (EQ_HAS(e, Event, id))
                ctl_id(&b, e->id, e->queue, w->ctl);
        else
                text_escaped(&b, e->queue);
        static const struct {
                int field;
                const char *before;
        } fields[] = {
                { EQ_IDX_Event_state, "" },          { EQ_IDX_Event_pool, "pool " }, { EQ_IDX_Event_part, "" },
                { EQ_IDX_Event_reason, "" },         { EQ_IDX_Event_exit, "exit " }, { EQ_IDX_Event_signal, "signal " },
                { EQ_IDX_Event_stall_usec, "for " }, { EQ_IDX_Event_label, "" },     { EQ_IDX_Event_detail, "" },
        };
        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
                size_t len = b.len;
                text_printf(&b, "  %s", fields[i].before);
                size_t before = b.len;
                field_text(w->ctl, schema, e, fields[i].field, false, &b);
                if (b.len == before)
                        b.len = len;
        }
        text_cstr(&b, "\n");
        w->failed |= print_buffer(w->ctl, &b) != 0;
}

static void on_event(eq_client *c, const char *method, const void *params, size_t n, void *userdata) {
        EqDecodeError error;
        EqEvent e = { 0 };
        Watch *w = userdata;
        EqBytes map;
        EqArray it;

        if (strcmp(method, "lost") == 0)
                ctl_error(w->ctl, "some events were lost: they came faster than they were printed");
        if (strcmp(method, "event") != 0 || w->left == 0)
                return;
        if (eq_get_array(eq_bytes(params, n), &it) < 0 || eq_next_raw(&it, &map) != 1 ||
            eq_decode_map(&eq_schema_Event, map, &e, &error) < 0)
                return;
        if (w->by_uid && (!EQ_HAS(&e, Event, uid) || e.uid != w->uid))
                return;
        if (w->ctl->format == FORMAT_TABLE && !ctl_has(w->ctl, FLAG_columns))
                print_event(w, &e);
        else
                rows_add(&w->rows, &e);
        if (w->left > 0)
                w->left--;
}

/* A line is there when it has happened, also in a pipe. */
static int watch(Watch *w) {
        while (w->left != 0 && !w->failed) {
                if (fflush(stdout) != 0)
                        return EXIT_FAILURE;
                int r = eq_client_dispatch(w->ctl->client, EQ_TIMEOUT_NEVER);
                if (r < 0)
                        return ctl_lasting_fail(w->ctl, r);
        }
        return w->failed ? EXIT_FAILURE : 0;
}

int verb_events(Ctl *ctl) {
        Watch w = { .ctl = ctl, .left = -1, .by_uid = ctl_has(ctl, FLAG_filter_user) };
        const char *queue = ctl_get(ctl, FLAG_filter_queue);
        EqSubscribe rec = { 0 };

        if (ctl->format == FORMAT_WIDE)
                ctl->format = FORMAT_TABLE;
        int status = ctl_get_number(ctl, FLAG_events_count, 1, INT64_MAX, &w.left);
        if (!status)
                status = ctl_get_uid(ctl, FLAG_filter_user, &w.uid);
        /* A table needs its end to know its widths: chosen columns come as tsv. */
        if (ctl->format == FORMAT_TABLE && ctl_has(ctl, FLAG_columns))
                ctl->format = FORMAT_TSV;
        if (!status)
                status = rows_begin(&w.rows, ctl, &rows_events);
        if (status)
                return status;
        if (queue)
                EQ_SET(&rec, Subscribe, queue, eq_str(queue));
        status = ctl_connect_lasting(ctl, "connected again; what happened in between is missing");
        if (!status) {
                eq_client_set_notify(ctl->client, on_event, &w);
                status = ctl_call(ctl, EQ_METHOD_SUBSCRIBE, &rec, NULL);
        }
        if (!status)
                status = watch(&w);
        if (ctl->client)
                eq_client_set_notify(ctl->client, NULL, NULL);
        if (ctl->format == FORMAT_TABLE)
                ctl->headers = false; /* the lines were printed as they came: there is no table */
        return rows_end(&w.rows, status);
}

/* ---- ping ---- */

/* One attempt, silent. */
static int try_ping(Ctl *ctl, uint64_t timeout_usec) {
        int r = ctl_open(ctl);

        if (r == 0) {
                eq_client_set_timeout(ctl->client, timeout_usec);
                r = eq_ping(ctl->client);
        }
        if (r < 0 && r != -EREMOTEIO)
                ctl->client = eq_client_close(ctl->client);
        return r;
}

/* It answers, yet not all is well. An eqd that does not tell is not asked again. */
static int ping_done(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqStat stat = { 0 };

        ctl_verbose(ctl, "eqd answers at %s", ctl->where);
        if (ctl_try(ctl, EQ_METHOD_STAT, NULL, &reply) == 0 &&
            eq_decode_map(&eq_schema_Stat, reply_result(reply), &stat, &error) >= 0 &&
            eq_bytes_eq(stat.identities, eq_str("lost")))
                ctl_error(
                        ctl,
                        "eqd runs only commands of uid %llu: the process that could run others' has died; restart eqd",
                        (unsigned long long)stat.uid);
        return 0;
}

int verb_ping(Ctl *ctl) {
        uint64_t wait = 0, start = monotonic_usec();

        int status = ctl_get_duration(ctl, FLAG_ping_wait, &wait);
        if (status)
                return status;
        for (uint64_t spent = 0; spent < wait; spent = monotonic_usec() - start) {
                if (try_ping(ctl, wait - spent) == 0)
                        return ping_done(ctl);
                (void)poll(NULL, 0, 50); /* a pause between attempts */
        }
        status = ctl_call(ctl, EQ_METHOD_PING, NULL, NULL);
        return status ? status : ping_done(ctl);
}

/* ---- the others ---- */

int verb_stat(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        static const RowKind kind = {
                .schema = &eq_schema_Stat,
                .table = "version,pid,queues,clients,running,pending,finished",
                .wide = "version,pid,queues,clients,running,pending,finished,slots,rss_kib,fds,log_dropped",
                .tsv = "version,pid,queues,clients,running,pending,finished,slots,rss_kib,fds,log_dropped",
                .id = "pid",
        };
        EqDecodeError error;
        EqStat stat = { 0 };
        Rows rows;

        int status = ctl_call(ctl, EQ_METHOD_STAT, NULL, &reply);
        if (status)
                return status;
        if (eq_decode_map(&eq_schema_Stat, reply_result(reply), &stat, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (ctl->format == FORMAT_TABLE && !ctl_has(ctl, FLAG_columns)) {
                rows_print_fields(ctl, &eq_schema_Stat, &stat);
                return 0;
        }
        status = rows_begin(&rows, ctl, &kind);
        if (status)
                return status;
        rows_add(&rows, &stat);
        return rows_end(&rows, 0);
}

/* What runs at the other end of --host. It connects by itself: what comes back over the line belongs to the client there. */
int verb_stdio(Ctl *ctl) {
        int status = ctl_connect(ctl);
        if (status)
                return status;
        int r = host_join(eq_client_get_fd(ctl->client));
        if (r == 0 || r == -EPIPE) /* whom we would tell has gone */
                return 0;
        ctl_error(ctl, "cannot pass on what goes to and from eqd: %s", strerror(-r));
        return EXIT_FAILURE;
}

int verb_touch(Ctl *ctl) {
        return ctl_call(ctl, EQ_METHOD_TOUCH, NULL, NULL);
}

/* For people on standard error: it is what they would look for in the journal. An eqd that does not tell answers nil. */
static void say_what_waits(const Ctl *ctl, EqArray names) {
        EqBytes name;

        while (eq_next_bytes(&names, &name) == 1)
                ctl_note(ctl, "%.*s takes effect when eqd is restarted; `eqctl param ls` shows what is in force",
                         (int)name.len, name.data);
}

int verb_reload(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        EqReloadReply answer = { 0 };
        EqDecodeError error;

        int status = ctl_call(ctl, EQ_METHOD_RELOAD, NULL, &reply);
        if (status && ctl->client && eq_client_get_error(ctl->client, NULL) == EQ_E_CONFIG)
                ctl_note(ctl, "hint: that is the first mistake; `eqd --check` names all of them");
        if (status || eq_decode_map(&eq_schema_ReloadReply, reply_result(reply), &answer, &error) < 0)
                return status;
        say_what_waits(ctl, answer.waits);
        if (!ctl_wants_json(ctl))
                return 0;
        json_record(&b, &eq_schema_ReloadReply, &answer, ctl_id, ctl);
        text_cstr(&b, "\n");
        return print_buffer(ctl, &b);
}

int verb_version(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqHello hello = { 0 };
        EqHelloReply answer = { 0 };

        bool json = ctl_wants_json(ctl);
        printf(json ? "{\"eqctl\":\"%s\"}\n" : "eqctl %s\n", eq_version());
        if (!ctl->verbose)
                return 0;
        EQ_SET(&hello, Hello, version, EQ_PROTOCOL);
        EQ_SET(&hello, Hello, client, eq_str("eqctl"));
        int status = ctl_call(ctl, EQ_METHOD_HELLO, &hello, &reply);
        if (status)
                return status;
        if (eq_decode_map(&eq_schema_HelloReply, reply_result(reply), &answer, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (json) {
                _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
                json_record(&b, &eq_schema_HelloReply, &answer, ctl_id, ctl);
                text_cstr(&b, "\n");
                return print_buffer(ctl, &b);
        }
        printf("eqd %.*s, protocol %" PRIu64 "\n", (int)answer.version.len, answer.version.data, answer.protocol);
        return 0;
}

int verb_completion(Ctl *ctl) {
        return completion_print(ctl, ctl->options.operands[0]);
}
