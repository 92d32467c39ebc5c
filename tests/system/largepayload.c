/* SPDX-License-Identifier: MIT */
/* For payloads.py:   largepayload QUEUE SIZE...
 *
 * Submits a task with a payload of each size to a queue of workers and is its worker, over two connections. A line "SIZE M" for each
 * that came back byte for byte: M is how many payloads are mapped here while the task is. The last line is "END M". */

#include <eq.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const char *what, int r) {
        fprintf(stderr, "largepayload: %s: %s\n", what, strerror(-r));
        return 1;
}

static unsigned n_mapped(void) {
        char *line = NULL;
        size_t size = 0;
        unsigned n = 0;
        FILE *f = fopen("/proc/self/maps", "re");
        while (f && getline(&line, &size, f) > 0)
                n += strstr(line, "memfd:eqd-payload") != NULL;
        if (f)
                fclose(f);
        free(line);
        return n;
}

static void fill(unsigned char *data, size_t n) {
        unsigned x = (unsigned)n;
        for (size_t i = 0; i < n; i++) {
                x = x * 1103515245 + 12345;
                data[i] = (unsigned char)(x >> 16);
        }
}

static int one(eq_client *submitter, eq_client *worker, const char *queue, size_t n) {
        eq_task task = EQ_TASK_INIT;
        eq_task_id id;
        eq_run *run;
        size_t n_got;
        unsigned char *data = malloc(n);
        if (!data)
                return fail("memory", -ENOMEM);
        fill(data, n);
        task.payload = data;
        task.n_payload = n;
        int r = eq_submit(submitter, queue, &task, &id);
        if (r == 0)
                r = eq_worker_next(worker, EQ_TIMEOUT_NEVER, &run);
        if (r != 1) {
                free(data);
                return fail("a task of its own", r);
        }
        const void *got = eq_run_get_payload(run, &n_got);
        bool same = n_got == n && memcmp(got, data, n) == 0;
        free(data);
        if (!same)
                return fail("other bytes came", 0);
        printf("%zu %u\n", n, n_mapped());
        r = eq_run_complete(run, NULL, 0);
        return r < 0 ? fail("the end", r) : 0;
}

int main(int argc, char **argv) {
        eq_client *submitter = NULL, *worker = NULL;
        const char *queues[] = { argc > 1 ? argv[1] : "", NULL };
        int r = eq_client_open(&submitter, NULL);
        if (r == 0)
                r = eq_client_open(&worker, NULL);
        if (r == 0)
                r = eq_worker_serve(worker, queues, 1, 1, NULL, NULL);
        if (r < 0)
                return fail("serve", r);
        for (int i = 2; i < argc && r == 0; i++)
                r = one(submitter, worker, queues[0], strtoul(argv[i], NULL, 10));
        printf("END %u\n", n_mapped());
        eq_client_close(submitter);
        eq_client_close(worker);
        return r;
}
