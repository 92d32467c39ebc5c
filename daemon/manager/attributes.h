/* SPDX-License-Identifier: MIT */
#pragma once

/* Attributes of queues and pools, and settings of the daemon: the structs that the floors' params.def rows make, and their tables.
 *
 * Set from configuration files (manager/config.h) and, those that are settable, by clients. Loop, or the main thread
 * before it runs. Nothing blocks but the look-up of names, which is for files only. */

#include "base/params.h"
#include "engine/queue.h"

/* Numbers of the words in the ENUM rows; on_full is QueueFull. */
typedef enum QueueExecutor {
        QUEUE_EXECUTOR_COMMAND,
        QUEUE_EXECUTOR_WORKER,
        QUEUE_EXECUTOR_PLUGIN,
        _QUEUE_EXECUTOR_MAX,
} QueueExecutor;
typedef enum CommandOutput { COMMAND_OUTPUT_CAPTURE, COMMAND_OUTPUT_NULL } CommandOutput;
typedef enum OnPressure { ON_PRESSURE_ACCEPT, ON_PRESSURE_REJECT } OnPressure;
typedef enum LogEnds { LOG_ENDS_NONE, LOG_ENDS_FAILURES, LOG_ENDS_ALL } LogEnds;
typedef enum CommandIdentity { COMMAND_IDENTITY_SUBMITTER, COMMAND_IDENTITY_OWN } CommandIdentity;
typedef enum RootTasks { ROOT_TASKS_REDUCED, ROOT_TASKS_REFUSE } RootTasks;

/* Durations are members NAME_usec, PARAM_INFINITY: none. user.id, group.id are PARAM_NO_ID where not set. */
#define PARAM(name, type, ...) PARAM_FIELD_##type(name)
typedef struct QueueAttributes {
        QueueParams engine; /* rows of engine/params.def */
#include "executor/params.def"
#include "manager/params.def"
        uint64_t present; /* bit i: row i of queue_attributes_table was set, and is no default */
} QueueAttributes;
#undef PARAM

#define PARAM(name, type, ...) PARAM_FIELD_##type(name)
typedef struct PoolAttributes {
#include "manager/pool.def"
        uint64_t present; /* as above, of pool_attributes_table */
} PoolAttributes;
#undef PARAM

#define SETTING(section, name, type, ...) PARAM_FIELD_##type(name)
typedef struct DaemonSettings {
#include "manager/daemon.def"
} DaemonSettings;
#undef SETTING

extern const ParamTable queue_attributes_table; /* of QueueAttributes; section "Queue" */
extern const ParamTable pool_attributes_table;  /* of PoolAttributes; section "Pool" */
extern const ParamTable daemon_settings_table;  /* of DaemonSettings */

/* What has attributes: objects of one type, with a table, and a mask of 64 bits that says which rows were set. */
typedef struct AttributeKind {
        const ParamTable *table;
        size_t present; /* offset of the mask */
        const char *what, *page;
} AttributeKind;

extern const AttributeKind attributes_of_queues; /* QueueAttributes */
extern const AttributeKind attributes_of_pools;  /* PoolAttributes */

/* A copy of the defaults with nothing set; NULL: the built-in ones. 0 or -ENOMEM, then nothing is owned. */
int attributes_init(const AttributeKind *k, void *a, const void *defaults);
int attributes_copy(const AttributeKind *k, void *ret, const void *from); /* also what is set. 0 or -ENOMEM */
void attributes_deinit(const AttributeKind *k, void *a);

/* The row that a client's key means, in any of its spellings; NULL: none. */
const Param *attributes_find(const AttributeKind *k, const char *key, size_t len);

/* Sets one attribute from a client's `key=value`, any bytes: rows that are settable, users and groups by number only. An
 * empty value takes the default back: that of `defaults`, NULL: the built-in one. On failure nothing has changed, and
 * error says what is wrong and what is allowed. 0, -EINVAL, -ENOMEM. */
int attributes_set(const AttributeKind *k, void *a, const void *defaults, const char *text, size_t len, char *error,
                   size_t error_size);

/* The same for any row and its value, which is UTF-8 without control characters; for files. lookup NULL: no names. */
int attributes_set_row(const AttributeKind *k, void *a, const void *defaults, const Param *row, const char *value,
                       size_t len, const ParamLookup *lookup, char *error, size_t error_size);

/* Gives every row that is not set in a the value of base: new defaults after a reload, or a file below an override.
 * 0; -ENOMEM: some have it, some do not. */
int attributes_rebase(const AttributeKind *k, void *a, const void *base);

bool attributes_is_set(const AttributeKind *k, const void *a, const char *name);

/* Calls back for each attribute, in the order of the tables: its name, its value as text that can be set again, and
 * whether it was set. Ends at the first that returns not 0, and returns that. */
typedef int (*AttributeFunc)(void *userdata, const char *name, const char *value, bool set);
int attributes_each(const AttributeKind *k, const void *a, AttributeFunc func, void *userdata);

/* The same, by type. */
static inline int queue_attributes_init(QueueAttributes *a, const QueueAttributes *defaults) {
        return attributes_init(&attributes_of_queues, a, defaults);
}
static inline int queue_attributes_copy(QueueAttributes *ret, const QueueAttributes *from) {
        return attributes_copy(&attributes_of_queues, ret, from);
}
static inline void queue_attributes_deinit(QueueAttributes *a) {
        attributes_deinit(&attributes_of_queues, a);
}
static inline int queue_attributes_set(QueueAttributes *a, const QueueAttributes *defaults, const char *text,
                                       size_t len, char *error, size_t error_size) {
        return attributes_set(&attributes_of_queues, a, defaults, text, len, error, error_size);
}
static inline int queue_attributes_set_row(QueueAttributes *a, const QueueAttributes *defaults, const Param *row,
                                           const char *value, size_t len, const ParamLookup *lookup, char *error,
                                           size_t error_size) {
        return attributes_set_row(&attributes_of_queues, a, defaults, row, value, len, lookup, error, error_size);
}
static inline int queue_attributes_rebase(QueueAttributes *a, const QueueAttributes *base) {
        return attributes_rebase(&attributes_of_queues, a, base);
}
static inline int queue_attributes_each(const QueueAttributes *a, AttributeFunc func, void *userdata) {
        return attributes_each(&attributes_of_queues, a, func, userdata);
}
static inline int pool_attributes_init(PoolAttributes *a, const PoolAttributes *defaults) {
        return attributes_init(&attributes_of_pools, a, defaults);
}
static inline void pool_attributes_deinit(PoolAttributes *a) {
        attributes_deinit(&attributes_of_pools, a);
}
