/* SPDX-License-Identifier: MIT */
/* The laws of the execution queue, as they stand in daemon/engine, under relacy. Usage: relacy-models NAME ITERATIONS.
 * Each model is a handful of threads; relacy runs it over and over with other interleavings and other values of loads, and
 * sees to data races on VAR_T()s, leaks, and the asserts. relacy.py runs these, and mutants that they must catch.
 * With -DRELACY_ONLY=Push there is that one alone, NAME "only": relacy makes much code of each. */

#include "relacy-frame.hh"

/* ---- push and hand-over: two producers of two nodes, who becomes the owner consumes ---- */

struct Node {
        InboxNode node; /* first */
        VAR<int> number;
};

struct Push : rl::test_suite<Push, 2> {
        Inbox in;
        Node nodes[2][2];
        VAR<int> last[2], n_done; /* the owner's */
        Collected collected;

        void before() {
                store_relaxed(&in.head, INBOX_EMPTY);
                for (auto &pair : nodes)
                        for (Node &n : pair)
                                clear(&n.node);
                SAY(last[0]) = SAY(last[1]) = SAY(n_done) = 0;
                collected = Collected();
        }

        void consume() {
                for (;;) {
                        while (InboxNode *n = collected_pop(&collected)) {
                                unsigned p = (Node *)n >= nodes[1];
                                int number = SAY(((Node *)n)->number);
                                RL_ASSERT(number == SAY(last[p]) + 1);
                                SAY(last[p]) = number;
                                SAY(n_done) = SAY(n_done) + 1;
                        }
                        InboxState s = inbox_collect(&in, &collected, INBOX_TAKEN);
                        if (s == INBOX_STUCK)
                                rl::yield(1, $);
                        else if (s == INBOX_NONE && inbox_leave(&in))
                                return;
                }
        }

        void thread(unsigned p) {
                for (int i = 0; i < 2; i++) {
                        SAY(nodes[p][i].number) = i + 1;
                        if (inbox_push(&in, &nodes[p][i].node))
                                consume();
                }
        }

        void after() {
                RL_ASSERT(SAY(n_done) == 4);
        }
};

/* ---- a queue with its lanes, its end, and who has the token drains it ---- */

struct Queue {
        XHead head;
        Collected normal, urgent;
        VAR<int> n_done, n_ended, scratch; /* the holder's */

        void begin(uint64_t max_tasks) {
                clear(&head, ID, max_tasks);
                normal = urgent = Collected();
                SAY(n_done) = SAY(n_ended) = SAY(scratch) = 0;
        }

        XTask *next(bool *stuck) {
                *stuck = false;
                if (!urgent.first && inbox_collect(&head.urgent, &urgent, INBOX_EMPTY) == INBOX_STUCK) {
                        *stuck = true;
                        return NULL;
                }
                if (InboxNode *n = collected_pop(&urgent))
                        return (XTask *)n;
                if (!normal.first)
                        *stuck = inbox_collect(&head.normal, &normal, INBOX_TAKEN) == INBOX_STUCK;
                return (XTask *)collected_pop(&normal);
        }

        void drain() {
                for (;;) {
                        if (xhead_is_paused(&head) && xhead_park(&head))
                                return;
                        bool stuck, to_release = false;
                        XTask *t = next(&stuck);
                        if (stuck) {
                                rl::yield(1, $);
                                continue;
                        }
                        if (!t) {
                                if (xhead_is_over(&head)) {
                                        SAY(n_ended) = SAY(n_ended) + 1;
                                        xhead_end(&head);
                                        return;
                                }
                                if (xhead_leave(&head))
                                        return;
                                continue;
                        }
                        RL_ASSERT(SAY(n_ended) == 0);
                        uint64_t charge = xcharge(load_relaxed(&t->node.value));
                        if (xtask_claim(t, &to_release)) {
                                SAY(n_done) = SAY(n_done) + 1;
                                xtask_finish(t);
                                xhead_done(&head, charge);
                        } else
                                xhead_passed(&head, charge);
                }
        }

