/* SPDX-License-Identifier: MIT */
#pragma once

/* Resource limits as text, NAME=SOFT[:HARD]. Pure functions. */

#include <stddef.h>

#include "proto/codec.h"
#include "spawner/wire.h"

/* 0; or -EINVAL, and error says what is wrong and what is expected. */
int limit_parse(EqBytes text, SpawnRlimit *ret, char *error, size_t size);
