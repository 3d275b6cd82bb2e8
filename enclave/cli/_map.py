"""`enclave map`: many requests at once, and results as they come."""

from __future__ import annotations

import json
import math
import os
import stat
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO, Self

import anyio.to_thread
import msgspec
import typer

from enclave import (
    AuthenticationError,
    ConnectError,
    CreateSessionRequest,
    Errored,
    PermissionDeniedError,
)

from ._errors import EXIT_ERROR, BadUsage, CommandError
from ._map_output import MapOutput
from ._options import Local, standard_input
from ._output import Screen, in_thread
from ._runtime import Context, command

MAX_LINE_BYTES = 64 * 1024 * 1024

# What fails one request like this would fail all. So the command stops, and goes on from here once that is mended.
_HOPELESS = (AuthenticationError, ConnectError, PermissionDeniedError)

commands = typer.Typer()


@command(
    commands,
    "enclave map requests.jsonl --output results.jsonl",
    "enclave map requests.jsonl --output results.jsonl --retry-failed",
    "enclave map requests.jsonl --max-concurrency 50 | jq .sessionId",
    "enclave map - --local < requests.jsonl",
    name="map",
)
async def map_(
    ctx: Context,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="One request on each line, or a string that is its code. - for standard input."
        ),
    ],
    *,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Append results here instead of printing them. Requests with a result in it are skipped.",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Run the requests that failed in --output again, and drop their lines."),
    ] = False,
    max_concurrency: Annotated[int, typer.Option(metavar="N", help="How many sessions run at once.", min=1)] = 16,
    creates_per_second: Annotated[
        float | None,
        typer.Option(metavar="N", help="How many sessions are created in a second at most, evenly spread."),
    ] = None,
    local: Local = False,
) -> int:
    """Run many requests, and write results as they come.

    A result is a line of JSON with index, sessionId, verdict, and result or error. The index is the request's line,
    from 0. The exit code is 1 if any request has failed. A command that was stopped goes on where it was when it is run
    again with the same --output.
    """
    if creates_per_second is not None and not 0 < creates_per_second < math.inf:
        raise BadUsage("--creates-per-second: expected a number above 0")
    if retry_failed and output is None:
        raise BadUsage("--retry-failed needs --output, the file with the failures")
    if output == "-":
        raise BadUsage("--output: - is no file. Leave the option out, and results go to standard output")
    screen = ctx.obj.screen
    async with ctx.obj.client(local=local, narrate=False) as enclave:
        with (
            MapOutput(output, screen, retry_failed=retry_failed) as results,
            _requests(file, results) as (requests, total),
        ):
            async with enclave.fan_out(
                requests, max_concurrency=max_concurrency, creates_per_second=creates_per_second
            ) as outcomes:
                with _progress(screen, results, total, printed=output is None) as advance:
                    # In the order in which they end. The index in each line tells which request it was.
                    async for outcome in outcomes:
                        if isinstance(outcome, Errored) and isinstance(outcome.error, _HOPELESS):
                            raise outcome.error
                        await results.add(requests.lines.pop(outcome.index), outcome)
                        advance(results.count, results.failed)
        if results.failed:
            await screen.status(f"{results.failed} of {results.count} failed")
    return EXIT_ERROR if results.failed else 0


class BadLine(Exception):
    """A line of the input is no request. The message says why."""


class Requests:
    """The requests of a file that no earlier run has answered. They are read as they are asked for."""

    def __init__(self, file: BinaryIO, output: MapOutput) -> None:
        self.lines: dict[int, int] = {}
        """The line of each request that was given out, by its place among these."""
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
            if self._line == 0:
                if line.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):  # as PowerShell writes it, where no line is JSON
                    raise CommandError("the input is UTF-16. Save it as UTF-8, with one request on each line")
                line = line.removeprefix(BOM_UTF8)  # as Windows writes it
            if not line.strip() or self._line in self._output.done:
                continue
            try:
                request = _parse_line(line)
            except BadLine as error:
                await self._output.rejected(self._line, f"line {self._line + 1}: {error}")
                continue
            # `fan_out` counts the requests that it was given, and those are fewer than the lines.
            self.lines[self._given] = self._line
            self._given += 1
            return request
        raise StopAsyncIteration

    async def _read(self) -> bytes:
        if self._may_block:
            return await in_thread(_read_line, self._file, self._line + 2)
        # A thread that reads a file ends soon. It is not left behind, because the file is closed after it.
        return await anyio.to_thread.run_sync(_read_line, self._file, self._line + 2)


def _read_line(file: BinaryIO, number: int) -> bytes:
    """The next line of the input, or nothing at its end. This may block.

    Raises:
        CommandError: the line is longer than `MAX_LINE_BYTES`.
    """
    line = file.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise CommandError(f"line {number}: longer than {MAX_LINE_BYTES} bytes. The input has one request on each line")
    return line


def _parse_line(line: bytes) -> CreateSessionRequest:
    """The request on a line: a JSON object with the wire's names, or a JSON string that is the code.

    Fields that the SDK has no name for are sent as they are.

    Raises:
        BadLine: the line is not JSON, or not a request.
    """
    # `from_json` has the same errors, but a string is a request too, and it does not take one.
    try:
        document = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        half = _half_of_a_pair(line)
        raise BadLine(
            f"{half} is half of a character, and the other half is missing" if half else f"not JSON: {error}"
        ) from None
    try:
        if isinstance(document, str):
            return CreateSessionRequest(code=document)
        if isinstance(document, dict):
            return CreateSessionRequest.from_json(line)
    except ValueError as error:
        raise BadLine(str(error)) from None
    raise BadLine("expected a request, or a string with its code")


def _half_of_a_pair(line: bytes) -> str | None:
    r"""The escape of a lone surrogate in a line that is JSON besides, as `\ud83d`.

    msgspec refuses such a line as one that was cut off, or as malformed.
    """
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"\\u{ord(error.object[error.start]):04x}"
    except (ValueError, RecursionError):
        return None
    return None


@contextmanager
def _requests(path: str, output: MapOutput) -> Generator[tuple[Requests, int | None]]:
    """The requests, and their number if it can be known beforehand."""
    if path == "-":
        yield Requests(standard_input(), output), None
        return
    file = Path(path).open("rb")  # noqa: SIM115 - not always closed, see below
    try:
        yield Requests(file, output), _count(file)
    finally:
        if _is_regular(file):  # closing a pipe would wait for a thread that still reads it
            file.close()


def _is_regular(file: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _count(file: BinaryIO) -> int | None:
    if not _is_regular(file):
        return None
    # Reading the file twice costs little beside running it, and gives the bar its end.
    count = sum(1 for line in file if line.strip())
    file.seek(0)
    return count


def _progress(
    screen: Screen, results: MapOutput, total: int | None, *, printed: bool
) -> AbstractContextManager[Callable[[int, int], None]]:
    if not screen.err.is_terminal or (printed and screen.out.is_terminal):  # results that scroll by show the progress
        return nullcontext(lambda _done, _failed: None)
    from . import _tables  # noqa: PLC0415 - Rich is slow to import

    return _tables.progress(screen.err, done=results.count, failed=results.failed, total=total)
