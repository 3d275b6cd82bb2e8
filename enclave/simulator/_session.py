"""One session: its phases, its audit trail, its recorded frames, its result. No I/O, and no tasks.

pending → running → succeeded | failed | killed → torn_down

The stream of a clean run is: phase pending, phase running, output and audit entries as they happen, result, phase
succeeded, end. The phase that ends a run comes after the result was collected, and `end` comes right after that phase.

A session that is torn down before it finished ends its stream with phase torn_down and `end`, and never has a result.
A session that is torn down afterwards keeps its stream as it was, for later readers. Only the trail and the session
itself say that it was torn down.

Output beyond `max_log_bytes` is dropped, and one frame of standard error says so. The workload goes on, and its result
counts. Egress entries beyond `MAX_EGRESS_ENTRIES` are dropped likewise, and one entry says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import anyio
import msgspec

from enclave.types import (
    AuditEvent,
    AuditFrame,
    AuditType,
    CreateSessionRequest,
    EndFrame,
    KillReason,
    KnownFrame,
    PhaseFrame,
    ResultFrame,
    Session,
    SessionLimits,
    SessionPhase,
    SessionResult,
    StderrFrame,
    StdoutFrame,
)
from enclave.types._encode import wire_names

from ._auth import Principal
from ._log import FrameLog
from ._output import OversizedReport, Piece, Report, problem_of
from ._settings import Bounds
from ._told import Told

BACKEND = "simulator"
MAX_EGRESS_ENTRIES = 1000
MAX_HOST_CHARS = 255

# msgspec leaves a field with this value out of the JSON. It tells a workload that returned nothing from one that
# returned None.
ABSENT: Any = msgspec.UNSET


def _document_type(struct: type[msgspec.Struct]) -> Callable[..., msgspec.Struct]:
    """A Struct with the fields of `struct` that sends only those that are set, and has none of a client's checks."""
    fields = [
        (name, Any, msgspec.field(default=ABSENT, name=wire_name)) for name, wire_name in wire_names(struct).items()
    ]
    return msgspec.defstruct(struct.__name__, fields, kw_only=True, frozen=True)