        XHeadVerdict submit(XTask *t, bool is_urgent, uint64_t ticket) {
                bool token;
                xtask_begin(t, (XQueue *)this, UNITS, ticket);
                XHeadVerdict v = xhead_enter(&head, ID, xcharge(UNITS), 0, &token);
                if (v == XHEAD_OK) {
                        token = is_urgent ? xhead_push_urgent(&head, &t->node) : xhead_push(&head, &t->node);
                }
                if (token)
                        drain();
                return v;
        }

        void stop() {
                bool token;
                if (xhead_close(&head, ID, &token) && token)
                        drain();
        }
};

/* A normal and an urgent submitter and a stop. */
struct Stop : rl::test_suite<Stop, 3> {
        Queue q;
        XTask tasks[2];
        VAR<int> accepted[2];

        void before() {
                q.begin(10);
                clear(&tasks[0]);
                clear(&tasks[1]);
                SAY(accepted[0]) = SAY(accepted[1]) = 0;
        }
        void thread(unsigned i) {
                if (i == 2)
                        q.stop();
                else
                        SAY(accepted[i]) = q.submit(&tasks[i], i == 1, 2 * i + 2) == XHEAD_OK;
        }
        void after() {
                RL_ASSERT(SAY(q.n_done) == SAY(accepted[0]) + SAY(accepted[1]));
                RL_ASSERT(SAY(q.n_ended) == 1);
        }
};

/* Urgent pushes to a queue that is being left. */
struct Urgent : rl::test_suite<Urgent, 2> {
        Queue q;
        XTask tasks[2];

        void before() {
                q.begin(10);
                clear(&tasks[0]);
                clear(&tasks[1]);
        }
        void thread(unsigned i) {
                RL_ASSERT(q.submit(&tasks[i], i == 1, 2 * i + 2) == XHEAD_OK);
        }
        void after() {
                RL_ASSERT(SAY(q.n_done) == 2);
        }
};

/* A queue for one task: who is refused gives back, beside a stop. */
struct Full : rl::test_suite<Full, 3> {
        Queue q;
        XTask tasks[2];
        VAR<int> accepted[2];

        void before() {
                q.begin(1);
                clear(&tasks[0]);
                clear(&tasks[1]);
        }
        void thread(unsigned i) {
                if (i == 2)
                        q.stop();
                else
                        SAY(accepted[i]) = q.submit(&tasks[i], false, 2 * i + 2) == XHEAD_OK;
        }
        void after() {
                RL_ASSERT(SAY(q.n_done) == SAY(accepted[0]) + SAY(accepted[1]));
                RL_ASSERT(SAY(q.n_ended) == 1);
        }
};

/* ---- lots ---- */

/* A queue, two tasks, and a lot whose owner submits them. */
struct Hoard {
        Queue q;
        XTask tasks[2];
        XLot lot;
        VAR<int> n_accepted, n_canceled; /* the owner's */

