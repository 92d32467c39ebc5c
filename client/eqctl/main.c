/* SPDX-License-Identifier: MIT */
/* eqctl: the command line of eqd. Options are parsed, then the verb's function runs; its result is the exit status. The
 * locale stays "C": nothing that it prints or parses depends on another, and setting one costs every call 15 system calls. */

#include "eqctl/ctl.h"
#include "eqctl/help.h"

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

        int status = run(&ctl, argc, argv);
        ctl_deinit(&ctl);
        if (fflush(stdout) != 0 && status == 0)
                status = 1;
        return status;
}
