"""aiohttp with json: by line, as its documentation reads streams, and by read, as a user in need of speed would."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

DATA = b"data:"


class ByLine:
    """`async for line in response.content`."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def read(self, session_id: str) -> int:
        count = 0
        async with self._session.get(f"/sessions/{session_id}/stream") as response:
            async for line in response.content:
                if line.startswith(DATA):
                    json.loads(line[5:])
                    count += 1
        return count

    async def _frames(self, session_id: str, seen: Callable[[Any], None]) -> None:
        async with self._session.get(f"/sessions/{session_id}/stream") as response:
            async for line in response.content:
                if line.startswith(DATA):
                    seen(json.loads(line[5:]))

    async def characters(self, session_id: str) -> int:
        lengths: list[int] = []
        await self._frames(session_id, lambda frame: lengths.append(len(frame.get("data", ""))))
        return sum(lengths)

    async def hold(self, session_id: str, opened: Callable[[], None]) -> None:
        await self._frames(session_id, lambda _: opened())

    async def get(self, session_id: str) -> None:
        async with self._session.get(f"/sessions/{session_id}") as response:
            await response.json()


class ByRead(ByLine):
    """Whatever has arrived at once, cut at the blank lines. Short, and far from all that SSE allows."""

    async def read(self, session_id: str) -> int:
        count = 0
        rest = b""
        async with self._session.get(f"/sessions/{session_id}/stream") as response:
            async for read in response.content.iter_any():
                *events, rest = (rest + read).split(b"\n\n")
                for event in events:
                    json.loads(event[event.index(DATA) + 5 :])
                    count += 1
        return count


VARIANTS = {"lines": ByLine, "reads": ByRead}


@asynccontextmanager
async def connect(base_url: str, variant: str, connections: int | None) -> AsyncIterator[ByLine]:
    connector = aiohttp.TCPConnector(limit=connections or 0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(base_url, connector=connector, timeout=timeout) as session:
        yield VARIANTS[variant](session)
