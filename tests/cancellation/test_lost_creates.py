"""A create whose answer is lost: its session is found by a label, and adopted, or torn down where nobody wants it."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import httpx
import pytest
import trio.testing

from enclave import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    ConfigurationError,
    CreateSessionRequest,
    EnclaveClient,
    MalformedResponseError,
    RetryPolicy,
    ServerError,
    Timeout,
)
from tests.support import PATIENCE_SECONDS
from tests.support.messages import response, session
from tests.support.plane import ODD_ENTRIES, Answer, ControlPlane, Request, listing
from tests.support.ways import Moment, running_ways

pytestmark = pytest.mark.anyio

LABEL = "enclave-sdk.create"
QUICK = RetryPolicy(attempts=2, wait_seconds=0)


def labels_sent(plane: ControlPlane) -> list[dict[str, str]]:
    return [request.json.get("labels", {}) for request in plane.requests if request.method == "POST"]


def losing(plane: ControlPlane, how: str) -> Answer:
    """Carry the request out, and lose the answer."""

    async def answer(request: Request) -> None:
        plane.perform(request)
        match how:
            case "reset":
                await request.reset()
            case "hang up":
                await request.close()
            case "silence":
                await request.gone()
            case "half":
                await request.send(response(session("s-1"), 201)[:-10])
                await request.close()
            case "502" | "504":
                await request.send(response({"message": "upstream"}, int(how)))
            case "no id":
                await request.send(response({"phase": "pending"}, 201))
            case "number":
                await request.send(response({"id": 7}, 201))
            case "wrapped":
                await request.send(response({"session": session("s-1")}, 201))
            case "dots":
                await request.send(response(session(".."), 201))
            case "no JSON":
                await request.send(response(b"<html>", 201))
            case "empty":
                await request.send(response(b"", 201))

    return answer


WAYS_TO_LOSE = [
    *("reset", "hang up", "silence", "half", "502", "504"),
    *("no id", "number", "wrapped", "dots", "no JSON", "empty"),
]


@pytest.mark.parametrize("how", WAYS_TO_LOSE)
async def test_the_session_is_adopted_and_torn_down_by_its_block(how: str):
    async with ControlPlane().serve() as plane:
        plane.answers(losing(plane, how))
        client = EnclaveClient(plane.base_url, retry=QUICK, timeout=Timeout(read=0.2))
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client:
                async with client.session("x", labels={"a": "b"}) as handle:
                    assert handle.id == "s-1"
                    assert handle.last_seen.labels["a"] == "b"
                    assert set(plane.sessions) == {"s-1"}
                handle = await client.run("x")
                assert handle.id == "s-2"
                await handle.teardown()
    assert plane.created == 2
    assert plane.sessions == {}
    first, second = labels_sent(plane)
    assert first[LABEL] != second[LABEL]
    assert all(len(bytes.fromhex(labels[LABEL])) == 16 for labels in (first, second))


@pytest.mark.parametrize("odd", ODD_ENTRIES.values(), ids=ODD_ENTRIES)
async def test_odd_entries_of_the_list_do_not_hide_the_session(odd: bytes):
    async with ControlPlane().serve() as plane:
        plane.answers(losing(plane, "502"))
        plane.route("GET", "/sessions", listing(plane, odd))
        with anyio.fail_after(PATIENCE_SECONDS):
            async with EnclaveClient(plane.base_url, retry=QUICK) as client, client.session("x") as handle:
                assert handle.id == "s-1"
    assert plane.deleted == ["s-1"]


async def test_the_session_of_a_cancelled_caller_is_torn_down():
    for way, cancelled in running_ways().items():
        with ControlPlane().in_thread() as plane, anyio.fail_after(PATIENCE_SECONDS):
            plane.answers(losing(plane, "reset"))
            moment = Moment(plane.hold("GET seen"))
            async with EnclaveClient(plane.base_url, retry=QUICK) as client, anyio.create_task_group() as tasks:
                tasks.start_soon(moment.release_after)
                assert await cancelled(lambda client=client: client.run("x"), moment), way
                assert (plane.created, plane.sessions) == (1, {}), way


class Clocked(httpx.AsyncBaseTransport):
    """A server whose list shows a session only some seconds after its create was lost."""

    def __init__(self, *, shows_after: float, list_status: int = 200) -> None:
        self.shows_after = shows_after
        self.list_status = list_status
        self.creates: list[dict[str, str]] = []
        self.lists: list[float] = []
        self.lost_at = 0.0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        if request.method == "POST":
            self.creates.append(json.loads(request.content)["labels"])
            self.lost_at = anyio.current_time()
            raise httpx.ReadError("reset by peer")
        self.lists.append(anyio.current_time() - self.lost_at)
        shown = [{"id": "s-other", "labels": {LABEL: "another"}}, {"id": 5, "labels": None}, "odd", None]
        if self.lists[-1] >= self.shows_after:
            shown.append({"id": "s-1", "phase": "running", "labels": self.creates[-1], "createdAt": 5})
        return httpx.Response(self.list_status, json=shown)


def run_on_mock_clock(call: Any) -> Any:
    return trio.run(call, clock=trio.testing.MockClock(autojump_threshold=0))


def client_of(transport: httpx.AsyncBaseTransport, **options: Any) -> EnclaveClient:
    return EnclaveClient("http://127.0.0.1:1", transport=transport, **options)


def test_an_empty_list_proves_nothing_at_once():
    transport = Clocked(shows_after=4)

    async def run() -> None:
        async with client_of(transport) as client:
            assert (await client.run("x")).id == "s-1"

    run_on_mock_clock(run)
    assert len(transport.creates) == 1
    waits = [later - sooner for sooner, later in zip(transport.lists, transport.lists[1:], strict=False)]
    assert len(waits) >= 4
    assert waits[0] < waits[-1] <= 2


@pytest.mark.parametrize("list_status", [200, 500])
def test_a_session_that_does_not_show_up_is_an_error_that_names_its_label(list_status: int):
    transport = Clocked(shows_after=1e9, list_status=list_status)

    async def run() -> None:
        async with client_of(transport) as client:
            started = anyio.current_time()
            with pytest.raises(APIConnectionError, match="reset by peer") as caught:
                await client.run("x")
            assert caught.value.create_label == transport.creates[0][LABEL]
            assert f"{LABEL}={caught.value.create_label}" in str(caught.value)
            assert 5 < anyio.current_time() - started < 15

    run_on_mock_clock(run)
    assert len(transport.creates) == 1


@pytest.mark.parametrize("seconds", [0.5, 100])
def test_how_long_it_is_looked_for_is_a_setting(seconds: float):
    transport = Clocked(shows_after=1e9)

    async def run() -> None:
        async with client_of(transport, timeout=Timeout(recover_create=seconds)) as client:
            with pytest.raises(APIConnectionError, match="reset by peer"):
                await client.run("x")
            assert 0.9 * seconds < anyio.current_time() - transport.lost_at < 1.1 * seconds

    run_on_mock_clock(run)


def test_a_lost_create_is_sent_again_if_the_caller_says_so_and_the_list_has_shown_none():
    for list_status, creates in ((200, 3), (500, 1)):
        transport = Clocked(shows_after=1e9, list_status=list_status)

        async def run(transport: Clocked = transport) -> None:
            policy = RetryPolicy(attempts=3, retry_lost_creates=True)
            async with client_of(transport, retry=policy) as client:
                with pytest.raises(APIConnectionError, match="reset by peer"):
                    await client.run("x")

        run_on_mock_clock(run)
        assert len(transport.creates) == creates
        assert len({labels[LABEL] for labels in transport.creates}) == creates


def test_the_caller_who_goes_while_it_is_looked_for_is_told_in_the_log(caplog: pytest.LogCaptureFixture):
    transport = Clocked(shows_after=1e9)

    async def run() -> None:
        async with client_of(transport, timeout=Timeout(teardown=30)) as client:
            with anyio.move_on_after(2) as scope:
                await client.run("x")
            assert scope.cancelled_caught

    with caplog.at_level(logging.WARNING, logger="enclave"):
        run_on_mock_clock(run)
    (message,) = [record.getMessage() for record in caplog.records if record.name == "enclave"]
    assert f"{LABEL}={transport.creates[0][LABEL]}" in message


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("reset", APIConnectionError),
        ("silence", APITimeoutError),
        ("502", ServerError),
        ("no id", MalformedResponseError),
    ],
)
async def test_without_recovery_nothing_is_added_and_nothing_is_looked_for(how: str, error: type[Exception]):
    async with ControlPlane().serve() as plane:
        plane.answers(losing(plane, how))
        client = EnclaveClient(plane.base_url, retry=QUICK, timeout=Timeout(read=0.2), recover_creates=False)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client:
                with pytest.raises(error) as caught:
                    await client.run("x")
    assert caught.value.create_label is None
    assert [request.method for request in plane.requests] == ["POST"]
    assert plane.requests[0].json == {"code": "x"}


async def test_labels_of_the_client_go_on_every_session_and_a_requests_own_win():
    async with ControlPlane().serve() as plane:
        client = EnclaveClient(plane.base_url, labels={"team": "data", "env": "test"}, recover_creates=False)
        with anyio.fail_after(PATIENCE_SECONDS):
            async with client:
                await client.run("x")
                await client.run("x", labels={"env": "prod"})
                async with client.session(CreateSessionRequest(code="x", labels={"n": "1"})):
                    pass
                await client.with_options(retry=None).map(["x"])
    assert labels_sent(plane) == [
        {"team": "data", "env": "test"},
        {"team": "data", "env": "prod"},
        {"team": "data", "env": "test", "n": "1"},
        {"team": "data", "env": "test"},
    ]


async def test_labels_that_came_from_another_session_do_not_bring_its_create_label():
    async with ControlPlane().serve() as plane, EnclaveClient(plane.base_url) as client:
        with anyio.fail_after(PATIENCE_SECONDS):
            first = await client.run("x", labels={"a": "b"})
            plane.answers(losing(plane, "reset"))
            second = await client.run("x", labels=(await client.get(first.id)).labels)
    assert (first.id, second.id) == ("s-1", "s-2")


@pytest.mark.parametrize("options", [{"labels": {"n": 1}}, {"labels": ["a"]}, {"recover_creates": "no"}])
def test_options_that_cannot_be_used_show_when_the_client_is_made(options: dict[str, Any]):
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        EnclaveClient("http://127.0.0.1:1", **options)


async def test_a_server_that_refuses_the_label_gets_creates_without_it(caplog: pytest.LogCaptureFixture):
    async with ControlPlane().serve() as plane:

        async def strict(request: Request) -> None:
            if LABEL in request.json.get("labels", {}):
                await request.send(response({"message": f"body/labels must not have {LABEL}"}, 400))
            else:
                await request.send(plane.perform(request))

        plane.route("POST", "/sessions", strict)
        with anyio.fail_after(PATIENCE_SECONDS), caplog.at_level(logging.WARNING, logger="enclave"):
            async with EnclaveClient(plane.base_url, labels={"a": "b"}) as client:
                assert [(await client.run("x")).id for _ in range(2)] == ["s-1", "s-2"]
    assert [LABEL in labels for labels in labels_sent(plane)] == [True, False, False]
    assert all(labels["a"] == "b" for labels in labels_sent(plane))
    (message,) = [record.getMessage() for record in caplog.records if record.name == "enclave"]
    assert LABEL in message


async def test_a_server_that_refuses_the_callers_labels_says_so():
    async with ControlPlane().serve() as plane:
        plane.route("POST", "/sessions", response({"message": "labels: too many"}, 400))
        with anyio.fail_after(PATIENCE_SECONDS):
            async with EnclaveClient(plane.base_url, labels={"a": "b"}) as client:
                with pytest.raises(BadRequestError, match="too many"):
                    await client.run("x")
    assert [LABEL in labels for labels in labels_sent(plane)] == [True, False]


def test_a_cancelled_create_that_nobody_answers_is_looked_for_while_there_is_time():
    """Of the time that a cancelled create has, a third is kept for looking."""
    kept: dict[str, Any] = {}
    deleted: list[float] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            kept.update(session("s-1"), labels=json.loads(request.content)["labels"])
            await anyio.sleep_forever()
        if request.method == "DELETE":
            deleted.append(anyio.current_time())
            return httpx.Response(204)
        return httpx.Response(200, json=[kept])

    async def main() -> float:
        transport = httpx.MockTransport(handle)
        timeout = Timeout(read=None, teardown=9)
        async with EnclaveClient("http://127.0.0.1:1", transport=transport, timeout=timeout) as client:
            with anyio.move_on_after(1) as scope:
                async with client.session("x"):
                    pytest.fail("created")
            assert scope.cancelled_caught
        return scope.deadline

    clock = trio.testing.MockClock(autojump_threshold=0)
    cancelled_at = trio.run(main, clock=clock)
    assert deleted == [pytest.approx(cancelled_at + 6)]
