"""The simulator for scripts and notebooks."""

from __future__ import annotations

import asyncio
import inspect
import threading

import pytest

from enclave import SyncEnclaveClient
from enclave.pytest_plugin import LiveSimulator
from enclave.simulator import Bounds, Simulator, SyncSimulator
from tests.support import PATIENCE_SECONDS

# How the simulator is served, and its one coroutine, are each class's own. `bind` is for what serves it.
SERVING = {"serve", "bind", "until"}
BLOCKING = {"start", "stop", "call", "simulator", "wait_until"}
FIXTURE = {"until", "close_client"}


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_it_serves_between_start_and_stop_again_and_again() -> None:
    before = set(threading.enumerate())
    simulator = SyncSimulator(bounds=Bounds(max_running=1))
    for _ in range(2):
        assert simulator.start() is simulator
        with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as client:
            session = client.run("import time; time.sleep(60)")
        simulator.stop()
        simulator.stop()
        assert simulator.simulator.phases[session.id] == "torn_down"
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE_SECONDS)  # anyio tells its worker threads to end, and does not wait for that
    assert set(threading.enumerate()) <= before  # a thread of an earlier test may have ended meanwhile


def test_it_can_be_used_where_a_loop_runs() -> None:
    async def cell() -> bool:
        with SyncSimulator() as simulator, SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as client:
            return client.run("enclave.result(1)").result(int).value == 1

    assert asyncio.run(cell())


def test_it_says_so_where_it_is_not_served() -> None:
    simulator = SyncSimulator()
    urls = (lambda: simulator.base_url, lambda: simulator.console_url)
    for use in (*urls, lambda: simulator.phases, simulator.script):
        with pytest.raises(RuntimeError, match=r"use with SyncSimulator\(\) as simulator, or simulator.start\(\)"):
            use()
    with simulator, pytest.raises(RuntimeError, match="served already"):
        simulator.start()
    with pytest.raises(ValueError, match="not loopback"):
        simulator.start(host="192.0.2.1")


def test_it_takes_what_the_simulator_takes() -> None:
    assert inspect.signature(SyncSimulator) == inspect.signature(Simulator)
    ours = inspect.signature(SyncSimulator.start).parameters
    assert ours == inspect.signature(Simulator.serve).parameters
    with pytest.raises(TypeError, match="Bounds"):
        SyncSimulator(bounds=5)  # type: ignore[arg-type]


def test_all_three_simulators_have_the_same_names(enclave_simulator: LiveSimulator) -> None:
    blocking = SyncSimulator()
    assert public(blocking) - BLOCKING == public(blocking.simulator) - SERVING
    assert public(enclave_simulator) - FIXTURE == public(blocking)


@pytest.mark.parametrize("name", sorted(public(Simulator) - SERVING))
def test_a_name_means_the_same_on_each_simulator(name: str) -> None:
    ours, theirs = (inspect.getattr_static(cls, name) for cls in (SyncSimulator, Simulator))
    assert isinstance(ours, property) == isinstance(theirs, property)
    assert inspect.getdoc(ours) == inspect.getdoc(theirs)


def test_what_is_seen_from_another_thread_is_what_the_simulator_sees(simulator: SyncSimulator) -> None:
    simulator.script()
    simulator.script(hold=True)
    with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as client:
        client.run("x").result()
        held = client.run("x")
        assert simulator.running_sessions == [held.id]
        assert simulator.open_connections > 0
        simulator.wait_until(lambda simulator: simulator.unreclaimed_sessions == 1)
        assert simulator.unreclaimed_sessions == 1
        client.teardown(held.id)
        assert simulator.running_sessions == []
    assert simulator.console_url == f"{simulator.base_url}/#key={simulator.api_key}"
    assert simulator.org_id == simulator.org_ids[0]


def test_a_wait_for_a_state_has_an_end(simulator: SyncSimulator) -> None:
    with pytest.raises(TimeoutError):
        simulator.wait_until(lambda simulator: bool(simulator.phases), seconds=0.01)


def test_a_program_may_end_without_stopping_it(start_program) -> None:
    program = start_program("""
        from enclave import SyncEnclaveClient
        from enclave.simulator import SyncSimulator

        simulator = SyncSimulator().start()
        client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)
        client.run("import time; time.sleep(60)")
        block = client.session("import time; time.sleep(60)")
        block.__enter__()
        print("end")
        """)
    stdout, stderr = program.communicate(timeout=60)
    assert (program.returncode, stdout) == (0, "end\n")
    assert "ConnectError" not in stderr  # the client came first
    assert "RuntimeError" not in stderr  # from Python 3.12 on no thread can be started here


def test_a_forked_child_is_told_that_it_does_not_serve(run_program) -> None:
    printed = run_program("""
        import os
        from enclave.simulator import SyncSimulator

        with SyncSimulator() as simulator:
            pid = os.fork()
            if not pid:
                try:
                    simulator.phases
                except RuntimeError as error:
                    print(error)
            else:
                assert os.waitpid(pid, 0)[1] == 0
        """)
    assert "served by the process that this one was forked from" in printed
