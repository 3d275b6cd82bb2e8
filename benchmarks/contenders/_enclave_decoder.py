"""Our decoders alone, without a client: the frame path, and the exact path by event objects."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from enclave._streams._decoder import FrameDecoder
from enclave._streams._history import History
from enclave.transport import SSEDecoder
from enclave.types import KnownFrame


def _by_frame(reads: list[bytes]) -> int:
    count = 0
    decoder = FrameDecoder(History())
    for read in reads:
        for _ in decoder.feed(read):
            count += 1
    if decoder.failure is not None:
        raise decoder.failure
    return count


def _exact(reads: list[bytes]) -> int:
    count = 0
    decode_frame = msgspec.json.Decoder(KnownFrame).decode
    decoder = SSEDecoder()
    for read in reads:
        for event in decoder.feed(read):
            decode_frame(event.data)
            count += 1
    return count


def decoder(variant: str) -> Callable[[list[bytes]], int]:
    return {"frames": _by_frame, "exact": _exact}[variant]