        void begin() {
                q.begin(10);
                clear(&tasks[0]);
                clear(&tasks[1]);
                store_relaxed(&lot.state, 0);
                store_relaxed(&lot.left, 0);
                store_relaxed(&lot.back, 0);
                store_relaxed(&lot.head, (XHead *)0);
                store_relaxed(&lot.busy, 0);
                SAY(n_accepted) = SAY(n_canceled) = 0;
        }
        void refund(uint64_t charge) {
                if (xhead_refund(&q.head, charge))
                        q.drain();
        }
        void give_back(XLotRest rest) {
                if (rest.back != 0 && xhead_canceled(&q.head, rest.back))
                        q.drain();
                if (rest.left != 0)
                        refund(rest.left);
        }
        void give() {
                XHead *h;
                XLotRest rest;
                if (xlot_give(&lot, &h, &rest))
                        give_back(rest);
        }
        void push(XTask *t) {
                SAY(n_accepted) = SAY(n_accepted) + 1;
                if (xhead_push(&q.head, &t->node))
                        q.drain();
        }
        void submit_with_new_lot(XTask *t) {
                bool token;
                xtask_begin(t, (XQueue *)0, UNITS, 2);
                if (xhead_enter(&q.head, ID, 3 * xcharge(UNITS), 0, &token) == XHEAD_OK) {
                        xlot_grant(&lot, &q.head, 2 * xcharge(UNITS));
                        if (xhead_is_closed(&q.head))
                                give();
                        push(t);
                } else if (token)
                        q.drain();
        }
        void submit_from_lot(XTask *t) {
                bool asked;
                xtask_begin(t, (XQueue *)0, UNITS, 4);
                bool taken = xlot_take(&lot, &q.head, xcharge(UNITS), &asked);
                if (asked)
                        give();
                if (!taken)
                        return;
                if (xhead_look(&q.head, ID) == XHEAD_OK)
                        push(t);
                else
                        refund(xcharge(UNITS));
        }
        void cancel(XTask *t, uint64_t ticket) {
                bool asked;
                if (xtask_try_cancel((XTaskRef) { t, ticket }) != 0)
                        return;
                SAY(n_canceled) = SAY(n_canceled) + 1;
                uint64_t charge = xlot_put(&lot, &q.head, xcharge(UNITS), &asked);
                if (charge != 0 && xhead_canceled(&q.head, charge))
                        q.drain();
                if (asked)
                        give();
        }
        void call_in() {
                uint64_t state;
                XLotRest rest;
                if (!xlot_ask(&lot, &q.head, &state))
                        return;
                heavy_fence();
                if (xlot_get_back(&lot, state, &rest))
                        give_back(rest);
        }
        void stop() {
                q.stop();
                call_in();
        }
        void check() {
                RL_ASSERT(SAY(q.n_done) + SAY(n_canceled) == SAY(n_accepted));
                RL_ASSERT(SAY(q.n_ended) == 1);
        }
};

/* An owner that submits twice, a stop, and another one that asks for lots. */
struct Lots : rl::test_suite<Lots, 3> {
        Hoard h;

        void before() {
                h.begin();
        }
        void thread(unsigned i) {
                if (i == 0) {
                        h.submit_with_new_lot(&h.tasks[0]);
                        h.submit_from_lot(&h.tasks[1]);
                } else if (i == 1)
                        h.stop();
                else
                        h.call_in();
        }
        void after() {
                h.check();
        }
};

/* An owner that cancels two tasks, as many as its lot keeps before it gives back, a stop, and the holder. */
struct Back : rl::test_suite<Back, 3> {
        Hoard h;

        void before() {
                h.begin();
                RL_ASSERT(xhead_kick(&h.q.head));
                h.submit_with_new_lot(&h.tasks[0]);
                h.submit_from_lot(&h.tasks[1]);
        }
        void thread(unsigned i) {
                if (i == 0) {
                        h.cancel(&h.tasks[0], 2);
                        h.cancel(&h.tasks[1], 4);
                } else if (i == 1)
                        h.stop();
                else
                        h.q.drain();
        }
        void after() {
                h.check();
        }
};

/* ---- pause: a pause and a resume beside a submit ---- */

struct Pause : rl::test_suite<Pause, 2> {
        Queue q;
        XTask task;

        void before() {
                q.begin(10);
                clear(&task);
        }
        void thread(unsigned i) {
                bool token;
                if (i == 0) {
                        RL_ASSERT(q.submit(&task, false, 2) == XHEAD_OK);
                        return;
                }
                RL_ASSERT(xhead_pause(&q.head));
                RL_ASSERT(xhead_resume(&q.head, &token));
                if (token)
                        q.drain();
        }
        void after() {
                RL_ASSERT(SAY(q.n_done) == 1);
        }
};

/* ---- cancel, with somebody to tell: the payload is the canceler's until it has told, then whoever releases it ---- */

struct Cancel : rl::test_suite<Cancel, 3> {
        XTask task;
        VAR<int> payload, n_run, n_canceled, n_released;
        VAR<int> result[2];
        uint64_t ticket;

