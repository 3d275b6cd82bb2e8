"""One event's data to one frame: the exact way, which every frame that is not plain takes."""

from __future__ import annotations

from contextlib import suppress
from typing import cast, get_args

import msgspec

from enclave.errors import decoding_problem
from enclave.types import KnownFrame, StreamFrame, UnknownFrame
from enclave.types._json import repair_text
from enclave.types._lenient import LenientDecoder


class _Kind(msgspec.Struct):
    kind: str | msgspec.UnsetType = msgspec.UNSET


# Typed as what callers hold: a list of the known frames is no list of frames to a type checker.
_known = cast("msgspec.json.Decoder[StreamFrame]", msgspec.json.Decoder(KnownFrame))
_kind = msgspec.json.Decoder(_Kind)
_by_kind: dict[str, LenientDecoder[KnownFrame]] = {type_.kind: LenientDecoder(type_) for type_ in get_args(KnownFrame)}


def decode_frames(lines: bytes, count: int) -> list[StreamFrame] | None:
    """Decode `count` frames at once, each on a line of its own.

    None if any of them is not sound, or of a kind that this version does not know.
    """
    try:
        if not lines.isascii():
            lines.decode()  # msgspec does not look at the text of fields that it skips, but the checksum covers it
        frames = _known.decode_lines(lines)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return frames if len(frames) == count else None


def decode_frame(data: bytes, event: str = "") -> StreamFrame:
    """Decode the data of one event. `event` is its SSE name, which is the kind of a frame that has none of its own.

    Data that cannot be read becomes an `UnknownFrame`.
    """
    try:
        return _known.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Rarely taken, and for several reasons: broken text, a kind we do not know, no kind at all, a true mistake.
        return _decode_uncommon(data, event)


def _decode_uncommon(data: bytes, event: str) -> StreamFrame:
    kind = "" if event == "message" else event  # "message" is what SSE calls an event without a name
    try:
        text = repair_text(data)
        if text is not data:
            with suppress(msgspec.DecodeError):  # mostly there was nothing else
                return _known.decode(text)
        own_kind = _kind.decode(text).kind
        if own_kind is not msgspec.UNSET:
            kind = own_kind
        elif not kind:
            return UnknownFrame("", data, "Object missing required field `kind`, and the event has no name")
        decoder = _by_kind.get(kind)
        return decoder.decode(bytes(text)) if decoder else UnknownFrame(kind, data)
    except RecursionError:
        return UnknownFrame(kind, data, "JSON is nested too deeply")
    except msgspec.DecodeError as error:
        return UnknownFrame(kind, data, decoding_problem(error))
