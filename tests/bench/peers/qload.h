/* SPDX-License-Identifier: MIT */
/*
 * qload.h - the contract between the load engine and the protocols.
 *
 * The engine owns options and windows (qload.c), connections (conn.c), and counters, latency samples and
 * the ledger of a crash run (account.c). A protocol (proto_*.c) turns submits and completions into
 * bytes, and bytes into the events at the end of this file. One protocol is one struct Protocol and one
 * row of the table in qload.c.
 */
#ifndef QLOAD_H
#define QLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A payload starts with its sequence number and its submit time, 16 hex digits each; the rest is filler.
 */
#define PAYLOAD_MIN 32

struct Options {
        const char *address;   /* "/path" is a Unix socket, digits are a TCP port on 127.0.0.1 */
        const char *queue;     /* name of the queue, tube, function, list, stream or subject */
        unsigned n_producers;  /* connections that submit */
        unsigned n_workers;    /* connections that receive and complete */
        unsigned submit_depth; /* submit requests in flight per producer */
        unsigned work_depth;   /* reserves in flight, credit or fetch batch per worker */
        unsigned payload;      /* bytes per task, PAYLOAD_MIN or more */
        unsigned backlog_cap;  /* with workers: producers pause while this many tasks wait */
        double seconds;        /* length of a timed run */
        double idle_seconds;   /* a drain ends after this long without a delivery */
        double rate;           /* > 0: paced submits per second, one at a time, on one connection */
        double kill_after;     /* seconds until kill_pid gets SIGKILL */
        uint64_t first_seq;    /* sequence number of the first task */
        uint64_t count;        /* > 0: stop after this many tasks */
        int kill_pid;          /* > 0: crash run */
        bool volatile_queue;   /* ask for a queue in memory, where that is the client's choice */
        bool drain;            /* only receive what is there */
        bool worker_thread;    /* workers run in a thread of their own */
        bool latency;          /* record latency samples */
        bool open_loop;        /* paced runs: count latency from the scheduled time */
};

extern struct Options opt;

/* Bytes [start, end) of data are valid. */
struct Buffer {
        char *data;
        size_t start, end, size;
};

struct Request {
        uint64_t seq;     /* first task of the request */
        uint64_t sent_ns; /* 0 where no latency is recorded */
        unsigned n_tasks;
        bool open;
};

/* Requests sent and not answered yet, in the order of their tags. Answers may come in any order. */
struct Flight {
        struct Request *ring;
        uint32_t size;        /* a power of two */
        uint32_t first, next; /* tags in use: [first, next) */
        uint32_t n_open;
};

struct Conn {
        int fd;
        unsigned id; /* 0, 1, ...; worker i has the same id before and after a crash */
        bool worker;
        bool lost;
        bool want_write;
        bool blocking; /* waits for input by itself, see conn_receive() */
        struct Buffer in, out;
        struct Buffer head; /* for the protocol: constant start of a submit, made by prepare() */
        struct Flight flight;
        char *payloads;  /* per_put payloads, reused for every submit */
        unsigned credit; /* for the protocol */
        unsigned state;  /* for the protocol */
};

struct Protocol {
        const char *name;

        /* Tasks per submit request; the request has one answer for all of them. */
        unsigned per_put;

        /* Optional. Greets on a new connection; may block. */
        void (*hello)(struct Conn *c);

        /* Optional. Makes queue, stream or consumer; may block. Must tolerate that they exist. */
        void (*setup)(struct Conn *c);

        /* Optional. Builds c->head of a producer. */
        void (*prepare)(struct Conn *c);

        /*
         * Appends one submit request of per_put payloads (opt.payload bytes each, one after the other)
         * to c->out. A protocol whose answers carry a request number uses tag for it.
         */
        void (*put)(struct Conn *c, uint32_t tag, const char *payloads);

        /* Consumes one message of a producer connection; false if it is not complete yet. */
        bool (*put_input)(struct Conn *c);

        /* Asks for the first tasks. NULL: the protocol only submits. */
        void (*work)(struct Conn *c);

        /* Consumes one message of a worker connection; false if it is not complete yet. */
        bool (*work_input)(struct Conn *c);

        /* Optional. After a crash: gives tasks that a lost worker held back to the queue; may block. */
        void (*recover)(struct Conn *c);
};

/* ---- output: append to c->out; the engine sends ---- */
char *out_room(struct Conn *c, size_t n);
void out_format(struct Conn *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_format(struct Buffer *b, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline void out_bytes(struct Conn *c, const void *data, size_t n) {
        memcpy(out_room(c, n), data, n);
        c->out.end += n;
}

static inline void out_head(struct Conn *c) {
        out_bytes(c, c->head.data, c->head.end);
}

#define out_literal(c, text) out_bytes((c), (text), sizeof(text) - 1)

/* ---- input: look at c->in, then take ---- */
static inline const char *in_data(const struct Conn *c) {
        return c->in.data + c->in.start;
}

static inline size_t in_left(const struct Conn *c) {
        return c->in.end - c->in.start;
}

static inline void in_take(struct Conn *c, size_t n) {
        c->in.start += n;
}

/* A complete line with its newline, or NULL. Takes nothing. */
const char *in_line(const struct Conn *c, size_t *ret_length);

/* ---- blocking calls for hello(), setup(), recover(); without an answer they end the program ---- */
void send_all(struct Conn *c);
const char *wait_line(struct Conn *c, size_t *ret_length);
void wait_bytes(struct Conn *c, size_t n);

/* ---- requests in flight: returns the tag. For the engine; protocols use done_sent() ---- */
uint32_t flight_add(struct Flight *f, uint64_t seq, unsigned n_tasks, uint64_t sent_ns);

/* ---- events: what a protocol tells the engine ---- */

/* A submit was accepted (ok) or refused; _next: the oldest one, for servers that answer in order. */
void submit_answered(struct Conn *c, uint32_t tag, bool ok);
void submit_answered_next(struct Conn *c, bool ok);

/* A task arrived; returns its sequence number. */
uint64_t task_received(const char *payload);

/* The completion of a task goes out and will be answered: remember it, then report the answer. */
uint32_t done_sent(struct Conn *c, uint64_t seq);
void done_answered(struct Conn *c, uint32_t tag, bool ok);
void done_answered_next(struct Conn *c, bool ok);

/* The completion of a task goes out and the protocol has no answer to it. */
void done_unanswered(uint64_t seq);

/* The server said something that it should not; counted, and the first few are shown. */
void protocol_error(const char *text, size_t length);

/* True while a crashed or filled server is being emptied. */
bool is_draining(void);

/* ---- the protocols ---- */
extern const struct Protocol proto_beanstalkd;
extern const struct Protocol proto_redis_list;
extern const struct Protocol proto_redis_list_many;
extern const struct Protocol proto_redis_stream;
extern const struct Protocol proto_gearman;
extern const struct Protocol proto_nats_jetstream;
extern const struct Protocol proto_nats_core;
extern const struct Protocol proto_eqd;
extern const struct Protocol proto_eqd_many;

#endif
