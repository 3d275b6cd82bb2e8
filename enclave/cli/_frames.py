"""A stream's frames as output. `enclave run` and `enclave logs` share this."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import cast

import msgspec

from enclave import (
    AuditFrame,
    AuditType,
    FrameStream,
    PhaseFrame,
    StderrFrame,
    StdoutFrame,
    StreamFrame,
    UnknownFrame,
)

from ._output import Output, Screen
from ._text import as_sent, json_line

MAX_CAPTURED_CHARS = 1024 * 1024
MAX_DENIED_HOSTS = 1000


class Captured:
    """The start of a workload's output."""

    def __init__(self) -> None:
        self.truncated = False
        self._parts: list[str] = []
        self._room_chars = MAX_CAPTURED_CHARS

    def add(self, text: str) -> None:
        """Keep as much as there is room for."""
        part = text[: self._room_chars]
        self._room_chars -= len(part)
        self.truncated = self.truncated or len(part) < len(text)
        if part:
            self._parts.append(part)

    def text(self) -> str:
        """All that was kept."""
        return "".join(self._parts)


class FrameWriter:
    """Writes the frames of one stream, batch by batch, and remembers what the outcome of a run needs."""

    def __init__(self, screen: Screen, *, stdout: Output | None = None, capture: bool = False) -> None:
        self._screen = screen
        self._outputs = {"stdout": stdout or screen.out, "stderr": screen.err}
        self.captured = {"stdout": Captured(), "stderr": Captured()} if capture else {}
        self.denied: dict[str, None] = {}
        """The hosts to which a connection was denied, in the order of the first attempts."""

    async def follow(self, frames: FrameStream) -> None:
        """Write a stream to its end."""
        async for batch in frames.batches():
            await self.write(batch)
        await self.close()

    async def write(self, batch: Sequence[StreamFrame]) -> None:
        """Write some frames. Neighbours of one kind are written at once."""
        # A write is a thread and a system call. A program that prints line by line sends a frame for each line.
        for kind, group in groupby(batch, key=type):
            if kind is StdoutFrame or kind is StderrFrame:
                output = cast("list[StdoutFrame | StderrFrame]", list(group))
                await self._write_output(output[0].kind, "".join(frame.data for frame in output))
            else:
                for frame in group:
                    await self._note(frame)

    async def end(self) -> None:
        """Write what was held back. What comes next is not the workload's output."""
        for output in self._outputs.values():
            await output.end_untrusted()

    async def close(self) -> None:
        """Write what was held back, and say so if a terminal was kept from obeying the output."""
        await self.end()
        if any(output.has_escapes for output in self._outputs.values()):
            await self._screen.status("control characters of the output are shown as escapes. --raw obeys them instead")

    async def _write_output(self, kind: str, text: str) -> None:
        if self.captured:
            self.captured[kind].add(text)
        await self._outputs[kind].untrusted(text)

    async def _note(self, frame: StreamFrame) -> None:
        match frame:
            case PhaseFrame(phase=phase):
                # A carriage return may be held back, and has to be in front of the status line.
                await self.end()
                await self._screen.status(phase)
            case AuditFrame(event=event) if event.type == AuditType.EGRESS_DENIED:
                host = str(event.particulars.get("host", "an unknown host"))
                # A program can try any number of hosts.
                if len(self.denied) < MAX_DENIED_HOSTS:
                    self.denied[host] = None
                await self.end()
                await self._screen.status(f"egress denied: {host}")
            case _:  # the log has a warning about each frame that cannot be read
                pass


async def write_as_json(screen: Screen, batch: Sequence[StreamFrame]) -> None:
    """Write frames as the wire has them, one on each line."""
    await screen.out.write("".join(_line(frame) for frame in batch))


def _line(frame: StreamFrame) -> str:
    match frame:
        case UnknownFrame(kind=kind, raw=raw, problem=str(problem)):  # it may not even be JSON
            return json_line({"kind": kind, "problem": problem, "raw": raw.decode()})
        case UnknownFrame(raw=raw):  # not decoded: no Python value can hold half an emoji or the number 1e999
            return json_line(msgspec.Raw(raw))
        case _:
            return json_line(as_sent(frame))
