#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Memory pressure: what a running eqd does when a FIFO, a socket or the kernel tells it of some."""

import json
import os
import shutil
import socket
import time

from eqdtest import BUILD, Eqd, RpcError, comm, contains, descendants, equal, eventually, main, test

CONF = "[Commands]\nIdentity=own\n"


def fifo(eqd):
    os.mkfifo(eqd.dir / "pressure")
    eqd.configure("eqd.conf", CONF + f"[Watchdog]\nMemoryPressure={eqd.dir / 'pressure'}\n")


def fifo_and_plugin(eqd):
    """A copy, whose directory is nobody else's. The first queue makes what eqd keeps for all plugins."""
    fifo(eqd)
    (eqd.dir / "plugins").mkdir(mode=0o755)
    plugin = eqd.dir / "plugins/trial.so"
    shutil.copy(BUILD / "tests/plugins/trial.so", plugin)
    plugin.chmod(0o755)
    eqd.configure("queues.d/p.queue", f"[Queue]\nExecutor=plugin\nPlugin={plugin}\nMaxActive=8\nOnPressure=reject\n")


def press(eqd):
    fd = os.open(eqd.dir / "pressure", os.O_WRONLY | os.O_NONBLOCK)
    os.write(fd, b"!")
    os.close(fd)
    return time.monotonic()


def threads(eqd):
    names = []
    for task in os.listdir(f"/proc/{eqd.pid}/task"):
        try:
            with open(f"/proc/{eqd.pid}/task/{task}/comm", encoding="ascii") as f:
                names.append(f.read().strip())
        except OSError:
            pass # it has just gone
    return sum(name.startswith("eqw/plugin:") for name in names)


def waiting(eqd):
    return sum(comm(pid) == "eqd-waiting" for pid in descendants(eqd.pid))


def stat(eqd):
    return json.loads(eqd.ok("stat", "--json"))


@test(change=fifo_and_plugin, user=True, notify=True)
def T_PSI_one_byte_sends_idle_workers_away_and_a_careful_queue_takes_nothing_for_two_seconds(eqd):
    c, events = eqd.connect(), eqd.events(events=["pressure."])
    tasks = [c.call("submit", "p", b"until-canceled") for _ in range(8)]
    eventually(lambda: threads(eqd) >= 8, lambda: f"{threads(eqd)} threads")
    for task in tasks:
        c.call("cancel", [task], running=True)
    for task in tasks:
        c.call("wait", [task])
    equal(threads(eqd) >= 8, True)
    eventually(lambda: waiting(eqd) == 2, "no processes wait")
    equal(eqd.ok("param", "get", "pressure_hold"), "2s")
    eqd.ok("param", "set", "pressure_hold=1h") # while it is looked at, however long that takes
    began = press(eqd)
    eventually(lambda: threads(eqd) == 1, lambda: f"{threads(eqd)} threads") # they stay for minutes if nobody sends them away
    print(f"# idle workers were gone after {(time.monotonic() - began) * 1e3:.1f} ms")
    eventually(lambda: waiting(eqd) == 0, "processes wait that should not")
    try:
        c.call("submit", "p", b"x")
        raise AssertionError("the queue took a task")
    except RpcError as e:
        equal(e.code, 27)
        contains(e.text, "memory is short", "on_pressure=reject", "try again in")
    now = stat(eqd)
    equal((now["pressure"], now["pressures"], now["pressure_events"]), (True, 1, 1))
    contains(eqd.until_notified(lambda m: "memory pressure" in m.get("STATUS", ""))["STATUS"], "; memory pressure")
    eqd.ok("param", "set", "pressure_hold=2s")
    began = press(eqd)
    for kind in ("pressure.begin", "pressure.end"):
        events.note(lambda method, p, kind=kind: method == "event" and p[0]["event"] == kind)
    lasted = time.monotonic() - began
    equal(lasted >= 1.99, True, f"it lasted {lasted:.3f} s")
    c.call("submit", "p", b"x")
    eventually(lambda: waiting(eqd) == 2, "no processes wait again")
    equal(stat(eqd)["pressure"], False)
    eqd.has_logged(f"<5>eqd: memory pressure ({eqd.dir / 'pressure'}): idle workers go")
    eqd.until_notified(lambda m: m.get("STATUS") and "memory pressure" not in m["STATUS"])


@test(change=fifo)
def commands_run_while_memory_is_short(eqd):
    press(eqd)
    eventually(lambda: waiting(eqd) == 0, "processes wait that should not")
    equal(eqd.ok("run", "--", "echo", "hello"), "hello")


@test(change=fifo)
def a_change_of_the_configuration_is_a_change_of_the_source(eqd):
    os.mkfifo(eqd.dir / "other")
    eqd.configure("eqd.conf", CONF + f"[Watchdog]\nMemoryPressure={eqd.dir / 'other'}\nPressureHold=100ms\n")
    eqd.ok("reload")
    os.rename(eqd.dir / "other", eqd.dir / "pressure")
    events = eqd.events(events=["pressure."])
    press(eqd)
    for kind in ("pressure.begin", "pressure.end"):
        events.note(lambda method, p, kind=kind: method == "event" and p[0]["event"] == kind)
    contains(eqd.ctl("param", "set", "memory_pressure=often").err, "neither auto nor off nor an absolute path")
    eqd.ok("param", "set", "pressure_hold=200ms")
    press(eqd)
    for kind in ("pressure.begin", "pressure.end"):
        events.note(lambda method, p, kind=kind: method == "event" and p[0]["event"] == kind)
    eqd.configure("eqd.conf", CONF + "[Watchdog]\nMemoryPressure=sometimes\n")
    contains(eqd.ctl("reload").err, "memory_pressure", "neither auto nor off nor an absolute path")
    eqd.configure("eqd.conf", CONF + "[Watchdog]\nMemoryPressure=off\n")
    eqd.ok("reload")
    try:
        press(eqd)
        raise AssertionError("somebody still reads it")
    except OSError: # ENXIO: nobody does
        pass
    equal(stat(eqd)["pressures"], 2)


@test(eqd=False)
def what_the_service_manager_names_is_taken_and_told_what_to_watch(place):
    """systemd's protocol: the socket is connected, and gets the bytes that MEMORY_PRESSURE_WRITE stands for."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.dir / "p"))
        listener.listen()
        listener.settimeout(20)
        eqd = Eqd(env={"MEMORY_PRESSURE_WATCH": str(place.dir / "p"), "MEMORY_PRESSURE_WRITE": "c29tZSAyMDAwMDAgMjAwMDAwMAA="})
        try:
            peer = listener.accept()[0]
            peer.settimeout(20)
            equal(peer.recv(64), b"some 200000 2000000\0")
            events = eqd.events(events=["pressure."])
            peer.send(b"!")
            events.note(lambda method, p: method == "event" and p[0]["event"] == "pressure.begin")
            peer.close()
            eventually(lambda: "memory pressure is not watched" in eqd.log_text(), eqd.log_text)
        finally:
            eqd.kill()
            eqd.remove()


main()
