"""The brake over real sockets, on both loops: a server with room for a few sessions, and far more requests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from enclave import EnclaveClient, Verdict
from tests.support.messages import response
from tests.support.plane import ControlPlane, Request

ROOM = 3


class SmallPlane(ControlPlane):
    """Has room for `ROOM` sessions."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0
        self.most = 0
        self.route("POST", "/sessions", self._create_or_refuse)

    async def _create_or_refuse(self, request: Request) -> None:
        if len(self.sessions) >= ROOM:
            self.refused += 1
            await request.send(response({"message": "no room"}, 429, retry_after="0.1"))
            return
        answer = self.perform(request)
        self.most = max(self.most, len(self.sessions))
        await request.send(answer)


@pytest.fixture
async def plane() -> AsyncIterator[SmallPlane]:
    async with SmallPlane().serve() as plane:
        yield plane


@pytest.fixture
async def client(plane: SmallPlane) -> AsyncIterator[EnclaveClient]:
    async with EnclaveClient(plane.base_url, api_key="ek_test_secret") as client:
        yield client


async def test_every_request_of_a_fan_out_far_beyond_the_room_gets_its_result(plane: SmallPlane, client: EnclaveClient):
    with anyio.fail_after(60):
        outcomes = await client.map(["x"] * 60, max_concurrency=40)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.SUCCEEDED}
    assert plane.most == ROOM
    assert 0 < plane.refused <= 90
    assert not plane.sessions


async def test_a_fan_out_that_is_left_while_creates_wait_leaves_no_session(plane: SmallPlane, client: EnclaveClient):
    with anyio.fail_after(60):
        async with client.fan_out(["x"] * 60, max_concurrency=40) as outcomes:
            async for _ in outcomes:
                if plane.refused:
                    break
    assert not plane.sessions
    assert len(plane.deleted) == plane.created
