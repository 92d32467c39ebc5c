/* SPDX-License-Identifier: MIT */
/* Build-time program: prints the catalog of the journal, which `journalctl -x` shows below eqd's records, from
 * daemon/base/events.def. */

#include <stdio.h>
#include <stdlib.h>

#include "base/event.h"

int main(void) {
        for (int i = 0; i < _EVENT_MAX; i++) {
                const EventRow *e = &event_rows[i];
                printf("%s-- %s\nSubject: eqd: %s\nDefined-By: eqd\nDocumentation: man:eqd(8)\n\n%s\n\n%s\n",
                       i ? "\n" : "# SPDX-License-Identifier: MIT\n# Made from daemon/base/events.def.\n\n",
                       e->message_id, e->name, e->happened, e->advice);
        }
        return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
