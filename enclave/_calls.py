"""Single requests to the control plane: a path, and what the answer decodes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ._routes import session_path
from .transport import decoded
from .types import AuditEvent, Health, Session
from .types._answers import decode_audit, decode_health, decode_session, decode_sessions

if TYPE_CHECKING:
    from .transport import Http

T = TypeVar("T")


async def get(http: Http, session_id: str) -> Session:
    """The session as it is now."""
    return await _fetch(http, session_path(session_id), decode_session)


async def list_sessions(http: Http) -> list[Session]:
    """All sessions of the caller's org, newest first."""
    return await _fetch(http, "/sessions", decode_sessions)


async def audit(http: Http, session_id: str) -> list[AuditEvent]:
    """The session's audit trail so far."""
    return await _fetch(http, session_path(session_id, "audit"), decode_audit)


async def teardown(http: Http, session_id: str) -> None:
    """Stop the workload if it runs, and reclaim everything."""
    await http.request("DELETE", session_path(session_id))


async def health(http: Http) -> Health:
    """Whether the control plane and its backend are well. Sends no credential."""
    path = "/healthz"
    body = await http.request("GET", path, authenticated=False)
    return decoded(decode_health, body, f"GET {path}", credential=None)


async def _fetch(http: Http, path: str, decode: Callable[[bytes], T]) -> T:
    return decoded(decode, await http.request("GET", path), f"GET {path}", http.settings.credential)
