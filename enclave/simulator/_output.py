"""From the bytes a workload writes to pieces of text and runner reports. Pure: no I/O, no clock.

Text comes out line by line as printed. A line longer than `MAX_PIECE_BYTES` comes in pieces. `flush` gives out a line
that is not complete yet, and `LineStarts` says when. Where very many lines come at once, all but the first come
together, because each piece costs the event loop as much as a hundred lines of text. Bytes that are not UTF-8 become
U+FFFD.

A report is a line of standard output that starts with `__ENCLAVE__ ` and holds one JSON object. Our own runners put a
NUL before it, so that a report need not start a line, and code that printed half a line keeps it whole. A workload can
forge reports, so they are bounded, and their values stay encoded.
"""

from __future__ import annotations

import codecs
import math
import re

import msgspec

from enclave.types._json import decode_text

MARK = b"__ENCLAVE__ "
RUNNER_MARK = b"\0" + MARK
MAX_PIECE_BYTES = 65_536
MAX_REPORT_BYTES = 4 * 1024 * 1024
MAX_SINGLE_LINES = 32
"""How many lines of those that come at once are pieces of their own."""
LINE_START_SECONDS = 0.25
"""How long the start of a line waits for its end."""
MAX_LEVELS = 100
MAX_DIGITS = 1000
_LONG_NUMBER = re.compile(rb"[-+.0-9eE]{%d}" % (MAX_DIGITS + 1))
_LARGE_NUMBER = re.compile(rb"[eE]\+?[0-9]{2}|[0-9]{300}")
_NULL = msgspec.Raw(b"null")
_ONE_KIND_OF_BRACKET = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Report(msgspec.Struct, frozen=True):
    """What a runner, or a workload posing as one, reported. The values are JSON."""

    t: msgspec.Raw = _NULL
    """What it reports: a result or egress."""
    json: msgspec.Raw = _NULL
    """The value of a result."""
    host: msgspec.Raw = _NULL
    """Where to an egress went."""
    ok: msgspec.Raw = _NULL
    """Whether it was allowed."""


class OversizedReport(msgspec.Struct, frozen=True):
    """A report was dropped that had more than `MAX_REPORT_BYTES`, or was nested so deep that nothing decodes it."""


Piece = str | Report | OversizedReport

_report = msgspec.json.Decoder(Report)
_anything = msgspec.json.Decoder()


