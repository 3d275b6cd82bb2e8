"""Single requests to the control plane: a path, and what the answer decodes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ._routes import session_path
from .transport import decoded
from .types import AuditEvent, Health, Session
from .types._json import decode_session, decode_sessions, decode_text

if TYPE_CHECKING:
    from .transport import Http

T = TypeVar("T")

_health = msgspec.json.Decoder(Health)
_audit = msgspec.json.Decoder(list[AuditEvent])


async def get(http: Http, session_id: str) -> Session:
    """The session as it is now."""
    return await _fetch(http, session_path(session_id), decode_session)


async def list_sessions(http: Http) -> list[Session]:
    """All sessions of the caller's org, newest first."""
    return await _fetch(http, "/sessions", decode_sessions)


async def audit(http: Http, session_id: str) -> list[AuditEvent]:
    """The session's audit trail so far."""
    return await _fetch(http, session_path(session_id, "audit"), lambda body: decode_text(_audit, body))


async def teardown(http: Http, session_id: str) -> None:
    """Stop the workload if it runs, and reclaim everything."""
    await http.request("DELETE", session_path(session_id))


async def health(http: Http) -> Health:
    """Whether the control plane and its backend are well. Sends no credential."""
    path = "/healthz"
    body = await http.request("GET", path, authenticated=False)
    return decoded(lambda body: decode_text(_health, body), body, f"GET {path}")


async def _fetch(http: Http, path: str, decode: Callable[[bytes], T]) -> T:
    return decoded(decode, await http.request("GET", path), f"GET {path}")
