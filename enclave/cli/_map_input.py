"""Requests from lines of JSON: a whole `CreateSessionRequest` under the wire's names, or a string that is its code."""

from __future__ import annotations

from typing import BinaryIO

import msgspec

from enclave import CreateSessionRequest

from ._errors import CommandError

MAX_LINE_BYTES = 64 * 1024 * 1024


class BadLine(Exception):
    """A line is no request; the message says why."""


def read_line(file: BinaryIO, number: int) -> bytes:
    """The next line, empty at the end of the file.

    Raises:
        CommandError: it is longer than `MAX_LINE_BYTES`.
    """
    line = file.readline(MAX_LINE_BYTES + 1)
    if len(line) > MAX_LINE_BYTES:
        raise CommandError(f"line {number}: longer than {MAX_LINE_BYTES} bytes; the input has one request on a line")
    return line


def parse_request(line: bytes) -> CreateSessionRequest:
    """The request on a line. Fields that the SDK has no name for are sent as they are.

    Raises:
        BadLine: it is not JSON, or not a request.
    """
    try:
        document = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadLine(f"not JSON: {error}") from None
    try:
        if isinstance(document, str):
            return CreateSessionRequest(code=document)
        if isinstance(document, dict):
            return CreateSessionRequest.from_json(line)
    except ValueError as error:
        raise BadLine(str(error)) from None
    raise BadLine("expected a request, or a string with its code")
