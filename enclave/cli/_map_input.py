"""Requests from lines of JSON: a whole `CreateSessionRequest` under the wire's names, or a string that is its code."""

from __future__ import annotations

from typing import Any, BinaryIO, TypeVar, cast

import msgspec

from enclave import CreateSessionRequest, SessionLimits

from ._errors import CommandError

T = TypeVar("T", CreateSessionRequest, SessionLimits)

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
    if isinstance(document, str):
        document = {"code": document}
    if not isinstance(document, dict):
        raise BadLine("expected a request, or a string with its code")
    try:
        return _request(cast("dict[str, Any]", document))
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise BadLine(str(error)) from None


def _request(document: dict[str, Any]) -> CreateSessionRequest:
    limits = document.get("limits")
    if not isinstance(limits, dict):
        return _converted(document, CreateSessionRequest)
    rest = {name: value for name, value in document.items() if name != "limits"}
    known_limits = _converted(cast("dict[str, Any]", limits), SessionLimits)
    return msgspec.structs.replace(_converted(rest, CreateSessionRequest), limits=known_limits)


def _converted(document: dict[str, Any], type_: type[T]) -> T:
    names = {field.encode_name for field in msgspec.structs.fields(type_) if field.name != "extra"}
    known = {name: value for name, value in document.items() if name in names}
    extra = {name: value for name, value in document.items() if name not in names}
    return msgspec.structs.replace(msgspec.convert(known, type_), extra=extra)
