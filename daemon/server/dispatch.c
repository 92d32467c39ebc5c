/* SPDX-License-Identifier: MIT */
/* Message -> method -> parameters -> handler, all by the tables of eqd.def. Parameters are decoded into one buffer on the
 * stack that fits the largest of them; they point into the message and end with the call. */

#include "server/dispatch.h"

#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/util.h"
#include "server/introspect.h"
#include "server/output.h"
#include "server/server.h"

/* ---- methods of the server itself ---- */

static void handle_hello(void *host, const Request *rq, const void *params) {
        const EqHello *hello = params;
        EqHelloReply reply = { 0 };
        uint64_t version = EQ_HAS(hello, Hello, version) ? hello->version : EQ_PROTOCOL;

        if (version == 0) {
                request_error_with(rq, EQ_E_INVALID, &ERROR_FIELD("version"),
                                   "there is no protocol 0; this eqd speaks 1 to %d", EQ_PROTOCOL);
                return;
        }
        if (EQ_HAS(hello, Hello, client) && eq_text_valid(hello->client))
                log_debug("session %llu: client %.*s", (unsigned long long)rq->session->number, (int)hello->client.len,
                          hello->client.data);
        EQ_SET(&reply, HelloReply, protocol, MIN(version, (uint64_t)EQ_PROTOCOL));
        EQ_SET(&reply, HelloReply, version, eq_str(EQD_VERSION));
        EQ_SET(&reply, HelloReply, connection, rq->session->number);
        EQ_SET(&reply, HelloReply, max_message, EQ_MESSAGE_MAX);
        EQ_SET(&reply, HelloReply, max_payload, EQ_PAYLOAD_MAX);
        EQ_SET(&reply, HelloReply, max_batch, EQ_BATCH_MAX);
        EQ_SET(&reply, HelloReply, payload_fd_min, EQ_PAYLOAD_FD_MIN);
        request_reply_record(rq, &eq_schema_HelloReply, &reply);
}

static void handle_api_info(void *host, const Request *rq, const void *params) {
        ReplyWriter w;

        request_reply_begin(rq, &w);
        introspect_pack(&w.packer, rq->session->number);
        request_reply_end(rq, &w);
}

static void handle_ping(void *host, const Request *rq, const void *params) {
        request_reply_nil(rq);
}

static const RequestHandler own_handlers[_EQ_METHOD_MAX] = {
        [EQ_METHOD_HELLO] = handle_hello,
        [EQ_METHOD_API_INFO] = handle_api_info,
        [EQ_METHOD_NVIM_API_INFO] = handle_api_info,
        [EQ_METHOD_PING] = handle_ping,
};

/* ---- dispatch ---- */

#define EQ_METHOD(ID, name, Params, REPLY, Record, ACCESS, KEEPS, since, doc) Eq##Params ID;
typedef union AnyParams {
#include "eqd.def"
} AnyParams;

/* What a client sent, fit to be shown. */
static const char *escape(EqBytes s, char *buf, size_t size) {
        size_t n = 0;

        for (uint32_t i = 0; i < s.len; i++) {
                unsigned char c = (unsigned char)s.data[i];
                if (n + 8 > size) {
                        (void)snprintf(buf + n, size - n, "...");
                        return buf;
                }
                n += (size_t)snprintf(buf + n, size - n, c >= 0x20 && c < 0x7f && c != '\\' ? "%c" : "\\x%02x", c);
        }
        buf[n] = '\0';
        return buf;
}

static void call(Request *rq, EqMethodId id, EqBytes raw) {
        RequestHandler handler = own_handlers[id] ?: rq->session->server->handlers[id];
        AnyParams params;
        EqDecodeError error;

        if (rq->method->access == EQ_ACCESS_ADMIN && !rq->session->admin) {
                request_error(rq, EQ_E_DENIED,
                              "%s is for administrators: root, eqd's own user, and admin_group= of "
                              "eqd.conf",
                              rq->method->name);
                return;
        }
        if (!handler) {
                request_error(rq, EQ_E_METHOD, "this eqd does not offer %s", rq->method->name);
                return;
        }
        if (eq_decode_params_split(rq->method->params, raw, &params, &rq->options, &error) < 0) {
                EqErrorDetails details = error_details(&error);
                request_error_with(rq, EQ_E_INVALID, &details, "%s: %s", rq->method->name, error.text);
                return;
        }
        handler(rq->session->server->host, rq, &params);
}

