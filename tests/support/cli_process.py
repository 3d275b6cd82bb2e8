"""The command line as a process: with pipes, or with a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

from tests.support import PATIENCE_SECONDS

COMMAND = (sys.executable, "-W", "error", "-m", "enclave")


class Environment:
    """Starts commands, and leaves none running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[Command] = []

    def start(self, *arguments: str, terminal: str = "", stdin: bytes | None = None, **environment: str) -> Command:
        """Start `enclave` with these arguments. `terminal` names those of "out" and "err" that are one."""
        command = Command(arguments, self.directory, terminal.split(), stdin, environment)
        self._started.append(command)
        return command

    def run(self, *arguments: str, terminal: str = "", stdin: bytes | None = None, **environment: str) -> Command:
        """Start it and wait for its end."""
        return self.start(*arguments, terminal=terminal, stdin=stdin, **environment).wait()

    def close(self) -> None:
        for command in self._started:
            command.close()


class Terminal:
    """A pseudo-terminal with this process at both of its ends, so that a command can run on it right here."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.stream = os.fdopen(theirs, "w")
        self._written = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how Linux tells that the other end is closed
            while data := os.read(self._ours, 65_536):
                self._written += data

    def close(self) -> str:
        """Close it, and return all that was written to it."""
        self.stream.close()
        self._reader.join(PATIENCE_SECONDS)
        os.close(self._ours)
        return lines(self._written)


def lines(written: bytes) -> str:
    """What was written to a terminal, before it put a carriage return in front of each line feed."""
    return written.decode().replace("\r\n", "\n")


class Command:
    """One process. `out` and `err` are what it wrote to its pipes, `screen` what it wrote to its terminal."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        directory: Path,
        terminal: list[str],
        stdin: bytes | None,
        environment: dict[str, str],
    ) -> None:
        self._texts = {"out": b"", "err": b"", "screen": b""}
        self._fds: dict[int, str] = {}
        theirs = {"out": self._pipe("out"), "err": self._pipe("err"), "screen": self._terminal()}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=directory,
            env={**os.environ, "TERM": "xterm", **environment},
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=theirs["screen" if "out" in terminal else "out"],
            stderr=theirs["screen" if "err" in terminal else "err"],
            start_new_session=True,
        )
        for fd in theirs.values():
            os.close(fd)
        if stdin is not None:
            self.process.stdin.write(stdin)
            self.process.stdin.close()

    def _pipe(self, name: str) -> int:
        ours, theirs = os.pipe()
        self._fds[ours] = name
        return theirs

    def _terminal(self) -> int:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self._fds[ours] = "screen"
        return theirs

    @property
    def code(self) -> int | None:
        return self.process.returncode

    @property
    def out(self) -> str:
        return self._texts["out"].decode()

    @property
    def err(self) -> str:
        return self._texts["err"].decode()

    @property
    def screen(self) -> str:
        return lines(self._texts["screen"])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def until(self, text: str) -> None:
        """Read until it has written this."""
        self._read(lambda: any(text.encode() in written for written in self._texts.values()), f"{text!r}")

    def wait(self) -> Command:
        """Read to the end of everything, and wait for the exit code."""
        self._read(lambda: not self._fds, "the end")
        self.process.wait(PATIENCE_SECONDS)
        return self

    def stop_reading(self, name: str) -> None:
        """Close our end of a pipe."""
        for fd in [fd for fd, text in self._fds.items() if text == name]:
            os.close(fd)
            del self._fds[fd]

    def _read(self, done, what: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            assert self._fds, f"it ended without {what}: {self._texts}"
            assert time.monotonic() < deadline, f"waited too long for {what}: {self._texts}"
            for fd in select.select(list(self._fds), [], [], 1.0)[0]:
                data = b""
                with contextlib.suppress(OSError):  # how Linux tells that nobody holds the terminal any more
                    data = os.read(fd, 65_536)
                self._texts[self._fds[fd]] += data
                if not data:
                    os.close(fd)
                    del self._fds[fd]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE_SECONDS)
        for fd in self._fds:
            os.close(fd)
