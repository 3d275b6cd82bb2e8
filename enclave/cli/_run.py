"""`enclave run`: a program in a session of its own, its output live, its exit code ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import anyio
import msgspec

from enclave import CreateSessionRequest, EnclaveClient, SessionHandle, SessionResult

from . import _json
from ._errors import EXIT_ERROR, EXIT_KILLED, EXIT_TIMEOUT, BadUsage, CommandError
from ._frames import FrameWriter
from ._output import Screen

_EXIT_CODES = 256


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run it."""

    local: bool
    detach: bool
    json: bool
    timeout_seconds: float
    """From creating the session to its end; infinite for ever."""

    def check(self) -> None:
        """Raise `BadUsage` for options that exclude each other."""
        if self.detach and self.local:
            raise BadUsage("--detach: not with --local, whose server ends with this command")
        if self.detach and self.timeout_seconds != float("inf"):
            raise BadUsage("--detach: not with --timeout; pass --limit wall-clock-ms=... to end the session itself")


async def run(enclave: EnclaveClient, request: CreateSessionRequest, options: RunOptions, screen: Screen) -> int:
    """Run a program to its end and tear its session down, whatever happens."""
    if options.detach:
        return await _detach(await enclave.run(request), options, screen)
    exit_code = None
    with anyio.move_on_after(options.timeout_seconds):
        async with enclave.session(request) as session:
            exit_code = await _watch(session, options, screen)
    if exit_code is None:
        raise CommandError(
            f"not done within {options.timeout_seconds:g} s, so torn down; allow more with --timeout",
            exit_code=EXIT_TIMEOUT,
        )
    return exit_code


async def _detach(session: SessionHandle, options: RunOptions, screen: Screen) -> int:
    document = (
        _json.line(_json.document(session.last_seen)) if options.json and session.last_seen else session.id + "\n"
    )
    await screen.out.untrusted(document)
    await screen.status(f"running on its own: enclave logs --follow {session.id}; enclave rm {session.id}")
    return 0


async def _watch(session: SessionHandle, options: RunOptions, screen: Screen) -> int:
    await screen.status(f"session {session.id}")
    # With --json, standard output has the outcome and nothing else.
    writer = FrameWriter(screen, stdout=screen.err if options.json else None, capture=options.json)
    async with session.stream() as frames:
        await writer.follow(frames)
    result = await _result(session, writer)
    if options.json:
        await screen.out.write(_json.line(_outcome(session, writer, result)))
    elif result.value is not None:
        await screen.status(f"result: {_json.line(result.value)[:-1]}")
    if result.exit_code is None:
        await screen.warn(f"killed by the platform: {result.kill_reason or 'the server does not tell why'}")
    return _exit_code(result.exit_code)


async def _result(session: SessionHandle, writer: FrameWriter) -> SessionResult[Any]:
    """The result, from the stream where it was in it: asking for it reads the whole stream once more."""
    result = writer.result
    if result is None:
        return await session.result()
    if result.exit_code is None and result.kill_reason is None:
        reason = writer.kill_reason or (await session.refresh()).kill_reason
        result = msgspec.structs.replace(result, kill_reason=reason)
    return result


def _outcome(session: SessionHandle, writer: FrameWriter, result: SessionResult[Any]) -> dict[str, Any]:
    """As the wire has a result, with the output as it was streamed: a server may keep less of it, or none."""
    return {
        "sessionId": session.id,
        **_json.document(result),
        "phase": writer.phase,
        **{name: captured.text() for name, captured in writer.captured.items()},
        "truncated": any(captured.truncated for captured in writer.captured.values()),
        "deniedEgress": list(writer.denied),
    }


def _exit_code(code: int | None) -> int:
    """What a shell would show for the workload; it can tell no number outside one byte."""
    if code is None:
        return EXIT_KILLED
    if code < 0:  # a signal, as Python has it
        code = 128 - code
    return code % _EXIT_CODES or (EXIT_ERROR if code else 0)
