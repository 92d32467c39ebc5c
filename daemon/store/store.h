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
 * may have dropped what it could not write. No space is none, nor are descriptors that are short: new tasks are refused while the
 * next segment cannot be made, and what is in hand goes on in the one that is there, the reserve; a batch that does not fit waits
 * until there is space again, and store_is_spent() says so meanwhile. They are refused before that already, while its file system
 * has less left than the low-water mark: then all else goes on, and segments are made for it.
 *
 * Reading. Bodies of tasks that were not told when the store was opened are fetched by a reader thread:
 *
 *   loop thread:   fetch  --list-->  reader thread: pread      dispatch calls `done`
 *
 * Loop thread unless stated. What blocks says so. */

#include <sys/types.h>

#include "store/latency.h"
#include "store/record.h"

typedef struct Store Store;

typedef struct StoreConfig {
        const char *dir;       /* is made; 0700 */
        uint32_t segment_size; /* bytes; 0: 64 MiB */
        const char *boot;      /* 16 bytes; NULL: those of this machine. Others: power was lost since */
        bool keep_marks;       /* those that are there stay until store_unmark_found() */
        uint64_t low_water;    /* see store_set_low_water() */
} StoreConfig;

enum { STORE_LOOKS_USEC = 1000000 }; /* without space, or with little, it looks so often whether there is more */
enum { STORE_BEGIN = 12 };           /* so much of a task's body is known without reading it */

/* What is wrong with a mark of a running task. */
typedef enum StoreMarkDamage {
        STORE_MARK_MENDED,  /* a bit was wrong, and could be told: `running` comes as well */
        STORE_MARK_NOTHING, /* likewise, and nothing was marked */
        STORE_MARK_LOST,    /* nobody knows what it marked: queue and seq are what can be read of it */
        STORE_MARK_PROCESS, /* which process it was is not known: nothing is done to it. `running` comes as well */
        STORE_MARK_HEADER,  /* the same of all of them; no slot */
        STORE_MARK_HEADER_MENDED, /* a bit of the header was wrong; no slot */
} StoreMarkDamage;

/* What is there, told while it is opened: what ran; each queue and behind it its tasks, by SEQ; then `done`. With `brief`: each
 * queue; tasks by what they begin with, in no order; the others, by queue and SEQ; then `done`. Slices end with their call. A
 * negative return ends the opening with it. */
typedef struct StoreReader {
        /* It was running when its eqd died. NULL is fine. */
        int (*running)(void *userdata, uint64_t queue, uint64_t seq, uint32_t attempt);
        int (*mark_damaged)(void *userdata, StoreMarkDamage what, int slot, uint64_t queue,
                            uint64_t seq); /* NULL is fine */
        int (*queue)(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition);
        int (*gone)(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq);
        /* A task that nothing has become of: STORE_BEGIN bytes of its body or less, and its length. 1: no more is wanted, it
         * can be fetched; 0: `task` is to tell it. NULL: always 0. */
        int (*brief)(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes begin, uint32_t len);
        /* last: STORE_STATE, STORE_END, or 0 if nothing has become of it */
        int (*task)(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                    StoreBytes last_body);
        int (*done)(void *userdata); /* NULL is fine */
        /* A damaged place: it was copied to `kept`, and is left out. */
        void (*damaged)(void *userdata, const char *file, uint64_t at, uint64_t n_bytes, const char *kept);
        /* Something of that file cannot be read. It is tried again for so long, and waited for; then it is damaged. NULL is fine. */
        void (*unread)(void *userdata, const char *file, unsigned seconds);
        /* A file is not as it should be; nothing is lost by that. */
        void (*noticed)(void *userdata, const char *file, const char *what);
        void (*progress)(void *userdata, uint64_t done_bytes, uint64_t all_bytes);
} StoreReader;

/* On failure `error` says what to do. 0; -EBADMSG, -ENODATA: a file is no segment, or not as it was made; -EPROTONOSUPPORT,
 * -EPROTOTYPE: of a later version, of an earlier one; -EEXIST: a name that eqd needs is taken; others as the system has them. Nothing
 * was written to that file. */
