"""One session's frames in every framing that Server-Sent Events and HTTP allow: always the same frames."""

from __future__ import annotations

import gzip
import json
import random
import zlib

import pytest

from enclave import (
    AuditEvent,
    AuditFrame,
    AuditType,
    EnclaveClient,
    EndFrame,
    PhaseFrame,
    ResultFrame,
    SessionPhase,
    SessionResult,
    StderrFrame,
    StdoutFrame,
    UnknownFrame,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import CHUNKED_SSE, END, SSE, chunk, event
from tests.support.plane import ControlPlane

UNKNOWN = {"kind": "coffee", "cups": 2}
WIRE = [
    {"kind": "phase", "phase": "running", "ts": None, "more": 1},
    {"kind": "stdout", "data": "é\u2028\u0085\x0b 😀\r\n"},
    {"kind": "stderr", "data": ""},
    {"kind": "audit", "event": {"type": "egress_denied", "detail": {"host": "h"}}},
    UNKNOWN,
    {"kind": "result", "result": {"exitCode": 0, "json": [1]}},
    {"kind": "phase", "phase": "succeeded"},
    {"kind": "end"},
]
FRAMES = [
    PhaseFrame(SessionPhase.RUNNING),
    StdoutFrame("é\u2028\u0085\x0b 😀\r\n"),
    StderrFrame(""),
    AuditFrame(AuditEvent(type=AuditType.EGRESS_DENIED, detail={"host": "h"})),
    UnknownFrame("coffee", json.dumps(UNKNOWN).encode()),
    ResultFrame(SessionResult(exit_code=0, value=[1])),
    PhaseFrame(SessionPhase.SUCCEEDED),
    EndFrame(),
]
JSON = [json.dumps(frame, ensure_ascii=False).encode() for frame in WIRE]


def plain(newline: bytes = b"\n") -> bytes:
    return b"".join(b"data: %b%b%b" % (text, newline, newline) for text in JSON)


def with_everything(newline: bytes) -> bytes:
    """Comments, ids, names, a retry, unknown fields, and no space after the colon."""
    blocks = [b"\xef\xbb\xbf: hello", b"", b"retry:10", b""]
    for number, text in enumerate(JSON, 1):
        kind = json.loads(text)["kind"].encode()
        blocks += [b":", b"id:%d" % number, b"event:" + kind, b"foo: bar", b"nonsense", b"data:" + text, b"", b""]
    return newline.join([*blocks, b""])


def multi_line() -> bytes:
    """The JSON spread over several lines, which is white space between its tokens."""
    blocks = []
    for frame in WIRE[:4] + WIRE[5:]:
        lines = json.dumps(frame, indent=1, ensure_ascii=False).encode().split(b"\n")
        blocks.append(b"".join(b"data: %b\n" % line for line in lines) + b"\n")
    blocks.insert(4, b"data: %b\n\n" % JSON[4])
    return b"".join(blocks)


def kind_in_the_event_name() -> bytes:
    blocks = []
    for frame, text in zip(WIRE, JSON, strict=True):
        body = {name: value for name, value in frame.items() if name != "kind"}
        if frame is UNKNOWN:
            blocks.append(b"data: %b\n\n" % text)
        else:
            blocks.append(b"event: %b\ndata: %b\n\n" % (frame["kind"].encode(), json.dumps(body).encode()))
    return b"".join(blocks)


FRAMINGS = {
    "LF": plain(),
    "CRLF": plain(b"\r\n"),
    "CR": plain(b"\r"),
    "mixed": b"data: %b\r\r\n" % JSON[0] + plain().partition(b"\n\n")[2].replace(b"\n\n", b"\r\n\n", 3),
    "everything-LF": with_everything(b"\n"),
    "everything-CRLF": with_everything(b"\r\n"),
    "everything-CR": with_everything(b"\r"),
    "multi-line": multi_line(),
    "kind-in-event": kind_in_the_event_name(),
    "bom": b"\xef\xbb\xbf" + plain(),
    "lone-ids": b"id: 0\n\n" + plain(),
}


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]


def sevens(data: bytes) -> list[bytes]:
    return [data[index : index + 7] for index in range(0, len(data), 7)]


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_the_frames_are_the_same_in_every_framing_and_at_every_cut(
    server: ControlPlane, client: EnclaveClient, framing: str
):
    for cut in (whole, sevens, bytewise):
        pieces = cut(FRAMINGS[framing])
        server.streams(*map(chunk, pieces), b"0\r\n\r\n", head=CHUNKED_SSE)
        server.streams(*pieces)
        for body in ("chunked", "close-delimited"):
            async with client.stream("s-1") as frames:
                assert [frame async for frame in frames] == FRAMES, (cut.__name__, body)
                assert frames.resumes == 0


async def test_a_stream_asks_for_what_it_can_read_best(server: ControlPlane, client: EnclaveClient):
    server.streams(plain())
    async with client.stream("s-1"):
        pass
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/sessions/s-1/stream")
    assert request.headers["accept"] == "text/event-stream"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["authorization"] == "Bearer ek_test_secret"
    assert "last-event-id" not in request.headers


