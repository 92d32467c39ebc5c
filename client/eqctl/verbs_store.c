/* SPDX-License-Identifier: MIT */
/* Verbs about the store of durable queues: check, dump, stat.
 *
 * They look at its files by eqd-store, which needs to read them, and does not disturb an eqd that uses them; who may not read them has it
 * run by that eqd. What only that knows, stat asks it: but no eqd is started by that, so it is looked first whether one has the store. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "eqctl/json.h"
#include "eqctl/rows.h"
#include "eqctl/storetool.h"
#include "eqctl/text.h"
#include "proto/statelock.h"

static const char SYSTEM_STATE[] = "/var/lib/eqd";

typedef struct Place {
        char dir[PATH_MAX]; /* the state directory; empty: not known */
        bool asked;         /* an eqd was, and `stat` is what it says, which points into reply */
        eq_reply *reply;
        EqStoreStat stat;
} Place;

/* ---- where it is ---- */

static void default_dir(const Ctl *ctl, char dir[static PATH_MAX]) {
        const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
        bool system = strcmp(ctl->socket, "/run/eqd/eqd.sock") == 0;
        int n = system                   ? snprintf(dir, PATH_MAX, "%s", SYSTEM_STATE)
                : state && *state == '/' ? snprintf(dir, PATH_MAX, "%s/eqd", state)
                : home && *home == '/'   ? snprintf(dir, PATH_MAX, "%s/.local/state/eqd", home)
                                         : 0;
        if (n >= PATH_MAX)
                dir[0] = '\0';
}

typedef enum Use { USE_FREE, USE_HELD, USE_UNKNOWN } Use;

/* Does an eqd use it? Who may not know it is told so by who does. */
static Use use_of(const char *dir) {
        char path[PATH_MAX + 8];
        (void)snprintf(path, sizeof(path), "%s/lock", dir);
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
                return errno == EACCES || errno == EPERM ? USE_UNKNOWN : USE_FREE;
        bool held = eq_state_lock_is_held(fd);
        (void)close(fd);
        return held ? USE_HELD : USE_FREE;
}

static int take_dir(Ctl *ctl, Place *p) {
        EqBytes d = p->stat.directory;
        if (d.len <= strlen("/store") || d.len >= PATH_MAX) {
                ctl_error(ctl, "that eqd keeps no durable queues");
                return EXIT_NOT_FOUND;
        }
        memcpy(p->dir, d.data, d.len);
        p->dir[d.len - strlen("/store")] = '\0';
        return 0;
}

