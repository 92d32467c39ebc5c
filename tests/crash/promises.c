/* SPDX-License-Identifier: MIT */
#include "promises.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "manager/stored.h"
#include "victim.h"

enum { QUEUES = 512 };

typedef struct Task {
        bool there, touched; /* touched: an item of it is pending, look */
        uint8_t last;
        uint64_t version;
} Task;

typedef struct Queue {
        uint8_t kind; /* STORE_QUEUE, STORE_GONE; 0: nothing */
        uint64_t version, last_seq;
        Task *tasks; /* by SEQ; owned */
        size_t cap;
} Queue;

typedef struct World {
        Queue queues[QUEUES];
} World;

/* Of a client of eqd. */
typedef struct Accepted {
        uint64_t queue, seq;
        bool ended, found;
        bool told, started; /* told: it was accepted, else only seen to start */
        uint32_t n;
        char text[40]; /* is in its body */
} Accepted;

struct Promises {
        World certain;
        World found;    /* while a trace tells what was found */
        int32_t finder; /* the process that tells it */
        TraceItem *pending;
        size_t n_pending, cap_pending;
        Accepted *accepted;
        size_t n_accepted, cap_accepted;
        bool any, of_eqd;
};

static bool silent;

static _Noreturn void give_up(const char *what) {
        (void)fprintf(stderr, "promises: %s\n", what);
        exit(3);
}

__attribute__((format(printf, 1, 2))) static bool broken(const char *format, ...) {
        va_list ap;
        if (silent)
                return false;
        va_start(ap, format);
        (void)fputs("# BROKEN: ", stderr);
        (void)vfprintf(stderr, format, ap);
        (void)fputc('\n', stderr);
        va_end(ap);
        return false;
}

#define ID(x) ((unsigned long long)(x))

/* ---- worlds ---- */

static Queue *queue_of(World *w, uint64_t id) {
        if (id >= QUEUES)
                give_up("so many queues");
        return &w->queues[id];
}

static Task *task_of(Queue *q, uint64_t seq) {
        if (seq >= q->cap) {
                size_t cap = seq * 2 + 64;
                q->tasks = realloc(q->tasks, cap * sizeof(Task));
                if (!q->tasks)
                        give_up("out of memory");
                memset(q->tasks + q->cap, 0, (cap - q->cap) * sizeof(Task));
                q->cap = cap;
        }
        return &q->tasks[seq];
}

static void raise_to(uint64_t *v, uint64_t to) {
        *v = *v > to ? *v : to;
}

static void forget_tasks(Queue *q) {
        if (q->cap)
                memset(q->tasks, 0, q->cap * sizeof(Task));
}

static void apply_queue(World *w, const TraceItem *i) {
        Queue *q = queue_of(w, i->queue);
        for (uint64_t id = i->queue % VICTIM_NAMES; id < QUEUES; id += VICTIM_NAMES)
                if (id != i->queue && w->queues[id].kind == STORE_GONE) /* its name is another's now */
                        w->queues[id].kind = 0;
        q->kind = (uint8_t)i->kind;
        q->version = i->version;
        raise_to(&q->last_seq, i->seq);
        if (i->kind == STORE_GONE)
                forget_tasks(q);
}

static void apply(World *w, const TraceItem *i) {
        if (i->kind == STORE_QUEUE || i->kind == STORE_GONE) {
                apply_queue(w, i);
                return;
        }
        Queue *q = queue_of(w, i->queue);
        Task *t = task_of(q, i->seq);
        if (i->kind == STORE_TASK) {
                *t = (Task) { .there = true };
                raise_to(&q->last_seq, i->seq);
        } else if (i->kind == STORE_FORGET)
                t->there = false;
        else {
                t->last = (uint8_t)i->kind;
                t->version = i->version;
        }
}

static void clear(World *w) {
        for (size_t i = 0; i < QUEUES; i++) {
                Queue *q = &w->queues[i];
                *q = (Queue) { .tasks = q->tasks, .cap = q->cap };
                forget_tasks(q);
        }
}

