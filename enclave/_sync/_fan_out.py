"""`SyncFanOut`: a `FanOut` for a thread, which takes the requests from their input in that thread as well.

The input may be a cursor of a database, or a generator that uses the blocking client itself. Both belong to the thread
of the caller. So where the fan-out wants a request, it asks a thread that waits for an outcome to take one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sized
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, cast

import anyio
from anyio.lowlevel import checkpoint

from enclave._fan_out import FanOut, Requests
from enclave._outcome import Outcome, RequestLike
from enclave.types import CreateSessionRequest

from ._block import IteratedBlock
from ._driver import Driver, reworded
from ._mirror import Blocking, like, parts_of
from ._work import Call

P = ParamSpec("P")
T = TypeVar("T")
_FanOut: Any = FanOut  # of whatever type: pyright takes the bare class for one of an unknown type


class SyncFanOut(IteratedBlock[FanOut[T]], Generic[T]):
    """An iterator over outcomes, in the order in which the sessions end, and a context manager.

    ::

        with enclave.fan_out(requests) as outcomes:
            for outcome in outcomes:
                ...

    Leaving the block, by whatever way, cancels what still runs and tears its sessions down. Without ``with``, as in
    ``for outcome in enclave.fan_out(requests)``, that begins soon after the loop was left before its end.

    Requests are taken from the input while a thread waits for an outcome, and in that thread.
    """

    def __init__(self, target: FanOut[T], driver: Driver, requests: CallersInput | None = None) -> None:
        super().__init__(target, driver)
        self._input = requests
        self._left: deque[Outcome[T]] = deque()  # what a thread was to get that was interrupted

    @property
    @like(_FanOut.total)
    def total(self) -> int | None:
        return self._async.total

    @property
    @like(_FanOut.started)
    def started(self) -> int:
        return self._async.started

    @property
    @like(_FanOut.done)
    def done(self) -> int:
        return self._async.done

    def __enter__(self) -> Self:
        self._is_in_block = True
        self._enter()
        return self

    def __iter__(self) -> Self:
        if self._held is None:
            self._enter()
        elif not self._is_through:
            with reworded():
                self._async.__aiter__()
        return self

    @like(_FanOut.__anext__)
    def __next__(self) -> Outcome[T]:
        self._check_process()
        if self._left:
            return self._left.popleft()
        if self._is_through:
            raise StopIteration
        call = self._driver.prepared(self._next(), self._put_back)
        return self._waited(lambda: self._served(call))

    def _served(self, call: Call[Outcome[T]]) -> Outcome[T]:
        with reworded():
            return call.wait() if self._input is None else self._input.serve(call)

    def _leave(self, body_error: BaseException | None = None) -> None:
        try:
            super()._leave(body_error)
        except BaseException as error:
            self._close_input(error)
            raise
        self._close_input(body_error)

    def _close_input(self, error: BaseException | None) -> None:
        try:
            if self._input is not None:
                self._input.end()
        except Exception as close_error:
            if error is None:
                raise
            error.add_note(f"closing the fan-out's requests failed as well: {close_error!r}")

    async def _next(self) -> Outcome[T]:
        outcome = await anext(self._async)
        try:
            # The outcome makes room for another request. So the feeder asks for it, while there is a thread to take it.
            await checkpoint()
        except BaseException:
            self._left.append(outcome)
            raise
        return outcome

    async def _put_back(self, outcome: Outcome[T]) -> None:
        self._left.append(outcome)


def fanning_out(
    method: Callable[Concatenate[Any, P], FanOut[T]],
) -> Callable[Concatenate[Any, P], SyncFanOut[T]]:
    """The same method for the blocking client."""
    fan_out: Any = method

    @like(method)
    def call(self: Blocking[Any], requests: Requests, **options: Any) -> SyncFanOut[T]:
        target, driver = parts_of(self)
        source = CallersInput.of(requests)
        return SyncFanOut(fan_out(target, requests if source is None else source, **options), driver, source)

    return cast("Callable[Concatenate[Any, P], SyncFanOut[T]]", call)


class CallersInput:
    """The requests of a fan-out, as its feeder sees them. Each is taken by a thread that waits for an outcome."""

    def __init__(self, requests: Iterable[RequestLike]) -> None:
        self._requests = requests
        self._items: Iterator[RequestLike] | None = None
        self._waiting: set[Call[Any]] = set()
        self._post: Callable[[Callable[[], object]], None]
        self._taking = threading.Lock()
        self._is_wanted = False
        self._answered = anyio.Event()
        self._answers: deque[RequestLike] = deque()
        self._error: Exception | None = None

    @classmethod
    def of(cls, requests: Requests) -> CallersInput | None:
        """The input for requests, with a length where they have one. None for what a thread cannot iterate over."""
        if isinstance(requests, AsyncIterable | str | CreateSessionRequest) or not isinstance(requests, Iterable):
            return None
        return _SizedInput(requests) if isinstance(requests, Sized) else cls(requests)

    # On the loop

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RequestLike:
        self._answered = anyio.Event()
        self._is_wanted = True
        self._ask()
        await self._answered.wait()
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._answers.popleft()

    def _ask(self) -> None:
        # In a function of its own: while `__anext__` waits, its variables would keep a call, and with it the fan-out.
        for call in list(self._waiting):
            call.ask(self._take)

    # In the threads that wait

    def serve(self, call: Call[T]) -> T:
        """Wait for a call, and take requests meanwhile."""
        self._post = call.loop.post
        self._waiting.add(call)
        try:
            call.ask(self._take)  # the feeder may have asked while no thread was waiting
            return call.wait()
        finally:
            self._waiting.discard(call)

    # Not `close`, which the feeder would call on the loop.
    def end(self) -> None:
        """Close the input, where it can be closed, and no other thread is about to take a request from it."""
        close = getattr(self._requests if self._items is None else self._items, "close", None)
        # The lock is kept, since nothing may be taken from the input any more.
        if callable(close) and self._taking.acquire(blocking=False):
            close()

    # An errand that refers to no call: one that nobody runs any more would keep the call, and with it the fan-out.
    def _take(self) -> None:
        """Take a request, if one is wanted and no other thread does it."""
        if not self._taking.acquire(blocking=False):
            return
        try:
            if self._is_wanted:
                self._take_one()
                self._post(self._answered.set)
        finally:
            self._taking.release()

    def _take_one(self) -> None:
        try:
            if self._items is None:
                self._items = iter(self._requests)
            self._answers.append(next(self._items))
        except StopIteration:
            self._error = StopAsyncIteration()
        except Exception as error:  # noqa: BLE001 - the feeder ends with it, and it is raised after the last outcome
            self._error = error
        # An interrupt goes to the caller, and the request is still wanted.
        self._is_wanted = False


class _SizedInput(CallersInput):
    def __len__(self) -> int:
        return len(self._requests) if isinstance(self._requests, Sized) else 0
