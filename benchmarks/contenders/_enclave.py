"""Ours, by its public names."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from enclave import EnclaveClient, Verdict
from enclave.types import StdoutFrame


class ByFrame:
    """`async for frame in frames`."""

    def __init__(self, client: EnclaveClient) -> None:
        self._client = client

    async def read(self, session_id: str) -> int:
        count = 0
        async with self._client.stream(session_id) as frames:
            async for _ in frames:
                count += 1
        return count

    async def characters(self, session_id: str) -> int:
        total = 0
        async with self._client.stream(session_id) as frames:
            async for frame in frames:
                if isinstance(frame, StdoutFrame):
                    total += len(frame.data)
        return total

    async def hold(self, session_id: str, opened: Callable[[], None]) -> None:
        async with self._client.stream(session_id) as frames:
            async for _ in frames:
                opened()

    async def get(self, session_id: str) -> None:
        await self._client.get(session_id)

    async def fan_out(self, count: int, max_concurrency: int) -> int:
        succeeded = 0
        async with self._client.fan_out(["x"] * count, max_concurrency=max_concurrency) as outcomes:
            async for outcome in outcomes:
                succeeded += outcome.verdict is Verdict.SUCCEEDED
        return succeeded


class ByBatch(ByFrame):
    """`async for batch in frames.batches()`."""

    async def read(self, session_id: str) -> int:
        count = 0
        async with self._client.stream(session_id) as frames:
            async for batch in frames.batches():
                for _ in batch:
                    count += 1
        return count


VARIANTS = {"frames": ByFrame, "batches": ByBatch}


@asynccontextmanager
async def connect(base_url: str, variant: str, connections: int | None) -> AsyncIterator[ByFrame]:  # noqa: ARG001
    async with EnclaveClient(base_url) as client:
        yield VARIANTS[variant](client)
