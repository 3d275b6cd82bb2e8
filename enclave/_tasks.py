"""Tasks of the SDK's own: work that must end although its caller is cancelled, and a task inside a block.

Work that must end is learning a session's id, and tearing a session down. A shielded scope alone does not do it: under
asyncio a ``Task.cancel()`` (and so ``asyncio.timeout``, and Ctrl-C through ``asyncio.run``) goes through shields, into
whatever the task awaits. So the work runs in a task of its own, in a shield of its own, inside a task group that the
caller cannot leave before the work has ended. Every shield here has a deadline. Under trio Ctrl-C is raised in whatever
code runs, be it the work, or between entering a task group and noting that. So there it is kept out of what is marked
as `uninterrupted`, and the caller gets it when that is done.

A `BackgroundTask` lives inside an ``async with`` block and never raises into it. The task group's own scope is never
cancelled and never sees the block's exception, so it has nothing to wrap. What the block raises passes through as it
is, and what the task has to say it leaves where the block will look.

A `Wakeup` tells waiting tasks that something has changed.

`runs_on_asyncio` is the one place that looks at which event loop is running.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import EventLoopToken, checkpoint_if_cancelled

from ._log import logger

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_uninterrupted: list[Callable[..., Any]] = []


def runs_on_asyncio() -> bool:
    """Whether the caller is a task of asyncio's; a trio program may run inside asyncio's loop, and is none."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio is not None and asyncio.current_task() is not None
    except RuntimeError:  # no loop is running
        return False


def loop_is_over(loop: EventLoopToken) -> bool:
    """Whether an event loop has come to its end. Asks from any thread."""
    native: Any = loop.native_token
    if hasattr(native, "is_closed"):  # asyncio's, and uvloop's
        return bool(native.is_closed())
    try:
        native.run_sync_soon(lambda: None)  # trio's token refuses to run anything after the end
    except RuntimeError:
        return True
    return False


def uninterrupted(function: F) -> F:
    """Mark a function that Ctrl-C must not leave halfway; what it waits for can still be interrupted."""
    _uninterrupted.append(function)
    return function


def keep_interrupts_out() -> None:
    """Make the marks count, where trio is loaded; it may come later than this module. Cheap when called again."""
    trio = sys.modules.get("trio")
    if trio is not None:
        _protect(trio)


@lru_cache(maxsize=1)
def _protect(trio: Any) -> None:
    for function in _uninterrupted:
        trio.lowlevel.enable_ki_protection(function)


@contextmanager
def plain_exceptions() -> Generator[None]:
    """Let an exception that a task group wrapped out of its group."""
    try:
        yield
    except BaseExceptionGroup as group:
        inner = _only_one(group)
        if inner is None:
            raise
        raise inner from inner.__cause__


