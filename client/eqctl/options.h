/* SPDX-License-Identifier: MIT */
#pragma once

/* verbs.def as C: tables of verbs and flags, and the parser that they drive. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum VerbId {
#define EQCTL_VERB(id, ...) VERB_##id,
#include "verbs.def"
        _VERB_MAX,
        _VERB_INVALID = -1,
} VerbId;

typedef enum FlagId {
#define EQCTL_FLAG(id, ...) FLAG_##id,
#include "verbs.def"
        _FLAG_MAX,
} FlagId;

typedef struct Ctl Ctl;

typedef struct Verb {
        const char *name, *alias; /* a name of two words has one space */
        const char *arguments, *summary;
        int min, max; /* operands; max -1: no bound */
        bool stop;    /* options end at the first operand */
        int (*run)(Ctl *ctl);
} Verb;

typedef struct Flag {
        char letter; /* 0: none */
        const char *name;
        const char *argument; /* NULL: takes none */
        const char *doc;
        uint64_t verbs; /* bit per VerbId */
} Flag;

/* The functions of the verbs. They return the exit status. */
#define EQCTL_VERB(id, ...) int verb_##id(Ctl *ctl);
#include "verbs.def"

extern const Verb verbs[_VERB_MAX];
extern const Flag flags[_FLAG_MAX];

typedef struct Option {
        FlagId flag;
        const char *value; /* NULL where the flag takes none */
} Option;

typedef struct Options {
        VerbId verb;
        Option *list; /* in order; owned */
        size_t n;
        const char **operands; /* borrowed from argv; owned array, NULL-terminated */
        size_t n_operands;
        char error[200];
} Options;

/* Without a verb it is ls. 0; -EINVAL with an explanation in ret->error; -ENOMEM. Strings are borrowed from argv. */
int options_parse(int argc, char **argv, Options *ret);
void options_deinit(Options *o);

bool options_has(const Options *o, FlagId flag);
const char *options_get(const Options *o, FlagId flag); /* the last one, or NULL */

/* One that may stand before the verb. */
static inline bool flag_is_global(int flag) {
        return flag <= FLAG_help;
}
static inline bool flag_on(const Flag *f, VerbId verb) {
        return (f->verbs >> verb & 1) != 0;
}
VerbId verb_find(const char *name); /* "queue show", an alias; or _VERB_INVALID */
/* The first word of verbs of two, as `queue`, and the second word of such a verb, NULL for others. */
bool verb_is_noun(const char *word);
const char *verb_second_word(VerbId verb);
/* Is this verb the first of those with its noun? */
bool verb_begins_noun(VerbId verb);
/* The name that was probably meant, or NULL. */
const char *verb_suggest(const char *name);
