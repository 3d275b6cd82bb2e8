"""Results of `enclave map` as lines of JSON, in a file with which a later run of the same command goes on."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Self

import anyio.to_thread
import msgspec

from enclave import Completed, Errored, Outcome, Verdict

from ._errors import CommandError, described
from ._output import Screen
from ._text import as_sent, json_line

if sys.platform != "win32":
    import fcntl

MAX_LINE_BYTES = 256 * 1024 * 1024
# Each line of ours starts like this, with any number for the index.
_START = b'{"index":0,"sessionId":'
_INDEX = re.compile(rb'^(\{"index":)[0-9]+')


class _Error(msgspec.Struct):
    type: str
    message: str


class _Line(msgspec.Struct, rename="camel", omit_defaults=True):
    """A line of the output. `_START` relies on the order of the first fields."""

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

    def __init__(self, path: str | None, screen: Screen, *, retry_failed: bool = False) -> None:
        self._path = path
        self._screen = screen
        self._retry_failed = retry_failed
        self._fds: list[int] = []  # the last one is written to, and all of them hold a lock
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
            CommandError: it holds something other than results, or another run writes to it.
            OSError: it cannot be opened.
        """
        try:
            if self._path is not None:
                self._open(Path(self._path).resolve())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        while self._fds:
            os.close(self._fds.pop())

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
        if not self._fds:
            await self._screen.out.write(line)
        else:
            # The thread is not left behind when cancelled, because the file is closed right after.
            await anyio.to_thread.run_sync(_write_all, self._fds[-1], line.encode())

    def _open(self, path: Path) -> None:
        if path.exists() and not path.is_file():  # to open a named pipe would wait for whoever opens its other end
            raise CommandError(f"{self._path}: not a regular file. Leave --output out and redirect standard output")
        # Appending: what another program writes at the same time is not overwritten.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self._fds.append(fd)
        _lock(fd, self._path)
        # The lock hangs on the open file, so it is read through the same descriptor.
        with os.fdopen(fd, "rb", closefd=False) as file:
            whole_bytes = self._read_earlier(file)
            if self._retry_failed and self.failed:
                self._replace(path, file, whole_bytes)
            elif whole_bytes < os.fstat(fd).st_size:
                os.ftruncate(fd, whole_bytes)

    def _read_earlier(self, file: BinaryIO) -> int:
        """Note the earlier results. Gives the length of the file without a last line that is torn."""
        whole_bytes = 0
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES)
            try:
                earlier = _earlier.decode(line) if line else None
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if not _is_torn(line, after_others=number > 1):
                    raise CommandError(
                        f"{self._path}: line {number} is no result of `enclave map`. Choose another --output"
                    ) from None
                break
            if earlier is None:
                break
            if not line.endswith(b"\n"):  # an editor has cut the line end off
                os.write(self._fds[-1], b"\n")
            self.done.add(earlier.index)
            self.failed += earlier.failed
            whole_bytes += len(line.rstrip(b"\n")) + 1
        return whole_bytes

    def _replace(self, path: Path, file: BinaryIO, whole_bytes: int) -> None:
        """Put a file without the failed lines in the place of this one, so that these requests are run again."""
        self.done.clear()
        self.failed = 0
        # In the same directory, because only there the new file can take the old one's place in one step.
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        # The old file stays open and locked. Another run may have opened it before it was replaced.
        self._fds.append(fd)
        try:
            _lock(fd, self._path)
            file.seek(0)
            while file.tell() < whole_bytes:
                line = file.readline()
                earlier = _earlier.decode(line)
                if not earlier.failed:
                    _write_all(fd, line)
                    self.done.add(earlier.index)
            shutil.copymode(path, name)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _lock(fd: int, path: str | None) -> None:
    """Keep other runs away from a file for as long as it is open. Raises `CommandError` if one is there already."""
    if sys.platform != "win32":
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CommandError(
                f"{path}: another `enclave map` writes to it. Wait for it, or choose another --output"
            ) from None


def _is_torn(line: bytes, *, after_others: bool) -> bool:
    """Whether this is the start of a line of ours, which was cut off.

    A torn line is removed, and the file may be somebody else's. So a line that has none of ours before it must show
    enough to be recognised.
    """
    if line.endswith(b"\n") or len(line) >= MAX_LINE_BYTES:
        return False
    start = _INDEX.sub(rb"\g<1>0", line)
    return start.startswith(_START) or (after_others and _START.startswith(start))


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
