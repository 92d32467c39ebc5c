#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the first corpora of fuzz-scan, fuzz-decode, fuzz-session and fuzz-request: corpus/* beside this file.

Small messages as clients send them, one per method and some odd ones. Files that a fuzzer found are kept beside them
under other names; this script only writes its own. Needs no library: the few formats are packed here, so that lengths
and widths can be chosen that an encoder would not choose.
"""

import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))


class Raw(bytes):
    """Bytes that are encoded already."""


def pack(v):
    if isinstance(v, Raw):
        return bytes(v)
    if v is None:
        return b"\xc0"
    if v is True or v is False:
        return b"\xc3" if v else b"\xc2"
    if isinstance(v, int):
        if 0 <= v < 128:
            return bytes([v])
        if -32 <= v < 0:
            return struct.pack("b", v)
        return b"\xcf" + struct.pack(">Q", v) if v >= 0 else b"\xd3" + struct.pack(">q", v)
    if isinstance(v, float):
        return b"\xcb" + struct.pack(">d", v)
    if isinstance(v, str):
        v = v.encode()
        return (bytes([0xA0 | len(v)]) if len(v) < 32 else b"\xda" + struct.pack(">H", len(v))) + v
    if isinstance(v, bytes):
        return (b"\xc4" + bytes([len(v)]) if len(v) < 256 else b"\xc5" + struct.pack(">H", len(v))) + v
    if isinstance(v, (list, tuple)):
        head = bytes([0x90 | len(v)]) if len(v) < 16 else b"\xdc" + struct.pack(">H", len(v))
        return head + b"".join(map(pack, v))
    head = bytes([0x80 | len(v)]) if len(v) < 16 else b"\xde" + struct.pack(">H", len(v))
    return head + b"".join(pack(k) + pack(x) for k, x in v.items())


ID = [Raw(b"\xcf" + struct.pack(">Q", 5)), Raw(b"\xcf" + struct.pack(">Q", 1042))]
OPTIONS = {
    "argv": ["ffmpeg", "-i", b"in.mkv", "out.mp4"], "cwd": "/tmp", "env": ["PATH=/bin", "LANG=C"], "label": "a film",
    "urgent": True, "hold": False, "at_usec": 1700000000000000, "delay_usec": 5, "expire_usec": 6, "timeout_usec": 7,
    "grace_usec": 8, "retries": 3, "backoff_usec": 1000, "backoff_max_usec": 2000, "after_ok": [ID, "encode/7"],
    "after_any": [], "after_fail": ["q/1"], "merge": True, "stdout_path": "/tmp/out", "stderr_path": "/tmp/err",
    "umask": 18, "nice": -5, "rlimits": ["nofile=1024:4096"], "stdin_fd": False, "payload_fd": False, "attach": True, "block_usec": 9,
    "unique": "film-7", "on_dup": "replace", "ionice": "best-effort:3", "mime": "text/plain",
    "also": ["mail"],
}

CALLS = {
    "hello": [{"version": 1, "client": "corpus"}],
    "hello-bare": [],
    "api_info": [],
    "ping": [],
    "submit": ["q0", b"payload"],
    "submit-all": ["encode", b"x" * 100, OPTIONS],
    "submit-fd": ["q0", None, {"payload_fd": True}],
    "submit-map": [{"queue": "q", "payload": None, "nice": 3, "nice2": {"a": [1, {}]}}],
    "submit-str": ["q", "text as payload", {"label": "\u20ac"}],
    "submit_many": ["q", [b"a", "b", None, {"payload": b"c", "urgent": True}], {"common": {"retries": 2}}],
    "cancel": [[ID, "q/2"], {"running": True, "signal": 15, "grace_usec": 10}],
    "kill": [[ID], 9],
    "hold": [["q/1", "q/2", "q/3"]],
    "retry": [[], {"failed": True, "queue": "q", "reset": True}],
    "wait": [[ID, ID], {"any": True, "timeout_usec": 1000000}],
    "list": [{"queue": "q", "states": ["FAILED", "DEAD"], "uid": 1000, "limit": 10, "from": ID}],
    "why": [[ID]],
    "logs": [ID, {"streams": 3, "follow": True}],
    "subscribe": [{"queue": "q", "events": ["task.", "queue.created"]}],
    "queue_create": ["new", {"set": ["max_active=4", "rescuer=yes"], "exist_ok": True}],
    "queue_set": ["new", ["max_active="]],
    "queue_drain": ["new", {"timeout_usec": 5}],
    "queue_rm": ["new", {"yes": True}],
    "stat": [],
    "worker_serve": [["w"], {"credit": 4, "parallel": 2, "name": "corpus", "payload_fd": True}],
    "worker_credit": [9, {"parallel": 3}],
    "worker_touch": ["w/1", 1, {"progress": 50, "note": "half"}],
    "worker_list": [{"from": 0, "limit": 5}],
    "worker_kick": [7],
    "worker_leave": [],
    "float": [1.5, {"retries": 2.0}],
    "unknown": [[[[[]]]], {"x": {"y": {"z": None}}}],
    "submit-key": ["q", b"p", {"argv": ["true"], "unique": "k", "on_dup": "error"}],
    "submit-key-bad": ["q", b"p", {"argv": ["true"], "unique": "", "on_dup": "often"}],
    "submit_many-keys": ["q", [{"unique": "a", "payload": b"1"}, {"unique": "a"}, b"2"], {"common": {"on_dup": "skip"}}],
    "logs-attempt": [ID, {"follow": True, "attempt": 65535}],
}

TASK = {"id": ID, "queue": "q", "state": "FAILED", "exit": 1, "argv": ["false"], "uid": 0, "detail": "exit status 1"}

MESSAGES = {name: [0, i, name.split("-")[0], params] for i, (name, params) in enumerate(CALLS.items())}
MESSAGES.update({
    "notify-cancel": [2, "$/cancel", [7]],
    "notify-output": [2, "output", [ID, 1, b"some output\n", 2]],
    "notify-event": [2, "event", [{"event": "task.finished", "id": ID, "state": "DONE"}]],
    "reply-id": [1, Raw(b"\xce\0\0\0\x07"), None, ID],
    "reply-list": [1, 8, None, [TASK, TASK]],
    "reply-error": [1, 9, [4, "there is no queue \"x\"", {"queue": "x"}], None],
    "bad-type": [3, 1, "x", []],
    "bad-id": [0, 1 << 32, "x", []],
    "bad-params": [0, 1, "x", {}],
    "reply-error-full": [1, 10, [8, "queue q is full", {"queue": "q", "what": "tasks", "limit": 1000, "pending": 1000,
                                                        "retry_after_usec": 20000}], None],
    "reply-error-wide": [1, 11, [3, "submit: retries: at most 1000", {"method": "submit", "field": "retries", "limit": 1000,
                                                                       "later": [1, {}]}, "more"], None],
    "reply-error-no-map": [1, 12, [8, "full", 7], None],
})

VALUES = {
    "nil": b"\xc0",
    "nested-31": b"\x91" * 31 + b"\xc0",
    "nested-40": b"\x91" * 40 + b"\xc0",
    "array32-huge": b"\xdd\xff\xff\xff\xff",
    "map32-huge": b"\xdf\xff\xff\xff\xff",
    "array32-nested": b"\xdd\x07\xff\xff\xff" * 31,
    "array16-nested": b"\xdc\xff\xff" * 31,
    "str32-huge": b"\xdb\xff\xff\xff\xff",
    "bin32-cut": b"\xc6\0\0\1\0abc",
    "reserved": b"\x92\x01\xc1",
    "ext8": b"\xc7\x01\x05x",
    "fixext1": b"\xd4\x05x",
    "widths": pack([Raw(b"\xcc\x01"), Raw(b"\xcd\0\1"), Raw(b"\xce\0\0\0\1"), Raw(b"\xd0\xff"), Raw(b"\xd1\xff\xff"),
                    Raw(b"\xd2\xff\xff\xff\xff"), -(1 << 40), 1.0, Raw(b"\xca\0\0\0\0"), Raw(b"\xd9\x01x"),
                    Raw(b"\xdb\0\0\0\1x"), Raw(b"\xc6\0\0\0\1x"), Raw(b"\xdd\0\0\0\1\xc2"), Raw(b"\xdf\0\0\0\1\1\2")]),
    "two-values": b"\x01\x02",
}


def write(folder, name, data):
    os.makedirs(os.path.join(HERE, "corpus", folder), exist_ok=True)
    with open(os.path.join(HERE, "corpus", folder, name), "wb") as f:
        f.write(data)


def request(strings, flags=0, n_groups=0, n_rlimits=0, n_argv=1, n_env=0, n_fds=0, nice=0, n_strings=None, ioprio=0):
    """As fuzz-request.c reads it: struct Head, strings."""
    head = struct.pack("<12IiIQQB7x", flags, 3, 1000, 1000, n_groups, n_rlimits, n_argv, n_env,
                       len(strings) if n_strings is None else n_strings, 0o22, 100, 4, nice, ioprio, 1, 2, n_fds)
    return head + strings


def main():
    for i, (name, message) in enumerate(MESSAGES.items()):
        write("decode", name, pack(message))
        if message[0] == 1 and message[2]:
            write("decode", name + "-alone", pack(message[2]))
        if i % 3 == 0:
            write("scan", name, bytes([i % 64, 0]) + pack(message))
    for i, (name, data) in enumerate(VALUES.items()):
        write("scan", name, bytes([i * 5 % 64, 0]) + data)
    write("scan", "limit-exact", bytes([2, 0x80 | 6]) + b"\xc4\x04abcd")
    write("scan", "limit-over", bytes([2, 0x80 | 5]) + b"\xc4\x04abcd")
    # Whole conversations; first byte: how the client behaves, second: the size of its chunks.
    calls = [pack(m) for m in MESSAGES.values() if m[0] in (0, 2) and isinstance(m[-1], list)]
    write("session", "calls", bytes([0, 9]) + b"".join(calls))
    for how in (1, 2, 3, 4, 12, 22, 68, 128, 129, 130, 132, 196):
        write("session", f"calls-{how}", bytes([how, 30]) + b"".join(calls))
    write("session", "large-replies", bytes([0, 3]) + b"".join(pack([0, i, "list", [{"limit": i}]]) for i in range(0, 99, 9)))
    write("session", "descriptors", bytes([128, 60]) + pack([0, 7, "submit", ["q0", None, {"payload_fd": True}]]) * 20)
    write("session", "waits", bytes([0, 50]) + pack([0, 1, "wait", [[]]]) * 80)
    write("session", "submits", bytes([0, 255]) + pack([0, 7, "submit", ["q0", b"x" * 10]]) * 300)
    answers = [[1, 7, None, None], [1, 7, None, b"r"], [1, 7, None, {"attempt": 1, "result": b"r", "exit": 3}],
               [1, 8, "no", None], [1, 8, [5, "no"], None], [1, 9, {"text": "no", "final": True}, None], [1, 9, 5, 5]]
    write("session", "answers", bytes([0, 7]) + b"".join(map(pack, answers)))
    write("session", "bad-after-good", bytes([0, 4]) + pack([0, 1, "ping", []]) + b"\x94\x00\x07\xc1")
    for name, data in VALUES.items():
        write("session", name, bytes([0, 1]) + data)
    good = b"/bin/sh\0-c\0true\0A=1\0EQD_TASK=q/1\0/tmp\0\0\0"
    write("request", "plain", request(b"true\0\0\0\0"))
    write("request", "all", request(good, flags=0x67, n_groups=1, n_rlimits=1, n_argv=3, n_env=2, n_fds=3, nice=-20))
    write("request", "ioprio", request(good, flags=0xe7, n_groups=1, n_rlimits=1, n_argv=3, n_env=2, n_fds=3, ioprio=3 << 13))
    write("request", "memfd", request(good, flags=8, n_argv=3, n_env=2, n_fds=1))
    write("request", "too-few", request(good, n_argv=4, n_env=2))
    write("request", "not-ended", request(good[:-1] + b"x", n_argv=3, n_env=2))
    write("request", "wrapping", request(good, n_argv=0xffffffff, n_env=7))
    write("request", "no-fd", request(good, flags=2, n_argv=3, n_env=2))
    write_workers()


def write_workers():
    """Conversations of workers. The n-th request of eqd to a new connection has the msgid 1 << 16 | n."""
    serve = pack([0, 1, "worker_serve", [["w"], {"credit": 5, "parallel": 2}]])

    def run(i, lap=1):
        return lap << 16 | i

    answers = {
        "well": [[1, run(i), None, b"result"] for i in range(3)],
        "badly": [[1, run(0), "no", None], [1, run(1), [5, "no"], None], [1, run(2), {"final": True}, None]],
        "records": [[1, run(0), None, {"attempt": 1, "result": b"r", "exit": 0}], [1, run(1), None, {"attempt": 9}],
                    [1, run(2), {"give_back": True, "attempt": 1}, None], [0, 2, "worker_credit", [3]]],
        "never-sent": [[1, 7, None, None], [1, 0xffffffff, "x", None], [1, run(9), None, None]],
        "twice": [[1, run(0), None, None], [1, run(0), None, None], [1, run(0, 2), None, None]],
        "none-at-all": [[1, run(0), None, 5], [1, run(1), 5, None], [1, run(2), None, {"x": "y"}]],
        "leave": [[0, 2, "worker_leave", []], [1, run(0), None, None], [1, run(1), None, None], [1, run(2), None, None],
                  [0, 3, "worker_serve", [["w"]]]],
        "canceled": [[0, 2, "cancel", [["w/1", "w/2"], {"running": True, "grace_usec": 0}]], [1, run(0), None, None],
                     [1, run(1), None, None]],
        "removed": [[0, 2, "queue_rm", ["w", {"yes": True}]], [1, run(0), None, None], [1, run(1), "no", None]],
        "kicked": [[0, 2, "worker_kick", [1]], [1, run(0), None, None]],
        "touched": [[2, "worker_touch", ["w/1", 1, {"progress": 3}]], [2, "worker_touch", ["w/1", 2]],
                    [0, 2, "worker_list", []], [0, 3, "why", [["w/1", "w/8"]]], [0, 4, "show", [["w/2"]]]],
        "reconfigured": [[0, 2, "queue_set", ["w", ["executor=command"]]], [0, 3, "queue_set", ["w", ["max_active=1"]]],
                         [1, run(2), None, None], [1, run(1), None, None], [1, run(0), None, None]],
    }
    for i, (name, messages) in enumerate(answers.items()):
        write("worker", name, bytes([0, 20]) + serve + b"".join(map(pack, messages)))
        write("worker", name + "-fail", bytes([1 | i * 2, 255]) + serve + b"".join(map(pack, messages)))


if __name__ == "__main__":
    main()
