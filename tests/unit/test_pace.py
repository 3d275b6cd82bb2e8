"""Thousands of beginnings at the same moment leave the event loop free for everything else."""

from __future__ import annotations

from collections import Counter

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from enclave import EnclaveClient, EndFrame
from enclave._pace import BEGUN_PER_TURN, begin_in_turn
from tests.support import PATIENCE_SECONDS
from tests.support.messages import END
from tests.support.scripted_transport import ScriptedTransport, sse

pytestmark = pytest.mark.anyio


async def test_few_go_on_in_each_turn_of_the_loop_in_their_order():
    order: list[int] = []
    between: list[int] = []

    async def one(number: int) -> None:
        await begin_in_turn()
        order.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(BEGUN_PER_TURN * 10):
            tasks.start_soon(one, number)
        while len(order) < BEGUN_PER_TURN * 10:
            await checkpoint()
            between.append(len(order))
    steps = [now - before for before, now in zip([0, *between], between, strict=False)]
    assert max(steps) <= 2 * BEGUN_PER_TURN  # trio runs the tasks of a turn in no certain order
    assert sorted(order) == list(range(BEGUN_PER_TURN * 10))


async def test_one_alone_goes_on_at_once_and_a_cancelled_one_keeps_no_place():
    for _ in range(3 * BEGUN_PER_TURN):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await begin_in_turn()
        assert scope.cancelled_caught
    with anyio.fail_after(PATIENCE_SECONDS):
        async with anyio.create_task_group() as tasks:
            for _ in range(2 * BEGUN_PER_TURN):
                tasks.start_soon(begin_in_turn)
            tasks.cancel_scope.cancel()
        await begin_in_turn()


async def test_streams_that_are_opened_at_once_ask_for_their_connections_a_few_in_each_turn():
    turn = 0
    asked: Counter[int] = Counter()

    def answer(request: httpx.Request) -> httpx.Response:
        asked[turn] += 1
        return sse(END)

    async def read(client: EnclaveClient) -> None:
        async with client.stream("s-1") as frames:
            assert [frame async for frame in frames] == [EndFrame()]

    async with EnclaveClient("http://127.0.0.1:1", transport=ScriptedTransport(answer), retry=None) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(BEGUN_PER_TURN * 10):
                tasks.start_soon(read, client)
            while asked.total() < BEGUN_PER_TURN * 10:
                await checkpoint()
                turn += 1
    assert max(asked.values()) <= 2 * BEGUN_PER_TURN
