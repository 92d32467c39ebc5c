/* SPDX-License-Identifier: MIT */
#pragma once

/* What this eqd speaks, told by itself. Any thread, never blocks. */

#include <msgpack.h>
#include <stdint.h>

/* api_info's result: [channel, {version, types, error_types, functions, notifications, records, errors, reasons, states,
 * events, limits}], all from the tables of eqd.def. functions, types, error_types and version have the form that generic
 * clients of Neovim's API know. */
void introspect_pack(msgpack_packer *pk, uint64_t channel);
