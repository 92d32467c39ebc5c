/* SPDX-License-Identifier: MIT */
/* eqctl: the command line of eqd. Options are parsed, then the verb's function runs; its result is the exit status. The
 * locale stays "C": nothing that it prints or parses depends on another, and setting one costs every call 15 system calls. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eqctl/ctl.h"
#include "eqctl/help.h"
#include "proto/stdfds.h"

static int run(Ctl *ctl, int argc, char **argv) {
        int status = help_print_tables(argc, argv);
        if (status >= 0)
                return status;
        status = ctl_init(ctl, argc, argv);
        if (status)
                return status;
        if (ctl_has(ctl, FLAG_help) && ctl->options.verb != VERB_help)
                return help_print(ctl, ctl->options.verb);
        return verbs[ctl->options.verb].run(ctl);
}

int main(int argc, char **argv) {
        Ctl ctl = CTL_NULL;
        if (eq_std_fds_fill(O_RDONLY) < 0)
                return EXIT_FAILURE;
        int status = run(&ctl, argc, argv);
        ctl_deinit(&ctl);
        /* Either a flush has failed before, by way of a note, or this one does: then errno says why. */
        bool failed = ferror(stdout);
        if ((fflush(stdout) != 0 || failed) && status == 0) {
                fprintf(stderr, "eqctl: cannot write to standard output%s%s\n", failed ? "" : ": ",
                        failed ? "" : strerror(errno));
                status = EXIT_FAILURE;
        }
        return status;
}
