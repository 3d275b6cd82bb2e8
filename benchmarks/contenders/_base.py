"""What an adapter offers. Each reads as its users would, with nothing in the timed loop besides."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol


class Client(Protocol):
    """One client library, connected to the source."""

    async def read(self, session_id: str) -> int:
        """Read a stream to its end, decode every frame, and return how many there were."""
        ...

    async def characters(self, session_id: str) -> int:
        """The same, but return how much text the stdout frames carried. Not timed: it proves that all arrives."""
        ...

    async def hold(self, session_id: str, opened: Callable[[], None]) -> None:
        """Call `opened` for every frame of a stream, until cancelled."""
        ...

    async def get(self, session_id: str) -> None:
        """Request one session and decode it."""
        ...

    async def fan_out(self, count: int, max_concurrency: int) -> int:
        """Run so many sessions, at most so many at once, and return how many succeeded."""
        ...


class Adapter(Protocol):
    """A module of this package. One that cannot do a job has no such function."""

    def connect(self, base_url: str, variant: str, connections: int | None) -> AbstractAsyncContextManager[Client]:
        """Make a client; `connections` bounds how many its requests share, None leaves streams without a bound."""
        ...

    def decoder(self, variant: str) -> Callable[[list[bytes]], int]:
        """A function that decodes the body of a stream, given as reads, and returns the number of frames."""
        ...

    def compare(self, base_url: str, **parameters: Any) -> dict[str, float]:
        """Measure two clients in turn, in one process, and give what the second takes more than the first."""
        ...
