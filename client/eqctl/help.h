/* SPDX-License-Identifier: MIT */
#pragma once

/* Help, from the rows of verbs.def. Exit statuses. */

#include "eqctl/ctl.h"

int help_print(const Ctl *ctl, VerbId verb); /* VERB_help: about eqctl itself */

/* eqctl --print-man-tables: the tables of eqctl(1), for the build. -1: argv does not ask for that. */
int help_print_tables(int argc, char **argv);
int completion_print(const Ctl *ctl, const char *shell);
