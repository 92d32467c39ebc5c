/* SPDX-License-Identifier: MIT */
/* A record is kept packed, as eqd sent it: what it points to goes with the reply that it came in. */

#include "eqctl/sorter.h"

#include <stdlib.h>
#include <string.h>

#include "eqctl/json.h"
#include "eqctl/rows.h"
#include "eqctl/text.h"

struct SortedRecord {
        size_t at, len; /* in Sorter::bytes */
        size_t text_at; /* in Sorter::texts */
        const char *text;
        uint64_t number, ordinal;
};

static bool is_number(const EqField *f) {
        return f->type == EQ_U64 || f->type == EQ_BOOL;
}

int sorter_init(Sorter *s, Ctl *ctl, const EqSchema *schema, const char *by, const char *const *aliases) {
        bool descending = by[0] == '-';
        const char *name = by + descending;

        for (; aliases[0]; aliases += 2)
                if (strcmp(name, aliases[0]) == 0)
                        name = aliases[1];
        *s = (Sorter) {
                .ctl = ctl, .schema = schema, .field = field_find(schema, eq_str(name)), .descending = descending
        };
        if (s->field >= 0) {
                s->numbers = is_number(&schema->fields[s->field]);
                return 0;
        }
        ctl_error(ctl, "--sort: no field `%s`; one that --json shows, or age, with - before it in descending order",
                  name);
        return EXIT_USAGE;
}

static uint64_t number_of(const Sorter *s, const void *rec) {
        const EqField *f = &s->schema->fields[s->field];
        const void *v = field_at(f, rec);
        if (!s->numbers || !field_present(rec, s->field))
                return 0;
        return f->type == EQ_BOOL ? *(const bool *)v
                                  : *(const uint64_t *)v + 1; /* 0 is none; no number is as large as it goes */
}

static bool make_room(Sorter *s) {
        if (s->n < s->n_room)
                return true;
        size_t n = s->n_room ? 2 * s->n_room : 256;
        SortedRecord *more = realloc(s->records, n * sizeof(*more));
        if (!more)
                return false;
        s->records = more;
        s->n_room = n;
        return true;
}

void sorter_add(Sorter *s, const void *rec) {
        msgpack_packer pk = eq_packer(&s->bytes);
        size_t at = s->bytes.len, text_at = s->texts.len;

        if (s->failed || !make_room(s)) {
                s->failed = true;
                return;
        }
        eq_pack_record(&pk, s->schema, rec);
        if (!s->numbers) {
                field_text(s->ctl, s->schema, rec, s->field, true, &s->texts);
                text_bytes(&s->texts, eq_bytes("", 1));
        }
        s->failed = s->bytes.failed || s->texts.failed;
        s->records[s->n] = (SortedRecord) {
                .at = at, .len = s->bytes.len - at, .text_at = text_at, .number = number_of(s, rec), .ordinal = s->n
        };
        s->n++;
}

static int compare(const void *a, const void *b) {
        const SortedRecord *x = a, *y = b;
        int order = x->number != y->number ? (x->number > y->number ? 1 : -1) : strcmp(x->text, y->text);
        return order ? order : x->ordinal > y->ordinal ? 1 : -1;
}

int sorter_each(Sorter *s, void *rec, size_t rec_size, void (*fn)(void *userdata, const void *rec), void *userdata) {
        EqDecodeError error;

        if (s->failed)
                return ctl_no_memory(s->ctl);
        for (size_t i = 0; i < s->n; i++)
                s->records[i].text = s->numbers ? "" : s->texts.data + s->records[i].text_at;
        if (s->n > 0)
                qsort(s->records, s->n, sizeof(*s->records), compare);
        for (size_t i = 0; i < s->n; i++) {
                const SortedRecord *r = &s->records[s->descending ? s->n - 1 - i : i];
                memset(rec, 0, rec_size);
                if (eq_decode_map(s->schema, eq_bytes(s->bytes.data + r->at, r->len), rec, &error) < 0)
                        return ctl_fail(s->ctl, -EBADMSG);
                fn(userdata, rec);
        }
        return 0;
}

void sorter_deinit(Sorter *s) {
        eq_buffer_done(&s->bytes);
        eq_buffer_done(&s->texts);
        free(s->records);
}
