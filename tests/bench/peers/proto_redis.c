/* SPDX-License-Identifier: MIT */
/*
 * redis: three ways to be a queue.
 *   list        LPUSH; BLMOVE to a list of the worker; LREM from it when done
 *   list, many  LPUSH with 100 values; submits only
 *   stream      XADD; XREADGROUP; XACK and XDEL when done
 * Answers come in order.
 */
#include <stdio.h>
#include <stdlib.h>

#include "qload.h"

enum { MANY = 100 };

/* ---- RESP ---- */

static void command(struct Conn *c, unsigned words, const char *const word[]) {
        out_format(c, "*%u\r\n", words);
        for (unsigned i = 0; i < words; i++) {
                out_format(c, "$%zu\r\n", strlen(word[i]));
                out_bytes(c, word[i], strlen(word[i]));
                out_literal(c, "\r\n");
        }
}

#define COMMAND(c, ...)                                                                                                \
        command((c), sizeof((const char *const[]) { __VA_ARGS__ }) / sizeof(char *),                                   \
                (const char *const[]) { __VA_ARGS__ })

/* Reads "<type><number>\r\n" at *at; false if it is not complete. */
static bool read_number(const char **at, const char *end, char *type, long *number) {
        const char *newline = memchr(*at, '\n', (size_t)(end - *at));

        if (!newline)
                return false;
        *type = **at;
        *number = strtol(*at + 1, NULL, 10);
        *at = newline + 1;
        return true;
}

/* Reads a bulk string; a nil gives length -1. */
static bool read_bulk(const char **at, const char *end, const char **data, long *length) {
        char type;

        if (!read_number(at, end, &type, length))
                return false;
        if (*length < 0)
                return true;
        if (end - *at < *length + 2)
                return false;
        *data = *at;
        *at += *length + 2;
        return true;
}

/* A submit is answered by one line: an integer, or an error. */
static bool integer_answer(struct Conn *c) {
        size_t n;
        const char *line = in_line(c, &n);

        if (!line)
                return false;
        bool ok = *line == ':';
        if (!ok)
                protocol_error(line, n);
        in_take(c, n);
        submit_answered_next(c, ok);
        return true;
}

/* ---- list ---- */

static void worker_list(char name[64], unsigned id) {
        snprintf(name, 64, "%s:worker:%u", opt.queue, id);
}

static void list_prepare(struct Conn *c) {
        buffer_format(&c->head, "*3\r\n$5\r\nLPUSH\r\n$%zu\r\n%s\r\n$%u\r\n", strlen(opt.queue), opt.queue,
                      opt.payload);
}

static void list_put(struct Conn *c, uint32_t tag, const char *payload) {
        (void)tag;
        out_head(c);
        out_bytes(c, payload, opt.payload);
        out_literal(c, "\r\n");
}

static void list_reserve(struct Conn *c) {
        char mine[64];

        worker_list(mine, c->id);
        COMMAND(c, "BLMOVE", opt.queue, mine, "RIGHT", "LEFT", "0");
}

static void list_work(struct Conn *c) {
        for (unsigned i = 0; i < opt.work_depth; i++)
                list_reserve(c);
}

static void list_remove(struct Conn *c, const char *payload, size_t length) {
        char mine[64];

        worker_list(mine, c->id);
        out_format(c, "*4\r\n$4\r\nLREM\r\n$%zu\r\n%s\r\n$2\r\n-1\r\n$%zu\r\n", strlen(mine), mine, length);
        out_bytes(c, payload, length);
        out_literal(c, "\r\n");
}

