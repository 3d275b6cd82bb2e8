"""Tasks of the SDK's own, and what the event loops do to them.

A `BackgroundTask` runs one call in a task of its own, which its owner cannot leave before the call has ended. On trio
that is a task group of one task, on asyncio the task alone. The call never raises into it, so there is nothing to wrap:
what it has to say is kept for the owner. The call ends in one of two ways:

- with its owner. A stream's reader and the feeder of a fan-out are cancelled when their block is left.
- on its own terms, although its owner is cancelled. That is work that must end: learning the id of a session that is
  being created, and tearing a session down. See `BackgroundTask.complete` and `finish_or_undo`.

A shielded scope alone would not do for work that must end. Under asyncio `Task.cancel` goes through shields, into
whatever the task awaits, and so do `asyncio.timeout`, and Ctrl-C through `asyncio.run`. A task of its own is out of
reach of whoever cancels the caller. It is not out of reach of whoever cancels every task there is: the end of
`asyncio.run`, a handler of SIGTERM, a web server whose patience is over. So work that must end is begun again when
somebody else has cut it short, and its owner, who was cancelled as well, remembers that and waits. This works because
all those who cancel every task then wait for these tasks to end. Every wait here that ignores cancellation has a
deadline.

Under trio there is no `Task.cancel`. There Ctrl-C is raised in whatever code is running, be it the work, or the moment
between entering a task group and noting that. So it is kept out of what is marked as `uninterrupted`, and the caller
gets it when that is done.
"""

from __future__ import annotations

import enum
import math
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Generic, TypeVar, cast

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint, current_token

from ._log import logger
from .errors import WorkInterrupted

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])
Call = Callable[[], Awaitable[T]]


# The adapter to the event loops: nothing else in the SDK looks at which one is running.

_uninterrupted: list[Callable[..., Any]] = []


def _asyncio_task() -> Any:
    """The running task of asyncio's, if the caller is in one. A trio program inside asyncio's loop is in none."""
    asyncio = sys.modules.get("asyncio")
    # Of the two ways to ask asyncio for its loop, the one that does not raise on trio: it is asked for each wait.
    if asyncio is None or asyncio._get_running_loop() is None:  # noqa: SLF001 - exported for those who write loops
        return None
    return asyncio.current_task()


def runs_on_asyncio() -> bool:
    """Whether the caller is a task of asyncio's."""
    return _asyncio_task() is not None


def cancelled_by_others(error: BaseException) -> bool:
    """Where an exception is caught: whether it is a cancellation that no cancel scope around here has asked for.

    Only asyncio has that: `Task.cancel` on the running task, or a wait for something that was cancelled.
    """
    task = _asyncio_task()
    return (
        task is not None
        and isinstance(error, sys.modules["asyncio"].CancelledError)
        and anyio.current_effective_deadline() > -math.inf
    )


def running_loop() -> Any:
    """The event loop that the caller runs in, to be compared and handed to the functions below: hashable, no more."""
    token: Any = current_token()
    return getattr(token, "native_token", token)  # anyio wraps it from 4.11 on


def run_soon(loop: Any, call: Callable[[], object]) -> None:
    """Have an event loop make a call that waits for nothing. From any thread.

    Raises:
        RuntimeError: the loop has come to its end.
    """
    # asyncio's and uvloop's have the one, trio's token has the other.
    schedule = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    schedule(call)


def wake_those_who_wait_for(raw: socket.socket) -> None:
    """Before a socket is closed: end all waits for it on trio, with `ClosedResourceError`. asyncio has no need."""
    trio = sys.modules.get("trio")
    if trio is not None and not runs_on_asyncio():
        trio.lowlevel.notify_closing(raw)


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
    # Not asked before: Ctrl-C cancels the main task, and its future with it, between any two steps of this thread.
    with suppress(sys.modules["asyncio"].InvalidStateError):
        future.set_result(None)


def cut_short(what: str, cause: BaseException | None = None) -> WorkInterrupted:
    """The error for work that somebody else has cancelled."""
    error = WorkInterrupted(f"{what}: cancelled by somebody else")
    error.__cause__ = cause
    return error


def uninterrupted(function: F) -> F:
    """Mark a function that Ctrl-C must not leave halfway. What it waits for can still be interrupted."""
    _uninterrupted.append(function)
    return function


