/* SPDX-License-Identifier: MIT */
#pragma once

/* The instance of a queue's plugin. It is opened by the first task of its execution queue, which is none of the engine's, and closed
 * by the last call. Until it is open the engine's queue is unserved, so nothing else is handed over.
 *
 *      OPENING ---> OPEN ---------> CLOSING --> CLOSED --> gone, or OPENING again with what it has been told meanwhile
 *           `--> FAILED -------------^
 *
 * Behind this and the functions on queues of plugin.h. For plugin.c only. Loop; nothing blocks. */

#include "executor/pluginrun.h"

void plugin_instance_stop(PluginQueue *p); /* sends it on its way to CLOSED; repeatable */
void plugin_instance_free(
        PluginQueue *p); /* that is CLOSED, or was never started. Its queue, if there is one, has none then */

/* What its workers say; each is said once at most in the life of an instance. */
void plugin_instance_opened(PluginQueue *p); /* or not: PluginQueue::open_result */
void plugin_instance_broken(PluginQueue *p); /* it takes none of its tasks */
void plugin_instance_closed(PluginQueue *p); /* tells the host, opens it again, or frees p if its queue was removed */
