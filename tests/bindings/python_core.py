# SPDX-License-Identifier: MIT
"""The Python package without an eqd: the protocol against bytes, values, and clients against a server of the test's own."""

import asyncio
import datetime
import os
import socket
import tempfile
import threading
import unittest
from unittest import mock

import msgpack

import eqd
from eqd import core, reconnect, values


def pack(*messages):
    return b"".join(msgpack.packb(m, use_bin_type=True) for m in messages)


class CoreTest(unittest.TestCase):
    def test_a_request_is_four_elements_with_rising_ids(self):
        c = core.Core()
        for n in range(3):
            msgid, data = c.request("ping", [])
            self.assertEqual((msgid, msgpack.unpackb(data)), (n, [0, n, "ping", []]))

    def test_msgids_start_again_after_32_bits(self):
        c = core.Core()
        c._next_msgid = 0xFFFFFFFF
        self.assertEqual([c.request("a", [])[0], c.request("a", [])[0]], [0xFFFFFFFF, 0])

    def test_messages_come_out_of_any_cut_of_the_bytes(self):
        data = pack([1, 7, None, b"x"], [2, "event", [{"event": "e"}]], [0, 9, "run", [[1, 2]]])
        want = [core.Response(7, None, b"x"), core.Notification("event", [{"event": "e"}]), core.Request(9, "run", [[1, 2]])]
        for cut in range(len(data) + 1):
            c = core.Core()
            self.assertEqual([*c.feed(data[:cut]), *c.feed(data[cut:])], want)

    def test_what_is_no_message_is_a_violation(self):
        for bad in (b"\x01", b"\xc1", pack([1, 2]), pack([3, 1, None, None]), pack([0, 1, 5, []]), pack([2, "x", {}]), pack({}),
                    pack([])):
            with self.assertRaises(eqd.ProtocolViolation, msg=bad):
                list(core.Core().feed(bad))

    def test_a_message_that_is_announced_too_large_is_refused_before_it_is_here(self):
        c = core.Core()
        with self.assertRaises(eqd.ProtocolViolation):
            list(c.feed(b"\x94\x01\x00\xc0\xc6\x7f\xff\xff\xff"))
            for _ in range(200):
                list(c.feed(bytes(core.RECEIVE_BYTES)))

    def test_a_message_that_eqd_would_refuse_is_not_sent(self):
        with self.assertRaisesRegex(ValueError, "eqd takes 4194304"):
            core.Core().request("submit", [bytes(eqd.MESSAGE_MAX)])

    def test_text_that_is_no_utf8_goes_both_ways(self):
        [message] = core.Core().feed(b"\x94\x01\x00\xc0\xa1\xff")
        self.assertEqual(message.result, "\udcff")
        self.assertIn(b"\xa1\xff", core.Core().request("m", ["\udcff"])[1])

    def test_each_code_has_a_class_and_an_unknown_one_is_an_eqd_error(self):
        for code, kind in eqd._api.ERRORS.items():
            e = core.error_from_wire([code, "text", {"a": 1}])
            self.assertIs(type(e), kind)
            self.assertEqual((e.code, e.text, e.details), (code, "text", {"a": 1}))
        e = core.error_from_wire([9999, "new"])
        self.assertEqual((type(e), e.code, e.details), (eqd.EqdError, 9999, {}))
        self.assertIsNone(e.retry_after)
        full = core.error_from_wire([8, "full", {"retry_after_usec": 250000}])
        self.assertEqual((type(full), full.retry_after), (eqd.FullError, 0.25))
        self.assertEqual(core.error_from_wire("odd").text, "odd")

    def test_how_a_task_ended_is_said_once(self):
        for record, said in [({"exit": 3, "detail": "exit status 3"}, "exit status 3"),
                             ({"signal": 9, "detail": "ended by signal 9 (Killed)"}, "ended by signal 9 (Killed)"),
                             ({"error": "no luck", "detail": "no luck"}, "no luck"),
                             ({"exit": 7, "error": "no luck", "detail": "no luck"}, "no luck, exit status 7")]:
            task = {"id": [1, 4], "queue": "q", "state": "FAILED", **record}
            self.assertEqual(str(eqd.TaskFailed(task)), f"q/4: FAILED, {said}")


