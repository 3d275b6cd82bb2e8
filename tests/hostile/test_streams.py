"""Event streams that no honest server sends: a clear error or the right frames, within bounded memory and time."""

from __future__ import annotations

import gzip
import tracemalloc

import anyio
import pytest

from enclave import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    EnclaveClient,
    EnclaveError,
    EndFrame,
    EventTooLargeError,
    MalformedResponseError,
    ProtocolError,
    StdoutFrame,
    StreamFrame,
    StreamInterrupted,
    Timeout,
    UnknownFrame,
)
from tests.support import NO_WAITS, PATIENCE_SECONDS
from tests.support.messages import END, SSE, bomb
from tests.support.plane import (
    ControlPlane,
    Flood,
    Handler,
    closing,
    endless,
    stalling,
    trickling,
)

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MAX_PEAK_BYTES = 24 * MIB
MAX_EVENT_BYTES = 1 * MIB
OUT = b'data: {"kind":"stdout","data":"x"}\n\n'
GZIP_HEAD = SSE[:-2] + b"content-encoding: gzip\r\n\r\n"


async def read(server: ControlPlane, **options: object) -> list[StreamFrame]:
    options = {"retry": None, "max_event_bytes": MAX_EVENT_BYTES, **options}
    async with EnclaveClient(server.base_url, **options) as client, client.stream("s-1") as frames:
        return [frame async for frame in frames]