/* position: what has become of the task */
static void find(World *w, const TraceItem *i) {
        Queue *q = queue_of(w, i->queue);
        if (i->kind == STORE_TASK)
                *task_of(q, i->seq) = (Task) { .there = true, .last = (uint8_t)i->position, .version = i->version };
        else
                *q = (Queue) { (uint8_t)i->kind, i->version, i->seq, q->tasks, q->cap };
}

/* ---- what may be ---- */

static bool is_pending(const Promises *p, uint32_t kind, uint64_t queue, uint64_t seq, uint64_t version) {
        for (size_t i = 0; i < p->n_pending; i++) {
                const TraceItem *x = &p->pending[i];
                bool of_task = kind != STORE_QUEUE && kind != STORE_GONE;
                if (x->kind == kind && x->queue == queue && (!of_task || x->seq == seq) &&
                    (kind == STORE_TASK || kind == STORE_GONE || kind == STORE_FORGET || x->version == version))
                        return true;
        }
        return false;
}

static bool name_is_pending(const Promises *p, uint64_t id) {
        for (size_t i = 0; i < p->n_pending; i++)
                if (p->pending[i].kind == STORE_QUEUE && p->pending[i].queue % VICTIM_NAMES == id % VICTIM_NAMES &&
                    p->pending[i].queue != id)
                        return true;
        return false;
}

static bool check_queue(const Promises *p, uint64_t id, const Queue *want, const Queue *got) {
        bool may_go = is_pending(p, STORE_GONE, id, 0, 0);
        if (got->kind == 0)
                return want->kind == 0 || ((want->kind == STORE_GONE || may_go) && name_is_pending(p, id)) ||
                       broken("queue %llu is lost", ID(id));
        if (got->kind == STORE_GONE)
                return want->kind == STORE_GONE || may_go || broken("queue %llu is gone, nobody removed it", ID(id));
        bool is_new = is_pending(p, STORE_QUEUE, id, 0, got->version);
        if (want->kind != STORE_QUEUE)
                return (is_new && want->kind == 0) || broken("queue %llu has come back", ID(id));
        return got->version == want->version || is_new || broken("queue %llu is not as it was last set", ID(id));
}

static bool check_last_seqs(const World *want, const World *got) {
        uint64_t least[VICTIM_NAMES] = { 0 }, last[VICTIM_NAMES] = { 0 };
        for (uint64_t id = 0; id < QUEUES; id++) {
                raise_to(&least[id % VICTIM_NAMES], want->queues[id].kind ? want->queues[id].last_seq : 0);
                raise_to(&last[id % VICTIM_NAMES], got->queues[id].kind ? got->queues[id].last_seq : 0);
        }
        for (unsigned n = 0; n < VICTIM_NAMES; n++)
                if (last[n] < least[n])
                        return broken("of name %u SEQ %llu was given, and now %llu is the last one", n, ID(least[n]),
                                      ID(last[n]));
        return true;
}

static bool check_task(const Promises *p, uint64_t id, uint64_t seq, const Task *want, const Task *got, bool may_go) {
        if (!want->touched && !may_go && memcmp(want, got, sizeof(*want)) == 0)
                return true;
        if (want->there && !got->there)
                return may_go || is_pending(p, STORE_FORGET, id, seq, 0) ||
                       broken("task %llu/%llu is lost", ID(id), ID(seq));
        if (!want->there && got->there && !is_pending(p, STORE_TASK, id, seq, 0))
                return broken("task %llu/%llu has come back", ID(id), ID(seq));
        if (!got->there || (want->there && want->last == got->last && want->version == got->version))
                return true;
        return (!want->there && got->last == 0) || is_pending(p, got->last, id, seq, got->version) ||
               broken("task %llu/%llu: %u (%llu) is the last of it, want %u (%llu)", ID(id), ID(seq), got->last,
                      ID(got->version), want->last, ID(want->version));
}

