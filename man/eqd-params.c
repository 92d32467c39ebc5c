/* SPDX-License-Identifier: MIT */

/* Build-time program: prints a page of the manual, FILE.in, with what the tables of parameters say. A line @Limits@ stands
 * for the settings of that section, @Queue@ for the attributes of queues, @Pool@ for those of pools, @events@ and @fields@ for
 * what the journal gets, @problems@ for what can be wrong with the files of the store; @VERSION@ is replaced anywhere. Keys are printed
 * as configuration files have them by custom, MaxActive for max_active. With --check: does each of these have its line in one of
 * the pages? */

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/event.h"
#include "base/util.h"
#include "manager/attributes.h"
#include "proto/page.h"

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
        page_text(p->doc);
        printf(".\n");
        param_print_range(p, range, sizeof(range));
        range[0] = (char)toupper((unsigned char)range[0]);
        page_text(range);
        if (*p->fallback) {
                printf("; default\n.BR ");
                page_text(p->fallback);
                printf(" .\n");
        } else
                printf("; default: not set.\n");
        if (!p->settable)
                printf("%s\n", unless_settable);
}

/* What a format leaves open is an ellipsis for people. */
static void print_format(const char *format) {
        char text[512];
        size_t n = 0;
        for (; *format && n + 4 < sizeof(text); format++) {
                if (*format != '%') {
                        text[n++] = *format;
                        continue;
                }
                while (!strchr("dsucx", *++format))
                        ;
                memcpy(text + n, "...", 3);
                n += 3;
        }
        text[n] = '\0';
        page_text(text);
}

static void print_events(void) {
        for (int i = 0; i < _EVENT_MAX; i++) {
                printf(".TP\n.B ");
                page_text(event_rows[i].name);
                printf("\nPriority %d: \\(lq", event_rows[i].priority);
                print_format(event_rows[i].format);
                printf("\\(rq\n");
        }
}

static void print_fields(void) {
        for (size_t i = 0; i < n_event_fields; i++) {
                printf(".TP\n.B ");
                page_text(event_fields[i].key);
                printf("\n");
                page_text(event_fields[i].doc);
                printf(".\n");
        }
}

static void print_problems(void) {
        static const struct {
                const char *name, *level, *what, *at_start, *advice;
        } rows[] = {
#define STORE_PROBLEM(ID, name_, LEVEL, what_, at_start_, advice_)                                                     \
        { .name = (name_), .level = #LEVEL, .what = (what_), .at_start = (at_start_), .advice = (advice_) },
#include "store/problems.def"
        };
        for (size_t i = 0; i < ELEMENTSOF(rows); i++) {
                printf(".TP\n.BR ");
                page_text(rows[i].name);
                printf(" \" (");
                for (const char *p = rows[i].level; *p; p++)
                        putchar(tolower((unsigned char)*p));
                printf(")\"\n");
                page_text(rows[i].what);
                printf(".\nAt the next start: ");
                page_text(rows[i].at_start);
                printf(".\nTo do: ");
                page_text(rows[i].advice);
                printf(".\n");
        }
}

static bool is(const char *section, size_t len, const char *name) {
        return strlen(name) == len && memcmp(name, section, len) == 0;
}

static const struct {
        const ParamTable *table;
        const char *unless_settable;
} tables[] = {
        { &daemon_settings_table, "A change takes effect when eqd is restarted." },
        { &queue_attributes_table, "Only files can set it." },
        { &pool_attributes_table, "Only files can set it." },
};

static const struct {
        const char *name;
        void (*print)(void);
} others[] = {
        { "events", print_events },
        { "fields", print_fields },
        { "problems", print_problems },
};

static bool print_section(const char *section, size_t len) {
        bool found = false;

        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                if (is(section, len, others[i].name)) {
                        others[i].print();
                        return true;
                }
        for (size_t t = 0; t < ELEMENTSOF(tables); t++)
                for (size_t i = 0; i < tables[t].table->n; i++) {
                        const Param *p = &tables[t].table->rows[i];
                        if (!is(section, len, p->section))
                                continue;
                        print_row(p, tables[t].unless_settable);
                        found = true;
                }
        return found;
}

/* ---- does each section have its page? ---- */

static bool page_takes(const char *path, const char *section) {
        char line[1024];
        bool takes = false;
        FILE *f = fopen(path, "re");

        if (!f) {
                fprintf(stderr, "eqd-params: %s: %s\n", path, strerror(errno));
                return false;
        }
        while (!takes && fgets(line, sizeof(line), f)) {
                size_t n = strcspn(line, "\n");
                takes = n > 2 && line[0] == '@' && line[n - 1] == '@' && is(line + 1, n - 2, section);
        }
        fclose(f);
        return takes;
}

/* Says on standard output which page takes the section; false, with what to do, if none does. */
static bool check_section(const char *section, char *pages[]) {
        for (char **page = pages; *page; page++)
                if (page_takes(*page, section)) {
                        printf("%s %s\n", section, *page);
                        return true;
                }
        fprintf(stderr, "eqd-params: no page of the manual has a line @%s@; add one, so that what is in that table is told\n", section);
        return false;
}

static bool check_sections(char *pages[]) {
        bool good = true;

        for (size_t i = 0; i < ELEMENTSOF(others); i++)
                good = check_section(others[i].name, pages) && good;
        for (size_t t = 0; t < ELEMENTSOF(tables); t++) {
                const Param *rows = tables[t].table->rows;
                for (size_t i = 0; i < tables[t].table->n; i++)
                        if (i == 0 || strcmp(rows[i].section, rows[i - 1].section) != 0)
                                good = check_section(rows[i].section, pages) && good;
        }
        return good;
}

int main(int argc, char *argv[]) {
        bool good;

        if (argc > 2 && strcmp(argv[1], "--check") == 0)
                good = check_sections(argv + 2);
        else if (argc == 2)
                good = page_print("eqd-params", argv[1], print_section) == 0;
        else {
                fprintf(stderr, "usage: eqd-params FILE\n       eqd-params --check FILE...\n");
                return EXIT_FAILURE;
        }
        return good && fflush(stdout) == 0 && !ferror(stdout) ? EXIT_SUCCESS : EXIT_FAILURE;
}
