# SPDX-License-Identifier: MIT
"""Serving queues: eqd sends tasks, handlers run them, what they return is the result.

    async def mail(run: eqd.worker.Run) -> bytes:
        await run.touch(progress=50, note="half of it")
        return b"sent"

    await eqd.worker.Worker({"mail": mail}, parallel=4).run()

A handler gets a Run and returns bytes, text or None. Exceptions fail the attempt; Final fails the task without a retry, Retry says
when the next attempt comes. When the
task is canceled or out of time, the handler is canceled as any asyncio task. When the connection ends, eqd gives what was not
answered to somebody else; the handlers at work are canceled, and the worker connects again. stop() takes no more tasks, gives
back those that have not begun, lets the others end.

A completion may be lost with eqd if it is not on the disk yet. With confirm=True each run has a future `confirmed`: True once what
its answer ended is kept, of a durable queue also over a crash; False if the connection ended before, or the answer was refused.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Awaitable, Callable, Dict, Mapping, Optional, Sequence, Tuple, Union

from . import _api
from .aio import Channel
from .core import Notification, Request, default_path
from .errors import ConnectionLost
from .reconnect import Reconnect, Tries
from .shared import DEFAULT_TIMEOUT
from .values import Duration, TaskId, duration_usec

TEXT_MAX = 256
USEC_MAX = 2**64 - 1  # what the wire can say: never
RECONNECT = Reconnect(first=0.1, max=5.0, give_up=None)


class Final(Exception):
    """Raised by a handler: no retry would help."""


class Retry(Exception):
    """Raised by a handler: not now. after: when to try again, in place of the back-off; None: as that says. The attempt fails, so it
    takes retries; with counted=False it is given back instead, as often as it likes, and the task has not failed."""

    def __init__(self, text: str = "", *, after: Optional[Duration] = None, counted: bool = True) -> None:
        super().__init__(text)
        self.after_usec = None if after is None else min(duration_usec(after), USEC_MAX)
        self.counted = counted


class Ended(Exception):
    """Raised by a handler that knows the answer of an attempt that did not go well: a RunAnswer, see eqd-protocol(7)."""

    def __init__(self, answer: Dict[str, Any]) -> None:
        super().__init__(answer.get("text", ""))
        self.answer = answer


@dataclass(eq=False)
class Run:
    """A task that this worker was handed."""

    id: TaskId
    queue: str
    attempt: int  # the fencing token: no two leases of a task have the same
    payload: bytes
    label: Optional[str] = None
    uid: Optional[int] = None  # who submitted it, where that is not the worker's own user
    timeout_usec: Optional[int] = None
    mime: Optional[str] = None  # type of the payload, as who submitted it says
    cancel_reason: Optional[str] = None  # canceled or timeout, once eqd has said so
    grace: Optional[float] = None  # seconds that it had then
    confirmed: Optional["asyncio.Future[bool]"] = None  # of a worker with confirm=True
    _msgid: int = field(default=0, repr=False)
    _channel: Optional[Channel] = field(default=None, repr=False)
    _task: Optional["asyncio.Task[Any]"] = field(default=None, repr=False)

    def touch_soon(self, progress: Optional[int] = None, note: Optional[str] = None) -> None:
        """A sign of life: percent done, and what it is at. It is not waited for that it leaves."""
        self.touch_given(touch_given(progress, note))

    def touch_given(self, given: Dict[str, Any]) -> None:
        """The same, with the options of worker_touch."""
        if self._channel and not self._channel.lost:
            self._channel.notify("worker_touch", [list(self.id), self.attempt, given])

    async def touch(self, progress: Optional[int] = None, note: Optional[str] = None) -> None:
        """The same, waiting while eqd takes none. No answer is waited for."""
        self.touch_soon(progress, note)
        if self._channel and not self._channel.lost:
            await self._channel.writer.drain()


Result = Union[bytes, str, None]
Handler = Callable[[Run], Awaitable[Result]]


def plain_text(text: str) -> str:
    """Text as eqd takes it with an error: no control characters, at most 256 bytes of UTF-8."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean.encode("utf-8", "replace")[:TEXT_MAX].decode("utf-8", "ignore")


def touch_given(progress: Optional[int], note: Optional[str]) -> Dict[str, Any]:
    """The options of worker_touch. Said here what is wrong with them: eqd does not answer to notifications."""
    given: Dict[str, Any] = {}
    if progress is not None:
        given["progress"] = int(progress)
        if not 0 <= given["progress"] <= 100:
            raise ValueError(f"progress is percent done, 0 to 100, not {progress}")
    if note is not None:
        given["note"] = plain_text(note)
    return given


def answer_of(error: BaseException) -> Dict[str, Any]:
    """What a function or handler raised, as a RunAnswer."""
    if isinstance(error, Ended):
        return error.answer
    if not isinstance(error, (Final, Retry)):
        try:
            said = str(error)
        except Exception as e:
            said = f"it has no text: {type(e).__name__}"
        return {"text": plain_text(f"{type(error).__name__}: {said}")}
    answer: Dict[str, Any] = {"text": plain_text(str(error))}
    if isinstance(error, Final):
        return {**answer, "final": True}
    if not error.counted:
        return {**answer, "give_back": True, "retry_after_usec": error.after_usec or 0}
    return answer if error.after_usec is None else {**answer, "retry_after_usec": error.after_usec}


