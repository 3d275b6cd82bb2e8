"""Every type of the wire, and nothing that does I/O. Imports msgspec and the standard library only.

_open_enum.py  string enumerations that accept members they do not know
_absent.py     fields for which null on the wire means absent
_limits.py     SessionLimits, EgressPolicy: in requests and responses alike
_request.py    CreateSessionRequest, which is checked when it is made, and its fields as keywords
_session.py    Session, SessionResult, AuditEvent, Health and their enumerations
_frames.py     the live stream's frames, a union discriminated on `kind`
_json.py       decoding text that JavaScript cut in the middle of a character
_lenient.py    decoding an answer of another shape field by field: what cannot be read stays in `extra`
_split.py      cutting JSON into its members, nested as deep as it may be
_answers.py    the body of each route's answer to its type
_encode.py     WireStruct: the way back to JSON, `extra` merged in
_shown.py      how an object shows itself: as a short line, and Listing, a list that a notebook shows as a table
_html.py       those tables
_ids.py        what can be the id of a session
"""

from ._frames import (
    AuditFrame,
    EndFrame,
    KnownFrame,
    PhaseFrame,
    ResultFrame,
    StderrFrame,
    StdoutFrame,
    StreamFrame,
    UnknownFrame,
)
from ._limits import EgressPolicy, SessionLimits
from ._request import CreateSessionRequest, SessionFields
from ._session import AuditEvent, AuditType, Health, KillReason, Session, SessionPhase, SessionResult
from ._shown import Listing

__all__ = [
    "AuditEvent",
    "AuditFrame",
    "AuditType",
    "CreateSessionRequest",
    "EgressPolicy",
    "EndFrame",
    "Health",
    "KillReason",
    "KnownFrame",
    "Listing",
    "PhaseFrame",
    "ResultFrame",
    "Session",
    "SessionFields",
    "SessionLimits",
    "SessionPhase",
    "SessionResult",
    "StderrFrame",
    "StdoutFrame",
    "StreamFrame",
    "UnknownFrame",
]
