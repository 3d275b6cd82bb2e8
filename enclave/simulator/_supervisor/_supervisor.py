"""Relays output, compares use with budget, reclaims everything."""

# pathlib would double the time this process takes to start.
# ruff: noqa: PTH102, PTH123
from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import struct
import sys
import time

assert sys.platform != "win32"  # noqa: S101 - so that type checkers read no further on Windows

from ._init import EXIT_STATUS, run_init
from ._linux import LINUX, isolate
from ._tree import DiskUse, Usage, kill_tree, reap, remove_shared_files, remove_tree, send_signals

TYPE_CHECKING = False  # as in `typing`, whose import would cost every workload 5 ms
if TYPE_CHECKING:
    from typing import Any

READ_BYTES = 65_536
MAX_UNSENT_BYTES = 262_144
CALM_POLL_SECONDS = 0.05
TENSE_POLL_SECONDS = 0.01
DRAIN_SECONDS = 1.0
SEND_SECONDS = 30.0
HEADER = struct.Struct("!cI")


class Supervisor:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.unsent = bytearray()
        self.kill_reason: str | None = None
        self.abandoned = False
        self.exit: tuple[int, int] | None = None
        self.cpu_seconds = 0.0
        self.peak_bytes = 0
        self.disk = DiskUse(spec["directory"])
        self.workload = 0
        self.init = 0
        self.out = self.err = self.status = -1
        self.started = time.monotonic()
        self.wall_seconds = 0.0

    def run(self) -> None:
        # A simulator that reads slowly must not keep us from looking at the workload's budget.
        os.set_blocking(1, False)
        os.mkdir(self.spec["directory"], 0o700)
        try:
            self._start()
            self._watch()
        finally:
            self._kill()
            if not self.abandoned:
                self._drain()
            remove_tree(self.spec["directory"])
        if not self.abandoned:
            self._send(b"X", self._exit_record())
            self._send_all()

    def _start(self) -> None:
        for name, text in self.spec["files"].items():
            with open(f"{self.spec['directory']}/{name}", "w", encoding=self.spec["encoding"]) as file:
                file.write(text)
        out, err, status, go = os.pipe(), os.pipe(), os.pipe(), os.pipe()
        # A new PID namespace begins with the next fork, so init becomes its first process.
        isolated = isolate(self.spec["isolation"])
        self.started = time.monotonic()
        self.init = os.fork()
        if self.init == 0:
            # Whatever happens, a forked child must not return into its parent's code.
            try:
                null = os.open(os.devnull, os.O_RDWR)
                os.dup2(null, 0)
                os.dup2(null, 1)
                for fd in (out[0], err[0], status[0], go[1], null):
                    os.close(fd)
                run_init(self.spec, {"out": out[1], "err": err[1], "status": status[1], "go": go[0]})
            finally:
                os._exit(1)
        for fd in (out[1], err[1], status[1], go[0]):
            os.close(fd)
        # Init waits for this, so that it knows that its parent was alive after PDEATHSIG was set.
        os.write(go[1], b"g")
        os.close(go[1])
        self.out, self.err, self.status = out[0], err[0], status[0]
        isolation = {name: isolated and on for name, on in self.spec["isolation"].items()}
        self._send(b"S", json.dumps(isolation).encode())

    def _watch(self) -> None:
        """Relay output and hold the workload to its budget until it ends or has to be killed."""
        next_check = 0.0
        while self.exit is None and self.kill_reason is None and not self.abandoned:
            now = time.monotonic()
            if now >= next_check:
                pause = self._check(now)
                next_check = time.monotonic() + pause
                if self.kill_reason is not None:
                    return
            # A look may take as long as the pause that follows it, so the pipes get their turn after every one.
            for fd, _ in self._poller().poll(max(0.0, next_check - time.monotonic()) * 1000 + 1):
                self._handle(fd)

    def _poller(self) -> select.poll:
        poller = select.poll()
        poller.register(0, select.POLLIN)
        poller.register(self.status, select.POLLIN)
        if self.unsent:
            poller.register(1, select.POLLOUT)
        # While much is unsent nothing more is read, and so the workload's own writes block.
        if len(self.unsent) < MAX_UNSENT_BYTES:
            for fd in (self.out, self.err):
                if fd >= 0:
                    poller.register(fd, select.POLLIN)
        return poller

    def _handle(self, fd: int) -> None:
        if fd == 0:
            self.abandoned = True
        elif fd == 1:
            self._send_some()
        elif fd == self.status:
            self._read_status()
        elif not self._relay(fd):
            os.close(fd)
            self.out, self.err = (-1 if open_fd == fd else open_fd for open_fd in (self.out, self.err))

    def _read_status(self) -> None:
        record = os.read(self.status, EXIT_STATUS.size)
        if len(record) < EXIT_STATUS.size:
            # Init was killed: by the workload, or by the kernel for want of memory.
            self.exit = (-signal.SIGKILL, 0)
            return
        value, peak = EXIT_STATUS.unpack(record)
        if self.workload:
            self.exit = (value, peak)
            self.peak_bytes = max(self.peak_bytes, peak * (1024 if LINUX else 1))
        else:
            self.workload = value

    def _check(self, now: float) -> float:
        """Compare use with budget. Returns in how many seconds to look again."""
        wall_left = self.started + float(self.spec["wall_seconds"]) - now
        pause = CALM_POLL_SECONDS
        self.disk.advance()
        removed_bytes = 0
        if LINUX:
            usage = Usage(self.init, self.spec["pids"], uid=self.spec["uid"], own_mounts=self.spec["isolation"]["proc"])
            self._note(usage)
            self.kill_reason = self._over_budget(usage.pids)
            removed_bytes = usage.removed_bytes
            if usage.memory_bytes * 2 > self.spec["memory_bytes"] or usage.pids * 2 > self.spec["pids"]:
                pause = TENSE_POLL_SECONDS
        if self.disk.most_bytes + removed_bytes > self.spec["disk_bytes"]:
            self.kill_reason = "disk_exceeded"
        if wall_left <= 0:
            self.kill_reason = "wall_clock_exceeded"
        return min(pause, wall_left)

    def _note(self, usage: Usage) -> None:
        over = usage.memory_bytes > self.spec["memory_bytes"] and usage.pids <= self.spec["pids"]
        self.peak_bytes = max(self.peak_bytes, usage.exact_memory_bytes() if over else usage.memory_bytes)
        self.cpu_seconds = max(self.cpu_seconds, usage.cpu_seconds)

    def _over_budget(self, pids: int) -> str | None:
        # This one comes first, because too many processes use too much of everything else too.
        if pids > self.spec["pids"]:
            return "pids_exceeded"
        if self.peak_bytes > self.spec["memory_bytes"]:
            return "memory_exceeded"
        if self.cpu_seconds > self.spec["cpu_seconds"]:
            return "cpu_exceeded"
        return None

    def _kill(self) -> None:
        """End every process of the workload, so that none is left."""
        if not self.init:
            return
        self.wall_seconds = time.monotonic() - self.started
        if self.spec["isolation"]["pid"]:
            send_signals([self.init], 0, signal.SIGKILL)
            # This returns once the kernel has ended the whole namespace.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.init, 0)
        kill_tree(os.getpid(), 0 if self.spec["isolation"]["pid"] else self.workload)
        reap()
        remove_shared_files(self.spec["uid"])
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.cpu_seconds = max(self.cpu_seconds, used.ru_utime + used.ru_stime)
        # A workload that ended by itself may have gone over its budget between two looks.
        if self.exit is not None and self.kill_reason is None:
            self.kill_reason = self._over_budget(0)

    def _drain(self) -> None:
        """Relay what the dead left in their pipes."""
        deadline = time.monotonic() + DRAIN_SECONDS
        for fd in (self.out, self.err):
            while fd >= 0 and select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0] and self._relay(fd):
                pass

    def _relay(self, fd: int) -> bool:
        data = os.read(fd, READ_BYTES)
        if data:
            self._send(b"O" if fd == self.out else b"E", data)
        return bool(data)

    def _send(self, kind: bytes, payload: bytes) -> None:
        self.unsent += HEADER.pack(kind, len(payload)) + payload
        if len(self.unsent) >= READ_BYTES or kind != b"X":
            self._send_some()

    def _send_some(self) -> None:
        try:
            sent = os.write(1, self.unsent)
            del self.unsent[:sent]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.abandoned = True

    def _send_all(self) -> None:
        """Hand over the rest, unless the simulator goes away or reads nothing for too long."""
        deadline = time.monotonic() + SEND_SECONDS
        while self.unsent and not self.abandoned and time.monotonic() < deadline:
            ready, writable, _ = select.select([0], [1], [], 1.0)
            if ready:
                return
            if writable:
                self._send_some()

    def _exit_record(self) -> bytes:
        code = self.exit[0] if self.exit else None
        record = {
            "code": 128 - code if code is not None and code < 0 else code,
            "reason": self.kill_reason,
            "wall_ms": round(self.wall_seconds * 1000, 3),
            "cpu_ms": round(self.cpu_seconds * 1000),
            "peak_kb": self.peak_bytes // 1024,
        }
        return json.dumps(record).encode()
