"""Single requests to the control plane: a path, and what the answer decodes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ._routes import check_path, session_path
from .errors import EnclaveError, ServiceUnavailableError
from .transport import decoded
from .types import AuditEvent, Health, Listing, Session
from .types._answers import decode_audit, decode_health, decode_session, decode_sessions, decode_usable_sessions

if TYPE_CHECKING:
    from .transport import Http

T = TypeVar("T")

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_raw = msgspec.json.Decoder(Any)


async def get(http: Http, session_id: str) -> Session:
    """The session as it is now."""
    return await _fetch(http, session_path(session_id), decode_session)


async def list_sessions(http: Http) -> list[Session]:
    """All sessions of the caller's org, newest first."""
    return Listing(await _fetch(http, "/sessions", decode_sessions))


async def labelled(http: Http, labels: Mapping[str, str]) -> list[Session]:
    """The sessions that carry all these labels. Whatever else is in the list, it hides none of them."""
    sessions = await _fetch(http, "/sessions", decode_usable_sessions)
    return [session for session in sessions if labels.items() <= session.labels.items()]


async def audit(http: Http, session_id: str) -> list[AuditEvent]:
    """The session's audit trail so far."""
    return Listing(await _fetch(http, session_path(session_id, "audit"), decode_audit))


async def teardown(http: Http, session_id: str) -> None:
    """Stop the workload if it runs, and reclaim everything."""
    await http.request("DELETE", session_path(session_id))


async def health(http: Http) -> Health:
    """Whether the control plane and its backend are well. Sends no credential."""
    path = "/healthz"
    try:
        body = await http.request(
            "GET", path, authenticated=False, is_final=lambda error: _health_in(error) is not None
        )
    except ServiceUnavailableError as error:
        # A control plane that is unwell may say so with a 503. That is the answer, and not a failure of the call.
        found = _health_in(error)
        if found is None:
            raise
        return found
    return decoded(decode_health, body, f"GET {path}", credential=None)


async def request(http: Http, method: str, path: str, json: Any) -> Any:
    """The raw JSON of any route, or None where its answer is empty. Raises as `EnclaveClient.request` does."""
    if not isinstance(method, str):
        raise TypeError(f"method: expected a string, got {type(method).__name__}")
    method = method.upper()
    if method not in _METHODS:
        raise ValueError(f"method: expected one of {', '.join(_METHODS)}, got {method!r}")
    check_path(path)
    content = None
    if json is not msgspec.UNSET:
        try:
            content = msgspec.json.encode(json)
        except (TypeError, UnicodeEncodeError) as error:
            raise TypeError(f"json: {error}") from None
    body = await http.request(method, path, content=content)
    return decoded(_raw.decode, body, f"{method} {path}", http.settings.credential) if body.strip() else None


def _health_in(error: EnclaveError) -> Health | None:
    if not isinstance(error, ServiceUnavailableError):
        return None
    try:
        return msgspec.structs.replace(msgspec.convert(error.body, Health), ok=False)
    except msgspec.ValidationError:
        return None


async def _fetch(http: Http, path: str, decode: Callable[[bytes], T]) -> T:
    return decoded(decode, await http.request("GET", path), f"GET {path}", http.settings.credential)
