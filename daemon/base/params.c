/* SPDX-License-Identifier: MIT */

/* Typed parameters. Each type is a row of `kinds`: how its text is read, printed, copied, given back, and how its range
 * reads. Reading fills a Member on the stack; only a whole, good value replaces the member of the object. */

#include "base/params.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/util.h"
#include "proto/timeunits.h"

typedef union Member {
        uint64_t number;
        bool flag;
        unsigned word;
        ParamRate rate;
        char *text;
        ParamId id;
        ParamAccess access;
} Member;

/* What is being read: text is a copy without blanks around it, ended by a NUL. */
typedef struct Input {
        const Param *row;
        const char *text;
        const ParamLookup *lookup;
        char *error;
        size_t error_size;
} Input;

typedef struct Kind {
        size_t size; /* of the member */
        int (*read)(const Input *in, Member *ret);
        void (*print)(const Param *p, const Member *m, char *ret, size_t size);
        void (*range)(const Param *p, char *ret, size_t size);
        void (*clear)(Member *m);                    /* NULL: owns nothing */
        int (*copy)(Member *to, const Member *from); /* NULL: as bytes */
} Kind;

typedef struct Unit {
        const char *name;
        uint64_t factor;
} Unit;

/* Longest first: the first that divides is the one to print with. */
static const Unit sizes[] = {
        { "T", UINT64_C(1) << 40 },
        { "G", UINT64_C(1) << 30 },
        { "M", UINT64_C(1) << 20 },
        { "K", UINT64_C(1) << 10 },
};

static const Unit durations[] = {
#define UNIT(name_, usec) { .name = name_, .factor = UINT64_C(usec) },
        EQ_TIME_UNITS(UNIT)
#undef UNIT
};

