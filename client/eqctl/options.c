/* SPDX-License-Identifier: MIT */
/* The command line: options of the verb and those of all verbs may stand before and after it. An option that is none of
 * all verbs, standing where the verb should be, belongs to `ls`, the default; so does an operand with a slash. */

#include "eqctl/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eqctl/ctl.h"

_Static_assert(_VERB_MAX <= 64, "Flag.verbs has 64 bits");

const Verb verbs[_VERB_MAX] = {
#define EQCTL_VERB(id, name_, alias_, arguments_, min_, max_, stop_, summary_)                                         \
        [VERB_##id] = {                                                                                                \
                .name = name_,                                                                                         \
                .alias = alias_,                                                                                       \
                .arguments = arguments_,                                                                               \
                .summary = summary_,                                                                                   \
                .min = min_,                                                                                           \
                .max = max_,                                                                                           \
                .stop = stop_,                                                                                         \
                .run = verb_##id,                                                                                      \
        },
#include "verbs.def"
};

#define ALL ((UINT64_C(1) << _VERB_MAX) - 1)
#define ON(id) (UINT64_C(1) << VERB_##id)
const Flag flags[_FLAG_MAX] = {
#define EQCTL_FLAG(id, letter_, name_, argument_, verbs_, doc_)                                                        \
        [FLAG_##id] = {                                                                                                \
                .letter = letter_,                                                                                     \
                .name = name_,                                                                                         \
                .argument = argument_,                                                                                 \
                .verbs = verbs_,                                                                                       \
                .doc = doc_,                                                                                           \
        },
#include "verbs.def"
};

/* ---- names ---- */

VerbId verb_find(const char *name) {
        for (int i = 0; i < _VERB_MAX; i++)
                if (strcmp(verbs[i].name, name) == 0 || (verbs[i].alias && strcmp(verbs[i].alias, name) == 0))
                        return i;
        return _VERB_INVALID;
}

static bool has_noun(VerbId verb, const char *word, size_t n) {
        return strncmp(verbs[verb].name, word, n) == 0 && verbs[verb].name[n] == ' ';
}

bool verb_is_noun(const char *word) {
        for (int i = 0; i < _VERB_MAX; i++)
                if (has_noun(i, word, strlen(word)))
                        return true;
        return false;
}

const char *verb_second_word(VerbId verb) {
        const char *blank = strchr(verbs[verb].name, ' ');
        return blank ? blank + 1 : NULL;
}

bool verb_begins_noun(VerbId verb) {
        if (!verb_second_word(verb))
                return false;
        for (int i = 0; i < (int)verb; i++)
                if (has_noun(i, verbs[verb].name, strcspn(verbs[verb].name, " ")))
                        return false;
        return true;
}

/* Levenshtein distance of short words; longer ones are as far as can be. */
static unsigned distance(const char *a, const char *b) {
        unsigned row[33];
        size_t n = strlen(b);

        if (strlen(a) > 32 || n > 32)
                return 99;
        for (unsigned j = 0; j <= n; j++)
                row[j] = j;
        for (unsigned i = 1; *a; a++, i++) {
                unsigned diagonal = row[0];
                row[0] = i;
                for (size_t j = 1; j <= n; j++) {
                        unsigned best = diagonal + (*a != b[j - 1]);
                        best = row[j] + 1 < best ? row[j] + 1 : best;
                        best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
                        diagonal = row[j];
                        row[j] = best;
                }
        }
        return row[n];
}

typedef struct Nearest {
        const char *name;
        unsigned distance;
} Nearest;

static void nearest_try(Nearest *n, const char *name, const char *candidate) {
        unsigned d = candidate ? distance(name, candidate) : 99;
        if (d < n->distance)
                *n = (Nearest) { .name = candidate, .distance = d };
}

static const char *nearest_name(const Nearest *n, const char *name) {
        return n->name && n->distance <= (strlen(name) + 1) / 3 ? n->name : NULL;
}