def run_of(params: Sequence[Any], channel: Channel) -> Run:
    """The parameters of a request `run`: [id, queue, attempt, payload, {options}]."""
    task, queue, attempt, payload = params[:4]
    options = params[4] if len(params) > 4 else {}
    return Run(TaskId(*task), queue, attempt, payload, options.get("label"), options.get("uid"), options.get("timeout_usec"),
               options.get("mime"), _channel=channel)


class Worker:
    """Serves queues by handlers. parallel: handlers at work at once; credit: tasks that eqd may send ahead, default parallel.
    rescue: a reserve, which gets tasks of queues with a rescuer while their other workers are stuck. confirm: see Run.confirmed."""

    def __init__(self, handlers: Mapping[str, Handler], parallel: int = 1, credit: Optional[int] = None,
                 name: Optional[str] = None, path: Optional[str] = None, rescue: bool = False,
                 confirm: bool = False) -> None:
        self.rescue, self.confirm = rescue, confirm
        self.handlers, self.parallel, self.credit, self.name = dict(handlers), parallel, credit or parallel, name
        self.path = default_path(path)
        self.number: Optional[int] = None  # as in `eqctl worker ls`, once it serves
        self.serving = asyncio.Event()
        self._stopping = asyncio.Event()
        self._slots = asyncio.Semaphore(parallel)
        self._runs: Dict[Tuple[TaskId, int], Run] = {}
        self._unconfirmed: Dict[Tuple[TaskId, int], Run] = {}

    def stop(self) -> None:
        """Takes no more tasks, and lets run() return when those that have begun have ended. From the loop's thread."""
        self._stopping.set()

    async def run(self, reconnect: Union[bool, Reconnect] = True) -> None:
        """Serves until stop(). Errors of eqd to `worker_serve` are raised. reconnect: the policy; True: for ever; False:
        ConnectionLost is raised as well."""
        policy = RECONNECT if reconnect is True else reconnect
        tries: Optional[Tries] = None
        while not self._stopping.is_set():
            try:
                await self._serve_once(policy if policy and tries else None)
                return
            except (ConnectionLost, OSError, _api.StoppingError):
                if not policy:
                    raise
                if self.serving.is_set() or not tries:
                    policy.changed("lost")
                    tries = Tries(policy)
                self.serving.clear()
                seconds = tries.next()
                if seconds is None:
                    raise
                await self._pause(seconds)

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except asyncio.TimeoutError:
            pass

    async def _serve_once(self, again: Optional[Reconnect]) -> None:
        channel = await Channel.open(self.path)
        try:
            channel.handlers["run"] = lambda request: self._answer(request, channel)
            channel.on_notification = self._on_notification
            options: Dict[str, Any] = {"credit": self.credit, "parallel": self.parallel}
            if self.name:
                options["name"] = self.name
            if self.rescue:
                options["rescue"] = True
            if self.confirm:
                options["confirm"] = True
            reply = await channel.exchange("worker_serve", [list(self.handlers), options], DEFAULT_TIMEOUT)
            self.number = reply["worker"]
            self.serving.set()
            if again:
                again.changed("back")
            stopping = asyncio.ensure_future(self._stopping.wait())
            await asyncio.wait([stopping, channel.ended], return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if channel.lost:
                raise channel.lost
            await channel.exchange("worker_leave", [], None)
        finally:
            await channel.close()
            for key in list(self._unconfirmed):
                self._confirm(key, False)

    async def _answer(self, request: Request, channel: Channel) -> Tuple[Any, Any]:
        run = run_of(request.params, channel)
        run._task = asyncio.current_task()
        self._runs[run.id, run.attempt] = run
        if self.confirm:
            run.confirmed, run._msgid = asyncio.get_running_loop().create_future(), request.msgid
            self._unconfirmed[run.id, run.attempt] = run
        try:
            async with self._slots:
                if self._stopping.is_set():
                    return {"give_back": True}, None
                return None, self._checked(await self.handlers[run.queue](run))
        except asyncio.CancelledError:
            if channel.lost:
                raise
            return {"text": run.cancel_reason or "canceled by its worker"}, None
        except Exception as e:
            return answer_of(e), None
        finally:
            del self._runs[run.id, run.attempt]

    @staticmethod
    def _checked(result: Result) -> Optional[bytes]:
        data = result.encode() if isinstance(result, str) else result
        if data is not None and not isinstance(data, (bytes, bytearray, memoryview)):
            raise Final(f"its handler returned {type(result).__name__}; a result is bytes, text or None")
        if data is not None and len(data) > _api.RESULT_MAX:
            raise Final(f"a result of {len(data)} bytes; eqd takes {_api.RESULT_MAX}")
        return data

    def _confirm(self, key: Tuple[TaskId, int], kept: bool) -> None:
        run = self._unconfirmed.pop(key, None)
        if run and run.confirmed and not run.confirmed.done():
            run.confirmed.set_result(kept)

    def _on_notification(self, note: Notification) -> None:
        if note.method == "run_confirmed":
            for task, attempt in note.params[0]:
                self._confirm((TaskId(*task), attempt), True)
        if note.method == "run_refused":
            for key in [key for key, run in self._unconfirmed.items() if run._msgid == note.params[0]]:
                self._confirm(key, False)
        if note.method == "run_cancel":
            task, attempt, reason, grace = note.params[:4]
            run = self._runs.get((TaskId(*task), attempt))
            if run and run._task:
                run.cancel_reason, run.grace = reason, grace / 1_000_000
                run._task.cancel()
