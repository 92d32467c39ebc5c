/* SPDX-License-Identifier: MIT */
/* eqd-tables: prints from the rows of eqd.def, at build time.
 *
 *   eqd-tables json             the whole interface as JSON (api.json)
 *   eqd-tables NAME             one fragment in man(7) macros; NAME is a row of `fragments`
 *   eqd-tables man FILE         FILE with each line `@NAME@` replaced by that fragment, and @VERSION@ anywhere in a line
 *
 * So a page describes the wire with the words of the table that the daemon decodes by. Not installed. */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "page.h"
#include "schema.h"

/* ---- the rows that no table of schema.h keeps ---- */

static const struct {
        const char *name, *unit, *doc;
        uint64_t value;
} limits[] = {
#define EQ_LIMIT(ID, value_, unit_, doc_) { .name = #ID, .unit = unit_, .doc = doc_, .value = value_ },
#include "eqd.def"
};

static const struct {
        const char *name, *doc;
        bool finished;
} states[] = {
#define EQ_STATE(ID, name_, finished_, doc_) { .name = name_, .doc = doc_, .finished = finished_ },
#include "eqd.def"
};

static const struct {
        const char *name, *doc;
} reasons[] = {
#define EQ_REASON(ID, name_, doc_) { .name = name_, .doc = doc_ },
#include "eqd.def"
};

static const struct {
        const char *name, *doc;
        int code, exit_status;
} errors[] = {
#define EQ_ERROR(ID, code_, name_, exit_status_, doc_)                                                                 \
        { .name = name_, .doc = doc_, .code = code_, .exit_status = exit_status_ },
#include "eqd.def"
};

static const struct {
        int code;
        const char *member;
} details[] = {
#define EQ_DETAIL(ERROR, member_) { .code = EQ_E_##ERROR, .member = #member_ },
#include "eqd.def"
};

static const struct {
        const char *name, *doc;
} events[] = {
#define EQ_EVENT(ID, name_, doc_) { .name = name_, .doc = doc_ },
#include "eqd.def"
};

static const struct {
        const char *name, *params, *doc;
        unsigned since;
} notifications[] = {
#define EQ_NOTIFY(ID, name_, params_, since_, doc_) { .name = name_, .params = params_, .doc = doc_, .since = since_ },
#include "eqd.def"
};

#define N_ROWS(table) (sizeof(table) / sizeof((table)[0]))

static const struct {
        const char *text; /* for people */
        const char *unit; /* of a field's max, where the text does not say it */
} types[] = {
        [EQ_BOOL] = { "boolean", "" },
        [EQ_U64] = { "unsigned integer", "" },
        [EQ_I64] = { "integer", "" },
        [EQ_STR] = { "string", " bytes" },
        [EQ_BIN] = { "bytes", "" },
        [EQ_STRV] = { "array of strings", "" },
        [EQ_ID] = { "task id", "" },
        [EQ_IDV] = { "array of task ids", "" },
        [EQ_LISTV] = { "array", " elements" },
        [EQ_MAP] = { "map", "" },
};

static const struct {
        const char *wire, *text;
} replies[] = {
        [EQ_REPLY_NIL] = { "nil", "nil" },
        [EQ_REPLY_ID] = { "id", "the id of the task" },
        [EQ_REPLY_INT] = { "int", "an integer" },
        [EQ_REPLY_INTV] = { "intv", "an array of integers" },
        [EQ_REPLY_RECORD] = { "record", "a record" },
        [EQ_REPLY_LIST] = { "list", "an array" },
};

/* ---- man(7) ---- */

/* A sentence on a line of its own. */
static void man_line(const char *s) {
        size_t n = strlen(s);

        page_text(s);
        puts(n > 0 && strchr(".?!", s[n - 1]) ? "" : ".");
}

/* "word" is bold, then the rest of the tag's line follows. */
static void man_tag(const char *word) {
        printf(".TP\n\\fB");
        page_text(word);
        printf("\\fR");
}