int store_open(const StoreConfig *config, const StoreReader *reader, void *userdata, char *error, size_t error_size,
               Store **ret);
/* Waits until everything is durable that was appended. 0, or negative errno: it is not, and will not be. Blocks. */
int store_settle(Store *s);
/* Waits until everything is durable that was appended before, but no longer than that; the loop has to go on meanwhile and to hand
 * it over. 0, or negative errno: -ETIMEDOUT, or why not. Any thread; the store stays open meanwhile. */
int store_wait(Store *s, uint64_t usec);
/* The same as store_settle(), and ends the thread. Returns NULL; NULL is fine. */
Store *store_close(Store *s);

typedef struct StoreItem {
        StoreKind kind;
        uint8_t lane;
        uint64_t queue, seq;
        StoreBytes body; /* copied */
        bool is_rest;    /* a TASK that was taken long ago: written also without space for more, as its end is */
} StoreItem;

/* n records, all or none, also over a loss of power. 0; -ENOSPC: no task can be taken now (TASK only); -EMSGSIZE:
 * more than a quarter of a segment; -EIO: the store has failed; -ENOMEM. */
int store_append(Store *s, const StoreItem *items, size_t n);
/* From now on it has failed, with this errno: something could not be appended that must not be lost. dispatch is to be called. */
void store_fail(Store *s, int error);
const uint64_t *store_written(const Store *s); /* position of the newest record; stays where it is */

/* Hands what was appended to the thread, if that is free: at the end of each turn of the loop. */
void store_flush(Store *s);

/* LOW: there is little space; FULL: there is none. Both: no new tasks. */
typedef enum StoreHealth { STORE_GOOD, STORE_LOW, STORE_FULL, STORE_FAILED } StoreHealth;
int store_fd(const Store *s); /* readable: call dispatch */
/* Durable up to *ret_position. FAILED: for ever. */
StoreHealth store_dispatch(Store *s, uint64_t *ret_position);
StoreHealth store_health(const Store *s);
/* LOW while its file system has less than so many bytes left, and then until an eighth more is; of a small file system no more than
 * a tenth counts. 0: never. Looked at when a segment is made, and otherwise once a second while the store is in use. */
void store_set_low_water(Store *s, uint64_t bytes);
/* What store_health() is, before a task is taken: the first one of a batch has the space looked at here if nobody did for a
 * second, so that none is taken after an idle hour in which it went. LOW is then said by store_dispatch() as well, a moment later. */
StoreHealth store_look(Store *s);
bool store_is_spent(const Store *s); /* FULL, and the reserve is used up: what is appended waits for space */
int store_error(const Store *s);     /* errno of what failed or is full, negative; 0 */

/* Since when something cannot be read, and when it is tried again; monotonic. since: 0: it could be read. */
typedef struct StorePatience {
        uint64_t since_usec, due_usec;
} StorePatience;

/* Bodies of tasks, as they were appended. */
typedef struct StoreFetched {
        uint64_t seq; /* wanted */
        int result; /* 0; -ENOENT: there is no such task; -EBADMSG, -EIO: it cannot be read; -ENOMEM; -ECANCELED: closed */
        uint8_t lane;
        uint32_t len;
        size_t at; /* of the body, in StoreFetch::data */
} StoreFetched;

/* The store's from store_fetch() until done() is called, from store_dispatch() or store_close(). */
typedef struct StoreFetch StoreFetch;
struct StoreFetch {
        StoreFetch *next;       /* the store's */
        StorePatience patience; /* likewise */
        uint64_t queue;
        StoreFetched *tasks; /* n of them; the caller's */
        size_t n;
        char *data; /* for free(), by the caller */
        size_t len, cap;
        void (*done)(StoreFetch *f);
};
void store_fetch(Store *s, StoreFetch *f);
void store_fetch_now(Store *s, StoreFetch *f); /* blocks; done is not called. While eqd starts */

