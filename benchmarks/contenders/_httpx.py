"""httpx with httpx-sse, the usual pair; the frames as dicts by json, or as Structs by msgspec."""

from __future__ import annotations

import codecs
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from httpx_sse import aconnect_sse
from httpx_sse._decoders import SSEDecoder, SSELineDecoder


def loads_for(variant: str) -> Callable[[str], Any]:
    """Only the one variant that borrows our types imports our package."""
    if variant == "json":
        return json.loads
    from enclave.types import KnownFrame  # noqa: PLC0415

    return msgspec.json.Decoder(KnownFrame).decode


class Client:
    """All streams and requests through one `httpx.AsyncClient`, its limits raised as far as they must be."""

    def __init__(self, client: httpx.AsyncClient, loads: Callable[[str], Any]) -> None:
        self._client = client
        self._loads = loads

    async def read(self, session_id: str) -> int:
        count = 0
        loads = self._loads
        async with aconnect_sse(self._client, "GET", f"/sessions/{session_id}/stream") as source:
            async for event in source.aiter_sse():
                loads(event.data)
                count += 1
        return count

    async def characters(self, session_id: str) -> int:
        total = 0
        async with aconnect_sse(self._client, "GET", f"/sessions/{session_id}/stream") as source:
            async for event in source.aiter_sse():
                total += len(json.loads(event.data).get("data", ""))
        return total

    async def hold(self, session_id: str, opened: Callable[[], None]) -> None:
        async with aconnect_sse(self._client, "GET", f"/sessions/{session_id}/stream") as source:
            async for event in source.aiter_sse():
                self._loads(event.data)
                opened()

    async def get(self, session_id: str) -> None:
        response = await self._client.get(f"/sessions/{session_id}")
        response.json()


@asynccontextmanager
async def connect(base_url: str, variant: str, connections: int | None) -> AsyncIterator[Client]:
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    async with httpx.AsyncClient(base_url=base_url, limits=limits, timeout=None) as client:
        yield Client(client, loads_for(variant))


def decoder(variant: str) -> Callable[[list[bytes]], int]:
    """httpx-sse's own two decoders, bytes to lines and lines to events, without httpx's layers around them."""
    loads = loads_for(variant)
    text_of = codecs.getincrementaldecoder("utf-8")

    def decode(reads: list[bytes]) -> int:
        count = 0
        text, lines, events = text_of(), SSELineDecoder(), SSEDecoder()
        for read in reads:
            for line in lines.decode(text.decode(read)):
                event = events.decode(line)
                if event is not None:
                    loads(event.data)
                    count += 1
        return count

    return decode
