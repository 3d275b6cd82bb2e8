"""What a server may do with the ids of its events: anything. What a client asks for then is never wrong."""

from __future__ import annotations

import tracemalloc

import anyio
import pytest

from enclave import (
    APIStatusError,
    BadRequestError,
    EnclaveClient,
    EndFrame,
    RetryPolicy,
    StdoutFrame,
    StreamInterrupted,
)
from enclave.transport import SSEDecoder
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.messages import SSE, event, response
from tests.support.plane import ControlPlane, closing

SLOW = RetryPolicy(attempts=2, wait_seconds=600, max_wait_seconds=600, jitter=0)
"""One attempt may fail, and the wait after it is longer than a test has patience."""
AT_ONCE = b"retry: 0\n\n"
"""The server allows to connect again at once after one break."""


def end(event_id: str | None = None) -> bytes:
    return event({"kind": "end"}, event_id)


async def read(server: ControlPlane, retry: RetryPolicy = NO_WAITS) -> list[object]:
    with anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=retry) as client, client.stream("s-1") as frames:
            return [frame async for frame in frames]


def asked(server: ControlPlane) -> list[str | None]:
    return [request.headers.get("last-event-id") for request in server.requests]


@pytest.mark.parametrize("event_id", ["x" * 1025, "\x01", "a\x1fb", "\x7f", "tail ", "\t"])
async def test_an_id_that_no_header_can_carry_is_replaced_by_a_replay(server: ControlPlane, event_id):
    events = [event("one", "first"), event("two", event_id)]
    server.streams(*events)
    server.streams(*events, end())
    assert await read(server) == [StdoutFrame("one"), StdoutFrame("two"), EndFrame()]
    assert asked(server) == [None, None]


@pytest.mark.parametrize("event_id", ["x" * 1024, "~", "!", "é 7"])
async def test_an_id_that_a_header_can_carry_is_sent(server: ControlPlane, event_id):
    server.streams(event("one", "first"), event("two", event_id))
    server.streams(end("last"))
    assert await read(server) == [StdoutFrame("one"), StdoutFrame("two"), EndFrame()]
    assert asked(server) == [None, event_id]


@pytest.mark.parametrize("status", [400, 431])
async def test_a_server_that_refuses_the_id_is_asked_for_a_replay_at_once(server: ControlPlane, status):
    events = [event("one", "1"), event("two", "2")]
    server.streams(AT_ONCE, *events)
    server.answers(response({"message": "what is that"}, status))
    server.streams(*events, event("three", "3"), end("4"))
    assert await read(server, SLOW) == [StdoutFrame("one"), StdoutFrame("two"), StdoutFrame("three"), EndFrame()]
    assert asked(server) == [None, "2", None]


async def test_a_bad_request_without_an_id_is_no_reason_for_another(server: ControlPlane):
    server.streams(event("one"))
    server.answers(response({"message": "no"}, 400))
    with pytest.raises(StreamInterrupted, match="400 no") as caught:
        await read(server)
    assert isinstance(caught.value.__cause__, BadRequestError)
    server.answers(response({"message": "no"}, 431))
    with pytest.raises(APIStatusError, match="431"):
        await read(server)


async def test_a_doubt_costs_no_attempt_and_no_wait(server: ControlPlane):
    events = [event("one", "1"), event("two", "2"), event("three", "3"), end("4")]
    server.streams(AT_ONCE, *events[:2])
    server.streams(*events[3:])
    server.streams(*events)
    assert await read(server, SLOW) == [StdoutFrame("one"), StdoutFrame("two"), StdoutFrame("three"), EndFrame()]
    assert asked(server) == [None, "2", None]


@pytest.mark.parametrize("attempts", [2, 5])
async def test_a_server_that_has_nothing_after_the_id_is_asked_for_a_replay_in_the_end(server: ControlPlane, attempts):
    """As one does that gives all events the same id, and goes on after the last of them."""
    events = [event("one", "x"), event("two", "x")]
    server.streams(events[0])
    server.answers(*[closing(SSE)] * (attempts - 1))
    server.streams(*events, end("x"))
    policy = RetryPolicy(attempts=attempts, wait_seconds=0)
    assert await read(server, policy) == [StdoutFrame("one"), StdoutFrame("two"), EndFrame()]
    assert asked(server) == [None, *["x"] * (attempts - 1), None]


@pytest.mark.parametrize(
    "ids",
    [["1", "2", "4"], ["5", "6", "5"], ["a", "b", "a"], ["n1", "n2", "n3"], ["10", "20", "15"]],
    ids=["a gap", "a fall", "again", "new ids", "between"],
)
async def test_a_server_that_goes_on_elsewhere_is_never_believed(server: ControlPlane, ids):
    data = ["one", "two", "one" if ids[2] == "n3" else "three"]
    events = [event(text, event_id) for text, event_id in zip(data, ids, strict=True)]
    server.streams(event("one", ids[0]), event("two", ids[1]))
    server.streams(events[2], end())
    server.streams(event("one"), event("two"), event("other"), end())
    assert await read(server) == [StdoutFrame("one"), StdoutFrame("two"), StdoutFrame("other"), EndFrame()]
    assert asked(server) == [None, ids[1], None]


def test_the_decoder_shows_three_members():
    assert [name for name in dir(SSEDecoder) if not name.startswith("_")] == ["feed", "last_event_id", "retry_ms"]


def test_a_long_id_is_not_copied_for_every_event_after_it():
    decoder = SSEDecoder()
    stream = b"id: " + b"x" * (1 << 20) + b"\n\n" + b"data: y\n\n" * 5000
    tracemalloc.start()
    try:
        events = decoder.feed(stream)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert len(events) == 5000
    assert {len(event.id) for event in events} == {1 << 20}
