/* SPDX-License-Identifier: MIT */
#pragma once

/* Behind the request_* and session_notify_* functions of session.h: what the session itself needs of them. Loop. */

#include "server/session.h"

void request_forget_pending(Session *s); /* tells and frees all of them */

/* Writes `lost n` for what was dropped. False if there is no room for it, and then it stays to be told. */
bool notify_write_lost(Session *s);
