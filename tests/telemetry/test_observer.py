"""`Observer`: what it hears, that it cannot break what it observes, and that it needs no library."""

from __future__ import annotations

import itertools
import logging
import subprocess
import sys
import traceback
from contextvars import ContextVar

import anyio
import httpx
import pytest

from enclave import (
    ConfigurationError,
    EnclaveClient,
    NotFoundError,
    Observer,
    RequestObservation,
    ResultTypeError,
    SessionObservation,
    StdoutFrame,
    StreamObservation,
    UsageError,
)
from tests.support import PATIENCE_SECONDS
from tests.support.recorder import STREAM, Recorder, client_of
from tests.support.scripted_transport import ScriptedTransport


async def test_a_session_its_stream_and_its_requests_are_told_in_order(sim):
    recorder = Recorder()
    sim.script([StdoutFrame("a")], result=1)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, recorder) as client, client.session("x = 1") as session:
            assert (await session.result(int)).value == 1
            await session.refresh()
    url = f"{sim.base_url}/sessions"
    frames = recorder.of("stream")[-1][2]
    assert frames >= 4  # phase, stdout, phase, result and maybe end
    assert recorder.heard == [
        ("session", "x = 1"),
        ("request", "POST", "/sessions", url, None),
        ("request.answered", 201),
        ("request.ended", None),
        ("session.seen", session.id),
        ("stream", session.id),
        ("request", "GET", "/sessions/{id}/stream", f"{url}/{session.id}/stream", session.id),
        ("request.answered", 200),
        ("request.ended", None),
        recorder.of("stream")[-1],
        ("request", "GET", "/sessions/{id}/result", f"{url}/{session.id}/result", session.id),
        ("request.answered", 200),
        ("request.ended", None),
        ("session.finished", 0),
        ("request", "GET", "/sessions/{id}", f"{url}/{session.id}", session.id),
        ("request.answered", 200),
        ("request.ended", None),
        ("session.seen", session.id),
        ("request", "DELETE", "/sessions/{id}", f"{url}/{session.id}", session.id),
        ("request.answered", 204),
        ("request.ended", None),
        ("session.ended", None, True),
    ]


async def test_retries_and_what_a_request_ends_with_are_told(sim):
    recorder = Recorder()
    async with client_of(sim, recorder) as client:
        sim.faults.respond(503, times=2)
        await client.list()
        with pytest.raises(NotFoundError):
            await client.get("s-none")
    assert recorder.heard[1:] == [
        ("request.answered", 503),
        ("request.retrying", "ServiceUnavailableError", 1, 0.0),
        ("request.answered", 503),
        ("request.retrying", "ServiceUnavailableError", 2, 0.0),
        ("request.answered", 200),
        ("request.ended", None),
        ("request", "GET", "/sessions/{id}", f"{sim.base_url}/sessions/s-none", "s-none"),
        ("request.answered", 404),
        ("request.ended", "NotFoundError"),
    ]


async def test_a_result_of_another_type_still_tells_how_the_workload_ended(sim):
    recorder = Recorder()
    sim.script(result="text")
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, recorder) as client:
            with pytest.raises(ResultTypeError):
                async with client.session("x") as session:
                    await session.result(int)
    assert recorder.of("session")[-2:] == [("session.finished", 0), ("session.ended", "ResultTypeError", True)]


async def test_views_with_other_options_keep_the_observer_and_handles_of_run_have_no_session(sim):
    recorder = Recorder()
    sim.script(result=1)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, recorder) as client:
            handle = await client.with_options(timeout=5).run("x")
            await handle.result()
            await handle.teardown()
    assert recorder.of("request")[0][1:3] == ("POST", "/sessions")
    assert recorder.of("stream")
    assert not recorder.of("session")


async def test_a_base_url_with_a_path_and_an_id_that_needs_quoting(keeper):
    recorder = Recorder()
    async with EnclaveClient(f"{keeper.base_url}/v1/", retry=None, observer=recorder) as client:
        await client.audit("a/b é")
    assert recorder.heard[0] == (
        "request",
        "GET",
        "/v1/sessions/{id}/audit",
        f"{keeper.base_url}/v1/sessions/a%2Fb%20%C3%A9/audit",
        "a/b é",
    )