FATAL: dict[str, tuple[Handler, type[EnclaveError]]] = {
    "a line without end": (endless(SSE + b"data: ", b"x" * 65_536), EventTooLargeError),
    "an event without end": (endless(SSE, b"data: x\n" * 8192), EventTooLargeError),
    "a comment without end": (endless(SSE + b": ", b"x" * 65_536), EventTooLargeError),
    "a field name without end": (endless(SSE, b"x" * 65_536), EventTooLargeError),
    "an id without end": (endless(SSE + b"id: ", b"x" * 65_536), EventTooLargeError),
    "a gzip bomb": (closing(GZIP_HEAD + bomb(b"data: " + bytes(MIB), 256)), EventTooLargeError),
    "gzip that is none": (closing(GZIP_HEAD + OUT), MalformedResponseError),
    "an unknown encoding": (closing(SSE[:-2] + b"content-encoding: zstd\r\n\r\n" + OUT), MalformedResponseError),
    "HTML": (closing(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n<html>"), MalformedResponseError),
    "no content type": (closing(b"HTTP/1.1 200 OK\r\n\r\n" + OUT + END), MalformedResponseError),
    "no body": (closing(SSE), StreamInterrupted),
    "204": (closing(b"HTTP/1.1 204 No Content\r\n\r\n"), ProtocolError),
    "206": (closing(SSE.replace(b"200", b"206") + OUT + END), ProtocolError),
    "a redirect": (closing(b"HTTP/1.1 302 Go\r\nlocation: http://127.0.0.1:1/\r\n\r\n"), APIStatusError),
    "a header flood": (endless(b"HTTP/1.1 200 OK\r\n", b"x-flood: " + b"x" * 1000 + b"\r\n"), ProtocolError),
    "chunk garbage": (closing(SSE[:-2] + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), APIConnectionError),
    "a cut frame": (closing(SSE + OUT + b'data: {"kind":"std'), StreamInterrupted),
    "a frame without its blank line": (closing(SSE + OUT + END[:-1]), StreamInterrupted),
}


@pytest.mark.parametrize("case", list(FATAL))
async def test_a_hostile_stream_is_one_clear_error_within_bounded_memory(case: str) -> None:
    script, expected = FATAL[case]
    with ControlPlane(script).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        tracemalloc.start()
        try:
            with pytest.raises(EnclaveError) as caught:
                await read(server)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(caught.value, expected), repr(caught.value)
    assert str(caught.value).isprintable()
    assert peak_bytes < MAX_PEAK_BYTES


MALFORMED: dict[str, bytes] = {
    "no JSON": b"hello",
    "a number": b"7",
    "null": b"null",
    "an array": b'[{"kind":"end"}]',
    "no kind": b'{"data":"x"}',
    "a kind that is a number": b'{"kind":7}',
    "a kind that is null": b'{"kind":null}',
    "stdout without data": b'{"kind":"stdout"}',
    "stdout with a number": b'{"kind":"stdout","data":7}',
    "a phase that is a list": b'{"kind":"phase","phase":["running"]}',
    "an audit event that is text": b'{"kind":"audit","event":"x"}',
    "a result that is a list": b'{"kind":"result","result":[]}',
    "a time that is none": b'{"kind":"stdout","data":"x","ts":"yesterday"}',
    "two values": b'{"kind":"end"} {"kind":"end"}',
    "half": b'{"kind":"stdout","data":"',
    "arrays in arrays": b'{"kind":"result","result":{"exitCode":0,"json":' + b"[" * 100_000,
    "balanced arrays in arrays": b'{"kind":"stdout","data":"x","y":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects in objects": b'{"kind":"new","x":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001,
    "NUL bytes": b"\0\0\0",
}


@pytest.mark.parametrize("case", list(MALFORMED))
async def test_a_malformed_frame_stands_in_its_place_and_the_frames_around_it_arrive(case: str) -> None:
    stream = SSE + OUT + b"data: " + MALFORMED[case] + b"\n\n" + OUT + END
    with ControlPlane(closing(stream)).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        got = await read(server)
    unknown = got.pop(1)
    assert isinstance(unknown, UnknownFrame)
    assert unknown.problem
    assert got == [StdoutFrame("x"), StdoutFrame("x"), EndFrame()]


FINE: dict[str, tuple[bytes, list[StreamFrame]]] = {
    "duplicate keys": (b'data: {"kind":"stdout","data":"a","data":"b"}\n\n', [StdoutFrame("b")]),
    "many keys": (
        b'data: {"kind":"stdout","data":"a"' + b"".join(b',"k%d":%d' % (n, n) for n in range(9999)) + b"}\n\n",
        [StdoutFrame("a")],
    ),
    "invalid UTF-8": (b'data: {"kind":"stdout","data":"\xff\xfe"}\n\n', [StdoutFrame("\ufffd\ufffd")]),
    "a lone surrogate": (b'data: {"kind":"stdout","data":"\\ud83d"}\n\n', [StdoutFrame("\ufffd")]),
    "events without data": (b"data\n\nevent: x\n\n\n\n:\n\nid: 3\n\n", []),
    "control characters around": (b"\x01\x02: x\n\x7f\n\n", []),
    "a retry beyond all numbers": (b"retry: " + b"9" * 10_000 + b"\n\n", []),
    "an unknown kind": (b'data: {"kind":"new","x":1}\n\n', [UnknownFrame("new", b'{"kind":"new","x":1}')]),
    "100,000 tiny frames": (OUT * 100_000, [StdoutFrame("x")] * 100_000),
}


@pytest.mark.parametrize("case", list(FINE))
async def test_an_odd_stream_gives_the_right_frames(case: str) -> None:
    data, expected = FINE[case]
    with ControlPlane(closing(SSE + data + END)).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        got = await read(server)
    if case == "events without data":
        assert isinstance(got.pop(0), UnknownFrame)  # an empty `data` field is an event with empty data
    assert got == [*expected, EndFrame()]


async def test_nothing_after_the_end_frame_is_given_out() -> None:
    with ControlPlane(closing(SSE + OUT + END + OUT * 100 + b"garbage")).in_thread() as server:
        with anyio.fail_after(PATIENCE_SECONDS):
            assert await read(server) == [StdoutFrame("x"), EndFrame()]


async def test_a_server_that_goes_on_after_the_end_frame_does_not_hold_the_consumer() -> None:
    with ControlPlane(endless(SSE + END, OUT)).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        assert await read(server) == [EndFrame()]


async def test_a_stalled_consumer_stalls_the_server_and_not_memory() -> None:
    flood = Flood(SSE, b": a heartbeat now and then" * 100 + b"\n\n" + OUT * 2000, 500)
    with ControlPlane(flood).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None) as client:
            tracemalloc.start()
            try:
                async with client.stream("s-1") as frames:
                    await anext(frames)
                    await flood.stalled()
                    _, peak_bytes = tracemalloc.get_traced_memory()
                    for _ in range(20_000):  # the server is not lost: what it holds back comes
                        assert isinstance(await anext(frames), StdoutFrame)
            finally:
                tracemalloc.stop()
    assert peak_bytes < MAX_PEAK_BYTES


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", SSE[:-2], SSE, SSE + OUT[:9]])
async def test_a_stream_that_stalls_runs_into_its_timeout(sent: bytes) -> None:
    timeout = Timeout(connect=0.1, read=0.1, stream_idle=0.1)
    with ControlPlane(stalling(sent)).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(APITimeoutError):
            await read(server, timeout=timeout)


async def test_an_oversized_event_is_never_asked_for_again() -> None:
    oversized = endless(SSE + b"data: ", b"x" * 65_536)
    with ControlPlane(oversized).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(EventTooLargeError):
            await read(server, retry=NO_WAITS)
        assert len(server.requests) == 1


async def test_a_stream_compressed_without_being_asked_arrives() -> None:
    compressed = closing(GZIP_HEAD + gzip.compress(OUT * 3 + END))
    with ControlPlane(compressed).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        assert await read(server) == [StdoutFrame("x")] * 3 + [EndFrame()]


TRICKLE = trickling(b"HTTP/1.1 200 OK\r\nx-slow: " + b"x" * 10_000, seconds=0.05)
"""A byte now and then, always in time for a timeout that asks for the next byte."""


async def test_a_head_that_trickles_in_does_not_hold_up_the_opening_of_a_stream() -> None:
    with ControlPlane(TRICKLE).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        with pytest.raises(APITimeoutError, match="no response came"):
            await read(server, timeout=Timeout(connect=0.2, read=2))


async def test_a_response_that_trickles_in_gives_way_to_the_callers_deadline() -> None:
    with ControlPlane(TRICKLE).in_thread() as server, anyio.fail_after(PATIENCE_SECONDS):
        async with EnclaveClient(server.base_url, retry=None, timeout=Timeout(read=2)) as client:
            with anyio.move_on_after(0.5) as scope:
                await client.get("s-1")
            assert scope.cancelled_caught
