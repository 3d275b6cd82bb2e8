"""One task that belongs to another one: how it is begun, cancelled and left on either event loop.

On trio the task is in a nursery of its own, on asyncio it is the task alone. Its owner is always one and the same task,
and cannot leave before it has ended. A task group of anyio's would do nothing that is not done here, and keep a handle,
a scope and an event for each task. There are thousands of streams.

A stream's reader is such a task. So is work that must end although its owner is cancelled, see `_tasks.py`.

Ctrl-C under trio is kept out of these tasks, and has to be kept out of what owns them. So whatever begins a task, or
waits for its end, is called from a function that is marked as `uninterrupted`: the mark holds for all it calls.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from ._groups import plain_exceptions
from ._loop import (
    Wakeup,
    asyncio_task,
    cancel_scope,
    keep_interrupts_out,
    open_nursery,
)
from .errors import WorkInterrupted


def cut_short(what: str, cause: BaseException | None = None) -> WorkInterrupted:
    """The error for work that somebody else has cancelled."""
    error = WorkInterrupted(f"{what}: cancelled by somebody else")
    error.__cause__ = cause
    return error


class OwnedTask:
    """What one task does, in `_run`, for its owner. What `_run` has to say is kept for the owner, and not raised.

    `_run` works within scopes that it gets from `_new_scope`, one after the other. What it awaits outside of them does
    not wait, or shields itself: under trio the owner's scopes reach it there.

    Args:
        name: what it does, for people who look at tasks, and for messages.
    """

    __slots__ = (
        "_asyncio_task",
        "_end",
        "_has_ended",
        "_has_stepped",
        "_nursery",
        "_scope",
        "_waits_unshielded",
        "cancel_requested",
        "name",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.cancel_requested = False
        """Whether `cancel` or `aclose` was called."""
        self._scope: anyio.CancelScope | None = None
        self._asyncio_task: Any = None
        self._nursery: Any = None  # on trio
        self._has_stepped = False
        self._has_ended = False
        self._end: Wakeup | None = None  # exists while somebody waits
        # On asyncio such a task can be cancelled past its scope, which takes one turn of the event loop and not three.
        self._waits_unshielded = False

    async def _run(self) -> None:
        """What the task does. It is `uninterrupted`, sets `_has_stepped` first, and calls `_set_ended` last."""
        raise NotImplementedError

    def _has_never_begun(self) -> bool:
        """Told that the task was cancelled before its first step. Gives whether to begin another one."""
        raise NotImplementedError

    def _new_scope(self, deadline: float = math.inf) -> anyio.CancelScope:
        """What to do a part of the work in. `cancel` cancels it, and what cancels the owner does not."""
        # On trio the task is within the scopes of its owner.
        self._scope = scope = anyio.CancelScope(deadline=deadline, shield=True)
        if self.cancel_requested:
            scope.cancel()
        return scope

    @property
    def has_begun(self) -> bool:
        """Whether there is, or was, a task. It may not have had its first step."""
        return self._has_stepped or self._has_ended or self._asyncio_task is not None or self._nursery is not None

    async def start(self) -> None:
        """Begin the task. `aclose` must follow, whatever this raises."""
        cancellation = await self._begin()
        if cancellation is not None:
            raise cancellation

    def cancel(self) -> None:
        """Cancel what it does. From any task."""
        # Noted as well, since a task that has not begun, or is between two scopes, has none.
        self.cancel_requested = True
        if self._asyncio_task is not None and self._waits_unshielded:
            self._asyncio_task.cancel()
        elif self._scope is not None:
            cancel_scope(self._scope)

    async def wait(self) -> None:
        """Wait until it has ended. Cancelling the wait does not cancel the task."""
        while not self._has_ended:
            await self._next_end()

    async def aclose(self) -> None:
        """Cancel what it does, and wait until it has cleaned up."""
        self.cancel()
        cancellation = await self._join()
        if cancellation is not None:
            raise cancellation

    def _next_end(self) -> Awaitable[None]:
        """What ends with the task, if that has not ended yet. It is awaited at once."""
        if self._end is None:
            self._end = Wakeup()
        return self._end.wait()

    def _set_ended(self) -> None:
        self._has_ended = True
        self._scope = None
        if self._end is not None:
            self._end.wake()

    async def _begin(self) -> BaseException | None:
        """Begin the task. Give what cancelled the owner meanwhile."""
        keep_interrupts_out()
        cancellation: BaseException | None = None
        while True:
            await self._enter()
            try:
                # asyncio steps tasks in the order of their creation, so the task has had its first step after this.
                await cancel_shielded_checkpoint()
            except BaseException as error:  # noqa: BLE001 - given to the owner, who raises it
                cancellation = error
            if self._has_stepped or self._asyncio_task is None:
                return cancellation
            # A task that is cancelled before its first step never begins, and nothing in it can know.
            if not self._has_never_begun():
                return cancellation

    async def _enter(self) -> None:
        name = f"enclave: {self.name}"
        owner = asyncio_task()
        if owner is None:
            # Entered and left by hand, for it spans the owner's own `__aenter__` and `__aexit__`.
            self._nursery = open_nursery()
            nursery = await self._nursery.__aenter__()
            nursery.start_soon(self._run, name=name)
        else:
            self._asyncio_task = owner.get_loop().create_task(self._run(), name=name)

    async def _join(self) -> BaseException | None:
        """Wait for the end of the task, and leave it. Give what cancelled the owner meanwhile."""
        if self._asyncio_task is None and self._nursery is None:
            return None
        cancellation: BaseException | None = None
        while not self._has_ended:
            try:
                # The wait is bounded: the task was cancelled before, or has a deadline.
                with anyio.CancelScope(shield=True):
                    await self._next_end()
            # Somebody throws this coroutine away, and to wait again would be an error.
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - Task.cancel() and trio's Ctrl-C pass the shield
                cancellation = error
        task, self._asyncio_task = self._asyncio_task, None
        if task is None:
            return await self._leave_nursery() or cancellation
        # asyncio warns of an exception that nobody has asked the task for.
        failure: BaseException | None = None if task.cancelled() else task.exception()
        return failure or cancellation

    async def _leave_nursery(self) -> BaseException | None:
        nursery, self._nursery = self._nursery, None
        if nursery is None:
            return None
        try:
            with plain_exceptions():
                await nursery.__aexit__(None, None, None)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - as above
            return error
        return None
