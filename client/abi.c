/* SPDX-License-Identifier: MIT */
/* Prints what programs that are linked with libeq rely on beside its symbols: where members of its structs are, and the numbers
 * of its constants. See libeq.abi. */

#include <eq.h>
#include <stddef.h>
#include <stdio.h>

#define SIZE(type) printf("%s: %zu bytes\n", #type, sizeof(type))
#define MEMBER(type, member)                                                                                           \
        printf("%s.%s: at %zu, %zu bytes\n", #type, #member, offsetof(type, member), sizeof(((type *)0)->member))
#define NUMBER(name) printf("%s = %ld\n", #name, (long)(name))

static void structs_of_tasks(void) {
        SIZE(eq_task_id);
        MEMBER(eq_task_id, queue);
        MEMBER(eq_task_id, seq);
        MEMBER(eq_task, size);
        MEMBER(eq_task, argv);
        MEMBER(eq_task, env);
        MEMBER(eq_task, cwd);
        MEMBER(eq_task, label);
        MEMBER(eq_task, payload);
        MEMBER(eq_task, n_payload);
        MEMBER(eq_task, stdout_path);
        MEMBER(eq_task, stderr_path);
        MEMBER(eq_task, rlimits);
        MEMBER(eq_task, at_usec);
        MEMBER(eq_task, delay_usec);
        MEMBER(eq_task, expire_usec);
        MEMBER(eq_task, timeout_usec);
        MEMBER(eq_task, grace_usec);
        MEMBER(eq_task, backoff_usec);
        MEMBER(eq_task, backoff_max_usec);
        MEMBER(eq_task, block_usec);
        MEMBER(eq_task, retries);
        MEMBER(eq_task, nice);
        MEMBER(eq_task, umask);
        MEMBER(eq_task, urgent);
        MEMBER(eq_task, hold);
        MEMBER(eq_task, merge);
        MEMBER(eq_task, attach);
        MEMBER(eq_task, has_retries);
        MEMBER(eq_task, has_nice);
        MEMBER(eq_task, after_ok);
        MEMBER(eq_task, after_any);
        MEMBER(eq_task, after_fail);
        MEMBER(eq_task, n_after_ok);
        MEMBER(eq_task, n_after_any);
        MEMBER(eq_task, n_after_fail);
        MEMBER(eq_task, unique);
        MEMBER(eq_task, on_dup);
        MEMBER(eq_task, also);
        MEMBER(eq_task, ionice);
        MEMBER(eq_task, mime);
        MEMBER(eq_task, array);
        MEMBER(eq_task, array_limit);
}

static void structs_of_links(void) {
        MEMBER(eq_reconnect, size);
        MEMBER(eq_reconnect, first_usec);
        MEMBER(eq_reconnect, max_usec);
        MEMBER(eq_reconnect, give_up_usec);
        MEMBER(eq_reconnect, no_keys);
        MEMBER(eq_link_counts, size);
        MEMBER(eq_link_counts, lost);
        MEMBER(eq_link_counts, repeated);
        MEMBER(eq_link_counts, unanswered);
        MEMBER(eq_link_counts, late);
        MEMBER(eq_link_counts, connected);
        MEMBER(eq_error_details, size);
        MEMBER(eq_error_details, method);
        MEMBER(eq_error_details, field);
        MEMBER(eq_error_details, queue);
        MEMBER(eq_error_details, pool);
        MEMBER(eq_error_details, param);
        MEMBER(eq_error_details, id);
        MEMBER(eq_error_details, attempt);
        MEMBER(eq_error_details, worker);
        MEMBER(eq_error_details, what);
        MEMBER(eq_error_details, limit);
        MEMBER(eq_error_details, pending);
        MEMBER(eq_error_details, retry_after_usec);
        SIZE(eq_status);
        MEMBER(eq_status, id);
        MEMBER(eq_status, state);
        MEMBER(eq_status, reason);
        MEMBER(eq_status, exit_status);
        MEMBER(eq_status, signal);
        MEMBER(eq_status, attempts);
        MEMBER(eq_outcome, size);
        MEMBER(eq_outcome, failed);
        MEMBER(eq_outcome, final);
        MEMBER(eq_outcome, give_back);
        MEMBER(eq_outcome, exit_status);
        MEMBER(eq_outcome, text);
        MEMBER(eq_outcome, result);
        MEMBER(eq_outcome, n_result);
        MEMBER(eq_outcome, retry_after_usec);
}

static void numbers(void) {
        NUMBER(EQ_DUP_SKIP);
        NUMBER(EQ_DUP_REPLACE);
        NUMBER(EQ_DUP_ERROR);
        NUMBER(EQ_LINK_LOST);
        NUMBER(EQ_LINK_BACK);
        NUMBER(EQ_LINK_BROKEN);
        NUMBER(EQ_STREAM_STDOUT);
        NUMBER(EQ_STREAM_STDERR);
        NUMBER(_EQ_STATE_INVALID);
        NUMBER(EQ_STATE_WAITING);
        NUMBER(EQ_STATE_QUEUED);
        NUMBER(EQ_STATE_RUNNING);
        NUMBER(EQ_STATE_DONE);
        NUMBER(EQ_STATE_FAILED);
        NUMBER(EQ_STATE_CANCELED);
        NUMBER(EQ_STATE_EXPIRED);
        NUMBER(EQ_STATE_TIMEOUT);
        NUMBER(EQ_STATE_DEAD);
}

int main(void) {
        structs_of_tasks();
        structs_of_links();
        numbers();
        return 0;
}
