#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What people and programs get wrong, and what eqd and eqctl say to it. Afterwards eqd works as before."""

import contextlib
import json
import os
import random
import select
import socket
import stat
import subprocess

import msgpack_mini
from eqdtest import (USER_A, WAIT_SECONDS, Closed, Eqd, Rpc, RpcError, Skip, contains, equal, eventually, main, test)

INVALID, NO_QUEUE, NO_TASK, STALE, DENIED, TOO_LARGE, METHOD, STATE = 3, 4, 5, 6, 7, 10, 2, 20
PAYLOAD_MAX, MESSAGE_MAX = 1 << 20, 4 << 20


def refused(eqd, code, method, *params, says=(), **options):
    """The request is answered with that error, and the connection goes on. Returns the details."""
    with eqd.connect() as c:
        try:
            result = c.call(method, *params, **options)
        except RpcError as e:
            equal(e.code, code, f"{method}{params!r:.100}: {e.text}")
            contains(e.text, *([says] if isinstance(says, str) else says))
            equal(e.text.isprintable(), True, f"text of the error {e.text!r}")
            equal(c.call("ping"), None)
            return e.details
        raise AssertionError(f"{method}{params!r:.100} was taken: {result!r}")


def works(eqd):
    eqd.ends_as(eqd.submit("--", "true"), "DONE")


# ---- names, ids, texts ----

@test()
def an_unknown_queue_is_66_and_says_how_to_make_it(eqd):
    eqd.fails(66, "submit", "-q", "nosuch", "--", "true", says=["nosuch", "queue create"])
    eqd.fails(66, "queue", "show", "nosuch", says="nosuch")
    refused(eqd, NO_QUEUE, "submit", "nosuch", b"", argv=["true"])


@test()
def an_unknown_id_is_66(eqd):
    eqd.ok("queue", "create", "q", "history=1")
    eqd.wait(*eqd.submit("-q", "q", "--array", "1-2", "--", "true").split())
    for verb in ("show", "why", "logs", "wait", "cancel", "kill", "hold", "release", "retry"):
        eqd.fails(66, verb, "default/12345", says=["no task default/12345", "eqctl ls -A lists"])
        eqd.fails(66, verb, "q/1", says=["no task q/1", "history= and history_age= of the queue keep more"])
        eqd.fails(66, verb, "nosuch/1", says="nosuch")
    refused(eqd, NO_TASK, "show", ["default/99"])


@test()
def what_is_wrong_with_a_request_names_the_method_once(eqd):
    for method, params, text in (("submit", (), "submit: queue: missing"), ("show", (5,), "show: ids: expected"),
                                 ("ping", (5,), "ping: too many parameters")):
        with eqd.connect() as c:
            try:
                c.call(method, *params)
                raise AssertionError(f"{method} was taken")
            except RpcError as e:
                equal(e.text[:len(text)], text)


@test()
def something_that_is_no_id_is_a_usage_error_and_says_what_one_is(eqd):
    for text in ("default", "default/", "/1", "default/x", "default/-1", "default/1/2", "default/99999999999999999999"):
        r = eqd.ctl("show", text)
        equal(r.rc in (2, 66), True, f"show {text}: {r}")
        contains(r.err, text)


@test()
def an_id_of_a_removed_queue_is_stale_and_never_another_task(eqd):
    eqd.ok("queue", "create", "q")
    queue_id = eqd.queue("q")["id"]
    eqd.wait(eqd.submit("-q", "q", "--", "true"))
    eqd.ok("queue", "rm", "q")
    eqd.ok("queue", "create", "q")
    eqd.wait(eqd.submit("-q", "q", "--", "true"))
    refused(eqd, STALE, "show", [[queue_id, 1]])
    refused(eqd, STALE, "show", [[queue_id, 2]])


@test()
def names_of_queues_have_31_good_bytes_at_most(eqd):
    eqd.ok("queue", "create", "x" * 31)
    for name in ("x" * 32, "", ".hidden", "a b", "a/b", "\u00fcber", "a\nb", "a\x1b[31m"):
        r = eqd.ctl("queue", "create", name)
        equal(r.rc, 2, f"{name!r}: {r}")
        equal("\x1b" in r.err or len(r.err.strip().splitlines()) > 3, False, f"message {r.err!r}")
        refused(eqd, INVALID, "queue_create", name)
    refused(eqd, INVALID, "queue_create", "-a")
    refused(eqd, INVALID, "queue_create", b"\xff\xfe")
    equal([q["name"] for q in rows(eqd)], ["default", "x" * 31])


