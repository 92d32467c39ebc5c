/* SPDX-License-Identifier: MIT */
/* Verbs on queues. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "eqctl/json.h"
#include "eqctl/rows.h"
#include "eqctl/text.h"

static void add_queue(const EqQueue *q, void *userdata) {
        rows_add(userdata, q);
}

int verb_queue_ls(Ctl *ctl) {
        Rows rows;

        int status = ctl_connect(ctl);
        if (!status)
                status = rows_begin(&rows, ctl, &rows_queues);
        if (status)
                return status;
        int r = ctl_each_queue(ctl, add_queue, &rows);
        return rows_end(&rows, r < 0 ? ctl_fail(ctl, r) : 0);
}

/* What the queue is like now, then its attributes, all as key=value. */
static int print_queue(Ctl *ctl, const EqQueue *q) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;
        EqArray set = q->set;
        EqBytes s;

        for (int i = 0; i < eq_schema_Queue.n_fields; i++) {
                if (!field_present(q, i) || i == EQ_IDX_Queue_set)
                        continue;
                text_printf(&b, "%s=", eq_schema_Queue.fields[i].name);
                field_text(ctl, &eq_schema_Queue, q, i, true, &b);
                text_cstr(&b, "\n");
        }
        while (eq_next_bytes(&set, &s) == 1) {
                text_escaped(&b, s);
                text_cstr(&b, "\n");
        }
        return print_buffer(ctl, &b);
}

int verb_queue_show(Ctl *ctl) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqQueueName rec = { 0 };
        EqQueue q = { 0 };
        Rows rows;

        EQ_SET(&rec, QueueName, name, eq_str(ctl->options.operands[0]));
        int status = ctl_call(ctl, EQ_METHOD_QUEUE_SHOW, &rec, &reply);
        if (status)
                return status;
        if (eq_decode_map(&eq_schema_Queue, reply_result(reply), &q, &error) < 0)
                return ctl_fail(ctl, -EBADMSG);
        if (ctl->format == FORMAT_TABLE)
                return print_queue(ctl, &q);
        status = rows_begin(&rows, ctl, &rows_queues);
        if (status)
                return status;
        rows_add(&rows, &q);
        return rows_end(&rows, 0);
}

/* The operands after the name, as encoded elements. */
static int pack_attributes(const Ctl *ctl, EqBuffer *raw, EqArray *ret) {
        msgpack_packer pk = eq_packer(raw);

        for (size_t i = 1; i < ctl->options.n_operands; i++) {
                if (!strchr(ctl->options.operands[i], '=')) {
                        ctl_error(ctl, "`%s`: attributes are KEY=VALUE, as max_active=4; see eqd.queue(5)",
                                  ctl->options.operands[i]);
                        return EXIT_USAGE;
                }
                eq_pack_cstr(&pk, ctl->options.operands[i]);
        }
        uint32_t n = (uint32_t)ctl->options.n_operands - 1;
        if (ctl_has(ctl, FLAG_volatile)) {
                eq_pack_cstr(&pk, "durable=no");
                n++;
        }
        *ret = (EqArray) { .raw = eq_bytes(raw->data, raw->len), .n = n };
        return raw->failed ? ctl_no_memory(ctl) : 0;
}

int verb_queue_create(Ctl *ctl) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        EqQueueCreate rec = { 0 };
        EqArray set;

        int status = pack_attributes(ctl, &raw, &set);
        if (status)
                return status;
        EQ_SET(&rec, QueueCreate, name, eq_str(ctl->options.operands[0]));
        if (set.n > 0)
                EQ_SET(&rec, QueueCreate, set, set);
        if (ctl_has(ctl, FLAG_if_not_exists))
                EQ_SET(&rec, QueueCreate, exist_ok, true);
        return ctl_call(ctl, EQ_METHOD_QUEUE_CREATE, &rec, NULL);
}

int verb_queue_set(Ctl *ctl) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        EqQueueSet rec = { 0 };
        EqArray set;

        int status = pack_attributes(ctl, &raw, &set);
        if (status)
                return status;
        EQ_SET(&rec, QueueSet, name, eq_str(ctl->options.operands[0]));
        EQ_SET(&rec, QueueSet, set, set);
        return ctl_call(ctl, EQ_METHOD_QUEUE_SET, &rec, NULL);
}

/* The same to each queue, in order, up to the first that fails. */
static int each_queue(Ctl *ctl, EqMethodId method, bool waits) {
        uint64_t timeout = 0;
        int status = ctl_get_duration(ctl, FLAG_wait_timeout, &timeout);

        for (size_t i = 0; !status && i < ctl->options.n_operands; i++) {
                EqQueueName rec = { 0 };
                EQ_SET(&rec, QueueName, name, eq_str(ctl->options.operands[i]));
                if (ctl_has(ctl, FLAG_wait_timeout))
                        EQ_SET(&rec, QueueName, timeout_usec, timeout);
                status = waits ? ctl_call_waiting(ctl, method, &rec, NULL) : ctl_call(ctl, method, &rec, NULL);
        }
        return status;
}

int verb_queue_pause(Ctl *ctl) {
        return each_queue(ctl, EQ_METHOD_QUEUE_PAUSE, false);
}

int verb_queue_resume(Ctl *ctl) {
        return each_queue(ctl, EQ_METHOD_QUEUE_RESUME, false);
}

int verb_queue_stop(Ctl *ctl) {
        return each_queue(ctl, EQ_METHOD_QUEUE_STOP, false);
}

int verb_queue_drain(Ctl *ctl) {
        return each_queue(ctl, EQ_METHOD_QUEUE_DRAIN, true);
}

int verb_queue_join(Ctl *ctl) {
        return each_queue(ctl, EQ_METHOD_QUEUE_JOIN, true);
}

int verb_queue_flush(Ctl *ctl) {
        return each_queue(ctl, EQ_METHOD_QUEUE_FLUSH, true);
}

int verb_queue_rm(Ctl *ctl) {
        int status = 0;

        for (size_t i = 0; !status && i < ctl->options.n_operands; i++) {
                EqQueueRm rec = { 0 };
                EQ_SET(&rec, QueueRm, name, eq_str(ctl->options.operands[i]));
                if (ctl_has(ctl, FLAG_yes))
                        EQ_SET(&rec, QueueRm, yes, true);
                status = ctl_call(ctl, EQ_METHOD_QUEUE_RM, &rec, NULL);
                if (status && ctl->client && eq_client_get_error(ctl->client, NULL) == EQ_E_NOT_EMPTY)
                        ctl_note(ctl, "hint: --yes cancels its tasks and removes it");
        }
        return status;
}
