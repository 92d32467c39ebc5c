/* SPDX-License-Identifier: MIT */
/* A user of the store that tells the recorder what it asks for and what it is promised.
 *
 *      victim DIR SEED COMMITS MAX [kill | faulty]
 *
 * Opens the store, notes what it was told, and appends at random, at most MAX records a commit: tasks alone and in groups,
 * states, ends, queues that go and are made again. With `kill` it ends in the middle of a commit, with an even SEED before its sync; else it closes the store.
 * With `faulty` calls may fail: it looks whether the store says and does then what store.h promises, and its exit status tells
 * how that ended. */

#include "victim.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

enum { QUEUES = 512, TASKS = 1 << 16, GROUP = 12 };

typedef struct Task {
        uint64_t seq;
        bool ended;
} Task;

typedef struct Queue {
        bool there;
        uint64_t last_seq;
        Task *tasks; /* grows; the living and the ended that are not forgotten */
        size_t n, cap;
} Queue;

static Queue queues[QUEUES];
static uint64_t last_of_name[VICTIM_NAMES], id_of_name[VICTIM_NAMES], n_ids;
static uint64_t versions, random_state;
static uint32_t n_groups;
static Store *store;
static bool faulty, was_full;

static uint64_t dice(uint64_t n) {
        random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (random_state >> 33) % n;
}

static _Noreturn void give_up(const char *what) {
        (void)fprintf(stderr, "victim: %s\n", what);
        _exit(3);
}

static void note(TraceType type, TraceItem item) {
        if (trace_note)
                trace_note(type, &item);
}

static void add_task(Queue *q, uint64_t seq, bool ended) {
        if (q->n == q->cap) {
                q->cap = q->cap ? q->cap * 2 : 64;
                q->tasks = realloc(q->tasks, q->cap * sizeof(Task));
                if (!q->tasks)
                        give_up("out of memory");
        }
        q->tasks[q->n++] = (Task) { seq, ended };
}

/* ---- what is there ---- */

static void take_version(uint64_t version) {
        versions = version > versions ? version : versions;
}

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        uint64_t version = 0;
        if (id >= QUEUES || !victim_is_right(id, 0, STORE_QUEUE, definition, &version))
                give_up("a queue is not as it was");
        take_version(version);
        queues[id].there = true;
        queues[id].last_seq = last_seq;
        id_of_name[id % VICTIM_NAMES] = id;
        n_ids = id >= n_ids ? id + 1 : n_ids;
        note(TRACE_FOUND, (TraceItem) { .queue = id, .kind = STORE_QUEUE, .seq = last_seq, .version = version });
        return 0;
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        if (id >= QUEUES)
                give_up("a queue that never was is gone");
        last_of_name[id % VICTIM_NAMES] = last_seq;
        n_ids = id >= n_ids ? id + 1 : n_ids;
        note(TRACE_FOUND, (TraceItem) { .queue = id, .kind = STORE_GONE, .seq = last_seq });
        return 0;
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        uint64_t version = 0;
        if (!victim_is_right(queue, seq, STORE_TASK, task, &version) ||
            (last && !victim_is_right(queue, seq, last, last_body, &version)))
                give_up("a task is not as it was");
        take_version(version);
        add_task(&queues[queue], seq, last == STORE_END);
        /* position tells what became of it */
        note(TRACE_FOUND,
             (TraceItem) {
                     .queue = queue, .kind = STORE_TASK, .seq = seq, .position = last, .version = last ? version : 0 });
        return 0;
}

static int on_done(void *userdata) {
        note(TRACE_OPENED, (TraceItem) { 0 });
        return 0;
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        give_up("damage was told, and there was none");
}

/* ---- what is appended ---- */

static uint64_t position(void) {
        return *store_written(store);
}

static _Noreturn void leave_failed(void) {
        uint64_t before, after;
        (void)store_dispatch(store, &before);
        if (store_append(store, &(StoreItem) { .kind = STORE_END, .queue = 1, .seq = 1 }, 1) != -EIO)
                give_up("a store that has failed took something");
        store_flush(store);
        if (store_dispatch(store, &after) != STORE_FAILED || after != before || store_error(store) >= 0)
                give_up("a store that has failed goes on");
        store_close(store);
        _exit(VICTIM_FAILED);
}

