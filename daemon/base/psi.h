/* SPDX-License-Identifier: MIT */
#pragma once

/* What the kernel and the service manager say about memory pressure, as text: how a watch is asked for, and how much time was
 * lost. Pure. */

#include <stddef.h>
#include <stdint.h>

enum {
        PSI_TRIGGER_MAX = 256, /* bytes that are written to ask for a watch */
        PSI_TEXT_MAX = 512,    /* of a file of /proc/pressure that are looked at */
};

/* The bytes that $MEMORY_PRESSURE_WRITE stands for (base64, padded). 0; -EINVAL: it is none; -E2BIG: more than PSI_TRIGGER_MAX. */
int psi_decode_trigger(const char *base64, uint8_t ret[PSI_TRIGGER_MAX], size_t *ret_n);

/* The time that some task has lost, from a line `some ... total=USEC` of a pressure file. 0, or -EINVAL: there is none. */
int psi_parse_total(const char *text, size_t len, uint64_t *ret_usec);
