"""What the server says of a session: `Session`, its phase, its result, its audit trail. And `Health`.

The Structs that have a field `extra` forbid unknown fields. So an answer with one is read by `LenientDecoder`, which
keeps it there.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import msgspec
from msgspec.structs import force_setattr, replace

from ._absent import OrAbsent
from ._encode import EXTRA, WireStruct
from ._ids import check_session_id
from ._limits import EgressPolicy, SessionLimits
from ._open_enum import OpenStrEnum
from ._shown import Shown

T = TypeVar("T")


class SessionPhase(OpenStrEnum):
    """Where a session stands: pending, running, one of succeeded, failed or killed, then torn_down.

    A phase that this version does not know is a member of its own name. See [The session][the-session].
    """

    PENDING = "pending"
    """The session was created, and its workload has not started."""
    RUNNING = "running"
    """The workload runs."""
    SUCCEEDED = "succeeded"
    """The workload ended with exit code 0, and its result was collected."""
    FAILED = "failed"
    """The workload ended with another exit code."""
    KILLED = "killed"
    """The platform killed the workload, see `KillReason`."""
    TORN_DOWN = "torn_down"
    """Everything was reclaimed. The session itself says how the workload ended, by its kill reason and its result."""

    @property
    def is_terminal(self) -> bool:
        """Whether the workload has ended: succeeded, failed, killed or torn_down."""
        return self in _TERMINAL


_TERMINAL = frozenset({SessionPhase.SUCCEEDED, SessionPhase.FAILED, SessionPhase.KILLED, SessionPhase.TORN_DOWN})


class KillReason(OpenStrEnum):
    """Which limit the platform killed a workload for. It can have unknown members, as `SessionPhase` can."""

    CPU_EXCEEDED = "cpu_exceeded"
    """It used more CPU time than its limit permits."""
    MEMORY_EXCEEDED = "memory_exceeded"
    """It took more memory than `SessionLimits.memory_mb`."""
    WALL_CLOCK_EXCEEDED = "wall_clock_exceeded"
    """It ran longer than `SessionLimits.wall_clock_ms`."""
    PIDS_EXCEEDED = "pids_exceeded"
    """It had more processes and threads than `SessionLimits.pids`."""


class AuditType(OpenStrEnum):
    """What an `AuditEvent` records. It can have unknown members, as `SessionPhase` can."""

    SESSION_CREATED = "session_created"
    """The server accepted the session."""
    SANDBOX_STARTED = "sandbox_started"
    """The sandbox that runs the workload started."""
    EGRESS_ALLOWED = "egress_allowed"
    """The workload connected to an address that its policy allows."""
    EGRESS_DENIED = "egress_denied"
    """The workload tried to connect to an address that its policy does not allow."""
    WORKLOAD_EXITED = "workload_exited"
    """The workload ended, by itself or because it was killed."""
    RESULT_COLLECTED = "result_collected"
    """The result was collected."""
    SESSION_KILLED = "session_killed"
    """The platform killed the workload."""
    SESSION_TORN_DOWN = "session_torn_down"
    """Everything that belonged to the session was reclaimed."""
    CLONE_STARTED = "clone_started"
    """The server began to clone the git source of the session."""
    CLONE_COMPLETED = "clone_completed"
    """The git source was cloned."""


class AuditEvent(WireStruct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True):
    """One entry of a session's trail, which nobody can change. See [The audit trail][the-audit-trail]."""

    type: AuditType | None = None
    """What happened. None where the server does not say so in a way that can be read."""
    ts: datetime | None = None
    """When it happened."""
    session_id: str | None = None
    """The session that it happened to, if the server says so."""
    detail: OrAbsent[dict[str, Any]] = msgspec.field(default={})
    """Particulars, which depend on the type. An egress entry has the ``host``, for example."""
    extra: dict[str, Any] = msgspec.field(default={}, name=EXTRA)
    """Fields that this version does not know, and values that could not be read, under their wire names."""

    _in_short: ClassVar = ("ts", "type", "session_id", "detail", "extra")

    def __post_init__(self) -> None:
        if not self.detail:
            force_setattr(self, "detail", {})

    @property
    def particulars(self) -> dict[str, Any]:
        """`detail`, and what the server put beside it. Some servers have the ``host`` of an egress entry there."""
        return self.extra | self.detail