/* False: there is no space for it. */
static bool append(StoreItem *items, size_t n, uint64_t version) {
        uint32_t group = n > 1 ? ++n_groups : 0;
        bool full = store_health(store) == STORE_FULL, grows = items[0].kind == STORE_TASK;
        int r = store_append(store, items, n);
        if (faulty && store_health(store) == STORE_FAILED)
                leave_failed();
        if (r != (full && grows ? -ENOSPC : 0))
                give_up(full ? "without space it does not what it should" : "it could not be appended");
        for (size_t i = 0; i < n && r == 0; i++)
                note(TRACE_ITEM, (TraceItem) { .queue = items[i].queue,
                                               .seq = items[i].seq,
                                               .kind = items[i].kind,
                                               .position = position() + 1 + i - n,
                                               .version = version,
                                               .group = group });
        return r == 0;
}

static bool put(StoreKind kind, uint64_t queue, uint64_t seq) {
        static char body[VICTIM_BODY];
        StoreItem item = { .kind = kind, .queue = queue, .seq = seq };
        uint64_t version = kind == STORE_FORGET ? 0 : ++versions;
        if (kind != STORE_FORGET)
                item.body = (StoreBytes) { body, victim_body(queue, seq, kind, version, body) };
        return append(&item, 1, version);
}

static bool put_queue(StoreKind kind, uint64_t id) {
        static char body[VICTIM_BODY];
        char name[8];
        victim_name(id, name);
        uint32_t n = (uint32_t)strlen(name);
        StoreItem item = { .kind = kind, .queue = id, .seq = queues[id].last_seq };
        body[0] = (char)n;
        memcpy(body + 1, name, n);
        if (kind == STORE_QUEUE)
                n += victim_body(id, 0, kind, ++versions, body + 1 + n);
        item.body = (StoreBytes) { body, n + 1 };
        return append(&item, 1, kind == STORE_QUEUE ? versions : 0);
}

static void make_queue(unsigned name) {
        uint64_t id = n_ids + (VICTIM_NAMES + name - n_ids % VICTIM_NAMES) % VICTIM_NAMES;
        if (id >= QUEUES)
                return;
        queues[id] = (Queue) { .last_seq = last_of_name[name] };
        queues[id].there = put_queue(STORE_QUEUE, id);
        if (!queues[id].there)
                return;
        n_ids = id + 1;
        id_of_name[name] = id;
}

static void remove_queue(uint64_t id) {
        (void)put_queue(STORE_GONE, id); /* needs no space */
        last_of_name[id % VICTIM_NAMES] = queues[id].last_seq;
        free(queues[id].tasks);
        queues[id] = (Queue) { 0 };
}

static void put_tasks(uint64_t id, size_t n) {
        static char bodies[GROUP * VICTIM_BODY];
        StoreItem items[GROUP];
        size_t at = 0, k = 0;
        for (; k < n && at < VICTIM_BODY; k++) {
                uint64_t seq = queues[id].last_seq + 1 + k;
                uint32_t len = victim_body(id, seq, STORE_TASK, 0, bodies + at);
                items[k] = (StoreItem) { .kind = STORE_TASK, .queue = id, .seq = seq, .body = { bodies + at, len } };
                if (k > 0 && at + len + (k + 1) * 40 > VICTIM_SEGMENT / 4)
                        break;
                at += len;
        }
        if (!append(items, k, 0))
                return;
        for (size_t i = 0; i < k; i++)
                add_task(&queues[id], items[i].seq, false);
        queues[id].last_seq += k;
}