static bool check_tasks(const Promises *p, uint64_t id, const Queue *want, const Queue *got) {
        static const Task none;
        bool may_go = is_pending(p, STORE_GONE, id, 0, 0), fine = true;
        size_t n = want->cap > got->cap ? want->cap : got->cap;
        for (size_t seq = 0; seq < n && fine; seq++) {
                const Task *g = seq < got->cap ? &got->tasks[seq] : &none;
                if (g->there && seq > got->last_seq)
                        return broken("task %llu/%zu is behind the last SEQ", ID(id), seq);
                fine = check_task(p, id, seq, seq < want->cap ? &want->tasks[seq] : &none, g, may_go);
        }
        return fine;
}

/* Of a group that is not durable yet all are there or none. */
static bool check_groups(const Promises *p, World *got) {
        for (size_t i = 0; i < p->n_pending; i++) {
                const TraceItem *a = &p->pending[i];
                if (!a->group || got->queues[a->queue].kind != STORE_QUEUE ||
                    is_pending(p, STORE_FORGET, a->queue, a->seq, 0))
                        continue;
                const TraceItem *b = i + 1 < p->n_pending ? &p->pending[i + 1] : NULL;
                if (!b || b->group != a->group || is_pending(p, STORE_FORGET, b->queue, b->seq, 0))
                        continue;
                if (task_of(&got->queues[a->queue], a->seq)->there != task_of(&got->queues[b->queue], b->seq)->there)
                        return broken("of the group of task %llu/%llu some are there and some are not", ID(a->queue),
                                      ID(a->seq));
        }
        return true;
}

static void touch(Promises *p, bool touched) {
        for (size_t i = 0; i < p->n_pending; i++) {
                const TraceItem *x = &p->pending[i];
                if (x->kind != STORE_QUEUE && x->kind != STORE_GONE)
                        task_of(queue_of(&p->certain, x->queue), x->seq)->touched = touched;
        }
}

static bool check(Promises *p, World *got) {
        bool fine = check_last_seqs(&p->certain, got);
        touch(p, true);
        for (uint64_t id = 0; id < QUEUES && fine; id++) {
                const Queue *want = &p->certain.queues[id], *g = &got->queues[id];
                fine = check_queue(p, id, want, g) && check_tasks(p, id, want, g);
        }
        touch(p, false);
        return fine && check_groups(p, got);
}

/* ---- the trace ---- */

static void *room(void *array, size_t *cap, size_t n, size_t size) {
        if (n < *cap)
                return array;
        *cap = *cap ? *cap * 2 : 256;
        array = realloc(array, *cap * size);
        if (!array)
                give_up("out of memory");
        return array;
}

static void durable(Promises *p, uint64_t position) {
        size_t k = 0;
        for (; k < p->n_pending && p->pending[k].position <= position; k++)
                apply(&p->certain, &p->pending[k]);
        p->n_pending -= k;
        memmove(p->pending, p->pending + k, p->n_pending * sizeof(TraceItem));
        p->any = true;
}

static bool opened(Promises *p) {
        bool fine = check(p, &p->found);
        World empty = p->certain;
        p->certain = p->found;
        p->found = empty;
        clear(&p->found);
        p->n_pending = 0;
        return fine;
}

static Accepted *accepted_of(Promises *p, uint64_t queue, uint64_t seq) {
        for (size_t i = 0; i < p->n_accepted; i++)
                if (p->accepted[i].queue == queue && p->accepted[i].seq == seq)
                        return &p->accepted[i];
        return NULL;
}

/* Made if need be: it can start before its client is told that it was accepted. */
static Accepted *entry_of(Promises *p, const TraceEvent *e) {
        Accepted *a = accepted_of(p, e->item.queue, e->item.seq);
        if (a)
                return a;
        p->accepted = room(p->accepted, &p->cap_accepted, p->n_accepted, sizeof(Accepted));
        a = &p->accepted[p->n_accepted++];
        *a = (Accepted) { .queue = e->item.queue, .seq = e->item.seq };
        return a;
}

