"""The one adapter to the event loops, and what differs between them. Nothing else in the SDK looks at which one runs.

Both loops are asked for through `sys.modules`: a program that runs on one of them need not have the other installed.

Under trio there is no `Task.cancel`, but Ctrl-C is raised in whatever code is running: in the middle of a clean-up, or
between entering a task group and noting that. So it is kept out of what is marked as `uninterrupted`, and the caller
gets it when that is done. Under asyncio it cancels the main task, and needs no mark.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar, cast

import anyio
from anyio.lowlevel import RunVar, current_token

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_uninterrupted: list[Callable[..., Any]] = []  # those whose mark does not count yet


def asyncio_task() -> Any:
    """The running task of asyncio's, if the caller is in one. A trio program inside asyncio's loop is in none."""
    asyncio = sys.modules.get("asyncio")
    # Of the two ways to ask asyncio for its loop, the one that does not raise on trio: it is asked for each wait.
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - exported for those who write loops
        return None
    return asyncio.current_task()


def runs_on_asyncio() -> bool:
    """Whether the caller is a task of asyncio's."""
    return asyncio_task() is not None


def cancelled_by_others(error: BaseException) -> bool:
    """Where an exception is caught: whether it is a cancellation that no cancel scope around here has asked for.

    Only asyncio has that: `Task.cancel` on the running task, or a wait for something that was cancelled.
    """
    task = asyncio_task()
    return (
        task is not None
        and isinstance(error, sys.modules["asyncio"].CancelledError)
        and anyio.current_effective_deadline() > -math.inf
    )


def running_loop() -> Any:
    """The event loop that the caller runs in, to be compared and handed to the functions below: hashable, no more."""
    task = asyncio_task()
    if task is not None:
        return task.get_loop()
    token: Any = current_token()
    return getattr(token, "native_token", token)  # anyio wraps it from 4.11 on


def clock() -> Callable[[], float]:
    """What tells the time of the running event loop, in seconds.

    `anyio.current_time` finds that out at each call, which takes fifty times as long as to look at the clock.
    """
    task = asyncio_task()
    tell: Callable[[], float] = sys.modules["trio"].current_time if task is None else task.get_loop().time
    return tell


def current_time() -> float:
    """The time of the running event loop, in seconds."""
    return clock()()


def one_per_loop(kept: RunVar[T], make: Callable[[], T]) -> T:
    """What a variable of the running event loop holds, made when it is first asked for."""
    try:
        return kept.get()
    except LookupError:
        made = make()
        kept.set(made)
        return made


def run_soon(loop: Any, call: Callable[[], object]) -> None:
    """Have an event loop make a call that waits for nothing. From any thread.

    Raises:
        RuntimeError: the loop has come to its end.
    """
    # asyncio's and uvloop's have the one, trio's token has the other.
    schedule = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    schedule(call)


def wake_those_who_wait_for(file: Any) -> None:
    """Before what a task waits for is closed: end the wait on trio, with `ClosedResourceError`. asyncio has no need."""
    trio = sys.modules.get("trio")
    if trio is not None and not runs_on_asyncio():
        trio.lowlevel.notify_closing(file)


def loop_is_over(loop: Any) -> bool:
    """Whether an event loop has come to its end. Asks from any thread."""
    if hasattr(loop, "is_closed"):  # asyncio's, and uvloop's
        return bool(loop.is_closed())
    try:
        run_soon(loop, lambda: None)  # trio's token refuses to run anything after the end
    except RuntimeError:
        return True
    return False


def _resolve(future: Any) -> None:
    """Let the waiter for a future of asyncio's go on, unless it was cancelled."""
    if not future.done():
        try:
            future.set_result(None)
        # Ctrl-C cancels the main task, and its future with it, between any two steps of this thread. Each read of a
        # stream comes here, and `suppress` takes longer than the rest.
        except sys.modules["asyncio"].InvalidStateError:
            pass


def uninterrupted(function: F) -> F:
    """Mark a function that Ctrl-C must not leave halfway. What it waits for can still be interrupted."""
    _uninterrupted.append(function)
    return function


def keep_interrupts_out() -> None:
    """Make the marks count, where trio is loaded. It may come later than this module. Cheap when called again."""
    trio = sys.modules.get("trio")
    if trio is None:
        return
    # Another thread may be doing the same, and Ctrl-C may come between any two steps.
    for function in tuple(_uninterrupted):
        trio.lowlevel.enable_ki_protection(function)
        with suppress(ValueError):
            _uninterrupted.remove(function)


def cancel_scope(scope: anyio.CancelScope) -> None:
    """Cancel a scope, at the latest in the next turn of the event loop."""
    task = asyncio_task()
    if task is None:
        scope.cancel()
    else:
        # anyio describes the task that cancels, which takes longer than all else. In a callback there is none.
        task.get_loop().call_soon(scope.cancel)


def open_nursery() -> Any:
    """What holds tasks on trio, to be entered."""
    return sys.modules["trio"].open_nursery(strict_exception_groups=True)


def cancel_requests() -> int:
    """How often `Task.cancel` was called on the running task, less what cancel scopes have taken back."""
    task = asyncio_task()
    return 0 if task is None else int(task.cancelling())


def forget_cancel_requests(down_to: int) -> None:
    """Take back calls of `Task.cancel` on the running task of asyncio's, until `down_to` of them are left."""
    task = asyncio_task()
    while task.cancelling() > down_to:
        task.uncancel()


class Wakeup:
    """Wakes whoever waits now. Unlike an `anyio.Event` it can be used again and again.

    A waiter looks at its condition, and waits while that does not hold. Nothing is awaited between the two, so no
    wake-up can fall between them.
    """

    __slots__ = ("_event", "_first", "_others")

    def __init__(self) -> None:
        self._first: Any = None  # a future of asyncio's, for the one waiter that there is mostly
        self._others: tuple[Any, ...] = ()
        self._event: Any = None  # of trio's, and only while somebody waits

    def wait(self) -> Awaitable[None]:
        """What ends with the next `wake`. It is awaited at once."""
        task = asyncio_task()
        if task is None:
            if self._event is None:
                self._event = sys.modules["trio"].Event()
            # In one line, between whose parts Ctrl-C seldom comes. It would leave a coroutine that nobody awaits.
            return cast("Awaitable[None]", self._event.wait())
        # Every read of a stream waits here, and anyio's event would be three objects and three coroutines more.
        future: Any = task.get_loop().create_future()
        # Those of cancelled waiters go here. For the waiters to drop them would take one more coroutine for each wait.
        if self._first is None or self._first.done():
            self._first = future
        else:
            self._others = (*(other for other in self._others if not other.done()), future)
        return cast("Awaitable[None]", future)

    def wake(self) -> None:
        """Wake all who wait. Cheap if nobody does."""
        first, self._first = self._first, None
        if first is not None:
            _resolve(first)
        if self._others:
            others, self._others = self._others, ()
            for future in others:
                _resolve(future)
        if self._event is not None:
            self._event.set()
            self._event = None
