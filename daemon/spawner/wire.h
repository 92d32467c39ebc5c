/* SPDX-License-Identifier: MIT */
#pragma once

/* What eqd and eqd-spawner say to each other: fixed structs, one per datagram of a SOCK_SEQPACKET pair, descriptors
 * passed along. Both ends are one build, so host byte order; `magic` and `version` guard against a mixed installation.
 *
 * The spawner is two processes of one program. The keeper holds the capabilities' source: it forks the worker, waits,
 * and when the worker dies it kills every process that is left below it (it is the subreaper) and forks the next one.
 * The worker does all that is said here. Both work in one thread (others of the worker never run, see place.h), take about 1 MB, and never parse a client's bytes: strings
 * of a request go to execve() as they are.
 *
 * A slot is busy from START until ENDED. Requests for a slot carry the run number that START gave, so that a late signal
 * never meets the next task. They also carry the epoch of the worker they are meant for, as its READY gave it: what was
 * on the way when a worker died is dropped by the next one. */

#include <stdint.h>

enum {
        SPAWN_MAGIC = 0x65716470,
        SPAWN_VERSION = 5,
        SPAWN_SLOTS_MAX = 65536,
        SPAWN_GROUPS_MAX = 256,
        SPAWN_RESERVES_MAX = 64,
        SPAWN_RLIMITS_MAX = 16,   /* RLIM_NLIMITS */
        SPAWN_INLINE_MAX = 65536, /* strings up to this ride in the datagram; more come in a memfd */
        SPAWN_STRINGS_MAX = 4194304,
        SPAWN_FD = 3, /* the spawner's end of the socketpair, at exec */
};

typedef enum SpawnType {
        /* eqd -> spawner */
        SPAWN_START = 1, /* SpawnStart, strings, descriptors */
        SPAWN_SIGNAL,    /* SpawnSignal */
        SPAWN_PING,      /* SpawnHeader: SPAWN_PONG is the answer */
        SPAWN_STOCK,     /* SpawnStock */
        SPAWN_RESERVE,   /* SpawnReserve, and a descriptor for the answer, or none */
        /* spawner -> eqd */
        SPAWN_READY, /* SpawnReady: the worker is up, all slots are empty. Again after each restart of the worker */
        SPAWN_LOST, /* SpawnHeader: the worker died, and with it every run; READY follows when what was left is killed */
        SPAWN_STARTED, /* SpawnStarted: exec succeeded, and it still ran a moment later. Short runs have ENDED only */
        SPAWN_ENDED,   /* SpawnEnded: the leader has ended, or was never started */
        SPAWN_PONG,    /* SpawnHeader */
} SpawnType;

typedef struct SpawnHeader {
        uint32_t magic;
        uint16_t version;
        uint16_t type; /* SpawnType */
        uint32_t slot;
        uint32_t epoch; /* of the worker: that of the last SPAWN_READY */
        uint64_t run;   /* counts up per slot; 0 in SPAWN_READY, SPAWN_LOST */
} SpawnHeader;

/* Descriptors of SPAWN_START come in this order, each only if its flag is set. Without it: /dev/null, or a path. */
enum {
        SPAWN_HAS_STDIN = 1 << 0,
        SPAWN_HAS_STDOUT = 1 << 1,
        SPAWN_HAS_STDERR = 1 << 2,
        SPAWN_HAS_STRINGS = 1 << 3,  /* memfd with the strings, instead of inline */
        SPAWN_MERGE = 1 << 4,        /* standard error is a duplicate of standard output */
        SPAWN_SET_IDENTITY = 1 << 5, /* become uid, gid, groups; else stay what the spawner is */
        SPAWN_SET_NICE = 1 << 6,
        SPAWN_SET_IOPRIO = 1 << 7,
};

typedef struct SpawnRlimit {
        uint32_t resource;
        uint32_t pad;
        uint64_t soft, hard;
} SpawnRlimit;

/* Strings that follow, each ended by a NUL: argv (n_argv of them), environment (n_env), cwd, stdout path, stderr path
 * (the last three may be empty: "/" and none). */
typedef struct SpawnStart {
        SpawnHeader header;
        uint32_t flags;
        uint32_t uid, gid;
        uint32_t n_groups;
        uint32_t n_rlimits;
        uint32_t n_argv, n_env;
        uint32_t n_strings; /* bytes */
        int32_t nice;
        uint32_t umask;
        uint32_t ioprio; /* as ioprio_set(2) takes it */
        uint32_t pad;
        uint32_t groups[SPAWN_GROUPS_MAX];
        SpawnRlimit rlimits[SPAWN_RLIMITS_MAX];
} SpawnStart;

/* To the whole tree of the slot: every process of its cgroup, or its process group. SIGKILL uses cgroup.kill. */
typedef struct SpawnSignal {
        SpawnHeader header;
        int32_t signal;
        uint32_t pad;
} SpawnSignal;

/* So many processes are to wait for a command from now on; those that are too many go. */
typedef struct SpawnStock {
        SpawnHeader header;
        uint32_t n;
        uint32_t pad;
} SpawnStock;

/* A process is to wait for commands of this slot only, or not any more. The answer is an int32_t on the descriptor: 0, or the errno
 * with which it could not be made, and then there is none. Without a descriptor it is tried until it is there. */
typedef struct SpawnReserve {
        SpawnHeader header;
        uint32_t on;
        uint32_t pad;
} SpawnReserve;

typedef struct SpawnReady {
        SpawnHeader header;
        int32_t pid;           /* of the worker */
        uint32_t restarts;     /* of the worker so far */
        uint32_t any_identity; /* it may become any user (CAP_SETUID, CAP_SETGID); else only stay its own */
        uint32_t root_allowed; /* uid 0 is not refused */
        uint32_t cgroups;      /* one cgroup per slot; else process groups, also where no cgroup could be made */
        uint32_t killed;       /* processes that the worker before left, also waiting ones */
} SpawnReady;

typedef struct SpawnStarted {
        SpawnHeader header;
        int32_t pid;
        uint32_t pad;
        uint64_t
                start_ticks; /* field 22 of /proc/PID/stat: with pid and boot id the process's name for ever; 0: hidden */
} SpawnStarted;

/* Where starting failed. */
typedef enum SpawnStage {
        SPAWN_STAGE_NONE,    /* it was started */
        SPAWN_STAGE_REQUEST, /* the request was refused: EPERM identity, EINVAL malformed */
        SPAWN_STAGE_FORK,
        SPAWN_STAGE_CGROUP,
        SPAWN_STAGE_IDENTITY,
        SPAWN_STAGE_NICE,
        SPAWN_STAGE_IOPRIO,
        SPAWN_STAGE_LIMITS,
        SPAWN_STAGE_CWD,
        SPAWN_STAGE_STDOUT,
        SPAWN_STAGE_STDERR,
        SPAWN_STAGE_EXEC,
} SpawnStage;

/* Sent once per SPAWN_START, when the leader has ended and every other process of the tree that could be found is gone. */
typedef struct SpawnEnded {
        SpawnHeader header;
        int32_t error;                   /* errno of a failed start, 0 if it was started */
        uint32_t stage;                  /* SpawnStage of that */
        int32_t exit;                    /* exit status, -1 if a signal ended it */
        int32_t signal;                  /* that signal, else 0 */
        uint32_t core;                   /* it dumped core */
        uint32_t strays;                 /* processes killed that outlived the leader */
        uint64_t utime_usec, stime_usec; /* of the leader and what it waited for */
        uint64_t maxrss_kib;
} SpawnEnded;
