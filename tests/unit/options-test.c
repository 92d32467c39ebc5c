/* SPDX-License-Identifier: MIT */
#include "eqctl/options.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "eqctl/ctl.h"
#include "test.h"

enum { ARGS_MAX = 16 };

/* The words after "eqctl", up to NULL. */
static int parse(Options *o, ...) __attribute__((sentinel));
static int parse(Options *o, ...) {
        static char *argv[ARGS_MAX];
        int argc = 1;
        va_list ap;

        argv[0] = (char *)"eqctl";
        va_start(ap, o);
        while (argc < ARGS_MAX && (argv[argc] = va_arg(ap, char *)))
                argc++;
        va_end(ap);
        return options_parse(argc, argv, o);
}

TEST(without_a_verb_it_is_ls) {
        Options o;

        ck_assert_int_eq(parse(&o, NULL), 0);
        ck_assert_int_eq(o.verb, VERB_ls);
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "-q", "encode", "--json", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_ls);
        ck_assert_str_eq(options_get(&o, FLAG_filter_queue), "encode");
        ck_assert(options_has(&o, FLAG_json));
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "encode/42", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_ls);
        ck_assert_str_eq(o.operands[0], "encode/42");
        options_deinit(&o);
}

TEST(version_may_be_asked_for_as_an_option) {
        Options o;

        ck_assert_int_eq(parse(&o, "--version", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_version);
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "--json", "--version", "-v", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_version);
        ck_assert(options_has(&o, FLAG_verbose));
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "ls", "--version", NULL), -EINVAL);
        options_deinit(&o);
}

TEST(options_of_every_verb_stand_before_and_after_it) {
        Options o;

        ck_assert_int_eq(parse(&o, "-S", "/a", "ping", "--socket=/b", "-v", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_ping);
        ck_assert_str_eq(options_get(&o, FLAG_socket), "/b");
        ck_assert(options_has(&o, FLAG_verbose));
        options_deinit(&o);
}

/* As `eqctl -o raw logs ID`, where raw is no form of a table. */
TEST(what_stands_before_the_verb_is_what_the_verb_has_by_that_name) {
        Options o;

        ck_assert_int_eq(parse(&o, "-o", "raw", "--no-headers", "logs", "q/1", NULL), 0);
        ck_assert_str_eq(options_get(&o, FLAG_log_output), "raw");
        ck_assert(!options_has(&o, FLAG_output) && options_has(&o, FLAG_no_headers));
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "--columns", "id", "queue", "ls", NULL), 0);
        ck_assert_str_eq(options_get(&o, FLAG_columns), "id");
        options_deinit(&o);
        for (int global = 0; flag_is_global(global); global++)
                for (int f = 0; f < _FLAG_MAX; f++)
                        if (strcmp(flags[f].name, flags[global].name) == 0)
                                ck_assert_msg(!flags[f].argument == !flags[global].argument, "--%s", flags[f].name);
}

TEST(options_of_submit_end_at_the_command) {
        Options o;

        ck_assert_int_eq(parse(&o, "submit", "-qmail", "-Hw", "-r", "3", "rsync", "-a", "--json", "x", NULL), 0);
        ck_assert_str_eq(options_get(&o, FLAG_queue), "mail");
        ck_assert_str_eq(options_get(&o, FLAG_retries), "3");
        ck_assert(options_has(&o, FLAG_hold) && options_has(&o, FLAG_wait) && !options_has(&o, FLAG_json));
        ck_assert_uint_eq(o.n_operands, 4);
        ck_assert_str_eq(o.operands[1], "-a");
        ck_assert_ptr_null(o.operands[4]);
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "add", "--", "-strange", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_submit);
        ck_assert_str_eq(o.operands[0], "-strange");
        options_deinit(&o);
}

