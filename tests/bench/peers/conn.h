/* SPDX-License-Identifier: MIT */
/* conn.h - the engine's view of conn.c: connections and their bytes. */
#ifndef CONN_H
#define CONN_H

#include <stdbool.h>

#include "qload.h"

/* True once any connection was lost; the run ends then. */
extern _Atomic bool conn_any_lost;

/*
 * Connects and greets. A blocking connection has a receive time-out, so that its thread sees the clock.
 * The control connection is opened like a worker's and asks for nothing.
 */
void conn_open(struct Conn *c, const struct Protocol *protocol, unsigned id, bool worker, bool blocking);
void conn_close(struct Conn *c);

/* Sends what is in c->out, as far as the socket takes it. */
void conn_send(struct Conn *c);

/* One recv(); false when the connection is lost. Nothing to read is fine. */
bool conn_receive(struct Conn *c);

#endif
