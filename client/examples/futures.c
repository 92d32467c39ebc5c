/* SPDX-License-Identifier: MIT */
/* Echoes each of its words by a task of its own, submitted all at once and waited for in turn: futures, without a loop.
 *   cc futures.c $(pkg-config --cflags --libs libeq) */

#include <eq.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const eq_client *c, const char *what, int r) {
        const char *text = strerror(-r);

        if (c && r == -EREMOTEIO)
                eq_client_get_error(c, &text);
        fprintf(stderr, "%s: %s\n", what, text);
        return 1;
}

static int start(eq_client *c, char **words, int n, eq_call **calls) {
        int r = 0;

        for (int i = 0; i < n && r == 0; i++) {
                const char *argv[] = { "/bin/echo", words[i], NULL };
                eq_task task = EQ_TASK_INIT;
                task.argv = argv; /* borrowed: sent, or copied, when the function returns */
                r = eq_submit_future(c, "default", &task, &calls[i]);
        }
        return r;
}

int main(int argc, char **argv) {
        __attribute__((cleanup(eq_client_closep))) eq_client *c = NULL; /* ends futures that are left, too */
        eq_call *calls[64];
        int n = argc - 1 < 64 ? argc - 1 : 64, failed = 0;

        int r = eq_client_open(&c, NULL);
        if (r < 0)
                return fail(NULL, "connect", r);
        r = start(c, argv + 1, n, calls);
        if (r < 0)
                return fail(c, "submit", r);
        for (int i = 0; i < n; i++) {
                eq_status status;
                eq_task_id id;
                r = eq_submit_wait(calls[i], EQ_TIMEOUT_NEVER, &id);
                if (r == 0)
                        r = eq_wait(c, id, EQ_TIMEOUT_NEVER, &status);
                if (r < 0)
                        failed = fail(c, argv[i + 1], r); /* the others go on */
                else
                        printf("%s: exit status %d\n", argv[i + 1], status.exit_status);
        }
        return failed;
}
