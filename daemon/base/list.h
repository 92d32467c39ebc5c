/* SPDX-License-Identifier: MIT */
#pragma once

/* An intrusive doubly linked list with a head of the same type. A link that is in no list points to itself, so removal
 * needs no look-up and may be repeated. Name the owner in a comment at every link field. */

#include <stdbool.h>
#include <stddef.h>

typedef struct List {
        struct List *prev, *next;
} List;

#define LIST_ENTRY(link, type, member) ((type *)((char *)(link)-offsetof(type, member)))
#define LIST_FOREACH(link, head) for (List *link = (head)->next; link != (head); link = link->next)
/* The body may remove `link`, and nothing else. */
#define LIST_FOREACH_SAFE(link, head)                                                                                  \
        for (List *link = (head)->next, *link##_next = link->next; link != (head);                                     \
             link = link##_next, link##_next = link->next)

static inline void list_init(List *l) {
        l->prev = l->next = l;
}

static inline bool list_is_empty(const List *l) {
        return l->next == l;
}

static inline void list_insert_before(List *where, List *link) {
        link->prev = where->prev;
        link->next = where;
        where->prev->next = link;
        where->prev = link;
}

static inline void list_append(List *head, List *link) {
        list_insert_before(head, link);
}

static inline void list_remove(List *link) {
        link->prev->next = link->next;
        link->next->prev = link->prev;
        list_init(link);
}

static inline List *list_first(const List *head) { /* NULL if empty */
        return list_is_empty(head) ? NULL : head->next;
}

/* Moves everything to the empty list `to`, so that it can be walked while callbacks add to `from` again. */
static inline void list_take_all(List *from, List *to) {
        list_init(to);
        if (list_is_empty(from))
                return;
        *to = *from;
        to->prev->next = to;
        to->next->prev = to;
        list_init(from);
}
