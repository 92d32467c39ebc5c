/* SPDX-License-Identifier: MIT */
/* A sorted list and a heap that share one order. Invariant: the list is sorted by SEQ; a task is in the list if its link
 * is linked, in the heap if its order_item is, and never in both. */

#include "engine/taskline.h"

#include <assert.h>

static Task *of_link(const List *link) {
        return LIST_ENTRY(link, Task, link);
}

static Task *of_item(const HeapItem *item) {
        return HEAP_ENTRY(item, Task, order_item);
}

void task_line_init(TaskLine *l) {
        *l = (TaskLine) { .early = HEAP_NULL };
        list_init(&l->list);
}

void task_line_deinit(TaskLine *l) {
        assert(l->n == 0);
        heap_done(&l->early);
}

/* Most late ones come from the front (a task given back, a released one), so the walk starts there. */
static void insert_walking(TaskLine *l, Task *t) {
        List *link = l->list.next;
        while (link != &l->list && of_link(link)->seq < t->seq)
                link = link->next;
        list_insert_before(link, &t->link);
}

void task_line_insert(TaskLine *l, Task *t) {
        l->n++;
        if (list_is_empty(&l->list) || of_link(l->list.prev)->seq < t->seq)
                list_append(&l->list, &t->link);
        else if (t->seq < of_link(l->list.next)->seq)
                list_insert_before(l->list.next, &t->link);
        else if (heap_push(&l->early, &t->order_item, t->seq) < 0)
                insert_walking(l, t);
}

void task_line_remove(TaskLine *l, Task *t) {
        l->n--;
        if (heap_contains(&t->order_item))
                heap_remove(&l->early, &t->order_item);
        else
                list_remove(&t->link);
}

static Task *smaller(Task *a, Task *b) {
        if (!a || !b)
                return a ? a : b;
        return a->seq < b->seq ? a : b;
}

Task *task_line_first(const TaskLine *l) {
        List *link = list_first(&l->list);
        HeapItem *item = heap_peek(&l->early);
        return smaller(link ? of_link(link) : NULL, item ? of_item(item) : NULL);
}

Task *task_line_next(const TaskLine *l, const Task *t) {
        HeapItem *item = heap_peek(&l->early);
        Task *late = item && of_item(item)->seq > t->seq ? of_item(item) : NULL;
        List *link = heap_contains(&t->order_item) ? l->list.next : t->link.next;
        while (link != &l->list && of_link(link)->seq < t->seq)
                link = link->next;
        return smaller(link != &l->list ? of_link(link) : NULL, late);
}

size_t task_line_count_before(const TaskLine *l, uint64_t seq) {
        size_t n = 0;
        for (size_t i = 0; i < l->early.n; i++)
                n += of_item(l->early.items[i])->seq < seq;
        for (const List *link = l->list.next; link != &l->list && of_link(link)->seq < seq; link = link->next)
                n++;
        return n;
}
