/* SPDX-License-Identifier: MIT */
#pragma once

/* One file of the configuration, read, judged, and its entries set. For config.c. Blocks. */

#include "manager/config.h"

enum { CONFIG_LOOKUP_BYTES = 1 << 20 }; /* of an entry of the user database: a group's members, at most */

#define CONFIG_DIGEST_NULL UINT64_C(0xcbf29ce484222325) /* of nothing: where FNV begins */

/* Where messages go. Either the first one ends the reading, and its text is kept; or each is told, and reading goes on. */
typedef struct ConfigReport {
        char *text;
        size_t size;
        ConfigMistakeFunc each; /* NULL: the first one is the end */
        void *userdata;
        int result; /* of the first mistake */
} ConfigReport;

/* Key and value as far as read: set when the next key, section or the end comes. */
typedef struct ConfigEntry {
        char section[64];
        char key[64];
        char value[PARAM_TEXT_MAX + 1];
        size_t len;
        unsigned line; /* 0: there is none */
} ConfigEntry;

/* One file while it is parsed. Settings of the daemon stand in eqd.conf only. */
typedef struct ConfigFile {
        const char *path;
        const char *next, *end; /* of the text, not parsed yet */
        unsigned line;          /* of the line last given out */
        bool indented;          /* was that line */
        bool trusted;           /* may say as whom tasks run */
        bool has_settings;
        bool stopped;         /* nothing more is read */
        bool section_refused; /* that of the line last given out, and what follows it is not looked at */
        Config *config;       /* borrowed */
        const AttributeKind *kind;
        void *attributes;        /* borrowed: of the queue or pool, or the defaults of queues */
        Identity **run_as;       /* borrowed: of the queue, or the defaults; NULL: a pool */
        PluginLibrary **library; /* borrowed: of the queue; NULL: these are the defaults, or a pool */
        const void *defaults;    /* borrowed; NULL: the built-in ones */
        ConfigEntry entry;
        int result;
        unsigned result_line;
        ConfigReport *report;
} ConfigFile;

int config_report(ConfigReport *to, int r, const char *format, ...) _printf_(3, 4); /* returns r */
/* What the next step is to know of the one before: 0 also for a mistake, where all of them are wanted. */
int config_pass(const ConfigReport *to, int r);
/* Parses one file into what `target` names. A file that is not there is empty. *digest goes on; NULL: not wanted. 0, or negative
 * errno that was reported. */
int config_file_load(const char *path, const ConfigFile *target, uint64_t *digest);
