"""From the bytes a workload writes to pieces of text and runner reports. Pure: no I/O, no clock.

Text comes out line by line as printed. A line longer than `MAX_PIECE_BYTES` comes in pieces, and `flush` gives out a
line that is not complete yet. Bytes that are not UTF-8 become U+FFFD.

A report is a line of standard output that starts with `__ENCLAVE__ ` and holds one JSON object. Our own runners put a
NUL before it, so that a report need not start a line: code that printed half a line keeps it whole.
"""

from __future__ import annotations

import codecs
from typing import Any

import msgspec

from enclave.types._json import decode_text

MARK = b"__ENCLAVE__ "
RUNNER_MARK = b"\0" + MARK
MAX_PIECE_BYTES = 65_536
MAX_REPORT_BYTES = 4 * 1024 * 1024

_object = msgspec.json.Decoder(dict[str, Any])


class Report(msgspec.Struct, frozen=True):
    """What a runner, or a workload posing as one, reported."""

    value: dict[str, Any]


class OversizedReport(msgspec.Struct, frozen=True):
    """A report of more than `MAX_REPORT_BYTES` was dropped."""


Piece = str | Report | OversizedReport


class OutputDecoder:
    """One output stream of a workload. `reports` says whether runner reports are looked for in it."""

    def __init__(self, *, reports: bool) -> None:
        self._reports = reports
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending = bytearray()
        self._scanned = 0
        self._line_open = False
        self._dropping = False

    @property
    def has_partial_line(self) -> bool:
        """Whether `flush` could give out something."""
        return bool(self._pending)

    def feed(self, data: bytes) -> list[Piece]:
        """The pieces that are complete with this data."""
        self._pending += data
        pieces: list[Piece] = []
        start = 0
        while (end := self._pending.find(b"\n", max(start, self._scanned))) >= 0:
            self._take_line(bytes(self._pending[start : end + 1]), pieces)
            start = self._scanned = end + 1
        del self._pending[:start]
        self._scanned = len(self._pending)
        if self._scanned > MAX_PIECE_BYTES:
            self._take_long_line(pieces)
        return pieces

    def flush(self, *, final: bool = False) -> list[Piece]:
        """The incomplete line, unless it is or may become a report; with `final`, everything."""
        pieces: list[Piece] = []
        if final:
            rest = bytes(self._pending)
            self._pending.clear()
            if rest and not self._dropping:
                self._take_line(rest, pieces)
            self._emit(b"", pieces, final=True)
        else:
            self._emit(self._take_text(), pieces)
        self._scanned = len(self._pending)
        return pieces

    def _take_line(self, line: bytes, pieces: list[Piece]) -> None:
        if self._dropping:
            self._dropping = False
            return
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
        try:
            pieces.append(Report(decode_text(_object, document)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        return True

    def _take_long_line(self, pieces: list[Piece]) -> None:
        if self._dropping:
            self._pending.clear()
        elif self._report_start() is None:
            self._emit(self._take_text(), pieces)
        elif len(self._pending) > MAX_REPORT_BYTES:
            self._emit(self._take_text(), pieces)
            self._pending.clear()
            self._dropping = True
            pieces.append(OversizedReport())
        self._scanned = len(self._pending)

    def _take_text(self) -> bytes:
        """Remove and return what of the incomplete line is text for certain."""
        start = self._report_start()
        end = len(self._pending) if start is None else start
        text = bytes(self._pending[:end])
        del self._pending[:end]
        return text

    def _report_start(self) -> int | None:
        """Where in the incomplete line a report starts, or could once more of it is here."""
        if not self._reports:
            return None
        if not self._line_open and (self._pending.startswith(MARK) or MARK.startswith(self._pending)):
            return 0
        at = self._pending.find(RUNNER_MARK)
        if at < 0:
            at = self._pending.rfind(b"\0", -len(RUNNER_MARK))
            if at >= 0 and not RUNNER_MARK.startswith(self._pending[at:]):
                at = -1
        return at if at >= 0 else None

    def _emit(self, data: bytes, pieces: list[Piece], *, final: bool = False) -> None:
        if data:
            self._line_open = not data.endswith(b"\n")
        for start in range(0, len(data) or 1, MAX_PIECE_BYTES):
            text = self._text.decode(data[start : start + MAX_PIECE_BYTES], final)
            if text:
                pieces.append(text)