def _only_one(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    if len(group.exceptions) != 1:
        return None
    inner = group.exceptions[0]
    if not isinstance(inner, BaseExceptionGroup):
        return inner
    return _only_one(cast("BaseExceptionGroup[BaseException]", inner))


class Wakeup:
    """Wakes whoever waits now. Unlike an `anyio.Event` it can be used again and again.

    A waiter looks at its condition, and waits while that does not hold. Nothing is awaited between the two, so no
    wake-up can fall between them.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None  # exists only while somebody waits

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    def wake(self) -> None:
        """Wake all who wait. Cheap if nobody does."""
        if self._event is not None:
            self._event.set()
            self._event = None


class _Work(Generic[T]):
    """A call in a task of its own: how it ended, and a deadline that can be set while it runs."""

    def __init__(self, call: Callable[[], Awaitable[T]]) -> None:
        self._call = call
        self._scope = anyio.CancelScope(shield=True)
        self._finished = anyio.Event()
        self.values: list[T] = []  # the value, once there is one
        self.error: Exception | None = None

    def end_within(self, seconds: float) -> None:
        self._scope.deadline = min(self._scope.deadline, anyio.current_time() + seconds)

    async def wait(self) -> None:
        await self._finished.wait()

    @uninterrupted
    async def run(self) -> None:
        try:
            with self._scope:
                self.values.append(await self._call())
        except Exception as error:  # noqa: BLE001 - the caller raises it, outside the task group
            self.error = error
        finally:
            self._finished.set()

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        if not self.values:
            raise TimeoutError("not finished in time")
        return self.values[0]


def _start(task_group: TaskGroup, work: _Work[Any]) -> None:
    keep_interrupts_out()
    task_group.start_soon(work.run)


@uninterrupted
async def finish(call: Callable[[], Awaitable[T]], *, seconds: float, what: str) -> T:
    """Run `call` to its end, cancelled or not, for at most `seconds`.

    A failure that gives way to the cancellation is logged, with `what` failed, since nobody may see the cancellation.

    Raises:
        TimeoutError: it took longer. What `call` raises. The caller's cancellation, after `call` has ended.
    """
    work = _Work(call)
    work.end_within(seconds)
    try:
        with plain_exceptions():
            async with anyio.create_task_group() as task_group:
                _start(task_group, work)
        await checkpoint_if_cancelled()  # trio's nurseries do not raise it by themselves
    except BaseException:
        if work.error is not None:
            logger.warning("%s failed, and was cancelled: %s", what, work.error)
        raise
    return work.result()


@uninterrupted
async def finish_or_undo(
    call: Callable[[], Awaitable[T]],
    undo: Callable[[T], Awaitable[object]],
    *,
    seconds: float,
    what: str,
) -> T:
    """Run `call`; if the caller is cancelled meanwhile, let it end all the same and `undo` what it made.

    `call` is not bounded by `seconds` as long as nobody cancels: from then on it has `seconds`, and `undo` as long
    again. What goes wrong then is logged, with `what` was cancelled, since nobody may see the cancellation.

    Raises:
        What `call` raises. The caller's cancellation, after the undoing.
    """
    work = _Work(call)
    try:
        with plain_exceptions():
            async with anyio.create_task_group() as task_group:
                _start(task_group, work)
                try:
                    await work.wait()
                except BaseException:
                    work.end_within(seconds)
                    raise
    except BaseException:
        await _undo(work, undo, seconds, what)
        raise
    return work.result()


async def _undo(work: _Work[T], undo: Callable[[T], Awaitable[object]], seconds: float, what: str) -> None:
    if not work.values and work.error is None:
        logger.warning("%s was cancelled and did not end within %g s; it may have left something behind", what, seconds)
    for value in work.values:

        async def attempt(value: T = value) -> None:
            try:
                with anyio.fail_after(seconds):
                    await undo(value)
            except Exception as error:  # noqa: BLE001 - the cancellation goes first, and nobody may see it
                logger.warning("%s was cancelled, and undoing it failed: %s", what, str(error) or "not done in time")

        await finish(attempt, seconds=2 * seconds, what=what)


_PATIENCE_SECONDS = 10.0  # how long a cancelled close ignores further cancellation while the task cleans up


class BackgroundTask:
    """Runs one call in the background, from `start` to `aclose`; both are awaited in the same task.

    The call must not raise: it stores its failure for the block to find.
    """

    def __init__(self, call: Callable[[], Awaitable[None]], name: str) -> None:
        self._call = call
        self._name = name
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()
        self._task_group: TaskGroup | None = None

    @uninterrupted
    async def start(self) -> None:
        """Start the task. `aclose` must follow, whatever happens in between."""
        keep_interrupts_out()
        task_group = anyio.create_task_group()
        await task_group.__aenter__()
        self._task_group = task_group
        task_group.start_soon(self._run, name=self._name)

    def cancel(self) -> None:
        """Cancel the call. From any task."""
        if not self._finished.is_set():
            self._scope.cancel()

    @uninterrupted
    async def aclose(self) -> None:
        """Cancel the call, and wait until it has cleaned up."""
        self.cancel()
        task_group, self._task_group = self._task_group, None
        if task_group is None:
            return
        try:
            if not self._finished.is_set():
                with anyio.move_on_after(_PATIENCE_SECONDS, shield=True):
                    await self._finished.wait()
        finally:
            with plain_exceptions():
                await task_group.__aexit__(None, None, None)

    @uninterrupted
    async def _run(self) -> None:
        try:
            with self._scope:
                await self._call()
        finally:
            self._finished.set()
