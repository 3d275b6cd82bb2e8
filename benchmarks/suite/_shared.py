"""What several benchmarks name alike."""

from __future__ import annotations

LOOPS = {"asyncio": "enclave", "trio": "enclave-trio"}
"""Our rows that have targets. Where trio costs more in itself, its rows are goals, see `is_goal`."""
SMALL_STACK = ("enclave", "enclave-trio", "enclave-uvloop", "aiohttp-lines", "httpx-json")
"""The rows where it does not matter how frames are taken out of a read."""


BARE = ("bare", "bare-trio")
"""No client, only a task and a socket for each stream, with the calls that the event loops themselves offer."""
AIOHTTP = "aiohttp-lines"
"""The neighbour whose cost ours is held against."""


def label(size: int) -> str:
    """How a size is named in a table."""
    return f"{size:,}"


def is_goal(loop: str) -> bool:
    """Whether what asyncio must reach is no more than a goal on this loop, since the loop itself costs more."""
    return loop != "asyncio"
