"""Text that is safe to print: control characters of untrusted text are made visible, and JSON holds none. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import msgspec

# C0 and C1 controls and DEL. The marks, embeddings, overrides and isolates of bidirectional text. The separators and
# annotations that some terminals act on. Tab and line feed stay, and a carriage return in front of a line feed.
_ACTED_ON = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb"
_IN_TEXT = re.compile(rf"[{_ACTED_ON}]|\r(?!\n)")
_IN_LINE = re.compile(rf"[{_ACTED_ON}\t\r\n]")
_IN_JSON = re.compile(rf"[{_ACTED_ON}]")
_SHORT = {"\t": r"\t", "\r": r"\r", "\n": r"\n"}


class _Wire(Protocol):
    def to_json(self) -> bytes: ...


def one_line(text: object) -> str:
    """An object's text on one line, with every control character shown as an escape."""
    return _IN_LINE.sub(_shown, str(text))


def json_line(document: object) -> str:
    """A document as JSON on one line, with the line end."""
    # A line break can only stand between the tokens of JSON that was not written here.
    return _safe_json(msgspec.json.encode(document)).replace("\n", " ") + "\n"


def json_pretty(document: object) -> str:
    """A document as indented JSON, for a person."""
    return _safe_json(msgspec.json.format(msgspec.json.encode(document), indent=2)) + "\n"


def as_sent(value: _Wire) -> msgspec.Raw:
    """A value of the wire, as a document or a part of one. What the SDK has no name for is in it as it came."""
    return msgspec.Raw(value.to_json())


def labels_line(labels: Mapping[str, str]) -> str | None:
    """The labels of a session for a person. Those that the SDK made for itself are left out."""
    return " ".join(f"{key}={value}" for key, value in labels.items() if not key.startswith("enclave-sdk.")) or None


def visible(text: str) -> str:
    """A whole text, with every control character but tabs and line ends shown as an escape."""
    return _IN_TEXT.sub(_shown, text)


def known_time(time: datetime | None) -> datetime | None:
    """A time with its zone. None for the year 1, which is how servers written in Go send a time that is not set."""
    if time is None or time.year == 1:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def local_time(time: datetime) -> str:
    """A time in the zone of this machine, or as it is if it has no local form."""
    with suppress(OverflowError, ValueError, OSError):  # at the ends of the calendar, or of what the platform converts
        time = time.astimezone()
    return time.isoformat(" ", "milliseconds")


class VisibleText:
    """Shows the control characters of text that arrives in pieces. A line end may be cut between CR and LF."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        """The next piece. A carriage return at its end waits for the piece that follows."""
        # Between CR and LF is where reads and frames are cut too. A lone CR is an escape, and one before LF is not.
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""
        return visible(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """The carriage return that was held back, if there is one."""
        text, self._held = self._held, ""
        return visible(text)


def _shown(match: re.Match[str]) -> str:
    char = match[0]
    return _SHORT.get(char) or (f"\\x{ord(char):02x}" if char <= "\xff" else f"\\u{ord(char):04x}")


def _safe_json(document: bytes) -> str:
    """The same JSON. Control characters that JSON permits inside strings are written as escapes."""
    # Inside a string JSON permits no raw carriage return, so this one is only space.
    text = document.decode().replace("\r", " ")
    return _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
