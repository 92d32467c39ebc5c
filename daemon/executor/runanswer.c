/* SPDX-License-Identifier: MIT */
/* A response is good for generic clients in its simple forms: nil or bytes for a result, a text or [code, text] for an
 * error. Who has more to say sends a map, the record RunAnswer, in either place.
 *
 * A response that is none of these ends the attempt as failed: its worker believes that it has answered, so waiting for
 * more would be waiting for ever. */

#include "executor/runanswer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SAYS(a, member, ...) EQ_SET(&(a)->details, ErrorDetails, member, __VA_ARGS__)

static void refuse(RunAnswer *a, eq_error code, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void refuse(RunAnswer *a, eq_error code, const char *format, ...) {
        va_list ap;
        va_start(ap, format);
        (void)vsnprintf(a->why, sizeof(a->why), format, ap); /* cut is fine */
        va_end(ap);
        a->verdict = TASK_BAD;
        a->refused = code;
        a->result = eq_bytes(NULL, 0);
        a->text = eq_str(a->why);
        SAYS(a, method, eq_str("run"));
}

static void refuse_record(RunAnswer *a, const EqDecodeError *error) {
        const EqField *f = error->field;
        bool too_large = f && error->beyond && eq_bytes_eq(eq_bytes(f->name, f->name_len), eq_str("result"));
        refuse(a, too_large ? EQ_E_TOO_LARGE : EQ_E_INVALID, "the worker's answer is no RunAnswer: %s", error->text);
        if (f)
                SAYS(a, field, eq_bytes(f->name, f->name_len));
        if (f && error->beyond)
                SAYS(a, limit, f->max);
}

static void take_record(RunAnswer *a, EqBytes raw, uint16_t attempt, bool bad) {
        EqRunAnswer rec = { 0 };
        EqDecodeError error;
        if (eq_decode_map(&eq_schema_RunAnswer, raw, &rec, &error) < 0) {
                refuse_record(a, &error);
                return;
        }
        if (rec.present == 0 && raw.len > 1) {
                refuse(a, EQ_E_INVALID, "the worker's answer is a map without any key of RunAnswer; a result is bytes");
                return;
        }
        if (EQ_HAS(&rec, RunAnswer, attempt) && rec.attempt != attempt) {
                refuse(a, EQ_E_NO_LEASE, "the worker answered for attempt %llu; it was given attempt %u",
                       (unsigned long long)rec.attempt, (unsigned)attempt);
                SAYS(a, attempt, rec.attempt);
                a->verdict = TASK_LOST;
                return;
        }
        a->result = rec.result;
        a->exit = EQ_HAS(&rec, RunAnswer, exit) ? (int)rec.exit : -1;
        if (!bad)
                return;
        a->text = rec.text;
        a->final = rec.final;
        a->says_when = EQ_HAS(&rec, RunAnswer, retry_after_usec);
        a->retry_after_usec = rec.retry_after_usec;
        if (rec.give_back)
                a->verdict = TASK_RETURNED;
}

static void take_error(RunAnswer *a, EqBytes error, uint16_t attempt) {
        eq_error code;
        a->verdict = TASK_BAD;
        if (eq_is_map(error))
                take_record(a, error, attempt, true);
        else if (eq_get_bytes(error, &a->text) < 0 && eq_get_error(error, &code, &a->text, NULL) < 0)
                refuse(a, EQ_E_INVALID, "the worker's error is neither a text, nor [code, text], nor a RunAnswer");
        if (!a->refused && !eq_text_valid(a->text))
                a->text = eq_str("the worker's error has a text that is not UTF-8, or has control characters");
}

static void take_result(RunAnswer *a, EqBytes result, uint16_t attempt) {
        if (eq_is_nil(result))
                return;
        if (eq_is_map(result))
                take_record(a, result, attempt, false);
        else if (eq_get_bytes(result, &a->result) < 0)
                refuse(a, EQ_E_INVALID, "the worker's result is neither nil, nor bytes, nor a RunAnswer");
        else if (a->result.len > EQ_RESULT_MAX) {
                refuse(a, EQ_E_TOO_LARGE,
                       "the worker's result has %u bytes, more than %d; let it store the result elsewhere",
                       (unsigned)a->result.len, EQ_RESULT_MAX);
                SAYS(a, field, eq_str("result"));
                SAYS(a, limit, EQ_RESULT_MAX);
        }
}

void run_answer_parse(EqBytes error, EqBytes result, uint16_t attempt, RunAnswer *ret) {
        ret->verdict = TASK_OK; /* one by one: most of it is text that is seldom needed */
        ret->refused = EQ_E_NONE;
        ret->final = ret->says_when = false;
        ret->retry_after_usec = 0;
        ret->exit = -1;
        ret->result = ret->text = eq_bytes(NULL, 0);
        ret->why[0] = '\0';
        ret->details.present = 0;
        if (eq_is_nil(error))
                take_result(ret, result, attempt);
        else
                take_error(ret, error, attempt);
}
