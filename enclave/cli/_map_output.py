"""Results of `enclave map` as lines of JSON, in a file with which a later run of the same command goes on."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Self

import anyio.to_thread
import msgspec

from enclave import Completed, Errored, Outcome, Verdict

from ._errors import CommandError, described
from ._output import Screen
from ._text import as_sent, json_line

MAX_LINE_BYTES = 256 * 1024 * 1024
_START = b'{"index":'  # each line of ours starts like this, and a torn one does as far as it goes


class _Error(msgspec.Struct):
    type: str
    message: str


class _Line(msgspec.Struct, rename="camel", omit_defaults=True):
    """A line of the output. The index comes first, which `_START` relies on."""

    index: int
    session_id: str | None
    verdict: Verdict
    error: _Error | None = None
    result: msgspec.Raw | None = None


class _Earlier(msgspec.Struct):
    index: int
    verdict: str
    error: _Error | None = None

    @property
    def failed(self) -> bool:
        return self.error is not None or self.verdict != Verdict.SUCCEEDED


_earlier = msgspec.json.Decoder(_Earlier)


class MapOutput:
    """Where results go: a file, or standard output without one."""

    def __init__(self, path: str | None, screen: Screen) -> None:
        self._path = path
        self._screen = screen
        self._fd: int | None = None
        self._written = 0
        self.done: set[int] = set()
        """The indexes for which an earlier run wrote a line."""
        self.failed = 0
        """How many of all lines tell of a failure. Those of earlier runs count too."""

    @property
    def count(self) -> int:
        """How many lines there are, those of earlier runs included."""
        return len(self.done) + self._written

    def __enter__(self) -> Self:
        """Open the file and read what is in it.

        Raises:
            CommandError: it holds something other than results.
            OSError: it cannot be opened.
        """
        if self._path is not None:
            kept_bytes = self._read_earlier(self._path)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            if kept_bytes is not None:
                os.ftruncate(self._fd, kept_bytes)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    async def rejected(self, index: int, reason: str) -> None:
        """Write that a line of the input is no request."""
        await self._write(_Line(index, None, Verdict.CLIENT, error=_Error("BadLine", reason)), failed=True)

    async def add(self, index: int, outcome: Outcome[Any]) -> None:
        """Write how a request ended."""
        line = _Line(index, outcome.session_id, outcome.verdict)
        error = outcome.error if isinstance(outcome, Errored) else outcome.teardown_error
        if error is not None:
            line.error = _Error(type(error).__name__, described(error))
        if isinstance(outcome, Completed):
            line.result = as_sent(outcome.result)
        await self._write(line, failed=error is not None or outcome.verdict is not Verdict.SUCCEEDED)

    async def _write(self, document: _Line, *, failed: bool) -> None:
        self._written += 1
        self.failed += failed
        line = json_line(document)
        if self._fd is None:
            await self._screen.out.write(line)
        else:
            # The thread is not left behind when cancelled, because the file is closed right after.
            await anyio.to_thread.run_sync(_write_all, self._fd, line.encode())

    def _read_earlier(self, path: str) -> int | None:
        """Note the earlier results. If the last line is torn, give the length of what is before it."""
        if not Path(path).exists():
            return None
        if not Path(path).is_file():  # to open a named pipe would wait for whoever opens its other end
            raise CommandError(f"{path}: not a regular file. Leave --output out and redirect standard output")
        kept_bytes = 0
        with Path(path).open("rb") as file:
            for number in itertools.count(1):
                line = file.readline(MAX_LINE_BYTES)
                if not line.endswith(b"\n"):
                    if len(line) >= MAX_LINE_BYTES or line[: len(_START)] != _START[: len(line)]:
                        raise _foreign(path, number)
                    return kept_bytes
                self._note(line, path, number)
                kept_bytes += len(line)
        raise AssertionError("unreachable")

    def _note(self, line: bytes, path: str, number: int) -> None:
        try:
            earlier = _earlier.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _foreign(path, number) from None
        self.done.add(earlier.index)
        self.failed += earlier.failed


def _foreign(path: str, number: int) -> CommandError:
    return CommandError(f"{path}: line {number} is no result of `enclave map`. Choose another --output")


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