static void step(void) {
        unsigned name = (unsigned)dice(VICTIM_NAMES);
        uint64_t id = id_of_name[name];
        Queue *q = &queues[id];
        if (!q->there || id % VICTIM_NAMES != name) {
                make_queue(name);
                return;
        }
        uint64_t what = dice(1000);
        if (what < 3)
                remove_queue(id);
        else if (what < 15)
                (void)put_queue(STORE_QUEUE, id);
        else if (what < 300)
                put_tasks(id, 1);
        else if (what < 340)
                put_tasks(id, 2 + dice(GROUP - 1));
        else if (q->n > 0) {
                size_t i = name < 2 ? q->n - 1 : dice(q->n); /* of two names, old tasks stay */
                Task *t = &q->tasks[i];
                if (what < 450)
                        (void)put(STORE_STATE, id, t->seq), t->ended = false;
                else if (what < 700)
                        (void)put(STORE_END, id, t->seq), t->ended = true;
                else if (t->ended) {
                        (void)put(STORE_FORGET, id, t->seq);
                        q->tasks[i] = q->tasks[--q->n];
                }
        }
}

static void take_durable(uint64_t durable) {
        static uint64_t before;
        if (durable > before)
                note(TRACE_DURABLE, (TraceItem) { .position = durable });
        before = durable;
}

/* There may be none for as long as it lives: it leaves what it has in hand then. */
static _Noreturn void leave_full(void) {
        store_close(store);
        _exit(VICTIM_FULL);
}

static void commit(void) {
        uint64_t durable = 0;
        StoreHealth health = store_dispatch(store, &durable);
        take_durable(durable);
        was_full = was_full || health == STORE_FULL;
        while (durable < position() && health != STORE_FAILED) {
                store_flush(store);
                struct pollfd p = { .fd = store_fd(store), .events = POLLIN };
                int n = poll(&p, 1, was_full ? 1500 : 300000);
                if (n == 0 && store_health(store) == STORE_FULL)
                        leave_full();
                if (n == 0 && !was_full)
                        give_up("it is never durable");
                health = store_dispatch(store, &durable);
                take_durable(durable);
                was_full = was_full || health == STORE_FULL;
        }
        if (faulty && health == STORE_FAILED)
                leave_failed();
        if (health != STORE_GOOD && !faulty)
                give_up("the store has failed");
}

static void note_stats(void) {
        StoreStats s;
        store_stats(store, &s);
        note(TRACE_STATS, (TraceItem) { .seq = s.n_moved, .queue = s.n_segments });
}

int main(int argc, char **argv) {
        static const StoreReader reader = {
                .queue = on_queue, .gone = on_gone, .task = on_task, .done = on_done, .damaged = on_damaged
        };
        char error[256], boot[16] = "boot";
        if (argc < 5)
                give_up("usage: victim DIR SEED COMMITS MAX [kill | faulty]");
        faulty = argc > 5 && strcmp(argv[5], "faulty") == 0;
        /* Power may have been lost before every other life; before the others eqd was only killed. */
        unsigned long long seed = strtoull(argv[2], NULL, 10);
        (void)snprintf(boot, sizeof(boot), "boot %llu", seed / 2);
        StoreConfig config = { .dir = argv[1], .segment_size = VICTIM_SEGMENT, .boot = boot };
        random_state = seed;
        unsigned long commits = strtoul(argv[3], NULL, 10), max = strtoul(argv[4], NULL, 10);
        if (store_open(&config, &reader, NULL, error, sizeof(error), &store) < 0) {
                if (faulty && error[0] != '\0')
                        _exit(VICTIM_REFUSED);
                give_up(error);
        }
        for (unsigned long i = 0; i < commits; i++) {
                for (uint64_t n = 1 + dice(max); n > 0; n--)
                        step();
                commit();
        }
        note_stats();
        if (argc > 5 && !faulty) {
                for (uint64_t n = 2 * max; n > 0; n--)
                        step();
                bool unsynced = trace_end_at_sync && !(seed & 1); /* the next life finds it on the same boot */
                if (unsynced)
                        trace_end_at_sync();
                store_flush(store);
                while (unsynced)
                        (void)pause();
                if (trace_freeze)
                        trace_freeze();
                _exit(0);
        }
        if (store_health(store) == STORE_FULL)
                leave_full();
        store_close(store);
        return 0;
}