def rows(eqd):
    with eqd.connect() as c:
        return c.call("queue_list")


@test()
def labels_are_UTF_8_without_control_characters(eqd):
    for label in (b"\xff\xfe", b"a\x1b[31mb", b"line\nline", b"\xc0\x80", b"\xed\xa0\x80", b"x" * 257):
        equal(eqd.ctl("submit", "-J", label, "--", "true").rc, 2, repr(label))
        raw = label.decode("utf-8", "surrogateescape")
        refused(eqd, INVALID, "submit", "default", b"", argv=["true"], label=raw)
    equal(eqd.ls("-A"), [])
    task = eqd.submit("-J", "Größe 中文 🙂", "--", "true")
    equal(eqd.show(task)["label"], "Größe 中文 🙂")


@test()
def arguments_may_be_any_bytes_and_terminals_are_safe_from_them(eqd):
    task = eqd.submit("--", "printf", b"%s", b"\xff\xfe\x1b[31m")
    eqd.wait(task)
    equal(eqd.ctl("logs", task, raw=True).out, b"\xff\xfe\x1b[31m")
    for verb in ("ls", "show"):
        out = eqd.ctl(verb, task, raw=True).out
        equal(b"\x1b" in out or b"\xff" in out, False, f"{verb}: {out!r}")
    eqd.show(task) # is JSON


@test()
def attributes_are_checked_and_the_message_names_what_is_allowed(eqd):
    for text, says in (("max_active=0", "max_active"), ("max_active=many", "max_active"), ("max_actve=2", "max_actve"),
                       ("on_full=explode", "reject"), ("timeout=soon", "timeout"), ("max_active", "="),
                       ("user=root", "user")):
        eqd.fails(2, "queue", "create", "q", text, says=says)
        eqd.fails(2, "queue", "set", "default", text, says=says)
    equal([q["name"] for q in rows(eqd)], ["default"])


@test()
def unknown_verbs_and_flags_are_usage_errors(eqd):
    eqd.fails(2, "sbumit", says="submit")
    eqd.fails(2, "submit", "--no-such-flag", "--", "true", says="--no-such-flag")
    eqd.fails(2, "submit", says="command")
    eqd.fails(2, "submit", "--timeout", "soon", "--", "true", says="soon")
    eqd.fails(2, "submit", "--retries", "-1", "--", "true")
    eqd.fails(2, "submit", "--array", "5-1", "--", "true", says="5-1")


# ---- commands ----

@test()
def a_command_that_cannot_be_started_says_why(eqd):
    (eqd.dir / "work/plain").write_text("#!/no/such/interpreter\n")
    (eqd.dir / "work/dir").mkdir()
    long = "/nonexistent/" + 100 * "x"
    for args, rc, says in ((["--", "/nonexistent/x"], 127, ["No such file", "there is no such file"]),
                           (["--", "eqd-nonexistent"], 127, ["No such file", "PATH of the task"]),
                           (["--", eqd.dir / "work/dir"], 126, ["ermission", "make it executable"]),
                           (["--", eqd.dir / "work/plain"], 126, ["ermission", "make it executable"]),
                           (["-C", "/nonexistent", "--", "true"], 125, ["/nonexistent: No such", "make it, or submit from another"]),
                           (["-C", eqd.dir / "work/plain", "--", "true"], 125, ["Not a directory", "submit from another"]),
                           (["-C", long, "--", "true"], 125, [long[:60], "...: No such file", "submit from another"]),
                           (["--stdout", "/nonexistent/out", "--", "true"], 125, ["/nonexistent/out", "make its directory"]),
                           (["--stderr", eqd.dir / "work/dir", "--", "true"], 125, ["work/dir", "let the user of the task write it"])):
        eqd.fails(rc, "run", *args, says=says)
    works(eqd)


@test()
def an_argv_without_a_program_is_refused(eqd):
    refused(eqd, INVALID, "submit", "default", b"", says="argv")
    refused(eqd, INVALID, "submit", "default", b"", argv=[], says="argv")
    refused(eqd, INVALID, "submit", "default", b"", argv=[""], says="argv")
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], cwd="relative", says="cwd")
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], env=["NOVALUE"], says="env")
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], nice=99, says="nice")
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], umask=0o7777, says="umask")
    for limit, says in (("nofiles=1", ['"nofiles=1"', "nofile nproc"]), ("nofile=x", ['"nofile=x"', "a number"]),
                        ("nofile=9:8", ['"nofile=9:8"', "not above the hard one"]), ("nofile=2:9", "nofile: at least 3")):
        refused(eqd, INVALID, "submit", "default", b"", argv=["true"], rlimits=[limit], says=says)
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], stdin_fd=True, says="descriptor")


