#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Sessions that say what no client should, to a whole eqd: mutated and reordered messages, msgids that are used again, answers to
requests never sent, sockets closed by half. Whatever they do, each request that is one is answered once, and those who behave
beside them are served as before.

EQD_SEED repeats a run of the random test.
"""

import collections
import os
import random
import socket

import msgpack_mini
from eqdtest import LONG, Closed, Rpc, RpcError, equal, eventually, main, test
from workerkit import NO_LEASE, Worker, submit, worker_queue

NO_QUEUE = 4
N_SESSIONS = 20000 if LONG else 400
SEED = int(os.environ.get("EQD_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


class Answers(dict):
    """Replies by msgid, with how many came for each."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __setitem__(self, msgid, answer):
        self.counts[msgid] += 1
        super().__setitem__(msgid, answer)


class Session(Rpc):
    def __init__(self, eqd):
        super().__init__(eqd.socket)
        self.replies = Answers()

    def until_answered(self, wanted):
        """Reads until as many answers have come for each msgid. Tasks that eqd sends it meanwhile are done."""
        while wanted - self.replies.counts:
            self.take("while requests were unanswered: " + str(wanted - self.replies.counts))
            while self.requests:
                self.sock.sendall(msgpack_mini.encode([1, self.requests.popleft()[0], None, None]))
        equal(self.replies.counts, wanted, "answers by msgid")

    def take(self, what):
        try:
            if not self.receive():
                raise AssertionError(f"nothing came {what}")
        except Closed:
            raise AssertionError(f"eqd closed the connection {what}") from None

    def until_closed(self):
        try:
            while self.receive():
                pass
        except Closed:
            return
        raise AssertionError("eqd did not close the connection")


# ---- one by one ----

@test()
def a_msgid_that_is_used_again_is_answered_again(eqd):
    c = worker_queue(eqd)
    s = Session(eqd)
    calls = [["ping", []], ["stat", []], ["submit", ["w", b"x"]], ["nosuch", []]] * 25
    s.sock.sendall(b"".join(msgpack_mini.encode([0, 7, *call]) for call in calls))
    s.until_answered(collections.Counter({7: len(calls)}))
    s.close()
    equal(c.call("queue_show", "w")["last_seq"], 25, "each submit was taken")


@test()
def who_only_stops_sending_gets_all_answers_and_then_the_end(eqd):
    c = worker_queue(eqd)
    s = Session(eqd)
    ids = [s.send("submit", "w", b"%d" % i) for i in range(500)]
    s.sock.shutdown(socket.SHUT_WR)
    s.until_closed()
    equal(s.replies.counts, collections.Counter(ids))
    equal([s.replies[i][0] for i in ids], [None] * 500)
    equal(c.call("queue_show", "w")["queued"], 500)


@test()
def an_answer_that_takes_long_still_comes_to_who_stopped_sending(eqd):
    c = worker_queue(eqd)
    task = submit(c, b"")
    s = Session(eqd)
    msgid = s.send("wait", [task])
    s.sock.shutdown(socket.SHUT_WR)
    w = Worker(eqd, "w")
    w.done(w.next(), b"late")
    s.until_closed()
    equal(s.replies[msgid][1][0]["result"], b"late")


@test()
def who_stops_reading_for_good_loses_answers_and_no_task(eqd):
    c = worker_queue(eqd)
    for how in (socket.SHUT_RD, socket.SHUT_RDWR, None):
        s = Session(eqd)
        before = c.call("queue_show", "w")["last_seq"]
        s.sock.sendall(b"".join(msgpack_mini.encode([0, i, "submit", ["w", b"x"]]) for i in range(100)))
        s.close() if how is None else s.sock.shutdown(how)
        eventually(lambda: c.call("queue_show", "w")["last_seq"] == before + 100, "what had been sent is served")
        s.close()
    # They have their numbers; they are in the queue when the store has them.
    eventually(lambda: c.call("queue_show", "w")["queued"] == 300, lambda: c.call("queue_show", "w"))


