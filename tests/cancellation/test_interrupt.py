"""Ctrl-C on a real program: no session stays behind, and the program says that it was interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE_SECONDS
from tests.support.plane import ControlPlane

PROGRAM = Path(__file__).with_name("interrupted_program.py")
ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("scenario", "place"),
    [
        ("run", "POST seen"),
        ("run", "POST half"),
        ("session", "POST done"),
        ("session", "GET half"),
        ("map", "POST done"),
        ("map", "GET half"),
    ],
)
def test_an_interrupted_program_leaves_no_session(backend: str, scenario: str, place: str) -> None:
    with ControlPlane().in_thread() as plane:
        gate = plane.hold(place)
        program = [sys.executable, "-W", "error", str(PROGRAM), backend, plane.base_url, scenario]
        with subprocess.Popen(program, stderr=subprocess.PIPE) as process:
            try:
                assert gate.reached.wait(PATIENCE_SECONDS)
                process.send_signal(signal.SIGINT)
                if place.startswith("POST"):
                    # The signal has no echo to wait for. The answer comes when the program must have seen it.
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(0.2)
                gate.opened.set()
                _, stderr = process.communicate(timeout=PATIENCE_SECONDS)
            finally:
                process.kill()
        assert plane.created > 0
        assert plane.sessions == {}
        assert process.returncode not in (0, None)
        assert stderr.rstrip().endswith(b"KeyboardInterrupt"), stderr.decode()
        for word in (b"never retrieved", b"ResourceWarning", b"ExceptionGroup", b"destroyed but it is pending"):
            assert word not in stderr, stderr.decode()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("action", "created"), [("result", 1), ("session", 1), ("stream", 0), ("fan_out", 1), ("teardown", 1)]
)
def test_an_interrupt_at_the_worst_moment_of_a_programs_first_action_breaks_nothing(
    backend: str, action: str, created: int
) -> None:
    program = [sys.executable, "-W", "error", str(PROGRAM.with_name("interrupted_entry.py")), backend]
    with ControlPlane().in_thread() as plane:
        command = [*program, plane.base_url, action]
        done = subprocess.run(command, stderr=subprocess.PIPE, timeout=PATIENCE_SECONDS, check=False)
        assert plane.created <= created
        assert plane.sessions == {}
        assert done.stderr.rstrip().endswith(b"KeyboardInterrupt"), done.stderr.decode()
        for word in (b"corrupted", b"never awaited", b"ExceptionGroup"):
            assert word not in done.stderr, done.stderr.decode()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "action", ["run", "stream", *(pytest.param(action, marks=pytest.mark.long) for action in ("session", "fan_out"))]
)
def test_an_interrupt_at_any_line_of_a_programs_first_action_breaks_nothing(backend: str, action: str) -> None:
    program = [sys.executable, "-W", "error", str(PROGRAM.with_name("interrupted_lines.py")), action, backend]
    # The path is for the tests' own helpers. Coverage cannot be measured, since it needs the same hook.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(program, capture_output=True, timeout=240, check=False, env=environment, text=True)
    assert re.fullmatch(r"\d{3,4} lines\n", done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
