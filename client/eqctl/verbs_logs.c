/* SPDX-License-Identifier: MIT */
/* logs: the output that eqd keeps of an attempt of a task, and with --follow what comes, until it has ended. raw keeps the two
 * streams apart as standard output and standard error; json is a line {"stream", "text"} per chunk. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "eqctl/json.h"
#include "eqctl/rows.h"
#include "eqctl/text.h"

typedef struct Log {
        Ctl *ctl;
        bool json, ended, answered;
        int r;         /* of the call */
        int64_t lines; /* -1: all */
        uint64_t streams;
        int status;
} Log;

static void print_json(Log *l, int64_t stream, EqBytes bytes) {
        _cleanup_buffer_ EqBuffer b = EQ_BUFFER_NULL;

        text_printf(&b, "{\"stream\":\"%s\",\"text\":", stream == EQ_STREAM_STDERR ? "stderr" : "stdout");
        json_string(&b, bytes);
        text_cstr(&b, "}\n");
        l->status = print_buffer(l->ctl, &b);
}

static void print_chunk(Log *l, int64_t stream, EqBytes bytes) {
        FILE *file = stream == EQ_STREAM_STDERR ? stderr : stdout;

        if ((l->streams >> (stream - 1) & 1) == 0 || l->status)
                return;
        if (l->json)
                print_json(l, stream, bytes);
        else if (fwrite(bytes.data, 1, bytes.len, file) != bytes.len) {
                ctl_error(l->ctl, "cannot write: %m");
                l->status = EXIT_FAILURE;
        }
        if (file == stdout && fflush(stdout) != 0)
                l->status = EXIT_FAILURE;
}

static int take_chunk(EqBytes raw, int64_t *ret_stream, EqBytes *ret_bytes) {
        EqArray it;

        if (eq_get_array(raw, &it) < 0 || eq_next_i64(&it, ret_stream) != 1 || eq_next_bytes(&it, ret_bytes) != 1)
                return -EBADMSG;
        return *ret_stream == EQ_STREAM_STDOUT || *ret_stream == EQ_STREAM_STDERR ? 0 : -EBADMSG;
}

static uint64_t count_lines(EqBytes s) {
        uint64_t n = 0;
        for (uint32_t i = 0; i < s.len; i++)
                n += s.data[i] == '\n';
        return n;
}

/* Lines before the last l->lines, over all chunks that are shown. A last line without its end counts as one. */
static uint64_t lines_to_skip(const Log *l, EqArray chunks) {
        EqBytes raw, bytes, last = eq_bytes("", 0);
        uint64_t n = 0;
        int64_t stream;

        if (l->lines < 0)
                return 0;
        while (eq_next_raw(&chunks, &raw) == 1 && take_chunk(raw, &stream, &bytes) == 0)
                if (l->streams >> (stream - 1) & 1) {
                        n += count_lines(bytes);
                        last = bytes;
                }
        n += last.len > 0 && last.data[last.len - 1] != '\n';
        return n > (uint64_t)l->lines ? n - (uint64_t)l->lines : 0;
}

static void print_kept(Log *l, const EqLogsReply *reply) {
        uint64_t skip = lines_to_skip(l, reply->chunks);
        EqArray chunks = reply->chunks;
        EqBytes raw, bytes;
        int64_t stream;

        if (reply->gone)
                ctl_note(l->ctl, "what attempt %" PRIu64 " may have written is gone", reply->attempt);
        if (reply->dropped > 0 && l->lines < 0)
                ctl_note(l->ctl, "%" PRIu64 " bytes before this are gone", reply->dropped);
        while (eq_next_raw(&chunks, &raw) == 1 && take_chunk(raw, &stream, &bytes) == 0) {
                if ((l->streams >> (stream - 1) & 1) == 0)
                        continue;
                while (skip > 0 && bytes.len > 0) {
                        const char *end = memchr(bytes.data, '\n', bytes.len);
                        uint32_t n = end ? (uint32_t)(end + 1 - bytes.data) : bytes.len;
                        skip -= end != NULL;
                        bytes = eq_bytes(bytes.data + n, bytes.len - n);
                }
                if (bytes.len > 0)
                        print_chunk(l, stream, bytes);
        }
}

