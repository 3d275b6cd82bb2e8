"""What the server says of a session: `Session`, its phase, its result, its audit trail; and `Health`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Self, TypeVar, cast

import msgspec
from msgspec.structs import force_setattr

from ._absent import OrAbsent
from ._limits import EgressPolicy, SessionLimits
from ._open_enum import OpenStrEnum

T = TypeVar("T")


class SessionPhase(OpenStrEnum):
    """Where a session stands: pending, running, one of succeeded, failed or killed, then torn_down.

    Open: a phase this version does not know arrives as a member of its own name. Wire: contract "Types".
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    KILLED = "killed"
    TORN_DOWN = "torn_down"

    @property
    def is_terminal(self) -> bool:
        """Whether the workload has ended: succeeded, failed, killed or torn_down."""
        return self in _TERMINAL


_TERMINAL = frozenset({SessionPhase.SUCCEEDED, SessionPhase.FAILED, SessionPhase.KILLED, SessionPhase.TORN_DOWN})


class KillReason(OpenStrEnum):
    """Which limit the platform killed a workload for. Open, like `SessionPhase`. Wire: contract "Types"."""

    CPU_EXCEEDED = "cpu_exceeded"
    MEMORY_EXCEEDED = "memory_exceeded"
    WALL_CLOCK_EXCEEDED = "wall_clock_exceeded"
    PIDS_EXCEEDED = "pids_exceeded"


class AuditType(OpenStrEnum):
    """What an `AuditEvent` records. Open, like `SessionPhase`. Wire: contract "Types", `AuditEvent`."""

    SESSION_CREATED = "session_created"
    SANDBOX_STARTED = "sandbox_started"
    EGRESS_ALLOWED = "egress_allowed"
    EGRESS_DENIED = "egress_denied"
    WORKLOAD_EXITED = "workload_exited"
    RESULT_COLLECTED = "result_collected"
    SESSION_KILLED = "session_killed"
    SESSION_TORN_DOWN = "session_torn_down"
    CLONE_STARTED = "clone_started"
    CLONE_COMPLETED = "clone_completed"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One entry of a session's immutable trail. Wire: contract "Types", `AuditEvent`."""

    type: AuditType
    """What happened."""
    ts: datetime | None = None
    """When it happened."""
    session_id: str | None = None
    """The session it happened to, where the server says so."""
    detail: OrAbsent[dict[str, Any]] = {}
    """Particulars by type: an egress entry has the ``host``, for one."""

    def __post_init__(self) -> None:
        if not self.detail:
            force_setattr(self, "detail", {})


class SessionResult(msgspec.Struct, Generic[T], frozen=True, kw_only=True, rename="camel"):
    """How a workload ended and what it returned. Untrusted: a workload can forge any of it.

    ``SessionResult[Answer]`` decodes `value` straight into ``Answer``: a Struct, dataclass, TypedDict or built-in
    type. Wire: contract "Types", `SessionResult`; the fields besides `exit_code` are ours.
    """

    exit_code: int | None
    """The workload's exit code; None when the platform killed it."""
    value: T = msgspec.field(default=cast(Any, None), name="json")
    """What the workload gave to ``enclave.result(value)``; None when it gave nothing, whatever T says."""
    stdout: str | None = None
    """Captured standard output, where the server keeps it."""
    stderr: str | None = None
    """Captured standard error, where the server keeps it."""
    duration_ms: float | None = None
    """How long the workload ran, in milliseconds."""
    kill_reason: KillReason | None = None
    """Why the platform killed the workload. The client fills it in from the session; the wire's result has none."""

    def raise_for_exit(self) -> Self:
        """Give the result back if the workload succeeded.

        Raises:
            WorkloadFailed: its exit code is not 0. WorkloadKilled: the platform killed it.
        """
        if self.exit_code == 0:
            return self
        # The errors stand above the types, so a type may only reach for them at the last moment.
        from enclave.errors import workload_error  # noqa: PLC0415

        raise workload_error(self)


class Session(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A session as the server sees it at one moment. Wire: contract "Types", `Session`.

    Only `id` and `phase` are demanded of a server; what it leaves out, or sends as null, has the default shown.
    """

    id: str
    """Opaque identifier, as in ``"s-6b44fc-2"``."""
    phase: SessionPhase
    """Where it stands."""
    org_id: str | None = None
    """The organisation that owns it."""
    created_by: str | None = None
    """The user who created it."""
    language: str | None = None
    """``"python"`` or ``"node"``."""
    limits: OrAbsent[SessionLimits] = SessionLimits()
    """The limits in force."""
    egress: EgressPolicy | None = None
    """The network policy in force."""
    kill_reason: KillReason | None = None
    """Why the platform killed it, if it did."""
    result: SessionResult[Any] | None = None
    """How the workload ended, once it has."""
    backend: str | None = None
    """What runs it: ``"simulator"``, ``"kubernetes"``, ``"docker"`` and others."""
    labels: OrAbsent[dict[str, str]] = {}
    """The labels it was created with."""
    created_at: datetime | None = None
    """When the server accepted it."""
    started_at: datetime | None = None
    """When the workload started; None until then."""
    finished_at: datetime | None = None
    """When the workload ended; None until then."""

    def __post_init__(self) -> None:
        if self.limits is None:  # pyright: ignore[reportUnnecessaryComparison] - until here; see OrAbsent
            force_setattr(self, "limits", SessionLimits())
        if not self.labels:
            force_setattr(self, "labels", {})


class Health(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether the control plane and its backend are well. Wire: contract "Routes", ``GET /healthz``."""

    ok: bool
    """Whether the control plane answers requests."""
    backend: str | None = None
    """The backend in use."""
    backend_healthy: bool | None = None
    """Whether that backend can run sessions."""
