/* SPDX-License-Identifier: MIT */
/* The tables of eqd.def as MessagePack. Bindings build their methods from it at connect, eqctl prints it, the manual page
 * eqd-protocol(7) is made from it. One function per shape of row; every count comes from the table that is packed. */

#include "server/introspect.h"

#include <stdio.h>
#include <string.h>

#include "base/util.h"
#include "proto/codec.h"

static void pack_pair_str(msgpack_packer *pk, const char *key, const char *value) {
        eq_pack_cstr(pk, key);
        eq_pack_cstr(pk, value);
}

static void pack_pair_u64(msgpack_packer *pk, const char *key, uint64_t value) {
        eq_pack_cstr(pk, key);
        msgpack_pack_uint64(pk, value);
}

static void pack_pair_bool(msgpack_packer *pk, const char *key, bool value) {
        eq_pack_cstr(pk, key);
        if (value)
                msgpack_pack_true(pk);
        else
                msgpack_pack_false(pk);
}

/* ---- fields ---- */

/* name: {type, max?, since, doc} */
static void pack_field(msgpack_packer *pk, const EqField *f) {
        eq_pack_cstr(pk, f->name);
        msgpack_pack_map(pk, f->max ? 4 : 3);
        pack_pair_str(pk, "type", eq_type_name(f->type));
        if (f->max)
                pack_pair_u64(pk, "max", f->max);
        pack_pair_u64(pk, "since", f->since);
        pack_pair_str(pk, "doc", f->doc);
}

/* The fields [from, to) as a map. */
static void pack_fields(msgpack_packer *pk, const EqSchema *schema, unsigned from, unsigned to) {
        msgpack_pack_map(pk, to - from);
        for (unsigned i = from; i < to; i++)
                pack_field(pk, &schema->fields[i]);
}

/* ---- functions ---- */

/* [[type, name]...] of the arguments that go by position, as in Neovim's table. */
static void pack_parameters(msgpack_packer *pk, const EqSchema *schema) {
        msgpack_pack_array(pk, schema->n_positional);
        for (unsigned i = 0; i < schema->n_positional; i++) {
                msgpack_pack_array(pk, 2);
                eq_pack_cstr(pk, eq_type_name(schema->fields[i].type));
                eq_pack_cstr(pk, schema->fields[i].name);
        }
}

static void pack_return_type(msgpack_packer *pk, const EqMethod *m) {
        static const char *const names[] = {
                [EQ_REPLY_NIL] = "nil",           [EQ_REPLY_ID] = "id",      [EQ_REPLY_INT] = "i64",
                [EQ_REPLY_INTV] = "ArrayOf(i64)", [EQ_REPLY_RECORD] = "map", [EQ_REPLY_LIST] = "Array",
        };
        char text[64];

        if (m->record->n_fields == 0) {
                eq_pack_cstr(pk, names[m->reply]);
                return;
        }
        (void)snprintf(text, sizeof(text), m->reply == EQ_REPLY_LIST ? "ArrayOf(%s)" : "%s", m->record->name);
        eq_pack_cstr(pk, text);
}

static void pack_function(msgpack_packer *pk, const EqMethod *m) {
        msgpack_pack_map(pk, 9);
        pack_pair_str(pk, "name", m->name);
        eq_pack_cstr(pk, "parameters");
        pack_parameters(pk, m->params);
        eq_pack_cstr(pk, "options");
        pack_fields(pk, m->params, m->params->n_positional, m->params->n_fields);
        eq_pack_cstr(pk, "return_type");
        pack_return_type(pk, m);
        pack_pair_u64(pk, "since", m->since);
        pack_pair_bool(pk, "method", false); /* of an object, in Neovim's sense */
        pack_pair_bool(pk, "admin", m->access == EQ_ACCESS_ADMIN);
        pack_pair_str(pk, "keeps", eq_keeps_names[m->keeps]);
        pack_pair_str(pk, "doc", m->doc);
}

static void pack_functions(msgpack_packer *pk) {
        msgpack_pack_array(pk, _EQ_METHOD_MAX);
        for (unsigned i = 0; i < _EQ_METHOD_MAX; i++)
                pack_function(pk, &eq_methods[i]);
}

/* ---- what eqd asks of a client ---- */

static void pack_calls(msgpack_packer *pk) {
        msgpack_pack_array(pk, _EQ_CALL_MAX);
        for (size_t i = 0; i < _EQ_CALL_MAX; i++) {
                const EqSchema *s = eq_calls[i].params;
                msgpack_pack_map(pk, 6);
                pack_pair_str(pk, "name", eq_calls[i].name);
                eq_pack_cstr(pk, "parameters");
                pack_parameters(pk, s);
                eq_pack_cstr(pk, "options");
                pack_fields(pk, s, s->n_positional, s->n_fields);
                pack_pair_str(pk, "answer", eq_calls[i].answer->name);
                pack_pair_u64(pk, "since", eq_calls[i].since);
                pack_pair_str(pk, "doc", eq_calls[i].doc);
        }
}

/* ---- the other tables ---- */

