"""How a frame is written as a Server-Sent Event. Pure: no I/O."""

from __future__ import annotations

import msgspec

from . import _checks


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """How frames are written as Server-Sent Events. Every choice is valid, so a client must cope with all of them.

    Raises:
        TypeError, ValueError: a field makes no sense, as a `newline` that is none of LF, CR and CRLF, or a negative
            number. The message names it.
    """

    ids: bool = True
    """Whether each frame has an ``id``, counted from ``"1"``. Without ids `Last-Event-ID` is ignored."""
    newline: str = "\n"
    """The line end: ``"\\n"``, ``"\\r"`` or ``"\\r\\n"``."""
    event_names: bool = False
    """Whether an ``event`` field repeats the frame's kind."""
    kind_in_event_only: bool = False
    """Whether the kind stands in the ``event`` field and not in the JSON."""
    comments: bool = False
    """Whether a comment line precedes each frame."""
    bom: bool = False
    """Whether the stream starts with a byte order mark."""
    data_lines: int = 1
    """How many ``data`` lines a frame is spread over, where its JSON can be broken that often."""
    chunk_bytes: int = 0
    """The size of each write in bytes, which cuts frames anywhere. 0 writes all that is there."""
    frames_per_write: int = 0
    """The most frames in one write. 0 writes all that is there."""
    retry_ms: int | None = None
    """The ``retry`` field at the start of the stream, in milliseconds. None sends no such field."""

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(type(self)):
            value = getattr(self, field.name)
            if isinstance(field.default, bool):
                _checks.flag(field.name, value)
            elif field.name != "newline" and value is not field.default:
                _checks.count(field.name, value)
        if self.newline not in ("\n", "\r", "\r\n"):
            raise ValueError(f"newline: expected LF, CR or CRLF, got {self.newline!r}")
        if self.data_lines < 1:
            raise ValueError(f"data_lines: must be at least 1, got {self.data_lines}")

    def preamble(self) -> bytes:
        """What stands before the first frame."""
        end = self.newline.encode()
        retry = b"retry: %d%b%b" % (self.retry_ms, end, end) if self.retry_ms is not None else b""
        return (b"\xef\xbb\xbf" if self.bom else b"") + retry

    def comment(self, text: bytes) -> bytes:
        """A comment, which readers ignore. Heartbeats are comments."""
        return b": %b%b" % (text, self.newline.encode() * 2)

    def event(self, number: int, frame: bytes) -> bytes:
        """One event. `number` counts the session's frames from 1."""
        # The usual case comes first. It needs no list, and no look into the JSON.
        if self == _PLAIN and b"\n" not in frame and b"\r" not in frame:
            return b"id: %d\ndata: %b\n\n" % (number, frame)
        lines = [b": frame %d" % number] if self.comments else []
        if self.ids:
            lines.append(b"id: %d" % number)
        if self.event_names or self.kind_in_event_only:
            frame, kind = _take_kind(frame) if self.kind_in_event_only else (frame, _kind(frame))
            lines += [b"event: " + kind] if kind else []
        lines += [b"data: " + part for part in _split(frame, self.data_lines)]
        return self.newline.encode().join([*lines, b"", b""])


_PLAIN = Framing()
_object = msgspec.json.Decoder(dict[str, object])


def _document(frame: bytes) -> dict[str, object]:
    """The frame as a dict. Empty for a frame that is no JSON object, as a script may have one on purpose."""
    try:
        return _object.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _kind(frame: bytes) -> bytes:
    kind = _document(frame).get("kind")
    return kind.encode("utf-8", "replace") if isinstance(kind, str) else b""


def _take_kind(frame: bytes) -> tuple[bytes, bytes]:
    kind = _kind(frame)
    if not kind:
        return frame, b""
    document = _document(frame)
    del document["kind"]
    return msgspec.json.encode(document), kind


def _split(frame: bytes, lines: int) -> list[bytes]:
    """Break JSON text where a line break changes nothing: before a key of the outermost object."""
    document = _document(frame) if lines > 1 else {}
    if not document:
        return frame.splitlines() or [frame]
    items = [msgspec.json.encode(key) + b":" + msgspec.json.encode(value) for key, value in document.items()]
    parts = [b"{", *[item + b"," for item in items[:-1]], items[-1], b"}"]
    return [*parts[: lines - 1], b"".join(parts[lines - 1 :])] if len(parts) > lines else parts
