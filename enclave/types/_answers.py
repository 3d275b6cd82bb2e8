"""The bodies of the server's answers to the types they stand for. Each route has one decoder, built once."""

from __future__ import annotations

import msgspec

from ._json import decode_text
from ._lenient import LenientDecoder
from ._session import AuditEvent, Health, Session

_session = LenientDecoder(Session)
_audit_event = LenientDecoder(AuditEvent)
# Health has no field `extra` that could keep what cannot be read.
_health = msgspec.json.Decoder(Health)


def decode_session(document: bytes) -> Session:
    """Decode the answer to a create or a get. Whatever else is odd in it, a usable id is enough.

    Raises:
        msgspec.DecodeError: the document is not JSON, or has no usable id.
    """
    return _session.decode(document)


def decode_sessions(document: bytes) -> list[Session]:
    """Decode a list of sessions. Raises as `decode_session` does, with the index of the entry that has no usable id."""
    return _session.decode_list(document)


def decode_usable_sessions(document: bytes) -> list[Session]:
    """The sessions of a list that have a usable id. Raises msgspec.DecodeError where it is not a JSON array."""
    return _session.decode_usable(document)


def decode_audit(document: bytes) -> list[AuditEvent]:
    """Decode an audit trail. Raises msgspec.DecodeError where it is not a JSON array of objects."""
    return _audit_event.decode_list(document)


def decode_health(document: bytes) -> Health:
    """Decode the answer to ``GET /healthz``. Raises msgspec.DecodeError where it does not say whether all is well."""
    return decode_text(_health, document)
