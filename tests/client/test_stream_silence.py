"""A close after silence is no failure: proxies close what is silent, some after 30 seconds. A close at once is one."""

from __future__ import annotations

import anyio
import httpx
import pytest
from trio.testing import MockClock

from enclave import EnclaveClient, RetryPolicy, ServerError, StreamInterrupted
from enclave.types import EndFrame, StdoutFrame
from tests.support.scripted_transport import Step, sse

PATIENCE_SECONDS = 30.0
CLOSES = 240  # two hours of silence
ATTEMPTS = 3
FIRST = b'id: 1\ndata: {"kind":"stdout","data":"first"}\n\n'
FIRST_WITHOUT_ID = FIRST.removeprefix(b"id: 1\n")
END = b'id: 2\ndata: {"kind":"end"}\n\n'
ENDS = {"clean": (), "cut": (httpx.RemoteProtocolError("incomplete body"),)}


@pytest.fixture
def anyio_backend():
    """Trio alone: it is the one with a virtual clock. tests/proxies does the same on both loops, with real proxies."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


async def read(proxy: httpx.AsyncBaseTransport):
    client = EnclaveClient("http://127.0.0.1:1", transport=proxy, retry=RetryPolicy(attempts=ATTEMPTS))
    async with client, client.stream("s-1") as stream:
        return [frame async for frame in stream], stream.resumes


class Proxy(httpx.AsyncBaseTransport):
    """Answers `CLOSES` requests with a stream that breaks off after these steps, then one with the whole session."""

    def __init__(self, *steps: Step, first: bytes, head_seconds: float = 0.0, is_first_held_back: bool = False) -> None:
        self.requests = 0
        self._steps = steps
        self._first = first
        self._head_seconds = head_seconds
        self._is_first_held_back = is_first_held_back

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        start = () if "last-event-id" in request.headers else (self._first,)
        if self.requests > CLOSES:
            return sse(*start, END)
        await anyio.sleep(self._head_seconds)
        if self._is_first_held_back and self.requests > 1:
            start = ()
        return sse(*start, *self._steps)


WITH_AND_WITHOUT_IDS = pytest.mark.parametrize("first", [FIRST, FIRST_WITHOUT_ID], ids=["ids", "no ids"])
WHOLE = [StdoutFrame("first"), EndFrame()], CLOSES


@WITH_AND_WITHOUT_IDS
@pytest.mark.parametrize("end", ENDS)
async def test_closes_after_silence_are_no_failed_attempts(first, end):
    assert await read(Proxy(PATIENCE_SECONDS, *ENDS[end], first=first)) == WHOLE


@WITH_AND_WITHOUT_IDS
@pytest.mark.parametrize("end", ENDS)
async def test_a_proxy_that_holds_the_head_back_until_it_closes_was_silent_too(first, end):
    # So does nginx where it buffers.
    assert await read(Proxy(*ENDS[end], first=first, head_seconds=PATIENCE_SECONDS)) == WHOLE


async def test_a_proxy_that_drops_all_that_it_held_back_was_silent_too():
    # So does nginx where it buffers the response of a server of HTTP/1.0.
    proxy = Proxy(*ENDS["cut"], first=b"", head_seconds=PATIENCE_SECONDS)
    assert await read(proxy) == ([EndFrame()], CLOSES)


@WITH_AND_WITHOUT_IDS
async def test_a_replay_of_which_a_proxy_holds_the_end_back_breaks_off_after_silence(first):
    # So does HAProxy where it compresses: its last frames wait for more.
    proxy = Proxy(PATIENCE_SECONDS, *ENDS["cut"], first=first, is_first_held_back=True)
    assert await read(proxy) == WHOLE


@WITH_AND_WITHOUT_IDS
@pytest.mark.parametrize("end", ENDS)
async def test_closes_at_once_are_failed_attempts(first, end):
    proxy = Proxy(*ENDS[end], first=first)
    with pytest.raises(StreamInterrupted):
        await read(proxy)
    assert ATTEMPTS <= proxy.requests <= ATTEMPTS + 1  # one more may ask for a replay


class GivesUp(httpx.AsyncBaseTransport):
    """Answers 504 when the server has sent no head for so long, `CLOSES` times, in the session or before it begins."""

    def __init__(self, *, after_seconds: float, first: bytes, status: int = 504) -> None:
        self.requests = 0
        self._after_seconds = after_seconds
        self._first = first
        self._status = status

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.requests == 1 and self._first:
            return sse(self._first, httpx.RemoteProtocolError("incomplete body"))
        if self.requests > CLOSES:
            return sse(*(() if "last-event-id" in request.headers else (self._first,)), END)
        await anyio.sleep(self._after_seconds)
        return httpx.Response(self._status, text="the upstream server timed out")


ANY_FIRST = pytest.mark.parametrize("first", [FIRST, FIRST_WITHOUT_ID, b""], ids=["ids", "no ids", "never opened"])


@ANY_FIRST
async def test_a_gateway_timeout_after_silence_is_no_failed_attempt(first):
    frames, _ = await read(GivesUp(after_seconds=PATIENCE_SECONDS, first=first))
    assert frames == [*([StdoutFrame("first")] if first else []), EndFrame()]


@ANY_FIRST
@pytest.mark.parametrize(("status", "after_seconds"), [(504, 0), (502, PATIENCE_SECONDS), (503, PATIENCE_SECONDS)])
async def test_a_gateway_timeout_at_once_and_any_other_refusal_is_a_failed_attempt(first, status, after_seconds):
    proxy = GivesUp(after_seconds=after_seconds, first=first, status=status)
    with pytest.raises(StreamInterrupted if first else ServerError):
        await read(proxy)
    assert proxy.requests == ATTEMPTS