class SessionResult(WireStruct, Generic[T], frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """How a workload ended, and what it returned.

    `value`, `stdout`, `stderr` and the exit code are the workload's own doing. So they can be anything: check them
    before you rely on them. `phase` and `kill_reason` come from the platform.

    ``SessionResult[Answer]`` decodes `value` straight into ``Answer``: a Struct, dataclass, TypedDict or built-in type.

    The server's answer has no `phase` and no `kill_reason`. The client fills them in from the session. See
    [The result][the-result].
    """

    exit_code: int | None = None
    """The workload's exit code.

    None, or 137 from some servers, when the platform killed it. None also when the server gave none that can be read.
    """
    value: T = msgspec.field(default=cast(Any, None), name="json")
    """What the workload gave to ``enclave.result(value)``.

    None if it gave nothing and failed or was killed, whatever T says. After exit code 0, None only where T allows it:
    elsewhere a value that is missing is a `ResultTypeError`.
    """
    stdout: str | None = None
    """Captured standard output, if the server keeps it."""
    stderr: str | None = None
    """Captured standard error, if the server keeps it."""
    duration_ms: float | None = None
    """How long the workload ran, in milliseconds."""
    phase: SessionPhase | None = None
    """The phase in which the session ended."""
    kill_reason: KillReason | None = None
    """Why the platform killed the workload, if it did."""
    extra: dict[str, Any] = msgspec.field(default={}, name=EXTRA)
    """Fields that this version does not know, and values that could not be read, under their wire names."""

    _in_short: ClassVar = ("ended_as", "kill_reason", "exit_code", "value", "stdout", "stderr", "duration_ms")

    def _kind(self) -> str:
        return self.ended_as

    @property
    def is_killed(self) -> bool:
        """Whether the platform killed the workload. The phase and the reason say so, whatever the exit code is."""
        if self.phase == SessionPhase.KILLED or self.kill_reason is not None:
            return True
        return self.exit_code is None and self.phase not in (SessionPhase.SUCCEEDED, SessionPhase.FAILED)

    @property
    def is_success(self) -> bool:
        """Whether the workload ended by itself and without an error."""
        if self.is_killed or self.phase == SessionPhase.FAILED:
            return False
        return self.exit_code == 0 or self.exit_code is None  # unreadable, and then the phase is succeeded

    @property
    def ended_as(self) -> SessionPhase:
        """How the workload ended: succeeded, failed or killed. `phase` may also say torn_down, or be missing."""
        if self.is_killed:
            return SessionPhase.KILLED
        return SessionPhase.SUCCEEDED if self.is_success else SessionPhase.FAILED

    def raise_for_exit(self) -> Self:
        """Give the result back if the workload succeeded.

        Raises:
            WorkloadKilled: the platform killed it, whatever its exit code is.
            WorkloadFailed: it ended by itself, with an exit code other than 0.
        """
        if self.is_success:
            return self
        # The errors stand above the types, so a type may only reach for them at the last moment.
        from enclave.errors import workload_error  # noqa: PLC0415

        raise workload_error(self)


_OWN_LABELS = "enclave-sdk."
"""How the labels begin that the client puts on its sessions. Among a caller's own they say nothing to a reader."""


class Session(WireStruct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A session as the server sees it at one moment. See [The session][the-session].

    A server must send the `id`, and nothing else. A field that it leaves out, or sends as null, has its default. So has
    a field that cannot be read, and then `extra` has the value that the server sent.

    Raises:
        TypeError, ValueError: `id` cannot be the id of a session.
    """

    id: str
    """Opaque identifier, as in ``"s-6b44fc-2"``."""
    phase: SessionPhase | None = None
    """Where it stands. See `has_ended`."""
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
    labels: OrAbsent[dict[str, str]] = msgspec.field(default={})
    """The labels it was created with."""
    created_at: datetime | None = None
    """When the server accepted it."""
    started_at: datetime | None = None
    """When the workload started. None until then."""
    finished_at: datetime | None = None
    """When the workload ended. None until then."""
    extra: dict[str, Any] = msgspec.field(default={}, name=EXTRA)
    """Fields that this version does not know, and values that could not be read, under their wire names."""

    _in_short: ClassVar = ("id", "phase", "kill_reason", "language", "labels", "created_at")

    def _row(self) -> dict[str, object]:
        labels = {name: value for name, value in self.labels.items() if not name.startswith(_OWN_LABELS)}
        return super()._row() | {"labels": labels}

    def _facts(self) -> dict[str, object]:
        return super()._facts() | {"labels": self.labels}

    def _kind(self) -> str | None:
        return self.phase

    def __post_init__(self) -> None:
        check_session_id(self.id)
        if self.limits is None:  # pyright: ignore[reportUnnecessaryComparison] - see OrAbsent
            force_setattr(self, "limits", SessionLimits())
        if not self.labels:
            force_setattr(self, "labels", {})
        # The result alone does not tell a kill from an exit: some servers send null for a kill, others 137.
        if self.result is not None and self.result.phase is None and self.has_ended:
            force_setattr(self, "result", self._told_how_it_ended(self.result))

    def _told_how_it_ended(self, result: SessionResult[Any]) -> SessionResult[Any]:
        return replace(result, phase=self.phase, kill_reason=result.kill_reason or self.kill_reason)

    @property
    def has_ended(self) -> bool:
        """Whether the workload has ended: the phase is succeeded, failed, killed or torn_down."""
        return self.phase is not None and self.phase.is_terminal


class Health(Shown, frozen=True, kw_only=True, rename="camel"):
    """Whether the control plane and its backend are well."""

    ok: bool
    """Whether the control plane answers requests."""
    backend: str | None = None
    """The backend in use."""
    backend_healthy: bool | None = None
    """Whether that backend can run sessions."""
