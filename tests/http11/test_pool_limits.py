"""How many connections there are at once: the slots of requests, and the turns of streams to connect."""

from __future__ import annotations

import anyio
import pytest

from enclave import ConnectError, ConnectTimeoutError, UsageError
from enclave._slots import Slots
from enclave.transport._time_limit import TimeLimit
from enclave.transport.http11._connection import Connection
from enclave.transport.http11._pool import MAX_STREAMS_DIALLED, Lease, Pool
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED, OK
from tests.support.origin import assert_whole, client_of, pool_of
from tests.support.wire import Peer, Server, serve

pytestmark = pytest.mark.anyio


async def test_requests_at_once_share_no_more_connections_than_allowed_and_all_are_served():
    busy = most = 0

    async def script(peer: Peer, server: Server) -> None:
        nonlocal busy, most
        while await peer.request() is not None:
            busy += 1
            most = max(most, busy)
            await anyio.lowlevel.checkpoint()
            busy -= 1
            await peer.send(OK)

    async with serve(script) as server, client_of(server, max_connections=3) as client:
        answers = []

        async def one() -> None:
            answers.append((await client.get("/")).content)

        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                for _ in range(60):
                    tasks.start_soon(one)
        assert_whole(client)
    assert answers == [b"hello"] * 60
    assert most <= 3
    assert server.connections <= 3


async def test_streams_are_neither_limited_nor_pooled_and_starve_nobody():
    async def script(peer: Peer, server: Server) -> None:
        while (request := await peer.request()) is not None:
            await peer.send(CHUNKED if b"/stream" in request else OK)

    async with serve(script) as server, client_of(server, max_connections=1) as client:
        async with anyio.create_task_group() as tasks:
            opened = 0
            all_open, leave = anyio.Event(), anyio.Event()

            async def stream() -> None:
                nonlocal opened
                async with client.stream("GET", "/stream", is_stream=True):
                    opened += 1
                    if opened == 30:
                        all_open.set()
                    await leave.wait()

            for _ in range(30):
                tasks.start_soon(stream)
            with anyio.fail_after(PATIENCE_SECONDS):
                await all_open.wait()
                assert (await client.get("/")).content == b"hello"
            leave.set()
        assert len(pool_of(client).open) == 1
        assert_whole(client)


async def test_slots_are_handed_out_in_order_and_cancelled_waiters_leave_the_queue():
    slots = Slots(1)
    assert slots.take()
    order = []
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def waiter(number: int) -> None:
        with scopes[number]:
            await slots.wait()
            order.append(number)

    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(waiter, number)
                await anyio.wait_all_tasks_blocked()
            scopes[1].cancel()
            await anyio.wait_all_tasks_blocked()
            assert slots.waiting == 3
            for _ in range(3):
                slots.release()
                await anyio.wait_all_tasks_blocked()
    assert order == [0, 2, 3]
    slots.release()
    assert (slots.free, slots.waiting) == (1, 0)


async def test_a_slot_handed_to_a_waiter_that_is_cancelled_at_that_moment_is_not_lost():
    slots = Slots(1)
    for release_first in (True, False):
        assert slots.take()
        with anyio.fail_after(PATIENCE_SECONDS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(slots.wait)
                await anyio.wait_all_tasks_blocked()
                if release_first:
                    slots.release()
                    tasks.cancel_scope.cancel()
                else:
                    tasks.cancel_scope.cancel()
                    slots.release()
        held = 1 - slots.free
        assert slots.waiting == 0
        for _ in range(held):  # trio lets a waiter keep what it was handed before the cancellation
            slots.release()
        assert slots.free == 1


async def test_a_waiter_whose_time_is_up_goes_away_empty_handed():
    slots = Slots(1)
    assert slots.take()
    assert not slots.take()
    with anyio.move_on_after(0.01) as scope:
        await slots.wait()
    assert scope.cancelled_caught
    assert slots.waiting == 0
    slots.release()
    assert slots.free == 1


class Dials:
    """Makes nothing until told to, and counts how many are at it."""

    def __init__(self) -> None:
        self.running = self.most = self.begun = 0
        self.proceed = anyio.Event()

    async def dial(self, seconds: float | None, limit: TimeLimit) -> Connection:
        self.running += 1
        self.begun += 1
        self.most = max(self.most, self.running)
        try:
            await self.proceed.wait()
        finally:
            self.running -= 1
        raise ConnectError("there is no server")


def pool_on(dials: Dials) -> Pool:
    return Pool(dials.dial, peer="localhost:1", max_connections=1, keepalive_seconds=1)


async def lease_stream(pool: Pool, acquire_seconds: float | None = None) -> None:
    lease = Lease(pool, is_stream=True)
    limit = TimeLimit(None, "")
    limit.step(acquire_seconds, pool.no_turn)
    with limit:
        await lease.connect(None, limit)


async def test_of_thousands_of_streams_opened_at_once_few_are_dialled_at_once():
    dials, failed = Dials(), []
    pool = pool_on(dials)

    async def one() -> None:
        try:
            await lease_stream(pool)
        except ConnectError as error:
            failed.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            tasks.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        assert dials.most == dials.running == MAX_STREAMS_DIALLED
        dials.proceed.set()
    assert len(failed) == 1000
    assert dials.most == MAX_STREAMS_DIALLED


async def test_streams_that_wait_to_be_dialled_can_be_cancelled_and_give_up_in_time():
    dials = Dials()
    pool = pool_on(dials)
    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_STREAMS_DIALLED):
            tasks.start_soon(lease_stream, pool)
        await anyio.wait_all_tasks_blocked()
        with anyio.move_on_after(0) as scope:
            await lease_stream(pool)
        assert scope.cancelled_caught
        with pytest.raises(ConnectTimeoutError, match=r"was begun within 0\.05 s"):
            await lease_stream(pool, 0.05)
        tasks.cancel_scope.cancel()
    assert dials.begun == MAX_STREAMS_DIALLED
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lease_stream, pool)
        await anyio.wait_all_tasks_blocked()
        assert dials.running == 1
        tasks.cancel_scope.cancel()


async def test_a_pool_that_closes_sends_away_the_streams_that_wait_to_be_dialled():
    dials, refused = Dials(), []
    pool = pool_on(dials)

    async def one() -> None:
        try:
            await lease_stream(pool)
        except UsageError as error:
            refused.append(error)

    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_STREAMS_DIALLED + 10):
            tasks.start_soon(one)
        await anyio.wait_all_tasks_blocked()
        await pool.aclose()
        await anyio.wait_all_tasks_blocked()
        assert len(refused) == 10
        with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(UsageError):
            await lease_stream(pool)
        tasks.cancel_scope.cancel()
