"""Churn: requests cancelled everywhere, twice, under contention, and just as they are served. The pool stays whole.

These are the ways in which httpcore's pool loses slots for good (encode/httpcore 550, 1093, 1115, encode/httpx 3782).
"""

from __future__ import annotations

import random

import anyio
import pytest

from enclave import ConnectTimeoutError, EnclaveError
from tests.support import PATIENCE_SECONDS
from tests.support.loops import ASYNCIO
from tests.support.messages import CHUNKED, OK
from tests.support.origin import Client, assert_whole, client_of, open_sockets, pool_of, read_all
from tests.support.wire import Peer, Server, flooding, in_thread, serve

pytestmark = pytest.mark.anyio


async def assert_usable(client: Client) -> None:
    """Whole, and as many requests at once as ever are served."""
    assert_whole(client)
    served = 0

    async def one() -> None:
        nonlocal served
        assert (await client.get("/ok", acquire=10)).content == b"hello"
        served += 1

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(pool_of(client).slots.total * 3):
                tasks.start_soon(one)
    assert served == pool_of(client).slots.total * 3
    assert_whole(client)


async def assert_only_idle_sockets_are_open(client: Client, sockets: int) -> None:
    """Two for each idle connection, for the server is in this process too, beside the `sockets` there were."""
    pool = pool_of(client)
    assert pool.open == set(pool.idle)
    with anyio.fail_after(PATIENCE_SECONDS):
        while open_sockets() > sockets + 2 * len(pool.idle):
            await anyio.lowlevel.checkpoint()


def fickle(chance: random.Random):
    """A server that answers in full, slowly, in part, or by closing."""

    async def script(peer: Peer, server: Server) -> None:
        while (request := await peer.request()) is not None:
            kind = "ok" if b"/ok" in request else chance.choice(["ok", "ok", "slow", "part", "stall", "close"])
            if kind == "close":
                return
            if kind == "stall":
                await peer.closed_by_client()
                return
            if kind == "part":
                await peer.send(CHUNKED + b"5\r\nhel")
                await peer.closed_by_client()
                return
            for piece in (OK[:20], OK[20:-2], OK[-2:]) if kind == "slow" else (OK,):
                await peer.send(piece)
                await anyio.lowlevel.checkpoint()

    return script


@pytest.mark.parametrize("seed", range(3))
async def test_requests_cancelled_at_random_points_leave_the_pool_whole(seed):
    chance = random.Random(seed)
    messages: list[str] = []
    cancelled = 0

    async def one(client: Client) -> None:
        nonlocal cancelled
        patience = chance.choice([0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3])
        is_stream = chance.random() < 0.3
        content = b"x" * chance.choice([0, 10, 200_000])
        with anyio.move_on_after(patience) as scope:
            try:
                await client.post("/", content=content, is_stream=is_stream)
            except EnclaveError as error:
                messages.append(str(error))
        cancelled += scope.cancelled_caught

    async with serve(fickle(chance)) as server, client_of(server, max_connections=4) as client:
        sockets = open_sockets()
        for _ in range(4):
            with anyio.fail_after(PATIENCE_SECONDS):
                async with anyio.create_task_group() as tasks:
                    for _ in range(40):
                        tasks.start_soon(one, client)
        await assert_usable(client)
        await assert_only_idle_sockets_are_open(client, sockets)
    assert cancelled
    assert all(messages)


async def test_a_request_cancelled_at_each_of_its_steps_in_turn_leaves_the_pool_whole():
    """Steps of the event loop, counted: no await of ours is left out."""

    async def script(peer: Peer, server: Server) -> None:
        while await peer.request() is not None:
            await peer.send(OK[:25])
            await anyio.lowlevel.checkpoint()
            await peer.send(OK[25:])

    async with serve(script) as server, client_of(server, max_connections=1) as client:
        sockets = open_sockets()
        for steps in range(40):
            for content in (b"", b"x" * 100_000):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(post, client, content)
                    for _ in range(steps):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()
                assert_whole(client)
                with anyio.fail_after(PATIENCE_SECONDS):
                    assert (await client.get("/ok")).content == b"hello"
        await assert_only_idle_sockets_are_open(client, sockets)


async def post(client: Client, content: bytes) -> None:
    await client.post("/", content=content)


