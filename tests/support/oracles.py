"""What must hold for every input: shared by the property tests, the replay of the corpus, and the fuzzer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
from anyio.lowlevel import checkpoint

from enclave import EnclaveClient, EnclaveError, EndFrame, Timeout
from enclave._streams._decoder import FrameDecoder
from enclave._streams._frames import decode_frame
from enclave._streams._history import History
from enclave.errors import EventTooLargeError
from enclave.transport import SSEDecoder

Seen = tuple[str, Any]


def frames_one_by_one(data: bytes, max_event_bytes: int) -> list[Seen]:
    """The frames of a stream by the specification alone: events first, then each event's data."""
    decoder, seen = SSEDecoder(max_event_bytes=max_event_bytes), list[Seen]()
    try:
        for piece in (data, b""):
            for event in decoder.feed(piece):
                seen.append(("frame", decode_frame(event.data.encode(), event.event)))
                if isinstance(seen[-1][1], EndFrame):
                    return seen
    except EventTooLargeError:
        seen.append(("too large", max_event_bytes))
    return seen


def frames_in_bulk(data: bytes, max_event_bytes: int, read_bytes: int) -> list[Seen]:
    """The same by the decoder that takes whole reads at once."""
    decoder, seen = FrameDecoder(History(), max_event_bytes=max_event_bytes), list[Seen]()
    for start in range(0, len(data), read_bytes):
        if decoder.ended:
            break
        seen += [("frame", frame) for frame in decoder.feed(data[start : start + read_bytes])]
    if isinstance(decoder.failure, EventTooLargeError):
        seen.append(("too large", decoder.failure.limit_bytes))
    return seen


def check_decoders_agree(data: bytes) -> None:
    """Both ways give the same frames, however the bytes are split."""
    for max_event_bytes in (64, 1 << 20):
        expected = frames_one_by_one(data, max_event_bytes)
        for read_bytes in (1 if len(data) < 600 else 5, 7, 64, len(data) or 1):  # a byte at a time takes long
            got = frames_in_bulk(data, max_event_bytes, read_bytes)
            assert got == expected, f"max_event_bytes={max_event_bytes}, read_bytes={read_bytes}"


class _Body(httpx.AsyncByteStream):
    def __init__(self, body: bytes, piece_bytes: int) -> None:
        self._body = body
        self._piece_bytes = piece_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body), self._piece_bytes):
            await checkpoint()
            yield self._body[start : start + self._piece_bytes]


class CannedTransport(httpx.AsyncBaseTransport):
    """Gives one answer to every request."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, piece_bytes: int = 64) -> None:
        self._status, self._body, self._piece_bytes = status, body, piece_bytes
        self._headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await checkpoint()
        return httpx.Response(self._status, headers=self._headers, stream=_Body(self._body, self._piece_bytes))


async def _stream(client: EnclaveClient) -> None:
    async with client.stream("s-1") as frames:
        async for _ in frames:
            pass


CALLS: dict[str, Callable[[EnclaveClient], Awaitable[object]]] = {
    "session": lambda client: client.get("s-1"),
    "sessions": lambda client: client.list(),
    "audit": lambda client: client.audit("s-1"),
    "health": lambda client: client.health(),
    "created": lambda client: client.run("pass"),
    "result": lambda client: client.result("s-1", dict[str, list[int]]),
    "stream": _stream,
}


async def check_response_is_understood_or_refused(name: str, transport: CannedTransport) -> None:
    """Whatever is answered, a call gives a value or raises an error of ours that can be printed."""
    # A session whose create got no answer is looked for, and this server never shows one.
    timeout = Timeout(recover_create=0.05)
    async with EnclaveClient("http://127.0.0.1:1", transport=transport, retry=None, timeout=timeout) as client:
        try:
            await CALLS[name](client)
        except EnclaveError as error:
            assert len(str(error)) < 2_000
