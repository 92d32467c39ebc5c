/* SPDX-License-Identifier: MIT */
/* Completion for bash, zsh and fish, made from verbs.def: a flag's argument says what completes it (QUEUE, STATE, or the words
 * themselves: skip|replace|error), and so does the argument list of a verb. Queues, ids, pools, workers and parameters are asked
 * from eqd at the moment of completion; where it does not answer nothing is offered. */

#include <string.h>

#include "eqctl/help.h"

typedef enum Kind {
        KIND_NONE,
        KIND_QUEUE,
        KIND_ID,
        KIND_STATE,
        KIND_SIGNAL,
        KIND_USER,
        KIND_FILE,
        KIND_COMMAND,
        KIND_POOL,
        KIND_WORKER,
        KIND_PARAM,   /* its name */
        KIND_SETTING, /* the name and =, after which its value comes */
        _KIND_MAX,
        KIND_WORDS = _KIND_MAX, /* one of those that the argument is; each such argument is a case of its own */
} Kind;

/* Longer words first where one starts with another. */
static const struct {
        const char *argument;
        Kind kind;
} kinds[] = {
        { "QUEUE", KIND_QUEUE },   { "ID", KIND_ID },         { "[ID", KIND_ID },
        { "HOW:ID", KIND_ID },     { "STATE", KIND_STATE },   { "SIGNAL", KIND_SIGNAL },
        { "USER", KIND_USER },     { "FILE", KIND_FILE },     { "PATH", KIND_FILE },
        { "DIR", KIND_FILE },      { "POOL", KIND_POOL },     { "[OPTION", KIND_COMMAND },
        { "WORKER", KIND_WORKER }, { "NAME...", KIND_PARAM }, { "NAME=VALUE", KIND_SETTING },
};

/* skip|replace|error is; TEXT|@FILE|- is not. */
static bool is_words(const char *argument) {
        return strchr(argument, '|') && argument[strspn(argument, "abcdefghijklmnopqrstuvwxyz0123456789-|")] == 0;
}

static Kind kind_of(const char *argument) {
        if (argument && is_words(argument))
                return KIND_WORDS;
        for (size_t i = 0; argument && i < sizeof(kinds) / sizeof(kinds[0]); i++)
                if (strncmp(argument, kinds[i].argument, strlen(kinds[i].argument)) == 0)
                        return kinds[i].kind;
        return KIND_NONE;
}

/* The first word of a verb of two. */
static int noun_length(int verb) {
        return (int)strcspn(verbs[verb].name, " ");
}

static bool is_of_noun(int verb, int noun_verb) {
        return verb_second_word(verb) && noun_length(verb) == noun_length(noun_verb) &&
               strncmp(verbs[verb].name, verbs[noun_verb].name, (size_t)noun_length(verb)) == 0;
}

static void print_states(void) {
        for (int s = 0; s < _EQ_STATE_MAX; s++)
                printf("%s%s", s ? " " : "", eq_state_name((eq_state)s));
}

static void print_signals(void) {
        for (int sig = 1, n = 0; sig <= 31; sig++)
                if (signal_name(sig))
                        printf("%s%s", n++ ? " " : "", signal_name(sig));
}

static void print_verbs(void) {
        for (int v = 0, n = 0; v < _VERB_MAX; v++) {
                if (verb_begins_noun(v) || !verb_second_word(v))
                        printf("%s%.*s", n++ ? " " : "", noun_length(v), verbs[v].name);
                if (verbs[v].alias)
                        printf(" %s", verbs[v].alias);
        }
}

/* What may follow the noun that noun_verb begins. */
static void print_second_words(int noun_verb) {
        for (int v = 0, n = 0; v < _VERB_MAX; v++)
                if (is_of_noun(v, noun_verb))
                        printf("%s%s", n++ ? " " : "", verb_second_word(v));
}

/* All nouns, with something between them. */
static void print_nouns(const char *separator) {
        for (int v = 0, n = 0; v < _VERB_MAX; v++)
                if (verb_begins_noun(v))
                        printf("%s%.*s", n++ ? separator : "", noun_length(v), verbs[v].name);
}

static void print_flags_of(int verb) {
        for (int f = 0, n = 0; f < _FLAG_MAX; f++)
                if (flag_on(&flags[f], (VerbId)verb))
                        printf("%s--%s", n++ ? " " : "", flags[f].name);
}

/* ---- bash and zsh: case statements ---- */

/* What stands between bars, with spaces between. */
static void print_words(const char *argument) {
        for (; *argument; argument++)
                putchar(*argument == '|' ? ' ' : *argument);
}

