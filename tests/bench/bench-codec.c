/* SPDX-License-Identifier: MIT */
/* Nanoseconds per message: scanning and decoding a submit, each against msgpack-c's msgpack_unpack_next() on the same
 * bytes, in turns, so that both meet the same machine; the median of the rounds counts. One thread, no system calls but the
 * clock. Prints `bench NAME VALUE UNIT ratio R of PEER`; R is how many times faster than the peer. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "codec.h"
#include "scan.h"

enum { N_ROUNDS = 15, N_CALLS = 20000 };

static uint64_t now_nsec(void) {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Each takes the whole message once and returns a number that depends on it. */
typedef uint64_t (*BenchFn)(const EqBuffer *message);

static uint64_t bench_scan(const EqBuffer *message) {
        EqScan s = EQ_SCAN_NULL;
        if (eq_scan(&s, message->data, message->len, EQ_MESSAGE_MAX) != EQ_SCAN_DONE)
                abort();
        return s.pos;
}

static uint64_t bench_decode(const EqBuffer *message) {
        EqMessage m;
        EqSubmit submit;
        EqDecodeError e;
        if (eq_message_parse(eq_bytes(message->data, message->len), &m) < 0 ||
            eq_method_find(m.method) != EQ_METHOD_SUBMIT ||
            eq_decode_params(&eq_schema_Submit, m.params, &submit, &e) < 0)
                abort();
        return submit.payload.len + submit.retries;
}

static uint64_t bench_scan_decode(const EqBuffer *message) {
        return bench_scan(message) + bench_decode(message);
}

static uint64_t bench_msgpack_c(const EqBuffer *message) {
        msgpack_unpacked u;
        size_t off = 0;
        msgpack_unpacked_init(&u);
        if (msgpack_unpack_next(&u, message->data, message->len, &off) != MSGPACK_UNPACK_SUCCESS)
                abort();
        msgpack_unpacked_destroy(&u);
        return off;
}

static double round_nsec(BenchFn fn, const EqBuffer *message) {
        uint64_t sum = 0, start = now_nsec();
        for (int i = 0; i < N_CALLS; i++) {
                sum += fn(message);
                __asm__ volatile("" : "+r"(sum) : : "memory");
        }
        return (double)(now_nsec() - start) / N_CALLS;
}

static int compare(const void *a, const void *b) {
        double x = *(const double *)a, y = *(const double *)b;
        return x < y ? -1 : x > y;
}

static double median(double *v) {
        qsort(v, N_ROUNDS, sizeof(*v), compare);
        return v[N_ROUNDS / 2];
}

static void run(const char *name, const char *message_name, BenchFn fn, const EqBuffer *message) {
        double ours[N_ROUNDS], peer[N_ROUNDS];

        for (int i = 0; i < N_ROUNDS; i++) {
                ours[i] = round_nsec(fn, message);
                peer[i] = round_nsec(bench_msgpack_c, message);
        }
        double ns = median(ours);
        printf("bench codec.%s.%s %.1f ns/message ratio %.2f of msgpack_unpack_next\n", name, message_name, ns,
               median(peer) / ns);
}

static void make_submit(EqBuffer *b, size_t n_payload, unsigned n_options) {
        static char payload[65536];
        msgpack_packer pk = eq_packer(b);
        EqSubmit s = { .queue = eq_str("q0"), .payload = eq_bytes(payload, n_payload) };

        if (n_options >= 1)
                EQ_SET(&s, Submit, label, eq_str("a label"));
        if (n_options >= 2)
                EQ_SET(&s, Submit, retries, 3);
        eq_pack_request(&pk, 70000, "submit");
        eq_pack_params(&pk, &eq_schema_Submit, &s);
}

int main(void) {
        static const struct {
                const char *name;
                size_t n_payload;
                unsigned n_options;
        } rows[] = { { "submit-100B", 100, 0 }, { "submit-100B-2-options", 100, 2 }, { "submit-64KiB", 65535, 0 } };

        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                EqBuffer b = EQ_BUFFER_NULL;
                make_submit(&b, rows[i].n_payload, rows[i].n_options);
                if (b.failed)
                        return 1;
                run("scan", rows[i].name, bench_scan, &b);
                run("decode", rows[i].name, bench_decode, &b);
                run("scan+decode", rows[i].name, bench_scan_decode, &b);
                eq_buffer_done(&b);
        }
        return 0;
}