        void before() {
                clear(&task);
                SAY(payload) = 1;
                SAY(n_run) = SAY(n_canceled) = SAY(n_released) = 0;
                ticket = 2 | XTASK_TOLD;
                xtask_begin(&task, (XQueue *)0, UNITS, ticket);
        }
        void release() {
                SAY(payload) = 2; /* it is another one's now */
                SAY(n_released) = SAY(n_released) + 1;
        }
        void thread(unsigned i) {
                bool to_release = false;
                if (i == 0) { /* the holder */
                        if (xtask_claim(&task, &to_release)) {
                                RL_ASSERT(SAY(payload) == 1);
                                SAY(n_run) = 1;
                                xtask_finish(&task);
                                to_release = true;
                        }
                        if (to_release)
                                release();
                        return;
                }
                int r = xtask_try_cancel((XTaskRef) { &task, ticket });
                SAY(result[i - 1]) = r;
                if (r != 0)
                        return;
                RL_ASSERT(SAY(payload) == 1);
                SAY(n_canceled) = SAY(n_canceled) + 1;
                if (xtask_canceled(&task, ticket))
                        release();
        }
        void after() {
                int a = SAY(result[0]), b = SAY(result[1]);
                RL_ASSERT(SAY(n_run) + SAY(n_canceled) == 1);
                RL_ASSERT(SAY(n_released) == 1);
                RL_ASSERT((a == 0) + (b == 0) == SAY(n_canceled));
                RL_ASSERT(a == 0 || b == 0 || SAY(n_run) == 1);
        }
};

/* ---- biased claims: the holder with a task that it has collected, and two who cancel it ---- */

struct Bias : rl::test_suite<Bias, 3> {
        XBias bias;
        XTask task;
        VAR<int> n_run, result[2];
        uint64_t era;

        void before() {
                clear(&task);
                store_relaxed(&bias.state, 0);
                store_relaxed(&bias.hand, 0);
                era = xbias_begin(&bias);
                xtask_begin(&task, (XQueue *)0, UNITS, 2);
                SAY(n_run) = 0;
        }
        void thread(unsigned i) {
                bool to_release;
                if (i > 0) {
                        XTaskRef ref = { &task, 2 };
                        SAY(result[i - 1]) =
                                xbias_is_off(&bias) ? xbias_try_cancel_off(&bias, ref) : xbias_try_cancel(&bias, ref);
                        return;
                }
                if (xbias_claim(&bias, era, &task) || xtask_claim(&task, &to_release)) {
                        SAY(n_run) = 1;
                        xtask_finish(&task);
                }
        }
        void after() {
                int a = SAY(result[0]), b = SAY(result[1]), run = SAY(n_run);
                RL_ASSERT((a == 0) + (b == 0) + run == 1);
                RL_ASSERT((a != 1 && b != 1) || run == 1);
        }
};

/* Claims become biased, and then the holder goes on: what it finds with the next collect as ever, what comes then the short way.
 * Somebody pushes meanwhile, and cancels what he pushed. */
struct Rebias : rl::test_suite<Rebias, 2> {
        Queue q;
        XTask tasks[2];
        VAR<int> n_run, result;

        void before() {
                q.begin(10);
                clear(&tasks[0]);
                clear(&tasks[1]);
                SAY(n_run) = SAY(result) = 0;
                xtask_begin(&tasks[0], (XQueue *)0, UNITS, 2);
                (void)xhead_push(&q.head, &tasks[0].node);
        }
        void claim_all(uint64_t era) {
                bool to_release;
                while (InboxNode *n = collected_pop(&q.normal)) {
                        XTask *t = (XTask *)n;
                        if (xbias_claim(&q.head.bias, era, t) || xtask_claim(t, &to_release)) {
                                SAY(n_run) = SAY(n_run) + (t == &tasks[1]);
                                xtask_finish(t);
                        }
                }
        }
        void thread(unsigned i) {
                if (i == 1) {
                        xtask_begin(&tasks[1], (XQueue *)0, UNITS, 4);
                        (void)xhead_push(&q.head, &tasks[1].node);
                        SAY(result) = xbias_try_cancel(&q.head.bias, (XTaskRef) { &tasks[1], 4 });
                        return;
                }
                uint64_t begun = xbias_begin(&q.head.bias), era = XBIAS_NO_ERA;
                for (int n = 0; n < 3; n++) {
                        while (inbox_collect(&q.head.normal, &q.normal, INBOX_TAKEN) == INBOX_STUCK)
                                rl::yield(1, $);
                        claim_all(era);
                        era = begun;
                }
        }
        void after() {
                int r = SAY(result), run = SAY(n_run);
                RL_ASSERT(r != 0 || run == 0);
                RL_ASSERT(r != 1 || run == 1);
        }
};

