"""One task that lives inside an ``async with`` block and never raises into it.

The task group's own scope is never cancelled and never sees the block's exception, so it has nothing to wrap: what the
block raises passes through as it is, and what the task has to say it leaves where the block will look.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from ._shielded import keep_interrupts_out, plain_exceptions, uninterrupted

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
