"""A client's end while others wait, and its life over several event loops."""

from __future__ import annotations

import gc
import socket
import threading
from collections import Counter

import anyio
import pytest

from enclave import EnclaveClient, RetryPolicy, UsageError
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.loops import ASYNCIO, TRIO, UVLOOP
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
    with anyio.fail_after(PATIENCE_SECONDS):
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


@pytest.mark.parametrize("anyio_backend", [ASYNCIO, UVLOOP, TRIO])
async def test_the_connections_of_a_closed_client_are_closed_although_its_loop_has_no_further_turn() -> None:
    is_closed = threading.Event()

    def answer_once(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.recv(65_536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b'{"ok":true}')
            if connection.recv(1) == b"":
                is_closed.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once, args=[listener], daemon=True)
        thread.start()
        async with EnclaveClient(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            assert (await client.health()).ok
        assert is_closed.wait(PATIENCE_SECONDS)  # which blocks the event loop
        thread.join()
