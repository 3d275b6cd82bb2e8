"""A simulator on a thread of its own, a blocking client of it, and programs that use one in a process of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from textwrap import dedent

import pytest

from enclave import SyncEnclaveClient
from enclave.simulator import SyncSimulator

PROGRAM_SECONDS = 60.0


@pytest.fixture
def simulator() -> Iterator[SyncSimulator]:
    with SyncSimulator() as simulator:
        yield simulator


@pytest.fixture
def client(simulator: SyncSimulator) -> Iterator[SyncEnclaveClient]:
    with SyncEnclaveClient(simulator.base_url, api_key=simulator.api_key) as client:
        yield client


@pytest.fixture
def start_program(simulator: SyncSimulator):
    """`start_program(source)` runs a program that finds the simulator in its environment, with warnings as errors."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "ENCLAVE_BASE_URL": simulator.base_url, "ENCLAVE_API_KEY": simulator.api_key}
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", dedent(source)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a forked child that hangs is killed too, and does not keep the pipes open
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def run_program(start_program):
    """`run_program(source)` gives what a program printed. It must end by itself, without an error or a warning."""

    def run(source: str) -> str:
        process = start_program(source)
        stdout, stderr = process.communicate(timeout=PROGRAM_SECONDS)
        assert (process.returncode, stderr) == (0, "")
        return stdout

    return run
