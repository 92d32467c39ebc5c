# SPDX-License-Identifier: MIT
"""The Python package with a real eqd, blocking and with asyncio."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

import eqd as package
from eqdtest import STOP_SECONDS, contains, equal, main, test
from ends import crash

EXAMPLES = Path(__file__).resolve().parents[2] / "client/examples"


def raises(kind, work, *says):
    try:
        work()
    except kind as e:
        contains(str(e), *says)
        return e
    raise AssertionError(f"{kind.__name__} was not raised")


def client(eqd):
    return package.connect(str(eqd.socket))


@test()
def a_command_is_submitted_waited_for_and_read(eqd):
    with client(eqd) as c:
        c.queue_create("q", set={"max_active": 2})
        task = c.submit("q", b"in\n", argv=["sh", "-c", "cat; echo err >&2"], timeout="30s", label="x")
        equal(str(task), "q/1")
        record = task.result(timeout=30)
        equal((record["state"], record["id"], record["label"], record["timeout_usec"]), ("DONE", task.id, "x", 30 * 10**6))
        equal((task.output(), task.output(2), task.done()), (b"in\n", b"err\n", True))
        contains(c.queue_show("q")["set"], "max_active=2")
        c.ping()
        equal(c.api_info()[1]["version"]["api_level"], package.PROTOCOL)


@test()
def each_attempt_has_its_output(eqd):
    with client(eqd) as c:
        c.queue_create("q", set={"backoff": "1ms"})
        task = c.submit("q", argv=["sh", "-c", "echo $EQD_ATTEMPT; [ $EQD_ATTEMPT = 3 ]"], retries=2)
        equal(task.result(timeout=30)["attempt"], 3)
        equal([task.output(attempt=k) for k in (1, 2, 3, None)], [b"1\n", b"2\n", b"3\n", b"3\n"])
        e = raises(package.EqdError, lambda: task.output(attempt=4), "q/1 has had 3 attempts")
        equal(e.details, {"field": "attempt"})

        async def of_second():
            async with package.aio.connect(str(eqd.socket)) as a:
                return await a.logs(task.id, attempt=2)
        reply = asyncio.run(of_second())
        equal((reply["chunks"], reply["attempt"], reply["more"], reply["dropped"]), ([[1, b"2\n"]], 2, False, 0))


@test()
def attached_output_is_all_there_and_a_task_waits_for_no_one_who_waits_for_it(eqd):
    size = 4 << 20 # more than eqd and the socket hold, and than is kept
    argv = ["sh", "-c", f"echo first >&2; head -c {size} /dev/zero; echo last >&2"]
    with client(eqd) as c:
        c.queue_create("q")
        got = {1: b"", 2: b""}
        for stream, data in c.submit("q", argv=argv, attach=True).follow():
            got[stream] += data
        equal((len(got[1]), got[2]), (size, b"first\nlast\n"))
        equal(b"".join(data for _, data in c.submit("q", argv=argv, attach=True).follow(2)), b"first\nlast\n")
        waited = c.submit("q", argv=argv, attach=True)
        equal(waited.wait(timeout=60)["state"], "DONE")
        equal((len(waited.output()), b"".join(data for _, data in waited.follow(2))), (64 << 10, b"first\nlast\n"))
        dropped = c.submit("q", argv=argv, attach=True).id
        equal(c.wait([dropped], timeout=60)[0]["state"], "DONE")


@test()
def ends_other_than_done_are_exceptions(eqd):
    with client(eqd) as c:
        c.queue_create("q")
        failed = c.submit("q", argv=["sh", "-c", "exit 3"])
        e = raises(package.TaskFailed, failed.result, "q/1: FAILED", "exit status 3")
        equal(e.record["exit"], 3)
        equal((type(failed.exception()), failed.done(), failed.cancelled()), (package.TaskFailed, True, False))
        equal(c.submit("q", argv=["true"]).exception(), None)
        raises(package.TaskTimeout, c.submit("q", argv=["sleep", "60"], timeout=0.05, grace=0.1).result, "TIMEOUT")
        c.queue_create("tries", set={"backoff": "1ms"})
        late = c.submit("tries", argv=["sleep", "60"], timeout=0.05, grace=0.1, retries=1)
        equal(raises(package.TaskTimeout, late.result, "tries/1: DEAD").record["attempt"], 2)
        equal(type(c.submit("tries", argv=["false"], retries=1).exception()), package.TaskFailed)
        held = c.submit("q", argv=["true"], hold=True)
        equal((held.why()["reason"], held.done()), ("held", False))
        raises(package.TimedOutError, lambda: held.wait(timeout=0.01))
        equal((held.cancel(), held.cancel()), (True, False))
        equal((held.cancelled(), held.running(), type(held.exception())), (True, False, package.TaskCanceled))
        equal((held.payload(), c.submit("q", b"in", argv=["true"], hold=True).payload()), (b"", b"in"))
        raises(package.TaskCanceled, held.result, "CANCELED")


@test()
def errors_of_eqd_have_classes(eqd):
    with client(eqd) as c:
        e = raises(package.NoQueueError, lambda: c.submit("none", argv=["true"]), "none")
        equal((e.code, e.name), (4, "no-queue"))
        queue = c.queue_create("s")["id"]
        raises(package.NoTaskError, lambda: c.show([(queue, 99)]))
        c.queue_rm("s")
        raises(package.StaleError, lambda: c.show([(queue, 99)]))
        raises(package.MethodError, lambda: c.call("no_such_method"))
        c.queue_create("q")
        raises(package.ExistsError, lambda: c.queue_create("q"))
        raises(TypeError, lambda: c.submit("q", argv="ls -l"), "list of strings")


@test()
def many_tasks_take_few_messages(eqd):
    with client(eqd) as c:
        c.queue_create("q")
        c.queue_pause("q")
        tasks = c.map("q", [{"argv": ["true"], "payload": b"%d" % i} for i in range(2500)], label="many")
        equal([t.id.seq for t in tasks], list(range(1, 2501)))
        rows = list(c.all_tasks(queue="q", limit=700))
        equal([r["id"] for r in rows], [t.id for t in tasks])
        equal({r["label"] for r in rows}, {"many"})
        equal(set(c.cancel([t.id for t in tasks[:1000]])), {0})
        c.queue_rm("q", yes=True)


@test()
def no_more_of_an_array_than_its_limit_have_their_turn(eqd):
    with client(eqd) as c:
        c.queue_create("q", set={"max_active": 4})
        running = c.submit("q", argv=["sleep", "1000"], array=78, array_limit=1)
        waits = c.submit("q", argv=["true"], array=78, array_limit=1)
        equal((waits.why()["reason"], waits.show()["array_limit"]), ("array", 1))
        running.cancel(running=True)
        waits.result(timeout=30)


@test()
def queues_are_paused_drained_stopped_and_joined(eqd):
    with client(eqd) as c:
        c.queue_create("q")
        c.queue_pause("q")
        task = c.submit("q", argv=["true"])
        equal((c.queue_show("q")["state"], task.why()["reason"]), ("paused", "paused"))
        raises(package.TimedOutError, lambda: c.queue_flush("q", timeout="10ms"))
        c.queue_resume("q")
        c.queue_flush("q")
        c.queue_drain("q", timeout=30)
        c.queue_set("q", {"max_active": 3})
        c.queue_stop("q")
        c.queue_join("q")
        equal(c.queue_list()[-1]["name"], "q")
        raises(package.StoppedError, lambda: c.submit("q", argv=["true"]))
        c.queue_rm("q", yes=True)


@test()
def output_is_followed_to_its_end(eqd):
    with client(eqd) as c:
        c.queue_create("q")
        fifo = eqd.dir / "work/fifo"
        os.mkfifo(fifo)
        os.chmod(fifo, 0o666)
        task = c.submit("q", argv=["sh", "-c", f"echo one; read line <{fifo}; echo $line >&2"])
        got = []
        for stream, data in task.follow():
            if not got:
                fifo.write_text("two\n")
            got.append((stream, data))
        equal(got, [(1, b"one\n"), (2, b"two\n")])
        equal(list(task.follow(streams=2)), [(2, b"two\n")])


@test()
def events_come_in_order_once_subscribed(eqd):
    with client(eqd) as c:
        c.queue_create("q")
        events = c.events("q", events=["task."], ready=lambda: c.submit("q", argv=["true"]))
        equal([next(events)["event"] for _ in range(3)], ["task.accepted", "task.started", "task.finished"])
        events.close()


@test()
def threads_share_a_client(eqd):
    with client(eqd) as c:
        c.queue_create("q", set={"max_active": 8})
        c.queue_pause("q")
        ids = []

        def work():
            ids.extend(c.submit("q", argv=["true"]).id for _ in range(50))
        threads = [threading.Thread(target=work) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        equal(sorted(i.seq for i in ids), list(range(1, 201)))
        c.queue_rm("q", yes=True)


@test()
def a_client_outlives_a_restart_of_eqd(eqd):
    with client(eqd) as c:
        c.ping()
        eqd.process.terminate()
        eqd.expect_end(STOP_SECONDS, 0)
        eqd.forget()
        eqd.start()
        equal(c.stat()["pid"], eqd.pid)


COME_BACK = package.Reconnect(first=0.005, max=0.05)


@test()
def submits_waits_and_events_go_on_over_kill_9(eqd):
    """None is lost, none is doubled."""
    n, per_crash = 90, 30
    with package.connect(str(eqd.socket), reconnect=COME_BACK) as c:
        c.queue_create("q", set={"max_active": 2})
        held = c.submit("q", argv=["true"], hold=True)
        events = c.events("q")
        crashes = []
        for i in range(n):
            if i % per_crash == per_crash // 2:
                crashes.append(threading.Thread(target=crash, args=(eqd,)))
                crashes[-1].start()
            equal(c.submit("q", argv=["true"]).id.seq, i + 2)
            if i % per_crash == per_crash - 1:
                crashes[-1].join()
        seen = []
        while seen.count("reconnected") < 1:
            seen.append(next(events)["event"])
        waiting = threading.Thread(target=held.wait)
        waiting.start()
        crash(eqd)
        with client(eqd) as other: # requests of one client follow one another
            other.release([held.id])
        waiting.join()
        equal(held.show()["state"], "DONE")
        equal(c.queue_show("q")["last_seq"], n + 1)


@test()
def asyncio_goes_on_over_kill_9_and_so_does_a_worker(eqd):
    async def work():
        async def shout(run):
            return run.payload.upper()
        async with package.aio.connect(str(eqd.socket), reconnect=COME_BACK) as c:
            await c.queue_create("w", set={"executor": "worker", "max_active": 8, "max_crashes": 100})
            worker = package.worker.Worker({"w": shout}, parallel=4, path=str(eqd.socket))
            serving = asyncio.create_task(worker.run(COME_BACK))
            loop = asyncio.get_running_loop()
            for part in range(3):
                tasks = [asyncio.ensure_future(c.submit("w", b"x%d" % i)) for i in range(200)]
                await tasks[0]
                crashing = loop.run_in_executor(None, crash, eqd)
                results = await asyncio.gather(*(t.result() for t in await asyncio.gather(*tasks)))
                equal(sorted(r["result"] for r in results), sorted(b"X%d" % i for i in range(200)))
                await crashing
            equal((await c.queue_show("w"))["last_seq"], 600)
            worker.stop()
            await serving
    asyncio.run(work())


@test()
def keys_make_second_submits_the_same_task(eqd):
    with package.connect(str(eqd.socket)) as c:
        c.queue_create("q")
        first = c.submit("q", argv=["true"], hold=True, unique="k")
        equal(c.submit("q", argv=["true"], unique="k").id, first.id)
        try:
            c.submit("q", argv=["true"], unique="k", on_dup="error")
            raise AssertionError("it was taken")
        except package.DuplicateError as e:
            equal("q/1 has that key" in str(e), True)
        tasks = c.map("q", [{"unique": "a"}, {"unique": "k"}, {"unique": "b"}], argv=["true"], hold=True)
        equal([t.id.seq for t in tasks], [2, 1, 3])
        equal(c.submit("q", argv=["true"], hold=True, unique="k", on_dup="replace").id.seq, 4)
        equal((first.show()["state"], first.show()["unique"]), ("CANCELED", "k"))
        c.cancel(["q/2", "q/3", "q/4"])


@test()
def asyncio_has_many_requests_outstanding(eqd):
    async def work():
        async with package.aio.connect(str(eqd.socket)) as c:
            await c.queue_create("q", set={"max_active": 4})
            first = await c.submit("q", argv=["sh", "-c", "echo hello; exec sleep 1000"])
            waiting = asyncio.create_task(first.wait())
            tasks = await asyncio.gather(*(c.submit("q", b"in", argv=["sh", "-c", f"echo {i}"]) for i in range(20)))
            equal([r["state"] for r in await asyncio.gather(*tasks)], ["DONE"] * 20)
            equal((await tasks[7].output(), await tasks[7].payload()), (b"7\n", b"in"))
            equal(waiting.done(), False) # it holds up nobody
            follow = first.follow()
            equal(await follow.__anext__(), (1, b"hello\n"))
            equal((await first.running(), await first.done(), await first.cancelled()), (True, False, False))
            equal(await first.cancel(running=True), True)
            async for _ in follow:
                pass
            equal((await waiting)["state"], "CANCELED")
            equal((await first.running(), await first.done(), await first.cancelled()), (False, True, True))
            equal((type(await first.exception()), await tasks[0].exception()), (package.TaskCanceled, None))
            try:
                await first
                raise AssertionError("a canceled task has no result")
            except package.TaskCanceled:
                pass
            equal(len(await c.map("q", [{"argv": ["true"]}] * 5, label="m")), 5)
            await c.queue_flush("q")
    asyncio.run(work())


@test()
def asyncio_events_stop_when_asked_and_tell_of_the_end(eqd):
    async def work():
        async with package.aio.connect(str(eqd.socket)) as c:
            await c.queue_create("q")
            ready, seen = asyncio.Event(), []

            async def watch():
                async for event in c.events("q", ready=ready.set):
                    seen.append(event["event"])
            watching = asyncio.create_task(watch())
            await ready.wait()
            await (await c.submit("q", argv=["true"]))
            eqd.process.terminate()
            try:
                await watching
                raise AssertionError("it went on without eqd")
            except package.ConnectionLost:
                equal(seen[:3], ["task.accepted", "task.started", "task.finished"])
    asyncio.run(work())
    eqd.expect_end(STOP_SECONDS, 0)


# ---- who takes too slowly ----

N_EVENTS = 20000 # three times what sockets, eqd and a few reads hold


class Seen:
    """Events that came, and that were said to be lost."""

    def __init__(self):
        self.came = self.lost = 0

    def all(self, event):
        """Takes one in; are they all accounted for?"""
        if event["event"] == "lost":
            self.lost += event["n"]
        else:
            self.came += 1
        return self.came + self.lost == N_EVENTS

    def judge(self):
        if self.lost < N_EVENTS / 2:
            raise AssertionError(f"{self.came} events were kept for who did not take them, {self.lost} lost")


@test()
def who_takes_events_too_slowly_is_told_how_many_eqd_dropped(eqd):
    with client(eqd) as c:
        c.queue_create("w", set={"durable": "no", "executor": "worker"})
        c.subscribe() # of this connection nobody can take them
        seen = Seen()
        events = c.events("w", events=["task.accepted"], ready=lambda: c.submit_many("w", [b""] * 1000))
        seen.all(next(events))
        for _ in range(N_EVENTS // 1000 - 1):
            c.submit_many("w", [b""] * 1000)
        while not seen.all(next(events)):
            pass
        events.close()
        seen.judge()
        equal(len(c._channel.notifications), 0)


@test()
def the_same_with_asyncio_while_the_loop_does_other_things(eqd):
    async def work():
        async with package.aio.connect(str(eqd.socket)) as c:
            await c.queue_create("w", set={"durable": "no", "executor": "worker"})
            seen, ready = Seen(), asyncio.Event()
            events = c.events("w", events=["task.accepted"], ready=ready.set)
            first = asyncio.ensure_future(anext(events))
            await ready.wait()
            for _ in range(N_EVENTS // 1000):
                await c.submit_many("w", [b""] * 1000)
            seen.all(await first)
            async for event in events:
                if seen.all(event):
                    break
            await events.aclose()
            seen.judge()
    asyncio.run(work())


def much_output(eqd, c):
    """A command that says one, and once the file is written to 8 MB more."""
    fifo = eqd.dir / "work/fifo"
    os.mkfifo(fifo)
    os.chmod(fifo, 0o666)
    return fifo, c.submit("q", argv=["sh", "-c", f"echo one; read line <{fifo}; head -c 8000000 /dev/zero"])


@test()
def output_that_is_followed_too_slowly_is_not_lost_in_silence(eqd):
    async def with_asyncio(task):
        async with package.aio.connect(str(eqd.socket)) as c:
            following = c.follow(task)
            equal(await anext(following), (1, b"one\n"))
            fifo.write_text("go\n")
            await c.wait([task])
            async for _ in following:
                pass
    with client(eqd) as c:
        c.queue_create("q")
        fifo, task = much_output(eqd, c)
        following = task.follow()
        equal(next(following), (1, b"one\n"))
        fifo.write_text("go\n")
        task.wait()
        error = raises(package.OutputLost, lambda: list(following), "pieces of output were lost")
        equal(error.n > 0, True)
        fifo.unlink()
        fifo, task = much_output(eqd, c)
        raises(package.OutputLost, lambda: asyncio.run(with_asyncio(task.id)), "pieces of output were lost")


@test()
def the_examples_do_what_they_say(eqd):
    env = eqd.environment(EQD_SOCKET=str(eqd.socket), PYTHONPATH=os.environ["PYTHONPATH"])

    def run(name, *args):
        return subprocess.run([sys.executable, EXAMPLES / name, *args], env=env, capture_output=True, text=True, timeout=60,
                              check=True).stdout
    equal(run("submit.py", "e", "one", "two"), "e/1 one\ne/2 two\n")
    lines = run("events.py", "e", "echo", "three").splitlines()
    equal(sorted(lines), ["task.accepted", "task.finished", "task.started", "three"])


main()