@test()
def strings_with_a_zero_byte_do_not_reach_a_command(eqd):
    refused(eqd, INVALID, "submit", "default", b"", argv=["echo", "a\0b"])
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], env=["A=b\0c"])


@test()
def batches_are_taken_whole_or_not_at_all(eqd):
    with eqd.connect() as c:
        for bad in ({"argv": []}, {"argv": ["true"], "nice": 99}, {"argv": ["true"], "attach": True}, 7):
            try:
                c.call("submit_many", "default", [{"argv": ["true"]}, bad])
                raise AssertionError(f"{bad} was taken")
            except RpcError as e:
                equal(e.code, INVALID, e.text)
        try:
            c.call("submit_many", "default", [{"argv": ["true"]}] * 1001)
            raise AssertionError("1001 tasks were taken")
        except RpcError as e:
            equal(e.code in (INVALID, TOO_LARGE), True, e.text)
        reply = c.call("submit_many", "default", [{"argv": ["true"]}] * 1000)
    equal((reply["first"][1], reply["n"]), (1, 1000))
    eqd.ok("queue", "rm", "--yes", "default")


# ---- sizes ----

@test()
def a_payload_over_1_MiB_is_refused_and_one_of_just_that_taken(eqd):
    eqd.fails(2, "submit", "--payload", "-", "--", "cat", input=b"x" * (PAYLOAD_MAX + 1), says="1048576")
    refused(eqd, INVALID, "submit", "default", b"x" * (PAYLOAD_MAX + 1), argv=["cat"], says=["payload", "1048576"])
    eqd.ends_as(eqd.submit("--payload", "-", "--", "wc", "-c", input=b"x" * PAYLOAD_MAX), "DONE")
    equal(eqd.logs("default/1"), str(PAYLOAD_MAX))


@test()
def a_message_over_4_MiB_ends_the_connection_before_it_is_read(eqd):
    with eqd.connect() as c:
        head = b"\x94\x00\x01" + msgpack_mini.encode("submit") + b"\x92" + msgpack_mini.encode("default") + \
            b"\xc6\x7f\xff\xff\xff"
        c.sock.sendall(head)
        closed(c)
    works(eqd)


def closed(c):
    """eqd answers with an error, or nothing, and closes."""
    try:
        while c.receive():
            for error, _ in c.replies.values():
                equal(error is not None, True, "an answer without error")
            c.replies.clear()
    except (Closed, ConnectionError):
        return
    raise AssertionError("the connection is still open")


@test()
def garbage_on_the_socket_ends_that_connection_only(eqd):
    rng = random.Random(7)
    with eqd.connect() as witness:
        for i in range(200):
            garbage = rng.randbytes(rng.randrange(1, 300))
            if i % 4 == 0: # a good beginning
                garbage = msgpack_mini.encode([0, i, "submit", ["default", b"x", {"argv": ["true"]}]])[:-2] + garbage
            with eqd.connect() as c:
                try:
                    c.sock.sendall(garbage)
                    c.sock.shutdown(socket.SHUT_WR)
                    while c.sock.recv(65536):
                        pass
                except ConnectionError:
                    pass
            equal(witness.call("ping"), None)
    works(eqd)


@test()
def hostile_lengths_cost_no_memory(eqd):
    with eqd.connect() as c:
        before = c.call("stat")["rss_kib"]
    for head in (b"\xdd\x0f\xff\xff\xff", b"\xdf\x0f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
                 b"\x94" * 2000000):
        with eqd.connect() as c:
            try:
                c.sock.sendall(head)
            except ConnectionError:
                continue # it has seen enough
            closed(c)
    with eqd.connect() as c:
        grown = c.call("stat")["rss_kib"] - before
    if grown > 16384:
        raise AssertionError(f"grew by {grown} KiB")


