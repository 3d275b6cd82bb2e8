"""The five tools, as functions of a client and of arguments that were checked already. Knows nothing of MCP.

Wire: contract "Neighbours".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec

from enclave import (
    AuditEvent,
    CreateSessionRequest,
    EgressPolicy,
    EnclaveClient,
    EnclaveError,
    Session,
    SessionHandle,
    SessionLimits,
    UsageError,
)

from ._run import Listener, Run, outcome_of
from ._schema import (
    AuditEntry,
    AuditTrail,
    Egress,
    Limits,
    Nothing,
    Outcome,
    RunCode,
    SessionId,
    SessionList,
    SessionSummary,
    TornDown,
)

MAX_AUDIT_EVENTS = 200
"""How many entries of a trail are shown."""
MAX_SESSIONS = 100
"""How many sessions are listed."""


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


async def _run_code(client: EnclaveClient, arguments: RunCode, listener: Listener) -> Outcome:
    outcome: Outcome | None = None
    try:
        async with client.session(_request(arguments)) as session:
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
        raise UsageError(
            f"session {session.id} is {session.phase or 'in an unknown phase'}: it has no result yet; ask again later"
        )
    result = session.result or await handle.result()
    return outcome_of(session, result, await handle.audit())


async def _get_audit(client: EnclaveClient, arguments: SessionId, _: Listener) -> AuditTrail:
    events = await _attached(client, arguments).audit()
    return AuditTrail(
        session_id=arguments.session_id,
        events=tuple(_entry(event) for event in events[-MAX_AUDIT_EVENTS:]),
        cut_events=max(0, len(events) - MAX_AUDIT_EVENTS),
    )


async def _list_sessions(client: EnclaveClient, _: Nothing, __: Listener) -> SessionList:
    sessions = await client.list()
    return SessionList(
        sessions=tuple(_summary(session) for session in sessions[:MAX_SESSIONS]),
        cut_sessions=max(0, len(sessions) - MAX_SESSIONS),
    )


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
            "session is torn down afterwards, and also when the call is cancelled; files do not survive it."
        ),
        takes=RunCode,
        gives=Outcome,
        call=_run_code,
        open_world=True,
    ),
    Tool(
        name="get_result",
        title="Get a session's result",
        description="The outcome of a session that has ended. A tool error while it still runs.",
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
        description="All sessions of the organisation, newest first.",
        takes=Nothing,
        gives=SessionList,
        call=_list_sessions,
        read_only=True,
    ),
    Tool(
        name="teardown_session",
        title="Tear a session down",
        description="Stop a session's code if it runs, and reclaim everything. Harmless when repeated.",
        takes=SessionId,
        gives=TornDown,
        call=_teardown_session,
        destructive=True,
    ),
)


def _attached(client: EnclaveClient, arguments: SessionId) -> SessionHandle:
    try:
        return client.attach(arguments.session_id)
    except ValueError as error:
        raise BadArguments(str(error)) from None


def _request(arguments: RunCode) -> CreateSessionRequest:
    try:
        fields = msgspec.structs.asdict(arguments)
        fields |= {"limits": _limits(arguments.limits), "egress": _egress(arguments.egress)}
        return CreateSessionRequest(**fields)
    except ValueError as error:
        raise BadArguments(str(error)) from None


def _limits(limits: Limits | None) -> SessionLimits | None:
    return None if limits is None else SessionLimits(**msgspec.structs.asdict(limits))


def _egress(egress: Egress | None) -> EgressPolicy | None:
    if egress is None:
        return None
    return EgressPolicy(egress.mode or ("allowlist" if egress.allow else "deny_all"), egress.allow)


def _entry(event: AuditEvent) -> AuditEntry:
    return AuditEntry(type=str(event.type or "unknown"), ts=_iso(event.ts), detail=event.particulars)


def _summary(session: Session) -> SessionSummary:
    return SessionSummary(
        session_id=session.id,
        phase=str(session.phase or "unknown"),
        language=session.language,
        exit_code=session.result.exit_code if session.result else None,
        kill_reason=session.kill_reason,
        labels=session.labels,
        created_at=_iso(session.created_at),
        finished_at=_iso(session.finished_at),
    )


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
