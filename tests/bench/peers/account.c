/* SPDX-License-Identifier: MIT */
/*
 * account.c - counters, latency samples, and the ledger of a crash run.
 *
 * The ledger has one byte per task, indexed by sequence number. It holds what happened before the
 * SIGKILL and whether the task came again after the restart; a crash run has one thread, so the bytes
 * need no lock.
 *
 *      accepted, never seen                    lost
 *      accepted, seen, not done, gone          lost while reserved
 *      done and confirmed, seen again          done again
 *      seen, not confirmed, seen again         redelivered: what at-least-once promises
 *      not accepted, seen                      present: the answer was lost with the server
 *      done sent, not confirmed, gone          in doubt: either outcome is right
 */
#include "account.h"

#include "qload.h"
#include "util.h"

enum {
        SAMPLES_MAX = 4 << 20,
        LEDGER_MAX = 64 << 20,
        ERRORS_SHOWN = 5,
};

enum {
        ACCEPTED = 1, /* its submit was answered */
        SEEN = 2,     /* delivered before the crash */
        SEEN_TWICE = 4,
        DONE_SENT = 8,      /* its completion went out before the crash */
        DONE_ANSWERED = 16, /* and was confirmed, or the protocol has no confirmation */
        SEEN_AFTER = 32,    /* delivered after the restart */
        SEEN_AFTER_TWICE = 64,
};

struct Samples {
        uint32_t *ns;
        _Atomic uint64_t n;
};

struct Counters counters;
static struct Samples submit_latency, delivery_latency;
static uint8_t *ledger; /* NULL outside of crash runs */
static bool draining;

void account_init(void) {
        draining = opt.drain;
        if (opt.kill_pid)
                ledger = allocate(LEDGER_MAX, 1);
        if (opt.latency) {
                submit_latency.ns = allocate(SAMPLES_MAX, sizeof(uint32_t));
                delivery_latency.ns = allocate(SAMPLES_MAX, sizeof(uint32_t));
        }
}

void account_begin_drain(void) {
        draining = true;
        counters.n_received = counters.n_done = 0;
}

bool is_draining(void) {
        return draining;
}

/* ---- ledger ---- */

static void mark(uint64_t seq, uint8_t flags) {
        uint64_t i = seq - opt.first_seq;

        if (ledger && i < LEDGER_MAX)
                ledger[i] |= flags;
}

static void mark_seen(uint64_t seq) {
        uint8_t once = draining ? SEEN_AFTER : SEEN, twice = draining ? SEEN_AFTER_TWICE : SEEN_TWICE;
        uint64_t i = seq - opt.first_seq;

        if (ledger && i < LEDGER_MAX)
                ledger[i] |= ledger[i] & once ? twice : once;
}

static void mark_done(uint64_t seq, uint8_t flags) {
        if (!draining)
                mark(seq, flags);
}

void account_print_ledger(uint64_t n_tasks, uint64_t n_errors_before) {
        enum { N_ACCEPTED, LOST, LOST_RESERVED, DONE_AGAIN, REDELIVERED, UNACCEPTED, TWICE, IN_DOUBT, MAX };
        static const char *const name[MAX] = {
                [N_ACCEPTED] = "accepted",         [LOST] = "lost",
                [LOST_RESERVED] = "lost_reserved", [DONE_AGAIN] = "done_again",
                [REDELIVERED] = "redelivered",     [UNACCEPTED] = "unaccepted_present",
                [TWICE] = "twice_in_one_life",     [IN_DOUBT] = "in_doubt",
        };
        unsigned long long n[MAX] = { 0 };

        for (uint64_t i = 0; i < n_tasks && i < LEDGER_MAX; i++) {
                uint8_t t = ledger[i];
                bool accepted = t & ACCEPTED, seen = t & SEEN, after = t & SEEN_AFTER;
                bool sent = t & DONE_SENT, answered = t & DONE_ANSWERED;

                n[N_ACCEPTED] += accepted;
                n[LOST] += accepted && !seen && !after;
                n[LOST_RESERVED] += accepted && seen && !sent && !after;
                n[DONE_AGAIN] += answered && after;
                n[REDELIVERED] += seen && !answered && after;
                n[UNACCEPTED] += !accepted && after;
                n[TWICE] += (t & (SEEN_TWICE | SEEN_AFTER_TWICE)) != 0;
                n[IN_DOUBT] += sent && !answered && !after;
        }
        printf("crash");
        for (int i = 0; i < MAX; i++)
                printf(" %s=%llu", name[i], n[i]);
        printf(" drained=%llu errors=%llu\n", (unsigned long long)counters.n_received,
               (unsigned long long)(counters.n_errors - n_errors_before));
}

/* ---- latency ---- */

static void sample(struct Samples *s, uint64_t since_ns) {
        if (!s->ns)
                return;

        uint64_t i = s->n++, took_ns = now_ns() - since_ns;
        if (i < SAMPLES_MAX)
                s->ns[i] = took_ns < UINT32_MAX ? (uint32_t)took_ns : UINT32_MAX;
}

static int compare_u32(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

        return (x > y) - (x < y);
}