class ValueTest(unittest.TestCase):
    def test_durations(self):
        for given, want in ((1, 10**6), (0.25, 250000), ("30s", 30 * 10**6), ("1h 30m", 5400 * 10**6), ("250ms", 250000),
                            ("7us", 7), (datetime.timedelta(seconds=2), 2 * 10**6)):
            self.assertEqual(values.duration_usec(given), want, given)
        for bad in ("", "5", "5 parsecs", "s", "1s x", -1, datetime.timedelta(-1)):
            with self.assertRaises(ValueError, msg=repr(bad)):
                values.duration_usec(bad)
        for bad in (None, True, [], b"1s"):
            with self.assertRaises(TypeError, msg=repr(bad)):
                values.duration_usec(bad)

    def test_times_of_day(self):
        utc = datetime.datetime(2026, 11, 26, tzinfo=datetime.timezone.utc)
        self.assertEqual(values.time_usec(utc), 1795651200 * 10**6)
        self.assertEqual(values.time_usec(1.5), 1500000)
        with self.assertRaises(TypeError):
            values.time_usec("noon")

    def test_lists_of_strings(self):
        self.assertEqual(values.wire_strings({"max_active": 2, "durable": False}), ["max_active=2", "durable=no"])
        self.assertEqual(values.wire_strings(("a", b"b")), ["a", b"b"])
        with self.assertRaisesRegex(TypeError, "one string where a list"):
            values.wire_strings("ls -l")

    def test_options_that_were_not_given_are_not_sent(self):
        self.assertEqual([values.wire("bin", v) for v in ("\u00fc", b"x", bytearray(b"y"), memoryview(b"z"))], [b"\xc3\xbc", b"x", b"y", b"z"])
        for bad in (5, {"to": "anna"}, [1, 2], {1: 2}):
            with self.assertRaisesRegex(TypeError, "bytes or text are wanted, not .*packb"):
                values.wire("bin", bad)
        self.assertEqual(values.wire_params([("str", "q"), ("bin", None)], {"hold": ("bool", None)}), ["q", None])
        self.assertEqual(values.wire_params([], {"hold": ("bool", False), "after_ok": ("idv", ["q/1", eqd.TaskId(3, 4)])}),
                         [{"hold": False, "after_ok": ["q/1", [3, 4]]}])


class PathTest(unittest.TestCase):
    def test_where_eqd_is(self):
        with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": home}, clear=True):
            system, own = "/run/eqd/eqd.sock", f"{home}/eqd/eqd.sock"
            with mock.patch("os.geteuid", return_value=1000):
                self.assertEqual(core.default_path(), system)
                os.mkdir(f"{home}/eqd")
                open(own, "w").close()
                self.assertEqual(core.default_path(), own)
            with mock.patch("os.geteuid", return_value=0):
                self.assertEqual(core.default_path(), system)
            os.environ["EQD_SOCKET"] = "/e"
            self.assertEqual((core.default_path(), core.default_path("/p")), ("/e", "/p"))


class FakeEqd:
    """A server that does what its script says: a function per connection, with the connected socket."""

    def __init__(self, *script):
        self.dir = tempfile.TemporaryDirectory()
        self.path = f"{self.dir.name}/s"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.error = None
        self.thread = threading.Thread(target=self.run, args=(script,))
        self.thread.start()

    def run(self, script):
        try:
            for step in script:
                with self.listener.accept()[0] as s:
                    s.settimeout(20)
                    step(s)
        except Exception as e:
            self.error = e

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.thread.join(30)
        self.listener.close()
        self.dir.cleanup()
        if self.error:
            raise self.error


def read(sock, n=1):
    """Exactly n messages."""
    unpacker, got = msgpack.Unpacker(raw=False), []
    while len(got) < n:
        data = sock.recv(65536)
        if not data:
            raise EOFError
        unpacker.feed(data)
        got += list(unpacker)
    return got


def answer(result):
    def step(sock):
        [request] = read(sock)
        sock.sendall(pack([1, request[1], None, result]))
        sock.recv(1)
    return step


def hang_up(sock):
    read(sock)


def say_nothing(sock):
    while sock.recv(65536): # the request may be given up before it was sent
        pass