@test()
def half_a_message_before_the_end_is_dropped_and_the_whole_ones_before_it_count(eqd):
    c = worker_queue(eqd)
    message = msgpack_mini.encode([0, 1, "submit", ["w", b"x" * 100]])
    for cut in range(1, len(message)):
        s = Session(eqd)
        s.sock.sendall(message + message[:cut])
        s.sock.shutdown(socket.SHUT_WR)
        s.until_closed()
        equal(s.replies.counts, collections.Counter([1]))
        s.close()
    equal(c.call("queue_show", "w")["last_seq"], len(message) - 1)


@test()
def answers_to_requests_never_sent_are_refused_and_change_nothing(eqd):
    c = worker_queue(eqd)
    s, w = Session(eqd), Worker(eqd, "w")
    task = submit(c, b"")
    run = w.next()
    for msgid in (run.msgid, 0, run.msgid + 1, 0xffffffff): # the first is another's
        s.sock.sendall(msgpack_mini.encode([1, msgid, None, b"a lie"]))
        refused = s.note(lambda method, params: method == "run_refused")
        equal((refused[0], refused[1][0]), (msgid, NO_LEASE))
    s.close()
    w.done(run, b"the truth")
    equal(c.call("wait", [task])[0]["result"], b"the truth")


# ---- anything ----

def some_id(dice):
    return dice.choice((f"w/{dice.randrange(1, 400)}", "w/0", "nosuch/1", [dice.randrange(1 << 53), dice.randrange(1 << 53)],
                        [1, dice.randrange(400)], [], None, -1))


def some_call(dice):
    """A method and its parameters, right or not. None that waits without end, so that all of them have an answer."""
    few = [some_id(dice) for _ in range(dice.randrange(4))]
    return dice.choice((
        lambda: ["ping", []], lambda: ["stat", []], lambda: ["hello", [{"version": dice.randrange(3)}]],
        lambda: ["nvim_get_api_info", []], lambda: ["nosuch", [few]], lambda: ["", []],
        lambda: ["submit", ["w", dice.randbytes(dice.randrange(200))]],
        lambda: ["submit", ["w", b"", {"urgent": True, "label": "\u20ac", "delay_usec": 1 << dice.randrange(63),
                                       "after_ok": few, "retries": dice.randrange(5), "unique": "k"}]],
        lambda: ["submit", [dice.choice(("w", "default", "nosuch")), "text", {"expire_usec": 1, "hold": True}]],
        lambda: ["submit_many", ["w", [b"a", "b", None, {"payload": b"c", "urgent": dice.random() < 0.5}]]],
        lambda: ["wait", [few, {"any": True, "timeout_usec": dice.randrange(2000)}]],
        lambda: ["show", [few]], lambda: ["why", [few]], lambda: ["list", [{"queue": "w", "limit": dice.randrange(1100)}]],
        lambda: [dice.choice(("cancel", "hold", "release", "retry")), [few]],
        lambda: ["logs", [some_id(dice), {"streams": 3}]], lambda: ["queue_list", []], lambda: ["in_flight", []],
        lambda: ["queue_create", [f"n{dice.randrange(9)}", {"set": ["executor=worker", "durable=no"]}]],
        lambda: ["queue_set", [f"n{dice.randrange(9)}", [f"max_active={dice.randrange(9)}"]]],
        lambda: [dice.choice(("queue_pause", "queue_resume", "queue_show")), [f"n{dice.randrange(9)}"]],
        lambda: ["queue_rm", [f"n{dice.randrange(9)}", {"yes": True}]],
        lambda: ["worker_serve", [["w", f"n{dice.randrange(9)}"][:dice.randrange(1, 3)], {"credit": dice.randrange(9)}]],
        lambda: ["worker_credit", [dice.randrange(9)]], lambda: ["worker_list", []],
        lambda: ["worker_touch", [some_id(dice), dice.randrange(3), {"progress": 50}]],
        lambda: ["subscribe", [{"queue": dice.choice(("w", "n1")), "events": ["task."]}]],
    ))()


