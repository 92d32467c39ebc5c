/* SPDX-License-Identifier: MIT */
/* Pages of the manual, filled in. */

#include "page.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void page_text(const char *s) {
        if (*s == '.')
                fputs("\\&", stdout);
        for (; *s; s++)
                if (*s == '\\')
                        fputs("\\e", stdout);
                else if (*s == '-')
                        fputs("\\-", stdout);
                else if (*s == '\'')
                        fputs("\\(aq", stdout);
                else if (*s == '~')
                        fputs("\\(ti", stdout);
                else if (*s == '^')
                        fputs("\\(ha", stdout);
                else
                        putchar(*s);
}

static void print_line(const char *line) {
        static const char mark[] = "@VERSION@";
        const char *at;

        for (; (at = strstr(line, mark)); line = at + strlen(mark))
                printf("%.*s%s", (int)(at - line), line, EQD_VERSION);
        fputs(line, stdout);
}

int page_print(const char *program, const char *path, bool (*fragment)(const char *name, size_t len)) {
        char line[1024];
        FILE *f = fopen(path, "re");
        int r = 0;

        if (!f) {
                fprintf(stderr, "%s: %s: %s\n", program, path, strerror(errno));
                return -1;
        }
        while (r == 0 && fgets(line, sizeof(line), f)) {
                size_t n = strcspn(line, "\n");
                if (n < 3 || line[0] != '@' || line[n - 1] != '@')
                        print_line(line);
                else if (!fragment(line + 1, n - 2)) {
                        fprintf(stderr, "%s: %s: nothing stands for %.*s\n", program, path, (int)n, line);
                        r = -1;
                }
        }
        fclose(f);
        return r;
}
