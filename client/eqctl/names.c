/* SPDX-License-Identifier: MIT */
/* Names of queues by id and of users by uid, looked up once each. Small numbers of both: lists will do. */

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "eqctl/accounts.h"
#include "eqctl/ctl.h"
#include "eqctl/text.h"

typedef struct Name Name;
struct Name {
        Name *next;
        uint64_t id;
        char text[];
};

struct NameCache {
        Name *queues, *users;
        bool queues_asked;
};

static const Name *name_find(const Name *list, uint64_t id) {
        for (; list; list = list->next)
                if (list->id == id)
                        return list;
        return NULL;
}

/* Without memory it is looked up again the next time. */
static const Name *name_add(Name **list, uint64_t id, EqBytes text) {
        Name *n = malloc(sizeof(*n) + text.len + 1);

        if (!n)
                return NULL;
        n->id = id;
        memcpy(n->text, text.data, text.len);
        n->text[text.len] = 0;
        n->next = *list;
        *list = n;
        return n;
}

static void names_free(Name *list) {
        while (list) {
                Name *n = list;
                list = n->next;
                free(n);
        }
}

void ctl_deinit(Ctl *ctl) {
        if (ctl->names) {
                names_free(ctl->names->queues);
                names_free(ctl->names->users);
                free(ctl->names);
        }
        ctl->names = NULL;
        ctl->client = eq_client_close(ctl->client);
        host_end(&ctl->host);
        options_deinit(&ctl->options);
}

static NameCache *cache(Ctl *ctl) {
        if (!ctl->names)
                ctl->names = calloc(1, sizeof(*ctl->names));
        return ctl->names;
}

static void learn_queue(const EqQueue *q, void *userdata) {
        NameCache *c = userdata;
        name_add(&c->queues, q->id, q->name);
}

static void ask_queues(Ctl *ctl, NameCache *c) {
        c->queues_asked = true;
        if (ctl->client)
                (void)ctl_each_queue(ctl, learn_queue, c); /* without names, numbers are shown */
}

void ctl_id(EqBuffer *b, EqIdRef id, EqBytes hint, void *userdata) {
        Ctl *ctl = userdata;
        NameCache *c = cache(ctl);
        const Name *n = NULL;

        if (id.text.len > 0) {
                text_escaped(b, id.text);
                return;
        }
        if (c && !(n = name_find(c->queues, id.id.queue)) && !c->queues_asked && hint.len == 0) {
                ask_queues(ctl, c);
                n = name_find(c->queues, id.id.queue);
        }
        if (n)
                text_cstr(b, n->text);
        else if (hint.len > 0) {
                text_escaped(b, hint);
                if (c)
                        name_add(&c->queues, id.id.queue, hint);
        } else
                text_printf(b, "%" PRIu64, id.id.queue);
        text_printf(b, "/%" PRIu64, id.id.seq);
}

void ctl_user(Ctl *ctl, EqBuffer *b, uint64_t uid) {
        NameCache *c = cache(ctl);
        const Name *n = c ? name_find(c->users, uid) : NULL;

        if (!n && c) {
                char name[ACCOUNT_NAME_SIZE];
                if (!account_user_name((uid_t)uid, name))
                        (void)snprintf(name, sizeof(name), "%" PRIu64, uid);
                n = name_add(&c->users, uid, eq_str(name));
        }
        if (n)
                text_escaped(b, eq_str(n->text));
        else
                text_printf(b, "%" PRIu64, uid);
}
