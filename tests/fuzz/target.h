/* SPDX-License-Identifier: MIT */
#pragma once

/* What a fuzz target is: this function, called with any bytes, in one process again and again. It returns 0; a finding is
 * a crash, a sanitizer's report or a failed FUZZ_CHECK. The same object is linked with libFuzzer (-Dfuzz=true) or with
 * replay.c. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(condition)                                                                                          \
        do {                                                                                                           \
                if (!(condition)) {                                                                                    \
                        fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                      \
                        abort();                                                                                       \
                }                                                                                                      \
        } while (0)
