/* SPDX-License-Identifier: MIT */
#include "store/torn.h"

#include <string.h>

#include "base/util.h"
#include "store/record.h"

enum { STEP = 64 };

static bool is_zero(const char *p) {
        static const char zeros[STEP];
        return memcmp(p, zeros, STEP) == 0;
}

uint32_t torn_written_until(const char *data, uint32_t size, uint32_t at) {
        uint32_t end = size;
        while (end - at >= STEP && is_zero(data + end - STEP)) /* mostly there is much that was never written */
                end -= STEP;
        while (end > at && data[end - 1] == 0)
                end--;
        return end;
}

bool torn_by_death(const char *data, uint32_t size, uint32_t at, uint32_t n) {
        uint32_t needed = at + (n > 0 ? n - 1 : RECORD_HEADER);
        return torn_written_until(data, size, MIN(needed, size)) <= needed;
}

bool torn_by_power(const char *data, uint32_t at, uint32_t end) {
        for (uint32_t next; at < end; at = next) {
                next = MIN(at - at % TORN_SECTOR + TORN_SECTOR, end);
                if (torn_written_until(data, next, at) == at)
                        return true;
        }
        return false;
}
