/* SPDX-License-Identifier: MIT */
/*
 * gearmand: binary packets of 12 bytes of header (magic, type, length) and arguments that end in NUL.
 * Background jobs; the unique key of a job is its sequence number. WORK_COMPLETE has no answer.
 */
#include <arpa/inet.h>

#include "qload.h"

enum {
        CAN_DO = 1,
        PRE_SLEEP = 4,
        NOOP = 6,
        JOB_CREATED = 8,
        GRAB_JOB = 9,
        NO_JOB = 10,
        JOB_ASSIGN = 11,
        WORK_COMPLETE = 13,
        SUBMIT_JOB_BG = 18,
};

enum { HEADER = 12, UNIQUE = 16 };

/* c->state of a worker */
enum { AWAKE, ASLEEP };

static void head(struct Conn *c, uint32_t type, uint32_t length) {
        uint32_t words[2] = { htonl(type), htonl(length) };

        out_literal(c, "\0REQ");
        out_bytes(c, words, sizeof(words));
}

static void packet(struct Conn *c, uint32_t type, const char *body, size_t length) {
        head(c, type, (uint32_t)length);
        if (length)
                out_bytes(c, body, length);
}

/* The next packet, or false. */
static bool next_packet(struct Conn *c, uint32_t *type, uint32_t *length) {
        uint32_t words[2];

        if (in_left(c) < HEADER)
                return false;
        memcpy(words, in_data(c) + 4, sizeof(words));
        *type = ntohl(words[0]);
        *length = ntohl(words[1]);
        return in_left(c) >= HEADER + (size_t)*length;
}

static void put(struct Conn *c, uint32_t tag, const char *payload) {
        size_t function = strlen(opt.queue) + 1;
        uint32_t length = (uint32_t)(function + UNIQUE + 1 + opt.payload);

        (void)tag;
        head(c, SUBMIT_JOB_BG, length);
        out_bytes(c, opt.queue, function);
        out_bytes(c, payload, UNIQUE);
        out_bytes(c, "", 1);
        out_bytes(c, payload, opt.payload);
}

static bool put_input(struct Conn *c) {
        uint32_t type, length;

        if (!next_packet(c, &type, &length))
                return false;
        if (type != JOB_CREATED)
                protocol_error(in_data(c) + HEADER, length);
        in_take(c, HEADER + length);
        submit_answered_next(c, type == JOB_CREATED);
        return true;
}

static void grab_all(struct Conn *c) {
        for (unsigned i = 0; i < opt.work_depth; i++)
                packet(c, GRAB_JOB, NULL, 0);
        c->credit = opt.work_depth;
        c->state = AWAKE;
}

static void work(struct Conn *c) {
        packet(c, CAN_DO, opt.queue, strlen(opt.queue));
        grab_all(c);
}

static void job_assigned(struct Conn *c, const char *body) {
        size_t handle = strlen(body) + 1;
        size_t function = strlen(body + handle) + 1;
        uint64_t seq = task_received(body + handle + function);

        packet(c, WORK_COMPLETE, body, handle);
        done_unanswered(seq);
        packet(c, GRAB_JOB, NULL, 0);
}

static bool work_input(struct Conn *c) {
        uint32_t type, length;

        if (!next_packet(c, &type, &length))
                return false;
        switch (type) {
        case JOB_ASSIGN:
                job_assigned(c, in_data(c) + HEADER);
                break;
        case NO_JOB:
                if (--c->credit == 0) {
                        packet(c, PRE_SLEEP, NULL, 0);
                        c->state = ASLEEP;
                }
                break;
        case NOOP:
                if (c->state == ASLEEP)
                        grab_all(c);
                break;
        default:
                protocol_error(in_data(c) + HEADER, length);
                break;
        }
        in_take(c, HEADER + length);
        return true;
}

const struct Protocol proto_gearman = {
        .name = "gearman",
        .per_put = 1,
        .put = put,
        .put_input = put_input,
        .work = work,
        .work_input = work_input,
};
