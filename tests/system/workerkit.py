# SPDX-License-Identifier: MIT
"""What the tests of workers share: a worker by hand, and queues for it."""

import collections
import select

from eqdtest import equal
import msgpack_mini

NO_LEASE, NO_WORKER, DENIED, INVALID, STATE, TOO_LARGE = 22, 23, 7, 3, 20, 10
RESULT_MAX = 65536

Run = collections.namedtuple("Run", "msgid id queue attempt payload options")


class Worker:
    """A connection that serves queues, by hand: the test decides what it answers and when."""

    def __init__(self, eqd, *queues, uid=None, groups=(), **options):
        self.eqd, self.rpc = eqd, eqd.connect(uid, groups)
        if uid is not None:
            options["handed_on"] = True # connected by a child that has ended
        self.number = self.rpc.call("worker_serve", list(queues), **options)["worker"]

    def next(self):
        """The next task that it is sent."""
        while not self.rpc.requests:
            if not self.rpc.receive():
                raise AssertionError("no task came")
        msgid, method, params = self.rpc.requests.popleft()
        equal(method, "run")
        options = params[4] if len(params) > 4 else {}
        return Run(msgid, params[0], params[1], params[2], params[3], options)

    def nothing_comes(self):
        """A round trip after which everything that eqd had sent before is here."""
        self.rpc.call("ping")
        equal(list(self.rpc.requests), [])

    def respond(self, msgid, error, result):
        self.rpc.sock.sendall(msgpack_mini.encode([1, msgid, error, result]))

    def done(self, run, result=None):
        self.respond(run.msgid, None, result)

    def fail(self, run, error="no"):
        self.respond(run.msgid, error, None)

    def refused(self):
        """The next run_refused: (msgid, code, text, details)."""
        msgid, error = self.rpc.note(lambda method, params: method == "run_refused")
        return msgid, error[0], error[1], error[2] if len(error) > 2 else {}

    def canceled(self):
        """The next run_cancel: (id, attempt, reason, grace_usec)."""
        return tuple(self.rpc.note(lambda method, params: method == "run_cancel"))

    def confirmed(self):
        """What the next run_confirmed tells: pairs of id and attempt."""
        (answered,) = self.rpc.note(lambda method, params: method == "run_confirmed")
        return [(task, attempt) for task, attempt in answered]

    def row(self):
        return next(w for w in self.rpc.call("worker_list") if w["worker"] == self.number)

    def vanish(self):
        self.rpc.close()


def either(*workers):
    """The first of them that has got something."""
    for w in workers:
        if w.rpc.requests:
            return w
    ready = select.select([w.rpc.sock for w in workers], [], [], 60)[0]
    return next(w for w in workers if w.rpc.sock in ready)


def worker_queue(eqd, name="w", *attributes):
    eqd.ok("queue", "create", name, "executor=worker", *attributes)
    return eqd.connect()


def submit(rpc, payload, queue="w", **options):
    return rpc.call("submit", queue, payload, **options)


def state(rpc, task):
    return rpc.call("show", [task])[0]["state"]


def ended(rpc, task):
    return rpc.call("wait", [task])[0]
