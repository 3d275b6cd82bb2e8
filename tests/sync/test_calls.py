"""What the calls of a blocking client give and raise, from one thread and from many."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import httpx
import msgspec
import pytest

from enclave import (
    ConfigurationError,
    EnclaveClient,
    EndFrame,
    FrameStream,
    NotFoundError,
    Observer,
    RequestObservation,
    SessionHandle,
    SessionObservation,
    SessionPhase,
    StdoutFrame,
    SyncEnclaveClient,
    SyncFrameStream,
    SyncSessionHandle,
    UsageError,
)
from enclave.simulator import SyncSimulator
from tests.support import PATIENCE_SECONDS


class Answer(msgspec.Struct):
    answer: int


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
    for iterate in (iter, next, SyncFrameStream.batches):
        with pytest.raises(UsageError, match="Iterate inside its with block"):
            iterate(stream)


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
        assert started.wait(PATIENCE_SECONDS)
        stream.cancel()
        assert reading.result(PATIENCE_SECONDS) > 0


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
    for named, sent in (("an EnclaveClient", other), ("a SyncEnclaveClient", client)):
        with pytest.raises(TypeError, match=rf"^{named} cannot be pickled. Send its arguments.*ENCLAVE_API_KEY"):
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
