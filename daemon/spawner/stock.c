/* SPDX-License-Identifier: MIT */
/* The oldest is taken first: it has surely come to its waiting. Each shares with the worker one socket, over which the
 * request goes, a failure comes back, and whose end tells of exec.
 *
 * They end with the worker, by PDEATHSIG, by the end of their line, and because the worker and the keeper kill every child
 * they have. */

#include "spawner/stock.h"

#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/util.h"
#include "spawner/private.h"

#define AGAIN_USEC UINT64_C(200000) /* after a refused fork */

void stock_init(Stock *s, const ChildConfig *child, int slots_fd, unsigned size) {
        *s = (Stock) { .child = child, .slots_fd = slots_fd, .size = MIN(size, (unsigned)STOCK_SIZE_MAX) };
        s->was_plain = true;
        places_init(&s->places, "/proc/sys/fs/suid_dumpable");
        list_init(&s->waiting);
        list_init(&s->groups);
        list_init(&s->leaving);
        list_init(&s->reserves);
        list_init(&s->spare);
}

/* ---- groups ---- */

static int get_group(Stock *s, Group **ret) {
        List *first = list_first(&s->groups);
        Group *g = first ? LIST_ENTRY(first, Group, link) : NULL;

        if (!g) {
                g = private_alloc(sizeof(*g));
                if (!g)
                        return -ENOMEM;
                list_init(&g->link);
                g->number = s->n_groups++;
                g->cgroup = (SlotCgroup)SLOT_CGROUP_NULL;
        }
        list_remove(&g->link);
        int r = g->cgroup.dir >= 0 ? 0 : slot_cgroup_open(s->slots_fd, g->number, &g->cgroup);
        if (r < 0) {
                stock_put_group(s, g);
                return r;
        }
        *ret = g;
        return 0;
}

/* The one that was used last is used next. */
void stock_put_group(Stock *s, Group *g) {
        if (!g)
                return;
        slot_cgroup_clean(&g->cgroup); /* the next task may be another user's, and the next use far away */
        if (g->cgroup.killed)
                slot_cgroup_close(&g->cgroup); /* it takes no more processes: the next one gets a new group */
        list_insert_before(s->groups.next, &g->link);
}

/* ---- making one ---- */

/* Its pid, or negative errno. */
static pid_t fork_child(const ChildConfig *child, int cgroup, int line) {
        struct clone_args args = { .exit_signal = SIGCHLD };
        if (cgroup >= 0) {
                args.flags = CLONE_INTO_CGROUP;
                args.cgroup = (uint64_t)cgroup;
        }
        pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
        if (pid == 0)
                child_run(child, child->inbox, line);
        return pid < 0 ? -errno : pid;
}

/* In the worker's memory, or where that cannot be in a copy of it. */
static int make_child(Stock *s, Stub *stub, bool shared) {
        int cgroup = stub->group ? stub->group->cgroup.dir : -1;
        int pair[2];

        if (fault_hit(FAULT_SPAWN))
                return -EAGAIN;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return errno == EMFILE || errno == ENFILE ? -EAGAIN : -errno;
        pid_t pid = shared ? places_clone(&s->places, s->child, cgroup, pair[1]) : -EAGAIN;
        stub->shares = pid > 0;
        if (pid < 0)
                pid = fork_child(s->child, cgroup, pair[1]);
        close_fd(pair[1]);
        if (pid < 0) {
                close_fd(pair[0]);
                return pid;
        }
        stub->pid = pid;
        stub->line = pair[0];
        return 0;
}

static Stub *get_stub(Stock *s) {
        List *first = list_first(&s->spare);
        Stub *stub = first ? LIST_ENTRY(first, Stub, link) : private_alloc(sizeof(*stub));

        if (first)
                list_remove(first);
        if (stub) {
                *stub = (Stub) { .line = -1 };
                list_init(&stub->link);
        }
        return stub;
}

static void put_stub(Stock *s, Stub *stub) {
        list_append(&s->spare, &stub->link);
}

