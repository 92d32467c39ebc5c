/* SPDX-License-Identifier: MIT */
/* Submits a thousand tasks without waiting for each, from a loop around epoll(7); also while eqd is restarted. */

#include <eq.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

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

/* Without a policy what libeq waits for changes with what it has to send; POLLIN and POLLOUT are EPOLLIN and EPOLLOUT. */
static int watch(int epoll, const eq_client *c, int op) {
        struct epoll_event e = { .events = (uint32_t)eq_client_get_events(c) };

        return epoll_ctl(epoll, op, eq_client_get_fd(c), &e) < 0 ? -errno : 0;
}

static int loop(int epoll, eq_client *c, const Count *count, unsigned n) {
        int r = watch(epoll, c, EPOLL_CTL_ADD);

        while (r >= 0 && count->answered < n) {
                struct epoll_event e;
                if (epoll_wait(epoll, &e, 1, -1) < 0 && errno != EINTR)
                        return -errno;
                r = eq_client_dispatch(c, 0);
                if (r >= 0)
                        r = watch(epoll, c, EPOLL_CTL_MOD);
        }
        return r;
}

int main(void) {
        __attribute__((cleanup(eq_client_closep))) eq_client *c = NULL;
        const char *command[] = { "/bin/true", NULL };
        eq_task task = EQ_TASK_INIT;
        Count count = { 0 };
        int epoll = epoll_create1(EPOLL_CLOEXEC);

        eq_reconnect policy = EQ_RECONNECT_INIT;
        int r = epoll < 0 ? -errno : eq_client_open(&c, NULL);
        if (r == 0)
                r = eq_client_set_reconnect(c, &policy); /* one descriptor for all connections */
        task.argv = command;
        for (unsigned i = 0; r == 0 && i < 1000; i++)
                r = eq_submit_start(c, "default", &task, submitted, &count);
        if (r >= 0)
                r = loop(epoll, c, &count, 1000);
        if (epoll >= 0)
                close(epoll);
        if (r < 0) {
                fprintf(stderr, "%s\n", strerror(-r));
                return 1;
        }
        printf("%u answered, %u refused\n", count.answered, count.refused);
        return 0;
}
