/* SPDX-License-Identifier: MIT */
/*
 * eqd: MessagePack-RPC on its Unix socket. eqd sends the request `run` to a worker, whose response is the completion and has
 * no answer. Bytes are made and read by hand here, as for the other servers; eqd's own scanner finds where messages end.
 */
#include "proto/codec.h"
#include "proto/scan.h"

#include "qload.h"

enum { MANY = 100, MESSAGE_MAX = 1 << 24 };

/* ---- what is written ---- */

static void big_endian(char *at, uint32_t value, unsigned bytes) {
        while (bytes-- > 0) {
                at[bytes] = (char)value;
                value >>= 8;
        }
}

/* Type byte and length. */
static void out_sized(struct Conn *c, uint8_t type, uint32_t value, unsigned bytes) {
        char *at = out_room(c, 1 + bytes);

        at[0] = (char)type;
        big_endian(at + 1, value, bytes);
        c->out.end += 1 + bytes;
}

static void out_str(struct Conn *c, const char *text) {
        out_sized(c, 0xd9, (uint32_t)strlen(text), 1);
        out_bytes(c, text, strlen(text));
}

static void out_bin(struct Conn *c, const char *data, uint32_t n) {
        out_sized(c, 0xc6, n, 4);
        out_bytes(c, data, n);
}

/* The start of a request: an array of four, request, message id. */
static void out_request(struct Conn *c, uint32_t tag) {
        out_literal(c, "\x94");
        out_sized(c, 0x00, 0, 0);
        out_sized(c, 0xce, tag, 4);
}

/* ---- what is read ---- */

/* The next message and its length, or 0. */
static size_t next_message(const struct Conn *c, EqMessage *m) {
        EqScan scan = EQ_SCAN_NULL;
        int r = eq_scan(&scan, in_data(c), in_left(c), MESSAGE_MAX);

        if (r == EQ_SCAN_MORE)
                return 0;
        if (r < 0 || eq_message_parse(eq_bytes(in_data(c), scan.pos), m) < 0) {
                protocol_error(in_data(c), in_left(c) < 100 ? in_left(c) : 100);
                return in_left(c); /* there is no next message to be found */
        }
        return scan.pos;
}

static void expect_response(struct Conn *c) {
        EqMessage m = { 0 };
        size_t n;

        send_all(c);
        while ((n = next_message(c, &m)) == 0)
                wait_bytes(c, in_left(c) + 1);
        if (m.type != EQ_MSG_RESPONSE || !eq_is_nil(m.error))
                protocol_error(in_data(c), n);
        in_take(c, n);
}

/* ---- the protocol ---- */

static void hello(struct Conn *c) {
        out_request(c, 0);
        out_literal(c, "\xa5hello\x90");
        expect_response(c);
}

/* Parallel and without bounds, like the queues of the other servers: eqd's own are serial, and hold a million tasks. */
static void setup(struct Conn *c) {
        static const char *const set[] = { "executor=worker", "max_active=1000", "max_tasks=100000000",
                                           "max_bytes=100G" };
        unsigned n = sizeof(set) / sizeof(set[0]);

        out_request(c, 0);
        out_literal(c, "\xacqueue_create\x92");
        out_str(c, opt.queue);
        out_literal(c, "\x82\xa8"
                       "exist_ok\xc3\xa3set");
        out_sized(c, 0xdc, n + 1, 2);
        for (unsigned i = 0; i < n; i++)
                out_str(c, set[i]);
        out_str(c, opt.volatile_queue ? "durable=no" : "durable=yes");
        expect_response(c);
}

/* What follows the message id. */
static void prepare_method(struct Conn *c, const char *method) {
        buffer_format(&c->head, "\xd9%c%s\x92\xd9%c%s", (int)strlen(method), method, (int)strlen(opt.queue), opt.queue);
}

static void prepare(struct Conn *c) {
        prepare_method(c, "submit");
}

static void prepare_many(struct Conn *c) {
        prepare_method(c, "submit_many");
}

static void put(struct Conn *c, uint32_t tag, const char *payload) {
        out_request(c, tag);
        out_head(c);
        out_bin(c, payload, opt.payload);
}

static void put_many(struct Conn *c, uint32_t tag, const char *payloads) {
        out_request(c, tag);
        out_head(c);
        out_sized(c, 0xdc, MANY, 2);
        for (unsigned i = 0; i < MANY; i++)
                out_bin(c, payloads + (size_t)i * opt.payload, opt.payload);
}

static bool put_input(struct Conn *c) {
        EqMessage m = { 0 };
        size_t n = next_message(c, &m);

        if (n == 0)
                return false;
        bool ok = m.type == EQ_MSG_RESPONSE && eq_is_nil(m.error);
        if (!ok)
                protocol_error(in_data(c), n);
        in_take(c, n);
        submit_answered(c, m.msgid, ok);
        return true;
}

/* Credit is a window: as many tasks as this are here and not completed. */
static void work(struct Conn *c) {
        out_request(c, 0);
        out_literal(c, "\xacworker_serve\x92\x91");
        out_str(c, opt.queue);
        out_literal(c, "\x82\xa6"
                       "credit");
        out_sized(c, 0xce, opt.work_depth, 4);
        out_literal(c, "\xa8parallel");
        out_sized(c, 0xce, opt.work_depth, 4);
}

/* run(id, queue, attempt, payload, options) */
static bool run_payload(EqBytes params, EqBytes *ret) {
        EqRun run = { 0 };
        EqDecodeError error;

        if (eq_decode_params(&eq_schema_Run, params, &run, &error) < 0 || run.payload.len < PAYLOAD_MIN)
                return false;
        *ret = run.payload;
        return true;
}

static void complete(struct Conn *c, uint32_t msgid) {
        out_literal(c, "\x94\x01");
        out_sized(c, 0xce, msgid, 4);
        out_literal(c, "\xc0\xc0");
}

static bool work_input(struct Conn *c) {
        EqMessage m = { 0 };
        EqBytes payload;
        size_t n = next_message(c, &m);

        if (n == 0)
                return false;
        if (m.type == EQ_MSG_REQUEST && run_payload(m.params, &payload)) {
                uint64_t seq = task_received(payload.data);

                complete(c, m.msgid);
                done_unanswered(seq);
        } else if (m.type != EQ_MSG_RESPONSE || !eq_is_nil(m.error)) /* that of worker_serve */
                protocol_error(in_data(c), n);
        in_take(c, n);
        return true;
}

const struct Protocol proto_eqd = {
        .name = "eqd",
        .per_put = 1,
        .hello = hello,
        .setup = setup,
        .prepare = prepare,
        .put = put,
        .put_input = put_input,
        .work = work,
        .work_input = work_input,
};

const struct Protocol proto_eqd_many = {
        .name = "eqd-many",
        .per_put = MANY,
        .hello = hello,
        .setup = setup,
        .prepare = prepare_many,
        .put = put_many,
        .put_input = put_input,
};