@test()
def unknown_methods_and_wrong_types_are_answered(eqd):
    refused(eqd, METHOD, "no_such_method")
    refused(eqd, METHOD, "a" * 1000)
    refused(eqd, INVALID, "submit", 5, b"")
    refused(eqd, INVALID, "submit", "default")
    refused(eqd, INVALID, "submit", says="queue")
    refused(eqd, INVALID, "show", "default/1")
    refused(eqd, INVALID, "show", [[1, 2, 3]])
    refused(eqd, INVALID, "kill", ["default/1"], 65)
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], retries=-1)
    refused(eqd, INVALID, "submit", "default", b"", argv=["true"], retries=1001)
    refused(eqd, INVALID, "submit", "default", b"", argv="true")
    with eqd.connect() as c: # what is not known yet is no error
        c.call("submit", "default", b"", argv=["true"], knob_of_protocol_9=[1, {}])


@test(config={"queues.d/small.queue": "[Queue]\nmax_tasks=2\n"})
def errors_tell_programs_what_they_are_about(eqd):
    def submit(says, *params, code=INVALID, **options):
        equal(refused(eqd, code, "submit", *params, **options), {"method": "submit"} | says)

    equal(refused(eqd, METHOD, "no_such_method"), {"method": "no_such_method"})
    equal(refused(eqd, METHOD, "a" * 1000), {})      # nothing that a program could want back
    equal(refused(eqd, METHOD, "a\x1b[31m"), {})
    submit({"field": "queue"}, 5, b"")
    submit({"field": "payload"}, "default")
    submit({"field": "argv"}, "default", b"", argv="true")
    submit({"field": "retries", "limit": 1000}, "default", b"", argv=["true"], retries=1001)
    submit({"field": "payload", "limit": PAYLOAD_MAX}, "default", b"x" * (PAYLOAD_MAX + 1), argv=["cat"])
    equal(refused(eqd, INVALID, "submit_many", "default", [{"argv": ["true"]}, {"argv": 7}]),
          {"method": "submit_many", "field": "argv"})
    equal(refused(eqd, INVALID, "submit_many", "default", [{"argv": ["true"]}] * 1001),
          {"method": "submit_many", "field": "tasks", "limit": 1000})
    equal(refused(eqd, NO_QUEUE, "queue_show", "nosuch"), {"queue": "nosuch"})
    task = refused(eqd, NO_TASK, "show", ["default/99"])
    equal((task["queue"], task["id"][1]), ("default", 99))
    equal(refused(eqd, STALE, "show", [[5 << 33, 7]]), {"id": [5 << 33, 7]})
    equal(refused(eqd, 25, "pool_show", "nosuch"), {"pool": "nosuch"})
    equal(refused(eqd, 26, "param_get", "nosuch"), {"param": "nosuch"})
    equal(refused(eqd, 23, "worker_kick", 1 << 40), {"worker": 1 << 40})
    equal(refused(eqd, 13, "queue_create", "default"), {"queue": "default"})
    eqd.submit("-q", "small", "--unique", "k", "--hold", "--", "true")
    equal(refused(eqd, 28, "submit", "small", b"", argv=["true"], unique="k", on_dup="error"),
          {"queue": "small", "id": [eqd.queue("small")["id"], 1]})
    eqd.submit("-q", "small", "--hold", "--", "true")
    equal(refused(eqd, 8, "submit", "small", b"", argv=["true"]),
          {"queue": "small", "what": "tasks", "limit": 2, "pending": 2})
    equal(refused(eqd, 14, "queue_rm", "small"), {"queue": "small", "pending": 2})
    equal(refused(eqd, 8, "submit", "small", b"", argv=["true"], block_usec=1),
          {"queue": "small", "what": "tasks", "limit": 2, "pending": 2})