static void print_pattern(int verb, const Flag *f, const char *before) {
        if (f->letter)
                printf("%s'%s:-%c'|", before, verbs[verb].name, f->letter);
        printf("%s'%s:--%s'", f->letter ? "" : before, verbs[verb].name, f->name);
}

/* "submit:-q|submit:--queue|...": all flags of a kind. */
static void print_patterns(Kind kind, const char *separator) {
        int n = 0;

        for (int v = 0; v < _VERB_MAX; v++)
                for (int f = 0; f < _FLAG_MAX; f++) {
                        if (!flag_on(&flags[f], (VerbId)v) || !flags[f].argument || kind_of(flags[f].argument) != kind)
                                continue;
                        print_pattern(v, &flags[f], n++ ? separator : "");
                }
        if (n == 0)
                printf("'-'");
}

static void print_operand_patterns(Kind kind) {
        int n = 0;

        for (int v = 0; v < _VERB_MAX; v++)
                if (kind_of(verbs[v].arguments) == kind)
                        printf("%s'%s'", n++ ? "|" : "", verbs[v].name);
        if (n == 0)
                printf("'-'");
}

/* What offers candidates of each kind: `offer` is a function of the script. */
static const char *const offers[_KIND_MAX] = {
        [KIND_NONE] = ":",
        [KIND_QUEUE] = "_eqctl_queues",
        [KIND_ID] = "_eqctl_ids",
        [KIND_STATE] = "_eqctl_states",
        [KIND_SIGNAL] = "_eqctl_signals",
        [KIND_USER] = "_eqctl_users",
        [KIND_FILE] = "_eqctl_files",
        [KIND_COMMAND] = "_eqctl_commands",
        [KIND_POOL] = "_eqctl_pools",
        [KIND_WORKER] = "_eqctl_workers",
        [KIND_PARAM] = "_eqctl_params",
        [KIND_SETTING] = "_eqctl_settings",
};

static void print_words_cases(void) {
        for (int v = 0; v < _VERB_MAX; v++)
                for (int f = 0; f < _FLAG_MAX; f++) {
                        if (!flag_on(&flags[f], (VerbId)v) || kind_of(flags[f].argument) != KIND_WORDS)
                                continue;
                        print_pattern(v, &flags[f], "        ");
                        printf(") _eqctl_words '");
                        print_words(flags[f].argument);
                        printf("'; return ;;\n");
                }
}

static void print_words_operands(void) {
        for (int v = 0; v < _VERB_MAX; v++) {
                if (kind_of(verbs[v].arguments) != KIND_WORDS)
                        continue;
                printf("        '%s') _eqctl_words '", verbs[v].name);
                print_words(verbs[v].arguments);
                printf("' ;;\n");
        }
}

static void print_cases(void) {
        printf("        case \"$verb:$prev\" in\n");
        for (int k = KIND_NONE; k < _KIND_MAX; k++) {
                printf("        ");
                print_patterns((Kind)k, "|");
                printf(") %s; return ;;\n", offers[k]);
        }
        print_words_cases();
        printf("        esac\n        if [[ $cur == -* ]]; then\n                case \"$verb\" in\n");
        for (int v = 0; v < _VERB_MAX; v++) {
                printf("                '%s') _eqctl_words '", verbs[v].name);
                print_flags_of(v);
                printf("' ;;\n");
        }
        printf("                esac\n                return\n        fi\n        case \"$verb\" in\n");
        for (int k = KIND_NONE + 1; k < _KIND_MAX; k++) {
                printf("        ");
                print_operand_patterns((Kind)k);
                printf(") %s ;;\n", offers[k]);
        }
        print_words_operands();
        printf("        help) _eqctl_words '");
        print_verbs();
        printf("' ;;\n        esac\n");
}

static void print_word_functions(void) {
        printf("_eqctl_states() { _eqctl_words '");
        print_states();
        printf("'; }\n_eqctl_signals() { _eqctl_words '");
        print_signals();
        printf("'; }\n_eqctl_queues() { _eqctl_names queue; }\n"
               "_eqctl_pools() { _eqctl_names pool; }\n"
               "_eqctl_workers() { _eqctl_names worker; }\n"
               "_eqctl_params() { _eqctl_names param; }\n");
}

/* Options that may stand before the verb, and take the next word. */
static void print_skipped(const char *separator) {
        for (int f = 0, n = 0; f < _FLAG_MAX; f++) {
                if (!flag_is_global(f) || !flags[f].argument)
                        continue;
                if (flags[f].letter)
                        printf("%s-%c", n++ ? separator : "", flags[f].letter);
                printf("%s--%s", n++ ? separator : "", flags[f].name);
        }
}