static void print_quantiles(const char *name, struct Samples *s) {
        uint64_t n = s->n < SAMPLES_MAX ? s->n : SAMPLES_MAX;

        if (n == 0)
                return;
        qsort(s->ns, n, sizeof(uint32_t), compare_u32);
        printf(" %s_p50_us=%.1f %s_p99_us=%.1f", name, s->ns[n / 2] / 1e3, name, s->ns[n * 99 / 100] / 1e3);
        printf(" %s_p999_us=%.1f %s_max_us=%.1f", name, s->ns[n * 999 / 1000] / 1e3, name, s->ns[n - 1] / 1e3);
        printf(" %s_n=%llu", name, (unsigned long long)n);
}

void account_print(double seconds, double cpu_seconds) {
        const struct {
                const char *name;
                uint64_t value;
        } rows[] = {
                { "submitted", counters.n_submitted }, { "accepted", counters.n_accepted },
                { "received", counters.n_received },   { "done", counters.n_done },
                { "errors", counters.n_errors },
        };

        if (seconds <= 0)
                seconds = 1e-9;
        printf("seconds=%.3f", seconds);
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                printf(" %s=%llu", rows[i].name, (unsigned long long)rows[i].value);
        printf(" accepted_per_s=%.0f", (double)counters.n_accepted / seconds);
        printf(" done_per_s=%.0f", (double)counters.n_done / seconds);
        printf(" client_cpu=%.2f", cpu_seconds / seconds);
        print_quantiles("submit", &submit_latency);
        print_quantiles("delivery", &delivery_latency);
        printf("\n");
        fflush(stdout);
}

/* ---- requests in flight ---- */

static struct Request *flight_at(const struct Flight *f, uint32_t tag) {
        return &f->ring[tag & (f->size - 1)];
}

static void flight_grow(struct Flight *f) {
        struct Flight bigger = *f;

        bigger.size = f->size ? f->size * 2 : 1024;
        bigger.ring = allocate(bigger.size, sizeof(struct Request));
        for (uint32_t tag = f->first; tag != f->next; tag++)
                *flight_at(&bigger, tag) = *flight_at(f, tag);
        free(f->ring);
        *f = bigger;
}

uint32_t flight_add(struct Flight *f, uint64_t seq, unsigned n_tasks, uint64_t sent_ns) {
        if (f->next - f->first == f->size)
                flight_grow(f);
        *flight_at(f, f->next) = (struct Request) { seq, sent_ns, n_tasks, true };
        f->n_open++;
        return f->next++;
}

static bool flight_take(struct Flight *f, uint32_t tag, struct Request *ret_request) {
        static const char text[] = "an answer to nothing";

        if (tag - f->first >= f->next - f->first || !flight_at(f, tag)->open) {
                protocol_error(text, sizeof(text) - 1);
                return false;
        }
        *ret_request = *flight_at(f, tag);
        flight_at(f, tag)->open = false;
        f->n_open--;
        while (f->first != f->next && !flight_at(f, f->first)->open)
                f->first++;
        return true;
}

/* ---- events from the protocols ---- */

void protocol_error(const char *text, size_t length) {
        count(&counters.n_errors, 1);
        if (counters.n_errors <= ERRORS_SHOWN)
                fprintf(stderr, "qload: the server answered: %.*s\n", (int)(length < 200 ? length : 200), text);
}

void submit_answered(struct Conn *c, uint32_t tag, bool ok) {
        struct Request request;

        if (!flight_take(&c->flight, tag, &request) || !ok)
                return;
        count(&counters.n_accepted, request.n_tasks);
        sample(&submit_latency, request.sent_ns);
        for (unsigned i = 0; ledger && i < request.n_tasks; i++)
                mark(request.seq + i, ACCEPTED);
}

void submit_answered_next(struct Conn *c, bool ok) {
        submit_answered(c, c->flight.first, ok);
}

static uint64_t get_hex(const char *at) {
        uint64_t value = 0;

        for (int i = 0; i < 16; i++)
                value = value << 4 | (uint64_t)(at[i] <= '9' ? at[i] - '0' : at[i] - 'a' + 10);
        return value;
}

uint64_t task_received(const char *payload) {
        uint64_t seq = get_hex(payload);

        count(&counters.n_received, 1);
        if (delivery_latency.ns)
                sample(&delivery_latency, get_hex(payload + 16));
        mark_seen(seq);
        return seq;
}

uint32_t done_sent(struct Conn *c, uint64_t seq) {
        mark_done(seq, DONE_SENT);
        return flight_add(&c->flight, seq, 1, 0);
}

void done_answered(struct Conn *c, uint32_t tag, bool ok) {
        struct Request request;

        if (!flight_take(&c->flight, tag, &request) || !ok)
                return;
        count(&counters.n_done, 1);
        mark_done(request.seq, DONE_ANSWERED);
}

void done_answered_next(struct Conn *c, bool ok) {
        done_answered(c, c->flight.first, ok);
}

void done_unanswered(uint64_t seq) {
        count(&counters.n_done, 1);
        mark_done(seq, DONE_SENT | DONE_ANSWERED);
}
