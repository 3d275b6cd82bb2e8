"""Work in a task of its own, which ends in one of two ways.

- with its owner. The feeder of a fan-out is cancelled when its block is left.
- on its own terms, although its owner is cancelled. That is work that must end: learning the id of a session that is
  being created, and tearing a session down. See `BackgroundTask.complete` and `finish_or_undo`.

A shielded scope alone would not do for work that must end. Under asyncio `Task.cancel` goes through shields, into
whatever the task awaits, and so do `asyncio.timeout`, and Ctrl-C through `asyncio.run`. A task of its own is out of
reach of whoever cancels the caller. It is not out of reach of whoever cancels every task there is: the end of
`asyncio.run`, a handler of SIGTERM, a web server whose patience is over. So work that must end is begun again when
somebody else has cut it short, and its owner, who was cancelled as well, remembers that and waits. This works because
all those who cancel every task then wait for these tasks to end. Every wait here that ignores cancellation has a
deadline.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

import anyio

from ._log import logger
from ._loop import cancel_requests, cancelled_by_others, current_time, forget_cancel_requests, uninterrupted
from ._owned_task import OwnedTask, cut_short

T = TypeVar("T")
Call = Callable[[], Awaitable[T]]


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


class BackgroundTask(OwnedTask, Generic[T]):
    """A call in a task of its own. Its owner begins it and waits for its end.

    The call is shielded from what cancels the owner. An owner that is cancelled and shielded itself still gets what the
    call brings, and cancels it when it leaves.

    Args:
        call: what to run.
        name: what it is, for people who look at tasks, and for messages.
        again: what to run in the place of `call` after somebody else has cut it short. With it, the call is work that
            must end, and the owner must set it a deadline once it no longer wants to wait. Without it, being cut short
            is the end.
    """

    __slots__ = ("_again", "_call", "_deadline", "_error", "_value", "seconds", "state")

    def __init__(self, call: Call[T], name: str, *, again: Call[T] | None = None) -> None:
        super().__init__(name)
        self.state = TaskState.NEW
        self.seconds = 0.0
        """How long the call ran, once it has ended."""
        self._call = call
        self._again = again
        self._deadline = math.inf
        self._value: T | None = None
        self._error: BaseException | None = None

    async def start(self) -> None:
        """Begin the call. `aclose` must follow, whatever this raises.

        Raises:
            WorkInterrupted: somebody else cancelled the task before its first step, and there is no `again`.
        """
        await super().start()
        if self.state is TaskState.INTERRUPTED:
            raise self._failure()

    def end_within(self, seconds: float) -> None:
        """Cancel the call unless it ends within so many seconds from now. A deadline that is sooner holds."""
        self._deadline = min(self._deadline, anyio.current_time() + seconds)
        if self._scope is not None:
            self._scope.deadline = self._deadline

    async def complete(self) -> BaseException | None:
        """Wait until the call has ended, beginning it if it is new, and ignore all cancellation meanwhile.

        Gives what cancelled the owner by other means than a scope, for the owner to raise when it has done what is
        left to do. A scope that was cancelled shows at the owner's next checkpoint.
        """
        first = None if self.has_begun else await self._begin()
        second = await self._join()
        return first or second

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

    def _has_never_begun(self) -> bool:
        if self._again is not None:
            return True
        self._interrupted(None)
        return False

    @uninterrupted
    async def _run(self) -> None:
        self._has_stepped = True
        self.state = TaskState.RUNNING
        began = current_time()
        call: Call[T] | None = self._call
        try:
            while call is not None:
                cancels = cancel_requests()
                try:
                    with self._new_scope(self._deadline):
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
            self.seconds = current_time() - began
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
