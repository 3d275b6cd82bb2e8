"""Paths of the routes that take a session id. Without I/O."""

from __future__ import annotations

from urllib.parse import quote, unquote

from .types._ids import check_session_id


def session_path(session_id: str, *rest: str) -> str:
    """The path of a session's route. The id is quoted, so that no id can reach another route.

    Raises:
        TypeError: the id is not a string.
        ValueError: the id is empty or a dot segment, or holds a lone surrogate, which no URL can carry.
    """
    check_session_id(session_id)
    return "/".join(("/sessions", quote(session_id, safe=""), *rest))


def check_path(path: str) -> None:
    """Refuse a path that would leave the control plane, or reach another route than it names.

    Raises:
        TypeError: it is not a string.
        ValueError: it does not begin with one slash, has a dot segment or a fragment, or is not printable ASCII.
    """
    if not isinstance(path, str):
        raise TypeError(f"path: expected a string, got {type(path).__name__}")
    if not path.startswith("/") or path.startswith(("//", "/\\")):
        raise ValueError(f"path: expected a path that begins with one slash, such as /sessions, got {path!r}")
    if any(not "!" <= char <= "~" for char in path) or "#" in path:
        raise ValueError(f"path: holds a space, a fragment or what a URL cannot carry; quote it: {path!r}")
    segments = unquote(path.partition("?")[0]).replace("\\", "/").split("/")
    if "." in segments or ".." in segments:
        raise ValueError(f"path: has a dot segment, got {path!r}")


def session_id_of(path: str) -> tuple[str | None, str]:
    """The session in a path and the path's route, as in ``"s-1", "/sessions/{id}/result"``: `session_path` undone."""
    parts = path.split("/")
    if len(parts) < 3:  # noqa: PLR2004 - "", "sessions", id
        return None, path
    session_id, parts[2] = unquote(parts[2]), "{id}"
    return session_id, "/".join(parts)
