"""The command line against a real simulator: in this process where that will do, as a command where it matters.

The simulator lives in a thread with an event loop of its own, so that plain tests can script it and ask what it saw.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from enclave.cli import main
from enclave.simulator import Simulator
from tests.support.cli_process import Environment, Terminal
from tests.support.wire import refused_port


class Done(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


class Watched(NamedTuple):
    """What a command left that had a terminal."""

    code: int
    out: str
    err: str
    screen: str


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture(scope="session")
def served(portal) -> Iterator[Simulator]:
    with portal.wrap_async_context_manager(Simulator().serve()) as simulator:
        yield simulator


@pytest.fixture
def there(portal):
    """`there(script.release)` calls something in the simulator's event loop, which it may have to wake."""
    return portal.call


@pytest.fixture
def simulator(served, monkeypatch) -> Iterator[Simulator]:
    """The simulator, named by the environment. A test that leaves a session running fails."""
    before = set(served.phases)
    monkeypatch.setenv("ENCLAVE_BASE_URL", served.base_url)
    monkeypatch.setenv("ENCLAVE_API_KEY", served.api_key)
    yield served
    served.faults.clear()
    assert {phase for session, phase in served.phases.items() if session not in before} <= {"torn_down"}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what we start would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens."""
    with refused_port() as port:
        yield port


@pytest.fixture
def cli(capfd, monkeypatch):
    """`cli("ls", "--json")` runs a command in this process."""

    def run(*arguments: str, stdin: bytes | None = None) -> Done:
        if stdin is None:
            code = main(list(arguments))
        else:
            with tempfile.TemporaryFile() as file:
                file.write(stdin)
                file.seek(0)
                with os.fdopen(os.dup(file.fileno())) as stream:
                    monkeypatch.setattr(sys, "stdin", stream)
                    code = main(list(arguments))
        out, err = capfd.readouterr()
        return Done(code, out, err)

    return run


@pytest.fixture
def watched(capfd, monkeypatch):
    """`watched("ls", terminal="out err")` runs a command in this process, on a terminal. `screen` is what it shows."""

    def run(*arguments: str, terminal: str, **environment: str) -> Watched:
        for name, value in {"TERM": "xterm", **environment}.items():
            monkeypatch.setenv(name, value)
        pseudo = Terminal()
        with monkeypatch.context() as patched:
            for name in terminal.split():
                patched.setattr(sys, f"std{name}", pseudo.stream)
            code = main(list(arguments))
        screen = pseudo.close()
        out, err = capfd.readouterr()
        return Watched(code, out, err, screen)

    return run


@pytest.fixture
def command(simulator, tmp_path) -> Iterator[Environment]:
    """Commands as processes of their own, in an empty directory. Those still running at the end are killed."""
    environment = Environment(tmp_path)
    yield environment
    environment.close()


@pytest.fixture
def program(tmp_path):
    """`program(text)` is the path of a Python file."""

    def write(text: str, name: str = "job.py") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write