/* Finds the verb among the words before the cursor: $1 is their number, the rest the words. Sets `verb`. */
static void print_find_verb(void) {
        printf("_eqctl_find_verb() {\n"
               "        local word skip=\n"
               "        verb=\n"
               "        for word in \"$@\"; do\n"
               "                if [[ -n $skip ]]; then skip=; continue; fi\n"
               "                case \"$word\" in\n"
               "                ");
        print_skipped("|");
        printf(") [[ -z $verb ]] && skip=1 ;;\n"
               "                -*) ;;\n"
               "                *) if [[ -z $verb ]]; then\n"
               "                        verb=$word\n"
               "                        case \"$verb\" in ");
        print_nouns("|");
        printf(") ;; *) break ;; esac\n"
               "                   else verb=\"$verb $word\"; break; fi ;;\n"
               "                esac\n"
               "        done\n"
               "        case \"$verb\" in\n");
        for (int v = 0; v < _VERB_MAX; v++)
                if (verbs[v].alias)
                        printf("        '%s') verb='%s' ;;\n", verbs[v].alias, verbs[v].name);
        printf("        esac\n}\n");
}

static void print_body(void) {
        printf("        if [[ -z $verb ]]; then\n"
               "                if [[ $cur == -* ]]; then _eqctl_words '");
        print_flags_of(VERB_ls);
        printf("'; else _eqctl_words '");
        print_verbs();
        printf("'; fi\n                return\n        fi\n        case \"$verb\" in\n");
        for (int v = 0; v < _VERB_MAX; v++) {
                if (!verb_begins_noun(v))
                        continue;
                printf("        '%.*s') _eqctl_words '", noun_length(v), verbs[v].name);
                print_second_words(v);
                printf("'; return ;;\n");
        }
        printf("        esac\n");
        print_cases();
}

