"""What the calls of a blocking client give and raise, from one thread and from many."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import httpx
import msgspec
import pytest

from enclave import (
    Completed,
    ConfigurationError,
    EnclaveClient,
    EndFrame,
    Errored,
    FrameStream,
    NotFoundError,
    Observer,
    RequestObservation,
    ResultTypeError,
    SessionHandle,
    SessionObservation,
    SessionPhase,
    StdoutFrame,
    SyncEnclaveClient,
    SyncFrameStream,
    SyncSessionHandle,
    UsageError,
    Verdict,
)
from enclave.simulator import SyncSimulator

SECONDS = 20.0


class Answer(msgspec.Struct):
    answer: int


def enclave_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "enclave"]


def test_a_session_is_torn_down_when_its_block_is_left(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    simulator.script([StdoutFrame("hello")], result={"answer": 42})
    with client.session("x", labels={"a": "b"}) as session:
        assert isinstance(session, SyncSessionHandle)
        assert session.result(Answer).value == Answer(42)
        assert session.phase == SessionPhase.SUCCEEDED
        assert session.last_seen is not None
        assert session.last_seen.labels["a"] == "b"
    assert simulator.phases == {session.id: "torn_down"}
    assert client.get(session.id).phase == SessionPhase.TORN_DOWN


def test_a_session_is_torn_down_when_its_block_raises(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    simulator.script(hold=True)
    with pytest.raises(KeyError, match="mine"), client.session("x"):
        raise KeyError("mine")
    assert set(simulator.phases.values()) == {"torn_down"}


def test_what_goes_wrong_with_a_teardown_is_raised_or_noted(simulator: SyncSimulator) -> None:
    with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key, retry=None) as client:
        for _ in range(2):
            simulator.faults.respond(500, method="DELETE")
        with pytest.raises(KeyError) as raised, client.session("x"):
            raise KeyError("mine")
        assert "failed as well" in raised.value.__notes__[0]
        with pytest.raises(Exception, match="500"), client.session("x"):
            pass


def test_every_call_gives_what_the_async_one_gives(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    simulator.script([StdoutFrame("hello")], result=1)
    session = client.run("x", labels={"job": "nightly"})
    assert client.result(session.id, int).value == 1
    assert client.attach(session.id).refresh().id == session.id
    assert [one.id for one in client.list()] == [session.id]
    assert client.audit(session.id) == session.audit()
    assert client.health().ok
    assert client.request("get", "/healthz")["ok"] is True
    assert client.sweep(labels={"job": "nightly"}, dry_run=True).swept == [session.id]
    client.teardown(session.id)
    session.teardown()
    with pytest.raises(NotFoundError):
        client.get("s-none")


def test_a_streams_frames_come_in_order_singly_or_in_batches(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    lines = [StdoutFrame(f"{number}\n") for number in range(500)]
    simulator.script(lines)
    session = client.run("x")
    frames = list(session.stream())
    assert [frame.data for frame in frames if isinstance(frame, StdoutFrame)] == [line.data for line in lines]
    assert isinstance(frames[-1], EndFrame)
    batches = list(client.stream(session.id).batches())
    assert [frame for batch in batches for frame in batch] == frames
    with client.stream(session.id) as stream:
        first = next(stream)
        rest = [frame for batch in stream.batches() for frame in batch]
        assert [first, *rest] == frames
        assert list(stream) == []
        assert stream.resumes == 0
    with client.stream(session.id) as stream:
        assert next(stream) == frames[0]
    with pytest.raises(UsageError, match="Iterate inside its with block"):
        next(stream)


def test_a_stream_that_was_not_found_raises_where_the_loop_begins(client: SyncEnclaveClient) -> None:
    with pytest.raises(NotFoundError):
        for _ in client.stream("s-none"):
            pass


def test_an_iterator_that_was_left_early_is_closed(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    simulator.script([StdoutFrame("hello")], hold=True)
    session = client.run("x")
    for frame in session.stream():
        if isinstance(frame, StdoutFrame):
            break
    simulator.wait_until(lambda simulator: simulator.open_streams == 0)
    stream = session.stream()
    assert next(iter(stream))
    del stream
    gc.collect()
    simulator.wait_until(lambda simulator: simulator.open_streams == 0)


def test_a_stream_can_be_gone_on_with_after_a_break(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    simulator.script([StdoutFrame("1"), StdoutFrame("2"), StdoutFrame("3")])
    stream = client.run("x").stream()
    seen: list[str] = []
    for _ in range(20):
        for frame in stream:
            if isinstance(frame, StdoutFrame):
                seen.append(frame.data)
            break
    assert seen == ["1", "2", "3"]
    with pytest.raises(StopIteration):
        next(stream)


def test_a_stream_is_cancelled_from_another_thread(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    simulator.script([StdoutFrame("hello")], hold=True)
    with client.session("x") as session, session.stream() as stream, ThreadPoolExecutor() as pool:
        started = threading.Event()

        def read() -> int:
            count = 0
            for frame in stream:
                count += 1
                if isinstance(frame, StdoutFrame):
                    started.set()
            return count

        reading = pool.submit(read)
        assert started.wait(SECONDS)
        stream.cancel()
        assert reading.result(SECONDS) > 0


def test_a_fan_out_gives_outcomes_with_their_verdicts(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for code in range(3):
        simulator.script(result=code, exit_code=code)
    outcomes = list(client.fan_out(["a", "b", "c"], max_concurrency=1, type=int))
    assert [outcome.verdict for outcome in outcomes] == [Verdict.SUCCEEDED, Verdict.FAILED, Verdict.FAILED]
    assert set(simulator.phases.values()) == {"torn_down"}
    simulator.script(result="text")
    (outcome,) = client.map(["a"], type=int)
    assert isinstance(outcome, Errored)
    assert isinstance(outcome.error, ResultTypeError)


def test_a_map_gives_outcomes_in_the_order_of_the_input(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    held = simulator.script(result=0, hold=True)
    simulator.script(result=1)
    outcomes: list[Any] = []
    mapping = threading.Thread(target=lambda: outcomes.extend(client.map(["a", "b"], type=int)))
    mapping.start()
    simulator.wait_until(lambda simulator: "torn_down" in simulator.phases.values())
    held.release()
    mapping.join(SECONDS)
    assert [outcome.index for outcome in outcomes] == [0, 1]


def test_a_fan_out_that_was_left_early_tears_its_sessions_down(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    simulator.script(result=1)
    for _ in range(3):
        simulator.script(hold=True)
    for outcome in client.fan_out(["x"] * 4, max_concurrency=4):
        assert isinstance(outcome, Completed)
        break
    simulator.wait_until(lambda simulator: set(simulator.phases.values()) == {"torn_down"})


def test_requests_are_taken_in_the_thread_that_waits_and_no_earlier_than_needed(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    database = sqlite3.connect(":memory:")  # which refuses any other thread
    database.execute("create table programs (code text)")
    database.executemany("insert into programs values (?)", [(f"{number}",) for number in range(6)])
    taken: list[int] = []

    def programs() -> Iterator[str]:
        for number, (code,) in enumerate(database.execute("select code from programs order by rowid")):
            client.health()  # the client itself may be used in between
            taken.append(number)
            yield code

    seen = 0
    for _ in range(6):
        simulator.script(result=1)
    with client.fan_out(programs(), max_concurrency=2) as outcomes:
        for _ in outcomes:
            seen += 1
            assert len(taken) <= seen + 2
    assert seen == 6
    database.close()


def test_the_next_session_runs_while_the_body_is_at_work(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for _ in range(3):
        simulator.script(result=1)
    outcomes = iter(client.fan_out(iter(["a", "b", "c"]), max_concurrency=1))
    next(outcomes)
    simulator.wait_until(lambda simulator: len(simulator.phases) == 2)
    assert len(list(outcomes)) == 2


def test_an_input_that_fails_is_raised_after_the_last_outcome(
    simulator: SyncSimulator, client: SyncEnclaveClient
) -> None:
    def programs() -> Iterator[str]:
        yield "a"
        raise KeyError("no more")

    simulator.script(result=1)
    seen = []
    with pytest.raises(KeyError, match="no more"):
        for outcome in client.fan_out(programs()):
            seen.append(outcome)  # noqa: PERF402 - `extend` may take what came before an error, or not
    assert len(seen) == 1


@pytest.mark.parametrize("in_block", [True, False])
def test_an_input_is_closed_with_its_fan_out(
    simulator: SyncSimulator, client: SyncEnclaveClient, in_block: bool
) -> None:
    closed = threading.Event()

    def programs() -> Iterator[str]:
        try:
            while True:
                yield "a"
        finally:
            closed.set()

    source = programs()
    for _ in range(2):
        simulator.script(result=1)
    if in_block:
        with client.fan_out(source, max_concurrency=1) as outcomes:
            next(outcomes)
        assert closed.is_set()
    with pytest.raises(TypeError, match="requests"):
        client.fan_out("source text")
    source.close()


def test_two_threads_may_share_a_fan_out(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    for _ in range(10):
        simulator.script(result=1)
    with client.fan_out((f"{n}" for n in range(10)), max_concurrency=3) as outcomes, ThreadPoolExecutor() as pool:
        halves = [pool.submit(lambda: [outcome.index for outcome in outcomes]) for _ in range(2)]
        assert sorted(index for half in halves for index in half.result(SECONDS)) == list(range(10))


def test_many_threads_share_a_client_and_its_one_thread(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    before = len(enclave_threads())
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: client.health().ok, range(200)))
        assert len(enclave_threads()) == before + 1


def test_there_is_no_thread_before_the_first_call_and_none_after_the_last(simulator: SyncSimulator) -> None:
    before = enclave_threads()
    with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as client:
        client.attach("s-1")
        client.session("x")
        client.fan_out(["x"])
        assert enclave_threads() == before
        client.health()
        assert len(enclave_threads()) == len(before) + 1
    assert enclave_threads() == before


def test_a_client_that_was_forgotten_ends_its_thread(simulator: SyncSimulator) -> None:
    client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)
    client.health()
    thread = enclave_threads()[-1]
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_a_stream_outlives_the_name_of_its_client(simulator: SyncSimulator) -> None:
    simulator.script([StdoutFrame("hello")])
    session_id = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key).run("x").id
    frames = list(SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key).stream(session_id))
    assert isinstance(frames[-1], EndFrame)


def test_closing_a_client_leaves_what_is_open(simulator: SyncSimulator) -> None:
    client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)
    simulator.script(hold=True)
    block = client.session("x")
    session = block.__enter__()
    stream = session.stream()
    next(iter(stream))
    client.close()
    client.close()
    assert simulator.phases == {session.id: "torn_down"}
    assert simulator.open_streams == 0
    block.__exit__(None, None, None)
    for late in (client.health, session.refresh, lambda: client.run("x"), client.__enter__):
        with pytest.raises(UsageError, match="this SyncEnclaveClient is closed"):
            late()
    assert "closed" in repr(client)


def test_a_call_that_a_closing_client_cuts_off_is_told_so(simulator: SyncSimulator) -> None:
    client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)
    simulator.script(hold=True)
    session = client.run("x")
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            session.result()
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    simulator.wait_until(lambda simulator: simulator.open_streams == 1)
    client.close()
    waiting.join(SECONDS)
    assert [type(error) for error in errors] == [UsageError]
    assert "closed" in str(errors[0])


def test_options_share_the_connections_and_the_thread(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    client.health()
    before = len(enclave_threads())
    other = client.with_options(timeout=5)
    assert isinstance(other, SyncEnclaveClient)
    assert other.health().ok
    assert len(enclave_threads()) == before


def test_the_wrong_form_is_answered_with_the_right_one(client: SyncEnclaveClient) -> None:
    block: Any = client.session("x")
    with pytest.raises(UsageError, match=r"Write: with enclave\.session\(\.\.\.\) as session: \.\.\., or enclave\.run"):
        block.result()
    with pytest.raises(UsageError, match=r"with enclave\.session"):
        list(block)
    with pytest.raises(AttributeError):
        _ = block.nothing
    with pytest.raises(TypeError, match="langauge"):
        client.run("x", langauge="node")  # type: ignore[call-arg]


def test_a_call_within_a_running_loop_works(client: SyncEnclaveClient) -> None:
    async def view() -> bool:
        return client.health().ok

    assert asyncio.run(view())


def test_a_call_on_the_clients_own_loop_is_refused(simulator: SyncSimulator) -> None:
    clients: list[SyncEnclaveClient] = []

    async def token() -> str:
        return str(clients[0].health())

    with SyncEnclaveClient(simulator.base_url, token=token) as client:
        clients.append(client)
        with pytest.raises(UsageError, match="would wait for itself"):
            client.list()
        assert client.health().ok


def test_a_transport_of_the_callers_is_used_and_closed() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(200, json={"ok": True})

    with SyncEnclaveClient("https://control.test", api_key="ek_a_b", transport=httpx.MockTransport(answer)) as client:
        assert client.health().ok
    assert seen == ["/healthz"]


def test_context_variables_reach_an_observer_and_come_back(simulator: SyncSimulator) -> None:
    span = ContextVar("span", default="none")
    seen: list[str] = []

    class Session(SessionObservation):
        def __init__(self, before: str) -> None:
            self._before = before
            span.set("session")

        def ended(self, error: BaseException | None, *, torn_down: bool) -> None:
            span.set(self._before)

    class Noting(Observer):
        def request(self, method: str, route: str, *, url: str, session_id: str | None) -> RequestObservation:
            seen.append(f"{method} in {span.get()}")
            return RequestObservation()

        def session(self, request: Any) -> SessionObservation:
            return Session(span.get())

    span.set("view")
    with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key, observer=Noting()) as client:
        client.health()
        with client.session("x") as session:
            assert span.get() == "session"
            session.refresh()
        assert span.get() == "view"
    assert seen == ["GET in view", "POST in session", "GET in session", "DELETE in session"]


def test_a_client_and_a_handle_say_what_to_send_instead_of_a_pickle(client: SyncEnclaveClient) -> None:
    other = EnclaveClient("http://127.0.0.1:1", api_key="ek_a_b")
    for cls, sent in ((EnclaveClient, other), (SyncEnclaveClient, client)):
        with pytest.raises(
            TypeError, match=rf"an? {cls.__name__} cannot be pickled. Send its arguments.*ENCLAVE_API_KEY"
        ):
            pickle.dumps(sent)
        with pytest.raises(TypeError, match="cannot be pickled"):
            copy.deepcopy(sent)
    for handle_cls, handle in ((SessionHandle, other.attach("s")), (SyncSessionHandle, client.attach("s"))):
        with pytest.raises(TypeError, match=rf"{handle_cls.__name__} cannot be pickled. Send its id"):
            pickle.dumps(handle)
    for stream_cls, stream in ((FrameStream, other.stream("s")), (SyncFrameStream, client.stream("s"))):
        with pytest.raises(TypeError, match="cannot"):
            pickle.dumps(stream)
        assert stream_cls.__name__ in repr(stream)


def test_a_secret_shows_in_no_frame_of_a_failed_client() -> None:
    with pytest.raises(ConfigurationError) as raised:
        SyncEnclaveClient("no-url", api_key="ek_hidden_key")
    frame = raised.value.__traceback__
    shown = ""
    while frame is not None:
        if "enclave" in frame.tb_frame.f_code.co_filename.rpartition("/tests/")[2]:
            shown += repr(frame.tb_frame.f_locals)
        frame = frame.tb_next
    assert "ek_hidden_key" not in shown


def test_an_abandoned_block_that_cannot_be_torn_down_is_logged(
    simulator: SyncSimulator, caplog: pytest.LogCaptureFixture
) -> None:
    client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key, retry=None)
    simulator.script(hold=True)
    block = client.session("x")
    block.__enter__()
    simulator.faults.respond(500, method="DELETE")
    with caplog.at_level(logging.WARNING, "enclave"):
        client.close()
    assert "500" in caplog.text
