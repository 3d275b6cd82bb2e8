"""Blocking clients in processes of their own: forked, and at the interpreter's end."""

from __future__ import annotations

import sys

import pytest

from enclave import StdoutFrame
from enclave.simulator import SyncSimulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")

SECONDS = 60.0


def test_a_forked_child_makes_connections_of_its_own(simulator: SyncSimulator, run_program) -> None:
    simulator.script(hold=True)
    printed = run_program("""
        import os, sys
        from enclave import SyncEnclaveClient, UsageError

        client = SyncEnclaveClient()
        with client.session("x") as session:
            stream = session.stream()
            next(iter(stream))
            pid = os.fork()
            if not pid:
                print("child", client.health().ok, session.refresh().phase)
                try:
                    for _ in range(100):
                        next(stream)
                except UsageError as error:
                    print("child", error)
                print("child", sum(1 for _ in zip(session.stream(), range(2))))
                sys.stdout.flush()
            else:
                assert os.waitpid(pid, 0)[1] == 0
        if not pid:
            client.close()
            sys.exit()
        print("parent", client.get(session.id).phase, client.health().ok)
        client.close()
        """)
    assert printed.splitlines() == [
        "child True running",
        "child this SyncFrameStream was opened in the process that this one was forked from. Open another one",
        "child 2",
        "parent torn_down True",
    ]
    assert list(simulator.phases.values()) == ["torn_down"]


def test_a_fork_while_other_threads_call_never_hangs(run_program) -> None:
    printed = run_program("""
        import os, threading
        from enclave import SyncEnclaveClient

        client = SyncEnclaveClient()
        stop = threading.Event()

        def call():
            while not stop.is_set():
                client.health()

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            pid = os.fork()
            if not pid:
                os._exit(0 if client.health().ok else 1)
            assert os.waitpid(pid, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        print("done")
        """)
    assert printed == "done\n"


def test_a_worker_of_a_process_pool_uses_the_client_of_its_module(run_program) -> None:
    printed = run_program("""
        import multiprocessing
        from enclave import SyncEnclaveClient

        client = SyncEnclaveClient()
        client.health()

        def work(_):
            return client.health().ok

        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(work, range(4)))
            pool.close()
            pool.join()
        """)
    assert printed == "[True, True, True, True]\n"


def test_a_client_with_a_transport_of_the_callers_is_refused_in_a_child(run_program) -> None:
    printed = run_program("""
        import os, sys, httpx
        from enclave import SyncEnclaveClient, UsageError

        answer = httpx.MockTransport(lambda request: httpx.Response(200, json={"ok": True}))
        with SyncEnclaveClient("https://control.test", transport=answer) as client:
            client.health()
            pid = os.fork()
            if not pid:
                try:
                    client.health()
                except UsageError as error:
                    print(error)
            else:
                assert os.waitpid(pid, 0)[1] == 0
        """)
    assert "Make a client in this process, with a transport of its own" in printed


def test_a_program_that_ends_without_closing_tears_its_sessions_down(simulator: SyncSimulator, start_program) -> None:
    for _ in range(4):
        simulator.script(hold=True)
    program = start_program("""
        from contextlib import ExitStack
        from enclave import SyncEnclaveClient

        stack = ExitStack()
        client = SyncEnclaveClient()
        session = stack.enter_context(client.session("x"))
        stream = session.stream()
        next(iter(stream))
        outcomes = iter(client.fan_out(["x"] * 3))
        import threading
        threading.Thread(target=lambda: next(outcomes), daemon=True).start()
        while len(client.list()) < 4:
            pass
        print("end")
        """)
    stdout, stderr = program.communicate(timeout=SECONDS)
    assert (program.returncode, stdout) == (0, "end\n"), stderr
    assert list(simulator.phases.values()) == ["torn_down"] * 4


def test_a_program_that_ends_after_its_own_simulator_without_closing_either_says_nothing(run_program) -> None:
    printed = run_program("""
        from enclave import SyncEnclaveClient
        from enclave.simulator import SyncSimulator

        simulator = SyncSimulator().start()
        client = SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key)
        print(client.health().ok)
        """)
    assert printed == "True\n"


@pytest.mark.parametrize("made", ["before", "in the handler"])
def test_a_client_works_in_atexit(simulator: SyncSimulator, run_program, made: str) -> None:
    simulator.script([StdoutFrame("hello")], result=1)
    printed = run_program(f"""
        import atexit

        def at_exit():
            if {made == "before"}:
                used = client
            else:
                used = SyncEnclaveClient()
            with used.session("x") as session:
                frames = [frame.kind for frame in session.stream()]
                print(frames[-1], session.result(int).value, used.map([]))
            used.close()

        atexit.register(at_exit)
        from enclave import SyncEnclaveClient
        if {made == "before"}:
            client = SyncEnclaveClient()
            client.health()
        """)
    assert printed == "end 1 []\n"
    assert list(simulator.phases.values()) == ["torn_down"]


def test_a_name_is_looked_up_in_atexit(simulator: SyncSimulator, run_program) -> None:
    printed = run_program("""
        import atexit, os
        from enclave import SyncEnclaveClient

        url = os.environ["ENCLAVE_BASE_URL"].replace("127.0.0.1", "localhost")

        def at_exit():
            with SyncEnclaveClient(url) as client:
                print(client.health().ok)

        atexit.register(at_exit)
        """)
    assert printed == "True\n"


def test_a_client_works_in_a_finalizer(simulator: SyncSimulator, run_program) -> None:
    printed = run_program("""
        from enclave import SyncEnclaveClient

        class Workspace:
            def __init__(self):
                self.client = SyncEnclaveClient()
                self.session = self.client.run("import time; time.sleep(60)")

            def __del__(self):
                self.session.teardown()
                print(self.session.refresh().phase)
                self.client.close()

        workspace = Workspace()
        del workspace
        """)
    assert printed == "torn_down\n"


def test_under_gevent_other_greenlets_go_on_while_a_call_waits_and_a_second_client_is_refused(
    simulator: SyncSimulator, run_program
) -> None:
    simulator.faults.delay(0.5, path="/healthz")
    printed = run_program("""
        import warnings
        from gevent import monkey

        monkey.patch_all()
        import gevent
        from enclave import SyncEnclaveClient, UsageError

        turns = []

        def other():
            while True:
                turns.append(None)
                gevent.sleep(0.01)

        greenlet = gevent.spawn(other)
        with SyncEnclaveClient() as client:
            print(client.health().ok, len(turns) > 5)
            jobs = [gevent.spawn(client.health) for _ in range(5)]
            gevent.joinall(jobs, raise_error=True)
            with SyncEnclaveClient() as second:
                try:
                    second.health()
                except UsageError as error:
                    print(error)
        greenlet.kill()
        """)
    first, second = printed.splitlines()
    assert first == "True True"
    assert "Share one SyncEnclaveClient" in second