/* Damage that was found since the store was opened: a record that is not served. */
typedef struct StoreDamage {
        char file[32], kept[64];
        uint64_t at, n_bytes;
} StoreDamage;
bool store_next_damage(Store *s, StoreDamage *ret); /* false: no more, for now */

/* Something cannot be read, since the store was opened. It is tried again for so many seconds; if that does not help it is damaged. What
 * needs it waits: a fetch, or compaction (StoreStats::unread). */
typedef struct StoreUnread {
        char file[32];
        unsigned seconds;
} StoreUnread;
bool store_next_unread(Store *s, StoreUnread *ret); /* false: no more, for now */

/* Marks of running tasks: in memory that outlives the process, not the machine. slot: STORE_MARK_NONE if there are too
 * many, and fine for all others. They stay when the store is closed: what came of a run is to be on the disk before. */
enum { STORE_MARKS = 65536, STORE_MARK_NONE = -1 };
int store_mark(Store *s, uint64_t queue, uint64_t seq, uint32_t attempt);
/* One that counts from when *ret_value is stored in **ret_word, which any thread may do until it is unmarked. */
int store_mark_ready(Store *s, uint64_t queue, uint64_t seq, uint32_t attempt, _Atomic uint64_t **ret_word,
                     uint64_t *ret_value);
void store_mark_set(Store *s, int slot); /* the same, where no thread does it */
void store_unmark(Store *s, int slot);
size_t store_n_free_marks(const Store *s);
void store_unmark_found(Store *s); /* when what came of those runs is on the disk */

/* A process, for ever: with pid 0, or ticks 0, it is not known. */
typedef struct StoreProcess {
        pid_t pid;
        uint64_t start_ticks; /* field 22 of /proc/PID/stat */
} StoreProcess;
enum { STORE_SPAWNER = 2 };                                         /* it is so many processes */
void store_mark_process(Store *s, int slot, const StoreProcess *p); /* the run is this one */
void store_note_spawner(Store *s, const StoreProcess *p);           /* STORE_SPAWNER of them, for the next eqd */

/* What may be left of an eqd that was killed: the processes of its marks, if they are of this boot. Without a store, or with one
 * that store_open() would refuse, there are none. Changes nothing; blocks. */
typedef struct StoreLeftover {
        uint64_t queue, seq;
        uint32_t attempt;
        StoreProcess process;
} StoreLeftover;
typedef struct StoreLeftovers {
        StoreProcess spawner[STORE_SPAWNER];
        StoreLeftover *runs; /* n of them; for free() */
        size_t n;
} StoreLeftovers;
/* boot: as in StoreConfig. 0 or negative errno; *ret is always set. */
int store_leftovers(const char *dir, const char *boot, StoreLeftovers *ret);

typedef struct StoreStats {
        uint64_t n_segments, bytes, live_bytes, n_tasks;
        uint64_t n_commits, n_records, n_moved; /* since it was opened */
        uint64_t open_bytes;                    /* that were read while it was opened */
        uint64_t n_hints_used, n_hints;         /* segments that were opened by their hints; hints written since */
        uint64_t oldest, newest;                /* numbers of segments */
        uint64_t moved_bytes;                   /* by compaction, since it was opened */
        uint64_t free_bytes, low_water; /* of its file system when it was last looked at; the mark as it counts */
        uint64_t n_damaged;             /* damaged places found and kept aside, while it was opened and since */
        uint64_t unread; /* number of the segment that compaction waits for, since it cannot be read; 0: none */
        Latency commits; /* since it was opened */
} StoreStats;
void store_stats(Store *s, StoreStats *ret);                         /* waits for no disk */
const char *store_directory(const Store *s, char *buf, size_t size); /* where it is now, absolute; "": not known */
/* Bytes of what lives of that queue; 0: there is none. Waits for nothing; what has just become durable may not be counted yet. */
uint64_t store_queue_bytes(const Store *s, uint64_t queue);
