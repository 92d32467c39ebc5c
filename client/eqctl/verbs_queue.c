/* SPDX-License-Identifier: MIT */
/* Verbs on queues. */

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "eqctl/rows.h"

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
        if (ctl->format == FORMAT_TABLE && !ctl_has(ctl, FLAG_columns))
                return rows_print_settings(ctl, &eq_schema_Queue, &q, EQ_IDX_Queue_set);
        status = rows_begin(&rows, ctl, &rows_queues);
        if (status)
                return status;
        rows_add(&rows, &q);
        return rows_end(&rows, 0);
}

static int add_attribute(const Ctl *ctl, const char *text, EqBuffer *raw, EqArray *set) {
        msgpack_packer pk = eq_packer(raw);

        eq_pack_cstr(&pk, text);
        *set = (EqArray) { .raw = eq_bytes(raw->data, raw->len), .n = set->n + 1 };
        return raw->failed ? ctl_no_memory(ctl) : 0;
}

int verb_queue_create(Ctl *ctl) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        EqQueueCreate rec = { 0 };
        EqArray set;

        int status = ctl_attributes(ctl, "eqd.queue(5)", &raw, &set);
        if (status == 0 && ctl_has(ctl, FLAG_volatile))
                status = add_attribute(ctl, "durable=no", &raw, &set);
        if (status == 0 && ctl_has(ctl, FLAG_rescuer))
                status = add_attribute(ctl, "rescuer=yes", &raw, &set);
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

        int status = ctl_attributes(ctl, "eqd.queue(5)", &raw, &set);
        if (status)
                return status;
        EQ_SET(&rec, QueueSet, name, eq_str(ctl->options.operands[0]));
        EQ_SET(&rec, QueueSet, set, set);
        return ctl_call(ctl, EQ_METHOD_QUEUE_SET, &rec, NULL);
}

/* People who look at a terminal are told what for: it may take until tomorrow. That it cannot be asked is no reason not to wait. */
static void say_what_is_waited_for(Ctl *ctl, const char *queue) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqQueueName name = { 0 };
        EqQueue q = { 0 };

        EQ_SET(&name, QueueName, name, eq_str(queue));
        if (ctl->quiet || !isatty(STDERR_FILENO) || ctl_try(ctl, EQ_METHOD_QUEUE_SHOW, &name, &reply) < 0 ||
            eq_decode_map(&eq_schema_Queue, reply_result(reply), &q, &error) < 0)
                return;
        uint64_t n = q.running + q.queued + q.waiting;
        if (n > 0)
                ctl_note(ctl, "waiting for %" PRIu64 " task%s of queue %s (%" PRIu64 " running); ^C ends the wait only",
                         n, n > 1 ? "s" : "", queue, q.running);
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
                if (waits && (status = ctl_connect(ctl)) == 0)
                        say_what_is_waited_for(ctl, ctl->options.operands[i]);
                if (status)
                        break;
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

/* Did a file describe it? The next reload brings it back if that is still there. That it cannot be asked is no reason not to remove it. */
static bool has_file(Ctl *ctl, const char *queue) {
        _cleanup_reply_ eq_reply *reply = NULL;
        EqDecodeError error;
        EqQueueName name = { 0 };
        EqQueue q = { 0 };

        EQ_SET(&name, QueueName, name, eq_str(queue));
        return ctl_try(ctl, EQ_METHOD_QUEUE_SHOW, &name, &reply) == 0 &&
               eq_decode_map(&eq_schema_Queue, reply_result(reply), &q, &error) == 0 &&
               !eq_bytes_eq(q.origin, eq_str("runtime"));
}

int verb_queue_rm(Ctl *ctl) {
        int status = ctl_connect(ctl);

        for (size_t i = 0; !status && i < ctl->options.n_operands; i++) {
                const char *queue = ctl->options.operands[i];
                EqQueueRm rec = { 0 };
                EQ_SET(&rec, QueueRm, name, eq_str(queue));
                if (ctl_has(ctl, FLAG_yes))
                        EQ_SET(&rec, QueueRm, yes, true);
                bool comes_back = has_file(ctl, queue);
                status = ctl_call(ctl, EQ_METHOD_QUEUE_RM, &rec, NULL);
                if (!status && comes_back)
                        ctl_note(ctl,
                                 "%s came from a file: while queues.d/%s.queue is there, the next reload or start "
                                 "of eqd makes it again",
                                 queue, queue);
                if (status && ctl->client && eq_client_get_error(ctl->client, NULL) == EQ_E_NOT_EMPTY)
                        ctl_note(ctl, "hint: --yes cancels its tasks and removes it");
        }
        return status;
}
