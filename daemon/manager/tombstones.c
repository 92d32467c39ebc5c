/* SPDX-License-Identifier: MIT */
/* Names that queues ever had, by hash. */

#include "manager/tombstones.h"

#include <errno.h>
#include <string.h>

#include "base/fault.h"

int tombstone_get(Manager *m, const char *name, Tombstone **ret) {
        Tombstone *t;
        HASH_FIND(hh, m->tombstones, name, strlen(name), t);
        if (!t) {
                t = fault_calloc(1, sizeof(*t));
                if (!t)
                        return -ENOMEM;
                memcpy(t->name, name, strlen(name) + 1);
                HASH_ADD_KEYPTR(hh, m->tombstones, t->name, strlen(t->name), t);
                if (!t->hh.tbl) {
                        free(t);
                        return -ENOMEM;
                }
        }
        *ret = t;
        return 0;
}

int tombstone_restore(Manager *m, EqBytes name, uint64_t last_seq) {
        char text[EQ_NAME_MAX + 1] = "";
        Tombstone *t;
        memcpy(text, name.data, name.len);
        int r = tombstone_get(m, text, &t);
        if (r >= 0)
                t->last_seq = MAX(t->last_seq, last_seq);
        return r;
}

int tombstones_each(const Manager *m, int (*each)(void *userdata, const char *name, uint64_t last_seq),
                    void *userdata) {
        for (const Tombstone *t = m->tombstones; t; t = t->hh.next) {
                int r = manager_queue(m, eq_str(t->name)) ? 0 : each(userdata, t->name, t->last_seq);
                if (r != 0)
                        return r;
        }
        return 0;
}

void tombstones_free(Manager *m) {
        Tombstone *t, *next;
        HASH_ITER(hh, m->tombstones, t, next) {
                HASH_DELETE(hh, m->tombstones, t);
                free(t);
        }
}
