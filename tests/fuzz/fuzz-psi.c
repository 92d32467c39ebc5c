/* SPDX-License-Identifier: MIT */
/* What the service manager and the kernel say about memory pressure. The bytes are both: a trigger, of which decoding keeps to
 * its bound, and a pressure file. */

#include <string.h>

#include "base/psi.h"
#include "target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        uint8_t bytes[PSI_TRIGGER_MAX];
        size_t n = SIZE_MAX;
        uint64_t usec = 0;
        char *text = malloc(size + 1);
        FUZZ_CHECK(text);
        memcpy(text, data, size);
        text[size] = '\0';
        if (psi_decode_trigger(text, bytes, &n) >= 0)
                FUZZ_CHECK(n <= sizeof(bytes) && n >= strlen(text) / 4 * 3 - (*text ? 2 : 0));
        else
                FUZZ_CHECK(n == SIZE_MAX);
        char *file = malloc(size ? size : 1); /* exactly as long */
        FUZZ_CHECK(file);
        memcpy(file, data, size);
        (void)psi_parse_total(file, size, &usec);
        free(file);
        free(text);
        return 0;
}
