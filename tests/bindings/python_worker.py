# SPDX-License-Identifier: MIT
"""Workers in Python with a real eqd: handlers, @eqd.task, `python -m eqd worker`."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import msgpack

import eqd as package
import eqd.pool
from eqd.worker import Final, Retry, Worker
from eqdtest import contains, equal, main, test
import work_tasks

HERE = Path(__file__).resolve().parent


def raises(kind, work, *says):
    try:
        work()
    except kind as e:
        contains(str(e), *says)
        return e
    raise AssertionError(f"{kind.__name__} was not raised")


def with_worker(eqd, handlers, use, **options):
    """Runs use(client) while a worker serves; the worker is stopped and must end by itself."""
    async def work():
        async with package.aio.connect(str(eqd.socket)) as client:
            for queue in handlers:
                await client.queue_create(queue, set={"executor": "worker", "max_active": options.get("parallel", 1)})
            worker = Worker(handlers, path=str(eqd.socket), **options)
            running = asyncio.create_task(worker.run())
            await worker.serving.wait()
            try:
                await use(client, worker)
            finally:
                worker.stop()
                await asyncio.wait_for(running, 30)
    asyncio.run(work())


@test()
def handlers_get_payloads_and_give_results(eqd):
    async def double(run):
        equal((run.queue, run.attempt, run.label), ("w", 1, "l"))
        return run.payload * 2

    async def use(client, worker):
        records = await asyncio.gather(*[await client.submit("w", b"%d" % i, label="l") for i in range(20)])
        equal([r["result"] for r in records], [b"%d%d" % (i, i) for i in range(20)])
        [row] = await client.worker_list()
        equal((row["worker"], row["name"], row["done"], row["credit"]), (worker.number, "doubler", 20, 4))
    with_worker(eqd, {"w": double}, use, parallel=4, name="doubler")


@test()
def a_reserved_worker_comes_where_no_other_does(eqd):
    async def shout(run):
        return run.payload.upper()

    async def use(client, worker):
        await client.queue_set("w", {"rescuer": "yes"})
        equal((await (await client.submit("w", b"help")).result())["result"], b"HELP")
        equal((await client.queue_show("w"))["rescued"], 1)
        equal([row["rescue"] for row in await client.worker_list()], [True])
    with_worker(eqd, {"w": shout}, use, rescue=True)


@test()
def runs_tell_when_their_answers_are_kept(eqd):
    runs = []

    async def note(run):
        runs.append(run)
        if run.payload == b"fail":
            raise ValueError("no")

    async def use(client, worker):
        for payload in (b"", b"fail"):
            await (await client.submit("w", payload)).wait()
        equal([await asyncio.wait_for(run.confirmed, 30) for run in runs], [True, True])
        [row] = await client.worker_list()
        await client.submit("w", b"")
        while len(runs) < 3:
            await asyncio.sleep(0)
        await client.worker_kick(row["worker"])
        equal(await asyncio.wait_for(runs[2].confirmed, 30) in (True, False), True, "told in any case")
    with_worker(eqd, {"w": note}, use, confirm=True)
    equal([run.confirmed for run in runs[3:]], [run.confirmed for run in runs[3:] if run.confirmed.done()], "none is left waiting")


@test()
def exceptions_fail_the_attempt_and_final_the_task(eqd):
    attempts = []

    async def fail(run):
        attempts.append(run.attempt)
        raise Final("never") if run.payload else ValueError("not now")

    async def use(client, _):
        for payload, n, text in ((b"", 2, "ValueError: not now"), (b"x", 1, "never")):
            attempts.clear()
            record = await (await client.submit("w", payload, retries=1, backoff=0.001)).wait()
            equal((len(attempts), record["error"]), (n, text))
            contains(("FAILED", "DEAD"), record["state"])
        record = await (await client.submit("big", b"")).wait()
        contains(record["error"], "65536")
        for i, kind in enumerate(("int", "dict", "list")):
            record = await (await client.submit("odd", b"%d" % i, retries=1)).wait()
            contains(record["error"], f"returned {kind}; a result is bytes")
            equal(record["attempt"], 1)

    async def big(run):
        return bytes(package.RESULT_MAX + 1)

    async def odd(run):
        return (5, {"attempt": 7}, [1])[int(run.payload)]
    with_worker(eqd, {"w": fail, "big": big, "odd": odd}, use)


@test()
def a_handler_says_when_the_next_attempt_comes(eqd):
    async def fail(run):
        if run.attempt == 1:
            raise Retry("not yet", after=json.loads(run.payload)[0], counted=json.loads(run.payload)[1])
        return str(run.attempt)

    async def use(client, _):
        for given, retries in (([0, True], 1), ([0, False], 0)):
            record = await (await client.submit("w", json.dumps(given), retries=retries, backoff="1h")).wait()
            equal((record["state"], record["result"]), ("DONE", b"2"))
        go.clear()
        task = await client.submit("w", json.dumps(["1h", True]), retries=1, backoff=0)
        async for event in client.events("w", events=["task.retry"], ready=go.set):
            break
        record = await task.show()
        equal((record["state"], record["reason"]), ("WAITING", "backoff"))
        equal(record["eligible_usec"] >= record["started_usec"] + 3600 * 10**6, True)
        await task.cancel()
    go = asyncio.Event()

    async def late(run):
        await go.wait()
        return await fail(run)
    go.set()
    with_worker(eqd, {"w": late}, use)


@test()
def a_canceled_task_cancels_its_handler(eqd):
    async def use(client, _):
        task = await client.submit("w", b"")
        await begun.wait()
        [touched] = [e async for e in first(client)]
        equal((touched["event"], (await task.show())["note"]), ("task.progress", "half"))
        equal(await task.cancel(running=True), True)
        equal((await task.wait())["state"], "CANCELED")
        equal(ended, ["canceled"])

    async def first(client):
        async for event in client.events("w", events=["task.progress"], ready=go.set):
            yield event
            return
    begun, go, ended = asyncio.Event(), asyncio.Event(), []

    async def slow(run):
        begun.set()
        await go.wait()
        await run.touch(50, "half")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(run.cancel_reason)
            raise
    with_worker(eqd, {"w": slow}, use)


@test()
def a_stopped_worker_gives_back_what_it_has_not_begun(eqd):
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(run):
        begun.set()
        await go.wait()
        return run.payload

    async def work():
        async with package.aio.connect(str(eqd.socket)) as client:
            await client.queue_create("w", set={"executor": "worker", "max_active": 3})
            worker = Worker({"w": slow}, parallel=1, credit=3, path=str(eqd.socket))
            running = asyncio.create_task(worker.run())
            await worker.serving.wait()
            tasks = [await client.submit("w", b"%d" % i) for i in range(3)]
            await begun.wait()
            while len(worker._runs) < 3: # all are here; a round trip each
                await client.ping()
            worker.stop()
            go.set()
            await running
            equal((await tasks[0])["result"], b"0")
            for task in tasks[1:]:
                record = await task.show()
                equal((record["state"], record.get("crashes", 0)), ("QUEUED", 0))
            await client.queue_rm("w", yes=True)
    asyncio.run(work())


@contextlib.contextmanager
def working(eqd, *args, module="work_tasks"):
    """(worker, client) while `python -m eqd worker` serves the queue sums, two tasks at once."""
    env = eqd.environment(EQD_SOCKET=str(eqd.socket), PYTHONPATH=os.environ["PYTHONPATH"] + f":{HERE}")
    worker = subprocess.Popen([sys.executable, "-m", "eqd", "worker", module, "--create", "-j", "2", *args], env=env,
                              cwd=eqd.dir, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with worker, package.connect(str(eqd.socket)) as client:
        package.use_client(client)
        client.queue_create("sums", set={"executor": "worker", "max_active": 2}, exist_ok=True)
        try:
            yield worker, client
        finally:
            package.use_client(None)
            worker.kill()


@test()
def asyncio_submits_calls_and_awaits_what_they_return(eqd):
    async def with_eqd():
        async with package.aio.connect(str(eqd.socket)) as c:
            package.use_client(c)
            tasks = await asyncio.gather(*(work_tasks.add.adelay(n, b=4) for n in range(50)))
            equal([(await task)["sum"] for task in tasks], [n + 4 for n in range(50)])
            package.use_client(None)
            other = await work_tasks.later.aenqueue(("x",), client=c, label="mine")
            equal((await other.result(timeout=60), (await other.show())["label"]), ("x", "mine"))
            failed = await (await work_tasks.fail.aenqueue(client=c)).exception(timeout=60)
            contains(str(failed), "ValueError: no such luck")
            try:
                await work_tasks.add.adelay()
                raise AssertionError("a call without its argument was submitted")
            except TypeError:
                pass
    with working(eqd, "--threads") as (worker, _):
        asyncio.run(with_eqd())
        drain(worker)


@test(eqd=False)
def the_loop_goes_on_while_a_call_is_submitted(place):
    """eqd is played by the same loop, which answers when both calls have come; each loop has a connection of its own."""
    path, connections = str(place.dir / "eqd.sock"), []

    async def serve(reader, writer):
        unpacker, asked = msgpack.Unpacker(), []
        connections.append(writer)
        while len(asked) < 2:
            unpacker.feed(await reader.read(65536))
            asked += [message[1] for message in unpacker]
        for msgid in asked:
            writer.write(msgpack.packb([1, msgid, None, [1, msgid + 1]]))

    async def work():
        async with await asyncio.start_unix_server(serve, path):
            tasks = await asyncio.gather(work_tasks.add.adelay(1), work_tasks.add.adelay(2))
            equal([str(task) for task in tasks], ["sums/1", "sums/2"])
            await package.tasks.default_async_client().close()
    with mock.patch.dict(os.environ, EQD_SOCKET=path):
        for n in (1, 2):
            asyncio.run(work())
            os.path.exists(path) and os.unlink(path)
            equal((len(connections), len(package.tasks._async_clients)), (n, 1))


def begin_held(eqd, name, **options):
    """A call that has begun, and the path that lets it end."""
    fifo = str(eqd.dir / "work" / name)
    os.mkfifo(fifo)
    os.mkfifo(fifo + ".begun")
    held = work_tasks.hold.enqueue((fifo,), **options)
    with open(fifo + ".begun") as f:
        f.read()
    return held, fifo


def let_go(fifo, text):
    with open(fifo, "w") as f:
        f.write(text)


def serves_tasks(eqd, *args):
    with working(eqd, *args) as (worker, client):
        value = work_tasks.add.delay(3, b=4).result(timeout=60)
        equal((value["sum"], value["pid"] == worker.pid), (7, "--threads" in args))
        equal(work_tasks.later.delay({"a": [b"x", None]}).result(timeout=60), {"a": [b"x", None]})
        for counted, retries in ((True, 1), (False, 0)):
            task = work_tasks.again.enqueue((counted,), retries=retries)
            equal((task.result(timeout=60), task.show()["note"]), ([2, "sums", "work_tasks:again"], "at 2"))
        hopeless = work_tasks.never.delay().exception(timeout=60)
        equal((hopeless.record["error"], hopeless.record["attempt"]), ("hopeless", 1))
        raises(package.TaskFailed, lambda: work_tasks.fail.delay().result(timeout=60), "ValueError: no such luck")
        raises(package.TaskFailed, lambda: work_tasks.leave.delay().result(timeout=60), "SystemExit: 3")
        raises(TypeError, work_tasks.add.delay)
        raises(package.TaskFailed, lambda: client.submit("sums", b"\xc1").result(timeout=60), "no call of a task")
        if "--threads" not in args:
            raises(package.TaskFailed, lambda: work_tasks.die.delay().result(timeout=60), "died")
            equal(work_tasks.add.delay(1).result(timeout=60)["sum"], 2)
        held = [begin_held(eqd, name) for name in ("fifo1", "fifo2")]
        later = work_tasks.add.delay(1)
        worker.send_signal(signal.SIGTERM)
        for _, fifo in held:
            let_go(fifo, "drained")
        equal([task.result(timeout=60) for task, _ in held], ["drained"] * 2)
        equal((worker.wait(60), worker.stderr.read()), (0, ""))
        record = later.show()
        equal((record["state"], record.get("crashes", 0)), ("QUEUED", 0))


@test()
def a_worker_of_processes_serves_and_drains(eqd):
    serves_tasks(eqd)


@test()
def a_worker_of_threads_serves_and_drains(eqd):
    serves_tasks(eqd, "--threads")


def goes_on_under_its_lease(eqd, *args):
    """Python cannot stop a function: an answer before it ends would have eqd begin the next task of a serial queue beside it."""
    with working(eqd, *args) as (worker, _):
        held, fifo = begin_held(eqd, "fifo", grace=3600) # the next call needs another process, which may be long in starting
        equal(held.cancel(running=True), True)
        equal(work_tasks.add.delay(1).result(timeout=60)["sum"], 2) # so that the worker has heard of it
        equal((held.running(), held.done()), (True, False))
        let_go(fifo, "nevertheless")
        equal(held.result(timeout=60), "nevertheless")
        drain(worker)


@test()
def a_canceled_call_of_a_process_goes_on_under_its_lease(eqd):
    goes_on_under_its_lease(eqd)


@test()
def a_canceled_call_of_a_thread_goes_on_under_its_lease(eqd):
    goes_on_under_its_lease(eqd, "--threads")


@test()
def a_process_that_dies_takes_no_other_call_along(eqd):
    with working(eqd) as (worker, _):
        held, fifo = begin_held(eqd, "fifo")
        raises(package.TaskFailed, lambda: work_tasks.die.delay().result(timeout=60), "died: signal 9")
        let_go(fifo, "unharmed")
        equal((held.result(timeout=60), held.show()["attempt"]), ("unharmed", 1))
        drain(worker)


@test()
def a_process_that_outlasts_its_grace_is_killed(eqd):
    """Its place in the pool is free again; the call beside it goes on."""
    with working(eqd) as (worker, client):
        held, fifo = begin_held(eqd, "fifo")
        [pid] = where_the_work_is(worker, threads=False)
        stuck = os.pidfd_open(pid)
        beside, other = begin_held(eqd, "other")
        equal(client.cancel([held], running=True, grace=0.2), [1])
        select.select([stuck], [], [])
        os.close(stuck)
        equal(held.wait(timeout=60)["state"], "CANCELED")
        equal(work_tasks.add.delay(1).result(timeout=60)["sum"], 2)
        let_go(other, "unharmed")
        equal(beside.result(timeout=60), "unharmed")
        drain(worker) # which waits for all answers


@test()
def a_call_ends_with_its_lease_when_the_connection_is_lost(eqd):
    with working(eqd) as (worker, client):
        held, fifo = begin_held(eqd, "fifo")
        processes = [os.pidfd_open(pid) for pid in where_the_work_is(worker, threads=False)]
        client.worker_kick(client.worker_list()[0]["worker"])
        with open(fifo + ".begun") as f: # the worker serves again, and has it again
            f.read()
        for process in processes:
            select.select([process], [], [])
            os.close(process)
        let_go(fifo, "again")
        equal((held.result(timeout=60), held.show()["attempt"]), ("again", 2))
        drain(worker)


@test()
def what_a_function_does_to_its_process_costs_no_place(eqd):
    with working(eqd) as (worker, _):
        def call(function, *args):
            return function.delay(*args).result(timeout=60)
        for _ in range(4): # a second answer would be that of the next one
            equal((call(work_tasks.fork), call(work_tasks.add, 1)["sum"]), ("parent", 2))
        raises(package.TaskFailed, lambda: call(work_tasks.mute), "Mute: it has no text: ZeroDivisionError")
        fifo = str(eqd.dir / "work/fifo")
        os.mkfifo(fifo)
        for _ in range(2): # there are two places
            raises(package.TaskFailed, lambda: call(work_tasks.abandon, fifo), "died: signal 9")
            raises(package.TaskFailed, lambda: call(work_tasks.shut, fifo), "died: signal 9")
        let_go(fifo, "")
        equal(call(work_tasks.add, 2)["sum"], 3)
        drain(worker)


@test()
def a_sign_of_life_is_that_of_its_call(eqd):
    with working(eqd) as (worker, _):
        tasks = [work_tasks.touch.delay(*args) for args in ((True, "first"), (2.5, "a\nb"), (None, None))]
        equal(len({task.result(timeout=60) for task in tasks}) < 3, True) # in one process, two of them at least
        again = work_tasks.touch.delay(100, None)
        again.result(timeout=60)
        equal([(row.get("progress"), row.get("note")) for row in (task.show() for task in [*tasks, again])],
              [(1, "first"), (2, "a b"), (None, None), (100, None)])
        for progress in (101, -1):
            raises(package.TaskFailed, lambda p=progress: work_tasks.touch.delay(p, None).result(timeout=60), "0 to 100")
        drain(worker)


@test()
def processes_end_with_the_first_one_however_that_does(eqd):
    with working(eqd) as (worker, _):
        begin_held(eqd, "fifo")
        processes = [os.pidfd_open(pid) for pid in where_the_work_is(worker, threads=False)]
        worker.kill()
        for process in processes:
            select.select([process], [], [])
            os.close(process)


@test()
def a_call_that_has_not_begun_is_begun_elsewhere(eqd):
    """A process that has died meanwhile, and one that cannot load its module."""
    module = eqd.dir / "work" / "fickle.py"
    good = 'import os\nimport eqd\n@eqd.task(queue="sums", retries=0)\ndef pid():\n    return os.getpid()\n'
    module.write_text(good)
    with mock.patch.object(sys, "path", [*sys.path, str(module.parent)]):
        import fickle
    env = {"PYTHONPATH": os.environ["PYTHONPATH"] + f":{module.parent}"}
    with mock.patch.dict(os.environ, env), working(eqd, module="fickle") as (worker, _):
        pid = fickle.pid.delay().result(timeout=60)
        idle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([idle], [], [])
        task = fickle.pid.delay()
        equal((task.result(timeout=60) != pid, task.show()["attempt"]), (True, 1))
        module.write_text("raise ImportError('while it is being installed')\n")
        pid = task.result()
        os.close(idle)
        idle = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        select.select([idle], [], [])
        os.close(idle)
        task = fickle.pid.delay()
        read_until(worker.stderr, "while it is being installed")
        module.write_text(good)
        equal(isinstance(task.result(timeout=60), int), True)
        equal(task.show()["attempt"], 2)
        drain(worker)


@test(eqd=False)
def a_call_that_is_to_end_before_it_has_a_process_does_not_begin(place):
    asked = []

    class Slow: # in starting
        def __init__(self, module):
            pool.on_change("lost")

        def call(self, run, touch):
            asked.append(run)
            return True, b""
    pool = package.pool.Pool("work_tasks", 1, threads=False)
    run = package.worker.Run(package.TaskId(1, 1), "sums", 1, b"")
    with mock.patch.object(package.pool, "Process", Slow):
        raises(package.worker.Ended, lambda: asyncio.run(pool(run)), "before it began")
    pool.executor.shutdown()
    equal(asked, [])


def children_of(pid):
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError): # it has just ended
            found += map(int, (thread / "children").read_text().split())
    return found


def where_the_work_is(worker, threads):
    """Its own processes, without the helper of multiprocessing."""
    if threads:
        return [worker.pid]
    return [pid for pid in children_of(worker.pid) if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def read_until(stream, *parts):
    """Lines until all of these have been there; the alarm of the frame ends it."""
    said = ""
    while any(part not in said for part in parts):
        line = stream.readline()
        equal(line != "", True, f"it ended and said {said!r}")
        said += line
    return said


def drain(worker):
    worker.send_signal(signal.SIGTERM)
    worker.stderr.read()
    equal(worker.wait(60), 0)


def prints_stacks(eqd, *args):
    """Both calls go on as soon as a line of one is there, while the rest is still being printed."""
    with working(eqd, *args) as (worker, _):
        for n in range(5):
            held = [begin_held(eqd, f"fifo{n}{name}") for name in "ab"]
            # Always the same process: two would write into one pipe, letter by letter.
            os.kill(min(where_the_work_is(worker, "--threads" in args)), signal.SIGTTIN)
            contains(read_until(worker.stderr, " in hold\n"), "work_tasks.py")
            for _, fifo in held:
                let_go(fifo, "goes on")
            equal([task.result(timeout=60) for task, _ in held], ["goes on"] * 2)
        drain(worker)


@test()
def the_stacks_of_processes_are_printed_on_demand(eqd):
    """SIGTTIN shows where each thread is, and changes nothing: its default would be to stop the process."""
    prints_stacks(eqd)


@test()
def the_stacks_of_threads_are_printed_on_demand(eqd):
    """The process died in about half of the cases: faulthandler read the stack of a thread that had gone on."""
    prints_stacks(eqd, "--threads")


@test()
def all_threads_are_in_the_stacks_with_their_names(eqd):
    with working(eqd, "--threads") as (worker, _):
        equal(work_tasks.add.delay(1).result(timeout=60)["sum"], 2) # now it serves, and has a thread
        worker.send_signal(signal.SIGTTIN)
        contains(read_until(worker.stderr, "run_forever", "in _worker"), "Stack (most recent call first):",
                 "Thread ThreadPoolExecutor-")
        drain(worker)


@test(eqd=False)
def inline_runs_at_once_and_without_an_eqd(place):
    with package.testing.inline():
        task = work_tasks.add.delay(1, 2)
        equal((task.result()["sum"], task.wait()["state"], str(task)), (3, "DONE", "sums/1"))
        equal(work_tasks.later.delay((1, 2)).result(), [1, 2]) # what MessagePack makes of it
        equal(package.current_run(), None)
        equal(task.payload(), msgpack.packb([work_tasks.add.name, [1, 2], {}]))
        raises(package.TaskFailed, work_tasks.fail.delay().result, "sums/3: FAILED", "no such luck")
        raises(TypeError, lambda: work_tasks.later.delay(object()))
        equal((task.done(), task.running(), task.cancelled(), task.cancel(), task.output(), list(task.follow()), task.why()["state"]),
              (True, False, False, False, b"", [], "DONE"))
        equal((task.exception(), type(work_tasks.leave.delay().exception())), (None, package.TaskFailed))

        async def work():
            task = await work_tasks.later.adelay((1, 2))
            equal((await task, (await task.wait())["state"], str(task)), ([1, 2], "DONE", "sums/5"))
            equal(msgpack.unpackb(await task.payload())[1:], [[[1, 2]], {}])
            equal((await task.done(), await task.running(), await task.cancelled(), await task.cancel(), await task.output(),
                   [chunk async for chunk in task.follow()], (await task.why())["state"]),
                  (True, False, False, False, b"", [], "DONE"))
            equal(type(await (await work_tasks.fail.adelay()).exception()), package.TaskFailed)
        asyncio.run(work())
    equal(work_tasks.add(2)["sum"], 3)


@test(eqd=False)
def without_an_eqd_a_worker_says_where_it_looked(place):
    nowhere = str(place.dir / "nowhere")
    command = [sys.executable, "-m", "eqd", "worker", "work_tasks", "-S", nowhere]
    env = place.environment(PYTHONPATH=os.environ["PYTHONPATH"] + f":{HERE}")
    r = subprocess.run([*command, "--create"], env=env, capture_output=True, text=True, timeout=60, check=False)
    equal(r.returncode, 1)
    contains(r.stderr, nowhere, "systemctl start eqd", "EQD_SOCKET")
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as worker: # waits for it
        contains(read_until(worker.stderr, "trying again"), nowhere)
        drain(worker)


@test(eqd=False)
def a_wrong_command_line_says_so(place):
    def run(*args):
        r = subprocess.run([sys.executable, "-m", "eqd", *args], env=place.environment(PYTHONPATH=os.environ["PYTHONPATH"]),
                           capture_output=True, text=True, timeout=60, check=False)
        return r.returncode, r.stderr
    for args, status, say in (((), 2, "usage"), (("worker",), 2, "module"), (("worker", "no_such_module"), 1, "no_such_module"),
                              (("worker", "json"), 1, "marks no function"), (("worker", "json", "-j", "0"), 2, "at least 1")):
        got, text = run(*args)
        equal(got, status, text)
        contains(text, say)


main()
