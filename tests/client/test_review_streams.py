"""Streams: resuming after any failure of the server's, and bounds that no timing of the bytes defeats."""

from __future__ import annotations

import gc
import time
import warnings
import zlib
from collections.abc import AsyncIterator, Iterator

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from anyio.lowlevel import checkpoint

from enclave import APIStatusError, EnclaveClient, StdoutFrame
from enclave._streams._decoder import FrameDecoder
from tests.support import NO_WAITS
from tests.support.review_server import END, SSE, answer, frame, serving


@pytest.mark.parametrize("status", [429, 500, 501, 503, 507, 520])
async def test_a_stream_is_resumed_after_any_5xx_or_429_on_the_way_back(status: int) -> None:
    async def handle(stream: SocketStream, _: str, number: int) -> None:
        replay = frame("a") + frame("b") + END
        await stream.send({1: SSE + frame("a"), 2: answer(status, {})}.get(number, SSE + replay))

    with anyio.fail_after(5):
        async with serving(handle) as url, EnclaveClient(url, retry=NO_WAITS) as client:
            async with client.stream("s") as frames:
                texts = [each.data async for each in frames if isinstance(each, StdoutFrame)]
    assert texts == ["a", "b"]


async def test_a_500_before_the_stream_ever_stood_is_not_tried_again() -> None:
    requests = 0

    async def handle(stream: SocketStream, _: str, number: int) -> None:
        nonlocal requests
        requests = number
        await stream.send(answer(500, {}))

    with anyio.fail_after(5):
        async with serving(handle) as url, EnclaveClient(url, retry=NO_WAITS) as client:
            with pytest.raises(APIStatusError):
                async with client.stream("s"):
                    pass
    assert requests == 1


async def test_a_large_event_counts_in_full_although_its_last_bytes_come_alone() -> None:
    big, sent, stalled = 1_000_000, 0, anyio.Event()

    async def handle(stream: SocketStream, _: str, number: int) -> None:
        nonlocal sent
        await stream.send(SSE)
        for _ in range(40):
            with anyio.move_on_after(1) as patience:
                await stream.send(b'data: {"kind":"stdout","data":"%b"}\n' % (b"x" * big))
                await anyio.wait_all_tasks_blocked()  # the blank line is a read of its own
                await stream.send(b"\n")
                await anyio.wait_all_tasks_blocked()
            if patience.cancelled_caught:
                break
            sent += 1
        stalled.set()
        await anyio.sleep_forever()

    with anyio.fail_after(20):
        async with serving(handle) as url, EnclaveClient(url, max_buffered_bytes=big) as client:
            async with client.stream("s"):
                await stalled.wait()
    assert sent < 20, "the reader took in far more than max_buffered_bytes, with nobody taking any of it out"


@pytest.mark.parametrize(
    "block", [b":\n\n", b"id: 1\n\n", b"\n\n", b"retry: 1\r\n\r\n", b"dat\n\n", b"database: 1\n\n"]
)
def test_what_comes_before_the_first_event_is_taken_in_linear_time(block: bytes) -> None:
    def seconds(size: int) -> float:
        flood = block * (size // len(block))
        started = time.process_time()
        FrameDecoder().feed(flood)
        return time.process_time() - started

    small, large = min(seconds(16_384) for _ in range(3)), min(seconds(262_144) for _ in range(2))
    assert large < 50 * small + 0.05  # 16 times as much; quadratic would be 256 times


async def test_a_compressed_flood_of_comments_does_not_keep_the_event_loop_from_cancelling() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(b":\n" * (24 * 1024 * 1024)) + packer.flush()
    head = SSE.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")

    async def handle(stream: SocketStream, _: str, number: int) -> None:
        await stream.send(head + bomb)
        await anyio.sleep_forever()

    async with serving(handle) as url, EnclaveClient(url) as client:
        async with client.stream("s") as frames:
            started = time.process_time()
            with anyio.move_on_after(0.1) as scope:
                async for _ in frames:
                    pass
    assert scope.cancelled_caught
    assert time.process_time() - started < 3  # decoding all of it takes far longer


class _Generated(httpx.AsyncByteStream):
    """A body as tests write them: an async generator that never waits."""

    def __init__(self, pieces: list[bytes], *, waits_first: bool) -> None:
        self._pieces = pieces
        self._waits_first = waits_first

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._generate()

    async def _generate(self) -> AsyncIterator[bytes]:
        if self._waits_first:
            await checkpoint()
        for piece in self._pieces:
            yield piece


@pytest.fixture
def _no_abandoned_generator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    seen: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: seen.append(unraisable.exc_value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
        gc.collect()
    assert not seen


@pytest.mark.usefixtures("_no_abandoned_generator")
@pytest.mark.parametrize("waits_first", [False, True])
async def test_leaving_a_stream_early_abandons_no_generator_of_a_callers_transport(waits_first: bool) -> None:
    pieces = [frame("a"), b'data: {"kind":"phase","phase":"succeeded"}\n\n', frame("b"), frame("c"), END]

    def handle(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/stream"):
            return httpx.Response(200, json={"exitCode": 0})
        headers = {"content-type": "text/event-stream"}
        return httpx.Response(200, headers=headers, stream=_Generated(pieces, waits_first=waits_first))

    with anyio.fail_after(5):
        async with EnclaveClient("http://127.0.0.1", transport=httpx.MockTransport(handle)) as client:
            assert (await client.result("s")).exit_code == 0
            async with client.stream("s") as frames:
                await anext(frames)
            gc.collect()
            await checkpoint()  # where a loop would finalise what it found


def _with_id(number: int) -> bytes:
    return b"id: %d\n" % number + frame(str(number))


@pytest.mark.parametrize("replays", [True, False])
async def test_an_event_without_an_id_after_a_resume_by_id_is_proved_by_a_replay(replays: bool) -> None:
    """A server that lost its ids (another replica, say) may go on or start again; the first event does not tell."""
    history = b"".join(frame(str(number)) for number in range(5)) + END
    rest = b"".join(frame(str(number)) for number in range(3, 5)) + END
    seen: list[int] = []

    async def handle(stream: SocketStream, _: str, number: int) -> None:
        seen.append(number)
        if number == 1:
            await stream.send(SSE + b"".join(map(_with_id, range(3))))
        else:
            await stream.send(SSE + (history if replays or number > 2 else rest))

    with anyio.fail_after(5):
        async with serving(handle) as url, EnclaveClient(url, retry=NO_WAITS) as client:
            async with client.stream("s") as frames:
                texts = [each.data async for each in frames if isinstance(each, StdoutFrame)]
    assert texts == ["0", "1", "2", "3", "4"]
    assert seen == [1, 2, 3]
