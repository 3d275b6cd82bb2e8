"""The thread of a blocking client: when it begins and ends, and who shares it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from enclave import (
    EndFrame,
    StdoutFrame,
    SyncEnclaveClient,
    UsageError,
)
from enclave.simulator import SyncSimulator
from tests.support import PATIENCE_SECONDS


def enclave_threads() -> set[threading.Thread]:
    """Also those of earlier tests, which may end at any time. So only those that are new since are counted."""
    return {thread for thread in threading.enumerate() if thread.name == "enclave"}


def test_many_threads_share_a_client_and_its_one_thread(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    before = enclave_threads()
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: client.health().ok, range(200)))
        assert len(enclave_threads() - before) == 1


def test_there_is_no_thread_before_the_first_call_and_none_after_the_last(simulator: SyncSimulator) -> None:
    before = enclave_threads()
    with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as client:
        client.attach("s-1")
        client.session("x")
        client.fan_out(["x"])
        assert enclave_threads() <= before
        client.health()
        assert len(enclave_threads() - before) == 1
    assert enclave_threads() <= before


def test_a_client_that_was_forgotten_ends_its_thread(simulator: SyncSimulator) -> None:
    before = enclave_threads()
    client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)
    client.health()
    (thread,) = enclave_threads() - before
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    thread.join(PATIENCE_SECONDS)
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
    simulator.wait_until(lambda simulator: simulator.open_streams == 0)  # the server closes its end a little later
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
    waiting.join(PATIENCE_SECONDS)
    assert [type(error) for error in errors] == [UsageError]
    assert "closed" in str(errors[0])


def test_a_block_that_is_being_entered_when_its_client_closes_is_told_so(simulator: SyncSimulator) -> None:
    client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)
    session = client.run("x")
    simulator.faults.delay(60, times=None)
    before = len(simulator.requests)
    errors: list[BaseException] = []

    def enter() -> None:
        try:
            session.stream().__enter__()
        except BaseException as error:  # noqa: BLE001 - looked at below
            errors.append(error)

    entering = threading.Thread(target=enter)
    entering.start()
    simulator.wait_until(lambda simulator: len(simulator.requests) > before)
    client.close()
    entering.join(PATIENCE_SECONDS)
    assert [type(error) for error in errors] == [UsageError]
    assert "closed" in str(errors[0])


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


def test_options_share_the_connections_and_the_thread(simulator: SyncSimulator, client: SyncEnclaveClient) -> None:
    client.health()
    before = enclave_threads()
    other = client.with_options(timeout=5)
    assert isinstance(other, SyncEnclaveClient)
    assert other.health().ok
    assert enclave_threads() <= before
