"""Standard output and standard error, byte for byte and flushed with every write.

They are written by file descriptor: nothing is left in a buffer, and a write that a stalled reader holds up is in a
thread of its own. What comes from outside passes through `untrusted`, which makes it harmless for a terminal.
"""

from __future__ import annotations

import os
import select
import sys
from typing import TextIO

from ._blocking import in_thread
from ._errors import CommandError, OutputClosed
from ._text import VisibleText, one_line

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class Output:
    """One standard stream."""

    def __init__(self, stream: TextIO | None, name: str) -> None:
        # Without a stream, the descriptor of its number may by now be something else, such as a connection.
        self._fd = None if stream is None else stream.fileno()
        self._name = name
        self.is_terminal = stream is not None and stream.isatty()
        self.at_line_start = True
        self._encoding = stream.encoding if stream is not None and self.is_terminal else "utf-8"
        self._visible = VisibleText() if self.is_terminal else None

    def obey(self) -> None:
        """From now on let a terminal do what control characters ask for."""
        self._visible = None

    async def untrusted(self, text: str) -> None:
        """Write a piece of a workload's output."""
        await self.write(self._visible.feed(text) if self._visible else text)

    async def end_untrusted(self) -> None:
        """The workload's output is complete."""
        if self._visible:
            await self.write(self._visible.end())

    async def write(self, text: str) -> None:
        """Write text of our own.

        Raises:
            OutputClosed: nobody reads it any more. OSError: it cannot be written, as on a full disk.
        """
        if text:
            await in_thread(self.write_now, text)

    def write_now(self, text: str) -> None:
        """The same, from here; it may block."""
        if self._fd is None:
            raise CommandError(f"standard {self._name} is closed; redirect it to /dev/null to drop it")
        self.at_line_start = text.endswith("\n")
        try:
            _write_all(self._fd, text.encode(self._encoding, "backslashreplace"))
        except BrokenPipeError:
            raise OutputClosed from None
        except OSError as error:
            raise CommandError(f"standard {self._name}: {error.strerror}") from error


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # whoever started us left the pipe in non-blocking mode
            select.select([], [fd], [])


class Screen:
    """Both streams, and what is said to a person: on a terminal's standard error only, so that pipes stay clean."""

    def __init__(self) -> None:
        self.out = Output(sys.stdout, "output")
        self.err = Output(sys.stderr, "error")
        self._styled = self.err.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def obey(self) -> None:
        """From now on let the terminal do what a workload's output asks for."""
        self.out.obey()
        self.err.obey()

    async def status(self, text: str) -> None:
        """Say what is going on, to a person."""
        if self.err.is_terminal:
            await self.err.write(self._status_line(text))

    def status_now(self, text: str) -> None:
        """The same, from here; it may block."""
        if self.err.is_terminal:
            self.err.write_now(self._status_line(text))

    async def warn(self, text: object) -> None:
        """Say something that must not be missed, terminal or not."""
        await self.err.write(self._line(text))

    def warn_now(self, text: object) -> None:
        """The same, from here; it may block."""
        self.err.write_now(self._line(text))

    def _status_line(self, text: str) -> str:
        line = self._line(text)
        return f"{_DIM}{line[:-1]}{_PLAIN}\n" if self._styled else line

    def _line(self, text: object) -> str:
        """A line of its own, even where the workload has left the terminal in the middle of one."""
        terminals = [stream for stream in (self.out, self.err) if stream.is_terminal]
        fresh = not self.err.is_terminal or all(stream.at_line_start for stream in terminals)
        for stream in terminals:
            stream.at_line_start = True
        return f"{'' if fresh else chr(10)}enclave: {one_line(text)}\n"
