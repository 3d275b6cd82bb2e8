"""`sweep()`: every live session with these labels is torn down, and single failures are told."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from enclave import EnclaveClient, ServerError
from tests.support import PATIENCE_SECONDS
from tests.support.messages import response, session
from tests.support.plane import ODD_ENTRIES, ControlPlane, listing

LABELS = {"run": "7"}


def ago(**span: float) -> str:
    return (datetime.now(UTC) - timedelta(**span)).isoformat()


def plane_with(*sessions: dict[str, Any]) -> ControlPlane:
    plane = ControlPlane()
    plane.sessions = {each["id"]: each for each in sessions}
    return plane


async def test_every_live_session_with_all_the_labels_is_torn_down_and_no_other():
    plane = plane_with(
        session("s-1", "running", labels={"run": "7", "more": "x"}),
        session("s-2", "succeeded", labels={"run": "7"}),
        session("s-3", "torn_down", labels={"run": "7"}),
        session("s-4", "running", labels={"run": "8"}),
        session("s-5", "running"),
        *(session(f"s-{number}", "running", labels=LABELS) for number in range(10, 40)),
    )
    with anyio.fail_after(PATIENCE_SECONDS):
        async with plane.serve(), EnclaveClient(plane.base_url) as client:
            dry = await client.sweep(labels=LABELS, dry_run=True)
            assert plane.deleted == []
            done = await client.sweep(labels=LABELS)
    wanted = {"s-1", "s-2", *(f"s-{number}" for number in range(10, 40))}
    assert set(dry.swept) == set(done.swept) == set(plane.deleted) == wanted
    assert dry.failed == done.failed == {}
    assert set(plane.sessions) == {"s-3", "s-4", "s-5"}


@pytest.mark.parametrize("odd", ODD_ENTRIES.values(), ids=ODD_ENTRIES)
async def test_odd_entries_of_the_list_hide_no_session(odd: bytes):
    plane = plane_with(session("s-1", "running", labels=LABELS | {"number": 5}))
    plane.route("GET", "/sessions", listing(plane, odd))
    with anyio.fail_after(PATIENCE_SECONDS):
        async with plane.serve(), EnclaveClient(plane.base_url) as client:
            done = await client.sweep(labels=LABELS)
    assert (done.swept, done.failed) == (["s-1"], {})
    assert plane.deleted == ["s-1"]


async def test_single_failures_are_told_and_stop_nothing():
    plane = plane_with(*(session(f"s-{number}", "running", labels=LABELS) for number in range(5)))
    plane.route("DELETE", "/sessions/s-2", response({"message": "stuck"}, 500))
    plane.route("DELETE", "/sessions/s-3", response({}, 409))  # gone already, as the next request says
    plane.route("GET", "/sessions/s-3", response(session("s-3", "torn_down")))
    plane.route("DELETE", "/sessions/s-4", response({}, 404))  # and this one is not gone
    with anyio.fail_after(PATIENCE_SECONDS):
        async with plane.serve(), EnclaveClient(plane.base_url, retry=None) as client:
            done = await client.sweep(labels=LABELS)
    assert set(done.swept) == {"s-0", "s-1", "s-3"}
    assert set(done.failed) == {"s-2", "s-4"}
    assert isinstance(done.failed["s-2"], ServerError)


@pytest.mark.parametrize("age", [3600, 3600.0, timedelta(hours=1)])
async def test_only_sessions_that_are_known_to_be_old_enough_are_torn_down(age: float | timedelta):
    plane = plane_with(
        session("s-1", "running", labels=LABELS, createdAt=ago(hours=2)),
        session("s-2", "running", labels=LABELS, createdAt=ago(minutes=2)),
        session("s-3", "running", labels=LABELS),
        session("s-4", "running", labels=LABELS, createdAt=5),
    )
    with anyio.fail_after(PATIENCE_SECONDS):
        async with plane.serve(), EnclaveClient(plane.base_url) as client:
            assert (await client.sweep(labels=LABELS, older_than=age)).swept == ["s-1"]


@pytest.mark.parametrize(
    ("arguments", "error", "names"),
    [
        ({"labels": {}}, ValueError, "labels"),
        ({"labels": None}, TypeError, "labels"),
        ({"labels": "a=b"}, TypeError, "labels"),
        ({"labels": {"n": 1}}, TypeError, "labels"),
        ({"labels": LABELS, "older_than": -1}, ValueError, "older_than"),
        ({"labels": LABELS, "older_than": float("nan")}, ValueError, "older_than"),
        ({"labels": LABELS, "older_than": True}, TypeError, "older_than"),
        ({"labels": LABELS, "older_than": "1h"}, TypeError, "older_than"),
    ],
)
async def test_an_argument_that_cannot_be_used_is_refused_before_anything_is_sent(arguments, error, names):
    async with ControlPlane().serve() as plane, EnclaveClient(plane.base_url) as client:
        with pytest.raises(error, match=names):
            await client.sweep(**arguments)
    assert plane.requests == []


class Stop(BaseException):
    """What no `except Exception` takes, as Ctrl-C."""


@pytest.mark.parametrize("sessions", [1, 3])
async def test_what_ends_a_sweep_comes_out_plain_and_shows_no_group(sessions: int):
    plane = plane_with(*(session(f"s-{number}", "running", labels=LABELS) for number in range(sessions)))
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if calls > 1:  # the first one is for the list
            raise Stop
        return "a-token"

    with anyio.fail_after(PATIENCE_SECONDS):
        async with plane.serve(), EnclaveClient(plane.base_url, token=token) as client:
            with pytest.raises(Stop) as caught:
                await client.sweep(labels=LABELS)
    assert "Group" not in "".join(traceback.format_exception(caught.value))