def conversation(dice):
    """Messages that are some, though they may ask for nonsense; and how many answers each msgid must get."""
    messages, wanted, last = [], collections.Counter(), 0
    for _ in range(dice.randrange(1, 40)):
        kind = dice.random()
        if kind < 0.1:
            messages.append([1, dice.randrange(1 << 32), dice.choice((None, "no", [1, "x"])), dice.choice((None, b"r", 7))])
        elif kind < 0.2:
            messages.append([2, *some_call(dice)])
        else:
            last = last if kind < 0.4 else dice.randrange(1 << 32)
            wanted[last] += 1
            messages.append([0, last, *some_call(dice)])
    dice.shuffle(messages)
    return [msgpack_mini.encode(m) for m in messages], wanted


def mutate(dice, data):
    data = bytearray(data)
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(data) + 1)
        how = dice.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif how == 1 and at < len(data):
            data[at] = dice.randrange(256)
        elif how == 2:
            del data[at:at + dice.randrange(1, 9)]
        elif how == 3:
            data[at:at] = dice.randbytes(dice.randrange(1, 9))
        elif how == 4:
            data[at:at] = data[at:at + dice.randrange(60)]
        else:
            other = dice.randrange(len(data) + 1)
            data[at:at] = data[other:other + dice.randrange(60)]
    return bytes(data)


def send_in_pieces(dice, sock, data):
    """False: eqd has ended the connection."""
    try:
        while data:
            n = dice.choice((1, 7, 100, 100000))
            sock.sendall(data[:n])
            data = data[n:]
        return True
    except (BrokenPipeError, ConnectionResetError):
        return False


def talk_well(dice, eqd, messages, wanted):
    s = Session(eqd)
    equal(send_in_pieces(dice, s.sock, b"".join(messages)), True, "eqd ended a connection with whole messages")
    s.until_answered(wanted)
    s.close()


def talk_badly(dice, eqd, messages):
    s = Session(eqd)
    going = send_in_pieces(dice, s.sock, mutate(dice, b"".join(messages)))
    end = dice.randrange(4)
    if going and end < 3:
        try:
            s.sock.shutdown((socket.SHUT_WR, socket.SHUT_RD, socket.SHUT_RDWR)[end])
        except OSError:
            pass # eqd was faster
    try:
        while s.receive(0): # what there is; all of it must be messages
            pass
    except Closed:
        pass
    s.close()


def steady_work(c, w, n):
    """Beside all that: a queue with a worker that does its work, in order."""
    payloads = [b"%d" % i for i in range(n, n + 10)]
    tasks = [submit(c, p, "steady") for p in payloads]
    got = []
    for _ in tasks:
        run = w.next()
        got.append(run.payload)
        w.done(run, run.payload)
    equal(got, payloads, "order of the queue beside")
    equal([t["result"] for t in c.call("wait", tasks)], payloads)


@test(seconds=1800 if LONG else 300)
def whatever_sessions_say_each_request_has_its_answer_and_others_are_served(eqd):
    print(f"# EQD_SEED={SEED}")
    dice = random.Random(SEED)
    eqd.ok("queue", "pause", "default")
    worker_queue(eqd, "w", "max_active=4", "history=100").close()
    c = worker_queue(eqd, "steady", "durable=no", "history=1000")
    w = Worker(eqd, "steady")
    for n in range(N_SESSIONS):
        messages, wanted = conversation(dice)
        if n % 2:
            talk_badly(dice, eqd, messages)
        else:
            talk_well(dice, eqd, messages, wanted)
        if n % 20 == 0:
            steady_work(c, w, n)
    equal(c.call("ping"), None)
    for row in c.call("queue_list"):
        if row["name"] not in ("default", "steady"):
            try:
                c.call("queue_rm", row["name"], yes=True)
            except RpcError as e: # a session has asked for its removal, and it has gone since
                equal(e.code, NO_QUEUE, f"{e}")


main()
