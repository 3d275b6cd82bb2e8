"""The five tools, as functions of a client and of arguments that were checked already. Knows nothing of MCP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from enclave import AuditEvent, EnclaveClient, EnclaveError, Session, SessionHandle, SessionPhase, UsageError

from ._bounded import entries_of, fitting, short
from ._run import Listener, Run, outcome_of
from ._schema import (
    AuditEntry,
    AuditTrail,
    ListSessions,
    Outcome,
    RunCode,
    SessionId,
    SessionList,
    SessionSummary,
    TornDown,
    in_arguments,
)

MAX_AUDIT_EVENTS = 200
"""How many entries of a trail are shown."""


class BadArguments(Exception):
    """The arguments of a call cannot be used. The message is for the model that made the call. Nothing was sent."""


A = TypeVar("A", bound=msgspec.Struct)


class Tool(msgspec.Struct, Generic[A], frozen=True, kw_only=True):
    """A tool, and what a host shows of it."""

    name: str
    title: str
    description: str
    takes: type[A]
    gives: type[msgspec.Struct]
    call: Callable[[EnclaveClient, A, Listener], Awaitable[msgspec.Struct]]
    read_only: bool = False
    destructive: bool = False
    open_world: bool = False


@contextmanager
def _checked() -> Generator[None]:
    """Turn what the SDK refuses before it sends anything into `BadArguments`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise BadArguments(in_arguments(str(error))) from None


async def _run_code(client: EnclaveClient, arguments: RunCode, listener: Listener) -> Outcome:
    with _checked():
        request = arguments.to_request()
    # The outcome is known before the session is torn down, and must not be lost if that fails.
    outcome: Outcome | None = None
    try:
        async with client.session(request) as session:
            await listener.progress(0, f"session {session.id}")
            run = Run(session, listener)
            await run.follow()
            outcome = await run.outcome()
    except EnclaveError as error:
        if outcome is None:
            raise
        warning = f"the session could not be torn down, call teardown_session: {error}"
        outcome = msgspec.structs.replace(outcome, warnings=(*outcome.warnings, warning))
    return outcome


async def _get_result(client: EnclaveClient, arguments: SessionId, _: Listener) -> Outcome:
    handle = _attached(client, arguments)
    session = await handle.refresh()
    if not session.has_ended:
        phase = session.phase or "in an unknown phase"
        raise UsageError(f"session {session.id} is {phase}: it has no result yet. Ask again later")
    result = session.result or await handle.result()
    return outcome_of(session.id, result, await handle.audit())


async def _get_audit(client: EnclaveClient, arguments: SessionId, _: Listener) -> AuditTrail:
    trail = await _attached(client, arguments).audit()
    # From the end: the latest entries are what a model asks for, and the oldest are left out first.
    latest_first = fitting(_entry(event) for event in reversed(trail[-MAX_AUDIT_EVENTS:]))
    return AuditTrail(
        session_id=arguments.session_id,
        events=tuple(reversed(latest_first)),
        cut_events=len(trail) - len(latest_first),
    )


async def _list_sessions(client: EnclaveClient, arguments: ListSessions, _: Listener) -> SessionList:
    phase = arguments.phase
    if phase is not None and not phase.is_known:
        raise BadArguments(f"phase: unknown phase {str(phase)!r}, expected one of {', '.join(SessionPhase)}")
    sessions = [session for session in await client.list() if phase is None or session.phase == phase]
    shown = fitting(_summary(session) for session in sessions[: arguments.limit])
    return SessionList(sessions=tuple(shown), cut_sessions=len(sessions) - len(shown))


async def _teardown_session(client: EnclaveClient, arguments: SessionId, _: Listener) -> TornDown:
    await _attached(client, arguments).teardown()
    return TornDown(session_id=arguments.session_id)


TOOLS: tuple[Tool[Any], ...] = (
    Tool(
        name="run_code",
        title="Run code in a sandbox",
        description=(
            "Run untrusted Python or Node code in an isolated, ephemeral session and wait for its end. Output is sent "
            "while it runs. Gives the exit code, the JSON value passed to enclave.result(value), the end of stdout and "
            "stderr, and the connections that were denied. A non-zero exit code is an outcome, not a tool error. The "
            "session is torn down afterwards, also when the call is cancelled. Files do not survive it."
        ),
        takes=RunCode,
        gives=Outcome,
        call=_run_code,
        open_world=True,
    ),
    Tool(
        name="get_result",
        title="Get a session's result",
        description="The outcome of a session that has ended. While it still runs, this is a tool error.",
        takes=SessionId,
        gives=Outcome,
        call=_get_result,
        read_only=True,
    ),
    Tool(
        name="get_audit",
        title="Get a session's audit trail",
        description="What happened to a session, in order: created, started, connections allowed and denied, ended.",
        takes=SessionId,
        gives=AuditTrail,
        call=_get_audit,
        read_only=True,
    ),
    Tool(
        name="list_sessions",
        title="List sessions",
        description="The organisation's sessions, newest first.",
        takes=ListSessions,
        gives=SessionList,
        call=_list_sessions,
        read_only=True,
    ),
    Tool(
        name="teardown_session",
        title="Tear a session down",
        description="Stop a session's code if it runs, and reclaim everything. Repeating it does no harm.",
        takes=SessionId,
        gives=TornDown,
        call=_teardown_session,
        destructive=True,
    ),
)


def _attached(client: EnclaveClient, arguments: SessionId) -> SessionHandle:
    with _checked():
        return client.attach(arguments.session_id)


def _entry(event: AuditEvent) -> AuditEntry:
    return AuditEntry(type=short(event.type or "unknown"), ts=_iso(event.ts), detail=entries_of(event.particulars))


def _summary(session: Session) -> SessionSummary:
    # The labels that the SDK made for itself mean nothing to a model.
    labels = {key: value for key, value in session.labels.items() if not key.startswith("enclave-sdk.")}
    return SessionSummary(
        session_id=session.id,
        phase=short(session.phase or "unknown"),
        language=session.language and short(session.language),
        exit_code=session.result.exit_code if session.result else None,
        kill_reason=session.kill_reason and short(session.kill_reason),
        labels=entries_of(labels),
        created_at=_iso(session.created_at),
        finished_at=_iso(session.finished_at),
    )


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
