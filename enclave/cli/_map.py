"""`enclave map`: many requests at once, results as they come."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import anyio.to_thread

from enclave import (
    AuthenticationError,
    ConnectError,
    CreateSessionRequest,
    EnclaveClient,
    Errored,
    PermissionDeniedError,
)

from ._blocking import in_thread
from ._errors import EXIT_ERROR, CommandError
from ._map_input import BadLine, parse_request, read_line
from ._map_output import MapOutput
from ._output import Screen
from ._progress import progress

# What fails one request so would fail all: better to stop, and go on from here once it is mended.
_HOPELESS = (AuthenticationError, ConnectError, PermissionDeniedError)


@dataclass(frozen=True, kw_only=True)
class MapOptions:
    """What to run, how many at once, and where results go."""

    file: str
    output: str | None
    max_concurrency: int


class Requests:
    """The requests of a file that no earlier run has answered, read as they are asked for."""

    def __init__(self, file: BinaryIO, output: MapOutput) -> None:
        self.lines: dict[int, int] = {}
        """Of the requests given out, and not yet asked about: from their place among these to their line."""
        self._file = file
        self._may_block = not _is_regular(file)
        self._output = output
        self._line = -1
        self._given = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> CreateSessionRequest:
        while line := await self._read():
            self._line += 1
            if not line.strip() or self._line in self._output.done:
                continue
            try:
                request = parse_request(line)
            except BadLine as error:
                await self._output.rejected(self._line, str(error))
                continue
            self.lines[self._given] = self._line
            self._given += 1
            return request
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        if self._may_block:
            return await in_thread(read_line, self._file, self._line + 2)
        return await anyio.to_thread.run_sync(read_line, self._file, self._line + 2)


async def run_map(enclave: EnclaveClient, options: MapOptions, screen: Screen) -> int:
    """Run every request of the file that an earlier run has not; 1 if any has failed, now or then."""
    with MapOutput(options.output, screen) as output, _requests(options.file, output) as (requests, total):
        # Results that scroll by on the same terminal are progress enough.
        shown = screen.err.is_terminal and not (screen.out.is_terminal and options.output is None)
        async with enclave.fan_out(requests, max_concurrency=options.max_concurrency) as outcomes:
            with progress(total, shown=shown) as advance:
                advance(len(output.done), output.failed)
                async for outcome in outcomes:
                    if isinstance(outcome, Errored) and isinstance(outcome.error, _HOPELESS):
                        raise outcome.error
                    await output.add(requests.lines.pop(outcome.index), outcome)
                    advance(len(output.done) + output.written, output.failed)
    if output.failed:
        await screen.status(f"{output.failed} of {len(output.done) + output.written} failed")
    return EXIT_ERROR if output.failed else 0


@contextmanager
def _requests(path: str, output: MapOutput) -> Generator[tuple[Requests, int | None]]:
    """The requests, and how many lines they are, where that can be told beforehand."""
    if path == "-":
        if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - closed by whoever started us
            raise CommandError("standard input is closed; name a file instead")
        yield Requests(sys.stdin.buffer, output), None
        return
    file = Path(path).open("rb")  # noqa: SIM115 - not always closed, see below
    try:
        yield Requests(file, output), _count(file)
    finally:
        if _is_regular(file):  # closing a pipe would wait for whoever still reads it
            file.close()


def _is_regular(file: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _count(file: BinaryIO) -> int | None:
    if not _is_regular(file):
        return None
    count = sum(1 for line in file if line.strip())
    file.seek(0)
    return count