static void accepted(Promises *p, const TraceEvent *e, const char *data) {
        Accepted *a = entry_of(p, e);
        a->told = true;
        a->n = e->n_data;
        if (e->n_data > sizeof(a->text))
                give_up("a text is too long");
        memcpy(a->text, data, e->n_data);
        p->any = true;
}

bool promises_feed(Promises *p, const TraceEvent *e, const char *data) {
        Accepted *a;
        switch (e->type) {
        case TRACE_ITEM:
                p->pending = room(p->pending, &p->cap_pending, p->n_pending, sizeof(TraceItem));
                p->pending[p->n_pending++] = e->item;
                return true;
        case TRACE_DURABLE:
                durable(p, e->item.position);
                return true;
        case TRACE_FOUND:
                if (p->finder != e->pid) /* the one before it was not opened to its end */
                        clear(&p->found);
                p->finder = e->pid;
                find(&p->found, &e->item);
                return true;
        case TRACE_OPENED:
                return opened(p);
        case TRACE_ACCEPTED:
                accepted(p, e, data);
                return true;
        case TRACE_ENDED:
                a = accepted_of(p, e->item.queue, e->item.seq);
                if (a)
                        a->ended = true;
                return a || broken("an end was told of what was not accepted");
        case TRACE_STARTED:
                a = entry_of(p, e);
                if (a->started)
                        return broken("task %llu/%llu started twice", ID(a->queue), ID(a->seq));
                a->started = p->any = true;
                return true;
        default:
                return true;
        }
}

bool promises_any(const Promises *p) {
        return p->any;
}

/* ---- opening ---- */

typedef struct Look {
        Promises *promises;
        World *got;
        uint64_t queue, seq; /* the last one told */
        uint64_t sum;        /* of all that was told */
        bool fine;
} Look;

