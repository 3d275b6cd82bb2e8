"""One event's data to one frame: the exact way, which every frame that is not plain takes."""

from __future__ import annotations

import msgspec

from enclave.types import (
    AuditFrame,
    EndFrame,
    KnownFrame,
    PhaseFrame,
    ResultFrame,
    StderrFrame,
    StdoutFrame,
    StreamFrame,
    UnknownFrame,
)
from enclave.types._json import repair_text


class _Kind(msgspec.Struct):
    kind: str | msgspec.UnsetType = msgspec.UNSET


known_frames: msgspec.json.Decoder[KnownFrame] = msgspec.json.Decoder(KnownFrame)
"""Decodes a frame whose text is sound and whose kind we know, or many of them at once."""

_kind = msgspec.json.Decoder(_Kind)
_by_kind: dict[str, msgspec.json.Decoder[KnownFrame]] = {
    "phase": msgspec.json.Decoder(PhaseFrame),
    "stdout": msgspec.json.Decoder(StdoutFrame),
    "stderr": msgspec.json.Decoder(StderrFrame),
    "audit": msgspec.json.Decoder(AuditFrame),
    "result": msgspec.json.Decoder(ResultFrame),
    "end": msgspec.json.Decoder(EndFrame),
}


def decode_frame(data: bytes, event: str = "") -> StreamFrame:
    """Decode the data of one event; `event` is the SSE event name, the kind of a frame that has none of its own.

    Raises:
        msgspec.DecodeError: the data is not a frame.
    """
    try:
        return _decode_frame(data, event)
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deeply") from None


def _decode_frame(data: bytes, event: str) -> StreamFrame:
    try:
        return known_frames.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # Rarely taken, and for several reasons: broken text, a kind we do not know, no kind at all, a true mistake.
        text = repair_text(data)
    kind = _kind.decode(text).kind
    if kind is msgspec.UNSET:
        if event in ("", "message"):  # "message" is what SSE calls an event without a name
            raise msgspec.ValidationError("Object missing required field `kind`, and the event has no name")
        kind = event
    decoder = _by_kind.get(kind)
    return decoder.decode(text) if decoder else UnknownFrame(kind, data)
