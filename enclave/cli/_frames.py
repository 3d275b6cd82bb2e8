"""A stream's frames as output: standard output to standard output as it comes, and a note of how it all ended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, cast

from enclave import (
    AuditFrame,
    AuditType,
    FrameStream,
    KillReason,
    PhaseFrame,
    ResultFrame,
    SessionPhase,
    SessionResult,
    StderrFrame,
    StdoutFrame,
    StreamFrame,
    UnknownFrame,
)

from . import _json
from ._output import Output, Screen

MAX_CAPTURED_CHARS = 1024 * 1024
MAX_DENIED_HOSTS = 1000


class Captured:
    """The start of a workload's output."""

    def __init__(self) -> None:
        self.truncated = False
        self._parts: list[str] = []
        self._room_chars = MAX_CAPTURED_CHARS

    def add(self, text: str) -> None:
        """Keep what fits."""
        part = text[: self._room_chars]
        self._room_chars -= len(part)
        self.truncated = self.truncated or len(part) < len(text)
        if part:
            self._parts.append(part)

    def text(self) -> str:
        """All that was kept."""
        return "".join(self._parts)


class FrameWriter:
    """Writes the frames of one stream, batch by batch, and remembers what a caller asks for afterwards."""

    def __init__(self, screen: Screen, *, stdout: Output | None = None, capture: bool = False) -> None:
        self._screen = screen
        self._outputs = {"stdout": stdout or screen.out, "stderr": screen.err}
        self.captured = {"stdout": Captured(), "stderr": Captured()} if capture else {}
        self.denied: dict[str, None] = {}
        """Hosts that the workload was kept from, in order."""
        self.phase: SessionPhase | None = None
        """The latest phase of the workload itself, teardown aside unless nothing else came."""
        self.kill_reason: KillReason | None = None
        self.result: SessionResult[Any] | None = None

    async def follow(self, frames: FrameStream) -> None:
        """Write a stream to its end. The log tells of frames that cannot be read."""
        async for batch in frames.batches():
            await self.write(batch)
        await self.end()

    async def write(self, batch: Sequence[StreamFrame]) -> None:
        """Write some frames; neighbours of one kind at once."""
        for kind, group in groupby(batch, key=type):
            if kind is StdoutFrame or kind is StderrFrame:
                output = cast("list[StdoutFrame | StderrFrame]", list(group))
                await self._write_output(output[0].kind, "".join(frame.data for frame in output))
            else:
                for frame in group:
                    await self._note(frame)

    async def end(self) -> None:
        """What comes next is no output: nothing of the output waits for it."""
        for output in self._outputs.values():
            await output.end_untrusted()

    async def _write_output(self, kind: str, text: str) -> None:
        if self.captured:
            self.captured[kind].add(text)
        await self._outputs[kind].untrusted(text)

    async def _note(self, frame: StreamFrame) -> None:
        match frame:
            case PhaseFrame(phase=phase, kill_reason=reason):
                if phase != SessionPhase.TORN_DOWN or self.phase is None or not self.phase.is_terminal:
                    self.phase = phase
                self.kill_reason = reason or self.kill_reason
                await self.end()
                await self._screen.status(phase)
            case AuditFrame(event=event) if event.type == AuditType.EGRESS_DENIED:
                host = str(event.particulars.get("host", "an unknown host"))
                if len(self.denied) < MAX_DENIED_HOSTS:
                    self.denied[host] = None
                await self.end()
                await self._screen.status(f"egress denied: {host}")
            case ResultFrame(result=result):
                self.result = result
            case _:
                pass


async def write_as_json(screen: Screen, batch: Sequence[StreamFrame]) -> None:
    """Write frames as the wire has them, one on a line. A frame that is not JSON is left out; the log tells of it."""
    await screen.out.write("".join(_json.line(_json.of_frame(frame)) for frame in batch if _is_readable(frame)))


def _is_readable(frame: StreamFrame) -> bool:
    return not isinstance(frame, UnknownFrame) or frame.problem is None