/* In whatever order the queues come. */
static void add(Look *l, uint64_t a, uint64_t b, StoreBytes x, StoreBytes y) {
        uint64_t sum = victim_mix(a ^ victim_mix(b));
        for (uint32_t i = 0; i < x.len; i++)
                sum = (sum ^ ((const unsigned char *)x.data)[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
        for (uint32_t i = 0; i < y.len; i++)
                sum = (sum ^ ((const unsigned char *)y.data)[i]) * UINT64_C(0x100000001b3);
        l->sum += victim_mix(sum);
}

static int on_queue(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq, StoreBytes definition) {
        Look *l = userdata;
        uint64_t version = 0;
        if (!l->promises->of_eqd && !victim_is_right(id, 0, STORE_QUEUE, definition, &version))
                l->fine = broken("queue %llu is not what was written", ID(id));
        if (!l->promises->of_eqd)
                find(l->got, &(TraceItem) { .kind = STORE_QUEUE, .queue = id, .seq = last_seq, .version = version });
        for (size_t i = 0; i < l->promises->n_accepted; i++)
                if (l->promises->accepted[i].queue == id && l->promises->accepted[i].seq > last_seq)
                        l->fine = broken("SEQ %llu was given, and %llu is the last one",
                                         ID(l->promises->accepted[i].seq), ID(last_seq));
        add(l, id, last_seq, name, definition);
        l->queue = id;
        l->seq = 0;
        return 0;
}

static int on_gone(void *userdata, uint64_t id, StoreBytes name, uint64_t last_seq) {
        Look *l = userdata;
        if (!l->promises->of_eqd)
                find(l->got, &(TraceItem) { .kind = STORE_GONE, .queue = id, .seq = last_seq });
        add(l, id, last_seq, name, (StoreBytes) { 0 });
        return 0;
}

static bool says_started(StoreKind last, StoreBytes body) {
        StoredState s;
        if (last == STORE_END)
                return true;
        return last == STORE_STATE && stored_state_unpack(eq_bytes(body.data, body.len), &s) == 0 && s.starts;
}

static void look_at_accepted(Look *l, uint64_t queue, uint64_t seq, StoreBytes body, StoreKind last,
                             StoreBytes last_body) {
        Accepted *a = accepted_of(l->promises, queue, seq);
        if (!a)
                return; /* nobody was told */
        a->found = true;
        if (!memmem(body.data, body.len, a->text, a->n))
                l->fine = broken("task %llu/%llu is not what was sent", ID(queue), ID(seq));
        if (a->ended && last != STORE_END)
                l->fine = broken("task %llu/%llu has ended, and would run again", ID(queue), ID(seq));
        if (a->started && !says_started(last, last_body))
                l->fine =
                        broken("task %llu/%llu of at_most_once has started, and would start again", ID(queue), ID(seq));
}

static int on_task(void *userdata, uint64_t queue, uint64_t seq, uint8_t lane, StoreBytes task, StoreKind last,
                   StoreBytes last_body) {
        Look *l = userdata;
        uint64_t version = 0, none;
        if (queue != l->queue || seq <= l->seq)
                l->fine = broken("task %llu/%llu comes behind %llu/%llu", ID(queue), ID(seq), ID(l->queue), ID(l->seq));
        l->seq = seq;
        if (l->promises->of_eqd)
                look_at_accepted(l, queue, seq, task, last, last_body);
        else if (!victim_is_right(queue, seq, STORE_TASK, task, &none) ||
                 (last && !victim_is_right(queue, seq, last, last_body, &version)))
                l->fine = broken("task %llu/%llu is not what was written", ID(queue), ID(seq));
        else
                find(l->got,
                     &(TraceItem) {
                             .kind = STORE_TASK, .queue = queue, .seq = seq, .position = last, .version = version });
        add(l, queue << 32 ^ seq, last, task, last_body);
        return 0;
}

static void on_damaged(void *userdata, const char *file, uint64_t at, uint64_t n, const char *kept) {
        ((Look *)userdata)->fine = broken("damage at %llu of %s was told, and there was none", ID(at), file);
}

static bool look(Promises *p, const char *dir, World *got, uint64_t *ret_sum) {
        static const StoreReader reader = {
                .queue = on_queue, .gone = on_gone, .task = on_task, .damaged = on_damaged
        };
        Look l = { .promises = p, .got = got, .fine = true };
        StoreConfig config = { .dir = dir, .segment_size = VICTIM_SEGMENT, .boot = "another one now" };
        char error[256];
        Store *s;
        if (store_open(&config, &reader, &l, error, sizeof(error), &s) < 0)
                return broken("it cannot be opened: %s", error);
        store_close(s);
        *ret_sum = l.sum;
        return l.fine;
}

bool promises_kept(const Promises *kept, const char *dir, bool quiet) {
        static World got, again;
        uint64_t sum = 0, sum_again = 0;
        Promises *p = (Promises *)kept; /* touched, and left as it was */
        silent = quiet;
        clear(&got);
        clear(&again);
        for (size_t i = 0; i < p->n_accepted; i++)
                p->accepted[i].found = false;
        bool fine = look(p, dir, &got, &sum) && look(p, dir, &again, &sum_again);
        if (fine && sum != sum_again)
                fine = broken("opened again it tells something else");
        if (fine && !p->of_eqd)
                fine = check(p, &got);
        for (size_t i = 0; i < p->n_accepted && fine; i++)
                if (!p->accepted[i].found && !p->accepted[i].ended)
                        fine = broken("task %llu/%llu is lost", ID(p->accepted[i].queue), ID(p->accepted[i].seq));
        silent = false;
        return fine;
}

Promises *promises_new(bool of_eqd) {
        Promises *p = calloc(1, sizeof(*p));
        if (!p)
                give_up("out of memory");
        p->of_eqd = of_eqd;
        return p;
}