static const char *const flags[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

/* ---- errors ---- */

const char *param_quote(const char *text, size_t len, char ret[64]) {
        size_t n = 0;

        ret[n++] = '"';
        for (size_t i = 0; i < len; i++) {
                if (n > 55) { /* the longest escape, "...\"" and the NUL still fit */
                        n += (size_t)snprintf(ret + n, 64 - n, "...");
                        break;
                }
                unsigned char c = (unsigned char)text[i];
                if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
                        ret[n++] = (char)c;
                else
                        n += (size_t)snprintf(ret + n, 64 - n, "\\x%02x", c);
        }
        ret[n++] = '"';
        ret[n] = '\0';
        return ret;
}

/* `NAME: "TEXT" WHAT; RANGE`. */
static int refuse(const Input *in, const char *what) {
        char quoted[64], range[256];

        param_print_range(in->row, range, sizeof(range));
        snprintf(in->error, in->error_size, "%s: %s %s; %s", in->row->name,
                 param_quote(in->text, strlen(in->text), quoted), what, range);
        return -EINVAL;
}

static int fail(const Input *in, int r) {
        snprintf(in->error, in->error_size, "%s: %s", in->row->name, strerror(-r));
        return r;
}

/* ---- numbers ---- */

/* Decimal digits at *p, at least one: 0, -EINVAL or -ERANGE. Moves *p behind them. */
static int read_digits(const char **p, uint64_t *ret) {
        uint64_t u = 0;
        bool over = false;

        if (!isdigit((unsigned char)**p))
                return -EINVAL;
        for (; isdigit((unsigned char)**p); (*p)++)
                over |= __builtin_mul_overflow(u, 10, &u) || __builtin_add_overflow(u, (uint64_t)(**p - '0'), &u);
        *ret = u;
        return over ? -ERANGE : 0;
}

/* Ends the reading of a number. r: what reading its digits gave; rest: what follows them. */
static int accept_number(const Input *in, int r, const char *rest, uint64_t u, const char *what, Member *ret) {
        if (r == -EINVAL || *rest != '\0')
                return refuse(in, what);
        if (r < 0 || u < in->row->min || u > in->row->max)
                return refuse(in, "is out of range");
        ret->number = u;
        return 0;
}

static int uint_read(const Input *in, Member *ret) {
        const char *p = in->text;
        uint64_t u = 0;

        if (in->row->max == PARAM_INFINITY && (strcmp(p, "infinity") == 0 || strcmp(p, "-1") == 0))
                return accept_number(in, 0, "", PARAM_INFINITY, "", ret);
        int r = read_digits(&p, &u);
        if (u == PARAM_INFINITY)
                r = -ERANGE;
        return accept_number(in, r, p, u, "is no number", ret);
}

static void uint_print(const Param *p, const Member *m, char *ret, size_t size) {
        if (p->max == PARAM_INFINITY && m->number == PARAM_INFINITY)
                snprintf(ret, size, "infinity");
        else
                snprintf(ret, size, "%llu", (unsigned long long)m->number);
}

static void uint_range(const Param *p, char *ret, size_t size) {
        const char *unit = *p->unit ? " " : "";
        if (p->max == PARAM_INFINITY)
                snprintf(ret, size, "%llu or more%s%s, or infinity", (unsigned long long)p->min, unit, p->unit);
        else
                snprintf(ret, size, "%llu..%llu%s%s", (unsigned long long)p->min, (unsigned long long)p->max, unit,
                         p->unit);
}

static int size_read(const Input *in, Member *ret) {
        const char *p = in->text;
        uint64_t u = 0;
        int r = read_digits(&p, &u);

        for (size_t i = 0; r != -EINVAL && i < ELEMENTSOF(sizes); i++)
                if (toupper((unsigned char)*p) == *sizes[i].name) {
                        if (__builtin_mul_overflow(u, sizes[i].factor, &u))
                                r = -ERANGE;
                        p++;
                        break;
                }
        return accept_number(in, r, p, u, "is no size", ret);
}

static void size_print_number(uint64_t u, char *ret, size_t size) {
        for (size_t i = 0; i < ELEMENTSOF(sizes); i++)
                if (u > 0 && u % sizes[i].factor == 0) {
                        snprintf(ret, size, "%llu%s", (unsigned long long)(u / sizes[i].factor), sizes[i].name);
                        return;
                }
        snprintf(ret, size, "%llu", (unsigned long long)u);
}

static void size_print(const Param *p, const Member *m, char *ret, size_t size) {
        size_print_number(m->number, ret, size);
}

static void size_range(const Param *p, char *ret, size_t size) {
        char min[32], max[32];
        size_print_number(p->min, min, sizeof(min));
        size_print_number(p->max, max, sizeof(max));
        snprintf(ret, size, "%s..%s bytes, such as 4096, 64K, 256M, 1G", min, max);
}

static int octal_read(const Input *in, Member *ret) {
        const char *p = in->text;
        uint64_t u = 0;
        for (; *p >= '0' && *p <= '7' && u <= UINT32_MAX; p++)
                u = u << 3 | (uint64_t)(*p - '0');
        return accept_number(in, p == in->text ? -EINVAL : 0, p, u, "is no file mode", ret);
}

static void octal_print(const Param *p, const Member *m, char *ret, size_t size) {
        snprintf(ret, size, "%04llo", (unsigned long long)m->number);
}

static void octal_range(const Param *p, char *ret, size_t size) {
        snprintf(ret, size, "%04llo..%04llo, octal", (unsigned long long)p->min, (unsigned long long)p->max);
}

/* ---- durations ---- */

static const char *skip_blanks(const char *p) {
        while (*p == ' ' || *p == '\t')
                p++;
        return p;
}

#define UNIT_LETTERS "abcdefghijklmnopqrstuvwxyz"

/* The one of n letters at p; ELEMENTSOF(durations): there is none. */
static size_t unit_at(const char *p, size_t n) {
        size_t i = 0;
        while (i < ELEMENTSOF(durations) && (strlen(durations[i].name) != n || strncmp(durations[i].name, p, n) != 0))
                i++;
        return i;
}

/* One `10s` at *p, added to *total. 0, -EINVAL or -ERANGE. */
static int read_duration_part(const char **p, uint64_t *total) {
        uint64_t u = 0;
        int r = read_digits(p, &u);
        if (r == -EINVAL)
                return r;
        *p = skip_blanks(*p);

        size_t n = strspn(*p, UNIT_LETTERS), i = unit_at(*p, n);
        if (i == ELEMENTSOF(durations))
                return -EINVAL;
        *p = skip_blanks(*p + n);
        if (__builtin_mul_overflow(u, durations[i].factor, &u) || __builtin_add_overflow(*total, u, total))
                r = -ERANGE;
        return r;
}

static int usec_read(const Input *in, Member *ret) {
        const char *p = in->text;
        uint64_t total = 0;
        int r = 0;

        if (strcmp(p, "infinity") == 0)
                return accept_number(in, 0, "", PARAM_INFINITY, "", ret);
        do {
                int k = read_duration_part(&p, &total);
                if (k == -EINVAL)
                        return refuse(in, "is no duration");
                r = r < 0 ? r : k;
        } while (*p != '\0');
        if (total == PARAM_INFINITY) /* a number so large is not what was meant by infinity */
                r = -ERANGE;
        return accept_number(in, r, p, total, "is no duration", ret);
}

static void usec_print_number(uint64_t u, char *ret, size_t size) {
        size_t n = 0;

        if (u == PARAM_INFINITY || u == 0) {
                snprintf(ret, size, "%s", u == 0 ? "0s" : "infinity");
                return;
        }
        for (size_t i = 0; i < EQ_TIME_UNITS_PRINTED && n < size; i++) {
                if (u >= durations[i].factor)
                        n += (size_t)snprintf(ret + n, size - n, "%llu%s",
                                              (unsigned long long)(u / durations[i].factor), durations[i].name);
                u %= durations[i].factor;
        }
}

static void usec_print(const Param *p, const Member *m, char *ret, size_t size) {
        usec_print_number(m->number, ret, size);
}

static void usec_range(const Param *p, char *ret, size_t size) {
        char min[64], max[64];
        usec_print_number(p->min, min, sizeof(min));
        usec_print_number(p->max, max, sizeof(max));
        snprintf(ret, size, "%s..%s, such as 500ms, 10s, 1h30m, 2d", min, max);
}

/* ---- rates ---- */

enum { RATE_DAYS_MAX = 31 };

/* How many, a slash, and a duration, of which a missing number is 1. */
static int rate_read(const Input *in, Member *ret) {
        const char *p = in->text;
        ParamRate rate = { 0 };

        if (strcmp(p, "infinity") == 0) {
                ret->rate = rate;
                return 0;
        }
        int r = read_digits(&p, &rate.n), k;
        p = skip_blanks(p);
        if (r == -EINVAL || *p != '/')
                return refuse(in, "is no rate");
        p = skip_blanks(p + 1);
        size_t i = unit_at(p, strspn(p, UNIT_LETTERS));
        if (isalpha((unsigned char)*p) && i < ELEMENTSOF(durations)) {
                rate.per_usec = durations[i].factor;
                p = skip_blanks(p + strlen(durations[i].name));
        }
        while (*p != '\0') {
                k = read_duration_part(&p, &rate.per_usec);
                if (k == -EINVAL)
                        return refuse(in, "is no rate");
                r = r < 0 ? r : k;
        }
        if (rate.per_usec == 0)
                return refuse(in, "is no rate");
        if (r < 0 || rate.n < in->row->min || rate.n > in->row->max || rate.per_usec < USEC_PER_MSEC ||
            rate.per_usec > RATE_DAYS_MAX * durations[0].factor)
                return refuse(in, "is out of range");
        ret->rate = rate;
        return 0;
}

/* "10/s" rather than "10/1s". */
static void rate_print(const Param *p, const Member *m, char *ret, size_t size) {
        char per[64];
        if (m->rate.n == 0) {
                snprintf(ret, size, "infinity");
                return;
        }
        usec_print_number(m->rate.per_usec, per, sizeof(per));
        bool is_one = *per == '1' && strpbrk(per + 1, "0123456789") == NULL;
        snprintf(ret, size, "%llu/%s", (unsigned long long)m->rate.n, per + is_one);
}

static void rate_range(const Param *p, char *ret, size_t size) {
        snprintf(ret, size, "%llu..%llu in 1ms..%dd, such as 10/s, 100/m, 1/10s, or infinity",
                 (unsigned long long)p->min, (unsigned long long)p->max, RATE_DAYS_MAX);
}

/* ---- words ---- */

static int bool_read(const Input *in, Member *ret) {
        for (size_t i = 0; i < ELEMENTSOF(flags); i++)
                if (strcasecmp(in->text, flags[i]) == 0) {
                        ret->flag = i % 2 == 1;
                        return 0;
                }
        return refuse(in, "is neither");
}

static void bool_print(const Param *p, const Member *m, char *ret, size_t size) {
        snprintf(ret, size, "%s", flags[m->flag]);
}

static void bool_range(const Param *p, char *ret, size_t size) {
        snprintf(ret, size, "yes or no");
}

static int enum_read(const Input *in, Member *ret) {
        const char *p = in->row->unit;
        size_t len = strlen(in->text);

        for (unsigned i = 0; *p; i++) {
                size_t n = strcspn(p, " ");
                if (n == len && strncasecmp(p, in->text, n) == 0) {
                        ret->word = i;
                        return 0;
                }
                p += n + (p[n] == ' ');
        }
        return refuse(in, "is none of the words");
}

static void enum_print(const Param *p, const Member *m, char *ret, size_t size) {
        const char *word = p->unit;
        for (unsigned i = 0; i < m->word; i++) {
                word += strcspn(word, " ");
                word += *word == ' ';
        }
        assert(*word);
        snprintf(ret, size, "%.*s", (int)strcspn(word, " "), word);
}

static void enum_range(const Param *p, char *ret, size_t size) {
        size_t n = 0;
        for (const char *word = p->unit; *word && n < size;) {
                size_t len = strcspn(word, " ");
                const char *next = word + len + (word[len] == ' ');
                const char *glue = word == p->unit ? "" : *next ? ", " : " or ";
                n += (size_t)snprintf(ret + n, size - n, "%s%.*s", glue, (int)len, word);
                word = next;
        }
}

/* ---- texts ---- */

static char *text_new(const char *text) {
        size_t n = strlen(text) + 1;
        char *copy = fault_malloc(n);
        return copy ? memcpy(copy, text, n) : NULL;
}

static int text_read(const Input *in, Member *ret) {
        if (strlen(in->text) > in->row->max)
                return refuse(in, "is too long");
        ret->text = text_new(in->text);
        return ret->text ? 0 : fail(in, -ENOMEM);
}

static void text_print(const Param *p, const Member *m, char *ret, size_t size) {
        snprintf(ret, size, "%s", m->text ? m->text : "");
}

static void text_range(const Param *p, char *ret, size_t size) {
        snprintf(ret, size, "%s%sat most %llu bytes", p->unit, *p->unit ? ", " : "", (unsigned long long)p->max);
}

static void text_clear(Member *m) {
        free(m->text);
        m->text = NULL;
}

static int text_copy(Member *to, const Member *from) {
        to->text = from->text ? text_new(from->text) : NULL;
        return from->text && !to->text ? -ENOMEM : 0;
}

/* ---- users and groups ---- */

/* A name or number to a number. */
static int read_id(const Input *in, bool group, const char *name, uint32_t *ret) {
        const char *p = name, *what = group ? "group" : "user";
        char quoted[64];
        uint64_t u = 0;
        int r = read_digits(&p, &u);

        param_quote(name, strlen(name), quoted);
        if (r != -EINVAL && *p == '\0') {
                if (r < 0 || u >= PARAM_NO_ID) {
                        snprintf(in->error, in->error_size, "%s: %s is out of range; the number of a %s is 0..%u",
                                 in->row->name, quoted, what, PARAM_NO_ID - 1);
                        return -EINVAL;
                }
                *ret = (uint32_t)u;
                return 0;
        }
        if (!in->lookup) {
                snprintf(in->error, in->error_size,
                         "%s: %s is a name, and names are looked up in configuration files only; "
                         "give the number of the %s, which `getent %s NAME` shows",
                         in->row->name, quoted, what, group ? "group" : "passwd");
                return -EINVAL;
        }
        r = group ? in->lookup->group(name, ret) : in->lookup->user(name, ret);
        if (r == 0)
                return 0;
        snprintf(in->error, in->error_size, "%s: %s %s%s; name or number of a %s", in->row->name, quoted,
                 r == -ENOENT ? "is no known " : "cannot be looked up: ", r == -ENOENT ? what : strerror(-r), what);
        return r == -ENOMEM ? r : -EINVAL;
}

static int id_read(const Input *in, Member *ret) {
        uint32_t id;
        int r = read_id(in, in->row->type == PARAM_GROUP, in->text, &id);
        if (r < 0)
                return r;
        ret->id = (ParamId) { .text = text_new(in->text), .id = id };
        return ret->id.text ? 0 : fail(in, -ENOMEM);
}

static void id_print(const Param *p, const Member *m, char *ret, size_t size) {
        snprintf(ret, size, "%s", m->id.text ? m->id.text : "");
}

static void id_range(const Param *p, char *ret, size_t size) {
        snprintf(ret, size, "name or number of a %s", p->type == PARAM_GROUP ? "group" : "user");
}

static void id_clear(Member *m) {
        free(m->id.text);
        m->id = (ParamId) { .id = PARAM_NO_ID };
}

static int id_copy(Member *to, const Member *from) {
        Member text;
        int r = text_copy(&text, &(Member) { .text = from->id.text });
        if (r == 0)
                to->id = (ParamId) { .text = text.text, .id = from->id.id };
        return r;
}

static void access_clear(Member *m) {
        free(m->access.text);
        free(m->access.entries);
        m->access = (ParamAccess) { 0 };
}

/* Room for n entries and a text of size bytes. */
static int access_new(size_t n, size_t size, Member *ret) {
        ret->access =
                (ParamAccess) { .text = fault_calloc(1, size), .entries = fault_calloc(n, sizeof(ParamAccessEntry)) };
        if (ret->access.text && ret->access.entries)
                return 0;
        access_clear(ret);
        return -ENOMEM;
}

static int access_add(const Input *in, const char *word, ParamAccess *a) {
        bool group = *word == '@';

        if (a->n == in->row->max)
                return refuse(in, "has too many entries");
        if (group && word[1] == '\0')
                return refuse(in, "has an @ without a group");
        int r = read_id(in, group, word + group, &a->entries[a->n].id);
        if (r < 0)
                return r;
        if (a->n > 0)
                strcat(a->text, " ");
        strcat(a->text, word);
        a->entries[a->n++].group = group;
        return 0;
}

static int access_read(const Input *in, Member *ret) {
        char words[PARAM_TEXT_MAX + 1], *rest = NULL;
        int r = access_new(in->row->max, strlen(in->text) + 1, ret);
        if (r < 0)
                return fail(in, r);

        snprintf(words, sizeof(words), "%s", in->text);
        for (char *w = strtok_r(words, " ,\t", &rest); w && r == 0; w = strtok_r(NULL, " ,\t", &rest))
                r = access_add(in, w, &ret->access);
        if (r == 0 && ret->access.n == 0)
                r = refuse(in, "names nobody");
        if (r < 0)
                access_clear(ret);
        return r;
}

static void access_print(const Param *p, const Member *m, char *ret, size_t size) {
        snprintf(ret, size, "%s", m->access.text ? m->access.text : "");
}

static void access_range(const Param *p, char *ret, size_t size) {
        snprintf(ret, size, "at most %llu names or numbers of users and @groups", (unsigned long long)p->max);
}

static int access_copy(Member *to, const Member *from) {
        to->access = (ParamAccess) { 0 };
        if (!from->access.text)
                return 0;
        int r = access_new(from->access.n, strlen(from->access.text) + 1, to);
        if (r < 0)
                return r;
        strcpy(to->access.text, from->access.text);
        memcpy(to->access.entries, from->access.entries, from->access.n * sizeof(ParamAccessEntry));
        to->access.n = from->access.n;
        return 0;
}

bool param_access_allows(const ParamAccess *a, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups) {
        for (size_t i = 0; i < a->n; i++) {
                const ParamAccessEntry *e = &a->entries[i];
                if (e->id == (e->group ? gid : uid))
                        return true;
                for (size_t k = 0; e->group && k < n_groups; k++)
                        if (groups[k] == e->id)
                                return true;
        }
        return false;
}

/* ---- all types ---- */

static const Kind kinds[_PARAM_TYPE_MAX] = {
        [PARAM_UINT] = { sizeof(uint64_t), uint_read, uint_print, uint_range, NULL, NULL },
        [PARAM_SIZE] = { sizeof(uint64_t), size_read, size_print, size_range, NULL, NULL },
        [PARAM_USEC] = { sizeof(uint64_t), usec_read, usec_print, usec_range, NULL, NULL },
        [PARAM_BOOL] = { sizeof(bool), bool_read, bool_print, bool_range, NULL, NULL },
        [PARAM_ENUM] = { sizeof(unsigned), enum_read, enum_print, enum_range, NULL, NULL },
        [PARAM_RATE] = { sizeof(ParamRate), rate_read, rate_print, rate_range, NULL, NULL },
        [PARAM_OCTAL] = { sizeof(uint64_t), octal_read, octal_print, octal_range, NULL, NULL },
        [PARAM_TEXT] = { sizeof(char *), text_read, text_print, text_range, text_clear, text_copy },
        [PARAM_USER] = { sizeof(ParamId), id_read, id_print, id_range, id_clear, id_copy },
        [PARAM_GROUP] = { sizeof(ParamId), id_read, id_print, id_range, id_clear, id_copy },
        [PARAM_ACCESS] = { sizeof(ParamAccess), access_read, access_print, access_range, access_clear, access_copy },
};

static Member member_get(const Param *p, const void *object) {
        Member m = { 0 };
        assert(p->size == kinds[p->type].size);
        memcpy(&m, (const char *)object + p->offset, p->size);
        return m;
}

static void member_put(const Param *p, void *object, const Member *m) {
        memcpy((char *)object + p->offset, m, p->size);
}

static void member_clear(const Param *p, void *object) {
        Member m = member_get(p, object);
        if (kinds[p->type].clear)
                kinds[p->type].clear(&m);
        member_put(p, object, &m);
}

/* Trims and copies; an empty text stands for the default. */
static int input_prepare(Input *in, const char *text, size_t len, char copy[PARAM_TEXT_MAX + 1]) {
        while (len > 0 && (*text == ' ' || *text == '\t'))
                text++, len--;
        while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t'))
                len--;
        if (len == 0) {
                text = in->row->fallback;
                len = strlen(text);
        }
        if (len > PARAM_TEXT_MAX) {
                snprintf(in->error, in->error_size, "%s: the value has %zu bytes; at most %d", in->row->name, len,
                         PARAM_TEXT_MAX);
                return -EINVAL;
        }
        memcpy(copy, text, len);
        copy[len] = '\0';
        in->text = copy;
        return 0;
}

int param_set(const Param *p, void *object, const char *text, size_t len, const ParamLookup *lookup, char *error,
              size_t size) {
        Input in = { .row = p, .lookup = lookup, .error = error, .error_size = size };
        char copy[PARAM_TEXT_MAX + 1];
        Member m = { 0 };

        int r = input_prepare(&in, text, len, copy);
        if (r < 0)
                return r;
        if (*in.text == '\0') { /* the default is: not set */
                member_clear(p, object);
                return 0;
        }
        r = kinds[p->type].read(&in, &m);
        if (r < 0)
                return r;
        member_clear(p, object);
        member_put(p, object, &m);
        return 0;
}

int param_copy(const Param *p, void *to, const void *from) {
        Member m = member_get(p, from), copy = m;
        if (kinds[p->type].copy) {
                int r = kinds[p->type].copy(&copy, &m);
                if (r < 0)
                        return r;
        }
        member_clear(p, to);
        member_put(p, to, &copy);
        return 0;
}

void param_print(const Param *p, const void *object, char ret[PARAM_PRINT_MAX]) {
        Member m = member_get(p, object);
        kinds[p->type].print(p, &m, ret, PARAM_PRINT_MAX);
}

void param_print_range(const Param *p, char *ret, size_t size) {
        kinds[p->type].range(p, ret, size);
}

int params_init(const ParamTable *t, void *object) {
        char error[PARAM_ERROR_MAX];

        for (size_t i = 0; i < t->n; i++) {
                memset((char *)object + t->rows[i].offset, 0, t->rows[i].size);
                member_clear(&t->rows[i], object);
        }
        for (size_t i = 0; i < t->n; i++) {
                int r = param_set(&t->rows[i], object, "", 0, NULL, error, sizeof(error));
                assert(r != -EINVAL); /* a default of the table that its own row refuses */
                if (r < 0) {
                        params_deinit(t, object);
                        return r;
                }
        }
        return 0;
}

void params_deinit(const ParamTable *t, void *object) {
        for (size_t i = 0; i < t->n; i++)
                member_clear(&t->rows[i], object);
}
