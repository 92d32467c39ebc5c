/* SPDX-License-Identifier: MIT */
/* What a large payload costs in a message and as a sealed memfd. bench-eqd.py runs it.
 *
 *   payload SOCKET QUEUE submit|cycle BYTES message|memfd IN_FLIGHT SECONDS CPU
 *
 * submit: until SECONDS are over, IN_FLIGHT at a time. cycle: the same with a worker on a second connection of this process,
 * which looks at every page. Prints `N SECONDS`. CPU pins to that CPU; -1: not pinned. */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "eq.h"
#include "proto/codec.h"
#include "proto/memfd.h"

typedef struct Load {
        eq_client *submitter, *worker; /* worker NULL: submit only */
        const char *queue;
        char *payload;
        size_t size;
        bool memfd;
        uint64_t n_done;
        unsigned in_flight;
        volatile unsigned char seen;
} Load;

_Noreturn static void die(const char *what, int r) {
        fprintf(stderr, "payload: %s: %s\n", what, strerror(-r));
        exit(1);
}

static double now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_accepted(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        Load *l = userdata;
        const char *text = "";
        if (r < 0) {
                if (reply)
                        eq_reply_get_error(reply, &text);
                fprintf(stderr, "payload: refused: %s\n", text);
                exit(1);
        }
        if (!l->worker) {
                l->n_done++;
                l->in_flight--;
        }
}

/* As libeq does it, but the form is the caller's choice. */
static void submit(Load *l) {
        EqBytes payload = eq_bytes(l->payload, l->size);
        EqBuffer b = EQ_BUFFER_NULL;
        msgpack_packer pk = eq_packer(&b);
        EqSubmit s = { .queue = eq_str(l->queue) };
        int fd = -1, r = 0;
        if (l->memfd) {
                EQ_SET(&s, Submit, payload_fd, true);
                r = eq_memfd_new(payload, &fd);
        } else
                s.payload = payload;
        eq_pack_params(&pk, &eq_schema_Submit, &s);
        if (r == 0)
                r = eq_client_call_start(l->submitter, "submit", b.data, b.len, &fd, fd >= 0, on_accepted, l, NULL);
        if (r < 0)
                die("submit", r);
        if (fd >= 0)
                close(fd);
        eq_buffer_done(&b);
        l->in_flight++;
}

static void on_run(eq_client *c, eq_run *run, void *userdata) {
        Load *l = userdata;
        size_t n;
        const unsigned char *p = eq_run_get_payload(run, &n);
        if (n != l->size)
                die("a payload of another size", -EBADMSG);
        for (size_t i = 0; i < n; i += 4096)
                l->seen ^= p[i];
        if (eq_run_complete(run, NULL, 0) < 0)
                die("answer", -EIO);
        l->n_done++;
        l->in_flight--;
}

static void serve(Load *l, uint32_t credit) {
        EqBuffer names = EQ_BUFFER_NULL, b = EQ_BUFFER_NULL;
        msgpack_packer names_pk = eq_packer(&names), pk = eq_packer(&b);
        EqWorkerServe rec = { 0 };
        eq_reply *reply = NULL;
        eq_pack_cstr(&names_pk, l->queue);
        rec.queues = (EqArray) { .raw = eq_bytes(names.data, names.len), .n = 1 };
        EQ_SET(&rec, WorkerServe, credit, credit);
        EQ_SET(&rec, WorkerServe, payload_fd, l->memfd);
        eq_pack_params(&pk, &eq_schema_WorkerServe, &rec);
        int r = eq_worker_set_callbacks(l->worker, on_run, NULL, l);
        if (r == 0)
                r = eq_client_call(l->worker, "worker_serve", b.data, b.len, &reply);
        if (r < 0)
                die("worker_serve", r);
        eq_reply_free(reply);
        eq_buffer_done(&names);
        eq_buffer_done(&b);
}

static void turn(Load *l) {
        struct pollfd p[2];
        eq_client *clients[] = { l->submitter, l->worker };
        nfds_t n = l->worker ? 2 : 1;
        for (nfds_t i = 0; i < n; i++)
                p[i] = (struct pollfd) { .fd = eq_client_get_fd(clients[i]),
                                         .events = (short)eq_client_get_events(clients[i]) };
        if (poll(p, n, -1) < 0)
                die("poll", -errno);
        for (nfds_t i = 0; i < n; i++) {
                int r = p[i].revents ? eq_client_dispatch(clients[i], 0) : 0;
                if (r >= 0)
                        r = eq_client_flush(clients[i]);
                if (r < 0)
                        die("connection", r);
        }
}

int main(int argc, char **argv) {
        if (argc != 9) {
                fprintf(stderr, "usage: payload SOCKET QUEUE submit|cycle BYTES message|memfd IN_FLIGHT SECONDS CPU\n");
                return 2;
        }
        Load l = { .queue = argv[2], .size = strtoul(argv[4], NULL, 10), .memfd = strcmp(argv[5], "memfd") == 0 };
        unsigned depth = (unsigned)strtoul(argv[6], NULL, 10);
        double seconds = strtod(argv[7], NULL);
        int cpu = atoi(argv[8]);
        if (cpu >= 0) {
                cpu_set_t set;
                CPU_ZERO(&set);
                CPU_SET(cpu, &set);
                if (sched_setaffinity(0, sizeof(set), &set) < 0)
                        die("sched_setaffinity", -errno);
        }
        l.payload = malloc(l.size);
        memset(l.payload, 'x', l.size);
        int r = eq_client_open(&l.submitter, argv[1]);
        if (r == 0 && strcmp(argv[3], "cycle") == 0)
                r = eq_client_open(&l.worker, argv[1]);
        if (r < 0)
                die(argv[1], r);
        if (l.worker)
                serve(&l, depth);
        double start = now(), end = start + seconds, t;
        while ((t = now()) < end) {
                while (l.in_flight < depth)
                        submit(&l);
                turn(&l);
        }
        printf("%" PRIu64 " %.6f\n", l.n_done, t - start);
        return 0;
}