static void man_field(const EqField *f) {
        man_tag(f->name);
        printf(" (%s", types[f->type].text);
        if (f->max > 0)
                printf(", at most %" PRIu64 "%s", f->max, types[f->type].unit);
        if (f->since > 1)
                printf(", since protocol %u", (unsigned)f->since);
        printf(")\n");
        man_line(f->doc);
}

static void man_signature(const char *name, const EqSchema *s) {
        printf("\\fB%s\\fR(", name);
        for (unsigned i = 0; i < s->n_positional; i++)
                printf("%s\\fI%s\\fR", i > 0 ? ", " : "", s->fields[i].name);
        if (s->n_fields > s->n_positional)
                printf("%s{\\fIoptions\\fR}", s->n_positional > 0 ? ", " : "");
        printf(")");
}

static void man_reply(const EqMethod *m) {
        printf("Replies with %s", replies[m->reply].text);
        if (m->record->n_fields > 0)
                printf(" %s\\fB%s\\fR", m->reply == EQ_REPLY_LIST ? "of records " : "", m->record->name);
        printf(".\n");
        if (m->access == EQ_ACCESS_ADMIN)
                printf("For administrators only.\n");
        if (m->keeps == EQ_KEEPS_CHANGES)
                printf("Changes what is kept of durable queues.\n");
        if (m->since > 1)
                printf("Since protocol %u.\n", (unsigned)m->since);
}

static void man_heading(const char *name, const char *doc, const EqSchema *params) {
        printf(".SS %s\n", name);
        man_signature(name, params);
        printf("\n.PP\n");
        man_line(doc);
        printf(".br\n");
}

static void man_parameters(const EqSchema *s) {
        for (unsigned k = 0; k < s->n_fields; k++) {
                if (k == s->n_positional)
                        printf(".PP\nOptions:\n");
                man_field(&s->fields[k]);
        }
}

static void man_methods(void) {
        for (int i = 0; i < _EQ_METHOD_MAX; i++) {
                const EqMethod *m = &eq_methods[i];
                man_heading(m->name, m->doc, m->params);
                man_reply(m);
                man_parameters(m->params);
        }
}

static void man_calls(void) {
        for (size_t i = 0; i < N_ROWS(eq_calls); i++) {
                man_heading(eq_calls[i].name, eq_calls[i].doc, eq_calls[i].params);
                printf("The answer may be a record \\fB%s\\fR.\n", eq_calls[i].answer->name);
                if (eq_calls[i].since > 1)
                        printf("Since protocol %u.\n", eq_calls[i].since);
                man_parameters(eq_calls[i].params);
        }
}

static bool is_parameters(const EqSchema *s) {
        for (int i = 0; i < _EQ_METHOD_MAX; i++)
                if (eq_methods[i].params == s)
                        return true;
        for (size_t i = 0; i < N_ROWS(eq_calls); i++)
                if (eq_calls[i].params == s)
                        return true;
        return false;
}

/* The others are described with their methods. */
static void man_records(void) {
        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                const EqSchema *s = eq_schemas[k];
                if (is_parameters(s))
                        continue;
                printf(".SS %s\n", s->name);
                man_line(s->doc);
                for (unsigned i = 0; i < s->n_fields; i++)
                        man_field(&s->fields[i]);
        }
}

static void man_notifications(void) {
        for (size_t i = 0; i < N_ROWS(notifications); i++) {
                man_tag(notifications[i].name);
                printf("(\\fI%s\\fR)\n", notifications[i].params);
                man_line(notifications[i].doc);
                if (notifications[i].since > 1)
                        printf("Since protocol %u.\n", notifications[i].since);
        }
}

static void man_events(void) {
        for (size_t i = 0; i < N_ROWS(events); i++) {
                man_tag(events[i].name);
                putchar('\n');
                man_line(events[i].doc);
        }
}