class ClientTest(unittest.TestCase):
    def test_a_request_that_only_reads_is_sent_again_on_a_new_connection(self):
        with FakeEqd(hang_up, answer([{"name": "q"}])) as fake, eqd.connect(fake.path) as c:
            self.assertEqual(c.queue_list(), [{"name": "q"}])

    def test_a_submit_is_not_sent_twice(self):
        with FakeEqd(hang_up, answer([1, 2])) as fake, eqd.connect(fake.path) as c:
            with self.assertRaises(eqd.ConnectionLost):
                c.submit("q", argv=["true"])
            self.assertEqual(c.submit("q", argv=["true"]).id, (1, 2)) # the next one connects by itself

    def test_an_answer_that_does_not_come_is_a_timeout(self):
        with FakeEqd(say_nothing) as fake, eqd.connect(fake.path, timeout=0.05) as c:
            with self.assertRaises(eqd.RequestTimeout):
                c.ping()

    def test_a_request_of_the_server_gets_an_answer_also_from_a_blocking_client(self):
        def step(sock):
            [request] = read(sock)
            sock.sendall(pack([0, 77, "run", []]))
            self.assertEqual(read(sock)[0][:3], [1, 77, [2, "this client has no method run"]])
            sock.sendall(pack([1, request[1], None, None]))
        with FakeEqd(step) as fake, eqd.connect(fake.path) as c:
            c.ping()

    def test_answers_in_another_order_reach_their_requests(self):
        def step(sock):
            requests = read(sock, 3)
            sock.sendall(pack(*([1, r[1], None, [{"name": r[3][0]["from"]}]] for r in reversed(requests))))
            sock.recv(1)

        async def work(path):
            async with eqd.aio.connect(path) as c:
                return await asyncio.gather(*(c.queue_list(from_=n) for n in "abc"))
        with FakeEqd(step) as fake:
            self.assertEqual(asyncio.run(work(fake.path)), [[{"name": n}] for n in "abc"])

    def test_requests_of_the_server_go_to_handlers(self):
        def step(sock):
            sock.sendall(pack([0, 1, "good", ["x"]], [0, 2, "bad", []], [0, 3, "none", []]))
            got = sorted(read(sock, 3), key=lambda m: m[1])
            self.assertEqual(got, [[1, 1, None, "x!"], [1, 2, [19, "ValueError: no"], None],
                                   [1, 3, [2, "this client has no method none"], None]])

        async def work(path):
            async def good(request):
                return None, request.params[0] + "!"

            async def bad(request):
                raise ValueError("no")
            channel = await eqd.aio.Channel.open(path)
            channel.handlers.update(good=good, bad=bad)
            self.assertIsInstance(await channel.ended, eqd.ConnectionLost)
            await channel.close()
        with FakeEqd(step) as fake:
            asyncio.run(work(fake.path))

    def test_all_that_wait_hear_that_the_connection_ended(self):
        async def work(path):
            async with eqd.aio.connect(path) as c:
                return await asyncio.gather(c.submit("q"), c.submit("q"), return_exceptions=True)
        with FakeEqd(lambda sock: read(sock, 2)) as fake:
            self.assertEqual([type(e) for e in asyncio.run(work(fake.path))], [eqd.ConnectionLost] * 2)

    def test_a_closed_client_stays_closed(self):
        c = eqd.Client("/nowhere")
        c.close()
        with self.assertRaisesRegex(eqd.ConnectionLost, "closed"):
            c.ping()

    def test_no_eqd_is_an_os_error_that_names_the_socket(self):
        async def work():
            async with eqd.aio.connect("/nowhere/s"):
                pass
        for connect in (lambda: eqd.connect("/nowhere/s"), lambda: asyncio.run(work())):
            with self.assertRaisesRegex(FileNotFoundError, "No such file or directory: '/nowhere/s'"):
                connect()


def refuse(code):
    def step(sock):
        [request] = read(sock)
        sock.sendall(pack([1, request[1], [code, "no"], None]))
    return step


QUICK = dict(first=0.001, max=0.002)


