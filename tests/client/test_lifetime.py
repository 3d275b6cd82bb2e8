"""A client's end while others wait, and its life over several event loops."""

from __future__ import annotations

import gc
from collections import Counter

import anyio
import pytest

from enclave import EnclaveClient, UsageError
from tests.support.plane import ControlPlane, Request


async def test_every_call_that_a_closing_client_cuts_off_is_told_that_it_is_closed(
    server: ControlPlane, client: EnclaveClient
) -> None:
    outcomes: Counter[str] = Counter()
    waiting = anyio.Event()

    async def hold(request: Request) -> None:
        if len(server.requests) == 100:
            waiting.set()
        await request.gone()

    async def call() -> None:
        with pytest.raises(UsageError, match="closed"):
            await client.get("s")
        outcomes["closed"] += 1

    server.route("GET", "/sessions/s", hold)
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for _ in range(120):
                tasks.start_soon(call)
            await waiting.wait()
            await client.aclose()
    assert outcomes == {"closed": 120}


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # asyncio's, for sockets that outlived their loop
def test_one_client_serves_one_event_loop_after_another() -> None:
    with ControlPlane().in_thread() as plane:
        client = EnclaveClient(plane.base_url, retry=None, timeout=5)

        async def use() -> bool:
            return (await client.health()).ok and (await client.health()).ok

        for backend in ("asyncio", "asyncio", "trio", "trio", "asyncio"):
            assert anyio.run(use, backend=backend)
        anyio.run(client.aclose, backend="trio")
        gc.collect()  # while the warnings are ignored
