"""Sweeping until it is quiet: a create that was under way when its worker died makes its session a moment later."""

from __future__ import annotations

from collections.abc import Mapping

import anyio

from enclave import EnclaveClient, EnclaveError
from enclave.types import SessionPhase

from ._labels import INCARNATION

BUDGET_SECONDS = 120.0
"""How long a sweep goes on at most, if it does not become quiet."""
_FIRST_NAP_SECONDS, _LONGEST_NAP_SECONDS = 0.25, 2.0


async def sweep_until_quiet(
    client: EnclaveClient,
    labels: Mapping[str, str],
    quiet_seconds: float,
    *,
    spare_incarnation: str | None = None,
    budget_seconds: float = BUDGET_SECONDS,
) -> list[str]:
    """Tear down every session with these labels, until none has shown up for `quiet_seconds`.

    A sweep that fails proves nothing, so the quiet time begins anew after it. Gives the ids of the sessions.

    Args:
        client: a client of the control plane.
        labels: which sessions.
        quiet_seconds: how long none may show up.
        spare_incarnation: leave the sessions of this incarnation of a worker alone.
        budget_seconds: when to give up.

    Raises:
        EnclaveError: the last sweep failed, and the budget is used up.
        TimeoutError: sessions kept showing up until the budget was used up.
    """
    started = quiet_since = anyio.current_time()
    nap = _FIRST_NAP_SECONDS
    swept: list[str] = []
    while True:
        failure: Exception | None = None
        try:
            found = await _sweep(client, labels, spare_incarnation)
        except EnclaveError as error:
            failure, found = error, []
        if failure or found:
            quiet_since, nap = anyio.current_time(), _FIRST_NAP_SECONDS
        swept += found
        now = anyio.current_time()
        if now - quiet_since >= quiet_seconds:
            return swept
        if now - started >= budget_seconds:
            raise failure or TimeoutError(f"sessions labelled {dict(labels)} still show up after {budget_seconds:g} s")
        await anyio.sleep(min(nap, max(0.01, quiet_since + quiet_seconds - now)))
        nap = min(nap * 2, _LONGEST_NAP_SECONDS)


async def sweep_once(client: EnclaveClient, labels: Mapping[str, str]) -> list[str]:
    """One pass. Raises `EnclaveError` if it could not tear down every session that it found."""
    return await _sweep(client, labels, None)


async def _sweep(client: EnclaveClient, labels: Mapping[str, str], spare_incarnation: str | None) -> list[str]:
    if spare_incarnation is None:
        result = await client.sweep(labels=labels)
        for error in result.failed.values():
            raise error
        return result.swept
    ids = [
        session.id
        for session in await client.list()
        if session.phase != SessionPhase.TORN_DOWN
        and labels.items() <= session.labels.items()
        and session.labels.get(INCARNATION) != spare_incarnation
    ]
    for session_id in ids:
        await client.teardown(session_id)
    return ids
