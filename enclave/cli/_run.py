"""`enclave run` and `enclave logs`: the commands that show a program's output as it comes."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
import msgspec
import typer

from enclave import (
    CreateSessionRequest,
    EnclaveClient,
    FrameBatches,
    SessionHandle,
    SessionResult,
    StreamFrame,
)

from ._client import Id, attached
from ._errors import EXIT_ERROR, EXIT_KILLED, EXIT_TIMEOUT, BadUsage, CommandError
from ._frames import FrameWriter, write_as_json
from ._options import LIMIT_NAMES, Local, Raw, egress, limits, pairs, program, seconds
from ._output import Screen, in_thread
from ._runtime import Context, command
from ._text import as_sent, json_line

# Nothing in a stream marks where the past ends and the present begins. A pause this long does. Of a program that never
# pauses, `logs` shows this much.
IDLE_SECONDS = 0.5
BUSY_SECONDS = 3.0

_EXIT_CODES = 256

commands = typer.Typer()


@command(
    commands,
    "enclave run job.py",
    "enclave run -c 'enclave.result({\"answer\": 6 * 7})'",
    "echo 'console.log(6 * 7)' | enclave run - --language node",
    "enclave run job.py --limit memory-mb=256 --limit wall-clock-ms=5000",
    "enclave run job.py --allow 203.0.113.0/24 --label team=data",
    "enclave run job.py --json | tail -n 1",
    "enclave run job.py --detach",
    "enclave run --local job.py",
)
async def run(
    ctx: Context,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="The program, or - for standard input.", show_default=False)
    ] = None,
    *,
    code: Annotated[str | None, typer.Option("--code", "-c", metavar="CODE", help="The program itself.")] = None,
    language: Annotated[
        str | None,
        typer.Option(
            metavar="python|node",
            help="By default the suffix tells: .py, .js, .mjs, .cjs. Without one, the server's default.",
            autocompletion=lambda: ["python", "node"],
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="CIDR", help="A network the program may connect to. None by default. Repeatable."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help=f"A whole number for one of {', '.join(LIMIT_NAMES)}. Repeatable.",
            autocompletion=lambda: [f"{name}=" for name in LIMIT_NAMES],
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="A label to find the session by. Repeatable."),
    ] = None,
    service_binding: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="A service the program may use. Repeatable.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the session's id, and leave it running.")] = False,
    json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the outcome as one line of JSON. The program's output goes to standard error."
        ),
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Tear down and exit with 124 after that long.")
    ] = None,
    local: Local = False,
    raw: Raw = False,
) -> int:
    """Run a program and show its output as it comes.

    The exit code is the program's own. It is 137 if the platform kills the program. Without --detach, the session
    is torn down in the end, whatever happens, also at Ctrl-C.
    """
    # All wrong usage is found before there is a client: nothing is sent, and no simulator is started.
    timeout_seconds = seconds("--timeout", timeout)
    if detach and local:
        raise BadUsage("--detach does not go with --local, whose server ends with this command")
    if detach and timeout is not None:
        raise BadUsage(
            "--detach does not go with --timeout. Pass --limit wall-clock-ms=... to limit the session itself"
        )
    # Standard input may be a pipe into which nobody ever writes.
    source, language = await in_thread(program, file, code, language)
    request = CreateSessionRequest(
        code=source,
        language=language,
        limits=limits(limit),
        egress=egress(allow),
        service_bindings=service_binding,
        labels=pairs("--label", label) or None,
    )
    screen = ctx.obj.screen
    if raw:
        screen.obey()
    async with ctx.obj.client(local=local) as enclave:
        if detach:
            return await _detach(await enclave.run(request), json=json, screen=screen)
        # The scope is around the session, so that the time for tearing it down is not part of the timeout.
        with anyio.move_on_after(timeout_seconds):
            return await _follow(enclave, request, json=json, screen=screen)
    raise CommandError(
        f"not done within {timeout_seconds:g} s, so it was torn down. Allow more with --timeout",
        exit_code=EXIT_TIMEOUT,
    )


async def _detach(session: SessionHandle, *, json: bool, screen: Screen) -> int:
    document = json_line(as_sent(session.last_seen)) if json and session.last_seen else session.id + "\n"
    await screen.out.untrusted(document)
    await screen.status(f"it runs on its own. Try enclave logs --follow {session.id}, or enclave rm {session.id}")
    return 0


async def _follow(enclave: EnclaveClient, request: CreateSessionRequest, *, json: bool, screen: Screen) -> int:
    async with enclave.session(request) as session:
        await screen.status(f"session {session.id}")
        # With --json, standard output has the outcome and nothing else.
        writer = FrameWriter(screen, stdout=screen.err if json else None, capture=json)
        async with session.stream() as frames:
            await writer.follow(frames)
        result = await session.result()
        if json:
            await screen.out.write(json_line(_outcome(session, writer, result)))
        elif result.value is not None:
            await screen.status(f"result: {json_line(result.value)[:-1]}")
        if result.is_killed:
            await screen.warn(f"killed by the platform: {result.kill_reason or 'the server does not say why'}")
        return _exit_code(result)


class _Seen(msgspec.Struct, kw_only=True, rename="camel"):
    """What the outcome of a run holds besides its result."""

    session_id: str
    truncated: bool
    denied_egress: list[str]


def _outcome(session: SessionHandle, writer: FrameWriter, result: SessionResult[Any]) -> dict[str, Any]:
    """The result as the wire has it. The output is what was streamed, of which a server may keep less."""
    output = {name: captured.text() for name, captured in writer.captured.items()}
    seen = _Seen(
        session_id=session.id,
        truncated=any(captured.truncated for captured in writer.captured.values()),
        denied_egress=list(writer.denied),
    )
    document = msgspec.json.decode(msgspec.structs.replace(result, **output).to_json())
    # Ours come last: what a server puts beside its result must not pass for them.
    return {**document, **msgspec.to_builtins(seen)}


def _exit_code(result: SessionResult[Any]) -> int:
    """The exit code of a process, which has one byte. A failure never becomes a success."""
    if result.is_killed:
        return EXIT_KILLED
    code = result.exit_code
    if code is None:
        return 0 if result.is_success else EXIT_ERROR
    if code < 0:  # a signal, as Python reports it
        code = 128 - code
    return code % _EXIT_CODES or (EXIT_ERROR if code else 0)


@command(
    commands,
    "enclave logs s-6b44fc-2",
    "enclave logs --follow s-6b44fc-2",
)
async def logs(
    ctx: Context,
    session_id: Id,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the session ends.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print each frame of the stream as a line of JSON.")] = False,
    raw: Raw = False,
) -> int:
    """Show what a session has printed, from its start.

    Without --follow, this is what there is so far: it ends as soon as the output pauses.
    """
    screen = ctx.obj.screen
    if raw:
        screen.obey()
    async with ctx.obj.client() as enclave:
        session = attached(enclave, session_id)
        # The stream of a session that has ended is complete, so there is nothing to guess.
        follow = follow or (await session.refresh()).has_ended
        writer = FrameWriter(screen)
        async with session.stream() as frames:
            batches = frames.batches()
            pause = float("inf") if follow else IDLE_SECONDS
            until = float("inf") if follow else anyio.current_time() + BUSY_SECONDS
            while (batch := await _next(batches, pause)) and anyio.current_time() < until:
                await (write_as_json(screen, batch) if json else writer.write(batch))
        await writer.close()
        if batch != []:
            await screen.warn(f"session {session_id} goes on. --follow shows the rest")
    return 0


async def _next(batches: FrameBatches, pause_seconds: float) -> list[StreamFrame] | None:
    """The next frames. The end of the stream gives an empty list, and a pause gives None."""
    with anyio.move_on_after(pause_seconds):
        return await anext(batches, list[StreamFrame]())
    return None
