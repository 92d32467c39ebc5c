/* SPDX-License-Identifier: MIT */

/* Build-time program: prints a page of the manual, FILE.in, with what the tables of parameters say. A line @Limits@ stands
 * for the settings of that section, @Queue@ for the attributes of queues; @VERSION@ is replaced anywhere. Keys are printed
 * as configuration files have them by custom, MaxActive for max_active. */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "manager/attributes.h"

/* Text as roff has it: hyphens that can be copied, no requests by accident. */
static void print_text(const char *text) {
        if (*text == '.' || *text == '\'')
                fputs("\\&", stdout);
        for (; *text; text++)
                if (*text == '-')
                        fputs("\\-", stdout);
                else if (*text == '\\')
                        fputs("\\e", stdout);
                else
                        putchar(*text);
}

static void print_key(const char *name) {
        for (bool upper = true; *name; name++) {
                if (*name != '_')
                        putchar(upper ? toupper((unsigned char)*name) : *name);
                upper = *name == '_';
        }
}

static void print_row(const Param *p, const char *unless_settable) {
        char range[512];

        printf(".TP\n.B ");
        print_key(p->name);
        printf("=\n");
        print_text(p->doc);
        printf(".\n");
        param_print_range(p, range, sizeof(range));
        range[0] = (char)toupper((unsigned char)range[0]);
        print_text(range);
        if (*p->fallback) {
                printf("; default\n.BR ");
                print_text(p->fallback);
                printf(" .\n");
        } else
                printf("; default: not set.\n");
        if (!p->settable)
                printf("%s\n", unless_settable);
}

static bool print_section(const char *section, size_t len) {
        static const struct {
                const ParamTable *table;
                const char *unless_settable;
        } tables[] = {
                { &daemon_settings_table, "A change takes effect when eqd is restarted." },
                { &queue_attributes_table, "Only files can set it." },
        };
        bool found = false;

        for (size_t t = 0; t < ELEMENTSOF(tables); t++)
                for (size_t i = 0; i < tables[t].table->n; i++) {
                        const Param *p = &tables[t].table->rows[i];
                        if (strlen(p->section) != len || memcmp(p->section, section, len) != 0)
                                continue;
                        print_row(p, tables[t].unless_settable);
                        found = true;
                }
        return found;
}

static void print_line(const char *line) {
        static const char mark[] = "@VERSION@";
        const char *at;

        for (; (at = strstr(line, mark)); line = at + strlen(mark))
                printf("%.*s%s", (int)(at - line), line, EQD_VERSION);
        fputs(line, stdout);
}

static int print_page(const char *path) {
        char line[1024];
        int r = 0;
        FILE *f = fopen(path, "re");

        if (!f) {
                fprintf(stderr, "eqd-params: %s: %s\n", path, strerror(errno));
                return -1;
        }
        while (r == 0 && fgets(line, sizeof(line), f)) {
                size_t n = strcspn(line, "\n");
                if (n < 3 || line[0] != '@' || line[n - 1] != '@')
                        print_line(line);
                else if (!print_section(line + 1, n - 2)) {
                        fprintf(stderr, "eqd-params: %s: there is no section %.*s\n", path, (int)n, line);
                        r = -1;
                }
        }
        fclose(f);
        return r;
}

int main(int argc, char *argv[]) {
        if (argc != 2) {
                fprintf(stderr, "usage: eqd-params FILE\n");
                return EXIT_FAILURE;
        }
        return print_page(argv[1]) == 0 && fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
