/* SPDX-License-Identifier: MIT */
#pragma once

/* Tasks in order of SEQ. Those that come in order, nearly all, form a list: O(1). One that comes late and belongs between
 * others goes to a heap beside it: O(log n). The first task is the smaller of the two heads.
 *
 * Nothing here fails: without memory for the heap the place is found by walking the list. Loop. */

#include <stddef.h>
#include <stdint.h>

#include "base/heap.h"
#include "base/list.h"
#include "engine/task.h"

typedef struct TaskLine {
        List list;  /* of Task::link */
        Heap early; /* of Task::order_item */
        size_t n;
} TaskLine;

void task_line_init(TaskLine *l);
void task_line_deinit(TaskLine *l); /* must be empty */

void task_line_insert(TaskLine *l, Task *t); /* t is in no line; its SEQ is not in this one */
void task_line_remove(TaskLine *l, Task *t);
Task *task_line_first(const TaskLine *l); /* NULL if empty */
/* One behind t, which is in l; NULL: none. O(1), so one that came late may be passed over. */
Task *task_line_next(const TaskLine *l, const Task *t);

/* How many tasks have a SEQ below seq. For questions of people: O(n). */
size_t task_line_count_before(const TaskLine *l, uint64_t seq);