async def test_queued_requests_cancelled_while_they_are_being_served_leave_the_pool_whole():
    async def script(peer: Peer, server: Server) -> None:
        while await peer.request() is not None:
            await peer.send(OK)

    async def one(client: Client, scope: anyio.CancelScope) -> None:
        with scope:
            await client.get("/")
            for other in scopes[:: max(1, len(scopes) // 7)]:
                other.cancel()  # strikes some in the queue, some just handed a slot, some in flight
            scopes.clear()

    async with serve(script) as server, client_of(server, max_connections=2) as client:
        for _ in range(15):
            scopes = [anyio.CancelScope() for _ in range(30)]
            with anyio.fail_after(PATIENCE_SECONDS):
                async with anyio.create_task_group() as tasks:
                    for scope in list(scopes):
                        tasks.start_soon(one, client, scope)
            assert_whole(client)
        await assert_usable(client)


async def test_pool_timeouts_that_strike_as_slots_are_handed_out_leave_the_pool_whole():
    async def script(peer: Peer, server: Server) -> None:
        while await peer.request() is not None:
            for _ in range(5):
                await anyio.lowlevel.checkpoint()
            await peer.send(OK)

    outcomes: list[str] = []

    async def one(client: Client, pool: float) -> None:
        try:
            await client.get("/", acquire=pool)
        except ConnectTimeoutError:
            outcomes.append("timeout")
        else:
            outcomes.append("served")

    async with serve(script) as server, client_of(server, max_connections=2) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(one, client, number / 2000)
        await assert_usable(client)
    assert len(outcomes) == 200
    assert set(outcomes) == {"timeout", "served"}


async def test_open_streams_cancelled_at_once_close_every_socket():
    opened = 0
    everybody = anyio.Event()

    async def script(peer: Peer, server: Server) -> None:
        while (request := await peer.request()) is not None:
            await peer.send(CHUNKED if b"/stream" in request else OK)

    async def one(client: Client) -> None:
        nonlocal opened
        async with client.stream("GET", "/stream", is_stream=True) as response:
            opened += 1
            if opened == 100:
                everybody.set()
            await read_all(response)

    async with serve(script) as server, client_of(server, seconds=None) as client:
        sockets = open_sockets()
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(one, client)
                await everybody.wait()
                tasks.cancel_scope.cancel()
        await assert_only_idle_sockets_are_open(client, sockets)
        await assert_usable(client)


@pytest.mark.parametrize("steps", range(6))
async def test_a_body_that_never_stops_coming_can_be_cancelled(steps):
    """Bytes are there before each wait, so the reader is never found waiting for any."""
    reading = anyio.Event()

    async def read(client: Client) -> None:
        async with client.stream(is_stream=True) as response:
            while await response.body.read():
                reading.set()

    # In a thread of its own: a server in the client's event loop would give way to the client.
    with in_thread(serve(flooding(CHUNKED, b"8000\r\n" + bytes(0x8000) + b"\r\n"))) as server:
        async with client_of(server) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(read, client)
            await reading.wait()
            for _ in range(steps):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert tasks.cancel_scope.cancelled_caught


@pytest.mark.parametrize("anyio_backend", [ASYNCIO], indirect=True)
async def test_a_task_cancelled_twice_by_its_event_loop_leaves_the_pool_whole():
    """The second cancellation strikes the close that the first one caused, where anyio's shield does not reach."""
    import asyncio  # noqa: PLC0415 - the point of this test is the event loop's own cancellation

    async def script(peer: Peer, server: Server) -> None:
        while (request := await peer.request()) is not None:
            await peer.send(OK if b"/ok" in request else CHUNKED)

    async def one(client: Client) -> None:
        async with client.stream() as response:
            await read_all(response)

    async with serve(script) as server, client_of(server, max_connections=2) as client:
        sockets = open_sockets()
        for steps in range(25):
            tasks = [asyncio.ensure_future(one(client)) for _ in range(5)]
            for _ in range(steps):
                await asyncio.sleep(0)
            for _ in range(2):
                for task in tasks:
                    task.cancel()
                await asyncio.sleep(0)
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(outcome, asyncio.CancelledError)
            assert_whole(client)
        await assert_usable(client)
        await assert_only_idle_sockets_are_open(client, sockets)