def keep_interrupts_out() -> None:
    """Make the marks count, where trio is loaded. It may come later than this module. Cheap when called again."""
    trio = sys.modules.get("trio")
    if trio is not None:
        _protect(trio)


@lru_cache(maxsize=1)
def _protect(trio: Any) -> None:
    for function in _uninterrupted:
        trio.lowlevel.enable_ki_protection(function)


def start_coroutine(tasks: TaskGroup, coroutine: Coroutine[Any, Any, object], name: str) -> None:
    """Run a coroutine in a task of a group. For `close_unbegun`: a task group itself takes a function."""
    tasks.start_soon(lambda: coroutine, name=f"enclave: {name}")


def close_unbegun(coroutines: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Call this when a task group has ended, with what it was to run and may never have begun.

    asyncio never begins a task that is cancelled before its first step, and Python warns of its coroutine.
    """
    for coroutine in coroutines:
        coroutine.close()


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

    __slots__ = ("_event", "_futures")

    def __init__(self) -> None:
        self._futures: tuple[Any, ...] = ()  # of asyncio's, one for each waiter
        self._event: anyio.Event | None = None  # on trio, and only while somebody waits

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        task = _asyncio_task()
        if task is None:
            if self._event is None:
                self._event = anyio.Event()
            await self._event.wait()
            return
        # Every read of a stream waits here, and anyio's event would be three objects and three coroutines more.
        future = task.get_loop().create_future()
        self._futures = (*self._futures, future)
        try:
            await future
        finally:
            if future in self._futures:  # the waiter was cancelled
                self._futures = tuple(other for other in self._futures if other is not future)

    def wake(self) -> None:
        """Wake all who wait. Cheap if nobody does."""
        if self._futures:
            futures, self._futures = self._futures, ()
            for future in futures:
                _resolve(future)
        if self._event is not None:
            self._event.set()
            self._event = None


class TaskState(enum.Enum):
    """Where a `BackgroundTask` stands.

    ::

        NEW ──> RUNNING ──┬──> RETURNED      the call gave a value
           start    ↺     ├──> RAISED        the call raised an exception of its own
              cut short,  ├──> CANCELLED     by its owner, or its time was over
              begun again └──> INTERRUPTED   somebody else cancelled it, and it is not to be begun again
    """

    NEW = enum.auto()
    RUNNING = enum.auto()
    RETURNED = enum.auto()
    RAISED = enum.auto()
    CANCELLED = enum.auto()
    INTERRUPTED = enum.auto()


class BackgroundTask(Generic[T]):
    """A call in a task of its own. Its owner, always one and the same task, begins it and waits for its end.

    The call is shielded from what cancels the owner. An owner that is cancelled and shielded itself still gets what the
    call brings, and cancels it when it leaves.

    Args:
        call: what to run.
        name: what it is, for people who look at tasks, and for messages.
        again: what to run in the place of `call` after somebody else has cut it short. With it, the call is work that
            must end, and the owner must set it a deadline once it no longer wants to wait. Without it, being cut short
            is the end.
    """

    __slots__ = (
        "_again",
        "_asyncio_task",
        "_call",
        "_cancel_requested",
        "_deadline",
        "_end",
        "_error",
        "_has_ended",
        "_scope",
        "_task_group",
        "_value",
        "name",
        "seconds",
        "state",
    )

    def __init__(self, call: Call[T], name: str, *, again: Call[T] | None = None) -> None:
        self.name = name
        self.state = TaskState.NEW
        self.seconds = 0.0
        """How long the call ran, once it has ended."""
        self._call = call
        self._again = again
        self._deadline = math.inf
        self._cancel_requested = False
        self._scope: anyio.CancelScope | None = None  # of the attempt that is running
        self._value: T | None = None
        self._error: BaseException | None = None
        self._has_ended = False
        self._end = Wakeup()
        self._asyncio_task: Any = None
        self._task_group: TaskGroup | None = None  # on trio

    @uninterrupted
    async def start(self) -> None:
        """Begin the call. `aclose` must follow, whatever this raises.

        Raises:
            WorkInterrupted: somebody else cancelled the task before its first step, and there is no `again`.
        """
        cancellation = await self._begin()
        if cancellation is not None:
            raise cancellation
        if self.state is TaskState.INTERRUPTED:
            raise self._failure()

    def cancel(self) -> None:
        """Cancel the call. From any task."""
        self._cancel_requested = True
        if self._scope is not None:
            _cancel_scope(self._scope)

    def end_within(self, seconds: float) -> None:
        """Cancel the call unless it ends within so many seconds from now. A deadline that is sooner holds."""
        self._deadline = min(self._deadline, anyio.current_time() + seconds)
        if self._scope is not None:
            self._scope.deadline = self._deadline

    async def wait(self) -> None:
        """Wait until the call has ended. Cancelling the wait does not cancel the call."""
        while not self._has_ended:
            await self._end.wait()

    @uninterrupted
    async def aclose(self) -> None:
        """Cancel the call, and wait until it has cleaned up."""
        self.cancel()
        cancellation = await self._join()
        if cancellation is not None:
            raise cancellation

    @uninterrupted
    async def complete(self) -> BaseException | None:
        """Wait until the call has ended, beginning it if it is new, and ignore all cancellation meanwhile.

        Gives what cancelled the owner by other means than a scope, for the owner to raise when it has done what is
        left to do. A scope that was cancelled shows at the owner's next checkpoint.
        """
        first = None if self.has_begun else await self._begin()
        second = await self._join()
        return first or second

    @property
    def has_begun(self) -> bool:
        """Whether there is, or was, a task for the call. It may not have had its first step."""
        return self.state is not TaskState.NEW or self._asyncio_task is not None or self._task_group is not None

    def result(self) -> T:
        """What the call gave. Raises what it raised, TimeoutError if its time was over, or `WorkInterrupted`."""
        if self.state is TaskState.RETURNED:
            return cast("T", self._value)
        raise self._failure()

    @property
    def error(self) -> BaseException | None:
        """Why there is no result. None where there is one."""
        return None if self.state is TaskState.RETURNED else self._failure()

    def _failure(self) -> BaseException:
        return self._error or TimeoutError(f"{self.name}: not done within {self.seconds:.1f} s")

    async def _begin(self) -> BaseException | None:
        keep_interrupts_out()
        cancellation: BaseException | None = None
        while True:
            await self._enter_task()
            try:
                # asyncio steps tasks in the order of their creation, so the task has had its first step after this.
                await cancel_shielded_checkpoint()
            except BaseException as error:  # noqa: BLE001 - given to the owner, who raises it
                cancellation = error
            if self.state is not TaskState.NEW or self._asyncio_task is None:
                return cancellation
            # A task that is cancelled before its first step never begins, and nothing in it can know.
            if self._again is None:
                self._interrupted(None)
                return cancellation

    async def _enter_task(self) -> None:
        name = f"enclave: {self.name}"
        owner = _asyncio_task()
        if owner is None:
            self._task_group = anyio.create_task_group()
            await self._task_group.__aenter__()
            self._task_group.start_soon(self._run, name=name)
        else:
            # Not in a group of anyio's, which costs 30 us and 3.5 KB more, and as much again when many are cancelled.
            # It would do nothing that is not done here: the owner cancels the one task, and waits for its end.
            self._asyncio_task = owner.get_loop().create_task(self._run(), name=name)

    @uninterrupted
    async def _run(self) -> None:
        self.state = TaskState.RUNNING
        began = anyio.current_time()
        call: Call[T] | None = self._call
        try:
            while call is not None:
                cancels = _cancel_requests()
                try:
                    with anyio.CancelScope(deadline=self._deadline, shield=True) as self._scope:
                        if self._cancel_requested:
                            self._scope.cancel()
                        self._value = await call()
                        self.state = TaskState.RETURNED
                    call = None
                except Exception as error:  # noqa: BLE001 - the owner raises it
                    self.state, self._error = TaskState.RAISED, error
                    call = None
                except anyio.get_cancelled_exc_class() as error:
                    if not cancelled_by_others(error):
                        self.state = TaskState.CANCELLED
                        raise
                    call = self._after_being_cut_short(error, cancels)
            if self.state is TaskState.RUNNING:
                self.state = TaskState.CANCELLED
        finally:
            self.seconds = anyio.current_time() - began
            self._set_ended()

    def _after_being_cut_short(self, error: BaseException, cancels: int) -> Call[T] | None:
        """What to run next, if anything."""
        if self._again is None:
            self._interrupted(error)
            return None
        if _cancel_requests() > cancels:
            # asyncio counts requests to cancel, and the scopes of anyio and of `asyncio.timeout` look at the count.
            _forget_cancel_requests(cancels)
            return self._again
        # Nobody cancelled this task: the call awaited something that was cancelled, and would so again.
        self.state, self._error = TaskState.RAISED, error
        return None

    def _interrupted(self, cause: BaseException | None) -> None:
        self.state = TaskState.INTERRUPTED
        self._error = cut_short(self.name, cause)
        self._set_ended()

    def _set_ended(self) -> None:
        self._has_ended = True
        self._end.wake()

    async def _join(self) -> BaseException | None:
        """Wait for the end of the call, and leave its task. Give what cancelled the owner meanwhile."""
        if self._asyncio_task is None and self._task_group is None:
            return None
        cancellation: BaseException | None = None
        while not self._has_ended:
            try:
                # The wait is bounded by the deadline of the call. Without `again` the call was cancelled before.
                with anyio.CancelScope(shield=True):
                    await self.wait()
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - Task.cancel() and trio's Ctrl-C pass the shield
                cancellation = error
        return await self._leave_task() or cancellation

    async def _leave_task(self) -> BaseException | None:
        task, self._asyncio_task = self._asyncio_task, None
        if task is not None:
            return None if task.cancelled() else cast("BaseException | None", task.exception())
        task_group, self._task_group = self._task_group, None
        if task_group is None:
            return None
        try:
            with plain_exceptions():
                await task_group.__aexit__(None, None, None)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            return error
        return None


def _cancel_scope(scope: anyio.CancelScope) -> None:
    task = _asyncio_task()
    if task is None:
        scope.cancel()
    else:
        # anyio describes the task that cancels, which takes longer than all else. In a callback there is none.
        task.get_loop().call_soon(scope.cancel)


def _cancel_requests() -> int:
    """How often `Task.cancel` was called on the running task, less what cancel scopes have taken back."""
    task = _asyncio_task()
    return 0 if task is None else int(task.cancelling())


def _forget_cancel_requests(down_to: int) -> None:
    # Only asyncio gets here: nothing else has requests to forget.
    task = _asyncio_task()
    while task.cancelling() > down_to:
        task.uncancel()


@uninterrupted
async def finish_or_undo(
    work: BackgroundTask[T], undo: Callable[[T], Awaitable[object]], *, seconds: float, leave: Callable[[], None]
) -> T:
    """Run `work`. If the caller is cancelled meanwhile, let it end all the same, and `undo` what it made.

    As long as nobody cancels, the work is not bounded. From then on it has `seconds`, and `undo` as long again. `leave`
    is called at that moment. What goes wrong then is logged, since nobody may see the cancellation.

    Raises:
        What the work raises. The caller's cancellation, after the undoing.
    """
    try:
        await work.start()
        await work.wait()
    except BaseException:
        if not work.has_begun:  # Ctrl-C under trio, in the first action of a program, before the marks counted
            raise
        work.end_within(seconds)
        leave()
        await work.complete()
        await _undo(work, undo, seconds)
        raise
    cancellation = await work.complete()
    if cancellation is not None:
        await _undo(work, undo, seconds)
        raise cancellation
    return work.result()


async def _undo(work: BackgroundTask[T], undo: Callable[[T], Awaitable[object]], seconds: float) -> None:
    if work.state is not TaskState.RETURNED:
        if work.state is not TaskState.RAISED:
            logger.warning(
                "%s was cancelled and did not end within %.1f s, so it may have left something behind",
                work.name,
                work.seconds,
            )
        return
    value = work.result()

    async def attempt() -> None:
        await undo(value)

    undoing = BackgroundTask(attempt, f"undoing {work.name}", again=attempt)
    undoing.end_within(seconds)
    await undoing.complete()
    if undoing.error is not None:
        why = "not done in time" if undoing.state is TaskState.CANCELLED else undoing.error
        logger.warning("%s was cancelled, and undoing it failed: %s", work.name, why)
