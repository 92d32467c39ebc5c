/* SPDX-License-Identifier: MIT */
/*
 * nats-server: JetStream (work-queue stream, durable pull consumer, explicit acknowledgement) and plain
 * publish. Publish acknowledgements of one stream come in order. "+ACK" of a worker has no answer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "qload.h"

#define STREAM "Q"
#define CONSUMER "W"

/* ---- the text protocol ---- */

static void hello(struct Conn *c, bool verbose) {
        size_t n;
        const char *line = wait_line(c, &n); /* INFO */

        in_take(c, n);
        out_format(c,
                   "CONNECT {\"verbose\":%s,\"pedantic\":false,\"headers\":true,\"no_responders\":true,"
                   "\"lang\":\"c\",\"version\":\"0\",\"protocol\":1}\r\n"
                   "SUB _I.%d.%u.* 1\r\n"
                   "PING\r\n",
                   verbose ? "true" : "false", (int)getpid(), c->id);
        send_all(c);
        do {
                line = wait_line(c, &n);
                in_take(c, n);
        } while (memcmp(line, "PONG", 4) != 0);
}

enum Kind { INCOMPLETE, OTHER, MESSAGE, STATUS };

struct Message {
        const char *reply, *body;
        size_t reply_length, body_length;
        size_t used; /* bytes to take when the message has been dealt with */
};

/* Splits "MSG subject sid [reply] size" or "HMSG subject sid [reply] head-size size" into words. */
static unsigned split(const char *line, size_t n, const char *word[6], size_t length[6]) {
        const char *at = line, *end = line + n - 2;
        unsigned words = 0;

        while (at < end && words < 6) {
                while (at < end && *at == ' ')
                        at++;
                word[words] = at;
                while (at < end && *at != ' ')
                        at++;
                length[words] = (size_t)(at - word[words]);
                words++;
        }
        return words;
}

static enum Kind next_message(struct Conn *c, struct Message *m) {
        size_t n, length[6];
        const char *word[6], *line = in_line(c, &n);

        if (!line)
                return INCOMPLETE;
        m->used = n;
        if (n >= 4 && memcmp(line, "PING", 4) == 0) {
                out_literal(c, "PONG\r\n");
                return OTHER;
        }
        bool with_head = n > 5 && memcmp(line, "HMSG ", 5) == 0;
        if (!with_head && !(n > 4 && memcmp(line, "MSG ", 4) == 0)) {
                if (*line == '-')
                        protocol_error(line, n);
                return OTHER;
        }

        unsigned words = split(line, n, word, length), without_reply = with_head ? 5 : 4;
        size_t total = strtoul(word[words - 1], NULL, 10);
        size_t head = with_head ? strtoul(word[words - 2], NULL, 10) : 0;

        if (in_left(c) < n + total + 2)
                return INCOMPLETE;
        m->reply = words > without_reply ? word[3] : NULL;
        m->reply_length = words > without_reply ? length[3] : 0;
        m->body = line + n + head;
        m->body_length = total - head;
        m->used = n + total + 2;
        return with_head && total == head ? STATUS : MESSAGE;
}

/* ---- JetStream ---- */

static void jetstream_hello(struct Conn *c) {
        hello(c, false);
}

static void api(struct Conn *c, const char *subject, const char *json) {
        size_t n;

        out_format(c, "PUB %s _I.%d.%u.0 %zu\r\n%s\r\n", subject, (int)getpid(), c->id, strlen(json), json);
        send_all(c);
        wait_line(c, &n);
        in_take(c, n);
        const char *line = wait_line(c, &n);
        if (memmem(line, n, "\"error\"", 7) && !is_draining())
                protocol_error(line, n);
        in_take(c, n);
}

/* Subject, storage */
static const char stream_json[] =
        "{\"name\":\"" STREAM "\",\"subjects\":[\"%s\"],\"retention\":\"workqueue\",\"storage\":\"%s\","
        "\"max_msgs\":-1,\"max_bytes\":-1,\"max_consumers\":-1,\"discard\":\"old\",\"num_replicas\":1}";

static const char consumer_json[] =
        "{\"stream_name\":\"" STREAM "\",\"config\":{\"durable_name\":\"" CONSUMER "\","
        "\"ack_policy\":\"explicit\",\"ack_wait\":5000000000,\"max_ack_pending\":50000,\"max_waiting\":4096,"
        "\"deliver_policy\":\"all\",\"replay_policy\":\"instant\"}}";

