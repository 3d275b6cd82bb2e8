"""Ctrl-C in programs that use a blocking client: what it ends, what it tears down, and what goes on after it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pytest

from enclave import StdoutFrame
from enclave.simulator import SyncSimulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SECONDS = 60.0
ROOT = Path(__file__).parent.parent.parent
# Each is interrupted when the simulator sees that its streams are open.
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


def interrupted(simulator: SyncSimulator, start_program: Callable[[str], Popen[str]], call: str, before: str) -> str:
    """Interrupt a program in this call. Gives what it wrote to standard error."""
    sessions = 3 if "['x'] * 3" in call else 1
    for _ in range(sessions):
        simulator.script([StdoutFrame("hello")], hold=True)
    program = start_program(f"""
        import signal, time
        from enclave import SyncEnclaveClient

        def sleep():
            while True: time.sleep(0.05)

        with SyncEnclaveClient() as client:
            {before}
            {call}
        """)
    simulator.wait_until(lambda simulator: simulator.open_streams == sessions, seconds=SECONDS)
    program.send_signal(signal.SIGINT)
    _, stderr = program.communicate(timeout=SECONDS)
    assert list(simulator.phases.values()) == ["torn_down"] * sessions
    assert program.returncode not in (0, None)
    assert stderr.rstrip().endswith("KeyboardInterrupt"), stderr
    return stderr


@pytest.mark.parametrize("call", INTERRUPTED.values(), ids=INTERRUPTED)
def test_an_interrupted_call_tears_down_what_it_holds(simulator: SyncSimulator, start_program, call: str) -> None:
    stderr = interrupted(simulator, start_program, call, before="")
    for word in ("never retrieved", "never awaited", "ResourceWarning", "ExceptionGroup", "is pending", "ignored"):
        assert word not in stderr, stderr


@pytest.mark.parametrize("call", [INTERRUPTED[name] for name in ("result", "fan_out", "map")])
def test_an_interrupt_that_wakes_no_thread_ends_the_call(simulator: SyncSimulator, start_program, call: str) -> None:
    # The system gives the signal to the thread of the client's loop, since that was started before the main thread
    # blocked it. Then nothing wakes the main thread, as when a signal arrives in the moment before a wait begins.
    before = "client.health(); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])"
    interrupted(simulator, start_program, call, before)


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