@test()
def refusals_of_the_manager_name_the_parameter(eqd):
    def of(method, *params, code=INVALID, **options):
        details = refused(eqd, code, method, *params, **options)
        equal(details.pop("method", method), method)
        return details

    def field(what, method, *params, code=INVALID, **options):
        equal(of(method, *params, code=code, **options), {"field": what}, f"{method}{params} {options}")

    true = {"argv": ["true"]}
    for name, options in (("cwd", {"cwd": "here"}), ("env", {"env": ["A"]}), ("label", {"label": "a\nb"}), ("nice", {"nice": 20}),
                          ("rlimits", {"rlimits": ["nofiles=1"]}), ("stdin_fd", {"stdin_fd": True}), ("unique", {"unique": ""}),
                          ("on_dup", {"on_dup": "skip"}), ("on_dup", {"unique": "k", "on_dup": "never"}),
                          ("attach", {"unique": "k", "attach": True}), ("payload_fd", {"payload_fd": True}),
                          ("after_ok", {"after_ok": ["default"]}), ("after_fail", {"after_fail": ["a/b"]}),
                          ("also", {"also": ["a/b"]}), ("also", {"also": ["default"]})):
        field(name, "submit", "default", b"", **true, **options)
    field("argv", "submit", "default", b"")
    field("queue", "submit", "a/b", b"", **true)
    field("unique", "submit_many", "default", [true | {"unique": "k", "on_dup": "error"}] * 2)
    field("unique", "submit_many", "default", [true], common={"unique": "k"})
    field("attach", "submit_many", "default", [true | {"attach": True}])
    field("also", "submit_many", "default", [true | {"also": ["default"]}] * 2)
    field("tasks", "submit_many", "default", [])

    field("max_active", "queue_create", "q", set=["max_active=many"])
    field("max_active", "queue_create", "q", set=["max_tasks=5", "MaxActive=0"])
    field("no_such_thing", "queue_create", "q", set=["no_such_thing=1"])
    field("set", "queue_create", "q", set=["max_active"])
    field("set", "queue_create", "q", set=["\x1b[31m=1"])
    field("executor", "queue_create", "q", set=["executor=plugin"])
    field("name", "queue_create", "-q")
    field("name", "queue_pause", "-q")
    field("pool", "queue_set", "default", ["pool=-p"])
    field("pool", "queue_set", "default", ["pool=plugin"])
    eqd.submit("--hold", "--", "true")
    field("executor", "queue_set", "default", ["executor=worker"], code=STATE)
    field("durable", "queue_set", "default", ["durable=no"], code=STATE)
    equal(of("queue_set", "default", ["pool=nosuch"], code=25), {"pool": "nosuch"})

    field("slots", "pool_create", "p", set=["slots=-1"])
    field("slots", "pool_create", "p", set=["slots=65536"])
    field("min_workers", "pool_create", "p", set=["kind=thread", "min_workers=9", "max_workers=8"])
    field("kind", "pool_set", "plugin", ["kind=command"])
    field("name", "pool_show", "-p")

    equal(of("param_set", "max_active", "many"), {"field": "value", "param": "max_active"})
    equal(of("param_set", "max_active", "\x01"), {"field": "value", "param": "max_active"})
    equal(of("param_set", "watchdog_thresh", "soon"), {"field": "value", "param": "watchdog_thresh"})
    equal(of("param_set", "commands", "no", code=STATE), {"field": "value", "param": "commands"})

    field("ids", "show", ["default"])
    field("id", "logs", "default")
    field("states", "list", states=["IDLE"])
    field("from", "list", **{"from": "default"})
    field("queue", "list", queue="-q")
    field("events", "subscribe", events=["task.nothing"])
    field("signal", "kill", ["default/1"], 0)
    field("version", "hello", version=0)

    eqd.ok("queue", "create", "w", "executor=worker")
    field("cwd", "submit", "w", b"", cwd="/")
    field("queues", "worker_serve", [])
    field("queues", "worker_serve", ["-q"])
    field("name", "worker_serve", ["w"], name="a\nb")
    field("parallel", "worker_serve", ["w"], parallel=0)
    with eqd.connect() as c:
        c.call("worker_serve", ["w"])
        for name, code, method, params, options in (
                ("rescue", STATE, "worker_serve", [["w"]], {"rescue": True}), ("parallel", INVALID, "worker_credit", [1], {"parallel": 0})):
            try:
                c.call(method, *params, **options)
            except RpcError as e:
                equal((e.code, e.details.get("field")), (code, name))
            else:
                raise AssertionError(f"{method} was taken")


@test(root=True)
def to_come_after_a_task_of_somebody_else_is_refused_with_the_name_of_the_parameter(eqd):
    task = eqd.submit("--hold", "--", "true")
    c = eqd.connect(uid=USER_A)
    for name in ("after_ok", "after_any", "after_fail"):
        try:
            c.call("submit", "default", b"", argv=["true"], **{name: [task]})
        except RpcError as e:
            equal((e.code, e.details), (DENIED, {"method": "submit", "field": name}))
        else:
            raise AssertionError("it was taken")


