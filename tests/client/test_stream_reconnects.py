"""A stream goes on after any failure of the server's on the way back."""

from __future__ import annotations

import anyio
import pytest

from enclave import APIStatusError, EnclaveClient, StdoutFrame
from tests.support import PATIENCE_SECONDS
from tests.support.messages import END, event, response
from tests.support.plane import ControlPlane


async def texts_of(client: EnclaveClient) -> list[str]:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            return [frame.data async for frame in frames if isinstance(frame, StdoutFrame)]


@pytest.mark.parametrize("status", [429, 500, 501, 503, 507, 520])
async def test_a_stream_is_resumed_after_any_5xx_or_429_on_the_way_back(
    server: ControlPlane, client: EnclaveClient, status: int
) -> None:
    server.streams(event("a"))
    server.answers(response({}, status))
    server.streams(event("a"), event("b"), END)
    assert await texts_of(client) == ["a", "b"]


async def test_a_500_before_the_stream_ever_stood_is_not_tried_again(
    server: ControlPlane, client: EnclaveClient
) -> None:
    server.answers(response({}, 500))
    with anyio.fail_after(PATIENCE_SECONDS), pytest.raises(APIStatusError):
        async with client.stream("s-1"):
            pass
    assert len(server.requests) == 1


@pytest.mark.parametrize("replays", [True, False])
async def test_an_event_without_an_id_after_a_resume_by_id_is_proved_by_a_replay(
    server: ControlPlane, client: EnclaveClient, replays: bool
) -> None:
    """A server that lost its ids (another replica, say) may go on or start again. The first event does not tell."""
    history = [event(str(number)) for number in range(5)]
    server.streams(*[event(str(number), str(number)) for number in range(3)])
    server.streams(*(history if replays else history[3:]), END)
    server.streams(*history, END)
    assert await texts_of(client) == ["0", "1", "2", "3", "4"]
    assert len(server.requests) == 3
