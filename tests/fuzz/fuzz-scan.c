/* SPDX-License-Identifier: MIT */
/* The scanner. First byte: how the rest is cut into chunks, second: the limit. In chunks or at once the outcome must be
 * the same, a whole value has no whole prefix, and msgpack-c agrees on what is whole. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <msgpack.h>

#include "scan.h"
#include "target.h"

static int scan_in_chunks(const uint8_t *data, size_t len, size_t step, size_t max, EqScan *scan) {
        int r = EQ_SCAN_MORE;

        for (size_t n = 0; r == EQ_SCAN_MORE && n < len;) {
                n = len - n < step ? len : n + step;
                char *copy = malloc(n);
                FUZZ_CHECK(copy);
                memcpy(copy, data, n);
                r = eq_scan(scan, copy, n, max);
                free(copy);
        }
        return r;
}

static void check_oracle(const uint8_t *data, size_t len) {
        msgpack_unpacked u;
        size_t off = 0;

        msgpack_unpacked_init(&u);
        int r = msgpack_unpack_next(&u, (const char *)data, len, &off);
        /* Its stack of 32 is the one thing in which it is narrower. */
        FUZZ_CHECK(r == MSGPACK_UNPACK_SUCCESS || r == MSGPACK_UNPACK_NOMEM_ERROR);
        FUZZ_CHECK(r != MSGPACK_UNPACK_SUCCESS || off == len);
        msgpack_unpacked_destroy(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        EqScan once = EQ_SCAN_NULL, chunks = EQ_SCAN_NULL, prefix = EQ_SCAN_NULL;

        if (size < 3)
                return 0;
        size_t step = 1 + (data[0] & 0x3f), max = data[1] < 0x80 ? 65536 : data[1] & 0x7f;
        data += 2;
        size -= 2;

        int r = eq_scan(&once, data, size, max);
        FUZZ_CHECK(scan_in_chunks(data, size, step, max, &chunks) == r);
        if (r != EQ_SCAN_DONE)
                return 0;
        FUZZ_CHECK(once.pos == chunks.pos && once.pos > 0 && once.pos <= size && once.pos <= max);
        FUZZ_CHECK(once.pos == 1 || eq_scan(&prefix, data, once.pos - 1, max) == EQ_SCAN_MORE);
        check_oracle(data, once.pos);
        return 0;
}
