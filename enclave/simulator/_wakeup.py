"""What all who wait for a change of some state wait on. Imports anyio only."""

from __future__ import annotations

import anyio


class Wakeup:
    """Wakes whoever waits now. Unlike an `anyio.Event` it can be used again and again.

    A waiter looks at its condition, and waits while that does not hold. Nothing is awaited between the two, so no
    wake-up can fall between them.
    """

    def __init__(self) -> None:
        self._event: anyio.Event | None = None  # made by the first who waits, since a loop must run for that

    async def wait(self) -> None:
        """Wait for the next `wake`."""
        if self._event is None:
            self._event = anyio.Event()
        await self._event.wait()

    def wake(self) -> None:
        """Wake all who wait."""
        if self._event is not None:
            self._event.set()
            self._event = None
