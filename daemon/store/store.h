/* SPDX-License-Identifier: MIT */
#pragma once

/* The durable log of queues and tasks. What it keeps of them is bytes; it knows no engine, no socket, no wire.
 *
 *   loop thread:   append, append, ... flush  --batch-->  store thread: write, fdatasync, compact
 *                  dispatch  <--eventfd: durable up to position p--
 *
 * Records have positions: the n-th appended has position n. They become durable in that order. A batch is everything that
 * was appended while the one before it was being synced: the slower the disk, the larger the batches.
 *
 * Failures. EIO, and any sync that fails, is the end: nothing is durable any more and nothing is retried, since the kernel
 * may have dropped what it could not write. No space is none: new tasks are refused while the next segment cannot be made, and
 * what is in hand goes on in the one that is there; a batch that does not fit waits until there is space again.
 *
 * Loop thread unless stated. Only open and close block. */

#include "store/record.h"

typedef struct Store Store;

typedef struct StoreConfig {
        const char *dir;       /* is made; 0700 */
        uint32_t segment_size; /* bytes; 0: 64 MiB */
} StoreConfig;

/* What is there, told while it is opened: what ran, then each queue and behind it its tasks by SEQ, then `done`. Slices end
 * with the call of store_open(). A negative return ends the opening with it. */
typedef struct StoreReader {
        /* It was running when its eqd died. */
        int (*running)(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt);
        int (*queue)(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition);
        int (*gone)(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq);
        /* last: STORE_STATE, STORE_END, or 0 if nothing has become of it */
        int (*task)(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                    StoreBytes last_body);
        int (*done)(void *userdata);
        /* A damaged place: it was copied to `kept`, and is left out. */
        void (*damaged)(void *userdata, const char *file, uint64_t at, uint64_t n_bytes, const char *kept);
        void (*progress)(void *userdata, uint64_t done_bytes, uint64_t all_bytes);
} StoreReader;

/* On failure `error` says what to do. 0; -EBADMSG: a file is no segment; -EPROTONOSUPPORT: of a later version; others as the
 * system has them. */
int store_open(const StoreConfig *config, const StoreReader *reader, void *userdata, char *error, size_t error_size,
               Store **ret);
/* Makes everything durable that was appended, ends the thread. Returns NULL; NULL is fine. */
Store *store_close(Store *s);

typedef struct StoreItem {
        StoreKind kind;
        uint8_t lane;
        uint64_t queue, seq;
        StoreBytes body; /* copied */
} StoreItem;

/* n records, all or none, also over a loss of power. 0; -ENOSPC: no task can be taken now (TASK and QUEUE only); -EMSGSIZE:
 * more than a quarter of a segment; -EIO: the store has failed; -ENOMEM. */
int store_append(Store *s, const StoreItem *items, size_t n);
/* From now on it has failed, with this errno: something could not be appended that must not be lost. */
void store_fail(Store *s, int error);
const uint64_t *store_written(const Store *s); /* position of the newest record; stays where it is */

/* Hands what was appended to the thread, if that is free: at the end of each turn of the loop. */
void store_flush(Store *s);

typedef enum StoreHealth { STORE_GOOD, STORE_FULL, STORE_FAILED } StoreHealth;
int store_fd(const Store *s); /* readable: call dispatch */
/* Durable up to *ret_position. FAILED: for ever. */
StoreHealth store_dispatch(Store *s, uint64_t *ret_position);
StoreHealth store_health(const Store *s);
int store_error(const Store *s); /* errno of what failed or is full, negative; 0 */

/* Marks of running tasks: in memory that outlives the process, not the machine. slot: STORE_MARK_NONE if there are too
 * many. */
enum { STORE_MARKS = 65536, STORE_MARK_NONE = -1 };
int store_mark(Store *s, uint64_t queue, uint64_t seq, uint32_t attempt);
void store_unmark(Store *s, int slot);

typedef struct StoreStats {
        uint64_t n_segments, bytes, live_bytes, n_tasks;
        uint64_t n_commits, n_records, n_moved; /* since it was opened */
        uint64_t commit_usec_max, commit_usec_sum;
} StoreStats;
void store_stats(Store *s, StoreStats *ret); /* waits for no disk */