/* shared: for the next command, not for one that may never come: places are few. */
static int stub_new(Stock *s, bool shared, Stub **ret, SpawnStage *ret_stage) {
        SpawnStage stage = SPAWN_STAGE_FORK;
        Stub *stub = get_stub(s);
        int r = stub ? 0 : -ENOMEM;

        if (r >= 0) {
                if (s->slots_fd >= 0)
                        r = get_group(s, &stub->group);
                if (r < 0)
                        stage = SPAWN_STAGE_CGROUP;
        }
        if (r >= 0) {
                r = make_child(s, stub, shared);
                if (r < 0 && stub->group && r != -EAGAIN && r != -ENOMEM) {
                        stage = SPAWN_STAGE_CGROUP;
                        stub->group->cgroup.killed = true; /* somebody took it away: make it again */
                }
        }
        if (r < 0) {
                if (stub) {
                        stock_put_group(s, stub->group);
                        put_stub(s, stub);
                }
                *ret_stage = stage;
                return r;
        }
        *ret = stub;
        return 0;
}

/* ---- the stock ---- */

/* Its line ends, and so it does. It stays known until it has, lest it be taken for a stray. */
static void let_go(Stock *s, Stub *stub) {
        stub->line = close_fd(stub->line);
        list_append(&s->leaving, &stub->link);
}

/* Whether children may share memory. If that has changed those that do are not used. */
static bool may_share(Stock *s) {
        if (places_may_share(&s->places))
                return true;
        LIST_FOREACH_SAFE (link, &s->waiting) {
                Stub *stub = LIST_ENTRY(link, Stub, link);
                if (!stub->shares)
                        continue;
                list_remove(&stub->link);
                s->n_waiting--;
                let_go(s, stub);
        }
        return false;
}

/* The oldest. shared: one that shares memory will do, too. */
static Stub *take_waiting(Stock *s, bool shared) {
        LIST_FOREACH (link, &s->waiting) {
                Stub *stub = LIST_ENTRY(link, Stub, link);
                if (stub->shares && !shared)
                        continue;
                list_remove(&stub->link);
                s->n_waiting--;
                return stub;
        }
        return NULL;
}

static Reserve *missing_reserve(const Stock *s) {
        LIST_FOREACH (link, &s->reserves) {
                Reserve *r = LIST_ENTRY(link, Reserve, link);
                if (!r->stub && !r->in_use)
                        return r;
        }
        return NULL;
}

/* All that wait share memory, and the last request was not for those. */
static bool lacks_copy(const Stock *s) {
        if (s->was_plain || s->size == 0)
                return false;
        LIST_FOREACH (link, &s->waiting)
                if (!LIST_ENTRY(link, Stub, link)->shares)
                        return false;
        return true;
}

uint64_t stock_due_usec(const Stock *s, uint64_t now_usec) {
        if (s->n_waiting >= s->size && !missing_reserve(s) && !lacks_copy(s))
                return UINT64_MAX;
        if (s->refused_usec == 0 || now_usec >= s->refused_usec + AGAIN_USEC)
                return 0;
        return s->refused_usec + AGAIN_USEC - now_usec;
}

int stock_fill(Stock *s, uint64_t now_usec) {
        SpawnStage stage;
        Stub *stub;

        Reserve *missing = missing_reserve(s);
        int r = stub_new(s, !missing && s->was_plain && may_share(s), &stub, &stage);
        s->refused_usec = r < 0 ? now_usec : 0;
        if (r < 0)
                return r;
        if (missing) {
                missing->stub = stub;
                return 0;
        }
        list_append(&s->waiting, &stub->link);
        s->n_waiting++;
        while (s->n_waiting > s->size) /* it came in place of one that shares memory, which was there until now */
                let_go(s, take_waiting(s, true));
        return 0;
}

static void drop(Stock *s, Stub *stub) {
        close_fd(stub->line);
        if (stub->group) {
                stub->group->cgroup.killed = true; /* by whatever killed the process: not to be relied on */
                stock_put_group(s, stub->group);
        }
        put_stub(s, stub);
}

/* ---- reserves ---- */

static Reserve *find_reserve(const Stock *s, uint32_t slot) {
        LIST_FOREACH (link, &s->reserves) {
                Reserve *r = LIST_ENTRY(link, Reserve, link);
                if (r->slot == slot)
                        return r;
        }
        return NULL;
}

int stock_reserve(Stock *s, uint32_t slot, bool later) {
        SpawnStage stage;
        if (find_reserve(s, slot))
                return 0;
        if (s->n_reserves >= SPAWN_RESERVES_MAX)
                return -ENOSPC;
        Reserve *r = fault_calloc(1, sizeof(*r));
        if (!r)
                return -ENOMEM;
        int e = stub_new(s, false, &r->stub, &stage);
        if (e < 0 && !later) {
                free(r);
                return e;
        }
        r->slot = slot;
        list_append(&s->reserves, &r->link);
        s->n_reserves++;
        return e;
}