async def test_a_call_on_a_closed_client_is_told_with_its_error(keeper):
    recorder = Recorder()
    async with EnclaveClient(keeper.base_url, observer=recorder) as client:
        pass
    with pytest.raises(UsageError):
        await client.list()
    assert recorder.heard[-1] == ("request.ended", "UsageError")


async def test_context_variables_that_an_observation_sets_are_seen_where_the_interface_says(sim):
    where: ContextVar[str] = ContextVar("where", default="outside")
    seen: list[tuple[str, str]] = []

    class Binding(Observer):
        def session(self, request):
            where.set("session")

        def stream(self, session_id):
            where.set("stream")

        def request(self, method, route, *, url, session_id):
            seen.append((f"{method} {route}", where.get()))

    sim.script([StdoutFrame("a")], result=1)
    sim.faults.drop_stream(after_frames=1)
    with anyio.fail_after(PATIENCE_SECONDS):
        async with client_of(sim, Binding()) as client, client.session("x") as session:
            await session.result()
            assert where.get() == "session"
    assert seen == [
        ("POST /sessions", "session"),
        ("GET /sessions/{id}/stream", "stream"),
        ("GET /sessions/{id}/stream", "stream"),
        ("GET /sessions/{id}/result", "session"),
        ("DELETE /sessions/{id}", "session"),
    ]


# An observer that fails


METHODS = [
    *("request", "stream", "session"),
    *("request.headers", "request.answered", "request.retrying", "request.ended"),
    *("stream.retrying", "stream.resuming", "stream.ended"),
    *("session.seen", "session.finished", "session.ended"),
]


def broken(method: str) -> tuple[Observer, list[str]]:
    """An observer whose one method raises, and the log of the calls of it."""
    calls: list[str] = []

    def fail(*_, **__):
        calls.append(method)
        raise RuntimeError("the observer is broken")

    kind, _, name = method.partition(".")
    recorder = Recorder()
    if not name:
        setattr(recorder, kind, fail)
        return recorder, calls
    begin = getattr(recorder, kind)

    def begin_broken(*arguments, **keywords):
        observation = begin(*arguments, **keywords)
        setattr(observation, name, fail)
        return observation

    setattr(recorder, kind, begin_broken)
    return recorder, calls


@pytest.mark.parametrize("method", METHODS)
async def test_an_observer_that_raises_breaks_no_call_and_is_not_passed_over_in_silence(sim, caplog, method):
    observer, calls = broken(method)
    with anyio.fail_after(PATIENCE_SECONDS), caplog.at_level(logging.DEBUG, "enclave"):
        async with client_of(sim, observer) as client:
            for _ in range(2):
                sim.script([StdoutFrame("a"), StdoutFrame("b")], result=1)
                sim.faults.respond(503, path=STREAM)
                sim.faults.respond(503, method="POST")
                sim.faults.drop_stream(after_frames=1)
                async with client.session("x") as session:
                    assert (await session.result(int)).value == 1
        assert sim.unreclaimed_sessions == 0
    logged = [record for record in caplog.records if record.getMessage().startswith("observer: ")]
    assert len(logged) == len(calls) >= 2
    assert [record.levelname for record in logged] == ["WARNING"] + ["DEBUG"] * (len(calls) - 1)
    assert all(record.exc_info[0] is RuntimeError for record in logged)


async def test_an_observer_does_not_swallow_what_is_not_an_exception(keeper):
    class Stop(BaseException):
        pass

    class Stopping(Observer):
        def request(self, *_, **__):
            raise Stop

    async with EnclaveClient(keeper.base_url, observer=Stopping()) as client:
        with pytest.raises(Stop):
            await client.list()


async def test_what_observers_and_observations_do_by_default_is_nothing(sim):
    class Plain(Observer):
        def request(self, *_, **__):
            return RequestObservation()

        def stream(self, *_):
            return StreamObservation()

        def session(self, *_):
            return SessionObservation()

    with anyio.fail_after(PATIENCE_SECONDS):
        for observer in (Observer(), Plain()):
            sim.script([StdoutFrame("a"), StdoutFrame("b")], result=1)
            sim.faults.respond(503, path=STREAM)
            sim.faults.drop_stream(after_frames=1)
            async with client_of(sim, observer) as client, client.session("x") as session:
                assert (await session.result(int)).value == 1


@pytest.mark.parametrize("observer", [Observer, Recorder, "otel", object()])
def test_what_is_no_observer_is_refused_at_once(observer):
    with pytest.raises(ConfigurationError, match=r"observer: expected an instance"):
        EnclaveClient("http://127.0.0.1:1", observer=observer)


