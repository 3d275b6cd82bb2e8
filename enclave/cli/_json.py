"""JSON as the commands print it: under the wire's names, harmless for a terminal. No I/O."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from enclave import Session, StreamFrame, UnknownFrame

from ._text import safe_json


def line(document: object) -> str:
    """A document on one line, with the line end."""
    return safe_json(msgspec.json.encode(document).decode()) + "\n"


def pretty(document: object) -> str:
    """A document for a person, indented."""
    return safe_json(msgspec.json.format(msgspec.json.encode(document), indent=2).decode()) + "\n"


def of_session(session: Session) -> dict[str, Any]:
    """A session under the wire's names. What the SDK has no name for is among the others, as it came."""
    return cast("dict[str, Any]", msgspec.json.decode(to_json(session)))


def of_frame(frame: StreamFrame) -> object:
    """A frame as the wire has it, one of an unknown kind included."""
    return msgspec.json.decode(frame.raw) if isinstance(frame, UnknownFrame) else frame
