"""`enclave ls` and `enclave rm`: the commands for several sessions, which filters choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import anyio
import typer

from enclave import EnclaveClient, EnclaveError, Session, SessionPhase, SessionResult

from ._client import attached, complete_session
from ._errors import EXIT_ERROR, BadUsage, described
from ._options import Json, Labels, OlderThan, duration, pairs
from ._output import Screen
from ._runtime import Context, command
from ._text import as_sent, json_line, known_time, labels_line, one_line

AT_ONCE = 8
TABLE_ROWS = 20

commands = typer.Typer()


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which sessions are meant: those to which every filter applies."""

    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    older_than: timedelta | None = None
    phase: str | None = None

    @classmethod
    def of(cls, labels: Sequence[str] | None, older_than: str | None, phase: str | None = None) -> Filters:
        """Filters from the texts of the options. Raises `BadUsage`."""
        age = None if older_than is None else duration("--older-than", older_than)
        if phase is not None and phase not in list(SessionPhase):
            raise BadUsage(f"--phase: unknown phase {phase!r}, expected one of {', '.join(SessionPhase)}")
        return cls(labels=pairs("--label", labels), older_than=age, phase=phase)

    def __bool__(self) -> bool:
        return bool(self.labels) or self.older_than is not None

    def match(self, session: Session) -> bool:
        """Whether a session is meant. One of unknown age is never old enough."""
        if self.phase is not None and session.phase != self.phase:
            return False
        if any(session.labels.get(key) != value for key, value in self.labels.items()):
            return False
        if self.older_than is None:
            return True
        created = known_time(session.created_at)
        return created is not None and datetime.now(UTC) - created > self.older_than


@command(
    commands,
    "enclave ls",
    "enclave ls --phase running --limit 5",
    "enclave ls --label team=data --older-than 1h",
    "enclave ls | jq '.[].id'",
)
async def ls(
    ctx: Context,
    *,
    label: Labels = None,
    older_than: OlderThan = None,
    phase: Annotated[
        str | None,
        typer.Option(
            metavar="PHASE",
            help=f"Only sessions in this phase: {', '.join(SessionPhase)}.",
            autocompletion=lambda: list(SessionPhase),
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help=f"Only the newest N. A table has {TABLE_ROWS} by default.", min=1)
    ] = None,
    json: Json = False,
) -> int:
    """List the sessions, newest first.

    On a terminal this is a table, and in a pipe it is JSON.
    """
    filters = Filters.of(label, older_than, phase)
    screen = ctx.obj.screen
    async with ctx.obj.client() as enclave:
        found = [session for session in await enclave.list() if filters.match(session)]
        if json or not screen.out.is_terminal:
            await screen.document([as_sent(session) for session in found[:limit]])
            return 0
        sessions = found[: limit or TABLE_ROWS]
        if sessions:
            from . import _tables  # noqa: PLC0415 - Rich is slow to import, and a pipe needs none

            rows = [
                (s.id, s.phase, s.language, _exit_of(s.result), _tables.age(s.created_at), labels_line(s.labels) or "")
                for s in sessions
            ]
            columns = ("ID", "PHASE", "LANGUAGE", "EXIT", "AGE", "LABELS")
            await screen.out.write(_tables.table(screen.out, columns, rows))
        if len(sessions) < len(found):
            await screen.status(f"{len(found) - len(sessions)} more. --limit shows them, and filters narrow the list")
        elif not sessions:
            await screen.status("no sessions")
    return 0


def _exit_of(found: SessionResult[object] | None) -> object:
    if found is None:
        return None
    return "killed" if found.exit_code is None else found.exit_code


@command(
    commands,
    "enclave rm s-6b44fc-2",
    "enclave rm --label team=data --dry-run",
    "enclave rm --older-than 1h",
)
async def rm(
    ctx: Context,
    session_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID", help="The sessions.", show_default=False, autocompletion=complete_session),
    ] = None,
    *,
    label: Labels = None,
    older_than: OlderThan = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which sessions would be removed.")] = False,
    json: Json = False,
) -> int:
    """Tear sessions down, by id or by filters.

    It does not ask, and prints what it removed.
    """
    filters = Filters.of(label, older_than)
    # Without this, a forgotten argument would remove everything.
    if not session_ids and not filters:
        raise BadUsage("rm: give at least one ID, or --label or --older-than. See `enclave rm --help`")
    if session_ids and filters:
        raise BadUsage("rm: give IDs or filters, not both")
    screen = ctx.obj.screen
    failed = False
    async with ctx.obj.client() as enclave:
        if filters.labels:
            swept = await enclave.sweep(labels=filters.labels, older_than=filters.older_than, dry_run=dry_run)
            for session_id in swept.swept:
                await _tell(session_id, None, screen=screen, dry_run=dry_run, json=json)
            for session_id, error in swept.failed.items():
                await _tell(session_id, described(error), screen=screen, dry_run=dry_run, json=json)
            if not (swept.swept or swept.failed):
                await screen.status("no sessions match")
            return EXIT_ERROR if swept.failed else 0
        # Some at once, and each told as soon as it is done: there may be thousands.
        chosen = await _chosen(enclave, session_ids, filters)
        for start in range(0, len(chosen), AT_ONCE):
            ids = chosen[start : start + AT_ONCE]
            errors = {} if dry_run else await _tear_down(enclave, ids)
            failed = failed or bool(errors)
            for session_id in ids:
                await _tell(session_id, errors.get(session_id), screen=screen, dry_run=dry_run, json=json)
    return EXIT_ERROR if failed else 0


async def _chosen(enclave: EnclaveClient, session_ids: Sequence[str] | None, filters: Filters) -> list[str]:
    if session_ids:
        return [attached(enclave, session_id).id for session_id in dict.fromkeys(session_ids)]
    sessions = await enclave.list()
    return [s.id for s in sessions if s.phase != SessionPhase.TORN_DOWN and filters.match(s)]


async def _tear_down(enclave: EnclaveClient, ids: Sequence[str]) -> dict[str, str]:
    """Tear some sessions down at once. Gives what went wrong, by id."""
    errors: dict[str, str] = {}

    async def one(session_id: str) -> None:
        try:
            await enclave.teardown(session_id)
        except EnclaveError as error:
            errors[session_id] = described(error)

    async with anyio.create_task_group() as task_group:
        for session_id in ids:
            task_group.start_soon(one, session_id)
    return errors


async def _tell(session_id: str, error: str | None, *, screen: Screen, dry_run: bool, json: bool) -> None:
    if error:
        await screen.fail(f"{session_id}: {error}")
    if json or not screen.out.is_terminal:
        removed = error is None and not dry_run
        await screen.out.write(json_line({"id": session_id, "removed": removed, "error": error}))
    elif not error:
        did = "would remove" if dry_run else "removed"
        await screen.out.write(f"{did} {one_line(session_id)}\n")
