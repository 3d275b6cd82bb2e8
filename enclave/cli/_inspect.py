"""`enclave show`, `result`, `audit` and `health`: a table on a terminal, and JSON otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import anyio
import msgspec
import typer

from enclave import EgressPolicy, SessionLimits, SessionResult

from ._client import Id, attached
from ._errors import EXIT_ERROR, EXIT_TIMEOUT, CommandError
from ._options import LIMIT_NAMES, Json, seconds
from ._output import Screen
from ._runtime import Context, command
from ._text import as_sent, known_time, labels_line

commands = typer.Typer()


@command(
    commands,
    "enclave show s-6b44fc-2",
)
async def show(ctx: Context, session_id: Id, json: Json = False) -> int:
    """Show one session.

    This shows its phase, limits, network policy, labels and times.
    """
    screen = ctx.obj.screen
    async with ctx.obj.client() as enclave:
        session = await attached(enclave, session_id).refresh()
        if json or not screen.out.is_terminal:
            await screen.document(as_sent(session))
            return 0
        await _details(
            screen,
            {
                "id": session.id,
                "phase": session.phase,
                "kill reason": session.kill_reason,
                **(_result_fields(session.result) if session.result else {}),
                "language": session.language,
                "backend": session.backend,
                "limits": _limits(session.limits),
                "egress": _egress(session.egress),
                "labels": labels_line(session.labels),
                "org": session.org_id,
                "created by": session.created_by,
                "created": known_time(session.created_at),
                "started": known_time(session.started_at),
                "finished": known_time(session.finished_at),
            },
        )
    return 0


@command(
    commands,
    "enclave result s-6b44fc-2",
    "enclave result s-6b44fc-2 | jq .json",
)
async def result(
    ctx: Context,
    session_id: Id,
    *,
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", metavar="SECONDS", help="Exit with 124 if the session has not ended by then."),
    ] = None,
    json: Json = False,
) -> int:
    """Wait until a session has ended, and show its result.

    The result is the exit code and what the program gave to enclave.result.
    """
    timeout_seconds = seconds("--timeout", timeout)
    screen = ctx.obj.screen
    found = None
    async with ctx.obj.client() as enclave:
        session = attached(enclave, session_id)
        with anyio.move_on_after(timeout_seconds):
            found = await session.result()
        if found is None:
            raise CommandError(
                f"session {session_id} has not ended within {timeout_seconds:g} s. Allow more with --timeout",
                exit_code=EXIT_TIMEOUT,
            )
        if json or not screen.out.is_terminal:
            await screen.document(as_sent(found))
        else:
            await _details(screen, {"kill reason": found.kill_reason, **_result_fields(found)})
    return 0


@command(
    commands,
    "enclave audit s-6b44fc-2",
)
async def audit(ctx: Context, session_id: Id, json: Json = False) -> int:
    """Show a session's audit trail so far, oldest first."""
    screen = ctx.obj.screen
    async with ctx.obj.client() as enclave:
        trail = await attached(enclave, session_id).audit()
        if json or not screen.out.is_terminal:
            await screen.document([as_sent(event) for event in trail])
            return 0
        from . import _tables  # noqa: PLC0415 - Rich is slow to import, and a pipe needs none

        rows = [(event.ts, event.type, _on_one_line(event.particulars) if event.particulars else "") for event in trail]
        await screen.out.write(_tables.table(screen.out, ("TIME", "EVENT", "DETAIL"), rows))
    return 0


@command(
    commands,
    "enclave health",
)
async def health(ctx: Context, json: Json = False) -> int:
    """Ask whether the control plane is well.

    The exit code is 1 if it is not, or if its backend is not.
    """
    screen = ctx.obj.screen
    async with ctx.obj.client() as enclave:
        found = await enclave.health()
        if json or not screen.out.is_terminal:
            await screen.document(found)
        else:
            well = {True: "yes", False: "no", None: None}
            await _details(
                screen,
                {
                    "control plane": enclave.base_url,
                    "ok": well[found.ok],
                    "backend": found.backend,
                    "backend healthy": well[found.backend_healthy],
                },
            )
    return 0 if found.ok and found.backend_healthy is not False else EXIT_ERROR


async def _details(screen: Screen, fields: Mapping[str, object]) -> None:
    from . import _tables  # noqa: PLC0415 - see `audit`

    await screen.out.write(_tables.details(screen.out, fields))


def _result_fields(found: SessionResult[object]) -> dict[str, object]:
    return {
        "exit code": found.exit_code,
        "result": None if found.value is None else _on_one_line(found.value),
        "duration": None if found.duration_ms is None else f"{found.duration_ms / 1000:.3f} s",
    }


def _limits(limits: SessionLimits) -> str | None:
    known = {name: getattr(limits, name.replace("-", "_")) for name in LIMIT_NAMES}
    shown = [f"{name}={value}" for name, value in {**known, **limits.extra}.items() if value is not None]
    return ", ".join(shown) or None


def _egress(egress: EgressPolicy | None) -> str | None:
    return None if egress is None else " ".join((egress.mode, *egress.allow))


def _on_one_line(value: object) -> str:
    # With spaces between its parts, where a narrow table can break it.
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