static void on_logs(eq_call *call, int r, const eq_reply *reply, void *userdata) {
        EqLogsReply kept = { 0 };
        EqDecodeError error;
        Log *l = userdata;

        l->answered = true;
        l->r = r;
        if (r < 0)
                return;
        if (eq_decode_map(&eq_schema_LogsReply, reply_result(reply), &kept, &error) < 0)
                l->r = -EBADMSG;
        else
                print_kept(l, &kept);
        /* `more` is false when nothing will come: then no output_end comes either, or has come already. */
        l->ended |= !kept.more;
}

static void on_output(eq_client *c, const char *method, const void *params, size_t n, void *userdata) {
        Log *l = userdata;
        EqArray it;
        EqIdRef id;
        EqBytes bytes;
        int64_t stream;

        if (strcmp(method, "output_end") == 0)
                l->ended = true;
        else if (strcmp(method, "lost") == 0)
                ctl_error(l->ctl, "some output was lost: it came faster than it was printed");
        if (strcmp(method, "output") != 0 || eq_get_array(eq_bytes(params, n), &it) < 0 || eq_next_id(&it, &id) != 1 ||
            eq_next_i64(&it, &stream) != 1 || eq_next_bytes(&it, &bytes) != 1)
                return;
        if (stream == EQ_STREAM_STDOUT || stream == EQ_STREAM_STDERR)
                print_chunk(l, stream, bytes);
}

static int run_logs(Log *l, const EqLogs *rec) {
        _cleanup_buffer_ EqBuffer params = EQ_BUFFER_NULL;
        eq_client *c = l->ctl->client;

        int r = ctl_params(EQ_METHOD_LOGS, rec, &params);
        eq_client_set_notify(c, on_output, l);
        if (r == 0)
                r = eq_client_call_start(c, "logs", params.data, params.len, NULL, 0, on_logs, l, NULL);
        while (r >= 0 && l->r == 0 && l->status == 0 && (!l->answered || (rec->follow && !l->ended)))
                r = eq_client_dispatch(c, EQ_TIMEOUT_NEVER);
        if (l->r < 0 || (r < 0 && !(l->answered && l->ended)))
                l->status = ctl_fail(l->ctl, l->r < 0 ? l->r : r);
        l->ctl->client = eq_client_close(l->ctl->client); /* a call that points to l may be outstanding */
        return l->status;
}

static int log_format(Log *l) {
        const char *format = ctl_get(l->ctl, FLAG_log_output);

        bool raw = format && strcmp(format, "raw") == 0;

        if (raw && ctl_has(l->ctl, FLAG_json)) {
                ctl_error(l->ctl, "--json is not -o raw; give one of them");
                return EXIT_USAGE;
        }
        l->json = ctl_has(l->ctl, FLAG_json) || (format && !raw);
        if (!format || raw || strcmp(format, "json") == 0)
                return 0;
        ctl_error(l->ctl, "--output: logs come as raw or json, not `%s`", format);
        return EXIT_USAGE;
}

int verb_logs(Ctl *ctl) {
        _cleanup_buffer_ EqBuffer raw = EQ_BUFFER_NULL;
        bool out = ctl_has(ctl, FLAG_log_stdout), err = ctl_has(ctl, FLAG_log_stderr);
        Log l = { .ctl = ctl, .lines = -1, .streams = out == err ? 3 : out ? 1 : 2 };
        EqLogs rec = { 0 };
        EqArray ids;

        int64_t attempt = 0;

        int status = ctl_ids(ctl, ctl->options.operands, 1, &raw, &ids);
        if (!status)
                status = ctl_get_number(ctl, FLAG_log_lines, 0, INT64_MAX, &l.lines);
        if (!status)
                status = ctl_get_number(ctl, FLAG_log_attempt, 1, UINT16_MAX, &attempt);
        if (!status)
                status = log_format(&l);
        if (!status)
                status = ctl_connect(ctl);
        if (status)
                return status;
        EQ_SET(&rec, Logs, id, (EqIdRef) { .text = eq_str(ctl->options.operands[0]) });
        EQ_SET(&rec, Logs, streams, l.streams);
        if (attempt > 0)
                EQ_SET(&rec, Logs, attempt, (uint64_t)attempt);
        if (ctl_has(ctl, FLAG_follow))
                EQ_SET(&rec, Logs, follow, true);
        return run_logs(&l, &rec);
}
