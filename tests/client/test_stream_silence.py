"""A close after silence is no failure: proxies close what is silent, some after 30 seconds. A close at once is one."""

from __future__ import annotations

import zlib

import anyio
import httpx
import pytest
from trio.testing import MockClock

from enclave import EnclaveClient, RetryPolicy, ServerError, StreamInterrupted, Timeout
from enclave.types import EndFrame, StdoutFrame
from tests.support.scripted_transport import ScriptedTransport, Step, sse

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
async def test_closes_right_after_a_heartbeat_are_none_either(first, end):
    # So does a server that closes old connections, and beats at the same moment.
    beats = [15.0, b": beat\n\n"] * 4
    assert await read(Proxy(*beats, *ENDS[end], first=first)) == WHOLE


@WITH_AND_WITHOUT_IDS
@pytest.mark.parametrize("end", ENDS)
async def test_a_heartbeat_and_a_close_at_once_is_a_failed_attempt(first, end):
    proxy = Proxy(b": beat\n\n", *ENDS[end], first=first)
    with pytest.raises(StreamInterrupted):
        await read(proxy)
    assert proxy.requests == 2 * ATTEMPTS - 1


async def test_a_replay_that_breaks_off_while_it_flows_is_of_no_use_however_long_it_takes():
    proxy = Proxy(*[10.0, FIRST_WITHOUT_ID] * 20, 10.0, FIRST_WITHOUT_ID[:20], first=FIRST_WITHOUT_ID)
    with pytest.raises(StreamInterrupted):
        await read(proxy)
    assert proxy.requests == 2 * ATTEMPTS - 1


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
    # A replay that brings what is known is half an attempt. So is the one that is asked for where an id led nowhere.
    assert proxy.requests == 2 * ATTEMPTS - 1


class GivesUp(httpx.AsyncBaseTransport):
    """Answers 504 when the server has sent no head for so long, `CLOSES` times, in the session or before it begins.

    Asked for the session itself it says `phase`. Without one the server is gone, and every answer is the same.
    """

    def __init__(
        self, *, after_seconds: float, first: bytes = b"", status: int = 504, phase: str | None = "running"
    ) -> None:
        self.requests = 0
        self._after_seconds = after_seconds
        self._first = first
        self._status = status
        self._phase = phase

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/sessions/s-1":
            if self._phase is not None:
                return httpx.Response(200, json={"id": "s-1", "phase": self._phase})
            await anyio.sleep(self._after_seconds)
            return httpx.Response(self._status, text="the upstream server timed out")
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


@ANY_FIRST
@pytest.mark.parametrize("phase", [None, "succeeded", "torn_down"], ids=str)
async def test_gateway_timeouts_are_failed_attempts_once_the_server_is_gone_or_the_session_has_ended(first, phase):
    proxy = GivesUp(after_seconds=PATIENCE_SECONDS, first=first, phase=phase)
    with pytest.raises(StreamInterrupted if first else ServerError):
        await read(proxy)
    assert proxy.requests == ATTEMPTS


class ComesAndGoes(GivesUp):
    """Is gone for all but one attempt, again and again, and then has the whole session."""

    def __init__(self, phases: list[str | None]) -> None:
        super().__init__(after_seconds=PATIENCE_SECONDS, first=FIRST)
        self._phases = phases

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/sessions/s-1":
            self._phase = self._phases.pop(0)
        elif not self._phases:
            return sse(FIRST, END)
        return await super().handle_async_request(request)


async def test_a_server_that_comes_back_has_all_its_attempts_again():
    phases = ["running", None] * ATTEMPTS
    proxy = ComesAndGoes(phases)
    frames, _ = await read(proxy)
    assert frames == [StdoutFrame("first"), EndFrame()]
    assert not phases


@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_silence_beyond_the_idle_timeout_is_a_break_on_a_transport_of_the_callers_too(coding):
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    first = FIRST if coding == "identity" else compressor.compress(FIRST) + compressor.flush(zlib.Z_SYNC_FLUSH)
    transport = ScriptedTransport(sse(first, 3600.0, **{"content-encoding": coding}), sse(END))
    started = anyio.current_time()
    assert await read(transport) == ([StdoutFrame("first"), EndFrame()], 1)
    assert anyio.current_time() - started == pytest.approx(Timeout().stream_idle, abs=5)
