"""One run of real code, seen from the simulator's event loop.

A supervisor (see `_supervisor/`) holds the workload to its limits and cleans up. This module starts the supervisor,
takes its records, and makes sure that nothing is left even if the supervisor itself was killed.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import sys
import time
import tokenize
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import msgspec

from enclave.types import EgressPolicy

from ._limits import Budget, budget
from ._output import LineStarts, OutputDecoder
from ._session import Exit, SimulatedSession
from ._share import Share
from ._workplace import Workplace, kill_carriers

READ_BYTES = 32_768
SPAWN_SECONDS = 30.0
GRACE_SECONDS = 30.0
RECLAIM_SECONDS = 10.0
LEFTOVER_SECONDS = 2.0
LEFTOVER_PAUSE_SECONDS = 0.005
SUPERVISOR_LOST = "supervisor_lost"

_HERE = Path(__file__).parent
_START = f"import sys; sys.path.append({str(_HERE)!r}); from _supervisor import main; main()"
_SUPERVISOR = [sys.executable, "-I", "-S", "-c", _START]
_HEADER = struct.Struct("!cI")
_SERVICE_PORTS = {"http": 80, "https": 443}


class Isolation(msgspec.Struct, frozen=True):
    """Which namespaces the machine permits."""

    user: bool = False
    pid: bool = False
    net: bool = False
    proc: bool = False


class _ExitRecord(msgspec.Struct):
    code: int | None
    reason: str | None
    wall_ms: float
    cpu_ms: int
    peak_kb: int


async def probe_isolation() -> Isolation:
    """Try, in a process of its own, which namespaces this machine permits."""
    # The answer serves all later sessions, so the one that happens to ask must not lose it by its own teardown.
    with anyio.move_on_after(SPAWN_SECONDS, shield=True):
        done = await anyio.run_process([*_SUPERVISOR, "--probe"], check=False, stderr=subprocess.DEVNULL)
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=Isolation)
    return Isolation()


class Workload:
    """One run of a session's code."""

    def __init__(
        self,
        session: SimulatedSession,
        isolation: Isolation,
        services: Mapping[str, str],
        workplace: Workplace,
        *,
        max_disk_bytes: int,
    ) -> None:
        self._session = session
        self._services = services
        self._budget: Budget = budget(session.limits, max_disk_bytes)
        self._isolation = isolation
        if not self._wants_own_network():
            self._isolation = msgspec.structs.replace(isolation, net=False)
        self._directory = workplace.path / session.id
        self._uid = workplace.next_uid()
        self._decoders = {b"O": ("stdout", OutputDecoder(reports=True)), b"E": ("stderr", OutputDecoder(reports=False))}
        self._line_starts = LineStarts()
        self._share = Share()
        self._exit: _ExitRecord | None = None

    async def run(self) -> Exit:
        """Run to the end. However it ends, cancelled included, nothing of the workload is left."""
        process = await self._spawn()
        try:
            await self._hand_over(process)
            with anyio.move_on_after(self._budget.wall_seconds + GRACE_SECONDS):
                await self._relay(process)
        finally:
            with anyio.move_on_after(RECLAIM_SECONDS, shield=True):
                await self._reclaim(process)
        return self._outcome()

    async def _spawn(self) -> anyio.abc.Process:
        # A spawn that is cut short would leave a process that nobody knows.
        with anyio.move_on_after(SPAWN_SECONDS, shield=True):
            return await anyio.open_process(_SUPERVISOR, stderr=None, start_new_session=True, env=_library_paths())
        raise TimeoutError("no process could be started")

    async def _hand_over(self, process: anyio.abc.Process) -> None:
        document = msgspec.json.encode(self._specification(await self._endpoints()))
        assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
        # A supervisor that has gone already sends no exit record either, and `_outcome` notices that.
        with suppress(anyio.BrokenResourceError):
            await process.stdin.send(struct.pack("!I", len(document)) + document)

    async def _endpoints(self) -> list[tuple[str, int]]:
        """Where the services are, by name and by address: what a program connects to is the address."""
        found: list[tuple[str, int]] = []
        for url in self._services.values():
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or _SERVICE_PORTS.get(parts.scheme, 0)
            found.append((host, port))
            # A name that does not resolve here does not in the workload either, which will say so.
            with suppress(OSError):
                found += [(str(to[4][0]), port) for to in await anyio.getaddrinfo(host, port)]
        return found

    def _specification(self, endpoints: list[tuple[str, int]]) -> dict[str, Any]:
        name = "main.py" if self._session.request.language == "python" else "main.js"
        argv = _python(name) if name == "main.py" else _node(name, self._budget.memory_bytes)
        return {
            "argv": argv,
            "needed": [os.__file__, *(part for part in argv if part.startswith("/"))],
            "files": {name: self._session.request.code},
            "encoding": _encoding(self._session.request.code) if name == "main.py" else "utf-8",
            "directory": str(self._directory),
            "env": self._environment(endpoints),
            "uid": self._uid,
            "own_network": self._wants_own_network(),
            "isolation": msgspec.structs.asdict(self._isolation),
            # A limit of address space would stop Node, because V8 reserves far more of it than it uses.
            "address_space": name == "main.py",
            **msgspec.structs.asdict(self._budget),
        }

    def _wants_own_network(self) -> bool:
        return self._session.request.egress == EgressPolicy.deny_all() and not self._services

    def _environment(self, endpoints: list[tuple[str, int]]) -> dict[str, str]:
        egress = self._session.request.egress or EgressPolicy.deny_all()
        policy = {"mode": egress.mode, "allow": list(egress.allow), "services": endpoints}
        directory = str(self._directory)
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": directory,
            "TMPDIR": directory,
            **_library_paths(),
            "ENCLAVE_SESSION_ID": self._session.id,
            "ENCLAVE_RUNNER_POLICY": msgspec.json.encode(policy).decode(),
            **{service_variable(name): url for name, url in self._services.items()},
        }

    async def _relay(self, process: anyio.abc.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        unread = bytearray()
        while self._exit is None:
            chunk = None
            with anyio.CancelScope(deadline=self._line_starts.deadline):
                try:
                    chunk = await process.stdout.receive(READ_BYTES)
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    break
            if chunk is None:
                self._give_out_line_starts()
            else:
                self._share.read()
                unread += chunk
                await self._take_records(unread)
        for name, decoder in self._decoders.values():
            self._session.take(name, decoder.flush(final=True))

    async def _take_records(self, unread: bytearray) -> None:
        while len(unread) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(unread)
            end = _HEADER.size + size
            if len(unread) < end:
                return
            payload = bytes(unread[_HEADER.size : end])
            del unread[:end]
            if kind == b"S":
                self._session.start({"isolation": msgspec.json.decode(payload)})
            elif kind == b"X":
                self._exit = msgspec.json.decode(payload, type=_ExitRecord)
            else:
                await self._take_output(*self._decoders[kind], payload)

    async def _take_output(self, stream: str, decoder: OutputDecoder, payload: bytes) -> None:
        """Take output in slices, so that a workload which floods leaves most of the event loop's time to others."""
        start = 0
        while start < len(payload):
            piece = payload[start : start + self._share.slice_bytes]
            start += len(piece)
            began = time.perf_counter()
            decoder.muted = not self._session.wants(stream)
            self._session.take(stream, decoder.feed(piece))
            if pause_seconds := self._share.took(time.perf_counter() - began):
                await anyio.sleep(pause_seconds)
        is_open = decoder.has_partial_line
        self._line_starts.note(stream, payload, is_open=is_open, now=anyio.current_time())

    def _give_out_line_starts(self) -> None:
        due = self._line_starts.due(anyio.current_time())
        for name, decoder in self._decoders.values():
            if name in due:
                self._session.take(name, decoder.flush())

    async def _reclaim(self, process: anyio.abc.Process) -> None:
        """End the supervisor, which ends the workload. Where that fails, kill both."""
        try:
            assert process.stdin is not None  # noqa: S101 - for the type checker: it is a pipe
            # The end of its input tells the supervisor to kill the workload and leave.
            with suppress(anyio.BrokenResourceError):
                await process.stdin.aclose()
            with anyio.move_on_after(RECLAIM_SECONDS - 2):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.aclose()
        if process.returncode != 0:
            await kill_leftovers(self._session.id, self._uid)
        if self._directory.exists():
            try:
                await anyio.to_thread.run_sync(shutil.rmtree, self._directory, True)
            except RuntimeError:  # the program is ending, and can start no thread any more
                shutil.rmtree(self._directory, ignore_errors=True)

    def _outcome(self) -> Exit:
        record = self._exit
        if record is None:
            return Exit(exit_code=None, kill_reason=SUPERVISOR_LOST)
        detail = {"cpuMs": record.cpu_ms, "peakMemoryMb": round(record.peak_kb / 1024, 1)}
        return Exit(exit_code=record.code, kill_reason=record.reason, duration_ms=record.wall_ms, detail=detail)


def _library_paths() -> dict[str, str]:
    """What a Python needs to start that lies apart from its libpython, as setup-python installs it on GitHub."""
    names = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def service_variable(name: str) -> str:
    """The environment variable with the base URL of a service."""
    return "ENCLAVE_SVC_" + "".join(char if char.isalnum() else "_" for char in name.upper())


async def kill_leftovers(session_id: str, uid: int | None) -> None:
    """Kill what a session left whose supervisor was lost, until none is found or `LEFTOVER_SECONDS` passed."""
    with anyio.move_on_after(LEFTOVER_SECONDS):
        while kill_carriers(session_id + "\0", uid):  # noqa: ASYNC110 - the kernel tells nobody
            await anyio.sleep(LEFTOVER_PAUSE_SECONDS)


def _encoding(code: str) -> str:
    """The encoding to store a program in, so that a ``coding:`` cookie in it is true."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(code.encode()).readline)
        code.encode(encoding)
    except (SyntaxError, LookupError, UnicodeEncodeError):
        return "utf-8"  # Python itself will say what is wrong with the cookie
    return encoding.removesuffix("-sig")  # a program with a byte order mark has one already


def _python(name: str) -> list[str]:
    flags = ["-I", "-u", "-B", "-X", "utf8"]
    return [sys.executable, *flags, str(_HERE / "_runners" / "python_runner.py"), name]


def _node(name: str, memory_bytes: int) -> list[str]:
    # The heap may outgrow the budget, so that it is the budget that ends it, with the right reason.
    heap = f"--max-old-space-size={memory_bytes * 2 // (1024 * 1024)}"
    runners = _HERE / "_runners"
    hook = ["--require", str(runners / "node_hook.cjs")]
    return [node_executable() or "node", heap, *hook, str(runners / "node_runner.cjs"), name]


def node_executable() -> str | None:
    """Where Node is, if it is installed."""
    return shutil.which("node")
