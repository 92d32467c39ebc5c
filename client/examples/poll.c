/* SPDX-License-Identifier: MIT */
/* Submits a thousand tasks without waiting for each, with an own poll(2) loop. */

#include <eq.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

typedef struct Count {
        unsigned answered, refused;
} Count;

static void submitted(eq_client *c, int r, eq_task_id id, void *userdata) {
        Count *count = userdata;
        const char *text = strerror(-r);

        (void)id; /* {queue id, SEQ} */
        count->answered++;
        if (r == 0)
                return;
        count->refused++;
        if (r == -EREMOTEIO)
                eq_client_get_error(c, &text);
        fprintf(stderr, "refused: %s\n", text);
}

int main(void) {
        __attribute__((cleanup(eq_client_closep))) eq_client *c = NULL;
        const char *command[] = { "/bin/true", NULL };
        eq_task task = EQ_TASK_INIT;
        Count count = { 0 };

        int r = eq_client_open(&c, NULL);
        task.argv = command;
        for (unsigned i = 0; r == 0 && i < 1000; i++)
                r = eq_submit_start(c, "default", &task, submitted, &count);
        while (r >= 0 && count.answered < 1000) {
                struct pollfd p = { .fd = eq_client_get_fd(c), .events = (short)eq_client_get_events(c) };
                if (poll(&p, 1, -1) < 0 && errno != EINTR)
                        return 1;
                r = eq_client_dispatch(c, 0);
        }
        if (r < 0) {
                fprintf(stderr, "%s\n", strerror(-r));
                return 1;
        }
        printf("%u answered, %u refused\n", count.answered, count.refused);
        return 0;
}
