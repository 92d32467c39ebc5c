# SPDX-License-Identifier: MIT
"""The asyncio client: any number of requests at once over one connection, and requests of eqd handed to handlers.

The rules about ended connections are those of eqd.client. A client belongs to the event loop that it was connected in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable, Deque, Dict, Generic, List, Mapping, Optional, Self, Sequence, \
    Set, Tuple, Type, TypeVar, cast

from . import _api, shared
from .core import RECEIVE_BYTES, Core, Message, Notification, Request, Response, default_path, error_from_wire, naming
from .errors import ConnectionLost, EqdException, RequestTimeout, TaskError
from .reconnect import Reconnect, Tries, may_try_again, prepare
from .values import AnyId, Duration, TaskId, wire_id, wire_params, with_ids

T = TypeVar("T")
# Returns (error, result) of the response; one of them is None.
RequestHandler = Callable[[Request], Awaitable[Tuple[Any, Any]]]
NotificationHandler = Callable[[Notification], None]


class Channel:
    """One connection, and the protocol on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.core, self.reader, self.writer = Core(), reader, writer
        self.handlers: Dict[str, RequestHandler] = {}
        self.on_notification: NotificationHandler = lambda note: None
        self.lost: Optional[EqdException] = None
        self.ended = asyncio.get_running_loop().create_future()
        self._waiting: Dict[int, asyncio.Future[Response]] = {}
        self._running: Set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, path: str) -> Self:
        with naming(path):
            return cls(*await asyncio.open_unix_connection(path))

    async def close(self) -> None:
        """Ends the connection and what it was doing."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass  # it had ended before

    async def exchange(self, method: str, params: Sequence[Any], timeout: Optional[float]) -> Any:
        """Sends a request and waits for its answer. Canceled: the answer is dropped, the request may be carried out."""
        if self.lost:
            raise self.lost
        msgid, data = self.core.request(method, params)
        future = self._waiting[msgid] = asyncio.get_running_loop().create_future()
        try:
            self.writer.write(data)
            response = await asyncio.wait_for(future, timeout)
        except asyncio.TimeoutError as e:
            raise RequestTimeout("no answer from eqd in time") from e
        finally:
            self._waiting.pop(msgid, None)
        if response.error is not None:
            raise error_from_wire(response.error)
        return response.result

    def notify(self, method: str, params: Sequence[Any]) -> None:
        """Sends what gets no answer."""
        self.writer.write(self.core.notification(method, params))

    async def _read(self) -> None:
        lost: EqdException = ConnectionLost("the client was closed")
        try:
            while data := await self.reader.read(RECEIVE_BYTES):
                for message in self.core.feed(data):
                    self._dispatch(message)
                await self._room()
            lost = ConnectionLost("eqd closed the connection")
        except OSError as e:
            lost = ConnectionLost(f"the connection to eqd ended: {e}")
        except EqdException as e:
            lost = e
        finally:
            self._end(lost)

    async def _room(self) -> None:
        """Waits until more may be read."""

    def _end(self, lost: EqdException) -> None:
        self.lost = lost
        self.writer.close()
        for task in self._running:
            task.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(lost)
        if not self.ended.done():
            self.ended.set_result(lost)

    def _dispatch(self, message: Message) -> None:
        if isinstance(message, Response):
            future = self._waiting.get(message.msgid)
            if future and not future.done():
                future.set_result(message)
        elif isinstance(message, Notification):
            self.on_notification(message)
        else:
            task = asyncio.create_task(self._answer(message))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _answer(self, request: Request) -> None:
        """One request of eqd: its handler's answer, an error for a method that has none or a handler that raises."""
        handler = self.handlers.get(request.method)
        error: Any = [_api.MethodError.code, f"this client has no method {request.method}"]
        result = None
        if handler:
            try:
                error, result = await handler(request)
            except Exception as e:  # whatever it is, eqd gets an answer
                error = [_api.InternalError.code, f"{type(e).__name__}: {e}"]
        if not self.lost:
            self.writer.write(self.core.response(request.msgid, error, result))