void stock_unreserve(Stock *s, uint32_t slot) {
        Reserve *r = find_reserve(s, slot);
        if (!r)
                return;
        if (r->stub)
                let_go(s, r->stub);
        list_remove(&r->link);
        s->n_reserves--;
        free(r);
}

void stock_restore(Stock *s, uint32_t slot) {
        SpawnStage stage;
        Reserve *r = find_reserve(s, slot);
        if (!r || !r->in_use)
                return;
        r->in_use = false;
        if (stub_new(s, false, &r->stub, &stage) < 0)
                r->stub = NULL; /* stock_fill() makes it */
}

/* The process that waits for the slot of the request, which is its slot's from now on; else any. */
static Stub *take(Stock *s, const Request *q, bool shared) {
        Reserve *r = find_reserve(s, q->start->header.slot);
        if (!r || !r->stub)
                return take_waiting(s, shared);
        r->in_use = true;
        return TAKE_PTR(r->stub);
}

static void put_back(Stock *s, const Request *q, Stub *stub) {
        Reserve *r = find_reserve(s, q->start->header.slot);
        if (r && r->in_use) {
                r->in_use = false;
                r->stub = stub;
                return;
        }
        list_insert_before(s->waiting.next, &stub->link);
        s->n_waiting++;
}

/* Reserves that are missing are made before a process that nobody was promised: there may be room for one only. */
static int get(Stock *s, const Request *q, bool shared, Stub **ret, SpawnStage *ret_stage) {
        Stub *stub = take(s, q, shared);

        for (Reserve *missing; !stub && (missing = missing_reserve(s));
             stub = take(s, q, shared)) { /* or that of the slot */
                int r = stub_new(s, false, &missing->stub, ret_stage);
                if (r < 0)
                        return r;
        }
        *ret = stub;
        return stub ? 0 : stub_new(s, shared, ret, ret_stage);
}

int stock_start(Stock *s, const Request *q, Stub *ret, SpawnStage *ret_stage) {
        s->was_plain = request_is_plain(q);
        bool shared = s->was_plain && may_share(s);
        for (;;) {
                Stub *stub = NULL;
                int r = get(s, q, shared, &stub, ret_stage);
                if (r < 0)
                        return r;
                r = request_forward(stub->line, q);
                if (r >= 0) {
                        *ret = *stub;
                        put_stub(s, stub);
                        return 0;
                }
                if (r == -EPIPE || r == -ECONNRESET) { /* it has been killed */
                        drop(s, stub);
                        stock_restore(s, q->start->header.slot);
                        continue;
                }
                put_back(s, q, stub);
                *ret_stage = SPAWN_STAGE_FORK;
                return r;
        }
}

void stock_set_size(Stock *s, unsigned size) {
        s->size = MIN(size, (unsigned)STOCK_SIZE_MAX);
        while (s->n_waiting > s->size)
                let_go(s, take_waiting(s, true));
}

/* ---- what dies ---- */

static Stub *find(const List *list, pid_t pid) {
        LIST_FOREACH (link, list) {
                Stub *stub = LIST_ENTRY(link, Stub, link);
                if (stub->pid == pid)
                        return stub;
        }
        return NULL;
}

static Reserve *reserve_of(const Stock *s, pid_t pid) {
        LIST_FOREACH (link, &s->reserves) {
                Reserve *r = LIST_ENTRY(link, Reserve, link);
                if (r->stub && r->stub->pid == pid)
                        return r;
        }
        return NULL;
}

bool stock_has(const Stock *s, pid_t pid) {
        return find(&s->waiting, pid) || find(&s->leaving, pid) || reserve_of(s, pid);
}

void stock_forget(Stock *s, pid_t pid) {
        Reserve *reserve = reserve_of(s, pid);
        if (reserve) {
                drop(s, TAKE_PTR(reserve->stub)); /* stock_fill() makes another */
                return;
        }
        Stub *waiting = find(&s->waiting, pid), *stub = waiting ? waiting : find(&s->leaving, pid);
        if (!stub)
                return;
        list_remove(&stub->link);
        s->n_waiting -= waiting != NULL;
        drop(s, stub);
}
