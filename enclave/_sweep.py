"""`sweep()`: tear down every live session that carries certain labels, whoever created it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio

from . import _calls
from ._create import discard
from ._groups import close_unbegun, plain_exceptions, start_coroutine
from ._loop import cancelled_by_others
from ._owned_task import cut_short
from .types import Session, SessionPhase
from .types._request import check_labels
from .types._shown import Shown, short

if TYPE_CHECKING:
    from .transport import Http

_AT_ONCE = 8


class SweepResult(Shown, frozen=True):
    """What a sweep has done."""

    swept: list[str]
    """Ids of the sessions that are torn down now. After a dry run: of those that a real one would tear down."""
    failed: dict[str, Exception]
    """Ids of the sessions that could not be torn down, and why."""

    def __repr__(self) -> str:
        failed = f"{len(self.failed)} failed {short(self.failed)}" if self.failed else "0 failed"
        return f"<SweepResult {len(self.swept)} swept {short(self.swept)}, {failed}>"

    def _facts(self) -> dict[str, object]:
        failed = (f"{session_id}: {error!r}" for session_id, error in self.failed.items())
        return {
            "swept": "\n".join([str(len(self.swept)), *self.swept]),
            "failed": "\n".join([str(len(self.failed)), *failed]),
        }


class Sweep:
    """Which sessions to tear down. Raises as `EnclaveClient.sweep` does for what cannot be used."""

    def __init__(self, labels: Mapping[str, str], older_than: float | timedelta | None) -> None:
        check_labels(labels)
        if not labels:
            raise ValueError("labels: empty, which would tear down every session of the org. Name at least one")
        self._labels = dict(labels)
        self._min_age = None if older_than is None else _as_age(older_than)

    async def run(self, http: Http, *, dry_run: bool) -> SweepResult:
        """Tear down what stands in the list now."""
        now = datetime.now(UTC)
        ids = [session.id for session in await _calls.labelled(http, self._labels) if self._matches(session, now)]
        if dry_run:
            return SweepResult(ids, {})
        swept: list[str] = []
        failed: dict[str, Exception] = {}
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def tear_down(session_id: str) -> None:
            try:
                async with limiter:
                    await discard(http, session_id)
                swept.append(session_id)
            except Exception as error:  # noqa: BLE001 - told in the result, and the others go on
                failed[session_id] = error
            except BaseException as error:
                if not cancelled_by_others(error):
                    raise
                # Left to itself it would end all the others too, and the sweep would look complete.
                failed[session_id] = cut_short(f"tearing down session {session_id}")

        started = [tear_down(session_id) for session_id in ids]
        try:
            with plain_exceptions():
                async with anyio.create_task_group() as tasks:
                    for coroutine in started:
                        start_coroutine(tasks, coroutine, "sweep")
        finally:
            close_unbegun(started)
        # A task that was cancelled before its first step has said nothing.
        told = failed.keys() | set(swept)
        for session_id in ids:
            if session_id not in told:
                failed[session_id] = cut_short(f"tearing down session {session_id}")
        return SweepResult(swept, failed)

    def _matches(self, session: Session, now: datetime) -> bool:
        # A session that has ended still holds what it was given, until it is torn down.
        if session.phase == SessionPhase.TORN_DOWN:
            return False
        if self._min_age is None:
            return True
        if session.created_at is None:
            return False  # it may be a moment old
        created = session.created_at if session.created_at.tzinfo else session.created_at.replace(tzinfo=UTC)
        return now - created >= self._min_age


def _as_age(older_than: float | timedelta) -> timedelta:
    if isinstance(older_than, bool) or not isinstance(older_than, int | float | timedelta):
        raise TypeError(f"older_than: expected seconds or a timedelta, got {type(older_than).__name__}")
    try:
        age = older_than if isinstance(older_than, timedelta) else timedelta(seconds=older_than)
    except (ValueError, OverflowError):
        raise ValueError(f"older_than: no span of time, got {older_than!r}") from None
    if age < timedelta(0):
        raise ValueError(f"older_than: must not be negative, got {older_than!r}")
    return age