class ReconnectTest(unittest.TestCase):
    """With a policy."""

    def submit_over(self, first, again, policy=eqd.Reconnect(**QUICK), **options):
        """What a submit gives while one eqd does `first` and the next `again`, and the requests that they read."""
        requests = []

        def note(step):
            def noted(sock):
                [request] = read(sock)
                requests.append(request)
                step(sock, request)
            return noted
        with FakeEqd(note(first), note(again)) as fake, eqd.connect(fake.path, reconnect=policy) as c:
            return c.submit("q", **options).id, requests

    def test_a_submit_is_sent_again_with_the_key_that_it_was_given(self):
        changes = []
        task, (one, two) = self.submit_over(lambda sock, request: None,
                                            lambda sock, request: sock.sendall(pack([1, request[1], None, [1, 2]])),
                                            eqd.Reconnect(on_change=changes.append, **QUICK))
        self.assertEqual(task, (1, 2))
        self.assertEqual(one[3], two[3])
        self.assertRegex(one[3][2]["unique"], "^py-[0-9a-f]{16}-[0-9]+$")
        self.assertEqual(changes, ["lost", "back"])

    def test_what_cannot_be_repeated_is_not(self):
        for options, policy in (({"unique": "k", "on_dup": "replace"}, eqd.Reconnect(**QUICK)),
                                ({"unique": "k", "on_dup": "error"}, eqd.Reconnect(**QUICK)),
                                ({}, eqd.Reconnect(keys=False, **QUICK))):
            with FakeEqd(hang_up, answer([1, 2])) as fake, eqd.connect(fake.path, reconnect=policy) as c:
                with self.assertRaises(eqd.ConnectionLost):
                    c.submit("q", argv=["true"], **options)
                c.ping()
        with FakeEqd(hang_up, answer(None)) as fake, eqd.connect(fake.path, reconnect=eqd.Reconnect(**QUICK)) as c:
            with self.assertRaises(eqd.ConnectionLost):
                c.queue_pause("q")
            c.ping()

    def test_what_an_eqd_that_stops_refuses_is_for_the_next_one(self):
        with FakeEqd(refuse(21), answer(None)) as fake, eqd.connect(fake.path, reconnect=eqd.Reconnect(**QUICK)) as c:
            c.queue_pause("q")

    def test_asyncio_leaves_an_eqd_that_stops_and_takes_what_it_still_answers(self):
        """It reads no more on that connection: a second request there was lost when it ended."""
        paused = threading.Event()

        def stop(sock):
            wait, pause = read(sock, 2)
            sock.sendall(pack([1, pause[1], [21, "no"], None]))
            threading.Thread(target=answer_late, args=(sock.dup(), wait)).start()

        def answer_late(sock, wait):
            with sock:
                paused.wait(20)
                sock.sendall(pack([1, wait[1], None, [{"state": "DONE"}]]))
                sock.recv(1)

        async def work(path):
            async with eqd.aio.connect(path, reconnect=eqd.Reconnect(**QUICK)) as c:
                waiting = asyncio.ensure_future(c.wait(["q/1"]))
                await asyncio.sleep(0)
                await c.queue_pause("q")
                paused.set()
                return await waiting
        with FakeEqd(stop, answer(None)) as fake:
            self.assertEqual(asyncio.run(work(fake.path)), [{"state": "DONE"}])

    def test_an_eqd_that_does_not_come_back_is_given_up(self):
        with FakeEqd(hang_up) as fake:
            with eqd.connect(fake.path, reconnect=eqd.Reconnect(give_up=0.05, **QUICK)) as c:
                os.unlink(fake.path)
                with self.assertRaises(OSError):
                    c.ping()

    def test_asyncio_sends_all_again_that_wait(self):
        seen = []

        def first(sock):
            seen.extend(read(sock, 3))

        def again(sock):
            requests = read(sock, 3)
            seen.extend(requests)
            sock.sendall(pack(*([1, r[1], None, [1, int(r[3][1])]] for r in requests)))
            sock.recv(1)

        async def work(path):
            async with eqd.aio.connect(path, reconnect=eqd.Reconnect(**QUICK)) as c:
                return await asyncio.gather(*(c.submit("q", b"%d" % i) for i in (1, 2, 3)))
        with FakeEqd(first, again) as fake:
            self.assertEqual([t.id for t in asyncio.run(work(fake.path))], [(1, 1), (1, 2), (1, 3)])
        keys = [(r[3][1], r[3][2]["unique"]) for r in seen]
        self.assertEqual(sorted(keys[:3]), sorted(keys[3:]))
        self.assertEqual(len(set(keys)), 3)

    def test_pauses_double_up_to_the_longest_and_end_with_the_time(self):
        now = [100.0]
        tries = reconnect.Tries(eqd.Reconnect(first=1, max=4, give_up=20), lambda: now[0])
        pauses = []
        while (pause := tries.next()) is not None:
            pauses.append(pause)
            now[0] += pause
        self.assertEqual((pauses[0], now[0]), (0.0, 120.0))
        for pause, want in zip(pauses[1:-1], (1, 2, 4, 4, 4, 4, 4, 4, 4)):
            self.assertTrue(want / 2 <= pause <= want, pauses)
        for wrong in (dict(first=0), dict(first=3, max=2), dict(give_up=0)):
            with self.assertRaises(ValueError):
                eqd.Reconnect(**wrong)

    def test_batches_are_repeated_if_all_of_their_tasks_have_keys(self):
        def batch(tasks, policy=eqd.Reconnect(), **options):
            params, repeatable = reconnect.prepare(policy, "submit_many", ["q", tasks, *([options] if options else [])])
            return [t.get("unique") if isinstance(t, dict) else None for t in params[1]], repeatable
        keys, repeatable = batch([b"a", {"payload": b"b", "unique": "mine"}])
        self.assertEqual((keys[0][:3], keys[1], repeatable), ("py-", "mine", True))
        self.assertEqual(batch([b"a"], eqd.Reconnect(keys=False)), ([None], False))
        self.assertEqual(batch([b"a"], common={"on_dup": "replace"})[1], False)
        self.assertEqual(reconnect.prepare(eqd.Reconnect(), "ping", []), ([], True))
        self.assertEqual(reconnect.prepare(eqd.Reconnect(), "submit", ["q", b"", {"stdin_fd": True}])[1], False)


if __name__ == "__main__":
    unittest.main()
