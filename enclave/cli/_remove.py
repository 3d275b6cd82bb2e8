"""`enclave rm`: tear sessions down, by id or by filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from enclave import EnclaveClient, EnclaveError, SessionPhase

from . import _json
from ._connect import attached
from ._errors import EXIT_ERROR, BadUsage, described
from ._inspect import Filters
from ._output import Screen
from ._text import one_line

AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Which sessions, and whether for real."""

    ids: Sequence[str]
    filters: Filters
    dry_run: bool

    def check(self) -> None:
        """Raise `BadUsage` unless it is plain what is meant."""
        if not self.ids and not self.filters:
            raise BadUsage("rm: give at least one ID, or --label or --older-than")
        if self.ids and self.filters:
            raise BadUsage("rm: give IDs or filters, not both")


async def remove(enclave: EnclaveClient, removal: Removal, *, json: bool, screen: Screen) -> int:
    """Tear down, some at once, and say what was torn down as soon as it is."""
    failed = False
    chosen = await _chosen(enclave, removal)
    for start in range(0, len(chosen), AT_ONCE):
        ids = chosen[start : start + AT_ONCE]
        errors = {} if removal.dry_run else await _tear_down(enclave, ids)
        failed = failed or bool(errors)
        for session_id in ids:
            await _tell(session_id, errors.get(session_id), removal, json=json, screen=screen)
    return EXIT_ERROR if failed else 0


async def _chosen(enclave: EnclaveClient, removal: Removal) -> list[str]:
    if removal.ids:
        return [attached(enclave, session_id).id for session_id in dict.fromkeys(removal.ids)]
    sessions = await enclave.list()
    return [s.id for s in sessions if s.phase != SessionPhase.TORN_DOWN and removal.filters.match(s)]


async def _tear_down(enclave: EnclaveClient, ids: Sequence[str]) -> dict[str, str]:
    """Returns what went wrong, by id."""
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


async def _tell(session_id: str, error: str | None, removal: Removal, *, json: bool, screen: Screen) -> None:
    if error:
        await screen.warn(f"{session_id}: {error}")
    if json or not screen.out.is_terminal:
        document = {"id": session_id, "removed": error is None and not removal.dry_run, "error": error}
        await screen.out.write(_json.line(document))
    elif not error:
        did = "would remove" if removal.dry_run else "removed"
        await screen.out.write(f"{did} {one_line(session_id)}\n")