@test()
def a_message_that_is_too_large_is_told_the_bound(eqd):
    with eqd.connect() as c:
        c.sock.sendall(b"\x94\x00\x01" + msgpack_mini.encode("submit") + b"\x92" + msgpack_mini.encode("default") +
                       b"\xc6\x7f\xff\xff\xff")
        try:
            c.reply(1)
        except RpcError as e:
            equal((e.code, e.details), (TOO_LARGE, {"limit": MESSAGE_MAX}))
        else:
            raise AssertionError("a message of 2 GiB was taken")


@test()
def one_message_may_come_byte_by_byte(eqd):
    with eqd.connect() as c:
        message = msgpack_mini.encode([0, 77, "submit", ["default", b"abc", {"argv": ["true"]}]])
        for i in range(len(message)):
            c.sock.sendall(message[i:i + 1])
        equal(c.reply(77)[1], 1)


@test()
def a_client_that_never_reads_is_not_read_from_and_harms_nobody(eqd):
    with eqd.connect() as c:
        before = c.call("stat")["rss_kib"]
    deaf = eqd.connect()
    deaf.sock.setblocking(False)
    message = msgpack_mini.encode([0, 1, "api_info", []]) * 50
    sent = 0
    try:
        while sent < 64 << 20:
            sent += deaf.sock.send(message)
    except BlockingIOError:
        pass
    equal(sent < 64 << 20, True, "everything was read although nothing is taken")
    with eqd.connect() as c:
        for _ in range(100):
            c.call("ping")
        grown = c.call("stat")["rss_kib"] - before
    if grown > 32768:
        raise AssertionError(f"eqd grew by {grown} KiB")
    works(eqd)


@test()
def a_subscriber_that_never_reads_loses_events_and_is_told_how_many(eqd):
    deaf = eqd.events(events=["task."])
    eqd.ok("queue", "pause", "default")
    with eqd.connect() as c:
        for _ in range(12):
            reply = c.call("submit_many", "default", [{"argv": ["true"], "label": "x" * 200}] * 1000)
        equal(reply["n"], 1000)
        c.call("queue_rm", "default", yes=True)
    lost = deaf.note(lambda method, params: method == "lost")
    equal(lost[0] > 0, True)


@test()
def clients_that_vanish_in_the_middle_leave_nothing(eqd):
    message = msgpack_mini.encode([0, 1, "submit", ["default", b"x" * 1000, {"argv": ["true"]}]])
    for cut in range(0, len(message), 50):
        with eqd.connect() as c:
            c.sock.sendall(message[:cut])
    task = eqd.submit("--", "sleep", "1000")
    for method, params in (("wait", [[task]]), ("queue_flush", ["default"]), ("logs", [task, {"follow": True}]),
                           ("queue_drain", ["default"])):
        with eqd.connect() as c:
            c.send(method, *params)
            c.call("ping")
    eqd.until_state(task, "RUNNING")
    eqd.kill_task_now(task)


@test()
def of_64_descriptors_four_are_taken_and_none_is_kept(eqd):
    files = [os.open("/dev/null", os.O_RDONLY) for _ in range(64)]
    try:
        with eqd.connect() as c:
            for _ in range(5):
                equal(c.call("ping", fds=files), None)
            before = eqd.descriptors
            eventually(lambda: eqd.count_fds() <= before + 1 + 4,
                       lambda: f"{eqd.count_fds()} descriptors, {before} at the start")
            reply = c.call("submit", "default", b"", argv=["cat"], stdin_fd=True, fds=files)
            equal(reply[1], 1)
        eqd.ends_as("default/1", "DONE")
    finally:
        for fd in files:
            os.close(fd)


# ---- the socket ----

@test(eqd=False)
def a_path_of_more_than_107_bytes_is_refused_with_the_number(place):
    long = place.dir / ("x" * (110 - len(str(place.dir))))
    r = place.run_eqd("--socket", long)
    equal(r.rc, 69, str(r))
    contains(r.err, "107", "use a shorter one")
    r = place.ctl("--socket", long, "ping")
    equal(r.rc, 2, str(r))
    contains(r.err, "107", "use a shorter one: ./NAME in its directory")


@test()
def a_socket_in_use_is_left_to_the_one_that_has_it(eqd):
    r = eqd.run_eqd("--socket", eqd.socket)
    equal(r.rc, 69, r.err)
    contains(r.err, str(eqd.socket))
    works(eqd)


@test()
def a_state_directory_in_use_is_refused(eqd):
    r = eqd.run_eqd("--state", eqd.dir / "state", "--socket", eqd.dir / "other")
    equal(r.rc, 69, r.err)
    contains(r.err, "state", "--state")


