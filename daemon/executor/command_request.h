/* SPDX-License-Identifier: MIT */
#pragma once

/* What a start of t asks of the spawner, but for descriptors. For command.c. */

#include "executor/command.h"

/* s: the options of t. *strings, emptied before, has what belongs to *m. 0 or -ENOMEM. */
int command_request_fill(const CommandSetup *setup, const Task *t, const EqSubmit *s, EqBuffer *strings, SpawnStart *m);