static const EqSchema *const records[] = {
#define EQ_RECORD(Name, doc) &eq_schema_##Name,
#include "eqd.def"
};

static void pack_records(msgpack_packer *pk) {
        msgpack_pack_map(pk, ELEMENTSOF(records));
        for (size_t i = 0; i < ELEMENTSOF(records); i++) {
                eq_pack_cstr(pk, records[i]->name);
                msgpack_pack_map(pk, 2);
                pack_pair_str(pk, "doc", records[i]->doc);
                eq_pack_cstr(pk, "fields");
                pack_fields(pk, records[i], 0, records[i]->n_fields);
        }
}

/* A row of any of the flat tables: name, up to two more things, doc. */
typedef struct Row {
        const char *name, *doc;
        const char *text_key, *text;
        const char *number_key;
        uint64_t number;
} Row;

static const Row notifications[] = {
#define EQ_NOTIFY(ID, name_, params, since, doc_)                                                                      \
        { .name = name_, .text_key = "params", .text = params, .number_key = "since", .number = since, .doc = doc_ },
#include "eqd.def"
};

static const Row errors[] = {
#define EQ_ERROR(ID, code, name_, exit_status, doc_)                                                                   \
        { .name = name_, .number_key = "code", .number = code, .doc = doc_ },
#include "eqd.def"
};

static const Row reasons[] = {
#define EQ_REASON(ID, name_, doc_) { .name = name_, .doc = doc_ },
#include "eqd.def"
};

static const Row states[] = {
#define EQ_STATE(ID, name_, finished, doc_)                                                                            \
        { .name = name_, .number_key = "finished", .number = finished, .doc = doc_ },
#include "eqd.def"
};

static const Row events[] = {
#define EQ_EVENT(ID, name_, doc_) { .name = name_, .doc = doc_ },
#include "eqd.def"
};

static const Row limits[] = {
#define EQ_LIMIT(ID, value, unit, doc_)                                                                                \
        { .name = #ID, .text_key = "unit", .text = unit, .number_key = "value", .number = value, .doc = doc_ },
#include "eqd.def"
};

static void pack_row(msgpack_packer *pk, const Row *row) {
        msgpack_pack_map(pk, 2 + (row->text_key != NULL) + (row->number_key != NULL));
        pack_pair_str(pk, "name", row->name);
        if (row->number_key)
                pack_pair_u64(pk, row->number_key, row->number);
        if (row->text_key)
                pack_pair_str(pk, row->text_key, row->text);
        pack_pair_str(pk, "doc", row->doc);
}

static const struct {
        const char *name;
        const Row *rows;
        unsigned n;
} tables[] = {
        { "notifications", notifications, ELEMENTSOF(notifications) },
        { "errors", errors, ELEMENTSOF(errors) },
        { "reasons", reasons, ELEMENTSOF(reasons) },
        { "states", states, ELEMENTSOF(states) },
        { "events", events, ELEMENTSOF(events) },
        { "limits", limits, ELEMENTSOF(limits) },
};

static void pack_tables(msgpack_packer *pk) {
        for (size_t t = 0; t < ELEMENTSOF(tables); t++) {
                eq_pack_cstr(pk, tables[t].name);
                msgpack_pack_array(pk, tables[t].n);
                for (unsigned i = 0; i < tables[t].n; i++)
                        pack_row(pk, &tables[t].rows[i]);
        }
}

/* ---- the whole ---- */

static void pack_version(msgpack_packer *pk) {
        msgpack_pack_map(pk, 4);
        pack_pair_str(pk, "eqd", EQD_VERSION);
        pack_pair_u64(pk, "protocol", EQ_PROTOCOL);
        pack_pair_u64(pk, "api_level", EQ_PROTOCOL); /* Neovim's names for the same */
        pack_pair_u64(pk, "api_compatible", 1);
}

/* Kinds of errors that Neovim's clients look up; eqd's own errors carry their codes themselves. */
static void pack_error_types(msgpack_packer *pk) {
        msgpack_pack_map(pk, 2);
        eq_pack_cstr(pk, "Exception");
        msgpack_pack_map(pk, 1);
        pack_pair_u64(pk, "id", 0);
        eq_pack_cstr(pk, "Validation");
        msgpack_pack_map(pk, 1);
        pack_pair_u64(pk, "id", 1);
}

void introspect_pack(msgpack_packer *pk, uint64_t channel) {
        msgpack_pack_array(pk, 2);
        msgpack_pack_uint64(pk, channel);
        msgpack_pack_map(pk, 6 + ELEMENTSOF(tables));
        eq_pack_cstr(pk, "version");
        pack_version(pk);
        eq_pack_cstr(pk, "types"); /* of handles that travel as ext; there are none */
        msgpack_pack_map(pk, 0);
        eq_pack_cstr(pk, "error_types");
        pack_error_types(pk);
        eq_pack_cstr(pk, "functions");
        pack_functions(pk);
        eq_pack_cstr(pk, "records");
        pack_records(pk);
        eq_pack_cstr(pk, "calls");
        pack_calls(pk);
        pack_tables(pk);
}