/* Depth 1: BLMOVE, then LREM: two round trips. Deeper: the next BLMOVE goes out with the LREM. */
static bool list_work_input(struct Conn *c) {
        size_t n;
        const char *line = in_line(c, &n);

        if (!line)
                return false;
        if (*line == '$') {
                long length = strtol(line + 1, NULL, 10);

                if (length >= 0 && in_left(c) < n + (size_t)length + 2)
                        return false;
                if (length < 0) {
                        in_take(c, n);
                        list_reserve(c);
                        return true;
                }
                uint64_t seq = task_received(line + n);
                list_remove(c, line + n, (size_t)length);
                in_take(c, n + (size_t)length + 2);
                done_sent(c, seq);
                if (opt.work_depth > 1)
                        list_reserve(c);
                return true;
        }

        bool ok = *line == ':';
        if (!ok)
                protocol_error(line, n);
        in_take(c, n);
        done_answered_next(c, ok);
        if (opt.work_depth == 1)
                list_reserve(c);
        return true;
}

/* Moves what the lost workers held back to the queue. */
static void list_recover(struct Conn *c) {
        for (unsigned id = 0; id < opt.n_workers; id++) {
                char theirs[64];
                long length;

                worker_list(theirs, id);
                do {
                        size_t n;

                        COMMAND(c, "RPOPLPUSH", theirs, opt.queue);
                        send_all(c);
                        const char *line = wait_line(c, &n);
                        length = *line == '$' ? strtol(line + 1, NULL, 10) : -1;
                        in_take(c, n);
                        if (length >= 0) {
                                wait_bytes(c, (size_t)length + 2);
                                in_take(c, (size_t)length + 2);
                        }
                } while (length >= 0);
        }
}

const struct Protocol proto_redis_list = {
        .name = "redis-list",
        .per_put = 1,
        .prepare = list_prepare,
        .put = list_put,
        .put_input = integer_answer,
        .work = list_work,
        .work_input = list_work_input,
        .recover = list_recover,
};

/* ---- list, many values per LPUSH ---- */

static void many_prepare(struct Conn *c) {
        buffer_format(&c->head, "*%d\r\n$5\r\nLPUSH\r\n$%zu\r\n%s\r\n", MANY + 2, strlen(opt.queue), opt.queue);
}

static void many_put(struct Conn *c, uint32_t tag, const char *payloads) {
        char head[32];
        size_t length = (size_t)snprintf(head, sizeof(head), "$%u\r\n", opt.payload);

        (void)tag;
        out_head(c);
        for (unsigned i = 0; i < MANY; i++) {
                out_bytes(c, head, length);
                out_bytes(c, payloads + (size_t)i * opt.payload, opt.payload);
                out_literal(c, "\r\n");
        }
}

const struct Protocol proto_redis_list_many = {
        .name = "redis-list-many",
        .per_put = MANY,
        .prepare = many_prepare,
        .put = many_put,
        .put_input = integer_answer,
};

/* ---- stream ---- */

#define GROUP "workers"

/* c->state of a worker: which answer comes next */
enum { READING, ACKING, DELETING };

static void stream_setup(struct Conn *c) {
        size_t n;

        COMMAND(c, "XGROUP", "CREATE", opt.queue, GROUP, "0", "MKSTREAM");
        send_all(c);
        wait_line(c, &n); /* +OK, or -BUSYGROUP after a restart */
        in_take(c, n);
}

static void stream_prepare(struct Conn *c) {
        buffer_format(&c->head, "*5\r\n$4\r\nXADD\r\n$%zu\r\n%s\r\n$1\r\n*\r\n$1\r\nd\r\n$%u\r\n", strlen(opt.queue),
                      opt.queue, opt.payload);
}

static bool stream_put_input(struct Conn *c) {
        const char *at = in_data(c), *end = at + in_left(c), *id;
        size_t n;
        long length;

        if (*at != '$') {
                if (!in_line(c, &n))
                        return false;
                protocol_error(at, n);
                in_take(c, n);
                submit_answered_next(c, false);
                return true;
        }
        if (!read_bulk(&at, end, &id, &length))
                return false;
        in_take(c, (size_t)(at - in_data(c)));
        submit_answered_next(c, true);
        return true;
}