static void jetstream_setup(struct Conn *c) {
        char json[512];

        snprintf(json, sizeof(json), stream_json, opt.queue, opt.volatile_queue ? "memory" : "file");
        api(c, "$JS.API.STREAM.CREATE." STREAM, json);
        if (opt.n_workers || opt.kill_pid)
                api(c, "$JS.API.CONSUMER.DURABLE.CREATE." STREAM "." CONSUMER, consumer_json);
}

static void jetstream_prepare(struct Conn *c) {
        buffer_format(&c->head, "PUB %s _I.%d.%u.1 %u\r\n", opt.queue, (int)getpid(), c->id, opt.payload);
}

static void put(struct Conn *c, uint32_t tag, const char *payload) {
        (void)tag;
        out_head(c);
        out_bytes(c, payload, opt.payload);
        out_literal(c, "\r\n");
}

static bool jetstream_put_input(struct Conn *c) {
        struct Message m;
        enum Kind kind = next_message(c, &m);

        if (kind == INCOMPLETE)
                return false;
        if (kind == MESSAGE || kind == STATUS) {
                bool ok = kind == MESSAGE && !memmem(m.body, m.body_length, "\"error\"", 7);
                if (!ok)
                        protocol_error(in_data(c), m.used);
                submit_answered_next(c, ok);
        }
        in_take(c, m.used);
        return true;
}

static void pull(struct Conn *c, unsigned batch) {
        char json[64];
        int n = snprintf(json, sizeof(json), "{\"batch\":%u}", batch);

        out_format(c, "PUB $JS.API.CONSUMER.MSG.NEXT." STREAM "." CONSUMER " _I.%d.%u.2 %d\r\n%s\r\n", (int)getpid(),
                   c->id, n, json);
        c->credit += batch;
}

static void jetstream_work(struct Conn *c) {
        pull(c, opt.work_depth);
}

/* Depth 1: acknowledge and pull one in the same write. Deeper: pull when half of the batch has come. */
static bool jetstream_work_input(struct Conn *c) {
        struct Message m;
        enum Kind kind = next_message(c, &m);

        if (kind == INCOMPLETE)
                return false;
        if (kind == MESSAGE && m.reply_length > 7 && memcmp(m.reply, "$JS.ACK", 7) == 0) {
                uint64_t seq = task_received(m.body);

                out_literal(c, "PUB ");
                out_bytes(c, m.reply, m.reply_length);
                out_literal(c, " 4\r\n+ACK\r\n");
                done_unanswered(seq);
                if (c->credit)
                        c->credit--;
                if (c->credit <= opt.work_depth / 2)
                        pull(c, opt.work_depth - c->credit);
        } else if (kind == STATUS) {
                if (!is_draining())
                        protocol_error(in_data(c), m.used);
                c->credit = 0;
                pull(c, opt.work_depth);
        }
        in_take(c, m.used);
        return true;
}

const struct Protocol proto_nats_jetstream = {
        .name = "nats-jetstream",
        .per_put = 1,
        .hello = jetstream_hello,
        .setup = jetstream_setup,
        .prepare = jetstream_prepare,
        .put = put,
        .put_input = jetstream_put_input,
        .work = jetstream_work,
        .work_input = jetstream_work_input,
};

/* ---- plain publish: nothing is stored; "+OK" per publish because of verbose ---- */

static void core_hello(struct Conn *c) {
        hello(c, true);
}

static void core_prepare(struct Conn *c) {
        buffer_format(&c->head, "PUB %s %u\r\n", opt.queue, opt.payload);
}

static bool core_put_input(struct Conn *c) {
        size_t n;
        const char *line = in_line(c, &n);

        if (!line)
                return false;
        if (n >= 3 && memcmp(line, "+OK", 3) == 0)
                submit_answered_next(c, true);
        else if (n >= 4 && memcmp(line, "PING", 4) == 0)
                out_literal(c, "PONG\r\n");
        in_take(c, n);
        return true;
}

static void core_work(struct Conn *c) {
        out_format(c, "SUB %s workers 9\r\n", opt.queue);
}

static bool core_work_input(struct Conn *c) {
        struct Message m;
        enum Kind kind = next_message(c, &m);

        if (kind == INCOMPLETE)
                return false;
        if (kind == MESSAGE)
                done_unanswered(task_received(m.body));
        in_take(c, m.used);
        return true;
}

const struct Protocol proto_nats_core = {
        .name = "nats-core",
        .per_put = 1,
        .hello = core_hello,
        .prepare = core_prepare,
        .put = put,
        .put_input = core_put_input,
        .work = core_work,
        .work_input = core_work_input,
};
