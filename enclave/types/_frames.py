"""The frames of a live stream: a union that msgspec tells apart by `kind`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Literal

from ._encode import WireStruct
from ._session import AuditEvent, KillReason, SessionPhase, SessionResult
from ._shown import Shown

# Output frames are by far the most frequent objects the client makes. They hold no containers, so they can be in no
# reference cycle, and gc=False spares the collector from tracking millions of them.


class PhaseFrame(WireStruct, frozen=True, tag_field="kind", tag="phase", rename="camel", omit_defaults=True):
    """The session entered a phase."""

    phase: SessionPhase
    """The phase entered."""
    kill_reason: KillReason | None = None
    """Why the platform killed the workload. Only with the phase ``killed`` or ``torn_down``."""
    ts: datetime | None = None
    """When it was sent, if the server says so."""

    kind: ClassVar[Literal["phase"]] = "phase"
    """Always ``"phase"``."""


class StdoutFrame(
    WireStruct, frozen=True, tag_field="kind", tag="stdout", rename="camel", omit_defaults=True, gc=False
):
    """Text that the workload wrote to standard output."""

    data: str
    """A piece of the output, line ends included. It may be a part of a line, or many lines.

    U+FFFD stands for what was no valid text.
    """
    ts: datetime | None = None
    """When it was sent, if the server says so."""

    kind: ClassVar[Literal["stdout"]] = "stdout"
    """Always ``"stdout"``."""


class StderrFrame(
    WireStruct, frozen=True, tag_field="kind", tag="stderr", rename="camel", omit_defaults=True, gc=False
):
    """Text that the workload wrote to standard error."""

    data: str
    """A piece of the output, line ends included. It may be a part of a line, or many lines.

    U+FFFD stands for what was no valid text.
    """
    ts: datetime | None = None
    """When it was sent, if the server says so."""

    kind: ClassVar[Literal["stderr"]] = "stderr"
    """Always ``"stderr"``."""


class AuditFrame(WireStruct, frozen=True, tag_field="kind", tag="audit", rename="camel", omit_defaults=True):
    """An entry was added to the session's audit trail."""

    event: AuditEvent
    """The entry."""
    ts: datetime | None = None
    """When it was sent, if the server says so."""

    kind: ClassVar[Literal["audit"]] = "audit"
    """Always ``"audit"``."""


class ResultFrame(WireStruct, frozen=True, tag_field="kind", tag="result", rename="camel", omit_defaults=True):
    """The workload's result was collected."""

    result: SessionResult[Any]
    """The result. Its value has plain JSON types: `SessionHandle.result` decodes it into a type of yours."""
    ts: datetime | None = None
    """When it was sent, if the server says so."""

    kind: ClassVar[Literal["result"]] = "result"
    """Always ``"result"``."""


class EndFrame(WireStruct, frozen=True, tag_field="kind", tag="end", rename="camel", omit_defaults=True, gc=False):
    """The last frame of a stream. Nothing before it was lost."""

    ts: datetime | None = None
    """When it was sent, if the server says so."""

    kind: ClassVar[Literal["end"]] = "end"
    """Always ``"end"``."""


class UnknownFrame(Shown, frozen=True, gc=False):
    """A frame that this version cannot read, in its place among the others. The stream goes on after it.

    Either the server sent a kind that this version does not know, and `problem` is None. Or the frame is not what its
    kind promises, or not JSON at all, and `problem` says what is wrong. A strict caller looks at `problem`.
    """

    kind: str
    """The kind that the server gave it. If its data has none, the name of the SSE event, or an empty string."""
    raw: bytes
    """The data of the event, undecoded. Invalid UTF-8 has become U+FFFD."""
    problem: str | None = None
    """What is wrong with it, as one short printable line. None if only the kind is unknown."""


KnownFrame = PhaseFrame | StdoutFrame | StderrFrame | AuditFrame | ResultFrame | EndFrame
"""The kinds of frame that are known here. See [The frames][the-frames]."""

StreamFrame = KnownFrame | UnknownFrame
"""Everything a stream can give. Tell the members apart with ``match``, or by `kind` once it is no `UnknownFrame`."""
