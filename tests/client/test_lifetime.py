"""A client's end while others wait, and its life over several event loops."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections import Counter

import anyio
import pytest
import uvloop

from enclave import EnclaveClient, RetryPolicy, UsageError
from tests.support import NO_WAITS
from tests.support.messages import response
from tests.support.plane import ControlPlane, Request


@pytest.mark.parametrize("retry", [None, NO_WAITS])
async def test_every_call_that_a_closing_client_cuts_off_is_told_that_it_is_closed(
    server: ControlPlane, retry: RetryPolicy | None
) -> None:
    client = EnclaveClient(server.base_url, retry=retry)
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


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_closed_client_needs_no_further_turn_of_its_loop(make_loop) -> None:
    async def main(base_url: str) -> None:
        async with EnclaveClient(base_url) as client:
            await client.health()

    with ControlPlane().in_thread() as plane:
        plane.route("GET", "/healthz", response({"ok": True}))
        loop = make_loop()
        loop.run_until_complete(main(plane.base_url))
        loop.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.collect()
        assert plane.connections == 1