class Stream(Channel):
    """A connection whose notifications are taken one by one. Nothing is read before all that came is taken: of who is too slow
    eqd holds little, then drops and says so, and here waits no more than what a few reads bring."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._notes: Deque[Notification] = deque()
        self._came, self._taken = asyncio.Event(), asyncio.Event()
        self.on_notification = self._keep

    def _keep(self, note: Notification) -> None:
        self._notes.append(note)
        self._came.set()

    async def _room(self) -> None:
        if self._notes and not self._waiting:  # an answer may be behind them
            self._taken.clear()
            await self._taken.wait()

    def _end(self, lost: EqdException) -> None:
        super()._end(lost)
        self._came.set()

    async def next(self) -> Notification:
        """The next notification; raises what the connection ended with once all are taken."""
        while not self._notes:
            if self.lost:
                raise self.lost
            self._taken.set()
            self._came.clear()
            await self._came.wait()
        return self._notes.popleft()


class AsyncTask(Generic[T]):
    """A submitted task; see eqd.Task. `await task` is `await task.result()`."""

    def __init__(self, client: "AsyncClient", task: TaskId, queue: str, decode: Callable[[Any], T]) -> None:
        self.id, self.queue = task, queue
        self._client, self._decode = client, decode

    def __str__(self) -> str:
        return f"{self.queue}/{self.id.seq}"

    def __repr__(self) -> str:
        return f"<eqd.aio.AsyncTask {self}>"

    def __await__(self) -> Any:
        return self.result().__await__()

    async def wait(self, timeout: Optional[Duration] = None) -> _api.TaskRecord:
        """Waits for the end, however it is; the task as shown then."""
        return (await self._client.wait([self.id], timeout=timeout))[0]

    async def result(self, timeout: Optional[Duration] = None) -> T:
        """Waits for the end; TaskFailed and the like if it is not DONE."""
        return self._decode(shared.outcome(cast(Mapping[str, Any], await self.wait(timeout))))

    async def exception(self, timeout: Optional[Duration] = None) -> Optional[TaskError]:
        """Waits for the end. What result() would raise for it, None if it ended as DONE."""
        return shared.exception_of(cast(Mapping[str, Any], await self.wait(timeout)))

    async def done(self) -> bool:
        """Has it ended?"""
        return (await self.show())["state"] in _api.FINISHED

    async def running(self) -> bool:
        """Is it at work now?"""
        return (await self.show())["state"] == "RUNNING"

    async def cancelled(self) -> bool:
        """Has it ended as CANCELED?"""
        return (await self.show())["state"] == "CANCELED"

    async def show(self) -> _api.TaskRecord:
        """The task as it is now."""
        return (await self._client.show([self.id]))[0]

    async def payload(self) -> bytes:
        """What it was submitted with, also when it has ended. KeyError: it ended before eqd had read it from the store."""
        return (await self._client.show([self.id], payload=True))[0]["payload"]

    async def why(self) -> _api.WhyRecord:
        """Why it is where it is."""
        return (await self._client.why([self.id]))[0]

    async def cancel(self, running: bool = False) -> bool:
        """True: it is canceled; or, with `running`, being stopped."""
        result = (await self._client.cancel([self.id], running=running))[0]
        return result == 0 or (running and result == 1)

    async def output(self, streams: int = shared.STDOUT, attempt: Optional[int] = None) -> bytes:
        """What is kept of its output; of the last attempt, or of that one."""
        reply = await self._client.logs(self.id, streams=streams, attempt=attempt)
        return shared.output_of(cast(Mapping[str, Any], reply), streams)

    def follow(self, streams: int = 3) -> AsyncIterator[Tuple[int, bytes]]:
        """(stream, bytes) from what is kept on, until the task has ended."""
        return self._client.follow(self.id, streams)


class AsyncClient(_api.AsyncApi["AsyncTask[_api.TaskRecord]"]):
    """A connection to eqd with its methods. Use it in an `async with` statement, or close() it."""

    def __init__(self, path: Optional[str] = None, timeout: Optional[float] = shared.DEFAULT_TIMEOUT,
                 reconnect: Optional[Reconnect] = None) -> None:
        self.path, self.timeout, self.reconnect = default_path(path), timeout, reconnect
        self._away = False  # as last told
        self._connecting = asyncio.Lock()
        self._channel: Optional[Channel] = None
        self._left: Set[Channel] = set()  # to an eqd that stops, for the answers that are on their way
        self._closed = False

    async def __aenter__(self) -> "AsyncClient":
        await self.connect()
        return self

    async def __aexit__(self, kind: Optional[Type[BaseException]], value: Optional[BaseException],
                        trace: Optional[TracebackType]) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection. Submitted tasks go on."""
        self._closed = True
        channel, self._channel = self._channel, None
        for each in [*self._left, *([channel] if channel else [])]:
            await each.close()
        self._left.clear()

    def _leave(self, channel: Channel) -> None:
        """What comes next is for the next eqd: on this connection it may be read by nobody."""
        if self._channel is channel:
            self._channel = None
            self._left.add(channel)
            channel.ended.add_done_callback(lambda _: self._left.discard(channel))

    async def connect(self) -> None:
        """Connects now, if it is not connected. OSError: eqd is not there, or not permitted."""
        await self._connected()

    async def _connected(self) -> Channel:
        async with self._connecting:
            if self._closed:
                raise ConnectionLost("the client was closed")
            if self._channel and self._channel.lost:
                await self._channel.close()
                self._channel = None
            if not self._channel:
                self._channel = await Channel.open(self.path)
            return self._channel

    async def call(self, method: str, *params: Any, **options: Any) -> Any:
        """Any method by its name, with values as the wire has them: for what is newer than this package."""
        return await self._exchange(method, [*params, options] if options else list(params))

    async def _call(self, method: str, required: Sequence[Tuple[str, Any]],
                    options: Mapping[str, Tuple[str, Any]]) -> Any:
        return await self._exchange(method, wire_params(required, options))

    async def _exchange(self, method: str, params: List[Any]) -> Any:
        timeout = shared.allowed_time(method, params, self.timeout)
        if self.reconnect:
            return with_ids(await self._patiently(self.reconnect, method, params, timeout))
        try:
            return with_ids(await (await self._connected()).exchange(method, params, timeout))
        except ConnectionLost:
            if method not in _api.READING or self._closed:
                raise
        return with_ids(await (await self._connected()).exchange(method, params, timeout))

    async def _patiently(self, policy: Reconnect, method: str, params: List[Any], timeout: Optional[float]) -> Any:
        params, repeatable = prepare(policy, method, params)
        tries: Optional[Tries] = None
        while True:
            sent, channel = False, None
            try:
                channel = await self._connected()
                sent = not channel.lost
                answer = await channel.exchange(method, params, timeout)
                self._tell(policy, False)
                return answer
            except Exception as e:
                if self._closed or not may_try_again(e, repeatable, sent):
                    raise
                if channel and not channel.lost:
                    self._leave(channel)
                tries = await self._pause(policy, tries, e)

    def _tell(self, policy: Reconnect, away: bool) -> None:
        if away != self._away:
            self._away = away
            policy.changed("lost" if away else "back")

    async def _pause(self, policy: Reconnect, tries: Optional[Tries], error: Exception) -> Tries:
        self._tell(policy, True)
        tries = tries or Tries(policy)
        seconds = tries.next()
        if seconds is None:
            raise error
        await asyncio.sleep(seconds)
        return tries

    def _handle(self, task: Any, queue: str) -> "AsyncTask[_api.TaskRecord]":
        return AsyncTask(self, TaskId(*task), queue, lambda record: cast(_api.TaskRecord, record))

    async def map(self, queue: str, payloads: Sequence[Any], **common: Any) -> "List[AsyncTask[_api.TaskRecord]]":
        """Submits any number of payloads; see eqd.Client.map."""
        handles: List[AsyncTask[_api.TaskRecord]] = []
        for at in range(0, len(payloads), _api.BATCH_MAX):
            part = payloads[at:at + _api.BATCH_MAX]
            reply = await self.submit_many(queue, part, common=common or None)
            handles += [self._handle(task, queue) for task in shared.ids_of(reply)]
        return handles

    async def _beside(self, method: str, params: List[Any]) -> Tuple[Stream, Any]:
        """A connection of its own for what goes on after the answer."""
        stream = await Stream.open(self.path)
        try:
            return stream, with_ids(await stream.exchange(method, params, self.timeout))
        except BaseException:
            await stream.close()
            raise

    async def events(self, queue: Optional[str] = None, events: Sequence[str] = (),
                     ready: Optional[Callable[[], None]] = None) -> AsyncIterator[_api.EventRecord]:
        """Events as they come, for ever; `ready` is called once eqd sends them. See eqd.Client.events, also for who is slow."""
        options = {k: v for k, v in (("queue", queue), ("events", list(events))) if v}
        try:
            stream, _ = await self._beside("subscribe", [options])
        except ConnectionLost as e:
            if not self.reconnect:
                raise
            stream = await self._subscribe_again(self.reconnect, options, e)
        try:
            if ready:
                ready()
            while True:
                try:
                    event = shared.event_of(await stream.next())
                except ConnectionLost as e:
                    if not self.reconnect:
                        raise
                    await stream.close()
                    stream = await self._subscribe_again(self.reconnect, options, e)
                    event = {"event": "reconnected"}
                if event:
                    yield cast(_api.EventRecord, event)
        finally:
            await stream.close()

    async def _subscribe_again(self, policy: Reconnect, options: Dict[str, Any],
                               error: Exception) -> Stream:
        tries: Optional[Tries] = None
        while True:
            tries = await self._pause(policy, tries, error)
            try:
                stream, _ = await self._beside("subscribe", [options])
                self._tell(policy, False)
                return stream
            except Exception as e:
                if self._closed or not may_try_again(e, True, False):
                    raise
                error = e

    async def follow(self, task: AnyId, streams: int = 3) -> AsyncIterator[Tuple[int, bytes]]:
        """(stream, bytes) of the output of a task; see eqd.Client.follow, also for who is slow."""
        channel, reply = await self._beside("logs", [wire_id(task), {"streams": streams, "follow": True}])
        try:
            for stream, data in reply.get("chunks", []):
                yield stream, data
            ended = not reply.get("more")
            while not ended:
                ended, chunk = shared.follow_step(await channel.next(), reply["id"])
                if chunk:
                    yield chunk
        finally:
            await channel.close()


def connect(path: Optional[str] = None, timeout: Optional[float] = shared.DEFAULT_TIMEOUT,
            reconnect: Optional[Reconnect] = None) -> AsyncClient:
    """An AsyncClient for `async with`. path None: EQD_SOCKET, else as eqctl finds eqd. reconnect: see eqd.Reconnect."""
    return AsyncClient(path, timeout, reconnect)
