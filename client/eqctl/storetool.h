/* SPDX-License-Identifier: MIT */
#pragma once

/* eqd-store, the program that looks at the files of a store: where it is, who runs it, and what it tells. It is a program of its own because
 * clients link nothing of the daemon. Blocks until it has ended. */

#include "eqctl/ctl.h"

/* A row that it tells: one of the records Store... of eqd.def. 0, or an exit status, which ends it. */
typedef int (*StoreRowFn)(Ctl *ctl, const EqSchema *schema, EqBytes row, void *userdata);

/* Runs `eqd-store VERB DIR ARGS`; args: until NULL. The exit status: 0: nothing is wrong, 1: something is, 2: it could not be looked
 * at; or of what went wrong with that, and has said so. */
int store_tool(Ctl *ctl, const char *verb, const char *dir, const char *const *args, StoreRowFn fn, void *userdata);

/* The same by the eqd that ctl is connected to, for who may not read its files. */
int store_tool_by_eqd(Ctl *ctl, const EqStoreRead *what, StoreRowFn fn, void *userdata);
