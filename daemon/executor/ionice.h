/* SPDX-License-Identifier: MIT */
#pragma once

/* The class of a command's disk accesses as text, CLASS[:LEVEL]. Pure functions. */

#include "base/ioprio.h"
#include "proto/codec.h"

/* As ioprio_set(2) takes it: 0; or -EINVAL. */
int ionice_parse(EqBytes text, uint32_t *ret);
