/* SPDX-License-Identifier: MIT */
/* Runs a command through eqd and waits for it: blocking calls.   cc blocking.c $(pkg-config --cflags --libs libeq) */

#include <eq.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int fail(const eq_client *c, const char *what, int r) {
        const char *text = strerror(-r);

        if (c && r == -EREMOTEIO)
                eq_client_get_error(c, &text);
        fprintf(stderr, "%s: %s\n", what, text);
        return 1;
}

int main(int argc, char **argv) {
        __attribute__((cleanup(eq_client_closep))) eq_client *c = NULL;
        const char *command[] = { "/bin/echo", "hello", NULL };
        eq_task task = EQ_TASK_INIT;
        eq_status status;
        eq_task_id id;

        int r = eq_client_open(&c, NULL);
        if (r < 0)
                return fail(NULL, "connect", r);
        task.argv = argc > 1 ? (const char *const *)argv + 1 : command;
        r = eq_submit(c, "default", &task, &id);
        if (r < 0)
                return fail(c, "submit", r);
        r = eq_wait(c, id, EQ_TIMEOUT_NEVER, &status);
        if (r < 0)
                return fail(c, "wait", r);
        printf("exit status %d, signal %d, %u attempts\n", status.exit_status, status.signal, status.attempts);
        return 0;
}