# Headers of an observer's


async def test_headers_of_an_observer_go_along_and_none_of_the_clients_is_replaced(keeper, caplog):
    added = {
        "traceparent": "00-1-2-01",
        "X-Tag": "a\tb c",
        "Authorization": "Bearer stolen",
        "ACCEPT": "text/html",
        "Content-Length": "7",
        "Transfer-Encoding": "chunked",
        "Host": "elsewhere",
    }
    async with EnclaveClient(keeper.base_url, api_key="ek_a_b", observer=Recorder(added)) as client:
        await client.list()
    (request,) = keeper.requests
    assert request.values("traceparent") == ["00-1-2-01"]
    assert request.values("x-tag") == ["a\tb c"]
    assert request.values("authorization") == ["Bearer ek_a_b"]
    assert request.values("accept") == ["application/json"]
    assert request.values("host") == [keeper.base_url.removeprefix("http://")]
    assert not request.headers.keys() & {"content-length", "transfer-encoding"}
    assert sum("for the SDK to send" in record.getMessage() for record in caplog.records) == 5
    assert "stolen" not in caplog.text


@pytest.mark.parametrize(
    "added",
    [
        {"a b": "1"},
        {"": "1"},
        {"né": "1"},
        {"x-a": "1\r\nx-evil: 1"},
        {"x-a": "1\n"},
        {"x-a": "é"},
        {"x-a": ""},
        {"x-a": "\x00"},
        {"x-a": " 1"},
        {"x-a": "y" * 20_000},
        {"x-a": 5},
        {5: "x"},
        ["x-a"],
    ],
    ids=lambda added: f"{added!r:.20}",
)
async def test_a_header_that_cannot_be_sent_is_left_out_and_told(keeper, caplog, added):
    async with EnclaveClient(keeper.base_url, observer=Recorder(added)) as client:
        assert await client.list() == []
    (request,) = keeper.requests
    assert not request.headers.keys() & {"x-a", "x-evil", "a b"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# Without any library


def run(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_observer_needs_no_opentelemetry_and_the_extra_says_what_is_missing():
    program = """
import sys
sys.modules["opentelemetry"] = None  # importing it fails, as where it is not installed
import anyio, enclave

class Names(enclave.Observer):
    def request(self, method, route, *, url, session_id):
        print(method, route)

async def main():
    async with enclave.EnclaveClient("http://127.0.0.1:1", retry=None, observer=Names()) as client:
        try:
            await client.list()
        except enclave.ConnectError:
            print("refused")

anyio.run(main)
try:
    import enclave.opentelemetry
except ModuleNotFoundError as error:
    print(error)
"""
    assert run(program) == (
        "GET /sessions\nrefused\nenclave.opentelemetry needs an extra: pip install 'enclave-sdk[otel]'\n"
    )


def test_importing_and_using_the_client_imports_no_opentelemetry():
    program = "import sys, enclave; enclave.EnclaveClient('http://127.0.0.1:1', observer=enclave.Observer()); "
    program += "print([name for name in sys.modules if 'opentelemetry' in name])"
    assert run(program) == "[]\n"


async def test_an_observer_that_breaks_in_ever_new_ways_is_warned_of_a_hundred_times(caplog):
    class Broken(Observer):
        def request(self, *arguments, **keywords):
            raise type(f"Fault{next(numbers)}Error", (Exception,), {})

    numbers = itertools.count()
    transport = ScriptedTransport(httpx.Response(200, json=[]))
    caplog.set_level(logging.DEBUG, "enclave")
    async with EnclaveClient("http://127.0.0.1:1", transport=transport, observer=Broken()) as client:
        for _ in range(105):
            assert await client.list() == []
    told = [record.levelname for record in caplog.records if "observer: " in record.message]
    assert told == ["WARNING"] * 100 + ["DEBUG"] * 5


async def test_the_credential_shows_nowhere_in_the_traceback_of_a_broken_observer(keeper, caplog):
    observer, _ = broken("request.headers")
    async with EnclaveClient(keeper.base_url, api_key="ek_id_verysecret", observer=observer) as client:
        await client.list()
    (record,) = caplog.records
    shown = traceback.TracebackException(*record.exc_info, capture_locals=True)
    assert "verysecret" not in "".join(shown.format())
