"""Programs that run sessions on a cluster, in processes of their own, and in this one the plane that they reach."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from enclave import EnclaveClient, Session
from enclave.simulator import Bounds, Script, Simulator

KEY = "ek_test_" + "k3y" * 10
PATIENCE_SECONDS = 240.0
MARK = "ENCLAVE_TEST_DRIVER"


def wait_until(what: str, holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> float:
    """Seconds until it held."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)  # other processes are waited for, and they tell nobody
    return time.monotonic() - started


class Plane:
    """The simulator, served in a thread of its own."""

    def __init__(self) -> None:
        self.simulator = Simulator(api_key=KEY, bounds=Bounds(max_running=1_000))
        self._scripts: list[Script] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=anyio.run, args=(self._main,))

    async def _main(self) -> None:
        self._stopping = anyio.Event()
        self._token = anyio.lowlevel.current_token()
        async with self.simulator.serve():
            self._ready.set()
            await self._stopping.wait()

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def environment(self) -> dict[str, str]:
        """How a program reaches it."""
        return {"ENCLAVE_BASE_URL": self.simulator.base_url, "ENCLAVE_API_KEY": KEY}

    def stop(self) -> None:
        self.call(self._stopping.set)
        self._thread.join()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return anyio.from_thread.run_sync(function, *arguments, token=self._token)

    def will_run(self, count: int, *, seconds: float = 0.0, hold: bool = False) -> None:
        """The next sessions take so long, or run until they are let go or torn down."""

        def script() -> None:
            for _ in range(count):
                self._scripts.append(self.simulator.script([seconds], result=7, hold=hold))

        self.call(script)

    def let_go(self) -> None:
        """Whatever was held ends."""
        self.call(lambda: [script.release() for script in self._scripts])

    @property
    def phases(self) -> Counter[str]:
        return Counter(self.call(lambda: list(self.simulator.phases.values())))

    @property
    def created(self) -> int:
        return sum(self.phases.values())

    @property
    def live(self) -> int:
        """How many sessions are not torn down."""
        return self.created - self.phases["torn_down"]

    def are_gone(self, ids: set[str]) -> bool:
        return self.call(lambda: all(self.simulator.phases[each] == "torn_down" for each in ids))

    def go_away(self) -> None:
        """Answer no request, until `come_back`."""
        self.call(lambda: self.simulator.faults.refuse(times=None, reset=True))

    def come_back(self) -> None:
        self.call(self.simulator.faults.clear)

    def sessions(self) -> list[Session]:
        async def fetch() -> list[Session]:
            async with EnclaveClient(self.simulator.base_url, api_key=KEY) as client:
                return await client.list()

        return anyio.run(fetch)


class Driver:
    """A run of `python PROGRAM CASE`, and all processes that come from it."""

    def __init__(self, program: Path, case: str, plane: Plane, environment: Mapping[str, str]) -> None:
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, str(program), case],
            env={**os.environ, **plane.environment, "PYTHONPATH": str(program.parent), **environment, MARK: self._mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    def _read_errors(self) -> None:
        self._errors += [line for line in self.process.stderr if "\tINFO " not in line]  # of its progress

    def says(self, name: str) -> Any:
        """The next fact of this name."""
        for line in self.process.stdout:
            facts = json.loads(line) if line.startswith("{") else {}
            if name in facts:
                return facts[name]
        pytest.fail(f"the driver ended before it said {name}:\n{''.join(self._errors)[-4000:]}")

    def go_on(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def ends(self, code: int = 0) -> None:
        assert self.process.wait(PATIENCE_SECONDS) == code, "".join(self._errors)[-4000:]

    def processes(self, name: str = "") -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process, name)]

    def _is_ours(self, process: psutil.Process, name: str) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.environ().get(MARK) != self._mark:
                return False
            return name in " ".join(process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def stop(self) -> None:
        for process in self.processes():
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(BrokenPipeError):
                pipe.close()
