"""The live stream's frames: a union that msgspec discriminates on `kind`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import msgspec

from ._session import AuditEvent, KillReason, SessionPhase, SessionResult

# Output frames are by far the most frequent objects the client makes. They hold no containers, so they can be in no
# reference cycle, and gc=False spares the collector from tracking millions of them.


class PhaseFrame(msgspec.Struct, frozen=True, tag_field="kind", tag="phase", rename="camel", omit_defaults=True):
    """The session entered a phase. Wire: contract "Types", `StreamFrame`."""

    phase: SessionPhase
    """The phase entered."""
    kill_reason: KillReason | None = None
    """Why the platform killed the workload; only with the phase ``killed`` or ``torn_down``."""
    ts: datetime | None = None
    """When, where the server says so."""

    kind: ClassVar[str] = "phase"


class StdoutFrame(
    msgspec.Struct, frozen=True, tag_field="kind", tag="stdout", rename="camel", omit_defaults=True, gc=False
):
    """Text the workload wrote to standard output. Wire: contract "Types", `StreamFrame`."""

    data: str
    """The text, line ends included. Where the wire held no valid text it has U+FFFD."""
    ts: datetime | None = None
    """When, where the server says so."""

    kind: ClassVar[str] = "stdout"


class StderrFrame(
    msgspec.Struct, frozen=True, tag_field="kind", tag="stderr", rename="camel", omit_defaults=True, gc=False
):
    """Text the workload wrote to standard error. Wire: contract "Types", `StreamFrame`."""

    data: str
    """The text, line ends included. Where the wire held no valid text it has U+FFFD."""
    ts: datetime | None = None
    """When, where the server says so."""

    kind: ClassVar[str] = "stderr"


class AuditFrame(msgspec.Struct, frozen=True, tag_field="kind", tag="audit", rename="camel", omit_defaults=True):
    """An entry was added to the session's audit trail. Wire: contract "Types", `StreamFrame`."""

    event: AuditEvent
    """The entry."""
    ts: datetime | None = None
    """When, where the server says so."""

    kind: ClassVar[str] = "audit"


class ResultFrame(msgspec.Struct, frozen=True, tag_field="kind", tag="result", rename="camel", omit_defaults=True):
    """The workload's result was collected. Wire: contract "Types", `StreamFrame`."""

    result: SessionResult[Any]
    """The result, its value as plain JSON types. `SessionHandle.result` decodes it into a type of yours."""
    ts: datetime | None = None
    """When, where the server says so."""

    kind: ClassVar[str] = "result"


class EndFrame(msgspec.Struct, frozen=True, tag_field="kind", tag="end", rename="camel", omit_defaults=True, gc=False):
    """The last frame of a stream: nothing was lost before it. Wire: contract "The stream"."""

    ts: datetime | None = None
    """When, where the server says so."""

    kind: ClassVar[str] = "end"


class UnknownFrame(msgspec.Struct, frozen=True, gc=False):
    """A frame of a kind this version does not know, handed over as it came. Wire: contract "Types", `StreamFrame`."""

    kind: str
    """The kind the server gave it."""
    raw: bytes
    """The frame's JSON, undecoded."""


KnownFrame = PhaseFrame | StdoutFrame | StderrFrame | AuditFrame | ResultFrame | EndFrame
"""The kinds of frame that the wire contract names."""

StreamFrame = KnownFrame | UnknownFrame
"""Everything a stream can yield; tell the members apart with ``match`` or by `kind`."""