/* What people type who come from at, cron, tsp, pueue, Slurm and lp. */
static const struct {
        const char *theirs, *ours;
} habits[] = {
        { "list", "ls" },
        { "jobs", "ls" },
        { "atq", "ls" },
        { "ps", "ls" },
        { "cat", "logs" },
        { "tail", "logs -f" },
        { "output", "logs" },
        { "follow", "logs -f" },
        { "rm", "cancel" },
        { "del", "cancel" },
        { "delete", "cancel" },
        { "remove", "cancel" },
        { "atrm", "cancel" },
        { "abort", "cancel" },
        { "info", "show" },
        { "inspect", "show" },
        { "top", "monitor" },
        { "watch", "monitor" },
        { "enqueue", "submit" },
        { "push", "submit" },
        { "pause", "queue pause" },
        { "resume", "queue resume" },
        { "queue start", "queue resume" },
        { "start", "queue resume" },
        { "drain", "queue drain" },
        { "flush", "queue flush" },
        { "restart", "retry" },
        { "rerun", "retry" },
        { "unhold", "release" },
        { "pools", "pool ls" },
        { "workers", "worker ls" },
        { "params", "param ls" },
};

const char *verb_suggest(const char *name) {
        Nearest n = { .distance = 99 };

        for (size_t i = 0; i < sizeof(habits) / sizeof(habits[0]); i++)
                if (strcmp(name, habits[i].theirs) == 0)
                        return habits[i].ours;
        for (int i = 0; i < _VERB_MAX; i++) {
                nearest_try(&n, name, verbs[i].name);
                nearest_try(&n, name, verbs[i].alias);
        }
        return nearest_name(&n, name);
}

/* ---- parser ---- */

typedef struct Parser {
        int argc;
        char **argv;
        int i;            /* next word */
        const char *noun; /* it stands alone, and means its `ls` */
        Options *o;
} Parser;