/* An answer that speaks of a change waits until that is durable. */
static void call_durably(Request *rq, EqMethodId id, EqBytes raw) {
        Session *s = rq->session;
        const uint64_t *written = s->server->written;
        if (!written) {
                call(rq, id, raw);
                return;
        }
        uint64_t before = *written;
        s->answer_from = s->sent + output_pending(s);
        call(rq, id, raw);
        if (*written != before)
                output_hold(s, MAX(s->answer_from, s->sent), *written);
        s->answer_from = UINT64_MAX;
}

/* Notifications whose names begin with $/ are hints (such as $/cancel); one that is not known may be ignored. */
static bool is_hint(const EqMessage *m) {
        return m->type == EQ_MSG_NOTIFY && m->method.len >= 2 && m->method.data[0] == '$' && m->method.data[1] == '/';
}

int dispatch_message(Session *s, EqBytes raw) {
        EqMessage m;
        char name[80];

        if (eq_message_parse(raw, &m) < 0) {
                dispatch_bad_frame(s, raw, -EBADMSG);
                return -EBADMSG;
        }
        if (m.type == EQ_MSG_RESPONSE) {
                s->server->hooks->session_response(s->server->host, s, &m);
                return 0;
        }

        Request rq = { .session = s, .msgid = m.msgid, .params = m.params, .notify = m.type == EQ_MSG_NOTIFY };
        EqMethodId id = eq_method_find(m.method);
        if (id != _EQ_METHOD_INVALID) {
                rq.method = &eq_methods[id];
                call_durably(&rq, id, m.params);
        } else if (!is_hint(&m))
                request_error_with(&rq, EQ_E_METHOD,
                                   &(EqErrorDetails) { .present = EQ_BIT(ErrorDetails, method), .method = m.method },
                                   "unknown method '%s'; api_info lists the methods that there are",
                                   escape(m.method, name, sizeof(name)));
        return 0;
}

/* ---- bad frames ---- */

/* The id of a request, [0, id, ...], of which only the beginning can be trusted. 0 if it cannot be made out. */
static uint32_t guess_msgid(EqBytes b) {
        EqScan scan = EQ_SCAN_NULL;
        uint64_t id;

        if (b.len < 3 || (unsigned char)b.data[0] != 0x94 || b.data[1] != EQ_MSG_REQUEST)
                return 0;
        if (eq_scan(&scan, b.data + 2, b.len - 2, EQ_MESSAGE_MAX) != EQ_SCAN_DONE ||
            eq_get_u64(eq_bytes(b.data + 2, scan.pos), &id) < 0 || id > UINT32_MAX)
                return 0;
        return (uint32_t)id;
}

void dispatch_bad_frame(Session *s, EqBytes beginning, int error) {
        Request rq = { .session = s, .msgid = guess_msgid(beginning) };

        switch (error) {
        case -EMSGSIZE:
                request_error_with(&rq, EQ_E_TOO_LARGE, &ERROR_LIMIT(EQ_MESSAGE_MAX),
                                   "a message may have %d bytes, this one is larger; the connection is closed",
                                   EQ_MESSAGE_MAX);
                break;
        case -EDQUOT:
                request_error(&rq, EQ_E_LIMIT, "this user has too many %s; finish some, then connect again",
                              user_resource_name(USER_INPUT_BYTES));
                break;
        case -ENOBUFS:
        case -ENOMEM:
                request_error(&rq, EQ_E_NO_MEMORY, "no memory for a message of this size now; connect again later");
                break;
        default:
                request_error(&rq, EQ_E_PROTOCOL,
                              "this is no MessagePack-RPC message: [0, id, method, params], [1, id, error, result] or "
                              "[2, method, params]; the connection is closed");
        }
}