@test()
def a_stale_socket_file_is_replaced(eqd):
    os.kill(eqd.pid, 9)
    eqd.process.wait()
    equal(stat.S_ISSOCK(eqd.socket.stat().st_mode), True)
    eventually(lambda: not marked_spawners(eqd), "the spawner outlives eqd")
    os.close(eqd.pidfd)
    eqd.log.close()
    os.unlink(eqd.dir / "notify")
    eqd.start((), {}, None)
    works(eqd)


def marked_spawners(eqd):
    from eqdtest import comm, marked
    return [p for p in marked(eqd.dir) if comm(p).startswith("eqd")]


@test(eqd=False)
def something_else_at_the_path_is_not_removed(place):
    (place.dir / "config").mkdir()
    place.socket.write_text("precious")
    r = place.run_eqd("--socket", place.socket)
    equal(r.rc != 0, True)
    contains(r.err, str(place.socket))
    equal(place.socket.read_text(), "precious")


@test(eqd=False)
def a_directory_that_is_missing_is_named(place):
    (place.dir / "config").mkdir()
    r = place.run_eqd("--socket", place.dir / "no/such/dir/sock")
    equal(r.rc != 0, True)
    contains(r.err, str(place.dir / "no/such/dir"))


@test(eqd=False)
def without_a_daemon_eqctl_is_69_and_says_where_it_looked(place):
    for verb in (["ping"], ["ls"], ["submit", "--", "true"], ["queue", "ls"]):
        r = place.ctl(*verb)
        equal(r.rc, 69, str(r))
        contains(r.err, str(place.socket))


@test(eqd=False)
def wrong_options_of_eqd_are_usage_errors(place):
    for args in (["--nonsense"], ["extra"], ["--system", "--user"], ["--log-level", "loud"]):
        r = place.run_eqd(*args)
        equal(r.rc, 2, str(r))
        contains(r.err, "eqd")


# ---- what runs out ----

@test(nofile=40)
def exhausted_descriptors_refuse_new_clients_and_spare_the_others(eqd):
    first = eqd.connect()
    equal(first.call("ping"), None)
    others = [Rpc(eqd.socket) for _ in range(60)]
    try:
        for _ in range(20):
            equal(first.call("ping"), None)
        answered = select.select([c.sock for c in others], [], [], WAIT_SECONDS)[0] # those that came too late, before they ask
        equal(len(answered) >= 1, True, "nobody was told")
        for c in others:
            if c.sock not in answered:
                continue
            try:
                c.reply(0)
                raise AssertionError("an answer to what was not asked")
            except RpcError as e:
                contains(e.text, "descriptor")
    finally:
        for c in others:
            c.close()
    eventually(lambda: eqd.ctl("ping").rc == 0, "connections are accepted again")
    works(eqd)


@test(env={"EQD_FAULT": "spawn:1"}, config={"eqd.conf": "[Commands]\nWaitingProcesses=0\n"}) # else the first is one of those
def a_refused_fork_is_tried_again(eqd):
    equal(json.loads(eqd.ok("pool", "show", "--json", "default"))["create_failures"], 0)
    eqd.ends_as(eqd.submit("--", "true"), "DONE", attempt=1)
    equal(json.loads(eqd.ok("pool", "show", "--json", "default"))["create_failures"], 1)


@test(env={"EQD_FAULT": "pipe:1"})
def pipes_that_cannot_be_made_are_tried_again(eqd):
    eqd.ends_as(eqd.submit("--", "echo", "x"), "DONE")


@test(env={"EQD_FAULT": "accept:3"}) # the first connection is the frame's, the second use finds that there is no other
def a_failed_accept_is_refused_clearly_and_the_next_one_is_served(eqd):
    def served():
        try:
            return eqd.connect().call("ping") is None
        except RpcError as e: # those that come while descriptors are short are all told so
            contains(e.text, "descriptor")
        except (Closed, ConnectionError):
            pass
        return False
    equal(served(), False)
    eventually(served, "connections are accepted again")
    works(eqd)


@test(config={"eqd.conf": "[Limits]\nConnectionsPerUser=5\n"})
def connections_per_user_are_limited(eqd):
    if os.geteuid() != 0:
        raise Skip("eqd's own user has no limit")
    held = [eqd.connect(61001) for _ in range(5)]
    for c in held:
        equal(c.call("ping"), None)
    sixth = eqd.connect(61001)
    try:
        sixth.call("ping")
        raise AssertionError("a sixth connection of the user was served")
    except (RpcError, Closed, ConnectionError):
        pass
    equal(eqd.connect().call("ping"), None)