static void print_bash(void) {
        printf("# bash completion for eqctl\n"
               "_eqctl_words() { COMPREPLY=($(compgen -W \"$1\" -- \"$cur\")); }\n"
               "_eqctl_names() { _eqctl_words \"$(eqctl \"$1\" ls -o id 2>/dev/null)\"; }\n"
               "_eqctl_settings() {\n"
               "        [[ $cur == = || $prev == = ]] && return\n"
               "        compopt -o nospace 2>/dev/null\n"
               "        _eqctl_words \"$(eqctl param ls -o id 2>/dev/null | sed 's/$/=/')\"\n"
               "}\n"
               "_eqctl_ids() { _eqctl_words \"$(eqctl ls -o id 2>/dev/null)\"; }\n"
               "_eqctl_users() { COMPREPLY=($(compgen -u -- \"$cur\")); }\n"
               "_eqctl_files() { compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); }\n"
               "_eqctl_commands() { compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -c -f -- \"$cur\")); }\n");
        print_word_functions();
        print_find_verb();
        printf("_eqctl() {\n"
               "        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} verb\n"
               "        COMPREPLY=()\n"
               "        _eqctl_find_verb \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"\n");
        print_body();
        printf("}\ncomplete -F _eqctl eqctl\n");
}

static void print_zsh(void) {
        printf("#compdef eqctl\n"
               "_eqctl_words() { compadd -- ${=1}; }\n"
               "_eqctl_names() { compadd -- ${(f)\"$(eqctl $1 ls -o id 2>/dev/null)\"}; }\n"
               "_eqctl_settings() { compadd -S = -- ${(f)\"$(eqctl param ls -o id 2>/dev/null)\"}; }\n"
               "_eqctl_ids() {\n"
               "        local -a ids shown\n"
               "        local id label\n"
               "        while IFS=$'\\t' read -r id label; do\n"
               "                ids+=(\"$id\"); shown+=(\"$id${label:+  -- $label}\")\n"
               "        done < <(eqctl ls -o tsv --no-headers --columns id,label 2>/dev/null)\n"
               "        compadd -l -d shown -a ids\n"
               "}\n"
               "_eqctl_users() { _users; }\n"
               "_eqctl_files() { _files; }\n"
               "_eqctl_commands() { _command_names -e || _files; }\n");
        print_word_functions();
        print_find_verb();
        printf("_eqctl() {\n"
               "        local cur=${words[CURRENT]} prev=${words[CURRENT-1]} verb\n"
               "        _eqctl_find_verb \"${(@)words[2,CURRENT-1]}\"\n");
        print_body();
        printf("}\n_eqctl \"$@\"\n");
}

/* ---- fish: one line per flag ---- */

static const char *const fish_offers[_KIND_MAX] = {
        [KIND_NONE] = "-x",
        [KIND_QUEUE] = "-x -a '(__eqctl_names queue)'",
        [KIND_ID] = "-x -a '(__eqctl_ids)'",
        [KIND_STATE] = "-x -a '(__eqctl_states)'",
        [KIND_SIGNAL] = "-x -a '(__eqctl_signals)'",
        [KIND_USER] = "-x -a '(__fish_complete_users)'",
        [KIND_FILE] = "-r",
        [KIND_COMMAND] = "-x -a '(__fish_complete_command)'",
        [KIND_POOL] = "-x -a '(__eqctl_names pool)'",
        [KIND_WORKER] = "-x -a '(__eqctl_names worker)'",
        [KIND_PARAM] = "-x -a '(__eqctl_names param)'",
        [KIND_SETTING] = "-x -a '(__eqctl_names param)='",
};

static void fish_text(const char *s) {
        putchar('\'');
        for (; *s; s++) {
                if (*s == '\'' || *s == '\\')
                        putchar('\\');
                putchar(*s);
        }
        putchar('\'');
}

static void fish_offer(const char *argument) {
        Kind kind = kind_of(argument);

        if (kind != KIND_WORDS) {
                printf(" %s", fish_offers[kind]);
                return;
        }
        printf(" -x -a '");
        print_words(argument);
        putchar('\'');
}

static void fish_verb(int v) {
        const char *name = verbs[v].name;

        const char *second = verb_second_word(v);

        printf("complete -c eqctl -f -n '__eqctl_verb \"%.*s\"' -a '%s' -d ", second ? noun_length(v) : 0, name,
               second ? second : name);
        fish_text(verbs[v].summary);
        printf("\n");
        if (kind_of(verbs[v].arguments) != KIND_NONE) {
                printf("complete -c eqctl -n '__eqctl_verb \"%s\"'", name);
                fish_offer(verbs[v].arguments);
                putchar('\n');
        }
        for (int f = 0; f < _FLAG_MAX; f++) {
                if (!flag_on(&flags[f], (VerbId)v))
                        continue;
                printf("complete -c eqctl -n '__eqctl_verb \"%s\"' -l %s", name, flags[f].name);
                if (flags[f].letter)
                        printf(" -s %c", flags[f].letter);
                if (flags[f].argument)
                        fish_offer(flags[f].argument);
                printf(" -d ");
                fish_text(flags[f].doc);
                printf("\n");
        }
}

static void print_fish(void) {
        printf("# fish completion for eqctl\n"
               "function __eqctl_verb\n"
               "    set -l verb\n"
               "    set -l skip\n"
               "    for word in (commandline -opc)[2..-1]\n"
               "        if test -n \"$skip\"; set skip; continue; end\n"
               "        switch $word\n"
               "            case ");
        print_skipped(" ");
        printf("\n"
               "                test -z \"$verb\"; and set skip 1\n"
               "            case '-*'\n"
               "            case '*'\n"
               "                if test -z \"$verb\"\n"
               "                    set verb $word\n"
               "                    contains -- $verb ");
        print_nouns(" ");
        printf("; or break\n"
               "                else\n"
               "                    set verb \"$verb $word\"\n"
               "                    break\n"
               "                end\n"
               "        end\n"
               "    end\n"
               "    test \"$verb\" = \"$argv[1]\"\n"
               "end\n"
               "function __eqctl_names\n    eqctl $argv[1] ls -o id 2>/dev/null\nend\n"
               "function __eqctl_ids\n"
               "    eqctl ls -o tsv --no-headers --columns id,label 2>/dev/null\n"
               "end\n"
               "function __eqctl_states\n    string split ' ' '");
        print_states();
        printf("'\nend\nfunction __eqctl_signals\n    string split ' ' '");
        print_signals();
        printf("'\nend\ncomplete -c eqctl -f -n '__eqctl_verb \"\"' -a '");
        print_nouns(" ");
        printf("' -d 'Verbs on these'\n");
        for (int v = 0; v < _VERB_MAX; v++)
                fish_verb(v);
}

int completion_print(const Ctl *ctl, const char *shell) {
        static const struct {
                const char *name;
                void (*print)(void);
        } shells[] = { { "bash", print_bash }, { "zsh", print_zsh }, { "fish", print_fish } };

        for (size_t i = 0; i < sizeof(shells) / sizeof(shells[0]); i++)
                if (strcmp(shells[i].name, shell) == 0) {
                        shells[i].print();
                        return 0;
                }
        ctl_error(ctl, "no completion for `%s`; there is bash, zsh and fish", shell);
        return EXIT_USAGE;
}
