"""Blocking clients in processes of their own: interrupted, forked, and at the interpreter's end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enclave import StdoutFrame
from enclave.simulator import SyncSimulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")

SECONDS = 60.0
ROOT = Path(__file__).parent.parent.parent
# A program says "ready" when it is about to wait. It is interrupted when the simulator sees that it waits.
INTERRUPTED = {
    "result": "with client.session('x') as session: session.result()",
    "stream": "with client.session('x') as session: list(session.stream())",
    "stream block": "with client.session('x') as session, session.stream() as frames: list(frames)",
    "fan_out": "for outcome in client.fan_out(['x'] * 3): print(outcome)",
    "fan_out block": "with client.fan_out(['x'] * 3) as outcomes: list(outcomes)",
    "map": "client.map(['x'] * 3)",
    # A stream that nothing refers to would be closed by its finalizer, and Python loses a Ctrl-C that strikes there.
    # It sleeps in pieces, since a Ctrl-C that arrives in the moment before a sleep does not end that sleep.
    "body": "with client.session('x') as session: frames = iter(session.stream()); next(frames); sleep()",
}


@pytest.mark.parametrize("call", INTERRUPTED.values(), ids=INTERRUPTED)
def test_an_interrupted_call_tears_down_what_it_holds(simulator: SyncSimulator, start_program, call: str) -> None:
    sessions = 3 if "['x'] * 3" in call else 1
    for _ in range(sessions):
        simulator.script([StdoutFrame("hello")], hold=True)
    program = start_program(f"""
        import time
        from enclave import SyncEnclaveClient

        def sleep():
            while True: time.sleep(0.05)

        with SyncEnclaveClient() as client:
            {call}
        """)
    simulator.wait_until(lambda simulator: simulator.open_streams == sessions, seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=SECONDS)
    assert list(simulator.phases.values()) == ["torn_down"] * sessions
    assert program.returncode not in (0, None)
    assert stderr.rstrip().endswith("KeyboardInterrupt"), stderr
    for word in ("never retrieved", "never awaited", "ResourceWarning", "ExceptionGroup", "is pending", "ignored"):
        assert word not in stderr, stderr


@pytest.mark.parametrize("call", [INTERRUPTED[name] for name in ("result", "fan_out", "map")])
def test_an_interrupt_that_wakes_no_thread_ends_the_call(simulator: SyncSimulator, start_program, call: str) -> None:
    sessions = 3 if "['x'] * 3" in call else 1
    for _ in range(sessions):
        simulator.script([StdoutFrame("hello")], hold=True)
    # The system gives the signal to the thread of the client's loop, since that was started before the main thread
    # blocked it. Then nothing wakes the main thread, as when a signal arrives in the moment before a wait begins.
    program = start_program(f"""
        import signal
        from enclave import SyncEnclaveClient

        with SyncEnclaveClient() as client:
            client.health()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            {call}
        """)
    simulator.wait_until(lambda simulator: simulator.open_streams == sessions, seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=SECONDS)
    assert list(simulator.phases.values()) == ["torn_down"] * sessions
    assert stderr.rstrip().endswith("KeyboardInterrupt"), stderr


@pytest.mark.parametrize("action", ["run", "session", "stream", "fan_out"])
def test_an_interrupt_at_any_call_leaves_nothing_once_the_client_is_closed(action: str) -> None:
    # Coverage cannot be measured, since the program takes the hook that measures.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("interrupted_calls.py")), action],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # Python warns of coroutines that were interrupted before they began
        timeout=SECONDS,
        check=True,
        env=environment,
        text=True,
    )
    assert re.fullmatch(r"\d{2,3} calls\n", done.stdout)


@pytest.mark.parametrize(
    "call",
    [
        "health()",
        "list()",
        "get('s')",
        "result('s')",
        "audit('s')",
        "teardown('s')",
        "sweep(labels={'a': 'b'})",
        "request('GET', '/sessions')",
        "attach('s').refresh()",
        "attach('s').result()",
        "stream('s').__enter__()",
    ],
)
def test_a_request_that_is_interrupted_is_cancelled(simulator: SyncSimulator, start_program, call: str) -> None:
    simulator.faults.delay(60, times=None)
    program = start_program(f"""
        from enclave import SyncEnclaveClient

        with SyncEnclaveClient() as client:
            client.{call}
        """)
    simulator.wait_until(lambda simulator: bool(simulator.requests), seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=SECONDS)
    assert program.returncode not in (0, None)
    assert stderr.rstrip().endswith("KeyboardInterrupt"), stderr
    assert len(simulator.requests) == 1  # nothing is asked again, and nothing is left to tear down


def test_a_create_that_is_interrupted_leaves_no_session(simulator: SyncSimulator, start_program) -> None:
    simulator.faults.delay(3.0, method="POST")
    program = start_program("""
        from enclave import SyncEnclaveClient

        with SyncEnclaveClient() as client:
            client.run("import time; time.sleep(60)")
        """)
    simulator.wait_until(lambda simulator: bool(simulator.requests), seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=SECONDS)
    assert stderr.rstrip().endswith("KeyboardInterrupt"), stderr
    assert set(simulator.phases.values()) <= {"torn_down"}


def test_a_second_interrupt_no_longer_waits_and_the_session_is_torn_down(
    simulator: SyncSimulator, start_program
) -> None:
    simulator.script(hold=True)
    simulator.faults.delay(5.0, method="DELETE")
    program = start_program("""
        from enclave import SyncEnclaveClient

        client = SyncEnclaveClient()
        try:
            with client.session("x") as session:
                session.result()
        except KeyboardInterrupt:
            print("before" if client.get(session.id).phase == "running" else "after", flush=True)
        """)
    simulator.wait_until(lambda simulator: simulator.open_streams == 1, seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    simulator.wait_until(lambda simulator: simulator.requests[-1].method == "DELETE", seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    stdout, _ = program.communicate(timeout=SECONDS)
    assert (program.returncode, stdout) == (0, "before\n")
    assert set(simulator.phases.values()) == {"torn_down"}


def test_a_client_is_of_use_after_an_interrupt(simulator: SyncSimulator, start_program) -> None:
    simulator.script([StdoutFrame("hello")], hold=True)
    program = start_program("""
        from enclave import SyncEnclaveClient

        with SyncEnclaveClient() as client, client.session("x") as session:
            try:
                session.result()
            except KeyboardInterrupt:
                print(client.health().ok, session.refresh().phase)
            frames = []
            with session.stream() as stream:
                for frame in stream:
                    frames.append(frame.kind)
                    if frame.kind == "stdout":
                        break
                try:
                    print("reading on", flush=True)
                    next(stream)
                except KeyboardInterrupt:
                    session.teardown()
                frames += [frame.kind for frame in stream]
            print(frames)
        """)
    simulator.wait_until(lambda simulator: simulator.open_streams == 1, seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    simulator.wait_until(lambda simulator: simulator.open_streams == 0, seconds=SECONDS)
    simulator.wait_until(lambda simulator: simulator.open_streams == 1, seconds=SECONDS)
    first, said = program.stdout.readline().rstrip(), program.stdout.readline()
    assert said == "reading on\n"
    with pytest.raises(TimeoutError):  # the read has no echo to wait for, and most often it has begun by then
        simulator.wait_until(lambda simulator: simulator.open_streams == 0, seconds=0.5)
    program.send_signal(signal.SIGINT)
    stdout, stderr = program.communicate(timeout=SECONDS)
    assert stderr == ""
    (frames,) = stdout.splitlines()
    assert first == "True running"
    assert frames.count("'stdout'") == 1
    assert frames.endswith("'end']")


def test_an_exception_of_another_signal_cancels_as_well(simulator: SyncSimulator, run_program) -> None:
    simulator.script(hold=True)
    printed = run_program("""
        import signal
        from enclave import SyncEnclaveClient

        class SoftTimeLimit(Exception):
            pass

        def over(*_):
            raise SoftTimeLimit

        signal.signal(signal.SIGALRM, over)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with SyncEnclaveClient() as client:
            try:
                with client.session("x") as session:
                    session.result()
            except SoftTimeLimit:
                print(client.get(session.id).phase)
        """)
    assert printed == "torn_down\n"


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
