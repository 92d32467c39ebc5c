/* SPDX-License-Identifier: MIT */
#pragma once

/* A resumable, bounded walk over the headers of one MessagePack value: finds where a message ends without looking at
 * what it says, so that plain MessagePack-RPC needs no length prefix and hostile lengths die at their header.
 *
 * Prefix property: every strict prefix of a valid value is incomplete. Agrees with msgpack-c on what is valid, except
 * that ext types are refused (the protocol has none) and no nesting is too deep (nothing here recurses). */

#include <stddef.h>
#include <stdint.h>

typedef struct EqScan {
        size_t pos;    /* bytes of headers and bodies walked over; may point past the bytes at hand, inside a body */
        uint64_t left; /* values still to come; meaningful once pos > 0 */
} EqScan;
#define EQ_SCAN_NULL                                                                                                   \
        { 0 }

enum { EQ_SCAN_MORE = 0, EQ_SCAN_DONE = 1 };

/* Goes on where the last call stopped. `buf` holds the value from its first byte, `len` bytes so far; both may have
 * grown or moved since. Returns EQ_SCAN_DONE with scan->pos = length of the value, EQ_SCAN_MORE when bytes are missing,
 * -EBADMSG for a byte that starts nothing, -EMSGSIZE as soon as the value cannot fit into `max` bytes. Any thread, never
 * blocks, does not allocate. */
int eq_scan(EqScan *scan, const void *buf, size_t len, size_t max);