@pytest.mark.parametrize(
    "content_type",
    [
        "text/event-stream",
        "text/event-stream; charset=latin-1",
        "Text/Event-Stream;charset=utf-16",
        "text/event-stream ;",
    ],
)
async def test_an_event_stream_is_utf8_whatever_its_content_type_says(
    server: ControlPlane, client: EnclaveClient, content_type
):
    head = SSE.replace(b"text/event-stream", content_type.encode())
    server.streams(plain(), head=head)
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES


def deflated(data: bytes) -> list[bytes]:
    return [zlib.compress(data)]


def gzipped(data: bytes) -> list[bytes]:
    return [gzip.compress(data)]


def gzipped_by_the_byte(data: bytes) -> list[bytes]:
    return bytewise(gzip.compress(data))


def gzipped_in_members(data: bytes) -> list[bytes]:
    """A server that compresses each event by itself and joins the results, as gzip allows."""
    return [b"".join(gzip.compress(block + b"\n\n") for block in data.split(b"\n\n")[:-1])]


def gzipped_in_members_by_the_byte(data: bytes) -> list[bytes]:
    return bytewise(gzipped_in_members(data)[0])


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [
        ("gzip", gzipped),
        ("x-gzip", gzipped_by_the_byte),
        ("GZIP", gzipped_in_members),
        ("gzip", gzipped_in_members_by_the_byte),
        ("deflate", deflated),
    ],
)
async def test_a_stream_that_comes_compressed_unasked_is_read_all_the_same(
    server: ControlPlane, client: EnclaveClient, encoding, compress
):
    head = SSE[:-2] + b"Content-Encoding: %b\r\n\r\n" % encoding.encode()
    server.streams(*compress(FRAMINGS["everything-LF"].replace(b"\n\n\n", b"\n\n")), head=head)
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == FRAMES


async def test_a_compressed_stream_may_be_of_any_length(server: ControlPlane, client: EnclaveClient):
    texts = [random.Random(number).randbytes(1000).hex() for number in range(300)]
    data = b"".join(event(text) for text in texts) + END
    server.streams(gzip.compress(data), head=SSE[:-2] + b"Content-Encoding: gzip\r\n\r\n")
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [*map(StdoutFrame, texts), EndFrame()]


async def test_a_compressed_stream_gives_each_frame_as_soon_as_it_was_flushed(
    server: ControlPlane, client: EnclaveClient
):
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    taken = []

    async def answer(request):
        await request.send(SSE[:-2] + b"Content-Encoding: gzip\r\n\r\n")
        for text in JSON:
            data = compressor.compress(b"data: %b\n\n" % text) + compressor.flush(zlib.Z_SYNC_FLUSH)
            await request.send(data)
            await frame_taken(len(taken) + 1)
        await request.close()

    import anyio  # noqa: PLC0415 - for the condition alone

    condition = anyio.Condition()

    async def frame_taken(count: int) -> None:
        async with condition:
            while len(taken) < count:
                await condition.wait()

    server.answers(answer)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client.stream("s-1") as frames:
            async for frame in frames:
                async with condition:
                    taken.append(frame)
                    condition.notify_all()
    assert taken == FRAMES


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"kind":"stdout","data":"x\\ud83d"}', StdoutFrame("x\ufffd")),
        (b'{"kind":"stdout","data":"\\ude00x"}', StdoutFrame("\ufffdx")),
        (b'{"kind":"stdout","data":"\\ud83d\\ude00"}', StdoutFrame("😀")),
        (b'{"kind":"stdout","data":"\\\\ud83d"}', StdoutFrame("\\ud83d")),
        (b'{"kind":"stdout","data":"a\xff\xc3"}', StdoutFrame("a\ufffd\ufffd")),
        (b'{"kind":"stdout","data":"\xed\xa0\xbd"}', StdoutFrame("\ufffd\ufffd\ufffd")),
        (b'{"kind":"std\xffout","data":1}', UnknownFrame("std\ufffdout", '{"kind":"std\ufffdout","data":1}'.encode())),
    ],
)
async def test_broken_text_never_ends_a_stream(server: ControlPlane, client: EnclaveClient, text, expected):
    server.streams(b"data: %b\n\ndata: %b\n\n" % (text, text) + plain())
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [expected, expected, *FRAMES]


@pytest.mark.parametrize("separator", [b"\n", b"\r"], ids=["decoded in bulk", "decoded one by one"])
async def test_a_null_in_a_frame_is_taken_for_an_optional_field_that_was_left_out(
    server: ControlPlane, client: EnclaveClient, separator: bytes
):
    texts = [
        b'{"kind":"phase","phase":"running","killReason":null,"ts":null}',
        b'{"kind":"stdout","data":"x","ts":null}',
        b'{"kind":"audit","event":{"type":"session_created","ts":null,"sessionId":null,"detail":null},"ts":null}',
        b'{"kind":"result","result":{"exitCode":0,"json":null,"stdout":null,"durationMs":null},"ts":null}',
        b'{"kind":"end","ts":null}',
    ]
    server.streams(b"".join(b"data: " + text + separator * 2 for text in texts))
    async with client.stream("s-1") as frames:
        assert [frame async for frame in frames] == [
            PhaseFrame(SessionPhase.RUNNING),
            StdoutFrame("x"),
            AuditFrame(AuditEvent(type=AuditType.SESSION_CREATED)),
            ResultFrame(SessionResult(exit_code=0)),
            EndFrame(),
        ]
