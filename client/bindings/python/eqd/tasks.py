# SPDX-License-Identifier: MIT
"""Functions that run in workers.

    @eqd.task(queue="mail", retries=3, timeout="30s")
    def send(to: str, subject: str) -> int: ...

    send.delay("a@b", subject="hello").result(timeout=60)
    await (await send.adelay("a@b", subject="hello"))  # with asyncio: the loop goes on meanwhile

Inside of one `eqd.current_run()` tells id and attempt, and has touch() for signs of life and progress. Exceptions fail the attempt;
`raise eqd.Final(text)`: no retry would help; `raise eqd.Retry(text, after="30s")`: when to try again.

`python -m eqd worker MODULE` runs them. Arguments and results are MessagePack: None, numbers, text, bytes, lists and dicts; no
code and no pickles travel. Called directly, such a function is what it was.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, AsyncIterator, Callable, Dict, Generic, Iterator, List, Mapping, Optional, ParamSpec, Tuple, TypeVar, \
    Union, cast

import msgpack

from . import shared
from .aio import AsyncClient, AsyncTask
from .client import Client, Task, connect
from .values import TaskId
from .worker import Final, answer_of, touch_given

P = ParamSpec("P")
R = TypeVar("R")

registry: Dict[str, "TaskFunction[Any, Any]"] = {}
_lock = threading.Lock()
_client: Optional[Client] = None
_async_client: Optional[AsyncClient] = None  # as given to use_client()
_async_clients: Dict[asyncio.AbstractEventLoop, AsyncClient] = {}
inline_ids: Optional[List[int]] = None  # the mode of eqd.testing.inline(), with the SEQs it has given


def default_client() -> Client:
    """The connection of this process that delay() uses; made at the first use."""
    global _client
    with _lock:
        if _client is None:
            _client = connect()
        return _client


def default_async_client() -> AsyncClient:
    """The connection that adelay() uses; if none was given, one of the running event loop, made at the first use."""
    loop = asyncio.get_running_loop()
    with _lock:
        if _async_client:
            return _async_client
        for old in [each for each in _async_clients if each.is_closed()]:
            del _async_clients[old]
        return _async_clients.setdefault(loop, AsyncClient())


def use_client(client: Union[Client, AsyncClient, None]) -> None:
    """Lets delay() use this connection from now on, adelay() an AsyncClient. None: both use one of their own."""
    global _client, _async_client
    with _lock:
        if not isinstance(client, AsyncClient):
            _client = client
        if not isinstance(client, Client):
            _async_client = client


def module_name(function: Callable[..., Any]) -> str:
    """The module of a function as a worker will import it, also where it is the program itself."""
    name = function.__module__
    if name != "__main__":
        return name
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return str(spec.name) if spec else Path(getattr(main, "__file__", "main")).stem


def decode_result(record: Mapping[str, Any]) -> Any:
    """What the function returned, out of the record of its task."""
    return msgpack.unpackb(record["result"], raw=False, strict_map_key=False)


class TaskFunction(Generic[P, R]):
    """A function that can be run by a worker."""

    def __init__(self, function: Callable[P, R], queue: str, options: Mapping[str, Any]) -> None:
        self.function, self.queue, self.options = function, queue, dict(options)
        self.name = f"{module_name(function)}:{function.__qualname__}"
        self.__doc__, self.__name__, self.__wrapped__ = function.__doc__, function.__name__, function
        registry[self.name] = self

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> "Task[R]":
        """Submits a call. The arguments are checked here, not in the worker."""
        return self.enqueue(args, kwargs)

    def enqueue(self, args: Tuple[Any, ...] = (), kwargs: Optional[Mapping[str, Any]] = None, client: Optional[Client] = None,
                **options: Any) -> "Task[R]":
        """The same with options of `submit` for this call, or another connection."""
        payload = self._packed(args, kwargs)
        if inline_ids is not None:
            return InlineTask(self.queue, payload)
        client = client or default_client()
        task = client.submit(self.queue, payload, **self._given(options))
        return Task(client, task.id, task.queue, decode_result)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> "AsyncTask[R]":
        """delay() for asyncio: the event loop goes on until eqd has answered. The result: `await (await f.adelay(...))`."""
        return await self.aenqueue(args, kwargs)

    async def aenqueue(self, args: Tuple[Any, ...] = (), kwargs: Optional[Mapping[str, Any]] = None,
                       client: Optional[AsyncClient] = None, **options: Any) -> "AsyncTask[R]":
        """The same with options of `submit` for this call, or another connection."""
        payload = self._packed(args, kwargs)
        if inline_ids is not None:
            return AsyncInlineTask(await asyncio.to_thread(InlineTask[R], self.queue, payload))
        client = client or default_async_client()
        task = await client.submit(self.queue, payload, **self._given(options))
        return AsyncTask(client, task.id, task.queue, decode_result)

    def _packed(self, args: Tuple[Any, ...], kwargs: Optional[Mapping[str, Any]]) -> bytes:
        inspect.signature(self.function).bind(*args, **(kwargs or {}))
        return cast(bytes, msgpack.packb([self.name, list(args), dict(kwargs or {})], use_bin_type=True))

    def _given(self, options: Mapping[str, Any]) -> Dict[str, Any]:
        return {"label": self.name, **self.options, **options}


class InlineTask(Task[R]):
    """A call that was run at once, by eqd.testing.inline()."""

    def __init__(self, queue: str, payload: bytes) -> None:
        assert inline_ids is not None
        inline_ids.append(len(inline_ids) + 1)
        super().__init__(cast(Client, None), TaskId(0, inline_ids[-1]), queue, decode_result)
        self._payload = payload
        good, value = execute(payload, CurrentRun(self.id, queue, 1, None, lambda given: None))
        self._record: Dict[str, Any] = {"id": self.id, "queue": queue, "attempt": 1, "state": "DONE" if good else "FAILED"}
        self._record["result" if good else "error"] = value if good else value["text"]

    def wait(self, timeout: Any = None) -> Any:
        return self._record

    def show(self) -> Any:
        return self._record

    def payload(self) -> bytes:
        return self._payload

    def why(self) -> Any:
        return {name: self._record[name] for name in ("id", "queue", "state")}

    def cancel(self, running: bool = False) -> bool:
        return False

    def output(self, streams: int = shared.STDOUT, attempt: Optional[int] = None) -> bytes:
        return b""

    def follow(self, streams: int = 3) -> Iterator[Tuple[int, bytes]]:
        return iter(())


class AsyncInlineTask(AsyncTask[R]):
    """The same for asyncio. It was run in a thread, where functions that are coroutines have a loop of their own."""

    def __init__(self, done: InlineTask[R]) -> None:
        super().__init__(cast(AsyncClient, None), done.id, done.queue, decode_result)
        self._inline = done

    async def wait(self, timeout: Any = None) -> Any:
        return self._inline.wait()

    async def show(self) -> Any:
        return self._inline.show()

    async def payload(self) -> bytes:
        return self._inline.payload()

    async def why(self) -> Any:
        return self._inline.why()

    async def cancel(self, running: bool = False) -> bool:
        return False

    async def output(self, streams: int = shared.STDOUT, attempt: Optional[int] = None) -> bytes:
        return b""

    async def follow(self, streams: int = 3) -> AsyncIterator[Tuple[int, bytes]]:
        for chunk in self._inline.follow(streams):
            yield chunk


def task(queue: str, **options: Any) -> Callable[[Callable[P, R]], TaskFunction[P, R]]:
    """Makes a function one that workers run. options: of `submit`, such as retries and timeout, for every call."""
    def mark(function: Callable[P, R]) -> TaskFunction[P, R]:
        return TaskFunction(function, queue, options)
    return mark


@dataclass(frozen=True)
class CurrentRun:
    """The task that the function was called for."""

    id: TaskId
    queue: str
    attempt: int  # from 1; the fencing token: no two leases of a task have the same
    label: Optional[str]
    _touch: Callable[[Dict[str, Any]], None] = field(repr=False)

    def touch(self, progress: Optional[int] = None, note: Optional[str] = None) -> None:
        """A sign of life: percent done, and what it is at. Nothing is waited for. Once the function has ended it does nothing."""
        self._touch(touch_given(progress, note))


_current: ContextVar[Optional[CurrentRun]] = ContextVar("eqd_current_run", default=None)


def current_run() -> Optional[CurrentRun]:
    """The task that the function is running for; None outside of a worker."""
    return _current.get()


def execute(payload: bytes, run: CurrentRun) -> Tuple[bool, Any]:
    """Runs a call: (True, the result as MessagePack), or (False, the RunAnswer that says what went wrong)."""
    try:
        name, args, kwargs = msgpack.unpackb(payload, raw=False, strict_map_key=False)
        function = registry[name].function
    except KeyError as e:
        return False, answer_of(Final(f"this worker has no task {e}"))
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as e:
        return False, answer_of(Final(f"this is no call of a task: {e}"))
    before = _current.set(run)
    try:
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
        return True, msgpack.packb(result, use_bin_type=True)
    except (Exception, SystemExit, asyncio.CancelledError) as e:  # sys.exit() ends the call, not the worker
        return False, answer_of(e)
    finally:
        _current.reset(before)
