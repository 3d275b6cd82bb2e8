"""A `Call`, which a thread waits for, and `Held`, a block that a task holds open while threads do other things."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio

from enclave._log import logger
from enclave._owned_task import cut_short
from enclave.errors import UsageError

from ._loop import Cancelled, Errand, EventLoop, Mail, Task, closed

T = TypeVar("T")


class _Cancellable:
    """What runs in a task that may be cancelled at any moment.

    asyncio ends a task that is cancelled before its first step without running any of it, so whoever waits for it would
    never be told. Here such a task is cancelled at its first step.
    """

    _task: Task | None = None
    _has_begun = False
    _is_cancelled = False

    def _cancel(self) -> None:
        self._is_cancelled = True
        if self._task is not None and self._has_begun:
            self._task.cancel()

    def _begin(self) -> None:
        self._has_begun = True
        if self._is_cancelled:
            raise Cancelled


class Call(_Cancellable, Generic[T]):
    """A coroutine that runs on the loop, in the context of the thread that made the call.

    ::

        POSTED ──> RUNNING ──> ENDED           its value or its error is the caller's
                      └──────> GIVEN UP        the caller was interrupted: cancelled, or undone if it had a value

    Args:
        loop: where it runs.
        coroutine: what to run.
        undo: what to do with the value if the caller was interrupted and never got it.
    """

    def __init__(
        self, loop: EventLoop, coroutine: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[None]] | None = None
    ) -> None:
        self.loop = loop
        """Where it runs."""
        self._coroutine = coroutine
        self._undo = undo
        self._mail: Mail = SimpleQueue()
        self._given_up = False
        self._values: list[T] = []
        self._error: BaseException | None = None

    def wait(self, *, patient: bool = True) -> T:
        """Run the coroutine, and wait for it. An exception that is raised here by a signal handler cancels it.

        It is raised when the coroutine has ended, or at once if the caller is not `patient`.

        Raises:
            What the coroutine raises. UsageError: the client is closed.
        """
        try:
            self.loop.post(self._start, copy_context())
            self.loop.wait(self._mail)
            # From here to the return nothing is called, so no signal handler can run, and no value be lost.
            error, self._error = self._error, None
            self._undo = None
            if error is None:
                return self._values[0]
        except BaseException:
            self._give_up(wait=patient)
            raise
        try:
            raise error
        finally:
            del error  # its traceback has this frame, which would keep it

    def ask(self, errand: Errand) -> None:
        """Have the thread that waits do something."""
        self.loop.tell(self._mail, errand)

    def end(self) -> None:
        """Cancel the coroutine. On the loop."""
        self._cancel()

    def _give_up(self, *, wait: bool) -> None:
        gone: Mail = SimpleQueue()
        try:
            self.loop.post(self._abandon, gone)
        except UsageError:  # the loop is closed, so this never began or is through
            self._coroutine.close()
            return
        if wait:
            self.loop.wait(gone)

    def _start(self, context: Context) -> None:
        if self._given_up or self.loop.closing:
            self._coroutine.close()
            self._error = closed()
            self.loop.tell(self._mail)
            return
        self.loop.calls.add(self)
        self._task = self.loop.start(self._run(), context)

    async def _run(self) -> None:
        try:
            self._begin()
            self._values.append(await self._coroutine)
        except Cancelled as error:
            # Where the caller gave up, nobody sees this.
            self._error = closed() if self.loop.closing else cut_short("a call", error)
        except BaseException as error:  # noqa: BLE001 - the caller raises it
            self._error = error
        self._coroutine.close()  # does nothing, unless this was cancelled before it began
        self.loop.has_ended(self)
        self.loop.tell(self._mail)

    def _abandon(self, gone: Mail) -> None:
        self._given_up = True
        if self._task is None:
            self._coroutine.close()
            self.loop.tell(gone)
        else:
            self._cancel()
            self._task.add_done_callback(lambda _: self._undo_value(gone))

    def _undo_value(self, gone: Mail) -> None:
        if self._undo is None or not self._values:
            self.loop.tell(gone)
        else:
            self._undoing = self.loop.start(_logged(self._undo(self._values.pop())))
            self._undoing.add_done_callback(lambda _: self.loop.tell(gone))


async def _logged(undoing: Awaitable[None]) -> None:
    try:
        await undoing
    except Exception as error:  # noqa: BLE001 - the caller raises the interrupt
        logger.warning("a call was interrupted, and undoing it failed: %s", error)


class Held(_Cancellable, Generic[T]):
    """An async context manager in a task of its own, which enters it and leaves it: a task group demands one task.

    ::

        NEW ──> ENTERING ──> OPEN ──> LEAVING ──> OVER
                    └──────────(failed)────────────┘

    Context variables that entering or leaving sets, as a tracer does, are set in the caller's thread as well.
    """

    def __init__(self, loop: EventLoop, block: AbstractAsyncContextManager[T]) -> None:
        self._loop = loop
        self._block = block
        self._context = copy_context()
        self._callers_context = self._context
        self._values: list[T] = []
        self._error: BaseException | None = None
        self._body_error: BaseException | None = None
        self._is_attended = True  # somebody waits for the end, and is told what went wrong
        self._entered = anyio.Event()
        self._leaving = anyio.Event()
        self._over = anyio.Event()

    @property
    def is_over(self) -> bool:
        """Whether the block was left, or ended together with the client."""
        return self._over.is_set()

    @property
    def is_of_this_process(self) -> bool:
        """Whether the block was entered here, and not by the process that this one was forked from."""
        return self._loop.pid == os.getpid()

    def enter(self) -> T:
        """Enter, and give what that gives. If the caller is interrupted, leave again."""
        before = self._context.copy()
        value = Call(self._loop, self._enter(), self._undo).wait()
        _take_over(self._context, before)
        return value

    def leave(self, body_error: BaseException | None = None) -> None:
        """Leave. If the caller is interrupted, it waits for that all the same."""
        self._loop.check_thread()
        self._callers_context = before = copy_context()
        try:
            # A block that an interrupt has ended needs one more for its caller to go: cleaning up goes on without it.
            Call(self._loop, self._leave(body_error)).wait(
                patient=body_error is None or isinstance(body_error, Exception)
            )
        finally:
            _take_over(self._context, before)

    def leave_soon(self) -> None:
        """Leave without waiting, for finalizers: in any thread, and at any moment."""
        if self.is_of_this_process and not self.is_over:
            with suppress(UsageError):  # the client is closed
                self._loop.post(self.end)

    def end(self) -> None:
        """Leave, or stop entering. On the loop."""
        self._is_attended = False
        if self._values:
            self._leaving.set()
        else:
            self._cancel()

    async def _enter(self) -> T:
        self._task = self._loop.start(self._hold(), self._context)
        self._loop.blocks.add(self)
        try:
            await self._entered.wait()
        except Cancelled:
            self.end()
            await self._over.wait()
            raise
        self._raise_error()
        return self._values[0]

    async def _undo(self, _: T) -> None:
        self.end()
        await self._over.wait()

    async def _leave(self, body_error: BaseException | None) -> None:
        self._body_error = body_error
        self._leaving.set()
        try:
            await self._over.wait()
        except Cancelled:
            # The block hears of it, as it would in the task of an async caller. What it tears down has a deadline.
            self._cancel()
            await self._over.wait()
            raise
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    async def _hold(self) -> None:
        try:
            self._begin()
            self._values.append(await self._block.__aenter__())
            self._entered.set()
            await self._leaving.wait()
            _take_over(self._callers_context, self._context)
            error, self._body_error = self._body_error, None
            await self._block.__aexit__(None if error is None else type(error), error, None)
        except BaseException as error:  # noqa: BLE001 - raised in the thread that enters or leaves
            self._error = error
            if not self._is_attended and isinstance(error, Exception):
                logger.warning("a block was left because its client or the program ended, and that failed: %s", error)
        finally:
            self._entered.set()
            self._over.set()
            self._loop.has_ended(self)


def _take_over(changed: Context, before: Context) -> None:
    """Set the context variables that have another value in `changed` than `before`."""
    for variable, value in changed.items():
        if variable not in before or before[variable] is not value:
            variable.set(value)
