"""Standard output and standard error, byte for byte, and flushed with every write.

Both are written by file descriptor, so nothing is left in a buffer. A write runs in a thread of its own: the reader of
a pipe may stall for ever, and that must not hold up Ctrl-C. What a workload printed goes through `untrusted`, which
makes it harmless for a terminal.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TextIO, TypeVar

import anyio.to_thread

from ._errors import CommandError, OutputClosed
from ._text import VisibleText, json_line, json_pretty, one_line

P = ParamSpec("P")
T = TypeVar("T")

PHASE_COLORS = {"succeeded": "green", "running": "cyan", "pending": "cyan", "failed": "red", "killed": "red"}

_DEFAULT_COLUMNS = 80
_STYLES = {
    "plain": "\x1b[0m",
    "dim": "\x1b[2m",
    "error": "\x1b[1;31m",
    "warning": "\x1b[1;33m",
    "red": "\x1b[31m",
    "green": "\x1b[32m",
    "cyan": "\x1b[36m",
}

_running: set[object] = set()


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call that may block for ever. Cancellation leaves the thread behind, whatever the call is doing."""

    def run() -> T:
        mark = object()
        _running.add(mark)
        try:
            return call(*args, **kwargs)
        finally:
            _running.discard(mark)

    return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)


def leave_if_stuck(exit_code: int) -> None:
    """End the process now if a thread was left behind. Python would wait for that thread before it exits."""
    # Python joins the threads of its pool at exit, and one that is stuck in a write never ends.
    if _running:
        os._exit(exit_code)


class Output:
    """One standard stream."""

    def __init__(self, stream: TextIO | None, name: str) -> None:
        # A standard stream that was closed has given up its number, which may by now be that of a connection.
        self._fd = None if stream is None else stream.fileno()
        self._name = name
        self.is_terminal = stream is not None and stream.isatty()
        self.at_line_start = True
        self._encoding = stream.encoding if stream is not None and self.is_terminal else "utf-8"
        self._visible = VisibleText() if self.is_terminal else None
        self.has_escapes = False
        """Whether control characters of a workload's output were shown instead of obeyed."""
        self.set_color("auto")

    def set_color(self, choice: str) -> None:
        """Decide about colour: always, never, or auto, which asks the environment and the terminal."""
        self.is_colored = _wants_color(self.is_terminal) if choice == "auto" else choice == "always"

    def styled(self, text: str, style: str) -> str:
        """The text in a colour, if this output has colours."""
        return f"{_STYLES[style]}{text}{_STYLES['plain']}" if self.is_colored else text

    def columns(self) -> int:
        """How wide the terminal is. $COLUMNS decides, if it is a number that makes sense."""
        given = os.environ.get("COLUMNS", "")
        if given.isascii() and given.isdigit() and int(given) > 0:
            return int(given)
        if self.is_terminal and self._fd is not None:
            with suppress(OSError):
                return os.get_terminal_size(self._fd).columns or _DEFAULT_COLUMNS
        return _DEFAULT_COLUMNS

    def is_abandoned(self) -> bool:
        """Whether this is a pipe that nobody can read any more."""
        if sys.platform == "win32" or self._fd is None or self.is_terminal:  # Windows has no poll
            return False
        poll = select.poll()
        poll.register(self._fd, 0)  # errors are reported without being asked for
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))

    def obey(self) -> None:
        """From now on, let a terminal act on the control characters of a workload's output."""
        self._visible = None

    async def untrusted(self, text: str) -> None:
        """Write a piece of a workload's output."""
        # An escape is always longer than the character that it shows.
        shown = self._visible.feed(text) if self._visible else text
        self.has_escapes = self.has_escapes or len(shown) > len(text)
        await self.write(shown)

    async def end_untrusted(self) -> None:
        """Write what was held back of a workload's output."""
        if self._visible:
            await self.write(self._visible.end())

    async def write(self, text: str) -> None:
        """Write text of our own.

        Raises:
            OutputClosed: nobody reads it any more.
            CommandError: it cannot be written, as on a full disk.
        """
        if text:
            await in_thread(self.write_now, text)

    def write_now(self, text: str) -> None:
        """Write text of our own without a thread. This may block. Raises as `write` does."""
        if self._fd is None:
            raise CommandError(f"standard {self._name} is closed. Redirect it to /dev/null if you do not need it")
        # Noted before the write, which may be left behind half done.
        self.at_line_start = text.endswith("\n")
        try:
            # A terminal may have another encoding than UTF-8, and half of a surrogate pair has none at all.
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


def _wants_color(is_terminal: bool) -> bool:
    # See https://no-color.org and https://force-color.org: both count if they are not empty.
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and os.environ.get("TERM") != "dumb"


class Screen:
    """Both standard streams. What is said to a person goes to standard error alone, so that pipes stay clean."""

    def __init__(self) -> None:
        self.out = Output(sys.stdout, "output")
        self.err = Output(sys.stderr, "error")

    def set_color(self, choice: str) -> None:
        """Decide about colour: always, never or auto."""
        self.out.set_color(choice)
        self.err.set_color(choice)

    def obey(self) -> None:
        """From now on, let the terminal act on the control characters of a workload's output."""
        self.out.obey()
        self.err.obey()

    async def document(self, document: object) -> None:
        """Write a document to standard output as JSON: indented for a person, on one line for a program."""
        await self.out.write(json_pretty(document) if self.out.is_terminal else json_line(document))

    async def status(self, text: str) -> None:
        """Tell a person what is going on. Where standard error is no terminal, this writes nothing."""
        if self.err.is_terminal:
            await in_thread(self.status_now, text)

    def status_now(self, text: str) -> None:
        """Do the same without a thread. This may block."""
        if self.err.is_terminal:
            self._write_line(text, prefix_style="dim", text_style=PHASE_COLORS.get(text, "dim"))

    async def warn(self, text: object) -> None:
        """Say something that must not be missed, on a terminal or not."""
        await in_thread(self.warn_now, text)

    def warn_now(self, text: object) -> None:
        """Do the same without a thread. This may block."""
        self._write_line(text, prefix_style="warning")

    async def fail(self, text: object) -> None:
        """Say what went wrong, on a terminal or not."""
        await in_thread(self.fail_now, text)

    def fail_now(self, text: object) -> None:
        """Do the same without a thread. This may block."""
        self._write_line(text, prefix_style="error")

    def _write_line(self, text: object, *, prefix_style: str, text_style: str | None = None) -> None:
        """Write a line of its own, even if the workload has left the terminal in the middle of one."""
        # Both streams may be the same terminal. A line that the one has not ended is in the way of the other.
        terminals = [stream for stream in (self.out, self.err) if stream.is_terminal]
        fresh = not self.err.is_terminal or all(stream.at_line_start for stream in terminals)
        for stream in terminals:
            stream.at_line_start = True
        line = one_line(text)
        shown = self.err.styled(line, text_style) if text_style else line
        self.err.write_now(f"{'' if fresh else chr(10)}{self.err.styled('enclave:', prefix_style)} {shown}\n")
