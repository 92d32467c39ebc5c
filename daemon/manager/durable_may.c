/* SPDX-License-Identifier: MIT */
/* What a store that is low, full or has failed forbids, and how that is said. */
#include <errno.h>
#include <string.h>

#include "manager/durable.h"
#include "manager/parts.h"

static int refuse_failed(const Store *store, const QueueRecord *q, Refusal *r) {
        return refuse(
                r, EQ_E_STORE, -EIO,
                "the store has failed (%s), so nothing can be changed or promised of %s%s; see the journal, mend the "
                "disk, and restart eqd",
                strerror(-store_error(store)), q ? "durable queue " : "durable queues", q ? q->queue->name : "");
}

int durable_may_wait(const QueueRecord *q, Refusal *r) {
        return durable_has_failed(q) ? refuse_failed(durable_store(q->manager), q, r) : 0;
}

int durable_may_change(const Manager *m, const QueueRecord *q, Refusal *r) {
        if (!m->durable || (q && !durable_queue(q)))
                return 0;
        const Store *store = durable_store(m);
        if (store_health(store) == STORE_FAILED)
                return refuse_failed(store, q, r);
        if (!store_is_spent(store))
                return 0;
        return refuse(
                r, EQ_E_STORE, -ENOSPC,
                "the store has no space left, not even for a change of durable %s%s; make room on its file system, "
                "and try again",
                q ? "queue " : "queues", q ? q->queue->name : "");
}

int durable_may_grow(const QueueRecord *q, Refusal *r) {
        Store *store = q->manager->durable ? durable_store(q->manager) : NULL;
        StoreHealth health = store ? store_look(store) : STORE_GOOD;
        if (health == STORE_GOOD)
                return 0;
        if (health == STORE_FAILED)
                return refuse_failed(store, q, r);
        bool low = health == STORE_LOW;
        int e = refuse(
                r, EQ_E_STORE, -ENOSPC,
                "the store has %s space for tasks of queue %s, which is durable; make room on its file system, or "
                "cancel tasks, and try again",
                low ? "too little (LowWater= of eqd.conf)" : "no", q->queue->name);
        REFUSAL_NAMES(r, queue, eq_str(q->queue->name));
        REFUSAL_SAYS(r, retry_after_usec, STORE_LOOKS_USEC);
        return e;
}

const char *manager_store_trouble(const Manager *m) {
        static const char *const texts[] = {
                [STORE_LOW] = "the store has too little space for tasks",
                [STORE_FULL] = "the store has no space",
                [STORE_FAILED] = "the store has failed, see the journal",
        };
        return m->durable ? texts[store_health(durable_store(m))] : NULL;
}
