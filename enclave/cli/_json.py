"""JSON as the commands print it: under the wire's names, harmless for a terminal. No I/O."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from enclave import AuditEvent, AuditFrame, ResultFrame, Session, SessionResult, StreamFrame, UnknownFrame

from ._text import safe_json


def line(document: object) -> str:
    """A document on one line, with the line end."""
    return safe_json(msgspec.json.encode(document).decode()) + "\n"


def pretty(document: object) -> str:
    """A document for a person, indented."""
    return safe_json(msgspec.json.format(msgspec.json.encode(document), indent=2).decode()) + "\n"


def document(value: Session | SessionResult[Any] | AuditEvent) -> dict[str, Any]:
    """A value under the wire's names. What the SDK has no name for is among the others, as it came."""
    return cast("dict[str, Any]", msgspec.json.decode(value.to_json()))


def of_frame(frame: StreamFrame) -> object:
    """A frame as the wire has it, one of an unknown kind included."""
    match frame:
        case UnknownFrame(raw=raw):
            return msgspec.json.decode(raw)
        case AuditFrame() | ResultFrame():  # they may hold what the SDK has no name for
            return msgspec.json.decode(frame.to_json())
        case _:
            return frame