class LineStarts:
    """Which output streams have a line that is not complete, and when its start is to be given out. Pure: no clock.

    A program shows a prompt or its progress without a line's end, so that comes soon. Python writes the end of what it
    prints on its own, and on a busy machine some time after the line. So it does not come at once.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def note(self, stream: str, data: bytes, *, is_open: bool, now: float) -> None:
        """Count output of a stream. `is_open` says whether there is a line to complete after it."""
        if not is_open:
            self._due.pop(stream, None)
        elif b"\n" in data or stream not in self._due:
            self._due[stream] = now + LINE_START_SECONDS

    @property
    def deadline(self) -> float:
        """When the first of them is due."""
        return min(self._due.values(), default=math.inf)

    def due(self, now: float) -> list[str]:
        """The streams whose time has come. Each is told once, and again when there is more of its line."""
        streams = [stream for stream, due in self._due.items() if due <= now]
        for stream in streams:
            del self._due[stream]
        return streams


class OutputDecoder:
    """One output stream of a workload. `reports` says whether runner reports are looked for in it."""

    def __init__(self, *, reports: bool) -> None:
        self.muted = False
        """Whether only reports are wanted from now on, because there is no room for more text."""
        self._reports = reports
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = bytearray()
        self._line_open = False
        self._dropping = False

    @property
    def has_partial_line(self) -> bool:
        """Whether `flush` could give out something."""
        return bool(self._pending) and not self._dropping

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that are complete with this data."""
        self._pending += data
        pieces: list[Piece] = []
        end = data.rfind(b"\n") + 1
        if end:
            end += len(self._pending) - len(data)
            lines = bytes(self._pending[:end])
            del self._pending[:end]
            self._take_lines(lines, pieces)
        if len(self._pending) > MAX_PIECE_BYTES:
            self._take_long_line(pieces)
        return pieces

    def flush(self, *, final: bool = False) -> list[Piece]:
        """The incomplete line, unless it is, may become or was a report. With `final`, everything."""
        pieces: list[Piece] = []
        if final:
            rest = bytes(self._pending)
            self._pending.clear()
            if rest and not self._dropping:
                self._take_line(rest, pieces)
            self._emit(b"", pieces, final=True)
        elif not self._dropping:
            self._emit(self._take_text(), pieces)
        return pieces

    def _take_lines(self, lines: bytes, pieces: list[Piece]) -> None:
        """Complete lines. Those that hold a mark are looked at one by one, and the text between them is not."""
        at = 0
        if self._dropping:
            self._dropping = False
            at = lines.find(b"\n") + 1
        while self._reports and (mark := lines.find(MARK, at)) >= 0:
            start = max(at, lines.rfind(b"\n", at, mark) + 1)
            self._emit_lines(lines[at:start], pieces)
            at = lines.find(b"\n", mark) + 1
            self._take_line(lines[start:at], pieces)
        self._emit_lines(lines[at:], pieces)

    def _take_line(self, line: bytes, pieces: list[Piece]) -> None:
        """A line that may hold a report."""
        if self._reports:
            if not self._line_open and line.startswith(MARK) and self._take_report(line[len(MARK) :], pieces):
                return
            at = line.find(RUNNER_MARK)
            if at >= 0 and line.endswith(b"\n"):
                self._emit(line[:at], pieces)
                if self._take_report(line[at + len(RUNNER_MARK) :], pieces):
                    return
                line = line[at:]
        self._emit(line, pieces)

    def _take_report(self, document: bytes, pieces: list[Piece]) -> bool:
        # What stays encoded is not looked at here, and bytes that are no text would spoil every answer that holds it.
        document = _as_utf8(document)
        try:
            pieces.append(_report.decode(document))
        except RecursionError:
            pieces.append(OversizedReport())
        except msgspec.DecodeError:
            return self._take_repaired_report(document, pieces)
        return True

    def _take_repaired_report(self, document: bytes, pieces: list[Piece]) -> bool:
        try:
            pieces.append(decode_text(_report, document))
        except msgspec.DecodeError:
            return False
        return True

    def _take_long_line(self, pieces: list[Piece]) -> None:
        """A line that is too long to be held back until it is complete."""
        if self._dropping:
            self._pending.clear()
        elif self._report_start() is None:
            self._emit(self._take_text(), pieces)
        # What may be a report is held back up to the bound, because half a report must not show as text.
        elif len(self._pending) > MAX_REPORT_BYTES:
            self._emit(self._take_text(), pieces)
            self._pending.clear()
            self._dropping = True
            pieces.append(OversizedReport())

    def _take_text(self) -> bytes:
        """Remove and return what of the incomplete line is text for certain."""
        start = self._report_start()
        end = len(self._pending) if start is None else start
        text = bytes(self._pending[:end])
        del self._pending[:end]
        return text

    def _report_start(self) -> int | None:
        """Where in the incomplete line a report starts, or could start once more of the line is here."""
        if not self._reports:
            return None
        if not self._line_open and (self._pending.startswith(MARK) or MARK.startswith(self._pending)):
            return 0
        at = self._pending.find(RUNNER_MARK)
        # The mark itself may be cut by the end of a read.
        if at < 0:
            at = self._pending.rfind(b"\0", -len(RUNNER_MARK))
            if at >= 0 and not RUNNER_MARK.startswith(self._pending[at:]):
                at = -1
        return at if at >= 0 else None

    def _emit_lines(self, lines: bytes, pieces: list[Piece]) -> None:
        at = 0
        while not self.muted and at < len(lines) and len(pieces) < MAX_SINGLE_LINES:
            end = lines.find(b"\n", at) + 1
            self._emit(lines[at:end], pieces)
            at = end
        self._emit(lines[at:], pieces)

    def _emit(self, data: bytes, pieces: list[Piece], *, final: bool = False) -> None:
        if data:
            self._line_open = not data.endswith(b"\n")
        if self.muted:
            return
        for start in range(0, len(data) or 1, MAX_PIECE_BYTES):
            text = self._text.decode(data[start : start + MAX_PIECE_BYTES], final)
            if text:
                pieces.append(text)


def _as_utf8(document: bytes) -> bytes:
    try:
        document.decode()
    except UnicodeDecodeError:
        return document.decode("utf-8", "replace").encode()
    return document


def problem_of(document: bytes) -> str | None:
    """Why a result is one that common JSON parsers refuse, and with it all else in an answer that holds it.

    The document must be valid JSON. Every step is one pass in C over it.
    """
    # Without what a backslash escapes, every second part between quotes is outside of all strings.
    unescaped = document.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(unescaped.split(b'"')[::2])
    if _LONG_NUMBER.search(outside):
        return f"a number of more than {MAX_DIGITS} digits"
    brackets = outside.translate(_ONE_KIND_OF_BRACKET, _NO_BRACKETS)
    for _ in range(MAX_LEVELS):
        if not brackets:
            break
        brackets = brackets.replace(b"[]", b"")  # the innermost ones
    if brackets:
        return f"more than {MAX_LEVELS} levels"
    return "a number that is out of range" if _LARGE_NUMBER.search(outside) and not _decodes(document) else None


def _decodes(document: bytes) -> bool:
    try:
        decode_text(_anything, document)
    except msgspec.DecodeError:
        return False
    return True
