"""Results as lines of JSON, in a file that a later run of the same command goes on with."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Self

import anyio.to_thread
import msgspec

from enclave import Completed, Errored, Outcome, Verdict

from . import _json
from ._errors import CommandError, described
from ._output import Screen

MAX_LINE_BYTES = 256 * 1024 * 1024
_START = b'{"index":'  # every line of ours starts so, a torn one as far as it goes


class _Exit(msgspec.Struct):
    exit_code: int | None = msgspec.field(name="exitCode")


class _Earlier(msgspec.Struct):
    index: int
    result: _Exit | None = None


_earlier = msgspec.json.Decoder(_Earlier)


class MapOutput:
    """Where results go: a file, or standard output where there is none."""

    def __init__(self, path: str | None, screen: Screen) -> None:
        self._path = path
        self._screen = screen
        self._fd: int | None = None
        self.done: set[int] = set()
        """Indexes whose line an earlier run wrote."""
        self.written = 0
        """How many lines this run wrote."""
        self.failed = 0
        """How many of all lines tell of a failure, those of earlier runs included."""

    def __enter__(self) -> Self:
        """Open the file and read what is in it.

        Raises:
            CommandError: it holds something else than results. OSError: it cannot be opened.
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
        await self._write(index, None, {"error": {"type": "BadLine", "message": reason}})

    async def add(self, index: int, outcome: Outcome[Any]) -> None:
        """Write what became of a request."""
        error = outcome.error if isinstance(outcome, Errored) else outcome.teardown_error
        body: dict[str, Any] = {}
        if error is not None:
            body["error"] = {"type": type(error).__name__, "message": described(error)}
        if isinstance(outcome, Completed):
            body["result"] = _json.document(outcome.result)
        failed = error is not None or outcome.verdict is not Verdict.SUCCEEDED
        await self._write(index, outcome.session_id, body, failed=failed)

    async def _write(self, index: int, session_id: str | None, body: dict[str, Any], *, failed: bool = True) -> None:
        self.written += 1
        self.failed += failed
        line = _json.line({"index": index, "sessionId": session_id, **body})
        if self._fd is None:
            await self._screen.out.write(line)
        else:
            # Not left behind when cancelled: the file is closed right after.
            await anyio.to_thread.run_sync(_write_all, self._fd, line.encode())

    def _read_earlier(self, path: str) -> int | None:
        """Note what is there; the length to cut a torn last line off at, None where the file is whole."""
        if not Path(path).exists():
            return None
        if not Path(path).is_file():  # a named pipe could not even be opened without waiting for its other end
            raise CommandError(f"{path}: not a regular file; leave --output out and redirect standard output")
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
        self.failed += earlier.result is None or earlier.result.exit_code != 0


def _foreign(path: str, number: int) -> CommandError:
    return CommandError(f"{path}: line {number} is no result of `enclave map`; choose another --output")


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
