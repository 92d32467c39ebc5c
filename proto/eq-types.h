/* SPDX-License-Identifier: MIT */
#pragma once

/* Types that the daemon and its clients share. Installed; the enums come from eqd.def. */

#include <stdbool.h>
#include <stdint.h>

/* Names a task for ever: the queue id is never given to another queue, the SEQ never to another task of it. Both are
 * below 2^53. {0, 0} names nothing. */
typedef struct eq_task_id {
        uint64_t queue;
        uint64_t seq;
} eq_task_id;

#define EQ_LIMIT(ID, value, unit, doc) EQ_##ID = (value),
enum {
#include "eqd.def"
};

#define EQ_STATE(ID, name, finished, doc) EQ_STATE_##ID,
typedef enum eq_state {
#include "eqd.def"
        _EQ_STATE_MAX,
        _EQ_STATE_INVALID = -1,
} eq_state;

#define EQ_REASON(ID, name, doc) EQ_REASON_##ID,
typedef enum eq_reason {
#include "eqd.def"
        _EQ_REASON_MAX,
        _EQ_REASON_INVALID = -1,
} eq_reason;

#define EQ_ERROR(ID, code, name, exit_status, doc) EQ_E_##ID = (code),
typedef enum eq_error {
        EQ_E_NONE = 0,
#include "eqd.def"
} eq_error;

#define EQ_EVENT(ID, name, doc) EQ_EVENT_##ID,
typedef enum eq_event {
#include "eqd.def"
        _EQ_EVENT_MAX,
} eq_event;

/* Streams of a task's output, as in the notification `output`. */
enum { EQ_STREAM_STDOUT = 1, EQ_STREAM_STDERR = 2 };
