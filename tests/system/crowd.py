#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Many at once: 10,000 clients and 1,000 workers connected, greedy ones among them, some that never read. Fairness is counted, in
requests and tasks, not timed: how fast the machine is makes no difference.
"""

import os
import resource
import select
import signal
import socket

import msgpack_mini
from eqdtest import Skip, equal, eventually, main, test
from workerkit import worker_queue

N_CLIENTS, N_WORKERS, N_LAZY, N_GREEDY = 10000, 1000, 100, 4
TASKS_PER_CLIENT = 1
QUANTUM, TURNS = 256, 3 # requests of a client in one turn; turns in which all who ask once must have been served
OUTPUT_HIGH, ONE_ANSWER, READ_BUFFER = 262144, 131072, 65536 # unread output above which requests wait; what else a client may cost
NEEDED = N_CLIENTS + N_WORKERS + 500


def raise_nofile():
    """For this process and for every eqd that it starts. What was reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((NEEDED, max(hard, NEEDED)), (min(NEEDED, hard), hard)):
        try:
            if soft < limits[0]:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return max(soft, limits[0])
        except (OSError, ValueError):
            pass # above the hard limit, and not privileged
    return soft


NOFILE = raise_nofile()


class Peer:
    """A connection that never blocks; one of too many for select(2)."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))
        self.sock.setblocking(False)
        self.out, self.buf = b"", bytearray()

    def send(self, *message):
        self.write(msgpack_mini.encode(list(message)))

    def write(self, data):
        self.out += data
        try:
            while self.out:
                self.out = self.out[self.sock.send(self.out):]
        except BlockingIOError:
            pass

    def messages(self):
        """What has come, as whole messages."""
        try:
            while data := self.sock.recv(1 << 18):
                self.buf += data
        except BlockingIOError:
            pass
        at, found = 0, []
        while at < len(self.buf):
            try:
                message, used = msgpack_mini.decode(self.buf[at:at + 4096] if len(self.buf) > 8192 else self.buf[at:])
            except (IndexError, msgpack_mini.struct.error):
                break
            found.append(message)
            at += used
        del self.buf[:at]
        return found


class Crowd:
    """Peers, and a loop over them."""

    def __init__(self, eqd):
        if NOFILE < NEEDED:
            raise Skip(f"{NEEDED} descriptors are needed, RLIMIT_NOFILE allows {NOFILE}")
        self.path, self.peers, self.epoll = eqd.socket, {}, select.epoll()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for p in self.peers.values():
            p.sock.close()
        self.epoll.close()

    def join(self, n):
        joined = [Peer(self.path) for _ in range(n)]
        for p in joined:
            self.peers[p.sock.fileno()] = p
            self.epoll.register(p.sock, select.EPOLLIN)
        return joined

    def until(self, done, hear, seconds=60):
        """hear(peer, message) for what comes, until done()."""
        while not done():
            ready = self.epoll.poll(seconds, 1024)
            if not ready:
                raise AssertionError(f"nothing came for {seconds} s")
            for fd, _ in ready:
                p = self.peers[fd]
                for message in p.messages():
                    hear(p, message)
                if p.out:
                    p.write(b"")


# ---- clients ----

@test(config={"eqd.conf": "[Limits]\nConnectionsPerUser=20000\n"})
def ten_thousand_clients_are_served_before_what_greedy_ones_have_piled_up(eqd):
    c = worker_queue(eqd, "w", "durable=no", "max_active=1000", "max_tasks=10000000")
    seqs = {} # of the tasks of each client: the order in which eqd served requests

    def hear(peer, message):
        equal(message[2], None)
        seqs.setdefault(peer, []).append(message[3][1])

    with Crowd(eqd) as crowd:
        modest, greedy = crowd.join(N_CLIENTS), crowd.join(N_GREEDY)
        eventually(lambda: c.call("stat")["clients"] > N_CLIENTS + N_GREEDY, "all are connected")
        os.kill(eqd.pid, signal.SIGSTOP) # so that all requests are there before the first is served
        request = msgpack_mini.encode([0, 1, "submit", ["w", b""]])
        piled = {p: pile_up(p, request) for p in greedy}
        for p in modest:
            p.write(request)
        os.kill(eqd.pid, signal.SIGCONT)
        total = N_CLIENTS + sum(piled.values())
        crowd.until(lambda: sum(map(len, seqs.values())) == total, hear)

    equal(sorted(s for of_one in seqs.values() for s in of_one), list(range(1, total + 1)), "each request was served once")
    equal([len(seqs[p]) for p in modest], [1] * N_CLIENTS)
    equal({p: len(seqs[p]) for p in greedy}, piled)
    last = max(seqs[p][0] for p in modest)
    # A greedy one is served a quantum in each turn of the loop, and a turn takes everybody who is ready.
    allowed = N_GREEDY * QUANTUM * TURNS
    ahead = last - N_CLIENTS
    print(f"# {sum(piled.values())} requests of {N_GREEDY} greedy clients, {ahead} of them ahead of the last modest client's")
    equal(sum(piled.values()) > 2 * allowed, True, "the greedy ones have not piled up enough to be in the way")
    equal(ahead <= allowed, True, f"{ahead} requests of greedy clients came first, {allowed} are fair")


def pile_up(peer, request):
    """Requests until the socket takes no more; how many there are. The rest of the last one follows when there is room."""
    n = 0
    while not peer.out:
        peer.write(request * 100)
        n += 100
    return n


# ---- workers ----

class Work:
    """Clients that submit and wait, and workers. Each client must get back what it sent."""

    def __init__(self, clients, workers):
        self.clients = {p: [] for p in clients} # ids of its tasks
        self.done = {p: 0 for p in workers}
        self.lazy = dict.fromkeys(workers[:N_LAZY]) # msgid of the only task that it takes
        self.happy = 0

    def hear(self, peer, message):
        if message[0] == 0:
            self.run(peer, message[1], message[3])
        elif peer in self.clients:
            equal(message[2], None)
            self.answer(peer, message[1], message[3])
        else:
            equal(message[2], None, "worker_serve")

    def run(self, worker, msgid, params):
        self.done[worker] += 1
        if worker in self.lazy:
            equal(self.lazy[worker], None, "more than its credit")
            self.lazy[worker] = (msgid, params[3])
            return
        worker.send(1, msgid, None, params[3])

    def wake_the_lazy(self):
        for worker, (msgid, payload) in self.lazy.items():
            worker.send(1, msgid, None, payload)

    def answer(self, client, msgid, result):
        if msgid < TASKS_PER_CLIENT:
            self.clients[client].append(result)
            if len(self.clients[client]) == TASKS_PER_CLIENT:
                client.send(0, TASKS_PER_CLIENT, "wait", [self.clients[client]])
            return
        equal([t["state"] for t in result], ["DONE"] * TASKS_PER_CLIENT)
        equal([t["result"] for t in result], [b"%d" % client.sock.fileno()] * TASKS_PER_CLIENT)
        self.happy += 1


@test(config={"eqd.conf": "[Limits]\nConnectionsPerUser=20000\n"})
def ten_thousand_clients_and_a_thousand_workers_get_their_shares(eqd):
    c = worker_queue(eqd, "w", "durable=no", "max_active=2000", "history=100000")
    with Crowd(eqd) as crowd:
        work = Work(crowd.join(N_CLIENTS), crowd.join(N_WORKERS))
        for w in work.done:
            w.send(0, 0, "worker_serve", [["w"]])
        eventually(lambda: c.call("stat")["workers"] == N_WORKERS, "all workers serve")
        for client in work.clients:
            for i in range(TASKS_PER_CLIENT):
                client.send(0, i, "submit", ["w", b"%d" % client.sock.fileno()])
        total = N_CLIENTS * TASKS_PER_CLIENT
        crowd.until(lambda: sum(work.done.values()) == total, work.hear)
        equal({work.done[w] for w in work.lazy}, {1}, "tasks of workers that do not answer")
        work.wake_the_lazy()
        crowd.until(lambda: work.happy == N_CLIENTS, work.hear)

    quick = [n for w, n in work.done.items() if w not in work.lazy]
    share = (total - N_LAZY) / len(quick)
    print(f"# {min(quick)} to {max(quick)} tasks per worker, {share:.1f} on average")
    equal(min(quick) >= share / 2, True, f"a worker had {min(quick)} tasks, on average they had {share}")
    equal(max(quick) <= share * 2, True, f"a worker had {max(quick)} tasks, on average they had {share}")


# ---- slow readers ----

# With a sanitizer, freed memory is to be used again, as it is without one.
@test(env={"ASAN_OPTIONS": "quarantine_size_mb=1:thread_local_quarantine_size_kb=64"})
def a_hundred_that_never_read_cost_what_is_allowed_and_no_more(eqd):
    c = worker_queue(eqd, "w", "durable=no", "max_active=65535")
    filled = c.call("submit_many", "w", [b"x" * 1000] * 1000)["first"]
    ids = [[filled[0], filled[1] + i] for i in range(200)]
    asked = { # what each asks, and how often: the answers are megabytes
        "api_info": ([], 20), "list": ([{"limit": 300}], 20), "show": ([ids], 20), "why": ([ids], 20), "stat": ([], 3000),
        "nosuch": ([], 10000),
    }
    with Crowd(eqd) as crowd:
        deaf = {name: crowd.join(14) for name in asked}
        listeners, workers = crowd.join(8), crowd.join(8)
        eventually(lambda: c.call("stat")["clients"] > len(crowd.peers), "all are connected")
        before = c.call("stat")["rss_kib"]
        for name, (params, n) in asked.items():
            for p in deaf[name]:
                p.write(msgpack_mini.encode([0, 1, name, params]) * n)
        for p in listeners:
            p.send(0, 1, "subscribe", [])
        for p in workers:
            p.send(0, 1, "worker_serve", [["w"], {"credit": 60000}])
        eventually(lambda: c.call("stat")["workers"] == len(workers), "all workers serve")
        for _ in range(10): # what these are told of
            c.call("submit_many", "w", [b"x" * 1000] * 1000)
        busy = len([w for w in c.call("worker_list") if w["state"] == "blocked"])
        grown = (c.call("stat")["rss_kib"] - before) * 1024 - 10 * 1000 * 1500 # those tasks
        allowed = len(crowd.peers) * (OUTPUT_HIGH + ONE_ANSWER + READ_BUFFER) * 5 // 4 # and what the allocator adds
        print(f"# {grown >> 10} KiB for {len(crowd.peers)} of them, {allowed >> 10} KiB are allowed")
        equal(busy, len(workers), "workers that do not read get no more")
        equal(grown <= allowed, True, f"eqd has grown by {grown} bytes, {allowed} are allowed")
        equal(c.call("ping"), None)
    eventually(lambda: c.call("stat")["clients"] == 1, "what they had asked is worked off", seconds=60)


main()