TEST(options_of_other_verbs_stand_anywhere) {
        Options o;

        ck_assert_int_eq(parse(&o, "cancel", "q/1", "--signal", "INT", "q/2", "--", "-x", NULL), 0);
        ck_assert_uint_eq(o.n_operands, 3);
        ck_assert_str_eq(options_get(&o, FLAG_signal), "INT");
        options_deinit(&o);
}

TEST(one_letter_means_what_the_verb_says) {
        Options o;

        ck_assert_int_eq(parse(&o, "kill", "-s", "HUP", "q/1", NULL), 0);
        ck_assert_str_eq(options_get(&o, FLAG_kill_signal), "HUP");
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "ls", "-s", "queued", "-n5", NULL), 0);
        ck_assert_str_eq(options_get(&o, FLAG_state), "queued");
        ck_assert_str_eq(options_get(&o, FLAG_limit), "5");
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "run", "-n", "true", NULL), 0);
        ck_assert(options_has(&o, FLAG_no_stdin));
        options_deinit(&o);
}

TEST(queue_takes_its_verb_along) {
        Options o;

        ck_assert_int_eq(parse(&o, "queue", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_queue_ls);
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "queue", "create", "q", "max_active=2", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_queue_create);
        ck_assert_uint_eq(o.n_operands, 2);
        options_deinit(&o);
}

#define REFUSED(text, ...)                                                                                             \
        do {                                                                                                           \
                Options o_;                                                                                            \
                ck_assert_int_eq(parse(&o_, __VA_ARGS__, NULL), -EINVAL);                                              \
                ck_assert_msg(strstr(o_.error, text) != NULL, "`%s` lacks `%s`", o_.error, text);                      \
                options_deinit(&o_);                                                                                   \
        } while (0)

TEST(kill_takes_a_signal_as_kill_1_does) {
        static const char *const signals[] = { "-9", "-KILL", "-SIGUSR1" };
        Options o;
        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                ck_assert_int_eq(parse(&o, "kill", signals[i], "q/1", NULL), 0);
                ck_assert_str_eq(options_get(&o, FLAG_kill_signal), signals[i] + 1);
                ck_assert_uint_eq(o.n_operands, 1);
                options_deinit(&o);
        }
        ck_assert_int_eq(parse(&o, "kill", "-s", "USR1", "q/1", NULL), 0);
        ck_assert_str_eq(options_get(&o, FLAG_kill_signal), "USR1");
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "kill", "-S", "sock", "-HUP", "q/1", NULL), 0); /* not the letters h, u, p */
        ck_assert_str_eq(options_get(&o, FLAG_kill_signal), "HUP");
        ck_assert_str_eq(options_get(&o, FLAG_socket), "sock");
        options_deinit(&o);
}

/* Its table stands for a function of glibc's, with which eqctl need not be linked. */
TEST(signals_have_the_names_that_the_c_library_knows) {
        for (int sig = 0; sig <= SIGRTMAX; sig++) {
                const char *want = sig > 0 ? sigabbrev_np(sig) : NULL, *name = signal_name(sig);
                uint64_t parsed = 0;
                ck_assert_msg((name && want) ? strcmp(name, want) == 0 : name == want, "%d: %s, not %s", sig,
                              name ?: "nothing", want ?: "nothing");
                ck_assert(!name || (signal_parse(name, &parsed) == 0 && parsed == (uint64_t)sig));
        }
}

