"""`enclave ls`, `show`, `result`, `audit` and `health`: tables on a terminal, JSON otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import anyio
import msgspec

from enclave import EgressPolicy, EnclaveClient, Session, SessionLimits, SessionResult

from . import _json
from ._connect import attached
from ._errors import EXIT_ERROR, EXIT_TIMEOUT, CommandError
from ._output import Screen


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which sessions are meant: those that all of it holds for."""

    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    older_than: timedelta | None = None

    def __bool__(self) -> bool:
        return bool(self.labels) or self.older_than is not None

    def match(self, session: Session) -> bool:
        """A session of unknown age is never old enough."""
        if any(session.labels.get(key) != value for key, value in self.labels.items()):
            return False
        if self.older_than is None:
            return True
        created = session.created_at
        if created is None:
            return False
        return datetime.now(UTC) - (created if created.tzinfo else created.replace(tzinfo=UTC)) > self.older_than


async def show_document(screen: Screen, document: object) -> None:
    """A document as JSON: indented for a person, on one line for a program."""
    await screen.out.write(_json.pretty(document) if screen.out.is_terminal else _json.line(document))


async def ls(enclave: EnclaveClient, filters: Filters, *, json: bool, screen: Screen) -> int:
    """All sessions, newest first."""
    sessions = [session for session in await enclave.list() if filters.match(session)]
    if json or not screen.out.is_terminal:
        await show_document(screen, [_json.document(session) for session in sessions])
    elif sessions:
        from . import _tables  # noqa: PLC0415 - Rich costs more than the rest, and a pipe needs none

        rows = [
            (s.id, s.phase, s.language, _exit_of(s.result), _tables.age(s.created_at), _labels(s.labels))
            for s in sessions
        ]
        await screen.out.write(_tables.table(("ID", "PHASE", "LANGUAGE", "EXIT", "AGE", "LABELS"), rows))
    else:
        await screen.status("no sessions")
    return 0


async def show(enclave: EnclaveClient, session_id: str, *, json: bool, screen: Screen) -> int:
    """One session."""
    session = await attached(enclave, session_id).refresh()
    document = _json.document(session)
    if json or not screen.out.is_terminal:
        await show_document(screen, document)
        return 0
    await _details(
        screen,
        {
            "id": session.id,
            "phase": session.phase,
            "kill reason": session.kill_reason,
            **(_result_fields(session.result) if session.result else {}),
            "language": session.language,
            "backend": session.backend,
            "limits": _limits(session.limits),
            "egress": _egress(session.egress),
            "labels": _labels(session.labels),
            "org": session.org_id,
            "created by": session.created_by,
            "created": session.created_at,
            "started": session.started_at,
            "finished": session.finished_at,
        },
    )
    return 0


async def result(enclave: EnclaveClient, session_id: str, *, json: bool, timeout_seconds: float, screen: Screen) -> int:
    """The result of a session, once it has ended."""
    found = None
    session = attached(enclave, session_id)
    with anyio.move_on_after(timeout_seconds):
        found = await session.result()
    if found is None:
        raise CommandError(
            f"session {session_id} has not ended within {timeout_seconds:g} s; allow more with --timeout",
            exit_code=EXIT_TIMEOUT,
        )
    if json or not screen.out.is_terminal:
        await show_document(screen, _json.document(found))
    else:
        await _details(screen, {**_result_fields(found), "kill reason": found.kill_reason})
    return 0


async def audit(enclave: EnclaveClient, session_id: str, *, json: bool, screen: Screen) -> int:
    """The trail of a session so far, oldest first."""
    trail = await attached(enclave, session_id).audit()
    if json or not screen.out.is_terminal:
        await show_document(screen, [_json.document(event) for event in trail])
    else:
        from . import _tables  # noqa: PLC0415 - see ls

        rows = [(event.ts, event.type, _compact(event.particulars) if event.particulars else "") for event in trail]
        await screen.out.write(_tables.table(("TIME", "EVENT", "DETAIL"), rows))
    return 0


async def health(enclave: EnclaveClient, *, json: bool, screen: Screen) -> int:
    """Whether all is well: exit code 1 where it is not."""
    found = await enclave.health()
    if json or not screen.out.is_terminal:
        await show_document(screen, found)
    else:
        well = {True: "yes", False: "no", None: None}
        await _details(
            screen,
            {
                "control plane": enclave.base_url,
                "ok": well[found.ok],
                "backend": found.backend,
                "backend healthy": well[found.backend_healthy],
            },
        )
    return 0 if found.ok and found.backend_healthy is not False else EXIT_ERROR


async def _details(screen: Screen, fields: Mapping[str, object]) -> None:
    from . import _tables  # noqa: PLC0415 - see ls

    await screen.out.write(_tables.details(fields))


def _result_fields(found: SessionResult[object]) -> dict[str, object]:
    return {
        "exit code": found.exit_code,
        "result": None if found.value is None else _compact(found.value),
        "duration": None if found.duration_ms is None else f"{found.duration_ms / 1000:.3f} s",
    }


def _exit_of(found: SessionResult[object] | None) -> object:
    if found is None:
        return None
    return "killed" if found.exit_code is None else found.exit_code


def _limits(limits: SessionLimits) -> str | None:
    values = {name.replace("_", "-"): getattr(limits, name) for name in limits.wire_names()} | limits.extra
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None) or None


def _egress(egress: EgressPolicy | None) -> str | None:
    return None if egress is None else " ".join((egress.mode, *egress.allow))


def _labels(labels: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in labels.items())


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()