/* A stale reference beside the next life of its memory. */
struct Reuse : rl::test_suite<Reuse, 2> {
        XTask task;
        VAR<int> n_run;

        void before() {
                clear(&task);
                xtask_begin(&task, (XQueue *)0, UNITS, 2);
                SAY(n_run) = 0;
        }
        void thread(unsigned i) {
                bool to_release;
                XQueue *q;
                uint32_t units;
                if (i == 1) {
                        XTaskRef ref = { &task, 2 };
                        if (xtask_look(ref, &q, &units) != 0)
                                return;
                        RL_ASSERT(q == (XQueue *)0);
                        RL_ASSERT(xtask_try_cancel(ref) != 0 || units == UNITS);
                        return;
                }
                if (xtask_claim(&task, &to_release)) {
                        xtask_finish(&task);
                        xtask_begin(&task, (XQueue *)16, UNITS + 1, 4);
                        RL_ASSERT(xtask_claim(&task, &to_release));
                        SAY(n_run) = 1;
                        xtask_finish(&task);
                }
        }
};

/* ---- ids: two readers of an id, and its slot goes to another thing ---- */

struct Slots : rl::test_suite<Slots, 2> {
        RegistrySlot *slot;
        RegistryTable table;
        RegistryChunk chunk;
        VAR<int> things[2];

        void before() {
                for (auto &c : table.chunks)
                        store_relaxed(&c, (RegistryChunk *)0);
                for (RegistrySlot &s : chunk.slots) {
                        store_relaxed(&s.id, 0);
                        store_relaxed(&s.thing, (uintptr_t)0);
                }
                store_relaxed(&table.chunks[0], &chunk);
                slot = slots_at(&table, 0);
                SAY(things[0]) = SAY(things[1]) = 0;
                slots_publish(slot, 1 << REGISTRY_SLOT_BITS, &things[0]);
        }
        void thread(unsigned i) {
                if (i == 0) {
                        slots_unpublish(slot, 1 << REGISTRY_SLOT_BITS);
                        SAY(things[1]) = 1;
                        slots_publish(slot, 2 << REGISTRY_SLOT_BITS, &things[1]);
                        return;
                }
                void *t = slots_find(&table, 1 << REGISTRY_SLOT_BITS);
                RL_ASSERT(t == NULL || t == &things[0]);
                t = slots_find(&table, 2 << REGISTRY_SLOT_BITS);
                RL_ASSERT(t == NULL || t == &things[1]);
                if (t)
                        RL_ASSERT(SAY(*(VAR<int> *)t) == 1);
        }
};

/* ---- pins: the end of a queue, beside two who have its address ---- */

struct Pin : rl::test_suite<Pin, 3> {
        XHead head;
        VAR<int> alive, n_freed;

        void before() {
                clear(&head, ID, 10);
                SAY(alive) = 1;
                SAY(n_freed) = 0;
        }
        void free_it() {
                SAY(alive) = 0;
                SAY(n_freed) = SAY(n_freed) + 1;
        }
        void thread(unsigned i) {
                bool to_free = false;
                if (i == 0) {
                        xhead_end(&head);
                        to_free = xhead_let_go(&head);
                } else if (xhead_pin(&head, ID, &to_free)) {
                        RL_ASSERT(SAY(alive) == 1);
                        to_free = xhead_unpin(&head);
                }
                if (to_free)
                        free_it();
        }
        void after() {
                RL_ASSERT(SAY(n_freed) == 1);
        }
};

int main(int argc, char **argv) {
        static const Row models[] = {
#ifdef RELACY_ONLY
                { "only", check<RELACY_ONLY> },
#else
                { "push", check<Push> },     { "urgent", check<Urgent> }, { "stop", check<Stop> },
                { "full", check<Full> },     { "lots", check<Lots> },     { "back", check<Back> },
                { "pause", check<Pause> },   { "cancel", check<Cancel> }, { "bias", check<Bias> },
                { "rebias", check<Rebias> }, { "reuse", check<Reuse> },   { "slots", check<Slots> },
                { "pin", check<Pin> },
#endif
        };
        return run(models, argc, argv);
}
