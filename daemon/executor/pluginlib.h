/* SPDX-License-Identifier: MIT */
#pragma once

/* The shared object of a plugin: whom it must belong to, and whether it is one.
 *
 * It is code that runs inside eqd, so nobody else may be able to replace it: the file and every directory above it belong
 * to root, or in a user instance to its user, and no other may write there. Blocks on files. */

#include <stdbool.h>
#include <stddef.h>

#include "base/util.h"
#include "proto/eq-plugin.h"

typedef struct PluginLibrary {
        unsigned n_refs;
        void *handle;
        const eq_plugin *entry;
        char path[]; /* as it was given */
} PluginLibrary;

enum { PLUGIN_ERROR_MAX = 512 };

/* own: what belongs to the user that eqd runs as will do as well, also in a directory where everybody may make files but
 * only owners remove them. 0, or a negative errno with a text that says what is wrong and what to do: -EINVAL (no path, no
 * plugin, of another ABI), -EPERM (whose it is), -ENOMEM, others of reading it. Loop, or before it runs. */
int plugin_library_open(const char *path, bool own, PluginLibrary **ret, char *error, size_t error_size);
PluginLibrary *plugin_library_ref(PluginLibrary *l);   /* NULL is fine */
PluginLibrary *plugin_library_unref(PluginLibrary *l); /* the last one unloads it. Returns NULL; NULL is fine */
DEFINE_CLEANUP(PluginLibrary, plugin_library_unref)
