"""Following one run: what the host is told while it goes on, and its outcome.

A run's frames become log notifications (its output, as it comes) and progress notifications (phases, and the latest
line of output). The host reads them at its own pace. A host that does not read slows the session's stream down.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Protocol, cast

from enclave import (
    AuditEvent,
    AuditFrame,
    AuditType,
    EventTooLargeError,
    PhaseFrame,
    SessionHandle,
    SessionResult,
    StderrFrame,
    StdoutFrame,
    StreamError,
    StreamFrame,
    UnknownFrame,
)

from ._bounded import Tail, one_line, problem_of, short
from ._schema import DeniedEgress, Outcome, Output

MAX_TAIL_CHARS = 8_000
"""How much of the end of each output stream the outcome holds, in characters."""
MAX_TOLD_CHARS = 256_000
"""How much output is sent while a run goes on, in characters. The tail of the rest comes with the outcome."""
MAX_DENIED_HOSTS = 50
"""How many different hosts of denied connections the outcome names."""
MAX_WARNINGS = 10
"""How many warnings about the stream an outcome has."""


class Listener(Protocol):
    """Who is told what goes on during a run."""

    async def progress(self, done: float, message: str) -> None:
        """A step of the run. `done` grows with every call."""
        ...

    async def output(self, stream: str, text: str) -> None:
        """Some output of the workload. `stream` is stdout or stderr."""
        ...


class DeniedHosts:
    """The hosts to which connections were denied, and how often."""

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self.more = False
        """Whether there are hosts beyond `MAX_DENIED_HOSTS`."""

    def note(self, event: AuditEvent) -> str | None:
        """Take an entry of the trail. If it is about a denied connection, give the host."""
        if event.type != AuditType.EGRESS_DENIED:
            return None
        host = short(str(event.particulars.get("host", "unknown")))
        if host in self._attempts or len(self._attempts) < MAX_DENIED_HOSTS:
            self._attempts[host] = self._attempts.get(host, 0) + 1
        else:
            self.more = True
        return host

    def entries(self) -> tuple[DeniedEgress, ...]:
        """The hosts, in the order of the first attempts."""
        return tuple(DeniedEgress(host, attempts) for host, attempts in self._attempts.items())


class Run:
    """One run, and what was seen of it so far."""

    def __init__(self, session: SessionHandle, listener: Listener) -> None:
        self._session = session
        self._listener = listener
        self._tails = {"stdout": Tail(MAX_TAIL_CHARS), "stderr": Tail(MAX_TAIL_CHARS)}
        self._told_chars = 0
        self._steps = 0
        self._denied = DeniedHosts()
        self._warnings: list[str] = []

    async def follow(self) -> None:
        """Read the session's stream to its end, and tell the listener what arrives."""
        try:
            async with self._session.stream() as frames:
                async for batch in frames.batches():
                    await self._take(batch)
        except (StreamError, EventTooLargeError) as error:  # the result can be had all the same
            self._warn(str(error))

    async def outcome(self) -> Outcome:
        """How the run ended. This waits for the end if the stream did not tell of it."""
        result = await self._session.result()
        # What was streamed, because a server may keep less of the output, or none.
        stdout, stderr = (Output(tail.text(), tail.cut_chars) for tail in self._tails.values())
        return _build_outcome(
            self._session.id, result, self._denied, stdout=stdout, stderr=stderr, warnings=self._warnings
        )

    async def _take(self, batch: list[StreamFrame]) -> None:
        # A notification for each line of output would cost more than the line. Neighbours are sent as one.
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
                return str(frame.phase) + (f": {frame.kill_reason}" if frame.kill_reason else "")
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
        # This waits for the host. Meanwhile no frames are taken, and the server is slowed down.
        if told:
            await self._listener.output(stream, told)
        if len(told) < len(text):
            self._warn(f"output beyond {MAX_TOLD_CHARS} characters was not sent while the run went on")

    def _warn(self, text: str) -> None:
        if text not in self._warnings and len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(one_line(text))


def outcome_of(session_id: str, result: SessionResult[Any], trail: list[AuditEvent]) -> Outcome:
    """The outcome of a session that ended some time ago, from what the server kept of it."""
    denied = DeniedHosts()
    for event in trail:
        denied.note(event)
    return _build_outcome(
        session_id, result, denied, stdout=_output(result.stdout or ""), stderr=_output(result.stderr or "")
    )


def _build_outcome(
    session_id: str,
    result: SessionResult[Any],
    denied: DeniedHosts,
    *,
    stdout: Output,
    stderr: Output,
    warnings: Sequence[str] = (),
) -> Outcome:
    """An outcome within all bounds. Its warnings tell what is missing."""
    warnings = list(warnings)
    if denied.more:
        warnings.append(f"deniedEgress names the first {MAX_DENIED_HOSTS} of the hosts whose connections were denied")
    problem = problem_of(result.value)
    if problem:
        warnings.append(f"json was left out: {problem}")
    return Outcome(
        session_id=session_id,
        phase=short(result.phase or "unknown"),
        exit_code=result.exit_code,
        kill_reason=result.kill_reason and short(result.kill_reason),
        value=None if problem else result.value,
        stdout=stdout,
        stderr=stderr,
        denied_egress=denied.entries(),
        duration_ms=result.duration_ms,
        warnings=tuple(warnings),
    )


def _output(text: str) -> Output:
    return Output(text[-MAX_TAIL_CHARS:], max(0, len(text) - MAX_TAIL_CHARS))


def _stream_of(frame: StreamFrame) -> str:
    return frame.kind if isinstance(frame, (StdoutFrame, StderrFrame)) else ""