TEST(what_is_wrong_is_said_with_the_nearest_that_is_right) {
        REFUSED("did you mean `submit`?", "sumbit", "x");
        REFUSED("did you mean `queue create`?", "queue", "craete");
        REFUSED("eqctl help lists them", "xyzzy");
        REFUSED("did you mean `logs -f`?", "tail", "q/1");
        REFUSED("did you mean `cancel`?", "rm", "q/1");
        REFUSED("did you mean `queue resume`?", "queue", "start", "q");
        REFUSED("did you mean --timeout?", "submit", "--timout", "5", "x");
        REFUSED("no option --frobnicate", "ls", "--frobnicate");
        REFUSED("no option -Z", "ls", "-Z");
        REFUSED("submit has no option --columns; ls, show, why, ", "submit", "--columns", "id", "--", "true");
        REFUSED("dump has no option --columns; ls, show, why, ", "--columns", "id", "dump");
        REFUSED("did you mean --label?", "ls", "-J", "batch");
        REFUSED("an attribute goes without --: max_active=VALUE", "queue", "create", "q", "--max-active", "4");
        REFUSED("needs an argument: QUEUE", "ls", "-q");
        REFUSED("needs an argument: PATH", "ls", "--socket");
        REFUSED("takes no argument", "ls", "--json=1");
        REFUSED("usage: eqctl show ID...", "show");
        REFUSED("`b` is one operand too many", "queue", "show", "a", "b");
}

TEST(help_needs_no_operands) {
        Options o;

        ck_assert_int_eq(parse(&o, "show", "--help", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_show);
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "-h", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_help);
        options_deinit(&o);
}

TEST(help_of_a_noun_is_about_all_its_verbs) {
        Options o;

        ck_assert_int_eq(parse(&o, "worker", "--help", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_help);
        ck_assert_uint_eq(o.n_operands, 1);
        ck_assert_str_eq(o.operands[0], "worker");
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "worker", "ls", "--help", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_worker_ls);
        options_deinit(&o);
        ck_assert_int_eq(parse(&o, "worker", "-o", "json", NULL), 0);
        ck_assert_int_eq(o.verb, VERB_worker_ls);
        options_deinit(&o);
}

TEST(the_last_of_an_option_counts_and_all_are_kept_in_order) {
        Options o;

        ck_assert_int_eq(parse(&o, "submit", "-E", "A=1", "-E", "B=2", "x", NULL), 0);
        ck_assert_uint_eq(o.n, 2);
        ck_assert_str_eq(o.list[0].value, "A=1");
        ck_assert_str_eq(options_get(&o, FLAG_env), "B=2");
        options_deinit(&o);
}

TEST(no_verb_has_two_flags_of_one_letter_or_name) {
        for (int v = 0; v < _VERB_MAX; v++)
                for (int a = 0; a < _FLAG_MAX; a++)
                        for (int b = a + 1; b < _FLAG_MAX; b++) {
                                if (!flag_on(&flags[a], v) || !flag_on(&flags[b], v))
                                        continue;
                                ck_assert_msg(strcmp(flags[a].name, flags[b].name) != 0, "%s --%s", verbs[v].name,
                                              flags[a].name);
                                ck_assert_msg(!flags[a].letter || flags[a].letter != flags[b].letter, "%s -%c",
                                              verbs[v].name, flags[a].letter);
                        }
}

TEST(every_flag_belongs_to_a_verb_and_says_what_it_is_for) {
        for (int f = 0; f < _FLAG_MAX; f++) {
                ck_assert_msg(flags[f].verbs != 0, "--%s", flags[f].name);
                ck_assert_msg(strlen(flags[f].doc) > 3, "--%s", flags[f].name);
        }
}

RUN_TESTS("options", 10, test_without_a_verb_it_is_ls, test_version_may_be_asked_for_as_an_option,
          test_options_of_every_verb_stand_before_and_after_it,
          test_what_stands_before_the_verb_is_what_the_verb_has_by_that_name, test_options_of_submit_end_at_the_command,
          test_options_of_other_verbs_stand_anywhere, test_one_letter_means_what_the_verb_says,
          test_queue_takes_its_verb_along, test_what_is_wrong_is_said_with_the_nearest_that_is_right,
          test_help_needs_no_operands, test_help_of_a_noun_is_about_all_its_verbs,
          test_kill_takes_a_signal_as_kill_1_does, test_signals_have_the_names_that_the_c_library_knows,
          test_the_last_of_an_option_counts_and_all_are_kept_in_order, test_no_verb_has_two_flags_of_one_letter_or_name,
          test_every_flag_belongs_to_a_verb_and_says_what_it_is_for)
