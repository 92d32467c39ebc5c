/* SPDX-License-Identifier: MIT */

/* Names of parameters: which row is meant by what somebody wrote, and what is near to what is none. Of a table only its names are
 * looked at here, of values the unit that a name may say. */

#include "base/params.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

enum { NAME_MAX_COMPARED = 48 };

/* Lower case without _ and -; what is longer than any name is cut. */
static size_t name_fold(const char *name, size_t len, char ret[NAME_MAX_COMPARED]) {
        size_t n = 0;
        for (size_t i = 0; i < len && n < NAME_MAX_COMPARED; i++)
                if (name[i] != '_' && name[i] != '-')
                        ret[n++] = (char)tolower((unsigned char)name[i]);
        return n;
}

/* Letters to change, add or drop to make one of the other (Levenshtein). */
static size_t name_distance(const char *a, size_t n_a, const char *b, size_t n_b) {
        size_t row[NAME_MAX_COMPARED + 1];

        for (size_t k = 0; k <= n_b; k++)
                row[k] = k;
        for (size_t i = 1; i <= n_a; i++) {
                size_t diagonal = row[0];
                row[0] = i;
                for (size_t k = 1; k <= n_b; k++) {
                        size_t change = diagonal + (a[i - 1] != b[k - 1]);
                        diagonal = row[k];
                        row[k] = MIN(change, MIN(row[k], row[k - 1]) + 1);
                }
        }
        return row[n_b];
}

static size_t row_distance(const Param *p, const char *folded, size_t n) {
        char other[NAME_MAX_COMPARED];
        size_t n_other = name_fold(p->name, strlen(p->name), other);
        return name_distance(folded, n, other, n_other);
}

static const Param *find_folded(const ParamTable *t, const char *folded, size_t n) {
        for (size_t i = 0; n > 0 && i < t->n; i++)
                if (row_distance(&t->rows[i], folded, n) == 0)
                        return &t->rows[i];
        return NULL;
}

const Param *params_find(const ParamTable *t, const char *name, size_t len) {
        char folded[NAME_MAX_COMPARED];
        size_t n = name_fold(name, len, folded);
        const Param *found = find_folded(t, folded, n);

        if (found || n <= 2 || memcmp(folded + n - 2, "ms", 2) != 0)
                return found;
        found = find_folded(t, folded, n - 2);
        return found && found->type == PARAM_USEC ? found : NULL;
}

const char *param_value_as(const Param *p, const char *name, size_t n_name, const char *value, size_t *n_value,
                           char room[PARAM_MSEC_MAX]) {
        char folded[NAME_MAX_COMPARED];
        size_t n = name_fold(name, n_name, folded), i = 0;

        while (i < *n_value && isdigit((unsigned char)value[i]))
                i++;
        if (i == 0 || i < *n_value || i >= PARAM_MSEC_MAX - 2 || row_distance(p, folded, n) == 0)
                return value;
        *n_value = (size_t)snprintf(room, PARAM_MSEC_MAX, "%.*sms", (int)i, value);
        return room;
}

size_t params_index(const ParamTable *t, const Param *p) {
        assert(p >= t->rows && p < t->rows + t->n);
        return (size_t)(p - t->rows);
}

static bool in_section(const Param *p, const char *section) {
        return !section || strcmp(p->section, section) == 0;
}

static const Param *nearest(const ParamTable *t, const char *section, const char *name, size_t len) {
        char folded[NAME_MAX_COMPARED];
        size_t n = name_fold(name, len, folded), best = n / 3 + 2;
        const Param *found = NULL;

        for (size_t i = 0; i < t->n; i++) {
                size_t d = row_distance(&t->rows[i], folded, n);
                if (d < best && in_section(&t->rows[i], section)) {
                        best = d;
                        found = &t->rows[i];
                }
        }
        return found;
}

int params_unknown(const ParamTable *t, const char *section, const char *name, size_t len, char *error, size_t size) {
        const Param *p = nearest(t, section, name, len);
        char quoted[64];
        size_t n;

        param_quote(name, len, quoted);
        if (p) {
                snprintf(error, size, "%s is not known here; did you mean %s?", quoted, p->name);
                return -EINVAL;
        }
        n = (size_t)snprintf(error, size, "%s is not known here; there are", quoted);
        for (size_t i = 0; i < t->n && n < size; i++)
                if (in_section(&t->rows[i], section))
                        n += (size_t)snprintf(error + n, size - n, " %s", t->rows[i].name);
        return -EINVAL;
}
