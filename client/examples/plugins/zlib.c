/* SPDX-License-Identifier: MIT */
/* A plugin that compresses: the result of a task is its payload as a zlib stream.
 *
 *      [Queue]
 *      Executor=plugin
 *      Plugin=/usr/local/lib/eqd/plugins/zlib.so
 *      PluginConfig=level=9
 *      MaxActive=4
 *
 * Keeps nothing from task to task, so any number may run at once. */

#include <eq-plugin.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

typedef struct Zlib {
        const eq_plugin_api *api;
        int level;
} Zlib;

static int zlib_open(const eq_plugin_api *api, eq_plugin_host *host, const eq_plugin_config *config, void **ret) {
        const char *text = config->text;
        int level = Z_DEFAULT_COMPRESSION;
        if (strncmp(text, "level=", 6) == 0 && text[6] >= '0' && text[6] <= '9' && text[7] == '\0')
                level = text[6] - '0';
        else if (text[0] != '\0') {
                snprintf(config->error, config->error_size, "PluginConfig= is level=0 to level=9, or nothing");
                return -EINVAL;
        }
        Zlib *z = malloc(sizeof(*z));
        if (!z)
                return -ENOMEM;
        *z = (Zlib) { .api = api, .level = level };
        *ret = z;
        return 0;
}

static void compress_one(const Zlib *z, const eq_plugin_task *t) {
        uLongf len = compressBound(t->payload_len);
        Bytef *out = malloc(len);
        int r = out ? compress2(out, &len, t->payload, t->payload_len, z->level) : Z_MEM_ERROR;
        if (r != Z_OK)
                (void)z->api->fail(t, zError(r), false);
        else if ((r = z->api->ok(t, out, len)) == -E2BIG)
                (void)z->api->fail(t, "compressed it is still larger than a result may be", true);
        else if (r < 0)
                (void)z->api->fail(t, strerror(-r), false);
        free(out);
}

static void zlib_execute(void *instance, const eq_plugin_meta *meta, eq_plugin_batch *b) {
        const Zlib *z = instance;
        for (const eq_plugin_task *t; (t = z->api->next(b));)
                compress_one(z, t);
}

static void zlib_close(void *instance) {
        free(instance);
}

const eq_plugin eq_plugin_entry = {
        .abi = EQ_PLUGIN_ABI,
        .name = "zlib",
        .open = zlib_open,
        .execute = zlib_execute,
        .close = zlib_close,
};
