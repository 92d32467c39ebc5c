/* SPDX-License-Identifier: MIT */
#pragma once

/* The configuration: eqd.conf(5) and the files of queues, eqd.queue(5), and pools, eqd.pool(5), read and checked as a whole.
 *
 *   DIR/eqd.conf              settings of the daemon and, in [Queue], the defaults of all queues
 *   DIR/eqd.conf.d/X.conf     drop-ins, in the order of their names; what is said last counts
 *   DIR/pools.d/NAME.pool     one pool
 *   DIR/pools.d/NAME.pool.d/X.conf
 *   DIR/queues.d/NAME.queue   one queue
 *   DIR/queues.d/NAME.queue.d/X.conf
 *
 * A Config changes nothing by itself: who loads it applies it, or gives it back. Loop, or the main thread before it runs;
 * reading files and looking up names of users blocks. */

#include <stddef.h>
#include <stdint.h>

#include "base/util.h"
#include "executor/pluginlib.h"
#include "executor/taskspec.h"
#include "manager/attributes.h"
#include "proto/codec.h"

enum { CONFIG_FILE_MAX = 1 << 20 }; /* bytes of one file */

typedef struct ConfigQueue {
        char name[EQ_NAME_MAX + 1];
        QueueAttributes attributes; /* defaults included */
        Identity *run_as;           /* user= with his groups; NULL: whoever submits */
        PluginLibrary *library;     /* that of plugin=; NULL: none */
        char *file;                 /* path, for messages */
        uint64_t digest;            /* of what the file and its drop-ins hold: unchanged files have the same */
} ConfigQueue;

typedef struct ConfigPool {
        char name[EQ_NAME_MAX + 1];
        PoolAttributes attributes; /* defaults included */
        char *file;                /* path, for messages */
        uint64_t digest;           /* as above */
} ConfigPool;

typedef struct Config {
        bool system; /* as it was loaded */
        DaemonSettings daemon;
        uint64_t daemon_set, queue_defaults_set; /* bit i: row i of the table was set at run time, not by a file */
        QueueAttributes queue_defaults;
        Identity *default_run_as;
        ConfigQueue *queues; /* sorted by name */
        size_t n_queues;
        PoolAttributes pool_defaults; /* slots= and stall_thresh= are those of the daemon's settings */
        ConfigPool *pools;            /* sorted by name */
        size_t n_pools;
} Config;

/* Reads everything below dir; what is missing, even dir, is empty. 0, and the caller owns *ret; else a negative errno, and
 * error is "FILE:LINE: what is wrong; what is allowed". -EINVAL: the text of a file; others: reading it.
 * system: as whom commands run is taken from files of root only, else also from those of the user that eqd runs as. */
int config_load(const char *dir, bool system, Config **ret, char *error, size_t error_size);
/* The same, of all mistakes: each is told as it is found, and nothing is kept. 0, or what the first one was. */
typedef void (*ConfigMistakeFunc)(void *userdata, const char *text);
int config_check(const char *dir, bool system, ConfigMistakeFunc each, void *userdata);
Config *config_free(Config *c); /* NULL is fine; returns NULL */
/* Makes c->pool_defaults follow c->daemon. 0 or -ENOMEM. */
int config_settle_pool_defaults(Config *c);
/* Sets a row of the daemon's settings, for a client. On failure nothing has changed. 0, -EINVAL, -ENOMEM. */
int config_set_daemon(Config *c, const Param *row, EqBytes value, char *error, size_t error_size);
bool config_has_pool(const Config *c, const char *name);            /* `default` always */
const ConfigQueue *config_queue(const Config *c, const char *name); /* NULL: no file is of it */
DEFINE_CLEANUP(Config, config_free)
