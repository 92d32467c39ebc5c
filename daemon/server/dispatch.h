/* SPDX-License-Identifier: MIT */
#pragma once

/* From the bytes of one message to its handler. Loop; blocks where the handler does, which is nowhere. */

#include "server/session.h"

/* `raw` is one whole MessagePack value. Whatever it holds is answered, if it can be. 0, or -EBADMSG: it was no
 * MessagePack-RPC message (answered as far as possible); the connection cannot be used further. */
int dispatch_message(Session *s, EqBytes raw);

/* Answers a message that cannot be read to its end: with its id, if that can be made out at the beginning, else with 0. */
void dispatch_bad_frame(Session *s, EqBytes beginning, int error);