static void man_states(void) {
        for (size_t i = 0; i < N_ROWS(states); i++) {
                man_tag(states[i].name);
                printf("%s\n", states[i].finished ? " (finished)" : "");
                man_line(states[i].doc);
        }
}

static void man_reasons(void) {
        for (size_t i = 0; i < N_ROWS(reasons); i++) {
                if (!reasons[i].name[0])
                        continue;
                man_tag(reasons[i].name);
                putchar('\n');
                man_line(reasons[i].doc);
        }
}

static void man_details(int code) {
        unsigned n = 0;
        for (size_t i = 0; i < N_ROWS(details); i++)
                if (details[i].code == code)
                        printf("%s\\fI%s\\fR", n++ > 0 ? ", " : "Details: ", details[i].member);
        printf("%s", n > 0 ? ".\n" : "");
}

static void man_errors(void) {
        for (size_t i = 0; i < N_ROWS(errors); i++) {
                man_tag(errors[i].name);
                printf(" (code %d; exit status of eqctl %d)\n", errors[i].code, errors[i].exit_status);
                man_line(errors[i].doc);
                man_details(errors[i].code);
        }
}

static void man_limits(void) {
        for (size_t i = 0; i < N_ROWS(limits); i++) {
                man_tag(limits[i].name);
                printf(" = %" PRIu64 " %s\n", limits[i].value, limits[i].unit);
                man_line(limits[i].doc);
        }
}

/* ---- JSON ---- */

static void json_string(const char *s) {
        putchar('"');
        for (; *s; s++)
                if (*s == '"' || *s == '\\')
                        printf("\\%c", *s);
                else if ((unsigned char)*s < 0x20)
                        printf("\\u%04x", (unsigned)*s);
                else
                        putchar(*s);
        putchar('"');
}

/* , "key": "value" */
static void json_member(const char *key, const char *value) {
        printf(", \"%s\": ", key);
        json_string(value);
}

static void json_fields(const EqSchema *s) {
        for (unsigned i = 0; i < s->n_fields; i++) {
                const EqField *f = &s->fields[i];
                printf("%s\n      {\"name\": \"%s\", \"type\": \"%s\", \"required\": %s, \"since\": %u, \"max\": "
                       "%" PRIu64,
                       i > 0 ? "," : "", f->name, eq_type_name((EqType)f->type), f->positional ? "true" : "false",
                       (unsigned)f->since, f->max);
                json_member("doc", f->doc);
                putchar('}');
        }
}

static void json_records(void) {
        printf("  \"records\": [");
        for (unsigned k = 0; k < _EQ_SCHEMA_MAX; k++) {
                printf("%s\n    {\"name\": \"%s\"", k > 0 ? "," : "", eq_schemas[k]->name);
                json_member("doc", eq_schemas[k]->doc);
                printf(", \"fields\": [");
                json_fields(eq_schemas[k]);
                printf("]}");
        }
        printf("\n  ],\n");
}

static void json_methods(void) {
        printf("  \"methods\": [");
        for (int i = 0; i < _EQ_METHOD_MAX; i++) {
                const EqMethod *m = &eq_methods[i];
                printf("%s\n    {\"name\": \"%s\", \"params\": \"%s\", \"reply\": \"%s\"", i > 0 ? "," : "", m->name,
                       m->params->name, replies[m->reply].wire);
                if (m->record->n_fields > 0)
                        json_member("record", m->record->name);
                printf(", \"access\": \"%s\", \"keeps\": \"%s\", \"since\": %u",
                       m->access == EQ_ACCESS_ADMIN ? "admin" : "any", eq_keeps_names[m->keeps], (unsigned)m->since);
                json_member("doc", m->doc);
                putchar('}');
        }
        printf("\n  ],\n");
}

/* The start of a row of the list `key`; the first one opens the list. */
static void json_row(const char *key, size_t i, const char *name) {
        if (i == 0)
                printf("  \"%s\": [", key);
        printf("%s\n    {\"name\": \"%s\"", i > 0 ? "," : "", name);
}

