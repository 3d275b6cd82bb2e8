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

Ctrl-C under trio is kept out of these tasks, and has to be kept out of what owns them. So whatever begins a task, or
waits for its end, is called from a function that is marked as `uninterrupted`: the mark holds for all it calls.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, cast

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import cancel_shielded_checkpoint

from ._groups import plain_exceptions
from ._log import logger
from ._loop import (
    Wakeup,
    asyncio_task,
    cancel_requests,
    cancel_scope,
    cancelled_by_others,
    forget_cancel_requests,
    keep_interrupts_out,
    uninterrupted,
)
from .errors import WorkInterrupted

T = TypeVar("T")
Call = Callable[[], Awaitable[T]]


def cut_short(what: str, cause: BaseException | None = None) -> WorkInterrupted:
    """The error for work that somebody else has cancelled."""
    error = WorkInterrupted(f"{what}: cancelled by somebody else")
    error.__cause__ = cause
    return error


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
        # Noted as well, since a call that was not begun, or is about to be begun again, has no scope.
        self._cancel_requested = True
        if self._scope is not None:
            cancel_scope(self._scope)

    def end_within(self, seconds: float) -> None:
        """Cancel the call unless it ends within so many seconds from now. A deadline that is sooner holds."""
        self._deadline = min(self._deadline, anyio.current_time() + seconds)
        if self._scope is not None:
            self._scope.deadline = self._deadline

    async def wait(self) -> None:
        """Wait until the call has ended. Cancelling the wait does not cancel the call."""
        while not self._has_ended:
            await self._end.wait()

    async def aclose(self) -> None:
        """Cancel the call, and wait until it has cleaned up."""
        self.cancel()
        cancellation = await self._join()
        if cancellation is not None:
            raise cancellation

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
        owner = asyncio_task()
        if owner is None:
            # Entered and left by hand, for it spans the owner's own `__aenter__` and `__aexit__`.
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
                cancels = cancel_requests()
                try:
                    # On trio this task is within its owner's scopes, and a cancelled one must not reach the call.
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
            # The scope has taken in its own cancellation, and the call has not given a value.
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
        if cancel_requests() > cancels:
            # asyncio counts requests to cancel, and the scopes of anyio and of `asyncio.timeout` look at the count.
            forget_cancel_requests(cancels)
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
            # Somebody throws this coroutine away, and to wait again would be an error.
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - Task.cancel() and trio's Ctrl-C pass the shield
                cancellation = error
        return await self._leave_task() or cancellation

    async def _leave_task(self) -> BaseException | None:
        task, self._asyncio_task = self._asyncio_task, None
        if task is not None:
            # asyncio warns of an exception that nobody has asked the task for.
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
    # The work is done, but a cancellation may come while its task is left. Then its value is nobody's.
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

    # In a task of its own as well: whoever has cancelled every task may do so again.
    undoing = BackgroundTask(attempt, f"undoing {work.name}", again=attempt)
    undoing.end_within(seconds)
    await undoing.complete()
    if undoing.error is not None:
        why = "not done in time" if undoing.state is TaskState.CANCELLED else undoing.error
        logger.warning("%s was cancelled, and undoing it failed: %s", work.name, why)
