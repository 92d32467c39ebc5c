/* SPDX-License-Identifier: MIT */
/* The names are those of ionice(1). */

#include "executor/ionice.h"

#include <errno.h>
#include <string.h>

#include "base/util.h"

enum { LEVEL_DEFAULT = 4 }; /* the kernel's own */

static const struct {
        const char *name;
        uint32_t class;
        bool has_levels;
} classes[] = {
        { "idle", IOPRIO_IDLE, false },
        { "best-effort", IOPRIO_BEST_EFFORT, true },
        { "realtime", IOPRIO_REALTIME, true },
};

int ionice_parse(EqBytes text, uint32_t *ret) {
        const char *colon = text.len ? memchr(text.data, ':', text.len) : NULL;
        EqBytes name = colon ? eq_bytes(text.data, (size_t)(colon - text.data)) : text;

        for (size_t i = 0; i < ELEMENTSOF(classes); i++) {
                uint32_t level = classes[i].has_levels ? LEVEL_DEFAULT : 0;
                if (!eq_bytes_eq(eq_str(classes[i].name), name))
                        continue;
                if (colon && (!classes[i].has_levels || text.len != name.len + 2))
                        return -EINVAL;
                if (colon)
                        level = (uint32_t)(colon[1] - '0'); /* below '0': too large as well */
                if (level > IOPRIO_LEVEL_MAX)
                        return -EINVAL;
                *ret = ioprio_make(classes[i].class, level);
                return 0;
        }
        return -EINVAL;
}