/* from is ">" for new entries, "0" for those that a consumer of this name got before a crash. */
static void stream_read(struct Conn *c, const char *from) {
        char consumer[32], count[32];

        snprintf(consumer, sizeof(consumer), "worker:%u", c->id);
        snprintf(count, sizeof(count), "%u", *from == '0' ? 1000000 : opt.work_depth);
        COMMAND(c, "XREADGROUP", "GROUP", GROUP, consumer, "COUNT", count, "BLOCK", "0", "STREAMS", opt.queue, from);
        c->state = READING;
}

static void stream_work(struct Conn *c) {
        stream_read(c, is_draining() ? "0" : ">");
}

struct StreamEntry {
        const char *id, *payload; /* payload NULL: deleted meanwhile */
        long id_length;
};

/* *2 $id *2 $1 "d" $payload */
static bool stream_entry(const char **at, const char *end, struct StreamEntry *e) {
        const char *field;
        char type;
        long n;

        e->payload = NULL;
        if (!read_number(at, end, &type, &n) || !read_bulk(at, end, &e->id, &e->id_length) ||
            !read_number(at, end, &type, &n))
                return false;
        if (n < 0)
                return true;
        return read_bulk(at, end, &field, &n) && read_bulk(at, end, &e->payload, &n);
}

static void stream_ids(struct Conn *c, const char *at, const char *end, long entries) {
        struct StreamEntry e = { 0 };

        for (long i = 0; i < entries && stream_entry(&at, end, &e); i++) {
                out_format(c, "$%ld\r\n", e.id_length);
                out_bytes(c, e.id, (size_t)e.id_length + 2);
        }
}

/* *1 *2 $key *k (entry)*k: waits for the whole answer; acknowledges and deletes all of it in one write. */
static bool stream_batch(struct Conn *c) {
        const char *at = in_data(c), *end = at + in_left(c), *key;
        struct StreamEntry e = { 0 };
        char type;
        long n, entries;

        if (!read_number(&at, end, &type, &n))
                return false;
        if (n < 0) {
                in_take(c, (size_t)(at - in_data(c)));
                stream_read(c, ">");
                return true;
        }
        if (!read_number(&at, end, &type, &n) || !read_bulk(&at, end, &key, &n) ||
            !read_number(&at, end, &type, &entries))
                return false;

        const char *list = at;
        for (long i = 0; i < entries; i++)
                if (!stream_entry(&at, end, &e))
                        return false;
        size_t used = (size_t)(at - in_data(c));

        if (entries == 0) {
                in_take(c, used);
                stream_read(c, ">");
                return true;
        }

        at = list;
        for (long i = 0; i < entries; i++)
                if (stream_entry(&at, end, &e) && e.payload)
                        done_sent(c, task_received(e.payload));
        out_format(c, "*%ld\r\n$4\r\nXACK\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", 3 + entries, strlen(opt.queue), opt.queue,
                   strlen(GROUP), GROUP);
        stream_ids(c, list, end, entries);
        out_format(c, "*%ld\r\n$4\r\nXDEL\r\n$%zu\r\n%s\r\n", 2 + entries, strlen(opt.queue), opt.queue);
        stream_ids(c, list, end, entries);
        in_take(c, used);
        c->state = ACKING;
        return true;
}

static bool stream_work_input(struct Conn *c) {
        size_t n;
        const char *line = in_line(c, &n);

        if (!line)
                return false;
        if (c->state == READING && *line == '*')
                return stream_batch(c);

        bool ok = c->state != READING && *line == ':';
        if (!ok)
                protocol_error(line, n);
        in_take(c, n);
        if (c->state == ACKING) {
                while (c->flight.n_open)
                        done_answered_next(c, ok);
                c->state = DELETING;
        } else {
                stream_read(c, ">");
        }
        return true;
}

const struct Protocol proto_redis_stream = {
        .name = "redis-stream",
        .per_put = 1,
        .setup = stream_setup,
        .prepare = stream_prepare,
        .put = list_put,
        .put_input = stream_put_input,
        .work = stream_work,
        .work_input = stream_work_input,
};
