/* SPDX-License-Identifier: MIT */
/* beanstalkd: text protocol, one job per put and per reserve, answers in order. */
#include <stdlib.h>

#include "qload.h"

static void prepare(struct Conn *c) {
        /* priority 0, delay 0, time to run 120 s */
        buffer_format(&c->head, "put 0 0 120 %u\r\n", opt.payload);
}

static void put(struct Conn *c, uint32_t tag, const char *payload) {
        (void)tag;
        out_head(c);
        out_bytes(c, payload, opt.payload);
        out_literal(c, "\r\n");
}

static bool put_input(struct Conn *c) {
        size_t n;
        const char *line = in_line(c, &n);

        if (!line)
                return false;
        bool ok = n > 8 && memcmp(line, "INSERTED", 8) == 0;
        if (!ok)
                protocol_error(line, n);
        in_take(c, n);
        submit_answered_next(c, ok);
        return true;
}

static void reserve(struct Conn *c) {
        out_literal(c, "reserve\r\n");
}

static void work(struct Conn *c) {
        for (unsigned i = 0; i < opt.work_depth; i++)
                reserve(c);
}

/* Depth 1: reserve, then delete: two round trips. Deeper: the next reserve goes out with the delete. */
static bool work_input(struct Conn *c) {
        size_t n;
        const char *line = in_line(c, &n);

        if (!line)
                return false;
        if (n > 9 && memcmp(line, "RESERVED ", 9) == 0) {
                char *rest;
                unsigned long long id = strtoull(line + 9, &rest, 10);
                size_t length = strtoul(rest, NULL, 10);

                if (in_left(c) < n + length + 2)
                        return false;
                uint64_t seq = task_received(line + n);
                in_take(c, n + length + 2);
                out_format(c, "delete %llu\r\n", id);
                done_sent(c, seq);
                if (opt.work_depth > 1)
                        reserve(c);
                return true;
        }

        bool ok = memcmp(line, "DELETED", n < 7 ? n : 7) == 0;
        if (!ok)
                protocol_error(line, n);
        in_take(c, n);
        done_answered_next(c, ok);
        if (opt.work_depth == 1)
                reserve(c);
        return true;
}

const struct Protocol proto_beanstalkd = {
        .name = "beanstalkd",
        .per_put = 1,
        .prepare = prepare,
        .put = put,
        .put_input = put_input,
        .work = work,
        .work_input = work_input,
};
