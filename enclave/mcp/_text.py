"""Text from workloads and servers, bounded and printable. Standard library only."""

from __future__ import annotations

MAX_LINE_CHARS = 400
"""How long a line for people is, in characters: an error, or the message of a progress notification."""


class Tail:
    """The end of a text that comes in pieces."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._parts: list[str] = []
        self._kept_chars = 0
        self.total_chars = 0
        """How long the whole text was."""

    def add(self, text: str) -> None:
        """Take the next piece."""
        self.total_chars += len(text)
        self._parts.append(text[-self._max_chars :])
        self._kept_chars += len(self._parts[-1])
        if self._kept_chars > 2 * self._max_chars:
            self._parts = [self.text()]
            self._kept_chars = len(self._parts[0])

    def text(self) -> str:
        """The last `max_chars` characters."""
        return "".join(self._parts)[-self._max_chars :]

    @property
    def cut_chars(self) -> int:
        """How many characters came before them."""
        return max(0, self.total_chars - self._max_chars)


def one_line(text: str) -> str:
    """A text as one printable line of at most `MAX_LINE_CHARS`."""
    line = " ".join(text[: 2 * MAX_LINE_CHARS].split())
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return shown if len(shown) <= MAX_LINE_CHARS else shown[: MAX_LINE_CHARS - 1] + "…"