static int take_answer(Ctl *ctl, Place *p) {
        EqDecodeError error;
        if (eq_decode_map(&eq_schema_StoreStat, reply_result(p->reply), &p->stat, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        p->asked = true;
        return 0;
}

static int ask(Ctl *ctl, Place *p) {
        int status = ctl_call(ctl, EQ_METHOD_STORE_STAT, NULL, &p->reply);
        if (status == EXIT_NO_DAEMON)
                ctl_note(ctl, "the files of an eqd that does not run are looked at with --state DIR");
        if (!status)
                status = take_answer(ctl, p);
        if (!status && !p->dir[0])
                status = take_dir(ctl, p);
        return status;
}

/* Is what eqd calls its store in the state directory `dir`? */
static bool is_of(const EqStoreStat *stat, const char *dir) {
        char path[PATH_MAX + 8], *real;
        (void)snprintf(path, sizeof(path), "%s/store", dir);
        real = realpath(path, NULL);
        bool is = eq_bytes_eq(stat->directory, eq_str(real ? real : path));
        free(real);
        return is;
}

/* The eqd that uses p->dir, if it is the one at the socket. Its files tell less, and are there. */
static int ask_user(Ctl *ctl, Place *p) {
        int r = ctl_open(ctl);
        if (r >= 0)
                r = ctl_try(ctl, EQ_METHOD_STORE_STAT, NULL, &p->reply);
        int status = r < 0 ? 0 : take_answer(ctl, p);
        if (p->asked && is_of(&p->stat, p->dir))
                return status;
        p->asked = false;
        ctl_note(ctl, "an eqd uses %s, and not the one at %s, or that does not answer: these are figures of its files",
                 p->dir, ctl->socket);
        return status;
}

/* numbers: eqd is wanted to tell them if it runs. 0, or the exit status. */
static int find(Ctl *ctl, bool numbers, Place *p) {
        const char *given = ctl_get(ctl, FLAG_store_state), *socket = getenv("EQD_SOCKET");
        bool named = ctl_has(ctl, FLAG_socket) || (socket && *socket);
        if (given && strlen(given) >= PATH_MAX) {
                ctl_error(ctl, "--state: the path is too long");
                return EXIT_USAGE;
        }
        if (given)
                strcpy(p->dir, given);
        else if (!named)
                default_dir(ctl, p->dir);
        Use use = p->dir[0] ? use_of(p->dir) : USE_UNKNOWN;
        if (numbers && use == USE_HELD)
                return ask_user(ctl, p);
        return given || use != USE_UNKNOWN ? 0 : ask(ctl, p);
}

static void place_done(Place *p) {
        eq_reply_free(p->reply);
}

/* For a member of admin_group the files are not; then eqd has them read. */
static bool can_read(const Place *p) {
        char path[PATH_MAX + 8];
        (void)snprintf(path, sizeof(path), "%s/store", p->dir);
        return !p->asked || access(path, R_OK | X_OK) == 0;
}

static const char *add(const char *flag, const char *value, const char **args, size_t *n) {
        args[(*n)++] = flag;
        if (value)
                args[(*n)++] = value;
        return value;
}

/* check or dump, with the flags of the command line. The exit status. */
static int look(Ctl *ctl, const char *verb, StoreRowFn fn, void *userdata) {
        const char *args[6] = { NULL };
        size_t n = 0;
        EqStoreRead what = { 0 };
        Place p = { 0 };
        EQ_SET(&what, StoreRead, verb, eq_str(verb));
        if (ctl_has(ctl, FLAG_store_queue))
                EQ_SET(&what, StoreRead, queue, eq_str(add("--queue", ctl_get(ctl, FLAG_store_queue), args, &n)));
        if (ctl_has(ctl, FLAG_segment))
                EQ_SET(&what, StoreRead, segment, eq_str(add("--segment", ctl_get(ctl, FLAG_segment), args, &n)));
        if (ctl_has(ctl, FLAG_store_payload)) {
                EQ_SET(&what, StoreRead, payload, true);
                (void)add("--payload", NULL, args, &n);
        }
        int status = find(ctl, false, &p);
        if (!status)
                status = can_read(&p) ? store_tool(ctl, verb, p.dir, args, fn, userdata)
                                      : store_tool_by_eqd(ctl, &what, fn, userdata);
        place_done(&p);
        return status;
}

/* What was not good is told by itself; this is what it comes to. */
static void say_sum(Ctl *ctl, const EqStoreStat *s) {
        if (s->findings + s->unread > 0)
                ctl_note(ctl, "%.*s: %" PRIu64 " finding%s, %" PRIu64 " file%s not read; see eqctl store check",
                         (int)s->directory.len, s->directory.data, s->findings, s->findings == 1 ? "" : "s", s->unread,
                         s->unread == 1 ? "" : "s");
}

/* ---- check ---- */

static const RowKind finding_rows = {
        .schema = &eq_schema_StoreFinding,
        .table = "level,problem,file,offset,bytes,kind,queue,seq,what",
        .wide = "level,problem,file,offset,bytes,count,kind,queue,seq,error,what,at_start,advice",
        .tsv = "level,problem,file,offset,bytes,count,kind,queue,seq,error,what,at_start,advice",
        .id = "file",
};

static void put_finding(Ctl *ctl, const EqStoreFinding *f, EqBuffer *b) {
        text_escaped(b, f->level);
        text_cstr(b, ": ");
        text_escaped(b, f->file);
        if (EQ_HAS(f, StoreFinding, offset))
                text_printf(b, " at byte %" PRIu64, f->offset);
        if (EQ_HAS(f, StoreFinding, bytes))
                text_printf(b, ", %" PRIu64 " byte%s", f->bytes, f->bytes == 1 ? "" : "s");
        if (EQ_HAS(f, StoreFinding, count))
                text_printf(b, ", %" PRIu64 " time%s", f->count, f->count == 1 ? "" : "s");
        if (EQ_HAS(f, StoreFinding, kind)) {
                text_cstr(b, " (");
                text_escaped(b, f->kind);
                text_cstr(b, " of ");
                text_escaped(b, f->queue);
                text_printf(b, "/%" PRIu64 ")", f->seq);
        }
        text_cstr(b, ": ");
        text_escaped(b, f->what);
        if (f->error.len > 0) {
                text_cstr(b, ": ");
                text_escaped(b, f->error);
        }
        text_cstr(b, "\n        at the next start: ");
        text_escaped(b, f->at_start);
        text_cstr(b, "\n        to do: ");
        text_escaped(b, f->advice);
        text_cstr(b, "\n");
}

typedef struct Check {
        Rows rows;
        bool for_people;
} Check;

static int on_check_row(Ctl *ctl, const EqSchema *schema, EqBytes row, void *userdata) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        EqDecodeError error;
        Check *c = userdata;
        EqStoreFinding f = { 0 };
        EqStoreStat s = { 0 };
        if (schema == &eq_schema_StoreStat && eq_decode_map(schema, row, &s, &error) >= 0)
                ctl_note(ctl,
                         "looked at %" PRIu64 " file%s in %.*s%s: %" PRIu64 " segment%s, %" PRIu64 " records, %" PRIu64
                         " task%s; %" PRIu64 " finding%s, %" PRIu64 " note%s",
                         s.files, s.files == 1 ? "" : "s", (int)s.directory.len, s.directory.data,
                         s.in_use ? ", which an eqd is using" : "", s.segments, s.segments == 1 ? "" : "s", s.records,
                         s.tasks, s.tasks == 1 ? "" : "s", s.findings + s.unread, s.findings + s.unread == 1 ? "" : "s",
                         s.notes, s.notes == 1 ? "" : "s");
        if (schema != &eq_schema_StoreFinding)
                return 0;
        if (eq_decode_map(schema, row, &f, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (!c->for_people) {
                rows_add(&c->rows, &f);
                return 0;
        }
        put_finding(ctl, &f, &b);
        return print_buffer(ctl, &b);
}

int verb_store_check(Ctl *ctl) {
        Check c = { .for_people = ctl->format == FORMAT_TABLE && !ctl_has(ctl, FLAG_columns) };
        int status = rows_begin(&c.rows, ctl, &finding_rows);
        if (status)
                return status;
        status = look(ctl, "check", on_check_row, &c);
        if (c.for_people)
                ctl->headers = false; /* they were printed as they came */
        return rows_end(&c.rows, status);
}

/* ---- dump ---- */

static const RowKind record_rows = {
        .schema = &eq_schema_StoreRecord,
        .table = "segment,offset,size,kind,queue,seq,live",
        .wide = "segment,offset,size,kind,queue,seq,live",
        .tsv = "segment,offset,size,kind,queue,queue_id,seq,live,urgent,flags,body_bytes,uid,state,reason,attempt,exit,"
               "signal,"
               "submitted_usec,finished_usec,payload_bytes,label,unique,argv,set,payload,problem",
        .id = "seq",
};

/* A line is there when it was read: a table would need all of them in memory. */
static void put_record(Ctl *ctl, const EqStoreRecord *r, EqBuffer *b) {
        static const struct {
                int field;
                const char *before;
        } fields[] = {
                { EQ_IDX_StoreRecord_flags, "" },
                { EQ_IDX_StoreRecord_uid, "uid " },
                { EQ_IDX_StoreRecord_state, "" },
                { EQ_IDX_StoreRecord_reason, "" },
                { EQ_IDX_StoreRecord_attempt, "attempt " },
                { EQ_IDX_StoreRecord_exit, "exit " },
                { EQ_IDX_StoreRecord_signal, "signal " },
                { EQ_IDX_StoreRecord_submitted_usec, "" },
                { EQ_IDX_StoreRecord_finished_usec, "" },
                { EQ_IDX_StoreRecord_label, "label " },
                { EQ_IDX_StoreRecord_unique, "unique " },
                { EQ_IDX_StoreRecord_argv, "" },
                { EQ_IDX_StoreRecord_set, "" },
                { EQ_IDX_StoreRecord_payload, "payload " },
                { EQ_IDX_StoreRecord_problem, "" },
        };
        text_printf(b, "%" PRIu64 ":%" PRIu64 "  %.*s", r->segment, r->offset, (int)r->kind.len, r->kind.data);
        if (EQ_HAS(r, StoreRecord, queue)) {
                text_cstr(b, "  ");
                text_escaped(b, r->queue);
                text_printf(b, "/%" PRIu64, r->seq);
        }
        text_printf(b, "  %" PRIu64 " bytes%s%s", r->size, EQ_HAS(r, StoreRecord, live) && r->live ? "  live" : "",
                    r->urgent ? "  urgent" : "");
        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
                if (!field_present(r, fields[i].field))
                        continue;
                text_printf(b, "  %s", fields[i].before);
                field_text(ctl, &eq_schema_StoreRecord, r, fields[i].field, false, b);
        }
        text_cstr(b, "\n");
}

static int on_dump_row(Ctl *ctl, const EqSchema *schema, EqBytes row, void *userdata) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        EqDecodeError error;
        Rows *rows = userdata;
        EqStoreRecord r = { 0 };
        EqStoreStat s = { 0 };
        if (schema == &eq_schema_StoreStat && eq_decode_map(schema, row, &s, &error) >= 0)
                say_sum(ctl, &s);
        if (schema != &eq_schema_StoreRecord)
                return 0;
        if (eq_decode_map(schema, row, &r, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (ctl->format == FORMAT_TABLE) {
                put_record(ctl, &r, &b);
                return print_buffer(ctl, &b);
        }
        rows_add(rows, &r);
        return 0;
}

int verb_store_dump(Ctl *ctl) {
        Rows rows;
        if (ctl->format == FORMAT_WIDE || (ctl->format == FORMAT_TABLE && ctl_has(ctl, FLAG_columns)))
                ctl->format = ctl_has(ctl, FLAG_columns) ? FORMAT_TSV : FORMAT_TABLE;
        int status = rows_begin(&rows, ctl, &record_rows);
        if (status)
                return status;
        status = look(ctl, "dump", on_dump_row, &rows);
        if (ctl->format == FORMAT_TABLE)
                ctl->headers = false;
        return rows_end(&rows, status);
}

/* ---- stat ---- */

static const RowKind stat_rows = {
        .schema = &eq_schema_StoreStat,
        .table = "segments",
        .wide = "segments",
        .tsv = "segments",
        .id = "directory",
};

static const RowKind queue_rows = {
        .schema = &eq_schema_StoreQueue,
        .table = "name,id,pending,finished,last_seq,bytes,segments,removed",
        .wide = "name,id,pending,finished,last_seq,bytes,segments,removed",
        .tsv = "name,id,pending,finished,last_seq,bytes,segments,removed",
        .id = "name",
};

static void print_stat(Ctl *ctl, const EqStoreStat *s) {
        Rows rows;
        if (ctl_has(ctl, FLAG_columns) || ctl->format == FORMAT_TSV || ctl->format == FORMAT_ID)
                return; /* these are of queues */
        if (ctl->format != FORMAT_JSONL) {
                rows_print_fields(ctl, &eq_schema_StoreStat, s);
                if (s->bytes > 0)
                        printf("%-15s %.1f %%\n", "live", 100.0 * (double)s->live_bytes / (double)s->bytes);
                printf("\n");
        } else if (rows_begin(&rows, ctl, &stat_rows) == 0) {
                rows_add(&rows, s);
                (void)rows_end(&rows, 0); /* a failed write shows at exit, too */
        }
}

static int on_stat_row(Ctl *ctl, const EqSchema *schema, EqBytes row, void *userdata) {
        EqDecodeError error;
        EqStoreQueue q = { 0 };
        EqStoreStat s = { 0 };
        if (schema == &eq_schema_StoreStat && eq_decode_map(schema, row, &s, &error) >= 0) {
                print_stat(ctl, &s);
                say_sum(ctl, &s);
        }
        if (schema != &eq_schema_StoreQueue)
                return 0;
        if (eq_decode_map(schema, row, &q, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        rows_add(userdata, &q);
        return 0;
}

static void add_durable(const EqQueue *q, void *userdata) {
        EqStoreQueue row = { 0 };
        if (!eq_bytes_eq(rows_attribute(q->set, "durable"), eq_str("yes")))
                return;
        EQ_SET(&row, StoreQueue, name, q->name);
        EQ_SET(&row, StoreQueue, id, q->id);
        EQ_SET(&row, StoreQueue, pending, q->running + q->queued + q->waiting);
        EQ_SET(&row, StoreQueue, finished, q->finished);
        EQ_SET(&row, StoreQueue, last_seq, q->last_seq);
        rows_add(userdata, &row);
}

int verb_store_stat(Ctl *ctl) {
        Place p = { 0 };
        Rows rows;
        if (ctl->format == FORMAT_JSON) /* two kinds of rows in one array would help nobody */
                ctl->format = FORMAT_JSONL;
        int status = rows_begin(&rows, ctl, &queue_rows);
        if (status)
                return status;
        status = find(ctl, true, &p);
        if (!status && !p.asked)
                status = store_tool(ctl, "stat", p.dir, (const char *[]) { NULL }, on_stat_row, &rows);
        else if (!status) {
                print_stat(ctl, &p.stat);
                int r = ctl_each_queue(ctl, add_durable, &rows);
                status = r < 0 ? ctl_fail(ctl, r) : 0;
        }
        place_done(&p);
        return rows_end(&rows, status);
}