static int refuse(Options *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

static int refuse(Options *o, const char *format, ...) {
        va_list ap;

        va_start(ap, format);
        (void)vsnprintf(o->error, sizeof(o->error), format, ap); /* cut is fine */
        va_end(ap);
        return -EINVAL;
}

/* Before the verb is known it is not known either whether it takes the flag: see settle(). */
static bool in_scope(int flag, VerbId verb) {
        return verb == _VERB_INVALID ? flag_is_global(flag) : flag_on(&flags[flag], verb);
}

static int flag_find_long(VerbId verb, const char *name, size_t n) {
        for (int i = 0; i < _FLAG_MAX; i++)
                if (in_scope(i, verb) && strlen(flags[i].name) == n && memcmp(flags[i].name, name, n) == 0)
                        return i;
        return -1;
}

static int flag_find_letter(VerbId verb, char letter) {
        for (int i = 0; i < _FLAG_MAX; i++)
                if (in_scope(i, verb) && flags[i].letter == letter)
                        return i;
        return -1;
}

static int add_option(Options *o, int flag, const char *value) {
        /* There are never more options than characters on the command line: the list is that long. */
        o->list[o->n++] = (Option) { .flag = (FlagId)flag, .value = value };
        return 0;
}

/* One that other verbs have; some of them are named. */
static int refuse_global(Options *o, const Flag *f) {
        char list[80] = "";
        int n = 0;

        for (int v = 0, named = 0; v < _VERB_MAX && named < 4; v++)
                if (flag_on(f, v))
                        n += snprintf(list + n, sizeof(list) - (size_t)n, "%s%s", named++ ? ", " : "", verbs[v].name);
        return refuse(o, "%s has no option --%s; %s and others have it", verbs[o->verb].name, f->name, list);
}

static int refuse_long(Options *o, const char *word, size_t n) {
        char name[64];
        Nearest near = { .distance = 99 };

        int global = flag_find_long(_VERB_INVALID, word, n);
        if (global >= 0)
                return refuse_global(o, &flags[global]);
        (void)snprintf(name, sizeof(name), "%.*s", (int)(n < 60 ? n : 60), word);
        for (int i = 0; i < _FLAG_MAX; i++)
                if (flag_on(&flags[i], o->verb))
                        nearest_try(&near, name, flags[i].name);
        const char *guess = nearest_name(&near, name);
        if (guess)
                return refuse(o, "%s has no option --%s; did you mean --%s?", verbs[o->verb].name, name, guess);
        if (strstr(verbs[o->verb].arguments, "KEY=VALUE")) {
                for (char *p = name; *p; p++)
                        *p = *p == '-' ? '_' : *p;
                return refuse(o, "%s has no option --%.*s; an attribute goes without --: %s=VALUE", verbs[o->verb].name,
                              (int)(n < 60 ? n : 60), word, name);
        }
        return refuse(o, "%s has no option --%s; see eqctl help %s", verbs[o->verb].name, name, verbs[o->verb].name);
}

static int parse_long(Parser *p, const char *word) {
        size_t n = strcspn(word, "=");
        int f = flag_find_long(p->o->verb, word, n);

        if (f < 0 && p->o->verb == _VERB_INVALID) {
                if (strcmp(word, "version") == 0) { /* as most programs take it: the verb */
                        p->o->verb = VERB_version;
                        return 0;
                }
                p->o->verb = VERB_ls;
                f = flag_find_long(VERB_ls, word, n);
        }
        if (f < 0)
                return refuse_long(p->o, word, n);
        if (!flags[f].argument)
                return word[n] ? refuse(p->o, "--%s takes no argument", flags[f].name) : add_option(p->o, f, NULL);
        if (word[n])
                return add_option(p->o, f, word + n + 1);
        if (p->i >= p->argc)
                return refuse(p->o, "--%s needs an argument: %s", flags[f].name, flags[f].argument);
        return add_option(p->o, f, p->argv[p->i++]);
}

/* Other verbs have it, and this one has what it means there under another letter. */
static int refuse_letter(Options *o, char letter) {
        for (int i = 0; i < _FLAG_MAX; i++) {
                int same =
                        flags[i].letter == letter ? flag_find_long(o->verb, flags[i].name, strlen(flags[i].name)) : -1;
                if (same >= 0)
                        return refuse(o, "%s has no option -%c; did you mean --%s?", verbs[o->verb].name, letter,
                                      flags[same].name);
        }
        return refuse(o, "%s has no option -%c; see eqctl help %s", verbs[o->verb].name, letter, verbs[o->verb].name);
}

static int parse_letters(Parser *p, const char *word) {
        uint64_t ignored;

        if (p->o->verb == VERB_kill && signal_parse(word, &ignored) == 0)
                return add_option(p->o, FLAG_kill_signal, word); /* -9, -KILL, as of kill(1) */
        for (; *word; word++) {
                int f = flag_find_letter(p->o->verb, *word);
                if (f < 0 && p->o->verb == _VERB_INVALID) {
                        p->o->verb = VERB_ls;
                        f = flag_find_letter(VERB_ls, *word);
                }
                if (f < 0)
                        return refuse_letter(p->o, *word);
                if (!flags[f].argument) {
                        add_option(p->o, f, NULL);
                        continue;
                }
                if (word[1])
                        return add_option(p->o, f, word + 1);
                if (p->i >= p->argc)
                        return refuse(p->o, "-%c needs an argument: %s", *word, flags[f].argument);
                return add_option(p->o, f, p->argv[p->i++]);
        }
        return 0;
}

/* The first operand without a verb: a noun takes the next word along. */
static int parse_verb(Parser *p, const char *word) {
        Options *o = p->o;
        char name[64];

        if (strchr(word, '/')) {
                o->verb = VERB_ls;
                o->operands[o->n_operands++] = word;
                return 0;
        }
        (void)snprintf(name, sizeof(name), "%s", word); /* a cut name is unknown anyway */
        if (verb_is_noun(word)) {
                const char *next = p->i < p->argc && p->argv[p->i][0] != '-' ? p->argv[p->i++] : NULL;
                (void)snprintf(name, sizeof(name), "%s %s", word, next ? next : "ls");
                p->noun = next ? NULL : word;
        }
        o->verb = verb_find(name);
        if (o->verb != _VERB_INVALID)
                return 0;
        const char *guess = verb_suggest(name);
        if (guess)
                return refuse(o, "unknown verb `%s`; did you mean `%s`?", name, guess);
        return refuse(o, "unknown verb `%s`; eqctl help lists them", name);
}

/* What stood before the verb is what the verb has under that name. */
static int settle(Options *o) {
        for (size_t i = 0; i < o->n; i++) {
                const Flag *f = &flags[o->list[i].flag];
                int own = flag_find_long(o->verb, f->name, strlen(f->name));
                if (own < 0)
                        return refuse_global(o, f);
                o->list[i].flag = (FlagId)own;
        }
        return 0;
}

static int check_operands(Options *o) {
        const Verb *v = &verbs[o->verb];

        if (options_has(o, FLAG_help))
                return 0;
        if ((int)o->n_operands < v->min)
                return refuse(o, "usage: eqctl %s %s", v->name, v->arguments);
        if (v->max >= 0 && (int)o->n_operands > v->max)
                return refuse(o, "`%s` is one operand too many; usage: eqctl %s %s", o->operands[v->max], v->name,
                              v->arguments);
        return 0;
}

static int parse_word(Parser *p, bool *options_end) {
        const char *word = p->argv[p->i++];
        Options *o = p->o;

        if (!*options_end && word[0] == '-' && word[1]) {
                if (strcmp(word, "--") == 0) {
                        *options_end = true;
                        return 0;
                }
                return word[1] == '-' ? parse_long(p, word + 2) : parse_letters(p, word + 1);
        }
        if (o->verb == _VERB_INVALID)
                return parse_verb(p, word);
        o->operands[o->n_operands++] = word;
        if (verbs[o->verb].stop)
                *options_end = true;
        return 0;
}

int options_parse(int argc, char **argv, Options *ret) {
        Parser p = { .argc = argc, .argv = argv, .i = 1, .o = ret };
        size_t n_chars = 1;
        bool options_end = false;

        *ret = (Options) { .verb = _VERB_INVALID };
        for (int i = 1; i < argc; i++)
                n_chars += strlen(argv[i]);
        ret->list = calloc(n_chars, sizeof(*ret->list));
        ret->operands = calloc((size_t)argc + 1, sizeof(*ret->operands));
        if (!ret->list || !ret->operands)
                return -ENOMEM;
        while (p.i < argc) {
                int r = parse_word(&p, &options_end);
                if (r < 0)
                        return r;
        }
        if (p.noun && options_has(ret, FLAG_help)) { /* as `eqctl help NOUN` */
                ret->verb = VERB_help;
                ret->operands[0] = p.noun;
                ret->n_operands = 1;
        }
        if (ret->verb == _VERB_INVALID)
                ret->verb = options_has(ret, FLAG_help) ? VERB_help : VERB_ls;
        int r = settle(ret);
        return r < 0 ? r : check_operands(ret);
}

void options_deinit(Options *o) {
        free(o->list);
        free(o->operands);
        *o = (Options) { .verb = _VERB_INVALID };
}

bool options_has(const Options *o, FlagId flag) {
        for (size_t i = 0; i < o->n; i++)
                if (o->list[i].flag == flag)
                        return true;
        return false;
}

const char *options_get(const Options *o, FlagId flag) {
        const char *value = NULL;
        for (size_t i = 0; i < o->n; i++)
                if (o->list[i].flag == flag)
                        value = o->list[i].value;
        return value;
}
