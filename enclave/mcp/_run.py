"""Following one run: what is told while it goes on, and its outcome.

A run's frames become log notifications (its output, as it comes) and progress notifications (phases, and the latest
line of output). The host reads them at its own pace, and a host that does not read slows the session's stream down.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, Protocol, cast

import msgspec

from enclave import (
    AuditEvent,
    AuditFrame,
    AuditType,
    EventTooLargeError,
    PhaseFrame,
    ResultFrame,
    Session,
    SessionHandle,
    SessionResult,
    StderrFrame,
    StdoutFrame,
    StreamError,
    StreamFrame,
    UnknownFrame,
)

from ._schema import DeniedEgress, Outcome, Output
from ._text import Tail, one_line

MAX_TAIL_CHARS = 8_000
"""How much of the end of each output stream the outcome holds, in characters."""
MAX_TOLD_CHARS = 256_000
"""How much output is told while a run goes on, in characters; the tail of the rest comes with the outcome."""
MAX_VALUE_BYTES = 64_000
"""How large a value the outcome holds, in bytes of JSON: it goes into a language model's context."""
MAX_DENIED_HOSTS = 50
"""How many different hosts of denied connections the outcome names."""
MAX_HOST_CHARS = 255
MAX_WARNINGS = 10
"""How many warnings an outcome has, besides those about its own bounds."""


class Listener(Protocol):
    """Who is told while a run goes on."""

    async def progress(self, done: float, message: str) -> None:
        """`done` grows with every call."""
        ...

    async def output(self, stream: str, text: str) -> None:
        """Some output of the workload: `stream` is stdout or stderr."""
        ...


class DeniedHosts:
    """How often connections to which hosts were denied."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self.more = False
        """Whether there are hosts beyond `MAX_DENIED_HOSTS`."""

    def note(self, event: AuditEvent) -> str | None:
        """Take an entry of the trail; gives the host if it is about a denied connection."""
        if event.type != AuditType.EGRESS_DENIED:
            return None
        host = str(event.particulars.get("host", "unknown"))[:MAX_HOST_CHARS]
        if host in self._attempts or len(self._attempts) < MAX_DENIED_HOSTS:
            self._attempts[host] = self._attempts.get(host, 0) + 1
        else:
            self.more = True
        return host

    def entries(self) -> tuple[DeniedEgress, ...]:
        """For an outcome, in the order of the first attempts."""
        return tuple(DeniedEgress(host, attempts) for host, attempts in self._attempts.items())


class Run:
    """What was seen of one run so far."""

    def __init__(self, session: SessionHandle, listener: Listener) -> None:
        self._session = session
        self._listener = listener
        self._tails = {"stdout": Tail(MAX_TAIL_CHARS), "stderr": Tail(MAX_TAIL_CHARS)}
        self._told_chars = 0
        self._steps = 0
        self._last_phase: PhaseFrame | None = None
        self._result: SessionResult[Any] | None = None
        self._denied = DeniedHosts()
        self._warnings: list[str] = []

    async def follow(self) -> None:
        """Read the session's stream to its end, and tell what comes."""
        try:
            async with self._session.stream() as frames:
                async for batch in frames.batches():
                    await self._take(batch)
        except (StreamError, EventTooLargeError) as error:  # its result can be had all the same
            self._warn(str(error))

    async def outcome(self) -> Outcome:
        """How the run ended; waits for its end where the stream did not tell."""
        result = self._result or await self._session.result()
        phase, kill_reason = await self._ending(result)
        stdout, stderr = (Output(tail.text(), tail.cut_chars) for tail in self._tails.values())
        return build_outcome(
            self._session.id,
            result,
            phase=phase,
            kill_reason=kill_reason,
            stdout=stdout,
            stderr=stderr,
            denied=self._denied,
            warnings=tuple(self._warnings),
        )

    async def _ending(self, result: SessionResult[Any]) -> tuple[str, str | None]:
        last = self._last_phase
        if last is not None and last.phase.is_terminal:
            kill_reason = last.kill_reason or result.kill_reason
            if kill_reason is not None or result.exit_code is not None:
                return str(last.phase), kill_reason
        session = await self._session.refresh()
        return str(session.phase or "unknown"), session.kill_reason

    async def _take(self, batch: list[StreamFrame]) -> None:
        for stream, frames in groupby(batch, _stream_of):
            if stream:
                text = "".join(cast(StdoutFrame, frame).data for frame in frames)
                await self._take_output(stream, text)
            else:
                for frame in frames:
                    await self._progress(self._note(frame))

    async def _take_output(self, stream: str, text: str) -> None:
        self._tails[stream].add(text)
        await self._tell(stream, text)
        await self._progress(f"{stream}: {text.rstrip().rpartition(chr(10))[2]}")

    async def _progress(self, message: str) -> None:
        if message:
            self._steps += 1
            await self._listener.progress(self._steps, one_line(message))

    def _note(self, frame: StreamFrame) -> str:
        """Remember what the outcome needs, and give what is worth a progress message."""
        match frame:
            case PhaseFrame():
                self._last_phase = frame
                return str(frame.phase) + (f": {frame.kill_reason}" if frame.kill_reason else "")
            case ResultFrame():
                self._result = frame.result
            case UnknownFrame(problem=str(problem)):
                self._warn(f"a frame of the stream cannot be read: {problem}")
            case AuditFrame():
                host = self._denied.note(frame.event)
                return f"connection denied: {host}" if host else ""
            case _:
                pass
        return ""

    async def _tell(self, stream: str, text: str) -> None:
        told = text[: MAX_TOLD_CHARS - self._told_chars]
        self._told_chars += len(told)
        if told:
            await self._listener.output(stream, told)
        if len(told) < len(text):
            self._warn(f"output beyond {MAX_TOLD_CHARS} characters was not sent while the run went on")

    def _warn(self, text: str) -> None:
        if text not in self._warnings and len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(one_line(text))


def outcome_of(session: Session, result: SessionResult[Any], trail: list[AuditEvent]) -> Outcome:
    """The outcome of a session that ended some time ago, from what the server kept of it."""
    denied = DeniedHosts()
    for event in trail:
        denied.note(event)
    return build_outcome(
        session.id,
        result,
        phase=str(session.phase or "unknown"),
        kill_reason=session.kill_reason or result.kill_reason,
        stdout=_output(result.stdout or ""),
        stderr=_output(result.stderr or ""),
        denied=denied,
    )


def build_outcome(
    session_id: str,
    result: SessionResult[Any],
    *,
    denied: DeniedHosts,
    warnings: tuple[str, ...] = (),
    **fields: Any,
) -> Outcome:
    """An outcome whose value is bounded."""
    if denied.more:
        warnings += (f"deniedEgress names the first {MAX_DENIED_HOSTS} of the hosts whose connections were denied",)
    size_bytes = len(msgspec.json.encode(result.value))
    fits = size_bytes <= MAX_VALUE_BYTES
    if not fits:
        warnings += (f"json was left out: it has {size_bytes} bytes, and at most {MAX_VALUE_BYTES} are shown",)
    return Outcome(
        session_id=session_id,
        exit_code=result.exit_code,
        value=result.value if fits else None,
        denied_egress=denied.entries(),
        duration_ms=result.duration_ms,
        warnings=warnings,
        **fields,
    )


def _output(text: str) -> Output:
    return Output(text[-MAX_TAIL_CHARS:], max(0, len(text) - MAX_TAIL_CHARS))


def _stream_of(frame: StreamFrame) -> str:
    return frame.kind if isinstance(frame, (StdoutFrame, StderrFrame)) else ""
