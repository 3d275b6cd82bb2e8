"""Paths of the routes that take a session id. Without I/O."""

from __future__ import annotations

from urllib.parse import quote, unquote

from .errors import InvalidArgumentError


def session_path(session_id: str, *rest: str) -> str:
    """The path of a session's route, the id quoted so that it can reach no other one.

    Raises:
        InvalidArgumentError: the id is empty, a dot segment, or no text that a URL can carry.
    """
    if not isinstance(session_id, str):
        raise InvalidArgumentError(f"session id: expected a string, got {type(session_id).__name__}")
    if session_id in ("", ".", ".."):
        # Quoting does not help: "%2E%2E" is a dot segment like "..".
        raise InvalidArgumentError(f"session id: {session_id!r} names no session")
    try:
        quoted = quote(session_id, safe="")
    except UnicodeEncodeError:
        raise InvalidArgumentError("session id: holds a lone surrogate, which no URL can carry") from None
    return "/".join(("/sessions", quoted, *rest))


def session_id_of(path: str) -> tuple[str | None, str]:
    """The session in a path and the path's route, as in ``"s-1", "/sessions/{id}/result"``: `session_path` undone."""
    parts = path.split("/")
    if len(parts) < 3:  # noqa: PLR2004 - "", "sessions", id
        return None, path
    session_id, parts[2] = unquote(parts[2]), "{id}"
    return session_id, "/".join(parts)