@test(eqd=False)
def a_configuration_that_was_named_and_is_not_there_is_said(_):
    eqd = Eqd("--config", "/nonexistent/eqd")
    try:
        eqd.has_logged("<4>eqd: --config /nonexistent/eqd: No such file or directory; all settings are the built-in ones")
        equal(eqd.ok("run", "--", "echo", "works"), "works")
        eqd.stop()
    finally:
        eqd.kill()
        eqd.remove()


# ---- odd surroundings ----

@contextlib.contextmanager
def started_by_shell(place, line, *args, home="/"):
    """An eqd that sh(1) starts by this line, in which "$@" stands for the command; it must end with 0."""
    env = place.environment(HOME=home)
    if home is None:
        del env["HOME"]
    command = [place.eqd, "--socket", place.socket, "--state", place.dir / "state", *args]
    p = subprocess.Popen(["sh", "-c", line, "sh", *command], env=env, stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: place.ctl("ping").rc == 0 or p.poll() is not None, "eqd answers", 60)
        equal(p.poll(), None, "status of eqd")
        yield p
        p.terminate()
        equal(p.wait(60), 0)
    finally:
        p.kill()
        p.wait()


@test(eqd=False)
def an_eqd_without_standard_descriptors_puts_nothing_in_their_place(place):
    with started_by_shell(place, 'exec "$@" <&- >&- 2>&-', "--config", place.dir / "config") as p:
        equal([os.readlink(f"/proc/{p.pid}/fd/{fd}") for fd in range(3)], ["/dev/null"] * 3)
        equal(place.ctl("run", "--", "sh", "-c", "echo out; echo err >&2").out, "out\n")


@test()
def eqctl_without_standard_output_says_so_and_writes_into_no_socket(eqd):
    for verb in (["run", "--", "echo", "hello"], ["ls"], ["submit", "--", "true"]):
        r = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", eqd.eqctl, "--socket", eqd.socket, *verb], env=eqd.environment(),
                           stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        equal(r.returncode != 0, True, f"{verb}: {r}")
        contains(r.stderr, "cannot write")
        equal("lost the connection" in r.stderr, False, r.stderr)


@test()
def output_that_cannot_be_written_is_no_success(eqd):
    eqd.ok("queue", "create", "w", "executor=worker")
    worker = eqd.start_ctl("worker", "run", "-q", "w", "--", "cat")
    for verb in (["run", "--", "echo", "hello"], ["submit", "--follow", "--", "echo", "hello"], ["run", "-q", "w", "--payload", "x"]):
        r = subprocess.run(["sh", "-c", 'exec "$@" >/dev/full', "sh", eqd.eqctl, "--socket", eqd.socket, *verb],
                           env=eqd.environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        equal(r.returncode, 125, f"{verb}: {r}")
        contains(r.stderr, "cannot write", "No space left on device")
        equal(r.stderr.count("cannot write the output"), 1, r.stderr)
    worker.terminate()
    worker.wait(60)


@test()
def a_reader_of_the_output_that_leaves_is_no_end_of_the_task_and_that_is_said(eqd):
    script = '"$@" | head -n 1; echo ${PIPESTATUS[0]}'
    for verb in (["run"], ["submit", "--follow"]):
        r = subprocess.run(["bash", "-c", script, "bash", eqd.eqctl, "--socket", eqd.socket, *verb, "--", "yes"],
                           env=eqd.environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
        equal(r.stdout.splitlines()[-1], "141", f"{r}")
        task = eqd.ok("ls", "-s", "RUNNING", "-o", "id").strip()
        contains(r.stderr, f"task {task} continues; eqctl cancel {task} stops it")
        eqd.ok("cancel", "--running", task)
        eqd.ends_as(task, "CANCELED")


@test(eqd=False)
def an_eqd_of_a_user_without_home_needs_no_configuration(place):
    with started_by_shell(place, 'exec "$@" 2>/dev/null', "--user", home=None):
        equal(place.ctl("run", "--", "echo", "works").out, "works\n")
    r = subprocess.run([place.eqd, "--user", "--socket", place.socket], env={}, capture_output=True, text=True, timeout=60, check=False)
    equal(r.returncode, 2, r.stderr)
    contains(r.stderr, "HOME", "--state DIR")


main()
