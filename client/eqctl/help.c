/* SPDX-License-Identifier: MIT */
/* The same rows in three dresses: --help, the tables of eqctl(1), and (in completion.c) what shells complete. */

#include "eqctl/help.h"

#include <string.h>

static void print_flag(const Flag *f) {
        char left[80];

        (void)snprintf(left, sizeof(left), "%c%c%s --%s%s%s", f->letter ? '-' : ' ', f->letter ? f->letter : ' ',
                       f->letter ? "," : " ", f->name, f->argument ? " " : "", f->argument ? f->argument : "");
        if (strlen(left) > 30)
                printf("  %s\n  %-30s  %s\n", left, "", f->doc);
        else
                printf("  %-30s  %s\n", left, f->doc);
}

static void print_flags(VerbId verb, bool global) {
        for (int i = 0; i < _FLAG_MAX; i++)
                if (flag_is_global(i) == global && (flag_on(&flags[i], verb) || verb == VERB_help))
                        print_flag(&flags[i]);
}

static bool has_own_flags(VerbId verb) {
        for (int i = 0; i < _FLAG_MAX; i++)
                if (!flag_is_global(i) && flag_on(&flags[i], verb))
                        return true;
        return false;
}

static void print_overview(void) {
        printf("Usage: eqctl [OPTION...] [VERB] [ARG...]\n\nTalk to eqd, the execution-queue daemon. "
               "Without a verb: ls.\n\nVerbs:\n");
        for (int i = 0; i < _VERB_MAX; i++)
                printf("  %-14s  %s\n", verbs[i].name, verbs[i].summary);
        printf("\nOptions of every verb:\n");
        print_flags(VERB_help, true);
        printf("\n`eqctl help VERB` explains one verb; eqctl(1) explains everything.\n");
}

int help_print(const Ctl *ctl, VerbId verb) {
        const Verb *v = &verbs[verb];

        if (verb == VERB_help) {
                print_overview();
                return 0;
        }
        printf("Usage: eqctl %s %s%s\n", v->name, v->stop || !has_own_flags(verb) ? "" : "[OPTION...] ", v->arguments);
        if (v->alias)
                printf("       eqctl %s ...\n", v->alias);
        printf("\n%s.\n", v->summary);
        if (has_own_flags(verb)) {
                printf("\nOptions:\n");
                print_flags(verb, false);
        }
        printf("\nOptions of every verb:\n");
        print_flags(verb, true);
        return 0;
}

int verb_help(Ctl *ctl) {
        const Options *o = &ctl->options;
        char name[64];

        if (o->n_operands == 0)
                return help_print(ctl, VERB_help);
        (void)snprintf(name, sizeof(name), "%s%s%s", o->operands[0], o->n_operands > 1 ? " " : "",
                       o->n_operands > 1 ? o->operands[1] : ""); /* a cut name is unknown */
        VerbId verb = verb_find(name);
        if (verb != _VERB_INVALID)
                return help_print(ctl, verb);
        if (verb_is_noun(name)) {
                for (int i = 0; i < _VERB_MAX; i++)
                        if (verb_second_word(i) && strncmp(verbs[i].name, name, strlen(name)) == 0)
                                printf("  eqctl %s %s\n          %s\n", verbs[i].name, verbs[i].arguments,
                                       verbs[i].summary);
                return 0;
        }
        const char *guess = verb_suggest(name);
        ctl_error(ctl, "unknown verb `%s`%s%s%s", name, guess ? "; did you mean `" : "", guess ? guess : "",
                  guess ? "`?" : "");
        return EXIT_USAGE;
}

/* ---- man page ---- */

static void man_text(const char *s) {
        for (; *s; s++)
                if (*s == '-')
                        printf("\\-");
                else if (*s == '\\')
                        printf("\\e");
                else if (*s == '`')
                        printf("\\(ga");
                else
                        putchar(*s);
}

static void man_flag(const Flag *f) {
        printf(".TP\n.B ");
        if (f->letter)
                printf("\\-%c\\fR, \\fB", f->letter);
        printf("\\-\\-");
        man_text(f->name);
        if (f->argument) {
                printf("\\fR \\fI");
                man_text(f->argument);
        }
        printf("\\fR\n");
        man_text(f->doc);
        printf("%s\n", f->doc[strlen(f->doc) - 1] == '.' ? "" : ".");
}

static void man_verb(VerbId verb) {
        printf(".SS \"eqctl %s\"\n.B eqctl %s\\fR ", verbs[verb].name, verbs[verb].name);
        man_text(verbs[verb].arguments);
        printf("\n.PP\n");
        man_text(verbs[verb].summary);
        printf(".\n");
        if (verbs[verb].alias)
                printf("The alias is\n.BR %s .\n", verbs[verb].alias);
        for (int i = 0; i < _FLAG_MAX; i++)
                if (!flag_is_global(i) && flag_on(&flags[i], verb) &&
                    !(verb == VERB_run && flag_on(&flags[i], VERB_submit)))
                        man_flag(&flags[i]);
        if (verb == VERB_run)
                printf(".PP\nAnd the options of\n.BR submit .\n");
}

static void man_tables(void) {
        printf(".SH VERBS\n");
        for (int i = 0; i < _VERB_MAX; i++)
                man_verb((VerbId)i);
        printf(".SH \"OPTIONS OF EVERY VERB\"\n");
        for (int i = 0; i < _FLAG_MAX; i++)
                if (flag_is_global(i))
                        man_flag(&flags[i]);
}

int help_print_tables(int argc, char **argv) {
        if (argc != 2 || strcmp(argv[1], "--print-man-tables") != 0)
                return -1;
        man_tables();
        return 0;
}
