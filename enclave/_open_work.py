"""What a client that closes must not leave behind: the sessions of open blocks, and work on sessions that is under way.

Blocks are left before the client is closed, as their ``async with`` is within that of the client. But a service cancels
the tasks of its requests and closes its client in the next moment, before they had a turn to leave their blocks.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

import anyio

from ._loop import Wakeup, uninterrupted
from ._tasks import BackgroundTask


class OpenBlock(Protocol):
    """A block that holds a session."""

    async def tear_down(self) -> None:
        """Tear the session down in the place of whoever leaves the block. Raises nothing but a cancellation."""
        ...


class OpenWork:
    """What a client has open in one event loop."""

    def __init__(self) -> None:
        self._blocks: set[OpenBlock] = set()
        self._under_way = 0
        self._changed = Wakeup()
        self.is_closing = False
        """Whether the client is being closed. It begins nothing new then."""

    def add(self, block: OpenBlock) -> None:
        """The block holds a session from now on."""
        self._blocks.add(block)

    def remove(self, block: OpenBlock) -> None:
        """The block is being left, or its session is gone."""
        self._blocks.discard(block)

    @contextmanager
    def under_way(self) -> Generator[None]:
        """While a session is being created or torn down."""
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self._changed.wake()

    @uninterrupted
    async def close(self, seconds: float) -> BaseException | None:
        """Tear down what open blocks hold and wait for all that is under way, for so many seconds at most.

        Gives what cancelled the caller meanwhile, to be raised when the client is closed.
        """
        self.is_closing = True
        if not self._blocks and not self._under_way:
            return None
        work = BackgroundTask(self._settle, "closing the client", again=self._settle)
        work.end_within(seconds)
        return await work.complete()

    async def _settle(self) -> None:
        while self._blocks or self._under_way:
            if not self._blocks:
                await self._changed.wait()
                continue
            async with anyio.create_task_group() as tasks:
                for block in self._blocks:
                    tasks.start_soon(block.tear_down)