_session_document = _document_type(Session)
_result_document = _document_type(SessionResult)
_FRAMES: dict[str, type[StdoutFrame | StderrFrame]] = {"stdout": StdoutFrame, "stderr": StderrFrame}


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a workload ended. `exit_code` counts only without a `kill_reason`."""

    exit_code: int | None
    kill_reason: str | None = None
    phase: SessionPhase | None = None
    """What it ended as, if that is known and does not follow from the two above."""
    duration_ms: float = 0.0
    detail: dict[str, Any] = {}


class Capture:
    """The first bytes of an output stream, for the result."""

    def __init__(self, max_bytes: int) -> None:
        self._room_bytes = max_bytes
        self._parts: list[str] = []

    @property
    def is_full(self) -> bool:
        """Whether nothing more fits."""
        return self._room_bytes <= 0

    def add(self, text: str) -> None:
        """Keep what fits."""
        if not self.is_full:
            part = text.encode()[: self._room_bytes]
            self._room_bytes -= len(part)
            self._parts.append(part.decode("utf-8", "ignore"))

    def text(self) -> str:
        """All that was kept."""
        return "".join(self._parts)


class SimulatedSession:
    """Every change is synchronous, so a reader sees the session before it or after it, never in between."""

    def __init__(
        self,
        session_id: str,
        principal: Principal,
        request: CreateSessionRequest,
        limits: SessionLimits,
        *,
        bounds: Bounds,
        on_change: Callable[[], None],
    ) -> None:
        self.id = session_id
        self.org_id = principal.org_id
        self.request = request
        self.limits = limits
        self.phase = SessionPhase.PENDING
        self.kill_reason: KillReason | None = None
        self.result: Any = None
        """The result as the wire has it, once there is one."""
        self.trail: list[AuditEvent] = []
        self.log = FrameLog(bounds.max_log_bytes)
        self.scope = anyio.CancelScope()
        """The scope that the workload runs in. A teardown cancels it."""
        self.reclaimed = anyio.Event()
        """Set when nothing of the workload is left."""
        self._created_by = principal.user_id
        self._created_at = _now()
        self._started_at: datetime | None = None
        self._finished_at: datetime | None = None
        self._value: Any = ABSENT
        self._value_is_forgeable = False
        self._captured = {name: Capture(bounds.max_capture_bytes) for name in _FRAMES}
        self.told = Told()
        """What the frames of a script have said so far of how it ends."""
        self._egress_entries = 0
        self._output_dropped = False
        self._scripted = False
        self._on_change = on_change

    # What happens to it

    def create(self, *, scripted_stream: bool) -> None:
        """Enter pending. With `scripted_stream` a script gives every frame of the stream."""
        self._scripted = scripted_stream
        self._enter(SessionPhase.PENDING)
        self.record(AuditType.SESSION_CREATED, {"language": self.request.language})

    def start(self, detail: dict[str, Any]) -> None:
        """The workload runs."""
        self._started_at = _now()
        self._enter(SessionPhase.RUNNING)
        self.record(AuditType.SANDBOX_STARTED, {"backend": BACKEND, **detail})

    def take(self, stream: str, pieces: list[Piece]) -> None:
        """Output and reports of the workload, in order."""
        for piece in pieces:
            if isinstance(piece, str):
                self._captured[stream].add(piece)
                self._append_output(_FRAMES[stream](piece, _now()))
            elif isinstance(piece, Report):
                self._take_report(piece)
            elif isinstance(piece, OversizedReport):
                self._say("a report of the workload was too large or too deep and was dropped")

    def wants(self, stream: str) -> bool:
        """Whether there is room for more text of this stream, in the log or in the result."""
        return not self._output_dropped or not self._captured[stream].is_full

    def play(self, frame: bytes) -> None:
        """A scripted frame. What it prints is captured like any output. Texts in a result frame replace that."""
        self.log.append(frame)
        if output := self.told.take(frame):
            self._captured[output.kind].add(output.data)

    def returned(self, value: msgspec.Raw) -> None:
        """A script gives this JSON as the result. Unlike a workload's it may be anything."""
        self._value = value

    def finish(self, end: Exit) -> None:
        """The workload has ended, and everything it printed was taken. A session that was torn down stays so."""
        if self.is_finished:
            return
        self._finished_at = _now()
        exit_code = end.exit_code
        if end.kill_reason is not None:
            exit_code = None
            self.kill_reason = KillReason(end.kill_reason)
            self.record(AuditType.SESSION_KILLED, {"reason": self.kill_reason})
        self.record(AuditType.WORKLOAD_EXITED, {"exitCode": exit_code, **end.detail})
        # Only the last result is looked at, because a workload may report very many.
        if self._value_is_forgeable and (problem := problem_of(bytes(self._value))):
            self._value = ABSENT
            self._say(f"a result with {problem} was dropped")
        texts = {name: capture.text() for name, capture in self._captured.items()} | self.told.texts
        self.result = _result_document(exit_code=exit_code, value=self._value, duration_ms=end.duration_ms, **texts)
        self.record(AuditType.RESULT_COLLECTED, {"hasValue": self._value is not ABSENT})
        self._append(ResultFrame(self.result))
        self._enter(end.phase or _outcome(exit_code, self.kill_reason))
        self._end()

    def tear_down(self) -> None:
        """Tear it down, once. `reclaimed` tells when nothing is left."""
        if self.phase is SessionPhase.TORN_DOWN:
            return
        self.scope.cancel()
        finished = self.is_finished
        self._finished_at = self._finished_at or _now()
        self.record(AuditType.SESSION_TORN_DOWN, {})
        if finished:
            self.phase = SessionPhase.TORN_DOWN
            self._on_change()
        else:
            self._enter(SessionPhase.TORN_DOWN)
            self._end()

    def record(self, type_: str, detail: dict[str, Any]) -> None:
        """Add to the trail, and to the stream while it is open."""
        event = AuditEvent(type=AuditType(type_), ts=_now(), session_id=self.id, detail=detail)
        self.trail.append(event)
        self._append(AuditFrame(event))
        self._on_change()

    # What others ask of it

    @property
    def is_finished(self) -> bool:
        """Whether the phase is terminal."""
        return self.phase.is_terminal

    def document(self, *, with_output: bool = True) -> msgspec.Struct:
        """The session as the wire has it. Lists leave captured output out."""
        result = self.result
        if result is not None and not with_output:
            result = msgspec.structs.replace(result, stdout=ABSENT, stderr=ABSENT)
        return _session_document(
            id=self.id,
            org_id=self.org_id,
            created_by=self._created_by,
            phase=self.phase,
            language=self.request.language,
            limits=msgspec.Raw(self.limits.to_json()),
            egress=self.request.egress,
            kill_reason=self.kill_reason or ABSENT,
            result=result or ABSENT,
            backend=BACKEND,
            labels=dict(self.request.labels or {}),
            created_at=self._created_at,
            started_at=self._started_at or ABSENT,
            finished_at=self._finished_at or ABSENT,
        )

    # Details

    def _take_report(self, report: Report) -> None:
        kind = bytes(report.t)
        if kind == b'"result"':
            self._value, self._value_is_forgeable = report.json, True
        elif kind == b'"egress"':
            self._egress_entries += 1
            if self._egress_entries <= MAX_EGRESS_ENTRIES:
                type_ = AuditType.EGRESS_ALLOWED if bytes(report.ok) == b"true" else AuditType.EGRESS_DENIED
                self.record(type_, {"host": _short_text(report.host)})
            elif self._egress_entries == MAX_EGRESS_ENTRIES + 1:
                self.record("egress_entries_dropped", {"limit": MAX_EGRESS_ENTRIES})

    def _append_output(self, frame: KnownFrame) -> None:
        if self._scripted or self._output_dropped:
            return
        if not self.log.append_output(msgspec.json.encode(frame)):
            self._output_dropped = True
            self._say(f"output beyond max_log_bytes={self.log.max_output_bytes} is dropped")

    def _say(self, text: str) -> None:
        line = f"[enclave simulator] {text}\n"
        self._captured["stderr"].add(line)
        self._append(StderrFrame(line))

    def _enter(self, phase: SessionPhase) -> None:
        self.phase = phase
        self._append(PhaseFrame(phase, self.kill_reason, _now()))
        self._on_change()

    def _end(self) -> None:
        self._append(EndFrame())
        self.log.close()

    def _append(self, frame: KnownFrame) -> None:
        if not self._scripted:
            self.log.append(msgspec.json.encode(frame))


def _outcome(exit_code: int | None, kill_reason: str | None) -> SessionPhase:
    if kill_reason is not None:
        return SessionPhase.KILLED
    return SessionPhase.SUCCEEDED if exit_code == 0 else SessionPhase.FAILED


def _short_text(document: msgspec.Raw) -> str:
    """The text in the JSON of a string, cut. Any other JSON is shown as it is."""
    try:
        text = msgspec.json.decode(document, type=str)
    except msgspec.ValidationError:
        text = bytes(document).decode()
    return text[:MAX_HOST_CHARS]


# The default is bound before freezegun, in somebody's test, puts a subclass in the place of every module's `datetime`.
# msgspec encodes no subclass. `time.time` is frozen too, so the time is the one that the test has set.
def _now(real: type[datetime] = datetime) -> datetime:
    return real.fromtimestamp(time.time(), UTC)