static void json_row_end(const char *doc, bool last, const char *tail) {
        json_member("doc", doc);
        printf("}%s%s", last ? "\n  ]" : "", last ? tail : "");
}

static void json_calls(void) {
        for (size_t i = 0; i < N_ROWS(eq_calls); i++) {
                json_row("calls", i, eq_calls[i].name);
                json_member("params", eq_calls[i].params->name);
                json_member("answer", eq_calls[i].answer->name);
                printf(", \"since\": %u", eq_calls[i].since);
                json_row_end(eq_calls[i].doc, i + 1 == N_ROWS(eq_calls), ",\n");
        }
}

static void json_details(int code) {
        unsigned n = 0;
        printf(", \"details\": [");
        for (size_t i = 0; i < N_ROWS(details); i++)
                if (details[i].code == code)
                        printf("%s\"%s\"", n++ > 0 ? ", " : "", details[i].member);
        putchar(']');
}

static void json_lists(void) {
        json_calls();
        for (size_t i = 0; i < N_ROWS(notifications); i++) {
                json_row("notifications", i, notifications[i].name);
                json_member("params", notifications[i].params);
                printf(", \"since\": %u", notifications[i].since);
                json_row_end(notifications[i].doc, i + 1 == N_ROWS(notifications), ",\n");
        }
        for (size_t i = 0; i < N_ROWS(events); i++) {
                json_row("events", i, events[i].name);
                json_row_end(events[i].doc, i + 1 == N_ROWS(events), ",\n");
        }
        for (size_t i = 0; i < N_ROWS(errors); i++) {
                json_row("errors", i, errors[i].name);
                printf(", \"code\": %d, \"exit_status\": %d", errors[i].code, errors[i].exit_status);
                json_details(errors[i].code);
                json_row_end(errors[i].doc, i + 1 == N_ROWS(errors), ",\n");
        }
        for (size_t i = 0; i < N_ROWS(states); i++) {
                json_row("states", i, states[i].name);
                printf(", \"finished\": %s", states[i].finished ? "true" : "false");
                json_row_end(states[i].doc, i + 1 == N_ROWS(states), ",\n");
        }
        for (size_t i = 0; i < N_ROWS(reasons); i++) {
                json_row("reasons", i, reasons[i].name);
                json_row_end(reasons[i].doc, i + 1 == N_ROWS(reasons), ",\n");
        }
        for (size_t i = 0; i < N_ROWS(limits); i++) {
                json_row("limits", i, limits[i].name);
                printf(", \"value\": %" PRIu64, limits[i].value);
                json_member("unit", limits[i].unit);
                json_row_end(limits[i].doc, i + 1 == N_ROWS(limits), "\n");
        }
}

static void print_json(void) {
        printf("{\n  \"protocol\": %d,\n", EQ_PROTOCOL);
        json_methods();
        json_records();
        json_lists();
        printf("}\n");
}

/* ---- pages ---- */

static const struct {
        const char *name;
        void (*print)(void);
} fragments[] = {
        { "json", print_json },   { "methods", man_methods }, { "records", man_records },
        { "events", man_events }, { "states", man_states },   { "notifications", man_notifications },
        { "errors", man_errors }, { "limits", man_limits },   { "reasons", man_reasons },
        { "calls", man_calls },
};

static bool print_fragment(const char *name, size_t len) {
        for (size_t i = 0; i < N_ROWS(fragments); i++)
                if (strlen(fragments[i].name) == len && memcmp(fragments[i].name, name, len) == 0) {
                        fragments[i].print();
                        return true;
                }
        return false;
}

int main(int argc, char *argv[]) {
        bool ok = argc == 2 && print_fragment(argv[1], strlen(argv[1]));

        if (argc == 3 && strcmp(argv[1], "man") == 0)
                ok = page_print("eqd-tables", argv[2], print_fragment) == 0;
        else if (!ok)
                fprintf(stderr, "usage: eqd-tables json | FRAGMENT | man FILE\n");
        return ok && fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
