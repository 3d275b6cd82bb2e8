"""What can be the id of a session."""

from __future__ import annotations


def check_session_id(session_id: object) -> None:
    """Raise TypeError or ValueError for an id that no URL of a session can carry."""
    if not isinstance(session_id, str):
        raise TypeError(f"session_id: expected a string, got {type(session_id).__name__}. Pass the id of a Session")
    if session_id in ("", ".", ".."):
        # Quoting does not help: "%2E%2E" is a dot segment like "..".
        raise ValueError(f"session_id: {session_id!r} cannot be the id of a session. Pass the id of a Session")
    try:
        session_id.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "session_id: it holds a lone surrogate, which no URL can carry. Pass the id as the server gave it"
        ) from None
