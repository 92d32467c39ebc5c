/* SPDX-License-Identifier: MIT */
#pragma once

/* Which tasks a command line means: ids, in pieces that one request takes, or what filters choose. */

#include "eqctl/ctl.h"

/* texts[i] is the id at i. 0: go on; or the exit status. */
typedef int (*ChoiceFn)(Ctl *ctl, EqArray ids, const char *const *texts, void *userdata);

/* Calls fn with at most EQ_BATCH_MAX of the texts at a time, until one gives a status that is not 0. Returns that, or 0. */
int choice_ids_each(Ctl *ctl, const char *const *texts, size_t n, ChoiceFn fn, void *userdata);
int choice_operands_each(Ctl *ctl, ChoiceFn fn, void *userdata);
/* For what may have more bytes than a reply for many has room for. */
int choice_operands_one_by_one(Ctl *ctl, ChoiceFn fn, void *userdata);

/* The filters that ls and the verbs on many tasks share; list->present stays 0 if there is none. `states` keeps what list points
 * to. 0, or the exit status. */
int choice_filters(Ctl *ctl, EqBuffer *states, EqList *list);
